-- Locations by their names.

create or replace function public.location_id(p_name text)
returns bigint
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.only_one(
    'location', p_name,
    array(select x.id::text from public.locations as x where lower(x.name) = lower(p_name) order by x.id),
    (select x.id::text from public.locations as x where x.id = fleet.try_bigint(p_name))
  )::bigint
$$;

comment on function public.location_id(text) is
  'The location that a name or an id means; a name in any case, and it wins over an id. Raises location_not_found (PT404) or '
  'location_ambiguous (PT409).';
revoke all on function public.location_id(text) from public, anon, authenticated, service_role;
grant execute on function public.location_id(text) to authenticated, service_role;
