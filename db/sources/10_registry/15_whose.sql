-- Whose a request is: the owner of the devices and groups that it names.

create or replace function fleet.owner_of_named(
  p_device_ids bigint[],
  p_group_ids bigint[],
  p_devices text[] default '{}',
  p_groups text[] default '{}'
)
returns uuid
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- A list of ids is planned anew at each call otherwise, as if its length mattered.
set plan_cache_mode = force_generic_plan
as $$
declare
  -- Null means all of them. What the caller does not see tells nothing: it is as good as not there.
  v_seen uuid[];
  v_owners uuid[];
  v_usual uuid;
  v_examples text;
begin
  if not fleet.is_trusted_caller() then
    v_seen := array(select o.id from fleet.my_owners() as o(id));
  end if;
  if p_devices = '{}' and p_groups = '{}' and p_group_ids = '{}' then
    -- Most name devices by their ids: one look at their key, planned at a tenth of the cost of what follows.
    v_owners := array(
      select d.owner_id
      from public.devices as d
      where d.id = any (p_device_ids) and (v_seen is null or d.owner_id = any (v_seen))
      group by d.owner_id
    );
    if cardinality(v_owners) <= 1 then
      return v_owners[1];
    end if;
  end if;

  with named as materialized (
    select d.id::text as id, 'device ' || d.id as item, d.owner_id
    from public.devices as d
    where d.id = any (p_device_ids) and (v_seen is null or d.owner_id = any (v_seen))
    union
    select g.id::text, 'group ' || g.id, g.owner_id
    from public.device_groups as g
    where g.id = any (p_group_ids) and (v_seen is null or g.owner_id = any (v_seen))
    union
    select 'name', format('device "%s"', lower(d.hostname)), d.owner_id
    from public.devices as d
    where lower(d.hostname) in (select lower(n) from unnest(p_devices) as n) and (v_seen is null or d.owner_id = any (v_seen))
    union
    select 'name', format('group "%s"', lower(g.name)), g.owner_id
    from public.device_groups as g
    where lower(g.name) in (select lower(n) from unnest(p_groups) as n) and (v_seen is null or g.owner_id = any (v_seen))
  ),
  shared as (
    -- Who has each of them.
    select n.owner_id
    from named as n
    group by n.owner_id
    having count(*) = (select count(distinct x.item) from named as x)
  )
  select
    (select array_agg(s.owner_id) from shared as s),
    (
      select string_agg(format('%s of "%s"', e.item, o.name), ', ' order by e.item)
      from (select distinct on (n.owner_id) n.item, n.owner_id from named as n order by n.owner_id, n.item) as e
      join public.owners as o on o.id = e.owner_id
    )
  into v_owners, v_examples;

  if cardinality(v_owners) = 1 or v_examples is null then
    return v_owners[1];
  elsif v_owners is null then
    raise exception 'what is named has several owners: %', fleet.cut_text(v_examples, 500)
      using errcode = 'PT422', detail = 'owners_differ', hint = 'Name devices and groups of one owner in one request.';
  end if;
  v_usual := fleet.usual_owner();
  if v_usual = any (v_owners) then
    return v_usual;
  end if;
  raise exception 'several owners have what is named: %', fleet.cut_text(v_examples, 500)
    using errcode = 'PT409', detail = 'owner_ambiguous', hint = 'Say whose it is with owner_id, or name ids.';
end;
$$;

comment on function fleet.owner_of_named(bigint[], bigint[], text[], text[]) is
  'The one owner of the devices and groups that are named, among those that the caller sees; null where nothing known is named. Of names that '
  'several have it is the usual owner''s. Raises owners_differ (PT422) or owner_ambiguous (PT409).';
revoke all on function fleet.owner_of_named(bigint[], bigint[], text[], text[]) from public, anon, authenticated, service_role;

create or replace function fleet.owner_of_spec(p_spec jsonb)
returns uuid
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if jsonb_typeof(p_spec) is distinct from 'object' then
    return null;
  elsif fleet.try_uuid(p_spec ->> 'owner_id') is not null then
    return (p_spec ->> 'owner_id')::uuid;
  elsif not p_spec ?| '{device_id,device_ids,device,devices,group_id,group_ids,group,groups}' then
    return null;
  elsif jsonb_typeof(p_spec -> 'device_ids') = 'array'
    and not p_spec ?| '{device_id,device,devices,group_id,group_ids,group,groups}'
  then
    -- Most name devices by their ids.
    return fleet.owner_of_named(
      array(select fleet.try_bigint(e.id) from jsonb_array_elements_text(p_spec -> 'device_ids') as e(id)), '{}'
    );
  end if;
  return (
    select fleet.owner_of_named(
      coalesce(array_agg(fleet.try_bigint(n.value)) filter (where n.key in ('device_id', 'device_ids')), '{}'),
      coalesce(array_agg(fleet.try_bigint(n.value)) filter (where n.key in ('group_id', 'group_ids')), '{}'),
      coalesce(array_agg(n.value) filter (where n.key in ('device', 'devices')), '{}'),
      coalesce(array_agg(n.value) filter (where n.key in ('group', 'groups')), '{}')
    )
    from (
      select k.key, e.item #>> '{}' as value
      from jsonb_each(p_spec) as k
      cross join lateral jsonb_array_elements(
        case when jsonb_typeof(k.value) = 'array' then k.value else jsonb_build_array(k.value) end
      ) as e(item)
      where k.key in ('device_id', 'device_ids', 'device', 'devices', 'group_id', 'group_ids', 'group', 'groups')
        and jsonb_typeof(e.item) in ('string', 'number')
    ) as n
  );
end;
$$;

comment on function fleet.owner_of_spec(jsonb) is
  'The owner that a specification names by owner_id, else by its devices and groups, ids or names; null where it names none. Raises as '
  'owner_of_named does.';
revoke all on function fleet.owner_of_spec(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.elsewhere_problem(p_kind text, p_shown text, p_owner_id uuid)
returns table (problem text, hint text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_name text := (select o.name from public.owners as o where o.id = p_owner_id and fleet.is_visible_owner(o.id));
begin
  if v_name is null then
    return query
    select format('%s %s was not found', p_kind, p_shown), format('List your %ss with: select * from %s_list', p_kind, p_kind);
    return;
  end if;
  return query
  select format('%s %s belongs to another owner, "%s"', p_kind, p_shown, fleet.cut_text(v_name, 60)),
    'Name devices and groups of one owner in one request.';
end;
$$;

comment on function fleet.elsewhere_problem(text, text, uuid) is
  'What to say of a device or group that this owner does not have: whose it is, to a caller who sees it there; to any other that it was not '
  'found.';
revoke all on function fleet.elsewhere_problem(text, text, uuid) from public, anon, authenticated, service_role;
