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
return case when p_text ~ '^[0-9]{1,18}$' then p_text::bigint end;

comment on function fleet.try_bigint(text) is 'The text as an id; null where it is none.';
revoke all on function fleet.try_bigint(text) from public, anon, authenticated, service_role;
grant execute on function fleet.try_bigint(text) to authenticated, service_role;

create or replace function fleet.number_or_null(p_value jsonb)
returns numeric
language sql
immutable
parallel safe
return case when jsonb_typeof(p_value) = 'number' then (p_value #>> '{}')::numeric end;

comment on function fleet.number_or_null(jsonb) is 'A number in JSON; null for anything else.';
revoke all on function fleet.number_or_null(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.number_or_null(jsonb) to authenticated, service_role;

create or replace function fleet.text_of_bytes(p_bytes bytea)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_bytes bytea := p_bytes;
begin
  if position('\x00'::bytea in p_bytes) > 0 then
    -- UTF-16 without its zero bytes reads as the letters that it holds, as far as they are Latin ones.
    select coalesce(string_agg(substring(p_bytes from i for 1), ''::bytea order by i), '') into v_bytes
    from generate_series(1, least(length(p_bytes), 65536)) as i
    where get_byte(p_bytes, i - 1) <> 0;
  end if;
  return convert_from(v_bytes, 'UTF8');
exception
  when character_not_in_repertoire or untranslatable_character then
    return convert_from(v_bytes, 'LATIN1');
end;
$$;

comment on function fleet.text_of_bytes(bytea) is 'Bytes as text: UTF-8, else as good as it goes. Never raises.';
revoke all on function fleet.text_of_bytes(bytea) from public, anon, authenticated, service_role;

create or replace function fleet.plain_xml_text(p_text text)
returns text
language sql
immutable
parallel safe
return btrim(regexp_replace(
  replace(replace(replace(replace(replace(replace(replace(
    p_text, '&lt;', '<'), '&gt;', '>'), '&quot;', '"'), '&apos;', ''''), '&#34;', '"'), '&#39;', ''''), '&amp;', '&'),
  '\s+', ' ', 'g'
));

comment on function fleet.plain_xml_text(text) is 'The text of an XML element as people read it.';
revoke all on function fleet.plain_xml_text(text) from public, anon, authenticated, service_role;

create or replace function fleet.calendar_instant(p_instant timestamptz)
returns timestamptz
language sql
stable
parallel safe
return least(greatest(coalesce(p_instant, now()), '0001-01-01 00:00:00+00'), '9999-12-31 00:00:00+00');

comment on function fleet.calendar_instant(timestamptz) is
  'An instant that people write, brought into the calendar of ten thousand years, where nothing that is added to it overflows; now where they write none.';
revoke all on function fleet.calendar_instant(timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.calendar_instant(timestamptz) to authenticated, service_role;

create or replace function fleet.calendar_interval(p_interval interval)
returns interval
language sql
immutable
parallel safe
return case when p_interval is not null then least(greatest(p_interval, interval '-1000 years'), interval '1000 years') end;

comment on function fleet.calendar_interval(interval) is
  'A duration that people write, cut to a thousand years: as far out of bounds as before, but added to an instant it does not overflow.';
revoke all on function fleet.calendar_interval(interval) from public, anon, authenticated, service_role;
grant execute on function fleet.calendar_interval(interval) to authenticated, service_role;
