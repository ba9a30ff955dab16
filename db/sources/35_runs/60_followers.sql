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
