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
