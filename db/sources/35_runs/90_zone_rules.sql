-- Zones whose rules the server has changed: what was computed by the old ones is computed anew, once.

create or replace function fleet.check_zones(p_now timestamptz, p_limit integer default 3)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_zone record;
  v_rules text;
  v_changed integer := 0;
begin
  -- Each zone an hour after the last look, a few at a tick.
  for v_zone in
    select z.name, z.rules
    from fleet.time_zones as z
    where coalesce(z.checked_at not between p_now - interval '1 hour' and p_now, true)
    order by z.checked_at nulls first, z.name
    limit p_limit
    for update skip locked
  loop
    v_rules := fleet.zone_rules(v_zone.name, p_now);
    if left(v_zone.rules, 4) = left(v_rules, 4) and v_zone.rules <> v_rules then
      perform fleet.recompute_zone(v_zone.name, p_now);
      v_changed := v_changed + 1;
    end if;
    update fleet.time_zones as z
    set rules = coalesce(v_rules, z.rules), checked_at = p_now,
        changed_at = case when left(z.rules, 4) = left(v_rules, 4) and z.rules <> v_rules then p_now else z.changed_at end
    where z.name = v_zone.name;
  end loop;
  return v_changed;
end;
$$;

comment on function fleet.check_zones(timestamptz, integer) is
  'Compare the rules of a few time zones with those that what is stored was computed by, and compute anew what other rules concern. Answers '
  'how many zones have changed.';
revoke all on function fleet.check_zones(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.recompute_zone(p_zone text, p_now timestamptz)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_schedule public.schedules;
  v_count bigint := 0;
begin
  -- What is overdue is due, whatever the rules say by now.
  update public.schedules as s
  set recurrence = c.recurrence,
      next_run_at = case
        when s.next_run_at > p_now and s.recurrence_type not in ('once', 'interval')
          then fleet.next_due(c.recurrence, null, greatest(p_now, s.start_time - interval '1 microsecond'))
        else s.next_run_at
      end
  from (
    select x.id, fleet.compiled(x) as recurrence
    from public.schedules as x
    where x.timezone = p_zone and x.status in ('active', 'paused') and x.after_schedule_id is null
  ) as c
  where s.id = c.id;
  get diagnostics v_count = row_count;

  for v_schedule in
    select s.*
    from public.schedules as s
    where s.timezone = 'device'
      and s.status <> 'cancelled'
      and s.after_schedule_id is null
      and (
        s.recurrence ->> 'home' = p_zone
        or exists (select 1 from fleet.owner_zones as z where z.owner_id = s.owner_id and z.zone = p_zone and z.devices > 0)
      )
    order by s.id
  loop
    perform fleet.plan_open_runs(v_schedule, p_now);
    if v_schedule.next_run_at > p_now then
      update public.schedules as s
      set next_run_at = coalesce(fleet.next_due(s.recurrence, fleet.schedule_zones(s), p_now), s.next_run_at)
      where s.id = v_schedule.id;
    end if;
    v_count := v_count + 1;
  end loop;
  return v_count;
end;
$$;

comment on function fleet.recompute_zone(text, timestamptz) is
  'Compute anew when schedules are due whose times are read in a zone, those by device time among them, and the zones to come of their '
  'runs. Answers how many there are.';
revoke all on function fleet.recompute_zone(text, timestamptz) from public, anon, authenticated, service_role;
