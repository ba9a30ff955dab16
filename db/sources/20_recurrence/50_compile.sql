-- Compiling a recurrence once, when it is written, so that nothing is parsed when it is read.
--
-- Beside what was asked for (type, timezone, start, end, config, gap, fold) the compiled object holds
--   kind             once, interval or calendar
--   clock            the zone as Postgres must be told it (see fleet.zone_clock)
--   interval_seconds for an interval
--   day_rule         how the days of a calendar recurrence are found:
--                      every: each every-th day from day number anchor
--                      weekdays: seven flags from Monday, in each every-th week from week number anchor
--                      month_days: twelve flags in months, and a mask of days (see fleet.month_day_mask), in each
--                      every-th month from month number anchor (year * 12 + month - 1)
--   times            seconds past midnight, or the flags hours, minutes and seconds
--   microseconds     what a start that tells the time of day has beyond its second, where it has any
--   dates            where single dates are left out or added: except and also (local seconds), days (day numbers left out)
--   is_elapsed       true for a cron wildcard job, which follows elapsed time
--   resolve_gap, resolve_fold   the rules that apply; elapsed time skips gaps and knows both of two equal times

create or replace function fleet.compile_recurrence(
  p_type text,
  p_config jsonb,
  p_timezone text,
  p_start timestamptz,
  p_end timestamptz,
  p_gap text default 'first_instant',
  p_fold text default 'first'
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_type    text := fleet.recurrence_type(p_type);
  v_config  jsonb := fleet.recurrence_settings(p_config);
  v_problem record;
begin
  select p.field, p.problem, p.hint into v_problem
  from (
    select * from fleet.recurrence_problems(p_type, p_config, p_timezone)
    union all
    select * from fleet.bounds_problems(v_type, v_config, p_timezone, p_start, p_end)
    union all
    select * from fleet.rule_problems(p_gap, p_fold)
  ) as p
  limit 1;

  if found then
    raise exception '%: %', v_problem.field, v_problem.problem
      using errcode = 'PT422',
            detail = 'recurrence_invalid',
            hint = v_problem.hint;
  end if;

  return fleet.compiled_recurrence(p_type, p_config, p_timezone, p_start, p_end, p_gap, p_fold);
end;
$$;

comment on function fleet.compile_recurrence(text, jsonb, text, timestamptz, timestamptz, text, text) is
  'Validate a recurrence and compile it for next_occurrence and occurrences. Start and end are inclusive. '
  'Raises recurrence_invalid (PT422) with the first problem; recurrence_problems lists them all.';
revoke all on function fleet.compile_recurrence(text, jsonb, text, timestamptz, timestamptz, text, text)
  from public, anon, authenticated, service_role;
grant execute on function fleet.compile_recurrence(text, jsonb, text, timestamptz, timestamptz, text, text)
  to service_role;

create or replace function fleet.compiled_recurrence(
  p_type text,
  p_config jsonb,
  p_timezone text,
  p_start timestamptz,
  p_end timestamptz,
  p_gap text,
  p_fold text
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_type   text := fleet.recurrence_type(p_type);
  v_config jsonb := fleet.recurrence_settings(p_config);
  v_end    timestamptz := nullif(p_end, 'infinity');
begin
  if v_config ? 'end_date' then
    v_end := least(v_end, fleet.recurrence_end(v_config ->> 'end_date', p_timezone));
  end if;

  return jsonb_build_object(
    'type', v_type,
    'timezone', p_timezone,
    'clock', fleet.zone_clock(p_timezone),
    'start', fleet.instant_text(p_start),
    'end', fleet.instant_text(v_end),
    'config', v_config,
    'gap', p_gap,
    'fold', p_fold
  ) || case v_type
    when 'once' then '{"kind": "once"}'::jsonb
    when 'interval' then jsonb_build_object('kind', 'interval', 'interval_seconds', fleet.interval_seconds(v_config))
    when 'cron' then fleet.compiled_cron(v_config ->> 'cron_expression', p_gap, p_fold)
    else fleet.compiled_calendar(v_type, v_config, p_start at time zone fleet.zone_clock(p_timezone), p_gap, p_fold)
  end || case when v_config ?| '{except,also}' then fleet.compiled_dates(v_config) else '{}' end;
end;
$$;

comment on function fleet.compiled_recurrence(text, jsonb, text, timestamptz, timestamptz, text, text) is
  'What fleet.compile_recurrence answers, for a recurrence that has been validated.';
revoke all on function fleet.compiled_recurrence(text, jsonb, text, timestamptz, timestamptz, text, text)
  from public, anon, authenticated, service_role;

create or replace function fleet.instant_text(p_instant timestamptz)
returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Not in SQL: to_char is stable, and what calls it is not put in place by Postgres but run as a query of its own.
  return to_char(p_instant at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US') || '+00:00';
end;
$$;

comment on function fleet.instant_text(timestamptz) is
  'An instant as text in UTC, whatever the zone of the session.';
revoke all on function fleet.instant_text(timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.instant_text(timestamptz) to authenticated, service_role;

create or replace function fleet.bounds_problems(
  p_type text,
  p_config jsonb,
  p_timezone text,
  p_start timestamptz,
  p_end timestamptz
)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_leans_on_start boolean := case p_type
    when 'once' then true
    when 'interval' then true
    when 'cron' then false
    else not p_config ?| '{time,times}'
      or (p_config ? 'every' and p_config ->> 'every' <> '1')
      or (p_type = 'weekly' and not p_config ? 'days_of_week')
      or (p_type = 'monthly' and not p_config ?| '{day_of_month,week}')
  end;
begin
  if p_start is null and v_leans_on_start then
    return query values ('start_time', 'is missing', 'This recurrence counts from its start: give it one');
  elsif p_start < '0001-01-03Z' and p_start > '-infinity' then
    return query values ('start_time', 'lies before the year 1', 'Give a date after it');
  elsif p_start > '294276-12-28Z' and p_start < 'infinity' then
    -- On some wall the calendar has come to its end by then.
    return query values ('start_time', 'lies at the end of the calendar', 'Give a date before the year 294276');
  elsif p_start in ('infinity', '-infinity') or p_end = '-infinity' then
    return query values (
      case when p_end = '-infinity' then 'end_time' else 'start_time' end,
      'is not a moment in time', 'Give a date and time'
    );
  elsif p_end < p_start then
    return query values ('end_time', 'lies before the start', 'Give an end after the start, or none');
  elsif p_config ? 'end_date' and fleet.recurrence_end(p_config ->> 'end_date', p_timezone) < p_start then
    return query values (
      'recurrence_config.end_date', 'lies before the start', 'Give an end after the start, or none'
    );
  end if;
end;
$$;

comment on function fleet.bounds_problems(text, jsonb, text, timestamptz, timestamptz) is
  'Says what is wrong with start and end of a recurrence.';
revoke all on function fleet.bounds_problems(text, jsonb, text, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.bounds_problems(text, jsonb, text, timestamptz, timestamptz)
  to authenticated, service_role;

create or replace function fleet.rule_problems(p_gap text, p_fold text)
returns setof fleet.problem
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_gap is null or p_gap <> all ('{first_instant,shift,skip}') then
    return next ('gap', coalesce(quote_literal(p_gap) || ' is not a gap rule', 'is missing'), 'Use first_instant, shift or skip')::fleet.problem;
  end if;
  if p_fold is null or p_fold <> all ('{first,second,both}') then
    return next ('fold', coalesce(quote_literal(p_fold) || ' is not a fold rule', 'is missing'), 'Use first, second or both')::fleet.problem;
  end if;
end;
$$;

comment on function fleet.rule_problems(text, text) is
  'Says what is wrong with the rules for skipped and repeated times.';
revoke all on function fleet.rule_problems(text, text) from public, anon, authenticated, service_role;
grant execute on function fleet.rule_problems(text, text) to authenticated, service_role;
