-- Working on what was pushed: a batch of one integration at a time.

create or replace function fleet.take_inbox(p_integration public.device_integrations, p_limit integer)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  v_messages jsonb;
begin
  with taken as materialized (
    select x.*
    from (
      select w.id, w.external_id, w.path, w.at, w.digest, w.data, w.received_at,
        sum(pg_column_size(w.data)) over (order by w.id) - pg_column_size(w.data) as bytes_before
      from fleet.webhook_inbox as w
      where w.integration_id = p_integration.id and w.status = 'waiting'
      order by w.id
      limit p_limit
    ) as x
    -- A few that are large are a batch as well.
    where x.bytes_before < 8388608
  ),
  known as (
    select t.*, l.device_id
    from taken as t
    left join public.device_links as l
      on l.integration_id = p_integration.id and l.external_id = t.external_id and l.left_at is null
  ),
  aside as (
    update fleet.webhook_inbox as w
    set status = 'aside'
    from known as k
    where k.device_id is null and w.id = k.id
    returning w.id
  )
  select jsonb_build_object(
    'messages', coalesce(
      jsonb_agg(jsonb_build_array(k.id, k.device_id, k.path, k.at, k.received_at, k.digest, k.data) order by k.id)
        filter (where k.device_id is not null), '[]'
    ),
    'aside', (select count(*) from aside),
    'aside_of', coalesce((
      select jsonb_agg(x.external_id)
      from (select distinct n.external_id from known as n where n.device_id is null order by 1 limit 20) as x
    ), '[]')
  ) into v_messages
  from known as k;
  return v_messages;
end;
$$;

comment on function fleet.take_inbox(public.device_integrations, integer) is
  'The oldest messages that wait, [[id, device_id, path, at, received_at, digest, data]]; those of devices that we do not know are put aside.';
revoke all on function fleet.take_inbox(public.device_integrations, integer) from public, anon, authenticated, service_role;

create or replace function fleet.worker_claim_inbox(p_shares jsonb default '{}', p_now timestamptz default clock_timestamp())
returns setof jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_integration public.device_integrations;
begin
  for v_integration in
    select i.*
    from (
      select x.id, x.owner_id, row_number() over (partition by x.owner_id order by random()) as turn
      from public.device_integrations as x
      join fleet.golioth_syncs as g on g.integration_id = x.id
      where fleet.share_of(p_shares, 'way', x.id::text) > 0
        and coalesce(g.inbox_held_until <= p_now, true)
        and exists (select 1 from fleet.webhook_inbox as w where w.integration_id = x.id and w.status = 'waiting')
    ) as d
    join public.device_integrations as i on i.id = d.id
    where d.turn <= fleet.share_of(p_shares, 'owner', d.owner_id::text)
    order by d.turn, random()
    limit fleet.share_in_all(p_shares)
  loop
    update fleet.golioth_syncs as g
    set inbox_held_until = p_now + interval '30 seconds'
    where g.integration_id in (
      select x.integration_id
      from fleet.golioth_syncs as x
      where x.integration_id = v_integration.id and coalesce(x.inbox_held_until <= p_now, true)
      for update skip locked
    );
    if found then
      return next jsonb_build_object(
        'integration_id', v_integration.id, 'owner_id', v_integration.owner_id, 'held_until', p_now + interval '30 seconds',
        'keep_days', fleet.setting_number('telemetry_days')
      ) || fleet.take_inbox(v_integration, 5000);
    end if;
  end loop;
end;
$$;

comment on function fleet.worker_claim_inbox(jsonb, timestamptz) is
  'Lease what was pushed to integrations, for half a minute, 5,000 messages of each: {integration_id, owner_id, held_until, keep_days, messages: '
  '[[id, device_id, path, at, received_at, digest, data]], aside, aside_of}; owners in turn. Definer: the worker reads no table.';
revoke all on function fleet.worker_claim_inbox(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_finish_inbox(
  p_integration_id bigint,
  p_held_until timestamptz,
  p_report jsonb,
  p_now timestamptz default clock_timestamp()
)
returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_integration public.device_integrations;
begin
  select i.* into v_integration from public.device_integrations as i where i.id = p_integration_id;
  update fleet.golioth_syncs as g
  set inbox_held_until = null
  where g.integration_id = p_integration_id and g.inbox_held_until = p_held_until;
  if not found then
    return false;
  end if;

  with ended as (
    update fleet.webhook_inbox as w
    set status = 'done', data = null, finished_at = p_now
    where w.id = any (array(select e.id::bigint from jsonb_array_elements_text(p_report -> 'ids') as e(id)))
      and w.integration_id = p_integration_id
      and w.status = 'waiting'
    returning w.external_id, w.received_at
  ),
  heard as (
    select l.device_id, max(e.received_at) as at
    from ended as e
    join public.device_links as l on l.integration_id = p_integration_id and l.external_id = e.external_id
    group by l.device_id
  )
  update public.devices as d
  set last_seen = h.at
  from (select x.* from heard as x order by x.device_id) as h
  where d.id = h.device_id and coalesce(d.last_seen, '-infinity') < h.at;

  if p_report ->> 'error' is not null or (p_report #>> '{counts,messages}')::integer > 0 then
    perform fleet.log_activity(v_integration, jsonb_build_object(
      'activity_type', 'webhook_received',
      'status', case when p_report ->> 'error' is null then 'completed' else 'failed' end,
      'counts', p_report -> 'counts', 'duration_ms', p_report -> 'duration_ms', 'error', p_report -> 'error',
      'detail', coalesce(p_report -> 'detail', '{}')
    ), p_now);
  end if;
  return true;
end;
$$;

comment on function fleet.worker_finish_inbox(bigint, timestamptz, jsonb, timestamptz) is
  'The points of messages are stored: {ids, counts, duration_ms, detail, error}. Ends the lease and logs webhook_received; false where another '
  'function has the lease by now. Definer: the worker writes no table.';
revoke all on function fleet.worker_finish_inbox(bigint, timestamptz, jsonb, timestamptz) from public, anon, authenticated, service_role;
