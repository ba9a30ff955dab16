-- What a device asks for and tells: its actions, on its own wall, and what became of them.

create or replace function fleet.is_owed(
  p_commitment public.geo_commitments,
  p_update_delay_type text,
  p_starts_at timestamptz,
  p_now timestamptz
)
returns boolean
language sql
immutable
parallel safe
return (p_commitment.effective_from is null or p_starts_at >= p_commitment.effective_from)
  and case
    when p_commitment.until is null or p_now < p_commitment.until then p_commitment.until is null or p_starts_at < p_commitment.until
    -- Without a delay, and by an override, the end counts also for what is running.
    else p_update_delay_type <> 'none' and p_commitment.override_reason is null and p_starts_at < p_commitment.until
  end;

comment on function fleet.is_owed(public.geo_commitments, text, timestamptz, timestamptz) is
  'Whether a device owes, at this instant, an action that starts then on its wall.';
revoke all on function fleet.is_owed(public.geo_commitments, text, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.geo_actions_of_devices(p_device_ids bigint[], p_now timestamptz)
returns table (
  device_id bigint, owner_id uuid, geo_action_id bigint, geo_schedule_id bigint, name text, from_date date, starts_at timestamptz,
  ends_at timestamptz, timezone text, side text, geometry jsonb, apps text[], enforce jsonb, unknown_location text,
  max_location_age interval, status text, location_met_at timestamptz, reason text, is_owed boolean, until timestamptz
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- plpgsql keeps its plan, and any list is planned alike.
set plan_cache_mode = force_generic_plan
as $$
begin
  return query
  select c.device_id, c.owner_id, a.id, s.id, s.name, a.from_date, b.starts_at, b.ends_at, c.timezone, a.side, a.geometry, a.apps,
    a.enforce, a.unknown_location, a.max_location_age, r.status, r.location_met_at, r.reason,
    fleet.is_owed(c, a.update_delay_type, b.starts_at, p_now), c.until
  from public.geo_commitments as c
  join public.geo_schedules as s on s.id = c.geo_schedule_id
  join public.geo_actions as a on a.geo_schedule_id = s.id
  cross join lateral (
    select a.starts_at, a.ends_at where a.timezone <> 'device'
    union all
    select d.starts_at, d.ends_at
    from fleet.geo_clocks(c.timezone) as k
    cross join lateral fleet.geo_action_bounds(
      a.from_date, s.start_minute, s.end_minute, k.first_clock, k.last_clock
    ) as d
    where a.timezone = 'device'
  ) as b
  left join public.geo_action_reports as r on r.geo_action_id = a.id and r.device_id = c.device_id
  where c.device_id = any (p_device_ids)
    and b.ends_at > b.starts_at;
end;
$$;

comment on function fleet.geo_actions_of_devices(bigint[], timestamptz) is
  'Every action of these devices, on their own walls, with what they reported and whether it is owed at this instant. After a change of '
  'zone an action may stand twice, of which one is owed.';
revoke all on function fleet.geo_actions_of_devices(bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.is_geo_debtor(p_device_id bigint, p_now timestamptz)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (
    select 1
    from public.geo_commitments as c
    join public.geo_schedules as s on s.id = c.geo_schedule_id
    where c.device_id = p_device_id
      and s.update_delay_type <> 'none'
      and c.override_reason is null
      and (
        c.until is null
        or c.until > p_now
        -- What started before the end is still running.
        or exists (
          select 1
          from fleet.geo_actions_of_devices(array[p_device_id], p_now) as x
          where x.geo_schedule_id = s.id and x.is_owed and x.starts_at <= p_now and x.ends_at > p_now
        )
      )
  );
end;
$$;

comment on function fleet.is_geo_debtor(bigint, timestamptz) is
  'Whether a device owes something that a change made now would not end at once.';
revoke all on function fleet.is_geo_debtor(bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.geo_actions_due(p_now timestamptz)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device_id bigint := fleet.require_device();
begin
  perform fleet.touch_device(v_device_id, p_now);
  perform fleet.create_geo_actions(
    array(select c.geo_schedule_id from public.geo_commitments as c where c.device_id = v_device_id and (c.until is null or c.until > p_now)),
    p_now
  );
  -- Whoever asks after the end has been told.
  update public.geo_commitments as c
  set confirmed_at = p_now
  where c.device_id = v_device_id and c.until <= p_now and c.confirmed_at is null;

  return jsonb_build_object('now', p_now, 'actions', (
    select coalesce(jsonb_agg(jsonb_build_object(
      'geo_action_id', x.geo_action_id, 'geo_schedule_id', x.geo_schedule_id, 'name', x.name, 'from_date', x.from_date,
      'starts_at', x.starts_at, 'ends_at', x.ends_at, 'side', x.side, 'geometry', x.geometry, 'apps', to_jsonb(x.apps),
      'unknown_location', x.unknown_location, 'max_location_age_seconds', extract(epoch from x.max_location_age)::bigint,
      'status', x.status, 'location_met_at', x.location_met_at
    ) order by x.starts_at, x.geo_action_id), '[]')
    from fleet.geo_actions_of_devices(array[v_device_id], p_now) as x
    where x.is_owed
      and x.ends_at > p_now
      -- A profile of the MDM does it, not the agent.
      and x.enforce is null
      and (x.status is null or x.status in ('scheduled', 'running'))
  ));
end;
$$;

comment on function fleet.geo_actions_due(timestamptz) is
  'See public.geo_actions_due. Definer: devices read no tables of geo schedules.';
revoke all on function fleet.geo_actions_due(timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.geo_actions_due(timestamptz) to authenticated, service_role;

create or replace function public.geo_actions_due()
returns jsonb
language sql
volatile
return fleet.geo_actions_due(clock_timestamp());

comment on function public.geo_actions_due() is
  'A device asks for its actions, running and coming: {"now", "actions": [{geo_action_id, geo_schedule_id, name, from_date, starts_at, '
  'ends_at, side, geometry, apps, unknown_location, max_location_age_seconds, status, location_met_at}]}. It makes those that are missing; '
  'what is over or reported as finished, skipped or failed is not among them. Raises not_a_device (PT403).';
revoke all on function public.geo_actions_due() from public, anon, authenticated, service_role;
grant execute on function public.geo_actions_due() to authenticated, service_role;

create or replace function fleet.geo_report_problems(p_status text, p_location_met_at timestamptz, p_reason text, p_now timestamptz)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select 'p_status', coalesce(format('"%s" is not a status', left(p_status, 60)), 'is missing'), 'Use scheduled, running, finished, skipped or failed.'
  where p_status is null or p_status not in ('scheduled', 'running', 'finished', 'skipped', 'failed')
  union all
  select 'p_location_met_at', 'is in the future', 'The time by the server''s clock.'
  where p_location_met_at > p_now + interval '5 minutes'
  union all
  select 'p_reason', 'is missing', 'Say why it was skipped or failed.'
  where p_status in ('skipped', 'failed') and coalesce(btrim(p_reason), '') = ''
$$;

comment on function fleet.geo_report_problems(text, timestamptz, text, timestamptz) is 'Everything that is wrong with a report.';
revoke all on function fleet.geo_report_problems(text, timestamptz, text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.report_geo_action(
  p_geo_action_id bigint,
  p_status text,
  p_location_met_at timestamptz,
  p_reason text,
  p_now timestamptz
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device_id bigint := fleet.require_device();
  v_owner uuid;
begin
  perform fleet.raise_problems('the report', 'geo_report_invalid', array_agg(q))
  from fleet.geo_report_problems(p_status, p_location_met_at, p_reason, p_now) as q;

  select a.owner_id into v_owner
  from public.geo_actions as a
  where a.id = p_geo_action_id
    and exists (
      select 1 from public.geo_commitments as c where c.geo_schedule_id = a.geo_schedule_id and c.device_id = v_device_id
    )
  for key share;
  if not found then
    return '{"accepted": false, "reason": "gone"}';
  end if;

  insert into public.geo_action_reports as r (geo_action_id, device_id, owner_id, status, location_met_at, reason, reported_at)
  values (
    p_geo_action_id, v_device_id, v_owner, p_status,
    -- Before there was any action it was not: a clock that is far behind says nothing that whoever reads it could not read.
    case when p_location_met_at is not null then greatest(p_location_met_at, p_now - interval '30 days') end,
    left(p_reason, 2000), p_now
  )
  on conflict (geo_action_id, device_id) do update
    set status = excluded.status,
        -- The first time counts, however often it is told.
        location_met_at = least(r.location_met_at, excluded.location_met_at),
        reason = excluded.reason,
        reported_at = excluded.reported_at
    where r.status in ('scheduled', 'running');
  if not found then
    return '{"accepted": false, "reason": "final"}';
  end if;
  return '{"accepted": true}';
end;
$$;

comment on function fleet.report_geo_action(bigint, text, timestamptz, text, timestamptz) is
  'See public.report_geo_action. Definer: a device writes reports of its own and nothing else.';
revoke all on function fleet.report_geo_action(bigint, text, timestamptz, text, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.report_geo_action(bigint, text, timestamptz, text, timestamptz) to authenticated, service_role;

create or replace function public.report_geo_action(
  p_geo_action_id bigint,
  p_status text,
  p_location_met_at timestamptz default null,
  p_reason text default null
)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.report_geo_action(p_geo_action_id, p_status, p_location_met_at, p_reason, clock_timestamp())
$$;

comment on function public.report_geo_action(bigint, text, timestamptz, text) is
  'A device tells what became of an action: scheduled, running, finished, skipped or failed (with a reason), and when the location was '
  'first met. {"accepted": true}, or {"accepted": false, "reason": gone | final}: the device drops it. Raises not_a_device (PT403) or '
  'geo_report_invalid (PT422).';
revoke all on function public.report_geo_action(bigint, text, timestamptz, text) from public, anon, authenticated, service_role;
grant execute on function public.report_geo_action(bigint, text, timestamptz, text) to authenticated, service_role;
