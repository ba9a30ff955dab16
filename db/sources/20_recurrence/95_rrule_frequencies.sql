-- What each frequency of a calendar's rule becomes. "refused" in an answer says why there is none.

create or replace function fleet.rrule_in_our_words(p_parts jsonb, p_local timestamp, p_has_dates boolean)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_parts jsonb := p_parts;
begin
  if p_parts ->> 'FREQ' in ('HOURLY', 'MINUTELY', 'SECONDLY') then
    -- An interval knows no dates that are left out.
    if not p_has_dates and not p_parts ?| '{BYDAY,BYMONTHDAY,BYMONTH,BYSETPOS,BYHOUR,BYMINUTE,BYSECOND}' then
      return fleet.rrule_interval(p_parts);
    end if;
    return fleet.rrule_often(p_parts, p_local);
  end if;

  v_parts := fleet.rrule_with_times(p_parts, p_local);
  return case
    when v_parts ? 'refused' then v_parts
    when v_parts ->> 'FREQ' = 'DAILY' then fleet.rrule_daily(v_parts, p_local)
    when v_parts ->> 'FREQ' = 'WEEKLY' then fleet.rrule_weekly(v_parts, p_local)
    when v_parts ->> 'FREQ' = 'MONTHLY' then fleet.rrule_monthly(v_parts, p_local)
    else fleet.rrule_yearly(v_parts, p_local)
  end;
end;
$$;

comment on function fleet.rrule_in_our_words(jsonb, timestamp, boolean) is
  'What a rule with this local start becomes: recurrence_type and recurrence_config, or refused with the reason.';
revoke all on function fleet.rrule_in_our_words(jsonb, timestamp, boolean) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_in_our_words(jsonb, timestamp, boolean) to authenticated, service_role;

create or replace function fleet.rrule_interval(p_parts jsonb)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select jsonb_build_object(
      'recurrence_type', 'interval',
      'recurrence_config', jsonb_build_object(
        'seconds',
        coalesce((p_parts ->> 'INTERVAL')::bigint, 1)
        * case p_parts ->> 'FREQ' when 'HOURLY' then 3600 when 'MINUTELY' then 60 else 1 end
      )
    )
  );
end;
$$;

comment on function fleet.rrule_interval(jsonb) is 'A SECONDLY, MINUTELY or HOURLY rule without BY rules as an interval.';
revoke all on function fleet.rrule_interval(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_interval(jsonb) to authenticated, service_role;

create or replace function fleet.rrule_often(p_parts jsonb, p_local timestamp)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_step    bigint := coalesce((p_parts ->> 'INTERVAL')::bigint, 1)
    * case p_parts ->> 'FREQ' when 'HOURLY' then 3600 when 'MINUTELY' then 60 else 1 end;
  v_hours   text;
  v_minutes text;
  v_seconds text;
begin
  if p_parts ? 'BYSETPOS' or p_parts ->> 'BYDAY' ~ '\d' then
    return jsonb_build_object('refused', p_parts ->> 'FREQ' || ' with BYSETPOS or numbered days');
  elsif p_parts ?& '{BYMONTHDAY,BYDAY}' then
    return '{"refused": "BYMONTHDAY together with BYDAY"}'::jsonb;
  elsif 86400 % v_step <> 0 or not (3600 % v_step = 0 or v_step % 3600 = 0) or not (60 % v_step = 0 or v_step % 60 = 0) then
    -- Only what is the same on every day, and in every hour or at one minute of it, is a set of times on the clock.
    return jsonb_build_object('refused', p_parts ->> 'FREQ' || ' with BY rules and an INTERVAL that does not fit into hour and day');
  end if;

  -- What the frequency expands, BY rules name; what it steps through, they limit.
  v_hours := fleet.rrule_steps(p_parts ->> 'BYHOUR', 24, greatest(v_step / 3600, 1)::integer, date_part('hour', p_local)::integer);
  v_minutes := case
    when v_step >= 3600 and p_parts ->> 'FREQ' = 'HOURLY' then coalesce(p_parts ->> 'BYMINUTE', date_part('minute', p_local)::text)
    else fleet.rrule_steps(
      p_parts ->> 'BYMINUTE', 60, case when v_step >= 3600 then 60 else greatest(v_step / 60, 1) end::integer,
      date_part('minute', p_local)::integer
    )
  end;
  v_seconds := case
    when p_parts ->> 'FREQ' <> 'SECONDLY' then coalesce(p_parts ->> 'BYSECOND', date_part('second', date_trunc('second', p_local))::text)
    else fleet.rrule_steps(p_parts ->> 'BYSECOND', 60, least(v_step, 60)::integer, date_part('second', p_local)::integer)
  end;
  if v_hours is null or v_minutes is null or v_seconds is null then
    return jsonb_build_object('refused', p_parts ->> 'FREQ' || ' with BY rules that leave nothing');
  end if;
  return jsonb_build_object(
    'recurrence_type', 'cron',
    'recurrence_config', jsonb_build_object('cron_expression', concat_ws(
      ' ', nullif(v_seconds, '0'), v_minutes, v_hours,
      coalesce(fleet.rrule_month_days(p_parts), '*'), coalesce(p_parts ->> 'BYMONTH', '*'),
      coalesce(fleet.rrule_day_names(p_parts), '*')
    ))
  );
end;
$$;

comment on function fleet.rrule_often(jsonb, timestamp) is
  'A SECONDLY, MINUTELY or HOURLY rule with BY rules as cron; every hour and every minute of it is a star, and so goes on by elapsed time.';
revoke all on function fleet.rrule_often(jsonb, timestamp) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_often(jsonb, timestamp) to authenticated, service_role;

create or replace function fleet.rrule_steps(p_only text, p_size integer, p_step integer, p_start integer)
returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select case when count(*) = p_size then '*' else string_agg(n::text, ',' order by n) end
    from generate_series(p_start % p_step, p_size - 1, p_step) as n
    where p_only is null or n = any (string_to_array(p_only, ',')::integer[])
  );
end;
$$;

comment on function fleet.rrule_steps(text, integer, integer, integer) is
  'The numbers of a field of cron that a step from a start reaches, of those named; null where there are none.';
revoke all on function fleet.rrule_steps(text, integer, integer, integer) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_steps(text, integer, integer, integer) to authenticated, service_role;

create or replace function fleet.rrule_daily(p_parts jsonb, p_local timestamp)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_is_dense boolean := fleet.rrule_times(p_parts, p_local) is null and coalesce(p_parts ->> 'INTERVAL', '1') = '1';
begin
  if p_parts ->> 'BYSETPOS' not in ('1', '-1', '-1,1') or p_parts ->> 'BYDAY' ~ '\d' then
    return '{"refused": "DAILY with such BYSETPOS or numbered days"}'::jsonb;
  elsif not p_parts ?| '{BYDAY,BYMONTHDAY,BYMONTH}' and not v_is_dense then
    return fleet.rrule_simple('daily', p_parts, p_local, '{}');
  elsif coalesce(p_parts ->> 'INTERVAL', '1') <> '1' then
    return '{"refused": "DAILY with INTERVAL and BY rules"}'::jsonb;
  elsif not p_parts ?| '{BYMONTHDAY,BYMONTH}' and not v_is_dense then
    return fleet.rrule_simple(
      'weekly', p_parts, p_local, jsonb_build_object('days_of_week', fleet.rrule_weekdays(p_parts))
    );
  end if;

  return fleet.rrule_cron(
    p_parts, p_local,
    coalesce(fleet.rrule_month_days(p_parts), '*'),
    coalesce(p_parts ->> 'BYMONTH', '*'),
    coalesce(lower(fleet.rrule_day_names(p_parts)), '*')
  );
end;
$$;

comment on function fleet.rrule_daily(jsonb, timestamp) is 'A DAILY rule in our own words.';
revoke all on function fleet.rrule_daily(jsonb, timestamp) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_daily(jsonb, timestamp) to authenticated, service_role;

create or replace function fleet.rrule_weekly(p_parts jsonb, p_local timestamp)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_start_day integer := date_part('isodow', p_local)::integer - 1;
  v_days      jsonb := coalesce(fleet.rrule_weekdays(p_parts), jsonb_build_array(v_start_day));
  v_every     text := coalesce(p_parts ->> 'INTERVAL', '1');
begin
  if p_parts ? 'BYMONTHDAY' or p_parts ->> 'BYDAY' ~ '\d' then
    return '{"refused": "WEEKLY with BYMONTHDAY or numbered days"}'::jsonb;
  elsif p_parts ? 'BYSETPOS' and (jsonb_array_length(v_days) > 1 or p_parts ->> 'BYSETPOS' not in ('1', '-1', '-1,1')) then
    return '{"refused": "WEEKLY with BYSETPOS over several days"}'::jsonb;
  elsif v_every <> '1' and coalesce(p_parts ->> 'WKST', 'MO') <> 'MO' and v_days <> jsonb_build_array(v_start_day) then
    return '{"refused": "WKST: our weeks begin on Monday"}'::jsonb;
  elsif not p_parts ? 'BYMONTH' and (v_every <> '1' or fleet.rrule_times(p_parts, p_local) is not null) then
    return fleet.rrule_simple('weekly', p_parts, p_local, jsonb_build_object('days_of_week', v_days));
  elsif v_every <> '1' then
    return '{"refused": "WEEKLY with INTERVAL and BYMONTH"}'::jsonb;
  end if;

  return fleet.rrule_cron(
    p_parts, p_local, '*', coalesce(p_parts ->> 'BYMONTH', '*'),
    coalesce(fleet.rrule_day_names(p_parts), (v_start_day + 1)::text)
  );
end;
$$;

comment on function fleet.rrule_weekly(jsonb, timestamp) is 'A WEEKLY rule in our own words.';
revoke all on function fleet.rrule_weekly(jsonb, timestamp) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_weekly(jsonb, timestamp) to authenticated, service_role;

create or replace function fleet.rrule_monthly(p_parts jsonb, p_local timestamp)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_fields jsonb := fleet.rrule_day_fields(p_parts, p_local);
  v_simple jsonb := fleet.rrule_simple_month(v_fields);
begin
  if v_fields ? 'refused' then
    return v_fields;
  elsif v_simple is not null and not p_parts ? 'BYMONTH'
    and (coalesce(p_parts ->> 'INTERVAL', '1') <> '1' or fleet.rrule_times(p_parts, p_local) is not null)
  then
    return fleet.rrule_simple('monthly', p_parts, p_local, v_simple);
  elsif coalesce(p_parts ->> 'INTERVAL', '1') <> '1' then
    return '{"refused": "MONTHLY with INTERVAL and such BY rules"}'::jsonb;
  end if;

  return fleet.rrule_cron(
    p_parts, p_local,
    v_fields ->> 'month_days', coalesce(p_parts ->> 'BYMONTH', '*'), v_fields ->> 'weekdays'
  );
end;
$$;

comment on function fleet.rrule_monthly(jsonb, timestamp) is 'A MONTHLY rule in our own words.';
revoke all on function fleet.rrule_monthly(jsonb, timestamp) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_monthly(jsonb, timestamp) to authenticated, service_role;

create or replace function fleet.rrule_yearly(p_parts jsonb, p_local timestamp)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_every  integer := coalesce((p_parts ->> 'INTERVAL')::integer, 1);
  v_start  text := date_part('month', p_local)::text;
  v_months text := coalesce(
    p_parts ->> 'BYMONTH',
    case when p_parts ?| '{BYDAY,BYMONTHDAY}' then '*' else v_start end
  );
  v_fields jsonb := fleet.rrule_day_fields(p_parts, p_local);
  v_simple jsonb := fleet.rrule_simple_month(v_fields);
begin
  if not p_parts ? 'BYMONTH' and ((p_parts ? 'BYSETPOS' and p_parts ?| '{BYDAY,BYMONTHDAY}') or p_parts ->> 'BYDAY' ~ '\d') then
    return '{"refused": "YEARLY with days numbered within the year"}'::jsonb;
  elsif p_parts ? 'BYSETPOS' and v_months like '%,%' then
    return '{"refused": "YEARLY with BYSETPOS over several months"}'::jsonb;
  elsif v_fields ? 'refused' then
    return v_fields;
  elsif v_every = 1 then
    return fleet.rrule_cron(p_parts, p_local, v_fields ->> 'month_days', v_months, v_fields ->> 'weekdays');
  elsif v_simple is null or v_months <> v_start or v_every > 800 then
    return '{"refused": "YEARLY with INTERVAL and such BY rules"}'::jsonb;
  end if;

  return fleet.rrule_simple(
    'monthly', p_parts || jsonb_build_object('INTERVAL', v_every * 12), p_local, v_simple
  );
end;
$$;

comment on function fleet.rrule_yearly(jsonb, timestamp) is 'A YEARLY rule in our own words.';
revoke all on function fleet.rrule_yearly(jsonb, timestamp) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_yearly(jsonb, timestamp) to authenticated, service_role;
