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
