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
  v_row.owner_id := fleet.owner_or_own(
    coalesce(v_row.owner_id, fleet.owner_of_named(v_row.device_ids || v_row.device_id, v_row.group_ids))
  );
  perform fleet.require_permission(v_row.owner_id, 'manage', format('owner %s', v_row.owner_id));
  perform fleet.require_destructive(v_row.owner_id, v_row.action_type);
  if tg_op = 'UPDATE' then
    perform fleet.require_destructive(old.owner_id, old.action_type);
    perform fleet.require_destructive_chain(old.owner_id, old.id);
  end if;
  if v_row.after_schedule_id is distinct from v_old.after_schedule_id then
    -- Two sessions that each let one schedule follow the other would not see the circle they make.
    perform pg_advisory_xact_lock(hashtext('pgfleet.chains'), hashtext(v_row.owner_id::text));
  end if;

  v_row := fleet.prepared_schedule(v_old, v_row, v_now);
  perform fleet.require_destructive(v_row.owner_id, v_row.policies #>> '{rollout,compensate,action_type}');
  if tg_op = 'INSERT' then
    -- Nothing was due yet.
    null;
  elsif v_old.status <> 'cancelled' and fleet.timing_changed(v_old, v_row) then
    perform fleet.skip_due(v_old, v_now, case v_old.status when 'paused' then 'paused' else 'the times were changed' end);
  elsif v_old.status = 'active' and v_row.status = 'completed' then
    perform fleet.skip_due(v_old, v_now, v_row.status_reason);
  end if;
  v_row.payload := fleet.sealed(v_row.owner_id, v_row.payload);
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
  v_now timestamptz := case when old.timezone = 'device' then fleet.engine_time() else clock_timestamp() end;
begin
  perform fleet.require_permission(old.owner_id, 'manage', format('schedule %s', old.id));
  if new.status = 'active' then
    perform fleet.require_destructive(old.owner_id, old.action_type);
    perform fleet.require_destructive_chain(old.owner_id, old.id);
  end if;
  if old.status = 'cancelled' then
    raise exception 'schedule % was cancelled', old.id
      using errcode = 'PT409', detail = 'schedule_cancelled', hint = 'Create it anew.';
  end if;

  -- What was due while it was paused is told in one row, and not made up for.
  if new.next_run_at <= v_now and new.status in ('active', 'cancelled') and new.recurrence = old.recurrence then
    if new.timezone <> 'device' or new.status = 'cancelled' then
      perform fleet.skip_due(old, v_now, case old.status when 'active' then new.status else old.status end);
    end if;
    new.next_run_at := fleet.next_due(old.recurrence, fleet.schedule_zones(old), v_now);
  end if;

  if new.status = 'active' then
    new.status_reason := null;
    if new.timezone = 'device' and new.after_schedule_id is null and old.status = 'paused' then
      -- Its devices may have gone to other zones meanwhile.
      new.next_run_at := least(new.next_run_at, fleet.next_due(new.recurrence, fleet.schedule_zones(new), v_now));
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
  -- An owner goes with all that it has.
  if not exists (select 1 from public.owners as o where o.id = old.owner_id) then
    return old;
  end if;

  select string_agg(format('"%s"', s.name), ', ' order by s.name) into v_names
  from public.schedules as s
  where s.owner_id = old.owner_id
    and s.status in ('active', 'paused')
    and old.id = any (fleet.blackout_ids(s.policies));
  if v_names is not null and not fleet.is_owner_gone(old.owner_id) then
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

create or replace function fleet.tg_keep_used_group()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_names text;
begin
  -- An owner goes with all that it has.
  if not exists (select 1 from public.owners as o where o.id = old.owner_id) then
    return old;
  end if;

  select string_agg(format('"%s"', s.name), ', ' order by s.name) into v_names
  from (
    select s.name
    from public.schedules as s
    where s.owner_id = old.owner_id and s.status = 'active' and s.group_ids @> array[old.id]
    order by s.name
    limit 20
  ) as s;
  if v_names is not null then
    raise exception 'group "%" is used by %', old.name, v_names
      using errcode = 'PT409', detail = 'group_in_use',
            hint = format('Let these schedules name others first, or pause them with it: select delete_group(%s, true)', old.id);
  end if;
  return old;
end;
$$;

comment on function fleet.tg_keep_used_group() is
  'Keep a group that active schedules name: without it they would reach nobody, and nobody would know. Definer: it looks at all schedules '
  'of the owner.';
revoke all on function fleet.tg_keep_used_group() from public, anon, authenticated, service_role;

create or replace trigger device_groups_06_keep_used
  before delete on public.device_groups
  for each row execute function fleet.tg_keep_used_group();

create or replace function fleet.tg_guard_destructive_groups()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_table_name = 'device_groups' then
    if new.selector ? 'reported' and exists (
      select 1 from fleet.destructive_schedules(new.owner_id) as s where s.group_ids && array[new.id]
    ) then
      raise exception 'group "%" is wiped by a schedule: what devices report may not decide who is in it', new.name
        using errcode = 'PT422', detail = 'selector_invalid', hint = 'Use tags, platform or attributes.';
    end if;
    perform fleet.require_destructive_groups(new.owner_id, array[new.id]);
  elsif tg_table_name = 'enrollment_codes' then
    perform fleet.require_destructive_groups(new.owner_id, new.group_ids, new.tags);
  else
    perform fleet.require_destructive_groups(new.owner_id, array[new.group_id]);
  end if;
  return new;
end;
$$;

comment on function fleet.tg_guard_destructive_groups() is
  'Who puts devices where something destructive will find them needs the permission for that. Raises permission_missing (PT403). Definer: it '
  'looks at schedules that the caller may not see.';
revoke all on function fleet.tg_guard_destructive_groups() from public, anon, authenticated, service_role;

create or replace trigger device_group_members_02_guard_destructive
  before insert on public.device_group_members
  for each row when (current_setting('request.jwt.claims', true) <> '') execute function fleet.tg_guard_destructive_groups();
create or replace trigger device_groups_04_guard_destructive
  before update of selector on public.device_groups
  for each row when (new.selector is distinct from old.selector) execute function fleet.tg_guard_destructive_groups();
create or replace trigger enrollment_codes_02_guard_destructive
  before insert on public.enrollment_codes
  for each row when (new.device_id is null) execute function fleet.tg_guard_destructive_groups();

create or replace function fleet.tg_guard_destructive_selectors()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Only what a person changes: other systems and the engine are trusted with what they say.
  if fleet.current_user_id() is null then
    return new;
  end if;
  if exists (
    select 1
    from fleet.destructive_schedules(new.owner_id) as s
    where s.selector is not null
      and fleet.device_matches(s.selector, new.tags, new.platform, new.attributes, new.reported)
      and not (
        tg_op = 'UPDATE' and fleet.device_matches(s.selector, old.tags, old.platform, old.attributes, old.reported)
      )
  ) then
    perform fleet.require_permission(new.owner_id, 'destructive', format('device %s', new.id));
  end if;
  return new;
end;
$$;

comment on function fleet.tg_guard_destructive_selectors() is
  'Who makes a device one that something destructive selects needs the permission for that. Raises permission_missing (PT403). Definer: it looks '
  'at schedules that the caller may not see.';
revoke all on function fleet.tg_guard_destructive_selectors() from public, anon, authenticated, service_role;

create or replace trigger devices_04_guard_destructive_insert
  before insert on public.devices
  for each row when (current_setting('request.jwt.claims', true) <> '') execute function fleet.tg_guard_destructive_selectors();
create or replace trigger devices_04_guard_destructive_update
  before update of tags, platform, attributes on public.devices
  for each row
  when ((new.tags, new.platform, new.attributes) is distinct from (old.tags, old.platform, old.attributes))
  execute function fleet.tg_guard_destructive_selectors();

create or replace function fleet.tg_guard_destructive_ends()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- What waits for a device ends with it and has failed its run, and something may follow that.
  perform fleet.require_destructive_chain(old.owner_id, c.schedule_id, '{failed,either}')
  from (
    select distinct x.schedule_id
    from public.device_commands as x
    where x.device_id = old.id and x.status in ('pending', 'running') and x.schedule_id is not null
  ) as c;
  if tg_op = 'DELETE' then
    return old;
  end if;
  return new;
end;
$$;

comment on function fleet.tg_guard_destructive_ends() is
  'Who retires or deletes a device fails what it still had to do; where something destructive follows that, it needs the permission. Raises '
  'permission_missing (PT403). Definer: it looks at schedules that the caller may not see.';
revoke all on function fleet.tg_guard_destructive_ends() from public, anon, authenticated, service_role;

create or replace trigger devices_01_guard_destructive_retire
  before update of status on public.devices
  for each row
  when (new.status = 'retired' and old.status <> 'retired' and current_setting('request.jwt.claims', true) <> '')
  execute function fleet.tg_guard_destructive_ends();
create or replace trigger devices_01_guard_destructive_delete
  before delete on public.devices
  for each row when (current_setting('request.jwt.claims', true) <> '') execute function fleet.tg_guard_destructive_ends();

-- Whatever changes a schedule on purpose stamps it; the engine, which moves it on, does not.
select fleet.keep_audit(
  'public.schedules', p_when => 'new.updated_at is distinct from old.updated_at or new.updated_at = now()',
  p_without => '{recurrence,next_run_at,last_executed_at,execution_count,idle_count,created_at,updated_at}'
);
-- That a calendar elsewhere was looked at is no change of this one.
select fleet.keep_audit(
  'public.blackout_calendars',
  p_columns => '{name,description,url,url_timezone,skip_transparent}',
  p_without => '{looked_at,look_error,look_note,changed_at,look_next_at,look_held_until,look_attempt,look_failures,look_tag,look_modified}'
);
select fleet.keep_audit('public.blackout_periods', p_verbs => '{insert,delete}');

select fleet.keep_quota('public.schedules', 'schedules');
select fleet.keep_used_types(
  'public.schedules', 'array[x.action_type, x.policies #>> ''{rollout,compensate,action_type}'']', 'x.status in (''active'', ''paused'')'
);
-- One that had come to its end counts again where somebody brings it back.
create or replace trigger schedules_80_keep_quota_again
  after update on public.schedules
  for each row when (old.status not in ('active', 'paused') and new.status in ('active', 'paused'))
  execute function fleet.tg_keep_quota_again('schedules');
