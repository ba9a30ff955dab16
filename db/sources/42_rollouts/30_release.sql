-- Letting the next devices have their turn.

create or replace function fleet.with_quota(
  p_look fleet.rollout_look, p_plan jsonb, p_released bigint, p_waves fleet.wave_count[], p_recent fleet.rollout_releases[], p_now timestamptz
)
returns fleet.rollout_look
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_wave fleet.wave_count;
  v_succeeded bigint := 0;
  v_ended bigint := 0;
  v_rate integer;
  v_quota integer := 100000;
  v_free integer;
  v_one fleet.rollout_releases;
  v_last timestamptz := p_now - interval '1 second';
  v_oldest timestamptz := p_now;
begin
  foreach v_wave in array p_waves loop
    v_succeeded := v_succeeded + v_wave.succeeded;
    v_ended := v_ended + v_wave.succeeded + v_wave.failed + v_wave.skipped;
  end loop;
  v_rate := fleet.rate_now(p_plan, p_released, v_succeeded);
  p_look.has_rate := v_rate is not null;
  p_look.wake_at := p_now;
  if v_rate is not null then
    v_quota := v_rate;
    if p_recent <> '{}' then
      v_last := '-infinity';
      foreach v_one in array p_recent loop
        v_quota := v_quota - v_one.n;
        v_last := greatest(v_last, v_one.released_at);
        v_oldest := least(v_oldest, v_one.released_at);
      end loop;
    end if;
    -- Where the last sixty seconds are full, the next turn comes when the first of them is over.
    p_look.wake_at := greatest(p_now + interval '1 second', case when v_quota <= 0 then v_oldest + interval '1 minute' end);
    -- Spread over the minute, and never more in any sixty seconds.
    v_quota := least(
      v_quota, ceil(v_rate / 60.0 * least(greatest(extract(epoch from p_now - v_last), 0), 10))::integer
    );
  end if;
  if p_plan ? 'max_parallel' then
    v_free := (p_plan ->> 'max_parallel')::numeric::integer - (p_released - v_ended)::integer;
    if v_free <= v_quota then
      -- What becomes of those under way is told; until then nobody else has a turn.
      p_look.wake_at := null;
      v_quota := v_free;
    end if;
  end if;
  p_look.quota := greatest(v_quota, 0);
  return p_look;
end;
$$;

comment on function fleet.with_quota(fleet.rollout_look, jsonb, bigint, fleet.wave_count[], fleet.rollout_releases[], timestamptz) is
  'A look with how many more devices may have their turn now, by the rate and by how many are under way, and when it could be more. Of p_recent, '
  'the turns of the last minute, it takes the numbers.';
revoke all on function fleet.with_quota(fleet.rollout_look, jsonb, bigint, fleet.wave_count[], fleet.rollout_releases[], timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.shared_quotas(p_looks fleet.rollout_look[], p_most integer, p_now timestamptz)
returns fleet.rollout_look[]
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_left integer := p_most;
  v_many integer;
  v_n integer;
begin
  select count(*) into v_many from unnest(p_looks) as l where l.quota > 0;
  -- Who wants little has it, and the others share what is left: nobody's large rollout slows a small one down.
  for v_n in
    select l.ordinality from unnest(p_looks) with ordinality as l where l.quota > 0 order by l.quota, l.ordinality
  loop
    if p_looks[v_n].quota > ceil(v_left / v_many::numeric) then
      p_looks[v_n].quota := ceil(v_left / v_many::numeric);
      p_looks[v_n].wake_at := p_now;
    end if;
    v_left := greatest(v_left - p_looks[v_n].quota, 0);
    v_many := v_many - 1;
  end loop;
  return p_looks;
end;
$$;

comment on function fleet.shared_quotas(fleet.rollout_look[], integer, timestamptz) is
  'These looks with quotas of p_most together; who gets less than it could have is looked at again at once.';
revoke all on function fleet.shared_quotas(fleet.rollout_look[], integer, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.release_devices(p_looks fleet.rollout_look[], p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
set jit = off
-- Planned for each list of rollouts otherwise, which takes as long as the look; and by index always: a plan of a time when there was little would read
-- all that came since.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
  v_released bigint[];
begin
  with turn as materialized (
    select l.run_id, l.schedule_id, l.open, l.quota, l.has_rate, p.policies, fleet.window_list(p.policies) <> '[]' as has_windows,
      fleet.run_expiry(p.policies, null, p_now) as expires_at
    from unnest(p_looks) as l
    join public.schedules as s on s.id = l.schedule_id
    cross join lateral (select fleet.effective_policies(s.policies) as policies) as p
    where l.quota > 0
  ),
  picked as materialized (
    select t.run_id, q.at, q.device_id
    from turn as t
    cross join lateral (
      -- Each group by itself: those who wait for their windows are not read again and again.
      select x.*
      from unnest(t.open) as u(wave)
      cross join lateral (
        select q.ctid as at, q.wave, q.opens_at, q.command_id, q.device_id
        from fleet.rollout_queue as q
        where q.run_id = t.run_id and q.wave = u.wave and q.opens_at <= p_now
        order by q.opens_at, q.command_id
        limit t.quota
      ) as x
      order by x.wave, x.opens_at, x.command_id
      limit t.quota
    ) as q
  ),
  late as materialized (
    -- A window that was open when the device came into the queue may be closed by now.
    select w.at, o.may_at
    from (
      select p.run_id, p.at, coalesce(d.timezone, 'UTC') as timezone
      from picked as p
      join turn as t on t.run_id = p.run_id and t.has_windows
      left join public.devices as d on d.id = p.device_id
    ) as w
    join (
      select z.run_id, z.timezone, fleet.next_opening(t.policies, t.schedule_id, z.timezone, p_now) as may_at
      from (
        select distinct p.run_id, coalesce(d.timezone, 'UTC') as timezone
        from picked as p
        join turn as t on t.run_id = p.run_id and t.has_windows
        left join public.devices as d on d.id = p.device_id
      ) as z
      join turn as t on t.run_id = z.run_id
    ) as o on o.run_id = w.run_id and o.timezone = w.timezone
    where o.may_at > p_now
  ),
  waits as (
    update fleet.rollout_queue as q set opens_at = l.may_at from late as l where q.ctid = l.at
  ),
  gone as (
    delete from fleet.rollout_queue as q
    where q.ctid = any (array(select p.at from picked as p where not exists (select 1 from late as l where l.at = p.at)))
    returning q.run_id, q.command_id
  ),
  started as (
    update public.device_commands as c
    set not_before = p_now, expires_at = t.expires_at
    from turn as t
    where c.id = any (array(select g.command_id from gone as g)) and c.status = 'pending' and t.run_id = c.run_id
    returning c.id, c.run_id, c.wave
  ),
  counted as (
    update public.run_waves as w
    set released = w.released + s.n
    from (select x.run_id, x.wave, count(*)::integer as n from started as x group by x.run_id, x.wave) as s
    where w.run_id = s.run_id and w.wave = s.wave
  ),
  summed as (
    select x.run_id, count(*)::integer as n from started as x group by x.run_id
  ),
  added as (
    update public.rollouts as r set released = r.released + s.n from summed as s where r.run_id = s.run_id
  ),
  noted as (
    insert into fleet.rollout_releases as r (run_id, released_at, n)
    select s.run_id, p_now, s.n from summed as s join turn as t on t.run_id = s.run_id and t.has_rate
    on conflict (run_id, released_at) do update set n = r.n + excluded.n
  )
  select array_agg(s.id) into v_released from started as s;
  if v_released is not null then
    perform fleet.queue_doorbells(v_released);
  end if;
  return coalesce(cardinality(v_released), 0);
end;
$$;

comment on function fleet.release_devices(fleet.rollout_look[], timestamptz) is
  'Let so many devices of the open groups of these rollouts have their turn, if their windows are open. Answers how many had it.';
revoke all on function fleet.release_devices(fleet.rollout_look[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.next_opening(p_policies jsonb, p_schedule_id bigint, p_timezone text, p_from timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_windows jsonb := fleet.window_list(p_policies);
  v_at timestamptz := p_from;
begin
  if v_windows = '[]' then
    return p_from;
  end if;
  -- In a rollout whoever is outside of the window waits: missing it would mean never to have a turn.
  return greatest(
    fleet.window_opening(v_windows, 'device', coalesce(p_timezone, 'UTC'), v_at),
    (
      select fleet.window_opening(v_windows, 'schedule', s.timezone, v_at)
      from public.schedules as s
      where s.id = p_schedule_id and s.timezone <> 'device'
    )
  );
end;
$$;

comment on function fleet.next_opening(jsonb, bigint, text, timestamptz) is 'When the windows of a schedule are open for a device of a zone, at p_from or next.';
revoke all on function fleet.next_opening(jsonb, bigint, text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.hold_commands(p_command_ids bigint[])
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- Planned for each list of ids otherwise.
set plan_cache_mode = force_generic_plan
as $$
begin
  insert into fleet.rollout_queue (run_id, wave, opens_at, command_id, device_id)
  select c.run_id, c.wave, o.opens_at, c.id, c.device_id
  from public.device_commands as c
  join public.devices as d on d.id = c.device_id
  join (
    -- A window opens for a zone, not for a device.
    select z.schedule_id, z.timezone, case when a.opens_at > now() then a.opens_at else 'epoch' end as opens_at
    from (
      select distinct x.schedule_id, v.timezone
      from public.device_commands as x
      join public.devices as v on v.id = x.device_id
      where x.id = any (p_command_ids)
    ) as z
    join public.schedules as s on s.id = z.schedule_id
    cross join lateral (select fleet.next_opening(fleet.effective_policies(s.policies), s.id, z.timezone, now()) as opens_at) as a
  ) as o on o.schedule_id = c.schedule_id and o.timezone is not distinct from d.timezone
  where c.id = any (p_command_ids);

  insert into fleet.rollout_progress (run_id, wave, outcome, n)
  select c.run_id, c.wave, 'targeted', count(*)
  from public.device_commands as c
  where c.id = any (p_command_ids)
  group by c.run_id, c.wave;
end;
$$;

comment on function fleet.hold_commands(bigint[]) is 'Put new commands of waves into the queue of their rollout.';
revoke all on function fleet.hold_commands(bigint[]) from public, anon, authenticated, service_role;
