-- Device time: why a local occurrence ran, or did not, on all walls or on that of one device, at that device's own instant.

create or replace function fleet.wall_at(p_schedule public.schedules, p_at timestamptz, p_zone text)
returns table (local timestamp, fold integer)
language sql
stable
rows 1
set search_path = pg_catalog, pg_temp
as $$
  -- On the device's own wall, else on any wall.
  select w.local, w.fold
  from (
    select array(
      select distinct u.zone from unnest(fleet.schedule_zones(p_schedule) || p_zone) as u(zone) where u.zone is not null
    ) as zones
  ) as a
  cross join lateral fleet.walls_within(p_schedule.recurrence, a.zones, p_at, p_at + interval '1 microsecond') as w
  cross join lateral fleet.zone_instants(p_schedule.recurrence, w.local, w.fold, w.zones) as z
  where z.due_at = p_at
  group by w.local, w.fold
  order by bool_or(z.zone = p_zone) desc, bool_or(z.refusal is null) desc, w.local, w.fold
  limit 1
$$;

comment on function fleet.wall_at(public.schedules, timestamptz, text) is
  'The local occurrence that is due at an instant, best on the wall of this zone.';
revoke all on function fleet.wall_at(public.schedules, timestamptz, text) from public, anon, authenticated, service_role;

create or replace function fleet.run_on_walls(p_schedule_id bigint, p_local timestamp, p_fold integer)
returns public.schedule_runs
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select r.*
  from public.schedule_runs as r
  where r.schedule_id = p_schedule_id
    and ((r.scheduled_local = p_local and r.fold = p_fold) or (r.scheduled_local <= p_local and r.missed_to_local >= p_local))
  order by r.missed_to_local is null desc, r.id
  limit 1
$$;

comment on function fleet.run_on_walls(bigint, timestamp, integer) is
  'What the ledger says of a local occurrence: its row, or the range that covers it.';
revoke all on function fleet.run_on_walls(bigint, timestamp, integer) from public, anon, authenticated, service_role;

create or replace function fleet.explain_on_walls(
  p_schedule public.schedules,
  p_at timestamptz,
  p_device_id bigint,
  p_now timestamptz
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device public.devices;
  v_zone text;
  v_local timestamp;
  v_fold integer;
  v_run public.schedule_runs;
  v_instant record;
  v_facts jsonb;
  v_answer jsonb;
begin
  if p_device_id is not null then
    v_device := fleet.device_in_view(p_device_id, p_schedule.owner_id);
    v_zone := (fleet.zones_of_server(array_remove(
      array[coalesce(v_device.timezone, fleet.unknown_zone(p_schedule.recurrence))], null
    )))[1];
  end if;
  v_facts := jsonb_build_object('schedule_id', p_schedule.id, 'schedule', p_schedule.name, 'at', p_at) || case
    when p_device_id is not null
      then jsonb_build_object('device_id', v_device.id, 'hostname', v_device.hostname, 'timezone', v_zone)
    else '{}'
  end;

  select w.local, w.fold into v_local, v_fold from fleet.wall_at(p_schedule, p_at, v_zone) as w;
  if v_local is null then
    v_run := fleet.run_at(p_schedule.id, p_at);
    if v_run.id is not null and v_run.scheduled_local is null then
      -- By hand, or of the time before it went by device time: one instant for everybody.
      return null;
    elsif v_run.id is null then
      return v_facts
        || jsonb_build_object('local_time', fleet.local_times(p_at, array[coalesce(v_zone, 'UTC')]), 'run', null)
        || fleet.explain_no_wall(p_schedule, p_at, v_zone);
    end if;
    v_local := v_run.scheduled_local;
    v_fold := v_run.fold;
  end if;
  v_run := fleet.run_on_walls(p_schedule.id, v_local, v_fold);
  select z.due_at, z.rule, z.refusal into v_instant
  from fleet.zone_instants(p_schedule.recurrence, v_local, v_fold, array_remove(array[v_zone], null)) as z;

  v_answer := case
    when p_device_id is null and v_run.id is null then fleet.explain_unbooked_wall(p_schedule, v_local, p_at, p_now)
    when p_device_id is null then fleet.explain_run(p_schedule, v_run, p_at, p_now) || fleet.zones_told(v_run)
    else fleet.explain_wall_of_device(p_schedule, v_run, v_device, v_zone, v_local, v_instant.due_at, v_instant.refusal, p_now)
      || jsonb_build_object('instant', v_instant.due_at, 'dst_note', fleet.dst_note(v_instant.rule))
  end;
  return v_facts || jsonb_build_object('local_time', fleet.wall_text(v_local), 'run', fleet.run_facts(v_run)) || v_answer;
end;
$$;

comment on function fleet.explain_on_walls(public.schedules, timestamptz, bigint, timestamptz) is
  'The explanation of a schedule by device time: the instant says which local occurrence is meant, and the answer for a device is about its '
  'own instant. Null where the instant is that of a run for everybody at once.';
revoke all on function fleet.explain_on_walls(public.schedules, timestamptz, bigint, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.zones_told(p_run public.schedule_runs)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_build_object('zones', jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
    'at', z.due_at, 'zones', to_jsonb(z.zones), 'status', z.status, 'reason', z.reason, 'targeted', z.targeted,
    'device_ids', to_jsonb(z.device_ids)
  )) order by z.due_at, z.id)), '{}')
  from fleet.run_zones as z
  where z.run_id = p_run.id
  having count(*) > 0
$$;

comment on function fleet.zones_told(public.schedule_runs) is
  'How far a run in device time has come: {zones: [{at, zones, status, reason, targeted}]}.';
revoke all on function fleet.zones_told(public.schedule_runs) from public, anon, authenticated, service_role;

create or replace function fleet.explain_no_wall(p_schedule public.schedules, p_at timestamptz, p_zone text)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_zones text[] := case when p_zone is null then fleet.schedule_zones(p_schedule) else array[p_zone] end;
  v_before record;
  v_after record;
begin
  select n.* into v_after from fleet.next_on_walls(p_schedule.recurrence, v_zones, p_at, p_zone is not null) as n;
  for v_days in 0..8 loop
    select o.local, o.due_at into v_before
    from fleet.local_occurrences(p_schedule.recurrence, v_zones, p_at - interval '2 days' * 4 ^ v_days, p_at) as o
    order by o.due_at desc, o.local desc
    limit 1;
    exit when v_before.local is not null or v_days = 5;
  end loop;
  return fleet.explain_not_due(p_schedule, p_at, jsonb_build_object(
    'before', v_before.due_at, 'before_local', fleet.wall_text(v_before.local),
    'after', v_after.due_at, 'after_local', fleet.wall_text(v_after.local)
  ));
end;
$$;

comment on function fleet.explain_no_wall(public.schedules, timestamptz, text) is
  'The answer for an instant at which a schedule by device time is due nowhere, with what is near it on the wall of this zone, or on any.';
revoke all on function fleet.explain_no_wall(public.schedules, timestamptz, text) from public, anon, authenticated, service_role;

create or replace function fleet.explain_unbooked_wall(
  p_schedule public.schedules,
  p_local timestamp,
  p_at timestamptz,
  p_now timestamptz
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_zones text[] := array['UTC'];
  v_coming record;
begin
  if p_at <= p_now then
    return fleet.explain_past(p_schedule, p_at, p_now, v_zones);
  elsif p_schedule.status in ('cancelled', 'completed') then
    return fleet.explain_future(p_schedule, p_at, v_zones);
  end if;
  select c.* into v_coming
  from fleet.coming_on_walls(p_schedule, p_at - interval '27 hours', p_at + interval '1 microsecond', 1000, false) as c
  where c.local = p_local
  order by c.due_at
  limit 1;
  if not found then
    return fleet.answer('max runs', 'max_runs reached', format(
      'it may run %s times and has run %s times; the rest will be used up before', p_schedule.policies ->> 'max_runs',
      p_schedule.execution_count - p_schedule.idle_count
    ));
  elsif v_coming.would = 'skip' then
    return fleet.answer(fleet.verdict_of_reason(v_coming.reason), v_coming.reason, concat_ws(
      '; ', 'it will be skipped unless that changes', fleet.skip_detail(p_schedule, v_coming.reason, v_coming.zones, p_at, p_at)
    ));
  end if;
  return fleet.answer('not yet due', 'it is in the future', format(
    'it will run at %s on each device''s wall, first in %s', fleet.wall_text(p_local), v_coming.zones[1]
  ));
end;
$$;

comment on function fleet.explain_unbooked_wall(public.schedules, timestamp, timestamptz, timestamptz) is
  'The answer for a local occurrence that is not in the ledger.';
revoke all on function fleet.explain_unbooked_wall(public.schedules, timestamp, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.explain_wall_of_device(
  p_schedule public.schedules,
  p_run public.schedule_runs,
  p_device public.devices,
  p_zone text,
  p_local timestamp,
  p_due timestamptz,
  p_refusal text,
  p_now timestamptz
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_command public.device_commands;
  v_row fleet.run_zones;
  v_when text := fleet.clock_text(p_due, 'UTC') || ' UTC';
begin
  select c.* into v_command
  from public.device_commands as c
  where c.run_id = p_run.id and c.device_id = p_device.id
  order by c.step
  limit 1;
  if found then
    return fleet.explain_command(p_schedule, p_run, v_command, p_device, p_now)
      || jsonb_build_object('command', fleet.command_facts(v_command));
  elsif p_device.status = 'retired' then
    return fleet.answer('retired', 'the device is retired', 'it can do nothing until it is re-keyed');
  elsif p_zone is null then
    return case
      when p_device.timezone is null
        then fleet.answer('not a target', 'the device has no time zone', 'devices without one are left out (unknown_zone: skip)')
      else fleet.answer('skipped', 'the server does not have the time zone of the device', p_device.timezone)
    end;
  elsif not fleet.is_target(p_schedule, p_device.id) then
    return fleet.answer('not a target', 'the schedule does not reach this device', 'it is neither named nor in a group nor selected');
  elsif p_due is null then
    return fleet.answer('not due', 'out of the bounds of the schedule in the time zone of the device', p_zone);
  end if;

  select z.* into v_row
  from fleet.run_zones as z
  where z.run_id = p_run.id
    and p_zone = any (z.zones)
    and (z.device_ids is null or p_device.id = any (z.device_ids))
  order by z.device_ids is null, z.id desc
  limit 1;
  if not found then
    return case
      when p_run.id is not null and p_run.missed_to_local is null and p_run.status not in ('pending', 'running')
        and not exists (select 1 from fleet.run_zones as z where z.run_id = p_run.id)
        then fleet.explain_run(p_schedule, p_run, p_due, p_now)
      when p_run.missed_to_local is not null then fleet.explain_skip(p_schedule, p_run, p_due)
      when p_run.id is not null then fleet.answer('not a target', 'the device came into the zone when its time there had passed', v_when)
      when p_refusal is not null then fleet.answer(fleet.verdict_of_reason(p_refusal), p_refusal, v_when)
      else fleet.explain_unbooked_wall(p_schedule, p_local, p_due, p_now)
    end;
  end if;
  return case
    when v_row.status = 'waiting' and v_row.starts_at > p_now
      then fleet.answer('not yet due', 'it is in the future', format('on the wall of the device it is due on %s', v_when))
    when v_row.status = 'waiting' then fleet.answer('waiting', 'no tick has come by since', v_when)
    when v_row.status = 'cancelled' then fleet.answer('cancelled', v_row.reason, v_when)
    when v_row.status = 'skipped' then fleet.answer(fleet.verdict_of_reason(v_row.reason), v_row.reason, concat_ws('; ',
      v_when, fleet.skip_detail(p_schedule, v_row.reason, array[p_zone], v_row.due_at, v_row.started_at)
    ))
    else fleet.explain_left_out(p_schedule, fleet.run_in_zone(p_run, v_row), p_device, fleet.answer('waiting', null, null))
  end;
end;
$$;

comment on function fleet.explain_wall_of_device(
  public.schedules, public.schedule_runs, public.devices, text, timestamp, timestamptz, text, timestamptz
) is 'The answer for one device and one local occurrence: by its command, or by what became of its zone.';
revoke all on function fleet.explain_wall_of_device(
  public.schedules, public.schedule_runs, public.devices, text, timestamp, timestamptz, text, timestamptz
) from public, anon, authenticated, service_role;

create or replace function fleet.run_in_zone(p_run public.schedule_runs, p_row fleet.run_zones)
returns public.schedule_runs
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  p_run.scheduled_for := p_row.due_at;
  p_run.started_at := p_row.started_at;
  p_run.expanded_at := p_row.expanded_at;
  p_run.expanded_to := case when p_row.expanded_at is null then p_row.expanded_to else p_run.expanded_to end;
  p_run.expires_at := p_row.expires_at;
  p_run.targeted := p_row.targeted;
  return p_run;
end;
$$;

comment on function fleet.run_in_zone(public.schedule_runs, fleet.run_zones) is
  'A run in device time as it looks to the devices of one of its instants.';
revoke all on function fleet.run_in_zone(public.schedule_runs, fleet.run_zones) from public, anon, authenticated, service_role;
