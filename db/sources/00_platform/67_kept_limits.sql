-- How limits are kept: what is over one, and what of it is refused or cut.

create or replace function fleet.is_over_limit(p_value jsonb, p_bytes integer)
returns boolean
language plpgsql
immutable
strict
parallel safe
-- Asked for each row that holds JSON. Without settings, whose change would cost more than the answer, and so with every name qualified; not in
-- SQL, which each statement would take apart and plan anew.
as $$
begin
  -- One level more than the limit of nesting; what is this short cannot be as deep.
  return pg_catalog.pg_column_size(p_value) > p_bytes
    or (pg_catalog.pg_column_size(p_value) > 128 and pg_catalog.jsonb_path_exists(p_value, '$.**{17}'));
end;
$$;

comment on function fleet.is_over_limit(jsonb, integer) is
  'Whether JSON is longer than so many bytes, or nested too deep: asked for each row that holds some, by the triggers that are made from the limits.';
revoke all on function fleet.is_over_limit(jsonb, integer) from public, anon, authenticated, service_role;
-- Postgres asks it with the rights of whoever writes.
grant execute on function fleet.is_over_limit(jsonb, integer) to authenticated, service_role;

create or replace function fleet.is_too_deep(p_value jsonb)
returns boolean
language plpgsql
immutable
strict
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return fleet.is_over_limit(p_value, 2147483647);
end;
$$;

comment on function fleet.is_too_deep(jsonb) is
  'Whether JSON is nested deeper than programs can be trusted to read: parsers of JSON give up at some depth, and some of them badly.';
revoke all on function fleet.is_too_deep(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.limits_by_table()
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_object_agg(t.name, t.items)
  from (
    select split_part(c.name, '.', 1) as name,
      jsonb_agg(jsonb_build_object(
        'column', split_part(c.name, '.', 2), 'limit', l.name, 'value', l.value, 'unit', l.unit, 'over', l.over
      )) as items
    from fleet.limits() as l
    cross join lateral unnest(l.columns) as c(name)
    group by 1
  ) as t
$$;

comment on function fleet.limits_by_table() is
  'The limits of columns by table: {table: [{column, limit, value, unit, over}]}. A constant, which Postgres works out once a plan.';
revoke all on function fleet.limits_by_table() from public, anon, authenticated, service_role;

create or replace function fleet.row_limit_problems(p_table text, p_row jsonb)
returns setof fleet.problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select q.*
  from (
    select l.item ->> 'column' as field, l.item ->> 'limit' as name, (l.item ->> 'value')::bigint as value, v.item,
      case l.item ->> 'unit'
        when 'bytes' then pg_column_size(v.item)
        when 'characters' then length(v.item #>> '{}')
        else case jsonb_typeof(v.item) when 'array' then jsonb_array_length(v.item) end
      end as sent
    from jsonb_array_elements(fleet.limits_by_table() -> p_table) as l(item)
    cross join lateral (select p_row -> (l.item ->> 'column') as item) as v
    where l.item ->> 'over' = 'refuse'
  ) as s
  cross join lateral (
    select d.* from fleet.limit_problem(s.field, s.name, s.sent) as d
    union all
    select d.*
    from fleet.limit_problem(s.field, 'nesting', fleet.limit_value('nesting') + 1) as d
    where fleet.is_too_deep(s.item)
  ) as q
  where s.sent > s.value or fleet.is_too_deep(s.item);
end;
$$;

comment on function fleet.row_limit_problems(text, jsonb) is
  'Every column of a row, given as JSON, that holds more than its limit and is not simply cut; no row where none does.';
revoke all on function fleet.row_limit_problems(text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.require_size(p_what text, p_limit text, p_value jsonb)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Each key takes eight bytes at least.
  if pg_column_size(p_value) <= least(fleet.limit_value(p_limit), 8 * fleet.limit_value('keys')) then
    return;
  end if;
  perform fleet.raise_problems(p_what, 'limit_exceeded', array(
    select q from fleet.limit_problem(p_what, p_limit, pg_column_size(p_value)) as q
    union all
    select q
    from fleet.limit_problem(p_what, 'keys', (select count(*) from jsonb_object_keys(fleet.object_or_empty(p_value)))) as q
    where p_limit <> 'desired'
  ));
end;
$$;

comment on function fleet.require_size(text, text, jsonb) is
  'Raise limit_exceeded (PT422) where a value is larger than its limit: before anything is done with it.';
revoke all on function fleet.require_size(text, text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.cut_text(p_text text, p_characters bigint)
returns text
language sql
immutable
parallel safe
return case
  when octet_length(p_text) > p_characters and length(p_text) > p_characters
    then left(p_text, greatest(p_characters - 7, 0)::integer) || '… (cut)'
  else p_text
end;

comment on function fleet.cut_text(text, bigint) is 'The text, or its beginning and a mark where it is longer than that.';
revoke all on function fleet.cut_text(text, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.cut_json(p_value jsonb, p_bytes bigint)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_value is null or (pg_column_size(p_value) <= p_bytes and not fleet.is_too_deep(p_value)) then p_value
    when jsonb_typeof(p_value) <> 'object' or fleet.is_too_deep(p_value)
      then jsonb_build_object('cut', true, 'beginning', left(p_value #>> '{}', (p_bytes / 8)::integer))
    else (
      -- What is short stays whole: an exit code beside a long output. Of what is long, the beginning is kept.
      select coalesce(
          jsonb_object_agg(
            k.key,
            case
              when k.sum_before + k.size <= p_bytes / 2 then k.value
              else to_jsonb(left(k.value #>> '{}', (p_bytes / 16)::integer))
            end
          ) filter (where k.sum_before <= p_bytes / 2 and octet_length(k.key) <= 255),
          '{}'
        ) || '{"cut": true}'
      from (
        select e.key, e.value, s.size,
          sum(s.size) over (order by s.size, e.key rows between unbounded preceding and current row) - s.size as sum_before
        from jsonb_each(p_value) as e
        cross join lateral (select pg_column_size(e.value) + octet_length(e.key) + 8 as size) as s
      ) as k
    )
  end
$$;

comment on function fleet.cut_json(jsonb, bigint) is
  'The value, or what of it fits into so many bytes with "cut": true beside it: of an object its short values and the beginning of a long '
  'one, of anything else its beginning as text.';
revoke all on function fleet.cut_json(jsonb, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.cut_row(p_table text, p_row jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    jsonb_object_agg(
      l.item ->> 'column',
      case l.item ->> 'unit'
        when 'bytes' then fleet.cut_json(p_row -> (l.item ->> 'column'), (l.item ->> 'value')::bigint)
        else to_jsonb(fleet.cut_text(p_row ->> (l.item ->> 'column'), (l.item ->> 'value')::bigint))
      end
    ),
    '{}'
  )
  from jsonb_array_elements(fleet.limits_by_table() -> p_table) as l(item)
  where l.item ->> 'over' = 'cut'
$$;

comment on function fleet.cut_row(text, jsonb) is
  'The columns of a row, given as JSON, that are cut where they are too long, each as it fits.';
revoke all on function fleet.cut_row(text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.limit_condition(p_column text, p_type text, p_unit text, p_value bigint)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  -- As cheap and short as can be: these are asked for each row that is written. Some are called whose characters take many bytes,
  -- and are let go.
  select case
    when p_unit = 'entries' then format('cardinality(new.%I) > %s', p_column, p_value)
    when p_unit = 'characters' then format('octet_length(new.%I) > %s', p_column, p_value)
    when p_type = 'bytea' then format('octet_length(new.%I) > %s', p_column, p_value)
    when p_type = 'jsonb' then format('fleet.is_over_limit(new.%I, %s)', p_column, p_value)
    else format('pg_column_size(new.%I) > %s', p_column, p_value)
  end
$$;

comment on function fleet.limit_condition(text, text, text, bigint) is
  'When a column of a new row is over its limit, as the condition of a trigger.';
revoke all on function fleet.limit_condition(text, text, text, bigint) from public, anon, authenticated, service_role;
