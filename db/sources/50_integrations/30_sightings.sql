-- What another system says of its devices, read without raising, and which of our devices it means.

create or replace function fleet.sighting_problem(p_item jsonb)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when coalesce(btrim(p_item ->> 'external_id'), '') = '' then 'external_id is missing'
    when jsonb_typeof(p_item -> 'external_id') not in ('string', 'number') or length(p_item ->> 'external_id') > 255
      then format('external_id cannot be %s', left(p_item ->> 'external_id', 40))
  end
$$;

comment on function fleet.sighting_problem(jsonb) is
  'Why nobody can tell which device another system speaks of; null where it is clear.';
revoke all on function fleet.sighting_problem(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.odd_facts(p_item jsonb)
returns table (name text, value text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select f.name, left(f.value #>> '{}', 40)
  from (
    select t.name, p_item -> t.name as value,
      jsonb_typeof(p_item -> t.name) = 'string' and length(p_item ->> t.name) <= 255 as is_fit
    from unnest('{hostname,name,serial_number,platform}'::text[]) as t(name)
    union all
    select t.name, p_item -> t.name, fleet.told_instant(p_item -> t.name) is not null
    from unnest('{last_seen,located_at}'::text[]) as t(name)
    union all
    select v.name, p_item -> v.name, v.is_fit
    from (
      values
        ('latitude', fleet.is_within(p_item -> 'latitude', -90, 90)),
        ('longitude', fleet.is_within(p_item -> 'longitude', -180, 180)),
        ('accuracy_m', fleet.is_within(p_item -> 'accuracy_m', 0, 20000000)),
        ('is_enrolled', jsonb_typeof(p_item -> 'is_enrolled') = 'boolean'),
        ('attributes', jsonb_typeof(p_item -> 'attributes') = 'object'),
        ('capabilities', jsonb_typeof(p_item -> 'capabilities') = 'object'),
        ('profiles', fleet.are_ids(p_item -> 'profiles'))
    ) as v(name, is_fit)
    union all
    -- How a receiver says that it knows nothing.
    select 'latitude', '"0 by 0 to the metre"', false
    where p_item ->> 'latitude' ~ '^-?0(\.0*)?$' and p_item ->> 'longitude' ~ '^-?0(\.0*)?$' and p_item ->> 'accuracy_m' ~ '^-?0(\.0*)?$'
  ) as f
  where jsonb_typeof(f.value) <> 'null' and not f.is_fit
$$;

comment on function fleet.odd_facts(jsonb) is
  'What another system says of a device that cannot be so; it is left out, the device is not.';
revoke all on function fleet.odd_facts(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.parsed_sightings(p_devices jsonb)
returns table (
  nr bigint, external_id text, name text, hostname text, serial_number text, platform text, last_seen timestamptz,
  is_enrolled boolean, attributes jsonb, capabilities jsonb, profiles jsonb, latitude jsonb, longitude jsonb, accuracy_m jsonb, located_at timestamptz,
  problem text, notes text
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with given as (
    select e.nr, e.item, fleet.sighting_problem(e.item) as problem,
      -- Of a device that is told twice the last word counts.
      row_number() over (partition by e.item ->> 'external_id' order by e.nr desc) as copy_nr
    from (
      select x.nr, case jsonb_typeof(x.item) when 'object' then x.item else '{}' end as item
      from jsonb_array_elements(p_devices) with ordinality as x(item, nr)
    ) as e
  ),
  fit as materialized (
    select g.nr, case when g.problem is null then g.item - coalesce(o.names, '{}') - o.with_them else '{}' end as item,
      g.item ->> 'external_id' as external_id, g.problem, o.notes
    from given as g
    cross join lateral (
      select array_agg(x.name) as names,
        -- Of a position whose accuracy cannot be nobody knows what it means.
        case when bool_or(x.name = 'accuracy_m') then '{latitude,longitude}'::text[] else '{}' end as with_them, string_agg(format('%s cannot be %s', x.name, x.value), '; ') as notes
      from fleet.odd_facts(g.item) as x
    ) as o
    where g.copy_nr = 1 or g.item ->> 'external_id' is null
  )
  select f.nr, f.external_id, n.name, coalesce(n.name, n.serial_number, f.external_id), n.serial_number,
    nullif(f.item ->> 'platform', ''),
    fleet.told_instant(f.item -> 'last_seen'),
    coalesce((f.item ->> 'is_enrolled')::boolean, true),
    coalesce(nullif(f.item -> 'attributes', 'null'), '{}'),
    jsonb_strip_nulls(coalesce(nullif(f.item -> 'capabilities', 'null'), '{}')),
    case jsonb_typeof(f.item -> 'profiles')
      -- Numbers among them become texts, as everywhere.
      when 'array' then (
        select coalesce(jsonb_agg(distinct p.id), '[]') from jsonb_array_elements_text(f.item -> 'profiles') as p(id)
      )
    end,
    f.item -> 'latitude', f.item -> 'longitude', f.item -> 'accuracy_m', fleet.told_instant(f.item -> 'located_at'), f.problem,
    case when f.problem is null then f.notes end
  from fit as f
  cross join lateral (
    select coalesce(nullif(btrim(f.item ->> 'hostname'), ''), nullif(btrim(f.item ->> 'name'), '')) as name,
      nullif(btrim(f.item ->> 'serial_number'), '') as serial_number
  ) as n
$$;

comment on function fleet.parsed_sightings(jsonb) is
  'What another system says of its devices as columns, each device once. What is wrong with one is its problem, not that of the others; '
  'what cannot be so is left out, which notes tell; '
  'name is null where it told none, hostname then is made of what it told.';
revoke all on function fleet.parsed_sightings(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.matched_sightings(p_integration public.device_integrations, p_items jsonb)
returns table (nr bigint, device_id bigint)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with items as materialized (
    select i.nr, i.external_id, i.serial_number, lower(i.name) as name, i.is_enrolled
    from jsonb_to_recordset(p_items) as i(
      nr bigint, external_id text, serial_number text, name text, is_enrolled boolean
    )
  ),
  linked as materialized (
    select i.nr, l.device_id, i.is_enrolled
    from items as i
    join public.device_links as l on l.integration_id = p_integration.id and l.external_id = i.external_id
  ),
  strange as materialized (
    select i.* from items as i where i.is_enrolled and not exists (select 1 from linked as l where l.nr = i.nr)
  ),
  -- One that the other system has under another id is not free; one that has left it is, for who has its serial number.
  free as materialized (
    select d.id, d.attributes ->> 'serial_number' as serial_number, lower(d.hostname) as name, l.device_id is null as is_unlinked
    from public.devices as d
    left join public.device_links as l on l.device_id = d.id and l.integration_id = p_integration.id
    left join linked as k on k.device_id = d.id
    where d.owner_id = p_integration.owner_id
      and exists (select 1 from strange)
      and (
        d.attributes ->> 'serial_number' in (select s.serial_number from strange as s)
        or lower(d.hostname) in (select s.name from strange as s)
      )
      and (l.device_id is null or l.left_at is not null or not k.is_enrolled)
      and k.is_enrolled is distinct from true
  ),
  by_serial as materialized (
    select s.nr, f.id as device_id
    from (
      select x.nr, x.serial_number, row_number() over (partition by x.serial_number order by x.nr) as serial_nr
      from strange as x
    ) as s
    join (
      select x.id, x.serial_number, row_number() over (partition by x.serial_number order by x.id) as serial_nr
      from free as x
    ) as f on f.serial_number = s.serial_number and f.serial_nr = s.serial_nr
  ),
  by_name as (
    select distinct on (f.id) s.nr, f.id as device_id
    from strange as s
    join free as f on f.name = s.name and f.is_unlinked
    where coalesce(f.serial_number = s.serial_number, true)
      and not exists (select 1 from by_serial as b where b.nr = s.nr or b.device_id = f.id)
    order by f.id, s.nr
  )
  select l.nr, l.device_id
  from linked as l
  where l.is_enrolled or not exists (select 1 from by_serial as b where b.device_id = l.device_id)
  union all
  select b.nr, b.device_id from by_serial as b
  union all
  select b.nr, b.device_id from by_name as b
$$;

comment on function fleet.matched_sightings(public.device_integrations, jsonb) is
  'Which of our devices another system means: by the link, else the serial number, else the name. No device is meant by two items and no '
  'item means two devices; no row for an item that means none of ours, nor for one that is not enrolled and was never linked.';
revoke all on function fleet.matched_sightings(public.device_integrations, jsonb) from public, anon, authenticated, service_role;
