-- Why one device ran, or did not.

create or replace function fleet.is_target(p_schedule public.schedules, p_device_id bigint)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select 1
    from fleet.targets(
      p_schedule.owner_id, p_schedule.device_ids, p_schedule.group_ids, p_schedule.selector, p_device_id - 1, 1
    ) as t
    where t.device_id = p_device_id
  )
$$;

comment on function fleet.is_target(public.schedules, bigint) is 'Whether a schedule reaches a device now.';
revoke all on function fleet.is_target(public.schedules, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.explain_device(
  p_schedule public.schedules,
  p_run public.schedule_runs,
  p_device public.devices,
  p_at timestamptz,
  p_answer jsonb,
  p_now timestamptz
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_command public.device_commands;
begin
  select c.* into v_command
  from public.device_commands as c
  where c.run_id = p_run.id and c.device_id = p_device.id
  order by c.step
  limit 1;
  if found then
    return fleet.explain_command(p_schedule, p_run, v_command, p_device, p_now)
      || jsonb_build_object('command', fleet.command_facts(v_command));
  end if;

  -- Decided for the schedule as a whole: it is the same for each device.
  if p_answer ->> 'verdict' = 'not yet due' then
    return fleet.explain_coming_device(p_schedule, p_device, p_at, p_answer);
  elsif p_run.id is null
    or p_run.status = 'cancelled'
    or (p_run.status = 'failed' and p_run.reason = 'error')
    or (p_run.status = 'skipped' and p_run.expanded_at is null)
  then
    return p_answer;
  end if;
  return fleet.explain_left_out(p_schedule, p_run, p_device, p_answer);
end;
$$;

comment on function fleet.explain_device(
  public.schedules, public.schedule_runs, public.devices, timestamptz, jsonb, timestamptz
) is 'The answer for one device: by its command, or why it has none.';
revoke all on function fleet.explain_device(
  public.schedules, public.schedule_runs, public.devices, timestamptz, jsonb, timestamptz
) from public, anon, authenticated, service_role;

create or replace function fleet.explain_left_out(
  p_schedule public.schedules,
  p_run public.schedule_runs,
  p_device public.devices,
  p_answer jsonb
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_zone text := coalesce(p_device.timezone, 'UTC');
  v_zones text[] := array[fleet.reference_zone(p_schedule)];
  v_made_at timestamptz := coalesce(p_run.expanded_at, p_run.started_at, p_run.scheduled_for);
  v_from timestamptz := greatest(p_run.not_before, case
    when not p_schedule.policies ? 'jitter' then v_made_at
    when p_run.trigger = 'schedule' then p_run.scheduled_for
    else p_run.started_at
  end);
  v_busy public.device_commands := fleet.busy_command(p_run, p_device.id);
begin
  if p_device.status = 'retired' then
    return fleet.answer('retired', 'the device is retired', 'it can do nothing until it is re-keyed');
  elsif p_device.created_at > v_made_at then
    return fleet.answer('added later', 'the device was added after the run', format(
      'the run was made on %s, the device on %s', fleet.local_times(v_made_at, v_zones),
      fleet.local_times(p_device.created_at, v_zones)
    ));
  elsif not fleet.is_target(p_schedule, p_device.id) then
    return fleet.answer('not a target', 'the schedule does not reach this device',
      'it is neither named nor in a group nor selected');
  elsif p_run.zones is not null and v_zone <> all (p_run.zones) then
    return fleet.explain_other_zone(p_schedule, p_device, p_run.scheduled_for, p_run.zones);
  elsif p_run.expanded_at is null and coalesce(p_run.expanded_to, 0) < p_device.id then
    return case p_answer ->> 'verdict'
      when 'waiting' then p_answer
      else fleet.answer('waiting', 'its command is not made yet', 'large runs are made in chunks')
    end;
  elsif fleet.device_start(
    fleet.effective_policies(p_schedule.policies), p_schedule.id, p_device.id, v_zone, v_from
  ) is null then
    return fleet.answer('outside window', 'outside the execution window', format(
      'it was %s for the device; the window is %s', fleet.clock_text(v_from, v_zone),
      fleet.window_text(fleet.effective_policies(p_schedule.policies))
    ));
  elsif p_run.skipped > 0 and v_busy.id is not null then
    return fleet.answer('overlap', 'overlap', format(
      'the device was still busy with command %s of run %s, which is %s', v_busy.id, v_busy.run_id, v_busy.status
    ));
  end if;
  -- Every device that was reached has a command, was busy or outside of its window. This one is reached only since then.
  return fleet.answer('not a target', 'the schedule did not reach this device then',
    'its tags, its groups, its time zone or the targets of the schedule have changed since');
end;
$$;

comment on function fleet.explain_left_out(
  public.schedules, public.schedule_runs, public.devices, jsonb
) is 'The answer for a device that has no command of a run that others may have one of.';
revoke all on function fleet.explain_left_out(
  public.schedules, public.schedule_runs, public.devices, jsonb
) from public, anon, authenticated, service_role;

create or replace function fleet.explain_other_zone(
  p_schedule public.schedules,
  p_device public.devices,
  p_at timestamptz,
  p_zones text[]
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_zone text := coalesce(p_device.timezone, fleet.unknown_zone(p_schedule.recurrence), 'UTC');
begin
  if fleet.open_zones(p_schedule, array[v_zone], p_at) = '{}' then
    return fleet.answer('blackout', 'blackout', concat_ws(
      ' in ', fleet.skip_detail(p_schedule, 'blackout', array[v_zone], p_at, p_at), v_zone
    ));
  end if;
  return fleet.answer('not due', 'not due in the time zone of the device', format(
    'the run is for %s; the device is in %s', array_to_string(p_zones, ', '), v_zone
  ));
end;
$$;

comment on function fleet.explain_other_zone(public.schedules, public.devices, timestamptz, text[]) is
  'The answer for a device in a time zone that a run is not for.';
revoke all on function fleet.explain_other_zone(public.schedules, public.devices, timestamptz, text[])
  from public, anon, authenticated, service_role;

create or replace function fleet.explain_coming_device(
  p_schedule public.schedules,
  p_device public.devices,
  p_at timestamptz,
  p_answer jsonb
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_zone text := coalesce(p_device.timezone, 'UTC');
  v_policies jsonb := fleet.effective_policies(p_schedule.policies);
  v_start timestamptz := fleet.device_start(
    v_policies, p_schedule.id, p_device.id, v_zone, fleet.opening_of(p_schedule, p_at)
  );
begin
  return case
    when p_device.status = 'retired'
      then fleet.answer('retired', 'the device is retired', 'it can do nothing until it is re-keyed')
    when not fleet.is_target(p_schedule, p_device.id) then fleet.answer(
      'not a target', 'the schedule does not reach this device', 'it is neither named nor in a group nor selected'
    )
    when v_start is null then fleet.answer('outside window', 'outside the execution window', format(
      'it will be %s for the device; the window is %s', fleet.clock_text(p_at, v_zone), fleet.window_text(v_policies)
    ))
    else p_answer || jsonb_build_object('detail', format(
      'the device may start on %s%s', fleet.local_times(v_start, array[fleet.reference_zone(p_schedule)]),
      case when v_policies ->> 'jitter' is not null then ', its own slot of the jitter' else '' end
    ))
  end;
end;
$$;

comment on function fleet.explain_coming_device(public.schedules, public.devices, timestamptz, jsonb) is
  'The answer for a device and an instant that is yet to come.';
revoke all on function fleet.explain_coming_device(public.schedules, public.devices, timestamptz, jsonb)
  from public, anon, authenticated, service_role;
