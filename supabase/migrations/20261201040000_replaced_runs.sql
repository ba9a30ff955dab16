-- Generated from db/migrations/20261201040000_replaced_runs.sql by pgfleet db bundle; edit that file instead.
-- What a later run took the place of has not failed: counted by itself.

alter table public.schedule_runs add column replaced integer not null default 0;
alter table fleet.run_progress add column replaced integer not null default 0;

comment on column public.schedule_runs.replaced is
  'How many of its commands a later run took the place of (overlap: replace). They have not failed.';
comment on column public.schedule_runs.scheduled_local is
  'In device time: what every device''s wall shows when it is due. Where one instant is meant for everybody null, but for a time that the '
  'clocks skip (gap: skip): then what they would have shown.';
comment on column fleet.run_progress.replaced is 'How many commands a later run took the place of.';

-- What comes back has another shape.
drop function if exists fleet.run_outcome(public.schedule_runs, bigint, bigint, timestamptz);
drop function if exists fleet.runs_to_expand(bigint[], timestamptz);
drop function if exists fleet.coming_runs(public.schedules, timestamptz, timestamptz, integer, boolean);
drop function if exists fleet.coming_on_walls(public.schedules, timestamptz, timestamptz, integer, boolean);
drop function if exists fleet.preview_of(public.schedules, integer, timestamptz);
