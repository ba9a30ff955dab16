-- Pausing, resuming, syncing and removing an integration, and replacing its secret.

create or replace function public.set_integration_secret(p_integration_id bigint, p_secret text)
returns public.device_integrations
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.set_integration_secret(p_integration_id, p_secret)
$$;

comment on function public.set_integration_secret(bigint, text) is
  'Set or replace the secret of an integration. One that was paused because its secret was refused goes on. Raises integration_not_found '
  '(PT404), permission_missing (PT403) or secret_missing (PT422).';
revoke all on function public.set_integration_secret(bigint, text) from public, anon, authenticated, service_role;
grant execute on function public.set_integration_secret(bigint, text) to authenticated, service_role;

create or replace function fleet.set_integration_secret(p_integration_id bigint, p_secret text)
returns public.device_integrations
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_integrations := fleet.integration_of_caller(p_integration_id);
begin
  if btrim(coalesce(p_secret, '')) = '' then
    raise exception 'the secret is blank'
      using errcode = 'PT422', detail = 'secret_missing', hint = 'Copy the API key from the settings of the other system.';
  end if;

  insert into public.pg_cron_secrets as s (name, secret)
  values ('integration:' || v_row.id, btrim(p_secret))
  on conflict (name) do update set secret = excluded.secret, updated_at = now();
  select i.* into v_row from public.device_integrations as i where i.id = p_integration_id;
  return v_row;
end;
$$;

comment on function fleet.set_integration_secret(bigint, text) is 'See public.set_integration_secret. Definer: it checks the caller.';
revoke all on function fleet.set_integration_secret(bigint, text) from public, anon, authenticated, service_role;
grant execute on function fleet.set_integration_secret(bigint, text) to authenticated, service_role;

create or replace function public.pause_integration(p_integration_id bigint, p_reason text default null)
returns public.device_integrations
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.set_integration_status(p_integration_id, 'paused', coalesce(p_reason, 'it was paused by hand'))
$$;

comment on function public.pause_integration(bigint, text) is
  'Call the other system no more until it is resumed; commands wait. Raises integration_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.pause_integration(bigint, text) from public, anon, authenticated, service_role;
grant execute on function public.pause_integration(bigint, text) to authenticated, service_role;

create or replace function public.resume_integration(p_integration_id bigint)
returns public.device_integrations
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.set_integration_status(p_integration_id, 'active', null)
$$;

comment on function public.resume_integration(bigint) is
  'Go on with what waits. Raises integration_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.resume_integration(bigint) from public, anon, authenticated, service_role;
grant execute on function public.resume_integration(bigint) to authenticated, service_role;

create or replace function fleet.set_integration_status(p_integration_id bigint, p_status text, p_reason text)
returns public.device_integrations
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_integrations := fleet.integration_of_caller(p_integration_id);
begin
  update public.device_integrations as i
  set status = p_status, status_reason = p_reason, needs_secret = false
  where i.id = v_row.id
  returning * into v_row;
  return v_row;
end;
$$;

comment on function fleet.set_integration_status(bigint, text, text) is
  'See public.pause_integration and public.resume_integration. Definer: it checks the caller.';
revoke all on function fleet.set_integration_status(bigint, text, text) from public, anon, authenticated, service_role;
grant execute on function fleet.set_integration_status(bigint, text, text) to authenticated, service_role;

create or replace function public.sync_integration(p_integration_id bigint)
returns public.device_integrations
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.sync_integration(p_integration_id, clock_timestamp())
$$;

comment on function public.sync_integration(bigint) is
  'Read the devices of the other system now; last_sync_at tells when it is done. Raises integration_not_found (PT404), permission_missing '
  '(PT403), integration_paused or integration_disabled (PT409).';
revoke all on function public.sync_integration(bigint) from public, anon, authenticated, service_role;
grant execute on function public.sync_integration(bigint) to authenticated, service_role;

create or replace function fleet.sync_integration(p_integration_id bigint, p_now timestamptz)
returns public.device_integrations
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_integrations := fleet.integration_of_caller(p_integration_id);
begin
  if v_row.status <> 'active' then
    raise exception 'integration % is %', p_integration_id, v_row.status
      using errcode = 'PT409',
            detail = 'integration_' || v_row.status,
            hint = format('Resume it: select resume_integration(%s)', p_integration_id);
  elsif fleet.stored_secret('integration:' || v_row.id) is null then
    raise exception 'integration "%" has no secret, and cannot be read', v_row.name
      using errcode = 'PT409', detail = 'integration_without_secret',
            hint = format('Give it its secret: select set_integration_secret(%s, ''<secret>'')', p_integration_id);
  end if;
  update public.device_integrations as i
  set sync_requested_at = p_now
  where i.id = v_row.id
  returning * into v_row;
  perform fleet.poke(fleet.function_of_integration(v_row.integration_type), jsonb_build_object('at', p_now), p_now);
  return v_row;
end;
$$;

comment on function fleet.sync_integration(bigint, timestamptz) is 'See public.sync_integration. Definer: it checks the caller.';
revoke all on function fleet.sync_integration(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.sync_integration(bigint, timestamptz) to authenticated, service_role;

create or replace function public.delete_integration(p_integration_id bigint)
returns bigint
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.delete_integration(p_integration_id)
$$;

comment on function public.delete_integration(bigint) is
  'Remove an integration with its secret and its links; the devices and the log of calls stay. Raises integration_not_found (PT404) or '
  'permission_missing (PT403).';
revoke all on function public.delete_integration(bigint) from public, anon, authenticated, service_role;
grant execute on function public.delete_integration(bigint) to authenticated, service_role;

create or replace function fleet.delete_integration(p_integration_id bigint)
returns bigint
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_integrations := fleet.integration_of_caller(p_integration_id);
begin
  delete from public.device_integrations as i where i.id = v_row.id;
  return v_row.id;
end;
$$;

comment on function fleet.delete_integration(bigint) is 'See public.delete_integration. Definer: it checks the caller.';
revoke all on function fleet.delete_integration(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.delete_integration(bigint) to authenticated, service_role;
