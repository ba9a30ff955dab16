-- Who owes a geo schedule, from when until when. Leaving its scope is a change like any other: it counts when the delay is over.

create or replace function fleet.geo_scope(p_geo_schedule_ids bigint[], p_device_ids bigint[] default null)
returns table (geo_schedule_id bigint, owner_id uuid, device_id bigint, hostname text, serial_number text, timezone text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with meant as (
    select s.id, s.owner_id, s.device_id as only_device_id, s.group_id, s.timezone, g.selector
    from public.geo_schedules as s
    left join public.device_groups as g on g.id = s.group_id and g.owner_id = s.owner_id
    where s.id = any (p_geo_schedule_ids) and s.deletion_status is null
  ), reached as (
    select m.id, m.owner_id, m.only_device_id as device_id, m.timezone from meant as m where m.only_device_id is not null
    union
    select m.id, m.owner_id, x.device_id, m.timezone
    from meant as m
    join public.device_group_members as x on x.group_id = m.group_id and x.owner_id = m.owner_id
    union
    select m.id, m.owner_id, d.id, m.timezone
    from meant as m
    join public.devices as d on d.owner_id = m.owner_id and fleet.device_matches(m.selector, d.tags, d.platform, d.attributes, d.reported)
    where m.selector is not null and (p_device_ids is null or d.id = any (p_device_ids))
  )
  select r.id, r.owner_id, d.id, d.hostname, coalesce(d.attributes ->> 'serial_number', d.reported ->> 'serial_number'),
    case r.timezone
      -- As with schedules: who has none goes by the owner's wall.
      when 'device' then coalesce((select z.name from fleet.time_zones as z where z.name = d.timezone), o.timezone)
      else r.timezone
    end
  from reached as r
  join public.owners as o on o.id = r.owner_id
  join public.devices as d on d.id = r.device_id and d.owner_id = r.owner_id and d.status = 'active'
  where p_device_ids is null or d.id = any (p_device_ids)
$$;

comment on function fleet.geo_scope(bigint[], bigint[]) is
  'Which active devices these geo schedules are for at this moment, and the zone in which each reads them. Deleted ones are for nobody.';
revoke all on function fleet.geo_scope(bigint[], bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.geo_promised_from(p_geo_schedule public.geo_schedules, p_device_id bigint, p_now timestamptz)
returns timestamptz
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- What the device still owes of the one that this replaces, or of this one under another zone, goes first. One that never
  -- came into force hands on the instant at which it would have.
  select max(u.at)
  from public.geo_commitments as c
  cross join lateral (
    select case when c.effective_from > c.until then c.effective_from else c.until end as at
  ) as u
  where c.geo_schedule_id in (p_geo_schedule.id, p_geo_schedule.replaces)
    and c.device_id = p_device_id
    and c.override_reason is null
    and u.at > p_now
$$;

comment on function fleet.geo_promised_from(public.geo_schedules, bigint, timestamptz) is
  'From when a device owes a geo schedule: the end of what it owes already; null for at once.';
revoke all on function fleet.geo_promised_from(public.geo_schedules, bigint, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.end_geo_commitments(p_geo_schedule_ids bigint[], p_device_ids bigint[], p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
  v_to_ring bigint[];
begin
  with ended as (
    update public.geo_commitments as c
    set until = fleet.geo_commitment_end(s, c.timezone, c.effective_from, p_now)
    from public.geo_schedules as s
    where s.id = any (p_geo_schedule_ids)
      and c.geo_schedule_id = s.id
      and c.until is null
      and (p_device_ids is null or c.device_id = any (p_device_ids))
      and not exists (
        select 1
        from fleet.geo_scope(array[s.id], array[c.device_id]) as x
        where x.timezone = c.timezone
      )
    returning c.device_id, s.enforce
  )
  select count(*), array_agg(e.device_id) filter (where e.enforce is null) into v_count, v_to_ring
  from ended as e;
  perform fleet.ring_for_geo_actions(v_to_ring, p_now);
  return v_count;
end;
$$;

comment on function fleet.end_geo_commitments(bigint[], bigint[], timestamptz) is
  'Whoever left the scope, or reads it in another zone, owes it until the delay is over. Answers how many.';
revoke all on function fleet.end_geo_commitments(bigint[], bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.reconcile_geo_scope(p_geo_schedule_ids bigint[], p_device_ids bigint[], p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ended integer;
  v_begun integer;
  v_to_ring bigint[];
begin
  if cardinality(p_geo_schedule_ids) = 0 then
    return 0;
  end if;
  v_ended := fleet.end_geo_commitments(p_geo_schedule_ids, p_device_ids, p_now);
  with begun as (
    insert into public.geo_commitments as c (
      geo_schedule_id, device_id, owner_id, hostname, serial_number, timezone, effective_from
    )
    select x.geo_schedule_id, x.device_id, x.owner_id, x.hostname, x.serial_number, x.timezone,
      fleet.geo_promised_from(s, x.device_id, p_now)
    from fleet.geo_scope(p_geo_schedule_ids, p_device_ids) as x
    join public.geo_schedules as s on s.id = x.geo_schedule_id
    where not exists (
      select 1
      from public.geo_commitments as o
      where o.geo_schedule_id = x.geo_schedule_id and o.device_id = x.device_id and o.until is null
    )
    on conflict (geo_schedule_id, device_id) where until is null do nothing
    returning c.device_id, c.geo_schedule_id
  )
  select count(*), array_agg(b.device_id) filter (where s.enforce is null) into v_begun, v_to_ring
  from begun as b
  join public.geo_schedules as s on s.id = b.geo_schedule_id;
  perform fleet.ring_for_geo_actions(v_to_ring, p_now);
  return v_ended + v_begun;
end;
$$;

comment on function fleet.reconcile_geo_scope(bigint[], bigint[], timestamptz) is
  'Bring the commitments of these geo schedules to who is in scope now; of these devices only, where some are named. Answers how many '
  'began or ended.';
revoke all on function fleet.reconcile_geo_scope(bigint[], bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.inherit_geo_commitments(p_device_ids bigint[], p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  -- A device that comes back as a new row is the same device. What its old row owes without an end ends for the new one as
  -- if it had left just now; being in scope anew is another matter.
  insert into public.geo_commitments (
    geo_schedule_id, device_id, owner_id, hostname, serial_number, timezone, effective_from, until
  )
  select distinct on (c.geo_schedule_id, d.id) c.geo_schedule_id, d.id, c.owner_id, d.hostname, c.serial_number, c.timezone,
    c.effective_from, u.until
  from public.devices as d
  join public.geo_commitments as c
    on c.owner_id = d.owner_id
    and c.device_id <> d.id
    and (lower(c.hostname) = lower(d.hostname) or c.serial_number = coalesce(d.attributes ->> 'serial_number', d.reported ->> 'serial_number'))
  join public.geo_schedules as s on s.id = c.geo_schedule_id and s.update_delay_type <> 'none'
  cross join lateral (
    select coalesce(c.until, fleet.geo_commitment_end(s, c.timezone, c.effective_from, p_now)) as until
  ) as u
  where d.id = any (p_device_ids)
    and c.override_reason is null
    and u.until > p_now
    and not exists (
      select 1 from public.geo_commitments as o where o.geo_schedule_id = c.geo_schedule_id and o.device_id = d.id
    )
  order by c.geo_schedule_id, d.id, u.until desc;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.inherit_geo_commitments(bigint[], timestamptz) is
  'A device that enrols under the hostname or serial number of one that still owes something owes the same. Answers how many commitments.';
revoke all on function fleet.inherit_geo_commitments(bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.follow_geo_devices(p_device_ids bigint[], p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids bigint[];
begin
  -- Most owners have none, and then this is all that it costs.
  if not exists (
    select 1
    from public.devices as d
    join public.geo_schedules as s on s.owner_id = d.owner_id
    where d.id = any (p_device_ids)
  ) then
    return;
  end if;
  perform fleet.inherit_geo_commitments(p_device_ids, p_now);
  v_ids := array(
    select s.id
    from public.geo_schedules as s
    where s.deletion_status is null
      and s.owner_id in (select d.owner_id from public.devices as d where d.id = any (p_device_ids))
  );
  perform fleet.reconcile_geo_scope(v_ids, p_device_ids, p_now);
end;
$$;

comment on function fleet.follow_geo_devices(bigint[], timestamptz) is
  'Bring the commitments of these devices to what they are now: what they are in scope of, what they left, what they owe from before.';
revoke all on function fleet.follow_geo_devices(bigint[], timestamptz) from public, anon, authenticated, service_role;
