-- A whole cron expression: five fields, six with seconds, or a nickname such as @daily.

create or replace function fleet.parse_cron(
  p_expression text,
  out problem text,
  out hint text,
  out seconds integer[],
  out minutes integer[],
  out hours integer[],
  out month_days integer[],
  out months integer[],
  out weekdays integer[],
  out both_days boolean,
  out is_elapsed boolean
)
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_parts text[] := fleet.cron_parts(p_expression);
  v_wrong integer;
begin
  if p_expression ~* '^\s*(cron_)?tz\s*=' then
    problem := 'a time zone stands in the expression';
    hint := format(
      'Leave it out and name the zone beside it: "timezone": "%s"',
      left(coalesce(nullif(substring(p_expression from '=["'']?([^\s"'']*)'), ''), 'Europe/Berlin'), 60)
    );
    return;
  elsif v_parts is null then
    problem := format('%s is not a nickname of cron', quote_literal(btrim(p_expression)));
    hint := 'Use @hourly, @daily, @midnight, @weekly, @monthly, @yearly or @annually, or write five fields';
    return;
  elsif cardinality(v_parts) not in (5, 6) then
    problem := format(
      'a cron expression has five fields, or six with seconds; this one has %s', cardinality(v_parts)
    );
    hint := 'Write minute, hour, day of month, month and day of week, such as 30 2 * * 1-5';
    return;
  end if;

  if cardinality(v_parts) = 5 then
    v_parts := '0'::text || v_parts;
  end if;
  -- Jobs at fixed times get the special care of Debian cron when clocks change, wildcard jobs follow elapsed time. Which
  -- they are the minute and the hour tell, whether there are seconds or not.
  is_elapsed := v_parts[2] like '*%' or v_parts[3] like '*%';

  -- Both day fields must match when one begins with a star, either may when both are restricted.
  both_days := v_parts[4] like '*%' or v_parts[6] like '*%';
  seconds := fleet.cron_field_values(0, v_parts[1]);
  minutes := fleet.cron_field_values(1, v_parts[2]);
  hours := fleet.cron_field_values(2, v_parts[3]);
  month_days := fleet.cron_field_values(3, v_parts[4]);
  months := fleet.cron_field_values(4, v_parts[5]);
  weekdays := fleet.cron_field_values(5, v_parts[6]);

  v_wrong := case
    when seconds is null then 0
    when minutes is null then 1
    when hours is null then 2
    when month_days is null then 3
    when months is null then 4
    when weekdays is null then 5
  end;
  if v_wrong is not null then
    select f.problem, f.hint into problem, hint from fleet.cron_field_problem(v_wrong, v_parts) as f;
  end if;
end;
$$;

comment on function fleet.parse_cron(text) is
  'A cron expression as sorted values per field; problem and hint say what is wrong where it is not valid.';
revoke all on function fleet.parse_cron(text) from public, anon, authenticated, service_role;
grant execute on function fleet.parse_cron(text) to authenticated, service_role;

create or replace function fleet.cron_parts(p_expression text)
returns text[]
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_expression text := upper(btrim(p_expression, E' \t\r\n\f\v'));
begin
  if v_expression like '@%' then
    v_expression := case v_expression
      when '@HOURLY' then '0 * * * *'
      when '@DAILY' then '0 0 * * *'
      when '@MIDNIGHT' then '0 0 * * *'
      when '@WEEKLY' then '0 0 * * 0'
      when '@MONTHLY' then '0 0 1 * *'
      when '@YEARLY' then '0 0 1 1 *'
      when '@ANNUALLY' then '0 0 1 1 *'
    end;
  elsif v_expression = '' then
    return array[]::text[];
  end if;
  return regexp_split_to_array(v_expression, '\s+');
end;
$$;

comment on function fleet.cron_parts(text) is
  'The fields of a cron expression in upper case, nicknames written out; null for an unknown nickname.';
revoke all on function fleet.cron_parts(text) from public, anon, authenticated, service_role;
grant execute on function fleet.cron_parts(text) to authenticated, service_role;

create or replace function fleet.cron_field_problem(p_field integer, p_parts text[])
returns table (problem text, hint text)
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select
    format('the %s field %s is not valid', f.name, quote_literal(lower(p_parts[p_field + 1]))),
    f.hint
  from (
    values
      (0, 'second', 'Seconds are 0-59: write *, */15, 0,30 or 10-20'),
      (1, 'minute', 'Minutes are 0-59: write *, */15, 0,30 or 10-20'),
      (2, 'hour', 'Hours are 0-23: write *, */4, 8,20 or 9-17'),
      (3, 'day-of-month', 'Days are 1-31: write *, 1,15, 1-7, L (last), L-2, LW or 15W'),
      (4, 'month', 'Months are 1-12 or jan-dec: write *, */3, 6,12 or mar-may'),
      (5, 'day-of-week', 'Days are 0-7 (0 and 7 are Sunday) or sun-sat: write *, mon-fri, sat-sun, 2#1, 5L or friL')
  ) as f (number, name, hint)
  where f.number = p_field
$$;

comment on function fleet.cron_field_problem(integer, text[]) is 'Says what one cron field may contain.';
revoke all on function fleet.cron_field_problem(integer, text[]) from public, anon, authenticated, service_role;
grant execute on function fleet.cron_field_problem(integer, text[]) to authenticated, service_role;

create or replace function fleet.nearest_working_day(
  p_day integer,
  p_month_length integer,
  p_first_weekday integer
)
returns integer
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_day     integer := coalesce(nullif(p_day, 0), p_month_length);
  v_weekday integer := (p_first_weekday + v_day - 1) % 7;
begin
  if v_day > p_month_length then
    return null;
  elsif p_day = 0 then
    return v_day - greatest(v_weekday - 4, 0);
  elsif v_weekday = 5 then
    return case when v_day = 1 then 3 else v_day - 1 end;
  elsif v_weekday = 6 then
    return case when v_day = p_month_length then v_day - 2 else v_day + 1 end;
  end if;
  return v_day;
end;
$$;

comment on function fleet.nearest_working_day(integer, integer, integer) is
  'The Monday to Friday nearest to a day without leaving its month; day 0 asks for the last one. Null '
  'where the month has no such day.';
revoke all on function fleet.nearest_working_day(integer, integer, integer)
  from public, anon, authenticated, service_role;
grant execute on function fleet.nearest_working_day(integer, integer, integer) to authenticated, service_role;

create or replace function fleet.month_day_mask(
  p_month_days integer[],
  p_weekdays integer[],
  p_both_days boolean
)
returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ignores_weekdays boolean := p_both_days and p_weekdays @> '{1,2,3,4,5,6}' and p_weekdays && '{0,7}';
begin
  if v_ignores_weekdays and p_month_days[cardinality(p_month_days)] <= 31 then
    return (
      select string_agg(case when d = any (p_month_days) then '1' else '0' end, '' order by d)
      from generate_series(1, 31) as d
    );
  end if;

  -- Weekdays count from 1 (Monday) to 7 here, as in the codes of nth weekdays.
  return (
    select string_agg(
      case
        when d > m.length then '0'
        when case
          when p_both_days then d = any (m.days) and w.codes && p_weekdays
          else d = any (m.days) or w.codes && p_weekdays
        end then '1'
        else '0'
      end,
      '' order by m.first_weekday, m.length, d
    )
    from (
      select f.first_weekday, l.length, array(
        select case
          when v <= 31 then v
          when v < 200 then l.length - (v - 100)
          else fleet.nearest_working_day(v - 200, l.length, f.first_weekday)
        end
        from unnest(p_month_days) as v
      ) as days
      from generate_series(
        0,
        case when v_ignores_weekdays and p_month_days[cardinality(p_month_days)] < 200 then 0 else 6 end
      ) as f (first_weekday)
      cross join (values (28), (29), (30), (31)) as l (length)
    ) as m
    cross join generate_series(1, 31) as d
    cross join lateral (select (m.first_weekday + d - 1) % 7 + 1 as number) as n
    cross join lateral (
      select array[
        n.number, n.number % 7, 10 * n.number + (d + 6) / 7, case when d + 7 > m.length then 90 + n.number else -1 end
      ] as codes
    ) as w
  );
end;
$$;

comment on function fleet.month_day_mask(integer[], integer[], boolean) is
  'The days of a month as 31 flags: once where every month is alike, four times where only its length (28 '
  'to 31) '
  'matters, 28 times where the weekday of its first day (from Monday) matters as well.';
revoke all on function fleet.month_day_mask(integer[], integer[], boolean)
  from public, anon, authenticated, service_role;
grant execute on function fleet.month_day_mask(integer[], integer[], boolean) to authenticated, service_role;
