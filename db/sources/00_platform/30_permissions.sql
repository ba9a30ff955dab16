-- What the caller may do: the owners in which a person has a permission, and the owner of what somebody makes.

create or replace function fleet.my_owners(p_permission text default 'view')
returns setof uuid
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  with caller as (select fleet.current_user_id() as id),
  mine as (
    -- Everybody's personal owner has the id of the user and needs no membership: row security must already let the very
    -- statement in that makes it.
    select c.id from caller as c where c.id is not null
    union
    select m.owner_id
    from caller as c
    join public.owner_members as m on m.user_id = c.id
    where p_permission = 'view' or m.permissions && array[p_permission, 'admin']
  )
  select o.id
  from mine as o
  -- Whoever is being moved to another database is only looked at.
  where p_permission = 'view' or not exists (select 1 from fleet.owner_moves as v where v.owner_id = o.id)
$$;

comment on function fleet.my_owners(text) is
  'Owners in which the signed-in person has a permission; none for devices. Definer: the row security of owner_members uses it itself.';
revoke all on function fleet.my_owners(text) from public, anon, authenticated, service_role;
grant execute on function fleet.my_owners(text) to authenticated, service_role;

create or replace function fleet.usual_owner()
returns uuid
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_user uuid := fleet.current_user_id();
  v_owners uuid[];
begin
  if v_user is null then
    return case when fleet.is_trusted_caller() then (fleet.setting('default_owner') #>> '{}')::uuid end;
  end if;

  select array_agg(f.id) into v_owners
  from (
    select m.owner_id as id from public.owner_members as m where m.user_id = v_user
    union
    -- A personal fleet without devices is one that nobody has begun to use.
    select v_user where exists (select 1 from public.devices as d where d.owner_id = v_user)
    limit 2
  ) as f;
  return case when cardinality(v_owners) = 1 then v_owners[1] else v_user end;
end;
$$;

comment on function fleet.usual_owner() is
  'The owner that is meant where nothing that was named tells: the only one that the person is a member of, else the personal one; where '
  'nobody is signed in, the setting default_owner. Null where there is none.';
revoke all on function fleet.usual_owner() from public, anon, authenticated, service_role;

create or replace function fleet.resolve_owner()
returns uuid
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid := fleet.usual_owner();
begin
  -- Where nothing can be written, as on a replica, there is nothing of somebody new to read either.
  if v_owner = fleet.current_user_id() and current_setting('transaction_read_only') = 'off' then
    -- Everybody has a personal owner; it is made the first time that it is needed.
    insert into public.owners (id, name, is_personal) values (v_owner, 'personal', true) on conflict (id) do nothing;
  end if;
  if v_owner is not null then
    return v_owner;
  elsif fleet.is_trusted_caller() then
    raise exception 'owner_id is missing: nobody is signed in and the setting default_owner is empty'
      using errcode = 'PT422',
            detail = 'owner_missing',
            hint = 'Name owner_id, or set a default: select fleet.set_setting(''default_owner'', to_jsonb(''<owner uuid>''::text))';
  end if;

  raise exception 'a device may not do this'
    using errcode = 'PT403',
          detail = 'not_a_person',
          hint = 'Sign in as a member of the fleet.';
end;
$$;

comment on function fleet.resolve_owner() is
  'The owner of a row whose maker named none and nothing that has one: see usual_owner. Raises owner_missing (PT422) or not_a_person '
  '(PT403). Definer: it reads memberships and makes the personal owner.';
revoke all on function fleet.resolve_owner() from public, anon, authenticated, service_role;

create or replace function fleet.raise_not_found(p_what text)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_kind text := replace(regexp_replace(p_what, ' [^ ]*$', ''), ' ', '_');
begin
  raise exception '% was not found', p_what
    using errcode = 'PT404',
          detail = v_kind || '_not_found',
          hint = case
            when v_kind in ('device', 'group', 'schedule', 'command', 'owner')
              then format('List your %ss with: select * from %s_list', v_kind, v_kind)
            else 'Check the name.'
          end;
end;
$$;

comment on function fleet.raise_not_found(text) is
  'Raise <kind>_not_found (PT404) for something like "device 7". The one answer for what is missing and for what is another''s: ids '
  'are guessable.';
revoke all on function fleet.raise_not_found(text) from public, anon, authenticated, service_role;

create or replace function fleet.owner_or_own(p_owner_id uuid)
returns uuid
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_owner_id is null then
    return fleet.resolve_owner();
  end if;
  -- Who is there already need not be made, whoever asks.
  perform from public.owners as o where o.id = p_owner_id;
  if found then
    return p_owner_id;
  elsif p_owner_id = fleet.current_user_id() and current_setting('transaction_read_only') = 'off' then
    insert into public.owners (id, name, is_personal) values (p_owner_id, 'personal', true) on conflict (id) do nothing;
  end if;
  return p_owner_id;
end;
$$;

comment on function fleet.owner_or_own(uuid) is
  'The owner that was named, made if need be where it is the person''s own; where none was named, what resolve_owner says. Raises as that '
  'does.';
revoke all on function fleet.owner_or_own(uuid) from public, anon, authenticated, service_role;

create or replace function fleet.is_owner_gone(p_owner_id uuid)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select not exists (select 1 from public.owners as o where o.id = p_owner_id)
$$;

comment on function fleet.is_owner_gone(uuid) is
  'Whether the owner of a row is being deleted, and the row with it: what guards rows from being deleted lets these go.';
revoke all on function fleet.is_owner_gone(uuid) from public, anon, authenticated, service_role;

create or replace function fleet.is_visible_owner(p_owner_id uuid)
returns boolean
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select fleet.is_trusted_caller() or exists (select 1 from fleet.my_owners() as o(id) where o.id = p_owner_id)
$$;

comment on function fleet.is_visible_owner(uuid) is
  'Whether the caller is a member of the owner, or trusted. Asked before a row is locked: nobody may hold up the rows of others. '
  'Definer: it reads memberships.';
revoke all on function fleet.is_visible_owner(uuid) from public, anon, authenticated, service_role;

create or replace function fleet.require_permission(p_owner_id uuid, p_permission text, p_what text)
returns void
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if fleet.is_trusted_caller() then
    return;
  elsif exists (select 1 from fleet.my_owners(p_permission) as o(id) where o.id = p_owner_id) then
    return;
  end if;

  if p_owner_id is null or not exists (select 1 from fleet.my_owners() as o(id) where o.id = p_owner_id) then
    perform fleet.raise_not_found(p_what);
  end if;
  perform fleet.refuse_mover(p_owner_id);
  raise exception 'the permission "%" is missing for %', p_permission, p_what
    using errcode = 'PT403',
          detail = 'permission_missing',
          hint = 'An admin of the owner can grant it in owner_members.permissions.';
end;
$$;

comment on function fleet.require_permission(uuid, text, text) is
  'Raise <kind>_not_found (PT404) when the caller is no member of the owner, permission_missing (PT403) when one without the permission, '
  'owner_moving (PT503) while it is being moved to another database. '
  'The service role and callers inside the database pass. Definer: it reads memberships.';
revoke all on function fleet.require_permission(uuid, text, text) from public, anon, authenticated, service_role;
