-- Telling of what happened: the changes of state that endpoints may hear of. Where nobody listens, one look at a small table.

create or replace function fleet.is_anybody_listening()
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (select 1 from public.webhook_endpoints as e where e.enabled)
$$;

comment on function fleet.is_anybody_listening() is 'Whether any endpoint of anybody is enabled: asked before anything is put together.';
revoke all on function fleet.is_anybody_listening() from public, anon, authenticated, service_role;

create or replace function fleet.tell_runs(p_run_ids bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.emit_events(
    array_agg(r.owner_id order by r.id),
    'run.' || r.status,
    array_agg(jsonb_build_object(
      'run_id', r.id,
      'schedule_id', r.schedule_id,
      'schedule_name', s.name,
      'action_type', coalesce(r.action_type, s.action_type),
      'scheduled_for', r.scheduled_for,
      'trigger', r.trigger,
      'status', r.status,
      'reason', r.reason,
      'error_message', r.error_message,
      'targeted', r.targeted,
      'completed', r.completed,
      'failed', r.failed,
      'missed_count', r.missed_count,
      'finished_at', r.finished_at
    ) order by r.id)
  )
  from public.schedule_runs as r
  join public.schedules as s on s.id = r.schedule_id
  where r.id = any (p_run_ids)
  group by r.status
$$;

comment on function fleet.tell_runs(bigint[]) is 'Tell of runs that ended: run.completed, run.failed or run.skipped.';
revoke all on function fleet.tell_runs(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.tg_tell_new_runs()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ended bigint[];
begin
  if not fleet.is_anybody_listening() then
    return null;
  end if;

  select array_agg(n.id) into v_ended
  from new_rows as n
  where n.status in ('completed', 'failed', 'skipped');
  if v_ended is not null then
    perform fleet.tell_runs(v_ended);
  end if;
  return null;
end;
$$;

comment on function fleet.tg_tell_new_runs() is
  'Tell of runs that are over when they are written: what was missed. Definer: whoever writes them may not write deliveries.';
revoke all on function fleet.tg_tell_new_runs() from public, anon, authenticated, service_role;

create or replace function fleet.tg_tell_runs()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ended bigint[];
begin
  if not fleet.is_anybody_listening() then
    return null;
  end if;

  select array_agg(n.id) into v_ended
  from new_rows as n
  join old_rows as o on o.id = n.id
  where n.status in ('completed', 'failed', 'skipped')
    and o.status is distinct from n.status;
  if v_ended is not null then
    perform fleet.tell_runs(v_ended);
  end if;
  return null;
end;
$$;

comment on function fleet.tg_tell_runs() is 'Tell of runs that ended. Definer: whoever ends them may not write deliveries.';
revoke all on function fleet.tg_tell_runs() from public, anon, authenticated, service_role;

create or replace function fleet.tg_tell_schedules()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if not fleet.is_anybody_listening() then
    return null;
  end if;

  perform fleet.emit_events(
    array_agg(n.owner_id order by n.id),
    'schedule.' || n.status,
    array_agg(jsonb_build_object(
      'schedule_id', n.id,
      'schedule_name', n.name,
      'status', n.status,
      'reason', n.status_reason,
      'execution_count', n.execution_count
    ) order by n.id)
  )
  from new_rows as n
  join old_rows as o on o.id = n.id
  where n.status in ('paused', 'completed')
    and o.status is distinct from n.status
  group by n.status;
  return null;
end;
$$;

comment on function fleet.tg_tell_schedules() is
  'Tell of schedules that were paused or are completed. Definer: whoever changes them may not write deliveries.';
revoke all on function fleet.tg_tell_schedules() from public, anon, authenticated, service_role;

create or replace function fleet.tg_tell_commands()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if not fleet.is_anybody_listening() then
    return null;
  end if;

  perform fleet.emit_events(
    array_agg(n.owner_id order by n.id),
    'command.failed',
    array_agg(jsonb_build_object(
      'command_id', n.id,
      'command_type', n.command_type,
      'run_id', n.run_id,
      'schedule_id', n.schedule_id,
      'device_id', n.device_id,
      'device_hostname', n.device_hostname,
      'status', n.status,
      'reason', n.reason,
      'error_message', n.error_message,
      'attempt', n.attempt
    ) order by n.id)
  )
  from new_rows as n
  join old_rows as o on o.id = n.id
  where n.status in ('failed', 'expired')
    and o.status in ('pending', 'running')
  having count(*) > 0;
  return null;
end;
$$;

comment on function fleet.tg_tell_commands() is
  'Tell of commands that failed for good or expired. Definer: a device may not write deliveries.';
revoke all on function fleet.tg_tell_commands() from public, anon, authenticated, service_role;
