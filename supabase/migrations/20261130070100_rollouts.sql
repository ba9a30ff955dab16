-- Generated from db/migrations/20261130070100_rollouts.sql by pgfleet db bundle; edit that file instead.
-- Rollouts: runs that reach their devices group by group, at a rate, and stop by rule.
-- depends: 20261130070000_deployments

alter table public.device_commands add column wave smallint;
comment on column public.device_commands.wave is
  'The group of its rollout, counted from 0; null where its run reaches everybody at once. Until its turn comes it is held.';

create table public.run_waves (
  run_id bigint not null references public.schedule_runs (id) on delete cascade,
  wave smallint not null,
  owner_id uuid not null,
  name text not null,
  percent_to numeric,
  tag text,
  device_ids bigint[],
  rules jsonb not null default '{}',
  targeted integer not null default 0,
  released integer not null default 0,
  succeeded integer not null default 0,
  failed integer not null default 0,
  skipped integer not null default 0,
  failures jsonb not null default '{}',
  opened_at timestamptz,
  passed_at timestamptz,
  created_at timestamptz not null default now(),
  primary key (run_id, wave)
);

comment on table public.run_waves is
  'The ordered groups of a run that is rolled out. A run with such rows makes its commands held; expansion asks here for the group of each.';
comment on column public.run_waves.wave is 'Counted from 0, in the order in which they have their turn.';
comment on column public.run_waves.name is 'What people call the group.';
comment on column public.run_waves.percent_to is 'Takes devices whose place, from 0 to 100, is below; null where it goes by tag or list.';
comment on column public.run_waves.tag is 'Takes devices with this tag.';
comment on column public.run_waves.device_ids is 'Takes these devices.';
comment on column public.run_waves.rules is 'success_threshold, soak and gate, as the policy says.';
comment on column public.run_waves.targeted is 'How many devices are in it.';
comment on column public.run_waves.released is 'How many had their turn.';
comment on column public.run_waves.succeeded is 'On how many it was completed.';
comment on column public.run_waves.failed is 'On how many it failed or expired.';
comment on column public.run_waves.skipped is 'How many were cancelled.';
comment on column public.run_waves.failures is 'Failures by class: {"timeout": 3}.';
comment on column public.run_waves.opened_at is 'When its turn came.';
comment on column public.run_waves.passed_at is 'When enough of it had succeeded; what soaks counts from here.';

create table public.rollouts (
  run_id bigint primary key references public.schedule_runs (id) on delete cascade,
  owner_id uuid not null,
  schedule_id bigint not null,
  plan jsonb not null,
  paused_at timestamptz,
  aborted_at timestamptz,
  completed_at timestamptz,
  reason text,
  released integer not null default 0,
  to_restore integer not null default 0,
  restored integer not null default 0,
  unrestored integer not null default 0,
  restore_from bigint,
  next_opening_at timestamptz,
  joined_at timestamptz,
  looked_at timestamptz,
  next_look_at timestamptz default now(),
  created_at timestamptz not null default now(),
  constraint rollouts_is_within_limits check (octet_length(reason) <= 1020),
  constraint rollouts_plan_is_an_object check (jsonb_typeof(plan) = 'object')
)
with (fillfactor = 85);

comment on table public.rollouts is 'A run that is rolled out: its plan, and what people or its rules decided about it.';
comment on column public.rollouts.plan is 'policies.rollout as it was when the run was made.';
comment on column public.rollouts.paused_at is 'Since when nobody else has a turn.';
comment on column public.rollouts.aborted_at is 'Since when it is over for those who had no turn yet.';
comment on column public.rollouts.completed_at is 'When the last of its devices came to an end.';
comment on column public.rollouts.reason is 'Why it is paused or aborted.';
comment on column public.rollouts.released is 'How many devices had their turn.';
comment on column public.rollouts.to_restore is 'On how many devices it is to be taken back.';
comment on column public.rollouts.restored is 'On how many devices it was taken back.';
comment on column public.rollouts.unrestored is 'On how many taking it back failed.';
comment on column public.rollouts.restore_from is 'Up to which device taking back has come; null where it is through.';
comment on column public.rollouts.next_opening_at is 'When the execution window of the next device opens, where all of them wait for theirs.';
comment on column public.rollouts.joined_at is 'When it was last looked who has joined.';
comment on column public.rollouts.looked_at is 'When it was last looked at.';
comment on column public.rollouts.next_look_at is 'When it is looked at next, whatever happens; null where only news counts.';

create index rollouts_open_idx on public.rollouts (next_look_at) where completed_at is null;
create index rollouts_owner_idx on public.rollouts (owner_id, created_at);

create table public.rollout_approvals (
  run_id bigint not null references public.rollouts (run_id) on delete cascade,
  wave smallint not null,
  user_id uuid not null,
  owner_id uuid not null,
  note text,
  created_at timestamptz not null default now(),
  primary key (run_id, wave, user_id),
  constraint rollout_approvals_is_within_limits check (octet_length(note) <= 16000)
);

comment on table public.rollout_approvals is 'Who let which group of a rollout have its turn.';
comment on column public.rollout_approvals.wave is 'The group.';
comment on column public.rollout_approvals.user_id is 'The person.';
comment on column public.rollout_approvals.note is 'What the person said about it.';

create table fleet.rollout_authors (
  schedule_id bigint not null references public.schedules (id) on delete cascade,
  user_id uuid not null,
  primary key (schedule_id, user_id)
);
comment on table fleet.rollout_authors is 'Who wrote what a rollout does: they cannot be the other pair of eyes.';

create table fleet.rollout_queue (
  run_id bigint not null references public.rollouts (run_id) on delete cascade,
  wave smallint not null,
  opens_at timestamptz not null,
  command_id bigint not null,
  device_id bigint not null,
  primary key (run_id, wave, opens_at, command_id)
);
comment on table fleet.rollout_queue is 'Held commands in the order of their turns; opens_at is when the window of the device is open.';

create table fleet.rollout_progress (
  id bigint generated always as identity primary key,
  run_id bigint not null references public.rollouts (run_id) on delete cascade,
  wave smallint not null,
  outcome text not null,
  n integer not null
);
comment on table fleet.rollout_progress is
  'What happened to commands of rollouts and is not yet added to their groups: a look costs what happened since the last one.';
create index rollout_progress_run_idx on fleet.rollout_progress (run_id);

create table fleet.rollout_releases (
  run_id bigint not null references public.rollouts (run_id) on delete cascade,
  released_at timestamptz not null,
  n integer not null,
  primary key (run_id, released_at)
);
comment on table fleet.rollout_releases is 'How many devices had their turn when, of the last minute: the rate counts from it.';

alter table public.run_waves enable row level security;
alter table public.rollouts enable row level security;
alter table public.rollout_approvals enable row level security;
alter table fleet.rollout_authors enable row level security;
alter table fleet.rollout_queue enable row level security;
alter table fleet.rollout_progress enable row level security;
alter table fleet.rollout_releases enable row level security;
revoke all on table public.run_waves, public.rollouts, public.rollout_approvals, fleet.rollout_authors, fleet.rollout_queue,
  fleet.rollout_progress, fleet.rollout_releases
  from public, anon, authenticated, service_role;
