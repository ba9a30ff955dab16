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

create or replace function fleet.judge_location(p_location public.locations, p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_stale_after interval := fleet.stale_position_after();
  v_ids bigint[];
  v_fixes jsonb;
  v_judged jsonb;
  v_positions jsonb;
begin
  select array_agg(d.id order by d.id) into v_ids
  from public.devices as d
  join public.device_positions as p on p.device_id = d.id and p.fix_at > p_now - v_stale_after and p.lost_at is null
  left join public.device_places as x on x.device_id = d.id and x.location_id = p_location.id
  where d.owner_id = p_location.owner_id
    and d.status = 'active'
    -- The latest that is known of it is also what was judged.
    and d.located_at = p.fix_at
    and (
      x.is_inside
      or fleet.distance_m(p_location.latitude, p_location.longitude, d.latitude, d.longitude)
        <= p_location.reach_m + coalesce(d.accuracy_m, p_location.hysteresis_m)
    );
  if v_ids is null then
    return 0;
  end if;

  perform 1 from public.device_positions as p where p.device_id = any (v_ids) order by p.device_id for update;
  select coalesce(jsonb_agg(jsonb_build_object(
      'device_id', k.device_id, 'owner_id', k.owner_id, 'latitude', k.latitude, 'longitude', k.longitude, 'accuracy_m', k.accuracy_m,
      'at', k.fix_at
    )), '[]'),
    coalesce(jsonb_agg(jsonb_build_object(
      'device_id', k.device_id, 'owner_id', k.owner_id, 'fix_at', k.fix_at, 'location_id', p_location.id,
      'location_name', p_location.name, 'side', k.side, 'was_inside', k.was_inside, 'is_inside', k.side = 'inside', 'since', p_now
    )), '[]'),
    coalesce(jsonb_agg(jsonb_build_object(
      'device_id', k.device_id, 'was_outside_all', true, 'is_outside_all', false, 'outside_since', null
    )) filter (where k.side = 'inside' and k.is_outside_all), '[]')
  into v_fixes, v_judged, v_positions
  from (
    select d.id as device_id, d.owner_id, d.latitude, d.longitude, d.accuracy_m, p.fix_at, p.is_outside_all,
      coalesce(x.is_inside, false) as was_inside,
      fleet.side_of_fix(
        fleet.border_distance_m(p_location, d.latitude, d.longitude), coalesce(d.accuracy_m, p_location.hysteresis_m),
        p_location.hysteresis_m, coalesce(x.is_inside, false)
      ) as side
    from public.devices as d
    join public.device_positions as p on p.device_id = d.id
    left join public.device_places as x on x.device_id = d.id and x.location_id = p_location.id
    where d.id = any (v_ids)
  ) as k
  -- Where the border moves, nobody has to wait until a second fix says the same: the device did not move.
  where k.side <> 'unclear' and (k.side = 'inside') <> k.was_inside;
  perform fleet.store_device_places(v_judged);
  perform fleet.store_positions(v_positions, v_fixes);
  return fleet.record_location_events(v_fixes, v_judged, v_positions);
end;
$$;

comment on function fleet.judge_location(public.locations, timestamptz) is
  'Judge a location that is new, or has another border, by where its owner''s devices are known to be. Answers how many events came of it.';
revoke all on function fleet.judge_location(public.locations, timestamptz) from public, anon, authenticated, service_role;

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
