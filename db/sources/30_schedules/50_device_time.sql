-- Device time: one schedule that is due on each device's own wall. Its unit is the local occurrence, "Monday 11 January, 06:30"; its
-- compiled recurrence has the walls as if they were UTC, and each zone comes to an instant of its own:
--   wall      the compiled recurrence of the walls; start and end where they are readings of the wall
--   from, to  bounds that are one instant for everybody
--   elapsed   seconds of an interval that is not of whole days: each device counts elapsed time from its own start
--   home      the owner's zone: for devices without one, and for the date and time of day that are taken from an instant
--   unknown   whether devices without a zone go by utc, by their owner's zone, or are skipped

create or replace function fleet.reference_zone(p_schedule public.schedules)
returns text
language sql
immutable
parallel safe
return (case when (p_schedule).timezone = 'device' then 'UTC' else (p_schedule).timezone end);

comment on function fleet.reference_zone(public.schedules) is
  'The zone for what concerns a schedule as a whole: its own; UTC where it goes by device time, whose walls are kept as if they were UTC.';
revoke all on function fleet.reference_zone(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.unknown_zone(p_recurrence jsonb)
returns text
language sql
immutable
parallel safe
return (case p_recurrence ->> 'unknown' when 'utc' then 'UTC' when 'skip' then null else p_recurrence ->> 'home' end);

comment on function fleet.unknown_zone(jsonb) is 'By which zone devices without one go in a schedule by device time; null where it skips them.';
revoke all on function fleet.unknown_zone(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.compiled(p_schedule public.schedules)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_policies jsonb := fleet.effective_policies(p_schedule.policies);
  v_home text;
  v_start timestamptz := p_schedule.start_time;
  v_wall jsonb;
  v_is_elapsed boolean;
begin
  if p_schedule.timezone <> 'device' then
    return fleet.compiled_recurrence(
      p_schedule.recurrence_type, p_schedule.recurrence_config, p_schedule.timezone, p_schedule.start_time, p_schedule.end_time,
      v_policies ->> 'gap', v_policies ->> 'fold'
    );
  end if;

  v_home := fleet.home_zone(p_schedule.owner_id);
  if not p_schedule.start_is_local then
    v_start := (v_start at time zone fleet.zone_clock(v_home)) at time zone 'UTC';
  end if;
  v_wall := fleet.compiled_recurrence(
    p_schedule.recurrence_type, p_schedule.recurrence_config, 'UTC', v_start,
    case when p_schedule.end_is_local then p_schedule.end_time end, v_policies ->> 'gap', v_policies ->> 'fold'
  );
  v_is_elapsed := v_wall ->> 'kind' = 'interval' and (v_wall ->> 'interval_seconds')::bigint % 86400 <> 0;
  if v_wall ->> 'kind' = 'calendar' and not p_schedule.start_is_local then
    -- What bounds it is an instant, not a reading of the wall.
    v_wall := v_wall || '{"start": null}';
  end if;
  return jsonb_strip_nulls(jsonb_build_object(
    'kind', 'walls',
    'type', v_wall -> 'type',
    'timezone', 'device',
    'from', case when not p_schedule.start_is_local and v_wall ->> 'kind' <> 'once' then fleet.instant_text(p_schedule.start_time) end,
    'to', case when not p_schedule.end_is_local then fleet.instant_text(nullif(p_schedule.end_time, 'infinity')) end,
    'elapsed', case when v_is_elapsed then v_wall -> 'interval_seconds' end,
    'until', case when v_is_elapsed then v_wall -> 'end' end,
    'home', v_home,
    'unknown', v_policies -> 'unknown_zone'
  )) || jsonb_build_object('wall', case when v_is_elapsed then v_wall || '{"end": null}' else v_wall end);
end;
$$;

comment on function fleet.compiled(public.schedules) is 'The compiled recurrence of a valid schedule; of its walls in device time.';
revoke all on function fleet.compiled(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.schedule_zones(p_schedule public.schedules)
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_unknown text := fleet.unknown_zone(p_schedule.recurrence);
  v_zones text[];
begin
  if p_schedule.timezone <> 'device' then
    return null;
  elsif p_schedule.group_ids = '{}' and p_schedule.selector is null then
    -- Few, and named: their own zones, and no others.
    v_zones := array(
      select distinct coalesce(d.timezone, v_unknown) as zone
      from public.devices as d
      where d.id = any (p_schedule.device_ids) and d.owner_id = p_schedule.owner_id and d.status = 'active'
      order by zone
    );
  else
    -- All of the owner's: who is in a group or selected is known when the time comes.
    v_zones := array(
      select distinct coalesce(nullif(z.zone, ''), v_unknown) as zone
      from fleet.owner_zones as z
      where z.owner_id = p_schedule.owner_id and z.devices > 0
      order by zone
    );
  end if;
  v_zones := fleet.zones_of_server(array_remove(v_zones, null));
  return case when v_zones = '{}' then array[coalesce(p_schedule.recurrence ->> 'home', 'UTC')] else v_zones end;
end;
$$;

comment on function fleet.schedule_zones(public.schedules) is
  'The time zones in which a schedule by device time may be due, of those that the server has: the owner''s where it has no devices. Null '
  'for a schedule with a zone of its own.';
revoke all on function fleet.schedule_zones(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.next_due(p_recurrence jsonb, p_zones text[], p_after timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_next timestamptz;
begin
  if p_zones is null then
    v_next := fleet.next_occurrence(p_recurrence, p_after);
    if fleet.leaves_out_gaps(p_recurrence) and isfinite(p_after) then
      -- A time that the clocks skip is accounted for at the instant at which they do.
      v_next := least(v_next, (
        select min(g.skipped_at)
        from fleet.skipped_times(
          p_recurrence, p_after + interval '1 microsecond', coalesce(v_next, p_after + interval '2 years')
        ) as g
      ));
    end if;
    return v_next;
  end if;
  return (select n.due_at from fleet.next_on_walls(p_recurrence, p_zones, p_after) as n);
end;
$$;

comment on function fleet.next_due(jsonb, text[], timestamptz) is
  'The first due instant after p_after, a time that the clocks skip and that is left out (gap: skip) included; in device time the first at which an occurrence is due for anybody in these zones. Null where there '
  'is none.';
revoke all on function fleet.next_due(jsonb, text[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.due_instants(p_recurrence jsonb, p_zones text[], p_from timestamptz, p_to timestamptz)
returns setof timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_zones is null then
    return query select o from fleet.occurrences(p_recurrence, p_from, p_to) as o;
  else
    return query select o.due_at from fleet.local_occurrences(p_recurrence, p_zones, p_from, p_to) as o;
  end if;
end;
$$;

comment on function fleet.due_instants(jsonb, text[], timestamptz, timestamptz) is
  'The due instants within [p_from, p_to); in device time the first of each local occurrence.';
revoke all on function fleet.due_instants(jsonb, text[], timestamptz, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.count_due(p_recurrence jsonb, p_zones text[], p_from timestamptz, p_to timestamptz)
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_zones is null then
    return fleet.count_occurrences(p_recurrence, p_from, p_to);
  end if;
  return (select count(*) from fleet.local_occurrences(p_recurrence, p_zones, p_from, p_to));
end;
$$;

comment on function fleet.count_due(jsonb, text[], timestamptz, timestamptz) is
  'How many due instants lie within [p_from, p_to); in device time how many local occurrences are first due then.';
revoke all on function fleet.count_due(jsonb, text[], timestamptz, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.last_occurrence(p_recurrence jsonb, p_from timestamptz, p_to timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_span interval := '1 hour';
  v_last timestamptz;
begin
  -- Backwards in growing steps: the last instant of a long pause is found without walking through all of it.
  loop
    select max(o) into v_last
    from fleet.occurrences(p_recurrence, greatest(p_from, p_to - v_span), p_to) as o;
    exit when v_last is not null or p_to - v_span <= p_from;
    v_span := v_span * 12;
  end loop;
  return v_last;
end;
$$;

comment on function fleet.last_occurrence(jsonb, timestamptz, timestamptz) is
  'The last instant of a compiled recurrence within [p_from, p_to); null when there is none.';
revoke all on function fleet.last_occurrence(jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.density_problem(p_schedule public.schedules)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  -- A day and the two hours by which the walls of the earth are further apart than one.
  c_most constant bigint := 320;
  v_wall jsonb := fleet.compiled(p_schedule) -> 'wall';
  v_from timestamptz := coalesce((v_wall ->> 'start')::timestamptz, clock_timestamp());
begin
  if v_wall ->> 'kind' = 'interval' and 93600 / (v_wall ->> 'interval_seconds')::bigint > c_most
    or v_wall ->> 'kind' = 'calendar' and (
      fleet.count_occurrences(v_wall, v_from, v_from + interval '26 hours', c_most + 1) > c_most
      or exists (
        select 1
        from generate_series(0, 6) as d(days)
        cross join lateral (select date_trunc('day', fleet.next_occurrence(v_wall, v_from + d.days * interval '1 day')) as day) as o
        where fleet.count_occurrences(v_wall, o.day - interval '1 hour', o.day + interval '25 hours', c_most + 1) > c_most
          or fleet.count_occurrences(v_wall, o.day, o.day + interval '26 hours', c_most + 1) > c_most
      )
    )
  then
    return next (
      'timezone', 'device_time_too_dense: more than 320 times fall within the 26 hours in which it is the same time on every wall',
      'Use a fixed zone with a window "in": "device".'
    )::fleet.problem;
  end if;
end;
$$;

comment on function fleet.density_problem(public.schedules) is
  'A schedule by device time that is due so often that hundreds of its runs would be under way at once.';
revoke all on function fleet.density_problem(public.schedules) from public, anon, authenticated, service_role;
