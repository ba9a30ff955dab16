-- How much an owner may have and do: what was allowed to whom, and what was used of what is counted by time.

create table fleet.owner_quotas (
  owner_id uuid not null references public.owners (id) on delete cascade,
  name text not null,
  value bigint not null,
  created_at timestamptz not null default now(),
  primary key (owner_id, name),
  constraint owner_quotas_value_is_not_negative check (value >= 0)
);

comment on table fleet.owner_quotas is 'Quotas of single owners that are not those of the settings. Written by the service role alone.';
comment on column fleet.owner_quotas.name is 'Which: see fleet.quotas().';
comment on column fleet.owner_quotas.value is 'How much of it.';

create table fleet.quota_use (
  owner_id uuid not null references public.owners (id) on delete cascade,
  name text not null,
  left_over double precision not null,
  filled_at timestamptz not null,
  blocked_until timestamptz,
  created_at timestamptz not null default now(),
  primary key (owner_id, name)
)
with (fillfactor = 50);

comment on table fleet.quota_use is 'What is left to an owner of quotas that count by time; it fills up again as time goes by.';
comment on column fleet.quota_use.name is 'Which: see fleet.quotas().';
comment on column fleet.quota_use.left_over is 'How much was left at filled_at; below nothing where more was used than there was.';
comment on column fleet.quota_use.filled_at is 'When that was.';
comment on column fleet.quota_use.blocked_until is 'Nothing more until then: another quota was found used up.';

alter table fleet.owner_quotas enable row level security;
alter table fleet.quota_use enable row level security;
revoke all on table fleet.owner_quotas, fleet.quota_use from public, anon, authenticated, service_role;
grant select on table fleet.owner_quotas, fleet.quota_use to service_role;
create policy owner_quotas_select_service_role on fleet.owner_quotas for select to service_role using (true);
create policy quota_use_select_service_role on fleet.quota_use for select to service_role using (true);

create index device_commands_waiting_idx on public.device_commands (owner_id) where status = 'pending';
