-- Recurrence rules of calendars (RFC 5545) in our own words.

create or replace function fleet.recurrence_from_rrule(
  p_rrule text,
  p_start timestamptz,
  p_timezone text
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_parts   jsonb := fleet.rrule_parts(p_rrule);
  v_problem text;
  v_local   timestamp;
  v_spec    jsonb;
  v_end     timestamptz;
begin
  select format('%s: %s', t.field, t.problem) into v_problem
  from fleet.timezone_problems(p_timezone) as t;
  v_problem := coalesce(
    v_problem,
    case when p_start is null then 'start_time: is missing' end,
    fleet.rrule_problem(v_parts)
  );
  if v_problem is not null then
    raise exception '%', v_problem
      using errcode = 'PT422',
            detail = 'rrule_invalid',
            hint = 'Write a rule such as FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,FR, or a cron expression instead';
  end if;

  v_local := p_start at time zone fleet.zone_clock(p_timezone);
  v_spec := case v_parts ->> 'FREQ'
    when 'DAILY' then fleet.rrule_daily(v_parts, v_local)
    when 'WEEKLY' then fleet.rrule_weekly(v_parts, v_local)
    when 'MONTHLY' then fleet.rrule_monthly(v_parts, v_local)
    when 'YEARLY' then fleet.rrule_yearly(v_parts, v_local)
    else fleet.rrule_interval(v_parts)
  end;
  if v_spec ? 'refused' then
    raise exception 'RRULE: %', v_spec ->> 'refused'
      using errcode = 'PT422',
            detail = 'rrule_unsupported',
            hint = 'Split the rule into several schedules, each of which we can express';
  end if;

  v_spec := v_spec || jsonb_build_object(
    'start_time', fleet.instant_text(p_start),
    'timezone', p_timezone,
    -- The standard moves a skipped time by as much as the clocks jump.
    'policies', '{"gap": "shift", "fold": "first"}'::jsonb
  );
  v_end := fleet.rrule_end(v_parts, v_spec, p_timezone);
  return v_spec || case
    when v_end is null then '{}'::jsonb
    else jsonb_build_object('end_time', fleet.instant_text(v_end))
  end;
end;
$$;

comment on function fleet.recurrence_from_rrule(text, timestamptz, text) is
  'A calendar''s rule as part of a schedule: recurrence_type, recurrence_config, start_time, end_time (from UNTIL or '
  'COUNT), timezone and policies. Raises rrule_invalid or rrule_unsupported (PT422) with the reason.';
revoke all on function fleet.recurrence_from_rrule(text, timestamptz, text)
  from public, anon, authenticated, service_role;
grant execute on function fleet.recurrence_from_rrule(text, timestamptz, text) to service_role;

create or replace function fleet.rrule_parts(p_rrule text)
returns jsonb
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  -- A part that comes twice is an error of the standard; kept under its name with a mark it is refused as unknown.
  select jsonb_object_agg(
    case when p.nr = 1 then p.name else p.name || ' (twice)' end, p.value
  )
  from (
    select
      upper(split_part(t.part, '=', 1)) as name,
      case when strpos(t.part, '=') > 0 then upper(substr(t.part, strpos(t.part, '=') + 1)) else '' end as value,
      row_number() over (partition by upper(split_part(t.part, '=', 1)) order by t.n) as nr
    from regexp_split_to_table(regexp_replace(btrim(p_rrule), '^RRULE:', '', 'i'), ';')
      with ordinality as t (part, n)
    where t.part <> ''
  ) as p
$$;

comment on function fleet.rrule_parts(text) is 'The parts of a rule by name, in upper case.';
revoke all on function fleet.rrule_parts(text) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_parts(text) to authenticated, service_role;

create or replace function fleet.rrule_problem(p_parts jsonb)
returns text
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    case when p_parts is null then 'RRULE: is empty' end,
    case when not p_parts ? 'FREQ' then 'RRULE: FREQ is missing' end,
    case when p_parts ?& '{COUNT,UNTIL}' then 'RRULE: COUNT and UNTIL exclude each other' end,
    (
      select case
        when f.pattern is null then format('RRULE: %s is not supported', e.name)
        else format('RRULE: %s=%s is not valid', e.name, e.value)
      end
      from jsonb_each_text(p_parts) as e (name, value)
      left join (
        values
          ('FREQ', '^(SECONDLY|MINUTELY|HOURLY|DAILY|WEEKLY|MONTHLY|YEARLY)$'),
          ('INTERVAL', '^[1-9]\d{0,3}$'),
          ('COUNT', '^[1-9]\d{0,4}$'),
          ('UNTIL', '^\d{8}(T\d{6}Z?)?$'),
          ('WKST', '^(MO|TU|WE|TH|FR|SA|SU)$'),
          ('BYDAY', '^([+-]?[1-5])?(MO|TU|WE|TH|FR|SA|SU)(,([+-]?[1-5])?(MO|TU|WE|TH|FR|SA|SU))*$'),
          ('BYMONTHDAY', '^(\+|-)?([1-9]|[12]\d|3[01])(,(\+|-)?([1-9]|[12]\d|3[01]))*$'),
          ('BYMONTH', '^([1-9]|1[0-2])(,([1-9]|1[0-2]))*$'),
          ('BYSETPOS', '^[+-]?[1-9]\d{0,2}$'),
          ('BYHOUR', '^(1?\d|2[0-3])(,(1?\d|2[0-3]))*$'),
          ('BYMINUTE', '^[1-5]?\d(,[1-5]?\d)*$')
      ) as f (name, pattern) using (name)
      where f.pattern is null
        or e.value !~ f.pattern
      order by e.name
      limit 1
    )
  )
$$;

comment on function fleet.rrule_problem(jsonb) is 'What is wrong with the form of a rule; null when nothing is.';
revoke all on function fleet.rrule_problem(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_problem(jsonb) to authenticated, service_role;

create or replace function fleet.rrule_end(p_parts jsonb, p_spec jsonb, p_timezone text)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_until text := p_parts ->> 'UNTIL';
  v_plan  jsonb;
  v_end   timestamptz;
begin
  if v_until is not null then
    return fleet.recurrence_end(
      regexp_replace(
        regexp_replace(v_until, '^(\d{4})(\d\d)(\d\d)', '\1-\2-\3'), 'T(\d\d)(\d\d)(\d\d)', 'T\1:\2:\3'
      ),
      p_timezone
    );
  elsif not p_parts ? 'COUNT' then
    return null;
  end if;

  v_plan := fleet.compile_recurrence(
    p_spec ->> 'recurrence_type', p_spec -> 'recurrence_config', p_timezone,
    (p_spec ->> 'start_time')::timestamptz, null, p_spec #>> '{policies,gap}', p_spec #>> '{policies,fold}'
  );
  v_end := (p_spec ->> 'start_time')::timestamptz - interval '1 microsecond';
  for v_number in 1..(p_parts ->> 'COUNT')::integer loop
    v_end := coalesce(fleet.next_occurrence(v_plan, v_end), v_end);
  end loop;
  return v_end;
end;
$$;

comment on function fleet.rrule_end(jsonb, jsonb, text) is
  'The last moment of a rule: its UNTIL, or its COUNT-th occurrence; null when it never ends.';
revoke all on function fleet.rrule_end(jsonb, jsonb, text) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_end(jsonb, jsonb, text) to authenticated, service_role;
