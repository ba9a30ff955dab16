-- Who sees commands: members of the owner, and each device its own. A device may also answer by a plain UPDATE.

revoke all on table public.device_commands from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.device_commands to service_role;
revoke all on sequence public.device_commands_id_seq from public, anon, authenticated, service_role;
grant usage, select on sequence public.device_commands_id_seq to service_role;
drop policy if exists device_commands_all_service_role on public.device_commands;
create policy device_commands_all_service_role on public.device_commands
  for all to service_role using (true) with check (true);

grant select on table public.device_commands to authenticated;
grant insert (
  owner_id, device_id, device_hostname, command_type, payload, priority, status, not_before, expires_at, max_attempts, idempotency_key
) on table public.device_commands to authenticated;
-- executed_at is what simple clients send along; the trigger puts the database's own time there.
grant update (status, result, error_message, executed_at) on table public.device_commands to authenticated;

drop policy if exists device_commands_select_member_or_device on public.device_commands;
create policy device_commands_select_member_or_device on public.device_commands
  for select to authenticated
  using ((device_id = (select fleet.current_device_id()) and channel = 'agent') or owner_id = any (array(select fleet.my_owners())));
drop policy if exists device_commands_insert_operator on public.device_commands;
create policy device_commands_insert_operator on public.device_commands
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('operate'))));
drop policy if exists device_commands_update_operator_or_device on public.device_commands;
create policy device_commands_update_operator_or_device on public.device_commands
  for update to authenticated
  using ((device_id = (select fleet.working_device_id()) and channel = 'agent') or owner_id = any (array(select fleet.my_owners('operate'))))
  with check ((device_id = (select fleet.working_device_id()) and channel = 'agent') or owner_id = any (array(select fleet.my_owners('operate'))));
