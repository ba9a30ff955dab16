-- Telemetry as people and devices list it, where it is in this database. These two act with the rights of their owner: the tables of
-- telemetry have no row security, so that they can be anywhere, and nobody has a right on them; the views say who sees what.

drop view if exists public.device_telemetry_history;
create view public.device_telemetry_history with (security_barrier = true) as
select p.device_id, p.owner_id, p.at as recorded_at, p.received_at as created_at, p.source, p.stream, p.path, p.is_provisional, p.data
from telemetry.points as p
where (select fleet.is_trusted_caller())
  or p.owner_id = any (array(select fleet.my_owners()))
  or p.device_id = (select fleet.current_device_id());

comment on view public.device_telemetry_history is
  'Telemetry points: people see those of their fleets, a device its own. Ask with recorded_at and device_id: one day is one partition.';
comment on column public.device_telemetry_history.recorded_at is 'When the device measured it, or when its cloud took it.';
comment on column public.device_telemetry_history.source is 'pull, push, import or agent: the way on which it came first.';
comment on column public.device_telemetry_history.stream is 'Which series of the device it is.';
comment on column public.device_telemetry_history.path is 'On which path the device sent it, where that was told.';
comment on column public.device_telemetry_history.is_provisional is
  'Whether it was pushed without a time of its own, and the pull has not confirmed it yet.';
comment on column public.device_telemetry_history.data is 'What was measured.';
revoke all on table public.device_telemetry_history from public, anon, authenticated, service_role;
grant select on table public.device_telemetry_history to authenticated, service_role;

drop view if exists public.device_telemetry_latest;
create view public.device_telemetry_latest with (security_barrier = true) as
select l.device_id, l.owner_id, l.stream, l.at as recorded_at, l.received_at as created_at, l.source, l.data
from telemetry.latest as l
where (select fleet.is_trusted_caller())
  or l.owner_id = any (array(select fleet.my_owners()))
  or l.device_id = (select fleet.current_device_id());

comment on view public.device_telemetry_latest is
  'The latest point of each device and stream: people see those of their fleets, a device its own.';
comment on column public.device_telemetry_latest.recorded_at is 'When the device measured it.';
comment on column public.device_telemetry_latest.source is 'On which way it came.';
comment on column public.device_telemetry_latest.stream is 'Which series of the device it is.';
comment on column public.device_telemetry_latest.data is 'What was measured.';
revoke all on table public.device_telemetry_latest from public, anon, authenticated, service_role;
grant select on table public.device_telemetry_latest to authenticated, service_role;

drop view if exists public.telemetry_rule_list;
create view public.telemetry_rule_list with (security_invoker = true) as
select
  r.id, r.owner_id, o.name as owner, r.name, r.condition, r.clear_at, r.cooldown, g.name as group_name, r.selector, r.action,
  r.action_type, r.payload, r.priority, r.is_enabled, fleet.rule_met_for(r.id) as met_for, r.last_acted_at, r.last_error, r.created_at
from public.telemetry_rules as r
join public.owners as o on o.id = r.owner_id
left join public.device_groups as g on g.id = r.group_id;

comment on view public.telemetry_rule_list is 'Rules on telemetry, with how they stand.';
comment on column public.telemetry_rule_list.owner is 'The name of the owner.';
comment on column public.telemetry_rule_list.group_name is 'The name of the group whose devices it is about; null for all.';
comment on column public.telemetry_rule_list.met_for is 'For how many devices it is met at present.';
select fleet.inherit_comments('public.telemetry_rule_list', 'public.telemetry_rules');
revoke all on table public.telemetry_rule_list from public, anon, authenticated, service_role;
grant select on table public.telemetry_rule_list to authenticated, service_role;
