-- Who sees integrations, their links, calls and activity: the owner's people. They change them through functions. Devices see none.

revoke all on table public.device_integrations, public.device_links, public.mdm_api_logs
  from public, anon, authenticated, service_role;
revoke all on sequence public.device_integrations_id_seq, public.mdm_api_logs_id_seq
  from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.device_integrations, public.device_links, public.mdm_api_logs
  to service_role;
grant usage, select on sequence public.device_integrations_id_seq, public.mdm_api_logs_id_seq to service_role;

drop policy if exists device_integrations_all_service_role on public.device_integrations;
create policy device_integrations_all_service_role on public.device_integrations
  for all to service_role using (true) with check (true);
drop policy if exists device_links_all_service_role on public.device_links;
create policy device_links_all_service_role on public.device_links
  for all to service_role using (true) with check (true);
drop policy if exists mdm_api_logs_all_service_role on public.mdm_api_logs;
create policy mdm_api_logs_all_service_role on public.mdm_api_logs
  for all to service_role using (true) with check (true);

grant select on table public.device_integrations, public.device_links, public.mdm_api_logs to authenticated;
drop policy if exists device_integrations_select_member on public.device_integrations;
create policy device_integrations_select_member on public.device_integrations
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists device_links_select_member on public.device_links;
create policy device_links_select_member on public.device_links
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
-- What an MDM answers may hold passcodes and the like.
drop policy if exists mdm_api_logs_select_manager on public.mdm_api_logs;
create policy mdm_api_logs_select_manager on public.mdm_api_logs
  for select to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));

revoke all on table public.integration_activity_log, public.integration_webhooks
  from public, anon, authenticated, service_role;
revoke all on sequence public.integration_activity_log_id_seq, public.integration_webhooks_id_seq
  from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.integration_activity_log, public.integration_webhooks to service_role;
grant usage, select on sequence public.integration_activity_log_id_seq, public.integration_webhooks_id_seq to service_role;

drop policy if exists integration_activity_log_all_service_role on public.integration_activity_log;
create policy integration_activity_log_all_service_role on public.integration_activity_log
  for all to service_role using (true) with check (true);
drop policy if exists integration_webhooks_all_service_role on public.integration_webhooks;
create policy integration_webhooks_all_service_role on public.integration_webhooks
  for all to service_role using (true) with check (true);

grant select on table public.integration_activity_log to authenticated;
drop policy if exists integration_activity_log_select_member on public.integration_activity_log;
create policy integration_activity_log_select_member on public.integration_activity_log
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
-- Everything but the hash of the secret.
grant select (id, owner_id, integration_id, last_used_at, revoked_at, created_by, created_at)
  on table public.integration_webhooks to authenticated;
drop policy if exists integration_webhooks_select_member on public.integration_webhooks;
create policy integration_webhooks_select_member on public.integration_webhooks
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

-- Who takes webhooks is the sources' own business.
revoke all on table fleet.webhook_handlers from public, anon, authenticated, service_role;
