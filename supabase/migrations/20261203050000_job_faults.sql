-- Generated from db/migrations/20261203050000_job_faults.sql by pgfleet db bundle; edit that file instead.
-- What pg_cron has to run and does not is told by one function, with how it differs.
-- depends: 20261203030000_doorbell_stretches

drop function if exists fleet.missing_jobs();
