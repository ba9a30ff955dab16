-- Is the platform well: the server and what is stored; what is read of it first, then what that means.

create or replace function fleet.server_facts()
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'version', current_setting('server_version_num')::integer / 10000,
    'needs_net', fleet.setting('functions_url') <> 'null',
    'has_net', to_regproc('net.http_post') is not null,
    'slots', (
      select jsonb_agg(s.slot_name order by s.slot_name)
      from pg_replication_slots as s
      where not s.active and (s.xmin is not null or s.catalog_xmin is not null or s.wal_status in ('extended', 'unreserved', 'lost'))
    ),
    'tables', (
      select jsonb_agg(
        jsonb_build_object('name', format('%s.%s', t.schemaname, t.relname), 'dead', t.n_dead_tup, 'live', t.n_live_tup)
        order by t.n_dead_tup desc
      )
      from pg_stat_user_tables as t
      where t.schemaname in ('public', 'fleet', 'telemetry') and t.n_dead_tup > 0
    ),
    'connections', (select count(*) from pg_stat_activity as a where a.backend_type = 'client backend'),
    'max_connections', current_setting('max_connections')::integer,
    'oldest_row', (select age(d.datfrozenxid) from pg_database as d where d.datname = current_database()),
    'unbuilt_indexes', (
      select jsonb_agg(x.indexrelid::regclass::text)
      from pg_index as x join pg_class as c on c.oid = x.indrelid
      where not x.indisvalid and c.relnamespace in ('public'::regnamespace, 'fleet'::regnamespace, 'telemetry'::regnamespace)
    ),
    'archives', current_setting('archive_mode') <> 'off',
    'archived_at', v.last_archived_time,
    'archive_failed_at', v.last_failed_time
  )
  from pg_stat_archiver as v
$$;

comment on function fleet.server_facts() is 'What the checks of the server go by, read at one moment.';
revoke all on function fleet.server_facts() from public, anon, authenticated, service_role;

create or replace function fleet.judge_server(p_facts jsonb)
returns table (name text, state text, found text, hint text, can_be_repaired boolean)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_version integer := p_facts ->> 'version';
  v_used bigint := p_facts ->> 'connections';
  v_max bigint := p_facts ->> 'max_connections';
  v_age bigint := p_facts ->> 'oldest_row';
  v_archives boolean := p_facts ->> 'archives';
  v_text text;
begin
  return query select * from fleet.check_result('server_version',
    case when v_version not between 15 and 18 then 'warning' end,
    format('this is PostgreSQL %s', v_version), 'pgfleet is made for PostgreSQL 15 to 18');
  return query select * from fleet.check_result('pg_net',
    case when (p_facts ->> 'needs_net')::boolean and not (p_facts ->> 'has_net')::boolean then 'warning' end,
    'pg_net is not there, so functions that sleep are not woken', 'Install it: create extension pg_net');

  select string_agg(s.slot, ', ') into v_text from jsonb_array_elements_text(nullif(p_facts -> 'slots', 'null')) as s(slot);
  return query select * from fleet.check_result('replication_slots',
    case when v_text is not null then 'warning' end,
    'nobody reads the replication slots ' || v_text || ', and all that they have not read is kept',
    'Let their reader go on, or drop them with pg_drop_replication_slot');

  select string_agg(format('%s (%s dead)', t.one ->> 'name', t.one ->> 'dead'), ', ') into v_text
  from jsonb_array_elements(nullif(p_facts -> 'tables', 'null')) as t(one)
  where (t.one ->> 'dead')::bigint > 100000 and (t.one ->> 'dead')::bigint > (t.one ->> 'live')::bigint;
  return query select * from fleet.check_result('dead_rows',
    case when v_text is not null then 'warning' end,
    'more rows are dead than live in ' || v_text, 'Autovacuum is behind or held up, see open_transactions; at once: vacuum (analyze)');

  return query select * from fleet.check_result('connections',
    case when v_used > 0.8 * v_max then 'warning' end,
    format('%s of %s connections are in use', v_used, v_max), 'pg_stat_activity says by whom');
  return query select * from fleet.check_result('transaction_ids',
    case when v_age > 1000000000 then 'broken' end,
    format('the oldest row was written %s transactions ago; at two billion the server stops', v_age),
    'Let it freeze, without open transactions: vacuum (freeze)');

  select string_agg(x.name, ', ') into v_text from jsonb_array_elements_text(nullif(p_facts -> 'unbuilt_indexes', 'null')) as x(name);
  return query select * from fleet.check_result('indexes',
    case when v_text is not null then 'broken' end,
    'an index was not built to its end and is of no use: ' || v_text, 'Build it anew: reindex index concurrently …');

  return query select * from fleet.check_result('backups',
    case
      when not v_archives then 'unknown'
      when (p_facts ->> 'archive_failed_at')::timestamptz > coalesce((p_facts ->> 'archived_at')::timestamptz, '-infinity') then 'broken'
    end,
    case
      when not v_archives then 'the server does not archive, so how old its backups are is not known here'
      else format('archiving fails since %s', p_facts ->> 'archive_failed_at')
    end,
    'Whoever runs the server knows; try now and then that a backup restores');
end;
$$;

comment on function fleet.judge_server(jsonb) is 'What fleet.server_facts() mean, as checks.';
revoke all on function fleet.judge_server(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.check_database(p_now timestamptz)
returns table (name text, state text, found text, hint text, can_be_repaired boolean)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_text text;
begin
  return query select * from fleet.judge_server(fleet.server_facts());
  select string_agg(format('process %s (%s) since %s', a.pid, coalesce(nullif(a.application_name, ''), a.usename::text), a.xact_start), ', ')
  into v_text
  from pg_catalog.pg_stat_activity as a
  where a.datname = current_database() and a.backend_type = 'client backend' and a.xact_start < p_now - interval '10 minutes'
    and (a.backend_xmin is not null or a.backend_xid is not null);
  return query select * from fleet.check_result('open_transactions',
    case when v_text is not null then 'warning' end,
    'dead rows cannot be cleaned up while transactions are open: ' || v_text, 'End it with pg_terminate_backend');

  return query select * from fleet.check_result('partitions',
    case when fleet.is_partition_missing(p_now) then 'broken' end,
    'there is no partition for the telemetry of tomorrow', 'Make them: select fleet_repair(''partitions'')', true);

  select string_agg(format('%s (since %s)', h.one ->> 'table', left(h.one ->> 'oldest', 10)), ', ') into v_text
  from jsonb_array_elements(fleet.history_status()) as h(one)
  where (h.one ->> 'oldest')::timestamptz < p_now - make_interval(days => (h.one ->> 'kept_days')::integer + 2);
  return query select * from fleet.check_result('history',
    case when v_text is not null then 'warning' end,
    'older than it is to be kept: ' || v_text, 'The job pgfleet-prune-history does it each night; at once: call fleet.prune_history()');
end;
$$;

comment on function fleet.check_database(timestamptz) is 'Checks of the server and of what is stored.';
revoke all on function fleet.check_database(timestamptz) from public, anon, authenticated, service_role;
