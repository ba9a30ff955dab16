-- Generated from db/sources/00_platform by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/00_platform/10_casts.sql
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
return case
  when p_text ~* '^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$' then p_text::uuid
end;

comment on function fleet.try_uuid(text) is 'The text as a uuid; null where it is none.';
revoke all on function fleet.try_uuid(text) from public, anon, authenticated, service_role;

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

create or replace function fleet.try_bigint(p_text text)
returns bigint
language sql
immutable
return case when p_text ~ '^[0-9]{1,18}$' then p_text::bigint end;

comment on function fleet.try_bigint(text) is 'The text as an id; null where it is none.';
revoke all on function fleet.try_bigint(text) from public, anon, authenticated, service_role;
grant execute on function fleet.try_bigint(text) to authenticated, service_role;

create or replace function fleet.number_or_null(p_value jsonb)
returns numeric
language sql
immutable
parallel safe
return case when jsonb_typeof(p_value) = 'number' then (p_value #>> '{}')::numeric end;

comment on function fleet.number_or_null(jsonb) is 'A number in JSON; null for anything else.';
revoke all on function fleet.number_or_null(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.number_or_null(jsonb) to authenticated, service_role;

create or replace function fleet.text_of_bytes(p_bytes bytea)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_bytes bytea := p_bytes;
begin
  if position('\x00'::bytea in p_bytes) > 0 then
    -- UTF-16 without its zero bytes reads as the letters that it holds, as far as they are Latin ones.
    select coalesce(string_agg(substring(p_bytes from i for 1), ''::bytea order by i), '') into v_bytes
    from generate_series(1, least(length(p_bytes), 65536)) as i
    where get_byte(p_bytes, i - 1) <> 0;
  end if;
  return convert_from(v_bytes, 'UTF8');
exception
  when character_not_in_repertoire or untranslatable_character then
    return convert_from(v_bytes, 'LATIN1');
end;
$$;

comment on function fleet.text_of_bytes(bytea) is 'Bytes as text: UTF-8, else as good as it goes. Never raises.';
revoke all on function fleet.text_of_bytes(bytea) from public, anon, authenticated, service_role;

create or replace function fleet.plain_xml_text(p_text text)
returns text
language sql
immutable
parallel safe
return btrim(regexp_replace(
  replace(replace(replace(replace(replace(replace(replace(
    p_text, '&lt;', '<'), '&gt;', '>'), '&quot;', '"'), '&apos;', ''''), '&#34;', '"'), '&#39;', ''''), '&amp;', '&'),
  '\s+', ' ', 'g'
));

comment on function fleet.plain_xml_text(text) is 'The text of an XML element as people read it.';
revoke all on function fleet.plain_xml_text(text) from public, anon, authenticated, service_role;

create or replace function fleet.calendar_instant(p_instant timestamptz)
returns timestamptz
language sql
stable
parallel safe
return least(greatest(coalesce(p_instant, now()), '0001-01-01 00:00:00+00'), '9999-12-31 00:00:00+00');

comment on function fleet.calendar_instant(timestamptz) is
  'An instant that people write, brought into the calendar of ten thousand years, where nothing that is added to it overflows; now where they write none.';
revoke all on function fleet.calendar_instant(timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.calendar_instant(timestamptz) to authenticated, service_role;

create or replace function fleet.calendar_interval(p_interval interval)
returns interval
language sql
immutable
parallel safe
return case when p_interval is not null then least(greatest(p_interval, interval '-1000 years'), interval '1000 years') end;

comment on function fleet.calendar_interval(interval) is
  'A duration that people write, cut to a thousand years: as far out of bounds as before, but added to an instant it does not overflow.';
revoke all on function fleet.calendar_interval(interval) from public, anon, authenticated, service_role;
grant execute on function fleet.calendar_interval(interval) to authenticated, service_role;

-- db/sources/00_platform/20_jwt_claims.sql
-- Who is calling: the claims of the request, and the person or device that they stand for. None of these functions ever raises:
-- row security asks them, and one that raises can stop Realtime for all.

create or replace function fleet.careful_claims(p_claims text)
returns json
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_claims json;
begin
  if p_claims !~ '^\s*\{' then
    return null;
  end if;
  -- json, not jsonb: what stands in other claims need not be fit for jsonb. Some escapes are refused only when a claim is
  -- read.
  v_claims := p_claims;
  if strpos(p_claims, '\u') > 0 then
    perform v_claims ->> 'sub';
  end if;
  return v_claims;
exception
  when data_exception or program_limit_exceeded then
    return null;
end;
$$;

comment on function fleet.careful_claims(text) is 'Claims of unknown origin; null where they are no JSON object.';
revoke all on function fleet.careful_claims(text) from public, anon, authenticated, service_role;
grant execute on function fleet.careful_claims(text) to authenticated, service_role;

create or replace function fleet.jwt_claims()
returns json
language sql
stable
-- The login of the API writes down the object of a token that it has read: no trial is needed, which would be a
-- subtransaction at every call. Escapes are tried all the same, since not all of them can be told as text.
return case
  when session_user = 'authenticator'
    and left(current_setting('request.jwt.claims', true), 1) = '{'
    and strpos(current_setting('request.jwt.claims', true), '\u') = 0
    then current_setting('request.jwt.claims', true)::json
  when current_setting('request.jwt.claims', true) <> '' then fleet.careful_claims(current_setting('request.jwt.claims', true))
end;

comment on function fleet.jwt_claims() is
  'The claims of the caller''s token, or null where there is none or they are no JSON object. Read once, and taken apart with '
  'json_to_record.';
revoke all on function fleet.jwt_claims() from public, anon, authenticated, service_role;
grant execute on function fleet.jwt_claims() to authenticated, service_role;

create or replace function fleet.jwt_claim(p_name text)
returns text
language sql
stable
return fleet.jwt_claims() ->> p_name;

comment on function fleet.jwt_claim(text) is 'One claim of the caller''s token as text, or null where there is none.';
revoke all on function fleet.jwt_claim(text) from public, anon, authenticated, service_role;
grant execute on function fleet.jwt_claim(text) to authenticated, service_role;

create or replace function fleet.current_subject()
returns uuid
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_sub text := fleet.jwt_claim('sub');
begin
  return case when v_sub ~* '^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$' then v_sub::uuid end;
end;
$$;

comment on function fleet.current_subject() is
  'The sub claim as a uuid; null when there is none or it is no uuid (auth.uid() would raise).';
revoke all on function fleet.current_subject() from public, anon, authenticated, service_role;
grant execute on function fleet.current_subject() to authenticated, service_role;

create or replace function fleet.current_user_id()
returns uuid
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_claims json := fleet.jwt_claims();
  v_id uuid;
begin
  -- plpgsql keeps its plans: this is asked for each command that ends.
  if v_claims ->> 'device_id' is not null then
    return null;
  end if;
  v_id := fleet.try_uuid(v_claims ->> 'sub');
  if v_id is null then
    return null;
  elsif exists (select 1 from public.devices as d where d.auth_id = v_id) then
    -- A device is nobody: neither one that is active nor one whose token outlived its re-keying.
    return null;
  end if;
  return v_id;
end;
$$;

comment on function fleet.current_user_id() is
  'The signed-in person; null for devices and in the SQL editor. Definer: it must see every device to tell one from a person.';
revoke all on function fleet.current_user_id() from public, anon, authenticated, service_role;
grant execute on function fleet.current_user_id() to authenticated, service_role;

create or replace function fleet.current_device_id()
returns bigint
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_claims json := fleet.jwt_claims();
  v_id uuid;
  v_device_id bigint;
begin
  if v_claims ->> 'role' = 'authenticated' then
    v_id := fleet.try_uuid(v_claims ->> 'sub');
    -- Whether it is active is asked of the one row: of a table without statistics Postgres takes few to be, and reads them all.
    select d.id into v_device_id
    from (select x.id, x.status from public.devices as x where x.auth_id = v_id offset 0) as d
    where d.status = 'active';
  end if;
  return v_device_id;
end;
$$;

comment on function fleet.current_device_id() is
  'The active device whose token this is, or null. Definer: a device has no right to search the devices.';
revoke all on function fleet.current_device_id() from public, anon, authenticated, service_role;
grant execute on function fleet.current_device_id() to authenticated, service_role;

create or replace function fleet.is_trusted_caller()
returns boolean
language sql
stable
-- Outside of a request there are no claims: the SQL editor, pg_cron, a migration. Through the API only the service role.
-- Whoever comes as a role of the API is never trusted for claims that are missing or say another role. The setting role
-- is the role that the session took on, also inside of definer functions.
return coalesce(fleet.jwt_claim('role'), 'service_role') = 'service_role'
  and current_setting('role') not in ('anon', 'authenticated')
  and session_user not in ('anon', 'authenticated');

comment on function fleet.is_trusted_caller() is 'Whether the caller is the service role or comes from inside the database.';
revoke all on function fleet.is_trusted_caller() from public, anon, authenticated, service_role;
grant execute on function fleet.is_trusted_caller() to authenticated, service_role;

create or replace function fleet.require_device()
returns bigint
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device_id bigint := fleet.current_device_id();
  v_mover uuid;
begin
  if v_device_id is null then
    raise exception 'only an active device may call this'
      using errcode = 'PT403',
            detail = 'not_a_device',
            hint = 'Get a token from the function device-token; a retired device must be enrolled again.';
  end if;
  select m.owner_id into v_mover
  from public.devices as d
  join fleet.owner_moves as m on m.owner_id = d.owner_id
  where d.id = v_device_id;
  if found then
    perform fleet.refuse_mover(v_mover);
  end if;
  return v_device_id;
end;
$$;

comment on function fleet.require_device() is 'The calling device. Raises not_a_device (PT403), or owner_moving (PT503) and owner_moved (PT401) where its fleet goes to another database. '
  'Definer: a device may not read who moves.';
revoke all on function fleet.require_device() from public, anon, authenticated, service_role;
grant execute on function fleet.require_device() to authenticated, service_role;

-- db/sources/00_platform/30_permissions.sql
-- What the caller may do: the owners in which a person has a permission, and the owner of what somebody makes.

create or replace function fleet.my_owners(p_permission text default 'view')
returns setof uuid
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  with caller as (select fleet.current_user_id() as id),
  mine as (
    -- Everybody's personal owner has the id of the user and needs no membership: row security must already let the very
    -- statement in that makes it.
    select c.id from caller as c where c.id is not null
    union
    select m.owner_id
    from caller as c
    join public.owner_members as m on m.user_id = c.id
    where p_permission = 'view' or m.permissions && array[p_permission, 'admin']
  )
  select o.id
  from mine as o
  -- Whoever is being moved to another database is only looked at.
  where p_permission = 'view' or not exists (select 1 from fleet.owner_moves as v where v.owner_id = o.id)
$$;

comment on function fleet.my_owners(text) is
  'Owners in which the signed-in person has a permission; none for devices. Definer: the row security of owner_members uses it itself.';
revoke all on function fleet.my_owners(text) from public, anon, authenticated, service_role;
grant execute on function fleet.my_owners(text) to authenticated, service_role;

create or replace function fleet.usual_owner()
returns uuid
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_user uuid := fleet.current_user_id();
  v_owners uuid[];
begin
  if v_user is null then
    return case when fleet.is_trusted_caller() then (fleet.setting('default_owner') #>> '{}')::uuid end;
  end if;

  select array_agg(f.id) into v_owners
  from (
    select m.owner_id as id from public.owner_members as m where m.user_id = v_user
    union
    -- A personal fleet without devices is one that nobody has begun to use.
    select v_user where exists (select 1 from public.devices as d where d.owner_id = v_user)
    limit 2
  ) as f;
  return case when cardinality(v_owners) = 1 then v_owners[1] else v_user end;
end;
$$;

comment on function fleet.usual_owner() is
  'The owner that is meant where nothing that was named tells: the only one that the person is a member of, else the personal one; where '
  'nobody is signed in, the setting default_owner. Null where there is none.';
revoke all on function fleet.usual_owner() from public, anon, authenticated, service_role;

create or replace function fleet.resolve_owner()
returns uuid
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid := fleet.usual_owner();
begin
  -- Where nothing can be written, as on a replica, there is nothing of somebody new to read either.
  if v_owner = fleet.current_user_id() and current_setting('transaction_read_only') = 'off' then
    -- Everybody has a personal owner; it is made the first time that it is needed.
    insert into public.owners (id, name, is_personal) values (v_owner, 'personal', true) on conflict (id) do nothing;
  end if;
  if v_owner is not null then
    return v_owner;
  elsif fleet.is_trusted_caller() then
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
  'The owner of a row whose maker named none and nothing that has one: see usual_owner. Raises owner_missing (PT422) or not_a_person '
  '(PT403). Definer: it reads memberships and makes the personal owner.';
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
              then format('List your %ss with: select * from %s_list', v_kind, v_kind)
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
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_owner_id is null then
    return fleet.resolve_owner();
  end if;
  -- Who is there already need not be made, whoever asks.
  perform from public.owners as o where o.id = p_owner_id;
  if found then
    return p_owner_id;
  elsif p_owner_id = fleet.current_user_id() and current_setting('transaction_read_only') = 'off' then
    insert into public.owners (id, name, is_personal) values (p_owner_id, 'personal', true) on conflict (id) do nothing;
  end if;
  return p_owner_id;
end;
$$;

comment on function fleet.owner_or_own(uuid) is
  'The owner that was named, made if need be where it is the person''s own; where none was named, what resolve_owner says. Raises as that '
  'does.';
revoke all on function fleet.owner_or_own(uuid) from public, anon, authenticated, service_role;

create or replace function fleet.is_owner_gone(p_owner_id uuid)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select not exists (select 1 from public.owners as o where o.id = p_owner_id)
$$;

comment on function fleet.is_owner_gone(uuid) is
  'Whether the owner of a row is being deleted, and the row with it: what guards rows from being deleted lets these go.';
revoke all on function fleet.is_owner_gone(uuid) from public, anon, authenticated, service_role;

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
  elsif exists (select 1 from fleet.my_owners(p_permission) as o(id) where o.id = p_owner_id) then
    return;
  end if;

  if p_owner_id is null or not exists (select 1 from fleet.my_owners() as o(id) where o.id = p_owner_id) then
    perform fleet.raise_not_found(p_what);
  end if;
  perform fleet.refuse_mover(p_owner_id);
  raise exception 'the permission "%" is missing for %', p_permission, p_what
    using errcode = 'PT403',
          detail = 'permission_missing',
          hint = 'An admin of the owner can grant it in owner_members.permissions.';
end;
$$;

comment on function fleet.require_permission(uuid, text, text) is
  'Raise <kind>_not_found (PT404) when the caller is no member of the owner, permission_missing (PT403) when one without the permission, '
  'owner_moving (PT503) while it is being moved to another database. '
  'The service role and callers inside the database pass. Definer: it reads memberships.';
revoke all on function fleet.require_permission(uuid, text, text) from public, anon, authenticated, service_role;

-- db/sources/00_platform/35_moves.sql
-- Owners that are being moved to another database: nothing of theirs may change or go out meanwhile.

create or replace function fleet.moving_owners()
returns uuid[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(select m.owner_id from fleet.owner_moves as m);
end;
$$;

comment on function fleet.moving_owners() is
  'Owners that are being moved to another database, or were.';
revoke all on function fleet.moving_owners() from public, anon, authenticated, service_role;

create or replace function fleet.is_moving(p_owner_id uuid)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (select 1 from fleet.owner_moves as m where m.owner_id = p_owner_id)
$$;

comment on function fleet.is_moving(uuid) is
  'Whether an owner is being moved to another database, or was.';
revoke all on function fleet.is_moving(uuid) from public, anon, authenticated, service_role;

create or replace function fleet.refuse_mover(p_owner_id uuid)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_state text := (select m.state from fleet.owner_moves as m where m.owner_id = p_owner_id);
begin
  if v_state = 'leaving' then
    raise exception 'this fleet is being moved to another database'
      using errcode = 'PT503', detail = 'owner_moving', hint = 'Try again in a minute.';
  elsif v_state = 'moved' then
    raise exception 'this fleet was moved to another database'
      using errcode = 'PT401', detail = 'owner_moved', hint = 'A device asks the function device-token where to; people sign in there.';
  end if;
end;
$$;

comment on function fleet.refuse_mover(uuid) is
  'Raise owner_moving (PT503) for an owner that is being moved, owner_moved (PT401) for one that was.';
revoke all on function fleet.refuse_mover(uuid) from public, anon, authenticated, service_role;

create or replace function fleet.working_device_id()
returns bigint
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_claims json := fleet.jwt_claims();
  v_id uuid;
  v_device_id bigint;
begin
  -- plpgsql keeps its plans: a device asks this with each thing that it does.
  if v_claims ->> 'role' = 'authenticated' then
    v_id := fleet.try_uuid(v_claims ->> 'sub');
    select d.id into v_device_id
    -- The one row first, as in current_device_id.
    from (select x.id, x.status, x.owner_id from public.devices as x where x.auth_id = v_id offset 0) as d
    where d.status = 'active'
      and not exists (select 1 from fleet.owner_moves as m where m.owner_id = d.owner_id);
  end if;
  return v_device_id;
end;
$$;

comment on function fleet.working_device_id() is
  'The calling device, while its fleet is here; null while it goes to another database: then require_device says so. What a device writes goes '
  'by this one, what it only reads by current_device_id. Definer: a policy asks for its caller.';
revoke all on function fleet.working_device_id() from public, anon, authenticated, service_role;
grant execute on function fleet.working_device_id() to authenticated, service_role;

-- db/sources/00_platform/40_settings.sql
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
    ('audit_days', '400',
      'How long the audit log is kept.'),
    ('telemetry_days', '90',
      'How long telemetry points are kept; what is rolled up by the hour is kept four times as long, and two years at least.'),
    ('inbox_days', '3',
      'How long messages that were pushed are remembered, so that one that comes again changes nothing.'),
    ('stale_position_hours', '24',
      'After how long without a fix a device''s position is unknown; it keeps the places that it was in.'),
    ('ticker_enabled', 'true',
      'False stops the ticker at its next second, for maintenance.'),
    ('tick_step_seconds', '10',
      'How long one step of a tick may take before it is ended, and what it was about is looked at one by one.'),
    ('quota_devices', '100000',
      'How many active devices an owner may have. Of this and what follows one owner may be allowed more or less, by a quota of its own.'),
    ('quota_schedules', '10000',
      'How many schedules an owner may have that are not at their end.'),
    ('quota_commands_waiting', '200000',
      'How many commands of an owner may wait; its runs are not expanded beyond.'),
    ('quota_commands_a_minute', '200000',
      'How many commands an owner may make in a minute; its runs wait where that is used up.'),
    ('quota_mailbox_codes_a_day', '20',
      'How many codes an owner may have sent to mailboxes in a day.'),
    ('quota_telemetry_a_day', '1000000',
      'How many points of telemetry of an owner are taken in a day.'),
    ('quota_groups', '1000',
      'How many groups an owner may have.'),
    ('quota_locations', '5000',
      'How many locations an owner may have.'),
    ('quota_geo_schedules', '2000',
      'How many geo schedules an owner may have.'),
    ('quota_integrations', '50',
      'How many integrations an owner may have.'),
    ('quota_endpoints', '50',
      'How many webhooks and addresses an owner may be told at.'),
    ('quota_feeds', '200',
      'How many calendar feeds an owner may have that are not revoked.'),
    ('quota_command_types', '200',
      'How many command types of its own an owner may have.'),
    ('quota_members', '500',
      'How many members an owner may have.'),
    ('database_number', '0',
      'The number of this database among several, from which its ids follow. Set it with: pgfleet db migrate --database-number.'),
    ('functions_url', 'null',
      'Address of the HTTP functions, such as https://functions.example.com/functions/v1.'),
    ('files_s3_url', 'null',
      'Address of an S3 API that has the files of deployments, such as https://s3.eu-central-1.amazonaws.com; null for the storage of the project.'),
    ('files_s3_bucket', '"pgfleet"',
      'The bucket there.'),
    ('files_s3_region', '"us-east-1"',
      'The region that addresses there are signed for.'),
    ('files_s3_key_id', 'null',
      'Id of a key that may read there; its secret is kept as pgfleet_files_s3 in the vault or in pg_cron_secrets.'),
    ('webhook_allow_private', 'false',
      'Whether webhooks may go to http:// and to private and loopback addresses. Leave it off where others make endpoints.')
$$;

comment on function fleet.default_settings() is 'Every setting with its default value and what it means.';
revoke all on function fleet.default_settings() from public, anon, authenticated, service_role;
grant execute on function fleet.default_settings() to service_role;

create or replace function fleet.setting_defaults()
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_object_agg(d.name, d.value) from fleet.default_settings() as d
$$;

comment on function fleet.setting_defaults() is
  'The default of every setting by its name: a constant, which Postgres works out once a plan.';
revoke all on function fleet.setting_defaults() from public, anon, authenticated, service_role;

create or replace function fleet.setting(p_name text)
returns jsonb
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_value jsonb;
begin
  -- plpgsql keeps its plans: each tick and each claim reads settings.
  select s.value into v_value from fleet.settings as s where s.name = p_name;
  if not found then
    v_value := fleet.setting_defaults() -> p_name;
  end if;
  return v_value;
end;
$$;

comment on function fleet.setting(text) is
  'The value of a setting, or its default. Definer: engine functions read settings on behalf of anybody.';
revoke all on function fleet.setting(text) from public, anon, authenticated, service_role;
grant execute on function fleet.setting(text) to service_role;

create or replace function fleet.setting_number(p_name text)
returns numeric
language sql
stable
return (fleet.setting(p_name) #>> '{}')::numeric;

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
    when p_name = 'files_s3_url' then
      case
        when coalesce(p_value, 'null') <> 'null'
          and (jsonb_typeof(p_value) <> 'string' or p_value #>> '{}' !~ '^https?://[A-Za-z0-9.:-]+(/[A-Za-z0-9._~/-]*)?$')
          then 'an address that begins with http:// or https://, or null'
      end
    when p_name like 'files\_s3\_%' then
      case
        when (p_default <> 'null' or coalesce(p_value, 'null') <> 'null')
          and (jsonb_typeof(p_value) is distinct from 'string' or p_value #>> '{}' !~ '^[A-Za-z0-9._-]{1,128}$')
          then 'a word of letters, digits, dots and dashes'
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
      when p_name like 'quota\_%' or p_name = 'database_number' or p_name in ('doorbell_inline_limit', 'doorbell_rate', 'inline_expand_limit', 'retry_backoff_seconds') then 0
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
            hint = 'List the settings with: select * from setting_list';
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

-- db/sources/00_platform/50_secrets.sql
-- Random secrets, their hashes and signatures. Built on what Postgres itself has,
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

create or replace function fleet.stored_secret(p_name text)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_secret text;
begin
  select s.secret into v_secret from public.pg_cron_secrets as s where s.name = p_name;
  if v_secret is null and to_regclass('vault.decrypted_secrets') is not null then
    execute 'select v.decrypted_secret from vault.decrypted_secrets as v where v.name = $1' into v_secret using p_name;
  end if;
  return v_secret;
end;
$$;

comment on function fleet.stored_secret(text) is 'A secret by its name: from pg_cron_secrets, else from the vault of Supabase where there is one.';
revoke all on function fleet.stored_secret(text) from public, anon, authenticated, service_role;

-- db/sources/00_platform/60_problems.sql
-- What is wrong with values that people write, named all at once: each with its field, the problem and the next step.

create or replace function fleet.raise_problems(p_what text, p_reason text, p_problems fleet.problem[])
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if coalesce(cardinality(p_problems), 0) = 0 then
    return;
  end if;

  raise exception '% is not valid: %', p_what, (
    -- What was sent is quoted: its beginning tells enough, and of a thousand problems the first ones.
    select string_agg(fleet.cut_text(p.field, 100) || ': ' || fleet.cut_text(p.problem, 300), '; ' order by p.n)
    from unnest(p_problems) with ordinality as p(field, problem, hint, n)
    where p.n <= 50
  ) || case when cardinality(p_problems) > 50 then format('; and %s more', cardinality(p_problems) - 50) else '' end
    using errcode = case
            when (select bool_and(p.problem like '% was not found') from unnest(p_problems) as p) then 'PT404'
            else 'PT422'
          end,
          detail = p_reason,
          hint = (
            select string_agg(regexp_replace(h.hint, '[.]?$', '.'), ' ' order by h.n)
            from (
              select p.hint, min(p.n) as n
              from unnest(p_problems) with ordinality as p(field, problem, hint, n)
              where p.hint <> '' and p.n <= 50
              group by p.hint
            ) as h
          );
end;
$$;

comment on function fleet.raise_problems(text, text, fleet.problem[]) is
  'One error that names every wrong field; PT404 where all that is wrong is that something was not found, else PT422. No problem, no '
  'error.';
revoke all on function fleet.raise_problems(text, text, fleet.problem[]) from public, anon, authenticated, service_role;

create or replace function fleet.choice_problem(p_field text, p_value jsonb, p_choices text[])
returns setof fleet.problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select p_field, format('%s is not one of %s', p_value, array_to_string(p_choices, ', ')),
    format('Use one of: %s.', array_to_string(p_choices, ', '))
  where p_value is not null
    and (jsonb_typeof(p_value) <> 'string' or (p_value #>> '{}') <> all (p_choices));
end;
$$;

comment on function fleet.choice_problem(text, jsonb, text[]) is 'One row where a value is not among the choices.';
revoke all on function fleet.choice_problem(text, jsonb, text[]) from public, anon, authenticated, service_role;

create or replace function fleet.whole_number_problem(p_field text, p_value jsonb, p_least bigint, p_most bigint)
returns setof fleet.problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select p_field, format('%s is not a whole number from %s to %s', p_value, p_least, p_most),
    format('Write a number without quotes, from %s to %s.', p_least, p_most)
  where p_value is not null
    and case
      when jsonb_typeof(p_value) <> 'number' then true
      else (p_value #>> '{}')::numeric <> trunc((p_value #>> '{}')::numeric)
        or (p_value #>> '{}')::numeric not between p_least and p_most
    end;
end;
$$;

comment on function fleet.whole_number_problem(text, jsonb, bigint, bigint) is
  'One row where a value is not a whole number within its bounds.';
revoke all on function fleet.whole_number_problem(text, jsonb, bigint, bigint)
  from public, anon, authenticated, service_role;

create or replace function fleet.duration_problem(p_field text, p_value jsonb)
returns setof fleet.problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select p_field, format('%s is not a duration', p_value), 'Examples: "15 minutes", "2 hours", "1 day".'
  where p_value is not null
    and jsonb_typeof(p_value) <> 'null'
    and (
      jsonb_typeof(p_value) <> 'string'
      or fleet.try_interval(p_value #>> '{}') is null
      -- What is longer leads out of the calendar, sooner or later.
      or fleet.try_interval(p_value #>> '{}') not between interval '1 microsecond' and interval '10 years'
    );
end;
$$;

comment on function fleet.duration_problem(text, jsonb) is
  'One row where a value is not a positive duration, of ten years at most.';
revoke all on function fleet.duration_problem(text, jsonb) from public, anon, authenticated, service_role;

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

create or replace function fleet.object_or_empty(p_value jsonb)
returns jsonb
language sql
immutable
parallel safe
return (case jsonb_typeof(p_value) when 'object' then p_value else '{}'::jsonb end);

comment on function fleet.object_or_empty(jsonb) is 'The value where it is an object, else {}.';
revoke all on function fleet.object_or_empty(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.object_or_empty(jsonb) to authenticated, service_role;

create or replace function fleet.is_id_list(p_list jsonb)
returns boolean
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if jsonb_typeof(p_list) is distinct from 'array' then
    return false;
  end if;
  return not exists (
    select 1
    from jsonb_array_elements(p_list) as e(item)
    where case
      when jsonb_typeof(e.item) <> 'number' then true
      else (e.item #>> '{}')::numeric <> trunc((e.item #>> '{}')::numeric) or (e.item #>> '{}')::numeric not between 1 and 9007199254740991
    end
  );
end;
$$;

comment on function fleet.is_id_list(jsonb) is 'Whether this is a JSON list of ids.';
revoke all on function fleet.is_id_list(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.bigint_array(p_list jsonb)
returns bigint[]
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select coalesce(array_agg(distinct (e #>> '{}')::numeric::bigint), '{}')
    from jsonb_array_elements(case when jsonb_typeof(p_list) = 'array' then p_list else '[]' end) as e
  );
end;
$$;

comment on function fleet.bigint_array(jsonb) is 'A JSON list of whole numbers as an array, each once.';
revoke all on function fleet.bigint_array(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.as_list(p_value jsonb)
returns setof jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select e.value
  from jsonb_array_elements(
    case when jsonb_typeof(p_value) = 'array' then p_value else jsonb_build_array(p_value) end
  ) as e (value)
  where p_value is not null;
end;
$$;

comment on function fleet.as_list(jsonb) is
  'The elements of an array, or the one value that stands for an array of itself.';
revoke all on function fleet.as_list(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.as_list(jsonb) to authenticated, service_role;

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

-- db/sources/00_platform/65_limits.sql
-- Limits: how much of anything people and devices may write. The one table of them.

create or replace function fleet.limits()
returns table (name text, value bigint, unit text, over text, bounds text, columns text[])
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  values
    -- Texts.
    ('name', 200::bigint, 'characters', 'refuse', 'names that people give',
      '{app_categories.name, blackout_calendars.name, calendar_feeds.name, deployment_files.name, deployments.name, device_groups.name,
        device_integrations.name,
        geo_schedules.name, location_events.location_name, location_policies.name, locations.name, owners.name,
        profiles.name, schedule_templates.name, schedules.name, software_packages.name, software_packages.version, telemetry_rules.name,
        webhook_endpoints.name}'::text[]),
    ('hostname', 253, 'characters', 'refuse', 'host names', '{device_commands.device_hostname,devices.hostname}'),
    ('description', 4000, 'characters', 'refuse', 'descriptions',
      '{blackout_calendars.description, blackout_periods.summary, blocklist_entries.note, command_types.description, deployment_files.description,
        device_groups.description,
        geo_schedules.notes, profile_assignments.description, rollout_approvals.note, schedule_templates.description, schedules.description,
        software_packages.description}'),
    ('identifier', 255, 'characters', 'refuse', 'keys, kinds, time zones, addresses of people and ids of other systems',
      '{blackout_calendars.url_timezone, blocklist_entries.pattern, command_types.name, device_commands.command_type, device_commands.idempotency_key,
        device_integrations.integration_type, device_links.external_id, device_profiles.profile_id, devices.platform,
        devices.timezone, geo_schedules.timezone, location_policies.action_type, mdm_rereads.external_id,
        owner_invitations.email, owner_members.email, owners.timezone, pg_cron_secrets.name, profile_assignments.profile_id, profile_holds.holder, profile_holds.profile_id,
        profile_installs.profile_id, profiles.external_id, profiles.kind, schedule_runs.action_type,
        schedule_runs.idempotency_key, schedules.action_type, schedules.profile_id, schedules.timezone, software_packages.platform,
        telemetry_rules.action_type, telemetry_rules.condition}'),
    ('address', 2000, 'characters', 'refuse', 'addresses that people give',
      '{blackout_calendars.url,webhook_endpoints.email,webhook_endpoints.url}'),
    ('secret', 65536, 'characters', 'refuse', 'secrets', '{pg_cron_secrets.secret}'),
    ('reason', 255, 'characters', 'cut', 'reasons in a word or a line',
      '{device_commands.reason, device_integrations.status_reason, profile_installs.failure, profile_installs.removal_cancelled, rollouts.reason,
        schedule_runs.reason,
        schedules.status_reason, webhook_endpoints.disabled_reason}'),
    ('error', 4000, 'characters', 'cut', 'error messages',
      '{blackout_calendars.look_error, device_commands.error_message, heartbeat.last_error, integration_activity_log.error,
        location_actions.error_message, mdm_api_logs.error, profiles.error_message, schedule_runs.error_message,
        telemetry_rules.last_error, webhook_deliveries.last_error}'),
    ('explanation', 2000, 'characters', 'cut', 'reasons in a few lines',
      '{blackout_calendars.look_note, geo_action_reports.reason, geo_commitments.override_reason}'),
    ('log_line', 2000, 'characters', 'cut', 'what is logged of a call in a line',
      '{blackout_calendars.look_modified, blackout_calendars.look_tag, integration_activity_log.origin_key, mdm_api_logs.method, mdm_api_logs.url}'),
    ('log_body', 20000, 'characters', 'cut', 'bodies of calls in the log',
      '{mdm_api_logs.request_body,mdm_api_logs.response_body}'),
    ('command_line', 4000, 'characters', 'refuse', 'command lines of installers',
      '{software_packages.install_command,software_packages.uninstall_command}'),
    -- JSON, in bytes as Postgres holds it.
    ('payload', 65536, 'bytes', 'refuse', 'payloads of commands',
      '{device_commands.payload, location_policies.payload, schedule_runs.payload, schedules.payload,
        telemetry_rules.payload}'),
    ('report', 65536, 'bytes', 'cut', 'what devices and other systems report',
      '{device_commands.result, device_links.attributes, device_links.capabilities, integration_activity_log.counts,
        integration_activity_log.detail, schedule_runs.result, webhook_deliveries.payload}'),
    ('attributes', 32768, 'bytes', 'refuse', 'attributes of a device, and what it reports', '{devices.attributes,devices.reported}'),
    ('policies', 16384, 'bytes', 'refuse', 'policies of a schedule', '{schedules.policies}'),
    ('recurrence', 16384, 'bytes', 'refuse', 'settings of a recurrence', '{schedules.recurrence_config}'),
    ('selector', 16384, 'bytes', 'refuse', 'selectors and filters',
      '{calendar_feeds.filter, device_groups.selector, location_policies.selector, profile_assignments.selector,
        schedules.selector, telemetry_rules.selector}'),
    ('options', 16384, 'bytes', 'refuse', 'options of a profile', '{profiles.options}'),
    ('desired', 16384, 'bytes', 'refuse', 'what is wanted of a device in another system', '{device_links.desired}'),
    ('settings', 262144, 'bytes', 'refuse', 'settings of an integration', '{device_integrations.settings}'),
    ('template', 262144, 'bytes', 'refuse', 'specifications and parameters of templates',
      '{schedule_templates.parameters,schedule_templates.spec}'),
    ('payload_keys', 65536, 'bytes', 'refuse', 'what a command type says of its payload', '{command_types.payload_keys}'),
    ('polygon', 65536, 'bytes', 'refuse', 'borders of locations', '{geo_schedules.geometry,locations.polygon}'),
    ('enforce', 4096, 'bytes', 'refuse', 'how a geo schedule is enforced', '{geo_schedules.enforce}'),
    ('profile_content', 1048576, 'bytes', 'refuse', 'files of profiles', '{profile_uploads.content}'),
    ('progress', 4096, 'bytes', 'cut', 'how far a device says it is', '{device_commands.progress}'),
    ('detection', 16384, 'bytes', 'refuse', 'detection rules', '{software_packages.detection}'),
    ('spec', 524288, 'bytes', 'refuse', 'one specification in JSON', '{}'),
    ('document', 8388608, 'bytes', 'refuse', 'one document of many schedules', '{}'),
    ('keys', 500, 'entries', 'refuse', 'keys of one specification', '{}'),
    ('nesting', 16, 'levels', 'refuse', 'how deep JSON is nested', '{}'),
    -- Lists.
    ('device_list', 10000, 'entries', 'refuse', 'devices that one list names',
      '{profile_assignments.device_ids,schedules.device_ids}'),
    ('group_list', 100, 'entries', 'refuse', 'groups that one list names',
      '{enrollment_codes.group_ids,profile_assignments.group_ids,schedules.group_ids}'),
    ('rollout_groups', 50, 'entries', 'refuse', 'groups of a rollout', '{}'),
    ('abort_rules', 10, 'entries', 'refuse', 'rules that stop a rollout', '{}'),
    ('artifacts', 100, 'entries', 'refuse', 'files or packages of one deployment', '{}'),
    ('dependencies', 50, 'entries', 'refuse', 'packages that one package needs', '{software_packages.dependencies}'),
    ('tags', 100, 'entries', 'refuse', 'tags of a device', '{devices.tags,enrollment_codes.tags}'),
    ('words', 16384, 'bytes', 'refuse', 'tags and events together',
      '{devices.tags, enrollment_codes.tags, owner_invitations.permissions, owner_members.permissions,
        webhook_endpoints.events}'),
    ('apps', 500, 'entries', 'refuse', 'apps that one list names', '{app_categories.apps,geo_schedules.apps}'),
    ('blocklist', 10000, 'entries', 'refuse', 'entries of a blocklist of an owner', '{}'),
    ('categories', 50, 'entries', 'refuse', 'categories of apps that one list names', '{geo_schedules.categories}'),
    ('blocked_apps', 2000, 'entries', 'refuse', 'apps that one action blocks',
      '{geo_actions.apps,geo_schedules.blocked_apps}'),
    ('results', 100, 'entries', 'refuse', 'results that a device reports in one call', '{}'),
    ('weekdays', 7, 'entries', 'refuse', 'days of a week', '{geo_schedules.days}'),
    ('events', 50, 'entries', 'refuse', 'events that an endpoint asks for', '{webhook_endpoints.events}'),
    ('permissions', 10, 'entries', 'refuse', 'permissions of a member', '{owner_invitations.permissions,owner_members.permissions}'),
    ('selector_list', 100, 'entries', 'refuse', 'each list of a selector or a filter', '{}'),
    ('windows', 20, 'entries', 'refuse', 'execution windows of a schedule', '{}'),
    ('retry_classes', 20, 'entries', 'refuse', 'classes of failures that are tried again', '{}'),
    ('blackouts', 20, 'entries', 'refuse', 'blackout calendars of a schedule', '{}'),
    ('periods', 2000, 'entries', 'refuse', 'periods of a blackout calendar', '{}'),
    -- Paces and times.
    ('rate_per_second', 1000, 'calls a second', 'refuse', 'pace of an integration', '{}'),
    ('burst', 1000, 'calls', 'refuse', 'calls at once of an integration', '{}'),
    ('sync_interval', 2592000, 'seconds', 'refuse', 'pause between syncs of an integration', '{}'),
    ('horizon', 3653, 'days', 'refuse', 'how far ahead a command may wait or live', '{}')
$$;

comment on function fleet.limits() is
  'Every limit: its name, the most that is taken, in which unit (bytes of JSON are those that Postgres holds), whether what is over it is '
  'refused or cut, what it bounds, and the columns it holds for. All that people write is refused; reports are cut, with a mark.';
revoke all on function fleet.limits() from public, anon, authenticated, service_role;
grant execute on function fleet.limits() to authenticated, service_role;

create or replace function fleet.limit_values()
returns jsonb
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_object_agg(l.name, l.value) from fleet.limits() as l
$$;

comment on function fleet.limit_values() is
  'The most that is taken by the name of the limit: a constant, which Postgres works out once a plan.';
revoke all on function fleet.limit_values() from public, anon, authenticated, service_role;

create or replace function fleet.limit_value(p_name text)
returns bigint
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return (fleet.limit_values() -> p_name)::bigint;
end;
$$;

comment on function fleet.limit_value(text) is
  'The most that is taken, by the name of the limit; null where there is none of that name.';
revoke all on function fleet.limit_value(text) from public, anon, authenticated, service_role;

create or replace function fleet.limit_problem(p_field text, p_limit text, p_sent numeric)
returns setof fleet.problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_most bigint := fleet.limit_value(p_limit);
begin
  if p_sent <= v_most or p_sent is null then
    return;
  elsif v_most is null then
    return next (p_field, format('there is no limit "%s"', p_limit), 'See fleet.limits().')::fleet.problem;
    return;
  end if;

  return query
  select p_field,
    format(
      '%s %s %s; at most %s are taken', case when l.unit in ('characters', 'bytes', 'entries', 'levels') then 'has' else 'is' end,
      left(p_sent::text, 40), l.unit, l.value
    ),
    format('For %s the limit is %s %s.', l.bounds, l.value, l.unit)
  from fleet.limits() as l
  where l.name = p_limit;
end;
$$;

comment on function fleet.limit_problem(text, text, numeric) is
  'One row where what was sent is over a limit: the field, how much was sent and how much is taken.';
revoke all on function fleet.limit_problem(text, text, numeric) from public, anon, authenticated, service_role;

create or replace function fleet.list_problem(p_field text, p_limit text, p_list jsonb)
returns setof fleet.problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if jsonb_typeof(p_list) = 'array' then
    return query select q.* from fleet.limit_problem(p_field, p_limit, jsonb_array_length(p_list)) as q;
  end if;
end;
$$;

comment on function fleet.list_problem(text, text, jsonb) is 'One row where a value is a list that is longer than a limit.';
revoke all on function fleet.list_problem(text, text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.raise_broken_check(p_table text, p_rule text)
returns void
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  raise check_violation using
    message = format('new row for relation "%s" violates check constraint "%s_%s"', p_table, p_table, p_rule),
    schema = 'public', table = p_table, constraint = format('%s_%s', p_table, p_rule);
end;
$$;

comment on function fleet.raise_broken_check(text, text) is
  'Raise check_violation (23514) as Postgres does, for a rule of a check that holds several: the constraint is <table>_<rule>.';
revoke all on function fleet.raise_broken_check(text, text) from public, anon, authenticated, service_role;
grant execute on function fleet.raise_broken_check(text, text) to authenticated, service_role;

-- db/sources/00_platform/67_kept_limits.sql
-- How limits are kept: what is over one, and what of it is refused or cut.

create or replace function fleet.is_over_limit(p_value jsonb, p_bytes integer)
returns boolean
language plpgsql
immutable
strict
parallel safe
-- Asked for each row that holds JSON. Without settings, whose change would cost more than the answer, and so with every name qualified; not in
-- SQL, which each statement would take apart and plan anew.
as $$
begin
  -- One level more than the limit of nesting; what is this short cannot be as deep.
  return pg_catalog.pg_column_size(p_value) > p_bytes
    or (pg_catalog.pg_column_size(p_value) > 128 and pg_catalog.jsonb_path_exists(p_value, '$.**{17}'));
end;
$$;

comment on function fleet.is_over_limit(jsonb, integer) is
  'Whether JSON is longer than so many bytes, or nested too deep: asked for each row that holds some, by the triggers that are made from the limits.';
revoke all on function fleet.is_over_limit(jsonb, integer) from public, anon, authenticated, service_role;
-- Postgres asks it with the rights of whoever writes.
grant execute on function fleet.is_over_limit(jsonb, integer) to authenticated, service_role;

create or replace function fleet.is_too_deep(p_value jsonb)
returns boolean
language plpgsql
immutable
strict
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return fleet.is_over_limit(p_value, 2147483647);
end;
$$;

comment on function fleet.is_too_deep(jsonb) is
  'Whether JSON is nested deeper than programs can be trusted to read: parsers of JSON give up at some depth, and some of them badly.';
revoke all on function fleet.is_too_deep(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.limits_by_table()
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_object_agg(t.name, t.items)
  from (
    select split_part(c.name, '.', 1) as name,
      jsonb_agg(jsonb_build_object(
        'column', split_part(c.name, '.', 2), 'limit', l.name, 'value', l.value, 'unit', l.unit, 'over', l.over
      )) as items
    from fleet.limits() as l
    cross join lateral unnest(l.columns) as c(name)
    group by 1
  ) as t
$$;

comment on function fleet.limits_by_table() is
  'The limits of columns by table: {table: [{column, limit, value, unit, over}]}. A constant, which Postgres works out once a plan.';
revoke all on function fleet.limits_by_table() from public, anon, authenticated, service_role;

create or replace function fleet.row_limit_problems(p_table text, p_row jsonb)
returns setof fleet.problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select q.*
  from (
    select l.item ->> 'column' as field, l.item ->> 'limit' as name, (l.item ->> 'value')::bigint as value, v.item,
      case l.item ->> 'unit'
        when 'bytes' then pg_column_size(v.item)
        when 'characters' then length(v.item #>> '{}')
        else case jsonb_typeof(v.item) when 'array' then jsonb_array_length(v.item) end
      end as sent
    from jsonb_array_elements(fleet.limits_by_table() -> p_table) as l(item)
    cross join lateral (select p_row -> (l.item ->> 'column') as item) as v
    where l.item ->> 'over' = 'refuse'
  ) as s
  cross join lateral (
    select d.* from fleet.limit_problem(s.field, s.name, s.sent) as d
    union all
    select d.*
    from fleet.limit_problem(s.field, 'nesting', fleet.limit_value('nesting') + 1) as d
    where fleet.is_too_deep(s.item)
  ) as q
  where s.sent > s.value or fleet.is_too_deep(s.item);
end;
$$;

comment on function fleet.row_limit_problems(text, jsonb) is
  'Every column of a row, given as JSON, that holds more than its limit and is not simply cut; no row where none does.';
revoke all on function fleet.row_limit_problems(text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.require_size(p_what text, p_limit text, p_value jsonb)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Each key takes eight bytes at least.
  if pg_column_size(p_value) <= least(fleet.limit_value(p_limit), 8 * fleet.limit_value('keys')) then
    return;
  end if;
  perform fleet.raise_problems(p_what, 'limit_exceeded', array(
    select q from fleet.limit_problem(p_what, p_limit, pg_column_size(p_value)) as q
    union all
    select q
    from fleet.limit_problem(p_what, 'keys', (select count(*) from jsonb_object_keys(fleet.object_or_empty(p_value)))) as q
    where p_limit <> 'desired'
  ));
end;
$$;

comment on function fleet.require_size(text, text, jsonb) is
  'Raise limit_exceeded (PT422) where a value is larger than its limit: before anything is done with it.';
revoke all on function fleet.require_size(text, text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.cut_text(p_text text, p_characters bigint)
returns text
language sql
immutable
parallel safe
return case
  when octet_length(p_text) > p_characters and length(p_text) > p_characters
    then left(p_text, greatest(p_characters - 7, 0)::integer) || '… (cut)'
  else p_text
end;

comment on function fleet.cut_text(text, bigint) is 'The text, or its beginning and a mark where it is longer than that.';
revoke all on function fleet.cut_text(text, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.cut_json(p_value jsonb, p_bytes bigint)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_value is null or (pg_column_size(p_value) <= p_bytes and not fleet.is_too_deep(p_value)) then p_value
    when jsonb_typeof(p_value) <> 'object' or fleet.is_too_deep(p_value)
      then jsonb_build_object('cut', true, 'beginning', left(p_value #>> '{}', (p_bytes / 8)::integer))
    else (
      -- What is short stays whole: an exit code beside a long output. Of what is long, the beginning is kept.
      select coalesce(
          jsonb_object_agg(
            k.key,
            case
              when k.sum_before + k.size <= p_bytes / 2 then k.value
              else to_jsonb(left(k.value #>> '{}', (p_bytes / 16)::integer))
            end
          ) filter (where k.sum_before <= p_bytes / 2 and octet_length(k.key) <= 255),
          '{}'
        ) || '{"cut": true}'
      from (
        select e.key, e.value, s.size,
          sum(s.size) over (order by s.size, e.key rows between unbounded preceding and current row) - s.size as sum_before
        from jsonb_each(p_value) as e
        cross join lateral (select pg_column_size(e.value) + octet_length(e.key) + 8 as size) as s
      ) as k
    )
  end
$$;

comment on function fleet.cut_json(jsonb, bigint) is
  'The value, or what of it fits into so many bytes with "cut": true beside it: of an object its short values and the beginning of a long '
  'one, of anything else its beginning as text.';
revoke all on function fleet.cut_json(jsonb, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.cut_row(p_table text, p_row jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    jsonb_object_agg(
      l.item ->> 'column',
      case l.item ->> 'unit'
        when 'bytes' then fleet.cut_json(p_row -> (l.item ->> 'column'), (l.item ->> 'value')::bigint)
        else to_jsonb(fleet.cut_text(p_row ->> (l.item ->> 'column'), (l.item ->> 'value')::bigint))
      end
    ),
    '{}'
  )
  from jsonb_array_elements(fleet.limits_by_table() -> p_table) as l(item)
  where l.item ->> 'over' = 'cut'
$$;

comment on function fleet.cut_row(text, jsonb) is
  'The columns of a row, given as JSON, that are cut where they are too long, each as it fits.';
revoke all on function fleet.cut_row(text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.limit_condition(p_column text, p_type text, p_unit text, p_value bigint)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  -- As cheap and short as can be: these are asked for each row that is written. Some are called whose characters take many bytes,
  -- and are let go.
  select case
    when p_unit = 'entries' then format('cardinality(new.%I) > %s', p_column, p_value)
    when p_unit = 'characters' then format('octet_length(new.%I) > %s', p_column, p_value)
    when p_type = 'bytea' then format('octet_length(new.%I) > %s', p_column, p_value)
    when p_type = 'jsonb' then format('fleet.is_over_limit(new.%I, %s)', p_column, p_value)
    else format('pg_column_size(new.%I) > %s', p_column, p_value)
  end
$$;

comment on function fleet.limit_condition(text, text, text, bigint) is
  'When a column of a new row is over its limit, as the condition of a trigger.';
revoke all on function fleet.limit_condition(text, text, text, bigint) from public, anon, authenticated, service_role;

-- db/sources/00_platform/70_pokes.sql
-- Pokes: telling an HTTP function that there is work, with a signed token that lives for a minute. Losing one costs delay only.

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
  -- Functions that are up hear it at commit; however often it is said in a transaction, they hear it once.
  perform pg_notify('pgfleet_poke', p_function);
  if v_url is null or to_regproc('net.http_post') is null then
    return null;
  end if;

  select net.http_post(
    url => v_url || '/' || p_function,
    body => p_body,
    headers => jsonb_build_object(
      'Content-Type', 'application/json',
      'Authorization', 'Bearer ' || fleet.sign_poke(p_function, p_body::text, p_now)
    ),
    -- A poke is answered at once; pg_net makes all that it sends together wait for the slowest.
    timeout_milliseconds => 2000
  ) into v_request_id;
  return v_request_id;
end;
$$;

comment on function fleet.poke(text, jsonb, timestamptz) is
  'Tell an HTTP function that there is work: those that listen on channel pgfleet_poke hear its name at commit, and pg_net calls it. Answers '
  'the request of pg_net; null where pg_net or the setting functions_url is missing. Losing a poke costs one tick. Definer: it signs.';
revoke all on function fleet.poke(text, jsonb, timestamptz) from public, anon, authenticated, service_role;

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
  where k.function in (
    select x.function
    from fleet.pokes as x
    where x.function = p_name and (x.poked_at <= p_now - p_every or x.poked_at > p_now + interval '1 minute')
    for update skip locked
  );
  return found;
end;
$$;

comment on function fleet.pass_turnstile(text, interval, timestamptz) is
  'Whether this is the first call under a name for so long: what several tickers may want, and one shall do.';
revoke all on function fleet.pass_turnstile(text, interval, timestamptz) from public, anon, authenticated, service_role;

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

create or replace function fleet.set_ticking(p_is_ticking boolean)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform set_config('pgfleet.is_ticking', p_is_ticking::text, true);
end;
$$;

comment on function fleet.set_ticking(boolean) is 'Say that a tick begins, or ends, in this transaction. Called by the tick alone.';
revoke all on function fleet.set_ticking(boolean) from public, anon, authenticated, service_role;

create or replace function fleet.is_ticking()
returns boolean
language sql
stable
-- Whoever sets it in a session of their own only leaves their rings to the tick.
return coalesce(current_setting('pgfleet.is_ticking', true) = 'true', false);

comment on function fleet.is_ticking() is
  'Whether what happens is done by a tick, and not by somebody who waits for it: triggers leave rings and pokes to its pace.';
revoke all on function fleet.is_ticking() from public, anon, authenticated, service_role;

-- db/sources/00_platform/72_addresses.sql
-- Where calls may go: addresses that are well formed, and no way into the networks around the functions. What a name
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
  if v_parts is null or length(p_url) > fleet.limit_value('address') or v_host = '' or coalesce(v_parts[3], '443')::integer not between 1 and 65535 then
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

-- db/sources/00_platform/75_shares.sql
-- Shares of the work that a function may begin: how much in all, of one owner, and through one endpoint or integration.

create or replace function fleet.share_of(p_shares jsonb, p_kind text, p_id text)
returns integer
language sql
stable
parallel safe
return case
  -- Nothing goes out for an owner that is being moved to another database.
  when p_kind = 'owner' and exists (select 1 from fleet.owner_moves as m where m.owner_id::text = p_id) then 0
  else coalesce((p_shares -> (p_kind || 's') ->> p_id)::integer, (p_shares ->> p_kind)::integer, 100)
end;

comment on function fleet.share_of(jsonb, text, text) is
  'How much may be begun for an owner (p_kind owner) or through an endpoint or integration (p_kind way), by the shares that a claim says: '
  '{all, owner, way, owners, ways}, where owner and way hold for all that owners and ways do not name. Without them it is 100; for an owner that is being moved it is 0.';
revoke all on function fleet.share_of(jsonb, text, text) from public, anon, authenticated, service_role;

create or replace function fleet.share_in_all(p_shares jsonb)
returns integer
language sql
immutable
parallel safe
return least(greatest(coalesce((p_shares ->> 'all')::integer, 100), 0), 200);

comment on function fleet.share_in_all(jsonb) is 'How much may be begun in all, by the shares that a claim says; never more than 200.';
revoke all on function fleet.share_in_all(jsonb) from public, anon, authenticated, service_role;

-- db/sources/00_platform/80_time_zones.sql
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
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_name = 'UTC' then
    return true;
  end if;
  return exists (select 1 from fleet.time_zones as z where z.name = p_name);
end;
$$;

comment on function fleet.is_time_zone(text) is
  'Whether this is the exact name of a known IANA zone. Definer: triggers ask it on behalf of anybody.';
revoke all on function fleet.is_time_zone(text) from public, anon, authenticated, service_role;

-- db/sources/00_platform/81_zone_names.sql
-- Other names of time zones.

create or replace function fleet.zone_aliases()
returns jsonb
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  -- The links of IANA's "backward" file, which some systems keep in a package of its own, and a few names that are newer than
  -- the zones of an old server.
  select '{
    "Africa/Asmera": "Africa/Nairobi", "Africa/Timbuktu": "Africa/Abidjan",
    "America/Argentina/ComodRivadavia": "America/Argentina/Catamarca", "America/Atka": "America/Adak",
    "America/Buenos_Aires": "America/Argentina/Buenos_Aires", "America/Catamarca": "America/Argentina/Catamarca",
    "America/Ciudad_Juarez": "America/Denver", "America/Coral_Harbour": "America/Panama",
    "America/Cordoba": "America/Argentina/Cordoba", "America/Coyhaique": "America/Santiago",
    "America/Ensenada": "America/Tijuana", "America/Fort_Wayne": "America/Indiana/Indianapolis",
    "America/Godthab": "America/Nuuk", "America/Indianapolis": "America/Indiana/Indianapolis",
    "America/Jujuy": "America/Argentina/Jujuy", "America/Knox_IN": "America/Indiana/Knox",
    "America/Kralendijk": "America/Puerto_Rico", "America/Louisville": "America/Kentucky/Louisville",
    "America/Lower_Princes": "America/Puerto_Rico", "America/Marigot": "America/Puerto_Rico",
    "America/Mendoza": "America/Argentina/Mendoza", "America/Montreal": "America/Toronto",
    "America/Nipigon": "America/Toronto", "America/Nuuk": "America/Godthab", "America/Pangnirtung": "America/Iqaluit",
    "America/Porto_Acre": "America/Rio_Branco", "America/Rainy_River": "America/Winnipeg",
    "America/Rosario": "America/Argentina/Cordoba", "America/Santa_Isabel": "America/Tijuana",
    "America/Shiprock": "America/Denver", "America/St_Barthelemy": "America/Puerto_Rico",
    "America/Thunder_Bay": "America/Toronto", "America/Virgin": "America/Puerto_Rico",
    "America/Yellowknife": "America/Edmonton", "Antarctica/South_Pole": "Pacific/Auckland",
    "Arctic/Longyearbyen": "Europe/Berlin", "Asia/Ashkhabad": "Asia/Ashgabat", "Asia/Calcutta": "Asia/Kolkata",
    "Asia/Choibalsan": "Asia/Ulaanbaatar", "Asia/Chongqing": "Asia/Shanghai", "Asia/Chungking": "Asia/Shanghai",
    "Asia/Dacca": "Asia/Dhaka", "Asia/Harbin": "Asia/Shanghai", "Asia/Ho_Chi_Minh": "Asia/Saigon",
    "Asia/Istanbul": "Europe/Istanbul", "Asia/Kashgar": "Asia/Urumqi", "Asia/Kathmandu": "Asia/Katmandu",
    "Asia/Katmandu": "Asia/Kathmandu", "Asia/Kolkata": "Asia/Calcutta", "Asia/Macao": "Asia/Macau",
    "Asia/Qostanay": "Asia/Almaty", "Asia/Rangoon": "Asia/Yangon", "Asia/Saigon": "Asia/Ho_Chi_Minh",
    "Asia/Tel_Aviv": "Asia/Jerusalem", "Asia/Thimbu": "Asia/Thimphu", "Asia/Ujung_Pandang": "Asia/Makassar",
    "Asia/Ulan_Bator": "Asia/Ulaanbaatar", "Asia/Yangon": "Asia/Rangoon", "Atlantic/Faeroe": "Atlantic/Faroe",
    "Atlantic/Faroe": "Atlantic/Faeroe", "Atlantic/Jan_Mayen": "Europe/Berlin", "Australia/ACT": "Australia/Sydney",
    "Australia/Canberra": "Australia/Sydney", "Australia/Currie": "Australia/Hobart",
    "Australia/LHI": "Australia/Lord_Howe", "Australia/NSW": "Australia/Sydney", "Australia/North": "Australia/Darwin",
    "Australia/Queensland": "Australia/Brisbane", "Australia/South": "Australia/Adelaide",
    "Australia/Tasmania": "Australia/Hobart", "Australia/Victoria": "Australia/Melbourne",
    "Australia/West": "Australia/Perth", "Australia/Yancowinna": "Australia/Broken_Hill",
    "Brazil/Acre": "America/Rio_Branco", "Brazil/DeNoronha": "America/Noronha", "Brazil/East": "America/Sao_Paulo",
    "Brazil/West": "America/Manaus", "Canada/Atlantic": "America/Halifax", "Canada/Central": "America/Winnipeg",
    "Canada/Eastern": "America/Toronto", "Canada/Mountain": "America/Edmonton",
    "Canada/Newfoundland": "America/St_Johns", "Canada/Pacific": "America/Vancouver",
    "Canada/Saskatchewan": "America/Regina", "Canada/Yukon": "America/Whitehorse",
    "Chile/Continental": "America/Santiago", "Chile/EasterIsland": "Pacific/Easter", "Cuba": "America/Havana",
    "Egypt": "Africa/Cairo", "Eire": "Europe/Dublin", "Etc/GMT+0": "Etc/GMT", "Etc/GMT-0": "Etc/GMT",
    "Etc/GMT0": "Etc/GMT", "Etc/Greenwich": "Etc/GMT", "Etc/UCT": "Etc/UTC", "Etc/Universal": "Etc/UTC",
    "Etc/Zulu": "Etc/UTC", "Europe/Belfast": "Europe/London", "Europe/Bratislava": "Europe/Prague",
    "Europe/Busingen": "Europe/Zurich", "Europe/Kiev": "Europe/Kyiv", "Europe/Kyiv": "Europe/Kiev",
    "Europe/Mariehamn": "Europe/Helsinki", "Europe/Nicosia": "Asia/Nicosia", "Europe/Podgorica": "Europe/Belgrade",
    "Europe/San_Marino": "Europe/Rome", "Europe/Tiraspol": "Europe/Chisinau", "Europe/Uzhgorod": "Europe/Kyiv",
    "Europe/Vatican": "Europe/Rome", "Europe/Zaporozhye": "Europe/Kyiv", "GB": "Europe/London",
    "GB-Eire": "Europe/London", "GMT+0": "Etc/GMT", "GMT-0": "Etc/GMT", "GMT0": "Etc/GMT", "Greenwich": "Etc/GMT",
    "Hongkong": "Asia/Hong_Kong", "Iceland": "Africa/Abidjan", "Iran": "Asia/Tehran", "Israel": "Asia/Jerusalem",
    "Jamaica": "America/Jamaica", "Japan": "Asia/Tokyo", "Kwajalein": "Pacific/Kwajalein", "Libya": "Africa/Tripoli",
    "Mexico/BajaNorte": "America/Tijuana", "Mexico/BajaSur": "America/Mazatlan", "Mexico/General": "America/Mexico_City",
    "NZ": "Pacific/Auckland", "NZ-CHAT": "Pacific/Chatham", "Navajo": "America/Denver", "PRC": "Asia/Shanghai",
    "Pacific/Chuuk": "Pacific/Truk", "Pacific/Enderbury": "Pacific/Kanton", "Pacific/Johnston": "Pacific/Honolulu",
    "Pacific/Kanton": "Pacific/Enderbury", "Pacific/Pohnpei": "Pacific/Ponape", "Pacific/Ponape": "Pacific/Guadalcanal",
    "Pacific/Samoa": "Pacific/Pago_Pago", "Pacific/Truk": "Pacific/Port_Moresby", "Pacific/Yap": "Pacific/Port_Moresby",
    "Poland": "Europe/Warsaw", "Portugal": "Europe/Lisbon", "ROC": "Asia/Taipei", "ROK": "Asia/Seoul",
    "Singapore": "Asia/Singapore", "Turkey": "Europe/Istanbul", "UCT": "Etc/UTC", "US/Alaska": "America/Anchorage",
    "US/Aleutian": "America/Adak", "US/Arizona": "America/Phoenix", "US/Central": "America/Chicago",
    "US/East-Indiana": "America/Indiana/Indianapolis", "US/Eastern": "America/New_York", "US/Hawaii": "Pacific/Honolulu",
    "US/Indiana-Starke": "America/Indiana/Knox", "US/Michigan": "America/Detroit", "US/Mountain": "America/Denver",
    "US/Pacific": "America/Los_Angeles", "US/Samoa": "Pacific/Pago_Pago", "Universal": "Etc/UTC",
    "W-SU": "Europe/Moscow", "Zulu": "Etc/UTC"
  }'::jsonb
$$;

comment on function fleet.zone_aliases() is 'Other names of time zones: by the one name the other, with the same clocks.';
revoke all on function fleet.zone_aliases() from public, anon, authenticated, service_role;
grant execute on function fleet.zone_aliases() to authenticated, service_role;

-- db/sources/00_platform/85_names.sql
-- People write a name or an id; everything else wants the id.

create or replace function fleet.only_one(p_kind text, p_text text, p_named text[], p_numbered text, p_noun text default null)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if cardinality(p_named) > 1 then
    raise exception '% "%" is ambiguous: ids %', p_kind, left(p_text, 200), array_to_string(p_named[:20], ', ')
      using errcode = 'PT409',
            detail = replace(p_kind, ' ', '_') || '_ambiguous',
            hint = 'Name the id.';
  end if;

  if coalesce(p_named[1], p_numbered) is null then
    raise exception '% "%" was not found', p_kind, left(p_text, 200)
      using errcode = 'PT404',
            detail = replace(p_kind, ' ', '_') || '_not_found',
            hint = format('List what there is with: select * from %s_list', coalesce(p_noun, p_kind));
  end if;
  return coalesce(p_named[1], p_numbered);
end;
$$;

comment on function fleet.only_one(text, text, text[], text, text) is
  'What a text means, of the ids that have it as their name and the one that it is: a name wins over an id, but not over another name. '
  'Raises <kind>_ambiguous (PT409) or <kind>_not_found (PT404).';
revoke all on function fleet.only_one(text, text, text[], text, text) from public, anon, authenticated, service_role;
grant execute on function fleet.only_one(text, text, text[], text, text) to authenticated, service_role;

create or replace function fleet.unseen_characters()
returns text
language sql
immutable
parallel safe
return '\x01-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\U000e0000-\U000e007f';

comment on function fleet.unseen_characters() is
  'For the brackets of a regular expression: control characters but for tab and line feed, what is not seen at all, and what turns the '
  'direction of text, so that a name reads as another.';
revoke all on function fleet.unseen_characters() from public, anon, authenticated, service_role;

create or replace function fleet.has_unseen(p_text text)
returns boolean
language sql
immutable
parallel safe
return p_text ~ ('[\x09\x0a' || fleet.unseen_characters() || ']');

comment on function fleet.has_unseen(text) is 'Whether a text of one line holds a character that nobody sees, or that makes it look like another.';
revoke all on function fleet.has_unseen(text) from public, anon, authenticated, service_role;

-- db/sources/00_platform/90_comments.sql
-- What a column is, is said once: in the table that has it. A view over it says only what is its own.

create or replace function fleet.inherit_comments(p_view regclass, p_table regclass)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_column record;
begin
  for v_column in
    select a.attname, col_description(b.attrelid, b.attnum) as said
    from pg_attribute as a
    join pg_attribute as b on b.attrelid = p_table and b.attname = a.attname and b.attnum > 0 and not b.attisdropped
    where a.attrelid = p_view
      and a.attnum > 0
      and col_description(a.attrelid, a.attnum) is null
      and col_description(b.attrelid, b.attnum) is not null
  loop
    execute format('comment on column %s.%I is %L', p_view, v_column.attname, v_column.said);
  end loop;
end;
$$;

comment on function fleet.inherit_comments(regclass, regclass) is
  'Give the columns of a view that say nothing the comments of the columns of that name in a table. Called where the view is made.';
revoke all on function fleet.inherit_comments(regclass, regclass) from public, anon, authenticated, service_role;

-- db/sources/00_platform/views.sql
-- Settings as the service role lists them.

drop view if exists public.setting_list;
create view public.setting_list with (security_invoker = true) as
select d.name, fleet.setting(d.name) as value, d.value as default_value, d.description
from fleet.default_settings() as d;

comment on view public.setting_list is
  'Every setting of the engine with its value, its default and what it means. Change one with fleet.set_setting.';
comment on column public.setting_list.value is 'What holds now.';
comment on column public.setting_list.default_value is 'What holds where nobody has set it.';
revoke all on table public.setting_list from public, anon, authenticated, service_role;
grant select on table public.setting_list to service_role;

-- db/sources/00_platform/triggers.sql
-- Trigger functions that tables of every room use.

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
-- Without settings: to change one would take longer than to stamp a row.
as $$
begin
  new.updated_at := pg_catalog.now();
  return new;
end;
$$;

comment on function fleet.tg_set_updated_at() is 'Stamp updated_at.';
revoke all on function fleet.tg_set_updated_at() from public, anon, authenticated, service_role;

create or replace function fleet.tg_keep_limits()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row jsonb := to_jsonb(new);
begin
  perform fleet.raise_problems(
    format('what is written to %s', tg_table_name), 'limit_exceeded',
    array(select q from fleet.row_limit_problems(tg_table_name, v_row) as q)
  );
  new := jsonb_populate_record(new, fleet.cut_row(tg_table_name, v_row));
  return new;
end;
$$;

comment on function fleet.tg_keep_limits() is
  'Refuse a row that holds more than its limits, or cut what is only a report; called where one of them is passed. Definer: whoever may '
  'write the table may not call what it checks with.';
revoke all on function fleet.tg_keep_limits() from public, anon, authenticated, service_role;

-- Made from the table of limits, so that each number is written once: one trigger a table, and one for what is only a report, which
-- is written far more often. Postgres reads their conditions anew in each statement.
do $$
declare
  v_table record;
begin
  for v_table in
    select g.*,
      g.relname
        || case when g.over = 'cut' and count(*) over (partition by g.name) > 1 then '_09_keep_reports' else '_09_keep_limits' end
        as trigger
    from (
      select c.oid::regclass as name, c.relname, l.over, string_agg(distinct quote_ident(a.attname), ', ') as columns,
        string_agg(
          '(' || fleet.limit_condition(a.attname::text, format_type(a.atttypid, null), l.unit, l.value) || ')', ' or '
          order by a.attnum, l.name
        ) as condition
      from fleet.limits() as l
      cross join lateral unnest(l.columns) as k(name)
      join pg_class as c on c.relname = split_part(k.name, '.', 1) and c.relkind in ('r', 'p')
        and c.relnamespace in ('public'::regnamespace, 'fleet'::regnamespace)
      join pg_attribute as a on a.attrelid = c.oid and a.attname = split_part(k.name, '.', 2)
      group by c.oid, c.relname, l.over
    ) as g
  loop
    execute format(
      'create or replace trigger %I before insert or update of %s on %s for each row when (%s) execute function fleet.tg_keep_limits()',
      v_table.trigger, v_table.columns, v_table.name, v_table.condition
    );
  end loop;
end;
$$;

-- db/sources/00_platform/access.sql
-- Who may name what is in the engine room; on its tables nobody has a right.

grant usage on schema fleet to authenticated, service_role;

revoke all on table fleet.pokes from public, anon, authenticated, service_role;

-- Also here and not in its migration alone: a restore makes it anew, under the default privileges of the project.
revoke all on table public.pg_cron_secrets from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.pg_cron_secrets to service_role;

set check_function_bodies = on;
reset search_path;
