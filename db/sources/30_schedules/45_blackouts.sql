-- Blackouts: what a schedule's calendars say about an instant.

create or replace function fleet.blackout_ids(p_policies jsonb)
returns bigint[]
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg((e #>> '{}')::numeric::bigint), '{}')
  from jsonb_array_elements(
    case jsonb_typeof(p_policies -> 'blackouts') when 'array' then p_policies -> 'blackouts' else '[]' end
  ) as e
  where jsonb_typeof(e) = 'number'
$$;

comment on function fleet.blackout_ids(jsonb) is 'The calendars that effective policies name.';
revoke all on function fleet.blackout_ids(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.blackout_at(
  p_owner_id uuid,
  p_calendar_ids bigint[],
  p_timezone text,
  p_instant timestamptz
)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_day date;
begin
  if p_calendar_ids = '{}' then
    return null;
  end if;
  v_day := (p_instant at time zone fleet.zone_clock(p_timezone))::date;
  return (
    select coalesce(nullif(b.summary, ''), c.name)
    from public.blackout_calendars as c
    join public.blackout_periods as b on b.calendar_id = c.id and b.owner_id = c.owner_id
    where c.id = any (p_calendar_ids)
      and c.owner_id = p_owner_id
      and (
        (b.starts_on <= v_day and v_day < b.ends_on)
        or (b.starts_at <= p_instant and p_instant < b.ends_at)
      )
    limit 1
  );
end;
$$;

comment on function fleet.blackout_at(uuid, bigint[], text, timestamptz) is
  'What forbids this instant, by name; null where nothing does. Whole days are days of the given zone.';
revoke all on function fleet.blackout_at(uuid, bigint[], text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.named_blackouts(p_owner_id uuid, p_policies jsonb)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- People write names; the schedule keeps ids, so that renaming a calendar changes nothing.
  select case
    when jsonb_typeof(p_policies -> 'blackouts') <> 'array' or not p_policies ? 'blackouts' then p_policies
    else p_policies || jsonb_build_object('blackouts', (
      select coalesce(jsonb_agg(coalesce(to_jsonb(c.id), e.item)), '[]')
      from jsonb_array_elements(p_policies -> 'blackouts') as e(item)
      left join public.blackout_calendars as c
        on jsonb_typeof(e.item) = 'string' and c.owner_id = p_owner_id and lower(c.name) = lower(e.item #>> '{}')
    ))
  end
$$;

comment on function fleet.named_blackouts(uuid, jsonb) is 'The policies with names of calendars replaced by their ids.';
revoke all on function fleet.named_blackouts(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.blackout_problems(p_owner_id uuid, p_policies jsonb)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select 'policies.blackouts', 'must be a list of calendars', 'Example: {"blackouts": ["School holidays"]}'
  where p_policies ? 'blackouts' and jsonb_typeof(p_policies -> 'blackouts') not in ('array', 'null')
  union all
  select 'policies.blackouts', format('calendar %s was not found', e.item), 'List them with: select id, name from blackout_calendars'
  from jsonb_array_elements(
    case jsonb_typeof(p_policies -> 'blackouts') when 'array' then p_policies -> 'blackouts' else '[]' end
  ) as e(item)
  where not exists (
    select 1 from public.blackout_calendars as c where c.owner_id = p_owner_id and to_jsonb(c.id) = e.item
  )
$$;

comment on function fleet.blackout_problems(uuid, jsonb) is
  'Calendars that do not exist for this owner. What belongs to another owner is as good as not there.';
revoke all on function fleet.blackout_problems(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.open_zones(p_schedule public.schedules, p_zones text[], p_instant timestamptz)
returns text[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(z.name), '{}')
  from unnest(p_zones) as z(name)
  where fleet.blackout_at(p_schedule.owner_id, fleet.blackout_ids(p_schedule.policies), z.name, p_instant) is null
$$;

comment on function fleet.open_zones(public.schedules, text[], timestamptz) is
  'Those of the time zones in which no blackout of the schedule forbids this instant.';
revoke all on function fleet.open_zones(public.schedules, text[], timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.zones_refusal(p_schedule public.schedules, p_zones text[], p_instant timestamptz)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_windows jsonb;
begin
  -- Most schedules say neither, and this is asked for each due instant.
  if not p_schedule.policies ?| '{blackouts,execution_window}' then
    return null;
  end if;

  if p_schedule.timezone = 'device' then
    -- A day begins and ends with the devices' own; their windows are looked at for each of them.
    return case when p_zones <> '{}' and fleet.open_zones(p_schedule, p_zones, p_instant) = '{}' then 'blackout' end;
  elsif fleet.open_zones(p_schedule, array[p_schedule.timezone], p_instant) = '{}' then
    return 'blackout';
  end if;

  v_windows := fleet.window_list(p_schedule.policies);
  if not fleet.waits_for_window(v_windows, 'schedule')
    and not fleet.is_in_windows(v_windows, 'schedule', p_schedule.timezone, p_instant)
  then
    return 'outside the execution window';
  end if;
  return null;
end;
$$;

comment on function fleet.zones_refusal(public.schedules, text[], timestamptz) is
  'Why a schedule does not run at an instant, in device time for the devices of these zones; null where it does.';
revoke all on function fleet.zones_refusal(public.schedules, text[], timestamptz)
  from public, anon, authenticated, service_role;
