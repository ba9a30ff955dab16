-- Devices that come into a time zone: a zone that is new to its owner's schedules, and devices whose walls jump over a due time.

create or replace function fleet.engine_time()
returns timestamptz
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select greatest(clock_timestamp(), (select max(h.last_tick_at) from fleet.heartbeat as h))
$$;

comment on function fleet.engine_time() is
  'The time by which the engine goes: the clock, or the last tick where that was given a later one.';
revoke all on function fleet.engine_time() from public, anon, authenticated, service_role;

create or replace function fleet.zones_came(p_schedule public.schedules, p_zones text[], p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_zones text[] := fleet.zones_of_server(p_zones);
  v_runs bigint[];
begin
  if v_zones = '{}' then
    return;
  end if;
  -- What may still be ahead on the last wall of the earth, and does not know them all.
  select array_agg(r.id) into v_runs
  from public.schedule_runs as r
  where r.schedule_id = p_schedule.id
    and r.scheduled_local > (p_now - interval '13 hours') at time zone 'UTC'
    and r.missed_to_local is null
    and r.status <> 'cancelled'
    and exists (
      select 1
      from unnest(v_zones) as u(zone)
      where not exists (select 1 from fleet.run_zones as z where z.run_id = r.id and u.zone = any (z.zones))
    );
  if v_runs is not null then
    perform fleet.plan_zones(p_schedule, v_runs, array(
      select u.zone
      from unnest(v_zones) as u(zone)
    ), p_now);
  end if;

  if p_schedule.status = 'active' and p_schedule.next_run_at is not null then
    update public.schedules as s
    set next_run_at = n.due_at
    from (
      select min(w.due_at) as due_at
      from unnest(v_zones) as u(zone)
      cross join lateral fleet.next_on_walls(p_schedule.recurrence, array[u.zone], p_now, true) as w
    ) as n
    where s.id = p_schedule.id and n.due_at < s.next_run_at;
  end if;
end;
$$;

comment on function fleet.zones_came(public.schedules, text[], timestamptz) is
  'Tell a schedule by device time of zones that have devices now: runs under way come there too where that lies ahead, and it may be due '
  'earlier than it knew.';
revoke all on function fleet.zones_came(public.schedules, text[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.devices_moved(
  p_schedule public.schedules,
  p_old_zone text,
  p_new_zone text,
  p_device_ids bigint[],
  p_now timestamptz
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_policies jsonb := fleet.effective_policies(p_schedule.policies);
  v_run record;
begin
  -- The latest first: of what the walls jumped over only that is made up for.
  for v_run in
    select r.id, r.expires_at, o.status as old_status, n.status as new_status, i.due_at, i.expires_at as expiry
    from public.schedule_runs as r
    cross join lateral (
      select z.status
      from fleet.run_zones as z
      where z.run_id = r.id and p_old_zone = any (z.zones) and z.device_ids is null
      order by z.expanded_at is null desc
      limit 1
    ) as o
    left join lateral (
      select z.status from fleet.run_zones as z where z.run_id = r.id and p_new_zone = any (z.zones) and z.device_ids is null limit 1
    ) as n on true
    cross join lateral fleet.judged_zones(p_schedule, array[p_new_zone], r.scheduled_local, r.fold, p_now, null) as i
    where r.schedule_id = p_schedule.id
      and r.scheduled_local > (p_now - interval '37 hours') at time zone 'UTC'
      and r.scheduled_local < (p_now + interval '39 hours') at time zone 'UTC'
    order by r.scheduled_local desc, r.fold desc
  loop
    if v_run.old_status <> 'waiting' and v_run.due_at > p_now then
      insert into fleet.judged_movers (run_id, device_id)
      select v_run.id, u.id from unnest(p_device_ids) as u(id)
      on conflict do nothing;
    elsif v_run.old_status = 'waiting' and v_run.due_at <= p_now then
      if fleet.late_refusal(p_schedule.recurrence, v_policies, p_new_zone, v_run.due_at, p_now) is null then
        insert into fleet.run_zones (run_id, due_at, starts_at, expires_at, zones, device_ids)
        values (v_run.id, v_run.due_at, greatest(p_now, v_run.due_at), v_run.expiry, array[p_new_zone], p_device_ids);
      end if;
      exit;
    end if;
  end loop;
end;
$$;

comment on function fleet.devices_moved(public.schedules, text, text, bigint[], timestamptz) is
  'What devices that went from one zone to another are owed by a schedule by device time: what lay ahead in the old zone and has passed in '
  'the new one is served late, the latest of it; what has looked at them already does not do so again.';
revoke all on function fleet.devices_moved(public.schedules, text, text, bigint[], timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.follow_zones(
  p_owner_ids uuid[],
  p_device_ids bigint[],
  p_old_zones text[],
  p_new_zones text[]
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz;
  v_schedule public.schedules;
  v_unknown text;
  v_zones text[];
  v_move record;
begin
  for v_schedule in
    select s.*
    from public.schedules as s
    where s.owner_id in (select distinct u.id from unnest(p_owner_ids) as u(id))
      and s.timezone = 'device'
      and s.status <> 'cancelled'
      and s.after_schedule_id is null
    order by s.id
  loop
    v_now := coalesce(v_now, fleet.engine_time());
    v_unknown := fleet.unknown_zone(v_schedule.recurrence);
    for v_move in
      select m.old_zone, array_agg(m.device_id) as device_ids, m.new_zone
      from (
        select u.device_id, coalesce(nullif(u.new_zone, ''), v_unknown) as new_zone,
          case when u.old_zone is not null then coalesce(nullif(u.old_zone, ''), v_unknown) end as old_zone
        from unnest(p_owner_ids, p_device_ids, p_old_zones, p_new_zones) as u(owner_id, device_id, old_zone, new_zone)
        where u.owner_id = v_schedule.owner_id
          and (v_schedule.group_ids <> '{}' or v_schedule.selector is not null or u.device_id = any (v_schedule.device_ids))
      ) as m
      where m.new_zone is not null and m.new_zone is distinct from m.old_zone
      group by m.old_zone, m.new_zone
    loop
      if v_zones is null or v_move.new_zone <> all (v_zones) then
        v_zones := v_zones || v_move.new_zone;
      end if;
      if v_move.old_zone is not null and fleet.zones_of_server(array[v_move.new_zone]) <> '{}' then
        perform fleet.devices_moved(v_schedule, v_move.old_zone, v_move.new_zone, v_move.device_ids, v_now);
      end if;
    end loop;
    if v_zones is not null then
      perform fleet.zones_came(v_schedule, v_zones, v_now);
      v_zones := null;
    end if;
  end loop;
end;
$$;

comment on function fleet.follow_zones(uuid[], bigint[], text[], text[]) is
  'Tell schedules by device time of devices that came into a zone, from another one or, with null, from nowhere; an empty name is no zone.';
revoke all on function fleet.follow_zones(uuid[], bigint[], text[], text[]) from public, anon, authenticated, service_role;
