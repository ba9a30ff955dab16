-- Dates and times as people write them, read without raising.

create or replace function fleet.try_instant(p_text text, p_timezone text)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- 'now', 'tomorrow' and their kin are words of Postgres, not times; and the name of a zone behind a time would be ignored.
  if p_text !~ '^\s*\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?)?\s*(Z|z|[+-]\d{2}(:?\d{2})?)?\s*$' then
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
set search_path = pg_catalog, pg_temp
as $$
  select case when p_text ~ '\d:\d.*(Z|z|[+-]\d{2}(:?\d{2})?)$' then fleet.try_instant(p_text, 'UTC') end
$$;

comment on function fleet.try_exact_instant(text) is 'The text as an instant; null where it is none, or says no offset.';
revoke all on function fleet.try_exact_instant(text) from public, anon, authenticated, service_role;

create or replace function fleet.try_date(p_text text)
returns date
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case when p_text ~ '^\d{4}-\d{2}-\d{2}$' then (fleet.try_instant(p_text, 'UTC') at time zone 'UTC')::date end
$$;

comment on function fleet.try_date(text) is 'The text as a date; null where it is none.';
revoke all on function fleet.try_date(text) from public, anon, authenticated, service_role;
