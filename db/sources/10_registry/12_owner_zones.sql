-- In which time zones an owner's devices are.

create or replace function fleet.home_zone(p_owner_id uuid)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_zone text;
begin
  select o.timezone into v_zone from public.owners as o where o.id = p_owner_id;
  if fleet.is_time_zone(v_zone) then
    return v_zone;
  end if;
  return 'UTC';
end;
$$;

comment on function fleet.home_zone(uuid) is 'The zone of an owner; UTC where it says none that is known.';
revoke all on function fleet.home_zone(uuid) from public, anon, authenticated, service_role;

create or replace function fleet.count_zones(p_owner_ids uuid[], p_zones text[], p_changes bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  -- In one order, so that two statements never wait for each other in a circle.
  insert into fleet.owner_zones as z (owner_id, zone, devices)
  select u.owner_id, u.zone, sum(u.change)
  from unnest(p_owner_ids, p_zones, p_changes) as u(owner_id, zone, change)
  where exists (select 1 from public.owners as o where o.id = u.owner_id)
  group by 1, 2
  having sum(u.change) <> 0
  order by 1, 2
  on conflict (owner_id, zone) do update set devices = z.devices + excluded.devices
$$;

comment on function fleet.count_zones(uuid[], text[], bigint[]) is
  'Count so many devices more or less in the zones of owners; an empty name for devices without one.';
revoke all on function fleet.count_zones(uuid[], text[], bigint[]) from public, anon, authenticated, service_role;
