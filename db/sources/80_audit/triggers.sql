-- What is logged. The conditions keep ticks, counters and check-ins free of it.

create or replace trigger audit_log_01_refuse_change
  before update or delete or truncate on public.audit_log
  for each statement execute function fleet.tg_refuse_change();

create or replace trigger schedules_90_note_inserted
  after insert on public.schedules
  referencing new table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger schedules_91_note_change
  after update on public.schedules
  for each row
  -- Whatever changes a schedule on purpose stamps it; the engine does not.
  when (new.updated_at is distinct from old.updated_at or new.updated_at = now())
  execute function fleet.tg_note_change();
create or replace trigger schedules_92_note_deleted
  after delete on public.schedules
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();

create or replace trigger schedule_templates_90_note_inserted
  after insert on public.schedule_templates
  referencing new table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger schedule_templates_92_note_deleted
  after delete on public.schedule_templates
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();

create or replace trigger blackout_calendars_90_note_inserted
  after insert on public.blackout_calendars
  referencing new table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger blackout_calendars_91_note_change
  after update on public.blackout_calendars
  for each row when (new.* is distinct from old.*) execute function fleet.tg_note_change();
create or replace trigger blackout_calendars_92_note_deleted
  after delete on public.blackout_calendars
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger blackout_periods_90_note_inserted
  after insert on public.blackout_periods
  referencing new table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger blackout_periods_92_note_deleted
  after delete on public.blackout_periods
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();

create or replace trigger device_groups_90_note_inserted
  after insert on public.device_groups
  referencing new table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger device_groups_91_note_change
  after update of name, description, selector on public.device_groups
  for each row execute function fleet.tg_note_change();
create or replace trigger device_groups_92_note_deleted
  after delete on public.device_groups
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();

create or replace trigger devices_91_note_change
  after update of hostname, tags, status on public.devices
  for each row
  when ((new.hostname, new.tags, new.status) is distinct from (old.hostname, old.tags, old.status))
  execute function fleet.tg_note_change();
create or replace trigger devices_92_note_deleted
  after delete on public.devices
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();

create or replace trigger owner_members_90_note_inserted
  after insert on public.owner_members
  referencing new table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger owner_members_91_note_change
  after update of permissions on public.owner_members
  for each row execute function fleet.tg_note_change();
create or replace trigger owner_members_92_note_deleted
  after delete on public.owner_members
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();

do $$
begin
  if to_regclass('public.webhook_endpoints') is null then
    return;
  end if;
  execute $trigger$
    create or replace trigger webhook_endpoints_90_note_inserted
      after insert on public.webhook_endpoints
      referencing new table as changed_rows
      for each statement execute function fleet.tg_note_rows()
  $trigger$;
  execute $trigger$
    create or replace trigger webhook_endpoints_91_note_change
      after update on public.webhook_endpoints
      for each row when (new.* is distinct from old.*) execute function fleet.tg_note_change()
  $trigger$;
  execute $trigger$
    create or replace trigger webhook_endpoints_92_note_deleted
      after delete on public.webhook_endpoints
      referencing old table as changed_rows
      for each statement execute function fleet.tg_note_rows()
  $trigger$;
end;
$$;
