-- Commands of channel mdm, claimed by the function mdm-dispatch: sent, then watched until their effect shows.

create or replace function fleet.mdm_link(p_device_id bigint)
returns public.device_links
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select l.*
  from public.device_links as l
  join public.device_integrations as i on i.id = l.integration_id
  where l.device_id = p_device_id
    and l.left_at is null
    and i.integration_type = any (fleet.mdm_integration_types())
    and i.status <> 'disabled'
  -- A device that is in two of them belongs to the one that works.
  order by (i.status = 'active') desc, i.id
  limit 1
$$;

comment on function fleet.mdm_link(bigint) is 'The MDM that a device is in; no row where it is in none.';
revoke all on function fleet.mdm_link(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.is_behind_another(p_command public.device_commands)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- A push that is still on its way must not overtake the removal that follows it.
  select p_command.payload ? 'profile_id' and exists (
    select 1
    from public.device_commands as o
    left join fleet.mdm_work as w on w.command_id = o.id
    where o.device_id = p_command.device_id
      and o.id < p_command.id
      and o.channel = 'mdm'
      and o.status in ('pending', 'running')
      and o.payload -> 'profile_id' = p_command.payload -> 'profile_id'
      and w.accepted_at is null
  )
$$;

comment on function fleet.is_behind_another(public.device_commands) is
  'Whether an earlier command about the same profile and device has not reached the provider yet.';
revoke all on function fleet.is_behind_another(public.device_commands) from public, anon, authenticated, service_role;

create or replace function fleet.take_mdm_sends(p_integration_id bigint, p_limit integer, p_now timestamptz)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids bigint[];
  v_until timestamptz := p_now + make_interval(secs => fleet.setting_number('lease_seconds')::double precision);
begin
  select array_agg(k.id) into v_ids
  from (
    -- The lock keeps any number of functions from claiming the same one.
    select c.id
    from public.device_commands as c
    where c.status = 'pending'
      and c.channel = 'mdm'
      and c.not_before <= p_now
      and c.expires_at > p_now
      and exists (
        select 1 from public.device_links as l where l.device_id = c.device_id and l.integration_id = p_integration_id
      )
      and (select l.integration_id from fleet.mdm_link(c.device_id) as l) = p_integration_id
      and not exists (
        select 1 from public.device_commands as o where o.id = c.waits_for and o.status in ('pending', 'running')
      )
      and not fleet.is_behind_another(c)
    order by c.priority desc, c.id
    limit p_limit
    for update skip locked
  ) as k;
  if v_ids is null then
    return '{}';
  end if;

  update public.device_commands as c
  set status = 'running', attempt = c.attempt + 1, claimed_at = p_now, journal_id = null,
      -- The lease of the function is in mdm_work; this one is the MDM's as a whole, and outlives every settling.
      lease_expires_at = greatest(c.expires_at, p_now) + interval '2 hours'
  where c.id = any (v_ids);
  insert into fleet.mdm_work as w (command_id, integration_id, phase, held_until)
  select u.id, p_integration_id, 'send', v_until
  from unnest(v_ids) as u(id)
  on conflict (command_id) do update
    set integration_id = excluded.integration_id, phase = 'send', held_until = excluded.held_until, accepted_at = null,
        look_at = null, give_up_at = null;
  return v_ids;
end;
$$;

comment on function fleet.take_mdm_sends(bigint, integer, timestamptz) is
  'Lease the next commands of an integration that are to be sent, the most urgent first. Answers which.';
revoke all on function fleet.take_mdm_sends(bigint, integer, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.take_mdm_settles(p_integration_id bigint, p_limit integer, p_now timestamptz)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids bigint[];
begin
  select array_agg(k.id) into v_ids
  from (
    select c.id
    from fleet.mdm_work as w
    join public.device_commands as c on c.id = w.command_id and c.status = 'running'
    where w.integration_id = p_integration_id
      and w.phase = 'settle'
      and w.look_at <= p_now
      and (w.held_until is null or w.held_until <= p_now)
    order by w.look_at
    limit p_limit
    for update skip locked
  ) as k;
  if v_ids is null then
    return '{}';
  end if;

  update fleet.mdm_work as w
  set held_until = p_now + make_interval(secs => fleet.setting_number('lease_seconds')::double precision)
  where w.command_id = any (v_ids);
  update public.device_commands as c
  set attempt = c.attempt + 1
  where c.id = any (v_ids);
  return v_ids;
end;
$$;

comment on function fleet.take_mdm_settles(bigint, integer, timestamptz) is
  'Lease accepted commands whose device is to be looked at again. Answers which.';
revoke all on function fleet.take_mdm_settles(bigint, integer, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_claim_mdm(p_limit integer default 20, p_now timestamptz default clock_timestamp())
returns setof jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_integration_id bigint;
  v_left integer := least(greatest(p_limit, 1), 200);
  v_room integer;
  v_ids bigint[];
  v_taken bigint[] := '{}';
begin
  perform fleet.sweep_mdm(p_now);
  for v_integration_id in
    select i.id
    from public.device_integrations as i
    where i.status = 'active' and i.integration_type = any (fleet.mdm_integration_types())
    -- Nobody is always last.
    order by random()
  loop
    exit when v_left <= 0;
    v_room := least(v_left, fleet.rate_allowance(v_integration_id, p_now));
    continue when v_room <= 0;
    v_ids := fleet.take_mdm_sends(v_integration_id, v_room, p_now);
    v_room := v_room - cardinality(v_ids);
    if v_room > 0 then
      v_ids := v_ids || fleet.take_mdm_settles(v_integration_id, v_room, p_now);
    end if;
    v_taken := v_taken || v_ids;
    v_left := v_left - cardinality(v_ids);
  end loop;

  return query
  select jsonb_build_object(
    'command_id', c.id, 'attempt', c.attempt, 'phase', w.phase, 'command_type', c.command_type, 'payload', c.payload,
    'device_id', c.device_id, 'hostname', c.device_hostname, 'platform', d.platform, 'owner_id', c.owner_id,
    'external_id', l.external_id, 'attributes', l.attributes,
    'integration_id', i.id, 'integration_type', i.integration_type, 'settings', i.settings, 'secret', s.secret,
    'timeout_seconds', coalesce(t.timeout_seconds, 60), 'rerun_safe', coalesce(t.rerun_safe, false),
    'lease_expires_at', w.held_until, 'accepted_at', w.accepted_at, 'tries', w.tries, 'result', c.result,
    'expires_at', c.expires_at, 'priority', c.priority
  )
  from public.device_commands as c
  join fleet.mdm_work as w on w.command_id = c.id
  join public.device_integrations as i on i.id = w.integration_id
  join public.devices as d on d.id = c.device_id
  join public.device_links as l on l.device_id = c.device_id and l.integration_id = i.id
  left join public.command_types as t on t.name = c.command_type
  left join public.pg_cron_secrets as s on s.name = 'integration:' || i.id
  where c.id = any (v_taken)
  order by c.priority desc, c.id;
end;
$$;

comment on function fleet.worker_claim_mdm(integer, timestamptz) is
  'Lease commands for MDMs, as many as their rates let through now. Each is {command_id, attempt, phase, command_type, payload, device_id, '
  'hostname, platform, external_id, attributes, owner_id, integration_id, integration_type, settings, secret, timeout_seconds, rerun_safe, '
  'lease_expires_at, accepted_at, tries, …}; phase is send, or settle for one that was accepted and is to be observed. Definer: the worker '
  'reads no table.';
revoke all on function fleet.worker_claim_mdm(integer, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.sweep_mdm(p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_swept integer := 0;
  v_count integer;
begin
  -- A function that was killed in the middle: what may be repeated is, the rest is told and ends.
  with lapsed as (
    select w.command_id
    from fleet.mdm_work as w
    join public.device_commands as c on c.id = w.command_id and c.status = 'running'
    where w.phase = 'send' and w.held_until <= p_now
    limit 1000
    for update of w, c skip locked
  ),
  noted as (
    update fleet.mdm_work as w
    set held_until = null, tries = w.tries + 1
    from lapsed as l
    where w.command_id = l.command_id
  )
  update public.device_commands as c
  set status = case when coalesce(t.rerun_safe, false) then 'pending' else 'failed' end,
      reason = case when coalesce(t.rerun_safe, false) then 'lease_expired' else 'interrupted' end,
      error_message = case
        when not coalesce(t.rerun_safe, false) then 'the function stopped in the middle; the provider may have taken it'
      end,
      lease_expires_at = null
  from lapsed as l
  join public.device_commands as x on x.id = l.command_id
  left join public.command_types as t on t.name = x.command_type
  where c.id = l.command_id;
  get diagnostics v_count = row_count;
  v_swept := v_swept + v_count;

  update public.device_commands as c
  set status = 'failed', reason = 'unknown', executed_at = p_now,
      error_message = 'the provider took it, and nothing has shown since whether it was done'
  where c.status = 'running'
    and c.id in (
      select w.command_id
      from fleet.mdm_work as w
      where w.phase = 'settle' and w.look_at <= p_now and w.give_up_at <= p_now
    );
  get diagnostics v_count = row_count;
  v_swept := v_swept + v_count;

  update public.device_commands as c
  set status = 'failed', reason = 'no_mdm_link', executed_at = p_now,
      error_message = 'the device is in no MDM: make an integration and sync its devices'
  where c.id in (
    select x.id
    from public.device_commands as x
    where x.status = 'pending'
      and x.channel = 'mdm'
      and x.not_before <= p_now
      and not exists (
        select 1
        from public.device_links as l
        join public.device_integrations as i on i.id = l.integration_id
        where l.device_id = x.device_id and i.integration_type = any (fleet.mdm_integration_types()) and i.status <> 'disabled'
      )
    limit 1000
    for update skip locked
  );
  get diagnostics v_count = row_count;
  return v_swept + v_count;
end;
$$;

comment on function fleet.sweep_mdm(timestamptz) is
  'Offer again what a function did not answer for, give up what was never seen to happen, fail what is for devices in no MDM. Answers '
  'how many.';
revoke all on function fleet.sweep_mdm(timestamptz) from public, anon, authenticated, service_role;
