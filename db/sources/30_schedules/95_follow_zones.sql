-- Schedules by device time follow what moves their zones: devices, their own times, and where the owner is at home.

create or replace function fleet.tg_follow_zones()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owners uuid[];
  v_zones text[];
  v_changes bigint[];
  v_came record;
begin
  if tg_op = 'UPDATE' then
    perform set_config('pgfleet.zones_move', '', true);
    select array_agg(u.owner_id), array_agg(u.zone), array_agg(u.n) into v_owners, v_zones, v_changes
    from (
      select x.owner_id, x.zone, sum(x.n) as n
      from (
        select n.owner_id, coalesce(n.timezone, '') as zone, 1 as n
        from new_rows as n
        join old_rows as o on o.id = n.id
        where n.status = 'active' and (n.timezone, n.status, n.owner_id) is distinct from (o.timezone, o.status, o.owner_id)
        union all
        select o.owner_id, coalesce(o.timezone, ''), -1
        from new_rows as n
        join old_rows as o on o.id = n.id
        where o.status = 'active' and (n.timezone, n.status, n.owner_id) is distinct from (o.timezone, o.status, o.owner_id)
      ) as x
      group by 1, 2
    ) as u;
  elsif tg_op = 'INSERT' then
    select array_agg(u.owner_id), array_agg(u.zone), array_agg(u.n) into v_owners, v_zones, v_changes
    from (
      select n.owner_id, coalesce(n.timezone, '') as zone, count(*) as n from new_rows as n where n.status = 'active' group by 1, 2
    ) as u;
  else
    select array_agg(u.owner_id), array_agg(u.zone), array_agg(u.n) into v_owners, v_zones, v_changes
    from (
      select o.owner_id, coalesce(o.timezone, '') as zone, -count(*) as n from old_rows as o where o.status = 'active' group by 1, 2
    ) as u;
  end if;
  if v_owners is null then
    return null;
  end if;
  perform fleet.count_zones(v_owners, v_zones, v_changes);

  if tg_op = 'UPDATE' then
    select array_agg(n.owner_id) as owners, array_agg(n.id) as ids, array_agg(coalesce(n.timezone, '')) as zones,
      array_agg(case when o.status = 'active' then coalesce(o.timezone, '') end) as old_zones
    into v_came
    from new_rows as n
    join old_rows as o on o.id = n.id
    where n.status = 'active' and (n.timezone, n.status) is distinct from (o.timezone, o.status);
  elsif tg_op = 'INSERT' then
    -- Of each zone one is enough: nobody was anywhere before.
    select array_agg(u.owner_id) as owners, array_agg(u.id) as ids, array_agg(u.zone) as zones, array_agg(null::text) as old_zones
    into v_came
    from (
      select n.owner_id, min(n.id) as id, coalesce(n.timezone, '') as zone from new_rows as n where n.status = 'active' group by 1, 3
    ) as u;
  else
    return null;
  end if;
  if v_came.owners is not null then
    perform fleet.follow_zones(v_came.owners, v_came.ids, v_came.old_zones, v_came.zones);
  end if;
  return null;
end;
$$;

comment on function fleet.tg_follow_zones() is
  'Count the devices of each zone, and tell schedules by device time of those that came into one. Definer: who adds a device may not change '
  'schedules.';
revoke all on function fleet.tg_follow_zones() from public, anon, authenticated, service_role;

create or replace function fleet.tg_note_zones()
returns trigger
language plpgsql
-- Without settings, as it asks for nothing but this one.
as $$
begin
  perform pg_catalog.set_config('pgfleet.zones_move', 'yes', true);
  return new;
end;
$$;

comment on function fleet.tg_note_zones() is
  'Say that a statement moves devices between zones, for fleet.tg_follow_zones, which is not called for the many that do not.';
revoke all on function fleet.tg_note_zones() from public, anon, authenticated, service_role;

-- Being seen is no news: devices say so all the time. The first that moves is enough.
create or replace trigger devices_04_note_zones
  before update of timezone, status, owner_id on public.devices
  for each row when (
    (new.timezone, new.status, new.owner_id) is distinct from (old.timezone, old.status, old.owner_id)
    and (current_setting('pgfleet.zones_move', true) = 'yes') is not true
  )
  execute function fleet.tg_note_zones();
create or replace trigger devices_05_follow_zones_insert
  after insert on public.devices
  referencing new table as new_rows
  for each statement execute function fleet.tg_follow_zones();
create or replace trigger devices_05_follow_zones_update
  after update on public.devices
  referencing old table as old_rows new table as new_rows
  for each statement when (current_setting('pgfleet.zones_move', true) = 'yes')
  execute function fleet.tg_follow_zones();
create or replace trigger devices_05_follow_zones_delete
  after delete on public.devices
  referencing old table as old_rows
  for each statement execute function fleet.tg_follow_zones();

create or replace function fleet.tg_follow_walls()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := fleet.engine_time();
begin
  if new.recurrence is distinct from old.recurrence then
    perform fleet.plan_open_runs(new, v_now);
  elsif new.status = old.status then
    perform fleet.zones_came(new, fleet.schedule_zones(new), v_now);
  elsif old.next_run_at <= v_now then
    -- What passed during a pause is told in one row; where it is yet to come the rest of the day goes on.
    perform fleet.book_runs(array_agg(b), v_now)
    from fleet.decide_occurrences(old, v_now, 'paused') as b;
  end if;
  return null;
end;
$$;

comment on function fleet.tg_follow_walls() is
  'Bring the zones to come of runs in device time into line with changed times, and book what a pause has begun to pass. Definer: it writes '
  'the ledger.';
revoke all on function fleet.tg_follow_walls() from public, anon, authenticated, service_role;

create or replace trigger schedules_04_follow_walls
  after update on public.schedules
  for each row
  when (
    old.timezone = 'device'
    and (
      new.recurrence is distinct from old.recurrence
      or (new.device_ids, new.group_ids, new.selector) is distinct from (old.device_ids, old.group_ids, old.selector)
      or (old.status = 'paused' and new.status in ('active', 'completed'))
    )
  )
  execute function fleet.tg_follow_walls();

create or replace function fleet.tg_follow_home()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  update public.schedules as s
  set recurrence = c.recurrence, next_run_at = fleet.first_due(c.s, fleet.engine_time())
  from (
    select x.id, fleet.compiled(x) as recurrence, fleet.with_recurrence(x, fleet.compiled(x)) as s
    from public.schedules as x
    where x.owner_id = new.id and x.timezone = 'device' and x.status in ('active', 'paused') and x.after_schedule_id is null
  ) as c
  where s.id = c.id and s.recurrence is distinct from c.recurrence;
  return null;
end;
$$;

comment on function fleet.tg_follow_home() is
  'Schedules by device time follow the zone of their owner. Definer: who changes an owner need not be the one who may change schedules.';
revoke all on function fleet.tg_follow_home() from public, anon, authenticated, service_role;

create or replace trigger owners_05_follow_home
  after update of timezone on public.owners
  for each row when (new.timezone <> old.timezone) execute function fleet.tg_follow_home();
