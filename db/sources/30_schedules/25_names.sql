-- Names instead of ids, so that what was written for one fleet means the same in another.

create or replace function fleet.schedule_by_name(p_owner_id uuid, p_name text)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules;
  v_ids bigint[];
begin
  select array_agg(s.id order by s.id) into v_ids
  from public.schedules as s
  where s.owner_id = p_owner_id and lower(s.name) = lower(p_name) and s.status in ('active', 'paused');
  if cardinality(v_ids) > 1 then
    raise exception 'schedule "%" is ambiguous: ids %', p_name, array_to_string(v_ids, ', ')
      using errcode = 'PT409', detail = 'schedule_ambiguous', hint = 'Rename or cancel all of them but one.';
  end if;

  -- What is cancelled is gone; what is completed is still there, unless something of its name lives.
  select s.* into v_row
  from public.schedules as s
  where s.owner_id = p_owner_id and lower(s.name) = lower(p_name) and s.status <> 'cancelled'
  order by s.status = 'completed', s.created_at desc, s.id desc
  limit 1;
  return v_row;
end;
$$;

comment on function fleet.schedule_by_name(uuid, text) is
  'The schedule that a name means: the living one, else the latest completed one; null where there is none. Raises schedule_ambiguous '
  '(PT409).';
revoke all on function fleet.schedule_by_name(uuid, text) from public, anon, authenticated, service_role;

create or replace function fleet.name_problems(p_owner_id uuid, p_spec jsonb)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if not p_spec ?| '{devices,groups,after}' then
    return;
  end if;

  return query
  with lists as (
    select k.key, p_spec -> k.key as list
    from (values ('devices'), ('groups')) as k(key)
    where p_spec ? k.key and p_spec -> k.key <> 'null'
  ),
  named as (
    select l.key, e.item
    from lists as l
    cross join lateral jsonb_array_elements(case when jsonb_typeof(l.list) = 'array' then l.list else '[]' end) as e(item)
  )
  select l.key, 'must be a list of names', format('Example: {"%s": ["one", "two"]}', l.key)
  from lists as l
  where jsonb_typeof(l.list) <> 'array' or jsonb_path_exists(l.list, 'strict $[*] ? (@.type() != "string")', '{}', true)
  union all
  select n.key, p.problem, p.hint
  from named as n
  cross join lateral fleet.elsewhere_problem('device', n.item::text, (
    select d.owner_id from public.devices as d
    where lower(d.hostname) = lower(n.item #>> '{}') and fleet.is_visible_owner(d.owner_id)
    limit 1
  )) as p
  where n.key = 'devices'
    and jsonb_typeof(n.item) = 'string'
    and not exists (
      select 1 from public.devices as d where d.owner_id = p_owner_id and lower(d.hostname) = lower(n.item #>> '{}')
    )
  union all
  select n.key, p.problem, p.hint
  from named as n
  cross join lateral fleet.elsewhere_problem('group', n.item::text, (
    select g.owner_id from public.device_groups as g
    where lower(g.name) = lower(n.item #>> '{}') and fleet.is_visible_owner(g.owner_id)
    limit 1
  )) as p
  where n.key = 'groups'
    and jsonb_typeof(n.item) = 'string'
    and not exists (
      select 1 from public.device_groups as g where g.owner_id = p_owner_id and lower(g.name) = lower(n.item #>> '{}')
    )
  union all
  select 'after.schedule', 'must be a name', 'Example: {"after": {"schedule": "Nightly backup", "on": "completed"}}'
  where jsonb_typeof(p_spec #> '{after,schedule}') not in ('string', 'null')
  union all
  select 'after.schedule', format('schedule %s was not found', p_spec #> '{after,schedule}'),
    'List your schedules with: select * from schedule_list'
  where jsonb_typeof(p_spec #> '{after,schedule}') = 'string'
    and (fleet.schedule_by_name(p_owner_id, p_spec #>> '{after,schedule}')).id is null;
end;
$$;

comment on function fleet.name_problems(uuid, jsonb) is
  'Names in a specification that stand for nothing of this owner. What belongs to another owner is as good as not there, but for whoever '
  'sees it there.';
revoke all on function fleet.name_problems(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.with_ids(p_owner_id uuid, p_spec jsonb)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if not p_spec ?| '{devices,groups,after}' then
    return p_spec;
  end if;

  return (p_spec - '{devices,groups}'::text[])
    || case
      when jsonb_typeof(p_spec -> 'devices') = 'array' then jsonb_build_object('device_ids', (
        select coalesce(jsonb_agg(d.id), '[]') || coalesce(nullif(p_spec -> 'device_ids', 'null'), '[]')
        from public.devices as d
        where d.owner_id = p_owner_id
          and lower(d.hostname) in (select lower(e.item #>> '{}') from jsonb_array_elements(p_spec -> 'devices') as e(item))
      ))
      else '{}'
    end
    || case
      when jsonb_typeof(p_spec -> 'groups') = 'array' then jsonb_build_object('group_ids', (
        select coalesce(jsonb_agg(g.id), '[]') || coalesce(nullif(p_spec -> 'group_ids', 'null'), '[]')
        from public.device_groups as g
        where g.owner_id = p_owner_id
          and lower(g.name) in (select lower(e.item #>> '{}') from jsonb_array_elements(p_spec -> 'groups') as e(item))
      ))
      else '{}'
    end
    || case
      when jsonb_typeof(p_spec #> '{after,schedule}') = 'null' then jsonb_build_object('after', (p_spec -> 'after') - 'schedule')
      when p_spec #> '{after,schedule}' is not null then jsonb_build_object('after', (
        select case when f.id is null then 'null' else ((p_spec -> 'after') - 'schedule') || jsonb_build_object('schedule_id', f.id) end
        from fleet.schedule_by_name(p_owner_id, p_spec #>> '{after,schedule}') as f
      ))
      else '{}'
    end;
end;
$$;

comment on function fleet.with_ids(uuid, jsonb) is
  'A specification with devices, groups and after.schedule turned into ids; what stands for nothing is left out. Names of calendars are '
  'understood anyway.';
revoke all on function fleet.with_ids(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.resolved_spec(p_owner_id uuid, p_spec jsonb)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.raise_problems('the schedule', 'schedule_invalid', array_agg(q))
  from fleet.name_problems(p_owner_id, p_spec) as q;
  return fleet.with_ids(p_owner_id, p_spec);
end;
$$;

comment on function fleet.resolved_spec(uuid, jsonb) is
  'A specification with names turned into ids. Raises schedule_invalid (PT404) naming each that was not found.';
revoke all on function fleet.resolved_spec(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function public.schedule_id(p_name text)
returns bigint
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.only_one(
    'schedule', p_name,
    array(select x.id::text from public.schedules as x where lower(x.name) = lower(p_name) order by x.id),
    (select x.id::text from public.schedules as x where x.id = fleet.try_bigint(p_name))
  )::bigint
$$;

comment on function public.schedule_id(text) is
  'The schedule that a name or an id means, whatever its status; a name in any case, and it wins over an id. Raises schedule_not_found (PT404) or '
  'schedule_ambiguous (PT409).';
revoke all on function public.schedule_id(text) from public, anon, authenticated, service_role;
grant execute on function public.schedule_id(text) to authenticated, service_role;
