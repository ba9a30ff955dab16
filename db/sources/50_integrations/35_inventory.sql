-- Bringing the devices of another system into the registry: a page of any size by a handful of statements.

create or replace function fleet.sighted_attributes(p_item jsonb)
returns jsonb
language sql
immutable
parallel safe
return (p_item -> 'attributes') || jsonb_strip_nulls(jsonb_build_object('serial_number', p_item -> 'serial_number'));

comment on function fleet.sighted_attributes(jsonb) is 'What a parsed sighting adds to the facts about its device.';
revoke all on function fleet.sighted_attributes(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.add_sighted_devices(p_owner_id uuid, p_items jsonb)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_made jsonb := '[]';
  v_spelling text;
begin
  -- A name that is taken, by a device or by another of these, is told apart by the id in the other system.
  foreach v_spelling in array '{"%1$s","%1$s (%2$s)"}'::text[] loop
    exit when jsonb_array_length(v_made) = jsonb_array_length(p_items);
    with wanted as materialized (
      select distinct on (lower(w.hostname)) w.item, w.nr, w.hostname
      from (
        select e.item, (e.item ->> 'nr')::bigint as nr,
          format(v_spelling, e.item ->> 'hostname', e.item ->> 'external_id') as hostname
        from jsonb_array_elements(p_items) as e(item)
      ) as w
      left join jsonb_to_recordset(v_made) as m(nr bigint) on m.nr = w.nr
      where m.nr is null
      order by lower(w.hostname), w.nr
    ),
    made as (
      insert into public.devices (owner_id, hostname, platform, attributes, last_seen, prepared)
      select p_owner_id, w.hostname, w.item ->> 'platform', fleet.sighted_attributes(w.item),
        (w.item ->> 'last_seen')::timestamptz, false
      from wanted as w
      -- In one order, so that two integrations of a fleet never wait for each other in a circle.
      order by lower(w.hostname)
      on conflict (owner_id, lower(hostname)) do nothing
      returning id, hostname
    )
    select v_made || coalesce(jsonb_agg(w.item || jsonb_build_object('device_id', m.id)), '[]') into v_made
    from wanted as w
    join made as m on m.hostname = w.hostname;
  end loop;
  if v_made <> '[]' then
    perform fleet.require_quota(p_owner_id, 'devices');
  end if;
  return v_made;
end;
$$;

comment on function fleet.add_sighted_devices(uuid, jsonb) is
  'Make devices of parsed sightings that mean none of ours. Answers those that were made, with device_id.';
revoke all on function fleet.add_sighted_devices(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.update_sighted_devices(p_items jsonb)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- In one order, so that two who write the same devices never wait for each other in a circle.
  perform 1
  from public.devices as d
  where d.id in (select i.device_id from jsonb_to_recordset(p_items) as i(device_id bigint))
  order by d.id
  for no key update;

  update public.devices as d
  set platform = n.platform, attributes = n.attributes, last_seen = n.last_seen
  from (
    select x.id, coalesce(x.platform, e.item ->> 'platform') as platform,
      x.attributes || fleet.sighted_attributes(e.item) as attributes,
      greatest(x.last_seen, (e.item ->> 'last_seen')::timestamptz) as last_seen
    from jsonb_array_elements(p_items) as e(item)
    join public.devices as x on x.id = (e.item ->> 'device_id')::bigint
  ) as n
  where d.id = n.id
    -- Most say what they said before.
    and (d.platform, d.attributes, d.last_seen) is distinct from (n.platform, n.attributes, n.last_seen);
end;
$$;

comment on function fleet.update_sighted_devices(jsonb) is 'Keep what parsed sightings, with device_id, say of devices of ours.';
revoke all on function fleet.update_sighted_devices(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.link_sighted_devices(p_integration public.device_integrations, p_items jsonb, p_now timestamptz)
returns integer
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  with kept as (
    insert into public.device_links as l (
      device_id, integration_id, owner_id, external_id, attributes, capabilities, seen_at, left_at
    )
    select d.id, p_integration.id, d.owner_id, i.external_id, i.attributes, i.capabilities, p_now,
      case when not i.is_enrolled then p_now end
    from jsonb_to_recordset(p_items) as i(
      device_id bigint, external_id text, attributes jsonb, capabilities jsonb, is_enrolled boolean
    )
    join public.devices as d on d.id = i.device_id
    order by d.id
    on conflict (device_id, integration_id) do update
      set external_id = excluded.external_id,
          -- Its state is read apart.
          attributes = excluded.attributes || jsonb_strip_nulls(jsonb_build_object('state', l.attributes -> 'state')),
          capabilities = excluded.capabilities,
          seen_at = excluded.seen_at, updated_at = p_now,
          left_at = case when excluded.left_at is not null then coalesce(l.left_at, excluded.left_at) end
    returning l.left_at
  )
  select count(*)::integer from kept as k where k.left_at = p_now
$$;

comment on function fleet.link_sighted_devices(public.device_integrations, jsonb, timestamptz) is
  'Link devices to what another system calls them. One that is not enrolled there has left. Answers how many have just left.';
revoke all on function fleet.link_sighted_devices(public.device_integrations, jsonb, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.store_sighted_profiles(p_items jsonb, p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into public.device_profiles as p (device_id, profile_id, owner_id, is_installed, changed_at)
  select d.id, u.profile_id, d.owner_id, true, p_now
  from jsonb_to_recordset(p_items) as i(device_id bigint, profiles jsonb)
  join public.devices as d on d.id = i.device_id
  cross join lateral jsonb_array_elements_text(coalesce(nullif(i.profiles, 'null'), '[]')) as u(profile_id)
  order by d.id, u.profile_id
  on conflict (device_id, profile_id) do update
    set is_installed = true, changed_at = excluded.changed_at;

  update public.device_profiles as p
  set is_installed = false, changed_at = p_now
  from jsonb_to_recordset(p_items) as i(device_id bigint, profiles jsonb)
  where p.device_id = i.device_id
    and p.is_installed
    and jsonb_typeof(i.profiles) = 'array'
    and not i.profiles ? p.profile_id;
end;
$$;

comment on function fleet.store_sighted_profiles(jsonb, timestamptz) is
  'Keep which profiles are on devices, where the other system tells them.';
revoke all on function fleet.store_sighted_profiles(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.nameless_sightings(p_items jsonb, p_made jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    jsonb_agg(jsonb_build_object(
      'external_id', e.item ->> 'external_id',
      'error', format('the host names %s and %1$s (%s) are taken', e.item ->> 'hostname', e.item ->> 'external_id')
    )),
    '[]'
  )
  from jsonb_array_elements(p_items) as e(item)
  left join jsonb_to_recordset(p_made) as m(nr bigint) on m.nr = (e.item ->> 'nr')::bigint
  where m.nr is null
$$;

comment on function fleet.nameless_sightings(jsonb, jsonb) is 'Errors for the new devices that were not made, since there was no name left for them.';
revoke all on function fleet.nameless_sightings(jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.take_sightings(p_integration public.device_integrations, p_devices jsonb, p_now timestamptz)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_items jsonb;
  v_known jsonb;
  v_new jsonb;
  v_made jsonb;
  v_errors jsonb;
  v_notes jsonb;
  v_left integer;
begin
  select coalesce(jsonb_agg(to_jsonb(s) - '{problem,notes}'::text[]) filter (where s.problem is null), '[]'),
    coalesce(
      jsonb_agg(jsonb_build_object('external_id', s.external_id, 'error', s.problem) order by s.nr)
        filter (where s.problem is not null),
      '[]'
    ),
    coalesce(
      jsonb_agg(jsonb_build_object('external_id', s.external_id, 'error', s.notes) order by s.nr) filter (where s.notes is not null), '[]'
    )
  into v_items, v_errors, v_notes
  from fleet.parsed_sightings(p_devices) as s;
  select coalesce(jsonb_agg(e.item || jsonb_build_object('device_id', m.device_id)) filter (where m.nr is not null), '[]'),
    -- What is not in the other system, and never was as far as we know, is none of our devices.
    coalesce(jsonb_agg(e.item) filter (where m.nr is null and (e.item ->> 'is_enrolled')::boolean), '[]')
  into v_known, v_new
  from jsonb_array_elements(v_items) as e(item)
  left join fleet.matched_sightings(p_integration, v_items) as m on m.nr = (e.item ->> 'nr')::bigint;

  perform fleet.update_sighted_devices(v_known);
  v_made := fleet.add_sighted_devices(p_integration.owner_id, v_new);
  v_left := fleet.link_sighted_devices(p_integration, v_known || v_made, p_now);
  perform fleet.store_sighted_profiles(v_known || v_made, p_now);
  perform fleet.take_linked_fixes(p_integration.id, v_known || v_made, p_now);

  -- They are there, whatever is wrong with what is told of them.
  update public.device_links as l
  set seen_at = p_now
  from jsonb_to_recordset(v_errors) as e(external_id text)
  where l.integration_id = p_integration.id and l.external_id = e.external_id;
  return jsonb_build_object(
    'created', jsonb_array_length(v_made), 'updated', jsonb_array_length(v_known), 'left', v_left,
    'errors', v_errors || fleet.nameless_sightings(v_new, v_made), 'notes', v_notes
  );
end;
$$;

comment on function fleet.take_sightings(public.device_integrations, jsonb, timestamptz) is
  'Bring what another system says of its devices into the fleet; the caller has locked the integration. {created, updated, left, errors, '
  'notes}: what cannot be so is left out and noted.';
revoke all on function fleet.take_sightings(public.device_integrations, jsonb, timestamptz)
  from public, anon, authenticated, service_role;
