-- Exporting: schedules as a document that knows no ids, for another fleet or for a repository.

create or replace function fleet.document_time(p_instant timestamptz, p_timezone text)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_format text := 'YYYY-MM-DD"T"HH24:MI:SS' || case when p_instant <> date_trunc('second', p_instant) then '.US' else '' end;
  v_local text;
begin
  -- Without the zone, which the server may have lost, UTC says it as well.
  v_local := case when fleet.zones_of_server(array[p_timezone]) <> '{}' then to_char(p_instant at time zone fleet.zone_clock(p_timezone), v_format) end;
  -- A repeated hour has two instants for one local time: then only UTC says which.
  if fleet.try_instant(v_local, p_timezone) = p_instant then
    return v_local;
  end if;
  return to_char(p_instant at time zone 'UTC', v_format) || 'Z';
end;
$$;

comment on function fleet.document_time(timestamptz, text) is
  'An instant as people write it: local to the zone where that is clear, else UTC.';
revoke all on function fleet.document_time(timestamptz, text) from public, anon, authenticated, service_role;

create or replace function fleet.schedule_document(p_schedule public.schedules)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.without_nulls((
    select jsonb_object_agg(c.name, case c.kind
      when 'time' then to_jsonb(case
        -- On many walls only UTC says which instant is meant.
        when p_schedule.timezone = 'device'
          and not case c.name when 'start_time' then p_schedule.start_is_local else p_schedule.end_is_local end
          then fleet.instant_text((e.value #>> '{}')::timestamptz)
        else fleet.document_time((e.value #>> '{}')::timestamptz, fleet.reference_zone(p_schedule))
      end)
      else e.value
    end)
    from fleet.schedule_columns() as c
    join jsonb_each(to_jsonb(p_schedule)) as e on e.key = c.name
    where e.value is distinct from c.default_value
      -- What is an id is named below, and twins follow from what they are twins of.
      and c.name not in ('device_ids', 'group_ids', 'device_id', 'profile_id', 'after_schedule_id', 'after_on', 'after_per_device', 'policies',
        'start_is_local',
        'end_is_local')
  ) || jsonb_build_object(
    'recurrence_type', p_schedule.recurrence_type,
    'timezone', p_schedule.timezone,
    'devices', (
      select jsonb_agg(d.hostname order by lower(d.hostname))
      from public.devices as d
      where d.id = any (p_schedule.device_ids) and d.owner_id = p_schedule.owner_id
    ),
    'groups', (
      select jsonb_agg(g.name order by lower(g.name))
      from public.device_groups as g
      where g.id = any (p_schedule.group_ids) and g.owner_id = p_schedule.owner_id
    ),
    'policies', nullif(
      p_schedule.policies || case
        when jsonb_typeof(p_schedule.policies -> 'blackouts') = 'array' then jsonb_build_object('blackouts', (
          select coalesce(jsonb_agg(c.name order by lower(c.name)), '[]')
          from public.blackout_calendars as c
          where c.id = any (fleet.blackout_ids(p_schedule.policies)) and c.owner_id = p_schedule.owner_id
        ))
        else '{}'
      end,
      '{}'
    ),
    'after', (
      select jsonb_build_object('schedule', a.name, 'on', p_schedule.after_on)
        || case when p_schedule.after_per_device then '{"per_device": true}' else '{}' end::jsonb
      from public.schedules as a
      where a.id = p_schedule.after_schedule_id and a.owner_id = p_schedule.owner_id
    ),
    'status', case when p_schedule.status = 'paused' then 'paused' end
  ))
$$;

comment on function fleet.schedule_document(public.schedules) is
  'A schedule as it stands in a document: without ids and counters, without what is as by default.';
revoke all on function fleet.schedule_document(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.group_document(p_group public.device_groups)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.without_nulls(jsonb_build_object(
    'name', p_group.name,
    'description', nullif(p_group.description, ''),
    'selector', p_group.selector,
    'devices', (
      select jsonb_agg(d.hostname order by lower(d.hostname))
      from public.device_group_members as m
      join public.devices as d on d.id = m.device_id
      where m.group_id = p_group.id
    )
  ))
$$;

comment on function fleet.group_document(public.device_groups) is 'A group as it stands in a document, with its listed members.';
revoke all on function fleet.group_document(public.device_groups) from public, anon, authenticated, service_role;

create or replace function fleet.period_document(p_period public.blackout_periods)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.without_nulls(jsonb_build_object(
    'starts_on', p_period.starts_on,
    'ends_on', p_period.ends_on,
    'starts_at', fleet.instant_text(p_period.starts_at),
    'ends_at', fleet.instant_text(p_period.ends_at),
    'summary', nullif(p_period.summary, '')
  ))
$$;

comment on function fleet.period_document(public.blackout_periods) is 'A period of a calendar as it stands in a document.';
revoke all on function fleet.period_document(public.blackout_periods) from public, anon, authenticated, service_role;

create or replace function fleet.calendar_document(p_calendar public.blackout_calendars)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.without_nulls(jsonb_build_object(
    'name', p_calendar.name,
    'description', nullif(p_calendar.description, ''),
    'url', p_calendar.url,
    'timezone', p_calendar.url_timezone,
    'skip_transparent', nullif(p_calendar.skip_transparent, false),
    -- What comes from elsewhere comes from there again.
    'periods', case when p_calendar.url is null then (
      select coalesce(jsonb_agg(
        fleet.period_document(p) order by coalesce(p.starts_at, p.starts_on::timestamp at time zone 'UTC'), p.summary, p.id
      ), '[]')
      from public.blackout_periods as p
      where p.calendar_id = p_calendar.id
    ) end
  ))
$$;

comment on function fleet.calendar_document(public.blackout_calendars) is 'A blackout calendar as it stands in a document.';
revoke all on function fleet.calendar_document(public.blackout_calendars) from public, anon, authenticated, service_role;

create or replace function fleet.template_document(p_template public.schedule_templates)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.without_nulls(jsonb_build_object(
    'name', p_template.name,
    'description', nullif(p_template.description, ''),
    'spec', p_template.spec,
    'parameters', nullif(p_template.parameters, '{}')
  ))
$$;

comment on function fleet.template_document(public.schedule_templates) is 'A template as it stands in a document.';
revoke all on function fleet.template_document(public.schedule_templates) from public, anon, authenticated, service_role;

create or replace function fleet.export_schedules(p_filter jsonb, p_owner_id uuid)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_filter jsonb := fleet.check_filter(coalesce(p_filter, '{}'));
  v_owner uuid := fleet.owner_or_own(p_owner_id);
  v_whole boolean := v_filter = '{}';
  v_ids bigint[];
  v_twice text;
begin
  perform fleet.require_permission(v_owner, 'view', format('owner %s', v_owner));
  -- What has ended is history; who wants it in the document names its status.
  v_filter := '{"status": ["active", "paused"]}'::jsonb || v_filter || jsonb_build_object('owner_id', v_owner);
  select array_agg(f.id) into v_ids from fleet.found_schedules(v_filter, 'view') as f;

  select min(s.name) into v_twice
  from public.schedules as s
  where s.id = any (v_ids)
  group by lower(s.name)
  having count(*) > 1
  limit 1;
  if v_twice is not null then
    raise exception 'two schedules are named "%"', v_twice
      using errcode = 'PT409', detail = 'schedule_ambiguous',
            hint = 'A document tells schedules apart by their names: rename one of them, or filter.';
  end if;
  return fleet.document_of(v_owner, coalesce(v_ids, '{}'), v_whole);
end;
$$;

comment on function fleet.export_schedules(jsonb, uuid) is 'See public.export_schedules. Definer: it checks the caller.';
revoke all on function fleet.export_schedules(jsonb, uuid) from public, anon, authenticated, service_role;
grant execute on function fleet.export_schedules(jsonb, uuid) to authenticated, service_role;

create or replace function fleet.document_of(p_owner_id uuid, p_ids bigint[], p_whole boolean)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'version', 1,
    'groups', (
      select coalesce(jsonb_agg(fleet.group_document(g) order by lower(g.name)), '[]')
      from public.device_groups as g
      where g.owner_id = p_owner_id
        and (
          p_whole
          or exists (select 1 from public.schedules as s where s.id = any (p_ids) and g.id = any (s.group_ids))
        )
    ),
    'blackout_calendars', (
      select coalesce(jsonb_agg(fleet.calendar_document(c) order by lower(c.name)), '[]')
      from public.blackout_calendars as c
      where c.owner_id = p_owner_id
        and (
          p_whole
          or exists (
            select 1 from public.schedules as s
            where s.id = any (p_ids) and c.id = any (fleet.blackout_ids(s.policies))
          )
        )
    ),
    'templates', (
      select coalesce(jsonb_agg(fleet.template_document(t) order by lower(t.name)), '[]')
      from public.schedule_templates as t
      where p_whole
        and t.owner_id = p_owner_id
        and t.version = (
          select max(x.version) from public.schedule_templates as x
          where x.owner_id = t.owner_id and lower(x.name) = lower(t.name)
        )
    ),
    'schedules', (
      select coalesce(jsonb_agg(fleet.schedule_document(s) order by lower(s.name)), '[]')
      from public.schedules as s
      where s.id = any (p_ids)
    )
  )
$$;

comment on function fleet.document_of(uuid, bigint[], boolean) is
  'The document of these schedules, with the groups and calendars that they name; with everything of the owner where it is to be whole.';
revoke all on function fleet.document_of(uuid, bigint[], boolean) from public, anon, authenticated, service_role;

create or replace function public.export_schedules(p_filter jsonb default '{}', p_owner_id uuid default null)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.export_schedules(p_filter, p_owner_id)
$$;

comment on function public.export_schedules(jsonb, uuid) is
  'Schedules as a document {version, groups, blackout_calendars, templates, schedules} that apply_document takes, in this fleet or '
  'another: everything is named, nothing is an id. Active and paused ones, unless the filter (as in bulk_schedules) names a status; '
  'templates and unused groups and calendars only without a filter. Raises filter_invalid (PT422) or schedule_ambiguous (PT409).';
revoke all on function public.export_schedules(jsonb, uuid) from public, anon, authenticated, service_role;
grant execute on function public.export_schedules(jsonb, uuid) to authenticated, service_role;
