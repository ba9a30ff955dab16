-- Generated from db/sources by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/00_platform/casts.sql
-- Reading values out of text without raising.

create or replace function fleet.try_interval(p_text text)
returns interval
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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

-- db/sources/00_platform/secrets.sql
-- Random secrets, their hashes, and the signed short-lived tokens that pokes carry. Built on what Postgres itself has,
-- so that no extension is needed.

create or replace function fleet.random_secret()
returns text
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select encode(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 'hex')
$$;

comment on function fleet.random_secret() is '64 hexadecimal digits from 244 random bits.';
revoke all on function fleet.random_secret() from public, anon, authenticated, service_role;

create or replace function fleet.hash_secret(p_secret text)
returns bytea
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select sha256(convert_to(p_secret, 'UTF8'))
$$;

comment on function fleet.hash_secret(text) is 'What is stored of a secret. Only for secrets that are random, not for passwords.';
revoke all on function fleet.hash_secret(text) from public, anon, authenticated, service_role;

create or replace function fleet.xor_with_byte(p_bytes bytea, p_byte integer)
returns bytea
language sql
immutable
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
    ('stale_position_hours', '24',
      'After how long without a fix a device''s position is unknown; it keeps the places that it was in.'),
    ('ticker_enabled', 'true',
      'False stops the ticker at its next second, for maintenance.'),
    ('functions_url', 'null',
      'Address of the HTTP functions, such as https://functions.example.com/functions/v1.'),
    ('webhook_allow_private', 'false',
      'Whether webhooks may go to http:// and to private and loopback addresses. Leave it off where others make endpoints.')
$$;

comment on function fleet.default_settings() is 'Every setting with its default value and what it means.';
revoke all on function fleet.default_settings() from public, anon, authenticated, service_role;

create or replace function fleet.setting(p_name text)
returns jsonb
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
as $$
  select (fleet.setting(p_name) #>> '{}')::numeric
$$;

comment on function fleet.setting_number(text) is 'A setting that is a number.';
revoke all on function fleet.setting_number(text) from public, anon, authenticated, service_role;

create or replace function fleet.setting_problem(p_name text, p_default jsonb, p_value jsonb)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_name = 'default_owner' then
      case
        when coalesce(p_value, 'null') <> 'null' and not exists (
          select 1 from public.owners as o where o.id = fleet.try_uuid(p_value #>> '{}')
        ) then 'the id of an owner, or null'
      end
    when p_name = 'functions_url' then
      case
        when coalesce(p_value, 'null') <> 'null'
          and (jsonb_typeof(p_value) <> 'string' or p_value #>> '{}' !~ '^https?://[^[:space:]]+$')
          then 'an address that begins with http:// or https://, or null'
      end
    when jsonb_typeof(p_default) = 'boolean' then
      case when jsonb_typeof(p_value) is distinct from 'boolean' then 'true or false' end
    when jsonb_typeof(p_default) = 'number' then
      case
        -- Fractions make sense where something is a pace or a pause.
        when jsonb_typeof(p_value) is distinct from 'number'
          or (p_name not in ('doorbell_rate', 'retry_backoff_seconds') and (p_value #>> '{}')::numeric % 1 <> 0)
          then 'a whole number'
        when (p_value #>> '{}')::numeric not between b.least and 1000000 then format('between %s and 1000000', b.least)
      end
  end
  from (
    select case
      when p_name in ('doorbell_inline_limit', 'doorbell_rate', 'inline_expand_limit', 'retry_backoff_seconds') then 0
      else 1
    end as least
  ) as b
$$;

comment on function fleet.setting_problem(text, jsonb, jsonb) is
  'What the value of a setting must be, where it is not; null where it may be set.';
revoke all on function fleet.setting_problem(text, jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.set_setting(p_name text, p_value jsonb)
returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_default fleet.settings;
  v_problem text;
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

  v_problem := fleet.setting_problem(p_name, v_default.value, p_value);
  if v_problem is not null then
    raise exception 'setting "%" must be %, not %', p_name, v_problem, coalesce(p_value::text, 'null')
      using errcode = 'PT422',
            detail = 'setting_invalid',
            hint = format('The default is %s.', v_default.value);
  end if;

  insert into fleet.settings as s (name, value, description, updated_at)
  values (p_name, coalesce(p_value, 'null'), v_default.description, now())
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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

-- db/sources/10_registry/selectors.sql
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
returns table (field text, problem text, hint text)
language sql
immutable
set search_path = pg_catalog, pg_temp
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

-- db/sources/10_registry/triggers.sql
-- What holds for the registry however a row is written.

create or replace function fleet.tg_owner_from_caller()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
grant execute on function fleet.recurrence_problems(text, jsonb, text) to service_role;

create or replace function fleet.timezone_problems(p_timezone text)
returns table (field text, problem text, hint text)
language sql
stable
set search_path = pg_catalog, pg_temp
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
grant execute on function fleet.timezone_problems(text) to service_role;

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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
  to service_role;

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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
grant execute on function fleet.recompile_recurrence(jsonb) to service_role;

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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
  elsif p_recurrence ->> 'kind' = 'calendar' and p_limit is null and isfinite(v_from) and isfinite(v_to) then
    return fleet.count_in_calendar(p_recurrence, v_from, v_to);
  elsif p_limit is null or p_recurrence ->> 'kind' is distinct from 'calendar' or not isfinite(v_from) then
    return least((select count(*) from fleet.occurrences(p_recurrence, p_from, p_to)), p_limit);
  end if;

  -- In growing pieces, so that a small limit never looks through a long window.
  while v_count < p_limit and v_from < v_to loop
    v_count := v_count + fleet.count_in_calendar(p_recurrence, v_from, least(v_to, v_from + v_width));
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

create or replace function fleet.count_in_calendar(p_recurrence jsonb, p_from timestamptz, p_to timestamptz)
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count bigint := 0::bigint;
  v_span  record;
begin
  for v_span in
    select * from fleet.clock_spans(
      p_recurrence ->> 'clock', p_recurrence ->> 'resolve_gap', p_recurrence ->> 'resolve_fold',
      ceil(date_part('epoch', p_from))::bigint, ceil(date_part('epoch', p_to))::bigint
    )
  loop
    v_count := v_count + case
      when v_span.skipped_shift is null then
        fleet.count_slots(p_recurrence, v_span.begins_at + v_span.shift, v_span.ends_at + v_span.shift)
      else (
        select count(*) from fleet.calendar_occurrences(p_recurrence, v_span.begins_at, v_span.ends_at)
      )
    end;
  end loop;
  return v_count;
end;
$$;

comment on function fleet.count_in_calendar(jsonb, timestamptz, timestamptz) is
  'How many occurrences a compiled calendar recurrence has in [p_from, p_to), its start and end aside.';
revoke all on function fleet.count_in_calendar(jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.count_in_calendar(jsonb, timestamptz, timestamptz)
  to authenticated, service_role;

create or replace function fleet.count_slots(p_recurrence jsonb, p_from bigint, p_to bigint)
returns bigint
language plpgsql
immutable
strict
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_first_day bigint := p_from / 86400 + 1;
  v_last_day  bigint := p_to / 86400 - 1;
begin
  if v_last_day <= v_first_day then
    return (select count(*) from fleet.matching_slots(p_recurrence, p_from, p_to));
  end if;

  -- Whole days have as many each; only the two at the edges are looked at more closely.
  return (select count(*) from fleet.matching_slots(p_recurrence, p_from, v_first_day * 86400))
    + (select count(*) from fleet.matching_days(p_recurrence, v_first_day::integer, v_last_day::integer))
      * coalesce(
        jsonb_array_length(p_recurrence -> 'times'),
        length(replace(p_recurrence ->> 'hours', '0', ''))
          * length(replace(p_recurrence ->> 'minutes', '0', ''))
          * length(replace(p_recurrence ->> 'seconds', '0', ''))
      )
    + (select count(*) from fleet.matching_slots(p_recurrence, (v_last_day + 1) * 86400, p_to));
end;
$$;

comment on function fleet.count_slots(jsonb, bigint, bigint) is
  'How many local seconds in [p_from, p_to) a compiled calendar recurrence names.';
revoke all on function fleet.count_slots(jsonb, bigint, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.count_slots(jsonb, bigint, bigint) to authenticated, service_role;

-- db/sources/20_recurrence/72_applied_rule.sql
-- Which rule for skipped or repeated times an occurrence owes its instant to.

create or replace function fleet.applied_rule(p_recurrence jsonb, p_instant timestamptz)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
-- The next occurrence. Far from any change of the clocks it is plain arithmetic; near one, the spans of clocks decide.

create or replace function fleet.next_occurrence(p_recurrence jsonb, p_after timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
as $$
declare
  v_type   text := p_recurrence ->> 'type';
  v_config jsonb := p_recurrence -> 'config';
  v_clock  text := p_recurrence ->> 'clock';
  v_start  text := fleet.local_text(p_recurrence ->> 'start', v_clock);
  v_end    text := fleet.local_text(p_recurrence ->> 'end', v_clock);
begin
  if not p_recurrence ? 'kind' then
    return fleet.describe_recurrence(fleet.recompile_recurrence(p_recurrence));
  end if;

  return case
    when v_type = 'once' then 'once, on ' || v_start
    when v_type = 'interval' then
      format('every %s, counted from %s', fleet.english_length((p_recurrence ->> 'interval_seconds')::bigint), v_start)
    when v_type = 'cron' then fleet.describe_cron(v_config ->> 'cron_expression')
    else
      fleet.describe_days(v_type, v_config, (p_recurrence ->> 'start')::timestamptz at time zone v_clock)
      || ' at ' || fleet.describe_times(p_recurrence -> 'times')
  end
  || case when v_type <> 'once' and v_end is not null then ', until ' || v_end else '' end
  || format(' (%s)', p_recurrence ->> 'timezone')
  || fleet.describe_rules(p_recurrence);
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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

comment on function fleet.describe_rules(jsonb) is
  'The rules for skipped and repeated times where they are not the usual ones.';
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
as $$
declare
  v_month_days text := fleet.rrule_month_days(p_parts);
  v_weekdays   text := fleet.rrule_day_names(p_parts);
  v_set        jsonb := fleet.rrule_weekdays(p_parts);
  v_place      integer := (p_parts ->> 'BYSETPOS')::integer;
begin
  if v_month_days is not null and v_weekdays is not null then
    return '{"refused": "BYMONTHDAY together with BYDAY"}'::jsonb;
  elsif v_weekdays ~ '#-' then
    return '{"refused": "weekdays counted from the end, other than the last"}'::jsonb;
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
  return '{"refused": "BYSETPOS in this set"}'::jsonb;
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
as $$
begin
  if not p_parts ?| '{BYDAY,BYMONTHDAY,BYMONTH,BYSETPOS}' then
    return fleet.rrule_simple('daily', p_parts, p_local, '{}');
  elsif p_parts ? 'BYSETPOS' or p_parts ->> 'BYDAY' ~ '\d' then
    return '{"refused": "DAILY with BYSETPOS or numbered days"}'::jsonb;
  elsif coalesce(p_parts ->> 'INTERVAL', '1') <> '1' then
    return '{"refused": "DAILY with INTERVAL and BY rules"}'::jsonb;
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
set search_path = pg_catalog, pg_temp
as $$
declare
  v_start_day integer := date_part('isodow', p_local)::integer - 1;
  v_days      jsonb := coalesce(fleet.rrule_weekdays(p_parts), jsonb_build_array(v_start_day));
  v_every     text := coalesce(p_parts ->> 'INTERVAL', '1');
begin
  if p_parts ?| '{BYMONTHDAY,BYSETPOS}' or p_parts ->> 'BYDAY' ~ '\d' then
    return '{"refused": "WEEKLY with BYMONTHDAY, BYSETPOS or numbered days"}'::jsonb;
  elsif v_every <> '1' and coalesce(p_parts ->> 'WKST', 'MO') <> 'MO' and v_days <> jsonb_build_array(v_start_day) then
    return '{"refused": "WKST: our weeks begin on Monday"}'::jsonb;
  elsif not p_parts ? 'BYMONTH' then
    return fleet.rrule_simple('weekly', p_parts, p_local, jsonb_build_object('days_of_week', v_days));
  elsif v_every <> '1' then
    return '{"refused": "WEEKLY with INTERVAL and BYMONTH"}'::jsonb;
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
set search_path = pg_catalog, pg_temp
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
    return '{"refused": "MONTHLY with INTERVAL and such BY rules"}'::jsonb;
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
set search_path = pg_catalog, pg_temp
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
    return '{"refused": "YEARLY with days numbered within the year"}'::jsonb;
  elsif p_parts ? 'BYSETPOS' and v_months like '%,%' then
    return '{"refused": "YEARLY with BYSETPOS over several months"}'::jsonb;
  elsif v_fields ? 'refused' then
    return v_fields;
  elsif v_every = 1 then
    return fleet.rrule_cron(p_parts, p_local, v_fields ->> 'month_days', v_months, v_fields ->> 'weekdays');
  elsif v_simple is null or v_months <> v_start or v_every > 800 then
    return '{"refused": "YEARLY with INTERVAL and such BY rules"}'::jsonb;
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
set search_path = pg_catalog, pg_temp
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
grant execute on function fleet.recurrence_from_rrule(text, timestamptz, text) to service_role;

create or replace function fleet.rrule_parts(p_rrule text)
returns jsonb
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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

-- db/sources/30_schedules/apply.sql
-- Applying a document: what it names comes to be as it says, whatever was there before.

create or replace function fleet.document_problems(p_document jsonb)
returns table (field text, problem text, hint text)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  with section as (
    select e.key, e.value
    from jsonb_each(case when jsonb_typeof(p_document) = 'object' then p_document else '{}' end) as e
    where e.key in ('schedules', 'templates', 'blackout_calendars', 'groups')
  ),
  item as (
    select s.key, format('%s[%s]', s.key, e.place - 1) as field, e.value
    from section as s
    cross join lateral jsonb_array_elements(case when jsonb_typeof(s.value) = 'array' then s.value else '[]' end)
      with ordinality as e(value, place)
  )
  select 'document', 'must be an object', 'Example: {"version": 1, "schedules": []}'
  where jsonb_typeof(p_document) is distinct from 'object'
  union all
  select 'version', 'must be 1', 'Write "version": 1; a document of a newer pgfleet needs a newer pgfleet.'
  where jsonb_typeof(p_document) = 'object' and (p_document -> 'version') is distinct from '1'
  union all
  select e.key, 'is not part of a document', 'The parts are version, groups, blackout_calendars, templates and schedules.'
  from jsonb_each(case when jsonb_typeof(p_document) = 'object' then p_document else '{}' end) as e
  where e.key not in ('version', 'schedules', 'templates', 'blackout_calendars', 'groups')
  union all
  select s.key, 'must be a list', format('Example: "%s": []', s.key)
  from section as s
  where jsonb_typeof(s.value) <> 'array'
  union all
  select i.field, 'must be an object with a name', 'Example: {"name": "Nightly"}'
  from item as i
  where jsonb_typeof(i.value) <> 'object'
    or jsonb_typeof(i.value -> 'name') is distinct from 'string'
    or btrim(i.value ->> 'name') = ''
  union all
  select i.key, format('there are %s named "%s"', count(*), min(i.value ->> 'name')), 'Names tell them apart: use each once.'
  from item as i
  where jsonb_typeof(i.value) = 'object'
  group by i.key, lower(i.value ->> 'name')
  having count(*) > 1
$$;

comment on function fleet.document_problems(jsonb) is 'What is wrong with the shape of a document.';
revoke all on function fleet.document_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.document_changes(p_old jsonb, p_new jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    jsonb_object_agg(coalesce(o.key, n.key), jsonb_build_object('from', o.value, 'to', n.value)),
    '{}'
  )
  from jsonb_each(p_old) as o
  full join jsonb_each(p_new) as n on n.key = o.key
  where o.value is distinct from n.value and coalesce(o.key, n.key) <> 'name'
$$;

comment on function fleet.document_changes(jsonb, jsonb) is 'Key to {from, to} of what differs between two descriptions of one thing.';
revoke all on function fleet.document_changes(jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.plan_item(p_kind text, p_name text, p_old jsonb, p_new jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object('kind', p_kind, 'name', p_name)
    || case
      when p_old is null then '{"do": "create"}'
      when c.changes = '{}' then '{"do": "nothing"}'
      else jsonb_build_object('do', 'change', 'changes', c.changes)
    end
  from (select fleet.document_changes(p_old, p_new) as changes) as c
$$;

comment on function fleet.plan_item(text, text, jsonb, jsonb) is 'What is to be done about one thing of a document.';
revoke all on function fleet.plan_item(text, text, jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.apply_group(p_owner_id uuid, p_group jsonb)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_groups;
  v_old jsonb;
  v_ids bigint[];
begin
  perform fleet.refuse_unknown_keys(p_group, '{name,description,selector,devices}');
  select fleet.bigint_array(fleet.resolved_spec(p_owner_id, jsonb_build_object('devices', p_group -> 'devices')) -> 'device_ids')
  into v_ids;
  select g.* into v_row
  from public.device_groups as g
  where g.owner_id = p_owner_id and lower(g.name) = lower(p_group ->> 'name');
  if found then
    v_old := fleet.group_document(v_row);
    update public.device_groups as g
    set description = coalesce(p_group ->> 'description', ''), selector = nullif(p_group -> 'selector', 'null')
    where g.id = v_row.id
      and (g.description, g.selector) is distinct from (coalesce(p_group ->> 'description', ''), nullif(p_group -> 'selector', 'null'));
  else
    insert into public.device_groups (owner_id, name, description, selector)
    values (p_owner_id, p_group ->> 'name', coalesce(p_group ->> 'description', ''), nullif(p_group -> 'selector', 'null'))
    returning * into v_row;
  end if;

  delete from public.device_group_members as m where m.group_id = v_row.id and m.device_id <> all (v_ids);
  insert into public.device_group_members (group_id, device_id)
  select v_row.id, u.id from unnest(v_ids) as u(id)
  on conflict (group_id, device_id) do nothing;

  select g.* into v_row from public.device_groups as g where g.id = v_row.id;
  return fleet.plan_item('group', v_row.name, v_old, fleet.group_document(v_row));
end;
$$;

comment on function fleet.apply_group(uuid, jsonb) is 'Bring one group to what a document says. Answers what that took.';
revoke all on function fleet.apply_group(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.apply_calendar(p_owner_id uuid, p_calendar jsonb)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.blackout_calendars;
  v_old jsonb;
  v_new jsonb;
  v_periods jsonb := coalesce(nullif(p_calendar -> 'periods', 'null'), '[]');
begin
  perform fleet.refuse_unknown_keys(p_calendar, '{name,description,periods}');
  perform fleet.check_calendar(p_calendar ->> 'name', v_periods);
  select c.* into v_row
  from public.blackout_calendars as c
  where c.owner_id = p_owner_id and lower(c.name) = lower(p_calendar ->> 'name');
  if found then
    v_old := fleet.calendar_document(v_row);
    v_new := fleet.without_nulls(p_calendar) || jsonb_build_object('periods', v_periods);
    -- Written as it was read: there is nothing to do, and so nothing is done.
    if fleet.document_changes(v_old, v_new) = '{}' then
      return fleet.plan_item('calendar', v_row.name, v_old, v_old);
    end if;
  end if;

  perform fleet.store_calendar(
    p_owner_id, p_calendar ->> 'name', coalesce(p_calendar ->> 'description', ''), v_periods
  );
  select c.* into v_row
  from public.blackout_calendars as c
  where c.owner_id = p_owner_id and lower(c.name) = lower(p_calendar ->> 'name');
  return fleet.plan_item('calendar', v_row.name, v_old, fleet.calendar_document(v_row));
end;
$$;

comment on function fleet.apply_calendar(uuid, jsonb) is 'Bring one blackout calendar to what a document says. Answers what that took.';
revoke all on function fleet.apply_calendar(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.apply_template(p_owner_id uuid, p_template jsonb)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedule_templates;
  v_old jsonb;
  v_new jsonb := fleet.without_nulls(jsonb_build_object(
    'name', p_template ->> 'name',
    'description', nullif(p_template ->> 'description', ''),
    'spec', p_template -> 'spec',
    'parameters', nullif(nullif(p_template -> 'parameters', 'null'), '{}')
  ));
begin
  perform fleet.refuse_unknown_keys(p_template, '{name,description,spec,parameters}');
  select t.* into v_row
  from public.schedule_templates as t
  where t.owner_id = p_owner_id and lower(t.name) = lower(p_template ->> 'name')
  order by t.version desc
  limit 1;
  if found then
    v_old := fleet.template_document(v_row);
  end if;
  if v_old is null or fleet.document_changes(v_old, v_new) <> '{}' then
    perform fleet.create_template(p_template || jsonb_build_object('owner_id', p_owner_id));
  end if;
  return fleet.plan_item('template', coalesce(v_row.name, p_template ->> 'name'), v_old, v_new);
end;
$$;

comment on function fleet.apply_template(uuid, jsonb) is
  'Save a template of a document as a new version, unless the latest is the same. Answers what that took.';
revoke all on function fleet.apply_template(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.refuse_unknown_keys(p_object jsonb, p_known text[])
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_unknown text;
begin
  select string_agg(e.key, ', ' order by e.key) into v_unknown
  from jsonb_each(p_object) as e
  where e.key <> all (p_known);
  if v_unknown is not null then
    raise exception '%: not known here', v_unknown
      using errcode = 'PT422', detail = 'document_invalid', hint = format('The keys are %s.', array_to_string(p_known, ', '));
  end if;
end;
$$;

comment on function fleet.refuse_unknown_keys(jsonb, text[]) is 'Raise document_invalid (PT422) where an object has other keys than these.';
revoke all on function fleet.refuse_unknown_keys(jsonb, text[]) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/apply_schedules.sql
-- Applying the schedules of a document, each after the one that it follows, and the document as a whole.

create or replace function fleet.apply_schedule(p_owner_id uuid, p_schedule jsonb)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_old public.schedules := fleet.schedule_by_name(p_owner_id, p_schedule ->> 'name');
  v_base public.schedules;
  v_row public.schedules;
  v_item jsonb;
  v_status text := p_schedule ->> 'status';
begin
  if v_status not in ('active', 'paused') then
    raise exception 'status: "%" is not one of active, paused', v_status
      using errcode = 'PT422', detail = 'schedule_invalid', hint = 'Leave it out where the document is not to say.';
  end if;

  -- What the document does not say is as by default; only when it began, and whether it is paused, stays as it is.
  v_base.owner_id := p_owner_id;
  v_base.id := v_old.id;
  v_base.start_time := v_old.start_time;
  v_row := fleet.schedule_with_changes(v_base, p_schedule - 'status');
  v_row.status := coalesce(
    v_status, case v_old.status when 'paused' then 'paused' else 'active' end
  );
  v_item := fleet.plan_item(
    'schedule', p_schedule ->> 'name',
    case when v_old.id is not null then fleet.schedule_document(v_old) end,
    fleet.schedule_document(fleet.completed_schedule(v_row))
  );
  if v_item ->> 'do' = 'create' then
    perform fleet.store_schedule(v_row);
  elsif v_item ->> 'do' = 'change' then
    -- The twin columns follow from payload and targets, which the document has in full.
    v_row.profile_id := v_old.profile_id;
    v_row.device_id := v_old.device_id;
    perform fleet.store_schedule(v_row);
    update public.schedules as s
    set status = v_row.status, status_reason = null
    where s.id = v_old.id and s.status in ('active', 'paused') and s.status <> v_row.status;
  end if;
  return v_item;
end;
$$;

comment on function fleet.apply_schedule(uuid, jsonb) is 'Bring one schedule to what a document says. Answers what that took.';
revoke all on function fleet.apply_schedule(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.in_order_of_chains(p_schedules jsonb)
returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_left jsonb := coalesce(p_schedules, '[]');
  v_ready jsonb;
  v_ordered jsonb := '[]';
begin
  while v_left <> '[]' loop
    -- Ready is what follows nothing that is still left.
    select coalesce(jsonb_agg(e.item) filter (where not b.is_waiting), '[]'),
      coalesce(jsonb_agg(e.item) filter (where b.is_waiting), '[]')
    into v_ready, v_left
    from jsonb_array_elements(v_left) as e(item)
    cross join lateral (
      select exists (
        select 1 from jsonb_array_elements(v_left) as o(item)
        where lower(o.item ->> 'name') = lower(e.item #>> '{after,schedule}')
      ) as is_waiting
    ) as b;
    if v_ready = '[]' then
      raise exception 'these schedules follow each other in a circle: %', (
        select string_agg(e.item ->> 'name', ', ') from jsonb_array_elements(v_left) as e(item)
      )
        using errcode = 'PT422', detail = 'document_invalid', hint = 'Let the first of them have times of its own.';
    end if;
    v_ordered := v_ordered || v_ready;
  end loop;
  return v_ordered;
end;
$$;

comment on function fleet.in_order_of_chains(jsonb) is
  'The schedules of a document, each behind the one that it follows. Raises document_invalid (PT422) for a circle.';
revoke all on function fleet.in_order_of_chains(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.apply_item(p_owner_id uuid, p_section text, p_item jsonb)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_hint text;
begin
  return case p_section
    when 'groups' then fleet.apply_group(p_owner_id, p_item)
    when 'blackout_calendars' then fleet.apply_calendar(p_owner_id, p_item)
    when 'templates' then fleet.apply_template(p_owner_id, p_item)
    else fleet.apply_schedule(p_owner_id, p_item)
  end;
exception
  when sqlstate 'PT403' or sqlstate 'PT404' or sqlstate 'PT409' or sqlstate 'PT422' then
    -- Kept for the one error that names all that is wrong with the document.
    get stacked diagnostics v_hint = pg_exception_hint;
    return jsonb_build_object(
      'do', 'refuse',
      'field', format('%s "%s"', case p_section when 'blackout_calendars' then 'calendar' else rtrim(p_section, 's') end, p_item ->> 'name'),
      'problem', regexp_replace(sqlerrm, '^the (schedule|template|calendar) is not valid: ', ''),
      'hint', v_hint
    );
end;
$$;

comment on function fleet.apply_item(uuid, text, jsonb) is 'Apply one thing of a document; what is wrong with it is an answer, not an error.';
revoke all on function fleet.apply_item(uuid, text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.apply_sections(p_owner_id uuid, p_document jsonb)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_done jsonb := '[]';
  v_section text;
  v_item jsonb;
  v_fields text[];
  v_problems text[];
  v_hints text[];
begin
  foreach v_section in array '{groups,blackout_calendars,templates,schedules}'::text[] loop
    for v_item in
      select e.item
      from jsonb_array_elements(
        case v_section
          when 'schedules' then fleet.in_order_of_chains(p_document -> 'schedules')
          else coalesce(p_document -> v_section, '[]')
        end
      ) as e(item)
    loop
      v_done := v_done || fleet.apply_item(p_owner_id, v_section, v_item);
    end loop;
  end loop;

  select array_agg(e.item ->> 'field'), array_agg(e.item ->> 'problem'), array_agg(e.item ->> 'hint')
  into v_fields, v_problems, v_hints
  from jsonb_array_elements(v_done) as e(item)
  where e.item ->> 'do' = 'refuse';
  perform fleet.raise_problems('the document', 'document_invalid', v_fields, v_problems, v_hints);
  return v_done;
end;
$$;

comment on function fleet.apply_sections(uuid, jsonb) is
  'Apply everything that a document names. Raises document_invalid with every problem of every part.';
revoke all on function fleet.apply_sections(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.cancel_unnamed(p_owner_id uuid, p_document jsonb)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  with gone as (
    update public.schedules as s
    set status = 'cancelled', status_reason = 'no longer in the applied document'
    where s.owner_id = p_owner_id
      and s.status in ('active', 'paused')
      and lower(s.name) not in (
        select lower(e.item ->> 'name') from jsonb_array_elements(coalesce(p_document -> 'schedules', '[]')) as e(item)
      )
    returning s.name
  )
  select coalesce(jsonb_agg(jsonb_build_object('kind', 'schedule', 'name', g.name) order by lower(g.name)), '[]')
  from gone as g
$$;

comment on function fleet.cancel_unnamed(uuid, jsonb) is 'Cancel the schedules that a document does not name; their history stays.';
revoke all on function fleet.cancel_unnamed(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.apply_document(p_document jsonb, p_dry_run boolean, p_prune boolean, p_owner_id uuid)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid := fleet.owner_or_own(p_owner_id);
  v_fields text[];
  v_problems text[];
  v_hints text[];
  v_done jsonb;
  v_removed jsonb := '[]';
begin
  perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
  select array_agg(q.field), array_agg(q.problem), array_agg(q.hint)
  into v_fields, v_problems, v_hints
  from fleet.document_problems(p_document) as q;
  perform fleet.raise_problems('the document', 'document_invalid', v_fields, v_problems, v_hints);
  -- Two that apply at once take turns; the second finds what the first has made.
  perform pg_advisory_xact_lock(hashtextextended('pgfleet.apply_document ' || v_owner, 0));

  begin
    v_done := fleet.apply_sections(v_owner, p_document);
    if p_prune then
      v_removed := fleet.cancel_unnamed(v_owner, p_document);
    end if;
    if p_dry_run then
      -- The plan is what was really done, and then taken back.
      raise sqlstate 'PF001';
    end if;
  exception
    when sqlstate 'PF001' then
      null;
  end;

  return (
    select jsonb_build_object(
      'dry_run', coalesce(p_dry_run, false),
      'create', coalesce(jsonb_agg(e.item - '{do}'::text[]) filter (where e.item ->> 'do' = 'create'), '[]'),
      'change', coalesce(jsonb_agg(e.item - '{do}'::text[]) filter (where e.item ->> 'do' = 'change'), '[]'),
      'remove', v_removed,
      'unchanged', count(*) filter (where e.item ->> 'do' = 'nothing')
    )
    from jsonb_array_elements(v_done) as e(item)
  );
end;
$$;

comment on function fleet.apply_document(jsonb, boolean, boolean, uuid) is 'See public.apply_document. Definer: it checks the caller.';
revoke all on function fleet.apply_document(jsonb, boolean, boolean, uuid) from public, anon, authenticated, service_role;
grant execute on function fleet.apply_document(jsonb, boolean, boolean, uuid) to authenticated, service_role;

create or replace function public.apply_document(
  p_document jsonb,
  p_dry_run boolean default false,
  p_prune boolean default false,
  p_owner_id uuid default null
)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.apply_document(p_document, p_dry_run, p_prune, p_owner_id)
$$;

comment on function public.apply_document(jsonb, boolean, boolean, uuid) is
  'Bring groups, blackout calendars, templates and schedules to what a document of export_schedules says, by name; once more changes '
  'nothing. p_prune cancels schedules that it does not name. Answers {create, change: [{kind, name, changes}], remove, unchanged}; with '
  'p_dry_run nothing is kept. Raises document_invalid (PT422) with every problem of every part.';
revoke all on function public.apply_document(jsonb, boolean, boolean, uuid) from public, anon, authenticated, service_role;
grant execute on function public.apply_document(jsonb, boolean, boolean, uuid) to authenticated, service_role;

-- db/sources/30_schedules/blackouts.sql
-- Blackouts: what a schedule's calendars say about an instant.

create or replace function fleet.blackout_ids(p_policies jsonb)
returns bigint[]
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg((e #>> '{}')::numeric::bigint), '{}')
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
set search_path = pg_catalog, pg_temp
as $$
declare
  v_day date;
begin
  if p_calendar_ids = '{}' then
    return null;
  end if;
  v_day := (p_instant at time zone fleet.zone_clock(p_timezone))::date;
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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

create or replace function fleet.open_zones(p_schedule public.schedules, p_zones text[], p_instant timestamptz)
returns text[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(z.name), '{}')
  from unnest(p_zones) as z(name)
  where fleet.blackout_at(p_schedule.owner_id, fleet.blackout_ids(p_schedule.policies), z.name, p_instant) is null
$$;

comment on function fleet.open_zones(public.schedules, text[], timestamptz) is
  'Those of the time zones in which no blackout of the schedule forbids this instant.';
revoke all on function fleet.open_zones(public.schedules, text[], timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.zones_refusal(p_schedule public.schedules, p_zones text[], p_instant timestamptz)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_windows jsonb;
begin
  -- Most schedules say neither, and this is asked for each due instant.
  if not p_schedule.policies ?| '{blackouts,execution_window}' then
    return null;
  end if;

  if p_schedule.timezone = 'device' then
    -- A day begins and ends with the devices' own; their windows are looked at for each of them.
    return case when p_zones <> '{}' and fleet.open_zones(p_schedule, p_zones, p_instant) = '{}' then 'blackout' end;
  elsif fleet.open_zones(p_schedule, array[p_schedule.timezone], p_instant) = '{}' then
    return 'blackout';
  end if;

  v_windows := fleet.window_list(p_schedule.policies);
  if not fleet.waits_for_window(v_windows, 'schedule')
    and fleet.window_opening(v_windows, 'schedule', p_schedule.timezone, p_instant) is distinct from p_instant
  then
    return 'outside the execution window';
  end if;
  return null;
end;
$$;

comment on function fleet.zones_refusal(public.schedules, text[], timestamptz) is
  'Why a schedule does not run at an instant, in device time for the devices of these zones; null where it does.';
revoke all on function fleet.zones_refusal(public.schedules, text[], timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.instant_refusal(p_schedule public.schedules, p_instant timestamptz)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.zones_refusal(
    p_schedule,
    case
      when p_schedule.timezone = 'device'
        then coalesce(fleet.zones_due(p_schedule.recurrence, p_instant), fleet.zones_of(p_schedule.recurrence))
    end,
    p_instant
  )
$$;

comment on function fleet.instant_refusal(public.schedules, timestamptz) is
  'Why a due instant of a schedule does not run: blackout, or outside the execution window; null where it does.';
revoke all on function fleet.instant_refusal(public.schedules, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/30_schedules/bulk.sql
-- One verb for many schedules, chosen by a filter.

create or replace function fleet.filter_problems(p_filter jsonb)
returns table (field text, problem text, hint text)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  with given as (
    select e.key, e.value
    from jsonb_each(case when jsonb_typeof(p_filter) = 'object' then p_filter else '{}' end) as e
    where e.value <> 'null'
  )
  select 'filter', 'must be an object', 'Example: {"status": "active", "name": "%lab%"}'
  where jsonb_typeof(p_filter) is distinct from 'object'
  union all
  select g.key, 'is not a key of a filter', 'The keys are ids, status, name, action_type, device_id, group_id and owner_id.'
  from given as g
  where g.key not in ('ids', 'status', 'name', 'action_type', 'device_id', 'group_id', 'owner_id')
  union all
  select g.key, format('%s is not a list of ids', g.value), 'Write whole numbers without quotes, like [1, 2].'
  from given as g
  where g.key = 'ids' and not fleet.is_id_list(g.value)
  union all
  select g.key, format('%s is not text, or a list of text', g.value), format('Example: {"%s": "…"}', g.key)
  from given as g
  cross join lateral fleet.as_list(g.value) as v(item)
  where g.key in ('status', 'name', 'action_type') and jsonb_typeof(v.item) <> 'string'
  union all
  select q.field, q.problem, q.hint
  from given as g
  cross join lateral fleet.as_list(g.value) as v(item)
  cross join lateral fleet.choice_problem(g.key, v.item, '{active,paused,completed,cancelled}') as q
  where g.key = 'status' and jsonb_typeof(v.item) = 'string'
  union all
  select q.field, q.problem, q.hint
  from given as g
  cross join lateral fleet.whole_number_problem(g.key, g.value, 1, 9007199254740991) as q
  where g.key in ('device_id', 'group_id')
  union all
  select g.key, format('%s is not a uuid', g.value), 'Copy the id of the owner.'
  from given as g
  where g.key = 'owner_id' and fleet.try_uuid(g.value #>> '{}') is null
$$;

comment on function fleet.filter_problems(jsonb) is 'Everything that is wrong with a filter of schedules.';
revoke all on function fleet.filter_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.check_filter(p_filter jsonb)
returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_fields text[];
  v_problems text[];
  v_hints text[];
begin
  select array_agg(q.field), array_agg(q.problem), array_agg(q.hint)
  into v_fields, v_problems, v_hints
  from fleet.filter_problems(p_filter) as q;
  perform fleet.raise_problems('the filter', 'filter_invalid', v_fields, v_problems, v_hints);
  return fleet.without_nulls(p_filter);
end;
$$;

comment on function fleet.check_filter(jsonb) is 'The filter without what says nothing. Raises filter_invalid (PT422) naming every wrong key.';
revoke all on function fleet.check_filter(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.has_text(p_values jsonb, p_text text)
returns boolean
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select exists (select 1 from fleet.as_list(p_values) as v(item) where v.item #>> '{}' = p_text)
$$;

comment on function fleet.has_text(jsonb, text) is 'Whether a text is this value, or one of this list.';
revoke all on function fleet.has_text(jsonb, text) from public, anon, authenticated, service_role;

create or replace function fleet.found_schedules(p_filter jsonb, p_permission text)
returns setof public.schedules
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select s.*
  from public.schedules as s
  where (
      (select fleet.is_trusted_caller())
      or s.owner_id = any (array(select fleet.my_owners(p_permission)))
    )
    and (not p_filter ? 'owner_id' or s.owner_id = fleet.try_uuid(p_filter ->> 'owner_id'))
    and (not p_filter ? 'ids' or s.id = any (fleet.bigint_array(p_filter -> 'ids')))
    and (not p_filter ? 'status' or fleet.has_text(p_filter -> 'status', s.status))
    and (not p_filter ? 'action_type' or fleet.has_text(p_filter -> 'action_type', s.action_type))
    and (
      not p_filter ? 'name'
      or s.name ilike any (array(select v.item #>> '{}' from fleet.as_list(p_filter -> 'name') as v(item)))
    )
    and (not p_filter ? 'group_id' or (p_filter ->> 'group_id')::bigint = any (s.group_ids))
    and (
      not p_filter ? 'device_id'
      or (p_filter ->> 'device_id')::bigint = any (s.device_ids)
      or exists (
        select 1
        from public.devices as d
        where d.id = (p_filter ->> 'device_id')::bigint
          and d.owner_id = s.owner_id
          and (
            fleet.device_matches(s.selector, d.tags, d.platform, d.attributes)
            or exists (
              select 1
              from public.device_groups as g
              where g.id = any (s.group_ids)
                and g.owner_id = s.owner_id
                and (
                  fleet.device_matches(g.selector, d.tags, d.platform, d.attributes)
                  or exists (
                    select 1 from public.device_group_members as m where m.group_id = g.id and m.device_id = d.id
                  )
                )
            )
          )
      )
    )
$$;

comment on function fleet.found_schedules(jsonb, text) is
  'The schedules that a checked filter finds among those with which the caller may do this. device_id finds what reaches the device, '
  'by whichever way; name is a pattern as for ilike.';
revoke all on function fleet.found_schedules(jsonb, text) from public, anon, authenticated, service_role;

create or replace function fleet.bulk_action(p_action text)
returns table (permission text, statuses text[])
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select a.permission, a.statuses::text[]
  from (
    values
      ('pause', 'manage', '{active}'),
      ('resume', 'manage', '{paused}'),
      ('cancel', 'manage', '{active,paused,completed}'),
      ('delete', 'manage', '{active,paused,completed,cancelled}'),
      ('run', 'operate', '{active,paused,completed}')
  ) as a(action, permission, statuses)
  where a.action = p_action;
  if not found then
    raise exception 'action % is not one of pause, resume, cancel, delete, run', coalesce('"' || p_action || '"', 'null')
      using errcode = 'PT422', detail = 'action_unknown', hint = 'Use one of: pause, resume, cancel, delete, run.';
  end if;
end;
$$;

comment on function fleet.bulk_action(text) is
  'What an action needs, and the states in which a schedule takes it. Raises action_unknown (PT422).';
revoke all on function fleet.bulk_action(text) from public, anon, authenticated, service_role;

create or replace function fleet.bulk_schedules(p_action text, p_filter jsonb, p_dry_run boolean, p_reason text)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_filter jsonb := fleet.check_filter(p_filter);
  v_action record;
  v_ids bigint[];
  v_changed bigint := 0;
begin
  select a.permission, a.statuses into v_action from fleet.bulk_action(p_action) as a;
  select array_agg(f.id order by f.id) into v_ids
  from fleet.found_schedules(v_filter, v_action.permission) as f
  where f.status = any (v_action.statuses);
  v_ids := coalesce(v_ids, '{}');

  if not coalesce(p_dry_run, true) then
    -- Locked in one order, so that two of these never wait for each other; what changed meanwhile is left alone.
    select coalesce(array_agg(x.id), '{}') into v_ids
    from (
      select s.id
      from public.schedules as s
      where s.id = any (v_ids) and s.status = any (v_action.statuses)
      order by s.id
      for update
    ) as x;
    v_changed := fleet.do_to_schedules(p_action, v_ids, p_reason);
  end if;
  return jsonb_build_object(
    'action', p_action, 'dry_run', coalesce(p_dry_run, true),
    'count', cardinality(v_ids), 'ids', to_jsonb(v_ids), 'changed', v_changed
  );
end;
$$;

comment on function fleet.bulk_schedules(text, jsonb, boolean, text) is
  'See public.bulk_schedules. Definer: it reaches only what the caller has the permission for.';
revoke all on function fleet.bulk_schedules(text, jsonb, boolean, text) from public, anon, authenticated, service_role;
grant execute on function fleet.bulk_schedules(text, jsonb, boolean, text) to authenticated, service_role;

create or replace function fleet.do_to_schedules(p_action text, p_ids bigint[], p_reason text)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_changed bigint;
begin
  if p_action = 'delete' then
    delete from public.schedules as s where s.id = any (p_ids);
  elsif p_action = 'run' then
    perform fleet.run_schedule(u.id, null, clock_timestamp()) from unnest(p_ids) as u(id);
  else
    update public.schedules as s
    set status = case p_action when 'pause' then 'paused' when 'resume' then 'active' else 'cancelled' end,
        status_reason = p_reason
    where s.id = any (p_ids);
  end if;
  get diagnostics v_changed = row_count;
  return v_changed;
end;
$$;

comment on function fleet.do_to_schedules(text, bigint[], text) is
  'One statement for all of them, whose rows the caller has checked and holds. Answers how many.';
revoke all on function fleet.do_to_schedules(text, bigint[], text) from public, anon, authenticated, service_role;

create or replace function public.bulk_schedules(
  p_action text,
  p_filter jsonb,
  p_dry_run boolean default true,
  p_reason text default null
)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.bulk_schedules(p_action, p_filter, p_dry_run, p_reason)
$$;

comment on function public.bulk_schedules(text, jsonb, boolean, text) is
  'pause, resume, cancel, delete or run all of your schedules that a filter {ids, status, name (ilike), action_type, device_id, '
  'group_id, owner_id} finds and that are in a state for it. Without p_dry_run => false it only counts. {action, dry_run, count, ids, '
  'changed}. Raises filter_invalid or action_unknown (PT422).';
revoke all on function public.bulk_schedules(text, jsonb, boolean, text) from public, anon, authenticated, service_role;
grant execute on function public.bulk_schedules(text, jsonb, boolean, text) to authenticated, service_role;

-- db/sources/30_schedules/calendars.sql
-- Blackout calendars: making, filling and deleting them.

create or replace function fleet.try_date(p_text text)
returns date
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case when p_text ~ '^\d{4}-\d{2}-\d{2}$' then (fleet.try_instant(p_text, 'UTC') at time zone 'UTC')::date end
$$;

comment on function fleet.try_date(text) is 'The text as a date; null where it is none.';
revoke all on function fleet.try_date(text) from public, anon, authenticated, service_role;

create or replace function fleet.try_exact_instant(p_text text)
returns timestamptz
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case when p_text ~ '\d:\d.*(Z|z|[+-]\d{2}(:?\d{2})?)$' then fleet.try_instant(p_text, 'UTC') end
$$;

comment on function fleet.try_exact_instant(text) is 'The text as an instant; null where it is none, or says no offset.';
revoke all on function fleet.try_exact_instant(text) from public, anon, authenticated, service_role;

create or replace function fleet.period_problems(p_periods jsonb)
returns table (field text, problem text, hint text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with given as (
    select format('periods[%s]', e.place - 1) as field, e.item,
      jsonb_typeof(e.item) = 'object' and e.item ? 'starts_on' as is_days,
      jsonb_typeof(e.item) = 'object' and e.item ? 'starts_at' as is_times
    from jsonb_array_elements(case when jsonb_typeof(p_periods) = 'array' then p_periods else '[]' end)
      with ordinality as e(item, place)
  )
  select 'periods', 'must be a list', 'Example: [{"starts_on": "2026-12-21", "ends_on": "2027-01-04", "summary": "Winter"}]'
  where jsonb_typeof(p_periods) is distinct from 'array'
  union all
  select g.field, 'must be an object with either starts_on or starts_at', 'Example: {"starts_on": "2026-12-25"}'
  from given as g
  where g.is_days = g.is_times
  union all
  select g.field || '.' || k, 'is not a key of this period',
    'Days have starts_on, ends_on (the day after the last) and summary; times have starts_at, ends_at and summary.'
  from given as g
  cross join lateral jsonb_object_keys(case when jsonb_typeof(g.item) = 'object' then g.item else '{}' end) as k
  where g.is_days <> g.is_times
    and k <> all (case when g.is_days then '{starts_on,ends_on,summary}' else '{starts_at,ends_at,summary}' end::text[])
  union all
  select g.field || '.' || k.key, format('%s is not a date', g.item -> k.key), 'Write it like "2026-12-25".'
  from given as g
  cross join (values ('starts_on'), ('ends_on')) as k(key)
  where g.is_days and g.item ? k.key and fleet.try_date(g.item ->> k.key) is null
  union all
  select g.field || '.' || k.key, format('%s is not a time with an offset', coalesce(g.item ->> k.key, 'nothing')),
    'Write it like "2026-12-25T18:00:00+01:00" or "2026-12-25T17:00:00Z".'
  from given as g
  cross join (values ('starts_at'), ('ends_at')) as k(key)
  where g.is_times and fleet.try_exact_instant(g.item ->> k.key) is null
  union all
  select g.field, 'ends before it starts', 'ends_on is the day after the last, as in iCalendar.'
  from given as g
  where fleet.try_date(g.item ->> 'starts_on') >= fleet.try_date(g.item ->> 'ends_on')
    or fleet.try_exact_instant(g.item ->> 'starts_at') >= fleet.try_exact_instant(g.item ->> 'ends_at')
$$;

comment on function fleet.period_problems(jsonb) is 'Everything that is wrong with the periods of a calendar.';
revoke all on function fleet.period_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.store_calendar(
  p_owner_id uuid,
  p_name text,
  p_description text,
  p_periods jsonb
)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id bigint;
begin
  insert into public.blackout_calendars as c (owner_id, name, description)
  values (p_owner_id, p_name, coalesce(p_description, ''))
  on conflict (owner_id, lower(name)) do update
    set description = coalesce(p_description, c.description)
  returning c.id into v_id;

  delete from public.blackout_periods as p where p.calendar_id = v_id;
  insert into public.blackout_periods (calendar_id, owner_id, starts_on, ends_on, starts_at, ends_at, summary)
  select v_id, p_owner_id, fleet.try_date(e.item ->> 'starts_on'),
    coalesce(fleet.try_date(e.item ->> 'ends_on'), fleet.try_date(e.item ->> 'starts_on') + 1),
    fleet.try_exact_instant(e.item ->> 'starts_at'), fleet.try_exact_instant(e.item ->> 'ends_at'),
    coalesce(e.item ->> 'summary', '')
  from jsonb_array_elements(p_periods) as e(item);
  return v_id;
end;
$$;

comment on function fleet.store_calendar(uuid, text, text, jsonb) is
  'Make the calendar of this name, or give it these periods instead of its own; a null description leaves the one it has.';
revoke all on function fleet.store_calendar(uuid, text, text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.check_calendar(p_name text, p_periods jsonb)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_fields text[];
  v_problems text[];
  v_hints text[];
begin
  select array_agg(q.field), array_agg(q.problem), array_agg(q.hint)
  into v_fields, v_problems, v_hints
  from (
    select 'name' as field, 'must not be blank' as problem, 'Give the calendar a name.' as hint
    where btrim(coalesce(p_name, '')) = ''
    union all
    select p.field, p.problem, p.hint from fleet.period_problems(p_periods) as p
  ) as q;
  perform fleet.raise_problems('the calendar', 'calendar_invalid', v_fields, v_problems, v_hints);
end;
$$;

comment on function fleet.check_calendar(text, jsonb) is 'Raise calendar_invalid (PT422) naming everything that is wrong.';
revoke all on function fleet.check_calendar(text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.import_blackouts(
  p_name text,
  p_periods jsonb,
  p_description text,
  p_owner_id uuid,
  p_must_be_new boolean
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid := fleet.owner_or_own(p_owner_id);
  v_id bigint;
begin
  perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
  perform fleet.check_calendar(p_name, p_periods);
  if p_must_be_new
    and exists (select 1 from public.blackout_calendars as c where c.owner_id = v_owner and lower(c.name) = lower(p_name))
  then
    raise exception 'there is a calendar "%" already', p_name
      using errcode = 'PT409', detail = 'calendar_exists',
            hint = 'Give it other periods with import_blackouts, or choose another name.';
  end if;

  v_id := fleet.store_calendar(v_owner, p_name, p_description, p_periods);
  return (
    select to_jsonb(c) || jsonb_build_object(
      'periods', (select count(*) from public.blackout_periods as p where p.calendar_id = c.id)
    )
    from public.blackout_calendars as c
    where c.id = v_id
  );
end;
$$;

comment on function fleet.import_blackouts(text, jsonb, text, uuid, boolean) is
  'See public.create_blackout_calendar and public.import_blackouts. Definer: it checks the caller.';
revoke all on function fleet.import_blackouts(text, jsonb, text, uuid, boolean)
  from public, anon, authenticated, service_role;
grant execute on function fleet.import_blackouts(text, jsonb, text, uuid, boolean) to authenticated, service_role;

create or replace function public.create_blackout_calendar(
  p_name text,
  p_periods jsonb default '[]',
  p_description text default '',
  p_owner_id uuid default null
)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.import_blackouts(p_name, p_periods, p_description, p_owner_id, true)
$$;

comment on function public.create_blackout_calendar(text, jsonb, text, uuid) is
  'Make a calendar of times in which nothing runs, for policies.blackouts. Periods are days {starts_on, ends_on (the day after the last), '
  'summary} or times {starts_at, ends_at, summary} with an offset. Answers the row with how many periods. Raises calendar_invalid '
  '(PT422) naming every wrong field, or calendar_exists (PT409).';
revoke all on function public.create_blackout_calendar(text, jsonb, text, uuid)
  from public, anon, authenticated, service_role;
grant execute on function public.create_blackout_calendar(text, jsonb, text, uuid) to authenticated, service_role;

create or replace function public.import_blackouts(
  p_name text,
  p_periods jsonb,
  p_description text default null,
  p_owner_id uuid default null
)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.import_blackouts(p_name, p_periods, p_description, p_owner_id, false)
$$;

comment on function public.import_blackouts(text, jsonb, text, uuid) is
  'Give the calendar of this name these periods instead of the ones that it has; make it where there is none. As '
  'create_blackout_calendar. An ICS file is read by: pgfleet blackout import.';
revoke all on function public.import_blackouts(text, jsonb, text, uuid) from public, anon, authenticated, service_role;
grant execute on function public.import_blackouts(text, jsonb, text, uuid) to authenticated, service_role;

create or replace function fleet.delete_blackout_calendar(p_calendar_id bigint)
returns public.blackout_calendars
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.blackout_calendars;
begin
  select c.* into v_row
  from public.blackout_calendars as c
  where c.id = p_calendar_id and fleet.is_visible_owner(c.owner_id)
  for update;
  if not found then
    perform fleet.raise_not_found(format('calendar %s', p_calendar_id));
  end if;
  perform fleet.require_permission(v_row.owner_id, 'manage', format('calendar %s', p_calendar_id));

  delete from public.blackout_calendars as c where c.id = p_calendar_id;
  return v_row;
end;
$$;

comment on function fleet.delete_blackout_calendar(bigint) is 'See public.delete_blackout_calendar. Definer: it checks the caller.';
revoke all on function fleet.delete_blackout_calendar(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.delete_blackout_calendar(bigint) to authenticated, service_role;

create or replace function public.delete_blackout_calendar(p_calendar_id bigint)
returns public.blackout_calendars
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.delete_blackout_calendar(p_calendar_id)
$$;

comment on function public.delete_blackout_calendar(bigint) is
  'Delete a calendar with its periods. Raises calendar_not_found (PT404), permission_missing (PT403), or calendar_in_use (PT409) while '
  'a schedule that is not over names it.';
revoke all on function public.delete_blackout_calendar(bigint) from public, anon, authenticated, service_role;
grant execute on function public.delete_blackout_calendar(bigint) to authenticated, service_role;

create or replace function fleet.tg_keep_used_calendar()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_names text;
begin
  select string_agg(format('"%s"', s.name), ', ' order by s.name) into v_names
  from public.schedules as s
  where s.owner_id = old.owner_id
    and s.status in ('active', 'paused')
    and old.id = any (fleet.blackout_ids(s.policies));
  if v_names is not null then
    raise exception 'calendar "%" is used by %', old.name, v_names
      using errcode = 'PT409', detail = 'calendar_in_use',
            hint = 'Take it out of policies.blackouts of these schedules first.';
  end if;
  return old;
end;
$$;

comment on function fleet.tg_keep_used_calendar() is
  'Keep a calendar that schedules rely on: without it they would run in the holidays. Definer: it looks at all schedules of the owner.';
revoke all on function fleet.tg_keep_used_calendar() from public, anon, authenticated, service_role;

create or replace trigger blackout_calendars_01_keep_used
  before delete on public.blackout_calendars
  for each row execute function fleet.tg_keep_used_calendar();

-- db/sources/30_schedules/chains.sql
-- Chains: a schedule that runs when a run of another one has ended.

create or replace function fleet.follow_problems(p_schedule public.schedules)
returns table (field text, problem text, hint text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id bigint := p_schedule.after_schedule_id;
  v_seen bigint[] := '{}';
begin
  if v_id is null then
    return;
  end if;

  return query
  select q.field, q.problem, q.hint
  from fleet.choice_problem('after.on', to_jsonb(p_schedule.after_on), '{completed,failed,either}') as q;
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
set search_path = pg_catalog, pg_temp
as $$
declare
  v_started bigint;
begin
  with ended as (
    select s, r.id as run_id, row_number() over (partition by s.id order by r.id) as n,
      case when s.timezone = 'device' and s.policies ? 'blackouts' then fleet.target_zones(s) end as zones,
      fleet.opening_of(s, p_now) as opens_at
    from public.schedule_runs as r
    join public.schedules as s on s.after_schedule_id = r.schedule_id and s.owner_id = r.owner_id
    where r.id = any (p_runs)
      and s.status = 'active'
      and (s.after_on = 'either' or s.after_on = r.status)
      -- A second look at the same end is harmless.
      and not exists (
        select 1 from public.schedule_runs as x
        where x.schedule_id = s.id and x.idempotency_key = 'after:' || r.id
      )
  ),
  judged as (
    select e.*, fleet.follower_refusal(e.s, e.n, e.zones, e.opens_at, p_now) as refusal
    from ended as e
  ),
  written as (
    insert into public.schedule_runs (
      schedule_id, owner_id, scheduled_for, trigger, status, reason, action_type, payload, priority, expires_at, after_run_id,
      idempotency_key, not_before, zones, started_at, finished_at
    )
    select (j.s).id, (j.s).owner_id, fleet.free_instant((j.s).id, p_now, j.n), 'chain',
      case when j.refusal is null then 'pending' else 'skipped' end, j.refusal,
      (j.s).action_type, (j.s).payload, (j.s).priority,
      fleet.run_expiry(fleet.effective_policies((j.s).policies), null, j.opens_at), j.run_id, 'after:' || j.run_id,
      nullif(j.opens_at, p_now),
      case when j.zones is not null then fleet.open_zones(j.s, fleet.open_zones(j.s, j.zones, p_now), j.opens_at) end,
      case when j.refusal is null then p_now end,
      case when j.refusal is not null then p_now end
    from judged as j
    on conflict do nothing
    returning schedule_id, status
  ),
  counted as (
    update public.schedules as s
    set execution_count = s.execution_count + w.n,
        last_executed_at = case when fleet.is_mdm_action(s.action_type) then s.last_executed_at else p_now end,
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

create or replace function fleet.free_instant(p_schedule_id bigint, p_now timestamptz, p_place bigint)
returns timestamptz
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- Several runs may end at once, or at a moment of which the ledger has a row already: an instant for each.
  select greatest(p_now, max(r.scheduled_for) + interval '1 microsecond') + interval '1 microsecond' * (p_place - 1)
  from public.schedule_runs as r
  where r.schedule_id = p_schedule_id
    and r.scheduled_for >= p_now
    and r.scheduled_for < p_now + interval '1 second'
$$;

comment on function fleet.free_instant(bigint, timestamptz, bigint) is
  'The n-th instant from now on that no row of the ledger has.';
revoke all on function fleet.free_instant(bigint, timestamptz, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.follower_refusal(
  p_schedule public.schedules,
  p_place bigint,
  p_zones text[],
  p_opens_at timestamptz,
  p_now timestamptz
)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_schedule.execution_count + p_place > (p_schedule.policies ->> 'max_runs')::bigint then 'max_runs reached'
    when p_now < p_schedule.start_time then 'the schedule has not begun'
    when p_now > p_schedule.end_time then 'the schedule has ended'
    else coalesce(
      fleet.zones_refusal(p_schedule, p_zones, p_now),
      case when p_opens_at > p_now then fleet.zones_refusal(p_schedule, p_zones, p_opens_at) end
    )
  end
$$;

comment on function fleet.follower_refusal(public.schedules, bigint, text[], timestamptz, timestamptz) is
  'Why a schedule does not follow now, as the n-th time at once: max_runs, its bounds, a blackout or its execution window; null where it '
  'does.';
revoke all on function fleet.follower_refusal(public.schedules, bigint, text[], timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.opening_of(p_schedule public.schedules, p_instant timestamptz)
returns timestamptz
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    -- What does not wait is judged where it stands.
    when not p_schedule.policies ? 'execution_window'
      or not fleet.waits_for_window(fleet.window_list(p_schedule.policies), 'schedule')
      then p_instant
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

create or replace function fleet.has_lost_parent(p_old public.schedules, p_new public.schedules)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select p_old.after_schedule_id is not null
    and p_new.after_schedule_id is null
    and not exists (select 1 from public.schedules as s where s.id = p_old.after_schedule_id)
$$;

comment on function fleet.has_lost_parent(public.schedules, public.schedules) is
  'Whether this change comes from the foreign key: the schedule that this one follows is deleted.';
revoke all on function fleet.has_lost_parent(public.schedules, public.schedules)
  from public, anon, authenticated, service_role;

create or replace function fleet.abandoned_schedule(p_old public.schedules, p_new public.schedules)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules := p_new;
begin
  v_row.after_on := null;
  -- Nobody said when it is to run instead; times that it has besides wait until it is resumed.
  v_row.next_run_at := case
    when v_row.recurrence_type <> 'once' and v_row.status in ('active', 'paused') then fleet.first_due(v_row, clock_timestamp())
  end;
  if v_row.status = 'active' then
    v_row.status := 'paused';
    v_row.status_reason := format('schedule %s, which it followed, was deleted', p_old.after_schedule_id);
  end if;
  v_row.updated_at := now();
  return v_row;
end;
$$;

comment on function fleet.abandoned_schedule(public.schedules, public.schedules) is
  'The row of a schedule that followed one that is deleted: paused, with the reason.';
revoke all on function fleet.abandoned_schedule(public.schedules, public.schedules)
  from public, anon, authenticated, service_role;

-- db/sources/30_schedules/complete.sql
-- Derived columns of a schedule: what follows from what was written.

create or replace function fleet.completed_schedule(p_schedule public.schedules)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
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
  if v_row.timezone = 'device' then
    v_row.policies := fleet.policies_in_device_time(v_row.policies);
  end if;
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules := new;
  v_fields text[];
  v_problems text[];
  v_hints text[];
begin
  if tg_op = 'UPDATE' and fleet.has_lost_parent(old, v_row) then
    return fleet.abandoned_schedule(old, v_row);
  end if;
  v_row.owner_id := fleet.owner_or_own(v_row.owner_id);
  perform fleet.require_permission(v_row.owner_id, 'manage', format('owner %s', v_row.owner_id));
  if v_row.after_schedule_id is not null then
    -- Two sessions that each let one schedule follow the other would not see the circle they make.
    perform pg_advisory_xact_lock(hashtext('pgfleet.chains'), hashtext(v_row.owner_id::text));
  end if;

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
set search_path = pg_catalog, pg_temp
as $$
  select (p_old.recurrence_type, p_old.recurrence_config, p_old.start_time, p_old.end_time, p_old.timezone,
      p_old.recurrence, p_old.after_schedule_id, p_old.after_on)
    is distinct from
    (p_new.recurrence_type, p_new.recurrence_config, p_new.start_time, p_new.end_time, p_new.timezone,
      p_new.recurrence, p_new.after_schedule_id, p_new.after_on)
    -- What has run as often as it may goes on when it may run more often.
    or (
      p_old.status = 'completed'
      and p_old.execution_count >= (p_old.policies ->> 'max_runs')::bigint
      and coalesce(p_old.execution_count < (p_new.policies ->> 'max_runs')::bigint, true)
    )
$$;

comment on function fleet.timing_changed(public.schedules, public.schedules) is 'Whether the due instants may have changed.';
revoke all on function fleet.timing_changed(public.schedules, public.schedules)
  from public, anon, authenticated, service_role;

create or replace function fleet.tg_run_due_schedules()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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

  if v_run = array[v_due] and v_due >= v_on_time_from and v_left is null and p_schedule.timezone <> 'device'
    and not p_schedule.policies ?| '{blackouts,execution_window}'
  then
    -- Nearly every decision is this one, so it goes the short way.
    scheduled_for := v_due;
    trigger := 'schedule';
    status := 'pending';
    expires_at := fleet.run_expiry(v_policies, next_run_at, p_now);
    dst_rule := fleet.applied_rule(p_schedule.recurrence, v_due);
    return next;
    return;
  end if;

  -- Older than the window, or left out of it: one row for the range, whole and counted.
  if v_run[1] is distinct from v_due then
    return query
    select g.missed_from, 'schedule', 'skipped', g.reason,
      case when g.missed_count > 1 then g.missed_from end,
      case when g.missed_count > 1 then g.missed_to end,
      case when g.missed_count > 1 then g.missed_count end,
      null::timestamptz, null::timestamptz, null::text[], null::text, decide_due.next_run_at
    from fleet.missed_range(p_schedule.recurrence, v_policies, v_due, v_window_from, v_run[1], p_now) as g;
  end if;

  return query
  select r.instant, r.trigger, case when r.refusal is null then 'pending' else 'skipped' end, r.refusal,
    null::timestamptz, null::timestamptz, null::bigint,
    nullif(r.starts_at, p_now),
    fleet.run_expiry(v_policies, fleet.next_due_in(p_schedule.recurrence, r.zones, r.starts_at), r.starts_at),
    r.zones, fleet.dst_rule_at(p_schedule.recurrence, r.instant),
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
returns table (instant timestamptz, trigger text, refusal text, starts_at timestamptz, zones text[])
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with due as (
    select u.instant, u.instant < p_on_time_from as is_late,
      fleet.zones_to_run(p_schedule.recurrence, p_policies, u.instant, p_now) as zones,
      fleet.zones_due(p_schedule.recurrence, u.instant) as zones_due
    from unnest(p_instants) as u(instant)
  ),
  judged as (
    select d.*, coalesce(
        case when d.zones = '{}' and d.zones_due is not null then 'superseded by a later instant' end,
        fleet.zones_refusal(p_schedule, d.zones, d.instant),
        -- What is caught up acts now, so now must be allowed as well.
        case when d.is_late then fleet.zones_refusal(p_schedule, d.zones, p_now) end
      ) as refusal
    from due as d
  ),
  paced as (
    select j.*, fleet.opening_of(p_schedule, p_now + fleet.catchup_pause(
        p_policies, case when j.is_late then count(*) filter (where j.refusal is null and j.is_late) over (order by j.instant) end
      )) as starts_at
    from judged as j
  ),
  checked as (
    select p.instant, p.is_late, p.starts_at, p.zones, p.zones_due, coalesce(
        p.refusal,
        case when p.starts_at > p_now then fleet.zones_refusal(p_schedule, p.zones, p.starts_at) end
      ) as refusal
    from paced as p
  ),
  counted as (
    select c.*, count(*) filter (where c.refusal is null) over (order by c.instant) as n
    from checked as c
  )
  select c.instant, case when c.is_late then 'catchup' else 'schedule' end,
    coalesce(c.refusal, case when c.n > p_left then 'max_runs reached' end),
    c.starts_at,
    case
      when c.refusal is not null then c.zones_due
      when p_schedule.policies ? 'blackouts'
        and c.zones is not null
        then fleet.open_zones(p_schedule, fleet.open_zones(p_schedule, c.zones, c.instant), c.starts_at)
      else c.zones
    end
  from counted as c
$$;

comment on function fleet.decide_runs(public.schedules, jsonb, timestamptz[], timestamptz, bigint, timestamptz) is
  'For each instant that is to run: on time or caught up, what refuses it, when it starts (the window opens, catching up is paced), and '
  'for the devices of which zones.';
revoke all on function fleet.decide_runs(public.schedules, jsonb, timestamptz[], timestamptz, bigint, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.catchup_pause(p_policies jsonb, p_place bigint)
returns interval
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    interval '1 minute' / (p_policies ->> 'catchup_rate')::double precision * (greatest(p_place, 1) - 1)::double precision,
    interval '0'
  )
$$;

comment on function fleet.catchup_pause(jsonb, bigint) is
  'How long the n-th of the runs that are caught up waits, by policies.catchup_rate. None where there is no rate or no place.';
revoke all on function fleet.catchup_pause(jsonb, bigint) from public, anon, authenticated, service_role;

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
set search_path = pg_catalog, pg_temp
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

  if p_recurrence ->> 'kind' = 'union' then
    -- Each zone has a latest instant of its own; from the first of them on, each instant is looked at for its zones.
    return (
      select array_agg(i.instant order by i.instant)
      from (
        select min(fleet.last_occurrence(m.member, p_window_from, p_now + interval '1 microsecond')) as from_at
        from jsonb_array_elements(p_recurrence -> 'members') as m(member)
      ) as l
      cross join lateral fleet.due_instants(p_recurrence, l.from_at, p_now + interval '1 microsecond') as i(instant)
      where l.from_at is not null
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

create or replace function fleet.missed_range(
  p_recurrence jsonb,
  p_policies jsonb,
  p_due timestamptz,
  p_window_from timestamptz,
  p_first_run timestamptz,
  p_now timestamptz
)
returns table (missed_from timestamptz, missed_to timestamptz, missed_count bigint, reason text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select p_due,
    -- p_due is due whatever the recurrence says by now; what follows is asked from the recurrence.
    coalesce(fleet.last_occurrence(p_recurrence, p_due, w.to_at), p_due),
    greatest(fleet.count_due(p_recurrence, p_due, w.to_at), 1),
    case
      when p_policies ->> 'catchup' = 'none' then 'catch-up is off'
      when p_first_run is null or not exists (
        select 1 from fleet.due_instants(p_recurrence, greatest(p_due, p_window_from), p_first_run) limit 1
      ) and p_policies ->> 'catchup' = 'all' then 'outside the catch-up window'
      when p_policies ->> 'catchup' = 'all' then 'beyond the catch-up limit'
      else 'superseded by a later instant'
    end
  from (select coalesce(p_first_run, p_now + interval '1 microsecond') as to_at) as w
  where p_due < w.to_at
$$;

comment on function fleet.missed_range(jsonb, jsonb, timestamptz, timestamptz, timestamptz, timestamptz) is
  'The due instants that do not run, as one range: from p_due up to the first that runs, or up to now. No row where there are none.';
revoke all on function fleet.missed_range(jsonb, jsonb, timestamptz, timestamptz, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/30_schedules/device_time.sql
-- Keeping schedules in device time aware of the time zones of their devices. Devices come, move and change groups; a schedule must
-- know each zone before its local time comes there.

create or replace function fleet.refresh_device_time(p_schedule_ids bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  update public.schedules as s
  set recurrence = f.recurrence,
      next_run_at = least(s.next_run_at, fleet.next_due(f.recurrence, clock_timestamp()))
  from (
    select x.id, fleet.compiled(x) as recurrence
    from public.schedules as x
    where x.id = any (p_schedule_ids)
      and not (x.recurrence -> 'zones') @> to_jsonb(fleet.target_zones(x))
  ) as f
  where s.id = f.id
$$;

comment on function fleet.refresh_device_time(bigint[]) is
  'Recompile those of these schedules whose devices are in a zone that they do not know yet.';
revoke all on function fleet.refresh_device_time(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.device_time_schedules(p_owner_ids uuid[], p_zones text[], p_group_ids bigint[])
returns bigint[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select array_agg(s.id)
  from public.schedules as s
  where s.timezone = 'device'
    and s.status = 'active'
    and s.after_schedule_id is null
    and s.owner_id = any (p_owner_ids)
    and (
      s.group_ids && p_group_ids
      -- The zones belong to the owners, pair by pair.
      or exists (
        select 1
        from unnest(p_owner_ids, p_zones) as u(owner_id, zone)
        where u.owner_id = s.owner_id and not (s.recurrence -> 'zones') ? u.zone
      )
    )
$$;

comment on function fleet.device_time_schedules(uuid[], text[], bigint[]) is
  'The active schedules in device time that these zones of these owners, or a change of these groups, may be news to.';
revoke all on function fleet.device_time_schedules(uuid[], text[], bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.tg_refresh_device_time()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owners uuid[];
  v_zones text[];
begin
  if tg_op = 'INSERT' then
    select array_agg(u.owner_id), array_agg(u.zone) into v_owners, v_zones
    from (select distinct n.owner_id, coalesce(n.timezone, 'UTC') as zone from new_rows as n) as u;
  else
    -- Being seen is no news: devices say so all the time.
    select array_agg(u.owner_id), array_agg(u.zone) into v_owners, v_zones
    from (
      select distinct n.owner_id, coalesce(n.timezone, 'UTC') as zone
      from new_rows as n
      join old_rows as o on o.id = n.id
      where (n.timezone, n.tags, n.platform, n.attributes, n.status)
        is distinct from (o.timezone, o.tags, o.platform, o.attributes, o.status)
    ) as u;
  end if;
  if v_owners is not null then
    perform fleet.refresh_device_time(fleet.device_time_schedules(v_owners, v_zones, '{}'));
  end if;
  return null;
end;
$$;

comment on function fleet.tg_refresh_device_time() is
  'Tell schedules in device time of devices in a new zone. Definer: who adds a device may not change schedules.';
revoke all on function fleet.tg_refresh_device_time() from public, anon, authenticated, service_role;

create or replace function fleet.tg_refresh_zones_of_groups()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owners uuid[];
  v_groups bigint[];
begin
  if tg_table_name = 'device_groups' then
    select array_agg(distinct n.owner_id), array_agg(n.id) into v_owners, v_groups from new_rows as n;
  else
    select array_agg(distinct n.owner_id), array_agg(distinct n.group_id) into v_owners, v_groups from new_rows as n;
  end if;
  perform fleet.refresh_device_time(fleet.device_time_schedules(v_owners, '{}', v_groups));
  return null;
end;
$$;

comment on function fleet.tg_refresh_zones_of_groups() is
  'Tell schedules in device time of new members of their groups. Definer: who changes a group may not change schedules.';
revoke all on function fleet.tg_refresh_zones_of_groups() from public, anon, authenticated, service_role;

-- db/sources/30_schedules/devices_of_runs.sql
-- What a run means for one device: when it starts there, and what it still has to do.

create or replace function fleet.device_start(
  p_policies jsonb,
  p_schedule_id bigint,
  p_device_id bigint,
  p_timezone text,
  p_from timestamptz
)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_windows jsonb := fleet.window_list(p_policies);
  v_start timestamptz := p_from;
begin
  if v_windows <> '[]' then
    v_start := fleet.window_opening(v_windows, 'device', p_timezone, p_from);
    if v_start > p_from and not fleet.waits_for_window(v_windows, 'device') then
      return null;
    end if;
  end if;
  if p_policies ->> 'jitter' is null then
    return v_start;
  end if;
  return v_start + fleet.jitter_slot(
    least((p_policies ->> 'jitter')::interval, fleet.room_for_jitter(v_windows, p_schedule_id, p_timezone, v_start)),
    p_schedule_id, p_device_id
  );
end;
$$;

comment on function fleet.device_start(jsonb, bigint, bigint, text, timestamptz) is
  'When a device may start: when its window opens, plus its slot of the jitter. Null where it is outside of its window and is not to wait.';
revoke all on function fleet.device_start(jsonb, bigint, bigint, text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.room_for_jitter(
  p_windows jsonb,
  p_schedule_id bigint,
  p_timezone text,
  p_start timestamptz
)
returns interval
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- A slot beyond the window would be out of bounds at every run: those devices would never have their turn.
  select least(
    fleet.window_closing(p_windows, 'device', p_timezone, p_start),
    (
      select fleet.window_closing(p_windows, 'schedule', s.timezone, p_start)
      from public.schedules as s
      where s.id = p_schedule_id and s.timezone <> 'device'
    )
  ) - p_start
  where p_windows <> '[]'
$$;

comment on function fleet.room_for_jitter(jsonb, bigint, text, timestamptz) is
  'How long the windows of a schedule and of a device stay open after p_start; null where there are none.';
revoke all on function fleet.room_for_jitter(jsonb, bigint, text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.jitter_slot(p_jitter interval, p_schedule_id bigint, p_device_id bigint)
returns interval
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  -- From a hash of both, so that a device keeps its slot, and the fleet is spread evenly.
  select p_jitter * (('x' || substr(md5(p_schedule_id || ':' || p_device_id), 1, 8))::bit(32)::bigint / 4294967296.0)
$$;

comment on function fleet.jitter_slot(interval, bigint, bigint) is
  'How much later than due a device runs a schedule: the same at each run, within the jitter.';
revoke all on function fleet.jitter_slot(interval, bigint, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.leaves_out(
  p_overlap text,
  p_max_concurrent bigint,
  p_unfinished bigint,
  p_is_overtaken boolean
)
returns boolean
language sql
immutable
parallel safe
return (
  case p_overlap
    -- Of two runs on their way, the later one has come here first: what is newer stays.
    when 'replace' then p_is_overtaken
    when 'allow' then p_unfinished >= p_max_concurrent
    when 'buffer_one' then p_unfinished >= 2
    else p_unfinished >= 1
  end
);

comment on function fleet.leaves_out(text, bigint, bigint, boolean) is
  'Whether the overlap policy leaves a device out that has so many unfinished commands of the schedule, maybe of a later run.';
revoke all on function fleet.leaves_out(text, bigint, bigint, boolean) from public, anon, authenticated, service_role;

create or replace function fleet.unfinished_of(
  p_schedule_id bigint,
  p_device_id bigint,
  p_run_id bigint,
  p_now timestamptz
)
returns table (n bigint, last_id bigint, last_run_id bigint)
language sql
stable
strict
rows 1
set search_path = pg_catalog, pg_temp
as $$
  select count(*), max(c.id), max(c.run_id)
  from public.device_commands as c
  where c.schedule_id = p_schedule_id
    and c.device_id = p_device_id
    and c.status in ('pending', 'running')
    -- What nobody may start any more keeps nobody busy: by default it expires at the very instant that is due now.
    and (c.status = 'running' or c.expires_at > p_now)
    and c.run_id <> p_run_id
$$;

comment on function fleet.unfinished_of(bigint, bigint, bigint, timestamptz) is
  'What a device has still to do for other runs of a schedule: how many commands, the last of them, and the latest run.';
revoke all on function fleet.unfinished_of(bigint, bigint, bigint, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/30_schedules/duplicate.sql
-- A schedule like another.

create or replace function fleet.duplicate_schedule(p_schedule_id bigint, p_changes jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_old public.schedules := fleet.schedule_of_caller(p_schedule_id, 'manage');
  v_row public.schedules;
begin
  if jsonb_typeof(p_changes) = 'object' and p_changes ? 'status'
    and p_changes -> 'status' not in ('"active"', '"paused"')
  then
    raise exception 'the schedule is not valid: status: % is not one of active, paused', p_changes -> 'status'
      using errcode = 'PT422', detail = 'schedule_invalid', hint = 'A copy starts as paused unless it says {"status": "active"}.';
  end if;

  v_old.id := null;
  v_old.name := fleet.copy_name(v_old.owner_id, v_old.name);
  v_row := fleet.schedule_with_changes(
    v_old, case when jsonb_typeof(p_changes) = 'object' then p_changes - 'status' else p_changes end
  );
  v_row.status := coalesce(p_changes ->> 'status', 'paused');
  -- Two statements: what the first one made is only seen by the next.
  v_row.id := fleet.store_schedule(v_row);
  return fleet.schedule_answer(v_row.id);
end;
$$;

comment on function fleet.duplicate_schedule(bigint, jsonb) is 'See public.duplicate_schedule. Definer: it checks the caller.';
revoke all on function fleet.duplicate_schedule(bigint, jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.duplicate_schedule(bigint, jsonb) to authenticated, service_role;

create or replace function fleet.copy_name(p_owner_id uuid, p_name text)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select c.name
  from (
    select n.number, p_name || case n.number when 1 then ' (copy)' else format(' (copy %s)', n.number) end as name
    from generate_series(1, 1000) as n(number)
  ) as c
  where not exists (
    select 1 from public.schedules as s where s.owner_id = p_owner_id and lower(s.name) = lower(c.name)
  )
  order by c.number
  limit 1
$$;

comment on function fleet.copy_name(uuid, text) is 'X (copy), or the first X (copy n) that the owner has no schedule of.';
revoke all on function fleet.copy_name(uuid, text) from public, anon, authenticated, service_role;

create or replace function public.duplicate_schedule(p_schedule_id bigint, p_changes jsonb default '{}')
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.duplicate_schedule(p_schedule_id, p_changes)
$$;

comment on function public.duplicate_schedule(bigint, jsonb) is
  'Make a schedule like another, named "X (copy)" and paused, with changes by the keys of create_schedule and status (active or paused). '
  'Answers the row with "warnings". Raises schedule_not_found (PT404), permission_missing (PT403) or schedule_invalid (PT422).';
revoke all on function public.duplicate_schedule(bigint, jsonb) from public, anon, authenticated, service_role;
grant execute on function public.duplicate_schedule(bigint, jsonb) to authenticated, service_role;

-- db/sources/30_schedules/expand.sql
-- From runs to commands: one row for each (run, device), in chunks.

create or replace function fleet.expand_runs(p_run_ids bigint[], p_now timestamptz, p_limit integer)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
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
        -- Whatever follows a failure is to hear of this one.
        insert into fleet.run_progress (run_id, completed, failed) values (v_id, 0, 0);
    end;
  end loop;
  return v_made;
end;
$$;

comment on function fleet.expand_runs(bigint[], timestamptz, integer) is
  'Make the next commands of these runs, at most p_limit devices of each. Answers how many rows were made.';
revoke all on function fleet.expand_runs(bigint[], timestamptz, integer)
  from public, anon, authenticated, service_role;

create or replace function fleet.write_commands(p_run_ids bigint[], p_now timestamptz, p_limit integer)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- Compiling the plan would take a hundred times as long as running it.
set jit = off
as $$
declare
  v_runs bigint[] := fleet.lock_runs(p_run_ids, p_now);
  v_made bigint;
begin
  with run as materialized (
    select * from fleet.runs_to_expand(v_runs, p_now)
  ),
  -- One more than the limit tells whether anything is left.
  target as materialized (
    select r.id as run_id, t.device_id, t.hostname, row_number() over (partition by r.id order by t.device_id) as n,
      r.zones is null or coalesce(t.timezone, 'UTC') = any (r.zones) as is_due,
      case
        when r.is_plain then r.starts_at
        else fleet.device_start(r.policies, r.schedule_id, t.device_id, coalesce(t.timezone, 'UTC'), r.starts_at)
      end as starts_at,
      coalesce(u.n, 0) as unfinished, u.last_id, coalesce(u.last_run_id > r.id, false) as is_overtaken
    from run as r
    cross join lateral fleet.targets(
      r.owner_id, r.device_ids, r.group_ids, r.selector, coalesce(r.expanded_to, 0), p_limit + 1
    ) as t
    -- Strict: with a null it is not even called.
    left join lateral fleet.unfinished_of(
      case when r.may_overlap then r.schedule_id end, t.device_id, r.id, p_now
    ) as u on true
  ),
  replaced as (
    update public.device_commands as c
    set status = 'cancelled', reason = 'replaced'
    from target as t
    join run as r on r.id = t.run_id
    where r.overlap = 'replace'
      and t.n <= p_limit and t.is_due and t.starts_at is not null and t.unfinished > 0
      and c.schedule_id = r.schedule_id
      and c.device_id = t.device_id
      and c.status in ('pending', 'running')
      and c.run_id < r.id
  ),
  made as (
    insert into public.device_commands (
      run_id, schedule_id, owner_id, device_id, device_hostname, channel, command_type, payload, priority, not_before,
      expires_at, max_attempts, waits_for
    )
    select r.id, r.schedule_id, r.owner_id, t.device_id, t.hostname, r.channel, r.command_type, r.payload, r.priority, t.starts_at,
      r.expires_at + (t.starts_at - r.starts_at), r.max_attempts,
      case when r.overlap = 'buffer_one' then t.last_id end
    from target as t
    join run as r on r.id = t.run_id
    where t.n <= p_limit
      and t.is_due
      and t.starts_at is not null
      and not fleet.leaves_out(r.overlap, r.max_concurrent, t.unfinished, t.is_overtaken)
    on conflict (run_id, device_id, step) do nothing
    returning run_id
  ),
  progress as (
    select r.id,
      (select count(*) from made as m where m.run_id = r.id) as made,
      -- Left out: they had enough to do, or it is not their time of day.
      count(*) filter (
        where t.starts_at is not null and fleet.leaves_out(r.overlap, r.max_concurrent, t.unfinished, t.is_overtaken)
      ) as busy,
      count(*) filter (where t.run_id is not null and t.starts_at is null) as outside,
      (select max(x.device_id) from target as x where x.run_id = r.id and x.n <= p_limit) as reached,
      not exists (select 1 from target as x where x.run_id = r.id and x.n > p_limit) as is_whole
    from run as r
    left join target as t on t.run_id = r.id and t.n <= p_limit and t.is_due
      and (t.starts_at is null or t.unfinished > 0)
    group by r.id
  ),
  noted as (
    update public.schedule_runs as r
    set targeted = r.targeted + p.made,
        skipped = r.skipped + p.busy + p.outside,
        expanded_to = coalesce(p.reached, r.expanded_to, 0),
        expanded_at = case when p.is_whole then p_now end,
        status = case when p.is_whole and r.targeted + p.made = 0 then 'skipped' else 'running' end,
        reason = case
          when not p.is_whole or r.targeted + p.made > 0 then null
          when p.outside > 0 then 'outside the execution window'
          when r.skipped + p.busy > 0 then 'overlap'
          else 'no targets'
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
    join public.schedules as s on s.id = r.schedule_id
    where r.expanded_at is null and r.status = 'pending' and coalesce(r.not_before <= p_now, true)
    order by r.priority desc, r.id
    limit greatest(v_chunk / v_small, 1)
    for no key update of r, s skip locked
  ) as r;
  if v_fresh is not null then
    v_made := fleet.expand_runs(v_fresh, p_now, v_small);
  end if;

  select r.id into v_large
  from public.schedule_runs as r
  join public.schedules as s on s.id = r.schedule_id
  where r.expanded_at is null and r.status = 'running'
  order by r.priority desc, r.targeted, r.id
  limit 1
  for no key update of r, s skip locked;
  if v_large is not null then
    v_made := v_made + fleet.expand_runs(array[v_large], p_now, v_chunk);
  end if;

  return jsonb_build_object(
    'commands', v_made,
    -- Only after some progress: what another session holds must not keep this one spinning.
    'more', (v_fresh is not null or v_large is not null) and exists (
      select 1 from public.schedule_runs as r
      where r.expanded_at is null and r.status in ('pending', 'running') and coalesce(r.not_before <= p_now, true)
    )
  );
end;
$$;

comment on function fleet.expand_next(timestamptz) is
  'One transaction''s worth of expansion. {commands, more}.';
revoke all on function fleet.expand_next(timestamptz) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/history.sql
-- What schedules have done: the ledger of one for people to read, and figures about all of them.

create or replace function fleet.schedule_history(p_schedule_id bigint, p_limit integer, p_before timestamptz)
returns table (
  id bigint, scheduled_for timestamptz, local_time timestamp, trigger text, status text, reason text,
  missed_from timestamptz, missed_to timestamptz, missed_count bigint, targeted integer, completed integer, failed integer,
  skipped integer, dst_rule text, error_message text, result jsonb, started_at timestamptz, finished_at timestamptz,
  duration_seconds numeric
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_schedule public.schedules;
begin
  select s.* into v_schedule
  from public.schedules as s
  where s.id = p_schedule_id and fleet.is_visible_owner(s.owner_id);
  if not found then
    perform fleet.raise_not_found(format('schedule %s', p_schedule_id));
  end if;
  perform fleet.require_permission(v_schedule.owner_id, 'view', format('schedule %s', p_schedule_id));

  return query
  select r.id, r.scheduled_for, r.scheduled_for at time zone fleet.reference_zone(v_schedule), r.trigger, r.status, r.reason,
    r.missed_from, r.missed_to, r.missed_count, r.targeted, r.completed, r.failed, r.skipped, r.dst_rule, r.error_message,
    r.result, r.started_at, r.finished_at,
    case when r.status <> 'skipped' then round(extract(epoch from r.finished_at - r.started_at), 3) end
  from public.schedule_runs as r
  where r.schedule_id = p_schedule_id
    and (p_before is null or r.scheduled_for < p_before)
  order by r.scheduled_for desc
  limit least(greatest(coalesce(p_limit, 50), 0), 1000);
end;
$$;

comment on function fleet.schedule_history(bigint, integer, timestamptz) is 'See public.schedule_history. Definer: it tells missing from empty.';
revoke all on function fleet.schedule_history(bigint, integer, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.schedule_history(bigint, integer, timestamptz) to authenticated, service_role;

create or replace function public.schedule_history(
  p_schedule_id bigint,
  p_limit integer default 50,
  p_before timestamptz default null
)
returns table (
  id bigint, scheduled_for timestamptz, local_time timestamp, trigger text, status text, reason text,
  missed_from timestamptz, missed_to timestamptz, missed_count bigint, targeted integer, completed integer, failed integer,
  skipped integer, dst_rule text, error_message text, result jsonb, started_at timestamptz, finished_at timestamptz,
  duration_seconds numeric
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select * from fleet.schedule_history(p_schedule_id, p_limit, p_before)
$$;

comment on function public.schedule_history(bigint, integer, timestamptz) is
  'The runs of a schedule, the latest instant first, at most 1000 of them; for the next page pass the last scheduled_for as p_before. '
  'A range of missed instants is one row. Raises schedule_not_found (PT404).';
revoke all on function public.schedule_history(bigint, integer, timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.schedule_history(bigint, integer, timestamptz) to authenticated, service_role;

create or replace function public.schedule_stats(p_now timestamptz default now())
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Row security limits the figures to the caller's own; a device, retired or not, counts as nobody.
  if fleet.current_user_id() is null and not fleet.is_trusted_caller() then
    raise exception 'a device may not do this'
      using errcode = 'PT403', detail = 'not_a_person', hint = 'Sign in as a member of the fleet.';
  end if;

  return jsonb_build_object('now', p_now) || fleet.schedule_figures(p_now) || fleet.run_figures(p_now);
end;
$$;

comment on function public.schedule_stats(timestamptz) is
  'Figures about schedules and their runs: total, by_status, by_type, by_recurrence, next_due, executions (total, by_status, '
  'success_rate, last_24_hours), and for the last 30 days average_duration_seconds, busiest_hours (UTC), slowest and failing. '
  'Raises not_a_person (PT403).';
revoke all on function public.schedule_stats(timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.schedule_stats(timestamptz) to authenticated, service_role;

create or replace function fleet.schedule_figures(p_now timestamptz)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with counted as materialized (
    select s.status, s.action_type, s.recurrence_type, count(*) as n
    from public.schedules as s
    group by s.status, s.action_type, s.recurrence_type
  )
  select jsonb_build_object(
    'total', (select coalesce(sum(c.n), 0) from counted as c),
    'by_status', (
      select jsonb_object_agg(k.status, coalesce(k.n, 0))
      from (
        select u.status, (select sum(c.n) from counted as c where c.status = u.status) as n
        from unnest('{active,paused,completed,cancelled}'::text[]) as u(status)
      ) as k
    ),
    'by_type', (
      select coalesce(jsonb_object_agg(k.action_type, k.n), '{}')
      from (select c.action_type, sum(c.n) as n from counted as c group by c.action_type) as k
    ),
    'by_recurrence', (
      select coalesce(jsonb_object_agg(k.recurrence_type, k.n), '{}')
      from (select c.recurrence_type, sum(c.n) as n from counted as c group by c.recurrence_type) as k
    ),
    'next_due', (
      select coalesce(jsonb_agg(
        jsonb_build_object('id', d.id, 'name', d.name, 'next_run_at', d.next_run_at) order by d.next_run_at, d.id
      ), '[]')
      from (
        select s.id, s.name, s.next_run_at
        from public.schedules as s
        where s.status = 'active' and s.next_run_at is not null
        order by s.next_run_at, s.id
        limit 5
      ) as d
    ),
    'due_next_24_hours', (
      select count(*)
      from public.schedules as s
      where s.status = 'active' and s.next_run_at < p_now + interval '24 hours'
    )
  )
$$;

comment on function fleet.schedule_figures(timestamptz) is 'How many schedules of which kind the caller sees, and which are due next.';
revoke all on function fleet.schedule_figures(timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.schedule_figures(timestamptz) to authenticated, service_role;

create or replace function fleet.run_counts(p_since timestamptz)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with counted as materialized (
    select r.status, count(*) as runs, sum(coalesce(r.missed_count, 1)) as instants
    from public.schedule_runs as r
    where p_since is null or r.created_at > p_since
    group by r.status
  )
  select jsonb_build_object(
    'total', (select coalesce(sum(c.runs), 0) from counted as c),
    'by_status', (
      select jsonb_object_agg(u.status, coalesce(c.runs, 0))
      from unnest('{pending,running,completed,failed,skipped,cancelled}'::text[]) as u(status)
      left join counted as c on c.status = u.status
    ),
    -- A range of missed instants is one row.
    'missed', (select coalesce(sum(c.instants), 0) from counted as c where c.status = 'skipped'),
    'success_rate', (
      select round(
        100.0 * sum(c.runs) filter (where c.status = 'completed')
        / nullif(sum(c.runs) filter (where c.status in ('completed', 'failed')), 0), 1
      )
      from counted as c
    )
  )
$$;

comment on function fleet.run_counts(timestamptz) is
  'How runs ended, since an instant or ever: total, by_status, missed instants, success_rate in percent of those that ended.';
revoke all on function fleet.run_counts(timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.run_counts(timestamptz) to authenticated, service_role;

create or replace function fleet.run_figures(p_now timestamptz)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with recent as materialized (
    select r.schedule_id, r.status, r.started_at, extract(epoch from r.finished_at - r.started_at) as seconds
    from public.schedule_runs as r
    where r.created_at > p_now - interval '30 days' and r.started_at is not null
  )
  select jsonb_build_object(
    'executions', fleet.run_counts(null)
      || jsonb_build_object('last_24_hours', fleet.run_counts(p_now - interval '24 hours')),
    'average_duration_seconds', (select round(avg(x.seconds), 3) from recent as x where x.status in ('completed', 'failed')),
    'busiest_hours', (
      select coalesce(jsonb_agg(jsonb_build_object('hour', h.hour, 'runs', h.n) order by h.n desc, h.hour), '[]')
      from (
        select extract(hour from x.started_at at time zone 'UTC')::integer as hour, count(*) as n
        from recent as x
        group by 1
        order by 2 desc, 1
        limit 5
      ) as h
    ),
    'slowest', (
      select coalesce(jsonb_agg(
        jsonb_build_object('id', s.id, 'name', s.name, 'average_seconds', q.seconds) order by q.seconds desc, s.id
      ), '[]')
      from (
        select x.schedule_id, round(avg(x.seconds), 3) as seconds
        from recent as x
        where x.status in ('completed', 'failed') and x.seconds is not null
        group by x.schedule_id
        order by 2 desc
        limit 5
      ) as q
      join public.schedules as s on s.id = q.schedule_id
    ),
    'failing', (
      select coalesce(jsonb_agg(
        jsonb_build_object('id', s.id, 'name', s.name, 'failed', q.n, 'runs', q.runs) order by q.n desc, s.id
      ), '[]')
      from (
        select x.schedule_id, count(*) filter (where x.status = 'failed') as n, count(*) as runs
        from recent as x
        group by x.schedule_id
        having count(*) filter (where x.status = 'failed') > 0
        order by 2 desc
        limit 5
      ) as q
      join public.schedules as s on s.id = q.schedule_id
    )
  )
$$;

comment on function fleet.run_figures(timestamptz) is
  'How the runs that the caller sees ended, how long they took, and when; all but the totals over the last 30 days.';
revoke all on function fleet.run_figures(timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.run_figures(timestamptz) to authenticated, service_role;

-- db/sources/30_schedules/manage.sql
-- What people do with a schedule once it is there.

create or replace function fleet.schedule_of_caller(p_schedule_id bigint, p_permission text)
returns public.schedules
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
    -- An instant of its own, even in the microsecond of another run; and never one that may be due, which are whole seconds
    -- of the clock or whole seconds from the start.
    (
      select g.at
      from generate_series(p_now, p_now + interval '1 millisecond', '1 microsecond') as g(at)
      where extract(microseconds from g.at) % 1000000
          not in (0, extract(microseconds from v_schedule.start_time) % 1000000)
        and not exists (
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
  set execution_count = s.execution_count + 1,
      last_executed_at = case when fleet.is_mdm_action(s.action_type) then s.last_executed_at else p_now end
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
set search_path = pg_catalog, pg_temp
as $$
  select fleet.run_schedule(p_schedule_id, p_idempotency_key, clock_timestamp())
$$;

comment on function public.run_schedule(bigint, text) is
  'Run a schedule now, besides its due instants. The same key again gives the same run. Raises schedule_not_found (PT404), '
  'permission_missing (PT403) or schedule_cancelled (PT409).';
revoke all on function public.run_schedule(bigint, text) from public, anon, authenticated, service_role;
grant execute on function public.run_schedule(bigint, text) to authenticated, service_role;

-- db/sources/30_schedules/names.sql
-- Names instead of ids, so that what was written for one fleet means the same in another.

create or replace function fleet.schedule_by_name(p_owner_id uuid, p_name text)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules;
  v_ids bigint[];
begin
  select array_agg(s.id order by s.id) into v_ids
  from public.schedules as s
  where s.owner_id = p_owner_id and lower(s.name) = lower(p_name) and s.status in ('active', 'paused');
  if cardinality(v_ids) > 1 then
    raise exception 'schedule "%" is ambiguous: ids %', p_name, array_to_string(v_ids, ', ')
      using errcode = 'PT409', detail = 'schedule_ambiguous', hint = 'Rename or cancel all of them but one.';
  end if;

  -- What is cancelled is gone; what is completed is still there, unless something of its name lives.
  select s.* into v_row
  from public.schedules as s
  where s.owner_id = p_owner_id and lower(s.name) = lower(p_name) and s.status <> 'cancelled'
  order by s.status = 'completed', s.id desc
  limit 1;
  return v_row;
end;
$$;

comment on function fleet.schedule_by_name(uuid, text) is
  'The schedule that a name means: the living one, else the latest completed one; null where there is none. Raises schedule_ambiguous '
  '(PT409).';
revoke all on function fleet.schedule_by_name(uuid, text) from public, anon, authenticated, service_role;

create or replace function fleet.name_problems(p_owner_id uuid, p_spec jsonb)
returns table (field text, problem text, hint text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with lists as (
    select k.key, p_spec -> k.key as list
    from (values ('devices'), ('groups')) as k(key)
    where p_spec ? k.key and p_spec -> k.key <> 'null'
  ),
  named as (
    select l.key, e.item
    from lists as l
    cross join lateral jsonb_array_elements(case when jsonb_typeof(l.list) = 'array' then l.list else '[]' end) as e(item)
  )
  select l.key, 'must be a list of names', format('Example: {"%s": ["one", "two"]}', l.key)
  from lists as l
  where jsonb_typeof(l.list) <> 'array' or jsonb_path_exists(l.list, '$[*] ? (@.type() != "string")')
  union all
  select n.key, format('device %s was not found', n.item), 'List your devices with: pgfleet device list'
  from named as n
  where n.key = 'devices'
    and jsonb_typeof(n.item) = 'string'
    and not exists (
      select 1 from public.devices as d where d.owner_id = p_owner_id and lower(d.hostname) = lower(n.item #>> '{}')
    )
  union all
  select n.key, format('group %s was not found', n.item), 'List your groups with: pgfleet group list'
  from named as n
  where n.key = 'groups'
    and jsonb_typeof(n.item) = 'string'
    and not exists (
      select 1 from public.device_groups as g where g.owner_id = p_owner_id and lower(g.name) = lower(n.item #>> '{}')
    )
  union all
  select 'after.schedule', format('schedule %s was not found', p_spec #> '{after,schedule}'),
    'List your schedules with: pgfleet schedule list'
  where p_spec #>> '{after,schedule}' is not null
    and (fleet.schedule_by_name(p_owner_id, p_spec #>> '{after,schedule}')).id is null
$$;

comment on function fleet.name_problems(uuid, jsonb) is
  'Names in a specification that stand for nothing of this owner. What belongs to another owner is as good as not there.';
revoke all on function fleet.name_problems(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.with_ids(p_owner_id uuid, p_spec jsonb)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select (p_spec - '{devices,groups}'::text[])
    || case
      when jsonb_typeof(p_spec -> 'devices') = 'array' then jsonb_build_object('device_ids', (
        select coalesce(jsonb_agg(d.id), '[]') || coalesce(nullif(p_spec -> 'device_ids', 'null'), '[]')
        from public.devices as d
        where d.owner_id = p_owner_id
          and lower(d.hostname) in (select lower(e.item #>> '{}') from jsonb_array_elements(p_spec -> 'devices') as e(item))
      ))
      else '{}'
    end
    || case
      when jsonb_typeof(p_spec -> 'groups') = 'array' then jsonb_build_object('group_ids', (
        select coalesce(jsonb_agg(g.id), '[]') || coalesce(nullif(p_spec -> 'group_ids', 'null'), '[]')
        from public.device_groups as g
        where g.owner_id = p_owner_id
          and lower(g.name) in (select lower(e.item #>> '{}') from jsonb_array_elements(p_spec -> 'groups') as e(item))
      ))
      else '{}'
    end
    || case
      when p_spec #>> '{after,schedule}' is not null then jsonb_build_object('after', (
        select case when f.id is null then 'null' else ((p_spec -> 'after') - 'schedule') || jsonb_build_object('schedule_id', f.id) end
        from fleet.schedule_by_name(p_owner_id, p_spec #>> '{after,schedule}') as f
      ))
      else '{}'
    end
$$;

comment on function fleet.with_ids(uuid, jsonb) is
  'A specification with devices, groups and after.schedule turned into ids; what stands for nothing is left out. Names of calendars are '
  'understood anyway.';
revoke all on function fleet.with_ids(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.resolved_spec(p_owner_id uuid, p_spec jsonb)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_fields text[];
  v_problems text[];
  v_hints text[];
begin
  select array_agg(q.field), array_agg(q.problem), array_agg(q.hint)
  into v_fields, v_problems, v_hints
  from fleet.name_problems(p_owner_id, p_spec) as q;
  perform fleet.raise_problems('the schedule', 'schedule_invalid', v_fields, v_problems, v_hints);
  return fleet.with_ids(p_owner_id, p_spec);
end;
$$;

comment on function fleet.resolved_spec(uuid, jsonb) is
  'A specification with names turned into ids. Raises schedule_invalid (PT404) naming each that was not found.';
revoke all on function fleet.resolved_spec(uuid, jsonb) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/policies_calendars.sql
-- Who sees and changes blackout calendars and templates: members of the owner. Both are written by functions.

revoke all on table public.blackout_calendars, public.blackout_periods, public.schedule_templates
  from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.blackout_calendars, public.blackout_periods to service_role;
-- A version never changes, whoever asks.
grant select, insert, delete on table public.schedule_templates to service_role;
revoke all on sequence public.blackout_calendars_id_seq, public.blackout_periods_id_seq, public.schedule_templates_id_seq
  from public, anon, authenticated, service_role;
grant usage, select on sequence public.blackout_calendars_id_seq, public.blackout_periods_id_seq,
  public.schedule_templates_id_seq
  to service_role;

drop policy if exists blackout_calendars_all_service_role on public.blackout_calendars;
create policy blackout_calendars_all_service_role on public.blackout_calendars
  for all to service_role using (true) with check (true);
drop policy if exists blackout_periods_all_service_role on public.blackout_periods;
create policy blackout_periods_all_service_role on public.blackout_periods
  for all to service_role using (true) with check (true);
drop policy if exists schedule_templates_all_service_role on public.schedule_templates;
create policy schedule_templates_all_service_role on public.schedule_templates
  for all to service_role using (true) with check (true);

grant select on table public.blackout_calendars, public.blackout_periods, public.schedule_templates to authenticated;
grant update (name, description) on table public.blackout_calendars to authenticated;

drop policy if exists blackout_calendars_select_member on public.blackout_calendars;
create policy blackout_calendars_select_member on public.blackout_calendars
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists blackout_calendars_update_manager on public.blackout_calendars;
create policy blackout_calendars_update_manager on public.blackout_calendars
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));

drop policy if exists blackout_periods_select_member on public.blackout_periods;
create policy blackout_periods_select_member on public.blackout_periods
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

drop policy if exists schedule_templates_select_member on public.schedule_templates;
create policy schedule_templates_select_member on public.schedule_templates
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
as $$
  select p_field, format('%s is not a duration', p_value), 'Examples: "15 minutes", "2 hours", "1 day".'
  where p_value is not null
    and jsonb_typeof(p_value) <> 'null'
    and (
      jsonb_typeof(p_value) <> 'string'
      or fleet.try_interval(p_value #>> '{}') is null
      -- What is longer leads out of the calendar, sooner or later.
      or fleet.try_interval(p_value #>> '{}') not between interval '1 microsecond' and interval '10 years'
    )
$$;

comment on function fleet.duration_problem(text, jsonb) is
  'One row where a value is not a positive duration, of ten years at most.';
revoke all on function fleet.duration_problem(text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.retry_problems(p_retry jsonb)
returns table (field text, problem text, hint text)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select 'policies.retry.' || k, 'is not part of retry', 'Example: {"retry": {"attempts": 5}}'
  from jsonb_object_keys(p_retry) as k
  where not (fleet.default_policies() -> 'retry') ? k
  union all
  select * from fleet.whole_number_problem('policies.retry.attempts', p_retry -> 'attempts', 1, 1000)
  union all
  select * from fleet.duration_problem('policies.retry.backoff', p_retry -> 'backoff')
  union all
  select * from fleet.duration_problem('policies.retry.max_backoff', p_retry -> 'max_backoff')
  union all
  select 'policies.retry.on', 'must be a list of classes of failure', 'Example: {"retry": {"on": ["timeout", "network"]}}'
  where p_retry ? 'on' and jsonb_typeof(p_retry -> 'on') <> 'array'
  union all
  -- What was interrupted may have happened: nothing that is not safe to repeat is ever repeated.
  select 'policies.retry.on', format('%s is not a class of failure that can be tried again', e.item),
    'Use some of: error, timeout, network, rate_limited, unavailable, lease_expired, unsupported, forbidden, invalid_payload.'
  from jsonb_array_elements(case jsonb_typeof(p_retry -> 'on') when 'array' then p_retry -> 'on' else '[]' end) as e(item)
  where jsonb_typeof(e.item) <> 'string'
    or (e.item #>> '{}') <> all (
      '{error,timeout,network,rate_limited,unavailable,lease_expired,unsupported,forbidden,invalid_payload}'::text[]
    )
$$;

comment on function fleet.retry_problems(jsonb) is 'Everything that is wrong with the policy about retries.';
revoke all on function fleet.retry_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.policy_problems(p_policies jsonb)
returns table (field text, problem text, hint text)
language sql
immutable
set search_path = pg_catalog, pg_temp
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
  select q.*
  from unnest('{catchup_rate,max_runs,pause_on_failure}'::text[]) as k(key)
  cross join lateral fleet.whole_number_problem(
    'policies.' || k.key, nullif(p_policies -> k.key, 'null'), 1, case k.key when 'max_runs' then 1000000000 else 1000 end
  ) as q
  union all
  select * from fleet.duration_problem(
    'policies.catchup_window', case p_policies -> 'catchup_window' when 'null' then '""'::jsonb else p_policies -> 'catchup_window' end
  )
  union all
  select q.*
  from unnest('{expires_after,jitter}'::text[]) as k(key)
  cross join lateral fleet.duration_problem('policies.' || k.key, p_policies -> k.key) as q
  union all
  select * from fleet.window_problems(p_policies -> 'execution_window')
  union all
  select 'policies.retry', 'must be an object', 'Example: {"retry": {"attempts": 5}}'
  where p_policies ? 'retry' and jsonb_typeof(p_policies -> 'retry') <> 'object'
  union all
  select q.*
  from fleet.retry_problems(
    case when jsonb_typeof(p_policies -> 'retry') = 'object' then p_policies -> 'retry' else '{}' end
  ) as q
$$;

comment on function fleet.policy_problems(jsonb) is 'Everything that is wrong with the policies of a schedule.';
revoke all on function fleet.policy_problems(jsonb) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/rrule.sql
-- A calendar's recurrence rule (RFC 5545) in the JSON of a schedule: key "rrule".

create or replace function fleet.recurrence_of_rrule(p_spec jsonb)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  -- In device time the hands of the clock are read as UTC, as everywhere.
  v_zone text := coalesce(nullif(p_spec ->> 'timezone', 'device'), 'UTC');
  v_start timestamptz;
  v_problem text;
  v_hint text;
begin
  if not fleet.is_time_zone(v_zone) then
    v_zone := 'UTC';
  end if;
  v_start := fleet.try_instant(p_spec ->> 'start_time', v_zone);
  if v_start is null then
    return jsonb_build_object(
      'problem', 'needs start_time, from which a rule counts and takes its time of day',
      'hint', 'Example: {"rrule": "FREQ=WEEKLY;BYDAY=MO,WE", "start_time": "2030-03-04T06:30:00"}'
    );
  end if;
  return fleet.recurrence_from_rrule(p_spec ->> 'rrule', v_start, v_zone);
exception
  when sqlstate 'PT422' then
    get stacked diagnostics v_problem = message_text, v_hint = pg_exception_hint;
    return jsonb_build_object('problem', regexp_replace(v_problem, '^RRULE: ', ''), 'hint', v_hint);
end;
$$;

comment on function fleet.recurrence_of_rrule(jsonb) is
  'What key rrule of a schedule comes to in our own keys, or {"problem", "hint"} where it cannot be said in them.';
revoke all on function fleet.recurrence_of_rrule(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.rrule_problems(p_spec jsonb)
returns table (field text, problem text, hint text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with given as (
    select p_spec ->> 'rrule' as rule
    where jsonb_typeof(p_spec -> 'rrule') = 'string'
  )
  select 'rrule', format('and %s exclude each other', k.key), 'Say in one of the two ways how the schedule recurs.'
  from given
  cross join (values ('recurrence_type'), ('recurrence_config')) as k(key)
  where coalesce(p_spec -> k.key, 'null') <> 'null'
  union all
  select 'rrule', 'ends by itself: COUNT or UNTIL and end_time exclude each other', 'Leave end_time out, or COUNT and UNTIL.'
  from given as g
  where g.rule ~* '(COUNT|UNTIL)=' and coalesce(p_spec -> 'end_time', 'null') <> 'null'
  union all
  select 'rrule', r.recurrence ->> 'problem', r.recurrence ->> 'hint'
  from given
  cross join fleet.recurrence_of_rrule(p_spec) as r(recurrence)
  -- A change may leave the start as it was; who reads the whole then tells.
  where p_spec ? 'start_time' and r.recurrence ? 'problem'
$$;

comment on function fleet.rrule_problems(jsonb) is 'What is wrong with key rrule of a schedule in JSON.';
revoke all on function fleet.rrule_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.spec_without_rrule(p_spec jsonb)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_recurrence jsonb;
begin
  if coalesce(jsonb_typeof(p_spec -> 'rrule'), 'null') <> 'string' then
    return p_spec - 'rrule';
  end if;

  v_recurrence := fleet.recurrence_of_rrule(p_spec);
  if v_recurrence ? 'problem' then
    perform fleet.raise_problems(
      'the schedule', 'schedule_invalid', '{rrule}', array[v_recurrence ->> 'problem'], array[v_recurrence ->> 'hint']
    );
  end if;
  return (p_spec - 'rrule')
    || (v_recurrence - '{timezone,start_time,policies}'::text[])
    || jsonb_build_object('policies', (v_recurrence -> 'policies') || fleet.object_or_empty(p_spec -> 'policies'));
end;
$$;

comment on function fleet.spec_without_rrule(jsonb) is
  'The specification with its rrule in our own keys: recurrence_type, recurrence_config, end_time, and the policies that the standard '
  'implies where it says nothing of its own. Raises schedule_invalid (PT422) naming rrule.';
revoke all on function fleet.spec_without_rrule(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.object_or_empty(p_value jsonb)
returns jsonb
language sql
immutable
parallel safe
return (case jsonb_typeof(p_value) when 'object' then p_value else '{}'::jsonb end);

comment on function fleet.object_or_empty(jsonb) is 'The value where it is an object, else {}.';
revoke all on function fleet.object_or_empty(jsonb) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/runs_to_expand.sql
-- Which runs are expanded now, and what it takes.

create or replace function fleet.runs_to_expand(p_run_ids bigint[], p_now timestamptz)
returns table (
  id bigint, owner_id uuid, schedule_id bigint, starts_at timestamptz, expires_at timestamptz, expanded_to bigint, priority smallint,
  payload jsonb, command_type text, channel text, device_ids bigint[], group_ids bigint[], selector jsonb, zones text[],
  policies jsonb, overlap text, max_concurrent bigint, max_attempts integer, is_plain boolean, may_overlap boolean
)
language sql
volatile
rows 20
set search_path = pg_catalog, pg_temp
as $$
  select r.id, r.owner_id, r.schedule_id,
    -- The slots of the jitter count from the due instant, not from the tick that came by or the chunk that a device is in.
    greatest(r.not_before, case
      when not s.policies ? 'jitter' then p_now
      when r.trigger = 'schedule' then r.scheduled_for
      else r.started_at
    end),
    r.expires_at, r.expanded_to, r.priority,
    r.payload, t.name, t.channel, s.device_ids, s.group_ids, s.selector, r.zones,
    p.policies, p.policies ->> 'overlap', (p.policies ->> 'max_concurrent')::bigint,
    (p.policies #>> '{retry,attempts}')::integer,
    not s.policies ?| '{jitter,execution_window}',
    -- Devices need a look at what they still have to do only while another run of the schedule goes on.
    exists (
      select 1 from public.schedule_runs as o
      where o.schedule_id = r.schedule_id and o.id <> r.id and o.status in ('pending', 'running')
    )
  from public.schedule_runs as r
  join public.schedules as s on s.id = r.schedule_id and s.owner_id = r.owner_id
  join public.command_types as t on t.name = r.action_type
  cross join lateral (select fleet.effective_policies(s.policies) as policies) as p
  where r.id = any (p_run_ids)
$$;

comment on function fleet.runs_to_expand(bigint[], timestamptz) is 'What it takes to expand these runs.';
revoke all on function fleet.runs_to_expand(bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.lock_runs(p_run_ids bigint[], p_now timestamptz)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_runs bigint[];
  v_gone text;
begin
  -- Two sessions never expand the same run; what is held elsewhere is expanded there. And one run of a schedule at a time,
  -- here and in other sessions: within one statement, or unseen by each other, two of them could not tell that a device is
  -- busy with the other. In a statement of its own, so that the next one sees all that was done under the lock before.
  select array_agg(l.id), min(l.gone) into v_runs, v_gone
  from (
    select r.id, case when t.name is null then r.action_type end as gone
    from public.schedule_runs as r
    join public.schedules as s on s.id = r.schedule_id
    left join public.command_types as t on t.name = r.action_type
    where r.id in (
      select min(x.id)
      from public.schedule_runs as x
      where x.id = any (p_run_ids)
        and x.expanded_at is null
        and x.status in ('pending', 'running')
        -- What waits is judged when it starts: who is busy then, and who is there.
        and coalesce(x.not_before <= p_now, true)
      group by x.schedule_id
    )
      and r.expanded_at is null
      and r.status in ('pending', 'running')
    for no key update of r, s skip locked
  ) as l;

  if v_gone is not null then
    raise exception 'command type "%" is gone', v_gone
      using errcode = 'PT409', detail = 'command_type_gone', hint = 'Make it again, or change the action_type of the schedule.';
  end if;
  return v_runs;
end;
$$;

comment on function fleet.lock_runs(bigint[], timestamptz) is
  'Those of these runs that this session expands now. Raises command_type_gone (PT409).';
revoke all on function fleet.lock_runs(bigint[], timestamptz) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/spec.sql
-- create_schedule: from the JSON of a person, a script or an older system to a row.

create or replace function fleet.schedule_aliases()
returns table (alias text, name text)
language sql
immutable
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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

create or replace function fleet.schedule_from_spec(p_spec jsonb)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_spec jsonb := fleet.spec_without_rrule(p_spec);
  v_row public.schedules;
  v_zone text := coalesce(v_spec ->> 'timezone', 'UTC');
begin
  -- Local times are read in the schedule's zone; where that is unknown the error about it comes first anyway.
  if not fleet.is_time_zone(v_zone) then
    v_zone := 'UTC';
  end if;

  v_row.owner_id := (v_spec ->> 'owner_id')::uuid;
  v_row.name := v_spec ->> 'name';
  v_row.description := coalesce(v_spec ->> 'description', '');
  v_row.action_type := v_spec ->> 'action_type';
  v_row.payload := coalesce(nullif(v_spec -> 'payload', 'null'), '{}');
  v_row.recurrence_type := coalesce(v_spec ->> 'recurrence_type', 'once');
  v_row.recurrence_config := coalesce(nullif(v_spec -> 'recurrence_config', 'null'), '{}');
  v_row.start_time := coalesce(fleet.try_instant(v_spec ->> 'start_time', v_zone), clock_timestamp());
  v_row.end_time := fleet.try_instant(v_spec ->> 'end_time', v_zone);
  v_row.timezone := coalesce(v_spec ->> 'timezone', 'UTC');
  v_row.device_ids := fleet.bigint_array(v_spec -> 'device_ids');
  v_row.group_ids := fleet.bigint_array(v_spec -> 'group_ids');
  v_row.selector := nullif(v_spec -> 'selector', 'null');
  v_row.profile_id := v_spec ->> 'profile_id';
  v_row.device_id := (v_spec ->> 'device_id')::numeric::bigint;
  v_row.policies := coalesce(nullif(v_spec -> 'policies', 'null'), '{}');
  v_row.priority := coalesce((v_spec ->> 'priority')::numeric::smallint, 0);
  v_row.ui_initiated := coalesce((v_spec ->> 'ui_initiated')::boolean, false);
  v_row.after_schedule_id := coalesce(v_spec -> 'after' ->> 'schedule_id', v_spec ->> 'after_schedule_id')::numeric::bigint;
  v_row.after_on := coalesce(v_spec -> 'after' ->> 'on', v_spec ->> 'after_on');
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
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(distinct (e #>> '{}')::numeric::bigint), '{}')
  from jsonb_array_elements(case when jsonb_typeof(p_list) = 'array' then p_list else '[]' end) as e
$$;

comment on function fleet.bigint_array(jsonb) is 'A JSON list of whole numbers as an array, each once.';
revoke all on function fleet.bigint_array(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.create_schedule(p_spec jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
as $$
  select fleet.create_schedule(p_spec)
$$;

comment on function public.create_schedule(jsonb) is
  'Create a schedule from JSON: name, action_type, payload, recurrence_type, recurrence_config, start_time, end_time, timezone, '
  'device_ids, group_ids, selector, policies, priority, after, rrule (task_name, task_type, scheduled_time, …_payload are understood too). A time '
  'without an offset is local to the zone. Answers the row with "warnings". Raises schedule_invalid (PT422, or PT404) naming every '
  'wrong field.';
revoke all on function public.create_schedule(jsonb) from public, anon, authenticated, service_role;
grant execute on function public.create_schedule(jsonb) to authenticated, service_role;

-- db/sources/30_schedules/spec_problems.sql
-- What is wrong with the JSON of a schedule before it can be read: unknown keys, values of another type.

create or replace function fleet.is_id_list(p_list jsonb)
returns boolean
language sql
immutable
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
  select q.field, q.problem, q.hint
  from fleet.rrule_problems(p_spec) as q
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
-- Compiling the plan would take a hundred times as long as running it.
set jit = off
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
        -- What an MDM carries out is executed when the provider accepts it.
        last_executed_at = case
          when m.run_count > 0 and not fleet.is_mdm_action(s.action_type) then p_now
          else s.last_executed_at
        end,
        status = case when m.is_used_up or m.next_run_at is null then 'completed' else s.status end,
        status_reason = case
          when m.is_used_up then 'max_runs reached'
          when m.next_run_at is null then 'no due instant is left'
          else s.status_reason
        end
    from (
      select d.id, max(d.next_run_at) as next_run_at, w.run_count,
        coalesce(d.execution_count + w.run_count >= d.max_runs, false) as is_used_up
      from decided as d
      -- What the ledger knew already did not run again.
      cross join lateral (
        select count(*) as run_count from written as x where x.schedule_id = d.id and x.status = 'pending'
      ) as w
      group by d.id, d.execution_count, d.max_runs, w.run_count
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
as $$
declare
  v_next timestamptz;
  v_last timestamptz;
  v_count bigint;
  v_lost boolean := false;
begin
  begin
    select fleet.next_due(s.recurrence, p_now),
      fleet.last_occurrence(s.recurrence, s.next_run_at, p_now + interval '1 microsecond'),
      fleet.count_due(s.recurrence, s.next_run_at, p_now + interval '1 microsecond')
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

  with written as (
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
    on conflict (schedule_id, scheduled_for) do nothing
    returning id
  )
  -- Whatever follows a failure is to hear of this one.
  insert into fleet.run_progress (run_id, completed, failed)
  select w.id, 0, 0 from written as w;

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
set search_path = pg_catalog, pg_temp
as $$
declare
  v_runs bigint[] := fleet.start_due_runs(p_now, p_schedule_ids);
  v_limit integer := fleet.setting_number('inline_expand_limit')::integer;
begin
  v_runs := v_runs[1:v_limit];
  if cardinality(v_runs) > 0 then
    perform fleet.expand_runs(v_runs, p_now, v_limit / cardinality(v_runs));
  end if;
end;
$$;

comment on function fleet.run_due(bigint[], timestamptz) is
  'Run what is due of these schedules now, up to the setting inline_expand_limit; the tick does the rest.';
revoke all on function fleet.run_due(bigint[], timestamptz) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/status.sql
-- Pausing, resuming and cancelling: what becomes of what is due and of what is on its way.

create or replace function fleet.tg_change_schedule_status()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
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
    if new.timezone = 'device' and new.after_schedule_id is null then
      -- Its devices may have gone to other zones meanwhile.
      new.recurrence := fleet.compiled(new);
      new.next_run_at := least(new.next_run_at, fleet.next_due(new.recurrence, v_now));
    end if;
    if new.next_run_at is null and new.after_schedule_id is null then
      new.status := 'completed';
      new.status_reason := 'no due instant is left';
    end if;
  elsif new.status = 'paused' then
    new.execution_count := new.execution_count - fleet.skip_waiting_runs(old.id, v_now);
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
set search_path = pg_catalog, pg_temp
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
    greatest(fleet.count_due(p_schedule.recurrence, p_schedule.next_run_at, v_to), 1), p_now
  )
  on conflict (schedule_id, scheduled_for) do nothing;
end;
$$;

comment on function fleet.skip_due(public.schedules, timestamptz, text) is
  'Account in one row for what is due and will not run, because of a pause or a change.';
revoke all on function fleet.skip_due(public.schedules, timestamptz, text) from public, anon, authenticated, service_role;

create or replace function fleet.skip_waiting_runs(p_schedule_id bigint, p_now timestamptz)
returns bigint
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  with skipped as (
    update public.schedule_runs as r
    set status = 'skipped', reason = 'paused', expanded_at = p_now, finished_at = p_now
    where r.schedule_id = p_schedule_id
      and r.status = 'pending'
      and r.expanded_at is null
      and r.not_before > p_now
    returning r.id
  )
  select count(*) from skipped
$$;

comment on function fleet.skip_waiting_runs(bigint, timestamptz) is
  'Skip the runs of a schedule that wait for their window or their turn when it is paused. Answers how many.';
revoke all on function fleet.skip_waiting_runs(bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.cancel_runs_of(p_schedule_id bigint, p_reason text)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
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

-- db/sources/30_schedules/template_parameters.sql
-- What templates are filled with: placeholders, parameters, and what may be wrong with them.

create or replace function fleet.placeholders(p_value jsonb)
returns setof text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select distinct m.found[1]
  from jsonb_path_query(p_value, 'strict $.**') as t(item)
  cross join lateral regexp_matches(t.item #>> '{}', '\{\{\s*([a-z_][a-z0-9_]*)\s*\}\}', 'g') as m(found)
  where jsonb_typeof(t.item) = 'string'
$$;

comment on function fleet.placeholders(jsonb) is 'The parameters that the texts of a value name, as in {{parameter}}.';
revoke all on function fleet.placeholders(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.filled_text(p_text text, p_values jsonb)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  -- In one pass: a value that itself looks like {{another}} stays as it is.
  select string_agg(p.piece || coalesce(p_values ->> m.found[1], ''), '' order by p.place)
  from regexp_split_to_table(p_text, '\{\{\s*[a-z_][a-z0-9_]*\s*\}\}') with ordinality as p(piece, place)
  left join lateral regexp_matches(p_text, '\{\{\s*([a-z_][a-z0-9_]*)\s*\}\}', 'g') with ordinality as m(found, place)
    on m.place = p.place
$$;

comment on function fleet.filled_text(text, jsonb) is 'A text with its placeholders replaced by values; by nothing where there is none.';
revoke all on function fleet.filled_text(text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.filled_template(p_value jsonb, p_values jsonb)
returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_whole text;
begin
  case jsonb_typeof(p_value)
    when 'object' then
      -- What is given no value is not said at all.
      return (
        select coalesce(jsonb_object_agg(e.key, f.value) filter (where f.value is not null), '{}')
        from jsonb_each(p_value) as e
        cross join lateral fleet.filled_template(e.value, p_values) as f(value)
      );
    when 'array' then
      return (
        select coalesce(jsonb_agg(f.value order by e.place) filter (where f.value is not null), '[]')
        from jsonb_array_elements(p_value) with ordinality as e(value, place)
        cross join lateral fleet.filled_template(e.value, p_values) as f(value)
      );
    when 'string' then
      v_whole := substring(p_value #>> '{}' from '^\{\{\s*([a-z_][a-z0-9_]*)\s*\}\}$');
      return case
        when v_whole is not null then p_values -> v_whole
        else to_jsonb(fleet.filled_text(p_value #>> '{}', p_values))
      end;
    else
      return p_value;
  end case;
end;
$$;

comment on function fleet.filled_template(jsonb, jsonb) is
  'A value with its placeholders replaced; a text that is one placeholder and nothing else becomes the value as it is.';
revoke all on function fleet.filled_template(jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.parameter_problem(p_field text, p_definition jsonb, p_value jsonb)
returns table (field text, problem text, hint text)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select p_field, format('must be %s %s, not %s', case when t.kind in ('array', 'object') then 'an' else 'a' end, t.kind, p_value),
    format('Give a value of type %s.', t.kind)
  from (select p_definition ->> 'type' as kind) as t
  where jsonb_typeof(p_value) <> t.kind
  union all
  select p_field, format('%s is not one of %s', p_value, p_definition -> 'choices'), 'Use one of the values named.'
  where jsonb_typeof(p_value) = p_definition ->> 'type'
    and jsonb_typeof(p_definition -> 'choices') = 'array'
    and not exists (select 1 from jsonb_array_elements(p_definition -> 'choices') as c(item) where c.item = p_value)
$$;

comment on function fleet.parameter_problem(text, jsonb, jsonb) is 'What is wrong with the value of a parameter: its type, or no choice.';
revoke all on function fleet.parameter_problem(text, jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.parameter_value_problems(p_parameters jsonb, p_values jsonb)
returns table (field text, problem text, hint text)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select 'parameters', 'must be an object', 'Example: {"school": "north"}'
  where jsonb_typeof(p_values) <> 'object'
  union all
  select 'parameters.' || p.key, 'is missing', coalesce(p.value ->> 'description', format('Give a %s.', p.value ->> 'type'))
  from jsonb_each(p_parameters) as p
  where not p.value ? 'default'
    and (p.value -> 'required') is distinct from 'false'
    and (jsonb_typeof(p_values) <> 'object' or not p_values ? p.key)
  union all
  select 'parameters.' || v.key, 'is not a parameter of this template',
    coalesce(
      'The parameters are ' || (select string_agg(p.key, ', ' order by p.key) from jsonb_each(p_parameters) as p) || '.',
      'It has no parameters.'
    )
  from jsonb_each(case when jsonb_typeof(p_values) = 'object' then p_values else '{}' end) as v
  where not p_parameters ? v.key
  union all
  select q.field, q.problem, q.hint
  from jsonb_each(case when jsonb_typeof(p_values) = 'object' then p_values else '{}' end) as v
  join jsonb_each(p_parameters) as p on p.key = v.key
  cross join lateral fleet.parameter_problem('parameters.' || v.key, p.value, v.value) as q
$$;

comment on function fleet.parameter_value_problems(jsonb, jsonb) is
  'Values of parameters that are missing, unknown, of another type or no choice.';
revoke all on function fleet.parameter_value_problems(jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.parameter_definition_problems(p_parameters jsonb)
returns table (field text, problem text, hint text)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  with given as (
    select 'parameters.' || e.key as field, e.key as name, e.value as definition
    from jsonb_each(case when jsonb_typeof(p_parameters) = 'object' then p_parameters else '{}' end) as e
  )
  select 'parameters', 'must be an object', 'Example: {"school": {"type": "string"}}'
  where jsonb_typeof(p_parameters) not in ('object', 'null')
  union all
  select g.field, 'is not a name', 'Use lower case letters, digits and underscores, like start_hour.'
  from given as g
  where g.name !~ '^[a-z_][a-z0-9_]*$'
  union all
  select g.field, 'must be an object', 'Example: {"type": "string", "default": "north"}'
  from given as g
  where jsonb_typeof(g.definition) <> 'object'
  union all
  select g.field || '.' || k, 'is not a key of a parameter', 'The keys are type, default, required, description and choices.'
  from given as g
  cross join lateral jsonb_object_keys(case when jsonb_typeof(g.definition) = 'object' then g.definition else '{}' end) as k
  where k not in ('type', 'default', 'required', 'description', 'choices')
  union all
  select g.field || '.type', 'is not one of string, number, boolean, object, array', 'Example: {"type": "string"}'
  from given as g
  where jsonb_typeof(g.definition) = 'object'
    and coalesce(g.definition ->> 'type', '') not in ('string', 'number', 'boolean', 'object', 'array')
  union all
  select g.field || '.' || k.key, 'must be a ' || k.kind, 'Check the type of the value.'
  from given as g
  cross join (values ('required', 'boolean'), ('description', 'string'), ('choices', 'array')) as k(key, kind)
  where jsonb_typeof(g.definition) = 'object' and jsonb_typeof(g.definition -> k.key) <> k.kind
  union all
  select q.field, q.problem, q.hint
  from given as g
  cross join lateral fleet.parameter_problem(g.field || '.default', g.definition, g.definition -> 'default') as q
  where jsonb_typeof(g.definition) = 'object' and g.definition ? 'default'
$$;

comment on function fleet.parameter_definition_problems(jsonb) is 'Everything that is wrong with the parameters of a template.';
revoke all on function fleet.parameter_definition_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.template_problems(p_template jsonb)
returns table (field text, problem text, hint text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with given as (
    select case when jsonb_typeof(p_template) = 'object' then p_template else '{}' end as t
  )
  select 'template', 'must be an object', 'Example: {"name": "Nightly lock", "spec": {…}, "parameters": {…}}'
  where jsonb_typeof(p_template) is distinct from 'object'
  union all
  select e.key, 'is not a key of a template', 'The keys are name, description, spec, parameters and owner_id.'
  from given as g
  cross join lateral jsonb_each(g.t) as e
  where e.key not in ('name', 'description', 'spec', 'parameters', 'owner_id')
  union all
  select 'name', 'must be text that is not blank', 'Give the template a name.'
  from given as g
  where jsonb_typeof(g.t -> 'name') is distinct from 'string' or btrim(g.t ->> 'name') = ''
  union all
  select 'description', 'must be text', 'Say what the template is for.'
  from given as g
  where jsonb_typeof(g.t -> 'description') not in ('string', 'null')
  union all
  select 'owner_id', 'is not a uuid', 'Copy the id of the owner.'
  from given as g
  where jsonb_typeof(g.t -> 'owner_id') <> 'null' and fleet.try_uuid(g.t ->> 'owner_id') is null
  union all
  select 'spec', 'must be an object', 'Write it as for create_schedule.'
  from given as g
  where jsonb_typeof(g.t -> 'spec') is distinct from 'object'
  union all
  select q.field, q.problem, q.hint
  from given as g
  cross join lateral fleet.parameter_definition_problems(g.t -> 'parameters') as q
  union all
  select 'spec.' || q.field, q.problem, q.hint
  from given as g
  cross join lateral fleet.spec_type_problems(
    fleet.normal_schedule_spec(case when jsonb_typeof(g.t -> 'spec') = 'object' then g.t -> 'spec' else '{}' end)
  ) as q
  -- The types of values are only known when the template is used.
  where q.problem like 'is not a key%' and q.field not in ('devices', 'groups')
  union all
  select 'spec', format('{{%s}} is not among the parameters', p.name), format('Add {"%s": {"type": "string"}}.', p.name)
  from given as g
  cross join lateral fleet.placeholders(g.t -> 'spec') as p(name)
  where jsonb_typeof(g.t -> 'parameters') is distinct from 'object' or not (g.t -> 'parameters') ? p.name
$$;

comment on function fleet.template_problems(jsonb) is 'Everything that is wrong with a template.';
revoke all on function fleet.template_problems(jsonb) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/templates.sql
-- Templates: schedules with parameters, kept in versions.

create or replace function fleet.template_of_caller(p_name text, p_version integer, p_permission text)
returns public.schedule_templates
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_user uuid := fleet.current_user_id();
  v_owners uuid[];
  v_row public.schedule_templates;
begin
  select array_agg(distinct t.owner_id) into v_owners
  from public.schedule_templates as t
  where lower(t.name) = lower(p_name) and fleet.is_visible_owner(t.owner_id);
  -- A name in several fleets: one's own, or the one that stands for nobody being named.
  if cardinality(v_owners) > 1 then
    v_owners := coalesce(
      (
        select array_agg(o) from unnest(v_owners) as o
        where o = coalesce(v_user, fleet.try_uuid(fleet.setting('default_owner') #>> '{}'))
      ),
      v_owners
    );
  end if;
  if cardinality(v_owners) > 1 then
    raise exception 'template "%" is ambiguous: % owners have one', p_name, cardinality(v_owners)
      using errcode = 'PT409', detail = 'template_ambiguous', hint = 'Rename it in one of them.';
  end if;

  select t.* into v_row
  from public.schedule_templates as t
  where t.owner_id = v_owners[1]
    and lower(t.name) = lower(p_name)
    and (p_version is null or t.version = p_version)
  order by t.version desc
  limit 1;
  if not found then
    raise exception '% was not found', concat_ws(' version ', format('template "%s"', p_name), p_version)
      using errcode = 'PT404', detail = 'template_not_found', hint = 'List your templates with: pgfleet template list';
  end if;
  perform fleet.require_permission(v_row.owner_id, p_permission, format('template "%s"', p_name));
  return v_row;
end;
$$;

comment on function fleet.template_of_caller(text, integer, text) is
  'A version of a template, the latest where none is named, if the caller may do this with it. Raises template_not_found (PT404), '
  'permission_missing (PT403) or template_ambiguous (PT409). Definer: it must see the row to tell.';
revoke all on function fleet.template_of_caller(text, integer, text) from public, anon, authenticated, service_role;

create or replace function fleet.create_template(p_template jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid;
  v_fields text[];
  v_problems text[];
  v_hints text[];
  v_row public.schedule_templates;
begin
  select array_agg(q.field), array_agg(q.problem), array_agg(q.hint)
  into v_fields, v_problems, v_hints
  from fleet.template_problems(p_template) as q;
  perform fleet.raise_problems('the template', 'template_invalid', v_fields, v_problems, v_hints);

  v_owner := fleet.owner_or_own(fleet.try_uuid(p_template ->> 'owner_id'));
  perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
  -- Two that save the same name at once take turns, each with a version of its own.
  perform pg_advisory_xact_lock(hashtextextended(v_owner || lower(p_template ->> 'name'), 0));
  insert into public.schedule_templates as t (owner_id, name, version, description, spec, parameters, created_by)
  select v_owner, p_template ->> 'name', coalesce(max(x.version), 0) + 1, coalesce(p_template ->> 'description', ''),
    p_template -> 'spec', coalesce(nullif(p_template -> 'parameters', 'null'), '{}'), fleet.current_user_id()
  from public.schedule_templates as x
  where x.owner_id = v_owner and lower(x.name) = lower(p_template ->> 'name')
  returning t.* into v_row;
  return to_jsonb(v_row);
end;
$$;

comment on function fleet.create_template(jsonb) is 'See public.create_template. Definer: it checks the caller; nobody writes versions directly.';
revoke all on function fleet.create_template(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.create_template(jsonb) to authenticated, service_role;

create or replace function public.create_template(p_template jsonb)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.create_template(p_template)
$$;

comment on function public.create_template(jsonb) is
  'Save a template {name, description, spec, parameters}; under a name that exists it becomes the next version. spec is as for '
  'create_schedule (devices and groups by name, too) with {{parameter}} in its texts. Answers the row. Raises template_invalid (PT422) '
  'naming every wrong field, or permission_missing (PT403).';
revoke all on function public.create_template(jsonb) from public, anon, authenticated, service_role;
grant execute on function public.create_template(jsonb) to authenticated, service_role;

create or replace function fleet.instantiate_template(p_name text, p_parameters jsonb, p_version integer)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedule_templates := fleet.template_of_caller(p_name, p_version, 'manage');
  v_given jsonb := coalesce(nullif(p_parameters, 'null'), '{}');
  v_values jsonb;
  v_fields text[];
  v_problems text[];
  v_hints text[];
begin
  select array_agg(q.field), array_agg(q.problem), array_agg(q.hint)
  into v_fields, v_problems, v_hints
  from fleet.parameter_value_problems(v_row.parameters, v_given) as q;
  perform fleet.raise_problems(
    format('the use of template "%s"', v_row.name), 'parameters_invalid', v_fields, v_problems, v_hints
  );

  select coalesce(jsonb_object_agg(e.key, e.value -> 'default') filter (where e.value ? 'default'), '{}')
  into v_values
  from jsonb_each(v_row.parameters) as e;
  return fleet.create_schedule(
    fleet.resolved_spec(v_row.owner_id, fleet.filled_template(v_row.spec, v_values || v_given))
    || jsonb_build_object('owner_id', v_row.owner_id)
  );
end;
$$;

comment on function fleet.instantiate_template(text, jsonb, integer) is
  'See public.instantiate_template. Definer: it checks the caller.';
revoke all on function fleet.instantiate_template(text, jsonb, integer) from public, anon, authenticated, service_role;
grant execute on function fleet.instantiate_template(text, jsonb, integer) to authenticated, service_role;

create or replace function public.instantiate_template(
  p_name text,
  p_parameters jsonb default '{}',
  p_version integer default null
)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.instantiate_template(p_name, p_parameters, p_version)
$$;

comment on function public.instantiate_template(text, jsonb, integer) is
  'Create a schedule from a template, its latest version unless one is named. Answers as create_schedule. Raises template_not_found '
  '(PT404), parameters_invalid (PT422) naming each that is missing, unknown or of another type, and what create_schedule raises.';
revoke all on function public.instantiate_template(text, jsonb, integer) from public, anon, authenticated, service_role;
grant execute on function public.instantiate_template(text, jsonb, integer) to authenticated, service_role;

create or replace function fleet.delete_template(p_name text)
returns integer
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedule_templates := fleet.template_of_caller(p_name, null, 'manage');
  v_count integer;
begin
  delete from public.schedule_templates as t
  where t.owner_id = v_row.owner_id and lower(t.name) = lower(v_row.name);
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.delete_template(text) is 'See public.delete_template. Definer: it checks the caller.';
revoke all on function fleet.delete_template(text) from public, anon, authenticated, service_role;
grant execute on function fleet.delete_template(text) to authenticated, service_role;

create or replace function public.delete_template(p_name text)
returns integer
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.delete_template(p_name)
$$;

comment on function public.delete_template(text) is
  'Delete all versions of a template; schedules made from it stay. Answers how many versions. Raises template_not_found (PT404) or '
  'permission_missing (PT403).';
revoke all on function public.delete_template(text) from public, anon, authenticated, service_role;
grant execute on function public.delete_template(text) to authenticated, service_role;

-- db/sources/30_schedules/transfer.sql
-- Exporting: schedules as a document that knows no ids, for another fleet or for a repository.

create or replace function fleet.document_time(p_instant timestamptz, p_timezone text)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_format text := 'YYYY-MM-DD"T"HH24:MI:SS' || case when p_instant <> date_trunc('second', p_instant) then '.US' else '' end;
  v_local text := to_char(p_instant at time zone p_timezone, v_format);
begin
  -- A repeated hour has two instants for one local time: then only UTC says which.
  if fleet.try_instant(v_local, p_timezone) = p_instant then
    return v_local;
  end if;
  return to_char(p_instant at time zone 'UTC', v_format) || 'Z';
end;
$$;

comment on function fleet.document_time(timestamptz, text) is
  'An instant as people write it: local to the zone where that is clear, else UTC.';
revoke all on function fleet.document_time(timestamptz, text) from public, anon, authenticated, service_role;

create or replace function fleet.schedule_document(p_schedule public.schedules)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.without_nulls(jsonb_build_object(
    'name', p_schedule.name,
    'description', nullif(p_schedule.description, ''),
    'action_type', p_schedule.action_type,
    'payload', nullif(p_schedule.payload, '{}'),
    'recurrence_type', p_schedule.recurrence_type,
    'recurrence_config', nullif(p_schedule.recurrence_config, '{}'),
    'start_time', fleet.document_time(p_schedule.start_time, fleet.reference_zone(p_schedule)),
    'end_time', fleet.document_time(p_schedule.end_time, fleet.reference_zone(p_schedule)),
    'timezone', p_schedule.timezone,
    'devices', (
      select jsonb_agg(d.hostname order by lower(d.hostname))
      from public.devices as d
      where d.id = any (p_schedule.device_ids) and d.owner_id = p_schedule.owner_id
    ),
    'groups', (
      select jsonb_agg(g.name order by lower(g.name))
      from public.device_groups as g
      where g.id = any (p_schedule.group_ids) and g.owner_id = p_schedule.owner_id
    ),
    'selector', p_schedule.selector,
    'policies', nullif(
      p_schedule.policies || case
        when jsonb_typeof(p_schedule.policies -> 'blackouts') = 'array' then jsonb_build_object('blackouts', (
          select coalesce(jsonb_agg(c.name order by lower(c.name)), '[]')
          from public.blackout_calendars as c
          where c.id = any (fleet.blackout_ids(p_schedule.policies)) and c.owner_id = p_schedule.owner_id
        ))
        else '{}'
      end,
      '{}'
    ),
    'priority', nullif(p_schedule.priority, 0),
    'ui_initiated', nullif(p_schedule.ui_initiated, false),
    'after', (
      select jsonb_build_object('schedule', a.name, 'on', p_schedule.after_on)
      from public.schedules as a
      where a.id = p_schedule.after_schedule_id and a.owner_id = p_schedule.owner_id
    ),
    'status', case when p_schedule.status = 'paused' then 'paused' end
  ))
$$;

comment on function fleet.schedule_document(public.schedules) is
  'A schedule as it stands in a document: without ids and counters, without what is as by default.';
revoke all on function fleet.schedule_document(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.group_document(p_group public.device_groups)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.without_nulls(jsonb_build_object(
    'name', p_group.name,
    'description', nullif(p_group.description, ''),
    'selector', p_group.selector,
    'devices', (
      select jsonb_agg(d.hostname order by lower(d.hostname))
      from public.device_group_members as m
      join public.devices as d on d.id = m.device_id
      where m.group_id = p_group.id
    )
  ))
$$;

comment on function fleet.group_document(public.device_groups) is 'A group as it stands in a document, with its listed members.';
revoke all on function fleet.group_document(public.device_groups) from public, anon, authenticated, service_role;

create or replace function fleet.period_document(p_period public.blackout_periods)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.without_nulls(jsonb_build_object(
    'starts_on', p_period.starts_on,
    'ends_on', p_period.ends_on,
    'starts_at', fleet.instant_text(p_period.starts_at),
    'ends_at', fleet.instant_text(p_period.ends_at),
    'summary', nullif(p_period.summary, '')
  ))
$$;

comment on function fleet.period_document(public.blackout_periods) is 'A period of a calendar as it stands in a document.';
revoke all on function fleet.period_document(public.blackout_periods) from public, anon, authenticated, service_role;

create or replace function fleet.calendar_document(p_calendar public.blackout_calendars)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.without_nulls(jsonb_build_object(
    'name', p_calendar.name,
    'description', nullif(p_calendar.description, ''),
    'periods', (
      select coalesce(jsonb_agg(
        fleet.period_document(p) order by coalesce(p.starts_at, p.starts_on::timestamp at time zone 'UTC'), p.summary, p.id
      ), '[]')
      from public.blackout_periods as p
      where p.calendar_id = p_calendar.id
    )
  ))
$$;

comment on function fleet.calendar_document(public.blackout_calendars) is 'A blackout calendar as it stands in a document.';
revoke all on function fleet.calendar_document(public.blackout_calendars) from public, anon, authenticated, service_role;

create or replace function fleet.template_document(p_template public.schedule_templates)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.without_nulls(jsonb_build_object(
    'name', p_template.name,
    'description', nullif(p_template.description, ''),
    'spec', p_template.spec,
    'parameters', nullif(p_template.parameters, '{}')
  ))
$$;

comment on function fleet.template_document(public.schedule_templates) is 'A template as it stands in a document.';
revoke all on function fleet.template_document(public.schedule_templates) from public, anon, authenticated, service_role;

create or replace function fleet.export_schedules(p_filter jsonb, p_owner_id uuid)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_filter jsonb := fleet.check_filter(coalesce(p_filter, '{}'));
  v_owner uuid := fleet.owner_or_own(p_owner_id);
  v_whole boolean := v_filter = '{}';
  v_ids bigint[];
  v_twice text;
begin
  perform fleet.require_permission(v_owner, 'view', format('owner %s', v_owner));
  -- What has ended is history; who wants it in the document names its status.
  v_filter := '{"status": ["active", "paused"]}'::jsonb || v_filter || jsonb_build_object('owner_id', v_owner);
  select array_agg(f.id) into v_ids from fleet.found_schedules(v_filter, 'view') as f;

  select min(s.name) into v_twice
  from public.schedules as s
  where s.id = any (v_ids)
  group by lower(s.name)
  having count(*) > 1
  limit 1;
  if v_twice is not null then
    raise exception 'two schedules are named "%"', v_twice
      using errcode = 'PT409', detail = 'schedule_ambiguous',
            hint = 'A document tells schedules apart by their names: rename one of them, or filter.';
  end if;
  return fleet.document_of(v_owner, coalesce(v_ids, '{}'), v_whole);
end;
$$;

comment on function fleet.export_schedules(jsonb, uuid) is 'See public.export_schedules. Definer: it checks the caller.';
revoke all on function fleet.export_schedules(jsonb, uuid) from public, anon, authenticated, service_role;
grant execute on function fleet.export_schedules(jsonb, uuid) to authenticated, service_role;

create or replace function fleet.document_of(p_owner_id uuid, p_ids bigint[], p_whole boolean)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'version', 1,
    'groups', (
      select coalesce(jsonb_agg(fleet.group_document(g) order by lower(g.name)), '[]')
      from public.device_groups as g
      where g.owner_id = p_owner_id
        and (
          p_whole
          or exists (select 1 from public.schedules as s where s.id = any (p_ids) and g.id = any (s.group_ids))
        )
    ),
    'blackout_calendars', (
      select coalesce(jsonb_agg(fleet.calendar_document(c) order by lower(c.name)), '[]')
      from public.blackout_calendars as c
      where c.owner_id = p_owner_id
        and (
          p_whole
          or exists (
            select 1 from public.schedules as s
            where s.id = any (p_ids) and c.id = any (fleet.blackout_ids(s.policies))
          )
        )
    ),
    'templates', (
      select coalesce(jsonb_agg(fleet.template_document(t) order by lower(t.name)), '[]')
      from public.schedule_templates as t
      where p_whole
        and t.owner_id = p_owner_id
        and t.version = (
          select max(x.version) from public.schedule_templates as x
          where x.owner_id = t.owner_id and lower(x.name) = lower(t.name)
        )
    ),
    'schedules', (
      select coalesce(jsonb_agg(fleet.schedule_document(s) order by lower(s.name)), '[]')
      from public.schedules as s
      where s.id = any (p_ids)
    )
  )
$$;

comment on function fleet.document_of(uuid, bigint[], boolean) is
  'The document of these schedules, with the groups and calendars that they name; with everything of the owner where it is to be whole.';
revoke all on function fleet.document_of(uuid, bigint[], boolean) from public, anon, authenticated, service_role;

create or replace function public.export_schedules(p_filter jsonb default '{}', p_owner_id uuid default null)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.export_schedules(p_filter, p_owner_id)
$$;

comment on function public.export_schedules(jsonb, uuid) is
  'Schedules as a document {version, groups, blackout_calendars, templates, schedules} that apply_document takes, in this fleet or '
  'another: everything is named, nothing is an id. Active and paused ones, unless the filter (as in bulk_schedules) names a status; '
  'templates and unused groups and calendars only without a filter. Raises filter_invalid (PT422) or schedule_ambiguous (PT409).';
revoke all on function public.export_schedules(jsonb, uuid) from public, anon, authenticated, service_role;
grant execute on function public.export_schedules(jsonb, uuid) to authenticated, service_role;

-- db/sources/30_schedules/update.sql
-- Changing and deleting a schedule.

create or replace function fleet.schedule_spec(p_schedule public.schedules)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.without_nulls(jsonb_build_object(
    'name', p_schedule.name,
    'description', p_schedule.description,
    'action_type', p_schedule.action_type,
    'payload', p_schedule.payload,
    'recurrence_type', p_schedule.recurrence_type,
    'recurrence_config', p_schedule.recurrence_config,
    'start_time', fleet.instant_text(p_schedule.start_time),
    'end_time', fleet.instant_text(p_schedule.end_time),
    'timezone', p_schedule.timezone,
    'device_ids', to_jsonb(p_schedule.device_ids),
    'group_ids', to_jsonb(p_schedule.group_ids),
    'selector', p_schedule.selector,
    'profile_id', p_schedule.profile_id,
    'device_id', p_schedule.device_id,
    'policies', p_schedule.policies,
    'priority', p_schedule.priority,
    'ui_initiated', p_schedule.ui_initiated,
    'after_schedule_id', p_schedule.after_schedule_id,
    'after_on', p_schedule.after_on
  ))
$$;

comment on function fleet.schedule_spec(public.schedules) is 'The specification that would make this schedule.';
revoke all on function fleet.schedule_spec(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.without_nulls(p_object jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_object_agg(e.key, e.value), '{}')
  from jsonb_each(p_object) as e
  where e.value <> 'null'
$$;

comment on function fleet.without_nulls(jsonb) is 'The object without its keys of value null; inner objects stay as they are.';
revoke all on function fleet.without_nulls(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.changed_spec(p_spec jsonb, p_changes jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  -- Null empties what may be empty, and says nothing about everything else.
  select (
      p_spec
      - case when p_changes ? 'after' then '{after_schedule_id,after_on}'::text[] else '{}' end
      -- Settings of another kind of recurrence would only be in the way.
      - case
        when p_changes ->> 'recurrence_type' <> p_spec ->> 'recurrence_type' then '{recurrence_config}'::text[]
        else '{}'
      end
      - array(
        select e.key
        from jsonb_each(p_changes) as e
        where e.value = 'null'
          and e.key in ('end_time', 'selector', 'profile_id', 'device_id', 'after_schedule_id', 'after_on')
      )
    ) || fleet.without_nulls(p_changes)
$$;

comment on function fleet.changed_spec(jsonb, jsonb) is
  'A specification with changes: null clears end_time, selector, profile_id, device_id and after, and is ignored elsewhere.';
revoke all on function fleet.changed_spec(jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.schedule_with_changes(p_old public.schedules, p_changes jsonb)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_spec jsonb;
  v_row public.schedules;
  v_fields text[];
  v_problems text[];
  v_hints text[];
begin
  if jsonb_typeof(p_changes) is distinct from 'object' then
    raise exception 'changes of a schedule must be a JSON object'
      using errcode = 'PT422', detail = 'schedule_invalid', hint = 'Example: {"name": "Nightly", "priority": 5}';
  end if;

  v_spec := fleet.normal_schedule_spec(p_changes);
  select array_agg(t.field), array_agg(t.problem), array_agg(t.hint)
  into v_fields, v_problems, v_hints
  from (
    select t.field, t.problem, t.hint from fleet.name_problems(p_old.owner_id, v_spec) as t
    union all
    select t.field, t.problem, t.hint from fleet.spec_type_problems(fleet.with_ids(p_old.owner_id, v_spec)) as t
    union all
    select 'owner_id', 'cannot be changed', 'Create the schedule anew for the other owner.'
    where p_old.owner_id is not null
      and fleet.try_uuid(v_spec ->> 'owner_id') <> p_old.owner_id
  ) as t;

  -- What has the wrong type stays as it was, so that everything else is still checked in the same answer.
  v_row := fleet.schedule_from_spec(fleet.changed_spec(
    fleet.schedule_spec(p_old),
    fleet.with_ids(p_old.owner_id, v_spec) - 'owner_id' - coalesce((select array_agg(split_part(f, '.', 1)) from unnest(v_fields) as f), '{}')
  ));
  v_row.id := p_old.id;
  v_row.owner_id := p_old.owner_id;
  v_row.status := coalesce(p_old.status, 'active');

  select v_fields || array_agg(q.field), v_problems || array_agg(q.problem), v_hints || array_agg(q.hint)
  into v_fields, v_problems, v_hints
  from fleet.schedule_problems(fleet.completed_schedule(fleet.changed_schedule(p_old, v_row))) as q
  where q.field <> all (coalesce(v_fields, '{}'))
    -- Whoever is named but unknown is not nobody.
    and not (q.field = 'device_ids' and coalesce(v_fields && '{devices,groups}', false));
  perform fleet.raise_problems('the schedule', 'schedule_invalid', v_fields, v_problems, v_hints);
  if p_old.id is null then
    -- An insert has no old row to tell by which of two twin columns is meant.
    return fleet.changed_schedule(p_old, v_row);
  end if;
  return v_row;
end;
$$;

comment on function fleet.schedule_with_changes(public.schedules, jsonb) is
  'The row as it is to be written; what follows from it is left to the trigger. Raises schedule_invalid naming every wrong field.';
revoke all on function fleet.schedule_with_changes(public.schedules, jsonb)
  from public, anon, authenticated, service_role;

create or replace function fleet.store_schedule(p_row public.schedules)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id bigint := p_row.id;
begin
  if v_id is null then
    insert into public.schedules as s (
      owner_id, name, description, action_type, payload, recurrence_type, recurrence_config, start_time, end_time, timezone,
      device_ids, group_ids, selector, profile_id, device_id, policies, priority, ui_initiated, after_schedule_id, after_on, status
    )
    values (
      p_row.owner_id, p_row.name, p_row.description, p_row.action_type, p_row.payload, p_row.recurrence_type,
      p_row.recurrence_config, p_row.start_time, p_row.end_time, p_row.timezone, p_row.device_ids, p_row.group_ids,
      p_row.selector, p_row.profile_id, p_row.device_id, p_row.policies, p_row.priority, p_row.ui_initiated,
      p_row.after_schedule_id, p_row.after_on, p_row.status
    )
    returning s.id into v_id;
    return v_id;
  end if;

  update public.schedules as s
  set name = p_row.name,
      description = p_row.description,
      action_type = p_row.action_type,
      payload = p_row.payload,
      recurrence_type = p_row.recurrence_type,
      recurrence_config = p_row.recurrence_config,
      start_time = p_row.start_time,
      end_time = p_row.end_time,
      timezone = p_row.timezone,
      device_ids = p_row.device_ids,
      group_ids = p_row.group_ids,
      selector = p_row.selector,
      profile_id = p_row.profile_id,
      device_id = p_row.device_id,
      policies = p_row.policies,
      priority = p_row.priority,
      ui_initiated = p_row.ui_initiated,
      after_schedule_id = p_row.after_schedule_id,
      after_on = p_row.after_on
  where s.id = v_id;
  return v_id;
end;
$$;

comment on function fleet.store_schedule(public.schedules) is
  'Insert the row, with its status, where it has no id; else bring the row of that id to it, without its status.';
revoke all on function fleet.store_schedule(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.schedule_answer(p_schedule_id bigint)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select to_jsonb(s) || jsonb_build_object('warnings', fleet.schedule_warnings(s))
  from public.schedules as s
  where s.id = p_schedule_id
$$;

comment on function fleet.schedule_answer(bigint) is 'The row of a schedule with its warnings.';
revoke all on function fleet.schedule_answer(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.update_schedule(p_schedule_id bigint, p_changes jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_old public.schedules := fleet.schedule_of_caller(p_schedule_id, 'manage');
begin
  if v_old.status = 'cancelled' then
    raise exception 'schedule % is cancelled', p_schedule_id
      using errcode = 'PT409',
            detail = 'schedule_cancelled',
            hint = format('Make a new one of it: pgfleet schedule duplicate %s', p_schedule_id);
  end if;
  perform fleet.store_schedule(fleet.schedule_with_changes(v_old, p_changes));
  return fleet.schedule_answer(p_schedule_id);
end;
$$;

comment on function fleet.update_schedule(bigint, jsonb) is
  'See public.update_schedule. Definer: it checks the caller first, then sees what the checks need to see.';
revoke all on function fleet.update_schedule(bigint, jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.update_schedule(bigint, jsonb) to authenticated, service_role;

create or replace function public.update_schedule(p_schedule_id bigint, p_changes jsonb)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.update_schedule(p_schedule_id, p_changes)
$$;

comment on function public.update_schedule(bigint, jsonb) is
  'Change a schedule by the keys of create_schedule; what is not named stays, and objects such as policies are replaced as a whole. The '
  'next run is computed anew where times changed; history stays. Answers the row with "warnings". Raises schedule_not_found (PT404), permission_missing (PT403), schedule_invalid '
  '(PT422) naming every wrong field, or schedule_cancelled (PT409).';
revoke all on function public.update_schedule(bigint, jsonb) from public, anon, authenticated, service_role;
grant execute on function public.update_schedule(bigint, jsonb) to authenticated, service_role;

create or replace function fleet.delete_schedule(p_schedule_id bigint)
returns public.schedules
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules := fleet.schedule_of_caller(p_schedule_id, 'manage');
begin
  delete from public.schedules as s where s.id = p_schedule_id;
  return v_row;
end;
$$;

comment on function fleet.delete_schedule(bigint) is 'See public.delete_schedule. Definer: it checks the caller.';
revoke all on function fleet.delete_schedule(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.delete_schedule(bigint) to authenticated, service_role;

create or replace function public.delete_schedule(p_schedule_id bigint)
returns public.schedules
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.delete_schedule(p_schedule_id)
$$;

comment on function public.delete_schedule(bigint) is
  'Delete a schedule with its runs and commands; to keep the history, cancel it instead. Answers the row as it was. Raises '
  'schedule_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.delete_schedule(bigint) from public, anon, authenticated, service_role;
grant execute on function public.delete_schedule(bigint) to authenticated, service_role;

-- db/sources/30_schedules/validation.sql
-- What is wrong with a schedule: everything at once, each with its field and what to do.

create or replace function fleet.payload_problems(p_command_type text, p_payload jsonb, p_field text default 'payload')
returns table (field text, problem text, hint text)
language sql
stable
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
          hint = (
            select string_agg(regexp_replace(h.hint, '[.]?$', '.'), ' ' order by h.n)
            from (
              select u.hint, min(u.n) as n from unnest(p_hints) with ordinality as u(hint, n) where u.hint <> '' group by u.hint
            ) as h
          );
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

create or replace function fleet.end_of_window(p_window jsonb, p_local timestamp)
returns timestamp
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select max(s.closes_at)
  -- A window across midnight belongs to the day on which it begins.
  from (values (p_local::date), (p_local::date - 1)) as d(day)
  cross join lateral (
    select fleet.time_of_day(p_window ->> 'from') as opens, fleet.time_of_day(p_window ->> 'to') as closes
  ) as w
  cross join lateral (
    select d.day + w.opens as opens_at,
      d.day + w.closes + case when w.closes <= w.opens then interval '1 day' else interval '0' end as closes_at
  ) as s
  where (
      not p_window ? 'days_of_week'
      or (p_window -> 'days_of_week') @> to_jsonb(extract(isodow from d.day)::integer - 1)
    )
    and p_local >= s.opens_at
    and p_local < s.closes_at
$$;

comment on function fleet.end_of_window(jsonb, timestamp) is
  'When a window closes in which a local time lies, in local time; null where it lies in none.';
revoke all on function fleet.end_of_window(jsonb, timestamp) from public, anon, authenticated, service_role;

create or replace function fleet.is_in_window(p_window jsonb, p_local timestamp)
returns boolean
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.end_of_window(p_window, p_local) is not null
$$;

comment on function fleet.is_in_window(jsonb, timestamp) is
  'Whether a local time lies in a window {from, to, days_of_week (0 = Monday)}; to is exclusive and may be on the next day.';
revoke all on function fleet.is_in_window(jsonb, timestamp) from public, anon, authenticated, service_role;

create or replace function fleet.window_opening(p_windows jsonb, p_place text, p_timezone text, p_from timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_windows jsonb := (
    select jsonb_agg(w) from jsonb_array_elements(p_windows) as w where coalesce(w ->> 'in', 'schedule') = p_place
  );
  v_local timestamp := p_from at time zone fleet.zone_clock(p_timezone);
begin
  if v_windows is null
    or exists (select 1 from jsonb_array_elements(v_windows) as w where fleet.is_in_window(w, v_local))
  then
    return p_from;
  end if;

  -- Windows repeat weekly; two weeks, because the clocks may skip the whole of one.
  return (
    select min(o.instant)
    from jsonb_array_elements(v_windows) as w
    cross join generate_series(0, 15) as g(days)
    cross join lateral (
      select fleet.local_to_instant(
        v_local::date + g.days + fleet.time_of_day(w ->> 'from'), p_timezone
      ) as instant
    ) as o
    where o.instant > p_from
      and fleet.is_in_window(w, o.instant at time zone p_timezone)
  );
end;
$$;

comment on function fleet.window_opening(jsonb, text, text, timestamptz) is
  'p_from itself where it lies in one of the windows of this place (schedule or device), else when the next of them opens.';
revoke all on function fleet.window_opening(jsonb, text, text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.window_closing(p_windows jsonb, p_place text, p_timezone text, p_at timestamptz)
returns timestamptz
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select max(fleet.local_to_instant(fleet.end_of_window(w, p_at at time zone p_timezone), p_timezone))
  from jsonb_array_elements(p_windows) as w
  where coalesce(w ->> 'in', 'schedule') = p_place
$$;

comment on function fleet.window_closing(jsonb, text, text, timestamptz) is
  'When the window closes that is open at p_at; null where none is.';
revoke all on function fleet.window_closing(jsonb, text, text, timestamptz)
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

create or replace function fleet.window_in_device_time(p_window jsonb)
returns jsonb
language sql
immutable
parallel safe
return (
  case
    when jsonb_typeof(p_window) = 'object' and coalesce(p_window ->> 'in', 'schedule') = 'schedule'
      then p_window || '{"in": "device"}'
    else p_window
  end
);

comment on function fleet.window_in_device_time(jsonb) is
  'A window of a schedule in device time, which has no other zone in which it could be meant.';
revoke all on function fleet.window_in_device_time(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.policies_in_device_time(p_policies jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case jsonb_typeof(p_policies -> 'execution_window')
    when 'object' then p_policies || jsonb_build_object(
      'execution_window', fleet.window_in_device_time(p_policies -> 'execution_window')
    )
    when 'array' then p_policies || jsonb_build_object('execution_window', (
      select coalesce(jsonb_agg(fleet.window_in_device_time(e.item) order by e.n), '[]')
      from jsonb_array_elements(p_policies -> 'execution_window') with ordinality as e(item, n)
    ))
    else p_policies
  end
$$;

comment on function fleet.policies_in_device_time(jsonb) is
  'The policies of a schedule in device time, with its windows in the time of the devices too.';
revoke all on function fleet.policies_in_device_time(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.window_problems(p_windows jsonb)
returns table (field text, problem text, hint text)
language sql
immutable
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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

create or replace function fleet.zones_of(p_recurrence jsonb)
returns text[]
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select array_agg(z.name)
  from jsonb_array_elements_text(
    case jsonb_typeof(p_recurrence -> 'zones') when 'array' then p_recurrence -> 'zones' end
  ) as z(name)
$$;

comment on function fleet.zones_of(jsonb) is 'The time zones of a union; null where the schedule has a zone of its own.';
revoke all on function fleet.zones_of(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.zones_to_run(
  p_recurrence jsonb,
  p_policies jsonb,
  p_instant timestamptz,
  p_now timestamptz
)
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_recurrence ->> 'kind' is distinct from 'union' then
    return null;
  end if;
  return (
    select coalesce(array_agg(m.member ->> 'timezone'), '{}')
    from jsonb_array_elements(p_recurrence -> 'members') as m(member)
    where fleet.next_occurrence(m.member, p_instant - interval '1 microsecond') = p_instant
      -- Of what was missed each zone has a latest of its own.
      and (
        p_policies ->> 'catchup' = 'all'
        or coalesce(fleet.next_occurrence(m.member, p_instant) > p_now, true)
      )
  );
end;
$$;

comment on function fleet.zones_to_run(jsonb, jsonb, timestamptz, timestamptz) is
  'For whose devices a due instant runs now, by zone: none where a later one has taken its place. Null where the schedule has a zone of '
  'its own.';
revoke all on function fleet.zones_to_run(jsonb, jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.next_due_in(p_recurrence jsonb, p_zones text[], p_after timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_recurrence ->> 'kind' is distinct from 'union' then
    return fleet.next_occurrence(p_recurrence, p_after);
  end if;
  return (
    select min(fleet.next_occurrence(m.member, p_after))
    from jsonb_array_elements(p_recurrence -> 'members') as m(member)
    where m.member ->> 'timezone' = any (p_zones)
  );
end;
$$;

comment on function fleet.next_due_in(jsonb, text[], timestamptz) is
  'The first due instant after p_after for the devices of these zones; null when there is none.';
revoke all on function fleet.next_due_in(jsonb, text[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.dst_rule_at(p_recurrence jsonb, p_instant timestamptz)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
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

-- db/sources/30_schedules/views.sql
-- Schedules and their runs in the words of a task scheduler, for clients that were written for one. Read only.

create or replace function fleet.task_type(p_action_type text)
returns text
language sql
immutable
parallel safe
return (
  case p_action_type
    when 'run_command' then 'command'
    when 'deploy_software' then 'software_deployment'
    when 'deploy_files' then 'file_deployment'
    else p_action_type
  end
);

comment on function fleet.task_type(text) is 'The task type for which create_schedule makes this action.';
revoke all on function fleet.task_type(text) from public, anon, authenticated, service_role;
grant execute on function fleet.task_type(text) to authenticated, service_role;

drop view if exists public.scheduled_tasks;
create view public.scheduled_tasks
with (security_invoker = true)
as
select
  s.id,
  s.name as task_name,
  fleet.task_type(s.action_type) as task_type,
  case
    when s.status in ('paused', 'cancelled') then s.status
    when exists (
      select 1 from public.schedule_runs as r where r.schedule_id = s.id and r.status in ('pending', 'running')
    ) then 'running'
    when s.status = 'active' then 'pending'
    when last.status in ('failed', 'cancelled') then last.status
    else 'completed'
  end as status,
  s.start_time as scheduled_time,
  case s.recurrence_type when 'cron' then 'custom' else s.recurrence_type end as recurrence_type,
  s.recurrence_config,
  to_jsonb(s.device_ids) as device_ids,
  to_jsonb(s.group_ids) as group_ids,
  s.payload,
  s.created_by,
  s.created_at,
  s.updated_at,
  s.last_executed_at as last_execution,
  s.next_run_at as next_execution,
  s.execution_count,
  case
    when last.id is not null then coalesce(last.result, jsonb_build_object(
      'status', last.status, 'targeted', last.targeted, 'completed', last.completed, 'failed', last.failed,
      'skipped', last.skipped
    ))
  end as last_result,
  coalesce(last.error_message, case when last.status <> 'completed' then last.reason end, s.status_reason) as error_message
from public.schedules as s
left join lateral (
  select r.id, r.status, r.reason, r.targeted, r.completed, r.failed, r.skipped, r.result, r.error_message
  from public.schedule_runs as r
  where r.schedule_id = s.id and r.status in ('completed', 'failed', 'skipped', 'cancelled')
  order by r.scheduled_for desc
  limit 1
) as last on true;

comment on view public.scheduled_tasks is
  'Schedules as tasks: command, software_deployment, file_deployment or the name of an action; pending, running, completed, failed, '
  'cancelled or paused. Read only: write with create_schedule, update_schedule and their kin.';
comment on column public.scheduled_tasks.task_name is 'The name of the schedule.';
comment on column public.scheduled_tasks.task_type is 'command, software_deployment, file_deployment, or the action type.';
comment on column public.scheduled_tasks.scheduled_time is 'When it starts.';
comment on column public.scheduled_tasks.recurrence_type is 'once, interval, daily, weekly, monthly or custom (cron).';
comment on column public.scheduled_tasks.recurrence_config is 'As it was given.';
comment on column public.scheduled_tasks.device_ids is 'JSON list of ids.';
comment on column public.scheduled_tasks.group_ids is 'JSON list of ids.';
comment on column public.scheduled_tasks.payload is 'What each device gets.';
comment on column public.scheduled_tasks.last_execution is 'When it last ran.';
comment on column public.scheduled_tasks.next_execution is 'The next due instant.';
comment on column public.scheduled_tasks.execution_count is 'How often it ran.';
comment on column public.scheduled_tasks.last_result is 'Figures of the last run that ended.';
comment on column public.scheduled_tasks.error_message is 'Why that run failed or was skipped, or why the task is paused or cancelled.';

drop view if exists public.scheduled_task_executions;
create view public.scheduled_task_executions
with (security_invoker = true)
as
select
  r.id,
  r.schedule_id as task_id,
  coalesce(r.started_at, r.scheduled_for) as execution_time,
  r.finished_at as completed_time,
  r.status,
  null::bigint as deployment_id,
  coalesce(r.result, jsonb_build_object(
    'targeted', r.targeted, 'completed', r.completed, 'failed', r.failed, 'skipped', r.skipped
  )) as result,
  coalesce(r.error_message, case when r.status <> 'completed' then r.reason end) as error_message,
  r.created_at
from public.schedule_runs as r;

comment on view public.scheduled_task_executions is 'The runs of tasks, one row for each execution or range of missed ones. Read only.';
comment on column public.scheduled_task_executions.task_id is 'The task, in scheduled_tasks.';
comment on column public.scheduled_task_executions.execution_time is 'When it started; when it was due, where it never started.';
comment on column public.scheduled_task_executions.completed_time is 'When it ended.';
comment on column public.scheduled_task_executions.deployment_id is 'The deployment that it made, if any.';
comment on column public.scheduled_task_executions.result is 'How many devices were targeted, and how they ended.';
comment on column public.scheduled_task_executions.error_message is 'Why it failed or was skipped.';

revoke all on table public.scheduled_tasks, public.scheduled_task_executions from public, anon, authenticated, service_role;
grant select on table public.scheduled_tasks, public.scheduled_task_executions to authenticated, service_role;

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

create or replace trigger device_groups_05_refresh_device_time
  after update on public.device_groups
  referencing new table as new_rows
  for each statement execute function fleet.tg_refresh_zones_of_groups();

create or replace trigger device_group_members_05_refresh_device_time
  after insert on public.device_group_members
  referencing new table as new_rows
  for each statement execute function fleet.tg_refresh_zones_of_groups();

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

-- db/sources/35_insight/10_view.sql
-- Who may look, and at what: the schedules that a question is about.

create or replace function fleet.schedule_in_view(p_schedule_id bigint)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules;
begin
  select s.* into v_row
  from public.schedules as s
  where s.id = p_schedule_id and fleet.is_visible_owner(s.owner_id);
  if not found then
    perform fleet.raise_not_found(format('schedule %s', p_schedule_id));
  end if;
  return v_row;
end;
$$;

comment on function fleet.schedule_in_view(bigint) is
  'The schedule, if the caller may see it; unlike schedule_of_caller it locks nothing. Raises schedule_not_found (PT404).';
revoke all on function fleet.schedule_in_view(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.device_in_view(p_device_id bigint, p_owner_id uuid)
returns public.devices
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.devices;
begin
  select d.* into v_row from public.devices as d where d.id = p_device_id and d.owner_id = p_owner_id;
  if not found then
    perform fleet.raise_not_found(format('device %s', p_device_id));
  end if;
  return v_row;
end;
$$;

comment on function fleet.device_in_view(bigint, uuid) is
  'The device, if it has the owner whose schedules are looked at. Raises device_not_found (PT404).';
revoke all on function fleet.device_in_view(bigint, uuid) from public, anon, authenticated, service_role;

create or replace function fleet.owners_in_view()
returns uuid[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when fleet.is_trusted_caller() then array(select o.id from public.owners as o)
    else array(select o.id from fleet.my_owners() as o(id))
  end
$$;

comment on function fleet.owners_in_view() is
  'The owners whose fleets the caller sees: his own and those he is a member of; all of them inside the database; none for a device.';
revoke all on function fleet.owners_in_view() from public, anon, authenticated, service_role;

create or replace function fleet.owner_in_mind(p_owner_id uuid)
returns uuid
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid := coalesce(p_owner_id, fleet.current_user_id());
begin
  if v_owner is null then
    -- Nobody is signed in: the default, or the error about it. It writes only for a person.
    v_owner := fleet.resolve_owner();
  end if;
  perform fleet.require_permission(v_owner, 'view', format('owner %s', v_owner));
  return v_owner;
end;
$$;

comment on function fleet.owner_in_mind(uuid) is
  'The owner that was named or whose rows the caller would make, without making it. Raises owner_not_found (PT404), owner_missing '
  '(PT422) or not_a_person (PT403).';
revoke all on function fleet.owner_in_mind(uuid) from public, anon, authenticated, service_role;

create or replace function fleet.whole_number_between(p_name text, p_value bigint, p_least bigint, p_most bigint)
returns integer
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_value is null or p_value not between p_least and p_most then
    raise exception '%: % is not a whole number from % to %', p_name, coalesce(p_value::text, 'null'), p_least, p_most
      using errcode = 'PT422',
            detail = 'argument_invalid',
            hint = format('Give %s from %s to %s.', p_name, p_least, p_most);
  end if;
  return p_value;
end;
$$;

comment on function fleet.whole_number_between(text, bigint, bigint, bigint) is
  'The value, if it is within its bounds. Raises argument_invalid (PT422).';
revoke all on function fleet.whole_number_between(text, bigint, bigint, bigint)
  from public, anon, authenticated, service_role;

create or replace function fleet.require_span(p_from timestamptz, p_to timestamptz, p_most interval)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_from is null or p_to is null or not isfinite(p_from) or not isfinite(p_to)
    or p_to <= p_from or p_to > p_from + p_most
  then
    raise exception 'from % to % is not a span of at most %', coalesce(p_from::text, 'null'), coalesce(p_to::text, 'null'), p_most
      using errcode = 'PT422',
            detail = 'span_invalid',
            hint = 'Let p_to be after p_from, and ask for less at once.';
  end if;
end;
$$;

comment on function fleet.require_span(timestamptz, timestamptz, interval) is
  'Raise span_invalid (PT422) unless p_to is after p_from by at most so much.';
revoke all on function fleet.require_span(timestamptz, timestamptz, interval)
  from public, anon, authenticated, service_role;

-- db/sources/35_insight/20_coming.sql
-- What a schedule will do: each due instant with the decision that the engine would make about it.

create or replace function fleet.coming_runs(
  p_schedule public.schedules,
  p_from timestamptz,
  p_to timestamptz,
  p_limit integer,
  p_is_present boolean default false
)
returns table (
  due_at timestamptz,
  starts_at timestamptz,
  would text,
  reason text,
  zones text[],
  dst_rule text,
  missed_to timestamptz,
  missed_count bigint
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules := p_schedule;
  v_most bigint := (p_schedule.policies ->> 'max_runs')::bigint;
  v_now timestamptz;
  v_next timestamptz;
  v_made integer := 0;
  v_decided record;
  v_is_plain boolean := fleet.is_plainly_decided(p_schedule);
begin
  if p_schedule.status not in ('active', 'paused') or p_schedule.next_run_at is null then
    return;
  end if;

  -- What is overdue is decided as a tick at p_from would; otherwise the engine is taken to have kept up until then. Runs
  -- that are limited in number are counted from where the schedule stands.
  if not (v_row.next_run_at < p_from and (p_is_present or v_most is not null)) then
    v_row.next_run_at := fleet.next_due(v_row.recurrence, p_from - interval '1 microsecond');
  end if;

  while v_row.next_run_at < p_to and v_made < p_limit loop
    if v_is_plain and v_row.next_run_at >= p_from then
      v_made := v_made + 1;
      due_at := v_row.next_run_at;
      starts_at := due_at;
      reason := fleet.plain_refusal(p_schedule, due_at);
      would := case when reason is null then 'run' else 'skip' end;
      zones := fleet.zones_due(v_row.recurrence, due_at);
      dst_rule := fleet.dst_rule_at(v_row.recurrence, due_at);
      return next;
      v_row.next_run_at := fleet.next_due(v_row.recurrence, due_at);
      continue;
    end if;

    v_now := case when p_is_present then greatest(v_row.next_run_at, p_from) else v_row.next_run_at end;
    v_next := null;
    for v_decided in select d.* from fleet.decide_due(v_row, v_now) as d order by d.scheduled_for loop
      v_next := v_decided.next_run_at;
      if v_decided.status = 'pending' and v_row.status = 'active' then
        v_row.execution_count := v_row.execution_count + 1;
      end if;
      if v_made < p_limit and (p_is_present or v_decided.scheduled_for >= p_from) then
        v_made := v_made + 1;
        due_at := v_decided.scheduled_for;
        starts_at := coalesce(v_decided.not_before, v_now);
        would := case when v_decided.status = 'pending' and v_row.status = 'active' then 'run' else 'skip' end;
        reason := case when v_row.status = 'paused' then 'paused' else v_decided.reason end;
        zones := v_decided.zones;
        dst_rule := v_decided.dst_rule;
        missed_to := v_decided.missed_to;
        missed_count := v_decided.missed_count;
        return next;
        missed_to := null;
        missed_count := null;
        reason := null;
      end if;
    end loop;
    exit when v_row.execution_count >= v_most;
    v_row.next_run_at := v_next;
  end loop;
end;
$$;

comment on function fleet.coming_runs(public.schedules, timestamptz, timestamptz, integer, boolean) is
  'The due instants of a schedule within [p_from, p_to), at most p_limit, as fleet.decide_due decides about each. p_is_present: what is '
  'overdue at p_from comes first, as it would be caught up then. Overlap cannot be known: nobody knows how long devices will take.';
revoke all on function fleet.coming_runs(public.schedules, timestamptz, timestamptz, integer, boolean)
  from public, anon, authenticated, service_role;

create or replace function fleet.is_plainly_decided(p_schedule public.schedules)
returns boolean
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select p_schedule.status = 'active'
    and not p_schedule.policies ? 'max_runs'
    and not (p_schedule.timezone = 'device' and p_schedule.policies ? 'blackouts')
    and not fleet.waits_for_window(fleet.window_list(p_schedule.policies), 'schedule')
$$;

comment on function fleet.is_plainly_decided(public.schedules) is
  'Whether an instant that is ticked on time runs at once for all of its zones, or not at all: nothing is counted, nothing waits.';
revoke all on function fleet.is_plainly_decided(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.plain_refusal(p_schedule public.schedules, p_instant timestamptz)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Says what fleet.zones_refusal says, without looking for the next opening: thousands of instants are asked about at once.
  if not p_schedule.policies ?| '{blackouts,execution_window}' then
    return null;
  elsif p_schedule.policies ? 'blackouts' and fleet.open_zones(p_schedule, array[p_schedule.timezone], p_instant) = '{}' then
    return 'blackout';
  end if;
  return (
    select 'outside the execution window'
    from jsonb_array_elements(fleet.window_list(p_schedule.policies)) as w
    where coalesce(w ->> 'in', 'schedule') = 'schedule'
    having count(*) > 0 and not bool_or(fleet.is_in_window(w, p_instant at time zone fleet.reference_zone(p_schedule)))
  );
end;
$$;

comment on function fleet.plain_refusal(public.schedules, timestamptz) is
  'Why a plainly decided schedule does not run at an instant on time; null where it does.';
revoke all on function fleet.plain_refusal(public.schedules, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.device_counts(p_schedule public.schedules)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_object_agg(c.zone, c.devices), '{}')
  from (
    select coalesce(t.timezone, 'UTC') as zone, count(*) as devices
    from fleet.targets(p_schedule.owner_id, p_schedule.device_ids, p_schedule.group_ids, p_schedule.selector) as t
    group by 1
  ) as c
$$;

comment on function fleet.device_counts(public.schedules) is 'How many devices a schedule reaches now, by their time zone.';
revoke all on function fleet.device_counts(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.devices_of_zones(p_counts jsonb, p_zones text[])
returns bigint
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(sum(e.value::bigint), 0)
  from jsonb_each_text(p_counts) as e
  where p_zones is null or e.key = any (p_zones)
$$;

comment on function fleet.devices_of_zones(jsonb, text[]) is
  'How many of the counted devices an instant is for: those in its zones, or all where it has none.';
revoke all on function fleet.devices_of_zones(jsonb, text[]) from public, anon, authenticated, service_role;

create or replace function fleet.clock_text(p_instant timestamptz, p_timezone text)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select to_char(
    p_instant at time zone p_timezone,
    case
      when date_trunc('minute', p_instant) = p_instant then 'Dy YYYY-MM-DD HH24:MI'
      else 'Dy YYYY-MM-DD HH24:MI:SS'
    end
  )
$$;

comment on function fleet.clock_text(timestamptz, text) is 'What calendar and clock show at an instant in a time zone, with the weekday.';
revoke all on function fleet.clock_text(timestamptz, text) from public, anon, authenticated, service_role;

create or replace function fleet.local_times(p_instant timestamptz, p_zones text[])
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with shown as (
    select fleet.clock_text(p_instant, z.name) as text, string_agg(z.name, ', ' order by z.name) as names
    from unnest(p_zones) as z(name)
    group by 1
  )
  select string_agg(
    s.text || case when (select count(*) from shown) > 1 then format(' (%s)', s.names) else '' end,
    '; ' order by s.text
  )
  from shown as s
$$;

comment on function fleet.local_times(timestamptz, text[]) is
  'The local time of an instant in these zones; said once where they agree, which is the rule for device time.';
revoke all on function fleet.local_times(timestamptz, text[]) from public, anon, authenticated, service_role;

create or replace function fleet.dst_note(p_rule text)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select replace(replace(replace(replace(replace(replace(
    -- With device time each rule has its zone before it.
    regexp_replace(p_rule, ' (gap|fold):', ': \1:', 'g'),
    'gap:first_instant', 'the clocks skip this local time: it runs at the first instant after'),
    'gap:shift', 'the clocks skip this local time: it runs as much later as they jump'),
    'gap:skip', 'the clocks skip this local time: it does not run'),
    'fold:first', 'this local time comes twice: it runs at the first'),
    'fold:second', 'this local time comes twice: it runs at the second'),
    'fold:both', 'this local time comes twice: it runs both times')
$$;

comment on function fleet.dst_note(text) is 'In English, which rule moved an instant at a change of the clock; null where none did.';
revoke all on function fleet.dst_note(text) from public, anon, authenticated, service_role;

create or replace function fleet.skip_detail(
  p_schedule public.schedules,
  p_reason text,
  p_zones text[],
  p_due_at timestamptz,
  p_starts_at timestamptz
)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case p_reason
    when 'blackout' then (
      select fleet.blackout_at(p_schedule.owner_id, fleet.blackout_ids(p_schedule.policies), z.name, i.at)
      from unnest(coalesce(p_zones, array[fleet.reference_zone(p_schedule)])) as z(name)
      cross join (values (1, p_due_at), (2, p_starts_at)) as i(place, at)
      order by fleet.blackout_at(p_schedule.owner_id, fleet.blackout_ids(p_schedule.policies), z.name, i.at) is null, i.place
      limit 1
    )
    when 'paused' then p_schedule.status_reason
  end
$$;

comment on function fleet.skip_detail(public.schedules, text, text[], timestamptz, timestamptz) is
  'What more is known of the reason for a skip: the name of the blackout, why the schedule is paused.';
revoke all on function fleet.skip_detail(public.schedules, text, text[], timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/35_insight/30_preview.sql
-- Before saving: what a new schedule would do, and what an edit would change.

create or replace function fleet.drafted_schedule(p_old public.schedules, p_changes jsonb, p_now timestamptz)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules := fleet.completed_schedule(
    fleet.changed_schedule(p_old, fleet.schedule_with_changes(p_old, p_changes))
  );
  v_fields text[];
  v_problems text[];
  v_hints text[];
begin
  -- The trigger has the last word when it is saved, and would say the same.
  select array_agg(q.field), array_agg(q.problem), array_agg(q.hint)
  into v_fields, v_problems, v_hints
  from fleet.schedule_problems(v_row) as q;
  perform fleet.raise_problems('the schedule', 'schedule_invalid', v_fields, v_problems, v_hints);

  v_row.recurrence := fleet.compiled(v_row);
  v_row.execution_count := coalesce(p_old.execution_count, 0);
  v_row.next_run_at := p_old.next_run_at;
  v_row.status_reason := p_old.status_reason;
  if p_old.id is null or fleet.timing_changed(p_old, v_row) then
    v_row.next_run_at := fleet.first_due(v_row, p_now);
    if v_row.status = 'completed' and v_row.next_run_at is not null then
      v_row.status := 'active';
    end if;
  end if;
  return v_row;
end;
$$;

comment on function fleet.drafted_schedule(public.schedules, jsonb, timestamptz) is
  'The row that saving these changes at p_now would make. Raises schedule_invalid naming every wrong field.';
revoke all on function fleet.drafted_schedule(public.schedules, jsonb, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.preview_of(p_schedule public.schedules, p_count integer, p_from timestamptz)
returns table (
  due_at timestamptz,
  local_time text,
  zones text[],
  would text,
  reason text,
  detail text,
  dst_note text,
  starts_at timestamptz,
  devices bigint
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select c.due_at, fleet.local_times(c.due_at, z.zones), z.zones, c.would, c.reason,
    coalesce(
      fleet.skip_detail(p_schedule, c.reason, c.zones, c.due_at, c.starts_at),
      case when c.missed_count > 1 then format('%s instants until %s', c.missed_count, fleet.local_times(c.missed_to, z.zones)) end
    ),
    fleet.dst_note(c.dst_rule),
    case when c.would = 'run' then c.starts_at end,
    fleet.devices_of_zones(d.counts, c.zones)
  from fleet.coming_runs(p_schedule, p_from, 'infinity', p_count, true) as c
  cross join lateral (
    select coalesce(c.zones, array[fleet.reference_zone(p_schedule)]) as zones
  ) as z
  cross join (select fleet.device_counts(p_schedule) as counts) as d
$$;

comment on function fleet.preview_of(public.schedules, integer, timestamptz) is 'See public.preview_schedule.';
revoke all on function fleet.preview_of(public.schedules, integer, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.preview_schedule(p_spec jsonb, p_count integer, p_from timestamptz)
returns table (
  due_at timestamptz,
  local_time text,
  zones text[],
  would text,
  reason text,
  detail text,
  dst_note text,
  starts_at timestamptz,
  devices bigint
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_nothing public.schedules;
  v_draft public.schedules;
begin
  if jsonb_typeof(p_spec) is distinct from 'object' then
    raise exception 'a schedule must be a JSON object'
      using errcode = 'PT422', detail = 'schedule_invalid', hint = 'See the README, "Schedules by example".';
  end if;
  v_nothing.owner_id := fleet.owner_in_mind(fleet.try_uuid(p_spec ->> 'owner_id'));
  v_draft := fleet.drafted_schedule(v_nothing, p_spec, p_from);
  return query
  select p.* from fleet.preview_of(v_draft, fleet.whole_number_between('p_count', p_count, 1, 1000), p_from) as p;
end;
$$;

comment on function fleet.preview_schedule(jsonb, integer, timestamptz) is
  'See public.preview_schedule. Definer: it checks the caller first, then sees what the checks need to see.';
revoke all on function fleet.preview_schedule(jsonb, integer, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.preview_schedule(jsonb, integer, timestamptz) to authenticated, service_role;

create or replace function public.preview_schedule(
  p_spec jsonb,
  p_count integer default 10,
  p_from timestamptz default now()
)
returns table (
  due_at timestamptz,
  local_time text,
  zones text[],
  would text,
  reason text,
  detail text,
  dst_note text,
  starts_at timestamptz,
  devices bigint
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select * from fleet.preview_schedule(p_spec, p_count, p_from)
$$;

comment on function public.preview_schedule(jsonb, integer, timestamptz) is
  'The next runs of a schedule that is not saved: when, in UTC and in local time, for how many devices, and why one would be skipped. '
  'Takes and checks what create_schedule does; nothing is written. Raises schedule_invalid (PT422, or PT404) naming every wrong field.';
revoke all on function public.preview_schedule(jsonb, integer, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function public.preview_schedule(jsonb, integer, timestamptz) to authenticated, service_role;

create or replace function fleet.upcoming_runs(p_schedule_id bigint, p_count integer, p_from timestamptz)
returns table (
  due_at timestamptz,
  local_time text,
  zones text[],
  would text,
  reason text,
  detail text,
  dst_note text,
  starts_at timestamptz,
  devices bigint
)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select p.*
  from fleet.preview_of(
    fleet.schedule_in_view(p_schedule_id), fleet.whole_number_between('p_count', p_count, 1, 1000), p_from
  ) as p
$$;

comment on function fleet.upcoming_runs(bigint, integer, timestamptz) is 'See public.upcoming_runs. Definer: it checks the caller.';
revoke all on function fleet.upcoming_runs(bigint, integer, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.upcoming_runs(bigint, integer, timestamptz) to authenticated, service_role;

create or replace function public.upcoming_runs(
  p_schedule_id bigint,
  p_count integer default 10,
  p_from timestamptz default now()
)
returns table (
  due_at timestamptz,
  local_time text,
  zones text[],
  would text,
  reason text,
  detail text,
  dst_note text,
  starts_at timestamptz,
  devices bigint
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select * from fleet.upcoming_runs(p_schedule_id, p_count, p_from)
$$;

comment on function public.upcoming_runs(bigint, integer, timestamptz) is
  'The next runs of a schedule, as preview_schedule shows those of one that is not saved. Raises schedule_not_found (PT404).';
revoke all on function public.upcoming_runs(bigint, integer, timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.upcoming_runs(bigint, integer, timestamptz) to authenticated, service_role;

create or replace function fleet.diff_schedule(
  p_schedule_id bigint,
  p_changes jsonb,
  p_count integer,
  p_from timestamptz
)
returns table (
  change text,
  due_at timestamptz,
  local_time text,
  would_before text,
  would_after text,
  devices_before bigint,
  devices_after bigint,
  dst_note text
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_old public.schedules := fleet.schedule_in_view(p_schedule_id);
  v_count integer := fleet.whole_number_between('p_count', p_count, 1, 1000);
  v_new public.schedules;
begin
  if v_old.status = 'cancelled' then
    raise exception 'schedule % is cancelled', p_schedule_id
      using errcode = 'PT409',
            detail = 'schedule_cancelled',
            hint = format('Make a new one of it: pgfleet schedule duplicate %s', p_schedule_id);
  end if;
  v_new := fleet.drafted_schedule(v_old, p_changes, p_from);

  -- The first n of both together: whatever is among them is among the first n of its own.
  return query
  select case when b.due_at is null then 'added' when a.due_at is null then 'removed' else 'kept' end,
    coalesce(a.due_at, b.due_at), coalesce(a.local_time, b.local_time),
    concat_ws(': ', b.would, b.reason, b.detail), concat_ws(': ', a.would, a.reason, a.detail),
    b.devices, a.devices, coalesce(a.dst_note, b.dst_note)
  from fleet.preview_of(v_old, v_count, p_from) as b
  full join fleet.preview_of(v_new, v_count, p_from) as a on a.due_at = b.due_at
  order by 2
  limit v_count;
end;
$$;

comment on function fleet.diff_schedule(bigint, jsonb, integer, timestamptz) is
  'See public.diff_schedule. Definer: it checks the caller first, then sees what the checks need to see.';
revoke all on function fleet.diff_schedule(bigint, jsonb, integer, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.diff_schedule(bigint, jsonb, integer, timestamptz) to authenticated, service_role;

create or replace function public.diff_schedule(
  p_schedule_id bigint,
  p_changes jsonb,
  p_count integer default 20,
  p_from timestamptz default now()
)
returns table (
  change text,
  due_at timestamptz,
  local_time text,
  would_before text,
  would_after text,
  devices_before bigint,
  devices_after bigint,
  dst_note text
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select * from fleet.diff_schedule(p_schedule_id, p_changes, p_count, p_from)
$$;

comment on function public.diff_schedule(bigint, jsonb, integer, timestamptz) is
  'The coming runs before and after an edit, in the order of time: added, removed or kept, and what would become of each. Takes and '
  'checks what update_schedule does; nothing is written. Raises schedule_not_found (PT404), schedule_invalid (PT422) or '
  'schedule_cancelled (PT409).';
revoke all on function public.diff_schedule(bigint, jsonb, integer, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function public.diff_schedule(bigint, jsonb, integer, timestamptz) to authenticated, service_role;

-- db/sources/35_insight/40_explain.sql
-- Why a schedule ran at an instant, or did not.

create or replace function fleet.answer(p_verdict text, p_reason text, p_detail text)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object('verdict', p_verdict, 'reason', p_reason, 'detail', p_detail)
$$;

comment on function fleet.answer(text, text, text) is
  'A verdict in a word or two, its reason in a few words, and a sentence with what is known beyond that.';
revoke all on function fleet.answer(text, text, text) from public, anon, authenticated, service_role;

create or replace function fleet.run_at(p_schedule_id bigint, p_at timestamptz)
returns public.schedule_runs
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select r.*
  from public.schedule_runs as r
  left join public.schedule_runs as a on a.id = r.after_run_id
  where r.schedule_id = p_schedule_id
    and (
      r.scheduled_for = p_at
      or (r.missed_from <= p_at and p_at <= r.missed_to)
      or a.scheduled_for = p_at
      -- Runs by hand and in chains have instants of microseconds, which nobody types.
      or (r.trigger in ('manual', 'chain') and date_trunc('second', r.scheduled_for) = p_at)
    )
  order by r.scheduled_for = p_at desc, r.missed_from is null desc, r.id
  limit 1
$$;

comment on function fleet.run_at(bigint, timestamptz) is
  'What the ledger says of an instant: its row, the range that covers it, the run that followed the one of that instant, or one that was '
  'started within that second.';
revoke all on function fleet.run_at(bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.run_facts(p_run public.schedule_runs)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_run.id is not null then jsonb_strip_nulls(jsonb_build_object(
      'id', p_run.id, 'scheduled_for', p_run.scheduled_for, 'trigger', p_run.trigger, 'status', p_run.status,
      'reason', p_run.reason, 'targeted', p_run.targeted, 'completed', p_run.completed, 'failed', p_run.failed,
      'skipped', p_run.skipped, 'dst_rule', p_run.dst_rule, 'zones', p_run.zones, 'not_before', p_run.not_before,
      'missed_from', p_run.missed_from, 'missed_to', p_run.missed_to, 'missed_count', p_run.missed_count,
      'after_run_id', p_run.after_run_id, 'error_message', p_run.error_message, 'started_at', p_run.started_at,
      'finished_at', p_run.finished_at
    ))
  end
$$;

comment on function fleet.run_facts(public.schedule_runs) is 'What an explanation shows of a run; null where there is none.';
revoke all on function fleet.run_facts(public.schedule_runs) from public, anon, authenticated, service_role;

create or replace function fleet.explain_schedule(
  p_schedule_id bigint,
  p_at timestamptz,
  p_device_id bigint,
  p_now timestamptz
)
returns jsonb
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_schedule public.schedules := fleet.schedule_in_view(p_schedule_id);
  v_run public.schedule_runs := fleet.run_at(p_schedule_id, p_at);
  v_device public.devices;
  v_answer jsonb;
begin
  if p_at is null or not isfinite(p_at) then
    raise exception 'p_at: is not an instant'
      using errcode = 'PT422', detail = 'argument_invalid', hint = 'Write it like "2026-03-01T05:30:00Z".';
  end if;
  v_answer := case
    when v_run.id is not null then fleet.explain_run(v_schedule, v_run, p_at, p_now)
    else fleet.explain_absence(v_schedule, p_at, p_now)
  end;

  if p_device_id is not null then
    v_device := fleet.device_in_view(p_device_id, v_schedule.owner_id);
    v_answer := fleet.explain_device(v_schedule, v_run, v_device, p_at, v_answer, p_now)
      || jsonb_build_object('device_id', v_device.id, 'hostname', v_device.hostname);
  end if;

  return jsonb_build_object(
      'schedule_id', v_schedule.id, 'schedule', v_schedule.name, 'at', p_at,
      'local_time', fleet.local_times(p_at, coalesce(
        v_run.zones, fleet.zones_due(v_schedule.recurrence, p_at), array[fleet.reference_zone(v_schedule)]
      )),
      'run', fleet.run_facts(v_run)
    )
    || v_answer;
end;
$$;

comment on function fleet.explain_schedule(bigint, timestamptz, bigint, timestamptz) is
  'See public.explain_schedule. Definer: it checks the caller first, then sees what the explanation needs.';
revoke all on function fleet.explain_schedule(bigint, timestamptz, bigint, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.explain_schedule(bigint, timestamptz, bigint, timestamptz) to authenticated, service_role;

create or replace function public.explain_schedule(
  p_schedule_id bigint,
  p_at timestamptz,
  p_device_id bigint default null,
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.explain_schedule(p_schedule_id, p_at, p_device_id, p_now)
$$;

comment on function public.explain_schedule(bigint, timestamptz, bigint, timestamptz) is
  'Whether a schedule ran at an instant, on a device or at all, and why not: {verdict, reason, detail, local_time, run?, command?, '
  'nearest?}. Verdicts: ran, running, waiting, failed, error, paused, overlap, outside window, blackout, missed, no targets, not yet due, '
  'not due, before start, ended, max runs, cancelled, expired, not a target, added later, retired; unknown only when the ledger has lost '
  'it. Raises schedule_not_found or device_not_found (PT404).';
revoke all on function public.explain_schedule(bigint, timestamptz, bigint, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function public.explain_schedule(bigint, timestamptz, bigint, timestamptz) to authenticated, service_role;

create or replace function fleet.explain_run(
  p_schedule public.schedules,
  p_run public.schedule_runs,
  p_at timestamptz,
  p_now timestamptz
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_final bigint := p_run.completed + p_run.failed;
begin
  return case p_run.status
    when 'completed' then fleet.answer('ran', 'completed', format('%s of %s commands completed', p_run.completed, p_run.targeted))
    when 'cancelled' then fleet.answer('cancelled', p_run.reason, 'it was cancelled before any device had its command')
    when 'skipped' then fleet.explain_skip(p_schedule, p_run, p_at)
    when 'failed' then case p_run.reason
      when 'error' then fleet.answer('error', 'error', p_run.error_message)
      else fleet.answer('ran', p_run.reason, 'the run is over and counts as failed; ask for one device to know more')
    end
    else case
      when p_run.expanded_at is null and p_run.not_before > p_now then fleet.explain_delay(p_schedule, p_run)
      when p_run.expanded_at is null
        then fleet.answer('running', 'its commands are being made', format('%s were made so far', p_run.targeted))
      when p_run.not_before > p_now then fleet.explain_delay(p_schedule, p_run)
      else fleet.answer('running', format('%s of %s commands are final', v_final, p_run.targeted),
        format('the rest may start until %s', fleet.local_times(p_run.expires_at, array[fleet.reference_zone(p_schedule)])))
    end
  end;
end;
$$;

comment on function fleet.explain_run(public.schedules, public.schedule_runs, timestamptz, timestamptz) is
  'The answer for an instant that is in the ledger.';
revoke all on function fleet.explain_run(public.schedules, public.schedule_runs, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.explain_delay(p_schedule public.schedules, p_run public.schedule_runs)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.answer(
    'waiting',
    case
      when fleet.waits_for_window(fleet.window_list(fleet.effective_policies(p_schedule.policies)), 'schedule')
        then 'the execution window is closed'
      else 'catching up is paced'
    end,
    format('it starts on %s', fleet.local_times(p_run.not_before, array[fleet.reference_zone(p_schedule)]))
  )
$$;

comment on function fleet.explain_delay(public.schedules, public.schedule_runs) is 'The answer for a run that is not to start yet.';
revoke all on function fleet.explain_delay(public.schedules, public.schedule_runs)
  from public, anon, authenticated, service_role;

-- db/sources/35_insight/41_explain_skips.sql
-- Why an instant was skipped: what the ledger says, and what can be said beyond it.

create or replace function fleet.verdict_of_reason(p_reason text)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_reason in ('no targets', 'overlap', 'paused', 'blackout', 'error') then p_reason
    when p_reason in (
      'outside the catch-up window', 'catch-up is off', 'superseded by a later instant', 'beyond the catch-up limit'
    ) then 'missed'
    when p_reason = 'outside the execution window' then 'outside window'
    when p_reason = 'max_runs reached' then 'max runs'
    when p_reason in ('the schedule has ended', 'completed') then 'ended'
    when p_reason = 'the schedule has not begun' then 'before start'
    when p_reason = 'the times were changed' then 'not due'
    when p_reason in ('cancelled', 'the schedule was cancelled') then 'cancelled'
    else 'skipped'
  end
$$;

comment on function fleet.verdict_of_reason(text) is
  'The verdict for a reason of the ledger; "skipped" for one that somebody wrote by hand.';
revoke all on function fleet.verdict_of_reason(text) from public, anon, authenticated, service_role;

create or replace function fleet.explain_skip(p_schedule public.schedules, p_run public.schedule_runs, p_at timestamptz)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_policies jsonb := fleet.effective_policies(p_schedule.policies);
  v_zones text[] := array[fleet.reference_zone(p_schedule)];
  -- A range has one reason for all of it; its older part was too old besides.
  v_reason text := case
    when p_run.reason in ('superseded by a later instant', 'beyond the catch-up limit')
      and p_at < p_run.finished_at - (v_policies ->> 'catchup_window')::interval
      then 'outside the catch-up window'
    else p_run.reason
  end;
begin
  return fleet.answer(fleet.verdict_of_reason(v_reason), v_reason, concat_ws('; ',
    case v_reason
      when 'no targets' then format('no active device matched when it was due; now %s do', fleet.devices_of_zones(
        fleet.device_counts(p_schedule), p_run.zones
      ))
      when 'overlap' then fleet.overlap_detail(p_run)
      when 'blackout' then fleet.skip_detail(p_schedule, 'blackout', p_run.zones, p_run.scheduled_for, p_run.finished_at)
      when 'outside the execution window' then fleet.window_text(v_policies)
      when 'paused' then case when p_schedule.status = 'paused' then p_schedule.status_reason end
      when 'max_runs reached' then format('it may run %s times', v_policies ->> 'max_runs')
      when 'outside the catch-up window' then
        format('no tick came by in time, and only the last %s are caught up (catchup_window)', v_policies ->> 'catchup_window')
      when 'catch-up is off' then 'no tick came by in time, and nothing is caught up (catchup: none)'
      when 'superseded by a later instant' then 'no tick came by in time, and of what was missed only the latest runs (catchup: latest)'
      when 'beyond the catch-up limit' then
        format('no tick came by in time, and only the latest %s are caught up (catchup_limit)', v_policies ->> 'catchup_limit')
      when 'the times were changed' then 'somebody changed the times before a tick came by'
    end,
    case
      when p_run.missed_count > 1 then format(
        'one of %s instants from %s to %s', p_run.missed_count, fleet.local_times(p_run.missed_from, v_zones),
        fleet.local_times(p_run.missed_to, v_zones)
      )
    end
  ));
end;
$$;

comment on function fleet.explain_skip(public.schedules, public.schedule_runs, timestamptz) is
  'The answer for an instant that the ledger has as skipped, by itself or in a range.';
revoke all on function fleet.explain_skip(public.schedules, public.schedule_runs, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.busy_command(p_run public.schedule_runs, p_device_id bigint)
returns public.device_commands
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select c.*
  from public.device_commands as c
  join public.schedule_runs as o on o.id = c.run_id
  cross join (select coalesce(p_run.expanded_at, p_run.started_at, p_run.scheduled_for) as at) as m
  where c.schedule_id = p_run.schedule_id
    and (p_device_id is null or c.device_id = p_device_id)
    and c.run_id <> p_run.id
    and o.started_at <= m.at
    -- What nobody has taken keeps nobody busy once it may no longer be started.
    and case
      when c.claimed_at is null and c.status in ('pending', 'expired') then c.expires_at > m.at
      else c.executed_at is null or c.executed_at >= m.at
    end
  order by c.run_id desc
  limit 1
$$;

comment on function fleet.busy_command(public.schedule_runs, bigint) is
  'A command of another run of the same schedule that was not final when this run made its own; of one device, or of any.';
revoke all on function fleet.busy_command(public.schedule_runs, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.overlap_detail(p_run public.schedule_runs)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select 'every device was still busy with another run'
    || coalesce(format(', such as "%s" with run %s', (c.command).device_hostname, (c.command).run_id), '')
  from (select fleet.busy_command(p_run, null) as command) as c
$$;

comment on function fleet.overlap_detail(public.schedule_runs) is 'What kept the devices of a run that was skipped because of overlap.';
revoke all on function fleet.overlap_detail(public.schedule_runs) from public, anon, authenticated, service_role;

create or replace function fleet.window_text(p_policies jsonb)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select string_agg(concat(
    w.item ->> 'from', ' to ', w.item ->> 'to',
    ' on ' || fleet.english_weekdays(array(
      select e::integer + 1
      from jsonb_array_elements_text(
        case jsonb_typeof(w.item -> 'days_of_week') when 'array' then w.item -> 'days_of_week' end
      ) as e
      order by 1
    )),
    case w.item ->> 'in' when 'device' then ' in device time' end
  ), ' or ' order by w.place)
  from jsonb_array_elements(fleet.window_list(p_policies)) with ordinality as w(item, place)
$$;

comment on function fleet.window_text(jsonb) is 'The execution windows of effective policies in words; null where there is none.';
revoke all on function fleet.window_text(jsonb) from public, anon, authenticated, service_role;

-- db/sources/35_insight/42_explain_absence.sql
-- Why the ledger says nothing of an instant.

create or replace function fleet.status_at(p_schedule public.schedules, p_at timestamptz)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    (
      select a.old ->> 'status'
      from public.audit_log as a
      where a.table_name = 'schedules'
        and a.row_id = p_schedule.id::text
        and a.action = 'update'
        and a.at > p_at
        and a.old ? 'status'
      order by a.id
      limit 1
    ),
    p_schedule.status
  )
$$;

comment on function fleet.status_at(public.schedules, timestamptz) is
  'The status that a schedule had, by the audit log; its present one where it has not changed since.';
revoke all on function fleet.status_at(public.schedules, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.times_changed_after(p_schedule public.schedules, p_at timestamptz)
returns timestamptz
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select max(a.at)
  from public.audit_log as a
  where a.table_name = 'schedules'
    and a.row_id = p_schedule.id::text
    and a.action = 'update'
    and a.at > p_at
    and a.old ?| '{recurrence,recurrence_type,recurrence_config,start_time,end_time,timezone,policies,after_schedule_id}'
$$;

comment on function fleet.times_changed_after(public.schedules, timestamptz) is
  'When the times of a schedule were last changed after an instant, by the audit log; null where they were not.';
revoke all on function fleet.times_changed_after(public.schedules, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.nearest_instants(p_recurrence jsonb, p_at timestamptz, p_zones text[])
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'before', n.before, 'before_local', fleet.local_times(n.before, p_zones),
    'after', n.after, 'after_local', fleet.local_times(n.after, p_zones)
  )
  from (
    select fleet.last_occurrence(p_recurrence, p_at - interval '50 years', p_at) as before,
      fleet.next_due(p_recurrence, p_at) as after
  ) as n
$$;

comment on function fleet.nearest_instants(jsonb, timestamptz, text[]) is 'The due instants on either side of one: {before, after}.';
revoke all on function fleet.nearest_instants(jsonb, timestamptz, text[]) from public, anon, authenticated, service_role;

create or replace function fleet.explain_absence(p_schedule public.schedules, p_at timestamptz, p_now timestamptz)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_zones text[] := coalesce(
    fleet.zones_due(p_schedule.recurrence, p_at), array[fleet.reference_zone(p_schedule)]
  );
begin
  if p_schedule.after_schedule_id is not null then
    return fleet.explain_unfollowed(p_schedule, p_at);
  elsif fleet.next_due(p_schedule.recurrence, p_at - interval '1 microsecond') is distinct from p_at then
    return fleet.explain_not_due(p_schedule, p_at, fleet.nearest_instants(p_schedule.recurrence, p_at, v_zones));
  elsif p_at > p_now then
    return fleet.explain_future(p_schedule, p_at, v_zones);
  end if;
  return fleet.explain_past(p_schedule, p_at, p_now, v_zones);
end;
$$;

comment on function fleet.explain_absence(public.schedules, timestamptz, timestamptz) is
  'The answer for an instant that is not in the ledger.';
revoke all on function fleet.explain_absence(public.schedules, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.explain_not_due(p_schedule public.schedules, p_at timestamptz, p_nearest jsonb)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object('nearest', p_nearest) || case
    when p_schedule.start_time > p_at and p_nearest ->> 'before' is null then fleet.answer(
      'before start', 'it had not begun',
      coalesce(format('its first instant is %s', p_nearest ->> 'after_local'), 'it has no due instant at all')
    )
    when p_nearest ->> 'after' is null and p_nearest ->> 'before' is not null then fleet.answer(
      'ended', 'no due instant is left', format('its last instant was %s', p_nearest ->> 'before_local')
    )
    else fleet.answer('not due', 'not due at that instant', concat_ws(
      '; ', 'due before: ' || (p_nearest ->> 'before_local'), 'due after: ' || (p_nearest ->> 'after_local')
    ))
  end
$$;

comment on function fleet.explain_not_due(public.schedules, timestamptz, jsonb) is
  'The answer for an instant that the recurrence does not have: before the first, after the last, or between two.';
revoke all on function fleet.explain_not_due(public.schedules, timestamptz, jsonb)
  from public, anon, authenticated, service_role;

create or replace function fleet.explain_future(p_schedule public.schedules, p_at timestamptz, p_zones text[])
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_coming record;
begin
  if p_schedule.status = 'cancelled' then
    return fleet.answer('cancelled', coalesce(p_schedule.status_reason, 'the schedule was cancelled'), 'it will not run again');
  elsif p_schedule.status = 'completed' then
    return fleet.answer(
      case p_schedule.status_reason when 'max_runs reached' then 'max runs' else 'ended' end,
      coalesce(p_schedule.status_reason, 'the schedule is completed'), 'it will not run again'
    );
  end if;

  -- Where runs are limited in number, those before it count.
  select c.would, c.reason, c.starts_at, c.zones into v_coming
  from fleet.coming_runs(p_schedule, p_at, p_at + interval '1 microsecond', 1) as c;
  if not found then
    return fleet.answer('max runs', 'max_runs reached', format(
      'it may run %s times and has run %s times; the rest will be used up before', p_schedule.policies ->> 'max_runs',
      p_schedule.execution_count
    ));
  elsif v_coming.would = 'skip' then
    return fleet.answer(
      fleet.verdict_of_reason(v_coming.reason), v_coming.reason,
      concat_ws('; ', 'it will be skipped unless that changes', case v_coming.reason
        when 'outside the execution window' then fleet.window_text(fleet.effective_policies(p_schedule.policies))
        else fleet.skip_detail(p_schedule, v_coming.reason, v_coming.zones, p_at, p_at)
      end)
    );
  end if;
  return fleet.answer('not yet due', 'it is in the future', format(
    'it will run on %s', fleet.local_times(v_coming.starts_at, p_zones)
  ));
end;
$$;

comment on function fleet.explain_future(public.schedules, timestamptz, text[]) is 'The answer for an instant that is yet to come.';
revoke all on function fleet.explain_future(public.schedules, timestamptz, text[])
  from public, anon, authenticated, service_role;

create or replace function fleet.explain_past(
  p_schedule public.schedules,
  p_at timestamptz,
  p_now timestamptz,
  p_zones text[]
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_status text := fleet.status_at(p_schedule, p_at);
  v_days integer := fleet.setting_number('history_days')::integer;
  v_changed timestamptz;
begin
  if p_schedule.next_run_at <= p_at and p_schedule.status in ('active', 'paused') then
    return fleet.explain_overdue(p_schedule, p_at, p_now);
  elsif p_at < p_schedule.created_at then
    return fleet.answer('before start', 'the schedule did not exist yet', format(
      'it was created on %s', fleet.local_times(p_schedule.created_at, p_zones)
    ));
  elsif v_status = 'cancelled' then
    return fleet.answer('cancelled', coalesce(p_schedule.status_reason, 'the schedule was cancelled'), 'it was cancelled before');
  elsif p_schedule.status = 'completed' and p_at > coalesce(p_schedule.last_executed_at, '-infinity') then
    return fleet.answer(
      case p_schedule.status_reason when 'max_runs reached' then 'max runs' else 'ended' end,
      coalesce(p_schedule.status_reason, 'the schedule is completed'),
      format('it was started %s times', p_schedule.execution_count)
    );
  end if;

  v_changed := fleet.times_changed_after(p_schedule, p_at);
  if v_changed is not null then
    return fleet.answer('not due', 'its times have changed since', format(
      'they were changed on %s; by what held before, it was not due or is told under another instant',
      fleet.local_times(v_changed, p_zones)
    ));
  elsif p_at < p_now - make_interval(days => v_days) then
    return fleet.answer('unknown', 'the ledger does not go back that far', format(
      'runs are kept for %s days (setting history_days)', v_days
    ));
  elsif p_schedule.timezone = 'device' then
    return fleet.answer('not due', 'none of its devices was in that time zone', array_to_string(p_zones, ', '));
  end if;
  return fleet.answer('unknown', 'its row is gone from the ledger', 'somebody with the right to has deleted it');
end;
$$;

comment on function fleet.explain_past(public.schedules, timestamptz, timestamptz, text[]) is
  'The answer for a due instant that has passed and is not in the ledger.';
revoke all on function fleet.explain_past(public.schedules, timestamptz, timestamptz, text[])
  from public, anon, authenticated, service_role;

create or replace function fleet.explain_overdue(p_schedule public.schedules, p_at timestamptz, p_now timestamptz)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_decided record;
begin
  if p_schedule.status = 'paused' then
    return fleet.answer('paused', coalesce(p_schedule.status_reason, 'paused'),
      'the schedule is paused; when it goes on, the ledger tells the pause in one row');
  end if;

  select d.status, d.reason into v_decided
  from fleet.decide_due(p_schedule, p_now) as d
  where p_at between d.scheduled_for and coalesce(d.missed_to, d.scheduled_for);
  return fleet.answer('waiting', 'no tick has come by since', concat(
    'the last tick was on ', (select fleet.clock_text(h.last_tick_at, 'UTC') || ' UTC' from fleet.heartbeat as h),
    '; a tick now would ', case v_decided.status when 'skipped' then 'skip it: ' || v_decided.reason else 'run it' end
  ));
end;
$$;

comment on function fleet.explain_overdue(public.schedules, timestamptz, timestamptz) is
  'The answer for what is due but not decided: the schedule is paused, or nothing ticks.';
revoke all on function fleet.explain_overdue(public.schedules, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/35_insight/43_explain_device.sql
-- Why one device ran, or did not.

create or replace function fleet.is_target(p_schedule public.schedules, p_device_id bigint)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select 1
    from fleet.targets(
      p_schedule.owner_id, p_schedule.device_ids, p_schedule.group_ids, p_schedule.selector, p_device_id - 1, 1
    ) as t
    where t.device_id = p_device_id
  )
$$;

comment on function fleet.is_target(public.schedules, bigint) is 'Whether a schedule reaches a device now.';
revoke all on function fleet.is_target(public.schedules, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.explain_device(
  p_schedule public.schedules,
  p_run public.schedule_runs,
  p_device public.devices,
  p_at timestamptz,
  p_answer jsonb,
  p_now timestamptz
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_command public.device_commands;
begin
  select c.* into v_command
  from public.device_commands as c
  where c.run_id = p_run.id and c.device_id = p_device.id
  order by c.step
  limit 1;
  if found then
    return fleet.explain_command(p_schedule, p_run, v_command, p_device, p_now)
      || jsonb_build_object('command', fleet.command_facts(v_command));
  end if;

  -- Decided for the schedule as a whole: it is the same for each device.
  if p_answer ->> 'verdict' = 'not yet due' then
    return fleet.explain_coming_device(p_schedule, p_device, p_at, p_answer);
  elsif p_run.id is null
    or p_run.status = 'cancelled'
    or (p_run.status = 'failed' and p_run.reason = 'error')
    or (p_run.status = 'skipped' and p_run.expanded_at is null)
  then
    return p_answer;
  end if;
  return fleet.explain_left_out(p_schedule, p_run, p_device, p_answer);
end;
$$;

comment on function fleet.explain_device(
  public.schedules, public.schedule_runs, public.devices, timestamptz, jsonb, timestamptz
) is 'The answer for one device: by its command, or why it has none.';
revoke all on function fleet.explain_device(
  public.schedules, public.schedule_runs, public.devices, timestamptz, jsonb, timestamptz
) from public, anon, authenticated, service_role;

create or replace function fleet.explain_left_out(
  p_schedule public.schedules,
  p_run public.schedule_runs,
  p_device public.devices,
  p_answer jsonb
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_zone text := coalesce(p_device.timezone, 'UTC');
  v_zones text[] := array[fleet.reference_zone(p_schedule)];
  v_made_at timestamptz := coalesce(p_run.expanded_at, p_run.started_at, p_run.scheduled_for);
  v_from timestamptz := greatest(p_run.not_before, case
    when not p_schedule.policies ? 'jitter' then v_made_at
    when p_run.trigger = 'schedule' then p_run.scheduled_for
    else p_run.started_at
  end);
  v_busy public.device_commands := fleet.busy_command(p_run, p_device.id);
begin
  if p_device.status = 'retired' then
    return fleet.answer('retired', 'the device is retired', 'it can do nothing until it is re-keyed');
  elsif p_device.created_at > v_made_at then
    return fleet.answer('added later', 'the device was added after the run', format(
      'the run was made on %s, the device on %s', fleet.local_times(v_made_at, v_zones),
      fleet.local_times(p_device.created_at, v_zones)
    ));
  elsif not fleet.is_target(p_schedule, p_device.id) then
    return fleet.answer('not a target', 'the schedule does not reach this device',
      'it is neither named nor in a group nor selected');
  elsif p_run.zones is not null and v_zone <> all (p_run.zones) then
    return fleet.explain_other_zone(p_schedule, p_device, p_run.scheduled_for, p_run.zones);
  elsif p_run.expanded_at is null and coalesce(p_run.expanded_to, 0) < p_device.id then
    return case p_answer ->> 'verdict'
      when 'waiting' then p_answer
      else fleet.answer('waiting', 'its command is not made yet', 'large runs are made in chunks')
    end;
  elsif fleet.device_start(
    fleet.effective_policies(p_schedule.policies), p_schedule.id, p_device.id, v_zone, v_from
  ) is null then
    return fleet.answer('outside window', 'outside the execution window', format(
      'it was %s for the device; the window is %s', fleet.clock_text(v_from, v_zone),
      fleet.window_text(fleet.effective_policies(p_schedule.policies))
    ));
  elsif p_run.skipped > 0 and v_busy.id is not null then
    return fleet.answer('overlap', 'overlap', format(
      'the device was still busy with command %s of run %s, which is %s', v_busy.id, v_busy.run_id, v_busy.status
    ));
  end if;
  -- Every device that was reached has a command, was busy or outside of its window. This one is reached only since then.
  return fleet.answer('not a target', 'the schedule did not reach this device then',
    'its tags, its groups, its time zone or the targets of the schedule have changed since');
end;
$$;

comment on function fleet.explain_left_out(
  public.schedules, public.schedule_runs, public.devices, jsonb
) is 'The answer for a device that has no command of a run that others may have one of.';
revoke all on function fleet.explain_left_out(
  public.schedules, public.schedule_runs, public.devices, jsonb
) from public, anon, authenticated, service_role;

create or replace function fleet.explain_other_zone(
  p_schedule public.schedules,
  p_device public.devices,
  p_at timestamptz,
  p_zones text[]
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_zone text := coalesce(p_device.timezone, 'UTC');
begin
  if p_schedule.after_schedule_id is null and v_zone <> all (coalesce(fleet.zones_due(p_schedule.recurrence, p_at), '{}')) then
    return fleet.answer('not due', 'not due in the time zone of the device', format(
        'the instant is for %s; the device is in %s', array_to_string(p_zones, ', '), v_zone
      ))
      || jsonb_build_object('nearest', fleet.nearest_instants(fleet.compiled_in(p_schedule, v_zone), p_at, array[v_zone]));
  elsif fleet.open_zones(p_schedule, array[v_zone], p_at) = '{}' then
    return fleet.answer('blackout', 'blackout', concat_ws(
      ' in ', fleet.skip_detail(p_schedule, 'blackout', array[v_zone], p_at, p_at), v_zone
    ));
  end if;
  -- It was due there too, but the run is for other zones only: caught up later, each zone has the latest of its own.
  return fleet.answer('missed', 'superseded by a later instant', format(
    'no tick came by in time, and of what was missed in %s only the latest runs (catchup: latest)', v_zone
  ));
end;
$$;

comment on function fleet.explain_other_zone(public.schedules, public.devices, timestamptz, text[]) is
  'The answer for a device in a time zone that the instant is not for, or no longer.';
revoke all on function fleet.explain_other_zone(public.schedules, public.devices, timestamptz, text[])
  from public, anon, authenticated, service_role;

create or replace function fleet.explain_coming_device(
  p_schedule public.schedules,
  p_device public.devices,
  p_at timestamptz,
  p_answer jsonb
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_zone text := coalesce(p_device.timezone, 'UTC');
  v_zones text[] := fleet.zones_due(p_schedule.recurrence, p_at);
  v_policies jsonb := fleet.effective_policies(p_schedule.policies);
  v_start timestamptz := fleet.device_start(
    v_policies, p_schedule.id, p_device.id, v_zone, fleet.opening_of(p_schedule, p_at)
  );
begin
  return case
    when p_device.status = 'retired'
      then fleet.answer('retired', 'the device is retired', 'it can do nothing until it is re-keyed')
    when not fleet.is_target(p_schedule, p_device.id) then fleet.answer(
      'not a target', 'the schedule does not reach this device', 'it is neither named nor in a group nor selected'
    )
    when v_zone <> all (fleet.open_zones(p_schedule, v_zones, p_at)) and v_zones is not null
      then fleet.explain_other_zone(p_schedule, p_device, p_at, v_zones)
    when v_start is null then fleet.answer('outside window', 'outside the execution window', format(
      'it will be %s for the device; the window is %s', fleet.clock_text(p_at, v_zone), fleet.window_text(v_policies)
    ))
    else p_answer || jsonb_build_object('detail', format(
      'the device may start on %s%s', fleet.local_times(v_start, coalesce(v_zones, array[fleet.reference_zone(p_schedule)])),
      case when v_policies ->> 'jitter' is not null then ', its own slot of the jitter' else '' end
    ))
  end;
end;
$$;

comment on function fleet.explain_coming_device(public.schedules, public.devices, timestamptz, jsonb) is
  'The answer for a device and an instant that is yet to come.';
revoke all on function fleet.explain_coming_device(public.schedules, public.devices, timestamptz, jsonb)
  from public, anon, authenticated, service_role;

-- db/sources/35_insight/44_explain_command.sql
-- What became of the command of one device.

create or replace function fleet.command_facts(p_command public.device_commands)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_strip_nulls(jsonb_build_object(
    'id', p_command.id, 'status', p_command.status, 'reason', p_command.reason, 'not_before', p_command.not_before,
    'expires_at', p_command.expires_at, 'waits_for', p_command.waits_for, 'attempt', p_command.attempt,
    'failure_count', p_command.failure_count, 'max_attempts', p_command.max_attempts, 'claimed_at', p_command.claimed_at,
    'lease_expires_at', p_command.lease_expires_at, 'executed_at', p_command.executed_at,
    'error_message', p_command.error_message, 'result', p_command.result
  ))
$$;

comment on function fleet.command_facts(public.device_commands) is 'What an explanation shows of a command.';
revoke all on function fleet.command_facts(public.device_commands) from public, anon, authenticated, service_role;

create or replace function fleet.explain_command(
  p_schedule public.schedules,
  p_run public.schedule_runs,
  p_command public.device_commands,
  p_device public.devices,
  p_now timestamptz
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_zones text[] := array[fleet.reference_zone(p_schedule)];
  v_seen text := coalesce('last seen on ' || fleet.local_times(p_device.last_seen, v_zones), 'never seen');
begin
  return case p_command.status
    when 'completed' then fleet.answer('ran', 'completed', format(
      'completed on %s, at attempt %s', fleet.local_times(p_command.executed_at, v_zones), p_command.attempt
    ))
    when 'failed' then fleet.answer('failed', coalesce(p_command.reason, 'error'), concat_ws('; ',
      p_command.error_message, format('%s of %s attempts failed', p_command.failure_count, p_command.max_attempts)
    ))
    when 'expired' then fleet.answer('expired', coalesce(p_command.reason, 'expired'), format(
      'it was not carried out before %s; the device was %s', fleet.local_times(p_command.expires_at, v_zones), v_seen
    ))
    when 'cancelled' then fleet.answer('cancelled', coalesce(p_command.reason, 'cancelled'), case p_command.reason
      when 'replaced' then 'a later run took its place (overlap: replace)'
    end)
    when 'running' then fleet.answer('running', 'the device has it', format(
      'taken on %s, attempt %s; the device was %s', fleet.local_times(p_command.claimed_at, v_zones), p_command.attempt, v_seen
    ))
    else fleet.explain_waiting(p_schedule, p_run, p_command, v_seen, p_now)
  end;
end;
$$;

comment on function fleet.explain_command(
  public.schedules, public.schedule_runs, public.device_commands, public.devices, timestamptz
) is 'The answer for a device that has a command of the run: its state and why.';
revoke all on function fleet.explain_command(
  public.schedules, public.schedule_runs, public.device_commands, public.devices, timestamptz
) from public, anon, authenticated, service_role;

create or replace function fleet.explain_waiting(
  p_schedule public.schedules,
  p_run public.schedule_runs,
  p_command public.device_commands,
  p_seen text,
  p_now timestamptz
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_policies jsonb := fleet.effective_policies(p_schedule.policies);
  v_start text := fleet.local_times(p_command.not_before, array[fleet.reference_zone(p_schedule)]);
begin
  return case
    when p_command.expires_at <= p_now then fleet.answer(
      'expired', 'expired', 'nobody started it in time; the next tick closes it; the device was ' || p_seen
    )
    when exists (
      select 1 from public.device_commands as w where w.id = p_command.waits_for and w.status in ('pending', 'running')
    ) then fleet.answer('waiting', 'buffered', format(
      'it starts when command %s of an earlier run is final (overlap: buffer_one)', p_command.waits_for
    ))
    when p_command.not_before > p_now then case
      when p_command.failure_count > 0 then fleet.answer('waiting', 'retry', format(
        'attempt %s failed (%s); the next one on %s', p_command.attempt, coalesce(p_command.reason, 'error'), v_start
      ))
      when p_run.not_before > p_now then fleet.explain_delay(p_schedule, p_run)
      when v_policies ->> 'jitter' is not null then fleet.answer('waiting', 'jitter', format(
        'its slot within %s is on %s', v_policies ->> 'jitter', v_start
      ))
      when fleet.waits_for_window(fleet.window_list(v_policies), 'device') then fleet.answer(
        'waiting', 'the execution window is closed', format('it opens for the device on %s', v_start)
      )
      else fleet.answer('waiting', 'not before', format('it starts on %s', v_start))
    end
    else fleet.answer('waiting', 'the device has not asked for it', format(
      'it may until %s; the device was %s',
      fleet.local_times(p_command.expires_at, array[fleet.reference_zone(p_schedule)]), p_seen
    ))
  end;
end;
$$;

comment on function fleet.explain_waiting(
  public.schedules, public.schedule_runs, public.device_commands, text, timestamptz
) is 'The answer for a command that no device has started: what it waits for.';
revoke all on function fleet.explain_waiting(
  public.schedules, public.schedule_runs, public.device_commands, text, timestamptz
) from public, anon, authenticated, service_role;

-- db/sources/35_insight/45_explain_chain.sql
-- Why a schedule did not follow another one.

create or replace function fleet.explain_unfollowed(p_schedule public.schedules, p_at timestamptz)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_run public.schedule_runs := fleet.run_at(p_schedule.after_schedule_id, p_at);
  v_status text := fleet.status_at(p_schedule, coalesce(v_run.finished_at, p_at));
  v_name text := (select s.name from public.schedules as s where s.id = p_schedule.after_schedule_id);
begin
  return case
    when v_run.id is null then fleet.answer('not due', 'it has no instants of its own', format(
      'it runs when a run of "%s" has %s', v_name, fleet.ending_text(p_schedule.after_on)
    ))
    when v_run.status in ('pending', 'running') then fleet.answer(
      'waiting', 'the run before it has not ended', format('run %s of "%s" is still %s', v_run.id, v_name, v_run.status)
    )
    when v_run.status not in ('completed', 'failed') or p_schedule.after_on not in ('either', v_run.status) then fleet.answer(
      'not due', format('the run before it %s', case v_run.status
        when 'completed' then 'completed' when 'failed' then 'failed' else 'was ' || v_run.status
      end),
      format('run %s of "%s"%s; it follows only a run that has %s', v_run.id, v_name, ': ' || v_run.reason,
        fleet.ending_text(p_schedule.after_on))
    )
    when v_run.finished_at < p_schedule.created_at then fleet.answer(
      'before start', 'the schedule did not exist yet', format('run %s of "%s" had ended before', v_run.id, v_name)
    )
    when v_status = 'paused' then fleet.answer('paused', coalesce(p_schedule.status_reason, 'paused'), 'it was paused when it would have followed')
    when v_status = 'cancelled' then fleet.answer('cancelled', coalesce(p_schedule.status_reason, 'the schedule was cancelled'), 'it was cancelled before')
    when v_status = 'completed' then fleet.answer('ended', coalesce(p_schedule.status_reason, 'completed'), 'it had ended before')
    when fleet.times_changed_after(p_schedule, v_run.finished_at) is not null then fleet.answer(
      'not due', 'its times have changed since', 'it did not follow that schedule then, or not that ending'
    )
    else fleet.answer('unknown', 'its row is gone from the ledger', 'somebody with the right to has deleted it')
  end;
end;
$$;

comment on function fleet.explain_unfollowed(public.schedules, timestamptz) is
  'The answer for a schedule that follows another one and has no run for that instant.';
revoke all on function fleet.explain_unfollowed(public.schedules, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.ending_text(p_after_on text)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case p_after_on when 'either' then 'completed or failed' else p_after_on end
$$;

comment on function fleet.ending_text(text) is 'How a run must end for another to follow, in words.';
revoke all on function fleet.ending_text(text) from public, anon, authenticated, service_role;

-- db/sources/35_insight/50_describe.sql
-- A schedule in plain English.

create or replace function fleet.describe_schedule(p_schedule_id bigint, p_now timestamptz)
returns text
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select fleet.describe_row(fleet.schedule_in_view(p_schedule_id), p_now)
$$;

comment on function fleet.describe_schedule(bigint, timestamptz) is 'See public.describe_schedule. Definer: it checks the caller.';
revoke all on function fleet.describe_schedule(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.describe_schedule(bigint, timestamptz) to authenticated, service_role;

create or replace function public.describe_schedule(p_schedule_id bigint, p_now timestamptz default now())
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.describe_schedule(p_schedule_id, p_now)
$$;

comment on function public.describe_schedule(bigint, timestamptz) is
  'A schedule in plain English: what goes to whom and when, each policy that is not the usual one, and how it stands. Raises '
  'schedule_not_found (PT404).';
revoke all on function public.describe_schedule(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.describe_schedule(bigint, timestamptz) to authenticated, service_role;

create or replace function fleet.describe_row(p_schedule public.schedules, p_now timestamptz)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select concat_ws(' ',
    format('"%s" sends %s to %s (%s now) %s.', p_schedule.name, p_schedule.action_type, fleet.describe_targets(p_schedule),
      (
        select case n.devices when 1 then '1 device' else n.devices || ' devices' end
        from (select fleet.devices_of_zones(fleet.device_counts(p_schedule), null) as devices) as n
      ),
      fleet.describe_when(p_schedule, p_now)),
    fleet.describe_policies(p_schedule),
    fleet.describe_state(p_schedule)
  )
$$;

comment on function fleet.describe_row(public.schedules, timestamptz) is 'See public.describe_schedule.';
revoke all on function fleet.describe_row(public.schedules, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.describe_when(p_schedule public.schedules, p_now timestamptz)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_schedule.after_schedule_id is not null then format('each time a run of "%s" has %s', (
      select s.name from public.schedules as s where s.id = p_schedule.after_schedule_id
    ), fleet.ending_text(p_schedule.after_on))
    when p_schedule.timezone = 'device' then replace(
      fleet.describe_recurrence(p_schedule.recurrence #> '{members,0}'),
      format(' (%s)', p_schedule.recurrence #>> '{members,0,timezone}'),
      ' in each device''s own time'
    )
    else fleet.describe_recurrence(p_schedule.recurrence)
  end || case
    when p_schedule.recurrence_type not in ('once', 'interval') and p_schedule.start_time > p_now
      and p_schedule.after_schedule_id is null
      then ', from ' || fleet.clock_text(p_schedule.start_time, fleet.reference_zone(p_schedule)) || ' on'
    else ''
  end
$$;

comment on function fleet.describe_when(public.schedules, timestamptz) is 'When a schedule runs: its recurrence, or what it follows.';
revoke all on function fleet.describe_when(public.schedules, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.describe_targets(p_schedule public.schedules)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.english_list(array_remove(array[
      case
        when cardinality(p_schedule.device_ids) > 3 then cardinality(p_schedule.device_ids) || ' named devices'
        when p_schedule.device_ids <> '{}' then (
          select case count(*) when 1 then 'device ' else 'devices ' end
            || coalesce(fleet.english_list(array_agg(format('"%s"', d.hostname) order by d.hostname)), 'that are gone')
          from public.devices as d
          where d.id = any (p_schedule.device_ids) and d.owner_id = p_schedule.owner_id
        )
      end,
      case
        when p_schedule.group_ids <> '{}' then (
          select case count(*) when 1 then 'group ' else 'groups ' end
            || coalesce(fleet.english_list(array_agg(format('"%s"', g.name) order by g.name)), 'that are gone')
          from public.device_groups as g
          where g.id = any (p_schedule.group_ids) and g.owner_id = p_schedule.owner_id
        )
      end,
      fleet.describe_selector(p_schedule.selector)
    ], null))
$$;

comment on function fleet.describe_targets(public.schedules) is 'Whom a schedule reaches, by name where they are few.';
revoke all on function fleet.describe_targets(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.describe_selector(p_selector jsonb)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_selector is null then null
    when p_selector = '{}' then 'every device'
    else 'every device with ' || fleet.english_list(array_agg(
      case e.key
        when 'tags' then 'the tags ' || v.list
        when 'any_tags' then 'one of the tags ' || v.list
        when 'platform' then 'platform ' || v.list
        else e.key || ' ' || e.value::text
      end order by e.key
    ))
  end
  from jsonb_each(coalesce(p_selector, '{}')) as e
  cross join lateral (
    select string_agg(i.text, ', ') as list
    from jsonb_array_elements_text(
      case jsonb_typeof(e.value) when 'array' then e.value else jsonb_build_array(e.value) end
    ) as i(text)
  ) as v
$$;

comment on function fleet.describe_selector(jsonb) is 'A selector in words; null where there is none.';
revoke all on function fleet.describe_selector(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.describe_state(p_schedule public.schedules)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_schedule.status <> 'active' then format('It is %s%s.', p_schedule.status, ': ' || p_schedule.status_reason)
    when p_schedule.next_run_at is not null then format('Next due: %s.', fleet.local_times(
      p_schedule.next_run_at,
      coalesce(fleet.zones_due(p_schedule.recurrence, p_schedule.next_run_at), array[fleet.reference_zone(p_schedule)])
    ))
  end
$$;

comment on function fleet.describe_state(public.schedules) is 'How a schedule stands: why it rests, or when it runs next.';
revoke all on function fleet.describe_state(public.schedules) from public, anon, authenticated, service_role;

-- db/sources/35_insight/51_describe_policies.sql
-- Policies in plain English: only those that are not the usual ones.

create or replace function fleet.describe_policies(p_schedule public.schedules)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select string_agg(s.sentence, ' ' order by s.place, s.sentence)
  from (
    select d.place, fleet.describe_policy(p_schedule, d.key, fleet.effective_policies(p_schedule.policies)) as sentence
    from (
      values
        (1, 'execution_window'), (2, 'blackouts'), (3, 'jitter'), (4, 'overlap'), (5, 'catchup'), (6, 'expires_after'),
        (7, 'retry'), (8, 'max_runs'), (9, 'pause_on_failure')
    ) as d(place, key)
    where exists (
      select 1
      from jsonb_each(p_schedule.policies) as e
      where (e.key = d.key or (d.key = 'catchup' and e.key like 'catchup\_%') or (d.key = 'overlap' and e.key = 'max_concurrent'))
        and e.value is distinct from fleet.default_policies() -> e.key
    )
    union all
    select 10, format('Its priority is %s.', p_schedule.priority)
    where p_schedule.priority <> 0
  ) as s
$$;

comment on function fleet.describe_policies(public.schedules) is
  'A sentence for each policy that differs from the default; null where none does. gap and fold are told with the recurrence.';
revoke all on function fleet.describe_policies(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.describe_policy(p_schedule public.schedules, p_key text, p_policies jsonb)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case p_key
    when 'execution_window' then format('It runs only from %s; outside of that it %s.', fleet.window_text(p_policies), case
      when p_policies -> 'execution_window' @> '{"outside": "wait"}' or p_policies -> 'execution_window' @> '[{"outside": "wait"}]'
        then 'waits'
      else 'is skipped'
    end)
    when 'blackouts' then format('It does not run during %s.', (
      select fleet.english_list(array_agg(format('"%s"', c.name) order by c.name))
      from public.blackout_calendars as c
      where c.id = any (fleet.blackout_ids(p_policies)) and c.owner_id = p_schedule.owner_id
    ))
    when 'jitter' then format('Each device has a slot of its own within %s.', p_policies ->> 'jitter')
    when 'overlap' then case p_policies ->> 'overlap'
      when 'buffer_one' then 'A device that is still busy with a run gets the next one when it is through; one at most waits.'
      when 'allow' then format('A device may have up to %s runs of it at once.', p_policies ->> 'max_concurrent')
      when 'replace' then 'A new run cancels what a device has not finished of the one before.'
    end
    when 'catchup' then case p_policies ->> 'catchup'
      when 'none' then 'What was missed is not caught up.'
      when 'all' then format('Of what was missed, the last %s instants within %s are caught up%s.', p_policies ->> 'catchup_limit',
        p_policies ->> 'catchup_window', ', at most ' || (p_policies ->> 'catchup_rate') || ' a minute')
      else format('Of what was missed within %s, only the latest is caught up.', p_policies ->> 'catchup_window')
    end
    when 'expires_after' then format('What a device has not started within %s expires.', p_policies ->> 'expires_after')
    when 'retry' then format('What fails is tried %s times in all%s.', p_policies #>> '{retry,attempts}',
      ', first after ' || (p_policies #>> '{retry,backoff}'))
    when 'max_runs' then format('It ends after %s runs; %s were started so far.', p_policies ->> 'max_runs', p_schedule.execution_count)
    when 'pause_on_failure' then format('It is paused when %s runs in a row have failed.', p_policies ->> 'pause_on_failure')
  end
$$;

comment on function fleet.describe_policy(public.schedules, text, jsonb) is 'One of the effective policies as a sentence.';
revoke all on function fleet.describe_policy(public.schedules, text, jsonb) from public, anon, authenticated, service_role;

-- db/sources/35_insight/60_conflicts.sql
-- Conflicts: other schedules that touch the same devices at the same time.

create or replace function fleet.conflicts_among(
  p_schedules public.schedules[],
  p_schedule_id bigint,
  p_from timestamptz,
  p_to timestamptz,
  p_within interval,
  p_instants integer
)
returns table (
  schedule_id bigint,
  other_schedule_id bigint,
  times bigint,
  devices bigint,
  first_at timestamptz,
  other_first_at timestamptz,
  example_times timestamptz[],
  example_hostnames text[]
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with schedule as materialized (
    select s.id, s, dense_rank() over (order by s.owner_id, s.device_ids, s.group_ids, s.selector) as set_id
    from unnest(p_schedules) as s
  ),
  instant as materialized (
    select s.id, s.set_id, c.starts_at as at, c.zones,
      floor(extract(epoch from c.starts_at) / greatest(extract(epoch from p_within), 1))::bigint as slot
    from schedule as s
    cross join lateral fleet.coming_runs(s.s, p_from, p_to, p_instants) as c
    where c.would = 'run'
  ),
  -- What is near is in the same slot or in the next one on either side.
  meeting as materialized (
    select a.id as a_id, b.id as b_id, a.set_id as a_set, b.set_id as b_set, a.zones as a_zones, b.zones as b_zones, count(*) as times,
      min(a.at) as a_first, min(b.at) as b_first, (array_agg(distinct a.at))[1:3] as examples
    from instant as a
    cross join lateral (values (a.slot - 1), (a.slot), (a.slot + 1)) as n(slot)
    join instant as b on b.slot = n.slot
    where b.at between a.at - p_within and a.at + p_within
      and ((p_schedule_id is null and a.id < b.id) or (a.id = p_schedule_id and b.id <> p_schedule_id))
    group by a.id, b.id, a.set_id, b.set_id, a.zones, b.zones
  ),
  -- Schedules for the same targets are the rule; each set of them is looked up once.
  reached as materialized (
    select l.set_id, t.device_id, t.hostname, coalesce(t.timezone, 'UTC') as zone
    from (
      select distinct on (s.set_id) s.set_id, s.s
      from schedule as s
      where s.set_id in (select m.a_set from meeting as m union select m.b_set from meeting as m)
      order by s.set_id
    ) as l
    cross join lateral fleet.targets((l.s).owner_id, (l.s).device_ids, (l.s).group_ids, (l.s).selector) as t
  ),
  shared as materialized (
    select a.set_id as a_set, b.set_id as b_set, a.zone, count(*) as devices,
      (array_agg(a.hostname order by a.device_id))[1:3] as hostnames
    from reached as a
    join reached as b on b.device_id = a.device_id
    where (a.set_id, b.set_id) in (select m.a_set, m.b_set from meeting as m)
    group by a.set_id, b.set_id, a.zone
  ),
  -- In device time an instant reaches the devices of some zones only.
  touched as (
    select m.*, s.zone, s.devices, s.hostnames,
      row_number() over (partition by m.a_id, m.b_id, m.a_zones, m.b_zones order by s.zone) = 1 as is_first_zone,
      row_number() over (partition by m.a_id, m.b_id, s.zone) = 1 as is_first_meeting
    from meeting as m
    join shared as s on s.a_set = m.a_set and s.b_set = m.b_set
    where (m.a_zones is null or s.zone = any (m.a_zones))
      and (m.b_zones is null or s.zone = any (m.b_zones))
  )
  select t.a_id, t.b_id, (sum(t.times) filter (where t.is_first_zone))::bigint,
    (sum(t.devices) filter (where t.is_first_meeting))::bigint,
    min(t.a_first), min(t.b_first), min(t.examples), min(t.hostnames)
  from touched as t
  group by t.a_id, t.b_id
$$;

comment on function fleet.conflicts_among(public.schedules[], bigint, timestamptz, timestamptz, interval, integer) is
  'Which of these schedules, all of them or one with the others, start within p_within of each other on the same devices; at most '
  'p_instants of each are looked at.';
revoke all on function fleet.conflicts_among(public.schedules[], bigint, timestamptz, timestamptz, interval, integer)
  from public, anon, authenticated, service_role;

create or replace function fleet.schedule_conflicts(
  p_schedule_id bigint,
  p_from timestamptz,
  p_to timestamptz,
  p_within interval
)
returns table (
  schedule_id bigint,
  schedule text,
  other_schedule_id bigint,
  other_schedule text,
  times bigint,
  devices bigint,
  first_at timestamptz,
  other_first_at timestamptz,
  example_times timestamptz[],
  example_hostnames text[]
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Enough to see what collides, and an end to it: a schedule of each second collides with everything.
  c_schedules constant integer := 300;
  c_instants constant integer := 100;
  v_owners uuid[];
  v_schedules public.schedules[];
begin
  perform fleet.require_span(p_from, p_to, '1 year');
  if p_within is null or p_within < interval '0' or p_within > interval '1 day' then
    raise exception 'p_within: % is not a duration up to a day', coalesce(p_within::text, 'null')
      using errcode = 'PT422', detail = 'argument_invalid', hint = 'Example: "5 minutes"; "0" for the very same instant.';
  end if;
  v_owners := case
    when p_schedule_id is null then fleet.owners_in_view()
    else array[(fleet.schedule_in_view(p_schedule_id)).owner_id]
  end;

  select array_agg(n.s) into v_schedules
  from (
    select s
    from public.schedules as s
    where s.status = 'active' and s.next_run_at < p_to and s.owner_id = any (v_owners)
    order by s.id is distinct from p_schedule_id, s.next_run_at
    limit c_schedules
  ) as n;

  return query
  select c.schedule_id, a.name, c.other_schedule_id, b.name, c.times, c.devices, c.first_at, c.other_first_at,
    c.example_times, c.example_hostnames
  from fleet.conflicts_among(v_schedules, p_schedule_id, p_from, p_to, p_within, c_instants) as c
  join public.schedules as a on a.id = c.schedule_id
  join public.schedules as b on b.id = c.other_schedule_id
  order by c.devices desc, c.times desc, c.schedule_id, c.other_schedule_id;
end;
$$;

comment on function fleet.schedule_conflicts(bigint, timestamptz, timestamptz, interval) is
  'See public.schedule_conflicts. Definer: it looks only at what the caller may see.';
revoke all on function fleet.schedule_conflicts(bigint, timestamptz, timestamptz, interval)
  from public, anon, authenticated, service_role;
grant execute on function fleet.schedule_conflicts(bigint, timestamptz, timestamptz, interval) to authenticated, service_role;

create or replace function public.schedule_conflicts(
  p_schedule_id bigint default null,
  p_from timestamptz default now(),
  p_to timestamptz default now() + interval '7 days',
  p_within interval default '0'
)
returns table (
  schedule_id bigint,
  schedule text,
  other_schedule_id bigint,
  other_schedule text,
  times bigint,
  devices bigint,
  first_at timestamptz,
  other_first_at timestamptz,
  example_times timestamptz[],
  example_hostnames text[]
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select * from fleet.schedule_conflicts(p_schedule_id, p_from, p_to, p_within)
$$;

comment on function public.schedule_conflicts(bigint, timestamptz, timestamptz, interval) is
  'Pairs of active schedules that start on the same devices within p_within of each other, the most devices first: how often, on how '
  'many devices, with examples. Of one schedule with all others, or of all. Looks at the 300 schedules that are due soonest and at 100 '
  'runs of each. Raises schedule_not_found (PT404).';
revoke all on function public.schedule_conflicts(bigint, timestamptz, timestamptz, interval)
  from public, anon, authenticated, service_role;
grant execute on function public.schedule_conflicts(bigint, timestamptz, timestamptz, interval)
  to authenticated, service_role;

-- db/sources/35_insight/70_simulate.sql
-- Simulation: what the whole fleet would do between two instants. Nothing is written.

create or replace function fleet.span_of_rows(p_schedules public.schedules[], p_from timestamptz, p_to timestamptz, p_limit integer)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_span interval := (p_to - p_from) / 1024;
  v_count bigint;
  v_to timestamptz;
begin
  if cardinality(p_schedules) >= p_limit then
    -- They are those that are due soonest: each has a row until the first instant of the last of them.
    select max(case
      when s.next_run_at >= p_from then s.next_run_at
      else coalesce(fleet.next_due(s.recurrence, p_from - interval '1 microsecond'), p_from)
    end) into v_to
    from unnest(p_schedules) as s;
    return least(v_to + interval '1 microsecond', p_to);
  end if;

  -- From the beginning in growing steps: what lies behind the last row that is wanted is not looked at.
  while p_from + v_span < p_to loop
    select sum(fleet.count_due(s.recurrence, p_from, p_from + v_span)) into v_count
    from unnest(p_schedules) as s;
    exit when v_count >= p_limit;
    v_span := v_span * 2;
  end loop;
  return least(p_from + v_span, p_to);
end;
$$;

comment on function fleet.span_of_rows(public.schedules[], timestamptz, timestamptz, integer) is
  'Until when to look so that these schedules have at least p_limit due instants, or p_to where they have not.';
revoke all on function fleet.span_of_rows(public.schedules[], timestamptz, timestamptz, integer)
  from public, anon, authenticated, service_role;

create or replace function fleet.schedules_due_within(p_owners uuid[], p_from timestamptz, p_to timestamptz, p_limit integer)
returns public.schedules[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(n.s), '{}')
  from (
    select s
    from public.schedules as s
    cross join lateral (
      select case when s.next_run_at >= p_from then s.next_run_at else fleet.next_due(s.recurrence, p_from - interval '1 microsecond') end as at
    ) as f
    where s.owner_id = any (p_owners)
      and s.status in ('active', 'paused')
      and s.next_run_at < p_to
      -- What is overdue has something to tell even where nothing more comes.
      and (f.at < p_to or s.next_run_at < p_from)
    order by f.at
    limit p_limit
  ) as n
$$;

comment on function fleet.schedules_due_within(uuid[], timestamptz, timestamptz, integer) is
  'The schedules of these owners that are due soonest within [p_from, p_to). Each has a row at its first instant at least, so more '
  'schedules than rows are never needed.';
revoke all on function fleet.schedules_due_within(uuid[], timestamptz, timestamptz, integer)
  from public, anon, authenticated, service_role;

create or replace function fleet.simulate_fleet(
  p_from timestamptz,
  p_to timestamptz,
  p_limit integer,
  p_now timestamptz
)
returns table (
  due_at timestamptz,
  schedule_id bigint,
  name text,
  action_type text,
  would text,
  reason text,
  starts_at timestamptz,
  devices bigint
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_limit integer := fleet.whole_number_between('p_limit', p_limit, 1, 10000);
  v_owners uuid[] := fleet.owners_in_view();
  v_schedules public.schedules[];
  v_to timestamptz;
begin
  perform fleet.require_span(p_from, p_to, '1 year');
  v_schedules := fleet.schedules_due_within(v_owners, p_from, p_to, v_limit);
  v_to := fleet.span_of_rows(v_schedules, p_from, p_to, v_limit);

  return query
  with recursive own as (
    select s.id, s.owner_id, s.name, s.action_type, c.due_at, c.starts_at, c.would,
      concat_ws(': ', c.reason, fleet.skip_detail(s, c.reason, c.zones, c.due_at, c.starts_at)) as reason,
      fleet.devices_of_zones(d.counts, c.zones) as devices
    from unnest(v_schedules) as s
    cross join lateral fleet.device_counts(s) as d(counts)
    cross join lateral fleet.coming_runs(s, p_from, v_to, v_limit, p_from <= p_now) as c
  ),
  -- What follows another schedule does so at an instant that nobody knows yet, but not before.
  follower as (
    select o.id, o.owner_id, o.name, o.action_type, o.due_at, o.starts_at, o.would, o.reason, o.devices, 0 as depth
    from own as o
    union all
    select s.id, s.owner_id, s.name, s.action_type, f.due_at, f.starts_at, 'follow',
      format('when the run of "%s" has %s', f.name, fleet.ending_text(s.after_on)),
      fleet.devices_of_zones(fleet.device_counts(s), null), f.depth + 1
    from follower as f
    join public.schedules as s on s.after_schedule_id = f.id and s.owner_id = f.owner_id
    where s.status = 'active' and f.would <> 'skip' and f.depth < 20
  )
  select f.due_at, f.id, f.name, f.action_type, f.would, nullif(f.reason, ''),
    case when f.would <> 'skip' then f.starts_at end, f.devices
  from follower as f
  order by f.due_at, f.depth, f.id
  limit v_limit;
end;
$$;

comment on function fleet.simulate_fleet(timestamptz, timestamptz, integer, timestamptz) is
  'See public.simulate_fleet. Definer: it looks only at what the caller may see.';
revoke all on function fleet.simulate_fleet(timestamptz, timestamptz, integer, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.simulate_fleet(timestamptz, timestamptz, integer, timestamptz) to authenticated, service_role;

create or replace function public.simulate_fleet(
  p_from timestamptz default now(),
  p_to timestamptz default now() + interval '1 day',
  p_limit integer default 1000,
  p_now timestamptz default clock_timestamp()
)
returns table (
  due_at timestamptz,
  schedule_id bigint,
  name text,
  action_type text,
  would text,
  reason text,
  starts_at timestamptz,
  devices bigint
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select * from fleet.simulate_fleet(p_from, p_to, p_limit, p_now)
$$;

comment on function public.simulate_fleet(timestamptz, timestamptz, integer, timestamptz) is
  'What all of the caller''s schedules would do within [p_from, p_to), in the order of time, at most p_limit rows: run, skip with its '
  'reason, or follow another one. The engine''s own decisions, with today''s devices; nothing is written. Overlap cannot be known: nobody '
  'knows how long devices will take.';
revoke all on function public.simulate_fleet(timestamptz, timestamptz, integer, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function public.simulate_fleet(timestamptz, timestamptz, integer, timestamptz)
  to authenticated, service_role;

-- db/sources/35_insight/80_calendar.sql
-- Days: how many runs of which schedule fall on which day.

create or replace function fleet.counted_days(
  p_schedule public.schedules,
  p_from date,
  p_to date,
  p_timezone text,
  p_now timestamptz
)
returns table (day date, would text, runs bigint, first_at timestamptz)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  -- A schedule whose instants must be judged one by one is looked at so far.
  c_most constant integer := 5000;
  -- So many are listed in one go; more are counted day by day.
  c_few constant integer := 1000;
  v_day date;
  v_from timestamptz;
  v_to timestamptz;
begin
  if p_schedule.status = 'paused' or p_schedule.policies ?| '{execution_window,blackouts,max_runs}' then
    return query
    select (c.due_at at time zone p_timezone)::date, c.would, sum(coalesce(c.missed_count, 1))::bigint, min(c.due_at)
    from fleet.coming_runs(
      p_schedule, greatest(fleet.local_to_instant(p_from, p_timezone), p_now), fleet.local_to_instant(p_to, p_timezone), c_most
    ) as c
    group by 1, 2;
    return;
  end if;

  v_from := greatest(fleet.local_to_instant(p_from, p_timezone), p_now);
  v_to := fleet.local_to_instant(p_to, p_timezone);
  if fleet.count_due(p_schedule.recurrence, v_from, v_to) <= c_few then
    return query
    select (i.due_at at time zone p_timezone)::date, 'run', count(*), min(i.due_at)
    from fleet.due_instants(p_schedule.recurrence, v_from, v_to) as i(due_at)
    group by 1;
    return;
  end if;

  for v_day in select g::date from generate_series(p_from, p_to - 1, interval '1 day') as g loop
    v_from := greatest(fleet.local_to_instant(v_day, p_timezone), p_now);
    v_to := fleet.local_to_instant(v_day + 1, p_timezone);
    continue when v_to <= v_from;
    day := v_day;
    would := 'run';
    runs := fleet.count_due(p_schedule.recurrence, v_from, v_to);
    if runs > 0 then
      first_at := fleet.next_due(p_schedule.recurrence, v_from - interval '1 microsecond');
      return next;
    end if;
  end loop;
end;
$$;

comment on function fleet.counted_days(public.schedules, date, date, text, timestamptz) is
  'How many instants of a schedule are yet to come on each day, to run or to be skipped.';
revoke all on function fleet.counted_days(public.schedules, date, date, text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.schedule_calendar(
  p_from date,
  p_to date,
  p_timezone text,
  p_now timestamptz
)
returns table (
  day date,
  schedule_id bigint,
  name text,
  action_type text,
  coming bigint,
  skipping bigint,
  completed bigint,
  failed bigint,
  skipped bigint,
  running bigint,
  first_at timestamptz,
  first_local text
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  c_schedules constant integer := 2000;
  v_owners uuid[] := fleet.owners_in_view();
begin
  if p_from is null or p_to is null or p_to <= p_from or p_to > p_from + 366 then
    raise exception 'from % to % is not a span of 1 to 366 days', coalesce(p_from::text, 'null'), coalesce(p_to::text, 'null')
      using errcode = 'PT422', detail = 'span_invalid', hint = 'p_to is the day after the last.';
  elsif not fleet.is_time_zone(p_timezone) then
    raise exception 'timezone: "%" is not a known time zone', p_timezone
      using errcode = 'PT422', detail = 'timezone_invalid', hint = 'Use an IANA name such as Europe/Berlin.';
  end if;

  return query
  with told as (
    select (r.scheduled_for at time zone p_timezone)::date as day, r.schedule_id,
      case when r.status in ('pending', 'running') then 'running' when r.status = 'cancelled' then 'skipped' else r.status end as state,
      sum(coalesce(r.missed_count, 1))::bigint as runs, min(r.scheduled_for) as first_at
    from public.schedule_runs as r
    where r.owner_id = any (v_owners)
      and r.scheduled_for >= fleet.local_to_instant(p_from, p_timezone)
      and r.scheduled_for < fleet.local_to_instant(p_to, p_timezone)
    group by 1, 2, 3
  ),
  expected as (
    select c.day, s.id, case c.would when 'run' then 'coming' else 'skipping' end, c.runs, c.first_at
    from (
      select x.*
      from public.schedules as x
      where x.owner_id = any (v_owners)
        and x.status in ('active', 'paused')
        and x.next_run_at < fleet.local_to_instant(p_to, p_timezone)
      order by x.next_run_at
      limit c_schedules
    ) as s
    cross join lateral fleet.counted_days(s, p_from, p_to, p_timezone, p_now) as c
  ),
  known as (
    select t.* from told as t
    union all
    select e.* from expected as e
  )
  select c.day, s.id, s.name, s.action_type, c.coming, c.skipping, c.completed, c.failed, c.skipped, c.running, c.first_at,
    fleet.clock_text(c.first_at, p_timezone)
  from (
    select k.day, k.schedule_id,
      coalesce(sum(k.runs) filter (where k.state = 'coming'), 0)::bigint as coming,
      coalesce(sum(k.runs) filter (where k.state = 'skipping'), 0)::bigint as skipping,
      coalesce(sum(k.runs) filter (where k.state = 'completed'), 0)::bigint as completed,
      coalesce(sum(k.runs) filter (where k.state = 'failed'), 0)::bigint as failed,
      coalesce(sum(k.runs) filter (where k.state = 'skipped'), 0)::bigint as skipped,
      coalesce(sum(k.runs) filter (where k.state = 'running'), 0)::bigint as running,
      -- The first that runs, if any does.
      coalesce(min(k.first_at) filter (where k.state not in ('skipping', 'skipped')), min(k.first_at)) as first_at
    from known as k
    group by k.day, k.schedule_id
  ) as c
  join public.schedules as s on s.id = c.schedule_id
  order by c.day, c.first_at, s.id;
end;
$$;

comment on function fleet.schedule_calendar(date, date, text, timestamptz) is
  'See public.schedule_calendar. Definer: it looks only at what the caller may see.';
revoke all on function fleet.schedule_calendar(date, date, text, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.schedule_calendar(date, date, text, timestamptz) to authenticated, service_role;

create or replace function public.schedule_calendar(
  p_from date,
  p_to date,
  p_timezone text default 'UTC',
  p_now timestamptz default clock_timestamp()
)
returns table (
  day date,
  schedule_id bigint,
  name text,
  action_type text,
  coming bigint,
  skipping bigint,
  completed bigint,
  failed bigint,
  skipped bigint,
  running bigint,
  first_at timestamptz,
  first_local text
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select * from fleet.schedule_calendar(p_from, p_to, p_timezone, p_now)
$$;

comment on function public.schedule_calendar(date, date, text, timestamptz) is
  'Which schedules run on which days, from p_from to before p_to, as the days are in p_timezone: what the ledger tells of the past '
  '(completed, failed, skipped, running), what is coming, and what will be skipped (skipping). Looks at the 2000 '
  'schedules that are due soonest. Raises span_invalid or timezone_invalid '
  '(PT422).';
revoke all on function public.schedule_calendar(date, date, text, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function public.schedule_calendar(date, date, text, timestamptz) to authenticated, service_role;

-- db/sources/35_insight/90_ics_text.sql
-- iCalendar (RFC 5545) as text: escaping, folding, properties.

create or replace function fleet.ics_escaped(p_text text)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select regexp_replace(
    replace(replace(replace(replace(
      regexp_replace(p_text, E'\r\n?', E'\n', 'g'),
      '\', '\\'), ';', '\;'), ',', '\,'), E'\n', '\n'),
    '[\x01-\x08\x0b-\x1f\x7f]', '', 'g'
  )
$$;

comment on function fleet.ics_escaped(text) is 'Text as the value of a property: escaped, without control characters.';
revoke all on function fleet.ics_escaped(text) from public, anon, authenticated, service_role;

create or replace function fleet.ics_line(p_line text)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rest text := p_line;
  v_folded text := '';
  v_part text;
begin
  -- 75 octets a line, the space that continues it included; a character is never cut in two.
  while octet_length(v_rest) > case v_folded when '' then 75 else 74 end loop
    v_part := left(v_rest, case v_folded when '' then 75 else 74 end);
    while octet_length(v_part) > case v_folded when '' then 75 else 74 end loop
      v_part := left(v_part, -1);
    end loop;
    v_rest := substr(v_rest, length(v_part) + 1);
    v_folded := v_folded || v_part || E'\r\n ';
  end loop;
  return v_folded || v_rest || E'\r\n';
end;
$$;

comment on function fleet.ics_line(text) is 'A content line, folded at 75 octets, with its end.';
revoke all on function fleet.ics_line(text) from public, anon, authenticated, service_role;

create or replace function fleet.ics_instant(p_instant timestamptz)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select to_char(p_instant at time zone 'UTC', 'YYYYMMDD"T"HH24MISS"Z"')
$$;

comment on function fleet.ics_instant(timestamptz) is 'An instant as iCalendar writes it, in UTC and whole seconds.';
revoke all on function fleet.ics_instant(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.ics_uid(p_schedule public.schedules, p_due_at timestamptz)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select format(
    'schedule-%s-%s@%s.pgfleet', p_schedule.id, to_char(p_due_at at time zone 'UTC', 'YYYYMMDD"T"HH24MISSUS"Z"'), p_schedule.owner_id
  )
$$;

comment on function fleet.ics_uid(public.schedules, timestamptz) is
  'The same for the same due instant of the same schedule, whenever it is asked for: calendars update the event instead of adding one.';
revoke all on function fleet.ics_uid(public.schedules, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.ics_head(p_name text, p_note text)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select string_agg(fleet.ics_line(l.line), '' order by l.place)
  from (
    values
      (1, 'BEGIN:VCALENDAR'),
      (2, 'VERSION:2.0'),
      (3, 'PRODID:-//pgfleet//Schedules//EN'),
      (4, 'CALSCALE:GREGORIAN'),
      (5, 'METHOD:PUBLISH'),
      (6, 'NAME:' || fleet.ics_escaped(p_name)),
      (7, 'X-WR-CALNAME:' || fleet.ics_escaped(p_name)),
      (8, 'X-WR-TIMEZONE:UTC'),
      (9, 'REFRESH-INTERVAL;VALUE=DURATION:PT1H'),
      (10, 'X-PUBLISHED-TTL:PT1H'),
      (11, 'X-WR-CALDESC:' || fleet.ics_escaped(p_note))
  ) as l(place, line)
  where l.line is not null
$$;

comment on function fleet.ics_head(text, text) is 'The beginning of a calendar, with its name and, where there is one, a note.';
revoke all on function fleet.ics_head(text, text) from public, anon, authenticated, service_role;

-- db/sources/35_insight/91_ics.sql
-- The coming runs as a calendar that Google Calendar, Apple Calendar and Outlook import.

create or replace function fleet.require_calendar_filter(p_filter jsonb)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_fields text[];
  v_problems text[];
  v_hints text[];
begin
  select array_agg(q.field), array_agg(q.problem), array_agg(q.hint)
  into v_fields, v_problems, v_hints
  from (
    select 'filter' as field, 'must be an object' as problem, 'Example: {"schedule_ids": [7]}; {} for all.' as hint
    where jsonb_typeof(p_filter) is distinct from 'object'
    union all
    select e.key, 'is not a key of a calendar filter',
      'The keys are schedule_ids, device_id, group_id, action_type, search, name and limit.'
    from jsonb_each(case when jsonb_typeof(p_filter) = 'object' then p_filter else '{}' end) as e
    where e.key not in ('schedule_ids', 'device_id', 'group_id', 'action_type', 'search', 'name', 'limit')
    union all
    select 'schedule_ids', 'is not a list of ids', 'Write whole numbers without quotes, like [1, 2].'
    where p_filter ? 'schedule_ids' and not fleet.is_id_list(p_filter -> 'schedule_ids')
    union all
    select n.field, n.problem, n.hint
    from (values ('device_id', 9007199254740991), ('group_id', 9007199254740991), ('limit', 5000)) as k(key, most)
    cross join lateral fleet.whole_number_problem(k.key, p_filter -> k.key, 1, k.most) as n
    union all
    select k.key, 'must be a text', 'Write it in quotes.'
    from unnest('{action_type,search,name}'::text[]) as k(key)
    where p_filter ? k.key and jsonb_typeof(p_filter -> k.key) <> 'string'
  ) as q;
  perform fleet.raise_problems('the filter', 'filter_invalid', v_fields, v_problems, v_hints);
end;
$$;

comment on function fleet.require_calendar_filter(jsonb) is 'Raise filter_invalid (PT422) naming every wrong key of a calendar''s filter.';
revoke all on function fleet.require_calendar_filter(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.schedules_of_filter(p_owners uuid[], p_filter jsonb, p_to timestamptz, p_limit integer)
returns setof public.schedules
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select s.*
  from public.schedules as s
  where s.owner_id = any (p_owners)
    and s.status = 'active'
    and s.next_run_at < p_to
    and (not p_filter ? 'schedule_ids' or s.id = any (fleet.bigint_array(p_filter -> 'schedule_ids')))
    and (not p_filter ? 'action_type' or s.action_type = p_filter ->> 'action_type')
    and (not p_filter ? 'search' or position(lower(p_filter ->> 'search') in lower(s.name)) > 0)
    and (not p_filter ? 'group_id' or (p_filter ->> 'group_id')::bigint = any (s.group_ids))
    and (
      not p_filter ? 'device_id'
      or exists (
        select 1
        from public.devices as d
        where d.id = (p_filter ->> 'device_id')::bigint
          and d.owner_id = s.owner_id
          and d.status = 'active'
          and (
            d.id = any (s.device_ids)
            or s.group_ids && array(select m.group_id from public.device_group_members as m where m.device_id = d.id)
            or fleet.device_matches(s.selector, d.tags, d.platform, d.attributes)
            or s.group_ids && array(
              select g.id from public.device_groups as g
              where g.owner_id = d.owner_id and g.selector is not null
                and fleet.device_matches(g.selector, d.tags, d.platform, d.attributes)
            )
          )
      )
    )
  order by s.next_run_at, s.id
  limit p_limit
$$;

comment on function fleet.schedules_of_filter(uuid[], jsonb, timestamptz, integer) is
  'The active schedules of these owners that a calendar''s filter chooses; the ones due soonest where there are more.';
revoke all on function fleet.schedules_of_filter(uuid[], jsonb, timestamptz, integer)
  from public, anon, authenticated, service_role;

create or replace function fleet.ics_lines_of(p_schedule public.schedules, p_now timestamptz)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select concat(
    'DTSTAMP:', fleet.ics_instant(p_schedule.updated_at), E'\r\n',
    'LAST-MODIFIED:', fleet.ics_instant(p_schedule.updated_at), E'\r\n',
    fleet.ics_line('DESCRIPTION:' || fleet.ics_escaped(concat_ws(E'\n',
      concat_ws(' ',
        format('%s to %s %s.', p_schedule.action_type, fleet.describe_targets(p_schedule), fleet.describe_when(p_schedule, p_now)),
        fleet.describe_policies(p_schedule)
      ),
      nullif(p_schedule.description, '')
    ))),
    fleet.ics_line('CATEGORIES:' || fleet.ics_escaped(p_schedule.action_type)),
    E'TRANSP:TRANSPARENT\r\n'
  )
$$;

comment on function fleet.ics_lines_of(public.schedules, timestamptz) is 'The lines that all events of a schedule share.';
revoke all on function fleet.ics_lines_of(public.schedules, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.calendar_text(p_owners uuid[], p_filter jsonb, p_from timestamptz, p_to timestamptz)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_limit integer := coalesce((p_filter ->> 'limit')::integer, 2000);
  v_events text;
  v_cut_at timestamptz;
begin
  with chosen as materialized (
    select s from fleet.schedules_of_filter(p_owners, p_filter, p_to, v_limit + 1) as s
  ),
  until as materialized (
    select fleet.span_of_rows(array(select c.s from chosen as c), p_from, p_to, v_limit + 1) as at
  ),
  -- One more than the limit tells that something was cut.
  run as materialized (
    select c.s, r.due_at, r.starts_at, r.zones, row_number() over (order by r.starts_at, (c.s).id) as n
    from chosen as c
    cross join until as u
    cross join lateral fleet.coming_runs(c.s, p_from, u.at, v_limit + 1) as r
    where r.would = 'run'
    order by n
    limit v_limit + 1
  ),
  -- What each event of a schedule says is made once for all of them.
  said as materialized (
    select (c.s).id, fleet.ics_lines_of(c.s, p_from) as lines
    from chosen as c
    where (c.s).id in (select (r.s).id from run as r)
  )
  select
    string_agg(concat(
      E'BEGIN:VEVENT\r\n',
      fleet.ics_line('UID:' || fleet.ics_uid(r.s, r.due_at)),
      'DTSTART:', fleet.ics_instant(r.starts_at), E'\r\n',
      'DTEND:', fleet.ics_instant(r.starts_at + interval '5 minutes'), E'\r\n',
      fleet.ics_line('SUMMARY:' || fleet.ics_escaped(
        (r.s).name || case when r.zones is not null then format(' (%s)', array_to_string(r.zones, ', ')) else '' end
      )),
      d.lines,
      E'END:VEVENT\r\n'
    ), '' order by r.n) filter (where r.n <= v_limit),
    min(r.starts_at) filter (where r.n > v_limit)
  into v_events, v_cut_at
  from run as r
  join said as d on d.id = (r.s).id;

  return concat(
    fleet.ics_head(coalesce(p_filter ->> 'name', 'Fleet schedules'), case
      when v_cut_at is not null then format(
        'Only the first %s runs are shown, until %s UTC. Choose fewer schedules to see further.', v_limit,
        fleet.clock_text(v_cut_at, 'UTC')
      )
    end),
    v_events,
    E'END:VCALENDAR\r\n'
  );
end;
$$;

comment on function fleet.calendar_text(uuid[], jsonb, timestamptz, timestamptz) is
  'The runs to come of these owners'' schedules as iCalendar, one event each; a note in the calendar''s description says where it was cut.';
revoke all on function fleet.calendar_text(uuid[], jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.calendar_ics(p_owner_id uuid, p_filter jsonb, p_from timestamptz, p_to timestamptz)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.require_calendar_filter(p_filter);
  perform fleet.require_span(p_from, p_to, '2 years');
  return fleet.calendar_text(array[p_owner_id], p_filter, p_from, p_to);
end;
$$;

comment on function fleet.calendar_ics(uuid, jsonb, timestamptz, timestamptz) is
  'The coming runs of one owner as iCalendar, for a feed whose secret was checked. See public.calendar_ics for the filter.';
revoke all on function fleet.calendar_ics(uuid, jsonb, timestamptz, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.calendar_of_caller(p_filter jsonb, p_from timestamptz, p_to timestamptz)
returns text
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.require_calendar_filter(p_filter);
  perform fleet.require_span(p_from, p_to, '2 years');
  return fleet.calendar_text(fleet.owners_in_view(), p_filter, p_from, p_to);
end;
$$;

comment on function fleet.calendar_of_caller(jsonb, timestamptz, timestamptz) is
  'See public.calendar_ics. Definer: it looks only at what the caller may see.';
revoke all on function fleet.calendar_of_caller(jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.calendar_of_caller(jsonb, timestamptz, timestamptz) to authenticated, service_role;

create or replace function public.calendar_ics(
  p_filter jsonb default '{}',
  p_from timestamptz default now(),
  p_to timestamptz default now() + interval '90 days'
)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.calendar_of_caller(p_filter, p_from, p_to)
$$;

comment on function public.calendar_ics(jsonb, timestamptz, timestamptz) is
  'The coming runs of the caller''s schedules as iCalendar (RFC 5545), one event each, for Google Calendar, Apple Calendar and Outlook. '
  'Filter: schedule_ids, device_id, group_id, action_type, search, name (of the calendar), limit (2000 events, at most 5000). Where more '
  'would come, the description of the calendar says until when it goes. Raises filter_invalid or span_invalid (PT422).';
revoke all on function public.calendar_ics(jsonb, timestamptz, timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.calendar_ics(jsonb, timestamptz, timestamptz) to authenticated, service_role;

-- db/sources/40_commands/claim.sql
-- What a device does with its commands: claim, extend, give back.

create or replace function fleet.interrupt_unsafe(p_device_id bigint, p_journal uuid)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  -- Whoever held the lease may have been in the middle. Only the same journal can tell; without it, what is not safe to
  -- repeat ends here, and is not handed out again.
  update public.device_commands as c
  set status = 'failed', reason = 'interrupted',
      error_message = 'the device may have been in the middle of it, and its journal is gone'
  where c.device_id = p_device_id
    and c.status = 'pending'
    and c.channel = 'agent'
    and c.attempt > 0
    and c.lease_expires_at is not null
    and (c.journal_id is null or c.journal_id is distinct from p_journal)
    and not exists (select 1 from public.command_types as t where t.name = c.command_type and t.rerun_safe)
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
set search_path = pg_catalog, pg_temp
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
      and not exists (
        select 1 from public.device_commands as w where w.id = c.waits_for and w.status in ('pending', 'running')
      )
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
  -- A type that is gone by now is for the device to refuse; nothing that is leased may stay untold.
  select c.id, c.command_type, c.payload, c.attempt, c.priority::integer, coalesce(t.rerun_safe, false),
    coalesce(t.timeout_seconds, 60), c.lease_expires_at, v_lease, c.expires_at, c.run_id, c.step::integer, c.created_at
  from claimed as c
  left join public.command_types as t on t.name = c.command_type
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rate numeric := fleet.setting_number('doorbell_rate');
  v_last timestamptz;
  v_elapsed numeric;
  v_most numeric;
  v_allowed integer;
  v_rung integer;
begin
  -- One session rings at a time; whoever finds the row taken leaves the bells to the other.
  select h.last_rang_at into v_last from fleet.heartbeat as h for update skip locked;
  if not found then
    return 0;
  end if;

  -- The pace holds however often the tick comes: what may be rung follows from the time since the last rings, a second's
  -- worth at most. A clock that was set back starts anew.
  v_elapsed := extract(epoch from p_now - v_last);
  v_most := greatest(1, 1 / nullif(v_rate, 0));
  v_allowed := floor(v_rate * case when v_elapsed >= -5 then least(v_elapsed, v_most) else v_most end);
  if v_allowed < 1 then
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
  if v_rung > 0 then
    update fleet.heartbeat set last_rang_at = p_now;
  end if;
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
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := clock_timestamp();
  -- What a tick makes is rung by the tick, at its pace: a thousand small runs are a large fan-out too.
  v_inline integer := case
    when current_setting('pgfleet.is_ticking', true) = 'yes' then -1
    else fleet.setting_number('doorbell_inline_limit')::integer
  end;
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

create or replace function fleet.retry_policy(p_schedule_id bigint)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    (select fleet.effective_policies(s.policies) from public.schedules as s where s.id = p_schedule_id),
    fleet.default_policies()
  ) -> 'retry'
$$;

comment on function fleet.retry_policy(bigint) is 'How failures are tried again: by the schedule, or by default for ad-hoc commands.';
revoke all on function fleet.retry_policy(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.is_retryable(p_policy jsonb, p_reason text)
returns boolean
language sql
immutable
parallel safe
return (p_policy -> 'on') ? coalesce(p_reason, 'error');

comment on function fleet.is_retryable(jsonb, text) is
  'Whether a failure of this class is tried again. interrupted, unsupported, forbidden, invalid_payload and their kin cannot be helped.';
revoke all on function fleet.is_retryable(jsonb, text) from public, anon, authenticated, service_role;

create or replace function fleet.retry_delay(p_policy jsonb, p_failure_count integer)
returns interval
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select least(
    coalesce(
      (p_policy ->> 'backoff')::interval, make_interval(secs => fleet.setting_number('retry_backoff_seconds')::double precision)
    ) * power(2, least(greatest(p_failure_count, 1), 20) - 1),
    coalesce((p_policy ->> 'max_backoff')::interval, interval '1 hour')
  )
  -- A fleet that failed together must not come back together.
  * (1 + 0.2 * random())
$$;

comment on function fleet.retry_delay(jsonb, integer) is
  'Pause after the n-th failure: the backoff, doubling up to max_backoff, and up to a fifth more by chance.';
revoke all on function fleet.retry_delay(jsonb, integer) from public, anon, authenticated, service_role;

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
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_commands;
  v_policy jsonb := fleet.retry_policy(p_command.schedule_id);
  -- Pending means that its lease ran out, which was counted then.
  v_failures integer := p_command.failure_count + (p_status = 'failed' and p_command.status = 'running')::integer;
  v_retry_at timestamptz := p_now + fleet.retry_delay(v_policy, v_failures);
  v_again boolean := p_status = 'failed'
    and fleet.is_retryable(v_policy, p_reason)
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
set search_path = pg_catalog, pg_temp
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
  elsif v_refusal = 'stale_attempt' and v_command.attempt = p_attempt and p_status = 'failed'
    and v_command.reason = coalesce(p_reason, 'error') and v_command.error_message is not distinct from p_error
  then
    return jsonb_build_object('accepted', true, 'status', v_command.status, 'retry_at', v_command.not_before);
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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

  select array_agg(q.field), array_agg(q.problem), array_agg(q.hint)
  into v_fields, v_problems, v_hints
  from fleet.command_problems(new) as q;
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

create or replace function fleet.command_problems(p_command public.device_commands)
returns table (field text, problem text, hint text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select replace(q.field, 'action_type', 'command_type'), q.problem, q.hint
  from fleet.payload_problems(
    p_command.command_type, case when jsonb_typeof(p_command.payload) = 'object' then p_command.payload else '{}' end
  ) as q
  where q.field = 'action_type' or jsonb_typeof(p_command.payload) = 'object'
  union all
  select 'payload', 'must be an object', 'Example: {"message": "Hello"}'
  where jsonb_typeof(p_command.payload) is distinct from 'object'
  union all
  select 'status', 'must be pending for a new command', 'Leave status out.'
  where p_command.status is distinct from 'pending'
  union all
  select 'not_before', 'is missing', 'Leave it out for now.'
  where p_command.not_before is null
  union all
  select 'expires_at', 'is not after not_before', 'Leave expires_at out for 24 hours.'
  where p_command.expires_at <= p_command.not_before
  union all
  select * from fleet.whole_number_problem('priority', coalesce(to_jsonb(p_command.priority), 'null'), -100, 100)
  union all
  select * from fleet.whole_number_problem('max_attempts', coalesce(to_jsonb(p_command.max_attempts), 'null'), 1, 1000)
$$;

comment on function fleet.command_problems(public.device_commands) is
  'Everything that is wrong with a new command; no row where nothing is.';
revoke all on function fleet.command_problems(public.device_commands) from public, anon, authenticated, service_role;

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

create or replace function fleet.tg_change_command_status()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if old.status not in ('pending', 'running') then
    raise exception 'command % is % already', old.id, old.status
      using errcode = 'PT409', detail = 'command_final', hint = 'What is final stays as it is.';
  end if;

  if new.status not in ('pending', 'running') then
    -- Devices' clocks are wrong; the engine's own times are kept.
    new.executed_at := case
      when fleet.claim('role') = 'authenticated' and new.lease_expires_at is not distinct from old.lease_expires_at
        then clock_timestamp()
      else coalesce(new.executed_at, clock_timestamp())
    end;
    if fleet.claim('role') = 'authenticated' and new.reason is not distinct from old.reason then
      new.reason := case new.status when 'failed' then 'error' when 'completed' then null else new.reason end;
    end if;
    new.lease_expires_at := null;
  elsif new.status = 'running' and new.lease_expires_at is not distinct from old.lease_expires_at then
    new := fleet.plainly_claimed(old, new);
  end if;
  return new;
end;
$$;

comment on function fleet.tg_change_command_status() is
  'What is final stays final; a plain UPDATE of status is a claim or a finish like any other. Definer: it reads a setting.';
revoke all on function fleet.tg_change_command_status() from public, anon, authenticated, service_role;

create or replace function fleet.plainly_claimed(p_old public.device_commands, p_new public.device_commands)
returns public.device_commands
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_commands := p_new;
  v_type public.command_types;
begin
  select t.* into v_type from public.command_types as t where t.name = p_old.command_type;
  if p_old.attempt > 0 and p_old.lease_expires_at is not null and v_type.rerun_safe is not true then
    -- Somebody may have been in the middle of it: see fleet.interrupt_unsafe.
    v_row.status := 'failed';
    v_row.reason := 'interrupted';
    v_row.error_message := 'the device may have been in the middle of it, and keeps no journal';
    v_row.executed_at := clock_timestamp();
    v_row.lease_expires_at := null;
    return v_row;
  end if;

  -- Taken by a plain UPDATE: that is a claim too, and gets a lease; a longer one, since such a client does not extend it.
  v_row.attempt := p_old.attempt + 1;
  v_row.claimed_at := clock_timestamp();
  v_row.journal_id := null;
  v_row.lease_expires_at := clock_timestamp() + make_interval(
    secs => fleet.setting_number('lease_seconds')::integer + coalesce(v_type.timeout_seconds, 0)
  );
  return v_row;
end;
$$;

comment on function fleet.plainly_claimed(public.device_commands, public.device_commands) is
  'The row of a command that a client without claim_commands took by setting its status to running.';
revoke all on function fleet.plainly_claimed(public.device_commands, public.device_commands)
  from public, anon, authenticated, service_role;

create or replace function fleet.tg_note_progress()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
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

  -- Whatever waited for one of them may start.
  insert into fleet.doorbells (device_id, ring_at, priority, command_id, command_type)
  select c.device_id, clock_timestamp(), c.priority, c.id, c.command_type
  from new_rows as n
  join public.device_commands as c on c.waits_for = n.id
  where n.status not in ('pending', 'running')
    and c.status = 'pending'
    and c.channel = 'agent'
  on conflict (device_id, ring_at) do nothing;
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
set search_path = pg_catalog, pg_temp
as $$
declare
  v_strays public.device_commands[];
  v_one public.device_commands;
begin
  select array_agg(n) into v_strays
  from new_rows as n
  where not exists (select 1 from public.devices as d where d.id = n.device_id and d.owner_id = n.owner_id);

  foreach v_one in array coalesce(v_strays, '{}') loop
    if v_one.run_id is null or exists (select 1 from public.devices as d where d.id = v_one.device_id) then
      perform fleet.raise_device_not_found(v_one.device_id);
    end if;
    -- Deleted while its run expands: the run goes on without it.
    delete from public.device_commands as c where c.id = v_one.id;
  end loop;
  return null;
end;
$$;

comment on function fleet.tg_check_new_commands() is
  'A command''s device exists and has the command''s owner, whoever wrote the row; one that is just being deleted gets none. Definer: it must see every device.';
revoke all on function fleet.tg_check_new_commands() from public, anon, authenticated, service_role;

create or replace function fleet.tg_delete_commands_of_runs()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
    v_owner, p_device_id, p_command_type, coalesce(p_payload, '{}'), p_idempotency_key,
    -- Far out of bounds is as wrong as out of bounds, and must not overflow the column before that can be said.
    case when p_priority between -1000 and 1000 then p_priority when p_priority is not null then sign(p_priority) * 1000 end,
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
as $$
  select fleet.cancel_command(p_command_id, p_reason)
$$;

comment on function public.cancel_command(bigint, text) is
  'Cancel a command. A device that is at it already hears so when it extends its lease or finishes. Raises command_not_found (PT404) or '
  'command_final (PT409).';
revoke all on function public.cancel_command(bigint, text) from public, anon, authenticated, service_role;
grant execute on function public.cancel_command(bigint, text) to authenticated, service_role;

-- db/sources/40_commands/settle.sql
-- The end of runs: counted, judged, and passed on to what follows.

create or replace function fleet.settle_runs(p_now timestamptz, p_limit integer default 20000)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ended bigint[] := fleet.add_progress(p_now, p_limit);
begin
  if v_ended is null then
    return 0;
  end if;

  perform fleet.start_followers(v_ended, p_now);
  perform fleet.pause_failing(v_ended);
  return cardinality(v_ended);
end;
$$;

comment on function fleet.settle_runs(timestamptz, integer) is
  'Add finished commands to their runs, end the runs that are through, start what follows them, pause what keeps failing. Answers how '
  'many ended.';
revoke all on function fleet.settle_runs(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.add_progress(p_now timestamptz, p_limit integer)
returns bigint[]
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  with taken as (
    delete from fleet.run_progress as p
    where p.id in (select x.id from fleet.run_progress as x order by x.id limit p_limit for update skip locked)
    returning p.run_id, p.completed, p.failed
  ),
  -- Only runs of which something was heard: a tick costs what happened, not what is open. Counters and end in one statement,
  -- so that of two sessions the later one sees the sum.
  told as (
    update public.schedule_runs as r
    set completed = r.completed + a.completed,
        failed = r.failed + a.failed,
        (status, reason, finished_at) = (
          select o.status, o.reason, o.finished_at
          from fleet.run_outcome(r, r.completed + a.completed, r.failed + a.failed, p_now) as o
        )
    from (
      select t.run_id, sum(t.completed) as completed, sum(t.failed) as failed,
        bool_or(t.completed = 0 and t.failed = 0) as is_told_to_end
      from taken as t
      group by t.run_id
    ) as a
    where r.id = a.run_id
    returning r.id, a.is_told_to_end, r.reason,
      r.status in ('completed', 'failed') and r.finished_at = p_now as is_over_now
  )
  -- What failed with an error was over before it came here.
  select array_agg(t.id) from told as t where t.is_over_now or (t.is_told_to_end and t.reason = 'error')
$$;

comment on function fleet.add_progress(timestamptz, integer) is
  'Add what finished since the last tick to the counters of the runs, and end those that are through. Answers which.';
revoke all on function fleet.add_progress(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.run_outcome(
  p_run public.schedule_runs,
  p_completed bigint,
  p_failed bigint,
  p_now timestamptz
)
returns table (status text, reason text, finished_at timestamptz)
language sql
immutable
rows 1
set search_path = pg_catalog, pg_temp
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

create or replace function fleet.pause_failing(p_runs bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  update public.schedules as s
  set status = 'paused',
      status_reason = case s.policies ->> 'pause_on_failure'
        when '1' then 'a run failed (pause_on_failure)'
        else format('%s runs in a row failed (pause_on_failure)', s.policies ->> 'pause_on_failure')
      end
  where s.id in (select r.schedule_id from public.schedule_runs as r where r.id = any (p_runs) and r.status = 'failed')
    and s.status = 'active'
    and (s.policies ->> 'pause_on_failure')::integer <= (
      -- How many of the latest runs failed, before one that did not.
      select count(*) filter (where f.failed_so_far)
      from (
        select bool_and(h.status = 'failed') over (order by h.finished_at desc, h.id desc) as failed_so_far
        from (
          select r.id, r.status, r.finished_at
          from public.schedule_runs as r
          where r.schedule_id = s.id and r.status in ('completed', 'failed')
          order by r.finished_at desc, r.id desc
          limit (s.policies ->> 'pause_on_failure')::integer
        ) as h
      ) as f
    )
$$;

comment on function fleet.pause_failing(bigint[]) is
  'Pause the schedules whose latest runs, as many as policies.pause_on_failure says, all failed.';
revoke all on function fleet.pause_failing(bigint[]) from public, anon, authenticated, service_role;

-- db/sources/40_commands/sweep.sql
-- What time does to commands: leases run out, commands expire.

create or replace function fleet.sweep_commands(p_now timestamptz, p_limit integer default 5000)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_swept integer := 0;
  v_again bigint[];
  v_count integer;
begin
  with lapsed as (
    select c.id, c.failure_count + 1 >= c.max_attempts
        or not fleet.is_retryable(fleet.retry_policy(c.schedule_id), 'lease_expired') as is_last
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
          when l.is_last then 'failed'
          when c.expires_at <= p_now then 'expired'
          else 'pending'
        end,
        reason = 'lease_expired',
        error_message = case
          when l.is_last or c.expires_at <= p_now then 'the device took it and did not answer'
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

-- db/sources/40_commands/types.sql
-- The command types that come with pgfleet.

create or replace function fleet.built_in_command_types()
returns table (
  name text, channel text, description text, payload_keys jsonb, timeout_seconds integer, rerun_safe boolean, destructive boolean
)
language sql
immutable
set search_path = pg_catalog, pg_temp
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
        "timeout": {"type": "number", "example": 60}}'::jsonb, 600, false, false),
    ('deploy_software', 'agent', 'Install software packages.',
      '{"software_ids": {"type": "array", "required": true, "example": [5, 8]},
        "deployment_name": {"type": "string"}}'::jsonb, 3600, false, false),
    ('deploy_files', 'agent', 'Copy files to a folder of the device.',
      '{"file_ids": {"type": "array", "required": true, "example": [10, 11]},
        "target_path": {"type": "string", "required": true, "example": "C:\\Config"},
        "create_path_if_not_exists": {"type": "boolean"}}'::jsonb, 600, false, false)
$$;

comment on function fleet.built_in_command_types() is 'The command types that come with pgfleet.';
revoke all on function fleet.built_in_command_types() from public, anon, authenticated, service_role;

create or replace function fleet.sync_command_types()
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
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
-- executed_at is what simple clients send along; the trigger puts the database's own time there.
grant update (status, result, error_message, executed_at) on table public.device_commands to authenticated;

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

-- db/sources/60_mdm/10_types.sql
-- The command types that an MDM carries out, and which integrations are MDMs.

create or replace function fleet.mdm_integration_types()
returns text[]
language sql
immutable
parallel safe
return '{simplemdm,nanomdm}'::text[];

comment on function fleet.mdm_integration_types() is
  'Integrations that carry out commands of channel mdm. A new provider is one word here and one module of the function.';
revoke all on function fleet.mdm_integration_types() from public, anon, authenticated, service_role;

create or replace function fleet.mdm_command_types()
returns table (name text, description text, payload_keys jsonb, timeout_seconds integer, rerun_safe boolean, destructive boolean)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  values
    ('push_profile', 'Install a configuration profile.',
      '{"profile_id": {"type": "string", "required": true, "example": "12345"}}'::jsonb, 60, true, false),
    ('remove_profile', 'Remove a configuration profile.',
      '{"profile_id": {"type": "string", "required": true, "example": "12345"}}'::jsonb, 60, true, false),
    ('mdm_lock', 'Lock the device; a Mac needs a pin of six digits, others take none.',
      '{"pin": {"type": "string", "example": "123456"}, "message": {"type": "string"}, "phone_number": {"type": "string"}}'::jsonb,
      60, false, false),
    ('mdm_restart', 'Restart the device.', '{}'::jsonb, 60, false, false),
    ('mdm_shutdown', 'Shut the device down.', '{}'::jsonb, 60, false, false),
    ('mdm_clear_passcode', 'Remove the passcode.', '{}'::jsonb, 60, true, false),
    ('mdm_lost_mode_on', 'Turn lost mode on: a message, a phone number, or both, on a locked screen.',
      '{"message": {"type": "string"}, "phone_number": {"type": "string"}, "footnote": {"type": "string"}}'::jsonb,
      60, true, false),
    ('mdm_lost_mode_off', 'Turn lost mode off.', '{}'::jsonb, 60, true, false),
    ('mdm_locate', 'Ask a device in lost mode where it is.', '{}'::jsonb, 60, true, false),
    ('mdm_play_sound', 'Let a device in lost mode play a sound.', '{}'::jsonb, 60, true, false),
    ('mdm_refresh', 'Ask for fresh inventory.', '{}'::jsonb, 60, true, false),
    ('mdm_push_apps', 'Install assigned apps that are missing.', '{}'::jsonb, 60, true, false),
    ('mdm_wipe', 'Erase the device.',
      '{"confirm": {"type": "boolean", "required": true, "choices": [true], "example": true},
        "pin": {"type": "string", "example": "123456"}}'::jsonb, 60, false, true),
    ('mdm_unenroll', 'Take the device out of the MDM.',
      '{"confirm": {"type": "boolean", "required": true, "choices": [true], "example": true}}'::jsonb, 60, false, true)
$$;

comment on function fleet.mdm_command_types() is
  'The command types of channel mdm. What may end data needs the permission destructive and {"confirm": true}.';
revoke all on function fleet.mdm_command_types() from public, anon, authenticated, service_role;

insert into public.command_types as t (
  name, channel, description, payload_keys, timeout_seconds, rerun_safe, destructive, is_built_in
)
select b.name, 'mdm', b.description, b.payload_keys, b.timeout_seconds, b.rerun_safe, b.destructive, true
from fleet.mdm_command_types() as b
-- A type that an operator made under the same name stays the operator's.
on conflict (name) do update
  set channel = excluded.channel, description = excluded.description, payload_keys = excluded.payload_keys,
      timeout_seconds = excluded.timeout_seconds, rerun_safe = excluded.rerun_safe, destructive = excluded.destructive
  where t.is_built_in;

create or replace function fleet.is_mdm_action(p_action_type text)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (select 1 from public.command_types as t where t.name = p_action_type and t.channel = 'mdm')
$$;

comment on function fleet.is_mdm_action(text) is
  'Whether an MDM carries it out: then a schedule counts as executed when the provider accepted, not when its run started.';
revoke all on function fleet.is_mdm_action(text) from public, anon, authenticated, service_role;

comment on column public.schedules.last_executed_at is
  'When its latest run was started; where an MDM carries it out, when the provider last accepted.';

-- db/sources/60_mdm/20_rate.sql
-- How fast each provider may be called: one token bucket in the database, shared by every function process.

create or replace function fleet.rate_ceiling(p_settings jsonb)
returns numeric
language sql
immutable
parallel safe
return coalesce(
  case when jsonb_typeof(p_settings -> 'rate_per_second') = 'number' then (p_settings ->> 'rate_per_second')::numeric end, 1
);

comment on function fleet.rate_ceiling(jsonb) is 'Calls a second that the settings of an integration allow; 1 where they say nothing.';
revoke all on function fleet.rate_ceiling(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.rate_burst(p_settings jsonb)
returns numeric
language sql
immutable
parallel safe
return coalesce(
  case when jsonb_typeof(p_settings -> 'burst') = 'number' then (p_settings ->> 'burst')::numeric end,
  -- A quarter of a second's worth more than the rate over ten seconds is within what providers notice.
  greatest(5, fleet.rate_ceiling(p_settings) / 4)
);

comment on function fleet.rate_burst(jsonb) is 'How many calls may come at once after a pause.';
revoke all on function fleet.rate_burst(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.filled_rate(p_integration_id bigint, p_now timestamptz)
returns fleet.rate_limits
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_settings jsonb;
  v_row fleet.rate_limits;
  v_elapsed numeric;
begin
  select i.settings into v_settings from public.device_integrations as i where i.id = p_integration_id;
  insert into fleet.rate_limits (integration_id, rate, tokens, filled_at)
  values (p_integration_id, fleet.rate_ceiling(v_settings), fleet.rate_burst(v_settings), p_now)
  on conflict (integration_id) do nothing;
  select r.* into v_row from fleet.rate_limits as r where r.integration_id = p_integration_id for update;

  -- The clocks of several callers differ a little: time never goes back here.
  v_elapsed := greatest(extract(epoch from p_now - v_row.filled_at), 0);
  -- What was learned from a refusal is forgotten little by little.
  v_row.rate := least(
    fleet.rate_ceiling(v_settings), v_row.rate + fleet.rate_ceiling(v_settings) * 0.05 * v_elapsed
  );
  v_row.tokens := least(fleet.rate_burst(v_settings), v_row.tokens + v_row.rate * v_elapsed);
  v_row.filled_at := greatest(v_row.filled_at, p_now);
  return v_row;
end;
$$;

comment on function fleet.filled_rate(bigint, timestamptz) is
  'The bucket of an integration as of this instant, locked; the caller writes it back.';
revoke all on function fleet.filled_rate(bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.next_call_at(p_bucket fleet.rate_limits, p_now timestamptz)
returns timestamptz
language sql
immutable
parallel safe
return greatest(
  p_bucket.blocked_until,
  p_now + make_interval(secs => (greatest(1 - p_bucket.tokens, 0) / p_bucket.rate)::double precision)
);

comment on function fleet.next_call_at(fleet.rate_limits, timestamptz) is
  'When there is leave for one more call, by a bucket that is filled as of p_now.';
revoke all on function fleet.next_call_at(fleet.rate_limits, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_reserve_call(
  p_integration_id bigint,
  p_within interval default interval '0',
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_bucket fleet.rate_limits;
  v_at timestamptz;
begin
  if not exists (select 1 from public.device_integrations as i where i.id = p_integration_id and i.status = 'active') then
    return jsonb_build_object('granted', false, 'reason', 'integration_not_active');
  end if;

  v_bucket := fleet.filled_rate(p_integration_id, p_now);
  v_at := fleet.next_call_at(v_bucket, p_now);
  update fleet.rate_limits as r
  set rate = v_bucket.rate, filled_at = v_bucket.filled_at,
      tokens = v_bucket.tokens - case when v_at <= p_now + p_within then 1 else 0 end
  where r.integration_id = p_integration_id;
  return jsonb_build_object('granted', v_at <= p_now + p_within, 'wait', extract(epoch from v_at - p_now));
end;
$$;

comment on function fleet.worker_reserve_call(bigint, interval, timestamptz) is
  'Take leave for one call that may begin within p_within: {granted, wait}; the call is made after so many seconds. Where nothing is '
  'granted, wait says when it would be worth asking again; an integration that is not active grants nothing (reason '
  'integration_not_active). Definer: the worker writes no table.';
revoke all on function fleet.worker_reserve_call(bigint, interval, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_learn_rate(
  p_integration_id bigint,
  p_limit numeric default null,
  p_reset_at timestamptz default null,
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row fleet.rate_limits;
  v_ceiling numeric;
begin
  select fleet.rate_ceiling(i.settings) into v_ceiling from public.device_integrations as i where i.id = p_integration_id;
  if not found then
    return jsonb_build_object('accepted', false, 'reason', 'not_found');
  end if;

  v_row := fleet.filled_rate(p_integration_id, p_now);
  update fleet.rate_limits as r
  set rate = least(v_ceiling, greatest(coalesce(p_limit, v_row.rate * 0.95), v_ceiling / 10)),
      tokens = least(v_row.tokens, 0),
      filled_at = v_row.filled_at,
      -- Nobody is kept waiting for ever by a header that is wrong.
      blocked_until = greatest(r.blocked_until, least(coalesce(p_reset_at, p_now + interval '2 seconds'), p_now + interval '1 hour'))
  where r.integration_id = p_integration_id
  returning r.* into v_row;
  return jsonb_build_object('accepted', true, 'rate', round(v_row.rate, 3), 'blocked_until', v_row.blocked_until);
end;
$$;

comment on function fleet.worker_learn_rate(bigint, numeric, timestamptz, timestamptz) is
  'A provider said that it was too much: no call before p_reset_at (two seconds), and a slower pace for a while; p_limit is the calls a '
  'second that it names. {accepted, rate, blocked_until}. Definer: the worker writes no table.';
revoke all on function fleet.worker_learn_rate(bigint, numeric, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/60_mdm/25_queue.sql
-- The queue of each MDM: what is sent to which, kept true to the commands, the links and the integrations.

create or replace function fleet.mdms_of(p_device_ids bigint[])
returns table (device_id bigint, integration_id bigint)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select distinct on (l.device_id) l.device_id, l.integration_id
  from public.device_links as l
  join public.device_integrations as i on i.id = l.integration_id
  where l.device_id = any (p_device_ids)
    and l.left_at is null
    and i.integration_type = any (fleet.mdm_integration_types())
    and i.status <> 'disabled'
  -- A device that is in two of them belongs to the one that works.
  order by l.device_id, (i.status = 'active') desc, i.id
$$;

comment on function fleet.mdms_of(bigint[]) is 'The MDM that each device is in; no row for one that is in none.';
revoke all on function fleet.mdms_of(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.reroute_mdm(p_device_ids bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  update fleet.mdm_work as w
  set integration_id = m.integration_id
  from unnest(p_device_ids) as u(device_id)
  left join fleet.mdms_of(p_device_ids) as m on m.device_id = u.device_id
  where w.device_id = u.device_id
    and w.phase = 'send'
    and w.held_until is null
    and w.integration_id is distinct from m.integration_id
$$;

comment on function fleet.reroute_mdm(bigint[]) is
  'What waits for these devices goes to the MDM that they are in by now. What a function has begun stays where it is.';
revoke all on function fleet.reroute_mdm(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.tg_queue_mdm_commands()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_is_due boolean;
begin
  if not exists (select 1 from new_rows as n where n.channel = 'mdm' and n.status = 'pending') then
    return null;
  end if;

  insert into fleet.mdm_work (command_id, device_id, integration_id, priority, due_at)
  select n.id, n.device_id, m.integration_id, n.priority, n.not_before
  from new_rows as n
  left join fleet.mdms_of(
    array(select x.device_id from new_rows as x where x.channel = 'mdm' and x.status = 'pending')
  ) as m on m.device_id = n.device_id
  where n.channel = 'mdm' and n.status = 'pending';

  select exists (
    select 1 from new_rows as n where n.channel = 'mdm' and n.status = 'pending' and n.not_before <= v_now
  ) into v_is_due;
  if v_is_due and current_setting('pgfleet.is_ticking', true) = 'yes' then
    perform fleet.poke_once_a_second('mdm-dispatch', v_now);
  elsif v_is_due then
    -- Without the turnstile: its row would be held until a person ends the transaction, and the ticks would wait for it.
    perform fleet.poke('mdm-dispatch', jsonb_build_object('at', v_now), v_now);
  end if;
  return null;
end;
$$;

comment on function fleet.tg_queue_mdm_commands() is
  'Put new commands on the queue of the MDM that their device is in; what is due now does not wait for the tick. Definer: whoever may '
  'insert a command may neither write the queue nor sign pokes.';
revoke all on function fleet.tg_queue_mdm_commands() from public, anon, authenticated, service_role;

create or replace function fleet.tg_follow_mdm_commands()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ended bigint[];
  v_schedules bigint[];
begin
  if not exists (select 1 from new_rows as n where n.channel = 'mdm') then
    return null;
  end if;

  -- A time that was moved, a lease that ran out: it waits to be sent, until then.
  update fleet.mdm_work as w
  set phase = 'send', due_at = n.not_before, held_until = null, accepted_at = null, give_up_at = null
  from new_rows as n
  join old_rows as o on o.id = n.id
  where w.command_id = n.id
    and n.channel = 'mdm'
    and n.status = 'pending'
    and (o.status <> 'pending' or o.not_before <> n.not_before);

  select array_agg(n.id), array_agg(n.schedule_id) filter (where n.command_type = 'push_profile' and n.status <> 'completed')
  into v_ended, v_schedules
  from new_rows as n
  join old_rows as o on o.id = n.id
  where n.channel = 'mdm' and n.status not in ('pending', 'running') and o.status in ('pending', 'running');
  if v_ended is null then
    return null;
  end if;

  -- Taken, but never seen to be done: the device is as it was before, as far as anybody knows.
  update public.device_profiles as p
  set is_installed = c.command_type = 'remove_profile', changed_at = clock_timestamp()
  from public.device_commands as c
  join fleet.mdm_work as w on w.command_id = c.id and w.accepted_at is not null
  where c.id = any (v_ended)
    and c.status <> 'completed'
    and c.command_type in ('push_profile', 'remove_profile')
    and p.device_id = c.device_id
    and p.profile_id = c.payload ->> 'profile_id';
  delete from fleet.mdm_work as w where w.command_id = any (v_ended);
  if v_schedules is not null then
    perform fleet.note_failed_pushes(v_schedules);
  end if;
  return null;
end;
$$;

comment on function fleet.tg_follow_mdm_commands() is
  'Keep the queue true to commands that change, forget those that are final, and note the pushes that failed. Definer: nobody else writes '
  'these tables.';
revoke all on function fleet.tg_follow_mdm_commands() from public, anon, authenticated, service_role;

create or replace function fleet.tg_forget_mdm_commands()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (select 1 from old_rows as o where o.channel = 'mdm') then
    delete from fleet.mdm_work as w using old_rows as o where w.command_id = o.id and o.channel = 'mdm';
  end if;
  return null;
end;
$$;

comment on function fleet.tg_forget_mdm_commands() is
  'Take commands that are deleted off the queue. Definer: whoever may delete a command may not write the queue.';
revoke all on function fleet.tg_forget_mdm_commands() from public, anon, authenticated, service_role;

create or replace function fleet.tg_reroute_linked()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_devices bigint[];
begin
  case tg_op
    when 'INSERT' then
      v_devices := array(select n.device_id from new_rows as n);
    when 'DELETE' then
      v_devices := array(select o.device_id from old_rows as o);
    else
      v_devices := array(
        select n.device_id
        from new_rows as n
        join old_rows as o on o.device_id = n.device_id and o.integration_id = n.integration_id
        where (o.left_at is null) <> (n.left_at is null)
      );
  end case;
  if v_devices <> '{}' then
    perform fleet.reroute_mdm(v_devices);
  end if;
  return null;
end;
$$;

comment on function fleet.tg_reroute_linked() is
  'A device came into an MDM or left it: what waits for it follows. Definer: whoever may write a link may not write the queue.';
revoke all on function fleet.tg_reroute_linked() from public, anon, authenticated, service_role;

create or replace function fleet.tg_reroute_integration()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.reroute_mdm(array(
    select w.device_id
    from fleet.mdm_work as w
    join public.device_links as l on l.device_id = w.device_id and l.integration_id = new.id
  ));
  return null;
end;
$$;

comment on function fleet.tg_reroute_integration() is
  'An MDM was disabled, or works again: what waits for its devices follows. Definer: whoever may write an integration may not write the '
  'queue.';
revoke all on function fleet.tg_reroute_integration() from public, anon, authenticated, service_role;

create or replace trigger device_commands_07_queue_mdm
  after insert on public.device_commands
  referencing new table as new_rows
  for each statement execute function fleet.tg_queue_mdm_commands();

create or replace trigger device_commands_08_follow_mdm
  after update on public.device_commands
  referencing old table as old_rows new table as new_rows
  for each statement execute function fleet.tg_follow_mdm_commands();

create or replace trigger device_commands_09_forget_mdm
  after delete on public.device_commands
  referencing old table as old_rows
  for each statement execute function fleet.tg_forget_mdm_commands();

create or replace trigger device_links_01_reroute_insert
  after insert on public.device_links
  referencing new table as new_rows
  for each statement execute function fleet.tg_reroute_linked();

create or replace trigger device_links_01_reroute_update
  after update on public.device_links
  referencing old table as old_rows new table as new_rows
  for each statement execute function fleet.tg_reroute_linked();

create or replace trigger device_links_01_reroute_delete
  after delete on public.device_links
  referencing old table as old_rows
  for each statement execute function fleet.tg_reroute_linked();

create or replace trigger device_integrations_04_reroute
  after update of status on public.device_integrations
  for each row when (new.status is distinct from old.status)
  execute function fleet.tg_reroute_integration();

-- db/sources/60_mdm/30_claim.sql
-- Commands of channel mdm, claimed by the function mdm-dispatch: sent, then watched until their effect shows.

create or replace function fleet.is_behind_another(p_work fleet.mdm_work, p_payload jsonb)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- A push that is still on its way must not be overtaken by the removal that follows it.
  select p_payload ? 'profile_id' and exists (
    select 1
    from fleet.mdm_work as o
    join public.device_commands as c on c.id = o.command_id
    where o.device_id = p_work.device_id
      and o.command_id < p_work.command_id
      and o.accepted_at is null
      and c.payload -> 'profile_id' = p_payload -> 'profile_id'
  )
$$;

comment on function fleet.is_behind_another(fleet.mdm_work, jsonb) is
  'Whether an earlier command about the same profile and device has not reached the provider yet.';
revoke all on function fleet.is_behind_another(fleet.mdm_work, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.take_mdm_sends(p_integration_id bigint, p_limit integer, p_now timestamptz)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids bigint[];
begin
  if p_limit <= 0 then
    return '{}';
  end if;

  select coalesce(array_agg(k.id), '{}') into v_ids
  from (
    -- The lock keeps any number of functions from claiming the same one.
    select c.id
    from fleet.mdm_work as w
    join public.device_commands as c on c.id = w.command_id
    where w.integration_id = p_integration_id
      and w.phase = 'send'
      and w.held_until is null
      and w.due_at <= p_now
      and c.status = 'pending'
      and c.expires_at > p_now
      and not exists (
        select 1 from public.device_commands as o where o.id = c.waits_for and o.status in ('pending', 'running')
      )
      and not fleet.is_behind_another(w, c.payload)
    order by w.priority desc, w.command_id
    limit p_limit
    for update of c, w skip locked
  ) as k;

  update public.device_commands as c
  set status = 'running', attempt = c.attempt + 1, claimed_at = p_now, journal_id = null,
      -- The lease of the function is in mdm_work; this one is the MDM's as a whole, and outlives every settling.
      lease_expires_at = greatest(c.expires_at, p_now) + interval '2 hours'
  where c.id = any (v_ids);
  perform fleet.hold_mdm(v_ids, p_now);
  return v_ids;
end;
$$;

comment on function fleet.take_mdm_sends(bigint, integer, timestamptz) is
  'Lease the next commands of an integration that are to be sent, the most urgent first. Answers which.';
revoke all on function fleet.take_mdm_sends(bigint, integer, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.take_mdm_looks(p_integration_id bigint, p_limit integer, p_now timestamptz)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids bigint[];
begin
  select coalesce(array_agg(k.command_id), '{}') into v_ids
  from (
    select w.command_id
    from fleet.mdm_work as w
    where w.integration_id = p_integration_id
      and w.phase = 'settle'
      and w.held_until is null
      and w.due_at <= p_now
    order by w.due_at
    limit p_limit
    for update skip locked
  ) as k;
  perform fleet.hold_mdm(v_ids, p_now);
  return v_ids;
end;
$$;

comment on function fleet.take_mdm_looks(bigint, integer, timestamptz) is
  'Lease accepted commands whose devices are to be looked at again. Answers which.';
revoke all on function fleet.take_mdm_looks(bigint, integer, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.hold_mdm(p_command_ids bigint[], p_now timestamptz)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  update fleet.mdm_work as w
  set held_until = p_now + make_interval(secs => fleet.setting_number('lease_seconds')::double precision)
  where w.command_id = any (p_command_ids)
$$;

comment on function fleet.hold_mdm(bigint[], timestamptz) is 'Lease work to the function that claims it.';
revoke all on function fleet.hold_mdm(bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.has_due_mdm(p_integration_id bigint, p_phase text, p_now timestamptz)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- The first by time is one look into the index, also where nothing is due among very many.
  select coalesce(
    (
      select w.due_at <= p_now
      from fleet.mdm_work as w
      where w.integration_id = p_integration_id and w.phase = p_phase and w.held_until is null
      order by w.due_at
      limit 1
    ),
    false
  )
$$;

comment on function fleet.has_due_mdm(bigint, text, timestamptz) is 'Whether anything waits to be sent, or to be looked at, by now.';
revoke all on function fleet.has_due_mdm(bigint, text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.next_mdm_schedule_at(p_before timestamptz)
returns timestamptz
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select min(s.next_run_at)
  from public.schedules as s
  where s.status = 'active'
    and s.next_run_at <= p_before
    and s.action_type in (select t.name from public.command_types as t where t.channel = 'mdm')
$$;

comment on function fleet.next_mdm_schedule_at(timestamptz) is
  'When the next schedule is due that an MDM carries out; null where none is until then.';
revoke all on function fleet.next_mdm_schedule_at(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.run_due_mdm(p_now timestamptz)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.run_due(array_agg(d.id), p_now)
  from (
    select s.id
    from public.schedules as s
    where s.status = 'active'
      and s.next_run_at <= p_now
      and s.action_type in (select t.name from public.command_types as t where t.channel = 'mdm')
    order by s.next_run_at
    limit 100
  ) as d
  having count(*) > 0
$$;

comment on function fleet.run_due_mdm(timestamptz) is
  'Run schedules that an MDM carries out at their very instant, where a function is awake for it; else the next tick does.';
revoke all on function fleet.run_due_mdm(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.claim_of_mdm(p_integration_id bigint, p_limit integer, p_now timestamptz)
returns table (sends bigint[], looks bigint[], next_at timestamptz)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_bucket fleet.rate_limits;
  v_look_at timestamptz;
  v_room integer;
begin
  sends := '{}';
  looks := '{}';
  perform 1 from fleet.rate_limits as r where r.integration_id = p_integration_id for update skip locked;
  if not found and exists (select 1 from fleet.rate_limits as r where r.integration_id = p_integration_id) then
    -- Another function is at it: waiting for its lock could end in a circle.
    next_at := p_now + interval '50 milliseconds';
    return next;
    return;
  end if;

  v_bucket := fleet.filled_rate(p_integration_id, p_now);
  next_at := fleet.next_call_at(v_bucket, p_now);
  if next_at > p_now then
    if not (fleet.has_due_mdm(p_integration_id, 'send', p_now) or fleet.has_due_mdm(p_integration_id, 'settle', p_now)) then
      next_at := null;
    end if;
    return next;
    return;
  end if;

  -- One call in five looks: however much is to be sent, what was sent is settled, many devices by one call.
  v_look_at := v_bucket.looked_at + make_interval(secs => (5 / v_bucket.rate)::double precision);
  if coalesce(v_look_at <= p_now, true) then
    looks := fleet.take_mdm_looks(p_integration_id, 100, p_now);
  end if;
  v_room := least(floor(v_bucket.tokens)::integer - (looks <> '{}')::integer, p_limit);
  sends := fleet.take_mdm_sends(p_integration_id, v_room, p_now);

  v_bucket.tokens := v_bucket.tokens - (looks <> '{}')::integer - cardinality(sends);
  update fleet.rate_limits as r
  set rate = v_bucket.rate, tokens = v_bucket.tokens, filled_at = v_bucket.filled_at,
      looked_at = case when looks <> '{}' then p_now else r.looked_at end
  where r.integration_id = p_integration_id;
  next_at := least(
    -- At a pace at which each claim brings some leave.
    case
      when cardinality(sends) = v_room then greatest(fleet.next_call_at(v_bucket, p_now), p_now + interval '100 milliseconds')
    end,
    case when looks = '{}' and fleet.has_due_mdm(p_integration_id, 'settle', p_now) then v_look_at end
  );
  return next;
end;
$$;

comment on function fleet.claim_of_mdm(bigint, integer, timestamptz) is
  'Lease work of one integration, and take the leave for it: one call for each send, one for all looks together. next_at says when more '
  'could be claimed; null where nothing else waits.';
revoke all on function fleet.claim_of_mdm(bigint, integer, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.mdm_jobs(p_command_ids bigint[])
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_agg(jsonb_build_object(
    'command_id', c.id, 'attempt', c.attempt, 'command_type', c.command_type, 'payload', c.payload, 'device_id', c.device_id,
    'hostname', c.device_hostname, 'integration_id', w.integration_id, 'external_id', l.external_id, 'attributes', l.attributes,
    'lease_expires_at', w.held_until, 'accepted_at', w.accepted_at, 'unanswered_at', w.unanswered_at, 'result', c.result
  ) order by c.priority desc, c.id), '[]')
  from public.device_commands as c
  join fleet.mdm_work as w on w.command_id = c.id
  -- By now it may have left: then the provider says so.
  join public.device_links as l on l.device_id = c.device_id and l.integration_id = w.integration_id
  where c.id = any (p_command_ids)
$$;

comment on function fleet.mdm_jobs(bigint[]) is 'What a function has to know about the commands that it has leased.';
revoke all on function fleet.mdm_jobs(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.worker_claim_mdm(
  p_limit integer default 20,
  p_except bigint[] default '{}',
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_integration_id bigint;
  v_left integer := least(greatest(p_limit, 1), 200);
  v_claim record;
  v_sends bigint[] := '{}';
  v_looks bigint[] := '{}';
  v_next_at timestamptz;
begin
  perform fleet.sweep_mdm(p_now);
  perform fleet.run_due_mdm(p_now);
  for v_integration_id in
    select i.id
    from public.device_integrations as i
    where i.status = 'active' and i.integration_type = any (fleet.mdm_integration_types()) and i.id <> all (p_except)
    -- Nobody is always last.
    order by random()
  loop
    exit when v_left <= 0;
    select k.* into v_claim from fleet.claim_of_mdm(v_integration_id, v_left, p_now) as k;
    v_sends := v_sends || v_claim.sends;
    v_looks := v_looks || v_claim.looks;
    v_next_at := least(v_next_at, v_claim.next_at);
    v_left := v_left - cardinality(v_claim.sends) - (v_claim.looks <> '{}')::integer;
  end loop;

  return jsonb_build_object(
    'sends', fleet.mdm_jobs(v_sends),
    'looks', fleet.mdm_jobs(v_looks),
    'wait', case
      when v_left <= 0 then 0
      else extract(epoch from least(v_next_at, fleet.next_mdm_schedule_at(p_now + interval '2 seconds')) - p_now)
    end,
    'integrations', (
      select coalesce(jsonb_object_agg(i.id, jsonb_build_object(
        'integration_type', i.integration_type, 'settings', i.settings, 'secret', s.secret
      )), '{}')
      from public.device_integrations as i
      left join public.pg_cron_secrets as s on s.name = 'integration:' || i.id
      where i.id in (select w.integration_id from fleet.mdm_work as w where w.command_id = any (v_sends || v_looks))
    )
  );
end;
$$;

comment on function fleet.worker_claim_mdm(integer, bigint[], timestamptz) is
  'Lease commands for MDMs, as many as their rates let through now, but none of the integrations p_except: {sends, looks, wait, '
  'integrations}. sends are to be handed over; looks were accepted, and their devices are to be looked at, those of one integration '
  'together. Each is {command_id, attempt, command_type, payload, device_id, hostname, integration_id, external_id, attributes, '
  'lease_expires_at, accepted_at, unanswered_at, result}. wait says after how many seconds more could be claimed, and is null where nothing '
  'else waits. integrations: id to {integration_type, settings, secret}. Definer: the worker reads no table.';
revoke all on function fleet.worker_claim_mdm(integer, bigint[], timestamptz) from public, anon, authenticated, service_role;

-- db/sources/60_mdm/35_sweep.sql
-- Clearing up behind functions that stopped in the middle, and ending what has no future.

create or replace function fleet.sweep_mdm(p_now timestamptz)
returns integer
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.sweep_held_sends(p_now) + fleet.sweep_held_looks(p_now) + fleet.give_up_mdm(p_now) + fleet.fail_unlinked_mdm(p_now)
$$;

comment on function fleet.sweep_mdm(timestamptz) is
  'Offer again what a function did not answer for, give up what was never seen to happen, fail what is for devices in no MDM. Answers '
  'how many.';
revoke all on function fleet.sweep_mdm(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.sweep_held_sends(p_now timestamptz, p_limit integer default 1000)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids bigint[];
begin
  select array_agg(k.command_id) into v_ids
  from (
    select w.command_id
    from fleet.mdm_work as w
    join public.device_commands as c on c.id = w.command_id and c.status = 'running'
    where w.phase = 'send' and w.held_until <= p_now
    order by w.held_until
    limit p_limit
    for update of c, w skip locked
  ) as k;
  if v_ids is null then
    return 0;
  end if;

  perform fleet.log_unanswered(v_ids, p_now);
  update fleet.mdm_work as w
  set held_until = null, tries = w.tries + 1, unanswered_at = p_now
  where w.command_id = any (v_ids);
  -- What may be repeated is, the rest is told and ends.
  update public.device_commands as c
  set status = case when t.rerun_safe then 'pending' else 'failed' end,
      reason = case when t.rerun_safe then 'lease_expired' else 'interrupted' end,
      error_message = case
        when t.rerun_safe is not true then 'the function stopped in the middle; the provider may have taken it'
      end,
      lease_expires_at = null
  from public.device_commands as x
  left join public.command_types as t on t.name = x.command_type
  where x.id = c.id and c.id = any (v_ids);
  return cardinality(v_ids);
end;
$$;

comment on function fleet.sweep_held_sends(timestamptz, integer) is
  'A function that was killed while it sent: what may be repeated is offered again, the rest ends as interrupted. Answers how many.';
revoke all on function fleet.sweep_held_sends(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.sweep_held_looks(p_now timestamptz, p_limit integer default 1000)
returns integer
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  with lapsed as (
    select w.command_id
    from fleet.mdm_work as w
    where w.phase = 'settle' and w.held_until <= p_now
    order by w.held_until
    limit p_limit
    for update skip locked
  ),
  offered as (
    update fleet.mdm_work as w
    set held_until = null, due_at = p_now
    where w.command_id = any (array(select l.command_id from lapsed as l))
    returning 1
  )
  select count(*)::integer from offered
$$;

comment on function fleet.sweep_held_looks(timestamptz, integer) is 'A function that was killed while it looked: others look. Answers how many.';
revoke all on function fleet.sweep_held_looks(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.end_mdm(p_command_ids bigint[], p_status text, p_reason text, p_error text, p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  if p_command_ids = '{}' then
    return 0;
  end if;

  update public.device_commands as c
  set status = 'failed', reason = p_reason, error_message = p_error, executed_at = p_now
  where c.id = any (p_command_ids) and c.status = p_status;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.end_mdm(bigint[], text, text, text, timestamptz) is
  'End those of these commands that have this status as failed. Answers how many.';
revoke all on function fleet.end_mdm(bigint[], text, text, text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.give_up_mdm(p_now timestamptz, p_limit integer default 1000)
returns integer
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.end_mdm(
    array(
      select w.command_id
      from fleet.mdm_work as w
      where w.phase = 'settle' and w.give_up_at <= p_now
      order by w.give_up_at
      limit p_limit
      for update skip locked
    ),
    'running', 'unknown', 'the provider took it, and nothing has shown since whether it was done', p_now
  )
$$;

comment on function fleet.give_up_mdm(timestamptz, integer) is 'End what was accepted and never seen to happen. Answers how many.';
revoke all on function fleet.give_up_mdm(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.fail_unlinked_mdm(p_now timestamptz, p_limit integer default 1000)
returns integer
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.end_mdm(
    array(
      select w.command_id
      from fleet.mdm_work as w
      where w.integration_id is null and w.due_at <= p_now
      order by w.due_at
      limit p_limit
      for update skip locked
    ),
    'pending', 'no_mdm_link', 'the device is in no MDM: make an integration and sync its devices', p_now
  )
$$;

comment on function fleet.fail_unlinked_mdm(timestamptz, integer) is 'End what is due for devices in no MDM. Answers how many.';
revoke all on function fleet.fail_unlinked_mdm(timestamptz, integer) from public, anon, authenticated, service_role;

-- db/sources/60_mdm/40_finish.sql
-- How an attempt at an MDM ended: accepted, seen to be done, or failed and tried again by class of failure.

create or replace function fleet.note_mdm_accepted(p_command public.device_commands, p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  update fleet.mdm_work as w
  set accepted_at = p_now
  where w.command_id = p_command.id and w.accepted_at is null;

  -- Of a thousand devices of one schedule, not each has to stand in line for its row.
  update public.schedules as s
  set last_executed_at = p_now
  where s.id = p_command.schedule_id
    and (s.last_executed_at is null or s.last_executed_at < p_now - interval '1 second');
  perform fleet.note_profile_accepted(p_command.schedule_id, p_now);
  if p_command.command_type in ('push_profile', 'remove_profile') then
    perform fleet.note_profile_state(
      p_command.device_id, p_command.payload ->> 'profile_id', p_command.command_type = 'push_profile', null, p_now
    );
  end if;
end;
$$;

comment on function fleet.note_mdm_accepted(public.device_commands, timestamptz) is
  'A provider took a command: that is when its schedule was executed.';
revoke all on function fleet.note_mdm_accepted(public.device_commands, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.mdm_pause(p_tries integer, p_retry_after interval)
returns interval
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  -- A fifth more or less by chance, so that what failed together does not come back together.
  select greatest(
    least(interval '2 seconds' * power(2, least(greatest(p_tries, 1), 12) - 1), interval '5 minutes'),
    case when p_retry_after > interval '0' then least(p_retry_after, interval '1 hour') end
  ) * (1 + 0.2 * random())
$$;

comment on function fleet.mdm_pause(integer, interval) is
  'Pause after the n-th attempt that did not get through: two seconds, doubling up to five minutes; longer where the provider asks for it.';
revoke all on function fleet.mdm_pause(integer, interval) from public, anon, authenticated, service_role;

create or replace function fleet.is_passing_failure(p_reason text, p_rerun_safe boolean)
returns boolean
language sql
immutable
parallel safe
-- After a connection that broke nobody knows whether the provider acted; what may not be repeated ends there.
return coalesce(
  p_reason in ('rate_limited', 'not_called', 'not_sent') or (p_rerun_safe and p_reason in ('network', 'timeout', 'unavailable')), false
);

comment on function fleet.is_passing_failure(text, boolean) is
  'Whether a failure says nothing about the command itself, so that it is tried until the command expires.';
revoke all on function fleet.is_passing_failure(text, boolean) from public, anon, authenticated, service_role;

create or replace function fleet.is_answerless(p_reason text)
returns boolean
language sql
immutable
parallel safe
return coalesce(p_reason in ('network', 'timeout', 'unavailable'), false);

comment on function fleet.is_answerless(text) is 'Whether the provider may have taken a command although the attempt failed.';
revoke all on function fleet.is_answerless(text) from public, anon, authenticated, service_role;

create or replace function fleet.mdm_retry_at(p_work fleet.mdm_work, p_reason text, p_retry_after interval, p_now timestamptz)
returns timestamptz
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select p_now + case
    -- It is the rate that holds these up, for all commands alike: none of them has to step back more than the others.
    when p_reason = 'not_called' then interval '0'
    when p_reason = 'rate_limited' then coalesce(p_retry_after, interval '2 seconds') * (1 + 0.2 * random())
    else fleet.mdm_pause(p_work.tries + 1, p_retry_after)
  end
$$;

comment on function fleet.mdm_retry_at(fleet.mdm_work, text, interval, timestamptz) is
  'When a command is sent again after a failure that passes.';
revoke all on function fleet.mdm_retry_at(fleet.mdm_work, text, interval, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.put_back_mdm(p_command public.device_commands, p_reason text, p_error text, p_at timestamptz, p_now timestamptz)
returns public.device_commands
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_commands;
begin
  update fleet.mdm_work as w
  set tries = w.tries + (p_reason not in ('rate_limited', 'not_called', 'integration_paused'))::integer,
      unanswered_at = case when fleet.is_answerless(p_reason) then p_now else w.unanswered_at end
  where w.command_id = p_command.id;
  -- The trigger puts it back on the queue.
  update public.device_commands as c
  set status = 'pending', reason = p_reason, error_message = p_error, not_before = p_at, lease_expires_at = null
  where c.id = p_command.id
  returning * into v_row;
  return v_row;
end;
$$;

comment on function fleet.put_back_mdm(public.device_commands, text, text, timestamptz, timestamptz) is
  'Let a command wait for another attempt that does not count as a failure of the device.';
revoke all on function fleet.put_back_mdm(public.device_commands, text, text, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.fail_mdm(
  p_command public.device_commands,
  p_work fleet.mdm_work,
  p_result jsonb,
  p_error text,
  p_reason text,
  p_retry_after interval,
  p_now timestamptz
)
returns public.device_commands
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rerun_safe boolean := exists (select 1 from public.command_types as t where t.name = p_command.command_type and t.rerun_safe);
  v_retry_at timestamptz := fleet.mdm_retry_at(p_work, p_reason, p_retry_after, p_now);
  v_row public.device_commands;
begin
  if p_reason in ('unauthorized', 'forbidden', 'integration_paused')
    and exists (select 1 from public.device_integrations as i where i.id = p_work.integration_id and i.status <> 'active')
  then
    -- It waits with all the others until the integration goes on.
    return fleet.put_back_mdm(p_command, 'integration_paused', p_error, p_now, p_now);
  elsif fleet.is_passing_failure(p_reason, v_rerun_safe) and v_retry_at < p_command.expires_at then
    return fleet.put_back_mdm(p_command, p_reason, p_error, v_retry_at, p_now);
  end if;

  v_row := fleet.settle_attempt(
    p_command, 'failed', p_result, p_error,
    -- A class that the policy would try again, but that must not be.
    case when fleet.is_answerless(p_reason) and not v_rerun_safe then 'interrupted' else p_reason end,
    p_now
  );
  if v_row.status = 'pending' then
    v_row := fleet.put_back_mdm(v_row, v_row.reason, p_error, greatest(v_row.not_before, p_now + p_retry_after), p_now);
  end if;
  return v_row;
end;
$$;

comment on function fleet.fail_mdm(public.device_commands, fleet.mdm_work, jsonb, text, text, interval, timestamptz) is
  'An attempt failed: wait, try again, or end, by the class of the failure.';
revoke all on function fleet.fail_mdm(public.device_commands, fleet.mdm_work, jsonb, text, text, interval, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.look_pause(p_since_accepted interval)
returns interval
language sql
immutable
parallel safe
-- Often at first, then less and less: a device may be off for days.
return least(greatest(p_since_accepted / 2, interval '2 seconds'), interval '15 minutes');

comment on function fleet.look_pause(interval) is 'After how long a device is looked at again, by the time since its command was accepted.';
revoke all on function fleet.look_pause(interval) from public, anon, authenticated, service_role;

create or replace function fleet.watch_mdm(
  p_command public.device_commands,
  p_result jsonb,
  p_look_after interval,
  p_now timestamptz
)
returns public.device_commands
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_commands;
begin
  update public.device_commands as c
  -- Where its lease ran out while the answer was on its way, nobody has taken it since.
  set status = 'running', lease_expires_at = greatest(c.expires_at, p_now) + interval '2 hours',
      result = coalesce(p_result, c.result), reason = null, error_message = null
  where c.id = p_command.id
  returning * into v_row;
  update fleet.mdm_work as w
  set phase = 'settle', held_until = null, accepted_at = coalesce(w.accepted_at, p_now),
      due_at = p_now + coalesce(p_look_after, fleet.look_pause(interval '0')),
      give_up_at = greatest(v_row.expires_at, p_now + interval '1 hour')
  where w.command_id = p_command.id;
  return v_row;
end;
$$;

comment on function fleet.watch_mdm(public.device_commands, jsonb, interval, timestamptz) is
  'A provider has taken a command; its device is looked at until the effect shows.';
revoke all on function fleet.watch_mdm(public.device_commands, jsonb, interval, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.worker_finish_mdm(
  p_command_id bigint,
  p_attempt integer,
  p_outcome text,
  p_result jsonb default null,
  p_error text default null,
  p_reason text default null,
  p_retry_after interval default null,
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_command public.device_commands;
  v_work fleet.mdm_work;
  v_secret text;
  v_result jsonb;
  v_error text;
begin
  if p_outcome is null or p_outcome not in ('accepted', 'completed', 'failed') then
    raise exception 'p_outcome must be accepted, completed or failed, not %', coalesce(quote_literal(p_outcome), 'null')
      using errcode = 'PT422', detail = 'outcome_invalid', hint = 'accepted: the provider took it; completed: its effect was seen.';
  end if;

  select c.* into v_command from public.device_commands as c where c.id = p_command_id and c.channel = 'mdm' for update;
  if not found then
    return jsonb_build_object('accepted', false, 'reason', 'not_found');
  elsif v_command.attempt is distinct from p_attempt then
    return jsonb_build_object('accepted', false, 'reason', 'stale_attempt');
  end if;
  select w.* into v_work from fleet.mdm_work as w where w.command_id = p_command_id for update;
  perform fleet.log_callless(v_command, v_work.integration_id, coalesce(p_error, p_reason, p_outcome), p_now);
  select s.secret into v_secret from public.pg_cron_secrets as s where s.name = 'integration:' || v_work.integration_id;
  v_result := fleet.without_secret(p_result::text, v_secret)::jsonb;
  v_error := fleet.without_secret(p_error, v_secret);
  if p_outcome <> 'failed' and (v_work.command_id is not null and v_work.accepted_at is null or v_command.status = 'cancelled') then
    -- Even if it was cancelled meanwhile: the provider has it.
    perform fleet.note_mdm_accepted(v_command, p_now);
  end if;

  if v_command.status = 'cancelled' then
    return jsonb_build_object('accepted', false, 'reason', 'cancelled');
  elsif v_command.status not in ('pending', 'running') then
    -- The answer to a finish may get lost on its way: the same finish again is the same success.
    return case
      when v_command.status = p_outcome then jsonb_build_object('accepted', true, 'status', v_command.status)
      else jsonb_build_object('accepted', false, 'reason', 'already_final')
    end;
  elsif v_command.status = 'pending' and p_outcome = 'failed' then
    return jsonb_build_object('accepted', false, 'reason', 'stale_attempt');
  end if;

  case p_outcome
    when 'completed' then
      update public.device_commands as c
      set status = 'completed', reason = null, error_message = null, executed_at = p_now, result = coalesce(v_result, c.result)
      where c.id = p_command_id
      returning * into v_command;
    when 'accepted' then
      v_command := fleet.watch_mdm(v_command, v_result, p_retry_after, p_now);
    else
      v_command := fleet.fail_mdm(v_command, v_work, v_result, v_error, p_reason, p_retry_after, p_now);
  end case;
  perform fleet.cancel_failed_removals();

  return jsonb_strip_nulls(jsonb_build_object(
    'accepted', true, 'status', v_command.status,
    'retry_at', case when v_command.status = 'pending' then v_command.not_before end,
    'look_at', case
      when v_command.status = 'running' then (select w.due_at from fleet.mdm_work as w where w.command_id = p_command_id)
    end
  ));
end;
$$;

comment on function fleet.worker_finish_mdm(bigint, integer, text, jsonb, text, text, interval, timestamptz) is
  'Say how an attempt to send ended. accepted: the provider took it; it stays running, and p_retry_after says when to look at the device. '
  'completed: it is done. failed: p_reason rate_limited, not_called, not_sent, network, timeout and unavailable (5xx) are tried again until '
  'the command expires, unless it may not be repeated; error and its kin as the retry policy says; anything else is final. {accepted, '
  'status, retry_at, look_at} or {accepted: false, reason}. Definer: the worker writes no table.';
revoke all on function fleet.worker_finish_mdm(bigint, integer, text, jsonb, text, text, interval, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/60_mdm/45_looks.sql
-- What looks at devices have shown: done, not yet, or never.

create or replace function fleet.seen_looks(p_reports jsonb)
returns table (
  command_id bigint, outcome text, result jsonb, error text, reason text, look_after interval
)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select c.id, r.outcome, r.result, r.error, r.reason, make_interval(secs => r.look_after)
  from jsonb_to_recordset(p_reports) as r (
    command_id bigint, attempt integer, outcome text, result jsonb, error text, reason text, look_after double precision
  )
  join public.device_commands as c on c.id = r.command_id
  join fleet.mdm_work as w on w.command_id = c.id and w.phase = 'settle'
  -- What was put back, or cancelled, or ended meanwhile is not what was looked after.
  where c.status = 'running' and c.attempt = r.attempt
  order by c.id
  for update of c, w;
end;
$$;

comment on function fleet.seen_looks(jsonb) is 'The reports that still hold, their commands locked.';
revoke all on function fleet.seen_looks(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.worker_finish_looks(
  p_integration_id bigint,
  p_reports jsonb,
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_secret text;
  v_seen jsonb;
  v_count jsonb;
begin
  select s.secret into v_secret from public.pg_cron_secrets as s where s.name = 'integration:' || p_integration_id;
  select coalesce(jsonb_agg(to_jsonb(s)), '[]') into v_seen
  from fleet.seen_looks(fleet.without_secret(p_reports::text, v_secret)::jsonb) as s;

  update fleet.mdm_work as w
  set held_until = null, due_at = p_now + coalesce(r.look_after, fleet.look_pause(p_now - w.accepted_at))
  from jsonb_to_recordset(v_seen) as r (command_id bigint, outcome text, look_after interval)
  where w.command_id = r.command_id and r.outcome = 'accepted';
  update public.device_commands as c
  set status = case when r.outcome = 'accepted' then c.status else r.outcome end,
      result = coalesce(r.result, c.result),
      reason = case when r.outcome = 'failed' then coalesce(r.reason, 'error') end,
      error_message = case when r.outcome = 'failed' then r.error end,
      executed_at = case when r.outcome = 'accepted' then c.executed_at else p_now end
  from jsonb_to_recordset(v_seen) as r (command_id bigint, outcome text, result jsonb, reason text, error text)
  where c.id = r.command_id
    and r.outcome in ('accepted', 'completed', 'failed')
    -- A look that showed nothing new leaves no trace.
    and (r.outcome <> 'accepted' or r.result is distinct from c.result);
  perform fleet.cancel_failed_removals();

  select coalesce(jsonb_object_agg(k.outcome, k.n), '{}') into v_count
  from (
    select r.outcome, count(*) as n from jsonb_to_recordset(v_seen) as r (outcome text) group by r.outcome
  ) as k;
  return v_count;
end;
$$;

comment on function fleet.worker_finish_looks(bigint, jsonb, timestamptz) is
  'Say what looks at the devices of one integration have shown: a list of {command_id, attempt, outcome, result, error, reason, look_after}. '
  'completed: its effect was seen; accepted: not yet, it is looked at again after look_after seconds, or less and less often; failed: it '
  'will not happen. What no longer holds is passed over. Answers how many there were of each outcome. Definer: the worker writes no table.';
revoke all on function fleet.worker_finish_looks(bigint, jsonb, timestamptz) from public, anon, authenticated, service_role;

-- db/sources/60_mdm/50_worker.sql
-- The log of calls to MDMs, and the secrets that they refuse.

create or replace function fleet.without_secret(p_text text, p_secret text)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when coalesce(length(p_secret), 0) < 4 then p_text
    else replace(
      replace(p_text, p_secret, '***'),
      -- As in an Authorization header, where the secret is the user and there is no password.
      replace(encode(convert_to(p_secret || ':', 'UTF8'), 'base64'), E'\n', ''), '***'
    )
  end
$$;

comment on function fleet.without_secret(text, text) is 'A text with a secret taken out of it, also as HTTP Basic has it.';
revoke all on function fleet.without_secret(text, text) from public, anon, authenticated, service_role;

create or replace function fleet.clean_calls(p_calls jsonb)
returns setof public.mdm_api_logs
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select k.id, i.owner_id, i.id, k.command_id, k.attempt, coalesce(k.method, 'GET'),
    coalesce(fleet.without_secret(k.url, s.secret), ''), k.status, k.duration_ms::integer,
    left(fleet.without_secret(k.request_body, s.secret), 10000), left(fleet.without_secret(k.response_body, s.secret), 10000),
    left(fleet.without_secret(k.error, s.secret), 2000), coalesce(k.at, clock_timestamp())
  from jsonb_to_recordset(p_calls) as k (
    id bigint, integration_id bigint, command_id bigint, attempt integer, method text, url text, status integer, duration_ms numeric,
    request_body text, response_body text, error text, at timestamptz
  )
  join public.device_integrations as i on i.id = k.integration_id
  left join public.pg_cron_secrets as s on s.name = 'integration:' || i.id
$$;

comment on function fleet.clean_calls(jsonb) is 'Calls as the log takes them: shortened, and without the secret wherever it appears.';
revoke all on function fleet.clean_calls(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.worker_begin_mdm_call(p_call jsonb)
returns bigint
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  insert into public.mdm_api_logs (owner_id, integration_id, command_id, attempt, method, url, request_body, created_at)
  select k.owner_id, k.integration_id, k.command_id, k.attempt, k.method, k.url, k.request_body, k.created_at
  from fleet.clean_calls(jsonb_build_array(p_call)) as k
  returning id
$$;

comment on function fleet.worker_begin_mdm_call(jsonb) is
  'Write a call to the log before it is made, so that it is there whatever happens: {integration_id, command_id, attempt, method, url, '
  'request_body, at}. Answers the id under which worker_log_mdm_calls completes it. Definer: the worker writes no table.';
revoke all on function fleet.worker_begin_mdm_call(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.worker_log_mdm_calls(p_calls jsonb)
returns integer
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  update public.mdm_api_logs as l
  set status = k.status, duration_ms = k.duration_ms, response_body = k.response_body, error = k.error
  from fleet.clean_calls(p_calls) as k
  where l.id = k.id and l.integration_id = k.integration_id;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.worker_log_mdm_calls(jsonb) is
  'Complete calls that were begun: a list of {id, integration_id, status, duration_ms, response_body, error}. Answers how many. Definer: '
  'the worker writes no table.';
revoke all on function fleet.worker_log_mdm_calls(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.log_callless(p_command public.device_commands, p_integration_id bigint, p_error text, p_now timestamptz)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  insert into public.mdm_api_logs (owner_id, integration_id, command_id, attempt, error, created_at)
  select p_command.owner_id, p_integration_id, p_command.id, p_command.attempt,
    left(fleet.without_secret(
      p_error, (select s.secret from public.pg_cron_secrets as s where s.name = 'integration:' || p_integration_id)
    ), 2000),
    p_now
  where not exists (
    select 1 from public.mdm_api_logs as l where l.command_id = p_command.id and l.attempt = p_command.attempt
  )
$$;

comment on function fleet.log_callless(public.device_commands, bigint, text, timestamptz) is
  'Note an attempt that came to no call; nothing where it made one.';
revoke all on function fleet.log_callless(public.device_commands, bigint, text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.log_unanswered(p_command_ids bigint[], p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  update public.mdm_api_logs as l
  set error = 'the function stopped before it noted an answer'
  from public.device_commands as c
  where c.id = any (p_command_ids) and l.command_id = c.id and l.attempt = c.attempt and l.status is null and l.error is null;
  insert into public.mdm_api_logs (owner_id, integration_id, command_id, attempt, error, created_at)
  select c.owner_id, w.integration_id, c.id, c.attempt, 'the function stopped before it called', p_now
  from public.device_commands as c
  join fleet.mdm_work as w on w.command_id = c.id
  where c.id = any (p_command_ids)
    and not exists (select 1 from public.mdm_api_logs as l where l.command_id = c.id and l.attempt = c.attempt);
end;
$$;

comment on function fleet.log_unanswered(bigint[], timestamptz) is
  'Note how the attempts of functions that were killed ended: before a call, or before its answer.';
revoke all on function fleet.log_unanswered(bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_pause_integration(p_integration_id bigint, p_reason text)
returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  update public.device_integrations as i
  set status = 'paused', needs_secret = true, sync_held_until = null,
      status_reason = fleet.without_secret(
        p_reason, (select s.secret from public.pg_cron_secrets as s where s.name = 'integration:' || i.id)
      )
  where i.id = p_integration_id and i.status = 'active';
  return found;
end;
$$;

comment on function fleet.worker_pause_integration(bigint, text) is
  'The other side refuses the secret: everything waits until it is replaced. Answers whether it was active before. Definer: the worker '
  'writes no table.';
revoke all on function fleet.worker_pause_integration(bigint, text) from public, anon, authenticated, service_role;

-- db/sources/60_mdm/54_sightings.sql
-- What an MDM says of its devices, read without raising, and which of our devices it means.

create or replace function fleet.is_within(p_value jsonb, p_from numeric, p_to numeric)
returns boolean
language sql
immutable
parallel safe
-- Some systems write numbers as text.
return case
  when jsonb_typeof(p_value) in ('number', 'string') and p_value #>> '{}' ~ '^-?\d{1,9}(\.\d{1,18})?$'
    then (p_value #>> '{}')::numeric between p_from and p_to
  else false
end;

comment on function fleet.is_within(jsonb, numeric, numeric) is 'Whether a value in JSON is a number within bounds, also one written as text.';
revoke all on function fleet.is_within(jsonb, numeric, numeric) from public, anon, authenticated, service_role;

create or replace function fleet.are_ids(p_value jsonb)
returns boolean
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case jsonb_typeof(p_value)
    when 'array' then not exists (
      select 1
      from jsonb_array_elements(p_value) as e(item)
      where jsonb_typeof(e.item) not in ('string', 'number') or length(e.item #>> '{}') not between 1 and 255
    )
    else false
  end
$$;

comment on function fleet.are_ids(jsonb) is 'Whether a value in JSON is a list of ids, as texts or numbers.';
revoke all on function fleet.are_ids(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.sighting_problem(p_item jsonb)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select nullif(concat_ws(
    '; ',
    case when coalesce(btrim(p_item ->> 'external_id'), '') = '' then 'external_id is missing' end,
    (
      select string_agg(format('%s cannot be %s', f.name, left(f.value #>> '{}', 40)), '; ')
      from (
        select t.name, p_item -> t.name as value,
          jsonb_typeof(p_item -> t.name) = 'string' and length(p_item ->> t.name) <= 255 as is_fit
        from unnest('{hostname,name,serial_number,platform}'::text[]) as t(name)
        union all
        select t.name, p_item -> t.name, fleet.try_exact_instant(p_item ->> t.name) is not null
        from unnest('{last_seen,located_at}'::text[]) as t(name)
        union all
        select v.name, p_item -> v.name, v.is_fit
        from (
          values
            (
              'external_id',
              jsonb_typeof(p_item -> 'external_id') in ('string', 'number') and length(p_item ->> 'external_id') <= 255
            ),
            ('latitude', fleet.is_within(p_item -> 'latitude', -90, 90)),
            ('longitude', fleet.is_within(p_item -> 'longitude', -180, 180)),
            ('accuracy_m', fleet.is_within(p_item -> 'accuracy_m', 0, 20000000)),
            ('is_enrolled', jsonb_typeof(p_item -> 'is_enrolled') = 'boolean'),
            ('attributes', jsonb_typeof(p_item -> 'attributes') = 'object'),
            ('capabilities', jsonb_typeof(p_item -> 'capabilities') = 'object'),
            ('profiles', fleet.are_ids(p_item -> 'profiles'))
        ) as v(name, is_fit)
      ) as f
      where jsonb_typeof(f.value) <> 'null' and not f.is_fit
    )
  ), '')
$$;

comment on function fleet.sighting_problem(jsonb) is 'All that is wrong with what another system says of one device; null where nothing is.';
revoke all on function fleet.sighting_problem(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.parsed_sightings(p_devices jsonb)
returns table (
  nr bigint, external_id text, name text, hostname text, serial_number text, platform text, last_seen timestamptz,
  is_enrolled boolean, attributes jsonb, capabilities jsonb, profiles jsonb, latitude jsonb, longitude jsonb, accuracy_m jsonb, located_at text,
  problem text
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with given as (
    select e.nr, e.item, fleet.sighting_problem(e.item) as problem,
      -- Of a device that is told twice the last word counts.
      row_number() over (partition by e.item ->> 'external_id' order by e.nr desc) as place
    from (
      select x.nr, case jsonb_typeof(x.item) when 'object' then x.item else '{}' end as item
      from jsonb_array_elements(p_devices) with ordinality as x(item, nr)
    ) as e
  ),
  fit as materialized (
    select g.nr, case when g.problem is null then g.item else '{}' end as item, g.item ->> 'external_id' as external_id, g.problem
    from given as g
    where g.place = 1 or g.item ->> 'external_id' is null
  )
  select f.nr, f.external_id, n.name, coalesce(n.name, n.serial_number, f.external_id), n.serial_number,
    nullif(f.item ->> 'platform', ''),
    fleet.try_exact_instant(f.item ->> 'last_seen'),
    coalesce((f.item ->> 'is_enrolled')::boolean, true),
    coalesce(nullif(f.item -> 'attributes', 'null'), '{}'),
    jsonb_strip_nulls(coalesce(nullif(f.item -> 'capabilities', 'null'), '{}')),
    case jsonb_typeof(f.item -> 'profiles')
      -- Numbers among them become texts, as everywhere.
      when 'array' then (
        select coalesce(jsonb_agg(distinct p.id), '[]') from jsonb_array_elements_text(f.item -> 'profiles') as p(id)
      )
    end,
    f.item -> 'latitude', f.item -> 'longitude', f.item -> 'accuracy_m', f.item ->> 'located_at', f.problem
  from fit as f
  cross join lateral (
    select coalesce(nullif(btrim(f.item ->> 'hostname'), ''), nullif(btrim(f.item ->> 'name'), '')) as name,
      nullif(btrim(f.item ->> 'serial_number'), '') as serial_number
  ) as n
$$;

comment on function fleet.parsed_sightings(jsonb) is
  'What another system says of its devices as columns, each device once. What is wrong with one is its problem, not that of the others; '
  'name is null where it told none, hostname then is made of what it told.';
revoke all on function fleet.parsed_sightings(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.matched_sightings(p_integration public.device_integrations, p_items jsonb)
returns table (nr bigint, device_id bigint)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with items as materialized (
    select i.nr, i.external_id, i.serial_number, lower(i.name) as name, i.is_enrolled
    from jsonb_to_recordset(p_items) as i(
      nr bigint, external_id text, serial_number text, name text, is_enrolled boolean
    )
  ),
  linked as materialized (
    select i.nr, l.device_id, i.is_enrolled
    from items as i
    join public.device_links as l on l.integration_id = p_integration.id and l.external_id = i.external_id
  ),
  strange as materialized (
    select i.* from items as i where i.is_enrolled and not exists (select 1 from linked as l where l.nr = i.nr)
  ),
  -- One that the other system has under another id is not free; one that has left it is, for who has its serial number.
  free as materialized (
    select d.id, d.attributes ->> 'serial_number' as serial_number, lower(d.hostname) as name, l.device_id is null as is_unlinked
    from public.devices as d
    left join public.device_links as l on l.device_id = d.id and l.integration_id = p_integration.id
    left join linked as k on k.device_id = d.id
    where d.owner_id = p_integration.owner_id
      and exists (select 1 from strange)
      and (
        d.attributes ->> 'serial_number' in (select s.serial_number from strange as s)
        or lower(d.hostname) in (select s.name from strange as s)
      )
      and (l.device_id is null or l.left_at is not null or not k.is_enrolled)
      and k.is_enrolled is distinct from true
  ),
  by_serial as materialized (
    select s.nr, f.id as device_id
    from (
      select x.nr, x.serial_number, row_number() over (partition by x.serial_number order by x.nr) as place
      from strange as x
    ) as s
    join (
      select x.id, x.serial_number, row_number() over (partition by x.serial_number order by x.id) as place
      from free as x
    ) as f on f.serial_number = s.serial_number and f.place = s.place
  ),
  by_name as (
    select distinct on (f.id) s.nr, f.id as device_id
    from strange as s
    join free as f on f.name = s.name and f.is_unlinked
    where coalesce(f.serial_number = s.serial_number, true)
      and not exists (select 1 from by_serial as b where b.nr = s.nr or b.device_id = f.id)
    order by f.id, s.nr
  )
  select l.nr, l.device_id
  from linked as l
  where l.is_enrolled or not exists (select 1 from by_serial as b where b.device_id = l.device_id)
  union all
  select b.nr, b.device_id from by_serial as b
  union all
  select b.nr, b.device_id from by_name as b
$$;

comment on function fleet.matched_sightings(public.device_integrations, jsonb) is
  'Which of our devices another system means: by the link, else the serial number, else the name. No device is meant by two items and no '
  'item means two devices; no row for an item that means none of ours, nor for one that is not enrolled and was never linked.';
revoke all on function fleet.matched_sightings(public.device_integrations, jsonb) from public, anon, authenticated, service_role;

-- db/sources/60_mdm/55_inventory.sql
-- Bringing the devices of an MDM into the registry: a page of any size by a handful of statements.

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
      insert into public.devices (owner_id, hostname, platform, attributes, last_seen)
      select p_owner_id, w.hostname, w.item ->> 'platform', fleet.sighted_attributes(w.item),
        (w.item ->> 'last_seen')::timestamptz
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
      set external_id = excluded.external_id, attributes = excluded.attributes, capabilities = excluded.capabilities,
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

create or replace function fleet.note_sighted_profiles(p_items jsonb, p_now timestamptz)
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

comment on function fleet.note_sighted_profiles(jsonb, timestamptz) is
  'Keep which profiles are on devices, where the other system tells them.';
revoke all on function fleet.note_sighted_profiles(jsonb, timestamptz) from public, anon, authenticated, service_role;

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
  v_left integer;
begin
  select coalesce(jsonb_agg(to_jsonb(s) - 'problem') filter (where s.problem is null), '[]'),
    coalesce(
      jsonb_agg(jsonb_build_object('external_id', s.external_id, 'error', s.problem) order by s.nr)
        filter (where s.problem is not null),
      '[]'
    )
  into v_items, v_errors
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
  perform fleet.note_sighted_profiles(v_known || v_made, p_now);
  perform fleet.take_linked_fixes(p_integration.id, v_known || v_made, p_now);

  -- They are there, whatever is wrong with what is told of them.
  update public.device_links as l
  set seen_at = p_now
  from jsonb_to_recordset(v_errors) as e(external_id text)
  where l.integration_id = p_integration.id and l.external_id = e.external_id;
  return jsonb_build_object(
    'created', jsonb_array_length(v_made), 'updated', jsonb_array_length(v_known), 'left', v_left,
    'errors', v_errors || fleet.nameless_sightings(v_new, v_made)
  );
end;
$$;

comment on function fleet.take_sightings(public.device_integrations, jsonb, timestamptz) is
  'Bring what another system says of its devices into the fleet; the caller has locked the integration. {created, updated, left, errors}.';
revoke all on function fleet.take_sightings(public.device_integrations, jsonb, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/60_mdm/56_sync.sql
-- Reading all devices of an MDM: whose turn it is, page by page, and what holds when a sync came to its end.

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
    'secret', s.secret, 'last_sync_at', t.last_sync_at, 'started_at', p_now
  )
  from taken as t
  left join public.pg_cron_secrets as s on s.name = 'integration:' || t.id
$$;

comment on function fleet.worker_claim_mdm_syncs(integer, timestamptz) is
  'Lease integrations whose devices are to be read, for five minutes: {integration_id, owner_id, integration_type, settings, secret, '
  'last_sync_at, started_at}. worker_end_mdm_sync ends the lease. Definer: the worker reads no table.';
revoke all on function fleet.worker_claim_mdm_syncs(integer, timestamptz) from public, anon, authenticated, service_role;

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
  return jsonb_build_object('accepted', true) || fleet.take_sightings(v_integration, p_devices, p_now);
end;
$$;

comment on function fleet.worker_sync_inventory(bigint, jsonb, timestamptz) is
  'Bring a page of devices into the fleet: a list of {external_id, hostname or name, serial_number, platform, last_seen, latitude, longitude, '
  'accuracy_m, located_at, is_enrolled (false: it has left), attributes, profiles (ids, where they are known)}. {accepted, created, updated, '
  'left, errors: [{external_id, error}]}. Definer: the worker writes no table.';
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
  'Note that another system no longer has the devices that were not seen since a sync began. Answers how many.';
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
  perform fleet.note_activity(v_integration, jsonb_build_object(
    'activity_type', 'sync_import',
    'status', case when v_is_through then 'completed' else 'failed' end,
    'counts', v_counts,
    'duration_ms', round(extract(epoch from p_now - p_started_at) * 1000),
    'error', p_report -> 'error',
    'detail', jsonb_build_object('errors', fleet.errors_to_log(coalesce(p_report -> 'errors', '[]'), p_integration_id))
  ), p_now);
  return jsonb_build_object('accepted', true, 'left', v_left);
end;
$$;

comment on function fleet.worker_end_mdm_sync(bigint, timestamptz, jsonb, timestamptz) is
  'A sync that began at started_at has read every page, or stopped for an error: {counts: {devices, created, updated, left, errors}, errors: '
  '[{external_id, error}], error}. What a whole one did not see has left. {accepted, left}. Definer: the worker writes no table.';
revoke all on function fleet.worker_end_mdm_sync(bigint, timestamptz, jsonb, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/60_mdm/57_activity.sql
-- The log of what integrations did.

create or replace function fleet.note_activity(
  p_integration public.device_integrations,
  p_activity jsonb,
  p_now timestamptz
)
returns bigint
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  insert into public.integration_activity_log (
    owner_id, integration_id, activity_type, status, counts, duration_ms, error, detail, origin_key, created_at
  )
  select p_integration.owner_id, p_integration.id, p_activity ->> 'activity_type', p_activity ->> 'status',
    coalesce(p_activity -> 'counts', '{}'), (p_activity ->> 'duration_ms')::numeric,
    left(fleet.without_secret(p_activity ->> 'error', s.secret), 2000), coalesce(p_activity -> 'detail', '{}'),
    p_activity ->> 'origin_key', p_now
  from (select 1) as one
  left join public.pg_cron_secrets as s on s.name = 'integration:' || p_integration.id
  on conflict (integration_id, origin_key) do nothing
  returning id
$$;

comment on function fleet.note_activity(public.device_integrations, jsonb, timestamptz) is
  'Log {activity_type, status, counts, duration_ms, error, detail, origin_key}. Answers the id of the row; null where it was there already.';
revoke all on function fleet.note_activity(public.device_integrations, jsonb, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.errors_to_log(p_errors jsonb, p_integration_id bigint)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_agg(jsonb_build_object(
    'external_id', e.item -> 'external_id', 'error', fleet.without_secret(left(e.item ->> 'error', 500), s.secret)
  ) order by e.nr), '[]')
  from jsonb_array_elements(p_errors) with ordinality as e(item, nr)
  left join public.pg_cron_secrets as s on s.name = 'integration:' || p_integration_id
  where e.nr <= 20
$$;

comment on function fleet.errors_to_log(jsonb, bigint) is 'The first twenty errors about devices, without the secret of the integration.';
revoke all on function fleet.errors_to_log(jsonb, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.prune_activity(p_before timestamptz, p_limit integer default 5000)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  delete from public.integration_activity_log as l
  where l.id in (
    select x.id from public.integration_activity_log as x where x.created_at < p_before order by x.created_at limit p_limit
  );
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.prune_activity(timestamptz, integer) is 'Delete a batch of old activity of integrations. Answers how many.';
revoke all on function fleet.prune_activity(timestamptz, integer) from public, anon, authenticated, service_role;

-- db/sources/60_mdm/57_webhooks.sql
-- Secret addresses on which another system tells what happened there.

create or replace function fleet.create_integration_webhook(p_integration_id bigint)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_integration public.device_integrations := fleet.integration_of_caller(p_integration_id);
  v_token text := fleet.random_secret();
  v_path text := '/integration-webhook/' || v_token;
  v_row public.integration_webhooks;
begin
  insert into public.integration_webhooks (owner_id, integration_id, token_hash, created_by)
  values (v_integration.owner_id, v_integration.id, fleet.hash_secret(v_token), fleet.current_user_id())
  returning * into v_row;
  return to_jsonb(v_row) - 'token_hash'
    || jsonb_build_object('token', v_token, 'path', v_path, 'url', (fleet.setting('functions_url') #>> '{}') || v_path);
end;
$$;

comment on function fleet.create_integration_webhook(bigint) is 'See public.create_integration_webhook. Definer: it checks the caller.';
revoke all on function fleet.create_integration_webhook(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.create_integration_webhook(bigint) to authenticated, service_role;

create or replace function public.create_integration_webhook(p_integration_id bigint)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.create_integration_webhook(p_integration_id)
$$;

comment on function public.create_integration_webhook(bigint) is
  'Make a secret address on which the other system tells what happens there; shown this once. {id, token, path, url}; url is null while the '
  'setting functions_url is. Others that were made before go on working until they are revoked. Raises integration_not_found (PT404) or '
  'permission_missing (PT403).';
revoke all on function public.create_integration_webhook(bigint) from public, anon, authenticated, service_role;
grant execute on function public.create_integration_webhook(bigint) to authenticated, service_role;

create or replace function fleet.revoke_integration_webhook(p_id bigint)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid;
begin
  select w.owner_id into v_owner
  from public.integration_webhooks as w
  where w.id = p_id and fleet.is_visible_owner(w.owner_id);
  if not found then
    perform fleet.raise_not_found(format('integration webhook %s', p_id));
  end if;
  perform fleet.require_permission(v_owner, 'manage', format('integration webhook %s', p_id));
  update public.integration_webhooks as w set revoked_at = now() where w.id = p_id and w.revoked_at is null;
end;
$$;

comment on function fleet.revoke_integration_webhook(bigint) is 'See public.revoke_integration_webhook. Definer: it checks the caller.';
revoke all on function fleet.revoke_integration_webhook(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.revoke_integration_webhook(bigint) to authenticated, service_role;

create or replace function public.revoke_integration_webhook(p_id bigint)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.revoke_integration_webhook(p_id)
$$;

comment on function public.revoke_integration_webhook(bigint) is
  'Make the address of another system useless. Raises integration_webhook_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.revoke_integration_webhook(bigint) from public, anon, authenticated, service_role;
grant execute on function public.revoke_integration_webhook(bigint) to authenticated, service_role;

create or replace function fleet.worker_take_integration_webhook(
  p_token text,
  p_body jsonb,
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_webhook public.integration_webhooks;
  v_integration public.device_integrations;
begin
  select w.* into v_webhook
  from public.integration_webhooks as w
  where w.token_hash = fleet.hash_secret(p_token) and w.revoked_at is null;
  if not found then
    raise exception 'there is no such webhook, or its address was revoked'
      using errcode = 'PT404',
            detail = 'integration_webhook_not_found',
            hint = 'Make a new address: select create_integration_webhook()';
  end if;

  -- They may come often; a write each time would be waste.
  update public.integration_webhooks as w
  set last_used_at = p_now
  where w.id = v_webhook.id and (w.last_used_at is null or w.last_used_at < p_now - interval '1 minute');
  select i.* into v_integration from public.device_integrations as i where i.id = v_webhook.integration_id;
  return case v_integration.integration_type
    when 'simplemdm' then fleet.take_simplemdm_hint(v_integration, p_body, p_now)
    else fleet.ignore_webhook(v_integration, p_now)
  end;
end;
$$;

comment on function fleet.worker_take_integration_webhook(text, jsonb, timestamptz) is
  'Take what another system tells on its secret address, according to the type of the integration. {status, is_new}. Raises '
  'integration_webhook_not_found (PT404). Definer: the address alone says whose it is.';
revoke all on function fleet.worker_take_integration_webhook(text, jsonb, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.ignore_webhook(p_integration public.device_integrations, p_now timestamptz)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object('status', 'ignored', 'is_new', fleet.note_activity(p_integration, jsonb_build_object(
    'activity_type', 'webhook_received', 'status', 'ignored',
    'error', format('nothing is known of webhooks of %s', p_integration.integration_type)
  ), p_now) is not null)
$$;

comment on function fleet.ignore_webhook(public.device_integrations, timestamptz) is
  'Log a webhook of a system that is not understood.';
revoke all on function fleet.ignore_webhook(public.device_integrations, timestamptz) from public, anon, authenticated, service_role;

-- db/sources/60_mdm/58_rereads.sql
-- Devices of an MDM that are to be looked at again, because its webhook spoke of them. What it says is a hint: only what the
-- MDM answers when it is asked counts.

create or replace function fleet.simplemdm_hint(p_body jsonb)
returns table (event text, external_id text, is_known boolean, origin_key text, detail jsonb)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select g.event, g.external_id,
    g.event in ('device.enrolled', 'device.unenrolled', 'device.changed_group', 'device.lock.enabled', 'abm.device.added'),
    -- Without a time two that look alike may be two.
    case
      when g.at is not null
        then encode(sha256(convert_to(jsonb_build_array(g.event, g.at, coalesce(g.external_id, g.serial_number))::text, 'UTF8')), 'hex')
    end,
    jsonb_strip_nulls(jsonb_build_object(
      'event', g.event, 'at', g.at, 'external_id', g.external_id, 'serial_number', g.serial_number
    ))
  from (
    select left(b.body ->> 'type', 100) as event, left(b.body ->> 'at', 100) as at,
      -- It becomes part of an address.
      substring(b.body #>> '{data,device,id}' from '^\d{1,18}$') as external_id,
      left(b.body #>> '{data,device,serial_number}', 100) as serial_number
    from (select case jsonb_typeof(p_body) when 'object' then p_body else '{}' end as body) as b
  ) as g
$$;

comment on function fleet.simplemdm_hint(jsonb) is
  'What the body of a webhook of SimpleMDM speaks of: the event, the device where it has an id, and what the same webhook would have too.';
revoke all on function fleet.simplemdm_hint(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.take_simplemdm_hint(p_integration public.device_integrations, p_body jsonb, p_now timestamptz)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_hint record;
  v_status text;
  v_is_new boolean;
begin
  select h.*, coalesce(h.is_known, false) and p_integration.status <> 'disabled' as is_meant into v_hint
  from fleet.simplemdm_hint(p_body) as h;
  v_status := case when v_hint.is_meant then 'completed' else 'ignored' end;
  v_is_new := fleet.note_activity(p_integration, jsonb_build_object(
    'activity_type', 'webhook_received', 'status', v_status, 'origin_key', v_hint.origin_key, 'detail', v_hint.detail
  ), p_now) is not null;

  if v_is_new and v_hint.is_meant then
    if v_hint.external_id is null then
      update public.device_integrations as i set sync_requested_at = p_now where i.id = p_integration.id;
    else
      perform fleet.ask_for_reread(p_integration.id, v_hint.external_id, p_now);
    end if;
    if fleet.has_mdm_work(p_now) then
      -- With the turnstile: nobody holds this transaction open, and many may come at once.
      perform fleet.poke_once_a_second('mdm-dispatch', p_now);
    end if;
  end if;
  return jsonb_build_object('status', v_status, 'is_new', v_is_new);
end;
$$;

comment on function fleet.take_simplemdm_hint(public.device_integrations, jsonb, timestamptz) is
  'Log a webhook of SimpleMDM, once, and ask for a look at its device; where it names none by id, for a sync. {status, is_new}.';
revoke all on function fleet.take_simplemdm_hint(public.device_integrations, jsonb, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.ask_for_reread(p_integration_id bigint, p_external_id text, p_now timestamptz)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  insert into fleet.mdm_rereads as r (integration_id, external_id, asked_at, look_at)
  select p_integration_id, p_external_id, p_now,
    -- One look serves all that comes within a few seconds.
    greatest(p_now, (
      select greatest(l.seen_at, l.left_at) + interval '5 seconds'
      from public.device_links as l
      where l.integration_id = p_integration_id and l.external_id = p_external_id
    ))
  on conflict (integration_id, external_id) do update
    set asked_at = excluded.asked_at
$$;

comment on function fleet.ask_for_reread(bigint, text, timestamptz) is 'Have a device looked at again; once, however often it is asked for.';
revoke all on function fleet.ask_for_reread(bigint, text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.has_mdm_rereads(p_integration_id bigint, p_now timestamptz)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select 1
    from fleet.mdm_rereads as r
    where r.integration_id = p_integration_id and r.look_at <= p_now and coalesce(r.held_until <= p_now, true)
  )
$$;

comment on function fleet.has_mdm_rereads(bigint, timestamptz) is 'Whether devices of an integration are to be looked at now.';
revoke all on function fleet.has_mdm_rereads(bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_claim_mdm_rereads(p_limit integer default 20, p_now timestamptz default clock_timestamp())
returns setof jsonb
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  with due as (
    select r.integration_id, r.external_id
    from fleet.mdm_rereads as r
    join public.device_integrations as i on i.id = r.integration_id and i.status = 'active'
    where r.look_at <= p_now and coalesce(r.held_until <= p_now, true)
    order by r.look_at
    limit least(greatest(p_limit, 1), 200)
    for update of r skip locked
  ),
  taken as (
    update fleet.mdm_rereads as r
    set held_until = p_now + interval '1 minute', tries = r.tries + 1
    from due
    where r.integration_id = due.integration_id and r.external_id = due.external_id
    returning r.*
  )
  select jsonb_build_object(
    'integration_id', i.id, 'integration_type', i.integration_type, 'settings', i.settings, 'secret', s.secret,
    'external_id', t.external_id, 'asked_at', t.asked_at, 'tries', t.tries
  )
  from taken as t
  join public.device_integrations as i on i.id = t.integration_id
  left join public.pg_cron_secrets as s on s.name = 'integration:' || i.id
$$;

comment on function fleet.worker_claim_mdm_rereads(integer, timestamptz) is
  'Lease devices that are to be looked at again, for a minute: {integration_id, integration_type, settings, secret, external_id, asked_at, '
  'tries}. worker_finish_mdm_reread ends the lease. Definer: the worker reads no table.';
revoke all on function fleet.worker_claim_mdm_rereads(integer, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_finish_mdm_reread(
  p_claim jsonb,
  p_devices jsonb,
  p_error text default null,
  p_retry_after interval default null,
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
  v_external_id text := p_claim ->> 'external_id';
  v_tries integer := (p_claim ->> 'tries')::integer;
  v_answer jsonb := '{}';
begin
  select i.* into v_integration from public.device_integrations as i where i.id = (p_claim ->> 'integration_id')::bigint for update;
  if not found then
    return jsonb_build_object('accepted', false, 'reason', 'not_found');
  end if;

  if p_error is null then
    v_answer := fleet.take_sightings(v_integration, p_devices, p_now);
    update public.device_links as l
    set left_at = p_now, updated_at = p_now
    where p_devices = '[]' and l.integration_id = v_integration.id and l.external_id = v_external_id and l.left_at is null;
  end if;
  delete from fleet.mdm_rereads as r
  where r.integration_id = v_integration.id
    and r.external_id = v_external_id
    -- Who asked while it was looked at wants another look.
    and (p_error is null and r.asked_at = (p_claim ->> 'asked_at')::timestamptz or p_error is not null and v_tries >= 8);
  update fleet.mdm_rereads as r
  set held_until = null,
      tries = case when p_error is null then 0 else r.tries end,
      look_at = p_now + case
        when p_error is null then interval '5 seconds'
        else greatest(p_retry_after, least(interval '10 seconds' * 2 ^ v_tries, interval '1 hour'))
      end
  where r.integration_id = v_integration.id and r.external_id = v_external_id and r.tries = v_tries;
  return jsonb_build_object('accepted', true) || v_answer;
end;
$$;

comment on function fleet.worker_finish_mdm_reread(jsonb, jsonb, text, interval, timestamptz) is
  'Tell what a look brought for what worker_claim_mdm_rereads gave: a list of the one device as for worker_sync_inventory, an empty one '
  'where the MDM has it no more, or an error; then it is looked at later, eight times at most. {accepted, created, updated, left, errors}. '
  'Definer: the worker writes no table.';
revoke all on function fleet.worker_finish_mdm_reread(jsonb, jsonb, text, interval, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/60_mdm/60_pairs.sql
-- A temporary profile is two schedules. What becomes of the first decides about the second.

create or replace function fleet.move_removal(p_install public.profile_installs, p_at timestamptz)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_removal public.schedules;
begin
  select s.* into v_removal from public.schedules as s where s.id = p_install.remove_schedule_id for update;
  if not found or v_removal.status = 'cancelled' then
    return false;
  end if;

  if v_removal.next_run_at is not null then
    update public.schedules as s set start_time = p_at where s.id = v_removal.id;
    return true;
  end if;
  -- Its run is made already, but nobody has begun it: it waits behind a push that was late.
  update public.device_commands as c
  set not_before = p_at, expires_at = greatest(c.expires_at, p_at + interval '1 day')
  where c.schedule_id = v_removal.id and c.status = 'pending';
  return found;
end;
$$;

comment on function fleet.move_removal(public.profile_installs, timestamptz) is
  'Let the removal of a pair happen at another time. Answers false where it has begun, or there is none any more.';
revoke all on function fleet.move_removal(public.profile_installs, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.note_profile_accepted(p_schedule_id bigint, p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_install public.profile_installs;
  v_planned timestamptz;
begin
  update public.profile_installs as p
  set removed_at = p_now
  where p.remove_schedule_id = p_schedule_id and p.removed_at is null;
  if found then
    return;
  end if;

  update public.profile_installs as p
  set installed_at = p_now, failure = null
  where p.install_schedule_id = p_schedule_id and p.installed_at is null
  returning * into v_install;
  if v_install.duration is null then
    return;
  end if;

  -- The blink that a call takes moves nothing; a push that was late keeps its duration.
  select s.start_time into v_planned from public.schedules as s where s.id = p_schedule_id;
  if p_now > v_planned + interval '1 second' then
    perform fleet.move_removal(v_install, p_now + v_install.duration);
  end if;
end;
$$;

comment on function fleet.note_profile_accepted(bigint, timestamptz) is
  'The MDM took the push or the removal of a pair.';
revoke all on function fleet.note_profile_accepted(bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.cancel_failed_removals(p_install_id bigint default null)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_install public.profile_installs;
  v_count integer := 0;
begin
  for v_install in
    select p.*
    from public.profile_installs as p
    where p.failure is not null and not p.is_settled and (p_install_id is null or p.id = p_install_id)
    order by p.id
    limit 1000
    for update skip locked
  loop
    update public.schedules as s
    set status = 'cancelled', status_reason = 'the profile was never installed: ' || v_install.failure
    where s.id = v_install.remove_schedule_id and s.status <> 'cancelled';
    update public.profile_installs as p set is_settled = true where p.id = v_install.id;
    v_count := v_count + 1;
  end loop;
  return v_count;
end;
$$;

comment on function fleet.cancel_failed_removals(bigint) is
  'Cancel the removals, or that of one install, whose push came to nothing. Answers how many. Called by the tick and when a function finishes.';
revoke all on function fleet.cancel_failed_removals(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.push_failure(p_schedule public.schedules)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    -- As long as there is something that may still install it, nothing has failed.
    when p_schedule.next_run_at is not null and p_schedule.status in ('active', 'paused') then null
    when exists (
      select 1
      from public.device_commands as c
      where c.schedule_id = p_schedule.id and c.status in ('pending', 'running', 'completed')
    ) then null
    when exists (
      select 1
      from public.schedule_runs as r
      where r.schedule_id = p_schedule.id and r.expanded_at is null and r.status in ('pending', 'running')
    ) then null
    else coalesce(
      (
        select coalesce(c.error_message, c.reason, c.status)
        from public.device_commands as c
        where c.schedule_id = p_schedule.id
        order by c.id desc
        limit 1
      ),
      (
        select coalesce(r.error_message, r.reason, r.status)
        from public.schedule_runs as r
        where r.schedule_id = p_schedule.id
        order by r.id desc
        limit 1
      ),
      p_schedule.status_reason,
      p_schedule.status
    )
  end
$$;

comment on function fleet.push_failure(public.schedules) is
  'Why a push schedule will never install anything; null while it may.';
revoke all on function fleet.push_failure(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.note_failed_pushes(p_schedule_ids bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  -- Only noted: this runs in triggers, amid a statement that may change both schedules of a pair.
  update public.profile_installs as p
  set failure = f.failure
  from public.schedules as s
  cross join lateral fleet.push_failure(s) as f(failure)
  where p.install_schedule_id = any (p_schedule_ids)
    and p.installed_at is null
    and p.failure is null
    and s.id = p.install_schedule_id
    and f.failure is not null
$$;

comment on function fleet.note_failed_pushes(bigint[]) is 'Note which of these push schedules came to nothing.';
revoke all on function fleet.note_failed_pushes(bigint[]) from public, anon, authenticated, service_role;

-- db/sources/60_mdm/65_profiles.sql
-- Installing profiles: schedules like all others, made by one call.

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

create or replace function fleet.live_install(p_profile_id text, p_device_id bigint, p_at timestamptz)
returns public.profile_installs
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.profile_installs;
begin
  select p.* into v_row
  from public.profile_installs as p
  join public.schedules as i on i.id = p.install_schedule_id
  join public.schedules as r on r.id = p.remove_schedule_id
  where p.device_id = p_device_id
    and p.profile_id = p_profile_id
    and p.failure is null
    and p.removed_at is null
    and p.duration is not null
    and i.status <> 'cancelled'
    -- Its removal is still to come: the tick, which moves it on, waits for this lock or is waited for.
    and r.status in ('active', 'paused')
    and r.next_run_at is not null
    and p_at >= i.start_time - interval '1 second'
    and p_at <= r.start_time
  order by p.id desc
  limit 1
  for update of p, r;
  return v_row;
end;
$$;

comment on function fleet.live_install(text, bigint, timestamptz) is
  'The temporary install of a profile on a device that runs at an instant, locked with its removal; null where there is none.';
revoke all on function fleet.live_install(text, bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.make_profile_schedule(
  p_action_type text,
  p_profile_id text,
  p_device public.devices,
  p_at timestamptz
)
returns bigint
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  insert into public.schedules (
    owner_id, name, action_type, payload, recurrence_type, start_time, timezone, device_ids, ui_initiated, policies
  )
  values (
    p_device.owner_id,
    format('%s %s on %s', case p_action_type when 'push_profile' then 'install' else 'remove' end, p_profile_id, p_device.hostname),
    p_action_type, jsonb_build_object('profile_id', p_profile_id), 'once', p_at, 'UTC', array[p_device.id], true,
    case p_action_type
      when 'push_profile' then '{}'::jsonb
      -- What was promised to go must go, however long the ticks or the provider were away.
      else '{"catchup_window": "30 days", "expires_after": "30 days", "retry": {"attempts": 100}}'::jsonb
    end
  )
  returning id
$$;

comment on function fleet.make_profile_schedule(text, text, public.devices, timestamptz) is
  'One schedule that pushes or removes a profile once.';
revoke all on function fleet.make_profile_schedule(text, text, public.devices, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.require_profile(p_profile_id text)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if btrim(coalesce(p_profile_id, '')) = '' then
    raise exception 'p_profile_id is missing'
      using errcode = 'PT422', detail = 'profile_missing', hint = 'Name the profile as the MDM does, such as ''12345''.';
  end if;
end;
$$;

comment on function fleet.require_profile(text) is 'Raise profile_missing (PT422).';
revoke all on function fleet.require_profile(text) from public, anon, authenticated, service_role;

create or replace function fleet.require_duration(p_duration interval, p_field text)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_duration <= interval '0' or not isfinite(p_duration) then
    raise exception '% must be longer than nothing, not %', p_field, p_duration
      using errcode = 'PT422', detail = 'duration_invalid', hint = 'Example: ''30 minutes''';
  end if;
end;
$$;

comment on function fleet.require_duration(interval, text) is 'Raise duration_invalid (PT422) for what is not longer than nothing.';
revoke all on function fleet.require_duration(interval, text) from public, anon, authenticated, service_role;

create or replace function fleet.install_again(p_install public.profile_installs, p_duration interval, p_at timestamptz)
returns public.profile_installs
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.profile_installs;
begin
  if p_duration is null then
    update public.schedules as s
    set status = 'cancelled', status_reason = 'the profile was installed for good meanwhile'
    where s.id = p_install.remove_schedule_id;
  else
    perform fleet.move_removal(p_install, p_at + p_duration);
  end if;
  update public.profile_installs as p
  -- Counted from when the profile came, which may still be ahead.
  set duration = p_at + p_duration - coalesce(p.installed_at, i.start_time)
  from public.schedules as i
  where p.id = p_install.id and i.id = p.install_schedule_id
  returning p.* into v_row;
  return v_row;
end;
$$;

comment on function fleet.install_again(public.profile_installs, interval, timestamptz) is
  'Installing what is there for a time already: only its removal moves, or is cancelled where it is to stay.';
revoke all on function fleet.install_again(public.profile_installs, interval, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.install_profile(
  p_profile_id text,
  p_device_id bigint,
  p_duration interval,
  p_at timestamptz
)
returns public.profile_installs
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device public.devices := fleet.device_of_caller(p_device_id);
  v_row public.profile_installs;
  v_install_id bigint;
  v_remove_id bigint;
begin
  perform fleet.require_profile(p_profile_id);
  perform fleet.require_duration(p_duration, 'p_duration');
  -- Two who press the button at once take turns: the second finds the install of the first.
  perform pg_advisory_xact_lock(hashtextextended('pgfleet.profile:' || p_device_id || ':' || p_profile_id, 0));
  v_row := fleet.live_install(p_profile_id, p_device_id, p_at);
  if v_row.id is not null then
    return fleet.install_again(v_row, p_duration, p_at);
  end if;

  v_install_id := fleet.make_profile_schedule('push_profile', p_profile_id, v_device, p_at);
  if p_duration is not null then
    v_remove_id := fleet.make_profile_schedule('remove_profile', p_profile_id, v_device, p_at + p_duration);
  end if;
  insert into public.profile_installs (owner_id, profile_id, device_id, install_schedule_id, remove_schedule_id, duration)
  values (v_device.owner_id, p_profile_id, p_device_id, v_install_id, v_remove_id, p_duration)
  returning * into v_row;

  -- It may have run, and come to nothing, when it was inserted.
  perform fleet.note_failed_pushes(array[v_install_id]);
  perform fleet.cancel_failed_removals(v_row.id);
  select p.* into v_row from public.profile_installs as p where p.id = v_row.id;
  return v_row;
end;
$$;

comment on function fleet.install_profile(text, bigint, interval, timestamptz) is
  'See public.install_profile. Definer: it checks the caller.';
revoke all on function fleet.install_profile(text, bigint, interval, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.install_profile(text, bigint, interval, timestamptz) to authenticated, service_role;

create or replace function public.install_profile(
  p_profile_id text,
  p_device_id bigint,
  p_duration interval default null,
  p_at timestamptz default now()
)
returns public.profile_installs
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.install_profile(p_profile_id, p_device_id, p_duration, coalesce(p_at, now()))
$$;

comment on function public.install_profile(text, bigint, interval, timestamptz) is
  'Install a profile on a device, now or at an instant, for good or for a time: one push_profile schedule, and with a duration its '
  'remove_profile schedule. While a temporary install of the same profile runs, only its removal moves. Raises device_not_found (PT404), '
  'permission_missing (PT403), device_retired (PT409), profile_missing or duration_invalid (PT422).';
revoke all on function public.install_profile(text, bigint, interval, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function public.install_profile(text, bigint, interval, timestamptz) to authenticated, service_role;

-- db/sources/60_mdm/66_moving.sql
-- Extending, ending and removing what is installed: the pair moves, and no row is made.

create or replace function fleet.install_of_caller(p_install_id bigint)
returns public.profile_installs
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.profile_installs;
begin
  select p.* into v_row
  from public.profile_installs as p
  where p.id = p_install_id and fleet.is_visible_owner(p.owner_id)
  for update;
  if not found then
    perform fleet.raise_not_found(format('profile install %s', p_install_id));
  end if;
  perform fleet.require_permission(v_row.owner_id, 'manage', format('profile install %s', p_install_id));
  if v_row.duration is null then
    raise exception 'profile install % has no end', p_install_id
      using errcode = 'PT409',
            detail = 'profile_install_permanent',
            hint = format('Remove the profile: select remove_profile(%L, %s)', v_row.profile_id, v_row.device_id);
  elsif v_row.failure is not null or v_row.removed_at is not null then
    perform fleet.raise_install_over(p_install_id);
  end if;
  return v_row;
end;
$$;

comment on function fleet.install_of_caller(bigint) is
  'A temporary install that is not over, locked, if the caller manages it. Raises profile_install_not_found (PT404), permission_missing '
  '(PT403), profile_install_permanent or profile_install_over (PT409).';
revoke all on function fleet.install_of_caller(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.raise_install_over(p_install_id bigint)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'profile install % is over', p_install_id
    using errcode = 'PT409', detail = 'profile_install_over', hint = 'Install the profile again.';
end;
$$;

comment on function fleet.raise_install_over(bigint) is 'Raise profile_install_over (PT409).';
revoke all on function fleet.raise_install_over(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.extend_profile(p_install_id bigint, p_by interval)
returns public.profile_installs
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.profile_installs := fleet.install_of_caller(p_install_id);
  v_at timestamptz;
begin
  if p_by is null then
    raise exception 'p_by is missing'
      using errcode = 'PT422', detail = 'duration_invalid', hint = 'Example: ''30 minutes''';
  end if;
  perform fleet.require_duration(p_by, 'p_by');
  select s.start_time + p_by into v_at from public.schedules as s where s.id = v_row.remove_schedule_id;
  if not fleet.move_removal(v_row, v_at) then
    perform fleet.raise_install_over(p_install_id);
  end if;
  update public.profile_installs as p set duration = p.duration + p_by where p.id = p_install_id returning * into v_row;
  return v_row;
end;
$$;

comment on function fleet.extend_profile(bigint, interval) is 'See public.extend_profile. Definer: it checks the caller.';
revoke all on function fleet.extend_profile(bigint, interval) from public, anon, authenticated, service_role;
grant execute on function fleet.extend_profile(bigint, interval) to authenticated, service_role;

create or replace function public.extend_profile(p_install_id bigint, p_by interval)
returns public.profile_installs
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.extend_profile(p_install_id, p_by)
$$;

comment on function public.extend_profile(bigint, interval) is
  'Let a temporary profile stay longer. Raises profile_install_not_found (PT404), permission_missing (PT403), profile_install_permanent '
  'or profile_install_over (PT409), or duration_invalid (PT422).';
revoke all on function public.extend_profile(bigint, interval) from public, anon, authenticated, service_role;
grant execute on function public.extend_profile(bigint, interval) to authenticated, service_role;

create or replace function fleet.end_install(p_install public.profile_installs, p_now timestamptz)
returns public.profile_installs
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.profile_installs := p_install;
begin
  if p_install.installed_at is null and not exists (
    select 1 from public.device_commands as c where c.schedule_id = p_install.install_schedule_id and c.status = 'running'
  ) then
    -- It never began: there is nothing to remove.
    update public.schedules as s
    set status = 'cancelled', status_reason = 'ended before it began'
    where s.id in (p_install.install_schedule_id, p_install.remove_schedule_id) and s.status <> 'cancelled';
    update public.profile_installs as p
    set failure = 'ended before it began', is_settled = true
    where p.id = p_install.id
    returning * into v_row;
    return v_row;
  end if;

  if not fleet.move_removal(p_install, p_now) then
    perform fleet.raise_install_over(p_install.id);
  end if;
  update public.profile_installs as p
  set duration = greatest(p_now - coalesce(p.installed_at, p_now), interval '1 microsecond')
  where p.id = p_install.id
  returning * into v_row;
  perform fleet.run_due(array[p_install.remove_schedule_id], clock_timestamp());
  return v_row;
end;
$$;

comment on function fleet.end_install(public.profile_installs, timestamptz) is
  'Remove a temporary profile now, or call off what has not begun.';
revoke all on function fleet.end_install(public.profile_installs, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.end_profile(p_install_id bigint, p_now timestamptz)
returns public.profile_installs
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  select fleet.end_install(fleet.install_of_caller(p_install_id), p_now)
$$;

comment on function fleet.end_profile(bigint, timestamptz) is 'See public.end_profile. Definer: it checks the caller.';
revoke all on function fleet.end_profile(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.end_profile(bigint, timestamptz) to authenticated, service_role;

create or replace function public.end_profile(p_install_id bigint)
returns public.profile_installs
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.end_profile(p_install_id, now())
$$;

comment on function public.end_profile(bigint) is
  'End a temporary profile early: it is removed now, or never installed where it has not begun. Raises profile_install_not_found (PT404), '
  'permission_missing (PT403), profile_install_permanent or profile_install_over (PT409).';
revoke all on function public.end_profile(bigint) from public, anon, authenticated, service_role;
grant execute on function public.end_profile(bigint) to authenticated, service_role;

create or replace function fleet.remove_profile(p_profile_id text, p_device_id bigint, p_at timestamptz)
returns public.schedules
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device public.devices := fleet.device_of_caller(p_device_id);
  v_install public.profile_installs;
  v_id bigint;
  v_row public.schedules;
begin
  perform fleet.require_profile(p_profile_id);
  perform pg_advisory_xact_lock(hashtextextended('pgfleet.profile:' || p_device_id || ':' || p_profile_id, 0));
  v_install := fleet.live_install(p_profile_id, p_device_id, p_at);
  if v_install.id is not null and p_at <= now() then
    v_install := fleet.end_install(v_install, p_at);
    v_id := v_install.remove_schedule_id;
  elsif v_install.id is not null then
    v_install := fleet.install_again(v_install, p_at - now(), now());
    v_id := v_install.remove_schedule_id;
  else
    v_id := fleet.make_profile_schedule('remove_profile', p_profile_id, v_device, p_at);
  end if;
  select s.* into v_row from public.schedules as s where s.id = v_id;
  return v_row;
end;
$$;

comment on function fleet.remove_profile(text, bigint, timestamptz) is 'See public.remove_profile. Definer: it checks the caller.';
revoke all on function fleet.remove_profile(text, bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.remove_profile(text, bigint, timestamptz) to authenticated, service_role;

create or replace function public.remove_profile(p_profile_id text, p_device_id bigint, p_at timestamptz default now())
returns public.schedules
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.remove_profile(p_profile_id, p_device_id, coalesce(p_at, now()))
$$;

comment on function public.remove_profile(text, bigint, timestamptz) is
  'Remove a profile from a device, now or at an instant: the removal of a temporary install moves, else a schedule is made. Answers the '
  'remove_profile schedule. Raises device_not_found (PT404), permission_missing (PT403), device_retired (PT409) or profile_missing (PT422).';
revoke all on function public.remove_profile(text, bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.remove_profile(text, bigint, timestamptz) to authenticated, service_role;

-- db/sources/60_mdm/67_uploads.sql
-- Uploading configuration profiles to an MDM, and deleting them there: people ask, the function mdm-dispatch does it.

create or replace function fleet.mdm_of_caller(p_integration_id bigint)
returns public.device_integrations
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids bigint[];
  v_choice text;
  v_row public.device_integrations;
begin
  if p_integration_id is null then
    select array_agg(i.id), string_agg(format('%s "%s"', i.id, i.name), ', ' order by i.id) into v_ids, v_choice
    from public.device_integrations as i
    where i.integration_type = any (fleet.mdm_integration_types())
      and i.status <> 'disabled'
      and fleet.is_visible_owner(i.owner_id);
    if v_ids is null then
      raise exception 'there is no MDM to upload to'
        using errcode = 'PT422', detail = 'integration_missing', hint = 'Connect one: pgfleet integration create office --type simplemdm';
    elsif cardinality(v_ids) > 1 then
      raise exception 'p_integration_id is missing, and there are several MDMs: %', v_choice
        using errcode = 'PT422', detail = 'integration_ambiguous', hint = 'Name one of them: p_integration_id, or --integration.';
    end if;
  end if;

  v_row := fleet.integration_of_caller(coalesce(p_integration_id, v_ids[1]));
  if v_row.integration_type <> all (fleet.mdm_integration_types()) then
    raise exception 'integration % is no MDM but of type %', v_row.id, v_row.integration_type
      using errcode = 'PT422', detail = 'integration_not_mdm', hint = 'List integrations with: pgfleet integration list';
  elsif v_row.status = 'disabled' then
    raise exception 'integration % is disabled', v_row.id
      using errcode = 'PT409',
            detail = 'integration_disabled',
            hint = format('Resume it: select resume_integration(%s)', v_row.id);
  end if;
  return v_row;
end;
$$;

comment on function fleet.mdm_of_caller(bigint) is
  'The MDM that was named, or the only one there is, locked, if the caller manages it. Raises integration_not_found (PT404), '
  'permission_missing (PT403), integration_missing, integration_ambiguous or integration_not_mdm (PT422), or integration_disabled (PT409).';
revoke all on function fleet.mdm_of_caller(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.is_profile_file(p_content bytea)
returns boolean
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case
    when substring(p_content for 8) = 'bplist00' then true
    -- Signed: a sequence in DER that begins with the name of "signed data".
    when substring(p_content for 1) = '\x30' then position('\x06092a864886f70d010702'::bytea in substring(p_content for 32)) > 0
    -- XML, perhaps after a byte order mark and blanks.
    else substring(btrim(p_content, '\xefbbbf20090d0a') for 1) = '<' and position('<plist'::bytea in p_content) > 0
  end
$$;

comment on function fleet.is_profile_file(bytea) is
  'Whether a file looks like a configuration profile: a property list in XML or binary, or one that is signed (DER).';
revoke all on function fleet.is_profile_file(bytea) from public, anon, authenticated, service_role;

create or replace function fleet.profile_problems(p_name text, p_content bytea, p_options jsonb)
returns table (field text, problem text, hint text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select 'p_name', 'must not be blank', 'Give the profile a name.'
  where btrim(coalesce(p_name, '')) = ''
  union all
  select 'p_name', 'must not be longer than 200 characters', 'Choose a shorter name.'
  where length(p_name) > 200
  union all
  select 'p_mobileconfig', c.problem, c.hint
  from (
    select
      case
        when coalesce(octet_length(p_content), 0) = 0 then 'is empty'
        when octet_length(p_content) > 1048576 then format('has %s bytes; at most 1048576 are taken', octet_length(p_content))
        when not fleet.is_profile_file(p_content) then 'is no configuration profile: neither a property list nor a signed one'
      end as problem,
      'Upload a .mobileconfig file as it is.' as hint
  ) as c
  where c.problem is not null
  union all
  select 'p_options', 'must be an object', 'Example: {"user_scope": false}'
  where jsonb_typeof(coalesce(p_options, 'null')) <> 'object'
  union all
  select 'p_options.' || e.key,
    case when e.key = any (k.names) then 'must be true or false' else 'is not known' end,
    'Known are user_scope, attribute_support, escape_attributes, reinstall_after_os_update and declarative.'
  from (values ('{user_scope,attribute_support,escape_attributes,reinstall_after_os_update,declarative}'::text[])) as k(names)
  cross join lateral jsonb_each(case jsonb_typeof(p_options) when 'object' then p_options else '{}' end) as e
  where e.key <> all (k.names) or jsonb_typeof(e.value) <> 'boolean'
$$;

comment on function fleet.profile_problems(text, bytea, jsonb) is
  'Everything that is wrong with a profile that is to be uploaded; no row where nothing is. None of it quotes the file.';
revoke all on function fleet.profile_problems(text, bytea, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.upload_profile(
  p_name text,
  p_mobileconfig bytea,
  p_integration_id bigint,
  p_options jsonb,
  p_now timestamptz
)
returns public.profiles
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_integration public.device_integrations := fleet.mdm_of_caller(p_integration_id);
  v_name text := btrim(p_name);
  v_sha256 text := encode(sha256(p_mobileconfig), 'hex');
  v_row public.profiles;
begin
  perform fleet.raise_problems('the profile', 'profile_invalid', array_agg(q.field), array_agg(q.problem), array_agg(q.hint))
  from fleet.profile_problems(v_name, p_mobileconfig, p_options) as q;

  select p.* into v_row
  from public.profiles as p
  where p.integration_id = v_integration.id and p.is_managed and lower(p.name) = lower(v_name)
  for update;
  if v_row.status in ('pending', 'uploaded')
    and (v_row.name, v_row.content_sha256, v_row.options) = (v_name, v_sha256, v_row.options || p_options)
  then
    return v_row;
  end if;

  insert into public.profiles as p (
    owner_id, integration_id, name, is_managed, status, content_sha256, options, created_by, created_at, updated_at
  )
  values (
    v_integration.owner_id, v_integration.id, v_name, true, 'pending', v_sha256, p_options, fleet.current_user_id(), p_now, p_now
  )
  on conflict (integration_id, lower(name)) where is_managed do update
    set name = excluded.name, status = 'pending', content_sha256 = excluded.content_sha256,
        options = p.options || excluded.options, error_message = null, updated_at = p_now
  returning * into v_row;
  perform fleet.ask_for_profile(v_row, 'upload', p_mobileconfig, p_now);
  return v_row;
end;
$$;

comment on function fleet.upload_profile(text, bytea, bigint, jsonb, timestamptz) is
  'See public.upload_profile. Definer: it checks the caller.';
revoke all on function fleet.upload_profile(text, bytea, bigint, jsonb, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.upload_profile(text, bytea, bigint, jsonb, timestamptz) to authenticated, service_role;

create or replace function public.upload_profile(
  p_name text,
  p_mobileconfig bytea,
  p_integration_id bigint default null,
  p_options jsonb default '{}'
)
returns public.profiles
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.upload_profile(p_name, p_mobileconfig, p_integration_id, coalesce(p_options, '{}'), clock_timestamp())
$$;

comment on function public.upload_profile(text, bytea, bigint, jsonb) is
  'Upload a .mobileconfig to an MDM, to the only one where none is named. The same name again replaces the file, also on the devices that '
  'have it; the same file again does nothing. Its status tells when the MDM has it. Options: user_scope, attribute_support, '
  'escape_attributes, reinstall_after_os_update, declarative. Raises profile_invalid, integration_missing, integration_ambiguous or '
  'integration_not_mdm (PT422), integration_not_found (PT404), permission_missing (PT403) or integration_disabled (PT409).';
revoke all on function public.upload_profile(text, bytea, bigint, jsonb) from public, anon, authenticated, service_role;
grant execute on function public.upload_profile(text, bytea, bigint, jsonb) to authenticated, service_role;

create or replace function fleet.ask_for_profile(p_profile public.profiles, p_action text, p_content bytea, p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A lease that runs goes on: two at once could make two of it. What is new waits for its end.
  insert into fleet.profile_uploads as u (profile_id, owner_id, integration_id, action, content, asked_at, next_at)
  values (p_profile.id, p_profile.owner_id, p_profile.integration_id, p_action, p_content, p_now, p_now)
  on conflict (profile_id) do update
    set action = excluded.action, content = excluded.content, asked_at = p_now, next_at = p_now, tries = 0, is_newer = true;
  perform fleet.poke('mdm-dispatch', jsonb_build_object('at', p_now), p_now);
end;
$$;

comment on function fleet.ask_for_profile(public.profiles, text, bytea, timestamptz) is
  'Let a profile be uploaded or deleted; what was asked for it before and not yet done is forgotten.';
revoke all on function fleet.ask_for_profile(public.profiles, text, bytea, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.delete_profile(p_profile_id bigint, p_now timestamptz)
returns public.profiles
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.profiles;
begin
  select p.* into v_row from public.profiles as p where p.id = p_profile_id and fleet.is_visible_owner(p.owner_id) for update;
  if not found then
    perform fleet.raise_not_found(format('profile %s', p_profile_id));
  end if;
  perform fleet.require_permission(v_row.owner_id, 'manage', format('profile %s', p_profile_id));
  if not v_row.is_managed then
    raise exception 'profile "%" was not uploaded from here', v_row.name
      using errcode = 'PT409', detail = 'profile_not_managed', hint = 'Delete it in the MDM itself; the next sync notices.';
  end if;

  update public.profiles as p
  set status = 'deleting', error_message = null, updated_at = p_now
  where p.id = p_profile_id
  returning * into v_row;
  if v_row.external_id is not null
    or exists (select 1 from fleet.profile_uploads as u where u.profile_id = p_profile_id and u.held_until > p_now)
  then
    perform fleet.ask_for_profile(v_row, 'delete', null, p_now);
  else
    -- The MDM was never told of it, as far as anybody knows.
    delete from public.profiles as p where p.id = p_profile_id;
  end if;
  return v_row;
end;
$$;

comment on function fleet.delete_profile(bigint, timestamptz) is 'See public.delete_profile. Definer: it checks the caller.';
revoke all on function fleet.delete_profile(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.delete_profile(bigint, timestamptz) to authenticated, service_role;

create or replace function public.delete_profile(p_profile_id bigint)
returns public.profiles
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.delete_profile(p_profile_id, clock_timestamp())
$$;

comment on function public.delete_profile(bigint) is
  'Delete a profile that was uploaded from here (profiles.id) in its MDM, and so from all devices that have it; its row goes when that is '
  'done. Raises profile_not_found (PT404), permission_missing (PT403) or profile_not_managed (PT409).';
revoke all on function public.delete_profile(bigint) from public, anon, authenticated, service_role;
grant execute on function public.delete_profile(bigint) to authenticated, service_role;

-- db/sources/60_mdm/68_upload_work.sql
-- Uploads as the function mdm-dispatch does them: claimed under a lease, finished, tried again by class of failure.

create or replace function fleet.is_upload_due(p_integration_id bigint, p_now timestamptz)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select 1
    from fleet.profile_uploads as u
    where u.integration_id = p_integration_id and u.next_at <= p_now and (u.held_until is null or u.held_until <= p_now)
  )
$$;

comment on function fleet.is_upload_due(bigint, timestamptz) is 'Whether a profile waits to be uploaded to an MDM, or deleted there, now.';
revoke all on function fleet.is_upload_due(bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_claim_profile_uploads(p_limit integer default 4, p_now timestamptz default clock_timestamp())
returns setof jsonb
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  with due as (
    select u.profile_id
    from fleet.profile_uploads as u
    join public.device_integrations as i on i.id = u.integration_id and i.status = 'active'
    where u.next_at <= p_now
      and (u.held_until is null or u.held_until <= p_now)
      and not exists (
        select 1 from fleet.rate_limits as r where r.integration_id = u.integration_id and r.blocked_until > p_now
      )
    order by u.next_at
    limit p_limit
    for update of u skip locked
  ),
  taken as (
    update fleet.profile_uploads as u
    -- Longer than other leases: the list of the MDM is read first, page by page.
    set held_until = p_now + interval '3 minutes', attempt = u.attempt + 1, is_newer = false
    from due
    where u.profile_id = due.profile_id
    returning u.*
  )
  select jsonb_build_object(
    'profile_id', t.profile_id, 'attempt', t.attempt, 'action', t.action, 'name', p.name, 'external_id', p.external_id,
    'options', p.options, 'content', encode(t.content, 'base64'), 'lease_seconds', extract(epoch from t.held_until - p_now),
    'integration_id', i.id, 'integration_type', i.integration_type, 'settings', i.settings, 'secret', s.secret,
    'taken', coalesce((
      select jsonb_agg(o.external_id)
      from public.profiles as o
      where o.integration_id = i.id and o.is_managed and o.id <> p.id and o.external_id is not null
    ), '[]')
  )
  from taken as t
  join public.profiles as p on p.id = t.profile_id
  join public.device_integrations as i on i.id = t.integration_id
  left join public.pg_cron_secrets as s on s.name = 'integration:' || i.id
$$;

comment on function fleet.worker_claim_profile_uploads(integer, timestamptz) is
  'Lease profiles that are to be uploaded or deleted: {profile_id, attempt, action, name, external_id (null for a new one), options, content '
  '(base64), taken (ids that are other profiles of ours), integration_id, integration_type, settings, secret, lease_seconds}. Definer: the '
  'worker reads no table.';
revoke all on function fleet.worker_claim_profile_uploads(integer, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.end_upload(p_upload fleet.profile_uploads, p_status text, p_error text, p_now timestamptz)
returns text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_upload.is_newer then
    -- What was asked for meanwhile is next, and its status stays.
    update fleet.profile_uploads as u
    set held_until = null
    where u.profile_id = p_upload.profile_id;
    return 'pending';
  end if;

  delete from fleet.profile_uploads as u where u.profile_id = p_upload.profile_id;
  if p_status = 'deleted' then
    delete from public.profiles as p where p.id = p_upload.profile_id;
  else
    update public.profiles as p
    set status = p_status, error_message = p_error, updated_at = p_now
    where p.id = p_upload.profile_id;
  end if;
  return p_status;
end;
$$;

comment on function fleet.end_upload(fleet.profile_uploads, text, text, timestamptz) is
  'Forget the file and note how it ended, unless something newer was asked for. Answers the status.';
revoke all on function fleet.end_upload(fleet.profile_uploads, text, text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.fail_upload(
  p_upload fleet.profile_uploads,
  p_error text,
  p_reason text,
  p_retry_after interval,
  p_now timestamptz
)
returns text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_waits boolean := p_reason = 'integration_paused'
    and exists (select 1 from public.device_integrations as i where i.id = p_upload.integration_id and i.status <> 'active');
  v_next_at timestamptz := case when v_waits then p_now else p_now + fleet.mdm_pause(p_upload.tries + 1, p_retry_after) end;
begin
  if p_upload.is_newer then
    return fleet.end_upload(p_upload, 'failed', p_error, p_now);
  elsif p_reason is distinct from 'integration_paused' and not fleet.is_passing_failure(p_reason, true) then
    return fleet.end_upload(p_upload, 'failed', p_error, p_now);
  elsif v_next_at > p_upload.asked_at + interval '1 day' and not v_waits then
    -- A file that may hold passwords does not wait for ever.
    return fleet.end_upload(p_upload, 'failed', format('it was given up after a day: %s', p_error), p_now);
  end if;

  update fleet.profile_uploads as u
  set held_until = null, next_at = v_next_at, tries = u.tries + case when v_waits then 0 else 1 end
  where u.profile_id = p_upload.profile_id;
  update public.profiles as p
  set error_message = p_error, updated_at = p_now
  where p.id = p_upload.profile_id;
  return 'pending';
end;
$$;

comment on function fleet.fail_upload(fleet.profile_uploads, text, text, interval, timestamptz) is
  'An attempt failed: try again after a growing pause, wait for the integration to go on, or end, by the class of the failure.';
revoke all on function fleet.fail_upload(fleet.profile_uploads, text, text, interval, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.worker_finish_profile_upload(
  p_profile_id bigint,
  p_attempt integer,
  p_outcome text,
  p_external_id text default null,
  p_error text default null,
  p_reason text default null,
  p_retry_after interval default null,
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_upload fleet.profile_uploads;
  v_error text;
begin
  -- In the order in which people and syncs lock: the integration, then the profile.
  perform 1
  from public.device_integrations as i
  where i.id = (select p.integration_id from public.profiles as p where p.id = p_profile_id)
  for update;
  perform 1 from public.profiles as p where p.id = p_profile_id for update;
  select u.* into v_upload
  from fleet.profile_uploads as u
  where u.profile_id = p_profile_id and u.attempt = p_attempt and u.held_until is not null
  for update;
  if not found then
    return jsonb_build_object('accepted', false, 'reason', 'stale_attempt');
  end if;

  if p_outcome = 'failed' then
    select left(fleet.without_secret(p_error, s.secret), 2000) into v_error
    from (values ('integration:' || v_upload.integration_id)) as n(name)
    left join public.pg_cron_secrets as s on s.name = n.name;
    return jsonb_build_object('accepted', true, 'status', fleet.fail_upload(v_upload, v_error, p_reason, p_retry_after, p_now));
  end if;

  if p_outcome = 'uploaded' then
    -- One that was there before, or that a sync has seen since, is this one.
    delete from public.profiles as p
    where p.integration_id = v_upload.integration_id and p.external_id = p_external_id and not p.is_managed;
  end if;
  update public.profiles as p
  set external_id = case p_outcome when 'uploaded' then p_external_id end,
      uploaded_at = case p_outcome when 'uploaded' then p_now else p.uploaded_at end,
      seen_at = case p_outcome when 'uploaded' then p_now else p.seen_at end
  where p.id = p_profile_id;
  return jsonb_build_object('accepted', true, 'status', fleet.end_upload(v_upload, p_outcome, null, p_now));
end;
$$;

comment on function fleet.worker_finish_profile_upload(bigint, integer, text, text, text, text, interval, timestamptz) is
  'How an attempt ended: uploaded (with the MDM''s id), deleted, or failed with a reason as of worker_finish_mdm. Answers {accepted, status}, '
  'or {accepted: false, reason: stale_attempt}. Definer: the worker writes no table.';
revoke all on function fleet.worker_finish_profile_upload(bigint, integer, text, text, text, text, interval, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/60_mdm/69_catalogue.sql
-- The catalogue: which profiles an MDM has, as its last sync told.

create or replace function fleet.worker_sync_profiles(
  p_integration_id bigint,
  p_profiles jsonb,
  p_began timestamptz,
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
  v_seen integer;
  v_gone integer;
  v_lost integer;
begin
  -- Its lock makes two syncs of the same integration take turns.
  select i.* into v_integration from public.device_integrations as i where i.id = p_integration_id for update;
  if not found then
    return jsonb_build_object('accepted', false, 'reason', 'not_found');
  end if;

  insert into public.profiles as p (owner_id, integration_id, external_id, name, kind, seen_at)
  select distinct on (f.external_id)
    v_integration.owner_id, v_integration.id, f.external_id, coalesce(nullif(btrim(f.name), ''), f.external_id),
    coalesce(f.kind, 'unknown'), p_now
  from jsonb_to_recordset(p_profiles) as f (external_id text, name text, kind text)
  where btrim(f.external_id) <> ''
  order by f.external_id
  -- What was uploaded from here keeps the name that people know it by.
  on conflict (integration_id, external_id) do update
    set seen_at = p_now,
        name = case when p.is_managed then p.name else excluded.name end,
        kind = case when p.is_managed then p.kind else excluded.kind end,
        updated_at = case when p.is_managed or p.name = excluded.name then p.updated_at else p_now end;
  get diagnostics v_seen = row_count;

  delete from public.profiles as p
  where p.integration_id = p_integration_id and not p.is_managed and coalesce(p.seen_at < p_began, true);
  get diagnostics v_gone = row_count;

  -- Its file is not kept, so it cannot be uploaded again by itself. What waits for an upload or a deletion gets over it there.
  update public.profiles as p
  set status = 'failed', external_id = null, content_sha256 = null, updated_at = p_now,
      error_message = 'the MDM has it no more: upload it again'
  where p.integration_id = p_integration_id
    and p.is_managed
    and p.status in ('uploaded', 'failed')
    and p.external_id is not null
    -- What was uploaded while the list was read is not missed in it.
    and p.seen_at < p_began;
  get diagnostics v_lost = row_count;
  return jsonb_build_object('accepted', true, 'seen', v_seen, 'gone', v_gone, 'lost', v_lost);
end;
$$;

comment on function fleet.worker_sync_profiles(bigint, jsonb, timestamptz, timestamptz) is
  'Take over the whole list of the profiles of an MDM, as {external_id, name, kind}, and when it was begun to be read. Those that are gone '
  'are removed; one that was uploaded from here stays, as failed. {accepted, seen, gone, lost}. Definer: the worker writes no table.';
revoke all on function fleet.worker_sync_profiles(bigint, jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/60_mdm/70_poke.sql
-- Waking the function mdm-dispatch.

create or replace function fleet.has_mdm_work(p_now timestamptz)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- Awake before a schedule is due, the function carries it out at its very instant.
  select fleet.next_mdm_schedule_at(p_now + interval '2 seconds') is not null
  or exists (
    select 1
    from public.device_integrations as i
    where i.status = 'active'
      and i.integration_type = any (fleet.mdm_integration_types())
      and (
        fleet.is_sync_due(i, p_now)
        or fleet.has_due_mdm(i.id, 'send', p_now)
        or fleet.has_due_mdm(i.id, 'settle', p_now)
        or fleet.is_upload_due(i.id, p_now)
        or fleet.has_mdm_rereads(i.id, p_now)
      )
      and not exists (
        select 1 from fleet.rate_limits as r where r.integration_id = i.id and r.blocked_until > p_now
      )
  )
$$;

comment on function fleet.has_mdm_work(timestamptz) is
  'Whether mdm-dispatch would find something to do. What waits for an integration that is paused wakes nobody.';
revoke all on function fleet.has_mdm_work(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.prune_mdm_logs(p_before timestamptz, p_limit integer default 5000)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  delete from public.mdm_api_logs as l
  where l.id in (
    select x.id from public.mdm_api_logs as x where x.created_at < p_before order by x.created_at limit p_limit
  );
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.prune_mdm_logs(timestamptz, integer) is 'Delete a batch of old calls to MDMs. Answers how many.';
revoke all on function fleet.prune_mdm_logs(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.tend_mdm(p_now timestamptz default now(), p_pause interval default interval '30 seconds')
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A migration holds this lock alone.
  if not pg_try_advisory_xact_lock_shared(hashtext('pgfleet.migrate'))
    or not fleet.pass_turnstile('reconcile-profiles', p_pause, p_now)
  then
    return false;
  end if;

  perform fleet.reconcile_all(p_now);
  perform fleet.prune_mdm_logs(p_now - make_interval(days => fleet.setting_number('history_days')::integer));
  perform fleet.prune_activity(p_now - make_interval(days => fleet.setting_number('history_days')::integer));
  return true;
end;
$$;

comment on function fleet.tend_mdm(timestamptz, interval) is
  'What need not be done every second: reconcile profiles, prune the logs. Answers whether it was its time, which it is when it '
  'was not done for p_pause. A job of its own, since it looks at every device.';
revoke all on function fleet.tend_mdm(timestamptz, interval) from public, anon, authenticated, service_role;

create or replace function fleet.poke_mdm(p_now timestamptz default now())
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.sweep_mdm(p_now);
  perform fleet.cancel_failed_removals();
  -- Where no job does it: plain Postgres without pg_cron.
  perform fleet.tend_mdm(p_now, interval '150 seconds');
  return fleet.has_mdm_work(p_now) and fleet.poke_once_a_second('mdm-dispatch', p_now);
end;
$$;

comment on function fleet.poke_mdm(timestamptz) is
  'Clear up behind functions that stopped, reconcile profiles, and poke mdm-dispatch where it has work, at most once a second. Answers whether it was poked; '
  'called by the tick.';
revoke all on function fleet.poke_mdm(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.tg_note_failed_runs()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.note_failed_pushes(f.ids)
  from (
    select array_agg(n.schedule_id) as ids
    from new_rows as n
    where n.status in ('skipped', 'failed', 'cancelled') and n.targeted = 0
  ) as f
  where f.ids is not null
    and exists (select 1 from public.profile_installs as p where p.install_schedule_id = any (f.ids));
  return null;
end;
$$;

comment on function fleet.tg_note_failed_runs() is
  'A push whose run reached no device has failed too. Definer: nobody else writes profile_installs.';
revoke all on function fleet.tg_note_failed_runs() from public, anon, authenticated, service_role;

create or replace function fleet.tg_note_cancelled_pushes()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.note_failed_pushes(array[new.id]);
  return null;
end;
$$;

comment on function fleet.tg_note_cancelled_pushes() is
  'A push that is cancelled takes its removal along. Definer: nobody else writes profile_installs.';
revoke all on function fleet.tg_note_cancelled_pushes() from public, anon, authenticated, service_role;

create or replace trigger schedule_runs_80_note_failed_insert
  after insert on public.schedule_runs
  referencing new table as new_rows
  for each statement execute function fleet.tg_note_failed_runs();

create or replace trigger schedule_runs_80_note_failed_update
  after update on public.schedule_runs
  referencing new table as new_rows
  for each statement execute function fleet.tg_note_failed_runs();

create or replace trigger schedules_80_note_cancelled
  after update of status on public.schedules
  for each row
  when (new.status = 'cancelled' and old.status <> 'cancelled' and new.action_type = 'push_profile')
  execute function fleet.tg_note_cancelled_pushes();

-- db/sources/60_mdm/75_assignments.sql
-- Desired state: which profile should be where, what is missing, and the pushes and removals that mend it.

create or replace function fleet.note_profile_state(
  p_device_id bigint,
  p_profile_id text,
  p_is_installed boolean,
  p_is_assigned boolean,
  p_now timestamptz
)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  insert into public.device_profiles as p (device_id, profile_id, owner_id, is_installed, is_assigned, changed_at)
  select d.id, p_profile_id, d.owner_id, p_is_installed, coalesce(p_is_assigned, false), p_now
  from public.devices as d
  where d.id = p_device_id and p_profile_id is not null
  on conflict (device_id, profile_id) do update
    set is_installed = excluded.is_installed, changed_at = excluded.changed_at,
        is_assigned = coalesce(p_is_assigned, p.is_assigned)
$$;

comment on function fleet.note_profile_state(bigint, text, boolean, boolean, timestamptz) is
  'Note whether a profile is on a device; p_is_assigned null leaves as it is who brought it.';
revoke all on function fleet.note_profile_state(bigint, text, boolean, boolean, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.wanted_profiles(p_owner_id uuid)
returns table (owner_id uuid, device_id bigint, hostname text, profile_id text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select distinct a.owner_id, t.device_id, t.hostname, a.profile_id
  from public.profile_assignments as a
  cross join lateral fleet.targets(a.owner_id, a.device_ids, a.group_ids, a.selector) as t
  where p_owner_id is null or a.owner_id = p_owner_id
$$;

comment on function fleet.wanted_profiles(uuid) is 'Every device and profile that belong together, of one owner or of all.';
revoke all on function fleet.wanted_profiles(uuid) from public, anon, authenticated, service_role;

create or replace function fleet.drift_of_profiles(p_owner_id uuid, p_now timestamptz)
returns table (owner_id uuid, device_id bigint, hostname text, profile_id text, action_type text, state text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with wanted as materialized (
    select w.* from fleet.wanted_profiles(p_owner_id) as w
  ),
  drift as (
    select w.owner_id, w.device_id, w.hostname, w.profile_id, 'push_profile' as action_type
    from wanted as w
    where not exists (
      select 1
      from public.device_profiles as p
      where p.device_id = w.device_id and p.profile_id = w.profile_id and p.is_installed
    )
    union all
    select p.owner_id, p.device_id, d.hostname, p.profile_id, 'remove_profile'
    from public.device_profiles as p
    join public.devices as d on d.id = p.device_id and d.status = 'active'
    where p.is_assigned
      and p.is_installed
      and (p_owner_id is null or p.owner_id = p_owner_id)
      and not exists (select 1 from wanted as w where w.device_id = p.device_id and w.profile_id = p.profile_id)
  )
  select d.owner_id, d.device_id, d.hostname, d.profile_id, d.action_type,
    case
      when not exists (
        select 1
        from public.device_links as l
        join public.device_integrations as i on i.id = l.integration_id
        where l.device_id = d.device_id and i.integration_type = any (fleet.mdm_integration_types()) and i.status <> 'disabled'
      ) then 'in no MDM'
      when c.status in ('pending', 'running') then 'under way'
      -- What fails is tried again, but not for ever at the same pace.
      when c.status in ('failed', 'expired') and c.executed_at > p_now - interval '1 hour' then 'failed lately'
      else 'missing'
    end
  from drift as d
  left join lateral (
    select x.status, x.executed_at
    from public.device_commands as x
    where x.device_id = d.device_id
      and x.channel = 'mdm'
      and x.command_type = d.action_type
      and x.payload ->> 'profile_id' = d.profile_id
    order by x.id desc
    limit 1
  ) as c on true
$$;

comment on function fleet.drift_of_profiles(uuid, timestamptz) is 'See public.profile_drift; of one owner, or of all.';
revoke all on function fleet.drift_of_profiles(uuid, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.profile_drift(p_owner_id uuid, p_now timestamptz)
returns table (owner_id uuid, device_id bigint, hostname text, profile_id text, action_type text, state text)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid := fleet.owner_or_own(p_owner_id);
begin
  perform fleet.require_permission(v_owner, 'view', format('owner %s', v_owner));
  return query
  select d.* from fleet.drift_of_profiles(v_owner, p_now) as d order by d.profile_id, d.hostname;
end;
$$;

comment on function fleet.profile_drift(uuid, timestamptz) is 'See public.profile_drift. Definer: it checks the caller.';
revoke all on function fleet.profile_drift(uuid, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.profile_drift(uuid, timestamptz) to authenticated, service_role;

create or replace function public.profile_drift(p_owner_id uuid default null)
returns table (owner_id uuid, device_id bigint, hostname text, profile_id text, action_type text, state text)
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select * from fleet.profile_drift(p_owner_id, clock_timestamp())
$$;

comment on function public.profile_drift(uuid) is
  'Where devices differ from the assignments: push_profile or remove_profile, and its state: missing (reconcile_profiles does it next), '
  'under way, failed lately (again after an hour) or in no MDM. Raises owner_not_found (PT404).';
revoke all on function public.profile_drift(uuid) from public, anon, authenticated, service_role;
grant execute on function public.profile_drift(uuid) to authenticated, service_role;

create or replace function fleet.reconcile_owner(p_owner_id uuid, p_now timestamptz)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_group record;
  v_pushes integer := 0;
  v_removals integer := 0;
begin
  -- Two who reconcile at once take turns, and the second finds the work of the first under way.
  perform pg_advisory_xact_lock(hashtextextended('pgfleet.reconcile:' || p_owner_id, 0));
  for v_group in
    select d.profile_id, d.action_type, array_agg(d.device_id order by d.device_id) as device_ids
    from fleet.drift_of_profiles(p_owner_id, p_now) as d
    where d.state = 'missing'
    group by d.profile_id, d.action_type
    order by d.profile_id, d.action_type
  loop
    insert into public.device_profiles as p (device_id, profile_id, owner_id, is_installed, is_assigned, changed_at)
    select u.id, v_group.profile_id, p_owner_id, false, true, p_now
    from unnest(v_group.device_ids) as u(id)
    where v_group.action_type = 'push_profile'
    on conflict (device_id, profile_id) do update set is_assigned = true;

    insert into public.schedules (
      owner_id, name, action_type, payload, recurrence_type, start_time, timezone, device_ids
    )
    values (
      p_owner_id,
      format('%s %s as assigned', case v_group.action_type when 'push_profile' then 'install' else 'remove' end, v_group.profile_id),
      v_group.action_type, jsonb_build_object('profile_id', v_group.profile_id), 'once', p_now, 'UTC', v_group.device_ids
    );
    if v_group.action_type = 'push_profile' then
      v_pushes := v_pushes + cardinality(v_group.device_ids);
    else
      v_removals := v_removals + cardinality(v_group.device_ids);
    end if;
  end loop;
  return jsonb_build_object('pushes', v_pushes, 'removals', v_removals);
end;
$$;

comment on function fleet.reconcile_owner(uuid, timestamptz) is
  'Make one schedule for each profile and action that is missing somewhere. {pushes, removals}.';
revoke all on function fleet.reconcile_owner(uuid, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.reconcile_profiles(p_owner_id uuid, p_now timestamptz)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid := fleet.owner_or_own(p_owner_id);
begin
  perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
  return fleet.reconcile_owner(v_owner, p_now);
end;
$$;

comment on function fleet.reconcile_profiles(uuid, timestamptz) is 'See public.reconcile_profiles. Definer: it checks the caller.';
revoke all on function fleet.reconcile_profiles(uuid, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.reconcile_profiles(uuid, timestamptz) to authenticated, service_role;

create or replace function public.reconcile_profiles(p_owner_id uuid default null)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.reconcile_profiles(p_owner_id, now())
$$;

comment on function public.reconcile_profiles(uuid) is
  'Push what is assigned and missing, remove what an assignment brought and is no longer assigned; the tick does the same every minute. '
  '{pushes, removals}. Raises owner_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.reconcile_profiles(uuid) from public, anon, authenticated, service_role;
grant execute on function public.reconcile_profiles(uuid) to authenticated, service_role;

create or replace function fleet.reconcile_all(p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid;
  v_count integer := 0;
begin
  for v_owner in
    select a.owner_id from public.profile_assignments as a
    union
    select p.owner_id from public.device_profiles as p where p.is_assigned and p.is_installed
  loop
    begin
      perform fleet.reconcile_owner(v_owner, p_now);
      v_count := v_count + 1;
    exception
      when query_canceled or admin_shutdown or deadlock_detected then
        raise;
      when others then
        raise warning 'the profiles of owner % are left as they are: %', v_owner, sqlerrm;
    end;
  end loop;
  return v_count;
end;
$$;

comment on function fleet.reconcile_all(timestamptz) is 'Reconcile every owner who has assignments. Answers how many.';
revoke all on function fleet.reconcile_all(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.assign_profile(p_profile_id text, p_targets jsonb, p_description text, p_owner_id uuid, p_now timestamptz)
returns public.profile_assignments
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid := fleet.owner_or_own(p_owner_id);
  v_row public.profile_assignments;
begin
  perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
  perform fleet.require_profile(p_profile_id);
  if jsonb_typeof(p_targets) is distinct from 'object'
    or exists (
      select 1
      from unnest('{device_ids,group_ids}'::text[]) as k(key)
      where p_targets ? k.key
        and coalesce(p_targets ->> k.key !~ '^\[([0-9]{1,18}(, [0-9]{1,18})*)?\]$', true)
    )
  then
    raise exception 'p_targets must be an object with device_ids, group_ids or selector'
      using errcode = 'PT422', detail = 'targets_invalid', hint = 'Example: {"group_ids": [3]}';
  end if;

  v_row.device_ids := array(select jsonb_array_elements_text(p_targets -> 'device_ids')::bigint);
  v_row.group_ids := array(select jsonb_array_elements_text(p_targets -> 'group_ids')::bigint);
  perform fleet.raise_problems('the assignment', 'assignment_invalid', array_agg(q.field), array_agg(q.problem), array_agg(q.hint))
  from fleet.target_problems(v_owner, v_row.device_ids, v_row.group_ids, p_targets -> 'selector') as q;
  insert into public.profile_assignments (owner_id, profile_id, description, device_ids, group_ids, selector, created_by)
  values (
    v_owner, btrim(p_profile_id), coalesce(p_description, ''), v_row.device_ids, v_row.group_ids, p_targets -> 'selector',
    fleet.current_user_id()
  )
  returning * into v_row;
  perform fleet.reconcile_owner(v_owner, p_now);
  return v_row;
end;
$$;

comment on function fleet.assign_profile(text, jsonb, text, uuid, timestamptz) is
  'See public.assign_profile. Definer: it checks the caller.';
revoke all on function fleet.assign_profile(text, jsonb, text, uuid, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.assign_profile(text, jsonb, text, uuid, timestamptz) to authenticated, service_role;

create or replace function public.assign_profile(
  p_profile_id text,
  p_targets jsonb,
  p_description text default '',
  p_owner_id uuid default null
)
returns public.profile_assignments
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.assign_profile(p_profile_id, p_targets, p_description, p_owner_id, now())
$$;

comment on function public.assign_profile(text, jsonb, text, uuid) is
  'Say that a profile belongs on devices: {"device_ids": […], "group_ids": […], "selector": {…}}. What is missing is pushed at once, also '
  'to devices that join later. Raises profile_missing, targets_invalid or assignment_invalid (PT422; PT404 for what was not found), or '
  'permission_missing (PT403).';
revoke all on function public.assign_profile(text, jsonb, text, uuid) from public, anon, authenticated, service_role;
grant execute on function public.assign_profile(text, jsonb, text, uuid) to authenticated, service_role;

create or replace function fleet.unassign_profile(p_assignment_id bigint, p_now timestamptz)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.profile_assignments;
begin
  select a.* into v_row
  from public.profile_assignments as a
  where a.id = p_assignment_id and fleet.is_visible_owner(a.owner_id)
  for update;
  if not found then
    perform fleet.raise_not_found(format('profile assignment %s', p_assignment_id));
  end if;
  perform fleet.require_permission(v_row.owner_id, 'manage', format('profile assignment %s', p_assignment_id));
  delete from public.profile_assignments as a where a.id = p_assignment_id;
  return fleet.reconcile_owner(v_row.owner_id, p_now);
end;
$$;

comment on function fleet.unassign_profile(bigint, timestamptz) is 'See public.unassign_profile. Definer: it checks the caller.';
revoke all on function fleet.unassign_profile(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.unassign_profile(bigint, timestamptz) to authenticated, service_role;

create or replace function public.unassign_profile(p_assignment_id bigint)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.unassign_profile(p_assignment_id, now())
$$;

comment on function public.unassign_profile(bigint) is
  'Take an assignment back: the profile is removed where it brought it and no other assignment wants it. {pushes, removals}. Raises '
  'profile_assignment_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.unassign_profile(bigint) from public, anon, authenticated, service_role;
grant execute on function public.unassign_profile(bigint) to authenticated, service_role;

-- db/sources/60_mdm/80_integrations.sql
-- Integrations: making them, giving them their secret, letting them rest.

create or replace function fleet.integration_problems(p_integration public.device_integrations)
returns table (field text, problem text, hint text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select 'name', 'must not be blank', 'Give the integration a name.'
  where btrim(coalesce(p_integration.name, '')) = ''
  union all
  select 'name', format('"%s" is taken', p_integration.name), 'Choose another name.'
  where exists (
    select 1
    from public.device_integrations as i
    where i.owner_id = p_integration.owner_id
      and lower(i.name) = lower(p_integration.name)
      and i.id is distinct from p_integration.id
  )
  union all
  select 'integration_type', coalesce(format('"%s" is no name of a system', nullif(p_integration.integration_type, '')), 'is missing'),
    'Example: simplemdm'
  where coalesce(p_integration.integration_type, '') !~ '^[a-z][a-z0-9_]*$'
  union all
  select 'settings', 'must be an object', 'Example: {"rate_per_second": 5}'
  where jsonb_typeof(coalesce(p_integration.settings, 'null')) <> 'object'
  union all
  select 'settings.' || n.name, 'must be a number greater than zero', format('Example: {"%s": 5}', n.name)
  from unnest('{rate_per_second,burst,syncIntervalSeconds}'::text[]) as n(name)
  where p_integration.settings ? n.name
    and case jsonb_typeof(p_integration.settings -> n.name)
      when 'number' then (p_integration.settings ->> n.name)::numeric <= 0
      else true
    end
  union all
  select 'settings.' || k.key, 'looks like a secret', 'Set it with: pgfleet integration set-secret, or set_integration_secret()'
  from jsonb_object_keys(
    case jsonb_typeof(p_integration.settings) when 'object' then p_integration.settings else '{}' end
  ) as k(key)
  where k.key ~* '(secret|password|api_?key|token)$'
$$;

comment on function fleet.integration_problems(public.device_integrations) is
  'Everything that is wrong with an integration; no row where nothing is.';
revoke all on function fleet.integration_problems(public.device_integrations) from public, anon, authenticated, service_role;

create or replace function fleet.tg_check_integration()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.raise_problems(
    'the integration', 'integration_invalid', array_agg(q.field), array_agg(q.problem), array_agg(q.hint)
  )
  from fleet.integration_problems(new) as q;
  new.updated_at := now();
  if new.status = 'active' then
    new.status_reason := null;
    new.needs_secret := false;
  end if;
  return new;
end;
$$;

comment on function fleet.tg_check_integration() is
  'Refuse integrations that are not valid, and secrets among their settings. Definer: whoever may write the table may not call what it '
  'checks with.';
revoke all on function fleet.tg_check_integration() from public, anon, authenticated, service_role;

create or replace function fleet.tg_forget_integration()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from public.pg_cron_secrets as s where s.name = 'integration:' || old.id;
  return null;
end;
$$;

comment on function fleet.tg_forget_integration() is
  'The secret goes with its integration. Definer: whoever may delete the one may not read the other.';
revoke all on function fleet.tg_forget_integration() from public, anon, authenticated, service_role;

create or replace function fleet.tg_resume_integration()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  update public.device_integrations as i
  set status = 'active'
  where 'integration:' || i.id = new.name and i.status = 'paused' and i.needs_secret;
  -- Outside of the turnstile, as for new commands.
  perform fleet.poke('mdm-dispatch', jsonb_build_object('at', clock_timestamp()), clock_timestamp());
  return null;
end;
$$;

comment on function fleet.tg_resume_integration() is
  'An integration whose secret was refused goes on when it gets another. Definer: whoever writes secrets may not write integrations.';
revoke all on function fleet.tg_resume_integration() from public, anon, authenticated, service_role;

create or replace trigger device_integrations_01_fill_owner
  before insert on public.device_integrations
  for each row execute function fleet.tg_owner_from_caller();

create or replace trigger device_integrations_02_check
  before insert or update of name, integration_type, settings, status on public.device_integrations
  for each row execute function fleet.tg_check_integration();

create or replace trigger device_integrations_03_forget
  after delete on public.device_integrations
  for each row execute function fleet.tg_forget_integration();

create or replace trigger pg_cron_secrets_01_resume_insert
  after insert on public.pg_cron_secrets
  for each row when (new.name like 'integration:%') execute function fleet.tg_resume_integration();

create or replace trigger pg_cron_secrets_01_resume_update
  after update of secret on public.pg_cron_secrets
  for each row
  when (new.name like 'integration:%' and new.secret is distinct from old.secret)
  execute function fleet.tg_resume_integration();

create or replace function fleet.integration_of_caller(p_integration_id bigint)
returns public.device_integrations
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_integrations;
begin
  select i.* into v_row
  from public.device_integrations as i
  where i.id = p_integration_id and fleet.is_visible_owner(i.owner_id)
  for update;
  if not found then
    perform fleet.raise_not_found(format('integration %s', p_integration_id));
  end if;
  perform fleet.require_permission(v_row.owner_id, 'manage', format('integration %s', p_integration_id));
  return v_row;
end;
$$;

comment on function fleet.integration_of_caller(bigint) is
  'The integration, locked, if the caller manages it. Raises integration_not_found (PT404) or permission_missing (PT403).';
revoke all on function fleet.integration_of_caller(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.create_integration(p_spec jsonb, p_secret text)
returns public.device_integrations
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid;
  v_row public.device_integrations;
  v_strange text;
begin
  if jsonb_typeof(p_spec) is distinct from 'object' then
    raise exception 'an integration must be a JSON object'
      using errcode = 'PT422',
            detail = 'integration_invalid',
            hint = 'Example: {"name": "office", "integration_type": "simplemdm"}';
  end if;
  select min(k) into v_strange
  from jsonb_object_keys(p_spec) as k
  where k <> all ('{name,integration_type,settings,owner_id}'::text[]);
  if v_strange is not null then
    raise exception 'the integration is not valid: %: is not known', v_strange
      using errcode = 'PT422',
            detail = 'integration_invalid',
            hint = 'Known are name, integration_type, settings and owner_id; the secret is an argument of its own.';
  end if;

  v_owner := fleet.owner_or_own(fleet.try_uuid(p_spec ->> 'owner_id'));
  perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
  insert into public.device_integrations as i (owner_id, name, integration_type, settings, created_by)
  values (
    v_owner, coalesce(p_spec ->> 'name', p_spec ->> 'integration_type', ''), coalesce(p_spec ->> 'integration_type', ''),
    coalesce(p_spec -> 'settings', '{}'), fleet.current_user_id()
  )
  returning * into v_row;
  if p_secret is not null then
    v_row := fleet.set_integration_secret(v_row.id, p_secret);
  end if;
  return v_row;
end;
$$;

comment on function fleet.create_integration(jsonb, text) is 'See public.create_integration. Definer: it checks the caller.';
revoke all on function fleet.create_integration(jsonb, text) from public, anon, authenticated, service_role;
grant execute on function fleet.create_integration(jsonb, text) to authenticated, service_role;

create or replace function public.create_integration(p_spec jsonb, p_secret text default null)
returns public.device_integrations
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.create_integration(p_spec, p_secret)
$$;

comment on function public.create_integration(jsonb, text) is
  'Connect another system: {"name", "integration_type": "simplemdm", "settings": {"base_url", "rate_per_second", "burst", "syncEnabled", '
  '"syncIntervalSeconds"}, "owner_id"}, and its secret, which nobody can read back. Raises integration_invalid (PT422) or '
  'permission_missing (PT403).';
revoke all on function public.create_integration(jsonb, text) from public, anon, authenticated, service_role;
grant execute on function public.create_integration(jsonb, text) to authenticated, service_role;

create or replace function fleet.set_integration_secret(p_integration_id bigint, p_secret text)
returns public.device_integrations
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_integrations := fleet.integration_of_caller(p_integration_id);
begin
  if btrim(coalesce(p_secret, '')) = '' then
    raise exception 'the secret is blank'
      using errcode = 'PT422', detail = 'secret_missing', hint = 'Copy the API key from the settings of the other system.';
  end if;

  insert into public.pg_cron_secrets as s (name, secret)
  values ('integration:' || v_row.id, btrim(p_secret))
  on conflict (name) do update set secret = excluded.secret, updated_at = now();
  select i.* into v_row from public.device_integrations as i where i.id = p_integration_id;
  return v_row;
end;
$$;

comment on function fleet.set_integration_secret(bigint, text) is 'See public.set_integration_secret. Definer: it checks the caller.';
revoke all on function fleet.set_integration_secret(bigint, text) from public, anon, authenticated, service_role;
grant execute on function fleet.set_integration_secret(bigint, text) to authenticated, service_role;

create or replace function public.set_integration_secret(p_integration_id bigint, p_secret text)
returns public.device_integrations
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.set_integration_secret(p_integration_id, p_secret)
$$;

comment on function public.set_integration_secret(bigint, text) is
  'Set or replace the secret of an integration. One that was paused because its secret was refused goes on. Raises integration_not_found '
  '(PT404), permission_missing (PT403) or secret_missing (PT422).';
revoke all on function public.set_integration_secret(bigint, text) from public, anon, authenticated, service_role;
grant execute on function public.set_integration_secret(bigint, text) to authenticated, service_role;

create or replace function fleet.set_integration_status(p_integration_id bigint, p_status text, p_reason text)
returns public.device_integrations
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_integrations := fleet.integration_of_caller(p_integration_id);
begin
  update public.device_integrations as i
  set status = p_status, status_reason = p_reason, needs_secret = false
  where i.id = v_row.id
  returning * into v_row;
  return v_row;
end;
$$;

comment on function fleet.set_integration_status(bigint, text, text) is
  'See public.pause_integration and public.resume_integration. Definer: it checks the caller.';
revoke all on function fleet.set_integration_status(bigint, text, text) from public, anon, authenticated, service_role;
grant execute on function fleet.set_integration_status(bigint, text, text) to authenticated, service_role;

create or replace function public.pause_integration(p_integration_id bigint, p_reason text default null)
returns public.device_integrations
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.set_integration_status(p_integration_id, 'paused', coalesce(p_reason, 'it was paused by hand'))
$$;

comment on function public.pause_integration(bigint, text) is
  'Call the other system no more until it is resumed; commands wait. Raises integration_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.pause_integration(bigint, text) from public, anon, authenticated, service_role;
grant execute on function public.pause_integration(bigint, text) to authenticated, service_role;

create or replace function public.resume_integration(p_integration_id bigint)
returns public.device_integrations
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.set_integration_status(p_integration_id, 'active', null)
$$;

comment on function public.resume_integration(bigint) is
  'Go on with what waits. Raises integration_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.resume_integration(bigint) from public, anon, authenticated, service_role;
grant execute on function public.resume_integration(bigint) to authenticated, service_role;

create or replace function fleet.sync_integration(p_integration_id bigint, p_now timestamptz)
returns public.device_integrations
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_integrations := fleet.integration_of_caller(p_integration_id);
begin
  if v_row.status <> 'active' then
    raise exception 'integration % is %', p_integration_id, v_row.status
      using errcode = 'PT409',
            detail = 'integration_' || v_row.status,
            hint = format('Resume it: select resume_integration(%s)', p_integration_id);
  end if;
  update public.device_integrations as i
  set sync_requested_at = p_now
  where i.id = v_row.id
  returning * into v_row;
  perform fleet.poke('mdm-dispatch', jsonb_build_object('at', p_now), p_now);
  return v_row;
end;
$$;

comment on function fleet.sync_integration(bigint, timestamptz) is 'See public.sync_integration. Definer: it checks the caller.';
revoke all on function fleet.sync_integration(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.sync_integration(bigint, timestamptz) to authenticated, service_role;

create or replace function public.sync_integration(p_integration_id bigint)
returns public.device_integrations
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.sync_integration(p_integration_id, clock_timestamp())
$$;

comment on function public.sync_integration(bigint) is
  'Read the devices of the other system now; last_sync_at tells when it is done. Raises integration_not_found (PT404), permission_missing '
  '(PT403), integration_paused or integration_disabled (PT409).';
revoke all on function public.sync_integration(bigint) from public, anon, authenticated, service_role;
grant execute on function public.sync_integration(bigint) to authenticated, service_role;

create or replace function fleet.delete_integration(p_integration_id bigint)
returns bigint
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_integrations := fleet.integration_of_caller(p_integration_id);
begin
  delete from public.device_integrations as i where i.id = v_row.id;
  return v_row.id;
end;
$$;

comment on function fleet.delete_integration(bigint) is 'See public.delete_integration. Definer: it checks the caller.';
revoke all on function fleet.delete_integration(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.delete_integration(bigint) to authenticated, service_role;

create or replace function public.delete_integration(p_integration_id bigint)
returns bigint
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.delete_integration(p_integration_id)
$$;

comment on function public.delete_integration(bigint) is
  'Remove an integration with its secret and its links; the devices and the log of calls stay. Raises integration_not_found (PT404) or '
  'permission_missing (PT403).';
revoke all on function public.delete_integration(bigint) from public, anon, authenticated, service_role;
grant execute on function public.delete_integration(bigint) to authenticated, service_role;

-- db/sources/60_mdm/85_views.sql
-- What is installed where and for how long, as people ask for it.

create or replace view public.profile_schedules with (security_invoker = true) as
select
  s.id,
  s.owner_id,
  s.profile_id,
  s.device_id,
  d.hostname,
  s.action_type,
  s.start_time,
  s.created_at,
  s.last_executed_at,
  s.ui_initiated,
  case
    when s.status = 'cancelled' and s.last_executed_at is null then 'Cancelled'
    when c.status in ('failed', 'expired', 'cancelled') and s.next_run_at is null then 'Failed'
    when s.last_executed_at is not null then 'Executed'
    when s.start_time > now() then 'Pending'
    else 'Due for execution'
  end as state,
  coalesce(c.error_message, s.status_reason) as reason,
  c.id as command_id,
  c.status as command_status,
  p.id as install_id,
  (
    select k.name
    from public.device_links as l
    join public.device_integrations as n on n.id = l.integration_id and n.status <> 'disabled'
    join public.profiles as k on k.integration_id = l.integration_id and k.external_id = s.profile_id
    where l.device_id = s.device_id and l.left_at is null
    order by (n.status = 'active') desc, n.id
    limit 1
  ) as profile_name
from public.schedules as s
left join public.devices as d on d.id = s.device_id
left join public.profile_installs as p on s.id in (p.install_schedule_id, p.remove_schedule_id)
left join lateral (
  select x.id, x.status, x.error_message
  from public.device_commands as x
  where x.schedule_id = s.id and x.device_id = s.device_id
  order by x.id desc
  limit 1
) as c on true
where s.action_type in ('push_profile', 'remove_profile');

comment on view public.profile_schedules is 'Every schedule that installs or removes a profile, and what became of it.';
comment on column public.profile_schedules.profile_id is 'The MDM''s id of the profile.';
comment on column public.profile_schedules.hostname is 'The device, where there is exactly one.';
comment on column public.profile_schedules.action_type is 'push_profile or remove_profile.';
comment on column public.profile_schedules.last_executed_at is 'When the MDM last took it.';
comment on column public.profile_schedules.ui_initiated is 'Whether a person made it by hand.';
comment on column public.profile_schedules.state is
  'Pending (its time is to come), Due for execution, Executed (the MDM took it), Failed or Cancelled.';
comment on column public.profile_schedules.reason is 'Why it failed or was cancelled.';
comment on column public.profile_schedules.command_status is 'Status of the latest command; completed where the device showed the effect.';
comment on column public.profile_schedules.install_id is 'The install of install_profile that it belongs to.';
comment on column public.profile_schedules.profile_name is 'What the MDM of the device calls the profile; null where that is not known.';

create or replace view public.temporary_profiles with (security_invoker = true) as
select
  p.id as install_id,
  p.install_schedule_id,
  p.remove_schedule_id,
  p.owner_id,
  p.profile_id,
  p.device_id,
  d.hostname,
  i.start_time as install_time,
  p.installed_at,
  r.start_time as scheduled_removal_time,
  p.removed_at,
  p.duration,
  extract(epoch from p.duration) / 60 as duration_minutes,
  case
    when p.removed_at is not null then 'removed'
    when p.failure is not null then 'never installed'
    when r.id is null then 'removal deleted'
    when r.status = 'cancelled' then 'removal cancelled'
    when p.installed_at is null then 'waiting'
    when r.next_run_at is not null then 'installed'
    when exists (
      select 1 from public.device_commands as c where c.schedule_id = r.id and c.status in ('pending', 'running')
    ) then 'removing'
    else 'removal failed'
  end as state,
  coalesce(p.failure, r.status_reason) as reason,
  p.created_at,
  (
    select k.name
    from public.device_links as l
    join public.device_integrations as n on n.id = l.integration_id and n.status <> 'disabled'
    join public.profiles as k on k.integration_id = l.integration_id and k.external_id = p.profile_id
    where l.device_id = p.device_id and l.left_at is null
    order by (n.status = 'active') desc, n.id
    limit 1
  ) as profile_name
from public.profile_installs as p
join public.schedules as i on i.id = p.install_schedule_id
join public.devices as d on d.id = p.device_id
left join public.schedules as r on r.id = p.remove_schedule_id
where p.duration is not null;

comment on view public.temporary_profiles is 'Every profile that was installed for a time, with both of its schedules.';
comment on column public.temporary_profiles.install_id is 'What extend_profile and end_profile take.';
comment on column public.temporary_profiles.install_schedule_id is 'The push_profile schedule.';
comment on column public.temporary_profiles.remove_schedule_id is 'The remove_profile schedule.';
comment on column public.temporary_profiles.profile_id is 'The MDM''s id of the profile.';
comment on column public.temporary_profiles.hostname is 'The device.';
comment on column public.temporary_profiles.install_time is 'When the push was due.';
comment on column public.temporary_profiles.installed_at is 'When the MDM took the push.';
comment on column public.temporary_profiles.scheduled_removal_time is 'When the removal is, or was, due.';
comment on column public.temporary_profiles.removed_at is 'When the MDM took the removal.';
comment on column public.temporary_profiles.duration is 'How long the profile is to stay.';
comment on column public.temporary_profiles.duration_minutes is 'The same in minutes.';
comment on column public.temporary_profiles.state is
  'waiting, installed, removing, removed, never installed, removal cancelled, removal failed or removal deleted.';
comment on column public.temporary_profiles.reason is 'Why it was never installed, or is not removed.';
comment on column public.temporary_profiles.profile_name is 'What the MDM of the device calls the profile; null where that is not known.';

-- db/sources/60_mdm/90_policies.sql
-- Who sees integrations, links, calls and installs: the owner's people. They change them through functions. Devices see none.

revoke all on table public.device_integrations, public.device_links, public.mdm_api_logs, public.profile_installs,
  public.profile_schedules, public.temporary_profiles, fleet.mdm_work, fleet.rate_limits
  from public, anon, authenticated, service_role;
revoke all on sequence public.device_integrations_id_seq, public.mdm_api_logs_id_seq, public.profile_installs_id_seq
  from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.device_integrations, public.device_links, public.mdm_api_logs,
  public.profile_installs
  to service_role;
grant usage, select on sequence public.device_integrations_id_seq, public.mdm_api_logs_id_seq, public.profile_installs_id_seq
  to service_role;
grant select on table public.profile_schedules, public.temporary_profiles to authenticated, service_role;

drop policy if exists device_integrations_all_service_role on public.device_integrations;
create policy device_integrations_all_service_role on public.device_integrations
  for all to service_role using (true) with check (true);
drop policy if exists device_links_all_service_role on public.device_links;
create policy device_links_all_service_role on public.device_links
  for all to service_role using (true) with check (true);
drop policy if exists mdm_api_logs_all_service_role on public.mdm_api_logs;
create policy mdm_api_logs_all_service_role on public.mdm_api_logs
  for all to service_role using (true) with check (true);
drop policy if exists profile_installs_all_service_role on public.profile_installs;
create policy profile_installs_all_service_role on public.profile_installs
  for all to service_role using (true) with check (true);

grant select on table public.device_integrations, public.device_links, public.mdm_api_logs, public.profile_installs
  to authenticated;
drop policy if exists device_integrations_select_member on public.device_integrations;
create policy device_integrations_select_member on public.device_integrations
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists device_links_select_member on public.device_links;
create policy device_links_select_member on public.device_links
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
-- What an MDM answers may hold passcodes and the like.
drop policy if exists mdm_api_logs_select_manager on public.mdm_api_logs;
create policy mdm_api_logs_select_manager on public.mdm_api_logs
  for select to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists profile_installs_select_member on public.profile_installs;
create policy profile_installs_select_member on public.profile_installs
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

revoke all on table public.profile_assignments, public.device_profiles from public, anon, authenticated, service_role;
revoke all on sequence public.profile_assignments_id_seq from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.profile_assignments, public.device_profiles to service_role;
grant usage, select on sequence public.profile_assignments_id_seq to service_role;
grant select on table public.profile_assignments, public.device_profiles to authenticated;

drop policy if exists profile_assignments_all_service_role on public.profile_assignments;
create policy profile_assignments_all_service_role on public.profile_assignments
  for all to service_role using (true) with check (true);
drop policy if exists device_profiles_all_service_role on public.device_profiles;
create policy device_profiles_all_service_role on public.device_profiles
  for all to service_role using (true) with check (true);
drop policy if exists profile_assignments_select_member on public.profile_assignments;
create policy profile_assignments_select_member on public.profile_assignments
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists device_profiles_select_member on public.device_profiles;
create policy device_profiles_select_member on public.device_profiles
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

revoke all on table public.integration_activity_log, public.integration_webhooks, fleet.mdm_rereads
  from public, anon, authenticated, service_role;
revoke all on sequence public.integration_activity_log_id_seq, public.integration_webhooks_id_seq
  from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.integration_activity_log, public.integration_webhooks to service_role;
grant usage, select on sequence public.integration_activity_log_id_seq, public.integration_webhooks_id_seq to service_role;

drop policy if exists integration_activity_log_all_service_role on public.integration_activity_log;
create policy integration_activity_log_all_service_role on public.integration_activity_log
  for all to service_role using (true) with check (true);
drop policy if exists integration_webhooks_all_service_role on public.integration_webhooks;
create policy integration_webhooks_all_service_role on public.integration_webhooks
  for all to service_role using (true) with check (true);

grant select on table public.integration_activity_log to authenticated;
drop policy if exists integration_activity_log_select_member on public.integration_activity_log;
create policy integration_activity_log_select_member on public.integration_activity_log
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
-- Everything but the hash of the secret.
grant select (id, owner_id, integration_id, last_used_at, revoked_at, created_by, created_at)
  on table public.integration_webhooks to authenticated;
drop policy if exists integration_webhooks_select_member on public.integration_webhooks;
create policy integration_webhooks_select_member on public.integration_webhooks
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

-- db/sources/60_mdm/91_policies_profiles.sql
-- Who sees the profiles of an MDM: the owner's people. They change them through functions; the files are nobody's to read.

revoke all on table public.profiles, fleet.profile_uploads from public, anon, authenticated, service_role;
revoke all on sequence public.profiles_id_seq from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.profiles to service_role;
grant usage, select on sequence public.profiles_id_seq to service_role;
grant select on table public.profiles to authenticated;

drop policy if exists profiles_all_service_role on public.profiles;
create policy profiles_all_service_role on public.profiles
  for all to service_role using (true) with check (true);
drop policy if exists profiles_select_member on public.profiles;
create policy profiles_select_member on public.profiles
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

-- db/sources/65_places/10_geometry.sql
-- Distances on the earth, without an extension: circles by the haversine formula, polygons on a flat map around the fix.

create or replace function fleet.longitude_difference(p_from double precision, p_to double precision)
returns double precision
language sql
immutable
parallel safe
-- The short way round, from -180 up to 180: the antimeridian is a line like any other.
return (p_to - p_from) - 360 * floor((p_to - p_from + 180) / 360);

comment on function fleet.longitude_difference(double precision, double precision) is
  'How many degrees east of the first meridian the second is, the short way round.';
revoke all on function fleet.longitude_difference(double precision, double precision)
  from public, anon, authenticated, service_role;

create or replace function fleet.distance_m(
  p_latitude double precision,
  p_longitude double precision,
  p_to_latitude double precision,
  p_to_longitude double precision
)
returns double precision
language sql
immutable
parallel safe
return 2 * 6371008.8 * asin(least(1, sqrt(
  power(sin(radians(p_to_latitude - p_latitude) / 2), 2)
  + cos(radians(p_latitude)) * cos(radians(p_to_latitude)) * power(sin(radians(p_to_longitude - p_longitude) / 2), 2)
)));

comment on function fleet.distance_m(double precision, double precision, double precision, double precision) is
  'Metres between two points by the haversine formula, on a sphere of the mean radius of the earth (within 0.5 % of the truth).';
revoke all on function fleet.distance_m(double precision, double precision, double precision, double precision)
  from public, anon, authenticated, service_role;

create or replace function fleet.polygon_edges(p_polygon jsonb, p_latitude double precision, p_longitude double precision)
returns table (x double precision, y double precision, to_x double precision, to_y double precision)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  with corner as (
    select c.place, (c.item ->> 0)::double precision as latitude, (c.item ->> 1)::double precision as longitude
    from jsonb_array_elements(p_polygon) with ordinality as c(item, place)
  ), flat as (
    -- Seen from the first corner, not from the fix: on the far side of the earth an edge would be torn apart.
    select c.place,
      radians(
        fleet.longitude_difference(p_longitude, f.longitude) + fleet.longitude_difference(f.longitude, c.longitude)
      ) * cos(radians(p_latitude)) * 6371008.8 as x,
      radians(c.latitude - p_latitude) * 6371008.8 as y
    from corner as c
    join corner as f on f.place = 1
  )
  select f.x, f.y,
    coalesce(lead(f.x) over w, first_value(f.x) over w),
    coalesce(lead(f.y) over w, first_value(f.y) over w)
  from flat as f
  window w as (order by f.place)
$$;

comment on function fleet.polygon_edges(jsonb, double precision, double precision) is
  'The edges of a polygon in metres east and north of a point, on a flat map that is true around that point.';
revoke all on function fleet.polygon_edges(jsonb, double precision, double precision)
  from public, anon, authenticated, service_role;

create or replace function fleet.polygon_distance_m(p_polygon jsonb, p_latitude double precision, p_longitude double precision)
returns double precision
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  with edge as (
    select e.x, e.y, e.to_x - e.x as dx, e.to_y - e.y as dy
    from fleet.polygon_edges(p_polygon, p_latitude, p_longitude) as e
  ), foot as (
    -- Where on the edge its nearest point to the origin is: 0 at its start, 1 at its end.
    select e.*,
      greatest(0, least(1, coalesce(-(e.x * e.dx + e.y * e.dy) / nullif(e.dx * e.dx + e.dy * e.dy, 0), 0))) as share
    from edge as e
  )
  select min(sqrt(power(f.x + f.share * f.dx, 2) + power(f.y + f.share * f.dy, 2)))
    -- Inside where a ray to the east crosses the border an odd number of times.
    * case
      when count(*) filter (
        where (f.y > 0) <> (f.y + f.dy > 0) and f.x - f.y * f.dx / nullif(f.dy, 0) > 0
      ) % 2 = 1 then -1
      else 1
    end
  from foot as f
$$;

comment on function fleet.polygon_distance_m(jsonb, double precision, double precision) is
  'Metres from a point to the border of a polygon [[latitude, longitude], …]; negative inside.';
revoke all on function fleet.polygon_distance_m(jsonb, double precision, double precision)
  from public, anon, authenticated, service_role;

create or replace function fleet.border_distance_m(
  p_location public.locations,
  p_latitude double precision,
  p_longitude double precision
)
returns double precision
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case p_location.kind
    when 'circle' then
      fleet.distance_m(p_location.latitude, p_location.longitude, p_latitude, p_longitude) - p_location.radius_m
    -- Far away the flat map is wrong, but then the circle around the polygon tells enough.
    when 'polygon' then
      case
        when c.distance_m > 3 * p_location.reach_m + 1000 then c.distance_m - p_location.reach_m
        else fleet.polygon_distance_m(p_location.polygon, p_latitude, p_longitude)
      end
  end
  from (
    select fleet.distance_m(p_location.latitude, p_location.longitude, p_latitude, p_longitude) as distance_m
  ) as c
$$;

comment on function fleet.border_distance_m(public.locations, double precision, double precision) is
  'Metres from a point to the border of a location; negative inside. Of a polygon that is far away, a lower bound.';
revoke all on function fleet.border_distance_m(public.locations, double precision, double precision)
  from public, anon, authenticated, service_role;

create or replace function fleet.polygon_centre(p_polygon jsonb)
returns table (latitude double precision, longitude double precision, reach_m double precision)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  with corner as (
    select (c.item ->> 0)::double precision as latitude,
      fleet.longitude_difference((p_polygon -> 0 ->> 1)::double precision, (c.item ->> 1)::double precision) as east
    from jsonb_array_elements(p_polygon) as c(item)
  ), middle as (
    select (min(c.latitude) + max(c.latitude)) / 2 as latitude,
      fleet.longitude_difference(
        0, (p_polygon -> 0 ->> 1)::double precision + (min(c.east) + max(c.east)) / 2
      ) as longitude
    from corner as c
  )
  select m.latitude, m.longitude, max(
    fleet.distance_m(m.latitude, m.longitude, c.latitude, (p_polygon -> 0 ->> 1)::double precision + c.east)
  )
  from middle as m
  cross join corner as c
  group by m.latitude, m.longitude
$$;

comment on function fleet.polygon_centre(jsonb) is 'The middle of a polygon and how far its furthest corner is from there.';
revoke all on function fleet.polygon_centre(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.polygon_area_m2(p_polygon jsonb)
returns double precision
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select abs(sum(e.x * e.to_y - e.to_x * e.y)) / 2
  from fleet.polygon_edges(p_polygon, (p_polygon -> 0 ->> 0)::double precision, (p_polygon -> 0 ->> 1)::double precision) as e
$$;

comment on function fleet.polygon_area_m2(jsonb) is 'The area that a polygon encloses, in square metres, on a flat map around its first corner.';
revoke all on function fleet.polygon_area_m2(jsonb) from public, anon, authenticated, service_role;

-- db/sources/65_places/20_sides.sql
-- Which side of a border a fix is on, and when that counts. All of it is arithmetic: no table is read.

create or replace function fleet.place_of_fix(
  p_location public.locations,
  p_latitude double precision,
  p_longitude double precision,
  p_accuracy_m double precision
)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when d.distance_m <= -d.error_m then 'inside'
    when d.distance_m > d.error_m then 'outside'
    else 'unclear'
  end
  from (
    select fleet.border_distance_m(p_location, p_latitude, p_longitude) as distance_m,
      coalesce(p_accuracy_m, p_location.hysteresis_m) as error_m
  ) as d
$$;

comment on function fleet.place_of_fix(public.locations, double precision, double precision, double precision) is
  'inside, outside, or unclear where the circle of error crosses the border. A fix that states no accuracy has the hysteresis of the '
  'location for its error.';
revoke all on function fleet.place_of_fix(public.locations, double precision, double precision, double precision)
  from public, anon, authenticated, service_role;

create or replace function fleet.side_of_fix(
  p_distance_m double precision,
  p_error_m double precision,
  p_hysteresis_m double precision,
  p_is_inside boolean
)
returns text
language sql
immutable
parallel safe
return case
  -- The circle of error crosses the border.
  when p_distance_m > -p_error_m and p_distance_m <= p_error_m then 'unclear'
  when p_distance_m <= 0 then 'inside'
  when not p_is_inside then 'outside'
  -- For a device inside, the border that matters lies further out.
  when p_distance_m - p_error_m > p_hysteresis_m then 'outside'
  when p_distance_m + p_error_m <= p_hysteresis_m then 'inside'
  else 'unclear'
end;

comment on function fleet.side_of_fix(double precision, double precision, double precision, boolean) is
  'The side that a fix speaks for, given its distance to the border (negative inside) and where the device was: one that is inside has '
  'left only beyond the hysteresis. An unclear fix speaks for none.';
revoke all on function fleet.side_of_fix(double precision, double precision, double precision, boolean)
  from public, anon, authenticated, service_role;

create or replace function fleet.candidate_since(
  p_is_inside boolean,
  p_candidate_since timestamptz,
  p_seen_at timestamptz,
  p_side text,
  p_fix_at timestamptz,
  p_stale_after interval
)
returns timestamptz
language sql
immutable
parallel safe
return case
  when p_side = 'unclear' then p_candidate_since
  when (p_side = 'inside') = p_is_inside then null
  -- What was seen before a long silence does not show that it held meanwhile.
  when p_candidate_since is null or p_fix_at - p_seen_at > p_stale_after then p_fix_at
  else p_candidate_since
end;

comment on function fleet.candidate_since(boolean, timestamptz, timestamptz, text, timestamptz, interval) is
  'Since when a device is seen on the other side than the one that counts; null where it is not.';
revoke all on function fleet.candidate_since(boolean, timestamptz, timestamptz, text, timestamptz, interval)
  from public, anon, authenticated, service_role;

create or replace function fleet.stale_position_after()
returns interval
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select make_interval(hours => fleet.setting_number('stale_position_hours')::integer)
$$;

comment on function fleet.stale_position_after() is 'After how long without a fix a position is unknown.';
revoke all on function fleet.stale_position_after() from public, anon, authenticated, service_role;

-- db/sources/65_places/30_judge.sql
-- What fixes say about the locations of their owner: at most one fix of each device at a time.

create or replace function fleet.judged_fixes(p_fixes jsonb, p_stale_after interval)
returns table (
  device_id bigint, owner_id uuid, fix_at timestamptz, location_id bigint, location_name text, side text,
  was_inside boolean, is_inside boolean, since timestamptz, candidate_since timestamptz
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with near as (
    select f.device_id, f.owner_id, f.at, l.id, l.name, l.min_dwell,
      coalesce(p.is_inside, false) as was_inside, p.since, p.candidate_since, p.seen_at,
      fleet.side_of_fix(
        fleet.border_distance_m(l, f.latitude, f.longitude),
        coalesce(f.accuracy_m, l.hysteresis_m), l.hysteresis_m, coalesce(p.is_inside, false)
      ) as side
    from jsonb_to_recordset(p_fixes) as f(
      device_id bigint, owner_id uuid, latitude double precision, longitude double precision,
      accuracy_m double precision, at timestamptz
    )
    join public.locations as l on l.owner_id = f.owner_id
    left join public.device_places as p on p.device_id = f.device_id and p.location_id = l.id
    -- A location that is far off and stays so has nothing to say.
    where p.is_inside
      or p.candidate_since is not null
      or fleet.distance_m(l.latitude, l.longitude, f.latitude, f.longitude) <= l.reach_m + coalesce(f.accuracy_m, l.hysteresis_m)
  ), seen as (
    select n.*,
      fleet.candidate_since(n.was_inside, n.candidate_since, n.seen_at, n.side, n.at, p_stale_after) as candidate
    from near as n
  ), decided as (
    select s.*, s.side <> 'unclear' and coalesce(s.at - s.candidate >= s.min_dwell, false) as changes
    from seen as s
  )
  select d.device_id, d.owner_id, d.at, d.id, d.name, d.side,
    d.was_inside, d.was_inside <> d.changes,
    case when d.changes then d.candidate else d.since end,
    case when not d.changes then d.candidate end
  from decided as d
$$;

comment on function fleet.judged_fixes(jsonb, interval) is
  'What each fix {device_id, owner_id, latitude, longitude, accuracy_m, at} makes of each location near it, by the state that is stored. '
  'One fix of a device at most.';
revoke all on function fleet.judged_fixes(jsonb, interval) from public, anon, authenticated, service_role;

create or replace function fleet.judged_positions(p_fixes jsonb, p_judged jsonb, p_stale_after interval)
returns table (device_id bigint, was_outside_all boolean, is_outside_all boolean, outside_since timestamptz)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with summed as (
    select f.device_id, f.at, p.is_outside_all, p.outside_since,
      p.fix_at is null or f.at - p.fix_at > p_stale_after as was_silent,
      (select min(l.min_dwell) from public.locations as l where l.owner_id = f.owner_id) as min_dwell,
      j.is_in_one, j.is_seen_in_one, j.is_unclear
    from jsonb_to_recordset(p_fixes) as f(device_id bigint, owner_id uuid, at timestamptz)
    join public.device_positions as p on p.device_id = f.device_id
    cross join lateral (
      select coalesce(bool_or(r.is_inside), false) as is_in_one,
        coalesce(bool_or(r.side = 'inside'), false) as is_seen_in_one,
        coalesce(bool_or(r.side = 'unclear'), false) as is_unclear
      from jsonb_to_recordset(p_judged) as r(device_id bigint, is_inside boolean, side text)
      where r.device_id = f.device_id
    ) as j
  ), counted as (
    select s.*,
      case
        when s.is_seen_in_one then null
        when s.is_unclear then s.outside_since
        when s.outside_since is null or s.was_silent then s.at
        else s.outside_since
      end as since
    from summed as s
  )
  select c.device_id, c.is_outside_all,
    case
      when c.min_dwell is null then null
      when c.is_in_one then false
      when not c.is_unclear and c.at - c.since >= c.min_dwell then true
      else c.is_outside_all
    end,
    c.since
  from counted as c
$$;

comment on function fleet.judged_positions(jsonb, jsonb, interval) is
  'Whether each device is outside of all locations, given what fleet.judged_fixes said. It is when no location has it inside and its '
  'fixes were clear of all for the shortest min_dwell; null where the owner has no location.';
revoke all on function fleet.judged_positions(jsonb, jsonb, interval) from public, anon, authenticated, service_role;

-- db/sources/65_places/40_fixes.sql
-- Taking fixes: in the order of their own times, each at most once, whatever the order in which they come.

create or replace function fleet.fix_outcome(
  p_is_known boolean,
  p_is_valid boolean,
  p_at timestamptz,
  p_judged_to timestamptz,
  p_now timestamptz,
  p_stale_after interval
)
returns text
language sql
immutable
parallel safe
return case
  when not p_is_known then 'unknown_device'
  when not p_is_valid then 'invalid'
  -- A clock may be ahead a little; further ahead, one fix would silence all the true ones after it.
  when p_at > p_now + interval '5 minutes' then 'in_the_future'
  when p_at = p_judged_to then 'duplicate'
  when p_at < p_judged_to then 'out_of_order'
  when p_at < p_now - p_stale_after then 'stale'
  else 'taken'
end;

comment on function fleet.fix_outcome(boolean, boolean, timestamptz, timestamptz, timestamptz, interval) is
  'What becomes of a fix: taken, or why it changes no place.';
revoke all on function fleet.fix_outcome(boolean, boolean, timestamptz, timestamptz, timestamptz, interval)
  from public, anon, authenticated, service_role;

create or replace function fleet.degrees_of(p_value jsonb)
returns double precision
language sql
immutable
parallel safe
return case
  -- Nine digits are a tenth of a millimetre. What is smaller would only underflow, and what is larger is nowhere.
  when jsonb_typeof(p_value) = 'number' and (p_value #>> '{}')::numeric between -1e9 and 1e9
    then round((p_value #>> '{}')::numeric, 9)::double precision
end;

comment on function fleet.degrees_of(jsonb) is 'A number of degrees or metres in JSON, rounded to nine digits; null where it is none.';
revoke all on function fleet.degrees_of(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.parsed_fixes(p_fixes jsonb)
returns table (
  device_id bigint, latitude double precision, longitude double precision, accuracy_m double precision, at timestamptz,
  is_valid boolean, rank bigint
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with given as (
    select (e.item ->> 'device_id')::bigint as device_id,
      fleet.degrees_of(e.item -> 'latitude') as latitude,
      fleet.degrees_of(e.item -> 'longitude') as longitude,
      fleet.degrees_of(e.item -> 'accuracy_m') as accuracy_m,
      coalesce(e.item -> 'accuracy_m', 'null') = 'null' or fleet.degrees_of(e.item -> 'accuracy_m') is not null
        as accuracy_is_valid,
      fleet.try_exact_instant(e.item ->> 'located_at') as at
    from jsonb_array_elements(p_fixes) as e(item)
    where jsonb_typeof(e.item -> 'device_id') = 'number'
  )
  select g.device_id, g.latitude, g.longitude, g.accuracy_m, g.at,
    coalesce(
      g.at is not null and g.accuracy_is_valid
        and g.latitude between -90 and 90 and g.longitude between -180 and 180
        and coalesce(g.accuracy_m, 0) between 0 and 20000000,
      false
    ),
    row_number() over (partition by g.device_id order by g.at, g.accuracy_m nulls last)
  from given as g
$$;

comment on function fleet.parsed_fixes(jsonb) is
  'Fixes as columns, those of a device numbered in the order of their times. What is wrong in one makes it invalid, not the rest.';
revoke all on function fleet.parsed_fixes(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.note_places(p_judged jsonb)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  insert into public.device_places as p (device_id, location_id, owner_id, is_inside, since, candidate_since, seen_at)
  select r.device_id, r.location_id, r.owner_id, r.is_inside, r.since, r.candidate_since, r.fix_at
  from jsonb_to_recordset(p_judged) as r(
    device_id bigint, location_id bigint, owner_id uuid, is_inside boolean, since timestamptz,
    candidate_since timestamptz, fix_at timestamptz, side text
  )
  where r.side <> 'unclear'
    -- Of where it never was, nothing is kept.
    and (
      r.side = 'inside'
      or exists (
        select 1 from public.device_places as x where x.device_id = r.device_id and x.location_id = r.location_id
      )
    )
  on conflict (device_id, location_id) do update
    set is_inside = excluded.is_inside, since = excluded.since, candidate_since = excluded.candidate_since,
        seen_at = excluded.seen_at
$$;

comment on function fleet.note_places(jsonb) is 'Keep what fleet.judged_fixes said.';
revoke all on function fleet.note_places(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.note_positions(p_positions jsonb, p_fixes jsonb)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  update public.device_positions as p
  set fix_at = f.at, lost_at = null, is_outside_all = r.is_outside_all, outside_since = r.outside_since
  from jsonb_to_recordset(p_positions) as r(device_id bigint, is_outside_all boolean, outside_since timestamptz)
  join jsonb_to_recordset(p_fixes) as f(device_id bigint, at timestamptz) on f.device_id = r.device_id
  where p.device_id = r.device_id
$$;

comment on function fleet.note_positions(jsonb, jsonb) is 'Keep what fleet.judged_positions said, and up to which fix.';
revoke all on function fleet.note_positions(jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.note_location_events(p_fixes jsonb, p_judged jsonb, p_positions jsonb)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  insert into public.location_events (
    owner_id, device_id, location_id, location_name, event, at, fix_at, latitude, longitude, accuracy_m
  )
  select f.owner_id, f.device_id, e.location_id, e.location_name, e.event, e.at, f.at, f.latitude, f.longitude, f.accuracy_m
  from jsonb_to_recordset(p_fixes) as f(
    device_id bigint, owner_id uuid, latitude double precision, longitude double precision,
    accuracy_m double precision, at timestamptz
  )
  join (
    select r.device_id, r.location_id, r.location_name, case when r.is_inside then 'entered' else 'left' end as event,
      r.since as at, 1 as place
    from jsonb_to_recordset(p_judged) as r(
      device_id bigint, location_id bigint, location_name text, was_inside boolean, is_inside boolean, since timestamptz
    )
    where r.was_inside <> r.is_inside
    union all
    select r.device_id, null, null, 'outside_all', r.outside_since, 2
    from jsonb_to_recordset(p_positions) as r(
      device_id bigint, was_outside_all boolean, is_outside_all boolean, outside_since timestamptz
    )
    where r.is_outside_all and r.was_outside_all is distinct from true
    union all
    select r.device_id, null, null, 'inside_any', min(j.since), 2
    from jsonb_to_recordset(p_positions) as r(device_id bigint, was_outside_all boolean, is_outside_all boolean)
    join jsonb_to_recordset(p_judged) as j(device_id bigint, is_inside boolean, since timestamptz)
      on j.device_id = r.device_id and j.is_inside
    where not r.is_outside_all and r.was_outside_all is distinct from false
    group by r.device_id
  ) as e on e.device_id = f.device_id
  order by f.at, f.device_id, e.place, e.event desc, e.location_id
  on conflict do nothing;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.note_location_events(jsonb, jsonb, jsonb) is
  'Record each crossing once; what is left comes before what is entered. Policies act on these rows.';
revoke all on function fleet.note_location_events(jsonb, jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.note_silence(p_fixes jsonb, p_stale_after interval)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  insert into public.location_events (
    owner_id, device_id, event, at, fix_at, latitude, longitude, accuracy_m, acted_at
  )
  select p.owner_id, p.device_id, e.event, e.at, f.at, f.latitude, f.longitude, f.accuracy_m, now()
  from jsonb_to_recordset(p_fixes) as f(
    device_id bigint, latitude double precision, longitude double precision, accuracy_m double precision, at timestamptz
  )
  join public.device_positions as p on p.device_id = f.device_id
  cross join lateral (
    values
      ('position_lost', p.fix_at + p_stale_after, p.lost_at is null),
      ('position_found', f.at, true)
  ) as e(event, at, is_new)
  where f.at > p.fix_at + p_stale_after and e.is_new
  order by e.at
  on conflict do nothing
$$;

comment on function fleet.note_silence(jsonb, interval) is
  'Record that devices whose fixes come again were not heard of. No policy acts on that: a device has the state that it had.';
revoke all on function fleet.note_silence(jsonb, interval) from public, anon, authenticated, service_role;

create or replace function fleet.take_fixes_of_devices(p_fixes jsonb, p_now timestamptz)
returns table (device_id bigint, located_at timestamptz, outcome text)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_stale_after interval := fleet.stale_position_after();
  v_fixes jsonb;
  v_taken jsonb;
  v_judged jsonb;
  v_positions jsonb;
begin
  select jsonb_agg(to_jsonb(x.*)) into v_fixes
  from (
    select f.device_id, d.owner_id, f.latitude, f.longitude, f.accuracy_m, f.at,
      fleet.fix_outcome(d.id is not null, f.is_valid, f.at, p.fix_at, p_now, v_stale_after) as outcome
    from jsonb_to_recordset(p_fixes) as f(
      device_id bigint, latitude double precision, longitude double precision, accuracy_m double precision,
      at timestamptz, is_valid boolean
    )
    left join public.devices as d on d.id = f.device_id and d.status = 'active'
    left join public.device_positions as p on p.device_id = d.id
  ) as x;

  -- What is the latest that is known of a device is shown, even where it comes too late to mean anything.
  update public.devices as d
  set latitude = f.latitude, longitude = f.longitude, accuracy_m = f.accuracy_m, located_at = f.at
  from jsonb_to_recordset(v_fixes) as f(
    device_id bigint, latitude double precision, longitude double precision, accuracy_m double precision,
    at timestamptz, outcome text
  )
  where d.id = f.device_id
    and f.outcome in ('taken', 'stale')
    and (d.located_at is null or d.located_at < f.at);

  v_taken := coalesce(jsonb_path_query_array(v_fixes, '$[*] ? (@.outcome == "taken")'), '[]');
  if v_taken <> '[]' then
    perform fleet.note_silence(v_taken, v_stale_after);
    select coalesce(jsonb_agg(to_jsonb(j)), '[]') into v_judged from fleet.judged_fixes(v_taken, v_stale_after) as j;
    perform fleet.note_places(v_judged);
    select coalesce(jsonb_agg(to_jsonb(j)), '[]') into v_positions
    from fleet.judged_positions(v_taken, v_judged, v_stale_after) as j;
    perform fleet.note_positions(v_positions, v_taken);
    perform fleet.note_location_events(v_taken, v_judged, v_positions);
  end if;

  return query
  select r.device_id, r.at, r.outcome
  from jsonb_to_recordset(v_fixes) as r(device_id bigint, at timestamptz, outcome text);
end;
$$;

comment on function fleet.take_fixes_of_devices(jsonb, timestamptz) is
  'Judge one parsed fix of each device, for all devices together. The caller has locked their rows in device_positions.';
revoke all on function fleet.take_fixes_of_devices(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.take_fixes(p_fixes jsonb, p_now timestamptz)
returns table (device_id bigint, located_at timestamptz, outcome text)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids bigint[];
  v_fixes jsonb;
begin
  select array_agg(distinct (e.item ->> 'device_id')::bigint) into v_ids
  from jsonb_array_elements(p_fixes) as e(item)
  where jsonb_typeof(e.item -> 'device_id') = 'number';

  -- First the devices, as everybody does who writes them, then what is known of them; and in one order, so that two that
  -- take fixes of the same devices never wait for each other in a circle.
  perform 1 from public.devices as d where d.id = any (v_ids) order by d.id for no key update;
  insert into public.device_positions (device_id, owner_id)
  select d.id, d.owner_id from public.devices as d where d.id = any (v_ids) and d.status = 'active' order by d.id
  on conflict do nothing;
  perform 1 from public.device_positions as p where p.device_id = any (v_ids) order by p.device_id for update;

  -- A device's second fix is judged by what its first one made of it; different devices have nothing to do with each other.
  for v_fixes in
    select jsonb_agg(to_jsonb(f)) from fleet.parsed_fixes(p_fixes) as f group by f.rank order by f.rank
  loop
    return query select t.device_id, t.located_at, t.outcome from fleet.take_fixes_of_devices(v_fixes, p_now) as t;
  end loop;

  perform fleet.act_on_places(p_now) where fleet.is_trusted_caller();
end;
$$;

comment on function fleet.take_fixes(jsonb, timestamptz) is
  'Take fixes [{device_id, latitude, longitude, accuracy_m, located_at}], any number of any devices, in any order; the caller answers for '
  'the devices being its own. One row for each: taken, duplicate, out_of_order, stale (older than the setting stale_position_hours: shown, '
  'but no place is judged by it), in_the_future, invalid or unknown_device. Where the caller is trusted policies act at once, else with '
  'the next tick.';
revoke all on function fleet.take_fixes(jsonb, timestamptz) from public, anon, authenticated, service_role;

-- db/sources/65_places/45_sync.sql
-- Where devices are by what another system says of them.

create or replace function fleet.take_linked_fixes(p_integration_id bigint, p_devices jsonb, p_now timestamptz)
returns integer
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select count(*)::integer
  from fleet.take_fixes(
    (
      select coalesce(jsonb_agg(jsonb_build_object(
        'device_id', l.device_id,
        'latitude', n.latitude,
        'longitude', n.longitude,
        'accuracy_m', n.accuracy_m,
        'located_at', e.item ->> 'located_at'
      )), '[]')
      from jsonb_array_elements(p_devices) as e(item)
      join public.device_links as l on l.integration_id = p_integration_id and l.external_id = e.item ->> 'external_id'
      cross join lateral (
        -- Some systems write numbers as text.
        select max(k.number) filter (where k.name = 'latitude') as latitude,
          max(k.number) filter (where k.name = 'longitude') as longitude,
          max(k.number) filter (where k.name = 'accuracy_m') as accuracy_m
        from (
          select f.name, case when e.item ->> f.name ~ '^-?\d{1,9}(\.\d{1,18})?$' then (e.item ->> f.name)::numeric end as number
          from unnest('{latitude,longitude,accuracy_m}'::text[]) as f(name)
        ) as k
      ) as n
      where e.item ->> 'located_at' is not null and n.latitude is not null and n.longitude is not null
    ),
    p_now
  ) as t
  where t.outcome = 'taken'
$$;

comment on function fleet.take_linked_fixes(bigint, jsonb, timestamptz) is
  'Take the positions that an integration tells of the devices linked to it, a list of {external_id, latitude, longitude, accuracy_m, '
  'located_at, …}; devices without a position are passed over. Answers how many were new.';
revoke all on function fleet.take_linked_fixes(bigint, jsonb, timestamptz) from public, anon, authenticated, service_role;

-- db/sources/65_places/50_report.sql
-- What devices tell of themselves: where they are.

create or replace function fleet.position_problems(
  p_latitude double precision,
  p_longitude double precision,
  p_accuracy_m double precision,
  p_located_at timestamptz,
  p_now timestamptz
)
returns table (field text, problem text, hint text)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select 'latitude', coalesce(p_latitude || ' is not within -90 to 90', 'is missing'), 'Degrees north, such as 52.52.'
  where p_latitude is null or p_latitude not between -90 and 90
  union all
  select 'longitude', coalesce(p_longitude || ' is not within -180 to 180', 'is missing'), 'Degrees east, such as 13.405.'
  where p_longitude is null or p_longitude not between -180 and 180
  union all
  select 'accuracy_m', format('%s is not within 0 to 20000000', p_accuracy_m), 'Metres within which the position is true, or null.'
  where p_accuracy_m not between 0 and 20000000
  union all
  select 'located_at', case when p_located_at is null then 'is missing' else 'is in the future' end,
    'The time of the fix; set the clock of the device.'
  where p_located_at is null or p_located_at > p_now + interval '5 minutes'
$$;

comment on function fleet.position_problems(double precision, double precision, double precision, timestamptz, timestamptz) is
  'Everything that is wrong with a position; no row where nothing is.';
revoke all on function fleet.position_problems(double precision, double precision, double precision, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.report_location(
  p_latitude double precision,
  p_longitude double precision,
  p_accuracy_m double precision,
  p_located_at timestamptz,
  p_now timestamptz
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device_id bigint := fleet.require_device();
  v_fields text[];
  v_problems text[];
  v_hints text[];
  v_outcome text;
begin
  select array_agg(q.field), array_agg(q.problem), array_agg(q.hint)
  into v_fields, v_problems, v_hints
  from fleet.position_problems(p_latitude, p_longitude, p_accuracy_m, p_located_at, p_now) as q;
  perform fleet.raise_problems('the position', 'position_invalid', v_fields, v_problems, v_hints);

  select t.outcome into v_outcome
  from fleet.take_fixes(
    jsonb_build_array(jsonb_build_object(
      'device_id', v_device_id, 'latitude', p_latitude, 'longitude', p_longitude, 'accuracy_m', p_accuracy_m,
      'located_at', p_located_at
    )),
    p_now
  ) as t;
  perform fleet.touch_device(v_device_id, p_now);

  return jsonb_build_object('accepted', v_outcome = 'taken', 'places', (
    select coalesce(jsonb_agg(jsonb_build_object('location_id', l.id, 'name', l.name, 'since', p.since) order by l.name), '[]')
    from public.device_places as p
    join public.locations as l on l.id = p.location_id
    where p.device_id = v_device_id and p.is_inside
  ))
  || case when v_outcome = 'taken' then '{}' else jsonb_build_object('reason', v_outcome) end;
end;
$$;

comment on function fleet.report_location(double precision, double precision, double precision, timestamptz, timestamptz) is
  'See public.report_location. Definer: a device may not write its row, only where it is.';
revoke all on function fleet.report_location(double precision, double precision, double precision, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.report_location(double precision, double precision, double precision, timestamptz, timestamptz)
  to authenticated, service_role;

create or replace function public.report_location(
  p_latitude double precision,
  p_longitude double precision,
  p_accuracy_m double precision default null,
  p_located_at timestamptz default now()
)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.report_location(p_latitude, p_longitude, p_accuracy_m, p_located_at, clock_timestamp())
$$;

comment on function public.report_location(double precision, double precision, double precision, timestamptz) is
  'A device tells where it is: {"accepted": true, "places": [{location_id, name, since}]} with the locations that it is inside of, or '
  '{"accepted": false, "reason": duplicate | out_of_order | stale, …}. Raises not_a_device (PT403) or position_invalid (PT422).';
revoke all on function public.report_location(double precision, double precision, double precision, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function public.report_location(double precision, double precision, double precision, timestamptz)
  to authenticated, service_role;

-- db/sources/65_places/60_act.sql
-- Acting on places: an event makes schedules, which go the way of all others.

create or replace function fleet.policies_for_event(p_event public.location_events)
returns setof public.location_policies
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select p.*
  from public.location_policies as p
  join public.devices as d on d.id = p_event.device_id and d.owner_id = p.owner_id and d.status = 'active'
  left join public.device_groups as g on g.id = p.group_id and g.owner_id = p.owner_id
  where p.owner_id = p_event.owner_id
    and p.is_enabled
    -- What happened before there was a policy is past.
    and p.created_at <= p_event.created_at
    and p.event = case p_event.event when 'entered' then 'enter' when 'left' then 'leave' else p_event.event end
    and p.location_id is not distinct from p_event.location_id
    and (p.selector is null or fleet.device_matches(p.selector, d.tags, d.platform, d.attributes))
    and (
      p.group_id is null
      or (g.selector is not null and fleet.device_matches(g.selector, d.tags, d.platform, d.attributes))
      or exists (
        select 1 from public.device_group_members as m where m.group_id = p.group_id and m.device_id = d.id
      )
    )
  order by p.priority desc, p.id
$$;

comment on function fleet.policies_for_event(public.location_events) is
  'The policies of the owner that are for such an event and for its device, in the order in which they act.';
revoke all on function fleet.policies_for_event(public.location_events) from public, anon, authenticated, service_role;

create or replace function fleet.schedule_for_event(p_event public.location_events, p_policy public.location_policies, p_now timestamptz)
returns bigint
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  insert into public.schedules (
    owner_id, name, description, action_type, payload, recurrence_type, start_time, device_ids, priority
  )
  select p_event.owner_id,
    concat_ws(' ',
      coalesce(nullif(p_policy.name, ''), concat_ws(' ', p_policy.action_type, p_policy.payload ->> 'profile_id')) || ':',
      d.hostname,
      case p_event.event
        when 'outside_all' then 'is outside of all locations'
        when 'inside_any' then 'is inside a location again'
        else p_event.event || ' ' || p_event.location_name
      end
    ),
    format('Location policy %s, event %s, at %s.', p_policy.id, p_event.id,
      to_char(p_event.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')),
    p_policy.action_type, p_policy.payload, 'once', least(p_now, clock_timestamp()), array[p_event.device_id], p_policy.priority
  from public.devices as d
  where d.id = p_event.device_id
  returning id
$$;

comment on function fleet.schedule_for_event(public.location_events, public.location_policies, timestamptz) is
  'Make the schedule that a policy wants for an event: once, for the device, due now.';
revoke all on function fleet.schedule_for_event(public.location_events, public.location_policies, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.act_on_event(p_event public.location_events, p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_policy public.location_policies;
  v_schedule_id bigint;
  v_error text;
  v_count integer := 0;
begin
  for v_policy in select * from fleet.policies_for_event(p_event) loop
    -- One policy that is wrong by now, such as one whose command type is gone, must not stop the others.
    begin
      v_error := null;
      v_schedule_id := fleet.schedule_for_event(p_event, v_policy, p_now);
    exception when others then
      v_schedule_id := null;
      v_error := sqlerrm;
    end;
    insert into public.location_actions (event_id, policy_id, owner_id, schedule_id, error_message)
    values (p_event.id, v_policy.id, p_event.owner_id, v_schedule_id, v_error);
    v_count := v_count + 1;
  end loop;
  update public.location_events as e set acted_at = p_now where e.id = p_event.id;
  return v_count;
end;
$$;

comment on function fleet.act_on_event(public.location_events, timestamptz) is
  'Let each policy act on an event whose row is locked, and record what came of it. Answers how many did.';
revoke all on function fleet.act_on_event(public.location_events, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.act_on_places(p_now timestamptz, p_limit integer default 100)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_event public.location_events;
  v_count integer := 0;
begin
  for v_event in
    select e.*
    from public.location_events as e
    where e.acted_at is null
    order by e.id
    limit p_limit
    for update skip locked
  loop
    perform fleet.act_on_event(v_event, p_now);
    v_count := v_count + 1;
  end loop;
  return v_count;
end;
$$;

comment on function fleet.act_on_places(timestamptz, integer) is
  'Let policies act on the events that wait, the oldest first. Answers how many events. Any number of sessions may do it at once.';
revoke all on function fleet.act_on_places(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.note_lost_positions(p_now timestamptz, p_limit integer default 1000)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_stale_after interval := fleet.stale_position_after();
  v_count integer;
begin
  with lost as (
    update public.device_positions as p
    set lost_at = p.fix_at + v_stale_after
    where p.device_id in (
      select x.device_id
      from public.device_positions as x
      where x.lost_at is null and x.fix_at < p_now - v_stale_after
      order by x.fix_at
      limit p_limit
      for update skip locked
    )
    returning p.device_id, p.owner_id, p.fix_at, p.lost_at
  )
  insert into public.location_events (owner_id, device_id, event, at, fix_at, acted_at)
  select l.owner_id, l.device_id, 'position_lost', l.lost_at, l.fix_at, p_now
  from lost as l
  on conflict do nothing;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.note_lost_positions(timestamptz, integer) is
  'Record devices whose latest fix is older than the setting stale_position_hours: their position is unknown, their places stay as they were.';
revoke all on function fleet.note_lost_positions(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.prune_location_events(p_before timestamptz, p_limit integer default 1000)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  delete from public.location_events as e
  where e.id in (
    select x.id
    from public.location_events as x
    where x.created_at < p_before and x.acted_at is not null
    order by x.created_at
    limit p_limit
  );
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.prune_location_events(timestamptz, integer) is 'Delete a batch of old events that policies have acted on. Answers how many.';
revoke all on function fleet.prune_location_events(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.tend_places(p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.note_lost_positions(p_now);
  perform fleet.prune_location_events(p_now - make_interval(days => fleet.setting_number('history_days')::integer));
  return fleet.act_on_places(p_now);
end;
$$;

comment on function fleet.tend_places(timestamptz) is
  'What each tick does about places: note positions that are lost, act on events that wait, prune old ones. Answers how many were acted on.';
revoke all on function fleet.tend_places(timestamptz) from public, anon, authenticated, service_role;

-- db/sources/65_places/70_rows.sql
-- What holds for locations and their policies however a row is written.

create or replace function fleet.polygon_problems(p_polygon jsonb)
returns table (field text, problem text, hint text)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  with shape as (
    select jsonb_typeof(p_polygon) is not distinct from 'array' as is_list,
      case jsonb_typeof(p_polygon) when 'array' then p_polygon else '[]' end as corners
  ), corner as (
    select format('polygon[%s]', c.place - 1) as field, c.item,
      jsonb_typeof(c.item) = 'array'
        and case
          when jsonb_typeof(c.item) = 'array' then
            jsonb_array_length(c.item) = 2
              and jsonb_typeof(c.item -> 0) = 'number' and jsonb_typeof(c.item -> 1) = 'number'
        end as is_pair
    from shape as s
    cross join lateral jsonb_array_elements(s.corners) with ordinality as c(item, place)
  )
  select 'polygon', 'must be a list of corners', 'Example: [[52.5, 13.4], [52.5, 13.41], [52.51, 13.41]]'
  from shape as s
  where not s.is_list
  union all
  select 'polygon', format('has %s corners', jsonb_array_length(s.corners)), 'Give 3 to 1000 corners.'
  from shape as s
  where s.is_list and jsonb_array_length(s.corners) not between 3 and 1000
  union all
  select c.field, 'is not a pair of numbers', 'Each corner is [latitude, longitude].'
  from corner as c
  where not c.is_pair
  union all
  -- A flat map of what lies near a pole is none.
  select c.field, format('latitude %s is not within -85 to 85', c.item -> 0), 'Each corner is [latitude, longitude].'
  from corner as c
  where c.is_pair and (c.item ->> 0)::numeric not between -85 and 85
  union all
  select c.field, format('longitude %s is not within -180 to 180', c.item -> 1), 'Each corner is [latitude, longitude].'
  from corner as c
  where c.is_pair and (c.item ->> 1)::numeric not between -180 and 180
$$;

comment on function fleet.polygon_problems(jsonb) is 'Everything that is wrong with the corners of a polygon.';
revoke all on function fleet.polygon_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.location_problems(p_location public.locations)
returns table (field text, problem text, hint text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select 'name', 'must not be blank', 'Give the location a name.'
  where btrim(coalesce(p_location.name, '')) = ''
  union all
  select 'kind', format('"%s" is not one of circle, polygon', p_location.kind), 'Use circle or polygon.'
  where p_location.kind is null or p_location.kind not in ('circle', 'polygon')
  union all
  select q.field, q.problem, q.hint
  from fleet.position_problems(p_location.latitude, p_location.longitude, null, '-infinity', '-infinity') as q
  where p_location.kind = 'circle'
  union all
  select 'radius_m', coalesce(p_location.radius_m || ' is not within 1 to 500000', 'is missing'), 'Metres, such as 150.'
  where p_location.kind = 'circle' and (p_location.radius_m is null or p_location.radius_m not between 1 and 500000)
  union all
  select 'polygon', 'is not for a circle', 'Leave it out, or let kind be polygon.'
  where p_location.kind = 'circle' and p_location.polygon is not null
  union all
  select 'radius_m', 'is not for a polygon', 'Leave it out, or let kind be circle.'
  where p_location.kind = 'polygon' and p_location.radius_m is not null
  union all
  select q.field, q.problem, q.hint from fleet.polygon_problems(p_location.polygon) as q where p_location.kind = 'polygon'
  union all
  select 'hysteresis_m', coalesce(p_location.hysteresis_m || ' is not within 0 to 10000', 'is missing'), 'Metres; the default is 25.'
  where p_location.hysteresis_m is null or p_location.hysteresis_m not between 0 and 10000
  union all
  select 'min_dwell', coalesce(p_location.min_dwell || ' is not within 0 to 7 days', 'is missing'), 'The default is "60 seconds".'
  where p_location.min_dwell is null or p_location.min_dwell not between interval '0' and interval '7 days'
$$;

comment on function fleet.location_problems(public.locations) is 'Everything that is wrong with a location as it is written.';
revoke all on function fleet.location_problems(public.locations) from public, anon, authenticated, service_role;

create or replace function fleet.extent_problems(p_polygon jsonb)
returns table (field text, problem text, hint text)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select 'polygon', 'encloses no area', 'The corners must not lie on one line.'
  where fleet.polygon_area_m2(p_polygon) < 1
  union all
  select 'polygon', format('reaches %s km from its middle', round(c.reach_m / 1000)), 'It may reach 500 km.'
  from fleet.polygon_centre(p_polygon) as c
  where c.reach_m > 500000
$$;

comment on function fleet.extent_problems(jsonb) is 'Whether a polygon of good corners is too thin or too large.';
revoke all on function fleet.extent_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.rounded_polygon(p_polygon jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_agg(
    jsonb_build_array(fleet.degrees_of(c.item -> 0), fleet.degrees_of(c.item -> 1)) order by c.place
  )
  from jsonb_array_elements(p_polygon) with ordinality as c(item, place)
$$;

comment on function fleet.rounded_polygon(jsonb) is 'The corners of a polygon, to nine digits.';
revoke all on function fleet.rounded_polygon(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.tg_prepare_location()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_fields text[];
  v_problems text[];
  v_hints text[];
begin
  new.owner_id := fleet.owner_or_own(new.owner_id);
  perform fleet.require_permission(new.owner_id, 'manage', format('owner %s', new.owner_id));
  if tg_op = 'INSERT' then
    new.created_by := fleet.current_user_id();
  end if;

  select array_agg(q.field), array_agg(q.problem), array_agg(q.hint)
  into v_fields, v_problems, v_hints
  from fleet.location_problems(new) as q;
  perform fleet.raise_problems('the location', 'location_invalid', v_fields, v_problems, v_hints);

  if new.kind = 'circle' then
    new.latitude := round(new.latitude::numeric, 9);
    new.longitude := round(new.longitude::numeric, 9);
    new.reach_m := new.radius_m;
  else
    new.polygon := fleet.rounded_polygon(new.polygon);
    -- A ring that is closed by its first corner is a ring.
    if new.polygon -> 0 = new.polygon -> -1 and jsonb_array_length(new.polygon) > 3 then
      new.polygon := new.polygon - -1;
    end if;
    select array_agg(q.field), array_agg(q.problem), array_agg(q.hint)
    into v_fields, v_problems, v_hints
    from fleet.extent_problems(new.polygon) as q;
    perform fleet.raise_problems('the location', 'location_invalid', v_fields, v_problems, v_hints);
    select c.latitude, c.longitude, c.reach_m into new.latitude, new.longitude, new.reach_m
    from fleet.polygon_centre(new.polygon) as c;
  end if;
  new.updated_at := now();
  return new;
end;
$$;

comment on function fleet.tg_prepare_location() is
  'Check a location however it is written, and find the middle and the reach of a polygon. Raises location_invalid (PT422). Definer: it '
  'checks the caller.';
revoke all on function fleet.tg_prepare_location() from public, anon, authenticated, service_role;

create or replace function fleet.location_policy_problems(p_policy public.location_policies)
returns table (field text, problem text, hint text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select q.*
  from fleet.choice_problem('event', coalesce(to_jsonb(p_policy.event), '""'), '{enter,leave,outside_all,inside_any}') as q
  union all
  select 'location_id', 'is missing', 'Entering and leaving are of one location; outside_all and inside_any are of all.'
  where p_policy.event in ('enter', 'leave') and p_policy.location_id is null
  union all
  select 'location_id', format('is not for %s', p_policy.event), 'Leave it out: outside_all and inside_any are of all locations.'
  where p_policy.event in ('outside_all', 'inside_any') and p_policy.location_id is not null
  union all
  select 'location_id', format('location %s was not found', p_policy.location_id), 'List your locations with: pgfleet location list'
  where p_policy.location_id is not null
    and not exists (
      select 1 from public.locations as l where l.id = p_policy.location_id and l.owner_id = p_policy.owner_id
    )
  union all
  select 'group_id', format('group %s was not found', p_policy.group_id), 'List your groups with: pgfleet group list'
  where p_policy.group_id is not null
    and not exists (
      select 1 from public.device_groups as g where g.id = p_policy.group_id and g.owner_id = p_policy.owner_id
    )
  union all
  select s.field, s.problem, s.hint from fleet.selector_problems(p_policy.selector) as s
  union all
  select 'priority', format('%s is not within -100 to 100', p_policy.priority), 'The default is 0; higher goes first.'
  where p_policy.priority not between -100 and 100
  union all
  select 'payload', 'must be an object', 'Example: {"profile_id": "12345"}'
  where jsonb_typeof(p_policy.payload) is distinct from 'object'
  union all
  select q.field, q.problem, q.hint
  from fleet.payload_problems(p_policy.action_type, p_policy.payload) as q
  where jsonb_typeof(p_policy.payload) = 'object'
$$;

comment on function fleet.location_policy_problems(public.location_policies) is
  'Everything that is wrong with a policy. What belongs to another owner is as good as not there.';
revoke all on function fleet.location_policy_problems(public.location_policies) from public, anon, authenticated, service_role;

create or replace function fleet.tg_prepare_location_policy()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_fields text[];
  v_problems text[];
  v_hints text[];
begin
  if new.owner_id is null and fleet.is_trusted_caller() then
    select l.owner_id into new.owner_id from public.locations as l where l.id = new.location_id;
  end if;
  new.owner_id := fleet.owner_or_own(new.owner_id);
  perform fleet.require_permission(new.owner_id, 'manage', format('owner %s', new.owner_id));
  perform fleet.require_destructive(new.owner_id, new.action_type);
  if tg_op = 'INSERT' then
    new.created_by := fleet.current_user_id();
  end if;

  select array_agg(q.field), array_agg(q.problem), array_agg(q.hint)
  into v_fields, v_problems, v_hints
  from fleet.location_policy_problems(new) as q;
  perform fleet.raise_problems('the location policy', 'location_policy_invalid', v_fields, v_problems, v_hints);
  new.updated_at := now();
  return new;
end;
$$;

comment on function fleet.tg_prepare_location_policy() is
  'Check a policy however it is written; one that wipes needs the permission to. Raises location_policy_invalid (PT422, PT404). Definer: '
  'it checks the caller, then sees what the checks need to see.';
revoke all on function fleet.tg_prepare_location_policy() from public, anon, authenticated, service_role;

-- db/sources/65_places/triggers.sql
-- Checks of locations and their policies.

create or replace trigger locations_01_prepare before insert or update on public.locations
  for each row execute function fleet.tg_prepare_location();

create or replace trigger location_policies_01_prepare before insert or update on public.location_policies
  for each row execute function fleet.tg_prepare_location_policy();

-- db/sources/65_places/policies.sql
-- Who sees and changes places: the people of the owner. Devices see none; what they are told is the answer of report_location.

revoke all on table public.locations, public.location_policies, public.device_positions, public.device_places,
  public.location_events, public.location_actions
  from public, anon, authenticated, service_role;
revoke all on sequence public.locations_id_seq, public.location_policies_id_seq, public.location_events_id_seq
  from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.locations, public.location_policies to service_role;
-- What was seen and done is written by the functions alone.
grant select on table public.device_positions, public.device_places, public.location_events, public.location_actions
  to service_role;
grant usage, select on sequence public.locations_id_seq, public.location_policies_id_seq to service_role;

drop policy if exists locations_all_service_role on public.locations;
create policy locations_all_service_role on public.locations for all to service_role using (true) with check (true);
drop policy if exists location_policies_all_service_role on public.location_policies;
create policy location_policies_all_service_role on public.location_policies
  for all to service_role using (true) with check (true);
drop policy if exists device_positions_select_service_role on public.device_positions;
create policy device_positions_select_service_role on public.device_positions for select to service_role using (true);
drop policy if exists device_places_select_service_role on public.device_places;
create policy device_places_select_service_role on public.device_places for select to service_role using (true);
drop policy if exists location_events_select_service_role on public.location_events;
create policy location_events_select_service_role on public.location_events for select to service_role using (true);
drop policy if exists location_actions_select_service_role on public.location_actions;
create policy location_actions_select_service_role on public.location_actions for select to service_role using (true);

grant select, delete on table public.locations, public.location_policies to authenticated;
grant insert (owner_id, name, kind, latitude, longitude, radius_m, polygon, hysteresis_m, min_dwell)
  on table public.locations to authenticated;
grant update (name, kind, latitude, longitude, radius_m, polygon, hysteresis_m, min_dwell)
  on table public.locations to authenticated;
grant insert (owner_id, name, location_id, event, action_type, payload, group_id, selector, priority, is_enabled)
  on table public.location_policies to authenticated;
grant update (name, location_id, event, action_type, payload, group_id, selector, priority, is_enabled)
  on table public.location_policies to authenticated;
grant select on table public.device_positions, public.device_places, public.location_events, public.location_actions
  to authenticated;

drop policy if exists locations_select_member on public.locations;
create policy locations_select_member on public.locations
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists locations_insert_manager on public.locations;
create policy locations_insert_manager on public.locations
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists locations_update_manager on public.locations;
create policy locations_update_manager on public.locations
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists locations_delete_manager on public.locations;
create policy locations_delete_manager on public.locations
  for delete to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists location_policies_select_member on public.location_policies;
create policy location_policies_select_member on public.location_policies
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists location_policies_insert_manager on public.location_policies;
create policy location_policies_insert_manager on public.location_policies
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists location_policies_update_manager on public.location_policies;
create policy location_policies_update_manager on public.location_policies
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists location_policies_delete_manager on public.location_policies;
create policy location_policies_delete_manager on public.location_policies
  for delete to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists device_positions_select_member on public.device_positions;
create policy device_positions_select_member on public.device_positions
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists device_places_select_member on public.device_places;
create policy device_places_select_member on public.device_places
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists location_events_select_member on public.location_events;
create policy location_events_select_member on public.location_events
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists location_actions_select_member on public.location_actions;
create policy location_actions_select_member on public.location_actions
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

-- db/sources/80_audit/audit.sql
-- The log of changes: who changed which row, from what to what.

create or replace function fleet.audit_actor()
returns table (actor uuid, actor_role text, actor_label text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.current_user_id(),
    coalesce(nullif(fleet.claim('role'), ''), nullif(current_setting('role'), 'none'), session_user::text),
    coalesce(fleet.claim('email'), nullif(current_setting('application_name'), ''))
$$;

comment on function fleet.audit_actor() is
  'Who changes something now: the person, the role, and an e-mail address or the name of the program.';
revoke all on function fleet.audit_actor() from public, anon, authenticated, service_role;

create or replace function fleet.audited(p_table text, p_row jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  -- Columns of the engine say nothing about who changed what, and secrets are nobody's to read.
  select coalesce(jsonb_object_agg(e.key, e.value), '{}')
  from jsonb_each(p_row) as e
  where e.key <> all (case p_table
      when 'schedules' then
        '{recurrence,next_run_at,last_executed_at,execution_count,created_at,updated_at}'
      when 'devices' then
        '{auth_id,last_seen,latitude,longitude,accuracy_m,located_at,attributes,enrolled_at,created_at,updated_at}'
      else '{created_at,updated_at}'
    end::text[])
    and e.key !~ 'secret|password|token|signing'
$$;

comment on function fleet.audited(text, jsonb) is 'What the log keeps of a row.';
revoke all on function fleet.audited(text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.audit_row_id(p_table text, p_row jsonb)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case p_table when 'owner_members' then p_row ->> 'user_id' else p_row ->> 'id' end
$$;

comment on function fleet.audit_row_id(text, jsonb) is 'The key of a row, as the log names it.';
revoke all on function fleet.audit_row_id(text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.tg_note_rows()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- One statement, one look at the caller, however many rows.
  insert into public.audit_log (owner_id, actor, actor_role, actor_label, table_name, row_id, action, old, new)
  select (r.item ->> 'owner_id')::uuid, a.actor, a.actor_role, a.actor_label, tg_table_name,
    fleet.audit_row_id(tg_table_name, r.item), lower(tg_op),
    case when tg_op = 'DELETE' then fleet.audited(tg_table_name, r.item) end,
    case when tg_op = 'INSERT' then fleet.audited(tg_table_name, r.item) end
  from (select to_jsonb(c) as item from changed_rows as c) as r
  cross join fleet.audit_actor() as a;
  return null;
end;
$$;

comment on function fleet.tg_note_rows() is 'Log the rows that were inserted or deleted. Definer: nobody may write the log.';
revoke all on function fleet.tg_note_rows() from public, anon, authenticated, service_role;

create or replace function fleet.tg_note_change()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_old jsonb := fleet.audited(tg_table_name, to_jsonb(old));
  v_new jsonb := fleet.audited(tg_table_name, to_jsonb(new));
  v_keys text[];
begin
  select array_agg(e.key) into v_keys
  from jsonb_each(v_new) as e
  where e.value is distinct from v_old -> e.key;
  -- That a schedule has run for the last time is told by its runs.
  if v_keys is null or (v_keys <@ '{status,status_reason}' and v_new ->> 'status' = 'completed') then
    return null;
  end if;

  insert into public.audit_log (owner_id, actor, actor_role, actor_label, table_name, row_id, action, old, new)
  select new.owner_id, a.actor, a.actor_role, a.actor_label, tg_table_name,
    fleet.audit_row_id(tg_table_name, to_jsonb(new)), 'update',
    (select jsonb_object_agg(k, v_old -> k) from unnest(v_keys) as k),
    (select jsonb_object_agg(k, v_new -> k) from unnest(v_keys) as k)
  from fleet.audit_actor() as a;
  return null;
end;
$$;

comment on function fleet.tg_note_change() is 'Log what was changed in a row, the changed columns only. Definer: nobody may write the log.';
revoke all on function fleet.tg_note_change() from public, anon, authenticated, service_role;

create or replace function fleet.tg_refuse_change()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'the audit log is append-only'
    using errcode = 'PT403', detail = 'audit_append_only', hint = 'Nothing in it can be changed or deleted.';
end;
$$;

comment on function fleet.tg_refuse_change() is 'Refuse to change or delete what the log holds. Raises audit_append_only (PT403).';
revoke all on function fleet.tg_refuse_change() from public, anon, authenticated, service_role;

-- db/sources/80_audit/triggers_mdm.sql
-- What is logged of integrations, their webhooks and assignments: what people change, not how each sync went.

create or replace trigger device_integrations_90_note_inserted
  after insert on public.device_integrations
  referencing new table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger device_integrations_91_note_change
  after update on public.device_integrations
  for each row
  when (
    (new.name, new.integration_type, new.status, new.status_reason, new.settings)
    is distinct from (old.name, old.integration_type, old.status, old.status_reason, old.settings)
  )
  execute function fleet.tg_note_change();
create or replace trigger device_integrations_92_note_deleted
  after delete on public.device_integrations
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();

create or replace trigger profile_assignments_90_note_inserted
  after insert on public.profile_assignments
  referencing new table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger profile_assignments_92_note_deleted
  after delete on public.profile_assignments
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();

create or replace trigger integration_webhooks_90_note_inserted
  after insert on public.integration_webhooks
  referencing new table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger integration_webhooks_91_note_change
  after update of revoked_at on public.integration_webhooks
  for each row
  when (new.revoked_at is distinct from old.revoked_at)
  execute function fleet.tg_note_change();
create or replace trigger integration_webhooks_92_note_deleted
  after delete on public.integration_webhooks
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();

-- db/sources/80_audit/triggers_places.sql
-- What is logged of places: which locations there are and what they bring about, not where the devices are.

create or replace trigger locations_90_note_inserted
  after insert on public.locations
  referencing new table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger locations_91_note_change
  after update on public.locations
  for each row when (new.* is distinct from old.*) execute function fleet.tg_note_change();
create or replace trigger locations_92_note_deleted
  after delete on public.locations
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();

create or replace trigger location_policies_90_note_inserted
  after insert on public.location_policies
  referencing new table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger location_policies_91_note_change
  after update on public.location_policies
  for each row when (new.* is distinct from old.*) execute function fleet.tg_note_change();
create or replace trigger location_policies_92_note_deleted
  after delete on public.location_policies
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();

-- db/sources/80_audit/triggers_profiles.sql
-- What is logged of profiles: what people upload and delete, not what a sync finds.

create or replace function fleet.tg_note_profile()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.profiles := case tg_op when 'INSERT' then new else old end;
begin
  insert into public.audit_log (owner_id, actor, actor_role, actor_label, table_name, row_id, action, old, new)
  select v_row.owner_id, a.actor, a.actor_role, a.actor_label, tg_table_name, v_row.id::text, lower(tg_op),
    case when tg_op = 'DELETE' then fleet.audited(tg_table_name, to_jsonb(v_row)) end,
    case when tg_op = 'INSERT' then fleet.audited(tg_table_name, to_jsonb(v_row)) end
  from fleet.audit_actor() as a;
  return null;
end;
$$;

comment on function fleet.tg_note_profile() is
  'Log a profile that was uploaded or deleted; its file is in another table. Definer: nobody may write the log.';
revoke all on function fleet.tg_note_profile() from public, anon, authenticated, service_role;

create or replace trigger profiles_90_note_inserted
  after insert on public.profiles
  for each row when (new.is_managed) execute function fleet.tg_note_profile();
create or replace trigger profiles_91_note_change
  after update on public.profiles
  for each row
  when (
    new.is_managed
    and new.status in ('pending', 'deleting')
    and (new.name, new.status, new.options, new.content_sha256)
    is distinct from (old.name, old.status, old.options, old.content_sha256)
  )
  execute function fleet.tg_note_change();
create or replace trigger profiles_92_note_deleted
  after delete on public.profiles
  for each row when (old.is_managed) execute function fleet.tg_note_profile();

-- db/sources/80_audit/triggers.sql
-- What is logged. The conditions keep ticks, counters and check-ins free of it.

create or replace trigger audit_log_01_refuse_change
  before update or delete or truncate on public.audit_log
  for each statement execute function fleet.tg_refuse_change();

create or replace trigger schedules_90_note_inserted
  after insert on public.schedules
  referencing new table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger schedules_91_note_change
  after update on public.schedules
  for each row
  -- Whatever changes a schedule on purpose stamps it; the engine does not.
  when (new.updated_at is distinct from old.updated_at or new.updated_at = now())
  execute function fleet.tg_note_change();
create or replace trigger schedules_92_note_deleted
  after delete on public.schedules
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();

create or replace trigger schedule_templates_90_note_inserted
  after insert on public.schedule_templates
  referencing new table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger schedule_templates_92_note_deleted
  after delete on public.schedule_templates
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();

create or replace trigger blackout_calendars_90_note_inserted
  after insert on public.blackout_calendars
  referencing new table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger blackout_calendars_91_note_change
  after update on public.blackout_calendars
  for each row when (new.* is distinct from old.*) execute function fleet.tg_note_change();
create or replace trigger blackout_calendars_92_note_deleted
  after delete on public.blackout_calendars
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger blackout_periods_90_note_inserted
  after insert on public.blackout_periods
  referencing new table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger blackout_periods_92_note_deleted
  after delete on public.blackout_periods
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();

create or replace trigger device_groups_90_note_inserted
  after insert on public.device_groups
  referencing new table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger device_groups_91_note_change
  after update of name, description, selector on public.device_groups
  for each row execute function fleet.tg_note_change();
create or replace trigger device_groups_92_note_deleted
  after delete on public.device_groups
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();

create or replace trigger devices_91_note_change
  after update of hostname, tags, status on public.devices
  for each row
  when ((new.hostname, new.tags, new.status) is distinct from (old.hostname, old.tags, old.status))
  execute function fleet.tg_note_change();
create or replace trigger devices_92_note_deleted
  after delete on public.devices
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();

create or replace trigger owner_members_90_note_inserted
  after insert on public.owner_members
  referencing new table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger owner_members_91_note_change
  after update of permissions on public.owner_members
  for each row execute function fleet.tg_note_change();
create or replace trigger owner_members_92_note_deleted
  after delete on public.owner_members
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();

do $$
begin
  if to_regclass('public.webhook_endpoints') is null then
    return;
  end if;
  execute $trigger$
    create or replace trigger webhook_endpoints_90_note_inserted
      after insert on public.webhook_endpoints
      referencing new table as changed_rows
      for each statement execute function fleet.tg_note_rows()
  $trigger$;
  execute $trigger$
    create or replace trigger webhook_endpoints_91_note_change
      after update on public.webhook_endpoints
      for each row when (new.* is distinct from old.*) execute function fleet.tg_note_change()
  $trigger$;
  execute $trigger$
    create or replace trigger webhook_endpoints_92_note_deleted
      after delete on public.webhook_endpoints
      referencing old table as changed_rows
      for each statement execute function fleet.tg_note_rows()
  $trigger$;
end;
$$;

-- db/sources/80_audit/policies.sql
-- Who reads the log: members of the owner. Nobody writes it, the service role included.

revoke all on table public.audit_log from public, anon, authenticated, service_role;
grant select on table public.audit_log to authenticated, service_role;
revoke all on sequence public.audit_log_id_seq from public, anon, authenticated, service_role;

drop policy if exists audit_log_select_service_role on public.audit_log;
create policy audit_log_select_service_role on public.audit_log for select to service_role using (true);
drop policy if exists audit_log_select_member on public.audit_log;
-- Who may not see a row may not read about it either: the addresses of webhooks are for managers.
create policy audit_log_select_member on public.audit_log
  for select to authenticated
  using (
    owner_id = any (array(select fleet.my_owners()))
    and (table_name <> 'webhook_endpoints' or owner_id = any (array(select fleet.my_owners('manage'))))
  );

-- db/sources/85_notify/addresses.sql
-- Where messages may go: addresses that are well formed, and no way into the networks around the functions. What a name
-- stands for is known only when it is used, so the function that delivers looks at it again.

create or replace function fleet.is_public_address(p_address inet)
returns boolean
language sql
immutable
parallel safe
return p_address is not null and not (
  p_address <<= any (
    '{0.0.0.0/8,10.0.0.0/8,100.64.0.0/10,127.0.0.0/8,169.254.0.0/16,172.16.0.0/12,192.0.0.0/24,192.0.2.0/24,192.88.99.0/24,
      192.168.0.0/16,198.18.0.0/15,198.51.100.0/24,203.0.113.0/24,224.0.0.0/3}'::inet[]
  )
  -- Of IPv6 only what is given out to the public, without the forms that carry an IPv4 address inside.
  or (family(p_address) = 6 and not p_address <<= '2000::/3'::inet)
  or p_address <<= any ('{2001::/23,2001:db8::/32,2002::/16,3fff::/20}'::inet[])
);

comment on function fleet.is_public_address(inet) is
  'Whether an address is open to everybody: not private, loopback, link-local, multicast or reserved.';
revoke all on function fleet.is_public_address(inet) from public, anon, authenticated, service_role;

create or replace function fleet.try_inet(p_text text)
returns inet
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return p_text::inet;
exception
  when invalid_text_representation then
    return null;
end;
$$;

comment on function fleet.try_inet(text) is 'The text as an address; null where it is none.';
revoke all on function fleet.try_inet(text) from public, anon, authenticated, service_role;

create or replace function fleet.webhook_url_problem(p_url text, p_allow_private boolean)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Scheme, host (a name, IPv4, or IPv6 in brackets), port, and the rest.
  v_parts text[] := regexp_match(
    p_url, '^(https?)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?(?:[/?][^\s#[:cntrl:]]*)?$', 'i'
  );
  v_host text := lower(rtrim(v_parts[2], '.'));
  v_address inet := fleet.try_inet(btrim(v_host, '[]'));
begin
  if v_parts is null or length(p_url) > 2000 or v_host = '' or coalesce(v_parts[3], '443')::integer not between 1 and 65535 then
    return 'is not an address like https://example.com/hooks, without user, password and #';
  elsif p_allow_private then
    return null;
  elsif lower(v_parts[1]) <> 'https' then
    return 'must begin with https://';
  elsif v_address is not null then
    -- A leading zero means octal to some and decimal to others.
    return case
      when not fleet.is_public_address(v_address) then 'is a private address'
      when family(v_address) = 4 and v_host ~ '(^|\.)0[0-9]' then 'is an address with leading zeros'
    end;
  -- Resolvers take 127.1, 0x7f000001 and 2130706433 for addresses too: the last part of a name has a letter, and no 0x.
  elsif v_host !~ '\.[a-z][a-z0-9-]*$' or v_host ~ '\.0x[0-9a-f]*$' then
    return 'must name a host on the internet';
  elsif v_host ~ '(^|\.)(localhost|localdomain|local|internal|intranet|lan|home|corp|arpa|test|invalid|onion)$' then
    return 'is a name of a private network';
  end if;
  return null;
end;
$$;

comment on function fleet.webhook_url_problem(text, boolean) is
  'What is wrong with the address of a webhook, as far as its text can tell; null where nothing is.';
revoke all on function fleet.webhook_url_problem(text, boolean) from public, anon, authenticated, service_role;

create or replace function fleet.endpoint_problems(p_endpoint public.webhook_endpoints)
returns table (field text, problem text, hint text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select * from fleet.choice_problem('channel', to_jsonb(p_endpoint.channel), '{webhook,email}')
  union all
  select 'url', 'is missing', 'Example: {"url": "https://example.com/hooks"}'
  where p_endpoint.channel = 'webhook' and p_endpoint.url is null
  union all
  select 'url', u.problem,
    'An administrator may allow other addresses: select fleet.set_setting(''webhook_allow_private'', ''true'')'
  from fleet.webhook_url_problem(p_endpoint.url, fleet.setting('webhook_allow_private') = 'true'::jsonb) as u(problem)
  where p_endpoint.url is not null and u.problem is not null
  union all
  select 'url', 'is of no use to the channel email', 'Leave it out.'
  where p_endpoint.channel = 'email' and p_endpoint.url is not null
  union all
  select 'email', 'is missing', 'Example: {"email": "ops@example.com"}'
  where p_endpoint.channel = 'email' and p_endpoint.email is null
  union all
  select 'email', 'is not an e-mail address', 'Example: {"email": "ops@example.com"}'
  where p_endpoint.email !~ '^[A-Za-z0-9.!#$%&''*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9]([A-Za-z0-9.-]{0,250}[A-Za-z0-9])?$'
  union all
  select 'email', 'is of no use to the channel webhook', 'Leave it out, or say {"channel": "email"}.'
  where p_endpoint.channel = 'webhook' and p_endpoint.email is not null
  union all
  select 'name', 'is longer than 200 characters', 'Choose a shorter one.'
  where length(p_endpoint.name) > 200
  union all
  select 'events', 'names no event', 'Example: {"events": ["run.failed", "schedule.*"]}; ["*"] is everything.'
  where coalesce(cardinality(p_endpoint.events), 0) = 0
  union all
  select 'events', format('"%s" is not an event', e.pattern),
    format('Events are %s; run.* is all of a kind, * is everything.', (
      select string_agg(k.name, ', ' order by k.name) from fleet.event_types() as k
    ))
  from unnest(p_endpoint.events) as e(pattern)
  where e.pattern is null
    or not exists (
      select 1 from fleet.event_types() as k where fleet.event_matches(array[e.pattern], k.name)
    )
$$;

comment on function fleet.endpoint_problems(public.webhook_endpoints) is 'Everything that is wrong with an endpoint.';
revoke all on function fleet.endpoint_problems(public.webhook_endpoints) from public, anon, authenticated, service_role;

-- db/sources/85_notify/calendar_feeds.sql
-- Calendar feeds: coming runs as iCalendar under a secret address that a calendar program subscribes to.

create or replace function fleet.create_calendar_feed(p_filter jsonb, p_name text, p_owner_id uuid)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_token text := fleet.random_secret();
  v_owner uuid := fleet.owner_or_own(p_owner_id);
  v_row public.calendar_feeds;
  v_path text;
begin
  perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
  -- What is wrong with the filter is told now, not to the program that reads the feed.
  perform fleet.require_calendar_filter(p_filter);

  insert into public.calendar_feeds (owner_id, name, filter, token_hash, created_by)
  values (v_owner, coalesce(p_name, ''), p_filter, fleet.hash_secret(v_token), fleet.current_user_id())
  returning * into v_row;

  v_path := '/calendar-feed/' || v_token || '.ics';
  return to_jsonb(v_row) - 'token_hash'
    || jsonb_build_object('token', v_token, 'path', v_path, 'url', (fleet.setting('functions_url') #>> '{}') || v_path);
end;
$$;

comment on function fleet.create_calendar_feed(jsonb, text, uuid) is 'See public.create_calendar_feed. Definer: it checks the caller.';
revoke all on function fleet.create_calendar_feed(jsonb, text, uuid) from public, anon, authenticated, service_role;
grant execute on function fleet.create_calendar_feed(jsonb, text, uuid) to authenticated, service_role;

create or replace function public.create_calendar_feed(
  p_filter jsonb default '{}',
  p_name text default '',
  p_owner_id uuid default null
)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.create_calendar_feed(p_filter, p_name, p_owner_id)
$$;

comment on function public.create_calendar_feed(jsonb, text, uuid) is
  'Make a secret address under which calendar programs read the coming runs; shown this once. {id, token, path, url}; url is null '
  'while the setting functions_url is. The filter is that of calendar_ics. Raises permission_missing (PT403) or filter_invalid (PT422).';
revoke all on function public.create_calendar_feed(jsonb, text, uuid) from public, anon, authenticated, service_role;
grant execute on function public.create_calendar_feed(jsonb, text, uuid) to authenticated, service_role;

create or replace function fleet.revoke_calendar_feed(p_id bigint)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid;
begin
  select f.owner_id into v_owner
  from public.calendar_feeds as f
  where f.id = p_id and fleet.is_visible_owner(f.owner_id);
  if not found then
    perform fleet.raise_not_found(format('calendar feed %s', p_id));
  end if;
  perform fleet.require_permission(v_owner, 'manage', format('calendar feed %s', p_id));
  update public.calendar_feeds as f set revoked_at = now() where f.id = p_id and f.revoked_at is null;
end;
$$;

comment on function fleet.revoke_calendar_feed(bigint) is 'See public.revoke_calendar_feed. Definer: it checks the caller.';
revoke all on function fleet.revoke_calendar_feed(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.revoke_calendar_feed(bigint) to authenticated, service_role;

create or replace function public.revoke_calendar_feed(p_id bigint)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.revoke_calendar_feed(p_id)
$$;

comment on function public.revoke_calendar_feed(bigint) is
  'Make the address of a feed useless. Raises calendar_feed_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.revoke_calendar_feed(bigint) from public, anon, authenticated, service_role;
grant execute on function public.revoke_calendar_feed(bigint) to authenticated, service_role;

create or replace function fleet.worker_calendar_feed(p_token text, p_now timestamptz default now())
returns text
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_feed public.calendar_feeds;
begin
  select f.* into v_feed
  from public.calendar_feeds as f
  where f.token_hash = fleet.hash_secret(p_token) and f.revoked_at is null;
  if not found then
    raise exception 'there is no such calendar, or its address was revoked'
      using errcode = 'PT404', detail = 'calendar_feed_not_found', hint = 'Make a new address: select create_calendar_feed()';
  end if;

  -- Programs read often; a write each time would be waste.
  update public.calendar_feeds as f
  set last_read_at = p_now
  where f.id = v_feed.id and (f.last_read_at is null or f.last_read_at < p_now - interval '1 minute');
  return fleet.calendar_ics(v_feed.owner_id, v_feed.filter, p_now, p_now + interval '90 days');
end;
$$;

comment on function fleet.worker_calendar_feed(text, timestamptz) is
  'The calendar under a secret address: what is coming within three months. Raises calendar_feed_not_found (PT404). Definer: the '
  'address alone says what may be read.';
revoke all on function fleet.worker_calendar_feed(text, timestamptz) from public, anon, authenticated, service_role;

-- db/sources/85_notify/deliveries.sql
-- Deliveries: claimed by the function notify-dispatch under a lease, tried again over a day, settled once.

create or replace function fleet.delivery_pause(p_failure_count integer)
returns interval
language sql
immutable
parallel safe
return (
  '{5 seconds,1 minute,5 minutes,30 minutes,2 hours,5 hours,8 hours,8 hours}'::interval[]
)[greatest(p_failure_count, 1)];

comment on function fleet.delivery_pause(integer) is
  'Pause after the n-th failure, a day in all; null where there is no attempt left.';
revoke all on function fleet.delivery_pause(integer) from public, anon, authenticated, service_role;

create or replace function fleet.worker_claim_deliveries(p_limit integer default 1, p_now timestamptz default clock_timestamp())
returns table (
  delivery_id bigint,
  attempt integer,
  event text,
  event_id text,
  channel text,
  url text,
  email text,
  headers jsonb,
  body text,
  allow_private boolean
)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A lease that ended counts as a failure: a message that ends its function each time must not go on for ever.
  update public.webhook_deliveries as d
  set status = 'failed', next_attempt_at = null, finished_at = p_now, last_error = 'the function stopped in the middle'
  where d.status = 'running'
    and d.next_attempt_at <= p_now
    and fleet.delivery_pause(d.failure_count + 1) is null;

  return query
  with busy as materialized (
    -- One receiver that is slow must not hold every hand.
    select r.endpoint_id
    from public.webhook_deliveries as r
    where r.status = 'running' and r.next_attempt_at > p_now
    group by r.endpoint_id
    having count(*) >= 4
  ),
  due as (
    -- The lock keeps any number of functions from claiming the same one.
    select d.id
    from public.webhook_deliveries as d
    where d.status in ('pending', 'running')
      and d.next_attempt_at <= p_now
      and d.endpoint_id not in (select b.endpoint_id from busy as b)
    order by d.next_attempt_at
    limit least(greatest(p_limit, 1), 100)
    for update skip locked
  ),
  taken as (
    update public.webhook_deliveries as d
    set status = 'running',
        attempts = d.attempts + 1,
        failure_count = d.failure_count + (d.status = 'running')::integer,
        last_attempt_at = p_now,
        next_attempt_at = p_now + interval '1 minute'
    from due
    where d.id = due.id
    returning d.*
  )
  select
    t.id, t.attempts, t.event, t.event_id, e.channel, e.url, e.email,
    fleet.webhook_headers(e.id, t.event_id, t.payload::text, p_now), t.payload::text,
    fleet.setting('webhook_allow_private') = 'true'::jsonb
  from taken as t
  join public.webhook_endpoints as e on e.id = t.endpoint_id;
end;
$$;

comment on function fleet.worker_claim_deliveries(integer, timestamptz) is
  'Lease due messages for a minute, signed for this attempt. Definer: the worker reads no table, and never a secret.';
revoke all on function fleet.worker_claim_deliveries(integer, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_finish_delivery(
  p_delivery_id bigint,
  p_attempt integer,
  p_outcome text,
  p_status integer default null,
  p_error text default null,
  p_retry_after integer default null,
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.webhook_deliveries;
  v_pause interval;
begin
  select d.* into v_row from public.webhook_deliveries as d where d.id = p_delivery_id for update;
  if not found then
    return jsonb_build_object('accepted', false, 'reason', 'not_found');
  elsif v_row.status <> 'running' or v_row.attempts <> p_attempt then
    return jsonb_build_object('accepted', false, 'reason', 'stale_attempt');
  end if;

  if p_outcome = 'retry' then
    v_pause := fleet.delivery_pause(v_row.failure_count + 1);
    -- A tenth more or less, so that what failed together does not come back together; a receiver that asks for more time gets it.
    v_pause := greatest(
      v_pause * (0.9 + random() * 0.2),
      case when v_pause is not null then make_interval(secs => least(greatest(p_retry_after, 0), 86400)) end
    );
  end if;

  update public.webhook_deliveries as d
  set status = case when p_outcome = 'delivered' then 'delivered' when v_pause is not null then 'pending' else 'failed' end,
      failure_count = d.failure_count + (p_outcome <> 'delivered')::integer,
      next_attempt_at = p_now + v_pause,
      delivered_at = case when p_outcome = 'delivered' then p_now end,
      finished_at = case when v_pause is null then p_now end,
      last_status = p_status,
      last_error = left(p_error, 500)
  where d.id = p_delivery_id
  returning * into v_row;

  if p_outcome = 'gone' then
    update public.webhook_endpoints as e
    set enabled = false, disabled_reason = 'the receiver answered 410 Gone'
    where e.id = v_row.endpoint_id and e.enabled;
  end if;
  return jsonb_build_object('accepted', true, 'status', v_row.status, 'next_attempt_at', v_row.next_attempt_at);
end;
$$;

comment on function fleet.worker_finish_delivery(bigint, integer, text, integer, text, integer, timestamptz) is
  'Say how an attempt ended: delivered; retry (later, while there are attempts left); refused (never again); gone (410: refused, and '
  'the endpoint is disabled). {accepted, status, next_attempt_at} or {accepted: false, reason}. Definer: the worker writes no table.';
revoke all on function fleet.worker_finish_delivery(bigint, integer, text, integer, text, integer, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.pass_turnstile(p_name text, p_every interval, p_now timestamptz)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (select 1 from fleet.pokes as k where k.function = p_name) then
    insert into fleet.pokes (function, poked_at) values (p_name, '-infinity') on conflict do nothing;
  end if;

  -- Of two sessions one gets through, and neither waits for the other. A clock that was set back locks nobody out.
  update fleet.pokes as k
  set poked_at = p_now
  where k.function in (select x.function from fleet.pokes as x where x.function = p_name for update skip locked)
    and (k.poked_at <= p_now - p_every or k.poked_at > p_now + interval '1 minute');
  return found;
end;
$$;

comment on function fleet.pass_turnstile(text, interval, timestamptz) is
  'Whether this is the first call under a name for so long: what several tickers may want, and one shall do.';
revoke all on function fleet.pass_turnstile(text, interval, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.poke_once_a_second(p_function text, p_now timestamptz)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if not fleet.pass_turnstile(p_function, interval '900 milliseconds', p_now) then
    return false;
  end if;
  perform fleet.poke(p_function, jsonb_build_object('at', p_now), clock_timestamp());
  return true;
end;
$$;

comment on function fleet.poke_once_a_second(text, timestamptz) is
  'Tell a function that there is work, unless it was told within the last second. Answers whether it was.';
revoke all on function fleet.poke_once_a_second(text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.poke_notify(p_now timestamptz default now())
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (
    select 1
    from public.webhook_deliveries as d
    where d.status in ('pending', 'running') and d.next_attempt_at <= p_now
  ) then
    return false;
  end if;
  return fleet.poke_once_a_second('notify-dispatch', p_now);
end;
$$;

comment on function fleet.poke_notify(timestamptz) is
  'Poke notify-dispatch where a message is due, at most once a second. Answers whether it was poked; called by the tick.';
revoke all on function fleet.poke_notify(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.prune_deliveries(p_before timestamptz, p_limit integer default 5000)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  delete from public.webhook_deliveries as d
  where d.id in (
    select x.id
    from public.webhook_deliveries as x
    where x.finished_at < p_before
    order by x.finished_at
    limit p_limit
  );
  get diagnostics v_count = row_count;
  delete from fleet.webhook_secrets as s where s.expires_at < p_before;
  return v_count;
end;
$$;

comment on function fleet.prune_deliveries(timestamptz, integer) is
  'Delete a batch of messages that ended before then, and secrets that expired. Answers how many messages.';
revoke all on function fleet.prune_deliveries(timestamptz, integer) from public, anon, authenticated, service_role;

-- db/sources/85_notify/endpoint_spec.sql
-- Endpoints as JSON: what is wrong with it, and the row that it makes.

create or replace function fleet.endpoint_spec_problems(p_spec jsonb, p_keys text[])
returns table (field text, problem text, hint text)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select e.key, 'is not a key that may be set here', format('The keys are %s.', array_to_string(p_keys, ', '))
  from jsonb_each(p_spec) as e
  where e.key <> all (p_keys)
  union all
  select e.key, format('must be text, not %s', e.value), 'Write it in quotes.'
  from jsonb_each(p_spec) as e
  where e.key in ('name', 'channel', 'url', 'email') and jsonb_typeof(e.value) not in ('string', 'null')
  union all
  select 'enabled', format('must be true or false, not %s', p_spec -> 'enabled'), 'Write it without quotes.'
  where p_spec ? 'enabled' and jsonb_typeof(p_spec -> 'enabled') <> 'boolean'
  union all
  select 'events', 'must be a list of names', 'Example: {"events": ["run.failed", "schedule.*"]}; ["*"] is everything.'
  where p_spec ? 'events'
    and (
      jsonb_typeof(p_spec -> 'events') <> 'array'
      or jsonb_path_exists(p_spec, '$.events[*] ? (@.type() != "string")')
    )
  union all
  select 'owner_id', format('%s is not a uuid', p_spec -> 'owner_id'), 'Copy the id of the owner.'
  where jsonb_typeof(p_spec -> 'owner_id') <> 'null' and fleet.try_uuid(p_spec ->> 'owner_id') is null
$$;

comment on function fleet.endpoint_spec_problems(jsonb, text[]) is
  'Keys of an endpoint in JSON that are unknown or hold something of another type.';
revoke all on function fleet.endpoint_spec_problems(jsonb, text[]) from public, anon, authenticated, service_role;

create or replace function fleet.endpoint_with(p_endpoint public.webhook_endpoints, p_spec jsonb)
returns public.webhook_endpoints
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.webhook_endpoints := p_endpoint;
begin
  v_row.name := case when p_spec ? 'name' then coalesce(p_spec ->> 'name', '') else v_row.name end;
  v_row.channel := coalesce(p_spec ->> 'channel', v_row.channel);
  v_row.url := case when p_spec ? 'url' then btrim(p_spec ->> 'url') else v_row.url end;
  v_row.email := case when p_spec ? 'email' then btrim(p_spec ->> 'email') else v_row.email end;
  v_row.enabled := coalesce((p_spec ->> 'enabled')::boolean, v_row.enabled);
  if jsonb_typeof(p_spec -> 'events') = 'array' then
    v_row.events := array(select distinct e.name from jsonb_array_elements_text(p_spec -> 'events') as e(name) order by 1);
  end if;
  return v_row;
end;
$$;

comment on function fleet.endpoint_with(public.webhook_endpoints, jsonb) is 'The row with what a specification of the right types says.';
revoke all on function fleet.endpoint_with(public.webhook_endpoints, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.checked_endpoint(p_endpoint public.webhook_endpoints, p_spec jsonb, p_keys text[])
returns public.webhook_endpoints
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.webhook_endpoints;
  v_fields text[];
  v_problems text[];
  v_hints text[];
begin
  select array_agg(t.field), array_agg(t.problem), array_agg(t.hint)
  into v_fields, v_problems, v_hints
  from fleet.endpoint_spec_problems(p_spec, p_keys) as t;

  -- What has the wrong type is left out, so that everything else is still checked in the same answer.
  v_row := fleet.endpoint_with(p_endpoint, p_spec - coalesce(v_fields, '{}'));
  select v_fields || array_agg(q.field), v_problems || array_agg(q.problem), v_hints || array_agg(q.hint)
  into v_fields, v_problems, v_hints
  from fleet.endpoint_problems(v_row) as q
  where q.field <> all (coalesce(v_fields, '{}'));
  perform fleet.raise_problems('the endpoint', 'webhook_endpoint_invalid', v_fields, v_problems, v_hints);
  return v_row;
end;
$$;

comment on function fleet.checked_endpoint(public.webhook_endpoints, jsonb, text[]) is
  'The row that a specification makes of another. Raises webhook_endpoint_invalid (PT422) naming every wrong field.';
revoke all on function fleet.checked_endpoint(public.webhook_endpoints, jsonb, text[])
  from public, anon, authenticated, service_role;

-- db/sources/85_notify/endpoints.sql
-- Endpoints: made, changed, tried out and removed by people; their secrets are shown once.

create or replace function fleet.endpoint_of_caller(p_endpoint_id bigint)
returns public.webhook_endpoints
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.webhook_endpoints;
begin
  select e.* into v_row
  from public.webhook_endpoints as e
  where e.id = p_endpoint_id and fleet.is_visible_owner(e.owner_id)
  -- Messages to it are written all the while.
  for no key update;
  if not found then
    perform fleet.raise_not_found(format('webhook endpoint %s', p_endpoint_id));
  end if;
  perform fleet.require_permission(v_row.owner_id, 'manage', format('webhook endpoint %s', p_endpoint_id));
  return v_row;
end;
$$;

comment on function fleet.endpoint_of_caller(bigint) is
  'The endpoint, locked, if the caller manages it. Raises webhook_endpoint_not_found (PT404) or permission_missing (PT403). Definer: it '
  'must see the row to tell.';
revoke all on function fleet.endpoint_of_caller(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.create_webhook_endpoint(p_spec jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.webhook_endpoints;
begin
  if jsonb_typeof(p_spec) is distinct from 'object' then
    raise exception 'an endpoint must be a JSON object'
      using errcode = 'PT422',
            detail = 'webhook_endpoint_invalid',
            hint = 'Example: {"url": "https://example.com/hooks", "events": ["run.failed"]}';
  end if;

  v_row.owner_id := fleet.owner_or_own(fleet.try_uuid(p_spec ->> 'owner_id'));
  perform fleet.require_permission(v_row.owner_id, 'manage', format('owner %s', v_row.owner_id));
  v_row.name := '';
  v_row.enabled := true;
  v_row.channel := case when p_spec ? 'email' and not p_spec ? 'url' then 'email' else 'webhook' end;
  -- A program can take a message for each command of a large fleet, a person cannot.
  v_row.events := case when v_row.channel = 'email' then '{run.failed,schedule.paused}' else '{*}' end;
  v_row := fleet.checked_endpoint(v_row, p_spec, '{name,channel,url,email,events,enabled,owner_id}');

  insert into public.webhook_endpoints as e (owner_id, name, channel, url, email, events, enabled, created_by)
  values (
    v_row.owner_id, v_row.name, v_row.channel, v_row.url, v_row.email, v_row.events, v_row.enabled, fleet.current_user_id()
  )
  returning * into v_row;

  return to_jsonb(v_row) || jsonb_build_object('secret', (
    select fleet.webhook_secret_text(s.key) from fleet.webhook_secrets as s where s.endpoint_id = v_row.id
  ));
end;
$$;

comment on function fleet.create_webhook_endpoint(jsonb) is 'See public.create_webhook_endpoint. Definer: it checks the caller.';
revoke all on function fleet.create_webhook_endpoint(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.create_webhook_endpoint(jsonb) to authenticated, service_role;

create or replace function public.create_webhook_endpoint(p_spec jsonb)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.create_webhook_endpoint(p_spec)
$$;

comment on function public.create_webhook_endpoint(jsonb) is
  'Be told of events: {"url": "https://…"} or {"email": "…"}, with events (["run.failed", "schedule.*"]; by default all, of a '
  'mailbox run.failed and schedule.paused), name, enabled, owner_id. Answers the row and, this once, "secret" (whsec_…), which '
  'verifies the signatures. Raises webhook_endpoint_invalid (PT422) naming every wrong field, or permission_missing (PT403).';
revoke all on function public.create_webhook_endpoint(jsonb) from public, anon, authenticated, service_role;
grant execute on function public.create_webhook_endpoint(jsonb) to authenticated, service_role;

create or replace function fleet.update_webhook_endpoint(p_endpoint_id bigint, p_changes jsonb)
returns public.webhook_endpoints
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.webhook_endpoints := fleet.endpoint_of_caller(p_endpoint_id);
begin
  if jsonb_typeof(p_changes) is distinct from 'object' then
    raise exception 'the changes of an endpoint must be a JSON object'
      using errcode = 'PT422', detail = 'webhook_endpoint_invalid', hint = 'Example: {"enabled": true}';
  end if;

  v_row := fleet.checked_endpoint(v_row, p_changes, '{name,url,email,events,enabled}');
  update public.webhook_endpoints as e
  set name = v_row.name, url = v_row.url, email = v_row.email, events = v_row.events, enabled = v_row.enabled
  where e.id = p_endpoint_id
  returning * into v_row;
  return v_row;
end;
$$;

comment on function fleet.update_webhook_endpoint(bigint, jsonb) is
  'See public.update_webhook_endpoint. Definer: it checks the caller.';
revoke all on function fleet.update_webhook_endpoint(bigint, jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.update_webhook_endpoint(bigint, jsonb) to authenticated, service_role;

create or replace function public.update_webhook_endpoint(p_endpoint_id bigint, p_changes jsonb)
returns public.webhook_endpoints
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.update_webhook_endpoint(p_endpoint_id, p_changes)
$$;

comment on function public.update_webhook_endpoint(bigint, jsonb) is
  'Change name, url, email, events or enabled. {"enabled": true} wakes one that answered 410. Raises webhook_endpoint_not_found '
  '(PT404), permission_missing (PT403) or webhook_endpoint_invalid (PT422).';
revoke all on function public.update_webhook_endpoint(bigint, jsonb) from public, anon, authenticated, service_role;
grant execute on function public.update_webhook_endpoint(bigint, jsonb) to authenticated, service_role;

create or replace function fleet.rotate_webhook_secret(p_endpoint_id bigint, p_keep interval, p_now timestamptz)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.webhook_endpoints := fleet.endpoint_of_caller(p_endpoint_id);
begin
  if v_row.channel <> 'webhook' then
    raise exception 'webhook endpoint % is a mailbox and has no secret', p_endpoint_id
      using errcode = 'PT409', detail = 'webhook_endpoint_without_secret', hint = 'Only messages by HTTP are signed.';
  elsif p_keep is null or p_keep < interval '0' or p_keep > interval '30 days' then
    raise exception 'p_keep must be an interval from 0 to 30 days'
      using errcode = 'PT422', detail = 'webhook_keep_invalid', hint = 'Example: ''1 day''; 0 ends the former secret at once.';
  end if;

  update fleet.webhook_secrets as s
  set expires_at = least(s.expires_at, p_now + p_keep)
  where s.endpoint_id = p_endpoint_id;
  delete from fleet.webhook_secrets as s where s.endpoint_id = p_endpoint_id and s.expires_at <= p_now;

  return jsonb_build_object(
    'id', p_endpoint_id,
    'secret', fleet.make_webhook_secret(p_endpoint_id),
    'former_expires_at', p_now + p_keep
  );
end;
$$;

comment on function fleet.rotate_webhook_secret(bigint, interval, timestamptz) is
  'See public.rotate_webhook_secret. Definer: it checks the caller.';
revoke all on function fleet.rotate_webhook_secret(bigint, interval, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.rotate_webhook_secret(bigint, interval, timestamptz) to authenticated, service_role;

create or replace function public.rotate_webhook_secret(p_endpoint_id bigint, p_keep interval default '1 day')
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.rotate_webhook_secret(p_endpoint_id, p_keep, now())
$$;

comment on function public.rotate_webhook_secret(bigint, interval) is
  'Make a new secret, shown this once; for the time of p_keep the former one signs too. {id, secret, former_expires_at}. Raises '
  'webhook_endpoint_not_found (PT404), permission_missing (PT403) or webhook_endpoint_without_secret (PT409).';
revoke all on function public.rotate_webhook_secret(bigint, interval) from public, anon, authenticated, service_role;
grant execute on function public.rotate_webhook_secret(bigint, interval) to authenticated, service_role;

create or replace function fleet.delete_webhook_endpoint(p_endpoint_id bigint)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.endpoint_of_caller(p_endpoint_id);
  delete from public.webhook_endpoints as e where e.id = p_endpoint_id;
end;
$$;

comment on function fleet.delete_webhook_endpoint(bigint) is
  'See public.delete_webhook_endpoint. Definer: it checks the caller.';
revoke all on function fleet.delete_webhook_endpoint(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.delete_webhook_endpoint(bigint) to authenticated, service_role;

create or replace function public.delete_webhook_endpoint(p_endpoint_id bigint)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.delete_webhook_endpoint(p_endpoint_id)
$$;

comment on function public.delete_webhook_endpoint(bigint) is
  'Remove an endpoint with its secret and its messages. Raises webhook_endpoint_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.delete_webhook_endpoint(bigint) from public, anon, authenticated, service_role;
grant execute on function public.delete_webhook_endpoint(bigint) to authenticated, service_role;

-- db/sources/85_notify/events.sql
-- Events: what can happen, who wants to hear of it, and the outbox that they are written to.

create or replace function fleet.event_types()
returns table (name text, description text)
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  values
    ('run.completed', 'Every command of a run was carried out.'),
    ('run.failed', 'A run ended, and a command of it failed, expired or was cancelled.'),
    ('run.skipped', 'A due instant passed without a run; the reason is told.'),
    ('schedule.paused', 'A schedule was paused, by a person or because its runs failed.'),
    ('schedule.completed', 'A schedule has no due instant left.'),
    ('command.failed', 'A command failed for good.'),
    ('webhook.test', 'Somebody asked for a message to try an endpoint out.')
$$;

comment on function fleet.event_types() is 'Every event that an endpoint may ask for by its name.';
revoke all on function fleet.event_types() from public, anon, authenticated, service_role;

create or replace function fleet.event_matches(p_patterns text[], p_event text)
returns boolean
language sql
immutable
parallel safe
return p_patterns && array['*', p_event, split_part(p_event, '.', 1) || '.*'];

comment on function fleet.event_matches(text[], text) is 'Whether an event is among those asked for: *, run.* or run.failed.';
revoke all on function fleet.event_matches(text[], text) from public, anon, authenticated, service_role;

create or replace function fleet.is_event_wanted(p_owner_id uuid, p_event text)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select 1
    from public.webhook_endpoints as e
    where e.owner_id = p_owner_id and e.enabled and fleet.event_matches(e.events, p_event)
  )
$$;

comment on function fleet.is_event_wanted(uuid, text) is
  'Whether an endpoint of the owner hears of such events: asked before something long is put together.';
revoke all on function fleet.is_event_wanted(uuid, text) from public, anon, authenticated, service_role;

create or replace function fleet.event_payload(p_event text, p_subject jsonb, p_now timestamptz)
returns jsonb
language sql
immutable
parallel safe
return jsonb_build_object(
  'type', p_event,
  'timestamp', to_char(p_now at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
  'data', p_subject
);

comment on function fleet.event_payload(text, jsonb, timestamptz) is 'The body of a message, as Standard Webhooks has it.';
revoke all on function fleet.event_payload(text, jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.emit_events(p_owner_ids uuid[], p_event text, p_subjects jsonb[])
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  with happened as materialized (
    select u.owner_id, u.subject, 'evt_' || replace(gen_random_uuid()::text, '-', '') as event_id
    from unnest(p_owner_ids, p_subjects) as u(owner_id, subject)
  )
  insert into public.webhook_deliveries (endpoint_id, owner_id, event_id, event, payload, next_attempt_at)
  select e.id, e.owner_id, h.event_id, p_event, fleet.event_payload(p_event, h.subject, clock_timestamp()), clock_timestamp()
  from happened as h
  join public.webhook_endpoints as e on e.owner_id = h.owner_id
  where e.enabled
    and fleet.event_matches(e.events, p_event)
  -- An endpoint that is just being deleted must hold up neither the tick nor a device.
  for key share of e skip locked;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.emit_events(uuid[], text, jsonb[]) is
  'Tell every endpoint that wants it that something of one kind happened, once for each owner and subject (arrays of one length). '
  'Answers how many messages were written.';
revoke all on function fleet.emit_events(uuid[], text, jsonb[]) from public, anon, authenticated, service_role;

create or replace function fleet.emit_event(p_owner_id uuid, p_event text, p_subject jsonb)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.emit_events(array[p_owner_id], p_event, array[p_subject])
$$;

comment on function fleet.emit_event(uuid, text, jsonb) is
  'Tell every endpoint of the owner that wants it that something happened; nothing is written where nobody does.';
revoke all on function fleet.emit_event(uuid, text, jsonb) from public, anon, authenticated, service_role;

-- db/sources/85_notify/resend.sql
-- What people send by hand: a test, and what was sent before.

create or replace function fleet.test_webhook_endpoint(p_endpoint_id bigint, p_now timestamptz)
returns public.webhook_deliveries
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_endpoint public.webhook_endpoints := fleet.endpoint_of_caller(p_endpoint_id);
  v_row public.webhook_deliveries;
begin
  perform fleet.require_enabled(v_endpoint);
  insert into public.webhook_deliveries as d (endpoint_id, owner_id, event_id, event, payload, next_attempt_at)
  values (
    v_endpoint.id, v_endpoint.owner_id, 'evt_' || replace(gen_random_uuid()::text, '-', ''), 'webhook.test',
    fleet.event_payload(
      'webhook.test',
      jsonb_build_object('endpoint_id', v_endpoint.id, 'name', v_endpoint.name, 'message', 'pgfleet reaches this endpoint'),
      p_now
    ),
    p_now
  )
  returning d.* into v_row;
  return v_row;
end;
$$;

comment on function fleet.test_webhook_endpoint(bigint, timestamptz) is
  'See public.test_webhook_endpoint. Definer: it checks the caller.';
revoke all on function fleet.test_webhook_endpoint(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.test_webhook_endpoint(bigint, timestamptz) to authenticated, service_role;

create or replace function public.test_webhook_endpoint(p_endpoint_id bigint)
returns public.webhook_deliveries
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.test_webhook_endpoint(p_endpoint_id, clock_timestamp())
$$;

comment on function public.test_webhook_endpoint(bigint) is
  'Send the event webhook.test to an endpoint, whatever it asks for. Answers the message, whose status tells what became of it. Raises '
  'webhook_endpoint_not_found (PT404), permission_missing (PT403) or webhook_endpoint_disabled (PT409).';
revoke all on function public.test_webhook_endpoint(bigint) from public, anon, authenticated, service_role;
grant execute on function public.test_webhook_endpoint(bigint) to authenticated, service_role;

create or replace function fleet.require_enabled(p_endpoint public.webhook_endpoints)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if not p_endpoint.enabled then
    raise exception 'webhook endpoint % is disabled', p_endpoint.id
      using errcode = 'PT409',
            detail = 'webhook_endpoint_disabled',
            hint = format('Enable it: select update_webhook_endpoint(%s, ''{"enabled": true}'')', p_endpoint.id);
  end if;
end;
$$;

comment on function fleet.require_enabled(public.webhook_endpoints) is 'Raise webhook_endpoint_disabled (PT409).';
revoke all on function fleet.require_enabled(public.webhook_endpoints) from public, anon, authenticated, service_role;

create or replace function fleet.redeliver(p_delivery_id bigint, p_now timestamptz)
returns public.webhook_deliveries
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_endpoint_id bigint;
  v_endpoint public.webhook_endpoints;
  v_row public.webhook_deliveries;
begin
  select d.endpoint_id into v_endpoint_id
  from public.webhook_deliveries as d
  where d.id = p_delivery_id and fleet.is_visible_owner(d.owner_id);
  if not found then
    perform fleet.raise_not_found(format('webhook delivery %s', p_delivery_id));
  end if;
  v_endpoint := fleet.endpoint_of_caller(v_endpoint_id);
  perform fleet.require_enabled(v_endpoint);

  update public.webhook_deliveries as d
  set status = 'pending', failure_count = 0, next_attempt_at = p_now, finished_at = null
  where d.id = p_delivery_id and d.status <> 'running'
  returning * into v_row;
  if not found then
    select d.* into v_row from public.webhook_deliveries as d where d.id = p_delivery_id;
  end if;
  return v_row;
end;
$$;

comment on function fleet.redeliver(bigint, timestamptz) is 'See public.redeliver. Definer: it checks the caller.';
revoke all on function fleet.redeliver(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.redeliver(bigint, timestamptz) to authenticated, service_role;

create or replace function public.redeliver(p_delivery_id bigint)
returns public.webhook_deliveries
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.redeliver(p_delivery_id, clock_timestamp())
$$;

comment on function public.redeliver(bigint) is
  'Send a message again, delivered or failed, under the same id; one that waits for its next attempt goes at once. Raises '
  'webhook_delivery_not_found (PT404), permission_missing (PT403) or webhook_endpoint_disabled (PT409).';
revoke all on function public.redeliver(bigint) from public, anon, authenticated, service_role;
grant execute on function public.redeliver(bigint) to authenticated, service_role;

-- db/sources/85_notify/schedule_api.sql
-- What the function schedule-api may do, on behalf of a signed-in person whose token it has verified. As the worker is no
-- member of anything, each call here either checks the caller by the claims or filters by the caller's owners itself.

create or replace function fleet.my_task(p_task_id bigint)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_task jsonb;
begin
  select to_jsonb(t) into v_task
  from public.schedules as s
  join public.scheduled_tasks as t on t.id = s.id
  where s.id = p_task_id
    and s.owner_id in (select o.id from fleet.my_owners() as o(id));
  if not found then
    perform fleet.raise_not_found(format('schedule %s', p_task_id));
  end if;
  return v_task;
end;
$$;

comment on function fleet.my_task(bigint) is
  'One of the caller''s schedules, with the columns of scheduled_tasks. Raises schedule_not_found (PT404).';
revoke all on function fleet.my_task(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.my_tasks(p_args jsonb)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_agg(to_jsonb(t) order by t.id), '[]')
  from (
    select t.*
    from public.schedules as s
    join public.scheduled_tasks as t on t.id = s.id
    where s.owner_id in (select o.id from fleet.my_owners() as o(id))
      and (p_args ->> 'status' is null or t.status = p_args ->> 'status')
      and (p_args ->> 'task_type' is null or t.task_type = p_args ->> 'task_type')
    order by t.id
    limit coalesce((p_args ->> 'limit')::integer, 100)
    offset coalesce((p_args ->> 'offset')::integer, 0)
  ) as t
$$;

comment on function fleet.my_tasks(jsonb) is
  'The caller''s schedules, with the columns of scheduled_tasks, by status and task_type; limit and offset page through them.';
revoke all on function fleet.my_tasks(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.my_executions(p_task_id bigint, p_args jsonb)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.my_task(p_task_id);
  return (
    select coalesce(jsonb_agg(to_jsonb(e) order by e.id desc), '[]')
    from (
      select x.*
      from public.scheduled_task_executions as x
      where x.task_id = p_task_id
        and (p_args ->> 'run_id' is null or x.id = (p_args ->> 'run_id')::bigint)
      order by x.id desc
      limit coalesce((p_args ->> 'limit')::integer, 100)
      offset coalesce((p_args ->> 'offset')::integer, 0)
    ) as e
  );
end;
$$;

comment on function fleet.my_executions(bigint, jsonb) is
  'The history of one of the caller''s schedules, the newest first. Raises schedule_not_found (PT404).';
revoke all on function fleet.my_executions(bigint, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.my_execution_counts(p_since timestamptz)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with counted as materialized (
    select r.status, count(*) as n
    from public.schedule_runs as r
    where r.owner_id in (select o.id from fleet.my_owners() as o(id))
      and (p_since is null or r.created_at > p_since)
    group by r.status
  )
  select jsonb_build_object(
    'total', (select coalesce(sum(c.n), 0) from counted as c),
    'by_status', (select coalesce(jsonb_object_agg(c.status, c.n), '{}') from counted as c),
    'success_rate', (
      select round(
        100.0 * coalesce(sum(c.n) filter (where c.status = 'completed'), 0)
        / nullif(sum(c.n) filter (where c.status in ('completed', 'failed')), 0), 1
      )
      from counted as c
    )
  )
$$;

comment on function fleet.my_execution_counts(timestamptz) is
  'How the caller''s executions ended, since an instant or ever: {total, by_status, success_rate} in percent.';
revoke all on function fleet.my_execution_counts(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.my_task_stats(p_now timestamptz)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- public.schedule_stats leaves it to row security whose schedules count, and none holds here.
  with mine as materialized (
    select t.id, t.task_name, t.task_type, t.recurrence_type, t.status, t.next_execution
    from public.schedules as s
    join public.scheduled_tasks as t on t.id = s.id
    where s.owner_id in (select o.id from fleet.my_owners() as o(id))
  )
  select jsonb_build_object(
    'now', p_now,
    'total', (select count(*) from mine),
    'by_status', (
      select coalesce(jsonb_object_agg(k.status, k.n), '{}')
      from (select m.status, count(*) as n from mine as m group by m.status) as k
    ),
    'by_type', (
      select coalesce(jsonb_object_agg(k.task_type, k.n), '{}')
      from (select m.task_type, count(*) as n from mine as m group by m.task_type) as k
    ),
    'by_recurrence', (
      select coalesce(jsonb_object_agg(k.recurrence_type, k.n), '{}')
      from (select m.recurrence_type, count(*) as n from mine as m group by m.recurrence_type) as k
    ),
    'next_due', (
      select coalesce(jsonb_agg(to_jsonb(d) order by d.next_execution, d.id), '[]')
      from (
        select m.id, m.task_name, m.next_execution
        from mine as m
        where m.status in ('pending', 'running') and m.next_execution is not null
        order by m.next_execution, m.id
        limit 5
      ) as d
    ),
    'executions', fleet.my_execution_counts(null)
      || jsonb_build_object('last_24_hours', fleet.my_execution_counts(p_now - interval '24 hours'))
  )
$$;

comment on function fleet.my_task_stats(timestamptz) is
  'The caller''s tasks and executions in numbers: {total, by_status, by_type, by_recurrence, next_due, executions}.';
revoke all on function fleet.my_task_stats(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.call_as_user(p_call text, p_args jsonb)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id bigint := (p_args ->> 'id')::bigint;
  v_answer jsonb;
begin
  case p_call
    when 'list_tasks' then
      return fleet.my_tasks(p_args);
    when 'create_task' then
      v_answer := public.create_schedule(p_args -> 'spec');
      return fleet.my_task((v_answer ->> 'id')::bigint) || jsonb_build_object('warnings', v_answer -> 'warnings');
    when 'get_task' then
      return fleet.my_task(v_id);
    when 'update_task' then
      v_answer := public.update_schedule(v_id, p_args -> 'changes');
      return fleet.my_task(v_id) || jsonb_build_object('warnings', v_answer -> 'warnings');
    when 'delete_task' then
      perform public.delete_schedule(v_id);
      return jsonb_build_object('id', v_id, 'deleted', true);
    when 'pause_task' then
      perform public.pause_schedule(v_id, p_args ->> 'reason');
      return fleet.my_task(v_id);
    when 'resume_task' then
      perform public.resume_schedule(v_id);
      return fleet.my_task(v_id);
    when 'execute_task' then
      v_answer := to_jsonb(public.run_schedule(v_id, p_args ->> 'idempotency_key'));
      return fleet.my_executions(v_id, jsonb_build_object('run_id', v_answer -> 'id')) -> 0;
    when 'list_executions' then
      return fleet.my_executions(v_id, p_args);
    when 'stats' then
      return fleet.my_task_stats(now());
    else
      raise exception 'call "%" is not known', p_call
        using errcode = 'PT404', detail = 'call_not_found', hint = 'Functions and database differ in version: run pgfleet db migrate.';
  end case;
end;
$$;

comment on function fleet.call_as_user(text, jsonb) is 'The calls that worker_as_user lets through.';
revoke all on function fleet.call_as_user(text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.worker_as_user(p_claims jsonb, p_call text, p_args jsonb default '{}')
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_answer jsonb;
begin
  -- Claims without a role, or of the service role, would be trusted with everything.
  if p_claims ->> 'role' is distinct from 'authenticated' then
    raise exception 'only a signed-in person may do this'
      using errcode = 'PT403', detail = 'not_a_person', hint = 'Send the access token of a signed-in user.';
  end if;

  perform set_config('request.jwt.claims', p_claims::text, true);
  if fleet.current_user_id() is null then
    raise exception 'a device may not do this'
      using errcode = 'PT403', detail = 'not_a_person', hint = 'Sign in as a member of the fleet.';
  end if;
  v_answer := fleet.call_as_user(p_call, p_args);
  perform set_config('request.jwt.claims', '', true);
  return v_answer;
end;
$$;

comment on function fleet.worker_as_user(jsonb, text, jsonb) is
  'Do one of a few calls as the person of a token that the function has verified. Raises not_a_person (PT403) and what the call '
  'raises. Definer: the worker has no rights; the claims, never the worker, decide what is seen and changed.';
revoke all on function fleet.worker_as_user(jsonb, text, jsonb) from public, anon, authenticated, service_role;

-- db/sources/85_notify/signatures.sql
-- Signatures by Standard Webhooks (https://www.standardwebhooks.com): made here, so that no secret leaves the database
-- after it was shown.

create or replace function fleet.webhook_secret_text(p_key bytea)
returns text
language sql
immutable
parallel safe
return 'whsec_' || replace(encode(p_key, 'base64'), E'\n', '');

comment on function fleet.webhook_secret_text(bytea) is 'A signing key as its receiver writes it down.';
revoke all on function fleet.webhook_secret_text(bytea) from public, anon, authenticated, service_role;

create or replace function fleet.webhook_signature(p_key bytea, p_id text, p_timestamp bigint, p_body text)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select 'v1,' || replace(
    encode(fleet.hmac_sha256(convert_to(p_id || '.' || p_timestamp || '.' || p_body, 'UTF8'), p_key), 'base64'), E'\n', ''
  )
$$;

comment on function fleet.webhook_signature(bytea, text, bigint, text) is
  'HMAC-SHA256 over id, time (seconds since 1970) and body, as v1,<base64>.';
revoke all on function fleet.webhook_signature(bytea, text, bigint, text) from public, anon, authenticated, service_role;

create or replace function fleet.webhook_headers(p_endpoint_id bigint, p_id text, p_body text, p_now timestamptz)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'webhook-id', p_id,
    'webhook-timestamp', t.seconds::text,
    -- While a secret is being replaced both sign; any one that fits is enough for the receiver.
    'webhook-signature', string_agg(fleet.webhook_signature(s.key, p_id, t.seconds, p_body), ' ' order by s.created_at desc)
  )
  from (select floor(extract(epoch from p_now))::bigint as seconds) as t
  cross join fleet.webhook_secrets as s
  where s.endpoint_id = p_endpoint_id
    and (s.expires_at is null or s.expires_at > p_now)
  group by t.seconds
$$;

comment on function fleet.webhook_headers(bigint, text, text, timestamptz) is
  'The headers webhook-id, webhook-timestamp and webhook-signature of one attempt.';
revoke all on function fleet.webhook_headers(bigint, text, text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.make_webhook_secret(p_endpoint_id bigint)
returns text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_key bytea := decode(fleet.random_secret(), 'hex');
begin
  insert into fleet.webhook_secrets (endpoint_id, key, created_at) values (p_endpoint_id, v_key, clock_timestamp());
  return fleet.webhook_secret_text(v_key);
end;
$$;

comment on function fleet.make_webhook_secret(bigint) is 'Give an endpoint one more secret, and answer it as text.';
revoke all on function fleet.make_webhook_secret(bigint) from public, anon, authenticated, service_role;

-- db/sources/85_notify/triggers.sql
-- What holds for endpoints however a row is written.

create or replace function fleet.tg_check_webhook_endpoint()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.raise_problems(
    'the endpoint', 'webhook_endpoint_invalid', array_agg(q.field), array_agg(q.problem), array_agg(q.hint)
  )
  from fleet.endpoint_problems(new) as q;
  new.updated_at := now();
  if new.enabled then
    new.disabled_reason := null;
  else
    new.disabled_reason := coalesce(new.disabled_reason, 'it was disabled by hand');
  end if;
  return new;
end;
$$;

comment on function fleet.tg_check_webhook_endpoint() is
  'Refuse endpoints that are not valid. Definer: whoever may write the table may not call what it checks with.';
revoke all on function fleet.tg_check_webhook_endpoint() from public, anon, authenticated, service_role;

create or replace function fleet.tg_make_webhook_secret()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.make_webhook_secret(new.id);
  return null;
end;
$$;

comment on function fleet.tg_make_webhook_secret() is
  'Give every webhook a secret: nothing leaves unsigned. Definer: nobody else writes secrets.';
revoke all on function fleet.tg_make_webhook_secret() from public, anon, authenticated, service_role;

create or replace function fleet.tg_end_deliveries()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  update public.webhook_deliveries as d
  set status = 'failed', next_attempt_at = null, finished_at = clock_timestamp(), last_error = 'the endpoint is disabled'
  where d.endpoint_id = new.id and d.status = 'pending';
  return null;
end;
$$;

comment on function fleet.tg_end_deliveries() is
  'End what waits for an endpoint that is disabled; it can be sent again later. Definer: nobody else writes deliveries.';
revoke all on function fleet.tg_end_deliveries() from public, anon, authenticated, service_role;

create or replace trigger webhook_endpoints_01_fill_owner
  before insert on public.webhook_endpoints
  for each row execute function fleet.tg_owner_from_caller();

create or replace trigger webhook_endpoints_02_check
  before insert or update on public.webhook_endpoints
  for each row execute function fleet.tg_check_webhook_endpoint();

create or replace trigger webhook_endpoints_03_make_secret
  after insert on public.webhook_endpoints
  for each row
  when (new.channel = 'webhook')
  execute function fleet.tg_make_webhook_secret();

create or replace trigger webhook_endpoints_04_end_deliveries
  after update of enabled on public.webhook_endpoints
  for each row
  when (old.enabled and not new.enabled)
  execute function fleet.tg_end_deliveries();

-- db/sources/85_notify/policies.sql
-- Who sees endpoints, messages and feeds: the owner's people; who manages, changes them through functions. Devices see none.

revoke all on table public.webhook_endpoints, public.webhook_deliveries, public.calendar_feeds, fleet.webhook_secrets, fleet.pokes
  from public, anon, authenticated, service_role;
revoke all on sequence public.webhook_endpoints_id_seq, public.webhook_deliveries_id_seq, public.calendar_feeds_id_seq
  from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.webhook_endpoints, public.webhook_deliveries, public.calendar_feeds
  to service_role;
grant usage, select on sequence public.webhook_endpoints_id_seq, public.webhook_deliveries_id_seq, public.calendar_feeds_id_seq
  to service_role;

drop policy if exists webhook_endpoints_all_service_role on public.webhook_endpoints;
create policy webhook_endpoints_all_service_role on public.webhook_endpoints
  for all to service_role using (true) with check (true);
drop policy if exists webhook_deliveries_all_service_role on public.webhook_deliveries;
create policy webhook_deliveries_all_service_role on public.webhook_deliveries
  for all to service_role using (true) with check (true);
drop policy if exists calendar_feeds_all_service_role on public.calendar_feeds;
create policy calendar_feeds_all_service_role on public.calendar_feeds
  for all to service_role using (true) with check (true);

-- The address of a webhook is often a secret itself.
grant select on table public.webhook_endpoints to authenticated;
drop policy if exists webhook_endpoints_select_manager on public.webhook_endpoints;
create policy webhook_endpoints_select_manager on public.webhook_endpoints
  for select to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));

grant select on table public.webhook_deliveries to authenticated;
drop policy if exists webhook_deliveries_select_member on public.webhook_deliveries;
create policy webhook_deliveries_select_member on public.webhook_deliveries
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

-- Everything but the hash of the secret.
grant select (id, owner_id, name, filter, last_read_at, revoked_at, created_by, created_at)
  on table public.calendar_feeds to authenticated;
drop policy if exists calendar_feeds_select_member on public.calendar_feeds;
create policy calendar_feeds_select_member on public.calendar_feeds
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

-- db/sources/90_operations/events.sql
-- Telling of what happened: the changes of state that endpoints may hear of. Where nobody listens, one look at a small table.

create or replace function fleet.is_anybody_listening()
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (select 1 from public.webhook_endpoints as e where e.enabled)
$$;

comment on function fleet.is_anybody_listening() is 'Whether any endpoint of anybody is enabled: asked before anything is put together.';
revoke all on function fleet.is_anybody_listening() from public, anon, authenticated, service_role;

create or replace function fleet.tell_runs(p_run_ids bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.emit_events(
    array_agg(r.owner_id order by r.id),
    'run.' || r.status,
    array_agg(jsonb_build_object(
      'run_id', r.id,
      'schedule_id', r.schedule_id,
      'schedule_name', s.name,
      'action_type', coalesce(r.action_type, s.action_type),
      'scheduled_for', r.scheduled_for,
      'trigger', r.trigger,
      'status', r.status,
      'reason', r.reason,
      'error_message', r.error_message,
      'targeted', r.targeted,
      'completed', r.completed,
      'failed', r.failed,
      'missed_count', r.missed_count,
      'finished_at', r.finished_at
    ) order by r.id)
  )
  from public.schedule_runs as r
  join public.schedules as s on s.id = r.schedule_id
  where r.id = any (p_run_ids)
  group by r.status
$$;

comment on function fleet.tell_runs(bigint[]) is 'Tell of runs that ended: run.completed, run.failed or run.skipped.';
revoke all on function fleet.tell_runs(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.tg_tell_new_runs()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ended bigint[];
begin
  if not fleet.is_anybody_listening() then
    return null;
  end if;

  select array_agg(n.id) into v_ended
  from new_rows as n
  where n.status in ('completed', 'failed', 'skipped');
  if v_ended is not null then
    perform fleet.tell_runs(v_ended);
  end if;
  return null;
end;
$$;

comment on function fleet.tg_tell_new_runs() is
  'Tell of runs that are over when they are written: what was missed. Definer: whoever writes them may not write deliveries.';
revoke all on function fleet.tg_tell_new_runs() from public, anon, authenticated, service_role;

create or replace function fleet.tg_tell_runs()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ended bigint[];
begin
  if not fleet.is_anybody_listening() then
    return null;
  end if;

  select array_agg(n.id) into v_ended
  from new_rows as n
  join old_rows as o on o.id = n.id
  where n.status in ('completed', 'failed', 'skipped')
    and o.status is distinct from n.status;
  if v_ended is not null then
    perform fleet.tell_runs(v_ended);
  end if;
  return null;
end;
$$;

comment on function fleet.tg_tell_runs() is 'Tell of runs that ended. Definer: whoever ends them may not write deliveries.';
revoke all on function fleet.tg_tell_runs() from public, anon, authenticated, service_role;

create or replace function fleet.tg_tell_schedules()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if not fleet.is_anybody_listening() then
    return null;
  end if;

  perform fleet.emit_events(
    array_agg(n.owner_id order by n.id),
    'schedule.' || n.status,
    array_agg(jsonb_build_object(
      'schedule_id', n.id,
      'schedule_name', n.name,
      'status', n.status,
      'reason', n.status_reason,
      'execution_count', n.execution_count
    ) order by n.id)
  )
  from new_rows as n
  join old_rows as o on o.id = n.id
  where n.status in ('paused', 'completed')
    and o.status is distinct from n.status
  group by n.status;
  return null;
end;
$$;

comment on function fleet.tg_tell_schedules() is
  'Tell of schedules that were paused or are completed. Definer: whoever changes them may not write deliveries.';
revoke all on function fleet.tg_tell_schedules() from public, anon, authenticated, service_role;

create or replace function fleet.tg_tell_commands()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if not fleet.is_anybody_listening() then
    return null;
  end if;

  perform fleet.emit_events(
    array_agg(n.owner_id order by n.id),
    'command.failed',
    array_agg(jsonb_build_object(
      'command_id', n.id,
      'command_type', n.command_type,
      'run_id', n.run_id,
      'schedule_id', n.schedule_id,
      'device_id', n.device_id,
      'device_hostname', n.device_hostname,
      'status', n.status,
      'reason', n.reason,
      'error_message', n.error_message,
      'attempt', n.attempt
    ) order by n.id)
  )
  from new_rows as n
  join old_rows as o on o.id = n.id
  where n.status in ('failed', 'expired')
    and o.status in ('pending', 'running')
  having count(*) > 0;
  return null;
end;
$$;

comment on function fleet.tg_tell_commands() is
  'Tell of commands that failed for good or expired. Definer: a device may not write deliveries.';
revoke all on function fleet.tg_tell_commands() from public, anon, authenticated, service_role;

-- db/sources/90_operations/maintenance.sql
-- Keeping house: pg_cron jobs, history, and what every migrate does last.

create or replace function fleet.jobs()
returns table (name text, schedule text, command text)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  values
    ('pgfleet-tick', '* * * * *', 'call fleet.tick_minute()'),
    -- After a restart of the server the ticks go on at once, not with the next minute.
    ('pgfleet-tick-boot', '@reboot', 'call fleet.tick_minute()'),
    -- By itself, since it looks at every device that a profile is assigned to: no tick waits for it.
    ('pgfleet-tend-mdm', '* * * * *', 'select fleet.tend_mdm()'),
    ('pgfleet-prune-history', '17 3 * * *', 'call fleet.prune_history()')
$$;

comment on function fleet.jobs() is 'The pg_cron jobs: a fixed set, however many schedules there are.';
revoke all on function fleet.jobs() from public, anon, authenticated, service_role;

create or replace function fleet.sync_jobs()
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
  while fleet.prune_deliveries(v_before) > 0 loop
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.refresh_time_zones();
  perform fleet.sync_command_types();
  perform fleet.sync_publication();
  perform fleet.poke_key();
  -- There before two ticks can want to make them at once.
  insert into fleet.pokes (function, poked_at)
  select n, '-infinity' from unnest('{notify-dispatch,mdm-dispatch,reconcile-profiles}'::text[]) as n
  on conflict do nothing;
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
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
set search_path = pg_catalog, pg_temp
set jit = off
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

  perform set_config('pgfleet.is_ticking', 'yes', true);
  -- Each step by itself: a fault in one of them must not stop the others.
  begin
    perform fleet.tend_places(p_now);
  exception when others then
    v_errors := v_errors || ('places: ' || sqlerrm);
  end;
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
  begin
    perform fleet.poke_notify(p_now);
    perform fleet.poke_mdm(p_now);
  exception when others then
    v_errors := v_errors || ('poke: ' || sqlerrm);
  end;

  perform set_config('pgfleet.is_ticking', 'no', true);

  -- Two ticks at once never wait for each other, not even to say that they are there.
  update fleet.heartbeat as h
  set last_tick_at = p_now,
      tick_count = h.tick_count + 1,
      tick_ms = round((extract(epoch from clock_timestamp() - v_started) * 1000)::numeric, 1),
      last_error = case when v_errors = '{}' then h.last_error else array_to_string(v_errors, '; ') end,
      last_error_at = case when v_errors = '{}' then h.last_error_at else p_now end
  where h.id in (select b.id from fleet.heartbeat as b for update skip locked);

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
  'One step of the scheduler: start what is due, expand a chunk, end leases, settle runs, ring doorbells, poke functions that have work. {runs, commands, swept, '
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
    -- Never longer than a second, even when the clock was set back.
    perform pg_catalog.pg_sleep(
      least(1, greatest(0, extract(epoch from v_next - pg_catalog.clock_timestamp())))::double precision
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

-- db/sources/90_operations/triggers.sql
-- Telling of what happened. After the triggers that do the work, which is why these numbers are high.

create or replace trigger schedule_runs_90_tell_insert
  after insert on public.schedule_runs
  referencing new table as new_rows
  for each statement execute function fleet.tg_tell_new_runs();

create or replace trigger schedule_runs_90_tell_update
  after update on public.schedule_runs
  referencing old table as old_rows new table as new_rows
  for each statement execute function fleet.tg_tell_runs();

create or replace trigger schedules_90_tell
  after update on public.schedules
  referencing old table as old_rows new table as new_rows
  for each statement execute function fleet.tg_tell_schedules();

create or replace trigger device_commands_90_tell
  after update on public.device_commands
  referencing old table as old_rows new table as new_rows
  for each statement execute function fleet.tg_tell_commands();

-- Jobs, publications and time zones follow what was just defined.
set check_function_bodies = on;
select fleet.after_migrate();
reset search_path;
notify pgrst, 'reload schema';
