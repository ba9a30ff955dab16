-- Deciding about local occurrences: which are booked, what becomes of each zone, and which have passed unseen. Pure but for the ledger,
-- which knows what is booked already.

create or replace function fleet.run_expiry(
  p_policies jsonb,
  p_next timestamptz,
  p_now timestamptz
)
returns timestamptz
language sql
stable
return case
  when p_policies ->> 'expires_after' is not null then p_now + (p_policies ->> 'expires_after')::interval
  else least(p_next, p_now + interval '24 hours')
end;

comment on function fleet.run_expiry(jsonb, timestamptz, timestamptz) is
  'Until when the commands of a run that starts now may be started: expires_after, else the next due instant, at most 24 hours.';
revoke all on function fleet.run_expiry(jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.catchup_pause(p_policies jsonb, p_nth bigint)
returns interval
language sql
immutable
return coalesce(
  interval '1 minute' / (p_policies ->> 'catchup_rate')::double precision * (greatest(p_nth, 1) - 1)::double precision,
  interval '0'
);

comment on function fleet.catchup_pause(jsonb, bigint) is
  'How long the n-th of the runs that are caught up waits, by policies.catchup_rate. None where there is no rate or no number.';
revoke all on function fleet.catchup_pause(jsonb, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.late_refusal(
  p_recurrence jsonb,
  p_policies jsonb,
  p_zone text,
  p_due timestamptz,
  p_now timestamptz
)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Within a minute it is on time.
  if p_due >= p_now - interval '1 minute' then
    return null;
  elsif p_policies ->> 'catchup' = 'none' then
    return 'catch-up is off';
  elsif p_due < p_now - (p_policies ->> 'catchup_window')::interval then
    return 'outside the catch-up window';
  elsif p_policies ->> 'catchup' = 'latest' then
    return (
      select 'superseded by a later instant'
      from fleet.next_on_walls(p_recurrence, array[p_zone], p_due, true) as n
      where n.due_at <= p_now
    );
  end if;
  return (
    select 'beyond the catch-up limit'
    from fleet.local_occurrences(p_recurrence, array[p_zone], p_due + interval '1 microsecond', p_now + interval '1 microsecond') as o
    where o.runs
    having count(*) >= (p_policies ->> 'catchup_limit')::bigint
  );
end;
$$;

comment on function fleet.late_refusal(jsonb, jsonb, text, timestamptz, timestamptz) is
  'Why what was due in a zone is not caught up there, by the catch-up policy and on that zone''s own instants; null where it runs.';
revoke all on function fleet.late_refusal(jsonb, jsonb, text, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.first_judged(p_recurrence jsonb, p_policies jsonb, p_from timestamptz, p_now timestamptz, p_lowest interval)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_wall jsonb := p_recurrence -> 'wall';
  v_passed timestamptz := p_now + p_lowest;
  v_from timestamptz := greatest(p_from, v_passed - greatest(
    interval '1 minute', case when p_policies ->> 'catchup' <> 'none' then (p_policies ->> 'catchup_window')::interval end
  ));
  v_last timestamptz;
begin
  if v_from >= v_passed then
    return p_from;
  elsif p_policies ->> 'catchup' = 'all' then
    -- Of those that have passed on every wall, no more than are caught up.
    return greatest(v_from, (
      select min(o.at)
      from (
        select x.at
        from fleet.occurrences(v_wall, v_from, v_passed) as x(at)
        order by x.at desc
        limit (p_policies ->> 'catchup_limit')::integer
      ) as o
    ));
  end if;
  v_last := fleet.last_occurrence(v_wall, v_from, v_passed);
  return coalesce(v_last, v_passed);
end;
$$;

comment on function fleet.first_judged(jsonb, jsonb, timestamptz, timestamptz, interval) is
  'From which local time on each occurrence is looked at zone by zone; those before have passed everywhere and are caught up nowhere.';
revoke all on function fleet.first_judged(jsonb, jsonb, timestamptz, timestamptz, interval)
  from public, anon, authenticated, service_role;

create or replace function fleet.judged_zones(
  p_schedule public.schedules,
  p_zones text[],
  p_local timestamp,
  p_fold integer,
  p_now timestamptz,
  p_reason text
)
returns table (zone text, due_at timestamptz, expires_at timestamptz, rule text, refusal text, is_late boolean, is_missed boolean)
language plpgsql
stable
rows 50
set search_path = pg_catalog, pg_temp
as $$
declare
  v_recurrence jsonb := p_schedule.recurrence;
  v_policies jsonb := fleet.effective_policies(p_schedule.policies);
  v_next timestamp := fleet.next_occurrence(v_recurrence -> 'wall', p_local at time zone 'UTC') at time zone 'UTC';
begin
  return query
  select i.zone, i.due_at,
    -- Until it is due again there.
    fleet.run_expiry(v_policies, case when n.due_at > i.due_at then n.due_at end, greatest(i.due_at, case when j.is_passed then p_now end)),
    i.rule, coalesce(i.refusal, j.refusal), i.refusal is null and i.due_at < p_now - interval '1 minute',
    -- What the clocks left out is told by itself, whatever else has passed.
    coalesce(i.refusal is null and j.refusal <> 'the schedule has not begun', false)
  from fleet.zone_instants(v_recurrence, p_local, p_fold, p_zones) as i
  cross join lateral (
    select i.due_at <= p_now as is_passed, case
      when i.refusal is not null or i.due_at > p_now then null
      when i.due_at < p_schedule.next_run_at then 'the schedule has not begun'
      when p_reason is not null then p_reason
      else fleet.late_refusal(v_recurrence, v_policies, i.zone, i.due_at, p_now)
    end as refusal
  ) as j
  left join lateral (
    select x.zone, x.due_at from fleet.zone_instants(v_recurrence, v_next, 0, p_zones) as x where v_next is not null
  ) as n on n.zone = i.zone;
end;
$$;

comment on function fleet.judged_zones(public.schedules, text[], timestamp, integer, timestamptz, text) is
  'What becomes of one local occurrence in each of these zones: when it is due, until when it may start, and why it does not run there '
  '(p_reason for all that has passed by p_now).';
revoke all on function fleet.judged_zones(public.schedules, text[], timestamp, integer, timestamptz, text)
  from public, anon, authenticated, service_role;

create or replace function fleet.decide_occurrences(p_schedule public.schedules, p_now timestamptz, p_reason text default null)
returns setof fleet.run_booking
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- Compiling the plan would take a hundred times as long as running it.
set jit = off
as $$
declare
  v_recurrence jsonb := p_schedule.recurrence;
  v_policies jsonb := fleet.effective_policies(p_schedule.policies);
  v_zones text[] := fleet.schedule_zones(p_schedule);
  v_due timestamptz := p_schedule.next_run_at;
  v_left bigint := fleet.runs_left(p_schedule);
  v_reach record;
  v_from timestamptz;
  v_judged_from timestamptz;
  v_next timestamptz := (select n.due_at from fleet.next_on_walls(v_recurrence, v_zones, p_now) as n);
begin
  select r.* into v_reach from fleet.wall_reach(v_recurrence, v_zones, v_due, p_now) as r;
  -- Walls, as if they were UTC. What is counted is due everywhere or not at all; of all else the rest of the day counts too.
  v_from := v_due + case when v_left is null then v_reach.lowest else v_reach.low end;
  v_judged_from := case
    when p_reason is not null then greatest(v_from, p_now + v_reach.lowest)
    else fleet.first_judged(v_recurrence, v_policies, v_from, p_now, v_reach.lowest)
  end;

  return query
  with kin as materialized (
    select k.first_zone, k.zones
    from fleet.zone_kin(v_recurrence, v_zones, v_judged_from - v_reach.lowest - interval '3 hours', p_now) as k
  ),
  occurrence as materialized (
    select w.local, w.fold, w.zones
    from fleet.walls_within(
      v_recurrence, array(select k.first_zone from kin as k), v_judged_from - v_reach.lowest - interval '3 hours', p_now + interval '1 microsecond'
    ) as w
    where w.local >= v_judged_from at time zone 'UTC'
      and not exists (
        select 1
        from public.schedule_runs as r
        where r.schedule_id = p_schedule.id
          and (
            (r.scheduled_local = w.local and r.fold = w.fold)
            or (r.scheduled_local <= w.local and r.missed_to_local >= w.local)
          )
      )
  ),
  judged as materialized (
    select o.local, o.fold, z.*,
      count(*) filter (where z.is_late and z.refusal is null) over (partition by z.zone order by o.local, o.fold) as nth_late
    from occurrence as o
    cross join lateral fleet.judged_zones(p_schedule, o.zones, o.local, o.fold, p_now, p_reason) as z
  ),
  whole as (
    select j.local, j.fold, min(j.due_at) as due_at, max(j.due_at) as last_at, max(j.expires_at) filter (where j.refusal is null) as expires_at,
      bool_or(j.refusal is null) as runs, bool_or(j.refusal is null and j.is_late) as is_late,
      bool_or(j.is_missed) as is_missed,
      min(j.refusal) filter (where j.refusal <> 'the schedule has not begun') as refusal,
      left(string_agg(distinct j.zone || ' ' || j.rule, ', ') filter (where j.rule is not null), 500) as dst_rule
    from judged as j
    group by j.local, j.fold
    having min(j.due_at) <= p_now
      and (case when v_left is null then max(j.due_at) else min(j.due_at) end) >= v_due
  ),
  numbered as (
    select w.*, count(*) filter (where w.runs) over (order by w.local, w.fold) as n from whole as w
  ),
  missed as (
    select min(m.local) as from_local, max(m.local) as to_local, sum(m.n)::bigint as n, max(m.refusal) as refusal
    from (
      select x.local, 1 as n, x.refusal from numbered as x where not x.runs and x.is_missed
      union all
      select b.from_local, b.n, null from fleet.passed_unseen(p_schedule, v_from, v_judged_from) as b where b.n > 0
      union all
      select b.to_local, 0, null from fleet.passed_unseen(p_schedule, v_from, v_judged_from) as b where b.n > 0
    ) as m
  )
  select p_schedule.id, coalesce((
      select min(i.due_at) from fleet.zone_instants(v_recurrence, m.from_local, 0, v_zones) as i
    ), v_due),
    'schedule', 'skipped', coalesce(p_reason, case
      when v_policies ->> 'catchup' = 'none' then 'catch-up is off'
      when v_policies ->> 'catchup' = 'latest' and exists (select 1 from numbered as x where x.runs) then 'superseded by a later instant'
      else coalesce(m.refusal, 'outside the catch-up window')
    end), null,
    case when m.n > 1 then coalesce((select min(i.due_at) from fleet.zone_instants(v_recurrence, m.from_local, 0, v_zones) as i), v_due) end,
    case when m.n > 1 then coalesce((select max(i.due_at) from fleet.zone_instants(v_recurrence, m.to_local, 0, v_zones) as i), v_due) end,
    case when m.n > 1 then m.n end,
    null::timestamptz, null::timestamptz, null::text[], null, null::bigint, null, coalesce(v_next, 'infinity'),
    m.from_local, 0::smallint, case when m.n > 1 then m.to_local end, null::jsonb
  from missed as m
  where m.n > 0
  union all
  select p_schedule.id, n.due_at, case when n.is_late then 'catchup' else 'schedule' end, case when n.runs then 'pending' else 'skipped' end,
    case when not n.runs then coalesce(n.refusal, 'the schedule has not begun') end, null,
    null, null, null, null, n.expires_at, null, n.dst_rule, null, null, coalesce(v_next, 'infinity'), n.local, n.fold::smallint, null,
    (
      select jsonb_agg(to_jsonb(g))
      from (
        select j.due_at, j.refusal, min(j.rule) as rule,
          case when j.is_late and j.refusal is null then p_now + fleet.catchup_pause(v_policies, j.nth_late) else j.due_at end as starts_at,
          max(j.expires_at) + case
            when j.is_late and j.refusal is null then fleet.catchup_pause(v_policies, j.nth_late) else interval '0'
          end as expires_at,
          array_agg(u.zone order by u.zone) as zones
        from judged as j
        join kin as k on k.first_zone = j.zone
        cross join unnest(k.zones) as u(zone)
        where j.local = n.local and j.fold = n.fold
        group by j.due_at, j.refusal, j.is_late, j.nth_late
      ) as g
    )
  from numbered as n
  where (n.runs or not n.is_missed)
    -- What follows elapsed time misses nothing by a jump of the clocks.
    and (n.runs or not v_recurrence @> '{"wall": {"is_elapsed": true}}')
    and coalesce(n.n <= v_left, true)
  order by 17;
end;
$$;

comment on function fleet.decide_occurrences(public.schedules, timestamptz, text) is
  'What becomes of a schedule by device time that has been due since its next_run_at: a run for each local occurrence that runs in some '
  'zone or is yet to come there, with its zones, and one row for those that have passed everywhere. p_reason: why nothing that has passed '
  'is caught up, such as a pause.';
revoke all on function fleet.decide_occurrences(public.schedules, timestamptz, text) from public, anon, authenticated, service_role;

create or replace function fleet.passed_unseen(p_schedule public.schedules, p_from timestamptz, p_to timestamptz)
returns table (from_local timestamp, to_local timestamp, n bigint)
language plpgsql
stable
rows 1
set search_path = pg_catalog, pg_temp
as $$
declare
  v_wall jsonb := p_schedule.recurrence -> 'wall';
  v_from timestamptz := p_from;
begin
  if p_from >= p_to then
    return;
  end if;
  -- What is booked or told already comes first: the ledger has them in the order of the walls.
  v_from := greatest(v_from, (
    select max(coalesce(r.missed_to_local, r.scheduled_local)) at time zone 'UTC' + interval '1 microsecond'
    from public.schedule_runs as r
    where r.schedule_id = p_schedule.id and r.scheduled_local < p_to at time zone 'UTC'
  ));
  n := fleet.count_occurrences(v_wall, v_from, p_to);
  if n > 0 then
    from_local := fleet.next_occurrence(v_wall, v_from - interval '1 microsecond') at time zone 'UTC';
    to_local := fleet.last_occurrence(v_wall, v_from, p_to) at time zone 'UTC';
    return next;
  end if;
end;
$$;

comment on function fleet.passed_unseen(public.schedules, timestamptz, timestamptz) is
  'The local occurrences in [p_from, p_to), walls as if they were UTC, of which the ledger says nothing.';
revoke all on function fleet.passed_unseen(public.schedules, timestamptz, timestamptz) from public, anon, authenticated, service_role;
