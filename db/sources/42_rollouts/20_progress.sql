-- What happened to the commands of rollouts, added to their groups.

create or replace function fleet.waves_of(p_run_id bigint)
returns fleet.wave_count[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select (
      w.wave, w.name, w.rules, w.targeted, w.released, w.succeeded, w.failed, w.skipped, w.failures, w.opened_at, w.passed_at
    )::fleet.wave_count
    from public.run_waves as w
    where w.run_id = p_run_id
    order by w.wave
  );
end;
$$;

comment on function fleet.waves_of(bigint) is 'The groups of a run in their order, as they were counted.';
revoke all on function fleet.waves_of(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.fold_rollouts(p_run_ids bigint[])
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- Planned for each list of rollouts otherwise, which takes as long as the look; and by index always: a plan of a time when there was little would read
-- all that came since.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
begin
  with taken as (
    delete from fleet.rollout_progress as p where p.run_id = any (p_run_ids) returning p.run_id, p.wave, p.outcome, p.n
  ),
  summed as materialized (
    select t.run_id, t.wave, t.outcome, sum(t.n)::integer as n from taken as t group by t.run_id, t.wave, t.outcome
  ),
  told as (
    update public.rollouts as r
    set restored = r.restored + coalesce(s.restored, 0),
        unrestored = r.unrestored + coalesce(s.unrestored, 0),
        -- Who came through after all has it too.
        restore_from = case when r.aborted_at is not null and r.plan ? 'compensate' and s.late then 0 else r.restore_from end
    from (
      select x.run_id,
        sum(x.n) filter (where x.outcome = 'restored') as restored,
        sum(x.n) filter (where x.outcome = 'unrestored') as unrestored,
        bool_or(x.outcome = 'succeeded') as late
      from summed as x
      group by x.run_id
    ) as s
    where r.run_id = s.run_id and (s.restored > 0 or s.unrestored > 0 or (s.late and r.aborted_at is not null))
  )
  update public.run_waves as w
  set targeted = w.targeted + g.targeted,
      succeeded = w.succeeded + g.succeeded,
      skipped = w.skipped + g.skipped,
      failed = w.failed + g.failed,
      failures = w.failures || g.failures
  from (
    select s.run_id, s.wave,
      coalesce(sum(s.n) filter (where s.outcome = 'targeted'), 0) as targeted,
      coalesce(sum(s.n) filter (where s.outcome = 'succeeded'), 0) as succeeded,
      coalesce(sum(s.n) filter (where s.outcome = 'cancelled'), 0) as skipped,
      coalesce(sum(s.n) filter (where s.outcome like 'failed:%'), 0) as failed,
      coalesce(
        jsonb_object_agg(
          substr(s.outcome, 8), s.n + coalesce((x.failures ->> substr(s.outcome, 8))::bigint, 0)
        ) filter (where s.outcome like 'failed:%'),
        '{}'
      ) as failures
    from summed as s
    join public.run_waves as x on x.run_id = s.run_id and x.wave = s.wave
    group by s.run_id, s.wave
  ) as g
  where w.run_id = g.run_id and w.wave = g.wave;
end;
$$;

comment on function fleet.fold_rollouts(bigint[]) is
  'Add what happened since the last look to the groups of these rollouts. The caller holds their rows.';
revoke all on function fleet.fold_rollouts(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.tell_rollouts(p_command_ids bigint[])
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into fleet.rollout_progress (run_id, wave, outcome, n)
  select c.run_id, c.wave, t.outcome, count(*)
  from public.device_commands as c
  cross join lateral (
    select case
      when c.step > 0 then case c.status when 'completed' then 'restored' else 'unrestored' end
      when c.status = 'completed' then 'succeeded'
      when c.status = 'cancelled' then 'cancelled'
      when c.status = 'expired' then 'failed:expired'
      else 'failed:' || left(coalesce(c.reason, 'error'), 60)
    end as outcome
  ) as t
  where c.id = any (p_command_ids)
    and c.wave is not null
    and exists (select 1 from public.rollouts as r where r.run_id = c.run_id)
  group by c.run_id, c.wave, t.outcome;
end;
$$;

comment on function fleet.tell_rollouts(bigint[]) is 'Tell rollouts what their commands came to that became final.';
revoke all on function fleet.tell_rollouts(bigint[]) from public, anon, authenticated, service_role;
