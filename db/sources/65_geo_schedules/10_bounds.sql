-- When an action begins and ends: a wall-clock minute of a date, read in a zone. All of it is arithmetic.

create or replace function fleet.geo_clocks(p_timezone text)
returns table (first_clock text, last_clock text)
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- On each device's own wall a time begins first at UTC+14 and ends last at UTC-12.
  if p_timezone = 'device' then
    first_clock := 'Etc/GMT-14';
    last_clock := 'Etc/GMT+12';
  else
    first_clock := fleet.zone_clock(p_timezone);
    last_clock := first_clock;
    -- A zone that the server had when it was written and has no more must not stop everybody's actions.
    perform timestamptz 'epoch' at time zone first_clock;
  end if;
  return next;
exception
  when invalid_parameter_value then
    return;
end;
$$;

comment on function fleet.geo_clocks(text) is
  'The clocks by which an action starts and ends: those of its zone; for the zone device, the first and the last on earth. No row where '
  'the server has the zone no more.';
revoke all on function fleet.geo_clocks(text) from public, anon, authenticated, service_role;

-- Bound and without settings, so that Postgres puts it in place of its calls: it is asked for every action.
create or replace function fleet.geo_action_bounds(
  p_from_date date,
  p_start_minute integer,
  p_end_minute integer,
  p_first_clock text,
  p_last_clock text
)
returns table (starts_at timestamptz, ends_at timestamptz)
language sql
immutable
begin atomic
  select s.first_at, e.last_at
  from fleet.wall_instants(p_from_date + make_interval(mins => p_start_minute), p_first_clock) as s
  cross join fleet.wall_instants(
    p_from_date + make_interval(days => case when p_end_minute > p_start_minute then 0 else 1 end, mins => p_end_minute), p_last_clock
  ) as e;
end;

comment on function fleet.geo_action_bounds(date, integer, integer, text, text) is
  'Start and end of the action of a date: an end that is not after the start is on the next day. The clocks by fleet.geo_clocks.';
revoke all on function fleet.geo_action_bounds(date, integer, integer, text, text) from public, anon, authenticated, service_role;

create or replace function fleet.is_geo_date(p_geo_schedule public.geo_schedules, p_date date)
returns boolean
language sql
immutable
parallel safe
return p_geo_schedule.recurrence = 'daily'
  or (extract(isodow from p_date)::integer - 1) = any (p_geo_schedule.days);

comment on function fleet.is_geo_date(public.geo_schedules, date) is 'Whether an action starts on this local date.';
revoke all on function fleet.is_geo_date(public.geo_schedules, date) from public, anon, authenticated, service_role;
