-- What holds for rules however a row is written.

create or replace function fleet.tg_prepare_telemetry_rule()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  new.owner_id := fleet.owner_or_own(new.owner_id);
  perform fleet.require_permission(new.owner_id, 'manage', format('owner %s', new.owner_id));
  if tg_op = 'INSERT' then
    new.created_by := fleet.current_user_id();
  end if;

  perform fleet.require_destructive(new.owner_id, new.action_type);
  perform fleet.raise_problems('the telemetry rule', 'telemetry_rule_invalid', array_agg(q))
  from fleet.telemetry_rule_problems(new) as q;
  new.updated_at := now();
  return new;
end;
$$;

comment on function fleet.tg_prepare_telemetry_rule() is
  'Check a rule however it is written. Raises telemetry_rule_invalid (PT422, PT404). Definer: it checks the caller, then sees what the checks '
  'need to see.';
revoke all on function fleet.tg_prepare_telemetry_rule() from public, anon, authenticated, service_role;

create or replace trigger telemetry_rules_01_prepare
  before insert or update of owner_id, name, condition, clear_at, cooldown, group_id, selector, action, action_type, payload, priority, is_enabled
  on public.telemetry_rules
  for each row execute function fleet.tg_prepare_telemetry_rule();

select fleet.keep_used_types('public.telemetry_rules', 'array[x.action_type]');

-- What people want of it, not what it did.
select fleet.keep_audit(
  'public.telemetry_rules',
  p_columns => '{name,condition,clear_at,cooldown,group_id,selector,action,action_type,payload,priority,is_enabled}'
);

create or replace function fleet.tg_keep_health()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into fleet.health_reports as r (device_id, owner_id, at, data)
  values (new.id, new.owner_id, clock_timestamp(), new.reported -> 'health')
  on conflict (device_id) do update
    set owner_id = excluded.owner_id, at = excluded.at, data = excluded.data, is_waiting = true;
  return null;
end;
$$;

comment on function fleet.tg_keep_health() is
  'Keep what a device says of its health for its stream health. Definer: a device may write no table.';
revoke all on function fleet.tg_keep_health() from public, anon, authenticated, service_role;

create or replace trigger devices_64_keep_health
  after update of reported on public.devices
  for each row
  when (jsonb_typeof(new.reported -> 'health') = 'object' and new.reported -> 'health' is distinct from old.reported -> 'health')
  execute function fleet.tg_keep_health();
