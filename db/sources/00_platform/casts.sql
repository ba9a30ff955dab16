-- Reading values out of text without raising.

create or replace function fleet.try_interval(p_text text)
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

comment on function fleet.try_interval(text) is 'The text as an interval; null where it is none.';
revoke all on function fleet.try_interval(text) from public, anon, authenticated, service_role;

create or replace function fleet.try_uuid(p_text text)
returns uuid
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_text ~* '^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$' then p_text::uuid
  end
$$;

comment on function fleet.try_uuid(text) is 'The text as a uuid; null where it is none.';
revoke all on function fleet.try_uuid(text) from public, anon, authenticated, service_role;

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
