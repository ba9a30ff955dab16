-- Device time: what is decided about a zone of a run at its own instant.

create or replace function fleet.zone_refusal(
  p_schedule public.schedules,
  p_zone text,
  p_due timestamptz,
  p_is_decided boolean,
  p_now timestamptz
)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_is_late boolean := p_due < p_now - interval '1 minute';
begin
  if p_schedule.status = 'paused' then
    return 'paused';
  end if;
  return coalesce(
    case
      when v_is_late and not p_is_decided
        then fleet.late_refusal(p_schedule.recurrence, fleet.effective_policies(p_schedule.policies), p_zone, p_due, p_now)
    end,
    case
      when p_schedule.policies ? 'blackouts' and (
        fleet.open_zones(p_schedule, array[p_zone], p_due) = '{}'
        -- What is caught up acts now, so now must be allowed as well.
        or v_is_late and fleet.open_zones(p_schedule, array[p_zone], p_now) = '{}'
      )
        then 'blackout'
    end
  );
end;
$$;

comment on function fleet.zone_refusal(public.schedules, text, timestamptz, boolean, timestamptz) is
  'Why a zone of a run does not run although its time has come: a pause, a blackout there, or, where that is not decided, because it comes '
  'too late. Null where it runs.';
revoke all on function fleet.zone_refusal(public.schedules, text, timestamptz, boolean, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.judge_zones(p_run_ids bigint[], p_now timestamptz)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_runs bigint[] := p_run_ids;
  v_schedule public.schedules;
  v_row record;
  v_judged record;
  v_is_late boolean;
begin
  for v_row in
    select z.id, z.run_id, r.schedule_id, z.due_at, z.starts_at, z.expires_at, z.zones, z.dst_rule
    from public.schedule_runs as r
    cross join lateral (
      select x.*
      from fleet.run_zones as x
      where x.run_id = r.id and x.expanded_at is null and x.starts_at <= p_now
      order by x.starts_at, x.id
      limit 1
    ) as z
    where r.id = any (p_run_ids) and r.scheduled_local is not null and z.started_at is null
  loop
    select s.* into v_schedule from public.schedules as s where s.id = v_row.schedule_id;
    v_is_late := v_row.due_at < p_now - interval '1 minute';
    select array_agg(j.zone order by j.zone) filter (where j.refusal is null) as open,
      array_agg(j.zone order by j.zone) filter (where j.refusal is not null) as closed,
      mode() within group (order by j.refusal) as refusal
    into v_judged
    from (
      select u.zone, fleet.zone_refusal(
        v_schedule, u.zone, v_row.due_at, v_row.starts_at > v_row.due_at + interval '1 minute', p_now
      ) as refusal
      from unnest(v_row.zones) as u(zone)
    ) as j;

    if v_judged.open is null then
      update fleet.run_zones as z
      set status = 'skipped', reason = v_judged.refusal, started_at = p_now, expanded_at = p_now
      where z.id = v_row.id;
      v_runs := array_remove(v_runs, v_row.run_id);
      perform fleet.close_runs(array[v_row.run_id], p_now);
      continue;
    end if;
    update fleet.run_zones as z
    set status = 'running', started_at = p_now, zones = v_judged.open,
        expires_at = case
          when v_is_late and v_row.starts_at <= v_row.due_at + interval '1 minute' then fleet.run_expiry(
            fleet.effective_policies(v_schedule.policies),
            (select min(n.due_at) from fleet.next_on_walls(v_schedule.recurrence, v_judged.open[1:1], p_now, true) as n), p_now
          )
          else z.expires_at
        end
    where z.id = v_row.id;
    if v_judged.closed is not null then
      insert into fleet.run_zones (run_id, due_at, starts_at, expires_at, zones, status, reason, dst_rule, started_at, expanded_at)
      values (
        v_row.run_id, v_row.due_at, v_row.starts_at, v_row.expires_at, v_judged.closed, 'skipped', v_judged.refusal, v_row.dst_rule,
        p_now, p_now
      );
    end if;
  end loop;
  return v_runs;
end;
$$;

comment on function fleet.judge_zones(bigint[], timestamptz) is
  'Decide about the zones of runs in device time whose time has come: blackouts, pauses and catching up are judged at each zone''s instant. '
  'Answers the runs that are to be expanded, those of fixed instants among them.';
revoke all on function fleet.judge_zones(bigint[], timestamptz) from public, anon, authenticated, service_role;
