-- The end of an attempt: accepted once, retried by failure class.

create or replace function fleet.retry_policy(p_schedule_id bigint)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    (select fleet.effective_policies(s.policies) from public.schedules as s where s.id = p_schedule_id),
    fleet.default_policies()
  ) -> 'retry'
$$;

comment on function fleet.retry_policy(bigint) is 'How failures are tried again: by the schedule, or by default for ad-hoc commands.';
revoke all on function fleet.retry_policy(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.is_retryable(p_policy jsonb, p_reason text)
returns boolean
language sql
immutable
parallel safe
return (p_policy -> 'on') ? coalesce(p_reason, 'error');

comment on function fleet.is_retryable(jsonb, text) is
  'Whether a failure of this class is tried again. interrupted, unsupported, forbidden, invalid_payload and their kin cannot be helped.';
revoke all on function fleet.is_retryable(jsonb, text) from public, anon, authenticated, service_role;

create or replace function fleet.retry_delay(p_policy jsonb, p_failure_count integer)
returns interval
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select least(
    coalesce(
      (p_policy ->> 'backoff')::interval, make_interval(secs => fleet.setting_number('retry_backoff_seconds')::double precision)
    ) * power(2, least(greatest(p_failure_count, 1), 20) - 1),
    coalesce((p_policy ->> 'max_backoff')::interval, interval '1 hour')
  )
  -- A fleet that failed together must not come back together.
  * (1 + 0.2 * random())
$$;

comment on function fleet.retry_delay(jsonb, integer) is
  'Pause after the n-th failure: the backoff, doubling up to max_backoff, and up to a fifth more by chance.';
revoke all on function fleet.retry_delay(jsonb, integer) from public, anon, authenticated, service_role;

create or replace function fleet.end_attempt(
  p_command public.device_commands,
  p_status text,
  p_result jsonb,
  p_error text,
  p_reason text,
  p_now timestamptz
)
returns public.device_commands
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_commands;
  v_policy jsonb := fleet.retry_policy(p_command.schedule_id);
  -- Pending means that its lease ran out, which was counted then.
  v_failures integer := p_command.failure_count + (p_status = 'failed' and p_command.status = 'running')::integer;
  v_retry_at timestamptz := p_now + fleet.retry_delay(v_policy, v_failures);
  v_again boolean := p_status = 'failed'
    and fleet.is_retryable(v_policy, p_reason)
    and v_failures < p_command.max_attempts
    and v_retry_at < p_command.expires_at;
begin
  update public.device_commands as c
  set status = case when v_again then 'pending' else p_status end,
      reason = case when p_status = 'failed' then coalesce(p_reason, 'error') end,
      failure_count = v_failures,
      not_before = case when v_again then v_retry_at else c.not_before end,
      -- Whoever held it has said how it ended: nobody is owed another answer for this attempt.
      lease_expires_at = null,
      executed_at = case when v_again then null else p_now end,
      result = p_result,
      error_message = p_error
  where c.id = p_command.id
  returning * into v_row;

  if v_again and v_row.channel = 'agent' then
    perform fleet.queue_doorbells(array[v_row.id]);
  end if;
  return v_row;
end;
$$;

comment on function fleet.end_attempt(public.device_commands, text, jsonb, text, text, timestamptz) is
  'Write how an attempt ended: final, or waiting for the next one. The caller holds the row.';
revoke all on function fleet.end_attempt(public.device_commands, text, jsonb, text, text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.finish_command(
  p_command_id bigint,
  p_attempt integer,
  p_status text,
  p_result jsonb,
  p_error text,
  p_reason text,
  p_now timestamptz
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_command public.device_commands;
  v_refusal text;
begin
  if p_status is null or p_status not in ('completed', 'failed') then
    raise exception 'p_status must be completed or failed, not %', coalesce(quote_literal(p_status), 'null')
      using errcode = 'PT422', detail = 'status_invalid', hint = 'Use extend_command to go on, release_command to give it back.';
  end if;

  v_command := fleet.command_of_device(p_command_id);
  v_refusal := fleet.refusal(v_command, p_attempt);
  -- The answer to a finish may get lost on its way: the same finish again is the same success.
  if v_refusal = 'already_final' and v_command.attempt = p_attempt and v_command.status = p_status then
    return jsonb_build_object('accepted', true, 'status', v_command.status);
  elsif v_refusal = 'stale_attempt' and v_command.attempt = p_attempt and p_status = 'failed'
    and v_command.reason = fleet.cut_text(coalesce(p_reason, 'error'), fleet.limit_value('reason'))
    and v_command.error_message is not distinct from fleet.cut_text(p_error, fleet.limit_value('error'))
  then
    return jsonb_build_object('accepted', true, 'status', v_command.status, 'retry_at', v_command.not_before);
  elsif v_refusal is not null then
    return jsonb_build_object('accepted', false, 'reason', v_refusal);
  end if;

  v_command := fleet.end_attempt(v_command, p_status, p_result, p_error, p_reason, p_now);
  return jsonb_build_object('accepted', true, 'status', v_command.status)
    || case
      when v_command.status = 'pending' then jsonb_build_object('retry_at', v_command.not_before)
      else '{}'
    end;
end;
$$;

comment on function fleet.finish_command(bigint, integer, text, jsonb, text, text, timestamptz) is
  'See public.finish_command. Definer: a device may not write the table but through this.';
revoke all on function fleet.finish_command(bigint, integer, text, jsonb, text, text, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.finish_command(bigint, integer, text, jsonb, text, text, timestamptz)
  to authenticated, service_role;

create or replace function public.finish_command(
  p_command_id bigint,
  p_attempt integer,
  p_status text,
  p_result jsonb default null,
  p_error text default null,
  p_reason text default null
)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.finish_command(p_command_id, p_attempt, p_status, p_result, p_error, p_reason, clock_timestamp())
$$;

comment on function public.finish_command(bigint, integer, text, jsonb, text, text) is
  'A device says how an attempt ended. {accepted: true, status} — status is pending, with retry_at, where it will be tried again — or '
  '{accepted: false, reason: stale_attempt, already_final, cancelled, not_found}. p_reason is the failure class. Raises status_invalid '
  '(PT422) or not_a_device (PT403).';
revoke all on function public.finish_command(bigint, integer, text, jsonb, text, text)
  from public, anon, authenticated, service_role;
grant execute on function public.finish_command(bigint, integer, text, jsonb, text, text)
  to authenticated, service_role;
