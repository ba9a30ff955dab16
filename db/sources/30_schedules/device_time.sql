-- Keeping schedules in device time aware of the time zones of their devices. Devices come, move and change groups; a schedule must
-- know each zone before its local time comes there.

create or replace function fleet.refresh_device_time(p_schedule_ids bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  update public.schedules as s
  set recurrence = f.recurrence,
      next_run_at = least(s.next_run_at, fleet.next_due(f.recurrence, clock_timestamp()))
  from (
    select x.id, fleet.compiled(x) as recurrence
    from public.schedules as x
    where x.id = any (p_schedule_ids)
      and not (x.recurrence -> 'zones') @> to_jsonb(fleet.target_zones(x))
  ) as f
  where s.id = f.id
$$;

comment on function fleet.refresh_device_time(bigint[]) is
  'Recompile those of these schedules whose devices are in a zone that they do not know yet.';
revoke all on function fleet.refresh_device_time(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.device_time_schedules(p_owner_ids uuid[], p_zones text[], p_group_ids bigint[])
returns bigint[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select array_agg(s.id)
  from public.schedules as s
  where s.timezone = 'device'
    and s.status = 'active'
    and s.after_schedule_id is null
    and s.owner_id = any (p_owner_ids)
    and (
      s.group_ids && p_group_ids
      -- The zones belong to the owners, pair by pair.
      or exists (
        select 1
        from unnest(p_owner_ids, p_zones) as u(owner_id, zone)
        where u.owner_id = s.owner_id and not (s.recurrence -> 'zones') ? u.zone
      )
    )
$$;

comment on function fleet.device_time_schedules(uuid[], text[], bigint[]) is
  'The active schedules in device time that these zones of these owners, or a change of these groups, may be news to.';
revoke all on function fleet.device_time_schedules(uuid[], text[], bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.tg_refresh_device_time()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owners uuid[];
  v_zones text[];
begin
  if tg_op = 'INSERT' then
    select array_agg(u.owner_id), array_agg(u.zone) into v_owners, v_zones
    from (select distinct n.owner_id, coalesce(n.timezone, 'UTC') as zone from new_rows as n) as u;
  else
    -- Being seen is no news: devices say so all the time.
    select array_agg(u.owner_id), array_agg(u.zone) into v_owners, v_zones
    from (
      select distinct n.owner_id, coalesce(n.timezone, 'UTC') as zone
      from new_rows as n
      join old_rows as o on o.id = n.id
      where (n.timezone, n.tags, n.platform, n.attributes, n.status)
        is distinct from (o.timezone, o.tags, o.platform, o.attributes, o.status)
    ) as u;
  end if;
  if v_owners is not null then
    perform fleet.refresh_device_time(fleet.device_time_schedules(v_owners, v_zones, '{}'));
  end if;
  return null;
end;
$$;

comment on function fleet.tg_refresh_device_time() is
  'Tell schedules in device time of devices in a new zone. Definer: who adds a device may not change schedules.';
revoke all on function fleet.tg_refresh_device_time() from public, anon, authenticated, service_role;

create or replace function fleet.tg_refresh_zones_of_groups()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owners uuid[];
  v_groups bigint[];
begin
  if tg_table_name = 'device_groups' then
    select array_agg(distinct n.owner_id), array_agg(n.id) into v_owners, v_groups from new_rows as n;
  else
    select array_agg(distinct n.owner_id), array_agg(distinct n.group_id) into v_owners, v_groups from new_rows as n;
  end if;
  perform fleet.refresh_device_time(fleet.device_time_schedules(v_owners, '{}', v_groups));
  return null;
end;
$$;

comment on function fleet.tg_refresh_zones_of_groups() is
  'Tell schedules in device time of new members of their groups. Definer: who changes a group may not change schedules.';
revoke all on function fleet.tg_refresh_zones_of_groups() from public, anon, authenticated, service_role;
