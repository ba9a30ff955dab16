-- What follows from a change: of a geo schedule, of the location or category that it uses, of the devices that it is for.

create or replace function fleet.tg_prepare_geo_schedule()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  new.owner_id := fleet.owner_or_own(coalesce(new.owner_id, fleet.owner_of_named(array[new.device_id], array[new.group_id])));
  perform fleet.require_permission(new.owner_id, 'manage', format('owner %s', new.owner_id));
  perform fleet.raise_problems('the geo schedule', 'geo_schedule_invalid', array_agg(q))
  from fleet.geo_schedule_problems(new) as q;
  new.created_by := fleet.current_user_id();
  new.effective_from := null;
  new.delete_started_date := null;
  new.delay_ends_at := null;
  new.deletion_status := null;
  new.replaced_by := null;
  new.actions_made_to := null;

  new := fleet.geo_schedule_with_snapshots(new);
  return new;
end;
$$;

comment on function fleet.tg_prepare_geo_schedule() is
  'Check a geo schedule however it is written, and keep what its location and categories are now. Raises geo_schedule_invalid (PT422). '
  'Definer: it checks the caller.';
revoke all on function fleet.tg_prepare_geo_schedule() from public, anon, authenticated, service_role;

create or replace trigger geo_schedules_10_prepare
  before insert on public.geo_schedules
  for each row execute function fleet.tg_prepare_geo_schedule();

create or replace function fleet.tg_keep_geo_schedule()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  c_engine constant text[] := '{effective_from,delete_started_date,delay_ends_at,deletion_status,replaced_by,replaces,actions_made_to}';
begin
  -- A key that its parent takes along when it goes is no edit.
  if to_jsonb(new) - c_engine - '{device_id,group_id,location_id}'::text[] is distinct from
      to_jsonb(old) - c_engine - '{device_id,group_id,location_id}'::text[]
    or new.device_id <> old.device_id
    or new.group_id <> old.group_id
    or new.location_id <> old.location_id
    or (new.device_id is not null and old.device_id is null)
    or (new.group_id is not null and old.group_id is null)
    or (new.location_id is not null and old.location_id is null)
  then
    raise exception 'a geo schedule is never edited'
      using errcode = 'PT409', detail = 'geo_schedule_immutable',
            hint = format('Make a new one of it: select update_geo_schedule(%s, ''{"name": "…"}'')', old.id);
  end if;
  return new;
end;
$$;

comment on function fleet.tg_keep_geo_schedule() is
  'Refuse to edit what a geo schedule says; update_geo_schedule makes a new one. Raises geo_schedule_immutable (PT409).';
revoke all on function fleet.tg_keep_geo_schedule() from public, anon, authenticated, service_role;

create or replace trigger geo_schedules_20_keep
  before update on public.geo_schedules
  for each row execute function fleet.tg_keep_geo_schedule();

create or replace function fleet.tg_guard_geo_schedule()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if old.deletion_status is distinct from 'DELETED' and not fleet.is_owner_gone(old.owner_id) then
    raise exception 'geo schedule % is not removed by hand', old.id
      using errcode = 'PT409', detail = 'commitment_running',
            hint = format('Delete it: select delete_geo_schedule(%s); it goes when its delay is over.', old.id);
  end if;
  return old;
end;
$$;

comment on function fleet.tg_guard_geo_schedule() is
  'Only what is DELETED is removed, by cleanup. Raises commitment_running (PT409).';
revoke all on function fleet.tg_guard_geo_schedule() from public, anon, authenticated, service_role;

create or replace trigger geo_schedules_30_guard
  before delete on public.geo_schedules
  for each row execute function fleet.tg_guard_geo_schedule();

create or replace function fleet.tg_remove_geo_actions()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from public.geo_actions as a where a.geo_schedule_id in (select o.id from old_rows as o);
  return null;
end;
$$;

comment on function fleet.tg_remove_geo_actions() is
  'A geo schedule that goes takes its actions along. Definer: actions are nobody''s to write.';
revoke all on function fleet.tg_remove_geo_actions() from public, anon, authenticated, service_role;

create or replace trigger geo_schedules_35_remove_actions
  after delete on public.geo_schedules
  referencing old table as old_rows
  for each statement execute function fleet.tg_remove_geo_actions();

create or replace function fleet.tg_begin_geo_schedules()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_ids bigint[] := array(select n.id from new_rows as n);
begin
  perform fleet.reconcile_geo_scope(v_ids, null, v_now);
  -- Where everybody has a predecessor to wait for, so does the whole.
  update public.geo_schedules as s
  set effective_from = c.first
  from (
    select x.geo_schedule_id, min(x.effective_from) as first
    from public.geo_commitments as x
    where x.geo_schedule_id = any (v_ids)
    group by x.geo_schedule_id
    having count(*) = count(x.effective_from)
  ) as c
  where s.id = c.geo_schedule_id;
  perform fleet.create_geo_actions(v_ids, v_now);
  return null;
end;
$$;

comment on function fleet.tg_begin_geo_schedules() is
  'A new geo schedule has its commitments and actions at once. Definer: people may not write those themselves.';
revoke all on function fleet.tg_begin_geo_schedules() from public, anon, authenticated, service_role;

create or replace trigger geo_schedules_40_begin
  after insert on public.geo_schedules
  referencing new table as new_rows
  for each statement execute function fleet.tg_begin_geo_schedules();

-- Locations and categories.

create or replace function fleet.tg_replace_geo_schedules_of_location()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.replace_geo_schedule(s, s, clock_timestamp())
  from public.geo_schedules as s
  where s.location_id = new.id and s.owner_id = new.owner_id and s.deletion_status is null;
  return null;
end;
$$;

comment on function fleet.tg_replace_geo_schedules_of_location() is
  'Another border is an update of each geo schedule that uses the location. Definer: it acts for whoever changed the location.';
revoke all on function fleet.tg_replace_geo_schedules_of_location() from public, anon, authenticated, service_role;

create or replace trigger locations_50_replace_geo_schedules
  after update on public.locations
  for each row
  when (
    (old.kind, old.latitude, old.longitude, old.radius_m, old.polygon, old.hysteresis_m)
      is distinct from (new.kind, new.latitude, new.longitude, new.radius_m, new.polygon, new.hysteresis_m)
  )
  execute function fleet.tg_replace_geo_schedules_of_location();

create or replace function fleet.tg_guard_location()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (
    select 1 from public.geo_schedules as s
    where s.location_id = old.id and s.owner_id = old.owner_id and s.deletion_status is null
  ) and not fleet.is_owner_gone(old.owner_id) then
    raise exception 'location "%" is used by geo schedules', old.name
      using errcode = 'PT409', detail = 'location_in_use', hint = 'Delete or change them first: select * from geo_schedule_list';
  end if;
  return old;
end;
$$;

comment on function fleet.tg_guard_location() is
  'A location that live geo schedules use is not deleted. Raises location_in_use (PT409). Definer: it sees every geo schedule.';
revoke all on function fleet.tg_guard_location() from public, anon, authenticated, service_role;

create or replace trigger locations_60_guard_geo_schedules
  before delete on public.locations
  for each row execute function fleet.tg_guard_location();

create or replace function fleet.tg_prepare_app_category()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  new.owner_id := fleet.owner_or_own(new.owner_id);
  perform fleet.require_permission(new.owner_id, 'manage', format('owner %s', new.owner_id));
  perform fleet.raise_problems('the category', 'app_category_invalid', array_agg(q))
  from fleet.app_category_problems(new) as q;
  if tg_op = 'INSERT' then
    new.created_by := fleet.current_user_id();
  elsif new.name <> old.name and fleet.is_category_used(old) then
    raise exception 'category "%" is used by geo schedules and keeps its name', old.name
      using errcode = 'PT409', detail = 'app_category_in_use', hint = 'Make another category, and change the geo schedules.';
  end if;
  new.updated_at := now();
  return new;
end;
$$;

comment on function fleet.tg_prepare_app_category() is
  'Check a category however it is written. Raises app_category_invalid (PT422) or app_category_in_use (PT409). Definer: it checks the caller.';
revoke all on function fleet.tg_prepare_app_category() from public, anon, authenticated, service_role;

create or replace trigger app_categories_10_prepare
  before insert or update on public.app_categories
  for each row execute function fleet.tg_prepare_app_category();

create or replace function fleet.tg_replace_geo_schedules_of_category()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'DELETE' then
    if fleet.is_category_used(old) and not fleet.is_owner_gone(old.owner_id) then
      raise exception 'category "%" is used by geo schedules', old.name
        using errcode = 'PT409', detail = 'app_category_in_use', hint = 'Delete or change them first: select * from geo_schedule_list';
    end if;
    return old;
  end if;

  perform fleet.replace_geo_schedule(s, s, clock_timestamp())
  from public.geo_schedules as s
  where s.owner_id = new.owner_id
    and s.deletion_status is null
    and lower(new.name) in (select lower(n.name) from unnest(s.categories) as n(name));
  return null;
end;
$$;

comment on function fleet.tg_replace_geo_schedules_of_category() is
  'Other apps in a category are an update of each geo schedule that names it; one that is named is not deleted. Raises app_category_in_use '
  '(PT409). Definer: it acts for whoever changed the category.';
revoke all on function fleet.tg_replace_geo_schedules_of_category() from public, anon, authenticated, service_role;

create or replace trigger app_categories_20_replace_geo_schedules
  after update on public.app_categories
  for each row when (old.apps is distinct from new.apps)
  execute function fleet.tg_replace_geo_schedules_of_category();
create or replace trigger app_categories_30_guard
  before delete on public.app_categories
  for each row execute function fleet.tg_replace_geo_schedules_of_category();

-- Profiles that block for geo schedules.

create or replace function fleet.tg_guard_profile()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (
    select 1 from public.geo_schedules as s
    where s.owner_id = new.owner_id
      and s.enforce ->> 'profile_id' = new.external_id
      and s.deletion_status is distinct from 'DELETED'
  ) then
    raise exception 'profile "%" is used by geo schedules', new.name
      using errcode = 'PT409', detail = 'profile_in_use',
            hint = 'Delete or change them first, and wait for their delay: select * from geo_schedule_list';
  end if;
  return new;
end;
$$;

comment on function fleet.tg_guard_profile() is
  'A profile by which geo schedules block is not taken out of the MDM, nor while the delay of one that was deleted runs. Raises '
  'profile_in_use (PT409). Definer: it sees every geo schedule.';
revoke all on function fleet.tg_guard_profile() from public, anon, authenticated, service_role;

create or replace trigger profiles_60_guard_geo_schedules
  before update of status on public.profiles
  for each row when (new.status = 'deleting' and old.status <> 'deleting' and new.external_id is not null)
  execute function fleet.tg_guard_profile();

-- Devices and groups: whoever comes, goes, or is called otherwise.

create or replace function fleet.tg_follow_geo_devices()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.follow_geo_devices(array(select n.id from new_rows as n), clock_timestamp());
  return null;
end;
$$;

comment on function fleet.tg_follow_geo_devices() is
  'Devices that come begin to owe the geo schedules that are for them. Definer: commitments are nobody''s to write.';
revoke all on function fleet.tg_follow_geo_devices() from public, anon, authenticated, service_role;

create or replace trigger devices_50_follow_geo_schedules
  after insert on public.devices
  referencing new table as new_rows
  for each statement execute function fleet.tg_follow_geo_devices();

create or replace function fleet.tg_follow_geo_device()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.follow_geo_devices(array[new.id], clock_timestamp());
  return null;
end;
$$;

comment on function fleet.tg_follow_geo_device() is
  'A device that joins or leaves the scope of geo schedules, or reports another zone, begins or ends to owe them. Definer: commitments are '
  'nobody''s to write.';
revoke all on function fleet.tg_follow_geo_device() from public, anon, authenticated, service_role;

-- By row, and of these columns, since only so it is out of the way of every device that is merely seen: even the condition would be read anew.
create or replace trigger devices_51_follow_geo_schedules
  after update of status, timezone, tags, platform, attributes, hostname on public.devices
  for each row
  when (
    (old.status, old.timezone, old.tags, old.platform, old.attributes, old.hostname)
      is distinct from (new.status, new.timezone, new.tags, new.platform, new.attributes, new.hostname)
  )
  execute function fleet.tg_follow_geo_device();

create or replace function fleet.tg_guard_committed_device()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if fleet.is_geo_debtor(old.id, clock_timestamp()) then
    raise exception 'device "%" still owes a geo schedule', old.hostname
      using errcode = 'PT409', detail = 'commitment_running',
            hint = 'Retire it instead, or let an admin end it: select override_geo_commitment(<geo schedule>, ''why'', <device>)';
  end if;
  return old;
end;
$$;

comment on function fleet.tg_guard_committed_device() is
  'A device with a running commitment is not deleted. Raises commitment_running (PT409). Definer: it sees every commitment.';
revoke all on function fleet.tg_guard_committed_device() from public, anon, authenticated, service_role;

create or replace trigger devices_60_guard_committed
  before delete on public.devices
  for each row execute function fleet.tg_guard_committed_device();

-- Actions follow from the schedules, and reports are the devices' own; what ends a commitment is somebody's doing.
select fleet.keep_audit('public.app_categories');
select fleet.keep_audit('public.geo_schedules');
select fleet.keep_audit('public.geo_commitments', p_verbs => '{update}');

select fleet.keep_quota('public.geo_schedules', 'geo_schedules');
