-- A schedule as JSON whose keys are unknown, or hold something of another type than they are to.

create or replace function fleet.after_problems(p_after jsonb)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select 'after.' || k.key, 'is not a key of after', 'The keys are schedule (a name), schedule_id, on and per_device.'
  from jsonb_object_keys(fleet.object_or_empty(p_after)) as k(key)
  where k.key not in ('schedule', 'schedule_id', 'on', 'per_device')
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
  union all
  select 'after.per_device', 'must be true or false', 'Example: {"after": {"schedule_id": 7, "per_device": true}}'
  where jsonb_typeof(p_after) = 'object' and jsonb_typeof(p_after -> 'per_device') not in ('boolean', 'null')
$$;

comment on function fleet.after_problems(jsonb) is 'What is wrong with the key "after" of a schedule in JSON.';
revoke all on function fleet.after_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.value_problem(p_key text, p_value jsonb, p_kind text)
returns fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  case
    when p_kind is null then
      return (
        p_key, 'is not a key of a schedule', (
          select 'The keys are ' || string_agg(k.name, ', ' order by k.nr) || '.'
          from (
            select c.name, row_number() over () as nr from fleet.schedule_columns() as c
            union all
            values ('owner_id', 1001), ('devices', 1002), ('groups', 1003), ('after', 1004), ('rrule', 1005)
          ) as k
        )
      )::fleet.problem;
    when p_value = 'null' then
      return null;
    when p_kind in ('string', 'object', 'boolean') then
      if jsonb_typeof(p_value) <> p_kind then
        return (
          p_key, format('must be %s, not %s', case p_kind when 'object' then 'an object' else 'a ' || p_kind end, p_value),
          'Check the type of the value.'
        )::fleet.problem;
      end if;
    when p_kind = 'time' then
      if fleet.try_instant(p_value #>> '{}', 'UTC') is null then
        return (
          p_key, format('%s is not a time', p_value), 'Write it like "2026-03-01T06:30:00" (local) or "2026-03-01T05:30:00Z".'
        )::fleet.problem;
      end if;
    when p_kind = 'uuid' then
      if fleet.try_uuid(p_value #>> '{}') is null then
        return (p_key, format('%s is not a uuid', p_value), 'Copy the id of the owner.')::fleet.problem;
      end if;
    when p_kind = 'ids' then
      if not fleet.is_id_list(p_value) then
        return (
          p_key, format('%s is not a list of ids', p_value), 'Write whole numbers without quotes, like [1, 2].'
        )::fleet.problem;
      end if;
    when p_kind = 'id' then
      return (select n from fleet.whole_number_problem(p_key, p_value, 1, 9007199254740991) as n);
    when p_kind = 'priority' then
      return (select n from fleet.whole_number_problem(p_key, p_value, -100, 100) as n);
    else
      -- Names are looked at by fleet.name_problems.
      return null;
  end case;
  return null;
end;
$$;

comment on function fleet.value_problem(text, jsonb, text) is
  'What is wrong with the value of one key of a schedule in JSON, by the kind that it is to have; null where nothing is.';
revoke all on function fleet.value_problem(text, jsonb, text) from public, anon, authenticated, service_role;

create or replace function fleet.spec_type_problems(p_spec jsonb)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_key text;
  v_value jsonb;
  v_kind text;
  v_problem fleet.problem;
  v_problems fleet.problem[] := '{}';
  v_ranks integer[] := '{}';
begin
  for v_key, v_value in select e.key, e.value from jsonb_each(p_spec) as e loop
    v_kind := (fleet.schedule_kinds() || '{"owner_id": "uuid", "devices": "names", "groups": "names", "after": "object", "rrule": "string"}')
      ->> v_key;
    v_problem := fleet.value_problem(v_key, v_value, v_kind);
    if not v_problem is null then
      v_problems := v_problems || v_problem;
      -- In which order what is wrong is told.
      v_ranks := v_ranks || case
        when v_kind is null then 0
        when v_kind in ('string', 'object', 'boolean') then 1
        else coalesce(array_position('{time,uuid,ids}'::text[], v_kind) + 1, 5)
      end;
    end if;
  end loop;
  if cardinality(v_problems) > 0 then
    return query
    select q.field, q.problem, q.hint
    from unnest(v_problems) with ordinality as q(field, problem, hint, n)
    order by v_ranks[q.n], q.n;
  end if;

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
