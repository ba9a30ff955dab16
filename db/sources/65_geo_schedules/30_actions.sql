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

create or replace function fleet.actions_from_geo_schedule_configs(
  p_geo_schedules public.geo_schedules[],
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
  select s.id, d.date, b.starts_at, b.ends_at,
    case
      when s.timezone = 'device'
        then case when s.end_minute > s.start_minute then 0 else 1440 end + s.end_minute - s.start_minute
      else round(extract(epoch from b.ends_at - b.starts_at) / 60)::integer
    end
  from unnest(p_geo_schedules) as s
  cross join lateral fleet.geo_clocks(s.timezone) as k
  cross join generate_series(0, v_count) as n(days)
  cross join lateral (select v_first + n.days as date) as d
  cross join lateral fleet.geo_action_bounds(d.date, s.start_minute, s.end_minute, k.first_clock, k.last_clock) as b
  where (s.recurrence = 'daily' or (extract(isodow from d.date)::integer - 1) = any (s.days))
    and b.starts_at >= p_from
    and b.starts_at < p_to
    and (s.effective_from is null or s.timezone = 'device' or b.starts_at >= s.effective_from)
    and (s.effective_from is null or b.ends_at > s.effective_from)
    and (s.delay_ends_at is null or b.starts_at < s.delay_ends_at);
end;
$$;

comment on function fleet.actions_from_geo_schedule_configs(public.geo_schedules[], timestamptz, timestamptz) is
  'fleet.create_actions_from_geo_schedule_config for many at once.';
revoke all on function fleet.actions_from_geo_schedule_configs(public.geo_schedules[], timestamptz, timestamptz)
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
  from fleet.actions_from_geo_schedule_configs(array[p_geo_schedule], p_from, p_to) as a
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
  -- Looked up first: a conflict alone burns an id and writes to the log, a row that is not tried does not.
  insert into public.geo_actions (
    geo_schedule_id, owner_id, from_date, starts_at, ends_at, length_minutes, timezone, side, geometry, apps, enforce,
    unknown_location, max_location_age, update_delay_type, update_delay_seconds
  )
  select s.id, s.owner_id, a.from_date, a.starts_at, a.ends_at, a.length_minutes, s.timezone, s.side, s.geometry, s.blocked_apps,
    s.enforce, s.unknown_location, s.max_location_age, s.update_delay_type, s.update_delay_seconds
  from fleet.geo_window(p_now) as w
  cross join lateral fleet.actions_from_geo_schedule_configs(
    array(
      select x from public.geo_schedules as x
      where x.id = any (p_geo_schedule_ids) and x.deletion_status is distinct from 'DELETED'
    ),
    w.starts_at, w.ends_at
  ) as a
  join public.geo_schedules as s on s.id = a.geo_schedule_id
  where not exists (
      select 1 from public.geo_actions as x where x.geo_schedule_id = s.id and x.from_date = a.from_date
    )
  order by s.id, a.from_date
  on conflict (geo_schedule_id, from_date) do nothing;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.create_geo_actions(bigint[], timestamptz) is
  'Make the actions of these geo schedules that are missing in the window. Any number of callers may do so at once; a second call writes '
  'nothing. Answers how many were made.';
revoke all on function fleet.create_geo_actions(bigint[], timestamptz) from public, anon, authenticated, service_role;
