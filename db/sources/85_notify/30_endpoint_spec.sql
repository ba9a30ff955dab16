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
