-- What is wrong with a schedule: everything at once, each with its field and what to do.

create or replace function fleet.payload_problems(p_command_type text, p_payload jsonb, p_field text default 'payload')
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select 'action_type', coalesce('"' || nullif(p_command_type, '') || '" is not a known command type', 'is missing'),
    'List them with: select name, description from command_types'
  where not exists (select 1 from public.command_types as t where t.name = p_command_type)
  union all
  select p_field || '.' || k.key, 'is missing',
    format('%s needs "%s" (%s).', p_command_type, k.key, coalesce(k.value ->> 'type', 'any type'))
  from public.command_types as t
  cross join jsonb_each(t.payload_keys) as k
  where t.name = p_command_type
    and (k.value -> 'required') = 'true'::jsonb
    and coalesce(jsonb_typeof(p_payload -> k.key), 'null') = 'null'
  union all
  select p_field || '.' || k.key, format('must be a %s, not a %s', k.value ->> 'type', jsonb_typeof(p_payload -> k.key)),
    format('Example: {"%s": %s}', k.key, coalesce(k.value -> 'example', to_jsonb(k.value ->> 'type')))
  from public.command_types as t
  cross join jsonb_each(t.payload_keys) as k
  where t.name = p_command_type
    and p_payload ? k.key
    and jsonb_typeof(p_payload -> k.key) <> 'null'
    and jsonb_typeof(p_payload -> k.key) <> (k.value ->> 'type')
  union all
  select p_field || '.' || k.key, format('%s is not one of %s', p_payload -> k.key, k.value -> 'choices'),
    'Use one of the values named.'
  from public.command_types as t
  cross join jsonb_each(t.payload_keys) as k
  where t.name = p_command_type
    and k.value ? 'choices'
    and p_payload ? k.key
    and not (k.value -> 'choices') @> (p_payload -> k.key)
$$;

comment on function fleet.payload_problems(text, jsonb, text) is
  'What a payload lacks for its command type: missing keys, wrong types, values that are no choice.';
revoke all on function fleet.payload_problems(text, jsonb, text) from public, anon, authenticated, service_role;

create or replace function fleet.target_problems(
  p_owner_id uuid,
  p_device_ids bigint[],
  p_group_ids bigint[],
  p_selector jsonb
)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select 'device_ids', format('device %s was not found', u.id), 'List your devices with: pgfleet device list'
  from unnest(p_device_ids) as u(id)
  where not exists (select 1 from public.devices as d where d.id = u.id and d.owner_id = p_owner_id)
  union all
  select 'group_ids', format('group %s was not found', u.id), 'List your groups with: pgfleet group list'
  from unnest(p_group_ids) as u(id)
  where not exists (select 1 from public.device_groups as g where g.id = u.id and g.owner_id = p_owner_id)
  union all
  select s.field, s.problem, s.hint from fleet.selector_problems(p_selector) as s
  union all
  select 'device_ids', 'names nobody: there is no device, group or selector',
    'Give device_ids, group_ids or a selector; an empty selector {} means every device.'
  where p_device_ids = '{}' and p_group_ids = '{}' and p_selector is null
$$;

comment on function fleet.target_problems(uuid, bigint[], bigint[], jsonb) is
  'Targets that do not exist for this owner. What belongs to another owner is as good as not there.';
revoke all on function fleet.target_problems(uuid, bigint[], bigint[], jsonb)
  from public, anon, authenticated, service_role;

create or replace function fleet.schedule_problems(p_old public.schedules, p_new public.schedules)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Of another owner, everything that it names is another's.
  v_is_new boolean := p_old.id is null or p_old.owner_id <> p_new.owner_id;
begin
  if btrim(coalesce(p_new.name, '')) = '' then
    return next ('name', 'must not be blank', 'Give the schedule a name.')::fleet.problem;
  end if;
  if v_is_new
    or (p_old.timezone, p_old.recurrence_type, p_old.recurrence_config, p_old.start_time, p_old.end_time)
      is distinct from (p_new.timezone, p_new.recurrence_type, p_new.recurrence_config, p_new.start_time, p_new.end_time)
  then
    return query select q.* from fleet.time_problems(p_new) as q;
  end if;
  if p_new.priority not between -100 and 100 then
    return next (
      'priority', format('%s is not within -100 to 100', p_new.priority), 'The default is 0; higher goes first.'
    )::fleet.problem;
  end if;
  if v_is_new or (p_old.action_type, p_old.payload) is distinct from (p_new.action_type, p_new.payload) then
    if jsonb_typeof(p_new.payload) = 'object' then
      return query select q.* from fleet.payload_problems(p_new.action_type, p_new.payload) as q;
    else
      return next ('payload', 'must be an object', 'Example: {"message": "Hello"}')::fleet.problem;
    end if;
  end if;
  if v_is_new or fleet.targets_changed(p_old, p_new) then
    return query
    select q.* from fleet.target_problems(p_new.owner_id, p_new.device_ids, p_new.group_ids, p_new.selector) as q;
  end if;
  if v_is_new or (p_old.after_schedule_id, p_old.after_on) is distinct from (p_new.after_schedule_id, p_new.after_on) then
    return query select q.* from fleet.follow_problems(p_new) as q;
  end if;
  if v_is_new or p_old.policies is distinct from p_new.policies then
    if jsonb_typeof(p_new.policies) = 'object' then
      return query select q.* from fleet.blackout_problems(p_new.owner_id, p_new.policies) as q;
      return query select q.* from fleet.policy_problems(p_new.policies) as q;
    else
      return next ('policies', 'must be an object', 'Example: {"overlap": "allow"}')::fleet.problem;
    end if;
  end if;
end;
$$;

comment on function fleet.schedule_problems(public.schedules, public.schedules) is
  'Everything that is wrong with the new row of a schedule in what differs from the old one; an old row without an id is none. No row '
  'where nothing is.';
revoke all on function fleet.schedule_problems(public.schedules, public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.time_problems(p_schedule public.schedules)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_is_zone boolean := fleet.is_time_zone(p_schedule.timezone);
begin
  if p_schedule.timezone <> 'device' and not v_is_zone then
    return next (
      'timezone', format('"%s" is not a known time zone', p_schedule.timezone), 'Use an IANA name such as Europe/Berlin.'
    )::fleet.problem;
  end if;
  return query
  select r.*
  from fleet.recurrence_problems(
    p_schedule.recurrence_type, p_schedule.recurrence_config, fleet.reference_zone(p_schedule)
  ) as r
  where r.field <> 'timezone';
  if p_schedule.start_time > p_schedule.end_time then
    return next ('start_time', 'is after end_time', 'Let the schedule start before it ends.')::fleet.problem;
  end if;
  return query
  select b.*
  from fleet.bounds_problems(
    fleet.recurrence_type(p_schedule.recurrence_type), fleet.recurrence_settings(p_schedule.recurrence_config),
    case when v_is_zone then p_schedule.timezone else 'UTC' end,
    p_schedule.start_time, p_schedule.end_time
  ) as b
  where b.field <> 'end_time' or p_schedule.end_time = '-infinity';
end;
$$;

comment on function fleet.time_problems(public.schedules) is
  'What is wrong with when a schedule is due: its zone, its recurrence and its bounds.';
revoke all on function fleet.time_problems(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.raise_problems(p_what text, p_reason text, p_problems fleet.problem[])
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if coalesce(cardinality(p_problems), 0) = 0 then
    return;
  end if;

  raise exception '% is not valid: %', p_what, (
    select string_agg(p.field || ': ' || p.problem, '; ') from unnest(p_problems) as p
  )
    using errcode = case
            when (select bool_and(p.problem like '% was not found') from unnest(p_problems) as p) then 'PT404'
            else 'PT422'
          end,
          detail = p_reason,
          hint = (
            select string_agg(regexp_replace(h.hint, '[.]?$', '.'), ' ' order by h.n)
            from (
              select p.hint, min(p.n) as n
              from unnest(p_problems) with ordinality as p(field, problem, hint, n)
              where p.hint <> ''
              group by p.hint
            ) as h
          );
end;
$$;

comment on function fleet.raise_problems(text, text, fleet.problem[]) is
  'One error that names every wrong field; PT404 where all that is wrong is that something was not found, else PT422. No problem, no '
  'error.';
revoke all on function fleet.raise_problems(text, text, fleet.problem[]) from public, anon, authenticated, service_role;
