-- Generated from db/migrations/20261202040100_schedule_names.sql by pgfleet db bundle; edit that file instead.
-- A schedule is found by its name at one look: a document of a thousand asks for each of its names.
-- depends: 20261202040000_older_functions

create index schedules_name_idx on public.schedules (owner_id, lower(name)) where status <> 'cancelled';
