-- Targets: the devices that lists, groups and a selector name together.

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
      and fleet.device_matches(p_selector, d.tags, d.platform, d.attributes, d.reported)
    order by d.id
    limit p_limit;
    return;
  elsif p_group_ids = '{}' and p_selector is null then
    -- That of most schedules: by their key, planned at a tenth of the cost of what follows.
    return query
    select d.id, d.hostname, d.timezone
    from public.devices as d
    where d.id = any (p_device_ids)
      and d.owner_id = p_owner_id
      and d.status = 'active'
      and d.id > p_after_id
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
        and fleet.device_matches(p_selector, d.tags, d.platform, d.attributes, d.reported)
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
            and fleet.device_matches(g.selector, d.tags, d.platform, d.attributes, d.reported)
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
  c_most constant integer := 500;
  v_tags text[] := array(
    select jsonb_array_elements_text(
      case when jsonb_array_length(p_selector -> 'tags') > 0 then p_selector -> 'tags' else p_selector -> 'any_tags' end
    )
  );
  v_is_found boolean;
  v_is_cut boolean;
begin
  if exists (
    select 1
    from (
      select x.tags, x.platform, x.attributes, x.reported
      from public.devices as x
      where x.owner_id = p_owner_id and x.status = 'active'
      order by x.id
      limit c_most
    ) as d
    where fleet.device_matches(p_selector, d.tags, d.platform, d.attributes, d.reported)
  ) then
    return true;
  elsif (
    select count(*)
    from (select from public.devices as x where x.owner_id = p_owner_id and x.status = 'active' limit c_most) as d
  ) < c_most then
    return false;
  end if;

  -- Not at once, then: whoever has the tags is found by them, however many others there are.
  if jsonb_array_length(p_selector -> 'tags') > 0 then
    select coalesce(bool_or(
        d.owner_id = p_owner_id and d.status = 'active'
          and fleet.device_matches(p_selector, d.tags, d.platform, d.attributes, d.reported)
      ), false), count(*) = c_most
    into v_is_found, v_is_cut
    from (
      select x.owner_id, x.status, x.tags, x.platform, x.attributes, x.reported
      from public.devices as x
      where x.tags @> v_tags
      limit c_most
    ) as d;
    return v_is_found or v_is_cut;
  elsif p_selector ? 'any_tags' then
    select coalesce(bool_or(
        d.owner_id = p_owner_id and d.status = 'active'
          and fleet.device_matches(p_selector, d.tags, d.platform, d.attributes, d.reported)
      ), false), count(*) = c_most
    into v_is_found, v_is_cut
    from (
      select x.owner_id, x.status, x.tags, x.platform, x.attributes, x.reported
      from public.devices as x
      where x.tags && v_tags
      limit c_most
    ) as d;
    return v_is_found or v_is_cut;
  end if;
  return true;
end;
$$;

comment on function fleet.selects_anybody(uuid, jsonb) is
  'Whether a selector finds an active device of this owner. Looks at a few devices and then into the index of tags; true where both are not '
  'enough to tell.';
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
      (g.selector is not null and fleet.device_matches(g.selector, d.tags, d.platform, d.attributes, d.reported))
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

create or replace function fleet.target_problems(
  p_owner_id uuid,
  p_device_ids bigint[],
  p_group_ids bigint[],
  p_selector jsonb
)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- A list of ids is planned anew at each call otherwise, as if its length mattered.
set plan_cache_mode = force_generic_plan
as $$
begin
  -- One look at an index for each, never a walk over the fleet; which of them it is, is asked only where one is not there.
  if cardinality(p_device_ids) > (
    select count(*) from public.devices as d where d.id = any (p_device_ids) and d.owner_id = p_owner_id
  ) then
    return query
    select 'device_ids', p.problem, p.hint
    from unnest(p_device_ids) as u(id)
    cross join lateral fleet.elsewhere_problem(
      'device', u.id::text, (select d.owner_id from public.devices as d where d.id = u.id)
    ) as p
    where (select d.owner_id from public.devices as d where d.id = u.id) is distinct from p_owner_id;
  end if;
  if p_group_ids <> '{}' then
    return query
    select 'group_ids', p.problem, p.hint
    from unnest(p_group_ids) as u(id)
    cross join lateral fleet.elsewhere_problem(
      'group', u.id::text, (select g.owner_id from public.device_groups as g where g.id = u.id)
    ) as p
    where not exists (select 1 from public.device_groups as g where g.id = u.id and g.owner_id = p_owner_id);
  end if;
  if p_selector is not null then
    return query select s.field, s.problem, s.hint from fleet.selector_problems(p_selector) as s;
  elsif p_device_ids = '{}' and p_group_ids = '{}' then
    return next (
      'device_ids', 'names nobody: there is no device, group or selector',
      'Give device_ids, group_ids or a selector; an empty selector {} means every device.'
    )::fleet.problem;
  end if;
end;
$$;

comment on function fleet.target_problems(uuid, bigint[], bigint[], jsonb) is
  'Targets that do not exist for this owner. What belongs to another owner is as good as not there, but for whoever sees it there.';
revoke all on function fleet.target_problems(uuid, bigint[], bigint[], jsonb)
  from public, anon, authenticated, service_role;
