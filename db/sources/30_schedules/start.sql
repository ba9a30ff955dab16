-- From due schedules to runs in the ledger.

create or replace function fleet.start_due_runs(
  p_now timestamptz,
  p_schedule_ids bigint[] default null,
  p_limit integer default 2000
)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_due bigint[];
  v_id bigint;
  v_runs bigint[];
  v_one bigint[];
begin
  -- The lock keeps a second tick, or a trigger, from deciding about the same schedules; what it holds is skipped there.
  select array_agg(d.id) into v_due
  from (
    select s.id
    from public.schedules as s
    where s.status = 'active'
      and s.next_run_at <= p_now
      and (p_schedule_ids is null or s.id = any (p_schedule_ids))
    order by s.next_run_at
    limit p_limit
    for update skip locked
  ) as d;
  if v_due is null then
    return '{}';
  end if;

  begin
    return fleet.write_runs(v_due, p_now);
  exception
    when query_canceled or admin_shutdown or deadlock_detected then
      raise;
    when others then
      -- One of them is bad. Each by itself, so that the others do not pay for it; the error goes to its run.
      v_runs := '{}';
  end;

  foreach v_id in array v_due loop
    begin
      v_one := fleet.write_runs(array[v_id], p_now);
      v_runs := v_runs || v_one;
    exception
      when query_canceled or admin_shutdown or deadlock_detected then
        raise;
      when others then
        perform fleet.write_failed_run(v_id, p_now, sqlerrm);
    end;
  end loop;
  return v_runs;
end;
$$;

comment on function fleet.start_due_runs(timestamptz, bigint[], integer) is
  'Write the runs of the schedules that are due, at most p_limit schedules, and move them on. Answers the runs to expand. Any number '
  'of sessions may call it at once.';
revoke all on function fleet.start_due_runs(timestamptz, bigint[], integer)
  from public, anon, authenticated, service_role;

create or replace function fleet.write_runs(p_schedule_ids bigint[], p_now timestamptz)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- Compiling the plan would take a hundred times as long as running it.
set jit = off
as $$
declare
  v_runs bigint[];
begin
  perform fleet.refresh_union(p_schedule_ids);

  with decided as materialized (
    select s.id, s.owner_id, s.action_type, s.payload, s.priority, s.execution_count,
      (s.policies ->> 'max_runs')::bigint as max_runs, d.*
    from public.schedules as s
    cross join lateral fleet.decide_due(s, p_now) as d
    where s.id = any (p_schedule_ids)
  ),
  written as (
    insert into public.schedule_runs (
      schedule_id, owner_id, scheduled_for, trigger, status, reason, action_type, payload, priority, dst_rule, zones,
      missed_from, missed_to, missed_count, not_before, expires_at, started_at, finished_at
    )
    select d.id, d.owner_id, d.scheduled_for, d.trigger, d.status, d.reason, d.action_type, d.payload, d.priority, d.dst_rule,
      d.zones, d.missed_from, d.missed_to, d.missed_count, d.not_before, d.expires_at,
      case when d.status = 'pending' then p_now end,
      case when d.status = 'skipped' then p_now end
    from decided as d
    on conflict (schedule_id, scheduled_for) do nothing
    returning id, schedule_id, status
  ),
  moved as (
    update public.schedules as s
    set next_run_at = case when m.is_used_up then null else m.next_run_at end,
        execution_count = s.execution_count + m.run_count,
        -- What an MDM carries out is executed when the provider accepts it.
        last_executed_at = case
          when m.run_count > 0 and not fleet.is_mdm_action(s.action_type) then p_now
          else s.last_executed_at
        end,
        status = case when m.is_used_up or m.next_run_at is null then 'completed' else s.status end,
        status_reason = case
          when m.is_used_up then 'max_runs reached'
          when m.next_run_at is null then 'no due instant is left'
          else s.status_reason
        end
    from (
      select d.id, max(d.next_run_at) as next_run_at, w.run_count,
        coalesce(d.execution_count + w.run_count >= d.max_runs, false) as is_used_up
      from decided as d
      -- What the ledger knew already did not run again.
      cross join lateral (
        select count(*) as run_count from written as x where x.schedule_id = d.id and x.status = 'pending'
      ) as w
      group by d.id, d.execution_count, d.max_runs, w.run_count
    ) as m
    where s.id = m.id
  )
  select array_agg(w.id order by w.id) into v_runs
  from written as w
  where w.status = 'pending';
  return coalesce(v_runs, '{}');
end;
$$;

comment on function fleet.write_runs(bigint[], timestamptz) is
  'Write into the ledger what decide_due says about these schedules, and move them on. The caller holds their rows.';
revoke all on function fleet.write_runs(bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.refresh_union(p_schedule_ids bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  -- Devices may have gone to other zones since; groups and selectors tell only now.
  update public.schedules as s
  set recurrence = fleet.compiled(s)
  where s.id = any (p_schedule_ids)
    and s.timezone = 'device'
    and s.recurrence -> 'zones' is distinct from to_jsonb(fleet.target_zones(s))
$$;

comment on function fleet.refresh_union(bigint[]) is
  'Recompile those of these schedules that go by device time and whose devices are in other zones than before.';
revoke all on function fleet.refresh_union(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.write_failed_run(p_schedule_id bigint, p_now timestamptz, p_error text)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_next timestamptz;
  v_last timestamptz;
  v_count bigint;
  v_lost boolean := false;
begin
  begin
    select fleet.next_due(s.recurrence, p_now),
      fleet.last_occurrence(s.recurrence, s.next_run_at, p_now + interval '1 microsecond'),
      fleet.count_due(s.recurrence, s.next_run_at, p_now + interval '1 microsecond')
    into v_next, v_last, v_count
    from public.schedules as s
    where s.id = p_schedule_id;
  exception
    when query_canceled or admin_shutdown then
      raise;
    when others then
      -- Not even the next instant can be told: going on would repeat the error every second.
      v_lost := true;
  end;

  with written as (
    insert into public.schedule_runs (
      schedule_id, owner_id, scheduled_for, status, reason, error_message, missed_from, missed_to, missed_count, started_at,
      finished_at
    )
    select s.id, s.owner_id, s.next_run_at, 'failed', 'error', p_error,
      case when v_count > 1 then s.next_run_at end,
      case when v_count > 1 then v_last end,
      case when v_count > 1 then v_count end,
      p_now, p_now
    from public.schedules as s
    where s.id = p_schedule_id
    on conflict (schedule_id, scheduled_for) do nothing
    returning id
  )
  -- Whatever follows a failure is to hear of this one.
  insert into fleet.run_progress (run_id, completed, failed)
  select w.id, 0, 0 from written as w;

  update public.schedules as s
  set next_run_at = v_next,
      status = case when v_lost then 'paused' when v_next is null then 'completed' else s.status end,
      status_reason = case when v_lost then 'its recurrence cannot be computed: ' || p_error else s.status_reason end
  where s.id = p_schedule_id;
end;
$$;

comment on function fleet.write_failed_run(bigint, timestamptz, text) is
  'Note the error of a schedule as a failed run and let it go on at its next instant; pause it where there is no telling.';
revoke all on function fleet.write_failed_run(bigint, timestamptz, text)
  from public, anon, authenticated, service_role;

create or replace function fleet.run_due(p_schedule_ids bigint[], p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_runs bigint[] := fleet.start_due_runs(p_now, p_schedule_ids);
  v_limit integer := fleet.setting_number('inline_expand_limit')::integer;
begin
  v_runs := v_runs[1:v_limit];
  if cardinality(v_runs) > 0 then
    perform fleet.expand_runs(v_runs, p_now, v_limit / cardinality(v_runs));
  end if;
end;
$$;

comment on function fleet.run_due(bigint[], timestamptz) is
  'Run what is due of these schedules now, up to the setting inline_expand_limit; the tick does the rest.';
revoke all on function fleet.run_due(bigint[], timestamptz) from public, anon, authenticated, service_role;
