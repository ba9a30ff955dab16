-- Locations, who is there, and what follows, as people list them.

drop view if exists public.location_list;
create view public.location_list with (security_invoker = true) as
select
  l.id,
  l.owner_id,
  o.name as owner,
  l.name,
  l.kind,
  l.latitude,
  l.longitude,
  l.radius_m,
  l.polygon,
  jsonb_array_length(l.polygon) as corners,
  l.hysteresis_m,
  l.min_dwell,
  (select count(*) from public.device_places as p where p.location_id = l.id and p.is_inside) as inside,
  array(
    select d.hostname
    from public.device_places as p
    join public.devices as d on d.id = p.device_id
    where p.location_id = l.id and p.is_inside
    order by d.hostname
  ) as hostnames_inside,
  (select count(*) from public.location_policies as q where q.location_id = l.id) as policies,
  l.created_at,
  l.updated_at
from public.locations as l
join public.owners as o on o.id = l.owner_id;

comment on view public.location_list is
  'Locations with who is inside.';
comment on column public.location_list.owner is 'The name of the owner.';
comment on column public.location_list.corners is 'How many corners a polygon has.';
comment on column public.location_list.inside is 'How many devices are inside.';
comment on column public.location_list.hostnames_inside is 'Host names of the devices that are inside.';
comment on column public.location_list.policies is 'How many policies it has.';
select fleet.inherit_comments('public.location_list', 'public.locations');
revoke all on table public.location_list from public, anon, authenticated, service_role;
grant select on table public.location_list to authenticated, service_role;

drop view if exists public.location_policy_list;
create view public.location_policy_list with (security_invoker = true) as
select
  q.id,
  q.owner_id,
  q.name,
  q.location_id,
  l.name as location,
  q.event,
  q.action_type,
  q.payload,
  q.group_id,
  g.name as group_name,
  q.selector,
  q.priority,
  q.is_enabled,
  (select count(*) from public.location_actions as a where a.policy_id = q.id) as acted,
  (
    select a.error_message from public.location_actions as a where a.policy_id = q.id order by a.event_id desc limit 1
  ) as last_error,
  q.created_at
from public.location_policies as q
left join public.locations as l on l.id = q.location_id
left join public.device_groups as g on g.id = q.group_id;

comment on view public.location_policy_list is
  'Policies of locations with how often each has acted.';
comment on column public.location_policy_list.location is 'The name of the location.';
comment on column public.location_policy_list.group_name is 'The name of the group.';
comment on column public.location_policy_list.acted is 'How often it has acted.';
comment on column public.location_policy_list.last_error is 'Why it failed to act the last time, if it did.';
select fleet.inherit_comments('public.location_policy_list', 'public.location_policies');
revoke all on table public.location_policy_list from public, anon, authenticated, service_role;
grant select on table public.location_policy_list to authenticated, service_role;

drop view if exists public.device_location_list;
create view public.device_location_list with (security_invoker = true) as
select
  d.id,
  d.owner_id,
  o.name as owner,
  d.hostname,
  d.latitude,
  d.longitude,
  d.accuracy_m,
  d.located_at,
  case
    when d.located_at is null then 'never reported'
    when p.lost_at is not null then 'unknown since ' || p.lost_at
    else 'known'
  end as position,
  array(
    select l.name
    from public.device_places as x
    join public.locations as l on l.id = x.location_id
    where x.device_id = d.id and x.is_inside
    order by l.name
  ) as inside,
  p.is_outside_all as outside_all
from public.devices as d
join public.owners as o on o.id = d.owner_id
left join public.device_positions as p on p.device_id = d.id;

comment on view public.device_location_list is
  'Where each device is.';
comment on column public.device_location_list.owner is 'The name of the owner.';
comment on column public.device_location_list.position is 'known, never reported, or since when it is unknown.';
comment on column public.device_location_list.inside is 'Names of the locations in which it is.';
comment on column public.device_location_list.outside_all is 'Whether it is outside of all; null while that is not known.';
select fleet.inherit_comments('public.device_location_list', 'public.devices');
revoke all on table public.device_location_list from public, anon, authenticated, service_role;
grant select on table public.device_location_list to authenticated, service_role;
