-- What a geo schedule may say, however it is written.

create or replace function fleet.geo_choice_problems(p_row public.geo_schedules)
returns setof fleet.problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select c.field, coalesce(format('"%s" is not one of %s', left(c.value, 60), c.choices), 'is missing'), format('Use one of %s.', c.choices)
  from (values
    ('side', p_row.side, 'inside, outside, anywhere'),
    ('recurrence', p_row.recurrence, 'daily, weekly'),
    ('update_delay_type', p_row.update_delay_type, 'none, fixed, until_end_of_current_action, until_next_day'),
    ('unknown_location', p_row.unknown_location, 'keep_last, block, free')
  ) as c(field, value, choices)
  where c.value is null or c.value <> all (string_to_array(c.choices, ', '));
end;
$$;

comment on function fleet.geo_choice_problems(public.geo_schedules) is 'Columns that hold none of the words they may hold.';
revoke all on function fleet.geo_choice_problems(public.geo_schedules) from public, anon, authenticated, service_role;

create or replace function fleet.geo_list_problems(p_row public.geo_schedules)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select l.field, 'has ' || cardinality(l.items) || ' entries', format('At most %s.', l.most)
  from (values ('apps', p_row.apps, 500), ('categories', p_row.categories, 50)) as l(field, items, most)
  where cardinality(l.items) > l.most
  union all
  select l.field, 'holds a name that is empty or longer than 200 characters', 'Names of programs or bundle ids, such as "steam".'
  from (values ('apps', p_row.apps), ('categories', p_row.categories)) as l(field, items)
  where exists (select 1 from unnest(l.items) as i(name) where i.name is null or btrim(i.name) = '' or char_length(i.name) > 200)
  union all
  select 'categories', format('category "%s" was not found', left(i.name, 60)), 'Make it first: insert into app_categories (name, apps) values (<name>, <apps>)'
  from unnest(p_row.categories) as i(name)
  where not exists (
    select 1 from public.app_categories as c where c.owner_id = p_row.owner_id and lower(c.name) = lower(i.name)
  )
  union all
  select 'apps', 'names nothing to block', 'Name apps or categories, or enforce by a profile.'
  where cardinality(p_row.apps) = 0 and cardinality(p_row.categories) = 0 and p_row.enforce is null
  union all
  select 'enforce', 'must hold profile_id and nothing else', 'Example: {"enforce": {"profile_id": "7"}}'
  where p_row.enforce is not null
    and (
      jsonb_typeof(p_row.enforce) <> 'object'
      or p_row.enforce - 'profile_id' <> '{}'
      or coalesce(jsonb_typeof(p_row.enforce -> 'profile_id') <> 'string', true)
      or btrim(p_row.enforce ->> 'profile_id') = ''
      or char_length(p_row.enforce ->> 'profile_id') > 200
    );
end;
$$;

comment on function fleet.geo_list_problems(public.geo_schedules) is 'What is wrong with what is to be blocked, and how.';
revoke all on function fleet.geo_list_problems(public.geo_schedules) from public, anon, authenticated, service_role;

create or replace function fleet.geo_schedule_problems(p_row public.geo_schedules)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select 'name', case when btrim(coalesce(p_row.name, '')) = '' then 'is missing' else 'is longer than 200 characters' end, 'A name of up to 200 characters.'
  where btrim(coalesce(p_row.name, '')) = '' or char_length(p_row.name) > 200
  union all
  select 'notes', 'is longer than 4000 characters', 'Shorten it.' where char_length(p_row.notes) > 4000
  union all
  select q.field, q.problem, q.hint from fleet.geo_choice_problems(p_row) as q
  union all
  select q.field, q.problem, q.hint from fleet.geo_list_problems(p_row) as q
  union all
  select m.field, coalesce(m.value || ' is not within 0 to 1439', 'is missing'), 'Minutes past midnight: 1320 is 22:00.'
  from (values ('start_minute', p_row.start_minute), ('end_minute', p_row.end_minute)) as m(field, value)
  where m.value is null or m.value not between 0 and 1439
  union all
  select 'days', 'is for a weekly geo schedule, and needs at least one day there', 'Example: {"recurrence": "weekly", "days": [0, 1, 2, 3, 4]}'
  where (p_row.recurrence = 'weekly') <> (cardinality(p_row.days) > 0)
  union all
  select 'days', 'holds a day that is not within 0 (Monday) to 6, or one twice', 'Example: [0, 1, 2, 3, 4]'
  where not p_row.days <@ '{0,1,2,3,4,5,6}' or cardinality(p_row.days) <> (select count(distinct d) from unnest(p_row.days) as d)
  union all
  select 'timezone', format('"%s" is not a time zone', left(p_row.timezone, 60)), 'An IANA name such as Europe/Berlin, or device.'
  where p_row.timezone is distinct from 'device' and not fleet.is_time_zone(p_row.timezone)
  union all
  select 'update_delay_seconds', p_row.update_delay_seconds || ' is not within 0 to 604800', 'A delay lasts at most a week.'
  where p_row.update_delay_seconds not between 0 and 604800
  union all
  select 'update_delay_seconds', 'goes with update_delay_type fixed, and fixed with it', 'Example: {"update_delay_type": "fixed", "update_delay_seconds": 86400}'
  where (p_row.update_delay_type = 'fixed') <> (p_row.update_delay_seconds > 0)
  union all
  select 'max_location_age', 'is not within 1 minute to 7 days', 'The default is "1 hour".'
  where coalesce(p_row.max_location_age not between interval '1 minute' and interval '7 days', true)
  union all
  select 'device_id', case when p_row.device_id is null then 'is missing' else 'and group_id exclude each other' end, 'Name one device or one group.'
  where (p_row.device_id is null) = (p_row.group_id is null)
  union all
  select 'device_id', format('device %s was not found', p_row.device_id), 'List your devices with: select * from device_list'
  where p_row.device_id is not null
    and not exists (select 1 from public.devices as d where d.id = p_row.device_id and d.owner_id = p_row.owner_id)
  union all
  select 'group_id', format('group %s was not found', p_row.group_id), 'List your groups with: select * from group_list'
  where p_row.group_id is not null
    and not exists (select 1 from public.device_groups as g where g.id = p_row.group_id and g.owner_id = p_row.owner_id)
  union all
  select 'location_id', case when p_row.location_id is null then 'is missing' else 'goes with side inside or outside' end, 'Name a location and a side, or anywhere and none.'
  where (p_row.location_id is null) <> (p_row.side = 'anywhere')
  union all
  select 'location_id', format('location %s was not found', p_row.location_id), 'List your locations with: select * from location_list'
  where p_row.location_id is not null
    and not exists (select 1 from public.locations as l where l.id = p_row.location_id and l.owner_id = p_row.owner_id);
end;
$$;

comment on function fleet.geo_schedule_problems(public.geo_schedules) is 'Everything that is wrong with a geo schedule as it is written.';
revoke all on function fleet.geo_schedule_problems(public.geo_schedules) from public, anon, authenticated, service_role;

create or replace function fleet.app_category_problems(p_row public.app_categories)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select 'name', 'must be 1 to 200 characters', 'Such as games.'
  where btrim(coalesce(p_row.name, '')) = '' or char_length(p_row.name) > 200
  union all
  select 'apps', 'must be 1 to 500 names of up to 200 characters', 'Names of programs or bundle ids, such as "steam".'
  where coalesce(cardinality(p_row.apps), 0) not between 1 and 500
    or exists (select 1 from unnest(p_row.apps) as a(name) where a.name is null or btrim(a.name) = '' or char_length(a.name) > 200)
$$;

comment on function fleet.app_category_problems(public.app_categories) is 'Everything that is wrong with a category as it is written.';
revoke all on function fleet.app_category_problems(public.app_categories) from public, anon, authenticated, service_role;
