-- How many devices a change reaches, for whoever tries it first.

create or replace function public.count_touched_devices(p_kind text, p_ids bigint[])
returns integer
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Row security limits everything to the caller's own.
  return (
    select count(distinct t.device_id)
    from (
      select d.id as device_id from public.devices as d where p_kind = 'device' and d.id = any (p_ids)
      union all
      select c.device_id from public.device_commands as c where p_kind = 'command' and c.id = any (p_ids)
      union all
      select p.device_id from public.device_places as p where p_kind = 'location' and p.location_id = any (p_ids) and p.is_inside
      union all
      select l.device_id
      from public.device_links as l
      where p_kind = 'integration' and l.integration_id = any (p_ids) and l.left_at is null
      union all
      select i.device_id from public.profile_installs as i where p_kind = 'install' and i.id = any (p_ids)
      union all
      select h.device_id
      from public.profiles as f
      join public.device_profiles as h on h.profile_id = f.external_id and h.owner_id = f.owner_id and h.is_installed
      where p_kind = 'profile' and f.id = any (p_ids)
      union all
      select d.id
      from (
        select s.owner_id, s.device_ids, s.group_ids, s.selector
        from public.schedules as s
        where p_kind = 'schedule' and s.id = any (p_ids)
        union all
        select g.owner_id, '{}', array[g.id], null
        from public.device_groups as g
        where p_kind = 'group' and g.id = any (p_ids)
        union all
        select a.owner_id, a.device_ids, a.group_ids, a.selector
        from public.profile_assignments as a
        where p_kind = 'assignment' and a.id = any (p_ids)
        union all
        select q.owner_id, '{}', array_remove(array[q.group_id], null),
          case when q.group_id is null then coalesce(q.selector, '{}') else q.selector end
        from public.location_policies as q
        where p_kind = 'location_policy' and q.id = any (p_ids)
        union all
        select g.owner_id, array_remove(array[g.device_id], null), array_remove(array[g.group_id], null), null
        from public.geo_schedules as g
        where p_kind = 'geo_schedule' and g.id = any (p_ids)
      ) as w
      join public.devices as d on d.owner_id = w.owner_id and d.status = 'active'
      where d.id = any (w.device_ids)
        or (w.selector is not null and fleet.device_matches(w.selector, d.tags, d.platform, d.attributes, d.reported))
        or d.id in (
          select m.id from unnest(w.group_ids) as u(id) cross join lateral public.group_devices(u.id) as m
        )
    ) as t
  );
end;
$$;

comment on function public.count_touched_devices(text, bigint[]) is
  'How many devices a change of these things reaches: device, group, schedule, command, location, location_policy, geo_schedule, '
  'integration, install, profile or assignment. What is not yours counts for nothing.';
revoke all on function public.count_touched_devices(text, bigint[]) from public, anon, authenticated, service_role;
grant execute on function public.count_touched_devices(text, bigint[]) to authenticated, service_role;
