-- What is logged of integrations, their webhooks and assignments: what people change, not how each sync went.

create or replace trigger device_integrations_90_note_inserted
  after insert on public.device_integrations
  referencing new table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger device_integrations_91_note_change
  after update on public.device_integrations
  for each row
  when (
    (new.name, new.integration_type, new.status, new.status_reason, new.settings)
    is distinct from (old.name, old.integration_type, old.status, old.status_reason, old.settings)
  )
  execute function fleet.tg_note_change();
create or replace trigger device_integrations_92_note_deleted
  after delete on public.device_integrations
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();

create or replace trigger profile_assignments_90_note_inserted
  after insert on public.profile_assignments
  referencing new table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger profile_assignments_92_note_deleted
  after delete on public.profile_assignments
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();

create or replace trigger integration_webhooks_90_note_inserted
  after insert on public.integration_webhooks
  referencing new table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger integration_webhooks_91_note_change
  after update of revoked_at on public.integration_webhooks
  for each row
  when (new.revoked_at is distinct from old.revoked_at)
  execute function fleet.tg_note_change();
create or replace trigger integration_webhooks_92_note_deleted
  after delete on public.integration_webhooks
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();
