-- How often: "every" in its meanings, the length of an interval, and the cron expression.

create or replace function fleet.interval_seconds(p_config jsonb)
returns bigint
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_seconds numeric := 0::numeric;
  v_every   interval;
  v_unit    record;
begin
  for v_unit in
    select u.name, u.length
    from (
      values ('seconds', 1), ('minutes', 60), ('hours', 3600), ('days', 86400), ('weeks', 604800)
    ) as u (name, length)
    where p_config ? u.name
  loop
    if p_config ->> v_unit.name !~ '^\d{1,9}$' then
      return null;
    end if;
    v_seconds := v_seconds + (p_config ->> v_unit.name)::numeric * v_unit.length;
  end loop;

  if p_config ? 'every' then
    v_every := fleet.parse_interval(p_config ->> 'every');
    -- A month has no fixed length in elapsed time.
    if v_every is null or jsonb_typeof(p_config -> 'every') <> 'string' or date_part('month', v_every) <> 0
      or date_part('year', v_every) <> 0
    then
      return null;
    end if;
    v_seconds := v_seconds + extract(epoch from v_every);
  end if;

  return case
    when v_seconds >= 1 and v_seconds = trunc(v_seconds) and v_seconds < 1e11 then v_seconds::bigint
  end;
end;
$$;

comment on function fleet.interval_seconds(jsonb) is
  'The length of an interval recurrence in whole seconds of elapsed time; null where the configuration '
  'gives none.';
revoke all on function fleet.interval_seconds(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.interval_seconds(jsonb) to authenticated, service_role;

create or replace function fleet.parse_interval(p_text text)
returns interval
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return p_text::interval;
exception
  when invalid_datetime_format or datetime_field_overflow or interval_field_overflow then
    return null;
end;
$$;

comment on function fleet.parse_interval(text) is
  'Text such as 15 minutes or PT15M as an interval; null where it is none.';
revoke all on function fleet.parse_interval(text) from public, anon, authenticated, service_role;
grant execute on function fleet.parse_interval(text) to authenticated, service_role;

create or replace function fleet.config_every_problems(p_type text, p_config jsonb)
returns setof fleet.problem
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_is_set constant boolean := p_config ?| '{every,seconds,minutes,hours,days,weeks}';
begin
  if p_type is null then
    return;
  elsif p_type = 'interval' then
    if fleet.interval_seconds(p_config) is null then
      return query values (
        'recurrence_config.' || coalesce(
          (
            select k.name
            from unnest('{every,seconds,minutes,hours,days,weeks}'::text[]) as k (name)
            where p_config ? k.name
            limit 1
          ),
          'every'
        ),
        case when v_is_set then 'is not a length of whole seconds, at least one' else 'is missing' end,
        'Write {"every": "15 minutes"} or {"seconds": 900}; months have no fixed length, use monthly for them'
      );
    end if;
    return;
  end if;

  if p_config ? 'every' and coalesce(p_config ->> 'every' !~ '^[1-9]\d{0,3}$', true) then
    return query values (
      'recurrence_config.every',
      format('%s is not a whole number from 1 to 9999', quote_literal(p_config ->> 'every')),
      'Write 2 for every other day, week or month; for a length of time use the recurrence type interval'
    );
  end if;
end;
$$;

comment on function fleet.config_every_problems(text, jsonb) is
  'Says what is wrong with every and with the length of an interval.';
revoke all on function fleet.config_every_problems(text, jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.config_every_problems(text, jsonb) to authenticated, service_role;

create or replace function fleet.config_cron_problems(p_type text, p_config jsonb)
returns setof fleet.problem
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_cron record;
  v_found fleet.problem;
begin
  v_found.field := 'recurrence_config.cron_expression';

  if p_type is distinct from 'cron' then
    return;
  elsif jsonb_typeof(p_config -> 'cron_expression') is distinct from 'string' then
    v_found.problem := case when p_config ? 'cron_expression' then 'is not a text' else 'is missing' end;
    v_found.hint := 'Write minute, hour, day of month, month and day of week, such as 30 2 * * 1-5';
    return next v_found;
    return;
  end if;

  v_cron := fleet.parse_cron(p_config ->> 'cron_expression');
  v_found.problem := v_cron.problem;
  v_found.hint := v_cron.hint;

  -- A plain day up to the 28th comes every month, on every weekday in time.
  if v_found.problem is null and not (v_cron.month_days[1] <= 28 and v_cron.weekdays[1] <= 7) and not fleet.has_cron_day(
    fleet.month_day_mask(v_cron.month_days, v_cron.weekdays, v_cron.both_days), v_cron.months
  ) then
    v_found.problem := 'no day ever matches the day-of-month, month and day-of-week fields';
    v_found.hint := 'Choose a day that exists in one of the months, or L for the last day';
  end if;

  if v_found.problem is not null then
    return next v_found;
  end if;
end;
$$;

comment on function fleet.config_cron_problems(text, jsonb) is 'Says what is wrong with a cron expression.';
revoke all on function fleet.config_cron_problems(text, jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.config_cron_problems(text, jsonb) to authenticated, service_role;

create or replace function fleet.has_cron_day(p_mask text, p_months integer[])
returns boolean
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select 1
    from unnest(p_months) as m (month)
    cross join lateral generate_series(
      case when m.month = 2 then 28 else (array[31, 0, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])[m.month] end,
      case when m.month = 2 then 29 else (array[31, 0, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])[m.month] end
    ) as l (length)
    cross join generate_series(0, 6) as w
    where strpos(
      substr(
        p_mask,
        case length(p_mask)
          when 31 then 1
          when 124 then (l.length - 28) * 31 + 1
          else (w * 4 + l.length - 28) * 31 + 1
        end,
        l.length
      ),
      '1'
    ) > 0
  )
$$;

comment on function fleet.has_cron_day(text, integer[]) is
  'Whether a mask of month days has a day in any of the months, in some year.';
revoke all on function fleet.has_cron_day(text, integer[]) from public, anon, authenticated, service_role;
grant execute on function fleet.has_cron_day(text, integer[]) to authenticated, service_role;
