-- What became of the command of one device.

create or replace function fleet.command_facts(p_command public.device_commands)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_strip_nulls(jsonb_build_object(
    'id', p_command.id, 'status', p_command.status, 'reason', p_command.reason, 'not_before', p_command.not_before,
    'expires_at', p_command.expires_at, 'waits_for', p_command.waits_for, 'attempt', p_command.attempt,
    'failure_count', p_command.failure_count, 'max_attempts', p_command.max_attempts, 'claimed_at', p_command.claimed_at,
    'lease_expires_at', p_command.lease_expires_at, 'executed_at', p_command.executed_at,
    'error_message', p_command.error_message, 'result', p_command.result
  ))
$$;

comment on function fleet.command_facts(public.device_commands) is 'What an explanation shows of a command.';
revoke all on function fleet.command_facts(public.device_commands) from public, anon, authenticated, service_role;

create or replace function fleet.explain_command(
  p_schedule public.schedules,
  p_run public.schedule_runs,
  p_command public.device_commands,
  p_device public.devices,
  p_now timestamptz
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_zones text[] := array[fleet.reference_zone(p_schedule)];
  v_seen text := coalesce('last seen on ' || fleet.local_times(p_device.last_seen, v_zones), 'never seen');
begin
  return case p_command.status
    when 'completed' then fleet.answer('ran', 'completed', format(
      'completed on %s, at attempt %s', fleet.local_times(p_command.executed_at, v_zones), p_command.attempt
    ))
    when 'failed' then fleet.answer('failed', coalesce(p_command.reason, 'error'), concat_ws('; ',
      p_command.error_message, format('%s of %s attempts failed', p_command.failure_count, p_command.max_attempts)
    ))
    when 'expired' then fleet.answer('expired', coalesce(p_command.reason, 'expired'), format(
      'it was not carried out before %s; the device was %s', fleet.local_times(p_command.expires_at, v_zones), v_seen
    ))
    when 'cancelled' then fleet.answer('cancelled', coalesce(p_command.reason, 'cancelled'), case p_command.reason
      when 'replaced' then 'a later run took its place (overlap: replace)'
    end)
    when 'running' then fleet.answer('running', 'the device has it', format(
      'taken on %s, attempt %s; the device was %s', fleet.local_times(p_command.claimed_at, v_zones), p_command.attempt, v_seen
    ))
    else fleet.explain_waiting(p_schedule, p_run, p_command, v_seen, p_now)
  end;
end;
$$;

comment on function fleet.explain_command(
  public.schedules, public.schedule_runs, public.device_commands, public.devices, timestamptz
) is 'The answer for a device that has a command of the run: its state and why.';
revoke all on function fleet.explain_command(
  public.schedules, public.schedule_runs, public.device_commands, public.devices, timestamptz
) from public, anon, authenticated, service_role;

create or replace function fleet.explain_waiting(
  p_schedule public.schedules,
  p_run public.schedule_runs,
  p_command public.device_commands,
  p_seen text,
  p_now timestamptz
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_policies jsonb := fleet.effective_policies(p_schedule.policies);
  v_start text := fleet.local_times(p_command.not_before, array[fleet.reference_zone(p_schedule)]);
begin
  return case
    when p_command.expires_at <= p_now then fleet.answer(
      'expired', 'expired', 'nobody started it in time; the next tick closes it; the device was ' || p_seen
    )
    when exists (
      select 1 from public.device_commands as w where w.id = p_command.waits_for and w.status in ('pending', 'running')
    ) then fleet.answer('waiting', 'buffered', format(
      'it starts when command %s of an earlier run is final (%s)', p_command.waits_for,
      case
        when v_policies ->> 'overlap' = 'buffer_one' then 'overlap: buffer_one'
        else 'catchup: all'
      end
    ))
    when p_command.not_before > p_now then case
      when p_command.failure_count > 0 then fleet.answer('waiting', 'retry', format(
        'attempt %s failed (%s); the next one on %s', p_command.attempt, coalesce(p_command.reason, 'error'), v_start
      ))
      when p_run.not_before > p_now then fleet.explain_delay(p_schedule, p_run)
      when v_policies ->> 'jitter' is not null then fleet.answer('waiting', 'jitter', format(
        'its slot within %s is on %s', v_policies ->> 'jitter', v_start
      ))
      when fleet.waits_for_window(fleet.window_list(v_policies), 'device') then fleet.answer(
        'waiting', 'the execution window is closed', format('it opens for the device on %s', v_start)
      )
      else fleet.answer('waiting', 'not before', format('it starts on %s', v_start))
    end
    else fleet.answer('waiting', 'the device has not asked for it', format(
      'it may until %s; the device was %s',
      fleet.local_times(p_command.expires_at, array[fleet.reference_zone(p_schedule)]), p_seen
    ))
  end;
end;
$$;

comment on function fleet.explain_waiting(
  public.schedules, public.schedule_runs, public.device_commands, text, timestamptz
) is 'The answer for a command that no device has started: what it waits for.';
revoke all on function fleet.explain_waiting(
  public.schedules, public.schedule_runs, public.device_commands, text, timestamptz
) from public, anon, authenticated, service_role;
