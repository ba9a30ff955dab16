-- Derived columns of a schedule: what follows from what was written.

create or replace function fleet.completed_schedule(p_old public.schedules, p_new public.schedules)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules := p_new;
begin
  v_row.recurrence_type := coalesce(fleet.recurrence_type(v_row.recurrence_type), v_row.recurrence_type);
  if v_row.profile_id is null then
    v_row.profile_id := v_row.payload ->> 'profile_id';
  elsif v_row.profile_id is distinct from v_row.payload ->> 'profile_id' and jsonb_typeof(v_row.payload) = 'object' then
    v_row.payload := v_row.payload || jsonb_build_object('profile_id', v_row.profile_id);
  end if;

  -- Nobody who is named is dropped: a device beside other targets is one more of them.
  v_row.device_ids := array(
    select distinct u.id from unnest(v_row.device_ids || v_row.device_id) as u(id) where u.id is not null order by u.id
  );
  v_row.group_ids := coalesce(v_row.group_ids, '{}');
  if v_row.timezone <> 'device' and fleet.is_time_zone(v_row.timezone) then
    -- Readings of the wall are instants where there is one wall.
    if v_row.start_is_local then
      v_row.start_time := fleet.local_to_instant(v_row.start_time at time zone 'UTC', v_row.timezone);
    end if;
    if v_row.end_is_local and isfinite(v_row.end_time) then
      v_row.end_time := fleet.local_to_instant(v_row.end_time at time zone 'UTC', v_row.timezone);
    end if;
    v_row.start_is_local := false;
    v_row.end_is_local := false;
  end if;
  v_row.device_id := case
    when cardinality(v_row.device_ids) = 1 and v_row.group_ids = '{}' and v_row.selector is null
      then v_row.device_ids[1]
  end;

  if p_old.id is null
    or (v_row.owner_id, v_row.policies, v_row.timezone) is distinct from (p_old.owner_id, p_old.policies, p_old.timezone)
  then
    if v_row.policies ? 'blackouts' then
      v_row.policies := fleet.named_blackouts(v_row.owner_id, v_row.policies);
    end if;
    if v_row.timezone = 'device' then
      v_row.policies := fleet.policies_in_device_time(v_row.policies);
    end if;
  end if;
  if v_row.after_schedule_id is not null then
    v_row.after_on := coalesce(v_row.after_on, 'completed');
  else
    v_row.after_per_device := false;
  end if;
  if btrim(coalesce(v_row.name, '')) = '' then
    v_row.name := concat_ws(' ', v_row.action_type, v_row.profile_id, 'on ' || v_row.device_id);
  end if;
  return v_row;
end;
$$;

comment on function fleet.completed_schedule(public.schedules, public.schedules) is
  'The new row with profile_id and payload, and device_id and device_ids, brought to agree, and a name where none was given. The old one '
  'tells what need not be looked at again.';
revoke all on function fleet.completed_schedule(public.schedules, public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.without_stale_twins(p_old public.schedules, p_new public.schedules)
returns public.schedules
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules := p_new;
begin
  -- Of two columns that say the same, the one that was changed is meant; the other follows from it.
  if p_new.payload is distinct from p_old.payload and p_new.profile_id is not distinct from p_old.profile_id then
    v_row.profile_id := null;
  elsif p_new.profile_id is null and p_old.profile_id is not null and jsonb_typeof(p_new.payload) = 'object' then
    v_row.payload := p_new.payload - 'profile_id';
  end if;

  if p_new.device_id is not distinct from p_old.device_id then
    v_row.device_id := null;
  elsif p_new.device_ids is not distinct from p_old.device_ids then
    v_row.device_ids := case when p_new.device_id is null then array_remove(p_new.device_ids, p_old.device_id) else '{}' end;
    -- The one device takes the place of all other targets, unless they were changed in the same breath.
    if p_new.device_id is not null and p_new.group_ids = p_old.group_ids and p_new.selector is not distinct from p_old.selector then
      v_row.group_ids := '{}';
      v_row.selector := null;
    end if;
  end if;
  return v_row;
end;
$$;

comment on function fleet.without_stale_twins(public.schedules, public.schedules) is
  'The new row, with the columns emptied that are to follow from their changed twin. fleet.completed_schedule fills them.';
revoke all on function fleet.without_stale_twins(public.schedules, public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.first_due(p_schedule public.schedules, p_now timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A single run is owed even when its time has passed: the ledger then says what became of it. A recurring schedule owes
  -- nothing for the time before it existed.
  return case
    -- What follows another schedule has no instants of its own.
    when p_schedule.after_schedule_id is not null then null
    when p_schedule.timezone = 'device' then fleet.first_due_on_walls(p_schedule, p_now)
    when p_schedule.recurrence_type = 'once'
      then fleet.next_occurrence(p_schedule.recurrence, '-infinity')
    else fleet.next_due(p_schedule.recurrence, null, greatest(p_schedule.start_time, p_now) - interval '1 microsecond')
  end;
end;
$$;

comment on function fleet.first_due(public.schedules, timestamptz) is
  'The first instant that a new or changed schedule is due.';
revoke all on function fleet.first_due(public.schedules, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.first_due_on_walls(p_schedule public.schedules, p_now timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_recurrence jsonb := p_schedule.recurrence;
  v_zones text[] := fleet.schedule_zones(p_schedule);
  v_first timestamptz;
begin
  if p_schedule.recurrence_type = 'once' then
    return fleet.next_due(v_recurrence, v_zones, '-infinity');
  elsif p_schedule.policies ? 'max_runs' then
    -- What is counted begins on every wall with the same occurrence.
    return fleet.next_due(
      v_recurrence - 'from', v_zones, greatest(p_now, (v_recurrence ->> 'from')::timestamptz) - interval '1 microsecond'
    );
  end if;
  -- What comes within days comes at the same instant in all zones of a kin.
  select min(n.due_at) into v_first
  from unnest(fleet.different_zones(v_recurrence, v_zones, p_now, p_now + interval '3 days')) as u(zone)
  cross join lateral fleet.next_on_walls(v_recurrence, array[u.zone], p_now - interval '1 microsecond', true) as n;
  if v_first < p_now + interval '3 days' then
    return v_first;
  end if;
  return (
    select min(n.due_at)
    from unnest(v_zones) as u(zone)
    cross join lateral fleet.next_on_walls(v_recurrence, array[u.zone], p_now - interval '1 microsecond', true) as n
  );
end;
$$;

comment on function fleet.first_due_on_walls(public.schedules, timestamptz) is
  'The first instant that a new or changed schedule by device time is due anywhere: where its runs are counted, with an occurrence that '
  'lies ahead on every wall.';
revoke all on function fleet.first_due_on_walls(public.schedules, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.with_recurrence(p_schedule public.schedules, p_recurrence jsonb)
returns public.schedules
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  p_schedule.recurrence := p_recurrence;
  return p_schedule;
end;
$$;

comment on function fleet.with_recurrence(public.schedules, jsonb) is 'The row with another compiled recurrence.';
revoke all on function fleet.with_recurrence(public.schedules, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.ended_or_not(p_schedule public.schedules)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules := p_schedule;
  v_reason text := fleet.end_reason(v_row);
begin
  if v_reason is null and v_row.status = 'completed' then
    v_row.status := 'active';
    v_row.status_reason := null;
  elsif v_reason is not null and v_row.status in ('active', 'completed') then
    v_row.status := 'completed';
    v_row.status_reason := v_reason;
    v_row.next_run_at := null;
  end if;
  return v_row;
end;
$$;

comment on function fleet.ended_or_not(public.schedules) is
  'The row of a schedule whose times or limits have changed: completed where it has come to its end, active where it goes on.';
revoke all on function fleet.ended_or_not(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.prepared_schedule(p_old public.schedules, p_new public.schedules, p_now timestamptz)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_is_new boolean := p_old.id is null;
  v_row public.schedules := p_new;
begin
  if not v_is_new then
    v_row := fleet.without_stale_twins(p_old, v_row);
  end if;
  v_row := fleet.completed_schedule(p_old, v_row);
  perform fleet.raise_problems(
    'the schedule', 'schedule_invalid', array(select q from fleet.schedule_problems(p_old, v_row) as q)
  );

  v_row.recurrence := case
    when v_is_new or fleet.recurrence_changed(p_old, v_row) then fleet.compiled(v_row) else p_old.recurrence
  end;
  if v_row.status = 'cancelled' then
    return v_row;
  elsif v_is_new or fleet.timing_changed(p_old, v_row) then
    v_row.next_run_at := fleet.first_due(v_row, p_now);
    return fleet.ended_or_not(v_row);
  elsif fleet.limit_changed(p_old, v_row) then
    if v_row.status = 'completed' then
      v_row.next_run_at := fleet.first_due(v_row, p_now);
    end if;
    return fleet.ended_or_not(v_row);
  end if;
  return v_row;
end;
$$;

comment on function fleet.prepared_schedule(public.schedules, public.schedules, timestamptz) is
  'The row that writing p_new in place of p_old at p_now makes: complete, checked, compiled, with its next due instant; an old row without '
  'an id is none. What did not change is not looked at again. Raises schedule_invalid (PT422, or PT404) naming every wrong field.';
revoke all on function fleet.prepared_schedule(public.schedules, public.schedules, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.recurrence_changed(p_old public.schedules, p_new public.schedules)
returns boolean
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (p_old.recurrence_type, p_old.recurrence_config, p_old.start_time, p_old.end_time, p_old.timezone,
      p_old.start_is_local, p_old.end_is_local, p_old.policies -> 'gap', p_old.policies -> 'fold', p_old.policies -> 'unknown_zone')
    is distinct from
    (p_new.recurrence_type, p_new.recurrence_config, p_new.start_time, p_new.end_time, p_new.timezone,
      p_new.start_is_local, p_new.end_is_local, p_new.policies -> 'gap', p_new.policies -> 'fold', p_new.policies -> 'unknown_zone');
end;
$$;

comment on function fleet.recurrence_changed(public.schedules, public.schedules) is
  'Whether the compiled recurrence of a schedule may have changed.';
revoke all on function fleet.recurrence_changed(public.schedules, public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.targets_changed(p_old public.schedules, p_new public.schedules)
returns boolean
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (p_old.owner_id, p_old.device_ids, p_old.group_ids, p_old.selector)
    is distinct from (p_new.owner_id, p_new.device_ids, p_new.group_ids, p_new.selector);
end;
$$;

comment on function fleet.targets_changed(public.schedules, public.schedules) is 'Whether a schedule names others than before.';
revoke all on function fleet.targets_changed(public.schedules, public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.timing_changed(p_old public.schedules, p_new public.schedules)
returns boolean
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select (p_old.recurrence_type, p_old.recurrence_config, p_old.start_time, p_old.end_time, p_old.timezone,
        p_old.recurrence, p_old.after_schedule_id, p_old.after_on)
      is distinct from
      (p_new.recurrence_type, p_new.recurrence_config, p_new.start_time, p_new.end_time, p_new.timezone,
        p_new.recurrence, p_new.after_schedule_id, p_new.after_on)
      -- In device time it is due where its devices are.
      or (p_new.timezone = 'device' and fleet.targets_changed(p_old, p_new))
  );
end;
$$;

comment on function fleet.timing_changed(public.schedules, public.schedules) is 'Whether the due instants may have changed.';
revoke all on function fleet.timing_changed(public.schedules, public.schedules)
  from public, anon, authenticated, service_role;

create or replace function fleet.limit_changed(p_old public.schedules, p_new public.schedules)
returns boolean
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select p_old.status in ('active', 'completed')
      and coalesce(fleet.runs_left(p_old) <= 0, false) is distinct from coalesce(fleet.runs_left(p_new) <= 0, false)
  );
end;
$$;

comment on function fleet.limit_changed(public.schedules, public.schedules) is
  'Whether a schedule that ran as often as it may is to go on, or one that goes on has run as often as it may now.';
revoke all on function fleet.limit_changed(public.schedules, public.schedules) from public, anon, authenticated, service_role;
