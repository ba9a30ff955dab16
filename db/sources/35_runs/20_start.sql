-- From due schedules to runs in the ledger.

create or replace function fleet.start_due_runs(
  p_now timestamptz,
  p_schedule_ids bigint[] default null,
  p_limit integer default 2000
)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_due bigint[];
  v_id bigint;
  v_runs bigint[];
  v_one bigint[];
begin
  -- The lock keeps a second tick, or a trigger, from deciding about the same schedules; what it holds is skipped there.
  select array_agg(d.id) into v_due
  from (
    select s.id
    from public.schedules as s
    where s.status = 'active'
      and s.next_run_at <= p_now
      and (p_schedule_ids is null or s.id = any (p_schedule_ids))
    order by s.next_run_at
    limit p_limit
    for update skip locked
  ) as d;
  if v_due is null then
    return '{}';
  end if;

  begin
    return fleet.write_runs(v_due, p_now);
  exception
    when query_canceled or admin_shutdown or deadlock_detected then
      raise;
    when others then
      -- One of them is bad. Each by itself, so that the others do not pay for it; the error goes to its run.
      v_runs := '{}';
  end;

  foreach v_id in array v_due loop
    begin
      v_one := fleet.write_runs(array[v_id], p_now);
      v_runs := v_runs || v_one;
    exception
      when query_canceled or admin_shutdown or deadlock_detected then
        raise;
      when others then
        perform fleet.write_failed_run(v_id, p_now, sqlerrm);
    end;
  end loop;
  return v_runs;
end;
$$;

comment on function fleet.start_due_runs(timestamptz, bigint[], integer) is
  'Write the runs of the schedules that are due, at most p_limit schedules, and move them on. Answers the runs to expand. Any number '
  'of sessions may call it at once.';
revoke all on function fleet.start_due_runs(timestamptz, bigint[], integer)
  from public, anon, authenticated, service_role;

create or replace function fleet.write_runs(p_schedule_ids bigint[], p_now timestamptz)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  v_runs fleet.run_booking[];
begin
  perform fleet.refresh_union(p_schedule_ids);
  select array_agg(d order by s.id, d.scheduled_for) into v_runs
  from public.schedules as s
  cross join lateral fleet.decide_due(s, p_now) as d
  where s.id = any (p_schedule_ids);
  return fleet.book_runs(v_runs, p_now);
end;
$$;

comment on function fleet.write_runs(bigint[], timestamptz) is
  'Write into the ledger what decide_due says about these schedules, and move them on. The caller holds their rows.';
revoke all on function fleet.write_runs(bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.write_failed_run(p_schedule_id bigint, p_now timestamptz, p_error text)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_to timestamptz := p_now + interval '1 microsecond';
  v_schedule public.schedules;
  v_run fleet.run_booking;
begin
  select s.* into v_schedule from public.schedules as s where s.id = p_schedule_id;
  v_run.schedule_id := p_schedule_id;
  v_run.scheduled_for := v_schedule.next_run_at;
  v_run.trigger := 'schedule';
  v_run.status := 'failed';
  v_run.reason := 'error';
  v_run.error_message := p_error;
  begin
    v_run.next_run_at := coalesce(fleet.next_due(v_schedule.recurrence, p_now), 'infinity');
    v_run.missed_count := fleet.count_due(v_schedule.recurrence, v_schedule.next_run_at, v_to);
    if v_run.missed_count > 1 then
      v_run.missed_from := v_schedule.next_run_at;
      v_run.missed_to := fleet.last_occurrence(v_schedule.recurrence, v_schedule.next_run_at, v_to);
    else
      v_run.missed_count := null;
    end if;
  exception
    when query_canceled or admin_shutdown then
      raise;
    when others then
      -- Not even the next instant can be told: going on would repeat the error every second.
      v_run.next_run_at := null;
      v_run.missed_count := null;
      v_run.missed_from := null;
  end;

  perform fleet.book_runs(array[v_run], p_now);
  if v_run.next_run_at is null then
    update public.schedules as s
    set next_run_at = null, status = 'paused', status_reason = 'its recurrence cannot be computed: ' || p_error
    where s.id = p_schedule_id;
  end if;
end;
$$;

comment on function fleet.write_failed_run(bigint, timestamptz, text) is
  'Write the error of a schedule as a failed run and let it go on at its next instant; pause it where there is no telling.';
revoke all on function fleet.write_failed_run(bigint, timestamptz, text)
  from public, anon, authenticated, service_role;
