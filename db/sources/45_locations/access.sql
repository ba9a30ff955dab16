-- Who sees and changes locations: the people of the owner. Devices see none; what they are told is the answer of report_location.

revoke all on table public.locations, public.location_policies, public.device_positions, public.device_places,
  public.location_events, public.location_actions
  from public, anon, authenticated, service_role;
revoke all on sequence public.locations_id_seq, public.location_policies_id_seq, public.location_events_id_seq
  from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.locations, public.location_policies to service_role;
-- What was seen and done is written by the functions alone.
grant select on table public.device_positions, public.device_places, public.location_events, public.location_actions
  to service_role;
grant usage, select on sequence public.locations_id_seq, public.location_policies_id_seq to service_role;

drop policy if exists locations_all_service_role on public.locations;
create policy locations_all_service_role on public.locations for all to service_role using (true) with check (true);
drop policy if exists location_policies_all_service_role on public.location_policies;
create policy location_policies_all_service_role on public.location_policies
  for all to service_role using (true) with check (true);
drop policy if exists device_positions_select_service_role on public.device_positions;
create policy device_positions_select_service_role on public.device_positions for select to service_role using (true);
drop policy if exists device_places_select_service_role on public.device_places;
create policy device_places_select_service_role on public.device_places for select to service_role using (true);
drop policy if exists location_events_select_service_role on public.location_events;
create policy location_events_select_service_role on public.location_events for select to service_role using (true);
drop policy if exists location_actions_select_service_role on public.location_actions;
create policy location_actions_select_service_role on public.location_actions for select to service_role using (true);

grant select, delete on table public.locations, public.location_policies to authenticated;
grant insert (owner_id, name, kind, latitude, longitude, radius_m, polygon, hysteresis_m, min_dwell)
  on table public.locations to authenticated;
grant update (name, kind, latitude, longitude, radius_m, polygon, hysteresis_m, min_dwell)
  on table public.locations to authenticated;
grant insert (owner_id, name, location_id, event, action_type, payload, group_id, selector, priority, is_enabled)
  on table public.location_policies to authenticated;
grant update (name, location_id, event, action_type, payload, group_id, selector, priority, is_enabled)
  on table public.location_policies to authenticated;
grant select on table public.device_positions, public.device_places, public.location_events, public.location_actions
  to authenticated;

drop policy if exists locations_select_member on public.locations;
create policy locations_select_member on public.locations
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists locations_insert_manager on public.locations;
create policy locations_insert_manager on public.locations
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists locations_update_manager on public.locations;
create policy locations_update_manager on public.locations
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists locations_delete_manager on public.locations;
create policy locations_delete_manager on public.locations
  for delete to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists location_policies_select_member on public.location_policies;
create policy location_policies_select_member on public.location_policies
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists location_policies_insert_manager on public.location_policies;
create policy location_policies_insert_manager on public.location_policies
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists location_policies_update_manager on public.location_policies;
create policy location_policies_update_manager on public.location_policies
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists location_policies_delete_manager on public.location_policies;
create policy location_policies_delete_manager on public.location_policies
  for delete to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists device_positions_select_member on public.device_positions;
create policy device_positions_select_member on public.device_positions
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists device_places_select_member on public.device_places;
create policy device_places_select_member on public.device_places
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists location_events_select_member on public.location_events;
create policy location_events_select_member on public.location_events
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists location_actions_select_member on public.location_actions;
create policy location_actions_select_member on public.location_actions
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
