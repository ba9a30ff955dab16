-- How pulls stand, what was agreed on and what was pushed is the engine's own business; people ask with sync_status(). Conflicts are theirs.

revoke all on table fleet.golioth_syncs, fleet.sync_cursors, fleet.sync_backfills, fleet.sync_bases, fleet.webhook_inbox
  from public, anon, authenticated, service_role;
revoke all on sequence fleet.sync_backfills_id_seq, fleet.webhook_inbox_id_seq
  from public, anon, authenticated, service_role;

revoke all on table public.sync_conflicts from public, anon, authenticated, service_role;
revoke all on sequence public.sync_conflicts_id_seq from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.sync_conflicts to service_role;
grant usage, select on sequence public.sync_conflicts_id_seq to service_role;
grant select on table public.sync_conflicts to authenticated;

drop policy if exists sync_conflicts_all_service_role on public.sync_conflicts;
create policy sync_conflicts_all_service_role on public.sync_conflicts
  for all to service_role using (true) with check (true);
drop policy if exists sync_conflicts_select_member on public.sync_conflicts;
create policy sync_conflicts_select_member on public.sync_conflicts
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
