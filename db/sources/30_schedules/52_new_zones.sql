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
      -- Each zone is one of the owner beside it.
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

create or replace function fleet.refresh_union(p_schedule_ids bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  -- Devices may have gone to other zones since; groups and selectors tell only now.
  update public.schedules as s
  set recurrence = fleet.compiled(s)
  where s.id = any (p_schedule_ids)
    and s.timezone = 'device'
    and s.recurrence -> 'zones' is distinct from to_jsonb(fleet.target_zones(s))
$$;

comment on function fleet.refresh_union(bigint[]) is
  'Recompile those of these schedules that go by device time and whose devices are in other zones than before.';
revoke all on function fleet.refresh_union(bigint[]) from public, anon, authenticated, service_role;
