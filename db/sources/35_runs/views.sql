-- The ledger as people list it.

drop view if exists public.run_list;
create view public.run_list with (security_invoker = true) as
select
  r.id,
  r.owner_id,
  s.name as schedule,
  r.schedule_id,
  r.scheduled_for,
  r.scheduled_local,
  r.trigger,
  r.status,
  r.reason,
  r.targeted,
  r.completed,
  r.failed,
  r.skipped,
  r.missed_from,
  r.missed_to,
  r.missed_count,
  r.dst_rule,
  r.error_message,
  r.action_type,
  r.payload,
  r.priority,
  r.result,
  r.expires_at,
  r.started_at,
  r.finished_at,
  r.created_at
from public.schedule_runs as r
join public.schedules as s on s.id = r.schedule_id;

comment on view public.run_list is
  'What became of each due instant, with the name of its schedule.';
comment on column public.run_list.schedule is 'The name of the schedule.';
select fleet.inherit_comments('public.run_list', 'public.schedule_runs');
revoke all on table public.run_list from public, anon, authenticated, service_role;
grant select on table public.run_list to authenticated, service_role;
