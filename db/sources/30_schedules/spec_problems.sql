-- What is wrong with the JSON of a schedule before it can be read: unknown keys, values of another type.

create or replace function fleet.is_id_list(p_list jsonb)
returns boolean
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case jsonb_typeof(p_list)
    when 'array' then not exists (
      select 1
      from jsonb_array_elements(p_list) as e
      cross join lateral fleet.whole_number_problem('', e, 1, 9007199254740991)
    )
    else false
  end
$$;

comment on function fleet.is_id_list(jsonb) is 'Whether this is a JSON list of ids.';
revoke all on function fleet.is_id_list(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.after_problems(p_after jsonb)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select 'after.schedule_id', 'is missing', 'Example: {"after": {"schedule_id": 7, "on": "completed"}}'
  where jsonb_typeof(p_after) = 'object' and not p_after ? 'schedule_id'
  union all
  select q.field, q.problem, q.hint
  from fleet.whole_number_problem(
    'after.schedule_id', case jsonb_typeof(p_after) when 'object' then p_after -> 'schedule_id' end, 1, 9007199254740991
  ) as q
  union all
  select q.field, q.problem, q.hint
  from fleet.choice_problem(
    'after.on', case jsonb_typeof(p_after) when 'object' then p_after -> 'on' end, '{completed,failed,either}'
  ) as q
$$;

comment on function fleet.after_problems(jsonb) is 'What is wrong with the key "after" of a schedule in JSON.';
revoke all on function fleet.after_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.spec_type_problems(p_spec jsonb)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with expected (key, kind) as (
    values
      ('name', 'string'), ('description', 'string'), ('action_type', 'string'), ('payload', 'object'),
      ('recurrence_type', 'string'), ('recurrence_config', 'object'), ('start_time', 'time'), ('end_time', 'time'),
      ('timezone', 'string'), ('device_ids', 'ids'), ('group_ids', 'ids'), ('selector', 'object'),
      ('profile_id', 'string'), ('device_id', 'id'), ('policies', 'object'), ('priority', 'priority'),
      ('ui_initiated', 'boolean'), ('owner_id', 'uuid'), ('after', 'object'),
      ('after_schedule_id', 'id'), ('after_on', 'string'), ('rrule', 'string')
  )
  select e.key, 'is not a key of a schedule',
    'The keys are ' || (select string_agg(x.key, ', ') from expected as x) || '.'
  from jsonb_each(p_spec) as e
  where e.key not in (select x.key from expected as x)
  union all
  select x.key, format('must be %s, not %s', case x.kind when 'object' then 'an object' else 'a ' || x.kind end, e.value),
    'Check the type of the value.'
  from expected as x
  join jsonb_each(p_spec) as e on e.key = x.key
  where x.kind in ('string', 'object', 'boolean')
    and jsonb_typeof(e.value) not in (x.kind, 'null')
  union all
  select x.key, format('%s is not a time', e.value), 'Write it like "2026-03-01T06:30:00" (local) or "2026-03-01T05:30:00Z".'
  from expected as x
  join jsonb_each(p_spec) as e on e.key = x.key
  where x.kind = 'time'
    and jsonb_typeof(e.value) <> 'null'
    and fleet.try_instant(e.value #>> '{}', 'UTC') is null
  union all
  select q.field, q.problem, q.hint
  from fleet.after_problems(p_spec -> 'after') as q
  union all
  select q.field, q.problem, q.hint
  from fleet.rrule_problems(p_spec) as q
  union all
  select x.key, format('%s is not a uuid', e.value), 'Copy the id of the owner.'
  from expected as x
  join jsonb_each(p_spec) as e on e.key = x.key
  where x.kind = 'uuid'
    and jsonb_typeof(e.value) <> 'null'
    and fleet.try_uuid(e.value #>> '{}') is null
  union all
  select x.key, format('%s is not a list of ids', e.value), 'Write whole numbers without quotes, like [1, 2].'
  from expected as x
  join jsonb_each(p_spec) as e on e.key = x.key
  where x.kind = 'ids'
    and jsonb_typeof(e.value) <> 'null'
    and not fleet.is_id_list(e.value)
  union all
  select n.field, n.problem, n.hint
  from expected as x
  join jsonb_each(p_spec) as e on e.key = x.key
  cross join lateral fleet.whole_number_problem(
    x.key, e.value,
    case x.kind when 'id' then 1 else -100 end,
    case x.kind when 'id' then 9007199254740991 else 100 end
  ) as n
  where x.kind in ('id', 'priority') and jsonb_typeof(e.value) <> 'null'
$$;

comment on function fleet.spec_type_problems(jsonb) is
  'Keys of a schedule in JSON that are unknown or hold something of another type.';
revoke all on function fleet.spec_type_problems(jsonb) from public, anon, authenticated, service_role;
