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
