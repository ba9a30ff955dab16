-- From a reading of the wall to instants: when a local occurrence is due in each time zone, and what comes next anywhere.

create or replace function fleet.zone_instants(p_recurrence jsonb, p_local timestamp, p_fold integer, p_zones text[])
returns table (zone text, due_at timestamptz, rule text, refusal text)
language plpgsql
stable
rows 20
set search_path = pg_catalog, pg_temp
as $$
declare
  v_wall jsonb := p_recurrence -> 'wall';
  v_gap text := case v_wall ->> 'kind' when 'once' then 'first_instant' else coalesce(v_wall ->> 'resolve_gap', v_wall ->> 'gap') end;
  v_fold text := case v_wall ->> 'kind' when 'once' then 'first' else coalesce(v_wall ->> 'resolve_fold', v_wall ->> 'fold') end;
  v_names_rule boolean := not v_wall @> '{"is_elapsed": true}';
  v_start timestamp := (v_wall ->> 'start')::timestamptz at time zone 'UTC';
  v_from timestamptz := coalesce((p_recurrence ->> 'from')::timestamptz, '-infinity');
  v_to timestamptz := coalesce((p_recurrence ->> 'to')::timestamptz, 'infinity');
  v_until timestamp := (p_recurrence ->> 'until')::timestamptz at time zone 'UTC';
begin
  if p_recurrence ? 'elapsed' then
    return query
    select e.zone, e.at, null, null
    from (
      select u.zone,
        coalesce(nullif(v_from, '-infinity'), fleet.local_to_instant(v_start, u.zone)) + (p_local - v_start) as at
      from unnest(p_zones) as u(zone)
      where p_fold = 0
    ) as e
    where e.at between v_from and v_to
      and (v_until is null or e.at <= fleet.local_to_instant(v_until, e.zone));
    return;
  end if;

  return query
  select d.zone, d.at,
    case when d.is_skipped and v_names_rule then 'gap:' || v_gap when d.is_repeated and v_names_rule then 'fold:' || v_fold end,
    case
      when d.is_skipped and v_gap = 'skip' then 'the clocks skip this local time'
      -- Offsets that grow within a day may bring two times to one instant.
      when (d.at + interval '26 hours') at time zone d.clock - (d.at - interval '26 hours') at time zone d.clock > interval '52 hours'
        and fleet.gives_way(v_wall, p_local, d.at, d.clock, v_gap)
        then 'an earlier time runs at this instant, to which the clocks moved it'
    end
  from (
    select w.zone, w.clock, w.is_skipped, w.first_at <> w.last_at as is_repeated,
      case
        when w.is_skipped and v_gap = 'shift'
          then w.first_at + (p_local - ((w.first_at - interval '1 microsecond') at time zone w.clock + interval '1 microsecond'))
        when p_fold = 1 or v_fold = 'second' then w.last_at
        else w.first_at
      end as at
    from (
      select k.zone, k.clock, i.first_at, i.last_at, i.first_at at time zone k.clock <> p_local as is_skipped
      from (select u.zone, fleet.zone_clock(u.zone) as clock from unnest(p_zones) as u(zone) offset 0) as k
      cross join lateral fleet.wall_instants(p_local, k.clock) as i
      offset 0
    ) as w
    where p_fold = 0 or (v_fold = 'both' and w.first_at <> w.last_at)
  ) as d
  where d.at between v_from and v_to;
end;
$$;

comment on function fleet.zone_instants(jsonb, timestamp, integer, text[]) is
  'When a local occurrence is due in each of these time zones, by which rule the clocks moved it there, and why it does not run there at '
  'all. No row for a zone in which it is out of bounds, or has no second pass.';
revoke all on function fleet.zone_instants(jsonb, timestamp, integer, text[]) from public, anon, authenticated, service_role;

create or replace function fleet.gives_way(p_wall jsonb, p_local timestamp, p_at timestamptz, p_clock text, p_gap text)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_change record;
  v_gap_from timestamp;
  v_jump interval;
begin
  select to_timestamp(t.changed_at) as at, t.offset_before as before, t.offset_after - t.offset_before as jump into v_change
  from fleet.zone_transitions(
    p_clock, date_part('epoch', p_at)::bigint - 93600, date_part('epoch', p_at)::bigint
  ) as t
  where t.offset_after > t.offset_before
  order by t.changed_at desc
  limit 1;
  if not found or p_gap = 'skip' then
    return false;
  end if;

  v_jump := v_change.jump * interval '1 second';
  v_gap_from := v_change.at at time zone 'UTC' + v_change.before * interval '1 second';
  if p_gap = 'first_instant' then
    -- All that was skipped, and what is meant for that instant anyway: the first of them has it.
    return p_at = v_change.at
      and fleet.next_occurrence(p_wall, v_gap_from at time zone 'UTC' - interval '1 microsecond') < p_local at time zone 'UTC';
  end if;
  return p_local >= v_gap_from + v_jump
    and p_local < v_gap_from + v_jump * 2
    and fleet.next_occurrence(p_wall, (p_local - v_jump) at time zone 'UTC' - interval '1 microsecond')
      = (p_local - v_jump) at time zone 'UTC';
end;
$$;

comment on function fleet.gives_way(jsonb, timestamp, timestamptz, text, text) is
  'Whether an earlier local time has been moved by a gap to the instant at which this one is due.';
revoke all on function fleet.gives_way(jsonb, timestamp, timestamptz, text, text) from public, anon, authenticated, service_role;

create or replace function fleet.wall_reach(p_recurrence jsonb, p_zones text[], p_from timestamptz, p_to timestamptz)
returns table (low interval, high interval, lowest interval, moving text[])
language plpgsql
stable
rows 1
set search_path = pg_catalog, pg_temp
as $$
declare
  v_wall jsonb := p_recurrence -> 'wall';
  v_start timestamp := (v_wall ->> 'start')::timestamptz at time zone 'UTC';
begin
  if p_recurrence ? 'elapsed' then
    -- The walls are nominal: as far from the instant as they were at the start.
    select max(v_start - i.due_at at time zone 'UTC'), min(v_start - i.due_at at time zone 'UTC') into high, lowest
    from fleet.zone_instants(p_recurrence - '{to,until}'::text[], v_start, 0, p_zones) as i;
    low := high;
    moving := '{}';
    return next;
    return;
  end if;

  select max(least(o.before, o.after)), max(greatest(o.before, o.after)), min(least(o.before, o.after)),
    coalesce(array_agg(o.zone) filter (where o.before <> o.after or p_to - p_from > interval '20 days'), '{}')
  into low, high, lowest, moving
  from (
    select k.zone,
      (p_from - interval '36 hours') at time zone k.clock - (p_from - interval '36 hours') at time zone 'UTC' as before,
      (p_to + interval '36 hours') at time zone k.clock - (p_to + interval '36 hours') at time zone 'UTC' as after
    from (select u.zone, fleet.zone_clock(u.zone) as clock from unnest(p_zones) as u(zone) offset 0) as k
  ) as o;
  if moving <> '{}' then
    -- A change of the clocks, and the whole minute at which what it skipped may run.
    low := low - interval '61 seconds' - case when p_to - p_from > interval '20 days' then interval '2 hours' else '0' end;
    high := high + case when p_to - p_from > interval '20 days' then interval '2 hours' else '0' end;
    lowest := lowest - case when p_to - p_from > interval '20 days' then interval '2 hours' else interval '61 seconds' end;
  end if;
  if p_from < (p_recurrence ->> 'from')::timestamptz + interval '40 hours' then
    -- Where the east is out of bounds yet, the first is further west.
    low := lowest;
  end if;
  return next;
end;
$$;

comment on function fleet.wall_reach(jsonb, text[], timestamptz, timestamptz) is
  'How far the walls of these zones are ahead of UTC around a span of time: what is first due somewhere within it has a local time from '
  'p_from + low to p_to + high, what is due anywhere one from p_from + lowest. moving: the zones whose clocks change about then.';
revoke all on function fleet.wall_reach(jsonb, text[], timestamptz, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.zone_kin(p_recurrence jsonb, p_zones text[], p_from timestamptz, p_to timestamptz)
returns table (first_zone text, zones text[])
language plpgsql
stable
rows 40
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_recurrence ? 'elapsed' or p_to - p_from > interval '10 days' or p_from = '-infinity' or cardinality(p_zones) < 2 then
    return query select u.zone, array[u.zone] from unnest(p_zones) as u(zone);
    return;
  end if;
  -- No clock is put back again within two weeks of having been put forward.
  return query
  select min(o.zone), array_agg(o.zone order by o.zone)
  from (
    select k.zone,
      (p_from - interval '3 days') at time zone k.clock - (p_from - interval '3 days') at time zone 'UTC' as before,
      p_from at time zone k.clock - p_from at time zone 'UTC' as at_first,
      p_to at time zone k.clock - p_to at time zone 'UTC' as at_last,
      (p_to + interval '3 days') at time zone k.clock - (p_to + interval '3 days') at time zone 'UTC' as after
    from (select u.zone, fleet.zone_clock(u.zone) as clock from unnest(p_zones) as u(zone) offset 0) as k
    offset 0
  ) as o
  group by o.before, case when o.before <> o.at_first or o.before <> o.at_last or o.before <> o.after then o.zone end;
end;
$$;

comment on function fleet.zone_kin(jsonb, text[], timestamptz, timestamptz) is
  'These time zones by what their clocks show from three days before p_from to three days after p_to: those that are the same distance from UTC '
  'all that time are of one kin, and what is decided for the first of them holds for each. A zone whose clocks change then is by itself.';
revoke all on function fleet.zone_kin(jsonb, text[], timestamptz, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.different_zones(p_recurrence jsonb, p_zones text[], p_from timestamptz, p_to timestamptz)
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if cardinality(p_zones) < 2 then
    return p_zones;
  end if;
  return (select array_agg(k.first_zone order by k.first_zone) from fleet.zone_kin(p_recurrence, p_zones, p_from, p_to) as k);
end;
$$;

comment on function fleet.different_zones(jsonb, text[], timestamptz, timestamptz) is
  'One zone of each kin, see fleet.zone_kin: enough to find the first and the last instant anywhere.';
revoke all on function fleet.different_zones(jsonb, text[], timestamptz, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.next_on_walls(
  p_recurrence jsonb,
  p_zones text[],
  p_after timestamptz,
  p_runs_only boolean default false
)
returns table (local timestamp, fold integer, due_at timestamptz)
language plpgsql
stable
rows 1
set search_path = pg_catalog, pg_temp
as $$
declare
  c_far constant interval := '20 hours';
  v_wall jsonb := p_recurrence -> 'wall';
  v_after timestamptz := greatest(p_after, (p_recurrence ->> 'from')::timestamptz - interval '1 microsecond');
  v_to timestamptz := (p_recurrence ->> 'to')::timestamptz;
  v_reach record;
  v_zones text[];
  v_wall_at timestamptz;
  v_at timestamptz;
begin
  if p_after = 'infinity' or p_zones = '{}' then
    return;
  elsif v_after = '-infinity' then
    v_after := fleet.next_occurrence(v_wall, '-infinity') - interval '3 days';
  end if;

  for v_try in 1..2 loop
    select r.* into v_reach from fleet.wall_reach(p_recurrence, p_zones, v_after, v_after) as r;
    v_wall_at := fleet.next_occurrence(
      v_wall, v_after + case when p_runs_only or v_reach.moving <> '{}' then v_reach.lowest else v_reach.low end
    );
    -- Far away the clocks may have changed: there they are looked at anew.
    exit when v_wall_at is null or v_wall_at < v_after + c_far * 2;
    v_after := v_wall_at - c_far;
  end loop;

  v_zones := fleet.different_zones(p_recurrence, p_zones, v_after, v_after + interval '3 days');
  for v_try in 1..5000 loop
    exit when v_wall_at is null
      or v_wall_at - v_reach.high - case when v_reach.moving = '{}' then interval '0' else interval '2 hours' end > due_at
      or v_wall_at - c_far > v_to;
    for v_fold in 0..case when v_reach.moving = '{}' then 0 else 1 end loop
      select min(i.due_at) into v_at
      from fleet.zone_instants(
        p_recurrence, v_wall_at at time zone 'UTC', v_fold, case v_fold when 0 then v_zones else v_reach.moving end
      ) as i
      where not p_runs_only or i.refusal is null;
      if v_at > p_after and (due_at is null or v_at < due_at) then
        local := v_wall_at at time zone 'UTC';
        fold := v_fold;
        due_at := v_at;
      end if;
    end loop;
    v_wall_at := fleet.next_occurrence(v_wall, v_wall_at);
  end loop;
  if due_at is not null then
    return next;
  end if;
end;
$$;

comment on function fleet.next_on_walls(jsonb, text[], timestamptz, boolean) is
  'The local occurrence that is the next to be first due in any of these zones after p_after, and when; p_runs_only: without those that '
  'do not run there. No row where there is none.';
revoke all on function fleet.next_on_walls(jsonb, text[], timestamptz, boolean) from public, anon, authenticated, service_role;

create or replace function fleet.walls_within(p_recurrence jsonb, p_zones text[], p_from timestamptz, p_to timestamptz)
returns table (local timestamp, fold integer, zones text[])
language plpgsql
stable
rows 5
set search_path = pg_catalog, pg_temp
as $$
declare
  v_reach record;
  v_is_second boolean := p_recurrence #>> '{wall,resolve_fold}' = 'both' or p_recurrence @> '{"wall": {"kind": "interval", "fold": "both"}}';
begin
  select r.* into v_reach from fleet.wall_reach(p_recurrence, p_zones, p_from, p_to) as r;
  return query
  select o.at at time zone 'UTC', 0, p_zones
  from fleet.occurrences(p_recurrence -> 'wall', p_from + v_reach.lowest, p_to + v_reach.high) as o(at)
  union all
  -- Only where the clocks change about then has a time a second pass.
  select o.at at time zone 'UTC', 1, v_reach.moving
  from fleet.occurrences(p_recurrence -> 'wall', p_from + v_reach.lowest, p_to + v_reach.high) as o(at)
  where v_is_second and v_reach.moving <> '{}';
end;
$$;

comment on function fleet.walls_within(jsonb, text[], timestamptz, timestamptz) is
  'The local occurrences that may be due in one of these zones within [p_from, p_to), some more at both ends, with the zones to look at.';
revoke all on function fleet.walls_within(jsonb, text[], timestamptz, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.local_occurrences(p_recurrence jsonb, p_zones text[], p_from timestamptz, p_to timestamptz)
returns table (local timestamp, fold integer, due_at timestamptz, last_at timestamptz, runs boolean)
language sql
stable
rows 5
set search_path = pg_catalog, pg_temp
as $$
  select w.local, w.fold, i.first_at, i.last_at, i.runs
  from fleet.walls_within(p_recurrence, fleet.different_zones(p_recurrence, p_zones, p_from, p_to), p_from, p_to) as w
  cross join lateral (
    select min(z.due_at) as first_at, max(z.due_at) as last_at, bool_or(z.refusal is null) as runs
    from fleet.zone_instants(p_recurrence, w.local, w.fold, w.zones) as z
  ) as i
  where i.first_at >= p_from and i.first_at < p_to
  order by i.first_at, w.local, w.fold
$$;

comment on function fleet.local_occurrences(jsonb, text[], timestamptz, timestamptz) is
  'The local occurrences that are first due in one of these zones within [p_from, p_to), with their last instant, and whether they run '
  'anywhere.';
revoke all on function fleet.local_occurrences(jsonb, text[], timestamptz, timestamptz) from public, anon, authenticated, service_role;
