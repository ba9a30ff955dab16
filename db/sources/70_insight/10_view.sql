-- Who may look, and at what: the schedules that a question is about.

create or replace function fleet.schedule_in_view(p_schedule_id bigint)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules;
begin
  select s.* into v_row
  from public.schedules as s
  where s.id = p_schedule_id and fleet.is_visible_owner(s.owner_id);
  if not found then
    perform fleet.raise_not_found(format('schedule %s', p_schedule_id));
  end if;
  return v_row;
end;
$$;

comment on function fleet.schedule_in_view(bigint) is
  'The schedule, if the caller may see it; unlike schedule_of_caller it locks nothing. Raises schedule_not_found (PT404).';
revoke all on function fleet.schedule_in_view(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.device_in_view(p_device_id bigint, p_owner_id uuid)
returns public.devices
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.devices;
begin
  select d.* into v_row from public.devices as d where d.id = p_device_id and d.owner_id = p_owner_id;
  if not found then
    perform fleet.raise_not_found(format('device %s', p_device_id));
  end if;
  return v_row;
end;
$$;

comment on function fleet.device_in_view(bigint, uuid) is
  'The device, if it has the owner whose schedules are looked at. Raises device_not_found (PT404).';
revoke all on function fleet.device_in_view(bigint, uuid) from public, anon, authenticated, service_role;

create or replace function fleet.owners_in_view()
returns uuid[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when fleet.is_trusted_caller() then array(select o.id from public.owners as o)
    else array(select o.id from fleet.my_owners() as o(id))
  end
$$;

comment on function fleet.owners_in_view() is
  'The owners whose fleets the caller sees: his own and those he is a member of; all of them inside the database; none for a device.';
revoke all on function fleet.owners_in_view() from public, anon, authenticated, service_role;

create or replace function fleet.owner_in_mind(p_owner_id uuid)
returns uuid
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid := coalesce(p_owner_id, fleet.usual_owner());
begin
  if v_owner is null then
    -- Nobody is signed in: the default, or the error about it. It writes only for a person.
    v_owner := fleet.resolve_owner();
  end if;
  perform fleet.require_permission(v_owner, 'view', format('owner %s', v_owner));
  return v_owner;
end;
$$;

comment on function fleet.owner_in_mind(uuid) is
  'The owner that was named or whose rows the caller would make, without making it. Raises owner_not_found (PT404), owner_missing '
  '(PT422) or not_a_person (PT403).';
revoke all on function fleet.owner_in_mind(uuid) from public, anon, authenticated, service_role;

create or replace function fleet.require_span(p_from timestamptz, p_to timestamptz, p_most interval)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_from is null or p_to is null or not isfinite(p_from) or not isfinite(p_to)
    or p_to <= p_from or p_to > p_from + p_most
  then
    raise exception 'from % to % is not a span of at most %', coalesce(p_from::text, 'null'), coalesce(p_to::text, 'null'), p_most
      using errcode = 'PT422',
            detail = 'span_invalid',
            hint = 'Let p_to be after p_from, and ask for less at once.';
  end if;
end;
$$;

comment on function fleet.require_span(timestamptz, timestamptz, interval) is
  'Raise span_invalid (PT422) unless p_to is after p_from by at most so much.';
revoke all on function fleet.require_span(timestamptz, timestamptz, interval)
  from public, anon, authenticated, service_role;

create or replace function fleet.has_clock(p_schedule public.schedules)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- By device time the zones that are gone are left out one by one.
  perform timestamptz 'epoch' at time zone (p_schedule.recurrence ->> 'clock');
  return p_schedule.timezone = 'device' or fleet.zones_of_server(array[p_schedule.timezone]) <> '{}';
exception
  when invalid_parameter_value then
    return false;
end;
$$;

comment on function fleet.has_clock(public.schedules) is
  'Whether the server has the time zone in which the times of a schedule are read. One that it has no more is left out of what shows many.';
revoke all on function fleet.has_clock(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.lost_zones(p_owner_ids uuid[])
returns table (zone text, devices bigint, schedules text[])
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with used as (
    select z.zone, sum(z.devices) as devices, null::text as schedule
    from fleet.owner_zones as z
    where z.owner_id = any (p_owner_ids) and z.zone <> '' and z.devices > 0
    group by z.zone
    union all
    select s.timezone, 0, s.name
    from public.schedules as s
    where s.owner_id = any (p_owner_ids) and s.status in ('active', 'paused') and s.timezone <> 'device'
  ),
  here as materialized (
    select fleet.zones_of_server(array(select distinct u.zone from used as u)) as zones
  )
  select u.zone, sum(u.devices)::bigint,
    (array_agg(u.schedule order by u.schedule) filter (where u.schedule is not null))[1:20]
  from used as u
  cross join here as h
  where u.zone <> all (h.zones)
  group by u.zone
  order by u.zone
$$;

comment on function fleet.lost_zones(uuid[]) is
  'Time zones that devices or schedules of these owners are in and that this server does not have, under any name: how many devices, and '
  'which schedules. They are left out, the rest goes on.';
revoke all on function fleet.lost_zones(uuid[]) from public, anon, authenticated, service_role;
