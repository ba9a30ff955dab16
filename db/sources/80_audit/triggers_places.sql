-- What is logged of places: which locations there are and what they bring about, not where the devices are.

create or replace trigger locations_90_note_inserted
  after insert on public.locations
  referencing new table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger locations_91_note_change
  after update on public.locations
  for each row when (new.* is distinct from old.*) execute function fleet.tg_note_change();
create or replace trigger locations_92_note_deleted
  after delete on public.locations
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();

create or replace trigger location_policies_90_note_inserted
  after insert on public.location_policies
  referencing new table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger location_policies_91_note_change
  after update on public.location_policies
  for each row when (new.* is distinct from old.*) execute function fleet.tg_note_change();
create or replace trigger location_policies_92_note_deleted
  after delete on public.location_policies
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();
