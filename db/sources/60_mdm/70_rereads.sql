-- Devices of an MDM that are to be looked at again, because its webhook spoke of them. What it says is a hint: only what the
-- MDM answers when it is asked counts.

create or replace function fleet.simplemdm_hint(p_body jsonb)
returns table (event text, external_id text, is_known boolean, origin_key text, detail jsonb)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select g.event, g.external_id,
    g.event in ('device.enrolled', 'device.unenrolled', 'device.changed_group', 'device.lock.enabled', 'abm.device.added'),
    -- Without a time two that look alike may be two.
    case
      when g.at is not null
        then encode(sha256(convert_to(jsonb_build_array(g.event, g.at, coalesce(g.external_id, g.serial_number))::text, 'UTF8')), 'hex')
    end,
    jsonb_strip_nulls(jsonb_build_object(
      'event', g.event, 'at', g.at, 'external_id', g.external_id, 'serial_number', g.serial_number
    ))
  from (
    select left(b.body ->> 'type', 100) as event, left(b.body ->> 'at', 100) as at,
      -- It becomes part of an address.
      substring(b.body #>> '{data,device,id}' from '^\d{1,18}$') as external_id,
      left(b.body #>> '{data,device,serial_number}', 100) as serial_number
    from (select case jsonb_typeof(p_body) when 'object' then p_body else '{}' end as body) as b
  ) as g
$$;

comment on function fleet.simplemdm_hint(jsonb) is
  'What the body of a webhook of SimpleMDM speaks of: the event, the device where it has an id, and what the same webhook would have too.';
revoke all on function fleet.simplemdm_hint(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.take_simplemdm_hint(p_integration public.device_integrations, p_body jsonb, p_now timestamptz)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_hint record;
  v_status text;
  v_is_new boolean;
begin
  select h.*, coalesce(h.is_known, false) and p_integration.status <> 'disabled' as is_meant into v_hint
  from fleet.simplemdm_hint(p_body) as h;
  v_status := case when v_hint.is_meant then 'completed' else 'ignored' end;
  v_is_new := fleet.log_activity(p_integration, jsonb_build_object(
    'activity_type', 'webhook_received', 'status', v_status, 'origin_key', v_hint.origin_key, 'detail', v_hint.detail
  ), p_now) is not null;

  if v_is_new and v_hint.is_meant then
    if v_hint.external_id is null then
      update public.device_integrations as i set sync_requested_at = p_now where i.id = p_integration.id;
    else
      perform fleet.request_reread(p_integration.id, v_hint.external_id, p_now);
    end if;
    if fleet.has_mdm_work(p_now) then
      -- With the turnstile: nobody holds this transaction open, and many may come at once.
      perform fleet.poke_once_a_second('mdm-dispatch', p_now);
    end if;
  end if;
  return jsonb_build_object('status', v_status, 'is_new', v_is_new);
end;
$$;

comment on function fleet.take_simplemdm_hint(public.device_integrations, jsonb, timestamptz) is
  'Log a webhook of SimpleMDM, once, and ask for a look at its device; where it names none by id, for a sync. {status, is_new}.';
revoke all on function fleet.take_simplemdm_hint(public.device_integrations, jsonb, timestamptz)
  from public, anon, authenticated, service_role;

insert into fleet.webhook_handlers as h (integration_type, function) values ('simplemdm', 'fleet.take_simplemdm_hint')
on conflict (integration_type) do update set function = excluded.function where h.function <> excluded.function;

create or replace function fleet.request_reread(p_integration_id bigint, p_external_id text, p_now timestamptz)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  insert into fleet.mdm_rereads as r (integration_id, owner_id, external_id, asked_at, look_at)
  select i.id, i.owner_id, p_external_id, p_now,
    -- One look serves all that comes within a few seconds.
    greatest(p_now, (
      select greatest(l.seen_at, l.left_at) + interval '5 seconds'
      from public.device_links as l
      where l.integration_id = p_integration_id and l.external_id = p_external_id
    ))
  from public.device_integrations as i
  where i.id = p_integration_id
  on conflict (integration_id, external_id) do update
    set asked_at = excluded.asked_at
$$;

comment on function fleet.request_reread(bigint, text, timestamptz) is 'Have a device looked at again; once, however often it is asked for.';
revoke all on function fleet.request_reread(bigint, text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.has_mdm_rereads(p_integration_id bigint, p_now timestamptz)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select 1
    from fleet.mdm_rereads as r
    where r.integration_id = p_integration_id and r.look_at <= p_now and coalesce(r.held_until <= p_now, true)
  )
$$;

comment on function fleet.has_mdm_rereads(bigint, timestamptz) is 'Whether devices of an integration are to be looked at now.';
revoke all on function fleet.has_mdm_rereads(bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_claim_mdm_rereads(p_shares jsonb default '{}', p_now timestamptz default clock_timestamp())
returns setof jsonb
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  with due as materialized (
    select i.owner_id, k.integration_id, k.external_id, k.look_at
    from public.device_integrations as i
    cross join lateral (
      select r.integration_id, r.external_id, r.look_at
      from fleet.mdm_rereads as r
      where r.integration_id = i.id and r.look_at <= p_now and coalesce(r.held_until <= p_now, true)
      order by r.look_at
      limit greatest(
        0,
        least(
          fleet.share_of(p_shares, 'way', i.id::text), fleet.share_of(p_shares, 'owner', i.owner_id::text), fleet.share_in_all(p_shares)
        )
      )
      for update skip locked
    ) as k
    where i.status = 'active' and fleet.share_of(p_shares, 'owner', i.owner_id::text) > 0
  ),
  chosen as (
    select t.integration_id, t.external_id
    from (
      select d.*, row_number() over (partition by d.owner_id order by d.look_at) as turn
      from due as d
    ) as t
    where t.turn <= fleet.share_of(p_shares, 'owner', t.owner_id::text)
    -- Owners in turn, and nobody is always last.
    order by t.turn, random()
    limit fleet.share_in_all(p_shares)
  ),
  taken as (
    update fleet.mdm_rereads as r
    set held_until = p_now + interval '1 minute', tries = r.tries + 1
    from chosen as c
    where r.integration_id = c.integration_id and r.external_id = c.external_id
    returning r.*
  )
  select jsonb_build_object(
    'integration_id', i.id, 'owner_id', i.owner_id, 'integration_type', i.integration_type, 'settings', i.settings,
    'secret', s.secret, 'external_id', t.external_id, 'asked_at', t.asked_at, 'tries', t.tries
  )
  from taken as t
  join public.device_integrations as i on i.id = t.integration_id
  left join lateral (select fleet.stored_secret('integration:' || i.id) as secret) as s on true
$$;

comment on function fleet.worker_claim_mdm_rereads(jsonb, timestamptz) is
  'Lease devices that are to be looked at again, for a minute: {integration_id, owner_id, integration_type, settings, secret, external_id, '
  'asked_at, tries}; owners in turn, as many of each owner and integration as p_shares allows. worker_finish_mdm_reread ends the lease. '
  'Definer: the worker reads no table.';
revoke all on function fleet.worker_claim_mdm_rereads(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_finish_mdm_reread(
  p_claim jsonb,
  p_devices jsonb,
  p_error text default null,
  p_retry_after interval default null,
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_integration public.device_integrations;
  v_external_id text := p_claim ->> 'external_id';
  v_tries integer := (p_claim ->> 'tries')::integer;
  v_answer jsonb := '{}';
begin
  select i.* into v_integration from public.device_integrations as i where i.id = (p_claim ->> 'integration_id')::bigint for update;
  if not found then
    return jsonb_build_object('accepted', false, 'reason', 'not_found');
  end if;

  if p_error is null then
    v_answer := fleet.take_sightings(v_integration, p_devices, p_now);
    update public.device_links as l
    set left_at = p_now, updated_at = p_now
    where p_devices = '[]' and l.integration_id = v_integration.id and l.external_id = v_external_id and l.left_at is null;
  end if;
  delete from fleet.mdm_rereads as r
  where r.integration_id = v_integration.id
    and r.external_id = v_external_id
    -- Who asked while it was looked at wants another look.
    and (p_error is null and r.asked_at = (p_claim ->> 'asked_at')::timestamptz or p_error is not null and v_tries >= 8);
  update fleet.mdm_rereads as r
  set held_until = null,
      tries = case when p_error is null then 0 else r.tries end,
      look_at = p_now + case
        when p_error is null then interval '5 seconds'
        else greatest(p_retry_after, least(interval '10 seconds' * 2 ^ v_tries, interval '1 hour'))
      end
  where r.integration_id = v_integration.id and r.external_id = v_external_id and r.tries = v_tries;
  return jsonb_build_object('accepted', true) || v_answer;
end;
$$;

comment on function fleet.worker_finish_mdm_reread(jsonb, jsonb, text, interval, timestamptz) is
  'Tell what a look brought for what worker_claim_mdm_rereads gave: a list of the one device as for worker_sync_inventory, an empty one '
  'where the MDM has it no more, or an error; then it is looked at later, eight times at most. {accepted, created, updated, left, errors}. '
  'Definer: the worker writes no table.';
revoke all on function fleet.worker_finish_mdm_reread(jsonb, jsonb, text, interval, timestamptz)
  from public, anon, authenticated, service_role;
