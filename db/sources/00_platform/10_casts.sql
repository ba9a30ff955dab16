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
return case
  when p_text ~* '^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$' then p_text::uuid
end;

comment on function fleet.try_uuid(text) is 'The text as a uuid; null where it is none.';
revoke all on function fleet.try_uuid(text) from public, anon, authenticated, service_role;

create or replace function fleet.try_inet(p_text text)
returns inet
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return p_text::inet;
exception
  when invalid_text_representation then
    return null;
end;
$$;

comment on function fleet.try_inet(text) is 'The text as an address; null where it is none.';
revoke all on function fleet.try_inet(text) from public, anon, authenticated, service_role;

create or replace function fleet.try_bigint(p_text text)
returns bigint
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case when p_text ~ '^[0-9]{1,18}$' then p_text::bigint end
$$;

comment on function fleet.try_bigint(text) is 'The text as an id; null where it is none.';
revoke all on function fleet.try_bigint(text) from public, anon, authenticated, service_role;
grant execute on function fleet.try_bigint(text) to authenticated, service_role;
