-- Location events that wait for location policies: which of them are acted on together, and in which order. Devices of one policy go together.

create or replace function fleet.owners_waiting(p_limit integer)
returns table (owner_id uuid, first_id bigint)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- From one owner to the next by the index: it costs a probe for each of them, and one where nothing waits.
  with recursive waiting as (
    (
      select e.owner_id, e.id
      from public.location_events as e
      where e.acted_at is null
      order by e.owner_id, e.id
      limit 1
    )
    union all
    select n.owner_id, n.id
    from waiting as w
    cross join lateral (
      select e.owner_id, e.id
      from public.location_events as e
      where e.acted_at is null and e.owner_id > w.owner_id
      order by e.owner_id, e.id
      limit 1
    ) as n
  )
  select w.owner_id, w.id from waiting as w order by w.id limit p_limit
$$;

comment on function fleet.owners_waiting(integer) is
  'The owners that have location events that no location policy was asked about, each with its oldest; the one that waits longest first.';
revoke all on function fleet.owners_waiting(integer) from public, anon, authenticated, service_role;

create or replace function fleet.take_location_events(p_limit integer)
returns public.location_events[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owners uuid[];
  v_events public.location_events[];
begin
  select array_agg(w.owner_id order by w.first_id) into v_owners from fleet.owners_waiting(p_limit) as w;
  if v_owners is null then
    return '{}';
  end if;

  -- An equal share for each owner, so that the thousands of one never stand before the one of another. Events go with their
  -- device: one that is just being deleted is passed over, the others cannot go before this ends.
  select array_agg(t.event) into v_events
  from unnest(v_owners) as o(id)
  cross join lateral (
    select e as event
    from public.location_events as e
    where e.owner_id = o.id and e.acted_at is null
    order by e.id
    limit greatest(1, p_limit / cardinality(v_owners))
    for update skip locked
  ) as t;

  -- In a statement of its own, which sees what others have done meanwhile. What another session has not done yet of a device
  -- comes before what this one could do.
  return (
    with taken as materialized (
      select u.id, u.device_id, u as event from unnest(v_events) as u
    ),
    held as (
      select x.device_id, min(x.id) as id
      from (select t.device_id, max(t.id) as last_id from taken as t group by t.device_id) as l
      join public.location_events as x on x.device_id = l.device_id and x.acted_at is null and x.id < l.last_id
      where not exists (select 1 from taken as t where t.id = x.id)
      group by x.device_id
    )
    select coalesce(array_agg(t.event order by t.id), '{}')
    from taken as t
    left join held as h on h.device_id = t.device_id
    where h.id is null or t.id < h.id
  );
end;
$$;

comment on function fleet.take_location_events(integer) is
  'Lock location events that wait, at most p_limit, shared between the owners; of each device the oldest that wait, without a gap. What another '
  'session holds is passed over.';
revoke all on function fleet.take_location_events(integer) from public, anon, authenticated, service_role;

create or replace function fleet.location_policies_for(p_events public.location_events[])
returns table (event_id bigint, policy_id bigint, wave bigint)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select e.id, p.id, dense_rank() over (partition by e.device_id order by e.id) as wave
  from unnest(p_events) as e
  join public.devices as d on d.id = e.device_id and d.owner_id = e.owner_id and d.status = 'active'
  join public.location_policies as p
    on p.owner_id = e.owner_id
    and p.event = case e.event when 'entered' then 'enter' when 'left' then 'leave' else e.event end
    -- Nought stands for all locations: equality is looked up, "is not distinct from" is tried one by one.
    and coalesce(p.location_id, 0) = coalesce(e.location_id, 0)
    and p.is_enabled
    -- What happened before there was a location policy is past.
    and p.created_at <= e.created_at
  left join public.device_groups as g on g.id = p.group_id and g.owner_id = p.owner_id
  where (p.selector is null or fleet.device_matches(p.selector, d.tags, d.platform, d.attributes, d.reported))
    and (
      p.group_id is null
      or (g.selector is not null and fleet.device_matches(g.selector, d.tags, d.platform, d.attributes, d.reported))
      or exists (
        select 1 from public.device_group_members as m where m.group_id = p.group_id and m.device_id = d.id
      )
    )
  order by wave, p.priority desc, p.id, e.id
$$;

comment on function fleet.location_policies_for(public.location_events[]) is
  'The location policies that are for these events and their devices, in the order in which they act. Wave n holds the n-th of these events of '
  'each device, so that each device gets all in its own order, and devices that do the same get it together.';
revoke all on function fleet.location_policies_for(public.location_events[]) from public, anon, authenticated, service_role;

create or replace function fleet.location_turns(p_events public.location_events[], p_most_acts integer, p_most_turns integer)
returns table (turn bigint, policy_id bigint, events public.location_events[])
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with event as materialized (
    select u.id, u as event, min(u.id) over (partition by u.owner_id) as owner_first_id from unnest(p_events) as u
  ),
  acting as (
    select q.event_id, q.policy_id,
      -- Wave by wave; in a wave the owner that has waited longest first.
      dense_rank() over (order by q.wave, e.owner_first_id, p.priority desc, p.id) as turn
    from fleet.location_policies_for(p_events) as q
    join event as e on e.id = q.event_id
    join public.location_policies as p on p.id = q.policy_id
    -- A part of it may have been done before.
    where not exists (
      select 1 from public.location_actions as a where a.event_id = q.event_id and a.policy_id = q.policy_id
    )
  ),
  -- Cut where it gets too much for one transaction: whole events, of each device the first ones, and at least one.
  ranked as (
    select e.id,
      coalesce(max(a.turn), 0) as last_turn,
      row_number() over w as nr,
      sum(count(a.policy_id)) over w as acts
    from event as e
    left join acting as a on a.event_id = e.id
    group by e.id
    window w as (order by coalesce(max(a.turn), 0), e.id)
  )
  select coalesce(a.turn, 0), a.policy_id, array_agg(e.event order by e.id)
  from ranked as p
  join event as e on e.id = p.id
  left join acting as a on a.event_id = p.id
  where p.nr = 1 or (p.acts <= p_most_acts and p.last_turn <= p_most_turns)
  group by a.turn, a.policy_id
  order by coalesce(a.turn, 0)
$$;

comment on function fleet.location_turns(public.location_events[], integer, integer) is
  'Which location policy acts on which of these events together, in which order: at most p_most_acts acts on events, in p_most_turns '
  'turns; what does not fit is left out. Turn 0, without a location policy, has the events that none is for.';
revoke all on function fleet.location_turns(public.location_events[], integer, integer)
  from public, anon, authenticated, service_role;
