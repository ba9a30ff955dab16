-- Generated from db/sources/45_locations by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/45_locations/05_names.sql
-- Locations by their names.

create or replace function public.location_id(p_name text)
returns bigint
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.only_one(
    'location', p_name,
    array(select x.id::text from public.locations as x where lower(x.name) = lower(p_name) order by x.id),
    (select x.id::text from public.locations as x where x.id = fleet.try_bigint(p_name))
  )::bigint
$$;

comment on function public.location_id(text) is
  'The location that a name or an id means; a name in any case, and it wins over an id. Raises location_not_found (PT404) or '
  'location_ambiguous (PT409).';
revoke all on function public.location_id(text) from public, anon, authenticated, service_role;
grant execute on function public.location_id(text) to authenticated, service_role;

-- db/sources/45_locations/10_geometry.sql
-- Distances on the earth, without an extension: circles by the haversine formula, polygons on a flat map around the fix.

create or replace function fleet.longitude_difference(p_from double precision, p_to double precision)
returns double precision
language sql
immutable
parallel safe
-- The short way round, from -180 up to 180: the antimeridian is a line like any other.
return (p_to - p_from) - 360 * floor((p_to - p_from + 180) / 360);

comment on function fleet.longitude_difference(double precision, double precision) is
  'How many degrees east of the first meridian the second is, the short way round.';
revoke all on function fleet.longitude_difference(double precision, double precision)
  from public, anon, authenticated, service_role;

create or replace function fleet.distance_m(
  p_latitude double precision,
  p_longitude double precision,
  p_to_latitude double precision,
  p_to_longitude double precision
)
returns double precision
language sql
immutable
parallel safe
return 2 * 6371008.8 * asin(least(1, sqrt(
  power(sin(radians(p_to_latitude - p_latitude) / 2), 2)
  + cos(radians(p_latitude)) * cos(radians(p_to_latitude)) * power(sin(radians(p_to_longitude - p_longitude) / 2), 2)
)));

comment on function fleet.distance_m(double precision, double precision, double precision, double precision) is
  'Metres between two points by the haversine formula, on a sphere of the mean radius of the earth (within 0.5 % of the truth).';
revoke all on function fleet.distance_m(double precision, double precision, double precision, double precision)
  from public, anon, authenticated, service_role;

create or replace function fleet.polygon_edges(p_polygon jsonb, p_latitude double precision, p_longitude double precision)
returns table (x double precision, y double precision, to_x double precision, to_y double precision)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  with corner as (
    select c.nr, (c.item ->> 0)::double precision as latitude, (c.item ->> 1)::double precision as longitude
    from jsonb_array_elements(p_polygon) with ordinality as c(item, nr)
  ), flat as (
    -- Seen from the first corner, not from the fix: on the far side of the earth an edge would be torn apart.
    select c.nr,
      radians(
        fleet.longitude_difference(p_longitude, f.longitude) + fleet.longitude_difference(f.longitude, c.longitude)
      ) * cos(radians(p_latitude)) * 6371008.8 as x,
      radians(c.latitude - p_latitude) * 6371008.8 as y
    from corner as c
    join corner as f on f.nr = 1
  )
  select f.x, f.y,
    coalesce(lead(f.x) over w, first_value(f.x) over w),
    coalesce(lead(f.y) over w, first_value(f.y) over w)
  from flat as f
  window w as (order by f.nr)
$$;

comment on function fleet.polygon_edges(jsonb, double precision, double precision) is
  'The edges of a polygon in metres east and north of a point, on a flat map that is true around that point.';
revoke all on function fleet.polygon_edges(jsonb, double precision, double precision)
  from public, anon, authenticated, service_role;

create or replace function fleet.polygon_distance_m(p_polygon jsonb, p_latitude double precision, p_longitude double precision)
returns double precision
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  with edge as (
    select e.x, e.y, e.to_x - e.x as dx, e.to_y - e.y as dy
    from fleet.polygon_edges(p_polygon, p_latitude, p_longitude) as e
  ), foot as (
    -- Where on the edge its nearest point to the origin is: 0 at its start, 1 at its end.
    select e.*,
      greatest(0, least(1, coalesce(-(e.x * e.dx + e.y * e.dy) / nullif(e.dx * e.dx + e.dy * e.dy, 0), 0))) as share
    from edge as e
  )
  select min(sqrt(power(f.x + f.share * f.dx, 2) + power(f.y + f.share * f.dy, 2)))
    -- Inside where a ray to the east crosses the border an odd number of times.
    * case
      when count(*) filter (
        where (f.y > 0) <> (f.y + f.dy > 0) and f.x - f.y * f.dx / nullif(f.dy, 0) > 0
      ) % 2 = 1 then -1
      else 1
    end
  from foot as f
$$;

comment on function fleet.polygon_distance_m(jsonb, double precision, double precision) is
  'Metres from a point to the border of a polygon [[latitude, longitude], …]; negative inside.';
revoke all on function fleet.polygon_distance_m(jsonb, double precision, double precision)
  from public, anon, authenticated, service_role;

create or replace function fleet.border_distance_m(
  p_location public.locations,
  p_latitude double precision,
  p_longitude double precision
)
returns double precision
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case p_location.kind
    when 'circle' then
      fleet.distance_m(p_location.latitude, p_location.longitude, p_latitude, p_longitude) - p_location.radius_m
    -- Far away the flat map is wrong, but then the circle around the polygon tells enough.
    when 'polygon' then
      case
        when c.distance_m > 3 * p_location.reach_m + 1000 then c.distance_m - p_location.reach_m
        else fleet.polygon_distance_m(p_location.polygon, p_latitude, p_longitude)
      end
  end
  from (
    select fleet.distance_m(p_location.latitude, p_location.longitude, p_latitude, p_longitude) as distance_m
  ) as c
$$;

comment on function fleet.border_distance_m(public.locations, double precision, double precision) is
  'Metres from a point to the border of a location; negative inside. Of a polygon that is far away, a lower bound.';
revoke all on function fleet.border_distance_m(public.locations, double precision, double precision)
  from public, anon, authenticated, service_role;

create or replace function fleet.polygon_centre(p_polygon jsonb)
returns table (latitude double precision, longitude double precision, reach_m double precision)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  with corner as (
    select (c.item ->> 0)::double precision as latitude,
      fleet.longitude_difference((p_polygon -> 0 ->> 1)::double precision, (c.item ->> 1)::double precision) as east
    from jsonb_array_elements(p_polygon) as c(item)
  ), middle as (
    select (min(c.latitude) + max(c.latitude)) / 2 as latitude,
      fleet.longitude_difference(
        0, (p_polygon -> 0 ->> 1)::double precision + (min(c.east) + max(c.east)) / 2
      ) as longitude
    from corner as c
  )
  select m.latitude, m.longitude, max(
    fleet.distance_m(m.latitude, m.longitude, c.latitude, (p_polygon -> 0 ->> 1)::double precision + c.east)
  )
  from middle as m
  cross join corner as c
  group by m.latitude, m.longitude
$$;

comment on function fleet.polygon_centre(jsonb) is 'The middle of a polygon and how far its furthest corner is from there.';
revoke all on function fleet.polygon_centre(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.polygon_area_m2(p_polygon jsonb)
returns double precision
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select abs(sum(e.x * e.to_y - e.to_x * e.y)) / 2
  from fleet.polygon_edges(p_polygon, (p_polygon -> 0 ->> 0)::double precision, (p_polygon -> 0 ->> 1)::double precision) as e
$$;

comment on function fleet.polygon_area_m2(jsonb) is 'The area that a polygon encloses, in square metres, on a flat map around its first corner.';
revoke all on function fleet.polygon_area_m2(jsonb) from public, anon, authenticated, service_role;

-- db/sources/45_locations/20_sides.sql
-- Which side of a border a fix is on, and when that counts. All of it is arithmetic: no table is read.

create or replace function fleet.side_of_fix(
  p_distance_m double precision,
  p_error_m double precision,
  p_hysteresis_m double precision,
  p_is_inside boolean
)
returns text
language sql
immutable
parallel safe
return case
  -- The circle of error crosses the border.
  when p_distance_m > -p_error_m and p_distance_m <= p_error_m then 'unclear'
  when p_distance_m <= 0 then 'inside'
  when not p_is_inside then 'outside'
  -- For a device inside, the border that matters lies further out.
  when p_distance_m - p_error_m > p_hysteresis_m then 'outside'
  when p_distance_m + p_error_m <= p_hysteresis_m then 'inside'
  else 'unclear'
end;

comment on function fleet.side_of_fix(double precision, double precision, double precision, boolean) is
  'The side that a fix speaks for, given its distance to the border (negative inside) and where the device was: one that is inside has '
  'left only beyond the hysteresis. An unclear fix speaks for none.';
revoke all on function fleet.side_of_fix(double precision, double precision, double precision, boolean)
  from public, anon, authenticated, service_role;

create or replace function fleet.candidate_since(
  p_is_inside boolean,
  p_candidate_since timestamptz,
  p_seen_at timestamptz,
  p_side text,
  p_fix_at timestamptz,
  p_stale_after interval
)
returns timestamptz
language sql
immutable
parallel safe
return case
  when p_side = 'unclear' then p_candidate_since
  when (p_side = 'inside') = p_is_inside then null
  -- What was seen before a long silence does not show that it held meanwhile.
  when p_candidate_since is null or p_fix_at - p_seen_at > p_stale_after then p_fix_at
  else p_candidate_since
end;

comment on function fleet.candidate_since(boolean, timestamptz, timestamptz, text, timestamptz, interval) is
  'Since when a device is seen on the other side than the one that counts; null where it is not.';
revoke all on function fleet.candidate_since(boolean, timestamptz, timestamptz, text, timestamptz, interval)
  from public, anon, authenticated, service_role;

create or replace function fleet.stale_position_after()
returns interval
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return make_interval(hours => fleet.setting_number('stale_position_hours')::integer);
end;
$$;

comment on function fleet.stale_position_after() is 'After how long without a fix a position is unknown.';
revoke all on function fleet.stale_position_after() from public, anon, authenticated, service_role;

-- db/sources/45_locations/30_judge.sql
-- What fixes say about the locations of their owner: at most one fix of each device at a time.

create or replace function fleet.judged_fixes(p_fixes jsonb, p_stale_after interval)
returns table (
  device_id bigint, owner_id uuid, fix_at timestamptz, location_id bigint, location_name text, side text,
  was_inside boolean, is_inside boolean, since timestamptz, candidate_since timestamptz
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- plpgsql keeps its plan, and any list is planned alike.
set plan_cache_mode = force_generic_plan
as $$
begin
  return query
  with near as (
    select f.device_id, f.owner_id, f.at, l.id, l.name, l.min_dwell,
      coalesce(p.is_inside, false) as was_inside, p.since, p.candidate_since, p.seen_at,
      fleet.side_of_fix(
        fleet.border_distance_m(l, f.latitude, f.longitude),
        coalesce(f.accuracy_m, l.hysteresis_m), l.hysteresis_m, coalesce(p.is_inside, false)
      ) as side
    from jsonb_to_recordset(p_fixes) as f(
      device_id bigint, owner_id uuid, latitude double precision, longitude double precision,
      accuracy_m double precision, at timestamptz
    )
    join public.locations as l on l.owner_id = f.owner_id
    left join public.device_places as p on p.device_id = f.device_id and p.location_id = l.id
    -- A location that is far off and stays so has nothing to say.
    where p.is_inside
      or p.candidate_since is not null
      or fleet.distance_m(l.latitude, l.longitude, f.latitude, f.longitude) <= l.reach_m + coalesce(f.accuracy_m, l.hysteresis_m)
  ), seen as (
    select n.*,
      fleet.candidate_since(n.was_inside, n.candidate_since, n.seen_at, n.side, n.at, p_stale_after) as candidate
    from near as n
  ), decided as (
    select s.*, s.side <> 'unclear' and coalesce(s.at - s.candidate >= s.min_dwell, false) as changes
    from seen as s
  )
  select d.device_id, d.owner_id, d.at, d.id, d.name, d.side,
    d.was_inside, d.was_inside <> d.changes,
    case when d.changes then d.candidate else d.since end,
    case when not d.changes then d.candidate end
  from decided as d;
end;
$$;

comment on function fleet.judged_fixes(jsonb, interval) is
  'What each fix {device_id, owner_id, latitude, longitude, accuracy_m, at} makes of each location near it, by the state that is stored. '
  'One fix of a device at most.';
revoke all on function fleet.judged_fixes(jsonb, interval) from public, anon, authenticated, service_role;

create or replace function fleet.judged_positions(p_fixes jsonb, p_judged jsonb, p_stale_after interval)
returns table (device_id bigint, was_outside_all boolean, is_outside_all boolean, outside_since timestamptz)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- plpgsql keeps its plan, and any list is planned alike.
set plan_cache_mode = force_generic_plan
as $$
begin
  return query
  with summed as (
    select f.device_id, f.at, p.is_outside_all, p.outside_since,
      p.fix_at is null or f.at - p.fix_at > p_stale_after as was_silent,
      (select min(l.min_dwell) from public.locations as l where l.owner_id = f.owner_id) as min_dwell,
      j.is_in_one, j.is_seen_in_one, j.is_unclear
    from jsonb_to_recordset(p_fixes) as f(device_id bigint, owner_id uuid, at timestamptz)
    join public.device_positions as p on p.device_id = f.device_id
    cross join lateral (
      select coalesce(bool_or(r.is_inside), false) as is_in_one,
        coalesce(bool_or(r.side = 'inside'), false) as is_seen_in_one,
        coalesce(bool_or(r.side = 'unclear'), false) as is_unclear
      from jsonb_to_recordset(p_judged) as r(device_id bigint, is_inside boolean, side text)
      where r.device_id = f.device_id
    ) as j
  ), counted as (
    select s.*,
      case
        when s.is_seen_in_one then null
        when s.is_unclear then s.outside_since
        when s.outside_since is null or s.was_silent then s.at
        else s.outside_since
      end as since
    from summed as s
  )
  select c.device_id, c.is_outside_all,
    case
      when c.min_dwell is null then null
      when c.is_in_one then false
      when not c.is_unclear and c.at - c.since >= c.min_dwell then true
      else c.is_outside_all
    end,
    c.since
  from counted as c;
end;
$$;

comment on function fleet.judged_positions(jsonb, jsonb, interval) is
  'Whether each device is outside of all locations, given what fleet.judged_fixes said. It is when no location has it inside and its '
  'fixes were clear of all for the shortest min_dwell; null where the owner has no location.';
revoke all on function fleet.judged_positions(jsonb, jsonb, interval) from public, anon, authenticated, service_role;

-- db/sources/45_locations/40_fixes.sql
-- Taking fixes: in the order of their own times, each at most once, whatever the order in which they come.

create or replace function fleet.fix_outcome(
  p_is_known boolean,
  p_is_valid boolean,
  p_at timestamptz,
  p_judged_to timestamptz,
  p_now timestamptz,
  p_stale_after interval
)
returns text
language sql
-- As what is added to an instant; as immutable it would not be put in place.
stable
parallel safe
return case
  when not p_is_known then 'unknown_device'
  when not p_is_valid then 'invalid'
  -- A clock may be ahead a little; further ahead, one fix would silence all the true ones after it.
  when p_at > p_now + interval '5 minutes' then 'in_the_future'
  when p_at = p_judged_to then 'duplicate'
  when p_at < p_judged_to then 'out_of_order'
  when p_at < p_now - p_stale_after then 'stale'
  else 'taken'
end;

comment on function fleet.fix_outcome(boolean, boolean, timestamptz, timestamptz, timestamptz, interval) is
  'What becomes of a fix: taken, or why it changes nothing.';
revoke all on function fleet.fix_outcome(boolean, boolean, timestamptz, timestamptz, timestamptz, interval)
  from public, anon, authenticated, service_role;

create or replace function fleet.degrees_of(p_value jsonb)
returns double precision
language sql
immutable
parallel safe
return case
  -- Nine digits are a tenth of a millimetre. What is smaller would only underflow, and what is larger is nowhere.
  when jsonb_typeof(p_value) = 'number' and (p_value #>> '{}')::numeric between -1e9 and 1e9
    then round((p_value #>> '{}')::numeric, 9)::double precision
end;

comment on function fleet.degrees_of(jsonb) is 'A number of degrees or metres in JSON, rounded to nine digits; null where it is none.';
revoke all on function fleet.degrees_of(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.is_no_position(p_latitude double precision, p_longitude double precision, p_accuracy_m double precision)
returns boolean
language sql
immutable
parallel safe
return coalesce(p_latitude = 0 and p_longitude = 0 and p_accuracy_m = 0, false);

comment on function fleet.is_no_position(double precision, double precision, double precision) is
  'Whether this is how a receiver says that it knows nothing: zero by zero, exact to zero metres.';
revoke all on function fleet.is_no_position(double precision, double precision, double precision)
  from public, anon, authenticated, service_role;

create or replace function fleet.parsed_fixes(p_fixes jsonb)
returns table (
  device_id bigint, latitude double precision, longitude double precision, accuracy_m double precision, at timestamptz,
  is_valid boolean, rank bigint
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- plpgsql keeps its plan, and any list is planned alike.
set plan_cache_mode = force_generic_plan
as $$
begin
  return query
  with given as (
    select (e.item ->> 'device_id')::bigint as device_id,
      fleet.degrees_of(e.item -> 'latitude') as latitude,
      fleet.degrees_of(e.item -> 'longitude') as longitude,
      fleet.degrees_of(e.item -> 'accuracy_m') as accuracy_m,
      coalesce(e.item -> 'accuracy_m', 'null') = 'null' or fleet.degrees_of(e.item -> 'accuracy_m') is not null
        as accuracy_is_valid,
      fleet.told_instant(e.item -> 'located_at') as at
    from jsonb_array_elements(p_fixes) as e(item)
    where jsonb_typeof(e.item -> 'device_id') = 'number'
  )
  select g.device_id, g.latitude, g.longitude, g.accuracy_m, g.at,
    coalesce(
      g.at is not null and g.accuracy_is_valid
        and g.latitude between -90 and 90 and g.longitude between -180 and 180
        and coalesce(g.accuracy_m, 0) between 0 and 20000000
        and not fleet.is_no_position(g.latitude, g.longitude, g.accuracy_m),
      false
    ),
    row_number() over (partition by g.device_id order by g.at, g.accuracy_m nulls last)
  from given as g;
end;
$$;

comment on function fleet.parsed_fixes(jsonb) is
  'Fixes as columns, those of a device numbered in the order of their times. What is wrong in one makes it invalid, not the rest.';
revoke all on function fleet.parsed_fixes(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.store_device_places(p_judged jsonb)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- plpgsql keeps its plan, and any list is planned alike.
set plan_cache_mode = force_generic_plan
as $$
begin
  insert into public.device_places as p (device_id, location_id, owner_id, is_inside, since, candidate_since, seen_at)
  select r.device_id, r.location_id, r.owner_id, r.is_inside, r.since, r.candidate_since, r.fix_at
  from jsonb_to_recordset(p_judged) as r(
    device_id bigint, location_id bigint, owner_id uuid, is_inside boolean, since timestamptz,
    candidate_since timestamptz, fix_at timestamptz, side text
  )
  where r.side <> 'unclear'
    -- Of where it never was, nothing is kept.
    and (
      r.side = 'inside'
      or exists (
        select 1 from public.device_places as x where x.device_id = r.device_id and x.location_id = r.location_id
      )
    )
  on conflict (device_id, location_id) do update
    set is_inside = excluded.is_inside, since = excluded.since, candidate_since = excluded.candidate_since,
        seen_at = excluded.seen_at;
end;
$$;

comment on function fleet.store_device_places(jsonb) is 'Keep what fleet.judged_fixes said.';
revoke all on function fleet.store_device_places(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.store_positions(p_positions jsonb, p_fixes jsonb)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- plpgsql keeps its plan, and any list is planned alike.
set plan_cache_mode = force_generic_plan
as $$
begin
  update public.device_positions as p
  set fix_at = f.at, lost_at = null, is_outside_all = r.is_outside_all, outside_since = r.outside_since
  from jsonb_to_recordset(p_positions) as r(device_id bigint, is_outside_all boolean, outside_since timestamptz)
  join jsonb_to_recordset(p_fixes) as f(device_id bigint, at timestamptz) on f.device_id = r.device_id
  where p.device_id = r.device_id;
end;
$$;

comment on function fleet.store_positions(jsonb, jsonb) is 'Keep what fleet.judged_positions said, and up to which fix.';
revoke all on function fleet.store_positions(jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.record_location_events(p_fixes jsonb, p_judged jsonb, p_positions jsonb)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  insert into public.location_events (
    owner_id, device_id, location_id, location_name, event, at, fix_at, latitude, longitude, accuracy_m
  )
  select f.owner_id, f.device_id, e.location_id, e.location_name, e.event, e.at, f.at, f.latitude, f.longitude, f.accuracy_m
  from jsonb_to_recordset(p_fixes) as f(
    device_id bigint, owner_id uuid, latitude double precision, longitude double precision,
    accuracy_m double precision, at timestamptz
  )
  join (
    select r.device_id, r.location_id, r.location_name, case when r.is_inside then 'entered' else 'left' end as event,
      r.since as at, 1 as nr
    from jsonb_to_recordset(p_judged) as r(
      device_id bigint, location_id bigint, location_name text, was_inside boolean, is_inside boolean, since timestamptz
    )
    where r.was_inside <> r.is_inside
    union all
    select r.device_id, null, null, 'outside_all', r.outside_since, 2
    from jsonb_to_recordset(p_positions) as r(
      device_id bigint, was_outside_all boolean, is_outside_all boolean, outside_since timestamptz
    )
    where r.is_outside_all and r.was_outside_all is distinct from true
    union all
    select r.device_id, null, null, 'inside_any', min(j.since), 2
    from jsonb_to_recordset(p_positions) as r(device_id bigint, was_outside_all boolean, is_outside_all boolean)
    join jsonb_to_recordset(p_judged) as j(device_id bigint, is_inside boolean, since timestamptz)
      on j.device_id = r.device_id and j.is_inside
    where not r.is_outside_all and r.was_outside_all is distinct from false
    group by r.device_id
  ) as e on e.device_id = f.device_id
  order by f.at, f.device_id, e.nr, e.event desc, e.location_id
  on conflict do nothing;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.record_location_events(jsonb, jsonb, jsonb) is
  'Record each crossing once; what is left comes before what is entered. Location policies act on these rows.';
revoke all on function fleet.record_location_events(jsonb, jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.record_silence(p_fixes jsonb, p_stale_after interval)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- plpgsql keeps its plan, and any list is planned alike.
set plan_cache_mode = force_generic_plan
as $$
begin
  insert into public.location_events (
    owner_id, device_id, event, at, fix_at, latitude, longitude, accuracy_m, acted_at
  )
  select p.owner_id, p.device_id, e.event, e.at, f.at, f.latitude, f.longitude, f.accuracy_m, now()
  from jsonb_to_recordset(p_fixes) as f(
    device_id bigint, latitude double precision, longitude double precision, accuracy_m double precision, at timestamptz
  )
  join public.device_positions as p on p.device_id = f.device_id
  cross join lateral (
    values
      ('position_lost', p.fix_at + p_stale_after, p.lost_at is null),
      ('position_found', f.at, true)
  ) as e(event, at, is_new)
  where f.at > p.fix_at + p_stale_after and e.is_new
  order by e.at
  on conflict do nothing;
end;
$$;

comment on function fleet.record_silence(jsonb, interval) is
  'Record that devices whose fixes come again were not heard of. No location policy acts on that: a device has the state that it had.';
revoke all on function fleet.record_silence(jsonb, interval) from public, anon, authenticated, service_role;

create or replace function fleet.take_fixes_of_devices(p_fixes jsonb, p_now timestamptz)
returns table (device_id bigint, located_at timestamptz, outcome text)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- Planned for each list otherwise.
set plan_cache_mode = force_generic_plan
as $$
declare
  v_stale_after interval := fleet.stale_position_after();
  v_fixes jsonb;
  v_taken jsonb;
  v_judged jsonb;
  v_positions jsonb;
begin
  select jsonb_agg(to_jsonb(x.*)) into v_fixes
  from (
    select f.device_id, d.owner_id, f.latitude, f.longitude, f.accuracy_m, f.at,
      fleet.fix_outcome(d.id is not null, f.is_valid, f.at, p.fix_at, p_now, v_stale_after) as outcome
    from jsonb_to_recordset(p_fixes) as f(
      device_id bigint, latitude double precision, longitude double precision, accuracy_m double precision,
      at timestamptz, is_valid boolean
    )
    -- One look a fix: most lists are one fix, and what plans for a hundred would read a small fleet whole.
    left join lateral (select v.id, v.owner_id, v.status from public.devices as v where v.id = f.device_id offset 0) as d
      on d.status = 'active'
    left join public.device_positions as p on p.device_id = d.id
  ) as x;

  -- What is the latest that is known of a device is shown, even where it comes too late to mean anything.
  update public.devices as d
  set latitude = f.latitude, longitude = f.longitude, accuracy_m = f.accuracy_m, located_at = f.at
  from jsonb_to_recordset(v_fixes) as f(
    device_id bigint, latitude double precision, longitude double precision, accuracy_m double precision,
    at timestamptz, outcome text
  )
  where d.id = f.device_id
    and f.outcome in ('taken', 'stale')
    and (d.located_at is null or d.located_at < f.at);

  v_taken := coalesce(jsonb_path_query_array(v_fixes, '$[*] ? (@.outcome == "taken")'), '[]');
  if v_taken <> '[]' then
    perform fleet.record_silence(v_taken, v_stale_after);
    select coalesce(jsonb_agg(to_jsonb(j)), '[]') into v_judged from fleet.judged_fixes(v_taken, v_stale_after) as j;
    perform fleet.store_device_places(v_judged);
    select coalesce(jsonb_agg(to_jsonb(j)), '[]') into v_positions
    from fleet.judged_positions(v_taken, v_judged, v_stale_after) as j;
    perform fleet.store_positions(v_positions, v_taken);
    perform fleet.record_location_events(v_taken, v_judged, v_positions);
  end if;

  return query
  select r.device_id, r.at, r.outcome
  from jsonb_to_recordset(v_fixes) as r(device_id bigint, at timestamptz, outcome text);
end;
$$;

comment on function fleet.take_fixes_of_devices(jsonb, timestamptz) is
  'Judge one parsed fix of each device, for all devices together. The caller has locked their rows in device_positions.';
revoke all on function fleet.take_fixes_of_devices(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.take_fixes(p_fixes jsonb, p_now timestamptz)
returns table (device_id bigint, located_at timestamptz, outcome text)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- Planned for each list otherwise.
set plan_cache_mode = force_generic_plan
as $$
declare
  v_ids bigint[];
  v_fixes jsonb;
begin
  select array_agg(distinct (e.item ->> 'device_id')::bigint) into v_ids
  from jsonb_array_elements(p_fixes) as e(item)
  where jsonb_typeof(e.item -> 'device_id') = 'number';

  -- First the devices, as everybody does who writes them, then what is known of them; and in one order, so that two that
  -- take fixes of the same devices never wait for each other in a circle.
  perform 1 from public.devices as d where d.id = any (v_ids) order by d.id for no key update;
  insert into public.device_positions (device_id, owner_id)
  select d.id, d.owner_id from public.devices as d where d.id = any (v_ids) and d.status = 'active' order by d.id
  on conflict do nothing;
  perform 1 from public.device_positions as p where p.device_id = any (v_ids) order by p.device_id for update;

  -- A device's second fix is judged by what its first one made of it; different devices have nothing to do with each other.
  for v_fixes in
    select jsonb_agg(to_jsonb(f)) from fleet.parsed_fixes(p_fixes) as f group by f.rank order by f.rank
  loop
    return query select t.device_id, t.located_at, t.outcome from fleet.take_fixes_of_devices(v_fixes, p_now) as t;
  end loop;

  perform fleet.act_on_location_events(p_now) where fleet.is_trusted_caller();
end;
$$;

comment on function fleet.take_fixes(jsonb, timestamptz) is
  'Take fixes [{device_id, latitude, longitude, accuracy_m, located_at}], any number of any devices, in any order; the caller answers for '
  'the devices being its own. One row for each: taken, duplicate, out_of_order, stale (older than the setting stale_position_hours: shown, '
  'but no location is judged by it), in_the_future, invalid or unknown_device. Where the caller is trusted location policies act at once, else with '
  'the next tick.';
revoke all on function fleet.take_fixes(jsonb, timestamptz) from public, anon, authenticated, service_role;

-- db/sources/45_locations/45_linked_fixes.sql
-- Where devices are by what another system says of them.

create or replace function fleet.take_linked_fixes(p_integration_id bigint, p_devices jsonb, p_now timestamptz)
returns integer
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select count(*)::integer
  from fleet.take_fixes(
    (
      select coalesce(jsonb_agg(jsonb_build_object(
        'device_id', l.device_id,
        'latitude', n.latitude,
        'longitude', n.longitude,
        'accuracy_m', n.accuracy_m,
        'located_at', e.item ->> 'located_at'
      )), '[]')
      from jsonb_array_elements(p_devices) as e(item)
      join public.device_links as l on l.integration_id = p_integration_id and l.external_id = e.item ->> 'external_id'
      cross join lateral (
        -- Some systems write numbers as text.
        select max(k.number) filter (where k.name = 'latitude') as latitude,
          max(k.number) filter (where k.name = 'longitude') as longitude,
          max(k.number) filter (where k.name = 'accuracy_m') as accuracy_m
        from (
          select f.name, case when e.item ->> f.name ~ '^-?\d{1,9}(\.\d{1,18})?$' then (e.item ->> f.name)::numeric end as number
          from unnest('{latitude,longitude,accuracy_m}'::text[]) as f(name)
        ) as k
      ) as n
      where e.item ->> 'located_at' is not null and n.latitude is not null and n.longitude is not null
    ),
    p_now
  ) as t
  where t.outcome = 'taken'
$$;

comment on function fleet.take_linked_fixes(bigint, jsonb, timestamptz) is
  'Take the positions that an integration tells of the devices linked to it, a list of {external_id, latitude, longitude, accuracy_m, '
  'located_at, …}; devices without a position are passed over. Answers how many were new.';
revoke all on function fleet.take_linked_fixes(bigint, jsonb, timestamptz) from public, anon, authenticated, service_role;

-- db/sources/45_locations/50_report.sql
-- What devices tell of themselves: where they are.

create or replace function fleet.position_problems(
  p_latitude double precision,
  p_longitude double precision,
  p_accuracy_m double precision,
  p_located_at timestamptz,
  p_now timestamptz
)
returns setof fleet.problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select 'latitude', coalesce(p_latitude || ' is not within -90 to 90', 'is missing'), 'Degrees north, such as 52.52.'
  where p_latitude is null or p_latitude not between -90 and 90
  union all
  select 'longitude', coalesce(p_longitude || ' is not within -180 to 180', 'is missing'), 'Degrees east, such as 13.405.'
  where p_longitude is null or p_longitude not between -180 and 180
  union all
  select 'accuracy_m', format('%s is not within 0 to 20000000', p_accuracy_m), 'Metres within which the position is true, or null.'
  where p_accuracy_m not between 0 and 20000000
  union all
  select 'latitude', '0 by 0 with an accuracy of 0 is no position', 'Report nothing while the receiver knows nothing.'
  where fleet.is_no_position(p_latitude, p_longitude, p_accuracy_m)
  union all
  select 'located_at', case when p_located_at is null then 'is missing' else 'is in the future' end,
    'The time of the fix; set the clock of the device.'
  where p_located_at is null or p_located_at > p_now + interval '5 minutes';
end;
$$;

comment on function fleet.position_problems(double precision, double precision, double precision, timestamptz, timestamptz) is
  'Everything that is wrong with a position; no row where nothing is.';
revoke all on function fleet.position_problems(double precision, double precision, double precision, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.report_location(
  p_latitude double precision,
  p_longitude double precision,
  p_accuracy_m double precision,
  p_located_at timestamptz,
  p_now timestamptz
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device_id bigint := fleet.require_device();
  v_outcome text;
begin
  perform fleet.raise_problems('the position', 'position_invalid', array_agg(q))
  from fleet.position_problems(p_latitude, p_longitude, p_accuracy_m, p_located_at, p_now) as q;

  select t.outcome into v_outcome
  from fleet.take_fixes(
    jsonb_build_array(jsonb_build_object(
      'device_id', v_device_id, 'latitude', p_latitude, 'longitude', p_longitude, 'accuracy_m', p_accuracy_m,
      'located_at', p_located_at
    )),
    p_now
  ) as t;
  perform fleet.touch_device(v_device_id, p_now);

  return jsonb_build_object('accepted', v_outcome = 'taken', 'places', (
    select coalesce(jsonb_agg(jsonb_build_object('location_id', l.id, 'name', l.name, 'since', p.since) order by l.name), '[]')
    from public.device_places as p
    join public.locations as l on l.id = p.location_id
    where p.device_id = v_device_id and p.is_inside
  ))
  || case when v_outcome = 'taken' then '{}' else jsonb_build_object('reason', v_outcome) end;
end;
$$;

comment on function fleet.report_location(double precision, double precision, double precision, timestamptz, timestamptz) is
  'See public.report_location. Definer: a device may not write its row, only where it is.';
revoke all on function fleet.report_location(double precision, double precision, double precision, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.report_location(double precision, double precision, double precision, timestamptz, timestamptz)
  to authenticated, service_role;

create or replace function public.report_location(
  p_latitude double precision,
  p_longitude double precision,
  p_accuracy_m double precision default null,
  p_located_at timestamptz default now()
)
returns jsonb
language sql
volatile
return fleet.report_location(p_latitude, p_longitude, p_accuracy_m, p_located_at, clock_timestamp());

comment on function public.report_location(double precision, double precision, double precision, timestamptz) is
  'A device tells where it is: {"accepted": true, "places": [{location_id, name, since}]} with the locations that it is inside of, or '
  '{"accepted": false, "reason": duplicate | out_of_order | stale, …}. Raises not_a_device (PT403) or position_invalid (PT422).';
revoke all on function public.report_location(double precision, double precision, double precision, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function public.report_location(double precision, double precision, double precision, timestamptz)
  to authenticated, service_role;

-- db/sources/45_locations/55_waiting.sql
-- Location events that wait for location policies: which of them are acted on together, and in which order. Devices of one policy go together.

create or replace function fleet.owners_waiting(p_limit integer)
returns table (owner_id uuid, first_id bigint)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- From one owner to the next by the index: it costs a probe for each of them, and one where nothing waits.
  with recursive waiting as (
    (
      select e.owner_id, e.id
      from public.location_events as e
      where e.acted_at is null
      order by e.owner_id, e.id
      limit 1
    )
    union all
    select n.owner_id, n.id
    from waiting as w
    cross join lateral (
      select e.owner_id, e.id
      from public.location_events as e
      where e.acted_at is null and e.owner_id > w.owner_id
      order by e.owner_id, e.id
      limit 1
    ) as n
  )
  select w.owner_id, w.id from waiting as w order by w.id limit p_limit
$$;

comment on function fleet.owners_waiting(integer) is
  'The owners that have location events that no location policy was asked about, each with its oldest; the one that waits longest first.';
revoke all on function fleet.owners_waiting(integer) from public, anon, authenticated, service_role;

create or replace function fleet.take_location_events(p_limit integer)
returns public.location_events[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owners uuid[];
  v_events public.location_events[];
begin
  select array_agg(w.owner_id order by w.first_id) into v_owners from fleet.owners_waiting(p_limit) as w;
  if v_owners is null then
    return '{}';
  end if;

  -- An equal share for each owner, so that the thousands of one never stand before the one of another. Events go with their
  -- device: one that is just being deleted is passed over, the others cannot go before this ends.
  select array_agg(t.event) into v_events
  from unnest(v_owners) as o(id)
  cross join lateral (
    select e as event
    from public.location_events as e
    where e.owner_id = o.id and e.acted_at is null
    order by e.id
    limit greatest(1, p_limit / cardinality(v_owners))
    for update skip locked
  ) as t;

  -- In a statement of its own, which sees what others have done meanwhile. What another session has not done yet of a device
  -- comes before what this one could do.
  return (
    with taken as materialized (
      select u.id, u.device_id, u as event from unnest(v_events) as u
    ),
    held as (
      select x.device_id, min(x.id) as id
      from (select t.device_id, max(t.id) as last_id from taken as t group by t.device_id) as l
      join public.location_events as x on x.device_id = l.device_id and x.acted_at is null and x.id < l.last_id
      where not exists (select 1 from taken as t where t.id = x.id)
      group by x.device_id
    )
    select coalesce(array_agg(t.event order by t.id), '{}')
    from taken as t
    left join held as h on h.device_id = t.device_id
    where h.id is null or t.id < h.id
  );
end;
$$;

comment on function fleet.take_location_events(integer) is
  'Lock location events that wait, at most p_limit, shared between the owners; of each device the oldest that wait, without a gap. What another '
  'session holds is passed over.';
revoke all on function fleet.take_location_events(integer) from public, anon, authenticated, service_role;

create or replace function fleet.location_policies_for(p_events public.location_events[])
returns table (event_id bigint, policy_id bigint, wave bigint)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select e.id, p.id, dense_rank() over (partition by e.device_id order by e.id) as wave
  from unnest(p_events) as e
  join public.devices as d on d.id = e.device_id and d.owner_id = e.owner_id and d.status = 'active'
  join public.location_policies as p
    on p.owner_id = e.owner_id
    and p.event = case e.event when 'entered' then 'enter' when 'left' then 'leave' else e.event end
    -- Nought stands for all locations: equality is looked up, "is not distinct from" is tried one by one.
    and coalesce(p.location_id, 0) = coalesce(e.location_id, 0)
    and p.is_enabled
    -- What happened before there was a location policy is past.
    and p.created_at <= e.created_at
  left join public.device_groups as g on g.id = p.group_id and g.owner_id = p.owner_id
  where (p.selector is null or fleet.device_matches(p.selector, d.tags, d.platform, d.attributes, d.reported))
    and (
      p.group_id is null
      or (g.selector is not null and fleet.device_matches(g.selector, d.tags, d.platform, d.attributes, d.reported))
      or exists (
        select 1 from public.device_group_members as m where m.group_id = p.group_id and m.device_id = d.id
      )
    )
  order by wave, p.priority desc, p.id, e.id
$$;

comment on function fleet.location_policies_for(public.location_events[]) is
  'The location policies that are for these events and their devices, in the order in which they act. Wave n holds the n-th of these events of '
  'each device, so that each device gets all in its own order, and devices that do the same get it together.';
revoke all on function fleet.location_policies_for(public.location_events[]) from public, anon, authenticated, service_role;

create or replace function fleet.location_turns(p_events public.location_events[], p_most_acts integer, p_most_turns integer)
returns table (turn bigint, policy_id bigint, events public.location_events[])
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with event as materialized (
    select u.id, u as event, min(u.id) over (partition by u.owner_id) as owner_first_id from unnest(p_events) as u
  ),
  acting as (
    select q.event_id, q.policy_id,
      -- Wave by wave; in a wave the owner that has waited longest first.
      dense_rank() over (order by q.wave, e.owner_first_id, p.priority desc, p.id) as turn
    from fleet.location_policies_for(p_events) as q
    join event as e on e.id = q.event_id
    join public.location_policies as p on p.id = q.policy_id
    -- A part of it may have been done before.
    where not exists (
      select 1 from public.location_actions as a where a.event_id = q.event_id and a.policy_id = q.policy_id
    )
  ),
  -- Cut where it gets too much for one transaction: whole events, of each device the first ones, and at least one.
  ranked as (
    select e.id,
      coalesce(max(a.turn), 0) as last_turn,
      row_number() over w as nr,
      sum(count(a.policy_id)) over w as acts
    from event as e
    left join acting as a on a.event_id = e.id
    group by e.id
    window w as (order by coalesce(max(a.turn), 0), e.id)
  )
  select coalesce(a.turn, 0), a.policy_id, array_agg(e.event order by e.id)
  from ranked as p
  join event as e on e.id = p.id
  left join acting as a on a.event_id = p.id
  where p.nr = 1 or (p.acts <= p_most_acts and p.last_turn <= p_most_turns)
  group by a.turn, a.policy_id
  order by coalesce(a.turn, 0)
$$;

comment on function fleet.location_turns(public.location_events[], integer, integer) is
  'Which location policy acts on which of these events together, in which order: at most p_most_acts acts on events, in p_most_turns '
  'turns; what does not fit is left out. Turn 0, without a location policy, has the events that none is for.';
revoke all on function fleet.location_turns(public.location_events[], integer, integer)
  from public, anon, authenticated, service_role;

-- db/sources/45_locations/60_act.sql
-- Acting on what happens at a border: location events make schedules, which go the way of all others.

create or replace function fleet.name_for_location_events(p_policy public.location_policies, p_events public.location_events[])
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select concat_ws(' ',
    coalesce(nullif(p_policy.name, ''), concat_ws(' ', p_policy.action_type, p_policy.payload ->> 'profile_id')) || ':',
    case when n.is_one then d.hostname else cardinality(p_events) || ' devices' end,
    case e.event
      when 'outside_all' then case when n.is_one then 'is' else 'are' end || ' outside of all locations'
      when 'inside_any' then case when n.is_one then 'is' else 'are' end || ' inside a location again'
      else e.event || ' ' || e.location_name
    end
  )
  from (select cardinality(p_events) = 1 as is_one) as n
  -- The latest: the location may have been renamed.
  cross join lateral (select u.* from unnest(p_events) as u order by u.id desc limit 1) as e
  join public.devices as d on d.id = e.device_id
$$;

comment on function fleet.name_for_location_events(public.location_policies, public.location_events[]) is
  'What the schedule for these location events of one kind is called: who did what.';
revoke all on function fleet.name_for_location_events(public.location_policies, public.location_events[])
  from public, anon, authenticated, service_role;

create or replace function fleet.schedule_for_location_events(
  p_policy public.location_policies,
  p_events public.location_events[],
  p_now timestamptz
)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := least(p_now, clock_timestamp());
  v_schedule_id bigint;
begin
  insert into public.schedules (
    owner_id, name, description, action_type, payload, recurrence_type, start_time, device_ids, priority
  )
  select p_policy.owner_id, fleet.name_for_location_events(p_policy, p_events),
    case count(*)
      when 1 then format('Location policy %s, event %s, at %s.', p_policy.id, min(e.id), i.first_at)
      else format('Location policy %s, %s events, at %s to %s.', p_policy.id, count(*), i.first_at, i.last_at)
    end,
    p_policy.action_type, p_policy.payload, 'once', v_now, array_agg(e.device_id order by e.device_id), p_policy.priority
  from unnest(p_events) as e
  cross join (
    select to_char(min(u.at) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as first_at,
      to_char(max(u.at) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as last_at
    from unnest(p_events) as u
  ) as i
  group by i.first_at, i.last_at
  returning id into v_schedule_id;

  -- Whole and now, however many they are: what comes after it for one of these devices must find its command made.
  perform fleet.expand_runs(array[r.id], v_now, cardinality(p_events))
  from public.schedule_runs as r
  where r.schedule_id = v_schedule_id and r.expanded_at is null;
  return v_schedule_id;
end;
$$;

comment on function fleet.schedule_for_location_events(public.location_policies, public.location_events[], timestamptz) is
  'Make the schedule that a location policy wants for events of different devices: once, for all of them, due now, with their commands.';
revoke all on function fleet.schedule_for_location_events(public.location_policies, public.location_events[], timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.act_for_location_policy(
  p_policy public.location_policies,
  p_events public.location_events[],
  p_now timestamptz
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_schedule_id bigint;
  v_error text;
begin
  -- One location policy that is wrong by now, such as one whose command type is gone, must not stop the others.
  begin
    v_schedule_id := fleet.schedule_for_location_events(p_policy, p_events, p_now);
  exception
    when query_canceled or admin_shutdown or deadlock_detected then
      raise;
    when others then
      v_schedule_id := null;
      v_error := sqlerrm;
  end;
  insert into public.location_actions (event_id, policy_id, owner_id, schedule_id, error_message)
  select e.id, p_policy.id, e.owner_id, v_schedule_id, v_error
  from unnest(p_events) as e;
end;
$$;

comment on function fleet.act_for_location_policy(public.location_policies, public.location_events[], timestamptz) is
  'Let a location policy act on events of different devices whose rows are locked, and record for each what came of it.';
revoke all on function fleet.act_for_location_policy(public.location_policies, public.location_events[], timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.act_on_location_events(p_now timestamptz, p_limit integer default null)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- Compiling the plan would take longer than running it.
set jit = off
as $$
declare
  v_limit integer;
  v_events public.location_events[];
  v_turn record;
  v_policy public.location_policies;
  v_acted bigint[] := '{}';
  v_waiting bigint[] := '{}';
  v_count integer;
begin
  -- Nearly always nothing waits, and this is all that a tick pays.
  if not exists (select 1 from public.location_events as e where e.acted_at is null) then
    return 0;
  end if;

  -- As many rows as go into one transaction otherwise, and no more than take a part of a second.
  v_limit := coalesce(p_limit, least(fleet.chunk_size(), 2000));
  v_events := fleet.take_location_events(v_limit);
  if cardinality(v_events) = 0 then
    return 0;
  end if;

  for v_turn in select * from fleet.location_turns(v_events, v_limit, 25) loop
    v_acted := v_acted || array(select e.id from unnest(v_turn.events) as e);
    continue when v_turn.policy_id is null;
    if v_waiting <> '{}' then
      v_turn.events := array(select e from unnest(v_turn.events) as e where e.device_id <> all (v_waiting));
      continue when cardinality(v_turn.events) = 0;
    end if;

    select p.* into v_policy from public.location_policies as p where p.id = v_turn.policy_id for key share skip locked;
    if found then
      perform fleet.act_for_location_policy(v_policy, v_turn.events, p_now);
    else
      -- It is just being deleted, and whether it is will be seen; what these devices did since waits with it.
      v_waiting := v_waiting || array(select e.device_id from unnest(v_turn.events) as e);
    end if;
  end loop;

  update public.location_events as e
  set acted_at = p_now
  where e.id = any (v_acted) and e.device_id <> all (v_waiting);
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.act_on_location_events(timestamptz, integer) is
  'Let location policies act on events that wait, at most p_limit; by default as many as are expanded in one transaction. One schedule for each '
  'policy and wave, never one for each device. Answers how many events are done. Any number of sessions may do it at once.';
revoke all on function fleet.act_on_location_events(timestamptz, integer) from public, anon, authenticated, service_role;

-- db/sources/45_locations/65_tend.sql
-- What each tick does about locations.

create or replace function fleet.record_lost_positions(p_now timestamptz, p_limit integer default 1000)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_stale_after interval := fleet.stale_position_after();
  v_count integer;
begin
  with lost as (
    update public.device_positions as p
    set lost_at = p.fix_at + v_stale_after
    where p.device_id in (
      select x.device_id
      from public.device_positions as x
      where x.lost_at is null and x.fix_at < p_now - v_stale_after
      order by x.fix_at
      limit p_limit
      for update skip locked
    )
    returning p.device_id, p.owner_id, p.fix_at, p.lost_at
  )
  insert into public.location_events (owner_id, device_id, event, at, fix_at, acted_at)
  select l.owner_id, l.device_id, 'position_lost', l.lost_at, l.fix_at, p_now
  from lost as l
  on conflict do nothing;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.record_lost_positions(timestamptz, integer) is
  'Record devices whose latest fix is older than the setting stale_position_hours: their position is unknown, their places stay as they were.';
revoke all on function fleet.record_lost_positions(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.judge_location(p_location public.locations, p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_stale_after interval := fleet.stale_position_after();
  v_ids bigint[];
  v_fixes jsonb;
  v_judged jsonb;
  v_positions jsonb;
begin
  select array_agg(d.id order by d.id) into v_ids
  from public.devices as d
  join public.device_positions as p on p.device_id = d.id and p.fix_at > p_now - v_stale_after and p.lost_at is null
  left join public.device_places as x on x.device_id = d.id and x.location_id = p_location.id
  where d.owner_id = p_location.owner_id
    and d.status = 'active'
    -- The latest that is known of it is also what was judged.
    and d.located_at = p.fix_at
    and (
      x.is_inside
      or fleet.distance_m(p_location.latitude, p_location.longitude, d.latitude, d.longitude)
        <= p_location.reach_m + coalesce(d.accuracy_m, p_location.hysteresis_m)
    );
  if v_ids is null then
    return 0;
  end if;

  perform 1 from public.device_positions as p where p.device_id = any (v_ids) order by p.device_id for update;
  select coalesce(jsonb_agg(jsonb_build_object(
      'device_id', k.device_id, 'owner_id', k.owner_id, 'latitude', k.latitude, 'longitude', k.longitude, 'accuracy_m', k.accuracy_m,
      'at', k.fix_at
    )), '[]'),
    coalesce(jsonb_agg(jsonb_build_object(
      'device_id', k.device_id, 'owner_id', k.owner_id, 'fix_at', k.fix_at, 'location_id', p_location.id,
      'location_name', p_location.name, 'side', k.side, 'was_inside', k.was_inside, 'is_inside', k.side = 'inside', 'since', p_now
    )), '[]'),
    coalesce(jsonb_agg(jsonb_build_object(
      'device_id', k.device_id, 'was_outside_all', true, 'is_outside_all', false, 'outside_since', null
    )) filter (where k.side = 'inside' and k.is_outside_all), '[]')
  into v_fixes, v_judged, v_positions
  from (
    select d.id as device_id, d.owner_id, d.latitude, d.longitude, d.accuracy_m, p.fix_at, p.is_outside_all,
      coalesce(x.is_inside, false) as was_inside,
      fleet.side_of_fix(
        fleet.border_distance_m(p_location, d.latitude, d.longitude), coalesce(d.accuracy_m, p_location.hysteresis_m),
        p_location.hysteresis_m, coalesce(x.is_inside, false)
      ) as side
    from public.devices as d
    join public.device_positions as p on p.device_id = d.id
    left join public.device_places as x on x.device_id = d.id and x.location_id = p_location.id
    where d.id = any (v_ids)
  ) as k
  -- Where the border moves, nobody has to wait until a second fix says the same: the device did not move.
  where k.side <> 'unclear' and (k.side = 'inside') <> k.was_inside;
  perform fleet.store_device_places(v_judged);
  perform fleet.store_positions(v_positions, v_fixes);
  return fleet.record_location_events(v_fixes, v_judged, v_positions);
end;
$$;

comment on function fleet.judge_location(public.locations, timestamptz) is
  'Judge a location that is new, or has another border, by where its owner''s devices are known to be. Answers how many events came of it.';
revoke all on function fleet.judge_location(public.locations, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.tend_locations(p_now timestamptz)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_acted integer;
begin
  perform fleet.record_lost_positions(p_now);
  v_acted := fleet.act_on_location_events(p_now);
  return jsonb_build_object(
    'location_events', v_acted,
    -- Only after some progress: what another session holds must not keep this one spinning.
    'more', v_acted > 0 and exists (select 1 from public.location_events as e where e.acted_at is null)
  );
end;
$$;

comment on function fleet.tend_locations(timestamptz) is
  'What each tick does about locations: record positions that are lost, act on events that wait. {location_events, more}: how many were acted '
  'on, and whether more wait.';
revoke all on function fleet.tend_locations(timestamptz) from public, anon, authenticated, service_role;

-- db/sources/45_locations/70_problems.sql
-- What may be wrong with locations and location policies.

create or replace function fleet.polygon_problems(p_polygon jsonb)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  with shape as (
    select jsonb_typeof(p_polygon) is not distinct from 'array' as is_list,
      case jsonb_typeof(p_polygon) when 'array' then p_polygon else '[]' end as corners
  ), corner as (
    select format('polygon[%s]', c.nr - 1) as field, c.item,
      jsonb_typeof(c.item) = 'array'
        and case
          when jsonb_typeof(c.item) = 'array' then
            jsonb_array_length(c.item) = 2
              and jsonb_typeof(c.item -> 0) = 'number' and jsonb_typeof(c.item -> 1) = 'number'
        end as is_pair
    from shape as s
    cross join lateral jsonb_array_elements(s.corners) with ordinality as c(item, nr)
  )
  select 'polygon', 'must be a list of corners', 'Example: [[52.5, 13.4], [52.5, 13.41], [52.51, 13.41]]'
  from shape as s
  where not s.is_list
  union all
  select 'polygon', format('has %s corners', jsonb_array_length(s.corners)), 'Give 3 to 1000 corners.'
  from shape as s
  where s.is_list and jsonb_array_length(s.corners) not between 3 and 1000
  union all
  select c.field, 'is not a pair of numbers', 'Each corner is [latitude, longitude].'
  from corner as c
  where not c.is_pair
  union all
  -- A flat map of what lies near a pole is none.
  select c.field, format('latitude %s is not within -85 to 85', c.item -> 0), 'Each corner is [latitude, longitude].'
  from corner as c
  where c.is_pair and (c.item ->> 0)::numeric not between -85 and 85
  union all
  select c.field, format('longitude %s is not within -180 to 180', c.item -> 1), 'Each corner is [latitude, longitude].'
  from corner as c
  where c.is_pair and (c.item ->> 1)::numeric not between -180 and 180
$$;

comment on function fleet.polygon_problems(jsonb) is 'Everything that is wrong with the corners of a polygon.';
revoke all on function fleet.polygon_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.location_problems(p_location public.locations)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select 'name', 'must not be blank', 'Give the location a name.'
  where btrim(coalesce(p_location.name, '')) = ''
  union all
  select 'kind', format('"%s" is not one of circle, polygon', p_location.kind), 'Use circle or polygon.'
  where p_location.kind is null or p_location.kind not in ('circle', 'polygon')
  union all
  select q.field, q.problem, q.hint
  from fleet.position_problems(p_location.latitude, p_location.longitude, null, '-infinity', '-infinity') as q
  where p_location.kind = 'circle'
  union all
  select 'radius_m', coalesce(p_location.radius_m || ' is not within 1 to 500000', 'is missing'), 'Metres, such as 150.'
  where p_location.kind = 'circle' and (p_location.radius_m is null or p_location.radius_m not between 1 and 500000)
  union all
  select 'polygon', 'is not for a circle', 'Leave it out, or let kind be polygon.'
  where p_location.kind = 'circle' and p_location.polygon is not null
  union all
  select 'radius_m', 'is not for a polygon', 'Leave it out, or let kind be circle.'
  where p_location.kind = 'polygon' and p_location.radius_m is not null
  union all
  select q.field, q.problem, q.hint from fleet.polygon_problems(p_location.polygon) as q where p_location.kind = 'polygon'
  union all
  select 'hysteresis_m', coalesce(p_location.hysteresis_m || ' is not within 0 to 10000', 'is missing'), 'Metres; the default is 25.'
  where p_location.hysteresis_m is null or p_location.hysteresis_m not between 0 and 10000
  union all
  select 'min_dwell', coalesce(p_location.min_dwell || ' is not within 0 to 7 days', 'is missing'), 'The default is "60 seconds".'
  where p_location.min_dwell is null or p_location.min_dwell not between interval '0' and interval '7 days'
$$;

comment on function fleet.location_problems(public.locations) is 'Everything that is wrong with a location as it is written.';
revoke all on function fleet.location_problems(public.locations) from public, anon, authenticated, service_role;

create or replace function fleet.extent_problems(p_polygon jsonb)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select 'polygon', 'encloses no area', 'The corners must not lie on one line.'
  where fleet.polygon_area_m2(p_polygon) < 1
  union all
  select 'polygon', format('reaches %s km from its middle', round(c.reach_m / 1000)), 'It may reach 500 km.'
  from fleet.polygon_centre(p_polygon) as c
  where c.reach_m > 500000
$$;

comment on function fleet.extent_problems(jsonb) is 'Whether a polygon of good corners is too thin or too large.';
revoke all on function fleet.extent_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.rounded_polygon(p_polygon jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_agg(
    jsonb_build_array(fleet.degrees_of(c.item -> 0), fleet.degrees_of(c.item -> 1)) order by c.nr
  )
  from jsonb_array_elements(p_polygon) with ordinality as c(item, nr)
$$;

comment on function fleet.rounded_polygon(jsonb) is 'The corners of a polygon, to nine digits.';
revoke all on function fleet.rounded_polygon(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.location_policy_problems(p_policy public.location_policies)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select q.*
  from fleet.choice_problem('event', coalesce(to_jsonb(p_policy.event), '""'), '{enter,leave,outside_all,inside_any}') as q
  union all
  select 'location_id', 'is missing', 'Entering and leaving are of one location; outside_all and inside_any are of all.'
  where p_policy.event in ('enter', 'leave') and p_policy.location_id is null
  union all
  select 'location_id', format('is not for %s', p_policy.event), 'Leave it out: outside_all and inside_any are of all locations.'
  where p_policy.event in ('outside_all', 'inside_any') and p_policy.location_id is not null
  union all
  select 'location_id', format('location %s was not found', p_policy.location_id), 'List your locations with: select * from location_list'
  where p_policy.location_id is not null
    and not exists (
      select 1 from public.locations as l where l.id = p_policy.location_id and l.owner_id = p_policy.owner_id
    )
  union all
  select 'group_id', format('group %s was not found', p_policy.group_id), 'List your groups with: select * from group_list'
  where p_policy.group_id is not null
    and not exists (
      select 1 from public.device_groups as g where g.id = p_policy.group_id and g.owner_id = p_policy.owner_id
    )
  union all
  select s.field, s.problem, s.hint from fleet.selector_problems(p_policy.selector) as s
  union all
  select q.field, q.problem, q.hint
  from fleet.reported_problems(p_policy.owner_id, p_policy.action_type, array[p_policy.group_id], p_policy.selector) as q
  union all
  select 'priority', format('%s is not within -100 to 100', p_policy.priority), 'The default is 0; higher goes first.'
  where p_policy.priority not between -100 and 100
  union all
  select 'payload', 'must be an object', 'Example: {"profile_id": "12345"}'
  where jsonb_typeof(p_policy.payload) is distinct from 'object'
  union all
  select q.field, q.problem, q.hint
  from fleet.payload_problems(p_policy.owner_id, p_policy.action_type, p_policy.payload) as q
  where jsonb_typeof(p_policy.payload) = 'object'
$$;

comment on function fleet.location_policy_problems(public.location_policies) is
  'Everything that is wrong with a location policy. What belongs to another owner is as good as not there.';
revoke all on function fleet.location_policy_problems(public.location_policies) from public, anon, authenticated, service_role;

-- db/sources/45_locations/views.sql
-- Locations, who is there, and what follows, as people list them.

drop view if exists public.location_list;
create view public.location_list with (security_invoker = true) as
select
  l.id,
  l.owner_id,
  o.name as owner,
  l.name,
  l.kind,
  l.latitude,
  l.longitude,
  l.radius_m,
  l.polygon,
  jsonb_array_length(l.polygon) as corners,
  l.hysteresis_m,
  l.min_dwell,
  (select count(*) from public.device_places as p where p.location_id = l.id and p.is_inside) as inside,
  array(
    select d.hostname
    from public.device_places as p
    join public.devices as d on d.id = p.device_id
    where p.location_id = l.id and p.is_inside
    order by d.hostname
  ) as hostnames_inside,
  (select count(*) from public.location_policies as q where q.location_id = l.id) as policies,
  l.created_at,
  l.updated_at
from public.locations as l
join public.owners as o on o.id = l.owner_id;

comment on view public.location_list is
  'Locations with who is inside.';
comment on column public.location_list.owner is 'The name of the owner.';
comment on column public.location_list.corners is 'How many corners a polygon has.';
comment on column public.location_list.inside is 'How many devices are inside.';
comment on column public.location_list.hostnames_inside is 'Host names of the devices that are inside.';
comment on column public.location_list.policies is 'How many policies it has.';
select fleet.inherit_comments('public.location_list', 'public.locations');
revoke all on table public.location_list from public, anon, authenticated, service_role;
grant select on table public.location_list to authenticated, service_role;

drop view if exists public.location_policy_list;
create view public.location_policy_list with (security_invoker = true) as
select
  q.id,
  q.owner_id,
  q.name,
  q.location_id,
  l.name as location,
  q.event,
  q.action_type,
  q.payload,
  q.group_id,
  g.name as group_name,
  q.selector,
  q.priority,
  q.is_enabled,
  (select count(*) from public.location_actions as a where a.policy_id = q.id) as acted,
  (
    select a.error_message from public.location_actions as a where a.policy_id = q.id order by a.event_id desc limit 1
  ) as last_error,
  q.created_at
from public.location_policies as q
left join public.locations as l on l.id = q.location_id
left join public.device_groups as g on g.id = q.group_id;

comment on view public.location_policy_list is
  'Policies of locations with how often each has acted.';
comment on column public.location_policy_list.location is 'The name of the location.';
comment on column public.location_policy_list.group_name is 'The name of the group.';
comment on column public.location_policy_list.acted is 'How often it has acted.';
comment on column public.location_policy_list.last_error is 'Why it failed to act the last time, if it did.';
select fleet.inherit_comments('public.location_policy_list', 'public.location_policies');
revoke all on table public.location_policy_list from public, anon, authenticated, service_role;
grant select on table public.location_policy_list to authenticated, service_role;

drop view if exists public.device_location_list;
create view public.device_location_list with (security_invoker = true) as
select
  d.id,
  d.owner_id,
  o.name as owner,
  d.hostname,
  d.latitude,
  d.longitude,
  d.accuracy_m,
  d.located_at,
  case
    when d.located_at is null then 'never reported'
    when p.lost_at is not null then 'unknown since ' || p.lost_at
    else 'known'
  end as position,
  array(
    select l.name
    from public.device_places as x
    join public.locations as l on l.id = x.location_id
    where x.device_id = d.id and x.is_inside
    order by l.name
  ) as inside,
  p.is_outside_all as outside_all
from public.devices as d
join public.owners as o on o.id = d.owner_id
left join public.device_positions as p on p.device_id = d.id;

comment on view public.device_location_list is
  'Where each device is.';
comment on column public.device_location_list.owner is 'The name of the owner.';
comment on column public.device_location_list.position is 'known, never reported, or since when it is unknown.';
comment on column public.device_location_list.inside is 'Names of the locations in which it is.';
comment on column public.device_location_list.outside_all is 'Whether it is outside of all; null while that is not known.';
select fleet.inherit_comments('public.device_location_list', 'public.devices');
revoke all on table public.device_location_list from public, anon, authenticated, service_role;
grant select on table public.device_location_list to authenticated, service_role;

-- db/sources/45_locations/triggers.sql
-- What holds for locations and location policies however a row is written.

create or replace function fleet.tg_prepare_location()
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

  perform fleet.raise_problems('the location', 'location_invalid', array_agg(q))
  from fleet.location_problems(new) as q;

  if new.kind = 'circle' then
    new.latitude := round(new.latitude::numeric, 9);
    new.longitude := round(new.longitude::numeric, 9);
    new.reach_m := new.radius_m;
  else
    new.polygon := fleet.rounded_polygon(new.polygon);
    -- A ring that is closed by its first corner is a ring.
    if new.polygon -> 0 = new.polygon -> -1 and jsonb_array_length(new.polygon) > 3 then
      new.polygon := new.polygon - -1;
    end if;
    perform fleet.raise_problems('the location', 'location_invalid', array_agg(q))
    from fleet.extent_problems(new.polygon) as q;
    select c.latitude, c.longitude, c.reach_m into new.latitude, new.longitude, new.reach_m
    from fleet.polygon_centre(new.polygon) as c;
  end if;
  new.updated_at := now();
  return new;
end;
$$;

comment on function fleet.tg_prepare_location() is
  'Check a location however it is written, and find the middle and the reach of a polygon. Raises location_invalid (PT422). Definer: it '
  'checks the caller.';
revoke all on function fleet.tg_prepare_location() from public, anon, authenticated, service_role;

create or replace trigger locations_01_prepare before insert or update on public.locations
  for each row execute function fleet.tg_prepare_location();

create or replace function fleet.tg_judge_location()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if fleet.judge_location(new, clock_timestamp()) > 0 and fleet.is_trusted_caller() then
    perform fleet.act_on_location_events(clock_timestamp());
  end if;
  return null;
end;
$$;

comment on function fleet.tg_judge_location() is
  'A new border, or one that moved, has devices on either side at once. Definer: whoever writes a location may not write what is known of '
  'devices.';
revoke all on function fleet.tg_judge_location() from public, anon, authenticated, service_role;

create or replace trigger locations_02_judge_new
  after insert on public.locations
  for each row execute function fleet.tg_judge_location();
create or replace trigger locations_02_judge_changed
  after update on public.locations
  for each row
  when (
    (new.kind, new.latitude, new.longitude, new.radius_m, new.polygon, new.hysteresis_m)
    is distinct from (old.kind, old.latitude, old.longitude, old.radius_m, old.polygon, old.hysteresis_m)
  )
  execute function fleet.tg_judge_location();

create or replace function fleet.tg_prepare_location_policy()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if new.owner_id is null then
    select l.owner_id into new.owner_id
    from public.locations as l
    where l.id = new.location_id and fleet.is_visible_owner(l.owner_id);
  end if;
  new.owner_id := fleet.owner_or_own(coalesce(new.owner_id, fleet.owner_of_named('{}', array[new.group_id])));
  perform fleet.require_permission(new.owner_id, 'manage', format('owner %s', new.owner_id));
  perform fleet.require_destructive(new.owner_id, new.action_type);
  if tg_op = 'INSERT' then
    new.created_by := fleet.current_user_id();
  end if;

  perform fleet.raise_problems('the location policy', 'location_policy_invalid', array_agg(q))
  from fleet.location_policy_problems(new) as q;
  new.payload := fleet.sealed(new.owner_id, new.payload);
  new.updated_at := now();
  return new;
end;
$$;

comment on function fleet.tg_prepare_location_policy() is
  'Check a location policy however it is written; one that wipes needs the permission to. Raises location_policy_invalid (PT422, PT404). Definer: '
  'it checks the caller, then sees what the checks need to see.';
revoke all on function fleet.tg_prepare_location_policy() from public, anon, authenticated, service_role;

create or replace trigger location_policies_01_prepare before insert or update on public.location_policies
  for each row execute function fleet.tg_prepare_location_policy();

-- Which locations there are and what they bring about, not where the devices are.
select fleet.keep_audit('public.locations');
select fleet.keep_audit('public.location_policies');

select fleet.keep_quota('public.locations', 'locations');
select fleet.keep_used_types('public.location_policies', 'array[x.action_type]');

-- db/sources/45_locations/access.sql
-- Who sees and changes locations: the people of the owner. Devices see none; what they are told is the answer of report_location.

revoke all on table public.locations, public.location_policies, public.device_positions, public.device_places,
  public.location_events, public.location_actions
  from public, anon, authenticated, service_role;
revoke all on sequence public.locations_id_seq, public.location_policies_id_seq, public.location_events_id_seq
  from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.locations, public.location_policies to service_role;
-- What was seen and done is written by the functions alone.
grant select on table public.device_positions, public.device_places, public.location_events, public.location_actions
  to service_role;
grant usage, select on sequence public.locations_id_seq, public.location_policies_id_seq to service_role;

drop policy if exists locations_all_service_role on public.locations;
create policy locations_all_service_role on public.locations for all to service_role using (true) with check (true);
drop policy if exists location_policies_all_service_role on public.location_policies;
create policy location_policies_all_service_role on public.location_policies
  for all to service_role using (true) with check (true);
drop policy if exists device_positions_select_service_role on public.device_positions;
create policy device_positions_select_service_role on public.device_positions for select to service_role using (true);
drop policy if exists device_places_select_service_role on public.device_places;
create policy device_places_select_service_role on public.device_places for select to service_role using (true);
drop policy if exists location_events_select_service_role on public.location_events;
create policy location_events_select_service_role on public.location_events for select to service_role using (true);
drop policy if exists location_actions_select_service_role on public.location_actions;
create policy location_actions_select_service_role on public.location_actions for select to service_role using (true);

grant select, delete on table public.locations, public.location_policies to authenticated;
grant insert (owner_id, name, kind, latitude, longitude, radius_m, polygon, hysteresis_m, min_dwell)
  on table public.locations to authenticated;
grant update (name, kind, latitude, longitude, radius_m, polygon, hysteresis_m, min_dwell)
  on table public.locations to authenticated;
grant insert (owner_id, name, location_id, event, action_type, payload, group_id, selector, priority, is_enabled)
  on table public.location_policies to authenticated;
grant update (name, location_id, event, action_type, payload, group_id, selector, priority, is_enabled)
  on table public.location_policies to authenticated;
grant select on table public.device_positions, public.device_places, public.location_events, public.location_actions
  to authenticated;

drop policy if exists locations_select_member on public.locations;
create policy locations_select_member on public.locations
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists locations_insert_manager on public.locations;
create policy locations_insert_manager on public.locations
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists locations_update_manager on public.locations;
create policy locations_update_manager on public.locations
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists locations_delete_manager on public.locations;
create policy locations_delete_manager on public.locations
  for delete to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists location_policies_select_member on public.location_policies;
create policy location_policies_select_member on public.location_policies
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists location_policies_insert_manager on public.location_policies;
create policy location_policies_insert_manager on public.location_policies
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists location_policies_update_manager on public.location_policies;
create policy location_policies_update_manager on public.location_policies
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists location_policies_delete_manager on public.location_policies;
create policy location_policies_delete_manager on public.location_policies
  for delete to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists device_positions_select_member on public.device_positions;
create policy device_positions_select_member on public.device_positions
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists device_places_select_member on public.device_places;
create policy device_places_select_member on public.device_places
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists location_events_select_member on public.location_events;
create policy location_events_select_member on public.location_events
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists location_actions_select_member on public.location_actions;
create policy location_actions_select_member on public.location_actions
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

set check_function_bodies = on;
reset search_path;
