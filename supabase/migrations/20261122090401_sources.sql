-- Generated from db/sources by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/00_platform/casts.sql
-- Reading values out of text without raising.

create or replace function fleet.try_interval(p_text text)
returns interval
language plpgsql
immutable
set search_path = ''
as $$
begin
  return p_text::interval;
exception
  when invalid_datetime_format or datetime_field_overflow or interval_field_overflow then
    return null;
end;
$$;

comment on function fleet.try_interval(text) is 'The text as an interval; null where it is none.';
revoke all on function fleet.try_interval(text) from public, anon, authenticated, service_role;

create or replace function fleet.try_uuid(p_text text)
returns uuid
language sql
immutable
set search_path = ''
as $$
  select case
    when p_text ~* '^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$' then p_text::uuid
  end
$$;

comment on function fleet.try_uuid(text) is 'The text as a uuid; null where it is none.';
revoke all on function fleet.try_uuid(text) from public, anon, authenticated, service_role;

create or replace function fleet.try_instant(p_text text, p_timezone text)
returns timestamptz
language plpgsql
stable
set search_path = ''
as $$
begin
  -- 'now', 'tomorrow' and their kin are words of Postgres, not times; and the name of a zone behind a time would be ignored.
  if p_text !~ '^\s*\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?)?\s*(Z|z|[+-]\d{2}(:?\d{2})?)?\s*$' then
    return null;
  elsif p_text ~ '(Z|z|[+-]\d{2}(:?\d{2})?)\s*$' and p_text ~ '\d:\d' then
    return p_text::timestamptz;
  end if;
  return fleet.local_to_instant(p_text::timestamp, p_timezone);
exception
  when invalid_datetime_format or datetime_field_overflow or invalid_parameter_value then
    return null;
end;
$$;

comment on function fleet.try_instant(text, text) is
  'A time as JSON has it: with an offset as it stands, without one local to the zone. Null where it is no time.';
revoke all on function fleet.try_instant(text, text) from public, anon, authenticated, service_role;

-- db/sources/00_platform/identity.sql
-- Who is calling: the claims of the request, and what they stand for. None of these functions ever raises:
-- they are used in policies, and one policy that raises can stop Realtime for everybody.

create or replace function fleet.claim(p_name text)
returns text
language plpgsql
stable
set search_path = ''
as $$
begin
  -- json, not jsonb: what stands in other claims need not be fit for jsonb.
  return case
    when current_setting('request.jwt.claims', true) ~ '^\s*\{'
      then current_setting('request.jwt.claims', true)::json ->> p_name
  end;
exception
  when data_exception then
    return null;
end;
$$;

comment on function fleet.claim(text) is
  'One claim of the caller''s token, or null where there is none or the claims are no JSON object.';
revoke all on function fleet.claim(text) from public, anon, authenticated, service_role;
grant execute on function fleet.claim(text) to authenticated, service_role;

create or replace function fleet.current_subject()
returns uuid
language sql
stable
set search_path = ''
as $$
  select case
    when fleet.claim('sub') ~* '^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$' then fleet.claim('sub')::uuid
  end
$$;

comment on function fleet.current_subject() is
  'The sub claim as a uuid; null when there is none or it is no uuid (auth.uid() would raise).';
revoke all on function fleet.current_subject() from public, anon, authenticated, service_role;
grant execute on function fleet.current_subject() to authenticated, service_role;

create or replace function fleet.current_user_id()
returns uuid
language sql
stable
security definer
set search_path = ''
as $$
  select u.id
  from (select fleet.current_subject() as id) as u
  where u.id is not null
    -- A device is nobody: neither one that is active nor one whose token outlived its re-keying.
    and fleet.claim('device_id') is null
    and not exists (select 1 from public.devices as d where d.auth_id = u.id)
$$;

comment on function fleet.current_user_id() is
  'The signed-in person; null for devices and in the SQL editor. Definer: it must see every device to tell one from a person.';
revoke all on function fleet.current_user_id() from public, anon, authenticated, service_role;
grant execute on function fleet.current_user_id() to authenticated, service_role;

create or replace function fleet.current_device_id()
returns bigint
language sql
stable
security definer
set search_path = ''
as $$
  select d.id
  from public.devices as d
  where d.auth_id = fleet.current_subject()
    and d.status = 'active'
    and fleet.claim('role') = 'authenticated'
$$;

comment on function fleet.current_device_id() is
  'The active device whose token this is, or null. Definer: a device has no right to search the devices.';
revoke all on function fleet.current_device_id() from public, anon, authenticated, service_role;
grant execute on function fleet.current_device_id() to authenticated, service_role;

create or replace function fleet.my_owners(p_permission text default 'view')
returns setof uuid
language sql
stable
security definer
set search_path = ''
as $$
  -- Everybody's personal owner has the id of the user and needs no membership: policies must already let the very
  -- statement in that makes it.
  select u.id
  from (select fleet.current_user_id() as id) as u
  where u.id is not null
  union
  select m.owner_id
  from public.owner_members as m
  where m.user_id = fleet.current_user_id()
    and (p_permission = 'view' or m.permissions && array[p_permission, 'admin'])
$$;

comment on function fleet.my_owners(text) is
  'Owners in which the signed-in person has a permission; none for devices. Definer: policies of owner_members use it themselves.';
revoke all on function fleet.my_owners(text) from public, anon, authenticated, service_role;
grant execute on function fleet.my_owners(text) to authenticated, service_role;

create or replace function fleet.is_trusted_caller()
returns boolean
language sql
stable
set search_path = ''
as $$
  -- Outside of a request there are no claims: the SQL editor, pg_cron, a migration. Through the API only the service role.
  -- Whoever comes as a role of the API is never trusted for claims that are missing or say another role. The setting role
  -- is the role that the session took on, also inside of definer functions.
  select coalesce(fleet.claim('role'), 'service_role') = 'service_role'
    and current_setting('role') not in ('anon', 'authenticated')
    and session_user not in ('anon', 'authenticated')
$$;

comment on function fleet.is_trusted_caller() is 'Whether the caller is the service role or comes from inside the database.';
revoke all on function fleet.is_trusted_caller() from public, anon, authenticated, service_role;
grant execute on function fleet.is_trusted_caller() to authenticated, service_role;

create or replace function fleet.resolve_owner()
returns uuid
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_user uuid := fleet.current_user_id();
  v_owner uuid;
begin
  if v_user is not null then
    -- Everybody has a personal owner; it is made the first time that it is needed.
    insert into public.owners (id, name) values (v_user, 'personal') on conflict (id) do nothing;
    return v_user;
  end if;

  if fleet.is_trusted_caller() then
    v_owner := (fleet.setting('default_owner') #>> '{}')::uuid;
    if v_owner is not null then
      return v_owner;
    end if;
    raise exception 'owner_id is missing: nobody is signed in and the setting default_owner is empty'
      using errcode = 'PT422',
            detail = 'owner_missing',
            hint = 'Name owner_id, or set a default: select fleet.set_setting(''default_owner'', to_jsonb(''<owner uuid>''::text))';
  end if;

  raise exception 'a device may not do this'
    using errcode = 'PT403',
          detail = 'not_a_person',
          hint = 'Sign in as a member of the fleet.';
end;
$$;

comment on function fleet.resolve_owner() is
  'The owner of a row whose maker named none: the person''s own, or the setting default_owner. Raises owner_missing (PT422) or '
  'not_a_person (PT403). Definer: it makes the personal owner.';
revoke all on function fleet.resolve_owner() from public, anon, authenticated, service_role;

create or replace function fleet.raise_not_found(p_what text)
returns void
language plpgsql
immutable
set search_path = ''
as $$
declare
  v_kind text := replace(regexp_replace(p_what, ' [^ ]*$', ''), ' ', '_');
begin
  raise exception '% was not found', p_what
    using errcode = 'PT404',
          detail = v_kind || '_not_found',
          hint = case
            when v_kind in ('device', 'group', 'schedule', 'command', 'owner')
              then format('List your %ss with: pgfleet %s list', v_kind, v_kind)
            else 'Check the name.'
          end;
end;
$$;

comment on function fleet.raise_not_found(text) is
  'Raise <kind>_not_found (PT404) for something like "device 7". The one answer for what is missing and for what is another''s: ids '
  'are guessable.';
revoke all on function fleet.raise_not_found(text) from public, anon, authenticated, service_role;

create or replace function fleet.owner_or_own(p_owner_id uuid)
returns uuid
language sql
volatile
set search_path = ''
as $$
  select coalesce(nullif(p_owner_id, fleet.current_user_id()), fleet.resolve_owner())
$$;

comment on function fleet.owner_or_own(uuid) is
  'The owner that was named; where none was, or the person''s own, that one, made if need be. Raises as resolve_owner does.';
revoke all on function fleet.owner_or_own(uuid) from public, anon, authenticated, service_role;

create or replace function fleet.is_visible_owner(p_owner_id uuid)
returns boolean
language sql
stable
security definer
set search_path = ''
as $$
  select fleet.is_trusted_caller() or exists (select 1 from fleet.my_owners() as o(id) where o.id = p_owner_id)
$$;

comment on function fleet.is_visible_owner(uuid) is
  'Whether the caller is a member of the owner, or trusted. Asked before a row is locked: nobody may hold up the rows of others. '
  'Definer: it reads memberships.';
revoke all on function fleet.is_visible_owner(uuid) from public, anon, authenticated, service_role;

create or replace function fleet.require_permission(p_owner_id uuid, p_permission text, p_what text)
returns void
language plpgsql
stable
security definer
set search_path = ''
as $$
begin
  if fleet.is_trusted_caller() then
    return;
  end if;

  if p_owner_id is null or not exists (select 1 from fleet.my_owners() as o(id) where o.id = p_owner_id) then
    perform fleet.raise_not_found(p_what);
  end if;

  if not exists (select 1 from fleet.my_owners(p_permission) as o(id) where o.id = p_owner_id) then
    raise exception 'the permission "%" is missing for %', p_permission, p_what
      using errcode = 'PT403',
            detail = 'permission_missing',
            hint = 'An admin of the owner can grant it in owner_members.permissions.';
  end if;
end;
$$;

comment on function fleet.require_permission(uuid, text, text) is
  'Raise <kind>_not_found (PT404) when the caller is no member of the owner, permission_missing (PT403) when one without the permission. '
  'The service role and callers inside the database pass. Definer: it reads memberships.';
revoke all on function fleet.require_permission(uuid, text, text) from public, anon, authenticated, service_role;

create or replace function fleet.require_device()
returns bigint
language plpgsql
stable
set search_path = ''
as $$
declare
  v_device_id bigint := fleet.current_device_id();
begin
  if v_device_id is null then
    raise exception 'only an active device may call this'
      using errcode = 'PT403',
            detail = 'not_a_device',
            hint = 'Get a token from the function device-token; a retired device must be enrolled again.';
  end if;
  return v_device_id;
end;
$$;

comment on function fleet.require_device() is 'The calling device. Raises not_a_device (PT403).';
revoke all on function fleet.require_device() from public, anon, authenticated, service_role;
grant execute on function fleet.require_device() to authenticated, service_role;

create or replace function fleet.create_owner(p_name text)
returns public.owners
language plpgsql
security definer
set search_path = ''
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

create or replace function public.create_owner(p_name text)
returns public.owners
language sql
volatile
set search_path = ''
as $$
  select fleet.create_owner(p_name)
$$;

comment on function public.create_owner(text) is
  'Make a fleet that several people may run; who makes it is its admin. Others join through owner_members.';
revoke all on function public.create_owner(text) from public, anon, authenticated, service_role;
grant execute on function public.create_owner(text) to authenticated, service_role;

-- db/sources/00_platform/secrets.sql
-- Random secrets, their hashes, and the signed short-lived tokens that pokes carry. Built on what Postgres itself has,
-- so that no extension is needed.

create or replace function fleet.random_secret()
returns text
language sql
volatile
set search_path = ''
as $$
  select encode(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 'hex')
$$;

comment on function fleet.random_secret() is '64 hexadecimal digits from 244 random bits.';
revoke all on function fleet.random_secret() from public, anon, authenticated, service_role;

create or replace function fleet.hash_secret(p_secret text)
returns bytea
language sql
immutable
set search_path = ''
as $$
  select sha256(convert_to(p_secret, 'UTF8'))
$$;

comment on function fleet.hash_secret(text) is 'What is stored of a secret. Only for secrets that are random, not for passwords.';
revoke all on function fleet.hash_secret(text) from public, anon, authenticated, service_role;

create or replace function fleet.xor_with_byte(p_bytes bytea, p_byte integer)
returns bytea
language sql
immutable
set search_path = ''
as $$
  select string_agg(set_byte('\x00'::bytea, 0, get_byte(p_bytes, i) # p_byte), ''::bytea order by i)
  from generate_series(0, length(p_bytes) - 1) as g(i)
$$;

comment on function fleet.xor_with_byte(bytea, integer) is 'Each byte of a string, exclusive-or with one byte.';
revoke all on function fleet.xor_with_byte(bytea, integer) from public, anon, authenticated, service_role;

create or replace function fleet.hmac_sha256(p_message bytea, p_key bytea)
returns bytea
language sql
immutable
set search_path = ''
as $$
  select sha256(fleet.xor_with_byte(k.key, 92) || sha256(fleet.xor_with_byte(k.key, 54) || p_message))
  from (
    -- Keys are brought to the block size of 64 bytes, as RFC 2104 says.
    select h.key || decode(repeat('00', 64 - length(h.key)), 'hex') as key
    from (select case when length(p_key) > 64 then sha256(p_key) else p_key end as key) as h
  ) as k
$$;

comment on function fleet.hmac_sha256(bytea, bytea) is 'HMAC with SHA-256 (RFC 2104).';
revoke all on function fleet.hmac_sha256(bytea, bytea) from public, anon, authenticated, service_role;

create or replace function fleet.base64url(p_bytes bytea)
returns text
language sql
immutable
set search_path = ''
as $$
  select translate(rtrim(replace(encode(p_bytes, 'base64'), E'\n', ''), '='), '+/', '-_')
$$;

comment on function fleet.base64url(bytea) is 'Base64 for addresses, without padding.';
revoke all on function fleet.base64url(bytea) from public, anon, authenticated, service_role;

create or replace function fleet.poke_key()
returns text
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_key text;
begin
  select s.secret into v_key from public.pg_cron_secrets as s where s.name = 'poke_signing_key';
  if v_key is null then
    insert into public.pg_cron_secrets (name, secret)
    values ('poke_signing_key', fleet.random_secret())
    on conflict (name) do nothing;
    select s.secret into v_key from public.pg_cron_secrets as s where s.name = 'poke_signing_key';
  end if;
  return v_key;
end;
$$;

comment on function fleet.poke_key() is
  'The key that signs pokes, made on first use. Definer: it reads the secrets. Only other definer functions may call it.';
revoke all on function fleet.poke_key() from public, anon, authenticated, service_role;

create or replace function fleet.poke_signature(p_function text, p_body text, p_expires bigint)
returns text
language sql
volatile
set search_path = ''
as $$
  select fleet.base64url(fleet.hmac_sha256(
    convert_to(p_function || '.' || p_expires || '.' || encode(sha256(convert_to(p_body, 'UTF8')), 'hex'), 'UTF8'),
    convert_to(fleet.poke_key(), 'UTF8')
  ))
$$;

comment on function fleet.poke_signature(text, text, bigint) is
  'Signature over the function''s name, the end of validity (seconds since 1970) and the body.';
revoke all on function fleet.poke_signature(text, text, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.sign_poke(p_function text, p_body text, p_now timestamptz default now())
returns text
language sql
volatile
set search_path = ''
as $$
  select 'poke.' || e.expires || '.' || fleet.poke_signature(p_function, p_body, e.expires)
  from (select floor(extract(epoch from p_now))::bigint + 60 as expires) as e
$$;

comment on function fleet.sign_poke(text, text, timestamptz) is
  'A token poke.<expires>.<signature>, valid for a minute, for one function and one body.';
revoke all on function fleet.sign_poke(text, text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_verify_poke(
  p_token text,
  p_function text,
  p_body text,
  p_now timestamptz default now()
)
returns boolean
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_parts text[] := regexp_match(p_token, '^poke\.([0-9]{1,12})\.([A-Za-z0-9_-]{43})$');
begin
  return coalesce(
    v_parts is not null
    and v_parts[1]::bigint >= floor(extract(epoch from p_now))
    and v_parts[1]::bigint <= floor(extract(epoch from p_now)) + 120
    and fleet.poke_signature(p_function, p_body, v_parts[1]::bigint) = v_parts[2],
    false
  );
end;
$$;

comment on function fleet.worker_verify_poke(text, text, text, timestamptz) is
  'Whether a poke token was signed for this function and body and is still valid. Definer: the key never leaves the database.';
revoke all on function fleet.worker_verify_poke(text, text, text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.poke(p_function text, p_body jsonb default '{}', p_now timestamptz default now())
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_url text := fleet.setting('functions_url') #>> '{}';
  v_request_id bigint;
begin
  if v_url is null or to_regproc('net.http_post') is null then
    return null;
  end if;

  select net.http_post(
    url => v_url || '/' || p_function,
    body => p_body,
    headers => jsonb_build_object(
      'Content-Type', 'application/json',
      'Authorization', 'Bearer ' || fleet.sign_poke(p_function, p_body::text, p_now)
    )
  ) into v_request_id;
  return v_request_id;
end;
$$;

comment on function fleet.poke(text, jsonb, timestamptz) is
  'Tell an HTTP function that there is work; null where pg_net or the setting functions_url is missing. Losing a poke costs '
  'one tick. Definer: it signs.';
revoke all on function fleet.poke(text, jsonb, timestamptz) from public, anon, authenticated, service_role;

-- db/sources/00_platform/settings.sql
-- Settings: their defaults in one place, reading and changing them.

create or replace function fleet.default_settings()
returns table (name text, value jsonb, description text)
language sql
immutable
set search_path = ''
as $$
  values
    ('default_owner', 'null'::jsonb,
      'Owner (uuid) of rows that nobody signed in makes, as in the SQL editor.'),
    ('publish_device_commands', 'true',
      'Whether device_commands is in the publication supabase_realtime, for clients that listen to postgres_changes.'),
    ('inline_expand_limit', '300',
      'How many commands a schedule that is due when it is inserted may make in the same transaction.'),
    ('expand_chunk_size', '5000',
      'How many commands a large run makes in one transaction.'),
    ('expand_chunk_size_published', '500',
      'The same while device_commands is in the publication, where one transaction is one poll of Realtime.'),
    ('doorbell_inline_limit', '100',
      'How many devices are rung in the transaction that makes their commands; more are left to the tick.'),
    ('doorbell_rate', '100',
      'How many doorbells the tick rings in a second. Hosted Realtime delivers 100 (Free) to 2500 (Pro and up).'),
    ('lease_seconds', '60',
      'How long a claimed command belongs to its device without being extended.'),
    ('poll_seconds', '300',
      'How often an agent looks by itself, told to it at each check-in.'),
    ('retry_backoff_seconds', '30',
      'Pause before the second attempt; it doubles with each failure, up to an hour.'),
    ('history_days', '30',
      'How long finished runs and commands are kept.'),
    ('ticker_enabled', 'true',
      'False stops the ticker at its next second, for maintenance.'),
    ('functions_url', 'null',
      'Address of the HTTP functions, such as https://functions.example.com/functions/v1.')
$$;

comment on function fleet.default_settings() is 'Every setting with its default value and what it means.';
revoke all on function fleet.default_settings() from public, anon, authenticated, service_role;

create or replace function fleet.setting(p_name text)
returns jsonb
language sql
stable
security definer
set search_path = ''
as $$
  select coalesce(
    (select s.value from fleet.settings as s where s.name = p_name),
    (select d.value from fleet.default_settings() as d where d.name = p_name)
  )
$$;

comment on function fleet.setting(text) is
  'The value of a setting, or its default. Definer: engine functions read settings on behalf of anybody.';
revoke all on function fleet.setting(text) from public, anon, authenticated, service_role;
grant execute on function fleet.setting(text) to service_role;

create or replace function fleet.setting_number(p_name text)
returns numeric
language sql
stable
set search_path = ''
as $$
  select (fleet.setting(p_name) #>> '{}')::numeric
$$;

comment on function fleet.setting_number(text) is 'A setting that is a number.';
revoke all on function fleet.setting_number(text) from public, anon, authenticated, service_role;

create or replace function fleet.set_setting(p_name text, p_value jsonb)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_default fleet.settings;
begin
  select d.name, d.value, d.description into v_default.name, v_default.value, v_default.description
  from fleet.default_settings() as d
  where d.name = p_name;

  if not found then
    raise exception 'setting "%" is not known', p_name
      using errcode = 'PT404',
            detail = 'setting_not_found',
            hint = 'List the settings with: pgfleet setting list';
  end if;

  if jsonb_typeof(v_default.value) in ('number', 'boolean')
    and jsonb_typeof(p_value) is distinct from jsonb_typeof(v_default.value)
  then
    raise exception 'setting "%" must be a %, not %',
      p_name, jsonb_typeof(v_default.value), coalesce(p_value::text, 'null')
      using errcode = 'PT422',
            detail = 'setting_invalid',
            hint = format('The default is %s.', v_default.value);
  end if;

  if jsonb_typeof(p_value) = 'number' and (p_value #>> '{}')::numeric < 0 then
    raise exception 'setting "%" must not be negative', p_name
      using errcode = 'PT422',
            detail = 'setting_invalid',
            hint = format('The default is %s.', v_default.value);
  end if;

  insert into fleet.settings as s (name, value, description, updated_at)
  values (p_name, p_value, v_default.description, now())
  on conflict (name) do update set value = excluded.value, updated_at = excluded.updated_at;

  if p_name = 'publish_device_commands' then
    perform fleet.sync_publication();
  end if;

  return p_value;
end;
$$;

comment on function fleet.set_setting(text, jsonb) is
  'Change a setting. Raises setting_not_found (PT404) or setting_invalid (PT422). Definer: service_role has no right to write the table.';
revoke all on function fleet.set_setting(text, jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.set_setting(text, jsonb) to service_role;

create or replace function fleet.sync_publication()
returns void
language plpgsql
set search_path = ''
as $$
declare
  v_wanted boolean := fleet.setting('publish_device_commands') = 'true'::jsonb;
  v_there boolean;
begin
  if not exists (select 1 from pg_catalog.pg_publication where pubname = 'supabase_realtime') then
    return;
  end if;

  v_there := exists (
    select 1 from pg_catalog.pg_publication_tables
    where pubname = 'supabase_realtime' and schemaname = 'public' and tablename = 'device_commands'
  );

  if v_wanted and not v_there then
    alter publication supabase_realtime add table public.device_commands;
  elsif v_there and not v_wanted then
    alter publication supabase_realtime drop table public.device_commands;
  end if;
end;
$$;

comment on function fleet.sync_publication() is
  'Put device_commands in or out of the publication supabase_realtime, as the setting publish_device_commands says.';
revoke all on function fleet.sync_publication() from public, anon, authenticated, service_role;

-- db/sources/00_platform/time_zones.sql
-- Which time zones may be named.

create or replace function fleet.refresh_time_zones()
returns void
language sql
volatile
set search_path = ''
as $$
  -- Names with a slash are IANA's areas; of the others only UTC and its kin are meant by people. POSIX rules such as
  -- "Nonsense5", which Postgres accepts everywhere, are in no list and so never pass.
  insert into fleet.time_zones (name)
  select z.name
  from pg_catalog.pg_timezone_names as z
  where z.name !~ '^(posix|right)/'
    and z.name not in ('posixrules', 'localtime', 'Factory')
  on conflict (name) do nothing
$$;

comment on function fleet.refresh_time_zones() is 'Add the zones that this server knows; called at every migrate.';
revoke all on function fleet.refresh_time_zones() from public, anon, authenticated, service_role;

create or replace function fleet.is_time_zone(p_name text)
returns boolean
language sql
stable
security definer
set search_path = ''
as $$
  select exists (select 1 from fleet.time_zones as z where z.name = p_name)
$$;

comment on function fleet.is_time_zone(text) is
  'Whether this is the exact name of a known IANA zone. Definer: triggers ask it on behalf of anybody.';
revoke all on function fleet.is_time_zone(text) from public, anon, authenticated, service_role;

-- db/sources/10_registry/devices.sql
-- The life of a device after its enrolment: check-ins, facts, re-keying and retiring.

create or replace function fleet.raise_device_not_found(p_device_id bigint)
returns void
language plpgsql
immutable
set search_path = ''
as $$
begin
  perform fleet.raise_not_found(format('device %s', p_device_id));
end;
$$;

comment on function fleet.raise_device_not_found(bigint) is 'Raise device_not_found (PT404).';
revoke all on function fleet.raise_device_not_found(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.store_facts(p_device_id bigint, p_facts jsonb)
returns void
language sql
volatile
set search_path = ''
as $$
  -- A device is believed about itself, but what is no known zone or no object is left out rather than refused: a check-in
  -- must not fail because of a detail.
  update public.devices as d
  set platform = coalesce(left(p_facts ->> 'platform', 64), d.platform),
      timezone = case
        when fleet.is_time_zone(p_facts ->> 'timezone') then p_facts ->> 'timezone'
        else d.timezone
      end,
      attributes = d.attributes
        || case when jsonb_typeof(p_facts -> 'attributes') = 'object' then p_facts -> 'attributes' else '{}' end
        || case
          when jsonb_typeof(p_facts -> 'agent_version') = 'string'
            then jsonb_build_object('agent_version', p_facts -> 'agent_version')
          else '{}'
        end
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
set search_path = ''
as $$
  -- At most twice a minute: last_seen is for people, and each write of it is a row version.
  update public.devices as d
  set last_seen = p_now
  where d.id = p_device_id
    and (d.last_seen is null or d.last_seen < p_now - interval '30 seconds')
$$;

comment on function fleet.touch_device(bigint, timestamptz) is 'Note that the device was heard of.';
revoke all on function fleet.touch_device(bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.device_checkin(p_facts jsonb, p_now timestamptz)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_device_id bigint := fleet.require_device();
begin
  perform fleet.store_facts(v_device_id, p_facts);
  perform fleet.touch_device(v_device_id, p_now);
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
set search_path = ''
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
set search_path = ''
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
set search_path = ''
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
set search_path = ''
as $$
  select fleet.create_enrollment_code(p_device_id, 1, interval '1 day', '{}', '{}')
$$;

comment on function public.rekey_device(bigint) is
  'Make a code with which this very device, retired or not, enrols again; its former secret ends when the code is used. '
  '{id, code, expires_at, max_uses}. Raises device_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.rekey_device(bigint) from public, anon, authenticated, service_role;
grant execute on function public.rekey_device(bigint) to authenticated, service_role;

-- db/sources/10_registry/enrollment.sql
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
set search_path = ''
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
set search_path = ''
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
set search_path = ''
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
set search_path = ''
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

create or replace function fleet.issue_device_secret(p_device_id bigint)
returns text
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_secret text := format('pgfd_%s_%s', p_device_id, fleet.random_secret());
begin
  insert into fleet.device_credentials (device_id, secret_hash)
  values (p_device_id, fleet.hash_secret(v_secret))
  on conflict (device_id) do update
    set secret_hash = excluded.secret_hash, created_at = now(), last_used_at = null;
  return v_secret;
end;
$$;

comment on function fleet.issue_device_secret(bigint) is 'Give a device a new secret; the former one is void.';
revoke all on function fleet.issue_device_secret(bigint) from public, anon, authenticated, service_role;

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
set search_path = ''
as $$
declare
  v_code public.enrollment_codes;
  v_device public.devices;
begin
  if coalesce(btrim(p_hostname), '') = '' or length(p_hostname) > 253 then
    raise exception 'hostname must be text of 1 to 253 characters'
      using errcode = 'PT422', detail = 'hostname_invalid', hint = 'Send the name of the device as "hostname".';
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
    || jsonb_build_object('device_secret', fleet.issue_device_secret(v_device.id));
end;
$$;

comment on function fleet.worker_enroll_device(text, text, jsonb, timestamptz) is
  'Trade a code for a device and its secret. {device_id, auth_id, hostname, owner_id, topic, device_secret}. Raises '
  'enrollment_code_refused (PT401), device_enrolled (PT409), hostname_invalid (PT422). Definer: the code is the right to do it.';
revoke all on function fleet.worker_enroll_device(text, text, jsonb, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.device_identity(p_device public.devices)
returns jsonb
language sql
immutable
set search_path = ''
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
set search_path = ''
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

-- db/sources/10_registry/selectors.sql
-- Selectors: choosing devices by tags, platform and attributes.

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
    or array(select jsonb_array_elements_text(p_selector -> 'any_tags')) && p_tags)
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
returns table (field text, problem text, hint text)
language sql
immutable
set search_path = ''
as $$
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
    and (jsonb_typeof(e.value) <> 'array' or jsonb_path_exists(e.value, '$[*] ? (@.type() != "string")'))
    and not (e.key = 'platform' and jsonb_typeof(e.value) = 'string')
  union all
  select 'selector.attributes', 'must be an object', 'Example: {"attributes": {"lab": 3}}'
  where jsonb_typeof(p_selector) = 'object'
    and p_selector ? 'attributes'
    and jsonb_typeof(p_selector -> 'attributes') <> 'object'
$$;

comment on function fleet.selector_problems(jsonb) is 'Everything that is wrong with a selector; no row where nothing is.';
revoke all on function fleet.selector_problems(jsonb) from public, anon, authenticated, service_role;

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
set search_path = ''
as $$
begin
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

create or replace function public.group_devices(p_group_id bigint)
returns setof public.devices
language sql
stable
set search_path = ''
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

-- db/sources/10_registry/triggers.sql
-- What holds for the registry however a row is written.

create or replace function fleet.tg_owner_from_caller()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  new.owner_id := fleet.owner_or_own(new.owner_id);
  return new;
end;
$$;

comment on function fleet.tg_owner_from_caller() is
  'Fill owner_id where the writer named none or the personal owner, which may have to be made. Definer: nobody writes owners.';
revoke all on function fleet.tg_owner_from_caller() from public, anon, authenticated, service_role;

create or replace function fleet.tg_set_updated_at()
returns trigger
language plpgsql
set search_path = ''
as $$
begin
  new.updated_at := now();
  return new;
end;
$$;

comment on function fleet.tg_set_updated_at() is 'Stamp updated_at.';
revoke all on function fleet.tg_set_updated_at() from public, anon, authenticated, service_role;

create or replace function fleet.tg_check_device()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  if new.timezone is not null and not fleet.is_time_zone(new.timezone) then
    raise exception 'timezone "%" is not a known time zone', new.timezone
      using errcode = 'PT422',
            detail = 'timezone_unknown',
            hint = 'Use an IANA name such as Europe/Berlin.';
  end if;

  if tg_op = 'UPDATE' and new.status = 'retired' and old.status <> 'retired' then
    new.auth_id := gen_random_uuid();
    new.enrolled_at := null;
    delete from fleet.device_credentials as c where c.device_id = new.id;
    delete from fleet.doorbells as b where b.device_id = new.id;
    update public.device_commands as c
    set status = 'cancelled', reason = 'device_retired'
    where c.device_id = new.id and c.status in ('pending', 'running');
  end if;
  return new;
end;
$$;

comment on function fleet.tg_check_device() is
  'Check the time zone; make retiring complete. Definer: whoever may retire a device need not have rights on what hangs on it.';
revoke all on function fleet.tg_check_device() from public, anon, authenticated, service_role;

create or replace function fleet.tg_check_group()
returns trigger
language plpgsql
security definer
set search_path = ''
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

create or replace function fleet.tg_owner_from_group()
returns trigger
language plpgsql
security definer
set search_path = ''
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

create or replace trigger devices_01_owner before insert on public.devices
  for each row when (new.owner_id is null or current_setting('request.jwt.claims', true) <> '')
  execute function fleet.tg_owner_from_caller();
create or replace trigger devices_02_check before insert or update of timezone, status on public.devices
  for each row execute function fleet.tg_check_device();
create or replace trigger devices_03_set_updated_at before update on public.devices
  for each row execute function fleet.tg_set_updated_at();

create or replace trigger device_groups_01_owner before insert on public.device_groups
  for each row when (new.owner_id is null or current_setting('request.jwt.claims', true) <> '')
  execute function fleet.tg_owner_from_caller();
create or replace trigger device_groups_02_check before insert or update of selector on public.device_groups
  for each row execute function fleet.tg_check_group();
create or replace trigger device_groups_03_set_updated_at before update on public.device_groups
  for each row execute function fleet.tg_set_updated_at();

create or replace trigger device_group_members_01_owner before insert or update on public.device_group_members
  for each row execute function fleet.tg_owner_from_group();

-- db/sources/10_registry/policies.sql
-- Who sees and changes the registry: members of the owner. A device reads its own row and nothing else.

grant usage on schema fleet to authenticated, service_role;

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

-- db/sources/20_recurrence/10_zones.sql
-- Local time as plain numbers. A "local second" is a wall-clock reading counted in seconds since 0001-01-01 00:00,
-- which was a Monday: day = second / 86400, weekday = day % 7, and both stay positive for every date in use.

create or replace function fleet.utc_offset(p_timezone text, p_epoch bigint)
returns bigint
language sql
immutable
parallel safe
return date_part('epoch', to_timestamp(p_epoch) at time zone p_timezone)::bigint - p_epoch;

comment on function fleet.utc_offset(text, bigint) is
  'Seconds by which the clocks of the zone are ahead of UTC at this Unix second.';
revoke all on function fleet.utc_offset(text, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.utc_offset(text, bigint) to authenticated, service_role;

create or replace function fleet.local_second(p_instant timestamptz, p_timezone text)
returns bigint
language sql
immutable
parallel safe
return floor(date_part('epoch', p_instant at time zone p_timezone))::bigint + 62135596800;

comment on function fleet.local_second(timestamptz, text) is
  'The wall-clock reading at an instant, in whole seconds since 0001-01-01.';
revoke all on function fleet.local_second(timestamptz, text) from public, anon, authenticated, service_role;
grant execute on function fleet.local_second(timestamptz, text) to authenticated, service_role;

create or replace function fleet.zone_transitions(p_timezone text, p_from bigint, p_to bigint)
returns table (changed_at bigint, offset_before bigint, offset_after bigint)
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  -- No zone has changed its clocks twice within three days since there are time zones.
  c_step   constant bigint := 3::bigint * 86400;
  v_known  bigint := p_from;
  v_probe  bigint;
  v_low    bigint;
  v_high   bigint;
  v_middle bigint;
begin
  offset_before := fleet.utc_offset(p_timezone, p_from);

  while v_known < p_to loop
    v_probe := least(v_known + c_step, p_to);
    offset_after := fleet.utc_offset(p_timezone, v_probe);

    if offset_after <> offset_before then
      v_low := v_known;
      v_high := v_probe;
      while v_high - v_low > 1 loop
        v_middle := (v_low + v_high) / 2;
        if fleet.utc_offset(p_timezone, v_middle) = offset_before then
          v_low := v_middle;
        else
          v_high := v_middle;
        end if;
      end loop;

      changed_at := v_high;
      return next;
      offset_before := offset_after;
    end if;

    v_known := v_probe;
  end loop;
end;
$$;

comment on function fleet.zone_transitions(text, bigint, bigint) is
  'Every change of the zone''s clocks after p_from and up to p_to, both in Unix seconds, oldest first.';
revoke all on function fleet.zone_transitions(text, bigint, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.zone_transitions(text, bigint, bigint) to authenticated, service_role;

create or replace function fleet.zone_clock(p_timezone text)
returns text
language plpgsql
immutable
set search_path = ''
as $$
begin
  -- Postgres reads these four names as abbreviations with one fixed offset. Where the server has the zones of the same
  -- name under posix/ those are exact, elsewhere a city is that has kept the same rules since the seventies.
  if p_timezone not in ('CET', 'EET', 'MET', 'WET') then
    return p_timezone;
  end if;
  return fleet.existing_zone('posix/' || p_timezone, case p_timezone
    when 'EET' then 'Europe/Athens'
    when 'WET' then 'Europe/Lisbon'
    else 'Europe/Brussels'
  end);
end;
$$;

comment on function fleet.zone_clock(text) is
  'The name by which Postgres finds the clock of an IANA zone, which is the zone''s own name but for four '
  'old ones.';
revoke all on function fleet.zone_clock(text) from public, anon, authenticated, service_role;
grant execute on function fleet.zone_clock(text) to authenticated, service_role;

create or replace function fleet.existing_zone(p_first text, p_second text)
returns text
language plpgsql
immutable
set search_path = ''
as $$
begin
  perform timestamptz 'epoch' at time zone p_first;
  return p_first;
exception
  when invalid_parameter_value then
    return p_second;
end;
$$;

comment on function fleet.existing_zone(text, text) is
  'The first of two zones if this server has it, else the second.';
revoke all on function fleet.existing_zone(text, text) from public, anon, authenticated, service_role;
grant execute on function fleet.existing_zone(text, text) to authenticated, service_role;

create or replace function fleet.local_to_instant(p_local timestamp, p_timezone text)
returns timestamptz
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  v_clock      text := fleet.zone_clock(p_timezone);
  v_instant    timestamptz := p_local at time zone v_clock;
  v_epoch      bigint := floor(date_part('epoch', v_instant))::bigint;
  v_transition record;
begin
  -- The plain conversion reads a skipped time with the offset before the change and a repeated one with the offset after it;
  -- here, as in every recurrence by default, a skipped time is the first instant after, a repeated one the first.
  for v_transition in
    select t.changed_at, t.offset_before, t.offset_after
    from fleet.zone_transitions(v_clock, v_epoch - 90000, v_epoch + 90000) as t
  loop
    if (v_instant at time zone v_clock) <> p_local then
      return to_timestamp(v_transition.changed_at);
    elsif v_transition.offset_after < v_transition.offset_before
      and v_instant >= to_timestamp(v_transition.changed_at)
      and v_instant < to_timestamp(
        v_transition.changed_at + v_transition.offset_before - v_transition.offset_after
      )
    then
      return v_instant
        - (v_transition.offset_before - v_transition.offset_after) * interval '1 second';
    end if;
  end loop;

  return v_instant;
end;
$$;

comment on function fleet.local_to_instant(timestamp, text) is
  'The instant of a local time: a repeated one is its first, a skipped one is the first instant after the '
  'gap.';
revoke all on function fleet.local_to_instant(timestamp, text) from public, anon, authenticated, service_role;
grant execute on function fleet.local_to_instant(timestamp, text) to authenticated, service_role;

-- db/sources/20_recurrence/20_cron_fields.sql
-- One field of a cron expression. Numbers stand for themselves; what cannot be a plain number is coded above them.
-- Day of month: 100 = L, 100 + n = L-n, 200 = LW, 200 + n = nW. Day of week: 10 * n + k = n#k (n from 1 to 7),
-- 90 + n = nL. Fields are numbered 0 second, 1 minute, 2 hour, 3 day of month, 4 month, 5 day of week.

create or replace function fleet.cron_integer(p_text text)
returns integer
language sql
immutable
parallel safe
set search_path = ''
as $$
  -- Capped, so that a step of any length is a step beyond the end.
  select case
    when p_text ~ '^0*[0-9]{1,9}$' then right(p_text, 9)::integer
    when p_text ~ '^[0-9]+$' then 999999999
  end
$$;

comment on function fleet.cron_integer(text) is
  'Digits as a number; null for anything else. Numbers beyond nine digits stay large and fit no field.';
revoke all on function fleet.cron_integer(text) from public, anon, authenticated, service_role;
grant execute on function fleet.cron_integer(text) to authenticated, service_role;

create or replace function fleet.cron_number(p_field integer, p_text text)
returns integer
language sql
immutable
parallel safe
set search_path = ''
as $$
  select v.number
  from (
    select coalesce(
      case p_field
        when 4 then array_position(
          '{JAN,FEB,MAR,APR,MAY,JUN,JUL,AUG,SEP,OCT,NOV,DEC}'::text[], p_text
        )
        when 5 then array_position('{SUN,MON,TUE,WED,THU,FRI,SAT}'::text[], p_text) - 1
      end,
      fleet.cron_integer(p_text)
    ) as number
  ) as v
  where v.number between (array[0, 0, 0, 1, 1, 0])[p_field + 1] and (array[59, 59, 23, 31, 12, 7])[p_field + 1]
$$;

comment on function fleet.cron_number(integer, text) is
  'A number or name of a cron field; null where it is none or lies outside the field.';
revoke all on function fleet.cron_number(integer, text) from public, anon, authenticated, service_role;
grant execute on function fleet.cron_number(integer, text) to authenticated, service_role;

create or replace function fleet.cron_field_values(p_field integer, p_text text)
returns integer[]
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  v_term   text;
  v_values integer[];
  v_all    integer[] := array[]::integer[];
begin
  foreach v_term in array string_to_array(p_text, ',') loop
    v_values := fleet.cron_term_values(p_field, v_term);
    if v_values is null then
      return null;
    end if;
    v_all := v_all || v_values;
  end loop;

  return array(select distinct v from unnest(v_all) as v order by v);
end;
$$;

comment on function fleet.cron_field_values(integer, text) is
  'The sorted values that one cron field allows; null where the field is not valid.';
revoke all on function fleet.cron_field_values(integer, text) from public, anon, authenticated, service_role;
grant execute on function fleet.cron_field_values(integer, text) to authenticated, service_role;

create or replace function fleet.cron_term_values(p_field integer, p_term text)
returns integer[]
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  v_lowest  constant integer := (array[0, 0, 0, 1, 1, 0])[p_field + 1];
  v_highest constant integer := (array[59, 59, 23, 31, 12, 7])[p_field + 1];
  v_first   integer;
  v_last    integer;
begin
  if p_term = '*' then
    return array(select generate_series(v_lowest, v_highest));
  elsif strpos(p_term, '/') > 0 then
    return fleet.cron_stepped_values(p_field, p_term);
  elsif p_field = 3 and strpos(p_term, 'L') + strpos(p_term, 'W') > 0 then
    return fleet.cron_special_day(p_term);
  elsif p_field = 5 and p_term ~ '(L$|#)' then
    return fleet.cron_special_weekday(p_term);
  elsif strpos(p_term, '-') > 0 then
    v_first := fleet.cron_number(p_field, split_part(p_term, '-', 1));
    v_last := fleet.cron_number(p_field, substr(p_term, strpos(p_term, '-') + 1));
    if v_first <= v_last then
      return array(select generate_series(v_first, v_last));
    end if;
    return null;
  end if;

  v_first := fleet.cron_number(p_field, p_term);
  return case when v_first is not null then array[v_first] end;
end;
$$;

comment on function fleet.cron_term_values(integer, text) is
  'The values of one comma-free term of a cron field; null where it is not valid.';
revoke all on function fleet.cron_term_values(integer, text) from public, anon, authenticated, service_role;
grant execute on function fleet.cron_term_values(integer, text) to authenticated, service_role;

create or replace function fleet.cron_stepped_values(p_field integer, p_term text)
returns integer[]
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  v_highest constant integer := (array[59, 59, 23, 31, 12, 7])[p_field + 1];
  v_base    text := split_part(p_term, '/', 1);
  v_step    integer := fleet.cron_integer(substr(p_term, strpos(p_term, '/') + 1));
  v_values  integer[];
begin
  if v_step is null or v_step = 0 or (p_field = 5 and v_base ~ '[L#]') then
    return null;
  end if;

  v_values := fleet.cron_term_values(p_field, v_base);
  if v_values is null or v_values && array[100, 200] then
    -- The last day is one day whatever the step.
    return v_values;
  elsif v_values[1] > 99 then
    return null;
  elsif cardinality(v_values) = 1 then
    v_values := array(select generate_series(v_values[1], v_highest));
  end if;

  return array(
    select v.value from unnest(v_values) with ordinality as v (value, place)
    where (v.place - 1) % v_step = 0
  );
end;
$$;

comment on function fleet.cron_stepped_values(integer, text) is
  'The values of a term with a step: every step-th of a range or of *, or from one number to the end of '
  'the field.';
revoke all on function fleet.cron_stepped_values(integer, text) from public, anon, authenticated, service_role;
grant execute on function fleet.cron_stepped_values(integer, text) to authenticated, service_role;

create or replace function fleet.cron_special_day(p_term text)
returns integer[]
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  v_number integer;
begin
  if p_term = 'L' then
    return array[100];
  elsif p_term = 'LW' then
    return array[200];
  elsif p_term ~ '^L-[0-9]+$' then
    v_number := fleet.cron_integer(substr(p_term, 3));
    return case when v_number between 1 and 30 then array[100 + v_number] end;
  elsif p_term ~ '^[0-9]+W$' then
    v_number := fleet.cron_number(3, rtrim(p_term, 'W'));
    return case when v_number is not null then array[200 + v_number] end;
  end if;
  return null;
end;
$$;

comment on function fleet.cron_special_day(text) is
  'The code of L, L-n, LW or nW in the day-of-month field; null for anything else.';
revoke all on function fleet.cron_special_day(text) from public, anon, authenticated, service_role;
grant execute on function fleet.cron_special_day(text) to authenticated, service_role;

create or replace function fleet.cron_special_weekday(p_term text)
returns integer[]
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  v_weekday integer;
  v_nth     integer;
begin
  if strpos(p_term, '#') > 0 then
    v_weekday := fleet.cron_number(5, split_part(p_term, '#', 1));
    v_nth := fleet.cron_integer(substr(p_term, strpos(p_term, '#') + 1));
    -- Sunday is 7 here: 0#1 would be coded as a plain 1.
    return case
      when v_nth between 1 and 5 and v_weekday is not null
        then array[10 * coalesce(nullif(v_weekday, 0), 7) + v_nth]
    end;
  elsif p_term ~ '^[0-9]+L$' then
    v_weekday := fleet.cron_number(5, rtrim(p_term, 'L'));
    return case when v_weekday is not null then array[90 + coalesce(nullif(v_weekday, 0), 7)] end;
  end if;
  return null;
end;
$$;

comment on function fleet.cron_special_weekday(text) is
  'The code of n#k or nL in the day-of-week field; null for anything else.';
revoke all on function fleet.cron_special_weekday(text) from public, anon, authenticated, service_role;
grant execute on function fleet.cron_special_weekday(text) to authenticated, service_role;

-- db/sources/20_recurrence/30_cron_expression.sql
-- A whole cron expression: five fields, six with seconds, or a nickname such as @daily.

create or replace function fleet.parse_cron(
  p_expression text,
  out problem text,
  out hint text,
  out seconds integer[],
  out minutes integer[],
  out hours integer[],
  out month_days integer[],
  out months integer[],
  out weekdays integer[],
  out both_days boolean,
  out is_elapsed boolean
)
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  v_parts text[] := fleet.cron_parts(p_expression);
begin
  if v_parts is null then
    problem := format('%s is not a nickname of cron', quote_literal(btrim(p_expression)));
    hint := 'Use @hourly, @daily, @midnight, @weekly, @monthly, @yearly or @annually, or write five fields';
    return;
  elsif cardinality(v_parts) not in (5, 6) then
    problem := format(
      'a cron expression has five fields, or six with seconds; this one has %s', cardinality(v_parts)
    );
    hint := 'Write minute, hour, day of month, month and day of week, such as 30 2 * * 1-5';
    return;
  end if;

  -- Jobs at fixed times get the special care of Debian cron when clocks change; wildcard jobs, and everything with
  -- a seconds field, which that cron does not have, follow elapsed time.
  is_elapsed := cardinality(v_parts) = 6 or v_parts[1] like '*%' or v_parts[2] like '*%';
  if cardinality(v_parts) = 5 then
    v_parts := '0'::text || v_parts;
  end if;

  -- Both day fields must match when one begins with a star, either may when both are restricted.
  both_days := v_parts[4] like '*%' or v_parts[6] like '*%';
  seconds := fleet.cron_field_values(0, v_parts[1]);
  minutes := fleet.cron_field_values(1, v_parts[2]);
  hours := fleet.cron_field_values(2, v_parts[3]);
  month_days := fleet.cron_field_values(3, v_parts[4]);
  months := fleet.cron_field_values(4, v_parts[5]);
  weekdays := fleet.cron_field_values(5, v_parts[6]);

  select f.problem, f.hint into problem, hint
  from fleet.cron_field_problem(
    case
      when seconds is null then 0
      when minutes is null then 1
      when hours is null then 2
      when month_days is null then 3
      when months is null then 4
      when weekdays is null then 5
    end,
    v_parts
  ) as f;
end;
$$;

comment on function fleet.parse_cron(text) is
  'A cron expression as sorted values per field; problem and hint say what is wrong where it is not valid.';
revoke all on function fleet.parse_cron(text) from public, anon, authenticated, service_role;
grant execute on function fleet.parse_cron(text) to authenticated, service_role;

create or replace function fleet.cron_parts(p_expression text)
returns text[]
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  v_expression text := upper(btrim(p_expression, E' \t\r\n\f\v'));
begin
  if v_expression like '@%' then
    v_expression := case v_expression
      when '@HOURLY' then '0 * * * *'
      when '@DAILY' then '0 0 * * *'
      when '@MIDNIGHT' then '0 0 * * *'
      when '@WEEKLY' then '0 0 * * 0'
      when '@MONTHLY' then '0 0 1 * *'
      when '@YEARLY' then '0 0 1 1 *'
      when '@ANNUALLY' then '0 0 1 1 *'
    end;
  elsif v_expression = '' then
    return array[]::text[];
  end if;
  return regexp_split_to_array(v_expression, '\s+');
end;
$$;

comment on function fleet.cron_parts(text) is
  'The fields of a cron expression in upper case, nicknames written out; null for an unknown nickname.';
revoke all on function fleet.cron_parts(text) from public, anon, authenticated, service_role;
grant execute on function fleet.cron_parts(text) to authenticated, service_role;

create or replace function fleet.cron_field_problem(p_field integer, p_parts text[])
returns table (problem text, hint text)
language sql
immutable
parallel safe
set search_path = ''
as $$
  select
    format('the %s field %s is not valid', f.name, quote_literal(lower(p_parts[p_field + 1]))),
    f.hint
  from (
    values
      (0, 'second', 'Seconds are 0-59: write *, */15, 0,30 or 10-20'),
      (1, 'minute', 'Minutes are 0-59: write *, */15, 0,30 or 10-20'),
      (2, 'hour', 'Hours are 0-23: write *, */4, 8,20 or 9-17'),
      (3, 'day-of-month', 'Days are 1-31: write *, 1,15, 1-7, L (last), L-2, LW or 15W'),
      (4, 'month', 'Months are 1-12 or jan-dec: write *, */3, 6,12 or mar-may'),
      (5, 'day-of-week', 'Days are 0-7 (0 and 7 are Sunday) or sun-sat: write *, mon-fri, 2#1 or 5L')
  ) as f (number, name, hint)
  where f.number = p_field
$$;

comment on function fleet.cron_field_problem(integer, text[]) is 'Says what one cron field may contain.';
revoke all on function fleet.cron_field_problem(integer, text[]) from public, anon, authenticated, service_role;
grant execute on function fleet.cron_field_problem(integer, text[]) to authenticated, service_role;

create or replace function fleet.nearest_working_day(
  p_day integer,
  p_month_length integer,
  p_first_weekday integer
)
returns integer
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  v_day     integer := coalesce(nullif(p_day, 0), p_month_length);
  v_weekday integer := (p_first_weekday + v_day - 1) % 7;
begin
  if v_day > p_month_length then
    return null;
  elsif p_day = 0 then
    return v_day - greatest(v_weekday - 4, 0);
  elsif v_weekday = 5 then
    return case when v_day = 1 then 3 else v_day - 1 end;
  elsif v_weekday = 6 then
    return case when v_day = p_month_length then v_day - 2 else v_day + 1 end;
  end if;
  return v_day;
end;
$$;

comment on function fleet.nearest_working_day(integer, integer, integer) is
  'The Monday to Friday nearest to a day without leaving its month; day 0 asks for the last one. Null '
  'where the month has no such day.';
revoke all on function fleet.nearest_working_day(integer, integer, integer)
  from public, anon, authenticated, service_role;
grant execute on function fleet.nearest_working_day(integer, integer, integer) to authenticated, service_role;

create or replace function fleet.month_day_mask(
  p_month_days integer[],
  p_weekdays integer[],
  p_both_days boolean
)
returns text
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  v_ignores_weekdays boolean := p_both_days and p_weekdays @> '{1,2,3,4,5,6}' and p_weekdays && '{0,7}';
begin
  if v_ignores_weekdays and p_month_days[cardinality(p_month_days)] <= 31 then
    return (
      select string_agg(case when d = any (p_month_days) then '1' else '0' end, '' order by d)
      from generate_series(1, 31) as d
    );
  end if;

  -- Weekdays count from 1 (Monday) to 7 here, as in the codes of nth weekdays.
  return (
    select string_agg(
      case
        when d > m.length then '0'
        when case
          when p_both_days then d = any (m.days) and w.codes && p_weekdays
          else d = any (m.days) or w.codes && p_weekdays
        end then '1'
        else '0'
      end,
      '' order by m.first_weekday, m.length, d
    )
    from (
      select f.first_weekday, l.length, array(
        select case
          when v <= 31 then v
          when v < 200 then l.length - (v - 100)
          else fleet.nearest_working_day(v - 200, l.length, f.first_weekday)
        end
        from unnest(p_month_days) as v
      ) as days
      from generate_series(
        0,
        case when v_ignores_weekdays and p_month_days[cardinality(p_month_days)] < 200 then 0 else 6 end
      ) as f (first_weekday)
      cross join (values (28), (29), (30), (31)) as l (length)
    ) as m
    cross join generate_series(1, 31) as d
    cross join lateral (select (m.first_weekday + d - 1) % 7 + 1 as number) as n
    cross join lateral (
      select array[
        n.number, n.number % 7, 10 * n.number + (d + 6) / 7, case when d + 7 > m.length then 90 + n.number else -1 end
      ] as codes
    ) as w
  );
end;
$$;

comment on function fleet.month_day_mask(integer[], integer[], boolean) is
  'The days of a month as 31 flags: once where every month is alike, four times where only its length (28 '
  'to 31) '
  'matters, 28 times where the weekday of its first day (from Monday) matters as well.';
revoke all on function fleet.month_day_mask(integer[], integer[], boolean)
  from public, anon, authenticated, service_role;
grant execute on function fleet.month_day_mask(integer[], integer[], boolean) to authenticated, service_role;

-- db/sources/20_recurrence/40_problems.sql
-- What is wrong with a recurrence: every problem at once, each with its field and the next step.

create or replace function fleet.recurrence_problems(p_type text, p_config jsonb, p_timezone text)
returns table (field text, problem text, hint text)
language plpgsql
stable
set search_path = ''
as $$
declare
  v_type   text := fleet.recurrence_type(p_type);
  v_config jsonb := fleet.recurrence_settings(p_config);
begin
  if v_type is null then
    return query values (
      'recurrence_type',
      coalesce(quote_literal(p_type) || ' is not a recurrence type', 'is missing'),
      'Use once, interval, daily, weekly, monthly or cron'
    );
  end if;

  return query select p.field, p.problem, p.hint from fleet.timezone_problems(p_timezone) as p;

  if v_config is null then
    return query values (
      'recurrence_config', 'must be a JSON object', 'Write an object such as {"time": "02:30"}'
    );
    return;
  end if;

  if v_type is not null and v_config ? 'type'
    and fleet.recurrence_type(v_config ->> 'type') is distinct from v_type
  then
    return query values (
      'recurrence_config.type',
      format('%s is not the recurrence type', quote_literal(v_config ->> 'type')),
      format('Leave it out, or make it %s', quote_literal(v_type))
    );
  end if;

  return query
    select p.field, p.problem, p.hint from fleet.config_key_problems(v_config) as p
    union all
    select p.field, p.problem, p.hint from fleet.config_time_problems(v_config) as p
    union all
    select p.field, p.problem, p.hint from fleet.config_day_problems(v_config) as p
    union all
    select p.field, p.problem, p.hint from fleet.config_every_problems(v_type, v_config) as p
    union all
    select p.field, p.problem, p.hint from fleet.config_cron_problems(v_type, v_config) as p
    union all
    select
      'recurrence_config.end_date',
      format('%s is not a date or time', quote_literal(v_config ->> 'end_date')),
      'Write a date such as 2027-12-31, or a time such as 2027-12-31T18:00:00Z'
    where v_config ? 'end_date'
      and fleet.recurrence_end(v_config ->> 'end_date', 'UTC') is null;
end;
$$;

comment on function fleet.recurrence_problems(text, jsonb, text) is
  'Everything that is wrong with a recurrence, one row per field; no row when it is valid.';
revoke all on function fleet.recurrence_problems(text, jsonb, text) from public, anon, authenticated, service_role;
grant execute on function fleet.recurrence_problems(text, jsonb, text) to authenticated, service_role;

create or replace function fleet.timezone_problems(p_timezone text)
returns table (field text, problem text, hint text)
language sql
stable
set search_path = ''
as $$
  select
    'timezone',
    coalesce(quote_literal(p_timezone) || ' is not a time zone', 'is missing'),
    coalesce(
      'Did you mean ' || (
        select z.name from fleet.time_zones as z where lower(z.name) = lower(btrim(p_timezone)) limit 1
      ) || '?',
      'Use an IANA name such as Europe/Berlin or UTC'
    )
  where p_timezone is null
    or not exists (select 1 from fleet.time_zones as z where z.name = p_timezone)
$$;

comment on function fleet.timezone_problems(text) is
  'Says that a time zone is not in fleet.time_zones, with the right spelling where only upper and lower '
  'case differ.';
revoke all on function fleet.timezone_problems(text) from public, anon, authenticated, service_role;
grant execute on function fleet.timezone_problems(text) to authenticated, service_role;

create or replace function fleet.recurrence_type(p_type text)
returns text
language sql
immutable
parallel safe
return case
  when p_type in ('once', 'interval', 'daily', 'weekly', 'monthly', 'cron') then p_type
  when p_type = 'custom' then 'cron'
end;

comment on function fleet.recurrence_type(text) is
  'The recurrence type by its own name (custom is another word for cron); null where it is none.';
revoke all on function fleet.recurrence_type(text) from public, anon, authenticated, service_role;
grant execute on function fleet.recurrence_type(text) to authenticated, service_role;

create or replace function fleet.recurrence_settings(p_config jsonb)
returns jsonb
language sql
immutable
parallel safe
set search_path = ''
as $$
  select case
    when p_config is null or jsonb_typeof(p_config) = 'null' then '{}'::jsonb
    -- Clients that send every key of their model send null for what is not meant.
    when jsonb_typeof(p_config) = 'object' then jsonb_strip_nulls(p_config)
  end
$$;

comment on function fleet.recurrence_settings(jsonb) is
  'The configuration without nulls, {} for none; null where it is no object.';
revoke all on function fleet.recurrence_settings(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.recurrence_settings(jsonb) to authenticated, service_role;

create or replace function fleet.recurrence_end(p_text text, p_timezone text)
returns timestamptz
language plpgsql
stable
set search_path = ''
as $$
begin
  -- A bare date means the whole of that day.
  if btrim(p_text) ~ '^\d{4}-\d{2}-\d{2}$' then
    return fleet.local_to_instant((p_text::date + 1)::timestamp, p_timezone) - interval '1 microsecond';
  elsif btrim(p_text) !~ '^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}' then
    return null;
  elsif p_text ~ '(Z|z|[+-]\d{2}(:?\d{2})?)\s*$' then
    return p_text::timestamptz;
  end if;
  return fleet.local_to_instant(p_text::timestamp, p_timezone);
exception
  when invalid_datetime_format or datetime_field_overflow or invalid_parameter_value then
    return null;
end;
$$;

comment on function fleet.recurrence_end(text, text) is
  'The last instant that an end_date allows; null where it is no date or time.';
revoke all on function fleet.recurrence_end(text, text) from public, anon, authenticated, service_role;
grant execute on function fleet.recurrence_end(text, text) to authenticated, service_role;

-- db/sources/20_recurrence/45_config_problems.sql
-- The keys of a recurrence configuration, one check per topic. Each reads settings without nulls.

create or replace function fleet.config_key_problems(p_config jsonb)
returns table (field text, problem text, hint text)
language sql
immutable
parallel safe
set search_path = ''
as $$
  select
    'recurrence_config.' || k.name,
    'is not known',
    'Known are type, time, times, every, seconds, minutes, hours, days, weeks, days_of_week, day_of_month, week, '
      || 'day_of_week, cron_expression and end_date'
  from jsonb_object_keys(p_config) as k (name)
  where k.name <> all (array[
    'type', 'time', 'times', 'every', 'seconds', 'minutes', 'hours', 'days', 'weeks', 'days_of_week',
    'day_of_month', 'week', 'day_of_week', 'cron_expression', 'end_date'
  ])
  order by k.name
$$;

comment on function fleet.config_key_problems(jsonb) is 'Names the keys that no recurrence has.';
revoke all on function fleet.config_key_problems(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.config_key_problems(jsonb) to authenticated, service_role;

create or replace function fleet.second_of_day(p_text text)
returns integer
language sql
immutable
parallel safe
set search_path = ''
as $$
  select case
    when p_text ~ '^\s*([01]?\d|2[0-3]):[0-5]\d(:[0-5]\d(\.0+)?)?\s*$'
      then split_part(btrim(p_text), ':', 1)::integer * 3600
        + split_part(btrim(p_text), ':', 2)::integer * 60
        + coalesce(nullif(split_part(split_part(btrim(p_text), ':', 3), '.', 1), ''), '0')::integer
  end
$$;

comment on function fleet.second_of_day(text) is
  'HH:MM or HH:MM:SS as seconds past midnight; null where it is neither.';
revoke all on function fleet.second_of_day(text) from public, anon, authenticated, service_role;
grant execute on function fleet.second_of_day(text) to authenticated, service_role;

create or replace function fleet.weekday_number(p_value jsonb)
returns integer
language sql
immutable
parallel safe
set search_path = ''
as $$
  select case
    when p_value #>> '{}' ~ '^[0-6]$' then (p_value #>> '{}')::integer
    when jsonb_typeof(p_value) = 'string' and length(p_value #>> '{}') >= 3 then (
      select d.number - 1
      from unnest('{monday,tuesday,wednesday,thursday,friday,saturday,sunday}'::text[])
        with ordinality as d (name, number)
      where starts_with(d.name, lower(p_value #>> '{}'))
    )::integer
  end
$$;

comment on function fleet.weekday_number(jsonb) is
  'A weekday as 0 (Monday) to 6 (Sunday), from such a number or an English name; null where it is none.';
revoke all on function fleet.weekday_number(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.weekday_number(jsonb) to authenticated, service_role;

create or replace function fleet.month_day_number(p_value jsonb)
returns integer
language sql
immutable
parallel safe
set search_path = ''
as $$
  select case
    when p_value #>> '{}' in ('last', '-1') then 100
    when p_value #>> '{}' ~ '^([1-9]|[12]\d|3[01])$' then (p_value #>> '{}')::integer
  end
$$;

comment on function fleet.month_day_number(jsonb) is
  'A day of the month, 100 for the last one ("last" or -1); null where it is none.';
revoke all on function fleet.month_day_number(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.month_day_number(jsonb) to authenticated, service_role;

create or replace function fleet.week_of_month(p_value jsonb)
returns integer
language sql
immutable
parallel safe
set search_path = ''
as $$
  select case
    when p_value #>> '{}' in ('last', '-1') then -1
    when p_value #>> '{}' ~ '^[1-5]$' then (p_value #>> '{}')::integer
  end
$$;

comment on function fleet.week_of_month(jsonb) is '1 to 5, or -1 for the last; null where it is neither.';
revoke all on function fleet.week_of_month(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.week_of_month(jsonb) to authenticated, service_role;

create or replace function fleet.as_list(p_value jsonb)
returns setof jsonb
language sql
immutable
parallel safe
set search_path = ''
as $$
  select e.value
  from jsonb_array_elements(
    case when jsonb_typeof(p_value) = 'array' then p_value else jsonb_build_array(p_value) end
  ) as e (value)
  where p_value is not null
$$;

comment on function fleet.as_list(jsonb) is
  'The elements of an array, or the one value that stands for an array of itself.';
revoke all on function fleet.as_list(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.as_list(jsonb) to authenticated, service_role;

create or replace function fleet.config_time_problems(p_config jsonb)
returns table (field text, problem text, hint text)
language sql
immutable
parallel safe
set search_path = ''
as $$
  select
    'recurrence_config.' || k.name,
    format('%s is not a time of day', coalesce(quote_literal(t.value #>> '{}'), 'null')),
    'Write HH:MM or HH:MM:SS, from 00:00 to 23:59:59'
  from (values ('time'), ('times')) as k (name)
  cross join lateral fleet.as_list(p_config -> k.name) as t (value)
  where jsonb_typeof(t.value) <> 'string'
    or fleet.second_of_day(t.value #>> '{}') is null

  union all

  select 'recurrence_config.times', 'is empty', 'Name at least one time, or leave it out'
  where p_config -> 'times' = '[]'

  union all

  select
    'recurrence_config.times',
    'stands beside time',
    'Use time for one time of day or times for several, not both'
  where p_config ?& '{time,times}'
$$;

comment on function fleet.config_time_problems(jsonb) is 'Says what is wrong with time and times.';
revoke all on function fleet.config_time_problems(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.config_time_problems(jsonb) to authenticated, service_role;

create or replace function fleet.config_day_problems(p_config jsonb)
returns table (field text, problem text, hint text)
language sql
immutable
parallel safe
set search_path = ''
as $$
  select
    'recurrence_config.' || k.name,
    format('%s is not a weekday', coalesce(quote_literal(d.value #>> '{}'), 'null')),
    'Weekdays are numbers from 0 (Monday) to 6 (Sunday), or English names'
  from (values ('days_of_week'), ('day_of_week')) as k (name)
  cross join lateral fleet.as_list(p_config -> k.name) as d (value)
  where fleet.weekday_number(d.value) is null

  union all

  select
    'recurrence_config.day_of_month',
    format('%s is not a day of the month', coalesce(quote_literal(d.value #>> '{}'), 'null')),
    'Use 1 to 31, or "last" (also -1) for the last day'
  from fleet.as_list(p_config -> 'day_of_month') as d (value)
  where fleet.month_day_number(d.value) is null

  union all

  select 'recurrence_config.' || k.name, 'is empty', 'Name at least one day, or leave it out'
  from (values ('days_of_week'), ('day_of_week'), ('day_of_month')) as k (name)
  where p_config -> k.name = '[]'

  union all

  select
    'recurrence_config.week',
    format('%s is not a week of the month', quote_literal(p_config ->> 'week')),
    'Use 1 to 5, or -1 for the last'
  where p_config ? 'week' and fleet.week_of_month(p_config -> 'week') is null

  union all

  select
    'recurrence_config.day_of_week',
    'is missing',
    'Say which weekday of that week is meant, from 0 (Monday) to 6 (Sunday)'
  where p_config ? 'week' and not p_config ? 'day_of_week'

  union all

  select
    'recurrence_config.week', 'stands beside day_of_month', 'Use either day_of_month, or week with day_of_week'
  where p_config ?& '{week,day_of_month}'
$$;

comment on function fleet.config_day_problems(jsonb) is
  'Says what is wrong with weekdays, days of the month and weeks.';
revoke all on function fleet.config_day_problems(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.config_day_problems(jsonb) to authenticated, service_role;

-- db/sources/20_recurrence/46_repetition_problems.sql
-- How often: "every" in its meanings, the length of an interval, and the cron expression.

create or replace function fleet.interval_seconds(p_config jsonb)
returns bigint
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  v_seconds numeric := 0::numeric;
  v_every   interval;
  v_unit    record;
begin
  for v_unit in
    select u.name, u.length
    from (
      values ('seconds', 1), ('minutes', 60), ('hours', 3600), ('days', 86400), ('weeks', 604800)
    ) as u (name, length)
    where p_config ? u.name
  loop
    if p_config ->> v_unit.name !~ '^\d{1,9}$' then
      return null;
    end if;
    v_seconds := v_seconds + (p_config ->> v_unit.name)::numeric * v_unit.length;
  end loop;

  if p_config ? 'every' then
    v_every := fleet.parse_interval(p_config ->> 'every');
    -- A month has no fixed length in elapsed time.
    if v_every is null or jsonb_typeof(p_config -> 'every') <> 'string' or date_part('month', v_every) <> 0
      or date_part('year', v_every) <> 0
    then
      return null;
    end if;
    v_seconds := v_seconds + extract(epoch from v_every);
  end if;

  return case
    when v_seconds >= 1 and v_seconds = trunc(v_seconds) and v_seconds < 1e11 then v_seconds::bigint
  end;
end;
$$;

comment on function fleet.interval_seconds(jsonb) is
  'The length of an interval recurrence in whole seconds of elapsed time; null where the configuration '
  'gives none.';
revoke all on function fleet.interval_seconds(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.interval_seconds(jsonb) to authenticated, service_role;

create or replace function fleet.parse_interval(p_text text)
returns interval
language plpgsql
immutable
set search_path = ''
as $$
begin
  return p_text::interval;
exception
  when invalid_datetime_format or datetime_field_overflow or interval_field_overflow then
    return null;
end;
$$;

comment on function fleet.parse_interval(text) is
  'Text such as 15 minutes or PT15M as an interval; null where it is none.';
revoke all on function fleet.parse_interval(text) from public, anon, authenticated, service_role;
grant execute on function fleet.parse_interval(text) to authenticated, service_role;

create or replace function fleet.config_every_problems(p_type text, p_config jsonb)
returns table (field text, problem text, hint text)
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  v_is_set constant boolean := p_config ?| '{every,seconds,minutes,hours,days,weeks}';
begin
  if p_type is null then
    return;
  elsif p_type = 'interval' then
    if fleet.interval_seconds(p_config) is null then
      return query values (
        'recurrence_config.' || coalesce(
          (
            select k.name
            from unnest('{every,seconds,minutes,hours,days,weeks}'::text[]) as k (name)
            where p_config ? k.name
            limit 1
          ),
          'every'
        ),
        case when v_is_set then 'is not a length of whole seconds, at least one' else 'is missing' end,
        'Write {"every": "15 minutes"} or {"seconds": 900}; months have no fixed length, use monthly for them'
      );
    end if;
    return;
  end if;

  if p_config ? 'every' and coalesce(p_config ->> 'every' !~ '^[1-9]\d{0,3}$', true) then
    return query values (
      'recurrence_config.every',
      format('%s is not a whole number from 1 to 9999', quote_literal(p_config ->> 'every')),
      'Write 2 for every other day, week or month; for a length of time use the recurrence type interval'
    );
  end if;
end;
$$;

comment on function fleet.config_every_problems(text, jsonb) is
  'Says what is wrong with every and with the length of an interval.';
revoke all on function fleet.config_every_problems(text, jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.config_every_problems(text, jsonb) to authenticated, service_role;

create or replace function fleet.config_cron_problems(p_type text, p_config jsonb)
returns table (field text, problem text, hint text)
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  v_cron record;
begin
  field := 'recurrence_config.cron_expression';

  if p_type is distinct from 'cron' then
    return;
  elsif jsonb_typeof(p_config -> 'cron_expression') is distinct from 'string' then
    problem := case when p_config ? 'cron_expression' then 'is not a text' else 'is missing' end;
    hint := 'Write minute, hour, day of month, month and day of week, such as 30 2 * * 1-5';
    return next;
    return;
  end if;

  v_cron := fleet.parse_cron(p_config ->> 'cron_expression');
  problem := v_cron.problem;
  hint := v_cron.hint;

  -- A plain day up to the 28th comes every month, on every weekday in time.
  if problem is null and not (v_cron.month_days[1] <= 28 and v_cron.weekdays[1] <= 7) and not fleet.has_cron_day(
    fleet.month_day_mask(v_cron.month_days, v_cron.weekdays, v_cron.both_days), v_cron.months
  ) then
    problem := 'no day ever matches the day-of-month, month and day-of-week fields';
    hint := 'Choose a day that exists in one of the months, or L for the last day';
  end if;

  if problem is not null then
    return next;
  end if;
end;
$$;

comment on function fleet.config_cron_problems(text, jsonb) is 'Says what is wrong with a cron expression.';
revoke all on function fleet.config_cron_problems(text, jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.config_cron_problems(text, jsonb) to authenticated, service_role;

create or replace function fleet.has_cron_day(p_mask text, p_months integer[])
returns boolean
language sql
immutable
parallel safe
set search_path = ''
as $$
  select exists (
    select 1
    from unnest(p_months) as m (month)
    cross join lateral generate_series(
      case when m.month = 2 then 28 else (array[31, 0, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])[m.month] end,
      case when m.month = 2 then 29 else (array[31, 0, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])[m.month] end
    ) as l (length)
    cross join generate_series(0, 6) as w
    where strpos(
      substr(
        p_mask,
        case length(p_mask)
          when 31 then 1
          when 124 then (l.length - 28) * 31 + 1
          else (w * 4 + l.length - 28) * 31 + 1
        end,
        l.length
      ),
      '1'
    ) > 0
  )
$$;

comment on function fleet.has_cron_day(text, integer[]) is
  'Whether a mask of month days has a day in any of the months, in some year.';
revoke all on function fleet.has_cron_day(text, integer[]) from public, anon, authenticated, service_role;
grant execute on function fleet.has_cron_day(text, integer[]) to authenticated, service_role;

-- db/sources/20_recurrence/50_compile.sql
-- Compiling a recurrence once, when it is written, so that nothing is parsed when it is read.
--
-- Beside what was asked for (type, timezone, start, end, config, gap, fold) the compiled object holds
--   kind             once, interval or calendar
--   clock            the zone as Postgres must be told it (see fleet.zone_clock)
--   interval_seconds for an interval
--   day_rule         how the days of a calendar recurrence are found:
--                      every: each every-th day from day number anchor
--                      weekdays: seven flags from Monday, in each every-th week from week number anchor
--                      month_days: twelve flags in months, and a mask of days (see fleet.month_day_mask), in each
--                      every-th month from month number anchor (year * 12 + month - 1)
--   times            seconds past midnight, or the flags hours, minutes and seconds
--   is_elapsed       true for a cron wildcard job, which follows elapsed time
--   resolve_gap, resolve_fold   the rules that apply; elapsed time skips gaps and knows both of two equal times

create or replace function fleet.compile_recurrence(
  p_type text,
  p_config jsonb,
  p_timezone text,
  p_start timestamptz,
  p_end timestamptz,
  p_gap text default 'first_instant',
  p_fold text default 'first'
)
returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  v_type    text := fleet.recurrence_type(p_type);
  v_config  jsonb := fleet.recurrence_settings(p_config);
  v_end     timestamptz := nullif(p_end, 'infinity');
  v_problem record;
begin
  select p.field, p.problem, p.hint into v_problem
  from (
    select * from fleet.recurrence_problems(p_type, p_config, p_timezone)
    union all
    select * from fleet.bounds_problems(v_type, v_config, p_timezone, p_start, p_end)
    union all
    select * from fleet.rule_problems(p_gap, p_fold)
  ) as p
  limit 1;

  if found then
    raise exception '%: %', v_problem.field, v_problem.problem
      using errcode = 'PT422',
            detail = 'recurrence_invalid',
            hint = v_problem.hint;
  end if;

  if v_config ? 'end_date' then
    v_end := least(v_end, fleet.recurrence_end(v_config ->> 'end_date', p_timezone));
  end if;

  return jsonb_build_object(
    'type', v_type,
    'timezone', p_timezone,
    'clock', fleet.zone_clock(p_timezone),
    'start', fleet.instant_text(p_start),
    'end', fleet.instant_text(v_end),
    'config', v_config,
    'gap', p_gap,
    'fold', p_fold
  ) || case v_type
    when 'once' then '{"kind": "once"}'::jsonb
    when 'interval' then jsonb_build_object('kind', 'interval', 'interval_seconds', fleet.interval_seconds(v_config))
    when 'cron' then fleet.compiled_cron(v_config ->> 'cron_expression', p_gap, p_fold)
    else fleet.compiled_calendar(v_type, v_config, p_start at time zone fleet.zone_clock(p_timezone), p_gap, p_fold)
  end;
end;
$$;

comment on function fleet.compile_recurrence(text, jsonb, text, timestamptz, timestamptz, text, text) is
  'Validate a recurrence and compile it for next_occurrence and occurrences. Start and end are inclusive. '
  'Raises recurrence_invalid (PT422) with the first problem; recurrence_problems lists them all.';
revoke all on function fleet.compile_recurrence(text, jsonb, text, timestamptz, timestamptz, text, text)
  from public, anon, authenticated, service_role;
grant execute on function fleet.compile_recurrence(text, jsonb, text, timestamptz, timestamptz, text, text)
  to authenticated, service_role;

create or replace function fleet.instant_text(p_instant timestamptz)
returns text
language sql
immutable
parallel safe
return to_char(p_instant at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US') || '+00:00';

comment on function fleet.instant_text(timestamptz) is
  'An instant as text in UTC, whatever the zone of the session.';
revoke all on function fleet.instant_text(timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.instant_text(timestamptz) to authenticated, service_role;

create or replace function fleet.bounds_problems(
  p_type text,
  p_config jsonb,
  p_timezone text,
  p_start timestamptz,
  p_end timestamptz
)
returns table (field text, problem text, hint text)
language plpgsql
stable
set search_path = ''
as $$
declare
  v_leans_on_start boolean := case p_type
    when 'once' then true
    when 'interval' then true
    when 'cron' then false
    else not p_config ?| '{time,times}'
      or (p_config ? 'every' and p_config ->> 'every' <> '1')
      or (p_type = 'weekly' and not p_config ? 'days_of_week')
      or (p_type = 'monthly' and not p_config ?| '{day_of_month,week}')
  end;
begin
  if p_start is null and v_leans_on_start then
    return query values ('start_time', 'is missing', 'This recurrence counts from its start: give it one');
  elsif p_start in ('infinity', '-infinity') or p_end = '-infinity' then
    return query values (
      case when p_end = '-infinity' then 'end_time' else 'start_time' end,
      'is not a moment in time', 'Give a date and time'
    );
  elsif p_end < p_start then
    return query values ('end_time', 'lies before the start', 'Give an end after the start, or none');
  elsif fleet.recurrence_end(p_config ->> 'end_date', p_timezone) < p_start then
    return query values (
      'recurrence_config.end_date', 'lies before the start', 'Give an end after the start, or none'
    );
  end if;
end;
$$;

comment on function fleet.bounds_problems(text, jsonb, text, timestamptz, timestamptz) is
  'Says what is wrong with start and end of a recurrence.';
revoke all on function fleet.bounds_problems(text, jsonb, text, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.bounds_problems(text, jsonb, text, timestamptz, timestamptz)
  to authenticated, service_role;

create or replace function fleet.rule_problems(p_gap text, p_fold text)
returns table (field text, problem text, hint text)
language sql
immutable
parallel safe
set search_path = ''
as $$
  select
    'gap',
    coalesce(quote_literal(p_gap) || ' is not a gap rule', 'is missing'),
    'Use first_instant, shift or skip'
  where p_gap is null or p_gap <> all ('{first_instant,shift,skip}')

  union all

  select
    'fold',
    coalesce(quote_literal(p_fold) || ' is not a fold rule', 'is missing'),
    'Use first, second or both'
  where p_fold is null or p_fold <> all ('{first,second,both}')
$$;

comment on function fleet.rule_problems(text, text) is
  'Says what is wrong with the rules for skipped and repeated times.';
revoke all on function fleet.rule_problems(text, text) from public, anon, authenticated, service_role;
grant execute on function fleet.rule_problems(text, text) to authenticated, service_role;

-- db/sources/20_recurrence/51_compile_calendar.sql
-- Compiling the recurrences that follow a calendar.

create or replace function fleet.flags(p_values integer[], p_from integer, p_to integer)
returns text
language sql
immutable
parallel safe
set search_path = ''
as $$
  select string_agg(case when n = any (p_values) then '1' else '0' end, '' order by n)
  from generate_series(p_from, p_to) as n
$$;

comment on function fleet.flags(integer[], integer, integer) is
  'A set of numbers as text of 0 and 1, one for each number of the range.';
revoke all on function fleet.flags(integer[], integer, integer) from public, anon, authenticated, service_role;
grant execute on function fleet.flags(integer[], integer, integer) to authenticated, service_role;

create or replace function fleet.compiled_cron(p_expression text, p_gap text, p_fold text)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  v_cron  record := fleet.parse_cron(p_expression);
  v_times jsonb;
begin
  -- A short list of times is quicker to read than flags.
  if not v_cron.is_elapsed and cardinality(v_cron.hours) * cardinality(v_cron.minutes) <= 24 then
    v_times := jsonb_build_object(
      'times', (
        select jsonb_agg(h * 3600 + m * 60 order by h, m)
        from unnest(v_cron.hours) as h
        cross join unnest(v_cron.minutes) as m
      )
    );
  else
    v_times := jsonb_build_object(
      'hours', fleet.flags(v_cron.hours, 0, 23),
      'minutes', fleet.flags(v_cron.minutes, 0, 59),
      'seconds', fleet.flags(v_cron.seconds, 0, 59)
    );
  end if;

  return jsonb_build_object(
    'kind', 'calendar',
    'is_elapsed', v_cron.is_elapsed,
    'resolve_gap', case when v_cron.is_elapsed then 'skip' else p_gap end,
    'resolve_fold', case when v_cron.is_elapsed then 'both' else p_fold end
  ) || v_times || fleet.compiled_cron_days(
    v_cron.month_days, v_cron.months, v_cron.weekdays, v_cron.both_days
  );
end;
$$;

comment on function fleet.compiled_cron(text, text, text) is 'The compiled part of a cron recurrence.';
revoke all on function fleet.compiled_cron(text, text, text) from public, anon, authenticated, service_role;
grant execute on function fleet.compiled_cron(text, text, text) to authenticated, service_role;

create or replace function fleet.compiled_cron_days(
  p_month_days integer[],
  p_months integer[],
  p_weekdays integer[],
  p_both_days boolean
)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  v_every_month_day constant boolean := cardinality(p_month_days) >= 31 and p_month_days[31] = 31;
  v_every_weekday   constant boolean := p_weekdays @> '{1,2,3,4,5,6}' and p_weekdays && '{0,7}';
begin
  if cardinality(p_months) = 12 then
    if (v_every_month_day and v_every_weekday)
      or (not p_both_days and (v_every_month_day or v_every_weekday))
    then
      return '{"day_rule": "every", "every": 1, "anchor": 0}'::jsonb;
    elsif v_every_month_day and p_both_days and p_weekdays[cardinality(p_weekdays)] <= 7 then
      return jsonb_build_object(
        'day_rule', 'weekdays',
        'weekdays', fleet.flags(p_weekdays || (case when 0 = any (p_weekdays) then 7 end), 1, 7),
        'every', 1,
        'anchor', 0
      );
    end if;
  end if;

  return jsonb_build_object(
    'day_rule', 'month_days',
    'months', fleet.flags(p_months, 1, 12),
    'month_days', fleet.month_day_mask(p_month_days, p_weekdays, p_both_days),
    'every', 1,
    'anchor', 0
  );
end;
$$;

comment on function fleet.compiled_cron_days(integer[], integer[], integer[], boolean) is
  'The day rule of a cron expression, in the simplest form that says the same.';
revoke all on function fleet.compiled_cron_days(integer[], integer[], integer[], boolean)
  from public, anon, authenticated, service_role;
grant execute on function fleet.compiled_cron_days(integer[], integer[], integer[], boolean)
  to authenticated, service_role;

create or replace function fleet.compiled_calendar(
  p_type text,
  p_config jsonb,
  p_local_start timestamp,
  p_gap text,
  p_fold text
)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  v_start_day integer := p_local_start::date - date '0001-01-01';
  v_every     integer := coalesce((p_config ->> 'every')::integer, 1);
  v_times     jsonb;
  v_days      jsonb;
begin
  select jsonb_agg(t.second order by t.second) into v_times
  from (
    select distinct fleet.second_of_day(e.value #>> '{}') as second
    from fleet.as_list(
      coalesce(p_config -> 'times', p_config -> 'time', to_jsonb(to_char(p_local_start, 'HH24:MI:SS')))
    ) as e (value)
  ) as t;

  v_days := case p_type
    when 'daily' then jsonb_build_object('day_rule', 'every', 'anchor', v_start_day)
    when 'weekly' then jsonb_build_object(
      'day_rule', 'weekdays',
      'weekdays', fleet.flags(
        array(
          select fleet.weekday_number(e.value)
          from fleet.as_list(coalesce(p_config -> 'days_of_week', to_jsonb(v_start_day % 7))) as e (value)
        ),
        0,
        6
      ),
      'anchor', v_start_day / 7
    )
    when 'monthly' then jsonb_build_object(
      'day_rule', 'month_days',
      'months', repeat('1', 12),
      'month_days', fleet.compiled_month_days(p_config, date_part('day', p_local_start)::integer),
      'anchor', date_part('year', p_local_start) * 12 + date_part('month', p_local_start) - 1
    )
  end;

  -- Without a start every-th is always 1 and any anchor does.
  return jsonb_build_object(
    'kind', 'calendar',
    'times', v_times,
    'every', v_every,
    'resolve_gap', p_gap,
    'resolve_fold', p_fold
  ) || jsonb_build_object('anchor', 0) || jsonb_strip_nulls(v_days);
end;
$$;

comment on function fleet.compiled_calendar(text, jsonb, timestamp, text, text) is
  'The compiled part of a daily, weekly or monthly recurrence; what is not said comes from the local start.';
revoke all on function fleet.compiled_calendar(text, jsonb, timestamp, text, text)
  from public, anon, authenticated, service_role;
grant execute on function fleet.compiled_calendar(text, jsonb, timestamp, text, text) to authenticated, service_role;

create or replace function fleet.compiled_month_days(p_config jsonb, p_start_day integer)
returns text
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  v_week integer := fleet.week_of_month(p_config -> 'week');
begin
  if v_week is not null then
    return fleet.month_day_mask(
      array(select generate_series(1, 31)),
      array(
        select case v_week when -1 then 91 + w.number else 10 * (w.number + 1) + v_week end
        from fleet.as_list(p_config -> 'day_of_week') as e (value)
        cross join lateral fleet.weekday_number(e.value) as w (number)
      ),
      true
    );
  end if;

  return fleet.month_day_mask(
    array(
      select distinct fleet.month_day_number(e.value)
      from fleet.as_list(coalesce(p_config -> 'day_of_month', to_jsonb(p_start_day))) as e (value)
      order by 1
    ),
    array(select generate_series(0, 7)),
    true
  );
end;
$$;

comment on function fleet.compiled_month_days(jsonb, integer) is
  'The mask of days of a monthly recurrence; without day and week the day of its start.';
revoke all on function fleet.compiled_month_days(jsonb, integer) from public, anon, authenticated, service_role;
grant execute on function fleet.compiled_month_days(jsonb, integer) to authenticated, service_role;

-- db/sources/20_recurrence/60_local_days.sql
-- The days and times that a compiled calendar recurrence names, still in local time. Days are numbers since
-- 0001-01-01 (a Monday), times are local seconds since then.

create or replace function fleet.flag_numbers(p_flags text)
returns integer[]
language sql
immutable
parallel safe
set search_path = ''
as $$
  select array(
    select n - 1 from generate_series(1, length(p_flags)) as n where substr(p_flags, n, 1) = '1' order by n
  )
$$;

comment on function fleet.flag_numbers(text) is
  'The places, counted from 0, at which a text of flags has a 1.';
revoke all on function fleet.flag_numbers(text) from public, anon, authenticated, service_role;
grant execute on function fleet.flag_numbers(text) to authenticated, service_role;

create or replace function fleet.month_flags(p_mask text, p_first_day integer, p_length integer)
returns text
language sql
immutable
parallel safe
return substr(
  p_mask,
  case length(p_mask)
    when 31 then 1
    when 124 then (p_length - 28) * 31 + 1
    else (p_first_day % 7 * 4 + p_length - 28) * 31 + 1
  end,
  p_length
);

comment on function fleet.month_flags(text, integer, integer) is
  'The part of a mask of month days that holds for a month with this first day number and length.';
revoke all on function fleet.month_flags(text, integer, integer) from public, anon, authenticated, service_role;
grant execute on function fleet.month_flags(text, integer, integer) to authenticated, service_role;

create or replace function fleet.month_start(p_month integer)
returns integer
language sql
immutable
parallel safe
return make_date(p_month / 12, p_month % 12 + 1, 1) - date '0001-01-01';

comment on function fleet.month_start(integer) is
  'The day number of the first of a month; months count as year * 12 + month - 1.';
revoke all on function fleet.month_start(integer) from public, anon, authenticated, service_role;
grant execute on function fleet.month_start(integer) to authenticated, service_role;

create or replace function fleet.month_of_day(p_day integer)
returns integer
language sql
immutable
parallel safe
return (
  date_part('year', date '0001-01-01' + p_day) * 12 + date_part('month', date '0001-01-01' + p_day)
)::integer - 1;

comment on function fleet.month_of_day(integer) is 'The month of a day number, as year * 12 + month - 1.';
revoke all on function fleet.month_of_day(integer) from public, anon, authenticated, service_role;
grant execute on function fleet.month_of_day(integer) to authenticated, service_role;

create or replace function fleet.matching_days(p_recurrence jsonb, p_first integer, p_last integer)
returns setof integer
language plpgsql
immutable
strict
parallel safe
set search_path = ''
as $$
declare
  v_rule   text := p_recurrence ->> 'day_rule';
  v_every  integer := (p_recurrence ->> 'every')::integer;
  v_anchor integer := (p_recurrence ->> 'anchor')::integer;
  v_flags  text := p_recurrence ->> 'weekdays';
  v_day    integer;
begin
  if v_rule = 'every' then
    return query
      select d.day
      from generate_series(
        p_first + ((v_anchor - p_first) % v_every + v_every) % v_every, p_last, v_every
      ) as d (day);

  elsif v_rule = 'weekdays' then
    return query
      select d.day
      from generate_series(p_first, p_last) as d (day)
      where substr(v_flags, d.day % 7 + 1, 1) = '1'
        and (d.day / 7 - v_anchor) % v_every = 0;

  else
    v_day := fleet.next_month_day(p_recurrence, p_first);
    while v_day <= p_last loop
      return next v_day;
      v_day := fleet.next_month_day(p_recurrence, v_day + 1);
    end loop;
  end if;
end;
$$;

comment on function fleet.matching_days(jsonb, integer, integer) is
  'The day numbers from p_first to p_last on which a compiled calendar recurrence runs, in order.';
revoke all on function fleet.matching_days(jsonb, integer, integer) from public, anon, authenticated, service_role;
grant execute on function fleet.matching_days(jsonb, integer, integer) to authenticated, service_role;

create or replace function fleet.matching_slots(p_recurrence jsonb, p_from bigint, p_to bigint)
returns setof bigint
language plpgsql
immutable
strict
parallel safe
set search_path = ''
as $$
declare
  v_first integer := (p_from / 86400)::integer;
  v_last  integer := ((p_to - 1) / 86400)::integer;
begin
  if p_from >= p_to then
    return;
  end if;

  if p_recurrence ? 'times' then
    return query
      select s.second
      from fleet.matching_days(p_recurrence, v_first, v_last) as d (day)
      cross join unnest(array(select jsonb_array_elements(p_recurrence -> 'times')::bigint)) as t (second_of_day)
      cross join lateral (select d.day * 86400::bigint + t.second_of_day) as s (second)
      where s.second >= p_from
        and s.second < p_to
      order by 1;
  else
    return query
      select h.second + m.minute * 60 + s.second
      from (
        select d.day * 86400::bigint + h.hour * 3600 as second
        from fleet.matching_days(p_recurrence, v_first, v_last) as d (day)
        cross join unnest(fleet.flag_numbers(p_recurrence ->> 'hours')) as h (hour)
        where d.day * 86400::bigint + h.hour * 3600 > p_from - 3600
          and d.day * 86400::bigint + h.hour * 3600 < p_to
        offset 0
      ) as h
      cross join unnest(fleet.flag_numbers(p_recurrence ->> 'minutes')) as m (minute)
      cross join unnest(fleet.flag_numbers(p_recurrence ->> 'seconds')) as s (second)
      where h.second + m.minute * 60 + s.second >= p_from
        and h.second + m.minute * 60 + s.second < p_to
      order by 1;
  end if;
end;
$$;

comment on function fleet.matching_slots(jsonb, bigint, bigint) is
  'The local seconds in [p_from, p_to) that a compiled calendar recurrence names, in order; clock changes '
  'play no part yet.';
revoke all on function fleet.matching_slots(jsonb, bigint, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.matching_slots(jsonb, bigint, bigint) to authenticated, service_role;

-- db/sources/20_recurrence/65_clock_spans.sql
-- Where local time and elapsed time part. Between two changes of the clocks they run side by side, so each such span
-- is computed at once; the rules for skipped and repeated times only decide where spans begin and end.

create or replace function fleet.clock_spans(
  p_clock text,
  p_gap text,
  p_fold text,
  p_from bigint,
  p_to bigint
)
returns table (
  begins_at bigint,
  ends_at bigint,
  shift bigint,
  skipped_shift bigint,
  is_one_instant boolean
)
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  -- From the Unix epoch to the day from which local seconds count.
  c_epoch  constant bigint := 62135596800;
  v_since  bigint := p_from;
  v_until  bigint;
  v_jump   bigint;
  v_change record;
begin
  shift := c_epoch + fleet.utc_offset(p_clock, p_from - 90000);

  -- Changes up to a day outside the window matter: a time repeated or skipped there may belong to this window.
  for v_change in
    select t.changed_at, t.offset_before, t.offset_after
    from fleet.zone_transitions(p_clock, p_from - 90000, p_to + 90000) as t
  loop
    v_jump := v_change.offset_after - v_change.offset_before;
    -- Under fold = second the first pass of the repeated time stays silent, under fold = first the second pass does.
    v_until := v_change.changed_at + case when p_fold = 'second' then least(v_jump, 0) else 0 end;
    begins_at := greatest(v_since, p_from);
    ends_at := least(v_until, p_to);
    if begins_at < ends_at then
      return next;
    end if;

    v_since := v_change.changed_at - case when p_fold = 'first' then least(v_jump, 0) else 0 end;
    if v_jump > 0 and p_gap <> 'skip' then
      skipped_shift := shift;
      shift := c_epoch + v_change.offset_after;
      is_one_instant := p_gap = 'first_instant';
      v_since := fleet.gap_end(p_gap, v_change.changed_at, v_change.offset_before, v_change.offset_after);

      begins_at := v_change.changed_at;
      ends_at := v_since;
      if not is_one_instant then
        begins_at := greatest(begins_at, p_from);
        ends_at := least(ends_at, p_to);
      end if;
      if begins_at < ends_at and ends_at > p_from and ends_at <= p_to then
        return next;
      end if;
      skipped_shift := null;
      is_one_instant := null;
    end if;
    shift := c_epoch + v_change.offset_after;
  end loop;

  begins_at := greatest(v_since, p_from);
  ends_at := p_to;
  if begins_at < ends_at then
    return next;
  end if;
end;
$$;

comment on function fleet.clock_spans(text, text, text, bigint, bigint) is
  'The spans of [p_from, p_to), in Unix seconds and in order, in which a recurrence may run: local second '
  '= Unix second '
  '+ shift. Behind a gap a span has a second shift for the times that were skipped; under gap = '
  'first_instant all that '
  'such a span names, from its beginning by the second shift to its end by the first, runs once, in its '
  'last second.';
revoke all on function fleet.clock_spans(text, text, text, bigint, bigint)
  from public, anon, authenticated, service_role;
grant execute on function fleet.clock_spans(text, text, text, bigint, bigint) to authenticated, service_role;

create or replace function fleet.gap_end(p_gap text, p_changed_at bigint, p_before bigint, p_after bigint)
returns bigint
language sql
immutable
parallel safe
return p_changed_at + case
  when p_gap = 'shift' then p_after - p_before
  -- Cron looks at its table once a minute, so the first instant is the first whole minute, which belongs to the span.
  else (60 - (p_changed_at + p_after) % 60) % 60 + 1
end;

comment on function fleet.gap_end(text, bigint, bigint, bigint) is
  'The Unix second up to which what was skipped by a gap and what is regular behind it are taken together.';
revoke all on function fleet.gap_end(text, bigint, bigint, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.gap_end(text, bigint, bigint, bigint) to authenticated, service_role;

-- db/sources/20_recurrence/70_occurrences.sql
-- Every occurrence in a window.

create or replace function fleet.occurrences(p_recurrence jsonb, p_from timestamptz, p_to timestamptz)
returns setof timestamptz
language plpgsql
stable
set search_path = ''
as $$
declare
  v_kind  text := p_recurrence ->> 'kind';
  v_start timestamptz := (p_recurrence ->> 'start')::timestamptz;
  v_end   timestamptz := (p_recurrence ->> 'end')::timestamptz;
  v_from  timestamptz := greatest(p_from, v_start);
  -- The end is inclusive, and Postgres counts microseconds.
  v_to    timestamptz := least(p_to, v_end + interval '1 microsecond');
begin
  if v_kind is null then
    return query select o.at from fleet.occurrences(fleet.recompile_recurrence(p_recurrence), p_from, p_to) as o (at);
    return;
  elsif v_from is null or v_to is null or v_from >= v_to then
    return;
  elsif v_kind = 'once' then
    if v_from = v_start then
      return next v_start;
    end if;
    return;
  elsif not isfinite(v_from) or not isfinite(v_to) then
    raise exception 'a recurrence without bounds cannot be listed without a window'
      using errcode = 'PT422',
            detail = 'window_unbounded',
            hint = 'Give a first and a last moment, or use fleet.next_occurrence';
  end if;

  if v_kind = 'interval' then
    return query
      select o.at
      from fleet.interval_occurrences(v_start, (p_recurrence ->> 'interval_seconds')::bigint, v_from, v_to) as o (at);
  else
    return query
      select to_timestamp(o.epoch)
      from fleet.calendar_occurrences(
        p_recurrence,
        ceil(date_part('epoch', v_from))::bigint,
        ceil(date_part('epoch', v_to))::bigint
      ) as o (epoch);
  end if;
end;
$$;

comment on function fleet.occurrences(jsonb, timestamptz, timestamptz) is
  'All occurrences of a compiled recurrence in [p_from, p_to), in order, none twice.';
revoke all on function fleet.occurrences(jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.occurrences(jsonb, timestamptz, timestamptz) to authenticated, service_role;

create or replace function fleet.recompile_recurrence(p_recurrence jsonb)
returns jsonb
language sql
stable
set search_path = ''
as $$
  select fleet.compile_recurrence(
    p_recurrence ->> 'type',
    p_recurrence -> 'config',
    p_recurrence ->> 'timezone',
    (p_recurrence ->> 'start')::timestamptz,
    (p_recurrence ->> 'end')::timestamptz,
    coalesce(p_recurrence ->> 'gap', 'first_instant'),
    coalesce(p_recurrence ->> 'fold', 'first')
  )
$$;

comment on function fleet.recompile_recurrence(jsonb) is
  'Compile a recurrence that was written by hand and so lacks its compiled part.';
revoke all on function fleet.recompile_recurrence(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.recompile_recurrence(jsonb) to authenticated, service_role;

create or replace function fleet.interval_occurrences(
  p_start timestamptz,
  p_seconds bigint,
  p_from timestamptz,
  p_to timestamptz
)
returns setof timestamptz
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  v_first bigint := greatest(0, floor(date_part('epoch', p_from - p_start) / p_seconds)::bigint - 1);
  v_last  bigint := ceil(date_part('epoch', p_to - p_start) / p_seconds)::bigint + 1;
begin
  return query
    select o.at
    from generate_series(v_first, v_last) as n
    cross join lateral (select p_start + n * p_seconds * interval '1 second') as o (at)
    where o.at >= p_from
      and o.at < p_to;
end;
$$;

comment on function fleet.interval_occurrences(timestamptz, bigint, timestamptz, timestamptz) is
  'Every p_seconds of elapsed time from p_start on, within [p_from, p_to).';
revoke all on function fleet.interval_occurrences(timestamptz, bigint, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.interval_occurrences(timestamptz, bigint, timestamptz, timestamptz)
  to authenticated, service_role;

create or replace function fleet.calendar_occurrences(p_recurrence jsonb, p_from bigint, p_to bigint)
returns setof bigint
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  v_span record;
begin
  for v_span in
    select * from fleet.clock_spans(
      p_recurrence ->> 'clock', p_recurrence ->> 'resolve_gap', p_recurrence ->> 'resolve_fold', p_from, p_to
    )
  loop
    if v_span.skipped_shift is null then
      return query
        select s.slot - v_span.shift
        from fleet.matching_slots(
          p_recurrence, v_span.begins_at + v_span.shift, v_span.ends_at + v_span.shift
        ) as s (slot);

    elsif v_span.is_one_instant then
      if fleet.next_slot(p_recurrence, v_span.begins_at + v_span.skipped_shift) < v_span.ends_at + v_span.shift then
        return next v_span.ends_at - 1;
      end if;

    else
      -- What was skipped meets what runs at that time anyway: each instant once.
      return query
        select s.slot - v_span.shift
        from fleet.matching_slots(
          p_recurrence, v_span.begins_at + v_span.shift, v_span.ends_at + v_span.shift
        ) as s (slot)
        union
        select s.slot - v_span.skipped_shift
        from fleet.matching_slots(
          p_recurrence, v_span.begins_at + v_span.skipped_shift, v_span.ends_at + v_span.skipped_shift
        ) as s (slot)
        order by 1;
    end if;
  end loop;
end;
$$;

comment on function fleet.calendar_occurrences(jsonb, bigint, bigint) is
  'The occurrences of a compiled calendar recurrence in [p_from, p_to) of Unix seconds, start and end aside.';
revoke all on function fleet.calendar_occurrences(jsonb, bigint, bigint)
  from public, anon, authenticated, service_role;
grant execute on function fleet.calendar_occurrences(jsonb, bigint, bigint) to authenticated, service_role;

-- db/sources/20_recurrence/71_counting.sql
-- Counting occurrences without listing them to the caller.

create or replace function fleet.count_occurrences(
  p_recurrence jsonb,
  p_from timestamptz,
  p_to timestamptz,
  p_limit bigint default null
)
returns bigint
language plpgsql
stable
set search_path = ''
as $$
declare
  v_start timestamptz := (p_recurrence ->> 'start')::timestamptz;
  v_from  timestamptz := greatest(p_from, v_start);
  v_to    timestamptz := least(p_to, (p_recurrence ->> 'end')::timestamptz + interval '1 microsecond');
  v_width interval := interval '6 hours';
  v_every bigint := (p_recurrence ->> 'interval_seconds')::bigint;
  v_count bigint := 0::bigint;
begin
  if p_recurrence ->> 'kind' = 'interval' and isfinite(v_from) and isfinite(v_to) and v_from < v_to then
    -- Occurrences before the end less those before the beginning.
    return least(
      (
        ceil(extract(epoch from v_to - v_start) / v_every)
        - ceil(extract(epoch from v_from - v_start) / v_every)
      )::bigint,
      p_limit
    );
  elsif p_limit is null or p_recurrence ->> 'kind' = 'once' then
    return least((select count(*) from fleet.occurrences(p_recurrence, p_from, p_to)), p_limit);
  end if;

  -- In growing pieces, so that a small limit never lists a long window.
  while v_count < p_limit and v_from < v_to loop
    v_count := v_count + (
      select count(*) from fleet.occurrences(p_recurrence, v_from, least(v_to, v_from + v_width))
    );
    v_from := v_from + v_width;
    v_width := least(v_width * 2, interval '90000 hours');
  end loop;
  return least(v_count, p_limit);
end;
$$;

comment on function fleet.count_occurrences(jsonb, timestamptz, timestamptz, bigint) is
  'How many occurrences a compiled recurrence has in [p_from, p_to), counting no further than p_limit.';
revoke all on function fleet.count_occurrences(jsonb, timestamptz, timestamptz, bigint)
  from public, anon, authenticated, service_role;
grant execute on function fleet.count_occurrences(jsonb, timestamptz, timestamptz, bigint)
  to authenticated, service_role;

-- db/sources/20_recurrence/72_applied_rule.sql
-- Which rule for skipped or repeated times an occurrence owes its instant to.

create or replace function fleet.applied_rule(p_recurrence jsonb, p_instant timestamptz)
returns text
language plpgsql
stable
set search_path = ''
as $$
declare
  v_clock  text := p_recurrence ->> 'clock';
  v_gap    text := p_recurrence ->> 'resolve_gap';
  v_fold   text := p_recurrence ->> 'resolve_fold';
  v_epoch  bigint := floor(date_part('epoch', p_instant))::bigint;
  v_change record;
  v_slot   bigint;
begin
  -- Wildcard jobs follow elapsed time: for them nothing is skipped and nothing repeated.
  if p_recurrence ->> 'kind' is distinct from 'calendar' or p_recurrence @> '{"is_elapsed": true}' then
    return null;
  end if;

  for v_change in
    select t.changed_at, t.offset_before as before, t.offset_after as after
    from fleet.zone_transitions(v_clock, v_epoch - 90000, v_epoch + 90000) as t
  loop
    if v_change.after > v_change.before then
      if v_gap <> 'skip'
        and v_epoch >= v_change.changed_at
        and v_epoch < fleet.gap_end(v_gap, v_change.changed_at, v_change.before, v_change.after)
      then
        v_slot := case
          when v_gap = 'shift' then v_epoch + v_change.before + 62135596800
          when v_epoch = fleet.gap_end(v_gap, v_change.changed_at, v_change.before, v_change.after) - 1 then (
            select s.slot
            from fleet.matching_slots(
              p_recurrence,
              v_change.changed_at + v_change.before + 62135596800,
              v_change.changed_at + v_change.after + 62135596800
            ) as s (slot)
            limit 1
          )
        end;
        if exists (select 1 from fleet.matching_slots(p_recurrence, v_slot, v_slot + 1)) then
          return 'gap:' || v_gap;
        end if;
      end if;

    elsif v_epoch >= v_change.changed_at - (v_change.before - v_change.after)
      and v_epoch < v_change.changed_at + (v_change.before - v_change.after)
    then
      return 'fold:' || v_fold;
    end if;
  end loop;

  return null;
end;
$$;

comment on function fleet.applied_rule(jsonb, timestamptz) is
  'gap:first_instant or gap:shift when the local time of an occurrence was skipped, fold:first, '
  'fold:second or fold:both '
  'when it came twice, null when the clocks were quiet.';
revoke all on function fleet.applied_rule(jsonb, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.applied_rule(jsonb, timestamptz) to authenticated, service_role;

-- db/sources/20_recurrence/75_next_slot.sql
-- The next day and time that a compiled calendar recurrence names, in local time.

create or replace function fleet.next_slot(p_recurrence jsonb, p_from bigint)
returns bigint
language plpgsql
immutable
strict
parallel safe
set search_path = ''
as $$
declare
  v_today integer := (p_from / 86400)::integer;
  v_day   integer := fleet.next_matching_day(p_recurrence, v_today);
  v_time  integer;
begin
  if v_day = v_today then
    v_time := fleet.next_time_of_day(p_recurrence, (p_from % 86400)::integer);
    if v_time is null then
      v_day := fleet.next_matching_day(p_recurrence, v_today + 1);
    end if;
  end if;

  return v_day * 86400::bigint + coalesce(v_time, fleet.next_time_of_day(p_recurrence, 0));
end;
$$;

comment on function fleet.next_slot(jsonb, bigint) is
  'The first local second from p_from on that a compiled calendar recurrence names; null when there is '
  'none within decades.';
revoke all on function fleet.next_slot(jsonb, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.next_slot(jsonb, bigint) to authenticated, service_role;

create or replace function fleet.next_time_of_day(p_recurrence jsonb, p_from integer)
returns integer
language plpgsql
immutable
strict
parallel safe
set search_path = ''
as $$
declare
  v_times   jsonb := p_recurrence -> 'times';
  v_hours   text;
  v_minutes text;
  v_seconds text;
  v_time    integer;
  v_hour    integer := p_from / 3600;
  v_minute  integer := p_from / 60 % 60;
  v_second  integer := p_from % 60;
begin
  if v_times is not null then
    for v_place in 0..jsonb_array_length(v_times) - 1 loop
      v_time := (v_times -> v_place)::integer;
      if v_time >= p_from then
        return v_time;
      end if;
    end loop;
    return null;
  end if;

  v_hours := p_recurrence ->> 'hours';
  v_minutes := p_recurrence ->> 'minutes';
  v_seconds := p_recurrence ->> 'seconds';

  -- As a clock is read: the first second that fits, else the next minute, else the next hour.
  if substr(v_hours, v_hour + 1, 1) = '1' then
    if substr(v_minutes, v_minute + 1, 1) = '1' then
      v_time := strpos(substr(v_seconds, v_second + 1), '1');
      if v_time > 0 then
        return p_from + v_time - 1;
      end if;
    end if;

    v_time := strpos(substr(v_minutes, v_minute + 2), '1');
    if v_time > 0 then
      return v_hour * 3600 + (v_minute + v_time) * 60 + strpos(v_seconds, '1') - 1;
    end if;
  end if;

  v_time := strpos(substr(v_hours, v_hour + 2), '1');
  if v_time > 0 then
    return (v_hour + v_time) * 3600 + (strpos(v_minutes, '1') - 1) * 60 + strpos(v_seconds, '1') - 1;
  end if;
  return null;
end;
$$;

comment on function fleet.next_time_of_day(jsonb, integer) is
  'The first second of the day from p_from on at which a compiled calendar recurrence runs; null when '
  'that day has none left.';
revoke all on function fleet.next_time_of_day(jsonb, integer) from public, anon, authenticated, service_role;
grant execute on function fleet.next_time_of_day(jsonb, integer) to authenticated, service_role;

create or replace function fleet.next_matching_day(p_recurrence jsonb, p_day integer)
returns integer
language plpgsql
immutable
strict
parallel safe
set search_path = ''
as $$
declare
  v_rule   text := p_recurrence ->> 'day_rule';
  v_every  integer := (p_recurrence ->> 'every')::integer;
  v_anchor integer;
  v_flags  text;
  v_ahead  integer;
  v_week   integer;
begin
  if v_rule = 'month_days' then
    return fleet.next_month_day(p_recurrence, p_day);
  elsif v_every > 1 then
    v_anchor := (p_recurrence ->> 'anchor')::integer;
  end if;

  if v_rule = 'every' then
    if v_every = 1 then
      return p_day;
    end if;
    return p_day + ((v_anchor - p_day) % v_every + v_every) % v_every;
  end if;

  v_flags := p_recurrence ->> 'weekdays';
  if v_every = 1 then
    return p_day + strpos(substr(v_flags || v_flags, p_day % 7 + 1), '1') - 1;
  end if;

  -- The rest of this week if it is one that counts, else the first day of the next that does.
  v_week := p_day / 7;
  if (v_week - v_anchor) % v_every = 0 then
    v_ahead := strpos(substr(v_flags, p_day % 7 + 1), '1');
    if v_ahead > 0 then
      return p_day + v_ahead - 1;
    end if;
    v_week := v_week + 1;
  end if;
  v_week := v_week + ((v_anchor - v_week) % v_every + v_every) % v_every;
  return v_week * 7 + strpos(v_flags, '1') - 1;
end;
$$;

comment on function fleet.next_matching_day(jsonb, integer) is
  'The first day number from p_day on whose day a compiled calendar recurrence names; null when there is '
  'none within decades.';
revoke all on function fleet.next_matching_day(jsonb, integer) from public, anon, authenticated, service_role;
grant execute on function fleet.next_matching_day(jsonb, integer) to authenticated, service_role;

create or replace function fleet.next_month_day(p_recurrence jsonb, p_day integer)
returns integer
language plpgsql
immutable
strict
parallel safe
set search_path = ''
as $$
declare
  v_months text := p_recurrence ->> 'months';
  v_mask   text := p_recurrence ->> 'month_days';
  v_every  integer := (p_recurrence ->> 'every')::integer;
  v_anchor integer := (p_recurrence ->> 'anchor')::integer;
  v_month  integer := fleet.month_of_day(p_day);
  v_from   integer := p_day;
  v_first  integer;
  v_length integer;
  v_flags  text;
  v_place  integer;
begin
  -- 51 years of months: a leap day on a chosen weekday can be 40 years away.
  for v_try in 1..612 loop
    if (v_month - v_anchor) % v_every <> 0 then
      v_month := v_month + ((v_anchor - v_month) % v_every + v_every) % v_every;
    elsif substr(v_months, v_month % 12 + 1, 1) = '0' then
      v_month := v_month + strpos(substr(v_months || v_months, v_month % 12 + 2), '1');
    else
      -- Step by step: Postgres puts a function's body in place only where its arguments are this simple.
      v_first := fleet.month_start(v_month);
      v_length := fleet.month_start(v_month + 1) - v_first;
      v_from := greatest(v_from, v_first);
      v_flags := fleet.month_flags(v_mask, v_first, v_length);
      v_place := strpos(substr(v_flags, v_from - v_first + 1), '1');
      if v_place > 0 then
        return v_from + v_place - 1;
      end if;
      v_month := v_month + v_every;
    end if;
  end loop;
  return null;
end;
$$;

comment on function fleet.next_month_day(jsonb, integer) is
  'The first day number from p_day on that a mask of month days names; null when there is none within 51 '
  'years.';
revoke all on function fleet.next_month_day(jsonb, integer) from public, anon, authenticated, service_role;
grant execute on function fleet.next_month_day(jsonb, integer) to authenticated, service_role;

-- db/sources/20_recurrence/80_next.sql
-- The next occurrence. Far from any change of the clocks it is plain arithmetic; near one, fleet.occurrences decides.

create or replace function fleet.next_occurrence(p_recurrence jsonb, p_after timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = ''
as $$
declare
  v_kind  text := p_recurrence ->> 'kind';
  v_start timestamptz := (p_recurrence ->> 'start')::timestamptz;
  v_after timestamptz := p_after;
  v_next  timestamptz;
begin
  if v_kind is null then
    return fleet.next_occurrence(fleet.recompile_recurrence(p_recurrence), p_after);
  elsif p_after = 'infinity' then
    return null;
  elsif p_after < v_start then
    -- The start itself may be an occurrence.
    v_after := v_start - interval '1 microsecond';
  elsif p_after = '-infinity' then
    v_after := '0001-01-03 00:00:00+00';
  end if;

  if v_kind = 'calendar' then
    v_next := fleet.next_calendar_occurrence(p_recurrence, v_after);
  elsif p_after < v_start then
    v_next := v_start;
  elsif v_kind = 'interval' then
    v_next := fleet.next_in_interval(v_start, (p_recurrence ->> 'interval_seconds')::bigint, p_after);
  end if;

  if v_next > (p_recurrence ->> 'end')::timestamptz then
    return null;
  end if;
  return v_next;
end;
$$;

comment on function fleet.next_occurrence(jsonb, timestamptz) is
  'The first occurrence of a compiled recurrence strictly after p_after; null when there is none.';
revoke all on function fleet.next_occurrence(jsonb, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.next_occurrence(jsonb, timestamptz) to authenticated, service_role;

create or replace function fleet.next_in_interval(p_start timestamptz, p_seconds bigint, p_after timestamptz)
returns timestamptz
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  v_next timestamptz := p_start
    + floor(date_part('epoch', p_after - p_start) / p_seconds) * p_seconds * interval '1 second';
begin
  -- A step back or forth, because seconds since the start are not exact in floating point.
  while v_next <= p_after loop
    v_next := v_next + p_seconds * interval '1 second';
  end loop;
  while v_next - p_seconds * interval '1 second' > p_after loop
    v_next := v_next - p_seconds * interval '1 second';
  end loop;
  return v_next;
end;
$$;

comment on function fleet.next_in_interval(timestamptz, bigint, timestamptz) is
  'The first multiple of p_seconds from p_start on that lies after p_after.';
revoke all on function fleet.next_in_interval(timestamptz, bigint, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.next_in_interval(timestamptz, bigint, timestamptz) to authenticated, service_role;

create or replace function fleet.next_calendar_occurrence(p_recurrence jsonb, p_after timestamptz)
returns timestamptz
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  v_clock  text := p_recurrence ->> 'clock';
  v_epoch  bigint := floor(date_part('epoch', p_after))::bigint;
  v_offset bigint := fleet.utc_offset(v_clock, v_epoch);
  v_local  bigint := v_epoch + v_offset + 62135596800;
  v_slot   bigint := fleet.next_slot(p_recurrence, v_local + 1);
  v_next   bigint;
begin
  if v_slot is null then
    return null;
  end if;

  -- Whether the clocks stand still from a day before to a day after: the widest change there was is a day.
  if v_slot - v_local <= 86400 then
    v_next := v_epoch + v_slot - v_local;
    if fleet.utc_offset(v_clock, v_epoch - 90000) = v_offset
      and fleet.utc_offset(v_clock, v_next + 90000) = v_offset
    then
      return to_timestamp(v_next);
    end if;
  elsif fleet.utc_offset(v_clock, v_epoch - 90000) = v_offset
    and fleet.utc_offset(v_clock, v_epoch + 90000) = v_offset
  then
    -- Far away the clocks may have changed and changed back, so there they are looked at anew.
    v_offset := fleet.utc_offset(v_clock, v_epoch + v_slot - v_local);
    v_next := v_slot - 62135596800 - v_offset;
    if fleet.utc_offset(v_clock, v_next - 90000) = v_offset
      and fleet.utc_offset(v_clock, v_next + 90000) = v_offset
    then
      return to_timestamp(v_next);
    end if;
  end if;

  return fleet.search_occurrence(p_recurrence, v_epoch);
end;
$$;

comment on function fleet.next_calendar_occurrence(jsonb, timestamptz) is
  'The first occurrence of a compiled calendar recurrence after p_after, its start and end aside.';
revoke all on function fleet.next_calendar_occurrence(jsonb, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.next_calendar_occurrence(jsonb, timestamptz) to authenticated, service_role;

create or replace function fleet.search_occurrence(p_recurrence jsonb, p_after bigint)
returns timestamptz
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  v_clock text := p_recurrence ->> 'clock';
  v_from  bigint := p_after + 1;
  v_found bigint;
  v_slot  bigint;
begin
  -- Time and again, because under gap = skip a few of the times may not exist.
  for v_try in 1..500 loop
    v_found := fleet.first_occurrence(p_recurrence, v_from, v_from + 90000);
    if v_found is not null then
      return to_timestamp(v_found);
    end if;

    -- Up to shortly before the next time that is named; a day of clocks set back may lie in between.
    v_from := v_from + 90000;
    v_slot := fleet.next_slot(p_recurrence, v_from + fleet.utc_offset(v_clock, v_from) + 62135596800 - 90000);
    if v_slot is null then
      return null;
    end if;
    v_from := greatest(v_from, v_slot - 62135596800 - 150000);
  end loop;
  return null;
end;
$$;

comment on function fleet.search_occurrence(jsonb, bigint) is
  'The first occurrence after a Unix second near which the clocks change.';
revoke all on function fleet.search_occurrence(jsonb, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.search_occurrence(jsonb, bigint) to authenticated, service_role;

create or replace function fleet.first_occurrence(p_recurrence jsonb, p_from bigint, p_to bigint)
returns bigint
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  v_span    record;
  v_slot    bigint;
  v_skipped bigint;
begin
  for v_span in
    select * from fleet.clock_spans(
      p_recurrence ->> 'clock', p_recurrence ->> 'resolve_gap', p_recurrence ->> 'resolve_fold', p_from, p_to
    )
  loop
    if v_span.is_one_instant then
      if fleet.next_slot(p_recurrence, v_span.begins_at + v_span.skipped_shift) < v_span.ends_at + v_span.shift then
        return v_span.ends_at - 1;
      end if;
      continue;
    end if;

    v_slot := fleet.next_slot(p_recurrence, v_span.begins_at + v_span.shift) - v_span.shift;
    v_skipped := fleet.next_slot(p_recurrence, v_span.begins_at + v_span.skipped_shift) - v_span.skipped_shift;
    if least(v_slot, v_skipped) < v_span.ends_at then
      return least(v_slot, v_skipped);
    end if;
  end loop;
  return null;
end;
$$;

comment on function fleet.first_occurrence(jsonb, bigint, bigint) is
  'The first of fleet.calendar_occurrences in [p_from, p_to), by the same spans; null when there is none.';
revoke all on function fleet.first_occurrence(jsonb, bigint, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.first_occurrence(jsonb, bigint, bigint) to authenticated, service_role;

-- db/sources/20_recurrence/90_words.sql
-- Numbers in English, for descriptions.

create or replace function fleet.english_list(p_words text[], p_joint text default 'and')
returns text
language sql
immutable
parallel safe
set search_path = ''
as $$
  select case
    when cardinality(p_words) <= 1 then p_words[1]
    else array_to_string(p_words[:cardinality(p_words) - 1], ', ') || ' ' || p_joint || ' '
      || p_words[cardinality(p_words)]
  end
$$;

comment on function fleet.english_list(text[], text) is 'Words as a list: "a", "a and b", "a, b and c".';
revoke all on function fleet.english_list(text[], text) from public, anon, authenticated, service_role;
grant execute on function fleet.english_list(text[], text) to authenticated, service_role;

create or replace function fleet.english_ordinal(p_number integer)
returns text
language sql
immutable
parallel safe
return p_number || case
  when p_number % 100 between 11 and 13 then 'th'
  when p_number % 10 = 1 then 'st'
  when p_number % 10 = 2 then 'nd'
  when p_number % 10 = 3 then 'rd'
  else 'th'
end;

comment on function fleet.english_ordinal(integer) is '1st, 2nd, 3rd, 4th, … 11th, … 21st.';
revoke all on function fleet.english_ordinal(integer) from public, anon, authenticated, service_role;
grant execute on function fleet.english_ordinal(integer) to authenticated, service_role;

create or replace function fleet.english_runs(p_numbers integer[], p_names text[])
returns text
language sql
immutable
parallel safe
set search_path = ''
as $$
  -- Numbers that follow each other share their difference to their place.
  with runs as (
    select min(n.number) as first, max(n.number) as last
    from (
      select v.number, v.number - row_number() over (order by v.number) as run
      from unnest(p_numbers) as v (number)
    ) as n
    group by n.run
  ),
  words as (
    select r.first, case
      when r.last - r.first >= 2 then array[p_names[r.first] || ' to ' || p_names[r.last]]
      when r.last > r.first then array[p_names[r.first], p_names[r.last]]
      else array[p_names[r.first]]
    end as words
    from runs as r
  )
  select fleet.english_list(array_agg(u.word order by w.first, u.place))
  from words as w
  cross join unnest(w.words) with ordinality as u (word, place)
$$;

comment on function fleet.english_runs(integer[], text[]) is
  'Numbers by their names (the first name is that of 1), three or more in a row as "Monday to Friday".';
revoke all on function fleet.english_runs(integer[], text[]) from public, anon, authenticated, service_role;
grant execute on function fleet.english_runs(integer[], text[]) to authenticated, service_role;

create or replace function fleet.english_weekdays(p_weekdays integer[])
returns text
language sql
immutable
parallel safe
return fleet.english_runs(
  p_weekdays, '{Monday,Tuesday,Wednesday,Thursday,Friday,Saturday,Sunday}'::text[]
);

comment on function fleet.english_weekdays(integer[]) is 'Weekdays from 1 (Monday) to 7 (Sunday) by name.';
revoke all on function fleet.english_weekdays(integer[]) from public, anon, authenticated, service_role;
grant execute on function fleet.english_weekdays(integer[]) to authenticated, service_role;

create or replace function fleet.english_numbers(p_numbers integer[])
returns text
language sql
immutable
parallel safe
set search_path = ''
as $$
  -- Names count from 1, numbers from 0.
  select fleet.english_runs(
    array(select n + 1 from unnest(p_numbers) as n),
    array(select (n - 1)::text from generate_series(1, 60) as n)
  )
$$;

comment on function fleet.english_numbers(integer[]) is 'Numbers from 0 to 59, three or more in a row as "9 to 17".';
revoke all on function fleet.english_numbers(integer[]) from public, anon, authenticated, service_role;
grant execute on function fleet.english_numbers(integer[]) to authenticated, service_role;

create or replace function fleet.english_length(p_seconds bigint)
returns text
language sql
immutable
parallel safe
set search_path = ''
as $$
  select case
    when s.number = 1 then s.unit
    else s.number || ' ' || s.unit || 's'
  end
  from (
    select p_seconds / u.length as number, u.unit
    from (
      values (604800, 'week'), (86400, 'day'), (3600, 'hour'), (60, 'minute'), (1, 'second')
    ) as u (length, unit)
    where p_seconds % u.length = 0
    order by u.length desc
    limit 1
  ) as s
$$;

comment on function fleet.english_length(bigint) is 'A length of time in its largest whole unit: "day", "90 minutes".';
revoke all on function fleet.english_length(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.english_length(bigint) to authenticated, service_role;

create or replace function fleet.regular_step(p_values integer[], p_size integer)
returns integer
language sql
immutable
parallel safe
set search_path = ''
as $$
  select p_size / cardinality(p_values)
  where cardinality(p_values) > 1
    and p_size % cardinality(p_values) = 0
    and p_values = array(select generate_series(0, p_size - 1, p_size / cardinality(p_values)))
$$;

comment on function fleet.regular_step(integer[], integer) is
  'The step by which values go evenly round a clock of this size from 0 on; null where they do not.';
revoke all on function fleet.regular_step(integer[], integer) from public, anon, authenticated, service_role;
grant execute on function fleet.regular_step(integer[], integer) to authenticated, service_role;

-- db/sources/20_recurrence/91_describe_cron.sql
-- A cron expression in plain English.

create or replace function fleet.describe_cron(p_expression text)
returns text
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  v_cron  record := fleet.parse_cron(p_expression);
  v_times text;
  v_days  text;
begin
  v_times := fleet.describe_cron_times(v_cron.seconds, v_cron.minutes, v_cron.hours);
  v_days := fleet.describe_cron_days(v_cron.month_days, v_cron.weekdays, v_cron.both_days);

  return concat_ws(
    ' ',
    v_times,
    -- "Every 5 minutes" means every day by itself.
    case when v_days <> 'every day' or v_times like 'at __:__%' then v_days end,
    case when cardinality(v_cron.months) < 12 then
      'in ' || fleet.english_runs(
        v_cron.months,
        '{January,February,March,April,May,June,July,August,September,October,November,December}'::text[]
      )
    end
  );
end;
$$;

comment on function fleet.describe_cron(text) is
  'A valid cron expression in English, such as "at 02:30 on Monday to Friday in June".';
revoke all on function fleet.describe_cron(text) from public, anon, authenticated, service_role;
grant execute on function fleet.describe_cron(text) to authenticated, service_role;

create or replace function fleet.describe_cron_times(p_seconds integer[], p_minutes integer[], p_hours integer[])
returns text
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  v_seconds text := fleet.describe_round(p_seconds, 60, 'second');
  v_minutes text := fleet.describe_round(p_minutes, 60, 'minute');
  v_step    integer := fleet.regular_step(p_hours, 24);
begin
  if cardinality(p_seconds) * cardinality(p_minutes) * cardinality(p_hours) <= 6 then
    return 'at ' || fleet.describe_times((
      select jsonb_agg(h * 3600 + m * 60 + s order by h, m, s)
      from unnest(p_hours) as h
      cross join unnest(p_minutes) as m
      cross join unnest(p_seconds) as s
    ));
  end if;

  -- The first second of a minute and the first minute of an hour need no words.
  return concat_ws(
    ' ',
    case when p_seconds <> '{0}' then v_seconds end,
    case
      when p_seconds = '{0}' and p_minutes = '{0}' and v_step is not null then null
      when p_seconds = '{0}' then v_minutes
      when v_seconds like 'every %' and cardinality(p_minutes) = 60 then null
      else 'of ' || regexp_replace(v_minutes, '^at ', '')
    end,
    case
      when p_seconds = '{0}' and p_minutes = '{0}' and v_step is not null then
        fleet.describe_round(p_hours, 24, 'hour')
      when v_step = 1 then case when cardinality(p_minutes) < 60 and v_minutes like 'at %' then 'of every hour' end
      when v_step is not null then format('of every %s hour', fleet.english_ordinal(v_step))
      else
        format('of hour%s %s', case when cardinality(p_hours) > 1 then 's' end, fleet.english_numbers(p_hours))
    end
  );
end;
$$;

comment on function fleet.describe_cron_times(integer[], integer[], integer[]) is
  'The time fields of a cron expression: "at 02:30", "every 5 minutes", "every 10 minutes of hours 9 to 17".';
revoke all on function fleet.describe_cron_times(integer[], integer[], integer[])
  from public, anon, authenticated, service_role;
grant execute on function fleet.describe_cron_times(integer[], integer[], integer[]) to authenticated, service_role;

create or replace function fleet.describe_round(p_values integer[], p_size integer, p_unit text)
returns text
language sql
immutable
parallel safe
set search_path = ''
as $$
  select case
    when s.step = 1 then 'every ' || p_unit
    when s.step is not null then format('every %s %ss', s.step, p_unit)
    else format('at %s %s', case when cardinality(p_values) = 1 then p_unit else p_unit || 's' end, n.numbers)
  end
  from (select fleet.regular_step(p_values, p_size) as step) as s
  cross join (select fleet.english_numbers(p_values) as numbers) as n
$$;

comment on function fleet.describe_round(integer[], integer, text) is
  'One time field: "every minute", "every 5 minutes" or "at minutes 5 and 20".';
revoke all on function fleet.describe_round(integer[], integer, text) from public, anon, authenticated, service_role;
grant execute on function fleet.describe_round(integer[], integer, text) to authenticated, service_role;

create or replace function fleet.describe_cron_days(p_month_days integer[], p_weekdays integer[], p_both_days boolean)
returns text
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  v_every_day     boolean := p_month_days[31] = 31;
  v_every_weekday boolean := p_weekdays @> '{1,2,3,4,5,6}' and p_weekdays && '{0,7}';
  v_month_days    text := 'on the ' || fleet.describe_month_days(p_month_days);
  v_weekdays      text := fleet.describe_cron_weekdays(p_weekdays);
begin
  return case
    when p_both_days and v_every_day and v_every_weekday then 'every day'
    when p_both_days and v_every_day then 'on ' || v_weekdays
    when p_both_days and v_every_weekday then v_month_days || ' of the month'
    when p_both_days then format('%s of the month if that is %s', v_month_days, v_weekdays)
    when v_every_day or v_every_weekday then 'every day'
    else format('%s of the month and on %s', v_month_days, v_weekdays)
  end;
end;
$$;

comment on function fleet.describe_cron_days(integer[], integer[], boolean) is
  'The day fields of a cron expression: "every day", "on Monday to Friday", "on the 13th of the month and on Friday".';
revoke all on function fleet.describe_cron_days(integer[], integer[], boolean)
  from public, anon, authenticated, service_role;
grant execute on function fleet.describe_cron_days(integer[], integer[], boolean) to authenticated, service_role;

create or replace function fleet.describe_cron_weekdays(p_weekdays integer[])
returns text
language sql
immutable
parallel safe
set search_path = ''
as $$
  select fleet.english_list(array_remove(
    fleet.english_weekdays(array(
      select distinct coalesce(nullif(w, 0), 7) from unnest(p_weekdays) as w where w <= 7
    )) || array(
      select case
        when w > 90 then 'the last ' || fleet.english_weekdays(array[w - 90])
        else format('the %s %s', fleet.english_ordinal(w % 10), fleet.english_weekdays(array[w / 10]))
      end
      from unnest(p_weekdays) as w
      where w > 7
      order by w
    ),
    null
  ))
$$;

comment on function fleet.describe_cron_weekdays(integer[]) is
  'Weekdays in the codes of the cron fields, such as "Monday and the last Friday".';
revoke all on function fleet.describe_cron_weekdays(integer[]) from public, anon, authenticated, service_role;
grant execute on function fleet.describe_cron_weekdays(integer[]) to authenticated, service_role;

-- db/sources/20_recurrence/92_describe.sql
-- A recurrence in plain English.

create or replace function fleet.describe_recurrence(p_recurrence jsonb)
returns text
language plpgsql
stable
set search_path = ''
as $$
declare
  v_recurrence jsonb := case
    when p_recurrence ? 'kind' then p_recurrence
    else fleet.recompile_recurrence(p_recurrence)
  end;
  v_type   text := v_recurrence ->> 'type';
  v_config jsonb := v_recurrence -> 'config';
  v_start  text := fleet.local_text(v_recurrence ->> 'start', v_recurrence ->> 'clock');
  v_end    text := fleet.local_text(v_recurrence ->> 'end', v_recurrence ->> 'clock');
begin
  return case
    when v_type = 'once' then 'once, on ' || v_start
    when v_type = 'interval' then
      format('every %s, counted from %s', fleet.english_length((v_recurrence ->> 'interval_seconds')::bigint), v_start)
    when v_type = 'cron' then fleet.describe_cron(v_config ->> 'cron_expression')
    else
      fleet.describe_days(v_type, v_config, (v_recurrence ->> 'start')::timestamptz at time zone (v_recurrence ->> 'clock'))
      || ' at ' || fleet.describe_times(v_recurrence -> 'times')
  end
  || case when v_type <> 'once' and v_end is not null then ', until ' || v_end else '' end
  || format(' (%s)', v_recurrence ->> 'timezone')
  || fleet.describe_rules(v_recurrence);
end;
$$;

comment on function fleet.describe_recurrence(jsonb) is
  'When a recurrence runs, in English, such as "every week on Monday to Friday at 09:00 (Europe/Berlin)".';
revoke all on function fleet.describe_recurrence(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.describe_recurrence(jsonb) to authenticated, service_role;

create or replace function fleet.local_text(p_instant text, p_clock text)
returns text
language sql
stable
set search_path = ''
as $$
  select to_char(l.at, 'YYYY-MM-DD') || ' at ' || case
    when l.at = date_trunc('minute', l.at) then to_char(l.at, 'HH24:MI')
    else to_char(l.at, 'HH24:MI:SS')
  end
  from (select p_instant::timestamptz at time zone p_clock as at) as l
$$;

comment on function fleet.local_text(text, text) is 'An instant as the local date and time of a clock.';
revoke all on function fleet.local_text(text, text) from public, anon, authenticated, service_role;
grant execute on function fleet.local_text(text, text) to authenticated, service_role;

create or replace function fleet.describe_times(p_times jsonb)
returns text
language sql
immutable
parallel safe
set search_path = ''
as $$
  select fleet.english_list(array_agg(
    to_char(t.at, case when date_part('second', t.at) = 0 then 'HH24:MI' else 'HH24:MI:SS' end) order by t.at
  ))
  from (
    select interval '1 second' * e::integer as at from jsonb_array_elements_text(p_times) as e
  ) as t
$$;

comment on function fleet.describe_times(jsonb) is 'Seconds past midnight as times of day.';
revoke all on function fleet.describe_times(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.describe_times(jsonb) to authenticated, service_role;

create or replace function fleet.describe_days(p_type text, p_config jsonb, p_local_start timestamp)
returns text
language plpgsql
stable
set search_path = ''
as $$
declare
  v_every    integer := coalesce((p_config ->> 'every')::integer, 1);
  v_unit     text := case p_type when 'daily' then 'day' when 'weekly' then 'week' else 'month' end;
  v_weekdays text;
  v_week     integer := fleet.week_of_month(p_config -> 'week');
begin
  v_weekdays := fleet.english_weekdays(array(
    select distinct fleet.weekday_number(e.value) + 1
    from fleet.as_list(
      coalesce(
        case p_type when 'weekly' then p_config -> 'days_of_week' else p_config -> 'day_of_week' end,
        to_jsonb((date_part('isodow', p_local_start) - 1)::integer)
      )
    ) as e (value)
  ));

  return case when v_every = 1 then 'every ' || v_unit else format('every %s %ss', v_every, v_unit) end
    || case
      when p_type = 'daily' then ''
      when p_type = 'weekly' then ' on ' || v_weekdays
      when v_week = -1 then ' on the last ' || v_weekdays
      when v_week is not null then format(' on the %s %s', fleet.english_ordinal(v_week), v_weekdays)
      else ' on the ' || fleet.describe_month_days(array(
        select distinct fleet.month_day_number(e.value)
        from fleet.as_list(
          coalesce(p_config -> 'day_of_month', to_jsonb(date_part('day', p_local_start)::integer))
        ) as e (value)
        order by 1
      ))
    end;
end;
$$;

comment on function fleet.describe_days(text, jsonb, timestamp) is
  'The days of a daily, weekly or monthly recurrence, such as "every 2 weeks on Monday".';
revoke all on function fleet.describe_days(text, jsonb, timestamp) from public, anon, authenticated, service_role;
grant execute on function fleet.describe_days(text, jsonb, timestamp) to authenticated, service_role;

create or replace function fleet.describe_month_days(p_month_days integer[])
returns text
language sql
immutable
parallel safe
set search_path = ''
as $$
  select fleet.english_list(array(
    select case
      when d = 100 then 'last day'
      when d between 101 and 130 then
        case d when 101 then 'day' else (d - 100) || ' days' end || ' before the last day'
      when d = 200 then 'last working day'
      when d > 200 then 'working day nearest to the ' || fleet.english_ordinal(d - 200)
      else fleet.english_ordinal(d)
    end
    from unnest(p_month_days) with ordinality as v (d, place)
    order by v.place
  ))
$$;

comment on function fleet.describe_month_days(integer[]) is
  'Days of the month, in the codes of the cron fields, such as "1st, 15th and last day".';
revoke all on function fleet.describe_month_days(integer[]) from public, anon, authenticated, service_role;
grant execute on function fleet.describe_month_days(integer[]) to authenticated, service_role;

create or replace function fleet.describe_rules(p_recurrence jsonb)
returns text
language sql
immutable
parallel safe
set search_path = ''
as $$
  select case
    when p_recurrence ->> 'kind' <> 'calendar' then ''
    when p_recurrence @> '{"is_elapsed": true}' then ''
    else case p_recurrence ->> 'gap'
      when 'shift' then '; a time that the clocks skip runs as much later as they jump'
      when 'skip' then '; a time that the clocks skip does not run'
      else ''
    end || case p_recurrence ->> 'fold'
      when 'second' then '; a time that comes twice runs at the second'
      when 'both' then '; a time that comes twice runs both times'
      else ''
    end
  end
$$;

comment on function fleet.describe_rules(jsonb) is 'The rules for skipped and repeated times where they are not the usual ones.';
revoke all on function fleet.describe_rules(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.describe_rules(jsonb) to authenticated, service_role;

-- db/sources/20_recurrence/93_rrule_fields.sql
-- The BY rules of a calendar's rule as fields of cron, and the shapes that a rule can take here.

create or replace function fleet.rrule_simple(
  p_type text,
  p_parts jsonb,
  p_local timestamp,
  p_config jsonb
)
returns jsonb
language sql
immutable
parallel safe
set search_path = ''
as $$
  select jsonb_build_object(
    'recurrence_type', p_type,
    'recurrence_config', p_config
      || jsonb_build_object(case when jsonb_array_length(t.times) = 1 then 'time' else 'times' end,
        case when jsonb_array_length(t.times) = 1 then t.times -> 0 else t.times end)
      || case
        when coalesce(p_parts ->> 'INTERVAL', '1') = '1' then '{}'::jsonb
        else jsonb_build_object('every', (p_parts ->> 'INTERVAL')::integer)
      end
  )
  from (
    select jsonb_agg(to_char(make_time(h::integer, m::integer, date_part('second', date_trunc('second', p_local))),
      'HH24:MI:SS') order by h::integer, m::integer) as times
    from regexp_split_to_table(coalesce(p_parts ->> 'BYHOUR', date_part('hour', p_local)::text), ',') as h
    cross join regexp_split_to_table(coalesce(p_parts ->> 'BYMINUTE', date_part('minute', p_local)::text), ',') as m
  ) as t
$$;

comment on function fleet.rrule_simple(text, jsonb, timestamp, jsonb) is
  'A daily, weekly or monthly recurrence with the times and the interval of a rule.';
revoke all on function fleet.rrule_simple(text, jsonb, timestamp, jsonb)
  from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_simple(text, jsonb, timestamp, jsonb) to authenticated, service_role;

create or replace function fleet.rrule_cron(
  p_parts jsonb,
  p_local timestamp,
  p_month_days text,
  p_months text,
  p_weekdays text
)
returns jsonb
language sql
immutable
parallel safe
set search_path = ''
as $$
  select case
    when p_month_days <> '*' and p_weekdays <> '*' then
      '{"refused": "BYMONTHDAY together with BYDAY"}'::jsonb
    when date_trunc('minute', p_local) <> date_trunc('second', p_local) then
      '{"refused": "such BY rules with a start that has seconds"}'::jsonb
    else jsonb_build_object(
      'recurrence_type', 'cron',
      'recurrence_config', jsonb_build_object(
        'cron_expression', concat_ws(
          ' ',
          coalesce(p_parts ->> 'BYMINUTE', date_part('minute', p_local)::text),
          coalesce(p_parts ->> 'BYHOUR', date_part('hour', p_local)::text),
          p_month_days,
          p_months,
          p_weekdays
        )
      )
    )
  end
$$;

comment on function fleet.rrule_cron(jsonb, timestamp, text, text, text) is
  'A cron recurrence with the times of a rule and these day and month fields.';
revoke all on function fleet.rrule_cron(jsonb, timestamp, text, text, text)
  from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_cron(jsonb, timestamp, text, text, text) to authenticated, service_role;

create or replace function fleet.rrule_weekdays(p_parts jsonb)
returns jsonb
language sql
immutable
parallel safe
set search_path = ''
as $$
  select jsonb_agg(distinct array_position('{MO,TU,WE,TH,FR,SA,SU}'::text[], right(d, 2)) - 1)
  from regexp_split_to_table(p_parts ->> 'BYDAY', ',') as d
$$;

comment on function fleet.rrule_weekdays(jsonb) is 'The weekdays of BYDAY, 0 for Monday; null without BYDAY.';
revoke all on function fleet.rrule_weekdays(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_weekdays(jsonb) to authenticated, service_role;

create or replace function fleet.rrule_day_names(p_parts jsonb)
returns text
language sql
immutable
parallel safe
set search_path = ''
as $$
  select string_agg(
    w.number || case
      when left(d, -2) = '' then ''
      when left(d, -2) = '-1' then 'L'
      else '#' || ltrim(left(d, -2), '+')
    end,
    ',' order by place
  )
  from regexp_split_to_table(p_parts ->> 'BYDAY', ',') with ordinality as t (d, place)
  cross join lateral (
    select array_position('{MO,TU,WE,TH,FR,SA,SU}'::text[], right(t.d, 2)) as number
  ) as w
$$;

comment on function fleet.rrule_day_names(jsonb) is 'BYDAY as a day-of-week field; null without BYDAY.';
revoke all on function fleet.rrule_day_names(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_day_names(jsonb) to authenticated, service_role;

create or replace function fleet.rrule_month_days(p_parts jsonb)
returns text
language sql
immutable
parallel safe
set search_path = ''
as $$
  select string_agg(
    case
      when d = '-1' then 'L'
      when d like '-%' then 'L-' || (ltrim(d, '-')::integer - 1)
      else ltrim(d, '+')
    end,
    ',' order by place
  )
  from regexp_split_to_table(p_parts ->> 'BYMONTHDAY', ',') with ordinality as t (d, place)
$$;

comment on function fleet.rrule_month_days(jsonb) is 'BYMONTHDAY as a day-of-month field; null without BYMONTHDAY.';
revoke all on function fleet.rrule_month_days(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_month_days(jsonb) to authenticated, service_role;

create or replace function fleet.rrule_day_fields(p_parts jsonb, p_local timestamp)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  v_month_days text := fleet.rrule_month_days(p_parts);
  v_weekdays   text := fleet.rrule_day_names(p_parts);
  v_set        jsonb := fleet.rrule_weekdays(p_parts);
  v_place      integer := (p_parts ->> 'BYSETPOS')::integer;
begin
  if v_month_days is not null and v_weekdays is not null then
    return '{"refused": "BYMONTHDAY together with BYDAY"}';
  elsif v_weekdays ~ '#-' then
    return '{"refused": "weekdays counted from the end, other than the last"}';
  elsif v_place is null then
    return jsonb_build_object(
      'month_days', coalesce(v_month_days, case when v_set is null then date_part('day', p_local)::text end, '*'),
      'weekdays', coalesce(v_weekdays, '*')
    );
  end if;

  -- A place in a set, where one of our marks means the same.
  v_month_days := case
    when v_weekdays ~ '[#L]' then null
    when v_month_days = '28,29,30,31' and v_place = -1 then 'L'
    when v_set = '[0, 1, 2, 3, 4]' and v_place = -1 then 'LW'
    when v_set = '[0, 1, 2, 3, 4]' and v_place = 1 then '1W'
    when v_set = '[0, 1, 2, 3, 4, 5, 6]' and v_place between 1 and 31 then v_place::text
    when v_set = '[0, 1, 2, 3, 4, 5, 6]' and v_place = -1 then 'L'
    when v_set = '[0, 1, 2, 3, 4, 5, 6]' and v_place between -31 and -2 then 'L' || v_place + 1
  end;
  if v_month_days is not null then
    return jsonb_build_object('month_days', v_month_days, 'weekdays', '*');
  elsif jsonb_array_length(v_set) = 1 and v_weekdays !~ '[#L]' and v_place in (-1, 1, 2, 3, 4, 5) then
    return jsonb_build_object(
      'month_days', '*', 'weekdays', v_weekdays || case v_place when -1 then 'L' else '#' || v_place end
    );
  end if;
  return '{"refused": "BYSETPOS in this set"}';
end;
$$;

comment on function fleet.rrule_day_fields(jsonb, timestamp) is
  'The days of a MONTHLY or YEARLY rule as the day fields of cron.';
revoke all on function fleet.rrule_day_fields(jsonb, timestamp) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_day_fields(jsonb, timestamp) to authenticated, service_role;

create or replace function fleet.rrule_simple_month(p_fields jsonb)
returns jsonb
language sql
immutable
parallel safe
set search_path = ''
as $$
  select case
    when p_fields ->> 'month_days' ~ '^(\d+|L)(,(\d+|L))*$' and p_fields ->> 'weekdays' = '*' then
      jsonb_build_object('day_of_month', (
        select jsonb_agg(case d when 'L' then -1 else d::integer end order by place)
        from regexp_split_to_table(p_fields ->> 'month_days', ',') with ordinality as t (d, place)
      ))
    when p_fields ->> 'month_days' = '*' and p_fields ->> 'weekdays' ~ '^\d(#\d|L)$' then
      jsonb_build_object(
        'week', case right(p_fields ->> 'weekdays', 1) when 'L' then -1 else right(p_fields ->> 'weekdays', 1)::integer end,
        'day_of_week', left(p_fields ->> 'weekdays', 1)::integer - 1
      )
  end
$$;

comment on function fleet.rrule_simple_month(jsonb) is
  'Day fields as the configuration of a monthly recurrence; null where that cannot say them.';
revoke all on function fleet.rrule_simple_month(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_simple_month(jsonb) to authenticated, service_role;

-- db/sources/20_recurrence/94_rrule_frequencies.sql
-- What each frequency of a calendar's rule becomes. "refused" in an answer says why there is none.

create or replace function fleet.rrule_interval(p_parts jsonb)
returns jsonb
language sql
immutable
parallel safe
set search_path = ''
as $$
  select case
    when p_parts ?| '{BYDAY,BYMONTHDAY,BYMONTH,BYSETPOS,BYHOUR,BYMINUTE}' then
      jsonb_build_object('refused', p_parts ->> 'FREQ' || ' with BY rules')
    else jsonb_build_object(
      'recurrence_type', 'interval',
      'recurrence_config', jsonb_build_object(
        'seconds',
        coalesce((p_parts ->> 'INTERVAL')::integer, 1)
        * case p_parts ->> 'FREQ' when 'HOURLY' then 3600 when 'MINUTELY' then 60 else 1 end
      )
    )
  end
$$;

comment on function fleet.rrule_interval(jsonb) is 'A SECONDLY, MINUTELY or HOURLY rule as an interval.';
revoke all on function fleet.rrule_interval(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_interval(jsonb) to authenticated, service_role;

create or replace function fleet.rrule_daily(p_parts jsonb, p_local timestamp)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
begin
  if not p_parts ?| '{BYDAY,BYMONTHDAY,BYMONTH,BYSETPOS}' then
    return fleet.rrule_simple('daily', p_parts, p_local, '{}');
  elsif p_parts ? 'BYSETPOS' or p_parts ->> 'BYDAY' ~ '\d' then
    return '{"refused": "DAILY with BYSETPOS or numbered days"}';
  elsif coalesce(p_parts ->> 'INTERVAL', '1') <> '1' then
    return '{"refused": "DAILY with INTERVAL and BY rules"}';
  elsif not p_parts ?| '{BYMONTHDAY,BYMONTH}' then
    return fleet.rrule_simple(
      'weekly', p_parts, p_local, jsonb_build_object('days_of_week', fleet.rrule_weekdays(p_parts))
    );
  end if;

  return fleet.rrule_cron(
    p_parts, p_local,
    coalesce(fleet.rrule_month_days(p_parts), '*'),
    coalesce(p_parts ->> 'BYMONTH', '*'),
    coalesce(lower(fleet.rrule_day_names(p_parts)), '*')
  );
end;
$$;

comment on function fleet.rrule_daily(jsonb, timestamp) is 'A DAILY rule in our own words.';
revoke all on function fleet.rrule_daily(jsonb, timestamp) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_daily(jsonb, timestamp) to authenticated, service_role;

create or replace function fleet.rrule_weekly(p_parts jsonb, p_local timestamp)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  v_start_day integer := date_part('isodow', p_local)::integer - 1;
  v_days      jsonb := coalesce(fleet.rrule_weekdays(p_parts), jsonb_build_array(v_start_day));
  v_every     text := coalesce(p_parts ->> 'INTERVAL', '1');
begin
  if p_parts ?| '{BYMONTHDAY,BYSETPOS}' or p_parts ->> 'BYDAY' ~ '\d' then
    return '{"refused": "WEEKLY with BYMONTHDAY, BYSETPOS or numbered days"}';
  elsif v_every <> '1' and coalesce(p_parts ->> 'WKST', 'MO') <> 'MO' and v_days <> jsonb_build_array(v_start_day) then
    return '{"refused": "WKST: our weeks begin on Monday"}';
  elsif not p_parts ? 'BYMONTH' then
    return fleet.rrule_simple('weekly', p_parts, p_local, jsonb_build_object('days_of_week', v_days));
  elsif v_every <> '1' then
    return '{"refused": "WEEKLY with INTERVAL and BYMONTH"}';
  end if;

  return fleet.rrule_cron(
    p_parts, p_local, '*', p_parts ->> 'BYMONTH',
    coalesce(fleet.rrule_day_names(p_parts), (v_start_day + 1)::text)
  );
end;
$$;

comment on function fleet.rrule_weekly(jsonb, timestamp) is 'A WEEKLY rule in our own words.';
revoke all on function fleet.rrule_weekly(jsonb, timestamp) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_weekly(jsonb, timestamp) to authenticated, service_role;

create or replace function fleet.rrule_monthly(p_parts jsonb, p_local timestamp)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  v_fields jsonb := fleet.rrule_day_fields(p_parts, p_local);
  v_simple jsonb := fleet.rrule_simple_month(v_fields);
begin
  if v_fields ? 'refused' then
    return v_fields;
  elsif v_simple is not null and not p_parts ? 'BYMONTH' then
    return fleet.rrule_simple('monthly', p_parts, p_local, v_simple);
  elsif coalesce(p_parts ->> 'INTERVAL', '1') <> '1' then
    return '{"refused": "MONTHLY with INTERVAL and such BY rules"}';
  end if;

  return fleet.rrule_cron(
    p_parts, p_local,
    v_fields ->> 'month_days', coalesce(p_parts ->> 'BYMONTH', '*'), v_fields ->> 'weekdays'
  );
end;
$$;

comment on function fleet.rrule_monthly(jsonb, timestamp) is 'A MONTHLY rule in our own words.';
revoke all on function fleet.rrule_monthly(jsonb, timestamp) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_monthly(jsonb, timestamp) to authenticated, service_role;

create or replace function fleet.rrule_yearly(p_parts jsonb, p_local timestamp)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  v_every  integer := coalesce((p_parts ->> 'INTERVAL')::integer, 1);
  v_start  text := date_part('month', p_local)::text;
  v_months text := coalesce(
    p_parts ->> 'BYMONTH',
    case when p_parts ?| '{BYDAY,BYMONTHDAY}' then '*' else v_start end
  );
  v_fields jsonb := fleet.rrule_day_fields(p_parts, p_local);
  v_simple jsonb := fleet.rrule_simple_month(v_fields);
begin
  if not p_parts ? 'BYMONTH' and (p_parts ? 'BYSETPOS' or p_parts ->> 'BYDAY' ~ '\d') then
    return '{"refused": "YEARLY with days numbered within the year"}';
  elsif p_parts ? 'BYSETPOS' and v_months like '%,%' then
    return '{"refused": "YEARLY with BYSETPOS over several months"}';
  elsif v_fields ? 'refused' then
    return v_fields;
  elsif v_every = 1 then
    return fleet.rrule_cron(p_parts, p_local, v_fields ->> 'month_days', v_months, v_fields ->> 'weekdays');
  elsif v_simple is null or v_months <> v_start or v_every > 800 then
    return '{"refused": "YEARLY with INTERVAL and such BY rules"}';
  end if;

  return fleet.rrule_simple(
    'monthly', p_parts || jsonb_build_object('INTERVAL', v_every * 12), p_local, v_simple
  );
end;
$$;

comment on function fleet.rrule_yearly(jsonb, timestamp) is 'A YEARLY rule in our own words.';
revoke all on function fleet.rrule_yearly(jsonb, timestamp) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_yearly(jsonb, timestamp) to authenticated, service_role;

-- db/sources/20_recurrence/95_rrule.sql
-- Recurrence rules of calendars (RFC 5545) in our own words.

create or replace function fleet.recurrence_from_rrule(
  p_rrule text,
  p_start timestamptz,
  p_timezone text
)
returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  v_parts   jsonb := fleet.rrule_parts(p_rrule);
  v_problem text;
  v_local   timestamp;
  v_spec    jsonb;
  v_end     timestamptz;
begin
  select format('%s: %s', t.field, t.problem) into v_problem
  from fleet.timezone_problems(p_timezone) as t;
  v_problem := coalesce(
    v_problem,
    case when p_start is null then 'start_time: is missing' end,
    fleet.rrule_problem(v_parts)
  );
  if v_problem is not null then
    raise exception '%', v_problem
      using errcode = 'PT422',
            detail = 'rrule_invalid',
            hint = 'Write a rule such as FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,FR, or a cron expression instead';
  end if;

  v_local := p_start at time zone fleet.zone_clock(p_timezone);
  v_spec := case v_parts ->> 'FREQ'
    when 'DAILY' then fleet.rrule_daily(v_parts, v_local)
    when 'WEEKLY' then fleet.rrule_weekly(v_parts, v_local)
    when 'MONTHLY' then fleet.rrule_monthly(v_parts, v_local)
    when 'YEARLY' then fleet.rrule_yearly(v_parts, v_local)
    else fleet.rrule_interval(v_parts)
  end;
  if v_spec ? 'refused' then
    raise exception 'RRULE: %', v_spec ->> 'refused'
      using errcode = 'PT422',
            detail = 'rrule_unsupported',
            hint = 'Split the rule into several schedules, each of which we can express';
  end if;

  v_spec := v_spec || jsonb_build_object(
    'start_time', fleet.instant_text(p_start),
    'timezone', p_timezone,
    -- The standard moves a skipped time by as much as the clocks jump.
    'policies', '{"gap": "shift", "fold": "first"}'::jsonb
  );
  v_end := fleet.rrule_end(v_parts, v_spec, p_timezone);
  return v_spec || case
    when v_end is null then '{}'::jsonb
    else jsonb_build_object('end_time', fleet.instant_text(v_end))
  end;
end;
$$;

comment on function fleet.recurrence_from_rrule(text, timestamptz, text) is
  'A calendar''s rule as part of a schedule: recurrence_type, recurrence_config, start_time, end_time (from UNTIL or '
  'COUNT), timezone and policies. Raises rrule_invalid or rrule_unsupported (PT422) with the reason.';
revoke all on function fleet.recurrence_from_rrule(text, timestamptz, text)
  from public, anon, authenticated, service_role;
grant execute on function fleet.recurrence_from_rrule(text, timestamptz, text) to authenticated, service_role;

create or replace function fleet.rrule_parts(p_rrule text)
returns jsonb
language sql
immutable
parallel safe
set search_path = ''
as $$
  -- A part that comes twice is an error of the standard; kept under its name with a mark it is refused as unknown.
  select jsonb_object_agg(
    case when p.place = 1 then p.name else p.name || ' (twice)' end, p.value
  )
  from (
    select
      upper(split_part(t.part, '=', 1)) as name,
      case when strpos(t.part, '=') > 0 then upper(substr(t.part, strpos(t.part, '=') + 1)) else '' end as value,
      row_number() over (partition by upper(split_part(t.part, '=', 1)) order by t.n) as place
    from regexp_split_to_table(regexp_replace(btrim(p_rrule), '^RRULE:', '', 'i'), ';')
      with ordinality as t (part, n)
    where t.part <> ''
  ) as p
$$;

comment on function fleet.rrule_parts(text) is 'The parts of a rule by name, in upper case.';
revoke all on function fleet.rrule_parts(text) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_parts(text) to authenticated, service_role;

create or replace function fleet.rrule_problem(p_parts jsonb)
returns text
language sql
immutable
parallel safe
set search_path = ''
as $$
  select coalesce(
    case when p_parts is null then 'RRULE: is empty' end,
    case when not p_parts ? 'FREQ' then 'RRULE: FREQ is missing' end,
    case when p_parts ?& '{COUNT,UNTIL}' then 'RRULE: COUNT and UNTIL exclude each other' end,
    (
      select case
        when f.pattern is null then format('RRULE: %s is not supported', e.name)
        else format('RRULE: %s=%s is not valid', e.name, e.value)
      end
      from jsonb_each_text(p_parts) as e (name, value)
      left join (
        values
          ('FREQ', '^(SECONDLY|MINUTELY|HOURLY|DAILY|WEEKLY|MONTHLY|YEARLY)$'),
          ('INTERVAL', '^[1-9]\d{0,3}$'),
          ('COUNT', '^[1-9]\d{0,4}$'),
          ('UNTIL', '^\d{8}(T\d{6}Z?)?$'),
          ('WKST', '^(MO|TU|WE|TH|FR|SA|SU)$'),
          ('BYDAY', '^([+-]?[1-5])?(MO|TU|WE|TH|FR|SA|SU)(,([+-]?[1-5])?(MO|TU|WE|TH|FR|SA|SU))*$'),
          ('BYMONTHDAY', '^(\+|-)?([1-9]|[12]\d|3[01])(,(\+|-)?([1-9]|[12]\d|3[01]))*$'),
          ('BYMONTH', '^([1-9]|1[0-2])(,([1-9]|1[0-2]))*$'),
          ('BYSETPOS', '^[+-]?[1-9]\d{0,2}$'),
          ('BYHOUR', '^(1?\d|2[0-3])(,(1?\d|2[0-3]))*$'),
          ('BYMINUTE', '^[1-5]?\d(,[1-5]?\d)*$')
      ) as f (name, pattern) using (name)
      where f.pattern is null
        or e.value !~ f.pattern
      order by e.name
      limit 1
    )
  )
$$;

comment on function fleet.rrule_problem(jsonb) is 'What is wrong with the form of a rule; null when nothing is.';
revoke all on function fleet.rrule_problem(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_problem(jsonb) to authenticated, service_role;

create or replace function fleet.rrule_end(p_parts jsonb, p_spec jsonb, p_timezone text)
returns timestamptz
language plpgsql
stable
set search_path = ''
as $$
declare
  v_until text := p_parts ->> 'UNTIL';
  v_plan  jsonb;
  v_end   timestamptz;
begin
  if v_until is not null then
    return fleet.recurrence_end(
      regexp_replace(
        regexp_replace(v_until, '^(\d{4})(\d\d)(\d\d)', '\1-\2-\3'), 'T(\d\d)(\d\d)(\d\d)', 'T\1:\2:\3'
      ),
      p_timezone
    );
  elsif not p_parts ? 'COUNT' then
    return null;
  end if;

  v_plan := fleet.compile_recurrence(
    p_spec ->> 'recurrence_type', p_spec -> 'recurrence_config', p_timezone,
    (p_spec ->> 'start_time')::timestamptz, null, p_spec #>> '{policies,gap}', p_spec #>> '{policies,fold}'
  );
  v_end := (p_spec ->> 'start_time')::timestamptz - interval '1 microsecond';
  for v_number in 1..(p_parts ->> 'COUNT')::integer loop
    v_end := coalesce(fleet.next_occurrence(v_plan, v_end), v_end);
  end loop;
  return v_end;
end;
$$;

comment on function fleet.rrule_end(jsonb, jsonb, text) is
  'The last moment of a rule: its UNTIL, or its COUNT-th occurrence; null when it never ends.';
revoke all on function fleet.rrule_end(jsonb, jsonb, text) from public, anon, authenticated, service_role;
grant execute on function fleet.rrule_end(jsonb, jsonb, text) to authenticated, service_role;

-- db/sources/30_schedules/blackouts.sql
-- Blackouts: what a schedule's calendars say about an instant.

create or replace function fleet.blackout_ids(p_policies jsonb)
returns bigint[]
language sql
immutable
set search_path = ''
as $$
  select coalesce(array_agg((e #>> '{}')::bigint), '{}')
  from jsonb_array_elements(
    case jsonb_typeof(p_policies -> 'blackouts') when 'array' then p_policies -> 'blackouts' else '[]' end
  ) as e
  where jsonb_typeof(e) = 'number'
$$;

comment on function fleet.blackout_ids(jsonb) is 'The calendars that effective policies name.';
revoke all on function fleet.blackout_ids(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.blackout_at(
  p_owner_id uuid,
  p_calendar_ids bigint[],
  p_timezone text,
  p_instant timestamptz
)
returns text
language plpgsql
stable
set search_path = ''
as $$
declare
  v_day date;
begin
  if p_calendar_ids = '{}' then
    return null;
  end if;
  v_day := (p_instant at time zone p_timezone)::date;
  return (
    select coalesce(nullif(b.summary, ''), c.name)
    from public.blackout_calendars as c
    join public.blackout_periods as b on b.calendar_id = c.id and b.owner_id = c.owner_id
    where c.id = any (p_calendar_ids)
      and c.owner_id = p_owner_id
      and (
        (b.starts_on <= v_day and v_day < b.ends_on)
        or (b.starts_at <= p_instant and p_instant < b.ends_at)
      )
    limit 1
  );
end;
$$;

comment on function fleet.blackout_at(uuid, bigint[], text, timestamptz) is
  'What forbids this instant, by name; null where nothing does. Whole days are days of the given zone.';
revoke all on function fleet.blackout_at(uuid, bigint[], text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.named_blackouts(p_owner_id uuid, p_policies jsonb)
returns jsonb
language sql
stable
set search_path = ''
as $$
  -- People write names; the schedule keeps ids, so that renaming a calendar changes nothing.
  select case
    when jsonb_typeof(p_policies -> 'blackouts') <> 'array' or not p_policies ? 'blackouts' then p_policies
    else p_policies || jsonb_build_object('blackouts', (
      select coalesce(jsonb_agg(coalesce(to_jsonb(c.id), e.item)), '[]')
      from jsonb_array_elements(p_policies -> 'blackouts') as e(item)
      left join public.blackout_calendars as c
        on jsonb_typeof(e.item) = 'string' and c.owner_id = p_owner_id and lower(c.name) = lower(e.item #>> '{}')
    ))
  end
$$;

comment on function fleet.named_blackouts(uuid, jsonb) is 'The policies with names of calendars replaced by their ids.';
revoke all on function fleet.named_blackouts(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.blackout_problems(p_owner_id uuid, p_policies jsonb)
returns table (field text, problem text, hint text)
language sql
stable
set search_path = ''
as $$
  select 'policies.blackouts', 'must be a list of calendars', 'Example: {"blackouts": ["School holidays"]}'
  where p_policies ? 'blackouts' and jsonb_typeof(p_policies -> 'blackouts') not in ('array', 'null')
  union all
  select 'policies.blackouts', format('calendar %s was not found', e.item), 'List them with: select id, name from blackout_calendars'
  from jsonb_array_elements(
    case jsonb_typeof(p_policies -> 'blackouts') when 'array' then p_policies -> 'blackouts' else '[]' end
  ) as e(item)
  where not exists (
    select 1 from public.blackout_calendars as c where c.owner_id = p_owner_id and to_jsonb(c.id) = e.item
  )
$$;

comment on function fleet.blackout_problems(uuid, jsonb) is
  'Calendars that do not exist for this owner. What belongs to another owner is as good as not there.';
revoke all on function fleet.blackout_problems(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.instant_refusal(p_schedule public.schedules, p_instant timestamptz)
returns text
language plpgsql
stable
set search_path = ''
as $$
declare
  v_policies jsonb := fleet.effective_policies(p_schedule.policies);
  v_zone text := fleet.reference_zone(p_schedule);
  v_windows jsonb := fleet.window_list(v_policies);
begin
  -- Most schedules say neither, and this is asked for each due instant.
  if not p_schedule.policies ?| '{blackouts,execution_window}' then
    return null;
  end if;

  if fleet.blackout_at(p_schedule.owner_id, fleet.blackout_ids(v_policies), v_zone, p_instant) is not null then
    return 'blackout';
  end if;

  if not fleet.waits_for_window(v_windows, 'schedule')
    and fleet.window_opening(v_windows, 'schedule', v_zone, p_instant) is distinct from p_instant
  then
    return 'outside the execution window';
  end if;
  return null;
end;
$$;

comment on function fleet.instant_refusal(public.schedules, timestamptz) is
  'Why a due instant of a schedule does not run: blackout, or outside the execution window; null where it does.';
revoke all on function fleet.instant_refusal(public.schedules, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/30_schedules/chains.sql
-- Chains: a schedule that runs when a run of another one has ended.

create or replace function fleet.follow_problems(p_schedule public.schedules)
returns table (field text, problem text, hint text)
language plpgsql
stable
set search_path = ''
as $$
declare
  v_id bigint := p_schedule.after_schedule_id;
  v_seen bigint[] := '{}';
begin
  if v_id is null then
    return;
  end if;

  if not exists (
    select 1 from public.schedules as s where s.id = v_id and s.owner_id = p_schedule.owner_id
  ) then
    return query
    select 'after.schedule_id', format('schedule %s was not found', v_id), 'List your schedules with: pgfleet schedule list';
    return;
  end if;

  -- Up the chain: whoever comes back to where it began would run for ever.
  while v_id is not null and v_id <> all (v_seen) loop
    if v_id = p_schedule.id then
      return query
      select 'after.schedule_id', format('schedule %s follows this one already: they would run for ever', p_schedule.after_schedule_id),
        'Let the first schedule of the chain have times of its own.';
      return;
    end if;
    v_seen := v_seen || v_id;
    select s.after_schedule_id into v_id from public.schedules as s where s.id = v_id;
  end loop;
end;
$$;

comment on function fleet.follow_problems(public.schedules) is
  'Whether the schedule that this one follows exists for its owner and does not follow it in turn.';
revoke all on function fleet.follow_problems(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.start_followers(p_runs bigint[], p_now timestamptz)
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_started bigint;
begin
  -- The key makes a second look at the same end harmless.
  with written as (
    insert into public.schedule_runs (
      schedule_id, owner_id, scheduled_for, trigger, status, reason, action_type, payload, priority, expires_at, after_run_id,
      idempotency_key, not_before, started_at, finished_at
    )
    select s.id, s.owner_id,
      -- Several runs may end in one tick: an instant for each.
      p_now + interval '1 microsecond' * (row_number() over (partition by s.id order by r.id) - 1),
      'chain',
      case when f.refusal is null then 'pending' else 'skipped' end, f.refusal,
      s.action_type, s.payload, s.priority,
      fleet.run_expiry(fleet.effective_policies(s.policies), null, o.opens_at), r.id, 'after:' || r.id,
      nullif(o.opens_at, p_now),
      case when f.refusal is null then p_now end,
      case when f.refusal is not null then p_now end
    from public.schedule_runs as r
    join public.schedules as s on s.after_schedule_id = r.schedule_id and s.owner_id = r.owner_id
    cross join lateral fleet.follower_refusal(s, p_now) as f(refusal)
    cross join lateral fleet.opening_of(s, p_now) as o(opens_at)
    where r.id = any (p_runs)
      and s.status = 'active'
      and (s.after_on = 'either' or s.after_on = r.status)
    on conflict do nothing
    returning schedule_id, status
  ),
  counted as (
    update public.schedules as s
    set execution_count = s.execution_count + w.n,
        last_executed_at = p_now,
        status = case
          when s.execution_count + w.n >= (s.policies ->> 'max_runs')::bigint then 'completed' else s.status
        end,
        status_reason = case
          when s.execution_count + w.n >= (s.policies ->> 'max_runs')::bigint then 'max_runs reached' else s.status_reason
        end
    from (select x.schedule_id, count(*) as n from written as x where x.status = 'pending' group by x.schedule_id) as w
    where s.id = w.schedule_id
    returning s.id
  )
  select count(*) into v_started from written as w where w.status = 'pending';
  return v_started;
end;
$$;

comment on function fleet.start_followers(bigint[], timestamptz) is
  'Write the runs of the schedules that follow these ended runs. Answers how many; the tick expands them.';
revoke all on function fleet.start_followers(bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.follower_refusal(p_schedule public.schedules, p_now timestamptz)
returns text
language sql
stable
set search_path = ''
as $$
  select case
    when p_schedule.execution_count >= (p_schedule.policies ->> 'max_runs')::bigint then 'max_runs reached'
    when p_now > p_schedule.end_time then 'the schedule has ended'
    else fleet.instant_refusal(p_schedule, p_now)
  end
$$;

comment on function fleet.follower_refusal(public.schedules, timestamptz) is
  'Why a schedule does not follow now: max_runs, its end, a blackout or its execution window; null where it does.';
revoke all on function fleet.follower_refusal(public.schedules, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.opening_of(p_schedule public.schedules, p_instant timestamptz)
returns timestamptz
language sql
stable
set search_path = ''
as $$
  select case
    when not p_schedule.policies ? 'execution_window' then p_instant
    else coalesce(
      fleet.window_opening(
        fleet.window_list(p_schedule.policies), 'schedule', fleet.reference_zone(p_schedule), p_instant
      ),
      p_instant
    )
  end
$$;

comment on function fleet.opening_of(public.schedules, timestamptz) is
  'When a run of this instant may begin: at once, or when the execution window opens.';
revoke all on function fleet.opening_of(public.schedules, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.tg_leave_followers()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  update public.schedules as s
  set status = 'paused', status_reason = format('schedule "%s", which it followed, was deleted', old.name)
  where s.after_schedule_id = old.id and s.status = 'active';
  return old;
end;
$$;

comment on function fleet.tg_leave_followers() is
  'Pause what followed a schedule that is deleted. Definer: whoever may delete one may not have to change the others.';
revoke all on function fleet.tg_leave_followers() from public, anon, authenticated, service_role;

-- db/sources/30_schedules/complete.sql
-- Derived columns of a schedule: what follows from what was written.

create or replace function fleet.completed_schedule(p_schedule public.schedules)
returns public.schedules
language plpgsql
stable
set search_path = ''
as $$
declare
  v_row public.schedules := p_schedule;
begin
  v_row.recurrence_type := coalesce(fleet.recurrence_type(v_row.recurrence_type), v_row.recurrence_type);
  if v_row.profile_id is null then
    v_row.profile_id := v_row.payload ->> 'profile_id';
  elsif v_row.profile_id is distinct from v_row.payload ->> 'profile_id' and jsonb_typeof(v_row.payload) = 'object' then
    v_row.payload := v_row.payload || jsonb_build_object('profile_id', v_row.profile_id);
  end if;

  -- Nobody who is named is dropped: a device beside other targets is one more of them.
  v_row.device_ids := array(
    select distinct u.id from unnest(v_row.device_ids || v_row.device_id) as u(id) where u.id is not null order by u.id
  );
  v_row.group_ids := coalesce(v_row.group_ids, '{}');
  v_row.device_id := case
    when cardinality(v_row.device_ids) = 1 and v_row.group_ids = '{}' and v_row.selector is null
      then v_row.device_ids[1]
  end;

  v_row.policies := fleet.named_blackouts(v_row.owner_id, v_row.policies);
  if v_row.after_schedule_id is not null then
    v_row.after_on := coalesce(v_row.after_on, 'completed');
  end if;
  if btrim(coalesce(v_row.name, '')) = '' then
    v_row.name := concat_ws(' ', v_row.action_type, v_row.profile_id, 'on ' || v_row.device_id);
  end if;
  return v_row;
end;
$$;

comment on function fleet.completed_schedule(public.schedules) is
  'The row with profile_id and payload, and device_id and device_ids, brought to agree, and a name where none was given.';
revoke all on function fleet.completed_schedule(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.changed_schedule(p_old public.schedules, p_new public.schedules)
returns public.schedules
language plpgsql
immutable
set search_path = ''
as $$
declare
  v_row public.schedules := p_new;
begin
  -- Of two columns that say the same, the one that was changed is meant; the other follows from it.
  if p_new.payload is distinct from p_old.payload and p_new.profile_id is not distinct from p_old.profile_id then
    v_row.profile_id := null;
  elsif p_new.profile_id is null and p_old.profile_id is not null and jsonb_typeof(p_new.payload) = 'object' then
    v_row.payload := p_new.payload - 'profile_id';
  end if;

  if p_new.device_id is not distinct from p_old.device_id then
    v_row.device_id := null;
  elsif p_new.device_ids is not distinct from p_old.device_ids then
    v_row.device_ids := case when p_new.device_id is null then array_remove(p_new.device_ids, p_old.device_id) else '{}' end;
    -- The one device takes the place of all other targets, unless they were changed in the same breath.
    if p_new.device_id is not null and p_new.group_ids = p_old.group_ids and p_new.selector is not distinct from p_old.selector then
      v_row.group_ids := '{}';
      v_row.selector := null;
    end if;
  end if;
  return v_row;
end;
$$;

comment on function fleet.changed_schedule(public.schedules, public.schedules) is
  'The new row, with the columns emptied that are to follow from their changed twin. fleet.completed_schedule fills them.';
revoke all on function fleet.changed_schedule(public.schedules, public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.first_due(p_schedule public.schedules, p_now timestamptz)
returns timestamptz
language sql
stable
set search_path = ''
as $$
  -- A single run is owed even when its time has passed: the ledger then says what became of it. A recurring schedule owes
  -- nothing for the time before it existed.
  select case
    -- What follows another schedule has no instants of its own.
    when p_schedule.after_schedule_id is not null then null
    when p_schedule.recurrence_type = 'once'
      then fleet.next_due(p_schedule.recurrence, '-infinity')
    else fleet.next_due(
      p_schedule.recurrence,
      case
        -- Days start earlier in the east: the bounds of each zone are in its member of the union.
        when p_schedule.timezone = 'device' then p_now
        else greatest(p_schedule.start_time, p_now)
      end - interval '1 microsecond'
    )
  end
$$;

comment on function fleet.first_due(public.schedules, timestamptz) is
  'The first instant that a new or changed schedule is due.';
revoke all on function fleet.first_due(public.schedules, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.tg_prepare_schedule()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_row public.schedules := new;
  v_fields text[];
  v_problems text[];
  v_hints text[];
begin
  v_row.owner_id := fleet.owner_or_own(v_row.owner_id);
  perform fleet.require_permission(v_row.owner_id, 'manage', format('owner %s', v_row.owner_id));

  if tg_op = 'UPDATE' then
    v_row := fleet.changed_schedule(old, v_row);
  else
    v_row.created_by := fleet.current_user_id();
  end if;

  v_row := fleet.completed_schedule(v_row);
  perform fleet.require_destructive(v_row.owner_id, v_row.action_type);
  select array_agg(q.field), array_agg(q.problem), array_agg(q.hint)
  into v_fields, v_problems, v_hints
  from fleet.schedule_problems(v_row) as q;
  perform fleet.raise_problems('the schedule', 'schedule_invalid', v_fields, v_problems, v_hints);

  v_row.recurrence := fleet.compiled(v_row);
  if v_row.status <> 'cancelled' and (tg_op = 'INSERT' or fleet.timing_changed(old, v_row)) then
    if tg_op = 'UPDATE' then
      perform fleet.skip_due(old, clock_timestamp(), case old.status when 'paused' then 'paused' else 'the times were changed' end);
    end if;
    v_row.next_run_at := fleet.first_due(v_row, clock_timestamp());
    if v_row.next_run_at is null and v_row.after_schedule_id is null and v_row.status = 'active' then
      v_row.status := 'completed';
      v_row.status_reason := 'no due instant is left';
    elsif tg_op = 'UPDATE' and v_row.status = 'completed'
      and (v_row.next_run_at is not null or v_row.after_schedule_id is not null)
    then
      v_row.status := 'active';
      v_row.status_reason := null;
    end if;
  end if;
  v_row.updated_at := now();
  return v_row;
end;
$$;

comment on function fleet.tg_prepare_schedule() is
  'Check a schedule however it is written, complete it, compile its recurrence and find its next due instant. Definer: it checks the '
  'caller, then sees what the checks need to see.';
revoke all on function fleet.tg_prepare_schedule() from public, anon, authenticated, service_role;

create or replace function fleet.timing_changed(p_old public.schedules, p_new public.schedules)
returns boolean
language sql
immutable
set search_path = ''
as $$
  select (p_old.recurrence_type, p_old.recurrence_config, p_old.start_time, p_old.end_time, p_old.timezone,
      p_old.recurrence, p_old.after_schedule_id, p_old.after_on)
    is distinct from
    (p_new.recurrence_type, p_new.recurrence_config, p_new.start_time, p_new.end_time, p_new.timezone,
      p_new.recurrence, p_new.after_schedule_id, p_new.after_on)
$$;

comment on function fleet.timing_changed(public.schedules, public.schedules) is 'Whether the due instants may have changed.';
revoke all on function fleet.timing_changed(public.schedules, public.schedules)
  from public, anon, authenticated, service_role;

create or replace function fleet.tg_change_schedule_status()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_now timestamptz := clock_timestamp();
begin
  perform fleet.require_permission(old.owner_id, 'manage', format('schedule %s', old.id));
  if new.status = 'active' then
    perform fleet.require_destructive(old.owner_id, old.action_type);
  end if;
  if old.status = 'cancelled' then
    raise exception 'schedule % was cancelled', old.id
      using errcode = 'PT409', detail = 'schedule_cancelled', hint = 'Create it anew.';
  end if;

  -- What was due while it was paused is told in one row, and not made up for.
  if new.next_run_at <= v_now and new.status in ('active', 'cancelled') and new.recurrence = old.recurrence then
    perform fleet.skip_due(old, v_now, case old.status when 'active' then new.status else old.status end);
    new.next_run_at := fleet.next_due(old.recurrence, v_now);
  end if;

  if new.status = 'active' then
    new.status_reason := null;
    if new.next_run_at is null and new.after_schedule_id is null then
      new.status := 'completed';
      new.status_reason := 'no due instant is left';
    end if;
  elsif new.status = 'cancelled' then
    new.next_run_at := null;
    perform fleet.cancel_runs_of(old.id, coalesce(new.status_reason, 'the schedule was cancelled'));
  end if;
  new.updated_at := now();
  return new;
end;
$$;

comment on function fleet.tg_change_schedule_status() is
  'Account for what was due during a pause; end everything of a cancelled schedule. Definer: it writes the ledger.';
revoke all on function fleet.tg_change_schedule_status() from public, anon, authenticated, service_role;

create or replace function fleet.skip_due(p_schedule public.schedules, p_now timestamptz, p_reason text)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_to timestamptz := p_now + interval '1 microsecond';
begin
  if p_schedule.next_run_at is null or p_schedule.next_run_at > p_now then
    return;
  end if;
  insert into public.schedule_runs (
    schedule_id, owner_id, scheduled_for, trigger, status, reason, missed_from, missed_to, missed_count, finished_at
  )
  values (
    p_schedule.id, p_schedule.owner_id, p_schedule.next_run_at, 'schedule', 'skipped', p_reason, p_schedule.next_run_at,
    coalesce(fleet.last_occurrence(p_schedule.recurrence, p_schedule.next_run_at, v_to), p_schedule.next_run_at),
    greatest(fleet.count_occurrences(p_schedule.recurrence, p_schedule.next_run_at, v_to), 1), p_now
  )
  on conflict (schedule_id, scheduled_for) do nothing;
end;
$$;

comment on function fleet.skip_due(public.schedules, timestamptz, text) is
  'Account in one row for what is due and will not run, because of a pause or a change.';
revoke all on function fleet.skip_due(public.schedules, timestamptz, text) from public, anon, authenticated, service_role;

create or replace function fleet.cancel_runs_of(p_schedule_id bigint, p_reason text)
returns void
language sql
volatile
set search_path = ''
as $$
  update public.device_commands as c
  set status = 'cancelled', reason = p_reason
  where c.schedule_id = p_schedule_id and c.status = 'pending';

  update public.schedule_runs as r
  set status = 'cancelled', reason = p_reason, expanded_at = now(), finished_at = now()
  where r.schedule_id = p_schedule_id and r.expanded_at is null and r.status in ('pending', 'running')
$$;

comment on function fleet.cancel_runs_of(bigint, text) is
  'Cancel what no device has started yet; what is running may end by itself.';
revoke all on function fleet.cancel_runs_of(bigint, text) from public, anon, authenticated, service_role;

create or replace function fleet.tg_run_due_schedules()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_due bigint[];
begin
  select array_agg(n.id) into v_due
  from new_rows as n
  where n.status = 'active' and n.next_run_at <= v_now;
  if v_due is not null then
    perform fleet.run_due(v_due, v_now);
  end if;
  return null;
end;
$$;

comment on function fleet.tg_run_due_schedules() is
  'What is due when it is inserted does not wait for the tick. Definer: people may not write runs and commands themselves.';
revoke all on function fleet.tg_run_due_schedules() from public, anon, authenticated, service_role;

-- db/sources/30_schedules/decide.sql
-- Deciding what to do about what is due. Pure: everything is an argument, so it can be previewed and tested.

create or replace function fleet.last_occurrence(p_recurrence jsonb, p_from timestamptz, p_to timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = ''
as $$
declare
  v_span interval := '1 hour';
  v_last timestamptz;
begin
  -- Backwards in growing steps: the last instant of a long pause is found without walking through all of it.
  loop
    select max(o) into v_last
    from fleet.due_instants(p_recurrence, greatest(p_from, p_to - v_span), p_to) as o;
    exit when v_last is not null or p_to - v_span <= p_from;
    v_span := v_span * 12;
  end loop;
  return v_last;
end;
$$;

comment on function fleet.last_occurrence(jsonb, timestamptz, timestamptz) is
  'The last due instant within [p_from, p_to); null when there is none.';
revoke all on function fleet.last_occurrence(jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.run_expiry(
  p_policies jsonb,
  p_next timestamptz,
  p_now timestamptz
)
returns timestamptz
language sql
immutable
set search_path = ''
as $$
  select case
    when p_policies ->> 'expires_after' is not null then p_now + (p_policies ->> 'expires_after')::interval
    else least(p_next, p_now + interval '24 hours')
  end
$$;

comment on function fleet.run_expiry(jsonb, timestamptz, timestamptz) is
  'Until when the commands of a run that starts now may be started: expires_after, else the next due instant, at most 24 hours.';
revoke all on function fleet.run_expiry(jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.decide_due(p_schedule public.schedules, p_now timestamptz)
returns table (
  scheduled_for timestamptz,
  trigger text,
  status text,
  reason text,
  missed_from timestamptz,
  missed_to timestamptz,
  missed_count bigint,
  not_before timestamptz,
  expires_at timestamptz,
  zones text[],
  dst_rule text,
  next_run_at timestamptz
)
language plpgsql
stable
set search_path = ''
as $$
declare
  v_policies jsonb := fleet.effective_policies(p_schedule.policies);
  v_due timestamptz := p_schedule.next_run_at;
  -- Within a minute a tick is on time; only then does catch-up come into it.
  v_on_time_from timestamptz := p_now - interval '1 minute';
  v_window_from timestamptz;
  v_run timestamptz[];
  v_left bigint := (v_policies ->> 'max_runs')::bigint - p_schedule.execution_count;
begin
  next_run_at := fleet.next_due(p_schedule.recurrence, p_now);
  v_window_from := greatest(v_due, case v_policies ->> 'catchup'
    when 'none' then v_on_time_from
    else least(v_on_time_from, p_now - (v_policies ->> 'catchup_window')::interval)
  end);
  v_run := fleet.instants_to_run(p_schedule.recurrence, v_policies, v_due, v_window_from, p_now);

  -- Older than the window, or left out of it: one row for the range, whole and counted.
  return query
  select g.missed_from, 'schedule', 'skipped', g.reason,
    case when g.missed_count > 1 then g.missed_from end,
    case when g.missed_count > 1 then g.missed_to end,
    case when g.missed_count > 1 then g.missed_count end,
    null::timestamptz, null::timestamptz, null::text[], null::text, decide_due.next_run_at
  from fleet.missed_ranges(p_schedule.recurrence, v_policies, v_due, v_window_from, v_run[1], p_now) as g;

  return query
  select r.instant, r.trigger, case when r.refusal is null then 'pending' else 'skipped' end, r.refusal,
    null::timestamptz, null::timestamptz, null::bigint,
    nullif(r.starts_at, p_now),
    fleet.run_expiry(v_policies, fleet.next_due(p_schedule.recurrence, r.starts_at), r.starts_at),
    fleet.zones_due(p_schedule.recurrence, r.instant), fleet.dst_rule_at(p_schedule.recurrence, r.instant),
    decide_due.next_run_at
  from fleet.decide_runs(p_schedule, v_policies, v_run, v_on_time_from, v_left, p_now) as r;
end;
$$;

comment on function fleet.decide_due(public.schedules, timestamptz) is
  'What becomes of a schedule that has been due since its next_run_at: the rows to write into the ledger, and when it is due next. Each '
  'due instant up to p_now is in exactly one row.';
revoke all on function fleet.decide_due(public.schedules, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.decide_runs(
  p_schedule public.schedules,
  p_policies jsonb,
  p_instants timestamptz[],
  p_on_time_from timestamptz,
  p_left bigint,
  p_now timestamptz
)
returns table (instant timestamptz, trigger text, refusal text, starts_at timestamptz)
language sql
stable
set search_path = ''
as $$
  with judged as (
    select u.instant, u.instant < p_on_time_from as is_late,
      -- What is caught up acts now, so now must be allowed as well.
      coalesce(
        fleet.instant_refusal(p_schedule, u.instant),
        case when u.instant < p_on_time_from then fleet.instant_refusal(p_schedule, p_now) end
      ) as refusal
    from unnest(p_instants) as u(instant)
  ),
  counted as (
    select j.*,
      count(*) filter (where j.refusal is null) over (order by j.instant) as n,
      count(*) filter (where j.refusal is null and j.is_late) over (order by j.instant) as late_n
    from judged as j
  )
  select c.instant, case when c.is_late then 'catchup' else 'schedule' end,
    coalesce(c.refusal, case when c.n > p_left then 'max_runs reached' end),
    greatest(
      fleet.opening_of(p_schedule, p_now),
      case
        when c.is_late and p_policies ->> 'catchup_rate' is not null
          then p_now + interval '1 minute' / (p_policies ->> 'catchup_rate')::double precision * (c.late_n - 1)
      end
    )
  from counted as c
$$;

comment on function fleet.decide_runs(public.schedules, jsonb, timestamptz[], timestamptz, bigint, timestamptz) is
  'For each instant that is to run: on time or caught up, what refuses it, and when it starts (the window opens, catching up is paced).';
revoke all on function fleet.decide_runs(public.schedules, jsonb, timestamptz[], timestamptz, bigint, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.instants_to_run(
  p_recurrence jsonb,
  p_policies jsonb,
  p_due timestamptz,
  p_window_from timestamptz,
  p_now timestamptz
)
returns timestamptz[]
language plpgsql
stable
set search_path = ''
as $$
declare
  v_last timestamptz;
begin
  if p_due >= p_window_from and coalesce(fleet.next_due(p_recurrence, p_due) > p_now, true) then
    return array[p_due];
  end if;

  if p_policies ->> 'catchup' = 'all' then
    return (
      select array_agg(o.instant order by o.instant)
      from (
        select i.instant
        from fleet.due_instants(p_recurrence, p_window_from, p_now + interval '1 microsecond') as i(instant)
        order by i.instant desc
        limit (p_policies ->> 'catchup_limit')::integer
      ) as o
    );
  end if;

  v_last := fleet.last_occurrence(p_recurrence, p_window_from, p_now + interval '1 microsecond');
  return case when v_last is not null then array[v_last] end;
end;
$$;

comment on function fleet.instants_to_run(jsonb, jsonb, timestamptz, timestamptz, timestamptz) is
  'Which of the instants that are due do run, by the catch-up policy; null for none.';
revoke all on function fleet.instants_to_run(jsonb, jsonb, timestamptz, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.missed_ranges(
  p_recurrence jsonb,
  p_policies jsonb,
  p_due timestamptz,
  p_window_from timestamptz,
  p_first_run timestamptz,
  p_now timestamptz
)
returns table (missed_from timestamptz, missed_to timestamptz, missed_count bigint, reason text)
language plpgsql
stable
set search_path = ''
as $$
declare
  v_end timestamptz := coalesce(p_first_run, p_now + interval '1 microsecond');
  v_split timestamptz := least(p_window_from, v_end);
begin
  return query
  select w.first_at, fleet.last_occurrence(p_recurrence, w.first_at, w.to_at),
    fleet.count_due(p_recurrence, w.first_at, w.to_at), w.reason
  from (
    select v.reason, v.to_at,
      -- p_due is due whatever the recurrence says by now; what follows is asked from the recurrence.
      case
        when v.from_at = p_due then p_due
        else fleet.next_due(p_recurrence, v.from_at - interval '1 microsecond')
      end as first_at
    from (
      values
        (p_due, v_split, case p_policies ->> 'catchup'
          when 'none' then 'catch-up is off'
          else 'outside the catch-up window'
        end),
        (v_split, v_end, case p_policies ->> 'catchup'
          when 'all' then 'beyond the catch-up limit'
          else 'superseded by a later instant'
        end)
    ) as v(from_at, to_at, reason)
    where v.from_at < v.to_at
  ) as w
  where w.first_at < w.to_at;
end;
$$;

comment on function fleet.missed_ranges(jsonb, jsonb, timestamptz, timestamptz, timestamptz, timestamptz) is
  'The due instants that do not run, as ranges with their reason: older than the window, and within it but before the first that runs.';
revoke all on function fleet.missed_ranges(jsonb, jsonb, timestamptz, timestamptz, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/30_schedules/expand.sql
-- From runs to commands: one row for each (run, device), in chunks.

create or replace function fleet.expand_runs(p_run_ids bigint[], p_now timestamptz, p_limit integer)
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_made bigint := 0;
  v_id bigint;
begin
  begin
    return fleet.write_commands(p_run_ids, p_now, p_limit);
  exception
    when query_canceled or admin_shutdown or deadlock_detected then
      raise;
    when others then
      -- One of them is bad: each by itself, and the error goes to its run.
      null;
  end;

  foreach v_id in array p_run_ids loop
    begin
      v_made := v_made + fleet.write_commands(array[v_id], p_now, p_limit);
    exception
      when query_canceled or admin_shutdown or deadlock_detected then
        raise;
      when others then
        update public.schedule_runs as r
        set status = 'failed', reason = 'error', error_message = sqlerrm, expanded_at = p_now, finished_at = p_now
        where r.id = v_id;
    end;
  end loop;
  return v_made;
end;
$$;

comment on function fleet.expand_runs(bigint[], timestamptz, integer) is
  'Make the next commands of these runs, at most p_limit devices of each. Answers how many rows were made.';
revoke all on function fleet.expand_runs(bigint[], timestamptz, integer)
  from public, anon, authenticated, service_role;

create or replace function fleet.has_unfinished(p_schedule_id bigint, p_device_id bigint, p_policies jsonb)
returns boolean
language sql
stable
set search_path = ''
as $$
  select case p_policies ->> 'overlap'
    when 'allow' then (
      select count(*) >= (p_policies ->> 'max_concurrent')::integer
      from public.device_commands as c
      where c.schedule_id = p_schedule_id and c.device_id = p_device_id and c.status in ('pending', 'running')
    )
    else exists (
      select 1
      from public.device_commands as c
      where c.schedule_id = p_schedule_id and c.device_id = p_device_id and c.status in ('pending', 'running')
    )
  end
$$;

comment on function fleet.has_unfinished(bigint, bigint, jsonb) is
  'Whether a device still has as much of this schedule to do as its overlap policy allows.';
revoke all on function fleet.has_unfinished(bigint, bigint, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.write_commands(p_run_ids bigint[], p_now timestamptz, p_limit integer)
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_made bigint;
  v_gone text;
begin
  select r.action_type into v_gone
  from public.schedule_runs as r
  where r.id = any (p_run_ids)
    and not exists (select 1 from public.command_types as t where t.name = r.action_type)
  limit 1;
  if found then
    raise exception 'command type "%" is gone', v_gone
      using errcode = 'PT409', detail = 'command_type_gone', hint = 'Make it again, or change the action_type of the schedule.';
  end if;

  with run as materialized (
    -- Locked, so that two sessions never expand the same run; one that is held elsewhere is expanded there.
    select r.id, r.owner_id, r.schedule_id, r.expires_at, r.expanded_to, r.priority, r.payload, t.name as command_type, t.channel,
      s.device_ids, s.group_ids, s.selector, fleet.effective_policies(s.policies) as policies,
      -- Devices need a look at what they still have to do only while another run of the schedule goes on.
      exists (
        select 1 from public.schedule_runs as o
        where o.schedule_id = r.schedule_id and o.id <> r.id and o.status in ('pending', 'running')
      ) as may_overlap
    from public.schedule_runs as r
    join public.schedules as s on s.id = r.schedule_id and s.owner_id = r.owner_id
    join public.command_types as t on t.name = r.action_type
    -- One run of a schedule at a time, here and in other sessions: within one statement, or unseen by each other, two of
    -- them could not tell that a device is busy with the other.
    where r.id in (
      select min(x.id)
      from public.schedule_runs as x
      where x.id = any (p_run_ids) and x.expanded_at is null and x.status in ('pending', 'running')
      group by x.schedule_id
    )
      and r.expanded_at is null
      and r.status in ('pending', 'running')
    for no key update of r, s skip locked
  ),
  -- One more than the limit tells whether anything is left.
  target as materialized (
    select r.id as run_id, t.device_id, t.hostname, row_number() over (partition by r.id order by t.device_id) as n,
      r.may_overlap and fleet.has_unfinished(r.schedule_id, t.device_id, r.policies) as is_busy
    from run as r
    cross join lateral fleet.targets(
      r.owner_id, r.device_ids, r.group_ids, r.selector, coalesce(r.expanded_to, 0), p_limit + 1
    ) as t
  ),
  made as (
    insert into public.device_commands (
      run_id, schedule_id, owner_id, device_id, device_hostname, channel, command_type, payload, priority, not_before,
      expires_at, max_attempts
    )
    select r.id, r.schedule_id, r.owner_id, t.device_id, t.hostname, r.channel, r.command_type, r.payload, r.priority, p_now,
      r.expires_at, (r.policies #>> '{retry,attempts}')::integer
    from target as t
    join run as r on r.id = t.run_id
    where t.n <= p_limit and not t.is_busy
    on conflict (run_id, device_id, step) do nothing
    returning run_id
  ),
  progress as (
    select r.id,
      (select count(*) from made as m where m.run_id = r.id) as made,
      (select count(*) from target as t where t.run_id = r.id and t.n <= p_limit and t.is_busy) as busy,
      (select max(t.device_id) from target as t where t.run_id = r.id and t.n <= p_limit) as reached,
      not exists (select 1 from target as t where t.run_id = r.id and t.n > p_limit) as is_whole
    from run as r
  ),
  noted as (
    update public.schedule_runs as r
    set targeted = r.targeted + p.made,
        skipped = r.skipped + p.busy,
        expanded_to = coalesce(p.reached, r.expanded_to, 0),
        expanded_at = case when p.is_whole then p_now end,
        status = case when p.is_whole and r.targeted + p.made = 0 then 'skipped' else 'running' end,
        reason = case
          when p.is_whole and r.targeted + p.made = 0
            then case when r.skipped + p.busy > 0 then 'overlap' else 'no targets' end
        end,
        finished_at = case when p.is_whole and r.targeted + p.made = 0 then p_now end
    from progress as p
    where r.id = p.id
  ),
  whole as (
    -- All of its commands may be final already: have the tick look at it once more.
    insert into fleet.run_progress (run_id, completed, failed)
    select p.id, 0, 0 from progress as p where p.is_whole
  )
  select count(*) into v_made from made;
  return v_made;
end;
$$;

comment on function fleet.write_commands(bigint[], timestamptz, integer) is
  'One statement: the next devices of these runs, their commands, and how far the runs have come.';
revoke all on function fleet.write_commands(bigint[], timestamptz, integer)
  from public, anon, authenticated, service_role;

create or replace function fleet.chunk_size()
returns integer
language sql
stable
set search_path = ''
as $$
  select greatest(1, fleet.setting_number(
    case
      when exists (
        select 1 from pg_catalog.pg_publication_tables as p
        where p.pubname = 'supabase_realtime' and p.schemaname = 'public' and p.tablename = 'device_commands'
      ) then 'expand_chunk_size_published'
      else 'expand_chunk_size'
    end
  ))::integer
$$;

comment on function fleet.chunk_size() is
  'How many commands go into one transaction; fewer while the table is published, where one transaction is one poll of Realtime.';
revoke all on function fleet.chunk_size() from public, anon, authenticated, service_role;

create or replace function fleet.expand_next(p_now timestamptz)
returns jsonb
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_chunk integer := fleet.chunk_size();
  v_small integer := 20;
  v_fresh bigint[];
  v_large bigint;
  v_made bigint := 0;
begin
  -- Small schedules never wait behind a large one: all fresh runs get their first devices, then one large run a chunk.
  select array_agg(r.id) into v_fresh
  from (
    select r.id
    from public.schedule_runs as r
    where r.expanded_at is null and r.status = 'pending'
    order by r.priority desc, r.id
    limit greatest(v_chunk / v_small, 1)
    for update skip locked
  ) as r;
  if v_fresh is not null then
    v_made := fleet.expand_runs(v_fresh, p_now, v_small);
  end if;

  select r.id into v_large
  from public.schedule_runs as r
  where r.expanded_at is null and r.status = 'running'
  order by r.priority desc, r.targeted, r.id
  limit 1
  for update skip locked;
  if v_large is not null then
    v_made := v_made + fleet.expand_runs(array[v_large], p_now, v_chunk);
  end if;

  return jsonb_build_object(
    'commands', v_made,
    -- Only after some progress: what another session holds, or cannot be expanded, must not keep this one spinning.
    'more', v_made > 0 and exists (
      select 1 from public.schedule_runs as r
      where r.expanded_at is null and r.status in ('pending', 'running')
    )
  );
end;
$$;

comment on function fleet.expand_next(timestamptz) is
  'One transaction''s worth of expansion. {commands, more}.';
revoke all on function fleet.expand_next(timestamptz) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/manage.sql
-- What people do with a schedule once it is there.

create or replace function fleet.schedule_of_caller(p_schedule_id bigint, p_permission text)
returns public.schedules
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_row public.schedules;
begin
  select s.* into v_row
  from public.schedules as s
  where s.id = p_schedule_id and fleet.is_visible_owner(s.owner_id)
  for update;
  if not found then
    perform fleet.raise_not_found(format('schedule %s', p_schedule_id));
  end if;
  perform fleet.require_permission(v_row.owner_id, p_permission, format('schedule %s', p_schedule_id));
  return v_row;
end;
$$;

comment on function fleet.schedule_of_caller(bigint, text) is
  'The schedule, locked, if the caller may do this with it. Raises schedule_not_found (PT404) or permission_missing (PT403). Definer: '
  'it must see the row to tell.';
revoke all on function fleet.schedule_of_caller(bigint, text) from public, anon, authenticated, service_role;

create or replace function fleet.set_schedule_status(p_schedule_id bigint, p_status text, p_reason text)
returns public.schedules
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_row public.schedules := fleet.schedule_of_caller(p_schedule_id, 'manage');
begin
  if v_row.status = p_status then
    return v_row;
  end if;

  if v_row.status = 'cancelled' or (v_row.status = 'completed' and p_status <> 'cancelled')
    or (p_status = 'active' and v_row.status <> 'paused')
  then
    raise exception 'schedule % is %', p_schedule_id, v_row.status
      using errcode = 'PT409',
            detail = 'schedule_' || v_row.status,
            hint = 'Change its times to use it again, or create it anew.';
  end if;

  update public.schedules as s
  set status = p_status, status_reason = p_reason
  where s.id = p_schedule_id
  returning * into v_row;
  return v_row;
end;
$$;

comment on function fleet.set_schedule_status(bigint, text, text) is
  'Pause, resume or cancel; the same again changes nothing. Raises PT404, PT403 or schedule_<status> (PT409). Definer: it checks the caller.';
revoke all on function fleet.set_schedule_status(bigint, text, text)
  from public, anon, authenticated, service_role;
grant execute on function fleet.set_schedule_status(bigint, text, text) to authenticated, service_role;

create or replace function public.pause_schedule(p_schedule_id bigint, p_reason text default null)
returns public.schedules
language sql
volatile
set search_path = ''
as $$
  select fleet.set_schedule_status(p_schedule_id, 'paused', p_reason)
$$;

comment on function public.pause_schedule(bigint, text) is
  'Let a schedule rest; what is due meanwhile is told as one row of the ledger when it resumes. Raises schedule_not_found (PT404) or '
  'schedule_completed, schedule_cancelled (PT409).';
revoke all on function public.pause_schedule(bigint, text) from public, anon, authenticated, service_role;
grant execute on function public.pause_schedule(bigint, text) to authenticated, service_role;

create or replace function public.resume_schedule(p_schedule_id bigint)
returns public.schedules
language sql
volatile
set search_path = ''
as $$
  select fleet.set_schedule_status(p_schedule_id, 'active', null)
$$;

comment on function public.resume_schedule(bigint) is
  'Go on at the next due instant. Raises schedule_not_found (PT404) or schedule_completed, schedule_cancelled (PT409).';
revoke all on function public.resume_schedule(bigint) from public, anon, authenticated, service_role;
grant execute on function public.resume_schedule(bigint) to authenticated, service_role;

create or replace function public.cancel_schedule(p_schedule_id bigint, p_reason text default null)
returns public.schedules
language sql
volatile
set search_path = ''
as $$
  select fleet.set_schedule_status(p_schedule_id, 'cancelled', p_reason)
$$;

comment on function public.cancel_schedule(bigint, text) is
  'End a schedule for good; commands that no device has started are cancelled. Raises schedule_not_found (PT404).';
revoke all on function public.cancel_schedule(bigint, text) from public, anon, authenticated, service_role;
grant execute on function public.cancel_schedule(bigint, text) to authenticated, service_role;

create or replace function fleet.run_schedule(p_schedule_id bigint, p_idempotency_key text, p_now timestamptz)
returns public.schedule_runs
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  -- Its lock makes two callers with the same key take turns: the second finds the run of the first.
  v_schedule public.schedules := fleet.schedule_of_caller(p_schedule_id, 'operate');
  v_run public.schedule_runs;
begin
  perform fleet.require_destructive(v_schedule.owner_id, v_schedule.action_type);
  if v_schedule.status = 'cancelled' then
    raise exception 'schedule % is cancelled', p_schedule_id
      using errcode = 'PT409', detail = 'schedule_cancelled', hint = 'Create it anew.';
  end if;

  select r.* into v_run
  from public.schedule_runs as r
  where r.schedule_id = p_schedule_id and r.idempotency_key = p_idempotency_key;
  if found then
    return v_run;
  end if;

  insert into public.schedule_runs (
    schedule_id, owner_id, scheduled_for, trigger, status, action_type, payload, priority, expires_at, idempotency_key, started_at
  )
  values (
    p_schedule_id, v_schedule.owner_id,
    -- An instant of its own, even in the microsecond of another run.
    (
      select g.at
      from generate_series(p_now, p_now + interval '1 millisecond', '1 microsecond') as g(at)
      where not exists (
        select 1 from public.schedule_runs as r where r.schedule_id = p_schedule_id and r.scheduled_for = g.at
      )
      order by g.at
      limit 1
    ),
    'manual', 'pending', v_schedule.action_type, v_schedule.payload, v_schedule.priority,
    fleet.run_expiry(fleet.effective_policies(v_schedule.policies), null, p_now), p_idempotency_key, p_now
  )
  returning * into v_run;

  update public.schedules as s
  set execution_count = s.execution_count + 1, last_executed_at = p_now
  where s.id = p_schedule_id;
  perform fleet.expand_runs(array[v_run.id], p_now, fleet.setting_number('inline_expand_limit')::integer);

  select r.* into v_run from public.schedule_runs as r where r.id = v_run.id;
  return v_run;
end;
$$;

comment on function fleet.run_schedule(bigint, text, timestamptz) is 'See public.run_schedule. Definer: it checks the caller.';
revoke all on function fleet.run_schedule(bigint, text, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.run_schedule(bigint, text, timestamptz) to authenticated, service_role;

create or replace function public.run_schedule(p_schedule_id bigint, p_idempotency_key text default null)
returns public.schedule_runs
language sql
volatile
set search_path = ''
as $$
  select fleet.run_schedule(p_schedule_id, p_idempotency_key, clock_timestamp())
$$;

comment on function public.run_schedule(bigint, text) is
  'Run a schedule now, besides its due instants. The same key again gives the same run. Raises schedule_not_found (PT404), '
  'permission_missing (PT403) or schedule_cancelled (PT409).';
revoke all on function public.run_schedule(bigint, text) from public, anon, authenticated, service_role;
grant execute on function public.run_schedule(bigint, text) to authenticated, service_role;

-- db/sources/30_schedules/policies_of_schedules.sql
-- Policies of a schedule: every default in one place, and what may be said instead.

create or replace function fleet.default_policies()
returns jsonb
language sql
immutable
parallel safe
return jsonb_build_object(
  -- What happens to a device that has not finished the run before: it is skipped, gets the new one when it has finished
  -- (one at most is kept waiting), gets it at once, or has the old one cancelled.
  'overlap', 'skip',
  'max_concurrent', 3,
  -- What happens to instants that passed while nothing ticked: none, the latest, or all of them.
  'catchup', 'latest',
  'catchup_window', '1 hour',
  'catchup_limit', 10,
  -- Runs a minute while catching up; null for all at once.
  'catchup_rate', null,
  -- Null: until the next due instant, at most 24 hours.
  'expires_after', null,
  'gap', 'first_instant',
  'fold', 'first',
  -- Null backoff: the setting retry_backoff_seconds. Only failures of these classes are tried again.
  'retry', jsonb_build_object(
    'attempts', 3, 'backoff', null, 'max_backoff', '1 hour',
    'on', jsonb_build_array('error', 'timeout', 'network', 'rate_limited', 'unavailable', 'lease_expired')
  ),
  -- Each device has a slot of its own within this time, the same at every run.
  'jitter', null,
  'execution_window', null,
  'blackouts', '[]'::jsonb,
  'max_runs', null,
  'pause_on_failure', null
);

comment on function fleet.default_policies() is 'The policies of a schedule that says nothing.';
revoke all on function fleet.default_policies() from public, anon, authenticated, service_role;
grant execute on function fleet.default_policies() to authenticated, service_role;

create or replace function fleet.effective_policies(p_policies jsonb)
returns jsonb
language sql
immutable
parallel safe
return (
  fleet.default_policies()
  || p_policies
  || jsonb_build_object(
    'retry', (fleet.default_policies() -> 'retry') || coalesce(p_policies -> 'retry', '{}'::jsonb)
  )
);

comment on function fleet.effective_policies(jsonb) is 'What a schedule says, completed by the defaults.';
revoke all on function fleet.effective_policies(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.effective_policies(jsonb) to authenticated, service_role;

create or replace function fleet.choice_problem(p_field text, p_value jsonb, p_choices text[])
returns table (field text, problem text, hint text)
language sql
immutable
set search_path = ''
as $$
  select p_field, format('%s is not one of %s', p_value, array_to_string(p_choices, ', ')),
    format('Use one of: %s.', array_to_string(p_choices, ', '))
  where p_value is not null
    and (jsonb_typeof(p_value) <> 'string' or (p_value #>> '{}') <> all (p_choices))
$$;

comment on function fleet.choice_problem(text, jsonb, text[]) is 'One row where a value is not among the choices.';
revoke all on function fleet.choice_problem(text, jsonb, text[]) from public, anon, authenticated, service_role;

create or replace function fleet.whole_number_problem(p_field text, p_value jsonb, p_least bigint, p_most bigint)
returns table (field text, problem text, hint text)
language sql
immutable
set search_path = ''
as $$
  select p_field, format('%s is not a whole number from %s to %s', p_value, p_least, p_most),
    format('Write a number without quotes, from %s to %s.', p_least, p_most)
  where p_value is not null
    and case
      when jsonb_typeof(p_value) <> 'number' then true
      else (p_value #>> '{}')::numeric <> trunc((p_value #>> '{}')::numeric)
        or (p_value #>> '{}')::numeric not between p_least and p_most
    end
$$;

comment on function fleet.whole_number_problem(text, jsonb, bigint, bigint) is
  'One row where a value is not a whole number within its bounds.';
revoke all on function fleet.whole_number_problem(text, jsonb, bigint, bigint)
  from public, anon, authenticated, service_role;

create or replace function fleet.duration_problem(p_field text, p_value jsonb)
returns table (field text, problem text, hint text)
language sql
immutable
set search_path = ''
as $$
  select p_field, format('%s is not a duration', p_value), 'Examples: "15 minutes", "2 hours", "1 day".'
  where p_value is not null
    and jsonb_typeof(p_value) <> 'null'
    and (
      jsonb_typeof(p_value) <> 'string'
      or fleet.try_interval(p_value #>> '{}') is null
      or fleet.try_interval(p_value #>> '{}') <= interval '0'
    )
$$;

comment on function fleet.duration_problem(text, jsonb) is 'One row where a value is not a positive duration.';
revoke all on function fleet.duration_problem(text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.policy_problems(p_policies jsonb)
returns table (field text, problem text, hint text)
language sql
immutable
set search_path = ''
as $$
  select 'policies.' || e.key, 'is not a policy',
    'The policies are ' || (select string_agg(d.key, ', ' order by d.key) from jsonb_each(fleet.default_policies()) as d) || '.'
  from jsonb_each(p_policies) as e
  where not fleet.default_policies() ? e.key
  union all
  select * from fleet.choice_problem('policies.overlap', p_policies -> 'overlap', '{skip,buffer_one,allow,replace}')
  union all
  select * from fleet.choice_problem('policies.catchup', p_policies -> 'catchup', '{none,latest,all}')
  union all
  select * from fleet.choice_problem('policies.gap', p_policies -> 'gap', '{first_instant,shift,skip}')
  union all
  select * from fleet.choice_problem('policies.fold', p_policies -> 'fold', '{first,second,both}')
  union all
  select * from fleet.whole_number_problem('policies.max_concurrent', p_policies -> 'max_concurrent', 1, 1000)
  union all
  select * from fleet.whole_number_problem('policies.catchup_limit', p_policies -> 'catchup_limit', 1, 1000)
  union all
  select * from fleet.whole_number_problem('policies.retry.attempts', p_policies #> '{retry,attempts}', 1, 1000)
  union all
  select * from fleet.duration_problem(
    'policies.catchup_window', case p_policies -> 'catchup_window' when 'null' then '""'::jsonb else p_policies -> 'catchup_window' end
  )
  union all
  select * from fleet.duration_problem('policies.expires_after', p_policies -> 'expires_after')
  union all
  select 'policies.retry', 'must be an object', 'Example: {"retry": {"attempts": 5}}'
  where p_policies ? 'retry' and jsonb_typeof(p_policies -> 'retry') <> 'object'
  union all
  select 'policies.retry.' || k, 'is not part of retry', 'Example: {"retry": {"attempts": 5}}'
  from jsonb_object_keys(
    case when jsonb_typeof(p_policies -> 'retry') = 'object' then p_policies -> 'retry' else '{}' end
  ) as k
  where not (fleet.default_policies() -> 'retry') ? k
$$;

comment on function fleet.policy_problems(jsonb) is 'Everything that is wrong with the policies of a schedule.';
revoke all on function fleet.policy_problems(jsonb) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/spec.sql
-- create_schedule: from the JSON of a person, a script or an older system to a row.

create or replace function fleet.schedule_aliases()
returns table (alias text, name text)
language sql
immutable
set search_path = ''
as $$
  values
    ('task_name', 'name'),
    ('task_type', 'action_type'),
    ('scheduled_time', 'start_time'),
    ('command_payload', 'payload'),
    ('software_payload', 'payload'),
    ('file_payload', 'payload')
$$;

comment on function fleet.schedule_aliases() is 'Keys that mean one of ours, as request bodies of task schedulers have them.';
revoke all on function fleet.schedule_aliases() from public, anon, authenticated, service_role;

create or replace function fleet.normal_schedule_spec(p_spec jsonb)
returns jsonb
language sql
immutable
set search_path = ''
as $$
  with named as (
    -- Clients that send every key of their model send null for what is not meant: of several names for one thing, the
    -- one that says something counts.
    select coalesce(jsonb_object_agg(k.name, k.value), '{}') as spec
    from (
      select distinct on (coalesce(a.name, e.key)) coalesce(a.name, e.key) as name, e.value
      from jsonb_each(p_spec) as e
      left join fleet.schedule_aliases() as a on a.alias = e.key
      order by coalesce(a.name, e.key), e.value = 'null', a.alias is not null, e.key
    ) as k
  )
  select n.spec
    || case n.spec ->> 'action_type'
      when 'command' then '{"action_type": "run_command"}'
      when 'software_deployment' then '{"action_type": "deploy_software"}'
      when 'file_deployment' then '{"action_type": "deploy_files"}'
      else '{}'
    end::jsonb
    || case n.spec ->> 'recurrence_type'
      when 'custom' then '{"recurrence_type": "cron"}'
      else '{}'
    end::jsonb
  from named as n
$$;

comment on function fleet.normal_schedule_spec(jsonb) is 'The same schedule in our own keys and words.';
revoke all on function fleet.normal_schedule_spec(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.is_id_list(p_list jsonb)
returns boolean
language sql
immutable
set search_path = ''
as $$
  select case jsonb_typeof(p_list)
    when 'array' then not exists (
      select 1
      from jsonb_array_elements(p_list) as e
      cross join lateral fleet.whole_number_problem('', e, 1, 9007199254740991)
    )
    else false
  end
$$;

comment on function fleet.is_id_list(jsonb) is 'Whether this is a JSON list of ids.';
revoke all on function fleet.is_id_list(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.after_problems(p_after jsonb)
returns table (field text, problem text, hint text)
language sql
immutable
set search_path = ''
as $$
  select 'after.schedule_id', 'is missing', 'Example: {"after": {"schedule_id": 7, "on": "completed"}}'
  where jsonb_typeof(p_after) = 'object' and not p_after ? 'schedule_id'
  union all
  select q.field, q.problem, q.hint
  from fleet.whole_number_problem(
    'after.schedule_id', case jsonb_typeof(p_after) when 'object' then p_after -> 'schedule_id' end, 1, 9007199254740991
  ) as q
  union all
  select q.field, q.problem, q.hint
  from fleet.choice_problem(
    'after.on', case jsonb_typeof(p_after) when 'object' then p_after -> 'on' end, '{completed,failed,either}'
  ) as q
$$;

comment on function fleet.after_problems(jsonb) is 'What is wrong with the key "after" of a schedule in JSON.';
revoke all on function fleet.after_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.spec_type_problems(p_spec jsonb)
returns table (field text, problem text, hint text)
language sql
stable
set search_path = ''
as $$
  with expected (key, kind) as (
    values
      ('name', 'string'), ('description', 'string'), ('action_type', 'string'), ('payload', 'object'),
      ('recurrence_type', 'string'), ('recurrence_config', 'object'), ('start_time', 'time'), ('end_time', 'time'),
      ('timezone', 'string'), ('device_ids', 'ids'), ('group_ids', 'ids'), ('selector', 'object'),
      ('profile_id', 'string'), ('device_id', 'id'), ('policies', 'object'), ('priority', 'priority'),
      ('ui_initiated', 'boolean'), ('owner_id', 'uuid'), ('after', 'object'),
      ('after_schedule_id', 'id'), ('after_on', 'string'), ('rrule', 'string')
  )
  select e.key, 'is not a key of a schedule',
    'The keys are ' || (select string_agg(x.key, ', ') from expected as x) || '.'
  from jsonb_each(p_spec) as e
  where e.key not in (select x.key from expected as x)
  union all
  select x.key, format('must be %s, not %s', case x.kind when 'object' then 'an object' else 'a ' || x.kind end, e.value),
    'Check the type of the value.'
  from expected as x
  join jsonb_each(p_spec) as e on e.key = x.key
  where x.kind in ('string', 'object', 'boolean')
    and jsonb_typeof(e.value) not in (x.kind, 'null')
  union all
  select x.key, format('%s is not a time', e.value), 'Write it like "2026-03-01T06:30:00" (local) or "2026-03-01T05:30:00Z".'
  from expected as x
  join jsonb_each(p_spec) as e on e.key = x.key
  where x.kind = 'time'
    and jsonb_typeof(e.value) <> 'null'
    and fleet.try_instant(e.value #>> '{}', 'UTC') is null
  union all
  select q.field, q.problem, q.hint
  from fleet.after_problems(p_spec -> 'after') as q
  union all
  select x.key, format('%s is not a uuid', e.value), 'Copy the id of the owner.'
  from expected as x
  join jsonb_each(p_spec) as e on e.key = x.key
  where x.kind = 'uuid'
    and jsonb_typeof(e.value) <> 'null'
    and fleet.try_uuid(e.value #>> '{}') is null
  union all
  select x.key, format('%s is not a list of ids', e.value), 'Write whole numbers without quotes, like [1, 2].'
  from expected as x
  join jsonb_each(p_spec) as e on e.key = x.key
  where x.kind = 'ids'
    and jsonb_typeof(e.value) <> 'null'
    and not fleet.is_id_list(e.value)
  union all
  select n.field, n.problem, n.hint
  from expected as x
  join jsonb_each(p_spec) as e on e.key = x.key
  cross join lateral fleet.whole_number_problem(
    x.key, e.value,
    case x.kind when 'id' then 1 else -100 end,
    case x.kind when 'id' then 9007199254740991 else 100 end
  ) as n
  where x.kind in ('id', 'priority') and jsonb_typeof(e.value) <> 'null'
$$;

comment on function fleet.spec_type_problems(jsonb) is
  'Keys of a schedule in JSON that are unknown or hold something of another type.';
revoke all on function fleet.spec_type_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.schedule_from_spec(p_spec jsonb)
returns public.schedules
language plpgsql
stable
set search_path = ''
as $$
declare
  v_row public.schedules;
  v_zone text := coalesce(p_spec ->> 'timezone', 'UTC');
begin
  -- Local times are read in the schedule's zone; where that is unknown the error about it comes first anyway.
  if not fleet.is_time_zone(v_zone) then
    v_zone := 'UTC';
  end if;

  v_row.owner_id := (p_spec ->> 'owner_id')::uuid;
  v_row.name := p_spec ->> 'name';
  v_row.description := coalesce(p_spec ->> 'description', '');
  v_row.action_type := p_spec ->> 'action_type';
  v_row.payload := coalesce(nullif(p_spec -> 'payload', 'null'), '{}');
  v_row.recurrence_type := coalesce(p_spec ->> 'recurrence_type', 'once');
  v_row.recurrence_config := coalesce(nullif(p_spec -> 'recurrence_config', 'null'), '{}');
  v_row.start_time := coalesce(fleet.try_instant(p_spec ->> 'start_time', v_zone), clock_timestamp());
  v_row.end_time := fleet.try_instant(p_spec ->> 'end_time', v_zone);
  v_row.timezone := coalesce(p_spec ->> 'timezone', 'UTC');
  v_row.device_ids := fleet.bigint_array(p_spec -> 'device_ids');
  v_row.group_ids := fleet.bigint_array(p_spec -> 'group_ids');
  v_row.selector := nullif(p_spec -> 'selector', 'null');
  v_row.profile_id := p_spec ->> 'profile_id';
  v_row.device_id := (p_spec ->> 'device_id')::bigint;
  v_row.policies := coalesce(nullif(p_spec -> 'policies', 'null'), '{}');
  v_row.priority := coalesce((p_spec ->> 'priority')::smallint, 0);
  v_row.ui_initiated := coalesce((p_spec ->> 'ui_initiated')::boolean, false);
  v_row.after_schedule_id := coalesce(p_spec -> 'after' -> 'schedule_id', p_spec -> 'after_schedule_id')::bigint;
  v_row.after_on := coalesce(p_spec -> 'after' ->> 'on', p_spec ->> 'after_on');
  return v_row;
end;
$$;

comment on function fleet.schedule_from_spec(jsonb) is
  'The row that a specification of the right types describes; defaults filled in, owner and derived columns not yet.';
revoke all on function fleet.schedule_from_spec(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.bigint_array(p_list jsonb)
returns bigint[]
language sql
immutable
set search_path = ''
as $$
  select coalesce(array_agg(distinct (e #>> '{}')::bigint), '{}')
  from jsonb_array_elements(case when jsonb_typeof(p_list) = 'array' then p_list else '[]' end) as e
$$;

comment on function fleet.bigint_array(jsonb) is 'A JSON list of whole numbers as an array, each once.';
revoke all on function fleet.bigint_array(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.create_schedule(p_spec jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_spec jsonb;
  v_row public.schedules;
  v_fields text[];
  v_problems text[];
  v_hints text[];
begin
  if jsonb_typeof(p_spec) is distinct from 'object' then
    raise exception 'a schedule must be a JSON object'
      using errcode = 'PT422', detail = 'schedule_invalid', hint = 'See the README, "Schedules by example".';
  end if;

  v_spec := fleet.normal_schedule_spec(p_spec);
  select array_agg(t.field), array_agg(t.problem), array_agg(t.hint)
  into v_fields, v_problems, v_hints
  from fleet.spec_type_problems(v_spec) as t;

  -- What has the wrong type is left out, so that everything else is still checked in the same answer.
  v_row := fleet.schedule_from_spec(
    v_spec - coalesce((select array_agg(split_part(f, '.', 1)) from unnest(v_fields) as f), '{}')
  );
  v_row.owner_id := fleet.owner_or_own(v_row.owner_id);
  perform fleet.require_permission(v_row.owner_id, 'manage', format('owner %s', v_row.owner_id));
  v_row := fleet.completed_schedule(v_row);

  select v_fields || array_agg(q.field), v_problems || array_agg(q.problem), v_hints || array_agg(q.hint)
  into v_fields, v_problems, v_hints
  from fleet.schedule_problems(v_row) as q
  where q.field <> all (coalesce(v_fields, '{}'));
  perform fleet.raise_problems('the schedule', 'schedule_invalid', v_fields, v_problems, v_hints);

  insert into public.schedules as s (
    owner_id, name, description, action_type, payload, recurrence_type, recurrence_config, start_time, end_time, timezone,
    device_ids, group_ids, selector, profile_id, device_id, policies, priority, ui_initiated, after_schedule_id, after_on
  )
  values (
    v_row.owner_id, v_row.name, v_row.description, v_row.action_type, v_row.payload, v_row.recurrence_type,
    v_row.recurrence_config, v_row.start_time, v_row.end_time, v_row.timezone, v_row.device_ids, v_row.group_ids,
    v_row.selector, v_row.profile_id, v_row.device_id, v_row.policies, v_row.priority, v_row.ui_initiated,
    v_row.after_schedule_id, v_row.after_on
  )
  returning s.id into v_row.id;

  -- Read again: what is due at once has run by now.
  select s.* into v_row from public.schedules as s where s.id = v_row.id;
  return to_jsonb(v_row) || jsonb_build_object('warnings', fleet.schedule_warnings(v_row));
end;
$$;

comment on function fleet.create_schedule(jsonb) is
  'See public.create_schedule. Definer: it checks the caller first, then sees what the checks need to see.';
revoke all on function fleet.create_schedule(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.create_schedule(jsonb) to authenticated, service_role;

create or replace function fleet.schedule_warnings(p_schedule public.schedules)
returns jsonb
language sql
stable
set search_path = ''
as $$
  select coalesce(jsonb_agg(w.text), '[]')
  from (
    select 'start_time is in the past: the run is in the ledger as skipped, outside the catch-up window' as text
    from public.schedule_runs as r
    where r.schedule_id = p_schedule.id
      and p_schedule.recurrence_type = 'once'
      and r.status = 'skipped'
      and r.reason = 'outside the catch-up window'
    union all
    select 'no device matches at this moment'
    where not exists (
      select 1
      from fleet.targets(
        p_schedule.owner_id, p_schedule.device_ids, p_schedule.group_ids, p_schedule.selector, 0, 1
      )
    )
    union all
    select 'the schedule has no due instant: nothing will run'
    where p_schedule.next_run_at is null
      and p_schedule.after_schedule_id is null
      and not exists (select 1 from public.schedule_runs as r where r.schedule_id = p_schedule.id)
  ) as w
$$;

comment on function fleet.schedule_warnings(public.schedules) is
  'What is allowed but probably not meant: a start in the past, nobody to reach, nothing due.';
revoke all on function fleet.schedule_warnings(public.schedules) from public, anon, authenticated, service_role;

create or replace function public.create_schedule(p_spec jsonb)
returns jsonb
language sql
volatile
set search_path = ''
as $$
  select fleet.create_schedule(p_spec)
$$;

comment on function public.create_schedule(jsonb) is
  'Create a schedule from JSON: name, action_type, payload, recurrence_type, recurrence_config, start_time, end_time, timezone, '
  'device_ids, group_ids, selector, policies, priority (task_name, task_type, scheduled_time, …_payload are understood too). A time '
  'without an offset is local to the zone. Answers the row with "warnings". Raises schedule_invalid (PT422, or PT404) naming every '
  'wrong field.';
revoke all on function public.create_schedule(jsonb) from public, anon, authenticated, service_role;
grant execute on function public.create_schedule(jsonb) to authenticated, service_role;

-- db/sources/30_schedules/start.sql
-- From due schedules to runs in the ledger.

create or replace function fleet.start_due_runs(
  p_now timestamptz,
  p_schedule_ids bigint[] default null,
  p_limit integer default 2000
)
returns bigint[]
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_due bigint[];
  v_id bigint;
  v_runs bigint[];
  v_one bigint[];
begin
  -- The lock keeps a second tick, or a trigger, from deciding about the same schedules; what it holds is skipped there.
  select array_agg(d.id) into v_due
  from (
    select s.id
    from public.schedules as s
    where s.status = 'active'
      and s.next_run_at <= p_now
      and (p_schedule_ids is null or s.id = any (p_schedule_ids))
    order by s.next_run_at
    limit p_limit
    for update skip locked
  ) as d;
  if v_due is null then
    return '{}';
  end if;

  begin
    return fleet.write_runs(v_due, p_now);
  exception
    when query_canceled or admin_shutdown or deadlock_detected then
      raise;
    when others then
      -- One of them is bad. Each by itself, so that the others do not pay for it; the error goes to its run.
      v_runs := '{}';
  end;

  foreach v_id in array v_due loop
    begin
      v_one := fleet.write_runs(array[v_id], p_now);
      v_runs := v_runs || v_one;
    exception
      when query_canceled or admin_shutdown or deadlock_detected then
        raise;
      when others then
        perform fleet.write_failed_run(v_id, p_now, sqlerrm);
    end;
  end loop;
  return v_runs;
end;
$$;

comment on function fleet.start_due_runs(timestamptz, bigint[], integer) is
  'Write the runs of the schedules that are due, at most p_limit schedules, and move them on. Answers the runs to expand. Any number '
  'of sessions may call it at once.';
revoke all on function fleet.start_due_runs(timestamptz, bigint[], integer)
  from public, anon, authenticated, service_role;

create or replace function fleet.write_runs(p_schedule_ids bigint[], p_now timestamptz)
returns bigint[]
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_runs bigint[];
begin
  perform fleet.refresh_union(p_schedule_ids);

  with decided as materialized (
    select s.id, s.owner_id, s.action_type, s.payload, s.priority, s.execution_count,
      (s.policies ->> 'max_runs')::bigint as max_runs, d.*
    from public.schedules as s
    cross join lateral fleet.decide_due(s, p_now) as d
    where s.id = any (p_schedule_ids)
  ),
  written as (
    insert into public.schedule_runs (
      schedule_id, owner_id, scheduled_for, trigger, status, reason, action_type, payload, priority, dst_rule, zones,
      missed_from, missed_to, missed_count, not_before, expires_at, started_at, finished_at
    )
    select d.id, d.owner_id, d.scheduled_for, d.trigger, d.status, d.reason, d.action_type, d.payload, d.priority, d.dst_rule,
      d.zones, d.missed_from, d.missed_to, d.missed_count, d.not_before, d.expires_at,
      case when d.status = 'pending' then p_now end,
      case when d.status = 'skipped' then p_now end
    from decided as d
    on conflict (schedule_id, scheduled_for) do nothing
    returning id, schedule_id, status
  ),
  moved as (
    update public.schedules as s
    set next_run_at = case when m.is_used_up then null else m.next_run_at end,
        execution_count = s.execution_count + m.run_count,
        last_executed_at = case when m.run_count > 0 then p_now else s.last_executed_at end,
        status = case when m.is_used_up or m.next_run_at is null then 'completed' else s.status end,
        status_reason = case
          when m.is_used_up then 'max_runs reached'
          when m.next_run_at is null then 'no due instant is left'
          else s.status_reason
        end
    from (
      select d.id, max(d.next_run_at) as next_run_at, count(*) filter (where d.status = 'pending') as run_count,
        coalesce(d.execution_count + count(*) filter (where d.status = 'pending') >= d.max_runs, false) as is_used_up
      from decided as d
      group by d.id, d.execution_count, d.max_runs
    ) as m
    where s.id = m.id
  )
  select array_agg(w.id order by w.id) into v_runs
  from written as w
  where w.status = 'pending';
  return coalesce(v_runs, '{}');
end;
$$;

comment on function fleet.write_runs(bigint[], timestamptz) is
  'Write into the ledger what decide_due says about these schedules, and move them on. The caller holds their rows.';
revoke all on function fleet.write_runs(bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.refresh_union(p_schedule_ids bigint[])
returns void
language sql
volatile
set search_path = ''
as $$
  -- Devices may have gone to other zones since; groups and selectors tell only now.
  update public.schedules as s
  set recurrence = fleet.compiled(s)
  where s.id = any (p_schedule_ids)
    and s.timezone = 'device'
    and s.recurrence -> 'zones' is distinct from to_jsonb(fleet.target_zones(s))
$$;

comment on function fleet.refresh_union(bigint[]) is
  'Recompile those of these schedules that go by device time and whose devices are in other zones than before.';
revoke all on function fleet.refresh_union(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.write_failed_run(p_schedule_id bigint, p_now timestamptz, p_error text)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_next timestamptz;
  v_last timestamptz;
  v_count bigint;
  v_lost boolean := false;
begin
  begin
    select fleet.next_occurrence(s.recurrence, p_now),
      fleet.last_occurrence(s.recurrence, s.next_run_at, p_now + interval '1 microsecond'),
      fleet.count_occurrences(s.recurrence, s.next_run_at, p_now + interval '1 microsecond')
    into v_next, v_last, v_count
    from public.schedules as s
    where s.id = p_schedule_id;
  exception
    when query_canceled or admin_shutdown then
      raise;
    when others then
      -- Not even the next instant can be told: going on would repeat the error every second.
      v_lost := true;
  end;

  insert into public.schedule_runs (
    schedule_id, owner_id, scheduled_for, status, reason, error_message, missed_from, missed_to, missed_count, started_at,
    finished_at
  )
  select s.id, s.owner_id, s.next_run_at, 'failed', 'error', p_error,
    case when v_count > 1 then s.next_run_at end,
    case when v_count > 1 then v_last end,
    case when v_count > 1 then v_count end,
    p_now, p_now
  from public.schedules as s
  where s.id = p_schedule_id
  on conflict (schedule_id, scheduled_for) do nothing;

  update public.schedules as s
  set next_run_at = v_next,
      status = case when v_lost then 'paused' when v_next is null then 'completed' else s.status end,
      status_reason = case when v_lost then 'its recurrence cannot be computed: ' || p_error else s.status_reason end
  where s.id = p_schedule_id;
end;
$$;

comment on function fleet.write_failed_run(bigint, timestamptz, text) is
  'Note the error of a schedule as a failed run and let it go on at its next instant; pause it where there is no telling.';
revoke all on function fleet.write_failed_run(bigint, timestamptz, text)
  from public, anon, authenticated, service_role;

create or replace function fleet.run_due(p_schedule_ids bigint[], p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_runs bigint[] := fleet.start_due_runs(p_now, p_schedule_ids);
  v_limit integer := fleet.setting_number('inline_expand_limit')::integer;
begin
  if cardinality(v_runs) > 0 then
    perform fleet.expand_runs(v_runs, p_now, greatest(v_limit / cardinality(v_runs), 1));
  end if;
end;
$$;

comment on function fleet.run_due(bigint[], timestamptz) is
  'Run what is due of these schedules now, up to the setting inline_expand_limit; the tick does the rest.';
revoke all on function fleet.run_due(bigint[], timestamptz) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/validation.sql
-- What is wrong with a schedule: everything at once, each with its field and what to do.

create or replace function fleet.payload_problems(p_command_type text, p_payload jsonb, p_field text default 'payload')
returns table (field text, problem text, hint text)
language sql
stable
set search_path = ''
as $$
  select 'action_type', coalesce('"' || nullif(p_command_type, '') || '" is not a known command type', 'is missing'),
    'List them with: select name, description from command_types'
  where not exists (select 1 from public.command_types as t where t.name = p_command_type)
  union all
  select p_field || '.' || k.key, 'is missing',
    format('%s needs "%s" (%s).', p_command_type, k.key, coalesce(k.value ->> 'type', 'any type'))
  from public.command_types as t
  cross join jsonb_each(t.payload_keys) as k
  where t.name = p_command_type
    and (k.value -> 'required') = 'true'::jsonb
    and coalesce(jsonb_typeof(p_payload -> k.key), 'null') = 'null'
  union all
  select p_field || '.' || k.key, format('must be a %s, not a %s', k.value ->> 'type', jsonb_typeof(p_payload -> k.key)),
    format('Example: {"%s": %s}', k.key, coalesce(k.value -> 'example', to_jsonb(k.value ->> 'type')))
  from public.command_types as t
  cross join jsonb_each(t.payload_keys) as k
  where t.name = p_command_type
    and p_payload ? k.key
    and jsonb_typeof(p_payload -> k.key) <> 'null'
    and jsonb_typeof(p_payload -> k.key) <> (k.value ->> 'type')
  union all
  select p_field || '.' || k.key, format('%s is not one of %s', p_payload -> k.key, k.value -> 'choices'),
    'Use one of the values named.'
  from public.command_types as t
  cross join jsonb_each(t.payload_keys) as k
  where t.name = p_command_type
    and k.value ? 'choices'
    and p_payload ? k.key
    and not (k.value -> 'choices') @> (p_payload -> k.key)
$$;

comment on function fleet.payload_problems(text, jsonb, text) is
  'What a payload lacks for its command type: missing keys, wrong types, values that are no choice.';
revoke all on function fleet.payload_problems(text, jsonb, text) from public, anon, authenticated, service_role;

create or replace function fleet.target_problems(
  p_owner_id uuid,
  p_device_ids bigint[],
  p_group_ids bigint[],
  p_selector jsonb
)
returns table (field text, problem text, hint text)
language sql
stable
set search_path = ''
as $$
  select 'device_ids', format('device %s was not found', u.id), 'List your devices with: pgfleet device list'
  from unnest(p_device_ids) as u(id)
  where not exists (select 1 from public.devices as d where d.id = u.id and d.owner_id = p_owner_id)
  union all
  select 'group_ids', format('group %s was not found', u.id), 'List your groups with: pgfleet group list'
  from unnest(p_group_ids) as u(id)
  where not exists (select 1 from public.device_groups as g where g.id = u.id and g.owner_id = p_owner_id)
  union all
  select s.field, s.problem, s.hint from fleet.selector_problems(p_selector) as s
  union all
  select 'device_ids', 'names nobody: there is no device, group or selector',
    'Give device_ids, group_ids or a selector; an empty selector {} means every device.'
  where p_device_ids = '{}' and p_group_ids = '{}' and p_selector is null
$$;

comment on function fleet.target_problems(uuid, bigint[], bigint[], jsonb) is
  'Targets that do not exist for this owner. What belongs to another owner is as good as not there.';
revoke all on function fleet.target_problems(uuid, bigint[], bigint[], jsonb)
  from public, anon, authenticated, service_role;

create or replace function fleet.schedule_problems(p_schedule public.schedules)
returns table (field text, problem text, hint text)
language sql
stable
set search_path = ''
as $$
  select 'name', 'must not be blank', 'Give the schedule a name.'
  where btrim(coalesce(p_schedule.name, '')) = ''
  union all
  select 'timezone', format('"%s" is not a known time zone', p_schedule.timezone), 'Use an IANA name such as Europe/Berlin.'
  where p_schedule.timezone <> 'device' and not fleet.is_time_zone(p_schedule.timezone)
  union all
  select r.field, r.problem, r.hint
  from fleet.recurrence_problems(
    p_schedule.recurrence_type, p_schedule.recurrence_config, fleet.reference_zone(p_schedule)
  ) as r
  where r.field <> 'timezone'
  union all
  select 'start_time', 'is after end_time', 'Let the schedule start before it ends.'
  where p_schedule.start_time > p_schedule.end_time
  union all
  select b.field, b.problem, b.hint
  from fleet.bounds_problems(
    fleet.recurrence_type(p_schedule.recurrence_type), fleet.recurrence_settings(p_schedule.recurrence_config),
    case when fleet.is_time_zone(p_schedule.timezone) then p_schedule.timezone else 'UTC' end,
    p_schedule.start_time, p_schedule.end_time
  ) as b
  where b.field <> 'end_time' or p_schedule.end_time = '-infinity'
  union all
  select 'priority', format('%s is not within -100 to 100', p_schedule.priority), 'The default is 0; higher goes first.'
  where p_schedule.priority not between -100 and 100
  union all
  select 'payload', 'must be an object', 'Example: {"message": "Hello"}'
  where jsonb_typeof(p_schedule.payload) <> 'object'
  union all
  select q.field, q.problem, q.hint
  from fleet.payload_problems(p_schedule.action_type, p_schedule.payload) as q
  where jsonb_typeof(p_schedule.payload) = 'object'
  union all
  select t.field, t.problem, t.hint
  from fleet.target_problems(
    p_schedule.owner_id, p_schedule.device_ids, p_schedule.group_ids, p_schedule.selector
  ) as t
  union all
  select f.field, f.problem, f.hint from fleet.follow_problems(p_schedule) as f
  union all
  select b.field, b.problem, b.hint from fleet.blackout_problems(p_schedule.owner_id, p_schedule.policies) as b
  where jsonb_typeof(p_schedule.policies) = 'object'
  union all
  select 'policies', 'must be an object', 'Example: {"overlap": "allow"}'
  where jsonb_typeof(p_schedule.policies) <> 'object'
  union all
  select q.field, q.problem, q.hint
  from fleet.policy_problems(
    case when jsonb_typeof(p_schedule.policies) = 'object' then p_schedule.policies else '{}' end
  ) as q
$$;

comment on function fleet.schedule_problems(public.schedules) is 'Everything that is wrong with a schedule; no row where nothing is.';
revoke all on function fleet.schedule_problems(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.raise_problems(p_what text, p_reason text, p_fields text[], p_problems text[], p_hints text[])
returns void
language plpgsql
immutable
set search_path = ''
as $$
begin
  if coalesce(cardinality(p_fields), 0) = 0 then
    return;
  end if;

  raise exception '% is not valid: %', p_what, (
    select string_agg(u.field || ': ' || u.problem, '; ')
    from unnest(p_fields, p_problems) as u(field, problem)
  )
    using errcode = case
            when (select bool_and(u.problem like '% was not found') from unnest(p_problems) as u(problem)) then 'PT404'
            else 'PT422'
          end,
          detail = p_reason,
          hint = (select string_agg(distinct u.hint, ' ') from unnest(p_hints) as u(hint));
end;
$$;

comment on function fleet.raise_problems(text, text, text[], text[], text[]) is
  'One error that names every wrong field; PT404 where all that is wrong is that something was not found, else PT422.';
revoke all on function fleet.raise_problems(text, text, text[], text[], text[])
  from public, anon, authenticated, service_role;

-- db/sources/30_schedules/windows.sql
-- Execution windows: at which local times a schedule may act.

create or replace function fleet.window_list(p_policies jsonb)
returns jsonb
language sql
immutable
parallel safe
return (
  case jsonb_typeof(p_policies -> 'execution_window')
    when 'array' then p_policies -> 'execution_window'
    when 'object' then jsonb_build_array(p_policies -> 'execution_window')
    else '[]'::jsonb
  end
);

comment on function fleet.window_list(jsonb) is 'The execution windows of effective policies; none means always.';
revoke all on function fleet.window_list(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.time_of_day(p_text text)
returns time
language sql
immutable
parallel safe
return (
  case when p_text ~ '^([01]?\d|2[0-4]):[0-5]\d(:[0-5]\d)?$' and p_text !~ '^24:.*[1-9]' then p_text::time end
);

comment on function fleet.time_of_day(text) is 'HH:MM or HH:MM:SS as a time, 24:00 for midnight; null where it is none.';
revoke all on function fleet.time_of_day(text) from public, anon, authenticated, service_role;

create or replace function fleet.is_in_window(p_window jsonb, p_local timestamp)
returns boolean
language sql
immutable
set search_path = ''
as $$
  select exists (
    select 1
    -- A window across midnight belongs to the day on which it begins.
    from (values (p_local::date), (p_local::date - 1)) as d(day)
    cross join lateral (
      select fleet.time_of_day(p_window ->> 'from') as opens, fleet.time_of_day(p_window ->> 'to') as closes
    ) as w
    where (
        not p_window ? 'days_of_week'
        or (p_window -> 'days_of_week') @> to_jsonb(extract(isodow from d.day)::integer - 1)
      )
      and p_local >= d.day + w.opens
      and p_local < d.day + w.closes + case when w.closes <= w.opens then interval '1 day' else interval '0' end
  )
$$;

comment on function fleet.is_in_window(jsonb, timestamp) is
  'Whether a local time lies in a window {from, to, days_of_week (0 = Monday)}; to is exclusive and may be on the next day.';
revoke all on function fleet.is_in_window(jsonb, timestamp) from public, anon, authenticated, service_role;

create or replace function fleet.window_opening(p_windows jsonb, p_place text, p_timezone text, p_from timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = ''
as $$
declare
  v_windows jsonb := (
    select jsonb_agg(w) from jsonb_array_elements(p_windows) as w where coalesce(w ->> 'in', 'schedule') = p_place
  );
  v_local timestamp := p_from at time zone p_timezone;
begin
  if v_windows is null
    or exists (select 1 from jsonb_array_elements(v_windows) as w where fleet.is_in_window(w, v_local))
  then
    return p_from;
  end if;

  -- Windows repeat weekly, so the next opening is within eight days.
  return (
    select min(o.instant)
    from jsonb_array_elements(v_windows) as w
    cross join generate_series(0, 8) as g(days)
    cross join lateral (
      select fleet.local_to_instant(
        v_local::date + g.days + fleet.time_of_day(w ->> 'from'), p_timezone
      ) as instant
    ) as o
    where o.instant > p_from
      and (
        not w ? 'days_of_week'
        or (w -> 'days_of_week') @> to_jsonb(extract(isodow from v_local::date + g.days)::integer - 1)
      )
  );
end;
$$;

comment on function fleet.window_opening(jsonb, text, text, timestamptz) is
  'p_from itself where it lies in one of the windows of this place (schedule or device), else when the next of them opens.';
revoke all on function fleet.window_opening(jsonb, text, text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.waits_for_window(p_windows jsonb, p_place text)
returns boolean
language sql
immutable
parallel safe
return (
  exists (
    select 1
    from jsonb_array_elements(p_windows) as w
    where coalesce(w ->> 'in', 'schedule') = p_place and w ->> 'outside' = 'wait'
  )
);

comment on function fleet.waits_for_window(jsonb, text) is
  'Whether what is due outside of the windows of this place waits for the next opening instead of being skipped.';
revoke all on function fleet.waits_for_window(jsonb, text) from public, anon, authenticated, service_role;

create or replace function fleet.window_problems(p_windows jsonb)
returns table (field text, problem text, hint text)
language sql
immutable
set search_path = ''
as $$
  with given as (
    select e.item as w, 'policies.execution_window' as field
    from jsonb_array_elements(
      case jsonb_typeof(p_windows) when 'array' then p_windows else jsonb_build_array(p_windows) end
    ) as e(item)
    where p_windows is not null and jsonb_typeof(p_windows) <> 'null'
  )
  select g.field, 'must be an object or a list of them', 'Example: {"from": "22:00", "to": "05:00"}'
  from given as g
  where jsonb_typeof(g.w) <> 'object'
  union all
  select g.field || '.' || k.key, 'is not a time of day', 'Write it like "22:00".'
  from given as g
  cross join (values ('from'), ('to')) as k(key)
  where jsonb_typeof(g.w) = 'object' and fleet.time_of_day(g.w ->> k.key) is null
  union all
  select q.field, q.problem, q.hint
  from given as g
  cross join lateral fleet.choice_problem(g.field || '.in', g.w -> 'in', '{schedule,device}') as q
  where jsonb_typeof(g.w) = 'object'
  union all
  select q.field, q.problem, q.hint
  from given as g
  cross join lateral fleet.choice_problem(g.field || '.outside', g.w -> 'outside', '{skip,wait}') as q
  where jsonb_typeof(g.w) = 'object'
  union all
  select g.field || '.days_of_week', 'must be a list of days from 0 (Monday) to 6', 'Example: [0, 1, 2, 3, 4]'
  from given as g
  where jsonb_typeof(g.w) = 'object'
    and g.w ? 'days_of_week'
    and (
      jsonb_typeof(g.w -> 'days_of_week') <> 'array'
      or g.w -> 'days_of_week' = '[]'
      or not '[0, 1, 2, 3, 4, 5, 6]'::jsonb @> (g.w -> 'days_of_week')
    )
  union all
  select g.field || '.' || k.key, 'is not a key of a window', 'The keys are from, to, days_of_week, in and outside.'
  from given as g
  cross join lateral jsonb_object_keys(case when jsonb_typeof(g.w) = 'object' then g.w else '{}' end) as k(key)
  where k.key not in ('from', 'to', 'days_of_week', 'in', 'outside')
$$;

comment on function fleet.window_problems(jsonb) is 'Everything that is wrong with execution windows.';
revoke all on function fleet.window_problems(jsonb) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/zones.sql
-- Device time: one schedule that is due in each device's own local time. Its compiled recurrence is a union with one member
-- for each time zone that its devices are in.

create or replace function fleet.reference_zone(p_schedule public.schedules)
returns text
language sql
immutable
parallel safe
return (case when (p_schedule).timezone = 'device' then 'UTC' else (p_schedule).timezone end);

comment on function fleet.reference_zone(public.schedules) is
  'The zone for what concerns a schedule as a whole: its own, or UTC where it goes by device time.';
revoke all on function fleet.reference_zone(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.target_zones(p_schedule public.schedules)
returns text[]
language sql
stable
set search_path = ''
as $$
  select coalesce(array_agg(distinct coalesce(t.timezone, 'UTC')), '{UTC}')
  from fleet.targets(p_schedule.owner_id, p_schedule.device_ids, p_schedule.group_ids, p_schedule.selector) as t
$$;

comment on function fleet.target_zones(public.schedules) is 'The time zones of the devices that a schedule reaches now; UTC where one has none.';
revoke all on function fleet.target_zones(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.compiled(p_schedule public.schedules)
returns jsonb
language sql
stable
set search_path = ''
as $$
  select case
    when p_schedule.timezone <> 'device' then fleet.compiled_in(p_schedule, p_schedule.timezone)
    else jsonb_build_object(
      'kind', 'union',
      'type', p_schedule.recurrence_type,
      'zones', to_jsonb(z.zones),
      'members', (select jsonb_agg(fleet.compiled_in(p_schedule, u.zone)) from unnest(z.zones) as u(zone))
    )
  end
  from (
    select case when p_schedule.timezone = 'device' then fleet.target_zones(p_schedule) end as zones
  ) as z
$$;

comment on function fleet.compiled(public.schedules) is 'The compiled recurrence of a valid schedule; a union for device time.';
revoke all on function fleet.compiled(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.compiled_in(p_schedule public.schedules, p_timezone text)
returns jsonb
language sql
stable
set search_path = ''
as $$
  select fleet.compile_recurrence(
    p_schedule.recurrence_type, p_schedule.recurrence_config, p_timezone,
    fleet.bound_in_zone(p_schedule, p_schedule.start_time, p_timezone),
    fleet.bound_in_zone(p_schedule, p_schedule.end_time, p_timezone),
    fleet.effective_policies(p_schedule.policies) ->> 'gap',
    fleet.effective_policies(p_schedule.policies) ->> 'fold'
  )
$$;

comment on function fleet.compiled_in(public.schedules, text) is 'The compiled recurrence of a schedule in one time zone.';
revoke all on function fleet.compiled_in(public.schedules, text) from public, anon, authenticated, service_role;

create or replace function fleet.bound_in_zone(p_schedule public.schedules, p_bound timestamptz, p_timezone text)
returns timestamptz
language sql
stable
set search_path = ''
as $$
  -- A single run in device time means the same hands of the clock everywhere; kept as UTC, read in each zone.
  select case
    when p_schedule.timezone = 'device' and p_schedule.recurrence_type = 'once'
      then fleet.local_to_instant(p_bound at time zone 'UTC', p_timezone)
    else p_bound
  end
$$;

comment on function fleet.bound_in_zone(public.schedules, timestamptz, text) is
  'Start or end of a schedule for one zone: a single run in device time is at the same local time in each.';
revoke all on function fleet.bound_in_zone(public.schedules, timestamptz, text)
  from public, anon, authenticated, service_role;

create or replace function fleet.next_due(p_recurrence jsonb, p_after timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = ''
as $$
begin
  if p_recurrence ->> 'kind' is distinct from 'union' then
    return fleet.next_occurrence(p_recurrence, p_after);
  end if;
  return (
    select min(fleet.next_occurrence(m.member, p_after))
    from jsonb_array_elements(p_recurrence -> 'members') as m(member)
  );
end;
$$;

comment on function fleet.next_due(jsonb, timestamptz) is 'The first due instant after p_after, in whichever zone; null when there is none.';
revoke all on function fleet.next_due(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.due_instants(p_recurrence jsonb, p_from timestamptz, p_to timestamptz)
returns setof timestamptz
language plpgsql
stable
set search_path = ''
as $$
begin
  if p_recurrence ->> 'kind' is distinct from 'union' then
    return query select o from fleet.occurrences(p_recurrence, p_from, p_to) as o;
    return;
  end if;
  return query
  select distinct o
  from jsonb_array_elements(p_recurrence -> 'members') as m(member)
  cross join lateral fleet.occurrences(m.member, p_from, p_to) as o
  order by o;
end;
$$;

comment on function fleet.due_instants(jsonb, timestamptz, timestamptz) is
  'The due instants within [p_from, p_to), each once however many zones share it.';
revoke all on function fleet.due_instants(jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.count_due(p_recurrence jsonb, p_from timestamptz, p_to timestamptz)
returns bigint
language plpgsql
stable
set search_path = ''
as $$
begin
  if p_recurrence ->> 'kind' is distinct from 'union' then
    return fleet.count_occurrences(p_recurrence, p_from, p_to);
  end if;
  return (select count(*) from fleet.due_instants(p_recurrence, p_from, p_to));
end;
$$;

comment on function fleet.count_due(jsonb, timestamptz, timestamptz) is 'How many due instants lie within [p_from, p_to).';
revoke all on function fleet.count_due(jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.zones_due(p_recurrence jsonb, p_instant timestamptz)
returns text[]
language plpgsql
stable
set search_path = ''
as $$
begin
  if p_recurrence ->> 'kind' is distinct from 'union' then
    return null;
  end if;
  return (
    select array_agg(m.member ->> 'timezone')
    from jsonb_array_elements(p_recurrence -> 'members') as m(member)
    where fleet.next_occurrence(m.member, p_instant - interval '1 microsecond') = p_instant
  );
end;
$$;

comment on function fleet.zones_due(jsonb, timestamptz) is
  'For whose devices an instant is due, by zone; null where the schedule has a zone of its own.';
revoke all on function fleet.zones_due(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.dst_rule_at(p_recurrence jsonb, p_instant timestamptz)
returns text
language plpgsql
stable
set search_path = ''
as $$
begin
  if p_recurrence ->> 'kind' is distinct from 'union' then
    return fleet.applied_rule(p_recurrence, p_instant);
  end if;
  return (
    select string_agg((m.member ->> 'timezone') || ' ' || r.rule, ', ')
    from jsonb_array_elements(p_recurrence -> 'members') as m(member)
    cross join lateral fleet.applied_rule(m.member, p_instant) as r(rule)
    where r.rule is not null
      and fleet.next_occurrence(m.member, p_instant - interval '1 microsecond') = p_instant
  );
end;
$$;

comment on function fleet.dst_rule_at(jsonb, timestamptz) is
  'Which rule moved an instant at a change of the clock, with the zone where there are several; null where none did.';
revoke all on function fleet.dst_rule_at(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.tg_refresh_device_time()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_now timestamptz := clock_timestamp();
begin
  -- Devices come and move; a schedule in device time must know every zone before its local time comes there.
  update public.schedules as s
  set recurrence = f.recurrence,
      next_run_at = least(s.next_run_at, fleet.next_due(f.recurrence, v_now))
  from (
    select x.id, fleet.compiled(x) as recurrence
    from public.schedules as x
    where x.timezone = 'device'
      and x.status = 'active'
      and x.after_schedule_id is null
      and exists (
        select 1 from new_rows as n
        where n.owner_id = x.owner_id
          and not (x.recurrence -> 'zones') @> to_jsonb(coalesce(n.timezone, 'UTC'))
      )
  ) as f
  where s.id = f.id;
  return null;
end;
$$;

comment on function fleet.tg_refresh_device_time() is
  'Recompile schedules in device time when their owner''s devices reach a new zone. Definer: who adds a device may not change schedules.';
revoke all on function fleet.tg_refresh_device_time() from public, anon, authenticated, service_role;

-- db/sources/30_schedules/triggers.sql
-- What holds for schedules however a row is written. The tick moves next_run_at and counters only, so it fires none of these.

create or replace trigger schedules_01_prepare
  before insert or update of owner_id, name, action_type, payload, recurrence_type, recurrence_config, start_time, end_time,
    timezone, device_ids, group_ids, selector, profile_id, device_id, policies, priority, after_schedule_id, after_on
  on public.schedules
  for each row execute function fleet.tg_prepare_schedule();

create or replace trigger schedules_02_change_status
  before update of status on public.schedules
  for each row
  when (new.status is distinct from old.status and new.status <> 'completed')
  execute function fleet.tg_change_schedule_status();

create or replace trigger schedules_03_run_due
  after insert on public.schedules
  referencing new table as new_rows
  for each statement execute function fleet.tg_run_due_schedules();

create or replace trigger devices_05_refresh_device_time_insert
  after insert on public.devices
  referencing new table as new_rows
  for each statement execute function fleet.tg_refresh_device_time();

create or replace trigger devices_05_refresh_device_time_update
  after update on public.devices
  referencing old table as old_rows new table as new_rows
  for each statement execute function fleet.tg_refresh_device_time();

create or replace trigger schedules_04_leave_followers
  before delete on public.schedules
  for each row execute function fleet.tg_leave_followers();

-- db/sources/30_schedules/policies.sql
-- Who sees and changes schedules and the ledger: members of the owner. Devices see neither.

revoke all on table public.schedules, public.schedule_runs from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.schedules, public.schedule_runs to service_role;
revoke all on sequence public.schedules_id_seq, public.schedule_runs_id_seq, fleet.run_progress_id_seq
  from public, anon, authenticated, service_role;
grant usage, select on sequence public.schedules_id_seq, public.schedule_runs_id_seq to service_role;

drop policy if exists schedules_all_service_role on public.schedules;
create policy schedules_all_service_role on public.schedules for all to service_role using (true) with check (true);
drop policy if exists schedule_runs_all_service_role on public.schedule_runs;
create policy schedule_runs_all_service_role on public.schedule_runs
  for all to service_role using (true) with check (true);

-- Counters and instants belong to the engine.
grant select, delete on table public.schedules to authenticated;
grant insert (
  owner_id, name, description, action_type, payload, recurrence_type, recurrence_config, start_time, end_time, timezone,
  device_ids, group_ids, selector, profile_id, device_id, policies, priority, ui_initiated, after_schedule_id, after_on
) on table public.schedules to authenticated;
grant update (
  name, description, action_type, payload, recurrence_type, recurrence_config, start_time, end_time, timezone,
  device_ids, group_ids, selector, profile_id, device_id, policies, priority, status, status_reason, after_schedule_id, after_on
) on table public.schedules to authenticated;

drop policy if exists schedules_select_member on public.schedules;
create policy schedules_select_member on public.schedules
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists schedules_insert_manager on public.schedules;
create policy schedules_insert_manager on public.schedules
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists schedules_update_manager on public.schedules;
create policy schedules_update_manager on public.schedules
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists schedules_delete_manager on public.schedules;
create policy schedules_delete_manager on public.schedules
  for delete to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));

grant select on table public.schedule_runs to authenticated;
drop policy if exists schedule_runs_select_member on public.schedule_runs;
create policy schedule_runs_select_member on public.schedule_runs
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

-- db/sources/40_commands/claim.sql
-- What a device does with its commands: claim, extend, give back.

create or replace function fleet.interrupt_unsafe(p_device_id bigint, p_journal uuid)
returns void
language sql
volatile
set search_path = ''
as $$
  -- Whoever held the lease may have been in the middle. Only the same journal can tell; without it, what is not safe to
  -- repeat ends here, and is not handed out again.
  update public.device_commands as c
  set status = 'failed', reason = 'interrupted',
      error_message = 'the device may have been in the middle of it, and its journal is gone'
  from public.command_types as t
  where c.device_id = p_device_id
    and c.status = 'pending'
    and c.channel = 'agent'
    and c.attempt > 0
    and c.lease_expires_at is not null
    and (c.journal_id is null or c.journal_id is distinct from p_journal)
    and t.name = c.command_type
    and not t.rerun_safe
$$;

comment on function fleet.interrupt_unsafe(bigint, uuid) is
  'End as interrupted what a device lost its lease on, may not repeat, and cannot know about.';
revoke all on function fleet.interrupt_unsafe(bigint, uuid) from public, anon, authenticated, service_role;

create or replace function fleet.claim_commands(p_limit integer, p_journal uuid, p_now timestamptz)
returns table (
  command_id bigint,
  command_type text,
  payload jsonb,
  attempt integer,
  priority integer,
  rerun_safe boolean,
  timeout_seconds integer,
  lease_expires_at timestamptz,
  lease_seconds integer,
  expires_at timestamptz,
  run_id bigint,
  step integer,
  created_at timestamptz
)
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_device_id bigint := fleet.require_device();
  v_lease integer := fleet.setting_number('lease_seconds')::integer;
begin
  perform fleet.touch_device(v_device_id, p_now);
  perform fleet.interrupt_unsafe(v_device_id, p_journal);

  return query
  with candidate as (
    -- Skipping what is locked makes the push path and the poll path safe together.
    select c.id
    from public.device_commands as c
    where c.device_id = v_device_id
      and c.status = 'pending'
      and c.channel = 'agent'
      and c.not_before <= p_now
      and c.expires_at > p_now
    order by c.priority desc, c.id
    limit least(greatest(p_limit, 1), 100)
    for update skip locked
  ),
  claimed as (
    update public.device_commands as c
    set status = 'running',
        attempt = c.attempt + 1,
        claimed_at = p_now,
        lease_expires_at = p_now + make_interval(secs => v_lease),
        journal_id = p_journal
    from candidate as k
    where c.id = k.id
    returning c.*
  )
  select c.id, c.command_type, c.payload, c.attempt, c.priority::integer, t.rerun_safe, t.timeout_seconds, c.lease_expires_at,
    v_lease, c.expires_at, c.run_id, c.step::integer, c.created_at
  from claimed as c
  join public.command_types as t on t.name = c.command_type
  order by c.priority desc, c.id;
end;
$$;

comment on function fleet.claim_commands(integer, uuid, timestamptz) is
  'See public.claim_commands. Definer: a device may not write the table but through this.';
revoke all on function fleet.claim_commands(integer, uuid, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.claim_commands(integer, uuid, timestamptz) to authenticated, service_role;

create or replace function public.claim_commands(p_limit integer default 10, p_journal uuid default null)
returns table (
  command_id bigint,
  command_type text,
  payload jsonb,
  attempt integer,
  priority integer,
  rerun_safe boolean,
  timeout_seconds integer,
  lease_expires_at timestamptz,
  lease_seconds integer,
  expires_at timestamptz,
  run_id bigint,
  step integer,
  created_at timestamptz
)
language sql
volatile
set search_path = ''
as $$
  select * from fleet.claim_commands(p_limit, p_journal, clock_timestamp())
$$;

comment on function public.claim_commands(integer, uuid) is
  'A device takes its next commands, the most urgent first, each with a lease that it must extend or finish. p_journal names the '
  'journal that remembers what was begun. Raises not_a_device (PT403).';
revoke all on function public.claim_commands(integer, uuid) from public, anon, authenticated, service_role;
grant execute on function public.claim_commands(integer, uuid) to authenticated, service_role;

create or replace function fleet.command_of_device(p_command_id bigint, p_attempt integer)
returns public.device_commands
language sql
volatile
set search_path = ''
as $$
  select c.*
  from public.device_commands as c
  where c.id = p_command_id
    and c.device_id = fleet.require_device()
    and c.channel = 'agent'
  for update
$$;

comment on function fleet.command_of_device(bigint, integer) is 'A command of the calling device, locked; null where it has none such.';
revoke all on function fleet.command_of_device(bigint, integer) from public, anon, authenticated, service_role;

create or replace function fleet.refusal(p_command public.device_commands, p_attempt integer)
returns text
language sql
immutable
set search_path = ''
as $$
  select case
    when p_command.id is null then 'not_found'
    when p_command.status = 'cancelled' then 'cancelled'
    when p_command.status not in ('pending', 'running') then 'already_final'
    when p_command.attempt is distinct from p_attempt then 'stale_attempt'
    -- Pending with its last lease on record: the lease ran out, but nobody has taken it since.
    when p_command.lease_expires_at is null then 'stale_attempt'
  end
$$;

comment on function fleet.refusal(public.device_commands, integer) is
  'Why a device that presents this attempt no longer holds the command; null where it does.';
revoke all on function fleet.refusal(public.device_commands, integer) from public, anon, authenticated, service_role;

create or replace function fleet.extend_command(p_command_id bigint, p_attempt integer, p_now timestamptz)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_command public.device_commands := fleet.command_of_device(p_command_id, p_attempt);
  v_refusal text := fleet.refusal(v_command, p_attempt);
begin
  if v_refusal is not null then
    return jsonb_build_object('accepted', false, 'reason', v_refusal);
  end if;

  update public.device_commands as c
  set status = 'running',
      lease_expires_at = p_now + make_interval(secs => fleet.setting_number('lease_seconds')::integer)
  where c.id = p_command_id
  returning * into v_command;
  return jsonb_build_object('accepted', true, 'lease_expires_at', v_command.lease_expires_at);
end;
$$;

comment on function fleet.extend_command(bigint, integer, timestamptz) is
  'See public.extend_command. Definer: a device may not write the table but through this.';
revoke all on function fleet.extend_command(bigint, integer, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.extend_command(bigint, integer, timestamptz) to authenticated, service_role;

create or replace function public.extend_command(p_command_id bigint, p_attempt integer)
returns jsonb
language sql
volatile
set search_path = ''
as $$
  select fleet.extend_command(p_command_id, p_attempt, clock_timestamp())
$$;

comment on function public.extend_command(bigint, integer) is
  'Keep a command for longer. {accepted: true, lease_expires_at} or {accepted: false, reason: stale_attempt, already_final, '
  'cancelled, not_found}.';
revoke all on function public.extend_command(bigint, integer) from public, anon, authenticated, service_role;
grant execute on function public.extend_command(bigint, integer) to authenticated, service_role;

create or replace function fleet.release_command(p_command_id bigint, p_attempt integer)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_command public.device_commands := fleet.command_of_device(p_command_id, p_attempt);
  v_refusal text := fleet.refusal(v_command, p_attempt);
begin
  if v_refusal is not null then
    return jsonb_build_object('accepted', false, 'reason', v_refusal);
  end if;

  update public.device_commands as c
  set status = 'pending', lease_expires_at = null
  where c.id = p_command_id;
  return jsonb_build_object('accepted', true, 'status', 'pending');
end;
$$;

comment on function fleet.release_command(bigint, integer) is
  'See public.release_command. Definer: a device may not write the table but through this.';
revoke all on function fleet.release_command(bigint, integer) from public, anon, authenticated, service_role;
grant execute on function fleet.release_command(bigint, integer) to authenticated, service_role;

create or replace function public.release_command(p_command_id bigint, p_attempt integer)
returns jsonb
language sql
volatile
set search_path = ''
as $$
  select fleet.release_command(p_command_id, p_attempt)
$$;

comment on function public.release_command(bigint, integer) is
  'Give back a command that was claimed but not started; it counts as no failure. {accepted, status} or {accepted: false, reason}.';
revoke all on function public.release_command(bigint, integer) from public, anon, authenticated, service_role;
grant execute on function public.release_command(bigint, integer) to authenticated, service_role;

-- db/sources/40_commands/doorbells.sql
-- Doorbells: telling a device that it has work. Nothing depends on a ring; it only saves waiting.

create or replace function fleet.ring(p_auth_id uuid, p_command_id bigint, p_command_type text)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  -- Plain Postgres without Realtime: devices look by themselves.
  if to_regprocedure('realtime.send(jsonb, text, text, boolean)') is not null then
    perform realtime.send(
      jsonb_build_object('command_id', p_command_id, 'command_type', p_command_type),
      'command',
      'device:' || p_auth_id,
      true
    );
  end if;
end;
$$;

comment on function fleet.ring(uuid, bigint, text) is
  'Send event command to the private topic device:<auth_id>. realtime.send turns its errors into warnings.';
revoke all on function fleet.ring(uuid, bigint, text) from public, anon, authenticated, service_role;

create or replace function fleet.queue_doorbells(p_command_ids bigint[])
returns void
language sql
volatile
set search_path = ''
as $$
  insert into fleet.doorbells as b (device_id, ring_at, priority, command_id, command_type)
  select distinct on (c.device_id, c.not_before) c.device_id, c.not_before, c.priority, c.id, c.command_type
  from public.device_commands as c
  where c.id = any (p_command_ids)
    and c.channel = 'agent'
  order by c.device_id, c.not_before, c.priority desc, c.id
  on conflict (device_id, ring_at) do update
    set priority = greatest(b.priority, excluded.priority)
$$;

comment on function fleet.queue_doorbells(bigint[]) is 'Leave it to the tick to ring for these commands, when they may start.';
revoke all on function fleet.queue_doorbells(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.ring_doorbells(p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_rate numeric := fleet.setting_number('doorbell_rate');
  v_allowed integer;
  v_rung integer;
begin
  -- The pace holds however often the tick comes: what may be rung follows from the time since the last rings.
  update fleet.heartbeat as h
  set last_rang_at = p_now
  from (select b.last_rang_at from fleet.heartbeat as b) as former
  where h.last_rang_at is null or p_now >= h.last_rang_at + interval '1 second' / greatest(v_rate, 1)::double precision
  returning floor(v_rate * least(
    1, coalesce(extract(epoch from p_now - former.last_rang_at), 1)
  ))::integer into v_allowed;
  if coalesce(v_allowed, 0) < 1 then
    return 0;
  end if;

  with chosen as (
    select b.device_id
    from fleet.doorbells as b
    where b.ring_at <= p_now
    group by b.device_id
    order by max(b.priority) desc, min(b.ring_at), b.device_id
    limit v_allowed
  ),
  taken as (
    -- One ring a device, however many commands wait.
    delete from fleet.doorbells as b
    using chosen as k
    where b.device_id = k.device_id and b.ring_at <= p_now
    returning b.device_id, b.priority, b.command_id, b.command_type
  )
  select count(fleet.ring(d.auth_id, t.command_id, t.command_type)) into v_rung
  from (
    select distinct on (x.device_id) x.device_id, x.command_id, x.command_type
    from taken as x
    order by x.device_id, x.priority desc, x.command_id
  ) as t
  join public.devices as d on d.id = t.device_id and d.status = 'active';
  return v_rung;
end;
$$;

comment on function fleet.ring_doorbells(timestamptz) is
  'Ring what is due, the most urgent first, no faster than the setting doorbell_rate a second. Answers how many devices were rung.';
revoke all on function fleet.ring_doorbells(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.tg_ring_new_commands()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_inline integer := fleet.setting_number('doorbell_inline_limit')::integer;
begin
  if (
    select count(*)
    from (
      select 1 from new_rows as n
      where n.channel = 'agent' and n.status = 'pending' and n.not_before <= v_now
      limit v_inline + 1
    ) as few
  ) <= v_inline then
    perform fleet.ring(d.auth_id, t.id, t.command_type)
    from (
      select distinct on (n.device_id) n.device_id, n.id, n.command_type
      from new_rows as n
      where n.channel = 'agent' and n.status = 'pending' and n.not_before <= v_now
      order by n.device_id, n.priority desc, n.id
    ) as t
    join public.devices as d on d.id = t.device_id;

    insert into fleet.doorbells (device_id, ring_at, priority, command_id, command_type)
    select distinct on (n.device_id, n.not_before) n.device_id, n.not_before, n.priority, n.id, n.command_type
    from new_rows as n
    where n.channel = 'agent' and n.status = 'pending' and n.not_before > v_now
    on conflict (device_id, ring_at) do nothing;
  else
    insert into fleet.doorbells (device_id, ring_at, priority, command_id, command_type)
    select n.device_id, n.not_before, n.priority, n.id, n.command_type
    from new_rows as n
    where n.channel = 'agent' and n.status = 'pending'
    on conflict (device_id, ring_at) do nothing;
  end if;
  return null;
end;
$$;

comment on function fleet.tg_ring_new_commands() is
  'Ring for new commands in their own transaction while they are few; leave many, and later ones, to the tick. Definer: whoever may '
  'insert a command may not write Realtime''s messages.';
revoke all on function fleet.tg_ring_new_commands() from public, anon, authenticated, service_role;

-- db/sources/40_commands/finish.sql
-- The end of an attempt: accepted once, retried by failure class.

create or replace function fleet.is_retryable(p_reason text)
returns boolean
language sql
immutable
parallel safe
return coalesce(p_reason, 'error') in ('error', 'timeout', 'network', 'rate_limited', 'unavailable', 'lease_expired');

comment on function fleet.is_retryable(text) is
  'Whether another attempt can help. interrupted, unsupported, forbidden, invalid_payload and their kin cannot be helped.';
revoke all on function fleet.is_retryable(text) from public, anon, authenticated, service_role;

create or replace function fleet.retry_delay(p_failure_count integer)
returns interval
language sql
stable
set search_path = ''
as $$
  select make_interval(
    secs => least(
      fleet.setting_number('retry_backoff_seconds')::double precision * power(2, least(greatest(p_failure_count, 1), 20) - 1),
      3600
    )
  )
$$;

comment on function fleet.retry_delay(integer) is
  'Pause after the n-th failure: the setting retry_backoff_seconds, doubling, at most an hour.';
revoke all on function fleet.retry_delay(integer) from public, anon, authenticated, service_role;

create or replace function fleet.settle_attempt(
  p_command public.device_commands,
  p_status text,
  p_result jsonb,
  p_error text,
  p_reason text,
  p_now timestamptz
)
returns public.device_commands
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_row public.device_commands;
  v_failures integer := p_command.failure_count + (p_status = 'failed')::integer;
  v_retry_at timestamptz := p_now + fleet.retry_delay(v_failures);
  v_again boolean := p_status = 'failed'
    and fleet.is_retryable(p_reason)
    and v_failures < p_command.max_attempts
    and v_retry_at < p_command.expires_at;
begin
  update public.device_commands as c
  set status = case when v_again then 'pending' else p_status end,
      reason = case when p_status = 'failed' then coalesce(p_reason, 'error') end,
      failure_count = v_failures,
      not_before = case when v_again then v_retry_at else c.not_before end,
      -- Whoever held it has said how it ended: nobody is owed another answer for this attempt.
      lease_expires_at = null,
      executed_at = case when v_again then null else p_now end,
      result = p_result,
      error_message = p_error
  where c.id = p_command.id
  returning * into v_row;

  if v_again and v_row.channel = 'agent' then
    perform fleet.queue_doorbells(array[v_row.id]);
  end if;
  return v_row;
end;
$$;

comment on function fleet.settle_attempt(public.device_commands, text, jsonb, text, text, timestamptz) is
  'Write how an attempt ended: final, or waiting for the next one. The caller holds the row.';
revoke all on function fleet.settle_attempt(public.device_commands, text, jsonb, text, text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.finish_command(
  p_command_id bigint,
  p_attempt integer,
  p_status text,
  p_result jsonb,
  p_error text,
  p_reason text,
  p_now timestamptz
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_command public.device_commands;
  v_refusal text;
begin
  if p_status is null or p_status not in ('completed', 'failed') then
    raise exception 'p_status must be completed or failed, not %', coalesce(quote_literal(p_status), 'null')
      using errcode = 'PT422', detail = 'status_invalid', hint = 'Use extend_command to go on, release_command to give it back.';
  end if;

  v_command := fleet.command_of_device(p_command_id, p_attempt);
  v_refusal := fleet.refusal(v_command, p_attempt);
  -- The answer to a finish may get lost on its way: the same finish again is the same success.
  if v_refusal = 'already_final' and v_command.attempt = p_attempt and v_command.status = p_status then
    return jsonb_build_object('accepted', true, 'status', v_command.status);
  elsif v_refusal is not null then
    return jsonb_build_object('accepted', false, 'reason', v_refusal);
  end if;

  v_command := fleet.settle_attempt(v_command, p_status, p_result, p_error, p_reason, p_now);
  return jsonb_build_object('accepted', true, 'status', v_command.status)
    || case
      when v_command.status = 'pending' then jsonb_build_object('retry_at', v_command.not_before)
      else '{}'
    end;
end;
$$;

comment on function fleet.finish_command(bigint, integer, text, jsonb, text, text, timestamptz) is
  'See public.finish_command. Definer: a device may not write the table but through this.';
revoke all on function fleet.finish_command(bigint, integer, text, jsonb, text, text, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.finish_command(bigint, integer, text, jsonb, text, text, timestamptz)
  to authenticated, service_role;

create or replace function public.finish_command(
  p_command_id bigint,
  p_attempt integer,
  p_status text,
  p_result jsonb default null,
  p_error text default null,
  p_reason text default null
)
returns jsonb
language sql
volatile
set search_path = ''
as $$
  select fleet.finish_command(p_command_id, p_attempt, p_status, p_result, p_error, p_reason, clock_timestamp())
$$;

comment on function public.finish_command(bigint, integer, text, jsonb, text, text) is
  'A device says how an attempt ended. {accepted: true, status} — status is pending, with retry_at, where it will be tried again — or '
  '{accepted: false, reason: stale_attempt, already_final, cancelled, not_found}. p_reason is the failure class. Raises status_invalid '
  '(PT422) or not_a_device (PT403).';
revoke all on function public.finish_command(bigint, integer, text, jsonb, text, text)
  from public, anon, authenticated, service_role;
grant execute on function public.finish_command(bigint, integer, text, jsonb, text, text)
  to authenticated, service_role;

-- db/sources/40_commands/rows.sql
-- What holds for device_commands however a row is written.

create or replace function fleet.tg_prepare_command()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_device public.devices;
  v_type public.command_types;
  v_fields text[];
  v_problems text[];
  v_hints text[];
begin
  if new.device_id is null then
    new.device_id := fleet.device_by_hostname(new.device_hostname, new.owner_id);
  end if;
  select d.* into v_device from public.devices as d where d.id = new.device_id;
  if not found or (new.owner_id is not null and new.owner_id <> v_device.owner_id) then
    perform fleet.raise_device_not_found(new.device_id);
  end if;
  perform fleet.require_permission(v_device.owner_id, 'operate', format('device %s', new.device_id));
  if v_device.status = 'retired' then
    raise exception 'device "%" is retired', v_device.hostname
      using errcode = 'PT409', detail = 'device_retired', hint = 'Re-key it to bring it back: pgfleet device rekey <hostname>';
  end if;

  select array_agg(replace(q.field, 'action_type', 'command_type')), array_agg(q.problem), array_agg(q.hint)
  into v_fields, v_problems, v_hints
  from fleet.payload_problems(new.command_type, new.payload) as q;
  if new.status <> 'pending' then
    v_fields := v_fields || 'status'::text;
    v_problems := v_problems || 'must be pending for a new command'::text;
    v_hints := v_hints || 'Leave status out.'::text;
  end if;
  if new.expires_at <= new.not_before then
    v_fields := v_fields || 'expires_at'::text;
    v_problems := v_problems || 'is not after not_before'::text;
    v_hints := v_hints || 'Leave expires_at out for 24 hours.'::text;
  end if;
  perform fleet.raise_problems('the command', 'command_invalid', v_fields, v_problems, v_hints);

  select t.* into v_type from public.command_types as t where t.name = new.command_type;
  perform fleet.require_destructive(v_device.owner_id, new.command_type);
  new.owner_id := v_device.owner_id;
  new.device_hostname := v_device.hostname;
  new.channel := v_type.channel;
  new.expires_at := coalesce(new.expires_at, new.not_before + interval '24 hours');
  new.created_by := fleet.current_user_id();
  return new;
end;
$$;

comment on function fleet.tg_prepare_command() is
  'Check an ad-hoc command however it is inserted, and find its device by host name where only that is given. Definer: it checks the '
  'caller, then sees what the checks need to see.';
revoke all on function fleet.tg_prepare_command() from public, anon, authenticated, service_role;

create or replace function fleet.device_by_hostname(p_hostname text, p_owner_id uuid)
returns bigint
language plpgsql
stable
set search_path = ''
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

create or replace function fleet.tg_change_command_status()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  if old.status not in ('pending', 'running') then
    raise exception 'command % is % already', old.id, old.status
      using errcode = 'PT409', detail = 'command_final', hint = 'What is final stays as it is.';
  end if;

  if new.status not in ('pending', 'running') then
    new.executed_at := coalesce(new.executed_at, clock_timestamp());
    new.lease_expires_at := null;
  elsif new.status = 'running' and new.lease_expires_at is not distinct from old.lease_expires_at then
    -- Somebody took it by a plain UPDATE: that is a claim too, and gets a lease like every other.
    new.attempt := old.attempt + 1;
    new.claimed_at := clock_timestamp();
    new.journal_id := null;
    new.lease_expires_at := clock_timestamp()
      + make_interval(secs => fleet.setting_number('lease_seconds')::integer);
  end if;
  return new;
end;
$$;

comment on function fleet.tg_change_command_status() is
  'What is final stays final; a plain UPDATE of status is a claim or a finish like any other. Definer: it reads a setting.';
revoke all on function fleet.tg_change_command_status() from public, anon, authenticated, service_role;

create or replace function fleet.tg_note_progress()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  if tg_op = 'DELETE' then
    -- What is deleted before it is final will not come any more; without this its run would wait for ever.
    insert into fleet.run_progress (run_id, completed, failed)
    select o.run_id, 0, count(*)
    from old_rows as o
    where o.status in ('pending', 'running')
      and exists (select 1 from public.schedule_runs as r where r.id = o.run_id)
    group by o.run_id;
    return null;
  end if;

  insert into fleet.run_progress (run_id, completed, failed)
  select n.run_id,
    count(*) filter (where n.status = 'completed'),
    count(*) filter (where n.status <> 'completed')
  from new_rows as n
  join old_rows as o on o.id = n.id
  where n.run_id is not null
    and o.status in ('pending', 'running')
    and n.status not in ('pending', 'running')
  group by n.run_id;
  return null;
end;
$$;

comment on function fleet.tg_note_progress() is
  'Note for the runs how many of their commands became final, or were deleted before. Definer: a device may not write the runs.';
revoke all on function fleet.tg_note_progress() from public, anon, authenticated, service_role;

create or replace function fleet.tg_check_new_commands()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_device_id bigint;
begin
  select n.device_id into v_device_id
  from new_rows as n
  where not exists (select 1 from public.devices as d where d.id = n.device_id and d.owner_id = n.owner_id)
  limit 1;
  if found then
    perform fleet.raise_device_not_found(v_device_id);
  end if;
  return null;
end;
$$;

comment on function fleet.tg_check_new_commands() is
  'A command''s device exists and has the command''s owner, whoever wrote the row. Definer: it must see every device.';
revoke all on function fleet.tg_check_new_commands() from public, anon, authenticated, service_role;

create or replace function fleet.tg_delete_commands_of_runs()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  delete from public.device_commands as c
  using old_rows as o
  where c.run_id = o.id;
  return null;
end;
$$;

comment on function fleet.tg_delete_commands_of_runs() is
  'Commands go with their run. Definer: whoever may delete a schedule may not delete commands.';
revoke all on function fleet.tg_delete_commands_of_runs() from public, anon, authenticated, service_role;

create or replace function fleet.tg_delete_commands_of_devices()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  delete from public.device_commands as c
  using old_rows as o
  where c.device_id = o.id;
  return null;
end;
$$;

comment on function fleet.tg_delete_commands_of_devices() is
  'Commands go with their device. Definer: whoever may delete a device may not delete commands.';
revoke all on function fleet.tg_delete_commands_of_devices() from public, anon, authenticated, service_role;

-- db/sources/40_commands/send.sql
-- Ad-hoc commands: sending and cancelling without a schedule.

create or replace function fleet.require_destructive(p_owner_id uuid, p_command_type text)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if exists (select 1 from public.command_types as t where t.name = p_command_type and t.destructive) then
    perform fleet.require_permission(p_owner_id, 'destructive', format('command type %s', p_command_type));
  end if;
end;
$$;

comment on function fleet.require_destructive(uuid, text) is
  'Raise permission_missing (PT403) where the command type is destructive and the caller may not wipe. Asked by whatever sends, '
  'schedules, runs or resumes; it must not run with fewer rights than a definer function.';
revoke all on function fleet.require_destructive(uuid, text) from public, anon, authenticated, service_role;

create or replace function fleet.send_command(
  p_device_id bigint,
  p_command_type text,
  p_payload jsonb,
  p_idempotency_key text,
  p_priority integer,
  p_not_before timestamptz,
  p_expires_after interval,
  p_max_attempts integer,
  p_now timestamptz
)
returns public.device_commands
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_owner uuid;
  v_row public.device_commands;
begin
  select d.owner_id into v_owner from public.devices as d where d.id = p_device_id;
  if v_owner is null then
    perform fleet.raise_device_not_found(p_device_id);
  end if;
  perform fleet.require_permission(v_owner, 'operate', format('device %s', p_device_id));

  -- The trigger of the table checks type, payload and device, as for every other insert.
  insert into public.device_commands as c (
    owner_id, device_id, command_type, payload, idempotency_key, priority, not_before, expires_at, max_attempts
  )
  values (
    v_owner, p_device_id, p_command_type, coalesce(p_payload, '{}'), p_idempotency_key, p_priority,
    coalesce(p_not_before, p_now),
    coalesce(p_not_before, p_now) + coalesce(p_expires_after, interval '24 hours'),
    coalesce(p_max_attempts, 3)
  )
  on conflict (device_id, idempotency_key) where idempotency_key is not null do nothing
  returning * into v_row;

  if v_row.id is null then
    select c.* into v_row
    from public.device_commands as c
    where c.device_id = p_device_id and c.idempotency_key = p_idempotency_key;
  end if;
  return v_row;
end;
$$;

comment on function fleet.send_command(bigint, text, jsonb, text, integer, timestamptz, interval, integer, timestamptz) is
  'See public.send_command. Definer: it checks the caller.';
revoke all on function fleet.send_command(bigint, text, jsonb, text, integer, timestamptz, interval, integer, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.send_command(bigint, text, jsonb, text, integer, timestamptz, interval, integer, timestamptz)
  to authenticated, service_role;

create or replace function public.send_command(
  p_device_id bigint,
  p_command_type text,
  p_payload jsonb default '{}',
  p_idempotency_key text default null,
  p_priority integer default 0,
  p_not_before timestamptz default null,
  p_expires_after interval default null,
  p_max_attempts integer default null
)
returns public.device_commands
language sql
volatile
set search_path = ''
as $$
  select fleet.send_command(
    p_device_id, p_command_type, p_payload, p_idempotency_key, p_priority, p_not_before, p_expires_after, p_max_attempts,
    clock_timestamp()
  )
$$;

comment on function public.send_command(bigint, text, jsonb, text, integer, timestamptz, interval, integer) is
  'Send one command to one device now, or not before an instant. The same idempotency key again gives the same row. Not started within '
  'p_expires_after (24 hours), it expires. Raises device_not_found (PT404), device_retired (PT409), permission_missing (PT403) or '
  'command_invalid (PT422).';
revoke all on function public.send_command(bigint, text, jsonb, text, integer, timestamptz, interval, integer)
  from public, anon, authenticated, service_role;
grant execute on function public.send_command(bigint, text, jsonb, text, integer, timestamptz, interval, integer)
  to authenticated, service_role;

create or replace function fleet.cancel_command(p_command_id bigint, p_reason text)
returns public.device_commands
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_row public.device_commands;
begin
  select c.* into v_row
  from public.device_commands as c
  where c.id = p_command_id and fleet.is_visible_owner(c.owner_id)
  for update;
  if not found then
    perform fleet.raise_not_found(format('command %s', p_command_id));
  end if;
  perform fleet.require_permission(v_row.owner_id, 'operate', format('command %s', p_command_id));

  if v_row.status = 'cancelled' then
    return v_row;
  elsif v_row.status not in ('pending', 'running') then
    raise exception 'command % is % already', p_command_id, v_row.status
      using errcode = 'PT409', detail = 'command_final', hint = 'What is final stays as it is.';
  end if;

  update public.device_commands as c
  set status = 'cancelled', reason = coalesce(p_reason, 'cancelled')
  where c.id = p_command_id
  returning * into v_row;
  return v_row;
end;
$$;

comment on function fleet.cancel_command(bigint, text) is 'See public.cancel_command. Definer: it checks the caller.';
revoke all on function fleet.cancel_command(bigint, text) from public, anon, authenticated, service_role;
grant execute on function fleet.cancel_command(bigint, text) to authenticated, service_role;

create or replace function public.cancel_command(p_command_id bigint, p_reason text default null)
returns public.device_commands
language sql
volatile
set search_path = ''
as $$
  select fleet.cancel_command(p_command_id, p_reason)
$$;

comment on function public.cancel_command(bigint, text) is
  'Cancel a command. A device that is at it already hears so when it extends its lease or finishes. Raises command_not_found (PT404) or '
  'command_final (PT409).';
revoke all on function public.cancel_command(bigint, text) from public, anon, authenticated, service_role;
grant execute on function public.cancel_command(bigint, text) to authenticated, service_role;

-- db/sources/40_commands/sweep.sql
-- What time does to commands: leases run out, commands expire.

create or replace function fleet.sweep_commands(p_now timestamptz, p_limit integer default 5000)
returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_swept integer := 0;
  v_again bigint[];
  v_count integer;
begin
  with lapsed as (
    select c.id
    from public.device_commands as c
    where c.status = 'running' and c.lease_expires_at < p_now
    order by c.lease_expires_at
    limit p_limit
    for update skip locked
  ),
  changed as (
    update public.device_commands as c
    set failure_count = c.failure_count + 1,
        status = case
          when c.failure_count + 1 >= c.max_attempts then 'failed'
          when c.expires_at <= p_now then 'expired'
          else 'pending'
        end,
        reason = 'lease_expired',
        error_message = case
          when c.failure_count + 1 >= c.max_attempts or c.expires_at <= p_now
            then 'the device took it and did not answer'
        end
    from lapsed as l
    where c.id = l.id
    returning c.id, c.status, c.channel
  )
  select coalesce(array_agg(c.id) filter (where c.status = 'pending' and c.channel = 'agent'), '{}'), count(*)
  into v_again, v_swept
  from changed as c;
  if v_again <> '{}' then
    perform fleet.queue_doorbells(v_again);
  end if;

  with expired as (
    select c.id
    from public.device_commands as c
    where c.status = 'pending' and c.expires_at <= p_now
    order by c.expires_at
    limit p_limit
    for update skip locked
  )
  update public.device_commands as c
  set status = 'expired', reason = coalesce(c.reason, 'expired')
  from expired as e
  where c.id = e.id;
  get diagnostics v_count = row_count;
  return v_swept + v_count;
end;
$$;

comment on function fleet.sweep_commands(timestamptz, integer) is
  'Offer again what its device did not answer for, end what failed too often, expire what nobody started in time. Answers how many.';
revoke all on function fleet.sweep_commands(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.run_outcome(
  p_run public.schedule_runs,
  p_completed bigint,
  p_failed bigint,
  p_now timestamptz
)
returns table (status text, reason text, finished_at timestamptz)
language sql
immutable
set search_path = ''
as $$
  select case when not o.is_over then p_run.status when p_failed = 0 then 'completed' else 'failed' end,
    case
      when not o.is_over then p_run.reason
      when p_failed > 0 then format('%s of %s commands did not complete', p_failed, p_run.targeted)
    end,
    case when o.is_over then p_now else p_run.finished_at end
  from (
    select p_run.status = 'running' and p_run.expanded_at is not null and p_completed + p_failed >= p_run.targeted as is_over
  ) as o
$$;

comment on function fleet.run_outcome(public.schedule_runs, bigint, bigint, timestamptz) is
  'What a run comes to with so many commands completed and failed: the end, or what it was.';
revoke all on function fleet.run_outcome(public.schedule_runs, bigint, bigint, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.settle_runs(p_now timestamptz, p_limit integer default 20000)
returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_finished integer;
begin
  with taken as (
    delete from fleet.run_progress as p
    where p.id in (select x.id from fleet.run_progress as x order by x.id limit p_limit for update skip locked)
    returning p.run_id, p.completed, p.failed
  ),
  added as (
    select t.run_id, sum(t.completed) as completed, sum(t.failed) as failed
    from taken as t
    group by t.run_id
  ),
  -- Only runs of which something was heard: a tick costs what happened, not what is open. A run is over when it is whole and
  -- every command of it is final; both in one statement, so that of two sessions the later one sees the sum.
  settled as (
    update public.schedule_runs as r
    set completed = r.completed + a.completed,
        failed = r.failed + a.failed,
        (status, reason, finished_at) = (
          select o.status, o.reason, o.finished_at
          from fleet.run_outcome(r, r.completed + a.completed, r.failed + a.failed, p_now) as o
        )
    from added as a
    where r.id = a.run_id
    returning r.finished_at
  )
  select count(*) into v_finished from settled as s where s.finished_at = p_now;
  return v_finished;
end;
$$;

comment on function fleet.settle_runs(timestamptz, integer) is
  'Add finished commands to their runs and end the runs that are through. Answers how many ended.';
revoke all on function fleet.settle_runs(timestamptz, integer) from public, anon, authenticated, service_role;

-- db/sources/40_commands/types.sql
-- The command types that come with pgfleet.

create or replace function fleet.built_in_command_types()
returns table (
  name text, channel text, description text, payload_keys jsonb, timeout_seconds integer, rerun_safe boolean, destructive boolean
)
language sql
immutable
set search_path = ''
as $$
  values
    ('lock', 'agent', 'Lock the screen of every session.', '{}'::jsonb, 30, true, false),
    ('unlock', 'agent', 'Unlock the sessions that lock locked.', '{}'::jsonb, 30, true, false),
    ('clear_cache', 'agent', 'Delete temporary files and caches.', '{}'::jsonb, 300, true, false),
    ('buzz', 'agent', 'Make a noise, so that the device can be found.',
      '{"seconds": {"type": "number", "example": 5}}'::jsonb, 60, false, false),
    ('broadcast_message', 'agent', 'Show a message to whoever sits at the device.',
      '{"message": {"type": "string", "required": true, "example": "Back up your work"},
        "title": {"type": "string"}}'::jsonb, 60, false, false),
    ('run_command', 'agent', 'Run a command line; only on agents that were started with --allow-run-command.',
      '{"command": {"type": "string", "required": true, "example": "systeminfo"},
        "shell": {"type": "string", "choices": ["cmd", "powershell", "pwsh", "sh", "bash", "zsh"]},
        "timeout": {"type": "number", "example": 60}}'::jsonb, 600, false, false)
$$;

comment on function fleet.built_in_command_types() is 'The command types that come with pgfleet.';
revoke all on function fleet.built_in_command_types() from public, anon, authenticated, service_role;

create or replace function fleet.sync_command_types()
returns void
language sql
volatile
set search_path = ''
as $$
  insert into public.command_types as t (
    name, channel, description, payload_keys, timeout_seconds, rerun_safe, destructive, is_built_in
  )
  select b.name, b.channel, b.description, b.payload_keys, b.timeout_seconds, b.rerun_safe, b.destructive, true
  from fleet.built_in_command_types() as b
  -- A type that an operator made under the same name stays the operator's.
  on conflict (name) do update
    set channel = excluded.channel, description = excluded.description, payload_keys = excluded.payload_keys,
        timeout_seconds = excluded.timeout_seconds, rerun_safe = excluded.rerun_safe, destructive = excluded.destructive
    where t.is_built_in
$$;

comment on function fleet.sync_command_types() is 'Bring the built-in command types up to date; called at every migrate.';
revoke all on function fleet.sync_command_types() from public, anon, authenticated, service_role;

-- db/sources/40_commands/triggers.sql
-- The conditions keep the rows that the engine makes, thousands in one statement, free of all but what they need.

create or replace trigger device_commands_01_prepare
  before insert on public.device_commands
  for each row when (new.run_id is null) execute function fleet.tg_prepare_command();

create or replace trigger device_commands_02_change_status
  before update of status on public.device_commands
  for each row when (new.status is distinct from old.status) execute function fleet.tg_change_command_status();

-- Nobody rewrites what a device answered.
create or replace trigger device_commands_02_keep_final
  before update of result, error_message on public.device_commands
  for each row
  when (
    old.status not in ('pending', 'running')
    and (new.result is distinct from old.result or new.error_message is distinct from old.error_message)
  )
  execute function fleet.tg_change_command_status();

create or replace trigger device_commands_03_check
  after insert on public.device_commands
  referencing new table as new_rows
  for each statement execute function fleet.tg_check_new_commands();

create or replace trigger device_commands_04_ring
  after insert on public.device_commands
  referencing new table as new_rows
  for each statement execute function fleet.tg_ring_new_commands();

create or replace trigger device_commands_05_note_progress
  after update on public.device_commands
  referencing old table as old_rows new table as new_rows
  for each statement execute function fleet.tg_note_progress();

create or replace trigger device_commands_06_note_deleted
  after delete on public.device_commands
  referencing old table as old_rows
  for each statement execute function fleet.tg_note_progress();

create or replace trigger schedule_runs_01_delete_commands
  after delete on public.schedule_runs
  referencing old table as old_rows
  for each statement execute function fleet.tg_delete_commands_of_runs();

create or replace trigger devices_04_delete_commands
  after delete on public.devices
  referencing old table as old_rows
  for each statement execute function fleet.tg_delete_commands_of_devices();

-- db/sources/40_commands/policies.sql
-- Who sees commands: members of the owner, and each device its own. A device may also answer by a plain UPDATE.

revoke all on table public.command_types, public.device_commands from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.command_types, public.device_commands to service_role;
revoke all on sequence public.device_commands_id_seq from public, anon, authenticated, service_role;
grant usage, select on sequence public.device_commands_id_seq to service_role;

drop policy if exists command_types_all_service_role on public.command_types;
create policy command_types_all_service_role on public.command_types
  for all to service_role using (true) with check (true);
drop policy if exists device_commands_all_service_role on public.device_commands;
create policy device_commands_all_service_role on public.device_commands
  for all to service_role using (true) with check (true);

grant select on table public.command_types to authenticated;
drop policy if exists command_types_select_person on public.command_types;
create policy command_types_select_person on public.command_types
  for select to authenticated using ((select fleet.current_user_id()) is not null);

grant select on table public.device_commands to authenticated;
grant insert (
  owner_id, device_id, device_hostname, command_type, payload, priority, status, not_before, expires_at, max_attempts, idempotency_key
) on table public.device_commands to authenticated;
grant update (status, result, error_message) on table public.device_commands to authenticated;

drop policy if exists device_commands_select_member_or_device on public.device_commands;
create policy device_commands_select_member_or_device on public.device_commands
  for select to authenticated
  using ((device_id = (select fleet.current_device_id()) and channel = 'agent') or owner_id = any (array(select fleet.my_owners())));
drop policy if exists device_commands_insert_operator on public.device_commands;
create policy device_commands_insert_operator on public.device_commands
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('operate'))));
drop policy if exists device_commands_update_operator_or_device on public.device_commands;
create policy device_commands_update_operator_or_device on public.device_commands
  for update to authenticated
  using ((device_id = (select fleet.current_device_id()) and channel = 'agent') or owner_id = any (array(select fleet.my_owners('operate'))))
  with check ((device_id = (select fleet.current_device_id()) and channel = 'agent') or owner_id = any (array(select fleet.my_owners('operate'))));

-- A device hears its own topic only. The table belongs to Realtime; where there is none, there is nothing to hear.
do $$
begin
  if to_regclass('realtime.messages') is null then
    return;
  end if;
  execute 'drop policy if exists pgfleet_messages_select_own_topic on realtime.messages';
  execute $policy$
    create policy pgfleet_messages_select_own_topic on realtime.messages
      for select to authenticated
      using (
        (select fleet.current_device_id()) is not null
        and (select realtime.topic()) = 'device:' || (select fleet.current_subject())
      )
  $policy$;
end;
$$;

-- db/sources/90_operations/maintenance.sql
-- Keeping house: pg_cron jobs, history, and what every migrate does last.

create or replace function fleet.jobs()
returns table (name text, schedule text, command text)
language sql
immutable
set search_path = ''
as $$
  values
    ('pgfleet-tick', '* * * * *', 'call fleet.tick_minute()'),
    -- After a restart of the server the ticks go on at once, not with the next minute.
    ('pgfleet-tick-boot', '@reboot', 'call fleet.tick_minute()'),
    ('pgfleet-prune-history', '17 3 * * *', 'call fleet.prune_history()')
$$;

comment on function fleet.jobs() is 'The pg_cron jobs: a fixed set, however many schedules there are.';
revoke all on function fleet.jobs() from public, anon, authenticated, service_role;

create or replace function fleet.sync_jobs()
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_job record;
begin
  if not exists (select 1 from pg_catalog.pg_extension where extname = 'pg_cron') then
    return;
  end if;

  for v_job in
    execute $query$
      select w.name, w.schedule, w.command
      from fleet.jobs() as w
      where not exists (
        select 1 from cron.job as j
        where j.jobname = w.name and j.schedule = w.schedule and j.command = w.command and j.username = current_user
      )
    $query$
  loop
    execute 'select cron.schedule($1, $2, $3)' using v_job.name, v_job.schedule, v_job.command;
  end loop;

  execute $query$
    select cron.unschedule(j.jobid)
    from cron.job as j
    where j.jobname like 'pgfleet-%'
      and j.jobname not in (select w.name from fleet.jobs() as w)
      and j.username = current_user
  $query$;
end;
$$;

comment on function fleet.sync_jobs() is 'Bring pg_cron''s jobs to what fleet.jobs() says, where pg_cron is installed.';
revoke all on function fleet.sync_jobs() from public, anon, authenticated, service_role;

create or replace function fleet.prune_batch(p_before timestamptz, p_limit integer default 5000)
returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_runs integer;
  v_commands integer;
begin
  delete from public.schedule_runs as r
  where r.id in (
    select x.id from public.schedule_runs as x
    where x.finished_at < p_before
    order by x.finished_at
    -- Their commands go with them, so a few large runs are a large batch.
    limit greatest(p_limit / 100, 1)
  );
  get diagnostics v_runs = row_count;

  delete from public.device_commands as c
  where c.id in (
    select x.id from public.device_commands as x
    where x.run_id is null and x.executed_at < p_before
    order by x.executed_at
    limit p_limit
  );
  get diagnostics v_commands = row_count;
  return v_runs + v_commands;
end;
$$;

comment on function fleet.prune_batch(timestamptz, integer) is
  'Delete a batch of finished runs, with their commands, and of finished ad-hoc commands. Answers how many rows.';
revoke all on function fleet.prune_batch(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace procedure fleet.prune_history()
language plpgsql
as $$
declare
  v_before timestamptz := pg_catalog.now()
    - pg_catalog.make_interval(days => fleet.setting_number('history_days')::integer);
begin
  while fleet.prune_batch(v_before) > 0 loop
    commit;
  end loop;
  commit;
  -- Nothing else ever prunes this table. Errors are kept longer than successes.
  if pg_catalog.to_regclass('cron.job_run_details') is not null then
    execute $query$
      delete from cron.job_run_details as d
      where d.end_time < pg_catalog.now() - interval '2 days' and d.status = 'succeeded'
        or d.end_time < pg_catalog.now() - interval '14 days'
    $query$;
  end if;
end;
$$;

comment on procedure fleet.prune_history() is
  'Delete history older than the setting history_days, in batches, and old run details of pg_cron.';
revoke all on procedure fleet.prune_history() from public, anon, authenticated, service_role;

create or replace function fleet.grant_worker()
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_function regprocedure;
begin
  if not exists (select 1 from pg_catalog.pg_roles where rolname = 'fleet_worker') then
    return;
  end if;
  grant usage on schema fleet to fleet_worker;
  for v_function in
    select p.oid
    from pg_catalog.pg_proc as p
    where p.pronamespace = 'fleet'::regnamespace and p.proname like 'worker\_%'
  loop
    execute format('grant execute on function %s to fleet_worker', v_function);
  end loop;
end;
$$;

comment on function fleet.grant_worker() is
  'Let the login of the HTTP functions execute fleet.worker_* and nothing else. The role is made by pgfleet functions setup.';
revoke all on function fleet.grant_worker() from public, anon, authenticated, service_role;

create or replace function fleet.after_migrate()
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform fleet.refresh_time_zones();
  perform fleet.sync_command_types();
  perform fleet.sync_publication();
  perform fleet.poke_key();
  perform fleet.grant_worker();
  perform fleet.sync_jobs();
end;
$$;

comment on function fleet.after_migrate() is 'What every migrate does last: data that follows from the sources.';
revoke all on function fleet.after_migrate() from public, anon, authenticated, service_role;

-- db/sources/90_operations/status.sql
-- How is it going: one look at the whole.

create or replace function fleet.engine_status(p_now timestamptz)
returns jsonb
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  v_jobs jsonb;
  v_cron boolean := exists (select 1 from pg_catalog.pg_extension where extname = 'pg_cron');
begin
  if v_cron then
    execute $query$
      select jsonb_object_agg(j.jobname, jsonb_build_object('active', j.active, 'last', (
        select d.status from cron.job_run_details as d
        where d.jobid = j.jobid and d.status <> 'running' order by d.runid desc limit 1
      )))
      from cron.job as j
      where j.jobname like 'pgfleet-%'
    $query$ into v_jobs;
  end if;

  return (
    select jsonb_build_object(
      'last_tick_at', h.last_tick_at,
      'tick_age_seconds', round(extract(epoch from p_now - h.last_tick_at)::numeric, 1),
      'is_ticking', coalesce(h.last_tick_at > p_now - interval '10 seconds', false),
      'tick_ms', h.tick_ms,
      -- The words of an error may quote anybody's data.
      'last_error', case when fleet.is_trusted_caller() then h.last_error end,
      'last_error_at', h.last_error_at,
      'pg_cron', v_cron,
      'jobs', coalesce(v_jobs, '{}'),
      'doorbells_waiting', (select count(*) from fleet.doorbells as b where b.ring_at <= p_now)
    )
    from fleet.heartbeat as h
  );
end;
$$;

comment on function fleet.engine_status(timestamptz) is
  'Heartbeat, jobs and waiting doorbells. Definer: people may not read the engine''s tables; nothing here is anybody''s data.';
revoke all on function fleet.engine_status(timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.engine_status(timestamptz) to authenticated, service_role;

create or replace function public.fleet_status(p_now timestamptz default now())
returns jsonb
language plpgsql
stable
set search_path = ''
as $$
begin
  -- Row security limits the counts to the caller's own; a device, retired or not, counts as nobody.
  if fleet.current_user_id() is null and not fleet.is_trusted_caller() then
    raise exception 'a device may not do this'
      using errcode = 'PT403', detail = 'not_a_person', hint = 'Sign in as a member of the fleet.';
  end if;

  return jsonb_build_object(
    'now', p_now,
    'devices', (
      select jsonb_build_object(
        'active', count(*) filter (where d.status = 'active'),
        'enrolled', count(*) filter (where d.status = 'active' and d.enrolled_at is not null),
        'seen_last_hour', count(*) filter (where d.status = 'active' and d.last_seen > p_now - interval '1 hour'),
        'seen_last_day', count(*) filter (where d.status = 'active' and d.last_seen > p_now - interval '1 day'),
        'retired', count(*) filter (where d.status = 'retired')
      )
      from public.devices as d
    ),
    'schedules', (
      select jsonb_build_object(
        'active', count(*) filter (where s.status = 'active'),
        'paused', count(*) filter (where s.status = 'paused'),
        'due', count(*) filter (where s.status = 'active' and s.next_run_at <= p_now),
        'next_run_at', min(s.next_run_at) filter (where s.status = 'active')
      )
      from public.schedules as s
    ),
    'runs_last_day', (
      select jsonb_build_object(
        'completed', count(*) filter (where r.status = 'completed'),
        'failed', count(*) filter (where r.status = 'failed'),
        'skipped', count(*) filter (where r.status = 'skipped'),
        'running', count(*) filter (where r.status in ('pending', 'running'))
      )
      from public.schedule_runs as r
      where r.created_at > p_now - interval '1 day'
    ),
    'commands', (
      select jsonb_build_object(
        'pending', count(*) filter (where c.status = 'pending'),
        'running', count(*) filter (where c.status = 'running'),
        'completed_last_day', count(*) filter (where c.status = 'completed'),
        'failed_last_day', count(*) filter (where c.status in ('failed', 'expired'))
      )
      from public.device_commands as c
      where c.status in ('pending', 'running') or c.executed_at > p_now - interval '1 day'
    ),
    'engine', fleet.engine_status(p_now)
  );
end;
$$;

comment on function public.fleet_status(timestamptz) is
  'The fleet at a glance: {devices, schedules, runs_last_day, commands, engine}. Raises not_a_person (PT403).';
revoke all on function public.fleet_status(timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.fleet_status(timestamptz) to authenticated, service_role;

create or replace function fleet.worker_health(p_now timestamptz default now())
returns jsonb
language sql
stable
security definer
set search_path = ''
as $$
  select jsonb_build_object(
    'ok', coalesce(h.last_tick_at > p_now - interval '60 seconds', false),
    'last_tick_at', h.last_tick_at,
    'tick_age_seconds', round(extract(epoch from p_now - h.last_tick_at)::numeric, 1)
  )
  from fleet.heartbeat as h
$$;

comment on function fleet.worker_health(timestamptz) is
  'Whether the database ticks: {ok, last_tick_at, tick_age_seconds}. Definer: the worker reads no table.';
revoke all on function fleet.worker_health(timestamptz) from public, anon, authenticated, service_role;

-- db/sources/90_operations/tick.sql
-- The tick: the only scheduler. Everything that time decides happens here.

create or replace function fleet.tick(p_now timestamptz default now())
returns jsonb
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_started timestamptz := clock_timestamp();
  v_runs bigint[] := '{}';
  v_expanded jsonb := '{}';
  v_swept integer := 0;
  v_settled integer := 0;
  v_rung integer := 0;
  v_errors text[] := '{}';
begin
  -- A migration holds this lock alone: new tables must not meet old functions.
  if not pg_try_advisory_xact_lock_shared(hashtext('pgfleet.migrate')) then
    return jsonb_build_object('skipped', 'a migration is running');
  end if;

  -- Each step by itself: a fault in one of them must not stop the others.
  begin
    v_runs := fleet.start_due_runs(p_now);
  exception when others then
    v_errors := v_errors || ('start: ' || sqlerrm);
  end;
  begin
    v_expanded := fleet.expand_next(p_now);
  exception when others then
    v_errors := v_errors || ('expand: ' || sqlerrm);
  end;
  begin
    v_swept := fleet.sweep_commands(p_now);
  exception when others then
    v_errors := v_errors || ('sweep: ' || sqlerrm);
  end;
  begin
    v_settled := fleet.settle_runs(p_now);
  exception when others then
    v_errors := v_errors || ('settle: ' || sqlerrm);
  end;
  begin
    v_rung := fleet.ring_doorbells(p_now);
  exception when others then
    v_errors := v_errors || ('ring: ' || sqlerrm);
  end;

  update fleet.heartbeat as h
  set last_tick_at = p_now,
      tick_count = h.tick_count + 1,
      tick_ms = round((extract(epoch from clock_timestamp() - v_started) * 1000)::numeric, 1),
      last_error = case when v_errors = '{}' then h.last_error else array_to_string(v_errors, '; ') end,
      last_error_at = case when v_errors = '{}' then h.last_error_at else p_now end;

  return v_expanded || jsonb_build_object(
    'runs', cardinality(v_runs),
    'swept', v_swept,
    'settled', v_settled,
    'rung', v_rung,
    'errors', to_jsonb(v_errors),
    'more', coalesce((v_expanded ->> 'more')::boolean, false) or cardinality(v_runs) >= 2000
  );
end;
$$;

comment on function fleet.tick(timestamptz) is
  'One step of the scheduler: start what is due, expand a chunk, end leases, settle runs, ring doorbells. {runs, commands, swept, '
  'settled, rung, errors, more}; more says that another tick has work at once. Any number of sessions may tick.';
revoke all on function fleet.tick(timestamptz) from public, anon, authenticated, service_role;

-- A procedure that commits can have no SET clause, so every name in it is qualified.
create or replace procedure fleet.tick_minute()
language plpgsql
as $$
declare
  v_next timestamptz;
  v_last timestamptz;
  v_result jsonb;
  v_waited integer := 0;
begin
  -- One ticker at a time. The one before leaves within a second of its last tick; until then this one waits, so that the
  -- hand-over leaves no gap.
  while not pg_catalog.pg_try_advisory_lock(pg_catalog.hashtext('pgfleet.ticker')) loop
    if v_waited >= 50 then
      return;
    end if;
    v_waited := v_waited + 1;
    perform pg_catalog.pg_sleep(0.1);
    commit;
  end loop;

  v_next := pg_catalog.date_trunc('second', pg_catalog.clock_timestamp());
  v_last := pg_catalog.date_trunc('minute', pg_catalog.clock_timestamp()) + interval '1 minute';
  loop
    exit when fleet.setting('ticker_enabled') = 'false'::pg_catalog.jsonb;
    begin
      v_result := fleet.tick(pg_catalog.clock_timestamp());
    exception when others then
      v_result := '{}';
      update fleet.heartbeat set last_error = sqlerrm, last_error_at = pg_catalog.clock_timestamp();
    end;
    commit;
    continue when coalesce((v_result ->> 'more')::boolean, false) and pg_catalog.clock_timestamp() <= v_last;

    -- From the second before, not from the clock: a slow commit delays one tick and skips none.
    v_next := greatest(
      v_next + interval '1 second',
      pg_catalog.date_trunc('second', pg_catalog.clock_timestamp())
    );
    exit when v_next > v_last;
    perform pg_catalog.pg_sleep(
      greatest(0, extract(epoch from v_next - pg_catalog.clock_timestamp()))::double precision
    );
    commit;
  end loop;
  perform pg_catalog.pg_advisory_unlock(pg_catalog.hashtext('pgfleet.ticker'));
end;
$$;

comment on procedure fleet.tick_minute() is
  'Tick on every whole second up to the next minute, each in its own transaction. The only statement of its pg_cron jobs, because it '
  'commits. The setting ticker_enabled stops it.';
revoke all on procedure fleet.tick_minute() from public, anon, authenticated, service_role;

-- Jobs, publications and time zones follow what was just defined.
set check_function_bodies = on;
select fleet.after_migrate();
reset search_path;
notify pgrst, 'reload schema';
