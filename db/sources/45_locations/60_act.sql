-- Acting on what happens at a border: location events make schedules, which go the way of all others.

create or replace function fleet.name_for_location_events(p_policy public.location_policies, p_events public.location_events[])
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select concat_ws(' ',
    coalesce(nullif(p_policy.name, ''), concat_ws(' ', p_policy.action_type, p_policy.payload ->> 'profile_id')) || ':',
    case when n.is_one then d.hostname else cardinality(p_events) || ' devices' end,
    case e.event
      when 'outside_all' then case when n.is_one then 'is' else 'are' end || ' outside of all locations'
      when 'inside_any' then case when n.is_one then 'is' else 'are' end || ' inside a location again'
      else e.event || ' ' || e.location_name
    end
  )
  from (select cardinality(p_events) = 1 as is_one) as n
  -- The latest: the location may have been renamed.
  cross join lateral (select u.* from unnest(p_events) as u order by u.id desc limit 1) as e
  join public.devices as d on d.id = e.device_id
$$;

comment on function fleet.name_for_location_events(public.location_policies, public.location_events[]) is
  'What the schedule for these location events of one kind is called: who did what.';
revoke all on function fleet.name_for_location_events(public.location_policies, public.location_events[])
  from public, anon, authenticated, service_role;

create or replace function fleet.schedule_for_location_events(
  p_policy public.location_policies,
  p_events public.location_events[],
  p_now timestamptz
)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := least(p_now, clock_timestamp());
  v_schedule_id bigint;
begin
  insert into public.schedules (
    owner_id, name, description, action_type, payload, recurrence_type, start_time, device_ids, priority
  )
  select p_policy.owner_id, fleet.name_for_location_events(p_policy, p_events),
    case count(*)
      when 1 then format('Location policy %s, event %s, at %s.', p_policy.id, min(e.id), i.first_at)
      else format('Location policy %s, %s events, at %s to %s.', p_policy.id, count(*), i.first_at, i.last_at)
    end,
    p_policy.action_type, p_policy.payload, 'once', v_now, array_agg(e.device_id order by e.device_id), p_policy.priority
  from unnest(p_events) as e
  cross join (
    select to_char(min(u.at) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as first_at,
      to_char(max(u.at) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as last_at
    from unnest(p_events) as u
  ) as i
  group by i.first_at, i.last_at
  returning id into v_schedule_id;

  -- Whole and now, however many they are: what comes after it for one of these devices must find its command made.
  perform fleet.expand_runs(array[r.id], v_now, cardinality(p_events))
  from public.schedule_runs as r
  where r.schedule_id = v_schedule_id and r.expanded_at is null;
  return v_schedule_id;
end;
$$;

comment on function fleet.schedule_for_location_events(public.location_policies, public.location_events[], timestamptz) is
  'Make the schedule that a location policy wants for events of different devices: once, for all of them, due now, with their commands.';
revoke all on function fleet.schedule_for_location_events(public.location_policies, public.location_events[], timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.act_for_location_policy(
  p_policy public.location_policies,
  p_events public.location_events[],
  p_now timestamptz
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_schedule_id bigint;
  v_error text;
begin
  -- One location policy that is wrong by now, such as one whose command type is gone, must not stop the others.
  begin
    v_schedule_id := fleet.schedule_for_location_events(p_policy, p_events, p_now);
  exception
    when query_canceled or admin_shutdown or deadlock_detected then
      raise;
    when others then
      v_schedule_id := null;
      v_error := sqlerrm;
  end;
  insert into public.location_actions (event_id, policy_id, owner_id, schedule_id, error_message)
  select e.id, p_policy.id, e.owner_id, v_schedule_id, v_error
  from unnest(p_events) as e;
end;
$$;

comment on function fleet.act_for_location_policy(public.location_policies, public.location_events[], timestamptz) is
  'Let a location policy act on events of different devices whose rows are locked, and record for each what came of it.';
revoke all on function fleet.act_for_location_policy(public.location_policies, public.location_events[], timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.act_on_location_events(p_now timestamptz, p_limit integer default null)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- Compiling the plan would take longer than running it.
set jit = off
as $$
declare
  v_limit integer;
  v_events public.location_events[];
  v_turn record;
  v_policy public.location_policies;
  v_acted bigint[] := '{}';
  v_waiting bigint[] := '{}';
  v_count integer;
begin
  -- Nearly always nothing waits, and this is all that a tick pays.
  if not exists (select 1 from public.location_events as e where e.acted_at is null) then
    return 0;
  end if;

  -- As many rows as go into one transaction otherwise, and no more than take a part of a second.
  v_limit := coalesce(p_limit, least(fleet.chunk_size(), 2000));
  v_events := fleet.take_location_events(v_limit);
  if cardinality(v_events) = 0 then
    return 0;
  end if;

  for v_turn in select * from fleet.location_turns(v_events, v_limit, 25) loop
    v_acted := v_acted || array(select e.id from unnest(v_turn.events) as e);
    continue when v_turn.policy_id is null;
    if v_waiting <> '{}' then
      v_turn.events := array(select e from unnest(v_turn.events) as e where e.device_id <> all (v_waiting));
      continue when cardinality(v_turn.events) = 0;
    end if;

    select p.* into v_policy from public.location_policies as p where p.id = v_turn.policy_id for key share skip locked;
    if found then
      perform fleet.act_for_location_policy(v_policy, v_turn.events, p_now);
    else
      -- It is just being deleted, and whether it is will be seen; what these devices did since waits with it.
      v_waiting := v_waiting || array(select e.device_id from unnest(v_turn.events) as e);
    end if;
  end loop;

  update public.location_events as e
  set acted_at = p_now
  where e.id = any (v_acted) and e.device_id <> all (v_waiting);
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.act_on_location_events(timestamptz, integer) is
  'Let location policies act on events that wait, at most p_limit; by default as many as are expanded in one transaction. One schedule for each '
  'policy and wave, never one for each device. Answers how many events are done. Any number of sessions may do it at once.';
revoke all on function fleet.act_on_location_events(timestamptz, integer) from public, anon, authenticated, service_role;
