-- Owners, devices and groups by their names.

create or replace function public.owner_id(p_name text)
returns uuid
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.only_one(
    'owner', p_name,
    array(select x.id::text from public.owners as x where lower(x.name) = lower(p_name) order by x.id),
    (select x.id::text from public.owners as x where x.id::text = lower(p_name))
  )::uuid
$$;

comment on function public.owner_id(text) is
  'The owner that a name or an id means; a name in any case, and it wins over an id. Raises owner_not_found (PT404) or '
  'owner_ambiguous (PT409).';
revoke all on function public.owner_id(text) from public, anon, authenticated, service_role;
grant execute on function public.owner_id(text) to authenticated, service_role;

create or replace function public.device_id(p_name text)
returns bigint
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.only_one(
    'device', p_name,
    array(select x.id::text from public.devices as x where lower(x.hostname) = lower(p_name) order by x.id),
    (select x.id::text from public.devices as x where x.id = fleet.try_bigint(p_name))
  )::bigint
$$;

comment on function public.device_id(text) is
  'The device that a host name or an id means; a name in any case, and it wins over an id. Raises device_not_found (PT404) or '
  'device_ambiguous (PT409).';
revoke all on function public.device_id(text) from public, anon, authenticated, service_role;
grant execute on function public.device_id(text) to authenticated, service_role;

create or replace function public.group_id(p_name text)
returns bigint
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.only_one(
    'group', p_name,
    array(select x.id::text from public.device_groups as x where lower(x.name) = lower(p_name) order by x.id),
    (select x.id::text from public.device_groups as x where x.id = fleet.try_bigint(p_name))
  )::bigint
$$;

comment on function public.group_id(text) is
  'The group that a name or an id means; a name in any case, and it wins over an id. Raises group_not_found (PT404) or '
  'group_ambiguous (PT409).';
revoke all on function public.group_id(text) from public, anon, authenticated, service_role;
grant execute on function public.group_id(text) to authenticated, service_role;

create or replace function public.expected_devices(p_names text[] default '{}', p_group_id bigint default null)
returns table (id bigint, hostname text, last_seen timestamptz, has_called boolean)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select
    d.id,
    coalesce(d.hostname, w.name) as hostname,
    d.last_seen,
    coalesce(d.status = 'active' and d.last_seen is not null, false) as has_called
  from (
    select unnest(p_names) as name
    union
    select g.hostname from public.group_devices(p_group_id) as g
  ) as w
  left join public.devices as d on lower(d.hostname) = lower(w.name) or d.id = fleet.try_bigint(w.name)
  order by lower(coalesce(d.hostname, w.name)), d.id
$$;

comment on function public.expected_devices(text[], bigint) is
  'The devices of these names or ids, and of a group, and whether each has ever called or been seen by an MDM. A name that no device has is '
  'one that has not enrolled: its id is null.';
revoke all on function public.expected_devices(text[], bigint) from public, anon, authenticated, service_role;
grant execute on function public.expected_devices(text[], bigint) to authenticated, service_role;
