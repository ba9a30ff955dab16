-- From runs to commands: one row for each (run, device), in chunks.

create or replace function fleet.expand_runs(p_run_ids bigint[], p_now timestamptz, p_limit integer)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_made bigint := 0;
  v_id bigint;
begin
  begin
    return fleet.write_commands(p_run_ids, p_now, p_limit, false);
  exception
    when query_canceled or admin_shutdown then
      raise;
    when others then
      -- One of them is bad: each by itself, with a look at what its devices have already, and the error goes to its run.
      null;
  end;

  foreach v_id in array p_run_ids loop
    begin
      v_made := v_made + fleet.write_commands(array[v_id], p_now, p_limit, true);
    exception
      when query_canceled or admin_shutdown then
        raise;
      when deadlock_detected or lock_not_available or unique_violation then
        -- Somebody holds what it needs, or wrote the same at this moment: next time.
        null;
      when others then
        update public.schedule_runs as r
        set status = 'failed', reason = 'error', error_message = sqlerrm, expanded_at = p_now, finished_at = p_now
        where r.id = v_id;
        update fleet.run_zones as z
        set status = 'cancelled', reason = 'error', expanded_at = p_now
        where z.run_id = v_id and z.expanded_at is null;
        -- Whatever follows a failure is to hear of this one.
        insert into fleet.run_progress (run_id, completed, failed) values (v_id, 0, 0);
        perform fleet.end_used_up(array(select r.schedule_id from public.schedule_runs as r where r.id = v_id));
    end;
  end loop;
  return v_made;
end;
$$;

comment on function fleet.expand_runs(bigint[], timestamptz, integer) is
  'Make the next commands of these runs, at most p_limit devices of each. Answers how many rows were made.';
revoke all on function fleet.expand_runs(bigint[], timestamptz, integer)
  from public, anon, authenticated, service_role;

create or replace function fleet.write_commands(p_run_ids bigint[], p_now timestamptz, p_limit integer, p_is_again boolean)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
-- Compiling the plan would take a hundred times as long as running it.
set jit = off
as $$
declare
  v_runs bigint[] := fleet.judge_zones(fleet.lock_runs(p_run_ids, p_now), p_now);
  v_made bigint;
  v_nobody bigint[];
  v_limited bigint[];
  v_walls bigint[];
begin
  -- Until the insert of this statement.
  perform set_config('pgfleet.known_devices', 'yes', true);
  with run as materialized (
    select x.*, exists (select 1 from public.run_waves as w where w.run_id = x.id) as has_waves
    from fleet.runs_to_expand(v_runs, p_now) as x
  ),
  -- One more than the limit tells whether anything is left.
  target as materialized (
    select r.id as run_id, t.device_id, t.hostname, t.zone_at, t.n,
      case
        when r.zone_row_id is null then r.zones is null or coalesce(t.timezone, r.unknown_zone) = any (r.zones)
        -- Whoever was looked at in another zone is not looked at again.
        else not r.has_movers or not exists (
          select 1 from fleet.judged_movers as m where m.run_id = r.id and m.device_id = t.device_id
        )
      end as is_due,
      case
        -- Whoever is held is told later when to start.
        when r.is_plain or r.has_waves then r.starts_at
        else fleet.device_start(
          r.policies, r.schedule_id, t.device_id, coalesce(t.timezone, r.unknown_zone, 'UTC'), r.starts_at
        )
      end as starts_at,
      coalesce(u.n, 0) as unfinished, u.last_id, coalesce(u.is_overtaken, false) as is_overtaken
    from run as r
    cross join lateral (
      -- Both give them in the order in which they have their turn.
      select x.device_id, x.hostname, x.timezone, 0 as zone_at, x.n
      from fleet.targets(r.owner_id, r.device_ids, r.group_ids, r.selector, coalesce(r.expanded_to, 0), p_limit + 1)
        with ordinality as x(device_id, hostname, timezone, n)
      where r.zone_row_id is null
      union all
      (
        select x.device_id, x.hostname, x.timezone, x.zone_at, x.n
        from fleet.targets_in_zones(
          r.owner_id, r.device_ids, r.group_ids, r.selector, r.zone_names, r.only_ids, r.zone_at, r.expanded_to, p_limit + 1
        ) with ordinality as x(device_id, hostname, timezone, zone_at, n)
        where r.zone_row_id is not null
        -- Zones that share an instant come one after the other; their devices lie among each other in every index.
        order by x.device_id
      )
    ) as t
    left join lateral (
      select x.*
      from fleet.unfinished_of(r.schedule_id, t.device_id, r.id, coalesce(r.scheduled_local, '-infinity'), r.fold, p_now) as x
      -- So that where this is false the function is not even called.
      where r.may_overlap
      offset 0
    ) as u on true
  ),
  replaced as (
    update public.device_commands as c
    set status = 'cancelled', reason = 'replaced'
    from target as t
    join run as r on r.id = t.run_id
    where r.overlap = 'replace' and not r.queues
      and t.n <= p_limit and t.is_due and t.starts_at is not null and t.unfinished > 0
      and c.schedule_id = r.schedule_id
      and c.device_id = t.device_id
      and c.status in ('pending', 'running')
      and case
        when r.scheduled_local is null then fleet.is_booked_before(c.run_id, r.id)
        else fleet.is_earlier_run(c.run_id, r.scheduled_local, r.fold)
      end
  ),
  made as (
    insert into public.device_commands (
      run_id, schedule_id, owner_id, device_id, device_hostname, channel, command_type, payload, priority, not_before,
      expires_at, max_attempts, waits_for, wave
    )
    select r.id, r.schedule_id, r.owner_id, t.device_id, t.hostname, r.channel, r.command_type, r.payload, r.priority,
      case when r.has_waves then fleet.held_until() else t.starts_at end,
      case when r.has_waves then fleet.held_until() else r.expires_at + (t.starts_at - r.starts_at) end, r.max_attempts,
      case
        when r.overlap = 'buffer_one' or (r.queues and (r.overlap <> 'allow' or t.unfinished >= r.max_concurrent)) then t.last_id
      end,
      case when r.has_waves then fleet.wave_of(r.id, r.schedule_id, t.device_id) end
    from target as t
    join run as r on r.id = t.run_id
    where t.n <= p_limit
      and t.is_due
      and t.starts_at is not null
      and (r.queues or not fleet.leaves_out(r.overlap, r.max_concurrent, t.unfinished, t.is_overtaken))
      -- A run comes by each device once, but for newcomers and for who moves; to leave it to the index would cost each row a tenth.
      and not (
        (p_is_again or r.has_waves or r.has_movers)
        and (select c.id from public.device_commands as c where c.run_id = r.id and c.device_id = t.device_id and c.step = 0) is not null
      )
    returning run_id
  ),
  progress as (
    select r.id, r.zone_row_id,
      (select count(*) from made as m where m.run_id = r.id) as made,
      -- Left out: they had enough to do, or it is not their time of day.
      count(*) filter (
        where t.starts_at is not null and not r.queues
          and fleet.leaves_out(r.overlap, r.max_concurrent, t.unfinished, t.is_overtaken)
      ) as busy,
      count(*) filter (where t.run_id is not null and t.starts_at is null) as outside,
      (
        select (x.zone_at, x.device_id)::fleet.place_in_zones
        from target as x
        where x.run_id = r.id and x.n <= p_limit
        order by x.n desc
        limit 1
      ) as reached,
      not exists (select 1 from target as x where x.run_id = r.id and x.n > p_limit) as is_whole
    from run as r
    left join target as t on t.run_id = r.id and t.n <= p_limit and t.is_due
      and (t.starts_at is null or t.unfinished > 0)
    group by r.id, r.zone_row_id
  ),
  counted as (
    update public.schedule_runs as r
    set targeted = r.targeted + p.made,
        skipped = r.skipped + p.busy + p.outside,
        expanded_to = coalesce((p.reached).device_id, r.expanded_to, 0),
        -- In device time it is whole when no zone is to come.
        expanded_at = case when p.is_whole and p.zone_row_id is null then p_now end,
        status = case when p.is_whole and p.zone_row_id is null and r.targeted + p.made = 0 then 'skipped' else 'running' end,
        reason = case
          when not p.is_whole or p.zone_row_id is not null or r.targeted + p.made > 0 then null
          when p.outside > 0 then 'outside the execution window'
          when r.skipped + p.busy > 0 then 'overlap'
          else 'no targets'
        end,
        finished_at = case when p.is_whole and p.zone_row_id is null and r.targeted + p.made = 0 then p_now end
    from progress as p
    where r.id = p.id
    returning r.id, r.status
  ),
  zoned as (
    update fleet.run_zones as z
    set zone_at = coalesce((p.reached).zone_at, z.zone_at),
        expanded_to = coalesce((p.reached).device_id, z.expanded_to),
        targeted = z.targeted + p.made,
        expanded_at = case when p.is_whole then p_now end,
        status = case when p.is_whole then 'done' else 'running' end,
        reason = case
          when p.outside > 0 then 'outside the execution window'
          when p.busy > 0 then 'overlap'
          when p.is_whole and z.targeted + p.made = 0 then coalesce(z.reason, 'no targets')
          else z.reason
        end
    from progress as p
    where z.id = p.zone_row_id
  ),
  whole as (
    -- All of its commands may be final already: have the tick look at it once more.
    insert into fleet.run_progress (run_id, completed, failed)
    select p.id, 0, 0 from progress as p where p.is_whole and p.zone_row_id is null
  )
  select
    (select count(*) from made),
    (select array_agg(n.id) from counted as n where n.status = 'skipped'),
    (select array_agg(r.schedule_id) from run as r where r.policies ->> 'max_runs' is not null),
    (select array_agg(p.id) from progress as p where p.is_whole and p.zone_row_id is not null)
  into v_made, v_nobody, v_limited, v_walls;

  if v_walls is not null then
    perform fleet.close_runs(v_walls, p_now);
  end if;
  if v_nobody is not null then
    perform fleet.count_idle_runs(v_nobody);
  end if;
  if v_limited is not null then
    -- Only now is it known whether the last of them has reached somebody.
    perform fleet.end_used_up(v_limited);
  end if;
  return v_made;
end;
$$;

comment on function fleet.write_commands(bigint[], timestamptz, integer, boolean) is
  'One statement: the next devices of these runs, their commands, and how far the runs have come.';
revoke all on function fleet.write_commands(bigint[], timestamptz, integer, boolean)
  from public, anon, authenticated, service_role;

create or replace function fleet.chunk_size()
returns integer
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return greatest(1, fleet.setting_number(
    case
      when exists (
        select 1 from pg_catalog.pg_publication_tables as p
        where p.pubname = 'supabase_realtime' and p.schemaname = 'public' and p.tablename = 'device_commands'
      ) then 'expand_chunk_size_published'
      else 'expand_chunk_size'
    end
  ))::integer;
end;
$$;

comment on function fleet.chunk_size() is
  'How many commands go into one transaction; fewer while the table is published, where one transaction is one poll of Realtime.';
revoke all on function fleet.chunk_size() from public, anon, authenticated, service_role;
