-- Generated from db/sources/10_registry by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/10_registry/10_owners.sql
-- Owners: fleets that one person or several people run.

create or replace function public.create_owner(p_name text)
returns public.owners
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.create_owner(p_name)
$$;

comment on function public.create_owner(text) is
  'Make a fleet that several people may run; who makes it is its admin. Others join through owner_members.';
revoke all on function public.create_owner(text) from public, anon, authenticated, service_role;
grant execute on function public.create_owner(text) to authenticated, service_role;

create or replace function fleet.create_owner(p_name text)
returns public.owners
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_user uuid := fleet.current_user_id();
  v_owner public.owners;
begin
  if v_user is null and not fleet.is_trusted_caller() then
    raise exception 'a device may not do this'
      using errcode = 'PT403', detail = 'not_a_person', hint = 'Sign in as a person.';
  end if;

  insert into public.owners (name) values (p_name) returning * into v_owner;
  if v_user is not null then
    insert into public.owner_members (owner_id, user_id, permissions)
    values (v_owner.id, v_user, '{view,operate,manage,destructive,admin}');
  end if;
  return v_owner;
end;
$$;

comment on function fleet.create_owner(text) is
  'See public.create_owner. Definer: nobody may write owners directly, because an owner''s id can mean a person.';
revoke all on function fleet.create_owner(text) from public, anon, authenticated, service_role;
grant execute on function fleet.create_owner(text) to authenticated, service_role;

-- db/sources/10_registry/20_devices.sql
-- The life of a device after its enrolment: check-ins, facts, re-keying and retiring.

create or replace function fleet.raise_device_not_found(p_device_id bigint)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.raise_not_found(format('device %s', p_device_id));
end;
$$;

comment on function fleet.raise_device_not_found(bigint) is 'Raise device_not_found (PT404).';
revoke all on function fleet.raise_device_not_found(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.with_facts(p_attributes jsonb, p_facts jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  -- What is known already keeps its place: a device that says too much displaces nothing, and says less.
  select case
    when pg_column_size(p_attributes || p_facts) <= fleet.limit_value('attributes') and not fleet.is_too_deep(p_facts)
      then p_attributes || p_facts
    when b.room < 512 then p_attributes
    else p_attributes || fleet.cut_json(p_facts, b.room)
  end
  -- Of a stored value the size is that of its compressed form; of one that was just made it is not.
  from (select fleet.limit_value('attributes') - pg_column_size(p_attributes || '{}') - 128 as room) as b
$$;

comment on function fleet.with_facts(jsonb, jsonb) is
  'Attributes with what a device says of itself; of what is too much only what fits, with "cut": true beside it.';
revoke all on function fleet.with_facts(jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.store_facts(p_device_id bigint, p_facts jsonb)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  -- A device is believed about itself, but what is no known zone or no object is left out rather than refused: a check-in
  -- must not fail because of a detail.
  update public.devices as d
  set platform = coalesce(left(p_facts ->> 'platform', 64), d.platform),
      timezone = case
        when fleet.is_time_zone(p_facts ->> 'timezone') then p_facts ->> 'timezone'
        else d.timezone
      end,
      attributes = fleet.with_facts(d.attributes, case
          when jsonb_typeof(p_facts -> 'attributes') = 'object' then p_facts -> 'attributes' else '{}'
        end
        || case
          when jsonb_typeof(p_facts -> 'agent_version') = 'string'
            then jsonb_build_object('agent_version', left(p_facts ->> 'agent_version', 64))
          else '{}'
        end)
  where d.id = p_device_id
    and jsonb_typeof(p_facts) = 'object'
    and p_facts <> '{}'
$$;

comment on function fleet.store_facts(bigint, jsonb) is
  'Keep what a device says of itself: {platform, timezone, agent_version, attributes}.';
revoke all on function fleet.store_facts(bigint, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.touch_device(p_device_id bigint, p_now timestamptz)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  -- At most twice a minute: last_seen is for people, and each write of it is a row version.
  update public.devices as d
  set last_seen = p_now
  where d.id = p_device_id
    and (d.last_seen is null or d.last_seen < p_now - interval '30 seconds')
$$;

comment on function fleet.touch_device(bigint, timestamptz) is 'Keep when the device was heard of last.';
revoke all on function fleet.touch_device(bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.device_checkin(p_facts jsonb, p_now timestamptz)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device_id bigint := fleet.require_device();
begin
  perform fleet.store_facts(v_device_id, p_facts);
  perform fleet.touch_device(v_device_id, p_now);
  -- It has its secret safely: its code is good for nothing from now on.
  update fleet.device_credentials as k set last_used_at = p_now where k.device_id = v_device_id and k.last_used_at is null;
  return (
    select jsonb_build_object(
      'device_id', d.id,
      'hostname', d.hostname,
      'topic', 'device:' || d.auth_id,
      'server_time', clock_timestamp(),
      'poll_seconds', fleet.setting('poll_seconds'),
      'pending', (
        select count(*)
        from public.device_commands as c
        where c.device_id = d.id
          and c.status = 'pending'
          and c.channel = 'agent'
          and c.not_before <= p_now
      )
    )
    from public.devices as d
    where d.id = v_device_id
  );
end;
$$;

comment on function fleet.device_checkin(jsonb, timestamptz) is
  'See public.device_checkin. Definer: a device may not write its row, only what this takes.';
revoke all on function fleet.device_checkin(jsonb, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.device_checkin(jsonb, timestamptz) to authenticated, service_role;

create or replace function public.device_checkin(p_facts jsonb default '{}')
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.device_checkin(p_facts, clock_timestamp())
$$;

comment on function public.device_checkin(jsonb) is
  'A device says that it is there, with facts {platform, timezone, agent_version, attributes}; it hears '
  '{device_id, hostname, topic, server_time, poll_seconds, pending}. Raises not_a_device (PT403).';
revoke all on function public.device_checkin(jsonb) from public, anon, authenticated, service_role;
grant execute on function public.device_checkin(jsonb) to authenticated, service_role;

create or replace function fleet.retire_device(p_device_id bigint)
returns public.devices
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device public.devices;
begin
  select d.* into v_device
  from public.devices as d
  where d.id = p_device_id and fleet.is_visible_owner(d.owner_id)
  for update;
  if not found then
    perform fleet.raise_device_not_found(p_device_id);
  end if;
  perform fleet.require_permission(v_device.owner_id, 'manage', format('device %s', p_device_id));

  -- The trigger of the table takes the secret and the topic away and cancels what waits.
  update public.devices as d set status = 'retired' where d.id = p_device_id returning * into v_device;
  return v_device;
end;
$$;

comment on function fleet.retire_device(bigint) is 'See public.retire_device. Definer: it checks the caller.';
revoke all on function fleet.retire_device(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.retire_device(bigint) to authenticated, service_role;

create or replace function public.retire_device(p_device_id bigint)
returns public.devices
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.retire_device(p_device_id)
$$;

comment on function public.retire_device(bigint) is
  'Take a device out of service: its secret and tokens are void at once, waiting commands are cancelled, history stays. '
  'Raises device_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.retire_device(bigint) from public, anon, authenticated, service_role;
grant execute on function public.retire_device(bigint) to authenticated, service_role;

create or replace function public.rekey_device(p_device_id bigint)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.create_enrollment_code(p_device_id, 1, interval '1 day', '{}', '{}')
$$;

comment on function public.rekey_device(bigint) is
  'Make a code with which this very device, retired or not, enrols again; its former secret ends when the code is used. '
  '{id, code, expires_at, max_uses}. Raises device_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.rekey_device(bigint) from public, anon, authenticated, service_role;
grant execute on function public.rekey_device(bigint) to authenticated, service_role;

create or replace function fleet.device_of_caller(p_device_id bigint)
returns public.devices
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.devices;
begin
  select d.* into v_row from public.devices as d where d.id = p_device_id and fleet.is_visible_owner(d.owner_id);
  if not found then
    perform fleet.raise_device_not_found(p_device_id);
  end if;
  perform fleet.require_permission(v_row.owner_id, 'manage', format('device %s', p_device_id));
  if v_row.status = 'retired' then
    raise exception 'device "%" is retired', v_row.hostname
      using errcode = 'PT409', detail = 'device_retired', hint = 'Re-key it to bring it back: pgfleet device rekey <hostname>';
  end if;
  return v_row;
end;
$$;

comment on function fleet.device_of_caller(bigint) is
  'The active device, if the caller manages it. Raises device_not_found (PT404), permission_missing (PT403) or device_retired (PT409).';
revoke all on function fleet.device_of_caller(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.device_by_hostname(p_hostname text, p_owner_id uuid)
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_found bigint[];
begin
  select array_agg(d.id) into v_found
  from public.devices as d
  where lower(d.hostname) = lower(p_hostname)
    and d.status = 'active'
    and (p_owner_id is null or d.owner_id = p_owner_id)
    and (fleet.is_trusted_caller() or d.owner_id in (select fleet.my_owners()));

  if v_found is null then
    raise exception 'device_hostname: device "%" was not found', p_hostname
      using errcode = 'PT404', detail = 'device_not_found', hint = 'List your devices with: pgfleet device list';
  elsif cardinality(v_found) > 1 then
    raise exception 'device_hostname: "%" is the name of devices of several owners', p_hostname
      using errcode = 'PT409', detail = 'device_ambiguous', hint = 'Name device_id or owner_id as well.';
  end if;
  return v_found[1];
end;
$$;

comment on function fleet.device_by_hostname(text, uuid) is
  'The active device of that name that the caller may see. Raises device_not_found (PT404) or device_ambiguous (PT409).';
revoke all on function fleet.device_by_hostname(text, uuid) from public, anon, authenticated, service_role;

create or replace function public.tag_device(p_device_id bigint, p_add text[] default '{}', p_remove text[] default '{}')
returns public.devices
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.devices;
begin
  update public.devices as d
  set tags = array(
    select distinct t.tag
    from unnest(d.tags || p_add) as t(tag)
    where t.tag <> all (p_remove)
    order by t.tag
  )
  where d.id = p_device_id
  returning d.* into v_row;
  if not found then
    perform fleet.only_one('device', p_device_id::text, null, null);
  end if;
  return v_row;
end;
$$;

comment on function public.tag_device(bigint, text[], text[]) is
  'Add and take away tags of a device; what it has already, or has not, is no fault. Raises device_not_found (PT404), also without the '
  'permission manage.';
revoke all on function public.tag_device(bigint, text[], text[]) from public, anon, authenticated, service_role;
grant execute on function public.tag_device(bigint, text[], text[]) to authenticated, service_role;

-- db/sources/10_registry/30_enrollment_codes.sql
-- Enrolment codes: an operator makes a code, which devices trade for a secret of their own.

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

-- db/sources/10_registry/35_enrollment.sql
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

-- db/sources/10_registry/40_selectors.sql
-- Selectors: choosing devices by tags, platform and attributes.

-- Without a subquery, so that Postgres inlines it: it is asked for each device of a fleet.
create or replace function fleet.device_matches(
  p_selector jsonb,
  p_tags text[],
  p_platform text,
  p_attributes jsonb
)
returns boolean
language sql
immutable
parallel safe
return (
  (not p_selector ? 'tags'
    or to_jsonb(p_tags) @> (p_selector -> 'tags'))
  and (not p_selector ? 'any_tags'
    or (p_selector -> 'any_tags') ?| p_tags)
  and (not p_selector ? 'platform'
    or coalesce(p_selector -> 'platform' @> to_jsonb(p_platform), false))
  and (not p_selector ? 'attributes'
    or p_attributes @> (p_selector -> 'attributes'))
);

comment on function fleet.device_matches(jsonb, text[], text, jsonb) is
  'Whether a device has all of selector.tags, one of any_tags, one of platform, and contains attributes. Every key must hold; '
  'an empty selector matches every device.';
revoke all on function fleet.device_matches(jsonb, text[], text, jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.device_matches(jsonb, text[], text, jsonb) to authenticated, service_role;

create or replace function fleet.selector_problems(p_selector jsonb)
returns setof fleet.problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select 'selector', 'must be an object', 'Example: {"tags": ["school-7"], "platform": ["windows"]}'
  where p_selector is not null and jsonb_typeof(p_selector) <> 'object'
  union all
  select 'selector.' || e.key, 'is not a key of a selector', 'The keys are tags, any_tags, platform and attributes.'
  from jsonb_each(case when jsonb_typeof(p_selector) = 'object' then p_selector else '{}' end) as e
  where e.key not in ('tags', 'any_tags', 'platform', 'attributes')
  union all
  select 'selector.' || e.key, 'must be a list of text', format('Example: {"%s": ["one", "two"]}', e.key)
  from jsonb_each(case when jsonb_typeof(p_selector) = 'object' then p_selector else '{}' end) as e
  where e.key in ('tags', 'any_tags', 'platform')
    and (jsonb_typeof(e.value) <> 'array' or jsonb_path_exists(e.value, 'strict $[*] ? (@.type() != "string")', '{}', true))
    and not (e.key = 'platform' and jsonb_typeof(e.value) = 'string')
  union all
  select q.*
  from unnest('{tags,any_tags,platform}'::text[]) as k(key)
  cross join lateral fleet.list_problem('selector.' || k.key, 'selector_list', p_selector -> k.key) as q
  union all
  select 'selector.attributes', 'must be an object', 'Example: {"attributes": {"lab": 3}}'
  where jsonb_typeof(p_selector) = 'object'
    and p_selector ? 'attributes'
    and jsonb_typeof(p_selector -> 'attributes') <> 'object';
end;
$$;

comment on function fleet.selector_problems(jsonb) is 'Everything that is wrong with a selector; no row where nothing is.';
revoke all on function fleet.selector_problems(jsonb) from public, anon, authenticated, service_role;

-- db/sources/10_registry/45_targets.sql
-- Targets: the devices that lists, groups and a selector name together.

create or replace function fleet.targets(
  p_owner_id uuid,
  p_device_ids bigint[],
  p_group_ids bigint[],
  p_selector jsonb,
  p_after_id bigint default 0,
  p_limit integer default null
)
returns table (device_id bigint, hostname text, timezone text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_group_ids = '{}' and p_device_ids = '{}' then
    -- The common case of large fleets: in the order of an index, with nothing to sort and nothing twice.
    return query
    select d.id, d.hostname, d.timezone
    from public.devices as d
    where p_selector is not null
      and d.owner_id = p_owner_id
      and d.status = 'active'
      and d.id > p_after_id
      and fleet.device_matches(p_selector, d.tags, d.platform, d.attributes)
    order by d.id
    limit p_limit;
    return;
  end if;

  -- Each branch is bounded by itself and brings its columns along, so that the next chunk of a large fleet costs a chunk.
  return query
  select u.id, u.hostname, u.timezone
  from (
    (
      select d.id, d.hostname, d.timezone
      from public.devices as d
      where d.id = any (p_device_ids)
        and d.owner_id = p_owner_id
        and d.status = 'active'
        and d.id > p_after_id
      order by d.id
      limit p_limit
    )
    union
    (
      select d.id, d.hostname, d.timezone
      from public.device_group_members as m
      join public.devices as d on d.id = m.device_id
      where m.group_id = any (p_group_ids)
        and m.owner_id = p_owner_id
        and m.device_id > p_after_id
        and d.owner_id = p_owner_id
        and d.status = 'active'
      order by m.device_id
      -- A device may be a member of each of the groups.
      limit p_limit * greatest(cardinality(p_group_ids), 1)
    )
    union
    (
      select d.id, d.hostname, d.timezone
      from public.devices as d
      where p_selector is not null
        and d.owner_id = p_owner_id
        and d.status = 'active'
        and d.id > p_after_id
        and fleet.device_matches(p_selector, d.tags, d.platform, d.attributes)
      order by d.id
      limit p_limit
    )
    union
    (
      select d.id, d.hostname, d.timezone
      from public.devices as d
      -- Static groups need no look at the devices of the owner.
      where exists (
          select 1 from public.device_groups as g
          where g.id = any (p_group_ids) and g.selector is not null
        )
        and d.owner_id = p_owner_id
        and d.status = 'active'
        and d.id > p_after_id
        and exists (
          select 1
          from public.device_groups as g
          where g.id = any (p_group_ids)
            and g.owner_id = p_owner_id
            and g.selector is not null
            and fleet.device_matches(g.selector, d.tags, d.platform, d.attributes)
        )
      order by d.id
      limit p_limit
    )
  ) as u
  order by u.id
  limit p_limit;
end;
$$;

comment on function fleet.targets(uuid, bigint[], bigint[], jsonb, bigint, integer) is
  'Active devices of one owner that the lists, groups or selector name, by id, from the one after p_after_id. What belongs to '
  'another owner is never among them.';
revoke all on function fleet.targets(uuid, bigint[], bigint[], jsonb, bigint, integer)
  from public, anon, authenticated, service_role;

create or replace function fleet.has_targets(
  p_owner_id uuid,
  p_device_ids bigint[],
  p_group_ids bigint[],
  p_selector jsonb
)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_selector jsonb;
begin
  if exists (
    select 1 from public.devices as d where d.id = any (p_device_ids) and d.owner_id = p_owner_id and d.status = 'active'
  ) then
    return true;
  elsif p_group_ids <> '{}' and exists (
    select 1
    from public.device_group_members as m
    join public.devices as d on d.id = m.device_id
    where m.group_id = any (p_group_ids) and m.owner_id = p_owner_id and d.owner_id = p_owner_id and d.status = 'active'
  ) then
    return true;
  end if;

  for v_selector in
    select p_selector where p_selector is not null
    union all
    select g.selector
    from public.device_groups as g
    where g.id = any (p_group_ids) and g.owner_id = p_owner_id and g.selector is not null
  loop
    if fleet.selects_anybody(p_owner_id, v_selector) then
      return true;
    end if;
  end loop;
  return false;
end;
$$;

comment on function fleet.has_targets(uuid, bigint[], bigint[], jsonb) is
  'Whether lists, groups or selector name an active device of this owner; true also where that could only be told by looking at the whole '
  'fleet.';
revoke all on function fleet.has_targets(uuid, bigint[], bigint[], jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.selects_anybody(p_owner_id uuid, p_selector jsonb)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  -- So many devices are looked at, and no more: it is a warning that is at stake.
  c_most constant integer := 500;
begin
  if exists (
    select 1
    from (
      select x.tags, x.platform, x.attributes
      from public.devices as x
      where x.owner_id = p_owner_id and x.status = 'active'
      order by x.id
      limit c_most
    ) as d
    where fleet.device_matches(p_selector, d.tags, d.platform, d.attributes)
  ) then
    return true;
  elsif (
    select count(*)
    from (select from public.devices as x where x.owner_id = p_owner_id and x.status = 'active' limit c_most) as d
  ) < c_most then
    return false;
  end if;

  -- Not at once, then: whoever has the tags is found by them, however many others there are.
  if jsonb_array_length(p_selector -> 'tags') > 0 then
    return exists (
      select 1
      from public.devices as d
      where d.tags @> array(select jsonb_array_elements_text(p_selector -> 'tags'))
        and d.owner_id = p_owner_id
        and d.status = 'active'
        and fleet.device_matches(p_selector, d.tags, d.platform, d.attributes)
    );
  elsif p_selector ? 'any_tags' then
    return exists (
      select 1
      from public.devices as d
      where d.tags && array(select jsonb_array_elements_text(p_selector -> 'any_tags'))
        and d.owner_id = p_owner_id
        and d.status = 'active'
        and fleet.device_matches(p_selector, d.tags, d.platform, d.attributes)
    );
  end if;
  return true;
end;
$$;

comment on function fleet.selects_anybody(uuid, jsonb) is
  'Whether a selector finds an active device of this owner. Looks at a few devices and then into the index of tags; true where both are not '
  'enough to tell.';
revoke all on function fleet.selects_anybody(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function public.group_devices(p_group_id bigint)
returns setof public.devices
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select d.*
  from public.device_groups as g
  join public.devices as d on d.owner_id = g.owner_id and d.status = 'active'
  where g.id = p_group_id
    and (
      (g.selector is not null and fleet.device_matches(g.selector, d.tags, d.platform, d.attributes))
      or exists (
        select 1 from public.device_group_members as m
        where m.group_id = g.id and m.device_id = d.id
      )
    )
  order by d.id
$$;

comment on function public.group_devices(bigint) is
  'The active devices of a group at this moment, members and selected ones. None for a group that is not yours.';
revoke all on function public.group_devices(bigint) from public, anon, authenticated, service_role;
grant execute on function public.group_devices(bigint) to authenticated, service_role;

create or replace function fleet.target_problems(
  p_owner_id uuid,
  p_device_ids bigint[],
  p_group_ids bigint[],
  p_selector jsonb
)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select 'device_ids', format('device %s was not found', u.id), 'List your devices with: pgfleet device list'
  from unnest(p_device_ids) as u(id)
  where not exists (select 1 from public.devices as d where d.id = u.id and d.owner_id = p_owner_id);
  if p_group_ids <> '{}' then
    return query
    select 'group_ids', format('group %s was not found', u.id), 'List your groups with: pgfleet group list'
    from unnest(p_group_ids) as u(id)
    where not exists (select 1 from public.device_groups as g where g.id = u.id and g.owner_id = p_owner_id);
  end if;
  if p_selector is not null then
    return query select s.field, s.problem, s.hint from fleet.selector_problems(p_selector) as s;
  elsif p_device_ids = '{}' and p_group_ids = '{}' then
    return next (
      'device_ids', 'names nobody: there is no device, group or selector',
      'Give device_ids, group_ids or a selector; an empty selector {} means every device.'
    )::fleet.problem;
  end if;
end;
$$;

comment on function fleet.target_problems(uuid, bigint[], bigint[], jsonb) is
  'Targets that do not exist for this owner. What belongs to another owner is as good as not there.';
revoke all on function fleet.target_problems(uuid, bigint[], bigint[], jsonb)
  from public, anon, authenticated, service_role;

-- db/sources/10_registry/47_members.sql
-- Who is in a group that lists its members.

create or replace function public.add_to_group(p_group_id bigint, p_device_ids bigint[])
returns integer
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  with added as (
    insert into public.device_group_members (group_id, device_id)
    select p_group_id, u.id
    from unnest(p_device_ids) as u(id)
    on conflict (group_id, device_id) do nothing
    returning device_id
  )
  select count(*)::integer from added
$$;

comment on function public.add_to_group(bigint, bigint[]) is
  'Add devices to a group; how many were not in it. Raises what an insert into device_group_members raises.';
revoke all on function public.add_to_group(bigint, bigint[]) from public, anon, authenticated, service_role;
grant execute on function public.add_to_group(bigint, bigint[]) to authenticated, service_role;

create or replace function public.remove_from_group(p_group_id bigint, p_device_ids bigint[])
returns integer
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  with removed as (
    delete from public.device_group_members as m
    where m.group_id = p_group_id and m.device_id = any (p_device_ids)
    returning m.device_id
  )
  select count(*)::integer from removed
$$;

comment on function public.remove_from_group(bigint, bigint[]) is
  'Take devices out of a group; how many were in it. None of a group that is not yours.';
revoke all on function public.remove_from_group(bigint, bigint[]) from public, anon, authenticated, service_role;
grant execute on function public.remove_from_group(bigint, bigint[]) to authenticated, service_role;

-- db/sources/10_registry/50_names.sql
-- Owners, devices and groups by their names.

create or replace function public.owner_id(p_name text)
returns uuid
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.only_one(
    'owner', p_name,
    array(select x.id::text from public.owners as x where lower(x.name) = lower(p_name) order by x.id),
    (select x.id::text from public.owners as x where x.id::text = lower(p_name))
  )::uuid
$$;

comment on function public.owner_id(text) is
  'The owner that a name or an id means; a name in any case, and it wins over an id. Raises owner_not_found (PT404) or '
  'owner_ambiguous (PT409).';
revoke all on function public.owner_id(text) from public, anon, authenticated, service_role;
grant execute on function public.owner_id(text) to authenticated, service_role;

create or replace function public.device_id(p_name text)
returns bigint
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.only_one(
    'device', p_name,
    array(select x.id::text from public.devices as x where lower(x.hostname) = lower(p_name) order by x.id),
    (select x.id::text from public.devices as x where x.id = fleet.try_bigint(p_name))
  )::bigint
$$;

comment on function public.device_id(text) is
  'The device that a host name or an id means; a name in any case, and it wins over an id. Raises device_not_found (PT404) or '
  'device_ambiguous (PT409).';
revoke all on function public.device_id(text) from public, anon, authenticated, service_role;
grant execute on function public.device_id(text) to authenticated, service_role;

create or replace function public.group_id(p_name text)
returns bigint
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.only_one(
    'group', p_name,
    array(select x.id::text from public.device_groups as x where lower(x.name) = lower(p_name) order by x.id),
    (select x.id::text from public.device_groups as x where x.id = fleet.try_bigint(p_name))
  )::bigint
$$;

comment on function public.group_id(text) is
  'The group that a name or an id means; a name in any case, and it wins over an id. Raises group_not_found (PT404) or '
  'group_ambiguous (PT409).';
revoke all on function public.group_id(text) from public, anon, authenticated, service_role;
grant execute on function public.group_id(text) to authenticated, service_role;

create or replace function public.expected_devices(p_names text[] default '{}', p_group_id bigint default null)
returns table (id bigint, hostname text, last_seen timestamptz, has_called boolean)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select
    d.id,
    coalesce(d.hostname, w.name) as hostname,
    d.last_seen,
    coalesce(d.status = 'active' and d.last_seen is not null, false) as has_called
  from (
    select unnest(p_names) as name
    union
    select g.hostname from public.group_devices(p_group_id) as g
  ) as w
  left join public.devices as d on lower(d.hostname) = lower(w.name) or d.id = fleet.try_bigint(w.name)
  order by lower(coalesce(d.hostname, w.name)), d.id
$$;

comment on function public.expected_devices(text[], bigint) is
  'The devices of these names or ids, and of a group, and whether each has ever called or been seen by an MDM. A name that no device has is '
  'one that has not enrolled: its id is null.';
revoke all on function public.expected_devices(text[], bigint) from public, anon, authenticated, service_role;
grant execute on function public.expected_devices(text[], bigint) to authenticated, service_role;

-- db/sources/10_registry/views.sql
-- The registry as people list it.

drop view if exists public.owner_list;
create view public.owner_list with (security_invoker = true) as
select
  o.id,
  o.id as owner_id,
  o.name,
  (select count(*) from public.devices as d where d.owner_id = o.id) as devices,
  (select count(*) from public.schedules as s where s.owner_id = o.id) as schedules,
  (select count(*) from public.owner_members as m where m.owner_id = o.id) as members,
  o.created_at
from public.owners as o;

comment on view public.owner_list is
  'Owners with what each has.';
comment on column public.owner_list.devices is 'How many devices it has, retired ones among them.';
comment on column public.owner_list.schedules is 'How many schedules, of every status.';
comment on column public.owner_list.members is 'How many people.';
revoke all on table public.owner_list from public, anon, authenticated, service_role;
grant select on table public.owner_list to authenticated, service_role;

drop view if exists public.device_list;
create view public.device_list with (security_invoker = true) as
select
  d.id,
  d.owner_id,
  o.name as owner,
  d.hostname,
  d.status,
  d.platform,
  d.timezone,
  d.tags,
  d.attributes,
  d.last_seen,
  d.enrolled_at,
  d.latitude,
  d.longitude,
  d.accuracy_m,
  d.located_at,
  d.auth_id,
  'device:' || d.auth_id as topic,
  array(
    select g.name
    from public.device_group_members as m
    join public.device_groups as g on g.id = m.group_id
    where m.device_id = d.id
    order by g.name
  ) as groups,
  (select count(*) from public.device_commands as c where c.device_id = d.id and c.status = 'pending') as pending,
  (
    select coalesce(jsonb_object_agg(s.status, s.count), '{}')
    from (
      select c.status, count(*) from public.device_commands as c where c.device_id = d.id group by c.status
    ) as s
  ) as commands,
  d.created_at,
  d.updated_at
from public.devices as d
join public.owners as o on o.id = d.owner_id;

comment on view public.device_list is
  'Devices with what is known of them and what waits for them.';
comment on column public.device_list.owner is 'The name of the owner.';
comment on column public.device_list.topic is 'The Realtime topic on which its doorbell rings.';
comment on column public.device_list.groups is 'Names of the groups that list it; those that select it are not among them.';
comment on column public.device_list.pending is 'How many commands wait for it.';
comment on column public.device_list.commands is 'How many commands it has had, by status.';
select fleet.inherit_comments('public.device_list', 'public.devices');
revoke all on table public.device_list from public, anon, authenticated, service_role;
grant select on table public.device_list to authenticated, service_role;

drop view if exists public.group_list;
create view public.group_list with (security_invoker = true) as
select
  g.id,
  g.owner_id,
  o.name as owner,
  g.name,
  g.description,
  case when g.selector is null then 'static' else 'dynamic' end as kind,
  g.selector,
  (select count(*) from public.group_devices(g.id)) as devices,
  g.created_at,
  g.updated_at
from public.device_groups as g
join public.owners as o on o.id = g.owner_id;

comment on view public.group_list is
  'Groups with how many devices each has at this moment.';
comment on column public.group_list.owner is 'The name of the owner.';
comment on column public.group_list.kind is
  'static (its members are listed) or dynamic (a selector finds them, beside those that are listed).';
comment on column public.group_list.devices is 'How many active devices it has now.';
select fleet.inherit_comments('public.group_list', 'public.device_groups');
revoke all on table public.group_list from public, anon, authenticated, service_role;
grant select on table public.group_list to authenticated, service_role;

drop view if exists public.enrollment_code_list;
create view public.enrollment_code_list with (security_invoker = true) as
select
  c.id,
  c.owner_id,
  case
    when c.revoked_at is not null then 'revoked'
    when c.used_count >= c.max_uses then 'used up'
    when c.expires_at <= now() then 'expired'
    else 'good'
  end as state,
  c.used_count,
  c.max_uses,
  c.device_id,
  d.hostname as only_for,
  c.tags,
  c.group_ids,
  c.expires_at,
  c.created_at
from public.enrollment_codes as c
left join public.devices as d on d.id = c.device_id;

comment on view public.enrollment_code_list is
  'Enrolment codes with how they are; the codes themselves are not kept.';
comment on column public.enrollment_code_list.state is 'good, used up, expired or revoked.';
comment on column public.enrollment_code_list.only_for is 'The host name of the only device that may use it.';
select fleet.inherit_comments('public.enrollment_code_list', 'public.enrollment_codes');
revoke all on table public.enrollment_code_list from public, anon, authenticated, service_role;
grant select on table public.enrollment_code_list to authenticated, service_role;

-- db/sources/10_registry/triggers.sql
-- What holds for the registry however a row is written.

create or replace trigger devices_01_owner before insert on public.devices
  for each row when (new.owner_id is null or current_setting('request.jwt.claims', true) <> '')
  execute function fleet.tg_owner_from_caller();
create or replace trigger devices_03_set_updated_at before update on public.devices
  for each row execute function fleet.tg_set_updated_at();
create or replace trigger device_groups_01_owner before insert on public.device_groups
  for each row when (new.owner_id is null or current_setting('request.jwt.claims', true) <> '')
  execute function fleet.tg_owner_from_caller();
create or replace trigger device_groups_03_set_updated_at before update on public.device_groups
  for each row execute function fleet.tg_set_updated_at();

create or replace function fleet.tg_check_device()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if new.timezone is not null and not fleet.is_time_zone(new.timezone) then
    raise exception 'timezone "%" is not a known time zone', new.timezone
      using errcode = 'PT422',
            detail = 'timezone_unknown',
            hint = 'Use an IANA name such as Europe/Berlin.';
  end if;

  return new;
end;
$$;

comment on function fleet.tg_check_device() is 'Check the time zone. Definer: the check is not callable by itself.';
revoke all on function fleet.tg_check_device() from public, anon, authenticated, service_role;

create or replace trigger devices_02_check before insert or update of timezone on public.devices
  for each row execute function fleet.tg_check_device();

create or replace function fleet.tg_retire_device()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  new.auth_id := gen_random_uuid();
  new.enrolled_at := null;
  delete from fleet.device_credentials as c where c.device_id = new.id;
  delete from fleet.doorbells as b where b.device_id = new.id;
  update public.device_commands as c
  set status = 'cancelled', reason = 'device_retired'
  where c.device_id = new.id and c.status in ('pending', 'running');
  return new;
end;
$$;

comment on function fleet.tg_retire_device() is
  'Make retiring complete: its secret and tokens are void, what waits is cancelled. Definer: whoever may retire a device need not have '
  'rights on what hangs on it.';
revoke all on function fleet.tg_retire_device() from public, anon, authenticated, service_role;

create or replace trigger devices_02_retire before update of status on public.devices
  for each row when (new.status = 'retired' and old.status <> 'retired') execute function fleet.tg_retire_device();

create or replace function fleet.tg_check_group()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_problem record;
begin
  select p.field, p.problem, p.hint into v_problem from fleet.selector_problems(new.selector) as p limit 1;
  if found then
    raise exception '% %', v_problem.field, v_problem.problem
      using errcode = 'PT422', detail = 'selector_invalid', hint = v_problem.hint;
  end if;
  return new;
end;
$$;

comment on function fleet.tg_check_group() is 'Check the selector. Definer: the check is not callable by itself.';
revoke all on function fleet.tg_check_group() from public, anon, authenticated, service_role;

create or replace trigger device_groups_02_check before insert or update of selector on public.device_groups
  for each row execute function fleet.tg_check_group();

create or replace function fleet.tg_owner_from_group()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  select g.owner_id into new.owner_id from public.device_groups as g where g.id = new.group_id;
  perform fleet.require_permission(new.owner_id, 'manage', format('group %s', new.group_id));

  if not exists (select 1 from public.devices as d where d.id = new.device_id and d.owner_id = new.owner_id) then
    perform fleet.raise_device_not_found(new.device_id);
  end if;
  return new;
end;
$$;

comment on function fleet.tg_owner_from_group() is
  'A member has the owner of its group. Definer: it checks the caller, and answers alike for foreign and for missing rows.';
revoke all on function fleet.tg_owner_from_group() from public, anon, authenticated, service_role;

create or replace trigger device_group_members_01_owner before insert or update on public.device_group_members
  for each row execute function fleet.tg_owner_from_group();

-- What people change; check-ins and what devices report are kept out.
select fleet.keep_audit(
  'public.devices', p_verbs => '{update,delete}', p_columns => '{hostname,tags,status}',
  p_without => '{auth_id,last_seen,latitude,longitude,accuracy_m,located_at,attributes,enrolled_at,created_at,updated_at}'
);
select fleet.keep_audit('public.device_groups', p_columns => '{name,description,selector}');
select fleet.keep_audit('public.owner_members', p_columns => '{permissions}');

-- db/sources/10_registry/access.sql
-- Who sees and changes the registry: members of the owner. A device reads its own row and nothing else.

revoke all on table public.owners, public.owner_members, public.devices, public.device_groups,
  public.device_group_members, public.enrollment_codes
  from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.owners, public.owner_members, public.devices, public.device_groups,
  public.device_group_members, public.enrollment_codes
  to service_role;

-- Identity columns need no right on their sequences; the default privileges of a project would let anybody move them.
revoke all on sequence public.devices_id_seq, public.device_groups_id_seq, public.enrollment_codes_id_seq
  from public, anon, authenticated, service_role;
grant usage, select on sequence public.devices_id_seq, public.device_groups_id_seq, public.enrollment_codes_id_seq
  to service_role;

-- service_role bypasses row security on Supabase; where it does not, these say the same.
drop policy if exists owners_all_service_role on public.owners;
create policy owners_all_service_role on public.owners for all to service_role using (true) with check (true);
drop policy if exists owner_members_all_service_role on public.owner_members;
create policy owner_members_all_service_role on public.owner_members
  for all to service_role using (true) with check (true);
drop policy if exists devices_all_service_role on public.devices;
create policy devices_all_service_role on public.devices for all to service_role using (true) with check (true);
drop policy if exists device_groups_all_service_role on public.device_groups;
create policy device_groups_all_service_role on public.device_groups
  for all to service_role using (true) with check (true);
drop policy if exists device_group_members_all_service_role on public.device_group_members;
create policy device_group_members_all_service_role on public.device_group_members
  for all to service_role using (true) with check (true);
drop policy if exists enrollment_codes_all_service_role on public.enrollment_codes;
create policy enrollment_codes_all_service_role on public.enrollment_codes
  for all to service_role using (true) with check (true);

grant select on table public.owners to authenticated;
grant update (name) on table public.owners to authenticated;
drop policy if exists owners_select_member on public.owners;
create policy owners_select_member on public.owners
  for select to authenticated using (id = any (array(select fleet.my_owners())));
drop policy if exists owners_update_admin on public.owners;
create policy owners_update_admin on public.owners
  for update to authenticated
  using (id = any (array(select fleet.my_owners('admin'))))
  with check (id = any (array(select fleet.my_owners('admin'))));

grant select, delete on table public.owner_members to authenticated;
grant insert (owner_id, user_id, permissions) on table public.owner_members to authenticated;
grant update (permissions) on table public.owner_members to authenticated;
drop policy if exists owner_members_select_member on public.owner_members;
create policy owner_members_select_member on public.owner_members
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists owner_members_insert_admin on public.owner_members;
create policy owner_members_insert_admin on public.owner_members
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('admin'))));
drop policy if exists owner_members_update_admin on public.owner_members;
create policy owner_members_update_admin on public.owner_members
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('admin'))))
  with check (owner_id = any (array(select fleet.my_owners('admin'))));
drop policy if exists owner_members_delete_admin on public.owner_members;
create policy owner_members_delete_admin on public.owner_members
  for delete to authenticated using (owner_id = any (array(select fleet.my_owners('admin'))));

-- auth_id, status and enrolled_at change only through functions.
grant select, delete on table public.devices to authenticated;
grant insert (owner_id, hostname, platform, timezone, tags, attributes) on table public.devices to authenticated;
grant update (hostname, platform, timezone, tags, attributes) on table public.devices to authenticated;
drop policy if exists devices_select_member_or_self on public.devices;
create policy devices_select_member_or_self on public.devices
  for select to authenticated
  using (owner_id = any (array(select fleet.my_owners())) or id = (select fleet.current_device_id()));
drop policy if exists devices_insert_manager on public.devices;
create policy devices_insert_manager on public.devices
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists devices_update_manager on public.devices;
create policy devices_update_manager on public.devices
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists devices_delete_manager on public.devices;
create policy devices_delete_manager on public.devices
  for delete to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));

grant select, delete on table public.device_groups to authenticated;
grant insert (owner_id, name, description, selector) on table public.device_groups to authenticated;
grant update (name, description, selector) on table public.device_groups to authenticated;
drop policy if exists device_groups_select_member on public.device_groups;
create policy device_groups_select_member on public.device_groups
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists device_groups_insert_manager on public.device_groups;
create policy device_groups_insert_manager on public.device_groups
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists device_groups_update_manager on public.device_groups;
create policy device_groups_update_manager on public.device_groups
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists device_groups_delete_manager on public.device_groups;
create policy device_groups_delete_manager on public.device_groups
  for delete to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));

grant select, delete on table public.device_group_members to authenticated;
grant insert (group_id, device_id) on table public.device_group_members to authenticated;
drop policy if exists device_group_members_select_member on public.device_group_members;
create policy device_group_members_select_member on public.device_group_members
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists device_group_members_insert_manager on public.device_group_members;
create policy device_group_members_insert_manager on public.device_group_members
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists device_group_members_delete_manager on public.device_group_members;
create policy device_group_members_delete_manager on public.device_group_members
  for delete to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));

-- Everything but the hash of the code.
grant select (id, owner_id, device_id, max_uses, used_count, tags, group_ids, expires_at, revoked_at, created_by, created_at)
  on table public.enrollment_codes to authenticated;
grant update (revoked_at) on table public.enrollment_codes to authenticated;
drop policy if exists enrollment_codes_select_manager on public.enrollment_codes;
create policy enrollment_codes_select_manager on public.enrollment_codes
  for select to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists enrollment_codes_update_manager on public.enrollment_codes;
create policy enrollment_codes_update_manager on public.enrollment_codes
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));

set check_function_bodies = on;
reset search_path;
