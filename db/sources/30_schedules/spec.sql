-- create_schedule: from the JSON of a person, a script or an older system to a row.

create or replace function fleet.schedule_columns()
returns table (name text, kind text, default_value jsonb, is_clearable boolean)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  values
    ('name', 'string', null::jsonb, false),
    ('description', 'string', '""', false),
    ('action_type', 'string', null, false),
    ('payload', 'object', '{}', false),
    ('recurrence_type', 'string', '"once"', false),
    ('recurrence_config', 'object', '{}', false),
    ('start_time', 'time', null, false),
    ('end_time', 'time', null, true),
    ('timezone', 'string', '"UTC"', false),
    ('device_ids', 'ids', '[]', false),
    ('group_ids', 'ids', '[]', false),
    ('selector', 'object', null, true),
    ('profile_id', 'string', null, true),
    ('device_id', 'id', null, true),
    ('policies', 'object', '{}', false),
    ('priority', 'priority', '0', false),
    ('ui_initiated', 'boolean', 'false', false),
    ('after_schedule_id', 'id', null, true),
    ('after_on', 'string', null, true)
$$;

comment on function fleet.schedule_columns() is
  'The columns of a schedule that people write: the one list of them. kind is how JSON has it; null empties what is clearable and says '
  'nothing elsewhere. Whatever reads, stores, checks, exports or grants goes by it.';
revoke all on function fleet.schedule_columns() from public, anon, authenticated, service_role;

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

create or replace function fleet.blank_schedule(p_owner_id uuid)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules;
begin
  v_row := jsonb_populate_record(v_row, (
    select jsonb_object_agg(c.name, c.default_value) from fleet.schedule_columns() as c where c.default_value is not null
  ));
  v_row.owner_id := p_owner_id;
  v_row.status := 'active';
  v_row.execution_count := 0;
  v_row.idle_count := 0;
  return v_row;
end;
$$;

comment on function fleet.blank_schedule(uuid) is 'The row of a schedule of which nothing is said yet: every default, and no id.';
revoke all on function fleet.blank_schedule(uuid) from public, anon, authenticated, service_role;

create or replace function fleet.schedule_from_spec(p_old public.schedules, p_spec jsonb)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_spec jsonb := fleet.spec_in_columns(p_old, p_spec);
  -- Local times are read in the schedule's zone; where that is unknown the error about it comes first anyway.
  v_zone text := coalesce(v_spec ->> 'timezone', p_old.timezone);
  v_row public.schedules;
begin
  if not fleet.is_time_zone(v_zone) then
    v_zone := 'UTC';
  end if;
  v_row := jsonb_populate_record(p_old, (
    select coalesce(
      jsonb_object_agg(c.name, case c.kind
        when 'time' then to_jsonb(fleet.try_instant(e.value #>> '{}', v_zone))
        when 'ids' then to_jsonb(fleet.bigint_array(e.value))
        when 'id' then to_jsonb((e.value #>> '{}')::numeric::bigint)
        when 'priority' then to_jsonb((e.value #>> '{}')::numeric::bigint)
        else e.value
      end),
      '{}'
    )
    from jsonb_each(v_spec) as e
    join fleet.schedule_columns() as c on c.name = e.key
    where e.value <> 'null' or c.is_clearable
  ));
  v_row.start_time := coalesce(v_row.start_time, clock_timestamp());
  return v_row;
end;
$$;

comment on function fleet.schedule_from_spec(public.schedules, jsonb) is
  'The row with what a specification of the right types says; what follows from it is not filled in yet. Raises schedule_invalid (PT422) '
  'naming rrule.';
revoke all on function fleet.schedule_from_spec(public.schedules, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.spec_in_columns(p_old public.schedules, p_spec jsonb)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_spec jsonb := p_spec;
begin
  if coalesce(v_spec -> 'rrule', 'null') <> 'null' then
    -- A rule is counted from the start, in the zone, and gives way to policies that are said.
    v_spec := fleet.spec_without_rrule(
      jsonb_build_object(
        'start_time', fleet.instant_text(p_old.start_time), 'timezone', p_old.timezone, 'policies', p_old.policies
      )
      || fleet.without_nulls(v_spec)
    );
  elsif v_spec ->> 'recurrence_type' <> p_old.recurrence_type and coalesce(v_spec -> 'recurrence_config', 'null') = 'null' then
    -- Settings of another kind of recurrence would only be in the way.
    v_spec := v_spec || '{"recurrence_config": {}}';
  end if;
  if v_spec ? 'after' then
    v_spec := v_spec || jsonb_build_object(
      'after_schedule_id', coalesce(v_spec #> '{after,schedule_id}', v_spec -> 'after_schedule_id'),
      'after_on', coalesce(v_spec #> '{after,on}', v_spec -> 'after_on')
    );
  end if;
  return v_spec;
end;
$$;

comment on function fleet.spec_in_columns(public.schedules, jsonb) is
  'The specification with rrule and after turned into the columns that they stand for.';
revoke all on function fleet.spec_in_columns(public.schedules, jsonb) from public, anon, authenticated, service_role;

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

create or replace function fleet.require_object(p_value jsonb, p_what text, p_hint text)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if jsonb_typeof(p_value) is distinct from 'object' then
    raise exception '% must be a JSON object', p_what using errcode = 'PT422', detail = 'schedule_invalid', hint = p_hint;
  end if;
end;
$$;

comment on function fleet.require_object(jsonb, text, text) is 'Raise schedule_invalid (PT422) where a value is no JSON object.';
revoke all on function fleet.require_object(jsonb, text, text) from public, anon, authenticated, service_role;

create or replace function fleet.create_schedule(p_spec jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid;
  v_id bigint;
begin
  perform fleet.require_object(p_spec, 'a schedule', 'See the README, "Schedules by example".');
  v_owner := fleet.owner_or_own(fleet.try_uuid(p_spec ->> 'owner_id'));
  perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
  v_id := fleet.store_schedule(fleet.changed_schedule(fleet.blank_schedule(v_owner), p_spec));
  -- Read again, in a statement of its own: what is due at once has run by now.
  return fleet.schedule_answer(v_id);
end;
$$;

comment on function fleet.create_schedule(jsonb) is
  'See public.create_schedule. Definer: it checks the caller first, then sees what the checks need to see.';
revoke all on function fleet.create_schedule(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.create_schedule(jsonb) to authenticated, service_role;

create or replace function fleet.schedule_warnings(p_schedule public.schedules)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_warnings text[] := '{}';
begin
  if p_schedule.recurrence_type = 'once' and exists (
    select 1
    from public.schedule_runs as r
    where r.schedule_id = p_schedule.id and r.status = 'skipped' and r.reason = 'outside the catch-up window'
  ) then
    v_warnings := v_warnings
      || 'start_time is in the past: the run is in the ledger as skipped, outside the catch-up window'::text;
  end if;
  if not fleet.has_targets(p_schedule.owner_id, p_schedule.device_ids, p_schedule.group_ids, p_schedule.selector) then
    v_warnings := v_warnings || 'no device matches at this moment'::text;
  end if;
  if p_schedule.next_run_at is null and p_schedule.after_schedule_id is null
    and not exists (select 1 from public.schedule_runs as r where r.schedule_id = p_schedule.id)
  then
    v_warnings := v_warnings || 'the schedule has no due instant: nothing will run'::text;
  end if;
  return to_jsonb(v_warnings);
end;
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
  'device_ids, group_ids, selector, policies, priority, after, rrule; devices, groups and after.schedule by name (task_name, task_type, scheduled_time, …_payload are understood too). A time '
  'without an offset is local to the zone. Answers the row with "warnings". Raises schedule_invalid (PT422, or PT404) naming every '
  'wrong field.';
revoke all on function public.create_schedule(jsonb) from public, anon, authenticated, service_role;
grant execute on function public.create_schedule(jsonb) to authenticated, service_role;
