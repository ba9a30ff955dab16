-- What time does to commands: leases run out, commands expire.

create or replace function fleet.sweep_commands(p_now timestamptz, p_limit integer default 5000)
returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_swept integer := 0;
  v_again bigint[];
  v_count integer;
begin
  with lapsed as (
    select c.id
    from public.device_commands as c
    where c.status = 'running' and c.lease_expires_at < p_now
    order by c.lease_expires_at
    limit p_limit
    for update skip locked
  ),
  changed as (
    update public.device_commands as c
    set failure_count = c.failure_count + 1,
        status = case
          when c.failure_count + 1 >= c.max_attempts then 'failed'
          when c.expires_at <= p_now then 'expired'
          else 'pending'
        end,
        reason = 'lease_expired',
        error_message = case
          when c.failure_count + 1 >= c.max_attempts or c.expires_at <= p_now
            then 'the device took it and did not answer'
        end
    from lapsed as l
    where c.id = l.id
    returning c.id, c.status, c.channel
  )
  select coalesce(array_agg(c.id) filter (where c.status = 'pending' and c.channel = 'agent'), '{}'), count(*)
  into v_again, v_swept
  from changed as c;
  if v_again <> '{}' then
    perform fleet.queue_doorbells(v_again);
  end if;

  with expired as (
    select c.id
    from public.device_commands as c
    where c.status = 'pending' and c.expires_at <= p_now
    order by c.expires_at
    limit p_limit
    for update skip locked
  )
  update public.device_commands as c
  set status = 'expired', reason = coalesce(c.reason, 'expired')
  from expired as e
  where c.id = e.id;
  get diagnostics v_count = row_count;
  return v_swept + v_count;
end;
$$;

comment on function fleet.sweep_commands(timestamptz, integer) is
  'Offer again what its device did not answer for, end what failed too often, expire what nobody started in time. Answers how many.';
revoke all on function fleet.sweep_commands(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.run_outcome(
  p_run public.schedule_runs,
  p_completed bigint,
  p_failed bigint,
  p_now timestamptz
)
returns table (status text, reason text, finished_at timestamptz)
language sql
immutable
set search_path = ''
as $$
  select case when not o.is_over then p_run.status when p_failed = 0 then 'completed' else 'failed' end,
    case
      when not o.is_over then p_run.reason
      when p_failed > 0 then format('%s of %s commands did not complete', p_failed, p_run.targeted)
    end,
    case when o.is_over then p_now else p_run.finished_at end
  from (
    select p_run.status = 'running' and p_run.expanded_at is not null and p_completed + p_failed >= p_run.targeted as is_over
  ) as o
$$;

comment on function fleet.run_outcome(public.schedule_runs, bigint, bigint, timestamptz) is
  'What a run comes to with so many commands completed and failed: the end, or what it was.';
revoke all on function fleet.run_outcome(public.schedule_runs, bigint, bigint, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.settle_runs(p_now timestamptz, p_limit integer default 20000)
returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_finished integer;
begin
  with taken as (
    delete from fleet.run_progress as p
    where p.id in (select x.id from fleet.run_progress as x order by x.id limit p_limit for update skip locked)
    returning p.run_id, p.completed, p.failed
  ),
  added as (
    select t.run_id, sum(t.completed) as completed, sum(t.failed) as failed
    from taken as t
    group by t.run_id
  ),
  -- Only runs of which something was heard: a tick costs what happened, not what is open. A run is over when it is whole and
  -- every command of it is final; both in one statement, so that of two sessions the later one sees the sum.
  settled as (
    update public.schedule_runs as r
    set completed = r.completed + a.completed,
        failed = r.failed + a.failed,
        (status, reason, finished_at) = (
          select o.status, o.reason, o.finished_at
          from fleet.run_outcome(r, r.completed + a.completed, r.failed + a.failed, p_now) as o
        )
    from added as a
    where r.id = a.run_id
    returning r.finished_at
  )
  select count(*) into v_finished from settled as s where s.finished_at = p_now;
  return v_finished;
end;
$$;

comment on function fleet.settle_runs(timestamptz, integer) is
  'Add finished commands to their runs and end the runs that are through. Answers how many ended.';
revoke all on function fleet.settle_runs(timestamptz, integer) from public, anon, authenticated, service_role;
