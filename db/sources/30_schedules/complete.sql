-- Derived columns of a schedule: what follows from what was written.

create or replace function fleet.completed_schedule(p_schedule public.schedules)
returns public.schedules
language plpgsql
stable
set search_path = ''
as $$
declare
  v_row public.schedules := p_schedule;
begin
  if v_row.profile_id is not null then
    v_row.payload := v_row.payload || jsonb_build_object('profile_id', v_row.profile_id);
  else
    v_row.profile_id := v_row.payload ->> 'profile_id';
  end if;

  if v_row.device_id is not null
    and v_row.device_ids = '{}' and v_row.group_ids = '{}' and v_row.selector is null
  then
    v_row.device_ids := array[v_row.device_id];
  end if;
  v_row.device_id := case
    when cardinality(v_row.device_ids) = 1 and v_row.group_ids = '{}' and v_row.selector is null
      then v_row.device_ids[1]
  end;

  if btrim(coalesce(v_row.name, '')) = '' then
    v_row.name := concat_ws(' ', v_row.action_type, v_row.profile_id, 'on ' || v_row.device_id);
  end if;
  return v_row;
end;
$$;

comment on function fleet.completed_schedule(public.schedules) is
  'The row with profile_id and payload, and device_id and device_ids, brought to agree, and a name where none was given.';
revoke all on function fleet.completed_schedule(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.compiled(p_schedule public.schedules)
returns jsonb
language sql
stable
set search_path = ''
as $$
  select fleet.compile_recurrence(
    p_schedule.recurrence_type, p_schedule.recurrence_config, p_schedule.timezone,
    p_schedule.start_time, p_schedule.end_time,
    fleet.effective_policies(p_schedule.policies) ->> 'gap',
    fleet.effective_policies(p_schedule.policies) ->> 'fold'
  )
$$;

comment on function fleet.compiled(public.schedules) is 'The compiled recurrence of a valid schedule.';
revoke all on function fleet.compiled(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.first_due(p_schedule public.schedules, p_now timestamptz)
returns timestamptz
language sql
stable
set search_path = ''
as $$
  -- A single run is owed even when its time has passed: the ledger then says what became of it. A recurring schedule owes
  -- nothing for the time before it existed.
  select case
    when p_schedule.recurrence_type = 'once' then p_schedule.start_time
    else fleet.next_occurrence(
      p_schedule.recurrence, greatest(p_schedule.start_time, p_now) - interval '1 microsecond'
    )
  end
$$;

comment on function fleet.first_due(public.schedules, timestamptz) is
  'The first instant that a new or changed schedule is due.';
revoke all on function fleet.first_due(public.schedules, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.tg_prepare_schedule()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_row public.schedules := new;
  v_fields text[];
  v_problems text[];
  v_hints text[];
begin
  v_row.owner_id := fleet.owner_or_own(v_row.owner_id);
  perform fleet.require_permission(v_row.owner_id, 'manage', format('owner %s', v_row.owner_id));

  if tg_op = 'UPDATE' then
    -- Of two columns that say the same, the one that was changed is meant.
    if new.profile_id is not distinct from old.profile_id and new.payload is distinct from old.payload then
      v_row.profile_id := null;
    end if;
    if new.device_id is distinct from old.device_id and new.device_id is not null
      and new.device_ids = old.device_ids and old.group_ids = '{}' and old.selector is null
    then
      v_row.device_ids := '{}';
    end if;
  else
    v_row.created_by := fleet.current_user_id();
  end if;

  v_row := fleet.completed_schedule(v_row);
  perform fleet.require_destructive(v_row.owner_id, v_row.action_type);
  select array_agg(q.field), array_agg(q.problem), array_agg(q.hint)
  into v_fields, v_problems, v_hints
  from fleet.schedule_problems(v_row) as q;
  perform fleet.raise_problems('the schedule', 'schedule_invalid', v_fields, v_problems, v_hints);

  v_row.recurrence := fleet.compiled(v_row);
  if tg_op = 'INSERT' or fleet.timing_changed(old, v_row) then
    v_row.next_run_at := fleet.first_due(v_row, clock_timestamp());
    if v_row.next_run_at is null and v_row.status = 'active' then
      v_row.status := 'completed';
      v_row.status_reason := 'no due instant is left';
    elsif tg_op = 'UPDATE' and v_row.next_run_at is not null and v_row.status = 'completed' then
      v_row.status := 'active';
      v_row.status_reason := null;
    end if;
  end if;
  v_row.updated_at := now();
  return v_row;
end;
$$;

comment on function fleet.tg_prepare_schedule() is
  'Check a schedule however it is written, complete it, compile its recurrence and find its next due instant. Definer: it checks the '
  'caller, then sees what the checks need to see.';
revoke all on function fleet.tg_prepare_schedule() from public, anon, authenticated, service_role;

create or replace function fleet.timing_changed(p_old public.schedules, p_new public.schedules)
returns boolean
language sql
immutable
set search_path = ''
as $$
  select (p_old.recurrence_type, p_old.recurrence_config, p_old.start_time, p_old.end_time, p_old.timezone, p_old.recurrence)
    is distinct from
    (p_new.recurrence_type, p_new.recurrence_config, p_new.start_time, p_new.end_time, p_new.timezone, p_new.recurrence)
$$;

comment on function fleet.timing_changed(public.schedules, public.schedules) is 'Whether the due instants may have changed.';
revoke all on function fleet.timing_changed(public.schedules, public.schedules)
  from public, anon, authenticated, service_role;

create or replace function fleet.tg_change_schedule_status()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_missed bigint;
begin
  perform fleet.require_permission(old.owner_id, 'manage', format('schedule %s', old.id));
  if new.status = 'active' then
    perform fleet.require_destructive(old.owner_id, old.action_type);
  end if;
  if old.status = 'cancelled' then
    raise exception 'schedule % was cancelled', old.id
      using errcode = 'PT409', detail = 'schedule_cancelled', hint = 'Create it anew.';
  end if;

  if new.status = 'active' and old.status = 'paused' and new.next_run_at <= v_now then
    -- What was due while it was paused is told in one row, and not made up for.
    v_missed := fleet.count_occurrences(old.recurrence, old.next_run_at, v_now);
    insert into public.schedule_runs (
      schedule_id, owner_id, scheduled_for, trigger, status, reason, missed_from, missed_to, missed_count, finished_at
    )
    select old.id, old.owner_id, old.next_run_at, 'schedule', 'skipped', 'paused', old.next_run_at,
      fleet.last_occurrence(old.recurrence, old.next_run_at, v_now), greatest(v_missed, 1), v_now
    on conflict (schedule_id, scheduled_for) do nothing;
    new.next_run_at := fleet.next_occurrence(old.recurrence, v_now);
  end if;

  if new.status = 'active' then
    new.status_reason := null;
    if new.next_run_at is null then
      new.status := 'completed';
      new.status_reason := 'no due instant is left';
    end if;
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

create or replace function fleet.cancel_runs_of(p_schedule_id bigint, p_reason text)
returns void
language sql
volatile
set search_path = ''
as $$
  update public.device_commands as c
  set status = 'cancelled', reason = p_reason
  where c.schedule_id = p_schedule_id and c.status = 'pending';

  update public.schedule_runs as r
  set status = 'cancelled', reason = p_reason, expanded_at = now(), finished_at = now()
  where r.schedule_id = p_schedule_id and r.expanded_at is null and r.status in ('pending', 'running')
$$;

comment on function fleet.cancel_runs_of(bigint, text) is
  'Cancel what no device has started yet; what is running may end by itself.';
revoke all on function fleet.cancel_runs_of(bigint, text) from public, anon, authenticated, service_role;

create or replace function fleet.tg_run_due_schedules()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_due bigint[];
begin
  select array_agg(n.id) into v_due
  from new_rows as n
  where n.status = 'active' and n.next_run_at <= v_now;
  if v_due is not null then
    perform fleet.run_due(v_due, v_now);
  end if;
  return null;
end;
$$;

comment on function fleet.tg_run_due_schedules() is
  'What is due when it is inserted does not wait for the tick. Definer: people may not write runs and commands themselves.';
revoke all on function fleet.tg_run_due_schedules() from public, anon, authenticated, service_role;
