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
