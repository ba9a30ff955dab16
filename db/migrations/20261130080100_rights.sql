-- What a device reports stands apart from what people and other systems say of it, and who was prepared to be enrolled is told.

alter table public.devices
  add column reported jsonb not null default '{}',
  add column prepared boolean not null default true;

comment on column public.devices.reported is
  'What the device says of itself: platform, agent_version and attributes of its own. It chooses what that is, so selectors look at it only '
  'where they name it, and never to wipe.';
comment on column public.devices.prepared is
  'Whether a device that was not enrolled yet may be taken over by an enrolment under its host name: not, where another system brought it.';

update public.devices as d
set prepared = false
where d.enrolled_at is null and exists (select 1 from public.device_links as l where l.device_id = d.id);

alter table public.devices drop constraint devices_is_within_limits;
alter table public.devices add constraint devices_is_within_limits check (
  octet_length(hostname) <= 1012
  and octet_length(platform) <= 1020
  and octet_length(timezone) <= 1020
  and pg_column_size(tags) <= 16384
  and cardinality(tags) <= 100
  and pg_column_size(attributes) <= 32768
  and pg_column_size(reported) <= 32768
) not valid;

drop function if exists fleet.device_matches(jsonb, text[], text, jsonb) cascade;
