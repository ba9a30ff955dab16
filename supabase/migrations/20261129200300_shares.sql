-- Generated from db/migrations/20261129200300_shares.sql by pgfleet db bundle; edit that file instead.
-- What a function may begin is its share of the work, as the sources call it from here on.

-- No argument can be renamed, so these go and the sources that follow bring them back.
do $$
declare
  v_function regprocedure;
begin
  for v_function in
    select p.oid
    from pg_proc as p
    where p.pronamespace = 'fleet'::regnamespace and p.proargnames @> '{p_room}'
  loop
    execute format('drop function %s', v_function);
  end loop;
end;
$$;
