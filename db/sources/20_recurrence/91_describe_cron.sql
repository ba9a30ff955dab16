-- A cron expression in plain English.

create or replace function fleet.describe_cron(p_expression text)
returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_cron  record := fleet.parse_cron(p_expression);
  v_times text;
  v_days  text;
begin
  v_times := fleet.describe_cron_times(v_cron.seconds, v_cron.minutes, v_cron.hours);
  v_days := fleet.describe_cron_days(v_cron.month_days, v_cron.weekdays, v_cron.both_days);

  return concat_ws(
    ' ',
    v_times,
    -- "Every 5 minutes" means every day by itself.
    case when v_days <> 'every day' or v_times like 'at __:__%' then v_days end,
    case when cardinality(v_cron.months) < 12 then
      'in ' || fleet.english_runs(
        v_cron.months,
        '{January,February,March,April,May,June,July,August,September,October,November,December}'::text[]
      )
    end
  );
end;
$$;

comment on function fleet.describe_cron(text) is
  'A valid cron expression in English, such as "at 02:30 on Monday to Friday in June".';
revoke all on function fleet.describe_cron(text) from public, anon, authenticated, service_role;
grant execute on function fleet.describe_cron(text) to authenticated, service_role;

create or replace function fleet.describe_cron_times(p_seconds integer[], p_minutes integer[], p_hours integer[])
returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_seconds text := fleet.describe_round(p_seconds, 60, 'second');
  v_minutes text := fleet.describe_round(p_minutes, 60, 'minute');
  v_step    integer := fleet.regular_step(p_hours, 24);
begin
  if cardinality(p_seconds) * cardinality(p_minutes) * cardinality(p_hours) <= 6 then
    return 'at ' || fleet.describe_times((
      select jsonb_agg(h * 3600 + m * 60 + s order by h, m, s)
      from unnest(p_hours) as h
      cross join unnest(p_minutes) as m
      cross join unnest(p_seconds) as s
    ));
  end if;

  -- The first second of a minute and the first minute of an hour need no words.
  return concat_ws(
    ' ',
    case when p_seconds <> '{0}' then v_seconds end,
    case
      when p_seconds = '{0}' and p_minutes = '{0}' and v_step is not null then null
      when p_seconds = '{0}' then v_minutes
      when v_seconds like 'every %' and cardinality(p_minutes) = 60 then null
      else 'of ' || regexp_replace(v_minutes, '^at ', '')
    end,
    case
      when p_seconds = '{0}' and p_minutes = '{0}' and v_step is not null then
        fleet.describe_round(p_hours, 24, 'hour')
      when v_step = 1 then case when cardinality(p_minutes) < 60 and v_minutes like 'at %' then 'of every hour' end
      when v_step is not null then format('of every %s hour', fleet.english_ordinal(v_step))
      else
        format('of hour%s %s', case when cardinality(p_hours) > 1 then 's' end, fleet.english_numbers(p_hours))
    end
  );
end;
$$;

comment on function fleet.describe_cron_times(integer[], integer[], integer[]) is
  'The time fields of a cron expression: "at 02:30", "every 5 minutes", "every 10 minutes of hours 9 to 17".';
revoke all on function fleet.describe_cron_times(integer[], integer[], integer[])
  from public, anon, authenticated, service_role;
grant execute on function fleet.describe_cron_times(integer[], integer[], integer[]) to authenticated, service_role;

create or replace function fleet.describe_round(p_values integer[], p_size integer, p_unit text)
returns text
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case
    when s.step = 1 then 'every ' || p_unit
    when s.step is not null then format('every %s %ss', s.step, p_unit)
    else format('at %s %s', case when cardinality(p_values) = 1 then p_unit else p_unit || 's' end, n.numbers)
  end
  from (select fleet.regular_step(p_values, p_size) as step) as s
  cross join (select fleet.english_numbers(p_values) as numbers) as n
$$;

comment on function fleet.describe_round(integer[], integer, text) is
  'One time field: "every minute", "every 5 minutes" or "at minutes 5 and 20".';
revoke all on function fleet.describe_round(integer[], integer, text) from public, anon, authenticated, service_role;
grant execute on function fleet.describe_round(integer[], integer, text) to authenticated, service_role;

create or replace function fleet.describe_cron_days(p_month_days integer[], p_weekdays integer[], p_both_days boolean)
returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_every_day     boolean := p_month_days[31] = 31;
  v_every_weekday boolean := p_weekdays @> '{1,2,3,4,5,6}' and p_weekdays && '{0,7}';
  v_month_days    text := 'on the ' || fleet.describe_month_days(p_month_days);
  v_weekdays      text := fleet.describe_cron_weekdays(p_weekdays);
begin
  return case
    when p_both_days and v_every_day and v_every_weekday then 'every day'
    when p_both_days and v_every_day then 'on ' || v_weekdays
    when p_both_days and v_every_weekday then v_month_days || ' of the month'
    when p_both_days then format('%s of the month if that is %s', v_month_days, v_weekdays)
    when v_every_day or v_every_weekday then 'every day'
    else format('%s of the month and on %s', v_month_days, v_weekdays)
  end;
end;
$$;

comment on function fleet.describe_cron_days(integer[], integer[], boolean) is
  'The day fields of a cron expression: "every day", "on Monday to Friday", "on the 13th of the month and on Friday".';
revoke all on function fleet.describe_cron_days(integer[], integer[], boolean)
  from public, anon, authenticated, service_role;
grant execute on function fleet.describe_cron_days(integer[], integer[], boolean) to authenticated, service_role;

create or replace function fleet.describe_cron_weekdays(p_weekdays integer[])
returns text
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select fleet.english_list(array_remove(
    fleet.english_weekdays(array(
      select distinct coalesce(nullif(w, 0), 7) from unnest(p_weekdays) as w where w <= 7
    )) || array(
      select case
        when w > 90 then 'the last ' || fleet.english_weekdays(array[w - 90])
        else format('the %s %s', fleet.english_ordinal(w % 10), fleet.english_weekdays(array[w / 10]))
      end
      from unnest(p_weekdays) as w
      where w > 7
      order by w
    ),
    null
  ))
$$;

comment on function fleet.describe_cron_weekdays(integer[]) is
  'Weekdays in the codes of the cron fields, such as "Monday and the last Friday".';
revoke all on function fleet.describe_cron_weekdays(integer[]) from public, anon, authenticated, service_role;
grant execute on function fleet.describe_cron_weekdays(integer[]) to authenticated, service_role;
