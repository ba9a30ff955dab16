-- Several databases: each hands out ids of its own, so that an owner can move from one to another.

create or replace function fleet.number_sequences()
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_first bigint := fleet.setting_number('database_number')::bigint * 17592186044416;
  v_sequence regclass;
  v_last bigint;
begin
  if v_first = 0 then
    return;
  end if;
  for v_sequence in
    select s.oid
    from pg_class as s
    join pg_depend as d on d.classid = 'pg_class'::regclass and d.objid = s.oid and d.deptype in ('i', 'a')
    where s.relkind = 'S' and s.relnamespace in ('public'::regnamespace, 'fleet'::regnamespace)
  loop
    execute format('select x.last_value from %s as x', v_sequence) into v_last;
    if v_last < v_first then
      perform setval(v_sequence, v_first, true);
    end if;
  end loop;
end;
$$;

comment on function fleet.number_sequences() is
  'Let every identity begin at the number of the database times 2^44, those of new tables too. Up to number 511 ids stay within what JavaScript '
  'counts exactly.';
revoke all on function fleet.number_sequences() from public, anon, authenticated, service_role;

create or replace function fleet.number_database(p_number integer)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_number integer := fleet.setting_number('database_number')::integer;
begin
  if (p_number between 0 and 511) is not true then
    raise exception 'the number of a database is 0 to 511, not %', p_number
      using errcode = 'PT422', detail = 'database_number_invalid', hint = 'Give each of your databases a number of its own.';
  elsif v_number not in (0, p_number) then
    raise exception 'this database has the number % already', v_number
      using errcode = 'PT409', detail = 'database_numbered', hint = 'Ids that it has handed out stay; make another database for another number.';
  end if;
  perform fleet.set_setting('database_number', to_jsonb(p_number));
  perform fleet.number_sequences();
  return p_number;
end;
$$;

comment on function fleet.number_database(integer) is
  'Give this database a number of its own among several, once, from which its ids follow. Raises database_number_invalid (PT422) or '
  'database_numbered (PT409).';
revoke all on function fleet.number_database(integer) from public, anon, authenticated, service_role;
