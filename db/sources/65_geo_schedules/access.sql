-- Who sees and changes geo schedules: the people of the owner. Devices read none of it; geo_actions_due tells them what is theirs.

revoke all on table public.app_categories, public.geo_schedules, public.geo_actions, public.geo_action_reports,
  public.geo_commitments
  from public, anon, authenticated, service_role;
revoke all on sequence public.app_categories_id_seq, public.geo_schedules_id_seq, public.geo_actions_id_seq,
  public.geo_commitments_id_seq
  from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.app_categories to service_role;
-- What is owed and done is written by the functions alone.
grant select, insert (
    owner_id, name, device_id, group_id, location_id, side, apps, categories, enforce, start_minute, end_minute, recurrence, days, timezone,
    update_delay_type, update_delay_seconds, unknown_location, max_location_age, notes
  )
  on table public.geo_schedules to service_role;
grant select on table public.geo_actions, public.geo_action_reports, public.geo_commitments to service_role;
grant usage, select on sequence public.app_categories_id_seq, public.geo_schedules_id_seq to service_role;

drop policy if exists app_categories_all_service_role on public.app_categories;
create policy app_categories_all_service_role on public.app_categories for all to service_role using (true) with check (true);
drop policy if exists geo_schedules_select_service_role on public.geo_schedules;
create policy geo_schedules_select_service_role on public.geo_schedules for select to service_role using (true);
drop policy if exists geo_actions_select_service_role on public.geo_actions;
create policy geo_actions_select_service_role on public.geo_actions for select to service_role using (true);
drop policy if exists geo_action_reports_select_service_role on public.geo_action_reports;
create policy geo_action_reports_select_service_role on public.geo_action_reports for select to service_role using (true);
drop policy if exists geo_commitments_select_service_role on public.geo_commitments;
create policy geo_commitments_select_service_role on public.geo_commitments for select to service_role using (true);
drop policy if exists geo_schedules_insert_service_role on public.geo_schedules;
create policy geo_schedules_insert_service_role on public.geo_schedules for insert to service_role with check (true);

grant select, delete on table public.app_categories to authenticated;
grant insert (owner_id, name, apps), update (name, apps) on table public.app_categories to authenticated;
grant select, insert (
    owner_id, name, device_id, group_id, location_id, side, apps, categories, enforce, start_minute, end_minute, recurrence, days, timezone,
    update_delay_type, update_delay_seconds, unknown_location, max_location_age, notes
  )
  on table public.geo_schedules to authenticated;
grant select on table public.geo_actions, public.geo_action_reports, public.geo_commitments to authenticated;

drop policy if exists app_categories_select_member on public.app_categories;
create policy app_categories_select_member on public.app_categories
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists geo_schedules_select_member on public.geo_schedules;
create policy geo_schedules_select_member on public.geo_schedules
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists geo_actions_select_member on public.geo_actions;
create policy geo_actions_select_member on public.geo_actions
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists geo_action_reports_select_member on public.geo_action_reports;
create policy geo_action_reports_select_member on public.geo_action_reports
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists geo_commitments_select_member on public.geo_commitments;
create policy geo_commitments_select_member on public.geo_commitments
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists app_categories_insert_manager on public.app_categories;
create policy app_categories_insert_manager on public.app_categories
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists geo_schedules_insert_manager on public.geo_schedules;
create policy geo_schedules_insert_manager on public.geo_schedules
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists app_categories_update_manager on public.app_categories;
create policy app_categories_update_manager on public.app_categories
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists app_categories_delete_manager on public.app_categories;
create policy app_categories_delete_manager on public.app_categories
  for delete to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));
