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
