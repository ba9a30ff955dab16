-- What each tick does about locations.

create or replace function fleet.record_lost_positions(p_now timestamptz, p_limit integer default 1000)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_stale_after interval := fleet.stale_position_after();
  v_count integer;
begin
  with lost as (
    update public.device_positions as p
    set lost_at = p.fix_at + v_stale_after
    where p.device_id in (
      select x.device_id
      from public.device_positions as x
      where x.lost_at is null and x.fix_at < p_now - v_stale_after
      order by x.fix_at
      limit p_limit
      for update skip locked
    )
    returning p.device_id, p.owner_id, p.fix_at, p.lost_at
  )
  insert into public.location_events (owner_id, device_id, event, at, fix_at, acted_at)
  select l.owner_id, l.device_id, 'position_lost', l.lost_at, l.fix_at, p_now
  from lost as l
  on conflict do nothing;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.record_lost_positions(timestamptz, integer) is
  'Record devices whose latest fix is older than the setting stale_position_hours: their position is unknown, their places stay as they were.';
revoke all on function fleet.record_lost_positions(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.tend_locations(p_now timestamptz)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_acted integer;
begin
  perform fleet.record_lost_positions(p_now);
  v_acted := fleet.act_on_location_events(p_now);
  return jsonb_build_object(
    'location_events', v_acted,
    -- Only after some progress: what another session holds must not keep this one spinning.
    'more', v_acted > 0 and exists (select 1 from public.location_events as e where e.acted_at is null)
  );
end;
$$;

comment on function fleet.tend_locations(timestamptz) is
  'What each tick does about locations: record positions that are lost, act on events that wait. {location_events, more}: how many were acted '
  'on, and whether more wait.';
revoke all on function fleet.tend_locations(timestamptz) from public, anon, authenticated, service_role;
