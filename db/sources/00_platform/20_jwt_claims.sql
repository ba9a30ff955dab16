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
