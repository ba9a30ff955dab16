-- A calendar's recurrence rule (RFC 5545) in the JSON of a schedule: key "rrule".

create or replace function fleet.recurrence_of_rrule(p_spec jsonb)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  -- In device time what the clock shows is read as UTC, as everywhere.
  v_zone text := coalesce(nullif(p_spec ->> 'timezone', 'device'), 'UTC');
  v_start timestamptz;
  v_problem text;
  v_hint text;
begin
  if not fleet.is_time_zone(v_zone) then
    v_zone := 'UTC';
  end if;
  v_start := fleet.try_instant(p_spec ->> 'start_time', v_zone);
  if v_start is null then
    return jsonb_build_object(
      'problem', 'needs start_time, from which a rule counts and takes its time of day',
      'hint', 'Example: {"rrule": "FREQ=WEEKLY;BYDAY=MO,WE", "start_time": "2030-03-04T06:30:00"}'
    );
  end if;
  return fleet.recurrence_from_rrule(p_spec ->> 'rrule', v_start, v_zone);
exception
  when sqlstate 'PT422' then
    get stacked diagnostics v_problem = message_text, v_hint = pg_exception_hint;
    return jsonb_build_object('problem', regexp_replace(v_problem, '^RRULE: ', ''), 'hint', v_hint);
end;
$$;

comment on function fleet.recurrence_of_rrule(jsonb) is
  'What key rrule of a schedule comes to in our own keys, or {"problem", "hint"} where it cannot be said in them.';
revoke all on function fleet.recurrence_of_rrule(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.rrule_problems(p_spec jsonb)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with given as (
    select p_spec ->> 'rrule' as rule
    where jsonb_typeof(p_spec -> 'rrule') = 'string'
  )
  select 'rrule', format('and %s exclude each other', k.key), 'Say in one of the two ways how the schedule recurs.'
  from given
  cross join (values ('recurrence_type'), ('recurrence_config')) as k(key)
  where coalesce(p_spec -> k.key, 'null') <> 'null'
  union all
  select 'rrule', 'ends by itself: COUNT or UNTIL and end_time exclude each other', 'Leave end_time out, or COUNT and UNTIL.'
  from given as g
  where g.rule ~* '(COUNT|UNTIL)=' and coalesce(p_spec -> 'end_time', 'null') <> 'null'
  union all
  select 'rrule', r.recurrence ->> 'problem', r.recurrence ->> 'hint'
  from given
  cross join fleet.recurrence_of_rrule(p_spec) as r(recurrence)
  -- A change may leave the start as it was; who reads the whole then tells.
  where p_spec ? 'start_time' and r.recurrence ? 'problem'
$$;

comment on function fleet.rrule_problems(jsonb) is 'What is wrong with key rrule of a schedule in JSON.';
revoke all on function fleet.rrule_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.spec_without_rrule(p_spec jsonb)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_recurrence jsonb;
begin
  if coalesce(jsonb_typeof(p_spec -> 'rrule'), 'null') <> 'string' then
    return p_spec - 'rrule';
  end if;

  v_recurrence := fleet.recurrence_of_rrule(p_spec);
  if v_recurrence ? 'problem' then
    perform fleet.raise_problems(
      'the schedule', 'schedule_invalid', array[('rrule', v_recurrence ->> 'problem', v_recurrence ->> 'hint')::fleet.problem]
    );
  end if;
  return (p_spec - 'rrule')
    || (v_recurrence - '{timezone,start_time,policies}'::text[])
    || jsonb_build_object('policies', (v_recurrence -> 'policies') || fleet.object_or_empty(p_spec -> 'policies'));
end;
$$;

comment on function fleet.spec_without_rrule(jsonb) is
  'The specification with its rrule in our own keys: recurrence_type, recurrence_config, end_time, and the policies that the standard '
  'implies where it says nothing of its own. Raises schedule_invalid (PT422) naming rrule.';
revoke all on function fleet.spec_without_rrule(jsonb) from public, anon, authenticated, service_role;
