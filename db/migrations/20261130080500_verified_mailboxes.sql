-- A mailbox is told of nothing before whoever reads it has said so.

alter table public.webhook_endpoints add column verified_at timestamptz;
comment on column public.webhook_endpoints.verified_at is
  'When somebody entered the code that was sent to the mailbox; a webhook has none. Before that it is told of nothing.';
-- Those that are there have been told all the while.
update public.webhook_endpoints set verified_at = created_at where channel = 'email';

create table fleet.mailbox_codes (
  endpoint_id bigint primary key references public.webhook_endpoints (id) on delete cascade,
  owner_id uuid not null references public.owners (id) on delete cascade,
  code text not null,
  created_at timestamptz not null default now()
);

comment on table fleet.mailbox_codes is 'The code that was sent to a mailbox, until somebody enters it. Nobody reads it but who reads the mail.';
comment on column fleet.mailbox_codes.code is 'The code as it stands in the message.';

create index mailbox_codes_owner_idx on fleet.mailbox_codes (owner_id);
alter table fleet.mailbox_codes enable row level security;
revoke all on table fleet.mailbox_codes from public, anon, authenticated, service_role;
