-- Which runs are expanded now, and what it takes.

create or replace function fleet.runs_to_expand(p_run_ids bigint[], p_now timestamptz)
returns table (
  id bigint, owner_id uuid, schedule_id bigint, starts_at timestamptz, expires_at timestamptz, expanded_to bigint, priority smallint,
  payload jsonb, command_type text, channel text, device_ids bigint[], group_ids bigint[], selector jsonb, zones text[],
  policies jsonb, overlap text, max_concurrent bigint, max_attempts integer, is_plain boolean, may_overlap boolean,
  scheduled_local timestamp, fold smallint, unknown_zone text, zone_row_id bigint, zone_names text[], only_ids bigint[],
  zone_at integer, has_movers boolean, queues boolean
)
language plpgsql
volatile
rows 20
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
begin
  return query
  select r.id, r.owner_id, r.schedule_id,
    -- The slots of the jitter count from the due instant, not from the tick that came by or the chunk that a device is in.
    greatest(r.not_before, case
      when not s.policies ? 'jitter' then p_now
      when z.id is not null then case when z.started_at > z.due_at + interval '1 minute' then z.started_at else z.due_at end
      when r.trigger = 'schedule' then r.scheduled_for
      else r.started_at
    end),
    case when z.id is null then r.expires_at else z.expires_at end,
    case when z.id is null then r.expanded_to else z.expanded_to end, r.priority,
    r.payload, t.name, t.channel, s.device_ids, s.group_ids, s.selector, r.zones,
    p.policies, p.policies ->> 'overlap', (p.policies ->> 'max_concurrent')::bigint,
    (p.policies #>> '{retry,attempts}')::integer,
    not s.policies ?| '{jitter,execution_window}',
    -- Devices need a look at what they still have to do only while another run of the schedule has something left to do.
    exists (
      select 1 from public.schedule_runs as o
      where o.schedule_id = r.schedule_id and o.id <> r.id and o.status in ('pending', 'running')
        and (o.targeted > o.completed + o.failed + o.replaced or o.scheduled_local is null)
    ),
    r.scheduled_local, r.fold, u.zone, z.id,
    case when u.zone = any (z.zones) then z.zones || ''::text else z.zones end, z.device_ids, z.zone_at,
    z.id is not null and exists (select 1 from fleet.judged_movers as m where m.run_id = r.id),
    -- All that was missed is to be made up for, which being busy with the first of it must not defeat.
    p.policies ->> 'catchup' = 'all' and (
      r.trigger = 'catchup'
      -- On time, but decided in one breath with what is late.
      or exists (
        select 1 from public.schedule_runs as e
        where e.schedule_id = r.schedule_id and e.status in ('pending', 'running') and e.trigger = 'catchup' and e.started_at = r.started_at
      )
    )
  from public.schedule_runs as r
  join public.schedules as s on s.id = r.schedule_id and s.owner_id = r.owner_id
  join public.command_types as t on t.name = r.action_type and coalesce(t.owner_id, r.owner_id) = r.owner_id
  cross join lateral (select fleet.effective_policies(s.policies) as policies) as p
  cross join lateral (
    select case when s.timezone = 'device' then fleet.unknown_zone(s.recurrence) else 'UTC' end as zone
  ) as u
  left join lateral (
    select x.*
    from fleet.run_zones as x
    where r.scheduled_local is not null and x.run_id = r.id and x.expanded_at is null and x.starts_at <= p_now
    order by x.starts_at, x.id
    limit 1
  ) as z on true
  where r.id = any (p_run_ids);
end;
$$;

comment on function fleet.runs_to_expand(bigint[], timestamptz) is
  'What it takes to expand these runs; in device time the first of each run''s instants that has come.';
revoke all on function fleet.runs_to_expand(bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.lock_runs(p_run_ids bigint[], p_now timestamptz)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
  v_runs bigint[];
  v_gone text;
begin
  -- Two sessions never expand the same run; what is held elsewhere is expanded there. And one run of a schedule at a time,
  -- here and in other sessions: within one statement, or unseen by each other, two of them could not tell that a device is
  -- busy with the other. In a statement of its own, so that the next one sees all that was done under the lock before. The lock
  -- of a schedule is not that of its row: who cancels it needs that one, and does not wait.
  with first as materialized (
    select (array_agg(x.id order by x.created_at, x.id))[1] as id
    from unnest(p_run_ids) as u(id)
    cross join lateral (select o.* from public.schedule_runs as o where o.id = u.id offset 0) as x
    where x.expanded_at is null
      and x.status in ('pending', 'running')
      -- What waits is judged when it starts: who is busy then, and who is there.
      and case
        when x.scheduled_local is null then coalesce(x.not_before <= p_now, true)
        else exists (select 1 from fleet.run_zones as z where z.run_id = x.id and z.expanded_at is null and z.starts_at <= p_now)
      end
    group by x.schedule_id
  ),
  held as materialized (
    select r.id, r.schedule_id, r.owner_id, r.action_type
    from public.schedule_runs as r
    where r.id = any (array(select f.id from first as f))
      -- So written that these are looked up, and not among all that waits.
      and coalesce(r.expanded_at, 'infinity') = 'infinity'
      and r.status in ('pending', 'running')
    for no key update of r skip locked
  ),
  -- Only now, and of these alone: looked at earlier it would lock the schedules of runs that this session leaves.
  locked as materialized (
    select h.* from held as h where pg_try_advisory_xact_lock(hashtext('pgfleet.expand'), hashint8(h.schedule_id))
  )
  select array_agg(l.id), min(case when t.name is null then l.action_type end) into v_runs, v_gone
  from locked as l
  join public.schedules as s on s.id = l.schedule_id and s.status <> 'cancelled'
  left join public.command_types as t on t.name = l.action_type and coalesce(t.owner_id, l.owner_id) = l.owner_id;

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
