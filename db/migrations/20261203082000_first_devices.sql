-- The next chunk of a run is told how many devices come first.
-- depends: 20261203081000_told_runs

drop function if exists fleet.expand_large(bigint, timestamptz, integer);
