-- What else the MDM function tells the database: calls, refused secrets, devices.

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
  insert into public.mdm_api_logs (
    owner_id, integration_id, command_id, attempt, method, url, status, duration_ms, request_body, response_body, error, created_at
  )
  select i.owner_id, i.id, k.command_id, k.attempt, coalesce(k.method, 'GET'),
    fleet.without_secret(k.url, s.secret), k.status, k.duration_ms, left(fleet.without_secret(k.request_body, s.secret), 10000),
    left(fleet.without_secret(k.response_body, s.secret), 10000), left(fleet.without_secret(k.error, s.secret), 2000),
    coalesce(k.at, clock_timestamp())
  from jsonb_to_recordset(p_calls) as k (
    integration_id bigint, command_id bigint, attempt integer, method text, url text, status integer, duration_ms numeric,
    request_body text, response_body text, error text, at timestamptz
  )
  join public.device_integrations as i on i.id = k.integration_id
  left join public.pg_cron_secrets as s on s.name = 'integration:' || i.id;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.worker_log_mdm_calls(jsonb) is
  'Write calls to the log: a list of {integration_id, command_id, attempt, method, url, status, duration_ms, request_body, response_body, '
  'error, at}. The secret is taken out wherever it appears. Answers how many. Definer: the worker writes no table.';
revoke all on function fleet.worker_log_mdm_calls(jsonb) from public, anon, authenticated, service_role;

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
