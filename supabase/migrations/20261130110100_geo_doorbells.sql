-- Generated from db/migrations/20261130110100_geo_doorbells.sql by pgfleet db bundle; edit that file instead.
-- A doorbell may ring for the geo actions of a device, which are no command.
-- depends: 20261130110000_capability_words

alter table fleet.doorbells alter column command_id drop not null;

comment on table fleet.doorbells is
  'Devices that have work and were not told yet: large fan-outs, retries, commands for later, and changes of their geo actions '
  '(command_id is null, command_type is geo_actions). The tick rings at a set pace, one ring a device however much waits.';
