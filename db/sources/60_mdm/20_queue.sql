-- The queue of each MDM: the commands that are to be sent, and the accepted ones whose devices are to be looked at.

create or replace function fleet.take_mdm_sends(p_integration_id bigint, p_limit integer, p_now timestamptz)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids bigint[];
begin
  if p_limit <= 0 then
    return '{}';
  end if;

  select coalesce(array_agg(k.id), '{}') into v_ids
  from (
    -- The lock keeps any number of functions from claiming the same one.
    select c.id
    from fleet.mdm_work as w
    join public.device_commands as c on c.id = w.command_id
    where w.integration_id = p_integration_id
      and w.phase = 'send'
      and w.held_until is null
      and w.due_at <= p_now
      and c.status = 'pending'
      and c.expires_at > p_now
      and not exists (
        select 1 from public.device_commands as o where o.id = c.waits_for and o.status in ('pending', 'running')
      )
      and not fleet.is_behind_another(w, c.payload)
    order by w.priority desc, w.command_id
    limit p_limit
    for update of c, w skip locked
  ) as k;

  update public.device_commands as c
  set status = 'running', attempt = c.attempt + 1, claimed_at = p_now, journal_id = null,
      -- The lease of the function is in mdm_work; this one is the MDM's as a whole, and outlives every look.
      lease_expires_at = greatest(c.expires_at, p_now) + interval '2 hours'
  where c.id = any (v_ids);
  perform fleet.hold_mdm(v_ids, p_now);
  return v_ids;
end;
$$;

comment on function fleet.take_mdm_sends(bigint, integer, timestamptz) is
  'Lease the next commands of an integration that are to be sent, the most urgent first. Answers which.';
revoke all on function fleet.take_mdm_sends(bigint, integer, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.take_mdm_looks(p_integration_id bigint, p_limit integer, p_now timestamptz)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids bigint[];
begin
  select coalesce(array_agg(k.command_id), '{}') into v_ids
  from (
    select w.command_id
    from fleet.mdm_work as w
    where w.integration_id = p_integration_id
      and w.phase = 'look'
      and w.held_until is null
      and w.due_at <= p_now
    order by w.due_at
    limit p_limit
    for update skip locked
  ) as k;
  perform fleet.hold_mdm(v_ids, p_now);
  return v_ids;
end;
$$;

comment on function fleet.take_mdm_looks(bigint, integer, timestamptz) is
  'Lease accepted commands whose devices are to be looked at again. Answers which.';
revoke all on function fleet.take_mdm_looks(bigint, integer, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.hold_mdm(p_command_ids bigint[], p_now timestamptz)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  update fleet.mdm_work as w
  set held_until = p_now + make_interval(secs => fleet.setting_number('lease_seconds')::double precision)
  where w.command_id = any (p_command_ids)
$$;

comment on function fleet.hold_mdm(bigint[], timestamptz) is 'Lease work to the function that claims it.';
revoke all on function fleet.hold_mdm(bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.is_behind_another(p_work fleet.mdm_work, p_payload jsonb)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- A push that is still on its way must not be overtaken by the removal that follows it.
  select p_payload ? 'profile_id' and exists (
    select 1
    from fleet.mdm_work as o
    join public.device_commands as c on c.id = o.command_id
    where o.device_id = p_work.device_id
      and o.command_id < p_work.command_id
      and o.accepted_at is null
      and c.payload -> 'profile_id' = p_payload -> 'profile_id'
  )
$$;

comment on function fleet.is_behind_another(fleet.mdm_work, jsonb) is
  'Whether an earlier command about the same profile and device has not reached the provider yet.';
revoke all on function fleet.is_behind_another(fleet.mdm_work, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.has_due_mdm(p_integration_id bigint, p_phase text, p_now timestamptz)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- The first by time is one look into the index, also where nothing is due among very many.
  select coalesce(
    (
      select w.due_at <= p_now
      from fleet.mdm_work as w
      where w.integration_id = p_integration_id and w.phase = p_phase and w.held_until is null
      order by w.due_at
      limit 1
    ),
    false
  )
$$;

comment on function fleet.has_due_mdm(bigint, text, timestamptz) is 'Whether anything waits to be sent, or to be looked at, by now.';
revoke all on function fleet.has_due_mdm(bigint, text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.next_mdm_schedule_at(p_before timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select min(s.next_run_at)
    from public.schedules as s
    where s.status = 'active'
      and s.next_run_at <= p_before
      and s.action_type in (select t.name from public.command_types as t where t.channel = 'mdm')
  );
end;
$$;

comment on function fleet.next_mdm_schedule_at(timestamptz) is
  'When the next schedule is due that an MDM carries out; null where none is until then.';
revoke all on function fleet.next_mdm_schedule_at(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.reroute_mdm(p_device_ids bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  update fleet.mdm_work as w
  set integration_id = m.integration_id
  from unnest(p_device_ids) as u(device_id)
  left join fleet.mdms_of(p_device_ids) as m on m.device_id = u.device_id
  where w.device_id = u.device_id
    and w.phase = 'send'
    and w.held_until is null
    and w.integration_id is distinct from m.integration_id
$$;

comment on function fleet.reroute_mdm(bigint[]) is
  'What waits for these devices goes to the MDM that they are in by now. What a function has begun stays where it is.';
revoke all on function fleet.reroute_mdm(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.follow_mdm_commands(p_waiting bigint[], p_ended bigint[])
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- Planned for each list of ids otherwise, which takes as long as all that is done for one.
set plan_cache_mode = force_generic_plan
as $$
declare
  v_unseen bigint[];
  v_schedules bigint[];
begin
  if p_waiting is not null then
    update fleet.mdm_work as w
    set phase = 'send', due_at = c.not_before, held_until = null, accepted_at = null, give_up_at = null
    from public.device_commands as c
    where c.id = any (p_waiting) and w.command_id = c.id;
  end if;
  if p_ended is null then
    return;
  end if;

  v_unseen := array(
    select c.id
    from public.device_commands as c
    where c.id = any (p_ended) and c.status <> 'completed' and c.command_type in ('push_profile', 'remove_profile')
  );
  if v_unseen <> '{}' then
    -- Taken, but never seen to be done: the device is as it was before, as far as anybody knows.
    update public.device_profiles as p
    set is_installed = c.command_type = 'remove_profile', changed_at = clock_timestamp()
    from public.device_commands as c
    join fleet.mdm_work as w on w.command_id = c.id and w.accepted_at is not null
    where c.id = any (v_unseen)
      and p.device_id = c.device_id
      and p.profile_id = c.payload ->> 'profile_id';
    select array_agg(c.schedule_id) into v_schedules
    from public.device_commands as c
    where c.id = any (v_unseen) and c.command_type = 'push_profile' and c.schedule_id is not null;
  end if;
  delete from fleet.mdm_work as w where w.command_id = any (p_ended);
  if v_schedules is not null then
    perform fleet.mark_failed_pushes(v_schedules);
  end if;
end;
$$;

comment on function fleet.follow_mdm_commands(bigint[], bigint[]) is
  'Keep the queue true to commands that change: those of p_waiting wait to be sent, until their time; forget those of p_ended, which are '
  'final, and mark the pushes that failed.';
revoke all on function fleet.follow_mdm_commands(bigint[], bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.queue_mdm_commands(p_command_ids bigint[], p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- Planned for each list of ids otherwise.
set plan_cache_mode = force_generic_plan
as $$
declare
  v_is_due boolean;
begin
  with made as (
    insert into fleet.mdm_work (command_id, owner_id, device_id, integration_id, priority, due_at)
    select c.id, c.owner_id, c.device_id, m.integration_id, c.priority, c.not_before
    from public.device_commands as c
    left join fleet.mdms_of(
      array(select x.device_id from public.device_commands as x where x.id = any (p_command_ids))
    ) as m on m.device_id = c.device_id
    where c.id = any (p_command_ids)
    returning due_at
  )
  select bool_or(w.due_at <= p_now) into v_is_due from made as w;

  if v_is_due and fleet.is_ticking() then
    perform fleet.poke_once_a_second('mdm-dispatch', p_now);
  elsif v_is_due then
    -- Without the turnstile: its row would be held until a person ends the transaction, and the ticks would wait for it.
    perform fleet.poke('mdm-dispatch', jsonb_build_object('at', p_now), p_now);
  end if;
end;
$$;

comment on function fleet.queue_mdm_commands(bigint[], timestamptz) is
  'Put new commands on the queue of the MDM that their device is in; what is due now does not wait for the tick.';
revoke all on function fleet.queue_mdm_commands(bigint[], timestamptz) from public, anon, authenticated, service_role;
