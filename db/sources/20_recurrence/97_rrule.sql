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
  v_block   jsonb := fleet.rrule_block(p_rrule);
  v_parts   jsonb := fleet.rrule_parts(v_block ->> 'rule');
  v_start   timestamptz := date_trunc('second', coalesce(p_start, fleet.rrule_block_start(v_block, p_timezone)));
  v_problem text;
  v_local   timestamp;
  v_spec    jsonb;
  v_end     timestamptz;
  v_dates   jsonb;
begin
  select format('%s: %s', t.field, t.problem) into v_problem
  from fleet.timezone_problems(p_timezone) as t;
  v_problem := coalesce(
    v_problem,
    case when v_start is null then 'start_time: is missing' end,
    'RRULE: ' || (v_block ->> 'problem'),
    (
      select format('RRULE: TZID=%s is not a time zone', left(z.name, 60))
      from jsonb_path_query(v_block, 'strict $.**.zone') as e (zone)
      cross join lateral regexp_replace(e.zone #>> '{}', '^/.*/([^/]+/[^/]+)$', '\1') as z (name)
      where jsonb_typeof(e.zone) = 'string' and not fleet.is_time_zone(z.name)
      limit 1
    ),
    fleet.rrule_problem(v_parts),
    case
      when v_parts ? 'UNTIL' and fleet.recurrence_end(fleet.rrule_until(v_parts), p_timezone) is null
        then format('RRULE: UNTIL=%s is not valid', v_parts ->> 'UNTIL')
    end
  );
  if v_problem is not null then
    raise exception '%', v_problem
      using errcode = 'PT422',
            detail = 'rrule_invalid',
            hint = 'Write a rule such as FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,FR, or a cron expression instead';
  end if;

  v_local := v_start at time zone fleet.zone_clock(p_timezone);
  v_dates := fleet.rrule_block_dates(v_block, v_local, p_timezone);
  v_spec := fleet.rrule_in_our_words(v_parts, v_local, v_dates <> '{}') || jsonb_build_object(
    'start_time', fleet.instant_text(v_start),
    'timezone', p_timezone,
    -- The standard moves a skipped time by as much as the clocks jump.
    'policies', '{"gap": "shift", "fold": "first"}'::jsonb
  );
  if not v_spec ? 'refused' then
    v_end := fleet.rrule_end(v_parts, v_spec, p_timezone);
    v_spec := v_spec || case when v_end = 'infinity' then '{"refused": "COUNT that is not reached within a thousand years"}' else '{}' end::jsonb
      || fleet.rrule_refusal_of_dates(v_dates, v_local, v_end at time zone fleet.zone_clock(p_timezone));
  end if;
  if v_spec ? 'refused' then
    raise exception 'RRULE: %', v_spec ->> 'refused'
      using errcode = 'PT422',
            detail = 'rrule_unsupported',
            hint = 'Split the rule into several schedules, each of which we can express';
  end if;

  return v_spec
    || jsonb_build_object('recurrence_config', (v_spec -> 'recurrence_config') || v_dates)
    || case
      when v_end is null then '{}'::jsonb
      else jsonb_build_object('end_time', fleet.instant_text(v_end))
    end;
end;
$$;

comment on function fleet.recurrence_from_rrule(text, timestamptz, text) is
  'A calendar''s rule as part of a schedule: recurrence_type, recurrence_config, start_time, end_time (from UNTIL or '
  'COUNT), timezone and policies. The rule may stand in a block with DTSTART, EXDATE and RDATE; a start that is given goes before '
  'DTSTART. Raises rrule_invalid or rrule_unsupported (PT422) with the reason.';
revoke all on function fleet.recurrence_from_rrule(text, timestamptz, text)
  from public, anon, authenticated, service_role;
grant execute on function fleet.recurrence_from_rrule(text, timestamptz, text) to service_role;

create or replace function fleet.rrule_parts(p_rrule text)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A part that comes twice is an error of the standard; kept under its name with a mark it is refused as unknown.
  return (
    select jsonb_object_agg(
      case when p.nr = 1 then p.name else p.name || ' (twice)' end,
      case
        when p.name in ('FREQ', 'UNTIL', 'WKST') then p.value
        -- The standard allows a plus and leading zeros in front of a number.
        else regexp_replace(regexp_replace(p.value, '(^|,)\+', '\1', 'g'), '(^|,|-)0+(?=\d)', '\1', 'g')
      end
    )
    from (
      select
        upper(btrim(split_part(t.part, '=', 1))) as name,
        case when strpos(t.part, '=') > 0 then upper(btrim(substr(t.part, strpos(t.part, '=') + 1))) else '' end as value,
        row_number() over (partition by upper(btrim(split_part(t.part, '=', 1))) order by t.n) as nr
      from regexp_split_to_table(regexp_replace(btrim(p_rrule, E' \t\r\n'), '^RRULE:', '', 'i'), ';')
        with ordinality as t (part, n)
      where btrim(t.part) <> ''
    ) as p
  );
end;
$$;

comment on function fleet.rrule_parts(text) is 'The parts of a rule by name, in upper case, numbers without plus and leading zeros.';
revoke all on function fleet.rrule_parts(text) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_parts(text) to authenticated, service_role;

create or replace function fleet.rrule_problem(p_parts jsonb)
returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
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
            ('INTERVAL', '^[1-9]\d{0,6}$'),
            ('COUNT', '^[1-9]\d{0,4}$'),
            ('UNTIL', '^\d{8}(T\d{6}Z?)?$'),
            ('WKST', '^(MO|TU|WE|TH|FR|SA|SU)$'),
            ('BYDAY', '^(-?([1-9]|[1-4]\d|5[0-3]))?(MO|TU|WE|TH|FR|SA|SU)(,(-?([1-9]|[1-4]\d|5[0-3]))?(MO|TU|WE|TH|FR|SA|SU))*$'),
            ('BYMONTHDAY', '^-?([1-9]|[12]\d|3[01])(,-?([1-9]|[12]\d|3[01]))*$'),
            ('BYMONTH', '^([1-9]|1[0-2])(,([1-9]|1[0-2]))*$'),
            ('BYSETPOS', '^-?[1-9]\d{0,2}(,-?[1-9]\d{0,2})*$'),
            ('BYHOUR', '^(1?\d|2[0-3])(,(1?\d|2[0-3]))*$'),
            ('BYMINUTE', '^[1-5]?\d(,[1-5]?\d)*$'),
            ('BYSECOND', '^[1-5]?\d(,[1-5]?\d)*$'),
            -- What a calendar of another kind would say otherwise.
            ('RSCALE', '^GREGORIAN$'),
            ('SKIP', '^OMIT$')
        ) as f (name, pattern) using (name)
        where f.pattern is null
          or e.value !~ f.pattern
        order by e.name
        limit 1
      )
    )
  );
end;
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
  v_start timestamptz := (p_spec ->> 'start_time')::timestamptz;
  v_clock text := fleet.zone_clock(p_timezone);
  v_left  bigint := (p_parts ->> 'COUNT')::bigint;
  v_plan  jsonb;
  v_from  bigint;
  v_limit bigint;
  v_width bigint := 30 * 86400;
  v_found bigint;
begin
  if p_parts ? 'UNTIL' then
    return fleet.recurrence_end(fleet.rrule_until(p_parts), p_timezone);
  elsif v_left is null then
    return null;
  end if;

  v_plan := fleet.compile_recurrence(
    p_spec ->> 'recurrence_type', p_spec -> 'recurrence_config', p_timezone, v_start, null,
    p_spec #>> '{policies,gap}', p_spec #>> '{policies,fold}'
  );
  if v_plan ->> 'kind' = 'interval' then
    return v_start + (v_left - 1) * (v_plan ->> 'interval_seconds')::bigint * interval '1 second';
  end if;

  -- What a rule counts are its local times. In growing pieces, which are counted and not listed.
  v_from := fleet.epoch_of((v_start at time zone v_clock) at time zone 'UTC') + 62135596800;
  v_limit := v_from + 1000 * 366::bigint * 86400;
  while v_from < v_limit and fleet.next_slot(v_plan, v_from) is not null loop
    v_found := fleet.count_slots(v_plan, v_from, v_from + v_width);
    if v_found >= v_left then
      return fleet.rrule_last_instant(v_plan, (
        select s.slot from fleet.matching_slots(v_plan, v_from, v_from + v_width) as s (slot) order by s.slot offset v_left - 1 limit 1
      ));
    end if;
    v_left := v_left - v_found;
    v_from := v_from + v_width;
    v_width := v_width * 2;
  end loop;
  return 'infinity';
end;
$$;

comment on function fleet.rrule_end(jsonb, jsonb, text) is
  'The last moment of a rule: its UNTIL, or its COUNT-th occurrence; null when it never ends, infinity where its COUNT is not reached within '
  'a thousand years.';
revoke all on function fleet.rrule_end(jsonb, jsonb, text) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_end(jsonb, jsonb, text) to authenticated, service_role;

create or replace function fleet.rrule_until(p_parts jsonb)
returns text
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select regexp_replace(
    regexp_replace(p_parts ->> 'UNTIL', '^(\d{4})(\d\d)(\d\d)', '\1-\2-\3'), 'T(\d\d)(\d\d)(\d\d)', 'T\1:\2:\3'
  )
$$;

comment on function fleet.rrule_until(jsonb) is 'UNTIL of a rule as people write dates; null without it.';
revoke all on function fleet.rrule_until(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_until(jsonb) to authenticated, service_role;

create or replace function fleet.rrule_last_instant(p_plan jsonb, p_slot bigint)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_clock text := p_plan ->> 'clock';
  v_local timestamp := timestamp 'epoch' + (p_slot - 62135596800) * interval '1 second';
  v_first timestamptz;
  v_last  timestamptz;
begin
  select w.first_at, w.last_at into v_first, v_last from fleet.wall_instants(v_local, v_clock) as w;
  return case
    -- A skipped time runs as much later as the clocks jump, which is how Postgres reads it.
    when (v_first at time zone v_clock) <> v_local then v_local at time zone v_clock
    when p_plan @> '{"is_elapsed": true}' then v_last
    else v_first
  end;
end;
$$;

comment on function fleet.rrule_last_instant(jsonb, bigint) is 'The instant at which a rule runs for a local second.';
revoke all on function fleet.rrule_last_instant(jsonb, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_last_instant(jsonb, bigint) to authenticated, service_role;
