-- A calendar's recurrence rule (RFC 5545) in the JSON of a schedule: key "rrule".

create or replace function fleet.rrule_bounds(p_spec jsonb)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- DTSTART says when a rule begins, and in which zone.
  select case
    when b.block ->> 'problem' is not null or b.block -> 'start' = 'null' then '{}'::jsonb
    else jsonb_build_object('start_time', case
      when b.block #>> '{start,value}' ~ 'Z$' then fleet.instant_text(fleet.rrule_block_start(b.block, 'UTC'))
      else fleet.rrule_local_text((b.block -> 'start') - 'zone', 'UTC')
    end) || case
      when b.block #>> '{start,zone}' is null then '{}'
      else jsonb_build_object('timezone', regexp_replace(b.block #>> '{start,zone}', '^/.*/([^/]+/[^/]+)$', '\1'))
    end
  end
  from (select fleet.rrule_block(p_spec ->> 'rrule') as block) as b
  where jsonb_typeof(p_spec -> 'rrule') = 'string'
$$;

comment on function fleet.rrule_bounds(jsonb) is
  'start_time and timezone as DTSTART of a specification''s rrule says them; {} where it says none.';
revoke all on function fleet.rrule_bounds(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.recurrence_of_rrule(p_spec jsonb)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  -- In device time what the wall shows is read as UTC, as everywhere.
  v_zone text := coalesce(nullif(p_spec ->> 'timezone', 'device'), 'UTC');
  v_start timestamptz;
  v_parts jsonb := fleet.rrule_parts(p_spec ->> 'rrule');
  v_recurrence jsonb;
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
  if p_spec ->> 'timezone' is distinct from 'device' then
    return fleet.recurrence_from_rrule(p_spec ->> 'rrule', v_start, v_zone);
  elsif fleet.try_exact_instant(p_spec ->> 'start_time') is not null then
    -- An instant: the date and the time of day that are taken from it are those of the owner's wall.
    v_start := (v_start at time zone fleet.zone_clock(fleet.home_zone(fleet.try_uuid(p_spec ->> 'owner_id')))) at time zone 'UTC';
  end if;

  -- On many walls a count counts runs, and an end without Z is a reading of the wall.
  v_recurrence := fleet.recurrence_from_rrule(
    regexp_replace(p_spec ->> 'rrule', '(^|;|:)COUNT=[1-9]\d{0,4}(;|\s*$)', '\1', 'i'), v_start, v_zone
  );
  if v_parts ->> 'COUNT' ~ '^[1-9]\d{0,4}$' and not v_parts ? 'UNTIL' then
    v_recurrence := jsonb_set(v_recurrence, '{policies,max_runs}', to_jsonb((v_parts ->> 'COUNT')::integer));
  elsif v_parts ->> 'UNTIL' !~ 'Z$' then
    v_recurrence := jsonb_set(v_recurrence, '{end_time}', to_jsonb(left(v_recurrence ->> 'end_time', 26)));
  end if;
  return v_recurrence;
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
    select p_spec ->> 'rrule' as rule, b.bounds, b.bounds || fleet.without_nulls(p_spec) as spec
    from (select coalesce(fleet.rrule_bounds(p_spec), '{}') as bounds) as b
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
  select 'rrule', format('DTSTART says another %s than %s does', k.word, k.key), format('Leave %s out, or DTSTART.', k.key)
  from given as g
  cross join (values ('start_time', 'time'), ('timezone', 'zone')) as k(key, word)
  where g.bounds ? k.key
    and case k.key
      when 'timezone' then g.spec ->> 'timezone' <> g.bounds ->> 'timezone' and g.spec ->> 'timezone' <> 'device'
      else fleet.try_instant(g.spec ->> 'start_time', 'UTC') <> fleet.try_instant(g.bounds ->> 'start_time', 'UTC')
        and coalesce(
          fleet.try_exact_instant(g.spec ->> 'start_time')
            <> fleet.rrule_block_start(
              fleet.rrule_block(g.rule),
              -- What every wall shows is read as UTC; so is what is in a zone that nobody knows, which is told elsewhere.
              case when fleet.is_time_zone(g.spec ->> 'timezone') then g.spec ->> 'timezone' else 'UTC' end
            ),
          true
        )
    end
  union all
  select 'rrule', r.recurrence ->> 'problem', r.recurrence ->> 'hint'
  from given as g
  cross join fleet.recurrence_of_rrule(g.spec) as r(recurrence)
  -- A change may leave the start as it was; who reads the whole then tells.
  where g.spec ? 'start_time' and r.recurrence ? 'problem'
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
    || case
      -- On the walls of all devices the end is a time of day, not one instant.
      when p_spec ->> 'timezone' = 'device' and v_recurrence ? 'end_time'
        then jsonb_build_object('end_time', regexp_replace(v_recurrence ->> 'end_time', '\+00:00$', ''))
      else '{}'
    end
    || case
      -- Times of a rule are whole seconds: one that begins within a second would miss its first.
      when p_spec ->> 'start_time' ~ '\.\d*[1-9]'
        then jsonb_build_object('start_time', regexp_replace(p_spec ->> 'start_time', '\.\d+', ''))
      else '{}'
    end
    || jsonb_build_object('policies', (v_recurrence -> 'policies') || fleet.object_or_empty(p_spec -> 'policies'));
end;
$$;

comment on function fleet.spec_without_rrule(jsonb) is
  'The specification with its rrule in our own keys: recurrence_type, recurrence_config, end_time, and the policies that the standard '
  'implies where it says nothing of its own. Raises schedule_invalid (PT422) naming rrule.';
revoke all on function fleet.spec_without_rrule(jsonb) from public, anon, authenticated, service_role;
