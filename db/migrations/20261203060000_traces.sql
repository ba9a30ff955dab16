-- A command may belong to a trace, and whoever claims it hears of which.
-- depends: 20261203050000_job_faults

alter table public.device_commands
  add column trace_id text,
  add constraint device_commands_trace_id_is_one check (trace_id ~ '^[0-9a-f]{32}$' and trace_id <> repeat('0', 32));

comment on column public.device_commands.trace_id is
  'The trace that the command was made in, as 32 hex digits; null where it has that of its run, see fleet.trace_of.';

-- They answer one column more.
drop function if exists public.claim_commands(integer, uuid);
drop function if exists fleet.claim_commands(integer, uuid, timestamptz);
drop function if exists fleet.lease_commands(bigint, integer, uuid, timestamptz);
