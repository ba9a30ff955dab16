-- Execution windows: at which local times a schedule may act.

create or replace function fleet.window_list(p_policies jsonb)
returns jsonb
language sql
immutable
parallel safe
return (
  case jsonb_typeof(p_policies -> 'execution_window')
    when 'array' then p_policies -> 'execution_window'
    when 'object' then jsonb_build_array(p_policies -> 'execution_window')
    else '[]'::jsonb
  end
);

comment on function fleet.window_list(jsonb) is 'The execution windows of effective policies; none means always.';
revoke all on function fleet.window_list(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.time_of_day(p_text text)
returns time
language sql
immutable
parallel safe
return (
  case when p_text ~ '^([01]?\d|2[0-4]):[0-5]\d(:[0-5]\d)?$' and p_text !~ '^24:.*[1-9]' then p_text::time end
);

comment on function fleet.time_of_day(text) is 'HH:MM or HH:MM:SS as a time, 24:00 for midnight; null where it is none.';
revoke all on function fleet.time_of_day(text) from public, anon, authenticated, service_role;

create or replace function fleet.end_of_window(p_window jsonb, p_local timestamp)
returns timestamp
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_opens time := fleet.time_of_day(p_window ->> 'from');
  v_closes time := fleet.time_of_day(p_window ->> 'to');
  v_days jsonb := p_window -> 'days_of_week';
  v_day date := p_local::date;
  v_open boolean;
begin
  -- Asked for each window and each device, so it is arithmetic and no query. Of the days on which it may have begun the later
  -- one closes last, and a window across midnight belongs to the day on which it begins.
  for n in 0..1 loop
    v_open := p_local >= v_day + v_opens
      and p_local < v_day + v_closes + case when v_closes <= v_opens then interval '1 day' else interval '0' end
      and (v_days is null or v_days @> to_jsonb(extract(isodow from v_day)::integer - 1));
    if v_open then
      return v_day + v_closes + case when v_closes <= v_opens then interval '1 day' else interval '0' end;
    end if;
    v_day := v_day - 1;
  end loop;
  return null;
end;
$$;

comment on function fleet.end_of_window(jsonb, timestamp) is
  'When a window closes in which a local time lies, in local time; null where it lies in none.';
revoke all on function fleet.end_of_window(jsonb, timestamp) from public, anon, authenticated, service_role;

create or replace function fleet.is_in_window(p_window jsonb, p_local timestamp)
returns boolean
language sql
immutable
return fleet.end_of_window(p_window, p_local) is not null;

comment on function fleet.is_in_window(jsonb, timestamp) is
  'Whether a local time lies in a window {from, to, days_of_week (0 = Monday)}; to is exclusive and may be on the next day.';
revoke all on function fleet.is_in_window(jsonb, timestamp) from public, anon, authenticated, service_role;

create or replace function fleet.window_opening(p_windows jsonb, p_clock text, p_timezone text, p_from timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_windows jsonb;
  v_local timestamp := p_from at time zone fleet.zone_clock(p_timezone);
  v_opening record;
  v_instant timestamptz;
begin
  if fleet.is_in_windows(p_windows, p_clock, p_timezone, p_from) then
    return p_from;
  end if;
  v_windows := (
    select jsonb_agg(w) from jsonb_array_elements(p_windows) as w where coalesce(w ->> 'in', 'schedule') = p_clock
  );

  -- Windows repeat weekly; two weeks, because the clocks may skip the whole of one. What is earlier on the wall is never later
  -- as an instant, so the first that opens is the one, and only those up to it are converted.
  for v_opening in
    select o.w, o.local
    from (
      select w, d.day, d.day + fleet.time_of_day(w ->> 'from') as local
      from jsonb_array_elements(v_windows) as w
      cross join generate_series(0, 15) as g(days)
      cross join lateral (select v_local::date + g.days as day) as d
    ) as o
    where o.local > v_local
      and (not o.w ? 'days_of_week' or (o.w -> 'days_of_week') @> to_jsonb(extract(isodow from o.day)::integer - 1))
    order by o.local
  loop
    v_instant := fleet.local_to_instant(v_opening.local, p_timezone);
    if v_instant > p_from and fleet.is_in_window(v_opening.w, v_instant at time zone p_timezone) then
      return v_instant;
    end if;
  end loop;
  return null;
end;
$$;

comment on function fleet.window_opening(jsonb, text, text, timestamptz) is
  'p_from itself where it lies in one of the windows by this clock (schedule or device), else when the next of them opens.';
revoke all on function fleet.window_opening(jsonb, text, text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.is_in_windows(p_windows jsonb, p_clock text, p_timezone text, p_at timestamptz)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_local timestamp := p_at at time zone fleet.zone_clock(p_timezone);
  v_window jsonb;
  v_found boolean := false;
begin
  for v_window in select w.item from jsonb_array_elements(p_windows) as w(item) loop
    if coalesce(v_window ->> 'in', 'schedule') = p_clock then
      v_found := true;
      if fleet.is_in_window(v_window, v_local) then
        return true;
      end if;
    end if;
  end loop;
  return not v_found;
end;
$$;

comment on function fleet.is_in_windows(jsonb, text, text, timestamptz) is
  'Whether p_at lies in one of the windows by this clock (schedule or device), or there is none.';
revoke all on function fleet.is_in_windows(jsonb, text, text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.window_closing(p_windows jsonb, p_clock text, p_timezone text, p_at timestamptz)
returns timestamptz
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select max(fleet.local_to_instant(fleet.end_of_window(w, p_at at time zone p_timezone), p_timezone))
  from jsonb_array_elements(p_windows) as w
  where coalesce(w ->> 'in', 'schedule') = p_clock
$$;

comment on function fleet.window_closing(jsonb, text, text, timestamptz) is
  'When the window closes that is open at p_at; null where none is.';
revoke all on function fleet.window_closing(jsonb, text, text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.waits_for_window(p_windows jsonb, p_clock text)
returns boolean
language sql
immutable
parallel safe
return (
  exists (
    select 1
    from jsonb_array_elements(p_windows) as w
    where coalesce(w ->> 'in', 'schedule') = p_clock and w ->> 'outside' = 'wait'
  )
);

comment on function fleet.waits_for_window(jsonb, text) is
  'Whether what is due outside of the windows by this clock waits for the next opening instead of being skipped.';
revoke all on function fleet.waits_for_window(jsonb, text) from public, anon, authenticated, service_role;

create or replace function fleet.window_in_device_time(p_window jsonb)
returns jsonb
language sql
immutable
parallel safe
return (
  case
    when jsonb_typeof(p_window) = 'object' and coalesce(p_window ->> 'in', 'schedule') = 'schedule'
      then p_window || '{"in": "device"}'
    else p_window
  end
);

comment on function fleet.window_in_device_time(jsonb) is
  'A window of a schedule in device time, which has no other zone in which it could be meant.';
revoke all on function fleet.window_in_device_time(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.policies_in_device_time(p_policies jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case jsonb_typeof(p_policies -> 'execution_window')
    when 'object' then p_policies || jsonb_build_object(
      'execution_window', fleet.window_in_device_time(p_policies -> 'execution_window')
    )
    when 'array' then p_policies || jsonb_build_object('execution_window', (
      select coalesce(jsonb_agg(fleet.window_in_device_time(e.item) order by e.n), '[]')
      from jsonb_array_elements(p_policies -> 'execution_window') with ordinality as e(item, n)
    ))
    else p_policies
  end
$$;

comment on function fleet.policies_in_device_time(jsonb) is
  'The policies of a schedule in device time, with its windows in the time of the devices too.';
revoke all on function fleet.policies_in_device_time(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.window_problems(p_windows jsonb)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  with given as (
    select e.item as w, 'policies.execution_window' as field
    from jsonb_array_elements(
      case jsonb_typeof(p_windows) when 'array' then p_windows else jsonb_build_array(p_windows) end
    ) as e(item)
    where p_windows is not null and jsonb_typeof(p_windows) <> 'null'
  )
  select g.field, 'must be an object or a list of them', 'Example: {"from": "22:00", "to": "05:00"}'
  from given as g
  where jsonb_typeof(g.w) <> 'object'
  union all
  select g.field || '.' || k.key, 'is not a time of day', 'Write it like "22:00".'
  from given as g
  cross join (values ('from'), ('to')) as k(key)
  where jsonb_typeof(g.w) = 'object' and fleet.time_of_day(g.w ->> k.key) is null
  union all
  select q.field, q.problem, q.hint
  from given as g
  cross join lateral fleet.choice_problem(g.field || '.in', g.w -> 'in', '{schedule,device}') as q
  where jsonb_typeof(g.w) = 'object'
  union all
  select q.field, q.problem, q.hint
  from given as g
  cross join lateral fleet.choice_problem(g.field || '.outside', g.w -> 'outside', '{skip,wait}') as q
  where jsonb_typeof(g.w) = 'object'
  union all
  select g.field || '.days_of_week', 'must be a list of days from 0 (Monday) to 6', 'Example: [0, 1, 2, 3, 4]'
  from given as g
  where jsonb_typeof(g.w) = 'object'
    and g.w ? 'days_of_week'
    and (
      jsonb_typeof(g.w -> 'days_of_week') <> 'array'
      or g.w -> 'days_of_week' = '[]'
      or not '[0, 1, 2, 3, 4, 5, 6]'::jsonb @> (g.w -> 'days_of_week')
    )
  union all
  select g.field || '.' || k.key, 'is not a key of a window', 'The keys are from, to, days_of_week, in and outside.'
  from given as g
  cross join lateral jsonb_object_keys(case when jsonb_typeof(g.w) = 'object' then g.w else '{}' end) as k(key)
  where k.key not in ('from', 'to', 'days_of_week', 'in', 'outside')
$$;

comment on function fleet.window_problems(jsonb) is 'Everything that is wrong with execution windows.';
revoke all on function fleet.window_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.opening_of(p_schedule public.schedules, p_instant timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- What does not wait is judged where it stands.
  if not p_schedule.policies ? 'execution_window'
    or not fleet.waits_for_window(fleet.window_list(p_schedule.policies), 'schedule')
  then
    return p_instant;
  end if;
  return coalesce(
    fleet.window_opening(fleet.window_list(p_schedule.policies), 'schedule', fleet.reference_zone(p_schedule), p_instant),
    p_instant
  );
end;
$$;

comment on function fleet.opening_of(public.schedules, timestamptz) is
  'When a run of this instant may begin: at once, or when the execution window opens.';
revoke all on function fleet.opening_of(public.schedules, timestamptz) from public, anon, authenticated, service_role;
