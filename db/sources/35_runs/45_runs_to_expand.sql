-- Which runs are expanded now, and what it takes.

create or replace function fleet.runs_to_expand(p_run_ids bigint[], p_now timestamptz)
returns table (
  id bigint, owner_id uuid, schedule_id bigint, starts_at timestamptz, expires_at timestamptz, expanded_to bigint, priority smallint,
  payload jsonb, command_type text, channel text, device_ids bigint[], group_ids bigint[], selector jsonb, zones text[],
  policies jsonb, overlap text, max_concurrent bigint, max_attempts integer, is_plain boolean, may_overlap boolean
)
language sql
volatile
rows 20
set search_path = pg_catalog, pg_temp
as $$
  select r.id, r.owner_id, r.schedule_id,
    -- The slots of the jitter count from the due instant, not from the tick that came by or the chunk that a device is in.
    greatest(r.not_before, case
      when not s.policies ? 'jitter' then p_now
      when r.trigger = 'schedule' then r.scheduled_for
      else r.started_at
    end),
    r.expires_at, r.expanded_to, r.priority,
    r.payload, t.name, t.channel, s.device_ids, s.group_ids, s.selector, r.zones,
    p.policies, p.policies ->> 'overlap', (p.policies ->> 'max_concurrent')::bigint,
    (p.policies #>> '{retry,attempts}')::integer,
    not s.policies ?| '{jitter,execution_window}',
    -- Devices need a look at what they still have to do only while another run of the schedule goes on.
    exists (
      select 1 from public.schedule_runs as o
      where o.schedule_id = r.schedule_id and o.id <> r.id and o.status in ('pending', 'running')
    )
  from public.schedule_runs as r
  join public.schedules as s on s.id = r.schedule_id and s.owner_id = r.owner_id
  join public.command_types as t on t.name = r.action_type
  cross join lateral (select fleet.effective_policies(s.policies) as policies) as p
  where r.id = any (p_run_ids)
$$;

comment on function fleet.runs_to_expand(bigint[], timestamptz) is 'What it takes to expand these runs.';
revoke all on function fleet.runs_to_expand(bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.lock_runs(p_run_ids bigint[], p_now timestamptz)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_runs bigint[];
  v_gone text;
begin
  -- Two sessions never expand the same run; what is held elsewhere is expanded there. And one run of a schedule at a time,
  -- here and in other sessions: within one statement, or unseen by each other, two of them could not tell that a device is
  -- busy with the other. In a statement of its own, so that the next one sees all that was done under the lock before.
  select array_agg(l.id), min(l.gone) into v_runs, v_gone
  from (
    select r.id, case when t.name is null then r.action_type end as gone
    from public.schedule_runs as r
    join public.schedules as s on s.id = r.schedule_id
    left join public.command_types as t on t.name = r.action_type
    where r.id in (
      select min(x.id)
      from public.schedule_runs as x
      where x.id = any (p_run_ids)
        and x.expanded_at is null
        and x.status in ('pending', 'running')
        -- What waits is judged when it starts: who is busy then, and who is there.
        and coalesce(x.not_before <= p_now, true)
      group by x.schedule_id
    )
      and r.expanded_at is null
      and r.status in ('pending', 'running')
    for no key update of r, s skip locked
  ) as l;

  if v_gone is not null then
    raise exception 'command type "%" is gone', v_gone
      using errcode = 'PT409', detail = 'command_type_gone', hint = 'Make it again, or change the action_type of the schedule.';
  end if;
  return v_runs;
end;
$$;

comment on function fleet.lock_runs(bigint[], timestamptz) is
  'Those of these runs that this session expands now. Raises command_type_gone (PT409).';
revoke all on function fleet.lock_runs(bigint[], timestamptz) from public, anon, authenticated, service_role;
