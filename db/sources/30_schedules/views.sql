-- Schedules, and the calendars in which nothing runs, as people list them.

drop view if exists public.schedule_list;
create view public.schedule_list with (security_invoker = true) as
select
  s.id,
  s.owner_id,
  o.name as owner,
  s.name,
  s.description,
  s.status,
  s.status_reason,
  s.action_type,
  s.payload,
  s.recurrence_type,
  s.recurrence_config,
  s.timezone,
  s.start_time,
  s.end_time,
  s.start_is_local,
  s.end_is_local,
  s.next_run_at,
  s.last_executed_at,
  s.execution_count,
  s.device_ids,
  s.group_ids,
  s.selector,
  s.profile_id,
  fleet.effective_policies(s.policies) as policies,
  s.priority,
  s.ui_initiated,
  (select count(*) from public.schedule_runs as r where r.schedule_id = s.id) as runs,
  (select count(*) from public.device_commands as c where c.schedule_id = s.id) as commands,
  (select count(*) from public.device_commands as c where c.schedule_id = s.id and c.status = 'pending') as pending,
  s.created_at,
  s.updated_at
from public.schedules as s
join public.owners as o on o.id = s.owner_id;

comment on view public.schedule_list is
  'Schedules with the policies that hold for them and what has come of them.';
comment on column public.schedule_list.owner is 'The name of the owner.';
comment on column public.schedule_list.policies is 'Every policy that holds, those by default among them.';
comment on column public.schedule_list.runs is 'How many rows it has in the ledger.';
comment on column public.schedule_list.commands is 'How many commands it has made.';
comment on column public.schedule_list.pending is 'How many of them no device has started.';
select fleet.inherit_comments('public.schedule_list', 'public.schedules');
revoke all on table public.schedule_list from public, anon, authenticated, service_role;
grant select on table public.schedule_list to authenticated, service_role;

drop view if exists public.blackout_list;
create view public.blackout_list with (security_invoker = true) as
select
  c.id,
  c.owner_id,
  o.name as owner,
  c.name,
  c.description,
  (select count(*) from public.blackout_periods as p where p.calendar_id = c.id) as periods,
  c.created_at,
  c.url,
  c.url_timezone,
  c.skip_transparent,
  c.looked_at,
  c.look_error,
  c.look_note,
  c.changed_at,
  c.look_next_at
from public.blackout_calendars as c
join public.owners as o on o.id = c.owner_id;

comment on view public.blackout_list is
  'Blackout calendars with how many periods each has.';
comment on column public.blackout_list.owner is 'The name of the owner.';
comment on column public.blackout_list.periods is 'How many periods it has.';
select fleet.inherit_comments('public.blackout_list', 'public.blackout_calendars');
revoke all on table public.blackout_list from public, anon, authenticated, service_role;
grant select on table public.blackout_list to authenticated, service_role;

drop view if exists public.blackout_period_list;
create view public.blackout_period_list with (security_invoker = true) as
select
  p.id,
  p.owner_id,
  p.calendar_id,
  coalesce(p.starts_at, p.starts_on) as begins_at,
  p.starts_on,
  p.ends_on,
  p.starts_at,
  p.ends_at,
  p.summary
from public.blackout_periods as p;

comment on view public.blackout_period_list is
  'Periods of blackout calendars; ends_on is the day after the last.';
comment on column public.blackout_period_list.begins_at is
  'When it begins; of whole days, their midnight in the time zone of this session.';
select fleet.inherit_comments('public.blackout_period_list', 'public.blackout_periods');
revoke all on table public.blackout_period_list from public, anon, authenticated, service_role;
grant select on table public.blackout_period_list to authenticated, service_role;
