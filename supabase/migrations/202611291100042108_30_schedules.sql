-- Generated from db/sources/30_schedules by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/30_schedules/apply.sql
-- Applying a document: what it names comes to be as it says, whatever was there before.

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
    select s.key, format('%s[%s]', s.key, e.place - 1) as field, e.value
    from section as s
    cross join lateral jsonb_array_elements(case when jsonb_typeof(s.value) = 'array' then s.value else '[]' end)
      with ordinality as e(value, place)
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
  perform fleet.refuse_unknown_keys(p_calendar, '{name,description,periods}');
  perform fleet.check_calendar(p_calendar ->> 'name', v_periods);
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

create or replace function fleet.refuse_unknown_keys(p_object jsonb, p_known text[])
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_unknown text;
begin
  select string_agg(e.key, ', ' order by e.key) into v_unknown
  from jsonb_each(p_object) as e
  where e.key <> all (p_known);
  if v_unknown is not null then
    raise exception '%: not known here', v_unknown
      using errcode = 'PT422', detail = 'document_invalid', hint = format('The keys are %s.', array_to_string(p_known, ', '));
  end if;
end;
$$;

comment on function fleet.refuse_unknown_keys(jsonb, text[]) is 'Raise document_invalid (PT422) where an object has other keys than these.';
revoke all on function fleet.refuse_unknown_keys(jsonb, text[]) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/apply_schedules.sql
-- Applying the schedules of a document, each after the one that it follows, and the document as a whole.

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
    select coalesce(jsonb_agg(e.item) filter (where not b.is_waiting), '[]'),
      coalesce(jsonb_agg(e.item) filter (where b.is_waiting), '[]')
    into v_ready, v_left
    from jsonb_array_elements(v_left) as e(item)
    cross join lateral (
      select exists (
        select 1 from jsonb_array_elements(v_left) as o(item)
        where lower(o.item ->> 'name') = lower(e.item #>> '{after,schedule}')
      ) as is_waiting
    ) as b;
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
  foreach v_section in array '{groups,blackout_calendars,templates,schedules}'::text[] loop
    for v_item in
      select e.item
      from jsonb_array_elements(
        case v_section
          when 'schedules' then fleet.in_order_of_chains(p_document -> 'schedules')
          else coalesce(p_document -> v_section, '[]')
        end
      ) as e(item)
    loop
      v_done := v_done || fleet.apply_item(p_owner_id, v_section, v_item);
    end loop;
  end loop;

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

-- db/sources/30_schedules/blackouts.sql
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
    and fleet.window_opening(v_windows, 'schedule', p_schedule.timezone, p_instant) is distinct from p_instant
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

-- db/sources/30_schedules/bulk.sql
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
as $$
  select s.*
  from public.schedules as s
  where (
      (select fleet.is_trusted_caller())
      or s.owner_id = any (array(select fleet.my_owners(p_permission)))
    )
    and (not p_filter ? 'owner_id' or s.owner_id = fleet.try_uuid(p_filter ->> 'owner_id'))
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
            fleet.device_matches(s.selector, d.tags, d.platform, d.attributes)
            or exists (
              select 1
              from public.device_groups as g
              where g.id = any (s.group_ids)
                and g.owner_id = s.owner_id
                and (
                  fleet.device_matches(g.selector, d.tags, d.platform, d.attributes)
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

-- db/sources/30_schedules/calendars.sql
-- Blackout calendars: making, filling and deleting them.

create or replace function fleet.try_date(p_text text)
returns date
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case when p_text ~ '^\d{4}-\d{2}-\d{2}$' then (fleet.try_instant(p_text, 'UTC') at time zone 'UTC')::date end
$$;

comment on function fleet.try_date(text) is 'The text as a date; null where it is none.';
revoke all on function fleet.try_date(text) from public, anon, authenticated, service_role;

create or replace function fleet.try_exact_instant(p_text text)
returns timestamptz
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case when p_text ~ '\d:\d.*(Z|z|[+-]\d{2}(:?\d{2})?)$' then fleet.try_instant(p_text, 'UTC') end
$$;

comment on function fleet.try_exact_instant(text) is 'The text as an instant; null where it is none, or says no offset.';
revoke all on function fleet.try_exact_instant(text) from public, anon, authenticated, service_role;

create or replace function fleet.period_problems(p_periods jsonb)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with given as (
    select format('periods[%s]', e.place - 1) as field, e.item,
      jsonb_typeof(e.item) = 'object' and e.item ? 'starts_on' as is_days,
      jsonb_typeof(e.item) = 'object' and e.item ? 'starts_at' as is_times
    from jsonb_array_elements(case when jsonb_typeof(p_periods) = 'array' then p_periods else '[]' end)
      with ordinality as e(item, place)
  )
  select 'periods', 'must be a list', 'Example: [{"starts_on": "2026-12-21", "ends_on": "2027-01-04", "summary": "Winter"}]'
  where jsonb_typeof(p_periods) is distinct from 'array'
  union all
  select g.field, 'must be an object with either starts_on or starts_at', 'Example: {"starts_on": "2026-12-25"}'
  from given as g
  where g.is_days = g.is_times
  union all
  select g.field || '.' || k, 'is not a key of this period',
    'Days have starts_on, ends_on (the day after the last) and summary; times have starts_at, ends_at and summary.'
  from given as g
  cross join lateral jsonb_object_keys(case when jsonb_typeof(g.item) = 'object' then g.item else '{}' end) as k
  where g.is_days <> g.is_times
    and k <> all (case when g.is_days then '{starts_on,ends_on,summary}' else '{starts_at,ends_at,summary}' end::text[])
  union all
  select g.field || '.' || k.key, format('%s is not a date', g.item -> k.key), 'Write it like "2026-12-25".'
  from given as g
  cross join (values ('starts_on'), ('ends_on')) as k(key)
  where g.is_days and g.item ? k.key and fleet.try_date(g.item ->> k.key) is null
  union all
  select g.field || '.' || k.key, format('%s is not a time with an offset', coalesce(g.item ->> k.key, 'nothing')),
    'Write it like "2026-12-25T18:00:00+01:00" or "2026-12-25T17:00:00Z".'
  from given as g
  cross join (values ('starts_at'), ('ends_at')) as k(key)
  where g.is_times and fleet.try_exact_instant(g.item ->> k.key) is null
  union all
  select g.field, 'ends before it starts', 'ends_on is the day after the last, as in iCalendar.'
  from given as g
  where fleet.try_date(g.item ->> 'starts_on') >= fleet.try_date(g.item ->> 'ends_on')
    or fleet.try_exact_instant(g.item ->> 'starts_at') >= fleet.try_exact_instant(g.item ->> 'ends_at')
$$;

comment on function fleet.period_problems(jsonb) is 'Everything that is wrong with the periods of a calendar.';
revoke all on function fleet.period_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.store_calendar(
  p_owner_id uuid,
  p_name text,
  p_description text,
  p_periods jsonb
)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id bigint;
begin
  insert into public.blackout_calendars as c (owner_id, name, description)
  values (p_owner_id, p_name, coalesce(p_description, ''))
  on conflict (owner_id, lower(name)) do update
    set description = coalesce(p_description, c.description)
  returning c.id into v_id;

  delete from public.blackout_periods as p where p.calendar_id = v_id;
  insert into public.blackout_periods (calendar_id, owner_id, starts_on, ends_on, starts_at, ends_at, summary)
  select v_id, p_owner_id, fleet.try_date(e.item ->> 'starts_on'),
    coalesce(fleet.try_date(e.item ->> 'ends_on'), fleet.try_date(e.item ->> 'starts_on') + 1),
    fleet.try_exact_instant(e.item ->> 'starts_at'), fleet.try_exact_instant(e.item ->> 'ends_at'),
    coalesce(e.item ->> 'summary', '')
  from jsonb_array_elements(p_periods) as e(item);
  return v_id;
end;
$$;

comment on function fleet.store_calendar(uuid, text, text, jsonb) is
  'Make the calendar of this name, or give it these periods instead of its own; a null description leaves the one it has.';
revoke all on function fleet.store_calendar(uuid, text, text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.check_calendar(p_name text, p_periods jsonb)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.raise_problems('the calendar', 'calendar_invalid', array_agg(q::fleet.problem))
  from (
    select 'name' as field, 'must not be blank' as problem, 'Give the calendar a name.' as hint
    where btrim(coalesce(p_name, '')) = ''
    union all
    select p.field, p.problem, p.hint from fleet.period_problems(p_periods) as p
  ) as q;
end;
$$;

comment on function fleet.check_calendar(text, jsonb) is 'Raise calendar_invalid (PT422) naming everything that is wrong.';
revoke all on function fleet.check_calendar(text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.import_blackouts(
  p_name text,
  p_periods jsonb,
  p_description text,
  p_owner_id uuid,
  p_must_be_new boolean
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid := fleet.owner_or_own(p_owner_id);
  v_id bigint;
begin
  perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
  perform fleet.check_calendar(p_name, p_periods);
  if p_must_be_new
    and exists (select 1 from public.blackout_calendars as c where c.owner_id = v_owner and lower(c.name) = lower(p_name))
  then
    raise exception 'there is a calendar "%" already', p_name
      using errcode = 'PT409', detail = 'calendar_exists',
            hint = 'Give it other periods with import_blackouts, or choose another name.';
  end if;

  v_id := fleet.store_calendar(v_owner, p_name, p_description, p_periods);
  return (
    select to_jsonb(c) || jsonb_build_object(
      'periods', (select count(*) from public.blackout_periods as p where p.calendar_id = c.id)
    )
    from public.blackout_calendars as c
    where c.id = v_id
  );
end;
$$;

comment on function fleet.import_blackouts(text, jsonb, text, uuid, boolean) is
  'See public.create_blackout_calendar and public.import_blackouts. Definer: it checks the caller.';
revoke all on function fleet.import_blackouts(text, jsonb, text, uuid, boolean)
  from public, anon, authenticated, service_role;
grant execute on function fleet.import_blackouts(text, jsonb, text, uuid, boolean) to authenticated, service_role;

create or replace function public.create_blackout_calendar(
  p_name text,
  p_periods jsonb default '[]',
  p_description text default '',
  p_owner_id uuid default null
)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.import_blackouts(p_name, p_periods, p_description, p_owner_id, true)
$$;

comment on function public.create_blackout_calendar(text, jsonb, text, uuid) is
  'Make a calendar of times in which nothing runs, for policies.blackouts. Periods are days {starts_on, ends_on (the day after the last), '
  'summary} or times {starts_at, ends_at, summary} with an offset. Answers the row with how many periods. Raises calendar_invalid '
  '(PT422) naming every wrong field, or calendar_exists (PT409).';
revoke all on function public.create_blackout_calendar(text, jsonb, text, uuid)
  from public, anon, authenticated, service_role;
grant execute on function public.create_blackout_calendar(text, jsonb, text, uuid) to authenticated, service_role;

create or replace function public.import_blackouts(
  p_name text,
  p_periods jsonb,
  p_description text default null,
  p_owner_id uuid default null
)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.import_blackouts(p_name, p_periods, p_description, p_owner_id, false)
$$;

comment on function public.import_blackouts(text, jsonb, text, uuid) is
  'Give the calendar of this name these periods instead of the ones that it has; make it where there is none. As '
  'create_blackout_calendar. An ICS file is read by: pgfleet blackout import.';
revoke all on function public.import_blackouts(text, jsonb, text, uuid) from public, anon, authenticated, service_role;
grant execute on function public.import_blackouts(text, jsonb, text, uuid) to authenticated, service_role;

create or replace function fleet.delete_blackout_calendar(p_calendar_id bigint)
returns public.blackout_calendars
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.blackout_calendars;
begin
  select c.* into v_row
  from public.blackout_calendars as c
  where c.id = p_calendar_id and fleet.is_visible_owner(c.owner_id)
  for update;
  if not found then
    perform fleet.raise_not_found(format('calendar %s', p_calendar_id));
  end if;
  perform fleet.require_permission(v_row.owner_id, 'manage', format('calendar %s', p_calendar_id));

  delete from public.blackout_calendars as c where c.id = p_calendar_id;
  return v_row;
end;
$$;

comment on function fleet.delete_blackout_calendar(bigint) is 'See public.delete_blackout_calendar. Definer: it checks the caller.';
revoke all on function fleet.delete_blackout_calendar(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.delete_blackout_calendar(bigint) to authenticated, service_role;

create or replace function public.delete_blackout_calendar(p_calendar_id bigint)
returns public.blackout_calendars
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.delete_blackout_calendar(p_calendar_id)
$$;

comment on function public.delete_blackout_calendar(bigint) is
  'Delete a calendar with its periods. Raises calendar_not_found (PT404), permission_missing (PT403), or calendar_in_use (PT409) while '
  'a schedule that is not over names it.';
revoke all on function public.delete_blackout_calendar(bigint) from public, anon, authenticated, service_role;
grant execute on function public.delete_blackout_calendar(bigint) to authenticated, service_role;

create or replace function fleet.tg_keep_used_calendar()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_names text;
begin
  select string_agg(format('"%s"', s.name), ', ' order by s.name) into v_names
  from public.schedules as s
  where s.owner_id = old.owner_id
    and s.status in ('active', 'paused')
    and old.id = any (fleet.blackout_ids(s.policies));
  if v_names is not null then
    raise exception 'calendar "%" is used by %', old.name, v_names
      using errcode = 'PT409', detail = 'calendar_in_use',
            hint = 'Take it out of policies.blackouts of these schedules first.';
  end if;
  return old;
end;
$$;

comment on function fleet.tg_keep_used_calendar() is
  'Keep a calendar that schedules rely on: without it they would run in the holidays. Definer: it looks at all schedules of the owner.';
revoke all on function fleet.tg_keep_used_calendar() from public, anon, authenticated, service_role;

create or replace trigger blackout_calendars_01_keep_used
  before delete on public.blackout_calendars
  for each row execute function fleet.tg_keep_used_calendar();

-- db/sources/30_schedules/chains.sql
-- Chains: a schedule that runs when a run of another one has ended.

create or replace function fleet.follow_problems(p_schedule public.schedules)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id bigint := p_schedule.after_schedule_id;
  v_seen bigint[] := '{}';
begin
  if v_id is null then
    return;
  end if;

  return query
  select q.field, q.problem, q.hint
  from fleet.choice_problem('after.on', to_jsonb(p_schedule.after_on), '{completed,failed,either}') as q;
  if not exists (
    select 1 from public.schedules as s where s.id = v_id and s.owner_id = p_schedule.owner_id
  ) then
    return query
    select 'after.schedule_id', format('schedule %s was not found', v_id), 'List your schedules with: pgfleet schedule list';
    return;
  end if;

  -- Up the chain: whoever comes back to where it began would run for ever.
  while v_id is not null and v_id <> all (v_seen) loop
    if v_id = p_schedule.id then
      return query
      select 'after.schedule_id', format('schedule %s follows this one already: they would run for ever', p_schedule.after_schedule_id),
        'Let the first schedule of the chain have times of its own.';
      return;
    end if;
    v_seen := v_seen || v_id;
    select s.after_schedule_id into v_id from public.schedules as s where s.id = v_id;
  end loop;
end;
$$;

comment on function fleet.follow_problems(public.schedules) is
  'Whether the schedule that this one follows exists for its owner and does not follow it in turn.';
revoke all on function fleet.follow_problems(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.start_followers(p_runs bigint[], p_now timestamptz)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_runs fleet.run_booking[];
begin
  with ended as (
    select s, r.id as run_id, row_number() over (partition by s.id order by r.id) as n,
      case when s.timezone = 'device' and s.policies ? 'blackouts' then fleet.target_zones(s) end as zones,
      fleet.opening_of(s, p_now) as opens_at
    from public.schedule_runs as r
    join public.schedules as s on s.after_schedule_id = r.schedule_id and s.owner_id = r.owner_id
    where r.id = any (p_runs)
      and s.status = 'active'
      and (s.after_on = 'either' or s.after_on = r.status)
      -- A second look at the same end is harmless.
      and not exists (
        select 1 from public.schedule_runs as x
        where x.schedule_id = s.id and x.idempotency_key = 'after:' || r.id
      )
  ),
  judged as (
    select e.*, fleet.follower_refusal(e.s, e.n, e.zones, e.opens_at, p_now) as refusal
    from ended as e
  )
  select array_agg(
    row(
      (j.s).id, fleet.free_instant(j.s, p_now, j.n), 'chain', case when j.refusal is null then 'pending' else 'skipped' end, j.refusal,
      null, null, null, null, nullif(j.opens_at, p_now),
      fleet.run_expiry(fleet.effective_policies((j.s).policies), null, j.opens_at),
      case when j.zones is not null then fleet.open_zones(j.s, fleet.open_zones(j.s, j.zones, p_now), j.opens_at) end,
      null, j.run_id, 'after:' || j.run_id, null
    )::fleet.run_booking
    order by j.run_id
  )
  into v_runs
  from judged as j;
  return case when v_runs is null then 0 else cardinality(fleet.book_runs(v_runs, p_now)) end;
end;
$$;

comment on function fleet.start_followers(bigint[], timestamptz) is
  'Write the runs of the schedules that follow these ended runs. Answers how many; the tick expands them.';
revoke all on function fleet.start_followers(bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.follower_refusal(
  p_schedule public.schedules,
  p_place bigint,
  p_zones text[],
  p_opens_at timestamptz,
  p_now timestamptz
)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_place > fleet.runs_left(p_schedule) then 'max_runs reached'
    when p_now < p_schedule.start_time then 'the schedule has not begun'
    when p_now > p_schedule.end_time then 'the schedule has ended'
    else coalesce(
      fleet.zones_refusal(p_schedule, p_zones, p_now),
      case when p_opens_at > p_now then fleet.zones_refusal(p_schedule, p_zones, p_opens_at) end
    )
  end
$$;

comment on function fleet.follower_refusal(public.schedules, bigint, text[], timestamptz, timestamptz) is
  'Why a schedule does not follow now, as the n-th time at once: max_runs, its bounds, a blackout or its execution window; null where it '
  'does.';
revoke all on function fleet.follower_refusal(public.schedules, bigint, text[], timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.opening_of(p_schedule public.schedules, p_instant timestamptz)
returns timestamptz
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    -- What does not wait is judged where it stands.
    when not p_schedule.policies ? 'execution_window'
      or not fleet.waits_for_window(fleet.window_list(p_schedule.policies), 'schedule')
      then p_instant
    else coalesce(
      fleet.window_opening(
        fleet.window_list(p_schedule.policies), 'schedule', fleet.reference_zone(p_schedule), p_instant
      ),
      p_instant
    )
  end
$$;

comment on function fleet.opening_of(public.schedules, timestamptz) is
  'When a run of this instant may begin: at once, or when the execution window opens.';
revoke all on function fleet.opening_of(public.schedules, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.has_lost_parent(p_old public.schedules, p_new public.schedules)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select p_old.after_schedule_id is not null
    and p_new.after_schedule_id is null
    and not exists (select 1 from public.schedules as s where s.id = p_old.after_schedule_id)
$$;

comment on function fleet.has_lost_parent(public.schedules, public.schedules) is
  'Whether this change comes from the foreign key: the schedule that this one follows is deleted.';
revoke all on function fleet.has_lost_parent(public.schedules, public.schedules)
  from public, anon, authenticated, service_role;

create or replace function fleet.abandoned_schedule(p_old public.schedules, p_new public.schedules)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules := p_new;
begin
  v_row.after_on := null;
  -- Nobody said when it is to run instead; times that it has besides wait until it is resumed.
  v_row.next_run_at := case
    when v_row.recurrence_type <> 'once' and v_row.status in ('active', 'paused') then fleet.first_due(v_row, clock_timestamp())
  end;
  if v_row.status = 'active' then
    v_row.status := 'paused';
    v_row.status_reason := format('schedule %s, which it followed, was deleted', p_old.after_schedule_id);
  end if;
  v_row.updated_at := now();
  return v_row;
end;
$$;

comment on function fleet.abandoned_schedule(public.schedules, public.schedules) is
  'The row of a schedule that followed one that is deleted: paused, with the reason.';
revoke all on function fleet.abandoned_schedule(public.schedules, public.schedules)
  from public, anon, authenticated, service_role;

-- db/sources/30_schedules/complete.sql
-- Derived columns of a schedule: what follows from what was written.

create or replace function fleet.completed_schedule(p_old public.schedules, p_new public.schedules)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules := p_new;
begin
  v_row.recurrence_type := coalesce(fleet.recurrence_type(v_row.recurrence_type), v_row.recurrence_type);
  if v_row.profile_id is null then
    v_row.profile_id := v_row.payload ->> 'profile_id';
  elsif v_row.profile_id is distinct from v_row.payload ->> 'profile_id' and jsonb_typeof(v_row.payload) = 'object' then
    v_row.payload := v_row.payload || jsonb_build_object('profile_id', v_row.profile_id);
  end if;

  -- Nobody who is named is dropped: a device beside other targets is one more of them.
  v_row.device_ids := array(
    select distinct u.id from unnest(v_row.device_ids || v_row.device_id) as u(id) where u.id is not null order by u.id
  );
  v_row.group_ids := coalesce(v_row.group_ids, '{}');
  v_row.device_id := case
    when cardinality(v_row.device_ids) = 1 and v_row.group_ids = '{}' and v_row.selector is null
      then v_row.device_ids[1]
  end;

  if p_old.id is null
    or (v_row.owner_id, v_row.policies, v_row.timezone) is distinct from (p_old.owner_id, p_old.policies, p_old.timezone)
  then
    v_row.policies := fleet.named_blackouts(v_row.owner_id, v_row.policies);
    if v_row.timezone = 'device' then
      v_row.policies := fleet.policies_in_device_time(v_row.policies);
    end if;
  end if;
  if v_row.after_schedule_id is not null then
    v_row.after_on := coalesce(v_row.after_on, 'completed');
  end if;
  if btrim(coalesce(v_row.name, '')) = '' then
    v_row.name := concat_ws(' ', v_row.action_type, v_row.profile_id, 'on ' || v_row.device_id);
  end if;
  return v_row;
end;
$$;

comment on function fleet.completed_schedule(public.schedules, public.schedules) is
  'The new row with profile_id and payload, and device_id and device_ids, brought to agree, and a name where none was given. The old one '
  'tells what need not be looked at again.';
revoke all on function fleet.completed_schedule(public.schedules, public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.without_stale_twins(p_old public.schedules, p_new public.schedules)
returns public.schedules
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules := p_new;
begin
  -- Of two columns that say the same, the one that was changed is meant; the other follows from it.
  if p_new.payload is distinct from p_old.payload and p_new.profile_id is not distinct from p_old.profile_id then
    v_row.profile_id := null;
  elsif p_new.profile_id is null and p_old.profile_id is not null and jsonb_typeof(p_new.payload) = 'object' then
    v_row.payload := p_new.payload - 'profile_id';
  end if;

  if p_new.device_id is not distinct from p_old.device_id then
    v_row.device_id := null;
  elsif p_new.device_ids is not distinct from p_old.device_ids then
    v_row.device_ids := case when p_new.device_id is null then array_remove(p_new.device_ids, p_old.device_id) else '{}' end;
    -- The one device takes the place of all other targets, unless they were changed in the same breath.
    if p_new.device_id is not null and p_new.group_ids = p_old.group_ids and p_new.selector is not distinct from p_old.selector then
      v_row.group_ids := '{}';
      v_row.selector := null;
    end if;
  end if;
  return v_row;
end;
$$;

comment on function fleet.without_stale_twins(public.schedules, public.schedules) is
  'The new row, with the columns emptied that are to follow from their changed twin. fleet.completed_schedule fills them.';
revoke all on function fleet.without_stale_twins(public.schedules, public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.first_due(p_schedule public.schedules, p_now timestamptz)
returns timestamptz
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- A single run is owed even when its time has passed: the ledger then says what became of it. A recurring schedule owes
  -- nothing for the time before it existed.
  select case
    -- What follows another schedule has no instants of its own.
    when p_schedule.after_schedule_id is not null then null
    when p_schedule.recurrence_type = 'once'
      then fleet.next_due(p_schedule.recurrence, '-infinity')
    else fleet.next_due(
      p_schedule.recurrence,
      case
        -- Days start earlier in the east: the bounds of each zone are in its member of the union.
        when p_schedule.timezone = 'device' then p_now
        else greatest(p_schedule.start_time, p_now)
      end - interval '1 microsecond'
    )
  end
$$;

comment on function fleet.first_due(public.schedules, timestamptz) is
  'The first instant that a new or changed schedule is due.';
revoke all on function fleet.first_due(public.schedules, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.ended_or_not(p_schedule public.schedules)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules := p_schedule;
  v_reason text := fleet.end_reason(v_row);
begin
  if v_reason is null and v_row.status = 'completed' then
    v_row.status := 'active';
    v_row.status_reason := null;
  elsif v_reason is not null and v_row.status in ('active', 'completed') then
    v_row.status := 'completed';
    v_row.status_reason := v_reason;
    v_row.next_run_at := null;
  end if;
  return v_row;
end;
$$;

comment on function fleet.ended_or_not(public.schedules) is
  'The row of a schedule whose times or limits have changed: completed where it has come to its end, active where it goes on.';
revoke all on function fleet.ended_or_not(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.prepared_schedule(p_old public.schedules, p_new public.schedules, p_now timestamptz)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_is_new boolean := p_old.id is null;
  v_row public.schedules := p_new;
begin
  if not v_is_new then
    v_row := fleet.without_stale_twins(p_old, v_row);
  end if;
  v_row := fleet.completed_schedule(p_old, v_row);
  perform fleet.raise_problems(
    'the schedule', 'schedule_invalid', array(select q from fleet.schedule_problems(p_old, v_row) as q)
  );

  v_row.recurrence := case
    when v_is_new or fleet.recurrence_changed(p_old, v_row) then fleet.compiled(v_row) else p_old.recurrence
  end;
  if v_row.status = 'cancelled' then
    return v_row;
  elsif v_is_new or fleet.timing_changed(p_old, v_row) then
    v_row.next_run_at := fleet.first_due(v_row, p_now);
    return fleet.ended_or_not(v_row);
  elsif fleet.limit_changed(p_old, v_row) then
    if v_row.status = 'completed' then
      v_row.next_run_at := fleet.first_due(v_row, p_now);
    end if;
    return fleet.ended_or_not(v_row);
  end if;
  return v_row;
end;
$$;

comment on function fleet.prepared_schedule(public.schedules, public.schedules, timestamptz) is
  'The row that writing p_new in place of p_old at p_now makes: complete, checked, compiled, with its next due instant; an old row without '
  'an id is none. What did not change is not looked at again. Raises schedule_invalid (PT422, or PT404) naming every wrong field.';
revoke all on function fleet.prepared_schedule(public.schedules, public.schedules, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.tg_prepare_schedule()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_old public.schedules;
  v_row public.schedules := new;
begin
  if tg_op = 'UPDATE' then
    v_old := old;
    if fleet.has_lost_parent(v_old, v_row) then
      return fleet.abandoned_schedule(v_old, v_row);
    end if;
  else
    v_row.created_by := fleet.current_user_id();
  end if;
  v_row.owner_id := fleet.owner_or_own(v_row.owner_id);
  perform fleet.require_permission(v_row.owner_id, 'manage', format('owner %s', v_row.owner_id));
  perform fleet.require_destructive(v_row.owner_id, v_row.action_type);
  if v_row.after_schedule_id is distinct from v_old.after_schedule_id then
    -- Two sessions that each let one schedule follow the other would not see the circle they make.
    perform pg_advisory_xact_lock(hashtext('pgfleet.chains'), hashtext(v_row.owner_id::text));
  end if;

  v_row := fleet.prepared_schedule(v_old, v_row, v_now);
  if v_old.status <> 'cancelled' and fleet.timing_changed(v_old, v_row) then
    perform fleet.skip_due(v_old, v_now, case v_old.status when 'paused' then 'paused' else 'the times were changed' end);
  elsif v_old.status = 'active' and v_row.status = 'completed' then
    perform fleet.skip_due(v_old, v_now, v_row.status_reason);
  end if;
  v_row.updated_at := now();
  return v_row;
end;
$$;

comment on function fleet.tg_prepare_schedule() is
  'Check and complete a schedule however it is written, and account for what was due by its old times. Definer: it checks the caller, then '
  'sees what the checks need to see.';
revoke all on function fleet.tg_prepare_schedule() from public, anon, authenticated, service_role;

create or replace function fleet.recurrence_changed(p_old public.schedules, p_new public.schedules)
returns boolean
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (p_old.recurrence_type, p_old.recurrence_config, p_old.start_time, p_old.end_time, p_old.timezone,
      p_old.policies -> 'gap', p_old.policies -> 'fold')
    is distinct from
    (p_new.recurrence_type, p_new.recurrence_config, p_new.start_time, p_new.end_time, p_new.timezone,
      p_new.policies -> 'gap', p_new.policies -> 'fold')
    -- In device time it has a member for each zone of its devices.
    or (p_new.timezone = 'device' and fleet.targets_changed(p_old, p_new));
end;
$$;

comment on function fleet.recurrence_changed(public.schedules, public.schedules) is
  'Whether the compiled recurrence of a schedule may have changed.';
revoke all on function fleet.recurrence_changed(public.schedules, public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.targets_changed(p_old public.schedules, p_new public.schedules)
returns boolean
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (p_old.owner_id, p_old.device_ids, p_old.group_ids, p_old.selector)
    is distinct from (p_new.owner_id, p_new.device_ids, p_new.group_ids, p_new.selector);
end;
$$;

comment on function fleet.targets_changed(public.schedules, public.schedules) is 'Whether a schedule names others than before.';
revoke all on function fleet.targets_changed(public.schedules, public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.timing_changed(p_old public.schedules, p_new public.schedules)
returns boolean
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select (p_old.recurrence_type, p_old.recurrence_config, p_old.start_time, p_old.end_time, p_old.timezone,
      p_old.recurrence, p_old.after_schedule_id, p_old.after_on)
    is distinct from
    (p_new.recurrence_type, p_new.recurrence_config, p_new.start_time, p_new.end_time, p_new.timezone,
      p_new.recurrence, p_new.after_schedule_id, p_new.after_on)
$$;

comment on function fleet.timing_changed(public.schedules, public.schedules) is 'Whether the due instants may have changed.';
revoke all on function fleet.timing_changed(public.schedules, public.schedules)
  from public, anon, authenticated, service_role;

create or replace function fleet.limit_changed(p_old public.schedules, p_new public.schedules)
returns boolean
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select p_old.status in ('active', 'completed')
    and coalesce(fleet.runs_left(p_old) <= 0, false) is distinct from coalesce(fleet.runs_left(p_new) <= 0, false)
$$;

comment on function fleet.limit_changed(public.schedules, public.schedules) is
  'Whether a schedule that ran as often as it may is to go on, or one that goes on has run as often as it may now.';
revoke all on function fleet.limit_changed(public.schedules, public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.tg_run_due_schedules()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_due bigint[];
begin
  select array_agg(n.id) into v_due
  from new_rows as n
  where n.status = 'active' and n.next_run_at <= v_now;
  if v_due is not null then
    perform fleet.run_due(v_due, v_now);
  end if;
  return null;
end;
$$;

comment on function fleet.tg_run_due_schedules() is
  'What is due when it is inserted does not wait for the tick. Definer: people may not write runs and commands themselves.';
revoke all on function fleet.tg_run_due_schedules() from public, anon, authenticated, service_role;

-- db/sources/30_schedules/decide.sql
-- Deciding what to do about what is due. Pure: everything is an argument, so it can be previewed and tested.

create or replace function fleet.last_occurrence(p_recurrence jsonb, p_from timestamptz, p_to timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_span interval := '1 hour';
  v_last timestamptz;
begin
  -- Backwards in growing steps: the last instant of a long pause is found without walking through all of it.
  loop
    select max(o) into v_last
    from fleet.due_instants(p_recurrence, greatest(p_from, p_to - v_span), p_to) as o;
    exit when v_last is not null or p_to - v_span <= p_from;
    v_span := v_span * 12;
  end loop;
  return v_last;
end;
$$;

comment on function fleet.last_occurrence(jsonb, timestamptz, timestamptz) is
  'The last due instant within [p_from, p_to); null when there is none.';
revoke all on function fleet.last_occurrence(jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.run_expiry(
  p_policies jsonb,
  p_next timestamptz,
  p_now timestamptz
)
returns timestamptz
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_policies ->> 'expires_after' is not null then p_now + (p_policies ->> 'expires_after')::interval
    else least(p_next, p_now + interval '24 hours')
  end
$$;

comment on function fleet.run_expiry(jsonb, timestamptz, timestamptz) is
  'Until when the commands of a run that starts now may be started: expires_after, else the next due instant, at most 24 hours.';
revoke all on function fleet.run_expiry(jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.decide_due(p_schedule public.schedules, p_now timestamptz)
returns setof fleet.run_booking
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_policies jsonb := fleet.effective_policies(p_schedule.policies);
  v_due timestamptz := p_schedule.next_run_at;
  -- Within a minute a tick is on time; only then does catch-up come into it.
  v_on_time_from timestamptz := p_now - interval '1 minute';
  v_window_from timestamptz;
  v_run timestamptz[];
  v_left bigint := fleet.runs_left(p_schedule);
  v_next timestamptz := fleet.next_due(p_schedule.recurrence, p_now);
  v_booking fleet.run_booking;
begin
  v_window_from := greatest(v_due, case v_policies ->> 'catchup'
    when 'none' then v_on_time_from
    else least(v_on_time_from, p_now - (v_policies ->> 'catchup_window')::interval)
  end);
  v_run := fleet.instants_to_run(p_schedule.recurrence, v_policies, v_due, v_window_from, p_now);

  if v_run = array[v_due] and v_due >= v_on_time_from and v_left is null and p_schedule.timezone <> 'device'
    and not p_schedule.policies ?| '{blackouts,execution_window}'
  then
    -- Nearly every decision is this one, so it goes the short way.
    v_booking.schedule_id := p_schedule.id;
    v_booking.scheduled_for := v_due;
    v_booking.trigger := 'schedule';
    v_booking.status := 'pending';
    v_booking.expires_at := fleet.run_expiry(v_policies, v_next, p_now);
    v_booking.dst_rule := fleet.applied_rule(p_schedule.recurrence, v_due);
    v_booking.next_run_at := coalesce(v_next, 'infinity');
    return next v_booking;
    return;
  end if;

  -- Older than the window, or left out of it: one row for the range, whole and counted.
  if v_run[1] is distinct from v_due then
    return query
    select p_schedule.id, g.missed_from, 'schedule', 'skipped', g.reason, null,
      case when g.missed_count > 1 then g.missed_from end,
      case when g.missed_count > 1 then g.missed_to end,
      case when g.missed_count > 1 then g.missed_count end,
      null::timestamptz, null::timestamptz, null::text[], null, null::bigint, null, coalesce(v_next, 'infinity')
    from fleet.missed_range(p_schedule.recurrence, v_policies, v_due, v_window_from, v_run[1], p_now) as g;
  end if;

  return query
  select p_schedule.id, r.instant, r.trigger, case when r.refusal is null then 'pending' else 'skipped' end, r.refusal, null,
    null::timestamptz, null::timestamptz, null::bigint,
    nullif(r.starts_at, p_now),
    fleet.run_expiry(v_policies, fleet.next_due_in(p_schedule.recurrence, r.zones, r.starts_at), r.starts_at),
    r.zones, fleet.dst_rule_at(p_schedule.recurrence, r.instant), null::bigint, null, coalesce(v_next, 'infinity')
  from fleet.decide_runs(p_schedule, v_policies, v_run, v_on_time_from, v_left, p_now) as r;
end;
$$;

comment on function fleet.decide_due(public.schedules, timestamptz) is
  'What becomes of a schedule that has been due since its next_run_at: what to write into the ledger, and when it is due next. Each '
  'due instant up to p_now is in exactly one row.';
revoke all on function fleet.decide_due(public.schedules, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.decide_runs(
  p_schedule public.schedules,
  p_policies jsonb,
  p_instants timestamptz[],
  p_on_time_from timestamptz,
  p_left bigint,
  p_now timestamptz
)
returns table (instant timestamptz, trigger text, refusal text, starts_at timestamptz, zones text[])
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with due as (
    select u.instant, u.instant < p_on_time_from as is_late,
      fleet.zones_to_run(p_schedule.recurrence, p_policies, u.instant, p_now) as zones,
      fleet.zones_due(p_schedule.recurrence, u.instant) as zones_due
    from unnest(p_instants) as u(instant)
  ),
  judged as (
    select d.*, coalesce(
        case when d.zones = '{}' and d.zones_due is not null then 'superseded by a later instant' end,
        fleet.zones_refusal(p_schedule, d.zones, d.instant),
        -- What is caught up acts now, so now must be allowed as well.
        case when d.is_late then fleet.zones_refusal(p_schedule, d.zones, p_now) end
      ) as refusal
    from due as d
  ),
  paced as (
    select j.*, fleet.opening_of(p_schedule, p_now + fleet.catchup_pause(
        p_policies, case when j.is_late then count(*) filter (where j.refusal is null and j.is_late) over (order by j.instant) end
      )) as starts_at
    from judged as j
  ),
  checked as (
    select p.instant, p.is_late, p.starts_at, p.zones, p.zones_due, coalesce(
        p.refusal,
        case when p.starts_at > p_now then fleet.zones_refusal(p_schedule, p.zones, p.starts_at) end
      ) as refusal
    from paced as p
  ),
  counted as (
    select c.*, count(*) filter (where c.refusal is null) over (order by c.instant) as n
    from checked as c
  )
  select c.instant, case when c.is_late then 'catchup' else 'schedule' end,
    coalesce(c.refusal, case when c.n > p_left then 'max_runs reached' end),
    c.starts_at,
    case
      when c.refusal is not null then c.zones_due
      when p_schedule.policies ? 'blackouts'
        and c.zones is not null
        then fleet.open_zones(p_schedule, fleet.open_zones(p_schedule, c.zones, c.instant), c.starts_at)
      else c.zones
    end
  from counted as c
$$;

comment on function fleet.decide_runs(public.schedules, jsonb, timestamptz[], timestamptz, bigint, timestamptz) is
  'For each instant that is to run: on time or caught up, what refuses it, when it starts (the window opens, catching up is paced), and '
  'for the devices of which zones.';
revoke all on function fleet.decide_runs(public.schedules, jsonb, timestamptz[], timestamptz, bigint, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.catchup_pause(p_policies jsonb, p_place bigint)
returns interval
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    interval '1 minute' / (p_policies ->> 'catchup_rate')::double precision * (greatest(p_place, 1) - 1)::double precision,
    interval '0'
  )
$$;

comment on function fleet.catchup_pause(jsonb, bigint) is
  'How long the n-th of the runs that are caught up waits, by policies.catchup_rate. None where there is no rate or no place.';
revoke all on function fleet.catchup_pause(jsonb, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.instants_to_run(
  p_recurrence jsonb,
  p_policies jsonb,
  p_due timestamptz,
  p_window_from timestamptz,
  p_now timestamptz
)
returns timestamptz[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_last timestamptz;
begin
  if p_due >= p_window_from and coalesce(fleet.next_due(p_recurrence, p_due) > p_now, true) then
    return array[p_due];
  end if;

  if p_policies ->> 'catchup' = 'all' then
    return (
      select array_agg(o.instant order by o.instant)
      from (
        select i.instant
        from fleet.due_instants(p_recurrence, p_window_from, p_now + interval '1 microsecond') as i(instant)
        order by i.instant desc
        limit (p_policies ->> 'catchup_limit')::integer
      ) as o
    );
  end if;

  if p_recurrence ->> 'kind' = 'union' then
    -- Each zone has a latest instant of its own; from the first of them on, each instant is looked at for its zones.
    return (
      select array_agg(i.instant order by i.instant)
      from (
        select min(fleet.last_occurrence(m.member, p_window_from, p_now + interval '1 microsecond')) as from_at
        from jsonb_array_elements(p_recurrence -> 'members') as m(member)
      ) as l
      cross join lateral fleet.due_instants(p_recurrence, l.from_at, p_now + interval '1 microsecond') as i(instant)
      where l.from_at is not null
    );
  end if;

  v_last := fleet.last_occurrence(p_recurrence, p_window_from, p_now + interval '1 microsecond');
  return case when v_last is not null then array[v_last] end;
end;
$$;

comment on function fleet.instants_to_run(jsonb, jsonb, timestamptz, timestamptz, timestamptz) is
  'Which of the instants that are due do run, by the catch-up policy; null for none.';
revoke all on function fleet.instants_to_run(jsonb, jsonb, timestamptz, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.missed_range(
  p_recurrence jsonb,
  p_policies jsonb,
  p_due timestamptz,
  p_window_from timestamptz,
  p_first_run timestamptz,
  p_now timestamptz
)
returns table (missed_from timestamptz, missed_to timestamptz, missed_count bigint, reason text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select p_due,
    -- p_due is due whatever the recurrence says by now; what follows is asked from the recurrence.
    coalesce(fleet.last_occurrence(p_recurrence, p_due, w.to_at), p_due),
    greatest(fleet.count_due(p_recurrence, p_due, w.to_at), 1),
    case
      when p_policies ->> 'catchup' = 'none' then 'catch-up is off'
      when p_first_run is null or not exists (
        select 1 from fleet.due_instants(p_recurrence, greatest(p_due, p_window_from), p_first_run) limit 1
      ) and p_policies ->> 'catchup' = 'all' then 'outside the catch-up window'
      when p_policies ->> 'catchup' = 'all' then 'beyond the catch-up limit'
      else 'superseded by a later instant'
    end
  from (select coalesce(p_first_run, p_now + interval '1 microsecond') as to_at) as w
  where p_due < w.to_at
$$;

comment on function fleet.missed_range(jsonb, jsonb, timestamptz, timestamptz, timestamptz, timestamptz) is
  'The due instants that do not run, as one range: from p_due up to the first that runs, or up to now. No row where there are none.';
revoke all on function fleet.missed_range(jsonb, jsonb, timestamptz, timestamptz, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/30_schedules/device_time.sql
-- Keeping schedules in device time aware of the time zones of their devices. Devices come, move and change groups; a schedule must
-- know each zone before its local time comes there.

create or replace function fleet.refresh_device_time(p_schedule_ids bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  update public.schedules as s
  set recurrence = f.recurrence,
      next_run_at = least(s.next_run_at, fleet.next_due(f.recurrence, clock_timestamp()))
  from (
    select x.id, fleet.compiled(x) as recurrence
    from public.schedules as x
    where x.id = any (p_schedule_ids)
      and not (x.recurrence -> 'zones') @> to_jsonb(fleet.target_zones(x))
  ) as f
  where s.id = f.id
$$;

comment on function fleet.refresh_device_time(bigint[]) is
  'Recompile those of these schedules whose devices are in a zone that they do not know yet.';
revoke all on function fleet.refresh_device_time(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.device_time_schedules(p_owner_ids uuid[], p_zones text[], p_group_ids bigint[])
returns bigint[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select array_agg(s.id)
  from public.schedules as s
  where s.timezone = 'device'
    and s.status = 'active'
    and s.after_schedule_id is null
    and s.owner_id = any (p_owner_ids)
    and (
      s.group_ids && p_group_ids
      -- The zones belong to the owners, pair by pair.
      or exists (
        select 1
        from unnest(p_owner_ids, p_zones) as u(owner_id, zone)
        where u.owner_id = s.owner_id and not (s.recurrence -> 'zones') ? u.zone
      )
    )
$$;

comment on function fleet.device_time_schedules(uuid[], text[], bigint[]) is
  'The active schedules in device time that these zones of these owners, or a change of these groups, may be news to.';
revoke all on function fleet.device_time_schedules(uuid[], text[], bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.tg_refresh_device_time()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owners uuid[];
  v_zones text[];
begin
  if tg_op = 'INSERT' then
    select array_agg(u.owner_id), array_agg(u.zone) into v_owners, v_zones
    from (select distinct n.owner_id, coalesce(n.timezone, 'UTC') as zone from new_rows as n) as u;
  else
    -- Being seen is no news: devices say so all the time.
    select array_agg(u.owner_id), array_agg(u.zone) into v_owners, v_zones
    from (
      select distinct n.owner_id, coalesce(n.timezone, 'UTC') as zone
      from new_rows as n
      join old_rows as o on o.id = n.id
      where (n.timezone, n.tags, n.platform, n.attributes, n.status)
        is distinct from (o.timezone, o.tags, o.platform, o.attributes, o.status)
    ) as u;
  end if;
  if v_owners is not null then
    perform fleet.refresh_device_time(fleet.device_time_schedules(v_owners, v_zones, '{}'));
  end if;
  return null;
end;
$$;

comment on function fleet.tg_refresh_device_time() is
  'Tell schedules in device time of devices in a new zone. Definer: who adds a device may not change schedules.';
revoke all on function fleet.tg_refresh_device_time() from public, anon, authenticated, service_role;

create or replace function fleet.tg_refresh_zones_of_groups()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owners uuid[];
  v_groups bigint[];
begin
  if tg_table_name = 'device_groups' then
    select array_agg(distinct n.owner_id), array_agg(n.id) into v_owners, v_groups from new_rows as n;
  else
    select array_agg(distinct n.owner_id), array_agg(distinct n.group_id) into v_owners, v_groups from new_rows as n;
  end if;
  perform fleet.refresh_device_time(fleet.device_time_schedules(v_owners, '{}', v_groups));
  return null;
end;
$$;

comment on function fleet.tg_refresh_zones_of_groups() is
  'Tell schedules in device time of new members of their groups. Definer: who changes a group may not change schedules.';
revoke all on function fleet.tg_refresh_zones_of_groups() from public, anon, authenticated, service_role;

-- db/sources/30_schedules/devices_of_runs.sql
-- What a run means for one device: when it starts there, and what it still has to do.

create or replace function fleet.device_start(
  p_policies jsonb,
  p_schedule_id bigint,
  p_device_id bigint,
  p_timezone text,
  p_from timestamptz
)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_windows jsonb := fleet.window_list(p_policies);
  v_start timestamptz := p_from;
begin
  if v_windows <> '[]' then
    v_start := fleet.window_opening(v_windows, 'device', p_timezone, p_from);
    if v_start > p_from and not fleet.waits_for_window(v_windows, 'device') then
      return null;
    end if;
  end if;
  if p_policies ->> 'jitter' is null then
    return v_start;
  end if;
  return v_start + fleet.jitter_slot(
    least((p_policies ->> 'jitter')::interval, fleet.room_for_jitter(v_windows, p_schedule_id, p_timezone, v_start)),
    p_schedule_id, p_device_id
  );
end;
$$;

comment on function fleet.device_start(jsonb, bigint, bigint, text, timestamptz) is
  'When a device may start: when its window opens, plus its slot of the jitter. Null where it is outside of its window and is not to wait.';
revoke all on function fleet.device_start(jsonb, bigint, bigint, text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.room_for_jitter(
  p_windows jsonb,
  p_schedule_id bigint,
  p_timezone text,
  p_start timestamptz
)
returns interval
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- A slot beyond the window would be out of bounds at every run: those devices would never have their turn.
  select least(
    fleet.window_closing(p_windows, 'device', p_timezone, p_start),
    (
      select fleet.window_closing(p_windows, 'schedule', s.timezone, p_start)
      from public.schedules as s
      where s.id = p_schedule_id and s.timezone <> 'device'
    )
  ) - p_start
  where p_windows <> '[]'
$$;

comment on function fleet.room_for_jitter(jsonb, bigint, text, timestamptz) is
  'How long the windows of a schedule and of a device stay open after p_start; null where there are none.';
revoke all on function fleet.room_for_jitter(jsonb, bigint, text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.jitter_slot(p_jitter interval, p_schedule_id bigint, p_device_id bigint)
returns interval
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  -- From a hash of both, so that a device keeps its slot, and the fleet is spread evenly.
  select p_jitter * (('x' || substr(md5(p_schedule_id || ':' || p_device_id), 1, 8))::bit(32)::bigint / 4294967296.0)
$$;

comment on function fleet.jitter_slot(interval, bigint, bigint) is
  'How much later than due a device runs a schedule: the same at each run, within the jitter.';
revoke all on function fleet.jitter_slot(interval, bigint, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.leaves_out(
  p_overlap text,
  p_max_concurrent bigint,
  p_unfinished bigint,
  p_is_overtaken boolean
)
returns boolean
language sql
immutable
parallel safe
return (
  case p_overlap
    -- Of two runs on their way, the later one has come here first: what is newer stays.
    when 'replace' then p_is_overtaken
    when 'allow' then p_unfinished >= p_max_concurrent
    when 'buffer_one' then p_unfinished >= 2
    else p_unfinished >= 1
  end
);

comment on function fleet.leaves_out(text, bigint, bigint, boolean) is
  'Whether the overlap policy leaves a device out that has so many unfinished commands of the schedule, maybe of a later run.';
revoke all on function fleet.leaves_out(text, bigint, bigint, boolean) from public, anon, authenticated, service_role;

create or replace function fleet.unfinished_of(
  p_schedule_id bigint,
  p_device_id bigint,
  p_run_id bigint,
  p_now timestamptz
)
returns table (n bigint, last_id bigint, last_run_id bigint)
language sql
stable
strict
rows 1
set search_path = pg_catalog, pg_temp
as $$
  select count(*), max(c.id), max(c.run_id)
  from public.device_commands as c
  where c.schedule_id = p_schedule_id
    and c.device_id = p_device_id
    and c.status in ('pending', 'running')
    -- What nobody may start any more keeps nobody busy: by default it expires at the very instant that is due now.
    and (c.status = 'running' or c.expires_at > p_now)
    and c.run_id <> p_run_id
$$;

comment on function fleet.unfinished_of(bigint, bigint, bigint, timestamptz) is
  'What a device has still to do for other runs of a schedule: how many commands, the last of them, and the latest run.';
revoke all on function fleet.unfinished_of(bigint, bigint, bigint, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/30_schedules/duplicate.sql
-- A schedule like another.

create or replace function fleet.duplicate_schedule(p_schedule_id bigint, p_changes jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_old public.schedules := fleet.schedule_of_caller(p_schedule_id, 'manage');
  v_status text := fleet.status_of_spec(p_changes);
  v_row public.schedules;
begin
  v_old.id := null;
  v_old.name := fleet.copy_name(v_old.owner_id, v_old.name);
  v_row := fleet.changed_schedule(v_old, case when jsonb_typeof(p_changes) = 'object' then p_changes - 'status' else p_changes end);
  v_row.status := coalesce(v_status, 'paused');
  -- Two statements: what the first one made is only seen by the next.
  v_row.id := fleet.store_schedule(v_row);
  return fleet.schedule_answer(v_row.id);
end;
$$;

comment on function fleet.duplicate_schedule(bigint, jsonb) is 'See public.duplicate_schedule. Definer: it checks the caller.';
revoke all on function fleet.duplicate_schedule(bigint, jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.duplicate_schedule(bigint, jsonb) to authenticated, service_role;

create or replace function fleet.status_of_spec(p_spec jsonb)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if jsonb_typeof(p_spec) = 'object' and p_spec ? 'status' then
    perform fleet.raise_problems(
      'the schedule', 'schedule_invalid',
      array(select q from fleet.choice_problem('status', nullif(p_spec -> 'status', 'null'), '{active,paused}') as q)
    );
    return p_spec ->> 'status';
  end if;
  return null;
end;
$$;

comment on function fleet.status_of_spec(jsonb) is
  'The status in which a copy or a schedule of a document is to be, active or paused; null where it does not say. Raises schedule_invalid '
  '(PT422).';
revoke all on function fleet.status_of_spec(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.copy_name(p_owner_id uuid, p_name text)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select c.name
  from (
    select n.number, p_name || case n.number when 1 then ' (copy)' else format(' (copy %s)', n.number) end as name
    from generate_series(1, 1000) as n(number)
  ) as c
  where not exists (
    select 1 from public.schedules as s where s.owner_id = p_owner_id and lower(s.name) = lower(c.name)
  )
  order by c.number
  limit 1
$$;

comment on function fleet.copy_name(uuid, text) is 'X (copy), or the first X (copy n) that the owner has no schedule of.';
revoke all on function fleet.copy_name(uuid, text) from public, anon, authenticated, service_role;

create or replace function public.duplicate_schedule(p_schedule_id bigint, p_changes jsonb default '{}')
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.duplicate_schedule(p_schedule_id, p_changes)
$$;

comment on function public.duplicate_schedule(bigint, jsonb) is
  'Make a schedule like another, named "X (copy)" and paused, with changes by the keys of create_schedule and status (active or paused). '
  'Answers the row with "warnings". Raises schedule_not_found (PT404), permission_missing (PT403) or schedule_invalid (PT422).';
revoke all on function public.duplicate_schedule(bigint, jsonb) from public, anon, authenticated, service_role;
grant execute on function public.duplicate_schedule(bigint, jsonb) to authenticated, service_role;

-- db/sources/30_schedules/expand.sql
-- From runs to commands: one row for each (run, device), in chunks.

create or replace function fleet.expand_runs(p_run_ids bigint[], p_now timestamptz, p_limit integer)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_made bigint := 0;
  v_id bigint;
begin
  begin
    return fleet.write_commands(p_run_ids, p_now, p_limit);
  exception
    when query_canceled or admin_shutdown or deadlock_detected then
      raise;
    when others then
      -- One of them is bad: each by itself, and the error goes to its run.
      null;
  end;

  foreach v_id in array p_run_ids loop
    begin
      v_made := v_made + fleet.write_commands(array[v_id], p_now, p_limit);
    exception
      when query_canceled or admin_shutdown or deadlock_detected then
        raise;
      when others then
        update public.schedule_runs as r
        set status = 'failed', reason = 'error', error_message = sqlerrm, expanded_at = p_now, finished_at = p_now
        where r.id = v_id;
        -- Whatever follows a failure is to hear of this one.
        insert into fleet.run_progress (run_id, completed, failed) values (v_id, 0, 0);
        perform fleet.end_used_up(array(select r.schedule_id from public.schedule_runs as r where r.id = v_id));
    end;
  end loop;
  return v_made;
end;
$$;

comment on function fleet.expand_runs(bigint[], timestamptz, integer) is
  'Make the next commands of these runs, at most p_limit devices of each. Answers how many rows were made.';
revoke all on function fleet.expand_runs(bigint[], timestamptz, integer)
  from public, anon, authenticated, service_role;

create or replace function fleet.write_commands(p_run_ids bigint[], p_now timestamptz, p_limit integer)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- Compiling the plan would take a hundred times as long as running it.
set jit = off
as $$
declare
  v_runs bigint[] := fleet.lock_runs(p_run_ids, p_now);
  v_made bigint;
  v_nobody bigint[];
  v_limited bigint[];
begin
  with run as materialized (
    select * from fleet.runs_to_expand(v_runs, p_now)
  ),
  -- One more than the limit tells whether anything is left.
  target as materialized (
    select r.id as run_id, t.device_id, t.hostname, row_number() over (partition by r.id order by t.device_id) as n,
      r.zones is null or coalesce(t.timezone, 'UTC') = any (r.zones) as is_due,
      case
        when r.is_plain then r.starts_at
        else fleet.device_start(r.policies, r.schedule_id, t.device_id, coalesce(t.timezone, 'UTC'), r.starts_at)
      end as starts_at,
      coalesce(u.n, 0) as unfinished, u.last_id, coalesce(u.last_run_id > r.id, false) as is_overtaken
    from run as r
    cross join lateral fleet.targets(
      r.owner_id, r.device_ids, r.group_ids, r.selector, coalesce(r.expanded_to, 0), p_limit + 1
    ) as t
    -- Strict: with a null it is not even called.
    left join lateral fleet.unfinished_of(
      case when r.may_overlap then r.schedule_id end, t.device_id, r.id, p_now
    ) as u on true
  ),
  replaced as (
    update public.device_commands as c
    set status = 'cancelled', reason = 'replaced'
    from target as t
    join run as r on r.id = t.run_id
    where r.overlap = 'replace'
      and t.n <= p_limit and t.is_due and t.starts_at is not null and t.unfinished > 0
      and c.schedule_id = r.schedule_id
      and c.device_id = t.device_id
      and c.status in ('pending', 'running')
      and c.run_id < r.id
  ),
  made as (
    insert into public.device_commands (
      run_id, schedule_id, owner_id, device_id, device_hostname, channel, command_type, payload, priority, not_before,
      expires_at, max_attempts, waits_for
    )
    select r.id, r.schedule_id, r.owner_id, t.device_id, t.hostname, r.channel, r.command_type, r.payload, r.priority, t.starts_at,
      r.expires_at + (t.starts_at - r.starts_at), r.max_attempts,
      case when r.overlap = 'buffer_one' then t.last_id end
    from target as t
    join run as r on r.id = t.run_id
    where t.n <= p_limit
      and t.is_due
      and t.starts_at is not null
      and not fleet.leaves_out(r.overlap, r.max_concurrent, t.unfinished, t.is_overtaken)
    on conflict (run_id, device_id, step) do nothing
    returning run_id
  ),
  progress as (
    select r.id,
      (select count(*) from made as m where m.run_id = r.id) as made,
      -- Left out: they had enough to do, or it is not their time of day.
      count(*) filter (
        where t.starts_at is not null and fleet.leaves_out(r.overlap, r.max_concurrent, t.unfinished, t.is_overtaken)
      ) as busy,
      count(*) filter (where t.run_id is not null and t.starts_at is null) as outside,
      (select max(x.device_id) from target as x where x.run_id = r.id and x.n <= p_limit) as reached,
      not exists (select 1 from target as x where x.run_id = r.id and x.n > p_limit) as is_whole
    from run as r
    left join target as t on t.run_id = r.id and t.n <= p_limit and t.is_due
      and (t.starts_at is null or t.unfinished > 0)
    group by r.id
  ),
  noted as (
    update public.schedule_runs as r
    set targeted = r.targeted + p.made,
        skipped = r.skipped + p.busy + p.outside,
        expanded_to = coalesce(p.reached, r.expanded_to, 0),
        expanded_at = case when p.is_whole then p_now end,
        status = case when p.is_whole and r.targeted + p.made = 0 then 'skipped' else 'running' end,
        reason = case
          when not p.is_whole or r.targeted + p.made > 0 then null
          when p.outside > 0 then 'outside the execution window'
          when r.skipped + p.busy > 0 then 'overlap'
          else 'no targets'
        end,
        finished_at = case when p.is_whole and r.targeted + p.made = 0 then p_now end
    from progress as p
    where r.id = p.id
    returning r.id, r.status
  ),
  whole as (
    -- All of its commands may be final already: have the tick look at it once more.
    insert into fleet.run_progress (run_id, completed, failed)
    select p.id, 0, 0 from progress as p where p.is_whole
  )
  select
    (select count(*) from made),
    (select array_agg(n.id) from noted as n where n.status = 'skipped'),
    (select array_agg(r.schedule_id) from run as r where r.policies ->> 'max_runs' is not null)
  into v_made, v_nobody, v_limited;

  if v_nobody is not null then
    perform fleet.count_idle_runs(v_nobody);
  end if;
  if v_limited is not null then
    -- Only now is it known whether the last of them has reached somebody.
    perform fleet.end_used_up(v_limited);
  end if;
  return v_made;
end;
$$;

comment on function fleet.write_commands(bigint[], timestamptz, integer) is
  'One statement: the next devices of these runs, their commands, and how far the runs have come.';
revoke all on function fleet.write_commands(bigint[], timestamptz, integer)
  from public, anon, authenticated, service_role;

create or replace function fleet.chunk_size()
returns integer
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select greatest(1, fleet.setting_number(
    case
      when exists (
        select 1 from pg_catalog.pg_publication_tables as p
        where p.pubname = 'supabase_realtime' and p.schemaname = 'public' and p.tablename = 'device_commands'
      ) then 'expand_chunk_size_published'
      else 'expand_chunk_size'
    end
  ))::integer
$$;

comment on function fleet.chunk_size() is
  'How many commands go into one transaction; fewer while the table is published, where one transaction is one poll of Realtime.';
revoke all on function fleet.chunk_size() from public, anon, authenticated, service_role;

create or replace function fleet.expand_next(p_now timestamptz)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_chunk integer := fleet.chunk_size();
  v_small integer := 20;
  v_fresh bigint[];
  v_large bigint;
  v_made bigint := 0;
begin
  -- Small schedules never wait behind a large one: all fresh runs get their first devices, then one large run a chunk.
  select array_agg(r.id) into v_fresh
  from (
    select r.id
    from public.schedule_runs as r
    join public.schedules as s on s.id = r.schedule_id
    where r.expanded_at is null and r.status = 'pending' and coalesce(r.not_before <= p_now, true)
    order by r.priority desc, r.id
    limit greatest(v_chunk / v_small, 1)
    for no key update of r, s skip locked
  ) as r;
  if v_fresh is not null then
    v_made := fleet.expand_runs(v_fresh, p_now, v_small);
  end if;

  select r.id into v_large
  from public.schedule_runs as r
  join public.schedules as s on s.id = r.schedule_id
  where r.expanded_at is null and r.status = 'running'
  order by r.priority desc, r.targeted, r.id
  limit 1
  for no key update of r, s skip locked;
  if v_large is not null then
    v_made := v_made + fleet.expand_runs(array[v_large], p_now, v_chunk);
  end if;

  return jsonb_build_object(
    'commands', v_made,
    -- Only after some progress: what another session holds must not keep this one spinning.
    'more', (v_fresh is not null or v_large is not null) and exists (
      select 1 from public.schedule_runs as r
      where r.expanded_at is null and r.status in ('pending', 'running') and coalesce(r.not_before <= p_now, true)
    )
  );
end;
$$;

comment on function fleet.expand_next(timestamptz) is
  'One transaction''s worth of expansion. {commands, more}.';
revoke all on function fleet.expand_next(timestamptz) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/history.sql
-- What schedules have done: the ledger of one for people to read, and figures about all of them.

create or replace function fleet.schedule_history(p_schedule_id bigint, p_limit integer, p_before timestamptz)
returns table (
  id bigint, scheduled_for timestamptz, local_time timestamp, trigger text, status text, reason text,
  missed_from timestamptz, missed_to timestamptz, missed_count bigint, targeted integer, completed integer, failed integer,
  skipped integer, dst_rule text, error_message text, result jsonb, started_at timestamptz, finished_at timestamptz,
  duration_seconds numeric
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_schedule public.schedules;
begin
  select s.* into v_schedule
  from public.schedules as s
  where s.id = p_schedule_id and fleet.is_visible_owner(s.owner_id);
  if not found then
    perform fleet.raise_not_found(format('schedule %s', p_schedule_id));
  end if;
  perform fleet.require_permission(v_schedule.owner_id, 'view', format('schedule %s', p_schedule_id));

  return query
  select r.id, r.scheduled_for, r.scheduled_for at time zone fleet.reference_zone(v_schedule), r.trigger, r.status, r.reason,
    r.missed_from, r.missed_to, r.missed_count, r.targeted, r.completed, r.failed, r.skipped, r.dst_rule, r.error_message,
    r.result, r.started_at, r.finished_at,
    case when r.status <> 'skipped' then round(extract(epoch from r.finished_at - r.started_at), 3) end
  from public.schedule_runs as r
  where r.schedule_id = p_schedule_id
    and (p_before is null or r.scheduled_for < p_before)
  order by r.scheduled_for desc
  limit least(greatest(coalesce(p_limit, 50), 0), 1000);
end;
$$;

comment on function fleet.schedule_history(bigint, integer, timestamptz) is 'See public.schedule_history. Definer: it tells missing from empty.';
revoke all on function fleet.schedule_history(bigint, integer, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.schedule_history(bigint, integer, timestamptz) to authenticated, service_role;

create or replace function public.schedule_history(
  p_schedule_id bigint,
  p_limit integer default 50,
  p_before timestamptz default null
)
returns table (
  id bigint, scheduled_for timestamptz, local_time timestamp, trigger text, status text, reason text,
  missed_from timestamptz, missed_to timestamptz, missed_count bigint, targeted integer, completed integer, failed integer,
  skipped integer, dst_rule text, error_message text, result jsonb, started_at timestamptz, finished_at timestamptz,
  duration_seconds numeric
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select * from fleet.schedule_history(p_schedule_id, p_limit, p_before)
$$;

comment on function public.schedule_history(bigint, integer, timestamptz) is
  'The runs of a schedule, the latest instant first, at most 1000 of them; for the next page pass the last scheduled_for as p_before. '
  'A range of missed instants is one row. Raises schedule_not_found (PT404).';
revoke all on function public.schedule_history(bigint, integer, timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.schedule_history(bigint, integer, timestamptz) to authenticated, service_role;

create or replace function public.schedule_stats(p_now timestamptz default now())
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Row security limits the figures to the caller's own; a device, retired or not, counts as nobody.
  if fleet.current_user_id() is null and not fleet.is_trusted_caller() then
    raise exception 'a device may not do this'
      using errcode = 'PT403', detail = 'not_a_person', hint = 'Sign in as a member of the fleet.';
  end if;

  return jsonb_build_object('now', p_now) || fleet.schedule_figures(p_now) || fleet.run_figures(p_now);
end;
$$;

comment on function public.schedule_stats(timestamptz) is
  'Figures about schedules and their runs: total, by_status, by_type, by_recurrence, next_due, executions (total, by_status, '
  'success_rate, last_24_hours), and for the last 30 days average_duration_seconds, busiest_hours (UTC), slowest and failing. '
  'Raises not_a_person (PT403).';
revoke all on function public.schedule_stats(timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.schedule_stats(timestamptz) to authenticated, service_role;

create or replace function fleet.schedule_figures(p_now timestamptz)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with counted as materialized (
    select s.status, s.action_type, s.recurrence_type, count(*) as n
    from public.schedules as s
    group by s.status, s.action_type, s.recurrence_type
  )
  select jsonb_build_object(
    'total', (select coalesce(sum(c.n), 0) from counted as c),
    'by_status', (
      select jsonb_object_agg(k.status, coalesce(k.n, 0))
      from (
        select u.status, (select sum(c.n) from counted as c where c.status = u.status) as n
        from unnest('{active,paused,completed,cancelled}'::text[]) as u(status)
      ) as k
    ),
    'by_type', (
      select coalesce(jsonb_object_agg(k.action_type, k.n), '{}')
      from (select c.action_type, sum(c.n) as n from counted as c group by c.action_type) as k
    ),
    'by_recurrence', (
      select coalesce(jsonb_object_agg(k.recurrence_type, k.n), '{}')
      from (select c.recurrence_type, sum(c.n) as n from counted as c group by c.recurrence_type) as k
    ),
    'next_due', (
      select coalesce(jsonb_agg(
        jsonb_build_object('id', d.id, 'name', d.name, 'next_run_at', d.next_run_at) order by d.next_run_at, d.id
      ), '[]')
      from (
        select s.id, s.name, s.next_run_at
        from public.schedules as s
        where s.status = 'active' and s.next_run_at is not null
        order by s.next_run_at, s.id
        limit 5
      ) as d
    ),
    'due_next_24_hours', (
      select count(*)
      from public.schedules as s
      where s.status = 'active' and s.next_run_at < p_now + interval '24 hours'
    )
  )
$$;

comment on function fleet.schedule_figures(timestamptz) is 'How many schedules of which kind the caller sees, and which are due next.';
revoke all on function fleet.schedule_figures(timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.schedule_figures(timestamptz) to authenticated, service_role;

create or replace function fleet.run_counts(p_since timestamptz)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with counted as materialized (
    select r.status, count(*) as runs, sum(coalesce(r.missed_count, 1)) as instants
    from public.schedule_runs as r
    where p_since is null or r.created_at > p_since
    group by r.status
  )
  select jsonb_build_object(
    'total', (select coalesce(sum(c.runs), 0) from counted as c),
    'by_status', (
      select jsonb_object_agg(u.status, coalesce(c.runs, 0))
      from unnest('{pending,running,completed,failed,skipped,cancelled}'::text[]) as u(status)
      left join counted as c on c.status = u.status
    ),
    -- A range of missed instants is one row.
    'missed', (select coalesce(sum(c.instants), 0) from counted as c where c.status = 'skipped'),
    'success_rate', (
      select round(
        100.0 * sum(c.runs) filter (where c.status = 'completed')
        / nullif(sum(c.runs) filter (where c.status in ('completed', 'failed')), 0), 1
      )
      from counted as c
    )
  )
$$;

comment on function fleet.run_counts(timestamptz) is
  'How runs ended, since an instant or ever: total, by_status, missed instants, success_rate in percent of those that ended.';
revoke all on function fleet.run_counts(timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.run_counts(timestamptz) to authenticated, service_role;

create or replace function fleet.run_figures(p_now timestamptz)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with recent as materialized (
    select r.schedule_id, r.status, r.started_at, extract(epoch from r.finished_at - r.started_at) as seconds
    from public.schedule_runs as r
    where r.created_at > p_now - interval '30 days' and r.started_at is not null
  )
  select jsonb_build_object(
    'executions', fleet.run_counts(null)
      || jsonb_build_object('last_24_hours', fleet.run_counts(p_now - interval '24 hours')),
    'average_duration_seconds', (select round(avg(x.seconds), 3) from recent as x where x.status in ('completed', 'failed')),
    'busiest_hours', (
      select coalesce(jsonb_agg(jsonb_build_object('hour', h.hour, 'runs', h.n) order by h.n desc, h.hour), '[]')
      from (
        select extract(hour from x.started_at at time zone 'UTC')::integer as hour, count(*) as n
        from recent as x
        group by 1
        order by 2 desc, 1
        limit 5
      ) as h
    ),
    'slowest', (
      select coalesce(jsonb_agg(
        jsonb_build_object('id', s.id, 'name', s.name, 'average_seconds', q.seconds) order by q.seconds desc, s.id
      ), '[]')
      from (
        select x.schedule_id, round(avg(x.seconds), 3) as seconds
        from recent as x
        where x.status in ('completed', 'failed') and x.seconds is not null
        group by x.schedule_id
        order by 2 desc
        limit 5
      ) as q
      join public.schedules as s on s.id = q.schedule_id
    ),
    'failing', (
      select coalesce(jsonb_agg(
        jsonb_build_object('id', s.id, 'name', s.name, 'failed', q.n, 'runs', q.runs) order by q.n desc, s.id
      ), '[]')
      from (
        select x.schedule_id, count(*) filter (where x.status = 'failed') as n, count(*) as runs
        from recent as x
        group by x.schedule_id
        having count(*) filter (where x.status = 'failed') > 0
        order by 2 desc
        limit 5
      ) as q
      join public.schedules as s on s.id = q.schedule_id
    )
  )
$$;

comment on function fleet.run_figures(timestamptz) is
  'How the runs that the caller sees ended, how long they took, and when; all but the totals over the last 30 days.';
revoke all on function fleet.run_figures(timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.run_figures(timestamptz) to authenticated, service_role;

-- db/sources/30_schedules/ledger.sql
-- The ledger: one way in for every run, and what its runs do to their schedule.

create or replace function fleet.book_runs(p_runs fleet.run_booking[], p_now timestamptz)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- Compiling the plan would take a hundred times as long as running it.
set jit = off
as $$
declare
  v_pending bigint[];
  v_limited bigint[];
begin
  with booking as materialized (
    select b.* from unnest(p_runs) with ordinality as b
  ),
  booked as (
    insert into public.schedule_runs (
      schedule_id, owner_id, scheduled_for, trigger, status, reason, error_message, action_type, payload, priority,
      missed_from, missed_to, missed_count, not_before, expires_at, zones, dst_rule, after_run_id, idempotency_key,
      started_at, finished_at
    )
    select s.id, s.owner_id, b.scheduled_for, b.trigger, b.status, b.reason, b.error_message, s.action_type, s.payload, s.priority,
      b.missed_from, b.missed_to, b.missed_count, b.not_before, b.expires_at, b.zones, b.dst_rule, b.after_run_id, b.idempotency_key,
      case when b.status <> 'skipped' then p_now end,
      case when b.status <> 'pending' then p_now end
    from booking as b
    join public.schedules as s on s.id = b.schedule_id
    order by b.ordinality
    -- What the ledger knows already does not run again.
    on conflict do nothing
    returning id, schedule_id, status
  ),
  told as (
    -- Whatever follows a failure is to hear of this one.
    insert into fleet.run_progress (run_id, completed, failed)
    select b.id, 0, 0 from booked as b where b.status = 'failed'
  ),
  moved as (
    update public.schedules as s
    set next_run_at = nullif(coalesce(m.next_run_at, s.next_run_at), 'infinity'),
        execution_count = s.execution_count + m.started,
        -- What an MDM carries out is executed when the provider accepts it.
        last_executed_at = case
          when m.started > 0 and not fleet.is_mdm_action(s.action_type) then p_now else s.last_executed_at
        end,
        status = case when m.next_run_at = 'infinity' then 'completed' else s.status end,
        status_reason = case when m.next_run_at = 'infinity' then 'no due instant is left' else s.status_reason end
    from (
      select b.schedule_id, max(b.next_run_at) as next_run_at, coalesce(max(n.started), 0) as started
      from booking as b
      left join (
        select x.schedule_id, count(*) as started from booked as x where x.status <> 'skipped' group by x.schedule_id
      ) as n on n.schedule_id = b.schedule_id
      where b.next_run_at is not null or b.status <> 'skipped'
      group by b.schedule_id
    ) as m
    where s.id = m.schedule_id
  )
  select
    (select array_agg(b.id order by b.id) from booked as b where b.status = 'pending'),
    -- What a change of a schedule tells of itself moves nothing: its row is in the hands of that change.
    (
      select array_agg(b.schedule_id)
      from booking as b
      where (b.status = 'failed' or b.reason = 'max_runs reached') and (b.next_run_at is not null or b.trigger <> 'schedule')
    )
  into v_pending, v_limited;

  if v_limited is not null then
    perform fleet.end_used_up(v_limited);
  end if;
  return coalesce(v_pending, '{}');
end;
$$;

comment on function fleet.book_runs(fleet.run_booking[], timestamptz) is
  'Write runs into the ledger, which nothing else does: on time, caught up, by hand, in a chain, missed or failed. Counts those that start, '
  'and moves their schedules on. Answers the runs to expand. The caller holds the rows of the schedules.';
revoke all on function fleet.book_runs(fleet.run_booking[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.runs_left(p_schedule public.schedules)
returns bigint
language sql
immutable
parallel safe
return (p_schedule.policies ->> 'max_runs')::bigint + coalesce(p_schedule.idle_count, 0) - coalesce(p_schedule.execution_count, 0);

comment on function fleet.runs_left(public.schedules) is 'How many more runs policies.max_runs allows; null where it sets no limit.';
revoke all on function fleet.runs_left(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.end_reason(p_schedule public.schedules)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when fleet.runs_left(p_schedule) <= 0
      -- A run that turns out to reach nobody does not count.
      and not exists (
        select 1
        from public.schedule_runs as r
        where r.schedule_id = p_schedule.id
          and r.status in ('pending', 'running')
          and r.expanded_at is null
          and r.targeted = 0
      )
      then 'max_runs reached'
    when p_schedule.next_run_at is null and p_schedule.after_schedule_id is null then 'no due instant is left'
  end
$$;

comment on function fleet.end_reason(public.schedules) is
  'Why an active schedule is completed as it stands; null where it goes on.';
revoke all on function fleet.end_reason(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.end_used_up(p_schedule_ids bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  update public.schedules as s
  set status = 'completed', status_reason = 'max_runs reached', next_run_at = null
  where s.id = any (p_schedule_ids)
    and s.status = 'active'
    and fleet.end_reason(s) = 'max_runs reached'
$$;

comment on function fleet.end_used_up(bigint[]) is 'Complete those of these schedules that have run as often as they may.';
revoke all on function fleet.end_used_up(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.count_idle_runs(p_run_ids bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  update public.schedules as s
  set idle_count = s.idle_count + g.n
  from (
    select r.schedule_id, count(*) as n from public.schedule_runs as r where r.id = any (p_run_ids) group by r.schedule_id
  ) as g
  where s.id = g.schedule_id
$$;

comment on function fleet.count_idle_runs(bigint[]) is
  'Note of runs that were started that they reached nobody. The caller holds the rows of the schedules.';
revoke all on function fleet.count_idle_runs(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.free_instant(p_schedule public.schedules, p_now timestamptz, p_place bigint)
returns timestamptz
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- Behind what the ledger has already, even in this microsecond; and never an instant that may be due, which are whole
  -- seconds of the clock or whole seconds from the start.
  select g.at
  from (
    select greatest(p_now, max(r.scheduled_for) + interval '1 microsecond') as at
    from public.schedule_runs as r
    where r.schedule_id = p_schedule.id
      and r.scheduled_for >= p_now
      and r.scheduled_for < p_now + interval '1 second'
  ) as f
  cross join lateral generate_series(f.at, f.at + interval '1 microsecond' * (p_place + 1), interval '1 microsecond') as g(at)
  where extract(microseconds from g.at) % 1000000 not in (0, extract(microseconds from p_schedule.start_time) % 1000000)
  order by g.at
  offset p_place - 1
  limit 1
$$;

comment on function fleet.free_instant(public.schedules, timestamptz, bigint) is
  'The n-th instant from now on that no row of the ledger has and that is never due.';
revoke all on function fleet.free_instant(public.schedules, timestamptz, bigint) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/manage.sql
-- What people do with a schedule once it is there.

create or replace function fleet.schedule_of_caller(p_schedule_id bigint, p_permission text)
returns public.schedules
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules;
begin
  select s.* into v_row
  from public.schedules as s
  where s.id = p_schedule_id and fleet.is_visible_owner(s.owner_id)
  for update;
  if not found then
    perform fleet.raise_not_found(format('schedule %s', p_schedule_id));
  end if;
  perform fleet.require_permission(v_row.owner_id, p_permission, format('schedule %s', p_schedule_id));
  return v_row;
end;
$$;

comment on function fleet.schedule_of_caller(bigint, text) is
  'The schedule, locked, if the caller may do this with it. Raises schedule_not_found (PT404) or permission_missing (PT403). Definer: '
  'it must see the row to tell.';
revoke all on function fleet.schedule_of_caller(bigint, text) from public, anon, authenticated, service_role;

create or replace function fleet.set_schedule_status(p_schedule_id bigint, p_status text, p_reason text)
returns public.schedules
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules := fleet.schedule_of_caller(p_schedule_id, 'manage');
begin
  if v_row.status = p_status then
    return v_row;
  end if;

  if v_row.status = 'cancelled' or (v_row.status = 'completed' and p_status <> 'cancelled')
    or (p_status = 'active' and v_row.status <> 'paused')
  then
    raise exception 'schedule % is %', p_schedule_id, v_row.status
      using errcode = 'PT409',
            detail = 'schedule_' || v_row.status,
            hint = 'Change its times to use it again, or create it anew.';
  end if;

  update public.schedules as s
  set status = p_status, status_reason = p_reason
  where s.id = p_schedule_id
  returning * into v_row;
  return v_row;
end;
$$;

comment on function fleet.set_schedule_status(bigint, text, text) is
  'Pause, resume or cancel; the same again changes nothing. Raises PT404, PT403 or schedule_<status> (PT409). Definer: it checks the caller.';
revoke all on function fleet.set_schedule_status(bigint, text, text)
  from public, anon, authenticated, service_role;
grant execute on function fleet.set_schedule_status(bigint, text, text) to authenticated, service_role;

create or replace function public.pause_schedule(p_schedule_id bigint, p_reason text default null)
returns public.schedules
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.set_schedule_status(p_schedule_id, 'paused', p_reason)
$$;

comment on function public.pause_schedule(bigint, text) is
  'Let a schedule rest; what is due meanwhile is told as one row of the ledger when it resumes. Raises schedule_not_found (PT404) or '
  'schedule_completed, schedule_cancelled (PT409).';
revoke all on function public.pause_schedule(bigint, text) from public, anon, authenticated, service_role;
grant execute on function public.pause_schedule(bigint, text) to authenticated, service_role;

create or replace function public.resume_schedule(p_schedule_id bigint)
returns public.schedules
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.set_schedule_status(p_schedule_id, 'active', null)
$$;

comment on function public.resume_schedule(bigint) is
  'Go on at the next due instant. Raises schedule_not_found (PT404) or schedule_completed, schedule_cancelled (PT409).';
revoke all on function public.resume_schedule(bigint) from public, anon, authenticated, service_role;
grant execute on function public.resume_schedule(bigint) to authenticated, service_role;

create or replace function public.cancel_schedule(p_schedule_id bigint, p_reason text default null)
returns public.schedules
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.set_schedule_status(p_schedule_id, 'cancelled', p_reason)
$$;

comment on function public.cancel_schedule(bigint, text) is
  'End a schedule for good; commands that no device has started are cancelled. Raises schedule_not_found (PT404).';
revoke all on function public.cancel_schedule(bigint, text) from public, anon, authenticated, service_role;
grant execute on function public.cancel_schedule(bigint, text) to authenticated, service_role;

create or replace function fleet.run_schedule(p_schedule_id bigint, p_idempotency_key text, p_now timestamptz)
returns public.schedule_runs
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Its lock makes two callers with the same key take turns: the second finds the run of the first.
  v_schedule public.schedules := fleet.schedule_of_caller(p_schedule_id, 'operate');
  v_run public.schedule_runs;
  v_booking fleet.run_booking;
begin
  perform fleet.require_destructive(v_schedule.owner_id, v_schedule.action_type);
  if v_schedule.status = 'cancelled' then
    raise exception 'schedule % is cancelled', p_schedule_id
      using errcode = 'PT409', detail = 'schedule_cancelled', hint = 'Create it anew.';
  end if;

  select r.* into v_run
  from public.schedule_runs as r
  where r.schedule_id = p_schedule_id and r.idempotency_key = p_idempotency_key;
  if found then
    return v_run;
  end if;

  v_booking.schedule_id := p_schedule_id;
  v_booking.scheduled_for := fleet.free_instant(v_schedule, p_now, 1);
  v_booking.trigger := 'manual';
  v_booking.reason := case when fleet.runs_left(v_schedule) <= 0 then 'max_runs reached' end;
  v_booking.status := case when v_booking.reason is null then 'pending' else 'skipped' end;
  v_booking.expires_at := fleet.run_expiry(fleet.effective_policies(v_schedule.policies), null, p_now);
  v_booking.idempotency_key := p_idempotency_key;
  perform fleet.expand_runs(
    fleet.book_runs(array[v_booking], p_now), p_now, fleet.setting_number('inline_expand_limit')::integer
  );

  select r.* into v_run
  from public.schedule_runs as r
  where r.schedule_id = p_schedule_id and r.scheduled_for = v_booking.scheduled_for;
  return v_run;
end;
$$;

comment on function fleet.run_schedule(bigint, text, timestamptz) is 'See public.run_schedule. Definer: it checks the caller.';
revoke all on function fleet.run_schedule(bigint, text, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.run_schedule(bigint, text, timestamptz) to authenticated, service_role;

create or replace function public.run_schedule(p_schedule_id bigint, p_idempotency_key text default null)
returns public.schedule_runs
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.run_schedule(p_schedule_id, p_idempotency_key, clock_timestamp())
$$;

comment on function public.run_schedule(bigint, text) is
  'Run a schedule now, besides its due instants. It counts for max_runs; where that is reached, the run is skipped for that reason. The '
  'same key again gives the same run. Raises schedule_not_found (PT404), '
  'permission_missing (PT403) or schedule_cancelled (PT409).';
revoke all on function public.run_schedule(bigint, text) from public, anon, authenticated, service_role;
grant execute on function public.run_schedule(bigint, text) to authenticated, service_role;

-- db/sources/30_schedules/names.sql
-- Names instead of ids, so that what was written for one fleet means the same in another.

create or replace function fleet.schedule_by_name(p_owner_id uuid, p_name text)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules;
  v_ids bigint[];
begin
  select array_agg(s.id order by s.id) into v_ids
  from public.schedules as s
  where s.owner_id = p_owner_id and lower(s.name) = lower(p_name) and s.status in ('active', 'paused');
  if cardinality(v_ids) > 1 then
    raise exception 'schedule "%" is ambiguous: ids %', p_name, array_to_string(v_ids, ', ')
      using errcode = 'PT409', detail = 'schedule_ambiguous', hint = 'Rename or cancel all of them but one.';
  end if;

  -- What is cancelled is gone; what is completed is still there, unless something of its name lives.
  select s.* into v_row
  from public.schedules as s
  where s.owner_id = p_owner_id and lower(s.name) = lower(p_name) and s.status <> 'cancelled'
  order by s.status = 'completed', s.id desc
  limit 1;
  return v_row;
end;
$$;

comment on function fleet.schedule_by_name(uuid, text) is
  'The schedule that a name means: the living one, else the latest completed one; null where there is none. Raises schedule_ambiguous '
  '(PT409).';
revoke all on function fleet.schedule_by_name(uuid, text) from public, anon, authenticated, service_role;

create or replace function fleet.name_problems(p_owner_id uuid, p_spec jsonb)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if not p_spec ?| '{devices,groups,after}' then
    return;
  end if;

  return query
  with lists as (
    select k.key, p_spec -> k.key as list
    from (values ('devices'), ('groups')) as k(key)
    where p_spec ? k.key and p_spec -> k.key <> 'null'
  ),
  named as (
    select l.key, e.item
    from lists as l
    cross join lateral jsonb_array_elements(case when jsonb_typeof(l.list) = 'array' then l.list else '[]' end) as e(item)
  )
  select l.key, 'must be a list of names', format('Example: {"%s": ["one", "two"]}', l.key)
  from lists as l
  where jsonb_typeof(l.list) <> 'array' or jsonb_path_exists(l.list, '$[*] ? (@.type() != "string")')
  union all
  select n.key, format('device %s was not found', n.item), 'List your devices with: pgfleet device list'
  from named as n
  where n.key = 'devices'
    and jsonb_typeof(n.item) = 'string'
    and not exists (
      select 1 from public.devices as d where d.owner_id = p_owner_id and lower(d.hostname) = lower(n.item #>> '{}')
    )
  union all
  select n.key, format('group %s was not found', n.item), 'List your groups with: pgfleet group list'
  from named as n
  where n.key = 'groups'
    and jsonb_typeof(n.item) = 'string'
    and not exists (
      select 1 from public.device_groups as g where g.owner_id = p_owner_id and lower(g.name) = lower(n.item #>> '{}')
    )
  union all
  select 'after.schedule', 'must be a name', 'Example: {"after": {"schedule": "Nightly backup", "on": "completed"}}'
  where jsonb_typeof(p_spec #> '{after,schedule}') not in ('string', 'null')
  union all
  select 'after.schedule', format('schedule %s was not found', p_spec #> '{after,schedule}'),
    'List your schedules with: pgfleet schedule list'
  where jsonb_typeof(p_spec #> '{after,schedule}') = 'string'
    and (fleet.schedule_by_name(p_owner_id, p_spec #>> '{after,schedule}')).id is null;
end;
$$;

comment on function fleet.name_problems(uuid, jsonb) is
  'Names in a specification that stand for nothing of this owner. What belongs to another owner is as good as not there.';
revoke all on function fleet.name_problems(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.with_ids(p_owner_id uuid, p_spec jsonb)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if not p_spec ?| '{devices,groups,after}' then
    return p_spec;
  end if;

  return (p_spec - '{devices,groups}'::text[])
    || case
      when jsonb_typeof(p_spec -> 'devices') = 'array' then jsonb_build_object('device_ids', (
        select coalesce(jsonb_agg(d.id), '[]') || coalesce(nullif(p_spec -> 'device_ids', 'null'), '[]')
        from public.devices as d
        where d.owner_id = p_owner_id
          and lower(d.hostname) in (select lower(e.item #>> '{}') from jsonb_array_elements(p_spec -> 'devices') as e(item))
      ))
      else '{}'
    end
    || case
      when jsonb_typeof(p_spec -> 'groups') = 'array' then jsonb_build_object('group_ids', (
        select coalesce(jsonb_agg(g.id), '[]') || coalesce(nullif(p_spec -> 'group_ids', 'null'), '[]')
        from public.device_groups as g
        where g.owner_id = p_owner_id
          and lower(g.name) in (select lower(e.item #>> '{}') from jsonb_array_elements(p_spec -> 'groups') as e(item))
      ))
      else '{}'
    end
    || case
      when jsonb_typeof(p_spec #> '{after,schedule}') = 'null' then jsonb_build_object('after', (p_spec -> 'after') - 'schedule')
      when p_spec #> '{after,schedule}' is not null then jsonb_build_object('after', (
        select case when f.id is null then 'null' else ((p_spec -> 'after') - 'schedule') || jsonb_build_object('schedule_id', f.id) end
        from fleet.schedule_by_name(p_owner_id, p_spec #>> '{after,schedule}') as f
      ))
      else '{}'
    end;
end;
$$;

comment on function fleet.with_ids(uuid, jsonb) is
  'A specification with devices, groups and after.schedule turned into ids; what stands for nothing is left out. Names of calendars are '
  'understood anyway.';
revoke all on function fleet.with_ids(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.resolved_spec(p_owner_id uuid, p_spec jsonb)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.raise_problems('the schedule', 'schedule_invalid', array_agg(q))
  from fleet.name_problems(p_owner_id, p_spec) as q;
  return fleet.with_ids(p_owner_id, p_spec);
end;
$$;

comment on function fleet.resolved_spec(uuid, jsonb) is
  'A specification with names turned into ids. Raises schedule_invalid (PT404) naming each that was not found.';
revoke all on function fleet.resolved_spec(uuid, jsonb) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/policies_calendars.sql
-- Who sees and changes blackout calendars and templates: members of the owner. Both are written by functions.

revoke all on table public.blackout_calendars, public.blackout_periods, public.schedule_templates
  from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.blackout_calendars, public.blackout_periods to service_role;
-- A version never changes, whoever asks.
grant select, insert, delete on table public.schedule_templates to service_role;
revoke all on sequence public.blackout_calendars_id_seq, public.blackout_periods_id_seq, public.schedule_templates_id_seq
  from public, anon, authenticated, service_role;
grant usage, select on sequence public.blackout_calendars_id_seq, public.blackout_periods_id_seq,
  public.schedule_templates_id_seq
  to service_role;

drop policy if exists blackout_calendars_all_service_role on public.blackout_calendars;
create policy blackout_calendars_all_service_role on public.blackout_calendars
  for all to service_role using (true) with check (true);
drop policy if exists blackout_periods_all_service_role on public.blackout_periods;
create policy blackout_periods_all_service_role on public.blackout_periods
  for all to service_role using (true) with check (true);
drop policy if exists schedule_templates_all_service_role on public.schedule_templates;
create policy schedule_templates_all_service_role on public.schedule_templates
  for all to service_role using (true) with check (true);

grant select on table public.blackout_calendars, public.blackout_periods, public.schedule_templates to authenticated;
grant update (name, description) on table public.blackout_calendars to authenticated;

drop policy if exists blackout_calendars_select_member on public.blackout_calendars;
create policy blackout_calendars_select_member on public.blackout_calendars
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists blackout_calendars_update_manager on public.blackout_calendars;
create policy blackout_calendars_update_manager on public.blackout_calendars
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));

drop policy if exists blackout_periods_select_member on public.blackout_periods;
create policy blackout_periods_select_member on public.blackout_periods
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

drop policy if exists schedule_templates_select_member on public.schedule_templates;
create policy schedule_templates_select_member on public.schedule_templates
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

-- db/sources/30_schedules/policies_of_schedules.sql
-- Policies of a schedule: every default in one place, and what may be said instead.

create or replace function fleet.default_policies()
returns jsonb
language sql
immutable
parallel safe
return jsonb_build_object(
  -- What happens to a device that has not finished the run before: it is skipped, gets the new one when it has finished
  -- (one at most is kept waiting), gets it at once, or has the old one cancelled.
  'overlap', 'skip',
  'max_concurrent', 3,
  -- What happens to instants that passed while nothing ticked: none, the latest, or all of them.
  'catchup', 'latest',
  'catchup_window', '1 hour',
  'catchup_limit', 10,
  -- Runs a minute while catching up; null for all at once.
  'catchup_rate', null,
  -- Null: until the next due instant, at most 24 hours.
  'expires_after', null,
  'gap', 'first_instant',
  'fold', 'first',
  -- Null backoff: the setting retry_backoff_seconds. Only failures of these classes are tried again.
  'retry', jsonb_build_object(
    'attempts', 3, 'backoff', null, 'max_backoff', '1 hour',
    'on', jsonb_build_array('error', 'timeout', 'network', 'rate_limited', 'unavailable', 'lease_expired')
  ),
  -- Each device has a slot of its own within this time, the same at every run.
  'jitter', null,
  'execution_window', null,
  'blackouts', '[]'::jsonb,
  'max_runs', null,
  'pause_on_failure', null
);

comment on function fleet.default_policies() is 'The policies of a schedule that says nothing.';
revoke all on function fleet.default_policies() from public, anon, authenticated, service_role;
grant execute on function fleet.default_policies() to authenticated, service_role;

create or replace function fleet.effective_policies(p_policies jsonb)
returns jsonb
language sql
immutable
parallel safe
return (
  fleet.default_policies()
  || p_policies
  || jsonb_build_object(
    'retry', (fleet.default_policies() -> 'retry') || coalesce(p_policies -> 'retry', '{}'::jsonb)
  )
);

comment on function fleet.effective_policies(jsonb) is 'What a schedule says, completed by the defaults.';
revoke all on function fleet.effective_policies(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.effective_policies(jsonb) to authenticated, service_role;

create or replace function fleet.choice_problem(p_field text, p_value jsonb, p_choices text[])
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select p_field, format('%s is not one of %s', p_value, array_to_string(p_choices, ', ')),
    format('Use one of: %s.', array_to_string(p_choices, ', '))
  where p_value is not null
    and (jsonb_typeof(p_value) <> 'string' or (p_value #>> '{}') <> all (p_choices))
$$;

comment on function fleet.choice_problem(text, jsonb, text[]) is 'One row where a value is not among the choices.';
revoke all on function fleet.choice_problem(text, jsonb, text[]) from public, anon, authenticated, service_role;

create or replace function fleet.whole_number_problem(p_field text, p_value jsonb, p_least bigint, p_most bigint)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select p_field, format('%s is not a whole number from %s to %s', p_value, p_least, p_most),
    format('Write a number without quotes, from %s to %s.', p_least, p_most)
  where p_value is not null
    and case
      when jsonb_typeof(p_value) <> 'number' then true
      else (p_value #>> '{}')::numeric <> trunc((p_value #>> '{}')::numeric)
        or (p_value #>> '{}')::numeric not between p_least and p_most
    end
$$;

comment on function fleet.whole_number_problem(text, jsonb, bigint, bigint) is
  'One row where a value is not a whole number within its bounds.';
revoke all on function fleet.whole_number_problem(text, jsonb, bigint, bigint)
  from public, anon, authenticated, service_role;

create or replace function fleet.duration_problem(p_field text, p_value jsonb)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select p_field, format('%s is not a duration', p_value), 'Examples: "15 minutes", "2 hours", "1 day".'
  where p_value is not null
    and jsonb_typeof(p_value) <> 'null'
    and (
      jsonb_typeof(p_value) <> 'string'
      or fleet.try_interval(p_value #>> '{}') is null
      -- What is longer leads out of the calendar, sooner or later.
      or fleet.try_interval(p_value #>> '{}') not between interval '1 microsecond' and interval '10 years'
    )
$$;

comment on function fleet.duration_problem(text, jsonb) is
  'One row where a value is not a positive duration, of ten years at most.';
revoke all on function fleet.duration_problem(text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.retry_problems(p_retry jsonb)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select 'policies.retry.' || k, 'is not part of retry', 'Example: {"retry": {"attempts": 5}}'
  from jsonb_object_keys(p_retry) as k
  where not (fleet.default_policies() -> 'retry') ? k
  union all
  select * from fleet.whole_number_problem('policies.retry.attempts', p_retry -> 'attempts', 1, 1000)
  union all
  select * from fleet.duration_problem('policies.retry.backoff', p_retry -> 'backoff')
  union all
  select * from fleet.duration_problem('policies.retry.max_backoff', p_retry -> 'max_backoff')
  union all
  select 'policies.retry.on', 'must be a list of classes of failure', 'Example: {"retry": {"on": ["timeout", "network"]}}'
  where p_retry ? 'on' and jsonb_typeof(p_retry -> 'on') <> 'array'
  union all
  -- What was interrupted may have happened: nothing that is not safe to repeat is ever repeated.
  select 'policies.retry.on', format('%s is not a class of failure that can be tried again', e.item),
    'Use some of: error, timeout, network, rate_limited, unavailable, lease_expired, unsupported, forbidden, invalid_payload.'
  from jsonb_array_elements(case jsonb_typeof(p_retry -> 'on') when 'array' then p_retry -> 'on' else '[]' end) as e(item)
  where jsonb_typeof(e.item) <> 'string'
    or (e.item #>> '{}') <> all (
      '{error,timeout,network,rate_limited,unavailable,lease_expired,unsupported,forbidden,invalid_payload}'::text[]
    )
$$;

comment on function fleet.retry_problems(jsonb) is 'Everything that is wrong with the policy about retries.';
revoke all on function fleet.retry_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.policy_problems(p_policies jsonb)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select 'policies.' || e.key, 'is not a policy',
    'The policies are ' || (select string_agg(d.key, ', ' order by d.key) from jsonb_each(fleet.default_policies()) as d) || '.'
  from jsonb_each(p_policies) as e
  where not fleet.default_policies() ? e.key
  union all
  select * from fleet.choice_problem('policies.overlap', p_policies -> 'overlap', '{skip,buffer_one,allow,replace}')
  union all
  select * from fleet.choice_problem('policies.catchup', p_policies -> 'catchup', '{none,latest,all}')
  union all
  select * from fleet.choice_problem('policies.gap', p_policies -> 'gap', '{first_instant,shift,skip}')
  union all
  select * from fleet.choice_problem('policies.fold', p_policies -> 'fold', '{first,second,both}')
  union all
  select * from fleet.whole_number_problem('policies.max_concurrent', p_policies -> 'max_concurrent', 1, 1000)
  union all
  select * from fleet.whole_number_problem('policies.catchup_limit', p_policies -> 'catchup_limit', 1, 1000)
  union all
  select q.*
  from unnest('{catchup_rate,max_runs,pause_on_failure}'::text[]) as k(key)
  cross join lateral fleet.whole_number_problem(
    'policies.' || k.key, nullif(p_policies -> k.key, 'null'), 1, case k.key when 'max_runs' then 1000000000 else 1000 end
  ) as q
  union all
  select * from fleet.duration_problem(
    'policies.catchup_window', case p_policies -> 'catchup_window' when 'null' then '""'::jsonb else p_policies -> 'catchup_window' end
  )
  union all
  select q.*
  from unnest('{expires_after,jitter}'::text[]) as k(key)
  cross join lateral fleet.duration_problem('policies.' || k.key, p_policies -> k.key) as q
  union all
  select * from fleet.window_problems(p_policies -> 'execution_window')
  union all
  select 'policies.retry', 'must be an object', 'Example: {"retry": {"attempts": 5}}'
  where p_policies ? 'retry' and jsonb_typeof(p_policies -> 'retry') <> 'object'
  union all
  select q.*
  from fleet.retry_problems(
    case when jsonb_typeof(p_policies -> 'retry') = 'object' then p_policies -> 'retry' else '{}' end
  ) as q
$$;

comment on function fleet.policy_problems(jsonb) is 'Everything that is wrong with the policies of a schedule.';
revoke all on function fleet.policy_problems(jsonb) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/rrule.sql
-- A calendar's recurrence rule (RFC 5545) in the JSON of a schedule: key "rrule".

create or replace function fleet.recurrence_of_rrule(p_spec jsonb)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  -- In device time the hands of the clock are read as UTC, as everywhere.
  v_zone text := coalesce(nullif(p_spec ->> 'timezone', 'device'), 'UTC');
  v_start timestamptz;
  v_problem text;
  v_hint text;
begin
  if not fleet.is_time_zone(v_zone) then
    v_zone := 'UTC';
  end if;
  v_start := fleet.try_instant(p_spec ->> 'start_time', v_zone);
  if v_start is null then
    return jsonb_build_object(
      'problem', 'needs start_time, from which a rule counts and takes its time of day',
      'hint', 'Example: {"rrule": "FREQ=WEEKLY;BYDAY=MO,WE", "start_time": "2030-03-04T06:30:00"}'
    );
  end if;
  return fleet.recurrence_from_rrule(p_spec ->> 'rrule', v_start, v_zone);
exception
  when sqlstate 'PT422' then
    get stacked diagnostics v_problem = message_text, v_hint = pg_exception_hint;
    return jsonb_build_object('problem', regexp_replace(v_problem, '^RRULE: ', ''), 'hint', v_hint);
end;
$$;

comment on function fleet.recurrence_of_rrule(jsonb) is
  'What key rrule of a schedule comes to in our own keys, or {"problem", "hint"} where it cannot be said in them.';
revoke all on function fleet.recurrence_of_rrule(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.rrule_problems(p_spec jsonb)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with given as (
    select p_spec ->> 'rrule' as rule
    where jsonb_typeof(p_spec -> 'rrule') = 'string'
  )
  select 'rrule', format('and %s exclude each other', k.key), 'Say in one of the two ways how the schedule recurs.'
  from given
  cross join (values ('recurrence_type'), ('recurrence_config')) as k(key)
  where coalesce(p_spec -> k.key, 'null') <> 'null'
  union all
  select 'rrule', 'ends by itself: COUNT or UNTIL and end_time exclude each other', 'Leave end_time out, or COUNT and UNTIL.'
  from given as g
  where g.rule ~* '(COUNT|UNTIL)=' and coalesce(p_spec -> 'end_time', 'null') <> 'null'
  union all
  select 'rrule', r.recurrence ->> 'problem', r.recurrence ->> 'hint'
  from given
  cross join fleet.recurrence_of_rrule(p_spec) as r(recurrence)
  -- A change may leave the start as it was; who reads the whole then tells.
  where p_spec ? 'start_time' and r.recurrence ? 'problem'
$$;

comment on function fleet.rrule_problems(jsonb) is 'What is wrong with key rrule of a schedule in JSON.';
revoke all on function fleet.rrule_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.spec_without_rrule(p_spec jsonb)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_recurrence jsonb;
begin
  if coalesce(jsonb_typeof(p_spec -> 'rrule'), 'null') <> 'string' then
    return p_spec - 'rrule';
  end if;

  v_recurrence := fleet.recurrence_of_rrule(p_spec);
  if v_recurrence ? 'problem' then
    perform fleet.raise_problems(
      'the schedule', 'schedule_invalid', array[('rrule', v_recurrence ->> 'problem', v_recurrence ->> 'hint')::fleet.problem]
    );
  end if;
  return (p_spec - 'rrule')
    || (v_recurrence - '{timezone,start_time,policies}'::text[])
    || jsonb_build_object('policies', (v_recurrence -> 'policies') || fleet.object_or_empty(p_spec -> 'policies'));
end;
$$;

comment on function fleet.spec_without_rrule(jsonb) is
  'The specification with its rrule in our own keys: recurrence_type, recurrence_config, end_time, and the policies that the standard '
  'implies where it says nothing of its own. Raises schedule_invalid (PT422) naming rrule.';
revoke all on function fleet.spec_without_rrule(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.object_or_empty(p_value jsonb)
returns jsonb
language sql
immutable
parallel safe
return (case jsonb_typeof(p_value) when 'object' then p_value else '{}'::jsonb end);

comment on function fleet.object_or_empty(jsonb) is 'The value where it is an object, else {}.';
revoke all on function fleet.object_or_empty(jsonb) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/runs_to_expand.sql
-- Which runs are expanded now, and what it takes.

create or replace function fleet.runs_to_expand(p_run_ids bigint[], p_now timestamptz)
returns table (
  id bigint, owner_id uuid, schedule_id bigint, starts_at timestamptz, expires_at timestamptz, expanded_to bigint, priority smallint,
  payload jsonb, command_type text, channel text, device_ids bigint[], group_ids bigint[], selector jsonb, zones text[],
  policies jsonb, overlap text, max_concurrent bigint, max_attempts integer, is_plain boolean, may_overlap boolean
)
language sql
volatile
rows 20
set search_path = pg_catalog, pg_temp
as $$
  select r.id, r.owner_id, r.schedule_id,
    -- The slots of the jitter count from the due instant, not from the tick that came by or the chunk that a device is in.
    greatest(r.not_before, case
      when not s.policies ? 'jitter' then p_now
      when r.trigger = 'schedule' then r.scheduled_for
      else r.started_at
    end),
    r.expires_at, r.expanded_to, r.priority,
    r.payload, t.name, t.channel, s.device_ids, s.group_ids, s.selector, r.zones,
    p.policies, p.policies ->> 'overlap', (p.policies ->> 'max_concurrent')::bigint,
    (p.policies #>> '{retry,attempts}')::integer,
    not s.policies ?| '{jitter,execution_window}',
    -- Devices need a look at what they still have to do only while another run of the schedule goes on.
    exists (
      select 1 from public.schedule_runs as o
      where o.schedule_id = r.schedule_id and o.id <> r.id and o.status in ('pending', 'running')
    )
  from public.schedule_runs as r
  join public.schedules as s on s.id = r.schedule_id and s.owner_id = r.owner_id
  join public.command_types as t on t.name = r.action_type
  cross join lateral (select fleet.effective_policies(s.policies) as policies) as p
  where r.id = any (p_run_ids)
$$;

comment on function fleet.runs_to_expand(bigint[], timestamptz) is 'What it takes to expand these runs.';
revoke all on function fleet.runs_to_expand(bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.lock_runs(p_run_ids bigint[], p_now timestamptz)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_runs bigint[];
  v_gone text;
begin
  -- Two sessions never expand the same run; what is held elsewhere is expanded there. And one run of a schedule at a time,
  -- here and in other sessions: within one statement, or unseen by each other, two of them could not tell that a device is
  -- busy with the other. In a statement of its own, so that the next one sees all that was done under the lock before.
  select array_agg(l.id), min(l.gone) into v_runs, v_gone
  from (
    select r.id, case when t.name is null then r.action_type end as gone
    from public.schedule_runs as r
    join public.schedules as s on s.id = r.schedule_id
    left join public.command_types as t on t.name = r.action_type
    where r.id in (
      select min(x.id)
      from public.schedule_runs as x
      where x.id = any (p_run_ids)
        and x.expanded_at is null
        and x.status in ('pending', 'running')
        -- What waits is judged when it starts: who is busy then, and who is there.
        and coalesce(x.not_before <= p_now, true)
      group by x.schedule_id
    )
      and r.expanded_at is null
      and r.status in ('pending', 'running')
    for no key update of r, s skip locked
  ) as l;

  if v_gone is not null then
    raise exception 'command type "%" is gone', v_gone
      using errcode = 'PT409', detail = 'command_type_gone', hint = 'Make it again, or change the action_type of the schedule.';
  end if;
  return v_runs;
end;
$$;

comment on function fleet.lock_runs(bigint[], timestamptz) is
  'Those of these runs that this session expands now. Raises command_type_gone (PT409).';
revoke all on function fleet.lock_runs(bigint[], timestamptz) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/spec.sql
-- create_schedule: from the JSON of a person, a script or an older system to a row.

create or replace function fleet.schedule_columns()
returns table (name text, kind text, default_value jsonb, is_clearable boolean)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  values
    ('name', 'string', null::jsonb, false),
    ('description', 'string', '""', false),
    ('action_type', 'string', null, false),
    ('payload', 'object', '{}', false),
    ('recurrence_type', 'string', '"once"', false),
    ('recurrence_config', 'object', '{}', false),
    ('start_time', 'time', null, false),
    ('end_time', 'time', null, true),
    ('timezone', 'string', '"UTC"', false),
    ('device_ids', 'ids', '[]', false),
    ('group_ids', 'ids', '[]', false),
    ('selector', 'object', null, true),
    ('profile_id', 'string', null, true),
    ('device_id', 'id', null, true),
    ('policies', 'object', '{}', false),
    ('priority', 'priority', '0', false),
    ('ui_initiated', 'boolean', 'false', false),
    ('after_schedule_id', 'id', null, true),
    ('after_on', 'string', null, true)
$$;

comment on function fleet.schedule_columns() is
  'The columns of a schedule that people write: the one list of them. kind is how JSON has it; null empties what is clearable and says '
  'nothing elsewhere. Whatever reads, stores, checks, exports or grants goes by it.';
revoke all on function fleet.schedule_columns() from public, anon, authenticated, service_role;

create or replace function fleet.schedule_aliases()
returns table (alias text, name text)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  values
    ('task_name', 'name'),
    ('task_type', 'action_type'),
    ('scheduled_time', 'start_time'),
    ('command_payload', 'payload'),
    ('software_payload', 'payload'),
    ('file_payload', 'payload')
$$;

comment on function fleet.schedule_aliases() is 'Keys that mean one of ours, as request bodies of task schedulers have them.';
revoke all on function fleet.schedule_aliases() from public, anon, authenticated, service_role;

create or replace function fleet.normal_schedule_spec(p_spec jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  with named as (
    -- Clients that send every key of their model send null for what is not meant: of several names for one thing, the
    -- one that says something counts.
    select coalesce(jsonb_object_agg(k.name, k.value), '{}') as spec
    from (
      select distinct on (coalesce(a.name, e.key)) coalesce(a.name, e.key) as name, e.value
      from jsonb_each(p_spec) as e
      left join fleet.schedule_aliases() as a on a.alias = e.key
      order by coalesce(a.name, e.key), e.value = 'null', a.alias is not null, e.key
    ) as k
  )
  select n.spec
    || case n.spec ->> 'action_type'
      when 'command' then '{"action_type": "run_command"}'
      when 'software_deployment' then '{"action_type": "deploy_software"}'
      when 'file_deployment' then '{"action_type": "deploy_files"}'
      else '{}'
    end::jsonb
    || case n.spec ->> 'recurrence_type'
      when 'custom' then '{"recurrence_type": "cron"}'
      else '{}'
    end::jsonb
  from named as n
$$;

comment on function fleet.normal_schedule_spec(jsonb) is 'The same schedule in our own keys and words.';
revoke all on function fleet.normal_schedule_spec(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.blank_schedule(p_owner_id uuid)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules;
begin
  v_row := jsonb_populate_record(v_row, (
    select jsonb_object_agg(c.name, c.default_value) from fleet.schedule_columns() as c where c.default_value is not null
  ));
  v_row.owner_id := p_owner_id;
  v_row.status := 'active';
  v_row.execution_count := 0;
  v_row.idle_count := 0;
  return v_row;
end;
$$;

comment on function fleet.blank_schedule(uuid) is 'The row of a schedule of which nothing is said yet: every default, and no id.';
revoke all on function fleet.blank_schedule(uuid) from public, anon, authenticated, service_role;

create or replace function fleet.schedule_from_spec(p_old public.schedules, p_spec jsonb)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_spec jsonb := fleet.spec_in_columns(p_old, p_spec);
  -- Local times are read in the schedule's zone; where that is unknown the error about it comes first anyway.
  v_zone text := coalesce(v_spec ->> 'timezone', p_old.timezone);
  v_row public.schedules;
begin
  if not fleet.is_time_zone(v_zone) then
    v_zone := 'UTC';
  end if;
  v_row := jsonb_populate_record(p_old, (
    select coalesce(
      jsonb_object_agg(c.name, case c.kind
        when 'time' then to_jsonb(fleet.try_instant(e.value #>> '{}', v_zone))
        when 'ids' then to_jsonb(fleet.bigint_array(e.value))
        when 'id' then to_jsonb((e.value #>> '{}')::numeric::bigint)
        when 'priority' then to_jsonb((e.value #>> '{}')::numeric::bigint)
        else e.value
      end),
      '{}'
    )
    from jsonb_each(v_spec) as e
    join fleet.schedule_columns() as c on c.name = e.key
    where e.value <> 'null' or c.is_clearable
  ));
  v_row.start_time := coalesce(v_row.start_time, clock_timestamp());
  return v_row;
end;
$$;

comment on function fleet.schedule_from_spec(public.schedules, jsonb) is
  'The row with what a specification of the right types says; what follows from it is not filled in yet. Raises schedule_invalid (PT422) '
  'naming rrule.';
revoke all on function fleet.schedule_from_spec(public.schedules, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.spec_in_columns(p_old public.schedules, p_spec jsonb)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_spec jsonb := p_spec;
begin
  if coalesce(v_spec -> 'rrule', 'null') <> 'null' then
    -- A rule is counted from the start, in the zone, and gives way to policies that are said.
    v_spec := fleet.spec_without_rrule(
      jsonb_build_object(
        'start_time', fleet.instant_text(p_old.start_time), 'timezone', p_old.timezone, 'policies', p_old.policies
      )
      || fleet.without_nulls(v_spec)
    );
  elsif v_spec ->> 'recurrence_type' <> p_old.recurrence_type and coalesce(v_spec -> 'recurrence_config', 'null') = 'null' then
    -- Settings of another kind of recurrence would only be in the way.
    v_spec := v_spec || '{"recurrence_config": {}}';
  end if;
  if v_spec ? 'after' then
    v_spec := v_spec || jsonb_build_object(
      'after_schedule_id', coalesce(v_spec #> '{after,schedule_id}', v_spec -> 'after_schedule_id'),
      'after_on', coalesce(v_spec #> '{after,on}', v_spec -> 'after_on')
    );
  end if;
  return v_spec;
end;
$$;

comment on function fleet.spec_in_columns(public.schedules, jsonb) is
  'The specification with rrule and after turned into the columns that they stand for.';
revoke all on function fleet.spec_in_columns(public.schedules, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.bigint_array(p_list jsonb)
returns bigint[]
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(distinct (e #>> '{}')::numeric::bigint), '{}')
  from jsonb_array_elements(case when jsonb_typeof(p_list) = 'array' then p_list else '[]' end) as e
$$;

comment on function fleet.bigint_array(jsonb) is 'A JSON list of whole numbers as an array, each once.';
revoke all on function fleet.bigint_array(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.require_object(p_value jsonb, p_what text, p_hint text)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if jsonb_typeof(p_value) is distinct from 'object' then
    raise exception '% must be a JSON object', p_what using errcode = 'PT422', detail = 'schedule_invalid', hint = p_hint;
  end if;
end;
$$;

comment on function fleet.require_object(jsonb, text, text) is 'Raise schedule_invalid (PT422) where a value is no JSON object.';
revoke all on function fleet.require_object(jsonb, text, text) from public, anon, authenticated, service_role;

create or replace function fleet.create_schedule(p_spec jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid;
  v_id bigint;
begin
  perform fleet.require_object(p_spec, 'a schedule', 'See the README, "Schedules by example".');
  v_owner := fleet.owner_or_own(fleet.try_uuid(p_spec ->> 'owner_id'));
  perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
  v_id := fleet.store_schedule(fleet.changed_schedule(fleet.blank_schedule(v_owner), p_spec));
  -- Read again, in a statement of its own: what is due at once has run by now.
  return fleet.schedule_answer(v_id);
end;
$$;

comment on function fleet.create_schedule(jsonb) is
  'See public.create_schedule. Definer: it checks the caller first, then sees what the checks need to see.';
revoke all on function fleet.create_schedule(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.create_schedule(jsonb) to authenticated, service_role;

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
  return to_jsonb(v_warnings);
end;
$$;

comment on function fleet.schedule_warnings(public.schedules) is
  'What is allowed but probably not meant: a start in the past, nobody to reach, nothing due.';
revoke all on function fleet.schedule_warnings(public.schedules) from public, anon, authenticated, service_role;

create or replace function public.create_schedule(p_spec jsonb)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.create_schedule(p_spec)
$$;

comment on function public.create_schedule(jsonb) is
  'Create a schedule from JSON: name, action_type, payload, recurrence_type, recurrence_config, start_time, end_time, timezone, '
  'device_ids, group_ids, selector, policies, priority, after, rrule; devices, groups and after.schedule by name (task_name, task_type, scheduled_time, …_payload are understood too). A time '
  'without an offset is local to the zone. Answers the row with "warnings". Raises schedule_invalid (PT422, or PT404) naming every '
  'wrong field.';
revoke all on function public.create_schedule(jsonb) from public, anon, authenticated, service_role;
grant execute on function public.create_schedule(jsonb) to authenticated, service_role;

-- db/sources/30_schedules/spec_problems.sql
-- What is wrong with the JSON of a schedule before it can be read: unknown keys, values of another type.

create or replace function fleet.is_id_list(p_list jsonb)
returns boolean
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case jsonb_typeof(p_list)
    when 'array' then not exists (
      select 1
      from jsonb_array_elements(p_list) as e
      cross join lateral fleet.whole_number_problem('', e, 1, 9007199254740991)
    )
    else false
  end
$$;

comment on function fleet.is_id_list(jsonb) is 'Whether this is a JSON list of ids.';
revoke all on function fleet.is_id_list(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.after_problems(p_after jsonb)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select 'after.' || k.key, 'is not a key of after', 'The keys are schedule (a name), schedule_id and on.'
  from jsonb_object_keys(fleet.object_or_empty(p_after)) as k(key)
  where k.key not in ('schedule', 'schedule_id', 'on')
  union all
  select 'after.schedule_id', 'is missing', 'Example: {"after": {"schedule_id": 7, "on": "completed"}}'
  where jsonb_typeof(p_after) = 'object' and not p_after ?| '{schedule,schedule_id}'
  union all
  select q.field, q.problem, q.hint
  from fleet.whole_number_problem(
    'after.schedule_id', case jsonb_typeof(p_after) when 'object' then p_after -> 'schedule_id' end, 1, 9007199254740991
  ) as q
  union all
  select q.field, q.problem, q.hint
  from fleet.choice_problem(
    'after.on', case jsonb_typeof(p_after) when 'object' then p_after -> 'on' end, '{completed,failed,either}'
  ) as q
$$;

comment on function fleet.after_problems(jsonb) is 'What is wrong with the key "after" of a schedule in JSON.';
revoke all on function fleet.after_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.spec_type_problems(p_spec jsonb)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with expected as materialized (
    select c.name as key, c.kind from fleet.schedule_columns() as c
    union all
    values ('owner_id', 'uuid'), ('devices', 'names'), ('groups', 'names'), ('after', 'object'), ('rrule', 'string')
  ),
  given as materialized (
    select e.key, e.value, x.kind from jsonb_each(p_spec) as e left join expected as x on x.key = e.key
  )
  select g.key, 'is not a key of a schedule', 'The keys are ' || (select string_agg(x.key, ', ') from expected as x) || '.'
  from given as g
  where g.kind is null
  union all
  select g.key, format('must be %s, not %s', case g.kind when 'object' then 'an object' else 'a ' || g.kind end, g.value),
    'Check the type of the value.'
  from given as g
  where g.kind in ('string', 'object', 'boolean') and jsonb_typeof(g.value) not in (g.kind, 'null')
  union all
  select g.key, format('%s is not a time', g.value), 'Write it like "2026-03-01T06:30:00" (local) or "2026-03-01T05:30:00Z".'
  from given as g
  where g.kind = 'time' and g.value <> 'null' and fleet.try_instant(g.value #>> '{}', 'UTC') is null
  union all
  select g.key, format('%s is not a uuid', g.value), 'Copy the id of the owner.'
  from given as g
  where g.kind = 'uuid' and g.value <> 'null' and fleet.try_uuid(g.value #>> '{}') is null
  union all
  select g.key, format('%s is not a list of ids', g.value), 'Write whole numbers without quotes, like [1, 2].'
  from given as g
  where g.kind = 'ids' and g.value <> 'null' and not fleet.is_id_list(g.value)
  union all
  select n.field, n.problem, n.hint
  from given as g
  cross join lateral fleet.whole_number_problem(
    g.key, g.value,
    case g.kind when 'id' then 1 else -100 end,
    case g.kind when 'id' then 9007199254740991 else 100 end
  ) as n
  where g.kind in ('id', 'priority') and g.value <> 'null';

  if p_spec ? 'after' then
    return query select q.field, q.problem, q.hint from fleet.after_problems(p_spec -> 'after') as q;
  end if;
  if p_spec ? 'rrule' then
    return query select q.field, q.problem, q.hint from fleet.rrule_problems(p_spec) as q;
  end if;
end;
$$;

comment on function fleet.spec_type_problems(jsonb) is
  'Keys of a schedule in JSON that are unknown or hold something of another type. Names are looked at by fleet.name_problems.';
revoke all on function fleet.spec_type_problems(jsonb) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/start.sql
-- From due schedules to runs in the ledger.

create or replace function fleet.start_due_runs(
  p_now timestamptz,
  p_schedule_ids bigint[] default null,
  p_limit integer default 2000
)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_due bigint[];
  v_id bigint;
  v_runs bigint[];
  v_one bigint[];
begin
  -- The lock keeps a second tick, or a trigger, from deciding about the same schedules; what it holds is skipped there.
  select array_agg(d.id) into v_due
  from (
    select s.id
    from public.schedules as s
    where s.status = 'active'
      and s.next_run_at <= p_now
      and (p_schedule_ids is null or s.id = any (p_schedule_ids))
    order by s.next_run_at
    limit p_limit
    for update skip locked
  ) as d;
  if v_due is null then
    return '{}';
  end if;

  begin
    return fleet.write_runs(v_due, p_now);
  exception
    when query_canceled or admin_shutdown or deadlock_detected then
      raise;
    when others then
      -- One of them is bad. Each by itself, so that the others do not pay for it; the error goes to its run.
      v_runs := '{}';
  end;

  foreach v_id in array v_due loop
    begin
      v_one := fleet.write_runs(array[v_id], p_now);
      v_runs := v_runs || v_one;
    exception
      when query_canceled or admin_shutdown or deadlock_detected then
        raise;
      when others then
        perform fleet.write_failed_run(v_id, p_now, sqlerrm);
    end;
  end loop;
  return v_runs;
end;
$$;

comment on function fleet.start_due_runs(timestamptz, bigint[], integer) is
  'Write the runs of the schedules that are due, at most p_limit schedules, and move them on. Answers the runs to expand. Any number '
  'of sessions may call it at once.';
revoke all on function fleet.start_due_runs(timestamptz, bigint[], integer)
  from public, anon, authenticated, service_role;

create or replace function fleet.write_runs(p_schedule_ids bigint[], p_now timestamptz)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  v_runs fleet.run_booking[];
begin
  perform fleet.refresh_union(p_schedule_ids);
  select array_agg(d order by s.id, d.scheduled_for) into v_runs
  from public.schedules as s
  cross join lateral fleet.decide_due(s, p_now) as d
  where s.id = any (p_schedule_ids);
  return fleet.book_runs(v_runs, p_now);
end;
$$;

comment on function fleet.write_runs(bigint[], timestamptz) is
  'Write into the ledger what decide_due says about these schedules, and move them on. The caller holds their rows.';
revoke all on function fleet.write_runs(bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.refresh_union(p_schedule_ids bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  -- Devices may have gone to other zones since; groups and selectors tell only now.
  update public.schedules as s
  set recurrence = fleet.compiled(s)
  where s.id = any (p_schedule_ids)
    and s.timezone = 'device'
    and s.recurrence -> 'zones' is distinct from to_jsonb(fleet.target_zones(s))
$$;

comment on function fleet.refresh_union(bigint[]) is
  'Recompile those of these schedules that go by device time and whose devices are in other zones than before.';
revoke all on function fleet.refresh_union(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.write_failed_run(p_schedule_id bigint, p_now timestamptz, p_error text)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_to timestamptz := p_now + interval '1 microsecond';
  v_schedule public.schedules;
  v_run fleet.run_booking;
begin
  select s.* into v_schedule from public.schedules as s where s.id = p_schedule_id;
  v_run.schedule_id := p_schedule_id;
  v_run.scheduled_for := v_schedule.next_run_at;
  v_run.trigger := 'schedule';
  v_run.status := 'failed';
  v_run.reason := 'error';
  v_run.error_message := p_error;
  begin
    v_run.next_run_at := coalesce(fleet.next_due(v_schedule.recurrence, p_now), 'infinity');
    v_run.missed_count := fleet.count_due(v_schedule.recurrence, v_schedule.next_run_at, v_to);
    if v_run.missed_count > 1 then
      v_run.missed_from := v_schedule.next_run_at;
      v_run.missed_to := fleet.last_occurrence(v_schedule.recurrence, v_schedule.next_run_at, v_to);
    else
      v_run.missed_count := null;
    end if;
  exception
    when query_canceled or admin_shutdown then
      raise;
    when others then
      -- Not even the next instant can be told: going on would repeat the error every second.
      v_run.next_run_at := null;
      v_run.missed_count := null;
      v_run.missed_from := null;
  end;

  perform fleet.book_runs(array[v_run], p_now);
  if v_run.next_run_at is null then
    update public.schedules as s
    set next_run_at = null, status = 'paused', status_reason = 'its recurrence cannot be computed: ' || p_error
    where s.id = p_schedule_id;
  end if;
end;
$$;

comment on function fleet.write_failed_run(bigint, timestamptz, text) is
  'Note the error of a schedule as a failed run and let it go on at its next instant; pause it where there is no telling.';
revoke all on function fleet.write_failed_run(bigint, timestamptz, text)
  from public, anon, authenticated, service_role;

create or replace function fleet.run_due(p_schedule_ids bigint[], p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_runs bigint[] := fleet.start_due_runs(p_now, p_schedule_ids);
  v_limit integer := fleet.setting_number('inline_expand_limit')::integer;
begin
  v_runs := v_runs[1:v_limit];
  if cardinality(v_runs) > 0 then
    perform fleet.expand_runs(v_runs, p_now, v_limit / cardinality(v_runs));
  end if;
end;
$$;

comment on function fleet.run_due(bigint[], timestamptz) is
  'Run what is due of these schedules now, up to the setting inline_expand_limit; the tick does the rest.';
revoke all on function fleet.run_due(bigint[], timestamptz) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/status.sql
-- Pausing, resuming and cancelling: what becomes of what is due and of what is on its way.

create or replace function fleet.tg_change_schedule_status()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := clock_timestamp();
begin
  perform fleet.require_permission(old.owner_id, 'manage', format('schedule %s', old.id));
  if new.status = 'active' then
    perform fleet.require_destructive(old.owner_id, old.action_type);
  end if;
  if old.status = 'cancelled' then
    raise exception 'schedule % was cancelled', old.id
      using errcode = 'PT409', detail = 'schedule_cancelled', hint = 'Create it anew.';
  end if;

  -- What was due while it was paused is told in one row, and not made up for.
  if new.next_run_at <= v_now and new.status in ('active', 'cancelled') and new.recurrence = old.recurrence then
    perform fleet.skip_due(old, v_now, case old.status when 'active' then new.status else old.status end);
    new.next_run_at := fleet.next_due(old.recurrence, v_now);
  end if;

  if new.status = 'active' then
    new.status_reason := null;
    if new.timezone = 'device' and new.after_schedule_id is null then
      -- Its devices may have gone to other zones meanwhile.
      new.recurrence := fleet.compiled(new);
      new.next_run_at := least(new.next_run_at, fleet.next_due(new.recurrence, v_now));
    end if;
    if fleet.end_reason(new) is not null then
      new.status := 'completed';
      new.status_reason := fleet.end_reason(new);
      new.next_run_at := null;
    end if;
  elsif new.status = 'paused' then
    new.execution_count := new.execution_count - fleet.skip_waiting_runs(old.id, v_now);
  elsif new.status = 'cancelled' then
    new.next_run_at := null;
    perform fleet.cancel_runs_of(old.id, coalesce(new.status_reason, 'the schedule was cancelled'));
  end if;
  new.updated_at := now();
  return new;
end;
$$;

comment on function fleet.tg_change_schedule_status() is
  'Account for what was due during a pause; end everything of a cancelled schedule. Definer: it writes the ledger.';
revoke all on function fleet.tg_change_schedule_status() from public, anon, authenticated, service_role;

create or replace function fleet.skip_due(p_schedule public.schedules, p_now timestamptz, p_reason text)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_to timestamptz := p_now + interval '1 microsecond';
  v_run fleet.run_booking;
begin
  if p_schedule.next_run_at is null or p_schedule.next_run_at > p_now then
    return;
  end if;
  v_run.schedule_id := p_schedule.id;
  v_run.scheduled_for := p_schedule.next_run_at;
  v_run.trigger := 'schedule';
  v_run.status := 'skipped';
  v_run.reason := p_reason;
  v_run.missed_from := p_schedule.next_run_at;
  v_run.missed_to := coalesce(fleet.last_occurrence(p_schedule.recurrence, p_schedule.next_run_at, v_to), p_schedule.next_run_at);
  v_run.missed_count := greatest(fleet.count_due(p_schedule.recurrence, p_schedule.next_run_at, v_to), 1);
  perform fleet.book_runs(array[v_run], p_now);
end;
$$;

comment on function fleet.skip_due(public.schedules, timestamptz, text) is
  'Account in one row for what is due and will not run, because of a pause or a change.';
revoke all on function fleet.skip_due(public.schedules, timestamptz, text) from public, anon, authenticated, service_role;

create or replace function fleet.skip_waiting_runs(p_schedule_id bigint, p_now timestamptz)
returns bigint
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  with skipped as (
    update public.schedule_runs as r
    set status = 'skipped', reason = 'paused', expanded_at = p_now, finished_at = p_now
    where r.schedule_id = p_schedule_id
      and r.status = 'pending'
      and r.expanded_at is null
      and r.not_before > p_now
    returning r.id
  )
  select count(*) from skipped
$$;

comment on function fleet.skip_waiting_runs(bigint, timestamptz) is
  'Skip the runs of a schedule that wait for their window or their turn when it is paused. Answers how many.';
revoke all on function fleet.skip_waiting_runs(bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.cancel_runs_of(p_schedule_id bigint, p_reason text)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  update public.device_commands as c
  set status = 'cancelled', reason = p_reason
  where c.schedule_id = p_schedule_id and c.status = 'pending';

  update public.schedule_runs as r
  set status = 'cancelled', reason = p_reason, expanded_at = now(), finished_at = now()
  where r.schedule_id = p_schedule_id and r.expanded_at is null and r.status in ('pending', 'running')
$$;

comment on function fleet.cancel_runs_of(bigint, text) is
  'Cancel what no device has started yet; what is running may end by itself.';
revoke all on function fleet.cancel_runs_of(bigint, text) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/template_parameters.sql
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
  select string_agg(p.piece || coalesce(p_values ->> m.found[1], ''), '' order by p.place)
  from regexp_split_to_table(p_text, '\{\{\s*[a-z_][a-z0-9_]*\s*\}\}') with ordinality as p(piece, place)
  left join lateral regexp_matches(p_text, '\{\{\s*([a-z_][a-z0-9_]*)\s*\}\}', 'g') with ordinality as m(found, place)
    on m.place = p.place
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
        select coalesce(jsonb_agg(f.value order by e.place) filter (where f.value is not null), '[]')
        from jsonb_array_elements(p_value) with ordinality as e(value, place)
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

-- db/sources/30_schedules/templates.sql
-- Templates: schedules with parameters, kept in versions.

create or replace function fleet.template_of_caller(p_name text, p_version integer, p_permission text)
returns public.schedule_templates
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_user uuid := fleet.current_user_id();
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
        where o = coalesce(v_user, fleet.try_uuid(fleet.setting('default_owner') #>> '{}'))
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
      using errcode = 'PT404', detail = 'template_not_found', hint = 'List your templates with: pgfleet template list';
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

-- db/sources/30_schedules/transfer.sql
-- Exporting: schedules as a document that knows no ids, for another fleet or for a repository.

create or replace function fleet.document_time(p_instant timestamptz, p_timezone text)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_format text := 'YYYY-MM-DD"T"HH24:MI:SS' || case when p_instant <> date_trunc('second', p_instant) then '.US' else '' end;
  v_local text := to_char(p_instant at time zone p_timezone, v_format);
begin
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
      when 'time' then to_jsonb(fleet.document_time((e.value #>> '{}')::timestamptz, fleet.reference_zone(p_schedule)))
      else e.value
    end)
    from fleet.schedule_columns() as c
    join jsonb_each(to_jsonb(p_schedule)) as e on e.key = c.name
    where e.value is distinct from c.default_value
      -- What is an id is named below, and twins follow from what they are twins of.
      and c.name not in ('device_ids', 'group_ids', 'device_id', 'profile_id', 'after_schedule_id', 'after_on', 'policies')
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
    'periods', (
      select coalesce(jsonb_agg(
        fleet.period_document(p) order by coalesce(p.starts_at, p.starts_on::timestamp at time zone 'UTC'), p.summary, p.id
      ), '[]')
      from public.blackout_periods as p
      where p.calendar_id = p_calendar.id
    )
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

-- db/sources/30_schedules/update.sql
-- Changing and deleting a schedule.

create or replace function fleet.without_nulls(p_object jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_object_agg(e.key, e.value), '{}')
  from jsonb_each(p_object) as e
  where e.value <> 'null'
$$;

comment on function fleet.without_nulls(jsonb) is 'The object without its keys of value null; inner objects stay as they are.';
revoke all on function fleet.without_nulls(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.changed_schedule(p_old public.schedules, p_changes jsonb)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_spec jsonb;
  v_row public.schedules;
  v_problems fleet.problem[];
  v_fields text[];
begin
  perform fleet.require_object(p_changes, 'changes of a schedule', 'Example: {"name": "Nightly", "priority": 5}');
  v_spec := fleet.normal_schedule_spec(p_changes);
  v_problems := array(select t from fleet.name_problems(p_old.owner_id, v_spec) as t);
  v_spec := fleet.with_ids(p_old.owner_id, v_spec);
  v_problems := v_problems || array(
    select t from fleet.spec_type_problems(v_spec) as t
    union all
    select ('owner_id', 'cannot be changed', 'Create the schedule anew for the other owner.')::fleet.problem
    where fleet.try_uuid(v_spec ->> 'owner_id') <> p_old.owner_id
  );
  v_fields := array(select p.field from unnest(v_problems) as p);

  -- What has the wrong type stays as it was, so that everything else is still checked in the same answer.
  v_row := fleet.schedule_from_spec(
    p_old, v_spec - 'owner_id' - coalesce((select array_agg(split_part(f, '.', 1)) from unnest(v_fields) as f), '{}')
  );
  if p_old.id is null then
    -- An insert has no old row to tell by which of two twin columns is meant.
    v_row := fleet.without_stale_twins(p_old, v_row);
  end if;

  if v_problems <> '{}' then
    perform fleet.raise_problems('the schedule', 'schedule_invalid', v_problems || array(
      select q
      from fleet.schedule_problems(p_old, fleet.completed_schedule(p_old, fleet.without_stale_twins(p_old, v_row))) as q
      where q.field <> all (v_fields)
        -- Whoever is named but unknown is not nobody.
        and not (q.field = 'device_ids' and v_fields && '{devices,groups}')
    ));
  end if;
  return v_row;
end;
$$;

comment on function fleet.changed_schedule(public.schedules, jsonb) is
  'The row with changes in the keys of create_schedule, as it is to be written; of a row without an id, the one to be inserted. Raises '
  'schedule_invalid naming every wrong field where one cannot even be read; the rest is left to the trigger, which checks whatever is '
  'written.';
revoke all on function fleet.changed_schedule(public.schedules, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.store_schedule(p_row public.schedules)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_columns text;
  v_id bigint := p_row.id;
begin
  if v_id is null then
    select string_agg(quote_ident(c.name), ', ') into v_columns from fleet.schedule_columns() as c;
    execute format(
      'insert into public.schedules (owner_id, status, %1$s) select r.owner_id, r.status, %1$s from (select ($1).*) as r returning id',
      v_columns
    )
    into v_id
    using p_row;
    return v_id;
  end if;

  -- Only what differs: the triggers, and what they check, go by the columns that are named.
  select string_agg(quote_ident(c.name), ', ') into v_columns
  from fleet.schedule_columns() as c
  cross join (
    select to_jsonb(s) as was, to_jsonb(p_row) as is_to_be from public.schedules as s where s.id = v_id
  ) as d
  where d.was -> c.name is distinct from d.is_to_be -> c.name;
  if v_columns is not null then
    execute format(
      'update public.schedules as s set (%1$s) = (select %1$s from (select ($1).*) as r) where s.id = ($1).id', v_columns
    )
    using p_row;
  end if;
  return v_id;
end;
$$;

comment on function fleet.store_schedule(public.schedules) is
  'Insert the row, with its status, where it has no id; else bring the row of that id to it, without its status. Nothing is done where '
  'nothing differs. The trigger checks it, as it checks every other write.';
revoke all on function fleet.store_schedule(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.schedule_answer(p_schedule_id bigint)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select to_jsonb(s) || jsonb_build_object('warnings', fleet.schedule_warnings(s))
  from public.schedules as s
  where s.id = p_schedule_id
$$;

comment on function fleet.schedule_answer(bigint) is 'The row of a schedule with its warnings.';
revoke all on function fleet.schedule_answer(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.update_schedule(p_schedule_id bigint, p_changes jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_old public.schedules := fleet.schedule_of_caller(p_schedule_id, 'manage');
begin
  if v_old.status = 'cancelled' then
    raise exception 'schedule % is cancelled', p_schedule_id
      using errcode = 'PT409',
            detail = 'schedule_cancelled',
            hint = format('Make a new one of it: pgfleet schedule duplicate %s', p_schedule_id);
  end if;
  perform fleet.store_schedule(fleet.changed_schedule(v_old, p_changes));
  return fleet.schedule_answer(p_schedule_id);
end;
$$;

comment on function fleet.update_schedule(bigint, jsonb) is
  'See public.update_schedule. Definer: it checks the caller first, then sees what the checks need to see.';
revoke all on function fleet.update_schedule(bigint, jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.update_schedule(bigint, jsonb) to authenticated, service_role;

create or replace function public.update_schedule(p_schedule_id bigint, p_changes jsonb)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.update_schedule(p_schedule_id, p_changes)
$$;

comment on function public.update_schedule(bigint, jsonb) is
  'Change a schedule by the keys of create_schedule; what is not named stays, and objects such as policies are replaced as a whole. The '
  'next run is computed anew where times changed; history stays. Answers the row with "warnings". Raises schedule_not_found (PT404), permission_missing (PT403), schedule_invalid '
  '(PT422) naming every wrong field, or schedule_cancelled (PT409).';
revoke all on function public.update_schedule(bigint, jsonb) from public, anon, authenticated, service_role;
grant execute on function public.update_schedule(bigint, jsonb) to authenticated, service_role;

create or replace function fleet.delete_schedule(p_schedule_id bigint)
returns public.schedules
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules := fleet.schedule_of_caller(p_schedule_id, 'manage');
begin
  delete from public.schedules as s where s.id = p_schedule_id;
  return v_row;
end;
$$;

comment on function fleet.delete_schedule(bigint) is 'See public.delete_schedule. Definer: it checks the caller.';
revoke all on function fleet.delete_schedule(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.delete_schedule(bigint) to authenticated, service_role;

create or replace function public.delete_schedule(p_schedule_id bigint)
returns public.schedules
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.delete_schedule(p_schedule_id)
$$;

comment on function public.delete_schedule(bigint) is
  'Delete a schedule with its runs and commands; to keep the history, cancel it instead. Answers the row as it was. Raises '
  'schedule_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.delete_schedule(bigint) from public, anon, authenticated, service_role;
grant execute on function public.delete_schedule(bigint) to authenticated, service_role;

-- db/sources/30_schedules/validation.sql
-- What is wrong with a schedule: everything at once, each with its field and what to do.

create or replace function fleet.payload_problems(p_command_type text, p_payload jsonb, p_field text default 'payload')
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select 'action_type', coalesce('"' || nullif(p_command_type, '') || '" is not a known command type', 'is missing'),
    'List them with: select name, description from command_types'
  where not exists (select 1 from public.command_types as t where t.name = p_command_type)
  union all
  select p_field || '.' || k.key, 'is missing',
    format('%s needs "%s" (%s).', p_command_type, k.key, coalesce(k.value ->> 'type', 'any type'))
  from public.command_types as t
  cross join jsonb_each(t.payload_keys) as k
  where t.name = p_command_type
    and (k.value -> 'required') = 'true'::jsonb
    and coalesce(jsonb_typeof(p_payload -> k.key), 'null') = 'null'
  union all
  select p_field || '.' || k.key, format('must be a %s, not a %s', k.value ->> 'type', jsonb_typeof(p_payload -> k.key)),
    format('Example: {"%s": %s}', k.key, coalesce(k.value -> 'example', to_jsonb(k.value ->> 'type')))
  from public.command_types as t
  cross join jsonb_each(t.payload_keys) as k
  where t.name = p_command_type
    and p_payload ? k.key
    and jsonb_typeof(p_payload -> k.key) <> 'null'
    and jsonb_typeof(p_payload -> k.key) <> (k.value ->> 'type')
  union all
  select p_field || '.' || k.key, format('%s is not one of %s', p_payload -> k.key, k.value -> 'choices'),
    'Use one of the values named.'
  from public.command_types as t
  cross join jsonb_each(t.payload_keys) as k
  where t.name = p_command_type
    and k.value ? 'choices'
    and p_payload ? k.key
    and not (k.value -> 'choices') @> (p_payload -> k.key)
$$;

comment on function fleet.payload_problems(text, jsonb, text) is
  'What a payload lacks for its command type: missing keys, wrong types, values that are no choice.';
revoke all on function fleet.payload_problems(text, jsonb, text) from public, anon, authenticated, service_role;

create or replace function fleet.target_problems(
  p_owner_id uuid,
  p_device_ids bigint[],
  p_group_ids bigint[],
  p_selector jsonb
)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select 'device_ids', format('device %s was not found', u.id), 'List your devices with: pgfleet device list'
  from unnest(p_device_ids) as u(id)
  where not exists (select 1 from public.devices as d where d.id = u.id and d.owner_id = p_owner_id)
  union all
  select 'group_ids', format('group %s was not found', u.id), 'List your groups with: pgfleet group list'
  from unnest(p_group_ids) as u(id)
  where not exists (select 1 from public.device_groups as g where g.id = u.id and g.owner_id = p_owner_id)
  union all
  select s.field, s.problem, s.hint from fleet.selector_problems(p_selector) as s
  union all
  select 'device_ids', 'names nobody: there is no device, group or selector',
    'Give device_ids, group_ids or a selector; an empty selector {} means every device.'
  where p_device_ids = '{}' and p_group_ids = '{}' and p_selector is null
$$;

comment on function fleet.target_problems(uuid, bigint[], bigint[], jsonb) is
  'Targets that do not exist for this owner. What belongs to another owner is as good as not there.';
revoke all on function fleet.target_problems(uuid, bigint[], bigint[], jsonb)
  from public, anon, authenticated, service_role;

create or replace function fleet.schedule_problems(p_old public.schedules, p_new public.schedules)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Of another owner, everything that it names is another's.
  v_is_new boolean := p_old.id is null or p_old.owner_id <> p_new.owner_id;
begin
  if btrim(coalesce(p_new.name, '')) = '' then
    return next ('name', 'must not be blank', 'Give the schedule a name.')::fleet.problem;
  end if;
  if v_is_new
    or (p_old.timezone, p_old.recurrence_type, p_old.recurrence_config, p_old.start_time, p_old.end_time)
      is distinct from (p_new.timezone, p_new.recurrence_type, p_new.recurrence_config, p_new.start_time, p_new.end_time)
  then
    return query select q.* from fleet.time_problems(p_new) as q;
  end if;
  if p_new.priority not between -100 and 100 then
    return next (
      'priority', format('%s is not within -100 to 100', p_new.priority), 'The default is 0; higher goes first.'
    )::fleet.problem;
  end if;
  if v_is_new or (p_old.action_type, p_old.payload) is distinct from (p_new.action_type, p_new.payload) then
    if jsonb_typeof(p_new.payload) = 'object' then
      return query select q.* from fleet.payload_problems(p_new.action_type, p_new.payload) as q;
    else
      return next ('payload', 'must be an object', 'Example: {"message": "Hello"}')::fleet.problem;
    end if;
  end if;
  if v_is_new or fleet.targets_changed(p_old, p_new) then
    return query
    select q.* from fleet.target_problems(p_new.owner_id, p_new.device_ids, p_new.group_ids, p_new.selector) as q;
  end if;
  if v_is_new or (p_old.after_schedule_id, p_old.after_on) is distinct from (p_new.after_schedule_id, p_new.after_on) then
    return query select q.* from fleet.follow_problems(p_new) as q;
  end if;
  if v_is_new or p_old.policies is distinct from p_new.policies then
    if jsonb_typeof(p_new.policies) = 'object' then
      return query select q.* from fleet.blackout_problems(p_new.owner_id, p_new.policies) as q;
      return query select q.* from fleet.policy_problems(p_new.policies) as q;
    else
      return next ('policies', 'must be an object', 'Example: {"overlap": "allow"}')::fleet.problem;
    end if;
  end if;
end;
$$;

comment on function fleet.schedule_problems(public.schedules, public.schedules) is
  'Everything that is wrong with the new row of a schedule in what differs from the old one; an old row without an id is none. No row '
  'where nothing is.';
revoke all on function fleet.schedule_problems(public.schedules, public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.time_problems(p_schedule public.schedules)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_is_zone boolean := fleet.is_time_zone(p_schedule.timezone);
begin
  if p_schedule.timezone <> 'device' and not v_is_zone then
    return next (
      'timezone', format('"%s" is not a known time zone', p_schedule.timezone), 'Use an IANA name such as Europe/Berlin.'
    )::fleet.problem;
  end if;
  return query
  select r.*
  from fleet.recurrence_problems(
    p_schedule.recurrence_type, p_schedule.recurrence_config, fleet.reference_zone(p_schedule)
  ) as r
  where r.field <> 'timezone';
  if p_schedule.start_time > p_schedule.end_time then
    return next ('start_time', 'is after end_time', 'Let the schedule start before it ends.')::fleet.problem;
  end if;
  return query
  select b.*
  from fleet.bounds_problems(
    fleet.recurrence_type(p_schedule.recurrence_type), fleet.recurrence_settings(p_schedule.recurrence_config),
    case when v_is_zone then p_schedule.timezone else 'UTC' end,
    p_schedule.start_time, p_schedule.end_time
  ) as b
  where b.field <> 'end_time' or p_schedule.end_time = '-infinity';
end;
$$;

comment on function fleet.time_problems(public.schedules) is
  'What is wrong with when a schedule is due: its zone, its recurrence and its bounds.';
revoke all on function fleet.time_problems(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.raise_problems(p_what text, p_reason text, p_problems fleet.problem[])
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if coalesce(cardinality(p_problems), 0) = 0 then
    return;
  end if;

  raise exception '% is not valid: %', p_what, (
    select string_agg(p.field || ': ' || p.problem, '; ') from unnest(p_problems) as p
  )
    using errcode = case
            when (select bool_and(p.problem like '% was not found') from unnest(p_problems) as p) then 'PT404'
            else 'PT422'
          end,
          detail = p_reason,
          hint = (
            select string_agg(regexp_replace(h.hint, '[.]?$', '.'), ' ' order by h.n)
            from (
              select p.hint, min(p.n) as n
              from unnest(p_problems) with ordinality as p(field, problem, hint, n)
              where p.hint <> ''
              group by p.hint
            ) as h
          );
end;
$$;

comment on function fleet.raise_problems(text, text, fleet.problem[]) is
  'One error that names every wrong field; PT404 where all that is wrong is that something was not found, else PT422. No problem, no '
  'error.';
revoke all on function fleet.raise_problems(text, text, fleet.problem[]) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/windows.sql
-- Execution windows: at which local times a schedule may act.

create or replace function fleet.window_list(p_policies jsonb)
returns jsonb
language sql
immutable
parallel safe
return (
  case jsonb_typeof(p_policies -> 'execution_window')
    when 'array' then p_policies -> 'execution_window'
    when 'object' then jsonb_build_array(p_policies -> 'execution_window')
    else '[]'::jsonb
  end
);

comment on function fleet.window_list(jsonb) is 'The execution windows of effective policies; none means always.';
revoke all on function fleet.window_list(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.time_of_day(p_text text)
returns time
language sql
immutable
parallel safe
return (
  case when p_text ~ '^([01]?\d|2[0-4]):[0-5]\d(:[0-5]\d)?$' and p_text !~ '^24:.*[1-9]' then p_text::time end
);

comment on function fleet.time_of_day(text) is 'HH:MM or HH:MM:SS as a time, 24:00 for midnight; null where it is none.';
revoke all on function fleet.time_of_day(text) from public, anon, authenticated, service_role;

create or replace function fleet.end_of_window(p_window jsonb, p_local timestamp)
returns timestamp
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select max(s.closes_at)
  -- A window across midnight belongs to the day on which it begins.
  from (values (p_local::date), (p_local::date - 1)) as d(day)
  cross join lateral (
    select fleet.time_of_day(p_window ->> 'from') as opens, fleet.time_of_day(p_window ->> 'to') as closes
  ) as w
  cross join lateral (
    select d.day + w.opens as opens_at,
      d.day + w.closes + case when w.closes <= w.opens then interval '1 day' else interval '0' end as closes_at
  ) as s
  where (
      not p_window ? 'days_of_week'
      or (p_window -> 'days_of_week') @> to_jsonb(extract(isodow from d.day)::integer - 1)
    )
    and p_local >= s.opens_at
    and p_local < s.closes_at
$$;

comment on function fleet.end_of_window(jsonb, timestamp) is
  'When a window closes in which a local time lies, in local time; null where it lies in none.';
revoke all on function fleet.end_of_window(jsonb, timestamp) from public, anon, authenticated, service_role;

create or replace function fleet.is_in_window(p_window jsonb, p_local timestamp)
returns boolean
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.end_of_window(p_window, p_local) is not null
$$;

comment on function fleet.is_in_window(jsonb, timestamp) is
  'Whether a local time lies in a window {from, to, days_of_week (0 = Monday)}; to is exclusive and may be on the next day.';
revoke all on function fleet.is_in_window(jsonb, timestamp) from public, anon, authenticated, service_role;

create or replace function fleet.window_opening(p_windows jsonb, p_place text, p_timezone text, p_from timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_windows jsonb := (
    select jsonb_agg(w) from jsonb_array_elements(p_windows) as w where coalesce(w ->> 'in', 'schedule') = p_place
  );
  v_local timestamp := p_from at time zone fleet.zone_clock(p_timezone);
begin
  if v_windows is null
    or exists (select 1 from jsonb_array_elements(v_windows) as w where fleet.is_in_window(w, v_local))
  then
    return p_from;
  end if;

  -- Windows repeat weekly; two weeks, because the clocks may skip the whole of one.
  return (
    select min(o.instant)
    from jsonb_array_elements(v_windows) as w
    cross join generate_series(0, 15) as g(days)
    cross join lateral (
      select fleet.local_to_instant(
        v_local::date + g.days + fleet.time_of_day(w ->> 'from'), p_timezone
      ) as instant
    ) as o
    where o.instant > p_from
      and fleet.is_in_window(w, o.instant at time zone p_timezone)
  );
end;
$$;

comment on function fleet.window_opening(jsonb, text, text, timestamptz) is
  'p_from itself where it lies in one of the windows of this place (schedule or device), else when the next of them opens.';
revoke all on function fleet.window_opening(jsonb, text, text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.window_closing(p_windows jsonb, p_place text, p_timezone text, p_at timestamptz)
returns timestamptz
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select max(fleet.local_to_instant(fleet.end_of_window(w, p_at at time zone p_timezone), p_timezone))
  from jsonb_array_elements(p_windows) as w
  where coalesce(w ->> 'in', 'schedule') = p_place
$$;

comment on function fleet.window_closing(jsonb, text, text, timestamptz) is
  'When the window closes that is open at p_at; null where none is.';
revoke all on function fleet.window_closing(jsonb, text, text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.waits_for_window(p_windows jsonb, p_place text)
returns boolean
language sql
immutable
parallel safe
return (
  exists (
    select 1
    from jsonb_array_elements(p_windows) as w
    where coalesce(w ->> 'in', 'schedule') = p_place and w ->> 'outside' = 'wait'
  )
);

comment on function fleet.waits_for_window(jsonb, text) is
  'Whether what is due outside of the windows of this place waits for the next opening instead of being skipped.';
revoke all on function fleet.waits_for_window(jsonb, text) from public, anon, authenticated, service_role;

create or replace function fleet.window_in_device_time(p_window jsonb)
returns jsonb
language sql
immutable
parallel safe
return (
  case
    when jsonb_typeof(p_window) = 'object' and coalesce(p_window ->> 'in', 'schedule') = 'schedule'
      then p_window || '{"in": "device"}'
    else p_window
  end
);

comment on function fleet.window_in_device_time(jsonb) is
  'A window of a schedule in device time, which has no other zone in which it could be meant.';
revoke all on function fleet.window_in_device_time(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.policies_in_device_time(p_policies jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case jsonb_typeof(p_policies -> 'execution_window')
    when 'object' then p_policies || jsonb_build_object(
      'execution_window', fleet.window_in_device_time(p_policies -> 'execution_window')
    )
    when 'array' then p_policies || jsonb_build_object('execution_window', (
      select coalesce(jsonb_agg(fleet.window_in_device_time(e.item) order by e.n), '[]')
      from jsonb_array_elements(p_policies -> 'execution_window') with ordinality as e(item, n)
    ))
    else p_policies
  end
$$;

comment on function fleet.policies_in_device_time(jsonb) is
  'The policies of a schedule in device time, with its windows in the time of the devices too.';
revoke all on function fleet.policies_in_device_time(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.window_problems(p_windows jsonb)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  with given as (
    select e.item as w, 'policies.execution_window' as field
    from jsonb_array_elements(
      case jsonb_typeof(p_windows) when 'array' then p_windows else jsonb_build_array(p_windows) end
    ) as e(item)
    where p_windows is not null and jsonb_typeof(p_windows) <> 'null'
  )
  select g.field, 'must be an object or a list of them', 'Example: {"from": "22:00", "to": "05:00"}'
  from given as g
  where jsonb_typeof(g.w) <> 'object'
  union all
  select g.field || '.' || k.key, 'is not a time of day', 'Write it like "22:00".'
  from given as g
  cross join (values ('from'), ('to')) as k(key)
  where jsonb_typeof(g.w) = 'object' and fleet.time_of_day(g.w ->> k.key) is null
  union all
  select q.field, q.problem, q.hint
  from given as g
  cross join lateral fleet.choice_problem(g.field || '.in', g.w -> 'in', '{schedule,device}') as q
  where jsonb_typeof(g.w) = 'object'
  union all
  select q.field, q.problem, q.hint
  from given as g
  cross join lateral fleet.choice_problem(g.field || '.outside', g.w -> 'outside', '{skip,wait}') as q
  where jsonb_typeof(g.w) = 'object'
  union all
  select g.field || '.days_of_week', 'must be a list of days from 0 (Monday) to 6', 'Example: [0, 1, 2, 3, 4]'
  from given as g
  where jsonb_typeof(g.w) = 'object'
    and g.w ? 'days_of_week'
    and (
      jsonb_typeof(g.w -> 'days_of_week') <> 'array'
      or g.w -> 'days_of_week' = '[]'
      or not '[0, 1, 2, 3, 4, 5, 6]'::jsonb @> (g.w -> 'days_of_week')
    )
  union all
  select g.field || '.' || k.key, 'is not a key of a window', 'The keys are from, to, days_of_week, in and outside.'
  from given as g
  cross join lateral jsonb_object_keys(case when jsonb_typeof(g.w) = 'object' then g.w else '{}' end) as k(key)
  where k.key not in ('from', 'to', 'days_of_week', 'in', 'outside')
$$;

comment on function fleet.window_problems(jsonb) is 'Everything that is wrong with execution windows.';
revoke all on function fleet.window_problems(jsonb) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/zones.sql
-- Device time: one schedule that is due in each device's own local time. Its compiled recurrence is a union with one member
-- for each time zone that its devices are in.

create or replace function fleet.reference_zone(p_schedule public.schedules)
returns text
language sql
immutable
parallel safe
return (case when (p_schedule).timezone = 'device' then 'UTC' else (p_schedule).timezone end);

comment on function fleet.reference_zone(public.schedules) is
  'The zone for what concerns a schedule as a whole: its own, or UTC where it goes by device time.';
revoke all on function fleet.reference_zone(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.target_zones(p_schedule public.schedules)
returns text[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(distinct coalesce(t.timezone, 'UTC')), '{UTC}')
  from fleet.targets(p_schedule.owner_id, p_schedule.device_ids, p_schedule.group_ids, p_schedule.selector) as t
$$;

comment on function fleet.target_zones(public.schedules) is 'The time zones of the devices that a schedule reaches now; UTC where one has none.';
revoke all on function fleet.target_zones(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.compiled(p_schedule public.schedules)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_schedule.timezone <> 'device' then fleet.compiled_in(p_schedule, p_schedule.timezone)
    else jsonb_build_object(
      'kind', 'union',
      'type', p_schedule.recurrence_type,
      'zones', to_jsonb(z.zones),
      'members', (select jsonb_agg(fleet.compiled_in(p_schedule, u.zone)) from unnest(z.zones) as u(zone))
    )
  end
  from (
    select case when p_schedule.timezone = 'device' then fleet.target_zones(p_schedule) end as zones
  ) as z
$$;

comment on function fleet.compiled(public.schedules) is 'The compiled recurrence of a valid schedule; a union for device time.';
revoke all on function fleet.compiled(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.compiled_in(p_schedule public.schedules, p_timezone text)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.compile_recurrence(
    p_schedule.recurrence_type, p_schedule.recurrence_config, p_timezone,
    fleet.bound_in_zone(p_schedule, p_schedule.start_time, p_timezone),
    fleet.bound_in_zone(p_schedule, p_schedule.end_time, p_timezone),
    fleet.effective_policies(p_schedule.policies) ->> 'gap',
    fleet.effective_policies(p_schedule.policies) ->> 'fold'
  )
$$;

comment on function fleet.compiled_in(public.schedules, text) is 'The compiled recurrence of a schedule in one time zone.';
revoke all on function fleet.compiled_in(public.schedules, text) from public, anon, authenticated, service_role;

create or replace function fleet.bound_in_zone(p_schedule public.schedules, p_bound timestamptz, p_timezone text)
returns timestamptz
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- A single run in device time means the same hands of the clock everywhere; kept as UTC, read in each zone.
  select case
    when p_schedule.timezone = 'device' and p_schedule.recurrence_type = 'once'
      then fleet.local_to_instant(p_bound at time zone 'UTC', p_timezone)
    else p_bound
  end
$$;

comment on function fleet.bound_in_zone(public.schedules, timestamptz, text) is
  'Start or end of a schedule for one zone: a single run in device time is at the same local time in each.';
revoke all on function fleet.bound_in_zone(public.schedules, timestamptz, text)
  from public, anon, authenticated, service_role;

create or replace function fleet.next_due(p_recurrence jsonb, p_after timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_recurrence ->> 'kind' is distinct from 'union' then
    return fleet.next_occurrence(p_recurrence, p_after);
  end if;
  return (
    select min(fleet.next_occurrence(m.member, p_after))
    from jsonb_array_elements(p_recurrence -> 'members') as m(member)
  );
end;
$$;

comment on function fleet.next_due(jsonb, timestamptz) is 'The first due instant after p_after, in whichever zone; null when there is none.';
revoke all on function fleet.next_due(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.due_instants(p_recurrence jsonb, p_from timestamptz, p_to timestamptz)
returns setof timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_recurrence ->> 'kind' is distinct from 'union' then
    return query select o from fleet.occurrences(p_recurrence, p_from, p_to) as o;
    return;
  end if;
  return query
  select distinct o
  from jsonb_array_elements(p_recurrence -> 'members') as m(member)
  cross join lateral fleet.occurrences(m.member, p_from, p_to) as o
  order by o;
end;
$$;

comment on function fleet.due_instants(jsonb, timestamptz, timestamptz) is
  'The due instants within [p_from, p_to), each once however many zones share it.';
revoke all on function fleet.due_instants(jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.count_due(p_recurrence jsonb, p_from timestamptz, p_to timestamptz)
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_recurrence ->> 'kind' is distinct from 'union' then
    return fleet.count_occurrences(p_recurrence, p_from, p_to);
  end if;
  return (select count(*) from fleet.due_instants(p_recurrence, p_from, p_to));
end;
$$;

comment on function fleet.count_due(jsonb, timestamptz, timestamptz) is 'How many due instants lie within [p_from, p_to).';
revoke all on function fleet.count_due(jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.zones_due(p_recurrence jsonb, p_instant timestamptz)
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_recurrence ->> 'kind' is distinct from 'union' then
    return null;
  end if;
  return (
    select array_agg(m.member ->> 'timezone')
    from jsonb_array_elements(p_recurrence -> 'members') as m(member)
    where fleet.next_occurrence(m.member, p_instant - interval '1 microsecond') = p_instant
  );
end;
$$;

comment on function fleet.zones_due(jsonb, timestamptz) is
  'For whose devices an instant is due, by zone; null where the schedule has a zone of its own.';
revoke all on function fleet.zones_due(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.zones_to_run(
  p_recurrence jsonb,
  p_policies jsonb,
  p_instant timestamptz,
  p_now timestamptz
)
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_recurrence ->> 'kind' is distinct from 'union' then
    return null;
  end if;
  return (
    select coalesce(array_agg(m.member ->> 'timezone'), '{}')
    from jsonb_array_elements(p_recurrence -> 'members') as m(member)
    where fleet.next_occurrence(m.member, p_instant - interval '1 microsecond') = p_instant
      -- Of what was missed each zone has a latest of its own.
      and (
        p_policies ->> 'catchup' = 'all'
        or coalesce(fleet.next_occurrence(m.member, p_instant) > p_now, true)
      )
  );
end;
$$;

comment on function fleet.zones_to_run(jsonb, jsonb, timestamptz, timestamptz) is
  'For whose devices a due instant runs now, by zone: none where a later one has taken its place. Null where the schedule has a zone of '
  'its own.';
revoke all on function fleet.zones_to_run(jsonb, jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.next_due_in(p_recurrence jsonb, p_zones text[], p_after timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_recurrence ->> 'kind' is distinct from 'union' then
    return fleet.next_occurrence(p_recurrence, p_after);
  end if;
  return (
    select min(fleet.next_occurrence(m.member, p_after))
    from jsonb_array_elements(p_recurrence -> 'members') as m(member)
    where m.member ->> 'timezone' = any (p_zones)
  );
end;
$$;

comment on function fleet.next_due_in(jsonb, text[], timestamptz) is
  'The first due instant after p_after for the devices of these zones; null when there is none.';
revoke all on function fleet.next_due_in(jsonb, text[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.dst_rule_at(p_recurrence jsonb, p_instant timestamptz)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_recurrence ->> 'kind' is distinct from 'union' then
    return fleet.applied_rule(p_recurrence, p_instant);
  end if;
  return (
    select string_agg((m.member ->> 'timezone') || ' ' || r.rule, ', ')
    from jsonb_array_elements(p_recurrence -> 'members') as m(member)
    cross join lateral fleet.applied_rule(m.member, p_instant) as r(rule)
    where r.rule is not null
      and fleet.next_occurrence(m.member, p_instant - interval '1 microsecond') = p_instant
  );
end;
$$;

comment on function fleet.dst_rule_at(jsonb, timestamptz) is
  'Which rule moved an instant at a change of the clock, with the zone where there are several; null where none did.';
revoke all on function fleet.dst_rule_at(jsonb, timestamptz) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/views.sql
-- Schedules and their runs in the words of a task scheduler, for clients that were written for one. Read only.

create or replace function fleet.task_type(p_action_type text)
returns text
language sql
immutable
parallel safe
return (
  case p_action_type
    when 'run_command' then 'command'
    when 'deploy_software' then 'software_deployment'
    when 'deploy_files' then 'file_deployment'
    else p_action_type
  end
);

comment on function fleet.task_type(text) is 'The task type for which create_schedule makes this action.';
revoke all on function fleet.task_type(text) from public, anon, authenticated, service_role;
grant execute on function fleet.task_type(text) to authenticated, service_role;

drop view if exists public.scheduled_tasks;
create view public.scheduled_tasks
with (security_invoker = true)
as
select
  s.id,
  s.name as task_name,
  fleet.task_type(s.action_type) as task_type,
  case
    when s.status in ('paused', 'cancelled') then s.status
    when exists (
      select 1 from public.schedule_runs as r where r.schedule_id = s.id and r.status in ('pending', 'running')
    ) then 'running'
    when s.status = 'active' then 'pending'
    when last.status in ('failed', 'cancelled') then last.status
    else 'completed'
  end as status,
  s.start_time as scheduled_time,
  case s.recurrence_type when 'cron' then 'custom' else s.recurrence_type end as recurrence_type,
  s.recurrence_config,
  to_jsonb(s.device_ids) as device_ids,
  to_jsonb(s.group_ids) as group_ids,
  s.payload,
  s.created_by,
  s.created_at,
  s.updated_at,
  s.last_executed_at as last_execution,
  s.next_run_at as next_execution,
  s.execution_count,
  case
    when last.id is not null then coalesce(last.result, jsonb_build_object(
      'status', last.status, 'targeted', last.targeted, 'completed', last.completed, 'failed', last.failed,
      'skipped', last.skipped
    ))
  end as last_result,
  coalesce(last.error_message, case when last.status <> 'completed' then last.reason end, s.status_reason) as error_message
from public.schedules as s
left join lateral (
  select r.id, r.status, r.reason, r.targeted, r.completed, r.failed, r.skipped, r.result, r.error_message
  from public.schedule_runs as r
  where r.schedule_id = s.id and r.status in ('completed', 'failed', 'skipped', 'cancelled')
  order by r.scheduled_for desc
  limit 1
) as last on true;

comment on view public.scheduled_tasks is
  'Schedules as tasks: command, software_deployment, file_deployment or the name of an action; pending, running, completed, failed, '
  'cancelled or paused. Read only: write with create_schedule, update_schedule and their kin.';
comment on column public.scheduled_tasks.task_name is 'The name of the schedule.';
comment on column public.scheduled_tasks.task_type is 'command, software_deployment, file_deployment, or the action type.';
comment on column public.scheduled_tasks.scheduled_time is 'When it starts.';
comment on column public.scheduled_tasks.recurrence_type is 'once, interval, daily, weekly, monthly or custom (cron).';
comment on column public.scheduled_tasks.recurrence_config is 'As it was given.';
comment on column public.scheduled_tasks.device_ids is 'JSON list of ids.';
comment on column public.scheduled_tasks.group_ids is 'JSON list of ids.';
comment on column public.scheduled_tasks.payload is 'What each device gets.';
comment on column public.scheduled_tasks.last_execution is 'When it last ran.';
comment on column public.scheduled_tasks.next_execution is 'The next due instant.';
comment on column public.scheduled_tasks.execution_count is 'How often it ran.';
comment on column public.scheduled_tasks.last_result is 'Figures of the last run that ended.';
comment on column public.scheduled_tasks.error_message is 'Why that run failed or was skipped, or why the task is paused or cancelled.';

drop view if exists public.scheduled_task_executions;
create view public.scheduled_task_executions
with (security_invoker = true)
as
select
  r.id,
  r.schedule_id as task_id,
  coalesce(r.started_at, r.scheduled_for) as execution_time,
  r.finished_at as completed_time,
  r.status,
  null::bigint as deployment_id,
  coalesce(r.result, jsonb_build_object(
    'targeted', r.targeted, 'completed', r.completed, 'failed', r.failed, 'skipped', r.skipped
  )) as result,
  coalesce(r.error_message, case when r.status <> 'completed' then r.reason end) as error_message,
  r.created_at
from public.schedule_runs as r;

comment on view public.scheduled_task_executions is 'The runs of tasks, one row for each execution or range of missed ones. Read only.';
comment on column public.scheduled_task_executions.task_id is 'The task, in scheduled_tasks.';
comment on column public.scheduled_task_executions.execution_time is 'When it started; when it was due, where it never started.';
comment on column public.scheduled_task_executions.completed_time is 'When it ended.';
comment on column public.scheduled_task_executions.deployment_id is 'The deployment that it made, if any.';
comment on column public.scheduled_task_executions.result is 'How many devices were targeted, and how they ended.';
comment on column public.scheduled_task_executions.error_message is 'Why it failed or was skipped.';

revoke all on table public.scheduled_tasks, public.scheduled_task_executions from public, anon, authenticated, service_role;
grant select on table public.scheduled_tasks, public.scheduled_task_executions to authenticated, service_role;

-- db/sources/30_schedules/triggers.sql
-- What holds for schedules however a row is written. The tick moves next_run_at and counters only, so it fires none of these.

do $$
begin
  execute format(
    'create or replace trigger schedules_01_prepare before insert or update of owner_id, %s on public.schedules'
    ' for each row execute function fleet.tg_prepare_schedule()',
    (select string_agg(quote_ident(c.name), ', ') from fleet.schedule_columns() as c)
  );
end;
$$;

create or replace trigger schedules_02_change_status
  before update of status on public.schedules
  for each row
  when (new.status is distinct from old.status and new.status <> 'completed')
  execute function fleet.tg_change_schedule_status();

create or replace trigger schedules_03_run_due
  after insert on public.schedules
  referencing new table as new_rows
  for each statement execute function fleet.tg_run_due_schedules();

create or replace trigger devices_05_refresh_device_time_insert
  after insert on public.devices
  referencing new table as new_rows
  for each statement execute function fleet.tg_refresh_device_time();

create or replace trigger devices_05_refresh_device_time_update
  after update on public.devices
  referencing old table as old_rows new table as new_rows
  for each statement execute function fleet.tg_refresh_device_time();

create or replace trigger device_groups_05_refresh_device_time
  after update on public.device_groups
  referencing new table as new_rows
  for each statement execute function fleet.tg_refresh_zones_of_groups();

create or replace trigger device_group_members_05_refresh_device_time
  after insert on public.device_group_members
  referencing new table as new_rows
  for each statement execute function fleet.tg_refresh_zones_of_groups();

-- db/sources/30_schedules/policies.sql
-- Who sees and changes schedules and the ledger: members of the owner. Devices see neither.

revoke all on table public.schedules, public.schedule_runs from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.schedules, public.schedule_runs to service_role;
revoke all on sequence public.schedules_id_seq, public.schedule_runs_id_seq, fleet.run_progress_id_seq
  from public, anon, authenticated, service_role;
grant usage, select on sequence public.schedules_id_seq, public.schedule_runs_id_seq to service_role;

drop policy if exists schedules_all_service_role on public.schedules;
create policy schedules_all_service_role on public.schedules for all to service_role using (true) with check (true);
drop policy if exists schedule_runs_all_service_role on public.schedule_runs;
create policy schedule_runs_all_service_role on public.schedule_runs
  for all to service_role using (true) with check (true);

-- Counters and instants belong to the engine.
grant select, delete on table public.schedules to authenticated;
do $$
begin
  execute format(
    'grant insert (owner_id, %s) on table public.schedules to authenticated',
    (select string_agg(quote_ident(c.name), ', ') from fleet.schedule_columns() as c)
  );
  -- Who made a schedule, a person by hand or not, is said when it is made.
  execute format(
    'grant update (status, status_reason, %s) on table public.schedules to authenticated',
    (select string_agg(quote_ident(c.name), ', ') from fleet.schedule_columns() as c where c.name <> 'ui_initiated')
  );
end;
$$;

drop policy if exists schedules_select_member on public.schedules;
create policy schedules_select_member on public.schedules
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists schedules_insert_manager on public.schedules;
create policy schedules_insert_manager on public.schedules
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists schedules_update_manager on public.schedules;
create policy schedules_update_manager on public.schedules
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists schedules_delete_manager on public.schedules;
create policy schedules_delete_manager on public.schedules
  for delete to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));

grant select on table public.schedule_runs to authenticated;
drop policy if exists schedule_runs_select_member on public.schedule_runs;
create policy schedule_runs_select_member on public.schedule_runs
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

set check_function_bodies = on;
reset search_path;
