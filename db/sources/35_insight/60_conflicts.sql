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
  with instant as materialized (
    select s.id, c.starts_at as at, c.zones
    from unnest(p_schedules) as s
    cross join lateral fleet.coming_runs(s, p_from, p_to, p_instants) as c
    where c.would = 'run'
  ),
  meeting as materialized (
    select a.id as a_id, b.id as b_id, a.at as a_at, b.at as b_at, a.zones as a_zones, b.zones as b_zones
    from instant as a
    join instant as b on b.at between a.at - p_within and a.at + p_within
    where (p_schedule_id is null and a.id < b.id) or (a.id = p_schedule_id and b.id <> p_schedule_id)
  ),
  reached as materialized (
    select s.id, t.device_id, t.hostname, coalesce(t.timezone, 'UTC') as zone
    from unnest(p_schedules) as s
    cross join lateral fleet.targets(s.owner_id, s.device_ids, s.group_ids, s.selector) as t
    where s.id in (select m.a_id from meeting as m union select m.b_id from meeting as m)
  ),
  -- In device time an instant reaches the devices of some zones only.
  shared as materialized (
    select k.a_id, k.b_id, k.a_zones, k.b_zones, a.device_id, a.hostname
    from (select distinct m.a_id, m.b_id, m.a_zones, m.b_zones from meeting as m) as k
    join reached as a on a.id = k.a_id and (k.a_zones is null or a.zone = any (k.a_zones))
    join reached as b on b.id = k.b_id and b.device_id = a.device_id and (k.b_zones is null or b.zone = any (k.b_zones))
  )
  select m.a_id, m.b_id, count(*), d.devices, min(m.a_at), min(m.b_at),
    (array_agg(distinct m.a_at))[1:3], d.hostnames
  from meeting as m
  join (select distinct s.a_id, s.b_id, s.a_zones, s.b_zones from shared as s) as k
    on k.a_id = m.a_id
    and k.b_id = m.b_id
    and k.a_zones is not distinct from m.a_zones
    and k.b_zones is not distinct from m.b_zones
  cross join lateral (
    select count(distinct s.device_id) as devices, (array_agg(distinct s.hostname))[1:3] as hostnames
    from shared as s
    where s.a_id = m.a_id and s.b_id = m.b_id
  ) as d
  group by m.a_id, m.b_id, d.devices, d.hostnames
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
  p_to timestamptz default now() + interval '7 days',
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
  select * from fleet.schedule_conflicts(p_schedule_id, p_from, p_to, p_within)
$$;

comment on function public.schedule_conflicts(bigint, timestamptz, timestamptz, interval) is
  'Pairs of active schedules that start on the same devices within p_within of each other, the most devices first: how often, on how '
  'many devices, with examples. Of one schedule with all others, or of all. Looks at the 300 schedules that are due soonest and at 100 '
  'runs of each. Raises schedule_not_found (PT404).';
revoke all on function public.schedule_conflicts(bigint, timestamptz, timestamptz, interval)
  from public, anon, authenticated, service_role;
grant execute on function public.schedule_conflicts(bigint, timestamptz, timestamptz, interval)
  to authenticated, service_role;
