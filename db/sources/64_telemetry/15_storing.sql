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
