-- Acting on places: an event makes schedules, which go the way of all others.

create or replace function fleet.policies_for_event(p_event public.location_events)
returns setof public.location_policies
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select p.*
  from public.location_policies as p
  join public.devices as d on d.id = p_event.device_id and d.owner_id = p.owner_id and d.status = 'active'
  left join public.device_groups as g on g.id = p.group_id and g.owner_id = p.owner_id
  where p.owner_id = p_event.owner_id
    and p.is_enabled
    -- What happened before there was a policy is past.
    and p.created_at <= p_event.created_at
    and p.event = case p_event.event when 'entered' then 'enter' when 'left' then 'leave' else p_event.event end
    and p.location_id is not distinct from p_event.location_id
    and (p.selector is null or fleet.device_matches(p.selector, d.tags, d.platform, d.attributes))
    and (
      p.group_id is null
      or (g.selector is not null and fleet.device_matches(g.selector, d.tags, d.platform, d.attributes))
      or exists (
        select 1 from public.device_group_members as m where m.group_id = p.group_id and m.device_id = d.id
      )
    )
  order by p.priority desc, p.id
$$;

comment on function fleet.policies_for_event(public.location_events) is
  'The policies of the owner that are for such an event and for its device, in the order in which they act.';
revoke all on function fleet.policies_for_event(public.location_events) from public, anon, authenticated, service_role;

create or replace function fleet.schedule_for_event(p_event public.location_events, p_policy public.location_policies, p_now timestamptz)
returns bigint
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  insert into public.schedules (
    owner_id, name, description, action_type, payload, recurrence_type, start_time, device_ids, priority
  )
  select p_event.owner_id,
    concat_ws(' ',
      coalesce(nullif(p_policy.name, ''), concat_ws(' ', p_policy.action_type, p_policy.payload ->> 'profile_id')) || ':',
      d.hostname,
      case p_event.event
        when 'outside_all' then 'is outside of all locations'
        when 'inside_any' then 'is inside a location again'
        else p_event.event || ' ' || p_event.location_name
      end
    ),
    format('Location policy %s, event %s, at %s.', p_policy.id, p_event.id,
      to_char(p_event.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')),
    p_policy.action_type, p_policy.payload, 'once', least(p_now, clock_timestamp()), array[p_event.device_id], p_policy.priority
  from public.devices as d
  where d.id = p_event.device_id
  returning id
$$;

comment on function fleet.schedule_for_event(public.location_events, public.location_policies, timestamptz) is
  'Make the schedule that a policy wants for an event: once, for the device, due now.';
revoke all on function fleet.schedule_for_event(public.location_events, public.location_policies, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.act_on_event(p_event public.location_events, p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_policy public.location_policies;
  v_schedule_id bigint;
  v_error text;
  v_count integer := 0;
begin
  for v_policy in select * from fleet.policies_for_event(p_event) loop
    -- One policy that is wrong by now, such as one whose command type is gone, must not stop the others.
    begin
      v_error := null;
      v_schedule_id := fleet.schedule_for_event(p_event, v_policy, p_now);
    exception when others then
      v_schedule_id := null;
      v_error := sqlerrm;
    end;
    insert into public.location_actions (event_id, policy_id, owner_id, schedule_id, error_message)
    values (p_event.id, v_policy.id, p_event.owner_id, v_schedule_id, v_error);
    v_count := v_count + 1;
  end loop;
  update public.location_events as e set acted_at = p_now where e.id = p_event.id;
  return v_count;
end;
$$;

comment on function fleet.act_on_event(public.location_events, timestamptz) is
  'Let each policy act on an event whose row is locked, and record what came of it. Answers how many did.';
revoke all on function fleet.act_on_event(public.location_events, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.act_on_places(p_now timestamptz, p_limit integer default 100)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_event public.location_events;
  v_count integer := 0;
begin
  for v_event in
    select e.*
    from public.location_events as e
    where e.acted_at is null
    order by e.id
    limit p_limit
    for update skip locked
  loop
    perform fleet.act_on_event(v_event, p_now);
    v_count := v_count + 1;
  end loop;
  return v_count;
end;
$$;

comment on function fleet.act_on_places(timestamptz, integer) is
  'Let policies act on the events that wait, the oldest first. Answers how many events. Any number of sessions may do it at once.';
revoke all on function fleet.act_on_places(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.note_lost_positions(p_now timestamptz, p_limit integer default 1000)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_stale_after interval := fleet.stale_position_after();
  v_count integer;
begin
  with lost as (
    update public.device_positions as p
    set lost_at = p.fix_at + v_stale_after
    where p.device_id in (
      select x.device_id
      from public.device_positions as x
      where x.lost_at is null and x.fix_at < p_now - v_stale_after
      order by x.fix_at
      limit p_limit
      for update skip locked
    )
    returning p.device_id, p.owner_id, p.fix_at, p.lost_at
  )
  insert into public.location_events (owner_id, device_id, event, at, fix_at, acted_at)
  select l.owner_id, l.device_id, 'position_lost', l.lost_at, l.fix_at, p_now
  from lost as l
  on conflict do nothing;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.note_lost_positions(timestamptz, integer) is
  'Record devices whose latest fix is older than the setting stale_position_hours: their position is unknown, their places stay as they were.';
revoke all on function fleet.note_lost_positions(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.prune_location_events(p_before timestamptz, p_limit integer default 1000)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  delete from public.location_events as e
  where e.id in (
    select x.id
    from public.location_events as x
    where x.created_at < p_before and x.acted_at is not null
    order by x.created_at
    limit p_limit
  );
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.prune_location_events(timestamptz, integer) is 'Delete a batch of old events that policies have acted on. Answers how many.';
revoke all on function fleet.prune_location_events(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.tend_places(p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.note_lost_positions(p_now);
  perform fleet.prune_location_events(p_now - make_interval(days => fleet.setting_number('history_days')::integer));
  return fleet.act_on_places(p_now);
end;
$$;

comment on function fleet.tend_places(timestamptz) is
  'What each tick does about places: note positions that are lost, act on events that wait, prune old ones. Answers how many were acted on.';
revoke all on function fleet.tend_places(timestamptz) from public, anon, authenticated, service_role;
