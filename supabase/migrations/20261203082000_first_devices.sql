-- Generated from db/migrations/20261203082000_first_devices.sql by pgfleet db bundle; edit that file instead.
-- The next chunk of a run is told how many devices come first.
-- depends: 20261203081000_told_runs

drop function if exists fleet.expand_large(bigint, timestamptz, integer);
