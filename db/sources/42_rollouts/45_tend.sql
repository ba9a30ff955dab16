-- The step of the tick: whose turn it is to be looked at.

create or replace function fleet.attempt_looks(p_run_ids bigint[], p_now timestamptz, p_until timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id bigint;
  v_released integer := 0;
begin
  begin
    return fleet.look_at_rollouts(p_run_ids, p_now, p_until);
  exception
    when query_canceled or admin_shutdown then
      raise;
    when others then
      -- One of them is bad: each by itself, and the error goes to its owner.
      null;
  end;

  foreach v_id in array p_run_ids loop
    begin
      v_released := v_released + fleet.look_at_rollouts(array[v_id], p_now, p_until);
    exception
      when query_canceled or admin_shutdown then
        raise;
      when deadlock_detected or lock_not_available then
        -- Somebody holds what it needs: next time.
        null;
      when others then
        perform fleet.set_rollout(v_id, 'paused', 'it cannot be evaluated: ' || left(sqlerrm, 200), p_now);
    end;
  end loop;
  return v_released;
end;
$$;

comment on function fleet.attempt_looks(bigint[], timestamptz, timestamptz) is
  'Look at these rollouts together; where that fails each by itself, and the one that fails is paused and says why.';
revoke all on function fleet.attempt_looks(bigint[], timestamptz, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.tend_rollouts(p_now timestamptz)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_end timestamptz := clock_timestamp() + interval '200 milliseconds';
  v_due bigint[];
  v_some bigint[];
  v_released integer := 0;
  v_seen bigint[] := '{}';
begin
  -- Owners in turn: the first of each before the second of anybody.
  v_due := array(
    select w.run_id
    from (
      select r.run_id, r.looked_at, row_number() over (partition by r.owner_id order by r.looked_at nulls first) as n
      from public.rollouts as r
      where r.completed_at is null
        and r.run_id in (
          -- Those that only wait cost nothing, however many there are.
          select x.run_id from public.rollouts as x where x.completed_at is null and x.next_look_at <= p_now
          union
          select p.run_id from fleet.rollout_progress as p
        )
    ) as w
    order by w.n, w.looked_at nulls first
    limit 2000
  );
  for v_from in 1..cardinality(v_due) by 25 loop
    exit when clock_timestamp() > v_end;
    v_some := array(
      select r.run_id from public.rollouts as r where r.run_id = any (v_due[v_from:v_from + 24]) for no key update skip locked
    );
    v_released := v_released + fleet.attempt_looks(v_some, p_now, v_end);
    v_seen := v_seen || v_some;
  end loop;
  return jsonb_build_object(
    'released', v_released, 'rollouts', cardinality(v_seen),
    -- Where somebody could have had a turn still.
    'more', exists (
      select 1 from public.rollouts as r where r.run_id = any (v_seen) and r.completed_at is null and r.next_look_at <= p_now
    )
  );
end;
$$;

comment on function fleet.tend_rollouts(timestamptz) is
  'Look at the rollouts of which there is news or whose time has come, owners in turn, for a fifth of a second and what is under way by then: {released, rollouts, more}.';
revoke all on function fleet.tend_rollouts(timestamptz) from public, anon, authenticated, service_role;
