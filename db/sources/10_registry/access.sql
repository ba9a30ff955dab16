-- Who sees and changes the registry: members of the owner. A device reads its own row and nothing else.

revoke all on table public.owners, public.owner_members, public.owner_invitations, public.devices, public.device_groups,
  public.device_group_members, public.enrollment_codes
  from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.owners, public.owner_members, public.owner_invitations, public.devices, public.device_groups,
  public.device_group_members, public.enrollment_codes
  to service_role;

-- Identity columns need no right on their sequences; the default privileges of a project would let anybody move them.
revoke all on sequence public.devices_id_seq, public.device_groups_id_seq, public.enrollment_codes_id_seq,
  public.owner_invitations_id_seq
  from public, anon, authenticated, service_role;
grant usage, select on sequence public.devices_id_seq, public.device_groups_id_seq, public.enrollment_codes_id_seq,
  public.owner_invitations_id_seq
  to service_role;

-- service_role bypasses row security on Supabase; where it does not, these say the same.
drop policy if exists owners_all_service_role on public.owners;
create policy owners_all_service_role on public.owners for all to service_role using (true) with check (true);
drop policy if exists owner_members_all_service_role on public.owner_members;
create policy owner_members_all_service_role on public.owner_members
  for all to service_role using (true) with check (true);
drop policy if exists owner_invitations_all_service_role on public.owner_invitations;
create policy owner_invitations_all_service_role on public.owner_invitations
  for all to service_role using (true) with check (true);
drop policy if exists devices_all_service_role on public.devices;
create policy devices_all_service_role on public.devices for all to service_role using (true) with check (true);
drop policy if exists device_groups_all_service_role on public.device_groups;
create policy device_groups_all_service_role on public.device_groups
  for all to service_role using (true) with check (true);
drop policy if exists device_group_members_all_service_role on public.device_group_members;
create policy device_group_members_all_service_role on public.device_group_members
  for all to service_role using (true) with check (true);
drop policy if exists enrollment_codes_all_service_role on public.enrollment_codes;
create policy enrollment_codes_all_service_role on public.enrollment_codes
  for all to service_role using (true) with check (true);

grant select on table public.owners to authenticated;
grant update (name) on table public.owners to authenticated;
drop policy if exists owners_select_member on public.owners;
create policy owners_select_member on public.owners
  for select to authenticated using (id = any (array(select fleet.my_owners())));
drop policy if exists owners_update_admin on public.owners;
create policy owners_update_admin on public.owners
  for update to authenticated
  using (id = any (array(select fleet.my_owners('admin'))))
  with check (id = any (array(select fleet.my_owners('admin'))));

grant select, delete on table public.owner_members to authenticated;
grant update (permissions) on table public.owner_members to authenticated;
drop policy if exists owner_members_select_member on public.owner_members;
create policy owner_members_select_member on public.owner_members
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
-- Nobody is made a member: who is invited accepts.
drop policy if exists owner_members_insert_admin on public.owner_members;
drop policy if exists owner_members_update_admin on public.owner_members;
create policy owner_members_update_admin on public.owner_members
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('admin'))))
  with check (owner_id = any (array(select fleet.my_owners('admin'))));
drop policy if exists owner_members_delete_admin on public.owner_members;
create policy owner_members_delete_admin on public.owner_members
  for delete to authenticated using (owner_id = any (array(select fleet.my_owners('admin'))));

-- Everything but the hash of the code.
grant select (
  id, owner_id, email, permissions, expires_at, accepted_at, accepted_by, revoked_at, created_by, created_at
) on table public.owner_invitations to authenticated;
drop policy if exists owner_invitations_select_admin on public.owner_invitations;
create policy owner_invitations_select_admin on public.owner_invitations
  for select to authenticated using (owner_id = any (array(select fleet.my_owners('admin'))));

-- auth_id, status and enrolled_at change only through functions.
grant select, delete on table public.devices to authenticated;
grant insert (owner_id, hostname, platform, timezone, tags, attributes, prepared) on table public.devices to authenticated;
grant update (hostname, platform, timezone, tags, attributes, prepared) on table public.devices to authenticated;
drop policy if exists devices_select_member_or_self on public.devices;
create policy devices_select_member_or_self on public.devices
  for select to authenticated
  using (owner_id = any (array(select fleet.my_owners())) or id = (select fleet.current_device_id()));
drop policy if exists devices_insert_manager on public.devices;
create policy devices_insert_manager on public.devices
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists devices_update_manager on public.devices;
create policy devices_update_manager on public.devices
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists devices_delete_manager on public.devices;
create policy devices_delete_manager on public.devices
  for delete to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));

grant select, delete on table public.device_groups to authenticated;
grant insert (owner_id, name, description, selector) on table public.device_groups to authenticated;
grant update (name, description, selector) on table public.device_groups to authenticated;
drop policy if exists device_groups_select_member on public.device_groups;
create policy device_groups_select_member on public.device_groups
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists device_groups_insert_manager on public.device_groups;
create policy device_groups_insert_manager on public.device_groups
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists device_groups_update_manager on public.device_groups;
create policy device_groups_update_manager on public.device_groups
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists device_groups_delete_manager on public.device_groups;
create policy device_groups_delete_manager on public.device_groups
  for delete to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));

grant select, delete on table public.device_group_members to authenticated;
grant insert (group_id, device_id) on table public.device_group_members to authenticated;
drop policy if exists device_group_members_select_member on public.device_group_members;
create policy device_group_members_select_member on public.device_group_members
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists device_group_members_insert_manager on public.device_group_members;
create policy device_group_members_insert_manager on public.device_group_members
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists device_group_members_delete_manager on public.device_group_members;
create policy device_group_members_delete_manager on public.device_group_members
  for delete to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));

-- Everything but the hash of the code.
grant select (id, owner_id, device_id, max_uses, used_count, tags, group_ids, expires_at, revoked_at, created_by, created_at)
  on table public.enrollment_codes to authenticated;
grant update (revoked_at) on table public.enrollment_codes to authenticated;
drop policy if exists enrollment_codes_select_manager on public.enrollment_codes;
create policy enrollment_codes_select_manager on public.enrollment_codes
  for select to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists enrollment_codes_update_manager on public.enrollment_codes;
create policy enrollment_codes_update_manager on public.enrollment_codes
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));

-- Requests are counted by the functions alone.
revoke all on table public.device_requests from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.device_requests to service_role;
grant select on table public.device_requests to authenticated;

drop policy if exists device_requests_all_service_role on public.device_requests;
create policy device_requests_all_service_role on public.device_requests
  for all to service_role using (true) with check (true);
drop policy if exists device_requests_select_member on public.device_requests;
create policy device_requests_select_member on public.device_requests
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
