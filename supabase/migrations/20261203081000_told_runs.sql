-- Generated from db/migrations/20261203081000_told_runs.sql by pgfleet db bundle; edit that file instead.
-- The span of each run is exported once, by one of the functions: up to which run that is done.
-- depends: 20261203080000_commands_by_end

create table fleet.told_runs (
  id boolean primary key default true,
  finished_at timestamptz not null default now(),
  last_id bigint not null default 0,
  constraint told_runs_is_one_row check (id)
);

comment on table fleet.told_runs is 'Up to which run the ends of runs were told to what collects traces: one row.';
comment on column fleet.told_runs.finished_at is 'When the last one of them ended.';
comment on column fleet.told_runs.last_id is 'The last one of them; among those that ended at the same time they go by number.';

insert into fleet.told_runs (id) values (true);

alter table fleet.told_runs enable row level security;
revoke all on table fleet.told_runs from public, anon, authenticated, service_role;
