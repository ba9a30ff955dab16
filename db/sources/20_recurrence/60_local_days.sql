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
