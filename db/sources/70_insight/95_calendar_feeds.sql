-- Calendar feeds: coming runs as iCalendar under a secret address that a calendar program subscribes to.

create or replace function fleet.create_calendar_feed(p_filter jsonb, p_name text, p_owner_id uuid)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_token text := fleet.random_secret();
  v_owner uuid := fleet.owner_or_own(p_owner_id);
  v_row public.calendar_feeds;
  v_path text;
begin
  perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
  if not exists (select 1 from public.owners as o where o.id = v_owner) then
    perform fleet.raise_not_found(format('owner %s', v_owner));
  end if;
  -- What is wrong with the filter is told now, not to the program that reads the feed.
  perform fleet.require_calendar_filter(p_filter);

  insert into public.calendar_feeds (owner_id, name, filter, token_hash, created_by)
  values (v_owner, coalesce(p_name, ''), p_filter, fleet.hash_secret(v_token), fleet.current_user_id())
  returning * into v_row;

  v_path := '/calendar-feed/' || v_token || '.ics';
  return to_jsonb(v_row) - 'token_hash'
    || jsonb_build_object('token', v_token, 'path', v_path, 'url', (fleet.setting('functions_url') #>> '{}') || v_path);
end;
$$;

comment on function fleet.create_calendar_feed(jsonb, text, uuid) is 'See public.create_calendar_feed. Definer: it checks the caller.';
revoke all on function fleet.create_calendar_feed(jsonb, text, uuid) from public, anon, authenticated, service_role;
grant execute on function fleet.create_calendar_feed(jsonb, text, uuid) to authenticated, service_role;

create or replace function public.create_calendar_feed(
  p_filter jsonb default '{}',
  p_name text default '',
  p_owner_id uuid default null
)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.create_calendar_feed(p_filter, p_name, p_owner_id)
$$;

comment on function public.create_calendar_feed(jsonb, text, uuid) is
  'Make a secret address under which calendar programs read the coming runs; shown this once. {id, token, path, url}; url is null '
  'while the setting functions_url is. The filter is that of calendar_ics. Raises owner_not_found (PT404), permission_missing (PT403) or filter_invalid (PT422).';
revoke all on function public.create_calendar_feed(jsonb, text, uuid) from public, anon, authenticated, service_role;
grant execute on function public.create_calendar_feed(jsonb, text, uuid) to authenticated, service_role;

create or replace function fleet.revoke_calendar_feed(p_id bigint)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid;
begin
  select f.owner_id into v_owner
  from public.calendar_feeds as f
  where f.id = p_id and fleet.is_visible_owner(f.owner_id);
  if not found then
    perform fleet.raise_not_found(format('calendar feed %s', p_id));
  end if;
  perform fleet.require_permission(v_owner, 'manage', format('calendar feed %s', p_id));
  update public.calendar_feeds as f set revoked_at = now() where f.id = p_id and f.revoked_at is null;
end;
$$;

comment on function fleet.revoke_calendar_feed(bigint) is 'See public.revoke_calendar_feed. Definer: it checks the caller.';
revoke all on function fleet.revoke_calendar_feed(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.revoke_calendar_feed(bigint) to authenticated, service_role;

create or replace function public.revoke_calendar_feed(p_id bigint)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.revoke_calendar_feed(p_id)
$$;

comment on function public.revoke_calendar_feed(bigint) is
  'Make the address of a feed useless. Raises calendar_feed_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.revoke_calendar_feed(bigint) from public, anon, authenticated, service_role;
grant execute on function public.revoke_calendar_feed(bigint) to authenticated, service_role;

create or replace function fleet.feed_of_token(p_token text)
returns public.calendar_feeds
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_feed public.calendar_feeds;
begin
  select f.* into v_feed
  from public.calendar_feeds as f
  where f.token_hash = fleet.hash_secret(p_token) and f.revoked_at is null;
  if not found then
    raise exception 'there is no such calendar, or its address was revoked'
      using errcode = 'PT404', detail = 'calendar_feed_not_found', hint = 'Make a new address: select create_calendar_feed()';
  end if;
  return v_feed;
end;
$$;

comment on function fleet.feed_of_token(text) is 'The feed behind a secret address. Raises calendar_feed_not_found (PT404).';
revoke all on function fleet.feed_of_token(text) from public, anon, authenticated, service_role;

create or replace function fleet.worker_feed_owner(p_token text)
returns uuid
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return (fleet.feed_of_token(p_token)).owner_id;
end;
$$;

comment on function fleet.worker_feed_owner(text) is
  'Whose calendar is under a secret address, so that owners can take turns. Raises calendar_feed_not_found (PT404). Definer: the address alone '
  'says what may be read.';
revoke all on function fleet.worker_feed_owner(text) from public, anon, authenticated, service_role;

create or replace function fleet.worker_calendar_feed(p_token text, p_now timestamptz default now())
returns text
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_feed public.calendar_feeds := fleet.feed_of_token(p_token);
begin
  -- Programs read often; a write each time would be waste, and a replica takes none.
  if (v_feed.last_read_at < p_now - interval '1 minute') is not false and current_setting('transaction_read_only') = 'off' then
    update public.calendar_feeds as f set last_read_at = p_now where f.id = v_feed.id;
  end if;
  return fleet.calendar_ics(v_feed.owner_id, v_feed.filter, p_now, p_now + interval '90 days');
end;
$$;

comment on function fleet.worker_calendar_feed(text, timestamptz) is
  'The calendar under a secret address: what is coming within three months. Raises calendar_feed_not_found (PT404). Definer: the '
  'address alone says what may be read.';
revoke all on function fleet.worker_calendar_feed(text, timestamptz) from public, anon, authenticated, service_role;
