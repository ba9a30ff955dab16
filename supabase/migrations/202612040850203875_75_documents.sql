-- Generated from db/sources/75_documents by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/75_documents/10_export.sql
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

-- db/sources/75_documents/20_apply.sql
-- Applying a document as a whole: what it names comes to be as it says, each schedule after the one that it follows.

create or replace function fleet.apply_schedule(p_owner_id uuid, p_schedule jsonb)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_old public.schedules := fleet.schedule_by_name(p_owner_id, p_schedule ->> 'name');
  v_base public.schedules := fleet.blank_schedule(p_owner_id);
  v_status text := fleet.status_of_spec(p_schedule);
  v_row public.schedules;
begin
  -- What the document does not say is as by default; only when it began, and whether it is paused, stays as it is.
  v_base.start_time := v_old.start_time;
  v_row := fleet.changed_schedule(v_base, p_schedule - 'status');
  v_row.status := coalesce(v_status, v_base.status);
  if v_old.id is not null then
    -- What is gone has no name to stand in a document; it is as it was.
    select v_row.device_ids || g.device_ids, v_row.group_ids || g.group_ids into v_row.device_ids, v_row.group_ids
    from fleet.gone_targets(v_old) as g;
    -- The twin columns follow from payload and targets, which the document has in full.
    v_row := fleet.completed_schedule(v_base, v_row);
    v_row.id := v_old.id;
    v_row.profile_id := v_old.profile_id;
    v_row.device_id := v_old.device_id;
  end if;

  v_row.id := fleet.store_schedule(v_row);
  update public.schedules as s
  set status = v_status, status_reason = null
  where s.id = v_old.id and s.status in ('active', 'paused') and s.status <> v_status;
  select s.* into v_row from public.schedules as s where s.id = v_row.id;
  return fleet.plan_item(
    'schedule', p_schedule ->> 'name',
    case when v_old.id is not null then fleet.schedule_document(v_old) end,
    fleet.schedule_document(v_row)
  );
end;
$$;

comment on function fleet.apply_schedule(uuid, jsonb) is 'Bring one schedule to what a document says. Answers what that took.';
revoke all on function fleet.apply_schedule(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.in_order_of_chains(p_schedules jsonb)
returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_left jsonb := coalesce(p_schedules, '[]');
  v_ready jsonb;
  v_ordered jsonb := '[]';
begin
  while v_left <> '[]' loop
    -- Ready is what follows nothing that is still left.
    with item as materialized (
      select e.item, e.nr from jsonb_array_elements(v_left) with ordinality as e(item, nr)
    ),
    named as materialized (
      select distinct lower(i.item ->> 'name') as name from item as i
    )
    select coalesce(jsonb_agg(i.item order by i.nr) filter (where n.name is null), '[]'),
      coalesce(jsonb_agg(i.item order by i.nr) filter (where n.name is not null), '[]')
    into v_ready, v_left
    from item as i
    left join named as n on n.name = lower(i.item #>> '{after,schedule}');
    if v_ready = '[]' then
      raise exception 'these schedules follow each other in a circle: %', (
        select string_agg(e.item ->> 'name', ', ') from jsonb_array_elements(v_left) as e(item)
      )
        using errcode = 'PT422', detail = 'document_invalid', hint = 'Let the first of them have times of its own.';
    end if;
    v_ordered := v_ordered || v_ready;
  end loop;
  return v_ordered;
end;
$$;

comment on function fleet.in_order_of_chains(jsonb) is
  'The schedules of a document, each behind the one that it follows. Raises document_invalid (PT422) for a circle.';
revoke all on function fleet.in_order_of_chains(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.apply_item(p_owner_id uuid, p_section text, p_item jsonb)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_hint text;
begin
  return case p_section
    when 'groups' then fleet.apply_group(p_owner_id, p_item)
    when 'blackout_calendars' then fleet.apply_calendar(p_owner_id, p_item)
    when 'templates' then fleet.apply_template(p_owner_id, p_item)
    else fleet.apply_schedule(p_owner_id, p_item)
  end;
exception
  when sqlstate 'PT403' or sqlstate 'PT404' or sqlstate 'PT409' or sqlstate 'PT422' then
    -- Kept for the one error that names all that is wrong with the document.
    get stacked diagnostics v_hint = pg_exception_hint;
    return jsonb_build_object(
      'do', 'refuse',
      'field', format('%s "%s"', case p_section when 'blackout_calendars' then 'calendar' else rtrim(p_section, 's') end, p_item ->> 'name'),
      'problem', regexp_replace(sqlerrm, '^the (schedule|template|calendar) is not valid: ', ''),
      'hint', v_hint
    );
end;
$$;

comment on function fleet.apply_item(uuid, text, jsonb) is 'Apply one thing of a document; what is wrong with it is an answer, not an error.';
revoke all on function fleet.apply_item(uuid, text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.apply_new_schedules(p_owner_id uuid, p_items jsonb[])
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_blank public.schedules := fleet.blank_schedule(p_owner_id);
  v_item jsonb;
  v_row public.schedules;
  v_rows public.schedules[] := '{}';
begin
  if p_items = '{}' then
    return '[]';
  end if;
  begin
    foreach v_item in array p_items loop
      v_row := fleet.numbered_schedule(fleet.changed_schedule(v_blank, v_item - 'status'));
      v_row.status := coalesce(fleet.status_of_spec(v_item), v_row.status);
      v_rows := array_append(v_rows, v_row);
    end loop;
    perform fleet.insert_schedules(v_rows);
    return (
      select jsonb_agg(fleet.plan_item('schedule', u.item ->> 'name', null, '{}') order by u.nr)
      from unnest(p_items) with ordinality as u(item, nr)
    );
  exception
    when sqlstate 'PT403' or sqlstate 'PT404' or sqlstate 'PT409' or sqlstate 'PT422' then
      -- One of them is bad: each by itself, and all that is wrong is told.
      return (
        select jsonb_agg(fleet.apply_item(p_owner_id, 'schedules', u.item) order by u.nr)
        from unnest(p_items) with ordinality as u(item, nr)
      );
  end;
end;
$$;

comment on function fleet.apply_new_schedules(uuid, jsonb[]) is
  'Make schedules of a document, all of them in one statement. Answers what that took of each.';
revoke all on function fleet.apply_new_schedules(uuid, jsonb[]) from public, anon, authenticated, service_role;

create or replace function fleet.apply_schedules(p_owner_id uuid, p_schedules jsonb)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_done jsonb := '[]';
  v_item jsonb;
  v_new jsonb[] := '{}';
  v_names text[] := '{}';
begin
  for v_item in select e.item from jsonb_array_elements(p_schedules) as e(item) loop
    -- Whatever follows one that is new comes after it.
    if lower(v_item #>> '{after,schedule}') = any (v_names) then
      v_done := v_done || fleet.apply_new_schedules(p_owner_id, v_new);
      v_new := '{}';
      v_names := '{}';
    end if;
    if exists (
      select 1
      from public.schedules as s
      where s.owner_id = p_owner_id and lower(s.name) = lower(v_item ->> 'name') and s.status <> 'cancelled'
    ) then
      v_done := v_done || fleet.apply_item(p_owner_id, 'schedules', v_item);
    else
      v_new := array_append(v_new, v_item);
      v_names := array_append(v_names, lower(v_item ->> 'name'));
    end if;
  end loop;
  return v_done || fleet.apply_new_schedules(p_owner_id, v_new);
end;
$$;

comment on function fleet.apply_schedules(uuid, jsonb) is
  'Bring schedules to what a document says, in the order of its chains: those that are there one by one, the new ones together. Answers what that '
  'took of each.';
revoke all on function fleet.apply_schedules(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.apply_sections(p_owner_id uuid, p_document jsonb)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_done jsonb := '[]';
  v_section text;
  v_item jsonb;
begin
  foreach v_section in array '{groups,blackout_calendars,templates}'::text[] loop
    for v_item in select e.item from jsonb_array_elements(coalesce(p_document -> v_section, '[]')) as e(item) loop
      v_done := v_done || fleet.apply_item(p_owner_id, v_section, v_item);
    end loop;
  end loop;
  v_done := v_done || fleet.apply_schedules(p_owner_id, fleet.in_order_of_chains(p_document -> 'schedules'));

  perform fleet.raise_problems(
    'the document', 'document_invalid',
    array_agg((e.item ->> 'field', e.item ->> 'problem', e.item ->> 'hint')::fleet.problem)
  )
  from jsonb_array_elements(v_done) as e(item)
  where e.item ->> 'do' = 'refuse';
  return v_done;
end;
$$;

comment on function fleet.apply_sections(uuid, jsonb) is
  'Apply everything that a document names. Raises document_invalid with every problem of every part.';
revoke all on function fleet.apply_sections(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.cancel_unnamed(p_owner_id uuid, p_document jsonb)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  with gone as (
    update public.schedules as s
    set status = 'cancelled', status_reason = 'no longer in the applied document'
    where s.owner_id = p_owner_id
      and s.status in ('active', 'paused')
      and lower(s.name) not in (
        select lower(e.item ->> 'name') from jsonb_array_elements(coalesce(p_document -> 'schedules', '[]')) as e(item)
      )
    returning s.name
  )
  select coalesce(jsonb_agg(jsonb_build_object('kind', 'schedule', 'name', g.name) order by lower(g.name)), '[]')
  from gone as g
$$;

comment on function fleet.cancel_unnamed(uuid, jsonb) is 'Cancel the schedules that a document does not name; their history stays.';
revoke all on function fleet.cancel_unnamed(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.apply_document(p_document jsonb, p_dry_run boolean, p_prune boolean, p_owner_id uuid)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid := fleet.owner_or_own(p_owner_id);
  v_done jsonb;
  v_removed jsonb := '[]';
begin
  perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
  perform fleet.require_size('the document', 'document', p_document);
  perform fleet.raise_problems('the document', 'document_invalid', array_agg(q))
  from fleet.document_problems(p_document) as q;
  -- Two that apply at once take turns; the second finds what the first has made.
  perform pg_advisory_xact_lock(hashtextextended('pgfleet.apply_document ' || v_owner, 0));

  begin
    v_done := fleet.apply_sections(v_owner, p_document);
    if p_prune then
      v_removed := fleet.cancel_unnamed(v_owner, p_document);
    end if;
    if p_dry_run then
      -- The plan is what was really done, and then taken back.
      raise sqlstate 'PF001';
    end if;
  exception
    when sqlstate 'PF001' then
      null;
  end;

  return (
    select jsonb_build_object(
      'dry_run', coalesce(p_dry_run, false),
      'create', coalesce(jsonb_agg(e.item - '{do}'::text[]) filter (where e.item ->> 'do' = 'create'), '[]'),
      'change', coalesce(jsonb_agg(e.item - '{do}'::text[]) filter (where e.item ->> 'do' = 'change'), '[]'),
      'remove', v_removed,
      'unchanged', count(*) filter (where e.item ->> 'do' = 'nothing')
    )
    from jsonb_array_elements(v_done) as e(item)
  );
end;
$$;

comment on function fleet.apply_document(jsonb, boolean, boolean, uuid) is 'See public.apply_document. Definer: it checks the caller.';
revoke all on function fleet.apply_document(jsonb, boolean, boolean, uuid) from public, anon, authenticated, service_role;
grant execute on function fleet.apply_document(jsonb, boolean, boolean, uuid) to authenticated, service_role;

create or replace function public.apply_document(
  p_document jsonb,
  p_dry_run boolean default false,
  p_prune boolean default false,
  p_owner_id uuid default null
)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.apply_document(p_document, p_dry_run, p_prune, p_owner_id)
$$;

comment on function public.apply_document(jsonb, boolean, boolean, uuid) is
  'Bring groups, blackout calendars, templates and schedules to what a document of export_schedules says, by name; once more changes '
  'nothing. p_prune cancels schedules that it does not name. Answers {create, change: [{kind, name, changes}], remove, unchanged}; with '
  'p_dry_run nothing is kept. Raises document_invalid (PT422) with every problem of every part.';
revoke all on function public.apply_document(jsonb, boolean, boolean, uuid) from public, anon, authenticated, service_role;
grant execute on function public.apply_document(jsonb, boolean, boolean, uuid) to authenticated, service_role;

-- db/sources/75_documents/25_apply_things.sql
-- Applying one group, calendar or template of a document.

create or replace function fleet.document_problems(p_document jsonb)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  with section as (
    select e.key, e.value
    from jsonb_each(case when jsonb_typeof(p_document) = 'object' then p_document else '{}' end) as e
    where e.key in ('schedules', 'templates', 'blackout_calendars', 'groups')
  ),
  item as (
    select s.key, format('%s[%s]', s.key, e.nr - 1) as field, e.value
    from section as s
    cross join lateral jsonb_array_elements(case when jsonb_typeof(s.value) = 'array' then s.value else '[]' end)
      with ordinality as e(value, nr)
  )
  select 'document', 'must be an object', 'Example: {"version": 1, "schedules": []}'
  where jsonb_typeof(p_document) is distinct from 'object'
  union all
  select 'version', 'must be 1', 'Write "version": 1; a document of a newer pgfleet needs a newer pgfleet.'
  where jsonb_typeof(p_document) = 'object' and (p_document -> 'version') is distinct from '1'
  union all
  select e.key, 'is not part of a document', 'The parts are version, groups, blackout_calendars, templates and schedules.'
  from jsonb_each(case when jsonb_typeof(p_document) = 'object' then p_document else '{}' end) as e
  where e.key not in ('version', 'schedules', 'templates', 'blackout_calendars', 'groups')
  union all
  select s.key, 'must be a list', format('Example: "%s": []', s.key)
  from section as s
  where jsonb_typeof(s.value) <> 'array'
  union all
  select i.field, 'must be an object with a name', 'Example: {"name": "Nightly"}'
  from item as i
  where jsonb_typeof(i.value) <> 'object'
    or jsonb_typeof(i.value -> 'name') is distinct from 'string'
    or btrim(i.value ->> 'name') = ''
  union all
  select i.key, format('there are %s named "%s"', count(*), min(i.value ->> 'name')), 'Names tell them apart: use each once.'
  from item as i
  where jsonb_typeof(i.value) = 'object'
  group by i.key, lower(i.value ->> 'name')
  having count(*) > 1
$$;

comment on function fleet.document_problems(jsonb) is 'What is wrong with the shape of a document.';
revoke all on function fleet.document_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.document_changes(p_old jsonb, p_new jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    jsonb_object_agg(coalesce(o.key, n.key), jsonb_build_object('from', o.value, 'to', n.value)),
    '{}'
  )
  from jsonb_each(p_old) as o
  full join jsonb_each(p_new) as n on n.key = o.key
  where o.value is distinct from n.value and coalesce(o.key, n.key) <> 'name'
$$;

comment on function fleet.document_changes(jsonb, jsonb) is 'Key to {from, to} of what differs between two descriptions of one thing.';
revoke all on function fleet.document_changes(jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.plan_item(p_kind text, p_name text, p_old jsonb, p_new jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object('kind', p_kind, 'name', p_name)
    || case
      when p_old is null then '{"do": "create"}'
      when c.changes = '{}' then '{"do": "nothing"}'
      else jsonb_build_object('do', 'change', 'changes', c.changes)
    end
  from (select fleet.document_changes(p_old, p_new) as changes) as c
$$;

comment on function fleet.plan_item(text, text, jsonb, jsonb) is 'What is to be done about one thing of a document.';
revoke all on function fleet.plan_item(text, text, jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.apply_group(p_owner_id uuid, p_group jsonb)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_groups;
  v_old jsonb;
  v_ids bigint[];
begin
  perform fleet.refuse_unknown_keys(p_group, '{name,description,selector,devices}');
  select fleet.bigint_array(fleet.resolved_spec(p_owner_id, jsonb_build_object('devices', p_group -> 'devices')) -> 'device_ids')
  into v_ids;
  select g.* into v_row
  from public.device_groups as g
  where g.owner_id = p_owner_id and lower(g.name) = lower(p_group ->> 'name');
  if found then
    v_old := fleet.group_document(v_row);
    update public.device_groups as g
    set description = coalesce(p_group ->> 'description', ''), selector = nullif(p_group -> 'selector', 'null')
    where g.id = v_row.id
      and (g.description, g.selector) is distinct from (coalesce(p_group ->> 'description', ''), nullif(p_group -> 'selector', 'null'));
  else
    insert into public.device_groups (owner_id, name, description, selector)
    values (p_owner_id, p_group ->> 'name', coalesce(p_group ->> 'description', ''), nullif(p_group -> 'selector', 'null'))
    returning * into v_row;
  end if;

  delete from public.device_group_members as m where m.group_id = v_row.id and m.device_id <> all (v_ids);
  insert into public.device_group_members (group_id, device_id)
  select v_row.id, u.id from unnest(v_ids) as u(id)
  on conflict (group_id, device_id) do nothing;

  select g.* into v_row from public.device_groups as g where g.id = v_row.id;
  return fleet.plan_item('group', v_row.name, v_old, fleet.group_document(v_row));
end;
$$;

comment on function fleet.apply_group(uuid, jsonb) is 'Bring one group to what a document says. Answers what that took.';
revoke all on function fleet.apply_group(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.apply_subscription(p_owner_id uuid, p_calendar jsonb)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.blackout_calendars;
  v_old jsonb;
  v_id bigint;
begin
  select c.* into v_row
  from public.blackout_calendars as c
  where c.owner_id = p_owner_id and lower(c.name) = lower(p_calendar ->> 'name');
  if found then
    v_old := fleet.calendar_document(v_row);
  end if;
  v_id := (fleet.subscribe_blackouts(
    p_calendar ->> 'url', p_calendar ->> 'name', p_calendar ->> 'timezone',
    coalesce(p_calendar -> 'skip_transparent' = 'true', false), p_owner_id
  ) ->> 'id')::bigint;
  update public.blackout_calendars as c
  set description = coalesce(p_calendar ->> 'description', '')
  where c.id = v_id and c.description <> coalesce(p_calendar ->> 'description', '');
  select c.* into v_row from public.blackout_calendars as c where c.id = v_id;
  return fleet.plan_item('calendar', v_row.name, v_old, fleet.calendar_document(v_row));
end;
$$;

comment on function fleet.apply_subscription(uuid, jsonb) is
  'Let one blackout calendar follow what a document says. Answers what that took.';
revoke all on function fleet.apply_subscription(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.apply_calendar(p_owner_id uuid, p_calendar jsonb)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.blackout_calendars;
  v_old jsonb;
  v_new jsonb;
  v_periods jsonb := coalesce(nullif(p_calendar -> 'periods', 'null'), '[]');
begin
  perform fleet.refuse_unknown_keys(p_calendar, '{name,description,periods,url,timezone,skip_transparent}');
  perform fleet.check_calendar(p_calendar ->> 'name', v_periods);
  if coalesce(p_calendar -> 'url', 'null') <> 'null' then
    return fleet.apply_subscription(p_owner_id, p_calendar);
  end if;
  select c.* into v_row
  from public.blackout_calendars as c
  where c.owner_id = p_owner_id and lower(c.name) = lower(p_calendar ->> 'name');
  if found then
    v_old := fleet.calendar_document(v_row);
    v_new := fleet.without_nulls(p_calendar) || jsonb_build_object('periods', v_periods);
    -- Written as it was read: there is nothing to do, and so nothing is done.
    if fleet.document_changes(v_old, v_new) = '{}' then
      return fleet.plan_item('calendar', v_row.name, v_old, v_old);
    end if;
  end if;

  perform fleet.store_calendar(
    p_owner_id, p_calendar ->> 'name', coalesce(p_calendar ->> 'description', ''), v_periods
  );
  perform fleet.end_subscription(v_row.id);
  select c.* into v_row
  from public.blackout_calendars as c
  where c.owner_id = p_owner_id and lower(c.name) = lower(p_calendar ->> 'name');
  return fleet.plan_item('calendar', v_row.name, v_old, fleet.calendar_document(v_row));
end;
$$;

comment on function fleet.apply_calendar(uuid, jsonb) is 'Bring one blackout calendar to what a document says. Answers what that took.';
revoke all on function fleet.apply_calendar(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.apply_template(p_owner_id uuid, p_template jsonb)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedule_templates;
  v_old jsonb;
  v_new jsonb := fleet.without_nulls(jsonb_build_object(
    'name', p_template ->> 'name',
    'description', nullif(p_template ->> 'description', ''),
    'spec', p_template -> 'spec',
    'parameters', nullif(nullif(p_template -> 'parameters', 'null'), '{}')
  ));
begin
  perform fleet.refuse_unknown_keys(p_template, '{name,description,spec,parameters}');
  select t.* into v_row
  from public.schedule_templates as t
  where t.owner_id = p_owner_id and lower(t.name) = lower(p_template ->> 'name')
  order by t.version desc
  limit 1;
  if found then
    v_old := fleet.template_document(v_row);
  end if;
  if v_old is null or fleet.document_changes(v_old, v_new) <> '{}' then
    perform fleet.create_template(p_template || jsonb_build_object('owner_id', p_owner_id));
  end if;
  return fleet.plan_item('template', coalesce(v_row.name, p_template ->> 'name'), v_old, v_new);
end;
$$;

comment on function fleet.apply_template(uuid, jsonb) is
  'Save a template of a document as a new version, unless the latest is the same. Answers what that took.';
revoke all on function fleet.apply_template(uuid, jsonb) from public, anon, authenticated, service_role;

-- db/sources/75_documents/30_templates.sql
-- Templates: schedules with parameters, kept in versions.

create or replace function fleet.template_of_caller(p_name text, p_version integer, p_permission text)
returns public.schedule_templates
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owners uuid[];
  v_row public.schedule_templates;
begin
  select array_agg(distinct t.owner_id) into v_owners
  from public.schedule_templates as t
  where lower(t.name) = lower(p_name) and fleet.is_visible_owner(t.owner_id);
  -- A name in several fleets: one's own, or the one that stands for nobody being named.
  if cardinality(v_owners) > 1 then
    v_owners := coalesce(
      (
        select array_agg(o) from unnest(v_owners) as o
        where o = fleet.usual_owner()
      ),
      v_owners
    );
  end if;
  if cardinality(v_owners) > 1 then
    raise exception 'template "%" is ambiguous: % owners have one', p_name, cardinality(v_owners)
      using errcode = 'PT409', detail = 'template_ambiguous', hint = 'Rename it in one of them.';
  end if;

  select t.* into v_row
  from public.schedule_templates as t
  where t.owner_id = v_owners[1]
    and lower(t.name) = lower(p_name)
    and (p_version is null or t.version = p_version)
  order by t.version desc
  limit 1;
  if not found then
    raise exception '% was not found', concat_ws(' version ', format('template "%s"', p_name), p_version)
      using errcode = 'PT404', detail = 'template_not_found', hint = 'List your templates with: select * from template_list';
  end if;
  perform fleet.require_permission(v_row.owner_id, p_permission, format('template "%s"', p_name));
  return v_row;
end;
$$;

comment on function fleet.template_of_caller(text, integer, text) is
  'A version of a template, the latest where none is named, if the caller may do this with it. Raises template_not_found (PT404), '
  'permission_missing (PT403) or template_ambiguous (PT409). Definer: it must see the row to tell.';
revoke all on function fleet.template_of_caller(text, integer, text) from public, anon, authenticated, service_role;

create or replace function fleet.create_template(p_template jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid;
  v_row public.schedule_templates;
begin
  perform fleet.require_size('the template', 'spec', p_template);
  perform fleet.raise_problems('the template', 'template_invalid', array_agg(q))
  from fleet.template_problems(p_template) as q;

  v_owner := fleet.owner_or_own(fleet.try_uuid(p_template ->> 'owner_id'));
  perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
  -- Two that save the same name at once take turns, each with a version of its own.
  perform pg_advisory_xact_lock(hashtextextended(v_owner || lower(p_template ->> 'name'), 0));
  insert into public.schedule_templates as t (owner_id, name, version, description, spec, parameters, created_by)
  select v_owner, p_template ->> 'name', coalesce(max(x.version), 0) + 1, coalesce(p_template ->> 'description', ''),
    p_template -> 'spec', coalesce(nullif(p_template -> 'parameters', 'null'), '{}'), fleet.current_user_id()
  from public.schedule_templates as x
  where x.owner_id = v_owner and lower(x.name) = lower(p_template ->> 'name')
  returning t.* into v_row;
  return to_jsonb(v_row);
end;
$$;

comment on function fleet.create_template(jsonb) is 'See public.create_template. Definer: it checks the caller; nobody writes versions directly.';
revoke all on function fleet.create_template(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.create_template(jsonb) to authenticated, service_role;

create or replace function public.create_template(p_template jsonb)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.create_template(p_template)
$$;

comment on function public.create_template(jsonb) is
  'Save a template {name, description, spec, parameters}; under a name that exists it becomes the next version. spec is as for '
  'create_schedule (devices and groups by name, too) with {{parameter}} in its texts. Answers the row. Raises template_invalid (PT422) '
  'naming every wrong field, or permission_missing (PT403).';
revoke all on function public.create_template(jsonb) from public, anon, authenticated, service_role;
grant execute on function public.create_template(jsonb) to authenticated, service_role;

create or replace function fleet.instantiate_template(p_name text, p_parameters jsonb, p_version integer)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedule_templates := fleet.template_of_caller(p_name, p_version, 'manage');
  v_given jsonb := coalesce(nullif(p_parameters, 'null'), '{}');
  v_values jsonb;
  v_id bigint;
begin
  perform fleet.require_size('the parameters', 'template', v_given);
  perform fleet.raise_problems(format('the use of template "%s"', v_row.name), 'parameters_invalid', array_agg(q))
  from fleet.parameter_value_problems(v_row.parameters, v_given) as q;

  select coalesce(jsonb_object_agg(e.key, e.value -> 'default') filter (where e.value ? 'default'), '{}')
  into v_values
  from jsonb_each(v_row.parameters) as e;
  v_id := fleet.store_schedule(fleet.changed_schedule(
    fleet.blank_schedule(v_row.owner_id), fleet.filled_template(v_row.spec, v_values || v_given)
  ));
  return fleet.schedule_answer(v_id);
end;
$$;

comment on function fleet.instantiate_template(text, jsonb, integer) is
  'See public.instantiate_template. Definer: it checks the caller.';
revoke all on function fleet.instantiate_template(text, jsonb, integer) from public, anon, authenticated, service_role;
grant execute on function fleet.instantiate_template(text, jsonb, integer) to authenticated, service_role;

create or replace function public.instantiate_template(
  p_name text,
  p_parameters jsonb default '{}',
  p_version integer default null
)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.instantiate_template(p_name, p_parameters, p_version)
$$;

comment on function public.instantiate_template(text, jsonb, integer) is
  'Create a schedule from a template, its latest version unless one is named. Answers as create_schedule. Raises template_not_found '
  '(PT404), parameters_invalid (PT422) naming each that is missing, unknown or of another type, and what create_schedule raises.';
revoke all on function public.instantiate_template(text, jsonb, integer) from public, anon, authenticated, service_role;
grant execute on function public.instantiate_template(text, jsonb, integer) to authenticated, service_role;

create or replace function fleet.delete_template(p_name text)
returns integer
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedule_templates := fleet.template_of_caller(p_name, null, 'manage');
  v_count integer;
begin
  delete from public.schedule_templates as t
  where t.owner_id = v_row.owner_id and lower(t.name) = lower(v_row.name);
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.delete_template(text) is 'See public.delete_template. Definer: it checks the caller.';
revoke all on function fleet.delete_template(text) from public, anon, authenticated, service_role;
grant execute on function fleet.delete_template(text) to authenticated, service_role;

create or replace function public.delete_template(p_name text)
returns integer
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.delete_template(p_name)
$$;

comment on function public.delete_template(text) is
  'Delete all versions of a template; schedules made from it stay. Answers how many versions. Raises template_not_found (PT404) or '
  'permission_missing (PT403).';
revoke all on function public.delete_template(text) from public, anon, authenticated, service_role;
grant execute on function public.delete_template(text) to authenticated, service_role;

-- db/sources/75_documents/35_template_parameters.sql
-- What templates are filled with: placeholders, parameters, and what may be wrong with them.

create or replace function fleet.placeholders(p_value jsonb)
returns setof text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select distinct m.found[1]
  from jsonb_path_query(p_value, 'strict $.**') as t(item)
  cross join lateral regexp_matches(t.item #>> '{}', '\{\{\s*([a-z_][a-z0-9_]*)\s*\}\}', 'g') as m(found)
  where jsonb_typeof(t.item) = 'string'
$$;

comment on function fleet.placeholders(jsonb) is 'The parameters that the texts of a value name, as in {{parameter}}.';
revoke all on function fleet.placeholders(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.filled_text(p_text text, p_values jsonb)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  -- In one pass: a value that itself looks like {{another}} stays as it is.
  select string_agg(p.piece || coalesce(p_values ->> m.found[1], ''), '' order by p.nr)
  from regexp_split_to_table(p_text, '\{\{\s*[a-z_][a-z0-9_]*\s*\}\}') with ordinality as p(piece, nr)
  left join lateral regexp_matches(p_text, '\{\{\s*([a-z_][a-z0-9_]*)\s*\}\}', 'g') with ordinality as m(found, nr)
    on m.nr = p.nr
$$;

comment on function fleet.filled_text(text, jsonb) is 'A text with its placeholders replaced by values; by nothing where there is none.';
revoke all on function fleet.filled_text(text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.filled_template(p_value jsonb, p_values jsonb)
returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_whole text;
begin
  case jsonb_typeof(p_value)
    when 'object' then
      -- What is given no value is not said at all.
      return (
        select coalesce(jsonb_object_agg(e.key, f.value) filter (where f.value is not null), '{}')
        from jsonb_each(p_value) as e
        cross join lateral fleet.filled_template(e.value, p_values) as f(value)
      );
    when 'array' then
      return (
        select coalesce(jsonb_agg(f.value order by e.nr) filter (where f.value is not null), '[]')
        from jsonb_array_elements(p_value) with ordinality as e(value, nr)
        cross join lateral fleet.filled_template(e.value, p_values) as f(value)
      );
    when 'string' then
      v_whole := substring(p_value #>> '{}' from '^\{\{\s*([a-z_][a-z0-9_]*)\s*\}\}$');
      return case
        when v_whole is not null then p_values -> v_whole
        else to_jsonb(fleet.filled_text(p_value #>> '{}', p_values))
      end;
    else
      return p_value;
  end case;
end;
$$;

comment on function fleet.filled_template(jsonb, jsonb) is
  'A value with its placeholders replaced; a text that is one placeholder and nothing else becomes the value as it is.';
revoke all on function fleet.filled_template(jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.parameter_problem(p_field text, p_definition jsonb, p_value jsonb)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select p_field, format('must be %s %s, not %s', case when t.kind in ('array', 'object') then 'an' else 'a' end, t.kind, p_value),
    format('Give a value of type %s.', t.kind)
  from (select p_definition ->> 'type' as kind) as t
  where jsonb_typeof(p_value) <> t.kind
  union all
  select p_field, format('%s is not one of %s', p_value, p_definition -> 'choices'), 'Use one of the values named.'
  where jsonb_typeof(p_value) = p_definition ->> 'type'
    and jsonb_typeof(p_definition -> 'choices') = 'array'
    and not exists (select 1 from jsonb_array_elements(p_definition -> 'choices') as c(item) where c.item = p_value)
$$;

comment on function fleet.parameter_problem(text, jsonb, jsonb) is 'What is wrong with the value of a parameter: its type, or no choice.';
revoke all on function fleet.parameter_problem(text, jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.parameter_value_problems(p_parameters jsonb, p_values jsonb)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select 'parameters', 'must be an object', 'Example: {"school": "north"}'
  where jsonb_typeof(p_values) <> 'object'
  union all
  select 'parameters.' || p.key, 'is missing', coalesce(p.value ->> 'description', format('Give a %s.', p.value ->> 'type'))
  from jsonb_each(p_parameters) as p
  where not p.value ? 'default'
    and (p.value -> 'required') is distinct from 'false'
    and (jsonb_typeof(p_values) <> 'object' or not p_values ? p.key)
  union all
  select 'parameters.' || v.key, 'is not a parameter of this template',
    coalesce(
      'The parameters are ' || (select string_agg(p.key, ', ' order by p.key) from jsonb_each(p_parameters) as p) || '.',
      'It has no parameters.'
    )
  from jsonb_each(case when jsonb_typeof(p_values) = 'object' then p_values else '{}' end) as v
  where not p_parameters ? v.key
  union all
  select q.field, q.problem, q.hint
  from jsonb_each(case when jsonb_typeof(p_values) = 'object' then p_values else '{}' end) as v
  join jsonb_each(p_parameters) as p on p.key = v.key
  cross join lateral fleet.parameter_problem('parameters.' || v.key, p.value, v.value) as q
$$;

comment on function fleet.parameter_value_problems(jsonb, jsonb) is
  'Values of parameters that are missing, unknown, of another type or no choice.';
revoke all on function fleet.parameter_value_problems(jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.parameter_definition_problems(p_parameters jsonb)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  with given as (
    select 'parameters.' || e.key as field, e.key as name, e.value as definition
    from jsonb_each(case when jsonb_typeof(p_parameters) = 'object' then p_parameters else '{}' end) as e
  )
  select 'parameters', 'must be an object', 'Example: {"school": {"type": "string"}}'
  where jsonb_typeof(p_parameters) not in ('object', 'null')
  union all
  select g.field, 'is not a name', 'Use lower case letters, digits and underscores, like start_hour.'
  from given as g
  where g.name !~ '^[a-z_][a-z0-9_]*$'
  union all
  select g.field, 'must be an object', 'Example: {"type": "string", "default": "north"}'
  from given as g
  where jsonb_typeof(g.definition) <> 'object'
  union all
  select g.field || '.' || k, 'is not a key of a parameter', 'The keys are type, default, required, description and choices.'
  from given as g
  cross join lateral jsonb_object_keys(case when jsonb_typeof(g.definition) = 'object' then g.definition else '{}' end) as k
  where k not in ('type', 'default', 'required', 'description', 'choices')
  union all
  select g.field || '.type', 'is not one of string, number, boolean, object, array', 'Example: {"type": "string"}'
  from given as g
  where jsonb_typeof(g.definition) = 'object'
    and coalesce(g.definition ->> 'type', '') not in ('string', 'number', 'boolean', 'object', 'array')
  union all
  select g.field || '.' || k.key, 'must be a ' || k.kind, 'Check the type of the value.'
  from given as g
  cross join (values ('required', 'boolean'), ('description', 'string'), ('choices', 'array')) as k(key, kind)
  where jsonb_typeof(g.definition) = 'object' and jsonb_typeof(g.definition -> k.key) <> k.kind
  union all
  select q.field, q.problem, q.hint
  from given as g
  cross join lateral fleet.parameter_problem(g.field || '.default', g.definition, g.definition -> 'default') as q
  where jsonb_typeof(g.definition) = 'object' and g.definition ? 'default'
$$;

comment on function fleet.parameter_definition_problems(jsonb) is 'Everything that is wrong with the parameters of a template.';
revoke all on function fleet.parameter_definition_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.template_problems(p_template jsonb)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with given as (
    select case when jsonb_typeof(p_template) = 'object' then p_template else '{}' end as t
  )
  select 'template', 'must be an object', 'Example: {"name": "Nightly lock", "spec": {…}, "parameters": {…}}'
  where jsonb_typeof(p_template) is distinct from 'object'
  union all
  select e.key, 'is not a key of a template', 'The keys are name, description, spec, parameters and owner_id.'
  from given as g
  cross join lateral jsonb_each(g.t) as e
  where e.key not in ('name', 'description', 'spec', 'parameters', 'owner_id')
  union all
  select 'name', 'must be text that is not blank', 'Give the template a name.'
  from given as g
  where jsonb_typeof(g.t -> 'name') is distinct from 'string' or btrim(g.t ->> 'name') = ''
  union all
  select 'description', 'must be text', 'Say what the template is for.'
  from given as g
  where jsonb_typeof(g.t -> 'description') not in ('string', 'null')
  union all
  select 'owner_id', 'is not a uuid', 'Copy the id of the owner.'
  from given as g
  where jsonb_typeof(g.t -> 'owner_id') <> 'null' and fleet.try_uuid(g.t ->> 'owner_id') is null
  union all
  select 'spec', 'must be an object', 'Write it as for create_schedule.'
  from given as g
  where jsonb_typeof(g.t -> 'spec') is distinct from 'object'
  union all
  select q.field, q.problem, q.hint
  from given as g
  cross join lateral fleet.parameter_definition_problems(g.t -> 'parameters') as q
  union all
  select 'spec.' || q.field, q.problem, q.hint
  from given as g
  cross join lateral fleet.spec_type_problems(
    fleet.normal_schedule_spec(case when jsonb_typeof(g.t -> 'spec') = 'object' then g.t -> 'spec' else '{}' end)
  ) as q
  -- The types of values are only known when the template is used.
  where q.problem like 'is not a key%'
  union all
  select 'spec', format('{{%s}} is not among the parameters', p.name), format('Add {"%s": {"type": "string"}}.', p.name)
  from given as g
  cross join lateral fleet.placeholders(g.t -> 'spec') as p(name)
  where jsonb_typeof(g.t -> 'parameters') is distinct from 'object' or not (g.t -> 'parameters') ? p.name
$$;

comment on function fleet.template_problems(jsonb) is 'Everything that is wrong with a template.';
revoke all on function fleet.template_problems(jsonb) from public, anon, authenticated, service_role;

-- db/sources/75_documents/40_bulk.sql
-- One verb for many schedules, chosen by a filter.

create or replace function fleet.filter_problems(p_filter jsonb)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  with given as (
    select e.key, e.value
    from jsonb_each(case when jsonb_typeof(p_filter) = 'object' then p_filter else '{}' end) as e
    where e.value <> 'null'
  )
  select 'filter', 'must be an object', 'Example: {"status": "active", "name": "%lab%"}'
  where jsonb_typeof(p_filter) is distinct from 'object'
  union all
  select g.key, 'is not a key of a filter', 'The keys are ids, status, name, action_type, device_id, group_id and owner_id.'
  from given as g
  where g.key not in ('ids', 'status', 'name', 'action_type', 'device_id', 'group_id', 'owner_id')
  union all
  select g.key, format('%s is not a list of ids', g.value), 'Write whole numbers without quotes, like [1, 2].'
  from given as g
  where g.key = 'ids' and not fleet.is_id_list(g.value)
  union all
  select g.key, format('%s is not text, or a list of text', g.value), format('Example: {"%s": "…"}', g.key)
  from given as g
  cross join lateral fleet.as_list(g.value) as v(item)
  where g.key in ('status', 'name', 'action_type') and jsonb_typeof(v.item) <> 'string'
  union all
  select q.field, q.problem, q.hint
  from given as g
  cross join lateral fleet.as_list(g.value) as v(item)
  cross join lateral fleet.choice_problem(g.key, v.item, '{active,paused,completed,cancelled}') as q
  where g.key = 'status' and jsonb_typeof(v.item) = 'string'
  union all
  select q.field, q.problem, q.hint
  from given as g
  cross join lateral fleet.whole_number_problem(g.key, g.value, 1, 9007199254740991) as q
  where g.key in ('device_id', 'group_id')
  union all
  select g.key, format('%s is not a uuid', g.value), 'Copy the id of the owner.'
  from given as g
  where g.key = 'owner_id' and fleet.try_uuid(g.value #>> '{}') is null
$$;

comment on function fleet.filter_problems(jsonb) is 'Everything that is wrong with a filter of schedules.';
revoke all on function fleet.filter_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.check_filter(p_filter jsonb)
returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.require_size('the filter', 'spec', p_filter);
  perform fleet.raise_problems('the filter', 'filter_invalid', array_agg(q))
  from fleet.filter_problems(p_filter) as q;
  return fleet.without_nulls(p_filter);
end;
$$;

comment on function fleet.check_filter(jsonb) is 'The filter without what says nothing. Raises filter_invalid (PT422) naming every wrong key.';
revoke all on function fleet.check_filter(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.has_text(p_values jsonb, p_text text)
returns boolean
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select exists (select 1 from fleet.as_list(p_values) as v(item) where v.item #>> '{}' = p_text)
$$;

comment on function fleet.has_text(jsonb, text) is 'Whether a text is this value, or one of this list.';
revoke all on function fleet.has_text(jsonb, text) from public, anon, authenticated, service_role;

create or replace function fleet.found_schedules(p_filter jsonb, p_permission text)
returns setof public.schedules
language sql
stable
set search_path = pg_catalog, pg_temp
-- Compiling the plan would take a thousand times as long as running it.
set jit = off
as $$
  select s.*
  from (
    -- Each by itself: what others have is not even looked at.
    select x.* from public.schedules as x where (select fleet.is_trusted_caller())
    union all
    select x.*
    from public.schedules as x
    where not (select fleet.is_trusted_caller()) and x.owner_id = any (array(select fleet.my_owners(p_permission)))
  ) as s
  where (not p_filter ? 'owner_id' or s.owner_id = fleet.try_uuid(p_filter ->> 'owner_id'))
    and (not p_filter ? 'ids' or s.id = any (fleet.bigint_array(p_filter -> 'ids')))
    and (not p_filter ? 'status' or fleet.has_text(p_filter -> 'status', s.status))
    and (not p_filter ? 'action_type' or fleet.has_text(p_filter -> 'action_type', s.action_type))
    and (
      not p_filter ? 'name'
      or s.name ilike any (array(select v.item #>> '{}' from fleet.as_list(p_filter -> 'name') as v(item)))
    )
    and (not p_filter ? 'group_id' or (p_filter ->> 'group_id')::bigint = any (s.group_ids))
    and (
      not p_filter ? 'device_id'
      or (p_filter ->> 'device_id')::bigint = any (s.device_ids)
      or exists (
        select 1
        from public.devices as d
        where d.id = (p_filter ->> 'device_id')::bigint
          and d.owner_id = s.owner_id
          and (
            fleet.device_matches(s.selector, d.tags, d.platform, d.attributes, d.reported)
            or exists (
              select 1
              from public.device_groups as g
              where g.id = any (s.group_ids)
                and g.owner_id = s.owner_id
                and (
                  fleet.device_matches(g.selector, d.tags, d.platform, d.attributes, d.reported)
                  or exists (
                    select 1 from public.device_group_members as m where m.group_id = g.id and m.device_id = d.id
                  )
                )
            )
          )
      )
    )
$$;

comment on function fleet.found_schedules(jsonb, text) is
  'The schedules that a checked filter finds among those with which the caller may do this. device_id finds what reaches the device, '
  'by whichever way; name is a pattern as for ilike.';
revoke all on function fleet.found_schedules(jsonb, text) from public, anon, authenticated, service_role;

create or replace function fleet.bulk_action(p_action text)
returns table (permission text, statuses text[])
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select a.permission, a.statuses::text[]
  from (
    values
      ('pause', 'manage', '{active}'),
      ('resume', 'manage', '{paused}'),
      ('cancel', 'manage', '{active,paused,completed}'),
      ('delete', 'manage', '{active,paused,completed,cancelled}'),
      ('run', 'operate', '{active,paused,completed}')
  ) as a(action, permission, statuses)
  where a.action = p_action;
  if not found then
    raise exception 'action % is not one of pause, resume, cancel, delete, run', coalesce('"' || p_action || '"', 'null')
      using errcode = 'PT422', detail = 'action_unknown', hint = 'Use one of: pause, resume, cancel, delete, run.';
  end if;
end;
$$;

comment on function fleet.bulk_action(text) is
  'What an action needs, and the states in which a schedule takes it. Raises action_unknown (PT422).';
revoke all on function fleet.bulk_action(text) from public, anon, authenticated, service_role;

create or replace function fleet.bulk_schedules(p_action text, p_filter jsonb, p_dry_run boolean, p_reason text)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_filter jsonb := fleet.check_filter(p_filter);
  v_action record;
  v_ids bigint[];
  v_changed bigint := 0;
begin
  select a.permission, a.statuses into v_action from fleet.bulk_action(p_action) as a;
  select array_agg(f.id order by f.id) into v_ids
  from fleet.found_schedules(v_filter, v_action.permission) as f
  where f.status = any (v_action.statuses);
  v_ids := coalesce(v_ids, '{}');

  if not coalesce(p_dry_run, true) then
    -- Locked in one order, so that two of these never wait for each other; what changed meanwhile is left alone.
    select coalesce(array_agg(x.id), '{}') into v_ids
    from (
      select s.id
      from public.schedules as s
      where s.id = any (v_ids) and s.status = any (v_action.statuses)
      order by s.id
      for update
    ) as x;
    v_changed := fleet.do_to_schedules(p_action, v_ids, p_reason);
  end if;
  return jsonb_build_object(
    'action', p_action, 'dry_run', coalesce(p_dry_run, true),
    'count', cardinality(v_ids), 'ids', to_jsonb(v_ids), 'changed', v_changed
  );
end;
$$;

comment on function fleet.bulk_schedules(text, jsonb, boolean, text) is
  'See public.bulk_schedules. Definer: it reaches only what the caller has the permission for.';
revoke all on function fleet.bulk_schedules(text, jsonb, boolean, text) from public, anon, authenticated, service_role;
grant execute on function fleet.bulk_schedules(text, jsonb, boolean, text) to authenticated, service_role;

create or replace function fleet.do_to_schedules(p_action text, p_ids bigint[], p_reason text)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_changed bigint;
begin
  if p_action = 'delete' then
    delete from public.schedules as s where s.id = any (p_ids);
  elsif p_action = 'run' then
    perform fleet.run_schedule(u.id, null, clock_timestamp()) from unnest(p_ids) as u(id);
  else
    update public.schedules as s
    set status = case p_action when 'pause' then 'paused' when 'resume' then 'active' else 'cancelled' end,
        status_reason = p_reason
    where s.id = any (p_ids);
  end if;
  get diagnostics v_changed = row_count;
  return v_changed;
end;
$$;

comment on function fleet.do_to_schedules(text, bigint[], text) is
  'One statement for all of them, whose rows the caller has checked and holds. Answers how many.';
revoke all on function fleet.do_to_schedules(text, bigint[], text) from public, anon, authenticated, service_role;

create or replace function public.bulk_schedules(
  p_action text,
  p_filter jsonb,
  p_dry_run boolean default true,
  p_reason text default null
)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.bulk_schedules(p_action, p_filter, p_dry_run, p_reason)
$$;

comment on function public.bulk_schedules(text, jsonb, boolean, text) is
  'pause, resume, cancel, delete or run all of your schedules that a filter {ids, status, name (ilike), action_type, device_id, '
  'group_id, owner_id} finds and that are in a state for it. Without p_dry_run => false it only counts. {action, dry_run, count, ids, '
  'changed}. Raises filter_invalid or action_unknown (PT422).';
revoke all on function public.bulk_schedules(text, jsonb, boolean, text) from public, anon, authenticated, service_role;
grant execute on function public.bulk_schedules(text, jsonb, boolean, text) to authenticated, service_role;

-- db/sources/75_documents/50_ready_made.sql
-- Templates that come with pgfleet: what a fleet of laptops does again and again.

create or replace function fleet.ready_made_templates()
returns table (name text, description text, action_type text, minutes integer)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  values
    ('send-osquery-data', 'Each device answers what osquery knows of it.', 'send_osquery_data', 25),
    ('collect-battery-data', 'Each device says how its battery and its disk are.', 'collect_battery_data', 25),
    ('sync-website-blocklist', 'Each device reads which websites are to be blocked.', 'sync_website_blocklist', 30),
    ('sync-software-blocklist', 'Each device reads which software is to be blocked.', 'sync_software_blocklist', 60)
$$;

comment on function fleet.ready_made_templates() is 'The templates that come with pgfleet, with how often each runs.';
revoke all on function fleet.ready_made_templates() from public, anon, authenticated, service_role;

create or replace function public.add_ready_made_templates(p_owner_id uuid default null)
returns setof text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return query select x.name from fleet.add_ready_made_templates(p_owner_id) as x(name);
end;
$$;

comment on function public.add_ready_made_templates(uuid) is
  'Give an owner the templates that come with pgfleet, where it has none of the name: send-osquery-data, collect-battery-data, '
  'sync-website-blocklist, sync-software-blocklist. Answers the names of those that are new. Raises permission_missing (PT403).';
revoke all on function public.add_ready_made_templates(uuid) from public, anon, authenticated, service_role;
grant execute on function public.add_ready_made_templates(uuid) to authenticated, service_role;

create or replace function fleet.add_ready_made_templates(p_owner_id uuid)
returns setof text
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid := fleet.owner_or_own(p_owner_id);
begin
  perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
  return query
  select fleet.create_template(jsonb_build_object(
    'owner_id', v_owner, 'name', r.name, 'description', r.description,
    'spec', jsonb_build_object(
      'name', r.name, 'action_type', r.action_type, 'selector', '{{devices}}',
      'recurrence_type', 'interval', 'recurrence_config', jsonb_build_object('every', '{{every}}'),
      -- Not all at once, and nothing that is late is of use.
      'policies', jsonb_build_object('jitter', '5 minutes')
    ),
    'parameters', jsonb_build_object(
      'devices', '{"type": "object", "default": {}, "description": "Which devices, as a selector; all of them unless given."}'::jsonb,
      'every', jsonb_build_object('type', 'string', 'default', r.minutes || ' minutes', 'description', 'How often.')
    )
  )) ->> 'name'
  from fleet.ready_made_templates() as r
  where not exists (
    select 1 from public.schedule_templates as t where t.owner_id = v_owner and lower(t.name) = r.name
  );
end;
$$;

comment on function fleet.add_ready_made_templates(uuid) is 'See public.add_ready_made_templates. Definer: it checks the caller.';
revoke all on function fleet.add_ready_made_templates(uuid) from public, anon, authenticated, service_role;
grant execute on function fleet.add_ready_made_templates(uuid) to authenticated, service_role;

-- db/sources/75_documents/views.sql
-- Templates as people list them.

drop view if exists public.template_list;
create view public.template_list with (security_invoker = true) as
select
  t.id,
  t.owner_id,
  o.name as owner,
  t.name,
  t.version,
  not exists (
    select
    from public.schedule_templates as n
    where n.owner_id = t.owner_id and lower(n.name) = lower(t.name) and n.version > t.version
  ) as is_latest,
  t.description,
  t.spec,
  t.parameters,
  array(select k.name from jsonb_object_keys(t.parameters) as k(name) order by k.name) as parameter_names,
  t.created_at
from public.schedule_templates as t
join public.owners as o on o.id = t.owner_id;

comment on view public.template_list is
  'Templates in all their versions.';
comment on column public.template_list.owner is 'The name of the owner.';
comment on column public.template_list.is_latest is 'Whether there is no newer version.';
comment on column public.template_list.parameter_names is 'Names of the parameters.';
select fleet.inherit_comments('public.template_list', 'public.schedule_templates');
revoke all on table public.template_list from public, anon, authenticated, service_role;
grant select on table public.template_list to authenticated, service_role;

-- db/sources/75_documents/triggers.sql
-- What is logged of templates.

select fleet.keep_audit('public.schedule_templates', p_verbs => '{insert,delete}');

-- db/sources/75_documents/access.sql
-- Who sees templates: members of the owner. They are written by functions.

revoke all on table public.schedule_templates from public, anon, authenticated, service_role;
-- A version never changes, whoever asks.
grant select, insert, delete on table public.schedule_templates to service_role;
revoke all on sequence public.schedule_templates_id_seq from public, anon, authenticated, service_role;
grant usage, select on sequence public.schedule_templates_id_seq to service_role;
drop policy if exists schedule_templates_all_service_role on public.schedule_templates;
create policy schedule_templates_all_service_role on public.schedule_templates
  for all to service_role using (true) with check (true);

grant select on table public.schedule_templates to authenticated;

drop policy if exists schedule_templates_select_member on public.schedule_templates;
create policy schedule_templates_select_member on public.schedule_templates
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

set check_function_bodies = on;
reset search_path;
