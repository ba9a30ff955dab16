-- Doorbells: an agent hears at once of what has changed for it.

create or replace function fleet.ring_for_geo_actions(p_device_ids bigint[], p_now timestamptz)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  insert into fleet.doorbells (device_id, owner_id, ring_at, command_type)
  select distinct x.device_id, d.owner_id, p_now, 'geo_actions'
  from unnest(p_device_ids) as x(device_id)
  join public.devices as d on d.id = x.device_id
  where not exists (
    select 1 from fleet.doorbells as b where b.device_id = x.device_id and b.command_id is null
  )
  on conflict (device_id, ring_at) do nothing
$$;

comment on function fleet.ring_for_geo_actions(bigint[], timestamptz) is
  'Leave it to the tick to ring these devices, which are to ask for their geo actions.';
revoke all on function fleet.ring_for_geo_actions(bigint[], timestamptz) from public, anon, authenticated, service_role;
