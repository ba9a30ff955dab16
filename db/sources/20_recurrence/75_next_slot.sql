-- The next day and time that a compiled calendar recurrence names, in local time. The first three, and the two that call them
-- for each occurrence, have no settings, whose change would cost as much as all that they do; so every name is qualified.

create or replace function fleet.next_slot(p_recurrence jsonb, p_from bigint)
returns bigint
language plpgsql
immutable
strict
parallel safe
as $$
declare
  v_today integer := (p_from / 86400)::integer;
  v_day   integer := fleet.next_matching_day(p_recurrence, v_today);
  v_time  integer;
begin
  if p_recurrence ? 'dates' then
    return fleet.next_dated_slot(p_recurrence, p_from);
  elsif v_day = v_today then
    v_time := fleet.next_time_of_day(p_recurrence, (p_from % 86400)::integer);
    if v_time is null then
      v_day := fleet.next_matching_day(p_recurrence, v_today + 1);
    end if;
  end if;

  return v_day * 86400::bigint + coalesce(v_time, fleet.next_time_of_day(p_recurrence, 0));
end;
$$;

comment on function fleet.next_slot(jsonb, bigint) is
  'The first local second from p_from on that a compiled calendar recurrence names; null when there is '
  'none within decades.';
revoke all on function fleet.next_slot(jsonb, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.next_slot(jsonb, bigint) to authenticated, service_role;

create or replace function fleet.next_time_of_day(p_recurrence jsonb, p_from integer)
returns integer
language plpgsql
immutable
strict
parallel safe
as $$
declare
  v_times   jsonb := p_recurrence -> 'times';
  v_hours   text;
  v_minutes text;
  v_seconds text;
  v_time    integer;
  v_hour    integer := p_from / 3600;
  v_minute  integer := p_from / 60 % 60;
  v_second  integer := p_from % 60;
begin
  if v_times is not null then
    for v_index in 0..pg_catalog.jsonb_array_length(v_times) - 1 loop
      v_time := (v_times -> v_index)::integer;
      if v_time >= p_from then
        return v_time;
      end if;
    end loop;
    return null;
  end if;

  v_hours := p_recurrence ->> 'hours';
  v_minutes := p_recurrence ->> 'minutes';
  v_seconds := p_recurrence ->> 'seconds';

  -- As a clock is read: the first second that fits, else the next minute, else the next hour.
  if pg_catalog.substr(v_hours, v_hour + 1, 1) = '1' then
    if pg_catalog.substr(v_minutes, v_minute + 1, 1) = '1' then
      v_time := pg_catalog.strpos(pg_catalog.substr(v_seconds, v_second + 1), '1');
      if v_time > 0 then
        return p_from + v_time - 1;
      end if;
    end if;

    v_time := pg_catalog.strpos(pg_catalog.substr(v_minutes, v_minute + 2), '1');
    if v_time > 0 then
      return v_hour * 3600 + (v_minute + v_time) * 60 + pg_catalog.strpos(v_seconds, '1') - 1;
    end if;
  end if;

  v_time := pg_catalog.strpos(pg_catalog.substr(v_hours, v_hour + 2), '1');
  if v_time > 0 then
    return (v_hour + v_time) * 3600 + (pg_catalog.strpos(v_minutes, '1') - 1) * 60 + pg_catalog.strpos(v_seconds, '1') - 1;
  end if;
  return null;
end;
$$;

comment on function fleet.next_time_of_day(jsonb, integer) is
  'The first second of the day from p_from on at which a compiled calendar recurrence runs; null when '
  'that day has none left.';
revoke all on function fleet.next_time_of_day(jsonb, integer) from public, anon, authenticated, service_role;
grant execute on function fleet.next_time_of_day(jsonb, integer) to authenticated, service_role;

create or replace function fleet.next_matching_day(p_recurrence jsonb, p_day integer)
returns integer
language plpgsql
immutable
strict
parallel safe
as $$
declare
  v_rule   text := p_recurrence ->> 'day_rule';
  v_every  integer := (p_recurrence ->> 'every')::integer;
  v_anchor integer;
  v_flags  text;
  v_ahead  integer;
  v_week   integer;
begin
  if v_rule = 'month_days' then
    return fleet.next_month_day(p_recurrence, p_day);
  elsif v_every > 1 then
    v_anchor := (p_recurrence ->> 'anchor')::integer;
  end if;

  if v_rule = 'every' then
    if v_every = 1 then
      return p_day;
    end if;
    return p_day + ((v_anchor - p_day) % v_every + v_every) % v_every;
  end if;

  v_flags := p_recurrence ->> 'weekdays';
  if v_every = 1 then
    return p_day + pg_catalog.strpos(pg_catalog.substr(v_flags || v_flags, p_day % 7 + 1), '1') - 1;
  end if;

  -- The rest of this week if it is one that counts, else the first day of the next that does.
  v_week := p_day / 7;
  if (v_week - v_anchor) % v_every = 0 then
    v_ahead := pg_catalog.strpos(pg_catalog.substr(v_flags, p_day % 7 + 1), '1');
    if v_ahead > 0 then
      return p_day + v_ahead - 1;
    end if;
    v_week := v_week + 1;
  end if;
  v_week := v_week + ((v_anchor - v_week) % v_every + v_every) % v_every;
  return v_week * 7 + pg_catalog.strpos(v_flags, '1') - 1;
end;
$$;

comment on function fleet.next_matching_day(jsonb, integer) is
  'The first day number from p_day on whose day a compiled calendar recurrence names; null when there is '
  'none within decades.';
revoke all on function fleet.next_matching_day(jsonb, integer) from public, anon, authenticated, service_role;
grant execute on function fleet.next_matching_day(jsonb, integer) to authenticated, service_role;

create or replace function fleet.next_month_day(p_recurrence jsonb, p_day integer)
returns integer
language plpgsql
immutable
strict
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_months text := p_recurrence ->> 'months';
  v_mask   text := p_recurrence ->> 'month_days';
  v_every  integer := (p_recurrence ->> 'every')::integer;
  v_anchor integer := (p_recurrence ->> 'anchor')::integer;
  v_month  integer := fleet.month_of_day(p_day);
  v_from   integer := p_day;
  v_first  integer;
  v_length integer;
  v_flags  text;
  v_index  integer;
begin
  -- 51 years of months: a leap day on a chosen weekday can be 40 years away.
  for v_try in 1..612 loop
    if (v_month - v_anchor) % v_every <> 0 then
      v_month := v_month + ((v_anchor - v_month) % v_every + v_every) % v_every;
    elsif substr(v_months, v_month % 12 + 1, 1) = '0' then
      v_month := v_month + strpos(substr(v_months || v_months, v_month % 12 + 2), '1');
    else
      -- Step by step: Postgres puts a function's body in place only where its arguments are this simple.
      v_first := fleet.month_start(v_month);
      v_length := fleet.month_start(v_month + 1) - v_first;
      v_from := greatest(v_from, v_first);
      v_flags := fleet.month_flags(v_mask, v_first, v_length);
      v_index := strpos(substr(v_flags, v_from - v_first + 1), '1');
      if v_index > 0 then
        return v_from + v_index - 1;
      end if;
      v_month := v_month + v_every;
    end if;
  end loop;
  return null;
end;
$$;

comment on function fleet.next_month_day(jsonb, integer) is
  'The first day number from p_day on that a mask of month days names; null when there is none within 51 '
  'years.';
revoke all on function fleet.next_month_day(jsonb, integer) from public, anon, authenticated, service_role;
grant execute on function fleet.next_month_day(jsonb, integer) to authenticated, service_role;
