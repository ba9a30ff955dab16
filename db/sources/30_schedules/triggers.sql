-- What holds for schedules however a row is written. The tick moves next_run_at and counters only, so it fires none of these.

do $$
begin
  execute format(
    'create or replace trigger schedules_01_prepare before insert or update of owner_id, %s on public.schedules'
    ' for each row execute function fleet.tg_prepare_schedule()',
    (select string_agg(quote_ident(c.name), ', ') from fleet.schedule_columns() as c)
  );
end;
$$;

create or replace trigger schedules_02_change_status
  before update of status on public.schedules
  for each row
  when (new.status is distinct from old.status and new.status <> 'completed')
  execute function fleet.tg_change_schedule_status();

create or replace trigger schedules_03_run_due
  after insert on public.schedules
  referencing new table as new_rows
  for each statement execute function fleet.tg_run_due_schedules();

create or replace trigger devices_05_refresh_device_time_insert
  after insert on public.devices
  referencing new table as new_rows
  for each statement execute function fleet.tg_refresh_device_time();

create or replace trigger devices_05_refresh_device_time_update
  after update on public.devices
  referencing old table as old_rows new table as new_rows
  for each statement execute function fleet.tg_refresh_device_time();

create or replace trigger device_groups_05_refresh_device_time
  after update on public.device_groups
  referencing new table as new_rows
  for each statement execute function fleet.tg_refresh_zones_of_groups();

create or replace trigger device_group_members_05_refresh_device_time
  after insert on public.device_group_members
  referencing new table as new_rows
  for each statement execute function fleet.tg_refresh_zones_of_groups();
