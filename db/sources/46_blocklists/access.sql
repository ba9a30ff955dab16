-- Who keeps blocklists: the people of the owner. Devices read theirs with device_blocklist().

revoke all on table public.blocklist_entries from public, anon, authenticated, service_role;
revoke all on sequence public.blocklist_entries_id_seq from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.blocklist_entries to service_role;
grant usage, select on sequence public.blocklist_entries_id_seq to service_role;
grant select, delete on table public.blocklist_entries to authenticated;
grant insert (owner_id, kind, pattern, group_id, note) on table public.blocklist_entries to authenticated;
grant update (note) on table public.blocklist_entries to authenticated;

drop policy if exists blocklist_entries_all_service_role on public.blocklist_entries;
create policy blocklist_entries_all_service_role on public.blocklist_entries
  for all to service_role using (true) with check (true);
drop policy if exists blocklist_entries_select_member on public.blocklist_entries;
create policy blocklist_entries_select_member on public.blocklist_entries
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists blocklist_entries_insert_manager on public.blocklist_entries;
create policy blocklist_entries_insert_manager on public.blocklist_entries
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists blocklist_entries_update_manager on public.blocklist_entries;
create policy blocklist_entries_update_manager on public.blocklist_entries
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists blocklist_entries_delete_manager on public.blocklist_entries;
create policy blocklist_entries_delete_manager on public.blocklist_entries
  for delete to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));
