-- Generated from db/sources/85_notify by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/85_notify/addresses.sql
-- Where messages may go: addresses that are well formed, and no way into the networks around the functions. What a name
-- stands for is known only when it is used, so the function that delivers looks at it again.

create or replace function fleet.is_public_address(p_address inet)
returns boolean
language sql
immutable
parallel safe
return p_address is not null and not (
  p_address <<= any (
    '{0.0.0.0/8,10.0.0.0/8,100.64.0.0/10,127.0.0.0/8,169.254.0.0/16,172.16.0.0/12,192.0.0.0/24,192.0.2.0/24,192.88.99.0/24,
      192.168.0.0/16,198.18.0.0/15,198.51.100.0/24,203.0.113.0/24,224.0.0.0/3}'::inet[]
  )
  -- Of IPv6 only what is given out to the public, without the forms that carry an IPv4 address inside.
  or (family(p_address) = 6 and not p_address <<= '2000::/3'::inet)
  or p_address <<= any ('{2001::/23,2001:db8::/32,2002::/16,3fff::/20}'::inet[])
);

comment on function fleet.is_public_address(inet) is
  'Whether an address is open to everybody: not private, loopback, link-local, multicast or reserved.';
revoke all on function fleet.is_public_address(inet) from public, anon, authenticated, service_role;

create or replace function fleet.try_inet(p_text text)
returns inet
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return p_text::inet;
exception
  when invalid_text_representation then
    return null;
end;
$$;

comment on function fleet.try_inet(text) is 'The text as an address; null where it is none.';
revoke all on function fleet.try_inet(text) from public, anon, authenticated, service_role;

create or replace function fleet.webhook_url_problem(p_url text, p_allow_private boolean)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Scheme, host (a name, IPv4, or IPv6 in brackets), port, and the rest.
  v_parts text[] := regexp_match(
    p_url, '^(https?)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?(?:[/?][^\s#[:cntrl:]]*)?$', 'i'
  );
  v_host text := lower(rtrim(v_parts[2], '.'));
  v_address inet := fleet.try_inet(btrim(v_host, '[]'));
begin
  if v_parts is null or length(p_url) > 2000 or v_host = '' or coalesce(v_parts[3], '443')::integer not between 1 and 65535 then
    return 'is not an address like https://example.com/hooks, without user, password and #';
  elsif p_allow_private then
    return null;
  elsif lower(v_parts[1]) <> 'https' then
    return 'must begin with https://';
  elsif v_address is not null then
    -- A leading zero means octal to some and decimal to others.
    return case
      when not fleet.is_public_address(v_address) then 'is a private address'
      when family(v_address) = 4 and v_host ~ '(^|\.)0[0-9]' then 'is an address with leading zeros'
    end;
  -- Resolvers take 127.1, 0x7f000001 and 2130706433 for addresses too: the last part of a name has a letter, and no 0x.
  elsif v_host !~ '\.[a-z][a-z0-9-]*$' or v_host ~ '\.0x[0-9a-f]*$' then
    return 'must name a host on the internet';
  elsif v_host ~ '(^|\.)(localhost|localdomain|local|internal|intranet|lan|home|corp|arpa|test|invalid|onion)$' then
    return 'is a name of a private network';
  end if;
  return null;
end;
$$;

comment on function fleet.webhook_url_problem(text, boolean) is
  'What is wrong with the address of a webhook, as far as its text can tell; null where nothing is.';
revoke all on function fleet.webhook_url_problem(text, boolean) from public, anon, authenticated, service_role;

create or replace function fleet.endpoint_problems(p_endpoint public.webhook_endpoints)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select * from fleet.choice_problem('channel', to_jsonb(p_endpoint.channel), '{webhook,email}')
  union all
  select 'url', 'is missing', 'Example: {"url": "https://example.com/hooks"}'
  where p_endpoint.channel = 'webhook' and p_endpoint.url is null
  union all
  select 'url', u.problem,
    'An administrator may allow other addresses: select fleet.set_setting(''webhook_allow_private'', ''true'')'
  from fleet.webhook_url_problem(p_endpoint.url, fleet.setting('webhook_allow_private') = 'true'::jsonb) as u(problem)
  where p_endpoint.url is not null and u.problem is not null
  union all
  select 'url', 'is of no use to the channel email', 'Leave it out.'
  where p_endpoint.channel = 'email' and p_endpoint.url is not null
  union all
  select 'email', 'is missing', 'Example: {"email": "ops@example.com"}'
  where p_endpoint.channel = 'email' and p_endpoint.email is null
  union all
  select 'email', 'is not an e-mail address', 'Example: {"email": "ops@example.com"}'
  where p_endpoint.email !~ '^[A-Za-z0-9.!#$%&''*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9]([A-Za-z0-9.-]{0,250}[A-Za-z0-9])?$'
  union all
  select 'email', 'is of no use to the channel webhook', 'Leave it out, or say {"channel": "email"}.'
  where p_endpoint.channel = 'webhook' and p_endpoint.email is not null
  union all
  select 'name', 'is longer than 200 characters', 'Choose a shorter one.'
  where length(p_endpoint.name) > 200
  union all
  select 'events', 'names no event', 'Example: {"events": ["run.failed", "schedule.*"]}; ["*"] is everything.'
  where coalesce(cardinality(p_endpoint.events), 0) = 0
  union all
  select 'events', format('"%s" is not an event', e.pattern),
    format('Events are %s; run.* is all of a kind, * is everything.', (
      select string_agg(k.name, ', ' order by k.name) from fleet.event_types() as k
    ))
  from unnest(p_endpoint.events) as e(pattern)
  where e.pattern is null
    or not exists (
      select 1 from fleet.event_types() as k where fleet.event_matches(array[e.pattern], k.name)
    )
$$;

comment on function fleet.endpoint_problems(public.webhook_endpoints) is 'Everything that is wrong with an endpoint.';
revoke all on function fleet.endpoint_problems(public.webhook_endpoints) from public, anon, authenticated, service_role;

-- db/sources/85_notify/calendar_feeds.sql
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
  'while the setting functions_url is. The filter is that of calendar_ics. Raises permission_missing (PT403) or filter_invalid (PT422).';
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

create or replace function fleet.worker_calendar_feed(p_token text, p_now timestamptz default now())
returns text
language plpgsql
volatile
security definer
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

  -- Programs read often; a write each time would be waste.
  update public.calendar_feeds as f
  set last_read_at = p_now
  where f.id = v_feed.id and (f.last_read_at is null or f.last_read_at < p_now - interval '1 minute');
  return fleet.calendar_ics(v_feed.owner_id, v_feed.filter, p_now, p_now + interval '90 days');
end;
$$;

comment on function fleet.worker_calendar_feed(text, timestamptz) is
  'The calendar under a secret address: what is coming within three months. Raises calendar_feed_not_found (PT404). Definer: the '
  'address alone says what may be read.';
revoke all on function fleet.worker_calendar_feed(text, timestamptz) from public, anon, authenticated, service_role;

-- db/sources/85_notify/deliveries.sql
-- Deliveries: claimed by the function notify-dispatch under a lease, tried again over a day, settled once.

create or replace function fleet.delivery_pause(p_failure_count integer)
returns interval
language sql
immutable
parallel safe
return (
  '{5 seconds,1 minute,5 minutes,30 minutes,2 hours,5 hours,8 hours,8 hours}'::interval[]
)[greatest(p_failure_count, 1)];

comment on function fleet.delivery_pause(integer) is
  'Pause after the n-th failure, a day in all; null where there is no attempt left.';
revoke all on function fleet.delivery_pause(integer) from public, anon, authenticated, service_role;

create or replace function fleet.worker_claim_deliveries(p_limit integer default 1, p_now timestamptz default clock_timestamp())
returns table (
  delivery_id bigint,
  attempt integer,
  event text,
  event_id text,
  channel text,
  url text,
  email text,
  headers jsonb,
  body text,
  allow_private boolean
)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A lease that ended counts as a failure: a message that ends its function each time must not go on for ever.
  update public.webhook_deliveries as d
  set status = 'failed', next_attempt_at = null, finished_at = p_now, last_error = 'the function stopped in the middle'
  where d.status = 'running'
    and d.next_attempt_at <= p_now
    and fleet.delivery_pause(d.failure_count + 1) is null;

  return query
  with busy as materialized (
    -- One receiver that is slow must not hold every hand.
    select r.endpoint_id
    from public.webhook_deliveries as r
    where r.status = 'running' and r.next_attempt_at > p_now
    group by r.endpoint_id
    having count(*) >= 4
  ),
  due as (
    -- The lock keeps any number of functions from claiming the same one.
    select d.id
    from public.webhook_deliveries as d
    where d.status in ('pending', 'running')
      and d.next_attempt_at <= p_now
      and d.endpoint_id not in (select b.endpoint_id from busy as b)
    order by d.next_attempt_at
    limit least(greatest(p_limit, 1), 100)
    for update skip locked
  ),
  taken as (
    update public.webhook_deliveries as d
    set status = 'running',
        attempts = d.attempts + 1,
        failure_count = d.failure_count + (d.status = 'running')::integer,
        last_attempt_at = p_now,
        next_attempt_at = p_now + interval '1 minute'
    from due
    where d.id = due.id
    returning d.*
  )
  select
    t.id, t.attempts, t.event, t.event_id, e.channel, e.url, e.email,
    fleet.webhook_headers(e.id, t.event_id, t.payload::text, p_now), t.payload::text,
    fleet.setting('webhook_allow_private') = 'true'::jsonb
  from taken as t
  join public.webhook_endpoints as e on e.id = t.endpoint_id;
end;
$$;

comment on function fleet.worker_claim_deliveries(integer, timestamptz) is
  'Lease due messages for a minute, signed for this attempt. Definer: the worker reads no table, and never a secret.';
revoke all on function fleet.worker_claim_deliveries(integer, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_finish_delivery(
  p_delivery_id bigint,
  p_attempt integer,
  p_outcome text,
  p_status integer default null,
  p_error text default null,
  p_retry_after integer default null,
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.webhook_deliveries;
  v_pause interval;
begin
  select d.* into v_row from public.webhook_deliveries as d where d.id = p_delivery_id for update;
  if not found then
    return jsonb_build_object('accepted', false, 'reason', 'not_found');
  elsif v_row.status <> 'running' or v_row.attempts <> p_attempt then
    return jsonb_build_object('accepted', false, 'reason', 'stale_attempt');
  end if;

  if p_outcome = 'retry' then
    v_pause := fleet.delivery_pause(v_row.failure_count + 1);
    -- A tenth more or less, so that what failed together does not come back together; a receiver that asks for more time gets it.
    v_pause := greatest(
      v_pause * (0.9 + random() * 0.2),
      case when v_pause is not null then make_interval(secs => least(greatest(p_retry_after, 0), 86400)) end
    );
  end if;

  update public.webhook_deliveries as d
  set status = case when p_outcome = 'delivered' then 'delivered' when v_pause is not null then 'pending' else 'failed' end,
      failure_count = d.failure_count + (p_outcome <> 'delivered')::integer,
      next_attempt_at = p_now + v_pause,
      delivered_at = case when p_outcome = 'delivered' then p_now end,
      finished_at = case when v_pause is null then p_now end,
      last_status = p_status,
      last_error = left(p_error, 500)
  where d.id = p_delivery_id
  returning * into v_row;

  if p_outcome = 'gone' then
    update public.webhook_endpoints as e
    set enabled = false, disabled_reason = 'the receiver answered 410 Gone'
    where e.id = v_row.endpoint_id and e.enabled;
  end if;
  return jsonb_build_object('accepted', true, 'status', v_row.status, 'next_attempt_at', v_row.next_attempt_at);
end;
$$;

comment on function fleet.worker_finish_delivery(bigint, integer, text, integer, text, integer, timestamptz) is
  'Say how an attempt ended: delivered; retry (later, while there are attempts left); refused (never again); gone (410: refused, and '
  'the endpoint is disabled). {accepted, status, next_attempt_at} or {accepted: false, reason}. Definer: the worker writes no table.';
revoke all on function fleet.worker_finish_delivery(bigint, integer, text, integer, text, integer, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.pass_turnstile(p_name text, p_every interval, p_now timestamptz)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (select 1 from fleet.pokes as k where k.function = p_name) then
    insert into fleet.pokes (function, poked_at) values (p_name, '-infinity') on conflict do nothing;
  end if;

  -- Of two sessions one gets through, and neither waits for the other. A clock that was set back locks nobody out.
  update fleet.pokes as k
  set poked_at = p_now
  where k.function in (select x.function from fleet.pokes as x where x.function = p_name for update skip locked)
    and (k.poked_at <= p_now - p_every or k.poked_at > p_now + interval '1 minute');
  return found;
end;
$$;

comment on function fleet.pass_turnstile(text, interval, timestamptz) is
  'Whether this is the first call under a name for so long: what several tickers may want, and one shall do.';
revoke all on function fleet.pass_turnstile(text, interval, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.poke_once_a_second(p_function text, p_now timestamptz)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if not fleet.pass_turnstile(p_function, interval '900 milliseconds', p_now) then
    return false;
  end if;
  perform fleet.poke(p_function, jsonb_build_object('at', p_now), clock_timestamp());
  return true;
end;
$$;

comment on function fleet.poke_once_a_second(text, timestamptz) is
  'Tell a function that there is work, unless it was told within the last second. Answers whether it was.';
revoke all on function fleet.poke_once_a_second(text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.poke_notify(p_now timestamptz default now())
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (
    select 1
    from public.webhook_deliveries as d
    where d.status in ('pending', 'running') and d.next_attempt_at <= p_now
  ) then
    return false;
  end if;
  return fleet.poke_once_a_second('notify-dispatch', p_now);
end;
$$;

comment on function fleet.poke_notify(timestamptz) is
  'Poke notify-dispatch where a message is due, at most once a second. Answers whether it was poked; called by the tick.';
revoke all on function fleet.poke_notify(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.prune_deliveries(p_before timestamptz, p_limit integer default 5000)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  delete from public.webhook_deliveries as d
  where d.id in (
    select x.id
    from public.webhook_deliveries as x
    where x.finished_at < p_before
    order by x.finished_at
    limit p_limit
  );
  get diagnostics v_count = row_count;
  delete from fleet.webhook_secrets as s where s.expires_at < p_before;
  return v_count;
end;
$$;

comment on function fleet.prune_deliveries(timestamptz, integer) is
  'Delete a batch of messages that ended before then, and secrets that expired. Answers how many messages.';
revoke all on function fleet.prune_deliveries(timestamptz, integer) from public, anon, authenticated, service_role;

-- db/sources/85_notify/endpoint_spec.sql
-- Endpoints as JSON: what is wrong with it, and the row that it makes.

create or replace function fleet.endpoint_spec_problems(p_spec jsonb, p_keys text[])
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select e.key, 'is not a key that may be set here', format('The keys are %s.', array_to_string(p_keys, ', '))
  from jsonb_each(p_spec) as e
  where e.key <> all (p_keys)
  union all
  select e.key, format('must be text, not %s', e.value), 'Write it in quotes.'
  from jsonb_each(p_spec) as e
  where e.key in ('name', 'channel', 'url', 'email') and jsonb_typeof(e.value) not in ('string', 'null')
  union all
  select 'enabled', format('must be true or false, not %s', p_spec -> 'enabled'), 'Write it without quotes.'
  where p_spec ? 'enabled' and jsonb_typeof(p_spec -> 'enabled') <> 'boolean'
  union all
  select 'events', 'must be a list of names', 'Example: {"events": ["run.failed", "schedule.*"]}; ["*"] is everything.'
  where p_spec ? 'events'
    and (
      jsonb_typeof(p_spec -> 'events') <> 'array'
      or jsonb_path_exists(p_spec, '$.events[*] ? (@.type() != "string")')
    )
  union all
  select 'owner_id', format('%s is not a uuid', p_spec -> 'owner_id'), 'Copy the id of the owner.'
  where jsonb_typeof(p_spec -> 'owner_id') <> 'null' and fleet.try_uuid(p_spec ->> 'owner_id') is null
$$;

comment on function fleet.endpoint_spec_problems(jsonb, text[]) is
  'Keys of an endpoint in JSON that are unknown or hold something of another type.';
revoke all on function fleet.endpoint_spec_problems(jsonb, text[]) from public, anon, authenticated, service_role;

create or replace function fleet.endpoint_with(p_endpoint public.webhook_endpoints, p_spec jsonb)
returns public.webhook_endpoints
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.webhook_endpoints := p_endpoint;
begin
  v_row.name := case when p_spec ? 'name' then coalesce(p_spec ->> 'name', '') else v_row.name end;
  v_row.channel := coalesce(p_spec ->> 'channel', v_row.channel);
  v_row.url := case when p_spec ? 'url' then btrim(p_spec ->> 'url') else v_row.url end;
  v_row.email := case when p_spec ? 'email' then btrim(p_spec ->> 'email') else v_row.email end;
  v_row.enabled := coalesce((p_spec ->> 'enabled')::boolean, v_row.enabled);
  if jsonb_typeof(p_spec -> 'events') = 'array' then
    v_row.events := array(select distinct e.name from jsonb_array_elements_text(p_spec -> 'events') as e(name) order by 1);
  end if;
  return v_row;
end;
$$;

comment on function fleet.endpoint_with(public.webhook_endpoints, jsonb) is 'The row with what a specification of the right types says.';
revoke all on function fleet.endpoint_with(public.webhook_endpoints, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.checked_endpoint(p_endpoint public.webhook_endpoints, p_spec jsonb, p_keys text[])
returns public.webhook_endpoints
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.webhook_endpoints;
  v_problems fleet.problem[];
  v_fields text[];
begin
  v_problems := array(select t from fleet.endpoint_spec_problems(p_spec, p_keys) as t);
  v_fields := array(select p.field from unnest(v_problems) as p);

  -- What has the wrong type is left out, so that everything else is still checked in the same answer.
  v_row := fleet.endpoint_with(p_endpoint, p_spec - v_fields);
  perform fleet.raise_problems('the endpoint', 'webhook_endpoint_invalid', v_problems || array_agg(q))
  from fleet.endpoint_problems(v_row) as q
  where q.field <> all (v_fields);
  return v_row;
end;
$$;

comment on function fleet.checked_endpoint(public.webhook_endpoints, jsonb, text[]) is
  'The row that a specification makes of another. Raises webhook_endpoint_invalid (PT422) naming every wrong field.';
revoke all on function fleet.checked_endpoint(public.webhook_endpoints, jsonb, text[])
  from public, anon, authenticated, service_role;

-- db/sources/85_notify/endpoints.sql
-- Endpoints: made, changed, tried out and removed by people; their secrets are shown once.

create or replace function fleet.endpoint_of_caller(p_endpoint_id bigint)
returns public.webhook_endpoints
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.webhook_endpoints;
begin
  select e.* into v_row
  from public.webhook_endpoints as e
  where e.id = p_endpoint_id and fleet.is_visible_owner(e.owner_id)
  -- Messages to it are written all the while.
  for no key update;
  if not found then
    perform fleet.raise_not_found(format('webhook endpoint %s', p_endpoint_id));
  end if;
  perform fleet.require_permission(v_row.owner_id, 'manage', format('webhook endpoint %s', p_endpoint_id));
  return v_row;
end;
$$;

comment on function fleet.endpoint_of_caller(bigint) is
  'The endpoint, locked, if the caller manages it. Raises webhook_endpoint_not_found (PT404) or permission_missing (PT403). Definer: it '
  'must see the row to tell.';
revoke all on function fleet.endpoint_of_caller(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.create_webhook_endpoint(p_spec jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.webhook_endpoints;
begin
  if jsonb_typeof(p_spec) is distinct from 'object' then
    raise exception 'an endpoint must be a JSON object'
      using errcode = 'PT422',
            detail = 'webhook_endpoint_invalid',
            hint = 'Example: {"url": "https://example.com/hooks", "events": ["run.failed"]}';
  end if;

  v_row.owner_id := fleet.owner_or_own(fleet.try_uuid(p_spec ->> 'owner_id'));
  perform fleet.require_permission(v_row.owner_id, 'manage', format('owner %s', v_row.owner_id));
  v_row.name := '';
  v_row.enabled := true;
  v_row.channel := case when p_spec ? 'email' and not p_spec ? 'url' then 'email' else 'webhook' end;
  -- A program can take a message for each command of a large fleet, a person cannot.
  v_row.events := case when v_row.channel = 'email' then '{run.failed,schedule.paused}' else '{*}' end;
  v_row := fleet.checked_endpoint(v_row, p_spec, '{name,channel,url,email,events,enabled,owner_id}');

  insert into public.webhook_endpoints as e (owner_id, name, channel, url, email, events, enabled, created_by)
  values (
    v_row.owner_id, v_row.name, v_row.channel, v_row.url, v_row.email, v_row.events, v_row.enabled, fleet.current_user_id()
  )
  returning * into v_row;

  return to_jsonb(v_row) || jsonb_build_object('secret', (
    select fleet.webhook_secret_text(s.key) from fleet.webhook_secrets as s where s.endpoint_id = v_row.id
  ));
end;
$$;

comment on function fleet.create_webhook_endpoint(jsonb) is 'See public.create_webhook_endpoint. Definer: it checks the caller.';
revoke all on function fleet.create_webhook_endpoint(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.create_webhook_endpoint(jsonb) to authenticated, service_role;

create or replace function public.create_webhook_endpoint(p_spec jsonb)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.create_webhook_endpoint(p_spec)
$$;

comment on function public.create_webhook_endpoint(jsonb) is
  'Be told of events: {"url": "https://…"} or {"email": "…"}, with events (["run.failed", "schedule.*"]; by default all, of a '
  'mailbox run.failed and schedule.paused), name, enabled, owner_id. Answers the row and, this once, "secret" (whsec_…), which '
  'verifies the signatures. Raises webhook_endpoint_invalid (PT422) naming every wrong field, or permission_missing (PT403).';
revoke all on function public.create_webhook_endpoint(jsonb) from public, anon, authenticated, service_role;
grant execute on function public.create_webhook_endpoint(jsonb) to authenticated, service_role;

create or replace function fleet.update_webhook_endpoint(p_endpoint_id bigint, p_changes jsonb)
returns public.webhook_endpoints
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.webhook_endpoints := fleet.endpoint_of_caller(p_endpoint_id);
begin
  if jsonb_typeof(p_changes) is distinct from 'object' then
    raise exception 'the changes of an endpoint must be a JSON object'
      using errcode = 'PT422', detail = 'webhook_endpoint_invalid', hint = 'Example: {"enabled": true}';
  end if;

  v_row := fleet.checked_endpoint(v_row, p_changes, '{name,url,email,events,enabled}');
  update public.webhook_endpoints as e
  set name = v_row.name, url = v_row.url, email = v_row.email, events = v_row.events, enabled = v_row.enabled
  where e.id = p_endpoint_id
  returning * into v_row;
  return v_row;
end;
$$;

comment on function fleet.update_webhook_endpoint(bigint, jsonb) is
  'See public.update_webhook_endpoint. Definer: it checks the caller.';
revoke all on function fleet.update_webhook_endpoint(bigint, jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.update_webhook_endpoint(bigint, jsonb) to authenticated, service_role;

create or replace function public.update_webhook_endpoint(p_endpoint_id bigint, p_changes jsonb)
returns public.webhook_endpoints
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.update_webhook_endpoint(p_endpoint_id, p_changes)
$$;

comment on function public.update_webhook_endpoint(bigint, jsonb) is
  'Change name, url, email, events or enabled. {"enabled": true} wakes one that answered 410. Raises webhook_endpoint_not_found '
  '(PT404), permission_missing (PT403) or webhook_endpoint_invalid (PT422).';
revoke all on function public.update_webhook_endpoint(bigint, jsonb) from public, anon, authenticated, service_role;
grant execute on function public.update_webhook_endpoint(bigint, jsonb) to authenticated, service_role;

create or replace function fleet.rotate_webhook_secret(p_endpoint_id bigint, p_keep interval, p_now timestamptz)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.webhook_endpoints := fleet.endpoint_of_caller(p_endpoint_id);
begin
  if v_row.channel <> 'webhook' then
    raise exception 'webhook endpoint % is a mailbox and has no secret', p_endpoint_id
      using errcode = 'PT409', detail = 'webhook_endpoint_without_secret', hint = 'Only messages by HTTP are signed.';
  elsif p_keep is null or p_keep < interval '0' or p_keep > interval '30 days' then
    raise exception 'p_keep must be an interval from 0 to 30 days'
      using errcode = 'PT422', detail = 'webhook_keep_invalid', hint = 'Example: ''1 day''; 0 ends the former secret at once.';
  end if;

  update fleet.webhook_secrets as s
  set expires_at = least(s.expires_at, p_now + p_keep)
  where s.endpoint_id = p_endpoint_id;
  delete from fleet.webhook_secrets as s where s.endpoint_id = p_endpoint_id and s.expires_at <= p_now;

  return jsonb_build_object(
    'id', p_endpoint_id,
    'secret', fleet.make_webhook_secret(p_endpoint_id),
    'former_expires_at', p_now + p_keep
  );
end;
$$;

comment on function fleet.rotate_webhook_secret(bigint, interval, timestamptz) is
  'See public.rotate_webhook_secret. Definer: it checks the caller.';
revoke all on function fleet.rotate_webhook_secret(bigint, interval, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.rotate_webhook_secret(bigint, interval, timestamptz) to authenticated, service_role;

create or replace function public.rotate_webhook_secret(p_endpoint_id bigint, p_keep interval default '1 day')
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.rotate_webhook_secret(p_endpoint_id, p_keep, now())
$$;

comment on function public.rotate_webhook_secret(bigint, interval) is
  'Make a new secret, shown this once; for the time of p_keep the former one signs too. {id, secret, former_expires_at}. Raises '
  'webhook_endpoint_not_found (PT404), permission_missing (PT403) or webhook_endpoint_without_secret (PT409).';
revoke all on function public.rotate_webhook_secret(bigint, interval) from public, anon, authenticated, service_role;
grant execute on function public.rotate_webhook_secret(bigint, interval) to authenticated, service_role;

create or replace function fleet.delete_webhook_endpoint(p_endpoint_id bigint)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.endpoint_of_caller(p_endpoint_id);
  delete from public.webhook_endpoints as e where e.id = p_endpoint_id;
end;
$$;

comment on function fleet.delete_webhook_endpoint(bigint) is
  'See public.delete_webhook_endpoint. Definer: it checks the caller.';
revoke all on function fleet.delete_webhook_endpoint(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.delete_webhook_endpoint(bigint) to authenticated, service_role;

create or replace function public.delete_webhook_endpoint(p_endpoint_id bigint)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.delete_webhook_endpoint(p_endpoint_id)
$$;

comment on function public.delete_webhook_endpoint(bigint) is
  'Remove an endpoint with its secret and its messages. Raises webhook_endpoint_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.delete_webhook_endpoint(bigint) from public, anon, authenticated, service_role;
grant execute on function public.delete_webhook_endpoint(bigint) to authenticated, service_role;

-- db/sources/85_notify/events.sql
-- Events: what can happen, who wants to hear of it, and the outbox that they are written to.

create or replace function fleet.event_types()
returns table (name text, description text)
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  values
    ('run.completed', 'Every command of a run was carried out.'),
    ('run.failed', 'A run ended, and a command of it failed, expired or was cancelled.'),
    ('run.skipped', 'A due instant passed without a run; the reason is told.'),
    ('schedule.paused', 'A schedule was paused, by a person or because its runs failed.'),
    ('schedule.completed', 'A schedule has no due instant left.'),
    ('command.failed', 'A command failed for good.'),
    ('webhook.test', 'Somebody asked for a message to try an endpoint out.')
$$;

comment on function fleet.event_types() is 'Every event that an endpoint may ask for by its name.';
revoke all on function fleet.event_types() from public, anon, authenticated, service_role;

create or replace function fleet.event_matches(p_patterns text[], p_event text)
returns boolean
language sql
immutable
parallel safe
return p_patterns && array['*', p_event, split_part(p_event, '.', 1) || '.*'];

comment on function fleet.event_matches(text[], text) is 'Whether an event is among those asked for: *, run.* or run.failed.';
revoke all on function fleet.event_matches(text[], text) from public, anon, authenticated, service_role;

create or replace function fleet.event_payload(p_event text, p_subject jsonb, p_now timestamptz)
returns jsonb
language sql
immutable
parallel safe
return jsonb_build_object(
  'type', p_event,
  'timestamp', to_char(p_now at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
  'data', p_subject
);

comment on function fleet.event_payload(text, jsonb, timestamptz) is 'The body of a message, as Standard Webhooks has it.';
revoke all on function fleet.event_payload(text, jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.emit_events(p_owner_ids uuid[], p_event text, p_subjects jsonb[])
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  with happened as materialized (
    select u.owner_id, u.subject, 'evt_' || replace(gen_random_uuid()::text, '-', '') as event_id
    from unnest(p_owner_ids, p_subjects) as u(owner_id, subject)
  )
  insert into public.webhook_deliveries (endpoint_id, owner_id, event_id, event, payload, next_attempt_at)
  select e.id, e.owner_id, h.event_id, p_event, fleet.event_payload(p_event, h.subject, clock_timestamp()), clock_timestamp()
  from happened as h
  join public.webhook_endpoints as e on e.owner_id = h.owner_id
  where e.enabled
    and fleet.event_matches(e.events, p_event)
  -- An endpoint that is just being deleted must hold up neither the tick nor a device.
  for key share of e skip locked;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.emit_events(uuid[], text, jsonb[]) is
  'Tell every endpoint that wants it that something of one kind happened, once for each owner and subject (arrays of one length). '
  'Answers how many messages were written.';
revoke all on function fleet.emit_events(uuid[], text, jsonb[]) from public, anon, authenticated, service_role;

-- db/sources/85_notify/resend.sql
-- What people send by hand: a test, and what was sent before.

create or replace function fleet.test_webhook_endpoint(p_endpoint_id bigint, p_now timestamptz)
returns public.webhook_deliveries
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_endpoint public.webhook_endpoints := fleet.endpoint_of_caller(p_endpoint_id);
  v_row public.webhook_deliveries;
begin
  perform fleet.require_enabled(v_endpoint);
  insert into public.webhook_deliveries as d (endpoint_id, owner_id, event_id, event, payload, next_attempt_at)
  values (
    v_endpoint.id, v_endpoint.owner_id, 'evt_' || replace(gen_random_uuid()::text, '-', ''), 'webhook.test',
    fleet.event_payload(
      'webhook.test',
      jsonb_build_object('endpoint_id', v_endpoint.id, 'name', v_endpoint.name, 'message', 'pgfleet reaches this endpoint'),
      p_now
    ),
    p_now
  )
  returning d.* into v_row;
  return v_row;
end;
$$;

comment on function fleet.test_webhook_endpoint(bigint, timestamptz) is
  'See public.test_webhook_endpoint. Definer: it checks the caller.';
revoke all on function fleet.test_webhook_endpoint(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.test_webhook_endpoint(bigint, timestamptz) to authenticated, service_role;

create or replace function public.test_webhook_endpoint(p_endpoint_id bigint)
returns public.webhook_deliveries
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.test_webhook_endpoint(p_endpoint_id, clock_timestamp())
$$;

comment on function public.test_webhook_endpoint(bigint) is
  'Send the event webhook.test to an endpoint, whatever it asks for. Answers the message, whose status tells what became of it. Raises '
  'webhook_endpoint_not_found (PT404), permission_missing (PT403) or webhook_endpoint_disabled (PT409).';
revoke all on function public.test_webhook_endpoint(bigint) from public, anon, authenticated, service_role;
grant execute on function public.test_webhook_endpoint(bigint) to authenticated, service_role;

create or replace function fleet.require_enabled(p_endpoint public.webhook_endpoints)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if not p_endpoint.enabled then
    raise exception 'webhook endpoint % is disabled', p_endpoint.id
      using errcode = 'PT409',
            detail = 'webhook_endpoint_disabled',
            hint = format('Enable it: select update_webhook_endpoint(%s, ''{"enabled": true}'')', p_endpoint.id);
  end if;
end;
$$;

comment on function fleet.require_enabled(public.webhook_endpoints) is 'Raise webhook_endpoint_disabled (PT409).';
revoke all on function fleet.require_enabled(public.webhook_endpoints) from public, anon, authenticated, service_role;

create or replace function fleet.redeliver(p_delivery_id bigint, p_now timestamptz)
returns public.webhook_deliveries
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_endpoint_id bigint;
  v_endpoint public.webhook_endpoints;
  v_row public.webhook_deliveries;
begin
  select d.endpoint_id into v_endpoint_id
  from public.webhook_deliveries as d
  where d.id = p_delivery_id and fleet.is_visible_owner(d.owner_id);
  if not found then
    perform fleet.raise_not_found(format('webhook delivery %s', p_delivery_id));
  end if;
  v_endpoint := fleet.endpoint_of_caller(v_endpoint_id);
  perform fleet.require_enabled(v_endpoint);

  update public.webhook_deliveries as d
  set status = 'pending', failure_count = 0, next_attempt_at = p_now, finished_at = null
  where d.id = p_delivery_id and d.status <> 'running'
  returning * into v_row;
  if not found then
    select d.* into v_row from public.webhook_deliveries as d where d.id = p_delivery_id;
  end if;
  return v_row;
end;
$$;

comment on function fleet.redeliver(bigint, timestamptz) is 'See public.redeliver. Definer: it checks the caller.';
revoke all on function fleet.redeliver(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.redeliver(bigint, timestamptz) to authenticated, service_role;

create or replace function public.redeliver(p_delivery_id bigint)
returns public.webhook_deliveries
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.redeliver(p_delivery_id, clock_timestamp())
$$;

comment on function public.redeliver(bigint) is
  'Send a message again, delivered or failed, under the same id; one that waits for its next attempt goes at once. Raises '
  'webhook_delivery_not_found (PT404), permission_missing (PT403) or webhook_endpoint_disabled (PT409).';
revoke all on function public.redeliver(bigint) from public, anon, authenticated, service_role;
grant execute on function public.redeliver(bigint) to authenticated, service_role;

-- db/sources/85_notify/schedule_api.sql
-- What the function schedule-api may do, on behalf of a signed-in person whose token it has verified. As the worker is no
-- member of anything, each call here either checks the caller by the claims or filters by the caller's owners itself.

create or replace function fleet.my_task(p_task_id bigint)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_task jsonb;
begin
  select to_jsonb(t) into v_task
  from public.schedules as s
  join public.scheduled_tasks as t on t.id = s.id
  where s.id = p_task_id
    and s.owner_id in (select o.id from fleet.my_owners() as o(id));
  if not found then
    perform fleet.raise_not_found(format('schedule %s', p_task_id));
  end if;
  return v_task;
end;
$$;

comment on function fleet.my_task(bigint) is
  'One of the caller''s schedules, with the columns of scheduled_tasks. Raises schedule_not_found (PT404).';
revoke all on function fleet.my_task(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.my_tasks(p_args jsonb)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_agg(to_jsonb(t) order by t.id), '[]')
  from (
    select t.*
    from public.schedules as s
    join public.scheduled_tasks as t on t.id = s.id
    where s.owner_id in (select o.id from fleet.my_owners() as o(id))
      and (p_args ->> 'status' is null or t.status = p_args ->> 'status')
      and (p_args ->> 'task_type' is null or t.task_type = p_args ->> 'task_type')
    order by t.id
    limit coalesce((p_args ->> 'limit')::integer, 100)
    offset coalesce((p_args ->> 'offset')::integer, 0)
  ) as t
$$;

comment on function fleet.my_tasks(jsonb) is
  'The caller''s schedules, with the columns of scheduled_tasks, by status and task_type; limit and offset page through them.';
revoke all on function fleet.my_tasks(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.my_executions(p_task_id bigint, p_args jsonb)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.my_task(p_task_id);
  return (
    select coalesce(jsonb_agg(to_jsonb(e) order by e.id desc), '[]')
    from (
      select x.*
      from public.scheduled_task_executions as x
      where x.task_id = p_task_id
        and (p_args ->> 'run_id' is null or x.id = (p_args ->> 'run_id')::bigint)
      order by x.id desc
      limit coalesce((p_args ->> 'limit')::integer, 100)
      offset coalesce((p_args ->> 'offset')::integer, 0)
    ) as e
  );
end;
$$;

comment on function fleet.my_executions(bigint, jsonb) is
  'The history of one of the caller''s schedules, the newest first. Raises schedule_not_found (PT404).';
revoke all on function fleet.my_executions(bigint, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.my_execution_counts(p_since timestamptz)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with counted as materialized (
    select r.status, count(*) as n
    from public.schedule_runs as r
    where r.owner_id in (select o.id from fleet.my_owners() as o(id))
      and (p_since is null or r.created_at > p_since)
    group by r.status
  )
  select jsonb_build_object(
    'total', (select coalesce(sum(c.n), 0) from counted as c),
    'by_status', (select coalesce(jsonb_object_agg(c.status, c.n), '{}') from counted as c),
    'success_rate', (
      select round(
        100.0 * coalesce(sum(c.n) filter (where c.status = 'completed'), 0)
        / nullif(sum(c.n) filter (where c.status in ('completed', 'failed')), 0), 1
      )
      from counted as c
    )
  )
$$;

comment on function fleet.my_execution_counts(timestamptz) is
  'How the caller''s executions ended, since an instant or ever: {total, by_status, success_rate} in percent.';
revoke all on function fleet.my_execution_counts(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.my_task_stats(p_now timestamptz)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- public.schedule_stats leaves it to row security whose schedules count, and none holds here.
  with mine as materialized (
    select t.id, t.task_name, t.task_type, t.recurrence_type, t.status, t.next_execution
    from public.schedules as s
    join public.scheduled_tasks as t on t.id = s.id
    where s.owner_id in (select o.id from fleet.my_owners() as o(id))
  )
  select jsonb_build_object(
    'now', p_now,
    'total', (select count(*) from mine),
    'by_status', (
      select coalesce(jsonb_object_agg(k.status, k.n), '{}')
      from (select m.status, count(*) as n from mine as m group by m.status) as k
    ),
    'by_type', (
      select coalesce(jsonb_object_agg(k.task_type, k.n), '{}')
      from (select m.task_type, count(*) as n from mine as m group by m.task_type) as k
    ),
    'by_recurrence', (
      select coalesce(jsonb_object_agg(k.recurrence_type, k.n), '{}')
      from (select m.recurrence_type, count(*) as n from mine as m group by m.recurrence_type) as k
    ),
    'next_due', (
      select coalesce(jsonb_agg(to_jsonb(d) order by d.next_execution, d.id), '[]')
      from (
        select m.id, m.task_name, m.next_execution
        from mine as m
        where m.status in ('pending', 'running') and m.next_execution is not null
        order by m.next_execution, m.id
        limit 5
      ) as d
    ),
    'executions', fleet.my_execution_counts(null)
      || jsonb_build_object('last_24_hours', fleet.my_execution_counts(p_now - interval '24 hours'))
  )
$$;

comment on function fleet.my_task_stats(timestamptz) is
  'The caller''s tasks and executions in numbers: {total, by_status, by_type, by_recurrence, next_due, executions}.';
revoke all on function fleet.my_task_stats(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.call_as_user(p_call text, p_args jsonb)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id bigint := (p_args ->> 'id')::bigint;
  v_answer jsonb;
begin
  case p_call
    when 'list_tasks' then
      return fleet.my_tasks(p_args);
    when 'create_task' then
      v_answer := public.create_schedule(p_args -> 'spec');
      return fleet.my_task((v_answer ->> 'id')::bigint) || jsonb_build_object('warnings', v_answer -> 'warnings');
    when 'get_task' then
      return fleet.my_task(v_id);
    when 'update_task' then
      v_answer := public.update_schedule(v_id, p_args -> 'changes');
      return fleet.my_task(v_id) || jsonb_build_object('warnings', v_answer -> 'warnings');
    when 'delete_task' then
      perform public.delete_schedule(v_id);
      return jsonb_build_object('id', v_id, 'deleted', true);
    when 'pause_task' then
      perform public.pause_schedule(v_id, p_args ->> 'reason');
      return fleet.my_task(v_id);
    when 'resume_task' then
      perform public.resume_schedule(v_id);
      return fleet.my_task(v_id);
    when 'execute_task' then
      v_answer := to_jsonb(public.run_schedule(v_id, p_args ->> 'idempotency_key'));
      return fleet.my_executions(v_id, jsonb_build_object('run_id', v_answer -> 'id')) -> 0;
    when 'list_executions' then
      return fleet.my_executions(v_id, p_args);
    when 'stats' then
      return fleet.my_task_stats(now());
    else
      raise exception 'call "%" is not known', p_call
        using errcode = 'PT404', detail = 'call_not_found', hint = 'Functions and database differ in version: run pgfleet db migrate.';
  end case;
end;
$$;

comment on function fleet.call_as_user(text, jsonb) is 'The calls that worker_as_user lets through.';
revoke all on function fleet.call_as_user(text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.worker_as_user(p_claims jsonb, p_call text, p_args jsonb default '{}')
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_answer jsonb;
begin
  -- Claims without a role, or of the service role, would be trusted with everything.
  if p_claims ->> 'role' is distinct from 'authenticated' then
    raise exception 'only a signed-in person may do this'
      using errcode = 'PT403', detail = 'not_a_person', hint = 'Send the access token of a signed-in user.';
  end if;

  perform set_config('request.jwt.claims', p_claims::text, true);
  if fleet.current_user_id() is null then
    raise exception 'a device may not do this'
      using errcode = 'PT403', detail = 'not_a_person', hint = 'Sign in as a member of the fleet.';
  end if;
  v_answer := fleet.call_as_user(p_call, p_args);
  perform set_config('request.jwt.claims', '', true);
  return v_answer;
end;
$$;

comment on function fleet.worker_as_user(jsonb, text, jsonb) is
  'Do one of a few calls as the person of a token that the function has verified. Raises not_a_person (PT403) and what the call '
  'raises. Definer: the worker has no rights; the claims, never the worker, decide what is seen and changed.';
revoke all on function fleet.worker_as_user(jsonb, text, jsonb) from public, anon, authenticated, service_role;

-- db/sources/85_notify/signatures.sql
-- Signatures by Standard Webhooks (https://www.standardwebhooks.com): made here, so that no secret leaves the database
-- after it was shown.

create or replace function fleet.webhook_secret_text(p_key bytea)
returns text
language sql
immutable
parallel safe
return 'whsec_' || replace(encode(p_key, 'base64'), E'\n', '');

comment on function fleet.webhook_secret_text(bytea) is 'A signing key as its receiver writes it down.';
revoke all on function fleet.webhook_secret_text(bytea) from public, anon, authenticated, service_role;

create or replace function fleet.webhook_signature(p_key bytea, p_id text, p_timestamp bigint, p_body text)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select 'v1,' || replace(
    encode(fleet.hmac_sha256(convert_to(p_id || '.' || p_timestamp || '.' || p_body, 'UTF8'), p_key), 'base64'), E'\n', ''
  )
$$;

comment on function fleet.webhook_signature(bytea, text, bigint, text) is
  'HMAC-SHA256 over id, time (seconds since 1970) and body, as v1,<base64>.';
revoke all on function fleet.webhook_signature(bytea, text, bigint, text) from public, anon, authenticated, service_role;

create or replace function fleet.webhook_headers(p_endpoint_id bigint, p_id text, p_body text, p_now timestamptz)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'webhook-id', p_id,
    'webhook-timestamp', t.seconds::text,
    -- While a secret is being replaced both sign; any one that fits is enough for the receiver.
    'webhook-signature', string_agg(fleet.webhook_signature(s.key, p_id, t.seconds, p_body), ' ' order by s.created_at desc)
  )
  from (select floor(extract(epoch from p_now))::bigint as seconds) as t
  cross join fleet.webhook_secrets as s
  where s.endpoint_id = p_endpoint_id
    and (s.expires_at is null or s.expires_at > p_now)
  group by t.seconds
$$;

comment on function fleet.webhook_headers(bigint, text, text, timestamptz) is
  'The headers webhook-id, webhook-timestamp and webhook-signature of one attempt.';
revoke all on function fleet.webhook_headers(bigint, text, text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.make_webhook_secret(p_endpoint_id bigint)
returns text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_key bytea := decode(fleet.random_secret(), 'hex');
begin
  insert into fleet.webhook_secrets (endpoint_id, key, created_at) values (p_endpoint_id, v_key, clock_timestamp());
  return fleet.webhook_secret_text(v_key);
end;
$$;

comment on function fleet.make_webhook_secret(bigint) is 'Give an endpoint one more secret, and answer it as text.';
revoke all on function fleet.make_webhook_secret(bigint) from public, anon, authenticated, service_role;

-- db/sources/85_notify/triggers.sql
-- What holds for endpoints however a row is written.

create or replace function fleet.tg_check_webhook_endpoint()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.raise_problems('the endpoint', 'webhook_endpoint_invalid', array_agg(q))
  from fleet.endpoint_problems(new) as q;
  new.updated_at := now();
  if new.enabled then
    new.disabled_reason := null;
  else
    new.disabled_reason := coalesce(new.disabled_reason, 'it was disabled by hand');
  end if;
  return new;
end;
$$;

comment on function fleet.tg_check_webhook_endpoint() is
  'Refuse endpoints that are not valid. Definer: whoever may write the table may not call what it checks with.';
revoke all on function fleet.tg_check_webhook_endpoint() from public, anon, authenticated, service_role;

create or replace function fleet.tg_make_webhook_secret()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.make_webhook_secret(new.id);
  return null;
end;
$$;

comment on function fleet.tg_make_webhook_secret() is
  'Give every webhook a secret: nothing leaves unsigned. Definer: nobody else writes secrets.';
revoke all on function fleet.tg_make_webhook_secret() from public, anon, authenticated, service_role;

create or replace function fleet.tg_end_deliveries()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  update public.webhook_deliveries as d
  set status = 'failed', next_attempt_at = null, finished_at = clock_timestamp(), last_error = 'the endpoint is disabled'
  where d.endpoint_id = new.id and d.status = 'pending';
  return null;
end;
$$;

comment on function fleet.tg_end_deliveries() is
  'End what waits for an endpoint that is disabled; it can be sent again later. Definer: nobody else writes deliveries.';
revoke all on function fleet.tg_end_deliveries() from public, anon, authenticated, service_role;

create or replace trigger webhook_endpoints_01_fill_owner
  before insert on public.webhook_endpoints
  for each row execute function fleet.tg_owner_from_caller();

create or replace trigger webhook_endpoints_02_check
  before insert or update on public.webhook_endpoints
  for each row execute function fleet.tg_check_webhook_endpoint();

create or replace trigger webhook_endpoints_03_make_secret
  after insert on public.webhook_endpoints
  for each row
  when (new.channel = 'webhook')
  execute function fleet.tg_make_webhook_secret();

create or replace trigger webhook_endpoints_04_end_deliveries
  after update of enabled on public.webhook_endpoints
  for each row
  when (old.enabled and not new.enabled)
  execute function fleet.tg_end_deliveries();

-- db/sources/85_notify/policies.sql
-- Who sees endpoints, messages and feeds: the owner's people; who manages, changes them through functions. Devices see none.

revoke all on table public.webhook_endpoints, public.webhook_deliveries, public.calendar_feeds, fleet.webhook_secrets, fleet.pokes
  from public, anon, authenticated, service_role;
revoke all on sequence public.webhook_endpoints_id_seq, public.webhook_deliveries_id_seq, public.calendar_feeds_id_seq
  from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.webhook_endpoints, public.webhook_deliveries, public.calendar_feeds
  to service_role;
grant usage, select on sequence public.webhook_endpoints_id_seq, public.webhook_deliveries_id_seq, public.calendar_feeds_id_seq
  to service_role;

drop policy if exists webhook_endpoints_all_service_role on public.webhook_endpoints;
create policy webhook_endpoints_all_service_role on public.webhook_endpoints
  for all to service_role using (true) with check (true);
drop policy if exists webhook_deliveries_all_service_role on public.webhook_deliveries;
create policy webhook_deliveries_all_service_role on public.webhook_deliveries
  for all to service_role using (true) with check (true);
drop policy if exists calendar_feeds_all_service_role on public.calendar_feeds;
create policy calendar_feeds_all_service_role on public.calendar_feeds
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

-- Everything but the hash of the secret.
grant select (id, owner_id, name, filter, last_read_at, revoked_at, created_by, created_at)
  on table public.calendar_feeds to authenticated;
drop policy if exists calendar_feeds_select_member on public.calendar_feeds;
create policy calendar_feeds_select_member on public.calendar_feeds
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

set check_function_bodies = on;
reset search_path;
