-- What holds for packages and files however a row is written, and what makes and moves the targets of a deployment.

create or replace trigger deployment_files_01_fill_owner
  before insert on public.deployment_files
  for each row execute function fleet.tg_owner_from_caller();
create or replace trigger software_packages_01_fill_owner
  before insert on public.software_packages
  for each row execute function fleet.tg_owner_from_caller();

create or replace function fleet.tg_prepare_file()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  new.created_by := fleet.current_user_id();
  perform fleet.require_permission(new.owner_id, 'manage', format('owner %s', new.owner_id));
  perform fleet.raise_problems('the file', 'file_invalid', array(
    select ('name', 'is not one plain name', 'Write a name without a folder, like "app.conf".')::fleet.problem
    where coalesce(new.name, '') ~ '[/\\:*?"<>|]' or fleet.has_unseen(new.name) or coalesce(new.name, '') ~ '^[. -]|[. ]$|^$'
    union all
    select q from fleet.path_problems('name', '/' || new.name) as q where new.name !~ '[/\\]' and not fleet.has_unseen(new.name)
    union all
    select ('size_bytes', 'is not a number of bytes from 0 to 53687091200', 'At most 50 GiB are taken.')::fleet.problem
    where (new.size_bytes between 0 and 53687091200) is not true
    union all
    select ('sha256', 'is not 64 hexadecimal digits in lower case', 'Take the answer of: sha256sum FILE')::fleet.problem
    where (new.sha256 ~ '^[0-9a-f]{64}$') is not true
    union all
    -- A name that Windows keeps for itself is none anywhere: the same file may go to every platform.
    select q from fleet.path_problems('name', 'C:\' || new.name) as q
    where new.name !~ '[/\\:*?"<>|]|^[. -]|[. ]$' and not fleet.has_unseen(new.name) and length(new.name) <= 255
  ));
  return new;
end;
$$;

comment on function fleet.tg_prepare_file() is
  'Refuse names that would be more than a name on some device. Definer: it checks the caller, and whoever writes the table may not call it.';
revoke all on function fleet.tg_prepare_file() from public, anon, authenticated, service_role;

create or replace trigger deployment_files_02_prepare
  before insert or update of name on public.deployment_files
  for each row execute function fleet.tg_prepare_file();

create or replace function fleet.tg_prepare_package()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'INSERT' then
    new.created_by := fleet.current_user_id();
  end if;
  new.updated_at := now();
  new.dependencies := array(select distinct u.id from unnest(new.dependencies) as u(id) where u.id is not null order by u.id);
  perform fleet.require_permission(new.owner_id, 'manage', format('owner %s', new.owner_id));
  perform fleet.raise_problems('the package', 'package_invalid', array(select q from fleet.package_problems(new) as q));
  return new;
end;
$$;

comment on function fleet.tg_prepare_package() is
  'Check a package however it is written. Definer: it checks the caller, then sees what the checks need to see.';
revoke all on function fleet.tg_prepare_package() from public, anon, authenticated, service_role;

create or replace trigger software_packages_02_prepare
  before insert or update of name, version, platform, file_id, install_command, uninstall_command, detection, dependencies,
    timeout_seconds
  on public.software_packages
  for each row execute function fleet.tg_prepare_package();

create or replace function fleet.tg_check_dependencies()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Two sessions that each let one package need the other would not see the circle they make.
  perform pg_advisory_xact_lock(hashtext('pgfleet.packages'), hashtext(new.owner_id::text));
  if fleet.packages_in_order(new.owner_id, array[new.id]) is null then
    raise exception 'the package is not valid: dependencies: need the package itself in the end, or go deeper than 50 levels'
      using errcode = 'PT422', detail = 'package_invalid', hint = 'Take the last one out that was added.';
  end if;
  return null;
end;
$$;

comment on function fleet.tg_check_dependencies() is
  'Refuse packages that need themselves. Definer: whoever may write the table may not call what it checks with.';
revoke all on function fleet.tg_check_dependencies() from public, anon, authenticated, service_role;

create or replace trigger software_packages_03_check_dependencies
  after insert or update of dependencies on public.software_packages
  for each row when (new.dependencies <> '{}') execute function fleet.tg_check_dependencies();

create or replace function fleet.tg_keep_used_artifact()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_names text := fleet.deploy_schedules_with(old.owner_id, tg_argv[0], old.id);
begin
  if tg_argv[0] = 'software_ids' and v_names is null then
    select string_agg(format('package "%s"', p.name), ', ' order by p.name) into v_names
    from public.software_packages as p
    where p.owner_id = old.owner_id and old.id = any (p.dependencies);
  elsif v_names is null then
    select string_agg(format('package "%s"', p.name), ', ' order by p.name) into v_names
    from public.software_packages as p
    where p.owner_id = old.owner_id and p.file_id = old.id;
  end if;
  -- With its owner everything goes.
  if v_names is not null and exists (select 1 from public.owners as o where o.id = old.owner_id) then
    raise exception '"%" is used by %', old.name, v_names
      using errcode = 'PT409', detail = 'artifact_in_use', hint = 'Change or cancel these first.';
  end if;
  return old;
end;
$$;

comment on function fleet.tg_keep_used_artifact() is
  'Keep files and packages that schedules or packages rely on. Definer: it looks at all schedules of the owner.';
revoke all on function fleet.tg_keep_used_artifact() from public, anon, authenticated, service_role;

create or replace trigger deployment_files_04_keep_used
  before delete on public.deployment_files
  for each row execute function fleet.tg_keep_used_artifact('file_ids');
create or replace trigger software_packages_04_keep_used
  before delete on public.software_packages
  for each row execute function fleet.tg_keep_used_artifact('software_ids');

create or replace function fleet.tg_wait_for_deployment()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'UPDATE' and old.not_before < fleet.held_until() then
    return new;
  end if;
  -- One at a time on a device, whatever schedules they are of. What a rollout holds is waited for by nobody: it may be held for weeks,
  -- and takes its place when it has its turn.
  new.waits_for := (
    select c.id
    from public.device_commands as c
    where c.device_id = new.device_id
      and c.status in ('pending', 'running')
      and c.command_type in ('deploy_software', 'deploy_files')
      and c.not_before < fleet.held_until()
      and c.id <> new.id
    order by c.created_at desc, c.id desc
    limit 1
  );
  return new;
end;
$$;

comment on function fleet.tg_wait_for_deployment() is
  'Let a deployment wait for the one before it on its device. Definer: whoever may send may not see all commands.';
revoke all on function fleet.tg_wait_for_deployment() from public, anon, authenticated, service_role;

create or replace trigger device_commands_01_wait_for_deployment
  before insert on public.device_commands
  for each row when (
    new.command_type in ('deploy_software', 'deploy_files') and new.waits_for is null and (new.wave is null or new.step > 0)
  )
  execute function fleet.tg_wait_for_deployment();
create or replace trigger device_commands_01_wait_when_released
  before update of not_before on public.device_commands
  for each row when (
    new.command_type in ('deploy_software', 'deploy_files') and new.waits_for is null and new.wave is not null and new.step = 0
  )
  execute function fleet.tg_wait_for_deployment();

create or replace function fleet.tg_delete_targets()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from public.deployments as d using old_rows as o where d.command_id = o.id;
  delete from public.deployment_targets as t using old_rows as o where t.command_id = o.id;
  return null;
end;
$$;

comment on function fleet.tg_delete_targets() is 'Targets go with their commands. Definer: nobody writes them.';
revoke all on function fleet.tg_delete_targets() from public, anon, authenticated, service_role;

create or replace trigger device_commands_07_delete_targets
  after delete on public.device_commands
  referencing old table as old_rows
  for each statement execute function fleet.tg_delete_targets();

select fleet.keep_audit('public.deployment_files');
select fleet.keep_audit('public.software_packages', p_without => '{created_at,updated_at}');
