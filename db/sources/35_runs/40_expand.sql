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
    return fleet.write_commands(p_run_ids, p_now, p_limit);
  exception
    when query_canceled or admin_shutdown or deadlock_detected then
      raise;
    when others then
      -- One of them is bad: each by itself, and the error goes to its run.
      null;
  end;

  foreach v_id in array p_run_ids loop
    begin
      v_made := v_made + fleet.write_commands(array[v_id], p_now, p_limit);
    exception
      when query_canceled or admin_shutdown or deadlock_detected then
        raise;
      when others then
        update public.schedule_runs as r
        set status = 'failed', reason = 'error', error_message = sqlerrm, expanded_at = p_now, finished_at = p_now
        where r.id = v_id;
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

create or replace function fleet.write_commands(p_run_ids bigint[], p_now timestamptz, p_limit integer)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- Compiling the plan would take a hundred times as long as running it.
set jit = off
as $$
declare
  v_runs bigint[] := fleet.lock_runs(p_run_ids, p_now);
  v_made bigint;
  v_nobody bigint[];
  v_limited bigint[];
begin
  with run as materialized (
    select * from fleet.runs_to_expand(v_runs, p_now)
  ),
  -- One more than the limit tells whether anything is left.
  target as materialized (
    select r.id as run_id, t.device_id, t.hostname, row_number() over (partition by r.id order by t.device_id) as n,
      r.zones is null or coalesce(t.timezone, 'UTC') = any (r.zones) as is_due,
      case
        when r.is_plain then r.starts_at
        else fleet.device_start(r.policies, r.schedule_id, t.device_id, coalesce(t.timezone, 'UTC'), r.starts_at)
      end as starts_at,
      coalesce(u.n, 0) as unfinished, u.last_id, coalesce(u.last_run_id > r.id, false) as is_overtaken
    from run as r
    cross join lateral fleet.targets(
      r.owner_id, r.device_ids, r.group_ids, r.selector, coalesce(r.expanded_to, 0), p_limit + 1
    ) as t
    -- Strict: with a null it is not even called.
    left join lateral fleet.unfinished_of(
      case when r.may_overlap then r.schedule_id end, t.device_id, r.id, p_now
    ) as u on true
  ),
  replaced as (
    update public.device_commands as c
    set status = 'cancelled', reason = 'replaced'
    from target as t
    join run as r on r.id = t.run_id
    where r.overlap = 'replace'
      and t.n <= p_limit and t.is_due and t.starts_at is not null and t.unfinished > 0
      and c.schedule_id = r.schedule_id
      and c.device_id = t.device_id
      and c.status in ('pending', 'running')
      and c.run_id < r.id
  ),
  made as (
    insert into public.device_commands (
      run_id, schedule_id, owner_id, device_id, device_hostname, channel, command_type, payload, priority, not_before,
      expires_at, max_attempts, waits_for
    )
    select r.id, r.schedule_id, r.owner_id, t.device_id, t.hostname, r.channel, r.command_type, r.payload, r.priority, t.starts_at,
      r.expires_at + (t.starts_at - r.starts_at), r.max_attempts,
      case when r.overlap = 'buffer_one' then t.last_id end
    from target as t
    join run as r on r.id = t.run_id
    where t.n <= p_limit
      and t.is_due
      and t.starts_at is not null
      and not fleet.leaves_out(r.overlap, r.max_concurrent, t.unfinished, t.is_overtaken)
    on conflict (run_id, device_id, step) do nothing
    returning run_id
  ),
  progress as (
    select r.id,
      (select count(*) from made as m where m.run_id = r.id) as made,
      -- Left out: they had enough to do, or it is not their time of day.
      count(*) filter (
        where t.starts_at is not null and fleet.leaves_out(r.overlap, r.max_concurrent, t.unfinished, t.is_overtaken)
      ) as busy,
      count(*) filter (where t.run_id is not null and t.starts_at is null) as outside,
      (select max(x.device_id) from target as x where x.run_id = r.id and x.n <= p_limit) as reached,
      not exists (select 1 from target as x where x.run_id = r.id and x.n > p_limit) as is_whole
    from run as r
    left join target as t on t.run_id = r.id and t.n <= p_limit and t.is_due
      and (t.starts_at is null or t.unfinished > 0)
    group by r.id
  ),
  counted as (
    update public.schedule_runs as r
    set targeted = r.targeted + p.made,
        skipped = r.skipped + p.busy + p.outside,
        expanded_to = coalesce(p.reached, r.expanded_to, 0),
        expanded_at = case when p.is_whole then p_now end,
        status = case when p.is_whole and r.targeted + p.made = 0 then 'skipped' else 'running' end,
        reason = case
          when not p.is_whole or r.targeted + p.made > 0 then null
          when p.outside > 0 then 'outside the execution window'
          when r.skipped + p.busy > 0 then 'overlap'
          else 'no targets'
        end,
        finished_at = case when p.is_whole and r.targeted + p.made = 0 then p_now end
    from progress as p
    where r.id = p.id
    returning r.id, r.status
  ),
  whole as (
    -- All of its commands may be final already: have the tick look at it once more.
    insert into fleet.run_progress (run_id, completed, failed)
    select p.id, 0, 0 from progress as p where p.is_whole
  )
  select
    (select count(*) from made),
    (select array_agg(n.id) from counted as n where n.status = 'skipped'),
    (select array_agg(r.schedule_id) from run as r where r.policies ->> 'max_runs' is not null)
  into v_made, v_nobody, v_limited;

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

comment on function fleet.write_commands(bigint[], timestamptz, integer) is
  'One statement: the next devices of these runs, their commands, and how far the runs have come.';
revoke all on function fleet.write_commands(bigint[], timestamptz, integer)
  from public, anon, authenticated, service_role;

create or replace function fleet.chunk_size()
returns integer
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select greatest(1, fleet.setting_number(
    case
      when exists (
        select 1 from pg_catalog.pg_publication_tables as p
        where p.pubname = 'supabase_realtime' and p.schemaname = 'public' and p.tablename = 'device_commands'
      ) then 'expand_chunk_size_published'
      else 'expand_chunk_size'
    end
  ))::integer
$$;

comment on function fleet.chunk_size() is
  'How many commands go into one transaction; fewer while the table is published, where one transaction is one poll of Realtime.';
revoke all on function fleet.chunk_size() from public, anon, authenticated, service_role;

create or replace function fleet.expand_next(p_now timestamptz)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_chunk integer := fleet.chunk_size();
  v_small integer := 20;
  v_fresh bigint[];
  v_large bigint;
  v_made bigint := 0;
begin
  -- Small schedules never wait behind a large one: all fresh runs get their first devices, then one large run a chunk.
  select array_agg(r.id) into v_fresh
  from (
    select r.id
    from public.schedule_runs as r
    join public.schedules as s on s.id = r.schedule_id
    where r.expanded_at is null and r.status = 'pending' and coalesce(r.not_before <= p_now, true)
    order by r.priority desc, r.id
    limit greatest(v_chunk / v_small, 1)
    for no key update of r, s skip locked
  ) as r;
  if v_fresh is not null then
    v_made := fleet.expand_runs(v_fresh, p_now, v_small);
  end if;

  select r.id into v_large
  from public.schedule_runs as r
  join public.schedules as s on s.id = r.schedule_id
  where r.expanded_at is null and r.status = 'running'
  order by r.priority desc, r.targeted, r.id
  limit 1
  for no key update of r, s skip locked;
  if v_large is not null then
    v_made := v_made + fleet.expand_runs(array[v_large], p_now, v_chunk);
  end if;

  return jsonb_build_object(
    'commands', v_made,
    -- Only after some progress: what another session holds must not keep this one spinning.
    'more', (v_fresh is not null or v_large is not null) and exists (
      select 1 from public.schedule_runs as r
      where r.expanded_at is null and r.status in ('pending', 'running') and coalesce(r.not_before <= p_now, true)
    )
  );
end;
$$;

comment on function fleet.expand_next(timestamptz) is
  'One transaction''s worth of expansion. {commands, more}.';
revoke all on function fleet.expand_next(timestamptz) from public, anon, authenticated, service_role;
