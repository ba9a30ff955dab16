-- Calendar feeds as people list them.

drop view if exists public.calendar_feed_list;
create view public.calendar_feed_list with (security_invoker = true) as
select
  f.id, f.owner_id, o.name as owner, f.name, f.filter, f.last_read_at, f.revoked_at, f.created_by, f.created_at
from public.calendar_feeds as f
join public.owners as o on o.id = f.owner_id;

comment on view public.calendar_feed_list is
  'Calendars that programs read by a secret address, without the secrets.';
comment on column public.calendar_feed_list.owner is 'The name of the owner.';
select fleet.inherit_comments('public.calendar_feed_list', 'public.calendar_feeds');
revoke all on table public.calendar_feed_list from public, anon, authenticated, service_role;
grant select on table public.calendar_feed_list to authenticated, service_role;
