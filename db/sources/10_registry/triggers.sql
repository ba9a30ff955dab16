-- What holds for the registry however a row is written.

create or replace trigger devices_01_owner before insert on public.devices
  for each row when (new.owner_id is null or current_setting('request.jwt.claims', true) <> '')
  execute function fleet.tg_owner_from_caller();
create or replace trigger devices_03_set_updated_at before update on public.devices
  for each row execute function fleet.tg_set_updated_at();
create or replace trigger device_groups_01_owner before insert on public.device_groups
  for each row when (new.owner_id is null or current_setting('request.jwt.claims', true) <> '')
  execute function fleet.tg_owner_from_caller();
create or replace trigger device_groups_03_set_updated_at before update on public.device_groups
  for each row execute function fleet.tg_set_updated_at();

create or replace function fleet.tg_check_device()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if new.timezone is not null and not fleet.is_time_zone(new.timezone) then
    raise exception 'timezone "%" is not a known time zone', new.timezone
      using errcode = 'PT422',
            detail = 'timezone_unknown',
            hint = 'Use an IANA name such as Europe/Berlin.';
  end if;

  return new;
end;
$$;

comment on function fleet.tg_check_device() is 'Check the time zone. Definer: the check is not callable by itself.';
revoke all on function fleet.tg_check_device() from public, anon, authenticated, service_role;

create or replace trigger devices_02_check before insert or update of timezone on public.devices
  for each row execute function fleet.tg_check_device();

create or replace function fleet.tg_retire_device()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  new.auth_id := gen_random_uuid();
  new.enrolled_at := null;
  delete from fleet.device_credentials as c where c.device_id = new.id;
  delete from fleet.doorbells as b where b.device_id = new.id;
  update public.device_commands as c
  set status = 'cancelled', reason = 'device_retired'
  where c.device_id = new.id and c.status in ('pending', 'running');
  return new;
end;
$$;

comment on function fleet.tg_retire_device() is
  'Make retiring complete: its secret and tokens are void, what waits is cancelled. Definer: whoever may retire a device need not have '
  'rights on what hangs on it.';
revoke all on function fleet.tg_retire_device() from public, anon, authenticated, service_role;

create or replace trigger devices_02_retire before update of status on public.devices
  for each row when (new.status = 'retired' and old.status <> 'retired') execute function fleet.tg_retire_device();

create or replace function fleet.tg_check_group()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_problem record;
begin
  select p.field, p.problem, p.hint into v_problem from fleet.selector_problems(new.selector) as p limit 1;
  if found then
    raise exception '% %', v_problem.field, v_problem.problem
      using errcode = 'PT422', detail = 'selector_invalid', hint = v_problem.hint;
  end if;
  return new;
end;
$$;

comment on function fleet.tg_check_group() is 'Check the selector. Definer: the check is not callable by itself.';
revoke all on function fleet.tg_check_group() from public, anon, authenticated, service_role;

create or replace trigger device_groups_02_check before insert or update of selector on public.device_groups
  for each row execute function fleet.tg_check_group();

create or replace function fleet.tg_owner_from_group()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  select g.owner_id into new.owner_id from public.device_groups as g where g.id = new.group_id;
  perform fleet.require_permission(new.owner_id, 'manage', format('group %s', new.group_id));

  if not exists (select 1 from public.devices as d where d.id = new.device_id and d.owner_id = new.owner_id) then
    perform fleet.raise_device_not_found(new.device_id);
  end if;
  return new;
end;
$$;

comment on function fleet.tg_owner_from_group() is
  'A member has the owner of its group. Definer: it checks the caller, and answers alike for foreign and for missing rows.';
revoke all on function fleet.tg_owner_from_group() from public, anon, authenticated, service_role;

create or replace trigger device_group_members_01_owner before insert or update on public.device_group_members
  for each row execute function fleet.tg_owner_from_group();

-- What people change; check-ins and what devices report are kept out.
select fleet.keep_audit(
  'public.devices', p_verbs => '{update,delete}', p_columns => '{hostname,tags,status}',
  p_without => '{auth_id,last_seen,latitude,longitude,accuracy_m,located_at,attributes,enrolled_at,created_at,updated_at}'
);
select fleet.keep_audit('public.device_groups', p_columns => '{name,description,selector}');
select fleet.keep_audit('public.owner_members', p_columns => '{permissions}');
