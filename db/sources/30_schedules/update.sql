-- Changing and deleting a schedule.

create or replace function fleet.schedule_spec(p_schedule public.schedules)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.without_nulls(jsonb_build_object(
    'name', p_schedule.name,
    'description', p_schedule.description,
    'action_type', p_schedule.action_type,
    'payload', p_schedule.payload,
    'recurrence_type', p_schedule.recurrence_type,
    'recurrence_config', p_schedule.recurrence_config,
    'start_time', fleet.instant_text(p_schedule.start_time),
    'end_time', fleet.instant_text(p_schedule.end_time),
    'timezone', p_schedule.timezone,
    'device_ids', to_jsonb(p_schedule.device_ids),
    'group_ids', to_jsonb(p_schedule.group_ids),
    'selector', p_schedule.selector,
    'profile_id', p_schedule.profile_id,
    'device_id', p_schedule.device_id,
    'policies', p_schedule.policies,
    'priority', p_schedule.priority,
    'ui_initiated', p_schedule.ui_initiated,
    'after_schedule_id', p_schedule.after_schedule_id,
    'after_on', p_schedule.after_on
  ))
$$;

comment on function fleet.schedule_spec(public.schedules) is 'The specification that would make this schedule.';
revoke all on function fleet.schedule_spec(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.without_nulls(p_object jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_object_agg(e.key, e.value), '{}')
  from jsonb_each(p_object) as e
  where e.value <> 'null'
$$;

comment on function fleet.without_nulls(jsonb) is 'The object without its keys of value null; inner objects stay as they are.';
revoke all on function fleet.without_nulls(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.changed_spec(p_spec jsonb, p_changes jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  -- Null empties what may be empty, and says nothing about everything else.
  select (
      p_spec
      - case when p_changes ? 'after' then '{after_schedule_id,after_on}'::text[] else '{}' end
      -- Settings of another kind of recurrence would only be in the way.
      - case
        when p_changes ->> 'recurrence_type' <> p_spec ->> 'recurrence_type' then '{recurrence_config}'::text[]
        else '{}'
      end
      - array(
        select e.key
        from jsonb_each(p_changes) as e
        where e.value = 'null'
          and e.key in ('end_time', 'selector', 'profile_id', 'device_id', 'after_schedule_id', 'after_on')
      )
    ) || fleet.without_nulls(p_changes)
$$;

comment on function fleet.changed_spec(jsonb, jsonb) is
  'A specification with changes: null clears end_time, selector, profile_id, device_id and after, and is ignored elsewhere.';
revoke all on function fleet.changed_spec(jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.schedule_with_changes(p_old public.schedules, p_changes jsonb)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_spec jsonb;
  v_row public.schedules;
  v_problems fleet.problem[];
  v_fields text[];
begin
  if jsonb_typeof(p_changes) is distinct from 'object' then
    raise exception 'changes of a schedule must be a JSON object'
      using errcode = 'PT422', detail = 'schedule_invalid', hint = 'Example: {"name": "Nightly", "priority": 5}';
  end if;

  v_spec := fleet.normal_schedule_spec(p_changes);
  v_problems := array(
    select t from fleet.name_problems(p_old.owner_id, v_spec) as t
    union all
    select t from fleet.spec_type_problems(fleet.with_ids(p_old.owner_id, v_spec)) as t
    union all
    select ('owner_id', 'cannot be changed', 'Create the schedule anew for the other owner.')::fleet.problem
    where p_old.owner_id is not null
      and fleet.try_uuid(v_spec ->> 'owner_id') <> p_old.owner_id
  );
  v_fields := array(select p.field from unnest(v_problems) as p);

  -- What has the wrong type stays as it was, so that everything else is still checked in the same answer.
  v_row := fleet.schedule_from_spec(fleet.changed_spec(
    fleet.schedule_spec(p_old),
    fleet.with_ids(p_old.owner_id, v_spec) - 'owner_id' - coalesce((select array_agg(split_part(f, '.', 1)) from unnest(v_fields) as f), '{}')
  ));
  v_row.id := p_old.id;
  v_row.owner_id := p_old.owner_id;
  v_row.status := coalesce(p_old.status, 'active');

  perform fleet.raise_problems('the schedule', 'schedule_invalid', v_problems || array_agg(q))
  from fleet.schedule_problems(fleet.completed_schedule(fleet.changed_schedule(p_old, v_row))) as q
  where q.field <> all (v_fields)
    -- Whoever is named but unknown is not nobody.
    and not (q.field = 'device_ids' and v_fields && '{devices,groups}');
  if p_old.id is null then
    -- An insert has no old row to tell by which of two twin columns is meant.
    return fleet.changed_schedule(p_old, v_row);
  end if;
  return v_row;
end;
$$;

comment on function fleet.schedule_with_changes(public.schedules, jsonb) is
  'The row as it is to be written; what follows from it is left to the trigger. Raises schedule_invalid naming every wrong field.';
revoke all on function fleet.schedule_with_changes(public.schedules, jsonb)
  from public, anon, authenticated, service_role;

create or replace function fleet.store_schedule(p_row public.schedules)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id bigint := p_row.id;
begin
  if v_id is null then
    insert into public.schedules as s (
      owner_id, name, description, action_type, payload, recurrence_type, recurrence_config, start_time, end_time, timezone,
      device_ids, group_ids, selector, profile_id, device_id, policies, priority, ui_initiated, after_schedule_id, after_on, status
    )
    values (
      p_row.owner_id, p_row.name, p_row.description, p_row.action_type, p_row.payload, p_row.recurrence_type,
      p_row.recurrence_config, p_row.start_time, p_row.end_time, p_row.timezone, p_row.device_ids, p_row.group_ids,
      p_row.selector, p_row.profile_id, p_row.device_id, p_row.policies, p_row.priority, p_row.ui_initiated,
      p_row.after_schedule_id, p_row.after_on, p_row.status
    )
    returning s.id into v_id;
    return v_id;
  end if;

  update public.schedules as s
  set name = p_row.name,
      description = p_row.description,
      action_type = p_row.action_type,
      payload = p_row.payload,
      recurrence_type = p_row.recurrence_type,
      recurrence_config = p_row.recurrence_config,
      start_time = p_row.start_time,
      end_time = p_row.end_time,
      timezone = p_row.timezone,
      device_ids = p_row.device_ids,
      group_ids = p_row.group_ids,
      selector = p_row.selector,
      profile_id = p_row.profile_id,
      device_id = p_row.device_id,
      policies = p_row.policies,
      priority = p_row.priority,
      ui_initiated = p_row.ui_initiated,
      after_schedule_id = p_row.after_schedule_id,
      after_on = p_row.after_on
  where s.id = v_id;
  return v_id;
end;
$$;

comment on function fleet.store_schedule(public.schedules) is
  'Insert the row, with its status, where it has no id; else bring the row of that id to it, without its status.';
revoke all on function fleet.store_schedule(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.schedule_answer(p_schedule_id bigint)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select to_jsonb(s) || jsonb_build_object('warnings', fleet.schedule_warnings(s))
  from public.schedules as s
  where s.id = p_schedule_id
$$;

comment on function fleet.schedule_answer(bigint) is 'The row of a schedule with its warnings.';
revoke all on function fleet.schedule_answer(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.update_schedule(p_schedule_id bigint, p_changes jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_old public.schedules := fleet.schedule_of_caller(p_schedule_id, 'manage');
begin
  if v_old.status = 'cancelled' then
    raise exception 'schedule % is cancelled', p_schedule_id
      using errcode = 'PT409',
            detail = 'schedule_cancelled',
            hint = format('Make a new one of it: pgfleet schedule duplicate %s', p_schedule_id);
  end if;
  perform fleet.store_schedule(fleet.schedule_with_changes(v_old, p_changes));
  return fleet.schedule_answer(p_schedule_id);
end;
$$;

comment on function fleet.update_schedule(bigint, jsonb) is
  'See public.update_schedule. Definer: it checks the caller first, then sees what the checks need to see.';
revoke all on function fleet.update_schedule(bigint, jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.update_schedule(bigint, jsonb) to authenticated, service_role;

create or replace function public.update_schedule(p_schedule_id bigint, p_changes jsonb)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.update_schedule(p_schedule_id, p_changes)
$$;

comment on function public.update_schedule(bigint, jsonb) is
  'Change a schedule by the keys of create_schedule; what is not named stays, and objects such as policies are replaced as a whole. The '
  'next run is computed anew where times changed; history stays. Answers the row with "warnings". Raises schedule_not_found (PT404), permission_missing (PT403), schedule_invalid '
  '(PT422) naming every wrong field, or schedule_cancelled (PT409).';
revoke all on function public.update_schedule(bigint, jsonb) from public, anon, authenticated, service_role;
grant execute on function public.update_schedule(bigint, jsonb) to authenticated, service_role;

create or replace function fleet.delete_schedule(p_schedule_id bigint)
returns public.schedules
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules := fleet.schedule_of_caller(p_schedule_id, 'manage');
begin
  delete from public.schedules as s where s.id = p_schedule_id;
  return v_row;
end;
$$;

comment on function fleet.delete_schedule(bigint) is 'See public.delete_schedule. Definer: it checks the caller.';
revoke all on function fleet.delete_schedule(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.delete_schedule(bigint) to authenticated, service_role;

create or replace function public.delete_schedule(p_schedule_id bigint)
returns public.schedules
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.delete_schedule(p_schedule_id)
$$;

comment on function public.delete_schedule(bigint) is
  'Delete a schedule with its runs and commands; to keep the history, cancel it instead. Answers the row as it was. Raises '
  'schedule_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.delete_schedule(bigint) from public, anon, authenticated, service_role;
grant execute on function public.delete_schedule(bigint) to authenticated, service_role;
