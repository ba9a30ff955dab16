-- What is installed where and for how long, as people ask for it.

create or replace view public.profile_schedules with (security_invoker = true) as
select
  s.id,
  s.owner_id,
  s.profile_id,
  s.device_id,
  d.hostname,
  s.action_type,
  s.start_time,
  s.created_at,
  s.last_executed_at,
  s.ui_initiated,
  case
    when s.status = 'cancelled' and (c.id is null or c.status = 'cancelled') then 'Cancelled'
    when c.status in ('failed', 'expired', 'cancelled') and s.next_run_at is null then 'Failed'
    when s.id = p.install_schedule_id and p.failure is not null then 'Failed'
    when s.next_run_at is null and exists (
      select 1
      from public.schedule_runs as r
      where r.schedule_id = s.id and r.targeted = 0 and r.status in ('skipped', 'failed', 'cancelled')
    ) then 'Failed'
    when s.last_executed_at is not null then 'Executed'
    when s.start_time > now() then 'Pending'
    else 'Due for execution'
  end as state,
  case
    when c.status in ('pending', 'running', 'completed') then c.error_message
    when c.id is not null then coalesce(c.error_message, c.reason)
    when s.status in ('cancelled', 'paused') then s.status_reason
    when s.status = 'completed' then (
      select coalesce(r.error_message, r.reason)
      from public.schedule_runs as r
      where r.schedule_id = s.id and r.targeted = 0 and r.status in ('skipped', 'failed', 'cancelled')
      order by r.id desc
      limit 1
    )
  end as reason,
  c.id as command_id,
  c.status as command_status,
  p.id as install_id,
  (
    select k.name
    from public.device_links as l
    join public.device_integrations as n on n.id = l.integration_id and n.status <> 'disabled'
    join public.profiles as k on k.integration_id = l.integration_id and k.external_id = s.profile_id
    where l.device_id = s.device_id and l.left_at is null
    order by (n.status = 'active') desc, n.id
    limit 1
  ) as profile_name
from public.schedules as s
left join public.devices as d on d.id = s.device_id
left join public.profile_installs as p on s.id in (p.install_schedule_id, p.remove_schedule_id)
left join lateral (
  select x.id, x.status, x.error_message, x.reason
  from public.device_commands as x
  where x.schedule_id = s.id and x.device_id = s.device_id
  order by x.id desc
  limit 1
) as c on true
where s.action_type in ('push_profile', 'remove_profile');

comment on view public.profile_schedules is 'Every schedule that installs or removes a profile, and what became of it.';
comment on column public.profile_schedules.profile_id is 'The MDM''s id of the profile.';
comment on column public.profile_schedules.hostname is 'The device, where there is exactly one.';
comment on column public.profile_schedules.action_type is 'push_profile or remove_profile.';
comment on column public.profile_schedules.last_executed_at is
  'When the MDM last took it; of what came to nothing, when it was tried last.';
comment on column public.profile_schedules.ui_initiated is 'Whether a person made it by hand.';
comment on column public.profile_schedules.state is
  'Pending (its time is to come), Due for execution, Executed (the MDM took it), Failed or Cancelled.';
comment on column public.profile_schedules.reason is 'Why it failed, was cancelled or rests; empty where all went well.';
comment on column public.profile_schedules.command_status is 'Status of the latest command; completed where the device showed the effect.';
comment on column public.profile_schedules.install_id is 'The install of install_profile that it belongs to.';
comment on column public.profile_schedules.profile_name is 'What the MDM of the device calls the profile; null where that is not known.';

create or replace view public.temporary_profiles with (security_invoker = true) as
select
  p.id as install_id,
  p.install_schedule_id,
  p.remove_schedule_id,
  p.owner_id,
  p.profile_id,
  p.device_id,
  d.hostname,
  coalesce(i.start_time, p.install_time) as install_time,
  p.installed_at,
  coalesce(r.start_time, p.removal_time) as scheduled_removal_time,
  p.removed_at,
  p.duration,
  extract(epoch from p.duration) / 60 as duration_minutes,
  case
    when p.removed_at is not null then 'removed'
    when p.failure is not null then 'never installed'
    when r.status = 'cancelled' or p.removal_cancelled is not null then 'removal cancelled'
    when r.id is null then 'removal deleted'
    when p.installed_at is null then 'waiting'
    when r.next_run_at is not null then 'installed'
    when exists (
      select 1 from public.device_commands as c where c.schedule_id = r.id and c.status in ('pending', 'running')
    ) then 'removing'
    else 'removal failed'
  end as state,
  case
    when p.removed_at is not null then null
    when p.failure is not null then p.failure
    when p.removal_cancelled is not null then p.removal_cancelled
    when r.status in ('cancelled', 'paused') then r.status_reason
    when r.status = 'completed' then coalesce(
      (
        select case when c.status in ('failed', 'expired', 'cancelled') then coalesce(c.error_message, c.reason, c.status) end
        from public.device_commands as c
        where c.schedule_id = r.id
        order by c.id desc
        limit 1
      ),
      (
        select coalesce(x.error_message, x.reason)
        from public.schedule_runs as x
        where x.schedule_id = r.id and x.targeted = 0 and x.status in ('skipped', 'failed', 'cancelled')
        order by x.id desc
        limit 1
      )
    )
  end as reason,
  p.created_at,
  (
    select k.name
    from public.device_links as l
    join public.device_integrations as n on n.id = l.integration_id and n.status <> 'disabled'
    join public.profiles as k on k.integration_id = l.integration_id and k.external_id = p.profile_id
    where l.device_id = p.device_id and l.left_at is null
    order by (n.status = 'active') desc, n.id
    limit 1
  ) as profile_name
from public.profile_installs as p
left join public.schedules as i on i.id = p.install_schedule_id
join public.devices as d on d.id = p.device_id
left join public.schedules as r on r.id = p.remove_schedule_id
where p.duration is not null;

comment on view public.temporary_profiles is 'Every profile that was installed for a time, with both of its schedules.';
comment on column public.temporary_profiles.install_id is 'What extend_profile and end_profile take.';
comment on column public.temporary_profiles.install_schedule_id is
  'The push_profile schedule; null where it was cancelled before anything came of it.';
comment on column public.temporary_profiles.remove_schedule_id is
  'The remove_profile schedule; null where it was cancelled before anything came of it, or deleted.';
comment on column public.temporary_profiles.profile_id is 'The MDM''s id of the profile.';
comment on column public.temporary_profiles.hostname is 'The device.';
comment on column public.temporary_profiles.install_time is 'When the push was due.';
comment on column public.temporary_profiles.installed_at is 'When the MDM took the push.';
comment on column public.temporary_profiles.scheduled_removal_time is 'When the removal is, or was, due.';
comment on column public.temporary_profiles.removed_at is 'When the MDM took the removal.';
comment on column public.temporary_profiles.duration is 'How long the profile is to stay.';
comment on column public.temporary_profiles.duration_minutes is 'The same in minutes.';
comment on column public.temporary_profiles.state is
  'waiting, installed, removing, removed, never installed, removal cancelled, removal failed or removal deleted.';
comment on column public.temporary_profiles.reason is 'Why it was never installed, or is not removed; empty where all goes well.';
comment on column public.temporary_profiles.profile_name is 'What the MDM of the device calls the profile; null where that is not known.';

drop view if exists public.profile_list;
create view public.profile_list with (security_invoker = true) as
select
  p.id,
  p.owner_id,
  p.external_id as profile_id,
  p.name,
  p.kind,
  p.status,
  i.name as integration,
  p.integration_id,
  p.error_message,
  p.is_managed,
  p.options,
  p.content_sha256,
  p.payload_identifier,
  (
    select string_agg(o.name, ', ' order by o.name)
    from public.profiles as o
    where o.integration_id = p.integration_id and o.payload_identifier = p.payload_identifier and o.id <> p.id
  ) as replaces,
  p.uploaded_at,
  p.seen_at,
  p.created_at
from public.profiles as p
join public.device_integrations as i on i.id = p.integration_id;

comment on view public.profile_list is
  'Profiles that the MDMs have, or are to have.';
comment on column public.profile_list.profile_id is 'The MDM''s id of the profile; null while it is not there.';
comment on column public.profile_list.integration is 'The name of the MDM.';
comment on column public.profile_list.replaces is
  'Other profiles of this MDM with the same PayloadIdentifier: on a device one takes the place of the other; null where there is none.';
select fleet.inherit_comments('public.profile_list', 'public.profiles');
revoke all on table public.profile_list from public, anon, authenticated, service_role;
grant select on table public.profile_list to authenticated, service_role;
