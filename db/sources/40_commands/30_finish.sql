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

create or replace function fleet.is_replaced(p_status text, p_reason text)
returns boolean
language sql
immutable
parallel safe
return p_status = 'cancelled' and p_reason is not distinct from 'replaced';

comment on function fleet.is_replaced(text, text) is
  'Whether a command ended like this because a later run took its place (overlap: replace), which is no failure.';
revoke all on function fleet.is_replaced(text, text) from public, anon, authenticated, service_role;

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

create or replace function fleet.count_ended(p_command_ids bigint[])
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into fleet.run_progress (run_id, completed, failed, replaced)
  select c.run_id,
    count(*) filter (where c.status = 'completed'),
    count(*) filter (where c.status <> 'completed' and not fleet.is_replaced(c.status, c.reason)),
    count(*) filter (where fleet.is_replaced(c.status, c.reason))
  from public.device_commands as c
  where c.id = any (p_command_ids) and c.run_id is not null
  group by c.run_id;

  -- What follows device by device has this one's turn; what a later run took the place of has come to nothing.
  insert into fleet.chain_steps (owner_id, schedule_id, after_run_id, device_id)
  select s.owner_id, s.id, c.run_id, c.device_id
  from public.device_commands as c
  join public.schedules as s on s.after_schedule_id = c.schedule_id and s.owner_id = c.owner_id
  where c.id = any (p_command_ids)
    and c.run_id is not null
    and c.step = 0
    and s.after_per_device
    and s.status in ('active', 'completed')
    and not fleet.is_replaced(c.status, c.reason)
    and s.after_on in ('either', case c.status when 'completed' then 'completed' else 'failed' end);
end;
$$;

comment on function fleet.count_ended(bigint[]) is
  'Count for the runs of these commands that they became final, and let their devices go on with what follows.';
revoke all on function fleet.count_ended(bigint[]) from public, anon, authenticated, service_role;

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
  -- Pending means that its lease ran out, which was counted then.
  v_failures integer := p_command.failure_count + (p_status = 'failed' and p_command.status = 'running')::integer;
  v_policy jsonb;
  v_retry_at timestamptz;
  v_again boolean := false;
begin
  if p_status = 'failed' and v_failures < p_command.max_attempts then
    v_policy := fleet.retry_policy(p_command.schedule_id);
    v_retry_at := p_now + fleet.retry_delay(v_policy, v_failures);
    v_again := fleet.is_retryable(v_policy, p_reason) and v_retry_at < p_command.expires_at;
  end if;

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

create or replace function fleet.complete_commands(p_device_id bigint, p_ended jsonb, p_now timestamptz)
returns integer[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_done integer[];
begin
  -- What came through and is still held, in one statement; all else is looked at one by one.
  with given as materialized (
    select distinct on (g.id) g.*
    from (
      select e.n::integer as n, fleet.try_bigint(e.item ->> 'command_id') as id, fleet.try_bigint(e.item ->> 'attempt') as attempt,
        nullif(e.item -> 'result', 'null') as result, e.item ->> 'error' as error
      from jsonb_array_elements(p_ended) with ordinality as e(item, n)
      where e.item ->> 'status' = 'completed'
    ) as g
    order by g.id, g.n
  ),
  done as (
    update public.device_commands as c
    set status = 'completed', reason = null, lease_expires_at = null, executed_at = p_now, result = g.result, error_message = g.error
    from given as g
    where c.id = g.id
      and c.device_id = p_device_id
      and c.channel = 'agent'
      and c.attempt = g.attempt
      and c.status in ('pending', 'running')
      and c.lease_expires_at is not null
    returning g.n
  )
  select array_agg(d.n) into v_done from done as d;
  return coalesce(v_done, '{}');
end;
$$;

comment on function fleet.complete_commands(bigint, jsonb, timestamptz) is
  'Finish what of these results is a success of an attempt that the device still holds. Answers their places in the list.';
revoke all on function fleet.complete_commands(bigint, jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.finish_attempt(
  p_device_id bigint,
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
set search_path = pg_catalog, pg_temp
as $$
declare
  v_command public.device_commands;
  v_refusal text;
begin
  select c.* into v_command
  from public.device_commands as c
  where c.id = p_command_id and c.device_id = p_device_id and c.channel = 'agent'
  for update;
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

comment on function fleet.finish_attempt(bigint, bigint, integer, text, jsonb, text, text, timestamptz) is
  'End an attempt of a device, or say why not.';
revoke all on function fleet.finish_attempt(bigint, bigint, integer, text, jsonb, text, text, timestamptz)
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
  v_device_id bigint;
begin
  if p_status is null or p_status not in ('completed', 'failed') then
    raise exception 'p_status must be completed or failed, not %', coalesce(quote_literal(p_status), 'null')
      using errcode = 'PT422', detail = 'status_invalid', hint = 'Use extend_command to go on, release_command to give it back.';
  end if;

  v_device_id := fleet.working_device_id();
  if v_device_id is null then
    perform fleet.require_device();
  end if;
  if p_status = 'completed' then
    -- Nearly all of them: a success of an attempt that is still held.
    update public.device_commands as c
    set status = 'completed', reason = null, lease_expires_at = null, executed_at = p_now, result = p_result, error_message = p_error
    where c.id = p_command_id
      and c.device_id = v_device_id
      and c.channel = 'agent'
      and c.attempt = p_attempt
      and c.status in ('pending', 'running')
      and c.lease_expires_at is not null;
    if found then
      return '{"accepted": true, "status": "completed"}';
    end if;
  end if;
  return fleet.finish_attempt(v_device_id, p_command_id, p_attempt, p_status, p_result, p_error, p_reason, p_now);
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
return fleet.finish_command(p_command_id, p_attempt, p_status, p_result, p_error, p_reason, clock_timestamp());

comment on function public.finish_command(bigint, integer, text, jsonb, text, text) is
  'A device says how an attempt ended. {accepted: true, status} — status is pending, with retry_at, where it will be tried again — or '
  '{accepted: false, reason: stale_attempt, already_final, cancelled, not_found}. p_reason is the failure class. Raises status_invalid '
  '(PT422) or not_a_device (PT403). For several at once there is finish_commands.';
revoke all on function public.finish_command(bigint, integer, text, jsonb, text, text)
  from public, anon, authenticated, service_role;
grant execute on function public.finish_command(bigint, integer, text, jsonb, text, text)
  to authenticated, service_role;
