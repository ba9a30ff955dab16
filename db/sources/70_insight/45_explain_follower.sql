-- Why a schedule did not follow another one.

create or replace function fleet.explain_unfollowed(p_schedule public.schedules, p_at timestamptz)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_run public.schedule_runs := fleet.run_at(p_schedule.after_schedule_id, p_at);
  v_status text := fleet.status_at(p_schedule, coalesce(v_run.finished_at, p_at));
  v_name text := (select s.name from public.schedules as s where s.id = p_schedule.after_schedule_id);
begin
  return case
    when v_run.id is null then fleet.answer('not due', 'it has no instants of its own', format(
      'it runs when a run of "%s" has %s', v_name, fleet.ending_text(p_schedule.after_on)
    ))
    when v_run.status in ('pending', 'running') then fleet.answer(
      'waiting', 'the run before it has not ended', format('run %s of "%s" is still %s', v_run.id, v_name, v_run.status)
    )
    when v_run.status not in ('completed', 'failed') or p_schedule.after_on not in ('either', v_run.status) then fleet.answer(
      'not due', format('the run before it %s', case v_run.status
        when 'completed' then 'completed' when 'failed' then 'failed' else 'was ' || v_run.status
      end),
      format('run %s of "%s"%s; it follows only a run that has %s', v_run.id, v_name, ': ' || v_run.reason,
        fleet.ending_text(p_schedule.after_on))
    )
    when v_run.finished_at < p_schedule.created_at then fleet.answer(
      'before start', 'the schedule did not exist yet', format('run %s of "%s" had ended before', v_run.id, v_name)
    )
    when v_status = 'paused' then fleet.answer('paused', coalesce(p_schedule.status_reason, 'paused'), 'it was paused when it would have followed')
    when v_status = 'cancelled' then fleet.answer('cancelled', coalesce(p_schedule.status_reason, 'the schedule was cancelled'), 'it was cancelled before')
    when v_status = 'completed' then fleet.answer('ended', coalesce(p_schedule.status_reason, 'completed'), 'it had ended before')
    when fleet.times_changed_after(p_schedule, v_run.finished_at) is not null then fleet.answer(
      'not due', 'its times have changed since', 'it did not follow that schedule then, or not that ending'
    )
    else fleet.answer('unknown', 'its row is gone from the ledger', 'somebody with the right to has deleted it')
  end;
end;
$$;

comment on function fleet.explain_unfollowed(public.schedules, timestamptz) is
  'The answer for a schedule that follows another one and has no run for that instant.';
revoke all on function fleet.explain_unfollowed(public.schedules, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.ending_text(p_after_on text)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case p_after_on when 'either' then 'completed or failed' else p_after_on end
$$;

comment on function fleet.ending_text(text) is 'How a run must end for another to follow, in words.';
revoke all on function fleet.ending_text(text) from public, anon, authenticated, service_role;
