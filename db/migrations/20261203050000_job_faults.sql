-- What pg_cron has to run and does not is told by one function, with how it differs.
-- depends: 20261203030000_doorbell_stretches

drop function if exists fleet.missing_jobs();
