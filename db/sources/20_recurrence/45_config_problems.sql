-- The keys of a recurrence configuration, one check per topic. Each reads settings without nulls.

create or replace function fleet.config_key_problems(p_config jsonb)
returns setof fleet.problem
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select
    'recurrence_config.' || k.name,
    'is not known',
    'Known are type, time, times, every, seconds, minutes, hours, days, weeks, days_of_week, day_of_month, week, '
      || 'day_of_week, cron_expression, except, also and end_date'
  from jsonb_object_keys(p_config) as k (name)
  where k.name <> all (array[
    'type', 'time', 'times', 'every', 'seconds', 'minutes', 'hours', 'days', 'weeks', 'days_of_week',
    'day_of_month', 'week', 'day_of_week', 'cron_expression', 'except', 'also', 'end_date'
  ])
  order by k.name;
end;
$$;

comment on function fleet.config_key_problems(jsonb) is 'Names the keys that no recurrence has.';
revoke all on function fleet.config_key_problems(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.config_key_problems(jsonb) to authenticated, service_role;

create or replace function fleet.second_of_day(p_text text)
returns integer
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return case
    when p_text ~ '^\s*([01]?\d|2[0-3]):[0-5]\d(:[0-5]\d(\.0+)?)?\s*$'
      then split_part(btrim(p_text), ':', 1)::integer * 3600
        + split_part(btrim(p_text), ':', 2)::integer * 60
        + coalesce(nullif(split_part(split_part(btrim(p_text), ':', 3), '.', 1), ''), '0')::integer
  end;
end;
$$;

comment on function fleet.second_of_day(text) is
  'HH:MM or HH:MM:SS as seconds past midnight; null where it is neither.';
revoke all on function fleet.second_of_day(text) from public, anon, authenticated, service_role;
grant execute on function fleet.second_of_day(text) to authenticated, service_role;

create or replace function fleet.weekday_number(p_value jsonb)
returns integer
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select case
      when p_value #>> '{}' ~ '^[0-6]$' then (p_value #>> '{}')::integer
      when jsonb_typeof(p_value) = 'string' and length(p_value #>> '{}') >= 3 then (
        select d.number - 1
        from unnest('{monday,tuesday,wednesday,thursday,friday,saturday,sunday}'::text[])
          with ordinality as d (name, number)
        where starts_with(d.name, lower(p_value #>> '{}'))
      )::integer
    end
  );
end;
$$;

comment on function fleet.weekday_number(jsonb) is
  'A weekday as 0 (Monday) to 6 (Sunday), from such a number or an English name; null where it is none.';
revoke all on function fleet.weekday_number(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.weekday_number(jsonb) to authenticated, service_role;

create or replace function fleet.month_day_number(p_value jsonb)
returns integer
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_value #>> '{}' in ('last', '-1') then 100
    when p_value #>> '{}' ~ '^([1-9]|[12]\d|3[01])$' then (p_value #>> '{}')::integer
  end
$$;

comment on function fleet.month_day_number(jsonb) is
  'A day of the month, 100 for the last one ("last" or -1); null where it is none.';
revoke all on function fleet.month_day_number(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.month_day_number(jsonb) to authenticated, service_role;

create or replace function fleet.week_of_month(p_value jsonb)
returns integer
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_value #>> '{}' in ('last', '-1') then -1
    when p_value #>> '{}' ~ '^[1-5]$' then (p_value #>> '{}')::integer
  end
$$;

comment on function fleet.week_of_month(jsonb) is '1 to 5, or -1 for the last; null where it is neither.';
revoke all on function fleet.week_of_month(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.week_of_month(jsonb) to authenticated, service_role;

create or replace function fleet.config_time_problems(p_config jsonb)
returns setof fleet.problem
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select
    'recurrence_config.' || k.name,
    format('%s is not a time of day', coalesce(quote_literal(t.value #>> '{}'), 'null')),
    'Write HH:MM or HH:MM:SS, from 00:00 to 23:59:59'
  from (values ('time'), ('times')) as k (name)
  cross join lateral fleet.as_list(p_config -> k.name) as t (value)
  where jsonb_typeof(t.value) <> 'string'
    or fleet.second_of_day(t.value #>> '{}') is null

  union all

  select 'recurrence_config.times', 'is empty', 'Name at least one time, or leave it out'
  where p_config -> 'times' = '[]'

  union all

  select
    'recurrence_config.times',
    'stands beside time',
    'Use time for one time of day or times for several, not both'
  where p_config ?& '{time,times}';
end;
$$;

comment on function fleet.config_time_problems(jsonb) is 'Says what is wrong with time and times.';
revoke all on function fleet.config_time_problems(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.config_time_problems(jsonb) to authenticated, service_role;

create or replace function fleet.config_day_problems(p_config jsonb)
returns setof fleet.problem
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select
    'recurrence_config.' || k.name,
    format('%s is not a weekday', coalesce(quote_literal(d.value #>> '{}'), 'null')),
    'Weekdays are numbers from 0 (Monday) to 6 (Sunday), or English names'
  from (values ('days_of_week'), ('day_of_week')) as k (name)
  cross join lateral fleet.as_list(p_config -> k.name) as d (value)
  where fleet.weekday_number(d.value) is null

  union all

  select
    'recurrence_config.day_of_month',
    format('%s is not a day of the month', coalesce(quote_literal(d.value #>> '{}'), 'null')),
    'Use 1 to 31, or "last" (also -1) for the last day'
  from fleet.as_list(p_config -> 'day_of_month') as d (value)
  where fleet.month_day_number(d.value) is null

  union all

  select 'recurrence_config.' || k.name, 'is empty', 'Name at least one day, or leave it out'
  from (values ('days_of_week'), ('day_of_week'), ('day_of_month')) as k (name)
  where p_config -> k.name = '[]'

  union all

  select
    'recurrence_config.week',
    format('%s is not a week of the month', quote_literal(p_config ->> 'week')),
    'Use 1 to 5, or -1 for the last'
  where p_config ? 'week' and fleet.week_of_month(p_config -> 'week') is null

  union all

  select
    'recurrence_config.day_of_week',
    'is missing',
    'Say which weekday of that week is meant, from 0 (Monday) to 6 (Sunday)'
  where p_config ? 'week' and not p_config ? 'day_of_week'

  union all

  select
    'recurrence_config.week', 'stands beside day_of_month', 'Use either day_of_month, or week with day_of_week'
  where p_config ?& '{week,day_of_month}';
end;
$$;

comment on function fleet.config_day_problems(jsonb) is
  'Says what is wrong with weekdays, days of the month and weeks.';
revoke all on function fleet.config_day_problems(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.config_day_problems(jsonb) to authenticated, service_role;
