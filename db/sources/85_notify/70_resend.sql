-- What people send by hand: a test, and what was sent before.

create or replace function fleet.test_webhook_endpoint(p_endpoint_id bigint, p_now timestamptz)
returns public.webhook_deliveries
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_endpoint public.webhook_endpoints := fleet.endpoint_of_caller(p_endpoint_id);
  v_row public.webhook_deliveries;
begin
  perform fleet.require_enabled(v_endpoint);
  if v_endpoint.channel = 'email' and v_endpoint.verified_at is null then
    -- All that a mailbox is sent before somebody reads it is one more code.
    perform fleet.send_mailbox_code(v_endpoint, p_now);
    select d.* into v_row from public.webhook_deliveries as d where d.endpoint_id = v_endpoint.id order by d.created_at desc, d.id desc limit 1;
    return v_row;
  end if;
  insert into public.webhook_deliveries as d (endpoint_id, owner_id, event_id, event, payload, next_attempt_at)
  values (
    v_endpoint.id, v_endpoint.owner_id, 'evt_' || replace(gen_random_uuid()::text, '-', ''), 'webhook.test',
    fleet.event_payload(
      'webhook.test',
      jsonb_build_object('endpoint_id', v_endpoint.id, 'name', v_endpoint.name, 'message', 'pgfleet reaches this endpoint'),
      p_now
    ),
    p_now
  )
  returning d.* into v_row;
  return v_row;
end;
$$;

comment on function fleet.test_webhook_endpoint(bigint, timestamptz) is
  'See public.test_webhook_endpoint. Definer: it checks the caller.';
revoke all on function fleet.test_webhook_endpoint(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.test_webhook_endpoint(bigint, timestamptz) to authenticated, service_role;

create or replace function public.test_webhook_endpoint(p_endpoint_id bigint)
returns public.webhook_deliveries
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.test_webhook_endpoint(p_endpoint_id, clock_timestamp())
$$;

comment on function public.test_webhook_endpoint(bigint) is
  'Send the event webhook.test to an endpoint, whatever it asks for; a mailbox that nobody verified is sent a new code. Answers the message, whose status tells what became of it. Raises '
  'webhook_endpoint_not_found (PT404), permission_missing (PT403) or webhook_endpoint_disabled (PT409).';
revoke all on function public.test_webhook_endpoint(bigint) from public, anon, authenticated, service_role;
grant execute on function public.test_webhook_endpoint(bigint) to authenticated, service_role;

create or replace function fleet.require_enabled(p_endpoint public.webhook_endpoints)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if not p_endpoint.enabled then
    raise exception 'webhook endpoint % is disabled', p_endpoint.id
      using errcode = 'PT409',
            detail = 'webhook_endpoint_disabled',
            hint = format('Enable it: select update_webhook_endpoint(%s, ''{"enabled": true}'')', p_endpoint.id);
  end if;
end;
$$;

comment on function fleet.require_enabled(public.webhook_endpoints) is 'Raise webhook_endpoint_disabled (PT409).';
revoke all on function fleet.require_enabled(public.webhook_endpoints) from public, anon, authenticated, service_role;

create or replace function fleet.redeliver(p_delivery_id bigint, p_now timestamptz)
returns public.webhook_deliveries
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_endpoint_id bigint;
  v_endpoint public.webhook_endpoints;
  v_row public.webhook_deliveries;
begin
  select d.endpoint_id into v_endpoint_id
  from public.webhook_deliveries as d
  where d.id = p_delivery_id and fleet.is_visible_owner(d.owner_id);
  if not found then
    perform fleet.raise_not_found(format('webhook delivery %s', p_delivery_id));
  end if;
  v_endpoint := fleet.endpoint_of_caller(v_endpoint_id);
  perform fleet.require_enabled(v_endpoint);

  update public.webhook_deliveries as d
  set status = 'pending', failure_count = 0, next_attempt_at = p_now, finished_at = null
  where d.id = p_delivery_id and d.status <> 'running'
  returning * into v_row;
  if not found then
    select d.* into v_row from public.webhook_deliveries as d where d.id = p_delivery_id;
  end if;
  return v_row;
end;
$$;

comment on function fleet.redeliver(bigint, timestamptz) is 'See public.redeliver. Definer: it checks the caller.';
revoke all on function fleet.redeliver(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.redeliver(bigint, timestamptz) to authenticated, service_role;

create or replace function public.redeliver(p_delivery_id bigint)
returns public.webhook_deliveries
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.redeliver(p_delivery_id, clock_timestamp())
$$;

comment on function public.redeliver(bigint) is
  'Send a message again, delivered or failed, under the same id; one that waits for its next attempt goes at once. Raises '
  'webhook_delivery_not_found (PT404), permission_missing (PT403) or webhook_endpoint_disabled (PT409).';
revoke all on function public.redeliver(bigint) from public, anon, authenticated, service_role;
grant execute on function public.redeliver(bigint) to authenticated, service_role;
