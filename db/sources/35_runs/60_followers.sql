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
    select s, r.id as run_id, row_number() over (partition by s.id order by r.id) as n
    from public.schedule_runs as r
    join public.schedules as s on s.after_schedule_id = r.schedule_id and s.owner_id = r.owner_id
    -- Who cancels a schedule ends it: nothing follows because of that.
    join public.schedules as p on p.id = r.schedule_id and p.status <> 'cancelled'
    where r.id = any (p_runs)
      and s.status = 'active'
      and (s.after_on = 'either' or s.after_on = r.status)
      -- Device by device it has followed already.
      and not s.after_per_device
      -- A second look at the same end is harmless.
      and not exists (
        select 1 from public.schedule_runs as x
        where x.schedule_id = s.id and x.idempotency_key = 'after:' || r.id
      )
  )
  select array_agg(fleet.follower_booking(e.s, e.run_id, e.n, p_now) order by e.run_id) into v_runs from ended as e;
  return case when v_runs is null then 0 else cardinality(fleet.book_runs(v_runs, p_now)) end;
end;
$$;

comment on function fleet.start_followers(bigint[], timestamptz) is
  'Write the runs of the schedules that follow these ended runs. Answers how many; the tick expands them.';
revoke all on function fleet.start_followers(bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.follower_booking(
  p_schedule public.schedules,
  p_after_run_id bigint,
  p_nth bigint,
  p_now timestamptz
)
returns fleet.run_booking
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_zones text[] := case
    when p_schedule.timezone = 'device' and p_schedule.policies ? 'blackouts' then fleet.schedule_zones(p_schedule)
  end;
  v_opens_at timestamptz := fleet.opening_of(p_schedule, p_now);
  v_booking fleet.run_booking;
begin
  v_booking.schedule_id := p_schedule.id;
  v_booking.scheduled_for := fleet.free_instant(p_schedule, p_now, p_nth);
  v_booking.trigger := 'chain';
  v_booking.reason := fleet.follower_refusal(p_schedule, p_nth, v_zones, v_opens_at, p_now);
  v_booking.status := case when v_booking.reason is null then 'pending' else 'skipped' end;
  v_booking.not_before := nullif(v_opens_at, p_now);
  v_booking.expires_at := fleet.run_expiry(fleet.effective_policies(p_schedule.policies), null, v_opens_at);
  if v_zones is not null then
    v_booking.zones := fleet.open_zones(p_schedule, fleet.open_zones(p_schedule, v_zones, p_now), v_opens_at);
  end if;
  v_booking.after_run_id := p_after_run_id;
  v_booking.idempotency_key := 'after:' || p_after_run_id;
  return v_booking;
end;
$$;

comment on function fleet.follower_booking(public.schedules, bigint, bigint, timestamptz) is
  'The run of a schedule that follows this one now, as the n-th at once, or why it does not.';
revoke all on function fleet.follower_booking(public.schedules, bigint, bigint, timestamptz)
  from public, anon, authenticated, service_role;

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
