-- Generated from db/migrations/20261130010000_device_time.sql by pgfleet db bundle; edit that file instead.
-- Device time by local occurrence: "Monday, 06:30 on the wall" is one run, expanded in each time zone at that zone's own instant.
-- depends: 20261129210000_geo_triggers

alter table public.owners add column if not exists timezone text not null default 'UTC';

alter table public.schedules
  add column start_is_local boolean not null default false,
  add column end_is_local boolean not null default false;

comment on column public.schedules.start_is_local is
  'In device time: start_time is a reading of each device''s own wall, kept as if it were UTC. Else it is one instant for everybody.';
comment on column public.schedules.end_is_local is
  'In device time: end_time is a reading of each device''s own wall, kept as if it were UTC. Else it is one instant for everybody.';

-- A single run in device time was kept as a reading of the wall already.
alter table public.schedules disable trigger user;
update public.schedules set start_is_local = true where timezone = 'device' and recurrence_type = 'once';
alter table public.schedules enable trigger user;

alter table public.schedule_runs
  add column scheduled_local timestamp,
  add column fold smallint not null default 0,
  add column missed_to_local timestamp,
  drop constraint schedule_runs_schedule_id_scheduled_for_key,
  add constraint schedule_runs_fold_is_first_or_second check (fold in (0, 1));

comment on column public.schedule_runs.scheduled_for is
  'The due instant; in device time the first at which it is due for anybody; for a range of missed ones the first of them.';
comment on column public.schedule_runs.scheduled_local is
  'In device time: what every device''s wall shows when it is due. Null where one instant is meant for everybody.';
comment on column public.schedule_runs.fold is 'Which pass of an hour that the clocks repeat: 0 the first or only, 1 the second.';
comment on column public.schedule_runs.missed_to_local is 'In device time: the last of a range of missed ones, as the walls show it.';
comment on column public.schedule_runs.zones is
  'Only for devices of these time zones, all at one instant; null for everybody. In device time fleet.run_zones says which are due when.';

-- What makes a second run of the same instant, or of the same local occurrence, impossible.
create unique index schedule_runs_instant_key on public.schedule_runs (schedule_id, scheduled_for, scheduled_local)
  nulls not distinct;
create unique index schedule_runs_local_key on public.schedule_runs (schedule_id, scheduled_local, fold)
  where scheduled_local is not null;
-- The walls of a run in device time are found by their zones' instants, not here.
drop index public.schedule_runs_to_expand_idx;
create index schedule_runs_to_expand_idx on public.schedule_runs (priority desc, id)
  where expanded_at is null and status in ('pending', 'running') and scheduled_local is null;

create table fleet.run_zones (
  id bigint generated always as identity primary key,
  run_id bigint not null references public.schedule_runs (id) on delete cascade,
  due_at timestamptz not null,
  starts_at timestamptz not null,
  expires_at timestamptz,
  zones text[] not null,
  device_ids bigint[],
  status text not null default 'waiting',
  reason text,
  dst_rule text,
  started_at timestamptz,
  targeted integer not null default 0,
  zone_at integer not null default 1,
  expanded_to bigint not null default 0,
  expanded_at timestamptz,
  constraint run_zones_status_is_known check (status in ('waiting', 'running', 'done', 'skipped', 'cancelled')),
  constraint run_zones_skipped_has_a_reason check (status <> 'skipped' or reason is not null),
  constraint run_zones_open_is_not_expanded check ((status in ('waiting', 'running')) = (expanded_at is null))
);

comment on table fleet.run_zones is
  'A run in device time at one of its instants: the time zones that are due then, how far their devices have come, or why they have none.';
comment on column fleet.run_zones.due_at is 'The instant at which the walls of these zones show the run''s local time.';
comment on column fleet.run_zones.starts_at is 'When its devices get their commands at the earliest: catching up may be paced.';
comment on column fleet.run_zones.device_ids is
  'Only these devices: they came into the zone when its time had passed and their own had not. Null for all that are there.';
comment on column fleet.run_zones.status is 'waiting, running, then done, skipped (see reason) or cancelled.';
comment on column fleet.run_zones.started_at is 'When its first devices were looked at, which settles who is due.';
comment on column fleet.run_zones.targeted is 'How many commands it made so far.';
comment on column fleet.run_zones.zone_at is 'Which of its zones is at work, from 1.';
comment on column fleet.run_zones.expanded_to is 'Highest device id of that zone that has been considered.';
comment on column fleet.run_zones.expanded_at is 'When it came to its end; null while it is open.';

create index run_zones_run_idx on fleet.run_zones (run_id);
create index run_zones_due_idx on fleet.run_zones (starts_at) where expanded_at is null;

create table fleet.judged_movers (
  run_id bigint not null references public.schedule_runs (id) on delete cascade,
  device_id bigint not null,
  primary key (run_id, device_id)
);

comment on table fleet.judged_movers is
  'Devices that a run has looked at and that then moved to a zone where it is yet to come. They are not looked at again.';

create table fleet.owner_zones (
  owner_id uuid not null references public.owners (id) on delete cascade,
  zone text not null,
  devices integer not null,
  primary key (owner_id, zone)
);

comment on table fleet.owner_zones is
  'In which time zones the active devices of an owner are, and how many; an empty name for devices without one. Kept by a trigger.';

insert into fleet.owner_zones (owner_id, zone, devices)
select d.owner_id, coalesce(d.timezone, ''), count(*)
from public.devices as d
where d.status = 'active'
group by 1, 2;

create index devices_zone_idx on public.devices (owner_id, coalesce(timezone, ''), id) where status = 'active';

alter table fleet.run_zones enable row level security;
alter table fleet.judged_movers enable row level security;
alter table fleet.owner_zones enable row level security;
revoke all on table fleet.run_zones, fleet.judged_movers, fleet.owner_zones
  from public, anon, authenticated, service_role;

create type fleet.place_in_zones as (zone_at integer, device_id bigint);
comment on type fleet.place_in_zones is 'How far the devices of a few zones have been looked at, zone after zone.';

alter type fleet.run_booking add attribute scheduled_local timestamp;
alter type fleet.run_booking add attribute fold smallint;
alter type fleet.run_booking add attribute missed_to_local timestamp;
alter type fleet.run_booking add attribute zone_rows jsonb;

-- The rules by which the clocks of a zone go, as they were when what is stored was computed.
alter table fleet.time_zones
  add column rules text,
  add column checked_at timestamptz,
  add column changed_at timestamptz;

comment on column fleet.time_zones.rules is
  'A digest of the zone''s changes of the clock in the years from the one that it begins with; null where nothing asked for it yet.';
comment on column fleet.time_zones.checked_at is 'When that was last compared with what the server knows.';
comment on column fleet.time_zones.changed_at is
  'When a tick last noticed that the server has other rules for the zone, and computed anew what is stored.';

-- What went by distinct instants.
drop trigger if exists devices_05_refresh_device_time_insert on public.devices;
drop trigger if exists devices_05_refresh_device_time_update on public.devices;
drop trigger if exists device_groups_05_refresh_device_time on public.device_groups;
drop trigger if exists device_group_members_05_refresh_device_time on public.device_group_members;
drop function if exists fleet.tg_refresh_device_time();
drop function if exists fleet.tg_refresh_zones_of_groups();
drop function if exists fleet.refresh_device_time(bigint[]);
drop function if exists fleet.device_time_schedules(uuid[], text[], bigint[]);
drop function if exists fleet.refresh_union(bigint[]);
drop function if exists fleet.target_zones(public.schedules);
drop function if exists fleet.compiled_in(public.schedules, text);
drop function if exists fleet.bound_in_zone(public.schedules, timestamptz, text);
drop function if exists fleet.next_due(jsonb, timestamptz);
drop function if exists fleet.due_instants(jsonb, timestamptz, timestamptz);
drop function if exists fleet.count_due(jsonb, timestamptz, timestamptz);
drop function if exists fleet.zones_due(jsonb, timestamptz);
drop function if exists fleet.zones_to_run(jsonb, jsonb, timestamptz, timestamptz);
drop function if exists fleet.next_due_in(jsonb, text[], timestamptz);
drop function if exists fleet.dst_rule_at(jsonb, timestamptz);
drop function if exists fleet.decide_runs(public.schedules, jsonb, timestamptz[], timestamptz, bigint, timestamptz);
drop function if exists fleet.runs_to_expand(bigint[], timestamptz);
drop function if exists fleet.unfinished_of(bigint, bigint, bigint, timestamptz);
drop function if exists fleet.coming_runs(public.schedules, timestamptz, timestamptz, integer, boolean);
drop function if exists fleet.status_problems(jsonb, timestamptz);
drop function if exists fleet.create_owner(text);
drop function if exists public.create_owner(text);
