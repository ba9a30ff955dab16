-- Both sides of a sync, as people list them.

drop view if exists public.device_state_list;
create view public.device_state_list with (security_invoker = true) as
select
  l.device_id, l.owner_id, d.hostname, i.name as integration, l.integration_id, l.external_id, l.desired, l.desired_at,
  l.attributes -> 'state' as state, l.seen_at, l.left_at
from public.device_links as l
join public.device_integrations as i on i.id = l.integration_id and i.integration_type = 'golioth'
join public.devices as d on d.id = l.device_id;

comment on view public.device_state_list is 'What is wanted of each device in its Golioth project, and the state that it has there.';
comment on column public.device_state_list.hostname is 'The host name of the device.';
comment on column public.device_state_list.integration is 'The name of the integration.';
comment on column public.device_state_list.state is 'The LightDB State, as the last pull found it.';
select fleet.inherit_comments('public.device_state_list', 'public.device_links');
revoke all on table public.device_state_list from public, anon, authenticated, service_role;
grant select on table public.device_state_list to authenticated, service_role;

drop view if exists public.sync_conflict_list;
create view public.sync_conflict_list with (security_invoker = true) as
select
  c.id, c.owner_id, i.name as integration, d.hostname, c.field, c.local, c.remote, c.keep, c.created_at, c.integration_id, c.device_id
from public.sync_conflicts as c
join public.device_integrations as i on i.id = c.integration_id
join public.devices as d on d.id = c.device_id;

comment on view public.sync_conflict_list is 'What was changed on both sides of a sync, for a person to decide.';
comment on column public.sync_conflict_list.hostname is 'The host name of the device.';
comment on column public.sync_conflict_list.integration is 'The name of the integration.';
select fleet.inherit_comments('public.sync_conflict_list', 'public.sync_conflicts');
revoke all on table public.sync_conflict_list from public, anon, authenticated, service_role;
grant select on table public.sync_conflict_list to authenticated, service_role;
