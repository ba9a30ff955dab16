-- Mailboxes: whoever reads one says that it wants to be told, by a code that was sent there.

create or replace function fleet.send_mailbox_code(p_endpoint public.webhook_endpoints, p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if not fleet.take_quota(p_endpoint.owner_id, 'mailbox_codes_a_day', 1, p_now) then
    perform fleet.raise_quota(
      'mailbox_codes_a_day', fleet.quota_of(p_endpoint.owner_id, 'mailbox_codes_a_day'),
      fleet.quota_of(p_endpoint.owner_id, 'mailbox_codes_a_day')
    );
  end if;
  insert into fleet.mailbox_codes as c (endpoint_id, owner_id, code)
  values (p_endpoint.id, p_endpoint.owner_id, upper(substr(fleet.random_secret(), 1, 16)))
  on conflict (endpoint_id) do update set code = excluded.code, created_at = now();
  insert into public.webhook_deliveries (endpoint_id, owner_id, event_id, event, payload, next_attempt_at)
  values (
    p_endpoint.id, p_endpoint.owner_id, 'evt_' || replace(gen_random_uuid()::text, '-', ''), 'webhook.verify',
    fleet.event_payload(
      'webhook.verify',
      jsonb_build_object(
        'endpoint_id', p_endpoint.id,
        'message', 'Somebody wants messages of pgfleet to come here. If that is you, enter the code; if not, nothing more comes.'
      ),
      p_now
    ),
    p_now
  );
end;
$$;

comment on function fleet.send_mailbox_code(public.webhook_endpoints, timestamptz) is
  'Send a mailbox a new code; a few a day for an owner. Raises quota_exceeded (PT429).';
revoke all on function fleet.send_mailbox_code(public.webhook_endpoints, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.with_mailbox_code(p_event text, p_endpoint_id bigint, p_payload jsonb)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_event <> 'webhook.verify' then
    return p_payload;
  end if;
  return jsonb_set(p_payload, '{data,code}', coalesce(
    (select to_jsonb(c.code) from fleet.mailbox_codes as c where c.endpoint_id = p_endpoint_id), 'null'
  ));
end;
$$;

comment on function fleet.with_mailbox_code(text, bigint, jsonb) is
  'A message as it leaves: the code stands in what is sent, and in nothing that a member reads.';
revoke all on function fleet.with_mailbox_code(text, bigint, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.verify_webhook_endpoint(p_endpoint_id bigint, p_code text, p_now timestamptz)
returns public.webhook_endpoints
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.webhook_endpoints := fleet.endpoint_of_caller(p_endpoint_id);
begin
  if v_row.verified_at is not null then
    return v_row;
  end if;
  delete from fleet.mailbox_codes as c where c.endpoint_id = p_endpoint_id and c.code = upper(btrim(p_code));
  if not found then
    raise exception 'this is not the code that was sent to the mailbox'
      using errcode = 'PT422', detail = 'mailbox_code_invalid',
            hint = format('Have another one sent: select test_webhook_endpoint(%s)', p_endpoint_id);
  end if;
  update public.webhook_endpoints as e set verified_at = p_now where e.id = p_endpoint_id returning * into v_row;
  return v_row;
end;
$$;

comment on function fleet.verify_webhook_endpoint(bigint, text, timestamptz) is 'See public.verify_webhook_endpoint. Definer: it checks the caller.';
revoke all on function fleet.verify_webhook_endpoint(bigint, text, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.verify_webhook_endpoint(bigint, text, timestamptz) to authenticated, service_role;

create or replace function public.verify_webhook_endpoint(p_endpoint_id bigint, p_code text)
returns public.webhook_endpoints
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.verify_webhook_endpoint(p_endpoint_id, p_code, clock_timestamp())
$$;

comment on function public.verify_webhook_endpoint(bigint, text) is
  'Enter the code that was sent to a mailbox, which is told of events from then on. Raises webhook_endpoint_not_found (PT404), '
  'permission_missing (PT403) or mailbox_code_invalid (PT422).';
revoke all on function public.verify_webhook_endpoint(bigint, text) from public, anon, authenticated, service_role;
grant execute on function public.verify_webhook_endpoint(bigint, text) to authenticated, service_role;
