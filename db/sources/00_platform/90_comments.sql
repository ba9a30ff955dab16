-- What a column is, is said once: in the table that has it. A view over it says only what is its own.

create or replace function fleet.inherit_comments(p_view regclass, p_table regclass)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_column record;
begin
  for v_column in
    select a.attname, col_description(b.attrelid, b.attnum) as said
    from pg_attribute as a
    join pg_attribute as b on b.attrelid = p_table and b.attname = a.attname and b.attnum > 0 and not b.attisdropped
    where a.attrelid = p_view
      and a.attnum > 0
      and col_description(a.attrelid, a.attnum) is null
      and col_description(b.attrelid, b.attnum) is not null
  loop
    execute format('comment on column %s.%I is %L', p_view, v_column.attname, v_column.said);
  end loop;
end;
$$;

comment on function fleet.inherit_comments(regclass, regclass) is
  'Give the columns of a view that say nothing the comments of the columns of that name in a table. Called where the view is made.';
revoke all on function fleet.inherit_comments(regclass, regclass) from public, anon, authenticated, service_role;
