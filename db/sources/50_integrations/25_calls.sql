-- The log of calls to other systems, and the secrets that those refuse.

create or replace function fleet.without_secret(p_text text, p_secret text)
returns text
language sql
-- Not immutable, as convert_to is not: Postgres would not put it in place then, and plan it anew for each call that is logged.
stable
return case
  when coalesce(length(p_secret), 0) < 4 then p_text
  else replace(
    replace(p_text, p_secret, '***'),
    -- As in an Authorization header, where the secret is the user and there is no password.
    replace(encode(convert_to(p_secret || ':', 'UTF8'), 'base64'), E'\n', ''), '***'
  )
end;

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
  left join lateral (select fleet.stored_secret('integration:' || i.id) as secret) as s on true
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
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Nearly each has made a call.
  if not exists (select 1 from public.mdm_api_logs as l where l.command_id = p_command.id and l.attempt = p_command.attempt) then
    insert into public.mdm_api_logs (owner_id, integration_id, command_id, attempt, error, created_at)
    values (
      p_command.owner_id, p_integration_id, p_command.id, p_command.attempt,
      left(fleet.without_secret(p_error, fleet.stored_secret('integration:' || p_integration_id)), 2000), p_now
    );
  end if;
end;
$$;

comment on function fleet.log_callless(public.device_commands, bigint, text, timestamptz) is
  'Log an attempt that came to no call; nothing where it made one.';
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
  set error = 'the function stopped before it wrote down an answer'
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
  'Log how the attempts of functions that were killed ended: before a call, or before its answer.';
revoke all on function fleet.log_unanswered(bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_pause_integration(p_integration_id bigint, p_reason text, p_secret_hash bytea)
returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_secret text := fleet.stored_secret('integration:' || p_integration_id);
begin
  -- Another one came while this was refused: it has not been tried yet.
  if fleet.hash_secret(v_secret) is distinct from p_secret_hash then
    return false;
  end if;
  update public.device_integrations as i
  set status = 'paused', needs_secret = true, sync_held_until = null, status_reason = fleet.without_secret(p_reason, v_secret)
  where i.id = p_integration_id and i.status = 'active';
  return true;
end;
$$;

comment on function fleet.worker_pause_integration(bigint, text, bytea) is
  'The other side refuses the secret of this SHA-256, or there is none: everything waits until it is replaced. Answers false where it has been '
  'replaced already, and nothing waits. Definer: the worker writes no table.';
revoke all on function fleet.worker_pause_integration(bigint, text, bytea) from public, anon, authenticated, service_role;
