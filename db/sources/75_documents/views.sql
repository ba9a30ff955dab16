-- Templates as people list them.

drop view if exists public.template_list;
create view public.template_list with (security_invoker = true) as
select
  t.id,
  t.owner_id,
  o.name as owner,
  t.name,
  t.version,
  not exists (
    select
    from public.schedule_templates as n
    where n.owner_id = t.owner_id and lower(n.name) = lower(t.name) and n.version > t.version
  ) as is_latest,
  t.description,
  t.spec,
  t.parameters,
  array(select k.name from jsonb_object_keys(t.parameters) as k(name) order by k.name) as parameter_names,
  t.created_at
from public.schedule_templates as t
join public.owners as o on o.id = t.owner_id;

comment on view public.template_list is
  'Templates in all their versions.';
comment on column public.template_list.owner is 'The name of the owner.';
comment on column public.template_list.is_latest is 'Whether there is no newer version.';
comment on column public.template_list.parameter_names is 'Names of the parameters.';
select fleet.inherit_comments('public.template_list', 'public.schedule_templates');
revoke all on table public.template_list from public, anon, authenticated, service_role;
grant select on table public.template_list to authenticated, service_role;
