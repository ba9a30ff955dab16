-- Generated from db/migrations/20261130030200_endpoint_rates.sql by pgfleet db bundle; edit that file instead.
-- A provider may have several limits: what was learned of one endpoint holds for that one.

alter table fleet.rate_limits
  add column endpoint text not null default '',
  add column refused_rate numeric,
  drop constraint rate_limits_pkey,
  add constraint rate_limits_pkey primary key (integration_id, endpoint),
  add constraint rate_limits_endpoint_is_short check (length(endpoint) <= 100);
comment on column fleet.rate_limits.endpoint is 'Which endpoint has a limit of its own; empty for the limit of the whole account.';
comment on column fleet.rate_limits.refused_rate is 'The rate at which it last was too much; null once that is forgotten.';

-- Their arguments change, and the sources that follow bring them back.
drop function if exists fleet.filled_rate(bigint, timestamptz);
drop function if exists fleet.worker_reserve_call(bigint, interval, boolean, timestamptz);
drop function if exists fleet.worker_learn_rate(bigint, numeric, timestamptz, timestamptz);
