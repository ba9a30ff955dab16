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
  select 'after.' || k.key, 'is not a key of after', 'The keys are schedule (a name), schedule_id and on.'
  from jsonb_object_keys(fleet.object_or_empty(p_after)) as k(key)
  where k.key not in ('schedule', 'schedule_id', 'on')
  union all
  select 'after.schedule_id', 'is missing', 'Example: {"after": {"schedule_id": 7, "on": "completed"}}'
  where jsonb_typeof(p_after) = 'object' and not p_after ?| '{schedule,schedule_id}'
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
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with expected as materialized (
    select c.name as key, c.kind from fleet.schedule_columns() as c
    union all
    values ('owner_id', 'uuid'), ('devices', 'names'), ('groups', 'names'), ('after', 'object'), ('rrule', 'string')
  ),
  given as materialized (
    select e.key, e.value, x.kind from jsonb_each(p_spec) as e left join expected as x on x.key = e.key
  )
  select g.key, 'is not a key of a schedule', 'The keys are ' || (select string_agg(x.key, ', ') from expected as x) || '.'
  from given as g
  where g.kind is null
  union all
  select g.key, format('must be %s, not %s', case g.kind when 'object' then 'an object' else 'a ' || g.kind end, g.value),
    'Check the type of the value.'
  from given as g
  where g.kind in ('string', 'object', 'boolean') and jsonb_typeof(g.value) not in (g.kind, 'null')
  union all
  select g.key, format('%s is not a time', g.value), 'Write it like "2026-03-01T06:30:00" (local) or "2026-03-01T05:30:00Z".'
  from given as g
  where g.kind = 'time' and g.value <> 'null' and fleet.try_instant(g.value #>> '{}', 'UTC') is null
  union all
  select g.key, format('%s is not a uuid', g.value), 'Copy the id of the owner.'
  from given as g
  where g.kind = 'uuid' and g.value <> 'null' and fleet.try_uuid(g.value #>> '{}') is null
  union all
  select g.key, format('%s is not a list of ids', g.value), 'Write whole numbers without quotes, like [1, 2].'
  from given as g
  where g.kind = 'ids' and g.value <> 'null' and not fleet.is_id_list(g.value)
  union all
  select n.field, n.problem, n.hint
  from given as g
  cross join lateral fleet.whole_number_problem(
    g.key, g.value,
    case g.kind when 'id' then 1 else -100 end,
    case g.kind when 'id' then 9007199254740991 else 100 end
  ) as n
  where g.kind in ('id', 'priority') and g.value <> 'null';

  if p_spec ? 'after' then
    return query select q.field, q.problem, q.hint from fleet.after_problems(p_spec -> 'after') as q;
  end if;
  if p_spec ? 'rrule' then
    return query select q.field, q.problem, q.hint from fleet.rrule_problems(p_spec) as q;
  end if;
end;
$$;

comment on function fleet.spec_type_problems(jsonb) is
  'Keys of a schedule in JSON that are unknown or hold something of another type. Names are looked at by fleet.name_problems.';
revoke all on function fleet.spec_type_problems(jsonb) from public, anon, authenticated, service_role;
