-- Reading all devices of another system: whose turn it is, page by page, and what holds when a sync came to its end.

create or replace function fleet.is_sync_due(p_integration public.device_integrations, p_now timestamptz)
returns boolean
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select p_integration.status = 'active'
    and coalesce(p_integration.sync_held_until <= p_now, true)
    and (
      p_integration.sync_requested_at > coalesce(p_integration.last_sync_at, '-infinity')
      or (
        p_integration.settings -> 'syncEnabled' is distinct from 'false'::jsonb
        and coalesce(
          p_integration.last_sync_at + make_interval(secs => case
            when jsonb_typeof(p_integration.settings -> 'syncIntervalSeconds') = 'number'
              then least(
                (p_integration.settings ->> 'syncIntervalSeconds')::numeric, fleet.limit_value('sync_interval')
              )::double precision
            else 3600
          end) <= p_now,
          true
        )
      )
    )
$$;

comment on function fleet.is_sync_due(public.device_integrations, timestamptz) is
  'Whether the devices of the other system are to be read now: somebody asked, or settings.syncIntervalSeconds (an hour) have passed.';
revoke all on function fleet.is_sync_due(public.device_integrations, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_claim_mdm_syncs(p_shares jsonb default '{}', p_now timestamptz default clock_timestamp())
returns setof jsonb
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  with due as (
    select i.id, i.owner_id,
      row_number() over (
        partition by i.owner_id order by i.sync_requested_at nulls last, i.last_sync_at nulls first
      ) as turn
    from public.device_integrations as i
    where i.integration_type = any (fleet.mdm_integration_types())
      and fleet.share_of(p_shares, 'way', i.id::text) > 0
      and fleet.is_sync_due(i, p_now)
  ),
  chosen as (
    select d.id
    from due as d
    where d.turn <= fleet.share_of(p_shares, 'owner', d.owner_id::text)
    -- Owners in turn, and nobody is always last.
    order by d.turn, random()
    limit fleet.share_in_all(p_shares)
  ),
  locked as (
    select i.id
    from public.device_integrations as i
    -- Another function may have taken it meanwhile.
    where i.id in (select c.id from chosen as c) and fleet.is_sync_due(i, p_now)
    for update skip locked
  ),
  taken as (
    update public.device_integrations as i
    set sync_held_until = p_now + interval '5 minutes'
    from locked as k
    where i.id = k.id
    returning i.*
  )
  select jsonb_build_object(
    'integration_id', t.id, 'owner_id', t.owner_id, 'integration_type', t.integration_type, 'settings', t.settings,
    'secret', s.secret, 'last_sync_at', t.last_sync_at, 'started_at', p_now
  )
  from taken as t
  left join lateral (select fleet.stored_secret('integration:' || t.id) as secret) as s on true
$$;

comment on function fleet.worker_claim_mdm_syncs(jsonb, timestamptz) is
  'Lease integrations whose devices are to be read, for five minutes: {integration_id, owner_id, integration_type, settings, secret, '
  'last_sync_at, started_at}; owners in turn, as many of each as p_shares allows. worker_end_mdm_sync ends the lease. Definer: the worker '
  'reads no table.';
revoke all on function fleet.worker_claim_mdm_syncs(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_sync_inventory(
  p_integration_id bigint,
  p_devices jsonb,
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
begin
  -- Its lock makes two syncs of the same integration take turns.
  select i.* into v_integration from public.device_integrations as i where i.id = p_integration_id for update;
  if not found then
    return jsonb_build_object('accepted', false, 'reason', 'not_found');
  end if;
  -- Two integrations of a fleet may be with one project: each would make the devices that the other one makes.
  perform pg_advisory_xact_lock(hashtextextended('pgfleet.sightings:' || v_integration.owner_id, 0));
  return jsonb_build_object('accepted', true) || fleet.take_sightings(v_integration, p_devices, p_now);
end;
$$;

comment on function fleet.worker_sync_inventory(bigint, jsonb, timestamptz) is
  'Bring a page of devices into the fleet: a list of {external_id, hostname or name, serial_number, platform, last_seen, latitude, longitude, '
  'accuracy_m, located_at, is_enrolled (false: it has left), attributes, profiles (ids, where they are known)}. {accepted, created, updated, '
  'left, errors: [{external_id, error}], notes: [{external_id, error}] of what was left out of devices}. Definer: the worker writes no table.';
revoke all on function fleet.worker_sync_inventory(bigint, jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.mark_devices_left(p_integration_id bigint, p_started_at timestamptz, p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  update public.device_links as l
  set left_at = p_now, updated_at = p_now
  where l.integration_id = p_integration_id
    and l.left_at is null
    and coalesce(l.seen_at, l.created_at) < p_started_at;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.mark_devices_left(bigint, timestamptz, timestamptz) is
  'Mark that another system no longer has the devices that were not seen since a sync began. Answers how many.';
revoke all on function fleet.mark_devices_left(bigint, timestamptz, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_end_mdm_sync(
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
  v_counts jsonb := coalesce(p_report -> 'counts', '{}');
  v_left integer := 0;
begin
  select i.* into v_integration from public.device_integrations as i where i.id = p_integration_id for update;
  if not found then
    return jsonb_build_object('accepted', false, 'reason', 'not_found');
  end if;

  if v_is_through then
    -- A list without any device is a fault rather than an account that everybody left.
    if (v_counts ->> 'devices')::integer > 0 then
      v_left := fleet.mark_devices_left(p_integration_id, p_started_at, p_now);
      v_counts := v_counts || jsonb_build_object('left', coalesce((v_counts ->> 'left')::integer, 0) + v_left);
    end if;
    update public.device_integrations as i
    -- Who asks while it runs is not answered by it.
    set last_sync_at = greatest(i.last_sync_at, p_started_at), sync_held_until = null
    where i.id = p_integration_id;
  end if;
  perform fleet.log_activity(v_integration, jsonb_build_object(
    'activity_type', 'sync_import',
    'status', case when v_is_through then 'completed' else 'failed' end,
    'counts', v_counts,
    'duration_ms', round(extract(epoch from p_now - p_started_at) * 1000),
    'error', p_report -> 'error',
    'detail', jsonb_strip_nulls(jsonb_build_object(
      'errors', fleet.errors_to_log(coalesce(p_report -> 'errors', '[]'), p_integration_id),
      'notes', nullif(fleet.errors_to_log(coalesce(p_report -> 'notes', '[]'), p_integration_id), '[]')
    ))
  ), p_now);
  return jsonb_build_object('accepted', true, 'left', v_left);
end;
$$;

comment on function fleet.worker_end_mdm_sync(bigint, timestamptz, jsonb, timestamptz) is
  'A sync that began at started_at has read every page, or stopped for an error: {counts: {devices, created, updated, left, errors, notes}, '
  'errors and notes: [{external_id, error}], error}. What a whole one did not see has left. {accepted, left}. Definer: the worker writes no table.';
revoke all on function fleet.worker_end_mdm_sync(bigint, timestamptz, jsonb, timestamptz)
  from public, anon, authenticated, service_role;
