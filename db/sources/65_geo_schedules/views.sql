-- What people read of geo schedules.

create or replace view public.geo_schedule_list
with (security_invoker = true)
as
select s.id, s.owner_id, s.name, d.hostname as device, g.name as group_name, l.name as location, s.side, s.blocked_apps as apps, s.enforce,
  to_char(make_interval(mins => s.start_minute), 'HH24:MI') as starts, to_char(make_interval(mins => s.end_minute), 'HH24:MI') as ends,
  s.recurrence, s.days, s.timezone, s.update_delay_type, s.update_delay_seconds, s.effective_from,
  case
    when s.deletion_status = 'DELETED' then 'deleted'
    when s.delay_ends_at > now() then 'ending'
    when s.deletion_status is not null then 'ended'
    when s.effective_from > now() then 'waiting'
    else 'active'
  end as state,
  s.delete_started_date, s.deletion_status, s.delay_ends_at, s.replaced_by, s.notes, s.created_at
from public.geo_schedules as s
left join public.devices as d on d.id = s.device_id
left join public.device_groups as g on g.id = s.group_id
left join public.locations as l on l.id = s.location_id;

comment on view public.geo_schedule_list is
  'Geo schedules with the names of what they name, and their state: active, waiting (for the delay of the one they replace), ending (until '
  'delay_ends_at), ended, deleted.';
comment on column public.geo_schedule_list.device is 'Its hostname; null where it is for a group.';
comment on column public.geo_schedule_list.group_name is 'Its name; null where it is for one device.';
comment on column public.geo_schedule_list.location is 'Its name; null with anywhere.';
comment on column public.geo_schedule_list.side is 'inside, outside or anywhere.';
comment on column public.geo_schedule_list.apps is 'What is blocked, with the categories resolved.';
comment on column public.geo_schedule_list.enforce is 'As geo_schedules.enforce.';
comment on column public.geo_schedule_list.starts is 'HH:MM on the wall.';
comment on column public.geo_schedule_list.ends is 'HH:MM on the wall; not after starts: of the next day.';
comment on column public.geo_schedule_list.recurrence is 'daily or weekly.';
comment on column public.geo_schedule_list.days is 'Of a weekly one: 0 is Monday.';
comment on column public.geo_schedule_list.timezone is 'IANA name, or device.';
comment on column public.geo_schedule_list.update_delay_type is 'As geo_schedules.update_delay_type.';
comment on column public.geo_schedule_list.update_delay_seconds is 'As geo_schedules.update_delay_seconds.';
comment on column public.geo_schedule_list.effective_from is 'As geo_schedules.effective_from.';
comment on column public.geo_schedule_list.state is 'active, waiting, ending, ended or deleted.';
comment on column public.geo_schedule_list.delete_started_date is 'When it was deleted or replaced.';
comment on column public.geo_schedule_list.deletion_status is 'As geo_schedules.deletion_status.';
comment on column public.geo_schedule_list.delay_ends_at is 'When its delay is over.';
comment on column public.geo_schedule_list.replaced_by is 'The geo schedule that an update made of it.';
comment on column public.geo_schedule_list.notes is 'As geo_schedules.notes.';
revoke all on table public.geo_schedule_list from public, anon, authenticated, service_role;
grant select on table public.geo_schedule_list to authenticated, service_role;

create or replace view public.geo_action_list
with (security_invoker = true)
as
select a.id, a.geo_schedule_id as geoschedule_config_id, a.owner_id, s.name, a.from_date, a.starts_at as start_date, a.ends_at as end_date,
  a.length_minutes, a.timezone, a.side, a.apps, a.enforce, s.delete_started_date, s.deletion_status, a.update_delay_type,
  a.update_delay_seconds, r.device_id, r.status, r.location_met_at, r.reason, r.reported_at
from public.geo_actions as a
join public.geo_schedules as s on s.id = a.geo_schedule_id
left join public.geo_action_reports as r on r.geo_action_id = a.id;

comment on view public.geo_action_list is
  'Actions with what each device reported of them: one row a device, or one without a device where none has reported yet.';
comment on column public.geo_action_list.geoschedule_config_id is 'The geo schedule in geo_schedules.';
comment on column public.geo_action_list.from_date is 'The local date on which it starts.';
comment on column public.geo_action_list.start_date is 'When it starts, in UTC.';
comment on column public.geo_action_list.end_date is 'When it ends, in UTC.';
comment on column public.geo_action_list.length_minutes is 'Real minutes from start to end.';
comment on column public.geo_action_list.timezone is 'IANA name, or device.';
comment on column public.geo_action_list.side is 'inside, outside or anywhere.';
comment on column public.geo_action_list.apps is 'What is blocked.';
comment on column public.geo_action_list.enforce is 'As geo_schedules.enforce.';
comment on column public.geo_action_list.delete_started_date is 'When its geo schedule was deleted or replaced.';
comment on column public.geo_action_list.deletion_status is 'That of its geo schedule.';
comment on column public.geo_action_list.update_delay_type is 'As geo_schedules.update_delay_type.';
comment on column public.geo_action_list.update_delay_seconds is 'As geo_schedules.update_delay_seconds.';
comment on column public.geo_action_list.location_met_at is 'When the device was first where the action wants it.';
comment on column public.geo_action_list.reason is 'Why it was skipped or failed.';
comment on column public.geo_action_list.reported_at is 'When the device last told.';
revoke all on table public.geo_action_list from public, anon, authenticated, service_role;
grant select on table public.geo_action_list to authenticated, service_role;
