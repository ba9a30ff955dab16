-- Telling of what happened. After the triggers that do the work, which is why these numbers are high.

create or replace trigger schedule_runs_90_tell_insert
  after insert on public.schedule_runs
  referencing new table as new_rows
  for each statement execute function fleet.tg_tell_new_runs();

create or replace trigger schedule_runs_90_tell_update
  after update on public.schedule_runs
  referencing old table as old_rows new table as new_rows
  for each statement execute function fleet.tg_tell_runs();

create or replace trigger schedules_90_tell
  after update on public.schedules
  referencing old table as old_rows new table as new_rows
  for each statement execute function fleet.tg_tell_schedules();

create or replace trigger device_commands_90_tell
  after update on public.device_commands
  referencing old table as old_rows new table as new_rows
  for each statement execute function fleet.tg_tell_commands();
