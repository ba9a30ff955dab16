-- Who sees and changes packages, files and deployments: the people of the owner. A device reads its manifest by a function, and from the
-- bucket what is on its way to it.

revoke all on table public.deployment_files, public.software_packages, public.deployments, public.deployment_targets
  from public, anon, authenticated, service_role;
revoke all on sequence public.deployment_files_id_seq, public.software_packages_id_seq, public.deployments_id_seq
  from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.deployment_files, public.software_packages to service_role;
-- What is sent and how far it got is written by triggers alone.
grant select on table public.deployments, public.deployment_targets to service_role;
grant usage, select on sequence public.deployment_files_id_seq, public.software_packages_id_seq to service_role;

drop policy if exists deployment_files_all_service_role on public.deployment_files;
create policy deployment_files_all_service_role on public.deployment_files for all to service_role using (true) with check (true);
drop policy if exists software_packages_all_service_role on public.software_packages;
create policy software_packages_all_service_role on public.software_packages for all to service_role using (true) with check (true);
drop policy if exists deployments_select_service_role on public.deployments;
create policy deployments_select_service_role on public.deployments for select to service_role using (true);
drop policy if exists deployment_targets_select_service_role on public.deployment_targets;
create policy deployment_targets_select_service_role on public.deployment_targets for select to service_role using (true);

grant select, delete on table public.deployment_files, public.software_packages to authenticated;
grant insert (owner_id, name, size_bytes, sha256, description), update (description) on table public.deployment_files to authenticated;
grant insert (
    owner_id, name, version, platform, description, file_id, install_command, uninstall_command, detection, dependencies, timeout_seconds
  ),
  update (
    name, version, platform, description, file_id, install_command, uninstall_command, detection, dependencies, timeout_seconds
  )
  on table public.software_packages to authenticated;
grant select on table public.deployments, public.deployment_targets to authenticated;

drop policy if exists deployment_files_select_member on public.deployment_files;
create policy deployment_files_select_member on public.deployment_files
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists deployment_files_insert_manager on public.deployment_files;
create policy deployment_files_insert_manager on public.deployment_files
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists deployment_files_update_manager on public.deployment_files;
create policy deployment_files_update_manager on public.deployment_files
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists deployment_files_delete_manager on public.deployment_files;
create policy deployment_files_delete_manager on public.deployment_files
  for delete to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists software_packages_select_member on public.software_packages;
create policy software_packages_select_member on public.software_packages
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists software_packages_insert_manager on public.software_packages;
create policy software_packages_insert_manager on public.software_packages
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists software_packages_update_manager on public.software_packages;
create policy software_packages_update_manager on public.software_packages
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists software_packages_delete_manager on public.software_packages;
create policy software_packages_delete_manager on public.software_packages
  for delete to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists deployments_select_member on public.deployments;
create policy deployments_select_member on public.deployments
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists deployment_targets_select_member on public.deployment_targets;
create policy deployment_targets_select_member on public.deployment_targets
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

-- The bytes are in the bucket pgfleet; the tables of the storage belong to it. Where there is none, another store keeps them.
do $$
begin
  if to_regclass('storage.objects') is null then
    return;
  end if;
  insert into storage.buckets (id, name, public) values ('pgfleet', 'pgfleet', false) on conflict do nothing;
  execute 'drop policy if exists pgfleet_objects_select_member_or_device on storage.objects';
  execute $policy$
    create policy pgfleet_objects_select_member_or_device on storage.objects
      for select to authenticated using (bucket_id = 'pgfleet' and (select fleet.may_read_object(name)))
  $policy$;
  execute 'drop policy if exists pgfleet_objects_insert_manager on storage.objects';
  execute $policy$
    create policy pgfleet_objects_insert_manager on storage.objects
      for insert to authenticated with check (bucket_id = 'pgfleet' and (select fleet.may_write_object(name)))
  $policy$;
  execute 'drop policy if exists pgfleet_objects_update_manager on storage.objects';
  execute $policy$
    create policy pgfleet_objects_update_manager on storage.objects
      for update to authenticated
      using (bucket_id = 'pgfleet' and (select fleet.may_write_object(name)))
      with check (bucket_id = 'pgfleet' and (select fleet.may_write_object(name)))
  $policy$;
  execute 'drop policy if exists pgfleet_objects_delete_manager on storage.objects';
  execute $policy$
    create policy pgfleet_objects_delete_manager on storage.objects
      for delete to authenticated using (bucket_id = 'pgfleet' and (select fleet.may_write_object(name)))
  $policy$;
end;
$$;
