-- Generated from db/migrations/20261204084000_wishes_of_profiles.sql by pgfleet db bundle; edit that file instead.
-- What is wanted is asked of the profiles that are taken away, not of all that a fleet has.
-- depends: 20261204083000_lapsed_commands

drop function if exists fleet.wishes_for_profiles(uuid);
drop function if exists fleet.assigned_profiles(uuid);
