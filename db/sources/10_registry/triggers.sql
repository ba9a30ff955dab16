-- What holds for the registry however a row is written.

create or replace function fleet.tg_check_owner()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if not fleet.is_time_zone(new.timezone) then
    raise exception 'timezone "%" is not a known time zone', fleet.cut_text(new.timezone, 100)
      using errcode = 'PT422', detail = 'timezone_unknown', hint = 'Use an IANA name such as Europe/Berlin.';
  end if;
  if tg_op = 'UPDATE' and new.name is distinct from old.name then
    new.name := fleet.require_owner_name(new.name, new.id);
  end if;
  return new;
end;
$$;

comment on function fleet.tg_check_owner() is
  'Check the time zone of an owner, and that its new name is none that the person knows another by. Definer: the checks are not callable by '
  'themselves.';
revoke all on function fleet.tg_check_owner() from public, anon, authenticated, service_role;

create or replace trigger owners_02_check before insert or update of name, timezone on public.owners
  for each row execute function fleet.tg_check_owner();

create or replace function fleet.tg_keep_an_admin()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner public.owners;
begin
  -- Two admins who leave at once take turns; the second finds that the first is gone.
  select o.* into v_owner from public.owners as o where o.id = old.owner_id for no key update;
  if found and not v_owner.is_personal and not exists (
    select 1
    from public.owner_members as m
    where m.owner_id = old.owner_id and m.user_id <> old.user_id and 'admin' = any (m.permissions)
  ) then
    raise exception 'nobody else is an admin of "%"', v_owner.name
      using errcode = 'PT409', detail = 'last_admin',
            hint = 'Make another member an admin first: select set_member_permissions(<owner>, <member>, ''{admin}''), or delete the owner.';
  end if;
  return case tg_op when 'DELETE' then old else new end;
end;
$$;

comment on function fleet.tg_keep_an_admin() is
  'One admin stays as long as the owner is there; the person of a personal one is its admin anyway. Raises last_admin (PT409). Definer: it '
  'looks at all members.';
revoke all on function fleet.tg_keep_an_admin() from public, anon, authenticated, service_role;

create or replace trigger owner_members_02_keep_an_admin_update before update on public.owner_members
  for each row when ('admin' = any (old.permissions) and (not 'admin' = any (new.permissions) or old.user_id <> new.user_id))
  execute function fleet.tg_keep_an_admin();
create or replace trigger owner_members_02_keep_an_admin_delete before delete on public.owner_members
  for each row when ('admin' = any (old.permissions)) execute function fleet.tg_keep_an_admin();

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

create or replace function fleet.tg_keep_revoked()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'enrolment code % was revoked', old.id
    using errcode = 'PT409', detail = 'enrollment_code_revoked', hint = 'Make a new one: pgfleet device enroll-code';
end;
$$;

comment on function fleet.tg_keep_revoked() is 'What was revoked stays revoked. Raises enrollment_code_revoked (PT409).';
revoke all on function fleet.tg_keep_revoked() from public, anon, authenticated, service_role;

create or replace trigger enrollment_codes_01_keep_revoked
  before update of revoked_at on public.enrollment_codes
  for each row
  when (old.revoked_at is not null and new.revoked_at is distinct from old.revoked_at)
  execute function fleet.tg_keep_revoked();

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
  'public.devices', p_verbs => '{update,delete}', p_columns => '{hostname,tags,status,prepared}',
  p_without => '{auth_id,last_seen,latitude,longitude,accuracy_m,located_at,attributes,reported,enrolled_at,created_at,updated_at}'
);
select fleet.keep_audit('public.device_groups', p_columns => '{name,description,selector}');
select fleet.keep_audit('public.owners', p_verbs => '{update}', p_columns => '{name,timezone}');
select fleet.keep_audit('public.owner_members', p_columns => '{permissions}');
select fleet.keep_audit('public.owner_invitations', p_without => '{code_hash,created_at}');

select fleet.keep_quota('public.devices', 'devices');
select fleet.keep_quota('public.device_groups', 'groups');
select fleet.keep_quota('public.owner_members', 'members');
