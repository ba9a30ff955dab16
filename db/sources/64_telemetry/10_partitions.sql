-- Partitions of the points, one a day: made ahead and on demand, dropped when they are old. What is in files below number 30 is
-- the schema telemetry, which needs nothing of the rest and may be in another database.

create or replace function telemetry.partition_name(p_day date)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select 'points_' || to_char(p_day, 'YYYYMMDD')
$$;

comment on function telemetry.partition_name(date) is 'The name of the partition of a day.';
revoke all on function telemetry.partition_name(date) from public;

create or replace function telemetry.make_partition(p_day date)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_name text := telemetry.partition_name(p_day);
begin
  if to_regclass('telemetry.' || v_name) is not null then
    return false;
  end if;

  perform pg_advisory_xact_lock(hashtext('pgfleet.telemetry.partitions'));
  -- Asked of the table of tables: what was not there a moment ago is remembered by name, and this lock makes nobody forget.
  if exists (select from pg_class as c where c.relname = v_name and c.relnamespace = 'telemetry'::regnamespace) then
    return false;
  end if;
  -- Made apart and attached: that keeps nobody from reading and writing the others.
  execute format('create table telemetry.%I (like telemetry.points including defaults including constraints)', v_name);
  execute format(
    'alter table telemetry.points attach partition telemetry.%I for values from (%L) to (%L)',
    v_name, p_day::text || ' 00:00:00+00', (p_day + 1)::text || ' 00:00:00+00'
  );
  execute format('revoke all on table telemetry.%I from public', v_name);
  return true;
end;
$$;

comment on function telemetry.make_partition(date) is 'Make the partition of a day, in UTC. Answers whether there was none.';
revoke all on function telemetry.make_partition(date) from public;

create or replace function telemetry.partition_days()
returns setof date
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select to_date(substr(c.relname, 8), 'YYYYMMDD')
  from pg_inherits as i
  join pg_class as c on c.oid = i.inhrelid
  where i.inhparent = 'telemetry.points'::regclass and c.relname ~ '^points_\d{8}$'
$$;

comment on function telemetry.partition_days() is 'The days that have a partition.';
revoke all on function telemetry.partition_days() from public;

create or replace function telemetry.drop_old(p_keep_days integer, p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_first date := (p_now at time zone 'UTC')::date - p_keep_days;
  v_day date;
  v_count integer := 0;
begin
  -- Whoever reads for long is not waited for with everybody else behind; it is tried again.
  perform set_config('lock_timeout', '2s', true);
  for v_day in select d from telemetry.partition_days() as d where d < v_first order by d loop
    execute format('drop table telemetry.%I', telemetry.partition_name(v_day));
    v_count := v_count + 1;
  end loop;
  delete from telemetry.dirty_hours as h where h.hour < v_first;
  return v_count;
end;
$$;

comment on function telemetry.drop_old(integer, timestamptz) is
  'Drop the partitions of days that are older than so many. Answers how many. What is rolled up stays.';
revoke all on function telemetry.drop_old(integer, timestamptz) from public;

create or replace function telemetry.worker_tend(p_keep_days integer, p_now timestamptz default clock_timestamp())
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_today date := (p_now at time zone 'UTC')::date;
  v_made integer;
  v_dropped integer;
begin
  select count(*) filter (where telemetry.make_partition(v_today + d)) into v_made from generate_series(0, 7) as d;
  v_dropped := telemetry.drop_old(least(greatest(p_keep_days, 1), 3660), p_now);
  delete from telemetry.hourly as h
  where h.ctid = any (array(
    select x.ctid from telemetry.hourly as x where x.hour < p_now - make_interval(days => greatest(p_keep_days * 4, 730)) limit 20000
  ));
  return jsonb_build_object('made', v_made, 'dropped', v_dropped);
end;
$$;

comment on function telemetry.worker_tend(integer, timestamptz) is
  'Make partitions for the week that comes, drop those that are older than so many days, and forget hours that are four times as old. '
  '{made, dropped}. Definer: the worker makes no table.';
revoke all on function telemetry.worker_tend(integer, timestamptz) from public;
