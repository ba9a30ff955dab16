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
