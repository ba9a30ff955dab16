-- Generated from db/migrations/20261203085000_epochs_of_slots.sql by pgfleet db bundle; edit that file instead.
-- Lists of monthly times are instants from the first; they were Unix seconds.
-- depends: 20261203084000_refused_secrets

drop function if exists fleet.epochs_of_slots(jsonb, bigint, bigint);
