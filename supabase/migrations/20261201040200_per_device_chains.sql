-- Generated from db/migrations/20261201040200_per_device_chains.sql by pgfleet db bundle; edit that file instead.
-- Chains device by device: a follower starts on each device when that device is done, not when the whole run is.

alter table public.schedules add column after_per_device boolean not null default false;
alter table public.schedule_runs add column is_fed boolean not null default false;

comment on column public.schedules.after_per_device is
  'Whether each device goes on by itself when it is done with the run that this schedule follows; otherwise all begin when that run is whole.';
comment on column public.schedule_runs.is_fed is
  'Whether its commands still come one by one, as devices are done with the run before (after.per_device).';

create index schedule_runs_fed_idx on public.schedule_runs (after_run_id) where is_fed;

-- No foreign keys: who is done with a command waits for nobody who deletes a schedule. What is gone by then is passed over.
create table fleet.chain_steps (
  id bigint generated always as identity primary key,
  owner_id uuid not null,
  schedule_id bigint not null,
  after_run_id bigint not null,
  device_id bigint not null,
  created_at timestamptz not null default now()
);
comment on table fleet.chain_steps is
  'Devices that are done with a run and have their turn in a schedule that follows it device by device. The tick takes them within a second.';
comment on column fleet.chain_steps.schedule_id is 'The schedule that follows.';
comment on column fleet.chain_steps.after_run_id is 'The run that the device is done with.';

create index chain_steps_owner_idx on fleet.chain_steps (owner_id, id);
create index chain_steps_after_run_idx on fleet.chain_steps (after_run_id);

alter table fleet.chain_steps enable row level security;
revoke all on table fleet.chain_steps from public, anon, authenticated, service_role;
revoke all on sequence fleet.chain_steps_id_seq from public, anon, authenticated, service_role;
