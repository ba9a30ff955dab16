-- Commands of channel mdm, claimed by the function mdm-dispatch: sent, then watched until their effect shows.

create or replace function fleet.run_due_mdm(p_now timestamptz)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.run_due(array_agg(d.id), p_now)
  from (
    select s.id
    from public.schedules as s
    where s.status = 'active'
      and s.next_run_at <= p_now
      and s.action_type in (select t.name from public.command_types as t where t.channel = 'mdm')
    order by s.next_run_at
    limit 100
  ) as d
  having count(*) > 0
$$;

comment on function fleet.run_due_mdm(timestamptz) is
  'Run schedules that an MDM carries out at their very instant, where a function is awake for it; else the next tick does.';
revoke all on function fleet.run_due_mdm(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.claim_of_mdm(p_integration_id bigint, p_limit integer, p_now timestamptz)
returns table (sends bigint[], looks bigint[], next_at timestamptz)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_bucket fleet.rate_limits;
  v_look_at timestamptz;
  v_room integer;
begin
  sends := '{}';
  looks := '{}';
  perform 1 from fleet.rate_limits as r where r.integration_id = p_integration_id and r.endpoint = '' for update skip locked;
  if not found and exists (select 1 from fleet.rate_limits as r where r.integration_id = p_integration_id and r.endpoint = '') then
    -- Another function is at it: waiting for its lock could end in a circle.
    next_at := p_now + interval '50 milliseconds';
    return next;
    return;
  end if;

  v_bucket := fleet.filled_rate(p_integration_id, p_now);
  next_at := fleet.next_call_at(v_bucket, p_now);
  if next_at > p_now then
    if not (fleet.has_due_mdm(p_integration_id, 'send', p_now) or fleet.has_due_mdm(p_integration_id, 'look', p_now)) then
      next_at := null;
    end if;
    return next;
    return;
  end if;

  -- However much is to be sent, what was sent is looked at as well, many devices by one call.
  v_look_at := case
    when fleet.has_due_mdm(p_integration_id, 'send', p_now) then v_bucket.looked_at + fleet.look_gap(v_bucket.rate)
    -- With nothing to send all of the rate is for looks; but a little later more of them go together.
    when v_bucket.looked_at > p_now then p_now
    else v_bucket.looked_at + least(fleet.look_gap(v_bucket.rate), interval '1 second')
  end;
  if coalesce(v_look_at <= p_now, true) then
    looks := fleet.take_mdm_looks(p_integration_id, 100, p_now);
  end if;
  v_room := least(floor(v_bucket.tokens)::integer - (looks <> '{}')::integer, p_limit);
  sends := fleet.take_mdm_sends(p_integration_id, v_room, p_now);

  v_bucket.tokens := v_bucket.tokens - (looks <> '{}')::integer - cardinality(sends);
  update fleet.rate_limits as r
  set rate = v_bucket.rate, refused_rate = v_bucket.refused_rate, tokens = v_bucket.tokens, filled_at = v_bucket.filled_at,
      looked_at = case when looks <> '{}' then p_now else r.looked_at end
  where r.integration_id = p_integration_id and r.endpoint = '';
  next_at := least(
    -- At a pace at which each claim brings some leave.
    case
      when cardinality(sends) = v_room then greatest(fleet.next_call_at(v_bucket, p_now), p_now + interval '100 milliseconds')
    end,
    case when looks = '{}' and fleet.has_due_mdm(p_integration_id, 'look', p_now) then v_look_at end
  );
  return next;
end;
$$;

comment on function fleet.claim_of_mdm(bigint, integer, timestamptz) is
  'Lease work of one integration, and take the leave for it: one call for each send, one for all looks together. next_at says when more '
  'could be claimed; null where nothing else waits.';
revoke all on function fleet.claim_of_mdm(bigint, integer, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.mdm_jobs(p_command_ids bigint[])
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_agg(jsonb_build_object(
    'command_id', c.id, 'attempt', c.attempt, 'command_type', c.command_type, 'payload', fleet.unsealed(c.owner_id, c.payload), 'device_id', c.device_id,
    'hostname', c.device_hostname, 'integration_id', w.integration_id, 'external_id', l.external_id, 'attributes', l.attributes,
    'lease_expires_at', w.held_until, 'accepted_at', w.accepted_at, 'unanswered_at', w.unanswered_at, 'result', c.result,
    'run_id', c.run_id, 'trace_id', fleet.trace_of(c.trace_id, c.owner_id, c.run_id, c.id)
  ) order by c.priority desc, c.id), '[]')
  from public.device_commands as c
  join fleet.mdm_work as w on w.command_id = c.id
  -- By now it may have left: then the provider says so.
  join public.device_links as l on l.device_id = c.device_id and l.integration_id = w.integration_id
  where c.id = any (p_command_ids)
$$;

comment on function fleet.mdm_jobs(bigint[]) is 'What a function has to know about the commands that it has leased.';
revoke all on function fleet.mdm_jobs(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.mdms_in_turn(p_shares jsonb, p_now timestamptz)
returns table (integration_id bigint, owner_id uuid)
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select t.id, t.owner_id
  from (
    select i.id, i.owner_id, row_number() over (partition by i.owner_id order by random()) as turn
    from public.device_integrations as i
    where i.status = 'active'
      and i.integration_type = any (fleet.mdm_integration_types())
      and fleet.share_of(p_shares, 'owner', i.owner_id::text) > 0
      and fleet.share_of(p_shares, 'way', i.id::text) > 0
      and (fleet.has_due_mdm(i.id, 'send', p_now) or fleet.has_due_mdm(i.id, 'look', p_now))
  ) as t
  -- Owners in turn, and nobody is always last.
  order by t.turn, random()
$$;

comment on function fleet.mdms_in_turn(jsonb, timestamptz) is
  'The MDMs that have work by now and that have a share left, in the order in which they get it: each owner''s first before anybody''s second.';
revoke all on function fleet.mdms_in_turn(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_claim_mdm(p_shares jsonb default '{}', p_now timestamptz default clock_timestamp())
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_next record;
  v_left integer := fleet.share_in_all(p_shares);
  v_rooms jsonb := '{}';
  v_room integer;
  v_taken integer;
  v_claim record;
  v_sends bigint[] := '{}';
  v_looks bigint[] := '{}';
  v_next_at timestamptz;
begin
  perform fleet.sweep_mdm(p_now);
  perform fleet.run_due_mdm(p_now);
  for v_next in
    select m.integration_id, m.owner_id from fleet.mdms_in_turn(p_shares, p_now) as m
  loop
    exit when v_left <= 0;
    v_room := coalesce(
      (v_rooms ->> v_next.owner_id::text)::integer, fleet.share_of(p_shares, 'owner', v_next.owner_id::text)
    );
    continue when v_room <= 0;
    select k.* into v_claim
    from fleet.claim_of_mdm(
      v_next.integration_id, least(v_left, v_room, fleet.share_of(p_shares, 'way', v_next.integration_id::text)), p_now
    ) as k;
    v_sends := v_sends || v_claim.sends;
    v_looks := v_looks || v_claim.looks;
    v_next_at := least(v_next_at, v_claim.next_at);
    v_taken := cardinality(v_claim.sends) + (v_claim.looks <> '{}')::integer;
    v_left := v_left - v_taken;
    v_rooms := v_rooms || jsonb_build_object(v_next.owner_id, v_room - v_taken);
  end loop;

  return jsonb_build_object(
    'sends', fleet.mdm_jobs(v_sends),
    'looks', fleet.mdm_jobs(v_looks),
    'wait', case
      when v_left <= 0 then 0
      else extract(epoch from least(v_next_at, fleet.next_mdm_schedule_at(p_now + interval '2 seconds')) - p_now)
    end,
    'integrations', (
      select coalesce(jsonb_object_agg(i.id, jsonb_build_object(
        'owner_id', i.owner_id, 'integration_type', i.integration_type, 'settings', i.settings, 'secret', s.secret
      )), '{}')
      from public.device_integrations as i
      left join lateral (select fleet.stored_secret('integration:' || i.id) as secret) as s on true
      where i.id in (select w.integration_id from fleet.mdm_work as w where w.command_id = any (v_sends || v_looks))
    )
  );
end;
$$;

comment on function fleet.worker_claim_mdm(jsonb, timestamptz) is
  'Lease commands for MDMs, as many as their rates let through now: owners in turn, as many of each owner and for each integration as '
  'p_shares allows, {all, owner, way, owners, ways}. {sends, looks, wait, integrations}. sends are to be handed over; looks were accepted, '
  'and their devices are to be looked at, those of one integration together. Each is {command_id, attempt, command_type, payload, device_id, '
  'hostname, integration_id, external_id, attributes, lease_expires_at, accepted_at, unanswered_at, result}. wait says after how many seconds '
  'more could be claimed, and is null where nothing else waits. integrations: id to {owner_id, integration_type, settings, secret}. Definer: '
  'the worker reads no table.';
revoke all on function fleet.worker_claim_mdm(jsonb, timestamptz) from public, anon, authenticated, service_role;
