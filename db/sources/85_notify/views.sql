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
