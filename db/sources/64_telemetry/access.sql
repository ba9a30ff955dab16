-- On the tables of telemetry nobody has a right, but for the login of the HTTP functions that copies into one of them.

do $$
declare
  v_function regprocedure;
begin
  revoke all on schema telemetry from public, anon, authenticated, service_role;
  revoke all on all tables in schema telemetry from public, anon, authenticated, service_role;
  for v_function in select p.oid from pg_catalog.pg_proc as p where p.pronamespace = 'telemetry'::regnamespace loop
    execute format('revoke all on function %s from public, anon, authenticated, service_role', v_function);
  end loop;
end;
$$;

revoke all on table public.telemetry_rules, fleet.telemetry_rule_states, fleet.telemetry_seen, fleet.health_reports
  from public, anon, authenticated, service_role;
revoke all on sequence public.telemetry_rules_id_seq from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.telemetry_rules to service_role;
grant usage, select on sequence public.telemetry_rules_id_seq to service_role;
grant select, delete on table public.telemetry_rules to authenticated;
grant insert (
  owner_id, name, condition, clear_at, cooldown, group_id, selector, action, action_type, payload, priority, is_enabled
) on table public.telemetry_rules to authenticated;
grant update (name, condition, clear_at, cooldown, group_id, selector, action, action_type, payload, priority, is_enabled)
  on table public.telemetry_rules to authenticated;

drop policy if exists telemetry_rules_all_service_role on public.telemetry_rules;
create policy telemetry_rules_all_service_role on public.telemetry_rules
  for all to service_role using (true) with check (true);
drop policy if exists telemetry_rules_select_member on public.telemetry_rules;
create policy telemetry_rules_select_member on public.telemetry_rules
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists telemetry_rules_insert_manager on public.telemetry_rules;
create policy telemetry_rules_insert_manager on public.telemetry_rules
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists telemetry_rules_update_manager on public.telemetry_rules;
create policy telemetry_rules_update_manager on public.telemetry_rules
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists telemetry_rules_delete_manager on public.telemetry_rules;
create policy telemetry_rules_delete_manager on public.telemetry_rules
  for delete to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));
