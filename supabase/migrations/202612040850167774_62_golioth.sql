-- Generated from db/sources/62_golioth by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/62_golioth/10_settings.sql
-- What a Golioth integration is told, and what may be wrong with it.

create or replace function fleet.golioth_defaults()
returns jsonb
language sql
immutable
parallel safe
return '{"syncEnabled": true, "syncIntervalSeconds": 300, "rate_per_second": 5, "burst": 5, "direction": "import",
  "conflict": "newest", "overlapSeconds": 120, "streamScope": "project", "reads": ["status", "state", "stream"]}'::jsonb;

comment on function fleet.golioth_defaults() is 'The settings of a Golioth integration where nobody says otherwise.';
revoke all on function fleet.golioth_defaults() from public, anon, authenticated, service_role;

create or replace function fleet.golioth_setting_bounds()
returns table (name text, smallest integer, largest integer)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  values ('syncIntervalSeconds', 60, 2592000), ('overlapSeconds', 0, 86400), ('apiCallsPerMonth', 100, 1000000000)
$$;

comment on function fleet.golioth_setting_bounds() is 'Settings that are whole numbers, with the least and the most.';
revoke all on function fleet.golioth_setting_bounds() from public, anon, authenticated, service_role;

create or replace function fleet.golioth_filter_problems(p_filter jsonb)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select 'settings.deviceFilter', 'must be an object', 'Example: {"tags": ["field"], "names": ["sensor-*"]}'
  where jsonb_typeof(p_filter) <> 'object'
  union all
  select 'settings.deviceFilter.' || k.key, 'is not known', 'Known are tags, names, blueprint and cohort.'
  from jsonb_object_keys(fleet.object_or_empty(p_filter)) as k(key)
  where k.key <> all ('{tags,names,blueprint,cohort}'::text[])
  union all
  select 'settings.deviceFilter.' || n.name, 'must be a list of texts', 'Example: ["field"]'
  from unnest('{tags,names}'::text[]) as n(name)
  where p_filter ? n.name and not fleet.are_ids(p_filter -> n.name)
  union all
  select q.*
  from unnest('{tags,names}'::text[]) as n(name)
  cross join lateral fleet.list_problem('settings.deviceFilter.' || n.name, 'selector_list', p_filter -> n.name) as q
  union all
  select 'settings.deviceFilter.' || n.name, 'must be a text', 'Give the id that Golioth shows.'
  from unnest('{blueprint,cohort}'::text[]) as n(name)
  where jsonb_typeof(p_filter -> n.name) not in ('string', 'null')
$$;

comment on function fleet.golioth_filter_problems(jsonb) is 'All that is wrong with settings.deviceFilter.';
revoke all on function fleet.golioth_filter_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.golioth_window(p_settings jsonb)
returns jsonb
language sql
immutable
parallel safe
return jsonb_strip_nulls(jsonb_build_object(
  'from', coalesce(p_settings #> '{timeWindow,from}', p_settings #> '{timeWindow,start}'),
  'to', coalesce(p_settings #> '{timeWindow,to}', p_settings #> '{timeWindow,end}'),
  'days_of_week', p_settings #> '{timeWindow,days_of_week}'
));

comment on function fleet.golioth_window(jsonb) is 'settings.timeWindow as all other windows are written: {from, to, days_of_week}.';
revoke all on function fleet.golioth_window(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.golioth_window_problems(p_settings jsonb)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select 'settings.timeWindow', 'must have a beginning and an end, HH:MM',
    'Example: {"from": "22:00", "to": "06:00", "timezone": "Europe/Berlin"}'
  where coalesce(jsonb_typeof(p_settings -> 'timeWindow'), 'null') <> 'null'
    and (
      fleet.time_of_day(fleet.golioth_window(p_settings) ->> 'from') is null
      or fleet.time_of_day(fleet.golioth_window(p_settings) ->> 'to') is null
    )
  union all
  select 'settings.timeWindow.timezone', format('"%s" is no time zone', left(z.zone, 60)), 'Example: Europe/Berlin'
  from (select p_settings #>> '{timeWindow,timezone}' as zone) as z
  where z.zone is not null and not fleet.is_time_zone(z.zone)
  union all
  select 'settings.timeWindow.days_of_week', 'must be a list of days, 0 (Monday) to 6', 'Example: [0, 1, 2, 3, 4]'
  from (select p_settings #> '{timeWindow,days_of_week}' as days) as d
  where coalesce(jsonb_typeof(d.days), 'null') <> 'null' and not coalesce(d.days <@ '[0, 1, 2, 3, 4, 5, 6]', false)
$$;

comment on function fleet.golioth_window_problems(jsonb) is 'All that is wrong with settings.timeWindow.';
revoke all on function fleet.golioth_window_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.golioth_problems(p_settings jsonb)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select 'settings.projectId', 'is missing', 'The id of the project, as the console of Golioth shows it: acme-demo'
  where coalesce(btrim(p_settings ->> 'projectId'), '') = ''
  union all
  select 'settings.projectId', 'cannot be part of an address', 'The id of the project has letters, digits, - and _.'
  where p_settings ->> 'projectId' !~ '^[A-Za-z0-9_-]{1,100}$' and btrim(p_settings ->> 'projectId') <> ''
  union all
  select q.*
  from fleet.golioth_setting_bounds() as b
  cross join lateral fleet.whole_number_problem('settings.' || b.name, p_settings -> b.name, b.smallest, b.largest) as q
  where p_settings ? b.name
  union all
  select q.*
  from (
    values ('direction', '{import,export,both}'::text[]), ('conflict', '{newest,local,remote,manual}'),
      ('streamScope', '{project,device}')
  ) as c(name, choices)
  cross join lateral fleet.choice_problem('settings.' || c.name, p_settings -> c.name, c.choices) as q
  where p_settings ? c.name
  union all
  select 'settings.reads', 'must be a list of status, state and stream', 'Example: ["status", "stream"]'
  where p_settings ? 'reads' and not coalesce(p_settings -> 'reads' <@ '["status", "state", "stream"]', false)
  union all
  select q.* from fleet.golioth_filter_problems(p_settings -> 'deviceFilter') as q
  union all
  select q.* from fleet.golioth_window_problems(p_settings) as q
$$;

comment on function fleet.golioth_problems(jsonb) is 'All that is wrong with the settings of a Golioth integration.';
revoke all on function fleet.golioth_problems(jsonb) from public, anon, authenticated, service_role;

-- db/sources/62_golioth/20_due.sql
-- Whose pull is due: by the slots of its interval, inside its window, within its budget of calls.

create or replace function fleet.next_slot_served(p_last timestamptz, p_interval interval, p_now timestamptz)
returns timestamptz
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_last is null or p_last > p_now + p_interval then p_now
    when p_now < p_last + p_interval / 2 then null
    when p_now < p_last + p_interval * 1.5 then p_last + p_interval
    else p_now
  end
$$;

comment on function fleet.next_slot_served(timestamptz, interval, timestamptz) is
  'Which slot a call at p_now serves, after the one that was served last; null where none is due. A call counts for a slot from half an '
  'interval before it to half an interval after: counted from the last start, a call that comes a moment early would be missed.';
revoke all on function fleet.next_slot_served(timestamptz, interval, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.calls_in_month(p_sync fleet.golioth_syncs, p_now timestamptz)
returns integer
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case when p_sync.month = date_trunc('month', p_now at time zone 'UTC')::date then p_sync.calls_in_month else 0 end
$$;

comment on function fleet.calls_in_month(fleet.golioth_syncs, timestamptz) is 'How many calls were made in the month of p_now, in UTC.';
revoke all on function fleet.calls_in_month(fleet.golioth_syncs, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.stretched_interval(p_settings jsonb, p_sync fleet.golioth_syncs, p_now timestamptz)
returns interval
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_seconds numeric := coalesce(fleet.try_bigint(p_settings ->> 'syncIntervalSeconds'), 300);
  v_budget bigint := fleet.try_bigint(p_settings ->> 'apiCallsPerMonth');
  v_left numeric;
  v_month_ends timestamptz := (date_trunc('month', p_now at time zone 'UTC') + interval '1 month') at time zone 'UTC';
begin
  if v_budget is not null and p_sync.calls_a_sync > 0 then
    v_left := v_budget - fleet.calls_in_month(p_sync, p_now);
    if v_left < p_sync.calls_a_sync then
      return v_month_ends - coalesce(p_sync.slot_at, p_now);
    end if;
    v_seconds := greatest(v_seconds, extract(epoch from v_month_ends - p_now) * p_sync.calls_a_sync / v_left);
  end if;
  return make_interval(secs => least(v_seconds, 2678400)::double precision);
end;
$$;

comment on function fleet.stretched_interval(jsonb, fleet.golioth_syncs, timestamptz) is
  'The pause between pulls: settings.syncIntervalSeconds, or longer where what is left of apiCallsPerMonth would not last for the month.';
revoke all on function fleet.stretched_interval(jsonb, fleet.golioth_syncs, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.is_in_sync_window(p_settings jsonb, p_now timestamptz)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_typeof(p_settings -> 'timeWindow'), 'null') = 'null'
    or fleet.is_in_window(
      fleet.golioth_window(p_settings), p_now at time zone coalesce(p_settings #>> '{timeWindow,timezone}', 'UTC')
    )
$$;

comment on function fleet.is_in_sync_window(jsonb, timestamptz) is 'Whether p_now lies in settings.timeWindow, in its own zone and across midnight.';
revoke all on function fleet.is_in_sync_window(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.sync_verdict(p_integration public.device_integrations, p_sync fleet.golioth_syncs, p_now timestamptz)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_integration.status <> 'active' then p_integration.status
    when p_integration.settings -> 'syncEnabled' is distinct from 'true'::jsonb then 'not enabled'
    when not fleet.is_in_sync_window(p_integration.settings, p_now) then 'outside of its time window'
    when p_sync.held_until > p_now then 'running'
    when fleet.next_slot_served(
      p_sync.slot_at, fleet.stretched_interval(p_integration.settings, p_sync, p_now), p_now
    ) is null then 'not due'
    else 'due'
  end
$$;

comment on function fleet.sync_verdict(public.device_integrations, fleet.golioth_syncs, timestamptz) is
  'What a call of the job does for an integration: due, or why not.';
revoke all on function fleet.sync_verdict(public.device_integrations, fleet.golioth_syncs, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.worker_call_syncs(p_now timestamptz default clock_timestamp())
returns jsonb
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  with judged as materialized (
    select i.id, fleet.sync_verdict(i, g, p_now) as verdict,
      fleet.next_slot_served(g.slot_at, fleet.stretched_interval(i.settings, g, p_now), p_now) as slot_at
    from public.device_integrations as i
    join fleet.golioth_syncs as g on g.integration_id = i.id
  ),
  asked as (
    update fleet.golioth_syncs as g
    set slot_at = j.slot_at, asked_at = coalesce(g.asked_at, p_now)
    from judged as j
    where g.integration_id = j.id and j.verdict = 'due'
  )
  select coalesce(jsonb_object_agg(c.verdict, c.count), '{}')
  from (select j.verdict, count(*) as count from judged as j group by j.verdict) as c
$$;

comment on function fleet.worker_call_syncs(timestamptz) is
  'The job came by: note which pulls are due, each for its slot. How many of which verdict, such as {"due": 2, "not due": 1}. Definer: the '
  'worker writes no table.';
revoke all on function fleet.worker_call_syncs(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.is_sync_wanted(p_integration public.device_integrations, p_sync fleet.golioth_syncs, p_now timestamptz)
returns boolean
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select p_integration.status = 'active'
    and coalesce(p_sync.held_until <= p_now, true)
    and (
      p_sync.asked_at is not null
      or p_integration.sync_requested_at > coalesce(p_integration.last_sync_at, '-infinity')
    )
$$;

comment on function fleet.is_sync_wanted(public.device_integrations, fleet.golioth_syncs, timestamptz) is
  'Whether a pull waits to be begun: its slot has come, or somebody asked by hand.';
revoke all on function fleet.is_sync_wanted(public.device_integrations, fleet.golioth_syncs, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.poke_sync(p_now timestamptz default now())
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_is_poked boolean := false;
begin
  -- What was asked for is done even where a poke was lost or a function was killed; what is due is for the job to say.
  if exists (
    select 1
    from fleet.golioth_syncs as g
    join public.device_integrations as i on i.id = g.integration_id
    where fleet.is_sync_wanted(i, g, p_now)
  ) then
    v_is_poked := fleet.poke_once_a_second('golioth-pull', p_now);
  end if;
  if exists (
    select 1
    from fleet.webhook_inbox as w
    join fleet.golioth_syncs as g on g.integration_id = w.integration_id
    where w.status = 'waiting'
      and w.received_at < p_now - interval '2 seconds'
      and coalesce(g.inbox_held_until <= p_now, true)
  ) then
    v_is_poked := fleet.poke_once_a_second('golioth-inbox', p_now) or v_is_poked;
  end if;
  return v_is_poked;
end;
$$;

comment on function fleet.poke_sync(timestamptz) is
  'Poke the functions where a pull was asked for, or pushed messages wait that nobody works on. Answers whether any was poked; called by the tick.';
revoke all on function fleet.poke_sync(timestamptz) from public, anon, authenticated, service_role;

-- db/sources/62_golioth/30_pull.sql
-- The pull, as a function carries it out: a lease, pages of devices, points and cursors, and its row in the log.

create or replace function fleet.end_killed_sync(p_integration public.device_integrations, p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_sync fleet.golioth_syncs;
begin
  select g.* into v_sync from fleet.golioth_syncs as g where g.integration_id = p_integration.id;
  if v_sync.started_at is not null then
    perform fleet.log_activity(p_integration, jsonb_build_object(
      'activity_type', 'sync_import', 'status', 'failed', 'counts', v_sync.progress,
      'duration_ms', round(extract(epoch from least(coalesce(v_sync.held_until, p_now), p_now) - v_sync.started_at) * 1000),
      'error', 'the function stopped before it came to its end; the next one went on from what was stored'
    ), p_now);
  end if;
end;
$$;

comment on function fleet.end_killed_sync(public.device_integrations, timestamptz) is
  'Log what a pull had done whose function was killed, so that the log adds up.';
revoke all on function fleet.end_killed_sync(public.device_integrations, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.begin_sync(p_integration public.device_integrations, p_now timestamptz)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_budget bigint := fleet.try_bigint(p_integration.settings ->> 'apiCallsPerMonth');
  v_sync fleet.golioth_syncs;
begin
  perform fleet.end_killed_sync(p_integration, p_now);
  update fleet.golioth_syncs as g
  set held_until = p_now + interval '2 minutes', started_at = p_now, progress = '{}'
  where g.integration_id = p_integration.id
  returning * into v_sync;
  return jsonb_build_object(
    'integration_id', p_integration.id, 'owner_id', p_integration.owner_id, 'integration_type', p_integration.integration_type,
    'settings', fleet.golioth_defaults() || p_integration.settings,
    'secret', fleet.stored_secret('integration:' || p_integration.id),
    'last_sync_at', p_integration.last_sync_at, 'started_at', p_now, 'now', clock_timestamp(),
    'calls_left', v_budget - fleet.calls_in_month(v_sync, p_now),
    'keep_days', fleet.setting_number('telemetry_days'),
    'backfill', (
      select jsonb_build_object('id', b.id, 'read_to', b.read_to, 'to', b.wanted_to)
      from fleet.sync_backfills as b
      where b.integration_id = p_integration.id and b.finished_at is null
      order by b.id
      limit 1
    )
  );
end;
$$;

comment on function fleet.begin_sync(public.device_integrations, timestamptz) is 'Lease a pull and give what a function needs for it.';
revoke all on function fleet.begin_sync(public.device_integrations, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_claim_golioth_syncs(p_shares jsonb default '{}', p_now timestamptz default clock_timestamp())
returns setof jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_integration public.device_integrations;
begin
  for v_integration in
    select i.*
    from (
      select d.id, row_number() over (partition by d.owner_id order by d.asked_at nulls last, d.id) as turn, d.owner_id
      from (
        select i.id, i.owner_id, g.asked_at
        from fleet.golioth_syncs as g
        join public.device_integrations as i on i.id = g.integration_id
        where fleet.share_of(p_shares, 'way', i.id::text) > 0 and fleet.is_sync_wanted(i, g, p_now)
          -- Who has had its points of the day gets the rest when some more are allowed: they wait over there.
          and not fleet.is_used_up(i.owner_id, 'telemetry_a_day', p_now)
      ) as d
    ) as w
    join public.device_integrations as i on i.id = w.id
    where w.turn <= fleet.share_of(p_shares, 'owner', w.owner_id::text)
    -- Owners in turn, and nobody is always last.
    order by w.turn, random()
    limit fleet.share_in_all(p_shares)
  loop
    -- Another function may have taken it meanwhile.
    perform 1
    from fleet.golioth_syncs as g
    where g.integration_id = v_integration.id and fleet.is_sync_wanted(v_integration, g, p_now)
    for update skip locked;
    if found then
      return next fleet.begin_sync(v_integration, p_now);
    end if;
  end loop;
end;
$$;

comment on function fleet.worker_claim_golioth_syncs(jsonb, timestamptz) is
  'Lease pulls that were asked for, for two minutes: {integration_id, owner_id, integration_type, settings, secret, last_sync_at, started_at, '
  'calls_left, keep_days, backfill}; owners in turn, as many of each as p_shares allows. Definer: the worker reads no table.';
revoke all on function fleet.worker_claim_golioth_syncs(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.added_counts(p_counts jsonb, p_more jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_object_agg(k.key, coalesce(fleet.try_bigint(p_counts ->> k.key), 0) + coalesce(fleet.try_bigint(p_more ->> k.key), 0)), '{}')
  from (
    select jsonb_object_keys(fleet.object_or_empty(p_counts)) as key
    union
    select jsonb_object_keys(fleet.object_or_empty(p_more))
  ) as k
$$;

comment on function fleet.added_counts(jsonb, jsonb) is 'Two objects of figures, added.';
revoke all on function fleet.added_counts(jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.worker_go_on_with_sync(
  p_integration_id bigint,
  p_started_at timestamptz,
  p_counts jsonb default '{}',
  p_now timestamptz default clock_timestamp()
)
returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_month date := date_trunc('month', p_now at time zone 'UTC')::date;
begin
  update fleet.golioth_syncs as g
  set held_until = p_now + interval '2 minutes',
      progress = fleet.added_counts(g.progress, p_counts),
      calls_in_month = case when g.month = v_month then g.calls_in_month else 0 end
        + coalesce(fleet.try_bigint(p_counts ->> 'api_calls'), 0)::integer,
      month = v_month
  where g.integration_id = p_integration_id and g.started_at = p_started_at;
  if not found then
    return false;
  end if;
  if fleet.try_bigint(p_counts ->> 'stored') > 0 then
    perform fleet.take_quota(i.owner_id, 'telemetry_a_day', fleet.try_bigint(p_counts ->> 'stored'), p_now)
    from public.device_integrations as i
    where i.id = p_integration_id;
  end if;
  return true;
end;
$$;

comment on function fleet.worker_go_on_with_sync(bigint, timestamptz, jsonb, timestamptz) is
  'A pull has come so far: add its figures, and hold the lease for two minutes more. False where another function has it by now. Definer: '
  'the worker writes no table.';
revoke all on function fleet.worker_go_on_with_sync(bigint, timestamptz, jsonb, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.worker_sync_devices(p_integration_id bigint)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_devices jsonb;
begin
  -- What was kept aside is worked as soon as its device is known.
  update fleet.webhook_inbox as w
  set status = 'waiting'
  from public.device_links as l
  where w.integration_id = p_integration_id
    and w.status = 'aside'
    and l.integration_id = w.integration_id
    and l.external_id = w.external_id
    and l.left_at is null;

  select coalesce(jsonb_agg(jsonb_build_array(l.external_id, l.device_id, c.read_to)), '[]') into v_devices
  from public.device_links as l
  left join fleet.sync_cursors as c
    on c.integration_id = l.integration_id and c.device_id = l.device_id and c.stream = '/'
  where l.integration_id = p_integration_id and l.left_at is null;
  return v_devices;
end;
$$;

comment on function fleet.worker_sync_devices(bigint) is
  'The devices of an integration: [[external_id, device_id, up to when its stream was read]]. What was pushed for devices that are known by '
  'now is worked at last. Definer: the worker reads no table.';
revoke all on function fleet.worker_sync_devices(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.worker_move_cursors(
  p_integration_id bigint,
  p_started_at timestamptz,
  p_devices jsonb,
  p_read_to timestamptz
)
returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform 1
  from fleet.golioth_syncs as g
  where g.integration_id = p_integration_id and g.started_at = p_started_at
  for update;
  if not found then
    return false;
  end if;

  insert into fleet.sync_cursors as c (integration_id, device_id, stream, owner_id, read_to, last_at)
  select l.integration_id, l.device_id, '/', l.owner_id, p_read_to, (d.item ->> 1)::timestamptz
  from jsonb_array_elements(p_devices) as d(item)
  join public.device_links as l on l.integration_id = p_integration_id and l.device_id = (d.item ->> 0)::bigint
  order by l.device_id
  on conflict (integration_id, device_id, stream) do update
    set read_to = greatest(c.read_to, excluded.read_to), last_at = greatest(c.last_at, excluded.last_at);

  update public.devices as d
  set last_seen = s.last_at
  from (
    select l.device_id, (i.item ->> 1)::timestamptz as last_at
    from jsonb_array_elements(p_devices) as i(item)
    join public.device_links as l on l.integration_id = p_integration_id and l.device_id = (i.item ->> 0)::bigint
  ) as s
  where d.id = s.device_id and s.last_at > coalesce(d.last_seen, '-infinity') and s.last_at <= clock_timestamp();
  return true;
end;
$$;

comment on function fleet.worker_move_cursors(bigint, timestamptz, jsonb, timestamptz) is
  'The streams of devices, [[device_id, time of the latest point]], were read and stored up to p_read_to. False where another function has the '
  'pull by now. Definer: the worker writes no table.';
revoke all on function fleet.worker_move_cursors(bigint, timestamptz, jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_move_backfill(p_id bigint, p_read_to timestamptz, p_points bigint)
returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  update fleet.sync_backfills as b
  set read_to = least(greatest(b.read_to, p_read_to), b.wanted_to), points = b.points + p_points,
      finished_at = case when p_read_to >= b.wanted_to then clock_timestamp() end
  where b.id = p_id and b.finished_at is null;
  return found;
end;
$$;

comment on function fleet.worker_move_backfill(bigint, timestamptz, bigint) is
  'A backfill was read and stored up to p_read_to; p_points were new. Definer: the worker writes no table.';
revoke all on function fleet.worker_move_backfill(bigint, timestamptz, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.worker_store_states(p_integration_id bigint, p_states jsonb)
returns integer
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  update public.device_links as l
  set attributes = l.attributes || jsonb_build_object('state', s.item -> 1), updated_at = clock_timestamp()
  from jsonb_array_elements(p_states) as s(item)
  where l.integration_id = p_integration_id
    and l.external_id = s.item ->> 0
    and pg_column_size(s.item -> 1) <= 32768
    and l.attributes -> 'state' is distinct from s.item -> 1;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.worker_store_states(bigint, jsonb) is
  'Keep the LightDB State of devices, [[external_id, state]], with their links; one of more than 32 kB is left out. Answers how many have '
  'changed. Definer: the worker writes no table.';
revoke all on function fleet.worker_store_states(bigint, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.worker_end_golioth_sync(
  p_integration_id bigint,
  p_started_at timestamptz,
  p_report jsonb,
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_integration public.device_integrations;
  v_is_through boolean := p_report ->> 'error' is null;
  v_counts jsonb;
  v_calls numeric;
begin
  select i.* into v_integration from public.device_integrations as i where i.id = p_integration_id for update;
  select g.progress into v_counts
  from fleet.golioth_syncs as g
  where g.integration_id = p_integration_id and g.started_at = p_started_at
  for update;
  if not found then
    return jsonb_build_object('accepted', false, 'reason', 'stale_sync');
  end if;

  -- A list without any device is a fault rather than a project that everybody left.
  if v_is_through and coalesce((v_counts ->> 'devices')::integer, 0) > 0 then
    v_counts := v_counts || jsonb_build_object(
      'left', coalesce((v_counts ->> 'left')::integer, 0) + fleet.mark_devices_left(p_integration_id, p_started_at, p_now)
    );
  end if;
  if v_is_through then
    update public.device_integrations as i
    -- Who asks while it runs is not answered by it.
    set last_sync_at = greatest(i.last_sync_at, p_started_at)
    where i.id = p_integration_id;
  end if;
  v_calls := (v_counts ->> 'api_calls')::numeric;
  update fleet.golioth_syncs as g
  set started_at = null, progress = '{}',
      -- What failed waits for a minute, however it was asked for.
      held_until = case when not v_is_through then p_now + interval '1 minute' end,
      asked_at = case
        when v_is_through and exists (
          select 1 from fleet.sync_backfills as b where b.integration_id = g.integration_id and b.finished_at is null
        ) then p_now
      end,
      calls_a_sync = case
        when not v_is_through or v_calls is null or p_report ->> 'backfill' = 'true' then g.calls_a_sync
        else coalesce(g.calls_a_sync * 0.8 + v_calls * 0.2, v_calls)
      end
  where g.integration_id = p_integration_id;
  perform fleet.log_activity(v_integration, jsonb_build_object(
    'activity_type', 'sync_import',
    'status', case when v_is_through then 'completed' else 'failed' end,
    'counts', v_counts,
    'duration_ms', round(extract(epoch from p_now - p_started_at) * 1000),
    'error', p_report -> 'error',
    'detail', jsonb_build_object('errors', fleet.errors_to_log(coalesce(p_report -> 'errors', '[]'), p_integration_id))
  ), p_now);
  return jsonb_build_object('accepted', true, 'counts', v_counts);
end;
$$;

comment on function fleet.worker_end_golioth_sync(bigint, timestamptz, jsonb, timestamptz) is
  'A pull that began at started_at came to its end, or stopped for an error: {errors: [{external_id, error}], error, backfill}. Its figures are '
  'those that worker_go_on_with_sync added up. {accepted, counts}. Definer: the worker writes no table.';
revoke all on function fleet.worker_end_golioth_sync(bigint, timestamptz, jsonb, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/62_golioth/32_agreeing.sql
-- Both directions: what we and the other system have of a device, what they agreed on last, and so who has to take what over.

create or replace function fleet.json_leaves(p_tree jsonb)
returns table (path text, value jsonb)
language sql
immutable
begin atomic
  with recursive nodes as (
    select e.key as path, e.value, 1 as depth from jsonb_each(fleet.object_or_empty(p_tree)) as e
    union all
    select n.path || '/' || e.key, e.value, n.depth + 1
    from nodes as n
    cross join lateral jsonb_each(fleet.object_or_empty(n.value)) as e
    where n.depth < 16
  )
  select n.path, n.value
  from nodes as n
  -- Null is how there says that nothing is there; a branch without a leaf says nothing.
  where jsonb_typeof(n.value) not in ('object', 'null')
  order by n.path
  limit 201;
end;

comment on function fleet.json_leaves(jsonb) is
  'The values of a tree with their paths, led/on; a list is one value. At most 201, sixteen levels deep.';
revoke all on function fleet.json_leaves(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.leaf_map(p_tree jsonb)
returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_leaves jsonb;
  v_count integer;
begin
  -- Most have none, and nobody looks for what is in it.
  if p_tree is null or p_tree = '{}' then
    return p_tree;
  end if;
  select coalesce(jsonb_object_agg(l.path, l.value), '{}'), count(*) into v_leaves, v_count from fleet.json_leaves(p_tree) as l;
  return case when v_count <= 200 then v_leaves end;
end;
$$;

comment on function fleet.leaf_map(jsonb) is
  'The values of a tree, each keyed by its path; null where nobody told it, or where they are more than 200.';
revoke all on function fleet.leaf_map(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.tree_of_leaves(p_leaves jsonb)
returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tree jsonb := '{}';
  v_leaf record;
  v_path text[];
begin
  for v_leaf in select e.key, e.value from jsonb_each(p_leaves) as e order by e.key loop
    v_path := string_to_array(v_leaf.key, '/');
    for v_depth in 1 .. cardinality(v_path) - 1 loop
      if jsonb_typeof(v_tree #> v_path[:v_depth]) is distinct from 'object' then
        v_tree := jsonb_set(v_tree, v_path[:v_depth], '{}');
      end if;
    end loop;
    v_tree := jsonb_set(v_tree, v_path, v_leaf.value);
  end loop;
  return v_tree;
end;
$$;

comment on function fleet.tree_of_leaves(jsonb) is 'The tree whose leaf_map() this is.';
revoke all on function fleet.tree_of_leaves(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.sync_verdict_of(
  p_local jsonb,
  p_remote jsonb,
  p_base_local jsonb,
  p_base_remote jsonb,
  p_direction text,
  p_rule text,
  p_is_newer_here boolean
)
returns text
language sql
immutable
return case
  when p_local is not distinct from p_remote then 'same'
  when p_local is not distinct from p_base_local and p_remote is not distinct from p_base_remote then 'agreed'
  when p_direction in ('import', 'export') then p_direction
  when p_remote is not distinct from p_base_remote then 'export'
  when p_local is not distinct from p_base_local then 'import'
  when p_rule = 'local' or p_rule = 'newest' and p_is_newer_here then 'export'
  when p_rule = 'manual' then 'conflict'
  else 'import'
end;

comment on function fleet.sync_verdict_of(jsonb, jsonb, jsonb, jsonb, text, text, boolean) is
  'What is to be done about a value that is so here and so there, and was agreed on as so and so: same, agreed (they differ, as they did '
  'before), export, import or conflict. In one direction the other side takes over; in both, who has changed it counts, and where both '
  'have, the rule: newest, local, remote or manual.';
revoke all on function fleet.sync_verdict_of(jsonb, jsonb, jsonb, jsonb, text, text, boolean)
  from public, anon, authenticated, service_role;

create or replace function fleet.merged_tags(p_mine text[], p_theirs text[], p_base text[], p_is_followed boolean, p_is_led boolean)
returns text[]
language sql
immutable
return (
  select coalesce(array_agg(t.tag order by t.tag), '{}')
  from (
    select m.tag
    from unnest(p_mine) as m(tag)
    where not (p_is_followed and m.tag = any (p_base) and m.tag <> all (p_theirs))
    union
    select o.tag
    from unnest(p_theirs) as o(tag)
    -- One that was agreed on and is gone here was taken away here, and stays away where this side is heard as well.
    where p_is_followed and not (p_is_led and o.tag = any (p_base))
  ) as t
);

comment on function fleet.merged_tags(text[], text[], text[], boolean, boolean) is
  'The tags of one side after it took over those of the other: where it follows, what came there and what went there since they agreed. '
  'p_is_led says whether the other side follows this one as well.';
revoke all on function fleet.merged_tags(text[], text[], text[], boolean, boolean) from public, anon, authenticated, service_role;

create or replace function fleet.sync_sides(p_integration public.device_integrations, p_facts jsonb)
returns table (
  device_id bigint, external_id text, local_name text, remote_name text, base_local_name text, base_remote_name text,
  is_renamed_later boolean, local_tags text[], remote_tags text[], base_tags text[], local_desired jsonb, remote_desired jsonb,
  base_desired jsonb, is_wanted_later boolean
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select d.id, l.external_id, d.hostname, f.name,
    case
      when b.device_id is not null then b.local_name
      -- At first sight names are as they are, unless ours are to be there; one that was told apart here always.
      when i.direction = 'import' or d.hostname = f.name || ' (' || l.external_id || ')' then d.hostname
    end,
    case
      when b.device_id is not null then b.remote_name
      when i.direction = 'import' or d.hostname = f.name || ' (' || l.external_id || ')' then f.name
    end,
    coalesce(b.renamed_at > f.updated_at, false),
    d.tags, array(select jsonb_array_elements_text(f.tags)), coalesce(b.tags, '{}'),
    fleet.leaf_map(l.desired), fleet.leaf_map(f.desired), coalesce(b.desired, '{}'),
    coalesce(l.desired_at > f.updated_at, false)
  from jsonb_to_recordset(p_facts) as f(external_id text, name text, tags jsonb, desired jsonb, updated_at timestamptz)
  join public.device_links as l on l.integration_id = p_integration.id and l.external_id = f.external_id and l.left_at is null
  join public.devices as d on d.id = l.device_id and d.status = 'active'
  left join fleet.sync_bases as b on b.integration_id = l.integration_id and b.device_id = l.device_id
  cross join lateral (select coalesce(p_integration.settings ->> 'direction', 'import') as direction) as i
$$;

comment on function fleet.sync_sides(public.device_integrations, jsonb) is
  'Both sides of devices, with what they agreed on last; facts are those of the other: [{external_id, name, tags, desired, updated_at}].';
revoke all on function fleet.sync_sides(public.device_integrations, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.sync_differences(p_integration public.device_integrations, p_facts jsonb)
returns table (device_id bigint, external_id text, field text, local jsonb, remote jsonb, verdict text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select v.device_id, v.external_id, v.field, v.local, v.remote,
    fleet.sync_verdict_of(
      v.local, v.remote, v.base_local, v.base_remote, coalesce(p_integration.settings ->> 'direction', 'import'),
      coalesce(c.keep, p_integration.settings ->> 'conflict', 'newest'), v.is_later
    )
  from (
    select s.device_id, s.external_id, 'name' as field, to_jsonb(s.local_name) as local, to_jsonb(s.remote_name) as remote,
      to_jsonb(s.base_local_name) as base_local, to_jsonb(s.base_remote_name) as base_remote, s.is_renamed_later as is_later
    from fleet.sync_sides(p_integration, p_facts) as s
    where s.remote_name is not null
    union all
    select s.device_id, s.external_id, 'desired/' || k.path, s.local_desired -> k.path, s.remote_desired -> k.path,
      s.base_desired -> k.path, s.base_desired -> k.path, s.is_wanted_later
    from fleet.sync_sides(p_integration, p_facts) as s
    cross join lateral (
      select jsonb_object_keys(s.local_desired) as path
      union
      select jsonb_object_keys(s.remote_desired)
    ) as k
    -- What was not told there is not taken for gone.
    where s.remote_desired is not null and length(k.path) <= 240
  ) as v
  left join public.sync_conflicts as c
    on c.integration_id = p_integration.id and c.device_id = v.device_id and c.field = v.field and c.keep is not null
    and c.local is not distinct from v.local and c.remote is not distinct from v.remote
$$;

comment on function fleet.sync_differences(public.device_integrations, jsonb) is
  'What is to be done about the names of devices, and about each value that is wanted of them: see sync_verdict_of(). What a person decided '
  'counts while it is about the same two values.';
revoke all on function fleet.sync_differences(public.device_integrations, jsonb) from public, anon, authenticated, service_role;

-- db/sources/62_golioth/34_agree.sql
-- Both directions, done: what comes from there is taken over, what goes there is given to the function, and is agreed on when it is there.

create or replace function fleet.take_over(p_integration public.device_integrations, p_facts jsonb, p_differences jsonb)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_direction text := coalesce(p_integration.settings ->> 'direction', 'import');
  v_names integer;
  v_tags integer;
  v_desired integer;
begin
  update public.devices as d
  set hostname = x.remote #>> '{}'
  from jsonb_to_recordset(p_differences) as x(device_id bigint, field text, remote jsonb, verdict text)
  where x.verdict = 'import' and x.field = 'name' and d.id = x.device_id
    and btrim(x.remote #>> '{}') <> '' and octet_length(x.remote #>> '{}') <= 1012
    -- Whoever has the name keeps it; it is told as an error.
    and not exists (
      select 1 from public.devices as o
      where o.owner_id = d.owner_id and lower(o.hostname) = lower(x.remote #>> '{}') and o.id <> d.id
    );
  get diagnostics v_names = row_count;

  update public.devices as d
  set tags = t.tags
  from fleet.sync_sides(p_integration, p_facts) as s
  cross join lateral (
    select fleet.merged_tags(s.local_tags, s.remote_tags, s.base_tags, true, v_direction = 'both') as tags
  ) as t
  where v_direction <> 'export' and d.id = s.device_id
    and not (t.tags @> s.local_tags and s.local_tags @> t.tags)
    and cardinality(t.tags) <= 100 and pg_column_size(t.tags) <= 16384;
  get diagnostics v_tags = row_count;

  update public.device_links as l
  set desired = n.desired
  from (
    select x.device_id,
      fleet.tree_of_leaves(
        (fleet.leaf_map(k.desired) - array_agg(substr(x.field, 9)))
        || coalesce(jsonb_object_agg(substr(x.field, 9), x.remote) filter (where x.remote is not null), '{}')
      ) as desired
    from jsonb_to_recordset(p_differences) as x(device_id bigint, field text, remote jsonb, verdict text)
    join public.device_links as k on k.device_id = x.device_id and k.integration_id = p_integration.id
    where x.verdict = 'import' and x.field like 'desired/%'
    group by x.device_id, k.desired
  ) as n
  where l.device_id = n.device_id and l.integration_id = p_integration.id and pg_column_size(n.desired) <= 16384;
  get diagnostics v_desired = row_count;
  return jsonb_build_object('names_taken', v_names, 'tags_taken', v_tags, 'desired_taken', v_desired);
end;
$$;

comment on function fleet.take_over(public.device_integrations, jsonb, jsonb) is
  'Take names, tags and wanted values over that were changed there. How many devices: {names_taken, tags_taken, desired_taken}.';
revoke all on function fleet.take_over(public.device_integrations, jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.note_conflicts(p_integration public.device_integrations, p_facts jsonb, p_differences jsonb)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  -- Of whoever is looked at now, what is no conflict any more.
  delete from public.sync_conflicts as c
  using fleet.sync_sides(p_integration, p_facts) as s
  where c.integration_id = p_integration.id and c.device_id = s.device_id
    and not exists (
      select 1
      from jsonb_to_recordset(p_differences) as x(device_id bigint, field text, verdict text)
      where x.device_id = c.device_id and x.field = c.field and (x.verdict = 'conflict' or x.verdict = 'export' and c.keep = 'local')
    );
  insert into public.sync_conflicts as c (owner_id, integration_id, device_id, field, local, remote)
  select p_integration.owner_id, p_integration.id, x.device_id, x.field, x.local, x.remote
  from jsonb_to_recordset(p_differences) as x(device_id bigint, field text, local jsonb, remote jsonb, verdict text)
  where x.verdict = 'conflict'
  order by x.device_id, x.field
  on conflict (integration_id, device_id, field) do update
    -- About other values nobody has decided yet.
    set local = excluded.local, remote = excluded.remote, keep = null
    where (c.local, c.remote) is distinct from (excluded.local, excluded.remote);
  select count(*) into v_count from jsonb_to_recordset(p_differences) as x(verdict text) where x.verdict = 'conflict';
  return v_count;
end;
$$;

comment on function fleet.note_conflicts(public.device_integrations, jsonb, jsonb) is
  'Keep what a person has to decide of these devices, and forget what is none any more. Answers how many there are.';
revoke all on function fleet.note_conflicts(public.device_integrations, jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.keep_agreed(p_integration public.device_integrations, p_facts jsonb)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  insert into fleet.sync_bases as b (integration_id, device_id, owner_id, local_name, remote_name, tags, desired)
  select p_integration.id, s.device_id, p_integration.owner_id,
    case when n.is_agreed then s.local_name else s.base_local_name end,
    case when n.is_agreed then s.remote_name else s.base_remote_name end,
    array(
      select t.tag
      from (select unnest(s.local_tags) union select unnest(s.remote_tags)) as t(tag)
      -- One that only one side has yet, or has no longer, stays as it was agreed on.
      where t.tag = any (s.base_tags) or (t.tag = any (s.local_tags) and t.tag = any (s.remote_tags))
      order by t.tag
    ),
    coalesce((
      select jsonb_object_agg(e.key, e.value)
      from jsonb_each(s.local_desired) as e
      where e.value = s.remote_desired -> e.key
    ), '{}')
    -- What only one side has changed since stays as it was agreed on.
    || coalesce((
      select jsonb_object_agg(e.key, e.value)
      from jsonb_each(s.base_desired) as e
      where (s.local_desired -> e.key) is distinct from (s.remote_desired -> e.key)
    ), '{}')
  from fleet.sync_sides(p_integration, p_facts) as s
  cross join lateral (
    select s.local_name = s.remote_name or (s.base_local_name = s.local_name and s.base_remote_name = s.remote_name) as is_agreed
  ) as n
  order by s.device_id
  on conflict (integration_id, device_id) do update
    set local_name = excluded.local_name, remote_name = excluded.remote_name, tags = excluded.tags, desired = excluded.desired
    where (b.local_name, b.remote_name, b.tags, b.desired)
      is distinct from (excluded.local_name, excluded.remote_name, excluded.tags, excluded.desired)
$$;

comment on function fleet.keep_agreed(public.device_integrations, jsonb) is
  'Keep what both sides have alike now as what they agreed on; of what they have not, what they agreed on before.';
revoke all on function fleet.keep_agreed(public.device_integrations, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.wanted_there(p_integration public.device_integrations, p_facts jsonb, p_differences jsonb)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_agg(w.wanted order by w.device_id), '[]')
  from (
    select s.device_id,
      jsonb_strip_nulls(jsonb_build_object(
        'external_id', s.external_id, 'name', v.name, 'add_tags', nullif(to_jsonb(t.added), '[]'), 'remove_tags', nullif(to_jsonb(t.removed), '[]')
      )) || jsonb_build_object('set', coalesce(v.changed, '[]'), 'unset', coalesce(v.gone, '[]')) as wanted
    from fleet.sync_sides(p_integration, p_facts) as s
    cross join lateral (
      select
        max(x.local #>> '{}') filter (where x.field = 'name') as name,
        jsonb_agg(jsonb_build_array(x.field, x.local) order by x.field) filter (where x.field <> 'name' and x.local is not null) as changed,
        jsonb_agg(x.field order by x.field) filter (where x.field <> 'name' and x.local is null) as gone
      from jsonb_to_recordset(p_differences) as x(device_id bigint, field text, local jsonb, verdict text)
      where x.device_id = s.device_id and x.verdict = 'export'
    ) as v
    cross join lateral (
      select fleet.merged_tags(s.remote_tags, s.local_tags, s.base_tags, true, p_integration.settings ->> 'direction' = 'both') as tags
    ) as m
    cross join lateral (
      select array(select a.tag from unnest(m.tags) as a(tag) where a.tag <> all (s.remote_tags)) as added,
        array(select g.tag from unnest(s.remote_tags) as g(tag) where g.tag <> all (m.tags)) as removed
    ) as t
    where v.name is not null or v.changed is not null or v.gone is not null or t.added <> '{}' or t.removed <> '{}'
  ) as w
$$;

comment on function fleet.wanted_there(public.device_integrations, jsonb, jsonb) is
  'What is to be written there: [{external_id, name, add_tags, remove_tags, set: [[path, value]], unset: [path]}].';
revoke all on function fleet.wanted_there(public.device_integrations, jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.worker_agree(p_integration_id bigint, p_started_at timestamptz, p_facts jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  v_integration public.device_integrations;
  v_differences jsonb;
  v_taken jsonb;
  v_conflicts integer;
begin
  select i.* into v_integration
  from public.device_integrations as i
  join fleet.golioth_syncs as g on g.integration_id = i.id
  where i.id = p_integration_id and g.started_at = p_started_at
  for update of i;
  if not found then
    return null;
  end if;
  v_integration.settings := fleet.golioth_defaults() || v_integration.settings;
  select coalesce(jsonb_agg(to_jsonb(x)), '[]') into v_differences
  from fleet.sync_differences(v_integration, p_facts) as x
  where x.verdict not in ('same', 'agreed');
  v_conflicts := fleet.note_conflicts(v_integration, p_facts, v_differences);
  v_taken := fleet.take_over(v_integration, p_facts, v_differences);
  perform fleet.keep_agreed(v_integration, p_facts);
  return v_taken || jsonb_build_object(
    'conflicts', v_conflicts,
    'wanted', case
      when v_integration.settings ->> 'direction' = 'import' then '[]' else fleet.wanted_there(v_integration, p_facts, v_differences)
    end,
    'refused', coalesce((
      select jsonb_agg(jsonb_build_object('external_id', x.external_id, 'error', format('the name "%s" is taken here', x.remote #>> '{}')))
      from jsonb_to_recordset(v_differences) as x(device_id bigint, external_id text, field text, remote jsonb, verdict text)
      join public.devices as d on d.id = x.device_id
      where x.field = 'name' and x.verdict = 'import' and d.hostname <> x.remote #>> '{}'
    ), '[]')
  );
end;
$$;

comment on function fleet.worker_agree(bigint, timestamptz, jsonb) is
  'Compare names, tags and wanted values of devices with those that the other system has, [{external_id, name, tags, desired, updated_at}]: '
  'take over what is to come here, and say what is to be written there. {wanted, conflicts, names_taken, tags_taken, desired_taken, refused}; '
  'null where another function has the pull by now. Asked again with what is there then, it keeps it as agreed. Definer: the worker writes no '
  'table.';
revoke all on function fleet.worker_agree(bigint, timestamptz, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.worker_log_export(p_integration_id bigint, p_report jsonb, p_now timestamptz default clock_timestamp())
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_integration public.device_integrations;
begin
  select i.* into strict v_integration from public.device_integrations as i where i.id = p_integration_id;
  perform fleet.log_activity(v_integration, jsonb_build_object(
    'activity_type', 'sync_export',
    'status', case when p_report ->> 'error' is null then 'completed' else 'failed' end,
    'counts', p_report -> 'counts', 'duration_ms', p_report -> 'duration_ms', 'error', p_report -> 'error',
    'detail', jsonb_build_object('errors', fleet.errors_to_log(coalesce(p_report -> 'errors', '[]'), p_integration_id))
  ), p_now);
end;
$$;

comment on function fleet.worker_log_export(bigint, jsonb, timestamptz) is
  'Log what was written to the other system: {counts, duration_ms, error, errors: [{external_id, error}]}. Definer: the worker writes no table.';
revoke all on function fleet.worker_log_export(bigint, jsonb, timestamptz) from public, anon, authenticated, service_role;

-- db/sources/62_golioth/40_receive.sql
-- What is pushed: who may, stored before it is answered, and the same message once.

create or replace function fleet.signature_problem(p_secret text, p_signed jsonb, p_body text, p_now timestamptz)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_time text := p_signed ->> 'timestamp';
  v_wanted text;
begin
  if p_secret is null or coalesce(p_signed ->> 'id', '') = '' or coalesce(p_signed ->> 'signatures', '') = '' then
    return 'webhook_signature_missing';
  elsif coalesce(v_time, '') !~ '^\d{1,12}$' then
    return 'webhook_signature_refused';
  end if;

  v_wanted := 'v1,' || replace(encode(
    fleet.hmac_sha256(
      convert_to((p_signed ->> 'id') || '.' || v_time || '.' || p_body, 'UTF8'), decode(regexp_replace(p_secret, '^whsec_', ''), 'base64')
    ), 'base64'
  ), E'\n', '');
  -- Hashed again, so that how long it takes to compare tells nothing of how far they agree. Some put commas between them.
  if not exists (
    select 1
    from regexp_split_to_table(p_signed ->> 'signatures', ' +') as s(one)
    where sha256(convert_to(rtrim(s.one, ','), 'UTF8')) = sha256(convert_to(v_wanted, 'UTF8'))
  ) then
    return 'webhook_signature_refused';
  elsif abs(extract(epoch from p_now) - v_time::bigint) > 300 then
    return 'webhook_timestamp_refused';
  end if;
  return null;
end;
$$;

comment on function fleet.signature_problem(text, jsonb, text, timestamptz) is
  'What is wrong with a signature by Standard Webhooks, {id, timestamp, signatures}; null where nothing is. Any one of several is enough, and '
  'the time may be five minutes off.';
revoke all on function fleet.signature_problem(text, jsonb, text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_receive_webhooks(p_messages jsonb, p_now timestamptz default clock_timestamp())
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  v_answers jsonb;
begin
  with given as materialized (
    select m.nr, m.item, w.id as webhook_id, w.integration_id, w.owner_id, i.integration_type,
      case
        when w.id is null then 'integration_webhook_not_found'
        when fleet.is_moving(w.owner_id) then 'owner_moving'
        when fleet.is_used_up(w.owner_id, 'telemetry_a_day', p_now) then 'quota_exceeded'
        when i.integration_type <> 'golioth' then 'other'
        when w.is_signed then fleet.signature_problem(
          fleet.stored_secret('webhook:' || w.id), m.item -> 'signed', m.item ->> 'body', p_now
        )
      end as problem
    from jsonb_array_elements(p_messages) with ordinality as m(item, nr)
    left join public.integration_webhooks as w
      on w.token_hash = fleet.hash_secret(m.item ->> 'token') and w.revoked_at is null
    left join public.device_integrations as i on i.id = w.integration_id
  ),
  used as (
    -- They may come often; a write each time would be waste.
    update public.integration_webhooks as w
    set last_used_at = p_now
    where w.id in (select g.webhook_id from given as g where g.problem is null)
      and (w.last_used_at is null or w.last_used_at < p_now - interval '1 minute')
  ),
  stored as (
    insert into fleet.webhook_inbox as b (
      owner_id, integration_id, message_key, external_id, path, at, digest, data, received_at
    )
    select distinct on (g.integration_id, g.item ->> 'key')
      g.owner_id, g.integration_id, decode(g.item ->> 'key', 'hex'), left(g.item ->> 'external_id', 255),
      left(g.item ->> 'path', 255),
      (g.item ->> 'at')::timestamptz, (g.item ->> 'digest')::uuid, g.item -> 'data', p_now
    from given as g
    where g.problem is null and g.item ->> 'problem' is null
    order by g.integration_id, g.item ->> 'key', g.nr
    on conflict (integration_id, message_key) do nothing
    returning b.integration_id, b.message_key, b.owner_id
  ),
  counted as materialized (
    select fleet.take_quota(c.owner_id, 'telemetry_a_day', c.n, p_now)
    from (select s.owner_id, count(*) as n from stored as s group by s.owner_id order by s.owner_id) as c
  )
  select coalesce(jsonb_agg(coalesce(
      to_jsonb(g.problem),
      case when g.item ->> 'problem' is not null then '"webhook_invalid"'::jsonb end,
      case when s.message_key is null then '"known"'::jsonb else '"stored"' end
    ) order by g.nr), '[]')
  into v_answers
  from given as g
  -- Asked for, so that it is done.
  join (select count(*) as n from counted) as c on c.n >= 0
  left join stored as s on s.integration_id = g.integration_id and encode(s.message_key, 'hex') = g.item ->> 'key';
  return v_answers;
end;
$$;

comment on function fleet.worker_receive_webhooks(jsonb, timestamptz) is
  'Store pushed messages, each {token, key, external_id, path, at, digest, data} and for signed ones {signed, body}: for each in its order '
  'stored, known (a replay), other (an integration whose webhooks another function takes), or why it is refused. Definer: the token alone '
  'says whose it is.';
revoke all on function fleet.worker_receive_webhooks(jsonb, timestamptz) from public, anon, authenticated, service_role;

-- db/sources/62_golioth/45_inbox.sql
-- Working on what was pushed: a batch of one integration at a time.

create or replace function fleet.take_inbox(p_integration public.device_integrations, p_limit integer)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  v_messages jsonb;
begin
  with taken as materialized (
    select x.*
    from (
      select w.id, w.external_id, w.path, w.at, w.digest, w.data, w.received_at,
        sum(pg_column_size(w.data)) over (order by w.id) - pg_column_size(w.data) as bytes_before
      from fleet.webhook_inbox as w
      where w.integration_id = p_integration.id and w.status = 'waiting'
      order by w.id
      limit p_limit
    ) as x
    -- A few that are large are a batch as well.
    where x.bytes_before < 8388608
  ),
  known as (
    select t.*, l.device_id
    from taken as t
    left join public.device_links as l
      on l.integration_id = p_integration.id and l.external_id = t.external_id and l.left_at is null
  ),
  aside as (
    update fleet.webhook_inbox as w
    set status = 'aside'
    from known as k
    where k.device_id is null and w.id = k.id
    returning w.id
  )
  select jsonb_build_object(
    'messages', coalesce(
      jsonb_agg(jsonb_build_array(k.id, k.device_id, k.path, k.at, k.received_at, k.digest, k.data) order by k.id)
        filter (where k.device_id is not null), '[]'
    ),
    'aside', (select count(*) from aside),
    'aside_of', coalesce((
      select jsonb_agg(x.external_id)
      from (select distinct n.external_id from known as n where n.device_id is null order by 1 limit 20) as x
    ), '[]')
  ) into v_messages
  from known as k;
  return v_messages;
end;
$$;

comment on function fleet.take_inbox(public.device_integrations, integer) is
  'The oldest messages that wait, [[id, device_id, path, at, received_at, digest, data]]; those of devices that we do not know are put aside.';
revoke all on function fleet.take_inbox(public.device_integrations, integer) from public, anon, authenticated, service_role;

create or replace function fleet.worker_claim_inbox(p_shares jsonb default '{}', p_now timestamptz default clock_timestamp())
returns setof jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_integration public.device_integrations;
begin
  for v_integration in
    select i.*
    from (
      select x.id, x.owner_id, row_number() over (partition by x.owner_id order by random()) as turn
      from public.device_integrations as x
      join fleet.golioth_syncs as g on g.integration_id = x.id
      where fleet.share_of(p_shares, 'way', x.id::text) > 0
        and coalesce(g.inbox_held_until <= p_now, true)
        and exists (select 1 from fleet.webhook_inbox as w where w.integration_id = x.id and w.status = 'waiting')
    ) as d
    join public.device_integrations as i on i.id = d.id
    where d.turn <= fleet.share_of(p_shares, 'owner', d.owner_id::text)
    order by d.turn, random()
    limit fleet.share_in_all(p_shares)
  loop
    update fleet.golioth_syncs as g
    set inbox_held_until = p_now + interval '30 seconds'
    where g.integration_id in (
      select x.integration_id
      from fleet.golioth_syncs as x
      where x.integration_id = v_integration.id and coalesce(x.inbox_held_until <= p_now, true)
      for update skip locked
    );
    if found then
      return next jsonb_build_object(
        'integration_id', v_integration.id, 'owner_id', v_integration.owner_id, 'held_until', p_now + interval '30 seconds',
        'keep_days', fleet.setting_number('telemetry_days')
      ) || fleet.take_inbox(v_integration, 5000);
    end if;
  end loop;
end;
$$;

comment on function fleet.worker_claim_inbox(jsonb, timestamptz) is
  'Lease what was pushed to integrations, for half a minute, 5,000 messages of each: {integration_id, owner_id, held_until, keep_days, messages: '
  '[[id, device_id, path, at, received_at, digest, data]], aside, aside_of}; owners in turn. Definer: the worker reads no table.';
revoke all on function fleet.worker_claim_inbox(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_finish_inbox(
  p_integration_id bigint,
  p_held_until timestamptz,
  p_report jsonb,
  p_now timestamptz default clock_timestamp()
)
returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_integration public.device_integrations;
begin
  select i.* into v_integration from public.device_integrations as i where i.id = p_integration_id;
  update fleet.golioth_syncs as g
  set inbox_held_until = null
  where g.integration_id = p_integration_id and g.inbox_held_until = p_held_until;
  if not found then
    return false;
  end if;

  with ended as (
    update fleet.webhook_inbox as w
    set status = 'done', data = null, finished_at = p_now
    where w.id = any (array(select e.id::bigint from jsonb_array_elements_text(p_report -> 'ids') as e(id)))
      and w.integration_id = p_integration_id
      and w.status = 'waiting'
    returning w.external_id, w.received_at
  ),
  heard as (
    select l.device_id, max(e.received_at) as at
    from ended as e
    join public.device_links as l on l.integration_id = p_integration_id and l.external_id = e.external_id
    group by l.device_id
  )
  update public.devices as d
  set last_seen = h.at
  from (select x.* from heard as x order by x.device_id) as h
  where d.id = h.device_id and coalesce(d.last_seen, '-infinity') < h.at;

  if p_report ->> 'error' is not null or (p_report #>> '{counts,messages}')::integer > 0 then
    perform fleet.log_activity(v_integration, jsonb_build_object(
      'activity_type', 'webhook_received',
      'status', case when p_report ->> 'error' is null then 'completed' else 'failed' end,
      'counts', p_report -> 'counts', 'duration_ms', p_report -> 'duration_ms', 'error', p_report -> 'error',
      'detail', coalesce(p_report -> 'detail', '{}')
    ), p_now);
  end if;
  return true;
end;
$$;

comment on function fleet.worker_finish_inbox(bigint, timestamptz, jsonb, timestamptz) is
  'The points of messages are stored: {ids, counts, duration_ms, detail, error}. Ends the lease and logs webhook_received; false where another '
  'function has the lease by now. Definer: the worker writes no table.';
revoke all on function fleet.worker_finish_inbox(bigint, timestamptz, jsonb, timestamptz) from public, anon, authenticated, service_role;

-- db/sources/62_golioth/50_verbs.sql
-- What people do with a sync: its pace, history, its cost, and what keeps it from working.

create or replace function fleet.golioth_of_caller(p_integration_id bigint)
returns public.device_integrations
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_integrations := fleet.integration_of_caller(p_integration_id);
begin
  if v_row.integration_type <> 'golioth' then
    raise exception 'integration % is one of %, which is not pulled', p_integration_id, v_row.integration_type
      using errcode = 'PT409',
            detail = 'integration_not_pulled',
            hint = 'Its devices are read with: select sync_integration(…)';
  end if;
  return v_row;
end;
$$;

comment on function fleet.golioth_of_caller(bigint) is
  'The Golioth integration, locked, if the caller manages it. Raises integration_not_found (PT404), permission_missing (PT403) or '
  'integration_not_pulled (PT409).';
revoke all on function fleet.golioth_of_caller(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.change_sync(p_integration_id bigint, p_settings jsonb)
returns public.device_integrations
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_integrations := fleet.golioth_of_caller(p_integration_id);
begin
  if jsonb_typeof(p_settings) is distinct from 'object' then
    raise exception 'the settings must be a JSON object'
      using errcode = 'PT422', detail = 'integration_invalid', hint = 'Example: {"syncIntervalSeconds": 600}';
  end if;
  perform fleet.require_size('the settings', 'settings', p_settings);
  update public.device_integrations as i
  set settings = fleet.without_nulls(i.settings || p_settings)
  where i.id = v_row.id
  returning * into v_row;
  return v_row;
end;
$$;

comment on function fleet.change_sync(bigint, jsonb) is 'See public.change_sync. Definer: it checks the caller.';
revoke all on function fleet.change_sync(bigint, jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.change_sync(bigint, jsonb) to authenticated, service_role;

create or replace function public.change_sync(p_integration_id bigint, p_settings jsonb)
returns public.device_integrations
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.change_sync(p_integration_id, p_settings)
$$;

comment on function public.change_sync(bigint, jsonb) is
  'Change some of the settings of a sync, null takes one away: syncEnabled, syncIntervalSeconds, timeWindow, deviceFilter, apiCallsPerMonth, '
  'direction, conflict, …; the others stay. Raises integration_not_found (PT404), permission_missing (PT403), integration_not_pulled (PT409) '
  'or integration_invalid (PT422).';
revoke all on function public.change_sync(bigint, jsonb) from public, anon, authenticated, service_role;
grant execute on function public.change_sync(bigint, jsonb) to authenticated, service_role;

create or replace function fleet.backfill_problems(p_integration_id bigint, p_from timestamptz, p_to timestamptz, p_now timestamptz)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select 'from', 'is missing', 'Example: 2026-02-01T00:00:00Z' where p_from is null
  union all
  select 'from', 'is not before the end', 'Give a from that is earlier than to, and not in the future.' where p_from >= p_to
  union all
  select 'from', format('is longer ago than points are kept, which is %s days', s.days), 'Raise the setting telemetry_days first.'
  from (select fleet.setting_number('telemetry_days')::integer as days) as s
  where p_from < p_now - make_interval(days => s.days)
  union all
  select 'from', 'is one too many: ten backfills wait already', format('Wait for them: select sync_status(%s)', p_integration_id)
  where (select count(*) from fleet.sync_backfills as b where b.integration_id = p_integration_id and b.finished_at is null) >= 10
$$;

comment on function fleet.backfill_problems(bigint, timestamptz, timestamptz, timestamptz) is 'All that is wrong with the time of a backfill.';
revoke all on function fleet.backfill_problems(bigint, timestamptz, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.backfill_sync(p_integration_id bigint, p_from timestamptz, p_to timestamptz)
returns bigint
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_integrations := fleet.golioth_of_caller(p_integration_id);
  v_to timestamptz := least(coalesce(p_to, clock_timestamp()), clock_timestamp());
  v_id bigint;
begin
  perform fleet.raise_problems('the backfill', 'backfill_invalid', array_agg(q))
  from fleet.backfill_problems(v_row.id, p_from, v_to, clock_timestamp()) as q;
  insert into fleet.sync_backfills (integration_id, owner_id, wanted_from, wanted_to, read_to, created_by)
  values (v_row.id, v_row.owner_id, p_from, v_to, p_from, fleet.current_user_id())
  returning id into v_id;
  update fleet.golioth_syncs as g set asked_at = coalesce(g.asked_at, clock_timestamp()) where g.integration_id = v_row.id;
  perform fleet.poke('golioth-pull', jsonb_build_object('at', clock_timestamp()), clock_timestamp());
  return v_id;
end;
$$;

comment on function fleet.backfill_sync(bigint, timestamptz, timestamptz) is 'See public.backfill_sync. Definer: it checks the caller.';
revoke all on function fleet.backfill_sync(bigint, timestamptz, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.backfill_sync(bigint, timestamptz, timestamptz) to authenticated, service_role;

create or replace function public.backfill_sync(p_integration_id bigint, p_from timestamptz, p_to timestamptz default null)
returns bigint
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.backfill_sync(p_integration_id, p_from, p_to)
$$;

comment on function public.backfill_sync(bigint, timestamptz, timestamptz) is
  'Read history from the other system, from p_from to p_to (now); what is there already stays as it is. Answers the id of the backfill. Raises '
  'integration_not_found (PT404), permission_missing (PT403), integration_not_pulled (PT409) or backfill_invalid (PT422).';
revoke all on function public.backfill_sync(bigint, timestamptz, timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.backfill_sync(bigint, timestamptz, timestamptz) to authenticated, service_role;

create or replace function fleet.sync_job()
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_job jsonb;
begin
  if to_regclass('cron.job') is not null then
    execute $query$
      select jsonb_build_object(
        'schedule', j.schedule, 'active', j.active,
        'last', (
          select to_jsonb(d)
          from (
            select r.status, r.return_message, r.start_time
            from cron.job_run_details as r where r.jobid = j.jobid order by r.runid desc limit 1
          ) as d
        )
      )
      from cron.job as j
      where j.jobname = 'auto-sync-cron-job'
      limit 1
    $query$ into v_job;
  end if;
  return v_job;
end;
$$;

comment on function fleet.sync_job() is 'How the job auto-sync-cron-job is: {schedule, active, last}; null where there is none.';
revoke all on function fleet.sync_job() from public, anon, authenticated, service_role;

create or replace function fleet.sync_status(p_integration_id bigint, p_now timestamptz)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_integrations := fleet.golioth_of_caller(p_integration_id);
  v_sync fleet.golioth_syncs;
  v_interval interval;
begin
  select g.* into v_sync from fleet.golioth_syncs as g where g.integration_id = v_row.id;
  v_interval := fleet.stretched_interval(v_row.settings, v_sync, p_now);
  return jsonb_build_object(
    'integration_id', v_row.id, 'name', v_row.name, 'status', v_row.status, 'status_reason', v_row.status_reason,
    'verdict', fleet.sync_verdict(v_row, v_sync, p_now),
    'interval_seconds', round(extract(epoch from v_interval)),
    'is_stretched', extract(epoch from v_interval) > coalesce(fleet.try_bigint(v_row.settings ->> 'syncIntervalSeconds'), 300),
    'direction', coalesce(v_row.settings ->> 'direction', 'import'), 'conflict', coalesce(v_row.settings ->> 'conflict', 'newest'),
    'conflicts', (select count(*) from public.sync_conflicts as c where c.integration_id = v_row.id and c.keep is null),
    'last_sync_at', v_row.last_sync_at, 'running_since', v_sync.started_at,
    'has_secret', fleet.stored_secret('integration:' || v_row.id) is not null,
    'devices', (select count(*) from public.device_links as l where l.integration_id = v_row.id and l.left_at is null),
    'read_to', (select min(c.read_to) from fleet.sync_cursors as c where c.integration_id = v_row.id),
    'waiting', (select count(*) from fleet.webhook_inbox as w where w.integration_id = v_row.id and w.status = 'waiting'),
    'aside', (select count(*) from fleet.webhook_inbox as w where w.integration_id = v_row.id and w.status = 'aside'),
    'webhook_addresses', (
      select count(*) from public.integration_webhooks as w where w.integration_id = v_row.id and w.revoked_at is null
    ),
    'last_pushed_at', (select max(w.received_at) from fleet.webhook_inbox as w where w.integration_id = v_row.id),
    'backfills', coalesce((
      select jsonb_agg(jsonb_build_object('id', b.id, 'from', b.wanted_from, 'to', b.wanted_to, 'read_to', b.read_to, 'points', b.points) order by b.id)
      from fleet.sync_backfills as b where b.integration_id = v_row.id and b.finished_at is null
    ), '[]'),
    'job', fleet.sync_job(), 'functions_url', fleet.setting('functions_url'),
    'cost', fleet.sync_cost(v_row, v_sync, p_now)
  );
end;
$$;

comment on function fleet.sync_status(bigint, timestamptz) is 'See public.sync_status. Definer: it checks the caller.';
revoke all on function fleet.sync_status(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.sync_status(bigint, timestamptz) to authenticated, service_role;

create or replace function public.sync_status(p_integration_id bigint, p_now timestamptz default now())
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.sync_status(p_integration_id, fleet.calendar_instant(p_now))
$$;

comment on function public.sync_status(bigint, timestamptz) is
  'How the sync of an integration stands: its job, what a call of the job would do now (verdict), how far it was read, what waits, what it '
  'costs. Raises integration_not_found (PT404), permission_missing (PT403) or integration_not_pulled (PT409).';
revoke all on function public.sync_status(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.sync_status(bigint, timestamptz) to authenticated, service_role;

create or replace function fleet.sync_cost(p_integration public.device_integrations, p_sync fleet.golioth_syncs, p_now timestamptz)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_interval numeric := extract(epoch from fleet.stretched_interval(p_integration.settings, p_sync, p_now));
  v_limit bigint := coalesce(fleet.try_bigint(p_integration.settings ->> 'apiCallsPerMonth'), 10000);
  v_calls numeric;
  v_syncs bigint;
begin
  select sum(fleet.try_bigint(a.counts ->> 'api_calls')), count(*) into v_calls, v_syncs
  from public.integration_activity_log as a
  where a.integration_id = p_integration.id and a.activity_type = 'sync_import' and a.created_at > p_now - interval '7 days';
  v_calls := coalesce(v_calls / nullif(v_syncs, 0), p_sync.calls_a_sync);
  return jsonb_build_object(
    'syncs_measured', v_syncs, 'calls_a_sync', round(v_calls, 1),
    'syncs_a_day', round(86400 / v_interval, 1),
    'calls_a_day', round(v_calls * 86400 / v_interval),
    'calls_a_month', round(v_calls * 2592000 / v_interval),
    'calls_this_month', fleet.calls_in_month(p_sync, p_now),
    'limit_a_month', v_limit,
    'is_within_limit', v_calls * 2592000 / v_interval <= v_limit
  );
end;
$$;

comment on function fleet.sync_cost(public.device_integrations, fleet.golioth_syncs, timestamptz) is
  'Calls of the API per day and per month of 30 days, from what the pulls of the last week took, against apiCallsPerMonth (10,000).';
revoke all on function fleet.sync_cost(public.device_integrations, fleet.golioth_syncs, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/62_golioth/52_desired.sql
-- What people want of a device in another system, and what they decide where it was changed on both sides.

create or replace function fleet.desired_problems(p_desired jsonb)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select 'desired', 'must be an object', 'Example: {"led": {"on": true}}; null takes a value away'
  where jsonb_typeof(p_desired) is distinct from 'object'
  union all
  select 'desired', 'has more than 200 values', 'Send fewer of them; a list is one value.'
  where fleet.leaf_map(p_desired) is null and p_desired is not null
  union all
  select 'desired', format('"%s" cannot be a path', left(l.path, 60)),
    'Names have letters, digits, - _ and . and a path has 240 characters at most.'
  from fleet.json_leaves(p_desired) as l
  where length(l.path) > 240 or l.path !~ '^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$'
$$;

comment on function fleet.desired_problems(jsonb) is 'All that is wrong with what is wanted of a device.';
revoke all on function fleet.desired_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.patched(p_tree jsonb, p_changes jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  with recursive nodes as (
    select array[e.key] as path, e.value from jsonb_each(p_changes) as e
    union all
    select n.path || e.key, e.value
    from nodes as n
    cross join lateral jsonb_each(fleet.object_or_empty(n.value)) as e
    where cardinality(n.path) < 16
  ),
  gone as (
    select array_to_string(n.path, '/') as path from nodes as n where jsonb_typeof(n.value) <> 'object'
  ),
  kept as (
    select o.path, o.value
    from fleet.json_leaves(p_tree) as o
    where not exists (
      select 1 from gone as g
      where o.path = g.path or starts_with(o.path, g.path || '/') or starts_with(g.path, o.path || '/')
    )
    union all
    select l.path, l.value from fleet.json_leaves(p_changes) as l
  )
  select fleet.tree_of_leaves(coalesce(jsonb_object_agg(k.path, k.value), '{}')) from kept as k
$$;

comment on function fleet.patched(jsonb, jsonb) is
  'A tree with changes merged into it: a value takes the place of what was there, null takes it away.';
revoke all on function fleet.patched(jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.ask_for_export(p_integration_id bigint, p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  update fleet.golioth_syncs as g
  set asked_at = coalesce(g.asked_at, p_now)
  from public.device_integrations as i
  where g.integration_id = p_integration_id and i.id = g.integration_id
    and i.settings ->> 'direction' in ('export', 'both')
    -- Where calls are counted, it goes with the next pull.
    and not i.settings ? 'apiCallsPerMonth';
  if found then
    perform fleet.poke_once_a_second('golioth-pull', p_now);
  end if;
end;
$$;

comment on function fleet.ask_for_export(bigint, timestamptz) is
  'Ask for a sync because something is to be written there, unless its calls are counted.';
revoke all on function fleet.ask_for_export(bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.golioth_link(p_device_id bigint, p_integration_id bigint)
returns public.device_links
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_links public.device_links[];
begin
  select array_agg(l) into v_links
  from public.device_links as l
  join public.device_integrations as i on i.id = l.integration_id and i.integration_type = 'golioth'
  where l.device_id = p_device_id and l.left_at is null
    and (p_integration_id is null or l.integration_id = p_integration_id)
    and fleet.is_visible_owner(l.owner_id);
  if v_links is null then
    raise exception 'device % is in no Golioth project', p_device_id
      using errcode = 'PT404', detail = 'device_link_not_found', hint = 'Pull first: select sync_integration(id) from device_integrations';
  elsif cardinality(v_links) > 1 then
    raise exception 'device % is in % Golioth projects', p_device_id, cardinality(v_links)
      using errcode = 'PT409', detail = 'device_link_ambiguous', hint = 'Name the integration as well.';
  end if;
  perform fleet.require_permission(v_links[1].owner_id, 'operate', format('device %s', p_device_id));
  return v_links[1];
end;
$$;

comment on function fleet.golioth_link(bigint, bigint) is
  'The one link of a device to a Golioth project, if the caller operates it. Raises device_link_not_found (PT404), device_link_ambiguous '
  '(PT409) or permission_missing (PT403).';
revoke all on function fleet.golioth_link(bigint, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.set_desired_state(p_device_id bigint, p_desired jsonb, p_integration_id bigint)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_link public.device_links := fleet.golioth_link(p_device_id, p_integration_id);
  v_leaves jsonb;
begin
  perform fleet.require_size('what is wanted', 'desired', p_desired);
  perform fleet.raise_problems('what is wanted', 'desired_invalid', array_agg(q)) from fleet.desired_problems(p_desired) as q;
  select l.* into v_link
  from public.device_links as l
  where l.device_id = v_link.device_id and l.integration_id = v_link.integration_id
  for update;
  -- Null takes a value away, also a whole branch.
  v_leaves := fleet.leaf_map(fleet.patched(v_link.desired, p_desired));
  perform fleet.raise_problems('what is wanted', 'desired_invalid', array_agg(p.problem))
  from (
    select row('desired', 'would have more than 200 values', 'Take others away with null.')::fleet.problem as problem where v_leaves is null
  ) as p;
  perform fleet.require_size('what is wanted', 'desired', fleet.tree_of_leaves(v_leaves));
  update public.device_links as l
  set desired = fleet.tree_of_leaves(v_leaves), desired_at = clock_timestamp(), updated_at = clock_timestamp()
  where l.device_id = v_link.device_id and l.integration_id = v_link.integration_id
  returning l.* into v_link;
  perform fleet.ask_for_export(v_link.integration_id, clock_timestamp());
  return v_link.desired;
end;
$$;

comment on function fleet.set_desired_state(bigint, jsonb, bigint) is 'See public.set_desired_state. Definer: it checks the caller.';
revoke all on function fleet.set_desired_state(bigint, jsonb, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.set_desired_state(bigint, jsonb, bigint) to authenticated, service_role;

create or replace function public.set_desired_state(p_device_id bigint, p_desired jsonb, p_integration_id bigint default null)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.set_desired_state(p_device_id, p_desired, p_integration_id)
$$;

comment on function public.set_desired_state(bigint, jsonb, bigint) is
  'Say what is wanted of a device in its Golioth project: a tree of values that is merged into what is wanted already, null takes one away. It '
  'is written under desired in the LightDB State of the device, at once, where the sync exports. Answers all that is wanted. Raises '
  'device_link_not_found (PT404), device_link_ambiguous (PT409), permission_missing (PT403) or desired_invalid (PT422).';
revoke all on function public.set_desired_state(bigint, jsonb, bigint) from public, anon, authenticated, service_role;
grant execute on function public.set_desired_state(bigint, jsonb, bigint) to authenticated, service_role;

create or replace function fleet.resolve_sync_conflict(p_id bigint, p_keep text)
returns public.sync_conflicts
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.sync_conflicts;
begin
  select c.* into v_row from public.sync_conflicts as c where c.id = p_id and fleet.is_visible_owner(c.owner_id) for update;
  if not found then
    raise exception 'sync conflict % was not found', p_id
      using errcode = 'PT404', detail = 'sync_conflict_not_found', hint = 'List them with: select * from sync_conflict_list';
  end if;
  perform fleet.require_permission(v_row.owner_id, 'manage', format('sync conflict %s', p_id));
  perform fleet.raise_problems('the decision', 'desired_invalid', array_agg(q))
  from fleet.choice_problem('keep', to_jsonb(p_keep), '{local,remote}') as q;
  update public.sync_conflicts as c set keep = p_keep where c.id = p_id returning c.* into v_row;
  perform fleet.ask_for_export(v_row.integration_id, clock_timestamp());
  return v_row;
end;
$$;

comment on function fleet.resolve_sync_conflict(bigint, text) is 'See public.resolve_sync_conflict. Definer: it checks the caller.';
revoke all on function fleet.resolve_sync_conflict(bigint, text) from public, anon, authenticated, service_role;
grant execute on function fleet.resolve_sync_conflict(bigint, text) to authenticated, service_role;

create or replace function public.resolve_sync_conflict(p_id bigint, p_keep text)
returns public.sync_conflicts
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.resolve_sync_conflict(p_id, p_keep)
$$;

comment on function public.resolve_sync_conflict(bigint, text) is
  'Say which side of a conflict counts, local or remote; the next sync, which is asked for, does it. Answers the row. Raises '
  'sync_conflict_not_found (PT404), permission_missing (PT403) or desired_invalid (PT422).';
revoke all on function public.resolve_sync_conflict(bigint, text) from public, anon, authenticated, service_role;
grant execute on function public.resolve_sync_conflict(bigint, text) to authenticated, service_role;

-- db/sources/62_golioth/60_check.sql
-- The job that comes by, and a look at all that has to be right for a sync.

create or replace function fleet.create_sync_job()
returns text
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if fleet.sync_job() is not null then
    return 'there already';
  elsif not exists (select 1 from pg_catalog.pg_extension where extname = 'pg_cron') then
    return 'missing: enable pg_cron, or let pgfleet functions run --poll come by';
  elsif not fleet.is_trusted_caller() then
    return 'missing: the operator of the database makes it';
  end if;
  execute format('select cron.%I($1, $2, $3)', 'schedule') using 'auto-sync-cron-job', '*/5 * * * *', $job$
    select fleet.poke('auto-sync-cron', jsonb_build_object('time', now(), 'source', 'pg_cron'))
  $job$;
  return 'made';
end;
$$;

comment on function fleet.create_sync_job() is 'See public.create_sync_job. Definer: it checks the caller.';
revoke all on function fleet.create_sync_job() from public, anon, authenticated, service_role;
grant execute on function fleet.create_sync_job() to authenticated, service_role;

create or replace function public.create_sync_job()
returns text
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.create_sync_job()
$$;

comment on function public.create_sync_job() is
  'Make the job auto-sync-cron-job, which comes by every five minutes, where there is none: made, there already, or why it is missing. It is '
  'never made again by a migration, so that whoever takes it away has it away.';
revoke all on function public.create_sync_job() from public, anon, authenticated, service_role;
grant execute on function public.create_sync_job() to authenticated, service_role;

create or replace function fleet.judged_sync(p_status jsonb, p_log jsonb, p_now timestamptz)
returns table (topic text, is_well boolean, found text, what_to_do text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select t.topic, coalesce(t.is_well, false), t.found, case when coalesce(t.is_well, false) then '' else t.what_to_do end
  from (
    values
      ('API key', (p_status ->> 'has_secret')::boolean, case p_status ->> 'has_secret' when 'true' then 'there' else 'missing' end,
        format('pgfleet integration set-secret %s', p_status ->> 'name')),
      ('integration', p_status ->> 'status' = 'active', concat_ws(': ', p_status ->> 'status', p_status ->> 'status_reason'),
        format('pgfleet integration resume %s', p_status ->> 'name')),
      ('sync', p_status ->> 'verdict' in ('due', 'not due', 'running'), p_status ->> 'verdict',
        format('pgfleet sync pause %s --resume, or look at settings.timeWindow', p_status ->> 'name')),
      ('address of the functions', p_status ->> 'functions_url' is not null, coalesce(p_status ->> 'functions_url', 'not set'),
        'pgfleet functions setup --url https://…/functions/v1'),
      ('job', (p_status #>> '{job,active}')::boolean,
        coalesce(concat_ws(', ', p_status #>> '{job,schedule}', 'last run ' || (p_status #>> '{job,last,status}')), 'none'),
        'Make it as docs/how-to/golioth.md shows, or call create_sync_job()'),
      ('last pull', (p_status ->> 'last_sync_at')::timestamptz
          > p_now - make_interval(secs => 3 * (p_status ->> 'interval_seconds')::double precision),
        coalesce(p_status ->> 'last_sync_at', 'never'), coalesce(p_log ->> 'error', 'Do the functions run? See: pgfleet status')),
      ('address to push to', (p_status ->> 'webhook_addresses')::integer > 0, p_status ->> 'webhook_addresses',
        format('pgfleet integration webhook create %s', p_status ->> 'name')),
      ('last push', (p_status ->> 'last_pushed_at')::timestamptz > p_now - interval '1 day', coalesce(p_status ->> 'last_pushed_at', 'never'),
        'Look at the pipeline: does it push to the address, and are there errors?'),
      ('pushed for unknown devices', (p_status ->> 'aside')::integer = 0, p_status ->> 'aside',
        'They are stored when a pull finds the device; does the filter leave it out?'),
      ('changed on both sides', (p_status ->> 'conflicts')::integer = 0, p_status ->> 'conflicts',
        format('pgfleet sync conflicts %s', p_status ->> 'name')),
      ('calls of the API', coalesce((p_status #>> '{cost,is_within_limit}')::boolean, true),
        coalesce(format('%s of %s a month', p_status #>> '{cost,calls_a_month}', p_status #>> '{cost,limit_a_month}'), ''),
        format('pgfleet sync interval %s 600', p_status ->> 'name'))
  ) as t(topic, is_well, found, what_to_do)
$$;

comment on function fleet.judged_sync(jsonb, jsonb, timestamptz) is 'What is to be said of sync_status(), topic by topic.';
revoke all on function fleet.judged_sync(jsonb, jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.check_sync(p_integration_id bigint, p_now timestamptz)
returns table (topic text, is_well boolean, found text, what_to_do text)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_status jsonb := fleet.sync_status(p_integration_id, p_now);
  v_log jsonb;
begin
  select to_jsonb(a) into v_log
  from public.integration_activity_log as a
  where a.integration_id = p_integration_id and a.activity_type = 'sync_import'
  order by a.created_at desc, a.id desc
  limit 1;
  return query select j.* from fleet.judged_sync(v_status, v_log, p_now) as j;
end;
$$;

comment on function fleet.check_sync(bigint, timestamptz) is 'See public.check_sync. Definer: it checks the caller.';
revoke all on function fleet.check_sync(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.check_sync(bigint, timestamptz) to authenticated, service_role;

create or replace function public.check_sync(p_integration_id bigint, p_now timestamptz default now())
returns table (topic text, is_well boolean, found text, what_to_do text)
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select c.* from fleet.check_sync(p_integration_id, fleet.calendar_instant(p_now)) as c
$$;

comment on function public.check_sync(bigint, timestamptz) is
  'All that has to be right for a sync, topic by topic, with what to do where it is not. Raises integration_not_found (PT404), '
  'permission_missing (PT403) or integration_not_pulled (PT409).';
revoke all on function public.check_sync(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.check_sync(bigint, timestamptz) to authenticated, service_role;

-- db/sources/62_golioth/views.sql
-- Both sides of a sync, as people list them.

drop view if exists public.device_state_list;
create view public.device_state_list with (security_invoker = true) as
select
  l.device_id, l.owner_id, d.hostname, i.name as integration, l.integration_id, l.external_id, l.desired, l.desired_at,
  l.attributes -> 'state' as state, l.seen_at, l.left_at
from public.device_links as l
join public.device_integrations as i on i.id = l.integration_id and i.integration_type = 'golioth'
join public.devices as d on d.id = l.device_id;

comment on view public.device_state_list is 'What is wanted of each device in its Golioth project, and the state that it has there.';
comment on column public.device_state_list.hostname is 'The host name of the device.';
comment on column public.device_state_list.integration is 'The name of the integration.';
comment on column public.device_state_list.state is 'The LightDB State, as the last pull found it.';
select fleet.inherit_comments('public.device_state_list', 'public.device_links');
revoke all on table public.device_state_list from public, anon, authenticated, service_role;
grant select on table public.device_state_list to authenticated, service_role;

drop view if exists public.sync_conflict_list;
create view public.sync_conflict_list with (security_invoker = true) as
select
  c.id, c.owner_id, i.name as integration, d.hostname, c.field, c.local, c.remote, c.keep, c.created_at, c.integration_id, c.device_id
from public.sync_conflicts as c
join public.device_integrations as i on i.id = c.integration_id
join public.devices as d on d.id = c.device_id;

comment on view public.sync_conflict_list is 'What was changed on both sides of a sync, for a person to decide.';
comment on column public.sync_conflict_list.hostname is 'The host name of the device.';
comment on column public.sync_conflict_list.integration is 'The name of the integration.';
select fleet.inherit_comments('public.sync_conflict_list', 'public.sync_conflicts');
revoke all on table public.sync_conflict_list from public, anon, authenticated, service_role;
grant select on table public.sync_conflict_list to authenticated, service_role;

-- db/sources/62_golioth/triggers.sql
-- What holds for Golioth integrations however a row is written.

create or replace function fleet.tg_check_golioth()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'INSERT' then
    new.settings := fleet.golioth_defaults() || new.settings;
  end if;
  perform fleet.raise_problems('the integration', 'integration_invalid', array_agg(q))
  from fleet.golioth_problems(new.settings) as q;
  return new;
end;
$$;

comment on function fleet.tg_check_golioth() is
  'Complete and check the settings of a Golioth integration. Definer: whoever may write the table may not call what it checks with.';
revoke all on function fleet.tg_check_golioth() from public, anon, authenticated, service_role;

create or replace trigger device_integrations_03_check_golioth
  before insert or update of settings, integration_type on public.device_integrations
  for each row when (new.integration_type = 'golioth') execute function fleet.tg_check_golioth();

create or replace function fleet.tg_prepare_golioth()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into fleet.golioth_syncs (integration_id, owner_id) values (new.id, new.owner_id) on conflict do nothing;
  return null;
end;
$$;

comment on function fleet.tg_prepare_golioth() is
  'Each Golioth integration has its row that says how its pull stands. Definer: whoever may write the one may not write the other.';
revoke all on function fleet.tg_prepare_golioth() from public, anon, authenticated, service_role;

create or replace trigger device_integrations_04_prepare_golioth
  after insert or update of integration_type on public.device_integrations
  for each row when (new.integration_type = 'golioth') execute function fleet.tg_prepare_golioth();

create or replace function fleet.tg_note_renaming()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  update fleet.sync_bases as b set renamed_at = clock_timestamp() where b.device_id = new.id;
  return null;
end;
$$;

comment on function fleet.tg_note_renaming() is
  'Keep when a device was renamed here, for syncs where the newest name counts. Definer: whoever may rename may not write that.';
revoke all on function fleet.tg_note_renaming() from public, anon, authenticated, service_role;

create or replace trigger devices_62_note_renaming
  after update of hostname on public.devices
  for each row when (old.hostname is distinct from new.hostname) execute function fleet.tg_note_renaming();

select fleet.keep_audit('public.sync_conflicts', p_columns => '{keep}');

insert into fleet.golioth_syncs (integration_id, owner_id)
select i.id, i.owner_id from public.device_integrations as i where i.integration_type = 'golioth'
on conflict do nothing;

-- db/sources/62_golioth/access.sql
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

set check_function_bodies = on;
reset search_path;
