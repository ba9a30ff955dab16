-- create_schedule: from the JSON of a person, a script or an older system to a row.

create or replace function fleet.schedule_aliases()
returns table (alias text, name text)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  values
    ('task_name', 'name'),
    ('task_type', 'action_type'),
    ('scheduled_time', 'start_time'),
    ('command_payload', 'payload'),
    ('software_payload', 'payload'),
    ('file_payload', 'payload')
$$;

comment on function fleet.schedule_aliases() is 'Keys that mean one of ours, as request bodies of task schedulers have them.';
revoke all on function fleet.schedule_aliases() from public, anon, authenticated, service_role;

create or replace function fleet.normal_schedule_spec(p_spec jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  with named as (
    -- Clients that send every key of their model send null for what is not meant: of several names for one thing, the
    -- one that says something counts.
    select coalesce(jsonb_object_agg(k.name, k.value), '{}') as spec
    from (
      select distinct on (coalesce(a.name, e.key)) coalesce(a.name, e.key) as name, e.value
      from jsonb_each(p_spec) as e
      left join fleet.schedule_aliases() as a on a.alias = e.key
      order by coalesce(a.name, e.key), e.value = 'null', a.alias is not null, e.key
    ) as k
  )
  select n.spec
    || case n.spec ->> 'action_type'
      when 'command' then '{"action_type": "run_command"}'
      when 'software_deployment' then '{"action_type": "deploy_software"}'
      when 'file_deployment' then '{"action_type": "deploy_files"}'
      else '{}'
    end::jsonb
    || case n.spec ->> 'recurrence_type'
      when 'custom' then '{"recurrence_type": "cron"}'
      else '{}'
    end::jsonb
  from named as n
$$;

comment on function fleet.normal_schedule_spec(jsonb) is 'The same schedule in our own keys and words.';
revoke all on function fleet.normal_schedule_spec(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.schedule_from_spec(p_spec jsonb)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_spec jsonb := fleet.spec_without_rrule(p_spec);
  v_row public.schedules;
  v_zone text := coalesce(v_spec ->> 'timezone', 'UTC');
begin
  -- Local times are read in the schedule's zone; where that is unknown the error about it comes first anyway.
  if not fleet.is_time_zone(v_zone) then
    v_zone := 'UTC';
  end if;

  v_row.owner_id := (v_spec ->> 'owner_id')::uuid;
  v_row.name := v_spec ->> 'name';
  v_row.description := coalesce(v_spec ->> 'description', '');
  v_row.action_type := v_spec ->> 'action_type';
  v_row.payload := coalesce(nullif(v_spec -> 'payload', 'null'), '{}');
  v_row.recurrence_type := coalesce(v_spec ->> 'recurrence_type', 'once');
  v_row.recurrence_config := coalesce(nullif(v_spec -> 'recurrence_config', 'null'), '{}');
  v_row.start_time := coalesce(fleet.try_instant(v_spec ->> 'start_time', v_zone), clock_timestamp());
  v_row.end_time := fleet.try_instant(v_spec ->> 'end_time', v_zone);
  v_row.timezone := coalesce(v_spec ->> 'timezone', 'UTC');
  v_row.device_ids := fleet.bigint_array(v_spec -> 'device_ids');
  v_row.group_ids := fleet.bigint_array(v_spec -> 'group_ids');
  v_row.selector := nullif(v_spec -> 'selector', 'null');
  v_row.profile_id := v_spec ->> 'profile_id';
  v_row.device_id := (v_spec ->> 'device_id')::numeric::bigint;
  v_row.policies := coalesce(nullif(v_spec -> 'policies', 'null'), '{}');
  v_row.priority := coalesce((v_spec ->> 'priority')::numeric::smallint, 0);
  v_row.ui_initiated := coalesce((v_spec ->> 'ui_initiated')::boolean, false);
  v_row.after_schedule_id := coalesce(v_spec -> 'after' ->> 'schedule_id', v_spec ->> 'after_schedule_id')::numeric::bigint;
  v_row.after_on := coalesce(v_spec -> 'after' ->> 'on', v_spec ->> 'after_on');
  return v_row;
end;
$$;

comment on function fleet.schedule_from_spec(jsonb) is
  'The row that a specification of the right types describes; defaults filled in, owner and derived columns not yet.';
revoke all on function fleet.schedule_from_spec(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.bigint_array(p_list jsonb)
returns bigint[]
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(distinct (e #>> '{}')::numeric::bigint), '{}')
  from jsonb_array_elements(case when jsonb_typeof(p_list) = 'array' then p_list else '[]' end) as e
$$;

comment on function fleet.bigint_array(jsonb) is 'A JSON list of whole numbers as an array, each once.';
revoke all on function fleet.bigint_array(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.create_schedule(p_spec jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_spec jsonb;
  v_row public.schedules;
  v_problems fleet.problem[];
  v_fields text[];
begin
  if jsonb_typeof(p_spec) is distinct from 'object' then
    raise exception 'a schedule must be a JSON object'
      using errcode = 'PT422', detail = 'schedule_invalid', hint = 'See the README, "Schedules by example".';
  end if;

  v_spec := fleet.normal_schedule_spec(p_spec);
  v_problems := array(select t from fleet.spec_type_problems(v_spec) as t);
  v_fields := array(select p.field from unnest(v_problems) as p);

  -- What has the wrong type is left out, so that everything else is still checked in the same answer.
  v_row := fleet.schedule_from_spec(
    v_spec - coalesce((select array_agg(split_part(f, '.', 1)) from unnest(v_fields) as f), '{}')
  );
  v_row.owner_id := fleet.owner_or_own(v_row.owner_id);
  perform fleet.require_permission(v_row.owner_id, 'manage', format('owner %s', v_row.owner_id));
  v_row := fleet.completed_schedule(v_row);

  perform fleet.raise_problems('the schedule', 'schedule_invalid', v_problems || array_agg(q))
  from fleet.schedule_problems(v_row) as q
  where q.field <> all (v_fields);

  insert into public.schedules as s (
    owner_id, name, description, action_type, payload, recurrence_type, recurrence_config, start_time, end_time, timezone,
    device_ids, group_ids, selector, profile_id, device_id, policies, priority, ui_initiated, after_schedule_id, after_on
  )
  values (
    v_row.owner_id, v_row.name, v_row.description, v_row.action_type, v_row.payload, v_row.recurrence_type,
    v_row.recurrence_config, v_row.start_time, v_row.end_time, v_row.timezone, v_row.device_ids, v_row.group_ids,
    v_row.selector, v_row.profile_id, v_row.device_id, v_row.policies, v_row.priority, v_row.ui_initiated,
    v_row.after_schedule_id, v_row.after_on
  )
  returning s.id into v_row.id;

  -- Read again: what is due at once has run by now.
  select s.* into v_row from public.schedules as s where s.id = v_row.id;
  return to_jsonb(v_row) || jsonb_build_object('warnings', fleet.schedule_warnings(v_row));
end;
$$;

comment on function fleet.create_schedule(jsonb) is
  'See public.create_schedule. Definer: it checks the caller first, then sees what the checks need to see.';
revoke all on function fleet.create_schedule(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.create_schedule(jsonb) to authenticated, service_role;

create or replace function fleet.schedule_warnings(p_schedule public.schedules)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_agg(w.text), '[]')
  from (
    select 'start_time is in the past: the run is in the ledger as skipped, outside the catch-up window' as text
    from public.schedule_runs as r
    where r.schedule_id = p_schedule.id
      and p_schedule.recurrence_type = 'once'
      and r.status = 'skipped'
      and r.reason = 'outside the catch-up window'
    union all
    select 'no device matches at this moment'
    where not exists (
      select 1
      from fleet.targets(
        p_schedule.owner_id, p_schedule.device_ids, p_schedule.group_ids, p_schedule.selector, 0, 1
      )
    )
    union all
    select 'the schedule has no due instant: nothing will run'
    where p_schedule.next_run_at is null
      and p_schedule.after_schedule_id is null
      and not exists (select 1 from public.schedule_runs as r where r.schedule_id = p_schedule.id)
  ) as w
$$;

comment on function fleet.schedule_warnings(public.schedules) is
  'What is allowed but probably not meant: a start in the past, nobody to reach, nothing due.';
revoke all on function fleet.schedule_warnings(public.schedules) from public, anon, authenticated, service_role;

create or replace function public.create_schedule(p_spec jsonb)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.create_schedule(p_spec)
$$;

comment on function public.create_schedule(jsonb) is
  'Create a schedule from JSON: name, action_type, payload, recurrence_type, recurrence_config, start_time, end_time, timezone, '
  'device_ids, group_ids, selector, policies, priority, after, rrule (task_name, task_type, scheduled_time, …_payload are understood too). A time '
  'without an offset is local to the zone. Answers the row with "warnings". Raises schedule_invalid (PT422, or PT404) naming every '
  'wrong field.';
revoke all on function public.create_schedule(jsonb) from public, anon, authenticated, service_role;
grant execute on function public.create_schedule(jsonb) to authenticated, service_role;
