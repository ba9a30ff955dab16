-- The end of runs: counted, judged, and passed on to what follows.

create or replace function fleet.settle_runs(p_now timestamptz, p_limit integer default 20000)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ended bigint[];
begin
  perform fleet.end_cancelled(p_limit);
  perform fleet.feed_followers(p_now);
  v_ended := fleet.add_progress(p_now, p_limit);
  perform fleet.close_fed_runs(p_now);
  if v_ended is null then
    return 0;
  end if;

  perform fleet.start_followers(v_ended, p_now);
  perform fleet.pause_failing(v_ended);
  return cardinality(v_ended);
end;
$$;

comment on function fleet.settle_runs(timestamptz, integer) is
  'Add finished commands to their runs, end the runs that are through, start what follows them or their devices, pause what keeps failing. Answers how '
  'many ended.';
revoke all on function fleet.settle_runs(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.end_cancelled(p_limit integer)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Whoever cancels does not wait for a tick that is expanding: what it made meanwhile ends here.
  perform fleet.cancel_runs_of(s.id, coalesce(s.status_reason, 'the schedule was cancelled'))
  from public.schedules as s
  where s.status = 'cancelled'
    and s.id in (
      select r.schedule_id
      from (
        select p.run_id
        from fleet.run_progress as p
        where p.completed = 0 and p.failed = 0 and p.replaced = 0
        order by p.id
        limit p_limit
      ) as t
      join public.schedule_runs as r on r.id = t.run_id
    );
end;
$$;

comment on function fleet.end_cancelled(integer) is
  'Cancel once more what is left of cancelled schedules, of those whose runs are to be looked at.';
revoke all on function fleet.end_cancelled(integer) from public, anon, authenticated, service_role;

create or replace function fleet.add_progress(p_now timestamptz, p_limit integer)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ended bigint[];
begin
  with taken as (
    delete from fleet.run_progress as p
    where p.id in (select x.id from fleet.run_progress as x order by x.id limit p_limit for update skip locked)
    returning p.run_id, p.completed, p.failed, p.replaced
  ),
  -- Only runs of which something was heard: a tick costs what happened, not what is open. Counters and end in one statement,
  -- so that of two sessions the later one sees the sum.
  told as (
    update public.schedule_runs as r
    set completed = r.completed + a.completed,
        failed = r.failed + a.failed,
        replaced = r.replaced + a.replaced,
        (status, reason, finished_at) = (
          select o.status, o.reason, o.finished_at
          from fleet.run_outcome(
            r, r.completed + a.completed, r.failed + a.failed, r.replaced + a.replaced, p_now
          ) as o
        )
    from (
      select t.run_id, sum(t.completed) as completed, sum(t.failed) as failed, sum(t.replaced) as replaced,
        bool_or(t.completed = 0 and t.failed = 0 and t.replaced = 0) as is_told_to_end
      from taken as t
      group by t.run_id
    ) as a
    where r.id = a.run_id
    returning r.id, a.is_told_to_end, r.reason,
      r.status in ('completed', 'failed') and r.finished_at = p_now as is_over_now
  )
  -- What failed with an error was over before it came here.
  select array_agg(t.id) into v_ended from told as t where t.is_over_now or (t.is_told_to_end and t.reason = 'error');
  return v_ended;
end;
$$;

comment on function fleet.add_progress(timestamptz, integer) is
  'Add what finished since the last tick to the counters of the runs, and end those that are through. Answers which.';
revoke all on function fleet.add_progress(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.run_outcome(
  p_run public.schedule_runs,
  p_completed bigint,
  p_failed bigint,
  p_replaced bigint,
  p_now timestamptz
)
returns table (status text, reason text, finished_at timestamptz)
language sql
immutable
rows 1
set search_path = pg_catalog, pg_temp
as $$
  select case
      when not o.is_over then p_run.status
      when p_failed > 0 then 'failed'
      -- Nobody was to carry it out any more: it has neither failed nor come to anything.
      when p_completed = 0 and p_replaced > 0 then 'cancelled'
      else 'completed'
    end,
    case
      when not o.is_over then p_run.reason
      when p_failed > 0 then format('%s of %s commands did not complete', p_failed, p_run.targeted)
      when p_completed = 0 and p_replaced > 0 then 'replaced'
      when p_replaced > 0 then format('%s of %s commands were replaced by a later run', p_replaced, p_run.targeted)
    end,
    case when o.is_over then p_now else p_run.finished_at end
  from (
    select p_run.status = 'running' and p_run.expanded_at is not null and not p_run.is_fed
      and p_completed + p_failed + p_replaced >= p_run.targeted as is_over
  ) as o
$$;

comment on function fleet.run_outcome(public.schedule_runs, bigint, bigint, bigint, timestamptz) is
  'What a run comes to with so many commands completed, failed and replaced by a later run: the end, or what it was.';
revoke all on function fleet.run_outcome(public.schedule_runs, bigint, bigint, bigint, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.pause_failing(p_runs bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  update public.schedules as s
  set status = 'paused',
      status_reason = case s.policies ->> 'pause_on_failure'
        when '1' then 'a run failed (pause_on_failure)'
        else format('%s runs in a row failed (pause_on_failure)', s.policies ->> 'pause_on_failure')
      end
  where s.id in (select r.schedule_id from public.schedule_runs as r where r.id = any (p_runs) and r.status = 'failed')
    and s.status = 'active'
    and (s.policies ->> 'pause_on_failure')::integer <= (
      -- How many of the latest runs failed, before one that did not.
      select count(*) filter (where f.failed_so_far)
      from (
        select bool_and(h.status = 'failed') over (order by h.finished_at desc, h.id desc) as failed_so_far
        from (
          select r.id, r.status, r.finished_at
          from public.schedule_runs as r
          where r.schedule_id = s.id and r.status in ('completed', 'failed')
          order by r.finished_at desc, r.id desc
          limit (s.policies ->> 'pause_on_failure')::integer
        ) as h
      ) as f
    )
$$;

comment on function fleet.pause_failing(bigint[]) is
  'Pause the schedules whose latest runs, as many as policies.pause_on_failure says, all failed.';
revoke all on function fleet.pause_failing(bigint[]) from public, anon, authenticated, service_role;
