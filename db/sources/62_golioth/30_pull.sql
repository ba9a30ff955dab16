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
