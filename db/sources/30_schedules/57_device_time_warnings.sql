-- Device time: what is allowed but probably not meant.

create or replace function fleet.device_time_warnings(p_schedule public.schedules, p_now timestamptz)
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  -- So many are named; the rest is counted.
  c_named constant integer := 5;
  v_recurrence jsonb := p_schedule.recurrence;
  v_zones text[] := fleet.schedule_zones(p_schedule);
  v_warnings text[] := '{}';
  v_from timestamptz := greatest(p_now, (v_recurrence ->> 'from')::timestamptz);
  v_names text[];
  v_local timestamp;
begin
  if p_schedule.status = 'active' and not p_schedule.policies ? 'max_runs' then
    -- The first occurrence that is yet to come anywhere, and where it has passed.
    select w.local into v_local
    from fleet.walls_within(
      v_recurrence - 'from', fleet.different_zones(v_recurrence - 'from', v_zones, v_from, v_from + interval '1 day'),
      v_from, v_from + interval '1 day'
    ) as w
    cross join lateral fleet.zone_instants(v_recurrence - 'from', w.local, w.fold, w.zones) as z
    where w.fold = 0
    group by w.local
    having max(z.due_at) >= v_from
    order by w.local
    limit 1;
    v_names := (
      select array_agg(z.zone order by z.zone) from fleet.zone_instants(v_recurrence - 'from', v_local, 0, v_zones) as z where z.due_at < v_from
    );
    if v_names is not null then
      v_warnings := v_warnings || format(
        '%s has passed in %s: there it begins with the next', to_char(v_local, 'YYYY-MM-DD HH24:MI'), fleet.few_named(v_names, c_named)
      );
    end if;
  end if;

  -- One more than are named tells whether there are others.
  select array_agg(n.hostname) into v_names
  from (
    select t.hostname
    from fleet.targets_in_zones(
      p_schedule.owner_id, p_schedule.device_ids, p_schedule.group_ids, p_schedule.selector, array[''], null, 1, 0, c_named + 1
    ) as t
  ) as n;
  if v_names is not null then
    v_warnings := v_warnings || format(
      '%s %s: %s', fleet.few_named(v_names, c_named),
      case cardinality(v_names) when 1 then 'has no time zone' else 'have no time zone' end,
      case when fleet.unknown_zone(v_recurrence) is null then 'left out (unknown_zone: skip)' else 'taken to be in ' || fleet.unknown_zone(v_recurrence) end
    );
  end if;
  return v_warnings;
end;
$$;

comment on function fleet.device_time_warnings(public.schedules, timestamptz) is
  'In which zones the first occurrence of a schedule by device time has passed already, and which of its devices have no time zone.';
revoke all on function fleet.device_time_warnings(public.schedules, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.few_named(p_names text[], p_most integer)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select array_to_string(p_names[1:p_most], ', ') || case when cardinality(p_names) > p_most then ' and others' else '' end
$$;

comment on function fleet.few_named(text[], integer) is 'The first of these names, and whether there are more.';
revoke all on function fleet.few_named(text[], integer) from public, anon, authenticated, service_role;
