-- What is wrong with a recurrence: every problem at once, each with its field and the next step.

create or replace function fleet.recurrence_problems(p_type text, p_config jsonb, p_timezone text)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_type   text := fleet.recurrence_type(p_type);
  v_config jsonb := fleet.recurrence_settings(p_config);
begin
  if v_type is null then
    return query values (
      'recurrence_type',
      coalesce(quote_literal(p_type) || ' is not a recurrence type', 'is missing'),
      'Use once, interval, daily, weekly, monthly or cron'
    );
  end if;

  if not exists (select 1 from fleet.time_zones as z where z.name = p_timezone) then
    return query select p.field, p.problem, p.hint from fleet.timezone_problems(p_timezone) as p;
  end if;

  if v_config is null then
    return query values (
      'recurrence_config', 'must be a JSON object', 'Write an object such as {"time": "02:30"}'
    );
    return;
  end if;

  if v_config ? 'type'
    and fleet.recurrence_type(v_config ->> 'type') is distinct from v_type
  then
    return query values (
      'recurrence_config.type',
      format('%s is not the recurrence type', quote_literal(v_config ->> 'type')),
      format('Leave it out, or make it %s', quote_literal(v_type))
    );
  end if;

  -- Each check by itself, where there is something for it to look at.
  if v_config <> '{}' then
    return query select p.field, p.problem, p.hint from fleet.config_key_problems(v_config) as p;
  end if;
  if v_config ?| '{time,times}' then
    return query select p.field, p.problem, p.hint from fleet.config_time_problems(v_config) as p;
  end if;
  if v_config ?| '{days_of_week,day_of_week,day_of_month,week}' then
    return query select p.field, p.problem, p.hint from fleet.config_day_problems(v_config) as p;
  end if;
  if v_type = 'interval' or v_config ? 'every' then
    return query select p.field, p.problem, p.hint from fleet.config_every_problems(v_type, v_config) as p;
  end if;
  if v_type = 'cron' then
    return query select p.field, p.problem, p.hint from fleet.config_cron_problems(v_type, v_config) as p;
  end if;
  if v_config ?| '{except,also}' then
    return query select p.field, p.problem, p.hint from fleet.config_date_problems(v_type, v_config) as p;
  end if;
  if v_config ? 'end_date' and fleet.recurrence_end(v_config ->> 'end_date', 'UTC') is null then
    return query values (
      'recurrence_config.end_date',
      format('%s is not a date or time', quote_literal(v_config ->> 'end_date')),
      'Write a date such as 2027-12-31, or a time such as 2027-12-31T18:00:00Z'
    );
  end if;
end;
$$;

comment on function fleet.recurrence_problems(text, jsonb, text) is
  'Everything that is wrong with a recurrence, one row per field; no row when it is valid.';
revoke all on function fleet.recurrence_problems(text, jsonb, text) from public, anon, authenticated, service_role;
grant execute on function fleet.recurrence_problems(text, jsonb, text) to service_role;

create or replace function fleet.timezone_problems(p_timezone text)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select
    'timezone',
    coalesce(quote_literal(p_timezone) || ' is not a time zone', 'is missing'),
    coalesce(
      'Did you mean ' || (
        select z.name from fleet.time_zones as z where lower(z.name) = lower(btrim(p_timezone)) limit 1
      ) || '?',
      'Use an IANA name such as Europe/Berlin or UTC'
    )
  where p_timezone is null
    or not exists (select 1 from fleet.time_zones as z where z.name = p_timezone);
end;
$$;

comment on function fleet.timezone_problems(text) is
  'Says that a time zone is not in fleet.time_zones, with the right spelling where only upper and lower '
  'case differ.';
revoke all on function fleet.timezone_problems(text) from public, anon, authenticated, service_role;
grant execute on function fleet.timezone_problems(text) to service_role;

create or replace function fleet.recurrence_type(p_type text)
returns text
language sql
immutable
parallel safe
return case
  when p_type in ('once', 'interval', 'daily', 'weekly', 'monthly', 'cron') then p_type
  when p_type = 'custom' then 'cron'
end;

comment on function fleet.recurrence_type(text) is
  'The recurrence type by its own name (custom is another word for cron); null where it is none.';
revoke all on function fleet.recurrence_type(text) from public, anon, authenticated, service_role;
grant execute on function fleet.recurrence_type(text) to authenticated, service_role;

create or replace function fleet.recurrence_settings(p_config jsonb)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return case
    when p_config is null or jsonb_typeof(p_config) = 'null' then '{}'::jsonb
    -- Clients that send every key of their model send null for what is not meant.
    when jsonb_typeof(p_config) = 'object' then jsonb_strip_nulls(p_config)
  end;
end;
$$;

comment on function fleet.recurrence_settings(jsonb) is
  'The configuration without nulls, {} for none; null where it is no object.';
revoke all on function fleet.recurrence_settings(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.recurrence_settings(jsonb) to authenticated, service_role;

create or replace function fleet.recurrence_end(p_text text, p_timezone text)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A bare date means the whole of that day.
  if btrim(p_text) ~ '^\d{4,6}-\d{2}-\d{2}$' then
    return fleet.local_to_instant((p_text::date + 1)::timestamp, p_timezone) - interval '1 microsecond';
  elsif btrim(p_text) !~ '^\d{4,6}-\d{2}-\d{2}[T ]\d{2}:\d{2}' then
    return null;
  elsif p_text ~ '(Z|z|[+-]\d{2}(:?\d{2})?)\s*$' then
    return p_text::timestamptz;
  end if;
  return fleet.local_to_instant(p_text::timestamp, p_timezone);
exception
  when invalid_datetime_format or datetime_field_overflow or invalid_parameter_value then
    return null;
end;
$$;

comment on function fleet.recurrence_end(text, text) is
  'The last instant that an end_date allows; null where it is no date or time.';
revoke all on function fleet.recurrence_end(text, text) from public, anon, authenticated, service_role;
grant execute on function fleet.recurrence_end(text, text) to authenticated, service_role;
