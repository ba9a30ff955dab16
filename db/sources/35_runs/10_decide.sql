-- Deciding what to do about what is due. Pure: everything is an argument, so it can be previewed and tested.

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
  v_next timestamptz;
  v_booking fleet.run_booking;
begin
  if p_schedule.timezone = 'device' then
    return query select d.* from fleet.decide_occurrences(p_schedule, p_now) as d;
    return;
  end if;
  if fleet.leaves_out_gaps(p_schedule.recurrence) then
    v_next := fleet.next_due(p_schedule.recurrence, null, p_now);
    return query select g.* from fleet.decide_gaps(p_schedule, v_due, p_now, v_next) as g;
    if found and fleet.next_occurrence(p_schedule.recurrence, v_due - interval '1 microsecond') is distinct from v_due then
      -- What the clocks skip is all that it was due for.
      v_due := fleet.next_occurrence(p_schedule.recurrence, v_due);
      if coalesce(v_due > p_now, true) then
        return;
      end if;
    end if;
  else
    v_next := fleet.next_occurrence(p_schedule.recurrence, p_now);
  end if;
  v_window_from := greatest(v_due, case v_policies ->> 'catchup'
    when 'none' then v_on_time_from
    else least(v_on_time_from, p_now - (v_policies ->> 'catchup_window')::interval)
  end);
  v_run := fleet.instants_to_run(p_schedule.recurrence, v_policies, v_due, v_window_from, p_now);

  if v_run = array[v_due] and v_left is null
    and not p_schedule.policies ?| '{blackouts,execution_window}'
  then
    -- Nearly every decision is this one, so it goes the short way; also late, when there is most to decide.
    v_booking.schedule_id := p_schedule.id;
    v_booking.scheduled_for := v_due;
    v_booking.trigger := case when v_due >= v_on_time_from then 'schedule' else 'catchup' end;
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
      null::timestamptz, null::timestamptz, null::text[], null, null::bigint, null, coalesce(v_next, 'infinity'),
      null::timestamp, null::smallint, null::timestamp, null::jsonb
    from fleet.missed_range(p_schedule.recurrence, v_policies, v_due, v_window_from, v_run[1], p_now) as g;
  end if;

  return query
  select p_schedule.id, r.instant, r.trigger, case when r.refusal is null then 'pending' else 'skipped' end, r.refusal, null,
    null::timestamptz, null::timestamptz, null::bigint,
    nullif(r.starts_at, p_now),
    fleet.run_expiry(v_policies, fleet.next_occurrence(p_schedule.recurrence, r.starts_at), r.starts_at),
    null::text[], fleet.applied_rule(p_schedule.recurrence, r.instant), null::bigint, null, coalesce(v_next, 'infinity'),
    null::timestamp, null::smallint, null::timestamp, null::jsonb
  from fleet.decide_runs(p_schedule, v_policies, v_run, v_on_time_from, v_left, p_now) as r;
end;
$$;

comment on function fleet.decide_due(public.schedules, timestamptz) is
  'What becomes of a schedule that has been due since its next_run_at: what to write into the ledger, and when it is due next. Each '
  'due instant up to p_now is in exactly one row.';
revoke all on function fleet.decide_due(public.schedules, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.decide_gaps(
  p_schedule public.schedules,
  p_due timestamptz,
  p_now timestamptz,
  p_next timestamptz
)
returns setof fleet.run_booking
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Its key is the time on the wall that never came: at the instant itself another run may be due.
  return query
  select p_schedule.id, g.skipped_at, 'schedule', 'skipped', 'the clocks skip this local time', null,
    case when g.times > 1 then g.skipped_at end, case when g.times > 1 then g.skipped_at end, case when g.times > 1 then g.times end,
    null::timestamptz, null::timestamptz, null::text[], 'gap:skip', null::bigint, null, coalesce(p_next, 'infinity'),
    g.first_local, 0::smallint, case when g.times > 1 then g.last_local end, null::jsonb
  from fleet.skipped_times(p_schedule.recurrence, p_due, p_now + interval '1 microsecond') as g;
end;
$$;

comment on function fleet.decide_gaps(public.schedules, timestamptz, timestamptz, timestamptz) is
  'What to write into the ledger for times that the clocks skip within [p_due, p_now] and that are left out (gap: skip): a row for each change '
  'of the clocks.';
revoke all on function fleet.decide_gaps(public.schedules, timestamptz, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.decide_runs(
  p_schedule public.schedules,
  p_policies jsonb,
  p_instants timestamptz[],
  p_on_time_from timestamptz,
  p_left bigint,
  p_now timestamptz
)
returns table (instant timestamptz, trigger text, refusal text, starts_at timestamptz)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- Planned at each call otherwise, for the number of instants.
set plan_cache_mode = force_generic_plan
as $$
begin
  return query
  with judged as (
    select u.instant, u.instant < p_on_time_from as is_late, coalesce(
        fleet.zones_refusal(p_schedule, null, u.instant),
        -- What is caught up acts now, so now must be allowed as well.
        case when u.instant < p_on_time_from then fleet.zones_refusal(p_schedule, null, p_now) end
      ) as refusal
    from unnest(p_instants) as u(instant)
  ),
  paced as (
    select j.*, fleet.opening_of(p_schedule, p_now + fleet.catchup_pause(
        p_policies, case when j.is_late then count(*) filter (where j.refusal is null and j.is_late) over (order by j.instant) end
      )) as starts_at
    from judged as j
  ),
  checked as (
    select p.instant, p.is_late, p.starts_at, coalesce(
        p.refusal,
        case when p.starts_at > p_now then fleet.zones_refusal(p_schedule, null, p.starts_at) end
      ) as refusal
    from paced as p
  ),
  counted as (
    select c.*, count(*) filter (where c.refusal is null) over (order by c.instant) as n
    from checked as c
  )
  select c.instant, case when c.is_late then 'catchup' else 'schedule' end,
    coalesce(c.refusal, case when c.n > p_left then 'max_runs reached' end), c.starts_at
  from counted as c;
end;
$$;

comment on function fleet.decide_runs(public.schedules, jsonb, timestamptz[], timestamptz, bigint, timestamptz) is
  'For each instant that is to run: on time or caught up, what refuses it, and when it starts (the window opens, catching up is paced).';
revoke all on function fleet.decide_runs(public.schedules, jsonb, timestamptz[], timestamptz, bigint, timestamptz)
  from public, anon, authenticated, service_role;

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
  if p_due >= p_window_from and coalesce(fleet.next_occurrence(p_recurrence, p_due) > p_now, true) then
    return array[p_due];
  end if;

  if p_policies ->> 'catchup' = 'all' then
    return (
      select array_agg(o.instant order by o.instant)
      from (
        select i.instant
        from fleet.occurrences(p_recurrence, p_window_from, p_now + interval '1 microsecond') as i(instant)
        order by i.instant desc
        limit (p_policies ->> 'catchup_limit')::integer
      ) as o
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
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select p_due,
    -- p_due is due whatever the recurrence says by now; what follows is asked from the recurrence.
    coalesce(fleet.last_occurrence(p_recurrence, p_due, w.to_at), p_due),
    greatest(fleet.count_occurrences(p_recurrence, p_due, w.to_at), 1),
    case
      when p_policies ->> 'catchup' = 'none' then 'catch-up is off'
      when p_first_run is null or not exists (
        select 1 from fleet.occurrences(p_recurrence, greatest(p_due, p_window_from), p_first_run) limit 1
      ) and p_policies ->> 'catchup' = 'all' then 'outside the catch-up window'
      when p_policies ->> 'catchup' = 'all' then 'beyond the catch-up limit'
      else 'superseded by a later instant'
    end
  from (select coalesce(p_first_run, p_now + interval '1 microsecond') as to_at) as w
  where p_due < w.to_at;
end;
$$;

comment on function fleet.missed_range(jsonb, jsonb, timestamptz, timestamptz, timestamptz, timestamptz) is
  'The due instants that do not run, as one range: from p_due up to the first that runs, or up to now. No row where there are none.';
revoke all on function fleet.missed_range(jsonb, jsonb, timestamptz, timestamptz, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;
