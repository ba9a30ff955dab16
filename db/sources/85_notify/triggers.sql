-- What holds for endpoints however a row is written.

create or replace function fleet.tg_check_webhook_endpoint()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.raise_problems('the endpoint', 'webhook_endpoint_invalid', array_agg(q))
  from fleet.endpoint_problems(new) as q;
  new.updated_at := now();
  if new.enabled then
    new.disabled_reason := null;
  else
    new.disabled_reason := coalesce(new.disabled_reason, 'it was disabled by hand');
  end if;
  return new;
end;
$$;

comment on function fleet.tg_check_webhook_endpoint() is
  'Refuse endpoints that are not valid. Definer: whoever may write the table may not call what it checks with.';
revoke all on function fleet.tg_check_webhook_endpoint() from public, anon, authenticated, service_role;

create or replace function fleet.tg_make_webhook_secret()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.make_webhook_secret(new.id);
  return null;
end;
$$;

comment on function fleet.tg_make_webhook_secret() is
  'Give every webhook a secret: nothing leaves unsigned. Definer: nobody else writes secrets.';
revoke all on function fleet.tg_make_webhook_secret() from public, anon, authenticated, service_role;

create or replace function fleet.tg_end_deliveries()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  update public.webhook_deliveries as d
  set status = 'failed', next_attempt_at = null, finished_at = clock_timestamp(), last_error = 'the endpoint is disabled'
  where d.endpoint_id = new.id and d.status = 'pending';
  return null;
end;
$$;

comment on function fleet.tg_end_deliveries() is
  'End what waits for an endpoint that is disabled; it can be sent again later. Definer: nobody else writes deliveries.';
revoke all on function fleet.tg_end_deliveries() from public, anon, authenticated, service_role;

create or replace trigger webhook_endpoints_01_fill_owner
  before insert on public.webhook_endpoints
  for each row execute function fleet.tg_owner_from_caller();

create or replace trigger webhook_endpoints_02_check
  before insert or update on public.webhook_endpoints
  for each row execute function fleet.tg_check_webhook_endpoint();

create or replace trigger webhook_endpoints_03_make_secret
  after insert on public.webhook_endpoints
  for each row
  when (new.channel = 'webhook')
  execute function fleet.tg_make_webhook_secret();

create or replace trigger webhook_endpoints_04_end_deliveries
  after update of enabled on public.webhook_endpoints
  for each row
  when (old.enabled and not new.enabled)
  execute function fleet.tg_end_deliveries();
