-- Blocklists as people list them.

drop view if exists public.blocklist_list;
create view public.blocklist_list with (security_invoker = true) as
select b.id, b.owner_id, o.name as owner, b.kind, b.pattern, g.name as group_name, b.note, b.created_at, b.group_id
from public.blocklist_entries as b
join public.owners as o on o.id = b.owner_id
left join public.device_groups as g on g.id = b.group_id;

comment on view public.blocklist_list is 'What devices are to block.';
comment on column public.blocklist_list.owner is 'The name of the owner.';
comment on column public.blocklist_list.group_name is 'For which group; for all devices where there is none.';
select fleet.inherit_comments('public.blocklist_list', 'public.blocklist_entries');
revoke all on table public.blocklist_list from public, anon, authenticated, service_role;
grant select on table public.blocklist_list to authenticated, service_role;
