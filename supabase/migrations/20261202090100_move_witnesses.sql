-- Generated from db/migrations/20261202090100_move_witnesses.sql by pgfleet db bundle; edit that file instead.
-- Which transactions were under way when an owner was held still: what they do belongs to the copy.
-- depends: 20261202090000_sync_devices

alter table fleet.owner_moves add column witnesses text[];

comment on column fleet.owner_moves.witnesses is
  'The virtual transactions that may not have seen that the owner is held still; null until somebody looked. They are waited for.';
