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
