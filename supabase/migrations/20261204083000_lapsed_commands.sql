-- Generated from db/migrations/20261204083000_lapsed_commands.sql by pgfleet db bundle; edit that file instead.
-- Commands whose lease ran out are found by their device, whatever else waits for it.
-- depends: 20261204082000_commands_written_again

create index device_commands_lapsed_idx on public.device_commands (device_id)
  where status = 'pending' and attempt > 0 and lease_expires_at is not null;
