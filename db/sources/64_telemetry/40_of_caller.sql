-- Telemetry as people and devices read it: the device is made out here, and passed on.

create or replace function fleet.telemetry_device(p_device_id bigint)
returns bigint
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device public.devices;
begin
  select d.* into v_device from public.devices as d where d.id = p_device_id;
  if v_device.id is null
    -- Null, where nobody is signed in, is no yes.
    or (
      fleet.is_trusted_caller() or v_device.owner_id in (select fleet.my_owners()) or v_device.id = fleet.current_device_id()
    ) is distinct from true
  then
    perform fleet.raise_not_found(format('device %s', p_device_id));
  end if;
  return v_device.id;
end;
$$;

comment on function fleet.telemetry_device(bigint) is
  'The device, if the caller may see its telemetry: a member of its owner, or the device itself. Raises device_not_found (PT404). Definer: '
  'devices may not search the devices.';
revoke all on function fleet.telemetry_device(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.telemetry_points(
  p_device_id bigint,
  p_from timestamptz,
  p_to timestamptz,
  p_stream text,
  p_limit integer
)
returns table (
  device_id bigint, stream text, recorded_at timestamptz, received_at timestamptz, source text, is_provisional boolean, path text, data jsonb
)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select p.device_id, p.stream, p.at, p.received_at, p.source, p.is_provisional, p.path, p.data
  from telemetry.read_points(array[fleet.telemetry_device(p_device_id)], p_stream, p_from, p_to, p_limit) as p
$$;

comment on function fleet.telemetry_points(bigint, timestamptz, timestamptz, text, integer) is
  'See public.telemetry_points. Definer: it checks the caller; the tables of telemetry are nobody''s.';
revoke all on function fleet.telemetry_points(bigint, timestamptz, timestamptz, text, integer)
  from public, anon, authenticated, service_role;
grant execute on function fleet.telemetry_points(bigint, timestamptz, timestamptz, text, integer) to authenticated, service_role;

create or replace function public.telemetry_points(
  p_device_id bigint,
  p_from timestamptz default now() - interval '1 day',
  p_to timestamptz default now(),
  p_stream text default null,
  p_limit integer default 1000
)
returns table (
  device_id bigint, stream text, recorded_at timestamptz, received_at timestamptz, source text, is_provisional boolean, path text, data jsonb
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select p.* from fleet.telemetry_points(p_device_id, p_from, p_to, p_stream, p_limit) as p
$$;

comment on function public.telemetry_points(bigint, timestamptz, timestamptz, text, integer) is
  'Points of a device, the newest first, from (with) to (without). Raises device_not_found (PT404).';
revoke all on function public.telemetry_points(bigint, timestamptz, timestamptz, text, integer)
  from public, anon, authenticated, service_role;
grant execute on function public.telemetry_points(bigint, timestamptz, timestamptz, text, integer) to authenticated, service_role;

create or replace function fleet.telemetry_hours(
  p_device_id bigint,
  p_field text,
  p_from timestamptz,
  p_to timestamptz,
  p_limit integer
)
returns table (
  device_id bigint, stream text, hour timestamptz, field text, points integer, smallest double precision, largest double precision,
  average double precision
)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select h.device_id, h.stream, h.hour, h.field, h.points, h.smallest, h.largest, h.total / nullif(h.points, 0)
  from telemetry.read_hours(array[fleet.telemetry_device(p_device_id)], p_from, p_to, p_limit, p_field) as h
$$;

comment on function fleet.telemetry_hours(bigint, text, timestamptz, timestamptz, integer) is
  'See public.telemetry_hours. Definer: it checks the caller; the tables of telemetry are nobody''s.';
revoke all on function fleet.telemetry_hours(bigint, text, timestamptz, timestamptz, integer)
  from public, anon, authenticated, service_role;
grant execute on function fleet.telemetry_hours(bigint, text, timestamptz, timestamptz, integer) to authenticated, service_role;

create or replace function public.telemetry_hours(
  p_device_id bigint,
  p_field text default null,
  p_from timestamptz default now() - interval '7 days',
  p_to timestamptz default now(),
  p_limit integer default 10000
)
returns table (
  device_id bigint, stream text, hour timestamptz, field text, points integer, smallest double precision, largest double precision,
  average double precision
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select h.* from fleet.telemetry_hours(p_device_id, p_field, p_from, p_to, p_limit) as h
$$;

comment on function public.telemetry_hours(bigint, text, timestamptz, timestamptz, integer) is
  'The numbers of a device by the hour, the newest first: how many points, the least, the most, the average; the field without a name counts '
  'all points. An hour is there a minute after its points. Raises device_not_found (PT404).';
revoke all on function public.telemetry_hours(bigint, text, timestamptz, timestamptz, integer)
  from public, anon, authenticated, service_role;
grant execute on function public.telemetry_hours(bigint, text, timestamptz, timestamptz, integer) to authenticated, service_role;

create or replace function fleet.telemetry_gaps(
  p_device_id bigint,
  p_longer_than interval,
  p_from timestamptz,
  p_to timestamptz,
  p_stream text
)
returns table (device_id bigint, stream text, gap_from timestamptz, gap_to timestamptz, lasted interval)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select g.*
  from telemetry.read_gaps(array[fleet.telemetry_device(p_device_id)], p_stream, p_from, p_to, p_longer_than) as g
$$;

comment on function fleet.telemetry_gaps(bigint, interval, timestamptz, timestamptz, text) is
  'See public.telemetry_gaps. Definer: it checks the caller; the tables of telemetry are nobody''s.';
revoke all on function fleet.telemetry_gaps(bigint, interval, timestamptz, timestamptz, text)
  from public, anon, authenticated, service_role;
grant execute on function fleet.telemetry_gaps(bigint, interval, timestamptz, timestamptz, text) to authenticated, service_role;

create or replace function public.telemetry_gaps(
  p_device_id bigint,
  p_longer_than interval default '30 minutes',
  p_from timestamptz default now() - interval '1 day',
  p_to timestamptz default now(),
  p_stream text default null
)
returns table (device_id bigint, stream text, gap_from timestamptz, gap_to timestamptz, lasted interval)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select g.* from fleet.telemetry_gaps(p_device_id, p_longer_than, p_from, p_to, p_stream) as g
$$;

comment on function public.telemetry_gaps(bigint, interval, timestamptz, timestamptz, text) is
  'Where a device was silent for longer than that, the latest first; up to p_to for one that still is. Raises device_not_found (PT404).';
revoke all on function public.telemetry_gaps(bigint, interval, timestamptz, timestamptz, text)
  from public, anon, authenticated, service_role;
grant execute on function public.telemetry_gaps(bigint, interval, timestamptz, timestamptz, text) to authenticated, service_role;
