-- A recurrence in plain English.

create or replace function fleet.describe_recurrence(p_recurrence jsonb)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_type   text := p_recurrence ->> 'type';
  v_config jsonb := p_recurrence -> 'config';
  v_clock  text := p_recurrence ->> 'clock';
  v_start  text := fleet.local_text(p_recurrence ->> 'start', v_clock);
  v_end    text := fleet.local_text(p_recurrence ->> 'end', v_clock);
begin
  if not p_recurrence ? 'kind' then
    return fleet.describe_recurrence(fleet.recompile_recurrence(p_recurrence));
  end if;

  return case
    when v_type = 'once' then 'once, on ' || v_start
    when v_type = 'interval' then
      format('every %s, counted from %s', fleet.english_length((p_recurrence ->> 'interval_seconds')::bigint), v_start)
    when v_type = 'cron' then fleet.describe_cron(v_config ->> 'cron_expression')
    else
      fleet.describe_days(v_type, v_config, (p_recurrence ->> 'start')::timestamptz at time zone v_clock)
      || ' at ' || fleet.describe_times(p_recurrence -> 'times')
  end
  || case when v_config ?| '{except,also}' then fleet.describe_dates(v_config) else '' end
  || case when v_type <> 'once' and v_end is not null then ', until ' || v_end else '' end
  || format(' (%s)', p_recurrence ->> 'timezone')
  || fleet.describe_rules(p_recurrence);
end;
$$;

comment on function fleet.describe_recurrence(jsonb) is
  'When a recurrence runs, in English, such as "every week on Monday to Friday at 09:00 (Europe/Berlin)".';
revoke all on function fleet.describe_recurrence(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.describe_recurrence(jsonb) to authenticated, service_role;

create or replace function fleet.local_text(p_instant text, p_clock text)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select to_char(l.at, 'YYYY-MM-DD') || ' at ' || case
    when l.at = date_trunc('minute', l.at) then to_char(l.at, 'HH24:MI')
    else to_char(l.at, 'HH24:MI:SS')
  end
  from (select p_instant::timestamptz at time zone p_clock as at) as l
$$;

comment on function fleet.local_text(text, text) is 'An instant as the local date and time of a clock.';
revoke all on function fleet.local_text(text, text) from public, anon, authenticated, service_role;
grant execute on function fleet.local_text(text, text) to authenticated, service_role;

create or replace function fleet.describe_times(p_times jsonb)
returns text
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select fleet.english_list(array_agg(
    to_char(t.at, case when date_part('second', t.at) = 0 then 'HH24:MI' else 'HH24:MI:SS' end) order by t.at
  ))
  from (
    select interval '1 second' * e::integer as at from jsonb_array_elements_text(p_times) as e
  ) as t
$$;

comment on function fleet.describe_times(jsonb) is 'Seconds past midnight as times of day.';
revoke all on function fleet.describe_times(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.describe_times(jsonb) to authenticated, service_role;

create or replace function fleet.describe_days(p_type text, p_config jsonb, p_local_start timestamp)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_every    integer := coalesce((p_config ->> 'every')::integer, 1);
  v_unit     text := case p_type when 'daily' then 'day' when 'weekly' then 'week' else 'month' end;
  v_weekdays text;
  v_week     integer := fleet.week_of_month(p_config -> 'week');
begin
  v_weekdays := fleet.english_weekdays(array(
    select distinct fleet.weekday_number(e.value) + 1
    from fleet.as_list(
      coalesce(
        case p_type when 'weekly' then p_config -> 'days_of_week' else p_config -> 'day_of_week' end,
        to_jsonb((date_part('isodow', p_local_start) - 1)::integer)
      )
    ) as e (value)
  ));

  return case when v_every = 1 then 'every ' || v_unit else format('every %s %ss', v_every, v_unit) end
    || case
      when p_type = 'daily' then ''
      when p_type = 'weekly' then ' on ' || v_weekdays
      when v_week = -1 then ' on the last ' || v_weekdays
      when v_week is not null then format(' on the %s %s', fleet.english_ordinal(v_week), v_weekdays)
      else ' on the ' || fleet.describe_month_days(array(
        select distinct fleet.month_day_number(e.value)
        from fleet.as_list(
          coalesce(p_config -> 'day_of_month', to_jsonb(date_part('day', p_local_start)::integer))
        ) as e (value)
        order by 1
      ))
    end;
end;
$$;

comment on function fleet.describe_days(text, jsonb, timestamp) is
  'The days of a daily, weekly or monthly recurrence, such as "every 2 weeks on Monday".';
revoke all on function fleet.describe_days(text, jsonb, timestamp) from public, anon, authenticated, service_role;
grant execute on function fleet.describe_days(text, jsonb, timestamp) to authenticated, service_role;

create or replace function fleet.describe_month_days(p_month_days integer[])
returns text
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select fleet.english_list(array(
    select case
      when d = 100 then 'last day'
      when d between 101 and 130 then
        case d when 101 then 'day' else (d - 100) || ' days' end || ' before the last day'
      when d = 200 then 'last working day'
      when d > 200 then 'working day nearest to the ' || fleet.english_ordinal(d - 200)
      else fleet.english_ordinal(d)
    end
    from unnest(p_month_days) with ordinality as v (d, nr)
    order by v.nr
  ))
$$;

comment on function fleet.describe_month_days(integer[]) is
  'Days of the month, in the codes of the cron fields, such as "1st, 15th and last day".';
revoke all on function fleet.describe_month_days(integer[]) from public, anon, authenticated, service_role;
grant execute on function fleet.describe_month_days(integer[]) to authenticated, service_role;

create or replace function fleet.describe_rules(p_recurrence jsonb)
returns text
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_recurrence ->> 'kind' <> 'calendar' then ''
    when p_recurrence @> '{"is_elapsed": true}' then ''
    else case p_recurrence ->> 'gap'
      when 'shift' then '; a time that the clocks skip runs as much later as they jump'
      when 'skip' then '; a time that the clocks skip does not run'
      else ''
    end || case p_recurrence ->> 'fold'
      when 'second' then '; a time that comes twice runs at the second'
      when 'both' then '; a time that comes twice runs both times'
      else ''
    end
  end
$$;

comment on function fleet.describe_rules(jsonb) is
  'The rules for skipped and repeated times where they are not the usual ones.';
revoke all on function fleet.describe_rules(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.describe_rules(jsonb) to authenticated, service_role;
