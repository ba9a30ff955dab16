-- Looking ahead and asking why: what a geo schedule would do, and why apps are blocked on a device, or not.

create or replace function fleet.preview_geo_schedule(p_spec jsonb, p_from timestamptz, p_to timestamptz)
returns table (from_date date, starts_at timestamptz, ends_at timestamptz, length_minutes integer)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid := fleet.owner_or_own(fleet.owner_of_spec(p_spec));
  v_row public.geo_schedules;
begin
  perform fleet.require_permission(v_owner, 'view', format('owner %s', v_owner));
  -- Between 1900 and 2300 no sum of what follows leaves the calendar.
  if coalesce(p_from < '1900-01-01' or p_to > '2300-01-01' or p_from >= p_to, true) or p_to > p_from + interval '366 days' then
    raise exception 'p_from must be before p_to, a year at most, between 1900 and 2300'
      using errcode = 'PT422', detail = 'window_invalid', hint = 'Leave both out for the next two weeks.';
  end if;
  v_row := fleet.checked_geo_schedule(fleet.empty_geo_schedule(v_owner), p_spec);
  return query
  select a.from_date, a.starts_at, a.ends_at, a.length_minutes
  from fleet.create_actions_from_geo_schedule_config(v_row, p_from, p_to) as a
  order by a.starts_at;
end;
$$;

comment on function fleet.preview_geo_schedule(jsonb, timestamptz, timestamptz) is 'See public.preview_geo_schedule. Definer: it checks the caller.';
revoke all on function fleet.preview_geo_schedule(jsonb, timestamptz, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.preview_geo_schedule(jsonb, timestamptz, timestamptz) to authenticated, service_role;

create or replace function public.preview_geo_schedule(
  p_spec jsonb,
  p_from timestamptz default now(),
  p_to timestamptz default now() + interval '14 days'
)
returns table (from_date date, starts_at timestamptz, ends_at timestamptz, length_minutes integer)
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select * from fleet.preview_geo_schedule(p_spec, fleet.calendar_instant(p_from), fleet.calendar_instant(p_to))
$$;

comment on function public.preview_geo_schedule(jsonb, timestamptz, timestamptz) is
  'The actions that a specification of create_geo_schedule would have, without making it; in device time the first and the last anywhere. '
  'Raises geo_schedule_invalid (PT422, or PT404), window_invalid (PT422) or permission_missing (PT403).';
revoke all on function public.preview_geo_schedule(jsonb, timestamptz, timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.preview_geo_schedule(jsonb, timestamptz, timestamptz) to authenticated, service_role;

create or replace function fleet.explain_geo(p_device_id bigint, p_at timestamptz)
returns jsonb
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device public.devices;
  v_actions jsonb;
  -- Nobody has actions before or after, and sums of it stay within the calendar.
  v_at timestamptz := least(greatest(p_at, '1900-01-01'), '2300-01-01');
begin
  select d.* into v_device from public.devices as d where d.id = p_device_id and fleet.is_visible_owner(d.owner_id);
  if not found then
    perform fleet.raise_not_found(format('device %s', p_device_id));
  end if;
  perform fleet.require_permission(v_device.owner_id, 'view', format('device %s', p_device_id));

  select coalesce(jsonb_agg(to_jsonb(e) order by e.starts_at, e.geo_action_id), '[]') into v_actions
  from (
    select x.geo_action_id, x.geo_schedule_id, x.name, x.starts_at, x.ends_at, x.apps, x.side, l.side as device_side, x.status,
      x.location_met_at, c.state = 'blocked' as is_blocking, c.state,
      case c.state
        when 'released' then 'the change of the geo schedule counts by now'
        when 'waiting' then 'it has not begun'
        when 'reported' then format('the device reported it as %s', concat_ws(': ', x.status, x.reason))
        when 'elsewhere' then format('the device is %s of the location, which wants %s', l.side, x.side)
        when 'unknown' then 'it is not known where the device is, and that means free'
        else case
          when s.delete_started_date is null then 'it is running'
          else format('it was %s, but that counts only from %s', case when s.replaced_by is null then 'deleted' else 'changed' end, x.until)
        end
      end as reason
    from fleet.geo_actions_of_devices(array[p_device_id], v_at) as x
    join public.geo_schedules as s on s.id = x.geo_schedule_id
    join public.geo_actions as a on a.id = x.geo_action_id
    cross join lateral (
      select case when x.side = 'anywhere' then 'anywhere' else fleet.geo_side(x.geometry, v_device, x.max_location_age, x.status = 'running', v_at) end
        as side
    ) as l
    cross join lateral (
      select case
        when not x.is_owed or not (x.timezone <> a.timezone or fleet.should_be_executed(a, s, v_at)) then 'released'
        when x.starts_at > v_at then 'waiting'
        when x.status in ('finished', 'skipped', 'failed') then 'reported'
        when fleet.is_geo_met(l.side, x.side, x.unknown_location, coalesce(x.status = 'running', false)) then 'blocked'
        when l.side = 'unknown' then 'unknown'
        else 'elsewhere'
      end as state
    ) as c
    where x.ends_at > v_at
      and x.starts_at < v_at + interval '1 day'
  ) as e;

  return jsonb_build_object(
    'device_id', v_device.id, 'hostname', v_device.hostname, 'at', v_at, 'actions', v_actions,
    'blocked_apps', (
      select coalesce(jsonb_agg(distinct b.app), '[]')
      from jsonb_array_elements(v_actions) as v(action)
      cross join lateral jsonb_array_elements_text(v.action -> 'apps') as b(app)
      where (v.action ->> 'is_blocking')::boolean
    )
  );
end;
$$;

comment on function fleet.explain_geo(bigint, timestamptz) is 'See public.explain_geo. Definer: it checks the caller.';
revoke all on function fleet.explain_geo(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.explain_geo(bigint, timestamptz) to authenticated, service_role;

create or replace function public.explain_geo(p_device_id bigint, p_at timestamptz default now())
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.explain_geo(p_device_id, fleet.calendar_instant(p_at))
$$;

comment on function public.explain_geo(bigint, timestamptz) is
  'Why apps are blocked on a device, or not: {"device_id", "hostname", "at", "blocked_apps", "actions": [{name, starts_at, ends_at, apps, side, '
  'device_side, status, state, is_blocking, reason}]} with what runs at the instant and begins within a day. Raises device_not_found (PT404).';
revoke all on function public.explain_geo(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.explain_geo(bigint, timestamptz) to authenticated, service_role;
