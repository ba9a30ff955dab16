-- The audit log as people list it.

drop view if exists public.audit_list;
create view public.audit_list with (security_invoker = true) as
select
  a.id, a.owner_id, a.at, coalesce(a.actor_label, a.actor::text, a.actor_role) as who, a.action, a.table_name, a.row_id, a.old,
  a.new, a.actor, a.actor_role, a.actor_label
from public.audit_log as a;

comment on view public.audit_list is
  'Who changed what, from what to what.';
comment on column public.audit_list.who is 'The best name of who did it: the label, else the user, else the role.';
select fleet.inherit_comments('public.audit_list', 'public.audit_log');
revoke all on table public.audit_list from public, anon, authenticated, service_role;
grant select on table public.audit_list to authenticated, service_role;
