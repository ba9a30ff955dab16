-- Who sees the command types: everybody who is signed in. Only the service role adds one.

revoke all on table public.command_types from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.command_types to service_role;

drop policy if exists command_types_all_service_role on public.command_types;
create policy command_types_all_service_role on public.command_types
  for all to service_role using (true) with check (true);

grant select on table public.command_types to authenticated;
drop policy if exists command_types_select_person on public.command_types;
create policy command_types_select_person on public.command_types
  for select to authenticated using ((select fleet.current_user_id()) is not null);
