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
