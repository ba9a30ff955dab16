-- What a tick is about to touch, committed before it does; and the ways to find what is due owner by owner.

create table fleet.tick_work (
  step text primary key,
  schedule_ids bigint[] not null default '{}',
  is_alone boolean not null default false,
  begun_at timestamptz,
  suspects bigint[] not null default '{}',
  stops integer not null default 0,
  rests_until timestamptz,
  next_owner uuid,
  created_at timestamptz not null default now()
)
with (fillfactor = 50);

comment on table fleet.tick_work is
  'One row for each step of the tick: what it decides about now. What is still here when the next tick comes was what stopped the one before.';
comment on column fleet.tick_work.schedule_ids is 'The schedules of the batch that is being decided about.';
comment on column fleet.tick_work.is_alone is 'Whether the batch is one schedule that is suspected to have stopped a tick.';
comment on column fleet.tick_work.begun_at is 'Since when; null while the step rests.';
comment on column fleet.tick_work.suspects is 'Schedules of a batch that stopped a tick: each is taken by itself, and by nothing else.';
comment on column fleet.tick_work.stops is 'How often in a row the step stopped the tick.';
comment on column fleet.tick_work.rests_until is 'A step without schedules that stopped the tick is left out until then.';
comment on column fleet.tick_work.next_owner is 'The owner that had the last turn, of those that take turns one by one.';

alter table fleet.tick_work enable row level security;
revoke all on table fleet.tick_work from public, anon, authenticated, service_role;
grant select on table fleet.tick_work to service_role;
create policy tick_work_select_service_role on fleet.tick_work for select to service_role using (true);

alter table fleet.heartbeat
  add column is_inside boolean not null default false,
  add column last_stop jsonb;

comment on column fleet.heartbeat.is_inside is 'Whether a ticker is at work. Still true when the next one begins: the one before ended in the middle.';
comment on column fleet.heartbeat.last_stop is 'What stopped a tick last: {step, at, schedule_ids, schedule_id and owner_id of a culprit}.';

create index schedules_owner_due_idx on public.schedules (owner_id, next_run_at) where status = 'active';
create index schedule_runs_owner_to_expand_idx on public.schedule_runs (owner_id, priority desc, id)
  where expanded_at is null and status in ('pending', 'running');

drop function if exists fleet.write_runs(bigint[], timestamptz);
drop function if exists fleet.expand_next(timestamptz);
drop function if exists fleet.walls_to_expand(timestamptz, text, integer);
drop function if exists fleet.run_tick_steps(timestamptz);
drop function if exists fleet.tick_steps();
drop procedure if exists fleet.tick_minute();

-- Doorbells take turns by their owners.
alter table fleet.doorbells add column owner_id uuid;
update fleet.doorbells as b set owner_id = d.owner_id from public.devices as d where d.id = b.device_id;
delete from fleet.doorbells where owner_id is null;
alter table fleet.doorbells alter column owner_id set not null;
comment on column fleet.doorbells.owner_id is 'The owner of the device; owners take turns.';
create index doorbells_owner_idx on fleet.doorbells (owner_id, ring_at);
