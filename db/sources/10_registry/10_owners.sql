-- Owners: fleets that one person or several people run.

create or replace function public.create_owner(p_name text)
returns public.owners
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.create_owner(p_name)
$$;

comment on function public.create_owner(text) is
  'Make a fleet that several people may run; who makes it is its admin. Others join through owner_members.';
revoke all on function public.create_owner(text) from public, anon, authenticated, service_role;
grant execute on function public.create_owner(text) to authenticated, service_role;

create or replace function fleet.create_owner(p_name text)
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

  insert into public.owners (name) values (p_name) returning * into v_owner;
  if v_user is not null then
    insert into public.owner_members (owner_id, user_id, permissions)
    values (v_owner.id, v_user, '{view,operate,manage,destructive,admin}');
  end if;
  return v_owner;
end;
$$;

comment on function fleet.create_owner(text) is
  'See public.create_owner. Definer: nobody may write owners directly, because an owner''s id can mean a person.';
revoke all on function fleet.create_owner(text) from public, anon, authenticated, service_role;
grant execute on function fleet.create_owner(text) to authenticated, service_role;
