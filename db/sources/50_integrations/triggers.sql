-- What holds for integrations and their secrets however a row is written.

create or replace trigger device_integrations_01_fill_owner
  before insert on public.device_integrations
  for each row execute function fleet.tg_owner_from_caller();

create or replace function fleet.tg_check_integration()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- One that was made before there was a rule still pauses and goes on.
  if tg_op = 'INSERT' or (new.name, new.integration_type, new.settings) is distinct from (old.name, old.integration_type, old.settings) then
    perform fleet.raise_problems('the integration', 'integration_invalid', array_agg(q))
    from fleet.integration_problems(new) as q;
  end if;
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

create or replace trigger device_integrations_02_check
  before insert or update of name, integration_type, settings, status on public.device_integrations
  for each row execute function fleet.tg_check_integration();

create or replace function fleet.tg_forget_integration()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from public.pg_cron_secrets as s where s.name = 'integration:' || old.id;
  delete from public.pg_cron_secrets as s
  where s.name in (select 'webhook:' || w.id from public.integration_webhooks as w where w.integration_id = old.id);
  return old;
end;
$$;

comment on function fleet.tg_forget_integration() is
  'The secret goes with its integration. Definer: whoever may delete the one may not read the other.';
revoke all on function fleet.tg_forget_integration() from public, anon, authenticated, service_role;

drop trigger if exists device_integrations_03_forget on public.device_integrations;
create or replace trigger device_integrations_05_forget
  before delete on public.device_integrations
  for each row execute function fleet.tg_forget_integration();

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
  perform fleet.poke(f.name, jsonb_build_object('at', clock_timestamp()), clock_timestamp())
  from public.device_integrations as i
  cross join lateral fleet.function_of_integration(i.integration_type) as f(name)
  where 'integration:' || i.id = new.name;
  return null;
end;
$$;

comment on function fleet.tg_resume_integration() is
  'An integration whose secret was refused goes on when it gets another. Definer: whoever writes secrets may not write integrations.';
revoke all on function fleet.tg_resume_integration() from public, anon, authenticated, service_role;

create or replace trigger pg_cron_secrets_01_resume_insert
  after insert on public.pg_cron_secrets
  for each row when (new.name like 'integration:%') execute function fleet.tg_resume_integration();
create or replace trigger pg_cron_secrets_01_resume_update
  after update of secret on public.pg_cron_secrets
  for each row
  when (new.name like 'integration:%' and new.secret is distinct from old.secret)
  execute function fleet.tg_resume_integration();

-- What people change, not how each sync went.
select fleet.keep_audit(
  'public.device_integrations', p_columns => '{name,integration_type,status,status_reason,settings}'
);
select fleet.keep_audit('public.integration_webhooks', p_columns => '{revoked_at}');

select fleet.keep_quota('public.device_integrations', 'integrations');
