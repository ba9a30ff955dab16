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
