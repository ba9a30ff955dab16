-- Days: how many runs of which schedule fall on which day.

create or replace function fleet.is_judged_one_by_one(p_schedule public.schedules)
returns boolean
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select p_schedule.status = 'paused'
    or p_schedule.policies ?| '{execution_window,blackouts,max_runs}'
    or p_schedule.timezone = 'device'
    or fleet.leaves_out_gaps(p_schedule.recurrence)
$$;

comment on function fleet.is_judged_one_by_one(public.schedules) is
  'Whether each instant of a schedule has to be looked at to tell whether it runs; those of the others are only counted.';
revoke all on function fleet.is_judged_one_by_one(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.counted_days(
  p_schedule public.schedules,
  p_from date,
  p_to date,
  p_timezone text,
  p_now timestamptz
)
returns table (day date, would text, runs bigint, first_at timestamptz)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  -- A schedule whose instants must be judged one by one is looked at so far.
  c_most constant integer := 5000;
  -- So many are listed in one go; more are counted day by day.
  c_few constant integer := 1000;
  v_day date;
  v_from timestamptz;
  v_to timestamptz;
begin
  if fleet.is_judged_one_by_one(p_schedule) then
    return query
    -- In device time the day is the one on the walls.
    select coalesce(c.local, c.due_at at time zone p_timezone)::date, c.would, sum(coalesce(c.missed_count, 1))::bigint, min(c.due_at)
    from fleet.coming_runs(
      p_schedule, greatest(fleet.local_to_instant(p_from, p_timezone), p_now), fleet.local_to_instant(p_to, p_timezone), c_most
    ) as c
    group by 1, 2;
    return;
  end if;

  v_from := greatest(fleet.local_to_instant(p_from, p_timezone), p_now);
  v_to := fleet.local_to_instant(p_to, p_timezone);
  if fleet.count_occurrences(p_schedule.recurrence, v_from, v_to) <= c_few then
    return query
    select (i.due_at at time zone p_timezone)::date, 'run', count(*), min(i.due_at)
    from fleet.occurrences(p_schedule.recurrence, v_from, v_to) as i(due_at)
    group by 1;
    return;
  end if;

  for v_day in select g::date from generate_series(p_from, p_to - 1, interval '1 day') as g loop
    v_from := greatest(fleet.local_to_instant(v_day, p_timezone), p_now);
    v_to := fleet.local_to_instant(v_day + 1, p_timezone);
    continue when v_to <= v_from;
    day := v_day;
    would := 'run';
    runs := fleet.count_occurrences(p_schedule.recurrence, v_from, v_to);
    if runs > 0 then
      first_at := fleet.next_occurrence(p_schedule.recurrence, v_from - interval '1 microsecond');
      return next;
    end if;
  end loop;
end;
$$;

comment on function fleet.counted_days(public.schedules, date, date, text, timestamptz) is
  'How many instants of a schedule are yet to come on each day, to run or to be skipped.';
revoke all on function fleet.counted_days(public.schedules, date, date, text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.schedule_calendar(
  p_from date,
  p_to date,
  p_timezone text,
  p_now timestamptz
)
returns table (
  day date,
  schedule_id bigint,
  name text,
  action_type text,
  coming bigint,
  skipping bigint,
  completed bigint,
  failed bigint,
  skipped bigint,
  running bigint,
  first_at timestamptz,
  first_local text
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  c_schedules constant integer := 2000;
  v_owners uuid[] := fleet.owners_in_view();
begin
  if p_from is null or p_to is null or p_to <= p_from or p_to > p_from + 366 then
    raise exception 'from % to % is not a span of 1 to 366 days', coalesce(p_from::text, 'null'), coalesce(p_to::text, 'null')
      using errcode = 'PT422', detail = 'span_invalid', hint = 'p_to is the day after the last.';
  elsif not fleet.is_time_zone(p_timezone) then
    raise exception 'timezone: "%" is not a known time zone', p_timezone
      using errcode = 'PT422', detail = 'timezone_invalid', hint = 'Use an IANA name such as Europe/Berlin.';
  end if;

  return query
  with told as (
    -- In device time the day is the one on the walls.
    select coalesce(r.scheduled_local, r.scheduled_for at time zone p_timezone)::date as day, r.schedule_id,
      case when r.status in ('pending', 'running') then 'running' when r.status = 'cancelled' then 'skipped' else r.status end as state,
      sum(coalesce(r.missed_count, 1))::bigint as runs, min(r.scheduled_for) as first_at
    from public.schedule_runs as r
    where r.owner_id = any (v_owners)
      and r.scheduled_for >= fleet.local_to_instant(p_from, p_timezone)
      and r.scheduled_for < fleet.local_to_instant(p_to, p_timezone)
    group by 1, 2, 3
  ),
  expected as (
    select c.day, s.id, case c.would when 'run' then 'coming' else 'skipping' end, c.runs, c.first_at
    from (
      select x.*
      from public.schedules as x
      where x.owner_id = any (v_owners)
        and x.status in ('active', 'paused')
        and x.next_run_at < fleet.local_to_instant(p_to, p_timezone)
        and fleet.has_clock(x)
      order by x.next_run_at
      limit c_schedules
    ) as s
    cross join lateral fleet.counted_days(s, p_from, p_to, p_timezone, p_now) as c
  ),
  known as (
    select t.* from told as t
    union all
    -- Where the server has lost the zone nothing can be said but that.
    select (x.next_run_at at time zone p_timezone)::date, x.id, 'skipping', 1::bigint, x.next_run_at
    from public.schedules as x
    where x.owner_id = any (v_owners)
      and x.status in ('active', 'paused')
      and x.next_run_at >= fleet.local_to_instant(p_from, p_timezone)
      and x.next_run_at < fleet.local_to_instant(p_to, p_timezone)
      and not fleet.has_clock(x)
    union all
    select e.* from expected as e
  )
  select c.day, s.id, s.name, s.action_type, c.coming, c.skipping, c.completed, c.failed, c.skipped, c.running, c.first_at,
    fleet.clock_text(c.first_at, p_timezone)
  from (
    select k.day, k.schedule_id,
      coalesce(sum(k.runs) filter (where k.state = 'coming'), 0)::bigint as coming,
      coalesce(sum(k.runs) filter (where k.state = 'skipping'), 0)::bigint as skipping,
      coalesce(sum(k.runs) filter (where k.state = 'completed'), 0)::bigint as completed,
      coalesce(sum(k.runs) filter (where k.state = 'failed'), 0)::bigint as failed,
      coalesce(sum(k.runs) filter (where k.state = 'skipped'), 0)::bigint as skipped,
      coalesce(sum(k.runs) filter (where k.state = 'running'), 0)::bigint as running,
      -- The first that runs, if any does.
      coalesce(min(k.first_at) filter (where k.state not in ('skipping', 'skipped')), min(k.first_at)) as first_at
    from known as k
    group by k.day, k.schedule_id
  ) as c
  join public.schedules as s on s.id = c.schedule_id
  order by c.day, c.first_at, s.id;
end;
$$;

comment on function fleet.schedule_calendar(date, date, text, timestamptz) is
  'See public.schedule_calendar. Definer: it looks only at what the caller may see.';
revoke all on function fleet.schedule_calendar(date, date, text, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.schedule_calendar(date, date, text, timestamptz) to authenticated, service_role;

create or replace function public.schedule_calendar(
  p_from date,
  p_to date,
  p_timezone text default 'UTC',
  p_now timestamptz default clock_timestamp()
)
returns table (
  day date,
  schedule_id bigint,
  name text,
  action_type text,
  coming bigint,
  skipping bigint,
  completed bigint,
  failed bigint,
  skipped bigint,
  running bigint,
  first_at timestamptz,
  first_local text
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select * from fleet.schedule_calendar(p_from, p_to, p_timezone, p_now)
$$;

comment on function public.schedule_calendar(date, date, text, timestamptz) is
  'Which schedules run on which days, from p_from to before p_to, as the days are in p_timezone: what the ledger tells of the past '
  '(completed, failed, skipped, running), what is coming, and what will be skipped (skipping). Looks at the 2000 '
  'schedules that are due soonest. Raises span_invalid or timezone_invalid '
  '(PT422).';
revoke all on function public.schedule_calendar(date, date, text, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function public.schedule_calendar(date, date, text, timestamptz) to authenticated, service_role;
