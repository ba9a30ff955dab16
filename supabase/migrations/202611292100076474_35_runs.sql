-- Generated from db/sources/35_runs by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/35_runs/10_decide.sql
-- Deciding what to do about what is due. Pure: everything is an argument, so it can be previewed and tested.

create or replace function fleet.run_expiry(
  p_policies jsonb,
  p_next timestamptz,
  p_now timestamptz
)
returns timestamptz
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_policies ->> 'expires_after' is not null then p_now + (p_policies ->> 'expires_after')::interval
    else least(p_next, p_now + interval '24 hours')
  end
$$;

comment on function fleet.run_expiry(jsonb, timestamptz, timestamptz) is
  'Until when the commands of a run that starts now may be started: expires_after, else the next due instant, at most 24 hours.';
revoke all on function fleet.run_expiry(jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.decide_due(p_schedule public.schedules, p_now timestamptz)
returns setof fleet.run_booking
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_policies jsonb := fleet.effective_policies(p_schedule.policies);
  v_due timestamptz := p_schedule.next_run_at;
  -- Within a minute a tick is on time; only then does catch-up come into it.
  v_on_time_from timestamptz := p_now - interval '1 minute';
  v_window_from timestamptz;
  v_run timestamptz[];
  v_left bigint := fleet.runs_left(p_schedule);
  v_next timestamptz := fleet.next_due(p_schedule.recurrence, p_now);
  v_booking fleet.run_booking;
begin
  v_window_from := greatest(v_due, case v_policies ->> 'catchup'
    when 'none' then v_on_time_from
    else least(v_on_time_from, p_now - (v_policies ->> 'catchup_window')::interval)
  end);
  v_run := fleet.instants_to_run(p_schedule.recurrence, v_policies, v_due, v_window_from, p_now);

  if v_run = array[v_due] and v_due >= v_on_time_from and v_left is null and p_schedule.timezone <> 'device'
    and not p_schedule.policies ?| '{blackouts,execution_window}'
  then
    -- Nearly every decision is this one, so it goes the short way.
    v_booking.schedule_id := p_schedule.id;
    v_booking.scheduled_for := v_due;
    v_booking.trigger := 'schedule';
    v_booking.status := 'pending';
    v_booking.expires_at := fleet.run_expiry(v_policies, v_next, p_now);
    v_booking.dst_rule := fleet.applied_rule(p_schedule.recurrence, v_due);
    v_booking.next_run_at := coalesce(v_next, 'infinity');
    return next v_booking;
    return;
  end if;

  -- Older than the window, or left out of it: one row for the range, whole and counted.
  if v_run[1] is distinct from v_due then
    return query
    select p_schedule.id, g.missed_from, 'schedule', 'skipped', g.reason, null,
      case when g.missed_count > 1 then g.missed_from end,
      case when g.missed_count > 1 then g.missed_to end,
      case when g.missed_count > 1 then g.missed_count end,
      null::timestamptz, null::timestamptz, null::text[], null, null::bigint, null, coalesce(v_next, 'infinity')
    from fleet.missed_range(p_schedule.recurrence, v_policies, v_due, v_window_from, v_run[1], p_now) as g;
  end if;

  return query
  select p_schedule.id, r.instant, r.trigger, case when r.refusal is null then 'pending' else 'skipped' end, r.refusal, null,
    null::timestamptz, null::timestamptz, null::bigint,
    nullif(r.starts_at, p_now),
    fleet.run_expiry(v_policies, fleet.next_due_in(p_schedule.recurrence, r.zones, r.starts_at), r.starts_at),
    r.zones, fleet.dst_rule_at(p_schedule.recurrence, r.instant), null::bigint, null, coalesce(v_next, 'infinity')
  from fleet.decide_runs(p_schedule, v_policies, v_run, v_on_time_from, v_left, p_now) as r;
end;
$$;

comment on function fleet.decide_due(public.schedules, timestamptz) is
  'What becomes of a schedule that has been due since its next_run_at: what to write into the ledger, and when it is due next. Each '
  'due instant up to p_now is in exactly one row.';
revoke all on function fleet.decide_due(public.schedules, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.decide_runs(
  p_schedule public.schedules,
  p_policies jsonb,
  p_instants timestamptz[],
  p_on_time_from timestamptz,
  p_left bigint,
  p_now timestamptz
)
returns table (instant timestamptz, trigger text, refusal text, starts_at timestamptz, zones text[])
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with due as (
    select u.instant, u.instant < p_on_time_from as is_late,
      fleet.zones_to_run(p_schedule.recurrence, p_policies, u.instant, p_now) as zones,
      fleet.zones_due(p_schedule.recurrence, u.instant) as zones_due
    from unnest(p_instants) as u(instant)
  ),
  judged as (
    select d.*, coalesce(
        case when d.zones = '{}' and d.zones_due is not null then 'superseded by a later instant' end,
        fleet.zones_refusal(p_schedule, d.zones, d.instant),
        -- What is caught up acts now, so now must be allowed as well.
        case when d.is_late then fleet.zones_refusal(p_schedule, d.zones, p_now) end
      ) as refusal
    from due as d
  ),
  paced as (
    select j.*, fleet.opening_of(p_schedule, p_now + fleet.catchup_pause(
        p_policies, case when j.is_late then count(*) filter (where j.refusal is null and j.is_late) over (order by j.instant) end
      )) as starts_at
    from judged as j
  ),
  checked as (
    select p.instant, p.is_late, p.starts_at, p.zones, p.zones_due, coalesce(
        p.refusal,
        case when p.starts_at > p_now then fleet.zones_refusal(p_schedule, p.zones, p.starts_at) end
      ) as refusal
    from paced as p
  ),
  counted as (
    select c.*, count(*) filter (where c.refusal is null) over (order by c.instant) as n
    from checked as c
  )
  select c.instant, case when c.is_late then 'catchup' else 'schedule' end,
    coalesce(c.refusal, case when c.n > p_left then 'max_runs reached' end),
    c.starts_at,
    case
      when c.refusal is not null then c.zones_due
      when p_schedule.policies ? 'blackouts'
        and c.zones is not null
        then fleet.open_zones(p_schedule, fleet.open_zones(p_schedule, c.zones, c.instant), c.starts_at)
      else c.zones
    end
  from counted as c
$$;

comment on function fleet.decide_runs(public.schedules, jsonb, timestamptz[], timestamptz, bigint, timestamptz) is
  'For each instant that is to run: on time or caught up, what refuses it, when it starts (the window opens, catching up is paced), and '
  'for the devices of which zones.';
revoke all on function fleet.decide_runs(public.schedules, jsonb, timestamptz[], timestamptz, bigint, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.catchup_pause(p_policies jsonb, p_nth bigint)
returns interval
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    interval '1 minute' / (p_policies ->> 'catchup_rate')::double precision * (greatest(p_nth, 1) - 1)::double precision,
    interval '0'
  )
$$;

comment on function fleet.catchup_pause(jsonb, bigint) is
  'How long the n-th of the runs that are caught up waits, by policies.catchup_rate. None where there is no rate or no number.';
revoke all on function fleet.catchup_pause(jsonb, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.instants_to_run(
  p_recurrence jsonb,
  p_policies jsonb,
  p_due timestamptz,
  p_window_from timestamptz,
  p_now timestamptz
)
returns timestamptz[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_last timestamptz;
begin
  if p_due >= p_window_from and coalesce(fleet.next_due(p_recurrence, p_due) > p_now, true) then
    return array[p_due];
  end if;

  if p_policies ->> 'catchup' = 'all' then
    return (
      select array_agg(o.instant order by o.instant)
      from (
        select i.instant
        from fleet.due_instants(p_recurrence, p_window_from, p_now + interval '1 microsecond') as i(instant)
        order by i.instant desc
        limit (p_policies ->> 'catchup_limit')::integer
      ) as o
    );
  end if;

  if p_recurrence ->> 'kind' = 'union' then
    -- Each zone has a latest instant of its own; from the first of them on, each instant is looked at for its zones.
    return (
      select array_agg(i.instant order by i.instant)
      from (
        select min(fleet.last_occurrence(m.member, p_window_from, p_now + interval '1 microsecond')) as from_at
        from jsonb_array_elements(p_recurrence -> 'members') as m(member)
      ) as l
      cross join lateral fleet.due_instants(p_recurrence, l.from_at, p_now + interval '1 microsecond') as i(instant)
      where l.from_at is not null
    );
  end if;

  v_last := fleet.last_occurrence(p_recurrence, p_window_from, p_now + interval '1 microsecond');
  return case when v_last is not null then array[v_last] end;
end;
$$;

comment on function fleet.instants_to_run(jsonb, jsonb, timestamptz, timestamptz, timestamptz) is
  'Which of the instants that are due do run, by the catch-up policy; null for none.';
revoke all on function fleet.instants_to_run(jsonb, jsonb, timestamptz, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.missed_range(
  p_recurrence jsonb,
  p_policies jsonb,
  p_due timestamptz,
  p_window_from timestamptz,
  p_first_run timestamptz,
  p_now timestamptz
)
returns table (missed_from timestamptz, missed_to timestamptz, missed_count bigint, reason text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select p_due,
    -- p_due is due whatever the recurrence says by now; what follows is asked from the recurrence.
    coalesce(fleet.last_occurrence(p_recurrence, p_due, w.to_at), p_due),
    greatest(fleet.count_due(p_recurrence, p_due, w.to_at), 1),
    case
      when p_policies ->> 'catchup' = 'none' then 'catch-up is off'
      when p_first_run is null or not exists (
        select 1 from fleet.due_instants(p_recurrence, greatest(p_due, p_window_from), p_first_run) limit 1
      ) and p_policies ->> 'catchup' = 'all' then 'outside the catch-up window'
      when p_policies ->> 'catchup' = 'all' then 'beyond the catch-up limit'
      else 'superseded by a later instant'
    end
  from (select coalesce(p_first_run, p_now + interval '1 microsecond') as to_at) as w
  where p_due < w.to_at
$$;

comment on function fleet.missed_range(jsonb, jsonb, timestamptz, timestamptz, timestamptz, timestamptz) is
  'The due instants that do not run, as one range: from p_due up to the first that runs, or up to now. No row where there are none.';
revoke all on function fleet.missed_range(jsonb, jsonb, timestamptz, timestamptz, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/35_runs/20_start.sql
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

-- db/sources/35_runs/30_run_now.sql
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
  where r.schedule_id = p_schedule_id and r.scheduled_for = v_booking.scheduled_for;
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

-- db/sources/35_runs/40_expand.sql
-- From runs to commands: one row for each (run, device), in chunks.

create or replace function fleet.expand_runs(p_run_ids bigint[], p_now timestamptz, p_limit integer)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_made bigint := 0;
  v_id bigint;
begin
  begin
    return fleet.write_commands(p_run_ids, p_now, p_limit);
  exception
    when query_canceled or admin_shutdown or deadlock_detected then
      raise;
    when others then
      -- One of them is bad: each by itself, and the error goes to its run.
      null;
  end;

  foreach v_id in array p_run_ids loop
    begin
      v_made := v_made + fleet.write_commands(array[v_id], p_now, p_limit);
    exception
      when query_canceled or admin_shutdown or deadlock_detected then
        raise;
      when others then
        update public.schedule_runs as r
        set status = 'failed', reason = 'error', error_message = sqlerrm, expanded_at = p_now, finished_at = p_now
        where r.id = v_id;
        -- Whatever follows a failure is to hear of this one.
        insert into fleet.run_progress (run_id, completed, failed) values (v_id, 0, 0);
        perform fleet.end_used_up(array(select r.schedule_id from public.schedule_runs as r where r.id = v_id));
    end;
  end loop;
  return v_made;
end;
$$;

comment on function fleet.expand_runs(bigint[], timestamptz, integer) is
  'Make the next commands of these runs, at most p_limit devices of each. Answers how many rows were made.';
revoke all on function fleet.expand_runs(bigint[], timestamptz, integer)
  from public, anon, authenticated, service_role;

create or replace function fleet.write_commands(p_run_ids bigint[], p_now timestamptz, p_limit integer)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- Compiling the plan would take a hundred times as long as running it.
set jit = off
as $$
declare
  v_runs bigint[] := fleet.lock_runs(p_run_ids, p_now);
  v_made bigint;
  v_nobody bigint[];
  v_limited bigint[];
begin
  with run as materialized (
    select * from fleet.runs_to_expand(v_runs, p_now)
  ),
  -- One more than the limit tells whether anything is left.
  target as materialized (
    select r.id as run_id, t.device_id, t.hostname, row_number() over (partition by r.id order by t.device_id) as n,
      r.zones is null or coalesce(t.timezone, 'UTC') = any (r.zones) as is_due,
      case
        when r.is_plain then r.starts_at
        else fleet.device_start(r.policies, r.schedule_id, t.device_id, coalesce(t.timezone, 'UTC'), r.starts_at)
      end as starts_at,
      coalesce(u.n, 0) as unfinished, u.last_id, coalesce(u.last_run_id > r.id, false) as is_overtaken
    from run as r
    cross join lateral fleet.targets(
      r.owner_id, r.device_ids, r.group_ids, r.selector, coalesce(r.expanded_to, 0), p_limit + 1
    ) as t
    -- Strict: with a null it is not even called.
    left join lateral fleet.unfinished_of(
      case when r.may_overlap then r.schedule_id end, t.device_id, r.id, p_now
    ) as u on true
  ),
  replaced as (
    update public.device_commands as c
    set status = 'cancelled', reason = 'replaced'
    from target as t
    join run as r on r.id = t.run_id
    where r.overlap = 'replace'
      and t.n <= p_limit and t.is_due and t.starts_at is not null and t.unfinished > 0
      and c.schedule_id = r.schedule_id
      and c.device_id = t.device_id
      and c.status in ('pending', 'running')
      and c.run_id < r.id
  ),
  made as (
    insert into public.device_commands (
      run_id, schedule_id, owner_id, device_id, device_hostname, channel, command_type, payload, priority, not_before,
      expires_at, max_attempts, waits_for
    )
    select r.id, r.schedule_id, r.owner_id, t.device_id, t.hostname, r.channel, r.command_type, r.payload, r.priority, t.starts_at,
      r.expires_at + (t.starts_at - r.starts_at), r.max_attempts,
      case when r.overlap = 'buffer_one' then t.last_id end
    from target as t
    join run as r on r.id = t.run_id
    where t.n <= p_limit
      and t.is_due
      and t.starts_at is not null
      and not fleet.leaves_out(r.overlap, r.max_concurrent, t.unfinished, t.is_overtaken)
    on conflict (run_id, device_id, step) do nothing
    returning run_id
  ),
  progress as (
    select r.id,
      (select count(*) from made as m where m.run_id = r.id) as made,
      -- Left out: they had enough to do, or it is not their time of day.
      count(*) filter (
        where t.starts_at is not null and fleet.leaves_out(r.overlap, r.max_concurrent, t.unfinished, t.is_overtaken)
      ) as busy,
      count(*) filter (where t.run_id is not null and t.starts_at is null) as outside,
      (select max(x.device_id) from target as x where x.run_id = r.id and x.n <= p_limit) as reached,
      not exists (select 1 from target as x where x.run_id = r.id and x.n > p_limit) as is_whole
    from run as r
    left join target as t on t.run_id = r.id and t.n <= p_limit and t.is_due
      and (t.starts_at is null or t.unfinished > 0)
    group by r.id
  ),
  counted as (
    update public.schedule_runs as r
    set targeted = r.targeted + p.made,
        skipped = r.skipped + p.busy + p.outside,
        expanded_to = coalesce(p.reached, r.expanded_to, 0),
        expanded_at = case when p.is_whole then p_now end,
        status = case when p.is_whole and r.targeted + p.made = 0 then 'skipped' else 'running' end,
        reason = case
          when not p.is_whole or r.targeted + p.made > 0 then null
          when p.outside > 0 then 'outside the execution window'
          when r.skipped + p.busy > 0 then 'overlap'
          else 'no targets'
        end,
        finished_at = case when p.is_whole and r.targeted + p.made = 0 then p_now end
    from progress as p
    where r.id = p.id
    returning r.id, r.status
  ),
  whole as (
    -- All of its commands may be final already: have the tick look at it once more.
    insert into fleet.run_progress (run_id, completed, failed)
    select p.id, 0, 0 from progress as p where p.is_whole
  )
  select
    (select count(*) from made),
    (select array_agg(n.id) from counted as n where n.status = 'skipped'),
    (select array_agg(r.schedule_id) from run as r where r.policies ->> 'max_runs' is not null)
  into v_made, v_nobody, v_limited;

  if v_nobody is not null then
    perform fleet.count_idle_runs(v_nobody);
  end if;
  if v_limited is not null then
    -- Only now is it known whether the last of them has reached somebody.
    perform fleet.end_used_up(v_limited);
  end if;
  return v_made;
end;
$$;

comment on function fleet.write_commands(bigint[], timestamptz, integer) is
  'One statement: the next devices of these runs, their commands, and how far the runs have come.';
revoke all on function fleet.write_commands(bigint[], timestamptz, integer)
  from public, anon, authenticated, service_role;

create or replace function fleet.chunk_size()
returns integer
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select greatest(1, fleet.setting_number(
    case
      when exists (
        select 1 from pg_catalog.pg_publication_tables as p
        where p.pubname = 'supabase_realtime' and p.schemaname = 'public' and p.tablename = 'device_commands'
      ) then 'expand_chunk_size_published'
      else 'expand_chunk_size'
    end
  ))::integer
$$;

comment on function fleet.chunk_size() is
  'How many commands go into one transaction; fewer while the table is published, where one transaction is one poll of Realtime.';
revoke all on function fleet.chunk_size() from public, anon, authenticated, service_role;

create or replace function fleet.expand_next(p_now timestamptz)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_chunk integer := fleet.chunk_size();
  v_small integer := 20;
  v_fresh bigint[];
  v_large bigint;
  v_made bigint := 0;
begin
  -- Small schedules never wait behind a large one: all fresh runs get their first devices, then one large run a chunk.
  select array_agg(r.id) into v_fresh
  from (
    select r.id
    from public.schedule_runs as r
    join public.schedules as s on s.id = r.schedule_id
    where r.expanded_at is null and r.status = 'pending' and coalesce(r.not_before <= p_now, true)
    order by r.priority desc, r.id
    limit greatest(v_chunk / v_small, 1)
    for no key update of r, s skip locked
  ) as r;
  if v_fresh is not null then
    v_made := fleet.expand_runs(v_fresh, p_now, v_small);
  end if;

  select r.id into v_large
  from public.schedule_runs as r
  join public.schedules as s on s.id = r.schedule_id
  where r.expanded_at is null and r.status = 'running'
  order by r.priority desc, r.targeted, r.id
  limit 1
  for no key update of r, s skip locked;
  if v_large is not null then
    v_made := v_made + fleet.expand_runs(array[v_large], p_now, v_chunk);
  end if;

  return jsonb_build_object(
    'commands', v_made,
    -- Only after some progress: what another session holds must not keep this one spinning.
    'more', (v_fresh is not null or v_large is not null) and exists (
      select 1 from public.schedule_runs as r
      where r.expanded_at is null and r.status in ('pending', 'running') and coalesce(r.not_before <= p_now, true)
    )
  );
end;
$$;

comment on function fleet.expand_next(timestamptz) is
  'One transaction''s worth of expansion. {commands, more}.';
revoke all on function fleet.expand_next(timestamptz) from public, anon, authenticated, service_role;

-- db/sources/35_runs/45_runs_to_expand.sql
-- Which runs are expanded now, and what it takes.

create or replace function fleet.runs_to_expand(p_run_ids bigint[], p_now timestamptz)
returns table (
  id bigint, owner_id uuid, schedule_id bigint, starts_at timestamptz, expires_at timestamptz, expanded_to bigint, priority smallint,
  payload jsonb, command_type text, channel text, device_ids bigint[], group_ids bigint[], selector jsonb, zones text[],
  policies jsonb, overlap text, max_concurrent bigint, max_attempts integer, is_plain boolean, may_overlap boolean
)
language sql
volatile
rows 20
set search_path = pg_catalog, pg_temp
as $$
  select r.id, r.owner_id, r.schedule_id,
    -- The slots of the jitter count from the due instant, not from the tick that came by or the chunk that a device is in.
    greatest(r.not_before, case
      when not s.policies ? 'jitter' then p_now
      when r.trigger = 'schedule' then r.scheduled_for
      else r.started_at
    end),
    r.expires_at, r.expanded_to, r.priority,
    r.payload, t.name, t.channel, s.device_ids, s.group_ids, s.selector, r.zones,
    p.policies, p.policies ->> 'overlap', (p.policies ->> 'max_concurrent')::bigint,
    (p.policies #>> '{retry,attempts}')::integer,
    not s.policies ?| '{jitter,execution_window}',
    -- Devices need a look at what they still have to do only while another run of the schedule goes on.
    exists (
      select 1 from public.schedule_runs as o
      where o.schedule_id = r.schedule_id and o.id <> r.id and o.status in ('pending', 'running')
    )
  from public.schedule_runs as r
  join public.schedules as s on s.id = r.schedule_id and s.owner_id = r.owner_id
  join public.command_types as t on t.name = r.action_type
  cross join lateral (select fleet.effective_policies(s.policies) as policies) as p
  where r.id = any (p_run_ids)
$$;

comment on function fleet.runs_to_expand(bigint[], timestamptz) is 'What it takes to expand these runs.';
revoke all on function fleet.runs_to_expand(bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.lock_runs(p_run_ids bigint[], p_now timestamptz)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_runs bigint[];
  v_gone text;
begin
  -- Two sessions never expand the same run; what is held elsewhere is expanded there. And one run of a schedule at a time,
  -- here and in other sessions: within one statement, or unseen by each other, two of them could not tell that a device is
  -- busy with the other. In a statement of its own, so that the next one sees all that was done under the lock before.
  select array_agg(l.id), min(l.gone) into v_runs, v_gone
  from (
    select r.id, case when t.name is null then r.action_type end as gone
    from public.schedule_runs as r
    join public.schedules as s on s.id = r.schedule_id
    left join public.command_types as t on t.name = r.action_type
    where r.id in (
      select min(x.id)
      from public.schedule_runs as x
      where x.id = any (p_run_ids)
        and x.expanded_at is null
        and x.status in ('pending', 'running')
        -- What waits is judged when it starts: who is busy then, and who is there.
        and coalesce(x.not_before <= p_now, true)
      group by x.schedule_id
    )
      and r.expanded_at is null
      and r.status in ('pending', 'running')
    for no key update of r, s skip locked
  ) as l;

  if v_gone is not null then
    raise exception 'command type "%" is gone', v_gone
      using errcode = 'PT409', detail = 'command_type_gone', hint = 'Make it again, or change the action_type of the schedule.';
  end if;
  return v_runs;
end;
$$;

comment on function fleet.lock_runs(bigint[], timestamptz) is
  'Those of these runs that this session expands now. Raises command_type_gone (PT409).';
revoke all on function fleet.lock_runs(bigint[], timestamptz) from public, anon, authenticated, service_role;

-- db/sources/35_runs/50_per_device.sql
-- What a run means for one device: when it starts there, and what it still has to do.

create or replace function fleet.device_start(
  p_policies jsonb,
  p_schedule_id bigint,
  p_device_id bigint,
  p_timezone text,
  p_from timestamptz
)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_windows jsonb := fleet.window_list(p_policies);
  v_start timestamptz := p_from;
begin
  if v_windows <> '[]' then
    v_start := fleet.window_opening(v_windows, 'device', p_timezone, p_from);
    if v_start > p_from and not fleet.waits_for_window(v_windows, 'device') then
      return null;
    end if;
  end if;
  if p_policies ->> 'jitter' is null then
    return v_start;
  end if;
  return v_start + fleet.jitter_slot(
    least((p_policies ->> 'jitter')::interval, fleet.room_for_jitter(v_windows, p_schedule_id, p_timezone, v_start)),
    p_schedule_id, p_device_id
  );
end;
$$;

comment on function fleet.device_start(jsonb, bigint, bigint, text, timestamptz) is
  'When a device may start: when its window opens, plus its slot of the jitter. Null where it is outside of its window and is not to wait.';
revoke all on function fleet.device_start(jsonb, bigint, bigint, text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.room_for_jitter(
  p_windows jsonb,
  p_schedule_id bigint,
  p_timezone text,
  p_start timestamptz
)
returns interval
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- A slot beyond the window would be out of bounds at every run: those devices would never have their turn.
  select least(
    fleet.window_closing(p_windows, 'device', p_timezone, p_start),
    (
      select fleet.window_closing(p_windows, 'schedule', s.timezone, p_start)
      from public.schedules as s
      where s.id = p_schedule_id and s.timezone <> 'device'
    )
  ) - p_start
  where p_windows <> '[]'
$$;

comment on function fleet.room_for_jitter(jsonb, bigint, text, timestamptz) is
  'How long the windows of a schedule and of a device stay open after p_start; null where there are none.';
revoke all on function fleet.room_for_jitter(jsonb, bigint, text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.jitter_slot(p_jitter interval, p_schedule_id bigint, p_device_id bigint)
returns interval
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  -- From a hash of both, so that a device keeps its slot, and the fleet is spread evenly.
  select p_jitter * (('x' || substr(md5(p_schedule_id || ':' || p_device_id), 1, 8))::bit(32)::bigint / 4294967296.0)
$$;

comment on function fleet.jitter_slot(interval, bigint, bigint) is
  'How much later than due a device runs a schedule: the same at each run, within the jitter.';
revoke all on function fleet.jitter_slot(interval, bigint, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.leaves_out(
  p_overlap text,
  p_max_concurrent bigint,
  p_unfinished bigint,
  p_is_overtaken boolean
)
returns boolean
language sql
immutable
parallel safe
return (
  case p_overlap
    -- Of two runs on their way, the later one has come here first: what is newer stays.
    when 'replace' then p_is_overtaken
    when 'allow' then p_unfinished >= p_max_concurrent
    when 'buffer_one' then p_unfinished >= 2
    else p_unfinished >= 1
  end
);

comment on function fleet.leaves_out(text, bigint, bigint, boolean) is
  'Whether the overlap policy leaves a device out that has so many unfinished commands of the schedule, maybe of a later run.';
revoke all on function fleet.leaves_out(text, bigint, bigint, boolean) from public, anon, authenticated, service_role;

create or replace function fleet.unfinished_of(
  p_schedule_id bigint,
  p_device_id bigint,
  p_run_id bigint,
  p_now timestamptz
)
returns table (n bigint, last_id bigint, last_run_id bigint)
language sql
stable
strict
rows 1
set search_path = pg_catalog, pg_temp
as $$
  select count(*), max(c.id), max(c.run_id)
  from public.device_commands as c
  where c.schedule_id = p_schedule_id
    and c.device_id = p_device_id
    and c.status in ('pending', 'running')
    -- What nobody may start any more keeps nobody busy: by default it expires at the very instant that is due now.
    and (c.status = 'running' or c.expires_at > p_now)
    and c.run_id <> p_run_id
$$;

comment on function fleet.unfinished_of(bigint, bigint, bigint, timestamptz) is
  'What a device has still to do for other runs of a schedule: how many commands, the last of them, and the latest run.';
revoke all on function fleet.unfinished_of(bigint, bigint, bigint, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/35_runs/60_followers.sql
-- Followers: the runs of schedules that run when a run of another one has ended.

create or replace function fleet.start_followers(p_runs bigint[], p_now timestamptz)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_runs fleet.run_booking[];
begin
  with ended as (
    select s, r.id as run_id, row_number() over (partition by s.id order by r.id) as n,
      case when s.timezone = 'device' and s.policies ? 'blackouts' then fleet.target_zones(s) end as zones,
      fleet.opening_of(s, p_now) as opens_at
    from public.schedule_runs as r
    join public.schedules as s on s.after_schedule_id = r.schedule_id and s.owner_id = r.owner_id
    where r.id = any (p_runs)
      and s.status = 'active'
      and (s.after_on = 'either' or s.after_on = r.status)
      -- A second look at the same end is harmless.
      and not exists (
        select 1 from public.schedule_runs as x
        where x.schedule_id = s.id and x.idempotency_key = 'after:' || r.id
      )
  ),
  judged as (
    select e.*, fleet.follower_refusal(e.s, e.n, e.zones, e.opens_at, p_now) as refusal
    from ended as e
  )
  select array_agg(
    row(
      (j.s).id, fleet.free_instant(j.s, p_now, j.n), 'chain', case when j.refusal is null then 'pending' else 'skipped' end, j.refusal,
      null, null, null, null, nullif(j.opens_at, p_now),
      fleet.run_expiry(fleet.effective_policies((j.s).policies), null, j.opens_at),
      case when j.zones is not null then fleet.open_zones(j.s, fleet.open_zones(j.s, j.zones, p_now), j.opens_at) end,
      null, j.run_id, 'after:' || j.run_id, null
    )::fleet.run_booking
    order by j.run_id
  )
  into v_runs
  from judged as j;
  return case when v_runs is null then 0 else cardinality(fleet.book_runs(v_runs, p_now)) end;
end;
$$;

comment on function fleet.start_followers(bigint[], timestamptz) is
  'Write the runs of the schedules that follow these ended runs. Answers how many; the tick expands them.';
revoke all on function fleet.start_followers(bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.follower_refusal(
  p_schedule public.schedules,
  p_nth bigint,
  p_zones text[],
  p_opens_at timestamptz,
  p_now timestamptz
)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_nth > fleet.runs_left(p_schedule) then 'max_runs reached'
    when p_now < p_schedule.start_time then 'the schedule has not begun'
    when p_now > p_schedule.end_time then 'the schedule has ended'
    else coalesce(
      fleet.zones_refusal(p_schedule, p_zones, p_now),
      case when p_opens_at > p_now then fleet.zones_refusal(p_schedule, p_zones, p_opens_at) end
    )
  end
$$;

comment on function fleet.follower_refusal(public.schedules, bigint, text[], timestamptz, timestamptz) is
  'Why a schedule does not follow now, as the n-th time at once: max_runs, its bounds, a blackout or its execution window; null where it '
  'does.';
revoke all on function fleet.follower_refusal(public.schedules, bigint, text[], timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/35_runs/70_settle.sql
-- The end of runs: counted, judged, and passed on to what follows.

create or replace function fleet.settle_runs(p_now timestamptz, p_limit integer default 20000)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ended bigint[] := fleet.add_progress(p_now, p_limit);
begin
  if v_ended is null then
    return 0;
  end if;

  perform fleet.start_followers(v_ended, p_now);
  perform fleet.pause_failing(v_ended);
  return cardinality(v_ended);
end;
$$;

comment on function fleet.settle_runs(timestamptz, integer) is
  'Add finished commands to their runs, end the runs that are through, start what follows them, pause what keeps failing. Answers how '
  'many ended.';
revoke all on function fleet.settle_runs(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.add_progress(p_now timestamptz, p_limit integer)
returns bigint[]
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  with taken as (
    delete from fleet.run_progress as p
    where p.id in (select x.id from fleet.run_progress as x order by x.id limit p_limit for update skip locked)
    returning p.run_id, p.completed, p.failed
  ),
  -- Only runs of which something was heard: a tick costs what happened, not what is open. Counters and end in one statement,
  -- so that of two sessions the later one sees the sum.
  told as (
    update public.schedule_runs as r
    set completed = r.completed + a.completed,
        failed = r.failed + a.failed,
        (status, reason, finished_at) = (
          select o.status, o.reason, o.finished_at
          from fleet.run_outcome(r, r.completed + a.completed, r.failed + a.failed, p_now) as o
        )
    from (
      select t.run_id, sum(t.completed) as completed, sum(t.failed) as failed,
        bool_or(t.completed = 0 and t.failed = 0) as is_told_to_end
      from taken as t
      group by t.run_id
    ) as a
    where r.id = a.run_id
    returning r.id, a.is_told_to_end, r.reason,
      r.status in ('completed', 'failed') and r.finished_at = p_now as is_over_now
  )
  -- What failed with an error was over before it came here.
  select array_agg(t.id) from told as t where t.is_over_now or (t.is_told_to_end and t.reason = 'error')
$$;

comment on function fleet.add_progress(timestamptz, integer) is
  'Add what finished since the last tick to the counters of the runs, and end those that are through. Answers which.';
revoke all on function fleet.add_progress(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.run_outcome(
  p_run public.schedule_runs,
  p_completed bigint,
  p_failed bigint,
  p_now timestamptz
)
returns table (status text, reason text, finished_at timestamptz)
language sql
immutable
rows 1
set search_path = pg_catalog, pg_temp
as $$
  select case when not o.is_over then p_run.status when p_failed = 0 then 'completed' else 'failed' end,
    case
      when not o.is_over then p_run.reason
      when p_failed > 0 then format('%s of %s commands did not complete', p_failed, p_run.targeted)
    end,
    case when o.is_over then p_now else p_run.finished_at end
  from (
    select p_run.status = 'running' and p_run.expanded_at is not null and p_completed + p_failed >= p_run.targeted as is_over
  ) as o
$$;

comment on function fleet.run_outcome(public.schedule_runs, bigint, bigint, timestamptz) is
  'What a run comes to with so many commands completed and failed: the end, or what it was.';
revoke all on function fleet.run_outcome(public.schedule_runs, bigint, bigint, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.pause_failing(p_runs bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  update public.schedules as s
  set status = 'paused',
      status_reason = case s.policies ->> 'pause_on_failure'
        when '1' then 'a run failed (pause_on_failure)'
        else format('%s runs in a row failed (pause_on_failure)', s.policies ->> 'pause_on_failure')
      end
  where s.id in (select r.schedule_id from public.schedule_runs as r where r.id = any (p_runs) and r.status = 'failed')
    and s.status = 'active'
    and (s.policies ->> 'pause_on_failure')::integer <= (
      -- How many of the latest runs failed, before one that did not.
      select count(*) filter (where f.failed_so_far)
      from (
        select bool_and(h.status = 'failed') over (order by h.finished_at desc, h.id desc) as failed_so_far
        from (
          select r.id, r.status, r.finished_at
          from public.schedule_runs as r
          where r.schedule_id = s.id and r.status in ('completed', 'failed')
          order by r.finished_at desc, r.id desc
          limit (s.policies ->> 'pause_on_failure')::integer
        ) as h
      ) as f
    )
$$;

comment on function fleet.pause_failing(bigint[]) is
  'Pause the schedules whose latest runs, as many as policies.pause_on_failure says, all failed.';
revoke all on function fleet.pause_failing(bigint[]) from public, anon, authenticated, service_role;

-- db/sources/35_runs/80_history.sql
-- What schedules have done: the ledger of one for people to read, and figures about all of them.

create or replace function fleet.schedule_history(p_schedule_id bigint, p_limit integer, p_before timestamptz)
returns table (
  id bigint, scheduled_for timestamptz, local_time timestamp, trigger text, status text, reason text,
  missed_from timestamptz, missed_to timestamptz, missed_count bigint, targeted integer, completed integer, failed integer,
  skipped integer, dst_rule text, error_message text, result jsonb, started_at timestamptz, finished_at timestamptz,
  duration_seconds numeric
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_schedule public.schedules;
begin
  select s.* into v_schedule
  from public.schedules as s
  where s.id = p_schedule_id and fleet.is_visible_owner(s.owner_id);
  if not found then
    perform fleet.raise_not_found(format('schedule %s', p_schedule_id));
  end if;
  perform fleet.require_permission(v_schedule.owner_id, 'view', format('schedule %s', p_schedule_id));

  return query
  select r.id, r.scheduled_for, r.scheduled_for at time zone fleet.reference_zone(v_schedule), r.trigger, r.status, r.reason,
    r.missed_from, r.missed_to, r.missed_count, r.targeted, r.completed, r.failed, r.skipped, r.dst_rule, r.error_message,
    r.result, r.started_at, r.finished_at,
    case when r.status <> 'skipped' then round(extract(epoch from r.finished_at - r.started_at), 3) end
  from public.schedule_runs as r
  where r.schedule_id = p_schedule_id
    and (p_before is null or r.scheduled_for < p_before)
  order by r.scheduled_for desc
  limit least(greatest(coalesce(p_limit, 50), 0), 1000);
end;
$$;

comment on function fleet.schedule_history(bigint, integer, timestamptz) is 'See public.schedule_history. Definer: it tells missing from empty.';
revoke all on function fleet.schedule_history(bigint, integer, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.schedule_history(bigint, integer, timestamptz) to authenticated, service_role;

create or replace function public.schedule_history(
  p_schedule_id bigint,
  p_limit integer default 50,
  p_before timestamptz default null
)
returns table (
  id bigint, scheduled_for timestamptz, local_time timestamp, trigger text, status text, reason text,
  missed_from timestamptz, missed_to timestamptz, missed_count bigint, targeted integer, completed integer, failed integer,
  skipped integer, dst_rule text, error_message text, result jsonb, started_at timestamptz, finished_at timestamptz,
  duration_seconds numeric
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select * from fleet.schedule_history(p_schedule_id, p_limit, p_before)
$$;

comment on function public.schedule_history(bigint, integer, timestamptz) is
  'The runs of a schedule, the latest instant first, at most 1000 of them; for the next page pass the last scheduled_for as p_before. '
  'A range of missed instants is one row. Raises schedule_not_found (PT404).';
revoke all on function public.schedule_history(bigint, integer, timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.schedule_history(bigint, integer, timestamptz) to authenticated, service_role;

create or replace function public.schedule_stats(p_now timestamptz default now())
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Row security limits the figures to the caller's own; a device, retired or not, counts as nobody.
  if fleet.current_user_id() is null and not fleet.is_trusted_caller() then
    raise exception 'a device may not do this'
      using errcode = 'PT403', detail = 'not_a_person', hint = 'Sign in as a member of the fleet.';
  end if;

  return jsonb_build_object('now', p_now) || fleet.schedule_figures(p_now) || fleet.run_figures(p_now);
end;
$$;

comment on function public.schedule_stats(timestamptz) is
  'Figures about schedules and their runs: total, by_status, by_type, by_recurrence, next_due, executions (total, by_status, '
  'success_rate, last_24_hours), and for the last 30 days average_duration_seconds, busiest_hours (UTC), slowest and failing. '
  'Raises not_a_person (PT403).';
revoke all on function public.schedule_stats(timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.schedule_stats(timestamptz) to authenticated, service_role;

create or replace function fleet.schedule_figures(p_now timestamptz)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with counted as materialized (
    select s.status, s.action_type, s.recurrence_type, count(*) as n
    from public.schedules as s
    group by s.status, s.action_type, s.recurrence_type
  )
  select jsonb_build_object(
    'total', (select coalesce(sum(c.n), 0) from counted as c),
    'by_status', (
      select jsonb_object_agg(k.status, coalesce(k.n, 0))
      from (
        select u.status, (select sum(c.n) from counted as c where c.status = u.status) as n
        from unnest('{active,paused,completed,cancelled}'::text[]) as u(status)
      ) as k
    ),
    'by_type', (
      select coalesce(jsonb_object_agg(k.action_type, k.n), '{}')
      from (select c.action_type, sum(c.n) as n from counted as c group by c.action_type) as k
    ),
    'by_recurrence', (
      select coalesce(jsonb_object_agg(k.recurrence_type, k.n), '{}')
      from (select c.recurrence_type, sum(c.n) as n from counted as c group by c.recurrence_type) as k
    ),
    'next_due', (
      select coalesce(jsonb_agg(
        jsonb_build_object('id', d.id, 'name', d.name, 'next_run_at', d.next_run_at) order by d.next_run_at, d.id
      ), '[]')
      from (
        select s.id, s.name, s.next_run_at
        from public.schedules as s
        where s.status = 'active' and s.next_run_at is not null
        order by s.next_run_at, s.id
        limit 5
      ) as d
    ),
    'due_next_24_hours', (
      select count(*)
      from public.schedules as s
      where s.status = 'active' and s.next_run_at < p_now + interval '24 hours'
    )
  )
$$;

comment on function fleet.schedule_figures(timestamptz) is 'How many schedules of which kind the caller sees, and which are due next.';
revoke all on function fleet.schedule_figures(timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.schedule_figures(timestamptz) to authenticated, service_role;

create or replace function fleet.run_counts(p_since timestamptz)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with counted as materialized (
    select r.status, count(*) as runs, sum(coalesce(r.missed_count, 1)) as instants
    from public.schedule_runs as r
    where p_since is null or r.created_at > p_since
    group by r.status
  )
  select jsonb_build_object(
    'total', (select coalesce(sum(c.runs), 0) from counted as c),
    'by_status', (
      select jsonb_object_agg(u.status, coalesce(c.runs, 0))
      from unnest('{pending,running,completed,failed,skipped,cancelled}'::text[]) as u(status)
      left join counted as c on c.status = u.status
    ),
    -- A range of missed instants is one row.
    'missed', (select coalesce(sum(c.instants), 0) from counted as c where c.status = 'skipped'),
    'success_rate', (
      select round(
        100.0 * sum(c.runs) filter (where c.status = 'completed')
        / nullif(sum(c.runs) filter (where c.status in ('completed', 'failed')), 0), 1
      )
      from counted as c
    )
  )
$$;

comment on function fleet.run_counts(timestamptz) is
  'How runs ended, since an instant or ever: total, by_status, missed instants, success_rate in percent of those that ended.';
revoke all on function fleet.run_counts(timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.run_counts(timestamptz) to authenticated, service_role;

create or replace function fleet.run_figures(p_now timestamptz)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with recent as materialized (
    select r.schedule_id, r.status, r.started_at, extract(epoch from r.finished_at - r.started_at) as seconds
    from public.schedule_runs as r
    where r.created_at > p_now - interval '30 days' and r.started_at is not null
  )
  select jsonb_build_object(
    'executions', fleet.run_counts(null)
      || jsonb_build_object('last_24_hours', fleet.run_counts(p_now - interval '24 hours')),
    'average_duration_seconds', (select round(avg(x.seconds), 3) from recent as x where x.status in ('completed', 'failed')),
    'busiest_hours', (
      select coalesce(jsonb_agg(jsonb_build_object('hour', h.hour, 'runs', h.n) order by h.n desc, h.hour), '[]')
      from (
        select extract(hour from x.started_at at time zone 'UTC')::integer as hour, count(*) as n
        from recent as x
        group by 1
        order by 2 desc, 1
        limit 5
      ) as h
    ),
    'slowest', (
      select coalesce(jsonb_agg(
        jsonb_build_object('id', s.id, 'name', s.name, 'average_seconds', q.seconds) order by q.seconds desc, s.id
      ), '[]')
      from (
        select x.schedule_id, round(avg(x.seconds), 3) as seconds
        from recent as x
        where x.status in ('completed', 'failed') and x.seconds is not null
        group by x.schedule_id
        order by 2 desc
        limit 5
      ) as q
      join public.schedules as s on s.id = q.schedule_id
    ),
    'failing', (
      select coalesce(jsonb_agg(
        jsonb_build_object('id', s.id, 'name', s.name, 'failed', q.n, 'runs', q.runs) order by q.n desc, s.id
      ), '[]')
      from (
        select x.schedule_id, count(*) filter (where x.status = 'failed') as n, count(*) as runs
        from recent as x
        group by x.schedule_id
        having count(*) filter (where x.status = 'failed') > 0
        order by 2 desc
        limit 5
      ) as q
      join public.schedules as s on s.id = q.schedule_id
    )
  )
$$;

comment on function fleet.run_figures(timestamptz) is
  'How the runs that the caller sees ended, how long they took, and when; all but the totals over the last 30 days.';
revoke all on function fleet.run_figures(timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.run_figures(timestamptz) to authenticated, service_role;

-- db/sources/35_runs/views.sql
-- The ledger as people list it.

drop view if exists public.run_list;
create view public.run_list with (security_invoker = true) as
select
  r.id,
  r.owner_id,
  s.name as schedule,
  r.schedule_id,
  r.scheduled_for,
  r.trigger,
  r.status,
  r.reason,
  r.targeted,
  r.completed,
  r.failed,
  r.skipped,
  r.missed_from,
  r.missed_to,
  r.missed_count,
  r.dst_rule,
  r.error_message,
  r.action_type,
  r.payload,
  r.priority,
  r.result,
  r.expires_at,
  r.started_at,
  r.finished_at,
  r.created_at
from public.schedule_runs as r
join public.schedules as s on s.id = r.schedule_id;

comment on view public.run_list is
  'What became of each due instant, with the name of its schedule.';
comment on column public.run_list.schedule is 'The name of the schedule.';
select fleet.inherit_comments('public.run_list', 'public.schedule_runs');
revoke all on table public.run_list from public, anon, authenticated, service_role;
grant select on table public.run_list to authenticated, service_role;

-- db/sources/35_runs/triggers.sql
-- What is due when a schedule is inserted does not wait for the tick.

create or replace function fleet.tg_run_due_schedules()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_due bigint[];
begin
  select array_agg(n.id) into v_due
  from new_rows as n
  where n.status = 'active' and n.next_run_at <= v_now;
  if v_due is not null then
    perform fleet.run_due(v_due, v_now);
  end if;
  return null;
end;
$$;

comment on function fleet.tg_run_due_schedules() is
  'What is due when it is inserted does not wait for the tick. Definer: people may not write runs and commands themselves.';
revoke all on function fleet.tg_run_due_schedules() from public, anon, authenticated, service_role;

create or replace trigger schedules_03_run_due
  after insert on public.schedules
  referencing new table as new_rows
  for each statement execute function fleet.tg_run_due_schedules();

set check_function_bodies = on;
reset search_path;
