-- Simulation: what the whole fleet would do between two instants. Nothing is written.

create or replace function fleet.span_of_rows(p_schedules public.schedules[], p_from timestamptz, p_to timestamptz, p_limit integer)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_span interval := (p_to - p_from) / 1024;
  v_count bigint;
  v_to timestamptz;
begin
  if cardinality(p_schedules) >= p_limit then
    -- They are those that are due soonest: each has a row until the first instant of the last of them.
    select max(case
      when s.next_run_at >= p_from then s.next_run_at
      else coalesce(fleet.next_due(s.recurrence, fleet.schedule_zones(s), p_from - interval '1 microsecond'), p_from)
    end) into v_to
    from unnest(p_schedules) as s;
    return least(v_to + interval '1 microsecond', p_to);
  end if;

  -- From the beginning in growing steps: what lies behind the last row that is wanted is not looked at.
  while p_from + v_span < p_to loop
    select sum(fleet.count_due(s.recurrence, fleet.schedule_zones(s), p_from, p_from + v_span)) into v_count
    from unnest(p_schedules) as s;
    exit when v_count >= p_limit;
    v_span := v_span * 2;
  end loop;
  return least(p_from + v_span, p_to);
end;
$$;

comment on function fleet.span_of_rows(public.schedules[], timestamptz, timestamptz, integer) is
  'Until when to look so that these schedules have at least p_limit due instants, or p_to where they have not.';
revoke all on function fleet.span_of_rows(public.schedules[], timestamptz, timestamptz, integer)
  from public, anon, authenticated, service_role;

create or replace function fleet.schedules_due_within(p_owners uuid[], p_from timestamptz, p_to timestamptz, p_limit integer)
returns public.schedules[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(n.s), '{}')
  from (
    select s
    from public.schedules as s
    cross join lateral (
      select case
        when not fleet.has_clock(s) then null
        when s.next_run_at >= p_from then s.next_run_at
        else fleet.next_due(s.recurrence, fleet.schedule_zones(s), p_from - interval '1 microsecond')
      end as at
    ) as f
    where s.owner_id = any (p_owners)
      and s.status in ('active', 'paused')
      and s.next_run_at < p_to
      and fleet.has_clock(s)
      -- What is overdue has something to tell even where nothing more comes.
      and (f.at < p_to or s.next_run_at < p_from)
    order by f.at
    limit p_limit
  ) as n
$$;

comment on function fleet.schedules_due_within(uuid[], timestamptz, timestamptz, integer) is
  'The schedules of these owners that are due soonest within [p_from, p_to). Each has a row at its first instant at least, so more '
  'schedules than rows are never needed.';
revoke all on function fleet.schedules_due_within(uuid[], timestamptz, timestamptz, integer)
  from public, anon, authenticated, service_role;

create or replace function fleet.simulate_fleet(
  p_from timestamptz,
  p_to timestamptz,
  p_limit integer,
  p_now timestamptz
)
returns table (
  due_at timestamptz,
  schedule_id bigint,
  name text,
  action_type text,
  would text,
  reason text,
  starts_at timestamptz,
  devices bigint
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_limit integer := fleet.whole_number_between('p_limit', p_limit, 1, 10000);
  v_owners uuid[] := fleet.owners_in_view();
  v_schedules public.schedules[];
  v_to timestamptz;
begin
  perform fleet.require_span(p_from, p_to, '1 year');
  v_schedules := fleet.schedules_due_within(v_owners, p_from, p_to, v_limit);
  v_to := fleet.span_of_rows(v_schedules, p_from, p_to, v_limit);

  return query
  with recursive own as (
    select s.id, s.owner_id, s.name, s.action_type, c.due_at, c.starts_at, c.would,
      concat_ws(': ', c.reason, fleet.skip_detail(s, c.reason, c.zones, c.due_at, c.starts_at)) as reason,
      fleet.devices_of_zones(d.counts, coalesce(c.open_zones, c.zones)) as devices
    from unnest(v_schedules) as s
    cross join lateral fleet.device_counts(s) as d(counts)
    cross join lateral fleet.coming_runs(s, p_from, v_to, v_limit, p_from <= p_now) as c
  ),
  -- What follows another schedule does so at an instant that nobody knows yet, but not before.
  follower as (
    select o.id, o.owner_id, o.name, o.action_type, o.due_at, o.starts_at, o.would, o.reason, o.devices, 0 as depth
    from own as o
    union all
    select s.id, s.owner_id, s.name, s.action_type, f.due_at, f.starts_at, 'follow',
      format('when the run of "%s" has %s', f.name, fleet.ending_text(s.after_on)),
      fleet.devices_of_zones(fleet.device_counts(s), null), f.depth + 1
    from follower as f
    join public.schedules as s on s.after_schedule_id = f.id and s.owner_id = f.owner_id
    where s.status = 'active' and f.would <> 'skip' and f.depth < 20
  )
  select f.due_at, f.id, f.name, f.action_type, f.would, nullif(f.reason, ''),
    case when f.would <> 'skip' then f.starts_at end, f.devices
  from (
    select x.due_at, x.id, x.name, x.action_type, x.would, x.reason, x.starts_at, x.devices, x.depth from follower as x
    union all
    select s.next_run_at, s.id, s.name, s.action_type, 'skip', format('the server does not have the time zone %s', s.timezone), null, 0, 0
    from public.schedules as s
    where s.owner_id = any (v_owners)
      and s.status in ('active', 'paused')
      and s.next_run_at >= p_from
      and s.next_run_at < p_to
      and not fleet.has_clock(s)
  ) as f
  order by f.due_at, f.depth, f.id
  limit v_limit;
end;
$$;

comment on function fleet.simulate_fleet(timestamptz, timestamptz, integer, timestamptz) is
  'See public.simulate_fleet. Definer: it looks only at what the caller may see.';
revoke all on function fleet.simulate_fleet(timestamptz, timestamptz, integer, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.simulate_fleet(timestamptz, timestamptz, integer, timestamptz) to authenticated, service_role;

create or replace function public.simulate_fleet(
  p_from timestamptz default now(),
  p_to timestamptz default null,
  p_limit integer default 1000,
  p_now timestamptz default clock_timestamp()
)
returns table (
  due_at timestamptz,
  schedule_id bigint,
  name text,
  action_type text,
  would text,
  reason text,
  starts_at timestamptz,
  devices bigint
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select * from fleet.simulate_fleet(p_from, coalesce(p_to, p_from + interval '1 day'), p_limit, p_now)
$$;

comment on function public.simulate_fleet(timestamptz, timestamptz, integer, timestamptz) is
  'What all of the caller''s schedules would do within [p_from, p_to), a day without p_to, in the order of time, at most p_limit rows: '
  'run, skip with its reason, or follow another one. The engine''s own decisions, with today''s devices; nothing is written. Overlap cannot be known: nobody '
  'knows how long devices will take.';
revoke all on function public.simulate_fleet(timestamptz, timestamptz, integer, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function public.simulate_fleet(timestamptz, timestamptz, integer, timestamptz)
  to authenticated, service_role;
