-- The BY rules of a calendar's rule as fields of cron, and the shapes that a rule can take here.

create or replace function fleet.rrule_simple(
  p_type text,
  p_parts jsonb,
  p_local timestamp,
  p_config jsonb
)
returns jsonb
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'recurrence_type', p_type,
    'recurrence_config', p_config
      || jsonb_build_object(case when jsonb_array_length(t.times) = 1 then 'time' else 'times' end,
        case when jsonb_array_length(t.times) = 1 then t.times -> 0 else t.times end)
      || case
        when coalesce(p_parts ->> 'INTERVAL', '1') = '1' then '{}'::jsonb
        else jsonb_build_object('every', (p_parts ->> 'INTERVAL')::integer)
      end
  )
  from (
    select jsonb_agg(to_char(make_time(h::integer, m::integer, date_part('second', date_trunc('second', p_local))),
      'HH24:MI:SS') order by h::integer, m::integer) as times
    from regexp_split_to_table(coalesce(p_parts ->> 'BYHOUR', date_part('hour', p_local)::text), ',') as h
    cross join regexp_split_to_table(coalesce(p_parts ->> 'BYMINUTE', date_part('minute', p_local)::text), ',') as m
  ) as t
$$;

comment on function fleet.rrule_simple(text, jsonb, timestamp, jsonb) is
  'A daily, weekly or monthly recurrence with the times and the interval of a rule.';
revoke all on function fleet.rrule_simple(text, jsonb, timestamp, jsonb)
  from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_simple(text, jsonb, timestamp, jsonb) to authenticated, service_role;

create or replace function fleet.rrule_cron(
  p_parts jsonb,
  p_local timestamp,
  p_month_days text,
  p_months text,
  p_weekdays text
)
returns jsonb
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_month_days <> '*' and p_weekdays <> '*' then
      '{"refused": "BYMONTHDAY together with BYDAY"}'::jsonb
    when date_trunc('minute', p_local) <> date_trunc('second', p_local) then
      '{"refused": "such BY rules with a start that has seconds"}'::jsonb
    else jsonb_build_object(
      'recurrence_type', 'cron',
      'recurrence_config', jsonb_build_object(
        'cron_expression', concat_ws(
          ' ',
          coalesce(p_parts ->> 'BYMINUTE', date_part('minute', p_local)::text),
          coalesce(p_parts ->> 'BYHOUR', date_part('hour', p_local)::text),
          p_month_days,
          p_months,
          p_weekdays
        )
      )
    )
  end
$$;

comment on function fleet.rrule_cron(jsonb, timestamp, text, text, text) is
  'A cron recurrence with the times of a rule and these day and month fields.';
revoke all on function fleet.rrule_cron(jsonb, timestamp, text, text, text)
  from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_cron(jsonb, timestamp, text, text, text) to authenticated, service_role;

create or replace function fleet.rrule_weekdays(p_parts jsonb)
returns jsonb
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_agg(distinct array_position('{MO,TU,WE,TH,FR,SA,SU}'::text[], right(d, 2)) - 1)
  from regexp_split_to_table(p_parts ->> 'BYDAY', ',') as d
$$;

comment on function fleet.rrule_weekdays(jsonb) is 'The weekdays of BYDAY, 0 for Monday; null without BYDAY.';
revoke all on function fleet.rrule_weekdays(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_weekdays(jsonb) to authenticated, service_role;

create or replace function fleet.rrule_day_names(p_parts jsonb)
returns text
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select string_agg(
    w.number || case
      when left(d, -2) = '' then ''
      when left(d, -2) = '-1' then 'L'
      else '#' || ltrim(left(d, -2), '+')
    end,
    ',' order by nr
  )
  from regexp_split_to_table(p_parts ->> 'BYDAY', ',') with ordinality as t (d, nr)
  cross join lateral (
    select array_position('{MO,TU,WE,TH,FR,SA,SU}'::text[], right(t.d, 2)) as number
  ) as w
$$;

comment on function fleet.rrule_day_names(jsonb) is 'BYDAY as a day-of-week field; null without BYDAY.';
revoke all on function fleet.rrule_day_names(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_day_names(jsonb) to authenticated, service_role;

create or replace function fleet.rrule_month_days(p_parts jsonb)
returns text
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select string_agg(
    case
      when d = '-1' then 'L'
      when d like '-%' then 'L-' || (ltrim(d, '-')::integer - 1)
      else ltrim(d, '+')
    end,
    ',' order by nr
  )
  from regexp_split_to_table(p_parts ->> 'BYMONTHDAY', ',') with ordinality as t (d, nr)
$$;

comment on function fleet.rrule_month_days(jsonb) is 'BYMONTHDAY as a day-of-month field; null without BYMONTHDAY.';
revoke all on function fleet.rrule_month_days(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_month_days(jsonb) to authenticated, service_role;

create or replace function fleet.rrule_day_fields(p_parts jsonb, p_local timestamp)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_month_days text := fleet.rrule_month_days(p_parts);
  v_weekdays   text := fleet.rrule_day_names(p_parts);
  v_set        jsonb := fleet.rrule_weekdays(p_parts);
  v_setpos     integer := (p_parts ->> 'BYSETPOS')::integer;
begin
  if v_month_days is not null and v_weekdays is not null then
    return '{"refused": "BYMONTHDAY together with BYDAY"}'::jsonb;
  elsif v_weekdays ~ '#-' then
    return '{"refused": "weekdays counted from the end, other than the last"}'::jsonb;
  elsif v_setpos is null then
    return jsonb_build_object(
      'month_days', coalesce(v_month_days, case when v_set is null then date_part('day', p_local)::text end, '*'),
      'weekdays', coalesce(v_weekdays, '*')
    );
  end if;

  -- The n-th of a set, where one of our marks means the same.
  v_month_days := case
    when v_weekdays ~ '[#L]' then null
    when v_month_days = '28,29,30,31' and v_setpos = -1 then 'L'
    when v_set = '[0, 1, 2, 3, 4]' and v_setpos = -1 then 'LW'
    when v_set = '[0, 1, 2, 3, 4]' and v_setpos = 1 then '1W'
    when v_set = '[0, 1, 2, 3, 4, 5, 6]' and v_setpos between 1 and 31 then v_setpos::text
    when v_set = '[0, 1, 2, 3, 4, 5, 6]' and v_setpos = -1 then 'L'
    when v_set = '[0, 1, 2, 3, 4, 5, 6]' and v_setpos between -31 and -2 then 'L' || v_setpos + 1
  end;
  if v_month_days is not null then
    return jsonb_build_object('month_days', v_month_days, 'weekdays', '*');
  elsif jsonb_array_length(v_set) = 1 and v_weekdays !~ '[#L]' and v_setpos in (-1, 1, 2, 3, 4, 5) then
    return jsonb_build_object(
      'month_days', '*', 'weekdays', v_weekdays || case v_setpos when -1 then 'L' else '#' || v_setpos end
    );
  end if;
  return '{"refused": "BYSETPOS in this set"}'::jsonb;
end;
$$;

comment on function fleet.rrule_day_fields(jsonb, timestamp) is
  'The days of a MONTHLY or YEARLY rule as the day fields of cron.';
revoke all on function fleet.rrule_day_fields(jsonb, timestamp) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_day_fields(jsonb, timestamp) to authenticated, service_role;

create or replace function fleet.rrule_simple_month(p_fields jsonb)
returns jsonb
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_fields ->> 'month_days' ~ '^(\d+|L)(,(\d+|L))*$' and p_fields ->> 'weekdays' = '*' then
      jsonb_build_object('day_of_month', (
        select jsonb_agg(case d when 'L' then -1 else d::integer end order by nr)
        from regexp_split_to_table(p_fields ->> 'month_days', ',') with ordinality as t (d, nr)
      ))
    when p_fields ->> 'month_days' = '*' and p_fields ->> 'weekdays' ~ '^\d(#\d|L)$' then
      jsonb_build_object(
        'week', case right(p_fields ->> 'weekdays', 1) when 'L' then -1 else right(p_fields ->> 'weekdays', 1)::integer end,
        'day_of_week', left(p_fields ->> 'weekdays', 1)::integer - 1
      )
  end
$$;

comment on function fleet.rrule_simple_month(jsonb) is
  'Day fields as the configuration of a monthly recurrence; null where that cannot say them.';
revoke all on function fleet.rrule_simple_month(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_simple_month(jsonb) to authenticated, service_role;
