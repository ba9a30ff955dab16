-- Generated from db/migrations/20261129100200_tick_steps.sql by pgfleet db bundle; edit that file instead.
-- Each step of the tick has its own duration and its own error; and functions that the generic ones replace go.

alter table fleet.heartbeat add column steps jsonb not null default '[]';

comment on column fleet.heartbeat.steps is
  'The steps of the last tick, in order: [{name, ms, error, error_at}]. ms is how long it took; error is its last one, maybe of a tick before.';

drop function if exists fleet.tend_places(timestamptz);
drop function if exists fleet.prune_location_events(timestamptz, integer);
drop function if exists fleet.prune_batch(timestamptz, integer);
drop function if exists fleet.prune_deliveries(timestamptz, integer);
drop function if exists fleet.prune_mdm_logs(timestamptz, integer);
drop function if exists fleet.prune_activity(timestamptz, integer);
