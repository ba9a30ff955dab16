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
