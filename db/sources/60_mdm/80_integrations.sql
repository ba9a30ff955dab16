-- Integrations: making them, giving them their secret, letting them rest.

create or replace function fleet.integration_problems(p_integration public.device_integrations)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select 'name', 'must not be blank', 'Give the integration a name.'
  where btrim(coalesce(p_integration.name, '')) = ''
  union all
  select 'name', format('"%s" is taken', p_integration.name), 'Choose another name.'
  where exists (
    select 1
    from public.device_integrations as i
    where i.owner_id = p_integration.owner_id
      and lower(i.name) = lower(p_integration.name)
      and i.id is distinct from p_integration.id
  )
  union all
  select 'integration_type', coalesce(format('"%s" is no name of a system', nullif(p_integration.integration_type, '')), 'is missing'),
    'Example: simplemdm'
  where coalesce(p_integration.integration_type, '') !~ '^[a-z][a-z0-9_]*$'
  union all
  select 'settings', 'must be an object', 'Example: {"rate_per_second": 5}'
  where jsonb_typeof(coalesce(p_integration.settings, 'null')) <> 'object'
  union all
  select 'settings.' || n.name, 'must be a number greater than zero', format('Example: {"%s": 5}', n.name)
  from unnest('{rate_per_second,burst,syncIntervalSeconds}'::text[]) as n(name)
  where p_integration.settings ? n.name
    and case jsonb_typeof(p_integration.settings -> n.name)
      when 'number' then (p_integration.settings ->> n.name)::numeric <= 0
      else true
    end
  union all
  select 'settings.' || k.key, 'looks like a secret', 'Set it with: pgfleet integration set-secret, or set_integration_secret()'
  from jsonb_object_keys(
    case jsonb_typeof(p_integration.settings) when 'object' then p_integration.settings else '{}' end
  ) as k(key)
  where k.key ~* '(secret|password|api_?key|token)$'
$$;

comment on function fleet.integration_problems(public.device_integrations) is
  'Everything that is wrong with an integration; no row where nothing is.';
revoke all on function fleet.integration_problems(public.device_integrations) from public, anon, authenticated, service_role;

create or replace function fleet.tg_check_integration()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.raise_problems('the integration', 'integration_invalid', array_agg(q))
  from fleet.integration_problems(new) as q;
  new.updated_at := now();
  if new.status = 'active' then
    new.status_reason := null;
    new.needs_secret := false;
  end if;
  return new;
end;
$$;

comment on function fleet.tg_check_integration() is
  'Refuse integrations that are not valid, and secrets among their settings. Definer: whoever may write the table may not call what it '
  'checks with.';
revoke all on function fleet.tg_check_integration() from public, anon, authenticated, service_role;

create or replace function fleet.tg_forget_integration()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from public.pg_cron_secrets as s where s.name = 'integration:' || old.id;
  return null;
end;
$$;

comment on function fleet.tg_forget_integration() is
  'The secret goes with its integration. Definer: whoever may delete the one may not read the other.';
revoke all on function fleet.tg_forget_integration() from public, anon, authenticated, service_role;

create or replace function fleet.tg_resume_integration()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  update public.device_integrations as i
  set status = 'active'
  where 'integration:' || i.id = new.name and i.status = 'paused' and i.needs_secret;
  -- Outside of the turnstile, as for new commands.
  perform fleet.poke('mdm-dispatch', jsonb_build_object('at', clock_timestamp()), clock_timestamp());
  return null;
end;
$$;

comment on function fleet.tg_resume_integration() is
  'An integration whose secret was refused goes on when it gets another. Definer: whoever writes secrets may not write integrations.';
revoke all on function fleet.tg_resume_integration() from public, anon, authenticated, service_role;

create or replace trigger device_integrations_01_fill_owner
  before insert on public.device_integrations
  for each row execute function fleet.tg_owner_from_caller();

create or replace trigger device_integrations_02_check
  before insert or update of name, integration_type, settings, status on public.device_integrations
  for each row execute function fleet.tg_check_integration();

create or replace trigger device_integrations_03_forget
  after delete on public.device_integrations
  for each row execute function fleet.tg_forget_integration();

create or replace trigger pg_cron_secrets_01_resume_insert
  after insert on public.pg_cron_secrets
  for each row when (new.name like 'integration:%') execute function fleet.tg_resume_integration();

create or replace trigger pg_cron_secrets_01_resume_update
  after update of secret on public.pg_cron_secrets
  for each row
  when (new.name like 'integration:%' and new.secret is distinct from old.secret)
  execute function fleet.tg_resume_integration();

create or replace function fleet.integration_of_caller(p_integration_id bigint)
returns public.device_integrations
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_integrations;
begin
  select i.* into v_row
  from public.device_integrations as i
  where i.id = p_integration_id and fleet.is_visible_owner(i.owner_id)
  for update;
  if not found then
    perform fleet.raise_not_found(format('integration %s', p_integration_id));
  end if;
  perform fleet.require_permission(v_row.owner_id, 'manage', format('integration %s', p_integration_id));
  return v_row;
end;
$$;

comment on function fleet.integration_of_caller(bigint) is
  'The integration, locked, if the caller manages it. Raises integration_not_found (PT404) or permission_missing (PT403).';
revoke all on function fleet.integration_of_caller(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.create_integration(p_spec jsonb, p_secret text)
returns public.device_integrations
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid;
  v_row public.device_integrations;
  v_strange text;
begin
  if jsonb_typeof(p_spec) is distinct from 'object' then
    raise exception 'an integration must be a JSON object'
      using errcode = 'PT422',
            detail = 'integration_invalid',
            hint = 'Example: {"name": "office", "integration_type": "simplemdm"}';
  end if;
  select min(k) into v_strange
  from jsonb_object_keys(p_spec) as k
  where k <> all ('{name,integration_type,settings,owner_id}'::text[]);
  if v_strange is not null then
    raise exception 'the integration is not valid: %: is not known', v_strange
      using errcode = 'PT422',
            detail = 'integration_invalid',
            hint = 'Known are name, integration_type, settings and owner_id; the secret is an argument of its own.';
  end if;

  v_owner := fleet.owner_or_own(fleet.try_uuid(p_spec ->> 'owner_id'));
  perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
  insert into public.device_integrations as i (owner_id, name, integration_type, settings, created_by)
  values (
    v_owner, coalesce(p_spec ->> 'name', p_spec ->> 'integration_type', ''), coalesce(p_spec ->> 'integration_type', ''),
    coalesce(p_spec -> 'settings', '{}'), fleet.current_user_id()
  )
  returning * into v_row;
  if p_secret is not null then
    v_row := fleet.set_integration_secret(v_row.id, p_secret);
  end if;
  return v_row;
end;
$$;

comment on function fleet.create_integration(jsonb, text) is 'See public.create_integration. Definer: it checks the caller.';
revoke all on function fleet.create_integration(jsonb, text) from public, anon, authenticated, service_role;
grant execute on function fleet.create_integration(jsonb, text) to authenticated, service_role;

create or replace function public.create_integration(p_spec jsonb, p_secret text default null)
returns public.device_integrations
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.create_integration(p_spec, p_secret)
$$;

comment on function public.create_integration(jsonb, text) is
  'Connect another system: {"name", "integration_type": "simplemdm", "settings": {"base_url", "rate_per_second", "burst", "syncEnabled", '
  '"syncIntervalSeconds"}, "owner_id"}, and its secret, which nobody can read back. Raises integration_invalid (PT422) or '
  'permission_missing (PT403).';
revoke all on function public.create_integration(jsonb, text) from public, anon, authenticated, service_role;
grant execute on function public.create_integration(jsonb, text) to authenticated, service_role;

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
  end if;
  update public.device_integrations as i
  set sync_requested_at = p_now
  where i.id = v_row.id
  returning * into v_row;
  perform fleet.poke('mdm-dispatch', jsonb_build_object('at', p_now), p_now);
  return v_row;
end;
$$;

comment on function fleet.sync_integration(bigint, timestamptz) is 'See public.sync_integration. Definer: it checks the caller.';
revoke all on function fleet.sync_integration(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.sync_integration(bigint, timestamptz) to authenticated, service_role;

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
