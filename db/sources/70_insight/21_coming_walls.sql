-- What a schedule by device time will do: each local occurrence once, with the zones in which it is due.

create or replace function fleet.coming_on_walls(
  p_schedule public.schedules,
  p_from timestamptz,
  p_to timestamptz,
  p_limit integer,
  p_is_present boolean
)
returns table (
  due_at timestamptz,
  starts_at timestamptz,
  would text,
  reason text,
  zones text[],
  dst_rule text,
  missed_to timestamptz,
  missed_count bigint,
  local timestamp,
  last_at timestamptz,
  missed_to_local timestamp,
  open_zones text[]
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- Compiling the plan would take a hundred times as long as running it.
set jit = off
as $$
declare
  v_zones text[] := fleet.schedule_zones(p_schedule);
  v_left bigint := fleet.runs_left(p_schedule);
  v_from timestamptz := greatest(p_schedule.next_run_at, case when v_left is null then p_from end);
  v_span interval := '3 days';
  v_made integer := 0;
  v_policies jsonb := fleet.effective_policies(p_schedule.policies) - 'jitter';
  v_run record;
begin
  if p_schedule.next_run_at < p_from and (p_is_present or v_left is not null) then
    -- What is overdue, as a tick at p_from would decide about it.
    for v_run in select d.* from fleet.decide_occurrences(p_schedule, p_from) as d order by d.scheduled_local loop
      if v_run.status = 'pending' and p_schedule.status = 'active' then
        v_left := v_left - 1;
      end if;
      continue when not p_is_present or v_made >= p_limit;
      v_made := v_made + 1;
      due_at := v_run.scheduled_for;
      starts_at := greatest(v_run.scheduled_for, p_from);
      would := case when v_run.status = 'pending' and p_schedule.status = 'active' then 'run' else 'skip' end;
      reason := case when p_schedule.status = 'paused' then 'paused' else v_run.reason end;
      zones := coalesce(
        array(select z.zone from jsonb_array_elements(v_run.zone_rows) as e, jsonb_array_elements_text(e -> 'zones') as z(zone)), v_zones
      );
      dst_rule := v_run.dst_rule;
      missed_to := v_run.missed_to;
      missed_count := v_run.missed_count;
      missed_to_local := v_run.missed_to_local;
      local := v_run.scheduled_local;
      last_at := null;
      return next;
    end loop;
    v_from := p_from + interval '1 microsecond';
  elsif v_left is null and p_schedule.next_run_at >= p_from then
    -- Of a day that has begun, the rest runs.
    v_from := (
      select min(o.due_at)
      from fleet.local_occurrences(p_schedule.recurrence, v_zones, v_from - interval '27 hours', v_from + interval '1 microsecond') as o
      where o.last_at >= v_from
        and not exists (
          select 1
          from public.schedule_runs as r
          where r.schedule_id = p_schedule.id and r.scheduled_local = o.local and r.fold = o.fold
        )
    );
    v_from := coalesce(v_from, p_schedule.next_run_at);
  end if;

  missed_to := null;
  missed_count := null;
  missed_to_local := null;
  while v_made < p_limit and v_from < p_to and coalesce(v_left > 0, true) loop
    for v_run in
      select o.*
      from fleet.local_occurrences(p_schedule.recurrence, v_zones, v_from, least(v_from + v_span, p_to)) as o
      order by o.due_at, o.local, o.fold
    loop
      exit when v_made >= p_limit or v_left <= 0;
      select array_agg(z.zone order by z.due_at, z.zone),
        array_agg(z.zone order by z.due_at, z.zone) filter (where w.is_open),
        left(string_agg(distinct z.zone || ' ' || z.rule, ', ') filter (where z.rule is not null), 500),
        case
          when p_schedule.status = 'paused' then 'paused'
          when bool_and(z.refusal is not null) then min(z.refusal)
          when bool_and(z.refusal is not null or not w.is_open) then 'outside the execution window'
          when p_schedule.policies ? 'blackouts' and bool_and(fleet.open_zones(p_schedule, array[z.zone], z.due_at) = '{}') then 'blackout'
        end
      into zones, open_zones, dst_rule, reason
      from fleet.zone_instants(p_schedule.recurrence, v_run.local, v_run.fold, v_zones) as z
      cross join lateral (
        select fleet.device_start(v_policies, p_schedule.id, 0, z.zone, z.due_at) is not null as is_open
      ) as w;
      would := case when reason is null then 'run' else 'skip' end;
      if reason is null then
        v_left := v_left - 1;
      end if;
      continue when v_run.due_at < p_from and v_run.last_at < p_from;
      v_made := v_made + 1;
      due_at := v_run.due_at;
      starts_at := v_run.due_at;
      local := v_run.local;
      last_at := v_run.last_at;
      return next;
    end loop;
    v_from := least(v_from + v_span, p_to);
    v_span := v_span * 2;
    if v_made = 0 or v_from = p_to then
      -- Rare ones are looked for, not waited for.
      v_from := greatest(v_from, coalesce(fleet.next_due(p_schedule.recurrence, v_zones, v_from - interval '1 microsecond'), p_to));
    elsif fleet.next_due(p_schedule.recurrence, v_zones, v_from - interval '1 microsecond') is null then
      exit;
    end if;
    v_span := least(v_span, interval '400 days');
  end loop;
end;
$$;

comment on function fleet.coming_on_walls(public.schedules, timestamptz, timestamptz, integer, boolean) is
  'See fleet.coming_runs, for a schedule by device time: due_at is the first instant at which an occurrence is due for anybody, last_at the '
  'last, local what every wall shows.';
revoke all on function fleet.coming_on_walls(public.schedules, timestamptz, timestamptz, integer, boolean)
  from public, anon, authenticated, service_role;
