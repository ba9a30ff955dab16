-- Who sees and changes blackout calendars and templates: members of the owner. Both are written by functions.

revoke all on table public.blackout_calendars, public.blackout_periods, public.schedule_templates
  from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.blackout_calendars, public.blackout_periods to service_role;
-- A version never changes, whoever asks.
grant select, insert, delete on table public.schedule_templates to service_role;
revoke all on sequence public.blackout_calendars_id_seq, public.blackout_periods_id_seq, public.schedule_templates_id_seq
  from public, anon, authenticated, service_role;
grant usage, select on sequence public.blackout_calendars_id_seq, public.blackout_periods_id_seq,
  public.schedule_templates_id_seq
  to service_role;

drop policy if exists blackout_calendars_all_service_role on public.blackout_calendars;
create policy blackout_calendars_all_service_role on public.blackout_calendars
  for all to service_role using (true) with check (true);
drop policy if exists blackout_periods_all_service_role on public.blackout_periods;
create policy blackout_periods_all_service_role on public.blackout_periods
  for all to service_role using (true) with check (true);
drop policy if exists schedule_templates_all_service_role on public.schedule_templates;
create policy schedule_templates_all_service_role on public.schedule_templates
  for all to service_role using (true) with check (true);

grant select on table public.blackout_calendars, public.blackout_periods, public.schedule_templates to authenticated;
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

drop policy if exists schedule_templates_select_member on public.schedule_templates;
create policy schedule_templates_select_member on public.schedule_templates
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
