-- Generated from db/sources/20_recurrence by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/20_recurrence/10_zones.sql
-- Local time as plain numbers. A "local second" is a wall-clock reading counted in seconds since 0001-01-01 00:00,
-- which was a Monday: day = second / 86400, weekday = day % 7, and both stay positive for every date in use.

create or replace function fleet.utc_offset(p_timezone text, p_epoch bigint)
returns bigint
language sql
immutable
parallel safe
-- The last day of Postgres' time has no local time in the east: there the day before tells.
return date_part('epoch', to_timestamp(least(p_epoch, 9224231615999)) at time zone p_timezone)::bigint - least(p_epoch, 9224231615999);

comment on function fleet.utc_offset(text, bigint) is
  'Seconds by which the clocks of the zone are ahead of UTC at this Unix second.';
revoke all on function fleet.utc_offset(text, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.utc_offset(text, bigint) to authenticated, service_role;

create or replace function fleet.zone_transitions(p_timezone text, p_from bigint, p_to bigint)
returns table (changed_at bigint, offset_before bigint, offset_after bigint)
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  -- No zone has changed its clocks twice within three days since there are time zones.
  c_step   constant bigint := 3::bigint * 86400;
  v_known  bigint := p_from;
  v_probe  bigint;
  v_low    bigint;
  v_high   bigint;
  v_middle bigint;
begin
  offset_before := fleet.utc_offset(p_timezone, p_from);

  while v_known < p_to loop
    v_probe := least(v_known + c_step, p_to);
    offset_after := fleet.utc_offset(p_timezone, v_probe);

    if offset_after <> offset_before then
      v_low := v_known;
      v_high := v_probe;
      while v_high - v_low > 1 loop
        v_middle := (v_low + v_high) / 2;
        if fleet.utc_offset(p_timezone, v_middle) = offset_before then
          v_low := v_middle;
        else
          v_high := v_middle;
        end if;
      end loop;

      changed_at := v_high;
      return next;
      offset_before := offset_after;
    end if;

    v_known := v_probe;
  end loop;
end;
$$;

comment on function fleet.zone_transitions(text, bigint, bigint) is
  'Every change of the zone''s clocks after p_from and up to p_to, both in Unix seconds, oldest first.';
revoke all on function fleet.zone_transitions(text, bigint, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.zone_transitions(text, bigint, bigint) to authenticated, service_role;

create or replace function fleet.zone_clock(p_timezone text)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_alias text;
begin
  -- Postgres reads these four names as abbreviations with one fixed offset. Where the server has the zones of the same
  -- name under posix/ those are exact, elsewhere a city is that has kept the same rules since the seventies.
  if p_timezone in ('CET', 'EET', 'MET', 'WET') then
    return fleet.existing_zone('posix/' || p_timezone, case p_timezone
      when 'EET' then 'Europe/Athens'
      when 'WET' then 'Europe/Lisbon'
      else 'Europe/Brussels'
    end);
  end if;
  -- Old names are in a package of their own on some systems: there the new one has the clock.
  v_alias := fleet.zone_aliases() ->> p_timezone;
  if v_alias is null then
    return p_timezone;
  end if;
  return fleet.existing_zone(p_timezone, v_alias);
end;
$$;

comment on function fleet.zone_clock(text) is
  'The name by which Postgres finds the clock of an IANA zone: the zone''s own name, but for four old ones and for '
  'names that this server has only under another.';
revoke all on function fleet.zone_clock(text) from public, anon, authenticated, service_role;
grant execute on function fleet.zone_clock(text) to authenticated, service_role;

create or replace function fleet.existing_zone(p_first text, p_second text)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform timestamptz 'epoch' at time zone p_first;
  return p_first;
exception
  when invalid_parameter_value then
    return p_second;
end;
$$;

comment on function fleet.existing_zone(text, text) is
  'The first of two zones if this server has it, else the second.';
revoke all on function fleet.existing_zone(text, text) from public, anon, authenticated, service_role;
grant execute on function fleet.existing_zone(text, text) to authenticated, service_role;

create or replace function fleet.wall_instants(p_local timestamp, p_clock text)
returns table (first_at timestamptz, last_at timestamptz)
language sql
immutable
parallel safe
begin atomic
  -- An hour that the clocks repeat has two instants, one that they skip has none: then the change itself is meant. A zone
  -- that has changed its clocks within 26 hours has had another offset before or has another one after.
  select
    case
      when c.before_at = c.after_at then c.before_at
      when (c.before_at at time zone p_clock) = p_local then c.before_at
      when (c.after_at at time zone p_clock) = p_local then c.after_at
      else c.changed_at
    end,
    case
      when c.before_at = c.after_at then c.before_at
      when (c.after_at at time zone p_clock) = p_local then c.after_at
      when (c.before_at at time zone p_clock) = p_local then c.before_at
      else c.changed_at
    end
  from (
    select o.before_at, o.after_at,
      case
        when o.before_at <> o.after_at
          and (o.before_at at time zone p_clock) <> p_local
          and (o.after_at at time zone p_clock) <> p_local
          then (
            select to_timestamp(t.changed_at)
            from fleet.zone_transitions(
              p_clock, date_part('epoch', o.plain_at)::bigint - 93600, date_part('epoch', o.plain_at)::bigint + 93600
            ) as t
            limit 1
          )
      end as changed_at
    from (
      select x.plain_at,
        (p_local - ((x.plain_at - interval '26 hours') at time zone p_clock - (x.plain_at - interval '26 hours') at time zone 'UTC'))
          at time zone 'UTC' as before_at,
        (p_local - ((x.plain_at + interval '26 hours') at time zone p_clock - (x.plain_at + interval '26 hours') at time zone 'UTC'))
          at time zone 'UTC' as after_at
      from (select p_local at time zone p_clock as plain_at offset 0) as x
      -- Worked out once: without the fence each use would be a copy.
      offset 0
    ) as o
  ) as c;
end;

comment on function fleet.wall_instants(timestamp, text) is
  'The first and the last instant at which the clocks of a zone show a time: two where they repeat it; where they skip it, the first '
  'instant after, twice. The zone by fleet.zone_clock.';
revoke all on function fleet.wall_instants(timestamp, text) from public, anon, authenticated, service_role;
grant execute on function fleet.wall_instants(timestamp, text) to authenticated, service_role;

create or replace function fleet.local_to_instant(p_local timestamp, p_timezone text)
returns timestamptz
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_timezone = 'UTC' then
    return p_local at time zone 'UTC';
  end if;
  -- The plain conversion reads a skipped time with the offset before the change and a repeated one with the offset after it;
  -- here, as in every recurrence by default, a skipped time is the first instant after, a repeated one the first.
  return (select w.first_at from fleet.wall_instants(p_local, fleet.zone_clock(p_timezone)) as w);
end;
$$;

comment on function fleet.local_to_instant(timestamp, text) is
  'The instant of a local time: a repeated one is its first, a skipped one is the first instant after the '
  'gap.';
revoke all on function fleet.local_to_instant(timestamp, text) from public, anon, authenticated, service_role;
grant execute on function fleet.local_to_instant(timestamp, text) to authenticated, service_role;

-- db/sources/20_recurrence/12_server_zones.sql
-- Zones that come and go: which of them this server has at this moment.

create or replace function fleet.zones_of_server(p_zones text[])
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_zone text;
  v_here text[] := '{}';
begin
  begin
    perform max(timestamptz 'epoch' at time zone u.zone) from unnest(p_zones) as u(zone);
    return p_zones;
  exception
    when invalid_parameter_value then
      -- One of them is gone. Which of them is found out one by one, and fleet_status() names it.
      v_here := '{}';
  end;
  foreach v_zone in array p_zones loop
    begin
      perform timestamptz 'epoch' at time zone fleet.zone_clock(v_zone);
      v_here := v_here || v_zone;
    exception
      when invalid_parameter_value then
        continue;
    end;
  end loop;
  return v_here;
end;
$$;

comment on function fleet.zones_of_server(text[]) is
  'Those of these zones whose clocks this server can tell, by their name or by another one; the others are left out, and named by '
  'fleet.lost_zones().';
revoke all on function fleet.zones_of_server(text[]) from public, anon, authenticated, service_role;

create or replace function fleet.zone_rules(p_zone text, p_now timestamptz)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_from timestamptz := date_trunc('year', p_now at time zone 'UTC') at time zone 'UTC';
begin
  return (
    select to_char(v_from at time zone 'UTC', 'YYYY') || ':' || md5(concat(
      fleet.utc_offset(c.clock, date_part('epoch', v_from)::bigint),
      (
        select string_agg(t.changed_at || '>' || t.offset_after, ',' order by t.changed_at)
        from fleet.zone_transitions(
          c.clock, date_part('epoch', v_from)::bigint, date_part('epoch', v_from + interval '3 years')::bigint
        ) as t
      )
    ))
    from (select fleet.zone_clock(p_zone) as clock) as c
  );
exception
  when invalid_parameter_value then
    -- Not here: fleet.lost_zones() names it.
    return null;
end;
$$;

comment on function fleet.zone_rules(text, timestamptz) is
  'The changes of a zone''s clocks in this year and the next two, as a digest that begins with the year; null where the server does not '
  'have the zone.';
revoke all on function fleet.zone_rules(text, timestamptz) from public, anon, authenticated, service_role;

-- db/sources/20_recurrence/15_instants.sql
-- Instants as plain numbers and back, to the microsecond; dates and times as people write them, read without raising.

create or replace function fleet.epoch_of(p_instant timestamptz)
returns bigint
language sql
immutable
parallel safe
-- A double holds microseconds only until 2255, whole seconds as long as there is time.
return date_part('epoch', date_trunc('second', p_instant at time zone 'UTC'))::bigint;

comment on function fleet.epoch_of(timestamptz) is 'The Unix second that an instant lies in.';
revoke all on function fleet.epoch_of(timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.epoch_of(timestamptz) to authenticated, service_role;

create or replace function fleet.epoch_from(p_instant timestamptz)
returns bigint
language sql
immutable
parallel safe
return fleet.epoch_of(p_instant) + case when p_instant at time zone 'UTC' > date_trunc('second', p_instant at time zone 'UTC') then 1 else 0 end;

comment on function fleet.epoch_from(timestamptz) is 'The first Unix second that begins at an instant or after it.';
revoke all on function fleet.epoch_from(timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.epoch_from(timestamptz) to authenticated, service_role;

create or replace function fleet.instant_of(p_epoch bigint)
returns timestamptz
language sql
immutable
parallel safe
return case
  when p_epoch < 100000000000 then to_timestamp(p_epoch)
  when p_epoch <= 9224318015999 then
    (timestamp 'epoch' + make_interval(days => (p_epoch / 86400)::integer, secs => p_epoch % 86400)) at time zone 'UTC'
end;

comment on function fleet.instant_of(bigint) is 'The instant at which a Unix second begins; null beyond the end of time.';
revoke all on function fleet.instant_of(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.instant_of(bigint) to authenticated, service_role;

create or replace function fleet.just_after(p_instant timestamptz)
returns timestamptz
language sql
stable
parallel safe
return case
  when p_instant < '294276-12-31 23:59:59.999999+00' then p_instant + interval '1 microsecond' else p_instant
end;

comment on function fleet.just_after(timestamptz) is 'The next instant that Postgres knows.';
revoke all on function fleet.just_after(timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.just_after(timestamptz) to authenticated, service_role;

create or replace function fleet.try_instant(p_text text, p_timezone text)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- 'now', 'tomorrow' and their kin are words of Postgres, not times; and the name of a zone behind a time would be ignored.
  if p_text !~ '^\s*\d{4,6}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?)?\s*(Z|z|[+-]\d{2}(:?\d{2})?)?\s*$' then
    return null;
  elsif p_text ~ '(Z|z|[+-]\d{2}(:?\d{2})?)\s*$' and p_text ~ '\d:\d' then
    return p_text::timestamptz;
  end if;
  return fleet.local_to_instant(p_text::timestamp, p_timezone);
exception
  when invalid_datetime_format or datetime_field_overflow or invalid_parameter_value then
    return null;
end;
$$;

comment on function fleet.try_instant(text, text) is
  'A time as JSON has it: with an offset as it stands, without one local to the zone. Null where it is no time.';
revoke all on function fleet.try_instant(text, text) from public, anon, authenticated, service_role;

create or replace function fleet.try_exact_instant(p_text text)
returns timestamptz
language sql
stable
return case when p_text ~ '\d:\d.*(Z|z|[+-]\d{2}(:?\d{2})?)$' then fleet.try_instant(p_text, 'UTC') end;

comment on function fleet.try_exact_instant(text) is 'The text as an instant; null where it is none, or says no offset.';
revoke all on function fleet.try_exact_instant(text) from public, anon, authenticated, service_role;

create or replace function fleet.told_instant(p_value jsonb)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return case jsonb_typeof(p_value)
    when 'string' then fleet.try_exact_instant(p_value #>> '{}')
    -- Seconds since 1970, or thousandths of them, which for a time of our days have three digits more.
    when 'number' then case
      when (p_value #>> '{}')::numeric between 1e8 and 1e11 then to_timestamp(((p_value #>> '{}')::numeric)::double precision)
      when (p_value #>> '{}')::numeric between 1e11 and 1e14 then to_timestamp(((p_value #>> '{}')::numeric / 1000)::double precision)
    end
  end;
end;
$$;

comment on function fleet.told_instant(jsonb) is
  'The instant of a JSON value: a text with an offset, or a number of seconds or milliseconds since 1970; null where it is none.';
revoke all on function fleet.told_instant(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.try_date(p_text text)
returns date
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case when p_text ~ '^\d{4,6}-\d{2}-\d{2}$' then (fleet.try_instant(p_text, 'UTC') at time zone 'UTC')::date end
$$;

comment on function fleet.try_date(text) is 'The text as a date; null where it is none.';
revoke all on function fleet.try_date(text) from public, anon, authenticated, service_role;

create or replace function fleet.is_wall_time(p_text text)
returns boolean
language sql
immutable
parallel safe
return p_text !~ '(Z|z|[+-]\d{2}(:?\d{2})?)\s*$' or p_text !~ '\d:\d';

comment on function fleet.is_wall_time(text) is
  'Whether a time as JSON has it says no offset, and so is a reading of some wall; null where there is none.';
revoke all on function fleet.is_wall_time(text) from public, anon, authenticated, service_role;

-- db/sources/20_recurrence/20_cron_fields.sql
-- One field of a cron expression. Numbers stand for themselves; what cannot be a plain number is coded above them.
-- Day of month: 100 = L, 100 + n = L-n, 200 = LW, 200 + n = nW. Day of week: 10 * n + k = n#k (n from 1 to 7),
-- 90 + n = nL. Fields are numbered 0 second, 1 minute, 2 hour, 3 day of month, 4 month, 5 day of week.

create or replace function fleet.cron_integer(p_text text)
returns integer
language sql
immutable
parallel safe
-- Capped, so that a step of any length is a step beyond the end.
return case
  when p_text ~ '^0*[0-9]{1,9}$' then right(p_text, 9)::integer
  when p_text ~ '^[0-9]+$' then 999999999
end;

comment on function fleet.cron_integer(text) is
  'Digits as a number; null for anything else. Numbers beyond nine digits stay large and fit no field.';
revoke all on function fleet.cron_integer(text) from public, anon, authenticated, service_role;
grant execute on function fleet.cron_integer(text) to authenticated, service_role;

create or replace function fleet.cron_number(p_field integer, p_text text)
returns integer
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_number integer := coalesce(
    case p_field
      when 4 then array_position('{JAN,FEB,MAR,APR,MAY,JUN,JUL,AUG,SEP,OCT,NOV,DEC}'::text[], p_text)
      when 5 then array_position('{SUN,MON,TUE,WED,THU,FRI,SAT}'::text[], p_text) - 1
    end,
    fleet.cron_integer(p_text)
  );
begin
  return case
    when v_number between (array[0, 0, 0, 1, 1, 0])[p_field + 1] and (array[59, 59, 23, 31, 12, 7])[p_field + 1] then v_number
  end;
end;
$$;

comment on function fleet.cron_number(integer, text) is
  'A number or name of a cron field; null where it is none or lies outside the field.';
revoke all on function fleet.cron_number(integer, text) from public, anon, authenticated, service_role;
grant execute on function fleet.cron_number(integer, text) to authenticated, service_role;

create or replace function fleet.cron_field_values(p_field integer, p_text text)
returns integer[]
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_term   text;
  v_values integer[];
  v_all    integer[] := array[]::integer[];
begin
  foreach v_term in array string_to_array(p_text, ',') loop
    v_values := fleet.cron_term_values(p_field, v_term);
    if v_values is null then
      return null;
    end if;
    v_all := v_all || v_values;
  end loop;

  return array(select distinct v from unnest(v_all) as v order by v);
end;
$$;

comment on function fleet.cron_field_values(integer, text) is
  'The sorted values that one cron field allows; null where the field is not valid.';
revoke all on function fleet.cron_field_values(integer, text) from public, anon, authenticated, service_role;
grant execute on function fleet.cron_field_values(integer, text) to authenticated, service_role;

create or replace function fleet.cron_term_values(p_field integer, p_term text)
returns integer[]
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_lowest  constant integer := (array[0, 0, 0, 1, 1, 0])[p_field + 1];
  v_highest constant integer := (array[59, 59, 23, 31, 12, 7])[p_field + 1];
  v_first   integer;
  v_last    integer;
begin
  if p_term = '*' then
    return array(select generate_series(v_lowest, v_highest));
  elsif strpos(p_term, '/') > 0 then
    return fleet.cron_stepped_values(p_field, p_term);
  elsif p_field = 3 and strpos(p_term, 'L') + strpos(p_term, 'W') > 0 then
    return fleet.cron_special_day(p_term);
  elsif p_field = 5 and p_term ~ '(L$|#)' then
    return fleet.cron_special_weekday(p_term);
  elsif strpos(p_term, '-') > 0 then
    v_first := fleet.cron_number(p_field, split_part(p_term, '-', 1));
    v_last := fleet.cron_number(p_field, substr(p_term, strpos(p_term, '-') + 1));
    if v_first <= v_last then
      return array(select generate_series(v_first, v_last));
    elsif p_field = 5 and v_first > v_last then
      -- A week goes on: sat-mon is 6, 0 and 1.
      return array(select generate_series(v_first, 6)) || array(select generate_series(0, v_last));
    end if;
    return null;
  end if;

  v_first := fleet.cron_number(p_field, p_term);
  return case when v_first is not null then array[v_first] end;
end;
$$;

comment on function fleet.cron_term_values(integer, text) is
  'The values of one comma-free term of a cron field; null where it is not valid.';
revoke all on function fleet.cron_term_values(integer, text) from public, anon, authenticated, service_role;
grant execute on function fleet.cron_term_values(integer, text) to authenticated, service_role;

create or replace function fleet.cron_stepped_values(p_field integer, p_term text)
returns integer[]
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_highest constant integer := (array[59, 59, 23, 31, 12, 7])[p_field + 1];
  v_base    text := split_part(p_term, '/', 1);
  v_step    integer := fleet.cron_integer(substr(p_term, strpos(p_term, '/') + 1));
  v_values  integer[];
begin
  if v_step is null or v_step = 0 or (p_field = 5 and v_base ~ '[L#]') then
    return null;
  end if;

  v_values := fleet.cron_term_values(p_field, v_base);
  if v_values is null or v_values && array[100, 200] then
    -- The last day is one day whatever the step.
    return v_values;
  elsif v_values[1] > 99 then
    return null;
  elsif cardinality(v_values) = 1 then
    v_values := array(select generate_series(v_values[1], v_highest));
  end if;

  return array(
    select v.value from unnest(v_values) with ordinality as v (value, nr)
    where (v.nr - 1) % v_step = 0
  );
end;
$$;

comment on function fleet.cron_stepped_values(integer, text) is
  'The values of a term with a step: every step-th of a range or of *, or from one number to the end of '
  'the field.';
revoke all on function fleet.cron_stepped_values(integer, text) from public, anon, authenticated, service_role;
grant execute on function fleet.cron_stepped_values(integer, text) to authenticated, service_role;

create or replace function fleet.cron_special_day(p_term text)
returns integer[]
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_number integer;
begin
  if p_term = 'L' then
    return array[100];
  elsif p_term = 'LW' then
    return array[200];
  elsif p_term ~ '^L-[0-9]+$' then
    v_number := fleet.cron_integer(substr(p_term, 3));
    return case when v_number between 1 and 30 then array[100 + v_number] end;
  elsif p_term ~ '^[0-9]+W$' then
    v_number := fleet.cron_number(3, rtrim(p_term, 'W'));
    return case when v_number is not null then array[200 + v_number] end;
  end if;
  return null;
end;
$$;

comment on function fleet.cron_special_day(text) is
  'The code of L, L-n, LW or nW in the day-of-month field; null for anything else.';
revoke all on function fleet.cron_special_day(text) from public, anon, authenticated, service_role;
grant execute on function fleet.cron_special_day(text) to authenticated, service_role;

create or replace function fleet.cron_special_weekday(p_term text)
returns integer[]
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_weekday integer;
  v_nth     integer;
begin
  if strpos(p_term, '#') > 0 then
    v_weekday := fleet.cron_number(5, split_part(p_term, '#', 1));
    v_nth := fleet.cron_integer(substr(p_term, strpos(p_term, '#') + 1));
    -- Sunday is 7 here: 0#1 would be coded as a plain 1.
    return case
      when v_nth between 1 and 5 and v_weekday is not null
        then array[10 * coalesce(nullif(v_weekday, 0), 7) + v_nth]
    end;
  elsif right(p_term, 1) = 'L' then
    v_weekday := fleet.cron_number(5, left(p_term, -1));
    return case when v_weekday is not null then array[90 + coalesce(nullif(v_weekday, 0), 7)] end;
  end if;
  return null;
end;
$$;

comment on function fleet.cron_special_weekday(text) is
  'The code of n#k or nL in the day-of-week field; null for anything else.';
revoke all on function fleet.cron_special_weekday(text) from public, anon, authenticated, service_role;
grant execute on function fleet.cron_special_weekday(text) to authenticated, service_role;

-- db/sources/20_recurrence/30_cron_expression.sql
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

-- db/sources/20_recurrence/40_problems.sql
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

-- db/sources/20_recurrence/45_config_problems.sql
-- The keys of a recurrence configuration, one check per topic. Each reads settings without nulls.

create or replace function fleet.config_key_problems(p_config jsonb)
returns setof fleet.problem
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select
    'recurrence_config.' || k.name,
    'is not known',
    'Known are type, time, times, every, seconds, minutes, hours, days, weeks, days_of_week, day_of_month, week, '
      || 'day_of_week, cron_expression, except, also and end_date'
  from jsonb_object_keys(p_config) as k (name)
  where k.name <> all (array[
    'type', 'time', 'times', 'every', 'seconds', 'minutes', 'hours', 'days', 'weeks', 'days_of_week',
    'day_of_month', 'week', 'day_of_week', 'cron_expression', 'except', 'also', 'end_date'
  ])
  order by k.name;
end;
$$;

comment on function fleet.config_key_problems(jsonb) is 'Names the keys that no recurrence has.';
revoke all on function fleet.config_key_problems(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.config_key_problems(jsonb) to authenticated, service_role;

create or replace function fleet.second_of_day(p_text text)
returns integer
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return case
    when p_text ~ '^\s*([01]?\d|2[0-3]):[0-5]\d(:[0-5]\d(\.0+)?)?\s*$'
      then split_part(btrim(p_text), ':', 1)::integer * 3600
        + split_part(btrim(p_text), ':', 2)::integer * 60
        + coalesce(nullif(split_part(split_part(btrim(p_text), ':', 3), '.', 1), ''), '0')::integer
  end;
end;
$$;

comment on function fleet.second_of_day(text) is
  'HH:MM or HH:MM:SS as seconds past midnight; null where it is neither.';
revoke all on function fleet.second_of_day(text) from public, anon, authenticated, service_role;
grant execute on function fleet.second_of_day(text) to authenticated, service_role;

create or replace function fleet.weekday_number(p_value jsonb)
returns integer
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select case
      when p_value #>> '{}' ~ '^[0-6]$' then (p_value #>> '{}')::integer
      when jsonb_typeof(p_value) = 'string' and length(p_value #>> '{}') >= 3 then (
        select d.number - 1
        from unnest('{monday,tuesday,wednesday,thursday,friday,saturday,sunday}'::text[])
          with ordinality as d (name, number)
        where starts_with(d.name, lower(p_value #>> '{}'))
      )::integer
    end
  );
end;
$$;

comment on function fleet.weekday_number(jsonb) is
  'A weekday as 0 (Monday) to 6 (Sunday), from such a number or an English name; null where it is none.';
revoke all on function fleet.weekday_number(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.weekday_number(jsonb) to authenticated, service_role;

create or replace function fleet.month_day_number(p_value jsonb)
returns integer
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_value #>> '{}' in ('last', '-1') then 100
    when p_value #>> '{}' ~ '^([1-9]|[12]\d|3[01])$' then (p_value #>> '{}')::integer
  end
$$;

comment on function fleet.month_day_number(jsonb) is
  'A day of the month, 100 for the last one ("last" or -1); null where it is none.';
revoke all on function fleet.month_day_number(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.month_day_number(jsonb) to authenticated, service_role;

create or replace function fleet.week_of_month(p_value jsonb)
returns integer
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_value #>> '{}' in ('last', '-1') then -1
    when p_value #>> '{}' ~ '^[1-5]$' then (p_value #>> '{}')::integer
  end
$$;

comment on function fleet.week_of_month(jsonb) is '1 to 5, or -1 for the last; null where it is neither.';
revoke all on function fleet.week_of_month(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.week_of_month(jsonb) to authenticated, service_role;

create or replace function fleet.config_time_problems(p_config jsonb)
returns setof fleet.problem
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select
    'recurrence_config.' || k.name,
    format('%s is not a time of day', coalesce(quote_literal(t.value #>> '{}'), 'null')),
    'Write HH:MM or HH:MM:SS, from 00:00 to 23:59:59'
  from (values ('time'), ('times')) as k (name)
  cross join lateral fleet.as_list(p_config -> k.name) as t (value)
  where jsonb_typeof(t.value) <> 'string'
    or fleet.second_of_day(t.value #>> '{}') is null

  union all

  select 'recurrence_config.times', 'is empty', 'Name at least one time, or leave it out'
  where p_config -> 'times' = '[]'

  union all

  select
    'recurrence_config.times',
    'stands beside time',
    'Use time for one time of day or times for several, not both'
  where p_config ?& '{time,times}';
end;
$$;

comment on function fleet.config_time_problems(jsonb) is 'Says what is wrong with time and times.';
revoke all on function fleet.config_time_problems(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.config_time_problems(jsonb) to authenticated, service_role;

create or replace function fleet.config_day_problems(p_config jsonb)
returns setof fleet.problem
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select
    'recurrence_config.' || k.name,
    format('%s is not a weekday', coalesce(quote_literal(d.value #>> '{}'), 'null')),
    'Weekdays are numbers from 0 (Monday) to 6 (Sunday), or English names'
  from (values ('days_of_week'), ('day_of_week')) as k (name)
  cross join lateral fleet.as_list(p_config -> k.name) as d (value)
  where fleet.weekday_number(d.value) is null

  union all

  select
    'recurrence_config.day_of_month',
    format('%s is not a day of the month', coalesce(quote_literal(d.value #>> '{}'), 'null')),
    'Use 1 to 31, or "last" (also -1) for the last day'
  from fleet.as_list(p_config -> 'day_of_month') as d (value)
  where fleet.month_day_number(d.value) is null

  union all

  select 'recurrence_config.' || k.name, 'is empty', 'Name at least one day, or leave it out'
  from (values ('days_of_week'), ('day_of_week'), ('day_of_month')) as k (name)
  where p_config -> k.name = '[]'

  union all

  select
    'recurrence_config.week',
    format('%s is not a week of the month', quote_literal(p_config ->> 'week')),
    'Use 1 to 5, or -1 for the last'
  where p_config ? 'week' and fleet.week_of_month(p_config -> 'week') is null

  union all

  select
    'recurrence_config.day_of_week',
    'is missing',
    'Say which weekday of that week is meant, from 0 (Monday) to 6 (Sunday)'
  where p_config ? 'week' and not p_config ? 'day_of_week'

  union all

  select
    'recurrence_config.week', 'stands beside day_of_month', 'Use either day_of_month, or week with day_of_week'
  where p_config ?& '{week,day_of_month}';
end;
$$;

comment on function fleet.config_day_problems(jsonb) is
  'Says what is wrong with weekdays, days of the month and weeks.';
revoke all on function fleet.config_day_problems(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.config_day_problems(jsonb) to authenticated, service_role;

-- db/sources/20_recurrence/46_repetition_problems.sql
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

-- db/sources/20_recurrence/50_compile.sql
-- Compiling a recurrence once, when it is written, so that nothing is parsed when it is read.
--
-- Beside what was asked for (type, timezone, start, end, config, gap, fold) the compiled object holds
--   kind             once, interval or calendar
--   clock            the zone as Postgres must be told it (see fleet.zone_clock)
--   interval_seconds for an interval
--   day_rule         how the days of a calendar recurrence are found:
--                      every: each every-th day from day number anchor
--                      weekdays: seven flags from Monday, in each every-th week from week number anchor
--                      month_days: twelve flags in months, and a mask of days (see fleet.month_day_mask), in each
--                      every-th month from month number anchor (year * 12 + month - 1)
--   times            seconds past midnight, or the flags hours, minutes and seconds
--   microseconds     what a start that tells the time of day has beyond its second, where it has any
--   dates            where single dates are left out or added: except and also (local seconds), days (day numbers left out)
--   is_elapsed       true for a cron wildcard job, which follows elapsed time
--   resolve_gap, resolve_fold   the rules that apply; elapsed time skips gaps and knows both of two equal times

create or replace function fleet.compile_recurrence(
  p_type text,
  p_config jsonb,
  p_timezone text,
  p_start timestamptz,
  p_end timestamptz,
  p_gap text default 'first_instant',
  p_fold text default 'first'
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_type    text := fleet.recurrence_type(p_type);
  v_config  jsonb := fleet.recurrence_settings(p_config);
  v_problem record;
begin
  select p.field, p.problem, p.hint into v_problem
  from (
    select * from fleet.recurrence_problems(p_type, p_config, p_timezone)
    union all
    select * from fleet.bounds_problems(v_type, v_config, p_timezone, p_start, p_end)
    union all
    select * from fleet.rule_problems(p_gap, p_fold)
  ) as p
  limit 1;

  if found then
    raise exception '%: %', v_problem.field, v_problem.problem
      using errcode = 'PT422',
            detail = 'recurrence_invalid',
            hint = v_problem.hint;
  end if;

  return fleet.compiled_recurrence(p_type, p_config, p_timezone, p_start, p_end, p_gap, p_fold);
end;
$$;

comment on function fleet.compile_recurrence(text, jsonb, text, timestamptz, timestamptz, text, text) is
  'Validate a recurrence and compile it for next_occurrence and occurrences. Start and end are inclusive. '
  'Raises recurrence_invalid (PT422) with the first problem; recurrence_problems lists them all.';
revoke all on function fleet.compile_recurrence(text, jsonb, text, timestamptz, timestamptz, text, text)
  from public, anon, authenticated, service_role;
grant execute on function fleet.compile_recurrence(text, jsonb, text, timestamptz, timestamptz, text, text)
  to service_role;

create or replace function fleet.compiled_recurrence(
  p_type text,
  p_config jsonb,
  p_timezone text,
  p_start timestamptz,
  p_end timestamptz,
  p_gap text,
  p_fold text
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_type   text := fleet.recurrence_type(p_type);
  v_config jsonb := fleet.recurrence_settings(p_config);
  v_end    timestamptz := nullif(p_end, 'infinity');
begin
  if v_config ? 'end_date' then
    v_end := least(v_end, fleet.recurrence_end(v_config ->> 'end_date', p_timezone));
  end if;

  return jsonb_build_object(
    'type', v_type,
    'timezone', p_timezone,
    'clock', fleet.zone_clock(p_timezone),
    'start', fleet.instant_text(p_start),
    'end', fleet.instant_text(v_end),
    'config', v_config,
    'gap', p_gap,
    'fold', p_fold
  ) || case v_type
    when 'once' then '{"kind": "once"}'::jsonb
    when 'interval' then jsonb_build_object('kind', 'interval', 'interval_seconds', fleet.interval_seconds(v_config))
    when 'cron' then fleet.compiled_cron(v_config ->> 'cron_expression', p_gap, p_fold)
    else fleet.compiled_calendar(v_type, v_config, p_start at time zone fleet.zone_clock(p_timezone), p_gap, p_fold)
  end || case when v_config ?| '{except,also}' then fleet.compiled_dates(v_config) else '{}' end;
end;
$$;

comment on function fleet.compiled_recurrence(text, jsonb, text, timestamptz, timestamptz, text, text) is
  'What fleet.compile_recurrence answers, for a recurrence that has been validated.';
revoke all on function fleet.compiled_recurrence(text, jsonb, text, timestamptz, timestamptz, text, text)
  from public, anon, authenticated, service_role;

create or replace function fleet.instant_text(p_instant timestamptz)
returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Not in SQL: to_char is stable, and what calls it is not put in place by Postgres but run as a query of its own.
  return to_char(p_instant at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US') || '+00:00';
end;
$$;

comment on function fleet.instant_text(timestamptz) is
  'An instant as text in UTC, whatever the zone of the session.';
revoke all on function fleet.instant_text(timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.instant_text(timestamptz) to authenticated, service_role;

create or replace function fleet.bounds_problems(
  p_type text,
  p_config jsonb,
  p_timezone text,
  p_start timestamptz,
  p_end timestamptz
)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_leans_on_start boolean := case p_type
    when 'once' then true
    when 'interval' then true
    when 'cron' then false
    else not p_config ?| '{time,times}'
      or (p_config ? 'every' and p_config ->> 'every' <> '1')
      or (p_type = 'weekly' and not p_config ? 'days_of_week')
      or (p_type = 'monthly' and not p_config ?| '{day_of_month,week}')
  end;
begin
  if p_start is null and v_leans_on_start then
    return query values ('start_time', 'is missing', 'This recurrence counts from its start: give it one');
  elsif p_start < '0001-01-03Z' and p_start > '-infinity' then
    return query values ('start_time', 'lies before the year 1', 'Give a date after it');
  elsif p_start > '294276-12-28Z' and p_start < 'infinity' then
    -- On some wall the calendar has come to its end by then.
    return query values ('start_time', 'lies at the end of the calendar', 'Give a date before the year 294276');
  elsif p_start in ('infinity', '-infinity') or p_end = '-infinity' then
    return query values (
      case when p_end = '-infinity' then 'end_time' else 'start_time' end,
      'is not a moment in time', 'Give a date and time'
    );
  elsif p_end < p_start then
    return query values ('end_time', 'lies before the start', 'Give an end after the start, or none');
  elsif p_config ? 'end_date' and fleet.recurrence_end(p_config ->> 'end_date', p_timezone) < p_start then
    return query values (
      'recurrence_config.end_date', 'lies before the start', 'Give an end after the start, or none'
    );
  end if;
end;
$$;

comment on function fleet.bounds_problems(text, jsonb, text, timestamptz, timestamptz) is
  'Says what is wrong with start and end of a recurrence.';
revoke all on function fleet.bounds_problems(text, jsonb, text, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.bounds_problems(text, jsonb, text, timestamptz, timestamptz)
  to authenticated, service_role;

create or replace function fleet.rule_problems(p_gap text, p_fold text)
returns setof fleet.problem
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_gap is null or p_gap <> all ('{first_instant,shift,skip}') then
    return next ('gap', coalesce(quote_literal(p_gap) || ' is not a gap rule', 'is missing'), 'Use first_instant, shift or skip')::fleet.problem;
  end if;
  if p_fold is null or p_fold <> all ('{first,second,both}') then
    return next ('fold', coalesce(quote_literal(p_fold) || ' is not a fold rule', 'is missing'), 'Use first, second or both')::fleet.problem;
  end if;
end;
$$;

comment on function fleet.rule_problems(text, text) is
  'Says what is wrong with the rules for skipped and repeated times.';
revoke all on function fleet.rule_problems(text, text) from public, anon, authenticated, service_role;
grant execute on function fleet.rule_problems(text, text) to authenticated, service_role;

-- db/sources/20_recurrence/51_compile_calendar.sql
-- Compiling the recurrences that follow a calendar.

create or replace function fleet.flags(p_values integer[], p_from integer, p_to integer)
returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_flags text := repeat('0', p_to - p_from + 1);
  v_value integer;
begin
  foreach v_value in array p_values loop
    if v_value between p_from and p_to then
      v_flags := overlay(v_flags placing '1' from v_value - p_from + 1);
    end if;
  end loop;
  return v_flags;
end;
$$;

comment on function fleet.flags(integer[], integer, integer) is
  'A set of numbers as text of 0 and 1, one for each number of the range.';
revoke all on function fleet.flags(integer[], integer, integer) from public, anon, authenticated, service_role;
grant execute on function fleet.flags(integer[], integer, integer) to authenticated, service_role;

create or replace function fleet.compiled_cron(p_expression text, p_gap text, p_fold text)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_cron  record := fleet.parse_cron(p_expression);
  v_times jsonb;
begin
  -- A short list of times is quicker to read than flags.
  if not v_cron.is_elapsed and cardinality(v_cron.hours) * cardinality(v_cron.minutes) * cardinality(v_cron.seconds) <= 24 then
    v_times := jsonb_build_object(
      'times', (
        select jsonb_agg(h * 3600 + m * 60 + s order by h, m, s)
        from unnest(v_cron.hours) as h
        cross join unnest(v_cron.minutes) as m
        cross join unnest(v_cron.seconds) as s
      )
    );
  else
    v_times := jsonb_build_object(
      'hours', fleet.flags(v_cron.hours, 0, 23),
      'minutes', fleet.flags(v_cron.minutes, 0, 59),
      'seconds', fleet.flags(v_cron.seconds, 0, 59)
    );
  end if;

  return jsonb_build_object(
    'kind', 'calendar',
    'is_elapsed', v_cron.is_elapsed,
    'resolve_gap', case when v_cron.is_elapsed then 'skip' else p_gap end,
    'resolve_fold', case when v_cron.is_elapsed then 'both' else p_fold end
  ) || v_times || fleet.compiled_cron_days(
    v_cron.month_days, v_cron.months, v_cron.weekdays, v_cron.both_days
  );
end;
$$;

comment on function fleet.compiled_cron(text, text, text) is 'The compiled part of a cron recurrence.';
revoke all on function fleet.compiled_cron(text, text, text) from public, anon, authenticated, service_role;
grant execute on function fleet.compiled_cron(text, text, text) to authenticated, service_role;

create or replace function fleet.compiled_cron_days(
  p_month_days integer[],
  p_months integer[],
  p_weekdays integer[],
  p_both_days boolean
)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_every_month_day constant boolean := cardinality(p_month_days) >= 31 and p_month_days[31] = 31;
  v_every_weekday   constant boolean := p_weekdays @> '{1,2,3,4,5,6}' and p_weekdays && '{0,7}';
begin
  if cardinality(p_months) = 12 then
    if (v_every_month_day and v_every_weekday)
      or (not p_both_days and (v_every_month_day or v_every_weekday))
    then
      return '{"day_rule": "every", "every": 1, "anchor": 0}'::jsonb;
    elsif v_every_month_day and p_both_days and p_weekdays[cardinality(p_weekdays)] <= 7 then
      return jsonb_build_object(
        'day_rule', 'weekdays',
        'weekdays', fleet.flags(p_weekdays || (case when 0 = any (p_weekdays) then 7 end), 1, 7),
        'every', 1,
        'anchor', 0
      );
    end if;
  end if;

  return jsonb_build_object(
    'day_rule', 'month_days',
    'months', fleet.flags(p_months, 1, 12),
    'month_days', fleet.month_day_mask(p_month_days, p_weekdays, p_both_days),
    'every', 1,
    'anchor', 0
  );
end;
$$;

comment on function fleet.compiled_cron_days(integer[], integer[], integer[], boolean) is
  'The day rule of a cron expression, in the simplest form that says the same.';
revoke all on function fleet.compiled_cron_days(integer[], integer[], integer[], boolean)
  from public, anon, authenticated, service_role;
grant execute on function fleet.compiled_cron_days(integer[], integer[], integer[], boolean)
  to authenticated, service_role;

create or replace function fleet.compiled_calendar(
  p_type text,
  p_config jsonb,
  p_local_start timestamp,
  p_gap text,
  p_fold text
)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_start_day integer := p_local_start::date - date '0001-01-01';
  v_every     integer := coalesce((p_config ->> 'every')::integer, 1);
  v_said      jsonb := coalesce(p_config -> 'times', p_config -> 'time');
  v_times     jsonb;
  v_weekdays  integer[];
  v_days      jsonb;
begin
  if v_said is null then
    v_times := jsonb_build_array(date_part('hour', p_local_start)::integer * 3600 + date_part('minute', p_local_start)::integer * 60
      + trunc(date_part('second', p_local_start))::integer);
  elsif jsonb_typeof(v_said) = 'string' then
    v_times := jsonb_build_array(fleet.second_of_day(v_said #>> '{}'));
  else
    select jsonb_agg(t.second order by t.second) into v_times
    from (select distinct fleet.second_of_day(e.value #>> '{}') as second from fleet.as_list(v_said) as e (value)) as t;
  end if;

  if p_type = 'daily' then
    v_days := jsonb_build_object('day_rule', 'every', 'anchor', v_start_day);
  elsif p_type = 'monthly' then
    v_days := jsonb_build_object(
      'day_rule', 'month_days',
      'months', repeat('1', 12),
      'month_days', fleet.compiled_month_days(p_config, date_part('day', p_local_start)::integer),
      'anchor', date_part('year', p_local_start) * 12 + date_part('month', p_local_start) - 1
    );
  else
    if p_config ? 'days_of_week' then
      v_weekdays := array(select fleet.weekday_number(e.value) from fleet.as_list(p_config -> 'days_of_week') as e (value));
    else
      v_weekdays := array[v_start_day % 7];
    end if;
    v_days := jsonb_build_object('day_rule', 'weekdays', 'weekdays', fleet.flags(v_weekdays, 0, 6), 'anchor', v_start_day / 7);
  end if;

  -- Without a start every-th is always 1 and any anchor does.
  return jsonb_build_object(
    'kind', 'calendar',
    'times', v_times,
    'every', v_every,
    'resolve_gap', p_gap,
    'resolve_fold', p_fold
  ) || jsonb_build_object('anchor', 0) || jsonb_strip_nulls(v_days) || case
    when p_config ?| '{time,times}' or p_local_start = date_trunc('second', p_local_start) then '{}'::jsonb
    else jsonb_build_object('microseconds', date_part('microseconds', p_local_start)::integer % 1000000)
  end;
end;
$$;

comment on function fleet.compiled_calendar(text, jsonb, timestamp, text, text) is
  'The compiled part of a daily, weekly or monthly recurrence; what is not said comes from the local start.';
revoke all on function fleet.compiled_calendar(text, jsonb, timestamp, text, text)
  from public, anon, authenticated, service_role;
grant execute on function fleet.compiled_calendar(text, jsonb, timestamp, text, text) to authenticated, service_role;

create or replace function fleet.compiled_month_days(p_config jsonb, p_start_day integer)
returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_week integer := fleet.week_of_month(p_config -> 'week');
begin
  if v_week is not null then
    return fleet.month_day_mask(
      array(select generate_series(1, 31)),
      array(
        select case v_week when -1 then 91 + w.number else 10 * (w.number + 1) + v_week end
        from fleet.as_list(p_config -> 'day_of_week') as e (value)
        cross join lateral fleet.weekday_number(e.value) as w (number)
      ),
      true
    );
  end if;

  return fleet.month_day_mask(
    array(
      select distinct fleet.month_day_number(e.value)
      from fleet.as_list(coalesce(p_config -> 'day_of_month', to_jsonb(p_start_day))) as e (value)
      order by 1
    ),
    array(select generate_series(0, 7)),
    true
  );
end;
$$;

comment on function fleet.compiled_month_days(jsonb, integer) is
  'The mask of days of a monthly recurrence; without day and week the day of its start.';
revoke all on function fleet.compiled_month_days(jsonb, integer) from public, anon, authenticated, service_role;
grant execute on function fleet.compiled_month_days(jsonb, integer) to authenticated, service_role;

-- db/sources/20_recurrence/52_dates.sql
-- Single dates that a recurrence leaves out ("except") or adds ("also"), in local time as its other times are: their
-- problems, and how they are compiled. A date in "except" is all of its day.

create or replace function fleet.local_second_of(p_value jsonb)
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if jsonb_typeof(p_value) = 'string' and p_value #>> '{}' ~ '^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2})?)?$' then
    return date_part('epoch', (p_value #>> '{}')::timestamp)::bigint + 62135596800;
  end if;
  return null;
exception
  when invalid_datetime_format or datetime_field_overflow then
    return null;
end;
$$;

comment on function fleet.local_second_of(jsonb) is
  'A local date (its midnight) or a local time as local seconds; null where it is neither, or names an offset.';
revoke all on function fleet.local_second_of(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.local_second_of(jsonb) to authenticated, service_role;

create or replace function fleet.config_date_problems(p_type text, p_config jsonb)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if not p_config ?| '{except,also}' then
    return;
  end if;

  return query
  select 'recurrence_config.' || k.name, format('does not go with %s', p_type), 'Use it with daily, weekly, monthly or cron'
  from (values ('except'), ('also')) as k (name)
  where p_config ? k.name and p_type in ('once', 'interval')

  union all

  select
    'recurrence_config.' || k.name,
    format('%s is not a local %s', coalesce(quote_literal(left(e.value #>> '{}', 60)), 'null'), k.kind),
    case k.name
      when 'except' then 'Write a date such as 2026-12-24, or a time such as 2026-12-24T06:30 as the clock of the zone shows it'
      else 'Write a time such as 2026-12-27T10:00, as the clock of the zone shows it'
    end
  from (values ('except', 'date or time'), ('also', 'time')) as k (name, kind)
  cross join lateral fleet.as_list(p_config -> k.name) as e (value)
  where p_config ? k.name
    and (
      fleet.local_second_of(e.value) is null
      or (k.name = 'also' and e.value #>> '{}' !~ ':')
      or fleet.local_second_of(e.value) < 172800
    );
end;
$$;

comment on function fleet.config_date_problems(text, jsonb) is 'Says what is wrong with except and also.';
revoke all on function fleet.config_date_problems(text, jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.config_date_problems(text, jsonb) to authenticated, service_role;

create or replace function fleet.compiled_dates(p_config jsonb)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with days as (
    select distinct fleet.local_second_of(e.value) / 86400 as day
    from fleet.as_list(p_config -> 'except') as e (value)
    where e.value #>> '{}' !~ ':'
  ),
  except_at as (
    select distinct fleet.local_second_of(e.value) as at
    from fleet.as_list(p_config -> 'except') as e (value)
    where e.value #>> '{}' ~ ':'
  )
  select jsonb_build_object('dates', jsonb_build_object(
    'days', (select coalesce(jsonb_agg(d.day order by d.day), '[]') from days as d),
    'except', (
      select coalesce(jsonb_agg(x.at order by x.at), '[]')
      from except_at as x
      where x.at / 86400 not in (select d.day from days as d)
    ),
    -- What is left out is left out, whoever named it.
    'also', (
      select coalesce(jsonb_agg(a.at order by a.at), '[]')
      from (
        select distinct fleet.local_second_of(e.value) as at from fleet.as_list(p_config -> 'also') as e (value)
      ) as a
      where a.at not in (select x.at from except_at as x)
        and a.at / 86400 not in (select d.day from days as d)
    )
  ))
$$;

comment on function fleet.compiled_dates(jsonb) is 'The compiled part of except and also; nothing where there are none.';
revoke all on function fleet.compiled_dates(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.compiled_dates(jsonb) to authenticated, service_role;

create or replace function fleet.describe_dates(p_config jsonb)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(string_agg(
    format(', %s on %s', d.word, fleet.english_list(
      d.dates[:3] || case when cardinality(d.dates) > 3 then array[cardinality(d.dates) - 3 || ' more'] else '{}' end
    )),
    '' order by d.nr
  ), '')
  from (
    select k.nr, k.word, array_agg(replace(e.value #>> '{}', 'T', ' ') order by e.value #>> '{}') as dates
    from (values (1, 'except', 'except'), (2, 'also', 'also')) as k (nr, name, word)
    cross join lateral fleet.as_list(p_config -> k.name) as e (value)
    where p_config ? k.name
    group by k.nr, k.word
  ) as d
$$;

comment on function fleet.describe_dates(jsonb) is 'The dates that are left out or added, in English: ", except on 2026-12-24".';
revoke all on function fleet.describe_dates(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.describe_dates(jsonb) to authenticated, service_role;

-- db/sources/20_recurrence/60_local_days.sql
-- The days and times that a compiled calendar recurrence names, still in local time. Days are numbers since
-- 0001-01-01 (a Monday), times are local seconds since then.

create or replace function fleet.flag_numbers(p_flags text)
returns integer[]
-- Not in SQL: such a function is planned anew in each statement that calls it, which here takes longer than all else.
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select (f.place - 1)::integer
    from string_to_table(p_flags, null) with ordinality as f (flag, place)
    where f.flag = '1'
    order by f.place
  );
end;
$$;

comment on function fleet.flag_numbers(text) is
  'The numbers, counted from 0, at which a text of flags has a 1.';
revoke all on function fleet.flag_numbers(text) from public, anon, authenticated, service_role;
grant execute on function fleet.flag_numbers(text) to authenticated, service_role;

create or replace function fleet.month_mask(p_mask text, p_first_day integer, p_length integer)
returns integer
language sql
immutable
parallel safe
return case octet_length(p_mask)
  when 31 then 0
  when 124 then p_length - 28
  else p_first_day % 7 * 4 + p_length - 28
end;

comment on function fleet.month_mask(text, integer, integer) is
  'Which of its parts of 31 flags, counted from 0, a mask of month days has for a month with this first day number and length.';
revoke all on function fleet.month_mask(text, integer, integer) from public, anon, authenticated, service_role;
grant execute on function fleet.month_mask(text, integer, integer) to authenticated, service_role;

create or replace function fleet.month_flags(p_mask text, p_first_day integer, p_length integer)
returns text
language sql
immutable
parallel safe
return substr(p_mask, fleet.month_mask(p_mask, p_first_day, p_length) * 31 + 1, p_length);

comment on function fleet.month_flags(text, integer, integer) is
  'The part of a mask of month days that holds for a month with this first day number and length.';
revoke all on function fleet.month_flags(text, integer, integer) from public, anon, authenticated, service_role;
grant execute on function fleet.month_flags(text, integer, integer) to authenticated, service_role;

create or replace function fleet.month_start(p_month integer)
returns integer
language sql
immutable
parallel safe
return make_date(p_month / 12, p_month % 12 + 1, 1) - date '0001-01-01';

comment on function fleet.month_start(integer) is
  'The day number of the first of a month; months count as year * 12 + month - 1.';
revoke all on function fleet.month_start(integer) from public, anon, authenticated, service_role;
grant execute on function fleet.month_start(integer) to authenticated, service_role;

create or replace function fleet.month_of_day(p_day integer)
returns integer
language sql
immutable
parallel safe
-- date_part would take the date for a timestamp, and a timestamp ends before dates do.
return (
  extract(year from date '0001-01-01' + p_day) * 12 + extract(month from date '0001-01-01' + p_day)
)::integer - 1;

comment on function fleet.month_of_day(integer) is 'The month of a day number, as year * 12 + month - 1.';
revoke all on function fleet.month_of_day(integer) from public, anon, authenticated, service_role;
grant execute on function fleet.month_of_day(integer) to authenticated, service_role;

create or replace function fleet.days_of_months(
  p_months text,
  p_mask text,
  p_flags integer[],
  p_first integer,
  p_last integer,
  p_every integer
)
returns setof integer
language sql
immutable
parallel safe
begin atomic
  select m.first_day + f.flag - m.mask_start
  from (
    select b.first_day, b.next_day - b.first_day as length,
      fleet.month_mask(p_mask, b.first_day, b.next_day - b.first_day) * 31 as mask_start
    from (
      select fleet.month_start(n.month) as first_day, fleet.month_start(n.month + 1) as next_day
      from (select generate_series(p_first, p_last, p_every) as month offset 0) as n
      where p_months = '111111111111' or substr(p_months, n.month % 12 + 1, 1) = '1'
      -- Each is worked out once: without the fences each use would be a copy.
      offset 0
    ) as b
    offset 0
  ) as m
  cross join unnest(p_flags) as f (flag)
  where f.flag >= m.mask_start and f.flag < m.mask_start + m.length;
end;

comment on function fleet.days_of_months(text, text, integer[], integer, integer, integer) is
  'The day numbers that a mask of month days names in every p_every-th month from p_first to p_last, of those that the flags '
  'of months allow, in no order; p_flags are the fleet.flag_numbers of the mask.';
revoke all on function fleet.days_of_months(text, text, integer[], integer, integer, integer)
  from public, anon, authenticated, service_role;
grant execute on function fleet.days_of_months(text, text, integer[], integer, integer, integer) to authenticated, service_role;

create or replace function fleet.matching_days(p_recurrence jsonb, p_first integer, p_last integer)
returns setof integer
language plpgsql
immutable
strict
parallel safe
set search_path = pg_catalog, pg_temp
-- Planned at each call otherwise, for the number of days that is to come.
set plan_cache_mode = force_generic_plan
as $$
declare
  v_rule   text := p_recurrence ->> 'day_rule';
  v_every  integer := (p_recurrence ->> 'every')::integer;
  v_anchor integer := (p_recurrence ->> 'anchor')::integer;
  v_flags  text := p_recurrence ->> 'weekdays';
  v_months text;
  v_mask   text;
  v_set    integer[];
  v_month  integer;
begin
  if v_rule = 'every' then
    return query
      select d.day
      from generate_series(
        p_first + ((v_anchor - p_first) % v_every + v_every) % v_every, p_last, v_every
      ) as d (day);

  elsif v_rule = 'weekdays' then
    return query
      select d.day
      from generate_series(p_first, p_last) as d (day)
      where substr(v_flags, d.day % 7 + 1, 1) = '1'
        and (d.day / 7 - v_anchor) % v_every = 0;

  else
    v_months := p_recurrence ->> 'months';
    v_mask := p_recurrence ->> 'month_days';
    v_set := fleet.flag_numbers(v_mask);
    v_month := fleet.month_of_day(p_first);
    return query
      select d.day
      from fleet.days_of_months(
        v_months, v_mask, v_set,
        v_month + ((v_anchor - v_month) % v_every + v_every) % v_every, fleet.month_of_day(p_last), v_every
      ) as d (day)
      where d.day between p_first and p_last
      order by 1;
  end if;
end;
$$;

comment on function fleet.matching_days(jsonb, integer, integer) is
  'The day numbers from p_first to p_last on which a compiled calendar recurrence runs, in order.';
revoke all on function fleet.matching_days(jsonb, integer, integer) from public, anon, authenticated, service_role;
grant execute on function fleet.matching_days(jsonb, integer, integer) to authenticated, service_role;

create or replace function fleet.matching_slots(p_recurrence jsonb, p_from bigint, p_to bigint)
returns setof bigint
language plpgsql
immutable
strict
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_first integer := (p_from / 86400)::integer;
  v_last  integer := ((p_to - 1) / 86400)::integer;
begin
  if p_from >= p_to then
    return;
  elsif p_recurrence ? 'dates' then
    return query select d.slot from fleet.dated_slots(p_recurrence, p_from, p_to) as d (slot);
    return;
  end if;

  if p_recurrence ? 'times' then
    return query
      select s.second
      from fleet.matching_days(p_recurrence, v_first, v_last) as d (day)
      cross join unnest(array(select jsonb_array_elements(p_recurrence -> 'times')::bigint)) as t (second_of_day)
      cross join lateral (select d.day * 86400::bigint + t.second_of_day) as s (second)
      where s.second >= p_from
        and s.second < p_to
      order by 1;
  else
    return query
      select h.second + m.minute * 60 + s.second
      from (
        select d.day * 86400::bigint + h.hour * 3600 as second
        from fleet.matching_days(p_recurrence, v_first, v_last) as d (day)
        cross join unnest(fleet.flag_numbers(p_recurrence ->> 'hours')) as h (hour)
        where d.day * 86400::bigint + h.hour * 3600 > p_from - 3600
          and d.day * 86400::bigint + h.hour * 3600 < p_to
        offset 0
      ) as h
      cross join unnest(fleet.flag_numbers(p_recurrence ->> 'minutes')) as m (minute)
      cross join unnest(fleet.flag_numbers(p_recurrence ->> 'seconds')) as s (second)
      where h.second + m.minute * 60 + s.second >= p_from
        and h.second + m.minute * 60 + s.second < p_to
      order by 1;
  end if;
end;
$$;

comment on function fleet.matching_slots(jsonb, bigint, bigint) is
  'The local seconds in [p_from, p_to) that a compiled calendar recurrence names, in order; clock changes '
  'play no part yet.';
revoke all on function fleet.matching_slots(jsonb, bigint, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.matching_slots(jsonb, bigint, bigint) to authenticated, service_role;

-- db/sources/20_recurrence/65_clock_spans.sql
-- Where local time and elapsed time part. Between two changes of the clocks they run side by side, so each such span
-- is computed at once; the rules for skipped and repeated times only decide where spans begin and end.

create or replace function fleet.clock_spans(
  p_clock text,
  p_gap text,
  p_fold text,
  p_from bigint,
  p_to bigint
)
returns table (
  begins_at bigint,
  ends_at bigint,
  shift bigint,
  skipped_shift bigint,
  is_one_instant boolean
)
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  -- From the Unix epoch to the day from which local seconds count.
  c_epoch  constant bigint := 62135596800;
  v_since  bigint := p_from;
  v_until  bigint;
  v_jump   bigint;
  v_change record;
begin
  shift := c_epoch + fleet.utc_offset(p_clock, p_from - 90000);

  -- Changes up to a day outside the window matter: a time repeated or skipped there may belong to this window.
  for v_change in
    select t.changed_at, t.offset_before, t.offset_after
    from fleet.zone_transitions(p_clock, p_from - 90000, p_to + 90000) as t
  loop
    v_jump := v_change.offset_after - v_change.offset_before;
    -- Under fold = second the first pass of the repeated time stays silent, under fold = first the second pass does.
    v_until := v_change.changed_at + case when p_fold = 'second' then least(v_jump, 0) else 0 end;
    begins_at := greatest(v_since, p_from);
    ends_at := least(v_until, p_to);
    if begins_at < ends_at then
      return next;
    end if;

    v_since := v_change.changed_at - case when p_fold = 'first' then least(v_jump, 0) else 0 end;
    if v_jump > 0 and p_gap <> 'skip' then
      skipped_shift := shift;
      shift := c_epoch + v_change.offset_after;
      is_one_instant := p_gap = 'first_instant';
      v_since := fleet.gap_end(p_gap, v_change.changed_at, v_change.offset_before, v_change.offset_after);

      begins_at := v_change.changed_at;
      ends_at := v_since;
      if not is_one_instant then
        begins_at := greatest(begins_at, p_from);
        ends_at := least(ends_at, p_to);
      end if;
      if begins_at < ends_at and ends_at > p_from and ends_at <= p_to then
        return next;
      end if;
      skipped_shift := null;
      is_one_instant := null;
    end if;
    shift := c_epoch + v_change.offset_after;
  end loop;

  begins_at := greatest(v_since, p_from);
  ends_at := p_to;
  if begins_at < ends_at then
    return next;
  end if;
end;
$$;

comment on function fleet.clock_spans(text, text, text, bigint, bigint) is
  'The spans of [p_from, p_to), in Unix seconds and in order, in which a recurrence may run: local second '
  '= Unix second '
  '+ shift. Behind a gap a span has a second shift for the times that were skipped; under gap = '
  'first_instant all that '
  'such a span names, from its beginning by the second shift to its end by the first, runs once, in its '
  'last second.';
revoke all on function fleet.clock_spans(text, text, text, bigint, bigint)
  from public, anon, authenticated, service_role;
grant execute on function fleet.clock_spans(text, text, text, bigint, bigint) to authenticated, service_role;

create or replace function fleet.gap_end(p_gap text, p_changed_at bigint, p_before bigint, p_after bigint)
returns bigint
language sql
immutable
parallel safe
return p_changed_at + case
  when p_gap = 'shift' then p_after - p_before
  -- Cron looks at its table once a minute, so the first instant is the first whole minute, which belongs to the span.
  else (60 - (p_changed_at + p_after) % 60) % 60 + 1
end;

comment on function fleet.gap_end(text, bigint, bigint, bigint) is
  'The Unix second up to which what was skipped by a gap and what is regular behind it are taken together.';
revoke all on function fleet.gap_end(text, bigint, bigint, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.gap_end(text, bigint, bigint, bigint) to authenticated, service_role;

-- db/sources/20_recurrence/66_month_day_occurrences.sql
-- Instants of single local times. Where days of the month name one time there are hardly more of them than changes of the
-- clocks: each time is looked at by itself, and the spans of clocks decide only for the few beside a change.

create or replace function fleet.names_one_time_of_month_days(p_recurrence jsonb, p_to timestamptz)
returns boolean
language sql
immutable
parallel safe
-- Three zones have the name of an abbreviation, which "at time zone" prefers; and near the end of time no day is after.
return p_recurrence ->> 'day_rule' = 'month_days'
  and jsonb_array_length(p_recurrence -> 'times') = 1
  and p_recurrence ->> 'clock' not in ('EST', 'HST', 'MST')
  and p_to < '9999-01-01Z';

comment on function fleet.names_one_time_of_month_days(jsonb, timestamptz) is
  'Whether fleet.month_day_occurrences can list a compiled calendar recurrence up to p_to.';
revoke all on function fleet.names_one_time_of_month_days(jsonb, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.names_one_time_of_month_days(jsonb, timestamptz) to authenticated, service_role;

create or replace function fleet.epochs_of_slot(p_clock text, p_gap text, p_fold text, p_slot bigint)
returns setof bigint
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select s.ends_at - 1
  from fleet.clock_spans(p_clock, p_gap, p_fold, p_slot - 62135596800 - 150000, p_slot - 62135596800 + 150000) as s
  where s.is_one_instant and p_slot >= s.begins_at + s.skipped_shift and p_slot < s.ends_at + s.shift
  union
  select p_slot - k.shift
  from fleet.clock_spans(p_clock, p_gap, p_fold, p_slot - 62135596800 - 150000, p_slot - 62135596800 + 150000) as s
  cross join lateral (values (s.shift), (s.skipped_shift)) as k (shift)
  where s.is_one_instant is not true and p_slot >= s.begins_at + k.shift and p_slot < s.ends_at + k.shift
$$;

comment on function fleet.epochs_of_slot(text, text, text, bigint) is
  'The Unix seconds at which a recurrence runs that names this local second: none, one or two, by the spans of clocks around it.';
revoke all on function fleet.epochs_of_slot(text, text, text, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.epochs_of_slot(text, text, text, bigint) to authenticated, service_role;

create or replace function fleet.occurrences_beside_changes(p_recurrence jsonb, p_locals timestamp[])
returns setof timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- Planned at each call otherwise, for the number of times that is to come.
set plan_cache_mode = force_generic_plan
as $$
declare
  -- From the day from which local seconds count to the Unix epoch.
  c_epoch  constant bigint := 62135596800;
  c_margin constant bigint := 41 * 3600;
  v_clock  text := p_recurrence ->> 'clock';
begin
  return query
    with by_change as materialized (
      -- Most of these still have one instant: before the change or, past the minute that a gap may take, behind it.
      select n.utc,
        case
          when c.is_before = c.is_after then null
          when c.is_before then n.utc - n.before
          when fleet.utc_offset(v_clock, n.utc - n.after - 61) = n.after then n.utc - n.after
        end as epoch
      from (
        select l.utc, fleet.utc_offset(v_clock, l.utc - c_margin) as before, fleet.utc_offset(v_clock, l.utc + c_margin) as after
        from (select date_part('epoch', x.local)::bigint as utc from unnest(p_locals) as x (local) offset 0) as l
        offset 0
      ) as n
      cross join lateral (
        select fleet.utc_offset(v_clock, n.utc - n.before) = n.before as is_before,
          fleet.utc_offset(v_clock, n.utc - n.after) = n.after as is_after
        offset 0
      ) as c
    )
    select fleet.instant_of(c.epoch) from by_change as c where c.epoch is not null
    union
    select fleet.instant_of(e.epoch)
    from by_change as c
    cross join lateral fleet.epochs_of_slot(
      v_clock, p_recurrence ->> 'resolve_gap', p_recurrence ->> 'resolve_fold', c.utc + c_epoch
    ) as e (epoch)
    where c.epoch is null;
end;
$$;

comment on function fleet.occurrences_beside_changes(jsonb, timestamp[]) is
  'The occurrences of a compiled calendar recurrence at local times that it names, within 41 hours of a change of the clocks each; '
  'none twice.';
revoke all on function fleet.occurrences_beside_changes(jsonb, timestamp[]) from public, anon, authenticated, service_role;
grant execute on function fleet.occurrences_beside_changes(jsonb, timestamp[]) to authenticated, service_role;

create or replace function fleet.month_day_occurrences(p_recurrence jsonb, p_from timestamptz, p_to timestamptz)
returns setof timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- Planned at each call otherwise, for the number of times that is to come.
set plan_cache_mode = force_generic_plan
-- What it was is put back when the function ends, whatever it is set to meanwhile.
set timezone = 'UTC'
as $$
declare
  -- 15:59 hours are the most that a zone was off UTC and a day is the widest jump, so this is far enough to each side; and
  -- both sides together are less than the 95 hours that no zone has changed its clocks twice in.
  c_margin    constant interval := interval '41 hours';
  c_both      constant interval := interval '82 hours';
  c_day_zero  constant date := '0001-01-01';
  v_mask      text := p_recurrence ->> 'month_days';
  v_flags     integer[] := fleet.flag_numbers(v_mask);
  v_only_flag integer := case when octet_length(v_mask) = 31 and cardinality(v_flags) = 1 then v_flags[1] end;
  v_months    text := p_recurrence ->> 'months';
  v_is_all    boolean := v_months = '111111111111';
  v_every     integer := (p_recurrence ->> 'every')::integer;
  v_first     integer := fleet.month_of_day(greatest(p_from - interval '3 days', '0001-01-01Z')::date - c_day_zero);
  v_last      integer := fleet.month_of_day((p_to + interval '3 days')::date - c_day_zero);
  v_time      interval := make_interval(secs => (p_recurrence -> 'times' ->> 0)::integer);
  v_start     timestamp;
  v_plain     timestamptz[];
  v_beside    timestamp[];
begin
  v_first := v_first + (((p_recurrence ->> 'anchor')::integer - v_first) % v_every + v_every) % v_every;
  -- A single day that every month has is that of the first month and so many months later.
  if v_only_flag < 28 then
    v_start := c_day_zero + fleet.month_start(v_first) + v_only_flag + v_time;
  end if;

  -- Casts between local times and instants go by this clock from here on, and its name is looked up once.
  perform set_config('timezone', p_recurrence ->> 'clock', true);
  select
    array_agg(c.at) filter (where c.is_plain and c.at >= p_from and c.at < p_to),
    array_agg(c.local) filter (where not c.is_plain)
  into v_plain, v_beside
  from (
    -- Where the offset is the same far before and far after, the plain cast is right.
    select n.local, n.at, (n.at + c_margin)::timestamp - (n.at - c_margin)::timestamp = c_both as is_plain
    from (
      select l.local, l.local::timestamptz as at
      from (
        select v_start + make_interval(months => m.passed) as local
        from (select generate_series(0, v_last - v_first, v_every) as passed offset 0) as m
        where v_start is not null
          and (v_is_all or substr(v_months, (v_first + m.passed) % 12 + 1, 1) = '1')
        union all
        select c_day_zero + d.day + v_time
        from fleet.days_of_months(v_months, v_mask, v_flags, v_first, v_last, v_every) as d (day)
        where v_start is null
      ) as l
      -- Each is worked out once: without the fences each use would be a copy.
      offset 0
    ) as n
    offset 0
  ) as c;

  return query
    select p.at from unnest(v_plain) as p (at)
    union all
    select b.at
    from fleet.occurrences_beside_changes(p_recurrence, v_beside) as b (at)
    where b.at >= p_from and b.at < p_to
    order by 1;
end;
$$;

comment on function fleet.month_day_occurrences(jsonb, timestamptz, timestamptz) is
  'fleet.occurrences for a compiled calendar recurrence of which fleet.names_one_time_of_month_days is true, start, end and fraction of '
  'the second aside.';
revoke all on function fleet.month_day_occurrences(jsonb, timestamptz, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.month_day_occurrences(jsonb, timestamptz, timestamptz) to authenticated, service_role;

-- db/sources/20_recurrence/70_occurrences.sql
-- Every occurrence in a window.

create or replace function fleet.occurrences(p_recurrence jsonb, p_from timestamptz, p_to timestamptz)
returns setof timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_kind  text := p_recurrence ->> 'kind';
  v_start timestamptz := (p_recurrence ->> 'start')::timestamptz;
  v_end   timestamptz := (p_recurrence ->> 'end')::timestamptz;
  v_from  timestamptz := greatest(p_from, v_start);
  -- The end is inclusive, and Postgres counts microseconds.
  v_to    timestamptz := least(p_to, fleet.just_after(v_end));
  v_shift interval := fleet.second_fraction(p_recurrence);
begin
  if v_kind is null then
    return query select o.at from fleet.occurrences(fleet.recompile_recurrence(p_recurrence), p_from, p_to) as o (at);
    return;
  elsif v_from is null or v_to is null or v_from >= v_to then
    return;
  elsif v_kind = 'once' then
    if v_from = v_start then
      return next v_start;
    end if;
    return;
  elsif not isfinite(v_from) or not isfinite(v_to) then
    raise exception 'a recurrence without bounds cannot be listed without a window'
      using errcode = 'PT422',
            detail = 'window_unbounded',
            hint = 'Give a first and a last moment, or use fleet.next_occurrence';
  end if;

  if v_kind = 'interval' then
    return query
      select o.at
      from fleet.interval_occurrences(v_start, (p_recurrence ->> 'interval_seconds')::bigint, v_from, v_to) as o (at);
  elsif fleet.names_one_time_of_month_days(p_recurrence, v_to) then
    return query
      select o.at + v_shift
      from fleet.month_day_occurrences(p_recurrence, greatest(v_from - v_shift, '0001-01-03Z'), v_to - v_shift) as o (at);
  else
    return query
      select fleet.instant_of(o.epoch) + v_shift
      from fleet.calendar_occurrences(
        p_recurrence,
        fleet.epoch_from(greatest(v_from - v_shift, '0001-01-03Z')),
        fleet.epoch_from(v_to - v_shift)
      ) as o (epoch);
  end if;
end;
$$;

comment on function fleet.occurrences(jsonb, timestamptz, timestamptz) is
  'All occurrences of a compiled recurrence in [p_from, p_to), in order, none twice.';
revoke all on function fleet.occurrences(jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.occurrences(jsonb, timestamptz, timestamptz) to authenticated, service_role;

create or replace function fleet.second_fraction(p_recurrence jsonb)
returns interval
language sql
immutable
parallel safe
return case
  when p_recurrence ? 'microseconds' then make_interval(secs => (p_recurrence ->> 'microseconds')::integer / 1000000.0)
  else interval '0'
end;

comment on function fleet.second_fraction(jsonb) is
  'How much later than its whole second each occurrence of a compiled calendar recurrence is.';
revoke all on function fleet.second_fraction(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.second_fraction(jsonb) to authenticated, service_role;

create or replace function fleet.recompile_recurrence(p_recurrence jsonb)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.compile_recurrence(
    p_recurrence ->> 'type',
    p_recurrence -> 'config',
    p_recurrence ->> 'timezone',
    (p_recurrence ->> 'start')::timestamptz,
    (p_recurrence ->> 'end')::timestamptz,
    coalesce(p_recurrence ->> 'gap', 'first_instant'),
    coalesce(p_recurrence ->> 'fold', 'first')
  )
$$;

comment on function fleet.recompile_recurrence(jsonb) is
  'Compile a recurrence that was written by hand and so lacks its compiled part.';
revoke all on function fleet.recompile_recurrence(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.recompile_recurrence(jsonb) to service_role;

create or replace function fleet.interval_occurrences(
  p_start timestamptz,
  p_seconds bigint,
  p_from timestamptz,
  p_to timestamptz
)
returns setof timestamptz
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
-- Planned at each call otherwise, for the number of rows that is to come.
set plan_cache_mode = force_generic_plan
as $$
declare
  v_second   bigint := fleet.epoch_of(p_start);
  v_fraction interval := p_start - fleet.instant_of(v_second);
  v_first    bigint := greatest(0, (fleet.epoch_of(p_from) - v_second) / p_seconds - 1);
  v_last     bigint := (fleet.epoch_of(p_to) - v_second) / p_seconds + 1;
begin
  return query
    select o.at
    from generate_series(v_first, v_last) as n
    cross join lateral (select fleet.instant_of(v_second + n * p_seconds) + v_fraction) as o (at)
    where o.at >= p_from
      and o.at < p_to;
end;
$$;

comment on function fleet.interval_occurrences(timestamptz, bigint, timestamptz, timestamptz) is
  'Every p_seconds of elapsed time from p_start on, within [p_from, p_to).';
revoke all on function fleet.interval_occurrences(timestamptz, bigint, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.interval_occurrences(timestamptz, bigint, timestamptz, timestamptz)
  to authenticated, service_role;

create or replace function fleet.calendar_occurrences(p_recurrence jsonb, p_from bigint, p_to bigint)
returns setof bigint
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_span record;
begin
  for v_span in
    select * from fleet.clock_spans(
      p_recurrence ->> 'clock', p_recurrence ->> 'resolve_gap', p_recurrence ->> 'resolve_fold', p_from, p_to
    )
  loop
    if v_span.skipped_shift is null then
      return query
        select s.slot - v_span.shift
        from fleet.matching_slots(
          p_recurrence, v_span.begins_at + v_span.shift, v_span.ends_at + v_span.shift
        ) as s (slot);

    elsif v_span.is_one_instant then
      if fleet.next_slot(p_recurrence, v_span.begins_at + v_span.skipped_shift) < v_span.ends_at + v_span.shift then
        return next v_span.ends_at - 1;
      end if;

    else
      -- What was skipped meets what runs at that time anyway: each instant once.
      return query
        select s.slot - v_span.shift
        from fleet.matching_slots(
          p_recurrence, v_span.begins_at + v_span.shift, v_span.ends_at + v_span.shift
        ) as s (slot)
        union
        select s.slot - v_span.skipped_shift
        from fleet.matching_slots(
          p_recurrence, v_span.begins_at + v_span.skipped_shift, v_span.ends_at + v_span.skipped_shift
        ) as s (slot)
        order by 1;
    end if;
  end loop;
end;
$$;

comment on function fleet.calendar_occurrences(jsonb, bigint, bigint) is
  'The occurrences of a compiled calendar recurrence in [p_from, p_to) of Unix seconds, start and end aside.';
revoke all on function fleet.calendar_occurrences(jsonb, bigint, bigint)
  from public, anon, authenticated, service_role;
grant execute on function fleet.calendar_occurrences(jsonb, bigint, bigint) to authenticated, service_role;

-- db/sources/20_recurrence/71_counting.sql
-- Counting occurrences without listing them to the caller.

create or replace function fleet.count_occurrences(
  p_recurrence jsonb,
  p_from timestamptz,
  p_to timestamptz,
  p_limit bigint default null
)
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_start timestamptz := (p_recurrence ->> 'start')::timestamptz;
  v_from  timestamptz := greatest(p_from, v_start);
  v_to    timestamptz := least(p_to, fleet.just_after((p_recurrence ->> 'end')::timestamptz));
  v_width interval := interval '6 hours';
  v_every bigint := (p_recurrence ->> 'interval_seconds')::bigint;
  v_count bigint := 0::bigint;
begin
  if p_recurrence ->> 'kind' = 'interval' and isfinite(v_from) and isfinite(v_to) and v_from < v_to then
    -- Occurrences before the end less those before the beginning.
    return least(
      (
        ceil(extract(epoch from v_to - v_start) / v_every)
        - ceil(extract(epoch from v_from - v_start) / v_every)
      )::bigint,
      p_limit
    );
  elsif p_recurrence ->> 'kind' = 'calendar' and p_limit is null and isfinite(v_from) and isfinite(v_to) then
    return fleet.count_in_calendar(p_recurrence, v_from, v_to);
  elsif p_limit is null or p_recurrence ->> 'kind' is distinct from 'calendar' or not isfinite(v_from) then
    return least((select count(*) from fleet.occurrences(p_recurrence, p_from, p_to)), p_limit);
  end if;

  -- In growing pieces, so that a small limit never looks through a long window.
  while v_count < p_limit and v_from < v_to loop
    v_count := v_count + fleet.count_in_calendar(p_recurrence, v_from, least(v_to, v_from + v_width));
    v_from := v_from + v_width;
    v_width := least(v_width * 2, interval '90000 hours');
  end loop;
  return least(v_count, p_limit);
end;
$$;

comment on function fleet.count_occurrences(jsonb, timestamptz, timestamptz, bigint) is
  'How many occurrences a compiled recurrence has in [p_from, p_to), counting no further than p_limit.';
revoke all on function fleet.count_occurrences(jsonb, timestamptz, timestamptz, bigint)
  from public, anon, authenticated, service_role;
grant execute on function fleet.count_occurrences(jsonb, timestamptz, timestamptz, bigint)
  to authenticated, service_role;

create or replace function fleet.count_in_calendar(p_recurrence jsonb, p_from timestamptz, p_to timestamptz)
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count bigint := 0::bigint;
  v_shift interval := fleet.second_fraction(p_recurrence);
  v_span  record;
begin
  for v_span in
    select * from fleet.clock_spans(
      p_recurrence ->> 'clock', p_recurrence ->> 'resolve_gap', p_recurrence ->> 'resolve_fold',
      fleet.epoch_from(greatest(p_from - v_shift, '0001-01-03Z')), fleet.epoch_from(p_to - v_shift)
    )
  loop
    v_count := v_count + case
      when v_span.skipped_shift is null then
        fleet.count_slots(p_recurrence, v_span.begins_at + v_span.shift, v_span.ends_at + v_span.shift)
      else (
        select count(*) from fleet.calendar_occurrences(p_recurrence, v_span.begins_at, v_span.ends_at)
      )
    end;
  end loop;
  return v_count;
end;
$$;

comment on function fleet.count_in_calendar(jsonb, timestamptz, timestamptz) is
  'How many occurrences a compiled calendar recurrence has in [p_from, p_to), its start and end aside.';
revoke all on function fleet.count_in_calendar(jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.count_in_calendar(jsonb, timestamptz, timestamptz)
  to authenticated, service_role;

create or replace function fleet.count_slots(p_recurrence jsonb, p_from bigint, p_to bigint)
returns bigint
language plpgsql
immutable
strict
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_first_day bigint := p_from / 86400 + 1;
  v_last_day  bigint := p_to / 86400 - 1;
begin
  if p_recurrence ? 'dates' then
    return fleet.count_dated_slots(p_recurrence, p_from, p_to);
  end if;
  if v_last_day <= v_first_day then
    return (select count(*) from fleet.matching_slots(p_recurrence, p_from, p_to));
  end if;

  -- Whole days have as many each; only the two at the edges are looked at more closely.
  return (select count(*) from fleet.matching_slots(p_recurrence, p_from, v_first_day * 86400))
    + (select count(*) from fleet.matching_days(p_recurrence, v_first_day::integer, v_last_day::integer))
      * coalesce(
        jsonb_array_length(p_recurrence -> 'times'),
        length(replace(p_recurrence ->> 'hours', '0', ''))
          * length(replace(p_recurrence ->> 'minutes', '0', ''))
          * length(replace(p_recurrence ->> 'seconds', '0', ''))
      )
    + (select count(*) from fleet.matching_slots(p_recurrence, (v_last_day + 1) * 86400, p_to));
end;
$$;

comment on function fleet.count_slots(jsonb, bigint, bigint) is
  'How many local seconds in [p_from, p_to) a compiled calendar recurrence names.';
revoke all on function fleet.count_slots(jsonb, bigint, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.count_slots(jsonb, bigint, bigint) to authenticated, service_role;

-- db/sources/20_recurrence/72_applied_rule.sql
-- Which rule for skipped or repeated times an occurrence owes its instant to.

create or replace function fleet.applied_rule(p_recurrence jsonb, p_instant timestamptz)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_clock  text := p_recurrence ->> 'clock';
  v_gap    text := p_recurrence ->> 'resolve_gap';
  v_fold   text := p_recurrence ->> 'resolve_fold';
  v_epoch  bigint := fleet.epoch_of(p_instant);
  v_change record;
  v_slot   bigint;
begin
  -- Wildcard jobs follow elapsed time: for them nothing is skipped and nothing repeated.
  if p_recurrence ->> 'kind' is distinct from 'calendar' or p_recurrence @> '{"is_elapsed": true}' then
    return null;
  end if;

  for v_change in
    select t.changed_at, t.offset_before as before, t.offset_after as after
    from fleet.zone_transitions(v_clock, v_epoch - 90000, v_epoch + 90000) as t
  loop
    if v_change.after > v_change.before then
      if v_gap <> 'skip'
        and v_epoch >= v_change.changed_at
        and v_epoch < fleet.gap_end(v_gap, v_change.changed_at, v_change.before, v_change.after)
      then
        v_slot := case
          when v_gap = 'shift' then v_epoch + v_change.before + 62135596800
          when v_epoch = fleet.gap_end(v_gap, v_change.changed_at, v_change.before, v_change.after) - 1 then (
            select s.slot
            from fleet.matching_slots(
              p_recurrence,
              v_change.changed_at + v_change.before + 62135596800,
              v_change.changed_at + v_change.after + 62135596800
            ) as s (slot)
            limit 1
          )
        end;
        if exists (select 1 from fleet.matching_slots(p_recurrence, v_slot, v_slot + 1)) then
          return 'gap:' || v_gap;
        end if;
      end if;

    elsif v_epoch >= v_change.changed_at - (v_change.before - v_change.after)
      and v_epoch < v_change.changed_at + (v_change.before - v_change.after)
    then
      return 'fold:' || v_fold;
    end if;
  end loop;

  return null;
end;
$$;

comment on function fleet.applied_rule(jsonb, timestamptz) is
  'gap:first_instant or gap:shift when the local time of an occurrence was skipped, fold:first, '
  'fold:second or fold:both '
  'when it came twice, null when the clocks were quiet.';
revoke all on function fleet.applied_rule(jsonb, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.applied_rule(jsonb, timestamptz) to authenticated, service_role;

-- db/sources/20_recurrence/73_skipped_times.sql
-- Times that the clocks skip and that a recurrence leaves out for that (gap: skip): they are told, not passed over in silence.

create or replace function fleet.leaves_out_gaps(p_recurrence jsonb)
returns boolean
language sql
immutable
parallel safe
-- What follows elapsed time misses nothing by a jump of the clocks.
return p_recurrence @> '{"kind": "calendar", "resolve_gap": "skip"}' and not p_recurrence @> '{"is_elapsed": true}';

comment on function fleet.leaves_out_gaps(jsonb) is
  'Whether a compiled recurrence does not run where the clocks skip one of its times.';
revoke all on function fleet.leaves_out_gaps(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.skipped_times(p_recurrence jsonb, p_from timestamptz, p_to timestamptz)
returns table (skipped_at timestamptz, first_local timestamp, last_local timestamp, times bigint)
language plpgsql
stable
rows 1
set search_path = pg_catalog, pg_temp
as $$
declare
  c_epoch constant bigint := 62135596800;
  v_from timestamptz := greatest(p_from, (p_recurrence ->> 'start')::timestamptz);
  v_to timestamptz := least(p_to, fleet.just_after((p_recurrence ->> 'end')::timestamptz));
  v_change record;
begin
  if not fleet.leaves_out_gaps(p_recurrence) or not isfinite(v_from) or not isfinite(v_to) or v_from >= v_to then
    return;
  end if;
  for v_change in
    select t.changed_at, t.offset_before, t.offset_after
    from fleet.zone_transitions(p_recurrence ->> 'clock', fleet.epoch_of(v_from) - 1, fleet.epoch_of(v_to)) as t
    where t.offset_after > t.offset_before
  loop
    skipped_at := fleet.instant_of(v_change.changed_at);
    continue when skipped_at < v_from or skipped_at >= v_to;
    select timestamp '0001-01-01 00:00:00' + min(s.slot) * interval '1 second' + fleet.second_fraction(p_recurrence),
      timestamp '0001-01-01 00:00:00' + max(s.slot) * interval '1 second' + fleet.second_fraction(p_recurrence), count(*)
    into first_local, last_local, times
    from fleet.matching_slots(
      p_recurrence, v_change.changed_at + v_change.offset_before + c_epoch, v_change.changed_at + v_change.offset_after + c_epoch
    ) as s (slot);
    if times > 0 then
      return next;
    end if;
  end loop;
end;
$$;

comment on function fleet.skipped_times(jsonb, timestamptz, timestamptz) is
  'Where within [p_from, p_to) the clocks skip times of a compiled recurrence that leaves them out: the instant of the change, the first and '
  'the last of the times, and how many they are.';
revoke all on function fleet.skipped_times(jsonb, timestamptz, timestamptz) from public, anon, authenticated, service_role;

-- db/sources/20_recurrence/75_next_slot.sql
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

-- db/sources/20_recurrence/76_dated_slots.sql
-- Slots of a recurrence that leaves out or adds single dates: those of its rule without the ones, and with the others.

create or replace function fleet.is_left_out(p_dates jsonb, p_slot bigint)
returns boolean
language sql
immutable
parallel safe
return (p_dates -> 'except') @> to_jsonb(p_slot) or (p_dates -> 'days') @> to_jsonb(p_slot / 86400);

comment on function fleet.is_left_out(jsonb, bigint) is 'Whether the compiled dates of a recurrence leave out this local second.';
revoke all on function fleet.is_left_out(jsonb, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.is_left_out(jsonb, bigint) to authenticated, service_role;

create or replace function fleet.next_dated_slot(p_recurrence jsonb, p_from bigint)
returns bigint
language plpgsql
immutable
strict
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rule  jsonb := p_recurrence - 'dates';
  v_dates jsonb := p_recurrence -> 'dates';
  v_slot  bigint := fleet.next_slot(v_rule, p_from);
begin
  -- At most once for each date that is left out.
  while fleet.is_left_out(v_dates, v_slot) loop
    v_slot := fleet.next_slot(
      v_rule, case when (v_dates -> 'except') @> to_jsonb(v_slot) then v_slot + 1 else (v_slot / 86400 + 1) * 86400 end
    );
  end loop;
  return least(
    v_slot,
    (select min(a.at::bigint) from jsonb_array_elements(v_dates -> 'also') as a (at) where a.at::bigint >= p_from)
  );
end;
$$;

comment on function fleet.next_dated_slot(jsonb, bigint) is 'fleet.next_slot for a recurrence with single dates.';
revoke all on function fleet.next_dated_slot(jsonb, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.next_dated_slot(jsonb, bigint) to authenticated, service_role;

create or replace function fleet.dated_slots(p_recurrence jsonb, p_from bigint, p_to bigint)
returns setof bigint
language plpgsql
immutable
strict
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select s.slot
    from fleet.matching_slots(p_recurrence - 'dates', p_from, p_to) as s (slot)
    where not fleet.is_left_out(p_recurrence -> 'dates', s.slot)
    union
    select a.at::bigint
    from jsonb_array_elements(p_recurrence #> '{dates,also}') as a (at)
    where a.at::bigint >= p_from and a.at::bigint < p_to
    order by 1;
end;
$$;

comment on function fleet.dated_slots(jsonb, bigint, bigint) is 'fleet.matching_slots for a recurrence with single dates.';
revoke all on function fleet.dated_slots(jsonb, bigint, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.dated_slots(jsonb, bigint, bigint) to authenticated, service_role;

create or replace function fleet.count_dated_slots(p_recurrence jsonb, p_from bigint, p_to bigint)
returns bigint
language sql
immutable
strict
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  -- All of the rule, less those that are left out, and those that are added where the rule has none.
  select fleet.count_slots(p_recurrence - 'dates', p_from, p_to)
    - (
      select count(*)
      from jsonb_array_elements(p_recurrence #> '{dates,except}') as e (at)
      where e.at::bigint >= p_from and e.at::bigint < p_to
        and fleet.next_slot(p_recurrence - 'dates', e.at::bigint) = e.at::bigint
    )
    - (
      select coalesce(sum(fleet.count_slots(
        p_recurrence - 'dates', greatest(p_from, d.day::bigint * 86400), least(p_to, (d.day::bigint + 1) * 86400)
      )), 0)::bigint
      from jsonb_array_elements(p_recurrence #> '{dates,days}') as d (day)
      where d.day::bigint * 86400 < p_to and (d.day::bigint + 1) * 86400 > p_from
    )
    + (
      select count(*)
      from jsonb_array_elements(p_recurrence #> '{dates,also}') as a (at)
      where a.at::bigint >= p_from and a.at::bigint < p_to
        and fleet.next_slot(p_recurrence - 'dates', a.at::bigint) is distinct from a.at::bigint
    )
$$;

comment on function fleet.count_dated_slots(jsonb, bigint, bigint) is 'fleet.count_slots for a recurrence with single dates.';
revoke all on function fleet.count_dated_slots(jsonb, bigint, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.count_dated_slots(jsonb, bigint, bigint) to authenticated, service_role;

-- db/sources/20_recurrence/80_next.sql
-- The next occurrence. Far from any change of the clocks it is plain arithmetic; near one, the spans of clocks decide.
-- fleet.next_occurrence and fleet.next_calendar_occurrence have no settings: see fleet.next_slot.

create or replace function fleet.next_occurrence(p_recurrence jsonb, p_after timestamptz)
returns timestamptz
language plpgsql
stable
as $$
declare
  v_kind  text := p_recurrence ->> 'kind';
  v_start timestamptz := (p_recurrence ->> 'start')::timestamptz;
  v_after timestamptz := p_after;
  v_next  timestamptz;
begin
  if v_kind is null then
    return fleet.next_occurrence(fleet.recompile_recurrence(p_recurrence), p_after);
  elsif p_after = 'infinity' then
    return null;
  elsif p_after < v_start then
    -- The start itself may be an occurrence.
    v_after := v_start - interval '1 microsecond';
  elsif p_after < '0001-01-03Z' then
    v_after := '0001-01-03Z';
  end if;

  if v_kind = 'calendar' and p_recurrence ? 'microseconds' then
    v_next := fleet.next_calendar_occurrence(p_recurrence, v_after - fleet.second_fraction(p_recurrence))
      + fleet.second_fraction(p_recurrence);
  elsif v_kind = 'calendar' then
    v_next := fleet.next_calendar_occurrence(p_recurrence, v_after);
  elsif p_after < v_start then
    v_next := v_start;
  elsif v_kind = 'interval' then
    v_next := fleet.next_in_interval(v_start, (p_recurrence ->> 'interval_seconds')::bigint, p_after);
  end if;

  if v_next > (p_recurrence ->> 'end')::timestamptz then
    return null;
  end if;
  return v_next;
end;
$$;

comment on function fleet.next_occurrence(jsonb, timestamptz) is
  'The first occurrence of a compiled recurrence strictly after p_after; null when there is none.';
revoke all on function fleet.next_occurrence(jsonb, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.next_occurrence(jsonb, timestamptz) to authenticated, service_role;

create or replace function fleet.next_in_interval(p_start timestamptz, p_seconds bigint, p_after timestamptz)
returns timestamptz
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_second   bigint := fleet.epoch_of(p_start);
  v_fraction interval := p_start - fleet.instant_of(v_second);
  -- The second that p_after lies in, as seen from a start without its fraction.
  v_after    bigint := fleet.epoch_of(p_after - v_fraction);
begin
  return fleet.instant_of(v_second + ((v_after - v_second) / p_seconds + 1) * p_seconds) + v_fraction;
end;
$$;

comment on function fleet.next_in_interval(timestamptz, bigint, timestamptz) is
  'The first multiple of p_seconds from p_start on that lies after p_after.';
revoke all on function fleet.next_in_interval(timestamptz, bigint, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.next_in_interval(timestamptz, bigint, timestamptz) to authenticated, service_role;

create or replace function fleet.next_calendar_occurrence(p_recurrence jsonb, p_after timestamptz)
returns timestamptz
language plpgsql
immutable
parallel safe
as $$
declare
  v_clock  text := p_recurrence ->> 'clock';
  v_epoch  bigint := fleet.epoch_of(p_after);
  v_offset bigint := fleet.utc_offset(v_clock, v_epoch);
  v_local  bigint := v_epoch + v_offset + 62135596800;
  v_slot   bigint := fleet.next_slot(p_recurrence, v_local + 1);
  v_next   bigint;
begin
  if v_slot is null then
    return null;
  end if;

  -- Whether the clocks stand still from a day before to a day after: the widest change there was is a day.
  if v_slot - v_local <= 86400 then
    v_next := v_epoch + v_slot - v_local;
    if fleet.utc_offset(v_clock, v_epoch - 90000) = v_offset
      and fleet.utc_offset(v_clock, v_next + 90000) = v_offset
    then
      return fleet.instant_of(v_next);
    end if;
  elsif fleet.utc_offset(v_clock, v_epoch - 90000) = v_offset
    and fleet.utc_offset(v_clock, v_epoch + 90000) = v_offset
  then
    -- Far away the clocks may have changed and changed back, so there they are looked at anew.
    v_offset := fleet.utc_offset(v_clock, v_epoch + v_slot - v_local);
    v_next := v_slot - 62135596800 - v_offset;
    if fleet.utc_offset(v_clock, v_next - 90000) = v_offset
      and fleet.utc_offset(v_clock, v_next + 90000) = v_offset
    then
      return fleet.instant_of(v_next);
    end if;
  end if;

  return fleet.search_occurrence(p_recurrence, v_epoch);
end;
$$;

comment on function fleet.next_calendar_occurrence(jsonb, timestamptz) is
  'The first occurrence of a compiled calendar recurrence after p_after, its start and end aside.';
revoke all on function fleet.next_calendar_occurrence(jsonb, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.next_calendar_occurrence(jsonb, timestamptz) to authenticated, service_role;

create or replace function fleet.search_occurrence(p_recurrence jsonb, p_after bigint)
returns timestamptz
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_clock text := p_recurrence ->> 'clock';
  v_from  bigint := p_after + 1;
  v_found bigint;
  v_slot  bigint;
begin
  -- Time and again, because under gap = skip a few of the times may not exist.
  for v_try in 1..500 loop
    v_found := fleet.first_occurrence(p_recurrence, v_from, v_from + 90000);
    if v_found is not null then
      return fleet.instant_of(v_found);
    end if;

    -- Up to shortly before the next time that is named; a day of clocks set back may lie in between.
    v_from := v_from + 90000;
    v_slot := fleet.next_slot(p_recurrence, v_from + fleet.utc_offset(v_clock, v_from) + 62135596800 - 90000);
    if v_slot is null then
      return null;
    end if;
    v_from := greatest(v_from, v_slot - 62135596800 - 150000);
  end loop;
  return null;
end;
$$;

comment on function fleet.search_occurrence(jsonb, bigint) is
  'The first occurrence after a Unix second near which the clocks change.';
revoke all on function fleet.search_occurrence(jsonb, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.search_occurrence(jsonb, bigint) to authenticated, service_role;

create or replace function fleet.first_occurrence(p_recurrence jsonb, p_from bigint, p_to bigint)
returns bigint
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_span    record;
  v_slot    bigint;
  v_skipped bigint;
begin
  for v_span in
    select * from fleet.clock_spans(
      p_recurrence ->> 'clock', p_recurrence ->> 'resolve_gap', p_recurrence ->> 'resolve_fold', p_from, p_to
    )
  loop
    if v_span.is_one_instant then
      if fleet.next_slot(p_recurrence, v_span.begins_at + v_span.skipped_shift) < v_span.ends_at + v_span.shift then
        return v_span.ends_at - 1;
      end if;
      continue;
    end if;

    v_slot := fleet.next_slot(p_recurrence, v_span.begins_at + v_span.shift) - v_span.shift;
    v_skipped := fleet.next_slot(p_recurrence, v_span.begins_at + v_span.skipped_shift) - v_span.skipped_shift;
    if least(v_slot, v_skipped) < v_span.ends_at then
      return least(v_slot, v_skipped);
    end if;
  end loop;
  return null;
end;
$$;

comment on function fleet.first_occurrence(jsonb, bigint, bigint) is
  'The first of fleet.calendar_occurrences in [p_from, p_to), by the same spans; null when there is none.';
revoke all on function fleet.first_occurrence(jsonb, bigint, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.first_occurrence(jsonb, bigint, bigint) to authenticated, service_role;

-- db/sources/20_recurrence/90_words.sql
-- Numbers in English, for descriptions.

create or replace function fleet.english_list(p_words text[], p_joint text default 'and')
returns text
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case
    when cardinality(p_words) <= 1 then p_words[1]
    else array_to_string(p_words[:cardinality(p_words) - 1], ', ') || ' ' || p_joint || ' '
      || p_words[cardinality(p_words)]
  end
$$;

comment on function fleet.english_list(text[], text) is 'Words as a list: "a", "a and b", "a, b and c".';
revoke all on function fleet.english_list(text[], text) from public, anon, authenticated, service_role;
grant execute on function fleet.english_list(text[], text) to authenticated, service_role;

create or replace function fleet.english_ordinal(p_number integer)
returns text
language sql
immutable
parallel safe
return p_number || case
  when p_number % 100 between 11 and 13 then 'th'
  when p_number % 10 = 1 then 'st'
  when p_number % 10 = 2 then 'nd'
  when p_number % 10 = 3 then 'rd'
  else 'th'
end;

comment on function fleet.english_ordinal(integer) is '1st, 2nd, 3rd, 4th, … 11th, … 21st.';
revoke all on function fleet.english_ordinal(integer) from public, anon, authenticated, service_role;
grant execute on function fleet.english_ordinal(integer) to authenticated, service_role;

create or replace function fleet.english_runs(p_numbers integer[], p_names text[])
returns text
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  -- Numbers that follow each other share their difference to their rank.
  with runs as (
    select min(n.number) as first, max(n.number) as last
    from (
      select v.number, v.number - row_number() over (order by v.number) as run
      from unnest(p_numbers) as v (number)
    ) as n
    group by n.run
  ),
  words as (
    select r.first, case
      when r.last - r.first >= 2 then array[p_names[r.first] || ' to ' || p_names[r.last]]
      when r.last > r.first then array[p_names[r.first], p_names[r.last]]
      else array[p_names[r.first]]
    end as words
    from runs as r
  )
  select fleet.english_list(array_agg(u.word order by w.first, u.nr))
  from words as w
  cross join unnest(w.words) with ordinality as u (word, nr)
$$;

comment on function fleet.english_runs(integer[], text[]) is
  'Numbers by their names (the first name is that of 1), three or more in a row as "Monday to Friday".';
revoke all on function fleet.english_runs(integer[], text[]) from public, anon, authenticated, service_role;
grant execute on function fleet.english_runs(integer[], text[]) to authenticated, service_role;

create or replace function fleet.english_weekdays(p_weekdays integer[])
returns text
language sql
immutable
parallel safe
return fleet.english_runs(
  p_weekdays, '{Monday,Tuesday,Wednesday,Thursday,Friday,Saturday,Sunday}'::text[]
);

comment on function fleet.english_weekdays(integer[]) is 'Weekdays from 1 (Monday) to 7 (Sunday) by name.';
revoke all on function fleet.english_weekdays(integer[]) from public, anon, authenticated, service_role;
grant execute on function fleet.english_weekdays(integer[]) to authenticated, service_role;

create or replace function fleet.english_numbers(p_numbers integer[])
returns text
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  -- Names count from 1, numbers from 0.
  select fleet.english_runs(
    array(select n + 1 from unnest(p_numbers) as n),
    array(select (n - 1)::text from generate_series(1, 60) as n)
  )
$$;

comment on function fleet.english_numbers(integer[]) is 'Numbers from 0 to 59, three or more in a row as "9 to 17".';
revoke all on function fleet.english_numbers(integer[]) from public, anon, authenticated, service_role;
grant execute on function fleet.english_numbers(integer[]) to authenticated, service_role;

create or replace function fleet.english_length(p_seconds bigint)
returns text
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case
    when s.number = 1 then s.unit
    else s.number || ' ' || s.unit || 's'
  end
  from (
    select p_seconds / u.length as number, u.unit
    from (
      values (604800, 'week'), (86400, 'day'), (3600, 'hour'), (60, 'minute'), (1, 'second')
    ) as u (length, unit)
    where p_seconds % u.length = 0
    order by u.length desc
    limit 1
  ) as s
$$;

comment on function fleet.english_length(bigint) is 'A length of time in its largest whole unit: "day", "90 minutes".';
revoke all on function fleet.english_length(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.english_length(bigint) to authenticated, service_role;

create or replace function fleet.regular_step(p_values integer[], p_size integer)
returns integer
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select p_size / cardinality(p_values)
  where cardinality(p_values) > 1
    and p_size % cardinality(p_values) = 0
    and p_values = array(select generate_series(0, p_size - 1, p_size / cardinality(p_values)))
$$;

comment on function fleet.regular_step(integer[], integer) is
  'The step by which values go evenly round a clock of this size from 0 on; null where they do not.';
revoke all on function fleet.regular_step(integer[], integer) from public, anon, authenticated, service_role;
grant execute on function fleet.regular_step(integer[], integer) to authenticated, service_role;

-- db/sources/20_recurrence/91_describe_cron.sql
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

-- db/sources/20_recurrence/92_describe.sql
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

-- db/sources/20_recurrence/93_rrule_fields.sql
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

-- db/sources/20_recurrence/94_rrule_positions.sql
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

-- db/sources/20_recurrence/95_rrule_frequencies.sql
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

-- db/sources/20_recurrence/96_rrule_block.sql
-- A rule as calendars write it down: a block of lines, DTSTART, RRULE, EXDATE and RDATE.

create or replace function fleet.rrule_block(p_text text)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    with line as (
      select t.nr, case when t.line ~* c_named.pattern then upper(substring(t.line from '^[A-Za-z-]+')) else 'RRULE' end as name,
        regexp_replace(substring(t.line from '(?i);TZID=("[^"]*"|[^";:]*)[;:]'), '"', '', 'g') as zone,
        case when t.line ~* c_named.pattern then regexp_replace(t.line, c_named.pattern, '', 'i') else t.line end as value
      from regexp_split_to_table(
        -- A line that begins with a blank goes on with the one before it.
        regexp_replace(coalesce(p_text, ''), '\r?\n[ \t]', '', 'g'), '[\r\n]+'
      ) with ordinality as t (line, nr)
      cross join (values ('^[A-Z][A-Z-]*(;[^:"]*("[^"]*"[^:"]*)*)?:')) as c_named (pattern)
      where btrim(t.line, E' \t') <> ''
    ),
    entry as (
      select l.nr, l.name, jsonb_build_object('value', upper(btrim(v.value)), 'zone', l.zone) as date, btrim(v.value) as value
      from line as l
      cross join lateral regexp_split_to_table(l.value, ',') as v (value)
      where l.name in ('DTSTART', 'EXDATE', 'RDATE')
    )
    select jsonb_build_object(
      'rule', (select min(l.value) from line as l where l.name = 'RRULE'),
      'start', (select e.date from entry as e where e.name = 'DTSTART' order by e.nr limit 1),
      'except', (select coalesce(jsonb_agg(e.date order by e.nr), '[]') from entry as e where e.name = 'EXDATE'),
      'also', (select coalesce(jsonb_agg(e.date order by e.nr), '[]') from entry as e where e.name = 'RDATE'),
      'problem', coalesce(
        (
          select format('the line %s is not supported', left(l.name, 40))
          from line as l
          where l.name not in ('RRULE', 'DTSTART', 'EXDATE', 'RDATE')
          order by l.nr
          limit 1
        ),
        (
          select l.name || case l.name when 'RRULE' then ' (twice) is not supported' else ' comes twice' end
          from line as l
          where l.name in ('RRULE', 'DTSTART')
          group by l.name
          having count(*) > 1
          order by l.name desc
          limit 1
        ),
        case when not exists (select from line) then 'is empty' end,
        case when not exists (select from line as l where l.name = 'RRULE') then 'the line RRULE is missing' end,
        (
          select format('%s: %s is not a date or time such as 20310303T063000', e.name, quote_literal(left(e.value, 60)))
          from entry as e
          where e.value !~* '^\d{8}(T\d{6}Z?)?$' or fleet.rrule_local_text(e.date - 'zone', 'UTC') is null
          order by e.nr
          limit 1
        )
      )
    )
  );
end;
$$;

comment on function fleet.rrule_block(text) is
  'A rule, alone or in a block of lines: {rule, start, except, also, problem}; dates as {value, zone}.';
revoke all on function fleet.rrule_block(text) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_block(text) to authenticated, service_role;

create or replace function fleet.rrule_local_text(p_date jsonb, p_timezone text)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_text text := regexp_replace(
    regexp_replace(p_date ->> 'value', '^(\d{4})(\d\d)(\d\d)', '\1-\2-\3'), 'T(\d\d)(\d\d)(\d\d)', 'T\1:\2:\3'
  );
  -- Some programs put a name of their own in front: /example.org/2026a/Europe/Berlin.
  v_zone text := regexp_replace(p_date ->> 'zone', '^/.*/([^/]+/[^/]+)$', '\1');
  v_at timestamp;
begin
  v_at := rtrim(v_text, 'Z')::timestamp;
  if v_text !~ 'T' then
    return to_char(v_at, 'YYYY-MM-DD');
  elsif v_text ~ 'Z$' then
    v_at := (v_at at time zone 'UTC') at time zone fleet.zone_clock(p_timezone);
  elsif v_zone <> p_timezone then
    v_at := fleet.local_to_instant(v_at, v_zone) at time zone fleet.zone_clock(p_timezone);
  end if;
  return to_char(v_at, 'YYYY-MM-DD"T"HH24:MI:SS');
exception
  when invalid_datetime_format or datetime_field_overflow or invalid_parameter_value then
    return null;
end;
$$;

comment on function fleet.rrule_local_text(jsonb, text) is
  'A date or a time of a block as the clocks of a zone show it; null where it is none, or its own zone is not known.';
revoke all on function fleet.rrule_local_text(jsonb, text) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_local_text(jsonb, text) to authenticated, service_role;

create or replace function fleet.rrule_block_start(p_block jsonb, p_timezone text)
returns timestamptz
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select fleet.local_to_instant(fleet.rrule_local_text(p_block -> 'start', p_timezone)::timestamp, p_timezone)
    where p_block ->> 'problem' is null and p_block -> 'start' <> 'null'
  );
end;
$$;

comment on function fleet.rrule_block_start(jsonb, text) is 'The instant of DTSTART, which is local to the zone where it says none; null without it.';
revoke all on function fleet.rrule_block_start(jsonb, text) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_block_start(jsonb, text) to authenticated, service_role;

create or replace function fleet.rrule_block_dates(p_block jsonb, p_local timestamp, p_timezone text)
returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select coalesce(jsonb_object_agg(d.name, d.dates), '{}')
    from (
      select k.name, jsonb_agg(case
        -- A day that is added runs at the time of day of the start.
        when k.name = 'also' and t.text !~ 'T' then t.text || to_char(p_local, '"T"HH24:MI:SS') else t.text
      end order by e.nr) as dates
      from (values ('except'), ('also')) as k (name)
      cross join lateral jsonb_array_elements(p_block -> k.name) with ordinality as e (date, nr)
      cross join lateral fleet.rrule_local_text(e.date, p_timezone) as t (text)
      group by k.name
    ) as d
  );
end;
$$;

comment on function fleet.rrule_block_dates(jsonb, timestamp, text) is
  'EXDATE and RDATE of a block as except and also of a recurrence; {} without them.';
revoke all on function fleet.rrule_block_dates(jsonb, timestamp, text) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_block_dates(jsonb, timestamp, text) to authenticated, service_role;

create or replace function fleet.rrule_refusal_of_dates(p_dates jsonb, p_local timestamp, p_end timestamp)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select coalesce(min(jsonb_build_object('refused', case
      when e.value::timestamp < p_local then 'RDATE before DTSTART' else 'RDATE after the end of the rule'
    end)::text)::jsonb, '{}')
    from jsonb_array_elements_text(coalesce(p_dates -> 'also', '[]')) as e (value)
    where e.value::timestamp < p_local or e.value::timestamp > p_end
  );
end;
$$;

comment on function fleet.rrule_refusal_of_dates(jsonb, timestamp, timestamp) is
  'Why single dates cannot be added to a rule with this start and end; {} where they can.';
revoke all on function fleet.rrule_refusal_of_dates(jsonb, timestamp, timestamp)
  from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_refusal_of_dates(jsonb, timestamp, timestamp) to authenticated, service_role;

-- db/sources/20_recurrence/97_rrule.sql
-- Recurrence rules of calendars (RFC 5545) in our own words.

create or replace function fleet.recurrence_from_rrule(
  p_rrule text,
  p_start timestamptz,
  p_timezone text
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_block   jsonb := fleet.rrule_block(p_rrule);
  v_parts   jsonb := fleet.rrule_parts(v_block ->> 'rule');
  v_start   timestamptz := date_trunc('second', coalesce(p_start, fleet.rrule_block_start(v_block, p_timezone)));
  v_problem text;
  v_local   timestamp;
  v_spec    jsonb;
  v_end     timestamptz;
  v_dates   jsonb;
begin
  select format('%s: %s', t.field, t.problem) into v_problem
  from fleet.timezone_problems(p_timezone) as t;
  v_problem := coalesce(
    v_problem,
    case when v_start is null then 'start_time: is missing' end,
    'RRULE: ' || (v_block ->> 'problem'),
    (
      select format('RRULE: TZID=%s is not a time zone', left(z.name, 60))
      from jsonb_path_query(v_block, 'strict $.**.zone') as e (zone)
      cross join lateral regexp_replace(e.zone #>> '{}', '^/.*/([^/]+/[^/]+)$', '\1') as z (name)
      where jsonb_typeof(e.zone) = 'string' and not fleet.is_time_zone(z.name)
      limit 1
    ),
    fleet.rrule_problem(v_parts),
    case
      when v_parts ? 'UNTIL' and fleet.recurrence_end(fleet.rrule_until(v_parts), p_timezone) is null
        then format('RRULE: UNTIL=%s is not valid', v_parts ->> 'UNTIL')
    end
  );
  if v_problem is not null then
    raise exception '%', v_problem
      using errcode = 'PT422',
            detail = 'rrule_invalid',
            hint = 'Write a rule such as FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,FR, or a cron expression instead';
  end if;

  v_local := v_start at time zone fleet.zone_clock(p_timezone);
  v_dates := fleet.rrule_block_dates(v_block, v_local, p_timezone);
  v_spec := fleet.rrule_in_our_words(v_parts, v_local, v_dates <> '{}') || jsonb_build_object(
    'start_time', fleet.instant_text(v_start),
    'timezone', p_timezone,
    -- The standard moves a skipped time by as much as the clocks jump.
    'policies', '{"gap": "shift", "fold": "first"}'::jsonb
  );
  if not v_spec ? 'refused' then
    v_end := fleet.rrule_end(v_parts, v_spec, p_timezone);
    v_spec := v_spec || case when v_end = 'infinity' then '{"refused": "COUNT that is not reached within a thousand years"}' else '{}' end::jsonb
      || fleet.rrule_refusal_of_dates(v_dates, v_local, v_end at time zone fleet.zone_clock(p_timezone));
  end if;
  if v_spec ? 'refused' then
    raise exception 'RRULE: %', v_spec ->> 'refused'
      using errcode = 'PT422',
            detail = 'rrule_unsupported',
            hint = 'Split the rule into several schedules, each of which we can express';
  end if;

  return v_spec
    || jsonb_build_object('recurrence_config', (v_spec -> 'recurrence_config') || v_dates)
    || case
      when v_end is null then '{}'::jsonb
      else jsonb_build_object('end_time', fleet.instant_text(v_end))
    end;
end;
$$;

comment on function fleet.recurrence_from_rrule(text, timestamptz, text) is
  'A calendar''s rule as part of a schedule: recurrence_type, recurrence_config, start_time, end_time (from UNTIL or '
  'COUNT), timezone and policies. The rule may stand in a block with DTSTART, EXDATE and RDATE; a start that is given goes before '
  'DTSTART. Raises rrule_invalid or rrule_unsupported (PT422) with the reason.';
revoke all on function fleet.recurrence_from_rrule(text, timestamptz, text)
  from public, anon, authenticated, service_role;
grant execute on function fleet.recurrence_from_rrule(text, timestamptz, text) to service_role;

create or replace function fleet.rrule_parts(p_rrule text)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A part that comes twice is an error of the standard; kept under its name with a mark it is refused as unknown.
  return (
    select jsonb_object_agg(
      case when p.nr = 1 then p.name else p.name || ' (twice)' end,
      case
        when p.name in ('FREQ', 'UNTIL', 'WKST') then p.value
        -- The standard allows a plus and leading zeros in front of a number.
        else regexp_replace(regexp_replace(p.value, '(^|,)\+', '\1', 'g'), '(^|,|-)0+(?=\d)', '\1', 'g')
      end
    )
    from (
      select
        upper(btrim(split_part(t.part, '=', 1))) as name,
        case when strpos(t.part, '=') > 0 then upper(btrim(substr(t.part, strpos(t.part, '=') + 1))) else '' end as value,
        row_number() over (partition by upper(btrim(split_part(t.part, '=', 1))) order by t.n) as nr
      from regexp_split_to_table(regexp_replace(btrim(p_rrule, E' \t\r\n'), '^RRULE:', '', 'i'), ';')
        with ordinality as t (part, n)
      where btrim(t.part) <> ''
    ) as p
  );
end;
$$;

comment on function fleet.rrule_parts(text) is 'The parts of a rule by name, in upper case, numbers without plus and leading zeros.';
revoke all on function fleet.rrule_parts(text) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_parts(text) to authenticated, service_role;

create or replace function fleet.rrule_problem(p_parts jsonb)
returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select coalesce(
      case when p_parts is null then 'RRULE: is empty' end,
      case when not p_parts ? 'FREQ' then 'RRULE: FREQ is missing' end,
      case when p_parts ?& '{COUNT,UNTIL}' then 'RRULE: COUNT and UNTIL exclude each other' end,
      (
        select case
          when f.pattern is null then format('RRULE: %s is not supported', e.name)
          else format('RRULE: %s=%s is not valid', e.name, e.value)
        end
        from jsonb_each_text(p_parts) as e (name, value)
        left join (
          values
            ('FREQ', '^(SECONDLY|MINUTELY|HOURLY|DAILY|WEEKLY|MONTHLY|YEARLY)$'),
            ('INTERVAL', '^[1-9]\d{0,6}$'),
            ('COUNT', '^[1-9]\d{0,4}$'),
            ('UNTIL', '^\d{8}(T\d{6}Z?)?$'),
            ('WKST', '^(MO|TU|WE|TH|FR|SA|SU)$'),
            ('BYDAY', '^(-?([1-9]|[1-4]\d|5[0-3]))?(MO|TU|WE|TH|FR|SA|SU)(,(-?([1-9]|[1-4]\d|5[0-3]))?(MO|TU|WE|TH|FR|SA|SU))*$'),
            ('BYMONTHDAY', '^-?([1-9]|[12]\d|3[01])(,-?([1-9]|[12]\d|3[01]))*$'),
            ('BYMONTH', '^([1-9]|1[0-2])(,([1-9]|1[0-2]))*$'),
            ('BYSETPOS', '^-?[1-9]\d{0,2}(,-?[1-9]\d{0,2})*$'),
            ('BYHOUR', '^(1?\d|2[0-3])(,(1?\d|2[0-3]))*$'),
            ('BYMINUTE', '^[1-5]?\d(,[1-5]?\d)*$'),
            ('BYSECOND', '^[1-5]?\d(,[1-5]?\d)*$'),
            -- What a calendar of another kind would say otherwise.
            ('RSCALE', '^GREGORIAN$'),
            ('SKIP', '^OMIT$')
        ) as f (name, pattern) using (name)
        where f.pattern is null
          or e.value !~ f.pattern
        order by e.name
        limit 1
      )
    )
  );
end;
$$;

comment on function fleet.rrule_problem(jsonb) is 'What is wrong with the form of a rule; null when nothing is.';
revoke all on function fleet.rrule_problem(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_problem(jsonb) to authenticated, service_role;

create or replace function fleet.rrule_end(p_parts jsonb, p_spec jsonb, p_timezone text)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_start timestamptz := (p_spec ->> 'start_time')::timestamptz;
  v_clock text := fleet.zone_clock(p_timezone);
  v_left  bigint := (p_parts ->> 'COUNT')::bigint;
  v_plan  jsonb;
  v_from  bigint;
  v_limit bigint;
  v_width bigint := 30 * 86400;
  v_found bigint;
begin
  if p_parts ? 'UNTIL' then
    return fleet.recurrence_end(fleet.rrule_until(p_parts), p_timezone);
  elsif v_left is null then
    return null;
  end if;

  v_plan := fleet.compile_recurrence(
    p_spec ->> 'recurrence_type', p_spec -> 'recurrence_config', p_timezone, v_start, null,
    p_spec #>> '{policies,gap}', p_spec #>> '{policies,fold}'
  );
  if v_plan ->> 'kind' = 'interval' then
    return v_start + (v_left - 1) * (v_plan ->> 'interval_seconds')::bigint * interval '1 second';
  end if;

  -- What a rule counts are its local times. In growing pieces, which are counted and not listed.
  v_from := fleet.epoch_of((v_start at time zone v_clock) at time zone 'UTC') + 62135596800;
  v_limit := v_from + 1000 * 366::bigint * 86400;
  while v_from < v_limit and fleet.next_slot(v_plan, v_from) is not null loop
    v_found := fleet.count_slots(v_plan, v_from, v_from + v_width);
    if v_found >= v_left then
      return fleet.rrule_last_instant(v_plan, (
        select s.slot from fleet.matching_slots(v_plan, v_from, v_from + v_width) as s (slot) order by s.slot offset v_left - 1 limit 1
      ));
    end if;
    v_left := v_left - v_found;
    v_from := v_from + v_width;
    v_width := v_width * 2;
  end loop;
  return 'infinity';
end;
$$;

comment on function fleet.rrule_end(jsonb, jsonb, text) is
  'The last moment of a rule: its UNTIL, or its COUNT-th occurrence; null when it never ends, infinity where its COUNT is not reached within '
  'a thousand years.';
revoke all on function fleet.rrule_end(jsonb, jsonb, text) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_end(jsonb, jsonb, text) to authenticated, service_role;

create or replace function fleet.rrule_until(p_parts jsonb)
returns text
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select regexp_replace(
    regexp_replace(p_parts ->> 'UNTIL', '^(\d{4})(\d\d)(\d\d)', '\1-\2-\3'), 'T(\d\d)(\d\d)(\d\d)', 'T\1:\2:\3'
  )
$$;

comment on function fleet.rrule_until(jsonb) is 'UNTIL of a rule as people write dates; null without it.';
revoke all on function fleet.rrule_until(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_until(jsonb) to authenticated, service_role;

create or replace function fleet.rrule_last_instant(p_plan jsonb, p_slot bigint)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_clock text := p_plan ->> 'clock';
  v_local timestamp := timestamp 'epoch' + (p_slot - 62135596800) * interval '1 second';
  v_first timestamptz;
  v_last  timestamptz;
begin
  select w.first_at, w.last_at into v_first, v_last from fleet.wall_instants(v_local, v_clock) as w;
  return case
    -- A skipped time runs as much later as the clocks jump, which is how Postgres reads it.
    when (v_first at time zone v_clock) <> v_local then v_local at time zone v_clock
    when p_plan @> '{"is_elapsed": true}' then v_last
    else v_first
  end;
end;
$$;

comment on function fleet.rrule_last_instant(jsonb, bigint) is 'The instant at which a rule runs for a local second.';
revoke all on function fleet.rrule_last_instant(jsonb, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_last_instant(jsonb, bigint) to authenticated, service_role;

set check_function_bodies = on;
reset search_path;
