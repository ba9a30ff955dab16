-- Why a schedule ran at an instant, or did not.

create or replace function fleet.answer(p_verdict text, p_reason text, p_detail text)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object('verdict', p_verdict, 'reason', p_reason, 'detail', p_detail)
$$;

comment on function fleet.answer(text, text, text) is
  'A verdict in a word or two, its reason in a few words, and a sentence with what is known beyond that.';
revoke all on function fleet.answer(text, text, text) from public, anon, authenticated, service_role;

create or replace function fleet.run_at(p_schedule_id bigint, p_at timestamptz)
returns public.schedule_runs
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select r.*
  from public.schedule_runs as r
  left join public.schedule_runs as a on a.id = r.after_run_id
  where r.schedule_id = p_schedule_id
    and (
      r.scheduled_for = p_at
      or (r.missed_from <= p_at and p_at <= r.missed_to)
      or a.scheduled_for = p_at
      -- Runs by hand and in chains have instants of microseconds, which nobody types.
      or (r.trigger in ('manual', 'chain') and date_trunc('second', r.scheduled_for) = p_at)
    )
  -- What ran at the instant comes before what the clocks left out there.
  order by r.scheduled_for = p_at desc, r.reason is distinct from 'the clocks skip this local time' desc, r.missed_from is null desc, r.id
  limit 1
$$;

comment on function fleet.run_at(bigint, timestamptz) is
  'What the ledger says of an instant: its row, the range that covers it, the run that followed the one of that instant, or one that was '
  'started within that second.';
revoke all on function fleet.run_at(bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.run_facts(p_run public.schedule_runs)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_run.id is not null then jsonb_strip_nulls(jsonb_build_object(
      'id', p_run.id, 'scheduled_for', p_run.scheduled_for, 'trigger', p_run.trigger, 'status', p_run.status,
      'reason', p_run.reason, 'targeted', p_run.targeted, 'completed', p_run.completed, 'failed', p_run.failed,
      'skipped', p_run.skipped, 'replaced', nullif(p_run.replaced, 0), 'dst_rule', p_run.dst_rule, 'zones', p_run.zones, 'not_before', p_run.not_before,
      'missed_from', p_run.missed_from, 'missed_to', p_run.missed_to, 'missed_count', p_run.missed_count,
      'after_run_id', p_run.after_run_id, 'error_message', p_run.error_message, 'started_at', p_run.started_at,
      'finished_at', p_run.finished_at
    ))
  end
$$;

comment on function fleet.run_facts(public.schedule_runs) is 'What an explanation shows of a run; null where there is none.';
revoke all on function fleet.run_facts(public.schedule_runs) from public, anon, authenticated, service_role;

create or replace function fleet.explain_schedule(
  p_schedule_id bigint,
  p_at timestamptz,
  p_device_id bigint,
  p_now timestamptz
)
returns jsonb
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_schedule public.schedules := fleet.schedule_in_view(p_schedule_id);
  v_run public.schedule_runs := fleet.run_at(p_schedule_id, p_at);
  v_device public.devices;
  v_answer jsonb;
begin
  if p_at is null or not isfinite(p_at) then
    raise exception 'p_at: is not an instant'
      using errcode = 'PT422', detail = 'argument_invalid', hint = 'Write it like "2026-03-01T05:30:00Z".';
  end if;
  if v_schedule.timezone = 'device' and v_schedule.after_schedule_id is null then
    v_answer := fleet.explain_on_walls(v_schedule, p_at, p_device_id, p_now);
    if v_answer is not null then
      return v_answer;
    end if;
  end if;
  v_answer := case
    when v_run.id is not null then fleet.explain_run(v_schedule, v_run, p_at, p_now)
    else fleet.explain_absence(v_schedule, p_at, p_now)
  end;

  if p_device_id is not null then
    v_device := fleet.device_in_view(p_device_id, v_schedule.owner_id);
    v_answer := fleet.explain_device(v_schedule, v_run, v_device, p_at, v_answer, p_now)
      || jsonb_build_object('device_id', v_device.id, 'hostname', v_device.hostname);
  end if;

  return jsonb_build_object(
      'schedule_id', v_schedule.id, 'schedule', v_schedule.name, 'at', p_at,
      'local_time', fleet.local_times(p_at, coalesce(v_run.zones, array[fleet.reference_zone(v_schedule)])),
      'run', fleet.run_facts(v_run)
    )
    || v_answer;
end;
$$;

comment on function fleet.explain_schedule(bigint, timestamptz, bigint, timestamptz) is
  'See public.explain_schedule. Definer: it checks the caller first, then sees what the explanation needs.';
revoke all on function fleet.explain_schedule(bigint, timestamptz, bigint, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.explain_schedule(bigint, timestamptz, bigint, timestamptz) to authenticated, service_role;

create or replace function public.explain_schedule(
  p_schedule_id bigint,
  p_at timestamptz,
  p_device_id bigint default null,
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.explain_schedule(p_schedule_id, fleet.calendar_instant(p_at), p_device_id, fleet.calendar_instant(p_now))
$$;

comment on function public.explain_schedule(bigint, timestamptz, bigint, timestamptz) is
  'Whether a schedule ran at an instant, on a device or at all, and why not: {verdict, reason, detail, local_time, run?, command?, '
  'nearest?}. Verdicts: ran, running, waiting, failed, error, replaced, paused, overlap, skipped, outside window, blackout, missed, no targets, not yet due, '
  'not due, before start, ended, max runs, cancelled, expired, not a target, added later, retired; unknown only when the ledger has lost '
  'it. Raises schedule_not_found or device_not_found (PT404).';
revoke all on function public.explain_schedule(bigint, timestamptz, bigint, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function public.explain_schedule(bigint, timestamptz, bigint, timestamptz) to authenticated, service_role;

create or replace function fleet.explain_run(
  p_schedule public.schedules,
  p_run public.schedule_runs,
  p_at timestamptz,
  p_now timestamptz
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_final bigint := p_run.completed + p_run.failed + p_run.replaced;
begin
  return case p_run.status
    when 'completed' then fleet.answer('ran', 'completed', format('%s of %s commands completed', p_run.completed, p_run.targeted))
    when 'cancelled' then case p_run.reason
      when 'replaced' then fleet.answer('replaced', 'replaced', 'a later run took its place on every device (overlap: replace)')
      else fleet.answer('cancelled', p_run.reason, 'it was cancelled before any device had its command')
    end
    when 'skipped' then fleet.explain_skip(p_schedule, p_run, p_at)
    when 'failed' then case p_run.reason
      when 'error' then fleet.answer('error', 'error', p_run.error_message)
      else fleet.answer('ran', p_run.reason, 'the run is over and counts as failed; ask for one device to know more')
    end
    else case
      when p_run.expanded_at is null and p_run.not_before > p_now then fleet.explain_delay(p_schedule, p_run)
      when p_run.expanded_at is null
        then fleet.answer('running', 'its commands are being made', format('%s were made so far', p_run.targeted))
      when p_run.not_before > p_now then fleet.explain_delay(p_schedule, p_run)
      else fleet.answer('running', format('%s of %s commands are final', v_final, p_run.targeted),
        format('the rest may start until %s', fleet.local_times(p_run.expires_at, array[fleet.reference_zone(p_schedule)])))
    end
  end;
end;
$$;

comment on function fleet.explain_run(public.schedules, public.schedule_runs, timestamptz, timestamptz) is
  'The answer for an instant that is in the ledger.';
revoke all on function fleet.explain_run(public.schedules, public.schedule_runs, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.explain_delay(p_schedule public.schedules, p_run public.schedule_runs)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.answer(
    'waiting',
    case
      when fleet.waits_for_window(fleet.window_list(fleet.effective_policies(p_schedule.policies)), 'schedule')
        then 'the execution window is closed'
      else 'catching up is paced'
    end,
    format('it starts on %s', fleet.local_times(p_run.not_before, array[fleet.reference_zone(p_schedule)]))
  )
$$;

comment on function fleet.explain_delay(public.schedules, public.schedule_runs) is 'The answer for a run that is not to start yet.';
revoke all on function fleet.explain_delay(public.schedules, public.schedule_runs)
  from public, anon, authenticated, service_role;
