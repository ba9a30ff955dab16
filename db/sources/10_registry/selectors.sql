-- Selectors: choosing devices by tags, platform and attributes.

-- Without a subquery, so that Postgres inlines it: it is asked for each device of a fleet.
create or replace function fleet.device_matches(
  p_selector jsonb,
  p_tags text[],
  p_platform text,
  p_attributes jsonb
)
returns boolean
language sql
immutable
parallel safe
return (
  (not p_selector ? 'tags'
    or to_jsonb(p_tags) @> (p_selector -> 'tags'))
  and (not p_selector ? 'any_tags'
    or (p_selector -> 'any_tags') ?| p_tags)
  and (not p_selector ? 'platform'
    or coalesce(p_selector -> 'platform' @> to_jsonb(p_platform), false))
  and (not p_selector ? 'attributes'
    or p_attributes @> (p_selector -> 'attributes'))
);

comment on function fleet.device_matches(jsonb, text[], text, jsonb) is
  'Whether a device has all of selector.tags, one of any_tags, one of platform, and contains attributes. Every key must hold; '
  'an empty selector matches every device.';
revoke all on function fleet.device_matches(jsonb, text[], text, jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.device_matches(jsonb, text[], text, jsonb) to authenticated, service_role;

create or replace function fleet.selector_problems(p_selector jsonb)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select 'selector', 'must be an object', 'Example: {"tags": ["school-7"], "platform": ["windows"]}'
  where p_selector is not null and jsonb_typeof(p_selector) <> 'object'
  union all
  select 'selector.' || e.key, 'is not a key of a selector', 'The keys are tags, any_tags, platform and attributes.'
  from jsonb_each(case when jsonb_typeof(p_selector) = 'object' then p_selector else '{}' end) as e
  where e.key not in ('tags', 'any_tags', 'platform', 'attributes')
  union all
  select 'selector.' || e.key, 'must be a list of text', format('Example: {"%s": ["one", "two"]}', e.key)
  from jsonb_each(case when jsonb_typeof(p_selector) = 'object' then p_selector else '{}' end) as e
  where e.key in ('tags', 'any_tags', 'platform')
    and (jsonb_typeof(e.value) <> 'array' or jsonb_path_exists(e.value, '$[*] ? (@.type() != "string")'))
    and not (e.key = 'platform' and jsonb_typeof(e.value) = 'string')
  union all
  select 'selector.attributes', 'must be an object', 'Example: {"attributes": {"lab": 3}}'
  where jsonb_typeof(p_selector) = 'object'
    and p_selector ? 'attributes'
    and jsonb_typeof(p_selector -> 'attributes') <> 'object'
$$;

comment on function fleet.selector_problems(jsonb) is 'Everything that is wrong with a selector; no row where nothing is.';
revoke all on function fleet.selector_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.targets(
  p_owner_id uuid,
  p_device_ids bigint[],
  p_group_ids bigint[],
  p_selector jsonb,
  p_after_id bigint default 0,
  p_limit integer default null
)
returns table (device_id bigint, hostname text, timezone text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_group_ids = '{}' and p_device_ids = '{}' then
    -- The common case of large fleets: in the order of an index, with nothing to sort and nothing twice.
    return query
    select d.id, d.hostname, d.timezone
    from public.devices as d
    where p_selector is not null
      and d.owner_id = p_owner_id
      and d.status = 'active'
      and d.id > p_after_id
      and fleet.device_matches(p_selector, d.tags, d.platform, d.attributes)
    order by d.id
    limit p_limit;
    return;
  end if;

  -- Each branch is bounded by itself and brings its columns along, so that the next chunk of a large fleet costs a chunk.
  return query
  select u.id, u.hostname, u.timezone
  from (
    (
      select d.id, d.hostname, d.timezone
      from public.devices as d
      where d.id = any (p_device_ids)
        and d.owner_id = p_owner_id
        and d.status = 'active'
        and d.id > p_after_id
      order by d.id
      limit p_limit
    )
    union
    (
      select d.id, d.hostname, d.timezone
      from public.device_group_members as m
      join public.devices as d on d.id = m.device_id
      where m.group_id = any (p_group_ids)
        and m.owner_id = p_owner_id
        and m.device_id > p_after_id
        and d.owner_id = p_owner_id
        and d.status = 'active'
      order by m.device_id
      -- A device may be a member of each of the groups.
      limit p_limit * greatest(cardinality(p_group_ids), 1)
    )
    union
    (
      select d.id, d.hostname, d.timezone
      from public.devices as d
      where p_selector is not null
        and d.owner_id = p_owner_id
        and d.status = 'active'
        and d.id > p_after_id
        and fleet.device_matches(p_selector, d.tags, d.platform, d.attributes)
      order by d.id
      limit p_limit
    )
    union
    (
      select d.id, d.hostname, d.timezone
      from public.devices as d
      -- Static groups need no look at the devices of the owner.
      where exists (
          select 1 from public.device_groups as g
          where g.id = any (p_group_ids) and g.selector is not null
        )
        and d.owner_id = p_owner_id
        and d.status = 'active'
        and d.id > p_after_id
        and exists (
          select 1
          from public.device_groups as g
          where g.id = any (p_group_ids)
            and g.owner_id = p_owner_id
            and g.selector is not null
            and fleet.device_matches(g.selector, d.tags, d.platform, d.attributes)
        )
      order by d.id
      limit p_limit
    )
  ) as u
  order by u.id
  limit p_limit;
end;
$$;

comment on function fleet.targets(uuid, bigint[], bigint[], jsonb, bigint, integer) is
  'Active devices of one owner that the lists, groups or selector name, by id, from the one after p_after_id. What belongs to '
  'another owner is never among them.';
revoke all on function fleet.targets(uuid, bigint[], bigint[], jsonb, bigint, integer)
  from public, anon, authenticated, service_role;

create or replace function fleet.has_targets(
  p_owner_id uuid,
  p_device_ids bigint[],
  p_group_ids bigint[],
  p_selector jsonb
)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_selector jsonb;
begin
  if exists (
    select 1 from public.devices as d where d.id = any (p_device_ids) and d.owner_id = p_owner_id and d.status = 'active'
  ) then
    return true;
  elsif p_group_ids <> '{}' and exists (
    select 1
    from public.device_group_members as m
    join public.devices as d on d.id = m.device_id
    where m.group_id = any (p_group_ids) and m.owner_id = p_owner_id and d.owner_id = p_owner_id and d.status = 'active'
  ) then
    return true;
  end if;

  for v_selector in
    select p_selector where p_selector is not null
    union all
    select g.selector
    from public.device_groups as g
    where g.id = any (p_group_ids) and g.owner_id = p_owner_id and g.selector is not null
  loop
    if fleet.selects_anybody(p_owner_id, v_selector) then
      return true;
    end if;
  end loop;
  return false;
end;
$$;

comment on function fleet.has_targets(uuid, bigint[], bigint[], jsonb) is
  'Whether lists, groups or selector name an active device of this owner; true also where that could only be told by looking at the whole '
  'fleet.';
revoke all on function fleet.has_targets(uuid, bigint[], bigint[], jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.selects_anybody(p_owner_id uuid, p_selector jsonb)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  -- So many devices are looked at, and no more: it is a warning that is at stake.
  c_most constant integer := 2000;
  v_looked bigint;
  v_found boolean;
begin
  select count(*), coalesce(bool_or(fleet.device_matches(p_selector, d.tags, d.platform, d.attributes)), false)
  into v_looked, v_found
  from (
    select x.tags, x.platform, x.attributes
    from public.devices as x
    where x.owner_id = p_owner_id and x.status = 'active'
    order by x.id
    limit c_most
  ) as d;
  if v_found or v_looked < c_most then
    return v_found;
  end if;

  -- Whoever has the tags is found by them, however many others there are.
  if jsonb_array_length(p_selector -> 'tags') > 0 then
    select count(*), coalesce(bool_or(d.is_own and fleet.device_matches(p_selector, d.tags, d.platform, d.attributes)), false)
    into v_looked, v_found
    from (
      select x.tags, x.platform, x.attributes, x.owner_id = p_owner_id and x.status = 'active' as is_own
      from public.devices as x
      where x.tags @> array(select jsonb_array_elements_text(p_selector -> 'tags'))
      limit c_most
    ) as d;
  elsif p_selector ? 'any_tags' then
    select count(*), coalesce(bool_or(d.is_own and fleet.device_matches(p_selector, d.tags, d.platform, d.attributes)), false)
    into v_looked, v_found
    from (
      select x.tags, x.platform, x.attributes, x.owner_id = p_owner_id and x.status = 'active' as is_own
      from public.devices as x
      where x.tags && array(select jsonb_array_elements_text(p_selector -> 'any_tags'))
      limit c_most
    ) as d;
  end if;
  return v_found or v_looked = c_most;
end;
$$;

comment on function fleet.selects_anybody(uuid, jsonb) is
  'Whether a selector finds an active device of this owner. Looks at a bounded number; true where they are not enough to tell.';
revoke all on function fleet.selects_anybody(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function public.group_devices(p_group_id bigint)
returns setof public.devices
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select d.*
  from public.device_groups as g
  join public.devices as d on d.owner_id = g.owner_id and d.status = 'active'
  where g.id = p_group_id
    and (
      (g.selector is not null and fleet.device_matches(g.selector, d.tags, d.platform, d.attributes))
      or exists (
        select 1 from public.device_group_members as m
        where m.group_id = g.id and m.device_id = d.id
      )
    )
  order by d.id
$$;

comment on function public.group_devices(bigint) is
  'The active devices of a group at this moment, members and selected ones. None for a group that is not yours.';
revoke all on function public.group_devices(bigint) from public, anon, authenticated, service_role;
grant execute on function public.group_devices(bigint) to authenticated, service_role;
