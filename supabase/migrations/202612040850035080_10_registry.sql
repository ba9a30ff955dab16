-- Generated from db/sources/10_registry by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/10_registry/10_owners.sql
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

-- db/sources/10_registry/12_members.sql
-- The people of an owner: who is invited, joins, and leaves. Nobody becomes a member without accepting, and one admin stays.

create or replace function fleet.caller_email()
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.cut_text(lower(btrim(fleet.jwt_claim('email'))), 255)
$$;

comment on function fleet.caller_email() is 'The address in the token of the caller, in lower case; null where there is none.';
revoke all on function fleet.caller_email() from public, anon, authenticated, service_role;

create or replace function public.invite_member(
  p_owner_id uuid,
  p_email text default null,
  p_permissions text[] default '{view,operate,manage}',
  p_expires_in interval default '7 days'
)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.invite_member(p_owner_id, p_email, p_permissions, p_expires_in)
$$;

comment on function public.invite_member(uuid, text, text[], interval) is
  'Invite somebody to run a fleet: who accepts the code with accept_invitation becomes a member, and with an address nobody else can. '
  '{id, owner_id, code, email, permissions, expires_at}; the code is shown this once. Raises owner_not_found (PT404), permission_missing '
  '(PT403), invitation_invalid (PT422) or too_many_invitations (PT409).';
revoke all on function public.invite_member(uuid, text, text[], interval) from public, anon, authenticated, service_role;
grant execute on function public.invite_member(uuid, text, text[], interval) to authenticated, service_role;

create or replace function fleet.invite_member(p_owner_id uuid, p_email text, p_permissions text[], p_expires_in interval)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  c_most constant integer := 100;
  v_code text := upper(substr(fleet.random_secret(), 1, 32));
  v_row public.owner_invitations;
begin
  perform fleet.require_owner(p_owner_id, 'admin');
  perform fleet.raise_problems('the invitation', 'invitation_invalid', array(
    select ('permissions', 'names none, or one that there is not', 'Use some of view, operate, manage, can_run_commands, destructive, admin.')::fleet.problem
    where (p_permissions <@ '{view,operate,manage,can_run_commands,destructive,admin}' and cardinality(p_permissions) between 1 and 10) is not true
      or array_position(p_permissions, null) is not null
    union all
    select ('email', 'is no e-mail address', 'Example: ben@school.example')::fleet.problem
    where p_email is not null and (lower(btrim(p_email)) ~ '^[^@[:space:]]{1,64}@[^@[:space:]]{1,190}$') is not true
    union all
    select ('expires_in', 'is not between a moment and 30 days', 'Example: 7 days')::fleet.problem
    where (p_expires_in > interval '0' and p_expires_in <= interval '30 days') is not true
  ));

  -- Those that invite at once take turns, so that the bound holds.
  perform 1 from public.owners as o where o.id = p_owner_id for no key update;
  if (
    select count(*)
    from public.owner_invitations as i
    where i.owner_id = p_owner_id and i.accepted_at is null and i.revoked_at is null and i.expires_at > now()
  ) >= c_most then
    raise exception 'there are % open invitations already', c_most
      using errcode = 'PT409', detail = 'too_many_invitations', hint = 'Withdraw some: select * from owner_invitation_list';
  end if;
  insert into public.owner_invitations (owner_id, email, permissions, code_hash, expires_at, created_by)
  values (
    p_owner_id, lower(btrim(p_email)), p_permissions, fleet.hash_secret(v_code), now() + p_expires_in, fleet.current_user_id()
  )
  returning * into v_row;
  return jsonb_build_object(
    'id', v_row.id, 'owner_id', v_row.owner_id, 'code', v_code, 'email', v_row.email, 'permissions', to_jsonb(v_row.permissions),
    'expires_at', v_row.expires_at
  );
end;
$$;

comment on function fleet.invite_member(uuid, text, text[], interval) is
  'See public.invite_member. Definer: it checks the caller, then writes the hash of the code.';
revoke all on function fleet.invite_member(uuid, text, text[], interval) from public, anon, authenticated, service_role;
grant execute on function fleet.invite_member(uuid, text, text[], interval) to authenticated, service_role;

create or replace function public.revoke_invitation(p_invitation_id bigint)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.revoke_invitation(p_invitation_id)
$$;

comment on function public.revoke_invitation(bigint) is
  'Withdraw an invitation that nobody has accepted. Raises invitation_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.revoke_invitation(bigint) from public, anon, authenticated, service_role;
grant execute on function public.revoke_invitation(bigint) to authenticated, service_role;

create or replace function fleet.revoke_invitation(p_invitation_id bigint)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_what text := format('invitation %s', p_invitation_id);
  v_owner uuid;
begin
  select i.owner_id into v_owner
  from public.owner_invitations as i
  where i.id = p_invitation_id and fleet.is_visible_owner(i.owner_id);
  perform fleet.require_permission(v_owner, 'admin', v_what);
  update public.owner_invitations as i
  set revoked_at = now()
  where i.id = p_invitation_id and i.revoked_at is null and i.accepted_at is null;
  if not found then
    perform fleet.raise_not_found(v_what);
  end if;
end;
$$;

comment on function fleet.revoke_invitation(bigint) is 'See public.revoke_invitation. Definer: it checks the caller.';
revoke all on function fleet.revoke_invitation(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.revoke_invitation(bigint) to authenticated, service_role;

create or replace function public.accept_invitation(p_code text)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.accept_invitation(p_code)
$$;

comment on function public.accept_invitation(text) is
  'Become a member of the fleet that a code invites to. {owner_id, name, permissions}. Raises invitation_not_found (PT404) where the code is '
  'unknown, used, withdrawn, over, or for another address; member_exists or owner_exists (PT409), which leave the code good; not_a_person '
  '(PT403).';
revoke all on function public.accept_invitation(text) from public, anon, authenticated, service_role;
grant execute on function public.accept_invitation(text) to authenticated, service_role;

create or replace function fleet.accept_invitation(p_code text)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_user uuid := fleet.current_user_id();
  v_row public.owner_invitations;
  v_owner public.owners;
begin
  if v_user is null then
    raise exception 'an invitation is accepted by a person'
      using errcode = 'PT403', detail = 'not_a_person',
            hint = 'Sign in as the person who is invited.';
  end if;

  -- Using and checking in one statement: of two who come at once with the same code, one gets in.
  update public.owner_invitations as i
  set accepted_at = now(), accepted_by = v_user
  where i.code_hash = fleet.hash_secret(upper(btrim(p_code)))
    and i.accepted_at is null
    and i.revoked_at is null
    and i.expires_at > now()
    and (i.email is null or i.email = fleet.caller_email())
    -- Who is no admin any more lets nobody in.
    and (
      i.created_by is null
      or i.created_by = i.owner_id
      or exists (
        select 1 from public.owner_members as m
        where m.owner_id = i.owner_id and m.user_id = i.created_by and 'admin' = any (m.permissions)
      )
    )
  returning i.* into v_row;
  if not found then
    raise exception 'the invitation is unknown, used, withdrawn or over, or it is for another address'
      using errcode = 'PT404', detail = 'invitation_not_found', hint = 'Ask an admin of the fleet for a new one: select invite_member(<owner>, <email>)';
  end if;

  select o.* into v_owner from public.owners as o where o.id = v_row.owner_id;
  perform fleet.require_owner_name(v_owner.name, v_owner.id);
  if v_user = v_owner.id then
    raise exception 'this is your own fleet'
      using errcode = 'PT409', detail = 'member_exists', hint = 'See it with: select * from owner_list';
  end if;
  insert into public.owner_members (owner_id, user_id, permissions, email)
  values (v_owner.id, v_user, v_row.permissions, fleet.caller_email())
  on conflict (owner_id, user_id) do nothing;
  if not found then
    raise exception 'you are a member of "%" already', v_owner.name
      using errcode = 'PT409', detail = 'member_exists', hint = 'See its members with: select * from owner_member_list';
  end if;
  return jsonb_build_object('owner_id', v_owner.id, 'name', v_owner.name, 'permissions', to_jsonb(v_row.permissions));
end;
$$;

comment on function fleet.accept_invitation(text) is
  'See public.accept_invitation. Definer: memberships are made here and by create_owner, and by nobody else.';
revoke all on function fleet.accept_invitation(text) from public, anon, authenticated, service_role;
grant execute on function fleet.accept_invitation(text) to authenticated, service_role;

create or replace function public.leave_owner(p_owner_id uuid)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.leave_owner(p_owner_id)
$$;

comment on function public.leave_owner(uuid) is
  'Leave a fleet. Raises owner_not_found (PT404), last_admin (PT409) where nobody else could let people in, or not_a_person (PT403).';
revoke all on function public.leave_owner(uuid) from public, anon, authenticated, service_role;
grant execute on function public.leave_owner(uuid) to authenticated, service_role;

create or replace function fleet.leave_owner(p_owner_id uuid)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_user uuid := fleet.current_user_id();
begin
  if v_user is null then
    raise exception 'a fleet is left by a person'
      using errcode = 'PT403', detail = 'not_a_person',
            hint = 'Sign in as the person who leaves.';
  end if;
  delete from public.owner_members as m where m.owner_id = p_owner_id and m.user_id = v_user;
  if not found then
    perform fleet.raise_not_found(format('owner %s', p_owner_id));
  end if;
end;
$$;

comment on function fleet.leave_owner(uuid) is
  'See public.leave_owner. Definer: it takes away the membership of its caller and no other.';
revoke all on function fleet.leave_owner(uuid) from public, anon, authenticated, service_role;
grant execute on function fleet.leave_owner(uuid) to authenticated, service_role;

create or replace function fleet.require_member(p_owner_id uuid, p_member text)
returns uuid
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.require_owner(p_owner_id, 'admin');
  return fleet.only_one(
    'member', p_member,
    array(
      select m.user_id::text
      from public.owner_members as m
      where m.owner_id = p_owner_id and m.email = lower(btrim(p_member))
      order by m.user_id
    ),
    (select m.user_id::text from public.owner_members as m where m.owner_id = p_owner_id and m.user_id = fleet.try_uuid(p_member)),
    'owner_member'
  )::uuid;
end;
$$;

comment on function fleet.require_member(uuid, text) is
  'The member that an address or an id means, if the caller is an admin. Raises owner_not_found or member_not_found (PT404), '
  'permission_missing (PT403) or member_ambiguous (PT409).';
revoke all on function fleet.require_member(uuid, text) from public, anon, authenticated, service_role;

create or replace function public.set_member_permissions(p_owner_id uuid, p_member text, p_permissions text[])
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.set_member_permissions(p_owner_id, p_member, p_permissions)
$$;

comment on function public.set_member_permissions(uuid, text, text[]) is
  'Change what a member, named by address or id, may do. {user_id, email, permissions}. Raises owner_not_found or member_not_found (PT404), '
  'permission_missing (PT403), last_admin or member_ambiguous (PT409).';
revoke all on function public.set_member_permissions(uuid, text, text[]) from public, anon, authenticated, service_role;
grant execute on function public.set_member_permissions(uuid, text, text[]) to authenticated, service_role;

create or replace function fleet.set_member_permissions(p_owner_id uuid, p_member text, p_permissions text[])
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_user uuid := fleet.require_member(p_owner_id, p_member);
  v_row public.owner_members;
begin
  update public.owner_members as m
  set permissions = p_permissions
  where m.owner_id = p_owner_id and m.user_id = v_user
  returning m.* into v_row;
  return jsonb_build_object('user_id', v_row.user_id, 'email', v_row.email, 'permissions', to_jsonb(v_row.permissions));
end;
$$;

comment on function fleet.set_member_permissions(uuid, text, text[]) is 'See public.set_member_permissions. Definer: it checks the caller.';
revoke all on function fleet.set_member_permissions(uuid, text, text[]) from public, anon, authenticated, service_role;
grant execute on function fleet.set_member_permissions(uuid, text, text[]) to authenticated, service_role;

create or replace function public.remove_member(p_owner_id uuid, p_member text)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.remove_member(p_owner_id, p_member)
$$;

comment on function public.remove_member(uuid, text) is
  'Take away the membership of somebody, named by address or id. {user_id, email}. Raises owner_not_found or member_not_found (PT404), '
  'permission_missing (PT403), last_admin or member_ambiguous (PT409).';
revoke all on function public.remove_member(uuid, text) from public, anon, authenticated, service_role;
grant execute on function public.remove_member(uuid, text) to authenticated, service_role;

create or replace function fleet.remove_member(p_owner_id uuid, p_member text)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_user uuid := fleet.require_member(p_owner_id, p_member);
  v_row public.owner_members;
begin
  delete from public.owner_members as m
  where m.owner_id = p_owner_id and m.user_id = v_user
  returning m.* into v_row;
  return jsonb_build_object('user_id', v_row.user_id, 'email', v_row.email);
end;
$$;

comment on function fleet.remove_member(uuid, text) is 'See public.remove_member. Definer: it checks the caller.';
revoke all on function fleet.remove_member(uuid, text) from public, anon, authenticated, service_role;
grant execute on function fleet.remove_member(uuid, text) to authenticated, service_role;

-- db/sources/10_registry/12_owner_zones.sql
-- In which time zones an owner's devices are.

create or replace function fleet.home_zone(p_owner_id uuid)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_zone text;
begin
  select o.timezone into v_zone from public.owners as o where o.id = p_owner_id;
  if fleet.is_time_zone(v_zone) then
    return v_zone;
  end if;
  return 'UTC';
end;
$$;

comment on function fleet.home_zone(uuid) is 'The zone of an owner; UTC where it says none that is known.';
revoke all on function fleet.home_zone(uuid) from public, anon, authenticated, service_role;

create or replace function fleet.count_zones(p_owner_ids uuid[], p_zones text[], p_changes bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  -- In one order, so that two statements never wait for each other in a circle.
  insert into fleet.owner_zones as z (owner_id, zone, devices)
  select u.owner_id, u.zone, sum(u.change)
  from unnest(p_owner_ids, p_zones, p_changes) as u(owner_id, zone, change)
  where exists (select 1 from public.owners as o where o.id = u.owner_id)
  group by 1, 2
  having sum(u.change) <> 0
  order by 1, 2
  on conflict (owner_id, zone) do update set devices = z.devices + excluded.devices
$$;

comment on function fleet.count_zones(uuid[], text[], bigint[]) is
  'Count so many devices more or less in the zones of owners; an empty name for devices without one.';
revoke all on function fleet.count_zones(uuid[], text[], bigint[]) from public, anon, authenticated, service_role;

-- db/sources/10_registry/13_people.sql
-- People by their address, and acting as one of them.

create or replace function fleet.user_with_email(p_email text)
returns uuid
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_user uuid;
begin
  -- Plain Postgres has no accounts: there people are known by what they joined with.
  if to_regclass('auth.users') is not null then
    execute 'select u.id from auth.users as u where lower(u.email) = lower($1) limit 1' into v_user using btrim(p_email);
  end if;
  return coalesce(v_user, (
    select m.user_id from public.owner_members as m where m.email = lower(btrim(p_email)) order by m.created_at limit 1
  ));
end;
$$;

comment on function fleet.user_with_email(text) is 'The id of the person with an address; null where nobody is known by it.';
revoke all on function fleet.user_with_email(text) from public, anon, authenticated, service_role;

create or replace function fleet.act_as(p_person text)
returns uuid
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_user uuid := coalesce(fleet.try_uuid(p_person), fleet.user_with_email(p_person));
begin
  if v_user is null then
    raise exception 'nobody is known as "%"', fleet.cut_text(p_person, 100)
      using errcode = 'PT404', detail = 'person_not_found',
            hint = 'Name the address of an account, or the id of a person; make one locally with: pgfleet stack user create';
  end if;
  perform set_config(
    'request.jwt.claims',
    jsonb_strip_nulls(jsonb_build_object(
      'sub', v_user, 'role', 'authenticated', 'email', case when fleet.try_uuid(p_person) is null then lower(btrim(p_person)) end
    ))::text,
    true
  );
  perform set_config('role', 'authenticated', true);
  return v_user;
end;
$$;

comment on function fleet.act_as(text) is
  'Go on with the rights of a person, named by address or id, until the transaction ends, as the API does with a token. Whoever may call this '
  'could do anything anyway. Raises person_not_found (PT404).';
revoke all on function fleet.act_as(text) from public, anon, authenticated, service_role;

-- db/sources/10_registry/15_whose.sql
-- Whose a request is: the owner of the devices and groups that it names.

create or replace function fleet.owner_of_named(
  p_device_ids bigint[],
  p_group_ids bigint[],
  p_devices text[] default '{}',
  p_groups text[] default '{}'
)
returns uuid
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- A list of ids is planned anew at each call otherwise, as if its length mattered.
set plan_cache_mode = force_generic_plan
as $$
declare
  -- Null means all of them. What the caller does not see tells nothing: it is as good as not there.
  v_seen uuid[];
  v_owners uuid[];
  v_usual uuid;
  v_examples text;
begin
  if not fleet.is_trusted_caller() then
    v_seen := array(select o.id from fleet.my_owners() as o(id));
  end if;
  if p_devices = '{}' and p_groups = '{}' and p_group_ids = '{}' then
    -- Most name devices by their ids: one look at their key, planned at a tenth of the cost of what follows.
    v_owners := array(
      select d.owner_id
      from public.devices as d
      where d.id = any (p_device_ids) and (v_seen is null or d.owner_id = any (v_seen))
      group by d.owner_id
    );
    if cardinality(v_owners) <= 1 then
      return v_owners[1];
    end if;
  end if;

  with named as materialized (
    select d.id::text as id, 'device ' || d.id as item, d.owner_id
    from public.devices as d
    where d.id = any (p_device_ids) and (v_seen is null or d.owner_id = any (v_seen))
    union
    select g.id::text, 'group ' || g.id, g.owner_id
    from public.device_groups as g
    where g.id = any (p_group_ids) and (v_seen is null or g.owner_id = any (v_seen))
    union
    select 'name', format('device "%s"', lower(d.hostname)), d.owner_id
    from public.devices as d
    where lower(d.hostname) in (select lower(n) from unnest(p_devices) as n) and (v_seen is null or d.owner_id = any (v_seen))
    union
    select 'name', format('group "%s"', lower(g.name)), g.owner_id
    from public.device_groups as g
    where lower(g.name) in (select lower(n) from unnest(p_groups) as n) and (v_seen is null or g.owner_id = any (v_seen))
  ),
  shared as (
    -- Who has each of them.
    select n.owner_id
    from named as n
    group by n.owner_id
    having count(*) = (select count(distinct x.item) from named as x)
  )
  select
    (select array_agg(s.owner_id) from shared as s),
    (
      select string_agg(format('%s of "%s"', e.item, o.name), ', ' order by e.item)
      from (select distinct on (n.owner_id) n.item, n.owner_id from named as n order by n.owner_id, n.item) as e
      join public.owners as o on o.id = e.owner_id
    )
  into v_owners, v_examples;

  if cardinality(v_owners) = 1 or v_examples is null then
    return v_owners[1];
  elsif v_owners is null then
    raise exception 'what is named has several owners: %', fleet.cut_text(v_examples, 500)
      using errcode = 'PT422', detail = 'owners_differ', hint = 'Name devices and groups of one owner in one request.';
  end if;
  v_usual := fleet.usual_owner();
  if v_usual = any (v_owners) then
    return v_usual;
  end if;
  raise exception 'several owners have what is named: %', fleet.cut_text(v_examples, 500)
    using errcode = 'PT409', detail = 'owner_ambiguous', hint = 'Say whose it is with owner_id, or name ids.';
end;
$$;

comment on function fleet.owner_of_named(bigint[], bigint[], text[], text[]) is
  'The one owner of the devices and groups that are named, among those that the caller sees; null where nothing known is named. Of names that '
  'several have it is the usual owner''s. Raises owners_differ (PT422) or owner_ambiguous (PT409).';
revoke all on function fleet.owner_of_named(bigint[], bigint[], text[], text[]) from public, anon, authenticated, service_role;

create or replace function fleet.owner_of_spec(p_spec jsonb)
returns uuid
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if jsonb_typeof(p_spec) is distinct from 'object' then
    return null;
  elsif fleet.try_uuid(p_spec ->> 'owner_id') is not null then
    return (p_spec ->> 'owner_id')::uuid;
  elsif not p_spec ?| '{device_id,device_ids,device,devices,group_id,group_ids,group,groups}' then
    return null;
  elsif jsonb_typeof(p_spec -> 'device_ids') = 'array'
    and not p_spec ?| '{device_id,device,devices,group_id,group_ids,group,groups}'
  then
    -- Most name devices by their ids.
    return fleet.owner_of_named(
      array(select fleet.try_bigint(e.id) from jsonb_array_elements_text(p_spec -> 'device_ids') as e(id)), '{}'
    );
  end if;
  return (
    select fleet.owner_of_named(
      coalesce(array_agg(fleet.try_bigint(n.value)) filter (where n.key in ('device_id', 'device_ids')), '{}'),
      coalesce(array_agg(fleet.try_bigint(n.value)) filter (where n.key in ('group_id', 'group_ids')), '{}'),
      coalesce(array_agg(n.value) filter (where n.key in ('device', 'devices')), '{}'),
      coalesce(array_agg(n.value) filter (where n.key in ('group', 'groups')), '{}')
    )
    from (
      select k.key, e.item #>> '{}' as value
      from jsonb_each(p_spec) as k
      cross join lateral jsonb_array_elements(
        case when jsonb_typeof(k.value) = 'array' then k.value else jsonb_build_array(k.value) end
      ) as e(item)
      where k.key in ('device_id', 'device_ids', 'device', 'devices', 'group_id', 'group_ids', 'group', 'groups')
        and jsonb_typeof(e.item) in ('string', 'number')
    ) as n
  );
end;
$$;

comment on function fleet.owner_of_spec(jsonb) is
  'The owner that a specification names by owner_id, else by its devices and groups, ids or names; null where it names none. Raises as '
  'owner_of_named does.';
revoke all on function fleet.owner_of_spec(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.elsewhere_problem(p_kind text, p_shown text, p_owner_id uuid)
returns table (problem text, hint text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_name text := (select o.name from public.owners as o where o.id = p_owner_id and fleet.is_visible_owner(o.id));
begin
  if v_name is null then
    return query
    select format('%s %s was not found', p_kind, p_shown), format('List your %ss with: select * from %s_list', p_kind, p_kind);
    return;
  end if;
  return query
  select format('%s %s belongs to another owner, "%s"', p_kind, p_shown, fleet.cut_text(v_name, 60)),
    'Name devices and groups of one owner in one request.';
end;
$$;

comment on function fleet.elsewhere_problem(text, text, uuid) is
  'What to say of a device or group that this owner does not have: whose it is, to a caller who sees it there; to any other that it was not '
  'found.';
revoke all on function fleet.elsewhere_problem(text, text, uuid) from public, anon, authenticated, service_role;

-- db/sources/10_registry/18_sound.sql
-- What holds for each device, whoever writes it: one check in place of seven.

create or replace function fleet.is_sound_device(
  p_hostname text,
  p_status text,
  p_platform text,
  p_timezone text,
  p_tags text[],
  p_attributes jsonb,
  p_reported jsonb,
  p_latitude double precision,
  p_longitude double precision,
  p_accuracy_m double precision
)
returns boolean
language plpgsql
immutable
parallel safe
-- Without settings, whose change would cost as much as all that is done here; so every name is qualified.
as $$
declare
  v_broken text := case
    when p_status not in ('active', 'retired') then 'status_is_known'
    when pg_catalog.btrim(p_hostname) = '' then 'hostname_is_not_blank'
    when pg_catalog.octet_length(p_hostname) > 1012
      or pg_catalog.octet_length(p_platform) > 1020
      or pg_catalog.octet_length(p_timezone) > 1020
      or pg_catalog.pg_column_size(p_tags) > 16384
      or pg_catalog.cardinality(p_tags) > 100
      or pg_catalog.pg_column_size(p_attributes) > 32768
      or pg_catalog.pg_column_size(p_reported) > 32768
      then 'is_within_limits'
    when pg_catalog.jsonb_typeof(p_attributes) <> 'object' then 'attributes_is_an_object'
    when p_latitude not between -90 and 90 then 'latitude_is_on_earth'
    when p_longitude not between -180 and 180 then 'longitude_is_on_earth'
    when p_accuracy_m < 0 then 'accuracy_is_not_negative'
  end;
begin
  if v_broken is not null then
    perform fleet.raise_broken_check('devices', v_broken);
  end if;
  return true;
end;
$$;

comment on function fleet.is_sound_device(
  text, text, text, text, text[], jsonb, jsonb, double precision, double precision, double precision
) is
  'The checks of devices in one: true, or it raises check_violation (23514) with the name of the one that is broken. Postgres reads the text '
  'of each check anew in every statement, which took two fifths of what it costs to hear from a device.';
revoke all on function fleet.is_sound_device(
  text, text, text, text, text[], jsonb, jsonb, double precision, double precision, double precision
) from public, anon, authenticated, service_role;
grant execute on function fleet.is_sound_device(
  text, text, text, text, text[], jsonb, jsonb, double precision, double precision, double precision
) to authenticated, service_role;

-- db/sources/10_registry/20_devices.sql
-- The life of a device after its enrolment: check-ins, facts, re-keying and retiring.

create or replace function fleet.raise_device_not_found(p_device_id bigint)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.raise_not_found(format('device %s', p_device_id));
end;
$$;

comment on function fleet.raise_device_not_found(bigint) is 'Raise device_not_found (PT404).';
revoke all on function fleet.raise_device_not_found(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.with_facts(p_attributes jsonb, p_facts jsonb)
returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Of a stored value the size is that of its compressed form; of one that was just made it is not.
  v_room integer := fleet.limit_value('attributes') - pg_column_size(p_attributes || '{}') - 128;
begin
  -- What is known already keeps its place: a device that says too much displaces nothing, and says less.
  return case
    when pg_column_size(p_attributes || p_facts) <= fleet.limit_value('attributes') and not fleet.is_too_deep(p_facts)
      then p_attributes || p_facts
    when v_room < 512 then p_attributes
    else p_attributes || fleet.cut_json(p_facts, v_room)
  end;
end;
$$;

comment on function fleet.with_facts(jsonb, jsonb) is
  'What a device reported with what it says now; of what is too much only what fits, with "cut": true beside it.';
revoke all on function fleet.with_facts(jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.store_facts(p_device_id bigint, p_facts jsonb)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- What a device says of itself is kept apart from what others say of it. What is no known zone or no object is left out rather
  -- than refused: a check-in must not fail because of a detail.
  update public.devices as d
  set timezone = case
        when fleet.is_time_zone(p_facts ->> 'timezone') then p_facts ->> 'timezone'
        else d.timezone
      end,
      reported = fleet.with_facts(d.reported, case
          when jsonb_typeof(p_facts -> 'attributes') = 'object' then p_facts -> 'attributes' else '{}'
        end
        || jsonb_strip_nulls(jsonb_build_object(
          'platform', left(p_facts ->> 'platform', 64),
          'agent_version', case when jsonb_typeof(p_facts -> 'agent_version') = 'string' then left(p_facts ->> 'agent_version', 64) end
        )))
  where d.id = p_device_id
    and jsonb_typeof(p_facts) = 'object'
    and p_facts <> '{}';
end;
$$;

comment on function fleet.store_facts(bigint, jsonb) is
  'Keep what a device says of itself, {platform, agent_version} and its attributes, as reported, and its time zone.';
revoke all on function fleet.store_facts(bigint, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.touch_device(p_device_id bigint, p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- At most twice a minute: last_seen is for people, and each write of it is a row version.
  update public.devices as d
  set last_seen = p_now
  where d.id = p_device_id and (d.last_seen is null or d.last_seen < p_now - interval '30 seconds');
end;
$$;

comment on function fleet.touch_device(bigint, timestamptz) is 'Keep when the device was heard of last.';
revoke all on function fleet.touch_device(bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.device_checkin(p_facts jsonb, p_now timestamptz)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device_id bigint := fleet.require_device();
begin
  perform fleet.store_facts(v_device_id, p_facts);
  perform fleet.touch_device(v_device_id, p_now);
  perform fleet.count_request(v_device_id, 'checkin', p_now);
  if p_facts ->> 'sockets' ~ '^[1-9][0-9]{0,3}$' then
    perform fleet.count_request(v_device_id, 'socket', p_now, (p_facts ->> 'sockets')::integer);
  end if;
  -- It has its secret safely: its code is good for nothing from now on.
  update fleet.device_credentials as k set last_used_at = p_now where k.device_id = v_device_id and k.last_used_at is null;
  return (
    select jsonb_build_object(
      'device_id', d.id,
      'hostname', d.hostname,
      'topic', 'device:' || d.auth_id,
      'server_time', clock_timestamp(),
      'poll_seconds', fleet.setting('poll_seconds'),
      'pending', (
        select count(*)
        from (
          select
          from public.device_commands as c
          where c.device_id = d.id
            and c.status = 'pending'
            and c.channel = 'agent'
            and c.not_before <= p_now
          -- As many as one claim takes: to count all that somebody sent it would cost each check-in as much.
          limit 100
        ) as few
      )
    )
    from public.devices as d
    where d.id = v_device_id
  );
end;
$$;

comment on function fleet.device_checkin(jsonb, timestamptz) is
  'See public.device_checkin. Definer: a device may not write its row, only what this takes.';
revoke all on function fleet.device_checkin(jsonb, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.device_checkin(jsonb, timestamptz) to authenticated, service_role;

create or replace function public.device_checkin(p_facts jsonb default '{}')
returns jsonb
language sql
volatile
return fleet.device_checkin(p_facts, clock_timestamp());

comment on function public.device_checkin(jsonb) is
  'A device says that it is there, with facts {platform, timezone, agent_version, attributes, sockets}; attributes may hold health: '
  '{battery_percent, is_charging, disk_total_bytes, disk_free_bytes, os, booted_at}; sockets is how often it joined its topic since it last '
  'said so. It hears {device_id, hostname, topic, server_time, poll_seconds, pending}, where pending is how many commands it may claim, of which '
  'no more than 100 are counted. Raises not_a_device (PT403).';
revoke all on function public.device_checkin(jsonb) from public, anon, authenticated, service_role;
grant execute on function public.device_checkin(jsonb) to authenticated, service_role;

create or replace function fleet.retire_device(p_device_id bigint)
returns public.devices
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device public.devices;
begin
  select d.* into v_device
  from public.devices as d
  where d.id = p_device_id and fleet.is_visible_owner(d.owner_id)
  for update;
  if not found then
    perform fleet.raise_device_not_found(p_device_id);
  end if;
  perform fleet.require_permission(v_device.owner_id, 'manage', format('device %s', p_device_id));

  -- The trigger of the table takes the secret and the topic away and cancels what waits.
  update public.devices as d set status = 'retired' where d.id = p_device_id returning * into v_device;
  return v_device;
end;
$$;

comment on function fleet.retire_device(bigint) is 'See public.retire_device. Definer: it checks the caller.';
revoke all on function fleet.retire_device(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.retire_device(bigint) to authenticated, service_role;

create or replace function public.retire_device(p_device_id bigint)
returns public.devices
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.retire_device(p_device_id)
$$;

comment on function public.retire_device(bigint) is
  'Take a device out of service: its secret and tokens are void at once, waiting commands are cancelled, history stays. '
  'Raises device_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.retire_device(bigint) from public, anon, authenticated, service_role;
grant execute on function public.retire_device(bigint) to authenticated, service_role;

create or replace function public.rekey_device(p_device_id bigint)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.create_enrollment_code(p_device_id, 1, interval '1 day', '{}', '{}', null)
$$;

comment on function public.rekey_device(bigint) is
  'Make a code with which this very device, retired or not, enrols again; its former secret ends when the code is used. '
  '{id, code, expires_at, max_uses}. Raises device_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.rekey_device(bigint) from public, anon, authenticated, service_role;
grant execute on function public.rekey_device(bigint) to authenticated, service_role;

create or replace function fleet.device_of_caller(p_device_id bigint)
returns public.devices
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.devices;
begin
  select d.* into v_row from public.devices as d where d.id = p_device_id and fleet.is_visible_owner(d.owner_id);
  if not found then
    perform fleet.raise_device_not_found(p_device_id);
  end if;
  perform fleet.require_permission(v_row.owner_id, 'manage', format('device %s', p_device_id));
  if v_row.status = 'retired' then
    raise exception 'device "%" is retired', v_row.hostname
      using errcode = 'PT409', detail = 'device_retired', hint = 'Re-key it to bring it back: select rekey_device(<id>)';
  end if;
  return v_row;
end;
$$;

comment on function fleet.device_of_caller(bigint) is
  'The active device, if the caller manages it. Raises device_not_found (PT404), permission_missing (PT403) or device_retired (PT409).';
revoke all on function fleet.device_of_caller(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.device_by_hostname(p_hostname text, p_owner_id uuid)
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_found bigint[];
begin
  select array_agg(d.id) into v_found
  from public.devices as d
  where lower(d.hostname) = lower(p_hostname)
    and d.status = 'active'
    and (p_owner_id is null or d.owner_id = p_owner_id)
    and (fleet.is_trusted_caller() or d.owner_id in (select fleet.my_owners()));

  if v_found is null then
    raise exception 'device_hostname: device "%" was not found', p_hostname
      using errcode = 'PT404', detail = 'device_not_found', hint = 'List your devices with: select * from device_list';
  elsif cardinality(v_found) > 1 then
    raise exception 'device_hostname: "%" is the name of devices of several owners', p_hostname
      using errcode = 'PT409', detail = 'device_ambiguous', hint = 'Name device_id or owner_id as well.';
  end if;
  return v_found[1];
end;
$$;

comment on function fleet.device_by_hostname(text, uuid) is
  'The active device of that name that the caller may see. Raises device_not_found (PT404) or device_ambiguous (PT409).';
revoke all on function fleet.device_by_hostname(text, uuid) from public, anon, authenticated, service_role;

create or replace function public.tag_device(p_device_id bigint, p_add text[] default '{}', p_remove text[] default '{}')
returns public.devices
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.devices;
begin
  update public.devices as d
  set tags = array(
    select distinct t.tag
    from unnest(d.tags || p_add) as t(tag)
    where t.tag <> all (p_remove)
    order by t.tag
  )
  where d.id = p_device_id
  returning d.* into v_row;
  if not found then
    perform fleet.only_one('device', p_device_id::text, null, null);
  end if;
  return v_row;
end;
$$;

comment on function public.tag_device(bigint, text[], text[]) is
  'Add and take away tags of a device; what it has already, or has not, is no fault. Raises device_not_found (PT404), also without the '
  'permission manage.';
revoke all on function public.tag_device(bigint, text[], text[]) from public, anon, authenticated, service_role;
grant execute on function public.tag_device(bigint, text[], text[]) to authenticated, service_role;

-- db/sources/10_registry/30_enrollment_codes.sql
-- Enrolment codes: an operator makes a code, which devices trade for a secret of their own.

create or replace function public.create_enrollment_code(
  p_device_id bigint default null,
  p_max_uses integer default 1,
  p_expires_in interval default '1 day',
  p_tags text[] default '{}',
  p_group_ids bigint[] default '{}',
  p_owner_id uuid default null
)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.create_enrollment_code(p_device_id, p_max_uses, fleet.calendar_interval(p_expires_in), p_tags, p_group_ids, p_owner_id)
$$;

comment on function public.create_enrollment_code(bigint, integer, interval, text[], bigint[], uuid) is
  'Make a code that devices trade for their secret; shown this once. {id, code, expires_at, max_uses}. With p_device_id it re-keys '
  'that device. Devices get the tags, join the groups, and belong to the owner of these, or to the one that is named. Raises PT404, PT403 or enrollment_code_invalid (PT422).';
revoke all on function public.create_enrollment_code(bigint, integer, interval, text[], bigint[], uuid)
  from public, anon, authenticated, service_role;
grant execute on function public.create_enrollment_code(bigint, integer, interval, text[], bigint[], uuid)
  to authenticated, service_role;

create or replace function fleet.create_enrollment_code(
  p_device_id bigint,
  p_max_uses integer,
  p_expires_in interval,
  p_tags text[],
  p_group_ids bigint[],
  p_owner_id uuid
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid;
  v_code text := upper(substr(fleet.random_secret(), 1, 32));
  v_row public.enrollment_codes;
  v_foreign bigint;
begin
  if p_device_id is null then
    v_owner := fleet.owner_or_own(coalesce(p_owner_id, fleet.owner_of_named('{}', p_group_ids)));
  else
    select d.owner_id into v_owner from public.devices as d where d.id = p_device_id;
    if v_owner is null then
      perform fleet.raise_device_not_found(p_device_id);
    end if;
  end if;
  perform fleet.require_permission(
    v_owner, 'manage', case when p_device_id is null then format('owner %s', v_owner) else format('device %s', p_device_id) end
  );

  if (p_max_uses between 1 and 100000 and p_expires_in > interval '0') is not true then
    raise exception 'max_uses must be 1 to 100000 and expires_in positive'
      using errcode = 'PT422',
            detail = 'enrollment_code_invalid',
            hint = 'Example: select create_enrollment_code(p_max_uses => 30, p_expires_in => ''2 days'')';
  end if;

  select u.id into v_foreign
  from unnest(p_group_ids) as u(id)
  where not exists (
    select 1 from public.device_groups as g where g.id = u.id and g.owner_id = v_owner and g.selector is null
  )
  limit 1;
  if found then
    raise exception 'group_ids: group % was not found among the static groups', v_foreign
      using errcode = 'PT404',
            detail = 'group_not_found',
            hint = 'List your groups with: select * from group_list';
  end if;

  insert into public.enrollment_codes (
    owner_id, device_id, code_hash, max_uses, tags, group_ids, expires_at, created_by
  )
  values (
    v_owner, p_device_id, fleet.hash_secret(v_code), p_max_uses, coalesce(p_tags, '{}'), coalesce(p_group_ids, '{}'),
    now() + p_expires_in, fleet.current_user_id()
  )
  returning * into v_row;

  return jsonb_build_object(
    'id', v_row.id, 'code', v_code, 'expires_at', v_row.expires_at, 'max_uses', v_row.max_uses
  );
end;
$$;

comment on function fleet.create_enrollment_code(bigint, integer, interval, text[], bigint[], uuid) is
  'See public.create_enrollment_code. Definer: it checks the caller, then writes the hash of the code.';
revoke all on function fleet.create_enrollment_code(bigint, integer, interval, text[], bigint[], uuid)
  from public, anon, authenticated, service_role;
grant execute on function fleet.create_enrollment_code(bigint, integer, interval, text[], bigint[], uuid)
  to authenticated, service_role;

create or replace function public.revoke_enrollment_code(p_id bigint)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  update public.enrollment_codes as c
  set revoked_at = now()
  where c.id = p_id and c.revoked_at is null;
  if not found then
    raise exception 'enrolment code % was not found or is revoked already', p_id
      using errcode = 'PT404',
            detail = 'enrollment_code_not_found',
            hint = 'List the codes with: select id, expires_at, used_count from enrollment_codes';
  end if;
end;
$$;

comment on function public.revoke_enrollment_code(bigint) is
  'End a code before its time. Raises enrollment_code_not_found (PT404).';
revoke all on function public.revoke_enrollment_code(bigint) from public, anon, authenticated, service_role;
grant execute on function public.revoke_enrollment_code(bigint) to authenticated, service_role;

create or replace function fleet.take_enrollment_code(p_code text, p_now timestamptz)
returns public.enrollment_codes
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.enrollment_codes;
begin
  -- Counting and checking in one statement: two devices with the same code at once cannot both have its last use.
  update public.enrollment_codes as c
  set used_count = c.used_count + 1
  where c.code_hash = fleet.hash_secret(upper(btrim(p_code)))
    and c.revoked_at is null
    and c.expires_at > p_now
    and c.used_count < c.max_uses
  returning * into v_row;

  if not found then
    raise exception 'the enrolment code is unknown, used up, revoked or expired'
      using errcode = 'PT401',
            detail = 'enrollment_code_refused',
            hint = 'Ask the operator for a new code: pgfleet device enroll-code';
  end if;
  return v_row;
end;
$$;

comment on function fleet.take_enrollment_code(text, timestamptz) is
  'Use a code once. Raises enrollment_code_refused (PT401).';
revoke all on function fleet.take_enrollment_code(text, timestamptz) from public, anon, authenticated, service_role;

-- db/sources/10_registry/35_enrollment.sql
-- Enrolment: a device trades a code for a secret of its own, and the secret for tokens.

create or replace function fleet.repeated_enrollment(p_key text)
returns public.devices
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- The answer to an enrolment may get lost on its way. Until its secret was used, the device may ask once more.
  select d.*
  from fleet.device_credentials as k
  join public.devices as d on d.id = k.device_id and d.status = 'active'
  where k.enrollment_key_hash = fleet.hash_secret(p_key)
    and k.last_used_at is null
    and length(p_key) >= 32
$$;

comment on function fleet.repeated_enrollment(text) is
  'The device that enrolled with this key of its own and has not used its secret; null where there is none.';
revoke all on function fleet.repeated_enrollment(text) from public, anon, authenticated, service_role;

create or replace function fleet.issue_device_secret(p_device_id bigint, p_key text default null)
returns text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_secret text := format('pgfd_%s_%s', p_device_id, fleet.random_secret());
begin
  insert into fleet.device_credentials (device_id, owner_id, secret_hash, enrollment_key_hash)
  select d.id, d.owner_id, fleet.hash_secret(v_secret), fleet.hash_secret(p_key) from public.devices as d where d.id = p_device_id
  on conflict (device_id) do update
    set secret_hash = excluded.secret_hash, enrollment_key_hash = excluded.enrollment_key_hash,
        created_at = now(), last_used_at = null, instances = '{}';
  -- Whoever copied the former one has nothing any more.
  update public.devices as d set clone_seen_at = null where d.id = p_device_id and d.clone_seen_at is not null;
  return v_secret;
end;
$$;

comment on function fleet.issue_device_secret(bigint, text) is 'Give a device a new secret; the former one is void.';
revoke all on function fleet.issue_device_secret(bigint, text) from public, anon, authenticated, service_role;

create or replace function fleet.worker_enroll_device(
  p_code text,
  p_hostname text,
  p_facts jsonb default '{}',
  p_now timestamptz default now()
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_code public.enrollment_codes;
  v_device public.devices;
  v_is_back boolean;
begin
  if coalesce(btrim(p_hostname), '') = '' or length(p_hostname) > 253 then
    raise exception 'hostname must be text of 1 to 253 characters'
      using errcode = 'PT422', detail = 'hostname_invalid', hint = 'Send the name of the device as "hostname".';
  end if;

  v_device := fleet.repeated_enrollment(p_facts ->> 'enrollment_key');
  if v_device.id is not null then
    return fleet.device_identity(v_device) || jsonb_build_object(
      'device_secret', fleet.issue_device_secret(v_device.id, p_facts ->> 'enrollment_key')
    );
  end if;

  v_code := fleet.take_enrollment_code(p_code, p_now);
  perform fleet.refuse_mover(v_code.owner_id);
  if v_code.device_id is not null then
    v_is_back := exists (select 1 from public.devices as d where d.id = v_code.device_id and d.status <> 'active');
    -- A new auth_id shuts out whoever still holds a token of the old one.
    update public.devices as d
    set auth_id = gen_random_uuid(), status = 'active', enrolled_at = p_now
    where d.id = v_code.device_id
    returning * into v_device;
    if v_is_back then
      perform fleet.require_quota(v_device.owner_id, 'devices');
    end if;
  else
    insert into public.devices as d (owner_id, hostname, enrolled_at)
    values (v_code.owner_id, btrim(p_hostname), p_now)
    -- A row that an operator prepared is taken over; one that is enrolled already is not.
    on conflict (owner_id, lower(hostname)) do update set enrolled_at = p_now
      where d.enrolled_at is null and d.status = 'active' and d.prepared
    returning * into v_device;
    if not found and exists (
      select 1
      from public.devices as d
      where d.owner_id = v_code.owner_id and lower(d.hostname) = lower(btrim(p_hostname)) and d.enrolled_at is null and d.status = 'active'
    ) then
      -- Whoever knows a name that an MDM brought is not that device.
      raise exception 'hostname "%" belongs to a device that nobody prepared for enrolment', btrim(p_hostname)
        using errcode = 'PT409',
              detail = 'device_not_prepared',
              hint = 'Ask the operator for a code for that very device: pgfleet device rekey <hostname>';
    elsif not found then
      raise exception 'hostname "%" belongs to a device that is enrolled already', btrim(p_hostname)
        using errcode = 'PT409',
              detail = 'device_enrolled',
              hint = 'Re-key it: select rekey_device(<id>)';
    end if;
    perform fleet.require_quota(v_device.owner_id, 'devices');
  end if;

  perform fleet.store_facts(v_device.id, p_facts);
  update public.devices as d
  set tags = array(select distinct t from unnest(d.tags || v_code.tags) as t order by t)
  where d.id = v_device.id and v_code.tags <> '{}';
  insert into public.device_group_members (group_id, device_id, owner_id)
  select g.id, v_device.id, v_device.owner_id
  from unnest(v_code.group_ids) as u(id)
  join public.device_groups as g on g.id = u.id and g.owner_id = v_device.owner_id
  on conflict do nothing;

  return fleet.device_identity(v_device)
    || jsonb_build_object('device_secret', fleet.issue_device_secret(
      v_device.id, p_facts ->> 'enrollment_key'
    ));
end;
$$;

comment on function fleet.worker_enroll_device(text, text, jsonb, timestamptz) is
  'Trade a code for a device and its secret; again with the same facts.enrollment_key where the answer got lost. {device_id, auth_id, hostname, owner_id, topic, device_secret}. Raises '
  'enrollment_code_refused (PT401), device_enrolled, device_not_prepared (PT409), hostname_invalid (PT422). Definer: the code is the right to do it.';
revoke all on function fleet.worker_enroll_device(text, text, jsonb, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.device_identity(p_device public.devices)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'device_id', p_device.id,
    'auth_id', p_device.auth_id,
    'hostname', p_device.hostname,
    'owner_id', p_device.owner_id,
    'topic', 'device:' || p_device.auth_id
  )
$$;

comment on function fleet.device_identity(public.devices) is 'What a device is told about itself.';
revoke all on function fleet.device_identity(public.devices) from public, anon, authenticated, service_role;

create or replace function fleet.note_instance(p_device_id bigint, p_instance text, p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_before text[];
begin
  select c.instances into v_before from fleet.device_credentials as c where c.device_id = p_device_id for update;
  if v_before[1] is not distinct from p_instance then
    return;
  end if;

  update fleet.device_credentials as c
  set instances = (p_instance || array_remove(v_before, p_instance))[1:8]
  where c.device_id = p_device_id;
  -- Neither a restart nor a sleep brings one back after another: two disks hold this secret.
  update public.devices as d set clone_seen_at = p_now where d.id = p_device_id and p_instance = any (v_before);
end;
$$;

comment on function fleet.note_instance(bigint, text, timestamptz) is
  'Remember which running agent asked for a token; where an earlier one asks again after another, mark the device as cloned.';
revoke all on function fleet.note_instance(bigint, text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.moved_to(p_secret_hash bytea)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'moved_to', jsonb_build_object(
      'device_id', d.device_id, 'url', m.url, 'functions_url', coalesce(m.functions_url, m.url || '/functions/v1'), 'anon_key', m.anon_key
    ),
    'signature', encode(
      fleet.hmac_sha256(
        convert_to(concat_ws(
          E'\n', 'pgfleet moved', d.device_id, m.url, coalesce(m.functions_url, m.url || '/functions/v1'), m.anon_key
        ), 'UTF8'),
        d.secret_hash
      ), 'hex'
    )
  )
  from fleet.moved_devices as d
  join fleet.owner_moves as m on m.owner_id = d.owner_id and m.state = 'moved'
  where d.secret_hash = p_secret_hash
$$;

comment on function fleet.moved_to(bytea) is
  'Where the device with this hash of a secret is now: {moved_to: {device_id, url, functions_url, anon_key}, signature}; null where it is '
  'here. The signature is the HMAC-SHA256, under the hash of the secret, of the lines pgfleet moved, device_id, url, functions_url and anon_key: '
  'nobody but its own server and the device can make it.';
revoke all on function fleet.moved_to(bytea) from public, anon, authenticated, service_role;

create or replace function fleet.worker_device_token(
  p_device_secret text,
  p_now timestamptz default now(),
  p_instance text default null
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device public.devices;
  v_moved jsonb := fleet.moved_to(fleet.hash_secret(p_device_secret));
begin
  if v_moved is not null then
    return v_moved;
  end if;
  update fleet.device_credentials as c
  set last_used_at = p_now
  where c.device_id = (substring(p_device_secret from '^pgfd_([0-9]{1,18})_[0-9a-f]{64}$'))::bigint
    and c.secret_hash = fleet.hash_secret(p_device_secret);
  if not found then
    raise exception 'the device secret is not known'
      using errcode = 'PT401',
            detail = 'device_secret_unknown',
            hint = 'The device was re-keyed or retired: enrol it again with a new code.';
  end if;

  select d.* into v_device
  from public.devices as d
  where d.id = (substring(p_device_secret from '^pgfd_([0-9]+)_'))::bigint;
  if v_device.status <> 'active' then
    raise exception 'device "%" is retired', v_device.hostname
      using errcode = 'PT403',
            detail = 'device_retired',
            hint = 'Re-key it to bring it back: select rekey_device(<id>)';
  end if;
  perform fleet.refuse_mover(v_device.owner_id);
  if length(p_instance) between 1 and 64 then
    perform fleet.note_instance(v_device.id, p_instance, p_now);
    select d.* into v_device from public.devices as d where d.id = v_device.id;
  end if;
  perform fleet.count_request(v_device.id, 'token', p_now);
  return fleet.device_identity(v_device) || jsonb_build_object('clone_seen_at', v_device.clone_seen_at);
end;
$$;

comment on function fleet.worker_device_token(text, timestamptz, text) is
  'Whose secret this is; p_instance tells running agents apart, so that a copied disk is noticed. Raises device_secret_unknown (PT401) or '
  'device_retired (PT403), or owner_moving (PT503) while its fleet is being moved. Of a device that was moved it answers {moved_to, signature} '
  'alone: see fleet.moved_to. Definer: the secret is the right to ask.';
revoke all on function fleet.worker_device_token(text, timestamptz, text) from public, anon, authenticated, service_role;

-- db/sources/10_registry/40_selectors.sql
-- Selectors: choosing devices by tags, platform and attributes, and by what they report of themselves only where that is named.

-- Without a subquery, so that Postgres inlines it: it is asked for each device of a fleet.
create or replace function fleet.device_matches(
  p_selector jsonb,
  p_tags text[],
  p_platform text,
  p_attributes jsonb,
  p_reported jsonb
)
returns boolean
language sql
stable
parallel safe
return (
  (not p_selector ? 'tags'
    or to_jsonb(p_tags) @> (p_selector -> 'tags'))
  and (not p_selector ? 'any_tags'
    or (p_selector -> 'any_tags') ?| p_tags)
  and (not p_selector ? 'platform'
    or coalesce(p_selector -> 'platform' @> to_jsonb(p_platform), false))
  and (not p_selector ? 'attributes'
    or p_attributes @> (p_selector -> 'attributes'))
  and (not p_selector ? 'reported'
    or p_reported @> (p_selector -> 'reported'))
);

comment on function fleet.device_matches(jsonb, text[], text, jsonb, jsonb) is
  'Whether a device has all of selector.tags, one of any_tags, one of platform, and contains attributes, and reported contains what '
  'the selector wants of it. Every key must hold; '
  'an empty selector matches every device.';
revoke all on function fleet.device_matches(jsonb, text[], text, jsonb, jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.device_matches(jsonb, text[], text, jsonb, jsonb) to authenticated, service_role;

create or replace function fleet.selector_problems(p_selector jsonb)
returns setof fleet.problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select 'selector', 'must be an object', 'Example: {"tags": ["school-7"], "platform": ["windows"]}'
  where p_selector is not null and jsonb_typeof(p_selector) <> 'object'
  union all
  select 'selector.' || e.key, 'is not a key of a selector', 'The keys are tags, any_tags, platform, attributes and reported.'
  from jsonb_each(case when jsonb_typeof(p_selector) = 'object' then p_selector else '{}' end) as e
  where e.key not in ('tags', 'any_tags', 'platform', 'attributes', 'reported')
  union all
  select 'selector.' || e.key, 'must be a list of text', format('Example: {"%s": ["one", "two"]}', e.key)
  from jsonb_each(case when jsonb_typeof(p_selector) = 'object' then p_selector else '{}' end) as e
  where e.key in ('tags', 'any_tags', 'platform')
    and (jsonb_typeof(e.value) <> 'array' or jsonb_path_exists(e.value, 'strict $[*] ? (@.type() != "string")', '{}', true))
    and not (e.key = 'platform' and jsonb_typeof(e.value) = 'string')
  union all
  select q.*
  from unnest('{tags,any_tags,platform}'::text[]) as k(key)
  cross join lateral fleet.list_problem('selector.' || k.key, 'selector_list', p_selector -> k.key) as q
  union all
  select 'selector.' || k.key, 'must be an object', format('Example: {"%s": {"lab": 3}}', k.key)
  from unnest('{attributes,reported}'::text[]) as k(key)
  where jsonb_typeof(p_selector) = 'object'
    and p_selector ? k.key
    and jsonb_typeof(p_selector -> k.key) <> 'object';
end;
$$;

comment on function fleet.selector_problems(jsonb) is 'Everything that is wrong with a selector; no row where nothing is.';
revoke all on function fleet.selector_problems(jsonb) from public, anon, authenticated, service_role;

-- db/sources/10_registry/45_targets.sql
-- Targets: the devices that lists, groups and a selector name together.

create or replace function fleet.targets(
  p_owner_id uuid,
  p_device_ids bigint[],
  p_group_ids bigint[],
  p_selector jsonb,
  p_after_id bigint default 0,
  p_limit integer default null
)
returns table (device_id bigint, hostname text, timezone text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_group_ids = '{}' and p_device_ids = '{}' then
    -- The common case of large fleets: in the order of an index, with nothing to sort and nothing twice.
    return query
    select d.id, d.hostname, d.timezone
    from public.devices as d
    where p_selector is not null
      and d.owner_id = p_owner_id
      and d.status = 'active'
      and d.id > p_after_id
      and fleet.device_matches(p_selector, d.tags, d.platform, d.attributes, d.reported)
    order by d.id
    limit p_limit;
    return;
  elsif p_group_ids = '{}' and p_selector is null then
    -- That of most schedules: by their key, planned at a tenth of the cost of what follows.
    return query
    select d.id, d.hostname, d.timezone
    from public.devices as d
    where d.id = any (p_device_ids)
      and d.owner_id = p_owner_id
      and d.status = 'active'
      and d.id > p_after_id
    order by d.id
    limit p_limit;
    return;
  end if;

  -- Each branch is bounded by itself and brings its columns along, so that the next chunk of a large fleet costs a chunk.
  return query
  select u.id, u.hostname, u.timezone
  from (
    (
      select d.id, d.hostname, d.timezone
      from public.devices as d
      where d.id = any (p_device_ids)
        and d.owner_id = p_owner_id
        and d.status = 'active'
        and d.id > p_after_id
      order by d.id
      limit p_limit
    )
    union
    (
      select d.id, d.hostname, d.timezone
      from public.device_group_members as m
      join public.devices as d on d.id = m.device_id
      where m.group_id = any (p_group_ids)
        and m.owner_id = p_owner_id
        and m.device_id > p_after_id
        and d.owner_id = p_owner_id
        and d.status = 'active'
      order by m.device_id
      -- A device may be a member of each of the groups.
      limit p_limit * greatest(cardinality(p_group_ids), 1)
    )
    union
    (
      select d.id, d.hostname, d.timezone
      from public.devices as d
      where p_selector is not null
        and d.owner_id = p_owner_id
        and d.status = 'active'
        and d.id > p_after_id
        and fleet.device_matches(p_selector, d.tags, d.platform, d.attributes, d.reported)
      order by d.id
      limit p_limit
    )
    union
    (
      select d.id, d.hostname, d.timezone
      from public.devices as d
      -- Static groups need no look at the devices of the owner.
      where exists (
          select 1 from public.device_groups as g
          where g.id = any (p_group_ids) and g.selector is not null
        )
        and d.owner_id = p_owner_id
        and d.status = 'active'
        and d.id > p_after_id
        and exists (
          select 1
          from public.device_groups as g
          where g.id = any (p_group_ids)
            and g.owner_id = p_owner_id
            and g.selector is not null
            and fleet.device_matches(g.selector, d.tags, d.platform, d.attributes, d.reported)
        )
      order by d.id
      limit p_limit
    )
  ) as u
  order by u.id
  limit p_limit;
end;
$$;

comment on function fleet.targets(uuid, bigint[], bigint[], jsonb, bigint, integer) is
  'Active devices of one owner that the lists, groups or selector name, by id, from the one after p_after_id. What belongs to '
  'another owner is never among them.';
revoke all on function fleet.targets(uuid, bigint[], bigint[], jsonb, bigint, integer)
  from public, anon, authenticated, service_role;

create or replace function fleet.has_targets(
  p_owner_id uuid,
  p_device_ids bigint[],
  p_group_ids bigint[],
  p_selector jsonb
)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_selector jsonb;
begin
  if exists (
    select 1 from public.devices as d where d.id = any (p_device_ids) and d.owner_id = p_owner_id and d.status = 'active'
  ) then
    return true;
  elsif p_group_ids <> '{}' and exists (
    select 1
    from public.device_group_members as m
    join public.devices as d on d.id = m.device_id
    where m.group_id = any (p_group_ids) and m.owner_id = p_owner_id and d.owner_id = p_owner_id and d.status = 'active'
  ) then
    return true;
  end if;

  for v_selector in
    select p_selector where p_selector is not null
    union all
    select g.selector
    from public.device_groups as g
    where g.id = any (p_group_ids) and g.owner_id = p_owner_id and g.selector is not null
  loop
    if fleet.selects_anybody(p_owner_id, v_selector) then
      return true;
    end if;
  end loop;
  return false;
end;
$$;

comment on function fleet.has_targets(uuid, bigint[], bigint[], jsonb) is
  'Whether lists, groups or selector name an active device of this owner; true also where that could only be told by looking at the whole '
  'fleet.';
revoke all on function fleet.has_targets(uuid, bigint[], bigint[], jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.selects_anybody(p_owner_id uuid, p_selector jsonb)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  -- So many devices are looked at, and no more: it is a warning that is at stake.
  c_most constant integer := 500;
  v_tags text[] := array(
    select jsonb_array_elements_text(
      case when jsonb_array_length(p_selector -> 'tags') > 0 then p_selector -> 'tags' else p_selector -> 'any_tags' end
    )
  );
  v_is_found boolean;
  v_is_cut boolean;
begin
  if exists (
    select 1
    from (
      select x.tags, x.platform, x.attributes, x.reported
      from public.devices as x
      where x.owner_id = p_owner_id and x.status = 'active'
      order by x.id
      limit c_most
    ) as d
    where fleet.device_matches(p_selector, d.tags, d.platform, d.attributes, d.reported)
  ) then
    return true;
  elsif (
    select count(*)
    from (select from public.devices as x where x.owner_id = p_owner_id and x.status = 'active' limit c_most) as d
  ) < c_most then
    return false;
  end if;

  -- Not at once, then: whoever has the tags is found by them, however many others there are.
  if jsonb_array_length(p_selector -> 'tags') > 0 then
    select coalesce(bool_or(
        d.owner_id = p_owner_id and d.status = 'active'
          and fleet.device_matches(p_selector, d.tags, d.platform, d.attributes, d.reported)
      ), false), count(*) = c_most
    into v_is_found, v_is_cut
    from (
      select x.owner_id, x.status, x.tags, x.platform, x.attributes, x.reported
      from public.devices as x
      where x.tags @> v_tags
      limit c_most
    ) as d;
    return v_is_found or v_is_cut;
  elsif p_selector ? 'any_tags' then
    select coalesce(bool_or(
        d.owner_id = p_owner_id and d.status = 'active'
          and fleet.device_matches(p_selector, d.tags, d.platform, d.attributes, d.reported)
      ), false), count(*) = c_most
    into v_is_found, v_is_cut
    from (
      select x.owner_id, x.status, x.tags, x.platform, x.attributes, x.reported
      from public.devices as x
      where x.tags && v_tags
      limit c_most
    ) as d;
    return v_is_found or v_is_cut;
  end if;
  return true;
end;
$$;

comment on function fleet.selects_anybody(uuid, jsonb) is
  'Whether a selector finds an active device of this owner. Looks at a few devices and then into the index of tags; true where both are not '
  'enough to tell.';
revoke all on function fleet.selects_anybody(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function public.group_devices(p_group_id bigint)
returns setof public.devices
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select d.*
  from public.device_groups as g
  join public.devices as d on d.owner_id = g.owner_id and d.status = 'active'
  where g.id = p_group_id
    and (
      (g.selector is not null and fleet.device_matches(g.selector, d.tags, d.platform, d.attributes, d.reported))
      or exists (
        select 1 from public.device_group_members as m
        where m.group_id = g.id and m.device_id = d.id
      )
    )
  order by d.id
$$;

comment on function public.group_devices(bigint) is
  'The active devices of a group at this moment, members and selected ones. None for a group that is not yours.';
revoke all on function public.group_devices(bigint) from public, anon, authenticated, service_role;
grant execute on function public.group_devices(bigint) to authenticated, service_role;

create or replace function fleet.target_problems(
  p_owner_id uuid,
  p_device_ids bigint[],
  p_group_ids bigint[],
  p_selector jsonb
)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- A list of ids is planned anew at each call otherwise, as if its length mattered.
set plan_cache_mode = force_generic_plan
as $$
begin
  -- One look at an index for each, never a walk over the fleet; which of them it is, is asked only where one is not there.
  if cardinality(p_device_ids) > (
    select count(*) from public.devices as d where d.id = any (p_device_ids) and d.owner_id = p_owner_id
  ) then
    return query
    select 'device_ids', p.problem, p.hint
    from unnest(p_device_ids) as u(id)
    cross join lateral fleet.elsewhere_problem(
      'device', u.id::text, (select d.owner_id from public.devices as d where d.id = u.id)
    ) as p
    where (select d.owner_id from public.devices as d where d.id = u.id) is distinct from p_owner_id;
  end if;
  if p_group_ids <> '{}' then
    return query
    select 'group_ids', p.problem, p.hint
    from unnest(p_group_ids) as u(id)
    cross join lateral fleet.elsewhere_problem(
      'group', u.id::text, (select g.owner_id from public.device_groups as g where g.id = u.id)
    ) as p
    where not exists (select 1 from public.device_groups as g where g.id = u.id and g.owner_id = p_owner_id);
  end if;
  if p_selector is not null then
    return query select s.field, s.problem, s.hint from fleet.selector_problems(p_selector) as s;
  elsif p_device_ids = '{}' and p_group_ids = '{}' then
    return next (
      'device_ids', 'names nobody: there is no device, group or selector',
      'Give device_ids, group_ids or a selector; an empty selector {} means every device.'
    )::fleet.problem;
  end if;
end;
$$;

comment on function fleet.target_problems(uuid, bigint[], bigint[], jsonb) is
  'Targets that do not exist for this owner. What belongs to another owner is as good as not there, but for whoever sees it there.';
revoke all on function fleet.target_problems(uuid, bigint[], bigint[], jsonb)
  from public, anon, authenticated, service_role;

-- db/sources/10_registry/46_targets_in_zones.sql
-- Targets in some time zones: who is due where it is half past six now.

create or replace function fleet.targets_in_zones(
  p_owner_id uuid,
  p_device_ids bigint[],
  p_group_ids bigint[],
  p_selector jsonb,
  p_zones text[],
  p_only_ids bigint[],
  p_zone_at integer,
  p_after_id bigint,
  p_limit integer
)
returns table (device_id bigint, hostname text, timezone text, zone_at integer)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  -- More members than this are looked for among the devices of the zone.
  c_few constant integer := 2000;
  v_ids bigint[];
  v_is_dynamic boolean := p_selector is not null or exists (
    select 1 from public.device_groups as g where g.id = any (p_group_ids) and g.owner_id = p_owner_id and g.selector is not null
  );
  v_left integer := p_limit;
  v_after bigint := p_after_id;
  v_made bigint;
begin
  if not v_is_dynamic then
    v_ids := p_device_ids || array(
      select m.device_id
      from public.device_group_members as m
      where m.group_id = any (p_group_ids) and m.owner_id = p_owner_id
      limit c_few + 1
    );
    if cardinality(v_ids) > cardinality(p_device_ids) + c_few then
      v_ids := null;
    end if;
  end if;

  for v_at in p_zone_at..cardinality(p_zones) loop
    if v_ids is not null or p_only_ids is not null then
      return query
      select d.id, d.hostname, d.timezone, v_at
      from public.devices as d
      where d.id = any (coalesce(p_only_ids, v_ids))
        and (v_ids is null or d.id = any (v_ids))
        and d.owner_id = p_owner_id
        and d.status = 'active'
        and coalesce(d.timezone, '') = p_zones[v_at]
        and d.id > v_after
        and (v_ids is not null or fleet.is_meant(p_owner_id, p_device_ids, p_group_ids, p_selector, d))
      order by d.id
      limit v_left;
    elsif p_group_ids = '{}' and p_device_ids = '{}' then
      return query
      select d.id, d.hostname, d.timezone, v_at
      from public.devices as d
      where d.owner_id = p_owner_id
        and d.status = 'active'
        and coalesce(d.timezone, '') = p_zones[v_at]
        and d.id > v_after
        and fleet.device_matches(p_selector, d.tags, d.platform, d.attributes, d.reported)
      order by d.id
      limit v_left;
    else
      return query
      select d.id, d.hostname, d.timezone, v_at
      from public.devices as d
      where d.owner_id = p_owner_id
        and d.status = 'active'
        and coalesce(d.timezone, '') = p_zones[v_at]
        and d.id > v_after
        and fleet.is_meant(p_owner_id, p_device_ids, p_group_ids, p_selector, d)
      order by d.id
      limit v_left;
    end if;
    get diagnostics v_made = row_count;
    v_left := v_left - v_made;
    exit when v_left <= 0;
    v_after := 0;
  end loop;
end;
$$;

comment on function fleet.targets_in_zones(uuid, bigint[], bigint[], jsonb, text[], bigint[], integer, bigint, integer) is
  'Those targets that are in these zones, an empty name for no zone: zone after zone, by id, from the zone p_zone_at and the device after '
  'p_after_id; only some devices where p_only_ids says so.';
revoke all on function fleet.targets_in_zones(uuid, bigint[], bigint[], jsonb, text[], bigint[], integer, bigint, integer)
  from public, anon, authenticated, service_role;

create or replace function fleet.is_meant(
  p_owner_id uuid,
  p_device_ids bigint[],
  p_group_ids bigint[],
  p_selector jsonb,
  p_device public.devices
)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return p_device.id = any (p_device_ids)
    or (p_selector is not null and fleet.device_matches(p_selector, p_device.tags, p_device.platform, p_device.attributes, p_device.reported))
    or (p_group_ids <> '{}' and (
      exists (
        select 1
        from public.device_group_members as m
        where m.group_id = any (p_group_ids) and m.device_id = p_device.id and m.owner_id = p_owner_id
      )
      or exists (
        select 1
        from public.device_groups as g
        where g.id = any (p_group_ids)
          and g.owner_id = p_owner_id
          and g.selector is not null
          and fleet.device_matches(g.selector, p_device.tags, p_device.platform, p_device.attributes, p_device.reported)
      )
    ));
end;
$$;

comment on function fleet.is_meant(uuid, bigint[], bigint[], jsonb, public.devices) is
  'Whether the lists, groups or selector name this device.';
revoke all on function fleet.is_meant(uuid, bigint[], bigint[], jsonb, public.devices) from public, anon, authenticated, service_role;

-- db/sources/10_registry/47_members.sql
-- Who is in a group that lists its members.

create or replace function public.add_to_group(p_group_id bigint, p_device_ids bigint[])
returns integer
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  with added as (
    insert into public.device_group_members (group_id, device_id)
    select p_group_id, u.id
    from unnest(p_device_ids) as u(id)
    on conflict (group_id, device_id) do nothing
    returning device_id
  )
  select count(*)::integer from added
$$;

comment on function public.add_to_group(bigint, bigint[]) is
  'Add devices to a group; how many were not in it. Raises what an insert into device_group_members raises.';
revoke all on function public.add_to_group(bigint, bigint[]) from public, anon, authenticated, service_role;
grant execute on function public.add_to_group(bigint, bigint[]) to authenticated, service_role;

create or replace function public.remove_from_group(p_group_id bigint, p_device_ids bigint[])
returns integer
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  with removed as (
    delete from public.device_group_members as m
    where m.group_id = p_group_id and m.device_id = any (p_device_ids)
    returning m.device_id
  )
  select count(*)::integer from removed
$$;

comment on function public.remove_from_group(bigint, bigint[]) is
  'Take devices out of a group; how many were in it. None of a group that is not yours.';
revoke all on function public.remove_from_group(bigint, bigint[]) from public, anon, authenticated, service_role;
grant execute on function public.remove_from_group(bigint, bigint[]) to authenticated, service_role;

-- db/sources/10_registry/50_names.sql
-- Owners, devices and groups by their names.

create or replace function public.owner_id(p_name text)
returns uuid
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.only_one(
    'owner', p_name,
    array(select x.id::text from public.owners as x where lower(x.name) = lower(p_name) order by x.id),
    (select x.id::text from public.owners as x where x.id::text = lower(p_name))
  )::uuid
$$;

comment on function public.owner_id(text) is
  'The owner that a name or an id means; a name in any case, and it wins over an id. Raises owner_not_found (PT404) or '
  'owner_ambiguous (PT409).';
revoke all on function public.owner_id(text) from public, anon, authenticated, service_role;
grant execute on function public.owner_id(text) to authenticated, service_role;

create or replace function public.device_id(p_name text)
returns bigint
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.only_one(
    'device', p_name,
    array(select x.id::text from public.devices as x where lower(x.hostname) = lower(p_name) order by x.id),
    (select x.id::text from public.devices as x where x.id = fleet.try_bigint(p_name))
  )::bigint
$$;

comment on function public.device_id(text) is
  'The device that a host name or an id means; a name in any case, and it wins over an id. Raises device_not_found (PT404) or '
  'device_ambiguous (PT409).';
revoke all on function public.device_id(text) from public, anon, authenticated, service_role;
grant execute on function public.device_id(text) to authenticated, service_role;

create or replace function public.group_id(p_name text)
returns bigint
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.only_one(
    'group', p_name,
    array(select x.id::text from public.device_groups as x where lower(x.name) = lower(p_name) order by x.id),
    (select x.id::text from public.device_groups as x where x.id = fleet.try_bigint(p_name))
  )::bigint
$$;

comment on function public.group_id(text) is
  'The group that a name or an id means; a name in any case, and it wins over an id. Raises group_not_found (PT404) or '
  'group_ambiguous (PT409).';
revoke all on function public.group_id(text) from public, anon, authenticated, service_role;
grant execute on function public.group_id(text) to authenticated, service_role;

create or replace function public.expected_devices(p_names text[] default '{}', p_group_id bigint default null)
returns table (id bigint, hostname text, last_seen timestamptz, has_called boolean)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select
    d.id,
    coalesce(d.hostname, w.name) as hostname,
    d.last_seen,
    coalesce(d.status = 'active' and d.last_seen is not null, false) as has_called
  from (
    select unnest(p_names) as name
    union
    select g.hostname from public.group_devices(p_group_id) as g
  ) as w
  left join public.devices as d on lower(d.hostname) = lower(w.name) or d.id = fleet.try_bigint(w.name)
  order by lower(coalesce(d.hostname, w.name)), d.id
$$;

comment on function public.expected_devices(text[], bigint) is
  'The devices of these names or ids, and of a group, and whether each has ever called or been seen by an MDM. A name that no device has is '
  'one that has not enrolled: its id is null.';
revoke all on function public.expected_devices(text[], bigint) from public, anon, authenticated, service_role;
grant execute on function public.expected_devices(text[], bigint) to authenticated, service_role;

-- db/sources/10_registry/55_requests.sql
-- How often devices ask for something, counted by the day.

create or replace function fleet.count_request(p_device_id bigint, p_kind text, p_now timestamptz, p_times integer default 1)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Nearly always the row of the day is there, and to change it takes less than to try to insert it.
  for v_turn in 1..2 loop
    update public.device_requests as r
    set claims = r.claims + case p_kind when 'claim' then p_times else 0 end,
        looks = r.looks + case p_kind when 'look' then p_times else 0 end,
        tokens = r.tokens + case p_kind when 'token' then p_times else 0 end,
        checkins = r.checkins + case p_kind when 'checkin' then p_times else 0 end,
        -- As it says itself, and so within reason.
        sockets = least(r.sockets + case p_kind when 'socket' then p_times else 0 end, 1000000)
    where r.device_id = p_device_id and r.day = (p_now at time zone 'UTC')::date;
    exit when found;
    insert into public.device_requests (device_id, day, owner_id)
    select d.id, (p_now at time zone 'UTC')::date, d.owner_id
    from public.devices as d
    where d.id = p_device_id
    on conflict (device_id, day) do nothing;
  end loop;
end;
$$;

comment on function fleet.count_request(bigint, text, timestamptz, integer) is
  'Count what a device asked for: claim, look (there was nothing to claim), token, checkin or socket.';
revoke all on function fleet.count_request(bigint, text, timestamptz, integer) from public, anon, authenticated, service_role;

-- db/sources/10_registry/60_quotas.sql
-- Quotas: how much one owner may have and do, so that nobody's share is everybody's.

create or replace function fleet.quotas()
returns table (name text, unit text, over text, condition text)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  values
    ('devices', 'devices', 'public.devices', 'status = ''active'''),
    ('schedules', 'schedules that are not at their end', 'public.schedules', 'status in (''active'', ''paused'')'),
    ('commands_waiting', 'commands that wait', 'public.device_commands', 'status = ''pending'''),
    ('groups', 'groups', 'public.device_groups', null),
    ('locations', 'locations', 'public.locations', null),
    ('geo_schedules', 'geo schedules', 'public.geo_schedules', null),
    ('integrations', 'integrations', 'public.device_integrations', null),
    ('endpoints', 'webhooks and addresses', 'public.webhook_endpoints', null),
    ('feeds', 'calendar feeds that are not revoked', 'public.calendar_feeds', 'revoked_at is null'),
    ('members', 'members', 'public.owner_members', null),
    ('command_types', 'command types of its own', 'public.command_types', null),
    ('commands_a_minute', 'commands a minute', null, null),
    ('mailbox_codes_a_day', 'codes sent to mailboxes a day', null, null),
    ('telemetry_a_day', 'points of telemetry a day', null, null)
$$;

comment on function fleet.quotas() is
  'Every quota: its name, what it counts, and where: the rows of a table that meet a condition, or what happens in a time. How much is allowed '
  'says the setting quota_<name>, or for one owner fleet.owner_quotas.';
revoke all on function fleet.quotas() from public, anon, authenticated, service_role;

create or replace function fleet.quota_of(p_owner_id uuid, p_name text)
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return coalesce(
    (select q.value from fleet.owner_quotas as q where q.owner_id = p_owner_id and q.name = p_name),
    fleet.setting_number('quota_' || p_name)::bigint
  );
end;
$$;

comment on function fleet.quota_of(uuid, text) is 'How much an owner may have of something: its own quota, or that of the settings.';
revoke all on function fleet.quota_of(uuid, text) from public, anon, authenticated, service_role;

create or replace function fleet.quota_period(p_name text)
returns interval
language sql
immutable
parallel safe
return case when p_name like '%\_a\_day' then interval '1 day' else interval '1 minute' end;

comment on function fleet.quota_period(text) is 'In which time as much as the quota may happen.';
revoke all on function fleet.quota_period(text) from public, anon, authenticated, service_role;

create or replace function fleet.quota_used(p_owner_id uuid, p_name text, p_now timestamptz)
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_quota record;
  v_allowed bigint := fleet.quota_of(p_owner_id, p_name);
  v_used bigint;
begin
  select q.* into strict v_quota from fleet.quotas() as q where q.name = p_name;
  if v_quota.over is null then
    return coalesce(
      (
        select greatest(ceil(v_allowed - fleet.quota_left(u.left_over, u.filled_at, v_allowed, p_name, p_now)), 0)
        from fleet.quota_use as u
        where u.owner_id = p_owner_id and u.name = p_name
      ),
      0
    );
  end if;
  -- No further than it takes to tell.
  execute format(
    'select count(*) from (select from %s as x where x.owner_id = $1 and (%s) limit $2) as s', v_quota.over,
    coalesce(v_quota.condition, 'true')
  )
  into v_used
  using p_owner_id, v_allowed + 1000000;
  return v_used;
end;
$$;

comment on function fleet.quota_used(uuid, text, timestamptz) is 'How much an owner has of something, or has done of it in the time that counts.';
revoke all on function fleet.quota_used(uuid, text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.quota_left(
  p_left double precision,
  p_filled_at timestamptz,
  p_allowed bigint,
  p_name text,
  p_now timestamptz
)
returns double precision
language sql
immutable
return least(
  p_left + p_allowed * greatest(extract(epoch from p_now - p_filled_at), 0)::double precision
    / extract(epoch from fleet.quota_period(p_name))::double precision,
  p_allowed
);

comment on function fleet.quota_left(double precision, timestamptz, bigint, text, timestamptz) is
  'What is left now of what was left then: it fills up evenly, up to the whole quota.';
revoke all on function fleet.quota_left(double precision, timestamptz, bigint, text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.raise_quota(p_name text, p_used bigint, p_allowed bigint)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'the quota of % is used up: % of %', (select q.unit from fleet.quotas() as q where q.name = p_name), p_used, p_allowed
    using errcode = 'PT429',
          detail = 'quota_exceeded',
          hint = format('See what is used with: select owner_usage(id) from owners. Whoever runs this platform may allow more of %s.', p_name);
end;
$$;

comment on function fleet.raise_quota(text, bigint, bigint) is 'Raise quota_exceeded (PT429).';
revoke all on function fleet.raise_quota(text, bigint, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.require_quota(p_owner_id uuid, p_name text)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_allowed bigint := fleet.quota_of(p_owner_id, p_name);
  v_used bigint;
begin
  v_used := fleet.quota_used(p_owner_id, p_name, clock_timestamp());
  if v_used > v_allowed then
    -- The one that is too many is not one of them.
    perform fleet.raise_quota(p_name, least(v_used - 1, v_allowed), v_allowed);
  end if;
end;
$$;

comment on function fleet.require_quota(uuid, text) is 'Raise quota_exceeded (PT429) where an owner has more of something than its quota.';
revoke all on function fleet.require_quota(uuid, text) from public, anon, authenticated, service_role;

create or replace function fleet.take_quota(p_owner_id uuid, p_name text, p_count bigint, p_now timestamptz)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_allowed bigint := fleet.quota_of(p_owner_id, p_name);
  v_left double precision;
begin
  -- What another session counts at this moment is not waited for: some more or less is no matter.
  update fleet.quota_use as u
  set left_over = fleet.quota_left(u.left_over, u.filled_at, v_allowed, p_name, p_now) - p_count,
      filled_at = greatest(p_now, u.filled_at)
  from (
    select x.owner_id, x.name from fleet.quota_use as x where x.owner_id = p_owner_id and x.name = p_name for update skip locked
  ) as h
  where u.owner_id = h.owner_id and u.name = h.name
  returning u.left_over into v_left;
  if found then
    return v_left >= 0;
  end if;

  -- Nor is the first count of an owner, whose row nobody else sees before that session ends, and for which an insert would wait.
  if not exists (select 1 from fleet.quota_use as u where u.owner_id = p_owner_id and u.name = p_name)
    and pg_try_advisory_xact_lock(hashtext('pgfleet.quota'), hashtext(p_owner_id || p_name))
  then
    insert into fleet.quota_use as u (owner_id, name, left_over, filled_at)
    values (p_owner_id, p_name, v_allowed - p_count, p_now)
    on conflict (owner_id, name) do update set left_over = u.left_over - p_count
    returning u.left_over into v_left;
  end if;
  return coalesce(v_left >= 0, true);
end;
$$;

comment on function fleet.take_quota(uuid, text, bigint, timestamptz) is
  'Count so many towards a quota that counts by time. False where there was not enough left, which is counted all the same.';
revoke all on function fleet.take_quota(uuid, text, bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.take_quotas(p_owner_ids uuid[], p_counts bigint[], p_name text, p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_allowed bigint;
  v_others uuid[];
begin
  if cardinality(p_owner_ids) = 1 then
    -- Nearly every statement has but one owner, by whose key this is a third of the work.
    perform fleet.take_quota(p_owner_ids[1], p_name, p_counts[1], p_now);
    return;
  end if;
  v_allowed := fleet.setting_number('quota_' || p_name)::bigint;
  with given as materialized (
    select g.owner_id, g.count from unnest(p_owner_ids, p_counts) as g(owner_id, count)
  ),
  held as materialized (
    select u.owner_id
    from fleet.quota_use as u
    where u.owner_id = any (p_owner_ids) and u.name = p_name
    for update skip locked
  ),
  counted as (
    update fleet.quota_use as u
    set left_over = fleet.quota_left(u.left_over, u.filled_at, coalesce(q.value, v_allowed), p_name, p_now) - g.count,
        filled_at = greatest(p_now, u.filled_at)
    from held as h
    join given as g on g.owner_id = h.owner_id
    left join fleet.owner_quotas as q on q.owner_id = h.owner_id and q.name = p_name
    where u.owner_id = h.owner_id and u.name = p_name
    returning u.owner_id
  )
  select array_agg(g.owner_id) into v_others
  from given as g
  where g.owner_id not in (select c.owner_id from counted as c);

  -- Those who are counted for the first time, or by another session at this moment.
  perform fleet.take_quota(g.owner_id, p_name, g.count, p_now)
  from unnest(p_owner_ids, p_counts) as g(owner_id, count)
  where g.owner_id = any (v_others);
end;
$$;

comment on function fleet.take_quotas(uuid[], bigint[], text, timestamptz) is
  'Count for each of these owners so many towards a quota that counts by time, whether or not there is enough left.';
revoke all on function fleet.take_quotas(uuid[], bigint[], text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.is_used_up(p_owner_id uuid, p_name text, p_now timestamptz)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (
    select 1
    from fleet.quota_use as u
    where u.owner_id = p_owner_id and u.name = p_name and u.left_over < 1
      and fleet.quota_left(u.left_over, u.filled_at, fleet.quota_of(p_owner_id, p_name), p_name, p_now) < 1
  );
end;
$$;

comment on function fleet.is_used_up(uuid, text, timestamptz) is 'Whether not even one is left now of a quota that counts by time: it fills up evenly.';
revoke all on function fleet.is_used_up(uuid, text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.tg_keep_quota()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Whoever runs the platform is bound by nothing; the functions that act for owners ask themselves.
  if coalesce(current_setting('request.jwt.claims', true), '') <> '' and not fleet.is_trusted_caller() then
    perform fleet.require_quota(n.owner_id, tg_argv[0]) from (select distinct x.owner_id from new_rows as x) as n;
  end if;
  return null;
end;
$$;

comment on function fleet.tg_keep_quota() is
  'Refuse rows beyond the quota that is named. Raises quota_exceeded (PT429). Definer: it counts rows that the caller may not see.';
revoke all on function fleet.tg_keep_quota() from public, anon, authenticated, service_role;

create or replace function fleet.tg_keep_quota_again()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if coalesce(current_setting('request.jwt.claims', true), '') <> '' and not fleet.is_trusted_caller() then
    perform fleet.require_quota(new.owner_id, tg_argv[0]);
  end if;
  return null;
end;
$$;

comment on function fleet.tg_keep_quota_again() is
  'Refuse what counts again beyond the quota that is named. Raises quota_exceeded (PT429). Definer: it counts rows that the caller may not see.';
revoke all on function fleet.tg_keep_quota_again() from public, anon, authenticated, service_role;

create or replace function fleet.keep_quota(p_table regclass, p_quota text)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  execute format(
    'create or replace trigger %I after insert on %s referencing new table as new_rows'
    ' for each statement execute function fleet.tg_keep_quota(%L)',
    (select c.relname from pg_class as c where c.oid = p_table) || '_80_keep_quota', p_table, p_quota
  );
end;
$$;

comment on function fleet.keep_quota(regclass, text) is 'Hold a table to a quota of fleet.quotas().';
revoke all on function fleet.keep_quota(regclass, text) from public, anon, authenticated, service_role;

create or replace function fleet.set_quota(p_owner_id uuid, p_name text, p_value bigint default null)
returns bigint
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (select 1 from public.owners as o where o.id = p_owner_id) then
    perform fleet.raise_not_found(format('owner %s', p_owner_id));
  elsif not exists (select 1 from fleet.quotas() as q where q.name = p_name) then
    raise exception 'quota "%" is not known', p_name
      using errcode = 'PT404', detail = 'quota_not_found', hint = format('List them with: select owner_usage(%L)', p_owner_id);
  end if;

  if p_value is null then
    delete from fleet.owner_quotas as q where q.owner_id = p_owner_id and q.name = p_name;
  else
    insert into fleet.owner_quotas as q (owner_id, name, value)
    values (p_owner_id, p_name, greatest(p_value, 0))
    on conflict (owner_id, name) do update set value = excluded.value;
  end if;
  return fleet.quota_of(p_owner_id, p_name);
end;
$$;

comment on function fleet.set_quota(uuid, text, bigint) is
  'Allow one owner so much of something; null: as much as the settings say. Answers what holds now. Raises owner_not_found or quota_not_found '
  '(PT404). Definer: nobody writes the table but through this.';
revoke all on function fleet.set_quota(uuid, text, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.set_quota(uuid, text, bigint) to service_role;

create or replace function fleet.owner_usage(p_owner_id uuid, p_now timestamptz)
returns table (name text, used bigint, allowed bigint, unit text)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.require_permission(p_owner_id, 'view', format('owner %s', p_owner_id));
  return query
  select q.name, fleet.quota_used(p_owner_id, q.name, p_now), fleet.quota_of(p_owner_id, q.name), q.unit
  from fleet.quotas() as q;
end;
$$;

comment on function fleet.owner_usage(uuid, timestamptz) is 'See public.owner_usage. Definer: it checks the caller, then counts.';
revoke all on function fleet.owner_usage(uuid, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.owner_usage(uuid, timestamptz) to authenticated, service_role;

create or replace function public.owner_usage(p_owner_id uuid)
returns table (name text, used bigint, allowed bigint, unit text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select u.* from fleet.owner_usage(p_owner_id, clock_timestamp()) as u
$$;

comment on function public.owner_usage(uuid) is
  'What an owner has and does, and how much of it is allowed. Raises owner_not_found (PT404).';
revoke all on function public.owner_usage(uuid) from public, anon, authenticated, service_role;
grant execute on function public.owner_usage(uuid) to authenticated, service_role;

-- db/sources/10_registry/views.sql
-- The registry as people list it.

drop view if exists public.owner_list;
create view public.owner_list with (security_invoker = true) as
select
  o.id,
  o.id as owner_id,
  o.name,
  (select count(*) from public.devices as d where d.owner_id = o.id) as devices,
  (select count(*) from public.schedules as s where s.owner_id = o.id) as schedules,
  (select count(*) from public.owner_members as m where m.owner_id = o.id) as members,
  o.timezone,
  o.is_personal,
  fleet.is_default_owner(o.id) as is_default,
  o.created_at
from public.owners as o;

comment on view public.owner_list is
  'Owners with what each has.';
comment on column public.owner_list.devices is 'How many devices it has, retired ones among them.';
comment on column public.owner_list.schedules is 'How many schedules, of every status.';
comment on column public.owner_list.members is 'How many people.';
comment on column public.owner_list.is_default is
  'Whether it is meant where nothing that is named says which: the only one that you are a member of, else your personal one; in the SQL editor '
  'the one in the setting default_owner.';
select fleet.inherit_comments('public.owner_list', 'public.owners');
revoke all on table public.owner_list from public, anon, authenticated, service_role;
grant select on table public.owner_list to authenticated, service_role;

drop view if exists public.owner_member_list;
create view public.owner_member_list with (security_invoker = true) as
select
  m.owner_id,
  o.name as owner,
  m.user_id,
  m.email,
  m.permissions,
  m.created_at
from public.owner_members as m
join public.owners as o on o.id = m.owner_id;

comment on view public.owner_member_list is
  'The people of each owner, and what they may do there.';
comment on column public.owner_member_list.owner is 'The name of the owner.';
select fleet.inherit_comments('public.owner_member_list', 'public.owner_members');
revoke all on table public.owner_member_list from public, anon, authenticated, service_role;
grant select on table public.owner_member_list to authenticated, service_role;

drop view if exists public.owner_invitation_list;
create view public.owner_invitation_list with (security_invoker = true) as
select
  i.id,
  i.owner_id,
  o.name as owner,
  case
    when i.accepted_at is not null then 'accepted'
    when i.revoked_at is not null then 'withdrawn'
    when i.expires_at <= now() then 'expired'
    else 'open'
  end as state,
  i.email,
  i.permissions,
  i.expires_at,
  i.accepted_at,
  i.accepted_by,
  i.created_by,
  i.created_at
from public.owner_invitations as i
join public.owners as o on o.id = i.owner_id;

comment on view public.owner_invitation_list is
  'Invitations with how they are, for admins; the codes themselves are not kept.';
comment on column public.owner_invitation_list.owner is 'The name of the owner.';
comment on column public.owner_invitation_list.state is 'open, accepted, withdrawn or expired.';
select fleet.inherit_comments('public.owner_invitation_list', 'public.owner_invitations');
revoke all on table public.owner_invitation_list from public, anon, authenticated, service_role;
grant select on table public.owner_invitation_list to authenticated, service_role;

drop view if exists public.device_list;
create view public.device_list with (security_invoker = true) as
select
  d.id,
  d.owner_id,
  o.name as owner,
  d.hostname,
  d.status,
  coalesce(d.platform, d.reported ->> 'platform') as platform,
  d.timezone,
  d.tags,
  d.attributes,
  d.reported,
  d.prepared,
  d.last_seen,
  d.enrolled_at,
  d.clone_seen_at,
  d.latitude,
  d.longitude,
  d.accuracy_m,
  d.located_at,
  d.auth_id,
  'device:' || d.auth_id as topic,
  array(
    select g.name
    from public.device_group_members as m
    join public.device_groups as g on g.id = m.group_id
    where m.device_id = d.id
    order by g.name
  ) as groups,
  (select count(*) from public.device_commands as c where c.device_id = d.id and c.status = 'pending') as pending,
  (
    select coalesce(jsonb_object_agg(s.status, s.count), '{}')
    from (
      select c.status, count(*) from public.device_commands as c where c.device_id = d.id group by c.status
    ) as s
  ) as commands,
  d.created_at,
  d.updated_at
from public.devices as d
join public.owners as o on o.id = d.owner_id;

comment on view public.device_list is
  'Devices with what is known of them and what waits for them.';
comment on column public.device_list.owner is 'The name of the owner.';
comment on column public.device_list.platform is 'What people or another system say; where they say nothing, what it reports.';
comment on column public.device_list.topic is 'The Realtime topic on which its doorbell rings.';
comment on column public.device_list.groups is 'Names of the groups that list it; those that select it are not among them.';
comment on column public.device_list.pending is 'How many commands wait for it.';
comment on column public.device_list.commands is 'How many commands it has had, by status.';
select fleet.inherit_comments('public.device_list', 'public.devices');
revoke all on table public.device_list from public, anon, authenticated, service_role;
grant select on table public.device_list to authenticated, service_role;

drop view if exists public.group_list;
create view public.group_list with (security_invoker = true) as
select
  g.id,
  g.owner_id,
  o.name as owner,
  g.name,
  g.description,
  case when g.selector is null then 'static' else 'dynamic' end as kind,
  g.selector,
  (select count(*) from public.group_devices(g.id)) as devices,
  g.created_at,
  g.updated_at
from public.device_groups as g
join public.owners as o on o.id = g.owner_id;

comment on view public.group_list is
  'Groups with how many devices each has at this moment.';
comment on column public.group_list.owner is 'The name of the owner.';
comment on column public.group_list.kind is
  'static (its members are listed) or dynamic (a selector finds them, beside those that are listed).';
comment on column public.group_list.devices is 'How many active devices it has now.';
select fleet.inherit_comments('public.group_list', 'public.device_groups');
revoke all on table public.group_list from public, anon, authenticated, service_role;
grant select on table public.group_list to authenticated, service_role;

drop view if exists public.enrollment_code_list;
create view public.enrollment_code_list with (security_invoker = true) as
select
  c.id,
  c.owner_id,
  o.name as owner,
  case
    when c.revoked_at is not null then 'revoked'
    when c.used_count >= c.max_uses then 'used up'
    when c.expires_at <= now() then 'expired'
    else 'good'
  end as state,
  c.used_count,
  c.max_uses,
  c.device_id,
  d.hostname as only_for,
  c.tags,
  c.group_ids,
  c.expires_at,
  c.created_at
from public.enrollment_codes as c
join public.owners as o on o.id = c.owner_id
left join public.devices as d on d.id = c.device_id;

comment on view public.enrollment_code_list is
  'Enrolment codes with how they are; the codes themselves are not kept.';
comment on column public.enrollment_code_list.owner is 'The name of the owner.';
comment on column public.enrollment_code_list.state is 'good, used up, expired or revoked.';
comment on column public.enrollment_code_list.only_for is 'The host name of the only device that may use it.';
select fleet.inherit_comments('public.enrollment_code_list', 'public.enrollment_codes');
revoke all on table public.enrollment_code_list from public, anon, authenticated, service_role;
grant select on table public.enrollment_code_list to authenticated, service_role;

drop view if exists public.request_list;
create view public.request_list with (security_invoker = true) as
select
  r.day, r.owner_id, o.name as owner, count(*) as devices, sum(r.claims) as claims, sum(r.looks) as looks, sum(r.tokens) as tokens,
  sum(r.checkins) as checkins, sum(r.sockets) as sockets,
  sum(r.claims + r.looks + r.tokens + r.checkins + r.sockets) as requests,
  round(sum(r.claims + r.looks + r.tokens + r.checkins + r.sockets)::numeric / count(*), 1) as a_device,
  count(*) * 144 as by_polling,
  count(*) * 1440 as by_polling_every_minute,
  round(100 - 100.0 * sum(r.claims + r.looks + r.tokens + r.checkins + r.sockets) / (count(*) * 144)) as percent_saved
from public.device_requests as r
join public.owners as o on o.id = r.owner_id
group by r.day, r.owner_id, o.name;

comment on view public.request_list is
  'How many requests the devices of each owner made on a day, and how many it would have been had each polled every ten minutes.';
comment on column public.request_list.owner is 'The name of the owner.';
comment on column public.request_list.devices is 'How many devices asked for anything.';
comment on column public.request_list.requests is 'All of them.';
comment on column public.request_list.a_device is 'How many a device made, on average.';
comment on column public.request_list.by_polling is 'How many it would be if each device polled every ten minutes: 144 a day.';
comment on column public.request_list.by_polling_every_minute is 'How many it would be if each device polled every minute: 1,440 a day.';
comment on column public.request_list.percent_saved is 'How many percent fewer requests it is than by polling every ten minutes.';
select fleet.inherit_comments('public.request_list', 'public.device_requests');
revoke all on table public.request_list from public, anon, authenticated, service_role;
grant select on table public.request_list to authenticated, service_role;

drop view if exists public.device_health_list;
create view public.device_health_list with (security_invoker = true) as
select
  d.id as device_id, d.owner_id, d.hostname, d.last_seen,
  fleet.number_or_null(h.health -> 'battery_percent') as battery_percent,
  case jsonb_typeof(h.health -> 'is_charging') when 'boolean' then (h.health -> 'is_charging')::boolean end as is_charging,
  fleet.number_or_null(h.health -> 'disk_total_bytes') as disk_total_bytes,
  fleet.number_or_null(h.health -> 'disk_free_bytes') as disk_free_bytes,
  case jsonb_typeof(h.health -> 'os') when 'string' then h.health ->> 'os' end as os,
  case jsonb_typeof(h.health -> 'booted_at') when 'string' then h.health ->> 'booted_at' end as booted_at
from public.devices as d
cross join lateral (select d.reported -> 'health' as health) as h
where d.status = 'active' and jsonb_typeof(h.health) = 'object';

comment on view public.device_health_list is 'How devices are, as they said at their last check-in.';
comment on column public.device_health_list.battery_percent is 'How full its battery is; null where it has none.';
comment on column public.device_health_list.is_charging is 'Whether it is on a charger.';
comment on column public.device_health_list.disk_total_bytes is 'How large the disk of its system is.';
comment on column public.device_health_list.disk_free_bytes is 'How much of it is free.';
comment on column public.device_health_list.os is 'Its operating system, with the version.';
comment on column public.device_health_list.booted_at is 'When it was started, by its own clock.';
select fleet.inherit_comments('public.device_health_list', 'public.devices');
revoke all on table public.device_health_list from public, anon, authenticated, service_role;
grant select on table public.device_health_list to authenticated, service_role;

-- db/sources/10_registry/triggers.sql
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

-- db/sources/10_registry/access.sql
-- Who sees and changes the registry: members of the owner. A device reads its own row and nothing else.

revoke all on table public.owners, public.owner_members, public.owner_invitations, public.devices, public.device_groups,
  public.device_group_members, public.enrollment_codes
  from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.owners, public.owner_members, public.owner_invitations, public.devices, public.device_groups,
  public.device_group_members, public.enrollment_codes
  to service_role;

-- Identity columns need no right on their sequences; the default privileges of a project would let anybody move them.
revoke all on sequence public.devices_id_seq, public.device_groups_id_seq, public.enrollment_codes_id_seq,
  public.owner_invitations_id_seq
  from public, anon, authenticated, service_role;
grant usage, select on sequence public.devices_id_seq, public.device_groups_id_seq, public.enrollment_codes_id_seq,
  public.owner_invitations_id_seq
  to service_role;

-- service_role bypasses row security on Supabase; where it does not, these say the same.
drop policy if exists owners_all_service_role on public.owners;
create policy owners_all_service_role on public.owners for all to service_role using (true) with check (true);
drop policy if exists owner_members_all_service_role on public.owner_members;
create policy owner_members_all_service_role on public.owner_members
  for all to service_role using (true) with check (true);
drop policy if exists owner_invitations_all_service_role on public.owner_invitations;
create policy owner_invitations_all_service_role on public.owner_invitations
  for all to service_role using (true) with check (true);
drop policy if exists devices_all_service_role on public.devices;
create policy devices_all_service_role on public.devices for all to service_role using (true) with check (true);
drop policy if exists device_groups_all_service_role on public.device_groups;
create policy device_groups_all_service_role on public.device_groups
  for all to service_role using (true) with check (true);
drop policy if exists device_group_members_all_service_role on public.device_group_members;
create policy device_group_members_all_service_role on public.device_group_members
  for all to service_role using (true) with check (true);
drop policy if exists enrollment_codes_all_service_role on public.enrollment_codes;
create policy enrollment_codes_all_service_role on public.enrollment_codes
  for all to service_role using (true) with check (true);

grant select on table public.owners to authenticated;
grant update (name) on table public.owners to authenticated;
drop policy if exists owners_select_member on public.owners;
create policy owners_select_member on public.owners
  for select to authenticated using (id = any (array(select fleet.my_owners())));
drop policy if exists owners_update_admin on public.owners;
create policy owners_update_admin on public.owners
  for update to authenticated
  using (id = any (array(select fleet.my_owners('admin'))))
  with check (id = any (array(select fleet.my_owners('admin'))));

grant select, delete on table public.owner_members to authenticated;
grant update (permissions) on table public.owner_members to authenticated;
drop policy if exists owner_members_select_member on public.owner_members;
create policy owner_members_select_member on public.owner_members
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
-- Nobody is made a member: who is invited accepts.
drop policy if exists owner_members_insert_admin on public.owner_members;
drop policy if exists owner_members_update_admin on public.owner_members;
create policy owner_members_update_admin on public.owner_members
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('admin'))))
  with check (owner_id = any (array(select fleet.my_owners('admin'))));
drop policy if exists owner_members_delete_admin on public.owner_members;
create policy owner_members_delete_admin on public.owner_members
  for delete to authenticated using (owner_id = any (array(select fleet.my_owners('admin'))));

-- Everything but the hash of the code.
grant select (
  id, owner_id, email, permissions, expires_at, accepted_at, accepted_by, revoked_at, created_by, created_at
) on table public.owner_invitations to authenticated;
drop policy if exists owner_invitations_select_admin on public.owner_invitations;
create policy owner_invitations_select_admin on public.owner_invitations
  for select to authenticated using (owner_id = any (array(select fleet.my_owners('admin'))));

-- auth_id, status and enrolled_at change only through functions.
grant select, delete on table public.devices to authenticated;
grant insert (owner_id, hostname, platform, timezone, tags, attributes, prepared) on table public.devices to authenticated;
grant update (hostname, platform, timezone, tags, attributes, prepared) on table public.devices to authenticated;
drop policy if exists devices_select_member_or_self on public.devices;
create policy devices_select_member_or_self on public.devices
  for select to authenticated
  using (owner_id = any (array(select fleet.my_owners())) or id = (select fleet.current_device_id()));
drop policy if exists devices_insert_manager on public.devices;
create policy devices_insert_manager on public.devices
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists devices_update_manager on public.devices;
create policy devices_update_manager on public.devices
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists devices_delete_manager on public.devices;
create policy devices_delete_manager on public.devices
  for delete to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));

grant select, delete on table public.device_groups to authenticated;
grant insert (owner_id, name, description, selector) on table public.device_groups to authenticated;
grant update (name, description, selector) on table public.device_groups to authenticated;
drop policy if exists device_groups_select_member on public.device_groups;
create policy device_groups_select_member on public.device_groups
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists device_groups_insert_manager on public.device_groups;
create policy device_groups_insert_manager on public.device_groups
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists device_groups_update_manager on public.device_groups;
create policy device_groups_update_manager on public.device_groups
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists device_groups_delete_manager on public.device_groups;
create policy device_groups_delete_manager on public.device_groups
  for delete to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));

grant select, delete on table public.device_group_members to authenticated;
grant insert (group_id, device_id) on table public.device_group_members to authenticated;
drop policy if exists device_group_members_select_member on public.device_group_members;
create policy device_group_members_select_member on public.device_group_members
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists device_group_members_insert_manager on public.device_group_members;
create policy device_group_members_insert_manager on public.device_group_members
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists device_group_members_delete_manager on public.device_group_members;
create policy device_group_members_delete_manager on public.device_group_members
  for delete to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));

-- Everything but the hash of the code.
grant select (id, owner_id, device_id, max_uses, used_count, tags, group_ids, expires_at, revoked_at, created_by, created_at)
  on table public.enrollment_codes to authenticated;
grant update (revoked_at) on table public.enrollment_codes to authenticated;
drop policy if exists enrollment_codes_select_manager on public.enrollment_codes;
create policy enrollment_codes_select_manager on public.enrollment_codes
  for select to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists enrollment_codes_update_manager on public.enrollment_codes;
create policy enrollment_codes_update_manager on public.enrollment_codes
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));

-- Requests are counted by the functions alone.
revoke all on table public.device_requests from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.device_requests to service_role;
grant select on table public.device_requests to authenticated;

drop policy if exists device_requests_all_service_role on public.device_requests;
create policy device_requests_all_service_role on public.device_requests
  for all to service_role using (true) with check (true);
drop policy if exists device_requests_select_member on public.device_requests;
create policy device_requests_select_member on public.device_requests
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

set check_function_bodies = on;
reset search_path;
