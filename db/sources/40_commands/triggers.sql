-- The conditions keep the rows that the engine makes, thousands in one statement, free of all but what they need.

create or replace trigger device_commands_01_prepare
  before insert on public.device_commands
  for each row when (new.run_id is null) execute function fleet.tg_prepare_command();

create or replace trigger device_commands_02_change_status
  before update of status on public.device_commands
  for each row when (new.status is distinct from old.status) execute function fleet.tg_change_command_status();

-- Nobody rewrites what a device answered.
create or replace trigger device_commands_02_keep_final
  before update of result, error_message on public.device_commands
  for each row
  when (
    old.status not in ('pending', 'running')
    and (new.result is distinct from old.result or new.error_message is distinct from old.error_message)
  )
  execute function fleet.tg_change_command_status();

create or replace trigger device_commands_03_check
  after insert on public.device_commands
  referencing new table as new_rows
  for each statement execute function fleet.tg_check_new_commands();

create or replace trigger device_commands_04_ring
  after insert on public.device_commands
  referencing new table as new_rows
  for each statement execute function fleet.tg_ring_new_commands();

create or replace trigger device_commands_05_note_progress
  after update on public.device_commands
  referencing old table as old_rows new table as new_rows
  for each statement execute function fleet.tg_note_progress();

create or replace trigger device_commands_06_note_deleted
  after delete on public.device_commands
  referencing old table as old_rows
  for each statement execute function fleet.tg_note_progress();

create or replace trigger schedule_runs_01_delete_commands
  after delete on public.schedule_runs
  referencing old table as old_rows
  for each statement execute function fleet.tg_delete_commands_of_runs();

create or replace trigger devices_04_delete_commands
  after delete on public.devices
  referencing old table as old_rows
  for each statement execute function fleet.tg_delete_commands_of_devices();
