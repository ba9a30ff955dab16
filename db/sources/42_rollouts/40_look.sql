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
