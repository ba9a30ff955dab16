-- Generated from db/migrations/20261129100000_problems.sql by pgfleet db bundle; edit that file instead.
-- What is wrong with something that somebody wrote, as one value: functions that check return a set of these, and
-- fleet.raise_problems makes one error of them.

create type fleet.problem as (
  field text,
  problem text,
  hint text
);

comment on type fleet.problem is
  'One thing that is wrong: the field it is about, what is wrong with it, and what to do. See fleet.raise_problems().';

revoke all on type fleet.problem from public;

-- Functions that returned the same as a table of three columns: replacing one cannot change what it returns, so they go and
-- the sources that follow bring them back.
do $$
declare
  v_function regprocedure;
begin
  for v_function in
    select p.oid
    from pg_proc as p
    where p.pronamespace = 'fleet'::regnamespace
      and (p.proname = 'raise_problems' or (p.proretset and p.proargnames @> '{field,problem,hint}'))
  loop
    execute format('drop function %s', v_function);
  end loop;
end;
$$;
