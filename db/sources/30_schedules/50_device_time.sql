-- Device time: one schedule that is due in each device's own local time. Its compiled recurrence is a union with one member
-- for each time zone that its devices are in.

create or replace function fleet.reference_zone(p_schedule public.schedules)
returns text
language sql
immutable
parallel safe
return (case when (p_schedule).timezone = 'device' then 'UTC' else (p_schedule).timezone end);

comment on function fleet.reference_zone(public.schedules) is
  'The zone for what concerns a schedule as a whole: its own, or UTC where it goes by device time.';
revoke all on function fleet.reference_zone(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.target_zones(p_schedule public.schedules)
returns text[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(distinct coalesce(t.timezone, 'UTC')), '{UTC}')
  from fleet.targets(p_schedule.owner_id, p_schedule.device_ids, p_schedule.group_ids, p_schedule.selector) as t
$$;

comment on function fleet.target_zones(public.schedules) is 'The time zones of the devices that a schedule reaches now; UTC where one has none.';
revoke all on function fleet.target_zones(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.compiled(p_schedule public.schedules)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_zones text[];
begin
  if p_schedule.timezone <> 'device' then
    return fleet.compiled_in(p_schedule, p_schedule.timezone);
  end if;
  v_zones := fleet.target_zones(p_schedule);
  return jsonb_build_object(
    'kind', 'union',
    'type', p_schedule.recurrence_type,
    'zones', to_jsonb(v_zones),
    'members', (select jsonb_agg(fleet.compiled_in(p_schedule, u.zone)) from unnest(v_zones) as u(zone))
  );
end;
$$;

comment on function fleet.compiled(public.schedules) is 'The compiled recurrence of a valid schedule; a union for device time.';
revoke all on function fleet.compiled(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.compiled_in(p_schedule public.schedules, p_timezone text)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select fleet.compiled_recurrence(
      p_schedule.recurrence_type, p_schedule.recurrence_config, p_timezone,
      fleet.bound_in_zone(p_schedule, p_schedule.start_time, p_timezone),
      fleet.bound_in_zone(p_schedule, p_schedule.end_time, p_timezone),
      fleet.effective_policies(p_schedule.policies) ->> 'gap',
      fleet.effective_policies(p_schedule.policies) ->> 'fold'
    )
  );
end;
$$;

comment on function fleet.compiled_in(public.schedules, text) is 'The compiled recurrence of a schedule in one time zone.';
revoke all on function fleet.compiled_in(public.schedules, text) from public, anon, authenticated, service_role;

create or replace function fleet.bound_in_zone(p_schedule public.schedules, p_bound timestamptz, p_timezone text)
returns timestamptz
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- A single run in device time means the same time on the clock everywhere; kept as UTC, read in each zone.
  select case
    when p_schedule.timezone = 'device' and p_schedule.recurrence_type = 'once'
      then fleet.local_to_instant(p_bound at time zone 'UTC', p_timezone)
    else p_bound
  end
$$;

comment on function fleet.bound_in_zone(public.schedules, timestamptz, text) is
  'Start or end of a schedule for one zone: a single run in device time is at the same local time in each.';
revoke all on function fleet.bound_in_zone(public.schedules, timestamptz, text)
  from public, anon, authenticated, service_role;

create or replace function fleet.next_due(p_recurrence jsonb, p_after timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_recurrence ->> 'kind' is distinct from 'union' then
    return fleet.next_occurrence(p_recurrence, p_after);
  end if;
  return (
    select min(fleet.next_occurrence(m.member, p_after))
    from jsonb_array_elements(p_recurrence -> 'members') as m(member)
  );
end;
$$;

comment on function fleet.next_due(jsonb, timestamptz) is 'The first due instant after p_after, in whichever zone; null when there is none.';
revoke all on function fleet.next_due(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.due_instants(p_recurrence jsonb, p_from timestamptz, p_to timestamptz)
returns setof timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_recurrence ->> 'kind' is distinct from 'union' then
    return query select o from fleet.occurrences(p_recurrence, p_from, p_to) as o;
    return;
  end if;
  return query
  select distinct o
  from jsonb_array_elements(p_recurrence -> 'members') as m(member)
  cross join lateral fleet.occurrences(m.member, p_from, p_to) as o
  order by o;
end;
$$;

comment on function fleet.due_instants(jsonb, timestamptz, timestamptz) is
  'The due instants within [p_from, p_to), each once however many zones share it.';
revoke all on function fleet.due_instants(jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.count_due(p_recurrence jsonb, p_from timestamptz, p_to timestamptz)
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_recurrence ->> 'kind' is distinct from 'union' then
    return fleet.count_occurrences(p_recurrence, p_from, p_to);
  end if;
  return (select count(*) from fleet.due_instants(p_recurrence, p_from, p_to));
end;
$$;

comment on function fleet.count_due(jsonb, timestamptz, timestamptz) is 'How many due instants lie within [p_from, p_to).';
revoke all on function fleet.count_due(jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.zones_due(p_recurrence jsonb, p_instant timestamptz)
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_recurrence ->> 'kind' is distinct from 'union' then
    return null;
  end if;
  return (
    select array_agg(m.member ->> 'timezone')
    from jsonb_array_elements(p_recurrence -> 'members') as m(member)
    where fleet.next_occurrence(m.member, p_instant - interval '1 microsecond') = p_instant
  );
end;
$$;

comment on function fleet.zones_due(jsonb, timestamptz) is
  'For whose devices an instant is due, by zone; null where the schedule has a zone of its own.';
revoke all on function fleet.zones_due(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.zones_to_run(
  p_recurrence jsonb,
  p_policies jsonb,
  p_instant timestamptz,
  p_now timestamptz
)
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_recurrence ->> 'kind' is distinct from 'union' then
    return null;
  end if;
  return (
    select coalesce(array_agg(m.member ->> 'timezone'), '{}')
    from jsonb_array_elements(p_recurrence -> 'members') as m(member)
    where fleet.next_occurrence(m.member, p_instant - interval '1 microsecond') = p_instant
      -- Of what was missed each zone has a latest of its own.
      and (
        p_policies ->> 'catchup' = 'all'
        or coalesce(fleet.next_occurrence(m.member, p_instant) > p_now, true)
      )
  );
end;
$$;

comment on function fleet.zones_to_run(jsonb, jsonb, timestamptz, timestamptz) is
  'For whose devices a due instant runs now, by zone: none where a later one has taken its place. Null where the schedule has a zone of '
  'its own.';
revoke all on function fleet.zones_to_run(jsonb, jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.next_due_in(p_recurrence jsonb, p_zones text[], p_after timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_recurrence ->> 'kind' is distinct from 'union' then
    return fleet.next_occurrence(p_recurrence, p_after);
  end if;
  return (
    select min(fleet.next_occurrence(m.member, p_after))
    from jsonb_array_elements(p_recurrence -> 'members') as m(member)
    where m.member ->> 'timezone' = any (p_zones)
  );
end;
$$;

comment on function fleet.next_due_in(jsonb, text[], timestamptz) is
  'The first due instant after p_after for the devices of these zones; null when there is none.';
revoke all on function fleet.next_due_in(jsonb, text[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.dst_rule_at(p_recurrence jsonb, p_instant timestamptz)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_recurrence ->> 'kind' is distinct from 'union' then
    return fleet.applied_rule(p_recurrence, p_instant);
  end if;
  return (
    select string_agg((m.member ->> 'timezone') || ' ' || r.rule, ', ')
    from jsonb_array_elements(p_recurrence -> 'members') as m(member)
    cross join lateral fleet.applied_rule(m.member, p_instant) as r(rule)
    where r.rule is not null
      and fleet.next_occurrence(m.member, p_instant - interval '1 microsecond') = p_instant
  );
end;
$$;

comment on function fleet.dst_rule_at(jsonb, timestamptz) is
  'Which rule moved an instant at a change of the clock, with the zone where there are several; null where none did.';
revoke all on function fleet.dst_rule_at(jsonb, timestamptz) from public, anon, authenticated, service_role;

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
    from fleet.due_instants(p_recurrence, greatest(p_from, p_to - v_span), p_to) as o;
    exit when v_last is not null or p_to - v_span <= p_from;
    v_span := v_span * 12;
  end loop;
  return v_last;
end;
$$;

comment on function fleet.last_occurrence(jsonb, timestamptz, timestamptz) is
  'The last due instant within [p_from, p_to); null when there is none.';
revoke all on function fleet.last_occurrence(jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;
