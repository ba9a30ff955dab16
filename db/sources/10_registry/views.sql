-- The registry as people list it.

drop view if exists public.owner_list;
create view public.owner_list with (security_invoker = true) as
select
  o.id,
  o.id as owner_id,
  o.name,
  (select count(*) from public.devices as d where d.owner_id = o.id) as devices,
  (select count(*) from public.schedules as s where s.owner_id = o.id) as schedules,
  (select count(*) from public.owner_members as m where m.owner_id = o.id) as members,
  o.timezone,
  o.is_personal,
  fleet.is_default_owner(o.id) as is_default,
  o.created_at
from public.owners as o;

comment on view public.owner_list is
  'Owners with what each has.';
comment on column public.owner_list.devices is 'How many devices it has, retired ones among them.';
comment on column public.owner_list.schedules is 'How many schedules, of every status.';
comment on column public.owner_list.members is 'How many people.';
comment on column public.owner_list.is_default is
  'Whether it is meant where nothing that is named says which: the only one that you are a member of, else your personal one; in the SQL editor '
  'the one in the setting default_owner.';
select fleet.inherit_comments('public.owner_list', 'public.owners');
revoke all on table public.owner_list from public, anon, authenticated, service_role;
grant select on table public.owner_list to authenticated, service_role;

drop view if exists public.owner_member_list;
create view public.owner_member_list with (security_invoker = true) as
select
  m.owner_id,
  o.name as owner,
  m.user_id,
  m.email,
  m.permissions,
  m.created_at
from public.owner_members as m
join public.owners as o on o.id = m.owner_id;

comment on view public.owner_member_list is
  'The people of each owner, and what they may do there.';
comment on column public.owner_member_list.owner is 'The name of the owner.';
select fleet.inherit_comments('public.owner_member_list', 'public.owner_members');
revoke all on table public.owner_member_list from public, anon, authenticated, service_role;
grant select on table public.owner_member_list to authenticated, service_role;

drop view if exists public.owner_invitation_list;
create view public.owner_invitation_list with (security_invoker = true) as
select
  i.id,
  i.owner_id,
  o.name as owner,
  case
    when i.accepted_at is not null then 'accepted'
    when i.revoked_at is not null then 'withdrawn'
    when i.expires_at <= now() then 'expired'
    else 'open'
  end as state,
  i.email,
  i.permissions,
  i.expires_at,
  i.accepted_at,
  i.accepted_by,
  i.created_by,
  i.created_at
from public.owner_invitations as i
join public.owners as o on o.id = i.owner_id;

comment on view public.owner_invitation_list is
  'Invitations with how they are, for admins; the codes themselves are not kept.';
comment on column public.owner_invitation_list.owner is 'The name of the owner.';
comment on column public.owner_invitation_list.state is 'open, accepted, withdrawn or expired.';
select fleet.inherit_comments('public.owner_invitation_list', 'public.owner_invitations');
revoke all on table public.owner_invitation_list from public, anon, authenticated, service_role;
grant select on table public.owner_invitation_list to authenticated, service_role;

drop view if exists public.device_list;
create view public.device_list with (security_invoker = true) as
select
  d.id,
  d.owner_id,
  o.name as owner,
  d.hostname,
  d.status,
  coalesce(d.platform, d.reported ->> 'platform') as platform,
  d.timezone,
  d.tags,
  d.attributes,
  d.reported,
  d.prepared,
  d.last_seen,
  d.enrolled_at,
  d.clone_seen_at,
  d.latitude,
  d.longitude,
  d.accuracy_m,
  d.located_at,
  d.auth_id,
  'device:' || d.auth_id as topic,
  array(
    select g.name
    from public.device_group_members as m
    join public.device_groups as g on g.id = m.group_id
    where m.device_id = d.id
    order by g.name
  ) as groups,
  (select count(*) from public.device_commands as c where c.device_id = d.id and c.status = 'pending') as pending,
  (
    select coalesce(jsonb_object_agg(s.status, s.count), '{}')
    from (
      select c.status, count(*) from public.device_commands as c where c.device_id = d.id group by c.status
    ) as s
  ) as commands,
  d.created_at,
  d.updated_at
from public.devices as d
join public.owners as o on o.id = d.owner_id;

comment on view public.device_list is
  'Devices with what is known of them and what waits for them.';
comment on column public.device_list.owner is 'The name of the owner.';
comment on column public.device_list.platform is 'What people or another system say; where they say nothing, what it reports.';
comment on column public.device_list.topic is 'The Realtime topic on which its doorbell rings.';
comment on column public.device_list.groups is 'Names of the groups that list it; those that select it are not among them.';
comment on column public.device_list.pending is 'How many commands wait for it.';
comment on column public.device_list.commands is 'How many commands it has had, by status.';
select fleet.inherit_comments('public.device_list', 'public.devices');
revoke all on table public.device_list from public, anon, authenticated, service_role;
grant select on table public.device_list to authenticated, service_role;

drop view if exists public.group_list;
create view public.group_list with (security_invoker = true) as
select
  g.id,
  g.owner_id,
  o.name as owner,
  g.name,
  g.description,
  case when g.selector is null then 'static' else 'dynamic' end as kind,
  g.selector,
  (select count(*) from public.group_devices(g.id)) as devices,
  g.created_at,
  g.updated_at
from public.device_groups as g
join public.owners as o on o.id = g.owner_id;

comment on view public.group_list is
  'Groups with how many devices each has at this moment.';
comment on column public.group_list.owner is 'The name of the owner.';
comment on column public.group_list.kind is
  'static (its members are listed) or dynamic (a selector finds them, beside those that are listed).';
comment on column public.group_list.devices is 'How many active devices it has now.';
select fleet.inherit_comments('public.group_list', 'public.device_groups');
revoke all on table public.group_list from public, anon, authenticated, service_role;
grant select on table public.group_list to authenticated, service_role;

drop view if exists public.enrollment_code_list;
create view public.enrollment_code_list with (security_invoker = true) as
select
  c.id,
  c.owner_id,
  o.name as owner,
  case
    when c.revoked_at is not null then 'revoked'
    when c.used_count >= c.max_uses then 'used up'
    when c.expires_at <= now() then 'expired'
    else 'good'
  end as state,
  c.used_count,
  c.max_uses,
  c.device_id,
  d.hostname as only_for,
  c.tags,
  c.group_ids,
  c.expires_at,
  c.created_at
from public.enrollment_codes as c
join public.owners as o on o.id = c.owner_id
left join public.devices as d on d.id = c.device_id;

comment on view public.enrollment_code_list is
  'Enrolment codes with how they are; the codes themselves are not kept.';
comment on column public.enrollment_code_list.owner is 'The name of the owner.';
comment on column public.enrollment_code_list.state is 'good, used up, expired or revoked.';
comment on column public.enrollment_code_list.only_for is 'The host name of the only device that may use it.';
select fleet.inherit_comments('public.enrollment_code_list', 'public.enrollment_codes');
revoke all on table public.enrollment_code_list from public, anon, authenticated, service_role;
grant select on table public.enrollment_code_list to authenticated, service_role;

drop view if exists public.request_list;
create view public.request_list with (security_invoker = true) as
select
  r.day, r.owner_id, o.name as owner, count(*) as devices, sum(r.claims) as claims, sum(r.looks) as looks, sum(r.tokens) as tokens,
  sum(r.checkins) as checkins, sum(r.sockets) as sockets,
  sum(r.claims + r.looks + r.tokens + r.checkins + r.sockets) as requests,
  round(sum(r.claims + r.looks + r.tokens + r.checkins + r.sockets)::numeric / count(*), 1) as a_device,
  count(*) * 144 as by_polling,
  count(*) * 1440 as by_polling_every_minute,
  round(100 - 100.0 * sum(r.claims + r.looks + r.tokens + r.checkins + r.sockets) / (count(*) * 144)) as percent_saved
from public.device_requests as r
join public.owners as o on o.id = r.owner_id
group by r.day, r.owner_id, o.name;

comment on view public.request_list is
  'How many requests the devices of each owner made on a day, and how many it would have been had each polled every ten minutes.';
comment on column public.request_list.owner is 'The name of the owner.';
comment on column public.request_list.devices is 'How many devices asked for anything.';
comment on column public.request_list.requests is 'All of them.';
comment on column public.request_list.a_device is 'How many a device made, on average.';
comment on column public.request_list.by_polling is 'How many it would be if each device polled every ten minutes: 144 a day.';
comment on column public.request_list.by_polling_every_minute is 'How many it would be if each device polled every minute: 1,440 a day.';
comment on column public.request_list.percent_saved is 'How many percent fewer requests it is than by polling every ten minutes.';
select fleet.inherit_comments('public.request_list', 'public.device_requests');
revoke all on table public.request_list from public, anon, authenticated, service_role;
grant select on table public.request_list to authenticated, service_role;

drop view if exists public.device_health_list;
create view public.device_health_list with (security_invoker = true) as
select
  d.id as device_id, d.owner_id, d.hostname, d.last_seen,
  fleet.number_or_null(h.health -> 'battery_percent') as battery_percent,
  case jsonb_typeof(h.health -> 'is_charging') when 'boolean' then (h.health -> 'is_charging')::boolean end as is_charging,
  fleet.number_or_null(h.health -> 'disk_total_bytes') as disk_total_bytes,
  fleet.number_or_null(h.health -> 'disk_free_bytes') as disk_free_bytes,
  case jsonb_typeof(h.health -> 'os') when 'string' then h.health ->> 'os' end as os,
  case jsonb_typeof(h.health -> 'booted_at') when 'string' then h.health ->> 'booted_at' end as booted_at
from public.devices as d
cross join lateral (select d.reported -> 'health' as health) as h
where d.status = 'active' and jsonb_typeof(h.health) = 'object';

comment on view public.device_health_list is 'How devices are, as they said at their last check-in.';
comment on column public.device_health_list.battery_percent is 'How full its battery is; null where it has none.';
comment on column public.device_health_list.is_charging is 'Whether it is on a charger.';
comment on column public.device_health_list.disk_total_bytes is 'How large the disk of its system is.';
comment on column public.device_health_list.disk_free_bytes is 'How much of it is free.';
comment on column public.device_health_list.os is 'Its operating system, with the version.';
comment on column public.device_health_list.booted_at is 'When it was started, by its own clock.';
select fleet.inherit_comments('public.device_health_list', 'public.devices');
revoke all on table public.device_health_list from public, anon, authenticated, service_role;
grant select on table public.device_health_list to authenticated, service_role;
