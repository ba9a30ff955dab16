-- One verb for many schedules, chosen by a filter.

create or replace function fleet.filter_problems(p_filter jsonb)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  with given as (
    select e.key, e.value
    from jsonb_each(case when jsonb_typeof(p_filter) = 'object' then p_filter else '{}' end) as e
    where e.value <> 'null'
  )
  select 'filter', 'must be an object', 'Example: {"status": "active", "name": "%lab%"}'
  where jsonb_typeof(p_filter) is distinct from 'object'
  union all
  select g.key, 'is not a key of a filter', 'The keys are ids, status, name, action_type, device_id, group_id and owner_id.'
  from given as g
  where g.key not in ('ids', 'status', 'name', 'action_type', 'device_id', 'group_id', 'owner_id')
  union all
  select g.key, format('%s is not a list of ids', g.value), 'Write whole numbers without quotes, like [1, 2].'
  from given as g
  where g.key = 'ids' and not fleet.is_id_list(g.value)
  union all
  select g.key, format('%s is not text, or a list of text', g.value), format('Example: {"%s": "…"}', g.key)
  from given as g
  cross join lateral fleet.as_list(g.value) as v(item)
  where g.key in ('status', 'name', 'action_type') and jsonb_typeof(v.item) <> 'string'
  union all
  select q.field, q.problem, q.hint
  from given as g
  cross join lateral fleet.as_list(g.value) as v(item)
  cross join lateral fleet.choice_problem(g.key, v.item, '{active,paused,completed,cancelled}') as q
  where g.key = 'status' and jsonb_typeof(v.item) = 'string'
  union all
  select q.field, q.problem, q.hint
  from given as g
  cross join lateral fleet.whole_number_problem(g.key, g.value, 1, 9007199254740991) as q
  where g.key in ('device_id', 'group_id')
  union all
  select g.key, format('%s is not a uuid', g.value), 'Copy the id of the owner.'
  from given as g
  where g.key = 'owner_id' and fleet.try_uuid(g.value #>> '{}') is null
$$;

comment on function fleet.filter_problems(jsonb) is 'Everything that is wrong with a filter of schedules.';
revoke all on function fleet.filter_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.check_filter(p_filter jsonb)
returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.require_size('the filter', 'spec', p_filter);
  perform fleet.raise_problems('the filter', 'filter_invalid', array_agg(q))
  from fleet.filter_problems(p_filter) as q;
  return fleet.without_nulls(p_filter);
end;
$$;

comment on function fleet.check_filter(jsonb) is 'The filter without what says nothing. Raises filter_invalid (PT422) naming every wrong key.';
revoke all on function fleet.check_filter(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.has_text(p_values jsonb, p_text text)
returns boolean
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select exists (select 1 from fleet.as_list(p_values) as v(item) where v.item #>> '{}' = p_text)
$$;

comment on function fleet.has_text(jsonb, text) is 'Whether a text is this value, or one of this list.';
revoke all on function fleet.has_text(jsonb, text) from public, anon, authenticated, service_role;

create or replace function fleet.found_schedules(p_filter jsonb, p_permission text)
returns setof public.schedules
language sql
stable
set search_path = pg_catalog, pg_temp
-- Compiling the plan would take a thousand times as long as running it.
set jit = off
as $$
  select s.*
  from (
    -- Each by itself: what others have is not even looked at.
    select x.* from public.schedules as x where (select fleet.is_trusted_caller())
    union all
    select x.*
    from public.schedules as x
    where not (select fleet.is_trusted_caller()) and x.owner_id = any (array(select fleet.my_owners(p_permission)))
  ) as s
  where (not p_filter ? 'owner_id' or s.owner_id = fleet.try_uuid(p_filter ->> 'owner_id'))
    and (not p_filter ? 'ids' or s.id = any (fleet.bigint_array(p_filter -> 'ids')))
    and (not p_filter ? 'status' or fleet.has_text(p_filter -> 'status', s.status))
    and (not p_filter ? 'action_type' or fleet.has_text(p_filter -> 'action_type', s.action_type))
    and (
      not p_filter ? 'name'
      or s.name ilike any (array(select v.item #>> '{}' from fleet.as_list(p_filter -> 'name') as v(item)))
    )
    and (not p_filter ? 'group_id' or (p_filter ->> 'group_id')::bigint = any (s.group_ids))
    and (
      not p_filter ? 'device_id'
      or (p_filter ->> 'device_id')::bigint = any (s.device_ids)
      or exists (
        select 1
        from public.devices as d
        where d.id = (p_filter ->> 'device_id')::bigint
          and d.owner_id = s.owner_id
          and (
            fleet.device_matches(s.selector, d.tags, d.platform, d.attributes, d.reported)
            or exists (
              select 1
              from public.device_groups as g
              where g.id = any (s.group_ids)
                and g.owner_id = s.owner_id
                and (
                  fleet.device_matches(g.selector, d.tags, d.platform, d.attributes, d.reported)
                  or exists (
                    select 1 from public.device_group_members as m where m.group_id = g.id and m.device_id = d.id
                  )
                )
            )
          )
      )
    )
$$;

comment on function fleet.found_schedules(jsonb, text) is
  'The schedules that a checked filter finds among those with which the caller may do this. device_id finds what reaches the device, '
  'by whichever way; name is a pattern as for ilike.';
revoke all on function fleet.found_schedules(jsonb, text) from public, anon, authenticated, service_role;

create or replace function fleet.bulk_action(p_action text)
returns table (permission text, statuses text[])
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select a.permission, a.statuses::text[]
  from (
    values
      ('pause', 'manage', '{active}'),
      ('resume', 'manage', '{paused}'),
      ('cancel', 'manage', '{active,paused,completed}'),
      ('delete', 'manage', '{active,paused,completed,cancelled}'),
      ('run', 'operate', '{active,paused,completed}')
  ) as a(action, permission, statuses)
  where a.action = p_action;
  if not found then
    raise exception 'action % is not one of pause, resume, cancel, delete, run', coalesce('"' || p_action || '"', 'null')
      using errcode = 'PT422', detail = 'action_unknown', hint = 'Use one of: pause, resume, cancel, delete, run.';
  end if;
end;
$$;

comment on function fleet.bulk_action(text) is
  'What an action needs, and the states in which a schedule takes it. Raises action_unknown (PT422).';
revoke all on function fleet.bulk_action(text) from public, anon, authenticated, service_role;

create or replace function fleet.bulk_schedules(p_action text, p_filter jsonb, p_dry_run boolean, p_reason text)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_filter jsonb := fleet.check_filter(p_filter);
  v_action record;
  v_ids bigint[];
  v_changed bigint := 0;
begin
  select a.permission, a.statuses into v_action from fleet.bulk_action(p_action) as a;
  select array_agg(f.id order by f.id) into v_ids
  from fleet.found_schedules(v_filter, v_action.permission) as f
  where f.status = any (v_action.statuses);
  v_ids := coalesce(v_ids, '{}');

  if not coalesce(p_dry_run, true) then
    -- Locked in one order, so that two of these never wait for each other; what changed meanwhile is left alone.
    select coalesce(array_agg(x.id), '{}') into v_ids
    from (
      select s.id
      from public.schedules as s
      where s.id = any (v_ids) and s.status = any (v_action.statuses)
      order by s.id
      for update
    ) as x;
    v_changed := fleet.do_to_schedules(p_action, v_ids, p_reason);
  end if;
  return jsonb_build_object(
    'action', p_action, 'dry_run', coalesce(p_dry_run, true),
    'count', cardinality(v_ids), 'ids', to_jsonb(v_ids), 'changed', v_changed
  );
end;
$$;

comment on function fleet.bulk_schedules(text, jsonb, boolean, text) is
  'See public.bulk_schedules. Definer: it reaches only what the caller has the permission for.';
revoke all on function fleet.bulk_schedules(text, jsonb, boolean, text) from public, anon, authenticated, service_role;
grant execute on function fleet.bulk_schedules(text, jsonb, boolean, text) to authenticated, service_role;

create or replace function fleet.do_to_schedules(p_action text, p_ids bigint[], p_reason text)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_changed bigint;
begin
  if p_action = 'delete' then
    delete from public.schedules as s where s.id = any (p_ids);
  elsif p_action = 'run' then
    perform fleet.run_schedule(u.id, null, clock_timestamp()) from unnest(p_ids) as u(id);
  else
    update public.schedules as s
    set status = case p_action when 'pause' then 'paused' when 'resume' then 'active' else 'cancelled' end,
        status_reason = p_reason
    where s.id = any (p_ids);
  end if;
  get diagnostics v_changed = row_count;
  return v_changed;
end;
$$;

comment on function fleet.do_to_schedules(text, bigint[], text) is
  'One statement for all of them, whose rows the caller has checked and holds. Answers how many.';
revoke all on function fleet.do_to_schedules(text, bigint[], text) from public, anon, authenticated, service_role;

create or replace function public.bulk_schedules(
  p_action text,
  p_filter jsonb,
  p_dry_run boolean default true,
  p_reason text default null
)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.bulk_schedules(p_action, p_filter, p_dry_run, p_reason)
$$;

comment on function public.bulk_schedules(text, jsonb, boolean, text) is
  'pause, resume, cancel, delete or run all of your schedules that a filter {ids, status, name (ilike), action_type, device_id, '
  'group_id, owner_id} finds and that are in a state for it. Without p_dry_run => false it only counts. {action, dry_run, count, ids, '
  'changed}. Raises filter_invalid or action_unknown (PT422).';
revoke all on function public.bulk_schedules(text, jsonb, boolean, text) from public, anon, authenticated, service_role;
grant execute on function public.bulk_schedules(text, jsonb, boolean, text) to authenticated, service_role;
