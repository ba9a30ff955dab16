-- Generated from db/sources/42_rollouts by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/42_rollouts/10_plans.sql
-- From a plan to the groups of a run, and what a plan decides. Pure.

create or replace function fleet.planned_waves(p_plan jsonb)
returns table (wave smallint, name text, percent_to numeric, tag text, device_ids bigint[], rules jsonb)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  with listed as (
    select g.n, g.item, sum(coalesce((g.item ->> 'percent')::numeric, 0)) over (order by g.n) as percent_to
    from jsonb_array_elements(coalesce(p_plan -> 'groups', '[]')) with ordinality as g(item, n)
  ),
  everybody as (
    select l.n, l.item, l.percent_to from listed as l
    union all
    -- Whoever is in no group comes last.
    select coalesce(max(l.n), 0) + 1, '{"name": "rest", "rest": true}', 101
    from listed as l
    having coalesce(bool_and(not l.item ? 'percent' or l.percent_to < 100), true)
  )
  select (e.n - 1)::smallint,
    coalesce(
      e.item ->> 'name', (e.item ->> 'percent') || ' %', e.item ->> 'tag', jsonb_array_length(e.item -> 'devices') || ' devices', 'rest'
    ),
    case when e.item ? 'percent' or e.item ? 'rest' then case when e.percent_to >= 100 then 101 else e.percent_to end end,
    e.item ->> 'tag',
    case when e.item ? 'devices' then fleet.bigint_array(e.item -> 'devices') end,
    e.item - '{name,percent,tag,devices,rest}'::text[]
  from everybody as e
$$;

comment on function fleet.planned_waves(jsonb) is 'The groups of a plan in their order; whoever is in none of them is in the last.';
revoke all on function fleet.planned_waves(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.rate_now(p_plan jsonb, p_released bigint, p_succeeded bigint)
returns integer
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rate jsonb := p_plan -> 'rate';
  v_counted bigint := case v_rate ->> 'count' when 'released' then p_released else p_succeeded end;
begin
  if v_rate ? 'per_minute' then
    return (v_rate ->> 'per_minute')::numeric;
  end if;
  return least(
    (v_rate ->> 'base')::numeric * power(
      coalesce((v_rate ->> 'factor')::numeric, 2),
      least(floor(v_counted / coalesce((v_rate ->> 'every')::numeric, (v_rate ->> 'base')::numeric)), 40)
    ),
    case when v_rate is not null then coalesce((v_rate ->> 'most')::numeric, 1000) end
  );
end;
$$;

comment on function fleet.rate_now(jsonb, bigint, bigint) is
  'How many devices a minute may have their turn: constant, or growing with those that had it or succeeded; null for all at once.';
revoke all on function fleet.rate_now(jsonb, bigint, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.failures_of(p_wave fleet.wave_count, p_class text)
returns bigint
language sql
immutable
parallel safe
return case when p_class = 'any' then p_wave.failed else coalesce((p_wave.failures ->> p_class)::bigint, 0) end;

comment on function fleet.failures_of(fleet.wave_count, text) is 'How many failures of a class, or of any, a group has.';
revoke all on function fleet.failures_of(fleet.wave_count, text) from public, anon, authenticated, service_role;

create or replace function fleet.breaks_rule(p_rule jsonb, p_failures bigint, p_ended bigint)
returns boolean
language sql
immutable
parallel safe
return p_failures > 0
  and p_ended >= coalesce((p_rule ->> 'min_count')::numeric, 1)
  and p_failures * 100 >= (p_rule ->> 'percent')::numeric * p_ended;

comment on function fleet.breaks_rule(jsonb, bigint, bigint) is 'Whether so many failures of so many devices that came to an end are too many for a rule.';
revoke all on function fleet.breaks_rule(jsonb, bigint, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.abort_reason(p_plan jsonb, p_waves fleet.wave_count[])
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rule jsonb;
  v_class text;
  v_wave fleet.wave_count;
  v_failures bigint;
  v_ended bigint;
  v_where text;
begin
  for v_rule in select a.value from fleet.as_list(p_plan -> 'abort') as a(value) where p_plan ? 'abort' loop
    v_class := coalesce(v_rule ->> 'failure', 'any');
    v_failures := 0;
    v_ended := 0;
    v_where := null;
    -- Of all that came to an end, and of those of each group: a bad second group must not hide behind a good first one.
    foreach v_wave in array p_waves loop
      v_failures := v_failures + fleet.failures_of(v_wave, v_class);
      v_ended := v_ended + v_wave.succeeded + v_wave.failed;
    end loop;
    if fleet.breaks_rule(v_rule, v_failures, v_ended) then
      v_where := 'devices failed';
    else
      foreach v_wave in array p_waves loop
        v_failures := fleet.failures_of(v_wave, v_class);
        v_ended := v_wave.succeeded + v_wave.failed;
        if fleet.breaks_rule(v_rule, v_failures, v_ended) then
          v_where := format('devices of group "%s" failed', v_wave.name);
          exit;
        end if;
      end loop;
    end if;
    if v_where is not null then
      return format('%s of %s %s (%s): the limit is %s %%', v_failures, v_ended, v_where, v_class, v_rule ->> 'percent');
    end if;
  end loop;
  return null;
end;
$$;

comment on function fleet.abort_reason(jsonb, fleet.wave_count[]) is 'Which rule of a plan stops it now, in words; null where none does.';
revoke all on function fleet.abort_reason(jsonb, fleet.wave_count[]) from public, anon, authenticated, service_role;

create or replace function fleet.wave_needs(p_wave fleet.wave_count)
returns integer
language sql
immutable
parallel safe
return ceil((p_wave.rules ->> 'success_threshold')::numeric * (p_wave.targeted - p_wave.skipped) / 100)::integer;

comment on function fleet.wave_needs(fleet.wave_count) is
  'How many of a group must succeed before the next one has its turn; null where it only has to end.';
revoke all on function fleet.wave_needs(fleet.wave_count) from public, anon, authenticated, service_role;

create or replace function fleet.wave_verdict(p_wave fleet.wave_count)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_needs integer := fleet.wave_needs(p_wave);
begin
  if v_needs is null then
    return case when p_wave.succeeded + p_wave.failed + p_wave.skipped >= p_wave.targeted then 'passed' else 'open' end;
  end if;
  return case
    when p_wave.succeeded >= v_needs then 'passed'
    when p_wave.targeted - p_wave.skipped - p_wave.failed < v_needs then 'missed'
    else 'open'
  end;
end;
$$;

comment on function fleet.wave_verdict(fleet.wave_count) is
  'passed, open, or missed where it can no longer reach its success threshold. Its devices must all be known.';
revoke all on function fleet.wave_verdict(fleet.wave_count) from public, anon, authenticated, service_role;

create or replace function fleet.needs_approval(p_plan jsonb, p_wave fleet.wave_count)
returns integer
language sql
immutable
parallel safe
return case
  when p_wave.rules ->> 'gate' = 'manual' or (p_wave.wave = 0 and p_plan -> 'four_eyes' = 'true'::jsonb)
    then coalesce((p_plan ->> 'approvals')::numeric::integer, 1)
  else 0
end;

comment on function fleet.needs_approval(jsonb, fleet.wave_count) is 'How many people must let a group have its turn.';
revoke all on function fleet.needs_approval(jsonb, fleet.wave_count) from public, anon, authenticated, service_role;

-- db/sources/42_rollouts/20_progress.sql
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

-- db/sources/42_rollouts/30_release.sql
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

-- db/sources/42_rollouts/35_membership.sql
-- Who leaves a rollout that is aborted, and who joins one that goes on.

create or replace function fleet.cancel_some(p_run_id bigint, p_before timestamptz, p_most integer)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_cancelled integer;
begin
  update public.device_commands as c
  set status = 'cancelled', reason = 'the rollout was aborted'
  where c.status = 'pending'
    and c.id = any (
      array(
        select x.id
        from public.device_commands as x
        where x.run_id = p_run_id and x.status = 'pending' and x.step = 0 and x.not_before < p_before
        limit p_most
      )
    );
  get diagnostics v_cancelled = row_count;
  return v_cancelled;
end;
$$;

comment on function fleet.cancel_some(bigint, timestamptz, integer) is
  'Cancel so many commands of an aborted rollout that no device has begun and that may start before an instant. Answers how many there were.';
revoke all on function fleet.cancel_some(bigint, timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.take_back(p_run_id bigint, p_now timestamptz)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  v_rollout public.rollouts;
  v_reached bigint;
  v_made integer;
begin
  select r.* into v_rollout from public.rollouts as r where r.run_id = p_run_id;
  update public.schedule_runs as r set expanded_at = p_now where r.id = p_run_id and r.expanded_at is null;
  -- First who had a turn and has not begun: anybody of them may begin at any moment.
  if coalesce(v_rollout.looked_at < v_rollout.aborted_at, true) and fleet.cancel_some(p_run_id, fleet.held_until(), 2000) = 2000 then
    return true;
  end if;
  with held as (
    delete from fleet.rollout_queue as q
    where q.ctid = any (array(select x.ctid from fleet.rollout_queue as x where x.run_id = p_run_id limit 2000))
    returning q.command_id
  )
  update public.device_commands as c
  set status = 'cancelled', reason = 'the rollout was aborted'
  where c.id = any (array(select h.command_id from held as h)) and c.status = 'pending';
  if exists (select 1 from fleet.rollout_queue as q where q.run_id = p_run_id) then
    return true;
  end if;
  -- And whoever came back from a device that began.
  if fleet.cancel_some(p_run_id, 'infinity', 2000) = 2000 then
    return true;
  end if;
  if v_rollout.restore_from is null then
    return false;
  end if;

  with had as materialized (
    select c.device_id, c.device_hostname, c.wave, c.schedule_id, c.owner_id, c.priority, c.max_attempts, c.result
    from public.device_commands as c
    where c.run_id = p_run_id and c.step = 0 and c.device_id > v_rollout.restore_from and c.status = 'completed'
    order by c.device_id
    limit 2000
  ),
  made as (
    insert into public.device_commands (
      run_id, schedule_id, owner_id, device_id, device_hostname, step, channel, command_type, payload, priority, not_before, expires_at,
      max_attempts, wave
    )
    select p_run_id, h.schedule_id, h.owner_id, h.device_id, h.device_hostname, 1, t.channel, t.name,
      coalesce(v_rollout.plan #> '{compensate,payload}', '{}'), h.priority, p_now, p_now + interval '7 days', h.max_attempts, h.wave
    from had as h
    join public.command_types as t
      on t.name = v_rollout.plan #>> '{compensate,action_type}' and coalesce(t.owner_id, h.owner_id) = h.owner_id
    -- Who had it before already keeps it.
    where coalesce(h.result ->> 'state', '') <> 'skipped'
    on conflict (run_id, device_id, step) where run_id is not null do nothing
    returning id
  ),
  counted as (
    update public.schedule_runs as r
    set targeted = r.targeted + (select count(*) from made)
    where r.id = p_run_id
  )
  select (select count(*) from made), case when (select count(*) from had) = 2000 then (select max(h.device_id) from had as h) end
  into v_made, v_reached;
  update public.rollouts as r
  set restore_from = v_reached, to_restore = r.to_restore + v_made
  where r.run_id = p_run_id;
  return v_reached is not null;
end;
$$;

comment on function fleet.take_back(bigint, timestamptz) is
  'End an aborted rollout for those who had no turn, and send the compensating action to those who have it. Answers whether there is more.';
revoke all on function fleet.take_back(bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.add_newcomers(p_run_id bigint, p_after bigint, p_now timestamptz)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  v_made integer;
  v_reached bigint;
begin
  with asked as materialized (
    select r.*, t.device_id, t.hostname, t.timezone
    from fleet.runs_to_expand(array[p_run_id], p_now) as r
    cross join lateral fleet.targets(r.owner_id, r.device_ids, r.group_ids, r.selector, coalesce(p_after, 0), 2000) as t
  ),
  made as (
    insert into public.device_commands (
      run_id, schedule_id, owner_id, device_id, device_hostname, channel, command_type, payload, priority, not_before, expires_at,
      max_attempts, wave
    )
    select a.id, a.schedule_id, a.owner_id, a.device_id, a.hostname, a.channel, a.command_type, a.payload, a.priority, fleet.held_until(),
      fleet.held_until(), a.max_attempts, fleet.wave_of(a.id, a.schedule_id, a.device_id)
    from asked as a
    where not exists (select 1 from public.device_commands as c where c.run_id = a.id and c.device_id = a.device_id and c.step = 0)
      and (a.zones is null or coalesce(a.timezone, 'UTC') = any (a.zones))
    on conflict (run_id, device_id, step) where run_id is not null do nothing
    returning id
  )
  select (select count(*) from made), (select max(a.device_id) from asked as a having count(*) >= 2000) into v_made, v_reached;
  -- So many at a time; after the last of them it rests for a minute.
  update public.rollouts as r
  set joined_to = v_reached, joined_at = case when v_reached is null then p_now else r.joined_at end
  where r.run_id = p_run_id;
  if v_made > 0 then
    update public.schedule_runs as r set targeted = r.targeted + v_made where r.id = p_run_id;
  end if;
  return v_reached is not null;
end;
$$;

comment on function fleet.add_newcomers(bigint, bigint, timestamptz) is
  'Take devices into a rollout that have become targets since it began, of the next 2,000 after p_after. Answers whether there are more to look at.';
revoke all on function fleet.add_newcomers(bigint, bigint, timestamptz) from public, anon, authenticated, service_role;

-- db/sources/42_rollouts/40_look.sql
-- A look at rollouts: what happened, what follows from it, and when to look again.

create or replace function fleet.judged_waves(
  p_look fleet.rollout_look, p_plan jsonb, p_waves fleet.wave_count[], p_approvals jsonb, p_is_expanded boolean, p_now timestamptz,
  out look fleet.rollout_look, out missed text
)
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_wave fleet.wave_count;
  v_free_at timestamptz := p_now;
begin
  look := p_look;
  look.opened := '{}';
  look.passed := '{}';
  look.open := '{}';
  foreach v_wave in array p_waves loop
    if v_wave.opened_at is null then
      if v_free_at > p_now then
        look.look_at := least(look.look_at, v_free_at);
        return;
      elsif v_wave.targeted > 0 and fleet.needs_approval(p_plan, v_wave) > coalesce((p_approvals ->> v_wave.wave::text)::integer, 0) then
        return;
      end if;
      look.opened := look.opened || v_wave.wave;
    end if;
    if v_wave.released < v_wave.targeted then
      look.open := look.open || v_wave.wave;
    end if;
    if v_wave.passed_at is null then
      -- Before everybody is known nobody can say how many are enough.
      if not p_is_expanded then
        return;
      end if;
      case fleet.wave_verdict(v_wave)
        when 'missed' then
          missed := format(
            'group "%s" cannot reach its success threshold of %s %%: %s of %s failed', v_wave.name,
            v_wave.rules ->> 'success_threshold', v_wave.failed, v_wave.targeted
          );
          return;
        when 'open' then
          return;
        else
          v_wave.passed_at := p_now;
          look.passed := look.passed || v_wave.wave;
      end case;
    end if;
    v_free_at := v_wave.passed_at
      + case when v_wave.targeted > 0 then coalesce((v_wave.rules ->> 'soak')::interval, interval '0') else interval '0' end;
  end loop;
end;
$$;

comment on function fleet.judged_waves(fleet.rollout_look, jsonb, fleet.wave_count[], jsonb, boolean, timestamptz) is
  'A look with the groups whose turn it is: which open and pass now, which have somebody left, when the next has soaked; missed says which '
  'cannot reach its threshold.';
revoke all on function fleet.judged_waves(fleet.rollout_look, jsonb, fleet.wave_count[], jsonb, boolean, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.is_through(p_waves fleet.wave_count[])
returns boolean
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_wave fleet.wave_count;
begin
  foreach v_wave in array p_waves loop
    if v_wave.succeeded + v_wave.failed + v_wave.skipped < v_wave.targeted then
      return false;
    end if;
  end loop;
  return true;
end;
$$;

comment on function fleet.is_through(fleet.wave_count[]) is 'Whether every device of these groups that is known came to its end.';
revoke all on function fleet.is_through(fleet.wave_count[]) from public, anon, authenticated, service_role;

create or replace function fleet.rollouts_to_judge(p_run_ids bigint[], p_now timestamptz)
returns table (
  rollout public.rollouts, is_expanded boolean, waves fleet.wave_count[], approvals jsonb, recent fleet.rollout_releases[]
)
language plpgsql
stable
rows 50
set search_path = pg_catalog, pg_temp
-- Planned for each list of rollouts otherwise, which takes as long as the look.
set plan_cache_mode = force_generic_plan
as $$
begin
  return query
  select r, x.expanded_at is not null, fleet.waves_of(r.run_id),
    (
      select jsonb_object_agg(a.wave, a.n)
      from (select p.wave, count(*) as n from public.rollout_approvals as p where p.run_id = r.run_id group by p.wave) as a
    ),
    case
      when r.plan ? 'rate' then array(
        select e from fleet.rollout_releases as e where e.run_id = r.run_id and e.released_at > p_now - interval '1 minute'
      )
      else '{}'
    end
  from public.rollouts as r
  join public.schedule_runs as x on x.id = r.run_id
  where r.run_id = any (p_run_ids);
end;
$$;

comment on function fleet.rollouts_to_judge(bigint[], timestamptz) is 'What it takes to judge these rollouts.';
revoke all on function fleet.rollouts_to_judge(bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.look_on(
  p_look fleet.rollout_look, p_rollout public.rollouts, p_waves fleet.wave_count[], p_approvals jsonb, p_is_expanded boolean,
  p_recent fleet.rollout_releases[], p_now timestamptz
)
returns fleet.rollout_look
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_turn record;
begin
  if p_rollout.plan ->> 'membership' = 'continuous' then
    p_look.look_at := p_now + interval '1 minute';
    if p_is_expanded
      and coalesce(p_rollout.joined_at, p_rollout.created_at) <= p_now - interval '1 minute'
      and fleet.add_newcomers(p_rollout.run_id, p_rollout.joined_to, p_now)
    then
      p_look.look_at := p_now + interval '1 second';
    end if;
  end if;
  v_turn := fleet.judged_waves(p_look, p_rollout.plan, p_waves, p_approvals, p_is_expanded, p_now);
  p_look := v_turn.look;
  if v_turn.missed is not null then
    perform fleet.set_rollout(p_rollout.run_id, 'paused', v_turn.missed, p_now);
    p_look.open := '{}';
    p_look.look_at := null;
  elsif p_look.open <> '{}' then
    p_look := fleet.with_quota(p_look, p_rollout.plan, p_rollout.released, p_waves, p_recent, p_now);
  end if;
  return p_look;
end;
$$;

comment on function fleet.look_on(
  fleet.rollout_look, public.rollouts, fleet.wave_count[], jsonb, boolean, fleet.rollout_releases[], timestamptz
) is 'A look at a rollout that goes on: who has joined, which groups are open, and how many may have their turn.';
revoke all on function fleet.look_on(
  fleet.rollout_look, public.rollouts, fleet.wave_count[], jsonb, boolean, fleet.rollout_releases[], timestamptz
) from public, anon, authenticated, service_role;

create or replace function fleet.look_at_rollouts(p_run_ids bigint[], p_now timestamptz, p_until timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_one record;
  v_rollout public.rollouts;
  v_look fleet.rollout_look;
  v_looks fleet.rollout_look[] := '{}';
  v_reason text;
  v_is_through boolean;
  v_is_more boolean;
  v_released integer;
begin
  perform fleet.fold_rollouts(p_run_ids);
  for v_one in select j.* from fleet.rollouts_to_judge(p_run_ids, p_now) as j loop
    v_rollout := v_one.rollout;
    v_look := null;
    v_look.run_id := v_rollout.run_id;
    v_look.schedule_id := v_rollout.schedule_id;
    v_is_through := fleet.is_through(v_one.waves);
    v_reason := case when v_rollout.aborted_at is null then fleet.abort_reason(v_rollout.plan, v_one.waves) end;
    if v_reason is not null then
      v_rollout := fleet.set_rollout(v_look.run_id, 'aborted', v_reason, p_now);
    end if;

    if v_rollout.aborted_at is not null then
      -- Many may have to be taken back at once: each when there is time for it.
      v_is_more := clock_timestamp() > p_until or fleet.take_back(v_look.run_id, p_now);
      v_look.look_at := case when v_is_more then p_now end;
      v_look.is_over := v_is_through and not v_is_more;
    else
      v_look.is_over := v_is_through and v_one.is_expanded;
      if v_rollout.paused_at is null and not v_look.is_over then
        v_look := fleet.look_on(v_look, v_rollout, v_one.waves, v_one.approvals, v_one.is_expanded, v_one.recent, p_now);
      end if;
    end if;
    v_looks := v_looks || v_look;
  end loop;

  v_looks := fleet.shared_quotas(v_looks, 2000, p_now);
  v_released := fleet.release_devices(v_looks, p_now);
  perform fleet.note_looks(v_looks, p_now);
  return v_released;
end;
$$;

comment on function fleet.look_at_rollouts(bigint[], timestamptz, timestamptz) is
  'One evaluation of each of these rollouts, by their rows alone: any session may take it, and a restart anywhere changes nothing. From p_until on '
  'nothing more is taken back. Answers how many devices had their turn.';
revoke all on function fleet.look_at_rollouts(bigint[], timestamptz, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.note_looks(p_looks fleet.rollout_look[], p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- Planned for each list of rollouts otherwise, which takes as long as the look.
set plan_cache_mode = force_generic_plan
as $$
begin
  update public.run_waves as w
  set opened_at = case when w.wave = any (l.opened) then p_now else w.opened_at end,
      passed_at = case when w.wave = any (l.passed) then p_now else w.passed_at end
  from unnest(p_looks) as l
  where w.run_id = l.run_id and w.wave = any (l.opened || l.passed);

  delete from fleet.rollout_releases as r
  using unnest(p_looks) as l
  where r.run_id = l.run_id and r.released_at <= p_now - interval '1 minute';

  update public.rollouts as r
  set looked_at = p_now,
      next_look_at = case when not o.is_over then least(l.look_at, case when q.opens_at > p_now then q.opens_at else q.wake_at end) end,
      next_opening_at = case when q.opens_at > p_now then q.opens_at end,
      completed_at = case when o.is_over then p_now end
  from unnest(p_looks) as l
  cross join lateral (
    -- When the next of those who wait may have a turn: now, or when a window opens.
    select min(n.opens_at) as opens_at, case when count(*) > 0 then l.wake_at end as wake_at
    from unnest(l.open) as u(wave)
    cross join lateral (
      select x.opens_at from fleet.rollout_queue as x where x.run_id = l.run_id and x.wave = u.wave order by x.opens_at limit 1
    ) as n
  ) as q
  join public.rollouts as a on a.run_id = l.run_id
  cross join lateral (
    select l.is_over and (a.aborted_at is null or a.restored + a.unrestored >= a.to_restore) as is_over
  ) as o
  where r.run_id = l.run_id;
end;
$$;

comment on function fleet.note_looks(fleet.rollout_look[], timestamptz) is
  'Write down what these looks decided, and when each rollout is looked at next, whatever is heard.';
revoke all on function fleet.note_looks(fleet.rollout_look[], timestamptz) from public, anon, authenticated, service_role;

-- db/sources/42_rollouts/45_tend.sql
-- The step of the tick: whose turn it is to be looked at.

create or replace function fleet.attempt_looks(p_run_ids bigint[], p_now timestamptz, p_until timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id bigint;
  v_released integer := 0;
begin
  begin
    return fleet.look_at_rollouts(p_run_ids, p_now, p_until);
  exception
    when query_canceled or admin_shutdown then
      raise;
    when others then
      -- One of them is bad: each by itself, and the error goes to its owner.
      null;
  end;

  foreach v_id in array p_run_ids loop
    begin
      v_released := v_released + fleet.look_at_rollouts(array[v_id], p_now, p_until);
    exception
      when query_canceled or admin_shutdown then
        raise;
      when deadlock_detected or lock_not_available then
        -- Somebody holds what it needs: next time.
        null;
      when others then
        perform fleet.set_rollout(v_id, 'paused', 'it cannot be evaluated: ' || left(sqlerrm, 200), p_now);
    end;
  end loop;
  return v_released;
end;
$$;

comment on function fleet.attempt_looks(bigint[], timestamptz, timestamptz) is
  'Look at these rollouts together; where that fails each by itself, and the one that fails is paused and says why.';
revoke all on function fleet.attempt_looks(bigint[], timestamptz, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.tend_rollouts(p_now timestamptz)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_end timestamptz := clock_timestamp() + interval '200 milliseconds';
  v_due bigint[];
  v_some bigint[];
  v_released integer := 0;
  v_seen bigint[] := '{}';
begin
  -- Owners in turn: the first of each before the second of anybody.
  v_due := array(
    select w.run_id
    from (
      select r.run_id, r.looked_at, row_number() over (partition by r.owner_id order by r.looked_at nulls first) as n
      from public.rollouts as r
      where r.completed_at is null
        and r.run_id in (
          -- Those that only wait cost nothing, however many there are.
          select x.run_id from public.rollouts as x where x.completed_at is null and x.next_look_at <= p_now
          union
          select p.run_id from fleet.rollout_progress as p
        )
    ) as w
    order by w.n, w.looked_at nulls first
    limit 2000
  );
  for v_from in 1..cardinality(v_due) by 25 loop
    exit when clock_timestamp() > v_end;
    v_some := array(
      select r.run_id from public.rollouts as r where r.run_id = any (v_due[v_from:v_from + 24]) for no key update skip locked
    );
    v_released := v_released + fleet.attempt_looks(v_some, p_now, v_end);
    v_seen := v_seen || v_some;
  end loop;
  return jsonb_build_object(
    'released', v_released, 'rollouts', cardinality(v_seen),
    -- Where somebody could have had a turn still.
    'more', exists (
      select 1 from public.rollouts as r where r.run_id = any (v_seen) and r.completed_at is null and r.next_look_at <= p_now
    )
  );
end;
$$;

comment on function fleet.tend_rollouts(timestamptz) is
  'Look at the rollouts of which there is news or whose time has come, owners in turn, for a fifth of a second and what is under way by then: {released, rollouts, more}.';
revoke all on function fleet.tend_rollouts(timestamptz) from public, anon, authenticated, service_role;

-- db/sources/42_rollouts/50_verbs.sql
-- What people do with a rollout: pause, resume, abort, approve.

create or replace function fleet.set_rollout(p_run_id bigint, p_what text, p_reason text, p_now timestamptz)
returns public.rollouts
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rollout public.rollouts;
begin
  update public.rollouts as r
  set paused_at = case p_what when 'paused' then coalesce(r.paused_at, p_now) when 'running' then null else r.paused_at end,
      aborted_at = case p_what when 'aborted' then coalesce(r.aborted_at, p_now) else r.aborted_at end,
      reason = case p_what when 'running' then null else p_reason end,
      restore_from = case when p_what = 'aborted' and r.aborted_at is null and r.plan ? 'compensate' then 0 else r.restore_from end,
      next_look_at = case when p_what = 'paused' then null else p_now end
  where r.run_id = p_run_id
  returning * into v_rollout;
  return v_rollout;
end;
$$;

comment on function fleet.set_rollout(bigint, text, text, timestamptz) is 'Write down that a rollout is paused, running or aborted from now on, and why.';
revoke all on function fleet.set_rollout(bigint, text, text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.rollout_of_caller(p_run_id bigint)
returns public.rollouts
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rollout public.rollouts;
  v_what text := format('rollout %s', p_run_id);
begin
  select r.* into v_rollout from public.rollouts as r where r.run_id = p_run_id and fleet.is_visible_owner(r.owner_id) for no key update;
  if not found then
    perform fleet.raise_not_found(v_what);
  end if;
  perform fleet.require_permission(v_rollout.owner_id, 'operate', v_what);
  return v_rollout;
end;
$$;

comment on function fleet.rollout_of_caller(bigint) is
  'The rollout, locked, if the caller may decide about it. Raises rollout_not_found (PT404) or permission_missing (PT403). It must not run with '
  'fewer rights than a definer function.';
revoke all on function fleet.rollout_of_caller(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.change_rollout(p_run_id bigint, p_what text, p_reason text)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rollout public.rollouts := fleet.rollout_of_caller(p_run_id);
  v_now timestamptz := clock_timestamp();
begin
  if v_rollout.completed_at is not null or (v_rollout.aborted_at is not null and p_what <> 'aborted') then
    raise exception 'rollout % is over', p_run_id
      using errcode = 'PT409', detail = 'rollout_over', hint = 'Try its failures again with: select retry_deployment(id) from deployments';
  end if;
  if p_what = 'running' then
    -- Whoever resumes has seen that a group missed its threshold, and goes on all the same.
    update public.run_waves as w
    set passed_at = v_now
    from unnest(fleet.waves_of(p_run_id)) as c
    where w.run_id = p_run_id and w.wave = c.wave and c.opened_at is not null and c.passed_at is null
      and fleet.wave_verdict(c) = 'missed';
  end if;
  return to_jsonb(fleet.set_rollout(p_run_id, p_what, coalesce(p_reason, 'by hand'), v_now));
end;
$$;

comment on function fleet.change_rollout(bigint, text, text) is
  'Pause, resume or abort a rollout; the same again changes nothing. Raises rollout_not_found (PT404), permission_missing (PT403) or rollout_over '
  '(PT409). Definer: it checks the caller.';
revoke all on function fleet.change_rollout(bigint, text, text) from public, anon, authenticated, service_role;
grant execute on function fleet.change_rollout(bigint, text, text) to authenticated, service_role;

create or replace function public.pause_rollout(p_run_id bigint, p_reason text default null)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.change_rollout(p_run_id, 'paused', p_reason)
$$;

comment on function public.pause_rollout(bigint, text) is
  'Let nobody else of a rollout have a turn; who has it goes on. Raises rollout_not_found (PT404), permission_missing (PT403) or rollout_over (PT409).';
revoke all on function public.pause_rollout(bigint, text) from public, anon, authenticated, service_role;
grant execute on function public.pause_rollout(bigint, text) to authenticated, service_role;

create or replace function public.resume_rollout(p_run_id bigint)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.change_rollout(p_run_id, 'running', null)
$$;

comment on function public.resume_rollout(bigint) is
  'Let a paused rollout go on. Raises rollout_not_found (PT404), permission_missing (PT403) or rollout_over (PT409).';
revoke all on function public.resume_rollout(bigint) from public, anon, authenticated, service_role;
grant execute on function public.resume_rollout(bigint) to authenticated, service_role;

create or replace function public.abort_rollout(p_run_id bigint, p_reason text default null)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.change_rollout(p_run_id, 'aborted', p_reason)
$$;

comment on function public.abort_rollout(bigint, text) is
  'End a rollout: what no device has begun is cancelled, and the compensating action, if its plan has one, goes to those who have it. Raises '
  'rollout_not_found (PT404), permission_missing (PT403) or rollout_over (PT409).';
revoke all on function public.abort_rollout(bigint, text) from public, anon, authenticated, service_role;
grant execute on function public.abort_rollout(bigint, text) to authenticated, service_role;

create or replace function fleet.approve_rollout(p_run_id bigint, p_note text)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rollout public.rollouts := fleet.rollout_of_caller(p_run_id);
  v_wave fleet.wave_count;
  v_user uuid := fleet.current_user_id();
begin
  select w.* into v_wave
  from unnest(fleet.waves_of(p_run_id)) as w
  where w.opened_at is null and fleet.needs_approval(v_rollout.plan, w) > 0
  order by w.wave
  limit 1;
  if v_wave.wave is null or v_rollout.aborted_at is not null then
    raise exception 'nothing of rollout % waits for an approval', p_run_id
      using errcode = 'PT409', detail = 'nothing_to_approve',
            hint = format('Look at its groups with: select * from rollout_group_list where run_id = %s', p_run_id);
  elsif v_user is null then
    raise exception 'an approval needs a person who is signed in'
      using errcode = 'PT403', detail = 'not_a_person', hint = 'Sign in as a member of the fleet.';
  elsif v_rollout.plan -> 'four_eyes' = 'true' and exists (
    select 1 from fleet.rollout_authors as a where a.schedule_id = v_rollout.schedule_id and a.user_id = v_user
  ) then
    raise exception 'who wrote a rollout cannot approve it'
      using errcode = 'PT403', detail = 'four_eyes_required', hint = 'Ask another member of the fleet to approve it.';
  end if;

  insert into public.rollout_approvals (run_id, wave, user_id, owner_id, note)
  values (p_run_id, v_wave.wave, v_user, v_rollout.owner_id, p_note)
  on conflict do nothing;
  update public.rollouts as r set next_look_at = clock_timestamp() where r.run_id = p_run_id returning * into v_rollout;
  return to_jsonb(v_rollout) || jsonb_build_object(
    'group', v_wave.name,
    'approvals', (select count(*) from public.rollout_approvals as a where a.run_id = p_run_id and a.wave = v_wave.wave),
    'approvals_needed', fleet.needs_approval(v_rollout.plan, v_wave)
  );
end;
$$;

comment on function fleet.approve_rollout(bigint, text) is 'See public.approve_rollout. Definer: it checks the caller.';
revoke all on function fleet.approve_rollout(bigint, text) from public, anon, authenticated, service_role;
grant execute on function fleet.approve_rollout(bigint, text) to authenticated, service_role;

create or replace function public.approve_rollout(p_run_id bigint, p_note text default null)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.approve_rollout(p_run_id, p_note)
$$;

comment on function public.approve_rollout(bigint, text) is
  'Let the next gated group of a rollout have its turn, as one of the people that it needs. Raises rollout_not_found (PT404), permission_missing, '
  'not_a_person or four_eyes_required (PT403), or nothing_to_approve (PT409).';
revoke all on function public.approve_rollout(bigint, text) from public, anon, authenticated, service_role;
grant execute on function public.approve_rollout(bigint, text) to authenticated, service_role;

-- db/sources/42_rollouts/views.sql
-- Rollouts as people list them.

drop view if exists public.rollout_list;
create view public.rollout_list with (security_invoker = true) as
select
  r.run_id, r.owner_id, r.schedule_id, s.name as schedule,
  case
    when r.completed_at is not null and r.aborted_at is null then 'completed'
    when r.aborted_at is not null and r.completed_at is null then 'aborting'
    when r.aborted_at is not null then 'aborted'
    when r.paused_at is not null then 'paused'
    when w.gated is not null then 'waiting'
    when r.next_opening_at is not null then 'closed'
    else 'running'
  end as status,
  r.reason, w.at as current_group, w.targeted, r.released, w.succeeded, w.failed, w.skipped, r.to_restore, r.restored, r.unrestored,
  r.next_opening_at, r.plan, r.created_at, r.paused_at, r.aborted_at, r.completed_at
from public.rollouts as r
join public.schedules as s on s.id = r.schedule_id
cross join lateral (
  select sum(x.targeted) as targeted, sum(x.succeeded) as succeeded, sum(x.failed) as failed, sum(x.skipped) as skipped,
    (array_agg(x.name order by x.wave desc) filter (where x.opened_at is not null))[1] as at,
    -- All that are open have passed, and the next one needs somebody's word.
    (array_agg(x.name order by x.wave) filter (
      where x.opened_at is null and x.targeted > 0
        and (x.rules ->> 'gate' = 'manual' or (x.wave = 0 and r.plan -> 'four_eyes' = 'true'))
        and not exists (
          select 1 from public.run_waves as y where y.run_id = x.run_id and y.wave < x.wave and y.passed_at is null
        )
    ))[1] as gated
  from public.run_waves as x
  where x.run_id = r.run_id
) as w;

comment on view public.rollout_list is 'Rollouts, and how far each is.';
comment on column public.rollout_list.schedule is 'The name of the schedule.';
comment on column public.rollout_list.status is
  'running, waiting (for an approval), closed (until a window opens), paused, aborting, aborted or completed.';
comment on column public.rollout_list.current_group is 'The last group whose turn has come.';
comment on column public.rollout_list.targeted is 'How many devices it is for.';
comment on column public.rollout_list.succeeded is 'On how many it was completed.';
comment on column public.rollout_list.failed is 'On how many it failed or expired.';
comment on column public.rollout_list.skipped is 'How many were cancelled.';
select fleet.inherit_comments('public.rollout_list', 'public.rollouts');
revoke all on table public.rollout_list from public, anon, authenticated, service_role;
grant select on table public.rollout_list to authenticated, service_role;

drop view if exists public.rollout_group_list;
create view public.rollout_group_list with (security_invoker = true) as
select
  w.run_id, w.owner_id, w.wave, w.name,
  case
    when r.aborted_at is not null and w.opened_at is null then 'aborted'
    when w.passed_at is not null then 'passed'
    when w.opened_at is not null then 'open'
    else 'waiting'
  end as status,
  w.targeted, w.released, w.succeeded, w.failed, w.skipped, w.failures, w.rules,
  (select count(*) from public.rollout_approvals as a where a.run_id = w.run_id and a.wave = w.wave) as approvals,
  w.opened_at, w.passed_at
from public.run_waves as w
join public.rollouts as r on r.run_id = w.run_id;

comment on view public.rollout_group_list is 'The groups of rollouts in their order, and how far each is.';
comment on column public.rollout_group_list.status is 'waiting, open, passed or aborted.';
comment on column public.rollout_group_list.approvals is 'How many people let it have its turn.';
select fleet.inherit_comments('public.rollout_group_list', 'public.run_waves');
revoke all on table public.rollout_group_list from public, anon, authenticated, service_role;
grant select on table public.rollout_group_list to authenticated, service_role;

-- db/sources/42_rollouts/triggers.sql
-- What makes a rollout of a run, and tells it what becomes of its commands.

create or replace function fleet.tg_note_authors()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into fleet.rollout_authors (schedule_id, user_id)
  select new.id, u.user_id from (select fleet.current_user_id() as user_id) as u where u.user_id is not null
  on conflict do nothing;
  return null;
end;
$$;

comment on function fleet.tg_note_authors() is 'Remember who wrote what a rollout does. Definer: nobody writes the table.';
revoke all on function fleet.tg_note_authors() from public, anon, authenticated, service_role;

create or replace trigger schedules_04_note_authors
  after insert or update of action_type, payload, policies, device_ids, group_ids, selector on public.schedules
  for each row when (new.policies ? 'rollout') execute function fleet.tg_note_authors();

create or replace function fleet.tg_plan_rollouts()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  with planned as (
    insert into public.rollouts (run_id, owner_id, schedule_id, plan)
    select n.id, n.owner_id, n.schedule_id, p.plan
    from new_rows as n
    join public.schedules as s on s.id = n.schedule_id
    cross join lateral (select fleet.rollout_plan(s.policies, s.action_type, s.payload) as plan) as p
    where n.status = 'pending'
      and (s.policies ? 'rollout' or s.action_type = 'run_command')
      and p.plan is not null
    returning run_id, owner_id, plan
  )
  insert into public.run_waves (run_id, wave, owner_id, name, percent_to, tag, device_ids, rules)
  select p.run_id, w.wave, p.owner_id, w.name, w.percent_to, w.tag, w.device_ids, w.rules
  from planned as p
  cross join lateral fleet.planned_waves(p.plan) as w;
  return null;
end;
$$;

comment on function fleet.tg_plan_rollouts() is 'Make groups of a run whose schedule has a rollout, before it is expanded. Definer: nobody writes them.';
revoke all on function fleet.tg_plan_rollouts() from public, anon, authenticated, service_role;

create or replace trigger schedule_runs_02_plan_rollouts
  after insert on public.schedule_runs
  referencing new table as new_rows
  for each statement execute function fleet.tg_plan_rollouts();

create or replace function fleet.tg_tell_of_deleted()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into fleet.rollout_progress (run_id, wave, outcome, n)
  select o.run_id, o.wave, case when o.step > 0 then 'unrestored' else 'cancelled' end, count(*)
  from old_rows as o
  where o.wave is not null
    and o.status in ('pending', 'running')
    and exists (select 1 from public.rollouts as r where r.run_id = o.run_id)
  group by 1, 2, 3;
  return null;
end;
$$;

comment on function fleet.tg_tell_of_deleted() is 'Tell rollouts of commands that went with their devices. Definer: nobody writes them.';
revoke all on function fleet.tg_tell_of_deleted() from public, anon, authenticated, service_role;

create or replace trigger device_commands_08_tell_of_deleted
  after delete on public.device_commands
  referencing old table as old_rows
  for each statement execute function fleet.tg_tell_of_deleted();

-- What people and rules decide, not how far it is.
select fleet.keep_audit('public.rollouts', p_columns => '{paused_at,aborted_at,reason}');
select fleet.keep_audit('public.rollout_approvals', p_verbs => '{insert,delete}');

-- db/sources/42_rollouts/access.sql
-- Who sees rollouts: the people of the owner. They are written by the engine and by the functions of the verbs.

revoke all on table public.run_waves, public.rollouts, public.rollout_approvals, fleet.rollout_authors, fleet.rollout_queue,
  fleet.rollout_progress, fleet.rollout_releases
  from public, anon, authenticated, service_role;
grant select on table public.run_waves, public.rollouts, public.rollout_approvals to authenticated, service_role;

drop policy if exists run_waves_select_service_role on public.run_waves;
create policy run_waves_select_service_role on public.run_waves for select to service_role using (true);
drop policy if exists rollouts_select_service_role on public.rollouts;
create policy rollouts_select_service_role on public.rollouts for select to service_role using (true);
drop policy if exists rollout_approvals_select_service_role on public.rollout_approvals;
create policy rollout_approvals_select_service_role on public.rollout_approvals for select to service_role using (true);
drop policy if exists run_waves_select_member on public.run_waves;
create policy run_waves_select_member on public.run_waves
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists rollouts_select_member on public.rollouts;
create policy rollouts_select_member on public.rollouts
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists rollout_approvals_select_member on public.rollout_approvals;
create policy rollout_approvals_select_member on public.rollout_approvals
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

set check_function_bodies = on;
reset search_path;
