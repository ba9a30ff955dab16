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
