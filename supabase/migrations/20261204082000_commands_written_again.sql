-- Generated from db/migrations/20261204082000_commands_written_again.sql by pgfleet db bundle; edit that file instead.
-- What writes the commands of runs is told whether it looks first at what its devices have already: it takes the place of one that always looked.
-- depends: 20261204081000_commands_of_runs

drop function if exists fleet.write_commands(bigint[], timestamptz, integer);
