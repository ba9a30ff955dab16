-- A schedule in plain English.

create or replace function fleet.describe_schedule(p_schedule_id bigint, p_now timestamptz)
returns text
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select fleet.describe_row(fleet.schedule_in_view(p_schedule_id), p_now)
$$;

comment on function fleet.describe_schedule(bigint, timestamptz) is 'See public.describe_schedule. Definer: it checks the caller.';
revoke all on function fleet.describe_schedule(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.describe_schedule(bigint, timestamptz) to authenticated, service_role;

create or replace function public.describe_schedule(p_schedule_id bigint, p_now timestamptz default now())
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.describe_schedule(p_schedule_id, p_now)
$$;

comment on function public.describe_schedule(bigint, timestamptz) is
  'A schedule in plain English: what goes to whom and when, each policy that is not the usual one, and how it stands. Raises '
  'schedule_not_found (PT404).';
revoke all on function public.describe_schedule(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.describe_schedule(bigint, timestamptz) to authenticated, service_role;

create or replace function fleet.describe_row(p_schedule public.schedules, p_now timestamptz)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select concat_ws(' ',
    format('"%s" sends %s to %s (%s now) %s.', p_schedule.name, p_schedule.action_type, fleet.describe_targets(p_schedule),
      (
        select case n.devices when 1 then '1 device' else n.devices || ' devices' end
        from (select fleet.devices_of_zones(fleet.device_counts(p_schedule), null) as devices) as n
      ),
      fleet.describe_when(p_schedule, p_now)),
    fleet.describe_policies(p_schedule),
    fleet.describe_state(p_schedule)
  )
$$;

comment on function fleet.describe_row(public.schedules, timestamptz) is 'See public.describe_schedule.';
revoke all on function fleet.describe_row(public.schedules, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.describe_when(p_schedule public.schedules, p_now timestamptz)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_schedule.after_schedule_id is not null then format(case
      when p_schedule.after_per_device then 'on each device as soon as its command of "%s" has %s'
      else 'each time a run of "%s" has %s'
    end, (
      select s.name from public.schedules as s where s.id = p_schedule.after_schedule_id
    ), fleet.ending_text(p_schedule.after_on))
    when p_schedule.timezone = 'device' then replace(
      fleet.describe_recurrence(p_schedule.recurrence -> 'wall'),
      ' (UTC)',
      ' in each device''s own time'
    )
    else fleet.describe_recurrence(p_schedule.recurrence)
  end || case
    when p_schedule.recurrence_type not in ('once', 'interval') and p_schedule.start_time > p_now
      and p_schedule.after_schedule_id is null
      then ', from ' || fleet.clock_text(p_schedule.start_time, fleet.reference_zone(p_schedule)) || ' on'
    else ''
  end
$$;

comment on function fleet.describe_when(public.schedules, timestamptz) is 'When a schedule runs: its recurrence, or what it follows.';
revoke all on function fleet.describe_when(public.schedules, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.describe_targets(p_schedule public.schedules)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.english_list(array_remove(array[
      case
        when cardinality(p_schedule.device_ids) > 3 then cardinality(p_schedule.device_ids) || ' named devices'
        when p_schedule.device_ids <> '{}' then (
          select case count(*) when 1 then 'device ' else 'devices ' end
            || coalesce(fleet.english_list(array_agg(format('"%s"', d.hostname) order by d.hostname)), 'that are gone')
          from public.devices as d
          where d.id = any (p_schedule.device_ids) and d.owner_id = p_schedule.owner_id
        )
      end,
      case
        when p_schedule.group_ids <> '{}' then (
          select case count(*) when 1 then 'group ' else 'groups ' end
            || coalesce(fleet.english_list(array_agg(format('"%s"', g.name) order by g.name)), 'that are gone')
          from public.device_groups as g
          where g.id = any (p_schedule.group_ids) and g.owner_id = p_schedule.owner_id
        )
      end,
      fleet.describe_selector(p_schedule.selector)
    ], null))
$$;

comment on function fleet.describe_targets(public.schedules) is 'Whom a schedule reaches, by name where they are few.';
revoke all on function fleet.describe_targets(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.describe_selector(p_selector jsonb)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_selector is null then null
    when p_selector = '{}' then 'every device'
    else 'every device with ' || fleet.english_list(array_agg(
      case e.key
        when 'tags' then 'the tags ' || v.list
        when 'any_tags' then 'one of the tags ' || v.list
        when 'platform' then 'platform ' || v.list
        else e.key || ' ' || e.value::text
      end order by e.key
    ))
  end
  from jsonb_each(coalesce(p_selector, '{}')) as e
  cross join lateral (
    select string_agg(i.text, ', ') as list
    from jsonb_array_elements_text(
      case jsonb_typeof(e.value) when 'array' then e.value else jsonb_build_array(e.value) end
    ) as i(text)
  ) as v
$$;

comment on function fleet.describe_selector(jsonb) is 'A selector in words; null where there is none.';
revoke all on function fleet.describe_selector(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.describe_state(p_schedule public.schedules)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_schedule.status <> 'active' then format('It is %s%s.', p_schedule.status, ': ' || p_schedule.status_reason)
    when p_schedule.timezone = 'device' and p_schedule.next_run_at is not null then (
      select format('Next due: %s on each device''s wall, first in %s.', fleet.wall_text(c.local), c.zones[1])
      from fleet.coming_on_walls(p_schedule, p_schedule.next_run_at, 'infinity', 1, false) as c
    )
    when p_schedule.next_run_at is not null then format('Next due: %s.', fleet.local_times(
      p_schedule.next_run_at,
      array[fleet.reference_zone(p_schedule)]
    ))
  end
$$;

comment on function fleet.describe_state(public.schedules) is 'How a schedule stands: why it rests, or when it runs next.';
revoke all on function fleet.describe_state(public.schedules) from public, anon, authenticated, service_role;
