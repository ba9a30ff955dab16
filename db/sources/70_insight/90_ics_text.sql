-- iCalendar (RFC 5545) as text: escaping, folding, properties.

create or replace function fleet.ics_escaped(p_text text)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select regexp_replace(
    replace(replace(replace(replace(
      regexp_replace(p_text, E'\r\n?', E'\n', 'g'),
      '\', '\\'), ';', '\;'), ',', '\,'), E'\n', '\n'),
    '[' || fleet.unseen_characters() || ']', '', 'g'
  )
$$;

comment on function fleet.ics_escaped(text) is 'Text as the value of a property: escaped, without control characters and what turns text around.';
revoke all on function fleet.ics_escaped(text) from public, anon, authenticated, service_role;

create or replace function fleet.ics_line(p_line text)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_bytes bytea := convert_to(p_line, 'UTF8');
  v_length integer := length(v_bytes);
  v_at integer := 0;
  v_parts text[] := '{}';
  v_size integer;
begin
  -- 75 octets a line, the space that continues it included; a character is never cut in two. Octets are counted, not characters: finding the
  -- n-th of those means reading all before it, for each line anew.
  while v_at < v_length loop
    v_size := least(v_length - v_at, case v_at when 0 then 75 else 74 end);
    -- What begins with the bits 10 goes on with the character before.
    while v_at + v_size < v_length and get_byte(v_bytes, v_at + v_size) & 192 = 128 loop
      v_size := v_size - 1;
    end loop;
    v_parts := v_parts || convert_from(substr(v_bytes, v_at + 1, v_size), 'UTF8');
    v_at := v_at + v_size;
  end loop;
  return array_to_string(v_parts, E'\r\n ') || E'\r\n';
end;
$$;

comment on function fleet.ics_line(text) is 'A content line, folded at 75 octets, with its end.';
revoke all on function fleet.ics_line(text) from public, anon, authenticated, service_role;

create or replace function fleet.ics_instant(p_instant timestamptz)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select to_char(p_instant at time zone 'UTC', 'YYYYMMDD"T"HH24MISS"Z"')
$$;

comment on function fleet.ics_instant(timestamptz) is 'An instant as iCalendar writes it, in UTC and whole seconds.';
revoke all on function fleet.ics_instant(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.ics_wall(p_local timestamp)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select to_char(p_local, 'YYYYMMDD"T"HH24MISS')
$$;

comment on function fleet.ics_wall(timestamp) is
  'A reading of the wall as iCalendar writes it, without a zone: the same time for whoever looks, wherever he is.';
revoke all on function fleet.ics_wall(timestamp) from public, anon, authenticated, service_role;

create or replace function fleet.ics_uid(p_schedule public.schedules, p_due_at timestamptz)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    'schedule-%s-%s@%s.pgfleet', p_schedule.id, to_char(p_due_at at time zone 'UTC', 'YYYYMMDD"T"HH24MISSUS"Z"'), p_schedule.owner_id
  )
$$;

comment on function fleet.ics_uid(public.schedules, timestamptz) is
  'The same for the same due instant of the same schedule, whenever it is asked for: calendars update the event instead of adding one.';
revoke all on function fleet.ics_uid(public.schedules, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.ics_head(p_name text, p_note text)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select string_agg(fleet.ics_line(l.line), '' order by l.nr)
  from (
    values
      (1, 'BEGIN:VCALENDAR'),
      (2, 'VERSION:2.0'),
      (3, 'PRODID:-//pgfleet//Schedules//EN'),
      (4, 'CALSCALE:GREGORIAN'),
      (5, 'METHOD:PUBLISH'),
      (6, 'NAME:' || fleet.ics_escaped(p_name)),
      (7, 'X-WR-CALNAME:' || fleet.ics_escaped(p_name)),
      -- No X-WR-TIMEZONE: it would give a zone to what is in device time and has none.
      (8, 'REFRESH-INTERVAL;VALUE=DURATION:PT1H'),
      (9, 'X-PUBLISHED-TTL:PT1H'),
      (10, 'X-WR-CALDESC:' || fleet.ics_escaped(p_note))
  ) as l(nr, line)
  where l.line is not null
$$;

comment on function fleet.ics_head(text, text) is 'The beginning of a calendar, with its name and, where there is one, a note.';
revoke all on function fleet.ics_head(text, text) from public, anon, authenticated, service_role;
