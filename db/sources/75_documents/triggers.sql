-- What is logged of templates.

create or replace trigger schedule_templates_90_note_inserted
  after insert on public.schedule_templates
  referencing new table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger schedule_templates_92_note_deleted
  after delete on public.schedule_templates
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();
