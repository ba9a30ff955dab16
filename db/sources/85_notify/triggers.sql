-- What holds for endpoints however a row is written, and what is told: after the triggers that do the work, which is why
-- the numbers of the latter are high.

create or replace trigger webhook_endpoints_01_fill_owner
  before insert on public.webhook_endpoints
  for each row execute function fleet.tg_owner_from_caller();

create or replace function fleet.tg_check_webhook_endpoint()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.raise_problems('the endpoint', 'webhook_endpoint_invalid', array_agg(q))
  from fleet.endpoint_problems(new) as q;
  new.updated_at := now();
  if new.enabled then
    new.disabled_reason := null;
  else
    new.disabled_reason := coalesce(new.disabled_reason, 'it was disabled by hand');
  end if;
  return new;
end;
$$;

comment on function fleet.tg_check_webhook_endpoint() is
  'Refuse endpoints that are not valid. Definer: whoever may write the table may not call what it checks with.';
revoke all on function fleet.tg_check_webhook_endpoint() from public, anon, authenticated, service_role;

create or replace trigger webhook_endpoints_02_check
  before insert or update on public.webhook_endpoints
  for each row execute function fleet.tg_check_webhook_endpoint();

create or replace function fleet.tg_make_webhook_secret()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.make_webhook_secret(new.id);
  return null;
end;
$$;

comment on function fleet.tg_make_webhook_secret() is
  'Give every webhook a secret: nothing leaves unsigned. Definer: nobody else writes secrets.';
revoke all on function fleet.tg_make_webhook_secret() from public, anon, authenticated, service_role;

create or replace trigger webhook_endpoints_03_make_secret
  after insert on public.webhook_endpoints
  for each row
  when (new.channel = 'webhook')
  execute function fleet.tg_make_webhook_secret();

create or replace function fleet.tg_end_deliveries()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  update public.webhook_deliveries as d
  set status = 'failed', next_attempt_at = null, finished_at = clock_timestamp(), last_error = 'the endpoint is disabled'
  where d.endpoint_id = new.id and d.status = 'pending';
  return null;
end;
$$;

comment on function fleet.tg_end_deliveries() is
  'End what waits for an endpoint that is disabled; it can be sent again later. Definer: nobody else writes deliveries.';
revoke all on function fleet.tg_end_deliveries() from public, anon, authenticated, service_role;

create or replace trigger webhook_endpoints_04_end_deliveries
  after update of enabled on public.webhook_endpoints
  for each row
  when (old.enabled and not new.enabled)
  execute function fleet.tg_end_deliveries();

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

create or replace trigger schedule_runs_90_tell_insert
  after insert on public.schedule_runs
  referencing new table as new_rows
  for each statement execute function fleet.tg_tell_new_runs();

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

create or replace trigger schedule_runs_90_tell_update
  after update on public.schedule_runs
  referencing old table as old_rows new table as new_rows
  for each statement execute function fleet.tg_tell_runs();

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

create or replace trigger schedules_90_tell
  after update on public.schedules
  referencing old table as old_rows new table as new_rows
  for each statement execute function fleet.tg_tell_schedules();

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

create or replace trigger device_commands_90_tell
  after update on public.device_commands
  referencing old table as old_rows new table as new_rows
  for each statement execute function fleet.tg_tell_commands();

select fleet.keep_audit('public.webhook_endpoints');
