-- Generated from db/migrations/20261202040000_older_functions.sql by pgfleet db bundle; edit that file instead.
-- Functions that answer other columns than in an older database, where they stand in the way of what the sources bring.
-- depends: 20261201080300_turns_of_the_fresh

do $$
declare
  v_function regprocedure;
begin
  for v_function in
    select p.oid::regprocedure
    from pg_catalog.pg_proc as p
    where (p.oid = to_regprocedure('fleet.parsed_sightings(jsonb)') and not 'notes' = any (p.proargnames))
      or (p.oid = to_regprocedure('fleet.nanomdm_report(jsonb)') and 'udid' = any (p.proargnames))
  loop
    execute format('drop function %s', v_function);
  end loop;
end;
$$;
