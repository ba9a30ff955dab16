-- Single dates that a recurrence leaves out ("except") or adds ("also"), in local time as its other times are: their
-- problems, and how they are compiled. A date in "except" is all of its day.

create or replace function fleet.local_second_of(p_value jsonb)
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if jsonb_typeof(p_value) = 'string' and p_value #>> '{}' ~ '^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2})?)?$' then
    return date_part('epoch', (p_value #>> '{}')::timestamp)::bigint + 62135596800;
  end if;
  return null;
exception
  when invalid_datetime_format or datetime_field_overflow then
    return null;
end;
$$;

comment on function fleet.local_second_of(jsonb) is
  'A local date (its midnight) or a local time as local seconds; null where it is neither, or names an offset.';
revoke all on function fleet.local_second_of(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.local_second_of(jsonb) to authenticated, service_role;

create or replace function fleet.config_date_problems(p_type text, p_config jsonb)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if not p_config ?| '{except,also}' then
    return;
  end if;

  return query
  select 'recurrence_config.' || k.name, format('does not go with %s', p_type), 'Use it with daily, weekly, monthly or cron'
  from (values ('except'), ('also')) as k (name)
  where p_config ? k.name and p_type in ('once', 'interval')

  union all

  select
    'recurrence_config.' || k.name,
    format('%s is not a local %s', coalesce(quote_literal(left(e.value #>> '{}', 60)), 'null'), k.kind),
    case k.name
      when 'except' then 'Write a date such as 2026-12-24, or a time such as 2026-12-24T06:30 as the clock of the zone shows it'
      else 'Write a time such as 2026-12-27T10:00, as the clock of the zone shows it'
    end
  from (values ('except', 'date or time'), ('also', 'time')) as k (name, kind)
  cross join lateral fleet.as_list(p_config -> k.name) as e (value)
  where p_config ? k.name
    and (
      fleet.local_second_of(e.value) is null
      or (k.name = 'also' and e.value #>> '{}' !~ ':')
      or fleet.local_second_of(e.value) < 172800
    );
end;
$$;

comment on function fleet.config_date_problems(text, jsonb) is 'Says what is wrong with except and also.';
revoke all on function fleet.config_date_problems(text, jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.config_date_problems(text, jsonb) to authenticated, service_role;

create or replace function fleet.compiled_dates(p_config jsonb)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with days as (
    select distinct fleet.local_second_of(e.value) / 86400 as day
    from fleet.as_list(p_config -> 'except') as e (value)
    where e.value #>> '{}' !~ ':'
  ),
  except_at as (
    select distinct fleet.local_second_of(e.value) as at
    from fleet.as_list(p_config -> 'except') as e (value)
    where e.value #>> '{}' ~ ':'
  )
  select jsonb_build_object('dates', jsonb_build_object(
    'days', (select coalesce(jsonb_agg(d.day order by d.day), '[]') from days as d),
    'except', (
      select coalesce(jsonb_agg(x.at order by x.at), '[]')
      from except_at as x
      where x.at / 86400 not in (select d.day from days as d)
    ),
    -- What is left out is left out, whoever named it.
    'also', (
      select coalesce(jsonb_agg(a.at order by a.at), '[]')
      from (
        select distinct fleet.local_second_of(e.value) as at from fleet.as_list(p_config -> 'also') as e (value)
      ) as a
      where a.at not in (select x.at from except_at as x)
        and a.at / 86400 not in (select d.day from days as d)
    )
  ))
$$;

comment on function fleet.compiled_dates(jsonb) is 'The compiled part of except and also; nothing where there are none.';
revoke all on function fleet.compiled_dates(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.compiled_dates(jsonb) to authenticated, service_role;

create or replace function fleet.describe_dates(p_config jsonb)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(string_agg(
    format(', %s on %s', d.word, fleet.english_list(
      d.dates[:3] || case when cardinality(d.dates) > 3 then array[cardinality(d.dates) - 3 || ' more'] else '{}' end
    )),
    '' order by d.nr
  ), '')
  from (
    select k.nr, k.word, array_agg(replace(e.value #>> '{}', 'T', ' ') order by e.value #>> '{}') as dates
    from (values (1, 'except', 'except'), (2, 'also', 'also')) as k (nr, name, word)
    cross join lateral fleet.as_list(p_config -> k.name) as e (value)
    where p_config ? k.name
    group by k.nr, k.word
  ) as d
$$;

comment on function fleet.describe_dates(jsonb) is 'The dates that are left out or added, in English: ", except on 2026-12-24".';
revoke all on function fleet.describe_dates(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.describe_dates(jsonb) to authenticated, service_role;
