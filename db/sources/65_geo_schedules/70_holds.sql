-- Blocking by a profile of the MDM: what runs now, where the device is, and so which profiles are held.

create or replace function fleet.geo_holds_wanted(p_owner_id uuid, p_now timestamptz)
returns table (device_id bigint, profile_id text, holder text, owner_id uuid, until timestamptz, geo_action_id bigint)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select distinct on (x.device_id, x.enforce ->> 'profile_id', h.holder)
    x.device_id, x.enforce ->> 'profile_id', h.holder, x.owner_id, x.ends_at, x.geo_action_id
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
  'The profiles that geo schedules of an owner hold at this instant, on which devices.';
revoke all on function fleet.geo_holds_wanted(uuid, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.hold_geo_profiles(p_owner_id uuid, p_now timestamptz)
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
  ), released as (
    delete from public.profile_holds as h
    where h.owner_id = p_owner_id
      and h.holder like 'geo schedule %'
      and not exists (
        select 1 from wanted as w
        where w.device_id = h.device_id and w.profile_id = h.profile_id and w.holder = h.holder
      )
    returning h.device_id, h.holder
  ), taken as (
    insert into public.profile_holds as h (device_id, profile_id, holder, owner_id, until)
    select w.device_id, w.profile_id, w.holder, w.owner_id, w.until
    from wanted as w
    on conflict (device_id, profile_id, holder) do update set until = excluded.until
      where h.until is distinct from excluded.until
    returning h.device_id, h.profile_id, h.holder
  ), met as (
    insert into public.geo_action_reports as r (geo_action_id, device_id, owner_id, status, location_met_at, reported_at)
    select w.geo_action_id, w.device_id, w.owner_id, 'running', p_now, p_now
    from taken as t
    join wanted as w on w.device_id = t.device_id and w.profile_id = t.profile_id and w.holder = t.holder
    on conflict (geo_action_id, device_id) do nothing
  )
  select (select count(*) from released) + (select count(*) from taken) into v_count;

  update public.geo_action_reports as r
  set status = 'finished', reported_at = p_now
  from public.geo_actions as a
  where a.id = r.geo_action_id
    and r.owner_id = p_owner_id
    and a.enforce is not null
    and r.status = 'running'
    and a.ends_at <= p_now;

  if v_count > 0 then
    perform fleet.reconcile_owner(p_owner_id, p_now);
  end if;
  return v_count;
end;
$$;

comment on function fleet.hold_geo_profiles(uuid, timestamptz) is
  'Bring the profiles that geo schedules hold to what they should be, and push or remove what follows. Answers how many holds changed.';
revoke all on function fleet.hold_geo_profiles(uuid, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.hold_geo_profiles_of_all(p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid;
  v_count integer := 0;
begin
  for v_owner in
    select s.owner_id from public.geo_schedules as s
    where s.enforce is not null and s.deletion_status is distinct from 'DELETED'
    union
    select h.owner_id from public.profile_holds as h where h.holder like 'geo schedule %'
  loop
    begin
      v_count := v_count + fleet.hold_geo_profiles(v_owner, p_now);
    exception
      when query_canceled or admin_shutdown or deadlock_detected then
        raise;
      when others then
        raise warning 'the geo schedules of owner % hold what they held: %', v_owner, sqlerrm;
    end;
  end loop;
  return v_count;
end;
$$;

comment on function fleet.hold_geo_profiles_of_all(timestamptz) is
  'fleet.hold_geo_profiles for every owner, each by itself. Answers how many holds changed.';
revoke all on function fleet.hold_geo_profiles_of_all(timestamptz) from public, anon, authenticated, service_role;
