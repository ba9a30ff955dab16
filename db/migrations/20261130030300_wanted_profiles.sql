-- Two profiles with one identifier take each other's place on a device: uploads are told apart by it.

alter table public.profiles
  add column payload_identifier text,
  add constraint profiles_payload_identifier_is_within_bounds check (char_length(payload_identifier) <= 255);
comment on column public.profiles.payload_identifier is
  'The PayloadIdentifier of the file; null where it was not uploaded from here, or could not be read.';

-- One-off schedules that are over are history, and go with it.
create index schedules_finished_idx on public.schedules (updated_at)
  where recurrence_type = 'once' and status in ('completed', 'cancelled');
