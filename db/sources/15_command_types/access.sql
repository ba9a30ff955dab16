-- Who sees the command types: everybody who is signed in those of the platform, members those of their owner. Only the service role adds
-- one for everybody; managers add those of their owner, and what a type is called and whose it is stays.

revoke all on table public.command_types from public, anon, authenticated, service_role;
revoke all on sequence public.command_types_id_seq from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.command_types to service_role;
grant usage, select on sequence public.command_types_id_seq to service_role;
grant select, delete on table public.command_types to authenticated;
grant insert (owner_id, name, description, payload_keys, timeout_seconds, rerun_safe, destructive, permission)
  on table public.command_types to authenticated;
grant update (description, payload_keys, timeout_seconds, rerun_safe, destructive, permission) on table public.command_types to authenticated;

drop policy if exists command_types_all_service_role on public.command_types;
create policy command_types_all_service_role on public.command_types
  for all to service_role using (true) with check (true);

drop policy if exists command_types_select_person on public.command_types;
create policy command_types_select_person on public.command_types
  for select to authenticated using (
    case
      when owner_id is null then (select fleet.current_user_id()) is not null
      else owner_id = any (array(select fleet.my_owners()))
    end
  );
drop policy if exists command_types_insert_manager on public.command_types;
create policy command_types_insert_manager on public.command_types
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists command_types_update_manager on public.command_types;
create policy command_types_update_manager on public.command_types
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists command_types_delete_manager on public.command_types;
create policy command_types_delete_manager on public.command_types
  for delete to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));
