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
  select r.id, r.scheduled_for,
    coalesce(r.scheduled_local, r.scheduled_for at time zone fleet.zone_clock(fleet.reference_zone(v_schedule))), r.trigger, r.status, r.reason,
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
  'A range of missed instants is one row; local_time is what the walls show, in device time each its own. Raises schedule_not_found (PT404).';
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

  p_now := fleet.calendar_instant(p_now);
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
