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
