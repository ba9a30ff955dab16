-- Generated from db/migrations/20261201080300_turns_of_the_fresh.sql by pgfleet db bundle; edit that file instead.
-- Whose turn it is among those with fresh runs: from there on, not by chance, so that nobody is passed over.
-- depends: 20261201080200_older_commands

alter table fleet.tick_work add column next_fresh uuid;
comment on column fleet.tick_work.next_fresh is 'The owner whose fresh run was expanded last; the turn goes on behind it.';
