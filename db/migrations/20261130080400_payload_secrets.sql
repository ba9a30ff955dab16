-- Secrets in payloads are kept here; where the payload was stands a seal, which only the device of the command has opened.

create table fleet.payload_secrets (
  id uuid primary key default gen_random_uuid(),
  owner_id uuid not null references public.owners (id) on delete cascade,
  value jsonb not null,
  expires_at timestamptz,
  created_at timestamptz not null default now()
);

comment on table fleet.payload_secrets is
  'PINs, passwords and the like out of payloads. Nobody reads it: a device gets what its commands need, a function what an MDM needs.';
comment on column fleet.payload_secrets.value is 'What was sealed.';
comment on column fleet.payload_secrets.expires_at is 'When the one command that it was for expires; null where it is of a schedule.';

create index payload_secrets_owner_idx on fleet.payload_secrets (owner_id);
create index payload_secrets_expires_at_idx on fleet.payload_secrets (expires_at) where expires_at is not null;
alter table fleet.payload_secrets enable row level security;
revoke all on table fleet.payload_secrets from public, anon, authenticated, service_role;
