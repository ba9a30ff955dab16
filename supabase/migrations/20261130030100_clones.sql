-- Generated from db/migrations/20261130030100_clones.sql by pgfleet db bundle; edit that file instead.
-- A disk that was copied carries the secret of its device: which agents use it is remembered.

alter table public.devices add column clone_seen_at timestamptz;
comment on column public.devices.clone_seen_at is
  'When two agents were last seen to use its secret in turn, as a copied disk does; null where none was. Re-keying the device ends it.';

alter table fleet.device_credentials
  add column instances text[] not null default '{}',
  add constraint device_credentials_instances_are_few check (cardinality(instances) <= 8);
comment on column fleet.device_credentials.instances is 'The agents that asked for tokens with it, the latest first.';

-- Its arguments change, and the sources that follow bring it back.
drop function if exists fleet.worker_device_token(text, timestamptz);
