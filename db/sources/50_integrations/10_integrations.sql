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
