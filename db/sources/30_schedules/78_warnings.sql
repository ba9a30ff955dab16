-- What is allowed but probably not meant.

create or replace function fleet.jitter_warning(p_schedule public.schedules)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_policies jsonb;
  v_jitter interval := (p_schedule.policies ->> 'jitter')::interval;
  v_plan jsonb;
  v_due timestamptz := greatest(p_schedule.start_time, now()) - interval '1 microsecond';
  v_lost bigint := 0;
begin
  if v_jitter is null then
    return null;
  end if;
  v_policies := fleet.effective_policies(p_schedule.policies);
  if p_schedule.recurrence_type = 'once' or p_schedule.after_schedule_id is not null
    or (v_policies ->> 'overlap' = 'allow' and (v_policies ->> 'expires_after')::interval >= v_jitter)
  then
    return null;
  end if;

  v_plan := fleet.compiled_recurrence(
    p_schedule.recurrence_type, p_schedule.recurrence_config, fleet.reference_zone(p_schedule), p_schedule.start_time,
    p_schedule.end_time, v_policies ->> 'gap', v_policies ->> 'fold'
  );
  -- Not every pause is as long as the next: working days, several times a day.
  for v_number in 1..10 loop
    v_due := fleet.next_occurrence(v_plan, v_due);
    exit when v_due is null;
    v_lost := greatest(v_lost, fleet.count_occurrences(v_plan, v_due + interval '1 microsecond', v_due + v_jitter, 1000000));
  end loop;
  if v_lost > 0 then
    return format(
      'policies.jitter reaches over the next due instant: a device with a late slot misses %s of %s runs', v_lost, v_lost + 1
    );
  end if;
  return null;
end;
$$;

comment on function fleet.jitter_warning(public.schedules) is
  'What a jitter costs that is longer than the pause between two due instants: a device whose slot lies behind the next is still waiting when '
  'that is due. Null where it costs nothing.';
revoke all on function fleet.jitter_warning(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.schedule_warnings(p_schedule public.schedules)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_warnings text[] := '{}';
begin
  if p_schedule.recurrence_type = 'once' and exists (
    select 1
    from public.schedule_runs as r
    where r.schedule_id = p_schedule.id and r.status = 'skipped' and r.reason = 'outside the catch-up window'
  ) then
    v_warnings := v_warnings
      || 'start_time is in the past: the run is in the ledger as skipped, outside the catch-up window'::text;
  end if;
  if not fleet.has_targets(p_schedule.owner_id, p_schedule.device_ids, p_schedule.group_ids, p_schedule.selector) then
    v_warnings := v_warnings || 'no device matches at this moment'::text;
  end if;
  if p_schedule.next_run_at is null and p_schedule.after_schedule_id is null
    and not exists (select 1 from public.schedule_runs as r where r.schedule_id = p_schedule.id)
  then
    v_warnings := v_warnings || 'the schedule has no due instant: nothing will run'::text;
  end if;
  if p_schedule.timezone = 'device' and p_schedule.after_schedule_id is null then
    v_warnings := v_warnings || fleet.device_time_warnings(p_schedule, clock_timestamp());
  end if;
  return to_jsonb(array_remove(v_warnings || fleet.jitter_warning(p_schedule), null));
end;
$$;

comment on function fleet.schedule_warnings(public.schedules) is
  'What is allowed but probably not meant: a start in the past, nobody to reach, nothing due.';
revoke all on function fleet.schedule_warnings(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.zone_warning(p_schedule jsonb, p_spec jsonb)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_home text;
begin
  if p_schedule ->> 'timezone' = 'UTC' and coalesce(p_spec ->> 'timezone', p_spec ->> 'rrule', p_spec ->> 'after') is null and (
    p_schedule ->> 'recurrence_type' in ('daily', 'weekly', 'monthly', 'cron')
    or fleet.is_wall_time(coalesce(p_spec ->> 'start_time', p_spec ->> 'scheduled_time'))
  ) then
    v_home := fleet.home_zone((p_schedule ->> 'owner_id')::uuid);
  end if;
  if v_home <> 'UTC' then
    return format('no timezone was named, so its times are in UTC; where they are meant in %s, name that', v_home);
  end if;
  return null;
end;
$$;

comment on function fleet.zone_warning(jsonb, jsonb) is
  'What is said of a schedule whose specification names no time zone and whose times are read on a clock, where its owner''s is not UTC.';
revoke all on function fleet.zone_warning(jsonb, jsonb) from public, anon, authenticated, service_role;
