-- What holds for schedules however a row is written. The tick moves next_run_at and counters only, so it fires none of these.

create or replace function fleet.tg_prepare_schedule()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_old public.schedules;
  v_row public.schedules := new;
begin
  if tg_op = 'UPDATE' then
    v_old := old;
    if fleet.has_lost_parent(v_old, v_row) then
      return fleet.abandoned_schedule(v_old, v_row);
    end if;
  else
    v_row.created_by := fleet.current_user_id();
  end if;
  v_row.owner_id := fleet.owner_or_own(v_row.owner_id);
  perform fleet.require_permission(v_row.owner_id, 'manage', format('owner %s', v_row.owner_id));
  perform fleet.require_destructive(v_row.owner_id, v_row.action_type);
  if v_row.after_schedule_id is distinct from v_old.after_schedule_id then
    -- Two sessions that each let one schedule follow the other would not see the circle they make.
    perform pg_advisory_xact_lock(hashtext('pgfleet.chains'), hashtext(v_row.owner_id::text));
  end if;

  v_row := fleet.prepared_schedule(v_old, v_row, v_now);
  if v_old.status <> 'cancelled' and fleet.timing_changed(v_old, v_row) then
    perform fleet.skip_due(v_old, v_now, case v_old.status when 'paused' then 'paused' else 'the times were changed' end);
  elsif v_old.status = 'active' and v_row.status = 'completed' then
    perform fleet.skip_due(v_old, v_now, v_row.status_reason);
  end if;
  v_row.updated_at := now();
  return v_row;
end;
$$;

comment on function fleet.tg_prepare_schedule() is
  'Check and complete a schedule however it is written, and account for what was due by its old times. Definer: it checks the caller, then '
  'sees what the checks need to see.';
revoke all on function fleet.tg_prepare_schedule() from public, anon, authenticated, service_role;

create or replace function fleet.tg_change_schedule_status()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := clock_timestamp();
begin
  perform fleet.require_permission(old.owner_id, 'manage', format('schedule %s', old.id));
  if new.status = 'active' then
    perform fleet.require_destructive(old.owner_id, old.action_type);
  end if;
  if old.status = 'cancelled' then
    raise exception 'schedule % was cancelled', old.id
      using errcode = 'PT409', detail = 'schedule_cancelled', hint = 'Create it anew.';
  end if;

  -- What was due while it was paused is told in one row, and not made up for.
  if new.next_run_at <= v_now and new.status in ('active', 'cancelled') and new.recurrence = old.recurrence then
    perform fleet.skip_due(old, v_now, case old.status when 'active' then new.status else old.status end);
    new.next_run_at := fleet.next_due(old.recurrence, v_now);
  end if;

  if new.status = 'active' then
    new.status_reason := null;
    if new.timezone = 'device' and new.after_schedule_id is null then
      -- Its devices may have gone to other zones meanwhile.
      new.recurrence := fleet.compiled(new);
      new.next_run_at := least(new.next_run_at, fleet.next_due(new.recurrence, v_now));
    end if;
    if fleet.end_reason(new) is not null then
      new.status := 'completed';
      new.status_reason := fleet.end_reason(new);
      new.next_run_at := null;
    end if;
  elsif new.status = 'paused' then
    new.execution_count := new.execution_count - fleet.skip_waiting_runs(old.id, v_now);
  elsif new.status = 'cancelled' then
    new.next_run_at := null;
    perform fleet.cancel_runs_of(old.id, coalesce(new.status_reason, 'the schedule was cancelled'));
  end if;
  new.updated_at := now();
  return new;
end;
$$;

comment on function fleet.tg_change_schedule_status() is
  'Account for what was due during a pause; end everything of a cancelled schedule. Definer: it writes the ledger.';
revoke all on function fleet.tg_change_schedule_status() from public, anon, authenticated, service_role;

create or replace trigger schedules_02_change_status
  before update of status on public.schedules
  for each row
  when (new.status is distinct from old.status and new.status <> 'completed')
  execute function fleet.tg_change_schedule_status();

do $$
begin
  execute format(
    'create or replace trigger schedules_01_prepare before insert or update of owner_id, %s on public.schedules'
    ' for each row execute function fleet.tg_prepare_schedule()',
    (select string_agg(quote_ident(c.name), ', ') from fleet.schedule_columns() as c)
  );
end;
$$;

create or replace function fleet.tg_keep_used_calendar()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_names text;
begin
  select string_agg(format('"%s"', s.name), ', ' order by s.name) into v_names
  from public.schedules as s
  where s.owner_id = old.owner_id
    and s.status in ('active', 'paused')
    and old.id = any (fleet.blackout_ids(s.policies));
  if v_names is not null then
    raise exception 'calendar "%" is used by %', old.name, v_names
      using errcode = 'PT409', detail = 'calendar_in_use',
            hint = 'Take it out of policies.blackouts of these schedules first.';
  end if;
  return old;
end;
$$;

comment on function fleet.tg_keep_used_calendar() is
  'Keep a calendar that schedules rely on: without it they would run in the holidays. Definer: it looks at all schedules of the owner.';
revoke all on function fleet.tg_keep_used_calendar() from public, anon, authenticated, service_role;

create or replace trigger blackout_calendars_01_keep_used
  before delete on public.blackout_calendars
  for each row execute function fleet.tg_keep_used_calendar();

create or replace function fleet.tg_refresh_device_time()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owners uuid[];
  v_zones text[];
begin
  if tg_op = 'INSERT' then
    select array_agg(u.owner_id), array_agg(u.zone) into v_owners, v_zones
    from (select distinct n.owner_id, coalesce(n.timezone, 'UTC') as zone from new_rows as n) as u;
  else
    -- Being seen is no news: devices say so all the time.
    select array_agg(u.owner_id), array_agg(u.zone) into v_owners, v_zones
    from (
      select distinct n.owner_id, coalesce(n.timezone, 'UTC') as zone
      from new_rows as n
      join old_rows as o on o.id = n.id
      where (n.timezone, n.tags, n.platform, n.attributes, n.status)
        is distinct from (o.timezone, o.tags, o.platform, o.attributes, o.status)
    ) as u;
  end if;
  if v_owners is not null then
    perform fleet.refresh_device_time(fleet.device_time_schedules(v_owners, v_zones, '{}'));
  end if;
  return null;
end;
$$;

comment on function fleet.tg_refresh_device_time() is
  'Tell schedules in device time of devices in a new zone. Definer: who adds a device may not change schedules.';
revoke all on function fleet.tg_refresh_device_time() from public, anon, authenticated, service_role;

create or replace trigger devices_05_refresh_device_time_insert
  after insert on public.devices
  referencing new table as new_rows
  for each statement execute function fleet.tg_refresh_device_time();
create or replace trigger devices_05_refresh_device_time_update
  after update on public.devices
  referencing old table as old_rows new table as new_rows
  for each statement execute function fleet.tg_refresh_device_time();

create or replace function fleet.tg_refresh_zones_of_groups()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owners uuid[];
  v_groups bigint[];
begin
  if tg_table_name = 'device_groups' then
    select array_agg(distinct n.owner_id), array_agg(n.id) into v_owners, v_groups from new_rows as n;
  else
    select array_agg(distinct n.owner_id), array_agg(distinct n.group_id) into v_owners, v_groups from new_rows as n;
  end if;
  perform fleet.refresh_device_time(fleet.device_time_schedules(v_owners, '{}', v_groups));
  return null;
end;
$$;

comment on function fleet.tg_refresh_zones_of_groups() is
  'Tell schedules in device time of new members of their groups. Definer: who changes a group may not change schedules.';
revoke all on function fleet.tg_refresh_zones_of_groups() from public, anon, authenticated, service_role;

create or replace trigger device_groups_05_refresh_device_time
  after update on public.device_groups
  referencing new table as new_rows
  for each statement execute function fleet.tg_refresh_zones_of_groups();
create or replace trigger device_group_members_05_refresh_device_time
  after insert on public.device_group_members
  referencing new table as new_rows
  for each statement execute function fleet.tg_refresh_zones_of_groups();

-- Whatever changes a schedule on purpose stamps it; the engine, which moves it on, does not.
select fleet.keep_audit(
  'public.schedules', p_when => 'new.updated_at is distinct from old.updated_at or new.updated_at = now()',
  p_without => '{recurrence,next_run_at,last_executed_at,execution_count,idle_count,created_at,updated_at}'
);
select fleet.keep_audit('public.blackout_calendars');
select fleet.keep_audit('public.blackout_periods', p_verbs => '{insert,delete}');
