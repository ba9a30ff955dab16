-- Generated from db/migrations/20261129210000_geo_triggers.sql by pgfleet db bundle; edit that file instead.
-- Devices that are merely seen do not concern geo schedules: a trigger by row, whose condition says so, takes over.
-- depends: 20261129200201_words

drop trigger if exists devices_50_follow_geo_schedules_inserted on public.devices;
drop trigger if exists devices_51_follow_geo_schedules_changed on public.devices;
