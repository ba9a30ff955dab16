-- Who sees endpoints and messages: the owner's people; who manages, changes them through functions. Devices see none.

revoke all on table public.webhook_endpoints, public.webhook_deliveries, fleet.webhook_secrets
  from public, anon, authenticated, service_role;
revoke all on sequence public.webhook_endpoints_id_seq, public.webhook_deliveries_id_seq
  from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.webhook_endpoints, public.webhook_deliveries to service_role;
grant usage, select on sequence public.webhook_endpoints_id_seq, public.webhook_deliveries_id_seq to service_role;

drop policy if exists webhook_endpoints_all_service_role on public.webhook_endpoints;
create policy webhook_endpoints_all_service_role on public.webhook_endpoints
  for all to service_role using (true) with check (true);
drop policy if exists webhook_deliveries_all_service_role on public.webhook_deliveries;
create policy webhook_deliveries_all_service_role on public.webhook_deliveries
  for all to service_role using (true) with check (true);

-- The address of a webhook is often a secret itself.
grant select on table public.webhook_endpoints to authenticated;
drop policy if exists webhook_endpoints_select_manager on public.webhook_endpoints;
create policy webhook_endpoints_select_manager on public.webhook_endpoints
  for select to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));

grant select on table public.webhook_deliveries to authenticated;
drop policy if exists webhook_deliveries_select_member on public.webhook_deliveries;
create policy webhook_deliveries_select_member on public.webhook_deliveries
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
