-- Pausing, resuming and cancelling: what becomes of what is due and of what is on its way.

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

create or replace function fleet.skip_due(p_schedule public.schedules, p_now timestamptz, p_reason text)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_to timestamptz := p_now + interval '1 microsecond';
  v_run fleet.run_booking;
begin
  if p_schedule.next_run_at is null or p_schedule.next_run_at > p_now then
    return;
  end if;
  v_run.schedule_id := p_schedule.id;
  v_run.scheduled_for := p_schedule.next_run_at;
  v_run.trigger := 'schedule';
  v_run.status := 'skipped';
  v_run.reason := p_reason;
  v_run.missed_from := p_schedule.next_run_at;
  v_run.missed_to := coalesce(fleet.last_occurrence(p_schedule.recurrence, p_schedule.next_run_at, v_to), p_schedule.next_run_at);
  v_run.missed_count := greatest(fleet.count_due(p_schedule.recurrence, p_schedule.next_run_at, v_to), 1);
  perform fleet.book_runs(array[v_run], p_now);
end;
$$;

comment on function fleet.skip_due(public.schedules, timestamptz, text) is
  'Account in one row for what is due and will not run, because of a pause or a change.';
revoke all on function fleet.skip_due(public.schedules, timestamptz, text) from public, anon, authenticated, service_role;

create or replace function fleet.skip_waiting_runs(p_schedule_id bigint, p_now timestamptz)
returns bigint
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  with skipped as (
    update public.schedule_runs as r
    set status = 'skipped', reason = 'paused', expanded_at = p_now, finished_at = p_now
    where r.schedule_id = p_schedule_id
      and r.status = 'pending'
      and r.expanded_at is null
      and r.not_before > p_now
    returning r.id
  )
  select count(*) from skipped
$$;

comment on function fleet.skip_waiting_runs(bigint, timestamptz) is
  'Skip the runs of a schedule that wait for their window or their turn when it is paused. Answers how many.';
revoke all on function fleet.skip_waiting_runs(bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.cancel_runs_of(p_schedule_id bigint, p_reason text)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
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
