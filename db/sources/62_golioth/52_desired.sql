-- What people want of a device in another system, and what they decide where it was changed on both sides.

create or replace function fleet.desired_problems(p_desired jsonb)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select 'desired', 'must be an object', 'Example: {"led": {"on": true}}; null takes a value away'
  where jsonb_typeof(p_desired) is distinct from 'object'
  union all
  select 'desired', 'has more than 200 values', 'Send fewer of them; a list is one value.'
  where fleet.leaf_map(p_desired) is null and p_desired is not null
  union all
  select 'desired', format('"%s" cannot be a path', left(l.path, 60)),
    'Names have letters, digits, - _ and . and a path has 240 characters at most.'
  from fleet.json_leaves(p_desired) as l
  where length(l.path) > 240 or l.path !~ '^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$'
$$;

comment on function fleet.desired_problems(jsonb) is 'All that is wrong with what is wanted of a device.';
revoke all on function fleet.desired_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.patched(p_tree jsonb, p_changes jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  with recursive nodes as (
    select array[e.key] as path, e.value from jsonb_each(p_changes) as e
    union all
    select n.path || e.key, e.value
    from nodes as n
    cross join lateral jsonb_each(fleet.object_or_empty(n.value)) as e
    where cardinality(n.path) < 16
  ),
  gone as (
    select array_to_string(n.path, '/') as path from nodes as n where jsonb_typeof(n.value) <> 'object'
  ),
  kept as (
    select o.path, o.value
    from fleet.json_leaves(p_tree) as o
    where not exists (
      select 1 from gone as g
      where o.path = g.path or starts_with(o.path, g.path || '/') or starts_with(g.path, o.path || '/')
    )
    union all
    select l.path, l.value from fleet.json_leaves(p_changes) as l
  )
  select fleet.tree_of_leaves(coalesce(jsonb_object_agg(k.path, k.value), '{}')) from kept as k
$$;

comment on function fleet.patched(jsonb, jsonb) is
  'A tree with changes merged into it: a value takes the place of what was there, null takes it away.';
revoke all on function fleet.patched(jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.ask_for_export(p_integration_id bigint, p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  update fleet.golioth_syncs as g
  set asked_at = coalesce(g.asked_at, p_now)
  from public.device_integrations as i
  where g.integration_id = p_integration_id and i.id = g.integration_id
    and i.settings ->> 'direction' in ('export', 'both')
    -- Where calls are counted, it goes with the next pull.
    and not i.settings ? 'apiCallsPerMonth';
  if found then
    perform fleet.poke_once_a_second('golioth-pull', p_now);
  end if;
end;
$$;

comment on function fleet.ask_for_export(bigint, timestamptz) is
  'Ask for a sync because something is to be written there, unless its calls are counted.';
revoke all on function fleet.ask_for_export(bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.golioth_link(p_device_id bigint, p_integration_id bigint)
returns public.device_links
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_links public.device_links[];
begin
  select array_agg(l) into v_links
  from public.device_links as l
  join public.device_integrations as i on i.id = l.integration_id and i.integration_type = 'golioth'
  where l.device_id = p_device_id and l.left_at is null
    and (p_integration_id is null or l.integration_id = p_integration_id)
    and fleet.is_visible_owner(l.owner_id);
  if v_links is null then
    raise exception 'device % is in no Golioth project', p_device_id
      using errcode = 'PT404', detail = 'device_link_not_found', hint = 'Pull first: select sync_integration(id) from device_integrations';
  elsif cardinality(v_links) > 1 then
    raise exception 'device % is in % Golioth projects', p_device_id, cardinality(v_links)
      using errcode = 'PT409', detail = 'device_link_ambiguous', hint = 'Name the integration as well.';
  end if;
  perform fleet.require_permission(v_links[1].owner_id, 'operate', format('device %s', p_device_id));
  return v_links[1];
end;
$$;

comment on function fleet.golioth_link(bigint, bigint) is
  'The one link of a device to a Golioth project, if the caller operates it. Raises device_link_not_found (PT404), device_link_ambiguous '
  '(PT409) or permission_missing (PT403).';
revoke all on function fleet.golioth_link(bigint, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.set_desired_state(p_device_id bigint, p_desired jsonb, p_integration_id bigint)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_link public.device_links := fleet.golioth_link(p_device_id, p_integration_id);
  v_leaves jsonb;
begin
  perform fleet.require_size('what is wanted', 'desired', p_desired);
  perform fleet.raise_problems('what is wanted', 'desired_invalid', array_agg(q)) from fleet.desired_problems(p_desired) as q;
  select l.* into v_link
  from public.device_links as l
  where l.device_id = v_link.device_id and l.integration_id = v_link.integration_id
  for update;
  -- Null takes a value away, also a whole branch.
  v_leaves := fleet.leaf_map(fleet.patched(v_link.desired, p_desired));
  perform fleet.raise_problems('what is wanted', 'desired_invalid', array_agg(p.problem))
  from (
    select row('desired', 'would have more than 200 values', 'Take others away with null.')::fleet.problem as problem where v_leaves is null
  ) as p;
  perform fleet.require_size('what is wanted', 'desired', fleet.tree_of_leaves(v_leaves));
  update public.device_links as l
  set desired = fleet.tree_of_leaves(v_leaves), desired_at = clock_timestamp(), updated_at = clock_timestamp()
  where l.device_id = v_link.device_id and l.integration_id = v_link.integration_id
  returning l.* into v_link;
  perform fleet.ask_for_export(v_link.integration_id, clock_timestamp());
  return v_link.desired;
end;
$$;

comment on function fleet.set_desired_state(bigint, jsonb, bigint) is 'See public.set_desired_state. Definer: it checks the caller.';
revoke all on function fleet.set_desired_state(bigint, jsonb, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.set_desired_state(bigint, jsonb, bigint) to authenticated, service_role;

create or replace function public.set_desired_state(p_device_id bigint, p_desired jsonb, p_integration_id bigint default null)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.set_desired_state(p_device_id, p_desired, p_integration_id)
$$;

comment on function public.set_desired_state(bigint, jsonb, bigint) is
  'Say what is wanted of a device in its Golioth project: a tree of values that is merged into what is wanted already, null takes one away. It '
  'is written under desired in the LightDB State of the device, at once, where the sync exports. Answers all that is wanted. Raises '
  'device_link_not_found (PT404), device_link_ambiguous (PT409), permission_missing (PT403) or desired_invalid (PT422).';
revoke all on function public.set_desired_state(bigint, jsonb, bigint) from public, anon, authenticated, service_role;
grant execute on function public.set_desired_state(bigint, jsonb, bigint) to authenticated, service_role;

create or replace function fleet.resolve_sync_conflict(p_id bigint, p_keep text)
returns public.sync_conflicts
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.sync_conflicts;
begin
  select c.* into v_row from public.sync_conflicts as c where c.id = p_id and fleet.is_visible_owner(c.owner_id) for update;
  if not found then
    raise exception 'sync conflict % was not found', p_id
      using errcode = 'PT404', detail = 'sync_conflict_not_found', hint = 'List them with: select * from sync_conflict_list';
  end if;
  perform fleet.require_permission(v_row.owner_id, 'manage', format('sync conflict %s', p_id));
  perform fleet.raise_problems('the decision', 'desired_invalid', array_agg(q))
  from fleet.choice_problem('keep', to_jsonb(p_keep), '{local,remote}') as q;
  update public.sync_conflicts as c set keep = p_keep where c.id = p_id returning c.* into v_row;
  perform fleet.ask_for_export(v_row.integration_id, clock_timestamp());
  return v_row;
end;
$$;

comment on function fleet.resolve_sync_conflict(bigint, text) is 'See public.resolve_sync_conflict. Definer: it checks the caller.';
revoke all on function fleet.resolve_sync_conflict(bigint, text) from public, anon, authenticated, service_role;
grant execute on function fleet.resolve_sync_conflict(bigint, text) to authenticated, service_role;

create or replace function public.resolve_sync_conflict(p_id bigint, p_keep text)
returns public.sync_conflicts
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.resolve_sync_conflict(p_id, p_keep)
$$;

comment on function public.resolve_sync_conflict(bigint, text) is
  'Say which side of a conflict counts, local or remote; the next sync, which is asked for, does it. Answers the row. Raises '
  'sync_conflict_not_found (PT404), permission_missing (PT403) or desired_invalid (PT422).';
revoke all on function public.resolve_sync_conflict(bigint, text) from public, anon, authenticated, service_role;
grant execute on function public.resolve_sync_conflict(bigint, text) to authenticated, service_role;
