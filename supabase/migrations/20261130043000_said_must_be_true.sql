-- Generated from db/migrations/20261130043000_said_must_be_true.sql by pgfleet db bundle; edit that file instead.
-- What is over says so: profile schedules that failed for good, or were skipped, were tried last when that was found.
-- depends: 20261130040000_membership

update public.schedules as s
set last_executed_at = coalesce(
  (select max(c.executed_at) from public.device_commands as c where c.schedule_id = s.id),
  (select max(r.finished_at) from public.schedule_runs as r where r.schedule_id = s.id),
  s.updated_at
)
where s.action_type in ('push_profile', 'remove_profile')
  and s.recurrence_type = 'once'
  and s.last_executed_at is null
  and s.status = 'completed'
  and not exists (
    select 1 from public.schedule_runs as r where r.schedule_id = s.id and r.status in ('pending', 'running')
  );
