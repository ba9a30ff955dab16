-- Schedules that run when a run of another one has ended: which may be followed, and what becomes of one whose parent is deleted.

create or replace function fleet.follow_problems(p_schedule public.schedules)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id bigint := p_schedule.after_schedule_id;
  v_seen bigint[] := '{}';
begin
  if v_id is null then
    return;
  end if;

  return query
  select q.field, q.problem, q.hint
  from fleet.choice_problem('after.on', to_jsonb(p_schedule.after_on), '{completed,failed,either}') as q;
  if not exists (
    select 1 from public.schedules as s where s.id = v_id and s.owner_id = p_schedule.owner_id
  ) then
    return query
    select 'after.schedule_id', format('schedule %s was not found', v_id), 'List your schedules with: pgfleet schedule list';
    return;
  end if;

  -- Up the chain: whoever comes back to where it began would run for ever.
  while v_id is not null and v_id <> all (v_seen) loop
    if v_id = p_schedule.id then
      return query
      select 'after.schedule_id', format('schedule %s follows this one already: they would run for ever', p_schedule.after_schedule_id),
        'Let the first schedule of the chain have times of its own.';
      return;
    end if;
    v_seen := v_seen || v_id;
    select s.after_schedule_id into v_id from public.schedules as s where s.id = v_id;
  end loop;
end;
$$;

comment on function fleet.follow_problems(public.schedules) is
  'Whether the schedule that this one follows exists for its owner and does not follow it in turn.';
revoke all on function fleet.follow_problems(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.has_lost_parent(p_old public.schedules, p_new public.schedules)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select p_old.after_schedule_id is not null
      and p_new.after_schedule_id is null
      and not exists (select 1 from public.schedules as s where s.id = p_old.after_schedule_id)
  );
end;
$$;

comment on function fleet.has_lost_parent(public.schedules, public.schedules) is
  'Whether this change comes from the foreign key: the schedule that this one follows is deleted.';
revoke all on function fleet.has_lost_parent(public.schedules, public.schedules)
  from public, anon, authenticated, service_role;

create or replace function fleet.abandoned_schedule(p_old public.schedules, p_new public.schedules)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules := p_new;
begin
  v_row.after_on := null;
  -- Nobody said when it is to run instead; times that it has besides wait until it is resumed.
  v_row.next_run_at := case
    when v_row.recurrence_type <> 'once' and v_row.status in ('active', 'paused') then fleet.first_due(v_row, clock_timestamp())
  end;
  if v_row.status = 'active' then
    v_row.status := 'paused';
    v_row.status_reason := format('schedule %s, which it followed, was deleted', p_old.after_schedule_id);
  end if;
  v_row.updated_at := now();
  return v_row;
end;
$$;

comment on function fleet.abandoned_schedule(public.schedules, public.schedules) is
  'The row of a schedule that followed one that is deleted: paused, with the reason.';
revoke all on function fleet.abandoned_schedule(public.schedules, public.schedules)
  from public, anon, authenticated, service_role;
