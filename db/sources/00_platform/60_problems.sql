-- What is wrong with values that people write, named all at once: each with its field, the problem and the next step.

create or replace function fleet.raise_problems(p_what text, p_reason text, p_problems fleet.problem[])
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if coalesce(cardinality(p_problems), 0) = 0 then
    return;
  end if;

  raise exception '% is not valid: %', p_what, (
    -- What was sent is quoted: its beginning tells enough, and of a thousand problems the first ones.
    select string_agg(fleet.cut_text(p.field, 100) || ': ' || fleet.cut_text(p.problem, 300), '; ' order by p.n)
    from unnest(p_problems) with ordinality as p(field, problem, hint, n)
    where p.n <= 50
  ) || case when cardinality(p_problems) > 50 then format('; and %s more', cardinality(p_problems) - 50) else '' end
    using errcode = case
            when (select bool_and(p.problem like '% was not found') from unnest(p_problems) as p) then 'PT404'
            else 'PT422'
          end,
          detail = p_reason,
          hint = (
            select string_agg(regexp_replace(h.hint, '[.]?$', '.'), ' ' order by h.n)
            from (
              select p.hint, min(p.n) as n
              from unnest(p_problems) with ordinality as p(field, problem, hint, n)
              where p.hint <> '' and p.n <= 50
              group by p.hint
            ) as h
          );
end;
$$;

comment on function fleet.raise_problems(text, text, fleet.problem[]) is
  'One error that names every wrong field; PT404 where all that is wrong is that something was not found, else PT422. No problem, no '
  'error.';
revoke all on function fleet.raise_problems(text, text, fleet.problem[]) from public, anon, authenticated, service_role;

create or replace function fleet.choice_problem(p_field text, p_value jsonb, p_choices text[])
returns setof fleet.problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select p_field, format('%s is not one of %s', p_value, array_to_string(p_choices, ', ')),
    format('Use one of: %s.', array_to_string(p_choices, ', '))
  where p_value is not null
    and (jsonb_typeof(p_value) <> 'string' or (p_value #>> '{}') <> all (p_choices));
end;
$$;

comment on function fleet.choice_problem(text, jsonb, text[]) is 'One row where a value is not among the choices.';
revoke all on function fleet.choice_problem(text, jsonb, text[]) from public, anon, authenticated, service_role;

create or replace function fleet.whole_number_problem(p_field text, p_value jsonb, p_least bigint, p_most bigint)
returns setof fleet.problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select p_field, format('%s is not a whole number from %s to %s', p_value, p_least, p_most),
    format('Write a number without quotes, from %s to %s.', p_least, p_most)
  where p_value is not null
    and case
      when jsonb_typeof(p_value) <> 'number' then true
      else (p_value #>> '{}')::numeric <> trunc((p_value #>> '{}')::numeric)
        or (p_value #>> '{}')::numeric not between p_least and p_most
    end;
end;
$$;

comment on function fleet.whole_number_problem(text, jsonb, bigint, bigint) is
  'One row where a value is not a whole number within its bounds.';
revoke all on function fleet.whole_number_problem(text, jsonb, bigint, bigint)
  from public, anon, authenticated, service_role;

create or replace function fleet.duration_problem(p_field text, p_value jsonb)
returns setof fleet.problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select p_field, format('%s is not a duration', p_value), 'Examples: "15 minutes", "2 hours", "1 day".'
  where p_value is not null
    and jsonb_typeof(p_value) <> 'null'
    and (
      jsonb_typeof(p_value) <> 'string'
      or fleet.try_interval(p_value #>> '{}') is null
      -- What is longer leads out of the calendar, sooner or later.
      or fleet.try_interval(p_value #>> '{}') not between interval '1 microsecond' and interval '10 years'
    );
end;
$$;

comment on function fleet.duration_problem(text, jsonb) is
  'One row where a value is not a positive duration, of ten years at most.';
revoke all on function fleet.duration_problem(text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.refuse_unknown_keys(p_object jsonb, p_known text[])
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_unknown text;
begin
  select string_agg(e.key, ', ' order by e.key) into v_unknown
  from jsonb_each(p_object) as e
  where e.key <> all (p_known);
  if v_unknown is not null then
    raise exception '%: not known here', v_unknown
      using errcode = 'PT422', detail = 'document_invalid', hint = format('The keys are %s.', array_to_string(p_known, ', '));
  end if;
end;
$$;

comment on function fleet.refuse_unknown_keys(jsonb, text[]) is 'Raise document_invalid (PT422) where an object has other keys than these.';
revoke all on function fleet.refuse_unknown_keys(jsonb, text[]) from public, anon, authenticated, service_role;

create or replace function fleet.whole_number_between(p_name text, p_value bigint, p_least bigint, p_most bigint)
returns integer
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_value is null or p_value not between p_least and p_most then
    raise exception '%: % is not a whole number from % to %', p_name, coalesce(p_value::text, 'null'), p_least, p_most
      using errcode = 'PT422',
            detail = 'argument_invalid',
            hint = format('Give %s from %s to %s.', p_name, p_least, p_most);
  end if;
  return p_value;
end;
$$;

comment on function fleet.whole_number_between(text, bigint, bigint, bigint) is
  'The value, if it is within its bounds. Raises argument_invalid (PT422).';
revoke all on function fleet.whole_number_between(text, bigint, bigint, bigint)
  from public, anon, authenticated, service_role;

create or replace function fleet.without_nulls(p_object jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_object_agg(e.key, e.value), '{}')
  from jsonb_each(p_object) as e
  where e.value <> 'null'
$$;

comment on function fleet.without_nulls(jsonb) is 'The object without its keys of value null; inner objects stay as they are.';
revoke all on function fleet.without_nulls(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.object_or_empty(p_value jsonb)
returns jsonb
language sql
immutable
parallel safe
return (case jsonb_typeof(p_value) when 'object' then p_value else '{}'::jsonb end);

comment on function fleet.object_or_empty(jsonb) is 'The value where it is an object, else {}.';
revoke all on function fleet.object_or_empty(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.object_or_empty(jsonb) to authenticated, service_role;

create or replace function fleet.is_id_list(p_list jsonb)
returns boolean
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if jsonb_typeof(p_list) is distinct from 'array' then
    return false;
  end if;
  return not exists (
    select 1
    from jsonb_array_elements(p_list) as e(item)
    where case
      when jsonb_typeof(e.item) <> 'number' then true
      else (e.item #>> '{}')::numeric <> trunc((e.item #>> '{}')::numeric) or (e.item #>> '{}')::numeric not between 1 and 9007199254740991
    end
  );
end;
$$;

comment on function fleet.is_id_list(jsonb) is 'Whether this is a JSON list of ids.';
revoke all on function fleet.is_id_list(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.bigint_array(p_list jsonb)
returns bigint[]
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select coalesce(array_agg(distinct (e #>> '{}')::numeric::bigint), '{}')
    from jsonb_array_elements(case when jsonb_typeof(p_list) = 'array' then p_list else '[]' end) as e
  );
end;
$$;

comment on function fleet.bigint_array(jsonb) is 'A JSON list of whole numbers as an array, each once.';
revoke all on function fleet.bigint_array(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.as_list(p_value jsonb)
returns setof jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select e.value
  from jsonb_array_elements(
    case when jsonb_typeof(p_value) = 'array' then p_value else jsonb_build_array(p_value) end
  ) as e (value)
  where p_value is not null;
end;
$$;

comment on function fleet.as_list(jsonb) is
  'The elements of an array, or the one value that stands for an array of itself.';
revoke all on function fleet.as_list(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.as_list(jsonb) to authenticated, service_role;

create or replace function fleet.is_within(p_value jsonb, p_from numeric, p_to numeric)
returns boolean
language sql
immutable
parallel safe
-- Some systems write numbers as text.
return case
  when jsonb_typeof(p_value) in ('number', 'string') and p_value #>> '{}' ~ '^-?\d{1,9}(\.\d{1,18})?$'
    then (p_value #>> '{}')::numeric between p_from and p_to
  else false
end;

comment on function fleet.is_within(jsonb, numeric, numeric) is 'Whether a value in JSON is a number within bounds, also one written as text.';
revoke all on function fleet.is_within(jsonb, numeric, numeric) from public, anon, authenticated, service_role;

create or replace function fleet.are_ids(p_value jsonb)
returns boolean
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case jsonb_typeof(p_value)
    when 'array' then not exists (
      select 1
      from jsonb_array_elements(p_value) as e(item)
      where jsonb_typeof(e.item) not in ('string', 'number') or length(e.item #>> '{}') not between 1 and 255
    )
    else false
  end
$$;

comment on function fleet.are_ids(jsonb) is 'Whether a value in JSON is a list of ids, as texts or numbers.';
revoke all on function fleet.are_ids(jsonb) from public, anon, authenticated, service_role;
