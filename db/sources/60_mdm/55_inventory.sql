-- Reading the devices of an MDM into the registry.

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
              then (p_integration.settings ->> 'syncIntervalSeconds')::double precision
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

create or replace function fleet.worker_claim_mdm_syncs(p_limit integer default 1, p_now timestamptz default clock_timestamp())
returns setof jsonb
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  with due as (
    select i.id
    from public.device_integrations as i
    where i.integration_type = any (fleet.mdm_integration_types()) and fleet.is_sync_due(i, p_now)
    order by i.sync_requested_at nulls last, i.last_sync_at nulls first
    limit p_limit
    for update skip locked
  ),
  taken as (
    update public.device_integrations as i
    set sync_held_until = p_now + interval '5 minutes'
    from due
    where i.id = due.id
    returning i.*
  )
  select jsonb_build_object(
    'integration_id', t.id, 'owner_id', t.owner_id, 'integration_type', t.integration_type, 'settings', t.settings,
    'secret', s.secret, 'last_sync_at', t.last_sync_at
  )
  from taken as t
  left join public.pg_cron_secrets as s on s.name = 'integration:' || t.id
$$;

comment on function fleet.worker_claim_mdm_syncs(integer, timestamptz) is
  'Lease integrations whose devices are to be read, for five minutes: {integration_id, owner_id, integration_type, settings, secret, '
  'last_sync_at}. worker_sync_inventory ends the lease. Definer: the worker reads no table.';
revoke all on function fleet.worker_claim_mdm_syncs(integer, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.found_device(p_integration public.device_integrations, p_found jsonb)
returns bigint
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select d.id
  from public.devices as d
  left join public.device_links as l on l.device_id = d.id and l.integration_id = p_integration.id
  where d.owner_id = p_integration.owner_id
    and (
      l.external_id = p_found ->> 'external_id'
      -- One that is linked to another device there is not this one.
      or (l.device_id is null and d.attributes ->> 'serial_number' = p_found ->> 'serial_number')
      or (
        l.device_id is null
        and lower(d.hostname) = lower(coalesce(p_found ->> 'hostname', p_found ->> 'name'))
        and coalesce(d.attributes ->> 'serial_number' = p_found ->> 'serial_number', true)
      )
    )
  order by (l.external_id is not null) desc, (d.attributes ->> 'serial_number' = p_found ->> 'serial_number') desc nulls last, d.id
  limit 1
$$;

comment on function fleet.found_device(public.device_integrations, jsonb) is
  'The device that another system means: by its link, its serial number, or its name; null for a new one.';
revoke all on function fleet.found_device(public.device_integrations, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.sync_mdm_device(p_integration public.device_integrations, p_found jsonb, p_now timestamptz)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device_id bigint := fleet.found_device(p_integration, p_found);
  v_is_new boolean := v_device_id is null;
  v_name text := coalesce(p_found ->> 'hostname', p_found ->> 'name', p_found ->> 'serial_number', p_found ->> 'external_id');
begin
  if v_is_new then
    insert into public.devices (owner_id, hostname, platform)
    values (
      p_integration.owner_id,
      case
        when exists (
          select 1 from public.devices as d where d.owner_id = p_integration.owner_id and lower(d.hostname) = lower(v_name)
        ) then format('%s (%s)', v_name, p_found ->> 'external_id')
        else v_name
      end,
      p_found ->> 'platform'
    )
    returning id into v_device_id;
  end if;

  update public.devices as d
  set platform = coalesce(d.platform, p_found ->> 'platform'),
      attributes = d.attributes || coalesce(p_found -> 'attributes', '{}') || case
        when p_found ->> 'serial_number' is null then '{}'
        else jsonb_build_object('serial_number', p_found ->> 'serial_number')
      end,
      last_seen = greatest(d.last_seen, (p_found ->> 'last_seen')::timestamptz),
      latitude = case when o.is_fresh then (p_found ->> 'latitude')::double precision else d.latitude end,
      longitude = case when o.is_fresh then (p_found ->> 'longitude')::double precision else d.longitude end,
      accuracy_m = case when o.is_fresh then (p_found ->> 'accuracy_m')::double precision else d.accuracy_m end,
      located_at = case when o.is_fresh then (p_found ->> 'located_at')::timestamptz else d.located_at end
  from (
    select x.id, coalesce(
      p_found ->> 'latitude' is not null and p_found ->> 'longitude' is not null
      and (p_found ->> 'located_at')::timestamptz > coalesce(x.located_at, '-infinity'),
      false
    ) as is_fresh
    from public.devices as x
    where x.id = v_device_id
  ) as o
  where d.id = o.id;

  insert into public.device_links as l (device_id, integration_id, owner_id, external_id, attributes)
  values (
    v_device_id, p_integration.id, p_integration.owner_id, p_found ->> 'external_id', coalesce(p_found -> 'attributes', '{}')
  )
  on conflict (device_id, integration_id) do update
    set external_id = excluded.external_id, attributes = excluded.attributes, updated_at = p_now;
  if jsonb_typeof(p_found -> 'profiles') = 'array' then
    perform fleet.note_profile_state(v_device_id, u.profile_id, true, null, p_now)
    from jsonb_array_elements_text(p_found -> 'profiles') as u(profile_id);
    update public.device_profiles as p
    set is_installed = false, changed_at = p_now
    where p.device_id = v_device_id and p.is_installed and not (p_found -> 'profiles') ? p.profile_id;
  end if;
  return v_is_new;
end;
$$;

comment on function fleet.sync_mdm_device(public.device_integrations, jsonb, timestamptz) is
  'Bring one device of another system into the fleet. Answers whether it is new.';
revoke all on function fleet.sync_mdm_device(public.device_integrations, jsonb, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.worker_sync_inventory(
  p_integration_id bigint,
  p_devices jsonb,
  p_is_last boolean default true,
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
  v_found jsonb;
  v_created integer := 0;
  v_updated integer := 0;
  v_errors jsonb := '[]';
begin
  -- Its lock makes two syncs of the same integration take turns.
  select i.* into v_integration from public.device_integrations as i where i.id = p_integration_id for update;
  if not found then
    return jsonb_build_object('accepted', false, 'reason', 'not_found');
  end if;

  for v_found in select e.item from jsonb_array_elements(p_devices) as e(item) loop
    begin
      if fleet.sync_mdm_device(v_integration, v_found, p_now) then
        v_created := v_created + 1;
      else
        v_updated := v_updated + 1;
      end if;
    exception
      when query_canceled or admin_shutdown or deadlock_detected then
        raise;
      when others then
        -- One device that is not fit does not keep the others out.
        v_errors := v_errors || jsonb_build_object('external_id', v_found ->> 'external_id', 'error', sqlerrm);
    end;
  end loop;
  perform fleet.take_linked_fixes(p_integration_id, p_devices, p_now);
  if p_is_last then
    update public.device_integrations as i
    set last_sync_at = p_now, sync_held_until = null
    where i.id = p_integration_id;
  end if;
  return jsonb_build_object('accepted', true, 'created', v_created, 'updated', v_updated, 'errors', v_errors);
end;
$$;

comment on function fleet.worker_sync_inventory(bigint, jsonb, boolean, timestamptz) is
  'Bring a page of devices into the fleet: a list of {external_id, hostname or name, serial_number, platform, last_seen, latitude, longitude, '
  'accuracy_m, located_at, attributes, profiles (ids as texts, where they are known)}. p_is_last says that the sync is through. {accepted, created, updated, errors}. Definer: the worker '
  'writes no table.';
revoke all on function fleet.worker_sync_inventory(bigint, jsonb, boolean, timestamptz)
  from public, anon, authenticated, service_role;
