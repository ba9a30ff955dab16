-- The BY rules of a calendar's rule as fields of cron, and the shapes that a rule can take here.

create or replace function fleet.rrule_clock(p_parts jsonb, p_local timestamp)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select jsonb_object_agg(u.unit, (
      select jsonb_agg(distinct v.value::integer)
      from regexp_split_to_table(coalesce(p_parts ->> ('BY' || u.unit), date_part(lower(u.unit), p_local)::integer::text), ',') as v (value)
    ))
    from unnest('{HOUR,MINUTE,SECOND}'::text[]) as u (unit)
  );
end;
$$;

comment on function fleet.rrule_clock(jsonb, timestamp) is
  'The hours, minutes and seconds of a rule, sorted; each from its BY rule, else from the start.';
revoke all on function fleet.rrule_clock(jsonb, timestamp) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_clock(jsonb, timestamp) to authenticated, service_role;

create or replace function fleet.rrule_times(p_parts jsonb, p_local timestamp)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  -- More than these are said by cron.
  return (
    select case
      when p_parts ? 'TIMES' then p_parts -> 'TIMES'
      when jsonb_array_length(c.clock -> 'HOUR') * jsonb_array_length(c.clock -> 'MINUTE') * jsonb_array_length(c.clock -> 'SECOND') <= 48
        then (
          select jsonb_agg(to_char(make_time(h::integer, m::integer, s::integer), 'HH24:MI:SS') order by h::integer, m::integer, s::integer)
          from jsonb_array_elements(c.clock -> 'HOUR') as h
          cross join jsonb_array_elements(c.clock -> 'MINUTE') as m
          cross join jsonb_array_elements(c.clock -> 'SECOND') as s
        )
    end
    from (select fleet.rrule_clock(p_parts, p_local) as clock) as c
  );
end;
$$;

comment on function fleet.rrule_times(jsonb, timestamp) is
  'The times of day of a rule as a list of texts; null where they are too many for one.';
revoke all on function fleet.rrule_times(jsonb, timestamp) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_times(jsonb, timestamp) to authenticated, service_role;

create or replace function fleet.rrule_simple(
  p_type text,
  p_parts jsonb,
  p_local timestamp,
  p_config jsonb
)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select case
      when t.times is null then jsonb_build_object('refused', p_parts ->> 'FREQ' || ' with INTERVAL and so many times of day')
      when (coalesce(p_parts ->> 'INTERVAL', '1'))::integer > 9999 then '{"refused": "INTERVAL beyond 9999"}'::jsonb
      else jsonb_build_object(
        'recurrence_type', p_type,
        'recurrence_config', p_config
          || jsonb_build_object(case when jsonb_array_length(t.times) = 1 then 'time' else 'times' end,
            case when jsonb_array_length(t.times) = 1 then t.times -> 0 else t.times end)
          || case
            when coalesce(p_parts ->> 'INTERVAL', '1') = '1' then '{}'::jsonb
            else jsonb_build_object('every', (p_parts ->> 'INTERVAL')::integer)
          end
      )
    end
    from (select fleet.rrule_times(p_parts, p_local) as times) as t
  );
end;
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
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_clock jsonb := fleet.rrule_clock(p_parts, p_local);
begin
  if p_month_days <> '*' and p_weekdays <> '*' then
    return '{"refused": "BYMONTHDAY together with BYDAY"}'::jsonb;
  elsif p_parts ? 'TIMES' then
    v_clock := (
      select jsonb_build_object(
        'HOUR', jsonb_agg(distinct split_part(t.text, ':', 1)::integer),
        'MINUTE', jsonb_agg(distinct split_part(t.text, ':', 2)::integer),
        'SECOND', jsonb_agg(distinct split_part(t.text, ':', 3)::integer)
      )
      from jsonb_array_elements_text(p_parts -> 'TIMES') as t (text)
    );
    if jsonb_array_length(v_clock -> 'HOUR') * jsonb_array_length(v_clock -> 'MINUTE') * jsonb_array_length(v_clock -> 'SECOND')
      <> jsonb_array_length(p_parts -> 'TIMES')
    then
      return '{"refused": "BYSETPOS that picks times which are no combination of hours and minutes"}'::jsonb;
    end if;
  end if;

  return jsonb_build_object(
    'recurrence_type', 'cron',
    'recurrence_config', jsonb_build_object('cron_expression', concat_ws(
      ' ',
      nullif(fleet.rrule_field(v_clock -> 'SECOND', 60), '0'),
      fleet.rrule_field(v_clock -> 'MINUTE', 60),
      fleet.rrule_field(v_clock -> 'HOUR', 24),
      p_month_days,
      p_months,
      p_weekdays
    ))
  );
end;
$$;

comment on function fleet.rrule_cron(jsonb, timestamp, text, text, text) is
  'A cron recurrence with the times of a rule and these day and month fields.';
revoke all on function fleet.rrule_cron(jsonb, timestamp, text, text, text)
  from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_cron(jsonb, timestamp, text, text, text) to authenticated, service_role;

create or replace function fleet.rrule_field(p_numbers jsonb, p_size integer)
returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Never a star: times of a rule are fixed times, also where they are all there are.
  return (
    select case
      when jsonb_array_length(p_numbers) = p_size then '0-' || p_size - 1
      else (select string_agg(n.value, ',' order by n.value::integer) from jsonb_array_elements_text(p_numbers) as n (value))
    end
  );
end;
$$;

comment on function fleet.rrule_field(jsonb, integer) is 'Hours, minutes or seconds of a rule as a field of cron.';
revoke all on function fleet.rrule_field(jsonb, integer) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_field(jsonb, integer) to authenticated, service_role;

create or replace function fleet.rrule_weekdays(p_parts jsonb)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select jsonb_agg(distinct array_position('{MO,TU,WE,TH,FR,SA,SU}'::text[], right(d, 2)) - 1)
    from regexp_split_to_table(p_parts ->> 'BYDAY', ',') as d
  );
end;
$$;

comment on function fleet.rrule_weekdays(jsonb) is 'The weekdays of BYDAY, 0 for Monday; null without BYDAY.';
revoke all on function fleet.rrule_weekdays(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_weekdays(jsonb) to authenticated, service_role;

create or replace function fleet.rrule_day_names(p_parts jsonb)
returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select string_agg(
      w.number || case
        when left(d, -2) = '' then ''
        when left(d, -2) = '-1' then 'L'
        else '#' || left(d, -2)
      end,
      ',' order by nr
    )
    from regexp_split_to_table(p_parts ->> 'BYDAY', ',') with ordinality as t (d, nr)
    cross join lateral (
      select array_position('{MO,TU,WE,TH,FR,SA,SU}'::text[], right(t.d, 2)) as number
    ) as w
  );
end;
$$;

comment on function fleet.rrule_day_names(jsonb) is 'BYDAY as a day-of-week field; null without BYDAY.';
revoke all on function fleet.rrule_day_names(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_day_names(jsonb) to authenticated, service_role;

create or replace function fleet.rrule_month_days(p_parts jsonb)
returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select string_agg(
      case
        when d = '-1' then 'L'
        when d like '-%' then 'L-' || (ltrim(d, '-')::integer - 1)
        else d
      end,
      ',' order by nr
    )
    from regexp_split_to_table(p_parts ->> 'BYMONTHDAY', ',') with ordinality as t (d, nr)
  );
end;
$$;

comment on function fleet.rrule_month_days(jsonb) is 'BYMONTHDAY as a day-of-month field; null without BYMONTHDAY.';
revoke all on function fleet.rrule_month_days(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_month_days(jsonb) to authenticated, service_role;

create or replace function fleet.rrule_simple_month(p_fields jsonb)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
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
  );
end;
$$;

comment on function fleet.rrule_simple_month(jsonb) is
  'Day fields as the configuration of a monthly recurrence; null where that cannot say them.';
revoke all on function fleet.rrule_simple_month(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_simple_month(jsonb) to authenticated, service_role;
