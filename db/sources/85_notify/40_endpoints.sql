-- Endpoints: made, changed, tried out and removed by people; their secrets are shown once.

create or replace function fleet.endpoint_of_caller(p_endpoint_id bigint)
returns public.webhook_endpoints
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.webhook_endpoints;
begin
  select e.* into v_row
  from public.webhook_endpoints as e
  where e.id = p_endpoint_id and fleet.is_visible_owner(e.owner_id)
  -- Messages to it are written all the while.
  for no key update;
  if not found then
    perform fleet.raise_not_found(format('webhook endpoint %s', p_endpoint_id));
  end if;
  perform fleet.require_permission(v_row.owner_id, 'manage', format('webhook endpoint %s', p_endpoint_id));
  return v_row;
end;
$$;

comment on function fleet.endpoint_of_caller(bigint) is
  'The endpoint, locked, if the caller manages it. Raises webhook_endpoint_not_found (PT404) or permission_missing (PT403). Definer: it '
  'must see the row to tell.';
revoke all on function fleet.endpoint_of_caller(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.create_webhook_endpoint(p_spec jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.webhook_endpoints;
begin
  if jsonb_typeof(p_spec) is distinct from 'object' then
    raise exception 'an endpoint must be a JSON object'
      using errcode = 'PT422',
            detail = 'webhook_endpoint_invalid',
            hint = 'Example: {"url": "https://example.com/hooks", "events": ["run.failed"]}';
  end if;
  perform fleet.require_size('the endpoint', 'spec', p_spec);

  v_row.owner_id := fleet.owner_or_own(fleet.try_uuid(p_spec ->> 'owner_id'));
  perform fleet.require_permission(v_row.owner_id, 'manage', format('owner %s', v_row.owner_id));
  v_row.name := '';
  v_row.enabled := true;
  v_row.channel := case when p_spec ? 'email' and not p_spec ? 'url' then 'email' else 'webhook' end;
  -- A program can take a message for each command of a large fleet, a person cannot.
  v_row.events := case when v_row.channel = 'email' then '{run.failed,schedule.paused}' else '{*}' end;
  v_row := fleet.checked_endpoint(v_row, p_spec, '{name,channel,url,email,events,enabled,owner_id}');

  insert into public.webhook_endpoints as e (owner_id, name, channel, url, email, events, enabled, created_by)
  values (
    v_row.owner_id, v_row.name, v_row.channel, v_row.url, v_row.email, v_row.events, v_row.enabled, fleet.current_user_id()
  )
  returning * into v_row;

  return to_jsonb(v_row) || jsonb_build_object('secret', (
    select fleet.webhook_secret_text(s.key) from fleet.webhook_secrets as s where s.endpoint_id = v_row.id
  ));
end;
$$;

comment on function fleet.create_webhook_endpoint(jsonb) is 'See public.create_webhook_endpoint. Definer: it checks the caller.';
revoke all on function fleet.create_webhook_endpoint(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.create_webhook_endpoint(jsonb) to authenticated, service_role;

create or replace function public.create_webhook_endpoint(p_spec jsonb)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.create_webhook_endpoint(p_spec)
$$;

comment on function public.create_webhook_endpoint(jsonb) is
  'Be told of events: {"url": "https://…"} or {"email": "…"}, with events (["run.failed", "schedule.*"]; by default all, of a '
  'mailbox run.failed and schedule.paused), name, enabled, owner_id. Answers the row and, this once, "secret" (whsec_…), which '
  'verifies the signatures. Raises webhook_endpoint_invalid (PT422) naming every wrong field, or permission_missing (PT403).';
revoke all on function public.create_webhook_endpoint(jsonb) from public, anon, authenticated, service_role;
grant execute on function public.create_webhook_endpoint(jsonb) to authenticated, service_role;

create or replace function fleet.update_webhook_endpoint(p_endpoint_id bigint, p_changes jsonb)
returns public.webhook_endpoints
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.webhook_endpoints := fleet.endpoint_of_caller(p_endpoint_id);
begin
  if jsonb_typeof(p_changes) is distinct from 'object' then
    raise exception 'the changes of an endpoint must be a JSON object'
      using errcode = 'PT422', detail = 'webhook_endpoint_invalid', hint = 'Example: {"enabled": true}';
  end if;
  perform fleet.require_size('the changes', 'spec', p_changes);

  v_row := fleet.checked_endpoint(v_row, p_changes, '{name,url,email,events,enabled}');
  update public.webhook_endpoints as e
  set name = v_row.name, url = v_row.url, email = v_row.email, events = v_row.events, enabled = v_row.enabled
  where e.id = p_endpoint_id
  returning * into v_row;
  return v_row;
end;
$$;

comment on function fleet.update_webhook_endpoint(bigint, jsonb) is
  'See public.update_webhook_endpoint. Definer: it checks the caller.';
revoke all on function fleet.update_webhook_endpoint(bigint, jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.update_webhook_endpoint(bigint, jsonb) to authenticated, service_role;

create or replace function public.update_webhook_endpoint(p_endpoint_id bigint, p_changes jsonb)
returns public.webhook_endpoints
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.update_webhook_endpoint(p_endpoint_id, p_changes)
$$;

comment on function public.update_webhook_endpoint(bigint, jsonb) is
  'Change name, url, email, events or enabled. {"enabled": true} wakes one that answered 410. Raises webhook_endpoint_not_found '
  '(PT404), permission_missing (PT403) or webhook_endpoint_invalid (PT422).';
revoke all on function public.update_webhook_endpoint(bigint, jsonb) from public, anon, authenticated, service_role;
grant execute on function public.update_webhook_endpoint(bigint, jsonb) to authenticated, service_role;

create or replace function fleet.rotate_webhook_secret(p_endpoint_id bigint, p_keep interval, p_now timestamptz)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.webhook_endpoints := fleet.endpoint_of_caller(p_endpoint_id);
begin
  if v_row.channel <> 'webhook' then
    raise exception 'webhook endpoint % is a mailbox and has no secret', p_endpoint_id
      using errcode = 'PT409', detail = 'webhook_endpoint_without_secret', hint = 'Only messages by HTTP are signed.';
  elsif p_keep is null or p_keep < interval '0' or p_keep > interval '30 days' then
    raise exception 'p_keep must be an interval from 0 to 30 days'
      using errcode = 'PT422', detail = 'webhook_keep_invalid', hint = 'Example: ''1 day''; 0 ends the former secret at once.';
  end if;

  update fleet.webhook_secrets as s
  set expires_at = least(s.expires_at, p_now + p_keep)
  where s.endpoint_id = p_endpoint_id;
  delete from fleet.webhook_secrets as s where s.endpoint_id = p_endpoint_id and s.expires_at <= p_now;

  return jsonb_build_object(
    'id', p_endpoint_id,
    'secret', fleet.make_webhook_secret(p_endpoint_id),
    'former_expires_at', p_now + p_keep
  );
end;
$$;

comment on function fleet.rotate_webhook_secret(bigint, interval, timestamptz) is
  'See public.rotate_webhook_secret. Definer: it checks the caller.';
revoke all on function fleet.rotate_webhook_secret(bigint, interval, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.rotate_webhook_secret(bigint, interval, timestamptz) to authenticated, service_role;

create or replace function public.rotate_webhook_secret(p_endpoint_id bigint, p_keep interval default '1 day')
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.rotate_webhook_secret(p_endpoint_id, p_keep, now())
$$;

comment on function public.rotate_webhook_secret(bigint, interval) is
  'Make a new secret, shown this once; for the time of p_keep the former one signs too. {id, secret, former_expires_at}. Raises '
  'webhook_endpoint_not_found (PT404), permission_missing (PT403) or webhook_endpoint_without_secret (PT409).';
revoke all on function public.rotate_webhook_secret(bigint, interval) from public, anon, authenticated, service_role;
grant execute on function public.rotate_webhook_secret(bigint, interval) to authenticated, service_role;

create or replace function fleet.delete_webhook_endpoint(p_endpoint_id bigint)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.endpoint_of_caller(p_endpoint_id);
  delete from public.webhook_endpoints as e where e.id = p_endpoint_id;
end;
$$;

comment on function fleet.delete_webhook_endpoint(bigint) is
  'See public.delete_webhook_endpoint. Definer: it checks the caller.';
revoke all on function fleet.delete_webhook_endpoint(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.delete_webhook_endpoint(bigint) to authenticated, service_role;

create or replace function public.delete_webhook_endpoint(p_endpoint_id bigint)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.delete_webhook_endpoint(p_endpoint_id)
$$;

comment on function public.delete_webhook_endpoint(bigint) is
  'Remove an endpoint with its secret and its messages. Raises webhook_endpoint_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.delete_webhook_endpoint(bigint) from public, anon, authenticated, service_role;
grant execute on function public.delete_webhook_endpoint(bigint) to authenticated, service_role;

create or replace function public.webhook_endpoint_id(p_name text)
returns bigint
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.only_one(
    'webhook endpoint', p_name,
    array(select x.id::text from public.webhook_endpoints as x where lower(x.name) = lower(p_name) order by x.id),
    (select x.id::text from public.webhook_endpoints as x where x.id = fleet.try_bigint(p_name)), 'webhook'
  )::bigint
$$;

comment on function public.webhook_endpoint_id(text) is
  'The webhook endpoint that a name or an id means; a name in any case, and it wins over an id. Raises webhook_endpoint_not_found (PT404) or '
  'webhook_endpoint_ambiguous (PT409).';
revoke all on function public.webhook_endpoint_id(text) from public, anon, authenticated, service_role;
grant execute on function public.webhook_endpoint_id(text) to authenticated, service_role;
