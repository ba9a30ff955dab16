-- Both directions, done: what comes from there is taken over, what goes there is given to the function, and is agreed on when it is there.

create or replace function fleet.take_over(p_integration public.device_integrations, p_facts jsonb, p_differences jsonb)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_direction text := coalesce(p_integration.settings ->> 'direction', 'import');
  v_names integer;
  v_tags integer;
  v_desired integer;
begin
  update public.devices as d
  set hostname = x.remote #>> '{}'
  from jsonb_to_recordset(p_differences) as x(device_id bigint, field text, remote jsonb, verdict text)
  where x.verdict = 'import' and x.field = 'name' and d.id = x.device_id
    and btrim(x.remote #>> '{}') <> '' and octet_length(x.remote #>> '{}') <= 1012
    -- Whoever has the name keeps it; it is told as an error.
    and not exists (
      select 1 from public.devices as o
      where o.owner_id = d.owner_id and lower(o.hostname) = lower(x.remote #>> '{}') and o.id <> d.id
    );
  get diagnostics v_names = row_count;

  update public.devices as d
  set tags = t.tags
  from fleet.sync_sides(p_integration, p_facts) as s
  cross join lateral (
    select fleet.merged_tags(s.local_tags, s.remote_tags, s.base_tags, true, v_direction = 'both') as tags
  ) as t
  where v_direction <> 'export' and d.id = s.device_id
    and not (t.tags @> s.local_tags and s.local_tags @> t.tags)
    and cardinality(t.tags) <= 100 and pg_column_size(t.tags) <= 16384;
  get diagnostics v_tags = row_count;

  update public.device_links as l
  set desired = n.desired
  from (
    select x.device_id,
      fleet.tree_of_leaves(
        (fleet.leaf_map(k.desired) - array_agg(substr(x.field, 9)))
        || coalesce(jsonb_object_agg(substr(x.field, 9), x.remote) filter (where x.remote is not null), '{}')
      ) as desired
    from jsonb_to_recordset(p_differences) as x(device_id bigint, field text, remote jsonb, verdict text)
    join public.device_links as k on k.device_id = x.device_id and k.integration_id = p_integration.id
    where x.verdict = 'import' and x.field like 'desired/%'
    group by x.device_id, k.desired
  ) as n
  where l.device_id = n.device_id and l.integration_id = p_integration.id and pg_column_size(n.desired) <= 16384;
  get diagnostics v_desired = row_count;
  return jsonb_build_object('names_taken', v_names, 'tags_taken', v_tags, 'desired_taken', v_desired);
end;
$$;

comment on function fleet.take_over(public.device_integrations, jsonb, jsonb) is
  'Take names, tags and wanted values over that were changed there. How many devices: {names_taken, tags_taken, desired_taken}.';
revoke all on function fleet.take_over(public.device_integrations, jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.note_conflicts(p_integration public.device_integrations, p_facts jsonb, p_differences jsonb)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  -- Of whoever is looked at now, what is no conflict any more.
  delete from public.sync_conflicts as c
  using fleet.sync_sides(p_integration, p_facts) as s
  where c.integration_id = p_integration.id and c.device_id = s.device_id
    and not exists (
      select 1
      from jsonb_to_recordset(p_differences) as x(device_id bigint, field text, verdict text)
      where x.device_id = c.device_id and x.field = c.field and (x.verdict = 'conflict' or x.verdict = 'export' and c.keep = 'local')
    );
  insert into public.sync_conflicts as c (owner_id, integration_id, device_id, field, local, remote)
  select p_integration.owner_id, p_integration.id, x.device_id, x.field, x.local, x.remote
  from jsonb_to_recordset(p_differences) as x(device_id bigint, field text, local jsonb, remote jsonb, verdict text)
  where x.verdict = 'conflict'
  order by x.device_id, x.field
  on conflict (integration_id, device_id, field) do update
    -- About other values nobody has decided yet.
    set local = excluded.local, remote = excluded.remote, keep = null
    where (c.local, c.remote) is distinct from (excluded.local, excluded.remote);
  select count(*) into v_count from jsonb_to_recordset(p_differences) as x(verdict text) where x.verdict = 'conflict';
  return v_count;
end;
$$;

comment on function fleet.note_conflicts(public.device_integrations, jsonb, jsonb) is
  'Keep what a person has to decide of these devices, and forget what is none any more. Answers how many there are.';
revoke all on function fleet.note_conflicts(public.device_integrations, jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.keep_agreed(p_integration public.device_integrations, p_facts jsonb)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  insert into fleet.sync_bases as b (integration_id, device_id, owner_id, local_name, remote_name, tags, desired)
  select p_integration.id, s.device_id, p_integration.owner_id,
    case when n.is_agreed then s.local_name else s.base_local_name end,
    case when n.is_agreed then s.remote_name else s.base_remote_name end,
    array(
      select t.tag
      from (select unnest(s.local_tags) union select unnest(s.remote_tags)) as t(tag)
      -- One that only one side has yet, or has no longer, stays as it was agreed on.
      where t.tag = any (s.base_tags) or (t.tag = any (s.local_tags) and t.tag = any (s.remote_tags))
      order by t.tag
    ),
    coalesce((
      select jsonb_object_agg(e.key, e.value)
      from jsonb_each(s.local_desired) as e
      where e.value = s.remote_desired -> e.key
    ), '{}')
    -- What only one side has changed since stays as it was agreed on.
    || coalesce((
      select jsonb_object_agg(e.key, e.value)
      from jsonb_each(s.base_desired) as e
      where (s.local_desired -> e.key) is distinct from (s.remote_desired -> e.key)
    ), '{}')
  from fleet.sync_sides(p_integration, p_facts) as s
  cross join lateral (
    select s.local_name = s.remote_name or (s.base_local_name = s.local_name and s.base_remote_name = s.remote_name) as is_agreed
  ) as n
  order by s.device_id
  on conflict (integration_id, device_id) do update
    set local_name = excluded.local_name, remote_name = excluded.remote_name, tags = excluded.tags, desired = excluded.desired
    where (b.local_name, b.remote_name, b.tags, b.desired)
      is distinct from (excluded.local_name, excluded.remote_name, excluded.tags, excluded.desired)
$$;

comment on function fleet.keep_agreed(public.device_integrations, jsonb) is
  'Keep what both sides have alike now as what they agreed on; of what they have not, what they agreed on before.';
revoke all on function fleet.keep_agreed(public.device_integrations, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.wanted_there(p_integration public.device_integrations, p_facts jsonb, p_differences jsonb)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_agg(w.wanted order by w.device_id), '[]')
  from (
    select s.device_id,
      jsonb_strip_nulls(jsonb_build_object(
        'external_id', s.external_id, 'name', v.name, 'add_tags', nullif(to_jsonb(t.added), '[]'), 'remove_tags', nullif(to_jsonb(t.removed), '[]')
      )) || jsonb_build_object('set', coalesce(v.changed, '[]'), 'unset', coalesce(v.gone, '[]')) as wanted
    from fleet.sync_sides(p_integration, p_facts) as s
    cross join lateral (
      select
        max(x.local #>> '{}') filter (where x.field = 'name') as name,
        jsonb_agg(jsonb_build_array(x.field, x.local) order by x.field) filter (where x.field <> 'name' and x.local is not null) as changed,
        jsonb_agg(x.field order by x.field) filter (where x.field <> 'name' and x.local is null) as gone
      from jsonb_to_recordset(p_differences) as x(device_id bigint, field text, local jsonb, verdict text)
      where x.device_id = s.device_id and x.verdict = 'export'
    ) as v
    cross join lateral (
      select fleet.merged_tags(s.remote_tags, s.local_tags, s.base_tags, true, p_integration.settings ->> 'direction' = 'both') as tags
    ) as m
    cross join lateral (
      select array(select a.tag from unnest(m.tags) as a(tag) where a.tag <> all (s.remote_tags)) as added,
        array(select g.tag from unnest(s.remote_tags) as g(tag) where g.tag <> all (m.tags)) as removed
    ) as t
    where v.name is not null or v.changed is not null or v.gone is not null or t.added <> '{}' or t.removed <> '{}'
  ) as w
$$;

comment on function fleet.wanted_there(public.device_integrations, jsonb, jsonb) is
  'What is to be written there: [{external_id, name, add_tags, remove_tags, set: [[path, value]], unset: [path]}].';
revoke all on function fleet.wanted_there(public.device_integrations, jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.worker_agree(p_integration_id bigint, p_started_at timestamptz, p_facts jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  v_integration public.device_integrations;
  v_differences jsonb;
  v_taken jsonb;
  v_conflicts integer;
begin
  select i.* into v_integration
  from public.device_integrations as i
  join fleet.golioth_syncs as g on g.integration_id = i.id
  where i.id = p_integration_id and g.started_at = p_started_at
  for update of i;
  if not found then
    return null;
  end if;
  v_integration.settings := fleet.golioth_defaults() || v_integration.settings;
  select coalesce(jsonb_agg(to_jsonb(x)), '[]') into v_differences
  from fleet.sync_differences(v_integration, p_facts) as x
  where x.verdict not in ('same', 'agreed');
  v_conflicts := fleet.note_conflicts(v_integration, p_facts, v_differences);
  v_taken := fleet.take_over(v_integration, p_facts, v_differences);
  perform fleet.keep_agreed(v_integration, p_facts);
  return v_taken || jsonb_build_object(
    'conflicts', v_conflicts,
    'wanted', case
      when v_integration.settings ->> 'direction' = 'import' then '[]' else fleet.wanted_there(v_integration, p_facts, v_differences)
    end,
    'refused', coalesce((
      select jsonb_agg(jsonb_build_object('external_id', x.external_id, 'error', format('the name "%s" is taken here', x.remote #>> '{}')))
      from jsonb_to_recordset(v_differences) as x(device_id bigint, external_id text, field text, remote jsonb, verdict text)
      join public.devices as d on d.id = x.device_id
      where x.field = 'name' and x.verdict = 'import' and d.hostname <> x.remote #>> '{}'
    ), '[]')
  );
end;
$$;

comment on function fleet.worker_agree(bigint, timestamptz, jsonb) is
  'Compare names, tags and wanted values of devices with those that the other system has, [{external_id, name, tags, desired, updated_at}]: '
  'take over what is to come here, and say what is to be written there. {wanted, conflicts, names_taken, tags_taken, desired_taken, refused}; '
  'null where another function has the pull by now. Asked again with what is there then, it keeps it as agreed. Definer: the worker writes no '
  'table.';
revoke all on function fleet.worker_agree(bigint, timestamptz, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.worker_log_export(p_integration_id bigint, p_report jsonb, p_now timestamptz default clock_timestamp())
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_integration public.device_integrations;
begin
  select i.* into strict v_integration from public.device_integrations as i where i.id = p_integration_id;
  perform fleet.log_activity(v_integration, jsonb_build_object(
    'activity_type', 'sync_export',
    'status', case when p_report ->> 'error' is null then 'completed' else 'failed' end,
    'counts', p_report -> 'counts', 'duration_ms', p_report -> 'duration_ms', 'error', p_report -> 'error',
    'detail', jsonb_build_object('errors', fleet.errors_to_log(coalesce(p_report -> 'errors', '[]'), p_integration_id))
  ), p_now);
end;
$$;

comment on function fleet.worker_log_export(bigint, jsonb, timestamptz) is
  'Log what was written to the other system: {counts, duration_ms, error, errors: [{external_id, error}]}. Definer: the worker writes no table.';
revoke all on function fleet.worker_log_export(bigint, jsonb, timestamptz) from public, anon, authenticated, service_role;
