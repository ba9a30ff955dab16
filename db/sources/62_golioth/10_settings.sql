-- What a Golioth integration is told, and what may be wrong with it.

create or replace function fleet.golioth_defaults()
returns jsonb
language sql
immutable
parallel safe
return '{"syncEnabled": true, "syncIntervalSeconds": 300, "rate_per_second": 5, "burst": 5, "direction": "import",
  "conflict": "newest", "overlapSeconds": 120, "streamScope": "project", "reads": ["status", "state", "stream"]}'::jsonb;

comment on function fleet.golioth_defaults() is 'The settings of a Golioth integration where nobody says otherwise.';
revoke all on function fleet.golioth_defaults() from public, anon, authenticated, service_role;

create or replace function fleet.golioth_setting_bounds()
returns table (name text, smallest integer, largest integer)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  values ('syncIntervalSeconds', 60, 2592000), ('overlapSeconds', 0, 86400), ('apiCallsPerMonth', 100, 1000000000)
$$;

comment on function fleet.golioth_setting_bounds() is 'Settings that are whole numbers, with the least and the most.';
revoke all on function fleet.golioth_setting_bounds() from public, anon, authenticated, service_role;

create or replace function fleet.golioth_filter_problems(p_filter jsonb)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select 'settings.deviceFilter', 'must be an object', 'Example: {"tags": ["field"], "names": ["sensor-*"]}'
  where jsonb_typeof(p_filter) <> 'object'
  union all
  select 'settings.deviceFilter.' || k.key, 'is not known', 'Known are tags, names, blueprint and cohort.'
  from jsonb_object_keys(fleet.object_or_empty(p_filter)) as k(key)
  where k.key <> all ('{tags,names,blueprint,cohort}'::text[])
  union all
  select 'settings.deviceFilter.' || n.name, 'must be a list of texts', 'Example: ["field"]'
  from unnest('{tags,names}'::text[]) as n(name)
  where p_filter ? n.name and not fleet.are_ids(p_filter -> n.name)
  union all
  select q.*
  from unnest('{tags,names}'::text[]) as n(name)
  cross join lateral fleet.list_problem('settings.deviceFilter.' || n.name, 'selector_list', p_filter -> n.name) as q
  union all
  select 'settings.deviceFilter.' || n.name, 'must be a text', 'Give the id that Golioth shows.'
  from unnest('{blueprint,cohort}'::text[]) as n(name)
  where jsonb_typeof(p_filter -> n.name) not in ('string', 'null')
$$;

comment on function fleet.golioth_filter_problems(jsonb) is 'All that is wrong with settings.deviceFilter.';
revoke all on function fleet.golioth_filter_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.golioth_window(p_settings jsonb)
returns jsonb
language sql
immutable
parallel safe
return jsonb_strip_nulls(jsonb_build_object(
  'from', coalesce(p_settings #> '{timeWindow,from}', p_settings #> '{timeWindow,start}'),
  'to', coalesce(p_settings #> '{timeWindow,to}', p_settings #> '{timeWindow,end}'),
  'days_of_week', p_settings #> '{timeWindow,days_of_week}'
));

comment on function fleet.golioth_window(jsonb) is 'settings.timeWindow as all other windows are written: {from, to, days_of_week}.';
revoke all on function fleet.golioth_window(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.golioth_window_problems(p_settings jsonb)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select 'settings.timeWindow', 'must have a beginning and an end, HH:MM',
    'Example: {"from": "22:00", "to": "06:00", "timezone": "Europe/Berlin"}'
  where coalesce(jsonb_typeof(p_settings -> 'timeWindow'), 'null') <> 'null'
    and (
      fleet.time_of_day(fleet.golioth_window(p_settings) ->> 'from') is null
      or fleet.time_of_day(fleet.golioth_window(p_settings) ->> 'to') is null
    )
  union all
  select 'settings.timeWindow.timezone', format('"%s" is no time zone', left(z.zone, 60)), 'Example: Europe/Berlin'
  from (select p_settings #>> '{timeWindow,timezone}' as zone) as z
  where z.zone is not null and not fleet.is_time_zone(z.zone)
  union all
  select 'settings.timeWindow.days_of_week', 'must be a list of days, 0 (Monday) to 6', 'Example: [0, 1, 2, 3, 4]'
  from (select p_settings #> '{timeWindow,days_of_week}' as days) as d
  where coalesce(jsonb_typeof(d.days), 'null') <> 'null' and not coalesce(d.days <@ '[0, 1, 2, 3, 4, 5, 6]', false)
$$;

comment on function fleet.golioth_window_problems(jsonb) is 'All that is wrong with settings.timeWindow.';
revoke all on function fleet.golioth_window_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.golioth_problems(p_settings jsonb)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select 'settings.projectId', 'is missing', 'The id of the project, as the console of Golioth shows it: acme-demo'
  where coalesce(btrim(p_settings ->> 'projectId'), '') = ''
  union all
  select 'settings.projectId', 'cannot be part of an address', 'The id of the project has letters, digits, - and _.'
  where p_settings ->> 'projectId' !~ '^[A-Za-z0-9_-]{1,100}$' and btrim(p_settings ->> 'projectId') <> ''
  union all
  select q.*
  from fleet.golioth_setting_bounds() as b
  cross join lateral fleet.whole_number_problem('settings.' || b.name, p_settings -> b.name, b.smallest, b.largest) as q
  where p_settings ? b.name
  union all
  select q.*
  from (
    values ('direction', '{import,export,both}'::text[]), ('conflict', '{newest,local,remote,manual}'),
      ('streamScope', '{project,device}')
  ) as c(name, choices)
  cross join lateral fleet.choice_problem('settings.' || c.name, p_settings -> c.name, c.choices) as q
  where p_settings ? c.name
  union all
  select 'settings.reads', 'must be a list of status, state and stream', 'Example: ["status", "stream"]'
  where p_settings ? 'reads' and not coalesce(p_settings -> 'reads' <@ '["status", "state", "stream"]', false)
  union all
  select q.* from fleet.golioth_filter_problems(p_settings -> 'deviceFilter') as q
  union all
  select q.* from fleet.golioth_window_problems(p_settings) as q
$$;

comment on function fleet.golioth_problems(jsonb) is 'All that is wrong with the settings of a Golioth integration.';
revoke all on function fleet.golioth_problems(jsonb) from public, anon, authenticated, service_role;
