-- What a pause, a change or the end of a schedule does to the ledger: what was due is accounted for, what waits is ended.

create or replace function fleet.book_runs(p_runs fleet.run_booking[], p_now timestamptz)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- Compiling the plan would take a hundred times as long as running it.
set jit = off
as $$
declare
  v_pending bigint[];
  v_limited bigint[];
begin
  -- What the ledger knows already does not run again.
  with booking as materialized (
    select b.* from unnest(p_runs) with ordinality as b
  ),
  booked as (
    insert into public.schedule_runs (
      schedule_id, owner_id, scheduled_for, trigger, status, reason, error_message, action_type, payload, priority,
      missed_from, missed_to, missed_count, not_before, expires_at, zones, dst_rule, after_run_id, idempotency_key,
      scheduled_local, fold, missed_to_local, started_at, finished_at, expanded_at
    )
    select s.id, s.owner_id, b.scheduled_for, b.trigger, b.status, b.reason, b.error_message, s.action_type, s.payload, s.priority,
      b.missed_from, b.missed_to, b.missed_count, b.not_before, b.expires_at, b.zones, b.dst_rule, b.after_run_id, b.idempotency_key,
      b.scheduled_local, coalesce(b.fold, 0), b.missed_to_local,
      case when b.status <> 'skipped' then p_now end,
      case when b.status <> 'pending' then p_now end,
      case when b.zone_rows is not null and b.status <> 'pending' then p_now end
    from booking as b
    join public.schedules as s on s.id = b.schedule_id
    order by b.ordinality
    on conflict do nothing
    returning id, schedule_id, status, scheduled_local, fold
  ),
  zoned as (
    insert into fleet.run_zones (run_id, due_at, starts_at, expires_at, zones, status, reason, dst_rule, expanded_at)
    select r.id, z.due_at, z.starts_at, z.expires_at, z.zones, case when z.refusal is null then 'waiting' else 'skipped' end, z.refusal,
      z.rule, case when z.refusal is not null then p_now end
    from booked as r
    join booking as b on b.schedule_id = r.schedule_id and b.scheduled_local = r.scheduled_local and b.fold = r.fold
    cross join lateral jsonb_to_recordset(b.zone_rows) as z(
      due_at timestamptz, starts_at timestamptz, expires_at timestamptz, zones text[], refusal text, rule text
    )
    where b.zone_rows is not null
  ),
  told as (
    -- Whatever follows a failure is to hear of this one.
    insert into fleet.run_progress (run_id, completed, failed)
    select b.id, 0, 0 from booked as b where b.status = 'failed'
  ),
  moved as (
    update public.schedules as s
    set next_run_at = nullif(coalesce(m.next_run_at, s.next_run_at), 'infinity'),
        execution_count = s.execution_count + m.started,
        -- What an MDM carries out is executed when the provider accepts it.
        last_executed_at = case
          when m.started > 0 and not fleet.is_mdm_action(s.action_type) then p_now else s.last_executed_at
        end,
        status = case when m.next_run_at = 'infinity' then 'completed' else s.status end,
        status_reason = case when m.next_run_at = 'infinity' then 'no due instant is left' else s.status_reason end
    from (
      select b.schedule_id, max(b.next_run_at) as next_run_at, coalesce(max(n.started), 0) as started
      from booking as b
      left join (
        select x.schedule_id, count(*) as started from booked as x where x.status <> 'skipped' group by x.schedule_id
      ) as n on n.schedule_id = b.schedule_id
      where b.next_run_at is not null or b.status <> 'skipped'
      group by b.schedule_id
    ) as m
    where s.id = m.schedule_id
  )
  select
    (select array_agg(b.id order by b.id) from booked as b where b.status = 'pending'),
    -- What a change of a schedule tells of itself moves nothing: its row belongs to that change.
    (
      select array_agg(b.schedule_id)
      from booking as b
      where (b.status = 'failed' or b.reason = 'max_runs reached' or b.zone_rows is not null)
        and (b.next_run_at is not null or b.trigger <> 'schedule')
    )
  into v_pending, v_limited;

  if v_limited is not null then
    perform fleet.end_used_up(v_limited);
  end if;
  return coalesce(v_pending, '{}');
end;
$$;

comment on function fleet.book_runs(fleet.run_booking[], timestamptz) is
  'Write runs into the ledger, which nothing else does: on time, caught up, by hand, in a chain, missed or failed. Counts those that start, '
  'and moves their schedules on. Answers the runs to expand. The caller holds the rows of the schedules.';
revoke all on function fleet.book_runs(fleet.run_booking[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.runs_left(p_schedule public.schedules)
returns bigint
language sql
immutable
parallel safe
return (p_schedule.policies ->> 'max_runs')::bigint + coalesce(p_schedule.idle_count, 0) - coalesce(p_schedule.execution_count, 0);

comment on function fleet.runs_left(public.schedules) is 'How many more runs policies.max_runs allows; null where it sets no limit.';
revoke all on function fleet.runs_left(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.end_reason(p_schedule public.schedules)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if fleet.runs_left(p_schedule) is null then
    return case
      when p_schedule.next_run_at is null and p_schedule.after_schedule_id is null then 'no due instant is left'
    end;
  end if;
  return (
    select case
      when fleet.runs_left(p_schedule) <= 0
        -- A run that turns out to reach nobody does not count.
        and not exists (
          select 1
          from public.schedule_runs as r
          where r.schedule_id = p_schedule.id
            and r.status in ('pending', 'running')
            and r.expanded_at is null
            and r.targeted = 0
            -- In device time a day passes until that is known: nothing more is booked, and what is given back opens it again.
            and r.scheduled_local is null
        )
        then 'max_runs reached'
      when p_schedule.next_run_at is null and p_schedule.after_schedule_id is null then 'no due instant is left'
    end
  );
end;
$$;

comment on function fleet.end_reason(public.schedules) is
  'Why an active schedule is completed as it stands; null where it goes on.';
revoke all on function fleet.end_reason(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.end_used_up(p_schedule_ids bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  update public.schedules as s
  set status = 'completed', status_reason = 'max_runs reached', next_run_at = null
  where s.id = any (p_schedule_ids)
    and s.status = 'active'
    and fleet.end_reason(s) = 'max_runs reached'
$$;

comment on function fleet.end_used_up(bigint[]) is 'Complete those of these schedules that have run as often as they may.';
revoke all on function fleet.end_used_up(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.count_idle_runs(p_run_ids bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  update public.schedules as s
  set idle_count = s.idle_count + g.n
  from (
    select r.schedule_id, count(*) as n from public.schedule_runs as r where r.id = any (p_run_ids) group by r.schedule_id
  ) as g
  where s.id = g.schedule_id
$$;

comment on function fleet.count_idle_runs(bigint[]) is
  'Count runs that were started and reached nobody. The caller holds the rows of the schedules.';
revoke all on function fleet.count_idle_runs(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.free_instant(p_schedule public.schedules, p_now timestamptz, p_place bigint)
returns timestamptz
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- Behind what the ledger has already, even in this microsecond; and never an instant that may be due, which are whole
  -- seconds of the clock or whole seconds from the start.
  select g.at
  from (
    select greatest(p_now, max(r.scheduled_for) + interval '1 microsecond') as at
    from public.schedule_runs as r
    where r.schedule_id = p_schedule.id
      and r.scheduled_for >= p_now
      and r.scheduled_for < p_now + interval '1 second'
  ) as f
  cross join lateral generate_series(f.at, f.at + interval '1 microsecond' * (p_place + 1), interval '1 microsecond') as g(at)
  where extract(microseconds from g.at) % 1000000 not in (0, extract(microseconds from p_schedule.start_time) % 1000000)
  order by g.at
  offset p_place - 1
  limit 1
$$;

comment on function fleet.free_instant(public.schedules, timestamptz, bigint) is
  'The n-th instant from now on that no row of the ledger has and that is never due.';
revoke all on function fleet.free_instant(public.schedules, timestamptz, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.unmoved(p_run fleet.run_booking)
returns fleet.run_booking
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  p_run.next_run_at := null;
  return p_run;
end;
$$;

comment on function fleet.unmoved(fleet.run_booking) is
  'The same booking without a word about when its schedule is due next: whoever writes the schedule at this moment says that.';
revoke all on function fleet.unmoved(fleet.run_booking) from public, anon, authenticated, service_role;

create or replace function fleet.skip_due(p_schedule public.schedules, p_now timestamptz, p_reason text)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_to timestamptz := p_now + interval '1 microsecond';
  v_run fleet.run_booking;
begin
  if p_schedule.next_run_at is null or p_schedule.next_run_at > p_now then
    return;
  elsif p_schedule.timezone = 'device' then
    perform fleet.book_runs(array_agg(row(d.*)::fleet.run_booking), p_now)
    from (
      select (fleet.unmoved(b)).* from fleet.decide_occurrences(p_schedule, p_now, p_reason) as b where b.status = 'skipped'
    ) as d;
    return;
  end if;
  v_run.schedule_id := p_schedule.id;
  v_run.scheduled_for := p_schedule.next_run_at;
  v_run.trigger := 'schedule';
  v_run.status := 'skipped';
  v_run.reason := p_reason;
  v_run.missed_from := p_schedule.next_run_at;
  v_run.missed_to := coalesce(fleet.last_occurrence(p_schedule.recurrence, p_schedule.next_run_at, v_to), p_schedule.next_run_at);
  v_run.missed_count := greatest(fleet.count_occurrences(p_schedule.recurrence, p_schedule.next_run_at, v_to), 1);
  perform fleet.book_runs(array[v_run], p_now);
end;
$$;

comment on function fleet.skip_due(public.schedules, timestamptz, text) is
  'Account in one row for what is due and will not run, because of a pause or a change.';
revoke all on function fleet.skip_due(public.schedules, timestamptz, text) from public, anon, authenticated, service_role;

create or replace function fleet.skip_waiting_runs(p_schedule_id bigint, p_now timestamptz)
returns bigint
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  with skipped as (
    update public.schedule_runs as r
    set status = 'skipped', reason = 'paused', expanded_at = p_now, finished_at = p_now
    where r.schedule_id = p_schedule_id
      and r.status = 'pending'
      and r.expanded_at is null
      and r.not_before > p_now
    returning r.id
  )
  select count(*) from skipped
$$;

comment on function fleet.skip_waiting_runs(bigint, timestamptz) is
  'Skip the runs of a schedule that wait for their window or their turn when it is paused. Answers how many.';
revoke all on function fleet.skip_waiting_runs(bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.cancel_runs_of(p_schedule_id bigint, p_reason text)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  update public.device_commands as c
  set status = 'cancelled', reason = p_reason
  where c.schedule_id = p_schedule_id and c.status = 'pending';

  -- What a tick is expanding at this moment is not waited for: its run is looked at once more when that is written.
  update public.schedule_runs as r
  set status = 'cancelled', reason = p_reason, expanded_at = now(), finished_at = now()
  where r.id in (
    select x.id
    from public.schedule_runs as x
    where x.schedule_id = p_schedule_id and x.expanded_at is null and x.status in ('pending', 'running') and x.scheduled_local is null
    for update skip locked
  );

  -- Of a run in device time the zones to come are cancelled; where it has been already it goes on.
  update fleet.run_zones as z
  set status = 'cancelled', reason = p_reason, expanded_at = now()
  where z.id in (
    select x.id
    from fleet.run_zones as x
    join public.schedule_runs as r on r.id = x.run_id
    where r.schedule_id = p_schedule_id and r.expanded_at is null and r.scheduled_local is not null and x.expanded_at is null
    for update of x, r skip locked
  );
  select fleet.close_runs(
    array(
      select r.id
      from public.schedule_runs as r
      where r.schedule_id = p_schedule_id and r.expanded_at is null and r.scheduled_local is not null
      for update skip locked
    ),
    now(),
    -- Nothing more comes of its bound, and whoever cancels it is about to write its row.
    false
  );

  insert into fleet.run_progress (run_id, completed, failed)
  select r.id, 0, 0
  from public.schedule_runs as r
  where r.schedule_id = p_schedule_id and r.expanded_at is null and r.status in ('pending', 'running')
$$;

comment on function fleet.cancel_runs_of(bigint, text) is
  'Cancel what no device has started yet; what is running may end by itself. It waits for no tick: what one holds is cancelled by the next.';
revoke all on function fleet.cancel_runs_of(bigint, text) from public, anon, authenticated, service_role;
