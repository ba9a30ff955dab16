-- Who sees profiles, where they are installed and for how long: the owner's people. They change them through functions; the
-- files are nobody's to read.

revoke all on table public.profile_installs, public.profile_schedules, public.temporary_profiles
  from public, anon, authenticated, service_role;
revoke all on sequence public.profile_installs_id_seq from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.profile_installs to service_role;
grant usage, select on sequence public.profile_installs_id_seq to service_role;
grant select on table public.profile_schedules, public.temporary_profiles to authenticated, service_role;
drop policy if exists profile_installs_all_service_role on public.profile_installs;
create policy profile_installs_all_service_role on public.profile_installs
  for all to service_role using (true) with check (true);

grant select on table public.profile_installs to authenticated;
drop policy if exists profile_installs_select_member on public.profile_installs;
create policy profile_installs_select_member on public.profile_installs
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

revoke all on table public.profile_assignments, public.device_profiles from public, anon, authenticated, service_role;
revoke all on sequence public.profile_assignments_id_seq from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.profile_assignments, public.device_profiles to service_role;
grant usage, select on sequence public.profile_assignments_id_seq to service_role;
grant select on table public.profile_assignments, public.device_profiles to authenticated;

drop policy if exists profile_assignments_all_service_role on public.profile_assignments;
create policy profile_assignments_all_service_role on public.profile_assignments
  for all to service_role using (true) with check (true);
drop policy if exists device_profiles_all_service_role on public.device_profiles;
create policy device_profiles_all_service_role on public.device_profiles
  for all to service_role using (true) with check (true);
drop policy if exists profile_assignments_select_member on public.profile_assignments;
create policy profile_assignments_select_member on public.profile_assignments
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists device_profiles_select_member on public.device_profiles;
create policy device_profiles_select_member on public.device_profiles
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

revoke all on table public.profiles, fleet.profile_uploads from public, anon, authenticated, service_role;
revoke all on sequence public.profiles_id_seq from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.profiles to service_role;
grant usage, select on sequence public.profiles_id_seq to service_role;
grant select on table public.profiles to authenticated;

drop policy if exists profiles_all_service_role on public.profiles;
create policy profiles_all_service_role on public.profiles
  for all to service_role using (true) with check (true);
drop policy if exists profiles_select_member on public.profiles;
create policy profiles_select_member on public.profiles
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

revoke all on table public.profile_holds from public, anon, authenticated, service_role;
-- Whoever holds a profile is a function.
grant select on table public.profile_holds to authenticated, service_role;
drop policy if exists profile_holds_select_service_role on public.profile_holds;
create policy profile_holds_select_service_role on public.profile_holds for select to service_role using (true);
drop policy if exists profile_holds_select_member on public.profile_holds;
create policy profile_holds_select_member on public.profile_holds
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
