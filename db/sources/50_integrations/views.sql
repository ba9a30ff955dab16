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
