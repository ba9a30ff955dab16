-- Followers device by device (after.per_device): one run for each run that is followed, fed by the devices that are done with it.

create or replace function fleet.take_chain_steps(p_limit integer)
returns fleet.chain_steps[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owners uuid[];
  v_steps fleet.chain_steps[];
begin
  -- From one owner to the next through the index; an equal share for each, the oldest first.
  with recursive waiting as (
    (select c.owner_id from fleet.chain_steps as c order by c.owner_id limit 1)
    union all
    select n.owner_id
    from waiting as w
    cross join lateral (
      select c.owner_id from fleet.chain_steps as c where c.owner_id > w.owner_id order by c.owner_id limit 1
    ) as n
  )
  select array_agg(w.owner_id) into v_owners from (select x.owner_id from waiting as x limit p_limit) as w;

  with taken as (
    delete from fleet.chain_steps as c
    where c.id in (
      select t.id
      from unnest(v_owners) as o(id)
      cross join lateral (
        select x.id
        from fleet.chain_steps as x
        where x.owner_id = o.id
        order by x.id
        limit greatest(p_limit / cardinality(v_owners), 1)
        for update skip locked
      ) as t
    )
    returning c as step
  )
  select array_agg(t.step) into v_steps from taken as t;
  return coalesce(v_steps, '{}');
end;
$$;

comment on function fleet.take_chain_steps(integer) is
  'Take devices that have their turn in a follower, at most so many, an equal share of each owner.';
revoke all on function fleet.take_chain_steps(integer) from public, anon, authenticated, service_role;

create or replace function fleet.feed_followers(p_now timestamptz, p_limit integer default 2000)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_steps fleet.chain_steps[];
  v_turn record;
  v_made integer := 0;
begin
  if exists (select 1 from fleet.chain_steps) then
    v_steps := fleet.take_chain_steps(p_limit);
    for v_turn in
      select t.owner_id, t.schedule_id, t.after_run_id, array_agg(distinct t.device_id) as device_ids
      from unnest(v_steps) as t
      group by t.owner_id, t.schedule_id, t.after_run_id
      order by t.after_run_id, t.schedule_id
    loop
      begin
        v_made := v_made + fleet.feed_follower(v_turn.schedule_id, v_turn.after_run_id, v_turn.device_ids, p_now);
      exception
        when query_canceled or admin_shutdown then
          raise;
        when deadlock_detected or lock_not_available then
          -- Somebody holds what it needs: next time.
          insert into fleet.chain_steps (owner_id, schedule_id, after_run_id, device_id)
          select v_turn.owner_id, v_turn.schedule_id, v_turn.after_run_id, u.id from unnest(v_turn.device_ids) as u(id);
        when others then
          perform fleet.fail_follower(v_turn.schedule_id, v_turn.after_run_id, sqlerrm, p_now);
      end;
    end loop;
  end if;
  return v_made;
end;
$$;

comment on function fleet.feed_followers(timestamptz, integer) is
  'Let devices that are done with a run go on with what follows it device by device, at most so many. Answers how many commands were made.';
revoke all on function fleet.feed_followers(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.feed_follower(
  p_schedule_id bigint,
  p_after_run_id bigint,
  p_device_ids bigint[],
  p_now timestamptz
)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_schedule public.schedules;
  v_run public.schedule_runs;
begin
  select s.* into v_schedule
  from public.schedules as s
  where s.id = p_schedule_id
    and s.after_per_device
    -- What has run as often as it may still lets the devices of its last run come.
    and s.status in ('active', 'completed')
    and exists (
      select 1
      from public.schedule_runs as a
      -- Who cancels a schedule ends it: nothing follows because of that.
      join public.schedules as p on p.id = a.schedule_id and p.status <> 'cancelled'
      where a.id = p_after_run_id and a.schedule_id = s.after_schedule_id and a.owner_id = s.owner_id
    )
  for no key update nowait;
  if not found then
    return 0;
  end if;

  v_run := fleet.follower_run(p_schedule_id, p_after_run_id);
  if v_run.id is null and v_schedule.status = 'active' then
    perform fleet.book_runs(array[fleet.follower_booking(v_schedule, p_after_run_id, 1, p_now)], p_now);
    -- Nobody else expands it; its commands come as its devices do.
    update public.schedule_runs as r
    set is_fed = true, status = 'running', expanded_at = p_now
    where r.schedule_id = p_schedule_id and r.idempotency_key = 'after:' || p_after_run_id and r.status = 'pending';
    v_run := fleet.follower_run(p_schedule_id, p_after_run_id);
  end if;
  if not coalesce(v_run.is_fed, false) then
    return 0;
  end if;
  return fleet.write_fed_commands(v_schedule, v_run, p_device_ids, p_now);
end;
$$;

comment on function fleet.feed_follower(bigint, bigint, bigint[], timestamptz) is
  'Let these devices go on with a schedule that follows a run of theirs: its first device opens its run. Answers how many commands were made.';
revoke all on function fleet.feed_follower(bigint, bigint, bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.follower_run(p_schedule_id bigint, p_after_run_id bigint)
returns public.schedule_runs
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select r.*
  from public.schedule_runs as r
  where r.schedule_id = p_schedule_id and r.idempotency_key = 'after:' || p_after_run_id
$$;

comment on function fleet.follower_run(bigint, bigint) is 'The run of a schedule that follows this one; null where there is none.';
revoke all on function fleet.follower_run(bigint, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.write_fed_commands(
  p_schedule public.schedules,
  p_run public.schedule_runs,
  p_device_ids bigint[],
  p_now timestamptz
)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_policies jsonb := fleet.effective_policies(p_schedule.policies);
  v_unknown text := case when p_schedule.timezone = 'device' then fleet.unknown_zone(p_schedule.recurrence) else 'UTC' end;
  v_type public.command_types;
  v_made integer;
begin
  select t.* into v_type
  from public.command_types as t
  where t.name = p_run.action_type and coalesce(t.owner_id, p_run.owner_id) = p_run.owner_id;
  if not found then
    raise exception 'command type "%" is gone', p_run.action_type
      using errcode = 'PT409', detail = 'command_type_gone', hint = 'Make it again, or change the action_type of the schedule.';
  end if;

  with target as materialized (
    select d.id as device_id, d.hostname, u.last_id,
      fleet.device_start(
        v_policies, p_schedule.id, d.id, coalesce(d.timezone, v_unknown, 'UTC'), greatest(p_run.not_before, p_now)
      ) as starts_at,
      fleet.leaves_out(
        v_policies ->> 'overlap', (v_policies ->> 'max_concurrent')::bigint, coalesce(u.n, 0), coalesce(u.is_overtaken, false)
      ) as is_busy
    from public.devices as d
    left join lateral fleet.unfinished_of(p_schedule.id, d.id, p_run.id, '-infinity', 0::smallint, p_now) as u on true
    where d.id = any (p_device_ids)
      and d.owner_id = p_schedule.owner_id
      and d.status = 'active'
      and fleet.is_meant(p_schedule.owner_id, p_schedule.device_ids, p_schedule.group_ids, p_schedule.selector, d)
      and (p_run.zones is null or coalesce(d.timezone, v_unknown) = any (p_run.zones))
      and not exists (select 1 from public.device_commands as c where c.run_id = p_run.id and c.device_id = d.id)
  ),
  replaced as (
    update public.device_commands as c
    set status = 'cancelled', reason = 'replaced'
    from target as t
    where v_policies ->> 'overlap' = 'replace'
      and t.starts_at is not null
      and c.schedule_id = p_schedule.id
      and c.device_id = t.device_id
      and c.status in ('pending', 'running')
      and c.run_id < p_run.id
  ),
  made as (
    insert into public.device_commands (
      run_id, schedule_id, owner_id, device_id, device_hostname, channel, command_type, payload, priority, not_before,
      expires_at, max_attempts, waits_for
    )
    select p_run.id, p_schedule.id, p_run.owner_id, t.device_id, t.hostname, v_type.channel, v_type.name, p_run.payload, p_run.priority,
      t.starts_at, fleet.run_expiry(v_policies, null, t.starts_at), (v_policies #>> '{retry,attempts}')::integer,
      case when v_policies ->> 'overlap' = 'buffer_one' then t.last_id end
    from target as t
    where t.starts_at is not null and not t.is_busy
    on conflict (run_id, device_id, step) where run_id is not null do nothing
    returning device_id
  ),
  counted as (
    update public.schedule_runs as r
    set targeted = r.targeted + (select count(*) from made),
        skipped = r.skipped + (select count(*) from target as t where t.starts_at is null or t.is_busy),
        reason = case
          when exists (select 1 from target as t where t.starts_at is null) then 'outside the execution window'
          when exists (select 1 from target as t where t.is_busy) then 'overlap'
          else r.reason
        end
    where r.id = p_run.id
  )
  select count(*) into v_made from made;
  return v_made;
end;
$$;

comment on function fleet.write_fed_commands(public.schedules, public.schedule_runs, bigint[], timestamptz) is
  'The commands of a run that is fed, for those of these devices that its schedule means: windows, jitter and overlap are judged for each now. '
  'Answers how many.';
revoke all on function fleet.write_fed_commands(public.schedules, public.schedule_runs, bigint[], timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.fail_follower(p_schedule_id bigint, p_after_run_id bigint, p_error text, p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_schedule public.schedules;
  v_booking fleet.run_booking;
begin
  update public.schedule_runs as r
  set is_fed = false, status = 'failed', reason = 'error', error_message = p_error, finished_at = p_now
  where r.schedule_id = p_schedule_id and r.idempotency_key = 'after:' || p_after_run_id and r.status in ('pending', 'running');
  if found then
    return;
  end if;
  select s.* into v_schedule from public.schedules as s where s.id = p_schedule_id;
  v_booking.schedule_id := p_schedule_id;
  v_booking.scheduled_for := fleet.free_instant(v_schedule, p_now, 1);
  v_booking.trigger := 'chain';
  v_booking.status := 'failed';
  v_booking.reason := 'error';
  v_booking.error_message := p_error;
  v_booking.after_run_id := p_after_run_id;
  v_booking.idempotency_key := 'after:' || p_after_run_id;
  perform fleet.book_runs(array[v_booking], p_now);
end;
$$;

comment on function fleet.fail_follower(bigint, bigint, text, timestamptz) is
  'Write the error of a follower into its run; whoever else is to come is passed over.';
revoke all on function fleet.fail_follower(bigint, bigint, text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.close_fed_runs(p_now timestamptz, p_limit integer default 500)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_idle bigint[];
begin
  with closed as (
    update public.schedule_runs as r
    set is_fed = false,
        status = case when r.targeted > 0 then r.status else 'skipped' end,
        reason = case when r.targeted > 0 then null else coalesce(r.reason, 'no targets') end,
        finished_at = case when r.targeted > 0 then r.finished_at else p_now end
    where r.id in (
      select x.id
      from public.schedule_runs as x
      where x.is_fed
        and not exists (select 1 from public.schedule_runs as a where a.id = x.after_run_id and a.status in ('pending', 'running'))
        and not exists (select 1 from fleet.chain_steps as c where c.after_run_id = x.after_run_id)
      order by x.id
      limit p_limit
      for update skip locked
    )
    returning r.id, r.targeted
  ),
  told as (
    -- All of its commands may be final already: have the tick look at it once more.
    insert into fleet.run_progress (run_id, completed, failed)
    select c.id, 0, 0 from closed as c where c.targeted > 0
  )
  select array_agg(c.id) into v_idle from closed as c where c.targeted = 0;
  if v_idle is not null then
    perform fleet.count_idle_runs(v_idle);
  end if;
end;
$$;

comment on function fleet.close_fed_runs(timestamptz, integer) is
  'End the feeding of runs that follow a run device by device, when that one is whole and nobody of it is to come.';
revoke all on function fleet.close_fed_runs(timestamptz, integer) from public, anon, authenticated, service_role;
