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
