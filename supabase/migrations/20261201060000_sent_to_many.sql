-- Generated from db/migrations/20261201060000_sent_to_many.sql by pgfleet db bundle; edit that file instead.
-- Commands that were sent to many devices at once.
-- depends: 20261130110100_geo_doorbells

alter table public.device_commands add column sent_as uuid;
comment on column public.device_commands.sent_as is 'What was sent to many devices at once has this in common; null for any other command.';
create index device_commands_sent_as_idx on public.device_commands (sent_as) where sent_as is not null;
create index device_commands_sent_key_idx on public.device_commands (owner_id, idempotency_key)
  where sent_as is not null and idempotency_key is not null;
