-- Packages, files and deployments as people list them.

drop view if exists public.file_list;
create view public.file_list with (security_invoker = true) as
select
  f.id, f.owner_id, f.name, f.size_bytes, f.sha256, f.storage_path, f.description,
  (select count(*) from public.software_packages as p where p.file_id = f.id) as packages,
  f.created_by, f.created_at
from public.deployment_files as f;

comment on view public.file_list is 'Files that can be sent to devices.';
comment on column public.file_list.packages is 'How many packages have it as their installer.';
select fleet.inherit_comments('public.file_list', 'public.deployment_files');
revoke all on table public.file_list from public, anon, authenticated, service_role;
grant select on table public.file_list to authenticated, service_role;

drop view if exists public.package_list;
create view public.package_list with (security_invoker = true) as
select
  p.id, p.owner_id, p.name, p.version, p.platform, p.description, p.file_id, f.name as file, p.install_command, p.uninstall_command,
  p.detection, p.dependencies, p.timeout_seconds, p.created_by, p.created_at, p.updated_at
from public.software_packages as p
left join public.deployment_files as f on f.id = p.file_id;

comment on view public.package_list is 'Software that can be installed, with the name of its installer.';
comment on column public.package_list.file is 'The name of the installer.';
select fleet.inherit_comments('public.package_list', 'public.software_packages');
revoke all on table public.package_list from public, anon, authenticated, service_role;
grant select on table public.package_list to authenticated, service_role;

drop view if exists public.deployment_list;
create view public.deployment_list with (security_invoker = true) as
select
  d.id, d.owner_id, d.name, d.kind, d.schedule_id, d.run_id, d.command_id,
  case
    when t.total = 0 or t.open > 0 then 'running'
    when t.failed > 0 then 'failed'
    when t.rolled_back > 0 then 'rolled_back'
    else 'completed'
  end as status,
  t.total, t.open, t.succeeded, t.failed, t.skipped, t.rolled_back, t.percent,
  d.manifest, d.created_at, t.finished_at
from public.deployments as d
cross join lateral (
  select count(*) as total,
    count(*) filter (where x.state in ('pending', 'downloading', 'verifying', 'installing')) as open,
    count(*) filter (where x.state = 'succeeded') as succeeded,
    count(*) filter (where x.state = 'failed') as failed,
    count(*) filter (where x.state = 'skipped') as skipped,
    count(*) filter (where x.state = 'rolled_back') as rolled_back,
    round(avg(case when x.finished_at is not null then 100 else coalesce(x.percent, 0) end), 1) as percent,
    max(x.finished_at) as finished_at
  from public.deployment_targets as x
  where x.deployment_id = d.id
) as t;

comment on view public.deployment_list is 'Deployments with how many devices are in which state.';
comment on column public.deployment_list.status is 'running, completed, failed (on some device), or rolled_back.';
comment on column public.deployment_list.total is 'How many devices it is for, as far as their commands are made.';
comment on column public.deployment_list.open is 'On how many it is under way or still to come.';
comment on column public.deployment_list.succeeded is 'On how many it is in place.';
comment on column public.deployment_list.failed is 'On how many it failed.';
comment on column public.deployment_list.skipped is 'How many did not need it, or were left out.';
comment on column public.deployment_list.rolled_back is 'From how many it was taken back.';
comment on column public.deployment_list.percent is 'How much of all of it is done.';
comment on column public.deployment_list.finished_at is 'When the last device came to its end.';
select fleet.inherit_comments('public.deployment_list', 'public.deployments');
revoke all on table public.deployment_list from public, anon, authenticated, service_role;
grant select on table public.deployment_list to authenticated, service_role;

drop view if exists public.deployment_target_list;
create view public.deployment_target_list with (security_invoker = true) as
select
  t.deployment_id, d.name as deployment, t.owner_id, t.device_id, t.device_hostname, t.command_id, t.state, t.percent, t.bytes_done,
  t.bytes_total, t.reason, t.error_message, t.started_at, t.finished_at, t.updated_at
from public.deployment_targets as t
join public.deployments as d on d.id = t.deployment_id;

comment on view public.deployment_target_list is 'How far each deployment got on each device.';
comment on column public.deployment_target_list.deployment is 'The name of the deployment.';
select fleet.inherit_comments('public.deployment_target_list', 'public.deployment_targets');
revoke all on table public.deployment_target_list from public, anon, authenticated, service_role;
grant select on table public.deployment_target_list to authenticated, service_role;
