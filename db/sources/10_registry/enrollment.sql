-- Enrolment: an operator's code becomes a device with a secret, and the secret becomes tokens.

create or replace function fleet.create_enrollment_code(
  p_device_id bigint,
  p_max_uses integer,
  p_expires_in interval,
  p_tags text[],
  p_group_ids bigint[]
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid;
  v_code text := upper(substr(fleet.random_secret(), 1, 32));
  v_row public.enrollment_codes;
  v_foreign bigint;
begin
  if p_device_id is null then
    v_owner := fleet.resolve_owner();
  else
    select d.owner_id into v_owner from public.devices as d where d.id = p_device_id;
    if v_owner is null then
      perform fleet.raise_device_not_found(p_device_id);
    end if;
  end if;
  perform fleet.require_permission(
    v_owner, 'manage', case when p_device_id is null then format('owner %s', v_owner) else format('device %s', p_device_id) end
  );

  if (p_max_uses between 1 and 100000 and p_expires_in > interval '0') is not true then
    raise exception 'max_uses must be 1 to 100000 and expires_in positive'
      using errcode = 'PT422',
            detail = 'enrollment_code_invalid',
            hint = 'Example: select create_enrollment_code(p_max_uses => 30, p_expires_in => ''2 days'')';
  end if;

  select u.id into v_foreign
  from unnest(p_group_ids) as u(id)
  where not exists (
    select 1 from public.device_groups as g where g.id = u.id and g.owner_id = v_owner and g.selector is null
  )
  limit 1;
  if found then
    raise exception 'group_ids: group % was not found among the static groups', v_foreign
      using errcode = 'PT404',
            detail = 'group_not_found',
            hint = 'List your groups with: pgfleet group list';
  end if;

  insert into public.enrollment_codes (
    owner_id, device_id, code_hash, max_uses, tags, group_ids, expires_at, created_by
  )
  values (
    v_owner, p_device_id, fleet.hash_secret(v_code), p_max_uses, coalesce(p_tags, '{}'), coalesce(p_group_ids, '{}'),
    now() + p_expires_in, fleet.current_user_id()
  )
  returning * into v_row;

  return jsonb_build_object(
    'id', v_row.id, 'code', v_code, 'expires_at', v_row.expires_at, 'max_uses', v_row.max_uses
  );
end;
$$;

comment on function fleet.create_enrollment_code(bigint, integer, interval, text[], bigint[]) is
  'See public.create_enrollment_code. Definer: it checks the caller, then writes the hash of the code.';
revoke all on function fleet.create_enrollment_code(bigint, integer, interval, text[], bigint[])
  from public, anon, authenticated, service_role;
grant execute on function fleet.create_enrollment_code(bigint, integer, interval, text[], bigint[])
  to authenticated, service_role;

create or replace function public.create_enrollment_code(
  p_device_id bigint default null,
  p_max_uses integer default 1,
  p_expires_in interval default '1 day',
  p_tags text[] default '{}',
  p_group_ids bigint[] default '{}'
)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.create_enrollment_code(p_device_id, p_max_uses, p_expires_in, p_tags, p_group_ids)
$$;

comment on function public.create_enrollment_code(bigint, integer, interval, text[], bigint[]) is
  'Make a code that devices trade for their secret; shown this once. {id, code, expires_at, max_uses}. With p_device_id it re-keys '
  'that device. Devices get the tags and join the groups. Raises PT404, PT403 or enrollment_code_invalid (PT422).';
revoke all on function public.create_enrollment_code(bigint, integer, interval, text[], bigint[])
  from public, anon, authenticated, service_role;
grant execute on function public.create_enrollment_code(bigint, integer, interval, text[], bigint[])
  to authenticated, service_role;

create or replace function public.revoke_enrollment_code(p_id bigint)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  update public.enrollment_codes as c
  set revoked_at = now()
  where c.id = p_id and c.revoked_at is null;
  if not found then
    raise exception 'enrolment code % was not found or is revoked already', p_id
      using errcode = 'PT404',
            detail = 'enrollment_code_not_found',
            hint = 'List the codes with: select id, expires_at, used_count from enrollment_codes';
  end if;
end;
$$;

comment on function public.revoke_enrollment_code(bigint) is
  'End a code before its time. Raises enrollment_code_not_found (PT404).';
revoke all on function public.revoke_enrollment_code(bigint) from public, anon, authenticated, service_role;
grant execute on function public.revoke_enrollment_code(bigint) to authenticated, service_role;

create or replace function fleet.take_enrollment_code(p_code text, p_now timestamptz)
returns public.enrollment_codes
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.enrollment_codes;
begin
  -- Counting and checking in one statement: two devices with the same code at once cannot both have its last use.
  update public.enrollment_codes as c
  set used_count = c.used_count + 1
  where c.code_hash = fleet.hash_secret(upper(btrim(p_code)))
    and c.revoked_at is null
    and c.expires_at > p_now
    and c.used_count < c.max_uses
  returning * into v_row;

  if not found then
    raise exception 'the enrolment code is unknown, used up, revoked or expired'
      using errcode = 'PT401',
            detail = 'enrollment_code_refused',
            hint = 'Ask the operator for a new code: pgfleet device enroll-code';
  end if;
  return v_row;
end;
$$;

comment on function fleet.take_enrollment_code(text, timestamptz) is
  'Use a code once. Raises enrollment_code_refused (PT401).';
revoke all on function fleet.take_enrollment_code(text, timestamptz) from public, anon, authenticated, service_role;

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
  insert into fleet.device_credentials (device_id, secret_hash, enrollment_key_hash)
  values (p_device_id, fleet.hash_secret(v_secret), fleet.hash_secret(p_key))
  on conflict (device_id) do update
    set secret_hash = excluded.secret_hash, enrollment_key_hash = excluded.enrollment_key_hash,
        created_at = now(), last_used_at = null;
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
  if v_code.device_id is not null then
    -- A new auth_id shuts out whoever still holds a token of the old one.
    update public.devices as d
    set auth_id = gen_random_uuid(), status = 'active', enrolled_at = p_now
    where d.id = v_code.device_id
    returning * into v_device;
  else
    insert into public.devices as d (owner_id, hostname, enrolled_at)
    values (v_code.owner_id, btrim(p_hostname), p_now)
    -- A row that an operator prepared is taken over; one that is enrolled already is not.
    on conflict (owner_id, lower(hostname)) do update set enrolled_at = p_now
      where d.enrolled_at is null and d.status = 'active'
    returning * into v_device;
    if not found then
      raise exception 'hostname "%" belongs to a device that is enrolled already', btrim(p_hostname)
        using errcode = 'PT409',
              detail = 'device_enrolled',
              hint = 'Re-key it: pgfleet device rekey <hostname>';
    end if;
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
  'enrollment_code_refused (PT401), device_enrolled (PT409), hostname_invalid (PT422). Definer: the code is the right to do it.';
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

create or replace function fleet.worker_device_token(p_device_secret text, p_now timestamptz default now())
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device public.devices;
begin
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
            hint = 'Re-key it to bring it back: pgfleet device rekey <hostname>';
  end if;
  return fleet.device_identity(v_device);
end;
$$;

comment on function fleet.worker_device_token(text, timestamptz) is
  'Whose secret this is. Raises device_secret_unknown (PT401) or device_retired (PT403). Definer: the secret is the right to ask.';
revoke all on function fleet.worker_device_token(text, timestamptz) from public, anon, authenticated, service_role;
