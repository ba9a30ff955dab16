-- Generated from db/sources/50_integrations by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/50_integrations/10_integrations.sql
-- Integrations: the other systems in which devices are known. Making one, and what may be wrong with it.

create or replace function fleet.integration_settings(p_integration_type text)
returns text[]
language sql
immutable
parallel safe
return '{base_url,rate_per_second,burst,syncEnabled,syncIntervalSeconds}'::text[] || case p_integration_type
  when 'nanomdm' then '{user,profiles}'::text[]
  else '{}'
end;

comment on function fleet.integration_settings(text) is
  'What the settings of an MDM of this type may say, the last of them its own. A new type is one line here.';
revoke all on function fleet.integration_settings(text) from public, anon, authenticated, service_role;

create or replace function fleet.base_url_problem(p_url jsonb)
returns text
language sql
immutable
parallel safe
return case
  when jsonb_typeof(p_url) is distinct from 'string' then 'must be a text'
  when length(p_url #>> '{}') > 2000 then 'is longer than 2000 characters'
  when p_url #>> '{}' !~* '^https?://' then 'must be an https:// address'
  when p_url #>> '{}' ~ '^[^/]*//[^/?#]*@' then 'must hold no credentials'
  when p_url #>> '{}' !~* '^https?://([^\s/\\?#@:\[\]]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?(/[^\s\\?#]*)?$' then 'is no address of an API'
  when substring(p_url #>> '{}' from '^[^/]*//[^/]*:([0-9]{1,5})(?:/|$)')::integer not between 1 and 65535 then 'has a port that cannot be'
end;

comment on function fleet.base_url_problem(jsonb) is
  'What is wrong with the address of another system; null where nothing is. Where it leads is looked at when it is called.';
revoke all on function fleet.base_url_problem(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.integration_problems(p_integration public.device_integrations)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select 'name', 'must not be blank', 'Give the integration a name.'
  where btrim(coalesce(p_integration.name, '')) = ''
  union all
  select 'name', format('"%s" is taken', p_integration.name), 'Choose another name.'
  where exists (
    select 1
    from public.device_integrations as i
    where i.owner_id = p_integration.owner_id
      and lower(i.name) = lower(p_integration.name)
      and i.id is distinct from p_integration.id
  )
  union all
  select 'integration_type', coalesce(format('"%s" is no name of a system', nullif(p_integration.integration_type, '')), 'is missing'),
    'Example: simplemdm'
  where coalesce(p_integration.integration_type, '') !~ '^[a-z][a-z0-9_]*$'
  union all
  select 'integration_type', format('"%s" is no system that is known here', fleet.cut_text(p_integration.integration_type, 60)),
    format('Known are %s.', array_to_string(fleet.integration_types(), ', '))
  where p_integration.integration_type ~ '^[a-z][a-z0-9_]*$'
    and p_integration.integration_type <> all (fleet.integration_types())
  union all
  select 'settings.base_url', u.problem, 'Example: {"base_url": "https://mdm.example.com"}; the key is the secret of the integration.'
  from (select fleet.base_url_problem(p_integration.settings -> 'base_url') as problem) as u
  where p_integration.settings ? 'base_url' and u.problem is not null
  union all
  select 'settings.' || left(k.key, 60), 'is not known',
    format('Known for %s are: %s.', p_integration.integration_type, array_to_string(t.settings, ', '))
  from (select fleet.integration_settings(p_integration.integration_type) as settings) as t
  cross join lateral jsonb_object_keys(fleet.object_or_empty(p_integration.settings)) as k(key)
  -- Other systems than MDMs look after their own.
  where p_integration.integration_type = any (fleet.mdm_integration_types())
    and k.key <> all (t.settings)
    and k.key !~* '(secret|password|api_?key|token)$'
  union all
  select 'settings.syncEnabled', 'must be true or false', 'Example: {"syncEnabled": false}'
  where p_integration.settings ? 'syncEnabled' and jsonb_typeof(p_integration.settings -> 'syncEnabled') <> 'boolean'
  union all
  select 'settings', 'must be an object', 'Example: {"rate_per_second": 5}'
  where jsonb_typeof(coalesce(p_integration.settings, 'null')) <> 'object'
  union all
  select 'settings.' || n.name, 'must be a number greater than zero', format('Example: {"%s": 5}', n.name)
  from unnest('{rate_per_second,burst,syncIntervalSeconds}'::text[]) as n(name)
  where p_integration.settings ? n.name
    and case jsonb_typeof(p_integration.settings -> n.name)
      when 'number' then (p_integration.settings ->> n.name)::numeric <= 0
      else true
    end
  union all
  select q.*
  from (
    values ('rate_per_second', 'rate_per_second'), ('burst', 'burst'), ('syncIntervalSeconds', 'sync_interval')
  ) as n(name, bound)
  cross join lateral fleet.limit_problem(
    'settings.' || n.name, n.bound,
    case jsonb_typeof(p_integration.settings -> n.name) when 'number' then (p_integration.settings ->> n.name)::numeric end
  ) as q
  union all
  select q.* from fleet.row_limit_problems('device_integrations', to_jsonb(p_integration)) as q
  union all
  select 'settings.' || k.key, 'looks like a secret', 'Set it with: select set_integration_secret(<id>, <secret>)'
  from jsonb_object_keys(fleet.object_or_empty(p_integration.settings)) as k(key)
  where k.key ~* '(secret|password|api_?key|token)$'
$$;

comment on function fleet.integration_problems(public.device_integrations) is
  'Everything that is wrong with an integration; no row where nothing is.';
revoke all on function fleet.integration_problems(public.device_integrations) from public, anon, authenticated, service_role;

create or replace function fleet.integration_of_caller(p_integration_id bigint)
returns public.device_integrations
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_integrations;
begin
  select i.* into v_row
  from public.device_integrations as i
  where i.id = p_integration_id and fleet.is_visible_owner(i.owner_id)
  for update;
  if not found then
    perform fleet.raise_not_found(format('integration %s', p_integration_id));
  end if;
  perform fleet.require_permission(v_row.owner_id, 'manage', format('integration %s', p_integration_id));
  return v_row;
end;
$$;

comment on function fleet.integration_of_caller(bigint) is
  'The integration, locked, if the caller manages it. Raises integration_not_found (PT404) or permission_missing (PT403).';
revoke all on function fleet.integration_of_caller(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.create_integration(p_spec jsonb, p_secret text)
returns public.device_integrations
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid;
  v_row public.device_integrations;
  v_strange text;
begin
  if jsonb_typeof(p_spec) is distinct from 'object' then
    raise exception 'an integration must be a JSON object'
      using errcode = 'PT422',
            detail = 'integration_invalid',
            hint = 'Example: {"name": "office", "integration_type": "simplemdm"}';
  end if;
  perform fleet.require_size('the integration', 'spec', p_spec);
  select min(k) into v_strange
  from jsonb_object_keys(p_spec) as k
  where k <> all ('{name,integration_type,settings,owner_id}'::text[]);
  if v_strange is not null then
    raise exception 'the integration is not valid: %: is not known', v_strange
      using errcode = 'PT422',
            detail = 'integration_invalid',
            hint = 'Known are name, integration_type, settings and owner_id; the secret is an argument of its own.';
  end if;

  v_owner := fleet.owner_or_own(fleet.try_uuid(p_spec ->> 'owner_id'));
  perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
  insert into public.device_integrations as i (owner_id, name, integration_type, settings, created_by)
  values (
    v_owner, coalesce(p_spec ->> 'name', p_spec ->> 'integration_type', ''), coalesce(p_spec ->> 'integration_type', ''),
    coalesce(p_spec -> 'settings', '{}'), fleet.current_user_id()
  )
  returning * into v_row;
  if p_secret is not null then
    v_row := fleet.set_integration_secret(v_row.id, p_secret);
  end if;
  return v_row;
end;
$$;

comment on function fleet.create_integration(jsonb, text) is 'See public.create_integration. Definer: it checks the caller.';
revoke all on function fleet.create_integration(jsonb, text) from public, anon, authenticated, service_role;
grant execute on function fleet.create_integration(jsonb, text) to authenticated, service_role;

create or replace function public.create_integration(p_spec jsonb, p_secret text default null)
returns public.device_integrations
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.create_integration(p_spec, p_secret)
$$;

comment on function public.create_integration(jsonb, text) is
  'Connect another system: {"name", "integration_type": "simplemdm", "settings": {"base_url", "rate_per_second", "burst", "syncEnabled", '
  '"syncIntervalSeconds"}, "owner_id"}, and its secret, which nobody can read back. Raises integration_invalid (PT422) or '
  'permission_missing (PT403).';
revoke all on function public.create_integration(jsonb, text) from public, anon, authenticated, service_role;
grant execute on function public.create_integration(jsonb, text) to authenticated, service_role;

create or replace function public.integration_id(p_name text)
returns bigint
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.only_one(
    'integration', p_name,
    array(select x.id::text from public.device_integrations as x where lower(x.name) = lower(p_name) order by x.id),
    (select x.id::text from public.device_integrations as x where x.id = fleet.try_bigint(p_name))
  )::bigint
$$;

comment on function public.integration_id(text) is
  'The integration that a name or an id means; a name in any case, and it wins over an id. Raises integration_not_found (PT404) or '
  'integration_ambiguous (PT409).';
revoke all on function public.integration_id(text) from public, anon, authenticated, service_role;
grant execute on function public.integration_id(text) to authenticated, service_role;

-- db/sources/50_integrations/12_mdms.sql
-- Integrations that carry out commands of channel mdm, and which of them a device is in.

create or replace function fleet.mdm_integration_types()
returns text[]
language sql
immutable
parallel safe
return '{simplemdm,nanomdm}'::text[];

comment on function fleet.mdm_integration_types() is
  'Integrations that carry out commands of channel mdm. A new provider is one word here and one module of the function.';
revoke all on function fleet.mdm_integration_types() from public, anon, authenticated, service_role;

create or replace function fleet.integration_types()
returns text[]
language sql
immutable
parallel safe
return fleet.mdm_integration_types() || '{golioth}'::text[];

comment on function fleet.integration_types() is 'Systems that an integration can be a connection to: the MDMs and others.';
revoke all on function fleet.integration_types() from public, anon, authenticated, service_role;

create or replace function fleet.function_of_integration(p_integration_type text)
returns text
language sql
immutable
parallel safe
return (case p_integration_type when 'golioth' then 'golioth-pull' else 'mdm-dispatch' end);

comment on function fleet.function_of_integration(text) is 'Which function works for integrations of a type, and is poked for them.';
revoke all on function fleet.function_of_integration(text) from public, anon, authenticated, service_role;

create or replace function fleet.mdms_of(p_device_ids bigint[])
returns table (device_id bigint, integration_id bigint)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select distinct on (l.device_id) l.device_id, l.integration_id
  from public.device_links as l
  join public.device_integrations as i on i.id = l.integration_id
  where l.device_id = any (p_device_ids)
    and l.left_at is null
    and i.integration_type = any (fleet.mdm_integration_types())
    and i.status <> 'disabled'
  -- A device that is in two of them belongs to the one that works.
  order by l.device_id, (i.status = 'active') desc, i.id
$$;

comment on function fleet.mdms_of(bigint[]) is 'The MDM that each device is in; no row for one that is in none.';
revoke all on function fleet.mdms_of(bigint[]) from public, anon, authenticated, service_role;

-- db/sources/50_integrations/15_verbs.sql
-- Pausing, resuming, syncing and removing an integration, and replacing its secret.

create or replace function public.set_integration_secret(p_integration_id bigint, p_secret text)
returns public.device_integrations
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.set_integration_secret(p_integration_id, p_secret)
$$;

comment on function public.set_integration_secret(bigint, text) is
  'Set or replace the secret of an integration. One that was paused because its secret was refused goes on. Raises integration_not_found '
  '(PT404), permission_missing (PT403) or secret_missing (PT422).';
revoke all on function public.set_integration_secret(bigint, text) from public, anon, authenticated, service_role;
grant execute on function public.set_integration_secret(bigint, text) to authenticated, service_role;

create or replace function fleet.set_integration_secret(p_integration_id bigint, p_secret text)
returns public.device_integrations
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_integrations := fleet.integration_of_caller(p_integration_id);
begin
  if btrim(coalesce(p_secret, '')) = '' then
    raise exception 'the secret is blank'
      using errcode = 'PT422', detail = 'secret_missing', hint = 'Copy the API key from the settings of the other system.';
  end if;

  insert into public.pg_cron_secrets as s (name, secret)
  values ('integration:' || v_row.id, btrim(p_secret))
  on conflict (name) do update set secret = excluded.secret, updated_at = now();
  select i.* into v_row from public.device_integrations as i where i.id = p_integration_id;
  return v_row;
end;
$$;

comment on function fleet.set_integration_secret(bigint, text) is 'See public.set_integration_secret. Definer: it checks the caller.';
revoke all on function fleet.set_integration_secret(bigint, text) from public, anon, authenticated, service_role;
grant execute on function fleet.set_integration_secret(bigint, text) to authenticated, service_role;

create or replace function public.pause_integration(p_integration_id bigint, p_reason text default null)
returns public.device_integrations
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.set_integration_status(p_integration_id, 'paused', coalesce(p_reason, 'it was paused by hand'))
$$;

comment on function public.pause_integration(bigint, text) is
  'Call the other system no more until it is resumed; commands wait. Raises integration_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.pause_integration(bigint, text) from public, anon, authenticated, service_role;
grant execute on function public.pause_integration(bigint, text) to authenticated, service_role;

create or replace function public.resume_integration(p_integration_id bigint)
returns public.device_integrations
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.set_integration_status(p_integration_id, 'active', null)
$$;

comment on function public.resume_integration(bigint) is
  'Go on with what waits. Raises integration_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.resume_integration(bigint) from public, anon, authenticated, service_role;
grant execute on function public.resume_integration(bigint) to authenticated, service_role;

create or replace function fleet.set_integration_status(p_integration_id bigint, p_status text, p_reason text)
returns public.device_integrations
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_integrations := fleet.integration_of_caller(p_integration_id);
begin
  update public.device_integrations as i
  set status = p_status, status_reason = p_reason, needs_secret = false
  where i.id = v_row.id
  returning * into v_row;
  return v_row;
end;
$$;

comment on function fleet.set_integration_status(bigint, text, text) is
  'See public.pause_integration and public.resume_integration. Definer: it checks the caller.';
revoke all on function fleet.set_integration_status(bigint, text, text) from public, anon, authenticated, service_role;
grant execute on function fleet.set_integration_status(bigint, text, text) to authenticated, service_role;

create or replace function public.sync_integration(p_integration_id bigint)
returns public.device_integrations
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.sync_integration(p_integration_id, clock_timestamp())
$$;

comment on function public.sync_integration(bigint) is
  'Read the devices of the other system now; last_sync_at tells when it is done. Raises integration_not_found (PT404), permission_missing '
  '(PT403), integration_paused or integration_disabled (PT409).';
revoke all on function public.sync_integration(bigint) from public, anon, authenticated, service_role;
grant execute on function public.sync_integration(bigint) to authenticated, service_role;

create or replace function fleet.sync_integration(p_integration_id bigint, p_now timestamptz)
returns public.device_integrations
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_integrations := fleet.integration_of_caller(p_integration_id);
begin
  if v_row.status <> 'active' then
    raise exception 'integration % is %', p_integration_id, v_row.status
      using errcode = 'PT409',
            detail = 'integration_' || v_row.status,
            hint = format('Resume it: select resume_integration(%s)', p_integration_id);
  elsif fleet.stored_secret('integration:' || v_row.id) is null then
    raise exception 'integration "%" has no secret, and cannot be read', v_row.name
      using errcode = 'PT409', detail = 'integration_without_secret',
            hint = format('Give it its secret: select set_integration_secret(%s, ''<secret>'')', p_integration_id);
  end if;
  update public.device_integrations as i
  set sync_requested_at = p_now
  where i.id = v_row.id
  returning * into v_row;
  perform fleet.poke(fleet.function_of_integration(v_row.integration_type), jsonb_build_object('at', p_now), p_now);
  return v_row;
end;
$$;

comment on function fleet.sync_integration(bigint, timestamptz) is 'See public.sync_integration. Definer: it checks the caller.';
revoke all on function fleet.sync_integration(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.sync_integration(bigint, timestamptz) to authenticated, service_role;

create or replace function public.delete_integration(p_integration_id bigint)
returns bigint
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.delete_integration(p_integration_id)
$$;

comment on function public.delete_integration(bigint) is
  'Remove an integration with its secret and its links; the devices and the log of calls stay. Raises integration_not_found (PT404) or '
  'permission_missing (PT403).';
revoke all on function public.delete_integration(bigint) from public, anon, authenticated, service_role;
grant execute on function public.delete_integration(bigint) to authenticated, service_role;

create or replace function fleet.delete_integration(p_integration_id bigint)
returns bigint
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_integrations := fleet.integration_of_caller(p_integration_id);
begin
  delete from public.device_integrations as i where i.id = v_row.id;
  return v_row.id;
end;
$$;

comment on function fleet.delete_integration(bigint) is 'See public.delete_integration. Definer: it checks the caller.';
revoke all on function fleet.delete_integration(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.delete_integration(bigint) to authenticated, service_role;

-- db/sources/50_integrations/20_activity.sql
-- The log of what integrations did.

create or replace function fleet.log_activity(
  p_integration public.device_integrations,
  p_activity jsonb,
  p_now timestamptz
)
returns bigint
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  insert into public.integration_activity_log (
    owner_id, integration_id, activity_type, status, counts, duration_ms, error, detail, origin_key, created_at
  )
  select p_integration.owner_id, p_integration.id, p_activity ->> 'activity_type', p_activity ->> 'status',
    coalesce(p_activity -> 'counts', '{}'), (p_activity ->> 'duration_ms')::numeric,
    left(fleet.without_secret(p_activity ->> 'error', s.secret), 2000), coalesce(p_activity -> 'detail', '{}'),
    p_activity ->> 'origin_key', p_now
  from (select 1) as one
  left join lateral (select fleet.stored_secret('integration:' || p_integration.id) as secret) as s on true
  on conflict (integration_id, origin_key) do nothing
  returning id
$$;

comment on function fleet.log_activity(public.device_integrations, jsonb, timestamptz) is
  'Log {activity_type, status, counts, duration_ms, error, detail, origin_key}. Answers the id of the row; null where it was there already.';
revoke all on function fleet.log_activity(public.device_integrations, jsonb, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.errors_to_log(p_errors jsonb, p_integration_id bigint)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_agg(jsonb_build_object(
    'external_id', e.item -> 'external_id', 'error', fleet.without_secret(left(e.item ->> 'error', 500), s.secret)
  ) order by e.nr), '[]')
  from jsonb_array_elements(p_errors) with ordinality as e(item, nr)
  left join lateral (select fleet.stored_secret('integration:' || p_integration_id) as secret) as s on true
  where e.nr <= 20
$$;

comment on function fleet.errors_to_log(jsonb, bigint) is 'The first twenty errors about devices, without the secret of the integration.';
revoke all on function fleet.errors_to_log(jsonb, bigint) from public, anon, authenticated, service_role;

-- db/sources/50_integrations/25_calls.sql
-- The log of calls to other systems, and the secrets that those refuse.

create or replace function fleet.without_secret(p_text text, p_secret text)
returns text
language sql
-- Not immutable, as convert_to is not: Postgres would not put it in place then, and plan it anew for each call that is logged.
stable
return case
  when coalesce(length(p_secret), 0) < 4 then p_text
  else replace(
    replace(p_text, p_secret, '***'),
    -- As in an Authorization header, where the secret is the user and there is no password.
    replace(encode(convert_to(p_secret || ':', 'UTF8'), 'base64'), E'\n', ''), '***'
  )
end;

comment on function fleet.without_secret(text, text) is 'A text with a secret taken out of it, also as HTTP Basic has it.';
revoke all on function fleet.without_secret(text, text) from public, anon, authenticated, service_role;

create or replace function fleet.clean_calls(p_calls jsonb)
returns setof public.mdm_api_logs
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select k.id, i.owner_id, i.id, k.command_id, k.attempt, coalesce(k.method, 'GET'),
    coalesce(fleet.without_secret(k.url, s.secret), ''), k.status, k.duration_ms::integer,
    left(fleet.without_secret(k.request_body, s.secret), 10000), left(fleet.without_secret(k.response_body, s.secret), 10000),
    left(fleet.without_secret(k.error, s.secret), 2000), coalesce(k.at, clock_timestamp())
  from jsonb_to_recordset(p_calls) as k (
    id bigint, integration_id bigint, command_id bigint, attempt integer, method text, url text, status integer, duration_ms numeric,
    request_body text, response_body text, error text, at timestamptz
  )
  join public.device_integrations as i on i.id = k.integration_id
  left join lateral (select fleet.stored_secret('integration:' || i.id) as secret) as s on true
$$;

comment on function fleet.clean_calls(jsonb) is 'Calls as the log takes them: shortened, and without the secret wherever it appears.';
revoke all on function fleet.clean_calls(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.worker_begin_mdm_call(p_call jsonb)
returns bigint
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  insert into public.mdm_api_logs (owner_id, integration_id, command_id, attempt, method, url, request_body, created_at)
  select k.owner_id, k.integration_id, k.command_id, k.attempt, k.method, k.url, k.request_body, k.created_at
  from fleet.clean_calls(jsonb_build_array(p_call)) as k
  returning id
$$;

comment on function fleet.worker_begin_mdm_call(jsonb) is
  'Write a call to the log before it is made, so that it is there whatever happens: {integration_id, command_id, attempt, method, url, '
  'request_body, at}. Answers the id under which worker_log_mdm_calls completes it. Definer: the worker writes no table.';
revoke all on function fleet.worker_begin_mdm_call(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.worker_log_mdm_calls(p_calls jsonb)
returns integer
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  update public.mdm_api_logs as l
  set status = k.status, duration_ms = k.duration_ms, response_body = k.response_body, error = k.error
  from fleet.clean_calls(p_calls) as k
  where l.id = k.id and l.integration_id = k.integration_id;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.worker_log_mdm_calls(jsonb) is
  'Complete calls that were begun: a list of {id, integration_id, status, duration_ms, response_body, error}. Answers how many. Definer: '
  'the worker writes no table.';
revoke all on function fleet.worker_log_mdm_calls(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.log_callless(p_command public.device_commands, p_integration_id bigint, p_error text, p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Nearly each has made a call.
  if not exists (select 1 from public.mdm_api_logs as l where l.command_id = p_command.id and l.attempt = p_command.attempt) then
    insert into public.mdm_api_logs (owner_id, integration_id, command_id, attempt, error, created_at)
    values (
      p_command.owner_id, p_integration_id, p_command.id, p_command.attempt,
      left(fleet.without_secret(p_error, fleet.stored_secret('integration:' || p_integration_id)), 2000), p_now
    );
  end if;
end;
$$;

comment on function fleet.log_callless(public.device_commands, bigint, text, timestamptz) is
  'Log an attempt that came to no call; nothing where it made one.';
revoke all on function fleet.log_callless(public.device_commands, bigint, text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.log_unanswered(p_command_ids bigint[], p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  update public.mdm_api_logs as l
  set error = 'the function stopped before it wrote down an answer'
  from public.device_commands as c
  where c.id = any (p_command_ids) and l.command_id = c.id and l.attempt = c.attempt and l.status is null and l.error is null;
  insert into public.mdm_api_logs (owner_id, integration_id, command_id, attempt, error, created_at)
  select c.owner_id, w.integration_id, c.id, c.attempt, 'the function stopped before it called', p_now
  from public.device_commands as c
  join fleet.mdm_work as w on w.command_id = c.id
  where c.id = any (p_command_ids)
    and not exists (select 1 from public.mdm_api_logs as l where l.command_id = c.id and l.attempt = c.attempt);
end;
$$;

comment on function fleet.log_unanswered(bigint[], timestamptz) is
  'Log how the attempts of functions that were killed ended: before a call, or before its answer.';
revoke all on function fleet.log_unanswered(bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_pause_integration(p_integration_id bigint, p_reason text, p_secret_hash bytea)
returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_secret text := fleet.stored_secret('integration:' || p_integration_id);
begin
  -- Another one came while this was refused: it has not been tried yet.
  if fleet.hash_secret(v_secret) is distinct from p_secret_hash then
    return false;
  end if;
  update public.device_integrations as i
  set status = 'paused', needs_secret = true, sync_held_until = null, status_reason = fleet.without_secret(p_reason, v_secret)
  where i.id = p_integration_id and i.status = 'active';
  return true;
end;
$$;

comment on function fleet.worker_pause_integration(bigint, text, bytea) is
  'The other side refuses the secret of this SHA-256, or there is none: everything waits until it is replaced. Answers false where it has been '
  'replaced already, and nothing waits. Definer: the worker writes no table.';
revoke all on function fleet.worker_pause_integration(bigint, text, bytea) from public, anon, authenticated, service_role;

-- db/sources/50_integrations/28_failures.sql
-- Failures of calls to another system: which of them pass by themselves, and after how long to try again.

create or replace function fleet.is_passing_failure(p_reason text, p_rerun_safe boolean)
returns boolean
language sql
immutable
parallel safe
-- After a connection that broke nobody knows whether the provider acted; what may not be repeated ends there.
return coalesce(
  p_reason in ('rate_limited', 'not_called', 'not_sent') or (p_rerun_safe and p_reason in ('network', 'timeout', 'unavailable')), false
);

comment on function fleet.is_passing_failure(text, boolean) is
  'Whether a failure says nothing about the command itself, so that it is tried until the command expires.';
revoke all on function fleet.is_passing_failure(text, boolean) from public, anon, authenticated, service_role;

create or replace function fleet.is_answerless(p_reason text)
returns boolean
language sql
immutable
parallel safe
return coalesce(p_reason in ('network', 'timeout', 'unavailable'), false);

comment on function fleet.is_answerless(text) is 'Whether the provider may have taken a command although the attempt failed.';
revoke all on function fleet.is_answerless(text) from public, anon, authenticated, service_role;

create or replace function fleet.mdm_pause(p_tries integer, p_retry_after interval)
returns interval
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  -- A fifth more or less by chance, so that what failed together does not come back together.
  select greatest(
    least(interval '2 seconds' * power(2, least(greatest(p_tries, 1), 12) - 1), interval '5 minutes'),
    case when p_retry_after > interval '0' then least(p_retry_after, interval '1 hour') end
  ) * (1 + 0.2 * random())
$$;

comment on function fleet.mdm_pause(integer, interval) is
  'Pause after the n-th attempt that did not get through: two seconds, doubling up to five minutes; longer where the provider asks for it.';
revoke all on function fleet.mdm_pause(integer, interval) from public, anon, authenticated, service_role;

-- db/sources/50_integrations/30_sightings.sql
-- What another system says of its devices, read without raising, and which of our devices it means.

create or replace function fleet.sighting_problem(p_item jsonb)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when coalesce(btrim(p_item ->> 'external_id'), '') = '' then 'external_id is missing'
    when jsonb_typeof(p_item -> 'external_id') not in ('string', 'number') or length(p_item ->> 'external_id') > 255
      then format('external_id cannot be %s', left(p_item ->> 'external_id', 40))
  end
$$;

comment on function fleet.sighting_problem(jsonb) is
  'Why nobody can tell which device another system speaks of; null where it is clear.';
revoke all on function fleet.sighting_problem(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.odd_facts(p_item jsonb)
returns table (name text, value text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select f.name, left(f.value #>> '{}', 40)
  from (
    select t.name, p_item -> t.name as value,
      jsonb_typeof(p_item -> t.name) = 'string' and length(p_item ->> t.name) <= 255 as is_fit
    from unnest('{hostname,name,serial_number,platform}'::text[]) as t(name)
    union all
    select t.name, p_item -> t.name, fleet.told_instant(p_item -> t.name) is not null
    from unnest('{last_seen,located_at}'::text[]) as t(name)
    union all
    select v.name, p_item -> v.name, v.is_fit
    from (
      values
        ('latitude', fleet.is_within(p_item -> 'latitude', -90, 90)),
        ('longitude', fleet.is_within(p_item -> 'longitude', -180, 180)),
        ('accuracy_m', fleet.is_within(p_item -> 'accuracy_m', 0, 20000000)),
        ('is_enrolled', jsonb_typeof(p_item -> 'is_enrolled') = 'boolean'),
        ('attributes', jsonb_typeof(p_item -> 'attributes') = 'object'),
        ('capabilities', jsonb_typeof(p_item -> 'capabilities') = 'object'),
        ('profiles', fleet.are_ids(p_item -> 'profiles'))
    ) as v(name, is_fit)
    union all
    -- How a receiver says that it knows nothing.
    select 'latitude', '"0 by 0 to the metre"', false
    where p_item ->> 'latitude' ~ '^-?0(\.0*)?$' and p_item ->> 'longitude' ~ '^-?0(\.0*)?$' and p_item ->> 'accuracy_m' ~ '^-?0(\.0*)?$'
  ) as f
  where jsonb_typeof(f.value) <> 'null' and not f.is_fit
$$;

comment on function fleet.odd_facts(jsonb) is
  'What another system says of a device that cannot be so; it is left out, the device is not.';
revoke all on function fleet.odd_facts(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.parsed_sightings(p_devices jsonb)
returns table (
  nr bigint, external_id text, name text, hostname text, serial_number text, platform text, last_seen timestamptz,
  is_enrolled boolean, attributes jsonb, capabilities jsonb, profiles jsonb, latitude jsonb, longitude jsonb, accuracy_m jsonb, located_at timestamptz,
  problem text, notes text
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with given as (
    select e.nr, e.item, fleet.sighting_problem(e.item) as problem,
      -- Of a device that is told twice the last word counts.
      row_number() over (partition by e.item ->> 'external_id' order by e.nr desc) as copy_nr
    from (
      select x.nr, case jsonb_typeof(x.item) when 'object' then x.item else '{}' end as item
      from jsonb_array_elements(p_devices) with ordinality as x(item, nr)
    ) as e
  ),
  fit as materialized (
    select g.nr, case when g.problem is null then g.item - coalesce(o.names, '{}') - o.with_them else '{}' end as item,
      g.item ->> 'external_id' as external_id, g.problem, o.notes
    from given as g
    cross join lateral (
      select array_agg(x.name) as names,
        -- Of a position whose accuracy cannot be nobody knows what it means.
        case when bool_or(x.name = 'accuracy_m') then '{latitude,longitude}'::text[] else '{}' end as with_them, string_agg(format('%s cannot be %s', x.name, x.value), '; ') as notes
      from fleet.odd_facts(g.item) as x
    ) as o
    where g.copy_nr = 1 or g.item ->> 'external_id' is null
  )
  select f.nr, f.external_id, n.name, coalesce(n.name, n.serial_number, f.external_id), n.serial_number,
    nullif(f.item ->> 'platform', ''),
    fleet.told_instant(f.item -> 'last_seen'),
    coalesce((f.item ->> 'is_enrolled')::boolean, true),
    coalesce(nullif(f.item -> 'attributes', 'null'), '{}'),
    jsonb_strip_nulls(coalesce(nullif(f.item -> 'capabilities', 'null'), '{}')),
    case jsonb_typeof(f.item -> 'profiles')
      -- Numbers among them become texts, as everywhere.
      when 'array' then (
        select coalesce(jsonb_agg(distinct p.id), '[]') from jsonb_array_elements_text(f.item -> 'profiles') as p(id)
      )
    end,
    f.item -> 'latitude', f.item -> 'longitude', f.item -> 'accuracy_m', fleet.told_instant(f.item -> 'located_at'), f.problem,
    case when f.problem is null then f.notes end
  from fit as f
  cross join lateral (
    select coalesce(nullif(btrim(f.item ->> 'hostname'), ''), nullif(btrim(f.item ->> 'name'), '')) as name,
      nullif(btrim(f.item ->> 'serial_number'), '') as serial_number
  ) as n
$$;

comment on function fleet.parsed_sightings(jsonb) is
  'What another system says of its devices as columns, each device once. What is wrong with one is its problem, not that of the others; '
  'what cannot be so is left out, which notes tell; '
  'name is null where it told none, hostname then is made of what it told.';
revoke all on function fleet.parsed_sightings(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.matched_sightings(p_integration public.device_integrations, p_items jsonb)
returns table (nr bigint, device_id bigint)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with items as materialized (
    select i.nr, i.external_id, i.serial_number, lower(i.name) as name, i.is_enrolled
    from jsonb_to_recordset(p_items) as i(
      nr bigint, external_id text, serial_number text, name text, is_enrolled boolean
    )
  ),
  linked as materialized (
    select i.nr, l.device_id, i.is_enrolled
    from items as i
    join public.device_links as l on l.integration_id = p_integration.id and l.external_id = i.external_id
  ),
  strange as materialized (
    select i.* from items as i where i.is_enrolled and not exists (select 1 from linked as l where l.nr = i.nr)
  ),
  -- One that the other system has under another id is not free; one that has left it is, for who has its serial number.
  free as materialized (
    select d.id, d.attributes ->> 'serial_number' as serial_number, lower(d.hostname) as name, l.device_id is null as is_unlinked
    from public.devices as d
    left join public.device_links as l on l.device_id = d.id and l.integration_id = p_integration.id
    left join linked as k on k.device_id = d.id
    where d.owner_id = p_integration.owner_id
      and exists (select 1 from strange)
      and (
        d.attributes ->> 'serial_number' in (select s.serial_number from strange as s)
        or lower(d.hostname) in (select s.name from strange as s)
      )
      and (l.device_id is null or l.left_at is not null or not k.is_enrolled)
      and k.is_enrolled is distinct from true
  ),
  by_serial as materialized (
    select s.nr, f.id as device_id
    from (
      select x.nr, x.serial_number, row_number() over (partition by x.serial_number order by x.nr) as serial_nr
      from strange as x
    ) as s
    join (
      select x.id, x.serial_number, row_number() over (partition by x.serial_number order by x.id) as serial_nr
      from free as x
    ) as f on f.serial_number = s.serial_number and f.serial_nr = s.serial_nr
  ),
  by_name as (
    select distinct on (f.id) s.nr, f.id as device_id
    from strange as s
    join free as f on f.name = s.name and f.is_unlinked
    where coalesce(f.serial_number = s.serial_number, true)
      and not exists (select 1 from by_serial as b where b.nr = s.nr or b.device_id = f.id)
    order by f.id, s.nr
  )
  select l.nr, l.device_id
  from linked as l
  where l.is_enrolled or not exists (select 1 from by_serial as b where b.device_id = l.device_id)
  union all
  select b.nr, b.device_id from by_serial as b
  union all
  select b.nr, b.device_id from by_name as b
$$;

comment on function fleet.matched_sightings(public.device_integrations, jsonb) is
  'Which of our devices another system means: by the link, else the serial number, else the name. No device is meant by two items and no '
  'item means two devices; no row for an item that means none of ours, nor for one that is not enrolled and was never linked.';
revoke all on function fleet.matched_sightings(public.device_integrations, jsonb) from public, anon, authenticated, service_role;

-- db/sources/50_integrations/35_inventory.sql
-- Bringing the devices of another system into the registry: a page of any size by a handful of statements.

create or replace function fleet.sighted_attributes(p_item jsonb)
returns jsonb
language sql
immutable
parallel safe
return (p_item -> 'attributes') || jsonb_strip_nulls(jsonb_build_object('serial_number', p_item -> 'serial_number'));

comment on function fleet.sighted_attributes(jsonb) is 'What a parsed sighting adds to the facts about its device.';
revoke all on function fleet.sighted_attributes(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.add_sighted_devices(p_owner_id uuid, p_items jsonb)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_made jsonb := '[]';
  v_spelling text;
begin
  -- A name that is taken, by a device or by another of these, is told apart by the id in the other system.
  foreach v_spelling in array '{"%1$s","%1$s (%2$s)"}'::text[] loop
    exit when jsonb_array_length(v_made) = jsonb_array_length(p_items);
    with wanted as materialized (
      select distinct on (lower(w.hostname)) w.item, w.nr, w.hostname
      from (
        select e.item, (e.item ->> 'nr')::bigint as nr,
          format(v_spelling, e.item ->> 'hostname', e.item ->> 'external_id') as hostname
        from jsonb_array_elements(p_items) as e(item)
      ) as w
      left join jsonb_to_recordset(v_made) as m(nr bigint) on m.nr = w.nr
      where m.nr is null
      order by lower(w.hostname), w.nr
    ),
    made as (
      insert into public.devices (owner_id, hostname, platform, attributes, last_seen, prepared)
      select p_owner_id, w.hostname, w.item ->> 'platform', fleet.sighted_attributes(w.item),
        (w.item ->> 'last_seen')::timestamptz, false
      from wanted as w
      -- In one order, so that two integrations of a fleet never wait for each other in a circle.
      order by lower(w.hostname)
      on conflict (owner_id, lower(hostname)) do nothing
      returning id, hostname
    )
    select v_made || coalesce(jsonb_agg(w.item || jsonb_build_object('device_id', m.id)), '[]') into v_made
    from wanted as w
    join made as m on m.hostname = w.hostname;
  end loop;
  if v_made <> '[]' then
    perform fleet.require_quota(p_owner_id, 'devices');
  end if;
  return v_made;
end;
$$;

comment on function fleet.add_sighted_devices(uuid, jsonb) is
  'Make devices of parsed sightings that mean none of ours. Answers those that were made, with device_id.';
revoke all on function fleet.add_sighted_devices(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.update_sighted_devices(p_items jsonb)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- In one order, so that two who write the same devices never wait for each other in a circle.
  perform 1
  from public.devices as d
  where d.id in (select i.device_id from jsonb_to_recordset(p_items) as i(device_id bigint))
  order by d.id
  for no key update;

  update public.devices as d
  set platform = n.platform, attributes = n.attributes, last_seen = n.last_seen
  from (
    select x.id, coalesce(x.platform, e.item ->> 'platform') as platform,
      x.attributes || fleet.sighted_attributes(e.item) as attributes,
      greatest(x.last_seen, (e.item ->> 'last_seen')::timestamptz) as last_seen
    from jsonb_array_elements(p_items) as e(item)
    join public.devices as x on x.id = (e.item ->> 'device_id')::bigint
  ) as n
  where d.id = n.id
    -- Most say what they said before.
    and (d.platform, d.attributes, d.last_seen) is distinct from (n.platform, n.attributes, n.last_seen);
end;
$$;

comment on function fleet.update_sighted_devices(jsonb) is 'Keep what parsed sightings, with device_id, say of devices of ours.';
revoke all on function fleet.update_sighted_devices(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.link_sighted_devices(p_integration public.device_integrations, p_items jsonb, p_now timestamptz)
returns integer
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  with kept as (
    insert into public.device_links as l (
      device_id, integration_id, owner_id, external_id, attributes, capabilities, seen_at, left_at
    )
    select d.id, p_integration.id, d.owner_id, i.external_id, i.attributes, i.capabilities, p_now,
      case when not i.is_enrolled then p_now end
    from jsonb_to_recordset(p_items) as i(
      device_id bigint, external_id text, attributes jsonb, capabilities jsonb, is_enrolled boolean
    )
    join public.devices as d on d.id = i.device_id
    order by d.id
    on conflict (device_id, integration_id) do update
      set external_id = excluded.external_id,
          -- Its state is read apart.
          attributes = excluded.attributes || jsonb_strip_nulls(jsonb_build_object('state', l.attributes -> 'state')),
          capabilities = excluded.capabilities,
          seen_at = excluded.seen_at, updated_at = p_now,
          left_at = case when excluded.left_at is not null then coalesce(l.left_at, excluded.left_at) end
    returning l.left_at
  )
  select count(*)::integer from kept as k where k.left_at = p_now
$$;

comment on function fleet.link_sighted_devices(public.device_integrations, jsonb, timestamptz) is
  'Link devices to what another system calls them. One that is not enrolled there has left. Answers how many have just left.';
revoke all on function fleet.link_sighted_devices(public.device_integrations, jsonb, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.store_sighted_profiles(p_items jsonb, p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into public.device_profiles as p (device_id, profile_id, owner_id, is_installed, changed_at)
  select d.id, u.profile_id, d.owner_id, true, p_now
  from jsonb_to_recordset(p_items) as i(device_id bigint, profiles jsonb)
  join public.devices as d on d.id = i.device_id
  cross join lateral jsonb_array_elements_text(coalesce(nullif(i.profiles, 'null'), '[]')) as u(profile_id)
  order by d.id, u.profile_id
  on conflict (device_id, profile_id) do update
    set is_installed = true, changed_at = excluded.changed_at;

  update public.device_profiles as p
  set is_installed = false, changed_at = p_now
  from jsonb_to_recordset(p_items) as i(device_id bigint, profiles jsonb)
  where p.device_id = i.device_id
    and p.is_installed
    and jsonb_typeof(i.profiles) = 'array'
    and not i.profiles ? p.profile_id;
end;
$$;

comment on function fleet.store_sighted_profiles(jsonb, timestamptz) is
  'Keep which profiles are on devices, where the other system tells them.';
revoke all on function fleet.store_sighted_profiles(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.nameless_sightings(p_items jsonb, p_made jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    jsonb_agg(jsonb_build_object(
      'external_id', e.item ->> 'external_id',
      'error', format('the host names %s and %1$s (%s) are taken', e.item ->> 'hostname', e.item ->> 'external_id')
    )),
    '[]'
  )
  from jsonb_array_elements(p_items) as e(item)
  left join jsonb_to_recordset(p_made) as m(nr bigint) on m.nr = (e.item ->> 'nr')::bigint
  where m.nr is null
$$;

comment on function fleet.nameless_sightings(jsonb, jsonb) is 'Errors for the new devices that were not made, since there was no name left for them.';
revoke all on function fleet.nameless_sightings(jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.take_sightings(p_integration public.device_integrations, p_devices jsonb, p_now timestamptz)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_items jsonb;
  v_known jsonb;
  v_new jsonb;
  v_made jsonb;
  v_errors jsonb;
  v_notes jsonb;
  v_left integer;
begin
  select coalesce(jsonb_agg(to_jsonb(s) - '{problem,notes}'::text[]) filter (where s.problem is null), '[]'),
    coalesce(
      jsonb_agg(jsonb_build_object('external_id', s.external_id, 'error', s.problem) order by s.nr)
        filter (where s.problem is not null),
      '[]'
    ),
    coalesce(
      jsonb_agg(jsonb_build_object('external_id', s.external_id, 'error', s.notes) order by s.nr) filter (where s.notes is not null), '[]'
    )
  into v_items, v_errors, v_notes
  from fleet.parsed_sightings(p_devices) as s;
  select coalesce(jsonb_agg(e.item || jsonb_build_object('device_id', m.device_id)) filter (where m.nr is not null), '[]'),
    -- What is not in the other system, and never was as far as we know, is none of our devices.
    coalesce(jsonb_agg(e.item) filter (where m.nr is null and (e.item ->> 'is_enrolled')::boolean), '[]')
  into v_known, v_new
  from jsonb_array_elements(v_items) as e(item)
  left join fleet.matched_sightings(p_integration, v_items) as m on m.nr = (e.item ->> 'nr')::bigint;

  perform fleet.update_sighted_devices(v_known);
  v_made := fleet.add_sighted_devices(p_integration.owner_id, v_new);
  v_left := fleet.link_sighted_devices(p_integration, v_known || v_made, p_now);
  perform fleet.store_sighted_profiles(v_known || v_made, p_now);
  perform fleet.take_linked_fixes(p_integration.id, v_known || v_made, p_now);

  -- They are there, whatever is wrong with what is told of them.
  update public.device_links as l
  set seen_at = p_now
  from jsonb_to_recordset(v_errors) as e(external_id text)
  where l.integration_id = p_integration.id and l.external_id = e.external_id;
  return jsonb_build_object(
    'created', jsonb_array_length(v_made), 'updated', jsonb_array_length(v_known), 'left', v_left,
    'errors', v_errors || fleet.nameless_sightings(v_new, v_made), 'notes', v_notes
  );
end;
$$;

comment on function fleet.take_sightings(public.device_integrations, jsonb, timestamptz) is
  'Bring what another system says of its devices into the fleet; the caller has locked the integration. {created, updated, left, errors, '
  'notes}: what cannot be so is left out and noted.';
revoke all on function fleet.take_sightings(public.device_integrations, jsonb, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/50_integrations/40_sync.sql
-- Reading all devices of another system: whose turn it is, page by page, and what holds when a sync came to its end.

create or replace function fleet.is_sync_due(p_integration public.device_integrations, p_now timestamptz)
returns boolean
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select p_integration.status = 'active'
    and coalesce(p_integration.sync_held_until <= p_now, true)
    and (
      p_integration.sync_requested_at > coalesce(p_integration.last_sync_at, '-infinity')
      or (
        p_integration.settings -> 'syncEnabled' is distinct from 'false'::jsonb
        and coalesce(
          p_integration.last_sync_at + make_interval(secs => case
            when jsonb_typeof(p_integration.settings -> 'syncIntervalSeconds') = 'number'
              then least(
                (p_integration.settings ->> 'syncIntervalSeconds')::numeric, fleet.limit_value('sync_interval')
              )::double precision
            else 3600
          end) <= p_now,
          true
        )
      )
    )
$$;

comment on function fleet.is_sync_due(public.device_integrations, timestamptz) is
  'Whether the devices of the other system are to be read now: somebody asked, or settings.syncIntervalSeconds (an hour) have passed.';
revoke all on function fleet.is_sync_due(public.device_integrations, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_claim_mdm_syncs(p_shares jsonb default '{}', p_now timestamptz default clock_timestamp())
returns setof jsonb
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  with due as (
    select i.id, i.owner_id,
      row_number() over (
        partition by i.owner_id order by i.sync_requested_at nulls last, i.last_sync_at nulls first
      ) as turn
    from public.device_integrations as i
    where i.integration_type = any (fleet.mdm_integration_types())
      and fleet.share_of(p_shares, 'way', i.id::text) > 0
      and fleet.is_sync_due(i, p_now)
  ),
  chosen as (
    select d.id
    from due as d
    where d.turn <= fleet.share_of(p_shares, 'owner', d.owner_id::text)
    -- Owners in turn, and nobody is always last.
    order by d.turn, random()
    limit fleet.share_in_all(p_shares)
  ),
  locked as (
    select i.id
    from public.device_integrations as i
    -- Another function may have taken it meanwhile.
    where i.id in (select c.id from chosen as c) and fleet.is_sync_due(i, p_now)
    for update skip locked
  ),
  taken as (
    update public.device_integrations as i
    set sync_held_until = p_now + interval '5 minutes'
    from locked as k
    where i.id = k.id
    returning i.*
  )
  select jsonb_build_object(
    'integration_id', t.id, 'owner_id', t.owner_id, 'integration_type', t.integration_type, 'settings', t.settings,
    'secret', s.secret, 'last_sync_at', t.last_sync_at, 'started_at', p_now
  )
  from taken as t
  left join lateral (select fleet.stored_secret('integration:' || t.id) as secret) as s on true
$$;

comment on function fleet.worker_claim_mdm_syncs(jsonb, timestamptz) is
  'Lease integrations whose devices are to be read, for five minutes: {integration_id, owner_id, integration_type, settings, secret, '
  'last_sync_at, started_at}; owners in turn, as many of each as p_shares allows. worker_end_mdm_sync ends the lease. Definer: the worker '
  'reads no table.';
revoke all on function fleet.worker_claim_mdm_syncs(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_sync_inventory(
  p_integration_id bigint,
  p_devices jsonb,
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
begin
  -- Its lock makes two syncs of the same integration take turns.
  select i.* into v_integration from public.device_integrations as i where i.id = p_integration_id for update;
  if not found then
    return jsonb_build_object('accepted', false, 'reason', 'not_found');
  end if;
  -- Two integrations of a fleet may be with one project: each would make the devices that the other one makes.
  perform pg_advisory_xact_lock(hashtextextended('pgfleet.sightings:' || v_integration.owner_id, 0));
  return jsonb_build_object('accepted', true) || fleet.take_sightings(v_integration, p_devices, p_now);
end;
$$;

comment on function fleet.worker_sync_inventory(bigint, jsonb, timestamptz) is
  'Bring a page of devices into the fleet: a list of {external_id, hostname or name, serial_number, platform, last_seen, latitude, longitude, '
  'accuracy_m, located_at, is_enrolled (false: it has left), attributes, profiles (ids, where they are known)}. {accepted, created, updated, '
  'left, errors: [{external_id, error}], notes: [{external_id, error}] of what was left out of devices}. Definer: the worker writes no table.';
revoke all on function fleet.worker_sync_inventory(bigint, jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.mark_devices_left(p_integration_id bigint, p_started_at timestamptz, p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  update public.device_links as l
  set left_at = p_now, updated_at = p_now
  where l.integration_id = p_integration_id
    and l.left_at is null
    and coalesce(l.seen_at, l.created_at) < p_started_at;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.mark_devices_left(bigint, timestamptz, timestamptz) is
  'Mark that another system no longer has the devices that were not seen since a sync began. Answers how many.';
revoke all on function fleet.mark_devices_left(bigint, timestamptz, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_end_mdm_sync(
  p_integration_id bigint,
  p_started_at timestamptz,
  p_report jsonb,
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
  v_is_through boolean := p_report ->> 'error' is null;
  v_counts jsonb := coalesce(p_report -> 'counts', '{}');
  v_left integer := 0;
begin
  select i.* into v_integration from public.device_integrations as i where i.id = p_integration_id for update;
  if not found then
    return jsonb_build_object('accepted', false, 'reason', 'not_found');
  end if;

  if v_is_through then
    -- A list without any device is a fault rather than an account that everybody left.
    if (v_counts ->> 'devices')::integer > 0 then
      v_left := fleet.mark_devices_left(p_integration_id, p_started_at, p_now);
      v_counts := v_counts || jsonb_build_object('left', coalesce((v_counts ->> 'left')::integer, 0) + v_left);
    end if;
    update public.device_integrations as i
    -- Who asks while it runs is not answered by it.
    set last_sync_at = greatest(i.last_sync_at, p_started_at), sync_held_until = null
    where i.id = p_integration_id;
  end if;
  perform fleet.log_activity(v_integration, jsonb_build_object(
    'activity_type', 'sync_import',
    'status', case when v_is_through then 'completed' else 'failed' end,
    'counts', v_counts,
    'duration_ms', round(extract(epoch from p_now - p_started_at) * 1000),
    'error', p_report -> 'error',
    'detail', jsonb_strip_nulls(jsonb_build_object(
      'errors', fleet.errors_to_log(coalesce(p_report -> 'errors', '[]'), p_integration_id),
      'notes', nullif(fleet.errors_to_log(coalesce(p_report -> 'notes', '[]'), p_integration_id), '[]')
    ))
  ), p_now);
  return jsonb_build_object('accepted', true, 'left', v_left);
end;
$$;

comment on function fleet.worker_end_mdm_sync(bigint, timestamptz, jsonb, timestamptz) is
  'A sync that began at started_at has read every page, or stopped for an error: {counts: {devices, created, updated, left, errors, notes}, '
  'errors and notes: [{external_id, error}], error}. What a whole one did not see has left. {accepted, left}. Definer: the worker writes no table.';
revoke all on function fleet.worker_end_mdm_sync(bigint, timestamptz, jsonb, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/50_integrations/50_webhooks.sql
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

-- db/sources/50_integrations/views.sql
-- Integrations and what they did, as people list them.

drop view if exists public.integration_list;
create view public.integration_list with (security_invoker = true) as
select
  i.id,
  i.owner_id,
  i.name,
  i.integration_type,
  i.status,
  i.status_reason,
  i.needs_secret,
  i.settings,
  (select count(*) from public.device_links as l where l.integration_id = i.id and l.left_at is null) as devices,
  i.last_sync_at,
  i.sync_requested_at,
  i.created_at
from public.device_integrations as i;

comment on view public.integration_list is
  'Integrations with how they are.';
comment on column public.integration_list.devices is 'How many devices it has.';
select fleet.inherit_comments('public.integration_list', 'public.device_integrations');
revoke all on table public.integration_list from public, anon, authenticated, service_role;
grant select on table public.integration_list to authenticated, service_role;

drop view if exists public.integration_activity_list;
create view public.integration_activity_list with (security_invoker = true) as
select
  a.id, a.owner_id, a.created_at, i.name as integration, a.activity_type, a.status, a.counts, a.duration_ms, a.error, a.detail,
  a.integration_id
from public.integration_activity_log as a
left join public.device_integrations as i on i.id = a.integration_id;

comment on view public.integration_activity_list is
  'What integrations did: syncs, and webhooks that came.';
comment on column public.integration_activity_list.integration is 'The name of the integration.';
select fleet.inherit_comments('public.integration_activity_list', 'public.integration_activity_log');
revoke all on table public.integration_activity_list from public, anon, authenticated, service_role;
grant select on table public.integration_activity_list to authenticated, service_role;

drop view if exists public.integration_webhook_list;
create view public.integration_webhook_list with (security_invoker = true) as
select
  w.id, w.owner_id, i.name as integration, w.integration_id, w.last_used_at, w.revoked_at, w.created_by, w.created_at
from public.integration_webhooks as w
join public.device_integrations as i on i.id = w.integration_id;

comment on view public.integration_webhook_list is
  'Addresses on which other systems call, without their secrets.';
comment on column public.integration_webhook_list.integration is 'The name of the integration.';
select fleet.inherit_comments('public.integration_webhook_list', 'public.integration_webhooks');
revoke all on table public.integration_webhook_list from public, anon, authenticated, service_role;
grant select on table public.integration_webhook_list to authenticated, service_role;

-- db/sources/50_integrations/triggers.sql
-- What holds for integrations and their secrets however a row is written.

create or replace trigger device_integrations_01_fill_owner
  before insert on public.device_integrations
  for each row execute function fleet.tg_owner_from_caller();

create or replace function fleet.tg_check_integration()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- One that was made before there was a rule still pauses and goes on.
  if tg_op = 'INSERT' or (new.name, new.integration_type, new.settings) is distinct from (old.name, old.integration_type, old.settings) then
    perform fleet.raise_problems('the integration', 'integration_invalid', array_agg(q))
    from fleet.integration_problems(new) as q;
  end if;
  new.updated_at := now();
  if new.status = 'active' then
    new.status_reason := null;
    new.needs_secret := false;
  end if;
  return new;
end;
$$;

comment on function fleet.tg_check_integration() is
  'Refuse integrations that are not valid, and secrets among their settings. Definer: whoever may write the table may not call what it '
  'checks with.';
revoke all on function fleet.tg_check_integration() from public, anon, authenticated, service_role;

create or replace trigger device_integrations_02_check
  before insert or update of name, integration_type, settings, status on public.device_integrations
  for each row execute function fleet.tg_check_integration();

create or replace function fleet.tg_forget_integration()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from public.pg_cron_secrets as s where s.name = 'integration:' || old.id;
  delete from public.pg_cron_secrets as s
  where s.name in (select 'webhook:' || w.id from public.integration_webhooks as w where w.integration_id = old.id);
  return old;
end;
$$;

comment on function fleet.tg_forget_integration() is
  'The secret goes with its integration. Definer: whoever may delete the one may not read the other.';
revoke all on function fleet.tg_forget_integration() from public, anon, authenticated, service_role;

drop trigger if exists device_integrations_03_forget on public.device_integrations;
create or replace trigger device_integrations_05_forget
  before delete on public.device_integrations
  for each row execute function fleet.tg_forget_integration();

create or replace function fleet.tg_resume_integration()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  update public.device_integrations as i
  set status = 'active'
  where 'integration:' || i.id = new.name and i.status = 'paused' and i.needs_secret;
  -- Outside of the turnstile, as for new commands.
  perform fleet.poke(f.name, jsonb_build_object('at', clock_timestamp()), clock_timestamp())
  from public.device_integrations as i
  cross join lateral fleet.function_of_integration(i.integration_type) as f(name)
  where 'integration:' || i.id = new.name;
  return null;
end;
$$;

comment on function fleet.tg_resume_integration() is
  'An integration whose secret was refused goes on when it gets another. Definer: whoever writes secrets may not write integrations.';
revoke all on function fleet.tg_resume_integration() from public, anon, authenticated, service_role;

create or replace trigger pg_cron_secrets_01_resume_insert
  after insert on public.pg_cron_secrets
  for each row when (new.name like 'integration:%') execute function fleet.tg_resume_integration();
create or replace trigger pg_cron_secrets_01_resume_update
  after update of secret on public.pg_cron_secrets
  for each row
  when (new.name like 'integration:%' and new.secret is distinct from old.secret)
  execute function fleet.tg_resume_integration();

-- What people change, not how each sync went.
select fleet.keep_audit(
  'public.device_integrations', p_columns => '{name,integration_type,status,status_reason,settings}'
);
select fleet.keep_audit('public.integration_webhooks', p_columns => '{revoked_at}');

select fleet.keep_quota('public.device_integrations', 'integrations');

-- db/sources/50_integrations/access.sql
-- Who sees integrations, their links, calls and activity: the owner's people. They change them through functions. Devices see none.

revoke all on table public.device_integrations, public.device_links, public.mdm_api_logs
  from public, anon, authenticated, service_role;
revoke all on sequence public.device_integrations_id_seq, public.mdm_api_logs_id_seq
  from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.device_integrations, public.device_links, public.mdm_api_logs
  to service_role;
grant usage, select on sequence public.device_integrations_id_seq, public.mdm_api_logs_id_seq to service_role;

drop policy if exists device_integrations_all_service_role on public.device_integrations;
create policy device_integrations_all_service_role on public.device_integrations
  for all to service_role using (true) with check (true);
drop policy if exists device_links_all_service_role on public.device_links;
create policy device_links_all_service_role on public.device_links
  for all to service_role using (true) with check (true);
drop policy if exists mdm_api_logs_all_service_role on public.mdm_api_logs;
create policy mdm_api_logs_all_service_role on public.mdm_api_logs
  for all to service_role using (true) with check (true);

grant select on table public.device_integrations, public.device_links, public.mdm_api_logs to authenticated;
drop policy if exists device_integrations_select_member on public.device_integrations;
create policy device_integrations_select_member on public.device_integrations
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists device_links_select_member on public.device_links;
create policy device_links_select_member on public.device_links
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
-- What an MDM answers may hold passcodes and the like.
drop policy if exists mdm_api_logs_select_manager on public.mdm_api_logs;
create policy mdm_api_logs_select_manager on public.mdm_api_logs
  for select to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));

revoke all on table public.integration_activity_log, public.integration_webhooks
  from public, anon, authenticated, service_role;
revoke all on sequence public.integration_activity_log_id_seq, public.integration_webhooks_id_seq
  from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.integration_activity_log, public.integration_webhooks to service_role;
grant usage, select on sequence public.integration_activity_log_id_seq, public.integration_webhooks_id_seq to service_role;

drop policy if exists integration_activity_log_all_service_role on public.integration_activity_log;
create policy integration_activity_log_all_service_role on public.integration_activity_log
  for all to service_role using (true) with check (true);
drop policy if exists integration_webhooks_all_service_role on public.integration_webhooks;
create policy integration_webhooks_all_service_role on public.integration_webhooks
  for all to service_role using (true) with check (true);

grant select on table public.integration_activity_log to authenticated;
drop policy if exists integration_activity_log_select_member on public.integration_activity_log;
create policy integration_activity_log_select_member on public.integration_activity_log
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
-- Everything but the hash of the secret.
grant select (id, owner_id, integration_id, last_used_at, revoked_at, created_by, created_at)
  on table public.integration_webhooks to authenticated;
drop policy if exists integration_webhooks_select_member on public.integration_webhooks;
create policy integration_webhooks_select_member on public.integration_webhooks
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

-- Who takes webhooks is the sources' own business.
revoke all on table fleet.webhook_handlers from public, anon, authenticated, service_role;

set check_function_bodies = on;
reset search_path;
