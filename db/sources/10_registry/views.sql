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
  o.created_at
from public.owners as o;

comment on view public.owner_list is
  'Owners with what each has.';
comment on column public.owner_list.devices is 'How many devices it has, retired ones among them.';
comment on column public.owner_list.schedules is 'How many schedules, of every status.';
comment on column public.owner_list.members is 'How many people.';
revoke all on table public.owner_list from public, anon, authenticated, service_role;
grant select on table public.owner_list to authenticated, service_role;

drop view if exists public.device_list;
create view public.device_list with (security_invoker = true) as
select
  d.id,
  d.owner_id,
  o.name as owner,
  d.hostname,
  d.status,
  d.platform,
  d.timezone,
  d.tags,
  d.attributes,
  d.last_seen,
  d.enrolled_at,
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
left join public.devices as d on d.id = c.device_id;

comment on view public.enrollment_code_list is
  'Enrolment codes with how they are; the codes themselves are not kept.';
comment on column public.enrollment_code_list.state is 'good, used up, expired or revoked.';
comment on column public.enrollment_code_list.only_for is 'The host name of the only device that may use it.';
select fleet.inherit_comments('public.enrollment_code_list', 'public.enrollment_codes');
revoke all on table public.enrollment_code_list from public, anon, authenticated, service_role;
grant select on table public.enrollment_code_list to authenticated, service_role;
