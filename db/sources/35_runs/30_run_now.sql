-- Runs that do not wait for the tick: by hand, and what is due when it is written.

create or replace function public.run_schedule(p_schedule_id bigint, p_idempotency_key text default null)
returns public.schedule_runs
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.run_schedule(p_schedule_id, p_idempotency_key, clock_timestamp())
$$;

comment on function public.run_schedule(bigint, text) is
  'Run a schedule now, besides its due instants. It counts for max_runs; where that is reached, the run is skipped for that reason. The '
  'same key again gives the same run. Raises schedule_not_found (PT404), '
  'permission_missing (PT403) or schedule_cancelled (PT409).';
revoke all on function public.run_schedule(bigint, text) from public, anon, authenticated, service_role;
grant execute on function public.run_schedule(bigint, text) to authenticated, service_role;

create or replace function fleet.run_schedule(p_schedule_id bigint, p_idempotency_key text, p_now timestamptz)
returns public.schedule_runs
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Its lock makes two callers with the same key take turns: the second finds the run of the first.
  v_schedule public.schedules := fleet.schedule_of_caller(p_schedule_id, 'operate');
  v_run public.schedule_runs;
  v_booking fleet.run_booking;
begin
  perform fleet.require_destructive(v_schedule.owner_id, v_schedule.action_type);
  perform fleet.require_destructive_chain(v_schedule.owner_id, p_schedule_id);
  if v_schedule.status = 'cancelled' then
    raise exception 'schedule % is cancelled', p_schedule_id
      using errcode = 'PT409', detail = 'schedule_cancelled', hint = 'Create it anew.';
  end if;

  select r.* into v_run
  from public.schedule_runs as r
  where r.schedule_id = p_schedule_id and r.idempotency_key = p_idempotency_key;
  if found then
    return v_run;
  end if;

  v_booking.schedule_id := p_schedule_id;
  v_booking.scheduled_for := fleet.free_instant(v_schedule, p_now, 1);
  v_booking.trigger := 'manual';
  v_booking.reason := case when fleet.runs_left(v_schedule) <= 0 then 'max_runs reached' end;
  v_booking.status := case when v_booking.reason is null then 'pending' else 'skipped' end;
  v_booking.expires_at := fleet.run_expiry(fleet.effective_policies(v_schedule.policies), null, p_now);
  v_booking.idempotency_key := p_idempotency_key;
  perform fleet.expand_runs(
    fleet.book_runs(array[v_booking], p_now), p_now, fleet.setting_number('inline_expand_limit')::integer
  );

  select r.* into v_run
  from public.schedule_runs as r
  where r.schedule_id = p_schedule_id and r.scheduled_for = v_booking.scheduled_for and r.scheduled_local is null;
  return v_run;
end;
$$;

comment on function fleet.run_schedule(bigint, text, timestamptz) is 'See public.run_schedule. Definer: it checks the caller.';
revoke all on function fleet.run_schedule(bigint, text, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.run_schedule(bigint, text, timestamptz) to authenticated, service_role;

create or replace function fleet.run_due(p_schedule_ids bigint[], p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_runs bigint[] := fleet.start_due_runs(p_now, p_schedule_ids);
  v_limit integer := fleet.setting_number('inline_expand_limit')::integer;
begin
  v_runs := v_runs[1:v_limit];
  if cardinality(v_runs) > 0 then
    perform fleet.expand_runs(v_runs, p_now, v_limit / cardinality(v_runs));
  end if;
end;
$$;

comment on function fleet.run_due(bigint[], timestamptz) is
  'Run what is due of these schedules now, up to the setting inline_expand_limit; the tick does the rest.';
revoke all on function fleet.run_due(bigint[], timestamptz) from public, anon, authenticated, service_role;
