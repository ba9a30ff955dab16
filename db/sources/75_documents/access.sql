-- Who sees templates: members of the owner. They are written by functions.

revoke all on table public.schedule_templates from public, anon, authenticated, service_role;
-- A version never changes, whoever asks.
grant select, insert, delete on table public.schedule_templates to service_role;
revoke all on sequence public.schedule_templates_id_seq from public, anon, authenticated, service_role;
grant usage, select on sequence public.schedule_templates_id_seq to service_role;
drop policy if exists schedule_templates_all_service_role on public.schedule_templates;
create policy schedule_templates_all_service_role on public.schedule_templates
  for all to service_role using (true) with check (true);

grant select on table public.schedule_templates to authenticated;

drop policy if exists schedule_templates_select_member on public.schedule_templates;
create policy schedule_templates_select_member on public.schedule_templates
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
