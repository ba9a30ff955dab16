-- Generated from db/migrations/20261204081000_commands_of_runs.sql by pgfleet db bundle; edit that file instead.
-- What makes a second command of the same run impossible no longer lists commands that were sent by themselves: they have no run, so that each
-- insert, claim and finish of one went to the end of all that its device ever had.
-- depends: 20261204080000_sound_commands

alter table public.device_commands drop constraint device_commands_run_id_device_id_step_key;
create unique index device_commands_run_id_device_id_step_key on public.device_commands (run_id, device_id, step)
  where run_id is not null;
