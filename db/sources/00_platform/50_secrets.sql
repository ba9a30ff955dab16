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
