-- Groups that geo schedules use: another selector, and members that come or go, change who owes them.

create or replace function fleet.tg_follow_geo_group()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'DELETE' then
    if exists (select 1 from public.geo_schedules as s where s.group_id = old.id and s.owner_id = old.owner_id and s.deletion_status is null)
      and not fleet.is_owner_gone(old.owner_id)
    then
      raise exception 'group "%" is used by geo schedules', old.name
        using errcode = 'PT409', detail = 'group_in_use', hint = 'Delete or change them first: select * from geo_schedule_list';
    end if;
    return old;
  end if;
  perform fleet.reconcile_geo_scope(
    array(select s.id from public.geo_schedules as s where s.group_id = new.id and s.deletion_status is null), null, clock_timestamp()
  );
  return null;
end;
$$;

comment on function fleet.tg_follow_geo_group() is
  'Another selector changes who owes the geo schedules of a group; a group that live ones use is not deleted. Raises group_in_use (PT409). '
  'Definer: commitments are nobody''s to write.';
revoke all on function fleet.tg_follow_geo_group() from public, anon, authenticated, service_role;

create or replace trigger device_groups_50_follow_geo_schedules
  after update on public.device_groups
  for each row when (old.selector is distinct from new.selector)
  execute function fleet.tg_follow_geo_group();
create or replace trigger device_groups_60_guard_geo_schedules
  before delete on public.device_groups
  for each row execute function fleet.tg_follow_geo_group();

create or replace function fleet.tg_follow_geo_members()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.reconcile_geo_scope(
    array(select s.id from public.geo_schedules as s where s.group_id in (select r.group_id from changed_rows as r) and s.deletion_status is null),
    array(select r.device_id from changed_rows as r), clock_timestamp()
  );
  return null;
end;
$$;

comment on function fleet.tg_follow_geo_members() is
  'Members that come or go begin or end to owe the geo schedules of the group. Definer: commitments are nobody''s to write.';
revoke all on function fleet.tg_follow_geo_members() from public, anon, authenticated, service_role;

create or replace trigger device_group_members_50_follow_geo_schedules_inserted
  after insert on public.device_group_members
  referencing new table as changed_rows
  for each statement execute function fleet.tg_follow_geo_members();
create or replace trigger device_group_members_51_follow_geo_schedules_deleted
  after delete on public.device_group_members
  referencing old table as changed_rows
  for each statement execute function fleet.tg_follow_geo_members();
