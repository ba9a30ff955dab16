-- Both directions: what we and the other system have of a device, what they agreed on last, and so who has to take what over.

create or replace function fleet.json_leaves(p_tree jsonb)
returns table (path text, value jsonb)
language sql
immutable
begin atomic
  with recursive nodes as (
    select e.key as path, e.value, 1 as depth from jsonb_each(fleet.object_or_empty(p_tree)) as e
    union all
    select n.path || '/' || e.key, e.value, n.depth + 1
    from nodes as n
    cross join lateral jsonb_each(fleet.object_or_empty(n.value)) as e
    where n.depth < 16
  )
  select n.path, n.value
  from nodes as n
  -- Null is how there says that nothing is there; a branch without a leaf says nothing.
  where jsonb_typeof(n.value) not in ('object', 'null')
  order by n.path
  limit 201;
end;

comment on function fleet.json_leaves(jsonb) is
  'The values of a tree with their paths, led/on; a list is one value. At most 201, sixteen levels deep.';
revoke all on function fleet.json_leaves(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.leaf_map(p_tree jsonb)
returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_leaves jsonb;
  v_count integer;
begin
  -- Most have none, and nobody looks for what is in it.
  if p_tree is null or p_tree = '{}' then
    return p_tree;
  end if;
  select coalesce(jsonb_object_agg(l.path, l.value), '{}'), count(*) into v_leaves, v_count from fleet.json_leaves(p_tree) as l;
  return case when v_count <= 200 then v_leaves end;
end;
$$;

comment on function fleet.leaf_map(jsonb) is
  'The values of a tree, each keyed by its path; null where nobody told it, or where they are more than 200.';
revoke all on function fleet.leaf_map(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.tree_of_leaves(p_leaves jsonb)
returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tree jsonb := '{}';
  v_leaf record;
  v_path text[];
begin
  for v_leaf in select e.key, e.value from jsonb_each(p_leaves) as e order by e.key loop
    v_path := string_to_array(v_leaf.key, '/');
    for v_depth in 1 .. cardinality(v_path) - 1 loop
      if jsonb_typeof(v_tree #> v_path[:v_depth]) is distinct from 'object' then
        v_tree := jsonb_set(v_tree, v_path[:v_depth], '{}');
      end if;
    end loop;
    v_tree := jsonb_set(v_tree, v_path, v_leaf.value);
  end loop;
  return v_tree;
end;
$$;

comment on function fleet.tree_of_leaves(jsonb) is 'The tree whose leaf_map() this is.';
revoke all on function fleet.tree_of_leaves(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.sync_verdict_of(
  p_local jsonb,
  p_remote jsonb,
  p_base_local jsonb,
  p_base_remote jsonb,
  p_direction text,
  p_rule text,
  p_is_newer_here boolean
)
returns text
language sql
immutable
return case
  when p_local is not distinct from p_remote then 'same'
  when p_local is not distinct from p_base_local and p_remote is not distinct from p_base_remote then 'agreed'
  when p_direction in ('import', 'export') then p_direction
  when p_remote is not distinct from p_base_remote then 'export'
  when p_local is not distinct from p_base_local then 'import'
  when p_rule = 'local' or p_rule = 'newest' and p_is_newer_here then 'export'
  when p_rule = 'manual' then 'conflict'
  else 'import'
end;

comment on function fleet.sync_verdict_of(jsonb, jsonb, jsonb, jsonb, text, text, boolean) is
  'What is to be done about a value that is so here and so there, and was agreed on as so and so: same, agreed (they differ, as they did '
  'before), export, import or conflict. In one direction the other side takes over; in both, who has changed it counts, and where both '
  'have, the rule: newest, local, remote or manual.';
revoke all on function fleet.sync_verdict_of(jsonb, jsonb, jsonb, jsonb, text, text, boolean)
  from public, anon, authenticated, service_role;

create or replace function fleet.merged_tags(p_mine text[], p_theirs text[], p_base text[], p_is_followed boolean, p_is_led boolean)
returns text[]
language sql
immutable
return (
  select coalesce(array_agg(t.tag order by t.tag), '{}')
  from (
    select m.tag
    from unnest(p_mine) as m(tag)
    where not (p_is_followed and m.tag = any (p_base) and m.tag <> all (p_theirs))
    union
    select o.tag
    from unnest(p_theirs) as o(tag)
    -- One that was agreed on and is gone here was taken away here, and stays away where this side is heard as well.
    where p_is_followed and not (p_is_led and o.tag = any (p_base))
  ) as t
);

comment on function fleet.merged_tags(text[], text[], text[], boolean, boolean) is
  'The tags of one side after it took over those of the other: where it follows, what came there and what went there since they agreed. '
  'p_is_led says whether the other side follows this one as well.';
revoke all on function fleet.merged_tags(text[], text[], text[], boolean, boolean) from public, anon, authenticated, service_role;

create or replace function fleet.sync_sides(p_integration public.device_integrations, p_facts jsonb)
returns table (
  device_id bigint, external_id text, local_name text, remote_name text, base_local_name text, base_remote_name text,
  is_renamed_later boolean, local_tags text[], remote_tags text[], base_tags text[], local_desired jsonb, remote_desired jsonb,
  base_desired jsonb, is_wanted_later boolean
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select d.id, l.external_id, d.hostname, f.name,
    case
      when b.device_id is not null then b.local_name
      -- At first sight names are as they are, unless ours are to be there; one that was told apart here always.
      when i.direction = 'import' or d.hostname = f.name || ' (' || l.external_id || ')' then d.hostname
    end,
    case
      when b.device_id is not null then b.remote_name
      when i.direction = 'import' or d.hostname = f.name || ' (' || l.external_id || ')' then f.name
    end,
    coalesce(b.renamed_at > f.updated_at, false),
    d.tags, array(select jsonb_array_elements_text(f.tags)), coalesce(b.tags, '{}'),
    fleet.leaf_map(l.desired), fleet.leaf_map(f.desired), coalesce(b.desired, '{}'),
    coalesce(l.desired_at > f.updated_at, false)
  from jsonb_to_recordset(p_facts) as f(external_id text, name text, tags jsonb, desired jsonb, updated_at timestamptz)
  join public.device_links as l on l.integration_id = p_integration.id and l.external_id = f.external_id and l.left_at is null
  join public.devices as d on d.id = l.device_id and d.status = 'active'
  left join fleet.sync_bases as b on b.integration_id = l.integration_id and b.device_id = l.device_id
  cross join lateral (select coalesce(p_integration.settings ->> 'direction', 'import') as direction) as i
$$;

comment on function fleet.sync_sides(public.device_integrations, jsonb) is
  'Both sides of devices, with what they agreed on last; facts are those of the other: [{external_id, name, tags, desired, updated_at}].';
revoke all on function fleet.sync_sides(public.device_integrations, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.sync_differences(p_integration public.device_integrations, p_facts jsonb)
returns table (device_id bigint, external_id text, field text, local jsonb, remote jsonb, verdict text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select v.device_id, v.external_id, v.field, v.local, v.remote,
    fleet.sync_verdict_of(
      v.local, v.remote, v.base_local, v.base_remote, coalesce(p_integration.settings ->> 'direction', 'import'),
      coalesce(c.keep, p_integration.settings ->> 'conflict', 'newest'), v.is_later
    )
  from (
    select s.device_id, s.external_id, 'name' as field, to_jsonb(s.local_name) as local, to_jsonb(s.remote_name) as remote,
      to_jsonb(s.base_local_name) as base_local, to_jsonb(s.base_remote_name) as base_remote, s.is_renamed_later as is_later
    from fleet.sync_sides(p_integration, p_facts) as s
    where s.remote_name is not null
    union all
    select s.device_id, s.external_id, 'desired/' || k.path, s.local_desired -> k.path, s.remote_desired -> k.path,
      s.base_desired -> k.path, s.base_desired -> k.path, s.is_wanted_later
    from fleet.sync_sides(p_integration, p_facts) as s
    cross join lateral (
      select jsonb_object_keys(s.local_desired) as path
      union
      select jsonb_object_keys(s.remote_desired)
    ) as k
    -- What was not told there is not taken for gone.
    where s.remote_desired is not null and length(k.path) <= 240
  ) as v
  left join public.sync_conflicts as c
    on c.integration_id = p_integration.id and c.device_id = v.device_id and c.field = v.field and c.keep is not null
    and c.local is not distinct from v.local and c.remote is not distinct from v.remote
$$;

comment on function fleet.sync_differences(public.device_integrations, jsonb) is
  'What is to be done about the names of devices, and about each value that is wanted of them: see sync_verdict_of(). What a person decided '
  'counts while it is about the same two values.';
revoke all on function fleet.sync_differences(public.device_integrations, jsonb) from public, anon, authenticated, service_role;
