-- Targets in some time zones: who is due where it is half past six now.

create or replace function fleet.targets_in_zones(
  p_owner_id uuid,
  p_device_ids bigint[],
  p_group_ids bigint[],
  p_selector jsonb,
  p_zones text[],
  p_only_ids bigint[],
  p_zone_at integer,
  p_after_id bigint,
  p_limit integer
)
returns table (device_id bigint, hostname text, timezone text, zone_at integer)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  -- More members than this are looked for among the devices of the zone.
  c_few constant integer := 2000;
  v_ids bigint[];
  v_is_dynamic boolean := p_selector is not null or exists (
    select 1 from public.device_groups as g where g.id = any (p_group_ids) and g.owner_id = p_owner_id and g.selector is not null
  );
  v_left integer := p_limit;
  v_after bigint := p_after_id;
  v_made bigint;
begin
  if not v_is_dynamic then
    v_ids := p_device_ids || array(
      select m.device_id
      from public.device_group_members as m
      where m.group_id = any (p_group_ids) and m.owner_id = p_owner_id
      limit c_few + 1
    );
    if cardinality(v_ids) > cardinality(p_device_ids) + c_few then
      v_ids := null;
    end if;
  end if;

  for v_at in p_zone_at..cardinality(p_zones) loop
    if v_ids is not null or p_only_ids is not null then
      return query
      select d.id, d.hostname, d.timezone, v_at
      from public.devices as d
      where d.id = any (coalesce(p_only_ids, v_ids))
        and (v_ids is null or d.id = any (v_ids))
        and d.owner_id = p_owner_id
        and d.status = 'active'
        and coalesce(d.timezone, '') = p_zones[v_at]
        and d.id > v_after
        and (v_ids is not null or fleet.is_meant(p_owner_id, p_device_ids, p_group_ids, p_selector, d))
      order by d.id
      limit v_left;
    elsif p_group_ids = '{}' and p_device_ids = '{}' then
      return query
      select d.id, d.hostname, d.timezone, v_at
      from public.devices as d
      where d.owner_id = p_owner_id
        and d.status = 'active'
        and coalesce(d.timezone, '') = p_zones[v_at]
        and d.id > v_after
        and fleet.device_matches(p_selector, d.tags, d.platform, d.attributes, d.reported)
      order by d.id
      limit v_left;
    else
      return query
      select d.id, d.hostname, d.timezone, v_at
      from public.devices as d
      where d.owner_id = p_owner_id
        and d.status = 'active'
        and coalesce(d.timezone, '') = p_zones[v_at]
        and d.id > v_after
        and fleet.is_meant(p_owner_id, p_device_ids, p_group_ids, p_selector, d)
      order by d.id
      limit v_left;
    end if;
    get diagnostics v_made = row_count;
    v_left := v_left - v_made;
    exit when v_left <= 0;
    v_after := 0;
  end loop;
end;
$$;

comment on function fleet.targets_in_zones(uuid, bigint[], bigint[], jsonb, text[], bigint[], integer, bigint, integer) is
  'Those targets that are in these zones, an empty name for no zone: zone after zone, by id, from the zone p_zone_at and the device after '
  'p_after_id; only some devices where p_only_ids says so.';
revoke all on function fleet.targets_in_zones(uuid, bigint[], bigint[], jsonb, text[], bigint[], integer, bigint, integer)
  from public, anon, authenticated, service_role;

create or replace function fleet.is_meant(
  p_owner_id uuid,
  p_device_ids bigint[],
  p_group_ids bigint[],
  p_selector jsonb,
  p_device public.devices
)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return p_device.id = any (p_device_ids)
    or (p_selector is not null and fleet.device_matches(p_selector, p_device.tags, p_device.platform, p_device.attributes, p_device.reported))
    or (p_group_ids <> '{}' and (
      exists (
        select 1
        from public.device_group_members as m
        where m.group_id = any (p_group_ids) and m.device_id = p_device.id and m.owner_id = p_owner_id
      )
      or exists (
        select 1
        from public.device_groups as g
        where g.id = any (p_group_ids)
          and g.owner_id = p_owner_id
          and g.selector is not null
          and fleet.device_matches(g.selector, p_device.tags, p_device.platform, p_device.attributes, p_device.reported)
      )
    ));
end;
$$;

comment on function fleet.is_meant(uuid, bigint[], bigint[], jsonb, public.devices) is
  'Whether the lists, groups or selector name this device.';
revoke all on function fleet.is_meant(uuid, bigint[], bigint[], jsonb, public.devices) from public, anon, authenticated, service_role;
