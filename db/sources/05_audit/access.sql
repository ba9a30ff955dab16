-- Who reads the log: members of the owner. Nobody writes it, the service role included.

revoke all on table public.audit_log from public, anon, authenticated, service_role;
grant select on table public.audit_log to authenticated, service_role;
revoke all on sequence public.audit_log_id_seq from public, anon, authenticated, service_role;

drop policy if exists audit_log_select_service_role on public.audit_log;
create policy audit_log_select_service_role on public.audit_log for select to service_role using (true);
drop policy if exists audit_log_select_member on public.audit_log;
-- Who may not see a row may not read about it either: the addresses of webhooks are for managers.
create policy audit_log_select_member on public.audit_log
  for select to authenticated
  using (
    owner_id = any (array(select fleet.my_owners()))
    and (table_name <> 'webhook_endpoints' or owner_id = any (array(select fleet.my_owners('manage'))))
  );
