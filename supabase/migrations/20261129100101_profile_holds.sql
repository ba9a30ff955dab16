-- Generated from db/migrations/20261129100101_profile_holds.sql by pgfleet db bundle; edit that file instead.
-- Profiles that somebody holds on a device for a while: beside assignments, part of what is wanted there.
-- depends: 20261129100001_geo_schedules

create table public.profile_holds (
  device_id bigint not null,
  profile_id text not null,
  holder text not null,
  owner_id uuid not null,
  until timestamptz,
  created_at timestamptz not null default now(),
  primary key (device_id, profile_id, holder),
  constraint profile_holds_device_fkey foreign key (device_id, owner_id)
    references public.devices (id, owner_id) on delete cascade,
  constraint profile_holds_profile_is_within_bounds check (btrim(profile_id) <> '' and char_length(profile_id) <= 200),
  constraint profile_holds_holder_is_within_bounds check (btrim(holder) <> '' and char_length(holder) <= 200)
);

comment on table public.profile_holds is
  'Who holds which profile on which device. It is installed while anybody holds it, and removed when nobody does and nothing else wants it.';
comment on column public.profile_holds.profile_id is 'The MDM''s id of the profile.';
comment on column public.profile_holds.holder is 'What holds it, such as "geo schedule 7".';
comment on column public.profile_holds.until is 'When the hold is planned to end; whoever holds it takes it back.';

create index profile_holds_device_owner_idx on public.profile_holds (device_id, owner_id);
create index profile_holds_owner_idx on public.profile_holds (owner_id, profile_id);
create index profile_holds_holder_idx on public.profile_holds (holder);

alter table public.profile_holds enable row level security;
revoke all on table public.profile_holds from public, anon, authenticated, service_role;
