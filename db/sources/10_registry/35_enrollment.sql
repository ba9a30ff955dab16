-- Enrolment: a device trades a code for a secret of its own, and the secret for tokens.

create or replace function fleet.repeated_enrollment(p_key text)
returns public.devices
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- The answer to an enrolment may get lost on its way. Until its secret was used, the device may ask once more.
  select d.*
  from fleet.device_credentials as k
  join public.devices as d on d.id = k.device_id and d.status = 'active'
  where k.enrollment_key_hash = fleet.hash_secret(p_key)
    and k.last_used_at is null
    and length(p_key) >= 32
$$;

comment on function fleet.repeated_enrollment(text) is
  'The device that enrolled with this key of its own and has not used its secret; null where there is none.';
revoke all on function fleet.repeated_enrollment(text) from public, anon, authenticated, service_role;

create or replace function fleet.issue_device_secret(p_device_id bigint, p_key text default null)
returns text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_secret text := format('pgfd_%s_%s', p_device_id, fleet.random_secret());
begin
  insert into fleet.device_credentials (device_id, owner_id, secret_hash, enrollment_key_hash)
  select d.id, d.owner_id, fleet.hash_secret(v_secret), fleet.hash_secret(p_key) from public.devices as d where d.id = p_device_id
  on conflict (device_id) do update
    set secret_hash = excluded.secret_hash, enrollment_key_hash = excluded.enrollment_key_hash,
        created_at = now(), last_used_at = null, instances = '{}';
  -- Whoever copied the former one has nothing any more.
  update public.devices as d set clone_seen_at = null where d.id = p_device_id and d.clone_seen_at is not null;
  return v_secret;
end;
$$;

comment on function fleet.issue_device_secret(bigint, text) is 'Give a device a new secret; the former one is void.';
revoke all on function fleet.issue_device_secret(bigint, text) from public, anon, authenticated, service_role;

create or replace function fleet.worker_enroll_device(
  p_code text,
  p_hostname text,
  p_facts jsonb default '{}',
  p_now timestamptz default now()
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_code public.enrollment_codes;
  v_device public.devices;
  v_is_back boolean;
begin
  if coalesce(btrim(p_hostname), '') = '' or length(p_hostname) > 253 then
    raise exception 'hostname must be text of 1 to 253 characters'
      using errcode = 'PT422', detail = 'hostname_invalid', hint = 'Send the name of the device as "hostname".';
  end if;

  v_device := fleet.repeated_enrollment(p_facts ->> 'enrollment_key');
  if v_device.id is not null then
    return fleet.device_identity(v_device) || jsonb_build_object(
      'device_secret', fleet.issue_device_secret(v_device.id, p_facts ->> 'enrollment_key')
    );
  end if;

  v_code := fleet.take_enrollment_code(p_code, p_now);
  perform fleet.refuse_mover(v_code.owner_id);
  if v_code.device_id is not null then
    v_is_back := exists (select 1 from public.devices as d where d.id = v_code.device_id and d.status <> 'active');
    -- A new auth_id shuts out whoever still holds a token of the old one.
    update public.devices as d
    set auth_id = gen_random_uuid(), status = 'active', enrolled_at = p_now
    where d.id = v_code.device_id
    returning * into v_device;
    if v_is_back then
      perform fleet.require_quota(v_device.owner_id, 'devices');
    end if;
  else
    insert into public.devices as d (owner_id, hostname, enrolled_at)
    values (v_code.owner_id, btrim(p_hostname), p_now)
    -- A row that an operator prepared is taken over; one that is enrolled already is not.
    on conflict (owner_id, lower(hostname)) do update set enrolled_at = p_now
      where d.enrolled_at is null and d.status = 'active' and d.prepared
    returning * into v_device;
    if not found and exists (
      select 1
      from public.devices as d
      where d.owner_id = v_code.owner_id and lower(d.hostname) = lower(btrim(p_hostname)) and d.enrolled_at is null and d.status = 'active'
    ) then
      -- Whoever knows a name that an MDM brought is not that device.
      raise exception 'hostname "%" belongs to a device that nobody prepared for enrolment', btrim(p_hostname)
        using errcode = 'PT409',
              detail = 'device_not_prepared',
              hint = 'Ask the operator for a code for that very device: pgfleet device rekey <hostname>';
    elsif not found then
      raise exception 'hostname "%" belongs to a device that is enrolled already', btrim(p_hostname)
        using errcode = 'PT409',
              detail = 'device_enrolled',
              hint = 'Re-key it: select rekey_device(<id>)';
    end if;
    perform fleet.require_quota(v_device.owner_id, 'devices');
  end if;

  perform fleet.store_facts(v_device.id, p_facts);
  update public.devices as d
  set tags = array(select distinct t from unnest(d.tags || v_code.tags) as t order by t)
  where d.id = v_device.id and v_code.tags <> '{}';
  insert into public.device_group_members (group_id, device_id, owner_id)
  select g.id, v_device.id, v_device.owner_id
  from unnest(v_code.group_ids) as u(id)
  join public.device_groups as g on g.id = u.id and g.owner_id = v_device.owner_id
  on conflict do nothing;

  return fleet.device_identity(v_device)
    || jsonb_build_object('device_secret', fleet.issue_device_secret(
      v_device.id, p_facts ->> 'enrollment_key'
    ));
end;
$$;

comment on function fleet.worker_enroll_device(text, text, jsonb, timestamptz) is
  'Trade a code for a device and its secret; again with the same facts.enrollment_key where the answer got lost. {device_id, auth_id, hostname, owner_id, topic, device_secret}. Raises '
  'enrollment_code_refused (PT401), device_enrolled, device_not_prepared (PT409), hostname_invalid (PT422). Definer: the code is the right to do it.';
revoke all on function fleet.worker_enroll_device(text, text, jsonb, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.device_identity(p_device public.devices)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'device_id', p_device.id,
    'auth_id', p_device.auth_id,
    'hostname', p_device.hostname,
    'owner_id', p_device.owner_id,
    'topic', 'device:' || p_device.auth_id
  )
$$;

comment on function fleet.device_identity(public.devices) is 'What a device is told about itself.';
revoke all on function fleet.device_identity(public.devices) from public, anon, authenticated, service_role;

create or replace function fleet.note_instance(p_device_id bigint, p_instance text, p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_before text[];
begin
  select c.instances into v_before from fleet.device_credentials as c where c.device_id = p_device_id for update;
  if v_before[1] is not distinct from p_instance then
    return;
  end if;

  update fleet.device_credentials as c
  set instances = (p_instance || array_remove(v_before, p_instance))[1:8]
  where c.device_id = p_device_id;
  -- Neither a restart nor a sleep brings one back after another: two disks hold this secret.
  update public.devices as d set clone_seen_at = p_now where d.id = p_device_id and p_instance = any (v_before);
end;
$$;

comment on function fleet.note_instance(bigint, text, timestamptz) is
  'Remember which running agent asked for a token; where an earlier one asks again after another, mark the device as cloned.';
revoke all on function fleet.note_instance(bigint, text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.moved_to(p_secret_hash bytea)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'moved_to', jsonb_build_object(
      'device_id', d.device_id, 'url', m.url, 'functions_url', coalesce(m.functions_url, m.url || '/functions/v1'), 'anon_key', m.anon_key
    ),
    'signature', encode(
      fleet.hmac_sha256(
        convert_to(concat_ws(
          E'\n', 'pgfleet moved', d.device_id, m.url, coalesce(m.functions_url, m.url || '/functions/v1'), m.anon_key
        ), 'UTF8'),
        d.secret_hash
      ), 'hex'
    )
  )
  from fleet.moved_devices as d
  join fleet.owner_moves as m on m.owner_id = d.owner_id and m.state = 'moved'
  where d.secret_hash = p_secret_hash
$$;

comment on function fleet.moved_to(bytea) is
  'Where the device with this hash of a secret is now: {moved_to: {device_id, url, functions_url, anon_key}, signature}; null where it is '
  'here. The signature is the HMAC-SHA256, under the hash of the secret, of the lines pgfleet moved, device_id, url, functions_url and anon_key: '
  'nobody but its own server and the device can make it.';
revoke all on function fleet.moved_to(bytea) from public, anon, authenticated, service_role;

create or replace function fleet.worker_device_token(
  p_device_secret text,
  p_now timestamptz default now(),
  p_instance text default null
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device public.devices;
  v_moved jsonb := fleet.moved_to(fleet.hash_secret(p_device_secret));
begin
  if v_moved is not null then
    return v_moved;
  end if;
  update fleet.device_credentials as c
  set last_used_at = p_now
  where c.device_id = (substring(p_device_secret from '^pgfd_([0-9]{1,18})_[0-9a-f]{64}$'))::bigint
    and c.secret_hash = fleet.hash_secret(p_device_secret);
  if not found then
    raise exception 'the device secret is not known'
      using errcode = 'PT401',
            detail = 'device_secret_unknown',
            hint = 'The device was re-keyed or retired: enrol it again with a new code.';
  end if;

  select d.* into v_device
  from public.devices as d
  where d.id = (substring(p_device_secret from '^pgfd_([0-9]+)_'))::bigint;
  if v_device.status <> 'active' then
    raise exception 'device "%" is retired', v_device.hostname
      using errcode = 'PT403',
            detail = 'device_retired',
            hint = 'Re-key it to bring it back: select rekey_device(<id>)';
  end if;
  perform fleet.refuse_mover(v_device.owner_id);
  if length(p_instance) between 1 and 64 then
    perform fleet.note_instance(v_device.id, p_instance, p_now);
    select d.* into v_device from public.devices as d where d.id = v_device.id;
  end if;
  perform fleet.count_request(v_device.id, 'token', p_now);
  return fleet.device_identity(v_device) || jsonb_build_object('clone_seen_at', v_device.clone_seen_at);
end;
$$;

comment on function fleet.worker_device_token(text, timestamptz, text) is
  'Whose secret this is; p_instance tells running agents apart, so that a copied disk is noticed. Raises device_secret_unknown (PT401) or '
  'device_retired (PT403), or owner_moving (PT503) while its fleet is being moved. Of a device that was moved it answers {moved_to, signature} '
  'alone: see fleet.moved_to. Definer: the secret is the right to ask.';
revoke all on function fleet.worker_device_token(text, timestamptz, text) from public, anon, authenticated, service_role;
