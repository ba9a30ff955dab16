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
