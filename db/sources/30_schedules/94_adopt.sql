-- Schedules by device time of a database in which each distinct instant was a run of its own.

create or replace function fleet.adopt_walls()
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_schedule public.schedules;
  v_problem fleet.problem;
  v_count bigint := 0;
begin
  for v_schedule in
    select s.*
    from public.schedules as s
    where s.timezone = 'device' and s.recurrence ->> 'kind' is distinct from 'walls'
    order by s.id
    for update
  loop
    v_count := v_count + 1;
    v_schedule.recurrence := fleet.compiled(v_schedule);
    update public.schedules as s set recurrence = v_schedule.recurrence where s.id = v_schedule.id;
    continue when v_schedule.status <> 'active' or v_schedule.next_run_at is null;

    select q.* into v_problem from fleet.density_problem(v_schedule) as q;
    if found then
      -- Nobody could make it today: a run for each minute would be open for a day, and would hold up all others.
      update public.schedules as s
      set status = 'paused', status_reason = concat_ws('. ', v_problem.problem, v_problem.hint)
      where s.id = v_schedule.id;
      continue;
    end if;

    -- A day that was under way: what lies before the next instant was due and told then, what comes after goes on.
    perform fleet.book_runs(array_agg(row(
      v_schedule.id, o.due_at, 'schedule', 'pending', null, null, null, null, null, null, o.last_at + interval '24 hours', null, null,
      null, null, null, o.local, o.fold, null, (
        select jsonb_agg(jsonb_build_object(
          'due_at', g.due_at, 'starts_at', g.due_at, 'expires_at', g.expires_at, 'zones', g.zones, 'rule', g.rule,
          'refusal', case when g.due_at < v_schedule.next_run_at then 'it ran before the upgrade' else g.refusal end
        ))
        from (
          select z.due_at, min(z.expires_at) as expires_at, array_agg(z.zone order by z.zone) as zones, min(z.rule) as rule, z.refusal
          from fleet.judged_zones(
            v_schedule, fleet.schedule_zones(v_schedule), o.local, o.fold, v_schedule.next_run_at - interval '1 microsecond', null
          ) as z
          group by z.due_at, z.refusal
        ) as g
      )
    )::fleet.run_booking), now())
    from fleet.local_occurrences(
      v_schedule.recurrence, fleet.schedule_zones(v_schedule), v_schedule.next_run_at - interval '27 hours', v_schedule.next_run_at
    ) as o
    where o.last_at >= v_schedule.next_run_at and o.runs;
  end loop;
  return v_count;
end;
$$;

comment on function fleet.adopt_walls() is
  'Bring schedules by device time that went by distinct instants to local occurrences; called at every migrate. Of a day that is under way '
  'the zones that have had it are left alone, the others go on. What is due too often for local occurrences is paused, with the reason. '
  'Answers how many.';
revoke all on function fleet.adopt_walls() from public, anon, authenticated, service_role;
