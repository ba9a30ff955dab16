-- Generated from db/sources/65_geo_schedules by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/65_geo_schedules/10_bounds.sql
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

-- db/sources/65_geo_schedules/20_delays.sql
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

-- db/sources/65_geo_schedules/30_actions.sql
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

-- db/sources/65_geo_schedules/40_spec.sql
-- A geo schedule in JSON: what is wrong with it, and the row that it makes.

create or replace function fleet.geo_schedule_keys()
returns table (key text, kind text)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  values
    ('owner_id', 'uuid'), ('name', 'text'), ('device_id', 'id'), ('device', 'text'), ('group_id', 'id'), ('group', 'text'),
    ('location_id', 'id'), ('location', 'text'), ('side', 'text'), ('apps', 'texts'), ('categories', 'texts'),
    ('enforce', 'object'), ('start_minute', 'minute'), ('end_minute', 'minute'), ('recurrence', 'text'), ('days', 'days'),
    ('timezone', 'text'), ('update_delay_type', 'text'), ('update_delay_seconds', 'seconds'), ('unknown_location', 'text'),
    ('max_location_age', 'duration'), ('notes', 'text')
$$;

comment on function fleet.geo_schedule_keys() is 'The keys of a geo schedule in JSON, and what each holds.';
revoke all on function fleet.geo_schedule_keys() from public, anon, authenticated, service_role;

create or replace function fleet.geo_value_problem(p_kind text, p_value jsonb)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case p_kind
    when 'text' then case when jsonb_typeof(p_value) <> 'string' then 'must be text' end
    when 'uuid' then case when fleet.try_uuid(p_value #>> '{}') is null then 'is not a uuid' end
    when 'object' then case when jsonb_typeof(p_value) <> 'object' then 'must be an object' end
    when 'texts' then case
      when jsonb_typeof(p_value) <> 'array' or jsonb_path_exists(p_value, '$[*] ? (@.type() != "string")')
        then 'must be a list of text'
    end
    when 'days' then case
      when jsonb_typeof(p_value) <> 'array' or p_value::text !~ '^\[([0-6](, [0-6])*)?\]$'
        then 'must be a list of days, 0 (Monday) to 6'
    end
    when 'duration' then case
      when jsonb_typeof(p_value) <> 'string' or fleet.try_interval(p_value #>> '{}') is null then 'is no duration'
    end
    else case
      when jsonb_typeof(p_value) <> 'number' or (p_value #>> '{}') !~ '^[0-9]{1,18}$' then 'must be a whole number'
      when p_kind = 'minute' and (p_value #>> '{}')::bigint > 1439 then 'is not within 0 to 1439'
      when p_kind = 'seconds' and (p_value #>> '{}')::bigint > 604800 then 'is not within 0 to 604800'
    end
  end
$$;

comment on function fleet.geo_value_problem(text, jsonb) is 'What is wrong with the type of a value; null where nothing is.';
revoke all on function fleet.geo_value_problem(text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.geo_spec_problems(p_spec jsonb)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select e.key, 'is not a key of a geo schedule',
    format('The keys are %s.', (select string_agg(k.key, ', ') from fleet.geo_schedule_keys() as k))
  from jsonb_each(p_spec) as e
  where not exists (select 1 from fleet.geo_schedule_keys() as k where k.key = e.key)
  union all
  select e.key, format('%s: it is %s', q.problem, left(e.value::text, 60)), case k.kind
      when 'minute' then 'Minutes past midnight: 1320 is 22:00.'
      when 'seconds' then 'At most 604800 seconds, a week.'
      when 'duration' then 'Example: "1 hour".'
      when 'texts' then format('Example: {"%s": ["one", "two"]}', e.key)
      when 'days' then 'Example: {"days": [0, 1, 2, 3, 4]}'
      when 'object' then 'Example: {"enforce": {"profile_id": "7"}}'
      else 'Write the value as its type asks.'
    end
  from jsonb_each(p_spec) as e
  join fleet.geo_schedule_keys() as k on k.key = e.key
  cross join lateral (select fleet.geo_value_problem(k.kind, e.value) as problem) as q
  where e.value <> 'null' and q.problem is not null
$$;

comment on function fleet.geo_spec_problems(jsonb) is 'Keys of a geo schedule in JSON that are unknown or hold something of another type.';
revoke all on function fleet.geo_spec_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.geo_name_problems(p_owner_id uuid, p_spec jsonb)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select n.key, format('%s "%s" was not found', n.key, left(p_spec ->> n.key, 60)), format('List them with: select * from %s_list', n.key)
  from (values
    ('device', (select d.id from public.devices as d where d.owner_id = p_owner_id and lower(d.hostname) = lower(p_spec ->> 'device'))),
    ('group', (select g.id from public.device_groups as g where g.owner_id = p_owner_id and lower(g.name) = lower(p_spec ->> 'group'))),
    ('location',
      (select l.id from public.locations as l where l.owner_id = p_owner_id and lower(l.name) = lower(p_spec ->> 'location')))
  ) as n(key, id)
  where jsonb_typeof(p_spec -> n.key) = 'string' and n.id is null
$$;

comment on function fleet.geo_name_problems(uuid, jsonb) is 'Names in a specification that nobody has among the owner''s.';
revoke all on function fleet.geo_name_problems(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.geo_schedule_with(p_row public.geo_schedules, p_spec jsonb)
returns public.geo_schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.geo_schedules := jsonb_populate_record(
    p_row, fleet.without_nulls(p_spec) - '{owner_id,device,group,location,enforce}'::text[]
  );
begin
  if p_spec ? 'enforce' then
    v_row.enforce := nullif(p_spec -> 'enforce', 'null');
  end if;
  if jsonb_typeof(p_spec -> 'device') = 'string' then
    v_row.device_id := (
      select d.id from public.devices as d where d.owner_id = p_row.owner_id and lower(d.hostname) = lower(p_spec ->> 'device')
    );
  end if;
  if jsonb_typeof(p_spec -> 'group') = 'string' then
    v_row.group_id := (
      select g.id from public.device_groups as g where g.owner_id = p_row.owner_id and lower(g.name) = lower(p_spec ->> 'group')
    );
  end if;
  if jsonb_typeof(p_spec -> 'location') = 'string' then
    v_row.location_id := (
      select l.id from public.locations as l where l.owner_id = p_row.owner_id and lower(l.name) = lower(p_spec ->> 'location')
    );
  end if;

  -- Whoever names the one means it instead of the other.
  if p_spec ?| '{device,device_id}' and not p_spec ?| '{group,group_id}' then
    v_row.group_id := null;
  elsif p_spec ?| '{group,group_id}' and not p_spec ?| '{device,device_id}' then
    v_row.device_id := null;
  end if;
  if v_row.side = 'anywhere' and not p_spec ?| '{location,location_id}' then
    v_row.location_id := null;
  end if;
  if v_row.recurrence = 'daily' and not p_spec ? 'days' then
    v_row.days := '{}';
  end if;
  return v_row;
end;
$$;

comment on function fleet.geo_schedule_with(public.geo_schedules, jsonb) is
  'The row with what a specification of the right types says. Null says nothing, but for enforce.';
revoke all on function fleet.geo_schedule_with(public.geo_schedules, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.empty_geo_schedule(p_owner_id uuid)
returns public.geo_schedules
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_populate_record(null::public.geo_schedules, jsonb_build_object(
    'owner_id', p_owner_id, 'side', 'anywhere', 'apps', '[]'::jsonb, 'categories', '[]'::jsonb, 'recurrence', 'daily',
    'days', '[]'::jsonb, 'timezone', 'UTC', 'update_delay_type', 'none', 'update_delay_seconds', 0,
    'unknown_location', 'keep_last', 'max_location_age', '1 hour', 'notes', ''
  ))
$$;

comment on function fleet.empty_geo_schedule(uuid) is 'A row of nothing but the defaults.';
revoke all on function fleet.empty_geo_schedule(uuid) from public, anon, authenticated, service_role;

create or replace function fleet.checked_geo_schedule(p_row public.geo_schedules, p_spec jsonb)
returns public.geo_schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_problems fleet.problem[];
  v_fields text[];
  v_row public.geo_schedules;
begin
  if jsonb_typeof(p_spec) is distinct from 'object' then
    raise exception 'a geo schedule must be a JSON object'
      using errcode = 'PT422', detail = 'geo_schedule_invalid',
            hint = 'Example: {"name": "No games at school", "group": "class-7", "apps": ["steam"], "start_minute": 480, "end_minute": 900}';
  end if;
  perform fleet.require_size('the geo schedule', 'spec', p_spec);
  v_problems := array(
    select q from fleet.geo_spec_problems(p_spec) as q
    union all
    select q from fleet.geo_name_problems(p_row.owner_id, p_spec) as q
  );
  v_fields := array(select p.field from unnest(v_problems) as p);

  -- What has the wrong type is left out, so that everything else is still checked in the same answer.
  v_row := fleet.geo_schedule_with(p_row, p_spec - v_fields);
  perform fleet.raise_problems('the geo schedule', 'geo_schedule_invalid', v_problems || array_agg(q))
  from fleet.geo_schedule_problems(v_row) as q
  where q.field <> all (v_fields)
    -- Who is named but unknown is not nobody.
    and not (q.field = 'device_id' and v_fields && '{device,group}')
    and not (q.field = 'location_id' and 'location' = any (v_fields));
  return v_row;
end;
$$;

comment on function fleet.checked_geo_schedule(public.geo_schedules, jsonb) is
  'The row that a specification makes of another. Raises geo_schedule_invalid (PT422; PT404 for what was not found) naming every wrong field.';
revoke all on function fleet.checked_geo_schedule(public.geo_schedules, jsonb) from public, anon, authenticated, service_role;

-- db/sources/65_geo_schedules/45_problems.sql
-- What a geo schedule may say, however it is written.

create or replace function fleet.geo_choice_problems(p_row public.geo_schedules)
returns setof fleet.problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select c.field, coalesce(format('"%s" is not one of %s', left(c.value, 60), c.choices), 'is missing'), format('Use one of %s.', c.choices)
  from (values
    ('side', p_row.side, 'inside, outside, anywhere'),
    ('recurrence', p_row.recurrence, 'daily, weekly'),
    ('update_delay_type', p_row.update_delay_type, 'none, fixed, until_end_of_current_action, until_next_day'),
    ('unknown_location', p_row.unknown_location, 'keep_last, block, free')
  ) as c(field, value, choices)
  where c.value is null or c.value <> all (string_to_array(c.choices, ', '));
end;
$$;

comment on function fleet.geo_choice_problems(public.geo_schedules) is 'Columns that hold none of the words they may hold.';
revoke all on function fleet.geo_choice_problems(public.geo_schedules) from public, anon, authenticated, service_role;

create or replace function fleet.geo_list_problems(p_row public.geo_schedules)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select l.field, 'has ' || cardinality(l.items) || ' entries', format('At most %s.', l.most)
  from (values ('apps', p_row.apps, 500), ('categories', p_row.categories, 50)) as l(field, items, most)
  where cardinality(l.items) > l.most
  union all
  select l.field, 'holds a name that is empty or longer than 200 characters', 'Names of programs or bundle ids, such as "steam".'
  from (values ('apps', p_row.apps), ('categories', p_row.categories)) as l(field, items)
  where exists (select 1 from unnest(l.items) as i(name) where i.name is null or btrim(i.name) = '' or char_length(i.name) > 200)
  union all
  select 'categories', format('category "%s" was not found', left(i.name, 60)), 'Make it first: insert into app_categories (name, apps) values (<name>, <apps>)'
  from unnest(p_row.categories) as i(name)
  where not exists (
    select 1 from public.app_categories as c where c.owner_id = p_row.owner_id and lower(c.name) = lower(i.name)
  )
  union all
  select 'apps', 'names nothing to block', 'Name apps or categories, or enforce by a profile.'
  where cardinality(p_row.apps) = 0 and cardinality(p_row.categories) = 0 and p_row.enforce is null
  union all
  select 'enforce', 'must hold profile_id and nothing else', 'Example: {"enforce": {"profile_id": "7"}}'
  where p_row.enforce is not null
    and (
      jsonb_typeof(p_row.enforce) <> 'object'
      or p_row.enforce - 'profile_id' <> '{}'
      or coalesce(jsonb_typeof(p_row.enforce -> 'profile_id') <> 'string', true)
      or btrim(p_row.enforce ->> 'profile_id') = ''
      or char_length(p_row.enforce ->> 'profile_id') > 200
    );
end;
$$;

comment on function fleet.geo_list_problems(public.geo_schedules) is 'What is wrong with what is to be blocked, and how.';
revoke all on function fleet.geo_list_problems(public.geo_schedules) from public, anon, authenticated, service_role;

create or replace function fleet.geo_schedule_problems(p_row public.geo_schedules)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select 'name', case when btrim(coalesce(p_row.name, '')) = '' then 'is missing' else 'is longer than 200 characters' end, 'A name of up to 200 characters.'
  where btrim(coalesce(p_row.name, '')) = '' or char_length(p_row.name) > 200
  union all
  select 'notes', 'is longer than 4000 characters', 'Shorten it.' where char_length(p_row.notes) > 4000
  union all
  select q.field, q.problem, q.hint from fleet.geo_choice_problems(p_row) as q
  union all
  select q.field, q.problem, q.hint from fleet.geo_list_problems(p_row) as q
  union all
  select m.field, coalesce(m.value || ' is not within 0 to 1439', 'is missing'), 'Minutes past midnight: 1320 is 22:00.'
  from (values ('start_minute', p_row.start_minute), ('end_minute', p_row.end_minute)) as m(field, value)
  where m.value is null or m.value not between 0 and 1439
  union all
  select 'days', 'is for a weekly geo schedule, and needs at least one day there', 'Example: {"recurrence": "weekly", "days": [0, 1, 2, 3, 4]}'
  where (p_row.recurrence = 'weekly') <> (cardinality(p_row.days) > 0)
  union all
  select 'days', 'holds a day that is not within 0 (Monday) to 6, or one twice', 'Example: [0, 1, 2, 3, 4]'
  where not p_row.days <@ '{0,1,2,3,4,5,6}' or cardinality(p_row.days) <> (select count(distinct d) from unnest(p_row.days) as d)
  union all
  select 'timezone', format('"%s" is not a time zone', left(p_row.timezone, 60)), 'An IANA name such as Europe/Berlin, or device.'
  where p_row.timezone is distinct from 'device' and not fleet.is_time_zone(p_row.timezone)
  union all
  select 'update_delay_seconds', p_row.update_delay_seconds || ' is not within 0 to 604800', 'A delay lasts at most a week.'
  where p_row.update_delay_seconds not between 0 and 604800
  union all
  select 'update_delay_seconds', 'goes with update_delay_type fixed, and fixed with it', 'Example: {"update_delay_type": "fixed", "update_delay_seconds": 86400}'
  where (p_row.update_delay_type = 'fixed') <> (p_row.update_delay_seconds > 0)
  union all
  select 'max_location_age', 'is not within 1 minute to 7 days', 'The default is "1 hour".'
  where coalesce(p_row.max_location_age not between interval '1 minute' and interval '7 days', true)
  union all
  select 'device_id', case when p_row.device_id is null then 'is missing' else 'and group_id exclude each other' end, 'Name one device or one group.'
  where (p_row.device_id is null) = (p_row.group_id is null)
  union all
  select 'device_id', format('device %s was not found', p_row.device_id), 'List your devices with: select * from device_list'
  where p_row.device_id is not null
    and not exists (select 1 from public.devices as d where d.id = p_row.device_id and d.owner_id = p_row.owner_id)
  union all
  select 'group_id', format('group %s was not found', p_row.group_id), 'List your groups with: select * from group_list'
  where p_row.group_id is not null
    and not exists (select 1 from public.device_groups as g where g.id = p_row.group_id and g.owner_id = p_row.owner_id)
  union all
  select 'location_id', case when p_row.location_id is null then 'is missing' else 'goes with side inside or outside' end, 'Name a location and a side, or anywhere and none.'
  where (p_row.location_id is null) <> (p_row.side = 'anywhere')
  union all
  select 'location_id', format('location %s was not found', p_row.location_id), 'List your locations with: select * from location_list'
  where p_row.location_id is not null
    and not exists (select 1 from public.locations as l where l.id = p_row.location_id and l.owner_id = p_row.owner_id);
end;
$$;

comment on function fleet.geo_schedule_problems(public.geo_schedules) is 'Everything that is wrong with a geo schedule as it is written.';
revoke all on function fleet.geo_schedule_problems(public.geo_schedules) from public, anon, authenticated, service_role;

create or replace function fleet.app_category_problems(p_row public.app_categories)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select 'name', 'must be 1 to 200 characters', 'Such as games.'
  where btrim(coalesce(p_row.name, '')) = '' or char_length(p_row.name) > 200
  union all
  select 'apps', 'must be 1 to 500 names of up to 200 characters', 'Names of programs or bundle ids, such as "steam".'
  where coalesce(cardinality(p_row.apps), 0) not between 1 and 500
    or exists (select 1 from unnest(p_row.apps) as a(name) where a.name is null or btrim(a.name) = '' or char_length(a.name) > 200)
$$;

comment on function fleet.app_category_problems(public.app_categories) is 'Everything that is wrong with a category as it is written.';
revoke all on function fleet.app_category_problems(public.app_categories) from public, anon, authenticated, service_role;

-- db/sources/65_geo_schedules/47_snapshots.sql
-- What a geo schedule keeps of its location and categories: what is changed later is an update of it, not a way around it.

create or replace function fleet.geo_schedule_with_snapshots(p_row public.geo_schedules)
returns public.geo_schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.geo_schedules := p_row;
begin
  v_row.blocked_apps := array(
    select distinct x.app
    from (
      select unnest(p_row.apps) as app
      union all
      select unnest(c.apps)
      from public.app_categories as c
      where c.owner_id = p_row.owner_id
        and lower(c.name) in (select lower(n.name) from unnest(p_row.categories) as n(name))
    ) as x
    order by x.app
  );
  if cardinality(v_row.blocked_apps) > 2000 then
    perform fleet.raise_problems('the geo schedule', 'geo_schedule_invalid', array[
      row('categories', format('make %s apps with those named', cardinality(v_row.blocked_apps)), 'At most 2000 in all.')::fleet.problem
    ]);
  end if;
  v_row.geometry := (
    select fleet.without_nulls(jsonb_build_object(
      'kind', l.kind, 'latitude', l.latitude, 'longitude', l.longitude, 'radius_m', l.radius_m, 'polygon', l.polygon,
      'reach_m', l.reach_m, 'hysteresis_m', l.hysteresis_m
    ))
    from public.locations as l
    where l.id = p_row.location_id and l.owner_id = p_row.owner_id
  );
  return v_row;
end;
$$;

comment on function fleet.geo_schedule_with_snapshots(public.geo_schedules) is
  'The row with blocked_apps and geometry as they are now. Raises geo_schedule_invalid (PT422) where the categories hold too much.';
revoke all on function fleet.geo_schedule_with_snapshots(public.geo_schedules) from public, anon, authenticated, service_role;

create or replace function fleet.is_category_used(p_category public.app_categories)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select 1
    from public.geo_schedules as s
    where s.owner_id = p_category.owner_id
      and s.deletion_status is null
      and lower(p_category.name) in (select lower(n.name) from unnest(s.categories) as n(name))
  )
$$;

comment on function fleet.is_category_used(public.app_categories) is 'Whether a live geo schedule names the category.';
revoke all on function fleet.is_category_used(public.app_categories) from public, anon, authenticated, service_role;

-- db/sources/65_geo_schedules/48_ring.sql
-- Doorbells: an agent hears at once of what has changed for it.

create or replace function fleet.ring_for_geo_actions(p_device_ids bigint[], p_now timestamptz)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  insert into fleet.doorbells (device_id, owner_id, ring_at, command_type)
  select distinct x.device_id, d.owner_id, p_now, 'geo_actions'
  from unnest(p_device_ids) as x(device_id)
  join public.devices as d on d.id = x.device_id
  where not exists (
    select 1 from fleet.doorbells as b where b.device_id = x.device_id and b.command_id is null
  )
  on conflict (device_id, ring_at) do nothing
$$;

comment on function fleet.ring_for_geo_actions(bigint[], timestamptz) is
  'Leave it to the tick to ring these devices, which are to ask for their geo actions.';
revoke all on function fleet.ring_for_geo_actions(bigint[], timestamptz) from public, anon, authenticated, service_role;

-- db/sources/65_geo_schedules/50_scope.sql
-- Who owes a geo schedule, from when until when. Leaving its scope is a change like any other: it counts when the delay is over.

create or replace function fleet.geo_scope(p_geo_schedule_ids bigint[], p_device_ids bigint[] default null)
returns table (geo_schedule_id bigint, owner_id uuid, device_id bigint, hostname text, serial_number text, timezone text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with meant as (
    select s.id, s.owner_id, s.device_id as only_device_id, s.group_id, s.timezone, g.selector
    from public.geo_schedules as s
    left join public.device_groups as g on g.id = s.group_id and g.owner_id = s.owner_id
    where s.id = any (p_geo_schedule_ids) and s.deletion_status is null
  ), reached as (
    select m.id, m.owner_id, m.only_device_id as device_id, m.timezone from meant as m where m.only_device_id is not null
    union
    select m.id, m.owner_id, x.device_id, m.timezone
    from meant as m
    join public.device_group_members as x on x.group_id = m.group_id and x.owner_id = m.owner_id
    union
    select m.id, m.owner_id, d.id, m.timezone
    from meant as m
    join public.devices as d on d.owner_id = m.owner_id and fleet.device_matches(m.selector, d.tags, d.platform, d.attributes, d.reported)
    where m.selector is not null and (p_device_ids is null or d.id = any (p_device_ids))
  )
  select r.id, r.owner_id, d.id, d.hostname, coalesce(d.attributes ->> 'serial_number', d.reported ->> 'serial_number'),
    case r.timezone
      -- As with schedules: who has none goes by the owner's wall.
      when 'device' then coalesce((select z.name from fleet.time_zones as z where z.name = d.timezone), o.timezone)
      else r.timezone
    end
  from reached as r
  join public.owners as o on o.id = r.owner_id
  join public.devices as d on d.id = r.device_id and d.owner_id = r.owner_id and d.status = 'active'
  where p_device_ids is null or d.id = any (p_device_ids)
$$;

comment on function fleet.geo_scope(bigint[], bigint[]) is
  'Which active devices these geo schedules are for at this moment, and the zone in which each reads them. Deleted ones are for nobody.';
revoke all on function fleet.geo_scope(bigint[], bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.geo_promised_from(p_geo_schedule public.geo_schedules, p_device_id bigint, p_now timestamptz)
returns timestamptz
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- What the device still owes of the one that this replaces, or of this one under another zone, goes first. One that never
  -- came into force hands on the instant at which it would have.
  select max(u.at)
  from public.geo_commitments as c
  cross join lateral (
    select case when c.effective_from > c.until then c.effective_from else c.until end as at
  ) as u
  where c.geo_schedule_id in (p_geo_schedule.id, p_geo_schedule.replaces)
    and c.device_id = p_device_id
    and c.override_reason is null
    and u.at > p_now
$$;

comment on function fleet.geo_promised_from(public.geo_schedules, bigint, timestamptz) is
  'From when a device owes a geo schedule: the end of what it owes already; null for at once.';
revoke all on function fleet.geo_promised_from(public.geo_schedules, bigint, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.end_geo_commitments(p_geo_schedule_ids bigint[], p_device_ids bigint[], p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
  v_to_ring bigint[];
begin
  with ended as (
    update public.geo_commitments as c
    set until = fleet.geo_commitment_end(s, c.timezone, c.effective_from, p_now)
    from public.geo_schedules as s
    where s.id = any (p_geo_schedule_ids)
      and c.geo_schedule_id = s.id
      and c.until is null
      and (p_device_ids is null or c.device_id = any (p_device_ids))
      and not exists (
        select 1
        from fleet.geo_scope(array[s.id], array[c.device_id]) as x
        where x.timezone = c.timezone
      )
    returning c.device_id, s.enforce
  )
  select count(*), array_agg(e.device_id) filter (where e.enforce is null) into v_count, v_to_ring
  from ended as e;
  perform fleet.ring_for_geo_actions(v_to_ring, p_now);
  return v_count;
end;
$$;

comment on function fleet.end_geo_commitments(bigint[], bigint[], timestamptz) is
  'Whoever left the scope, or reads it in another zone, owes it until the delay is over. Answers how many.';
revoke all on function fleet.end_geo_commitments(bigint[], bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.reconcile_geo_scope(p_geo_schedule_ids bigint[], p_device_ids bigint[], p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ended integer;
  v_begun integer;
  v_to_ring bigint[];
begin
  if cardinality(p_geo_schedule_ids) = 0 then
    return 0;
  end if;
  v_ended := fleet.end_geo_commitments(p_geo_schedule_ids, p_device_ids, p_now);
  with begun as (
    insert into public.geo_commitments as c (
      geo_schedule_id, device_id, owner_id, hostname, serial_number, timezone, effective_from
    )
    select x.geo_schedule_id, x.device_id, x.owner_id, x.hostname, x.serial_number, x.timezone,
      fleet.geo_promised_from(s, x.device_id, p_now)
    from fleet.geo_scope(p_geo_schedule_ids, p_device_ids) as x
    join public.geo_schedules as s on s.id = x.geo_schedule_id
    where not exists (
      select 1
      from public.geo_commitments as o
      where o.geo_schedule_id = x.geo_schedule_id and o.device_id = x.device_id and o.until is null
    )
    on conflict (geo_schedule_id, device_id) where until is null do nothing
    returning c.device_id, c.geo_schedule_id
  )
  select count(*), array_agg(b.device_id) filter (where s.enforce is null) into v_begun, v_to_ring
  from begun as b
  join public.geo_schedules as s on s.id = b.geo_schedule_id;
  perform fleet.ring_for_geo_actions(v_to_ring, p_now);
  return v_ended + v_begun;
end;
$$;

comment on function fleet.reconcile_geo_scope(bigint[], bigint[], timestamptz) is
  'Bring the commitments of these geo schedules to who is in scope now; of these devices only, where some are named. Answers how many '
  'began or ended.';
revoke all on function fleet.reconcile_geo_scope(bigint[], bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.inherit_geo_commitments(p_device_ids bigint[], p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  -- A device that comes back as a new row is the same device. What its old row owes without an end ends for the new one as
  -- if it had left just now; being in scope anew is another matter.
  insert into public.geo_commitments (
    geo_schedule_id, device_id, owner_id, hostname, serial_number, timezone, effective_from, until
  )
  select distinct on (c.geo_schedule_id, d.id) c.geo_schedule_id, d.id, c.owner_id, d.hostname, c.serial_number, c.timezone,
    c.effective_from, u.until
  from public.devices as d
  join public.geo_commitments as c
    on c.owner_id = d.owner_id
    and c.device_id <> d.id
    and (lower(c.hostname) = lower(d.hostname) or c.serial_number = coalesce(d.attributes ->> 'serial_number', d.reported ->> 'serial_number'))
  join public.geo_schedules as s on s.id = c.geo_schedule_id and s.update_delay_type <> 'none'
  cross join lateral (
    select coalesce(c.until, fleet.geo_commitment_end(s, c.timezone, c.effective_from, p_now)) as until
  ) as u
  where d.id = any (p_device_ids)
    and c.override_reason is null
    and u.until > p_now
    and not exists (
      select 1 from public.geo_commitments as o where o.geo_schedule_id = c.geo_schedule_id and o.device_id = d.id
    )
  order by c.geo_schedule_id, d.id, u.until desc;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.inherit_geo_commitments(bigint[], timestamptz) is
  'A device that enrols under the hostname or serial number of one that still owes something owes the same. Answers how many commitments.';
revoke all on function fleet.inherit_geo_commitments(bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.follow_geo_devices(p_device_ids bigint[], p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids bigint[];
begin
  -- Most owners have none, and then this is all that it costs.
  if not exists (
    select 1
    from public.devices as d
    join public.geo_schedules as s on s.owner_id = d.owner_id
    where d.id = any (p_device_ids)
  ) then
    return;
  end if;
  perform fleet.inherit_geo_commitments(p_device_ids, p_now);
  v_ids := array(
    select s.id
    from public.geo_schedules as s
    where s.deletion_status is null
      and s.owner_id in (select d.owner_id from public.devices as d where d.id = any (p_device_ids))
  );
  perform fleet.reconcile_geo_scope(v_ids, p_device_ids, p_now);
end;
$$;

comment on function fleet.follow_geo_devices(bigint[], timestamptz) is
  'Bring the commitments of these devices to what they are now: what they are in scope of, what they left, what they owe from before.';
revoke all on function fleet.follow_geo_devices(bigint[], timestamptz) from public, anon, authenticated, service_role;

-- db/sources/65_geo_schedules/55_change.sql
-- Making, changing and deleting geo schedules. A row is never edited: the new one takes over when the old one's delay is over.

create or replace function fleet.geo_schedule_of_caller(p_geo_schedule_id bigint, p_permission text)
returns public.geo_schedules
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.geo_schedules;
begin
  select s.* into v_row
  from public.geo_schedules as s
  where s.id = p_geo_schedule_id and fleet.is_visible_owner(s.owner_id)
  for update;
  if not found then
    perform fleet.raise_not_found(format('geo schedule %s', p_geo_schedule_id));
  end if;
  perform fleet.require_permission(v_row.owner_id, p_permission, format('geo schedule %s', p_geo_schedule_id));
  return v_row;
end;
$$;

comment on function fleet.geo_schedule_of_caller(bigint, text) is
  'The locked row, if the caller has the permission. Raises geo_schedule_not_found (PT404) or permission_missing (PT403).';
revoke all on function fleet.geo_schedule_of_caller(bigint, text) from public, anon, authenticated, service_role;

create or replace function fleet.require_live_geo_schedule(p_row public.geo_schedules)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_row.delete_started_date is not null then
    raise exception 'geo schedule % is %', p_row.id, case when p_row.replaced_by is null then 'deleted' else 'replaced' end
      using errcode = 'PT409', detail = 'geo_schedule_deleted',
            hint = case
              when p_row.replaced_by is null then 'Make a new one: select create_geo_schedule(<spec>)'
              else format('Change the one that replaced it: %s', p_row.replaced_by)
            end;
  end if;
end;
$$;

comment on function fleet.require_live_geo_schedule(public.geo_schedules) is
  'Raise geo_schedule_deleted (PT409) where it was deleted or replaced.';
revoke all on function fleet.require_live_geo_schedule(public.geo_schedules) from public, anon, authenticated, service_role;

create or replace function fleet.store_geo_schedule(p_row public.geo_schedules)
returns public.geo_schedules
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.geo_schedules;
begin
  insert into public.geo_schedules as s (
    owner_id, name, device_id, group_id, location_id, side, apps, categories, enforce, start_minute, end_minute, recurrence, days,
    timezone, update_delay_type, update_delay_seconds, unknown_location, max_location_age, notes, replaces
  )
  values (
    p_row.owner_id, p_row.name, p_row.device_id, p_row.group_id, p_row.location_id, p_row.side, p_row.apps, p_row.categories,
    p_row.enforce, p_row.start_minute, p_row.end_minute, p_row.recurrence, p_row.days, p_row.timezone, p_row.update_delay_type,
    p_row.update_delay_seconds, p_row.unknown_location, p_row.max_location_age, p_row.notes, p_row.replaces
  )
  returning s.* into v_row;
  -- Read again: what follows from the row is there by now.
  select s.* into v_row from public.geo_schedules as s where s.id = v_row.id;
  return v_row;
end;
$$;

comment on function fleet.store_geo_schedule(public.geo_schedules) is 'Insert a new row; the triggers make what follows from it.';
revoke all on function fleet.store_geo_schedule(public.geo_schedules) from public, anon, authenticated, service_role;

create or replace function fleet.mark_geo_schedule_deleted(p_row public.geo_schedules, p_now timestamptz)
returns public.geo_schedules
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.geo_schedules;
begin
  update public.geo_schedules as s
  set delete_started_date = p_now, deletion_status = 'WAITING_FOR_CLIENT'
  where s.id = p_row.id;
  perform fleet.end_geo_commitments(array[p_row.id], null, p_now);
  update public.geo_schedules as s
  set delay_ends_at = greatest(p_now, (select max(c.until) from public.geo_commitments as c where c.geo_schedule_id = s.id))
  where s.id = p_row.id
  returning s.* into v_row;

  -- What will never be executed would only be in the way; what a device has spoken of stays.
  delete from public.geo_actions as a
  where a.geo_schedule_id = p_row.id
    and a.starts_at >= v_row.delay_ends_at
    and not exists (select 1 from public.geo_action_reports as r where r.geo_action_id = a.id);
  return v_row;
end;
$$;

comment on function fleet.mark_geo_schedule_deleted(public.geo_schedules, timestamptz) is
  'Let the delay of a live geo schedule begin. Answers the row with delay_ends_at.';
revoke all on function fleet.mark_geo_schedule_deleted(public.geo_schedules, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.replace_geo_schedule(p_old public.geo_schedules, p_new public.geo_schedules, p_now timestamptz)
returns public.geo_schedules
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_new public.geo_schedules := p_new;
begin
  perform fleet.mark_geo_schedule_deleted(p_old, p_now);
  v_new.replaces := p_old.id;
  v_new := fleet.store_geo_schedule(v_new);
  update public.geo_schedules as s set replaced_by = v_new.id where s.id = p_old.id;
  return v_new;
end;
$$;

comment on function fleet.replace_geo_schedule(public.geo_schedules, public.geo_schedules, timestamptz) is
  'Put a new row in the place of a live one: it counts from the end of the old one''s delay.';
revoke all on function fleet.replace_geo_schedule(public.geo_schedules, public.geo_schedules, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.create_geo_schedule(p_spec jsonb)
returns public.geo_schedules
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid := fleet.owner_or_own(fleet.owner_of_spec(p_spec));
begin
  perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
  return fleet.store_geo_schedule(fleet.checked_geo_schedule(fleet.empty_geo_schedule(v_owner), p_spec));
end;
$$;

comment on function fleet.create_geo_schedule(jsonb) is
  'See public.create_geo_schedule. Definer: it checks the caller first, then sees what the checks need to see.';
revoke all on function fleet.create_geo_schedule(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.create_geo_schedule(jsonb) to authenticated, service_role;

create or replace function public.create_geo_schedule(p_spec jsonb)
returns public.geo_schedules
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.create_geo_schedule(p_spec)
$$;

comment on function public.create_geo_schedule(jsonb) is
  'Make a geo schedule from JSON: name; device_id or device, or group_id or group; location_id or location with side (inside, outside), or '
  'anywhere; apps, categories, enforce; start_minute and end_minute past midnight; recurrence (daily, weekly with days, 0 is Monday); '
  'timezone; update_delay_type and update_delay_seconds; unknown_location, max_location_age, notes. Its actions are there at once, also one '
  'that is running now. Raises geo_schedule_invalid (PT422, or PT404) naming every wrong field.';
revoke all on function public.create_geo_schedule(jsonb) from public, anon, authenticated, service_role;
grant execute on function public.create_geo_schedule(jsonb) to authenticated, service_role;

create or replace function fleet.update_geo_schedule(p_geo_schedule_id bigint, p_changes jsonb, p_now timestamptz)
returns public.geo_schedules
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_old public.geo_schedules := fleet.geo_schedule_of_caller(p_geo_schedule_id, 'manage');
  v_new public.geo_schedules;
begin
  perform fleet.require_live_geo_schedule(v_old);
  v_new := fleet.checked_geo_schedule(v_old, p_changes);
  perform fleet.raise_problems(
    'the geo schedule', 'geo_schedule_invalid',
    array_agg(row('owner_id', 'cannot be changed', 'Make it anew for the other owner.')::fleet.problem)
  )
  from (select fleet.try_uuid(p_changes ->> 'owner_id') as owner_id) as n
  where n.owner_id <> v_old.owner_id;
  return fleet.replace_geo_schedule(v_old, v_new, p_now);
end;
$$;

comment on function fleet.update_geo_schedule(bigint, jsonb, timestamptz) is
  'See public.update_geo_schedule. Definer: it checks the caller first, then sees what the checks need to see.';
revoke all on function fleet.update_geo_schedule(bigint, jsonb, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.update_geo_schedule(bigint, jsonb, timestamptz) to authenticated, service_role;

create or replace function public.update_geo_schedule(p_geo_schedule_id bigint, p_changes jsonb)
returns public.geo_schedules
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.update_geo_schedule(p_geo_schedule_id, p_changes, clock_timestamp())
$$;

comment on function public.update_geo_schedule(bigint, jsonb) is
  'Change a geo schedule by the keys of create_geo_schedule: a new one is made and answered, the old one is marked and respected until its '
  'delay is over. Raises geo_schedule_not_found (PT404), permission_missing (PT403), geo_schedule_deleted (PT409) or geo_schedule_invalid '
  '(PT422).';
revoke all on function public.update_geo_schedule(bigint, jsonb) from public, anon, authenticated, service_role;
grant execute on function public.update_geo_schedule(bigint, jsonb) to authenticated, service_role;

create or replace function fleet.delete_geo_schedule(p_geo_schedule_id bigint, p_now timestamptz)
returns public.geo_schedules
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_old public.geo_schedules := fleet.geo_schedule_of_caller(p_geo_schedule_id, 'manage');
begin
  perform fleet.require_live_geo_schedule(v_old);
  return fleet.mark_geo_schedule_deleted(v_old, p_now);
end;
$$;

comment on function fleet.delete_geo_schedule(bigint, timestamptz) is 'See public.delete_geo_schedule. Definer: it checks the caller.';
revoke all on function fleet.delete_geo_schedule(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.delete_geo_schedule(bigint, timestamptz) to authenticated, service_role;

create or replace function public.delete_geo_schedule(p_geo_schedule_id bigint)
returns public.geo_schedules
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.delete_geo_schedule(p_geo_schedule_id, clock_timestamp())
$$;

comment on function public.delete_geo_schedule(bigint) is
  'Mark a geo schedule as deleted: it is respected until its delay is over (delay_ends_at), then cleanup removes it. Raises '
  'geo_schedule_not_found (PT404), permission_missing (PT403) or geo_schedule_deleted (PT409).';
revoke all on function public.delete_geo_schedule(bigint) from public, anon, authenticated, service_role;
grant execute on function public.delete_geo_schedule(bigint) to authenticated, service_role;

create or replace function fleet.heirs_of_geo_schedule(p_geo_schedule_id bigint)
returns bigint[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with recursive heirs (id) as (
    select s.id from public.geo_schedules as s where s.replaces = p_geo_schedule_id
    union
    select s.id from heirs as h join public.geo_schedules as s on s.replaces = h.id
  )
  select coalesce(array_agg(h.id), '{}') from heirs as h
$$;

comment on function fleet.heirs_of_geo_schedule(bigint) is 'What replaced a geo schedule, and what replaced that.';
revoke all on function fleet.heirs_of_geo_schedule(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.override_geo_commitment(p_geo_schedule_id bigint, p_device_id bigint, p_reason text, p_now timestamptz)
returns integer
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.geo_schedules := fleet.geo_schedule_of_caller(p_geo_schedule_id, 'admin');
  v_count integer;
  v_heirs bigint[];
begin
  if coalesce(btrim(p_reason), '') = '' or char_length(p_reason) > 2000 then
    raise exception 'p_reason must say why, in 1 to 2000 characters'
      using errcode = 'PT422', detail = 'reason_missing', hint = 'It stands in the audit log.';
  end if;
  update public.geo_commitments as c
  set until = p_now, override_reason = btrim(p_reason)
  where c.geo_schedule_id = v_row.id
    and (p_device_id is null or c.device_id = p_device_id)
    and c.override_reason is null
    -- Also what started before the end and is still running.
    and (c.until > p_now - interval '25 hours');
  get diagnostics v_count = row_count;
  if v_count = 0 then
    raise exception 'nobody owes geo schedule % beyond its end', p_geo_schedule_id
      using errcode = 'PT409', detail = 'commitment_not_ending',
            hint = 'Only what waits for its delay can be overridden: delete or change the geo schedule first.';
  end if;
  update public.geo_schedules as s
  set delay_ends_at = greatest(
    s.delete_started_date, (select max(c.until) from public.geo_commitments as c where c.geo_schedule_id = s.id)
  )
  where s.id = v_row.id and s.delete_started_date is not null;
  -- What replaces it need not wait any longer for those who were let off, however often it was changed again meanwhile.
  v_heirs := fleet.heirs_of_geo_schedule(v_row.id);
  update public.geo_commitments as c
  set effective_from = null
  where c.geo_schedule_id = any (v_heirs)
    and c.until is null
    and (p_device_id is null or c.device_id = p_device_id);
  update public.geo_schedules as n
  set effective_from = null
  where n.id = any (v_heirs)
    and n.deletion_status is null
    and exists (select 1 from public.geo_commitments as c where c.geo_schedule_id = n.id and c.until is null and c.effective_from is null);
  perform fleet.create_geo_actions(v_heirs, p_now);
  if v_row.enforce is null then
    perform fleet.ring_for_geo_actions(
      array(select c.device_id from public.geo_commitments as c where c.geo_schedule_id = v_row.id and c.until = p_now), p_now
    );
  end if;
  return v_count;
end;
$$;

comment on function fleet.override_geo_commitment(bigint, bigint, text, timestamptz) is
  'See public.override_geo_commitment. Definer: it checks the caller, and commitments are nobody''s to write.';
revoke all on function fleet.override_geo_commitment(bigint, bigint, text, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.override_geo_commitment(bigint, bigint, text, timestamptz) to authenticated, service_role;

create or replace function public.override_geo_commitment(p_geo_schedule_id bigint, p_reason text, p_device_id bigint default null)
returns integer
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.override_geo_commitment(p_geo_schedule_id, p_device_id, p_reason, clock_timestamp())
$$;

comment on function public.override_geo_commitment(bigint, text, bigint) is
  'End at once what is still owed of a geo schedule that was deleted, changed or left, for all devices or one. Needs the permission admin '
  'and a reason, which the audit log keeps. Answers how many devices. Raises geo_schedule_not_found (PT404), permission_missing (PT403), '
  'reason_missing (PT422) or commitment_not_ending (PT409).';
revoke all on function public.override_geo_commitment(bigint, text, bigint) from public, anon, authenticated, service_role;
grant execute on function public.override_geo_commitment(bigint, text, bigint) to authenticated, service_role;

-- db/sources/65_geo_schedules/57_groups.sql
-- Groups that geo schedules use: another selector, and members that come or go, change who owes them.

create or replace function fleet.tg_follow_geo_group()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'DELETE' then
    if exists (select 1 from public.geo_schedules as s where s.group_id = old.id and s.owner_id = old.owner_id and s.deletion_status is null)
      and not fleet.is_owner_gone(old.owner_id)
    then
      raise exception 'group "%" is used by geo schedules', old.name
        using errcode = 'PT409', detail = 'group_in_use', hint = 'Delete or change them first: select * from geo_schedule_list';
    end if;
    return old;
  end if;
  perform fleet.reconcile_geo_scope(
    array(select s.id from public.geo_schedules as s where s.group_id = new.id and s.deletion_status is null), null, clock_timestamp()
  );
  return null;
end;
$$;

comment on function fleet.tg_follow_geo_group() is
  'Another selector changes who owes the geo schedules of a group; a group that live ones use is not deleted. Raises group_in_use (PT409). '
  'Definer: commitments are nobody''s to write.';
revoke all on function fleet.tg_follow_geo_group() from public, anon, authenticated, service_role;

create or replace trigger device_groups_50_follow_geo_schedules
  after update on public.device_groups
  for each row when (old.selector is distinct from new.selector)
  execute function fleet.tg_follow_geo_group();
create or replace trigger device_groups_60_guard_geo_schedules
  before delete on public.device_groups
  for each row execute function fleet.tg_follow_geo_group();

create or replace function fleet.tg_follow_geo_members()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.reconcile_geo_scope(
    array(select s.id from public.geo_schedules as s where s.group_id in (select r.group_id from changed_rows as r) and s.deletion_status is null),
    array(select r.device_id from changed_rows as r), clock_timestamp()
  );
  return null;
end;
$$;

comment on function fleet.tg_follow_geo_members() is
  'Members that come or go begin or end to owe the geo schedules of the group. Definer: commitments are nobody''s to write.';
revoke all on function fleet.tg_follow_geo_members() from public, anon, authenticated, service_role;

create or replace trigger device_group_members_50_follow_geo_schedules_inserted
  after insert on public.device_group_members
  referencing new table as changed_rows
  for each statement execute function fleet.tg_follow_geo_members();
create or replace trigger device_group_members_51_follow_geo_schedules_deleted
  after delete on public.device_group_members
  referencing old table as changed_rows
  for each statement execute function fleet.tg_follow_geo_members();

-- db/sources/65_geo_schedules/60_device.sql
-- What a device asks for and tells: its actions, on its own wall, and what became of them.

create or replace function fleet.is_owed(
  p_commitment public.geo_commitments,
  p_update_delay_type text,
  p_starts_at timestamptz,
  p_now timestamptz
)
returns boolean
language sql
immutable
parallel safe
return (p_commitment.effective_from is null or p_starts_at >= p_commitment.effective_from)
  and case
    when p_commitment.until is null or p_now < p_commitment.until then p_commitment.until is null or p_starts_at < p_commitment.until
    -- Without a delay, and by an override, the end counts also for what is running.
    else p_update_delay_type <> 'none' and p_commitment.override_reason is null and p_starts_at < p_commitment.until
  end;

comment on function fleet.is_owed(public.geo_commitments, text, timestamptz, timestamptz) is
  'Whether a device owes, at this instant, an action that starts then on its wall.';
revoke all on function fleet.is_owed(public.geo_commitments, text, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.geo_actions_of_devices(p_device_ids bigint[], p_now timestamptz)
returns table (
  device_id bigint, owner_id uuid, geo_action_id bigint, geo_schedule_id bigint, name text, from_date date, starts_at timestamptz,
  ends_at timestamptz, timezone text, side text, geometry jsonb, apps text[], enforce jsonb, unknown_location text,
  max_location_age interval, status text, location_met_at timestamptz, reason text, is_owed boolean, until timestamptz
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- plpgsql keeps its plan, and any list is planned alike.
set plan_cache_mode = force_generic_plan
as $$
begin
  return query
  select c.device_id, c.owner_id, a.id, s.id, s.name, a.from_date, b.starts_at, b.ends_at, c.timezone, a.side, a.geometry, a.apps,
    a.enforce, a.unknown_location, a.max_location_age, r.status, r.location_met_at, r.reason,
    fleet.is_owed(c, a.update_delay_type, b.starts_at, p_now), c.until
  from public.geo_commitments as c
  join public.geo_schedules as s on s.id = c.geo_schedule_id
  join public.geo_actions as a on a.geo_schedule_id = s.id
  cross join lateral (
    select a.starts_at, a.ends_at where a.timezone <> 'device'
    union all
    select d.starts_at, d.ends_at
    from fleet.geo_clocks(c.timezone) as k
    cross join lateral fleet.geo_action_bounds(
      a.from_date, s.start_minute, s.end_minute, k.first_clock, k.last_clock
    ) as d
    where a.timezone = 'device'
  ) as b
  left join public.geo_action_reports as r on r.geo_action_id = a.id and r.device_id = c.device_id
  where c.device_id = any (p_device_ids)
    and b.ends_at > b.starts_at;
end;
$$;

comment on function fleet.geo_actions_of_devices(bigint[], timestamptz) is
  'Every action of these devices, on their own walls, with what they reported and whether it is owed at this instant. After a change of '
  'zone an action may stand twice, of which one is owed.';
revoke all on function fleet.geo_actions_of_devices(bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.is_geo_debtor(p_device_id bigint, p_now timestamptz)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (
    select 1
    from public.geo_commitments as c
    join public.geo_schedules as s on s.id = c.geo_schedule_id
    where c.device_id = p_device_id
      and s.update_delay_type <> 'none'
      and c.override_reason is null
      and (
        c.until is null
        or c.until > p_now
        -- What started before the end is still running.
        or exists (
          select 1
          from fleet.geo_actions_of_devices(array[p_device_id], p_now) as x
          where x.geo_schedule_id = s.id and x.is_owed and x.starts_at <= p_now and x.ends_at > p_now
        )
      )
  );
end;
$$;

comment on function fleet.is_geo_debtor(bigint, timestamptz) is
  'Whether a device owes something that a change made now would not end at once.';
revoke all on function fleet.is_geo_debtor(bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.geo_actions_due(p_now timestamptz)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device_id bigint := fleet.require_device();
begin
  perform fleet.touch_device(v_device_id, p_now);
  perform fleet.create_geo_actions(
    array(select c.geo_schedule_id from public.geo_commitments as c where c.device_id = v_device_id and (c.until is null or c.until > p_now)),
    p_now
  );
  -- Whoever asks after the end has been told.
  update public.geo_commitments as c
  set confirmed_at = p_now
  where c.device_id = v_device_id and c.until <= p_now and c.confirmed_at is null;

  return jsonb_build_object('now', p_now, 'actions', (
    select coalesce(jsonb_agg(jsonb_build_object(
      'geo_action_id', x.geo_action_id, 'geo_schedule_id', x.geo_schedule_id, 'name', x.name, 'from_date', x.from_date,
      'starts_at', x.starts_at, 'ends_at', x.ends_at, 'side', x.side, 'geometry', x.geometry, 'apps', to_jsonb(x.apps),
      'unknown_location', x.unknown_location, 'max_location_age_seconds', extract(epoch from x.max_location_age)::bigint,
      'status', x.status, 'location_met_at', x.location_met_at
    ) order by x.starts_at, x.geo_action_id), '[]')
    from fleet.geo_actions_of_devices(array[v_device_id], p_now) as x
    where x.is_owed
      and x.ends_at > p_now
      -- A profile of the MDM does it, not the agent.
      and x.enforce is null
      and (x.status is null or x.status in ('scheduled', 'running'))
  ));
end;
$$;

comment on function fleet.geo_actions_due(timestamptz) is
  'See public.geo_actions_due. Definer: devices read no tables of geo schedules.';
revoke all on function fleet.geo_actions_due(timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.geo_actions_due(timestamptz) to authenticated, service_role;

create or replace function public.geo_actions_due()
returns jsonb
language sql
volatile
return fleet.geo_actions_due(clock_timestamp());

comment on function public.geo_actions_due() is
  'A device asks for its actions, running and coming: {"now", "actions": [{geo_action_id, geo_schedule_id, name, from_date, starts_at, '
  'ends_at, side, geometry, apps, unknown_location, max_location_age_seconds, status, location_met_at}]}. It makes those that are missing; '
  'what is over or reported as finished, skipped or failed is not among them. Raises not_a_device (PT403).';
revoke all on function public.geo_actions_due() from public, anon, authenticated, service_role;
grant execute on function public.geo_actions_due() to authenticated, service_role;

create or replace function fleet.geo_report_problems(p_status text, p_location_met_at timestamptz, p_reason text, p_now timestamptz)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select 'p_status', coalesce(format('"%s" is not a status', left(p_status, 60)), 'is missing'), 'Use scheduled, running, finished, skipped or failed.'
  where p_status is null or p_status not in ('scheduled', 'running', 'finished', 'skipped', 'failed')
  union all
  select 'p_location_met_at', 'is in the future', 'The time by the server''s clock.'
  where p_location_met_at > p_now + interval '5 minutes'
  union all
  select 'p_reason', 'is missing', 'Say why it was skipped or failed.'
  where p_status in ('skipped', 'failed') and coalesce(btrim(p_reason), '') = ''
$$;

comment on function fleet.geo_report_problems(text, timestamptz, text, timestamptz) is 'Everything that is wrong with a report.';
revoke all on function fleet.geo_report_problems(text, timestamptz, text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.report_geo_action(
  p_geo_action_id bigint,
  p_status text,
  p_location_met_at timestamptz,
  p_reason text,
  p_now timestamptz
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device_id bigint := fleet.require_device();
  v_owner uuid;
begin
  perform fleet.raise_problems('the report', 'geo_report_invalid', array_agg(q))
  from fleet.geo_report_problems(p_status, p_location_met_at, p_reason, p_now) as q;

  select a.owner_id into v_owner
  from public.geo_actions as a
  where a.id = p_geo_action_id
    and exists (
      select 1 from public.geo_commitments as c where c.geo_schedule_id = a.geo_schedule_id and c.device_id = v_device_id
    )
  for key share;
  if not found then
    return '{"accepted": false, "reason": "gone"}';
  end if;

  insert into public.geo_action_reports as r (geo_action_id, device_id, owner_id, status, location_met_at, reason, reported_at)
  values (
    p_geo_action_id, v_device_id, v_owner, p_status,
    -- Before there was any action it was not: a clock that is far behind says nothing that whoever reads it could not read.
    case when p_location_met_at is not null then greatest(p_location_met_at, p_now - interval '30 days') end,
    left(p_reason, 2000), p_now
  )
  on conflict (geo_action_id, device_id) do update
    set status = excluded.status,
        -- The first time counts, however often it is told.
        location_met_at = least(r.location_met_at, excluded.location_met_at),
        reason = excluded.reason,
        reported_at = excluded.reported_at
    where r.status in ('scheduled', 'running');
  if not found then
    return '{"accepted": false, "reason": "final"}';
  end if;
  return '{"accepted": true}';
end;
$$;

comment on function fleet.report_geo_action(bigint, text, timestamptz, text, timestamptz) is
  'See public.report_geo_action. Definer: a device writes reports of its own and nothing else.';
revoke all on function fleet.report_geo_action(bigint, text, timestamptz, text, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.report_geo_action(bigint, text, timestamptz, text, timestamptz) to authenticated, service_role;

create or replace function public.report_geo_action(
  p_geo_action_id bigint,
  p_status text,
  p_location_met_at timestamptz default null,
  p_reason text default null
)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.report_geo_action(p_geo_action_id, p_status, p_location_met_at, p_reason, clock_timestamp())
$$;

comment on function public.report_geo_action(bigint, text, timestamptz, text) is
  'A device tells what became of an action: scheduled, running, finished, skipped or failed (with a reason), and when the location was '
  'first met. {"accepted": true}, or {"accepted": false, "reason": gone | final}: the device drops it. Raises not_a_device (PT403) or '
  'geo_report_invalid (PT422).';
revoke all on function public.report_geo_action(bigint, text, timestamptz, text) from public, anon, authenticated, service_role;
grant execute on function public.report_geo_action(bigint, text, timestamptz, text) to authenticated, service_role;

-- db/sources/65_geo_schedules/65_location.sql
-- Where a device is with regard to an action, by what the server knows: the geometry of the action, the latest fix, how old it is.

create or replace function fleet.geo_side(
  p_geometry jsonb,
  p_device public.devices,
  p_max_location_age interval,
  p_was_inside boolean,
  p_now timestamptz
)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_device.located_at is null
      or p_device.latitude is null
      or p_device.longitude is null
      or p_device.located_at < p_now - p_max_location_age
      then 'unknown'
    else (
      select fleet.side_of_fix(
        fleet.border_distance_m(l, p_device.latitude, p_device.longitude),
        coalesce(p_device.accuracy_m, l.hysteresis_m), l.hysteresis_m, p_was_inside
      )
      from jsonb_populate_record(null::public.locations, p_geometry) as l
    )
  end
$$;

comment on function fleet.geo_side(jsonb, public.devices, interval, boolean, timestamptz) is
  'inside, outside, unclear (its error crosses the border), or unknown: no fix, or one that is older than p_max_location_age.';
revoke all on function fleet.geo_side(jsonb, public.devices, interval, boolean, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.is_geo_met(p_side text, p_wanted text, p_unknown_location text, p_was_met boolean)
returns boolean
language sql
immutable
parallel safe
return case
  when p_wanted = 'anywhere' then true
  -- What cannot be told stays as it was.
  when p_side = 'unclear' then p_was_met
  when p_side = 'unknown' then case p_unknown_location when 'block' then true when 'free' then false else p_was_met end
  else p_side = p_wanted
end;

comment on function fleet.is_geo_met(text, text, text, boolean) is
  'Whether apps are blocked, given the side on which a device is, the side that counts, what unknown means, and how it was.';
revoke all on function fleet.is_geo_met(text, text, text, boolean) from public, anon, authenticated, service_role;

-- db/sources/65_geo_schedules/70_holds.sql
-- Blocking by a profile of the MDM: what runs now, where the device is, and so which profiles are held.

create or replace function fleet.geo_holds_wanted(p_owner_id uuid, p_now timestamptz)
returns table (
  device_id bigint, profile_id text, holder text, owner_id uuid, until timestamptz, geo_action_id bigint, is_held boolean
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select distinct on (x.device_id, x.enforce ->> 'profile_id', h.holder)
    x.device_id, x.enforce ->> 'profile_id', h.holder, x.owner_id, x.ends_at, x.geo_action_id, p.device_id is not null
  from fleet.geo_actions_of_devices(
    array(
      select distinct c.device_id
      from public.geo_schedules as s
      join public.geo_commitments as c on c.geo_schedule_id = s.id
      where s.owner_id = p_owner_id and s.enforce is not null and s.deletion_status is distinct from 'DELETED'
    ),
    p_now
  ) as x
  join public.devices as d on d.id = x.device_id
  cross join lateral (select 'geo schedule ' || x.geo_schedule_id as holder) as h
  left join public.profile_holds as p
    on p.device_id = x.device_id and p.profile_id = x.enforce ->> 'profile_id' and p.holder = h.holder
  cross join lateral (
    -- A device that is held for being outside counts as one that has left; one not yet held must leave first.
    select fleet.geo_side(
      x.geometry, d, x.max_location_age, (x.side = 'inside') = (p.device_id is not null), p_now
    ) as side
  ) as l
  where x.enforce is not null
    and x.is_owed
    and x.starts_at <= p_now
    and x.ends_at > p_now
    and fleet.is_geo_met(l.side, x.side, x.unknown_location, p.device_id is not null)
  order by x.device_id, x.enforce ->> 'profile_id', h.holder, x.ends_at desc
$$;

comment on function fleet.geo_holds_wanted(uuid, timestamptz) is
  'The profiles that geo schedules of an owner hold at this instant, on which devices, and whether they do so already.';
revoke all on function fleet.geo_holds_wanted(uuid, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.report_geo_holds(p_owner_id uuid, p_error text, p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  with wanted as materialized (
    select w.* from fleet.geo_holds_wanted(p_owner_id, p_now) as w
  ), told as (
    select w.geo_action_id, w.device_id, w.owner_id,
      case
        when p_error is not null then p_error
        when p.is_installed then null
        when m.device_id is null then 'the device is in no MDM'
        -- What failed before it was held is tried first.
        when w.is_held and c.status in ('failed', 'expired') then concat_ws(': ', 'the profile was not installed', c.error_message)
      end as reason
    from wanted as w
    left join public.device_profiles as p on p.device_id = w.device_id and p.profile_id = w.profile_id
    left join fleet.mdms_of(array(select x.device_id from wanted as x)) as m on m.device_id = w.device_id
    left join lateral (
      select x.status, x.error_message
      from public.device_commands as x
      where x.device_id = w.device_id
        and x.channel = 'mdm'
        and x.command_type = 'push_profile'
        and x.payload ->> 'profile_id' = w.profile_id
      order by x.id desc
      limit 1
    ) as c on p.is_installed is not true
  ), changed as (
    select t.geo_action_id, t.device_id, t.owner_id, case when t.reason is null then 'running' else 'failed' end as status,
      left(t.reason, 2000) as reason
    from told as t
    left join public.geo_action_reports as r on r.geo_action_id = t.geo_action_id and r.device_id = t.device_id
    where r.geo_action_id is null
      -- One whose profile came after all is running again.
      or (r.status in ('scheduled', 'running', 'failed') and r.reason is distinct from left(t.reason, 2000))
  )
  insert into public.geo_action_reports as r (geo_action_id, device_id, owner_id, status, location_met_at, reason, reported_at)
  select c.geo_action_id, c.device_id, c.owner_id, c.status, p_now, c.reason, p_now
  from changed as c
  on conflict (geo_action_id, device_id) do update
    set status = excluded.status, reason = excluded.reason, reported_at = excluded.reported_at,
        location_met_at = coalesce(r.location_met_at, excluded.location_met_at);
  get diagnostics v_count = row_count;

  update public.geo_action_reports as r
  set status = 'finished', reported_at = p_now
  from public.geo_actions as a
  where a.id = r.geo_action_id
    and r.owner_id = p_owner_id
    and a.enforce is not null
    and r.status = 'running'
    and a.ends_at <= p_now;
  return v_count;
end;
$$;

comment on function fleet.report_geo_holds(uuid, text, timestamptz) is
  'Say of the actions that hold profiles now what their devices would: running, or failed with the reason, which is p_error for all where it '
  'is given; finished when they are over. Answers how many are told anew.';
revoke all on function fleet.report_geo_holds(uuid, text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.hold_geo_profiles(p_owner_id uuid, p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  perform fleet.report_geo_holds(p_owner_id, null, p_now);
  with wanted as materialized (
    select w.* from fleet.geo_holds_wanted(p_owner_id, p_now) as w
  ), released as (
    delete from public.profile_holds as h
    where h.owner_id = p_owner_id
      and h.holder like 'geo schedule %'
      and not exists (
        select 1 from wanted as w
        where w.device_id = h.device_id and w.profile_id = h.profile_id and w.holder = h.holder
      )
    returning h.device_id
  ), taken as (
    insert into public.profile_holds as h (device_id, profile_id, holder, owner_id, until)
    select w.device_id, w.profile_id, w.holder, w.owner_id, w.until
    from wanted as w
    -- What is held as long already is not touched: a conflict alone would write to the log.
    where not exists (
      select 1 from public.profile_holds as x
      where x.device_id = w.device_id and x.profile_id = w.profile_id and x.holder = w.holder and x.until = w.until
    )
    on conflict (device_id, profile_id, holder) do update set until = excluded.until
    returning h.device_id
  )
  select (select count(*) from released) + (select count(*) from taken) into v_count;
  if v_count > 0 then
    perform fleet.reconcile_owner(p_owner_id, p_now);
  end if;
  return v_count;
end;
$$;

comment on function fleet.hold_geo_profiles(uuid, timestamptz) is
  'Bring the profiles that geo schedules hold to what they should be, and push or remove what follows. Answers how many holds changed.';
revoke all on function fleet.hold_geo_profiles(uuid, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.owners_with_geo_holds()
returns setof uuid
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select s.owner_id from public.geo_schedules as s
  where s.enforce is not null and s.deletion_status is distinct from 'DELETED'
  union
  select h.owner_id from public.profile_holds as h where h.holder like 'geo schedule %'
$$;

comment on function fleet.owners_with_geo_holds() is 'Owners whose geo schedules block by profiles, or did so until now.';
revoke all on function fleet.owners_with_geo_holds() from public, anon, authenticated, service_role;

create or replace function fleet.try_geo_holds(p_owner_id uuid, p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_error text;
begin
  begin
    return fleet.hold_geo_profiles(p_owner_id, p_now);
  exception
    when query_canceled or admin_shutdown or deadlock_detected then
      raise;
    when others then
      v_error := sqlerrm;
  end;
  -- Its owner is told, and nobody else waits for it.
  begin
    perform fleet.report_geo_holds(p_owner_id, 'the profile is not held: ' || left(v_error, 500), p_now);
  exception
    when query_canceled or admin_shutdown or deadlock_detected then
      raise;
    when others then
      raise warning 'the geo schedules of owner % hold what they held: %; %', p_owner_id, v_error, sqlerrm;
  end;
  return 0;
end;
$$;

comment on function fleet.try_geo_holds(uuid, timestamptz) is
  'fleet.hold_geo_profiles, whose failure is told by the reports of the actions that hold now (geo_action.failed). Answers how many holds changed.';
revoke all on function fleet.try_geo_holds(uuid, timestamptz) from public, anon, authenticated, service_role;

-- db/sources/65_geo_schedules/75_clean.sql
-- Cleanup: what is over goes, the rows of devices before what they hang on, a bounded number at a time.

create or replace function fleet.geo_schedules_to_remove(p_now timestamptz)
returns setof bigint
language sql
stable
-- Without a setting: only so it is part of the query that asks, and a limit there ends it early.
begin atomic
  select s.id
  from public.geo_schedules as s
  where s.deletion_status = 'DELETED'
    -- The instant at which its successor begins is read from it.
    and s.delay_ends_at <= p_now;
end;

comment on function fleet.geo_schedules_to_remove(timestamptz) is 'Geo schedules of which nothing is needed any more.';
revoke all on function fleet.geo_schedules_to_remove(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.clean_geo_actions(p_now timestamptz, p_limit integer default 2000)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  -- A week before the window in which actions are made. By the index, however many there are: from the front of the table each
  -- batch would pass over everything that those before it have removed.
  v_actions bigint[] := array(
    select a.id from public.geo_actions as a where a.starts_at < p_now - interval '14 days' order by a.starts_at limit p_limit
  );
  v_count integer := cardinality(v_actions);
begin
  if v_count < p_limit then
    v_actions := v_actions || array(
      select a.id
      from fleet.geo_schedules_to_remove(p_now) as s(id)
      join public.geo_actions as a on a.geo_schedule_id = s.id and a.starts_at >= p_now - interval '14 days'
      limit p_limit - v_count
    );
  end if;
  -- One action of a large group has a report of each device: left to the cascade, they would all go at once.
  delete from public.geo_action_reports as r
  where r.ctid = any (array(
    select x.ctid from public.geo_action_reports as x where x.geo_action_id = any (v_actions) limit p_limit for update skip locked
  ));
  get diagnostics v_count = row_count;
  if v_count > 0 then
    return v_count;
  end if;

  delete from public.geo_actions as a
  where a.id in (select x.id from public.geo_actions as x where x.id = any (v_actions) for update skip locked);
  get diagnostics v_count = row_count;
  if v_count > 0 then
    return v_count;
  end if;

  delete from public.geo_commitments as c
  where c.ctid = any (array(
    select x.ctid
    from fleet.geo_schedules_to_remove(p_now) as s(id)
    join public.geo_commitments as x on x.geo_schedule_id = s.id
    limit p_limit
    for update of x skip locked
  ));
  get diagnostics v_count = row_count;
  if v_count > 0 then
    return v_count;
  end if;

  delete from public.geo_schedules as s
  where s.id in (
    select x.id
    from public.geo_schedules as x
    where x.id in (select t.id from fleet.geo_schedules_to_remove(p_now) as t(id) limit p_limit)
    for update skip locked
  );
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.clean_geo_actions(timestamptz, integer) is
  'Remove at most p_limit rows of what is over: reports, then actions that started more than two weeks ago or whose geo schedule goes, then '
  'commitments and geo schedules that are DELETED. Answers how '
  'many; 0 when nothing is left.';
revoke all on function fleet.clean_geo_actions(timestamptz, integer) from public, anon, authenticated, service_role;

-- db/sources/65_geo_schedules/80_tend.sql
-- By pg_cron: actions for devices that do not ask, the end of deletions, and cleanup.

create or replace function fleet.geo_schedules_to_make(p_now timestamptz, p_limit integer)
returns bigint[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- Owners in turn: whoever has the most waits behind the first of everybody.
  select coalesce(array_agg(t.id), '{}')
  from (
    select s.id
    from public.geo_schedules as s
    cross join fleet.geo_window(p_now) as w
    where s.deletion_status is distinct from 'DELETED'
      and (s.actions_made_to is null or s.actions_made_to < w.ends_at - interval '1 day')
      and (s.delay_ends_at is null or s.actions_made_to is null or s.actions_made_to < s.delay_ends_at)
    order by row_number() over (partition by s.owner_id order by s.id), s.id
    limit p_limit
  ) as t
$$;

comment on function fleet.geo_schedules_to_make(timestamptz, integer) is
  'Geo schedules whose actions do not reach to the end of the window, owners in turn.';
revoke all on function fleet.geo_schedules_to_make(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.make_waiting_geo_actions(p_now timestamptz, p_limit integer default 500)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids bigint[] := fleet.geo_schedules_to_make(p_now, p_limit);
begin
  if cardinality(v_ids) = 0 then
    return 0;
  end if;
  perform fleet.create_geo_actions(v_ids, p_now);
  update public.geo_schedules as s
  set actions_made_to = w.ends_at
  from fleet.geo_window(p_now) as w
  where s.id = any (v_ids);
  return cardinality(v_ids);
end;
$$;

comment on function fleet.make_waiting_geo_actions(timestamptz, integer) is
  'Make the actions of a batch of geo schedules. Answers how many geo schedules.';
revoke all on function fleet.make_waiting_geo_actions(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.reconcile_geo_scopes(p_now timestamptz, p_after_id bigint, p_limit integer default 200)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids bigint[];
begin
  v_ids := array(
    select s.id from public.geo_schedules as s
    where s.deletion_status is null and s.id > p_after_id
    order by s.id
    limit p_limit
  );
  perform fleet.reconcile_geo_scope(v_ids, null, p_now);
  return v_ids[cardinality(v_ids)];
end;
$$;

comment on function fleet.reconcile_geo_scopes(timestamptz, bigint, integer) is
  'Look after the scope of the next live geo schedules. Answers the id of the last; null after all.';
revoke all on function fleet.reconcile_geo_scopes(timestamptz, bigint, integer) from public, anon, authenticated, service_role;

create or replace function fleet.settle_geo_deletions(p_now timestamptz, p_limit integer default 1000)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  update public.geo_schedules as s
  set deletion_status = 'DELETED'
  where s.id in (
    select x.id
    from public.geo_schedules as x
    where x.deletion_status = 'WAITING_FOR_CLIENT'
      and (
        -- No action can still run.
        (
          x.delay_ends_at <= p_now
          and (
            x.update_delay_type = 'none'
            or not exists (
              select 1 from public.geo_actions as a
              where a.geo_schedule_id = x.id and a.ends_at > p_now and a.starts_at < x.delay_ends_at
            )
          )
        )
        -- Every device knows of the end, and has told how its actions ended.
        or (
          exists (select 1 from public.geo_commitments as c where c.geo_schedule_id = x.id)
          and not exists (
            select 1 from public.geo_commitments as c
            where c.geo_schedule_id = x.id and (c.confirmed_at is null or c.until is null or c.until > p_now)
          )
          and not exists (
            select 1
            from public.geo_actions as a
            join public.geo_commitments as c on c.geo_schedule_id = a.geo_schedule_id
            where a.geo_schedule_id = x.id
              and a.ends_at > p_now
              and a.starts_at < x.delay_ends_at
              and not exists (
                select 1
                from public.geo_action_reports as r
                where r.geo_action_id = a.id
                  and r.device_id = c.device_id
                  and r.status in ('finished', 'skipped', 'failed')
              )
          )
        )
      )
    order by x.id
    limit p_limit
  );
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.settle_geo_deletions(timestamptz, integer) is
  'A deleted geo schedule of which no action can still run, or of which its devices know, becomes DELETED. Answers how many.';
revoke all on function fleet.settle_geo_deletions(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace procedure fleet.tend_geo_schedules()
language plpgsql
as $$
declare
  -- Whatever is left then is for the next minute, in which profiles are seen to first.
  c_patience constant interval := '40 seconds';
  v_now timestamptz := pg_catalog.clock_timestamp();
  v_key bigint := pg_catalog.hashtextextended('pgfleet.tend_geo_schedules', 0);
  v_owner uuid;
begin
  -- One at a time; each batch by itself, so that nobody waits for the whole.
  if not pg_catalog.pg_try_advisory_lock(v_key) then
    return;
  end if;
  -- Each owner by itself: what one of them takes holds no lock for the next.
  for v_owner in select o.id from fleet.owners_with_geo_holds() as o(id) order by pg_catalog.random() loop
    perform fleet.try_geo_holds(v_owner, v_now);
    commit;
  end loop;
  while fleet.make_waiting_geo_actions(v_now) > 0 loop
    commit;
    exit when pg_catalog.clock_timestamp() > v_now + c_patience;
  end loop;
  perform fleet.settle_geo_deletions(v_now);
  commit;
  while fleet.clean_geo_actions(v_now) > 0 loop
    commit;
    exit when pg_catalog.clock_timestamp() > v_now + c_patience;
  end loop;
  perform pg_catalog.pg_advisory_unlock(v_key);
end;
$$;

comment on procedure fleet.tend_geo_schedules() is
  'Called by pg_cron every minute: profiles that are held, actions for devices that do not ask, the end of deletions, and cleanup, in batches.';
revoke all on procedure fleet.tend_geo_schedules() from public, anon, authenticated, service_role;

create or replace procedure fleet.reconcile_all_geo_scopes()
language plpgsql
as $$
declare
  v_now timestamptz := pg_catalog.clock_timestamp();
  v_last bigint := 0;
begin
  while v_last is not null loop
    v_last := fleet.reconcile_geo_scopes(v_now, v_last);
    commit;
  end loop;
end;
$$;

comment on procedure fleet.reconcile_all_geo_scopes() is
  'Called by pg_cron every hour: who is in scope of what. Triggers see to every change at once; this finds what none of them saw.';
revoke all on procedure fleet.reconcile_all_geo_scopes() from public, anon, authenticated, service_role;

-- db/sources/65_geo_schedules/85_explain.sql
-- Looking ahead and asking why: what a geo schedule would do, and why apps are blocked on a device, or not.

create or replace function fleet.preview_geo_schedule(p_spec jsonb, p_from timestamptz, p_to timestamptz)
returns table (from_date date, starts_at timestamptz, ends_at timestamptz, length_minutes integer)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid := fleet.owner_or_own(fleet.owner_of_spec(p_spec));
  v_row public.geo_schedules;
begin
  perform fleet.require_permission(v_owner, 'view', format('owner %s', v_owner));
  -- Between 1900 and 2300 no sum of what follows leaves the calendar.
  if coalesce(p_from < '1900-01-01' or p_to > '2300-01-01' or p_from >= p_to, true) or p_to > p_from + interval '366 days' then
    raise exception 'p_from must be before p_to, a year at most, between 1900 and 2300'
      using errcode = 'PT422', detail = 'window_invalid', hint = 'Leave both out for the next two weeks.';
  end if;
  v_row := fleet.checked_geo_schedule(fleet.empty_geo_schedule(v_owner), p_spec);
  return query
  select a.from_date, a.starts_at, a.ends_at, a.length_minutes
  from fleet.create_actions_from_geo_schedule_config(v_row, p_from, p_to) as a
  order by a.starts_at;
end;
$$;

comment on function fleet.preview_geo_schedule(jsonb, timestamptz, timestamptz) is 'See public.preview_geo_schedule. Definer: it checks the caller.';
revoke all on function fleet.preview_geo_schedule(jsonb, timestamptz, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.preview_geo_schedule(jsonb, timestamptz, timestamptz) to authenticated, service_role;

create or replace function public.preview_geo_schedule(
  p_spec jsonb,
  p_from timestamptz default now(),
  p_to timestamptz default now() + interval '14 days'
)
returns table (from_date date, starts_at timestamptz, ends_at timestamptz, length_minutes integer)
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select * from fleet.preview_geo_schedule(p_spec, fleet.calendar_instant(p_from), fleet.calendar_instant(p_to))
$$;

comment on function public.preview_geo_schedule(jsonb, timestamptz, timestamptz) is
  'The actions that a specification of create_geo_schedule would have, without making it; in device time the first and the last anywhere. '
  'Raises geo_schedule_invalid (PT422, or PT404), window_invalid (PT422) or permission_missing (PT403).';
revoke all on function public.preview_geo_schedule(jsonb, timestamptz, timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.preview_geo_schedule(jsonb, timestamptz, timestamptz) to authenticated, service_role;

create or replace function fleet.explain_geo(p_device_id bigint, p_at timestamptz)
returns jsonb
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device public.devices;
  v_actions jsonb;
  -- Nobody has actions before or after, and sums of it stay within the calendar.
  v_at timestamptz := least(greatest(p_at, '1900-01-01'), '2300-01-01');
begin
  select d.* into v_device from public.devices as d where d.id = p_device_id and fleet.is_visible_owner(d.owner_id);
  if not found then
    perform fleet.raise_not_found(format('device %s', p_device_id));
  end if;
  perform fleet.require_permission(v_device.owner_id, 'view', format('device %s', p_device_id));

  select coalesce(jsonb_agg(to_jsonb(e) order by e.starts_at, e.geo_action_id), '[]') into v_actions
  from (
    select x.geo_action_id, x.geo_schedule_id, x.name, x.starts_at, x.ends_at, x.apps, x.side, l.side as device_side, x.status,
      x.location_met_at, c.state = 'blocked' as is_blocking, c.state,
      case c.state
        when 'released' then 'the change of the geo schedule counts by now'
        when 'waiting' then 'it has not begun'
        when 'reported' then format('the device reported it as %s', concat_ws(': ', x.status, x.reason))
        when 'elsewhere' then format('the device is %s of the location, which wants %s', l.side, x.side)
        when 'unknown' then 'it is not known where the device is, and that means free'
        else case
          when s.delete_started_date is null then 'it is running'
          else format('it was %s, but that counts only from %s', case when s.replaced_by is null then 'deleted' else 'changed' end, x.until)
        end
      end as reason
    from fleet.geo_actions_of_devices(array[p_device_id], v_at) as x
    join public.geo_schedules as s on s.id = x.geo_schedule_id
    join public.geo_actions as a on a.id = x.geo_action_id
    cross join lateral (
      select case when x.side = 'anywhere' then 'anywhere' else fleet.geo_side(x.geometry, v_device, x.max_location_age, x.status = 'running', v_at) end
        as side
    ) as l
    cross join lateral (
      select case
        when not x.is_owed or not (x.timezone <> a.timezone or fleet.should_be_executed(a, s, v_at)) then 'released'
        when x.starts_at > v_at then 'waiting'
        when x.status in ('finished', 'skipped', 'failed') then 'reported'
        when fleet.is_geo_met(l.side, x.side, x.unknown_location, coalesce(x.status = 'running', false)) then 'blocked'
        when l.side = 'unknown' then 'unknown'
        else 'elsewhere'
      end as state
    ) as c
    where x.ends_at > v_at
      and x.starts_at < v_at + interval '1 day'
  ) as e;

  return jsonb_build_object(
    'device_id', v_device.id, 'hostname', v_device.hostname, 'at', v_at, 'actions', v_actions,
    'blocked_apps', (
      select coalesce(jsonb_agg(distinct b.app), '[]')
      from jsonb_array_elements(v_actions) as v(action)
      cross join lateral jsonb_array_elements_text(v.action -> 'apps') as b(app)
      where (v.action ->> 'is_blocking')::boolean
    )
  );
end;
$$;

comment on function fleet.explain_geo(bigint, timestamptz) is 'See public.explain_geo. Definer: it checks the caller.';
revoke all on function fleet.explain_geo(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.explain_geo(bigint, timestamptz) to authenticated, service_role;

create or replace function public.explain_geo(p_device_id bigint, p_at timestamptz default now())
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.explain_geo(p_device_id, fleet.calendar_instant(p_at))
$$;

comment on function public.explain_geo(bigint, timestamptz) is
  'Why apps are blocked on a device, or not: {"device_id", "hostname", "at", "blocked_apps", "actions": [{name, starts_at, ends_at, apps, side, '
  'device_side, status, state, is_blocking, reason}]} with what runs at the instant and begins within a day. Raises device_not_found (PT404).';
revoke all on function public.explain_geo(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.explain_geo(bigint, timestamptz) to authenticated, service_role;

-- db/sources/65_geo_schedules/views.sql
-- What people read of geo schedules.

create or replace view public.geo_schedule_list
with (security_invoker = true)
as
select s.id, s.owner_id, s.name, d.hostname as device, g.name as group_name, l.name as location, s.side, s.blocked_apps as apps, s.enforce,
  to_char(make_interval(mins => s.start_minute), 'HH24:MI') as starts, to_char(make_interval(mins => s.end_minute), 'HH24:MI') as ends,
  s.recurrence, s.days, s.timezone, s.update_delay_type, s.update_delay_seconds, s.effective_from,
  case
    when s.deletion_status = 'DELETED' then 'deleted'
    when s.delay_ends_at > now() then 'ending'
    when s.deletion_status is not null then 'ended'
    when s.effective_from > now() then 'waiting'
    else 'active'
  end as state,
  s.delete_started_date, s.deletion_status, s.delay_ends_at, s.replaced_by, s.notes, s.created_at
from public.geo_schedules as s
left join public.devices as d on d.id = s.device_id
left join public.device_groups as g on g.id = s.group_id
left join public.locations as l on l.id = s.location_id;

comment on view public.geo_schedule_list is
  'Geo schedules with the names of what they name, and their state: active, waiting (for the delay of the one they replace), ending (until '
  'delay_ends_at), ended, deleted.';
comment on column public.geo_schedule_list.device is 'Its hostname; null where it is for a group.';
comment on column public.geo_schedule_list.group_name is 'Its name; null where it is for one device.';
comment on column public.geo_schedule_list.location is 'Its name; null with anywhere.';
comment on column public.geo_schedule_list.side is 'inside, outside or anywhere.';
comment on column public.geo_schedule_list.apps is 'What is blocked, with the categories resolved.';
comment on column public.geo_schedule_list.enforce is 'As geo_schedules.enforce.';
comment on column public.geo_schedule_list.starts is 'HH:MM on the wall.';
comment on column public.geo_schedule_list.ends is 'HH:MM on the wall; not after starts: of the next day.';
comment on column public.geo_schedule_list.recurrence is 'daily or weekly.';
comment on column public.geo_schedule_list.days is 'Of a weekly one: 0 is Monday.';
comment on column public.geo_schedule_list.timezone is 'IANA name, or device.';
comment on column public.geo_schedule_list.update_delay_type is 'As geo_schedules.update_delay_type.';
comment on column public.geo_schedule_list.update_delay_seconds is 'As geo_schedules.update_delay_seconds.';
comment on column public.geo_schedule_list.effective_from is 'As geo_schedules.effective_from.';
comment on column public.geo_schedule_list.state is 'active, waiting, ending, ended or deleted.';
comment on column public.geo_schedule_list.delete_started_date is 'When it was deleted or replaced.';
comment on column public.geo_schedule_list.deletion_status is 'As geo_schedules.deletion_status.';
comment on column public.geo_schedule_list.delay_ends_at is 'When its delay is over.';
comment on column public.geo_schedule_list.replaced_by is 'The geo schedule that an update made of it.';
comment on column public.geo_schedule_list.notes is 'As geo_schedules.notes.';
revoke all on table public.geo_schedule_list from public, anon, authenticated, service_role;
grant select on table public.geo_schedule_list to authenticated, service_role;

create or replace view public.geo_action_list
with (security_invoker = true)
as
select a.id, a.geo_schedule_id as geoschedule_config_id, a.owner_id, s.name, a.from_date, a.starts_at as start_date, a.ends_at as end_date,
  a.length_minutes, a.timezone, a.side, a.apps, a.enforce, s.delete_started_date, s.deletion_status, a.update_delay_type,
  a.update_delay_seconds, r.device_id, r.status, r.location_met_at, r.reason, r.reported_at
from public.geo_actions as a
join public.geo_schedules as s on s.id = a.geo_schedule_id
left join public.geo_action_reports as r on r.geo_action_id = a.id;

comment on view public.geo_action_list is
  'Actions with what each device reported of them: one row a device, or one without a device where none has reported yet.';
comment on column public.geo_action_list.geoschedule_config_id is 'The geo schedule in geo_schedules.';
comment on column public.geo_action_list.from_date is 'The local date on which it starts.';
comment on column public.geo_action_list.start_date is 'When it starts, in UTC.';
comment on column public.geo_action_list.end_date is 'When it ends, in UTC.';
comment on column public.geo_action_list.length_minutes is 'Real minutes from start to end.';
comment on column public.geo_action_list.timezone is 'IANA name, or device.';
comment on column public.geo_action_list.side is 'inside, outside or anywhere.';
comment on column public.geo_action_list.apps is 'What is blocked.';
comment on column public.geo_action_list.enforce is 'As geo_schedules.enforce.';
comment on column public.geo_action_list.delete_started_date is 'When its geo schedule was deleted or replaced.';
comment on column public.geo_action_list.deletion_status is 'That of its geo schedule.';
comment on column public.geo_action_list.update_delay_type is 'As geo_schedules.update_delay_type.';
comment on column public.geo_action_list.update_delay_seconds is 'As geo_schedules.update_delay_seconds.';
comment on column public.geo_action_list.location_met_at is 'When the device was first where the action wants it.';
comment on column public.geo_action_list.reason is 'Why it was skipped or failed.';
comment on column public.geo_action_list.reported_at is 'When the device last told.';
revoke all on table public.geo_action_list from public, anon, authenticated, service_role;
grant select on table public.geo_action_list to authenticated, service_role;

-- db/sources/65_geo_schedules/triggers.sql
-- What follows from a change: of a geo schedule, of the location or category that it uses, of the devices that it is for.

create or replace function fleet.tg_prepare_geo_schedule()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  new.owner_id := fleet.owner_or_own(coalesce(new.owner_id, fleet.owner_of_named(array[new.device_id], array[new.group_id])));
  perform fleet.require_permission(new.owner_id, 'manage', format('owner %s', new.owner_id));
  perform fleet.raise_problems('the geo schedule', 'geo_schedule_invalid', array_agg(q))
  from fleet.geo_schedule_problems(new) as q;
  new.created_by := fleet.current_user_id();
  new.effective_from := null;
  new.delete_started_date := null;
  new.delay_ends_at := null;
  new.deletion_status := null;
  new.replaced_by := null;
  new.actions_made_to := null;

  new := fleet.geo_schedule_with_snapshots(new);
  return new;
end;
$$;

comment on function fleet.tg_prepare_geo_schedule() is
  'Check a geo schedule however it is written, and keep what its location and categories are now. Raises geo_schedule_invalid (PT422). '
  'Definer: it checks the caller.';
revoke all on function fleet.tg_prepare_geo_schedule() from public, anon, authenticated, service_role;

create or replace trigger geo_schedules_10_prepare
  before insert on public.geo_schedules
  for each row execute function fleet.tg_prepare_geo_schedule();

create or replace function fleet.tg_keep_geo_schedule()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  c_engine constant text[] := '{effective_from,delete_started_date,delay_ends_at,deletion_status,replaced_by,replaces,actions_made_to}';
begin
  -- A key that its parent takes along when it goes is no edit.
  if to_jsonb(new) - c_engine - '{device_id,group_id,location_id}'::text[] is distinct from
      to_jsonb(old) - c_engine - '{device_id,group_id,location_id}'::text[]
    or new.device_id <> old.device_id
    or new.group_id <> old.group_id
    or new.location_id <> old.location_id
    or (new.device_id is not null and old.device_id is null)
    or (new.group_id is not null and old.group_id is null)
    or (new.location_id is not null and old.location_id is null)
  then
    raise exception 'a geo schedule is never edited'
      using errcode = 'PT409', detail = 'geo_schedule_immutable',
            hint = format('Make a new one of it: select update_geo_schedule(%s, ''{"name": "…"}'')', old.id);
  end if;
  return new;
end;
$$;

comment on function fleet.tg_keep_geo_schedule() is
  'Refuse to edit what a geo schedule says; update_geo_schedule makes a new one. Raises geo_schedule_immutable (PT409).';
revoke all on function fleet.tg_keep_geo_schedule() from public, anon, authenticated, service_role;

create or replace trigger geo_schedules_20_keep
  before update on public.geo_schedules
  for each row execute function fleet.tg_keep_geo_schedule();

create or replace function fleet.tg_guard_geo_schedule()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if old.deletion_status is distinct from 'DELETED' and not fleet.is_owner_gone(old.owner_id) then
    raise exception 'geo schedule % is not removed by hand', old.id
      using errcode = 'PT409', detail = 'commitment_running',
            hint = format('Delete it: select delete_geo_schedule(%s); it goes when its delay is over.', old.id);
  end if;
  return old;
end;
$$;

comment on function fleet.tg_guard_geo_schedule() is
  'Only what is DELETED is removed, by cleanup. Raises commitment_running (PT409).';
revoke all on function fleet.tg_guard_geo_schedule() from public, anon, authenticated, service_role;

create or replace trigger geo_schedules_30_guard
  before delete on public.geo_schedules
  for each row execute function fleet.tg_guard_geo_schedule();

create or replace function fleet.tg_remove_geo_actions()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from public.geo_actions as a where a.geo_schedule_id in (select o.id from old_rows as o);
  return null;
end;
$$;

comment on function fleet.tg_remove_geo_actions() is
  'A geo schedule that goes takes its actions along. Definer: actions are nobody''s to write.';
revoke all on function fleet.tg_remove_geo_actions() from public, anon, authenticated, service_role;

create or replace trigger geo_schedules_35_remove_actions
  after delete on public.geo_schedules
  referencing old table as old_rows
  for each statement execute function fleet.tg_remove_geo_actions();

create or replace function fleet.tg_begin_geo_schedules()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_ids bigint[] := array(select n.id from new_rows as n);
begin
  perform fleet.reconcile_geo_scope(v_ids, null, v_now);
  -- Where everybody has a predecessor to wait for, so does the whole.
  update public.geo_schedules as s
  set effective_from = c.first
  from (
    select x.geo_schedule_id, min(x.effective_from) as first
    from public.geo_commitments as x
    where x.geo_schedule_id = any (v_ids)
    group by x.geo_schedule_id
    having count(*) = count(x.effective_from)
  ) as c
  where s.id = c.geo_schedule_id;
  perform fleet.create_geo_actions(v_ids, v_now);
  return null;
end;
$$;

comment on function fleet.tg_begin_geo_schedules() is
  'A new geo schedule has its commitments and actions at once. Definer: people may not write those themselves.';
revoke all on function fleet.tg_begin_geo_schedules() from public, anon, authenticated, service_role;

create or replace trigger geo_schedules_40_begin
  after insert on public.geo_schedules
  referencing new table as new_rows
  for each statement execute function fleet.tg_begin_geo_schedules();

-- Locations and categories.

create or replace function fleet.tg_replace_geo_schedules_of_location()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.replace_geo_schedule(s, s, clock_timestamp())
  from public.geo_schedules as s
  where s.location_id = new.id and s.owner_id = new.owner_id and s.deletion_status is null;
  return null;
end;
$$;

comment on function fleet.tg_replace_geo_schedules_of_location() is
  'Another border is an update of each geo schedule that uses the location. Definer: it acts for whoever changed the location.';
revoke all on function fleet.tg_replace_geo_schedules_of_location() from public, anon, authenticated, service_role;

create or replace trigger locations_50_replace_geo_schedules
  after update on public.locations
  for each row
  when (
    (old.kind, old.latitude, old.longitude, old.radius_m, old.polygon, old.hysteresis_m)
      is distinct from (new.kind, new.latitude, new.longitude, new.radius_m, new.polygon, new.hysteresis_m)
  )
  execute function fleet.tg_replace_geo_schedules_of_location();

create or replace function fleet.tg_guard_location()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (
    select 1 from public.geo_schedules as s
    where s.location_id = old.id and s.owner_id = old.owner_id and s.deletion_status is null
  ) and not fleet.is_owner_gone(old.owner_id) then
    raise exception 'location "%" is used by geo schedules', old.name
      using errcode = 'PT409', detail = 'location_in_use', hint = 'Delete or change them first: select * from geo_schedule_list';
  end if;
  return old;
end;
$$;

comment on function fleet.tg_guard_location() is
  'A location that live geo schedules use is not deleted. Raises location_in_use (PT409). Definer: it sees every geo schedule.';
revoke all on function fleet.tg_guard_location() from public, anon, authenticated, service_role;

create or replace trigger locations_60_guard_geo_schedules
  before delete on public.locations
  for each row execute function fleet.tg_guard_location();

create or replace function fleet.tg_prepare_app_category()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  new.owner_id := fleet.owner_or_own(new.owner_id);
  perform fleet.require_permission(new.owner_id, 'manage', format('owner %s', new.owner_id));
  perform fleet.raise_problems('the category', 'app_category_invalid', array_agg(q))
  from fleet.app_category_problems(new) as q;
  if tg_op = 'INSERT' then
    new.created_by := fleet.current_user_id();
  elsif new.name <> old.name and fleet.is_category_used(old) then
    raise exception 'category "%" is used by geo schedules and keeps its name', old.name
      using errcode = 'PT409', detail = 'app_category_in_use', hint = 'Make another category, and change the geo schedules.';
  end if;
  new.updated_at := now();
  return new;
end;
$$;

comment on function fleet.tg_prepare_app_category() is
  'Check a category however it is written. Raises app_category_invalid (PT422) or app_category_in_use (PT409). Definer: it checks the caller.';
revoke all on function fleet.tg_prepare_app_category() from public, anon, authenticated, service_role;

create or replace trigger app_categories_10_prepare
  before insert or update on public.app_categories
  for each row execute function fleet.tg_prepare_app_category();

create or replace function fleet.tg_replace_geo_schedules_of_category()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'DELETE' then
    if fleet.is_category_used(old) and not fleet.is_owner_gone(old.owner_id) then
      raise exception 'category "%" is used by geo schedules', old.name
        using errcode = 'PT409', detail = 'app_category_in_use', hint = 'Delete or change them first: select * from geo_schedule_list';
    end if;
    return old;
  end if;

  perform fleet.replace_geo_schedule(s, s, clock_timestamp())
  from public.geo_schedules as s
  where s.owner_id = new.owner_id
    and s.deletion_status is null
    and lower(new.name) in (select lower(n.name) from unnest(s.categories) as n(name));
  return null;
end;
$$;

comment on function fleet.tg_replace_geo_schedules_of_category() is
  'Other apps in a category are an update of each geo schedule that names it; one that is named is not deleted. Raises app_category_in_use '
  '(PT409). Definer: it acts for whoever changed the category.';
revoke all on function fleet.tg_replace_geo_schedules_of_category() from public, anon, authenticated, service_role;

create or replace trigger app_categories_20_replace_geo_schedules
  after update on public.app_categories
  for each row when (old.apps is distinct from new.apps)
  execute function fleet.tg_replace_geo_schedules_of_category();
create or replace trigger app_categories_30_guard
  before delete on public.app_categories
  for each row execute function fleet.tg_replace_geo_schedules_of_category();

-- Profiles that block for geo schedules.

create or replace function fleet.tg_guard_profile()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (
    select 1 from public.geo_schedules as s
    where s.owner_id = new.owner_id
      and s.enforce ->> 'profile_id' = new.external_id
      and s.deletion_status is distinct from 'DELETED'
  ) then
    raise exception 'profile "%" is used by geo schedules', new.name
      using errcode = 'PT409', detail = 'profile_in_use',
            hint = 'Delete or change them first, and wait for their delay: select * from geo_schedule_list';
  end if;
  return new;
end;
$$;

comment on function fleet.tg_guard_profile() is
  'A profile by which geo schedules block is not taken out of the MDM, nor while the delay of one that was deleted runs. Raises '
  'profile_in_use (PT409). Definer: it sees every geo schedule.';
revoke all on function fleet.tg_guard_profile() from public, anon, authenticated, service_role;

create or replace trigger profiles_60_guard_geo_schedules
  before update of status on public.profiles
  for each row when (new.status = 'deleting' and old.status <> 'deleting' and new.external_id is not null)
  execute function fleet.tg_guard_profile();

-- Devices and groups: whoever comes, goes, or is called otherwise.

create or replace function fleet.tg_follow_geo_devices()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.follow_geo_devices(array(select n.id from new_rows as n), clock_timestamp());
  return null;
end;
$$;

comment on function fleet.tg_follow_geo_devices() is
  'Devices that come begin to owe the geo schedules that are for them. Definer: commitments are nobody''s to write.';
revoke all on function fleet.tg_follow_geo_devices() from public, anon, authenticated, service_role;

create or replace trigger devices_50_follow_geo_schedules
  after insert on public.devices
  referencing new table as new_rows
  for each statement execute function fleet.tg_follow_geo_devices();

create or replace function fleet.tg_follow_geo_device()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.follow_geo_devices(array[new.id], clock_timestamp());
  return null;
end;
$$;

comment on function fleet.tg_follow_geo_device() is
  'A device that joins or leaves the scope of geo schedules, or reports another zone, begins or ends to owe them. Definer: commitments are '
  'nobody''s to write.';
revoke all on function fleet.tg_follow_geo_device() from public, anon, authenticated, service_role;

-- By row, and of these columns, since only so it is out of the way of every device that is merely seen: even the condition would be read anew.
create or replace trigger devices_51_follow_geo_schedules
  after update of status, timezone, tags, platform, attributes, hostname on public.devices
  for each row
  when (
    (old.status, old.timezone, old.tags, old.platform, old.attributes, old.hostname)
      is distinct from (new.status, new.timezone, new.tags, new.platform, new.attributes, new.hostname)
  )
  execute function fleet.tg_follow_geo_device();

create or replace function fleet.tg_guard_committed_device()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if fleet.is_geo_debtor(old.id, clock_timestamp()) then
    raise exception 'device "%" still owes a geo schedule', old.hostname
      using errcode = 'PT409', detail = 'commitment_running',
            hint = 'Retire it instead, or let an admin end it: select override_geo_commitment(<geo schedule>, ''why'', <device>)';
  end if;
  return old;
end;
$$;

comment on function fleet.tg_guard_committed_device() is
  'A device with a running commitment is not deleted. Raises commitment_running (PT409). Definer: it sees every commitment.';
revoke all on function fleet.tg_guard_committed_device() from public, anon, authenticated, service_role;

create or replace trigger devices_60_guard_committed
  before delete on public.devices
  for each row execute function fleet.tg_guard_committed_device();

-- Actions follow from the schedules, and reports are the devices' own; what ends a commitment is somebody's doing.
select fleet.keep_audit('public.app_categories');
select fleet.keep_audit('public.geo_schedules');
select fleet.keep_audit('public.geo_commitments', p_verbs => '{update}');

select fleet.keep_quota('public.geo_schedules', 'geo_schedules');

-- db/sources/65_geo_schedules/access.sql
-- Who sees and changes geo schedules: the people of the owner. Devices read none of it; geo_actions_due tells them what is theirs.

revoke all on table public.app_categories, public.geo_schedules, public.geo_actions, public.geo_action_reports,
  public.geo_commitments
  from public, anon, authenticated, service_role;
revoke all on sequence public.app_categories_id_seq, public.geo_schedules_id_seq, public.geo_actions_id_seq,
  public.geo_commitments_id_seq
  from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.app_categories to service_role;
-- What is owed and done is written by the functions alone.
grant select, insert (
    owner_id, name, device_id, group_id, location_id, side, apps, categories, enforce, start_minute, end_minute, recurrence, days, timezone,
    update_delay_type, update_delay_seconds, unknown_location, max_location_age, notes
  )
  on table public.geo_schedules to service_role;
grant select on table public.geo_actions, public.geo_action_reports, public.geo_commitments to service_role;
grant usage, select on sequence public.app_categories_id_seq, public.geo_schedules_id_seq to service_role;

drop policy if exists app_categories_all_service_role on public.app_categories;
create policy app_categories_all_service_role on public.app_categories for all to service_role using (true) with check (true);
drop policy if exists geo_schedules_select_service_role on public.geo_schedules;
create policy geo_schedules_select_service_role on public.geo_schedules for select to service_role using (true);
drop policy if exists geo_actions_select_service_role on public.geo_actions;
create policy geo_actions_select_service_role on public.geo_actions for select to service_role using (true);
drop policy if exists geo_action_reports_select_service_role on public.geo_action_reports;
create policy geo_action_reports_select_service_role on public.geo_action_reports for select to service_role using (true);
drop policy if exists geo_commitments_select_service_role on public.geo_commitments;
create policy geo_commitments_select_service_role on public.geo_commitments for select to service_role using (true);
drop policy if exists geo_schedules_insert_service_role on public.geo_schedules;
create policy geo_schedules_insert_service_role on public.geo_schedules for insert to service_role with check (true);

grant select, delete on table public.app_categories to authenticated;
grant insert (owner_id, name, apps), update (name, apps) on table public.app_categories to authenticated;
grant select, insert (
    owner_id, name, device_id, group_id, location_id, side, apps, categories, enforce, start_minute, end_minute, recurrence, days, timezone,
    update_delay_type, update_delay_seconds, unknown_location, max_location_age, notes
  )
  on table public.geo_schedules to authenticated;
grant select on table public.geo_actions, public.geo_action_reports, public.geo_commitments to authenticated;

drop policy if exists app_categories_select_member on public.app_categories;
create policy app_categories_select_member on public.app_categories
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists geo_schedules_select_member on public.geo_schedules;
create policy geo_schedules_select_member on public.geo_schedules
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists geo_actions_select_member on public.geo_actions;
create policy geo_actions_select_member on public.geo_actions
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists geo_action_reports_select_member on public.geo_action_reports;
create policy geo_action_reports_select_member on public.geo_action_reports
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists geo_commitments_select_member on public.geo_commitments;
create policy geo_commitments_select_member on public.geo_commitments
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists app_categories_insert_manager on public.app_categories;
create policy app_categories_insert_manager on public.app_categories
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists geo_schedules_insert_manager on public.geo_schedules;
create policy geo_schedules_insert_manager on public.geo_schedules
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists app_categories_update_manager on public.app_categories;
create policy app_categories_update_manager on public.app_categories
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists app_categories_delete_manager on public.app_categories;
create policy app_categories_delete_manager on public.app_categories
  for delete to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));

set check_function_bodies = on;
reset search_path;
