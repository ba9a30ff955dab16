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
