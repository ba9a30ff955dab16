-- The days and times that BYSETPOS picks.

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
  v_marks      jsonb;
begin
  if v_month_days is not null and v_weekdays is not null then
    return '{"refused": "BYMONTHDAY together with BYDAY"}'::jsonb;
  elsif v_weekdays ~ '#-' then
    return '{"refused": "weekdays counted from the end, other than the last"}'::jsonb;
  elsif v_weekdays ~ '#([6-9]|\d\d)' then
    return '{"refused": "a weekday that no month has so often"}'::jsonb;
  elsif v_weekdays ~ '[#L]' and v_weekdays ~ '(^|,)\d(,|$)' then
    return '{"refused": "BYDAY with numbered days beside others"}'::jsonb;
  elsif not p_parts ? 'BYSETPOS' then
    return jsonb_build_object(
      'month_days', coalesce(v_month_days, case when v_weekdays is null then date_part('day', p_local)::text end, '*'),
      'weekdays', coalesce(v_weekdays, '*')
    );
  end if;

  select jsonb_agg(distinct coalesce(fleet.rrule_mark(p_parts, p_local, p.position::integer), 'null'))
  into v_marks
  from regexp_split_to_table(p_parts ->> 'BYSETPOS', ',') as p (position);
  if v_marks @> 'null' or (v_marks @? '$[*].month_day' and v_marks @? '$[*].weekday') then
    return '{"refused": "BYSETPOS in this set"}'::jsonb;
  end if;
  return (
    select jsonb_build_object(
      'month_days', coalesce(string_agg(m.mark ->> 'month_day', ','), '*'),
      'weekdays', coalesce(string_agg(m.mark ->> 'weekday', ','), '*')
    )
    from jsonb_array_elements(v_marks) as m (mark)
  );
end;
$$;

comment on function fleet.rrule_day_fields(jsonb, timestamp) is
  'The days of a MONTHLY or YEARLY rule as the day fields of cron; BYSETPOS counts days (see fleet.rrule_with_times).';
revoke all on function fleet.rrule_day_fields(jsonb, timestamp) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_day_fields(jsonb, timestamp) to authenticated, service_role;

create or replace function fleet.rrule_mark(p_parts jsonb, p_local timestamp, p_position integer)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_weekdays text := fleet.rrule_day_names(p_parts);
  v_set      jsonb := fleet.rrule_weekdays(p_parts);
  v_days     integer[];
  v_day      text;
begin
  -- The n-th of a set, where one of our marks means the same.
  if v_weekdays is null then
    select array_agg(distinct d::integer) into v_days
    from regexp_split_to_table(coalesce(p_parts ->> 'BYMONTHDAY', date_part('day', p_local)::text), ',') as d;
    v_day := case
      when cardinality(v_days) = 1 and abs(p_position) = 1 then fleet.rrule_month_days(jsonb_build_object('BYMONTHDAY', v_days[1]::text))
      when v_days = '{28,29,30,31}' and p_position = -1 then 'L'
      -- The first 28 days are in every month, and so are the last 28.
      when v_days[1] > 0 and v_days[p_position] <= 28 then v_days[p_position]::text
      when v_days[1] > 0 and v_days[cardinality(v_days)] <= 28 and p_position < 0 then v_days[cardinality(v_days) + 1 + p_position]::text
      when v_days[1] between -28 and -1 and v_days[cardinality(v_days)] < 0 then fleet.rrule_month_days(jsonb_build_object(
        'BYMONTHDAY', v_days[case when p_position > 0 then p_position else cardinality(v_days) + 1 + p_position end]::text
      ))
    end;
    return jsonb_build_object('month_day', v_day) where v_day is not null;
  elsif v_weekdays ~ '[#L]' then
    return jsonb_build_object('weekday', v_weekdays) where v_weekdays !~ ',' and abs(p_position) = 1;
  elsif jsonb_array_length(v_set) = 1 then
    return jsonb_build_object(
      'weekday', left(v_weekdays, 1) || case p_position when -1 then 'L' else '#' || p_position end
    )
    where p_position in (-1, 1, 2, 3, 4, 5);
  end if;

  v_day := case
    when v_set = '[0, 1, 2, 3, 4]' and p_position = -1 then 'LW'
    when v_set = '[0, 1, 2, 3, 4]' and p_position = 1 then '1W'
    when jsonb_array_length(v_set) = 7 and p_position between 1 and 31 then p_position::text
    when jsonb_array_length(v_set) = 7 and p_position = -1 then 'L'
    when jsonb_array_length(v_set) = 7 and p_position between -31 and -2 then 'L' || p_position + 1
  end;
  return jsonb_build_object('month_day', v_day) where v_day is not null;
end;
$$;

comment on function fleet.rrule_mark(jsonb, timestamp, integer) is
  'What the n-th day of a month''s set is in a day field of cron, {month_day} or {weekday}; null where no mark says it.';
revoke all on function fleet.rrule_mark(jsonb, timestamp, integer) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_mark(jsonb, timestamp, integer) to authenticated, service_role;

create or replace function fleet.rrule_with_times(p_parts jsonb, p_local timestamp)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_clock  jsonb := fleet.rrule_clock(p_parts, p_local);
  v_m      integer := jsonb_array_length(v_clock -> 'MINUTE');
  v_s      integer := jsonb_array_length(v_clock -> 'SECOND');
  v_a_day  integer := jsonb_array_length(v_clock -> 'HOUR') * v_m * v_s;
  v_picked record;
begin
  if not p_parts ? 'BYSETPOS' or v_a_day = 1 then
    return p_parts;
  end if;

  -- Positions count instants. Those of one day follow each other, so each is a day of the set and a time of that day.
  select array_agg(distinct q.day order by q.day) as days, array_agg(distinct q.time order by q.time) as times,
    count(distinct (q.day, q.time)) as number
  into v_picked
  from (
    select
      sign(p.position)::integer * ((abs(p.position) - 1) / v_a_day + 1) as day,
      case when p.position > 0 then (p.position - 1) % v_a_day else v_a_day - 1 - (-p.position - 1) % v_a_day end as time
    from (select x::integer as position from regexp_split_to_table(p_parts ->> 'BYSETPOS', ',') as x) as p
  ) as q;
  if cardinality(v_picked.days) * cardinality(v_picked.times) <> v_picked.number then
    return p_parts || '{"refused": "BYSETPOS that picks other times on other days"}'::jsonb;
  end if;

  return p_parts || jsonb_build_object('BYSETPOS', array_to_string(v_picked.days, ','), 'TIMES', (
    select jsonb_agg(to_char(make_time(
      (v_clock -> 'HOUR' -> (t.time / (v_m * v_s)))::integer,
      (v_clock -> 'MINUTE' -> (t.time / v_s % v_m))::integer,
      (v_clock -> 'SECOND' -> (t.time % v_s))::integer
    ), 'HH24:MI:SS') order by t.time)
    from unnest(v_picked.times) as t (time)
  ));
end;
$$;

comment on function fleet.rrule_with_times(jsonb, timestamp) is
  'The parts of a rule whose BYSETPOS counts instants of several times a day, with TIMES, the times that it picks, and a BYSETPOS that '
  'counts days; refused says why there is none.';
revoke all on function fleet.rrule_with_times(jsonb, timestamp) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_with_times(jsonb, timestamp) to authenticated, service_role;
