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
  if tg_op = 'INSERT' or new.email is distinct from old.email then
    new.verified_at := null;
  end if;
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

create or replace function fleet.tg_ask_mailbox()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.send_mailbox_code(new, clock_timestamp());
  return null;
end;
$$;

comment on function fleet.tg_ask_mailbox() is 'Ask whoever reads a mailbox whether it wants to be told. Definer: nobody else writes codes.';
revoke all on function fleet.tg_ask_mailbox() from public, anon, authenticated, service_role;

create or replace trigger webhook_endpoints_03_ask_mailbox
  after insert on public.webhook_endpoints
  for each row when (new.channel = 'email') execute function fleet.tg_ask_mailbox();
create or replace trigger webhook_endpoints_03_ask_other_mailbox
  after update of email on public.webhook_endpoints
  for each row when (new.channel = 'email' and new.email is distinct from old.email) execute function fleet.tg_ask_mailbox();

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

create or replace function fleet.tell_failed_commands(p_command_ids bigint[])
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if not fleet.is_anybody_listening() then
    return;
  end if;

  perform fleet.emit_events(
    array_agg(c.owner_id order by c.id),
    'command.failed',
    array_agg(jsonb_build_object(
      'command_id', c.id,
      'command_type', c.command_type,
      'run_id', c.run_id,
      'schedule_id', c.schedule_id,
      'device_id', c.device_id,
      'device_hostname', c.device_hostname,
      'status', c.status,
      'reason', c.reason,
      'error_message', c.error_message,
      'attempt', c.attempt
    ) order by c.id)
  )
  from public.device_commands as c
  where c.id = any (p_command_ids)
  having count(*) > 0;
end;
$$;

comment on function fleet.tell_failed_commands(bigint[]) is 'Tell of commands that failed for good or expired.';
revoke all on function fleet.tell_failed_commands(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.tg_tell_geo_action()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if fleet.is_anybody_listening() then
    perform fleet.emit_events(array[new.owner_id], 'geo_action.failed', array[jsonb_build_object(
      'geo_action_id', a.id,
      'geo_schedule_id', s.id,
      'geo_schedule_name', s.name,
      'device_id', d.id,
      'device_hostname', d.hostname,
      'apps', a.apps,
      'enforce', a.enforce,
      'starts_at', a.starts_at,
      'ends_at', a.ends_at,
      'reason', new.reason
    )])
    from public.geo_actions as a
    join public.geo_schedules as s on s.id = a.geo_schedule_id
    join public.devices as d on d.id = new.device_id
    where a.id = new.geo_action_id;
  end if;
  return null;
end;
$$;

comment on function fleet.tg_tell_geo_action() is
  'Tell of a device that does not block what it should. Definer: a device may not write deliveries.';
revoke all on function fleet.tg_tell_geo_action() from public, anon, authenticated, service_role;

create or replace trigger geo_action_reports_90_tell_insert
  after insert on public.geo_action_reports
  for each row when (new.status = 'failed')
  execute function fleet.tg_tell_geo_action();
create or replace trigger geo_action_reports_91_tell_update
  after update on public.geo_action_reports
  for each row when (new.status = 'failed' and old.status <> 'failed')
  execute function fleet.tg_tell_geo_action();

create or replace function fleet.tg_tell_clone()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if fleet.is_anybody_listening() then
    perform fleet.emit_events(array[new.owner_id], 'device.cloned', array[jsonb_build_object(
      'device_id', new.id, 'device_hostname', new.hostname, 'clone_seen_at', new.clone_seen_at
    )]);
  end if;
  return null;
end;
$$;

comment on function fleet.tg_tell_clone() is
  'Tell of a device whose disk was copied, once until it is re-keyed. Definer: whoever asks for a token may not write deliveries.';
revoke all on function fleet.tg_tell_clone() from public, anon, authenticated, service_role;

create or replace trigger devices_90_tell_clone
  after update of clone_seen_at on public.devices
  for each row
  when (old.clone_seen_at is null and new.clone_seen_at is not null)
  execute function fleet.tg_tell_clone();

select fleet.keep_audit('public.webhook_endpoints');

select fleet.keep_quota('public.webhook_endpoints', 'endpoints');
