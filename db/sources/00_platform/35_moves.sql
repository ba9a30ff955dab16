-- Owners that are being moved to another database: nothing of theirs may change or go out meanwhile.

create or replace function fleet.moving_owners()
returns uuid[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(select m.owner_id from fleet.owner_moves as m);
end;
$$;

comment on function fleet.moving_owners() is
  'Owners that are being moved to another database, or were.';
revoke all on function fleet.moving_owners() from public, anon, authenticated, service_role;

create or replace function fleet.is_moving(p_owner_id uuid)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (select 1 from fleet.owner_moves as m where m.owner_id = p_owner_id)
$$;

comment on function fleet.is_moving(uuid) is
  'Whether an owner is being moved to another database, or was.';
revoke all on function fleet.is_moving(uuid) from public, anon, authenticated, service_role;

create or replace function fleet.refuse_mover(p_owner_id uuid)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_state text := (select m.state from fleet.owner_moves as m where m.owner_id = p_owner_id);
begin
  if v_state = 'leaving' then
    raise exception 'this fleet is being moved to another database'
      using errcode = 'PT503', detail = 'owner_moving', hint = 'Try again in a minute.';
  elsif v_state = 'moved' then
    raise exception 'this fleet was moved to another database'
      using errcode = 'PT401', detail = 'owner_moved', hint = 'A device asks the function device-token where to; people sign in there.';
  end if;
end;
$$;

comment on function fleet.refuse_mover(uuid) is
  'Raise owner_moving (PT503) for an owner that is being moved, owner_moved (PT401) for one that was.';
revoke all on function fleet.refuse_mover(uuid) from public, anon, authenticated, service_role;

create or replace function fleet.working_device_id()
returns bigint
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_claims json := fleet.jwt_claims();
  v_id uuid;
  v_device_id bigint;
begin
  -- plpgsql keeps its plans: a device asks this with each thing that it does.
  if v_claims ->> 'role' = 'authenticated' then
    v_id := fleet.try_uuid(v_claims ->> 'sub');
    select d.id into v_device_id
    -- The one row first, as in current_device_id.
    from (select x.id, x.status, x.owner_id from public.devices as x where x.auth_id = v_id offset 0) as d
    where d.status = 'active'
      and not exists (select 1 from fleet.owner_moves as m where m.owner_id = d.owner_id);
  end if;
  return v_device_id;
end;
$$;

comment on function fleet.working_device_id() is
  'The calling device, while its fleet is here; null while it goes to another database: then require_device says so. What a device writes goes '
  'by this one, what it only reads by current_device_id. Definer: a policy asks for its caller.';
revoke all on function fleet.working_device_id() from public, anon, authenticated, service_role;
grant execute on function fleet.working_device_id() to authenticated, service_role;
