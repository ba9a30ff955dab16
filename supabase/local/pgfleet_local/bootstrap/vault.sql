-- A stand-in for supabase_vault: the same names, arguments and grants, the secrets encrypted with a
-- key that lies in the same database. It keeps the manners, not the secrets.

create table pgfleet_local.vault_key (key text not null);

insert into pgfleet_local.vault_key (key)
values (encode(extensions.gen_random_bytes(32), 'hex'));

create table vault.secrets (
  id uuid primary key default gen_random_uuid(),
  name text,
  description text not null default '',
  secret text not null,
  key_id uuid,
  nonce bytea default extensions.gen_random_bytes(24),
  created_at timestamptz not null default current_timestamp,
  updated_at timestamptz not null default current_timestamp
);

comment on table vault.secrets is 'Secrets, encrypted.';

create unique index secrets_name_idx on vault.secrets (name) where name is not null;

create view vault.decrypted_secrets as
select
  s.id,
  s.name,
  s.description,
  s.secret,
  extensions.pgp_sym_decrypt(decode(s.secret, 'base64'), k.key) as decrypted_secret,
  s.key_id,
  s.nonce,
  s.created_at,
  s.updated_at
from vault.secrets as s
cross join pgfleet_local.vault_key as k;

create function vault.create_secret(
  new_secret text,
  new_name text default null,
  new_description text default '',
  new_key_id uuid default null
)
returns uuid
language sql
volatile
security definer
set search_path = ''
as $$
  insert into vault.secrets (secret, name, description, key_id)
  select
    encode(extensions.pgp_sym_encrypt(new_secret, k.key), 'base64'),
    new_name,
    new_description,
    new_key_id
  from pgfleet_local.vault_key as k
  returning id
$$;

create function vault.update_secret(
  secret_id uuid,
  new_secret text default null,
  new_name text default null,
  new_description text default null,
  new_key_id uuid default null
)
returns void
language sql
volatile
security definer
set search_path = ''
as $$
  update vault.secrets as s
  set secret = coalesce(encode(extensions.pgp_sym_encrypt(new_secret, k.key), 'base64'), s.secret),
    name = coalesce(new_name, s.name),
    description = coalesce(new_description, s.description),
    key_id = coalesce(new_key_id, s.key_id),
    updated_at = now()
  from pgfleet_local.vault_key as k
  where s.id = secret_id
$$;

revoke all on function vault.create_secret(text, text, text, uuid) from public;
revoke all on function vault.update_secret(uuid, text, text, text, uuid) from public;
grant execute on function vault.create_secret(text, text, text, uuid) to service_role;
grant execute on function vault.update_secret(uuid, text, text, text, uuid) to service_role;
grant execute on function vault.create_secret(text, text, text, uuid)
  to postgres with grant option;
grant execute on function vault.update_secret(uuid, text, text, text, uuid)
  to postgres with grant option;
grant select, delete on vault.secrets, vault.decrypted_secrets to service_role;
grant select, delete on vault.secrets, vault.decrypted_secrets to postgres with grant option;
