-- How long a change waits: the commitment. Pure: a geo schedule, a zone and an instant say it all.

create or replace function fleet.geo_clock(p_timezone text)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce((select c.first_clock from fleet.geo_clocks(p_timezone) as c), 'UTC')
$$;

comment on function fleet.geo_clock(text) is
  'The clock of a zone; UTC where the server has the zone no more, so that what names it can still be changed and deleted.';
revoke all on function fleet.geo_clock(text) from public, anon, authenticated, service_role;

create or replace function fleet.geo_running_end(p_geo_schedule public.geo_schedules, p_timezone text, p_at timestamptz)
returns timestamptz
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_clock text := fleet.geo_clock(p_timezone);
  v_today date := (p_at at time zone v_clock)::date;
begin
  return (
    select max(b.ends_at)
    from generate_series(-2, 1) as n(days)
    cross join lateral fleet.geo_action_bounds(
      v_today + n.days, p_geo_schedule.start_minute, p_geo_schedule.end_minute, v_clock, v_clock
    ) as b
    where fleet.is_geo_date(p_geo_schedule, v_today + n.days)
      and b.starts_at <= p_at
      and b.ends_at > p_at
      and (p_geo_schedule.effective_from is null or b.starts_at >= p_geo_schedule.effective_from)
  );
end;
$$;

comment on function fleet.geo_running_end(public.geo_schedules, text, timestamptz) is
  'The end of the action that is running at this instant on a wall of the zone; null where none is.';
revoke all on function fleet.geo_running_end(public.geo_schedules, text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.geo_delay_end(p_geo_schedule public.geo_schedules, p_timezone text, p_changed_at timestamptz)
returns timestamptz
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_clock text;
begin
  case p_geo_schedule.update_delay_type
    when 'fixed' then
      return p_changed_at + make_interval(secs => p_geo_schedule.update_delay_seconds);
    when 'until_end_of_current_action' then
      return coalesce(fleet.geo_running_end(p_geo_schedule, p_timezone, p_changed_at), p_changed_at);
    when 'until_next_day' then
      v_clock := fleet.geo_clock(p_timezone);
      return (
        select least(w.first_at, p_changed_at + interval '7 days')
        from fleet.wall_instants(((p_changed_at at time zone v_clock)::date + 1)::timestamp, v_clock) as w
      );
    else
      return p_changed_at;
  end case;
end;
$$;

comment on function fleet.geo_delay_end(public.geo_schedules, text, timestamptz) is
  'When a change made at this instant counts on a wall of the zone: until then the geo schedule is respected as if nobody had said '
  'anything. At most a week later.';
revoke all on function fleet.geo_delay_end(public.geo_schedules, text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.geo_commitment_end(
  p_geo_schedule public.geo_schedules,
  p_timezone text,
  p_effective_from timestamptz,
  p_changed_at timestamptz
)
returns timestamptz
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  -- What is not yet in force has promised nothing.
  select case
    when p_effective_from > p_changed_at then p_changed_at
    else fleet.geo_delay_end(p_geo_schedule, p_timezone, p_changed_at)
  end
$$;

comment on function fleet.geo_commitment_end(public.geo_schedules, text, timestamptz, timestamptz) is
  'Until when a device owes a geo schedule that was changed or left at this instant; at once where it was not in force yet.';
revoke all on function fleet.geo_commitment_end(public.geo_schedules, text, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.should_be_executed(p_action public.geo_actions, p_geo_schedule public.geo_schedules, p_now timestamptz)
returns boolean
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select p_now < p_action.ends_at
    and (p_geo_schedule.effective_from is null or p_action.starts_at >= p_geo_schedule.effective_from)
    and case
      when p_geo_schedule.delete_started_date is null or p_now < p_geo_schedule.delete_started_date then true
      -- Without a delay a change counts at once, also for what is running.
      when p_geo_schedule.update_delay_type = 'none' then false
      else p_action.starts_at < coalesce(
        p_geo_schedule.delay_ends_at,
        fleet.geo_commitment_end(
          p_geo_schedule, coalesce(nullif(p_action.timezone, 'device'), 'UTC'), p_geo_schedule.effective_from,
          p_geo_schedule.delete_started_date
        )
      )
    end
$$;

comment on function fleet.should_be_executed(public.geo_actions, public.geo_schedules, timestamptz) is
  'Whether an action counts at this instant, by the end of the action and the geo schedule''s delete_started_date, update_delay_type and '
  'update_delay_seconds: what starts before the delay is over runs to its end; with no delay nothing does.';
revoke all on function fleet.should_be_executed(public.geo_actions, public.geo_schedules, timestamptz)
  from public, anon, authenticated, service_role;
