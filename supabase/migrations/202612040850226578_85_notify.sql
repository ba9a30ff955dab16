-- Generated from db/sources/85_notify by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/85_notify/10_events.sql
-- Events: what can happen, who wants to hear of it, and the outbox that they are written to.

create or replace function fleet.event_types()
returns table (name text, description text)
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  values
    ('run.completed', 'Every command of a run was carried out.'),
    ('run.failed', 'A run ended, and a command of it failed, expired or was cancelled.'),
    ('run.skipped', 'A due instant passed without a run; the reason is told.'),
    ('schedule.paused', 'A schedule was paused, by a person or because its runs failed.'),
    ('schedule.completed', 'A schedule has no due instant left.'),
    ('command.failed', 'A command failed for good.'),
    ('geo_action.failed', 'A device does not block what a geo schedule wants blocked now; the reason is told.'),
    ('device.cloned', 'Two agents use the secret of one device in turn, as a copied disk does.'),
    ('webhook.verify', 'Somebody wants a mailbox to be told: the code that says that it wants to be.'),
    ('webhook.test', 'Somebody asked for a message to try an endpoint out.')
$$;

comment on function fleet.event_types() is 'Every event that an endpoint may ask for by its name.';
revoke all on function fleet.event_types() from public, anon, authenticated, service_role;

create or replace function fleet.event_matches(p_patterns text[], p_event text)
returns boolean
language sql
immutable
parallel safe
return p_patterns && array['*', p_event, split_part(p_event, '.', 1) || '.*'];

comment on function fleet.event_matches(text[], text) is 'Whether an event is among those asked for: *, run.* or run.failed.';
revoke all on function fleet.event_matches(text[], text) from public, anon, authenticated, service_role;

create or replace function fleet.event_payload(p_event text, p_subject jsonb, p_now timestamptz)
returns jsonb
language sql
immutable
parallel safe
return jsonb_build_object(
  'type', p_event,
  'timestamp', to_char(p_now at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
  'data', p_subject
);

comment on function fleet.event_payload(text, jsonb, timestamptz) is 'The body of a message, as Standard Webhooks has it.';
revoke all on function fleet.event_payload(text, jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.emit_events(p_owner_ids uuid[], p_event text, p_subjects jsonb[])
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  with happened as materialized (
    select u.owner_id, u.subject, 'evt_' || replace(gen_random_uuid()::text, '-', '') as event_id
    from unnest(p_owner_ids, p_subjects) as u(owner_id, subject)
  )
  insert into public.webhook_deliveries (endpoint_id, owner_id, event_id, event, payload, next_attempt_at)
  select e.id, e.owner_id, h.event_id, p_event, fleet.event_payload(p_event, h.subject, clock_timestamp()), clock_timestamp()
  from happened as h
  join public.webhook_endpoints as e on e.owner_id = h.owner_id
  where e.enabled
    and (e.channel <> 'email' or e.verified_at is not null)
    and fleet.event_matches(e.events, p_event)
  -- An endpoint that is just being deleted must hold up neither the tick nor a device.
  for key share of e skip locked;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.emit_events(uuid[], text, jsonb[]) is
  'Tell every endpoint that wants it that something of one kind happened, once for each owner and subject (arrays of one length). '
  'Answers how many messages were written.';
revoke all on function fleet.emit_events(uuid[], text, jsonb[]) from public, anon, authenticated, service_role;

create or replace function fleet.is_anybody_listening()
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (select 1 from public.webhook_endpoints as e where e.enabled);
end;
$$;

comment on function fleet.is_anybody_listening() is 'Whether any endpoint of anybody is enabled: asked before anything is put together.';
revoke all on function fleet.is_anybody_listening() from public, anon, authenticated, service_role;

create or replace function fleet.tell_runs(p_run_ids bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.emit_events(
    array_agg(r.owner_id order by r.id),
    'run.' || r.status,
    array_agg(jsonb_build_object(
      'run_id', r.id,
      'schedule_id', r.schedule_id,
      'schedule_name', s.name,
      'action_type', coalesce(r.action_type, s.action_type),
      'scheduled_for', r.scheduled_for,
      'trigger', r.trigger,
      'status', r.status,
      'reason', r.reason,
      'error_message', r.error_message,
      'targeted', r.targeted,
      'completed', r.completed,
      'failed', r.failed,
      'missed_count', r.missed_count,
      'finished_at', r.finished_at
    ) order by r.id)
  )
  from public.schedule_runs as r
  join public.schedules as s on s.id = r.schedule_id
  where r.id = any (p_run_ids)
  group by r.status
$$;

comment on function fleet.tell_runs(bigint[]) is 'Tell of runs that ended: run.completed, run.failed or run.skipped.';
revoke all on function fleet.tell_runs(bigint[]) from public, anon, authenticated, service_role;

-- db/sources/85_notify/20_addresses.sql
-- Where messages may go.

create or replace function fleet.endpoint_problems(p_endpoint public.webhook_endpoints)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select * from fleet.choice_problem('channel', to_jsonb(p_endpoint.channel), '{webhook,email}')
  union all
  select 'url', 'is missing', 'Example: {"url": "https://example.com/hooks"}'
  where p_endpoint.channel = 'webhook' and p_endpoint.url is null
  union all
  select 'url', u.problem,
    'An administrator may allow other addresses: select fleet.set_setting(''webhook_allow_private'', ''true'')'
  from fleet.webhook_url_problem(p_endpoint.url, fleet.setting('webhook_allow_private') = 'true'::jsonb) as u(problem)
  where p_endpoint.url is not null and u.problem is not null
  union all
  select 'url', 'is of no use to the channel email', 'Leave it out.'
  where p_endpoint.channel = 'email' and p_endpoint.url is not null
  union all
  select 'email', 'is missing', 'Example: {"email": "ops@example.com"}'
  where p_endpoint.channel = 'email' and p_endpoint.email is null
  union all
  select 'email', 'is not an e-mail address', 'Example: {"email": "ops@example.com"}'
  where p_endpoint.email !~ '^[A-Za-z0-9.!#$%&''*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9]([A-Za-z0-9.-]{0,250}[A-Za-z0-9])?$'
  union all
  select 'email', 'is of no use to the channel webhook', 'Leave it out, or say {"channel": "email"}.'
  where p_endpoint.channel = 'webhook' and p_endpoint.email is not null
  union all
  select * from fleet.row_limit_problems('webhook_endpoints', to_jsonb(p_endpoint))
  union all
  select 'events', 'names no event', 'Example: {"events": ["run.failed", "schedule.*"]}; ["*"] is everything.'
  where coalesce(cardinality(p_endpoint.events), 0) = 0
  union all
  select 'events', format('"%s" is not an event', e.pattern),
    format('Events are %s; run.* is all of a kind, * is everything.', (
      select string_agg(k.name, ', ' order by k.name) from fleet.event_types() as k
    ))
  from unnest(p_endpoint.events) as e(pattern)
  where e.pattern is null
    or not exists (
      select 1 from fleet.event_types() as k where fleet.event_matches(array[e.pattern], k.name)
    )
$$;

comment on function fleet.endpoint_problems(public.webhook_endpoints) is 'Everything that is wrong with an endpoint.';
revoke all on function fleet.endpoint_problems(public.webhook_endpoints) from public, anon, authenticated, service_role;

-- db/sources/85_notify/30_endpoint_spec.sql
-- Endpoints as JSON: what is wrong with it, and the row that it makes.

create or replace function fleet.endpoint_spec_problems(p_spec jsonb, p_keys text[])
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select e.key, 'is not a key that may be set here', format('The keys are %s.', array_to_string(p_keys, ', '))
  from jsonb_each(p_spec) as e
  where e.key <> all (p_keys)
  union all
  select e.key, format('must be text, not %s', e.value), 'Write it in quotes.'
  from jsonb_each(p_spec) as e
  where e.key in ('name', 'channel', 'url', 'email') and jsonb_typeof(e.value) not in ('string', 'null')
  union all
  select 'enabled', format('must be true or false, not %s', p_spec -> 'enabled'), 'Write it without quotes.'
  where p_spec ? 'enabled' and jsonb_typeof(p_spec -> 'enabled') <> 'boolean'
  union all
  select 'events', 'must be a list of names', 'Example: {"events": ["run.failed", "schedule.*"]}; ["*"] is everything.'
  where p_spec ? 'events'
    and (
      jsonb_typeof(p_spec -> 'events') <> 'array'
      or jsonb_path_exists(p_spec, 'strict $.events[*] ? (@.type() != "string")', '{}', true)
    )
  union all
  select 'owner_id', format('%s is not a uuid', p_spec -> 'owner_id'), 'Copy the id of the owner.'
  where jsonb_typeof(p_spec -> 'owner_id') <> 'null' and fleet.try_uuid(p_spec ->> 'owner_id') is null
$$;

comment on function fleet.endpoint_spec_problems(jsonb, text[]) is
  'Keys of an endpoint in JSON that are unknown or hold something of another type.';
revoke all on function fleet.endpoint_spec_problems(jsonb, text[]) from public, anon, authenticated, service_role;

create or replace function fleet.endpoint_with(p_endpoint public.webhook_endpoints, p_spec jsonb)
returns public.webhook_endpoints
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.webhook_endpoints := p_endpoint;
begin
  v_row.name := case when p_spec ? 'name' then coalesce(p_spec ->> 'name', '') else v_row.name end;
  v_row.channel := coalesce(p_spec ->> 'channel', v_row.channel);
  v_row.url := case when p_spec ? 'url' then btrim(p_spec ->> 'url') else v_row.url end;
  v_row.email := case when p_spec ? 'email' then btrim(p_spec ->> 'email') else v_row.email end;
  v_row.enabled := coalesce((p_spec ->> 'enabled')::boolean, v_row.enabled);
  if jsonb_typeof(p_spec -> 'events') = 'array' then
    v_row.events := array(select distinct e.name from jsonb_array_elements_text(p_spec -> 'events') as e(name) order by 1);
  end if;
  return v_row;
end;
$$;

comment on function fleet.endpoint_with(public.webhook_endpoints, jsonb) is 'The row with what a specification of the right types says.';
revoke all on function fleet.endpoint_with(public.webhook_endpoints, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.checked_endpoint(p_endpoint public.webhook_endpoints, p_spec jsonb, p_keys text[])
returns public.webhook_endpoints
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.webhook_endpoints;
  v_problems fleet.problem[];
  v_fields text[];
begin
  v_problems := array(select t from fleet.endpoint_spec_problems(p_spec, p_keys) as t);
  v_fields := array(select p.field from unnest(v_problems) as p);

  -- What has the wrong type is left out, so that everything else is still checked in the same answer.
  v_row := fleet.endpoint_with(p_endpoint, p_spec - v_fields);
  perform fleet.raise_problems('the endpoint', 'webhook_endpoint_invalid', v_problems || array_agg(q))
  from fleet.endpoint_problems(v_row) as q
  where q.field <> all (v_fields);
  return v_row;
end;
$$;

comment on function fleet.checked_endpoint(public.webhook_endpoints, jsonb, text[]) is
  'The row that a specification makes of another. Raises webhook_endpoint_invalid (PT422) naming every wrong field.';
revoke all on function fleet.checked_endpoint(public.webhook_endpoints, jsonb, text[])
  from public, anon, authenticated, service_role;

-- db/sources/85_notify/40_endpoints.sql
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

-- db/sources/85_notify/45_mailboxes.sql
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

-- db/sources/85_notify/50_signatures.sql
-- Signatures by Standard Webhooks (https://www.standardwebhooks.com): made here, so that no secret leaves the database
-- after it was shown.

create or replace function fleet.webhook_secret_text(p_key bytea)
returns text
language sql
immutable
parallel safe
return 'whsec_' || replace(encode(p_key, 'base64'), E'\n', '');

comment on function fleet.webhook_secret_text(bytea) is 'A signing key as its receiver writes it down.';
revoke all on function fleet.webhook_secret_text(bytea) from public, anon, authenticated, service_role;

create or replace function fleet.webhook_signature(p_key bytea, p_id text, p_timestamp bigint, p_body text)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select 'v1,' || replace(
    encode(fleet.hmac_sha256(convert_to(p_id || '.' || p_timestamp || '.' || p_body, 'UTF8'), p_key), 'base64'), E'\n', ''
  )
$$;

comment on function fleet.webhook_signature(bytea, text, bigint, text) is
  'HMAC-SHA256 over id, time (seconds since 1970) and body, as v1,<base64>.';
revoke all on function fleet.webhook_signature(bytea, text, bigint, text) from public, anon, authenticated, service_role;

create or replace function fleet.webhook_headers(p_endpoint_id bigint, p_id text, p_body text, p_now timestamptz)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'webhook-id', p_id,
    'webhook-timestamp', t.seconds::text,
    -- While a secret is being replaced both sign; any one that fits is enough for the receiver.
    'webhook-signature', string_agg(fleet.webhook_signature(s.key, p_id, t.seconds, p_body), ' ' order by s.created_at desc)
  )
  from (select floor(extract(epoch from p_now))::bigint as seconds) as t
  cross join fleet.webhook_secrets as s
  where s.endpoint_id = p_endpoint_id
    and (s.expires_at is null or s.expires_at > p_now)
  group by t.seconds
$$;

comment on function fleet.webhook_headers(bigint, text, text, timestamptz) is
  'The headers webhook-id, webhook-timestamp and webhook-signature of one attempt.';
revoke all on function fleet.webhook_headers(bigint, text, text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.make_webhook_secret(p_endpoint_id bigint)
returns text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_key bytea := decode(fleet.random_secret(), 'hex');
begin
  insert into fleet.webhook_secrets (endpoint_id, owner_id, key, created_at)
  select e.id, e.owner_id, v_key, clock_timestamp() from public.webhook_endpoints as e where e.id = p_endpoint_id;
  return fleet.webhook_secret_text(v_key);
end;
$$;

comment on function fleet.make_webhook_secret(bigint) is 'Give an endpoint one more secret, and answer it as text.';
revoke all on function fleet.make_webhook_secret(bigint) from public, anon, authenticated, service_role;

-- db/sources/85_notify/60_deliveries.sql
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

-- db/sources/85_notify/70_resend.sql
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

-- db/sources/85_notify/views.sql
-- Who is told of what happens, and whether they were.

drop view if exists public.webhook_list;
create view public.webhook_list with (security_invoker = true) as
select
  e.id,
  e.owner_id,
  e.name,
  e.channel,
  coalesce(e.url, e.email) as address,
  e.events,
  e.enabled,
  e.verified_at,
  e.disabled_reason,
  d.waiting,
  d.failed,
  d.last_delivered_at,
  e.created_at
from public.webhook_endpoints as e
cross join lateral (
  select
    count(*) filter (where d.status in ('pending', 'running')) as waiting,
    count(*) filter (where d.status = 'failed') as failed,
    max(d.delivered_at) as last_delivered_at
  from public.webhook_deliveries as d
  where d.endpoint_id = e.id
) as d;

comment on view public.webhook_list is
  'Endpoints with what waits for them and what failed.';
comment on column public.webhook_list.address is 'Its URL, or its mailbox.';
comment on column public.webhook_list.waiting is 'How many messages wait.';
comment on column public.webhook_list.failed is 'How many were given up.';
comment on column public.webhook_list.last_delivered_at is 'When it last took one.';
select fleet.inherit_comments('public.webhook_list', 'public.webhook_endpoints');
revoke all on table public.webhook_list from public, anon, authenticated, service_role;
grant select on table public.webhook_list to authenticated, service_role;

drop view if exists public.webhook_delivery_list;
create view public.webhook_delivery_list with (security_invoker = true) as
select
  d.id,
  d.owner_id,
  d.endpoint_id,
  e.name as endpoint,
  d.event,
  d.event_id,
  d.status,
  d.attempts,
  d.last_status,
  d.last_error,
  d.next_attempt_at,
  d.delivered_at,
  d.created_at,
  d.payload
from public.webhook_deliveries as d
-- Whoever only looks sees messages, not endpoints.
left join public.webhook_endpoints as e on e.id = d.endpoint_id;

comment on view public.webhook_delivery_list is
  'Messages with the names of their endpoints.';
comment on column public.webhook_delivery_list.endpoint is 'The name of the endpoint; null for who may not manage it.';
select fleet.inherit_comments('public.webhook_delivery_list', 'public.webhook_deliveries');
revoke all on table public.webhook_delivery_list from public, anon, authenticated, service_role;
grant select on table public.webhook_delivery_list to authenticated, service_role;

-- db/sources/85_notify/triggers.sql
-- What holds for endpoints however a row is written, and what is told: after the triggers that do the work, which is why
-- the numbers of the latter are high.

create or replace trigger webhook_endpoints_01_fill_owner
  before insert on public.webhook_endpoints
  for each row execute function fleet.tg_owner_from_caller();

create or replace function fleet.tg_check_webhook_endpoint()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.raise_problems('the endpoint', 'webhook_endpoint_invalid', array_agg(q))
  from fleet.endpoint_problems(new) as q;
  new.updated_at := now();
  if tg_op = 'INSERT' or new.email is distinct from old.email then
    new.verified_at := null;
  end if;
  if new.enabled then
    new.disabled_reason := null;
  else
    new.disabled_reason := coalesce(new.disabled_reason, 'it was disabled by hand');
  end if;
  return new;
end;
$$;

comment on function fleet.tg_check_webhook_endpoint() is
  'Refuse endpoints that are not valid. Definer: whoever may write the table may not call what it checks with.';
revoke all on function fleet.tg_check_webhook_endpoint() from public, anon, authenticated, service_role;

create or replace trigger webhook_endpoints_02_check
  before insert or update on public.webhook_endpoints
  for each row execute function fleet.tg_check_webhook_endpoint();

create or replace function fleet.tg_make_webhook_secret()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.make_webhook_secret(new.id);
  return null;
end;
$$;

comment on function fleet.tg_make_webhook_secret() is
  'Give every webhook a secret: nothing leaves unsigned. Definer: nobody else writes secrets.';
revoke all on function fleet.tg_make_webhook_secret() from public, anon, authenticated, service_role;

create or replace trigger webhook_endpoints_03_make_secret
  after insert on public.webhook_endpoints
  for each row
  when (new.channel = 'webhook')
  execute function fleet.tg_make_webhook_secret();

create or replace function fleet.tg_ask_mailbox()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.send_mailbox_code(new, clock_timestamp());
  return null;
end;
$$;

comment on function fleet.tg_ask_mailbox() is 'Ask whoever reads a mailbox whether it wants to be told. Definer: nobody else writes codes.';
revoke all on function fleet.tg_ask_mailbox() from public, anon, authenticated, service_role;

create or replace trigger webhook_endpoints_03_ask_mailbox
  after insert on public.webhook_endpoints
  for each row when (new.channel = 'email') execute function fleet.tg_ask_mailbox();
create or replace trigger webhook_endpoints_03_ask_other_mailbox
  after update of email on public.webhook_endpoints
  for each row when (new.channel = 'email' and new.email is distinct from old.email) execute function fleet.tg_ask_mailbox();

create or replace function fleet.tg_end_deliveries()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  update public.webhook_deliveries as d
  set status = 'failed', next_attempt_at = null, finished_at = clock_timestamp(), last_error = 'the endpoint is disabled'
  where d.endpoint_id = new.id and d.status = 'pending';
  return null;
end;
$$;

comment on function fleet.tg_end_deliveries() is
  'End what waits for an endpoint that is disabled; it can be sent again later. Definer: nobody else writes deliveries.';
revoke all on function fleet.tg_end_deliveries() from public, anon, authenticated, service_role;

create or replace trigger webhook_endpoints_04_end_deliveries
  after update of enabled on public.webhook_endpoints
  for each row
  when (old.enabled and not new.enabled)
  execute function fleet.tg_end_deliveries();

create or replace function fleet.tg_tell_new_runs()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ended bigint[];
begin
  if not fleet.is_anybody_listening() then
    return null;
  end if;

  select array_agg(n.id) into v_ended
  from new_rows as n
  where n.status in ('completed', 'failed', 'skipped');
  if v_ended is not null then
    perform fleet.tell_runs(v_ended);
  end if;
  return null;
end;
$$;

comment on function fleet.tg_tell_new_runs() is
  'Tell of runs that are over when they are written: what was missed. Definer: whoever writes them may not write deliveries.';
revoke all on function fleet.tg_tell_new_runs() from public, anon, authenticated, service_role;

create or replace trigger schedule_runs_90_tell_insert
  after insert on public.schedule_runs
  referencing new table as new_rows
  for each statement execute function fleet.tg_tell_new_runs();

create or replace function fleet.tg_tell_runs()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ended bigint[];
begin
  if not fleet.is_anybody_listening() then
    return null;
  end if;

  select array_agg(n.id) into v_ended
  from new_rows as n
  join old_rows as o on o.id = n.id
  where n.status in ('completed', 'failed', 'skipped')
    and o.status is distinct from n.status;
  if v_ended is not null then
    perform fleet.tell_runs(v_ended);
  end if;
  return null;
end;
$$;

comment on function fleet.tg_tell_runs() is 'Tell of runs that ended. Definer: whoever ends them may not write deliveries.';
revoke all on function fleet.tg_tell_runs() from public, anon, authenticated, service_role;

create or replace trigger schedule_runs_90_tell_update
  after update on public.schedule_runs
  referencing old table as old_rows new table as new_rows
  for each statement execute function fleet.tg_tell_runs();

create or replace function fleet.tg_tell_schedules()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if not fleet.is_anybody_listening() then
    return null;
  end if;

  perform fleet.emit_events(
    array_agg(n.owner_id order by n.id),
    'schedule.' || n.status,
    array_agg(jsonb_build_object(
      'schedule_id', n.id,
      'schedule_name', n.name,
      'status', n.status,
      'reason', n.status_reason,
      'execution_count', n.execution_count
    ) order by n.id)
  )
  from new_rows as n
  join old_rows as o on o.id = n.id
  where n.status in ('paused', 'completed')
    and o.status is distinct from n.status
  group by n.status;
  return null;
end;
$$;

comment on function fleet.tg_tell_schedules() is
  'Tell of schedules that were paused or are completed. Definer: whoever changes them may not write deliveries.';
revoke all on function fleet.tg_tell_schedules() from public, anon, authenticated, service_role;

create or replace trigger schedules_90_tell
  after update on public.schedules
  referencing old table as old_rows new table as new_rows
  for each statement execute function fleet.tg_tell_schedules();

create or replace function fleet.tell_failed_commands(p_command_ids bigint[])
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if not fleet.is_anybody_listening() then
    return;
  end if;

  perform fleet.emit_events(
    array_agg(c.owner_id order by c.id),
    'command.failed',
    array_agg(jsonb_build_object(
      'command_id', c.id,
      'command_type', c.command_type,
      'run_id', c.run_id,
      'schedule_id', c.schedule_id,
      'device_id', c.device_id,
      'device_hostname', c.device_hostname,
      'status', c.status,
      'reason', c.reason,
      'error_message', c.error_message,
      'attempt', c.attempt
    ) order by c.id)
  )
  from public.device_commands as c
  where c.id = any (p_command_ids)
  having count(*) > 0;
end;
$$;

comment on function fleet.tell_failed_commands(bigint[]) is 'Tell of commands that failed for good or expired.';
revoke all on function fleet.tell_failed_commands(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.tg_tell_geo_action()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if fleet.is_anybody_listening() then
    perform fleet.emit_events(array[new.owner_id], 'geo_action.failed', array[jsonb_build_object(
      'geo_action_id', a.id,
      'geo_schedule_id', s.id,
      'geo_schedule_name', s.name,
      'device_id', d.id,
      'device_hostname', d.hostname,
      'apps', a.apps,
      'enforce', a.enforce,
      'starts_at', a.starts_at,
      'ends_at', a.ends_at,
      'reason', new.reason
    )])
    from public.geo_actions as a
    join public.geo_schedules as s on s.id = a.geo_schedule_id
    join public.devices as d on d.id = new.device_id
    where a.id = new.geo_action_id;
  end if;
  return null;
end;
$$;

comment on function fleet.tg_tell_geo_action() is
  'Tell of a device that does not block what it should. Definer: a device may not write deliveries.';
revoke all on function fleet.tg_tell_geo_action() from public, anon, authenticated, service_role;

create or replace trigger geo_action_reports_90_tell_insert
  after insert on public.geo_action_reports
  for each row when (new.status = 'failed')
  execute function fleet.tg_tell_geo_action();
create or replace trigger geo_action_reports_91_tell_update
  after update on public.geo_action_reports
  for each row when (new.status = 'failed' and old.status <> 'failed')
  execute function fleet.tg_tell_geo_action();

create or replace function fleet.tg_tell_clone()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if fleet.is_anybody_listening() then
    perform fleet.emit_events(array[new.owner_id], 'device.cloned', array[jsonb_build_object(
      'device_id', new.id, 'device_hostname', new.hostname, 'clone_seen_at', new.clone_seen_at
    )]);
  end if;
  return null;
end;
$$;

comment on function fleet.tg_tell_clone() is
  'Tell of a device whose disk was copied, once until it is re-keyed. Definer: whoever asks for a token may not write deliveries.';
revoke all on function fleet.tg_tell_clone() from public, anon, authenticated, service_role;

create or replace trigger devices_90_tell_clone
  after update of clone_seen_at on public.devices
  for each row
  when (old.clone_seen_at is null and new.clone_seen_at is not null)
  execute function fleet.tg_tell_clone();

select fleet.keep_audit('public.webhook_endpoints');

select fleet.keep_quota('public.webhook_endpoints', 'endpoints');

-- db/sources/85_notify/access.sql
-- Who sees endpoints and messages: the owner's people; who manages, changes them through functions. Devices see none.

revoke all on table public.webhook_endpoints, public.webhook_deliveries, fleet.webhook_secrets
  from public, anon, authenticated, service_role;
revoke all on sequence public.webhook_endpoints_id_seq, public.webhook_deliveries_id_seq
  from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.webhook_endpoints, public.webhook_deliveries to service_role;
grant usage, select on sequence public.webhook_endpoints_id_seq, public.webhook_deliveries_id_seq to service_role;

drop policy if exists webhook_endpoints_all_service_role on public.webhook_endpoints;
create policy webhook_endpoints_all_service_role on public.webhook_endpoints
  for all to service_role using (true) with check (true);
drop policy if exists webhook_deliveries_all_service_role on public.webhook_deliveries;
create policy webhook_deliveries_all_service_role on public.webhook_deliveries
  for all to service_role using (true) with check (true);

-- The address of a webhook is often a secret itself.
grant select on table public.webhook_endpoints to authenticated;
drop policy if exists webhook_endpoints_select_manager on public.webhook_endpoints;
create policy webhook_endpoints_select_manager on public.webhook_endpoints
  for select to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));

grant select on table public.webhook_deliveries to authenticated;
drop policy if exists webhook_deliveries_select_member on public.webhook_deliveries;
create policy webhook_deliveries_select_member on public.webhook_deliveries
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

set check_function_bodies = on;
reset search_path;
