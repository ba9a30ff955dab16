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
