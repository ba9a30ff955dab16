-- The rows of an owner that moves: which they are, how they leave, and how they arrive.

create or replace function fleet.owned_tables()
returns table (name text, condition text, depth integer)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with recursive kept as materialized (
    select c.oid, c.oid::regclass::text as name, n.nspname || '.' || c.relname as full_name,
      array(select a.attname::text from pg_attribute as a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as columns
    from pg_class as c
    join pg_namespace as n on n.oid = c.relnamespace
    where n.nspname in ('public', 'fleet', 'telemetry')
      and c.relkind in ('r', 'p') and not c.relispartition
      -- What belongs to the move itself, and what is on its way into the points.
      and n.nspname || '.' || c.relname not in ('fleet.owner_moves', 'fleet.moved_devices', 'fleet.arriving_rows', 'telemetry.staging')
  ),
  owned as (
    select k.oid, k.full_name as name,
      case
        when k.full_name = 'public.owners' then 'x.id = $1'
        when 'owner_id' = any (k.columns) then 'x.owner_id = $1'
        when k.full_name = 'public.pg_cron_secrets' then
          'x.name in (select ''integration:'' || i.id from public.device_integrations as i where i.owner_id = $1'
          ' union all select ''webhook:'' || w.id from public.integration_webhooks as w where w.owner_id = $1)'
        when 'run_id' = any (k.columns) then
          'x.run_id in (select r.id from public.schedule_runs as r where r.owner_id = $1)'
        when 'schedule_id' = any (k.columns) then
          'x.schedule_id in (select s.id from public.schedules as s where s.owner_id = $1)'
        when 'device_id' = any (k.columns) then
          'x.device_id in (select d.id from public.devices as d where d.owner_id = $1)'
      end as condition
    from kept as k
  ),
  refers as materialized (
    select distinct f.conrelid, f.confrelid
    from pg_constraint as f
    where f.contype = 'f' and f.conrelid <> f.confrelid and f.conparentid = 0
  ),
  deep (oid, depth) as (
    select o.oid, 0 from owned as o where o.condition is not null
    union
    select f.conrelid, d.depth + 1
    from deep as d
    join refers as f on f.confrelid = d.oid
    where d.depth < 25
  )
  select o.name, o.condition, max(d.depth)
  from owned as o
  join deep as d on d.oid = o.oid
  where o.condition is not null
  group by o.name, o.condition
  order by max(d.depth), o.name
$$;

comment on function fleet.owned_tables() is
  'The tables whose rows are somebody''s: the condition on x by which they are those of the owner $1, and how deep they stand in what refers to '
  'what: a row refers to rows of lesser depth, or of its own table.';
revoke all on function fleet.owned_tables() from public, anon, authenticated, service_role;

create or replace function fleet.shape_of_tables()
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select md5(string_agg(format('%s.%s %s', t.name, a.attname, a.atttypid::regtype), ',' order by t.name, a.attname))
  from fleet.owned_tables() as t
  join pg_attribute as a on a.attrelid = t.name::regclass and a.attnum > 0 and not a.attisdropped
$$;

comment on function fleet.shape_of_tables() is 'A digest of the columns of all tables that are moved: two databases of one version have the same.';
revoke all on function fleet.shape_of_tables() from public, anon, authenticated, service_role;

create or replace function fleet.departing_owner(p_owner_id uuid)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (select 1 from fleet.owner_moves as m where m.owner_id = p_owner_id) then
    raise exception 'owner % is not held still', p_owner_id
      using errcode = 'PT409', detail = 'owner_not_leaving', hint = 'Begin with: select fleet.begin_move(<owner>)';
  end if;
  return (
    select jsonb_build_object(
      'owner_id', o.id, 'name', o.name, 'database_number', fleet.setting('database_number'), 'shape', fleet.shape_of_tables(),
      'command_types', (
        select coalesce(jsonb_agg(to_jsonb(t) order by t.name), '[]')
        from public.command_types as t
        where t.owner_id is null and t.name in (
          select s.action_type from public.schedules as s where s.owner_id = o.id
          union select r.action_type from public.schedule_runs as r where r.owner_id = o.id
          union select c.command_type from public.device_commands as c where c.owner_id = o.id
          union select p.action_type from public.location_policies as p where p.owner_id = o.id
          union select u.action_type from public.telemetry_rules as u where u.owner_id = o.id
        )
      ),
      'tables', (select jsonb_agg(t.name order by t.depth, t.name) from fleet.owned_tables() as t)
    )
    from public.owners as o
    where o.id = p_owner_id
  );
end;
$$;

comment on function fleet.departing_owner(uuid) is
  'What an export says first of an owner that is held still: {owner_id, name, database_number, shape, command_types, tables}. Raises '
  'owner_not_leaving (PT409).';
revoke all on function fleet.departing_owner(uuid) from public, anon, authenticated, service_role;

create or replace function fleet.departing_rows(p_owner_id uuid, p_table text)
returns table (line text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_table record;
begin
  select t.* into strict v_table from fleet.owned_tables() as t where t.name = p_table;
  return query execute format('select to_jsonb(x)::text from %s as x where %s', v_table.name, v_table.condition) using p_owner_id;
end;
$$;

comment on function fleet.departing_rows(uuid, text) is 'The rows of an owner in one of fleet.owned_tables(), each as JSON.';
revoke all on function fleet.departing_rows(uuid, text) from public, anon, authenticated, service_role;

create or replace function fleet.check_arrival(p_head jsonb)
returns uuid
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid := (p_head ->> 'owner_id')::uuid;
begin
  if exists (select 1 from public.owners as o where o.id = v_owner) then
    raise exception 'owner % is here already', v_owner
      using errcode = 'PT409', detail = 'owner_exists', hint = 'It arrives once, and in a database that does not have it.';
  elsif p_head -> 'database_number' = fleet.setting('database_number') then
    raise exception 'both databases have the number %', p_head ->> 'database_number'
      using errcode = 'PT409', detail = 'database_numbers_equal',
            hint = 'Give this one a number of its own, so that ids are never the same: pgfleet db migrate --database-number N';
  elsif p_head ->> 'shape' <> fleet.shape_of_tables() then
    raise exception 'the other database is of another version of pgfleet'
      using errcode = 'PT409', detail = 'versions_differ', hint = 'Migrate both with the same version: pgfleet db migrate';
  end if;
  delete from fleet.arriving_rows as a where a.owner_id = v_owner;
  -- It may come back to where it once was.
  delete from fleet.moved_devices as d where d.owner_id = v_owner;
  delete from fleet.owner_moves as m where m.owner_id = v_owner;
  return v_owner;
end;
$$;

comment on function fleet.check_arrival(jsonb) is
  'See whether an owner can arrive, by what its export says first, and answer its id. Raises owner_exists, database_numbers_equal or '
  'versions_differ (PT409).';
revoke all on function fleet.check_arrival(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.take_arriving(p_owner_id uuid, p_table text, p_batch bigint, p_rows jsonb)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into fleet.arriving_rows (owner_id, table_name, batch, rows) values (p_owner_id, p_table, p_batch, p_rows);
  return jsonb_array_length(p_rows);
end;
$$;

comment on function fleet.take_arriving(uuid, text, bigint, jsonb) is
  'Put rows of an owner aside until all of them are there. Answers how many.';
revoke all on function fleet.take_arriving(uuid, text, bigint, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.arrive(p_owner_id uuid, p_head jsonb)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_table record;
  v_columns text;
  v_values text;
  v_count bigint;
  v_counts jsonb := '{}';
begin
  -- As at a migration: no tick meets half of an owner. All rows are here, so it is a matter of moments.
  perform pg_advisory_xact_lock(hashtext('pgfleet.migrate'));
  perform set_config('lock_timeout', '10s', true);
  insert into public.command_types (
    name, channel, description, payload_keys, timeout_seconds, rerun_safe, destructive, permission, is_built_in, created_at
  )
  select t.name, t.channel, t.description, t.payload_keys, t.timeout_seconds, t.rerun_safe, t.destructive, t.permission, t.is_built_in, t.created_at
  from jsonb_populate_recordset(null::public.command_types, p_head -> 'command_types') as t
  on conflict do nothing;
  perform telemetry.make_partition(d.day)
  from (
    select distinct ((r.item ->> 'at')::timestamptz at time zone 'UTC')::date as day
    from fleet.arriving_rows as a
    cross join lateral jsonb_array_elements(a.rows) as r(item)
    where a.owner_id = p_owner_id and a.table_name = 'telemetry.points'
  ) as d;

  -- The rows are what they were: nothing is checked, filled in, logged or told once more.
  for v_table in select t.name from fleet.owned_tables() as t order by t.depth, t.name loop
    execute format('alter table %s disable trigger user', v_table.name);
  end loop;
  for v_table in select t.name from fleet.owned_tables() as t order by t.depth, t.name loop
    select string_agg(quote_ident(a.attname), ', ' order by a.attnum),
      string_agg(
        case
          -- A JSON null comes back as none.
          when a.attnotnull and a.atttypid = 'jsonb'::regtype then format('coalesce(r.%I, ''null'')', a.attname)
          else format('r.%I', a.attname)
        end,
        ', ' order by a.attnum
      )
    into v_columns, v_values
    from pg_attribute as a
    where a.attrelid = v_table.name::regclass and a.attnum > 0 and not a.attisdropped and a.attgenerated = '';
    execute format(
      'insert into %1$s (%2$s) overriding system value select %3$s from fleet.arriving_rows as a,'
      ' jsonb_populate_recordset(null::%1$s, a.rows) as r where a.owner_id = $1 and a.table_name = $2',
      v_table.name, v_columns, v_values
    )
    using p_owner_id, v_table.name;
    get diagnostics v_count = row_count;
    v_counts := v_counts || case when v_count > 0 then jsonb_build_object(v_table.name, v_count) else '{}' end;
  end loop;
  for v_table in select t.name from fleet.owned_tables() as t order by t.depth, t.name loop
    execute format('alter table %s enable trigger user', v_table.name);
  end loop;
  delete from fleet.arriving_rows as a where a.owner_id = p_owner_id;
  return v_counts;
end;
$$;

comment on function fleet.arrive(uuid, jsonb) is
  'Make the rows that were put aside those of an owner that lives here, all or none, as they were: no trigger runs for them. Answers how many '
  'there are of each table. p_head is what the export says first.';
revoke all on function fleet.arrive(uuid, jsonb) from public, anon, authenticated, service_role;
