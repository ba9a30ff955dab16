-- A geo schedule in JSON: what is wrong with it, and the row that it makes.

create or replace function fleet.geo_schedule_keys()
returns table (key text, kind text)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  values
    ('owner_id', 'uuid'), ('name', 'text'), ('device_id', 'id'), ('device', 'text'), ('group_id', 'id'), ('group', 'text'),
    ('location_id', 'id'), ('location', 'text'), ('side', 'text'), ('apps', 'texts'), ('categories', 'texts'),
    ('enforce', 'object'), ('start_minute', 'minute'), ('end_minute', 'minute'), ('recurrence', 'text'), ('days', 'days'),
    ('timezone', 'text'), ('update_delay_type', 'text'), ('update_delay_seconds', 'seconds'), ('unknown_location', 'text'),
    ('max_location_age', 'duration'), ('notes', 'text')
$$;

comment on function fleet.geo_schedule_keys() is 'The keys of a geo schedule in JSON, and what each holds.';
revoke all on function fleet.geo_schedule_keys() from public, anon, authenticated, service_role;

create or replace function fleet.geo_value_problem(p_kind text, p_value jsonb)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case p_kind
    when 'text' then case when jsonb_typeof(p_value) <> 'string' then 'must be text' end
    when 'uuid' then case when fleet.try_uuid(p_value #>> '{}') is null then 'is not a uuid' end
    when 'object' then case when jsonb_typeof(p_value) <> 'object' then 'must be an object' end
    when 'texts' then case
      when jsonb_typeof(p_value) <> 'array' or jsonb_path_exists(p_value, '$[*] ? (@.type() != "string")')
        then 'must be a list of text'
    end
    when 'days' then case
      when jsonb_typeof(p_value) <> 'array' or p_value::text !~ '^\[([0-6](, [0-6])*)?\]$'
        then 'must be a list of days, 0 (Monday) to 6'
    end
    when 'duration' then case
      when jsonb_typeof(p_value) <> 'string' or fleet.try_interval(p_value #>> '{}') is null then 'is no duration'
    end
    else case
      when jsonb_typeof(p_value) <> 'number' or (p_value #>> '{}') !~ '^[0-9]{1,18}$' then 'must be a whole number'
      when p_kind = 'minute' and (p_value #>> '{}')::bigint > 1439 then 'is not within 0 to 1439'
      when p_kind = 'seconds' and (p_value #>> '{}')::bigint > 604800 then 'is not within 0 to 604800'
    end
  end
$$;

comment on function fleet.geo_value_problem(text, jsonb) is 'What is wrong with the type of a value; null where nothing is.';
revoke all on function fleet.geo_value_problem(text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.geo_spec_problems(p_spec jsonb)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select e.key, 'is not a key of a geo schedule',
    format('The keys are %s.', (select string_agg(k.key, ', ') from fleet.geo_schedule_keys() as k))
  from jsonb_each(p_spec) as e
  where not exists (select 1 from fleet.geo_schedule_keys() as k where k.key = e.key)
  union all
  select e.key, format('%s: it is %s', q.problem, left(e.value::text, 60)), case k.kind
      when 'minute' then 'Minutes past midnight: 1320 is 22:00.'
      when 'seconds' then 'At most 604800 seconds, a week.'
      when 'duration' then 'Example: "1 hour".'
      when 'texts' then format('Example: {"%s": ["one", "two"]}', e.key)
      when 'days' then 'Example: {"days": [0, 1, 2, 3, 4]}'
      when 'object' then 'Example: {"enforce": {"profile_id": "7"}}'
      else 'Write the value as its type asks.'
    end
  from jsonb_each(p_spec) as e
  join fleet.geo_schedule_keys() as k on k.key = e.key
  cross join lateral (select fleet.geo_value_problem(k.kind, e.value) as problem) as q
  where e.value <> 'null' and q.problem is not null
$$;

comment on function fleet.geo_spec_problems(jsonb) is 'Keys of a geo schedule in JSON that are unknown or hold something of another type.';
revoke all on function fleet.geo_spec_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.geo_name_problems(p_owner_id uuid, p_spec jsonb)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select n.key, format('%s "%s" was not found', n.key, left(p_spec ->> n.key, 60)), format('List them with: select * from %s_list', n.key)
  from (values
    ('device', (select d.id from public.devices as d where d.owner_id = p_owner_id and lower(d.hostname) = lower(p_spec ->> 'device'))),
    ('group', (select g.id from public.device_groups as g where g.owner_id = p_owner_id and lower(g.name) = lower(p_spec ->> 'group'))),
    ('location',
      (select l.id from public.locations as l where l.owner_id = p_owner_id and lower(l.name) = lower(p_spec ->> 'location')))
  ) as n(key, id)
  where jsonb_typeof(p_spec -> n.key) = 'string' and n.id is null
$$;

comment on function fleet.geo_name_problems(uuid, jsonb) is 'Names in a specification that nobody has among the owner''s.';
revoke all on function fleet.geo_name_problems(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.geo_schedule_with(p_row public.geo_schedules, p_spec jsonb)
returns public.geo_schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.geo_schedules := jsonb_populate_record(
    p_row, fleet.without_nulls(p_spec) - '{owner_id,device,group,location,enforce}'::text[]
  );
begin
  if p_spec ? 'enforce' then
    v_row.enforce := nullif(p_spec -> 'enforce', 'null');
  end if;
  if jsonb_typeof(p_spec -> 'device') = 'string' then
    v_row.device_id := (
      select d.id from public.devices as d where d.owner_id = p_row.owner_id and lower(d.hostname) = lower(p_spec ->> 'device')
    );
  end if;
  if jsonb_typeof(p_spec -> 'group') = 'string' then
    v_row.group_id := (
      select g.id from public.device_groups as g where g.owner_id = p_row.owner_id and lower(g.name) = lower(p_spec ->> 'group')
    );
  end if;
  if jsonb_typeof(p_spec -> 'location') = 'string' then
    v_row.location_id := (
      select l.id from public.locations as l where l.owner_id = p_row.owner_id and lower(l.name) = lower(p_spec ->> 'location')
    );
  end if;

  -- Whoever names the one means it instead of the other.
  if p_spec ?| '{device,device_id}' and not p_spec ?| '{group,group_id}' then
    v_row.group_id := null;
  elsif p_spec ?| '{group,group_id}' and not p_spec ?| '{device,device_id}' then
    v_row.device_id := null;
  end if;
  if v_row.side = 'anywhere' and not p_spec ?| '{location,location_id}' then
    v_row.location_id := null;
  end if;
  if v_row.recurrence = 'daily' and not p_spec ? 'days' then
    v_row.days := '{}';
  end if;
  return v_row;
end;
$$;

comment on function fleet.geo_schedule_with(public.geo_schedules, jsonb) is
  'The row with what a specification of the right types says. Null says nothing, but for enforce.';
revoke all on function fleet.geo_schedule_with(public.geo_schedules, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.empty_geo_schedule(p_owner_id uuid)
returns public.geo_schedules
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_populate_record(null::public.geo_schedules, jsonb_build_object(
    'owner_id', p_owner_id, 'side', 'anywhere', 'apps', '[]'::jsonb, 'categories', '[]'::jsonb, 'recurrence', 'daily',
    'days', '[]'::jsonb, 'timezone', 'UTC', 'update_delay_type', 'none', 'update_delay_seconds', 0,
    'unknown_location', 'keep_last', 'max_location_age', '1 hour', 'notes', ''
  ))
$$;

comment on function fleet.empty_geo_schedule(uuid) is 'A row of nothing but the defaults.';
revoke all on function fleet.empty_geo_schedule(uuid) from public, anon, authenticated, service_role;

create or replace function fleet.checked_geo_schedule(p_row public.geo_schedules, p_spec jsonb)
returns public.geo_schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_problems fleet.problem[];
  v_fields text[];
  v_row public.geo_schedules;
begin
  if jsonb_typeof(p_spec) is distinct from 'object' then
    raise exception 'a geo schedule must be a JSON object'
      using errcode = 'PT422', detail = 'geo_schedule_invalid',
            hint = 'Example: {"name": "No games at school", "group": "class-7", "apps": ["steam"], "start_minute": 480, "end_minute": 900}';
  end if;
  perform fleet.require_size('the geo schedule', 'spec', p_spec);
  v_problems := array(
    select q from fleet.geo_spec_problems(p_spec) as q
    union all
    select q from fleet.geo_name_problems(p_row.owner_id, p_spec) as q
  );
  v_fields := array(select p.field from unnest(v_problems) as p);

  -- What has the wrong type is left out, so that everything else is still checked in the same answer.
  v_row := fleet.geo_schedule_with(p_row, p_spec - v_fields);
  perform fleet.raise_problems('the geo schedule', 'geo_schedule_invalid', v_problems || array_agg(q))
  from fleet.geo_schedule_problems(v_row) as q
  where q.field <> all (v_fields)
    -- Who is named but unknown is not nobody.
    and not (q.field = 'device_id' and v_fields && '{device,group}')
    and not (q.field = 'location_id' and 'location' = any (v_fields));
  return v_row;
end;
$$;

comment on function fleet.checked_geo_schedule(public.geo_schedules, jsonb) is
  'The row that a specification makes of another. Raises geo_schedule_invalid (PT422; PT404 for what was not found) naming every wrong field.';
revoke all on function fleet.checked_geo_schedule(public.geo_schedules, jsonb) from public, anon, authenticated, service_role;
