-- What each frequency of a calendar's rule becomes. "refused" in an answer says why there is none.

create or replace function fleet.rrule_interval(p_parts jsonb)
returns jsonb
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_parts ?| '{BYDAY,BYMONTHDAY,BYMONTH,BYSETPOS,BYHOUR,BYMINUTE}' then
      jsonb_build_object('refused', p_parts ->> 'FREQ' || ' with BY rules')
    else jsonb_build_object(
      'recurrence_type', 'interval',
      'recurrence_config', jsonb_build_object(
        'seconds',
        coalesce((p_parts ->> 'INTERVAL')::integer, 1)
        * case p_parts ->> 'FREQ' when 'HOURLY' then 3600 when 'MINUTELY' then 60 else 1 end
      )
    )
  end
$$;

comment on function fleet.rrule_interval(jsonb) is 'A SECONDLY, MINUTELY or HOURLY rule as an interval.';
revoke all on function fleet.rrule_interval(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_interval(jsonb) to authenticated, service_role;

create or replace function fleet.rrule_daily(p_parts jsonb, p_local timestamp)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  if not p_parts ?| '{BYDAY,BYMONTHDAY,BYMONTH,BYSETPOS}' then
    return fleet.rrule_simple('daily', p_parts, p_local, '{}');
  elsif p_parts ? 'BYSETPOS' or p_parts ->> 'BYDAY' ~ '\d' then
    return '{"refused": "DAILY with BYSETPOS or numbered days"}'::jsonb;
  elsif coalesce(p_parts ->> 'INTERVAL', '1') <> '1' then
    return '{"refused": "DAILY with INTERVAL and BY rules"}'::jsonb;
  elsif not p_parts ?| '{BYMONTHDAY,BYMONTH}' then
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
  if p_parts ?| '{BYMONTHDAY,BYSETPOS}' or p_parts ->> 'BYDAY' ~ '\d' then
    return '{"refused": "WEEKLY with BYMONTHDAY, BYSETPOS or numbered days"}'::jsonb;
  elsif v_every <> '1' and coalesce(p_parts ->> 'WKST', 'MO') <> 'MO' and v_days <> jsonb_build_array(v_start_day) then
    return '{"refused": "WKST: our weeks begin on Monday"}'::jsonb;
  elsif not p_parts ? 'BYMONTH' then
    return fleet.rrule_simple('weekly', p_parts, p_local, jsonb_build_object('days_of_week', v_days));
  elsif v_every <> '1' then
    return '{"refused": "WEEKLY with INTERVAL and BYMONTH"}'::jsonb;
  end if;

  return fleet.rrule_cron(
    p_parts, p_local, '*', p_parts ->> 'BYMONTH',
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
  elsif v_simple is not null and not p_parts ? 'BYMONTH' then
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
  if not p_parts ? 'BYMONTH' and (p_parts ? 'BYSETPOS' or p_parts ->> 'BYDAY' ~ '\d') then
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
