-- Compiling the recurrences that follow a calendar.

create or replace function fleet.flags(p_values integer[], p_from integer, p_to integer)
returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_flags text := repeat('0', p_to - p_from + 1);
  v_value integer;
begin
  foreach v_value in array p_values loop
    if v_value between p_from and p_to then
      v_flags := overlay(v_flags placing '1' from v_value - p_from + 1);
    end if;
  end loop;
  return v_flags;
end;
$$;

comment on function fleet.flags(integer[], integer, integer) is
  'A set of numbers as text of 0 and 1, one for each number of the range.';
revoke all on function fleet.flags(integer[], integer, integer) from public, anon, authenticated, service_role;
grant execute on function fleet.flags(integer[], integer, integer) to authenticated, service_role;

create or replace function fleet.compiled_cron(p_expression text, p_gap text, p_fold text)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_cron  record := fleet.parse_cron(p_expression);
  v_times jsonb;
begin
  -- A short list of times is quicker to read than flags.
  if not v_cron.is_elapsed and cardinality(v_cron.hours) * cardinality(v_cron.minutes) * cardinality(v_cron.seconds) <= 24 then
    v_times := jsonb_build_object(
      'times', (
        select jsonb_agg(h * 3600 + m * 60 + s order by h, m, s)
        from unnest(v_cron.hours) as h
        cross join unnest(v_cron.minutes) as m
        cross join unnest(v_cron.seconds) as s
      )
    );
  else
    v_times := jsonb_build_object(
      'hours', fleet.flags(v_cron.hours, 0, 23),
      'minutes', fleet.flags(v_cron.minutes, 0, 59),
      'seconds', fleet.flags(v_cron.seconds, 0, 59)
    );
  end if;

  return jsonb_build_object(
    'kind', 'calendar',
    'is_elapsed', v_cron.is_elapsed,
    'resolve_gap', case when v_cron.is_elapsed then 'skip' else p_gap end,
    'resolve_fold', case when v_cron.is_elapsed then 'both' else p_fold end
  ) || v_times || fleet.compiled_cron_days(
    v_cron.month_days, v_cron.months, v_cron.weekdays, v_cron.both_days
  );
end;
$$;

comment on function fleet.compiled_cron(text, text, text) is 'The compiled part of a cron recurrence.';
revoke all on function fleet.compiled_cron(text, text, text) from public, anon, authenticated, service_role;
grant execute on function fleet.compiled_cron(text, text, text) to authenticated, service_role;

create or replace function fleet.compiled_cron_days(
  p_month_days integer[],
  p_months integer[],
  p_weekdays integer[],
  p_both_days boolean
)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_every_month_day constant boolean := cardinality(p_month_days) >= 31 and p_month_days[31] = 31;
  v_every_weekday   constant boolean := p_weekdays @> '{1,2,3,4,5,6}' and p_weekdays && '{0,7}';
begin
  if cardinality(p_months) = 12 then
    if (v_every_month_day and v_every_weekday)
      or (not p_both_days and (v_every_month_day or v_every_weekday))
    then
      return '{"day_rule": "every", "every": 1, "anchor": 0}'::jsonb;
    elsif v_every_month_day and p_both_days and p_weekdays[cardinality(p_weekdays)] <= 7 then
      return jsonb_build_object(
        'day_rule', 'weekdays',
        'weekdays', fleet.flags(p_weekdays || (case when 0 = any (p_weekdays) then 7 end), 1, 7),
        'every', 1,
        'anchor', 0
      );
    end if;
  end if;

  return jsonb_build_object(
    'day_rule', 'month_days',
    'months', fleet.flags(p_months, 1, 12),
    'month_days', fleet.month_day_mask(p_month_days, p_weekdays, p_both_days),
    'every', 1,
    'anchor', 0
  );
end;
$$;

comment on function fleet.compiled_cron_days(integer[], integer[], integer[], boolean) is
  'The day rule of a cron expression, in the simplest form that says the same.';
revoke all on function fleet.compiled_cron_days(integer[], integer[], integer[], boolean)
  from public, anon, authenticated, service_role;
grant execute on function fleet.compiled_cron_days(integer[], integer[], integer[], boolean)
  to authenticated, service_role;

create or replace function fleet.compiled_calendar(
  p_type text,
  p_config jsonb,
  p_local_start timestamp,
  p_gap text,
  p_fold text
)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_start_day integer := p_local_start::date - date '0001-01-01';
  v_every     integer := coalesce((p_config ->> 'every')::integer, 1);
  v_said      jsonb := coalesce(p_config -> 'times', p_config -> 'time');
  v_times     jsonb;
  v_weekdays  integer[];
  v_days      jsonb;
begin
  if v_said is null then
    v_times := jsonb_build_array(date_part('hour', p_local_start)::integer * 3600 + date_part('minute', p_local_start)::integer * 60
      + trunc(date_part('second', p_local_start))::integer);
  elsif jsonb_typeof(v_said) = 'string' then
    v_times := jsonb_build_array(fleet.second_of_day(v_said #>> '{}'));
  else
    select jsonb_agg(t.second order by t.second) into v_times
    from (select distinct fleet.second_of_day(e.value #>> '{}') as second from fleet.as_list(v_said) as e (value)) as t;
  end if;

  if p_type = 'daily' then
    v_days := jsonb_build_object('day_rule', 'every', 'anchor', v_start_day);
  elsif p_type = 'monthly' then
    v_days := jsonb_build_object(
      'day_rule', 'month_days',
      'months', repeat('1', 12),
      'month_days', fleet.compiled_month_days(p_config, date_part('day', p_local_start)::integer),
      'anchor', date_part('year', p_local_start) * 12 + date_part('month', p_local_start) - 1
    );
  else
    if p_config ? 'days_of_week' then
      v_weekdays := array(select fleet.weekday_number(e.value) from fleet.as_list(p_config -> 'days_of_week') as e (value));
    else
      v_weekdays := array[v_start_day % 7];
    end if;
    v_days := jsonb_build_object('day_rule', 'weekdays', 'weekdays', fleet.flags(v_weekdays, 0, 6), 'anchor', v_start_day / 7);
  end if;

  -- Without a start every-th is always 1 and any anchor does.
  return jsonb_build_object(
    'kind', 'calendar',
    'times', v_times,
    'every', v_every,
    'resolve_gap', p_gap,
    'resolve_fold', p_fold
  ) || jsonb_build_object('anchor', 0) || jsonb_strip_nulls(v_days) || case
    when p_config ?| '{time,times}' or p_local_start = date_trunc('second', p_local_start) then '{}'::jsonb
    else jsonb_build_object('microseconds', date_part('microseconds', p_local_start)::integer % 1000000)
  end;
end;
$$;

comment on function fleet.compiled_calendar(text, jsonb, timestamp, text, text) is
  'The compiled part of a daily, weekly or monthly recurrence; what is not said comes from the local start.';
revoke all on function fleet.compiled_calendar(text, jsonb, timestamp, text, text)
  from public, anon, authenticated, service_role;
grant execute on function fleet.compiled_calendar(text, jsonb, timestamp, text, text) to authenticated, service_role;

create or replace function fleet.compiled_month_days(p_config jsonb, p_start_day integer)
returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_week integer := fleet.week_of_month(p_config -> 'week');
begin
  if v_week is not null then
    return fleet.month_day_mask(
      array(select generate_series(1, 31)),
      array(
        select case v_week when -1 then 91 + w.number else 10 * (w.number + 1) + v_week end
        from fleet.as_list(p_config -> 'day_of_week') as e (value)
        cross join lateral fleet.weekday_number(e.value) as w (number)
      ),
      true
    );
  end if;

  return fleet.month_day_mask(
    array(
      select distinct fleet.month_day_number(e.value)
      from fleet.as_list(coalesce(p_config -> 'day_of_month', to_jsonb(p_start_day))) as e (value)
      order by 1
    ),
    array(select generate_series(0, 7)),
    true
  );
end;
$$;

comment on function fleet.compiled_month_days(jsonb, integer) is
  'The mask of days of a monthly recurrence; without day and week the day of its start.';
revoke all on function fleet.compiled_month_days(jsonb, integer) from public, anon, authenticated, service_role;
grant execute on function fleet.compiled_month_days(jsonb, integer) to authenticated, service_role;
