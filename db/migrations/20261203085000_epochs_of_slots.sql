-- Lists of monthly times are instants from the first; they were Unix seconds.
-- depends: 20261203084000_refused_secrets

drop function if exists fleet.epochs_of_slots(jsonb, bigint, bigint);
