-- Who leaves a rollout that is aborted, and who joins one that goes on.

create or replace function fleet.cancel_some(p_run_id bigint, p_before timestamptz, p_most integer)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_cancelled integer;
begin
  update public.device_commands as c
  set status = 'cancelled', reason = 'the rollout was aborted'
  where c.status = 'pending'
    and c.id = any (
      array(
        select x.id
        from public.device_commands as x
        where x.run_id = p_run_id and x.status = 'pending' and x.step = 0 and x.not_before < p_before
        limit p_most
      )
    );
  get diagnostics v_cancelled = row_count;
  return v_cancelled;
end;
$$;

comment on function fleet.cancel_some(bigint, timestamptz, integer) is
  'Cancel so many commands of an aborted rollout that no device has begun and that may start before an instant. Answers how many there were.';
revoke all on function fleet.cancel_some(bigint, timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.take_back(p_run_id bigint, p_now timestamptz)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  v_rollout public.rollouts;
  v_reached bigint;
  v_made integer;
begin
  select r.* into v_rollout from public.rollouts as r where r.run_id = p_run_id;
  update public.schedule_runs as r set expanded_at = p_now where r.id = p_run_id and r.expanded_at is null;
  -- First who had a turn and has not begun: anybody of them may begin at any moment.
  if coalesce(v_rollout.looked_at < v_rollout.aborted_at, true) and fleet.cancel_some(p_run_id, fleet.held_until(), 2000) = 2000 then
    return true;
  end if;
  with held as (
    delete from fleet.rollout_queue as q
    where q.ctid = any (array(select x.ctid from fleet.rollout_queue as x where x.run_id = p_run_id limit 2000))
    returning q.command_id
  )
  update public.device_commands as c
  set status = 'cancelled', reason = 'the rollout was aborted'
  where c.id = any (array(select h.command_id from held as h)) and c.status = 'pending';
  if exists (select 1 from fleet.rollout_queue as q where q.run_id = p_run_id) then
    return true;
  end if;
  -- And whoever came back from a device that began.
  if fleet.cancel_some(p_run_id, 'infinity', 2000) = 2000 then
    return true;
  end if;
  if v_rollout.restore_from is null then
    return false;
  end if;

  with had as materialized (
    select c.device_id, c.device_hostname, c.wave, c.schedule_id, c.owner_id, c.priority, c.max_attempts, c.result
    from public.device_commands as c
    where c.run_id = p_run_id and c.step = 0 and c.device_id > v_rollout.restore_from and c.status = 'completed'
    order by c.device_id
    limit 2000
  ),
  made as (
    insert into public.device_commands (
      run_id, schedule_id, owner_id, device_id, device_hostname, step, channel, command_type, payload, priority, not_before, expires_at,
      max_attempts, wave
    )
    select p_run_id, h.schedule_id, h.owner_id, h.device_id, h.device_hostname, 1, t.channel, t.name,
      coalesce(v_rollout.plan #> '{compensate,payload}', '{}'), h.priority, p_now, p_now + interval '7 days', h.max_attempts, h.wave
    from had as h
    join public.command_types as t
      on t.name = v_rollout.plan #>> '{compensate,action_type}' and coalesce(t.owner_id, h.owner_id) = h.owner_id
    -- Who had it before already keeps it.
    where coalesce(h.result ->> 'state', '') <> 'skipped'
    on conflict (run_id, device_id, step) where run_id is not null do nothing
    returning id
  ),
  counted as (
    update public.schedule_runs as r
    set targeted = r.targeted + (select count(*) from made)
    where r.id = p_run_id
  )
  select (select count(*) from made), case when (select count(*) from had) = 2000 then (select max(h.device_id) from had as h) end
  into v_made, v_reached;
  update public.rollouts as r
  set restore_from = v_reached, to_restore = r.to_restore + v_made
  where r.run_id = p_run_id;
  return v_reached is not null;
end;
$$;

comment on function fleet.take_back(bigint, timestamptz) is
  'End an aborted rollout for those who had no turn, and send the compensating action to those who have it. Answers whether there is more.';
revoke all on function fleet.take_back(bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.add_newcomers(p_run_id bigint, p_after bigint, p_now timestamptz)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  v_made integer;
  v_reached bigint;
begin
  with asked as materialized (
    select r.*, t.device_id, t.hostname, t.timezone
    from fleet.runs_to_expand(array[p_run_id], p_now) as r
    cross join lateral fleet.targets(r.owner_id, r.device_ids, r.group_ids, r.selector, coalesce(p_after, 0), 2000) as t
  ),
  made as (
    insert into public.device_commands (
      run_id, schedule_id, owner_id, device_id, device_hostname, channel, command_type, payload, priority, not_before, expires_at,
      max_attempts, wave
    )
    select a.id, a.schedule_id, a.owner_id, a.device_id, a.hostname, a.channel, a.command_type, a.payload, a.priority, fleet.held_until(),
      fleet.held_until(), a.max_attempts, fleet.wave_of(a.id, a.schedule_id, a.device_id)
    from asked as a
    where not exists (select 1 from public.device_commands as c where c.run_id = a.id and c.device_id = a.device_id and c.step = 0)
      and (a.zones is null or coalesce(a.timezone, 'UTC') = any (a.zones))
    on conflict (run_id, device_id, step) where run_id is not null do nothing
    returning id
  )
  select (select count(*) from made), (select max(a.device_id) from asked as a having count(*) >= 2000) into v_made, v_reached;
  -- So many at a time; after the last of them it rests for a minute.
  update public.rollouts as r
  set joined_to = v_reached, joined_at = case when v_reached is null then p_now else r.joined_at end
  where r.run_id = p_run_id;
  if v_made > 0 then
    update public.schedule_runs as r set targeted = r.targeted + v_made where r.id = p_run_id;
  end if;
  return v_reached is not null;
end;
$$;

comment on function fleet.add_newcomers(bigint, bigint, timestamptz) is
  'Take devices into a rollout that have become targets since it began, of the next 2,000 after p_after. Answers whether there are more to look at.';
revoke all on function fleet.add_newcomers(bigint, bigint, timestamptz) from public, anon, authenticated, service_role;
