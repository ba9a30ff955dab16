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
