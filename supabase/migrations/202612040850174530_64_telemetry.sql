-- Generated from db/sources/64_telemetry by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/64_telemetry/10_partitions.sql
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

-- db/sources/64_telemetry/15_storing.sql
-- Storing points: a batch that COPY brought into the staging table goes over in one transaction, each point once.

create or replace function telemetry.make_partitions_for(p_batch uuid)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform telemetry.make_partition(d.day)
  from (
    select distinct (s.at at time zone 'UTC')::date as day from telemetry.staging as s where s.batch = p_batch
    -- Else each row is looked up, not each day.
    offset 0
  ) as d
  where to_regclass('telemetry.' || telemetry.partition_name(d.day)) is null;
end;
$$;

comment on function telemetry.make_partitions_for(uuid) is 'Make the partitions that a batch needs.';
revoke all on function telemetry.make_partitions_for(uuid) from public;

create or replace function telemetry.drop_known_pushes(p_batch uuid)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  -- Its time is when it came; the point itself was measured shortly before, and clocks differ by a few seconds.
  delete from telemetry.staging as s
  where s.batch = p_batch
    and s.is_provisional
    and exists (
      select 1
      from telemetry.points as p
      where p.device_id = s.device_id
        and p.stream = s.stream
        and p.digest = s.digest
        and p.at between s.at - interval '10 minutes' and s.at + interval '5 seconds'
        and not p.is_provisional
    );
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function telemetry.drop_known_pushes(uuid) is
  'Drop pushes without a time whose point has been pulled already. Answers how many.';
revoke all on function telemetry.drop_known_pushes(uuid) from public;

create or replace function telemetry.replace_provisional(p_batch uuid)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_from timestamptz;
  v_to timestamptz;
  v_count integer;
begin
  select min(s.at) - interval '5 seconds', max(s.at) + interval '10 minutes' into v_from, v_to
  from telemetry.staging as s
  where s.batch = p_batch and not s.is_provisional;
  -- Nearly always there is none.
  if v_from is null or not exists (
    select 1 from telemetry.points as p where p.at between v_from and v_to and p.is_provisional
  ) then
    return 0;
  end if;

  with gone as (
    delete from telemetry.points as p
    using telemetry.staging as s
    where s.batch = p_batch
      and not s.is_provisional
      and p.device_id = s.device_id
      and p.stream = s.stream
      and p.digest = s.digest
      and p.at between s.at - interval '5 seconds' and s.at + interval '10 minutes'
      and p.at between v_from and v_to
      and p.is_provisional
    returning p.device_id, p.stream, p.at, p.digest, s.at as real_at
  ),
  marked as (
    insert into telemetry.dirty_hours (device_id, stream, hour)
    select distinct g.device_id, g.stream, date_trunc('hour', g.at, 'UTC') from gone as g
    on conflict do nothing
  ),
  moved as (
    update telemetry.latest as l
    set at = g.real_at
    from gone as g
    where l.device_id = g.device_id and l.stream = g.stream and l.at = g.at and l.digest = g.digest
  )
  select count(*) into v_count from gone;
  return v_count;
end;
$$;

comment on function telemetry.replace_provisional(uuid) is
  'Take out pushes without a time whose point this batch has pulled: equal data, at most ten minutes before. Answers how many.';
revoke all on function telemetry.replace_provisional(uuid) from public;

create or replace function telemetry.carry_over(p_batch uuid, p_now timestamptz)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- Compiling the plan would take longer than running it.
set jit = off
as $$
declare
  v_result jsonb;
begin
  with stored as (
    insert into telemetry.points as p (
      device_id, stream, at, digest, owner_id, received_at, source, is_provisional, path, data
    )
    select distinct on (s.device_id, s.stream, s.at, s.digest)
      s.device_id, s.stream, s.at, s.digest, s.owner_id, p_now, s.source, s.is_provisional, s.path, s.data
    from telemetry.staging as s
    where s.batch = p_batch
    -- In one order, so that two who bring the same points never wait for each other in a circle.
    order by s.device_id, s.stream, s.at, s.digest
    on conflict do nothing
    returning p.device_id, p.stream, p.at, p.digest, p.owner_id, p.source, p.data
  ),
  marked as (
    insert into telemetry.dirty_hours (device_id, stream, hour)
    select distinct s.device_id, s.stream, date_trunc('hour', s.at, 'UTC') from stored as s
    order by 1, 2, 3
    on conflict do nothing
  ),
  newest as materialized (
    select distinct on (s.device_id, s.stream) s.*
    from stored as s
    order by s.device_id, s.stream, s.at desc
  ),
  kept as (
    insert into telemetry.latest as l (device_id, stream, at, digest, owner_id, received_at, source, data)
    select n.device_id, n.stream, n.at, n.digest, n.owner_id, p_now, n.source, n.data
    from newest as n
    order by n.device_id, n.stream
    on conflict (device_id, stream) do update
      set at = excluded.at, digest = excluded.digest, owner_id = excluded.owner_id, received_at = excluded.received_at,
          source = excluded.source, data = excluded.data
      where l.at < excluded.at
    returning l.device_id, l.stream, l.at, l.data
  )
  select jsonb_build_object(
    'stored', (select count(*) from stored),
    'latest', coalesce(
      (select jsonb_agg(jsonb_build_object('device_id', k.device_id, 'stream', k.stream, 'at', k.at, 'data', k.data)) from kept as k),
      '[]'
    )
  ) into v_result;
  return v_result;
end;
$$;

comment on function telemetry.carry_over(uuid, timestamptz) is
  'Insert what a batch has that is not there yet, and keep the latest of each device. {stored, latest: [{device_id, stream, at, data}]}, '
  'where latest are the points that are now the latest of their device.';
revoke all on function telemetry.carry_over(uuid, timestamptz) from public;

create or replace function telemetry.wait_for_the_other_way(p_batch uuid)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform case
    when o.is_pushed then pg_advisory_xact_lock(hashtext('pgfleet.telemetry.points'), hashtext(o.owner_id::text))
    else pg_advisory_xact_lock_shared(hashtext('pgfleet.telemetry.points'), hashtext(o.owner_id::text))
  end
  from (
    select s.owner_id, bool_or(s.is_provisional) as is_pushed
    from telemetry.staging as s
    where s.batch = p_batch
    group by s.owner_id
    -- In one order, so that two who bring points of the same owners never wait for each other in a circle.
    order by hashtext(s.owner_id::text)
  ) as o;
end;
$$;

comment on function telemetry.wait_for_the_other_way(uuid) is
  'A push without a time and the pulled point that it is may come at one moment, where neither saw the other: until this transaction ends, an '
  'owner''s pushes of that kind and its pulls wait for each other. Pulls do not wait for pulls.';
revoke all on function telemetry.wait_for_the_other_way(uuid) from public;

create or replace function telemetry.worker_store(p_batch uuid, p_keep_days integer, p_now timestamptz default clock_timestamp())
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_given integer;
  v_outside integer;
  v_dropped integer;
  v_replaced integer;
  v_result jsonb;
begin
  select count(*) into v_given from telemetry.staging as s where s.batch = p_batch;
  -- A clock that is wrong makes no partitions of other centuries, and what is too old would be dropped at once.
  delete from telemetry.staging as s
  where s.batch = p_batch
    and s.at not between date_trunc('day', p_now, 'UTC') - make_interval(days => p_keep_days) and p_now + interval '1 day';
  get diagnostics v_outside = row_count;
  perform telemetry.make_partitions_for(p_batch);
  perform telemetry.wait_for_the_other_way(p_batch);
  v_dropped := telemetry.drop_known_pushes(p_batch);
  v_result := telemetry.carry_over(p_batch, p_now);
  v_replaced := telemetry.replace_provisional(p_batch);
  delete from telemetry.staging as s where s.batch = p_batch;
  return v_result || jsonb_build_object(
    'given', v_given, 'outside', v_outside, 'replaced', v_replaced,
    'known', v_given - v_outside - (v_result ->> 'stored')::integer
  );
end;
$$;

comment on function telemetry.worker_store(uuid, integer, timestamptz) is
  'Carry over a batch that was copied into telemetry.staging in this transaction: {given, stored, known, outside, replaced, latest}. '
  'Known are points that were there; outside are times in the future or longer ago than p_keep_days; replaced are pushes without a time '
  'whose place a pulled point took. Definer: the worker writes no other table.';
revoke all on function telemetry.worker_store(uuid, integer, timestamptz) from public;

-- db/sources/64_telemetry/20_rolling_up.sql
-- Rolling up: each hour whose points have changed is counted anew, a day at a time.

create or replace function telemetry.numbers(p_data jsonb)
returns table (field text, value double precision)
language sql
immutable
parallel safe
begin atomic
  select f.field, f.value::double precision
  from (
    select e.key as field, (e.value #>> '{}')::numeric as value
    from jsonb_each(case jsonb_typeof(p_data) when 'object' then p_data else jsonb_build_object('value', p_data) end) as e
    where jsonb_typeof(e.value) = 'number'
    union all
    select e.key || '.' || i.key, (i.value #>> '{}')::numeric
    from jsonb_each(case jsonb_typeof(p_data) when 'object' then p_data else '{}' end) as e
    cross join lateral jsonb_each(case jsonb_typeof(e.value) when 'object' then e.value else '{}' end) as i
    where jsonb_typeof(i.value) = 'number'
  ) as f
  -- What no double holds is no measurement.
  where (f.value = 0 or abs(f.value) between 1e-300 and 1e300) and length(f.field) <= 255
  limit 50;
end;

comment on function telemetry.numbers(jsonb) is
  'The numbers of a point, two levels deep, at most fifty: battery, gps.lat; a point that is a number itself has the field value.';
revoke all on function telemetry.numbers(jsonb) from public;

create or replace function telemetry.roll_up_day(p_day date, p_limit integer)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  v_from timestamptz;
  v_to timestamptz;
  v_count integer;
begin
  select min(d.hour), max(d.hour) + interval '1 hour' into v_from, v_to
  from (
    select x.hour
    from telemetry.dirty_hours as x
    where x.hour >= p_day::timestamp at time zone 'UTC' and x.hour < (p_day + 1)::timestamp at time zone 'UTC'
    order by x.hour desc
    limit p_limit
  ) as d;
  if v_from is null then
    return 0;
  end if;

  -- The bounds are written into the statement, so that it looks at these hours of one partition.
  execute format(
    $query$
      with taken as materialized (
        delete from telemetry.dirty_hours as d
        where d.ctid = any (array(
          select x.ctid from telemetry.dirty_hours as x
          where x.hour >= %1$L and x.hour < %2$L
          order by x.hour desc limit $1 for update skip locked
        ))
        returning d.device_id, d.stream, d.hour
      ),
      points as materialized (
        select p.device_id, p.stream, date_trunc('hour', p.at, 'UTC') as hour, p.owner_id, p.data
        from telemetry.points as p
        join taken as t on t.device_id = p.device_id and t.stream = p.stream and t.hour = date_trunc('hour', p.at, 'UTC')
        where p.at >= %1$L and p.at < %2$L
      ),
      figures as (
        select p.device_id, p.stream, p.hour, n.field, min(p.owner_id::text)::uuid as owner_id, count(*) as points,
          min(n.value) as smallest, max(n.value) as largest, sum(n.value) as total
        from points as p
        cross join lateral (
          select '' as field, null::double precision as value union all select f.field, f.value from telemetry.numbers(p.data) as f
        ) as n
        group by p.device_id, p.stream, p.hour, n.field
      ),
      written as (
        insert into telemetry.hourly as h (device_id, stream, hour, field, owner_id, points, smallest, largest, total)
        select f.device_id, f.stream, f.hour, f.field, f.owner_id, f.points, f.smallest, f.largest, f.total
        from figures as f
        on conflict (device_id, stream, hour, field) do update
          set points = excluded.points, smallest = excluded.smallest, largest = excluded.largest, total = excluded.total,
              owner_id = excluded.owner_id
      ),
      emptied as (
        delete from telemetry.hourly as h
        using taken as t
        where h.device_id = t.device_id and h.stream = t.stream and h.hour = t.hour
          and not exists (
            select 1 from figures as f
            where f.device_id = h.device_id and f.stream = h.stream and f.hour = h.hour and f.field = h.field
          )
      )
      select count(*) from taken
    $query$,
    v_from, v_to
  ) into v_count using p_limit;
  return v_count;
end;
$$;

comment on function telemetry.roll_up_day(date, integer) is
  'Count hours of one day anew, the latest first, at most so many. Answers how many.';
revoke all on function telemetry.roll_up_day(date, integer) from public;

create or replace function telemetry.worker_roll_up(p_limit integer default 20000)
returns integer
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_day date;
  v_done integer := 0;
  v_count integer;
begin
  -- One at a time; whoever comes second has nothing to do.
  if not pg_try_advisory_xact_lock(hashtext('pgfleet.telemetry.roll_up')) then
    return 0;
  end if;
  for v_day in
    select distinct (h.hour at time zone 'UTC')::date as day from telemetry.dirty_hours as h order by day desc limit 400
  loop
    v_count := telemetry.roll_up_day(v_day, p_limit - v_done);
    v_done := v_done + v_count;
    exit when v_done >= p_limit;
  end loop;
  return v_done;
end;
$$;

comment on function telemetry.worker_roll_up(integer) is
  'Count hours anew whose points have changed, the latest first, at most so many. Answers how many. Definer: the worker writes no table.';
revoke all on function telemetry.worker_roll_up(integer) from public;

-- db/sources/64_telemetry/25_reading.sql
-- Reading points of devices that the caller has made out already: who may see them is asked elsewhere.

create or replace function telemetry.read_points(
  p_device_ids bigint[],
  p_stream text,
  p_from timestamptz,
  p_to timestamptz,
  p_limit integer
)
returns setof telemetry.points
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select p.*
  from telemetry.points as p
  where p.device_id = any (p_device_ids)
    and p.at >= p_from
    and p.at < p_to
    and (p_stream is null or p.stream = p_stream)
  order by p.at desc, p.device_id, p.digest
  limit least(greatest(p_limit, 0), 100000);
end;
$$;

comment on function telemetry.read_points(bigint[], text, timestamptz, timestamptz, integer) is
  'Points of these devices from (with) to (without), the newest first, 100,000 at most; of all streams where p_stream is null.';
revoke all on function telemetry.read_points(bigint[], text, timestamptz, timestamptz, integer) from public;

create or replace function telemetry.read_hours(
  p_device_ids bigint[],
  p_from timestamptz,
  p_to timestamptz,
  p_limit integer,
  p_field text default null
)
returns setof telemetry.hourly
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select h.*
  from telemetry.hourly as h
  where h.device_id = any (p_device_ids)
    and h.hour >= p_from
    and h.hour < p_to
    and (p_field is null or h.field = p_field)
  order by h.hour desc, h.device_id, h.stream, h.field
  limit least(greatest(p_limit, 0), 100000);
end;
$$;

comment on function telemetry.read_hours(bigint[], timestamptz, timestamptz, integer, text) is
  'Hours of these devices, the newest first; of all fields where p_field is null.';
revoke all on function telemetry.read_hours(bigint[], timestamptz, timestamptz, integer, text) from public;

create or replace function telemetry.read_gaps(
  p_device_ids bigint[],
  p_stream text,
  p_from timestamptz,
  p_to timestamptz,
  p_longer_than interval
)
returns table (device_id bigint, stream text, gap_from timestamptz, gap_to timestamptz, lasted interval)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select g.device_id, g.stream, g.before, g.at, g.at - g.before
  from (
    select s.device_id, s.stream, s.at, lag(s.at) over (partition by s.device_id, s.stream order by s.at) as before
    from (
      select p.device_id, p.stream, p.at
      from telemetry.points as p
      where p.device_id = any (p_device_ids)
        and p.at >= p_from
        and p.at < p_to
        and (p_stream is null or p.stream = p_stream)
      union all
      -- Also from the last point to the end, for a device that is silent now.
      select l.device_id, l.stream, p_to
      from telemetry.latest as l
      where l.device_id = any (p_device_ids) and l.at < p_to and (p_stream is null or l.stream = p_stream)
    ) as s
  ) as g
  where g.at - g.before > p_longer_than
  order by g.before desc, g.device_id, g.stream
  limit 10000;
end;
$$;

comment on function telemetry.read_gaps(bigint[], text, timestamptz, timestamptz, interval) is
  'Where these devices were silent for longer than that, the latest first; up to p_to for one that still is.';
revoke all on function telemetry.read_gaps(bigint[], text, timestamptz, timestamptz, interval) from public;

create or replace function telemetry.size()
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select jsonb_build_object(
      'partitions', count(*), 'first_day', min(x.day), 'last_day', max(x.day), 'bytes', coalesce(sum(x.bytes), 0),
      'points', coalesce(sum(x.points), 0)
    )
    from (
      select to_date(substr(c.relname, 8), 'YYYYMMDD') as day, pg_total_relation_size(c.oid) as bytes,
        greatest(c.reltuples, 0)::bigint as points
      from pg_inherits as i
      join pg_class as c on c.oid = i.inhrelid
      where i.inhparent = 'telemetry.points'::regclass
    ) as x
  );
end;
$$;

comment on function telemetry.size() is
  'How much telemetry there is: {partitions, first_day, last_day, bytes, points}; points as Postgres estimates them.';
revoke all on function telemetry.size() from public;

-- db/sources/64_telemetry/40_of_caller.sql
-- Telemetry as people and devices read it: the device is made out here, and passed on.

create or replace function fleet.telemetry_device(p_device_id bigint)
returns bigint
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device public.devices;
begin
  select d.* into v_device from public.devices as d where d.id = p_device_id;
  if v_device.id is null
    -- Null, where nobody is signed in, is no yes.
    or (
      fleet.is_trusted_caller() or v_device.owner_id in (select fleet.my_owners()) or v_device.id = fleet.current_device_id()
    ) is distinct from true
  then
    perform fleet.raise_not_found(format('device %s', p_device_id));
  end if;
  return v_device.id;
end;
$$;

comment on function fleet.telemetry_device(bigint) is
  'The device, if the caller may see its telemetry: a member of its owner, or the device itself. Raises device_not_found (PT404). Definer: '
  'devices may not search the devices.';
revoke all on function fleet.telemetry_device(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.telemetry_points(
  p_device_id bigint,
  p_from timestamptz,
  p_to timestamptz,
  p_stream text,
  p_limit integer
)
returns table (
  device_id bigint, stream text, recorded_at timestamptz, received_at timestamptz, source text, is_provisional boolean, path text, data jsonb
)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select p.device_id, p.stream, p.at, p.received_at, p.source, p.is_provisional, p.path, p.data
  from telemetry.read_points(array[fleet.telemetry_device(p_device_id)], p_stream, p_from, p_to, p_limit) as p
$$;

comment on function fleet.telemetry_points(bigint, timestamptz, timestamptz, text, integer) is
  'See public.telemetry_points. Definer: it checks the caller; the tables of telemetry are nobody''s.';
revoke all on function fleet.telemetry_points(bigint, timestamptz, timestamptz, text, integer)
  from public, anon, authenticated, service_role;
grant execute on function fleet.telemetry_points(bigint, timestamptz, timestamptz, text, integer) to authenticated, service_role;

create or replace function public.telemetry_points(
  p_device_id bigint,
  p_from timestamptz default now() - interval '1 day',
  p_to timestamptz default now(),
  p_stream text default null,
  p_limit integer default 1000
)
returns table (
  device_id bigint, stream text, recorded_at timestamptz, received_at timestamptz, source text, is_provisional boolean, path text, data jsonb
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select p.* from fleet.telemetry_points(p_device_id, p_from, p_to, p_stream, p_limit) as p
$$;

comment on function public.telemetry_points(bigint, timestamptz, timestamptz, text, integer) is
  'Points of a device, the newest first, from (with) to (without). Raises device_not_found (PT404).';
revoke all on function public.telemetry_points(bigint, timestamptz, timestamptz, text, integer)
  from public, anon, authenticated, service_role;
grant execute on function public.telemetry_points(bigint, timestamptz, timestamptz, text, integer) to authenticated, service_role;

create or replace function fleet.telemetry_hours(
  p_device_id bigint,
  p_field text,
  p_from timestamptz,
  p_to timestamptz,
  p_limit integer
)
returns table (
  device_id bigint, stream text, hour timestamptz, field text, points integer, smallest double precision, largest double precision,
  average double precision
)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select h.device_id, h.stream, h.hour, h.field, h.points, h.smallest, h.largest, h.total / nullif(h.points, 0)
  from telemetry.read_hours(array[fleet.telemetry_device(p_device_id)], p_from, p_to, p_limit, p_field) as h
$$;

comment on function fleet.telemetry_hours(bigint, text, timestamptz, timestamptz, integer) is
  'See public.telemetry_hours. Definer: it checks the caller; the tables of telemetry are nobody''s.';
revoke all on function fleet.telemetry_hours(bigint, text, timestamptz, timestamptz, integer)
  from public, anon, authenticated, service_role;
grant execute on function fleet.telemetry_hours(bigint, text, timestamptz, timestamptz, integer) to authenticated, service_role;

create or replace function public.telemetry_hours(
  p_device_id bigint,
  p_field text default null,
  p_from timestamptz default now() - interval '7 days',
  p_to timestamptz default now(),
  p_limit integer default 10000
)
returns table (
  device_id bigint, stream text, hour timestamptz, field text, points integer, smallest double precision, largest double precision,
  average double precision
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select h.* from fleet.telemetry_hours(p_device_id, p_field, p_from, p_to, p_limit) as h
$$;

comment on function public.telemetry_hours(bigint, text, timestamptz, timestamptz, integer) is
  'The numbers of a device by the hour, the newest first: how many points, the least, the most, the average; the field without a name counts '
  'all points. An hour is there a minute after its points. Raises device_not_found (PT404).';
revoke all on function public.telemetry_hours(bigint, text, timestamptz, timestamptz, integer)
  from public, anon, authenticated, service_role;
grant execute on function public.telemetry_hours(bigint, text, timestamptz, timestamptz, integer) to authenticated, service_role;

create or replace function fleet.telemetry_gaps(
  p_device_id bigint,
  p_longer_than interval,
  p_from timestamptz,
  p_to timestamptz,
  p_stream text
)
returns table (device_id bigint, stream text, gap_from timestamptz, gap_to timestamptz, lasted interval)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select g.*
  from telemetry.read_gaps(array[fleet.telemetry_device(p_device_id)], p_stream, p_from, p_to, p_longer_than) as g
$$;

comment on function fleet.telemetry_gaps(bigint, interval, timestamptz, timestamptz, text) is
  'See public.telemetry_gaps. Definer: it checks the caller; the tables of telemetry are nobody''s.';
revoke all on function fleet.telemetry_gaps(bigint, interval, timestamptz, timestamptz, text)
  from public, anon, authenticated, service_role;
grant execute on function fleet.telemetry_gaps(bigint, interval, timestamptz, timestamptz, text) to authenticated, service_role;

create or replace function public.telemetry_gaps(
  p_device_id bigint,
  p_longer_than interval default '30 minutes',
  p_from timestamptz default now() - interval '1 day',
  p_to timestamptz default now(),
  p_stream text default null
)
returns table (device_id bigint, stream text, gap_from timestamptz, gap_to timestamptz, lasted interval)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select g.* from fleet.telemetry_gaps(p_device_id, p_longer_than, p_from, p_to, p_stream) as g
$$;

comment on function public.telemetry_gaps(bigint, interval, timestamptz, timestamptz, text) is
  'Where a device was silent for longer than that, the latest first; up to p_to for one that still is. Raises device_not_found (PT404).';
revoke all on function public.telemetry_gaps(bigint, interval, timestamptz, timestamptz, text)
  from public, anon, authenticated, service_role;
grant execute on function public.telemetry_gaps(bigint, interval, timestamptz, timestamptz, text) to authenticated, service_role;

-- db/sources/64_telemetry/50_tending.sql
-- What jobs do for telemetry, where it is in this database.

create or replace function fleet.tend_telemetry(p_now timestamptz default now())
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return telemetry.worker_tend(fleet.setting_number('telemetry_days')::integer, p_now);
end;
$$;

comment on function fleet.tend_telemetry(timestamptz) is 'Make partitions ahead, and drop what is older than the setting telemetry_days. {made, dropped}.';
revoke all on function fleet.tend_telemetry(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.roll_up_telemetry()
returns integer
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select telemetry.worker_roll_up(100000)
$$;

comment on function fleet.roll_up_telemetry() is 'Count the hours anew whose points have changed. Answers how many.';
revoke all on function fleet.roll_up_telemetry() from public, anon, authenticated, service_role;

-- db/sources/64_telemetry/60_rules.sql
-- Rules: a condition on the latest point of a device, with hysteresis and cooldown, and what follows from it.

create or replace function fleet.parsed_condition(p_condition text)
returns table (field text[], operator text, threshold double precision, missing_for interval)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select string_to_array(m.part[1], '.'), m.part[2],
    case when length(m.part[3]) <= 30 then m.part[3]::double precision end,
    case when p_condition ~* '^\s*missing for ' then fleet.try_interval(regexp_replace(p_condition, '^\s*missing for\s+', '', 'i')) end
  from (
    select regexp_match(p_condition, '^\s*([A-Za-z_][\w-]*(?:\.[\w-]+)*)\s*(<=|>=|<>|=|<|>)\s*(-?\d+(?:\.\d+)?)\s*$') as part
  ) as m
$$;

comment on function fleet.parsed_condition(text) is
  'A condition in its parts: battery < 15 is a field, an operator and a threshold; missing for 30 minutes is a duration. All null where it '
  'is none.';
revoke all on function fleet.parsed_condition(text) from public, anon, authenticated, service_role;

create or replace function fleet.is_met(p_value double precision, p_operator text, p_threshold double precision)
returns boolean
language sql
immutable
parallel safe
return case p_operator
  when '<' then p_value < p_threshold
  when '<=' then p_value <= p_threshold
  when '>' then p_value > p_threshold
  when '>=' then p_value >= p_threshold
  when '=' then p_value = p_threshold
  when '<>' then p_value <> p_threshold
end;

comment on function fleet.is_met(double precision, text, double precision) is 'Whether a value meets a condition.';
revoke all on function fleet.is_met(double precision, text, double precision) from public, anon, authenticated, service_role;

create or replace function fleet.rule_verdict(
  p_value double precision,
  p_operator text,
  p_threshold double precision,
  p_clear_at double precision,
  p_was_met boolean
)
returns boolean
language sql
immutable
return case
  when p_value is null then p_was_met
  -- Once it is met, it stays so until the value has come back as far as clear_at.
  when p_was_met then fleet.is_met(p_value, p_operator, p_threshold) or (
    p_clear_at is not null and case
      when p_operator in ('<', '<=') then p_value < p_clear_at
      when p_operator in ('>', '>=') then p_value > p_clear_at
      else false
    end
  )
  else fleet.is_met(p_value, p_operator, p_threshold)
end;

comment on function fleet.rule_verdict(double precision, text, double precision, double precision, boolean) is
  'Whether a rule is met by a value, after it was or was not; a point without the value changes nothing.';
revoke all on function fleet.rule_verdict(double precision, text, double precision, double precision, boolean)
  from public, anon, authenticated, service_role;

create or replace function fleet.number_at(p_data jsonb, p_path text[])
returns double precision
language sql
immutable
return (
  select case
    when jsonb_typeof(v.value) = 'number' and ((v.value #>> '{}')::numeric = 0 or abs((v.value #>> '{}')::numeric) between 1e-300 and 1e300)
      then (v.value #>> '{}')::double precision
  end
  from (
    select case when p_path = '{value}' and jsonb_typeof(p_data) = 'number' then p_data else p_data #> p_path end as value
  ) as v
);

comment on function fleet.number_at(jsonb, text[]) is 'The number at a path of the data of a point; null where there is none.';
revoke all on function fleet.number_at(jsonb, text[]) from public, anon, authenticated, service_role;

create or replace function fleet.rules_of_devices(p_device_ids bigint[])
returns table (rule_id bigint, device_id bigint)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select r.id, d.id
  from public.devices as d
  join public.telemetry_rules as r on r.owner_id = d.owner_id and r.is_enabled
  left join public.device_groups as g on g.id = r.group_id and g.owner_id = r.owner_id
  where d.id = any (p_device_ids)
    and d.status = 'active'
    and (r.selector is null or fleet.device_matches(r.selector, d.tags, d.platform, d.attributes, d.reported))
    and (
      r.group_id is null
      or (g.selector is not null and fleet.device_matches(g.selector, d.tags, d.platform, d.attributes, d.reported))
      or exists (select 1 from public.device_group_members as m where m.group_id = r.group_id and m.device_id = d.id)
    )
$$;

comment on function fleet.rules_of_devices(bigint[]) is 'Which rules are about which of these devices.';
revoke all on function fleet.rules_of_devices(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.note_verdicts(p_verdicts jsonb, p_now timestamptz)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  with given as (
    select v.rule_id, v.device_id, v.is_met
    from jsonb_to_recordset(p_verdicts) as v(rule_id bigint, device_id bigint, is_met boolean)
  ),
  kept as (
    insert into fleet.telemetry_rule_states as s (rule_id, device_id, owner_id, is_met, changed_at, acted_at)
    select g.rule_id, g.device_id, r.owner_id, g.is_met, p_now, case when g.is_met then p_now end
    from given as g
    join public.telemetry_rules as r on r.id = g.rule_id
    order by g.rule_id, g.device_id
    on conflict (rule_id, device_id) do update
      set is_met = excluded.is_met, changed_at = p_now,
          acted_at = case
            when excluded.is_met
              and coalesce(s.acted_at <= p_now - (select r.cooldown from public.telemetry_rules as r where r.id = s.rule_id), true)
              then p_now
            else s.acted_at
          end
      where s.is_met is distinct from excluded.is_met
    returning s.rule_id, s.device_id, s.is_met, s.acted_at
  )
  select coalesce(jsonb_agg(jsonb_build_object('rule_id', a.rule_id, 'devices', a.devices)), '[]')
  from (
    select k.rule_id, jsonb_agg(k.device_id order by k.device_id) as devices
    from kept as k
    where k.is_met and k.acted_at = p_now
    group by k.rule_id
  ) as a
$$;

comment on function fleet.note_verdicts(jsonb, timestamptz) is
  'Keep for which devices rules are met, [{rule_id, device_id, is_met}]. Those that are met anew and have cooled down: [{rule_id, devices}].';
revoke all on function fleet.note_verdicts(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.act_for_rule(p_rule public.telemetry_rules, p_device_ids bigint[], p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_most constant integer := fleet.limit_value('device_list');
  v_schedule_id bigint;
begin
  -- As many at a time as one list takes.
  for v_rest in 2..ceil(cardinality(p_device_ids)::numeric / v_most) loop
    perform fleet.act_for_rule(p_rule, p_device_ids[1 + (v_rest - 1) * v_most:v_rest * v_most], p_now);
  end loop;
  p_device_ids := p_device_ids[:v_most];

  if p_rule.action = 'command' then
    insert into public.device_commands (owner_id, device_id, command_type, payload, priority, not_before, expires_at)
    select p_rule.owner_id, d.id, p_rule.action_type, p_rule.payload, p_rule.priority, p_now, p_now + interval '24 hours'
    from unnest(p_device_ids) as d(id);
    return;
  end if;

  insert into public.schedules (
    owner_id, name, description, action_type, payload, recurrence_type, start_time, device_ids, priority
  )
  values (
    p_rule.owner_id,
    left(format(
      '%s: %s', coalesce(nullif(p_rule.name, ''), p_rule.condition),
      case cardinality(p_device_ids)
        when 1 then (select d.hostname from public.devices as d where d.id = p_device_ids[1])
        else cardinality(p_device_ids) || ' devices'
      end
    ), 200),
    format('Telemetry rule %s: %s.', p_rule.id, p_rule.condition),
    p_rule.action_type, p_rule.payload, 'once', p_now, p_device_ids, p_rule.priority
  )
  returning id into v_schedule_id;
  perform fleet.expand_runs(array[r.id], p_now, cardinality(p_device_ids))
  from public.schedule_runs as r
  where r.schedule_id = v_schedule_id and r.expanded_at is null;
end;
$$;

comment on function fleet.act_for_rule(public.telemetry_rules, bigint[], timestamptz) is
  'Do what a rule wants for these devices: a command for each, or one schedule that is due now.';
revoke all on function fleet.act_for_rule(public.telemetry_rules, bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.act_for_rules(p_acts jsonb, p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_act record;
  v_rule public.telemetry_rules;
  v_error text;
  v_count integer := 0;
begin
  for v_act in select a.rule_id, a.devices from jsonb_to_recordset(p_acts) as a(rule_id bigint, devices jsonb) loop
    select r.* into v_rule from public.telemetry_rules as r where r.id = v_act.rule_id;
    continue when not found;
    v_error := null;
    -- One that is wrong by now, such as one whose command type is gone, must not stop the others; its owner reads why.
    begin
      perform fleet.act_for_rule(v_rule, fleet.bigint_array(v_act.devices), p_now);
      v_count := v_count + jsonb_array_length(v_act.devices);
    exception
      when query_canceled or admin_shutdown or deadlock_detected then
        raise;
      when others then
        v_error := sqlerrm;
    end;
    update public.telemetry_rules as r
    set last_acted_at = case when v_error is null then p_now else r.last_acted_at end, last_error = left(v_error, 4000)
    where r.id = v_rule.id;
  end loop;
  return v_count;
end;
$$;

comment on function fleet.act_for_rules(jsonb, timestamptz) is
  'Do what rules want, [{rule_id, devices}], each by itself. Answers for how many devices.';
revoke all on function fleet.act_for_rules(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_judge_points(p_points jsonb, p_now timestamptz default clock_timestamp())
returns integer
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  v_verdicts jsonb;
begin
  insert into fleet.telemetry_seen as s (device_id, owner_id, last_at)
  select d.id, d.owner_id, max(p.at)
  from jsonb_to_recordset(p_points) as p(device_id bigint, at timestamptz)
  join public.devices as d on d.id = p.device_id
  group by d.id, d.owner_id
  order by d.id
  on conflict (device_id) do update set last_at = greatest(s.last_at, excluded.last_at), owner_id = excluded.owner_id;
  -- Nearly everybody has none.
  if not exists (select 1 from public.telemetry_rules as r where r.is_enabled) then
    return 0;
  end if;

  with given as materialized (
    select p.device_id, p.at, p.data
    from jsonb_to_recordset(p_points) as p(device_id bigint, at timestamptz, data jsonb)
    -- What is read later says nothing of now.
    where p.at > p_now - interval '1 hour'
  ),
  judged as (
    select r.id as rule_id, g.device_id,
      case
        when c.missing_for is not null then g.at < p_now - c.missing_for
        else fleet.rule_verdict(
          fleet.number_at(g.data, c.field), c.operator, c.threshold, r.clear_at, coalesce(s.is_met, false)
        )
      end as is_met,
      coalesce(s.is_met, false) as was_met
    from fleet.rules_of_devices(array(select g.device_id from given as g)) as x
    join given as g on g.device_id = x.device_id
    join public.telemetry_rules as r on r.id = x.rule_id
    cross join lateral fleet.parsed_condition(r.condition) as c
    left join fleet.telemetry_rule_states as s on s.rule_id = r.id and s.device_id = g.device_id
  )
  select coalesce(jsonb_agg(jsonb_build_object('rule_id', j.rule_id, 'device_id', j.device_id, 'is_met', j.is_met)), '[]')
  into v_verdicts
  from judged as j
  where j.is_met <> j.was_met;
  return fleet.act_for_rules(fleet.note_verdicts(v_verdicts, p_now), p_now);
end;
$$;

comment on function fleet.worker_judge_points(jsonb, timestamptz) is
  'Points that are now the latest of their device, [{device_id, at, data}]: do what rules want because of them. Answers for how many devices '
  'something was done. Definer: the worker writes no table.';
revoke all on function fleet.worker_judge_points(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.judge_silence(p_now timestamptz default now())
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_verdicts jsonb;
begin
  if not fleet.pass_turnstile('judge-silence', interval '20 seconds', p_now)
    or not exists (select 1 from public.telemetry_rules as r where r.is_enabled and r.condition ~* '^\s*missing for ')
  then
    return 0;
  end if;

  select coalesce(jsonb_agg(jsonb_build_object('rule_id', t.rule_id, 'device_id', t.device_id, 'is_met', true)), '[]') into v_verdicts
  from (
    select q.rule_id, q.device_id
    from (
      select r.id as rule_id, d.device_id, row_number() over (partition by r.owner_id order by d.last_at) as turn
      from public.telemetry_rules as r
      cross join lateral fleet.parsed_condition(r.condition) as c
      cross join lateral (
        select s.device_id, s.last_at
        from fleet.telemetry_seen as s
        where s.owner_id = r.owner_id
          and s.last_at < p_now - c.missing_for
          and not exists (
            select 1 from fleet.telemetry_rule_states as k where k.rule_id = r.id and k.device_id = s.device_id and k.is_met
          )
        order by s.last_at
        limit 500
      ) as d
      where r.is_enabled and c.missing_for is not null
        and exists (select 1 from fleet.rules_of_devices(array[d.device_id]) as x where x.rule_id = r.id)
    ) as q
    -- Owners in turn: one whose every device is silent keeps nobody waiting.
    order by q.turn
    limit 1000
  ) as t;
  return fleet.act_for_rules(fleet.note_verdicts(v_verdicts, p_now), p_now);
end;
$$;

comment on function fleet.judge_silence(timestamptz) is
  'Do what rules want because devices stay silent, a few times a minute. Answers for how many devices something was done; called by the tick.';
revoke all on function fleet.judge_silence(timestamptz) from public, anon, authenticated, service_role;

-- db/sources/64_telemetry/65_rule_problems.sql
-- What may be wrong with a rule.

create or replace function public.enable_telemetry_rule(p_id bigint, p_is_enabled boolean)
returns public.telemetry_rules
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.telemetry_rules;
begin
  update public.telemetry_rules as r set is_enabled = p_is_enabled where r.id = p_id returning r.* into v_row;
  if not found then
    raise exception 'telemetry rule % was not found', p_id
      using errcode = 'PT404', detail = 'telemetry_rule_not_found', hint = 'List them with: select * from telemetry_rule_list';
  end if;
  return v_row;
end;
$$;

comment on function public.enable_telemetry_rule(bigint, boolean) is
  'Let a rule act, or do nothing. Answers the row. Raises telemetry_rule_not_found (PT404) or telemetry_rule_invalid (PT422).';
revoke all on function public.enable_telemetry_rule(bigint, boolean) from public, anon, authenticated, service_role;
grant execute on function public.enable_telemetry_rule(bigint, boolean) to authenticated, service_role;

create or replace function fleet.rule_met_for(p_rule_id bigint)
returns bigint
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select count(*)
  from fleet.telemetry_rule_states as s
  join public.telemetry_rules as r on r.id = s.rule_id
  where s.rule_id = p_rule_id and s.is_met and fleet.is_visible_owner(r.owner_id)
$$;

comment on function fleet.rule_met_for(bigint) is
  'For how many devices a rule is met at present. Definer: the states are nobody''s; it counts for who sees the rule.';
revoke all on function fleet.rule_met_for(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.rule_met_for(bigint) to authenticated, service_role;

create or replace function fleet.telemetry_rule_problems(p_rule public.telemetry_rules)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select 'condition', format('"%s" is no condition', left(p_rule.condition, 60)), 'Examples: battery < 15, gps.speed >= 30, missing for 30 minutes'
  from fleet.parsed_condition(p_rule.condition) as c
  where c.threshold is null and c.missing_for is null
  union all
  select 'condition', 'asks for a silence of less than a minute or more than a year', 'Example: missing for 30 minutes'
  from fleet.parsed_condition(p_rule.condition) as c
  where c.missing_for not between interval '1 minute' and interval '366 days'
  union all
  select 'clear_at', 'lies on the wrong side of the condition', 'With battery < 15 it is 15 or more, such as 20.'
  from fleet.parsed_condition(p_rule.condition) as c
  where c.operator in ('<', '<=') and p_rule.clear_at < c.threshold or c.operator in ('>', '>=') and p_rule.clear_at > c.threshold
  union all
  select 'group_id', format('group %s was not found', p_rule.group_id), 'List your groups with: select * from group_list'
  where p_rule.group_id is not null
    and not exists (select 1 from public.device_groups as g where g.id = p_rule.group_id and g.owner_id = p_rule.owner_id)
  union all
  select s.field, s.problem, s.hint from fleet.selector_problems(p_rule.selector) as s
  union all
  select 'is_enabled', 'is one too many: an owner has fifty rules at most', 'Delete or disable another one.'
  where p_rule.is_enabled and (
    select count(*) from public.telemetry_rules as r where r.owner_id = p_rule.owner_id and r.is_enabled and r.id <> p_rule.id
  ) >= 50
  union all
  select 'payload', 'must be an object', 'Example: {"message": "Charge me"}'
  where jsonb_typeof(p_rule.payload) is distinct from 'object'
  union all
  select q.field, q.problem, q.hint
  from fleet.payload_problems(p_rule.owner_id, p_rule.action_type, p_rule.payload) as q
  where jsonb_typeof(p_rule.payload) = 'object'
  union all
  -- What devices tell decides nothing that cannot be undone.
  select 'action_type', format('%s cannot be undone, and a device decides it here', p_rule.action_type), 'Let a person send it.'
  where exists (
    select 1
    from public.command_types as t
    where t.name = p_rule.action_type and coalesce(t.owner_id, p_rule.owner_id) = p_rule.owner_id and t.destructive
  )
$$;

comment on function fleet.telemetry_rule_problems(public.telemetry_rules) is
  'Everything that is wrong with a rule. What belongs to another owner is as good as not there.';
revoke all on function fleet.telemetry_rule_problems(public.telemetry_rules) from public, anon, authenticated, service_role;

-- db/sources/64_telemetry/70_health.sql
-- What devices say of their own health becomes points of their stream health, so that rules hear of it.

create or replace function fleet.take_health_reports(p_limit integer, p_now timestamptz)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  with turns as (
    select x.device_id
    from (
      select r.device_id, r.at, row_number() over (partition by r.owner_id order by r.at) as turn
      from fleet.health_reports as r
      where r.is_waiting and coalesce(r.stored_at < p_now - interval '1 minute', true)
    ) as x
    -- Owners in turn.
    order by x.turn, x.at
    limit p_limit
  ),
  taken as (
    update fleet.health_reports as r
    set is_waiting = false, stored_at = p_now
    from turns as t
    where r.device_id = t.device_id
    returning r.device_id, r.owner_id, r.at, r.data
  )
  select coalesce(jsonb_agg(to_jsonb(t)), '[]') from taken as t
$$;

comment on function fleet.take_health_reports(integer, timestamptz) is
  'Take reports that wait, owners in turn, one a minute of each device: [{device_id, owner_id, at, data}].';
revoke all on function fleet.take_health_reports(integer, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.store_health(p_now timestamptz default now())
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_batch uuid := gen_random_uuid();
  v_reports jsonb;
  v_result jsonb;
begin
  if not exists (select 1 from fleet.health_reports as r where r.is_waiting) then
    return 0;
  end if;
  v_reports := fleet.take_health_reports(2000, p_now);
  insert into telemetry.staging (batch, device_id, stream, at, digest, owner_id, source, is_provisional, data)
  select v_batch, r.device_id, 'health', r.at, md5(r.data::text)::uuid, r.owner_id, 'agent', false, r.data
  from jsonb_to_recordset(v_reports) as r(device_id bigint, owner_id uuid, at timestamptz, data jsonb)
  where pg_column_size(r.data) <= 32768;
  v_result := telemetry.worker_store(v_batch, fleet.setting_number('telemetry_days')::integer, p_now);
  perform fleet.worker_judge_points(v_result -> 'latest', p_now);
  return jsonb_array_length(v_reports);
end;
$$;

comment on function fleet.store_health(timestamptz) is
  'Store how devices said they are, in this database, and do what rules want because of it. Answers how many reports; called by the tick.';
revoke all on function fleet.store_health(timestamptz) from public, anon, authenticated, service_role;

-- db/sources/64_telemetry/views.sql
-- Telemetry as people and devices list it, where it is in this database. These two act with the rights of their owner: the tables of
-- telemetry have no row security, so that they can be anywhere, and nobody has a right on them; the views say who sees what.

drop view if exists public.device_telemetry_history;
create view public.device_telemetry_history with (security_barrier = true) as
select p.device_id, p.owner_id, p.at as recorded_at, p.received_at as created_at, p.source, p.stream, p.path, p.is_provisional, p.data
from telemetry.points as p
where (select fleet.is_trusted_caller())
  or p.owner_id = any (array(select fleet.my_owners()))
  or p.device_id = (select fleet.current_device_id());

comment on view public.device_telemetry_history is
  'Telemetry points: people see those of their fleets, a device its own. Ask with recorded_at and device_id: one day is one partition.';
comment on column public.device_telemetry_history.recorded_at is 'When the device measured it, or when its cloud took it.';
comment on column public.device_telemetry_history.source is 'pull, push, import or agent: the way on which it came first.';
comment on column public.device_telemetry_history.stream is 'Which series of the device it is.';
comment on column public.device_telemetry_history.path is 'On which path the device sent it, where that was told.';
comment on column public.device_telemetry_history.is_provisional is
  'Whether it was pushed without a time of its own, and the pull has not confirmed it yet.';
comment on column public.device_telemetry_history.data is 'What was measured.';
revoke all on table public.device_telemetry_history from public, anon, authenticated, service_role;
grant select on table public.device_telemetry_history to authenticated, service_role;

drop view if exists public.device_telemetry_latest;
create view public.device_telemetry_latest with (security_barrier = true) as
select l.device_id, l.owner_id, l.stream, l.at as recorded_at, l.received_at as created_at, l.source, l.data
from telemetry.latest as l
where (select fleet.is_trusted_caller())
  or l.owner_id = any (array(select fleet.my_owners()))
  or l.device_id = (select fleet.current_device_id());

comment on view public.device_telemetry_latest is
  'The latest point of each device and stream: people see those of their fleets, a device its own.';
comment on column public.device_telemetry_latest.recorded_at is 'When the device measured it.';
comment on column public.device_telemetry_latest.source is 'On which way it came.';
comment on column public.device_telemetry_latest.stream is 'Which series of the device it is.';
comment on column public.device_telemetry_latest.data is 'What was measured.';
revoke all on table public.device_telemetry_latest from public, anon, authenticated, service_role;
grant select on table public.device_telemetry_latest to authenticated, service_role;

drop view if exists public.telemetry_rule_list;
create view public.telemetry_rule_list with (security_invoker = true) as
select
  r.id, r.owner_id, o.name as owner, r.name, r.condition, r.clear_at, r.cooldown, g.name as group_name, r.selector, r.action,
  r.action_type, r.payload, r.priority, r.is_enabled, fleet.rule_met_for(r.id) as met_for, r.last_acted_at, r.last_error, r.created_at
from public.telemetry_rules as r
join public.owners as o on o.id = r.owner_id
left join public.device_groups as g on g.id = r.group_id;

comment on view public.telemetry_rule_list is 'Rules on telemetry, with how they stand.';
comment on column public.telemetry_rule_list.owner is 'The name of the owner.';
comment on column public.telemetry_rule_list.group_name is 'The name of the group whose devices it is about; null for all.';
comment on column public.telemetry_rule_list.met_for is 'For how many devices it is met at present.';
select fleet.inherit_comments('public.telemetry_rule_list', 'public.telemetry_rules');
revoke all on table public.telemetry_rule_list from public, anon, authenticated, service_role;
grant select on table public.telemetry_rule_list to authenticated, service_role;

-- db/sources/64_telemetry/triggers.sql
-- What holds for rules however a row is written.

create or replace function fleet.tg_prepare_telemetry_rule()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  new.owner_id := fleet.owner_or_own(new.owner_id);
  perform fleet.require_permission(new.owner_id, 'manage', format('owner %s', new.owner_id));
  if tg_op = 'INSERT' then
    new.created_by := fleet.current_user_id();
  end if;

  perform fleet.require_destructive(new.owner_id, new.action_type);
  perform fleet.raise_problems('the telemetry rule', 'telemetry_rule_invalid', array_agg(q))
  from fleet.telemetry_rule_problems(new) as q;
  new.updated_at := now();
  return new;
end;
$$;

comment on function fleet.tg_prepare_telemetry_rule() is
  'Check a rule however it is written. Raises telemetry_rule_invalid (PT422, PT404). Definer: it checks the caller, then sees what the checks '
  'need to see.';
revoke all on function fleet.tg_prepare_telemetry_rule() from public, anon, authenticated, service_role;

create or replace trigger telemetry_rules_01_prepare
  before insert or update of owner_id, name, condition, clear_at, cooldown, group_id, selector, action, action_type, payload, priority, is_enabled
  on public.telemetry_rules
  for each row execute function fleet.tg_prepare_telemetry_rule();

select fleet.keep_used_types('public.telemetry_rules', 'array[x.action_type]');

-- What people want of it, not what it did.
select fleet.keep_audit(
  'public.telemetry_rules',
  p_columns => '{name,condition,clear_at,cooldown,group_id,selector,action,action_type,payload,priority,is_enabled}'
);

create or replace function fleet.tg_keep_health()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into fleet.health_reports as r (device_id, owner_id, at, data)
  values (new.id, new.owner_id, clock_timestamp(), new.reported -> 'health')
  on conflict (device_id) do update
    set owner_id = excluded.owner_id, at = excluded.at, data = excluded.data, is_waiting = true;
  return null;
end;
$$;

comment on function fleet.tg_keep_health() is
  'Keep what a device says of its health for its stream health. Definer: a device may write no table.';
revoke all on function fleet.tg_keep_health() from public, anon, authenticated, service_role;

create or replace trigger devices_64_keep_health
  after update of reported on public.devices
  for each row
  when (jsonb_typeof(new.reported -> 'health') = 'object' and new.reported -> 'health' is distinct from old.reported -> 'health')
  execute function fleet.tg_keep_health();

-- db/sources/64_telemetry/access.sql
-- On the tables of telemetry nobody has a right, but for the login of the HTTP functions that copies into one of them.

do $$
declare
  v_function regprocedure;
begin
  revoke all on schema telemetry from public, anon, authenticated, service_role;
  revoke all on all tables in schema telemetry from public, anon, authenticated, service_role;
  for v_function in select p.oid from pg_catalog.pg_proc as p where p.pronamespace = 'telemetry'::regnamespace loop
    execute format('revoke all on function %s from public, anon, authenticated, service_role', v_function);
  end loop;
end;
$$;

revoke all on table public.telemetry_rules, fleet.telemetry_rule_states, fleet.telemetry_seen, fleet.health_reports
  from public, anon, authenticated, service_role;
revoke all on sequence public.telemetry_rules_id_seq from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.telemetry_rules to service_role;
grant usage, select on sequence public.telemetry_rules_id_seq to service_role;
grant select, delete on table public.telemetry_rules to authenticated;
grant insert (
  owner_id, name, condition, clear_at, cooldown, group_id, selector, action, action_type, payload, priority, is_enabled
) on table public.telemetry_rules to authenticated;
grant update (name, condition, clear_at, cooldown, group_id, selector, action, action_type, payload, priority, is_enabled)
  on table public.telemetry_rules to authenticated;

drop policy if exists telemetry_rules_all_service_role on public.telemetry_rules;
create policy telemetry_rules_all_service_role on public.telemetry_rules
  for all to service_role using (true) with check (true);
drop policy if exists telemetry_rules_select_member on public.telemetry_rules;
create policy telemetry_rules_select_member on public.telemetry_rules
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists telemetry_rules_insert_manager on public.telemetry_rules;
create policy telemetry_rules_insert_manager on public.telemetry_rules
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists telemetry_rules_update_manager on public.telemetry_rules;
create policy telemetry_rules_update_manager on public.telemetry_rules
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists telemetry_rules_delete_manager on public.telemetry_rules;
create policy telemetry_rules_delete_manager on public.telemetry_rules
  for delete to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));

set check_function_bodies = on;
reset search_path;
