-- Who sees and changes schedules, their ledger, blackout calendars and templates: members of the owner. Devices see none of it.

revoke all on table public.schedules, public.schedule_runs from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.schedules, public.schedule_runs to service_role;
revoke all on sequence public.schedules_id_seq, public.schedule_runs_id_seq, fleet.run_progress_id_seq, fleet.chain_steps_id_seq
  from public, anon, authenticated, service_role;
grant usage, select on sequence public.schedules_id_seq, public.schedule_runs_id_seq to service_role;

drop policy if exists schedules_all_service_role on public.schedules;
create policy schedules_all_service_role on public.schedules for all to service_role using (true) with check (true);
drop policy if exists schedule_runs_all_service_role on public.schedule_runs;
create policy schedule_runs_all_service_role on public.schedule_runs
  for all to service_role using (true) with check (true);

-- Counters and instants belong to the engine.
grant select, delete on table public.schedules to authenticated;

do $$
begin
  execute format(
    'grant insert (owner_id, %s) on table public.schedules to authenticated',
    (select string_agg(quote_ident(c.name), ', ') from fleet.schedule_columns() as c)
  );
  -- Who made a schedule, a person by hand or not, is said when it is made.
  execute format(
    'grant update (status, status_reason, %s) on table public.schedules to authenticated',
    (select string_agg(quote_ident(c.name), ', ') from fleet.schedule_columns() as c where c.name <> 'ui_initiated')
  );
end;
$$;

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

revoke all on table public.blackout_calendars, public.blackout_periods from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.blackout_calendars, public.blackout_periods to service_role;
revoke all on sequence public.blackout_calendars_id_seq, public.blackout_periods_id_seq
  from public, anon, authenticated, service_role;
grant usage, select on sequence public.blackout_calendars_id_seq, public.blackout_periods_id_seq to service_role;

drop policy if exists blackout_calendars_all_service_role on public.blackout_calendars;
create policy blackout_calendars_all_service_role on public.blackout_calendars
  for all to service_role using (true) with check (true);
drop policy if exists blackout_periods_all_service_role on public.blackout_periods;
create policy blackout_periods_all_service_role on public.blackout_periods
  for all to service_role using (true) with check (true);

grant select on table public.blackout_calendars, public.blackout_periods to authenticated;
grant update (name, description) on table public.blackout_calendars to authenticated;

drop policy if exists blackout_calendars_select_member on public.blackout_calendars;
create policy blackout_calendars_select_member on public.blackout_calendars
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists blackout_calendars_update_manager on public.blackout_calendars;
create policy blackout_calendars_update_manager on public.blackout_calendars
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));

drop policy if exists blackout_periods_select_member on public.blackout_periods;
create policy blackout_periods_select_member on public.blackout_periods
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
