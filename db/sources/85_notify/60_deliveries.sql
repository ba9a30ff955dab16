-- Deliveries: claimed by the function notify-dispatch under a lease, tried again over a day, ended once.

create or replace function fleet.delivery_pause(p_failure_count integer)
returns interval
language sql
immutable
parallel safe
return (
  '{5 seconds,1 minute,5 minutes,30 minutes,2 hours,5 hours,8 hours,8 hours}'::interval[]
)[greatest(p_failure_count, 1)];

comment on function fleet.delivery_pause(integer) is
  'Pause after the n-th failure, a day in all; null where there is no attempt left.';
revoke all on function fleet.delivery_pause(integer) from public, anon, authenticated, service_role;

create or replace function fleet.worker_claim_deliveries(
  p_channel text default null,
  p_shares jsonb default '{}',
  p_now timestamptz default clock_timestamp()
)
returns table (
  owner_id uuid,
  endpoint_id bigint,
  delivery_id bigint,
  attempt integer,
  event text,
  event_id text,
  channel text,
  url text,
  email text,
  headers jsonb,
  body text,
  allow_private boolean
)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A lease that ended counts as a failure: a message that ends its function each time must not go on for ever.
  update public.webhook_deliveries as d
  set status = 'failed', next_attempt_at = null, finished_at = p_now, last_error = 'the function stopped in the middle'
  where d.status = 'running'
    and d.next_attempt_at <= p_now
    and fleet.delivery_pause(d.failure_count + 1) is null;

  return query
  with recursive waiting as (
    -- One look into the index for each endpoint, however much waits for it.
    (
      select d.endpoint_id as id
      from public.webhook_deliveries as d
      where d.status in ('pending', 'running')
      order by d.endpoint_id
      limit 1
    )
    union all
    select (
      select d.endpoint_id
      from public.webhook_deliveries as d
      where d.status in ('pending', 'running') and d.endpoint_id > w.id
      order by d.endpoint_id
      limit 1
    )
    from waiting as w
    where w.id is not null
  ),
  due as materialized (
    select e.owner_id, k.id, k.next_attempt_at
    from waiting as w
    join public.webhook_endpoints as e on e.id = w.id
    cross join lateral (
      -- The lock keeps any number of functions from claiming the same one.
      select d.id, d.next_attempt_at
      from public.webhook_deliveries as d
      where d.endpoint_id = w.id and d.status in ('pending', 'running') and d.next_attempt_at <= p_now
        and (e.channel <> 'email' or e.verified_at is not null or d.event = 'webhook.verify')
      order by d.next_attempt_at
      limit greatest(
        0,
        least(
          fleet.share_of(p_shares, 'way', e.id::text),
          fleet.share_of(p_shares, 'owner', e.owner_id::text),
          fleet.share_in_all(p_shares),
          -- Of all functions together: one receiver that is slow is not called ever more often.
          4 - (
            select count(*)
            from public.webhook_deliveries as r
            where r.endpoint_id = e.id and r.status = 'running' and r.next_attempt_at > p_now
          )
        )
      )
      for update skip locked
    ) as k
    where (p_channel is null or e.channel = p_channel) and fleet.share_of(p_shares, 'owner', e.owner_id::text) > 0
  ),
  chosen as (
    select t.id
    from (
      select d.owner_id, d.id, row_number() over (partition by d.owner_id order by d.next_attempt_at) as turn
      from due as d
    ) as t
    where t.turn <= fleet.share_of(p_shares, 'owner', t.owner_id::text)
    -- Owners in turn, and nobody is always last.
    order by t.turn, random()
    limit fleet.share_in_all(p_shares)
  ),
  taken as (
    update public.webhook_deliveries as d
    set status = 'running',
        attempts = d.attempts + 1,
        failure_count = d.failure_count + (d.status = 'running')::integer,
        last_attempt_at = p_now,
        next_attempt_at = p_now + interval '1 minute'
    from chosen as c
    where d.id = c.id
    returning d.*
  )
  select
    t.owner_id, t.endpoint_id, t.id, t.attempts, t.event, t.event_id, e.channel, e.url, e.email,
    fleet.webhook_headers(e.id, t.event_id, t.payload::text, p_now), fleet.with_mailbox_code(t.event, e.id, t.payload)::text,
    fleet.setting('webhook_allow_private') = 'true'::jsonb
  from taken as t
  join public.webhook_endpoints as e on e.id = t.endpoint_id;
end;
$$;

comment on function fleet.worker_claim_deliveries(text, jsonb, timestamptz) is
  'Lease due messages of a channel (of each, where it is null) for a minute, signed for this attempt: owners in turn, as many of each owner '
  'and for each endpoint as p_shares allows, {all, owner, way, owners, ways}. Definer: the worker reads no table, and never a secret.';
revoke all on function fleet.worker_claim_deliveries(text, jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_finish_delivery(
  p_delivery_id bigint,
  p_attempt integer,
  p_outcome text,
  p_status integer default null,
  p_error text default null,
  p_retry_after integer default null,
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.webhook_deliveries;
  v_pause interval;
begin
  select d.* into v_row from public.webhook_deliveries as d where d.id = p_delivery_id for update;
  if not found then
    return jsonb_build_object('accepted', false, 'reason', 'not_found');
  elsif v_row.status <> 'running' or v_row.attempts <> p_attempt then
    return jsonb_build_object('accepted', false, 'reason', 'stale_attempt');
  end if;

  if p_outcome = 'retry' then
    v_pause := fleet.delivery_pause(v_row.failure_count + 1);
    -- A tenth more or less, so that what failed together does not come back together; a receiver that asks for more time gets it.
    v_pause := greatest(
      v_pause * (0.9 + random() * 0.2),
      case when v_pause is not null then make_interval(secs => least(greatest(p_retry_after, 0), 86400)) end
    );
  end if;

  update public.webhook_deliveries as d
  set status = case when p_outcome = 'delivered' then 'delivered' when v_pause is not null then 'pending' else 'failed' end,
      failure_count = d.failure_count + (p_outcome <> 'delivered')::integer,
      next_attempt_at = p_now + v_pause,
      delivered_at = case when p_outcome = 'delivered' then p_now end,
      finished_at = case when v_pause is null then p_now end,
      last_status = p_status,
      last_error = left(p_error, 500)
  where d.id = p_delivery_id
  returning * into v_row;

  if p_outcome = 'gone' then
    update public.webhook_endpoints as e
    set enabled = false, disabled_reason = 'the receiver answered 410 Gone'
    where e.id = v_row.endpoint_id and e.enabled;
  end if;
  return jsonb_build_object('accepted', true, 'status', v_row.status, 'next_attempt_at', v_row.next_attempt_at);
end;
$$;

comment on function fleet.worker_finish_delivery(bigint, integer, text, integer, text, integer, timestamptz) is
  'Say how an attempt ended: delivered; retry (later, while there are attempts left); refused (never again); gone (410: refused, and '
  'the endpoint is disabled). {accepted, status, next_attempt_at} or {accepted: false, reason}. Definer: the worker writes no table.';
revoke all on function fleet.worker_finish_delivery(bigint, integer, text, integer, text, integer, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.poke_notify(p_now timestamptz default now())
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- The first by time is one look into the index, also where very many wait for a receiver that is away.
  return coalesce(
    (
      select d.next_attempt_at <= p_now
      from public.webhook_deliveries as d
      where d.status in ('pending', 'running')
      order by d.next_attempt_at
      limit 1
    ),
    false
  ) and fleet.poke_once_a_second('notify-dispatch', p_now);
end;
$$;

comment on function fleet.poke_notify(timestamptz) is
  'Poke notify-dispatch where a message is due, at most once a second. Answers whether it was poked; called by the tick.';
revoke all on function fleet.poke_notify(timestamptz) from public, anon, authenticated, service_role;
