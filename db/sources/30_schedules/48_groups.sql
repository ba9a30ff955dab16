-- Groups that schedules name: who deletes one says so, and their schedules are paused.

create or replace function fleet.gone_targets(p_schedule public.schedules)
returns table (device_ids bigint[], group_ids bigint[])
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select
    array(
      select u.id from unnest((p_schedule).device_ids) as u (id)
      where not exists (select 1 from public.devices as d where d.id = u.id and d.owner_id = (p_schedule).owner_id)
    ),
    array(
      select u.id from unnest((p_schedule).group_ids) as u (id)
      where not exists (select 1 from public.device_groups as g where g.id = u.id and g.owner_id = (p_schedule).owner_id)
    )
$$;

comment on function fleet.gone_targets(public.schedules) is
  'The devices and groups that a schedule names and that are there no more.';
revoke all on function fleet.gone_targets(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.changed_target_problems(p_old public.schedules, p_new public.schedules)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_devices bigint[] := p_new.device_ids;
  v_groups bigint[] := p_new.group_ids;
begin
  if p_old.id is not null and p_old.owner_id = p_new.owner_id then
    -- What was there once and is gone is nobody's mistake now.
    select array(select unnest(p_new.device_ids) except select unnest(g.device_ids)),
      array(select unnest(p_new.group_ids) except select unnest(g.group_ids))
    into v_devices, v_groups
    from fleet.gone_targets(p_old) as g;
  end if;
  if v_devices = '{}' and v_groups = '{}' and p_new.selector is null
    and (p_new.status = 'paused' or p_new.device_ids <> '{}' or p_new.group_ids <> '{}')
  then
    -- Whoever is paused may have nobody for now.
    return;
  end if;
  return query select q.* from fleet.target_problems(p_new.owner_id, v_devices, v_groups, p_new.selector) as q;
end;
$$;

comment on function fleet.changed_target_problems(public.schedules, public.schedules) is
  'What is wrong with the targets of the new row of a schedule; what the old one names and is there no more is left alone.';
revoke all on function fleet.changed_target_problems(public.schedules, public.schedules)
  from public, anon, authenticated, service_role;

create or replace function fleet.delete_group(p_group_id bigint, p_cascade boolean)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_groups;
  v_paused jsonb := '[]';
begin
  select g.* into v_row
  from public.device_groups as g
  where g.id = p_group_id and fleet.is_visible_owner(g.owner_id)
  for update;
  if not found then
    perform fleet.raise_not_found(format('group %s', p_group_id));
  end if;
  perform fleet.require_permission(v_row.owner_id, 'manage', format('group %s', p_group_id));

  if p_cascade then
    with paused as (
      update public.schedules as s
      set status = 'paused', status_reason = left(format('group "%s" was deleted', v_row.name), 255)
      where s.owner_id = v_row.owner_id and s.status = 'active' and s.group_ids @> array[p_group_id]
      returning s.name
    )
    select coalesce(jsonb_agg(p.name order by p.name), '[]') into v_paused from paused as p;
  end if;
  delete from public.device_groups as g where g.id = p_group_id;
  return to_jsonb(v_row) || jsonb_build_object('paused', v_paused);
end;
$$;

comment on function fleet.delete_group(bigint, boolean) is 'See public.delete_group. Definer: it checks the caller.';
revoke all on function fleet.delete_group(bigint, boolean) from public, anon, authenticated, service_role;
grant execute on function fleet.delete_group(bigint, boolean) to authenticated, service_role;

create or replace function public.delete_group(p_group_id bigint, p_cascade boolean default false)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.delete_group(p_group_id, p_cascade)
$$;

comment on function public.delete_group(bigint, boolean) is
  'Delete a group; its devices stay. Active schedules that name it keep it, unless p_cascade pauses them, with the reason. Answers the row '
  'with "paused", their names. Raises group_not_found (PT404), permission_missing (PT403) or group_in_use (PT409).';
revoke all on function public.delete_group(bigint, boolean) from public, anon, authenticated, service_role;
grant execute on function public.delete_group(bigint, boolean) to authenticated, service_role;
