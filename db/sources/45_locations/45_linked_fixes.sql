-- Where devices are by what another system says of them.

create or replace function fleet.take_linked_fixes(p_integration_id bigint, p_devices jsonb, p_now timestamptz)
returns integer
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select count(*)::integer
  from fleet.take_fixes(
    (
      select coalesce(jsonb_agg(jsonb_build_object(
        'device_id', l.device_id,
        'latitude', n.latitude,
        'longitude', n.longitude,
        'accuracy_m', n.accuracy_m,
        'located_at', e.item ->> 'located_at'
      )), '[]')
      from jsonb_array_elements(p_devices) as e(item)
      join public.device_links as l on l.integration_id = p_integration_id and l.external_id = e.item ->> 'external_id'
      cross join lateral (
        -- Some systems write numbers as text.
        select max(k.number) filter (where k.name = 'latitude') as latitude,
          max(k.number) filter (where k.name = 'longitude') as longitude,
          max(k.number) filter (where k.name = 'accuracy_m') as accuracy_m
        from (
          select f.name, case when e.item ->> f.name ~ '^-?\d{1,9}(\.\d{1,18})?$' then (e.item ->> f.name)::numeric end as number
          from unnest('{latitude,longitude,accuracy_m}'::text[]) as f(name)
        ) as k
      ) as n
      where e.item ->> 'located_at' is not null and n.latitude is not null and n.longitude is not null
    ),
    p_now
  ) as t
  where t.outcome = 'taken'
$$;

comment on function fleet.take_linked_fixes(bigint, jsonb, timestamptz) is
  'Take the positions that an integration tells of the devices linked to it, a list of {external_id, latitude, longitude, accuracy_m, '
  'located_at, …}; devices without a position are passed over. Answers how many were new.';
revoke all on function fleet.take_linked_fixes(bigint, jsonb, timestamptz) from public, anon, authenticated, service_role;
