-- Chains: a schedule that runs when a run of another one has ended.

create or replace function fleet.follow_problems(p_schedule public.schedules)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id bigint := p_schedule.after_schedule_id;
  v_seen bigint[] := '{}';
begin
  if v_id is null then
    return;
  end if;

  return query
  select q.field, q.problem, q.hint
  from fleet.choice_problem('after.on', to_jsonb(p_schedule.after_on), '{completed,failed,either}') as q;
  if not exists (
    select 1 from public.schedules as s where s.id = v_id and s.owner_id = p_schedule.owner_id
  ) then
    return query
    select 'after.schedule_id', format('schedule %s was not found', v_id), 'List your schedules with: pgfleet schedule list';
    return;
  end if;

  -- Up the chain: whoever comes back to where it began would run for ever.
  while v_id is not null and v_id <> all (v_seen) loop
    if v_id = p_schedule.id then
      return query
      select 'after.schedule_id', format('schedule %s follows this one already: they would run for ever', p_schedule.after_schedule_id),
        'Let the first schedule of the chain have times of its own.';
      return;
    end if;
    v_seen := v_seen || v_id;
    select s.after_schedule_id into v_id from public.schedules as s where s.id = v_id;
  end loop;
end;
$$;

comment on function fleet.follow_problems(public.schedules) is
  'Whether the schedule that this one follows exists for its owner and does not follow it in turn.';
revoke all on function fleet.follow_problems(public.schedules) from public, anon, authenticated, service_role;

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
  p_place bigint,
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
    when p_place > fleet.runs_left(p_schedule) then 'max_runs reached'
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

create or replace function fleet.opening_of(p_schedule public.schedules, p_instant timestamptz)
returns timestamptz
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    -- What does not wait is judged where it stands.
    when not p_schedule.policies ? 'execution_window'
      or not fleet.waits_for_window(fleet.window_list(p_schedule.policies), 'schedule')
      then p_instant
    else coalesce(
      fleet.window_opening(
        fleet.window_list(p_schedule.policies), 'schedule', fleet.reference_zone(p_schedule), p_instant
      ),
      p_instant
    )
  end
$$;

comment on function fleet.opening_of(public.schedules, timestamptz) is
  'When a run of this instant may begin: at once, or when the execution window opens.';
revoke all on function fleet.opening_of(public.schedules, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.has_lost_parent(p_old public.schedules, p_new public.schedules)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select p_old.after_schedule_id is not null
    and p_new.after_schedule_id is null
    and not exists (select 1 from public.schedules as s where s.id = p_old.after_schedule_id)
$$;

comment on function fleet.has_lost_parent(public.schedules, public.schedules) is
  'Whether this change comes from the foreign key: the schedule that this one follows is deleted.';
revoke all on function fleet.has_lost_parent(public.schedules, public.schedules)
  from public, anon, authenticated, service_role;

create or replace function fleet.abandoned_schedule(p_old public.schedules, p_new public.schedules)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules := p_new;
begin
  v_row.after_on := null;
  -- Nobody said when it is to run instead; times that it has besides wait until it is resumed.
  v_row.next_run_at := case
    when v_row.recurrence_type <> 'once' and v_row.status in ('active', 'paused') then fleet.first_due(v_row, clock_timestamp())
  end;
  if v_row.status = 'active' then
    v_row.status := 'paused';
    v_row.status_reason := format('schedule %s, which it followed, was deleted', p_old.after_schedule_id);
  end if;
  v_row.updated_at := now();
  return v_row;
end;
$$;

comment on function fleet.abandoned_schedule(public.schedules, public.schedules) is
  'The row of a schedule that followed one that is deleted: paused, with the reason.';
revoke all on function fleet.abandoned_schedule(public.schedules, public.schedules)
  from public, anon, authenticated, service_role;
