-- Generated from db/sources/30_schedules by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/30_schedules/10_defaults.sql
-- The policies of a schedule that says nothing: every default in one place.

create or replace function fleet.default_policies()
returns jsonb
language sql
immutable
parallel safe
return jsonb_build_object(
  -- What happens to a device that has not finished the run before: it is skipped, gets the new one when it has finished
  -- (one at most is kept waiting), gets it at once, or has the old one cancelled.
  'overlap', 'skip',
  'max_concurrent', 3,
  -- What happens to instants that passed while nothing ticked: none, the latest, or all of them.
  'catchup', 'latest',
  'catchup_window', '1 hour',
  'catchup_limit', 10,
  -- Runs a minute while catching up; null for all at once.
  'catchup_rate', null,
  -- Null: until the next due instant, at most 24 hours.
  'expires_after', null,
  'gap', 'first_instant',
  'fold', 'first',
  -- Null backoff: the setting retry_backoff_seconds. Only failures of these classes are tried again.
  'retry', jsonb_build_object(
    'attempts', 3, 'backoff', null, 'max_backoff', '1 hour',
    'on', jsonb_build_array('error', 'timeout', 'network', 'rate_limited', 'unavailable', 'lease_expired')
  ),
  -- Each device has a slot of its own within this time, the same at every run.
  'jitter', null,
  'execution_window', null,
  'blackouts', '[]'::jsonb,
  'max_runs', null,
  'pause_on_failure', null
);

comment on function fleet.default_policies() is 'The policies of a schedule that says nothing.';
revoke all on function fleet.default_policies() from public, anon, authenticated, service_role;
grant execute on function fleet.default_policies() to authenticated, service_role;

create or replace function fleet.effective_policies(p_policies jsonb)
returns jsonb
language sql
immutable
parallel safe
return (
  fleet.default_policies()
  || p_policies
  || jsonb_build_object(
    'retry', (fleet.default_policies() -> 'retry') || coalesce(p_policies -> 'retry', '{}'::jsonb)
  )
);

comment on function fleet.effective_policies(jsonb) is 'What a schedule says, completed by the defaults.';
revoke all on function fleet.effective_policies(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.effective_policies(jsonb) to authenticated, service_role;

-- db/sources/30_schedules/20_spec.sql
-- A schedule as JSON of a person, a script or an older system: its keys, their other names, and the row that it describes.

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
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
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
  );
end;
$$;

comment on function fleet.normal_schedule_spec(jsonb) is 'The same schedule in our own keys and words.';
revoke all on function fleet.normal_schedule_spec(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.schedule_columns()
returns table (name text, kind text, default_value jsonb, is_clearable boolean)
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
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
    ('after_on', 'string', null, true);
end;
$$;

comment on function fleet.schedule_columns() is
  'The columns of a schedule that people write: the one list of them. kind is how JSON has it; null empties what is clearable and says '
  'nothing elsewhere. Whatever reads, stores, checks, exports or grants goes by it.';
revoke all on function fleet.schedule_columns() from public, anon, authenticated, service_role;

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
  perform fleet.require_size(p_what, 'spec', p_value);
end;
$$;

comment on function fleet.require_object(jsonb, text, text) is 'Raise schedule_invalid (PT422) where a value is no JSON object, limit_exceeded (PT422) where it is larger than any is.';
revoke all on function fleet.require_object(jsonb, text, text) from public, anon, authenticated, service_role;

create or replace function fleet.status_of_spec(p_spec jsonb)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if jsonb_typeof(p_spec) = 'object' and p_spec ? 'status' then
    perform fleet.raise_problems(
      'the schedule', 'schedule_invalid',
      array(select q from fleet.choice_problem('status', nullif(p_spec -> 'status', 'null'), '{active,paused}') as q)
    );
    return p_spec ->> 'status';
  end if;
  return null;
end;
$$;

comment on function fleet.status_of_spec(jsonb) is
  'The status in which a copy or a schedule of a document is to be, active or paused; null where it does not say. Raises schedule_invalid '
  '(PT422).';
revoke all on function fleet.status_of_spec(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.after_problems(p_after jsonb)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select 'after.' || k.key, 'is not a key of after', 'The keys are schedule (a name), schedule_id and on.'
  from jsonb_object_keys(fleet.object_or_empty(p_after)) as k(key)
  where k.key not in ('schedule', 'schedule_id', 'on')
  union all
  select 'after.schedule_id', 'is missing', 'Example: {"after": {"schedule_id": 7, "on": "completed"}}'
  where jsonb_typeof(p_after) = 'object' and not p_after ?| '{schedule,schedule_id}'
  union all
  select q.field, q.problem, q.hint
  from fleet.whole_number_problem(
    'after.schedule_id', case jsonb_typeof(p_after) when 'object' then p_after -> 'schedule_id' end, 1, 9007199254740991
  ) as q
  union all
  select q.field, q.problem, q.hint
  from fleet.choice_problem(
    'after.on', case jsonb_typeof(p_after) when 'object' then p_after -> 'on' end, '{completed,failed,either}'
  ) as q
$$;

comment on function fleet.after_problems(jsonb) is 'What is wrong with the key "after" of a schedule in JSON.';
revoke all on function fleet.after_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.spec_type_problems(p_spec jsonb)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with expected as materialized (
    select c.name as key, c.kind from fleet.schedule_columns() as c
    union all
    values ('owner_id', 'uuid'), ('devices', 'names'), ('groups', 'names'), ('after', 'object'), ('rrule', 'string')
  ),
  given as materialized (
    select e.key, e.value, x.kind from jsonb_each(p_spec) as e left join expected as x on x.key = e.key
  )
  select g.key, 'is not a key of a schedule', 'The keys are ' || (select string_agg(x.key, ', ') from expected as x) || '.'
  from given as g
  where g.kind is null
  union all
  select g.key, format('must be %s, not %s', case g.kind when 'object' then 'an object' else 'a ' || g.kind end, g.value),
    'Check the type of the value.'
  from given as g
  where g.kind in ('string', 'object', 'boolean') and jsonb_typeof(g.value) not in (g.kind, 'null')
  union all
  select g.key, format('%s is not a time', g.value), 'Write it like "2026-03-01T06:30:00" (local) or "2026-03-01T05:30:00Z".'
  from given as g
  where g.kind = 'time' and g.value <> 'null' and fleet.try_instant(g.value #>> '{}', 'UTC') is null
  union all
  select g.key, format('%s is not a uuid', g.value), 'Copy the id of the owner.'
  from given as g
  where g.kind = 'uuid' and g.value <> 'null' and fleet.try_uuid(g.value #>> '{}') is null
  union all
  select g.key, format('%s is not a list of ids', g.value), 'Write whole numbers without quotes, like [1, 2].'
  from given as g
  where g.kind = 'ids' and g.value <> 'null' and not fleet.is_id_list(g.value)
  union all
  select n.field, n.problem, n.hint
  from given as g
  cross join lateral fleet.whole_number_problem(
    g.key, g.value,
    case g.kind when 'id' then 1 else -100 end,
    case g.kind when 'id' then 9007199254740991 else 100 end
  ) as n
  where g.kind in ('id', 'priority') and g.value <> 'null';

  if p_spec ? 'after' then
    return query select q.field, q.problem, q.hint from fleet.after_problems(p_spec -> 'after') as q;
  end if;
  if p_spec ? 'rrule' then
    return query select q.field, q.problem, q.hint from fleet.rrule_problems(p_spec) as q;
  end if;
end;
$$;

comment on function fleet.spec_type_problems(jsonb) is
  'Keys of a schedule in JSON that are unknown or hold something of another type. Names are looked at by fleet.name_problems.';
revoke all on function fleet.spec_type_problems(jsonb) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/25_names.sql
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
  order by s.status = 'completed', s.id desc
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
  select n.key, format('device %s was not found', n.item), 'List your devices with: pgfleet device list'
  from named as n
  where n.key = 'devices'
    and jsonb_typeof(n.item) = 'string'
    and not exists (
      select 1 from public.devices as d where d.owner_id = p_owner_id and lower(d.hostname) = lower(n.item #>> '{}')
    )
  union all
  select n.key, format('group %s was not found', n.item), 'List your groups with: pgfleet group list'
  from named as n
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
    'List your schedules with: pgfleet schedule list'
  where jsonb_typeof(p_spec #> '{after,schedule}') = 'string'
    and (fleet.schedule_by_name(p_owner_id, p_spec #>> '{after,schedule}')).id is null;
end;
$$;

comment on function fleet.name_problems(uuid, jsonb) is
  'Names in a specification that stand for nothing of this owner. What belongs to another owner is as good as not there.';
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

-- db/sources/30_schedules/30_problems.sql
-- What is wrong with a schedule: everything at once, each with its field and what to do.

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
  return query select q.* from fleet.row_limit_problems('schedules', to_jsonb(p_new) - 'recurrence') as q;
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
      if p_new.policies ? 'blackouts' then
        return query select q.* from fleet.blackout_problems(p_new.owner_id, p_new.policies) as q;
      end if;
      if p_new.policies <> '{}' then
        return query select q.* from fleet.policy_problems(p_new.policies) as q;
      end if;
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

create or replace function fleet.retry_problems(p_retry jsonb)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select 'policies.retry.' || k, 'is not part of retry', 'Example: {"retry": {"attempts": 5}}'
  from jsonb_object_keys(p_retry) as k
  where not (fleet.default_policies() -> 'retry') ? k
  union all
  select * from fleet.whole_number_problem('policies.retry.attempts', p_retry -> 'attempts', 1, 1000)
  union all
  select * from fleet.duration_problem('policies.retry.backoff', p_retry -> 'backoff')
  union all
  select * from fleet.duration_problem('policies.retry.max_backoff', p_retry -> 'max_backoff')
  union all
  select 'policies.retry.on', 'must be a list of classes of failure', 'Example: {"retry": {"on": ["timeout", "network"]}}'
  where p_retry ? 'on' and jsonb_typeof(p_retry -> 'on') <> 'array'
  union all
  select * from fleet.list_problem('policies.retry.on', 'retry_classes', p_retry -> 'on')
  union all
  -- What was interrupted may have happened: nothing that is not safe to repeat is ever repeated.
  select 'policies.retry.on', format('%s is not a class of failure that can be tried again', e.item),
    'Use some of: error, timeout, network, rate_limited, unavailable, lease_expired, unsupported, forbidden, invalid_payload.'
  from jsonb_array_elements(case jsonb_typeof(p_retry -> 'on') when 'array' then p_retry -> 'on' else '[]' end) as e(item)
  where jsonb_typeof(e.item) <> 'string'
    or (e.item #>> '{}') <> all (
      '{error,timeout,network,rate_limited,unavailable,lease_expired,unsupported,forbidden,invalid_payload}'::text[]
    )
$$;

comment on function fleet.retry_problems(jsonb) is 'Everything that is wrong with the policy about retries.';
revoke all on function fleet.retry_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.policy_problems(p_policies jsonb)
returns setof fleet.problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  -- In which order what is wrong is told.
  c_order constant text[] := '{overlap,catchup,gap,fold,max_concurrent,catchup_limit,catchup_rate,max_runs,pause_on_failure,'
    'catchup_window,expires_after,jitter,execution_window,retry}';
  v_key text;
  v_value jsonb;
  v_field text;
begin
  for v_key, v_value in
    select e.key, e.value
    from jsonb_each(p_policies) as e
    order by array_position(c_order, e.key) nulls first, e.key
  loop
    v_field := 'policies.' || v_key;
    case
      when not fleet.default_policies() ? v_key then
        return next (
          v_field, 'is not a policy',
          'The policies are '
            || (select string_agg(d.key, ', ' order by d.key) from jsonb_each(fleet.default_policies()) as d) || '.'
        )::fleet.problem;
      when v_key = 'overlap' then
        return query select * from fleet.choice_problem(v_field, v_value, '{skip,buffer_one,allow,replace}');
      when v_key = 'catchup' then
        return query select * from fleet.choice_problem(v_field, v_value, '{none,latest,all}');
      when v_key = 'gap' then
        return query select * from fleet.choice_problem(v_field, v_value, '{first_instant,shift,skip}');
      when v_key = 'fold' then
        return query select * from fleet.choice_problem(v_field, v_value, '{first,second,both}');
      when v_key in ('max_concurrent', 'catchup_limit') then
        return query select * from fleet.whole_number_problem(v_field, v_value, 1, 1000);
      when v_key in ('catchup_rate', 'max_runs', 'pause_on_failure') then
        return query
        select *
        from fleet.whole_number_problem(
          v_field, nullif(v_value, 'null'), 1, case v_key when 'max_runs' then 1000000000 else 1000 end
        );
      when v_key = 'catchup_window' then
        return query select * from fleet.duration_problem(v_field, case v_value when 'null' then '""'::jsonb else v_value end);
      when v_key in ('expires_after', 'jitter') then
        return query select * from fleet.duration_problem(v_field, v_value);
      when v_key = 'execution_window' then
        return query select * from fleet.list_problem(v_field, 'windows', v_value);
        return query select * from fleet.window_problems(v_value);
      when v_key = 'retry' and jsonb_typeof(v_value) = 'object' then
        return query select * from fleet.retry_problems(v_value);
      when v_key = 'retry' then
        return next (v_field, 'must be an object', 'Example: {"retry": {"attempts": 5}}')::fleet.problem;
      else
        -- Blackouts are looked up with their owner, by fleet.blackout_problems.
        return query select * from fleet.list_problem(v_field, 'blackouts', v_value);
    end case;
  end loop;
end;
$$;

comment on function fleet.policy_problems(jsonb) is 'Everything that is wrong with the policies of a schedule.';
revoke all on function fleet.policy_problems(jsonb) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/40_windows.sql
-- Execution windows: at which local times a schedule may act.

create or replace function fleet.window_list(p_policies jsonb)
returns jsonb
language sql
immutable
parallel safe
return (
  case jsonb_typeof(p_policies -> 'execution_window')
    when 'array' then p_policies -> 'execution_window'
    when 'object' then jsonb_build_array(p_policies -> 'execution_window')
    else '[]'::jsonb
  end
);

comment on function fleet.window_list(jsonb) is 'The execution windows of effective policies; none means always.';
revoke all on function fleet.window_list(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.time_of_day(p_text text)
returns time
language sql
immutable
parallel safe
return (
  case when p_text ~ '^([01]?\d|2[0-4]):[0-5]\d(:[0-5]\d)?$' and p_text !~ '^24:.*[1-9]' then p_text::time end
);

comment on function fleet.time_of_day(text) is 'HH:MM or HH:MM:SS as a time, 24:00 for midnight; null where it is none.';
revoke all on function fleet.time_of_day(text) from public, anon, authenticated, service_role;

create or replace function fleet.end_of_window(p_window jsonb, p_local timestamp)
returns timestamp
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select max(s.closes_at)
  -- A window across midnight belongs to the day on which it begins.
  from (values (p_local::date), (p_local::date - 1)) as d(day)
  cross join lateral (
    select fleet.time_of_day(p_window ->> 'from') as opens, fleet.time_of_day(p_window ->> 'to') as closes
  ) as w
  cross join lateral (
    select d.day + w.opens as opens_at,
      d.day + w.closes + case when w.closes <= w.opens then interval '1 day' else interval '0' end as closes_at
  ) as s
  where (
      not p_window ? 'days_of_week'
      or (p_window -> 'days_of_week') @> to_jsonb(extract(isodow from d.day)::integer - 1)
    )
    and p_local >= s.opens_at
    and p_local < s.closes_at
$$;

comment on function fleet.end_of_window(jsonb, timestamp) is
  'When a window closes in which a local time lies, in local time; null where it lies in none.';
revoke all on function fleet.end_of_window(jsonb, timestamp) from public, anon, authenticated, service_role;

create or replace function fleet.is_in_window(p_window jsonb, p_local timestamp)
returns boolean
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.end_of_window(p_window, p_local) is not null
$$;

comment on function fleet.is_in_window(jsonb, timestamp) is
  'Whether a local time lies in a window {from, to, days_of_week (0 = Monday)}; to is exclusive and may be on the next day.';
revoke all on function fleet.is_in_window(jsonb, timestamp) from public, anon, authenticated, service_role;

create or replace function fleet.window_opening(p_windows jsonb, p_clock text, p_timezone text, p_from timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_windows jsonb := (
    select jsonb_agg(w) from jsonb_array_elements(p_windows) as w where coalesce(w ->> 'in', 'schedule') = p_clock
  );
  v_local timestamp := p_from at time zone fleet.zone_clock(p_timezone);
  v_opening record;
  v_instant timestamptz;
begin
  if v_windows is null
    or exists (select 1 from jsonb_array_elements(v_windows) as w where fleet.is_in_window(w, v_local))
  then
    return p_from;
  end if;

  -- Windows repeat weekly; two weeks, because the clocks may skip the whole of one. What is earlier on the wall is never later
  -- as an instant, so the first that opens is the one, and only those up to it are converted.
  for v_opening in
    select o.w, o.local
    from (
      select w, d.day, d.day + fleet.time_of_day(w ->> 'from') as local
      from jsonb_array_elements(v_windows) as w
      cross join generate_series(0, 15) as g(days)
      cross join lateral (select v_local::date + g.days as day) as d
    ) as o
    where o.local > v_local
      and (not o.w ? 'days_of_week' or (o.w -> 'days_of_week') @> to_jsonb(extract(isodow from o.day)::integer - 1))
    order by o.local
  loop
    v_instant := fleet.local_to_instant(v_opening.local, p_timezone);
    if v_instant > p_from and fleet.is_in_window(v_opening.w, v_instant at time zone p_timezone) then
      return v_instant;
    end if;
  end loop;
  return null;
end;
$$;

comment on function fleet.window_opening(jsonb, text, text, timestamptz) is
  'p_from itself where it lies in one of the windows by this clock (schedule or device), else when the next of them opens.';
revoke all on function fleet.window_opening(jsonb, text, text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.window_closing(p_windows jsonb, p_clock text, p_timezone text, p_at timestamptz)
returns timestamptz
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select max(fleet.local_to_instant(fleet.end_of_window(w, p_at at time zone p_timezone), p_timezone))
  from jsonb_array_elements(p_windows) as w
  where coalesce(w ->> 'in', 'schedule') = p_clock
$$;

comment on function fleet.window_closing(jsonb, text, text, timestamptz) is
  'When the window closes that is open at p_at; null where none is.';
revoke all on function fleet.window_closing(jsonb, text, text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.waits_for_window(p_windows jsonb, p_clock text)
returns boolean
language sql
immutable
parallel safe
return (
  exists (
    select 1
    from jsonb_array_elements(p_windows) as w
    where coalesce(w ->> 'in', 'schedule') = p_clock and w ->> 'outside' = 'wait'
  )
);

comment on function fleet.waits_for_window(jsonb, text) is
  'Whether what is due outside of the windows by this clock waits for the next opening instead of being skipped.';
revoke all on function fleet.waits_for_window(jsonb, text) from public, anon, authenticated, service_role;

create or replace function fleet.window_in_device_time(p_window jsonb)
returns jsonb
language sql
immutable
parallel safe
return (
  case
    when jsonb_typeof(p_window) = 'object' and coalesce(p_window ->> 'in', 'schedule') = 'schedule'
      then p_window || '{"in": "device"}'
    else p_window
  end
);

comment on function fleet.window_in_device_time(jsonb) is
  'A window of a schedule in device time, which has no other zone in which it could be meant.';
revoke all on function fleet.window_in_device_time(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.policies_in_device_time(p_policies jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case jsonb_typeof(p_policies -> 'execution_window')
    when 'object' then p_policies || jsonb_build_object(
      'execution_window', fleet.window_in_device_time(p_policies -> 'execution_window')
    )
    when 'array' then p_policies || jsonb_build_object('execution_window', (
      select coalesce(jsonb_agg(fleet.window_in_device_time(e.item) order by e.n), '[]')
      from jsonb_array_elements(p_policies -> 'execution_window') with ordinality as e(item, n)
    ))
    else p_policies
  end
$$;

comment on function fleet.policies_in_device_time(jsonb) is
  'The policies of a schedule in device time, with its windows in the time of the devices too.';
revoke all on function fleet.policies_in_device_time(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.window_problems(p_windows jsonb)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  with given as (
    select e.item as w, 'policies.execution_window' as field
    from jsonb_array_elements(
      case jsonb_typeof(p_windows) when 'array' then p_windows else jsonb_build_array(p_windows) end
    ) as e(item)
    where p_windows is not null and jsonb_typeof(p_windows) <> 'null'
  )
  select g.field, 'must be an object or a list of them', 'Example: {"from": "22:00", "to": "05:00"}'
  from given as g
  where jsonb_typeof(g.w) <> 'object'
  union all
  select g.field || '.' || k.key, 'is not a time of day', 'Write it like "22:00".'
  from given as g
  cross join (values ('from'), ('to')) as k(key)
  where jsonb_typeof(g.w) = 'object' and fleet.time_of_day(g.w ->> k.key) is null
  union all
  select q.field, q.problem, q.hint
  from given as g
  cross join lateral fleet.choice_problem(g.field || '.in', g.w -> 'in', '{schedule,device}') as q
  where jsonb_typeof(g.w) = 'object'
  union all
  select q.field, q.problem, q.hint
  from given as g
  cross join lateral fleet.choice_problem(g.field || '.outside', g.w -> 'outside', '{skip,wait}') as q
  where jsonb_typeof(g.w) = 'object'
  union all
  select g.field || '.days_of_week', 'must be a list of days from 0 (Monday) to 6', 'Example: [0, 1, 2, 3, 4]'
  from given as g
  where jsonb_typeof(g.w) = 'object'
    and g.w ? 'days_of_week'
    and (
      jsonb_typeof(g.w -> 'days_of_week') <> 'array'
      or g.w -> 'days_of_week' = '[]'
      or not '[0, 1, 2, 3, 4, 5, 6]'::jsonb @> (g.w -> 'days_of_week')
    )
  union all
  select g.field || '.' || k.key, 'is not a key of a window', 'The keys are from, to, days_of_week, in and outside.'
  from given as g
  cross join lateral jsonb_object_keys(case when jsonb_typeof(g.w) = 'object' then g.w else '{}' end) as k(key)
  where k.key not in ('from', 'to', 'days_of_week', 'in', 'outside')
$$;

comment on function fleet.window_problems(jsonb) is 'Everything that is wrong with execution windows.';
revoke all on function fleet.window_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.opening_of(p_schedule public.schedules, p_instant timestamptz)
returns timestamptz
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    -- What does not wait is judged where it stands.
    when not p_schedule.policies ? 'execution_window'
      or not fleet.waits_for_window(fleet.window_list(p_schedule.policies), 'schedule')
      then p_instant
    else coalesce(
      fleet.window_opening(
        fleet.window_list(p_schedule.policies), 'schedule', fleet.reference_zone(p_schedule), p_instant
      ),
      p_instant
    )
  end
$$;

comment on function fleet.opening_of(public.schedules, timestamptz) is
  'When a run of this instant may begin: at once, or when the execution window opens.';
revoke all on function fleet.opening_of(public.schedules, timestamptz) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/45_blackouts.sql
-- Blackouts: what a schedule's calendars say about an instant.

create or replace function fleet.blackout_ids(p_policies jsonb)
returns bigint[]
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg((e #>> '{}')::numeric::bigint), '{}')
  from jsonb_array_elements(
    case jsonb_typeof(p_policies -> 'blackouts') when 'array' then p_policies -> 'blackouts' else '[]' end
  ) as e
  where jsonb_typeof(e) = 'number'
$$;

comment on function fleet.blackout_ids(jsonb) is 'The calendars that effective policies name.';
revoke all on function fleet.blackout_ids(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.blackout_at(
  p_owner_id uuid,
  p_calendar_ids bigint[],
  p_timezone text,
  p_instant timestamptz
)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_day date;
begin
  if p_calendar_ids = '{}' then
    return null;
  end if;
  v_day := (p_instant at time zone fleet.zone_clock(p_timezone))::date;
  return (
    select coalesce(nullif(b.summary, ''), c.name)
    from public.blackout_calendars as c
    join public.blackout_periods as b on b.calendar_id = c.id and b.owner_id = c.owner_id
    where c.id = any (p_calendar_ids)
      and c.owner_id = p_owner_id
      and (
        (b.starts_on <= v_day and v_day < b.ends_on)
        or (b.starts_at <= p_instant and p_instant < b.ends_at)
      )
    limit 1
  );
end;
$$;

comment on function fleet.blackout_at(uuid, bigint[], text, timestamptz) is
  'What forbids this instant, by name; null where nothing does. Whole days are days of the given zone.';
revoke all on function fleet.blackout_at(uuid, bigint[], text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.named_blackouts(p_owner_id uuid, p_policies jsonb)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- People write names; the schedule keeps ids, so that renaming a calendar changes nothing.
  select case
    when jsonb_typeof(p_policies -> 'blackouts') <> 'array' or not p_policies ? 'blackouts' then p_policies
    else p_policies || jsonb_build_object('blackouts', (
      select coalesce(jsonb_agg(coalesce(to_jsonb(c.id), e.item)), '[]')
      from jsonb_array_elements(p_policies -> 'blackouts') as e(item)
      left join public.blackout_calendars as c
        on jsonb_typeof(e.item) = 'string' and c.owner_id = p_owner_id and lower(c.name) = lower(e.item #>> '{}')
    ))
  end
$$;

comment on function fleet.named_blackouts(uuid, jsonb) is 'The policies with names of calendars replaced by their ids.';
revoke all on function fleet.named_blackouts(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.blackout_problems(p_owner_id uuid, p_policies jsonb)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select 'policies.blackouts', 'must be a list of calendars', 'Example: {"blackouts": ["School holidays"]}'
  where p_policies ? 'blackouts' and jsonb_typeof(p_policies -> 'blackouts') not in ('array', 'null')
  union all
  select 'policies.blackouts', format('calendar %s was not found', e.item), 'List them with: select id, name from blackout_calendars'
  from jsonb_array_elements(
    case jsonb_typeof(p_policies -> 'blackouts') when 'array' then p_policies -> 'blackouts' else '[]' end
  ) as e(item)
  where not exists (
    select 1 from public.blackout_calendars as c where c.owner_id = p_owner_id and to_jsonb(c.id) = e.item
  )
$$;

comment on function fleet.blackout_problems(uuid, jsonb) is
  'Calendars that do not exist for this owner. What belongs to another owner is as good as not there.';
revoke all on function fleet.blackout_problems(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.open_zones(p_schedule public.schedules, p_zones text[], p_instant timestamptz)
returns text[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(z.name), '{}')
  from unnest(p_zones) as z(name)
  where fleet.blackout_at(p_schedule.owner_id, fleet.blackout_ids(p_schedule.policies), z.name, p_instant) is null
$$;

comment on function fleet.open_zones(public.schedules, text[], timestamptz) is
  'Those of the time zones in which no blackout of the schedule forbids this instant.';
revoke all on function fleet.open_zones(public.schedules, text[], timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.zones_refusal(p_schedule public.schedules, p_zones text[], p_instant timestamptz)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_windows jsonb;
begin
  -- Most schedules say neither, and this is asked for each due instant.
  if not p_schedule.policies ?| '{blackouts,execution_window}' then
    return null;
  end if;

  if p_schedule.timezone = 'device' then
    -- A day begins and ends with the devices' own; their windows are looked at for each of them.
    return case when p_zones <> '{}' and fleet.open_zones(p_schedule, p_zones, p_instant) = '{}' then 'blackout' end;
  elsif fleet.open_zones(p_schedule, array[p_schedule.timezone], p_instant) = '{}' then
    return 'blackout';
  end if;

  v_windows := fleet.window_list(p_schedule.policies);
  if not fleet.waits_for_window(v_windows, 'schedule')
    and fleet.window_opening(v_windows, 'schedule', p_schedule.timezone, p_instant) is distinct from p_instant
  then
    return 'outside the execution window';
  end if;
  return null;
end;
$$;

comment on function fleet.zones_refusal(public.schedules, text[], timestamptz) is
  'Why a schedule does not run at an instant, in device time for the devices of these zones; null where it does.';
revoke all on function fleet.zones_refusal(public.schedules, text[], timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/30_schedules/46_calendars.sql
-- Blackout calendars: making, filling and deleting them.

create or replace function fleet.period_problems(p_periods jsonb)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with given as (
    select format('periods[%s]', e.nr - 1) as field, e.item,
      jsonb_typeof(e.item) = 'object' and e.item ? 'starts_on' as is_days,
      jsonb_typeof(e.item) = 'object' and e.item ? 'starts_at' as is_times
    from jsonb_array_elements(case when jsonb_typeof(p_periods) = 'array' then p_periods else '[]' end)
      with ordinality as e(item, nr)
  )
  select 'periods', 'must be a list', 'Example: [{"starts_on": "2026-12-21", "ends_on": "2027-01-04", "summary": "Winter"}]'
  where jsonb_typeof(p_periods) is distinct from 'array'
  union all
  select g.field, 'must be an object with either starts_on or starts_at', 'Example: {"starts_on": "2026-12-25"}'
  from given as g
  where g.is_days = g.is_times
  union all
  select g.field || '.' || k, 'is not a key of this period',
    'Days have starts_on, ends_on (the day after the last) and summary; times have starts_at, ends_at and summary.'
  from given as g
  cross join lateral jsonb_object_keys(case when jsonb_typeof(g.item) = 'object' then g.item else '{}' end) as k
  where g.is_days <> g.is_times
    and k <> all (case when g.is_days then '{starts_on,ends_on,summary}' else '{starts_at,ends_at,summary}' end::text[])
  union all
  select g.field || '.' || k.key, format('%s is not a date', g.item -> k.key), 'Write it like "2026-12-25".'
  from given as g
  cross join (values ('starts_on'), ('ends_on')) as k(key)
  where g.is_days and g.item ? k.key and fleet.try_date(g.item ->> k.key) is null
  union all
  select g.field || '.' || k.key, format('%s is not a time with an offset', coalesce(g.item ->> k.key, 'nothing')),
    'Write it like "2026-12-25T18:00:00+01:00" or "2026-12-25T17:00:00Z".'
  from given as g
  cross join (values ('starts_at'), ('ends_at')) as k(key)
  where g.is_times and fleet.try_exact_instant(g.item ->> k.key) is null
  union all
  select g.field, 'ends before it starts', 'ends_on is the day after the last, as in iCalendar.'
  from given as g
  where fleet.try_date(g.item ->> 'starts_on') >= fleet.try_date(g.item ->> 'ends_on')
    or fleet.try_exact_instant(g.item ->> 'starts_at') >= fleet.try_exact_instant(g.item ->> 'ends_at')
$$;

comment on function fleet.period_problems(jsonb) is 'Everything that is wrong with the periods of a calendar.';
revoke all on function fleet.period_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.store_calendar(
  p_owner_id uuid,
  p_name text,
  p_description text,
  p_periods jsonb
)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id bigint;
begin
  insert into public.blackout_calendars as c (owner_id, name, description)
  values (p_owner_id, p_name, coalesce(p_description, ''))
  on conflict (owner_id, lower(name)) do update
    set description = coalesce(p_description, c.description)
  returning c.id into v_id;

  delete from public.blackout_periods as p where p.calendar_id = v_id;
  insert into public.blackout_periods (calendar_id, owner_id, starts_on, ends_on, starts_at, ends_at, summary)
  select v_id, p_owner_id, fleet.try_date(e.item ->> 'starts_on'),
    coalesce(fleet.try_date(e.item ->> 'ends_on'), fleet.try_date(e.item ->> 'starts_on') + 1),
    fleet.try_exact_instant(e.item ->> 'starts_at'), fleet.try_exact_instant(e.item ->> 'ends_at'),
    coalesce(e.item ->> 'summary', '')
  from jsonb_array_elements(p_periods) as e(item);
  return v_id;
end;
$$;

comment on function fleet.store_calendar(uuid, text, text, jsonb) is
  'Make the calendar of this name, or give it these periods instead of its own; a null description leaves the one it has.';
revoke all on function fleet.store_calendar(uuid, text, text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.check_calendar(p_name text, p_periods jsonb)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.raise_problems('the calendar', 'calendar_invalid', array_agg(q::fleet.problem))
  from (
    select 'name' as field, 'must not be blank' as problem, 'Give the calendar a name.' as hint
    where btrim(coalesce(p_name, '')) = ''
    union all
    select p.field, p.problem, p.hint from fleet.list_problem('periods', 'periods', p_periods) as p
    union all
    select p.field, p.problem, p.hint from fleet.row_limit_problems('blackout_calendars', jsonb_build_object('name', p_name)) as p
    union all
    select p.field, p.problem, p.hint from fleet.period_problems(p_periods) as p
  ) as q;
end;
$$;

comment on function fleet.check_calendar(text, jsonb) is 'Raise calendar_invalid (PT422) naming everything that is wrong.';
revoke all on function fleet.check_calendar(text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.import_blackouts(
  p_name text,
  p_periods jsonb,
  p_description text,
  p_owner_id uuid,
  p_must_be_new boolean
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid := fleet.owner_or_own(p_owner_id);
  v_id bigint;
begin
  perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
  perform fleet.check_calendar(p_name, p_periods);
  if p_must_be_new
    and exists (select 1 from public.blackout_calendars as c where c.owner_id = v_owner and lower(c.name) = lower(p_name))
  then
    raise exception 'there is a calendar "%" already', p_name
      using errcode = 'PT409', detail = 'calendar_exists',
            hint = 'Give it other periods with import_blackouts, or choose another name.';
  end if;

  v_id := fleet.store_calendar(v_owner, p_name, p_description, p_periods);
  return (
    select to_jsonb(c) || jsonb_build_object(
      'periods', (select count(*) from public.blackout_periods as p where p.calendar_id = c.id)
    )
    from public.blackout_calendars as c
    where c.id = v_id
  );
end;
$$;

comment on function fleet.import_blackouts(text, jsonb, text, uuid, boolean) is
  'See public.create_blackout_calendar and public.import_blackouts. Definer: it checks the caller.';
revoke all on function fleet.import_blackouts(text, jsonb, text, uuid, boolean)
  from public, anon, authenticated, service_role;
grant execute on function fleet.import_blackouts(text, jsonb, text, uuid, boolean) to authenticated, service_role;

create or replace function public.create_blackout_calendar(
  p_name text,
  p_periods jsonb default '[]',
  p_description text default '',
  p_owner_id uuid default null
)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.import_blackouts(p_name, p_periods, p_description, p_owner_id, true)
$$;

comment on function public.create_blackout_calendar(text, jsonb, text, uuid) is
  'Make a calendar of times in which nothing runs, for policies.blackouts. Periods are days {starts_on, ends_on (the day after the last), '
  'summary} or times {starts_at, ends_at, summary} with an offset. Answers the row with how many periods. Raises calendar_invalid '
  '(PT422) naming every wrong field, or calendar_exists (PT409).';
revoke all on function public.create_blackout_calendar(text, jsonb, text, uuid)
  from public, anon, authenticated, service_role;
grant execute on function public.create_blackout_calendar(text, jsonb, text, uuid) to authenticated, service_role;

create or replace function public.import_blackouts(
  p_name text,
  p_periods jsonb,
  p_description text default null,
  p_owner_id uuid default null
)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.import_blackouts(p_name, p_periods, p_description, p_owner_id, false)
$$;

comment on function public.import_blackouts(text, jsonb, text, uuid) is
  'Give the calendar of this name these periods instead of the ones that it has; make it where there is none. As '
  'create_blackout_calendar. An ICS file is read by: pgfleet blackout import.';
revoke all on function public.import_blackouts(text, jsonb, text, uuid) from public, anon, authenticated, service_role;
grant execute on function public.import_blackouts(text, jsonb, text, uuid) to authenticated, service_role;

create or replace function fleet.delete_blackout_calendar(p_calendar_id bigint)
returns public.blackout_calendars
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.blackout_calendars;
begin
  select c.* into v_row
  from public.blackout_calendars as c
  where c.id = p_calendar_id and fleet.is_visible_owner(c.owner_id)
  for update;
  if not found then
    perform fleet.raise_not_found(format('calendar %s', p_calendar_id));
  end if;
  perform fleet.require_permission(v_row.owner_id, 'manage', format('calendar %s', p_calendar_id));

  delete from public.blackout_calendars as c where c.id = p_calendar_id;
  return v_row;
end;
$$;

comment on function fleet.delete_blackout_calendar(bigint) is 'See public.delete_blackout_calendar. Definer: it checks the caller.';
revoke all on function fleet.delete_blackout_calendar(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.delete_blackout_calendar(bigint) to authenticated, service_role;

create or replace function public.delete_blackout_calendar(p_calendar_id bigint)
returns public.blackout_calendars
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.delete_blackout_calendar(p_calendar_id)
$$;

comment on function public.delete_blackout_calendar(bigint) is
  'Delete a calendar with its periods. Raises calendar_not_found (PT404), permission_missing (PT403), or calendar_in_use (PT409) while '
  'a schedule that is not over names it.';
revoke all on function public.delete_blackout_calendar(bigint) from public, anon, authenticated, service_role;
grant execute on function public.delete_blackout_calendar(bigint) to authenticated, service_role;

create or replace function public.blackout_calendar_id(p_name text)
returns bigint
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.only_one(
    'calendar', p_name,
    array(select x.id::text from public.blackout_calendars as x where lower(x.name) = lower(p_name) order by x.id),
    (select x.id::text from public.blackout_calendars as x where x.id = fleet.try_bigint(p_name)), 'blackout'
  )::bigint
$$;

comment on function public.blackout_calendar_id(text) is
  'The blackout calendar that a name or an id means; a name in any case, and it wins over an id. Raises calendar_not_found (PT404) or '
  'calendar_ambiguous (PT409).';
revoke all on function public.blackout_calendar_id(text) from public, anon, authenticated, service_role;
grant execute on function public.blackout_calendar_id(text) to authenticated, service_role;

-- db/sources/30_schedules/50_device_time.sql
-- Device time: one schedule that is due in each device's own local time. Its compiled recurrence is a union with one member
-- for each time zone that its devices are in.

create or replace function fleet.reference_zone(p_schedule public.schedules)
returns text
language sql
immutable
parallel safe
return (case when (p_schedule).timezone = 'device' then 'UTC' else (p_schedule).timezone end);

comment on function fleet.reference_zone(public.schedules) is
  'The zone for what concerns a schedule as a whole: its own, or UTC where it goes by device time.';
revoke all on function fleet.reference_zone(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.target_zones(p_schedule public.schedules)
returns text[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(distinct coalesce(t.timezone, 'UTC')), '{UTC}')
  from fleet.targets(p_schedule.owner_id, p_schedule.device_ids, p_schedule.group_ids, p_schedule.selector) as t
$$;

comment on function fleet.target_zones(public.schedules) is 'The time zones of the devices that a schedule reaches now; UTC where one has none.';
revoke all on function fleet.target_zones(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.compiled(p_schedule public.schedules)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_zones text[];
begin
  if p_schedule.timezone <> 'device' then
    return fleet.compiled_in(p_schedule, p_schedule.timezone);
  end if;
  v_zones := fleet.target_zones(p_schedule);
  return jsonb_build_object(
    'kind', 'union',
    'type', p_schedule.recurrence_type,
    'zones', to_jsonb(v_zones),
    'members', (select jsonb_agg(fleet.compiled_in(p_schedule, u.zone)) from unnest(v_zones) as u(zone))
  );
end;
$$;

comment on function fleet.compiled(public.schedules) is 'The compiled recurrence of a valid schedule; a union for device time.';
revoke all on function fleet.compiled(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.compiled_in(p_schedule public.schedules, p_timezone text)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select fleet.compiled_recurrence(
      p_schedule.recurrence_type, p_schedule.recurrence_config, p_timezone,
      fleet.bound_in_zone(p_schedule, p_schedule.start_time, p_timezone),
      fleet.bound_in_zone(p_schedule, p_schedule.end_time, p_timezone),
      fleet.effective_policies(p_schedule.policies) ->> 'gap',
      fleet.effective_policies(p_schedule.policies) ->> 'fold'
    )
  );
end;
$$;

comment on function fleet.compiled_in(public.schedules, text) is 'The compiled recurrence of a schedule in one time zone.';
revoke all on function fleet.compiled_in(public.schedules, text) from public, anon, authenticated, service_role;

create or replace function fleet.bound_in_zone(p_schedule public.schedules, p_bound timestamptz, p_timezone text)
returns timestamptz
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- A single run in device time means the same time on the clock everywhere; kept as UTC, read in each zone.
  select case
    when p_schedule.timezone = 'device' and p_schedule.recurrence_type = 'once'
      then fleet.local_to_instant(p_bound at time zone 'UTC', p_timezone)
    else p_bound
  end
$$;

comment on function fleet.bound_in_zone(public.schedules, timestamptz, text) is
  'Start or end of a schedule for one zone: a single run in device time is at the same local time in each.';
revoke all on function fleet.bound_in_zone(public.schedules, timestamptz, text)
  from public, anon, authenticated, service_role;

create or replace function fleet.next_due(p_recurrence jsonb, p_after timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_recurrence ->> 'kind' is distinct from 'union' then
    return fleet.next_occurrence(p_recurrence, p_after);
  end if;
  return (
    select min(fleet.next_occurrence(m.member, p_after))
    from jsonb_array_elements(p_recurrence -> 'members') as m(member)
  );
end;
$$;

comment on function fleet.next_due(jsonb, timestamptz) is 'The first due instant after p_after, in whichever zone; null when there is none.';
revoke all on function fleet.next_due(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.due_instants(p_recurrence jsonb, p_from timestamptz, p_to timestamptz)
returns setof timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_recurrence ->> 'kind' is distinct from 'union' then
    return query select o from fleet.occurrences(p_recurrence, p_from, p_to) as o;
    return;
  end if;
  return query
  select distinct o
  from jsonb_array_elements(p_recurrence -> 'members') as m(member)
  cross join lateral fleet.occurrences(m.member, p_from, p_to) as o
  order by o;
end;
$$;

comment on function fleet.due_instants(jsonb, timestamptz, timestamptz) is
  'The due instants within [p_from, p_to), each once however many zones share it.';
revoke all on function fleet.due_instants(jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.count_due(p_recurrence jsonb, p_from timestamptz, p_to timestamptz)
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_recurrence ->> 'kind' is distinct from 'union' then
    return fleet.count_occurrences(p_recurrence, p_from, p_to);
  end if;
  return (select count(*) from fleet.due_instants(p_recurrence, p_from, p_to));
end;
$$;

comment on function fleet.count_due(jsonb, timestamptz, timestamptz) is 'How many due instants lie within [p_from, p_to).';
revoke all on function fleet.count_due(jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.zones_due(p_recurrence jsonb, p_instant timestamptz)
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_recurrence ->> 'kind' is distinct from 'union' then
    return null;
  end if;
  return (
    select array_agg(m.member ->> 'timezone')
    from jsonb_array_elements(p_recurrence -> 'members') as m(member)
    where fleet.next_occurrence(m.member, p_instant - interval '1 microsecond') = p_instant
  );
end;
$$;

comment on function fleet.zones_due(jsonb, timestamptz) is
  'For whose devices an instant is due, by zone; null where the schedule has a zone of its own.';
revoke all on function fleet.zones_due(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.zones_to_run(
  p_recurrence jsonb,
  p_policies jsonb,
  p_instant timestamptz,
  p_now timestamptz
)
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_recurrence ->> 'kind' is distinct from 'union' then
    return null;
  end if;
  return (
    select coalesce(array_agg(m.member ->> 'timezone'), '{}')
    from jsonb_array_elements(p_recurrence -> 'members') as m(member)
    where fleet.next_occurrence(m.member, p_instant - interval '1 microsecond') = p_instant
      -- Of what was missed each zone has a latest of its own.
      and (
        p_policies ->> 'catchup' = 'all'
        or coalesce(fleet.next_occurrence(m.member, p_instant) > p_now, true)
      )
  );
end;
$$;

comment on function fleet.zones_to_run(jsonb, jsonb, timestamptz, timestamptz) is
  'For whose devices a due instant runs now, by zone: none where a later one has taken its place. Null where the schedule has a zone of '
  'its own.';
revoke all on function fleet.zones_to_run(jsonb, jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.next_due_in(p_recurrence jsonb, p_zones text[], p_after timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_recurrence ->> 'kind' is distinct from 'union' then
    return fleet.next_occurrence(p_recurrence, p_after);
  end if;
  return (
    select min(fleet.next_occurrence(m.member, p_after))
    from jsonb_array_elements(p_recurrence -> 'members') as m(member)
    where m.member ->> 'timezone' = any (p_zones)
  );
end;
$$;

comment on function fleet.next_due_in(jsonb, text[], timestamptz) is
  'The first due instant after p_after for the devices of these zones; null when there is none.';
revoke all on function fleet.next_due_in(jsonb, text[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.dst_rule_at(p_recurrence jsonb, p_instant timestamptz)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_recurrence ->> 'kind' is distinct from 'union' then
    return fleet.applied_rule(p_recurrence, p_instant);
  end if;
  return (
    select string_agg((m.member ->> 'timezone') || ' ' || r.rule, ', ')
    from jsonb_array_elements(p_recurrence -> 'members') as m(member)
    cross join lateral fleet.applied_rule(m.member, p_instant) as r(rule)
    where r.rule is not null
      and fleet.next_occurrence(m.member, p_instant - interval '1 microsecond') = p_instant
  );
end;
$$;

comment on function fleet.dst_rule_at(jsonb, timestamptz) is
  'Which rule moved an instant at a change of the clock, with the zone where there are several; null where none did.';
revoke all on function fleet.dst_rule_at(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.last_occurrence(p_recurrence jsonb, p_from timestamptz, p_to timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_span interval := '1 hour';
  v_last timestamptz;
begin
  -- Backwards in growing steps: the last instant of a long pause is found without walking through all of it.
  loop
    select max(o) into v_last
    from fleet.due_instants(p_recurrence, greatest(p_from, p_to - v_span), p_to) as o;
    exit when v_last is not null or p_to - v_span <= p_from;
    v_span := v_span * 12;
  end loop;
  return v_last;
end;
$$;

comment on function fleet.last_occurrence(jsonb, timestamptz, timestamptz) is
  'The last due instant within [p_from, p_to); null when there is none.';
revoke all on function fleet.last_occurrence(jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/30_schedules/52_new_zones.sql
-- Keeping schedules in device time aware of the time zones of their devices. Devices come, move and change groups; a schedule must
-- know each zone before its local time comes there.

create or replace function fleet.refresh_device_time(p_schedule_ids bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  update public.schedules as s
  set recurrence = f.recurrence,
      next_run_at = least(s.next_run_at, fleet.next_due(f.recurrence, clock_timestamp()))
  from (
    select x.id, fleet.compiled(x) as recurrence
    from public.schedules as x
    where x.id = any (p_schedule_ids)
      and not (x.recurrence -> 'zones') @> to_jsonb(fleet.target_zones(x))
  ) as f
  where s.id = f.id
$$;

comment on function fleet.refresh_device_time(bigint[]) is
  'Recompile those of these schedules whose devices are in a zone that they do not know yet.';
revoke all on function fleet.refresh_device_time(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.device_time_schedules(p_owner_ids uuid[], p_zones text[], p_group_ids bigint[])
returns bigint[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select array_agg(s.id)
  from public.schedules as s
  where s.timezone = 'device'
    and s.status = 'active'
    and s.after_schedule_id is null
    and s.owner_id = any (p_owner_ids)
    and (
      s.group_ids && p_group_ids
      -- Each zone is one of the owner beside it.
      or exists (
        select 1
        from unnest(p_owner_ids, p_zones) as u(owner_id, zone)
        where u.owner_id = s.owner_id and not (s.recurrence -> 'zones') ? u.zone
      )
    )
$$;

comment on function fleet.device_time_schedules(uuid[], text[], bigint[]) is
  'The active schedules in device time that these zones of these owners, or a change of these groups, may be news to.';
revoke all on function fleet.device_time_schedules(uuid[], text[], bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.refresh_union(p_schedule_ids bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  -- Devices may have gone to other zones since; groups and selectors tell only now.
  update public.schedules as s
  set recurrence = fleet.compiled(s)
  where s.id = any (p_schedule_ids)
    and s.timezone = 'device'
    and s.recurrence -> 'zones' is distinct from to_jsonb(fleet.target_zones(s))
$$;

comment on function fleet.refresh_union(bigint[]) is
  'Recompile those of these schedules that go by device time and whose devices are in other zones than before.';
revoke all on function fleet.refresh_union(bigint[]) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/55_rrule.sql
-- A calendar's recurrence rule (RFC 5545) in the JSON of a schedule: key "rrule".

create or replace function fleet.recurrence_of_rrule(p_spec jsonb)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  -- In device time what the clock shows is read as UTC, as everywhere.
  v_zone text := coalesce(nullif(p_spec ->> 'timezone', 'device'), 'UTC');
  v_start timestamptz;
  v_problem text;
  v_hint text;
begin
  if not fleet.is_time_zone(v_zone) then
    v_zone := 'UTC';
  end if;
  v_start := fleet.try_instant(p_spec ->> 'start_time', v_zone);
  if v_start is null then
    return jsonb_build_object(
      'problem', 'needs start_time, from which a rule counts and takes its time of day',
      'hint', 'Example: {"rrule": "FREQ=WEEKLY;BYDAY=MO,WE", "start_time": "2030-03-04T06:30:00"}'
    );
  end if;
  return fleet.recurrence_from_rrule(p_spec ->> 'rrule', v_start, v_zone);
exception
  when sqlstate 'PT422' then
    get stacked diagnostics v_problem = message_text, v_hint = pg_exception_hint;
    return jsonb_build_object('problem', regexp_replace(v_problem, '^RRULE: ', ''), 'hint', v_hint);
end;
$$;

comment on function fleet.recurrence_of_rrule(jsonb) is
  'What key rrule of a schedule comes to in our own keys, or {"problem", "hint"} where it cannot be said in them.';
revoke all on function fleet.recurrence_of_rrule(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.rrule_problems(p_spec jsonb)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with given as (
    select p_spec ->> 'rrule' as rule
    where jsonb_typeof(p_spec -> 'rrule') = 'string'
  )
  select 'rrule', format('and %s exclude each other', k.key), 'Say in one of the two ways how the schedule recurs.'
  from given
  cross join (values ('recurrence_type'), ('recurrence_config')) as k(key)
  where coalesce(p_spec -> k.key, 'null') <> 'null'
  union all
  select 'rrule', 'ends by itself: COUNT or UNTIL and end_time exclude each other', 'Leave end_time out, or COUNT and UNTIL.'
  from given as g
  where g.rule ~* '(COUNT|UNTIL)=' and coalesce(p_spec -> 'end_time', 'null') <> 'null'
  union all
  select 'rrule', r.recurrence ->> 'problem', r.recurrence ->> 'hint'
  from given
  cross join fleet.recurrence_of_rrule(p_spec) as r(recurrence)
  -- A change may leave the start as it was; who reads the whole then tells.
  where p_spec ? 'start_time' and r.recurrence ? 'problem'
$$;

comment on function fleet.rrule_problems(jsonb) is 'What is wrong with key rrule of a schedule in JSON.';
revoke all on function fleet.rrule_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.spec_without_rrule(p_spec jsonb)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_recurrence jsonb;
begin
  if coalesce(jsonb_typeof(p_spec -> 'rrule'), 'null') <> 'string' then
    return p_spec - 'rrule';
  end if;

  v_recurrence := fleet.recurrence_of_rrule(p_spec);
  if v_recurrence ? 'problem' then
    perform fleet.raise_problems(
      'the schedule', 'schedule_invalid', array[('rrule', v_recurrence ->> 'problem', v_recurrence ->> 'hint')::fleet.problem]
    );
  end if;
  return (p_spec - 'rrule')
    || (v_recurrence - '{timezone,start_time,policies}'::text[])
    || jsonb_build_object('policies', (v_recurrence -> 'policies') || fleet.object_or_empty(p_spec -> 'policies'));
end;
$$;

comment on function fleet.spec_without_rrule(jsonb) is
  'The specification with its rrule in our own keys: recurrence_type, recurrence_config, end_time, and the policies that the standard '
  'implies where it says nothing of its own. Raises schedule_invalid (PT422) naming rrule.';
revoke all on function fleet.spec_without_rrule(jsonb) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/60_follows.sql
-- Schedules that run when a run of another one has ended: which may be followed, and what becomes of one whose parent is deleted.

create or replace function fleet.follow_problems(p_schedule public.schedules)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id bigint := p_schedule.after_schedule_id;
  v_seen bigint[] := '{}';
begin
  if v_id is null then
    return;
  end if;

  return query
  select q.field, q.problem, q.hint
  from fleet.choice_problem('after.on', to_jsonb(p_schedule.after_on), '{completed,failed,either}') as q;
  if not exists (
    select 1 from public.schedules as s where s.id = v_id and s.owner_id = p_schedule.owner_id
  ) then
    return query
    select 'after.schedule_id', format('schedule %s was not found', v_id), 'List your schedules with: pgfleet schedule list';
    return;
  end if;

  -- Up the chain: whoever comes back to where it began would run for ever.
  while v_id is not null and v_id <> all (v_seen) loop
    if v_id = p_schedule.id then
      return query
      select 'after.schedule_id', format('schedule %s follows this one already: they would run for ever', p_schedule.after_schedule_id),
        'Let the first schedule of the chain have times of its own.';
      return;
    end if;
    v_seen := v_seen || v_id;
    select s.after_schedule_id into v_id from public.schedules as s where s.id = v_id;
  end loop;
end;
$$;

comment on function fleet.follow_problems(public.schedules) is
  'Whether the schedule that this one follows exists for its owner and does not follow it in turn.';
revoke all on function fleet.follow_problems(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.has_lost_parent(p_old public.schedules, p_new public.schedules)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select p_old.after_schedule_id is not null
      and p_new.after_schedule_id is null
      and not exists (select 1 from public.schedules as s where s.id = p_old.after_schedule_id)
  );
end;
$$;

comment on function fleet.has_lost_parent(public.schedules, public.schedules) is
  'Whether this change comes from the foreign key: the schedule that this one follows is deleted.';
revoke all on function fleet.has_lost_parent(public.schedules, public.schedules)
  from public, anon, authenticated, service_role;

create or replace function fleet.abandoned_schedule(p_old public.schedules, p_new public.schedules)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules := p_new;
begin
  v_row.after_on := null;
  -- Nobody said when it is to run instead; times that it has besides wait until it is resumed.
  v_row.next_run_at := case
    when v_row.recurrence_type <> 'once' and v_row.status in ('active', 'paused') then fleet.first_due(v_row, clock_timestamp())
  end;
  if v_row.status = 'active' then
    v_row.status := 'paused';
    v_row.status_reason := format('schedule %s, which it followed, was deleted', p_old.after_schedule_id);
  end if;
  v_row.updated_at := now();
  return v_row;
end;
$$;

comment on function fleet.abandoned_schedule(public.schedules, public.schedules) is
  'The row of a schedule that followed one that is deleted: paused, with the reason.';
revoke all on function fleet.abandoned_schedule(public.schedules, public.schedules)
  from public, anon, authenticated, service_role;

-- db/sources/30_schedules/70_row.sql
-- Derived columns of a schedule: what follows from what was written.

create or replace function fleet.completed_schedule(p_old public.schedules, p_new public.schedules)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules := p_new;
begin
  v_row.recurrence_type := coalesce(fleet.recurrence_type(v_row.recurrence_type), v_row.recurrence_type);
  if v_row.profile_id is null then
    v_row.profile_id := v_row.payload ->> 'profile_id';
  elsif v_row.profile_id is distinct from v_row.payload ->> 'profile_id' and jsonb_typeof(v_row.payload) = 'object' then
    v_row.payload := v_row.payload || jsonb_build_object('profile_id', v_row.profile_id);
  end if;

  -- Nobody who is named is dropped: a device beside other targets is one more of them.
  v_row.device_ids := array(
    select distinct u.id from unnest(v_row.device_ids || v_row.device_id) as u(id) where u.id is not null order by u.id
  );
  v_row.group_ids := coalesce(v_row.group_ids, '{}');
  v_row.device_id := case
    when cardinality(v_row.device_ids) = 1 and v_row.group_ids = '{}' and v_row.selector is null
      then v_row.device_ids[1]
  end;

  if p_old.id is null
    or (v_row.owner_id, v_row.policies, v_row.timezone) is distinct from (p_old.owner_id, p_old.policies, p_old.timezone)
  then
    if v_row.policies ? 'blackouts' then
      v_row.policies := fleet.named_blackouts(v_row.owner_id, v_row.policies);
    end if;
    if v_row.timezone = 'device' then
      v_row.policies := fleet.policies_in_device_time(v_row.policies);
    end if;
  end if;
  if v_row.after_schedule_id is not null then
    v_row.after_on := coalesce(v_row.after_on, 'completed');
  end if;
  if btrim(coalesce(v_row.name, '')) = '' then
    v_row.name := concat_ws(' ', v_row.action_type, v_row.profile_id, 'on ' || v_row.device_id);
  end if;
  return v_row;
end;
$$;

comment on function fleet.completed_schedule(public.schedules, public.schedules) is
  'The new row with profile_id and payload, and device_id and device_ids, brought to agree, and a name where none was given. The old one '
  'tells what need not be looked at again.';
revoke all on function fleet.completed_schedule(public.schedules, public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.without_stale_twins(p_old public.schedules, p_new public.schedules)
returns public.schedules
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules := p_new;
begin
  -- Of two columns that say the same, the one that was changed is meant; the other follows from it.
  if p_new.payload is distinct from p_old.payload and p_new.profile_id is not distinct from p_old.profile_id then
    v_row.profile_id := null;
  elsif p_new.profile_id is null and p_old.profile_id is not null and jsonb_typeof(p_new.payload) = 'object' then
    v_row.payload := p_new.payload - 'profile_id';
  end if;

  if p_new.device_id is not distinct from p_old.device_id then
    v_row.device_id := null;
  elsif p_new.device_ids is not distinct from p_old.device_ids then
    v_row.device_ids := case when p_new.device_id is null then array_remove(p_new.device_ids, p_old.device_id) else '{}' end;
    -- The one device takes the place of all other targets, unless they were changed in the same breath.
    if p_new.device_id is not null and p_new.group_ids = p_old.group_ids and p_new.selector is not distinct from p_old.selector then
      v_row.group_ids := '{}';
      v_row.selector := null;
    end if;
  end if;
  return v_row;
end;
$$;

comment on function fleet.without_stale_twins(public.schedules, public.schedules) is
  'The new row, with the columns emptied that are to follow from their changed twin. fleet.completed_schedule fills them.';
revoke all on function fleet.without_stale_twins(public.schedules, public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.first_due(p_schedule public.schedules, p_now timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A single run is owed even when its time has passed: the ledger then says what became of it. A recurring schedule owes
  -- nothing for the time before it existed.
  return (
    select case
      -- What follows another schedule has no instants of its own.
      when p_schedule.after_schedule_id is not null then null
      when p_schedule.recurrence_type = 'once'
        then fleet.next_due(p_schedule.recurrence, '-infinity')
      else fleet.next_due(
        p_schedule.recurrence,
        case
          -- Days start earlier in the east: the bounds of each zone are in its member of the union.
          when p_schedule.timezone = 'device' then p_now
          else greatest(p_schedule.start_time, p_now)
        end - interval '1 microsecond'
      )
    end
  );
end;
$$;

comment on function fleet.first_due(public.schedules, timestamptz) is
  'The first instant that a new or changed schedule is due.';
revoke all on function fleet.first_due(public.schedules, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.ended_or_not(p_schedule public.schedules)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules := p_schedule;
  v_reason text := fleet.end_reason(v_row);
begin
  if v_reason is null and v_row.status = 'completed' then
    v_row.status := 'active';
    v_row.status_reason := null;
  elsif v_reason is not null and v_row.status in ('active', 'completed') then
    v_row.status := 'completed';
    v_row.status_reason := v_reason;
    v_row.next_run_at := null;
  end if;
  return v_row;
end;
$$;

comment on function fleet.ended_or_not(public.schedules) is
  'The row of a schedule whose times or limits have changed: completed where it has come to its end, active where it goes on.';
revoke all on function fleet.ended_or_not(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.prepared_schedule(p_old public.schedules, p_new public.schedules, p_now timestamptz)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_is_new boolean := p_old.id is null;
  v_row public.schedules := p_new;
begin
  if not v_is_new then
    v_row := fleet.without_stale_twins(p_old, v_row);
  end if;
  v_row := fleet.completed_schedule(p_old, v_row);
  perform fleet.raise_problems(
    'the schedule', 'schedule_invalid', array(select q from fleet.schedule_problems(p_old, v_row) as q)
  );

  v_row.recurrence := case
    when v_is_new or fleet.recurrence_changed(p_old, v_row) then fleet.compiled(v_row) else p_old.recurrence
  end;
  if v_row.status = 'cancelled' then
    return v_row;
  elsif v_is_new or fleet.timing_changed(p_old, v_row) then
    v_row.next_run_at := fleet.first_due(v_row, p_now);
    return fleet.ended_or_not(v_row);
  elsif fleet.limit_changed(p_old, v_row) then
    if v_row.status = 'completed' then
      v_row.next_run_at := fleet.first_due(v_row, p_now);
    end if;
    return fleet.ended_or_not(v_row);
  end if;
  return v_row;
end;
$$;

comment on function fleet.prepared_schedule(public.schedules, public.schedules, timestamptz) is
  'The row that writing p_new in place of p_old at p_now makes: complete, checked, compiled, with its next due instant; an old row without '
  'an id is none. What did not change is not looked at again. Raises schedule_invalid (PT422, or PT404) naming every wrong field.';
revoke all on function fleet.prepared_schedule(public.schedules, public.schedules, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.recurrence_changed(p_old public.schedules, p_new public.schedules)
returns boolean
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (p_old.recurrence_type, p_old.recurrence_config, p_old.start_time, p_old.end_time, p_old.timezone,
      p_old.policies -> 'gap', p_old.policies -> 'fold')
    is distinct from
    (p_new.recurrence_type, p_new.recurrence_config, p_new.start_time, p_new.end_time, p_new.timezone,
      p_new.policies -> 'gap', p_new.policies -> 'fold')
    -- In device time it has a member for each zone of its devices.
    or (p_new.timezone = 'device' and fleet.targets_changed(p_old, p_new));
end;
$$;

comment on function fleet.recurrence_changed(public.schedules, public.schedules) is
  'Whether the compiled recurrence of a schedule may have changed.';
revoke all on function fleet.recurrence_changed(public.schedules, public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.targets_changed(p_old public.schedules, p_new public.schedules)
returns boolean
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (p_old.owner_id, p_old.device_ids, p_old.group_ids, p_old.selector)
    is distinct from (p_new.owner_id, p_new.device_ids, p_new.group_ids, p_new.selector);
end;
$$;

comment on function fleet.targets_changed(public.schedules, public.schedules) is 'Whether a schedule names others than before.';
revoke all on function fleet.targets_changed(public.schedules, public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.timing_changed(p_old public.schedules, p_new public.schedules)
returns boolean
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select (p_old.recurrence_type, p_old.recurrence_config, p_old.start_time, p_old.end_time, p_old.timezone,
        p_old.recurrence, p_old.after_schedule_id, p_old.after_on)
      is distinct from
      (p_new.recurrence_type, p_new.recurrence_config, p_new.start_time, p_new.end_time, p_new.timezone,
        p_new.recurrence, p_new.after_schedule_id, p_new.after_on)
  );
end;
$$;

comment on function fleet.timing_changed(public.schedules, public.schedules) is 'Whether the due instants may have changed.';
revoke all on function fleet.timing_changed(public.schedules, public.schedules)
  from public, anon, authenticated, service_role;

create or replace function fleet.limit_changed(p_old public.schedules, p_new public.schedules)
returns boolean
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select p_old.status in ('active', 'completed')
      and coalesce(fleet.runs_left(p_old) <= 0, false) is distinct from coalesce(fleet.runs_left(p_new) <= 0, false)
  );
end;
$$;

comment on function fleet.limit_changed(public.schedules, public.schedules) is
  'Whether a schedule that ran as often as it may is to go on, or one that goes on has run as often as it may now.';
revoke all on function fleet.limit_changed(public.schedules, public.schedules) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/80_edit.sql
-- Making, changing and deleting a schedule.

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

create or replace function fleet.changed_schedule(p_old public.schedules, p_changes jsonb)
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
  perform fleet.require_object(p_changes, 'changes of a schedule', 'Example: {"name": "Nightly", "priority": 5}');
  v_spec := fleet.normal_schedule_spec(p_changes);
  v_problems := array(select t from fleet.name_problems(p_old.owner_id, v_spec) as t);
  v_spec := fleet.with_ids(p_old.owner_id, v_spec);
  v_problems := v_problems || array(
    select t from fleet.spec_type_problems(v_spec) as t
    union all
    select ('owner_id', 'cannot be changed', 'Create the schedule anew for the other owner.')::fleet.problem
    where fleet.try_uuid(v_spec ->> 'owner_id') <> p_old.owner_id
  );
  v_fields := array(select p.field from unnest(v_problems) as p);

  -- What has the wrong type stays as it was, so that everything else is still checked in the same answer.
  v_row := fleet.schedule_from_spec(
    p_old, v_spec - 'owner_id' - coalesce((select array_agg(split_part(f, '.', 1)) from unnest(v_fields) as f), '{}')
  );
  if p_old.id is null then
    -- An insert has no old row to tell by which of two twin columns is meant.
    v_row := fleet.without_stale_twins(p_old, v_row);
  end if;

  if v_problems <> '{}' then
    perform fleet.raise_problems('the schedule', 'schedule_invalid', v_problems || array(
      select q
      from fleet.schedule_problems(p_old, fleet.completed_schedule(p_old, fleet.without_stale_twins(p_old, v_row))) as q
      where q.field <> all (v_fields)
        -- Whoever is named but unknown is not nobody.
        and not (q.field = 'device_ids' and v_fields && '{devices,groups}')
    ));
  end if;
  return v_row;
end;
$$;

comment on function fleet.changed_schedule(public.schedules, jsonb) is
  'The row with changes in the keys of create_schedule, as it is to be written; of a row without an id, the one to be inserted. Raises '
  'schedule_invalid naming every wrong field where one cannot even be read; the rest is left to the trigger, which checks whatever is '
  'written.';
revoke all on function fleet.changed_schedule(public.schedules, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.store_schedule(p_row public.schedules)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_columns text;
  v_id bigint := p_row.id;
begin
  if v_id is null then
    select string_agg(quote_ident(c.name), ', ') into v_columns from fleet.schedule_columns() as c;
    execute format(
      'insert into public.schedules (owner_id, status, %1$s) select r.owner_id, r.status, %1$s from (select ($1).*) as r returning id',
      v_columns
    )
    into v_id
    using p_row;
    return v_id;
  end if;

  -- Only what differs: the triggers, and what they check, go by the columns that are named.
  select string_agg(quote_ident(c.name), ', ') into v_columns
  from fleet.schedule_columns() as c
  cross join (
    select to_jsonb(s) as was, to_jsonb(p_row) as is_to_be from public.schedules as s where s.id = v_id
  ) as d
  where d.was -> c.name is distinct from d.is_to_be -> c.name;
  if v_columns is not null then
    execute format(
      'update public.schedules as s set (%1$s) = (select %1$s from (select ($1).*) as r) where s.id = ($1).id', v_columns
    )
    using p_row;
  end if;
  return v_id;
end;
$$;

comment on function fleet.store_schedule(public.schedules) is
  'Insert the row, with its status, where it has no id; else bring the row of that id to it, without its status. Nothing is done where '
  'nothing differs. The trigger checks it, as it checks every other write.';
revoke all on function fleet.store_schedule(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.schedule_answer(p_schedule_id bigint)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select to_jsonb(s) || jsonb_build_object('warnings', fleet.schedule_warnings(s))
    from public.schedules as s
    where s.id = p_schedule_id
  );
end;
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
  perform fleet.store_schedule(fleet.changed_schedule(v_old, p_changes));
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

-- db/sources/30_schedules/82_copy.sql
-- A schedule like another.

create or replace function fleet.duplicate_schedule(p_schedule_id bigint, p_changes jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_old public.schedules := fleet.schedule_of_caller(p_schedule_id, 'manage');
  v_status text := fleet.status_of_spec(p_changes);
  v_row public.schedules;
begin
  v_old.id := null;
  v_old.name := fleet.copy_name(v_old.owner_id, v_old.name);
  v_row := fleet.changed_schedule(v_old, case when jsonb_typeof(p_changes) = 'object' then p_changes - 'status' else p_changes end);
  v_row.status := coalesce(v_status, 'paused');
  -- Two statements: what the first one made is only seen by the next.
  v_row.id := fleet.store_schedule(v_row);
  return fleet.schedule_answer(v_row.id);
end;
$$;

comment on function fleet.duplicate_schedule(bigint, jsonb) is 'See public.duplicate_schedule. Definer: it checks the caller.';
revoke all on function fleet.duplicate_schedule(bigint, jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.duplicate_schedule(bigint, jsonb) to authenticated, service_role;

create or replace function fleet.copy_name(p_owner_id uuid, p_name text)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select c.name
  from (
    select n.number, p_name || case n.number when 1 then ' (copy)' else format(' (copy %s)', n.number) end as name
    from generate_series(1, 1000) as n(number)
  ) as c
  where not exists (
    select 1 from public.schedules as s where s.owner_id = p_owner_id and lower(s.name) = lower(c.name)
  )
  order by c.number
  limit 1
$$;

comment on function fleet.copy_name(uuid, text) is 'X (copy), or the first X (copy n) that the owner has no schedule of.';
revoke all on function fleet.copy_name(uuid, text) from public, anon, authenticated, service_role;

create or replace function public.duplicate_schedule(p_schedule_id bigint, p_changes jsonb default '{}')
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.duplicate_schedule(p_schedule_id, p_changes)
$$;

comment on function public.duplicate_schedule(bigint, jsonb) is
  'Make a schedule like another, named "X (copy)" and paused, with changes by the keys of create_schedule and status (active or paused). '
  'Answers the row with "warnings". Raises schedule_not_found (PT404), permission_missing (PT403) or schedule_invalid (PT422).';
revoke all on function public.duplicate_schedule(bigint, jsonb) from public, anon, authenticated, service_role;
grant execute on function public.duplicate_schedule(bigint, jsonb) to authenticated, service_role;

-- db/sources/30_schedules/85_verbs.sql
-- Pausing, resuming and cancelling a schedule.

create or replace function fleet.schedule_of_caller(p_schedule_id bigint, p_permission text)
returns public.schedules
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules;
begin
  select s.* into v_row
  from public.schedules as s
  where s.id = p_schedule_id and fleet.is_visible_owner(s.owner_id)
  for update;
  if not found then
    perform fleet.raise_not_found(format('schedule %s', p_schedule_id));
  end if;
  perform fleet.require_permission(v_row.owner_id, p_permission, format('schedule %s', p_schedule_id));
  return v_row;
end;
$$;

comment on function fleet.schedule_of_caller(bigint, text) is
  'The schedule, locked, if the caller may do this with it. Raises schedule_not_found (PT404) or permission_missing (PT403). Definer: '
  'it must see the row to tell.';
revoke all on function fleet.schedule_of_caller(bigint, text) from public, anon, authenticated, service_role;

create or replace function fleet.set_schedule_status(p_schedule_id bigint, p_status text, p_reason text)
returns public.schedules
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules := fleet.schedule_of_caller(p_schedule_id, 'manage');
begin
  if v_row.status = p_status then
    return v_row;
  end if;

  if v_row.status = 'cancelled' or (v_row.status = 'completed' and p_status <> 'cancelled')
    or (p_status = 'active' and v_row.status <> 'paused')
  then
    raise exception 'schedule % is %', p_schedule_id, v_row.status
      using errcode = 'PT409',
            detail = 'schedule_' || v_row.status,
            hint = 'Change its times to use it again, or create it anew.';
  end if;

  update public.schedules as s
  set status = p_status, status_reason = p_reason
  where s.id = p_schedule_id
  returning * into v_row;
  return v_row;
end;
$$;

comment on function fleet.set_schedule_status(bigint, text, text) is
  'Pause, resume or cancel; the same again changes nothing. Raises PT404, PT403 or schedule_<status> (PT409). Definer: it checks the caller.';
revoke all on function fleet.set_schedule_status(bigint, text, text)
  from public, anon, authenticated, service_role;
grant execute on function fleet.set_schedule_status(bigint, text, text) to authenticated, service_role;

create or replace function public.pause_schedule(p_schedule_id bigint, p_reason text default null)
returns public.schedules
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.set_schedule_status(p_schedule_id, 'paused', p_reason)
$$;

comment on function public.pause_schedule(bigint, text) is
  'Let a schedule rest; what is due meanwhile is told as one row of the ledger when it resumes. Raises schedule_not_found (PT404) or '
  'schedule_completed, schedule_cancelled (PT409).';
revoke all on function public.pause_schedule(bigint, text) from public, anon, authenticated, service_role;
grant execute on function public.pause_schedule(bigint, text) to authenticated, service_role;

create or replace function public.resume_schedule(p_schedule_id bigint)
returns public.schedules
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.set_schedule_status(p_schedule_id, 'active', null)
$$;

comment on function public.resume_schedule(bigint) is
  'Go on at the next due instant. Raises schedule_not_found (PT404) or schedule_completed, schedule_cancelled (PT409).';
revoke all on function public.resume_schedule(bigint) from public, anon, authenticated, service_role;
grant execute on function public.resume_schedule(bigint) to authenticated, service_role;

create or replace function public.cancel_schedule(p_schedule_id bigint, p_reason text default null)
returns public.schedules
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.set_schedule_status(p_schedule_id, 'cancelled', p_reason)
$$;

comment on function public.cancel_schedule(bigint, text) is
  'End a schedule for good; commands that no device has started are cancelled. Raises schedule_not_found (PT404).';
revoke all on function public.cancel_schedule(bigint, text) from public, anon, authenticated, service_role;
grant execute on function public.cancel_schedule(bigint, text) to authenticated, service_role;

-- db/sources/30_schedules/90_ledger.sql
-- What a pause, a change or the end of a schedule does to the ledger: what was due is accounted for, what waits is ended.

create or replace function fleet.book_runs(p_runs fleet.run_booking[], p_now timestamptz)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- Compiling the plan would take a hundred times as long as running it.
set jit = off
as $$
declare
  v_pending bigint[];
  v_limited bigint[];
begin
  with booking as materialized (
    select b.* from unnest(p_runs) with ordinality as b
  ),
  booked as (
    insert into public.schedule_runs (
      schedule_id, owner_id, scheduled_for, trigger, status, reason, error_message, action_type, payload, priority,
      missed_from, missed_to, missed_count, not_before, expires_at, zones, dst_rule, after_run_id, idempotency_key,
      started_at, finished_at
    )
    select s.id, s.owner_id, b.scheduled_for, b.trigger, b.status, b.reason, b.error_message, s.action_type, s.payload, s.priority,
      b.missed_from, b.missed_to, b.missed_count, b.not_before, b.expires_at, b.zones, b.dst_rule, b.after_run_id, b.idempotency_key,
      case when b.status <> 'skipped' then p_now end,
      case when b.status <> 'pending' then p_now end
    from booking as b
    join public.schedules as s on s.id = b.schedule_id
    order by b.ordinality
    -- What the ledger knows already does not run again.
    on conflict do nothing
    returning id, schedule_id, status
  ),
  told as (
    -- Whatever follows a failure is to hear of this one.
    insert into fleet.run_progress (run_id, completed, failed)
    select b.id, 0, 0 from booked as b where b.status = 'failed'
  ),
  moved as (
    update public.schedules as s
    set next_run_at = nullif(coalesce(m.next_run_at, s.next_run_at), 'infinity'),
        execution_count = s.execution_count + m.started,
        -- What an MDM carries out is executed when the provider accepts it.
        last_executed_at = case
          when m.started > 0 and not fleet.is_mdm_action(s.action_type) then p_now else s.last_executed_at
        end,
        status = case when m.next_run_at = 'infinity' then 'completed' else s.status end,
        status_reason = case when m.next_run_at = 'infinity' then 'no due instant is left' else s.status_reason end
    from (
      select b.schedule_id, max(b.next_run_at) as next_run_at, coalesce(max(n.started), 0) as started
      from booking as b
      left join (
        select x.schedule_id, count(*) as started from booked as x where x.status <> 'skipped' group by x.schedule_id
      ) as n on n.schedule_id = b.schedule_id
      where b.next_run_at is not null or b.status <> 'skipped'
      group by b.schedule_id
    ) as m
    where s.id = m.schedule_id
  )
  select
    (select array_agg(b.id order by b.id) from booked as b where b.status = 'pending'),
    -- What a change of a schedule tells of itself moves nothing: its row belongs to that change.
    (
      select array_agg(b.schedule_id)
      from booking as b
      where (b.status = 'failed' or b.reason = 'max_runs reached') and (b.next_run_at is not null or b.trigger <> 'schedule')
    )
  into v_pending, v_limited;

  if v_limited is not null then
    perform fleet.end_used_up(v_limited);
  end if;
  return coalesce(v_pending, '{}');
end;
$$;

comment on function fleet.book_runs(fleet.run_booking[], timestamptz) is
  'Write runs into the ledger, which nothing else does: on time, caught up, by hand, in a chain, missed or failed. Counts those that start, '
  'and moves their schedules on. Answers the runs to expand. The caller holds the rows of the schedules.';
revoke all on function fleet.book_runs(fleet.run_booking[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.runs_left(p_schedule public.schedules)
returns bigint
language sql
immutable
parallel safe
return (p_schedule.policies ->> 'max_runs')::bigint + coalesce(p_schedule.idle_count, 0) - coalesce(p_schedule.execution_count, 0);

comment on function fleet.runs_left(public.schedules) is 'How many more runs policies.max_runs allows; null where it sets no limit.';
revoke all on function fleet.runs_left(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.end_reason(p_schedule public.schedules)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select case
      when fleet.runs_left(p_schedule) <= 0
        -- A run that turns out to reach nobody does not count.
        and not exists (
          select 1
          from public.schedule_runs as r
          where r.schedule_id = p_schedule.id
            and r.status in ('pending', 'running')
            and r.expanded_at is null
            and r.targeted = 0
        )
        then 'max_runs reached'
      when p_schedule.next_run_at is null and p_schedule.after_schedule_id is null then 'no due instant is left'
    end
  );
end;
$$;

comment on function fleet.end_reason(public.schedules) is
  'Why an active schedule is completed as it stands; null where it goes on.';
revoke all on function fleet.end_reason(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.end_used_up(p_schedule_ids bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  update public.schedules as s
  set status = 'completed', status_reason = 'max_runs reached', next_run_at = null
  where s.id = any (p_schedule_ids)
    and s.status = 'active'
    and fleet.end_reason(s) = 'max_runs reached'
$$;

comment on function fleet.end_used_up(bigint[]) is 'Complete those of these schedules that have run as often as they may.';
revoke all on function fleet.end_used_up(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.count_idle_runs(p_run_ids bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  update public.schedules as s
  set idle_count = s.idle_count + g.n
  from (
    select r.schedule_id, count(*) as n from public.schedule_runs as r where r.id = any (p_run_ids) group by r.schedule_id
  ) as g
  where s.id = g.schedule_id
$$;

comment on function fleet.count_idle_runs(bigint[]) is
  'Count runs that were started and reached nobody. The caller holds the rows of the schedules.';
revoke all on function fleet.count_idle_runs(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.free_instant(p_schedule public.schedules, p_now timestamptz, p_place bigint)
returns timestamptz
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- Behind what the ledger has already, even in this microsecond; and never an instant that may be due, which are whole
  -- seconds of the clock or whole seconds from the start.
  select g.at
  from (
    select greatest(p_now, max(r.scheduled_for) + interval '1 microsecond') as at
    from public.schedule_runs as r
    where r.schedule_id = p_schedule.id
      and r.scheduled_for >= p_now
      and r.scheduled_for < p_now + interval '1 second'
  ) as f
  cross join lateral generate_series(f.at, f.at + interval '1 microsecond' * (p_place + 1), interval '1 microsecond') as g(at)
  where extract(microseconds from g.at) % 1000000 not in (0, extract(microseconds from p_schedule.start_time) % 1000000)
  order by g.at
  offset p_place - 1
  limit 1
$$;

comment on function fleet.free_instant(public.schedules, timestamptz, bigint) is
  'The n-th instant from now on that no row of the ledger has and that is never due.';
revoke all on function fleet.free_instant(public.schedules, timestamptz, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.skip_due(p_schedule public.schedules, p_now timestamptz, p_reason text)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_to timestamptz := p_now + interval '1 microsecond';
  v_run fleet.run_booking;
begin
  if p_schedule.next_run_at is null or p_schedule.next_run_at > p_now then
    return;
  end if;
  v_run.schedule_id := p_schedule.id;
  v_run.scheduled_for := p_schedule.next_run_at;
  v_run.trigger := 'schedule';
  v_run.status := 'skipped';
  v_run.reason := p_reason;
  v_run.missed_from := p_schedule.next_run_at;
  v_run.missed_to := coalesce(fleet.last_occurrence(p_schedule.recurrence, p_schedule.next_run_at, v_to), p_schedule.next_run_at);
  v_run.missed_count := greatest(fleet.count_due(p_schedule.recurrence, p_schedule.next_run_at, v_to), 1);
  perform fleet.book_runs(array[v_run], p_now);
end;
$$;

comment on function fleet.skip_due(public.schedules, timestamptz, text) is
  'Account in one row for what is due and will not run, because of a pause or a change.';
revoke all on function fleet.skip_due(public.schedules, timestamptz, text) from public, anon, authenticated, service_role;

create or replace function fleet.skip_waiting_runs(p_schedule_id bigint, p_now timestamptz)
returns bigint
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  with skipped as (
    update public.schedule_runs as r
    set status = 'skipped', reason = 'paused', expanded_at = p_now, finished_at = p_now
    where r.schedule_id = p_schedule_id
      and r.status = 'pending'
      and r.expanded_at is null
      and r.not_before > p_now
    returning r.id
  )
  select count(*) from skipped
$$;

comment on function fleet.skip_waiting_runs(bigint, timestamptz) is
  'Skip the runs of a schedule that wait for their window or their turn when it is paused. Answers how many.';
revoke all on function fleet.skip_waiting_runs(bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.cancel_runs_of(p_schedule_id bigint, p_reason text)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  update public.device_commands as c
  set status = 'cancelled', reason = p_reason
  where c.schedule_id = p_schedule_id and c.status = 'pending';

  update public.schedule_runs as r
  set status = 'cancelled', reason = p_reason, expanded_at = now(), finished_at = now()
  where r.schedule_id = p_schedule_id and r.expanded_at is null and r.status in ('pending', 'running')
$$;

comment on function fleet.cancel_runs_of(bigint, text) is
  'Cancel what no device has started yet; what is running may end by itself.';
revoke all on function fleet.cancel_runs_of(bigint, text) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/views.sql
-- Schedules, and the calendars in which nothing runs, as people list them.

drop view if exists public.schedule_list;
create view public.schedule_list with (security_invoker = true) as
select
  s.id,
  s.owner_id,
  o.name as owner,
  s.name,
  s.description,
  s.status,
  s.status_reason,
  s.action_type,
  s.payload,
  s.recurrence_type,
  s.recurrence_config,
  s.timezone,
  s.start_time,
  s.end_time,
  s.next_run_at,
  s.last_executed_at,
  s.execution_count,
  s.device_ids,
  s.group_ids,
  s.selector,
  s.profile_id,
  fleet.effective_policies(s.policies) as policies,
  s.priority,
  s.ui_initiated,
  (select count(*) from public.schedule_runs as r where r.schedule_id = s.id) as runs,
  (select count(*) from public.device_commands as c where c.schedule_id = s.id) as commands,
  (select count(*) from public.device_commands as c where c.schedule_id = s.id and c.status = 'pending') as pending,
  s.created_at,
  s.updated_at
from public.schedules as s
join public.owners as o on o.id = s.owner_id;

comment on view public.schedule_list is
  'Schedules with the policies that hold for them and what has come of them.';
comment on column public.schedule_list.owner is 'The name of the owner.';
comment on column public.schedule_list.policies is 'Every policy that holds, those by default among them.';
comment on column public.schedule_list.runs is 'How many rows it has in the ledger.';
comment on column public.schedule_list.commands is 'How many commands it has made.';
comment on column public.schedule_list.pending is 'How many of them no device has started.';
select fleet.inherit_comments('public.schedule_list', 'public.schedules');
revoke all on table public.schedule_list from public, anon, authenticated, service_role;
grant select on table public.schedule_list to authenticated, service_role;

drop view if exists public.blackout_list;
create view public.blackout_list with (security_invoker = true) as
select
  c.id,
  c.owner_id,
  o.name as owner,
  c.name,
  c.description,
  (select count(*) from public.blackout_periods as p where p.calendar_id = c.id) as periods,
  c.created_at
from public.blackout_calendars as c
join public.owners as o on o.id = c.owner_id;

comment on view public.blackout_list is
  'Blackout calendars with how many periods each has.';
comment on column public.blackout_list.owner is 'The name of the owner.';
comment on column public.blackout_list.periods is 'How many periods it has.';
select fleet.inherit_comments('public.blackout_list', 'public.blackout_calendars');
revoke all on table public.blackout_list from public, anon, authenticated, service_role;
grant select on table public.blackout_list to authenticated, service_role;

drop view if exists public.blackout_period_list;
create view public.blackout_period_list with (security_invoker = true) as
select
  p.id,
  p.owner_id,
  p.calendar_id,
  coalesce(p.starts_at, p.starts_on) as begins_at,
  p.starts_on,
  p.ends_on,
  p.starts_at,
  p.ends_at,
  p.summary
from public.blackout_periods as p;

comment on view public.blackout_period_list is
  'Periods of blackout calendars; ends_on is the day after the last.';
comment on column public.blackout_period_list.begins_at is
  'When it begins; of whole days, their midnight in the time zone of this session.';
select fleet.inherit_comments('public.blackout_period_list', 'public.blackout_periods');
revoke all on table public.blackout_period_list from public, anon, authenticated, service_role;
grant select on table public.blackout_period_list to authenticated, service_role;

-- db/sources/30_schedules/triggers.sql
-- What holds for schedules however a row is written. The tick moves next_run_at and counters only, so it fires none of these.

create or replace function fleet.tg_prepare_schedule()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_old public.schedules;
  v_row public.schedules := new;
begin
  if tg_op = 'UPDATE' then
    v_old := old;
    if fleet.has_lost_parent(v_old, v_row) then
      return fleet.abandoned_schedule(v_old, v_row);
    end if;
  else
    v_row.created_by := fleet.current_user_id();
  end if;
  v_row.owner_id := fleet.owner_or_own(v_row.owner_id);
  perform fleet.require_permission(v_row.owner_id, 'manage', format('owner %s', v_row.owner_id));
  perform fleet.require_destructive(v_row.owner_id, v_row.action_type);
  if v_row.after_schedule_id is distinct from v_old.after_schedule_id then
    -- Two sessions that each let one schedule follow the other would not see the circle they make.
    perform pg_advisory_xact_lock(hashtext('pgfleet.chains'), hashtext(v_row.owner_id::text));
  end if;

  v_row := fleet.prepared_schedule(v_old, v_row, v_now);
  if v_old.status <> 'cancelled' and fleet.timing_changed(v_old, v_row) then
    perform fleet.skip_due(v_old, v_now, case v_old.status when 'paused' then 'paused' else 'the times were changed' end);
  elsif v_old.status = 'active' and v_row.status = 'completed' then
    perform fleet.skip_due(v_old, v_now, v_row.status_reason);
  end if;
  v_row.updated_at := now();
  return v_row;
end;
$$;

comment on function fleet.tg_prepare_schedule() is
  'Check and complete a schedule however it is written, and account for what was due by its old times. Definer: it checks the caller, then '
  'sees what the checks need to see.';
revoke all on function fleet.tg_prepare_schedule() from public, anon, authenticated, service_role;

create or replace function fleet.tg_change_schedule_status()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := clock_timestamp();
begin
  perform fleet.require_permission(old.owner_id, 'manage', format('schedule %s', old.id));
  if new.status = 'active' then
    perform fleet.require_destructive(old.owner_id, old.action_type);
  end if;
  if old.status = 'cancelled' then
    raise exception 'schedule % was cancelled', old.id
      using errcode = 'PT409', detail = 'schedule_cancelled', hint = 'Create it anew.';
  end if;

  -- What was due while it was paused is told in one row, and not made up for.
  if new.next_run_at <= v_now and new.status in ('active', 'cancelled') and new.recurrence = old.recurrence then
    perform fleet.skip_due(old, v_now, case old.status when 'active' then new.status else old.status end);
    new.next_run_at := fleet.next_due(old.recurrence, v_now);
  end if;

  if new.status = 'active' then
    new.status_reason := null;
    if new.timezone = 'device' and new.after_schedule_id is null then
      -- Its devices may have gone to other zones meanwhile.
      new.recurrence := fleet.compiled(new);
      new.next_run_at := least(new.next_run_at, fleet.next_due(new.recurrence, v_now));
    end if;
    if fleet.end_reason(new) is not null then
      new.status := 'completed';
      new.status_reason := fleet.end_reason(new);
      new.next_run_at := null;
    end if;
  elsif new.status = 'paused' then
    new.execution_count := new.execution_count - fleet.skip_waiting_runs(old.id, v_now);
  elsif new.status = 'cancelled' then
    new.next_run_at := null;
    perform fleet.cancel_runs_of(old.id, coalesce(new.status_reason, 'the schedule was cancelled'));
  end if;
  new.updated_at := now();
  return new;
end;
$$;

comment on function fleet.tg_change_schedule_status() is
  'Account for what was due during a pause; end everything of a cancelled schedule. Definer: it writes the ledger.';
revoke all on function fleet.tg_change_schedule_status() from public, anon, authenticated, service_role;

create or replace trigger schedules_02_change_status
  before update of status on public.schedules
  for each row
  when (new.status is distinct from old.status and new.status <> 'completed')
  execute function fleet.tg_change_schedule_status();

do $$
begin
  execute format(
    'create or replace trigger schedules_01_prepare before insert or update of owner_id, %s on public.schedules'
    ' for each row execute function fleet.tg_prepare_schedule()',
    (select string_agg(quote_ident(c.name), ', ') from fleet.schedule_columns() as c)
  );
end;
$$;

create or replace function fleet.tg_keep_used_calendar()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_names text;
begin
  select string_agg(format('"%s"', s.name), ', ' order by s.name) into v_names
  from public.schedules as s
  where s.owner_id = old.owner_id
    and s.status in ('active', 'paused')
    and old.id = any (fleet.blackout_ids(s.policies));
  if v_names is not null then
    raise exception 'calendar "%" is used by %', old.name, v_names
      using errcode = 'PT409', detail = 'calendar_in_use',
            hint = 'Take it out of policies.blackouts of these schedules first.';
  end if;
  return old;
end;
$$;

comment on function fleet.tg_keep_used_calendar() is
  'Keep a calendar that schedules rely on: without it they would run in the holidays. Definer: it looks at all schedules of the owner.';
revoke all on function fleet.tg_keep_used_calendar() from public, anon, authenticated, service_role;

create or replace trigger blackout_calendars_01_keep_used
  before delete on public.blackout_calendars
  for each row execute function fleet.tg_keep_used_calendar();

create or replace function fleet.tg_refresh_device_time()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owners uuid[];
  v_zones text[];
begin
  if tg_op = 'INSERT' then
    select array_agg(u.owner_id), array_agg(u.zone) into v_owners, v_zones
    from (select distinct n.owner_id, coalesce(n.timezone, 'UTC') as zone from new_rows as n) as u;
  else
    -- Being seen is no news: devices say so all the time.
    select array_agg(u.owner_id), array_agg(u.zone) into v_owners, v_zones
    from (
      select distinct n.owner_id, coalesce(n.timezone, 'UTC') as zone
      from new_rows as n
      join old_rows as o on o.id = n.id
      where (n.timezone, n.tags, n.platform, n.attributes, n.status)
        is distinct from (o.timezone, o.tags, o.platform, o.attributes, o.status)
    ) as u;
  end if;
  if v_owners is not null then
    perform fleet.refresh_device_time(fleet.device_time_schedules(v_owners, v_zones, '{}'));
  end if;
  return null;
end;
$$;

comment on function fleet.tg_refresh_device_time() is
  'Tell schedules in device time of devices in a new zone. Definer: who adds a device may not change schedules.';
revoke all on function fleet.tg_refresh_device_time() from public, anon, authenticated, service_role;

create or replace trigger devices_05_refresh_device_time_insert
  after insert on public.devices
  referencing new table as new_rows
  for each statement execute function fleet.tg_refresh_device_time();
create or replace trigger devices_05_refresh_device_time_update
  after update on public.devices
  referencing old table as old_rows new table as new_rows
  for each statement execute function fleet.tg_refresh_device_time();

create or replace function fleet.tg_refresh_zones_of_groups()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owners uuid[];
  v_groups bigint[];
begin
  if tg_table_name = 'device_groups' then
    select array_agg(distinct n.owner_id), array_agg(n.id) into v_owners, v_groups from new_rows as n;
  else
    select array_agg(distinct n.owner_id), array_agg(distinct n.group_id) into v_owners, v_groups from new_rows as n;
  end if;
  perform fleet.refresh_device_time(fleet.device_time_schedules(v_owners, '{}', v_groups));
  return null;
end;
$$;

comment on function fleet.tg_refresh_zones_of_groups() is
  'Tell schedules in device time of new members of their groups. Definer: who changes a group may not change schedules.';
revoke all on function fleet.tg_refresh_zones_of_groups() from public, anon, authenticated, service_role;

create or replace trigger device_groups_05_refresh_device_time
  after update on public.device_groups
  referencing new table as new_rows
  for each statement execute function fleet.tg_refresh_zones_of_groups();
create or replace trigger device_group_members_05_refresh_device_time
  after insert on public.device_group_members
  referencing new table as new_rows
  for each statement execute function fleet.tg_refresh_zones_of_groups();

-- Whatever changes a schedule on purpose stamps it; the engine, which moves it on, does not.
select fleet.keep_audit(
  'public.schedules', p_when => 'new.updated_at is distinct from old.updated_at or new.updated_at = now()',
  p_without => '{recurrence,next_run_at,last_executed_at,execution_count,idle_count,created_at,updated_at}'
);
select fleet.keep_audit('public.blackout_calendars');
select fleet.keep_audit('public.blackout_periods', p_verbs => '{insert,delete}');

-- db/sources/30_schedules/access.sql
-- Who sees and changes schedules, their ledger, blackout calendars and templates: members of the owner. Devices see none of it.

revoke all on table public.schedules, public.schedule_runs from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.schedules, public.schedule_runs to service_role;
revoke all on sequence public.schedules_id_seq, public.schedule_runs_id_seq, fleet.run_progress_id_seq
  from public, anon, authenticated, service_role;
grant usage, select on sequence public.schedules_id_seq, public.schedule_runs_id_seq to service_role;

drop policy if exists schedules_all_service_role on public.schedules;
create policy schedules_all_service_role on public.schedules for all to service_role using (true) with check (true);
drop policy if exists schedule_runs_all_service_role on public.schedule_runs;
create policy schedule_runs_all_service_role on public.schedule_runs
  for all to service_role using (true) with check (true);

-- Counters and instants belong to the engine.
grant select, delete on table public.schedules to authenticated;

do $$
begin
  execute format(
    'grant insert (owner_id, %s) on table public.schedules to authenticated',
    (select string_agg(quote_ident(c.name), ', ') from fleet.schedule_columns() as c)
  );
  -- Who made a schedule, a person by hand or not, is said when it is made.
  execute format(
    'grant update (status, status_reason, %s) on table public.schedules to authenticated',
    (select string_agg(quote_ident(c.name), ', ') from fleet.schedule_columns() as c where c.name <> 'ui_initiated')
  );
end;
$$;

drop policy if exists schedules_select_member on public.schedules;
create policy schedules_select_member on public.schedules
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists schedules_insert_manager on public.schedules;
create policy schedules_insert_manager on public.schedules
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists schedules_update_manager on public.schedules;
create policy schedules_update_manager on public.schedules
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists schedules_delete_manager on public.schedules;
create policy schedules_delete_manager on public.schedules
  for delete to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));

grant select on table public.schedule_runs to authenticated;
drop policy if exists schedule_runs_select_member on public.schedule_runs;
create policy schedule_runs_select_member on public.schedule_runs
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

revoke all on table public.blackout_calendars, public.blackout_periods from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.blackout_calendars, public.blackout_periods to service_role;
revoke all on sequence public.blackout_calendars_id_seq, public.blackout_periods_id_seq
  from public, anon, authenticated, service_role;
grant usage, select on sequence public.blackout_calendars_id_seq, public.blackout_periods_id_seq to service_role;

drop policy if exists blackout_calendars_all_service_role on public.blackout_calendars;
create policy blackout_calendars_all_service_role on public.blackout_calendars
  for all to service_role using (true) with check (true);
drop policy if exists blackout_periods_all_service_role on public.blackout_periods;
create policy blackout_periods_all_service_role on public.blackout_periods
  for all to service_role using (true) with check (true);

grant select on table public.blackout_calendars, public.blackout_periods to authenticated;
grant update (name, description) on table public.blackout_calendars to authenticated;

drop policy if exists blackout_calendars_select_member on public.blackout_calendars;
create policy blackout_calendars_select_member on public.blackout_calendars
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists blackout_calendars_update_manager on public.blackout_calendars;
create policy blackout_calendars_update_manager on public.blackout_calendars
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));

drop policy if exists blackout_periods_select_member on public.blackout_periods;
create policy blackout_periods_select_member on public.blackout_periods
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

set check_function_bodies = on;
reset search_path;
