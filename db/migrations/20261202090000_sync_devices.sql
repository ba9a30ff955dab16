-- The devices of a pull are the same at any time: the argument p_now is gone.
-- depends: 20261202040100_schedule_names

drop function if exists fleet.worker_sync_devices(bigint, timestamptz);
