-- Trigger functions that tables of every room use.

create or replace function fleet.tg_owner_from_caller()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  new.owner_id := fleet.owner_or_own(new.owner_id);
  return new;
end;
$$;

comment on function fleet.tg_owner_from_caller() is
  'Fill owner_id where the writer named none or the personal owner, which may have to be made. Definer: nobody writes owners.';
revoke all on function fleet.tg_owner_from_caller() from public, anon, authenticated, service_role;

create or replace function fleet.tg_set_updated_at()
returns trigger
language plpgsql
-- Without settings: to change one would take longer than to stamp a row.
as $$
begin
  new.updated_at := pg_catalog.now();
  return new;
end;
$$;

comment on function fleet.tg_set_updated_at() is 'Stamp updated_at.';
revoke all on function fleet.tg_set_updated_at() from public, anon, authenticated, service_role;

create or replace function fleet.tg_keep_limits()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row jsonb := to_jsonb(new);
begin
  perform fleet.raise_problems(
    format('what is written to %s', tg_table_name), 'limit_exceeded',
    array(select q from fleet.row_limit_problems(tg_table_name, v_row) as q)
  );
  new := jsonb_populate_record(new, fleet.cut_row(tg_table_name, v_row));
  return new;
end;
$$;

comment on function fleet.tg_keep_limits() is
  'Refuse a row that holds more than its limits, or cut what is only a report; called where one of them is passed. Definer: whoever may '
  'write the table may not call what it checks with.';
revoke all on function fleet.tg_keep_limits() from public, anon, authenticated, service_role;

-- Made from the table of limits, so that each number is written once: one trigger a table, and one for what is only a report, which
-- is written far more often. Postgres reads their conditions anew in each statement.
do $$
declare
  v_table record;
begin
  for v_table in
    select g.*,
      g.relname
        || case when g.over = 'cut' and count(*) over (partition by g.name) > 1 then '_09_keep_reports' else '_09_keep_limits' end
        as trigger
    from (
      select c.oid::regclass as name, c.relname, l.over, string_agg(distinct quote_ident(a.attname), ', ') as columns,
        string_agg(
          '(' || fleet.limit_condition(a.attname::text, format_type(a.atttypid, null), l.unit, l.value) || ')', ' or '
          order by a.attnum, l.name
        ) as condition
      from fleet.limits() as l
      cross join lateral unnest(l.columns) as k(name)
      join pg_class as c on c.relname = split_part(k.name, '.', 1) and c.relkind in ('r', 'p')
        and c.relnamespace in ('public'::regnamespace, 'fleet'::regnamespace)
      join pg_attribute as a on a.attrelid = c.oid and a.attname = split_part(k.name, '.', 2)
      group by c.oid, c.relname, l.over
    ) as g
  loop
    execute format(
      'create or replace trigger %I before insert or update of %s on %s for each row when (%s) execute function fleet.tg_keep_limits()',
      v_table.trigger, v_table.columns, v_table.name, v_table.condition
    );
  end loop;
end;
$$;
