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
