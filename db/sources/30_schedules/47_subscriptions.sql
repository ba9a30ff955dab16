-- Blackout calendars that follow a calendar elsewhere: looked at daily by the function calendar-dispatch, and replaced by what it finds.

create or replace function fleet.subscription_problems(p_url text, p_timezone text)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select 'url', coalesce(u.problem, 'is missing'), 'Example: https://example.com/holidays.ics'
  from fleet.webhook_url_problem(p_url, fleet.setting('webhook_allow_private') = 'true'::jsonb) as u (problem)
  where p_url is null or u.problem is not null
  union all
  select 'timezone', format('"%s" is not a known time zone', left(p_timezone, 60)), 'Use an IANA name such as Europe/Berlin.'
  where p_timezone is not null and not fleet.is_time_zone(p_timezone)
$$;

comment on function fleet.subscription_problems(text, text) is 'What is wrong with where a calendar is to come from.';
revoke all on function fleet.subscription_problems(text, text) from public, anon, authenticated, service_role;

create or replace function fleet.subscribe_blackouts(
  p_url text,
  p_name text,
  p_timezone text,
  p_skip_transparent boolean,
  p_owner_id uuid
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid := fleet.owner_or_own(p_owner_id);
  -- Calendar programs write webcal: for what is fetched by https.
  v_url text := regexp_replace(btrim(p_url), '^webcals?://', 'https://', 'i');
  v_name text := coalesce(nullif(btrim(p_name), ''), substring(v_url from '^https?://([^/:?]+)'));
  v_id bigint;
begin
  perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
  perform fleet.raise_problems('the subscription', 'calendar_invalid', array_agg(q::fleet.problem))
  from fleet.subscription_problems(v_url, p_timezone) as q;
  perform fleet.check_calendar(v_name, '[]');

  select c.id into v_id
  from public.blackout_calendars as c
  where c.owner_id = v_owner and lower(c.name) = lower(v_name);
  if v_id is null then
    v_id := fleet.store_calendar(v_owner, v_name, '', '[]');
  end if;
  -- What it holds stays until the first look has brought something.
  update public.blackout_calendars as c
  set url = v_url, url_timezone = p_timezone, skip_transparent = coalesce(p_skip_transparent, false),
    look_next_at = now(), look_held_until = null, look_attempt = c.look_attempt + 1, look_failures = 0, look_error = null,
    look_tag = null, look_modified = null
  where c.id = v_id
    and (c.url, c.url_timezone, c.skip_transparent) is distinct from (v_url, p_timezone, coalesce(p_skip_transparent, false));
  perform fleet.poke('calendar-dispatch', jsonb_build_object('at', clock_timestamp()), clock_timestamp());
  return (select to_jsonb(c) from public.blackout_calendars as c where c.id = v_id);
end;
$$;

comment on function fleet.subscribe_blackouts(text, text, text, boolean, uuid) is 'See public.subscribe_blackouts. Definer: it checks the caller.';
revoke all on function fleet.subscribe_blackouts(text, text, text, boolean, uuid) from public, anon, authenticated, service_role;
grant execute on function fleet.subscribe_blackouts(text, text, text, boolean, uuid) to authenticated, service_role;

create or replace function public.subscribe_blackouts(
  p_url text,
  p_name text default null,
  p_timezone text default null,
  p_skip_transparent boolean default false,
  p_owner_id uuid default null
)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.subscribe_blackouts(p_url, p_name, p_timezone, p_skip_transparent, p_owner_id)
$$;

comment on function public.subscribe_blackouts(text, text, text, boolean, uuid) is
  'Let the calendar of this name (that of the host, where none is given; made where there is none) follow an iCalendar file elsewhere: the '
  'functions look at it daily and replace its periods. p_timezone is for times that name no zone. Answers the row; what the looks '
  'brought is in looked_at, look_error and look_note. Raises calendar_invalid (PT422) or permission_missing (PT403).';
revoke all on function public.subscribe_blackouts(text, text, text, boolean, uuid) from public, anon, authenticated, service_role;
grant execute on function public.subscribe_blackouts(text, text, text, boolean, uuid) to authenticated, service_role;

create or replace function fleet.end_subscription(p_calendar_id bigint)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  update public.blackout_calendars as c
  set url = null, url_timezone = null, skip_transparent = false, look_next_at = null, look_held_until = null,
    look_attempt = c.look_attempt + 1, look_failures = 0, look_error = null, look_note = null, look_tag = null, look_modified = null
  where c.id = p_calendar_id and c.url is not null
$$;

comment on function fleet.end_subscription(bigint) is 'Let a calendar follow no other any more; its periods stay.';
revoke all on function fleet.end_subscription(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.unsubscribe_blackouts(p_calendar_id bigint)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid;
begin
  select c.owner_id into v_owner
  from public.blackout_calendars as c
  where c.id = p_calendar_id and fleet.is_visible_owner(c.owner_id)
  for update;
  if not found then
    perform fleet.raise_not_found(format('calendar %s', p_calendar_id));
  end if;
  perform fleet.require_permission(v_owner, 'manage', format('calendar %s', p_calendar_id));
  perform fleet.end_subscription(p_calendar_id);
  return (select to_jsonb(c) from public.blackout_calendars as c where c.id = p_calendar_id);
end;
$$;

comment on function fleet.unsubscribe_blackouts(bigint) is 'See public.unsubscribe_blackouts. Definer: it checks the caller.';
revoke all on function fleet.unsubscribe_blackouts(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.unsubscribe_blackouts(bigint) to authenticated, service_role;

create or replace function public.unsubscribe_blackouts(p_calendar_id bigint)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.unsubscribe_blackouts(p_calendar_id)
$$;

comment on function public.unsubscribe_blackouts(bigint) is
  'Let a calendar follow no other any more; the periods that it has stay. Answers the row. Raises calendar_not_found (PT404) or '
  'permission_missing (PT403).';
revoke all on function public.unsubscribe_blackouts(bigint) from public, anon, authenticated, service_role;
grant execute on function public.unsubscribe_blackouts(bigint) to authenticated, service_role;

create or replace function fleet.worker_claim_calendars(p_shares jsonb default '{}', p_now timestamptz default clock_timestamp())
returns setof jsonb
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  with due as materialized (
    select c.id, c.owner_id, c.look_next_at
    from public.blackout_calendars as c
    where c.look_next_at <= p_now and (c.look_held_until is null or c.look_held_until <= p_now)
    order by c.look_next_at
    limit 500
    for update skip locked
  ),
  chosen as (
    select t.id
    from (
      select d.*, row_number() over (partition by d.owner_id order by d.look_next_at) as turn
      from due as d
    ) as t
    where t.turn <= fleet.share_of(p_shares, 'owner', t.owner_id::text)
    -- Owners in turn, and nobody is always last.
    order by t.turn, random()
    limit fleet.share_in_all(p_shares)
  ),
  taken as (
    update public.blackout_calendars as c
    set look_held_until = p_now + interval '3 minutes',
      look_attempt = c.look_attempt + 1,
      -- One that ends its function each time is looked at ever more rarely.
      look_failures = c.look_failures + (c.look_held_until is not null)::integer
    from chosen as x
    where c.id = x.id
    returning c.*
  )
  select jsonb_build_object(
    'calendar_id', t.id, 'owner_id', t.owner_id, 'attempt', t.look_attempt, 'url', t.url, 'timezone', t.url_timezone,
    'skip_transparent', t.skip_transparent,
    'allow_private', fleet.setting('webhook_allow_private') = 'true'::jsonb,
    -- What repeats for ever is read some years ahead: now and then it is read again, though it is the same.
    'tag', case when t.changed_at > p_now - interval '30 days' then t.look_tag end,
    'modified', case when t.changed_at > p_now - interval '30 days' then t.look_modified end
  )
  from taken as t
$$;

comment on function fleet.worker_claim_calendars(jsonb, timestamptz) is
  'Lease calendars that are to be looked at: {calendar_id, owner_id, attempt, url, timezone, skip_transparent, allow_private, tag, modified}; '
  'owners in turn, as many of each owner as p_shares allows. Definer: the worker reads no table.';
revoke all on function fleet.worker_claim_calendars(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.replaced_periods(p_calendar public.blackout_calendars, p_periods jsonb)
returns text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.check_calendar(p_calendar.name, p_periods);
  -- What is the same is not written again: most calendars change once a year.
  if exists (
    with found as (
      select fleet.try_date(e.item ->> 'starts_on') as starts_on, fleet.try_date(e.item ->> 'ends_on') as ends_on,
        fleet.try_exact_instant(e.item ->> 'starts_at') as starts_at, fleet.try_exact_instant(e.item ->> 'ends_at') as ends_at,
        coalesce(e.item ->> 'summary', '') as summary
      from jsonb_array_elements(p_periods) as e (item)
    ),
    known as (
      select p.starts_on, p.ends_on, p.starts_at, p.ends_at, p.summary
      from public.blackout_periods as p
      where p.calendar_id = p_calendar.id
    )
    (table found except all table known) union all (table known except all table found)
  ) then
    perform fleet.store_calendar(p_calendar.owner_id, p_calendar.name, null, p_periods);
  end if;
  return null;
exception
  when sqlstate 'PT422' then
    return left(sqlerrm, 4000);
end;
$$;

comment on function fleet.replaced_periods(public.blackout_calendars, jsonb) is
  'Give a calendar what was found elsewhere; answers why not, where there is too much of it.';
revoke all on function fleet.replaced_periods(public.blackout_calendars, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.worker_finish_calendar(
  p_calendar_id bigint,
  p_attempt integer,
  p_found jsonb,
  p_error text default null,
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.blackout_calendars;
  v_error text := left(p_error, 4000);
begin
  select c.* into v_row from public.blackout_calendars as c where c.id = p_calendar_id for update;
  if not found or v_row.look_attempt <> p_attempt or v_row.url is null then
    return '{"accepted": false, "reason": "stale_attempt"}';
  elsif v_error is null and p_found ? 'periods' then
    v_error := fleet.replaced_periods(v_row, p_found -> 'periods');
  end if;

  update public.blackout_calendars as c
  set looked_at = p_now,
    look_held_until = null,
    look_error = v_error,
    look_failures = case when v_error is null then 0 else c.look_failures + 1 end,
    -- Daily, each at a time of its own; after a failure sooner, then ever later, at most a day.
    look_next_at = p_now + case
      when v_error is null then interval '1 day' - (c.id % 3600) * interval '1 second'
      else least(interval '1 day', interval '15 minutes' * power(2, least(c.look_failures, 10)))
    end,
    changed_at = case when v_error is null and p_found ? 'periods' then p_now else c.changed_at end,
    look_note = case when v_error is null and p_found ? 'periods' then left(p_found ->> 'note', 2000) else c.look_note end,
    look_tag = case when v_error is null and p_found ? 'periods' then left(p_found ->> 'tag', 2000) else c.look_tag end,
    look_modified = case
      when v_error is null and p_found ? 'periods' then left(p_found ->> 'modified', 2000) else c.look_modified
    end
  where c.id = p_calendar_id;
  return jsonb_build_object('accepted', true, 'status', case
    when v_error is not null then 'failed' when p_found ? 'periods' then 'changed' else 'unchanged'
  end);
end;
$$;

comment on function fleet.worker_finish_calendar(bigint, integer, jsonb, text, timestamptz) is
  'Write down what a look at a calendar brought: {periods, note, tag, modified}, {} where nothing has changed, or an error, after which '
  'it stays as it was. Answers {accepted, status} or the reason why not. Definer: the worker writes no table.';
revoke all on function fleet.worker_finish_calendar(bigint, integer, jsonb, text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.poke_calendars(p_now timestamptz default now())
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- The first by time is one look into the index, however many there are.
  return coalesce(
    (
      select c.look_next_at <= p_now
      from public.blackout_calendars as c
      where c.look_next_at is not null and (c.look_held_until is null or c.look_held_until <= p_now)
      order by c.look_next_at
      limit 1
    ),
    false
  ) and fleet.poke_once_a_second('calendar-dispatch', p_now);
end;
$$;

comment on function fleet.poke_calendars(timestamptz) is
  'Poke calendar-dispatch where a calendar is to be looked at, at most once a second. Answers whether it was poked; called by the tick.';
revoke all on function fleet.poke_calendars(timestamptz) from public, anon, authenticated, service_role;
