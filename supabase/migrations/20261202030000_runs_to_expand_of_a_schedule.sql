-- Generated from db/migrations/20261202030000_runs_to_expand_of_a_schedule.sql by pgfleet db bundle; edit that file instead.
-- Which run of a schedule is expanded next is a probe, however many of its runs are not at their end.
create index schedule_runs_schedule_to_expand_idx on public.schedule_runs (schedule_id, created_at, id)
  where expanded_at is null and status in ('pending', 'running');
