-- Which secret was refused is said as well.
-- depends: 20261203083000_own_command_types

drop function if exists fleet.worker_pause_integration(bigint, text);
