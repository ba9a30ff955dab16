-- Generated from db/migrations/20261129110000_one_way_to_write_schedules.sql by pgfleet db bundle; edit that file instead.
-- Functions that other ones have taken the place of: a schedule is written in one way now.
-- depends: 20261129010000_run_bookings 20261129100000_problems

drop function if exists fleet.schedule_from_spec(jsonb);
drop function if exists fleet.schedule_spec(public.schedules);
drop function if exists fleet.changed_spec(jsonb, jsonb);
drop function if exists fleet.schedule_with_changes(public.schedules, jsonb);
drop function if exists fleet.completed_schedule(public.schedules);
drop function if exists fleet.changed_schedule(public.schedules, public.schedules);
drop function if exists fleet.schedule_problems(public.schedules);
drop function if exists fleet.drafted_schedule(public.schedules, jsonb, timestamptz);
