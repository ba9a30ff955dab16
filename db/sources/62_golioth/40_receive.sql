-- What is pushed: who may, stored before it is answered, and the same message once.

create or replace function fleet.signature_problem(p_secret text, p_signed jsonb, p_body text, p_now timestamptz)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_time text := p_signed ->> 'timestamp';
  v_wanted text;
begin
  if p_secret is null or coalesce(p_signed ->> 'id', '') = '' or coalesce(p_signed ->> 'signatures', '') = '' then
    return 'webhook_signature_missing';
  elsif coalesce(v_time, '') !~ '^\d{1,12}$' then
    return 'webhook_signature_refused';
  end if;

  v_wanted := 'v1,' || replace(encode(
    fleet.hmac_sha256(
      convert_to((p_signed ->> 'id') || '.' || v_time || '.' || p_body, 'UTF8'), decode(regexp_replace(p_secret, '^whsec_', ''), 'base64')
    ), 'base64'
  ), E'\n', '');
  -- Hashed again, so that how long it takes to compare tells nothing of how far they agree. Some put commas between them.
  if not exists (
    select 1
    from regexp_split_to_table(p_signed ->> 'signatures', ' +') as s(one)
    where sha256(convert_to(rtrim(s.one, ','), 'UTF8')) = sha256(convert_to(v_wanted, 'UTF8'))
  ) then
    return 'webhook_signature_refused';
  elsif abs(extract(epoch from p_now) - v_time::bigint) > 300 then
    return 'webhook_timestamp_refused';
  end if;
  return null;
end;
$$;

comment on function fleet.signature_problem(text, jsonb, text, timestamptz) is
  'What is wrong with a signature by Standard Webhooks, {id, timestamp, signatures}; null where nothing is. Any one of several is enough, and '
  'the time may be five minutes off.';
revoke all on function fleet.signature_problem(text, jsonb, text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_receive_webhooks(p_messages jsonb, p_now timestamptz default clock_timestamp())
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  v_answers jsonb;
begin
  with given as materialized (
    select m.nr, m.item, w.id as webhook_id, w.integration_id, w.owner_id, i.integration_type,
      case
        when w.id is null then 'integration_webhook_not_found'
        when fleet.is_moving(w.owner_id) then 'owner_moving'
        when fleet.is_used_up(w.owner_id, 'telemetry_a_day', p_now) then 'quota_exceeded'
        when i.integration_type <> 'golioth' then 'other'
        when w.is_signed then fleet.signature_problem(
          fleet.stored_secret('webhook:' || w.id), m.item -> 'signed', m.item ->> 'body', p_now
        )
      end as problem
    from jsonb_array_elements(p_messages) with ordinality as m(item, nr)
    left join public.integration_webhooks as w
      on w.token_hash = fleet.hash_secret(m.item ->> 'token') and w.revoked_at is null
    left join public.device_integrations as i on i.id = w.integration_id
  ),
  used as (
    -- They may come often; a write each time would be waste.
    update public.integration_webhooks as w
    set last_used_at = p_now
    where w.id in (select g.webhook_id from given as g where g.problem is null)
      and (w.last_used_at is null or w.last_used_at < p_now - interval '1 minute')
  ),
  stored as (
    insert into fleet.webhook_inbox as b (
      owner_id, integration_id, message_key, external_id, path, at, digest, data, received_at
    )
    select distinct on (g.integration_id, g.item ->> 'key')
      g.owner_id, g.integration_id, decode(g.item ->> 'key', 'hex'), left(g.item ->> 'external_id', 255),
      left(g.item ->> 'path', 255),
      (g.item ->> 'at')::timestamptz, (g.item ->> 'digest')::uuid, g.item -> 'data', p_now
    from given as g
    where g.problem is null and g.item ->> 'problem' is null
    order by g.integration_id, g.item ->> 'key', g.nr
    on conflict (integration_id, message_key) do nothing
    returning b.integration_id, b.message_key, b.owner_id
  ),
  counted as materialized (
    select fleet.take_quota(c.owner_id, 'telemetry_a_day', c.n, p_now)
    from (select s.owner_id, count(*) as n from stored as s group by s.owner_id order by s.owner_id) as c
  )
  select coalesce(jsonb_agg(coalesce(
      to_jsonb(g.problem),
      case when g.item ->> 'problem' is not null then '"webhook_invalid"'::jsonb end,
      case when s.message_key is null then '"known"'::jsonb else '"stored"' end
    ) order by g.nr), '[]')
  into v_answers
  from given as g
  -- Asked for, so that it is done.
  join (select count(*) as n from counted) as c on c.n >= 0
  left join stored as s on s.integration_id = g.integration_id and encode(s.message_key, 'hex') = g.item ->> 'key';
  return v_answers;
end;
$$;

comment on function fleet.worker_receive_webhooks(jsonb, timestamptz) is
  'Store pushed messages, each {token, key, external_id, path, at, digest, data} and for signed ones {signed, body}: for each in its order '
  'stored, known (a replay), other (an integration whose webhooks another function takes), or why it is refused. Definer: the token alone '
  'says whose it is.';
revoke all on function fleet.worker_receive_webhooks(jsonb, timestamptz) from public, anon, authenticated, service_role;
