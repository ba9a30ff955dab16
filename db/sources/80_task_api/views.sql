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
