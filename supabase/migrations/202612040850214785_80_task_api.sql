-- Generated from db/sources/80_task_api by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/80_task_api/10_calls.sql
-- What the function schedule-api may do, on behalf of a signed-in person whose token it has verified. As the worker is no
-- member of anything, each call here either checks the caller by the claims or filters by the caller's owners itself.

create or replace function fleet.my_task(p_task_id bigint)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_task jsonb;
begin
  select to_jsonb(t) into v_task
  from public.schedules as s
  join public.scheduled_tasks as t on t.id = s.id
  where s.id = p_task_id
    and s.owner_id in (select o.id from fleet.my_owners() as o(id));
  if not found then
    perform fleet.raise_not_found(format('schedule %s', p_task_id));
  end if;
  return v_task;
end;
$$;

comment on function fleet.my_task(bigint) is
  'One of the caller''s schedules, with the columns of scheduled_tasks. Raises schedule_not_found (PT404).';
revoke all on function fleet.my_task(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.my_tasks(p_args jsonb)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_agg(to_jsonb(t) order by t.id), '[]')
  from (
    select t.*
    from public.schedules as s
    join public.scheduled_tasks as t on t.id = s.id
    where s.owner_id in (select o.id from fleet.my_owners() as o(id))
      and (p_args ->> 'status' is null or t.status = p_args ->> 'status')
      and (p_args ->> 'task_type' is null or t.task_type = p_args ->> 'task_type')
    order by t.id
    limit coalesce((p_args ->> 'limit')::integer, 100)
    offset coalesce((p_args ->> 'offset')::integer, 0)
  ) as t
$$;

comment on function fleet.my_tasks(jsonb) is
  'The caller''s schedules, with the columns of scheduled_tasks, by status and task_type; limit and offset page through them.';
revoke all on function fleet.my_tasks(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.require_task_type(p_task_type text)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_task_type is not null
    and not exists (
      select 1 from public.command_types as c
      where fleet.task_type(c.name) = p_task_type and (c.owner_id is null or c.owner_id = any (array(select fleet.my_owners())))
    )
  then
    raise exception 'task_type: "%" is no type of a task', fleet.cut_text(p_task_type, 60)
      using errcode = 'PT422', detail = 'query_invalid',
            hint = format('Use one of: %s.', (
              select string_agg(fleet.task_type(c.name), ', ' order by fleet.task_type(c.name))
              from public.command_types as c
              where c.owner_id is null
            ));
  end if;
end;
$$;

comment on function fleet.require_task_type(text) is 'Raise query_invalid (PT422) for a type that no task has.';
revoke all on function fleet.require_task_type(text) from public, anon, authenticated, service_role;

create or replace function fleet.my_executions(p_task_id bigint, p_args jsonb)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.my_task(p_task_id);
  return (
    select coalesce(jsonb_agg(to_jsonb(e) order by e.id desc), '[]')
    from (
      select x.*
      from public.scheduled_task_executions as x
      where x.task_id = p_task_id
        and (p_args ->> 'run_id' is null or x.id = (p_args ->> 'run_id')::bigint)
      order by x.id desc
      limit coalesce((p_args ->> 'limit')::integer, 100)
      offset coalesce((p_args ->> 'offset')::integer, 0)
    ) as e
  );
end;
$$;

comment on function fleet.my_executions(bigint, jsonb) is
  'The history of one of the caller''s schedules, the newest first. Raises schedule_not_found (PT404).';
revoke all on function fleet.my_executions(bigint, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.my_execution_counts(p_since timestamptz)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with counted as materialized (
    select r.status, count(*) as n
    from public.schedule_runs as r
    where r.owner_id in (select o.id from fleet.my_owners() as o(id))
      and (p_since is null or r.created_at > p_since)
    group by r.status
  )
  select jsonb_build_object(
    'total', (select coalesce(sum(c.n), 0) from counted as c),
    'by_status', (select coalesce(jsonb_object_agg(c.status, c.n), '{}') from counted as c),
    'success_rate', (
      select round(
        100.0 * coalesce(sum(c.n) filter (where c.status = 'completed'), 0)
        / nullif(sum(c.n) filter (where c.status in ('completed', 'failed')), 0), 1
      )
      from counted as c
    )
  )
$$;

comment on function fleet.my_execution_counts(timestamptz) is
  'How the caller''s executions ended, since an instant or ever: {total, by_status, success_rate} in percent.';
revoke all on function fleet.my_execution_counts(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.my_task_stats(p_now timestamptz)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- public.schedule_stats leaves it to row security whose schedules count, and none holds here.
  with mine as materialized (
    select t.id, t.task_name, t.task_type, t.recurrence_type, t.status, t.next_execution
    from public.schedules as s
    join public.scheduled_tasks as t on t.id = s.id
    where s.owner_id in (select o.id from fleet.my_owners() as o(id))
  )
  select jsonb_build_object(
    'now', p_now,
    'total', (select count(*) from mine),
    'by_status', (
      select coalesce(jsonb_object_agg(k.status, k.n), '{}')
      from (select m.status, count(*) as n from mine as m group by m.status) as k
    ),
    'by_type', (
      select coalesce(jsonb_object_agg(k.task_type, k.n), '{}')
      from (select m.task_type, count(*) as n from mine as m group by m.task_type) as k
    ),
    'by_recurrence', (
      select coalesce(jsonb_object_agg(k.recurrence_type, k.n), '{}')
      from (select m.recurrence_type, count(*) as n from mine as m group by m.recurrence_type) as k
    ),
    'next_due', (
      select coalesce(jsonb_agg(to_jsonb(d) order by d.next_execution, d.id), '[]')
      from (
        select m.id, m.task_name, m.next_execution
        from mine as m
        where m.status in ('pending', 'running') and m.next_execution is not null
        order by m.next_execution, m.id
        limit 5
      ) as d
    ),
    'executions', fleet.my_execution_counts(null)
      || jsonb_build_object('last_24_hours', fleet.my_execution_counts(p_now - interval '24 hours'))
  )
$$;

comment on function fleet.my_task_stats(timestamptz) is
  'The caller''s tasks and executions in numbers: {total, by_status, by_type, by_recurrence, next_due, executions}.';
revoke all on function fleet.my_task_stats(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.call_as_user(p_call text, p_args jsonb)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id bigint := (p_args ->> 'id')::bigint;
  v_answer jsonb;
begin
  case p_call
    when 'list_tasks' then
      perform fleet.require_task_type(p_args ->> 'task_type');
      return fleet.my_tasks(p_args);
    when 'create_task' then
      -- What lacks is named in the words of tasks, also to whoever has used none of them.
      v_answer := public.create_schedule(
        p_args -> 'spec'
        || case when p_args -> 'spec' ?| '{task_name,task_type,name,action_type}' then '{}' else '{"task_type": null}' end::jsonb
      );
      return fleet.my_task((v_answer ->> 'id')::bigint) || jsonb_build_object('warnings', v_answer -> 'warnings');
    when 'get_task' then
      return fleet.my_task(v_id);
    when 'update_task' then
      v_answer := public.update_schedule(v_id, p_args -> 'changes');
      return fleet.my_task(v_id) || jsonb_build_object('warnings', v_answer -> 'warnings');
    when 'delete_task' then
      perform public.delete_schedule(v_id);
      return jsonb_build_object('id', v_id, 'deleted', true);
    when 'pause_task' then
      perform public.pause_schedule(v_id, p_args ->> 'reason');
      return fleet.my_task(v_id);
    when 'resume_task' then
      perform public.resume_schedule(v_id);
      return fleet.my_task(v_id);
    when 'execute_task' then
      v_answer := to_jsonb(public.run_schedule(v_id, p_args ->> 'idempotency_key'));
      return fleet.my_executions(v_id, jsonb_build_object('run_id', v_answer -> 'id')) -> 0;
    when 'list_executions' then
      return fleet.my_executions(v_id, p_args);
    when 'stats' then
      return fleet.my_task_stats(now());
    else
      raise exception 'call "%" is not known', p_call
        using errcode = 'PT404', detail = 'call_not_found', hint = 'Functions and database differ in version: run pgfleet db migrate.';
  end case;
end;
$$;

comment on function fleet.call_as_user(text, jsonb) is 'The calls that worker_as_user lets through.';
revoke all on function fleet.call_as_user(text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.worker_as_user(p_claims jsonb, p_call text, p_args jsonb default '{}')
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_answer jsonb;
begin
  -- Claims without a role, or of the service role, would be trusted with everything.
  if p_claims ->> 'role' is distinct from 'authenticated' then
    raise exception 'only a signed-in person may do this'
      using errcode = 'PT403', detail = 'not_a_person', hint = 'Send the access token of a signed-in user.';
  end if;

  perform set_config('request.jwt.claims', p_claims::text, true);
  if fleet.current_user_id() is null then
    raise exception 'a device may not do this'
      using errcode = 'PT403', detail = 'not_a_person', hint = 'Sign in as a member of the fleet.';
  end if;
  v_answer := fleet.call_as_user(p_call, p_args);
  perform set_config('request.jwt.claims', '', true);
  return v_answer;
end;
$$;

comment on function fleet.worker_as_user(jsonb, text, jsonb) is
  'Do one of a few calls as the person of a token that the function has verified. Raises not_a_person (PT403) and what the call '
  'raises. Definer: the worker has no rights; the claims, never the worker, decide what is seen and changed.';
revoke all on function fleet.worker_as_user(jsonb, text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.task_type(p_action_type text)
returns text
language sql
immutable
parallel safe
return (
  case p_action_type
    when 'run_command' then 'command'
    when 'deploy_software' then 'software_deployment'
    when 'deploy_files' then 'file_deployment'
    else p_action_type
  end
);

comment on function fleet.task_type(text) is 'The task type for which create_schedule makes this action.';
revoke all on function fleet.task_type(text) from public, anon, authenticated, service_role;
grant execute on function fleet.task_type(text) to authenticated, service_role;

-- db/sources/80_task_api/views.sql
-- Schedules and their runs in the words of a task scheduler, for clients that were written for one. Read only.

drop view if exists public.scheduled_tasks;
create view public.scheduled_tasks
with (security_invoker = true)
as
select
  s.id,
  s.name as task_name,
  fleet.task_type(s.action_type) as task_type,
  case
    when s.status in ('paused', 'cancelled') then s.status
    when exists (
      select 1 from public.schedule_runs as r where r.schedule_id = s.id and r.status in ('pending', 'running')
    ) then 'running'
    when s.status = 'active' then 'pending'
    when last.status in ('failed', 'cancelled') then last.status
    -- It came to its end without having run, and the reason is told.
    when s.last_executed_at is null and (last.id is null or last.status = 'skipped') then 'skipped'
    else 'completed'
  end as status,
  s.start_time as scheduled_time,
  case s.recurrence_type when 'cron' then 'custom' else s.recurrence_type end as recurrence_type,
  s.recurrence_config,
  to_jsonb(s.device_ids) as device_ids,
  to_jsonb(s.group_ids) as group_ids,
  s.payload,
  s.created_by,
  s.created_at,
  s.updated_at,
  s.last_executed_at as last_execution,
  s.next_run_at as next_execution,
  s.execution_count,
  case
    when last.id is not null then coalesce(last.result, jsonb_build_object(
      'status', last.status, 'targeted', last.targeted, 'completed', last.completed, 'failed', last.failed,
      'skipped', last.skipped
    ))
  end as last_result,
  coalesce(
    last.error_message,
    case when last.status <> 'completed' then last.reason end,
    -- That it came to its end is no error.
    case when s.status in ('paused', 'cancelled') or last.id is null then s.status_reason end
  ) as error_message
from public.schedules as s
left join lateral (
  select r.id, r.status, r.reason, r.targeted, r.completed, r.failed, r.skipped, r.result, r.error_message
  from public.schedule_runs as r
  where r.schedule_id = s.id and r.status in ('completed', 'failed', 'skipped', 'cancelled')
  order by r.scheduled_for desc
  limit 1
) as last on true;

comment on view public.scheduled_tasks is
  'Schedules as tasks: command, software_deployment, file_deployment or the name of an action; pending, running, completed, failed, '
  'cancelled, paused or skipped (over without having run). Read only: write with create_schedule, update_schedule and their kin.';
comment on column public.scheduled_tasks.task_name is 'The name of the schedule.';
comment on column public.scheduled_tasks.task_type is 'command, software_deployment, file_deployment, or the action type.';
comment on column public.scheduled_tasks.scheduled_time is 'When it starts.';
comment on column public.scheduled_tasks.recurrence_type is 'once, interval, daily, weekly, monthly or custom (cron).';
comment on column public.scheduled_tasks.recurrence_config is 'As it was given.';
comment on column public.scheduled_tasks.device_ids is 'JSON list of ids.';
comment on column public.scheduled_tasks.group_ids is 'JSON list of ids.';
comment on column public.scheduled_tasks.payload is 'What each device gets.';
comment on column public.scheduled_tasks.last_execution is 'When it last ran.';
comment on column public.scheduled_tasks.next_execution is 'The next due instant.';
comment on column public.scheduled_tasks.execution_count is 'How often it ran.';
comment on column public.scheduled_tasks.last_result is 'Figures of the last run that ended.';
comment on column public.scheduled_tasks.error_message is 'Why that run failed or was skipped, or why the task is paused or cancelled.';

drop view if exists public.scheduled_task_executions;
create view public.scheduled_task_executions
with (security_invoker = true)
as
select
  r.id,
  r.schedule_id as task_id,
  coalesce(r.started_at, r.scheduled_for) as execution_time,
  r.finished_at as completed_time,
  r.status,
  d.id as deployment_id,
  coalesce(r.result, jsonb_build_object(
    'targeted', r.targeted, 'completed', r.completed, 'failed', r.failed, 'skipped', r.skipped
  )) as result,
  coalesce(r.error_message, case when r.status <> 'completed' then r.reason end) as error_message,
  r.created_at
from public.schedule_runs as r
left join public.deployments as d on d.run_id = r.id;

comment on view public.scheduled_task_executions is 'The runs of tasks, one row for each execution or range of missed ones. Read only.';
comment on column public.scheduled_task_executions.task_id is 'The task, in scheduled_tasks.';
comment on column public.scheduled_task_executions.execution_time is 'When it started; when it was due, where it never started.';
comment on column public.scheduled_task_executions.completed_time is 'When it ended.';
comment on column public.scheduled_task_executions.deployment_id is 'The deployment that it made, if any.';
comment on column public.scheduled_task_executions.result is 'How many devices were targeted, and how they ended.';
comment on column public.scheduled_task_executions.error_message is 'Why it failed or was skipped.';

revoke all on table public.scheduled_tasks, public.scheduled_task_executions from public, anon, authenticated, service_role;
grant select on table public.scheduled_tasks, public.scheduled_task_executions to authenticated, service_role;

set check_function_bodies = on;
reset search_path;
