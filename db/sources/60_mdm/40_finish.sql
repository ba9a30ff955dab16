-- How an attempt at an MDM ended: accepted, seen to be done, or failed and tried again by class of failure.

create or replace function fleet.record_mdm_accepted(p_command public.device_commands, p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  update fleet.mdm_work as w
  set accepted_at = p_now
  where w.command_id = p_command.id and w.accepted_at is null;

  -- Of a thousand devices of one schedule, not each has to stand in line for its row.
  update public.schedules as s
  set last_executed_at = p_now
  where s.id = p_command.schedule_id
    and (s.last_executed_at is null or s.last_executed_at < p_now - interval '1 second');
  perform fleet.record_profile_accepted(p_command.schedule_id, p_now);
  if p_command.command_type in ('push_profile', 'remove_profile') then
    perform fleet.store_profile_state(
      p_command.device_id, p_command.payload ->> 'profile_id', p_command.command_type = 'push_profile', null, p_now
    );
  end if;
end;
$$;

comment on function fleet.record_mdm_accepted(public.device_commands, timestamptz) is
  'A provider took a command: that is when its schedule was executed.';
revoke all on function fleet.record_mdm_accepted(public.device_commands, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.mdm_retry_at(p_work fleet.mdm_work, p_reason text, p_retry_after interval, p_now timestamptz)
returns timestamptz
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select p_now + case
    -- It is the rate that holds these up, for all commands alike: none of them has to step back more than the others.
    when p_reason = 'not_called' then interval '0'
    when p_reason = 'rate_limited' then coalesce(p_retry_after, interval '2 seconds') * (1 + 0.2 * random())
    else fleet.mdm_pause(p_work.tries + 1, p_retry_after)
  end
$$;

comment on function fleet.mdm_retry_at(fleet.mdm_work, text, interval, timestamptz) is
  'When a command is sent again after a failure that passes.';
revoke all on function fleet.mdm_retry_at(fleet.mdm_work, text, interval, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.put_back_mdm(p_command public.device_commands, p_reason text, p_error text, p_at timestamptz, p_now timestamptz)
returns public.device_commands
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_commands;
begin
  update fleet.mdm_work as w
  set tries = w.tries + (p_reason not in ('rate_limited', 'not_called', 'integration_paused'))::integer,
      unanswered_at = case when fleet.is_answerless(p_reason) then p_now else w.unanswered_at end
  where w.command_id = p_command.id;
  -- The trigger puts it back on the queue.
  update public.device_commands as c
  set status = 'pending', reason = p_reason, error_message = p_error, not_before = p_at, lease_expires_at = null
  where c.id = p_command.id
  returning * into v_row;
  return v_row;
end;
$$;

comment on function fleet.put_back_mdm(public.device_commands, text, text, timestamptz, timestamptz) is
  'Let a command wait for another attempt that does not count as a failure of the device.';
revoke all on function fleet.put_back_mdm(public.device_commands, text, text, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.takes_command_ids(p_integration_id bigint)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select 1 from public.device_integrations as i where i.id = p_integration_id and i.integration_type = 'nanomdm'
  )
$$;

comment on function fleet.takes_command_ids(bigint) is
  'Whether an MDM knows a command by our id, and so takes none twice: then any may be sent again after an answer that got lost.';
revoke all on function fleet.takes_command_ids(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.fail_mdm(
  p_command public.device_commands,
  p_work fleet.mdm_work,
  p_result jsonb,
  p_error text,
  p_reason text,
  p_retry_after interval,
  p_now timestamptz
)
returns public.device_commands
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rerun_safe boolean := fleet.takes_command_ids(p_work.integration_id)
    or exists (select 1 from public.command_types as t where t.name = p_command.command_type and t.owner_id is null and t.rerun_safe);
  v_retry_at timestamptz := fleet.mdm_retry_at(p_work, p_reason, p_retry_after, p_now);
  v_row public.device_commands;
begin
  if p_reason in ('unauthorized', 'forbidden', 'integration_paused')
    and exists (select 1 from public.device_integrations as i where i.id = p_work.integration_id and i.status <> 'active')
  then
    -- It waits with all the others until the integration goes on.
    return fleet.put_back_mdm(p_command, 'integration_paused', p_error, p_now, p_now);
  elsif fleet.is_passing_failure(p_reason, v_rerun_safe) and v_retry_at < p_command.expires_at then
    return fleet.put_back_mdm(p_command, p_reason, p_error, v_retry_at, p_now);
  end if;

  v_row := fleet.end_attempt(
    p_command, 'failed', p_result, p_error,
    -- A class that the policy would try again, but that must not be.
    case when fleet.is_answerless(p_reason) and not v_rerun_safe then 'interrupted' else p_reason end,
    p_now
  );
  if v_row.status = 'pending' then
    v_row := fleet.put_back_mdm(v_row, v_row.reason, p_error, greatest(v_row.not_before, p_now + p_retry_after), p_now);
  end if;
  return v_row;
end;
$$;

comment on function fleet.fail_mdm(public.device_commands, fleet.mdm_work, jsonb, text, text, interval, timestamptz) is
  'An attempt failed: wait, try again, or end, by the class of the failure.';
revoke all on function fleet.fail_mdm(public.device_commands, fleet.mdm_work, jsonb, text, text, interval, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.look_pause(p_since_accepted interval)
returns interval
language sql
immutable
parallel safe
-- Often at first, then less and less: a device may be off for days.
return least(greatest(p_since_accepted / 2, interval '2 seconds'), interval '15 minutes');

comment on function fleet.look_pause(interval) is 'After how long a device is looked at again, by the time since its command was accepted.';
revoke all on function fleet.look_pause(interval) from public, anon, authenticated, service_role;

create or replace function fleet.watch_mdm(
  p_command public.device_commands,
  p_result jsonb,
  p_look_after interval,
  p_now timestamptz
)
returns public.device_commands
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_commands;
begin
  update public.device_commands as c
  -- Where its lease ran out while the answer was on its way, nobody has taken it since.
  set status = 'running', lease_expires_at = greatest(c.expires_at, p_now) + interval '2 hours',
      result = coalesce(p_result, c.result), reason = null, error_message = null
  where c.id = p_command.id
  returning * into v_row;
  update fleet.mdm_work as w
  set phase = 'look', held_until = null, accepted_at = coalesce(w.accepted_at, p_now),
      due_at = p_now + coalesce(p_look_after, fleet.look_pause(interval '0')),
      give_up_at = greatest(v_row.expires_at, p_now + interval '1 hour')
  where w.command_id = p_command.id;
  return v_row;
end;
$$;

comment on function fleet.watch_mdm(public.device_commands, jsonb, interval, timestamptz) is
  'A provider has taken a command; its device is looked at until the effect shows.';
revoke all on function fleet.watch_mdm(public.device_commands, jsonb, interval, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.worker_finish_mdm(
  p_command_id bigint,
  p_attempt integer,
  p_outcome text,
  p_result jsonb default null,
  p_error text default null,
  p_reason text default null,
  p_retry_after interval default null,
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_command public.device_commands;
  v_work fleet.mdm_work;
  v_secret text;
  v_result jsonb;
  v_error text;
begin
  if p_outcome is null or p_outcome not in ('accepted', 'completed', 'failed') then
    raise exception 'p_outcome must be accepted, completed or failed, not %', coalesce(quote_literal(p_outcome), 'null')
      using errcode = 'PT422', detail = 'outcome_invalid', hint = 'accepted: the provider took it; completed: its effect was seen.';
  end if;

  select c.* into v_command from public.device_commands as c where c.id = p_command_id and c.channel = 'mdm' for update;
  if not found then
    return jsonb_build_object('accepted', false, 'reason', 'not_found');
  elsif v_command.attempt is distinct from p_attempt then
    return jsonb_build_object('accepted', false, 'reason', 'stale_attempt');
  end if;
  select w.* into v_work from fleet.mdm_work as w where w.command_id = p_command_id for update;
  perform fleet.log_callless(v_command, v_work.integration_id, coalesce(p_error, p_reason, p_outcome), p_now);
  v_secret := fleet.stored_secret('integration:' || v_work.integration_id);
  v_result := fleet.without_secret(p_result::text, v_secret)::jsonb;
  v_error := fleet.without_secret(p_error, v_secret);
  if p_outcome <> 'failed' and (v_work.command_id is not null and v_work.accepted_at is null or v_command.status = 'cancelled') then
    -- Even if it was cancelled meanwhile: the provider has it.
    perform fleet.record_mdm_accepted(v_command, p_now);
  end if;

  if v_command.status = 'cancelled' then
    return jsonb_build_object('accepted', false, 'reason', 'cancelled');
  elsif v_command.status not in ('pending', 'running') then
    -- The answer to a finish may get lost on its way: the same finish again is the same success.
    return case
      when v_command.status = p_outcome then jsonb_build_object('accepted', true, 'status', v_command.status)
      else jsonb_build_object('accepted', false, 'reason', 'already_final')
    end;
  elsif v_command.status = 'pending' and p_outcome = 'failed' then
    return jsonb_build_object('accepted', false, 'reason', 'stale_attempt');
  end if;

  case p_outcome
    when 'completed' then
      update public.device_commands as c
      set status = 'completed', reason = null, error_message = null, executed_at = p_now, result = coalesce(v_result, c.result)
      where c.id = p_command_id
      returning * into v_command;
    when 'accepted' then
      v_command := fleet.watch_mdm(v_command, v_result, p_retry_after, p_now);
    else
      v_command := fleet.fail_mdm(v_command, v_work, v_result, v_error, p_reason, p_retry_after, p_now);
  end case;
  perform fleet.cancel_failed_removals();

  return jsonb_strip_nulls(jsonb_build_object(
    'accepted', true, 'status', v_command.status,
    'retry_at', case when v_command.status = 'pending' then v_command.not_before end,
    'look_at', case
      when v_command.status = 'running' then (select w.due_at from fleet.mdm_work as w where w.command_id = p_command_id)
    end
  ));
end;
$$;

comment on function fleet.worker_finish_mdm(bigint, integer, text, jsonb, text, text, interval, timestamptz) is
  'Say how an attempt to send ended. accepted: the provider took it; it stays running, and p_retry_after says when to look at the device. '
  'completed: it is done. failed: p_reason rate_limited, not_called, not_sent, network, timeout and unavailable (5xx) are tried again until '
  'the command expires, unless it may not be repeated; error and its kin as the retry policy says; anything else is final. {accepted, '
  'status, retry_at, look_at} or {accepted: false, reason}. Definer: the worker writes no table.';
revoke all on function fleet.worker_finish_mdm(bigint, integer, text, jsonb, text, text, interval, timestamptz)
  from public, anon, authenticated, service_role;

comment on column public.schedules.last_executed_at is
  'When its latest run was started; where an MDM carries it out, when the provider last accepted.';
