-- Generated from db/sources/70_insight by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/70_insight/10_view.sql
-- Who may look, and at what: the schedules that a question is about.

create or replace function fleet.schedule_in_view(p_schedule_id bigint)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules;
begin
  select s.* into v_row
  from public.schedules as s
  where s.id = p_schedule_id and fleet.is_visible_owner(s.owner_id);
  if not found then
    perform fleet.raise_not_found(format('schedule %s', p_schedule_id));
  end if;
  return v_row;
end;
$$;

comment on function fleet.schedule_in_view(bigint) is
  'The schedule, if the caller may see it; unlike schedule_of_caller it locks nothing. Raises schedule_not_found (PT404).';
revoke all on function fleet.schedule_in_view(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.device_in_view(p_device_id bigint, p_owner_id uuid)
returns public.devices
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.devices;
begin
  select d.* into v_row from public.devices as d where d.id = p_device_id and d.owner_id = p_owner_id;
  if not found then
    perform fleet.raise_not_found(format('device %s', p_device_id));
  end if;
  return v_row;
end;
$$;

comment on function fleet.device_in_view(bigint, uuid) is
  'The device, if it has the owner whose schedules are looked at. Raises device_not_found (PT404).';
revoke all on function fleet.device_in_view(bigint, uuid) from public, anon, authenticated, service_role;

create or replace function fleet.owners_in_view()
returns uuid[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when fleet.is_trusted_caller() then array(select o.id from public.owners as o)
    else array(select o.id from fleet.my_owners() as o(id))
  end
$$;

comment on function fleet.owners_in_view() is
  'The owners whose fleets the caller sees: his own and those he is a member of; all of them inside the database; none for a device.';
revoke all on function fleet.owners_in_view() from public, anon, authenticated, service_role;

create or replace function fleet.owner_in_mind(p_owner_id uuid)
returns uuid
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid := coalesce(p_owner_id, fleet.usual_owner());
begin
  if v_owner is null then
    -- Nobody is signed in: the default, or the error about it. It writes only for a person.
    v_owner := fleet.resolve_owner();
  end if;
  perform fleet.require_permission(v_owner, 'view', format('owner %s', v_owner));
  return v_owner;
end;
$$;

comment on function fleet.owner_in_mind(uuid) is
  'The owner that was named or whose rows the caller would make, without making it. Raises owner_not_found (PT404), owner_missing '
  '(PT422) or not_a_person (PT403).';
revoke all on function fleet.owner_in_mind(uuid) from public, anon, authenticated, service_role;

create or replace function fleet.require_span(p_from timestamptz, p_to timestamptz, p_most interval)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_from is null or p_to is null or not isfinite(p_from) or not isfinite(p_to)
    or p_to <= p_from or p_to > p_from + p_most
  then
    raise exception 'from % to % is not a span of at most %', coalesce(p_from::text, 'null'), coalesce(p_to::text, 'null'), p_most
      using errcode = 'PT422',
            detail = 'span_invalid',
            hint = 'Let p_to be after p_from, and ask for less at once.';
  end if;
end;
$$;

comment on function fleet.require_span(timestamptz, timestamptz, interval) is
  'Raise span_invalid (PT422) unless p_to is after p_from by at most so much.';
revoke all on function fleet.require_span(timestamptz, timestamptz, interval)
  from public, anon, authenticated, service_role;

create or replace function fleet.has_clock(p_schedule public.schedules)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- By device time the zones that are gone are left out one by one.
  perform timestamptz 'epoch' at time zone (p_schedule.recurrence ->> 'clock');
  return p_schedule.timezone = 'device' or fleet.zones_of_server(array[p_schedule.timezone]) <> '{}';
exception
  when invalid_parameter_value then
    return false;
end;
$$;

comment on function fleet.has_clock(public.schedules) is
  'Whether the server has the time zone in which the times of a schedule are read. One that it has no more is left out of what shows many.';
revoke all on function fleet.has_clock(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.lost_zones(p_owner_ids uuid[])
returns table (zone text, devices bigint, schedules text[])
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with used as (
    select z.zone, sum(z.devices) as devices, null::text as schedule
    from fleet.owner_zones as z
    where z.owner_id = any (p_owner_ids) and z.zone <> '' and z.devices > 0
    group by z.zone
    union all
    select s.timezone, 0, s.name
    from public.schedules as s
    where s.owner_id = any (p_owner_ids) and s.status in ('active', 'paused') and s.timezone <> 'device'
  ),
  here as materialized (
    select fleet.zones_of_server(array(select distinct u.zone from used as u)) as zones
  )
  select u.zone, sum(u.devices)::bigint,
    (array_agg(u.schedule order by u.schedule) filter (where u.schedule is not null))[1:20]
  from used as u
  cross join here as h
  where u.zone <> all (h.zones)
  group by u.zone
  order by u.zone
$$;

comment on function fleet.lost_zones(uuid[]) is
  'Time zones that devices or schedules of these owners are in and that this server does not have, under any name: how many devices, and '
  'which schedules. They are left out, the rest goes on.';
revoke all on function fleet.lost_zones(uuid[]) from public, anon, authenticated, service_role;

-- db/sources/70_insight/20_coming.sql
-- What a schedule will do: each due instant with the decision that the engine would make about it.

create or replace function fleet.coming_runs(
  p_schedule public.schedules,
  p_from timestamptz,
  p_to timestamptz,
  p_limit integer,
  p_is_present boolean default false
)
returns table (
  due_at timestamptz,
  starts_at timestamptz,
  would text,
  reason text,
  zones text[],
  dst_rule text,
  missed_to timestamptz,
  missed_count bigint,
  local timestamp,
  last_at timestamptz,
  missed_to_local timestamp,
  open_zones text[]
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules := p_schedule;
  v_most bigint := (p_schedule.policies ->> 'max_runs')::bigint;
  v_now timestamptz;
  v_next timestamptz;
  v_made integer := 0;
  v_decided record;
  v_is_plain boolean := fleet.is_plainly_decided(p_schedule);
  -- Windows in the time of the devices: who is within them is known zone by zone.
  v_zones text[];
  v_leaves_out_gaps boolean := fleet.leaves_out_gaps(p_schedule.recurrence);
  v_skipped record;
begin
  if p_schedule.status not in ('active', 'paused') or p_schedule.next_run_at is null then
    return;
  elsif p_schedule.timezone = 'device' then
    return query select c.* from fleet.coming_on_walls(p_schedule, p_from, p_to, p_limit, p_is_present) as c;
    return;
  end if;
  v_zones := fleet.zones_behind_windows(p_schedule);

  -- What is overdue is decided as a tick at p_from would; otherwise the engine is taken to have kept up until then. Runs
  -- that are limited in number are counted from where the schedule stands.
  if not (v_row.next_run_at < p_from and (p_is_present or v_most is not null)) then
    v_row.next_run_at := fleet.next_due(v_row.recurrence, null, p_from - interval '1 microsecond');
  end if;

  while v_row.next_run_at < p_to and v_made < p_limit loop
    if v_is_plain and v_row.next_run_at >= p_from then
      v_made := v_made + 1;
      if v_leaves_out_gaps then
        select g.* into v_skipped
        from fleet.skipped_times(v_row.recurrence, v_row.next_run_at, v_row.next_run_at + interval '1 microsecond') as g;
      end if;
      if v_leaves_out_gaps and found then
        due_at := v_row.next_run_at;
        starts_at := due_at;
        would := 'skip';
        reason := 'the clocks skip this local time';
        dst_rule := 'gap:skip';
        local := v_skipped.first_local;
        if v_skipped.times > 1 then
          missed_to := due_at;
          missed_count := v_skipped.times;
          missed_to_local := v_skipped.last_local;
        end if;
        return next;
        local := null;
        missed_to := null;
        missed_count := null;
        missed_to_local := null;
        if fleet.next_occurrence(v_row.recurrence, due_at - interval '1 microsecond') is distinct from due_at then
          v_row.next_run_at := fleet.next_due(v_row.recurrence, null, due_at);
          continue;
        end if;
        exit when v_made >= p_limit;
        v_made := v_made + 1;
      end if;
      due_at := v_row.next_run_at;
      starts_at := due_at;
      reason := fleet.plain_refusal(p_schedule, due_at);
      dst_rule := fleet.applied_rule(v_row.recurrence, due_at);
      if v_zones is not null and reason is null then
        select w.open_zones, w.starts_at, w.refusal into open_zones, starts_at, reason
        from fleet.windows_of_zones(p_schedule, v_zones, starts_at) as w;
      end if;
      would := case when reason is null then 'run' else 'skip' end;
      return next;
      open_zones := null;
      v_row.next_run_at := case
        when v_leaves_out_gaps then fleet.next_due(v_row.recurrence, null, due_at)
        else fleet.next_occurrence(v_row.recurrence, due_at)
      end;
      continue;
    end if;

    v_now := case when p_is_present then greatest(v_row.next_run_at, p_from) else v_row.next_run_at end;
    v_next := null;
    for v_decided in select d.* from fleet.decide_due(v_row, v_now) as d order by d.scheduled_for loop
      v_next := v_decided.next_run_at;
      due_at := v_decided.scheduled_for;
      starts_at := coalesce(v_decided.not_before, v_now);
      reason := v_decided.reason;
      if v_zones is not null and v_decided.status = 'pending' then
        select w.open_zones, w.starts_at, w.refusal into open_zones, starts_at, reason
        from fleet.windows_of_zones(p_schedule, v_zones, starts_at) as w;
      end if;
      would := case when v_decided.status = 'pending' and reason is null and v_row.status = 'active' then 'run' else 'skip' end;
      if would = 'run' then
        v_row.execution_count := v_row.execution_count + 1;
      end if;
      if v_made < p_limit and (p_is_present or v_decided.scheduled_for >= p_from) then
        v_made := v_made + 1;
        reason := case when v_row.status = 'paused' then 'paused' else reason end;
        dst_rule := v_decided.dst_rule;
        local := v_decided.scheduled_local;
        missed_to := v_decided.missed_to;
        missed_count := v_decided.missed_count;
        missed_to_local := v_decided.missed_to_local;
        return next;
        local := null;
        missed_to := null;
        missed_count := null;
        missed_to_local := null;
      end if;
      open_zones := null;
    end loop;
    exit when fleet.runs_left(v_row) <= 0;
    v_row.next_run_at := v_next;
  end loop;
end;
$$;

comment on function fleet.coming_runs(public.schedules, timestamptz, timestamptz, integer, boolean) is
  'The due instants of a schedule within [p_from, p_to), at most p_limit, as fleet.decide_due decides about each. p_is_present: what is '
  'overdue at p_from comes first, as it would be caught up then. open_zones: the zones whose devices are within their windows, where there '
  'are windows in device time. Overlap cannot be known: nobody knows how long devices will take.';
revoke all on function fleet.coming_runs(public.schedules, timestamptz, timestamptz, integer, boolean)
  from public, anon, authenticated, service_role;

create or replace function fleet.is_plainly_decided(p_schedule public.schedules)
returns boolean
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select p_schedule.status = 'active'
    and not p_schedule.policies ? 'max_runs'
    and not fleet.waits_for_window(fleet.window_list(p_schedule.policies), 'schedule')
$$;

comment on function fleet.is_plainly_decided(public.schedules) is
  'Whether an instant that is ticked on time runs at once for all of its zones, or not at all: nothing is counted, nothing waits.';
revoke all on function fleet.is_plainly_decided(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.plain_refusal(p_schedule public.schedules, p_instant timestamptz)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Says what fleet.zones_refusal says, without looking for the next opening: thousands of instants are asked about at once.
  if not p_schedule.policies ?| '{blackouts,execution_window}' then
    return null;
  elsif p_schedule.policies ? 'blackouts' and fleet.open_zones(p_schedule, array[p_schedule.timezone], p_instant) = '{}' then
    return 'blackout';
  end if;
  return (
    select 'outside the execution window'
    from jsonb_array_elements(fleet.window_list(p_schedule.policies)) as w
    where coalesce(w ->> 'in', 'schedule') = 'schedule'
    having count(*) > 0 and not bool_or(fleet.is_in_window(w, p_instant at time zone fleet.reference_zone(p_schedule)))
  );
end;
$$;

comment on function fleet.plain_refusal(public.schedules, timestamptz) is
  'Why a plainly decided schedule does not run at an instant on time; null where it does.';
revoke all on function fleet.plain_refusal(public.schedules, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.zones_behind_windows(p_schedule public.schedules)
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_zones text[];
begin
  if not exists (
    select 1
    from jsonb_array_elements(fleet.window_list(fleet.effective_policies(p_schedule.policies))) as w
    where w ->> 'in' = 'device'
  ) then
    return null;
  end if;
  -- Where nobody is reached yet, there is nobody to be outside.
  v_zones := fleet.zones_of_server(array(
    select z.zone from jsonb_object_keys(fleet.device_counts(p_schedule)) as z(zone) where z.zone <> ''
  ));
  return nullif(v_zones, '{}');
end;
$$;

comment on function fleet.zones_behind_windows(public.schedules) is
  'The time zones of the devices that a schedule reaches, where it has windows in device time; null where it has none, or reaches nobody.';
revoke all on function fleet.zones_behind_windows(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.windows_of_zones(p_schedule public.schedules, p_zones text[], p_at timestamptz)
returns table (open_zones text[], starts_at timestamptz, refusal text)
language sql
stable
rows 1
set search_path = pg_catalog, pg_temp
as $$
  -- What the run asks for each device, without its slot.
  select array_agg(z.zone order by z.zone) filter (where s.at is not null), coalesce(min(s.at), p_at),
    case when count(s.at) = 0 then 'outside the execution window' end
  from (select fleet.effective_policies(p_schedule.policies) - 'jitter' as policies) as p
  cross join unnest(p_zones) as z(zone)
  cross join lateral (select fleet.device_start(p.policies, p_schedule.id, 0, z.zone, p_at) as at) as s
$$;

comment on function fleet.windows_of_zones(public.schedules, text[], timestamptz) is
  'In which of these zones the devices of a run may start by their windows, when the first of them does, and why none does.';
revoke all on function fleet.windows_of_zones(public.schedules, text[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.device_counts(p_schedule public.schedules)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_object_agg(c.zone, c.devices), '{}')
  from (
    select coalesce(t.timezone, case when p_schedule.timezone = 'device' then fleet.unknown_zone(p_schedule.recurrence) else 'UTC' end, '') as zone,
      count(*) as devices
    from fleet.targets(p_schedule.owner_id, p_schedule.device_ids, p_schedule.group_ids, p_schedule.selector) as t
    group by 1
  ) as c
$$;

comment on function fleet.device_counts(public.schedules) is 'How many devices a schedule reaches now, by their time zone.';
revoke all on function fleet.device_counts(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.devices_of_zones(p_counts jsonb, p_zones text[])
returns bigint
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(sum(e.value::bigint), 0)
  from jsonb_each_text(p_counts) as e
  where p_zones is null or e.key = any (p_zones)
$$;

comment on function fleet.devices_of_zones(jsonb, text[]) is
  'How many of the counted devices an instant is for: those in its zones, or all where it has none.';
revoke all on function fleet.devices_of_zones(jsonb, text[]) from public, anon, authenticated, service_role;

create or replace function fleet.clock_text(p_instant timestamptz, p_timezone text)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select to_char(
    p_instant at time zone p_timezone,
    case
      when date_trunc('minute', p_instant) = p_instant then 'Dy YYYY-MM-DD HH24:MI'
      else 'Dy YYYY-MM-DD HH24:MI:SS'
    end
  )
$$;

comment on function fleet.clock_text(timestamptz, text) is 'What calendar and clock show at an instant in a time zone, with the weekday.';
revoke all on function fleet.clock_text(timestamptz, text) from public, anon, authenticated, service_role;

create or replace function fleet.wall_text(p_local timestamp)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select to_char(p_local, case when date_trunc('minute', p_local) = p_local then 'Dy YYYY-MM-DD HH24:MI' else 'Dy YYYY-MM-DD HH24:MI:SS' end)
$$;

comment on function fleet.wall_text(timestamp) is 'What calendar and clock show on a wall, with the weekday.';
revoke all on function fleet.wall_text(timestamp) from public, anon, authenticated, service_role;

create or replace function fleet.local_times(p_instant timestamptz, p_zones text[])
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with shown as (
    select fleet.clock_text(p_instant, z.name) as text, string_agg(z.name, ', ' order by z.name) as names
    from unnest(p_zones) as z(name)
    group by 1
  )
  select string_agg(
    s.text || case when (select count(*) from shown) > 1 then format(' (%s)', s.names) else '' end,
    '; ' order by s.text
  )
  from shown as s
$$;

comment on function fleet.local_times(timestamptz, text[]) is
  'The local time of an instant in these zones; said once where they agree, which is the rule for device time.';
revoke all on function fleet.local_times(timestamptz, text[]) from public, anon, authenticated, service_role;

create or replace function fleet.dst_note(p_rule text)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select replace(replace(replace(replace(replace(replace(
    -- With device time each rule has its zone before it.
    regexp_replace(p_rule, ' (gap|fold):', ': \1:', 'g'),
    'gap:first_instant', 'the clocks skip this local time: it runs at the first instant after'),
    'gap:shift', 'the clocks skip this local time: it runs as much later as they jump'),
    'gap:skip', 'the clocks skip this local time: it does not run'),
    'fold:first', 'this local time comes twice: it runs at the first'),
    'fold:second', 'this local time comes twice: it runs at the second'),
    'fold:both', 'this local time comes twice: it runs both times')
$$;

comment on function fleet.dst_note(text) is 'In English, which rule moved an instant at a change of the clock; null where none did.';
revoke all on function fleet.dst_note(text) from public, anon, authenticated, service_role;

create or replace function fleet.skip_detail(
  p_schedule public.schedules,
  p_reason text,
  p_zones text[],
  p_due_at timestamptz,
  p_starts_at timestamptz
)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case p_reason
    when 'blackout' then (
      select fleet.blackout_at(p_schedule.owner_id, fleet.blackout_ids(p_schedule.policies), z.name, i.at)
      from unnest(coalesce(p_zones, array[fleet.reference_zone(p_schedule)])) as z(name)
      cross join (values (1, p_due_at), (2, p_starts_at)) as i(nr, at)
      order by fleet.blackout_at(p_schedule.owner_id, fleet.blackout_ids(p_schedule.policies), z.name, i.at) is null, i.nr
      limit 1
    )
    when 'paused' then p_schedule.status_reason
  end
$$;

comment on function fleet.skip_detail(public.schedules, text, text[], timestamptz, timestamptz) is
  'What more is known of the reason for a skip: the name of the blackout, why the schedule is paused.';
revoke all on function fleet.skip_detail(public.schedules, text, text[], timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/70_insight/21_coming_walls.sql
-- What a schedule by device time will do: each local occurrence once, with the zones in which it is due.

create or replace function fleet.coming_on_walls(
  p_schedule public.schedules,
  p_from timestamptz,
  p_to timestamptz,
  p_limit integer,
  p_is_present boolean
)
returns table (
  due_at timestamptz,
  starts_at timestamptz,
  would text,
  reason text,
  zones text[],
  dst_rule text,
  missed_to timestamptz,
  missed_count bigint,
  local timestamp,
  last_at timestamptz,
  missed_to_local timestamp,
  open_zones text[]
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- Compiling the plan would take a hundred times as long as running it.
set jit = off
as $$
declare
  v_zones text[] := fleet.schedule_zones(p_schedule);
  v_left bigint := fleet.runs_left(p_schedule);
  v_from timestamptz := greatest(p_schedule.next_run_at, case when v_left is null then p_from end);
  v_span interval := '3 days';
  v_made integer := 0;
  v_policies jsonb := fleet.effective_policies(p_schedule.policies) - 'jitter';
  v_run record;
begin
  if p_schedule.next_run_at < p_from and (p_is_present or v_left is not null) then
    -- What is overdue, as a tick at p_from would decide about it.
    for v_run in select d.* from fleet.decide_occurrences(p_schedule, p_from) as d order by d.scheduled_local loop
      if v_run.status = 'pending' and p_schedule.status = 'active' then
        v_left := v_left - 1;
      end if;
      continue when not p_is_present or v_made >= p_limit;
      v_made := v_made + 1;
      due_at := v_run.scheduled_for;
      starts_at := greatest(v_run.scheduled_for, p_from);
      would := case when v_run.status = 'pending' and p_schedule.status = 'active' then 'run' else 'skip' end;
      reason := case when p_schedule.status = 'paused' then 'paused' else v_run.reason end;
      zones := coalesce(
        array(select z.zone from jsonb_array_elements(v_run.zone_rows) as e, jsonb_array_elements_text(e -> 'zones') as z(zone)), v_zones
      );
      dst_rule := v_run.dst_rule;
      missed_to := v_run.missed_to;
      missed_count := v_run.missed_count;
      missed_to_local := v_run.missed_to_local;
      local := v_run.scheduled_local;
      last_at := null;
      return next;
    end loop;
    v_from := p_from + interval '1 microsecond';
  elsif v_left is null and p_schedule.next_run_at >= p_from then
    -- Of a day that has begun, the rest runs.
    v_from := (
      select min(o.due_at)
      from fleet.local_occurrences(p_schedule.recurrence, v_zones, v_from - interval '27 hours', v_from + interval '1 microsecond') as o
      where o.last_at >= v_from
        and not exists (
          select 1
          from public.schedule_runs as r
          where r.schedule_id = p_schedule.id and r.scheduled_local = o.local and r.fold = o.fold
        )
    );
    v_from := coalesce(v_from, p_schedule.next_run_at);
  end if;

  missed_to := null;
  missed_count := null;
  missed_to_local := null;
  while v_made < p_limit and v_from < p_to and coalesce(v_left > 0, true) loop
    for v_run in
      select o.*
      from fleet.local_occurrences(p_schedule.recurrence, v_zones, v_from, least(v_from + v_span, p_to)) as o
      order by o.due_at, o.local, o.fold
    loop
      exit when v_made >= p_limit or v_left <= 0;
      select array_agg(z.zone order by z.due_at, z.zone),
        array_agg(z.zone order by z.due_at, z.zone) filter (where w.is_open),
        left(string_agg(distinct z.zone || ' ' || z.rule, ', ') filter (where z.rule is not null), 500),
        case
          when p_schedule.status = 'paused' then 'paused'
          when bool_and(z.refusal is not null) then min(z.refusal)
          when bool_and(z.refusal is not null or not w.is_open) then 'outside the execution window'
          when p_schedule.policies ? 'blackouts' and bool_and(fleet.open_zones(p_schedule, array[z.zone], z.due_at) = '{}') then 'blackout'
        end
      into zones, open_zones, dst_rule, reason
      from fleet.zone_instants(p_schedule.recurrence, v_run.local, v_run.fold, v_zones) as z
      cross join lateral (
        select fleet.device_start(v_policies, p_schedule.id, 0, z.zone, z.due_at) is not null as is_open
      ) as w;
      would := case when reason is null then 'run' else 'skip' end;
      if reason is null then
        v_left := v_left - 1;
      end if;
      continue when v_run.due_at < p_from and v_run.last_at < p_from;
      v_made := v_made + 1;
      due_at := v_run.due_at;
      starts_at := v_run.due_at;
      local := v_run.local;
      last_at := v_run.last_at;
      return next;
    end loop;
    v_from := least(v_from + v_span, p_to);
    v_span := v_span * 2;
    if v_made = 0 or v_from = p_to then
      -- Rare ones are looked for, not waited for.
      v_from := greatest(v_from, coalesce(fleet.next_due(p_schedule.recurrence, v_zones, v_from - interval '1 microsecond'), p_to));
    elsif fleet.next_due(p_schedule.recurrence, v_zones, v_from - interval '1 microsecond') is null then
      exit;
    end if;
    v_span := least(v_span, interval '400 days');
  end loop;
end;
$$;

comment on function fleet.coming_on_walls(public.schedules, timestamptz, timestamptz, integer, boolean) is
  'See fleet.coming_runs, for a schedule by device time: due_at is the first instant at which an occurrence is due for anybody, last_at the '
  'last, local what every wall shows.';
revoke all on function fleet.coming_on_walls(public.schedules, timestamptz, timestamptz, integer, boolean)
  from public, anon, authenticated, service_role;

-- db/sources/70_insight/30_preview.sql
-- Before saving: what a new schedule would do, and what an edit would change.

create or replace function fleet.preview_of(p_schedule public.schedules, p_count integer, p_from timestamptz, p_is_present boolean)
returns table (
  due_at timestamptz,
  local_time text,
  zones text[],
  would text,
  reason text,
  detail text,
  dst_note text,
  starts_at timestamptz,
  devices bigint
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select c.due_at, coalesce(fleet.wall_text(c.local), fleet.local_times(c.due_at, z.zones)), z.zones, c.would, c.reason,
    coalesce(
      fleet.skip_detail(p_schedule, c.reason, c.zones, c.due_at, c.starts_at),
      case when c.missed_count > 1 then format('%s instants until %s', c.missed_count, coalesce(
        fleet.wall_text(c.missed_to_local), fleet.local_times(c.missed_to, z.zones)
      )) end
    ),
    fleet.dst_note(c.dst_rule),
    case when c.would = 'run' then c.starts_at end,
    fleet.devices_of_zones(d.counts, coalesce(c.open_zones, c.zones))
  from fleet.coming_runs(p_schedule, p_from, 'infinity', p_count, p_is_present) as c
  cross join lateral (
    select coalesce(c.zones, array[fleet.reference_zone(p_schedule)]) as zones
  ) as z
  cross join (select fleet.device_counts(p_schedule) as counts) as d
$$;

comment on function fleet.preview_of(public.schedules, integer, timestamptz, boolean) is
  'See public.preview_schedule. p_is_present: p_from is the present, so what is overdue then comes first; otherwise the engine is taken to have '
  'kept up until then.';
revoke all on function fleet.preview_of(public.schedules, integer, timestamptz, boolean)
  from public, anon, authenticated, service_role;

create or replace function fleet.preview_schedule(p_spec jsonb, p_count integer, p_from timestamptz)
returns table (
  due_at timestamptz,
  local_time text,
  zones text[],
  would text,
  reason text,
  detail text,
  dst_note text,
  starts_at timestamptz,
  devices bigint
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_blank public.schedules;
  v_draft public.schedules;
begin
  perform fleet.require_object(p_spec, 'a schedule', 'See the README, "Schedules by example".');
  v_blank := fleet.blank_schedule(fleet.owner_in_mind(fleet.owner_of_spec(p_spec)));
  -- What the trigger calls when it is saved.
  v_draft := fleet.prepared_schedule(v_blank, fleet.changed_schedule(v_blank, p_spec), p_from);
  return query
  select p.* from fleet.preview_of(v_draft, fleet.whole_number_between('p_count', p_count, 1, 1000), p_from, true) as p;
end;
$$;

comment on function fleet.preview_schedule(jsonb, integer, timestamptz) is
  'See public.preview_schedule. Definer: it checks the caller first, then sees what the checks need to see.';
revoke all on function fleet.preview_schedule(jsonb, integer, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.preview_schedule(jsonb, integer, timestamptz) to authenticated, service_role;

create or replace function public.preview_schedule(
  p_spec jsonb,
  p_count integer default 10,
  p_from timestamptz default now()
)
returns table (
  due_at timestamptz,
  local_time text,
  zones text[],
  would text,
  reason text,
  detail text,
  dst_note text,
  starts_at timestamptz,
  devices bigint
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select * from fleet.preview_schedule(p_spec, p_count, fleet.calendar_instant(p_from))
$$;

comment on function public.preview_schedule(jsonb, integer, timestamptz) is
  'The next runs of a schedule that is not saved: when, in UTC and in local time, for how many devices, and why one would be skipped. '
  'Takes and checks what create_schedule does; nothing is written. Raises schedule_invalid (PT422, or PT404) naming every wrong field.';
revoke all on function public.preview_schedule(jsonb, integer, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function public.preview_schedule(jsonb, integer, timestamptz) to authenticated, service_role;

create or replace function fleet.is_present(p_from timestamptz)
returns boolean
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select p_from <= fleet.engine_time() + interval '1 minute'
$$;

comment on function fleet.is_present(timestamptz) is
  'Whether a look from this instant on is one at the present, which shows what is overdue, and not one at a time to come.';
revoke all on function fleet.is_present(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.upcoming_runs(p_schedule_id bigint, p_count integer, p_from timestamptz)
returns table (
  due_at timestamptz,
  local_time text,
  zones text[],
  would text,
  reason text,
  detail text,
  dst_note text,
  starts_at timestamptz,
  devices bigint
)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select p.*
  from fleet.preview_of(
    fleet.schedule_in_view(p_schedule_id), fleet.whole_number_between('p_count', p_count, 1, 1000), p_from, fleet.is_present(p_from)
  ) as p
$$;

comment on function fleet.upcoming_runs(bigint, integer, timestamptz) is 'See public.upcoming_runs. Definer: it checks the caller.';
revoke all on function fleet.upcoming_runs(bigint, integer, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.upcoming_runs(bigint, integer, timestamptz) to authenticated, service_role;

create or replace function public.upcoming_runs(
  p_schedule_id bigint,
  p_count integer default 10,
  p_from timestamptz default now()
)
returns table (
  due_at timestamptz,
  local_time text,
  zones text[],
  would text,
  reason text,
  detail text,
  dst_note text,
  starts_at timestamptz,
  devices bigint
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select * from fleet.upcoming_runs(p_schedule_id, p_count, fleet.calendar_instant(p_from))
$$;

comment on function public.upcoming_runs(bigint, integer, timestamptz) is
  'The next runs of a schedule, as preview_schedule shows those of one that is not saved. Raises schedule_not_found (PT404).';
revoke all on function public.upcoming_runs(bigint, integer, timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.upcoming_runs(bigint, integer, timestamptz) to authenticated, service_role;

create or replace function fleet.diff_schedule(
  p_schedule_id bigint,
  p_changes jsonb,
  p_count integer,
  p_from timestamptz
)
returns table (
  change text,
  due_at timestamptz,
  local_time text,
  would_before text,
  would_after text,
  devices_before bigint,
  devices_after bigint,
  dst_note text
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_old public.schedules := fleet.schedule_in_view(p_schedule_id);
  v_count integer := fleet.whole_number_between('p_count', p_count, 1, 1000);
  v_new public.schedules;
begin
  if v_old.status = 'cancelled' then
    raise exception 'schedule % is cancelled', p_schedule_id
      using errcode = 'PT409',
            detail = 'schedule_cancelled',
            hint = format('Make a new one of it: select duplicate_schedule(%s)', p_schedule_id);
  end if;
  v_new := fleet.prepared_schedule(v_old, fleet.changed_schedule(v_old, p_changes), p_from);

  -- The first n of both together: whatever is among them is among the first n of its own.
  return query
  select case when b.due_at is null then 'added' when a.due_at is null then 'removed' else 'kept' end,
    coalesce(a.due_at, b.due_at), coalesce(a.local_time, b.local_time),
    concat_ws(': ', b.would, b.reason, b.detail), concat_ws(': ', a.would, a.reason, a.detail),
    b.devices, a.devices, coalesce(a.dst_note, b.dst_note)
  from fleet.preview_of(v_old, v_count, p_from, fleet.is_present(p_from)) as b
  full join fleet.preview_of(v_new, v_count, p_from, fleet.is_present(p_from)) as a on a.due_at = b.due_at
  order by 2
  limit v_count;
end;
$$;

comment on function fleet.diff_schedule(bigint, jsonb, integer, timestamptz) is
  'See public.diff_schedule. Definer: it checks the caller first, then sees what the checks need to see.';
revoke all on function fleet.diff_schedule(bigint, jsonb, integer, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.diff_schedule(bigint, jsonb, integer, timestamptz) to authenticated, service_role;

create or replace function public.diff_schedule(
  p_schedule_id bigint,
  p_changes jsonb,
  p_count integer default 20,
  p_from timestamptz default now()
)
returns table (
  change text,
  due_at timestamptz,
  local_time text,
  would_before text,
  would_after text,
  devices_before bigint,
  devices_after bigint,
  dst_note text
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select * from fleet.diff_schedule(p_schedule_id, p_changes, p_count, fleet.calendar_instant(p_from))
$$;

comment on function public.diff_schedule(bigint, jsonb, integer, timestamptz) is
  'The coming runs before and after an edit, in the order of time: added, removed or kept, and what would become of each. Takes and '
  'checks what update_schedule does; nothing is written. Raises schedule_not_found (PT404), schedule_invalid (PT422) or '
  'schedule_cancelled (PT409).';
revoke all on function public.diff_schedule(bigint, jsonb, integer, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function public.diff_schedule(bigint, jsonb, integer, timestamptz) to authenticated, service_role;

-- db/sources/70_insight/40_explain.sql
-- Why a schedule ran at an instant, or did not.

create or replace function fleet.answer(p_verdict text, p_reason text, p_detail text)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object('verdict', p_verdict, 'reason', p_reason, 'detail', p_detail)
$$;

comment on function fleet.answer(text, text, text) is
  'A verdict in a word or two, its reason in a few words, and a sentence with what is known beyond that.';
revoke all on function fleet.answer(text, text, text) from public, anon, authenticated, service_role;

create or replace function fleet.run_at(p_schedule_id bigint, p_at timestamptz)
returns public.schedule_runs
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select r.*
  from public.schedule_runs as r
  left join public.schedule_runs as a on a.id = r.after_run_id
  where r.schedule_id = p_schedule_id
    and (
      r.scheduled_for = p_at
      or (r.missed_from <= p_at and p_at <= r.missed_to)
      or a.scheduled_for = p_at
      -- Runs by hand and in chains have instants of microseconds, which nobody types.
      or (r.trigger in ('manual', 'chain') and date_trunc('second', r.scheduled_for) = p_at)
    )
  -- What ran at the instant comes before what the clocks left out there.
  order by r.scheduled_for = p_at desc, r.reason is distinct from 'the clocks skip this local time' desc, r.missed_from is null desc, r.id
  limit 1
$$;

comment on function fleet.run_at(bigint, timestamptz) is
  'What the ledger says of an instant: its row, the range that covers it, the run that followed the one of that instant, or one that was '
  'started within that second.';
revoke all on function fleet.run_at(bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.run_facts(p_run public.schedule_runs)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_run.id is not null then jsonb_strip_nulls(jsonb_build_object(
      'id', p_run.id, 'scheduled_for', p_run.scheduled_for, 'trigger', p_run.trigger, 'status', p_run.status,
      'reason', p_run.reason, 'targeted', p_run.targeted, 'completed', p_run.completed, 'failed', p_run.failed,
      'skipped', p_run.skipped, 'replaced', nullif(p_run.replaced, 0), 'dst_rule', p_run.dst_rule, 'zones', p_run.zones, 'not_before', p_run.not_before,
      'missed_from', p_run.missed_from, 'missed_to', p_run.missed_to, 'missed_count', p_run.missed_count,
      'after_run_id', p_run.after_run_id, 'error_message', p_run.error_message, 'started_at', p_run.started_at,
      'finished_at', p_run.finished_at
    ))
  end
$$;

comment on function fleet.run_facts(public.schedule_runs) is 'What an explanation shows of a run; null where there is none.';
revoke all on function fleet.run_facts(public.schedule_runs) from public, anon, authenticated, service_role;

create or replace function fleet.explain_schedule(
  p_schedule_id bigint,
  p_at timestamptz,
  p_device_id bigint,
  p_now timestamptz
)
returns jsonb
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_schedule public.schedules := fleet.schedule_in_view(p_schedule_id);
  v_run public.schedule_runs := fleet.run_at(p_schedule_id, p_at);
  v_device public.devices;
  v_answer jsonb;
begin
  if p_at is null or not isfinite(p_at) then
    raise exception 'p_at: is not an instant'
      using errcode = 'PT422', detail = 'argument_invalid', hint = 'Write it like "2026-03-01T05:30:00Z".';
  end if;
  if v_schedule.timezone = 'device' and v_schedule.after_schedule_id is null then
    v_answer := fleet.explain_on_walls(v_schedule, p_at, p_device_id, p_now);
    if v_answer is not null then
      return v_answer;
    end if;
  end if;
  v_answer := case
    when v_run.id is not null then fleet.explain_run(v_schedule, v_run, p_at, p_now)
    else fleet.explain_absence(v_schedule, p_at, p_now)
  end;

  if p_device_id is not null then
    v_device := fleet.device_in_view(p_device_id, v_schedule.owner_id);
    v_answer := fleet.explain_device(v_schedule, v_run, v_device, p_at, v_answer, p_now)
      || jsonb_build_object('device_id', v_device.id, 'hostname', v_device.hostname);
  end if;

  return jsonb_build_object(
      'schedule_id', v_schedule.id, 'schedule', v_schedule.name, 'at', p_at,
      'local_time', fleet.local_times(p_at, coalesce(v_run.zones, array[fleet.reference_zone(v_schedule)])),
      'run', fleet.run_facts(v_run)
    )
    || v_answer;
end;
$$;

comment on function fleet.explain_schedule(bigint, timestamptz, bigint, timestamptz) is
  'See public.explain_schedule. Definer: it checks the caller first, then sees what the explanation needs.';
revoke all on function fleet.explain_schedule(bigint, timestamptz, bigint, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.explain_schedule(bigint, timestamptz, bigint, timestamptz) to authenticated, service_role;

create or replace function public.explain_schedule(
  p_schedule_id bigint,
  p_at timestamptz,
  p_device_id bigint default null,
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.explain_schedule(p_schedule_id, fleet.calendar_instant(p_at), p_device_id, fleet.calendar_instant(p_now))
$$;

comment on function public.explain_schedule(bigint, timestamptz, bigint, timestamptz) is
  'Whether a schedule ran at an instant, on a device or at all, and why not: {verdict, reason, detail, local_time, run?, command?, '
  'nearest?}. Verdicts: ran, running, waiting, failed, error, replaced, paused, overlap, skipped, outside window, blackout, missed, no targets, not yet due, '
  'not due, before start, ended, max runs, cancelled, expired, not a target, added later, retired; unknown only when the ledger has lost '
  'it. Raises schedule_not_found or device_not_found (PT404).';
revoke all on function public.explain_schedule(bigint, timestamptz, bigint, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function public.explain_schedule(bigint, timestamptz, bigint, timestamptz) to authenticated, service_role;

create or replace function fleet.explain_run(
  p_schedule public.schedules,
  p_run public.schedule_runs,
  p_at timestamptz,
  p_now timestamptz
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_final bigint := p_run.completed + p_run.failed + p_run.replaced;
begin
  return case p_run.status
    when 'completed' then fleet.answer('ran', 'completed', format('%s of %s commands completed', p_run.completed, p_run.targeted))
    when 'cancelled' then case p_run.reason
      when 'replaced' then fleet.answer('replaced', 'replaced', 'a later run took its place on every device (overlap: replace)')
      else fleet.answer('cancelled', p_run.reason, 'it was cancelled before any device had its command')
    end
    when 'skipped' then fleet.explain_skip(p_schedule, p_run, p_at)
    when 'failed' then case p_run.reason
      when 'error' then fleet.answer('error', 'error', p_run.error_message)
      else fleet.answer('ran', p_run.reason, 'the run is over and counts as failed; ask for one device to know more')
    end
    else case
      when p_run.expanded_at is null and p_run.not_before > p_now then fleet.explain_delay(p_schedule, p_run)
      when p_run.expanded_at is null
        then fleet.answer('running', 'its commands are being made', format('%s were made so far', p_run.targeted))
      when p_run.not_before > p_now then fleet.explain_delay(p_schedule, p_run)
      else fleet.answer('running', format('%s of %s commands are final', v_final, p_run.targeted),
        format('the rest may start until %s', fleet.local_times(p_run.expires_at, array[fleet.reference_zone(p_schedule)])))
    end
  end;
end;
$$;

comment on function fleet.explain_run(public.schedules, public.schedule_runs, timestamptz, timestamptz) is
  'The answer for an instant that is in the ledger.';
revoke all on function fleet.explain_run(public.schedules, public.schedule_runs, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.explain_delay(p_schedule public.schedules, p_run public.schedule_runs)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.answer(
    'waiting',
    case
      when fleet.waits_for_window(fleet.window_list(fleet.effective_policies(p_schedule.policies)), 'schedule')
        then 'the execution window is closed'
      else 'catching up is paced'
    end,
    format('it starts on %s', fleet.local_times(p_run.not_before, array[fleet.reference_zone(p_schedule)]))
  )
$$;

comment on function fleet.explain_delay(public.schedules, public.schedule_runs) is 'The answer for a run that is not to start yet.';
revoke all on function fleet.explain_delay(public.schedules, public.schedule_runs)
  from public, anon, authenticated, service_role;

-- db/sources/70_insight/41_explain_skips.sql
-- Why an instant was skipped: what the ledger says, and what can be said beyond it.

create or replace function fleet.verdict_of_reason(p_reason text)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_reason in ('no targets', 'overlap', 'paused', 'blackout', 'error') then p_reason
    when p_reason in (
      'outside the catch-up window', 'catch-up is off', 'superseded by a later instant', 'beyond the catch-up limit'
    ) then 'missed'
    when p_reason = 'outside the execution window' then 'outside window'
    when p_reason = 'max_runs reached' then 'max runs'
    when p_reason in ('the schedule has ended', 'completed') then 'ended'
    when p_reason = 'the schedule has not begun' then 'before start'
    when p_reason = 'the times were changed' then 'not due'
    when p_reason in ('cancelled', 'the schedule was cancelled') then 'cancelled'
    else 'skipped'
  end
$$;

comment on function fleet.verdict_of_reason(text) is
  'The verdict for a reason of the ledger; "skipped" for one that somebody wrote by hand.';
revoke all on function fleet.verdict_of_reason(text) from public, anon, authenticated, service_role;

create or replace function fleet.gap_detail(p_local timestamp, p_skipped_at timestamptz, p_timezone text)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select format('no clock showed %s: they went on to %s at once, and gap: skip leaves it out', fleet.wall_text(p_local),
    fleet.clock_text(p_skipped_at, fleet.zone_clock(p_timezone)))
$$;

comment on function fleet.gap_detail(timestamp, timestamptz, text) is
  'Why a local time that the clocks skip did not come, and when they did.';
revoke all on function fleet.gap_detail(timestamp, timestamptz, text) from public, anon, authenticated, service_role;

create or replace function fleet.explain_skip(p_schedule public.schedules, p_run public.schedule_runs, p_at timestamptz)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_policies jsonb := fleet.effective_policies(p_schedule.policies);
  v_zones text[] := array[fleet.reference_zone(p_schedule)];
  -- A range has one reason for all of it; its older part was too old besides.
  v_reason text := case
    when p_run.reason in ('superseded by a later instant', 'beyond the catch-up limit')
      and p_at < p_run.finished_at - (v_policies ->> 'catchup_window')::interval
      then 'outside the catch-up window'
    else p_run.reason
  end;
begin
  return fleet.answer(fleet.verdict_of_reason(v_reason), v_reason, concat_ws('; ',
    case v_reason
      when 'no targets' then format('no active device matched when it was due; now %s do', fleet.devices_of_zones(
        fleet.device_counts(p_schedule), p_run.zones
      ))
      when 'overlap' then fleet.overlap_detail(p_run)
      when 'blackout' then fleet.skip_detail(p_schedule, 'blackout', p_run.zones, p_run.scheduled_for, p_run.finished_at)
      when 'outside the execution window' then fleet.window_text(v_policies)
      when 'paused' then case when p_schedule.status = 'paused' then p_schedule.status_reason end
      when 'max_runs reached' then format('it may run %s times', v_policies ->> 'max_runs')
      when 'outside the catch-up window' then
        format('no tick came by in time, and only the last %s are caught up (catchup_window)', v_policies ->> 'catchup_window')
      when 'catch-up is off' then 'no tick came by in time, and nothing is caught up (catchup: none)'
      when 'superseded by a later instant' then 'no tick came by in time, and of what was missed only the latest runs (catchup: latest)'
      when 'beyond the catch-up limit' then
        format('no tick came by in time, and only the latest %s are caught up (catchup_limit)', v_policies ->> 'catchup_limit')
      when 'the clocks skip this local time' then fleet.gap_detail(p_run.scheduled_local, p_run.scheduled_for, v_zones[1])
      when 'the times were changed' then 'somebody changed the times before a tick came by'
    end,
    case
      when p_run.missed_count > 1 then format(
        'one of %s instants from %s to %s', p_run.missed_count,
        coalesce(fleet.wall_text(p_run.scheduled_local), fleet.local_times(p_run.missed_from, v_zones)),
        coalesce(fleet.wall_text(p_run.missed_to_local), fleet.local_times(p_run.missed_to, v_zones))
      )
    end
  ));
end;
$$;

comment on function fleet.explain_skip(public.schedules, public.schedule_runs, timestamptz) is
  'The answer for an instant that the ledger has as skipped, by itself or in a range.';
revoke all on function fleet.explain_skip(public.schedules, public.schedule_runs, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.busy_command(p_run public.schedule_runs, p_device_id bigint)
returns public.device_commands
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select c.*
  from public.device_commands as c
  join public.schedule_runs as o on o.id = c.run_id
  cross join (select coalesce(p_run.expanded_at, p_run.started_at, p_run.scheduled_for) as at) as m
  where c.schedule_id = p_run.schedule_id
    and (p_device_id is null or c.device_id = p_device_id)
    and c.run_id <> p_run.id
    and o.started_at <= m.at
    -- What nobody has taken keeps nobody busy once it may no longer be started.
    and case
      when c.claimed_at is null and c.status in ('pending', 'expired') then c.expires_at > m.at
      else c.executed_at is null or c.executed_at >= m.at
    end
  order by c.run_id desc
  limit 1
$$;

comment on function fleet.busy_command(public.schedule_runs, bigint) is
  'A command of another run of the same schedule that was not final when this run made its own; of one device, or of any.';
revoke all on function fleet.busy_command(public.schedule_runs, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.overlap_detail(p_run public.schedule_runs)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select 'every device was still busy with another run'
    || coalesce(format(', such as "%s" with run %s', (c.command).device_hostname, (c.command).run_id), '')
  from (select fleet.busy_command(p_run, null) as command) as c
$$;

comment on function fleet.overlap_detail(public.schedule_runs) is 'What kept the devices of a run that was skipped because of overlap.';
revoke all on function fleet.overlap_detail(public.schedule_runs) from public, anon, authenticated, service_role;

create or replace function fleet.window_text(p_policies jsonb)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select string_agg(concat(
    w.item ->> 'from', ' to ', w.item ->> 'to',
    ' on ' || fleet.english_weekdays(array(
      select e::integer + 1
      from jsonb_array_elements_text(
        case jsonb_typeof(w.item -> 'days_of_week') when 'array' then w.item -> 'days_of_week' end
      ) as e
      order by 1
    )),
    case w.item ->> 'in' when 'device' then ' in device time' end
  ), ' or ' order by w.nr)
  from jsonb_array_elements(fleet.window_list(p_policies)) with ordinality as w(item, nr)
$$;

comment on function fleet.window_text(jsonb) is 'The execution windows of effective policies in words; null where there is none.';
revoke all on function fleet.window_text(jsonb) from public, anon, authenticated, service_role;

-- db/sources/70_insight/42_explain_absence.sql
-- Why the ledger says nothing of an instant.

create or replace function fleet.status_at(p_schedule public.schedules, p_at timestamptz)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    (
      select a.old ->> 'status'
      from public.audit_log as a
      where a.table_name = 'schedules'
        and a.row_id = p_schedule.id::text
        and a.action = 'update'
        and a.at > p_at
        and a.old ? 'status'
      order by a.id
      limit 1
    ),
    p_schedule.status
  )
$$;

comment on function fleet.status_at(public.schedules, timestamptz) is
  'The status that a schedule had, by the audit log; its present one where it has not changed since.';
revoke all on function fleet.status_at(public.schedules, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.times_changed_after(p_schedule public.schedules, p_at timestamptz)
returns timestamptz
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select max(a.at)
  from public.audit_log as a
  where a.table_name = 'schedules'
    and a.row_id = p_schedule.id::text
    and a.action = 'update'
    and a.at > p_at
    and a.old ?| '{recurrence,recurrence_type,recurrence_config,start_time,end_time,timezone,policies,after_schedule_id}'
$$;

comment on function fleet.times_changed_after(public.schedules, timestamptz) is
  'When the times of a schedule were last changed after an instant, by the audit log; null where they were not.';
revoke all on function fleet.times_changed_after(public.schedules, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.nearest_instants(p_recurrence jsonb, p_at timestamptz, p_zones text[])
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'before', n.before, 'before_local', fleet.local_times(n.before, p_zones),
    'after', n.after, 'after_local', fleet.local_times(n.after, p_zones)
  )
  from (
    select fleet.last_occurrence(p_recurrence, p_at - interval '50 years', p_at) as before,
      fleet.next_occurrence(p_recurrence, p_at) as after
  ) as n
$$;

comment on function fleet.nearest_instants(jsonb, timestamptz, text[]) is 'The due instants on either side of one: {before, after}.';
revoke all on function fleet.nearest_instants(jsonb, timestamptz, text[]) from public, anon, authenticated, service_role;

create or replace function fleet.explain_absence(p_schedule public.schedules, p_at timestamptz, p_now timestamptz)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_zones text[] := array[fleet.reference_zone(p_schedule)];
  v_skipped record;
begin
  if p_schedule.after_schedule_id is not null then
    return fleet.explain_unfollowed(p_schedule, p_at);
  end if;
  select g.* into v_skipped from fleet.skipped_times(p_schedule.recurrence, p_at, p_at + interval '1 microsecond') as g;
  if found and fleet.next_occurrence(p_schedule.recurrence, p_at - interval '1 microsecond') is distinct from p_at then
    return fleet.answer(
      fleet.verdict_of_reason('the clocks skip this local time'), 'the clocks skip this local time',
      fleet.gap_detail(v_skipped.first_local, p_at, p_schedule.timezone)
    );
  elsif fleet.next_occurrence(p_schedule.recurrence, p_at - interval '1 microsecond') is distinct from p_at then
    return fleet.explain_not_due(p_schedule, p_at, fleet.nearest_instants(p_schedule.recurrence, p_at, v_zones));
  elsif p_at > p_now then
    return fleet.explain_future(p_schedule, p_at, v_zones);
  end if;
  return fleet.explain_past(p_schedule, p_at, p_now, v_zones);
end;
$$;

comment on function fleet.explain_absence(public.schedules, timestamptz, timestamptz) is
  'The answer for an instant that is not in the ledger.';
revoke all on function fleet.explain_absence(public.schedules, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.explain_not_due(p_schedule public.schedules, p_at timestamptz, p_nearest jsonb)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object('nearest', p_nearest) || case
    when p_schedule.start_time > p_at and p_nearest ->> 'before' is null then fleet.answer(
      'before start', 'it had not begun',
      coalesce(format('its first instant is %s', p_nearest ->> 'after_local'), 'it has no due instant at all')
    )
    when p_nearest ->> 'after' is null and p_nearest ->> 'before' is not null then fleet.answer(
      'ended', 'no due instant is left', format('its last instant was %s', p_nearest ->> 'before_local')
    )
    else fleet.answer('not due', 'not due at that instant', concat_ws(
      '; ', 'due before: ' || (p_nearest ->> 'before_local'), 'due after: ' || (p_nearest ->> 'after_local')
    ))
  end
$$;

comment on function fleet.explain_not_due(public.schedules, timestamptz, jsonb) is
  'The answer for an instant that the recurrence does not have: before the first, after the last, or between two.';
revoke all on function fleet.explain_not_due(public.schedules, timestamptz, jsonb)
  from public, anon, authenticated, service_role;

create or replace function fleet.explain_future(p_schedule public.schedules, p_at timestamptz, p_zones text[])
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_coming record;
begin
  if p_schedule.status = 'cancelled' then
    return fleet.answer('cancelled', coalesce(p_schedule.status_reason, 'the schedule was cancelled'), 'it will not run again');
  elsif p_schedule.status = 'completed' then
    return fleet.answer(
      case p_schedule.status_reason when 'max_runs reached' then 'max runs' else 'ended' end,
      coalesce(p_schedule.status_reason, 'the schedule is completed'), 'it will not run again'
    );
  end if;

  -- Where runs are limited in number, those before it count.
  select c.would, c.reason, c.starts_at, c.zones into v_coming
  from fleet.coming_runs(p_schedule, p_at, p_at + interval '1 microsecond', 1) as c;
  if not found then
    return fleet.answer('max runs', 'max_runs reached', format(
      'it may run %s times and has run %s times; the rest will be used up before', p_schedule.policies ->> 'max_runs',
      p_schedule.execution_count - p_schedule.idle_count
    ));
  elsif v_coming.would = 'skip' then
    return fleet.answer(
      fleet.verdict_of_reason(v_coming.reason), v_coming.reason,
      concat_ws('; ', 'it will be skipped unless that changes', case v_coming.reason
        when 'outside the execution window' then fleet.window_text(fleet.effective_policies(p_schedule.policies))
        else fleet.skip_detail(p_schedule, v_coming.reason, v_coming.zones, p_at, p_at)
      end)
    );
  end if;
  return fleet.answer('not yet due', 'it is in the future', format(
    'it will run on %s', fleet.local_times(v_coming.starts_at, p_zones)
  ));
end;
$$;

comment on function fleet.explain_future(public.schedules, timestamptz, text[]) is 'The answer for an instant that is yet to come.';
revoke all on function fleet.explain_future(public.schedules, timestamptz, text[])
  from public, anon, authenticated, service_role;

create or replace function fleet.explain_past(
  p_schedule public.schedules,
  p_at timestamptz,
  p_now timestamptz,
  p_zones text[]
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_status text := fleet.status_at(p_schedule, p_at);
  v_days integer := fleet.setting_number('history_days')::integer;
  v_changed timestamptz;
begin
  if p_schedule.next_run_at <= p_at and p_schedule.status in ('active', 'paused') then
    return fleet.explain_overdue(p_schedule, p_at, p_now);
  elsif p_at < p_schedule.created_at then
    return fleet.answer('before start', 'the schedule did not exist yet', format(
      'it was created on %s', fleet.local_times(p_schedule.created_at, p_zones)
    ));
  elsif v_status = 'cancelled' then
    return fleet.answer('cancelled', coalesce(p_schedule.status_reason, 'the schedule was cancelled'), 'it was cancelled before');
  elsif p_schedule.status = 'completed' and p_at > coalesce(p_schedule.last_executed_at, '-infinity') then
    return fleet.answer(
      case p_schedule.status_reason when 'max_runs reached' then 'max runs' else 'ended' end,
      coalesce(p_schedule.status_reason, 'the schedule is completed'),
      format('it was started %s times', p_schedule.execution_count)
    );
  end if;

  v_changed := fleet.times_changed_after(p_schedule, p_at);
  if v_changed is not null then
    return fleet.answer('not due', 'its times have changed since', format(
      'they were changed on %s; by what held before, it was not due or is told under another instant',
      fleet.local_times(v_changed, p_zones)
    ));
  elsif p_at < p_now - make_interval(days => v_days) then
    return fleet.answer('unknown', 'the ledger does not go back that far', format(
      'runs are kept for %s days (setting history_days)', v_days
    ));
  end if;
  return fleet.answer('unknown', 'its row is gone from the ledger', 'somebody with the right to has deleted it');
end;
$$;

comment on function fleet.explain_past(public.schedules, timestamptz, timestamptz, text[]) is
  'The answer for a due instant that has passed and is not in the ledger.';
revoke all on function fleet.explain_past(public.schedules, timestamptz, timestamptz, text[])
  from public, anon, authenticated, service_role;

create or replace function fleet.explain_overdue(p_schedule public.schedules, p_at timestamptz, p_now timestamptz)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_decided record;
begin
  if p_schedule.status = 'paused' then
    return fleet.answer('paused', coalesce(p_schedule.status_reason, 'paused'),
      'the schedule is paused; when it goes on, the ledger tells the pause in one row');
  end if;

  select d.status, d.reason into v_decided
  from fleet.decide_due(p_schedule, p_now) as d
  where p_at between d.scheduled_for and coalesce(d.missed_to, d.scheduled_for);
  return fleet.answer('waiting', 'no tick has come by since', concat(
    'the last tick was on ', (select fleet.clock_text(h.last_tick_at, 'UTC') || ' UTC' from fleet.heartbeat as h),
    '; a tick now would ', case v_decided.status when 'skipped' then 'skip it: ' || v_decided.reason else 'run it' end
  ));
end;
$$;

comment on function fleet.explain_overdue(public.schedules, timestamptz, timestamptz) is
  'The answer for what is due but not decided: the schedule is paused, or nothing ticks.';
revoke all on function fleet.explain_overdue(public.schedules, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/70_insight/43_explain_device.sql
-- Why one device ran, or did not.

create or replace function fleet.is_target(p_schedule public.schedules, p_device_id bigint)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select 1
    from fleet.targets(
      p_schedule.owner_id, p_schedule.device_ids, p_schedule.group_ids, p_schedule.selector, p_device_id - 1, 1
    ) as t
    where t.device_id = p_device_id
  )
$$;

comment on function fleet.is_target(public.schedules, bigint) is 'Whether a schedule reaches a device now.';
revoke all on function fleet.is_target(public.schedules, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.explain_device(
  p_schedule public.schedules,
  p_run public.schedule_runs,
  p_device public.devices,
  p_at timestamptz,
  p_answer jsonb,
  p_now timestamptz
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_command public.device_commands;
begin
  select c.* into v_command
  from public.device_commands as c
  where c.run_id = p_run.id and c.device_id = p_device.id
  order by c.step
  limit 1;
  if found then
    return fleet.explain_command(p_schedule, p_run, v_command, p_device, p_now)
      || jsonb_build_object('command', fleet.command_facts(v_command));
  end if;

  -- Decided for the schedule as a whole: it is the same for each device.
  if p_answer ->> 'verdict' = 'not yet due' then
    return fleet.explain_coming_device(p_schedule, p_device, p_at, p_answer);
  elsif p_run.id is null
    or p_run.status = 'cancelled'
    or (p_run.status = 'failed' and p_run.reason = 'error')
    or (p_run.status = 'skipped' and p_run.expanded_at is null)
  then
    return p_answer;
  end if;
  return fleet.explain_left_out(p_schedule, p_run, p_device, p_answer);
end;
$$;

comment on function fleet.explain_device(
  public.schedules, public.schedule_runs, public.devices, timestamptz, jsonb, timestamptz
) is 'The answer for one device: by its command, or why it has none.';
revoke all on function fleet.explain_device(
  public.schedules, public.schedule_runs, public.devices, timestamptz, jsonb, timestamptz
) from public, anon, authenticated, service_role;

create or replace function fleet.explain_left_out(
  p_schedule public.schedules,
  p_run public.schedule_runs,
  p_device public.devices,
  p_answer jsonb
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_zone text := coalesce(p_device.timezone, 'UTC');
  v_zones text[] := array[fleet.reference_zone(p_schedule)];
  v_made_at timestamptz := coalesce(p_run.expanded_at, p_run.started_at, p_run.scheduled_for);
  v_from timestamptz := greatest(p_run.not_before, case
    when not p_schedule.policies ? 'jitter' then v_made_at
    when p_run.trigger = 'schedule' then p_run.scheduled_for
    else p_run.started_at
  end);
  v_busy public.device_commands := fleet.busy_command(p_run, p_device.id);
begin
  if p_device.status = 'retired' then
    return fleet.answer('retired', 'the device is retired', 'it can do nothing until it is re-keyed');
  elsif p_device.created_at > v_made_at then
    return fleet.answer('added later', 'the device was added after the run', format(
      'the run was made on %s, the device on %s', fleet.local_times(v_made_at, v_zones),
      fleet.local_times(p_device.created_at, v_zones)
    ));
  elsif not fleet.is_target(p_schedule, p_device.id) then
    return fleet.answer('not a target', 'the schedule does not reach this device',
      'it is neither named nor in a group nor selected');
  elsif p_run.zones is not null and v_zone <> all (p_run.zones) then
    return fleet.explain_other_zone(p_schedule, p_device, p_run.scheduled_for, p_run.zones);
  elsif p_run.expanded_at is null and coalesce(p_run.expanded_to, 0) < p_device.id then
    return case p_answer ->> 'verdict'
      when 'waiting' then p_answer
      else fleet.answer('waiting', 'its command is not made yet', 'large runs are made in chunks')
    end;
  elsif fleet.device_start(
    fleet.effective_policies(p_schedule.policies), p_schedule.id, p_device.id, v_zone, v_from
  ) is null then
    return fleet.answer('outside window', 'outside the execution window', format(
      'it was %s for the device; the window is %s', fleet.clock_text(v_from, v_zone),
      fleet.window_text(fleet.effective_policies(p_schedule.policies))
    ));
  elsif p_run.skipped > 0 and v_busy.id is not null then
    return fleet.answer('overlap', 'overlap', format(
      'the device was still busy with command %s of run %s, which is %s', v_busy.id, v_busy.run_id, v_busy.status
    ));
  end if;
  -- Every device that was reached has a command, was busy or outside of its window. This one is reached only since then.
  return fleet.answer('not a target', 'the schedule did not reach this device then',
    'its tags, its groups, its time zone or the targets of the schedule have changed since');
end;
$$;

comment on function fleet.explain_left_out(
  public.schedules, public.schedule_runs, public.devices, jsonb
) is 'The answer for a device that has no command of a run that others may have one of.';
revoke all on function fleet.explain_left_out(
  public.schedules, public.schedule_runs, public.devices, jsonb
) from public, anon, authenticated, service_role;

create or replace function fleet.explain_other_zone(
  p_schedule public.schedules,
  p_device public.devices,
  p_at timestamptz,
  p_zones text[]
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_zone text := coalesce(p_device.timezone, fleet.unknown_zone(p_schedule.recurrence), 'UTC');
begin
  if fleet.open_zones(p_schedule, array[v_zone], p_at) = '{}' then
    return fleet.answer('blackout', 'blackout', concat_ws(
      ' in ', fleet.skip_detail(p_schedule, 'blackout', array[v_zone], p_at, p_at), v_zone
    ));
  end if;
  return fleet.answer('not due', 'not due in the time zone of the device', format(
    'the run is for %s; the device is in %s', array_to_string(p_zones, ', '), v_zone
  ));
end;
$$;

comment on function fleet.explain_other_zone(public.schedules, public.devices, timestamptz, text[]) is
  'The answer for a device in a time zone that a run is not for.';
revoke all on function fleet.explain_other_zone(public.schedules, public.devices, timestamptz, text[])
  from public, anon, authenticated, service_role;

create or replace function fleet.explain_coming_device(
  p_schedule public.schedules,
  p_device public.devices,
  p_at timestamptz,
  p_answer jsonb
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_zone text := coalesce(p_device.timezone, 'UTC');
  v_policies jsonb := fleet.effective_policies(p_schedule.policies);
  v_start timestamptz := fleet.device_start(
    v_policies, p_schedule.id, p_device.id, v_zone, fleet.opening_of(p_schedule, p_at)
  );
begin
  return case
    when p_device.status = 'retired'
      then fleet.answer('retired', 'the device is retired', 'it can do nothing until it is re-keyed')
    when not fleet.is_target(p_schedule, p_device.id) then fleet.answer(
      'not a target', 'the schedule does not reach this device', 'it is neither named nor in a group nor selected'
    )
    when v_start is null then fleet.answer('outside window', 'outside the execution window', format(
      'it will be %s for the device; the window is %s', fleet.clock_text(p_at, v_zone), fleet.window_text(v_policies)
    ))
    else p_answer || jsonb_build_object('detail', format(
      'the device may start on %s%s', fleet.local_times(v_start, array[fleet.reference_zone(p_schedule)]),
      case when v_policies ->> 'jitter' is not null then ', its own slot of the jitter' else '' end
    ))
  end;
end;
$$;

comment on function fleet.explain_coming_device(public.schedules, public.devices, timestamptz, jsonb) is
  'The answer for a device and an instant that is yet to come.';
revoke all on function fleet.explain_coming_device(public.schedules, public.devices, timestamptz, jsonb)
  from public, anon, authenticated, service_role;

-- db/sources/70_insight/44_explain_command.sql
-- What became of the command of one device.

create or replace function fleet.command_facts(p_command public.device_commands)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_strip_nulls(jsonb_build_object(
    'id', p_command.id, 'status', p_command.status, 'reason', p_command.reason, 'not_before', p_command.not_before,
    'expires_at', p_command.expires_at, 'waits_for', p_command.waits_for, 'attempt', p_command.attempt,
    'failure_count', p_command.failure_count, 'max_attempts', p_command.max_attempts, 'claimed_at', p_command.claimed_at,
    'lease_expires_at', p_command.lease_expires_at, 'executed_at', p_command.executed_at,
    'error_message', p_command.error_message, 'result', p_command.result
  ))
$$;

comment on function fleet.command_facts(public.device_commands) is 'What an explanation shows of a command.';
revoke all on function fleet.command_facts(public.device_commands) from public, anon, authenticated, service_role;

create or replace function fleet.explain_command(
  p_schedule public.schedules,
  p_run public.schedule_runs,
  p_command public.device_commands,
  p_device public.devices,
  p_now timestamptz
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_zones text[] := array[fleet.reference_zone(p_schedule)];
  v_seen text := coalesce('last seen on ' || fleet.local_times(p_device.last_seen, v_zones), 'never seen');
begin
  return case p_command.status
    when 'completed' then fleet.answer('ran', 'completed', format(
      'completed on %s, at attempt %s', fleet.local_times(p_command.executed_at, v_zones), p_command.attempt
    ))
    when 'failed' then fleet.answer('failed', coalesce(p_command.reason, 'error'), concat_ws('; ',
      p_command.error_message, format('%s of %s attempts failed', p_command.failure_count, p_command.max_attempts)
    ))
    when 'expired' then fleet.answer('expired', coalesce(p_command.reason, 'expired'), format(
      'it was not carried out before %s; the device was %s', fleet.local_times(p_command.expires_at, v_zones), v_seen
    ))
    when 'cancelled' then fleet.answer('cancelled', coalesce(p_command.reason, 'cancelled'), case p_command.reason
      when 'replaced' then 'a later run took its place (overlap: replace)'
    end)
    when 'running' then fleet.answer('running', 'the device has it', format(
      'taken on %s, attempt %s; the device was %s', fleet.local_times(p_command.claimed_at, v_zones), p_command.attempt, v_seen
    ))
    else fleet.explain_waiting(p_schedule, p_run, p_command, v_seen, p_now)
  end;
end;
$$;

comment on function fleet.explain_command(
  public.schedules, public.schedule_runs, public.device_commands, public.devices, timestamptz
) is 'The answer for a device that has a command of the run: its state and why.';
revoke all on function fleet.explain_command(
  public.schedules, public.schedule_runs, public.device_commands, public.devices, timestamptz
) from public, anon, authenticated, service_role;

create or replace function fleet.explain_waiting(
  p_schedule public.schedules,
  p_run public.schedule_runs,
  p_command public.device_commands,
  p_seen text,
  p_now timestamptz
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_policies jsonb := fleet.effective_policies(p_schedule.policies);
  v_start text := fleet.local_times(p_command.not_before, array[fleet.reference_zone(p_schedule)]);
begin
  return case
    when p_command.expires_at <= p_now then fleet.answer(
      'expired', 'expired', 'nobody started it in time; the next tick closes it; the device was ' || p_seen
    )
    when exists (
      select 1 from public.device_commands as w where w.id = p_command.waits_for and w.status in ('pending', 'running')
    ) then fleet.answer('waiting', 'buffered', format(
      'it starts when command %s of an earlier run is final (%s)', p_command.waits_for,
      case
        when v_policies ->> 'overlap' = 'buffer_one' then 'overlap: buffer_one'
        else 'catchup: all'
      end
    ))
    when p_command.not_before > p_now then case
      when p_command.failure_count > 0 then fleet.answer('waiting', 'retry', format(
        'attempt %s failed (%s); the next one on %s', p_command.attempt, coalesce(p_command.reason, 'error'), v_start
      ))
      when p_run.not_before > p_now then fleet.explain_delay(p_schedule, p_run)
      when v_policies ->> 'jitter' is not null then fleet.answer('waiting', 'jitter', format(
        'its slot within %s is on %s', v_policies ->> 'jitter', v_start
      ))
      when fleet.waits_for_window(fleet.window_list(v_policies), 'device') then fleet.answer(
        'waiting', 'the execution window is closed', format('it opens for the device on %s', v_start)
      )
      else fleet.answer('waiting', 'not before', format('it starts on %s', v_start))
    end
    else fleet.answer('waiting', 'the device has not asked for it', format(
      'it may until %s; the device was %s',
      fleet.local_times(p_command.expires_at, array[fleet.reference_zone(p_schedule)]), p_seen
    ))
  end;
end;
$$;

comment on function fleet.explain_waiting(
  public.schedules, public.schedule_runs, public.device_commands, text, timestamptz
) is 'The answer for a command that no device has started: what it waits for.';
revoke all on function fleet.explain_waiting(
  public.schedules, public.schedule_runs, public.device_commands, text, timestamptz
) from public, anon, authenticated, service_role;

-- db/sources/70_insight/45_explain_follower.sql
-- Why a schedule did not follow another one.

create or replace function fleet.explain_unfollowed(p_schedule public.schedules, p_at timestamptz)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_run public.schedule_runs := fleet.run_at(p_schedule.after_schedule_id, p_at);
  v_status text := fleet.status_at(p_schedule, coalesce(v_run.finished_at, p_at));
  v_name text := (select s.name from public.schedules as s where s.id = p_schedule.after_schedule_id);
begin
  return case
    when v_run.id is null then fleet.answer('not due', 'it has no instants of its own', format(
      'it runs when a run of "%s" has %s', v_name, fleet.ending_text(p_schedule.after_on)
    ))
    when v_run.status in ('pending', 'running') then fleet.answer(
      'waiting', 'the run before it has not ended', format('run %s of "%s" is still %s', v_run.id, v_name, v_run.status)
    )
    when v_run.status not in ('completed', 'failed') or p_schedule.after_on not in ('either', v_run.status) then fleet.answer(
      'not due', format('the run before it %s', case v_run.status
        when 'completed' then 'completed' when 'failed' then 'failed' else 'was ' || v_run.status
      end),
      format('run %s of "%s"%s; it follows only a run that has %s', v_run.id, v_name, ': ' || v_run.reason,
        fleet.ending_text(p_schedule.after_on))
    )
    when v_run.finished_at < p_schedule.created_at then fleet.answer(
      'before start', 'the schedule did not exist yet', format('run %s of "%s" had ended before', v_run.id, v_name)
    )
    when v_status = 'paused' then fleet.answer('paused', coalesce(p_schedule.status_reason, 'paused'), 'it was paused when it would have followed')
    when v_status = 'cancelled' then fleet.answer('cancelled', coalesce(p_schedule.status_reason, 'the schedule was cancelled'), 'it was cancelled before')
    when v_status = 'completed' then fleet.answer('ended', coalesce(p_schedule.status_reason, 'completed'), 'it had ended before')
    when fleet.times_changed_after(p_schedule, v_run.finished_at) is not null then fleet.answer(
      'not due', 'its times have changed since', 'it did not follow that schedule then, or not that ending'
    )
    else fleet.answer('unknown', 'its row is gone from the ledger', 'somebody with the right to has deleted it')
  end;
end;
$$;

comment on function fleet.explain_unfollowed(public.schedules, timestamptz) is
  'The answer for a schedule that follows another one and has no run for that instant.';
revoke all on function fleet.explain_unfollowed(public.schedules, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.ending_text(p_after_on text)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case p_after_on when 'either' then 'completed or failed' else p_after_on end
$$;

comment on function fleet.ending_text(text) is 'How a run must end for another to follow, in words.';
revoke all on function fleet.ending_text(text) from public, anon, authenticated, service_role;

-- db/sources/70_insight/46_explain_walls.sql
-- Device time: why a local occurrence ran, or did not, on all walls or on that of one device, at that device's own instant.

create or replace function fleet.wall_at(p_schedule public.schedules, p_at timestamptz, p_zone text)
returns table (local timestamp, fold integer)
language sql
stable
rows 1
set search_path = pg_catalog, pg_temp
as $$
  -- On the device's own wall, else on any wall.
  select w.local, w.fold
  from (
    select array(
      select distinct u.zone from unnest(fleet.schedule_zones(p_schedule) || p_zone) as u(zone) where u.zone is not null
    ) as zones
  ) as a
  cross join lateral fleet.walls_within(p_schedule.recurrence, a.zones, p_at, p_at + interval '1 microsecond') as w
  cross join lateral fleet.zone_instants(p_schedule.recurrence, w.local, w.fold, w.zones) as z
  where z.due_at = p_at
  group by w.local, w.fold
  order by bool_or(z.zone = p_zone) desc, bool_or(z.refusal is null) desc, w.local, w.fold
  limit 1
$$;

comment on function fleet.wall_at(public.schedules, timestamptz, text) is
  'The local occurrence that is due at an instant, best on the wall of this zone.';
revoke all on function fleet.wall_at(public.schedules, timestamptz, text) from public, anon, authenticated, service_role;

create or replace function fleet.run_on_walls(p_schedule_id bigint, p_local timestamp, p_fold integer)
returns public.schedule_runs
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select r.*
  from public.schedule_runs as r
  where r.schedule_id = p_schedule_id
    and ((r.scheduled_local = p_local and r.fold = p_fold) or (r.scheduled_local <= p_local and r.missed_to_local >= p_local))
  order by r.missed_to_local is null desc, r.id
  limit 1
$$;

comment on function fleet.run_on_walls(bigint, timestamp, integer) is
  'What the ledger says of a local occurrence: its row, or the range that covers it.';
revoke all on function fleet.run_on_walls(bigint, timestamp, integer) from public, anon, authenticated, service_role;

create or replace function fleet.explain_on_walls(
  p_schedule public.schedules,
  p_at timestamptz,
  p_device_id bigint,
  p_now timestamptz
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device public.devices;
  v_zone text;
  v_local timestamp;
  v_fold integer;
  v_run public.schedule_runs;
  v_instant record;
  v_facts jsonb;
  v_answer jsonb;
begin
  if p_device_id is not null then
    v_device := fleet.device_in_view(p_device_id, p_schedule.owner_id);
    v_zone := (fleet.zones_of_server(array_remove(
      array[coalesce(v_device.timezone, fleet.unknown_zone(p_schedule.recurrence))], null
    )))[1];
  end if;
  v_facts := jsonb_build_object('schedule_id', p_schedule.id, 'schedule', p_schedule.name, 'at', p_at) || case
    when p_device_id is not null
      then jsonb_build_object('device_id', v_device.id, 'hostname', v_device.hostname, 'timezone', v_zone)
    else '{}'
  end;

  select w.local, w.fold into v_local, v_fold from fleet.wall_at(p_schedule, p_at, v_zone) as w;
  if v_local is null then
    v_run := fleet.run_at(p_schedule.id, p_at);
    if v_run.id is not null and v_run.scheduled_local is null then
      -- By hand, or of the time before it went by device time: one instant for everybody.
      return null;
    elsif v_run.id is null then
      return v_facts
        || jsonb_build_object('local_time', fleet.local_times(p_at, array[coalesce(v_zone, 'UTC')]), 'run', null)
        || fleet.explain_no_wall(p_schedule, p_at, v_zone);
    end if;
    v_local := v_run.scheduled_local;
    v_fold := v_run.fold;
  end if;
  v_run := fleet.run_on_walls(p_schedule.id, v_local, v_fold);
  select z.due_at, z.rule, z.refusal into v_instant
  from fleet.zone_instants(p_schedule.recurrence, v_local, v_fold, array_remove(array[v_zone], null)) as z;

  v_answer := case
    when p_device_id is null and v_run.id is null then fleet.explain_unbooked_wall(p_schedule, v_local, p_at, p_now)
    when p_device_id is null then fleet.explain_run(p_schedule, v_run, p_at, p_now) || fleet.zones_told(v_run)
    else fleet.explain_wall_of_device(p_schedule, v_run, v_device, v_zone, v_local, v_instant.due_at, v_instant.refusal, p_now)
      || jsonb_build_object('instant', v_instant.due_at, 'dst_note', fleet.dst_note(v_instant.rule))
  end;
  return v_facts || jsonb_build_object('local_time', fleet.wall_text(v_local), 'run', fleet.run_facts(v_run)) || v_answer;
end;
$$;

comment on function fleet.explain_on_walls(public.schedules, timestamptz, bigint, timestamptz) is
  'The explanation of a schedule by device time: the instant says which local occurrence is meant, and the answer for a device is about its '
  'own instant. Null where the instant is that of a run for everybody at once.';
revoke all on function fleet.explain_on_walls(public.schedules, timestamptz, bigint, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.zones_told(p_run public.schedule_runs)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_build_object('zones', jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
    'at', z.due_at, 'zones', to_jsonb(z.zones), 'status', z.status, 'reason', z.reason, 'targeted', z.targeted,
    'device_ids', to_jsonb(z.device_ids)
  )) order by z.due_at, z.id)), '{}')
  from fleet.run_zones as z
  where z.run_id = p_run.id
  having count(*) > 0
$$;

comment on function fleet.zones_told(public.schedule_runs) is
  'How far a run in device time has come: {zones: [{at, zones, status, reason, targeted}]}.';
revoke all on function fleet.zones_told(public.schedule_runs) from public, anon, authenticated, service_role;

create or replace function fleet.explain_no_wall(p_schedule public.schedules, p_at timestamptz, p_zone text)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_zones text[] := case when p_zone is null then fleet.schedule_zones(p_schedule) else array[p_zone] end;
  v_before record;
  v_after record;
begin
  select n.* into v_after from fleet.next_on_walls(p_schedule.recurrence, v_zones, p_at, p_zone is not null) as n;
  for v_days in 0..8 loop
    select o.local, o.due_at into v_before
    from fleet.local_occurrences(p_schedule.recurrence, v_zones, p_at - interval '2 days' * 4 ^ v_days, p_at) as o
    order by o.due_at desc, o.local desc
    limit 1;
    exit when v_before.local is not null or v_days = 5;
  end loop;
  return fleet.explain_not_due(p_schedule, p_at, jsonb_build_object(
    'before', v_before.due_at, 'before_local', fleet.wall_text(v_before.local),
    'after', v_after.due_at, 'after_local', fleet.wall_text(v_after.local)
  ));
end;
$$;

comment on function fleet.explain_no_wall(public.schedules, timestamptz, text) is
  'The answer for an instant at which a schedule by device time is due nowhere, with what is near it on the wall of this zone, or on any.';
revoke all on function fleet.explain_no_wall(public.schedules, timestamptz, text) from public, anon, authenticated, service_role;

create or replace function fleet.explain_unbooked_wall(
  p_schedule public.schedules,
  p_local timestamp,
  p_at timestamptz,
  p_now timestamptz
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_zones text[] := array['UTC'];
  v_coming record;
begin
  if p_at <= p_now then
    return fleet.explain_past(p_schedule, p_at, p_now, v_zones);
  elsif p_schedule.status in ('cancelled', 'completed') then
    return fleet.explain_future(p_schedule, p_at, v_zones);
  end if;
  select c.* into v_coming
  from fleet.coming_on_walls(p_schedule, p_at - interval '27 hours', p_at + interval '1 microsecond', 1000, false) as c
  where c.local = p_local
  order by c.due_at
  limit 1;
  if not found then
    return fleet.answer('max runs', 'max_runs reached', format(
      'it may run %s times and has run %s times; the rest will be used up before', p_schedule.policies ->> 'max_runs',
      p_schedule.execution_count - p_schedule.idle_count
    ));
  elsif v_coming.would = 'skip' then
    return fleet.answer(fleet.verdict_of_reason(v_coming.reason), v_coming.reason, concat_ws(
      '; ', 'it will be skipped unless that changes', fleet.skip_detail(p_schedule, v_coming.reason, v_coming.zones, p_at, p_at)
    ));
  end if;
  return fleet.answer('not yet due', 'it is in the future', format(
    'it will run at %s on each device''s wall, first in %s', fleet.wall_text(p_local), v_coming.zones[1]
  ));
end;
$$;

comment on function fleet.explain_unbooked_wall(public.schedules, timestamp, timestamptz, timestamptz) is
  'The answer for a local occurrence that is not in the ledger.';
revoke all on function fleet.explain_unbooked_wall(public.schedules, timestamp, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.explain_wall_of_device(
  p_schedule public.schedules,
  p_run public.schedule_runs,
  p_device public.devices,
  p_zone text,
  p_local timestamp,
  p_due timestamptz,
  p_refusal text,
  p_now timestamptz
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_command public.device_commands;
  v_row fleet.run_zones;
  v_when text := fleet.clock_text(p_due, 'UTC') || ' UTC';
begin
  select c.* into v_command
  from public.device_commands as c
  where c.run_id = p_run.id and c.device_id = p_device.id
  order by c.step
  limit 1;
  if found then
    return fleet.explain_command(p_schedule, p_run, v_command, p_device, p_now)
      || jsonb_build_object('command', fleet.command_facts(v_command));
  elsif p_device.status = 'retired' then
    return fleet.answer('retired', 'the device is retired', 'it can do nothing until it is re-keyed');
  elsif p_zone is null then
    return case
      when p_device.timezone is null
        then fleet.answer('not a target', 'the device has no time zone', 'devices without one are left out (unknown_zone: skip)')
      else fleet.answer('skipped', 'the server does not have the time zone of the device', p_device.timezone)
    end;
  elsif not fleet.is_target(p_schedule, p_device.id) then
    return fleet.answer('not a target', 'the schedule does not reach this device', 'it is neither named nor in a group nor selected');
  elsif p_due is null then
    return fleet.answer('not due', 'out of the bounds of the schedule in the time zone of the device', p_zone);
  end if;

  select z.* into v_row
  from fleet.run_zones as z
  where z.run_id = p_run.id
    and p_zone = any (z.zones)
    and (z.device_ids is null or p_device.id = any (z.device_ids))
  order by z.device_ids is null, z.id desc
  limit 1;
  if not found then
    return case
      when p_run.id is not null and p_run.missed_to_local is null and p_run.status not in ('pending', 'running')
        and not exists (select 1 from fleet.run_zones as z where z.run_id = p_run.id)
        then fleet.explain_run(p_schedule, p_run, p_due, p_now)
      when p_run.missed_to_local is not null then fleet.explain_skip(p_schedule, p_run, p_due)
      when p_run.id is not null then fleet.answer('not a target', 'the device came into the zone when its time there had passed', v_when)
      when p_refusal is not null then fleet.answer(fleet.verdict_of_reason(p_refusal), p_refusal, v_when)
      else fleet.explain_unbooked_wall(p_schedule, p_local, p_due, p_now)
    end;
  end if;
  return case
    when v_row.status = 'waiting' and v_row.starts_at > p_now
      then fleet.answer('not yet due', 'it is in the future', format('on the wall of the device it is due on %s', v_when))
    when v_row.status = 'waiting' then fleet.answer('waiting', 'no tick has come by since', v_when)
    when v_row.status = 'cancelled' then fleet.answer('cancelled', v_row.reason, v_when)
    when v_row.status = 'skipped' then fleet.answer(fleet.verdict_of_reason(v_row.reason), v_row.reason, concat_ws('; ',
      v_when, fleet.skip_detail(p_schedule, v_row.reason, array[p_zone], v_row.due_at, v_row.started_at)
    ))
    else fleet.explain_left_out(p_schedule, fleet.run_in_zone(p_run, v_row), p_device, fleet.answer('waiting', null, null))
  end;
end;
$$;

comment on function fleet.explain_wall_of_device(
  public.schedules, public.schedule_runs, public.devices, text, timestamp, timestamptz, text, timestamptz
) is 'The answer for one device and one local occurrence: by its command, or by what became of its zone.';
revoke all on function fleet.explain_wall_of_device(
  public.schedules, public.schedule_runs, public.devices, text, timestamp, timestamptz, text, timestamptz
) from public, anon, authenticated, service_role;

create or replace function fleet.run_in_zone(p_run public.schedule_runs, p_row fleet.run_zones)
returns public.schedule_runs
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  p_run.scheduled_for := p_row.due_at;
  p_run.started_at := p_row.started_at;
  p_run.expanded_at := p_row.expanded_at;
  p_run.expanded_to := case when p_row.expanded_at is null then p_row.expanded_to else p_run.expanded_to end;
  p_run.expires_at := p_row.expires_at;
  p_run.targeted := p_row.targeted;
  return p_run;
end;
$$;

comment on function fleet.run_in_zone(public.schedule_runs, fleet.run_zones) is
  'A run in device time as it looks to the devices of one of its instants.';
revoke all on function fleet.run_in_zone(public.schedule_runs, fleet.run_zones) from public, anon, authenticated, service_role;

-- db/sources/70_insight/50_describe.sql
-- A schedule in plain English.

create or replace function fleet.describe_schedule(p_schedule_id bigint, p_now timestamptz)
returns text
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select fleet.describe_row(fleet.schedule_in_view(p_schedule_id), p_now)
$$;

comment on function fleet.describe_schedule(bigint, timestamptz) is 'See public.describe_schedule. Definer: it checks the caller.';
revoke all on function fleet.describe_schedule(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.describe_schedule(bigint, timestamptz) to authenticated, service_role;

create or replace function public.describe_schedule(p_schedule_id bigint, p_now timestamptz default now())
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.describe_schedule(p_schedule_id, p_now)
$$;

comment on function public.describe_schedule(bigint, timestamptz) is
  'A schedule in plain English: what goes to whom and when, each policy that is not the usual one, and how it stands. Raises '
  'schedule_not_found (PT404).';
revoke all on function public.describe_schedule(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.describe_schedule(bigint, timestamptz) to authenticated, service_role;

create or replace function fleet.describe_row(p_schedule public.schedules, p_now timestamptz)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select concat_ws(' ',
    format('"%s" sends %s to %s (%s now) %s.', p_schedule.name, p_schedule.action_type, fleet.describe_targets(p_schedule),
      (
        select case n.devices when 1 then '1 device' else n.devices || ' devices' end
        from (select fleet.devices_of_zones(fleet.device_counts(p_schedule), null) as devices) as n
      ),
      fleet.describe_when(p_schedule, p_now)),
    fleet.describe_policies(p_schedule),
    fleet.describe_state(p_schedule)
  )
$$;

comment on function fleet.describe_row(public.schedules, timestamptz) is 'See public.describe_schedule.';
revoke all on function fleet.describe_row(public.schedules, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.describe_when(p_schedule public.schedules, p_now timestamptz)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_schedule.after_schedule_id is not null then format(case
      when p_schedule.after_per_device then 'on each device as soon as its command of "%s" has %s'
      else 'each time a run of "%s" has %s'
    end, (
      select s.name from public.schedules as s where s.id = p_schedule.after_schedule_id
    ), fleet.ending_text(p_schedule.after_on))
    when p_schedule.timezone = 'device' then replace(
      fleet.describe_recurrence(p_schedule.recurrence -> 'wall'),
      ' (UTC)',
      ' in each device''s own time'
    )
    else fleet.describe_recurrence(p_schedule.recurrence)
  end || case
    when p_schedule.recurrence_type not in ('once', 'interval') and p_schedule.start_time > p_now
      and p_schedule.after_schedule_id is null
      then ', from ' || fleet.clock_text(p_schedule.start_time, fleet.reference_zone(p_schedule)) || ' on'
    else ''
  end
$$;

comment on function fleet.describe_when(public.schedules, timestamptz) is 'When a schedule runs: its recurrence, or what it follows.';
revoke all on function fleet.describe_when(public.schedules, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.describe_targets(p_schedule public.schedules)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.english_list(array_remove(array[
      case
        when cardinality(p_schedule.device_ids) > 3 then cardinality(p_schedule.device_ids) || ' named devices'
        when p_schedule.device_ids <> '{}' then (
          select case count(*) when 1 then 'device ' else 'devices ' end
            || coalesce(fleet.english_list(array_agg(format('"%s"', d.hostname) order by d.hostname)), 'that are gone')
          from public.devices as d
          where d.id = any (p_schedule.device_ids) and d.owner_id = p_schedule.owner_id
        )
      end,
      case
        when p_schedule.group_ids <> '{}' then (
          select case count(*) when 1 then 'group ' else 'groups ' end
            || coalesce(fleet.english_list(array_agg(format('"%s"', g.name) order by g.name)), 'that are gone')
          from public.device_groups as g
          where g.id = any (p_schedule.group_ids) and g.owner_id = p_schedule.owner_id
        )
      end,
      fleet.describe_selector(p_schedule.selector)
    ], null))
$$;

comment on function fleet.describe_targets(public.schedules) is 'Whom a schedule reaches, by name where they are few.';
revoke all on function fleet.describe_targets(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.describe_selector(p_selector jsonb)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_selector is null then null
    when p_selector = '{}' then 'every device'
    else 'every device with ' || fleet.english_list(array_agg(
      case e.key
        when 'tags' then 'the tags ' || v.list
        when 'any_tags' then 'one of the tags ' || v.list
        when 'platform' then 'platform ' || v.list
        else e.key || ' ' || e.value::text
      end order by e.key
    ))
  end
  from jsonb_each(coalesce(p_selector, '{}')) as e
  cross join lateral (
    select string_agg(i.text, ', ') as list
    from jsonb_array_elements_text(
      case jsonb_typeof(e.value) when 'array' then e.value else jsonb_build_array(e.value) end
    ) as i(text)
  ) as v
$$;

comment on function fleet.describe_selector(jsonb) is 'A selector in words; null where there is none.';
revoke all on function fleet.describe_selector(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.describe_state(p_schedule public.schedules)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_schedule.status <> 'active' then format('It is %s%s.', p_schedule.status, ': ' || p_schedule.status_reason)
    when p_schedule.timezone = 'device' and p_schedule.next_run_at is not null then (
      select format('Next due: %s on each device''s wall, first in %s.', fleet.wall_text(c.local), c.zones[1])
      from fleet.coming_on_walls(p_schedule, p_schedule.next_run_at, 'infinity', 1, false) as c
    )
    when p_schedule.next_run_at is not null then format('Next due: %s.', fleet.local_times(
      p_schedule.next_run_at,
      array[fleet.reference_zone(p_schedule)]
    ))
  end
$$;

comment on function fleet.describe_state(public.schedules) is 'How a schedule stands: why it rests, or when it runs next.';
revoke all on function fleet.describe_state(public.schedules) from public, anon, authenticated, service_role;

-- db/sources/70_insight/51_describe_policies.sql
-- Policies in plain English: only those that are not the usual ones.

create or replace function fleet.describe_policies(p_schedule public.schedules)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select string_agg(s.sentence, ' ' order by s.nr, s.sentence)
  from (
    select d.nr, fleet.describe_policy(p_schedule, d.key, fleet.effective_policies(p_schedule.policies)) as sentence
    from (
      values
        (1, 'execution_window'), (2, 'blackouts'), (3, 'jitter'), (4, 'overlap'), (5, 'catchup'), (6, 'expires_after'),
        (7, 'retry'), (8, 'max_runs'), (9, 'pause_on_failure'), (10, 'rollout')
    ) as d(nr, key)
    where exists (
      select 1
      from jsonb_each(p_schedule.policies) as e
      where (e.key = d.key or (d.key = 'catchup' and e.key like 'catchup\_%') or (d.key = 'overlap' and e.key = 'max_concurrent'))
        and e.value is distinct from fleet.default_policies() -> e.key
    )
    union all
    select 11, format('Its priority is %s.', p_schedule.priority)
    where p_schedule.priority <> 0
  ) as s
$$;

comment on function fleet.describe_policies(public.schedules) is
  'A sentence for each policy that differs from the default; null where none does. gap and fold are told with the recurrence.';
revoke all on function fleet.describe_policies(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.describe_policy(p_schedule public.schedules, p_key text, p_policies jsonb)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case p_key
    when 'execution_window' then format('It runs only from %s; outside of that it %s.', fleet.window_text(p_policies), case
      when p_policies -> 'execution_window' @> '{"outside": "wait"}' or p_policies -> 'execution_window' @> '[{"outside": "wait"}]'
        then 'waits'
      else 'is skipped'
    end)
    when 'blackouts' then format('It does not run during %s.', (
      select fleet.english_list(array_agg(format('"%s"', c.name) order by c.name))
      from public.blackout_calendars as c
      where c.id = any (fleet.blackout_ids(p_policies)) and c.owner_id = p_schedule.owner_id
    ))
    when 'jitter' then format('Each device has a slot of its own within %s.', p_policies ->> 'jitter')
    when 'overlap' then case p_policies ->> 'overlap'
      when 'buffer_one' then 'A device that is still busy with a run gets the next one when it is through; one at most waits.'
      when 'allow' then format('A device may have up to %s runs of it at once.', p_policies ->> 'max_concurrent')
      when 'replace' then 'A new run cancels what a device has not finished of the one before.'
    end
    when 'catchup' then case p_policies ->> 'catchup'
      when 'none' then 'What was missed is not caught up.'
      when 'all' then format('Of what was missed, the last %s instants within %s are caught up%s.', p_policies ->> 'catchup_limit',
        p_policies ->> 'catchup_window', ', at most ' || (p_policies ->> 'catchup_rate') || ' a minute')
      else format('Of what was missed within %s, only the latest is caught up.', p_policies ->> 'catchup_window')
    end
    when 'expires_after' then format('What a device has not started within %s expires.', p_policies ->> 'expires_after')
    when 'retry' then format('What fails is tried %s times in all%s.', p_policies #>> '{retry,attempts}',
      ', first after ' || (p_policies #>> '{retry,backoff}'))
    when 'max_runs' then format('It ends after %s runs; %s were started so far.', p_policies ->> 'max_runs', p_schedule.execution_count - p_schedule.idle_count)
    when 'rollout' then format('It reaches its devices group by group: %s.', (
      select fleet.english_list(array_agg(w.name order by w.wave)) from fleet.planned_waves(p_policies -> 'rollout') as w
    ))
    when 'pause_on_failure' then format('It is paused when %s runs in a row have failed.', p_policies ->> 'pause_on_failure')
  end
$$;

comment on function fleet.describe_policy(public.schedules, text, jsonb) is 'One of the effective policies as a sentence.';
revoke all on function fleet.describe_policy(public.schedules, text, jsonb) from public, anon, authenticated, service_role;

-- db/sources/70_insight/60_conflicts.sql
-- Conflicts: other schedules that touch the same devices at the same time.

create or replace function fleet.conflicts_among(
  p_schedules public.schedules[],
  p_schedule_id bigint,
  p_from timestamptz,
  p_to timestamptz,
  p_within interval,
  p_instants integer
)
returns table (
  schedule_id bigint,
  other_schedule_id bigint,
  times bigint,
  devices bigint,
  first_at timestamptz,
  other_first_at timestamptz,
  example_times timestamptz[],
  example_hostnames text[]
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with schedule as materialized (
    select s.id, s, dense_rank() over (order by s.owner_id, s.device_ids, s.group_ids, s.selector) as set_id
    from unnest(p_schedules) as s
  ),
  instant as materialized (
    select s.id, s.set_id, x.at, x.zones,
      floor(extract(epoch from x.at) / greatest(extract(epoch from p_within), 1))::bigint as slot
    from schedule as s
    cross join lateral fleet.coming_runs(s.s, p_from, p_to, p_instants) as c
    -- In device time each wall has an instant of its own.
    cross join lateral (
      select c.starts_at as at, c.zones where c.local is null
      union all
      select z.due_at, array_agg(z.zone)
      from fleet.zone_instants((s.s).recurrence, c.local, 0, c.zones) as z
      where c.local is not null and z.refusal is null
      group by z.due_at
    ) as x
    where c.would = 'run'
  ),
  -- What is near is in the same slot or in the next one on either side.
  meeting as materialized (
    select a.id as a_id, b.id as b_id, a.set_id as a_set, b.set_id as b_set, a.zones as a_zones, b.zones as b_zones, count(*) as times,
      min(a.at) as a_first, min(b.at) as b_first, (array_agg(distinct a.at))[1:3] as examples
    from instant as a
    cross join lateral (values (a.slot - 1), (a.slot), (a.slot + 1)) as n(slot)
    join instant as b on b.slot = n.slot
    where b.at between a.at - p_within and a.at + p_within
      and ((p_schedule_id is null and a.id < b.id) or (a.id = p_schedule_id and b.id <> p_schedule_id))
    group by a.id, b.id, a.set_id, b.set_id, a.zones, b.zones
  ),
  -- Schedules for the same targets are the rule; each set of them is looked up once.
  reached as materialized (
    select l.set_id, t.device_id, t.hostname, coalesce(t.timezone, 'UTC') as zone
    from (
      select distinct on (s.set_id) s.set_id, s.s
      from schedule as s
      where s.set_id in (select m.a_set from meeting as m union select m.b_set from meeting as m)
      order by s.set_id
    ) as l
    cross join lateral fleet.targets((l.s).owner_id, (l.s).device_ids, (l.s).group_ids, (l.s).selector) as t
  ),
  shared as materialized (
    select a.set_id as a_set, b.set_id as b_set, a.zone, count(*) as devices,
      (array_agg(a.hostname order by a.device_id))[1:3] as hostnames
    from reached as a
    join reached as b on b.device_id = a.device_id
    where (a.set_id, b.set_id) in (select m.a_set, m.b_set from meeting as m)
    group by a.set_id, b.set_id, a.zone
  ),
  -- In device time an instant reaches the devices of some zones only.
  touched as (
    select m.*, s.zone, s.devices, s.hostnames,
      row_number() over (partition by m.a_id, m.b_id, m.a_zones, m.b_zones order by s.zone) = 1 as is_first_zone,
      row_number() over (partition by m.a_id, m.b_id, s.zone) = 1 as is_first_meeting
    from meeting as m
    join shared as s on s.a_set = m.a_set and s.b_set = m.b_set
    where (m.a_zones is null or s.zone = any (m.a_zones))
      and (m.b_zones is null or s.zone = any (m.b_zones))
  )
  select t.a_id, t.b_id, (sum(t.times) filter (where t.is_first_zone))::bigint,
    (sum(t.devices) filter (where t.is_first_meeting))::bigint,
    min(t.a_first), min(t.b_first), min(t.examples), min(t.hostnames)
  from touched as t
  group by t.a_id, t.b_id
$$;

comment on function fleet.conflicts_among(public.schedules[], bigint, timestamptz, timestamptz, interval, integer) is
  'Which of these schedules, all of them or one with the others, start within p_within of each other on the same devices; at most '
  'p_instants of each are looked at.';
revoke all on function fleet.conflicts_among(public.schedules[], bigint, timestamptz, timestamptz, interval, integer)
  from public, anon, authenticated, service_role;

create or replace function fleet.schedule_conflicts(
  p_schedule_id bigint,
  p_from timestamptz,
  p_to timestamptz,
  p_within interval
)
returns table (
  schedule_id bigint,
  schedule text,
  other_schedule_id bigint,
  other_schedule text,
  times bigint,
  devices bigint,
  first_at timestamptz,
  other_first_at timestamptz,
  example_times timestamptz[],
  example_hostnames text[]
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Enough to see what collides, and an end to it: a schedule of each second collides with everything.
  c_schedules constant integer := 300;
  c_instants constant integer := 100;
  v_owners uuid[];
  v_schedules public.schedules[];
begin
  perform fleet.require_span(p_from, p_to, '1 year');
  if p_within is null or p_within < interval '0' or p_within > interval '1 day' then
    raise exception 'p_within: % is not a duration up to a day', coalesce(p_within::text, 'null')
      using errcode = 'PT422', detail = 'argument_invalid', hint = 'Example: "5 minutes"; "0" for the very same instant.';
  end if;
  v_owners := case
    when p_schedule_id is null then fleet.owners_in_view()
    else array[(fleet.schedule_in_view(p_schedule_id)).owner_id]
  end;

  select array_agg(n.s) into v_schedules
  from (
    select s
    from public.schedules as s
    where s.status = 'active' and s.next_run_at < p_to and s.owner_id = any (v_owners)
    order by s.id is distinct from p_schedule_id, s.next_run_at
    limit c_schedules
  ) as n;

  return query
  select c.schedule_id, a.name, c.other_schedule_id, b.name, c.times, c.devices, c.first_at, c.other_first_at,
    c.example_times, c.example_hostnames
  from fleet.conflicts_among(v_schedules, p_schedule_id, p_from, p_to, p_within, c_instants) as c
  join public.schedules as a on a.id = c.schedule_id
  join public.schedules as b on b.id = c.other_schedule_id
  order by c.devices desc, c.times desc, c.schedule_id, c.other_schedule_id;
end;
$$;

comment on function fleet.schedule_conflicts(bigint, timestamptz, timestamptz, interval) is
  'See public.schedule_conflicts. Definer: it looks only at what the caller may see.';
revoke all on function fleet.schedule_conflicts(bigint, timestamptz, timestamptz, interval)
  from public, anon, authenticated, service_role;
grant execute on function fleet.schedule_conflicts(bigint, timestamptz, timestamptz, interval) to authenticated, service_role;

create or replace function public.schedule_conflicts(
  p_schedule_id bigint default null,
  p_from timestamptz default now(),
  p_to timestamptz default null,
  p_within interval default '0'
)
returns table (
  schedule_id bigint,
  schedule text,
  other_schedule_id bigint,
  other_schedule text,
  times bigint,
  devices bigint,
  first_at timestamptz,
  other_first_at timestamptz,
  example_times timestamptz[],
  example_hostnames text[]
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select * from fleet.schedule_conflicts(p_schedule_id, p_from, coalesce(p_to, p_from + interval '7 days'), p_within)
$$;

comment on function public.schedule_conflicts(bigint, timestamptz, timestamptz, interval) is
  'Pairs of active schedules that start on the same devices within p_within of each other, the most devices first: how often, on how '
  'many devices, with examples; a week from p_from without p_to. Of one schedule with all others, or of all. Looks at the 300 schedules '
  'that are due soonest and at 100 runs of each. Raises schedule_not_found (PT404).';
revoke all on function public.schedule_conflicts(bigint, timestamptz, timestamptz, interval)
  from public, anon, authenticated, service_role;
grant execute on function public.schedule_conflicts(bigint, timestamptz, timestamptz, interval)
  to authenticated, service_role;

-- db/sources/70_insight/70_simulate.sql
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

-- db/sources/70_insight/75_touched.sql
-- How many devices a change reaches, for whoever tries it first.

create or replace function public.count_touched_devices(p_kind text, p_ids bigint[])
returns integer
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Row security limits everything to the caller's own.
  return (
    select count(distinct t.device_id)
    from (
      select d.id as device_id from public.devices as d where p_kind = 'device' and d.id = any (p_ids)
      union all
      select c.device_id from public.device_commands as c where p_kind = 'command' and c.id = any (p_ids)
      union all
      select p.device_id from public.device_places as p where p_kind = 'location' and p.location_id = any (p_ids) and p.is_inside
      union all
      select l.device_id
      from public.device_links as l
      where p_kind = 'integration' and l.integration_id = any (p_ids) and l.left_at is null
      union all
      select i.device_id from public.profile_installs as i where p_kind = 'install' and i.id = any (p_ids)
      union all
      select h.device_id
      from public.profiles as f
      join public.device_profiles as h on h.profile_id = f.external_id and h.owner_id = f.owner_id and h.is_installed
      where p_kind = 'profile' and f.id = any (p_ids)
      union all
      select d.id
      from (
        select s.owner_id, s.device_ids, s.group_ids, s.selector
        from public.schedules as s
        where p_kind = 'schedule' and s.id = any (p_ids)
        union all
        select g.owner_id, '{}', array[g.id], null
        from public.device_groups as g
        where p_kind = 'group' and g.id = any (p_ids)
        union all
        select a.owner_id, a.device_ids, a.group_ids, a.selector
        from public.profile_assignments as a
        where p_kind = 'assignment' and a.id = any (p_ids)
        union all
        select q.owner_id, '{}', array_remove(array[q.group_id], null),
          case when q.group_id is null then coalesce(q.selector, '{}') else q.selector end
        from public.location_policies as q
        where p_kind = 'location_policy' and q.id = any (p_ids)
        union all
        select g.owner_id, array_remove(array[g.device_id], null), array_remove(array[g.group_id], null), null
        from public.geo_schedules as g
        where p_kind = 'geo_schedule' and g.id = any (p_ids)
      ) as w
      join public.devices as d on d.owner_id = w.owner_id and d.status = 'active'
      where d.id = any (w.device_ids)
        or (w.selector is not null and fleet.device_matches(w.selector, d.tags, d.platform, d.attributes, d.reported))
        or d.id in (
          select m.id from unnest(w.group_ids) as u(id) cross join lateral public.group_devices(u.id) as m
        )
    ) as t
  );
end;
$$;

comment on function public.count_touched_devices(text, bigint[]) is
  'How many devices a change of these things reaches: device, group, schedule, command, location, location_policy, geo_schedule, '
  'integration, install, profile or assignment. What is not yours counts for nothing.';
revoke all on function public.count_touched_devices(text, bigint[]) from public, anon, authenticated, service_role;
grant execute on function public.count_touched_devices(text, bigint[]) to authenticated, service_role;

-- db/sources/70_insight/80_calendar.sql
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

-- db/sources/70_insight/90_ics_text.sql
-- iCalendar (RFC 5545) as text: escaping, folding, properties.

create or replace function fleet.ics_escaped(p_text text)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select regexp_replace(
    replace(replace(replace(replace(
      regexp_replace(p_text, E'\r\n?', E'\n', 'g'),
      '\', '\\'), ';', '\;'), ',', '\,'), E'\n', '\n'),
    '[' || fleet.unseen_characters() || ']', '', 'g'
  )
$$;

comment on function fleet.ics_escaped(text) is 'Text as the value of a property: escaped, without control characters and what turns text around.';
revoke all on function fleet.ics_escaped(text) from public, anon, authenticated, service_role;

create or replace function fleet.ics_line(p_line text)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_bytes bytea := convert_to(p_line, 'UTF8');
  v_length integer := length(v_bytes);
  v_at integer := 0;
  v_parts text[] := '{}';
  v_size integer;
begin
  -- 75 octets a line, the space that continues it included; a character is never cut in two. Octets are counted, not characters: finding the
  -- n-th of those means reading all before it, for each line anew.
  while v_at < v_length loop
    v_size := least(v_length - v_at, case v_at when 0 then 75 else 74 end);
    -- What begins with the bits 10 goes on with the character before.
    while v_at + v_size < v_length and get_byte(v_bytes, v_at + v_size) & 192 = 128 loop
      v_size := v_size - 1;
    end loop;
    v_parts := v_parts || convert_from(substr(v_bytes, v_at + 1, v_size), 'UTF8');
    v_at := v_at + v_size;
  end loop;
  return array_to_string(v_parts, E'\r\n ') || E'\r\n';
end;
$$;

comment on function fleet.ics_line(text) is 'A content line, folded at 75 octets, with its end.';
revoke all on function fleet.ics_line(text) from public, anon, authenticated, service_role;

create or replace function fleet.ics_instant(p_instant timestamptz)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select to_char(p_instant at time zone 'UTC', 'YYYYMMDD"T"HH24MISS"Z"')
$$;

comment on function fleet.ics_instant(timestamptz) is 'An instant as iCalendar writes it, in UTC and whole seconds.';
revoke all on function fleet.ics_instant(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.ics_wall(p_local timestamp)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select to_char(p_local, 'YYYYMMDD"T"HH24MISS')
$$;

comment on function fleet.ics_wall(timestamp) is
  'A reading of the wall as iCalendar writes it, without a zone: the same time for whoever looks, wherever he is.';
revoke all on function fleet.ics_wall(timestamp) from public, anon, authenticated, service_role;

create or replace function fleet.ics_uid(p_schedule public.schedules, p_due_at timestamptz)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    'schedule-%s-%s@%s.pgfleet', p_schedule.id, to_char(p_due_at at time zone 'UTC', 'YYYYMMDD"T"HH24MISSUS"Z"'), p_schedule.owner_id
  )
$$;

comment on function fleet.ics_uid(public.schedules, timestamptz) is
  'The same for the same due instant of the same schedule, whenever it is asked for: calendars update the event instead of adding one.';
revoke all on function fleet.ics_uid(public.schedules, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.ics_head(p_name text, p_note text)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select string_agg(fleet.ics_line(l.line), '' order by l.nr)
  from (
    values
      (1, 'BEGIN:VCALENDAR'),
      (2, 'VERSION:2.0'),
      (3, 'PRODID:-//pgfleet//Schedules//EN'),
      (4, 'CALSCALE:GREGORIAN'),
      (5, 'METHOD:PUBLISH'),
      (6, 'NAME:' || fleet.ics_escaped(p_name)),
      (7, 'X-WR-CALNAME:' || fleet.ics_escaped(p_name)),
      -- No X-WR-TIMEZONE: it would give a zone to what is in device time and has none.
      (8, 'REFRESH-INTERVAL;VALUE=DURATION:PT1H'),
      (9, 'X-PUBLISHED-TTL:PT1H'),
      (10, 'X-WR-CALDESC:' || fleet.ics_escaped(p_note))
  ) as l(nr, line)
  where l.line is not null
$$;

comment on function fleet.ics_head(text, text) is 'The beginning of a calendar, with its name and, where there is one, a note.';
revoke all on function fleet.ics_head(text, text) from public, anon, authenticated, service_role;

-- db/sources/70_insight/91_ics.sql
-- The coming runs as a calendar that Google Calendar, Apple Calendar and Outlook import.

create or replace function fleet.require_calendar_filter(p_filter jsonb)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.require_size('the filter', 'selector', p_filter);
  perform fleet.raise_problems('the filter', 'filter_invalid', array_agg(q::fleet.problem))
  from (
    select 'filter' as field, 'must be an object' as problem, 'Example: {"schedule_ids": [7]}; {} for all.' as hint
    where jsonb_typeof(p_filter) is distinct from 'object'
    union all
    select e.key, 'is not a key of a calendar filter',
      'The keys are schedule_ids, device_id, group_id, action_type, search, name and limit.'
    from jsonb_each(case when jsonb_typeof(p_filter) = 'object' then p_filter else '{}' end) as e
    where e.key not in ('schedule_ids', 'device_id', 'group_id', 'action_type', 'search', 'name', 'limit')
    union all
    select 'schedule_ids', 'is not a list of ids', 'Write whole numbers without quotes, like [1, 2].'
    where p_filter ? 'schedule_ids' and not fleet.is_id_list(p_filter -> 'schedule_ids')
    union all
    select n.field, n.problem, n.hint
    from (values ('device_id', 9007199254740991), ('group_id', 9007199254740991), ('limit', 5000)) as k(key, most)
    cross join lateral fleet.whole_number_problem(k.key, p_filter -> k.key, 1, k.most) as n
    union all
    select k.key, 'must be a text', 'Write it in quotes.'
    from unnest('{action_type,search,name}'::text[]) as k(key)
    where p_filter ? k.key and jsonb_typeof(p_filter -> k.key) <> 'string'
  ) as q;
end;
$$;

comment on function fleet.require_calendar_filter(jsonb) is 'Raise filter_invalid (PT422) naming every wrong key of a calendar''s filter.';
revoke all on function fleet.require_calendar_filter(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.schedules_of_filter(p_owners uuid[], p_filter jsonb, p_to timestamptz, p_limit integer)
returns setof public.schedules
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select s.*
  from public.schedules as s
  where s.owner_id = any (p_owners)
    and s.status = 'active'
    and s.next_run_at < p_to
    and fleet.has_clock(s)
    and (not p_filter ? 'schedule_ids' or s.id = any (fleet.bigint_array(p_filter -> 'schedule_ids')))
    and (not p_filter ? 'action_type' or s.action_type = p_filter ->> 'action_type')
    and (not p_filter ? 'search' or position(lower(p_filter ->> 'search') in lower(s.name)) > 0)
    and (not p_filter ? 'group_id' or (p_filter ->> 'group_id')::bigint = any (s.group_ids))
    and (
      not p_filter ? 'device_id'
      or exists (
        select 1
        from public.devices as d
        where d.id = (p_filter ->> 'device_id')::bigint
          and d.owner_id = s.owner_id
          and d.status = 'active'
          and (
            d.id = any (s.device_ids)
            or s.group_ids && array(select m.group_id from public.device_group_members as m where m.device_id = d.id)
            or fleet.device_matches(s.selector, d.tags, d.platform, d.attributes, d.reported)
            or s.group_ids && array(
              select g.id from public.device_groups as g
              where g.owner_id = d.owner_id and g.selector is not null
                and fleet.device_matches(g.selector, d.tags, d.platform, d.attributes, d.reported)
            )
          )
      )
    )
  order by s.next_run_at, s.id
  limit p_limit
$$;

comment on function fleet.schedules_of_filter(uuid[], jsonb, timestamptz, integer) is
  'The active schedules of these owners that a calendar''s filter chooses; the ones due soonest where there are more.';
revoke all on function fleet.schedules_of_filter(uuid[], jsonb, timestamptz, integer)
  from public, anon, authenticated, service_role;

create or replace function fleet.ics_lines_of(p_schedule public.schedules, p_now timestamptz)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select concat(
    'DTSTAMP:', fleet.ics_instant(p_schedule.updated_at), E'\r\n',
    'LAST-MODIFIED:', fleet.ics_instant(p_schedule.updated_at), E'\r\n',
    fleet.ics_line('DESCRIPTION:' || fleet.ics_escaped(concat_ws(E'\n',
      concat_ws(' ',
        format('%s to %s %s.', p_schedule.action_type, fleet.describe_targets(p_schedule), fleet.describe_when(p_schedule, p_now)),
        fleet.describe_policies(p_schedule)
      ),
      nullif(p_schedule.description, '')
    ))),
    fleet.ics_line('CATEGORIES:' || fleet.ics_escaped(p_schedule.action_type)),
    E'TRANSP:TRANSPARENT\r\n'
  )
$$;

comment on function fleet.ics_lines_of(public.schedules, timestamptz) is 'The lines that all events of a schedule share.';
revoke all on function fleet.ics_lines_of(public.schedules, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.often_due(p_schedules public.schedules[], p_from timestamptz, p_to timestamptz, p_limit integer)
returns bigint[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_share bigint := greatest(p_limit / greatest(cardinality(p_schedules), 1), 1);
  v_days bigint := greatest(ceil(extract(epoch from p_to - p_from) / 86400), 1)::bigint;
begin
  -- More than its share of the entries, and more than one a day: a day then says as much as all of them.
  return array(
    select s.id
    from unnest(p_schedules) as s
    cross join lateral (
      select case
        when s.timezone = 'device' then fleet.count_due(s.recurrence, fleet.schedule_zones(s), p_from, least(p_to, p_from + interval '8 days'))
          * greatest(v_days / 8, 1)
        else fleet.count_occurrences(s.recurrence, p_from, p_to, greatest(v_share, v_days) + 1)
      end as n
    ) as c
    where c.n > v_share and c.n > v_days
  );
end;
$$;

comment on function fleet.often_due(public.schedules[], timestamptz, timestamptz, integer) is
  'Those of these schedules that would take more than an equal share of so many entries of a calendar, and more than one a day.';
revoke all on function fleet.often_due(public.schedules[], timestamptz, timestamptz, integer)
  from public, anon, authenticated, service_role;

create or replace function fleet.ics_day_events(
  p_schedule public.schedules,
  p_from timestamptz,
  p_to timestamptz,
  p_lines text,
  p_most bigint
)
returns table (day date, starts_at timestamptz, event text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_schedule public.schedules := p_schedule;
  v_zone text := fleet.zone_clock(fleet.reference_zone(p_schedule));
  v_to timestamptz := p_to;
  v_days bigint;
begin
  if fleet.is_judged_one_by_one(p_schedule) then
    v_days := p_most / greatest(
      fleet.count_due(p_schedule.recurrence, fleet.schedule_zones(p_schedule), p_from, p_from + interval '1 day'), 1
    );
    v_to := least(p_to, p_from + greatest(v_days, 1) * interval '1 day');
    if v_days = 0 and p_schedule.timezone <> 'device' then
      -- Too many to judge: all that is due is counted.
      v_schedule.policies := v_schedule.policies - '{execution_window,blackouts,max_runs}'::text[];
      v_to := p_to;
    end if;
  end if;
  return query
  select d.day, d.day::timestamp at time zone 'UTC', concat(
      E'BEGIN:VEVENT\r\n',
      fleet.ics_line('UID:' || fleet.ics_uid(p_schedule, d.day::timestamp at time zone 'UTC')),
      'DTSTART;VALUE=DATE:', to_char(d.day, 'YYYYMMDD'), E'\r\n',
      'DTEND;VALUE=DATE:', to_char(d.day + 1, 'YYYYMMDD'), E'\r\n',
      fleet.ics_line('SUMMARY:' || fleet.ics_escaped(format('%s (%s)', p_schedule.name, concat_ws(
        ', ', d.runs || case when d.runs = 1 then ' run' else ' runs' end, case when p_schedule.timezone = 'device' then 'device time' end
      )))),
      p_lines,
      E'END:VEVENT\r\n'
    )
  from (
    select c.day, sum(c.runs) as runs
    from fleet.counted_days(
      v_schedule, (p_from at time zone v_zone)::date, ((v_to - interval '1 microsecond') at time zone v_zone)::date + 1, v_zone, p_from
    ) as c
    where c.would = 'run'
    group by c.day
  ) as d;
end;
$$;

comment on function fleet.ics_day_events(public.schedules, timestamptz, timestamptz, text, bigint) is
  'A schedule that is due often as entries of a calendar: one of the whole day for each, with the number of its runs. Where each has to be '
  'judged by itself at most p_most are, which is its first days.';
revoke all on function fleet.ics_day_events(public.schedules, timestamptz, timestamptz, text, bigint)
  from public, anon, authenticated, service_role;

create or replace function fleet.calendar_text(p_owners uuid[], p_filter jsonb, p_from timestamptz, p_to timestamptz)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_limit integer := coalesce((p_filter ->> 'limit')::integer, 2000);
  v_schedules public.schedules[] := array(select s from fleet.schedules_of_filter(p_owners, p_filter, p_to, v_limit + 1) as s);
  v_often bigint[] := fleet.often_due(v_schedules, p_from, p_to, v_limit);
  v_events text;
  v_cut_at timestamptz;
begin
  with chosen as materialized (
    select s, s.id = any (v_often) as is_often from unnest(v_schedules) as s
  ),
  until as materialized (
    select fleet.span_of_rows(array(select c.s from chosen as c where not c.is_often), p_from, p_to, v_limit + 1) as at
  ),
  -- What each event of a schedule says is made once for all of them.
  said as materialized (
    select (c.s).id, fleet.ics_lines_of(c.s, p_from) as lines
    from chosen as c
  ),
  entry as (
    select r.starts_at, (c.s).id, concat(
        E'BEGIN:VEVENT\r\n',
        fleet.ics_line('UID:' || fleet.ics_uid(c.s, coalesce(r.local at time zone 'UTC', r.due_at))),
        -- Without a zone: the same time on every wall.
        'DTSTART:', coalesce(fleet.ics_wall(r.local), fleet.ics_instant(r.starts_at)), E'\r\n',
        'DTEND:', coalesce(fleet.ics_wall(r.local + interval '5 minutes'), fleet.ics_instant(r.starts_at + interval '5 minutes')), E'\r\n',
        fleet.ics_line('SUMMARY:' || fleet.ics_escaped((c.s).name || case when r.local is not null then ' (device time)' else '' end)),
        d.lines,
        E'END:VEVENT\r\n'
      ) as event
    from chosen as c
    join said as d on d.id = (c.s).id
    cross join until as u
    cross join lateral fleet.coming_runs(c.s, p_from, u.at, v_limit + 1) as r
    where r.would = 'run' and not c.is_often
    union all
    select e.starts_at, (c.s).id, e.event
    from chosen as c
    join said as d on d.id = (c.s).id
    cross join lateral fleet.ics_day_events(c.s, p_from, p_to, d.lines, 5000 / greatest(cardinality(v_often), 1)) as e
    where c.is_often
  ),
  -- One more than the limit tells that something was cut.
  numbered as materialized (
    select e.*, row_number() over (order by e.starts_at, e.id) as n from entry as e order by n limit v_limit + 1
  )
  select string_agg(r.event, '' order by r.n) filter (where r.n <= v_limit), min(r.starts_at) filter (where r.n > v_limit)
  into v_events, v_cut_at
  from numbered as r;

  return concat(
    fleet.ics_head(coalesce(p_filter ->> 'name', 'Fleet schedules'), nullif(concat_ws(' ',
      case
        when v_cut_at is not null then format(
          'Only the first %s runs are shown, until %s UTC. Choose fewer schedules to see further.', v_limit,
          fleet.clock_text(v_cut_at, 'UTC')
        )
      end,
      case when v_often <> '{}' then 'What is due often has one entry a day, with the number of its runs; with windows or blackouts that goes for its first days.' end,
      (
        select format('Left out, because the server does not have their time zones: %s.', string_agg(n.name, ', '))
        from (
          select s.name from public.schedules as s
          where s.owner_id = any (p_owners) and s.status = 'active' and not fleet.has_clock(s)
          order by s.name
          limit 10
        ) as n
        having count(*) > 0
      )
    ), '')),
    v_events,
    E'END:VCALENDAR\r\n'
  );
end;
$$;

comment on function fleet.calendar_text(uuid[], jsonb, timestamptz, timestamptz) is
  'The runs to come of these owners'' schedules as iCalendar, one event each, or one a day where a schedule is due often; a note in the '
  'calendar''s description says where it was cut.';
revoke all on function fleet.calendar_text(uuid[], jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.calendar_ics(p_owner_id uuid, p_filter jsonb, p_from timestamptz, p_to timestamptz)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.require_calendar_filter(p_filter);
  perform fleet.require_span(p_from, p_to, '2 years');
  return fleet.calendar_text(array[p_owner_id], p_filter, p_from, p_to);
end;
$$;

comment on function fleet.calendar_ics(uuid, jsonb, timestamptz, timestamptz) is
  'The coming runs of one owner as iCalendar, for a feed whose secret was checked. See public.calendar_ics for the filter.';
revoke all on function fleet.calendar_ics(uuid, jsonb, timestamptz, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.calendar_of_caller(p_filter jsonb, p_from timestamptz, p_to timestamptz)
returns text
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.require_calendar_filter(p_filter);
  perform fleet.require_span(p_from, p_to, '2 years');
  return fleet.calendar_text(fleet.owners_in_view(), p_filter, p_from, p_to);
end;
$$;

comment on function fleet.calendar_of_caller(jsonb, timestamptz, timestamptz) is
  'See public.calendar_ics. Definer: it looks only at what the caller may see.';
revoke all on function fleet.calendar_of_caller(jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.calendar_of_caller(jsonb, timestamptz, timestamptz) to authenticated, service_role;

create or replace function public.calendar_ics(
  p_filter jsonb default '{}',
  p_from timestamptz default now(),
  p_to timestamptz default now() + interval '90 days'
)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.calendar_of_caller(p_filter, p_from, p_to)
$$;

comment on function public.calendar_ics(jsonb, timestamptz, timestamptz) is
  'The coming runs of the caller''s schedules as iCalendar (RFC 5545), one event each, for Google Calendar, Apple Calendar and Outlook; a '
  'schedule that is due more often than its share of the events allows has one of the whole day, with the number of its runs. '
  'Filter: schedule_ids, device_id, group_id, action_type, search, name (of the calendar), limit (2000 events, at most 5000). Where more '
  'would come, the description of the calendar says until when it goes. Raises filter_invalid or span_invalid (PT422).';
revoke all on function public.calendar_ics(jsonb, timestamptz, timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.calendar_ics(jsonb, timestamptz, timestamptz) to authenticated, service_role;

-- db/sources/70_insight/95_calendar_feeds.sql
-- Calendar feeds: coming runs as iCalendar under a secret address that a calendar program subscribes to.

create or replace function fleet.create_calendar_feed(p_filter jsonb, p_name text, p_owner_id uuid)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_token text := fleet.random_secret();
  v_owner uuid := fleet.owner_or_own(p_owner_id);
  v_row public.calendar_feeds;
  v_path text;
begin
  perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
  if not exists (select 1 from public.owners as o where o.id = v_owner) then
    perform fleet.raise_not_found(format('owner %s', v_owner));
  end if;
  -- What is wrong with the filter is told now, not to the program that reads the feed.
  perform fleet.require_calendar_filter(p_filter);

  insert into public.calendar_feeds (owner_id, name, filter, token_hash, created_by)
  values (v_owner, coalesce(p_name, ''), p_filter, fleet.hash_secret(v_token), fleet.current_user_id())
  returning * into v_row;

  v_path := '/calendar-feed/' || v_token || '.ics';
  return to_jsonb(v_row) - 'token_hash'
    || jsonb_build_object('token', v_token, 'path', v_path, 'url', (fleet.setting('functions_url') #>> '{}') || v_path);
end;
$$;

comment on function fleet.create_calendar_feed(jsonb, text, uuid) is 'See public.create_calendar_feed. Definer: it checks the caller.';
revoke all on function fleet.create_calendar_feed(jsonb, text, uuid) from public, anon, authenticated, service_role;
grant execute on function fleet.create_calendar_feed(jsonb, text, uuid) to authenticated, service_role;

create or replace function public.create_calendar_feed(
  p_filter jsonb default '{}',
  p_name text default '',
  p_owner_id uuid default null
)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.create_calendar_feed(p_filter, p_name, p_owner_id)
$$;

comment on function public.create_calendar_feed(jsonb, text, uuid) is
  'Make a secret address under which calendar programs read the coming runs; shown this once. {id, token, path, url}; url is null '
  'while the setting functions_url is. The filter is that of calendar_ics. Raises owner_not_found (PT404), permission_missing (PT403) or filter_invalid (PT422).';
revoke all on function public.create_calendar_feed(jsonb, text, uuid) from public, anon, authenticated, service_role;
grant execute on function public.create_calendar_feed(jsonb, text, uuid) to authenticated, service_role;

create or replace function fleet.revoke_calendar_feed(p_id bigint)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid;
begin
  select f.owner_id into v_owner
  from public.calendar_feeds as f
  where f.id = p_id and fleet.is_visible_owner(f.owner_id);
  if not found then
    perform fleet.raise_not_found(format('calendar feed %s', p_id));
  end if;
  perform fleet.require_permission(v_owner, 'manage', format('calendar feed %s', p_id));
  update public.calendar_feeds as f set revoked_at = now() where f.id = p_id and f.revoked_at is null;
end;
$$;

comment on function fleet.revoke_calendar_feed(bigint) is 'See public.revoke_calendar_feed. Definer: it checks the caller.';
revoke all on function fleet.revoke_calendar_feed(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.revoke_calendar_feed(bigint) to authenticated, service_role;

create or replace function public.revoke_calendar_feed(p_id bigint)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.revoke_calendar_feed(p_id)
$$;

comment on function public.revoke_calendar_feed(bigint) is
  'Make the address of a feed useless. Raises calendar_feed_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.revoke_calendar_feed(bigint) from public, anon, authenticated, service_role;
grant execute on function public.revoke_calendar_feed(bigint) to authenticated, service_role;

create or replace function fleet.feed_of_token(p_token text)
returns public.calendar_feeds
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_feed public.calendar_feeds;
begin
  select f.* into v_feed
  from public.calendar_feeds as f
  where f.token_hash = fleet.hash_secret(p_token) and f.revoked_at is null;
  if not found then
    raise exception 'there is no such calendar, or its address was revoked'
      using errcode = 'PT404', detail = 'calendar_feed_not_found', hint = 'Make a new address: select create_calendar_feed()';
  end if;
  return v_feed;
end;
$$;

comment on function fleet.feed_of_token(text) is 'The feed behind a secret address. Raises calendar_feed_not_found (PT404).';
revoke all on function fleet.feed_of_token(text) from public, anon, authenticated, service_role;

create or replace function fleet.worker_feed_owner(p_token text)
returns uuid
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return (fleet.feed_of_token(p_token)).owner_id;
end;
$$;

comment on function fleet.worker_feed_owner(text) is
  'Whose calendar is under a secret address, so that owners can take turns. Raises calendar_feed_not_found (PT404). Definer: the address alone '
  'says what may be read.';
revoke all on function fleet.worker_feed_owner(text) from public, anon, authenticated, service_role;

create or replace function fleet.worker_calendar_feed(p_token text, p_now timestamptz default now())
returns text
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_feed public.calendar_feeds := fleet.feed_of_token(p_token);
begin
  -- Programs read often; a write each time would be waste, and a replica takes none.
  if (v_feed.last_read_at < p_now - interval '1 minute') is not false and current_setting('transaction_read_only') = 'off' then
    update public.calendar_feeds as f set last_read_at = p_now where f.id = v_feed.id;
  end if;
  return fleet.calendar_ics(v_feed.owner_id, v_feed.filter, p_now, p_now + interval '90 days');
end;
$$;

comment on function fleet.worker_calendar_feed(text, timestamptz) is
  'The calendar under a secret address: what is coming within three months. Raises calendar_feed_not_found (PT404). Definer: the '
  'address alone says what may be read.';
revoke all on function fleet.worker_calendar_feed(text, timestamptz) from public, anon, authenticated, service_role;

-- db/sources/70_insight/views.sql
-- Calendar feeds as people list them.

drop view if exists public.calendar_feed_list;
create view public.calendar_feed_list with (security_invoker = true) as
select
  f.id, f.owner_id, o.name as owner, f.name, f.filter, f.last_read_at, f.revoked_at, f.created_by, f.created_at
from public.calendar_feeds as f
join public.owners as o on o.id = f.owner_id;

comment on view public.calendar_feed_list is
  'Calendars that programs read by a secret address, without the secrets.';
comment on column public.calendar_feed_list.owner is 'The name of the owner.';
select fleet.inherit_comments('public.calendar_feed_list', 'public.calendar_feeds');
revoke all on table public.calendar_feed_list from public, anon, authenticated, service_role;
grant select on table public.calendar_feed_list to authenticated, service_role;

-- db/sources/70_insight/triggers.sql
-- What holds for calendar feeds however a row is written.

select fleet.keep_quota('public.calendar_feeds', 'feeds');

-- db/sources/70_insight/access.sql
-- Who sees calendar feeds: the owner's people; who manages, changes them through functions.

revoke all on table public.calendar_feeds from public, anon, authenticated, service_role;
revoke all on sequence public.calendar_feeds_id_seq from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.calendar_feeds to service_role;
grant usage, select on sequence public.calendar_feeds_id_seq to service_role;
drop policy if exists calendar_feeds_all_service_role on public.calendar_feeds;
create policy calendar_feeds_all_service_role on public.calendar_feeds
  for all to service_role using (true) with check (true);

-- Everything but the hash of the secret.
grant select (id, owner_id, name, filter, last_read_at, revoked_at, created_by, created_at)
  on table public.calendar_feeds to authenticated;
drop policy if exists calendar_feeds_select_member on public.calendar_feeds;
create policy calendar_feeds_select_member on public.calendar_feeds
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

set check_function_bodies = on;
reset search_path;
