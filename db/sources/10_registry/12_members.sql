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

