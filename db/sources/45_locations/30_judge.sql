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
