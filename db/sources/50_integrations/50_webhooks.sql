-- Secret addresses on which another system tells what happened there.

create or replace function fleet.create_integration_webhook(p_integration_id bigint, p_signed boolean)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_integration public.device_integrations := fleet.integration_of_caller(p_integration_id);
  v_token text := fleet.random_secret();
  v_path text := '/integration-webhook/' || v_token;
  v_key text;
  v_row public.integration_webhooks;
begin
  insert into public.integration_webhooks (owner_id, integration_id, token_hash, is_signed, created_by)
  values (
    v_integration.owner_id, v_integration.id, fleet.hash_secret(v_token), coalesce(p_signed, false), fleet.current_user_id()
  )
  returning * into v_row;
  if v_row.is_signed then
    v_key := 'whsec_' || replace(encode(decode(fleet.random_secret(), 'hex'), 'base64'), E'\n', '');
    insert into public.pg_cron_secrets (name, secret) values ('webhook:' || v_row.id, v_key);
  end if;
  return to_jsonb(v_row) - 'token_hash'
    || jsonb_build_object('token', v_token, 'path', v_path, 'url', (fleet.setting('functions_url') #>> '{}') || v_path)
    || jsonb_strip_nulls(jsonb_build_object('signing_secret', v_key));
end;
$$;

comment on function fleet.create_integration_webhook(bigint, boolean) is 'See public.create_integration_webhook. Definer: it checks the caller.';
revoke all on function fleet.create_integration_webhook(bigint, boolean) from public, anon, authenticated, service_role;
grant execute on function fleet.create_integration_webhook(bigint, boolean) to authenticated, service_role;

create or replace function public.create_integration_webhook(p_integration_id bigint, p_signed boolean default false)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.create_integration_webhook(p_integration_id, p_signed)
$$;

comment on function public.create_integration_webhook(bigint, boolean) is
  'Make a secret address on which the other system tells what happens there; shown this once. {id, token, path, url}; url is null while the '
  'setting functions_url is. With p_signed each message must be signed by Standard Webhooks with the signing_secret that is answered too. Others that were made before go on working until they are revoked. Raises integration_not_found (PT404) or '
  'permission_missing (PT403).';
revoke all on function public.create_integration_webhook(bigint, boolean) from public, anon, authenticated, service_role;
grant execute on function public.create_integration_webhook(bigint, boolean) to authenticated, service_role;

create or replace function fleet.revoke_integration_webhook(p_id bigint)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid;
begin
  select w.owner_id into v_owner
  from public.integration_webhooks as w
  where w.id = p_id and fleet.is_visible_owner(w.owner_id);
  if not found then
    perform fleet.raise_not_found(format('integration webhook %s', p_id));
  end if;
  perform fleet.require_permission(v_owner, 'manage', format('integration webhook %s', p_id));
  update public.integration_webhooks as w set revoked_at = now() where w.id = p_id and w.revoked_at is null;
  delete from public.pg_cron_secrets as s where s.name = 'webhook:' || p_id;
end;
$$;

comment on function fleet.revoke_integration_webhook(bigint) is 'See public.revoke_integration_webhook. Definer: it checks the caller.';
revoke all on function fleet.revoke_integration_webhook(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.revoke_integration_webhook(bigint) to authenticated, service_role;

create or replace function public.revoke_integration_webhook(p_id bigint)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.revoke_integration_webhook(p_id)
$$;

comment on function public.revoke_integration_webhook(bigint) is
  'Make the address of another system useless. Raises integration_webhook_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.revoke_integration_webhook(bigint) from public, anon, authenticated, service_role;
grant execute on function public.revoke_integration_webhook(bigint) to authenticated, service_role;

create or replace function fleet.worker_take_integration_webhook(
  p_token text,
  p_body jsonb,
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_webhook public.integration_webhooks;
  v_integration public.device_integrations;
  v_handler text;
  v_answer jsonb;
begin
  select w.* into v_webhook
  from public.integration_webhooks as w
  where w.token_hash = fleet.hash_secret(p_token) and w.revoked_at is null;
  if not found then
    raise exception 'there is no such webhook, or its address was revoked'
      using errcode = 'PT404',
            detail = 'integration_webhook_not_found',
            hint = 'Make a new address: select create_integration_webhook()';
  end if;
  perform fleet.refuse_mover(v_webhook.owner_id);

  -- They may come often; a write each time would be waste.
  update public.integration_webhooks as w
  set last_used_at = p_now
  where w.id = v_webhook.id and (w.last_used_at is null or w.last_used_at < p_now - interval '1 minute');
  select i.* into v_integration from public.device_integrations as i where i.id = v_webhook.integration_id;
  select h.function into v_handler from fleet.webhook_handlers as h where h.integration_type = v_integration.integration_type;
  if not found then
    return fleet.ignore_webhook(v_integration, p_now);
  end if;
  execute format('select %s($1, $2, $3)', v_handler) into v_answer using v_integration, p_body, p_now;
  return v_answer;
end;
$$;

comment on function fleet.worker_take_integration_webhook(text, jsonb, timestamptz) is
  'Take what another system tells on its secret address: by the function in fleet.webhook_handlers. {status, is_new}. Raises '
  'integration_webhook_not_found (PT404). Definer: the address alone says whose it is.';
revoke all on function fleet.worker_take_integration_webhook(text, jsonb, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.ignore_webhook(p_integration public.device_integrations, p_now timestamptz)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object('status', 'ignored', 'is_new', fleet.log_activity(p_integration, jsonb_build_object(
    'activity_type', 'webhook_received', 'status', 'ignored',
    'error', format('nothing is known of webhooks of %s', p_integration.integration_type)
  ), p_now) is not null)
$$;

comment on function fleet.ignore_webhook(public.device_integrations, timestamptz) is
  'Log a webhook of a system that is not understood.';
revoke all on function fleet.ignore_webhook(public.device_integrations, timestamptz) from public, anon, authenticated, service_role;
