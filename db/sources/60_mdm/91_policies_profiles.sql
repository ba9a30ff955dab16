-- Who sees the profiles of an MDM: the owner's people. They change them through functions; the files are nobody's to read.

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
