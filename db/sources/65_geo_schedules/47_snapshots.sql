-- What a geo schedule keeps of its location and categories: what is changed later is an update of it, not a way around it.

create or replace function fleet.geo_schedule_with_snapshots(p_row public.geo_schedules)
returns public.geo_schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.geo_schedules := p_row;
begin
  v_row.blocked_apps := array(
    select distinct x.app
    from (
      select unnest(p_row.apps) as app
      union all
      select unnest(c.apps)
      from public.app_categories as c
      where c.owner_id = p_row.owner_id
        and lower(c.name) in (select lower(n.name) from unnest(p_row.categories) as n(name))
    ) as x
    order by x.app
  );
  if cardinality(v_row.blocked_apps) > 2000 then
    perform fleet.raise_problems('the geo schedule', 'geo_schedule_invalid', array[
      row('categories', format('make %s apps with those named', cardinality(v_row.blocked_apps)), 'At most 2000 in all.')::fleet.problem
    ]);
  end if;
  v_row.geometry := (
    select fleet.without_nulls(jsonb_build_object(
      'kind', l.kind, 'latitude', l.latitude, 'longitude', l.longitude, 'radius_m', l.radius_m, 'polygon', l.polygon,
      'reach_m', l.reach_m, 'hysteresis_m', l.hysteresis_m
    ))
    from public.locations as l
    where l.id = p_row.location_id and l.owner_id = p_row.owner_id
  );
  return v_row;
end;
$$;

comment on function fleet.geo_schedule_with_snapshots(public.geo_schedules) is
  'The row with blocked_apps and geometry as they are now. Raises geo_schedule_invalid (PT422) where the categories hold too much.';
revoke all on function fleet.geo_schedule_with_snapshots(public.geo_schedules) from public, anon, authenticated, service_role;

create or replace function fleet.is_category_used(p_category public.app_categories)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select 1
    from public.geo_schedules as s
    where s.owner_id = p_category.owner_id
      and s.deletion_status is null
      and lower(p_category.name) in (select lower(n.name) from unnest(s.categories) as n(name))
  )
$$;

comment on function fleet.is_category_used(public.app_categories) is 'Whether a live geo schedule names the category.';
revoke all on function fleet.is_category_used(public.app_categories) from public, anon, authenticated, service_role;
