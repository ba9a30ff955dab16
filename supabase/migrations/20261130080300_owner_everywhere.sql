-- Generated from db/migrations/20261130080300_owner_everywhere.sql by pgfleet db bundle; edit that file instead.
-- Every row that belongs to an owner says so itself: an owner can then be looked at, moved and taken away whole.

alter table fleet.device_credentials add column owner_id uuid;
update fleet.device_credentials as x set owner_id = p.owner_id from public.devices as p where p.id = x.device_id;
alter table fleet.device_credentials alter column owner_id set not null;
comment on column fleet.device_credentials.owner_id is 'The owner of the device.';
create index device_credentials_owner_idx on fleet.device_credentials (owner_id);

alter table fleet.webhook_secrets add column owner_id uuid;
update fleet.webhook_secrets as x set owner_id = p.owner_id from public.webhook_endpoints as p where p.id = x.endpoint_id;
alter table fleet.webhook_secrets alter column owner_id set not null;
comment on column fleet.webhook_secrets.owner_id is 'The owner of the endpoint.';
create index webhook_secrets_owner_idx on fleet.webhook_secrets (owner_id);

alter table fleet.rate_limits add column owner_id uuid;
update fleet.rate_limits as x set owner_id = p.owner_id from public.device_integrations as p where p.id = x.integration_id;
alter table fleet.rate_limits alter column owner_id set not null;
comment on column fleet.rate_limits.owner_id is 'The owner of the integration.';
create index rate_limits_owner_idx on fleet.rate_limits (owner_id);

alter table fleet.mdm_rereads add column owner_id uuid;
update fleet.mdm_rereads as x set owner_id = p.owner_id from public.device_integrations as p where p.id = x.integration_id;
alter table fleet.mdm_rereads alter column owner_id set not null;
comment on column fleet.mdm_rereads.owner_id is 'The owner of the integration.';
create index mdm_rereads_owner_idx on fleet.mdm_rereads (owner_id);

alter table fleet.mdm_work add column owner_id uuid;
update fleet.mdm_work as x set owner_id = p.owner_id from public.devices as p where p.id = x.device_id;
delete from fleet.mdm_work where owner_id is null;
alter table fleet.mdm_work alter column owner_id set not null;
comment on column fleet.mdm_work.owner_id is 'The owner of the device.';
create index mdm_work_owner_idx on fleet.mdm_work (owner_id);
