-- The zones of a run in device time: which are to come, and the end of the run when the last has passed.

create or replace function fleet.close_runs(p_run_ids bigint[], p_now timestamptz, p_gives_back boolean default true)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_idle bigint[];
begin
  with closed as (
    update public.schedule_runs as r
    set expanded_at = p_now,
        status = case when r.targeted > 0 then 'running' when e.is_cancelled then 'cancelled' else 'skipped' end,
        reason = case when r.targeted = 0 then coalesce(e.reason, 'no targets') end,
        finished_at = case when r.targeted = 0 then p_now end
    from (
      select z.run_id, bool_and(z.status = 'cancelled') as is_cancelled, bool_or(z.expanded_at is null) as is_open,
        coalesce(
          mode() within group (order by z.reason) filter (where z.reason not in ('no targets', 'the schedule has not begun')),
          min(z.reason) filter (where z.reason = 'no targets'),
          min(z.reason)
        ) as reason
      from fleet.run_zones as z
      where z.run_id = any (p_run_ids)
      group by z.run_id
    ) as e
    where r.id = e.run_id
      and not e.is_open
      and r.scheduled_local is not null
      and r.expanded_at is null
      and r.status in ('pending', 'running')
    returning r.id, r.status, r.targeted
  ),
  told as (
    -- All of its commands may be final already: have the tick look at it once more.
    insert into fleet.run_progress (run_id, completed, failed)
    select c.id, 0, 0 from closed as c where c.targeted > 0
  )
  select array_agg(c.id) into v_idle from closed as c where c.targeted = 0;

  if p_gives_back and v_idle is not null then
    perform fleet.count_idle_runs(v_idle);
    perform fleet.reopen_used_up(array(select r.schedule_id from public.schedule_runs as r where r.id = any (v_idle)), p_now);
  end if;
end;
$$;

comment on function fleet.close_runs(bigint[], timestamptz, boolean) is
  'End those of these runs in device time of which no zone is to come: skipped, with the reason, where it has reached nobody; then it does '
  'not count for max_runs. The caller holds the rows of the schedules.';
revoke all on function fleet.close_runs(bigint[], timestamptz, boolean) from public, anon, authenticated, service_role;

create or replace function fleet.reopen_used_up(p_schedule_ids bigint[], p_now timestamptz)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  update public.schedules as s
  set status = 'active', status_reason = null, next_run_at = n.due_at
  from (
    select x.id, fleet.next_due(x.recurrence, fleet.schedule_zones(x), p_now) as due_at
    from public.schedules as x
    where x.id = any (p_schedule_ids)
      and x.timezone = 'device'
      and x.status = 'completed'
      and x.status_reason = 'max_runs reached'
      and x.after_schedule_id is null
      and fleet.runs_left(x) > 0
  ) as n
  where s.id = n.id and n.due_at is not null
$$;

comment on function fleet.reopen_used_up(bigint[], timestamptz) is
  'Let those of these schedules by device time go on that had run as often as they may, until a run turned out to reach nobody: with the '
  'first occurrence that lies ahead on every wall.';
revoke all on function fleet.reopen_used_up(bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.reopen_runs(p_run_ids bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  with reopened as (
    update public.schedule_runs as r
    set expanded_at = null, finished_at = null, reason = null, started_at = coalesce(r.started_at, r.created_at),
        status = case when r.targeted > 0 then 'running' else 'pending' end
    from public.schedule_runs as o
    where r.id = any (p_run_ids) and r.expanded_at is not null and r.status <> 'cancelled' and o.id = r.id
    returning r.id, r.schedule_id, o.status = 'skipped' as was_idle
  )
  update public.schedules as s
  set idle_count = greatest(s.idle_count - g.n, 0)
  from (select o.schedule_id, count(*) as n from reopened as o where o.was_idle group by o.schedule_id) as g
  where s.id = g.schedule_id
$$;

comment on function fleet.reopen_runs(bigint[]) is 'Let runs in device time that were whole go on, for a zone that has come since.';
revoke all on function fleet.reopen_runs(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.plan_zones(p_schedule public.schedules, p_run_ids bigint[], p_zones text[], p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- Compiling the plan would take a hundred times as long as running it.
set jit = off
as $$
declare
  v_run public.schedule_runs;
  v_is_due boolean;
  v_waiting text[];
  v_fresh text[];
  v_reopened bigint[] := '{}';
begin
  for v_run in
    select r.* from public.schedule_runs as r where r.id = any (p_run_ids) and r.scheduled_local is not null and r.missed_to_local is null
  loop
    v_is_due := p_schedule.timezone = 'device' and fleet.next_occurrence(
      p_schedule.recurrence -> 'wall', v_run.scheduled_local at time zone 'UTC' - interval '1 microsecond'
    ) = v_run.scheduled_local at time zone 'UTC';
    -- Where it has begun, or was settled, it stays as it is.
    v_waiting := array(
      select u.zone
      from fleet.run_zones as z
      cross join lateral unnest(z.zones) as u(zone)
      where z.run_id = v_run.id and z.status = 'waiting' and z.device_ids is null and u.zone = any (p_zones)
    );
    v_fresh := array(
      select u.zone
      from unnest(p_zones) as u(zone)
      where not exists (
        select 1 from fleet.run_zones as z where z.run_id = v_run.id and z.device_ids is null and u.zone = any (z.zones)
      )
    );
    update fleet.run_zones as z
    set zones = array(select u.zone from unnest(z.zones) as u(zone) where u.zone <> all (p_zones))
    where z.run_id = v_run.id and z.status = 'waiting' and z.device_ids is null and z.zones && p_zones;
    delete from fleet.run_zones as z where z.run_id = v_run.id and z.zones = '{}';

    if v_is_due then
      insert into fleet.run_zones (run_id, due_at, starts_at, expires_at, zones, status, reason, dst_rule, expanded_at)
      select v_run.id, j.due_at, j.due_at, max(j.expires_at), array_agg(j.zone order by j.zone),
        case when j.refusal is null then 'waiting' else 'skipped' end, j.refusal, min(j.rule), case when j.refusal is not null then p_now end
      from (
        select z.zone, z.due_at, z.expires_at, z.rule, case when z.is_missed then null else z.refusal end as refusal
        from fleet.judged_zones(p_schedule, v_waiting || v_fresh, v_run.scheduled_local, v_run.fold, p_now, null) as z
      ) as j
      where (j.due_at > p_now or j.zone = any (v_waiting)) and j.refusal is distinct from 'the schedule has not begun'
      group by j.due_at, j.refusal;
      if found and v_run.expanded_at is not null then
        v_reopened := v_reopened || v_run.id;
      end if;
    elsif v_waiting <> '{}' then
      insert into fleet.run_zones (run_id, due_at, starts_at, zones, status, reason, expanded_at)
      values (v_run.id, v_run.scheduled_for, v_run.scheduled_for, v_waiting, 'skipped', 'rescheduled', p_now);
    end if;
  end loop;

  perform fleet.reopen_runs(v_reopened);
  perform fleet.close_runs(p_run_ids, p_now);
end;
$$;

comment on function fleet.plan_zones(public.schedules, bigint[], text[], timestamptz) is
  'Plan these zones of runs anew where they have not begun: a zone that is new, times that were changed, clocks that follow other rules. '
  'What the schedule has no more is skipped (rescheduled).';
revoke all on function fleet.plan_zones(public.schedules, bigint[], text[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.plan_open_runs(p_schedule public.schedules, p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_runs bigint[] := array(
    select r.id
    from public.schedule_runs as r
    where r.schedule_id = p_schedule.id
      and r.scheduled_local is not null
      and r.status in ('pending', 'running')
      and r.expanded_at is null
  );
begin
  if v_runs <> '{}' then
    perform fleet.plan_zones(p_schedule, v_runs, array(
      select u.zone from unnest(fleet.schedule_zones(p_schedule)) as u(zone)
      union
      select u.zone
      from fleet.run_zones as z
      cross join lateral unnest(z.zones) as u(zone)
      where z.run_id = any (v_runs) and z.status = 'waiting'
    ), p_now);
  end if;
end;
$$;

comment on function fleet.plan_open_runs(public.schedules, timestamptz) is
  'Plan all that is to come of the runs of a schedule that are under way.';
revoke all on function fleet.plan_open_runs(public.schedules, timestamptz) from public, anon, authenticated, service_role;
