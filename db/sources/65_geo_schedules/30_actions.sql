-- Actions: the dated instances of geo schedules. One pure function says which there are, one statement makes those that are missing.

create or replace function fleet.geo_window(p_now timestamptz)
returns table (starts_at timestamptz, ends_at timestamptz)
language sql
immutable
begin atomic
  -- A week back: what began before the geo schedule was made, or spans midnight, is still of use.
  select p_now - interval '7 days', p_now + interval '14 days';
end;

comment on function fleet.geo_window(timestamptz) is 'The window in which actions are made: one week back to two weeks ahead.';
revoke all on function fleet.geo_window(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.geo_midnights(p_timezones text[], p_first date, p_count integer)
returns table (timezone text, date date, first_clock text, last_clock text, first_midnight timestamptz, last_midnight timestamptz)
language sql
immutable
-- Bound and without settings: part of the query that asks.
begin atomic
  select k.timezone, d.date, k.first_clock, k.last_clock,
    case when f.offset_before = f.offset_at and f.offset_at = f.offset_after then to_timestamp(f.epoch - f.offset_at) end,
    case when l.offset_before = l.offset_at and l.offset_at = l.offset_after then to_timestamp(f.epoch - l.offset_at) end
  from (
    select z.timezone, c.first_clock, c.last_clock
    from (select distinct u.name from unnest(p_timezones) as u(name)) as z(timezone)
    cross join lateral fleet.geo_clocks(z.timezone) as c
    offset 0
  ) as k
  cross join generate_series(0, p_count) as n(days)
  cross join lateral (select p_first + n.days as date) as d
  -- From before the day begins anywhere until after the next has ended everywhere: clocks that agree at these three, each less
  -- than two days from the next, have not been changed between them.
  cross join lateral (
    select e.epoch, fleet.utc_offset(k.first_clock, e.epoch - 54000) as offset_before,
      fleet.utc_offset(k.first_clock, e.epoch + 82800) as offset_at, fleet.utc_offset(k.first_clock, e.epoch + 219600) as offset_after
    from (select date_part('epoch', d.date::timestamp)::bigint as epoch) as e
    offset 0
  ) as f
  cross join lateral (
    select fleet.utc_offset(k.last_clock, f.epoch - 54000) as offset_before, fleet.utc_offset(k.last_clock, f.epoch + 82800) as offset_at,
      fleet.utc_offset(k.last_clock, f.epoch + 219600) as offset_after
    offset 0
  ) as l;
end;

comment on function fleet.geo_midnights(text[], date, integer) is
  'The midnights of these dates by the clocks by which actions of a zone start and end: from there minutes are just added. Null where the '
  'clocks are changed about then, which the slow way must see to.';
revoke all on function fleet.geo_midnights(text[], date, integer) from public, anon, authenticated, service_role;

-- Bound and without settings, so that Postgres puts it in place of its calls.
create or replace function fleet.geo_times_of(p_geo_schedule public.geo_schedules)
returns fleet.geo_times
language sql
immutable
parallel safe
return row(
  p_geo_schedule.id, p_geo_schedule.timezone, p_geo_schedule.recurrence, p_geo_schedule.days, p_geo_schedule.start_minute,
  p_geo_schedule.end_minute, p_geo_schedule.effective_from, p_geo_schedule.delay_ends_at
)::fleet.geo_times;

comment on function fleet.geo_times_of(public.geo_schedules) is 'What a geo schedule says of when.';
revoke all on function fleet.geo_times_of(public.geo_schedules) from public, anon, authenticated, service_role;

create or replace function fleet.actions_of_geo_times(
  p_times fleet.geo_times[],
  p_from timestamptz,
  p_to timestamptz
)
returns table (geo_schedule_id bigint, from_date date, starts_at timestamptz, ends_at timestamptz, length_minutes integer)
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
-- Planned once a session, not once a call.
set plan_cache_mode = force_generic_plan
-- The estimate is high, the work is not worth compiling.
set jit = off
as $$
declare
  -- Each zone's date is within a day of that of UTC; what is outside of the window is left out by its instant.
  v_first date := (p_from at time zone 'UTC')::date - 2;
  v_count integer := (p_to at time zone 'UTC')::date - v_first + 2;
begin
  return query
  with midnights as materialized (
    select m.* from fleet.geo_midnights(array(select s.timezone from unnest(p_times) as s), v_first, v_count) as m
  )
  select s.id, m.date, b.starts_at, b.ends_at,
    case
      when s.timezone = 'device' or (m.first_midnight is not null and m.last_midnight is not null)
        then s.last_minute - s.start_minute
      else round(extract(epoch from b.ends_at - b.starts_at) / 60)::integer
    end
  from (
    -- An end that is not after the start is on the next day.
    select u.id, u.timezone, u.recurrence, u.days, u.effective_from, u.delay_ends_at, u.start_minute::integer, u.end_minute::integer,
      case when u.end_minute > u.start_minute then 0 else 1440 end + u.end_minute as last_minute
    from unnest(p_times) as u
    offset 0
  ) as s
  join midnights as m on m.timezone = s.timezone
  cross join lateral (
    select
      case
        when m.first_midnight is not null then m.first_midnight + make_interval(mins => s.start_minute)
        else (
          select x.starts_at
          from fleet.geo_action_bounds(m.date, s.start_minute, s.end_minute, m.first_clock, m.last_clock) as x
        )
      end as starts_at,
      case
        when m.last_midnight is not null then m.last_midnight + make_interval(mins => s.last_minute)
        else (
          select x.ends_at
          from fleet.geo_action_bounds(m.date, s.start_minute, s.end_minute, m.first_clock, m.last_clock) as x
        )
      end as ends_at
    offset 0
  ) as b
  where (s.recurrence = 'daily' or (extract(isodow from m.date)::integer - 1) = any (s.days))
    and b.starts_at >= p_from
    and b.starts_at < p_to
    and (s.effective_from is null or s.timezone = 'device' or b.starts_at >= s.effective_from)
    and (s.effective_from is null or b.ends_at > s.effective_from)
    and (s.delay_ends_at is null or b.starts_at < s.delay_ends_at);
end;
$$;

comment on function fleet.actions_of_geo_times(fleet.geo_times[], timestamptz, timestamptz) is
  'The actions of many geo schedules that start within [p_from, p_to): see fleet.create_actions_from_geo_schedule_config.';
revoke all on function fleet.actions_of_geo_times(fleet.geo_times[], timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.create_actions_from_geo_schedule_config(
  p_geo_schedule public.geo_schedules,
  p_from timestamptz,
  p_to timestamptz
)
returns table (from_date date, starts_at timestamptz, ends_at timestamptz, length_minutes integer)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select a.from_date, a.starts_at, a.ends_at, a.length_minutes
  from fleet.actions_of_geo_times(array[fleet.geo_times_of(p_geo_schedule)], p_from, p_to) as a
$$;

comment on function fleet.create_actions_from_geo_schedule_config(public.geo_schedules, timestamptz, timestamptz) is
  'The actions of a geo schedule that start within [p_from, p_to), one a start date: none before effective_from, none from the end of the '
  'delay on. Pure: the same arguments give the same actions, whatever is stored.';
revoke all on function fleet.create_actions_from_geo_schedule_config(public.geo_schedules, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.create_geo_actions(p_geo_schedule_ids bigint[], p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  -- Nearly every device that asks has no geo schedule.
  if p_geo_schedule_ids = '{}' then
    return 0;
  end if;
  with there as materialized (
    -- Looked up first: a conflict alone burns an id and writes to the log, a row that is not tried does not. All at once: one by
    -- one they would take longer than it takes to say what there should be.
    select a.geo_schedule_id, a.from_date
    from unnest(p_geo_schedule_ids) as i(id)
    join public.geo_actions as a on a.geo_schedule_id = i.id and a.from_date >= (p_now at time zone 'UTC')::date - 9
  ), missing as materialized (
    select a.geo_schedule_id, a.from_date, a.starts_at, a.ends_at, a.length_minutes
    from fleet.geo_window(p_now) as w
    cross join lateral fleet.actions_of_geo_times(
      array(
        select fleet.geo_times_of(s)
        from public.geo_schedules as s
        where s.id = any (p_geo_schedule_ids) and s.deletion_status is distinct from 'DELETED'
      ),
      w.starts_at, w.ends_at
    ) as a
    where not exists (select 1 from there as x where x.geo_schedule_id = a.geo_schedule_id and x.from_date = a.from_date)
  ), held as materialized (
    -- Instead of a foreign key, which would look for each action by itself: whoever removes one of these waits until its actions
    -- are there, and takes them along; one that was removed meanwhile is not among them any more.
    select s.*
    from public.geo_schedules as s
    where s.id in (select m.geo_schedule_id from missing as m)
    order by s.id
    for key share of s
  )
  insert into public.geo_actions (
    geo_schedule_id, owner_id, from_date, starts_at, ends_at, length_minutes, timezone, side, geometry, apps, enforce,
    unknown_location, max_location_age, update_delay_type, update_delay_seconds
  )
  select s.id, s.owner_id, m.from_date, m.starts_at, m.ends_at, m.length_minutes, s.timezone, s.side, s.geometry, s.blocked_apps,
    s.enforce, s.unknown_location, s.max_location_age, s.update_delay_type, s.update_delay_seconds
  from missing as m
  join held as s on s.id = m.geo_schedule_id
  -- In one order, so that any number of callers wait for each other and never in a circle.
  order by m.geo_schedule_id, m.from_date
  on conflict (geo_schedule_id, from_date) do nothing;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.create_geo_actions(bigint[], timestamptz) is
  'Make the actions of these geo schedules that are missing in the window. Any number of callers may do so at once; a second call writes '
  'nothing. Answers how many were made.';
revoke all on function fleet.create_geo_actions(bigint[], timestamptz) from public, anon, authenticated, service_role;
