-- Who sees calendar feeds: the owner's people; who manages, changes them through functions.

revoke all on table public.calendar_feeds from public, anon, authenticated, service_role;
revoke all on sequence public.calendar_feeds_id_seq from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.calendar_feeds to service_role;
grant usage, select on sequence public.calendar_feeds_id_seq to service_role;
drop policy if exists calendar_feeds_all_service_role on public.calendar_feeds;
create policy calendar_feeds_all_service_role on public.calendar_feeds
  for all to service_role using (true) with check (true);

-- Everything but the hash of the secret.
grant select (id, owner_id, name, filter, last_read_at, revoked_at, created_by, created_at)
  on table public.calendar_feeds to authenticated;
drop policy if exists calendar_feeds_select_member on public.calendar_feeds;
create policy calendar_feeds_select_member on public.calendar_feeds
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
