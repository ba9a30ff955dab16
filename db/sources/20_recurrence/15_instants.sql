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
