-- Blocking by a profile of the MDM: what runs now, where the device is, and so which profiles are held.

create or replace function fleet.geo_holds_wanted(p_owner_id uuid, p_now timestamptz)
returns table (
  device_id bigint, profile_id text, holder text, owner_id uuid, until timestamptz, geo_action_id bigint, is_held boolean
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select distinct on (x.device_id, x.enforce ->> 'profile_id', h.holder)
    x.device_id, x.enforce ->> 'profile_id', h.holder, x.owner_id, x.ends_at, x.geo_action_id, p.device_id is not null
  from fleet.geo_actions_of_devices(
    array(
      select distinct c.device_id
      from public.geo_schedules as s
      join public.geo_commitments as c on c.geo_schedule_id = s.id
      where s.owner_id = p_owner_id and s.enforce is not null and s.deletion_status is distinct from 'DELETED'
    ),
    p_now
  ) as x
  join public.devices as d on d.id = x.device_id
  cross join lateral (select 'geo schedule ' || x.geo_schedule_id as holder) as h
  left join public.profile_holds as p
    on p.device_id = x.device_id and p.profile_id = x.enforce ->> 'profile_id' and p.holder = h.holder
  cross join lateral (
    -- A device that is held for being outside counts as one that has left; one not yet held must leave first.
    select fleet.geo_side(
      x.geometry, d, x.max_location_age, (x.side = 'inside') = (p.device_id is not null), p_now
    ) as side
  ) as l
  where x.enforce is not null
    and x.is_owed
    and x.starts_at <= p_now
    and x.ends_at > p_now
    and fleet.is_geo_met(l.side, x.side, x.unknown_location, p.device_id is not null)
  order by x.device_id, x.enforce ->> 'profile_id', h.holder, x.ends_at desc
$$;

comment on function fleet.geo_holds_wanted(uuid, timestamptz) is
  'The profiles that geo schedules of an owner hold at this instant, on which devices, and whether they do so already.';
revoke all on function fleet.geo_holds_wanted(uuid, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.report_geo_holds(p_owner_id uuid, p_error text, p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  with wanted as materialized (
    select w.* from fleet.geo_holds_wanted(p_owner_id, p_now) as w
  ), told as (
    select w.geo_action_id, w.device_id, w.owner_id,
      case
        when p_error is not null then p_error
        when p.is_installed then null
        when m.device_id is null then 'the device is in no MDM'
        -- What failed before it was held is tried first.
        when w.is_held and c.status in ('failed', 'expired') then concat_ws(': ', 'the profile was not installed', c.error_message)
      end as reason
    from wanted as w
    left join public.device_profiles as p on p.device_id = w.device_id and p.profile_id = w.profile_id
    left join fleet.mdms_of(array(select x.device_id from wanted as x)) as m on m.device_id = w.device_id
    left join lateral (
      select x.status, x.error_message
      from public.device_commands as x
      where x.device_id = w.device_id
        and x.channel = 'mdm'
        and x.command_type = 'push_profile'
        and x.payload ->> 'profile_id' = w.profile_id
      order by x.id desc
      limit 1
    ) as c on p.is_installed is not true
  ), changed as (
    select t.geo_action_id, t.device_id, t.owner_id, case when t.reason is null then 'running' else 'failed' end as status,
      left(t.reason, 2000) as reason
    from told as t
    left join public.geo_action_reports as r on r.geo_action_id = t.geo_action_id and r.device_id = t.device_id
    where r.geo_action_id is null
      -- One whose profile came after all is running again.
      or (r.status in ('scheduled', 'running', 'failed') and r.reason is distinct from left(t.reason, 2000))
  )
  insert into public.geo_action_reports as r (geo_action_id, device_id, owner_id, status, location_met_at, reason, reported_at)
  select c.geo_action_id, c.device_id, c.owner_id, c.status, p_now, c.reason, p_now
  from changed as c
  on conflict (geo_action_id, device_id) do update
    set status = excluded.status, reason = excluded.reason, reported_at = excluded.reported_at,
        location_met_at = coalesce(r.location_met_at, excluded.location_met_at);
  get diagnostics v_count = row_count;

  update public.geo_action_reports as r
  set status = 'finished', reported_at = p_now
  from public.geo_actions as a
  where a.id = r.geo_action_id
    and r.owner_id = p_owner_id
    and a.enforce is not null
    and r.status = 'running'
    and a.ends_at <= p_now;
  return v_count;
end;
$$;

comment on function fleet.report_geo_holds(uuid, text, timestamptz) is
  'Say of the actions that hold profiles now what their devices would: running, or failed with the reason, which is p_error for all where it '
  'is given; finished when they are over. Answers how many are told anew.';
revoke all on function fleet.report_geo_holds(uuid, text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.hold_geo_profiles(p_owner_id uuid, p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  perform fleet.report_geo_holds(p_owner_id, null, p_now);
  with wanted as materialized (
    select w.* from fleet.geo_holds_wanted(p_owner_id, p_now) as w
  ), released as (
    delete from public.profile_holds as h
    where h.owner_id = p_owner_id
      and h.holder like 'geo schedule %'
      and not exists (
        select 1 from wanted as w
        where w.device_id = h.device_id and w.profile_id = h.profile_id and w.holder = h.holder
      )
    returning h.device_id
  ), taken as (
    insert into public.profile_holds as h (device_id, profile_id, holder, owner_id, until)
    select w.device_id, w.profile_id, w.holder, w.owner_id, w.until
    from wanted as w
    -- What is held as long already is not touched: a conflict alone would write to the log.
    where not exists (
      select 1 from public.profile_holds as x
      where x.device_id = w.device_id and x.profile_id = w.profile_id and x.holder = w.holder and x.until = w.until
    )
    on conflict (device_id, profile_id, holder) do update set until = excluded.until
    returning h.device_id
  )
  select (select count(*) from released) + (select count(*) from taken) into v_count;
  if v_count > 0 then
    perform fleet.reconcile_owner(p_owner_id, p_now);
  end if;
  return v_count;
end;
$$;

comment on function fleet.hold_geo_profiles(uuid, timestamptz) is
  'Bring the profiles that geo schedules hold to what they should be, and push or remove what follows. Answers how many holds changed.';
revoke all on function fleet.hold_geo_profiles(uuid, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.owners_with_geo_holds()
returns setof uuid
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select s.owner_id from public.geo_schedules as s
  where s.enforce is not null and s.deletion_status is distinct from 'DELETED'
  union
  select h.owner_id from public.profile_holds as h where h.holder like 'geo schedule %'
$$;

comment on function fleet.owners_with_geo_holds() is 'Owners whose geo schedules block by profiles, or did so until now.';
revoke all on function fleet.owners_with_geo_holds() from public, anon, authenticated, service_role;

create or replace function fleet.try_geo_holds(p_owner_id uuid, p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_error text;
begin
  begin
    return fleet.hold_geo_profiles(p_owner_id, p_now);
  exception
    when query_canceled or admin_shutdown or deadlock_detected then
      raise;
    when others then
      v_error := sqlerrm;
  end;
  -- Its owner is told, and nobody else waits for it.
  begin
    perform fleet.report_geo_holds(p_owner_id, 'the profile is not held: ' || left(v_error, 500), p_now);
  exception
    when query_canceled or admin_shutdown or deadlock_detected then
      raise;
    when others then
      raise warning 'the geo schedules of owner % hold what they held: %; %', p_owner_id, v_error, sqlerrm;
  end;
  return 0;
end;
$$;

comment on function fleet.try_geo_holds(uuid, timestamptz) is
  'fleet.hold_geo_profiles, whose failure is told by the reports of the actions that hold now (geo_action.failed). Answers how many holds changed.';
revoke all on function fleet.try_geo_holds(uuid, timestamptz) from public, anon, authenticated, service_role;
