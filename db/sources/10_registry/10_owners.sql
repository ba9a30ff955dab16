-- Owners: fleets that one person or several people run.

create or replace function fleet.require_owner_name(p_name text, p_owner_id uuid)
returns text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_user uuid := fleet.current_user_id();
begin
  if btrim(coalesce(p_name, '')) = '' then
    raise exception 'the name of the owner is missing'
      using errcode = 'PT422', detail = 'owner_invalid', hint = 'Give the fleet a name, such as ''School 7''.';
  end if;
  -- Two that give the same name at once take turns; the second finds what the first has made.
  perform pg_advisory_xact_lock(hashtext('pgfleet.owner_names'), hashtext(coalesce(v_user::text, '')));
  if exists (
    select 1
    from public.owners as o
    -- By the ids of theirs: how many others there are costs nobody anything.
    where v_user is not null and o.id = any (array(select m.id from fleet.my_owners() as m(id)))
      and lower(o.name) = lower(btrim(p_name)) and o.id is distinct from p_owner_id
    union all
    select 1
    from public.owners as o
    where v_user is null and lower(o.name) = lower(btrim(p_name)) and o.id is distinct from p_owner_id
      -- What people call theirs is no hindrance to whoever works in the database.
      and not o.is_personal and not exists (select 1 from public.owner_members as m where m.owner_id = o.id)
  ) then
    raise exception 'name: there is an owner named "%" already', fleet.cut_text(btrim(p_name), 100)
      using errcode = 'PT409', detail = 'owner_exists', hint = 'Choose another name; see what there is with: select * from owner_list';
  end if;
  return btrim(p_name);
end;
$$;

comment on function fleet.require_owner_name(text, uuid) is
  'The name without blanks around it, if no other owner of the person has it, in any case. Raises owner_exists (PT409) or owner_invalid (PT422).';
revoke all on function fleet.require_owner_name(text, uuid) from public, anon, authenticated, service_role;

create or replace function public.create_owner(p_name text, p_timezone text default 'UTC')
returns public.owners
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.create_owner(p_name, p_timezone)
$$;

comment on function public.create_owner(text, text) is
  'Make a fleet that several people may run, with the time zone of these people; who makes it is its admin, others are invited with '
  'invite_member. Raises owner_exists (PT409), owner_invalid or timezone_unknown (PT422).';
revoke all on function public.create_owner(text, text) from public, anon, authenticated, service_role;
grant execute on function public.create_owner(text, text) to authenticated, service_role;

create or replace function fleet.create_owner(p_name text, p_timezone text)
returns public.owners
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_user uuid := fleet.current_user_id();
  v_owner public.owners;
begin
  if v_user is null and not fleet.is_trusted_caller() then
    raise exception 'a device may not do this'
      using errcode = 'PT403', detail = 'not_a_person', hint = 'Sign in as a person.';
  end if;

  insert into public.owners (name, timezone)
  values (fleet.require_owner_name(p_name, null), coalesce(p_timezone, 'UTC'))
  returning * into v_owner;
  if v_user is not null then
    insert into public.owner_members (owner_id, user_id, permissions, email)
    values (v_owner.id, v_user, '{view,operate,manage,destructive,admin}', fleet.caller_email());
  end if;
  return v_owner;
end;
$$;

comment on function fleet.create_owner(text, text) is
  'See public.create_owner. Definer: nobody may write owners directly, because an owner''s id can mean a person.';
revoke all on function fleet.create_owner(text, text) from public, anon, authenticated, service_role;
grant execute on function fleet.create_owner(text, text) to authenticated, service_role;

create or replace function public.rename_owner(p_owner_id uuid, p_name text)
returns public.owners
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.rename_owner(p_owner_id, p_name)
$$;

comment on function public.rename_owner(uuid, text) is
  'Give an owner another name. Raises owner_not_found (PT404), permission_missing (PT403) or owner_exists (PT409).';
revoke all on function public.rename_owner(uuid, text) from public, anon, authenticated, service_role;
grant execute on function public.rename_owner(uuid, text) to authenticated, service_role;

create or replace function fleet.rename_owner(p_owner_id uuid, p_name text)
returns public.owners
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner public.owners;
begin
  perform fleet.require_owner(p_owner_id, 'admin');
  update public.owners as o set name = p_name where o.id = p_owner_id returning o.* into v_owner;
  return v_owner;
end;
$$;

comment on function fleet.rename_owner(uuid, text) is 'See public.rename_owner. Definer: it checks the caller.';
revoke all on function fleet.rename_owner(uuid, text) from public, anon, authenticated, service_role;
grant execute on function fleet.rename_owner(uuid, text) to authenticated, service_role;

create or replace function public.set_owner_timezone(p_owner_id uuid, p_timezone text)
returns public.owners
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.set_owner_timezone(p_owner_id, p_timezone)
$$;

comment on function public.set_owner_timezone(uuid, text) is
  'Say in which time zone the people of an owner live, as an IANA name. Raises owner_not_found (PT404), permission_missing (PT403) or '
  'timezone_unknown (PT422).';
revoke all on function public.set_owner_timezone(uuid, text) from public, anon, authenticated, service_role;
grant execute on function public.set_owner_timezone(uuid, text) to authenticated, service_role;

create or replace function fleet.set_owner_timezone(p_owner_id uuid, p_timezone text)
returns public.owners
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner public.owners;
begin
  perform fleet.require_owner(p_owner_id, 'manage');
  update public.owners as o set timezone = p_timezone where o.id = p_owner_id returning o.* into v_owner;
  return v_owner;
end;
$$;

comment on function fleet.set_owner_timezone(uuid, text) is 'See public.set_owner_timezone. Definer: it checks the caller.';
revoke all on function fleet.set_owner_timezone(uuid, text) from public, anon, authenticated, service_role;
grant execute on function fleet.set_owner_timezone(uuid, text) to authenticated, service_role;

create or replace function fleet.require_owner(p_owner_id uuid, p_permission text)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (select 1 from public.owners as o where o.id = p_owner_id) then
    perform fleet.raise_not_found(format('owner %s', p_owner_id));
  end if;
  perform fleet.require_permission(p_owner_id, p_permission, format('owner %s', p_owner_id));
end;
$$;

comment on function fleet.require_owner(uuid, text) is
  'Raise owner_not_found (PT404) where there is no such owner or the caller is no member, permission_missing (PT403) for one without the '
  'permission.';
revoke all on function fleet.require_owner(uuid, text) from public, anon, authenticated, service_role;

create or replace function public.delete_owner(p_owner_id uuid)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.delete_owner(p_owner_id)
$$;

comment on function public.delete_owner(uuid) is
  'Delete an owner with its members, groups, schedules, history and all else that it has; the audit log stays. {id, name, deleted}. Raises '
  'owner_has_devices (PT409) while it has devices, retired ones too, owner_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.delete_owner(uuid) from public, anon, authenticated, service_role;
grant execute on function public.delete_owner(uuid) to authenticated, service_role;

create or replace function fleet.delete_owner(p_owner_id uuid)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_name text;
  v_devices bigint;
begin
  perform fleet.require_owner(p_owner_id, 'admin');
  -- Whoever adds a device now waits, and then finds no owner.
  select o.name into v_name from public.owners as o where o.id = p_owner_id for update;
  select count(*) into v_devices from public.devices as d where d.owner_id = p_owner_id;
  if v_devices > 0 then
    raise exception 'owner "%" has % device(s)', v_name, v_devices
      using errcode = 'PT409', detail = 'owner_has_devices',
            hint = 'Delete its devices first, or keep it: select * from device_list';
  end if;

  if fleet.setting('default_owner') #>> '{}' = p_owner_id::text then
    delete from fleet.settings as s where s.name = 'default_owner';
  end if;
  delete from public.owners as o where o.id = p_owner_id;
  return jsonb_build_object('id', p_owner_id, 'name', v_name, 'deleted', true);
end;
$$;

comment on function fleet.delete_owner(uuid) is
  'See public.delete_owner. Definer: it checks the caller; nobody deletes owners directly.';
revoke all on function fleet.delete_owner(uuid) from public, anon, authenticated, service_role;
grant execute on function fleet.delete_owner(uuid) to authenticated, service_role;

create or replace function fleet.is_default_owner(p_owner_id uuid)
returns boolean
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(p_owner_id = fleet.usual_owner(), false)
$$;

comment on function fleet.is_default_owner(uuid) is
  'Whether this owner is meant where nothing that is named says which. Definer: it reads the memberships of its caller, or the setting.';
revoke all on function fleet.is_default_owner(uuid) from public, anon, authenticated, service_role;
grant execute on function fleet.is_default_owner(uuid) to authenticated, service_role;
