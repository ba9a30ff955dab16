-- Who sees and changes schedules and the ledger: members of the owner. Devices see neither.

revoke all on table public.schedules, public.schedule_runs from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.schedules, public.schedule_runs to service_role;
revoke all on sequence public.schedules_id_seq, public.schedule_runs_id_seq, fleet.run_progress_id_seq
  from public, anon, authenticated, service_role;
grant usage, select on sequence public.schedules_id_seq, public.schedule_runs_id_seq to service_role;

drop policy if exists schedules_all_service_role on public.schedules;
create policy schedules_all_service_role on public.schedules for all to service_role using (true) with check (true);
drop policy if exists schedule_runs_all_service_role on public.schedule_runs;
create policy schedule_runs_all_service_role on public.schedule_runs
  for all to service_role using (true) with check (true);

-- Counters and instants belong to the engine.
grant select, delete on table public.schedules to authenticated;
grant insert (
  owner_id, name, description, action_type, payload, recurrence_type, recurrence_config, start_time, end_time, timezone,
  device_ids, group_ids, selector, profile_id, device_id, policies, priority, ui_initiated, after_schedule_id, after_on
) on table public.schedules to authenticated;
grant update (
  name, description, action_type, payload, recurrence_type, recurrence_config, start_time, end_time, timezone,
  device_ids, group_ids, selector, profile_id, device_id, policies, priority, status, status_reason, after_schedule_id, after_on
) on table public.schedules to authenticated;

drop policy if exists schedules_select_member on public.schedules;
create policy schedules_select_member on public.schedules
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists schedules_insert_manager on public.schedules;
create policy schedules_insert_manager on public.schedules
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists schedules_update_manager on public.schedules;
create policy schedules_update_manager on public.schedules
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists schedules_delete_manager on public.schedules;
create policy schedules_delete_manager on public.schedules
  for delete to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));

grant select on table public.schedule_runs to authenticated;
drop policy if exists schedule_runs_select_member on public.schedule_runs;
create policy schedule_runs_select_member on public.schedule_runs
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
