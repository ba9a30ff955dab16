-- Integrations that carry out commands of channel mdm, and which of them a device is in.

create or replace function fleet.mdm_integration_types()
returns text[]
language sql
immutable
parallel safe
return '{simplemdm,nanomdm}'::text[];

comment on function fleet.mdm_integration_types() is
  'Integrations that carry out commands of channel mdm. A new provider is one word here and one module of the function.';
revoke all on function fleet.mdm_integration_types() from public, anon, authenticated, service_role;

create or replace function fleet.integration_types()
returns text[]
language sql
immutable
parallel safe
return fleet.mdm_integration_types() || '{golioth}'::text[];

comment on function fleet.integration_types() is 'Systems that an integration can be a connection to: the MDMs and others.';
revoke all on function fleet.integration_types() from public, anon, authenticated, service_role;

create or replace function fleet.function_of_integration(p_integration_type text)
returns text
language sql
immutable
parallel safe
return (case p_integration_type when 'golioth' then 'golioth-pull' else 'mdm-dispatch' end);

comment on function fleet.function_of_integration(text) is 'Which function works for integrations of a type, and is poked for them.';
revoke all on function fleet.function_of_integration(text) from public, anon, authenticated, service_role;

create or replace function fleet.mdms_of(p_device_ids bigint[])
returns table (device_id bigint, integration_id bigint)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select distinct on (l.device_id) l.device_id, l.integration_id
  from public.device_links as l
  join public.device_integrations as i on i.id = l.integration_id
  where l.device_id = any (p_device_ids)
    and l.left_at is null
    and i.integration_type = any (fleet.mdm_integration_types())
    and i.status <> 'disabled'
  -- A device that is in two of them belongs to the one that works.
  order by l.device_id, (i.status = 'active') desc, i.id
$$;

comment on function fleet.mdms_of(bigint[]) is 'The MDM that each device is in; no row for one that is in none.';
revoke all on function fleet.mdms_of(bigint[]) from public, anon, authenticated, service_role;
