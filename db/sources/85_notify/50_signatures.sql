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
  insert into fleet.webhook_secrets (endpoint_id, owner_id, key, created_at)
  select e.id, e.owner_id, v_key, clock_timestamp() from public.webhook_endpoints as e where e.id = p_endpoint_id;
  return fleet.webhook_secret_text(v_key);
end;
$$;

comment on function fleet.make_webhook_secret(bigint) is 'Give an endpoint one more secret, and answer it as text.';
revoke all on function fleet.make_webhook_secret(bigint) from public, anon, authenticated, service_role;
