-- Generated from db/migrations/20261122090000_platform.sql by pgfleet db bundle; edit that file instead.
-- The engine room: its schema, settings, secrets, heartbeat and the time zones that schedules may name.

create schema if not exists fleet;

comment on schema fleet is
  'pgfleet engine room: recurrence, ticks, expansion, claims, doorbells and settings. People call functions in public.';

revoke all on schema fleet from public;

create table fleet.settings (
  name text primary key,
  value jsonb not null,
  description text not null default '',
  updated_at timestamptz not null default now(),
  constraint settings_name_is_snake_case check (name ~ '^[a-z][a-z0-9_]*$')
);

comment on table fleet.settings is
  'One setting a row; change with fleet.set_setting(). Secrets never live here: see public.pg_cron_secrets.';

alter table fleet.settings enable row level security;
revoke all on table fleet.settings from public, anon, authenticated, service_role;
grant select on table fleet.settings to service_role;

create policy settings_select_service_role on fleet.settings
  for select to service_role using (true);

create table if not exists public.pg_cron_secrets (
  name text primary key,
  secret text not null,
  created_at timestamptz default now(),
  updated_at timestamptz default now()
);

comment on table public.pg_cron_secrets is
  'Secrets by name, for jobs and integrations. Only the service role and the owner of the database may read it.';

alter table public.pg_cron_secrets enable row level security;
revoke all on table public.pg_cron_secrets from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.pg_cron_secrets to service_role;

create table fleet.heartbeat (
  id boolean primary key default true,
  last_tick_at timestamptz,
  tick_count bigint not null default 0,
  tick_ms numeric,
  last_rang_at timestamptz,
  last_error text,
  last_error_at timestamptz,
  created_at timestamptz not null default now(),
  constraint heartbeat_is_one_row check (id)
)
-- Updated every second: room on the page keeps the updates heap-only.
with (fillfactor = 50);

comment on table fleet.heartbeat is
  'One row: when the last tick ran, how long it took in milliseconds, and the last error that a tick survived.';
comment on column fleet.heartbeat.last_rang_at is
  'Up to when doorbells have had their share of the pace.';

insert into fleet.heartbeat (id) values (true);

alter table fleet.heartbeat enable row level security;
revoke all on table fleet.heartbeat from public, anon, authenticated, service_role;
grant select on table fleet.heartbeat to service_role;

create policy heartbeat_select_service_role on fleet.heartbeat
  for select to service_role using (true);

create table fleet.time_zones (
  name text primary key
);

comment on table fleet.time_zones is
  'IANA time zones of this server, cached because reading pg_timezone_names takes over 100 ms. Refreshed at migrate.';

alter table fleet.time_zones enable row level security;
revoke all on table fleet.time_zones from public, anon, authenticated, service_role;
grant select on table fleet.time_zones to service_role;

create policy time_zones_select_service_role on fleet.time_zones
  for select to service_role using (true);
