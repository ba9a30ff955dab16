-- Generated from db/sources/30_schedules by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/30_schedules/10_defaults.sql
-- The policies of a schedule that says nothing: every default in one place.

-- overlap: what happens to a device that has not finished the run before: it is skipped, gets the new one when it has finished (one
-- at most is kept waiting), gets it at once, or has the old one cancelled.
-- catchup: what happens to instants that passed while nothing ticked: none, the latest, or all of them; catchup_rate is runs a minute
-- meanwhile, null for all at once.
-- expires_after: null until the next due instant, at most 24 hours.
-- unknown_zone: in device time, whether devices without a zone go by UTC, by their owner's zone, or not at all (utc, owner, skip).
-- retry: a null backoff is the setting retry_backoff_seconds; only failures of the classes in "on" are tried again.
-- jitter: each device has a slot of its own within this time, the same at every run.
-- rollout: in groups, at a rate, with rules that stop it; null for everybody at once.
-- One constant: it is asked for at every run, and what is built anew costs more than all that is done with it.
create or replace function fleet.default_policies()
returns jsonb
language sql
immutable
parallel safe
return '{
  "overlap": "skip", "max_concurrent": 3,
  "catchup": "latest", "catchup_window": "1 hour", "catchup_limit": 10, "catchup_rate": null,
  "expires_after": null,
  "gap": "first_instant", "fold": "first", "unknown_zone": "owner",
  "retry": {
    "attempts": 3, "backoff": null, "max_backoff": "1 hour",
    "on": ["error", "timeout", "network", "rate_limited", "unavailable", "lease_expired"]
  },
  "jitter": null,
  "execution_window": null,
  "blackouts": [],
  "max_runs": null,
  "rollout": null,
  "pause_on_failure": null
}'::jsonb;

comment on function fleet.default_policies() is 'The policies of a schedule that says nothing.';
revoke all on function fleet.default_policies() from public, anon, authenticated, service_role;
grant execute on function fleet.default_policies() to authenticated, service_role;

create or replace function fleet.effective_policies(p_policies jsonb)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  -- plpgsql keeps its plans, in which the defaults are a constant.
  if p_policies = '{}' then
    return fleet.default_policies();
  end if;
  return fleet.default_policies()
    || p_policies
    || jsonb_build_object('retry', (fleet.default_policies() -> 'retry') || coalesce(p_policies -> 'retry', '{}'));
end;
$$;

comment on function fleet.effective_policies(jsonb) is 'What a schedule says, completed by the defaults.';
revoke all on function fleet.effective_policies(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.effective_policies(jsonb) to authenticated, service_role;

-- db/sources/30_schedules/20_spec.sql
-- A schedule as JSON of a person, a script or an older system: its keys, their other names, and the row that it describes.

create or replace function fleet.schedule_aliases()
returns table (alias text, name text)
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  values
    ('task_name', 'name'),
    ('task_type', 'action_type'),
    ('scheduled_time', 'start_time'),
    ('command_payload', 'payload'),
    ('software_payload', 'payload'),
    ('file_payload', 'payload');
end;
$$;

comment on function fleet.schedule_aliases() is 'Keys that mean one of ours, as request bodies of task schedulers have them.';
revoke all on function fleet.schedule_aliases() from public, anon, authenticated, service_role;

create or replace function fleet.schedule_alias_keys()
returns text[]
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (select array_agg(a.alias) from fleet.schedule_aliases() as a);
end;
$$;

comment on function fleet.schedule_alias_keys() is 'The keys of fleet.schedule_aliases(): a constant, which Postgres works out once a plan.';
revoke all on function fleet.schedule_alias_keys() from public, anon, authenticated, service_role;

create or replace function fleet.normal_schedule_spec(p_spec jsonb)
returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if not p_spec ?| fleet.schedule_alias_keys()
    and coalesce(p_spec ->> 'action_type' not in ('command', 'software_deployment', 'file_deployment'), true)
    and p_spec ->> 'recurrence_type' is distinct from 'custom'
  then
    return p_spec;
  end if;

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

create or replace function fleet.sent_field(p_spec jsonb, p_field text)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_name text := split_part(p_field, '.', 1);
  v_sent text;
begin
  -- Of names that were sent the one that says something; of what was not sent, the one in the words of the rest.
  select coalesce(
    (
      select a.alias from fleet.schedule_aliases() as a
      where a.name = v_name and p_spec ? a.alias and coalesce(p_spec -> v_name, 'null') = 'null'
      order by p_spec -> a.alias = 'null', a.alias
      limit 1
    ),
    (
      select a.alias from fleet.schedule_aliases() as a
      where a.name = v_name and v_name <> 'payload' and coalesce(p_spec -> v_name, 'null') = 'null' and p_spec ?| '{task_name,task_type,scheduled_time}'
    ),
    case
      when v_name = 'payload' and coalesce(p_spec -> 'payload', 'null') = 'null' then
        case p_spec ->> 'task_type'
          when 'command' then 'command_payload'
          when 'software_deployment' then 'software_payload'
          when 'file_deployment' then 'file_payload'
        end
    end,
    v_name
  )
  into v_sent;
  return v_sent || substr(p_field, length(v_name) + 1);
end;
$$;

comment on function fleet.sent_field(jsonb, text) is
  'The name under which a field of a schedule was sent, or would have been, in the words of a task scheduler where these were used.';
revoke all on function fleet.sent_field(jsonb, text) from public, anon, authenticated, service_role;

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
    ('start_is_local', 'boolean', 'false', false),
    ('end_is_local', 'boolean', 'false', false),
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
    ('after_on', 'string', null, true),
    ('after_per_device', 'boolean', 'false', false);
end;
$$;

comment on function fleet.schedule_columns() is
  'The columns of a schedule that people write: the one list of them. kind is how JSON has it; null empties what is clearable and says '
  'nothing elsewhere. Whatever reads, stores, checks, exports or grants goes by it.';
revoke all on function fleet.schedule_columns() from public, anon, authenticated, service_role;

create or replace function fleet.schedule_defaults()
returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (select jsonb_object_agg(c.name, c.default_value) from fleet.schedule_columns() as c where c.default_value is not null);
end;
$$;

comment on function fleet.schedule_defaults() is
  'The default of each column of fleet.schedule_columns(): a constant, which Postgres works out once a plan.';
revoke all on function fleet.schedule_defaults() from public, anon, authenticated, service_role;

create or replace function fleet.schedule_kinds()
returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (select jsonb_object_agg(c.name, c.kind) from fleet.schedule_columns() as c);
end;
$$;

comment on function fleet.schedule_kinds() is
  'The kind of each column of fleet.schedule_columns() by its name: a constant, which Postgres works out once a plan.';
revoke all on function fleet.schedule_kinds() from public, anon, authenticated, service_role;

create or replace function fleet.clearable_columns()
returns text[]
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (select array_agg(c.name) from fleet.schedule_columns() as c where c.is_clearable);
end;
$$;

comment on function fleet.clearable_columns() is
  'Those of fleet.schedule_columns() that null empties: a constant, which Postgres works out once a plan.';
revoke all on function fleet.clearable_columns() from public, anon, authenticated, service_role;

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
        'start_time', case
          when p_old.start_is_local then left(fleet.instant_text(p_old.start_time), 26)
          else fleet.instant_text(p_old.start_time)
        end,
        'timezone', p_old.timezone, 'policies', p_old.policies, 'owner_id', p_old.owner_id
      )
      || coalesce(fleet.rrule_bounds(v_spec), '{}')
      || fleet.without_nulls(v_spec)
    );
  elsif v_spec ->> 'recurrence_type' <> p_old.recurrence_type and coalesce(v_spec -> 'recurrence_config', 'null') = 'null' then
    -- Settings of another kind of recurrence would only be in the way.
    v_spec := v_spec || '{"recurrence_config": {}}';
  end if;
  if v_spec ? 'after' then
    v_spec := v_spec || jsonb_build_object(
      'after_schedule_id', coalesce(v_spec #> '{after,schedule_id}', v_spec -> 'after_schedule_id'),
      'after_on', coalesce(v_spec #> '{after,on}', v_spec -> 'after_on'),
      'after_per_device', coalesce(v_spec #> '{after,per_device}', v_spec -> 'after_per_device', 'null')
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
      jsonb_object_agg(e.key, case fleet.schedule_kinds() ->> e.key
        when 'time' then to_jsonb(fleet.try_instant(e.value #>> '{}', v_zone))
        when 'ids' then to_jsonb(fleet.bigint_array(e.value))
        when 'id' then to_jsonb((e.value #>> '{}')::numeric::bigint)
        when 'priority' then to_jsonb((e.value #>> '{}')::numeric::bigint)
        else e.value
      end),
      '{}'
    )
    from jsonb_each(v_spec) as e
    where fleet.schedule_kinds() ? e.key and (e.value <> 'null' or e.key = any (fleet.clearable_columns()))
  ));
  v_row.start_time := coalesce(v_row.start_time, clock_timestamp());
  if v_row.timezone = 'device' then
    -- Without an offset it is what each device's wall shows.
    if fleet.is_wall_time(v_spec ->> 'start_time') is not null and not v_spec ? 'start_is_local' then
      v_row.start_is_local := fleet.is_wall_time(v_spec ->> 'start_time');
    end if;
    if fleet.is_wall_time(v_spec ->> 'end_time') is not null and not v_spec ? 'end_is_local' then
      v_row.end_is_local := fleet.is_wall_time(v_spec ->> 'end_time');
    end if;
  end if;
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

-- db/sources/30_schedules/22_spec_types.sql
-- A schedule as JSON whose keys are unknown, or hold something of another type than they are to.

create or replace function fleet.after_problems(p_after jsonb)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select 'after.' || k.key, 'is not a key of after', 'The keys are schedule (a name), schedule_id, on and per_device.'
  from jsonb_object_keys(fleet.object_or_empty(p_after)) as k(key)
  where k.key not in ('schedule', 'schedule_id', 'on', 'per_device')
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
  union all
  select 'after.per_device', 'must be true or false', 'Example: {"after": {"schedule_id": 7, "per_device": true}}'
  where jsonb_typeof(p_after) = 'object' and jsonb_typeof(p_after -> 'per_device') not in ('boolean', 'null')
$$;

comment on function fleet.after_problems(jsonb) is 'What is wrong with the key "after" of a schedule in JSON.';
revoke all on function fleet.after_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.value_problem(p_key text, p_value jsonb, p_kind text)
returns fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  case
    when p_kind is null then
      return (
        p_key, 'is not a key of a schedule', (
          select 'The keys are ' || string_agg(k.name, ', ' order by k.nr) || '.'
          from (
            select c.name, row_number() over () as nr from fleet.schedule_columns() as c
            union all
            values ('owner_id', 1001), ('devices', 1002), ('groups', 1003), ('after', 1004), ('rrule', 1005)
          ) as k
        )
      )::fleet.problem;
    when p_value = 'null' then
      return null;
    when p_kind in ('string', 'object', 'boolean') then
      if jsonb_typeof(p_value) <> p_kind then
        return (
          p_key, format('must be %s, not %s', case p_kind when 'object' then 'an object' else 'a ' || p_kind end, p_value),
          'Check the type of the value.'
        )::fleet.problem;
      end if;
    when p_kind = 'time' then
      if fleet.try_instant(p_value #>> '{}', 'UTC') is null then
        return (
          p_key, format('%s is not a time', p_value), 'Write it like "2026-03-01T06:30:00" (local) or "2026-03-01T05:30:00Z".'
        )::fleet.problem;
      end if;
    when p_kind = 'uuid' then
      if fleet.try_uuid(p_value #>> '{}') is null then
        return (p_key, format('%s is not a uuid', p_value), 'Copy the id of the owner.')::fleet.problem;
      end if;
    when p_kind = 'ids' then
      if not fleet.is_id_list(p_value) then
        return (
          p_key, format('%s is not a list of ids', p_value), 'Write whole numbers without quotes, like [1, 2].'
        )::fleet.problem;
      end if;
    when p_kind = 'id' then
      return (select n from fleet.whole_number_problem(p_key, p_value, 1, 9007199254740991) as n);
    when p_kind = 'priority' then
      return (select n from fleet.whole_number_problem(p_key, p_value, -100, 100) as n);
    else
      -- Names are looked at by fleet.name_problems.
      return null;
  end case;
  return null;
end;
$$;

comment on function fleet.value_problem(text, jsonb, text) is
  'What is wrong with the value of one key of a schedule in JSON, by the kind that it is to have; null where nothing is.';
revoke all on function fleet.value_problem(text, jsonb, text) from public, anon, authenticated, service_role;

create or replace function fleet.spec_type_problems(p_spec jsonb)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_key text;
  v_value jsonb;
  v_kind text;
  v_problem fleet.problem;
  v_problems fleet.problem[] := '{}';
  v_ranks integer[] := '{}';
begin
  for v_key, v_value in select e.key, e.value from jsonb_each(p_spec) as e loop
    v_kind := (fleet.schedule_kinds() || '{"owner_id": "uuid", "devices": "names", "groups": "names", "after": "object", "rrule": "string"}')
      ->> v_key;
    v_problem := fleet.value_problem(v_key, v_value, v_kind);
    if not v_problem is null then
      v_problems := v_problems || v_problem;
      -- In which order what is wrong is told.
      v_ranks := v_ranks || case
        when v_kind is null then 0
        when v_kind in ('string', 'object', 'boolean') then 1
        else coalesce(array_position('{time,uuid,ids}'::text[], v_kind) + 1, 5)
      end;
    end if;
  end loop;
  if cardinality(v_problems) > 0 then
    return query
    select q.field, q.problem, q.hint
    from unnest(v_problems) with ordinality as q(field, problem, hint, n)
    order by v_ranks[q.n], q.n;
  end if;

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
  v_type public.command_types;
begin
  if fleet.may_be_too_large(p_new) then
    return query select q.* from fleet.row_limit_problems('schedules', to_jsonb(p_new) - 'recurrence') as q;
  end if;
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
  select t.* into v_type
  from public.command_types as t
  where t.name = p_new.action_type and coalesce(t.owner_id, p_new.owner_id) = p_new.owner_id;
  if v_is_new or (p_old.action_type, p_old.payload) is distinct from (p_new.action_type, p_new.payload) then
    if jsonb_typeof(p_new.payload) = 'object' then
      if (v_type.payload_keys = '{}') is not true then
        return query select q.* from fleet.payload_problems(p_new.owner_id, p_new.action_type, p_new.payload) as q;
        return query select q.* from fleet.reference_problems(p_new.owner_id, p_new.action_type, p_new.payload) as q;
      end if;
    else
      return next ('payload', 'must be an object', 'Example: {"message": "Hello"}')::fleet.problem;
    end if;
  end if;
  if v_is_new or fleet.targets_changed(p_old, p_new) then
    return query select q.* from fleet.changed_target_problems(p_old, p_new) as q;
  end if;
  if v_type.destructive
    and (v_is_new or p_old.action_type <> p_new.action_type or fleet.targets_changed(p_old, p_new))
  then
    return query
    select q.* from fleet.reported_problems(p_new.owner_id, p_new.action_type, p_new.group_ids, p_new.selector) as q;
  end if;
  if p_new.after_schedule_id is not null and (
    v_is_new
    or (p_old.after_schedule_id, p_old.after_on, p_old.after_per_device, p_old.policies -> 'rollout')
      is distinct from (p_new.after_schedule_id, p_new.after_on, p_new.after_per_device, p_new.policies -> 'rollout')
  ) then
    return query select q.* from fleet.follow_problems(p_new) as q;
  end if;
  if v_is_new or p_old.policies is distinct from p_new.policies then
    if jsonb_typeof(p_new.policies) = 'object' then
      if p_new.policies ? 'blackouts' then
        return query select q.* from fleet.blackout_problems(p_new.owner_id, p_new.policies) as q;
      end if;
      if p_new.policies <> '{}' then
        return query select q.* from fleet.policy_problems(p_new.policies) as q;
        return query select q.* from fleet.compensation_problems(p_new) as q;
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

create or replace function fleet.may_be_too_large(p_schedule public.schedules)
returns boolean
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return coalesce(octet_length(p_schedule.name) > fleet.limit_value('name'), false)
    or coalesce(octet_length(p_schedule.description) > fleet.limit_value('description'), false)
    or coalesce(
      greatest(
        octet_length(p_schedule.action_type), octet_length(p_schedule.timezone), octet_length(p_schedule.profile_id)
      ) > fleet.limit_value('identifier'),
      false
    )
    or coalesce(cardinality(p_schedule.device_ids) > fleet.limit_value('device_list'), false)
    or coalesce(cardinality(p_schedule.group_ids) > fleet.limit_value('group_list'), false)
    -- What is this short is neither too large nor too deep.
    or coalesce(
      greatest(
        pg_column_size(p_schedule.payload), pg_column_size(p_schedule.recurrence_config), pg_column_size(p_schedule.policies),
        pg_column_size(p_schedule.selector)
      ) > 128,
      false
    );
end;
$$;

comment on function fleet.may_be_too_large(public.schedules) is
  'Whether a schedule has to be looked at more closely, with row_limit_problems: one of its columns may hold more than its limit.';
revoke all on function fleet.may_be_too_large(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.compensation_problems(p_schedule public.schedules)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_action jsonb := fleet.object_or_empty(p_schedule.policies #> '{rollout,compensate}');
begin
  if jsonb_typeof(v_action -> 'action_type') = 'string' and jsonb_typeof(coalesce(v_action -> 'payload', '{}')) = 'object' then
    return query
    select 'policies.rollout.compensate.' || q.field, q.problem, q.hint
    from (
      select a.*
      from fleet.payload_problems(p_schedule.owner_id, v_action ->> 'action_type', coalesce(v_action -> 'payload', '{}')) as a
      union all
      select r.*
      from fleet.reference_problems(p_schedule.owner_id, v_action ->> 'action_type', coalesce(v_action -> 'payload', '{}')) as r
    ) as q;
  end if;
end;
$$;

comment on function fleet.compensation_problems(public.schedules) is 'What is wrong with the action that takes a rollout back.';
revoke all on function fleet.compensation_problems(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.time_problems(p_schedule public.schedules)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_is_zone boolean := p_schedule.timezone <> 'device' and fleet.is_time_zone(p_schedule.timezone);
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
  select b.field, b.problem, b.hint
  from fleet.bounds_problems(
    fleet.recurrence_type(p_schedule.recurrence_type), fleet.recurrence_settings(p_schedule.recurrence_config),
    case when v_is_zone then p_schedule.timezone else 'UTC' end,
    p_schedule.start_time, p_schedule.end_time
  ) as b
  where b.field <> 'end_time' or p_schedule.end_time = '-infinity';
  if p_schedule.timezone = 'device' and p_schedule.after_schedule_id is null and isfinite(p_schedule.start_time)
    and not exists (select 1 from fleet.recurrence_problems(p_schedule.recurrence_type, p_schedule.recurrence_config, 'UTC'))
  then
    return query select q.* from fleet.density_problem(p_schedule) as q;
  end if;
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
  c_order constant text[] := '{overlap,catchup,gap,fold,unknown_zone,max_concurrent,catchup_limit,catchup_rate,max_runs,pause_on_failure,'
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
      when v_key = 'unknown_zone' then
        return query select * from fleet.choice_problem(v_field, v_value, '{utc,owner,skip}');
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
      when v_key = 'rollout' then
        return query select * from fleet.rollout_problems(v_value) where v_value <> 'null';
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
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_opens time := fleet.time_of_day(p_window ->> 'from');
  v_closes time := fleet.time_of_day(p_window ->> 'to');
  v_days jsonb := p_window -> 'days_of_week';
  v_day date := p_local::date;
  v_open boolean;
begin
  -- Asked for each window and each device, so it is arithmetic and no query. Of the days on which it may have begun the later
  -- one closes last, and a window across midnight belongs to the day on which it begins.
  for n in 0..1 loop
    v_open := p_local >= v_day + v_opens
      and p_local < v_day + v_closes + case when v_closes <= v_opens then interval '1 day' else interval '0' end
      and (v_days is null or v_days @> to_jsonb(extract(isodow from v_day)::integer - 1));
    if v_open then
      return v_day + v_closes + case when v_closes <= v_opens then interval '1 day' else interval '0' end;
    end if;
    v_day := v_day - 1;
  end loop;
  return null;
end;
$$;

comment on function fleet.end_of_window(jsonb, timestamp) is
  'When a window closes in which a local time lies, in local time; null where it lies in none.';
revoke all on function fleet.end_of_window(jsonb, timestamp) from public, anon, authenticated, service_role;

create or replace function fleet.is_in_window(p_window jsonb, p_local timestamp)
returns boolean
language sql
immutable
return fleet.end_of_window(p_window, p_local) is not null;

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
  v_windows jsonb;
  v_local timestamp := p_from at time zone fleet.zone_clock(p_timezone);
  v_opening record;
  v_instant timestamptz;
begin
  if fleet.is_in_windows(p_windows, p_clock, p_timezone, p_from) then
    return p_from;
  end if;
  v_windows := (
    select jsonb_agg(w) from jsonb_array_elements(p_windows) as w where coalesce(w ->> 'in', 'schedule') = p_clock
  );

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

create or replace function fleet.is_in_windows(p_windows jsonb, p_clock text, p_timezone text, p_at timestamptz)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_local timestamp := p_at at time zone fleet.zone_clock(p_timezone);
  v_window jsonb;
  v_found boolean := false;
begin
  for v_window in select w.item from jsonb_array_elements(p_windows) as w(item) loop
    if coalesce(v_window ->> 'in', 'schedule') = p_clock then
      v_found := true;
      if fleet.is_in_window(v_window, v_local) then
        return true;
      end if;
    end if;
  end loop;
  return not v_found;
end;
$$;

comment on function fleet.is_in_windows(jsonb, text, text, timestamptz) is
  'Whether p_at lies in one of the windows by this clock (schedule or device), or there is none.';
revoke all on function fleet.is_in_windows(jsonb, text, text, timestamptz) from public, anon, authenticated, service_role;

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
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- What does not wait is judged where it stands.
  if not p_schedule.policies ? 'execution_window'
    or not fleet.waits_for_window(fleet.window_list(p_schedule.policies), 'schedule')
  then
    return p_instant;
  end if;
  return coalesce(
    fleet.window_opening(fleet.window_list(p_schedule.policies), 'schedule', fleet.reference_zone(p_schedule), p_instant),
    p_instant
  );
end;
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
    and not fleet.is_in_windows(v_windows, 'schedule', p_schedule.timezone, p_instant)
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
    -- That there are more is said elsewhere; what is wrong with them nobody reads.
    where e.nr <= fleet.limit_value('periods')
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
  -- Filled by hand it follows nobody any more, or the next look would take that away.
  perform fleet.end_subscription(v_id);
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

-- db/sources/30_schedules/47_subscriptions.sql
-- Blackout calendars that follow a calendar elsewhere: looked at daily by the function calendar-dispatch, and replaced by what it finds.

create or replace function fleet.subscription_problems(p_url text, p_timezone text)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select 'url', coalesce(u.problem, 'is missing'), 'Example: https://example.com/holidays.ics'
  from fleet.webhook_url_problem(p_url, fleet.setting('webhook_allow_private') = 'true'::jsonb) as u (problem)
  where p_url is null or u.problem is not null
  union all
  select 'timezone', format('"%s" is not a known time zone', left(p_timezone, 60)), 'Use an IANA name such as Europe/Berlin.'
  where p_timezone is not null and not fleet.is_time_zone(p_timezone)
$$;

comment on function fleet.subscription_problems(text, text) is 'What is wrong with where a calendar is to come from.';
revoke all on function fleet.subscription_problems(text, text) from public, anon, authenticated, service_role;

create or replace function fleet.subscribe_blackouts(
  p_url text,
  p_name text,
  p_timezone text,
  p_skip_transparent boolean,
  p_owner_id uuid
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid := fleet.owner_or_own(p_owner_id);
  -- Calendar programs write webcal: for what is fetched by https.
  v_url text := regexp_replace(btrim(p_url), '^webcals?://', 'https://', 'i');
  v_name text := coalesce(nullif(btrim(p_name), ''), substring(v_url from '^https?://([^/:?]+)'));
  v_id bigint;
begin
  perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
  perform fleet.raise_problems('the subscription', 'calendar_invalid', array_agg(q::fleet.problem))
  from fleet.subscription_problems(v_url, p_timezone) as q;
  perform fleet.check_calendar(v_name, '[]');

  select c.id into v_id
  from public.blackout_calendars as c
  where c.owner_id = v_owner and lower(c.name) = lower(v_name);
  if v_id is null then
    v_id := fleet.store_calendar(v_owner, v_name, '', '[]');
  end if;
  -- What it holds stays until the first look has brought something.
  update public.blackout_calendars as c
  set url = v_url, url_timezone = p_timezone, skip_transparent = coalesce(p_skip_transparent, false),
    look_next_at = now(), look_held_until = null, look_attempt = c.look_attempt + 1, look_failures = 0, look_error = null,
    look_tag = null, look_modified = null
  where c.id = v_id
    and (c.url, c.url_timezone, c.skip_transparent) is distinct from (v_url, p_timezone, coalesce(p_skip_transparent, false));
  perform fleet.poke('calendar-dispatch', jsonb_build_object('at', clock_timestamp()), clock_timestamp());
  return (select to_jsonb(c) from public.blackout_calendars as c where c.id = v_id);
end;
$$;

comment on function fleet.subscribe_blackouts(text, text, text, boolean, uuid) is 'See public.subscribe_blackouts. Definer: it checks the caller.';
revoke all on function fleet.subscribe_blackouts(text, text, text, boolean, uuid) from public, anon, authenticated, service_role;
grant execute on function fleet.subscribe_blackouts(text, text, text, boolean, uuid) to authenticated, service_role;

create or replace function public.subscribe_blackouts(
  p_url text,
  p_name text default null,
  p_timezone text default null,
  p_skip_transparent boolean default false,
  p_owner_id uuid default null
)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.subscribe_blackouts(p_url, p_name, p_timezone, p_skip_transparent, p_owner_id)
$$;

comment on function public.subscribe_blackouts(text, text, text, boolean, uuid) is
  'Let the calendar of this name (that of the host, where none is given; made where there is none) follow an iCalendar file elsewhere: the '
  'functions look at it daily and replace its periods. p_timezone is for times that name no zone. Answers the row; what the looks '
  'brought is in looked_at, look_error and look_note. Raises calendar_invalid (PT422) or permission_missing (PT403).';
revoke all on function public.subscribe_blackouts(text, text, text, boolean, uuid) from public, anon, authenticated, service_role;
grant execute on function public.subscribe_blackouts(text, text, text, boolean, uuid) to authenticated, service_role;

create or replace function fleet.end_subscription(p_calendar_id bigint)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  update public.blackout_calendars as c
  set url = null, url_timezone = null, skip_transparent = false, look_next_at = null, look_held_until = null,
    look_attempt = c.look_attempt + 1, look_failures = 0, look_error = null, look_note = null, look_tag = null, look_modified = null
  where c.id = p_calendar_id and c.url is not null
$$;

comment on function fleet.end_subscription(bigint) is 'Let a calendar follow no other any more; its periods stay.';
revoke all on function fleet.end_subscription(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.unsubscribe_blackouts(p_calendar_id bigint)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid;
begin
  select c.owner_id into v_owner
  from public.blackout_calendars as c
  where c.id = p_calendar_id and fleet.is_visible_owner(c.owner_id)
  for update;
  if not found then
    perform fleet.raise_not_found(format('calendar %s', p_calendar_id));
  end if;
  perform fleet.require_permission(v_owner, 'manage', format('calendar %s', p_calendar_id));
  perform fleet.end_subscription(p_calendar_id);
  return (select to_jsonb(c) from public.blackout_calendars as c where c.id = p_calendar_id);
end;
$$;

comment on function fleet.unsubscribe_blackouts(bigint) is 'See public.unsubscribe_blackouts. Definer: it checks the caller.';
revoke all on function fleet.unsubscribe_blackouts(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.unsubscribe_blackouts(bigint) to authenticated, service_role;

create or replace function public.unsubscribe_blackouts(p_calendar_id bigint)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.unsubscribe_blackouts(p_calendar_id)
$$;

comment on function public.unsubscribe_blackouts(bigint) is
  'Let a calendar follow no other any more; the periods that it has stay. Answers the row. Raises calendar_not_found (PT404) or '
  'permission_missing (PT403).';
revoke all on function public.unsubscribe_blackouts(bigint) from public, anon, authenticated, service_role;
grant execute on function public.unsubscribe_blackouts(bigint) to authenticated, service_role;

create or replace function fleet.worker_claim_calendars(p_shares jsonb default '{}', p_now timestamptz default clock_timestamp())
returns setof jsonb
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  with due as materialized (
    select c.id, c.owner_id, c.look_next_at
    from public.blackout_calendars as c
    where c.look_next_at <= p_now and (c.look_held_until is null or c.look_held_until <= p_now)
    order by c.look_next_at
    limit 500
    for update skip locked
  ),
  chosen as (
    select t.id
    from (
      select d.*, row_number() over (partition by d.owner_id order by d.look_next_at) as turn
      from due as d
    ) as t
    where t.turn <= fleet.share_of(p_shares, 'owner', t.owner_id::text)
    -- Owners in turn, and nobody is always last.
    order by t.turn, random()
    limit fleet.share_in_all(p_shares)
  ),
  taken as (
    update public.blackout_calendars as c
    set look_held_until = p_now + interval '3 minutes',
      look_attempt = c.look_attempt + 1,
      -- One that ends its function each time is looked at ever more rarely.
      look_failures = c.look_failures + (c.look_held_until is not null)::integer
    from chosen as x
    where c.id = x.id
    returning c.*
  )
  select jsonb_build_object(
    'calendar_id', t.id, 'owner_id', t.owner_id, 'attempt', t.look_attempt, 'url', t.url, 'timezone', t.url_timezone,
    'skip_transparent', t.skip_transparent,
    'allow_private', fleet.setting('webhook_allow_private') = 'true'::jsonb,
    -- What repeats for ever is read some years ahead: now and then it is read again, though it is the same.
    'tag', case when t.changed_at > p_now - interval '30 days' then t.look_tag end,
    'modified', case when t.changed_at > p_now - interval '30 days' then t.look_modified end
  )
  from taken as t
$$;

comment on function fleet.worker_claim_calendars(jsonb, timestamptz) is
  'Lease calendars that are to be looked at: {calendar_id, owner_id, attempt, url, timezone, skip_transparent, allow_private, tag, modified}; '
  'owners in turn, as many of each owner as p_shares allows. Definer: the worker reads no table.';
revoke all on function fleet.worker_claim_calendars(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.replaced_periods(p_calendar public.blackout_calendars, p_periods jsonb)
returns text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.check_calendar(p_calendar.name, p_periods);
  -- What is the same is not written again: most calendars change once a year.
  if exists (
    with found as (
      select fleet.try_date(e.item ->> 'starts_on') as starts_on, fleet.try_date(e.item ->> 'ends_on') as ends_on,
        fleet.try_exact_instant(e.item ->> 'starts_at') as starts_at, fleet.try_exact_instant(e.item ->> 'ends_at') as ends_at,
        coalesce(e.item ->> 'summary', '') as summary
      from jsonb_array_elements(p_periods) as e (item)
    ),
    known as (
      select p.starts_on, p.ends_on, p.starts_at, p.ends_at, p.summary
      from public.blackout_periods as p
      where p.calendar_id = p_calendar.id
    )
    (table found except all table known) union all (table known except all table found)
  ) then
    perform fleet.store_calendar(p_calendar.owner_id, p_calendar.name, null, p_periods);
  end if;
  return null;
exception
  when sqlstate 'PT422' then
    return left(sqlerrm, 4000);
end;
$$;

comment on function fleet.replaced_periods(public.blackout_calendars, jsonb) is
  'Give a calendar what was found elsewhere; answers why not, where there is too much of it.';
revoke all on function fleet.replaced_periods(public.blackout_calendars, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.worker_finish_calendar(
  p_calendar_id bigint,
  p_attempt integer,
  p_found jsonb,
  p_error text default null,
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.blackout_calendars;
  v_error text := left(p_error, 4000);
begin
  select c.* into v_row from public.blackout_calendars as c where c.id = p_calendar_id for update;
  if not found or v_row.look_attempt <> p_attempt or v_row.url is null then
    return '{"accepted": false, "reason": "stale_attempt"}';
  elsif v_error is null and p_found ? 'periods' then
    v_error := fleet.replaced_periods(v_row, p_found -> 'periods');
  end if;

  update public.blackout_calendars as c
  set looked_at = p_now,
    look_held_until = null,
    look_error = v_error,
    look_failures = case when v_error is null then 0 else c.look_failures + 1 end,
    -- Daily, each at a time of its own; after a failure sooner, then ever later, at most a day.
    look_next_at = p_now + case
      when v_error is null then interval '1 day' - (c.id % 3600) * interval '1 second'
      else least(interval '1 day', interval '15 minutes' * power(2, least(c.look_failures, 10)))
    end,
    changed_at = case when v_error is null and p_found ? 'periods' then p_now else c.changed_at end,
    look_note = case when v_error is null and p_found ? 'periods' then left(p_found ->> 'note', 2000) else c.look_note end,
    look_tag = case when v_error is null and p_found ? 'periods' then left(p_found ->> 'tag', 2000) else c.look_tag end,
    look_modified = case
      when v_error is null and p_found ? 'periods' then left(p_found ->> 'modified', 2000) else c.look_modified
    end
  where c.id = p_calendar_id;
  return jsonb_build_object('accepted', true, 'status', case
    when v_error is not null then 'failed' when p_found ? 'periods' then 'changed' else 'unchanged'
  end);
end;
$$;

comment on function fleet.worker_finish_calendar(bigint, integer, jsonb, text, timestamptz) is
  'Write down what a look at a calendar brought: {periods, note, tag, modified}, {} where nothing has changed, or an error, after which '
  'it stays as it was. Answers {accepted, status} or the reason why not. Definer: the worker writes no table.';
revoke all on function fleet.worker_finish_calendar(bigint, integer, jsonb, text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.poke_calendars(p_now timestamptz default now())
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- The first by time is one look into the index, however many there are.
  return coalesce(
    (
      select c.look_next_at <= p_now
      from public.blackout_calendars as c
      where c.look_next_at is not null and (c.look_held_until is null or c.look_held_until <= p_now)
      order by c.look_next_at
      limit 1
    ),
    false
  ) and fleet.poke_once_a_second('calendar-dispatch', p_now);
end;
$$;

comment on function fleet.poke_calendars(timestamptz) is
  'Poke calendar-dispatch where a calendar is to be looked at, at most once a second. Answers whether it was poked; called by the tick.';
revoke all on function fleet.poke_calendars(timestamptz) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/48_groups.sql
-- Groups that schedules name: who deletes one says so, and their schedules are paused.

create or replace function fleet.gone_targets(p_schedule public.schedules)
returns table (device_ids bigint[], group_ids bigint[])
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select
    array(
      select u.id from unnest((p_schedule).device_ids) as u (id)
      where not exists (select 1 from public.devices as d where d.id = u.id and d.owner_id = (p_schedule).owner_id)
    ),
    array(
      select u.id from unnest((p_schedule).group_ids) as u (id)
      where not exists (select 1 from public.device_groups as g where g.id = u.id and g.owner_id = (p_schedule).owner_id)
    )
$$;

comment on function fleet.gone_targets(public.schedules) is
  'The devices and groups that a schedule names and that are there no more.';
revoke all on function fleet.gone_targets(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.changed_target_problems(p_old public.schedules, p_new public.schedules)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_devices bigint[] := p_new.device_ids;
  v_groups bigint[] := p_new.group_ids;
begin
  if p_old.id is not null and p_old.owner_id = p_new.owner_id then
    -- What was there once and is gone is nobody's mistake now.
    select array(select unnest(p_new.device_ids) except select unnest(g.device_ids)),
      array(select unnest(p_new.group_ids) except select unnest(g.group_ids))
    into v_devices, v_groups
    from fleet.gone_targets(p_old) as g;
  end if;
  if v_devices = '{}' and v_groups = '{}' and p_new.selector is null
    and (p_new.status = 'paused' or p_new.device_ids <> '{}' or p_new.group_ids <> '{}')
  then
    -- Whoever is paused may have nobody for now.
    return;
  end if;
  return query select q.* from fleet.target_problems(p_new.owner_id, v_devices, v_groups, p_new.selector) as q;
end;
$$;

comment on function fleet.changed_target_problems(public.schedules, public.schedules) is
  'What is wrong with the targets of the new row of a schedule; what the old one names and is there no more is left alone.';
revoke all on function fleet.changed_target_problems(public.schedules, public.schedules)
  from public, anon, authenticated, service_role;

create or replace function fleet.delete_group(p_group_id bigint, p_cascade boolean)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_groups;
  v_paused jsonb := '[]';
begin
  select g.* into v_row
  from public.device_groups as g
  where g.id = p_group_id and fleet.is_visible_owner(g.owner_id)
  for update;
  if not found then
    perform fleet.raise_not_found(format('group %s', p_group_id));
  end if;
  perform fleet.require_permission(v_row.owner_id, 'manage', format('group %s', p_group_id));

  if p_cascade then
    with paused as (
      update public.schedules as s
      set status = 'paused', status_reason = left(format('group "%s" was deleted', v_row.name), 255)
      where s.owner_id = v_row.owner_id and s.status = 'active' and s.group_ids @> array[p_group_id]
      returning s.name
    )
    select coalesce(jsonb_agg(p.name order by p.name), '[]') into v_paused from paused as p;
  end if;
  delete from public.device_groups as g where g.id = p_group_id;
  return to_jsonb(v_row) || jsonb_build_object('paused', v_paused);
end;
$$;

comment on function fleet.delete_group(bigint, boolean) is 'See public.delete_group. Definer: it checks the caller.';
revoke all on function fleet.delete_group(bigint, boolean) from public, anon, authenticated, service_role;
grant execute on function fleet.delete_group(bigint, boolean) to authenticated, service_role;

create or replace function public.delete_group(p_group_id bigint, p_cascade boolean default false)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.delete_group(p_group_id, p_cascade)
$$;

comment on function public.delete_group(bigint, boolean) is
  'Delete a group; its devices stay. Active schedules that name it keep it, unless p_cascade pauses them, with the reason. Answers the row '
  'with "paused", their names. Raises group_not_found (PT404), permission_missing (PT403) or group_in_use (PT409).';
revoke all on function public.delete_group(bigint, boolean) from public, anon, authenticated, service_role;
grant execute on function public.delete_group(bigint, boolean) to authenticated, service_role;

-- db/sources/30_schedules/50_device_time.sql
-- Device time: one schedule that is due on each device's own wall. Its unit is the local occurrence, "Monday 11 January, 06:30"; its
-- compiled recurrence has the walls as if they were UTC, and each zone comes to an instant of its own:
--   wall      the compiled recurrence of the walls; start and end where they are readings of the wall
--   from, to  bounds that are one instant for everybody
--   elapsed   seconds of an interval that is not of whole days: each device counts elapsed time from its own start
--   home      the owner's zone: for devices without one, and for the date and time of day that are taken from an instant
--   unknown   whether devices without a zone go by utc, by their owner's zone, or are skipped

create or replace function fleet.reference_zone(p_schedule public.schedules)
returns text
language sql
immutable
parallel safe
return (case when (p_schedule).timezone = 'device' then 'UTC' else (p_schedule).timezone end);

comment on function fleet.reference_zone(public.schedules) is
  'The zone for what concerns a schedule as a whole: its own; UTC where it goes by device time, whose walls are kept as if they were UTC.';
revoke all on function fleet.reference_zone(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.unknown_zone(p_recurrence jsonb)
returns text
language sql
immutable
parallel safe
return (case p_recurrence ->> 'unknown' when 'utc' then 'UTC' when 'skip' then null else p_recurrence ->> 'home' end);

comment on function fleet.unknown_zone(jsonb) is 'By which zone devices without one go in a schedule by device time; null where it skips them.';
revoke all on function fleet.unknown_zone(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.compiled(p_schedule public.schedules)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_policies jsonb := fleet.effective_policies(p_schedule.policies);
  v_home text;
  v_start timestamptz := p_schedule.start_time;
  v_wall jsonb;
  v_is_elapsed boolean;
begin
  if p_schedule.timezone <> 'device' then
    return fleet.compiled_recurrence(
      p_schedule.recurrence_type, p_schedule.recurrence_config, p_schedule.timezone, p_schedule.start_time, p_schedule.end_time,
      v_policies ->> 'gap', v_policies ->> 'fold'
    );
  end if;

  v_home := fleet.home_zone(p_schedule.owner_id);
  if not p_schedule.start_is_local then
    v_start := (v_start at time zone fleet.zone_clock(v_home)) at time zone 'UTC';
  end if;
  v_wall := fleet.compiled_recurrence(
    p_schedule.recurrence_type, p_schedule.recurrence_config, 'UTC', v_start,
    case when p_schedule.end_is_local then p_schedule.end_time end, v_policies ->> 'gap', v_policies ->> 'fold'
  );
  v_is_elapsed := v_wall ->> 'kind' = 'interval' and (v_wall ->> 'interval_seconds')::bigint % 86400 <> 0;
  if v_wall ->> 'kind' = 'calendar' and not p_schedule.start_is_local then
    -- What bounds it is an instant, not a reading of the wall.
    v_wall := v_wall || '{"start": null}';
  end if;
  return jsonb_strip_nulls(jsonb_build_object(
    'kind', 'walls',
    'type', v_wall -> 'type',
    'timezone', 'device',
    'from', case when not p_schedule.start_is_local and v_wall ->> 'kind' <> 'once' then fleet.instant_text(p_schedule.start_time) end,
    'to', case when not p_schedule.end_is_local then fleet.instant_text(nullif(p_schedule.end_time, 'infinity')) end,
    'elapsed', case when v_is_elapsed then v_wall -> 'interval_seconds' end,
    'until', case when v_is_elapsed then v_wall -> 'end' end,
    'home', v_home,
    'unknown', v_policies -> 'unknown_zone'
  )) || jsonb_build_object('wall', case when v_is_elapsed then v_wall || '{"end": null}' else v_wall end);
end;
$$;

comment on function fleet.compiled(public.schedules) is 'The compiled recurrence of a valid schedule; of its walls in device time.';
revoke all on function fleet.compiled(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.schedule_zones(p_schedule public.schedules)
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_unknown text := fleet.unknown_zone(p_schedule.recurrence);
  v_zones text[];
begin
  if p_schedule.timezone <> 'device' then
    return null;
  elsif p_schedule.group_ids = '{}' and p_schedule.selector is null then
    -- Few, and named: their own zones, and no others.
    v_zones := array(
      select distinct coalesce(d.timezone, v_unknown) as zone
      from public.devices as d
      where d.id = any (p_schedule.device_ids) and d.owner_id = p_schedule.owner_id and d.status = 'active'
      order by zone
    );
  else
    -- All of the owner's: who is in a group or selected is known when the time comes.
    v_zones := array(
      select distinct coalesce(nullif(z.zone, ''), v_unknown) as zone
      from fleet.owner_zones as z
      where z.owner_id = p_schedule.owner_id and z.devices > 0
      order by zone
    );
  end if;
  v_zones := fleet.zones_of_server(array_remove(v_zones, null));
  return case when v_zones = '{}' then array[coalesce(p_schedule.recurrence ->> 'home', 'UTC')] else v_zones end;
end;
$$;

comment on function fleet.schedule_zones(public.schedules) is
  'The time zones in which a schedule by device time may be due, of those that the server has: the owner''s where it has no devices. Null '
  'for a schedule with a zone of its own.';
revoke all on function fleet.schedule_zones(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.next_due(p_recurrence jsonb, p_zones text[], p_after timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_next timestamptz;
begin
  if p_zones is null then
    v_next := fleet.next_occurrence(p_recurrence, p_after);
    if fleet.leaves_out_gaps(p_recurrence) and isfinite(p_after) then
      -- A time that the clocks skip is accounted for at the instant at which they do.
      v_next := least(v_next, (
        select min(g.skipped_at)
        from fleet.skipped_times(
          p_recurrence, p_after + interval '1 microsecond', coalesce(v_next, p_after + interval '2 years')
        ) as g
      ));
    end if;
    return v_next;
  end if;
  return (select n.due_at from fleet.next_on_walls(p_recurrence, p_zones, p_after) as n);
end;
$$;

comment on function fleet.next_due(jsonb, text[], timestamptz) is
  'The first due instant after p_after, a time that the clocks skip and that is left out (gap: skip) included; in device time the first at which an occurrence is due for anybody in these zones. Null where there '
  'is none.';
revoke all on function fleet.next_due(jsonb, text[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.due_instants(p_recurrence jsonb, p_zones text[], p_from timestamptz, p_to timestamptz)
returns setof timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_zones is null then
    return query select o from fleet.occurrences(p_recurrence, p_from, p_to) as o;
  else
    return query select o.due_at from fleet.local_occurrences(p_recurrence, p_zones, p_from, p_to) as o;
  end if;
end;
$$;

comment on function fleet.due_instants(jsonb, text[], timestamptz, timestamptz) is
  'The due instants within [p_from, p_to); in device time the first of each local occurrence.';
revoke all on function fleet.due_instants(jsonb, text[], timestamptz, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.count_due(p_recurrence jsonb, p_zones text[], p_from timestamptz, p_to timestamptz)
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_zones is null then
    return fleet.count_occurrences(p_recurrence, p_from, p_to);
  end if;
  return (select count(*) from fleet.local_occurrences(p_recurrence, p_zones, p_from, p_to));
end;
$$;

comment on function fleet.count_due(jsonb, text[], timestamptz, timestamptz) is
  'How many due instants lie within [p_from, p_to); in device time how many local occurrences are first due then.';
revoke all on function fleet.count_due(jsonb, text[], timestamptz, timestamptz) from public, anon, authenticated, service_role;

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
    from fleet.occurrences(p_recurrence, greatest(p_from, p_to - v_span), p_to) as o;
    exit when v_last is not null or p_to - v_span <= p_from;
    v_span := v_span * 12;
  end loop;
  return v_last;
end;
$$;

comment on function fleet.last_occurrence(jsonb, timestamptz, timestamptz) is
  'The last instant of a compiled recurrence within [p_from, p_to); null when there is none.';
revoke all on function fleet.last_occurrence(jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.density_problem(p_schedule public.schedules)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  -- A day and the two hours by which the walls of the earth are further apart than one.
  c_most constant bigint := 320;
  v_wall jsonb := fleet.compiled(p_schedule) -> 'wall';
  v_from timestamptz := coalesce((v_wall ->> 'start')::timestamptz, clock_timestamp());
begin
  if v_wall ->> 'kind' = 'interval' and 93600 / (v_wall ->> 'interval_seconds')::bigint > c_most
    or v_wall ->> 'kind' = 'calendar' and (
      fleet.count_occurrences(v_wall, v_from, v_from + interval '26 hours', c_most + 1) > c_most
      or exists (
        select 1
        from generate_series(0, 6) as d(days)
        cross join lateral (select date_trunc('day', fleet.next_occurrence(v_wall, v_from + d.days * interval '1 day')) as day) as o
        where fleet.count_occurrences(v_wall, o.day - interval '1 hour', o.day + interval '25 hours', c_most + 1) > c_most
          or fleet.count_occurrences(v_wall, o.day, o.day + interval '26 hours', c_most + 1) > c_most
      )
    )
  then
    return next (
      'timezone', 'device_time_too_dense: more than 320 times fall within the 26 hours in which it is the same time on every wall',
      'Use a fixed zone with a window "in": "device".'
    )::fleet.problem;
  end if;
end;
$$;

comment on function fleet.density_problem(public.schedules) is
  'A schedule by device time that is due so often that hundreds of its runs would be under way at once.';
revoke all on function fleet.density_problem(public.schedules) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/53_walls.sql
-- From a reading of the wall to instants: when a local occurrence is due in each time zone, and what comes next anywhere.

create or replace function fleet.zone_instants(p_recurrence jsonb, p_local timestamp, p_fold integer, p_zones text[])
returns table (zone text, due_at timestamptz, rule text, refusal text)
language plpgsql
stable
rows 20
set search_path = pg_catalog, pg_temp
as $$
declare
  v_wall jsonb := p_recurrence -> 'wall';
  v_gap text := case v_wall ->> 'kind' when 'once' then 'first_instant' else coalesce(v_wall ->> 'resolve_gap', v_wall ->> 'gap') end;
  v_fold text := case v_wall ->> 'kind' when 'once' then 'first' else coalesce(v_wall ->> 'resolve_fold', v_wall ->> 'fold') end;
  v_names_rule boolean := not v_wall @> '{"is_elapsed": true}';
  v_start timestamp := (v_wall ->> 'start')::timestamptz at time zone 'UTC';
  v_from timestamptz := coalesce((p_recurrence ->> 'from')::timestamptz, '-infinity');
  v_to timestamptz := coalesce((p_recurrence ->> 'to')::timestamptz, 'infinity');
  v_until timestamp := (p_recurrence ->> 'until')::timestamptz at time zone 'UTC';
begin
  if p_recurrence ? 'elapsed' then
    return query
    select e.zone, e.at, null, null
    from (
      select u.zone,
        coalesce(nullif(v_from, '-infinity'), fleet.local_to_instant(v_start, u.zone)) + (p_local - v_start) as at
      from unnest(p_zones) as u(zone)
      where p_fold = 0
    ) as e
    where e.at between v_from and v_to
      and (v_until is null or e.at <= fleet.local_to_instant(v_until, e.zone));
    return;
  end if;

  return query
  select d.zone, d.at,
    case when d.is_skipped and v_names_rule then 'gap:' || v_gap when d.is_repeated and v_names_rule then 'fold:' || v_fold end,
    case
      when d.is_skipped and v_gap = 'skip' then 'the clocks skip this local time'
      -- Offsets that grow within a day may bring two times to one instant.
      when (d.at + interval '26 hours') at time zone d.clock - (d.at - interval '26 hours') at time zone d.clock > interval '52 hours'
        and fleet.gives_way(v_wall, p_local, d.at, d.clock, v_gap)
        then 'an earlier time runs at this instant, to which the clocks moved it'
    end
  from (
    select w.zone, w.clock, w.is_skipped, w.first_at <> w.last_at as is_repeated,
      case
        when w.is_skipped and v_gap = 'shift'
          then w.first_at + (p_local - ((w.first_at - interval '1 microsecond') at time zone w.clock + interval '1 microsecond'))
        when p_fold = 1 or v_fold = 'second' then w.last_at
        else w.first_at
      end as at
    from (
      select k.zone, k.clock, i.first_at, i.last_at, i.first_at at time zone k.clock <> p_local as is_skipped
      from (select u.zone, fleet.zone_clock(u.zone) as clock from unnest(p_zones) as u(zone) offset 0) as k
      cross join lateral fleet.wall_instants(p_local, k.clock) as i
      offset 0
    ) as w
    where p_fold = 0 or (v_fold = 'both' and w.first_at <> w.last_at)
  ) as d
  where d.at between v_from and v_to;
end;
$$;

comment on function fleet.zone_instants(jsonb, timestamp, integer, text[]) is
  'When a local occurrence is due in each of these time zones, by which rule the clocks moved it there, and why it does not run there at '
  'all. No row for a zone in which it is out of bounds, or has no second pass.';
revoke all on function fleet.zone_instants(jsonb, timestamp, integer, text[]) from public, anon, authenticated, service_role;

create or replace function fleet.gives_way(p_wall jsonb, p_local timestamp, p_at timestamptz, p_clock text, p_gap text)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_change record;
  v_gap_from timestamp;
  v_jump interval;
begin
  select to_timestamp(t.changed_at) as at, t.offset_before as before, t.offset_after - t.offset_before as jump into v_change
  from fleet.zone_transitions(
    p_clock, date_part('epoch', p_at)::bigint - 93600, date_part('epoch', p_at)::bigint
  ) as t
  where t.offset_after > t.offset_before
  order by t.changed_at desc
  limit 1;
  if not found or p_gap = 'skip' then
    return false;
  end if;

  v_jump := v_change.jump * interval '1 second';
  v_gap_from := v_change.at at time zone 'UTC' + v_change.before * interval '1 second';
  if p_gap = 'first_instant' then
    -- All that was skipped, and what is meant for that instant anyway: the first of them has it.
    return p_at = v_change.at
      and fleet.next_occurrence(p_wall, v_gap_from at time zone 'UTC' - interval '1 microsecond') < p_local at time zone 'UTC';
  end if;
  return p_local >= v_gap_from + v_jump
    and p_local < v_gap_from + v_jump * 2
    and fleet.next_occurrence(p_wall, (p_local - v_jump) at time zone 'UTC' - interval '1 microsecond')
      = (p_local - v_jump) at time zone 'UTC';
end;
$$;

comment on function fleet.gives_way(jsonb, timestamp, timestamptz, text, text) is
  'Whether an earlier local time has been moved by a gap to the instant at which this one is due.';
revoke all on function fleet.gives_way(jsonb, timestamp, timestamptz, text, text) from public, anon, authenticated, service_role;

create or replace function fleet.wall_reach(p_recurrence jsonb, p_zones text[], p_from timestamptz, p_to timestamptz)
returns table (low interval, high interval, lowest interval, moving text[])
language plpgsql
stable
rows 1
set search_path = pg_catalog, pg_temp
as $$
declare
  v_wall jsonb := p_recurrence -> 'wall';
  v_start timestamp := (v_wall ->> 'start')::timestamptz at time zone 'UTC';
begin
  if p_recurrence ? 'elapsed' then
    -- The walls are nominal: as far from the instant as they were at the start.
    select max(v_start - i.due_at at time zone 'UTC'), min(v_start - i.due_at at time zone 'UTC') into high, lowest
    from fleet.zone_instants(p_recurrence - '{to,until}'::text[], v_start, 0, p_zones) as i;
    low := high;
    moving := '{}';
    return next;
    return;
  end if;

  select max(least(o.before, o.after)), max(greatest(o.before, o.after)), min(least(o.before, o.after)),
    coalesce(array_agg(o.zone) filter (where o.before <> o.after or p_to - p_from > interval '20 days'), '{}')
  into low, high, lowest, moving
  from (
    select k.zone,
      (p_from - interval '36 hours') at time zone k.clock - (p_from - interval '36 hours') at time zone 'UTC' as before,
      (p_to + interval '36 hours') at time zone k.clock - (p_to + interval '36 hours') at time zone 'UTC' as after
    from (select u.zone, fleet.zone_clock(u.zone) as clock from unnest(p_zones) as u(zone) offset 0) as k
  ) as o;
  if moving <> '{}' then
    -- A change of the clocks, and the whole minute at which what it skipped may run.
    low := low - interval '61 seconds' - case when p_to - p_from > interval '20 days' then interval '2 hours' else '0' end;
    high := high + case when p_to - p_from > interval '20 days' then interval '2 hours' else '0' end;
    lowest := lowest - case when p_to - p_from > interval '20 days' then interval '2 hours' else interval '61 seconds' end;
  end if;
  if p_from < (p_recurrence ->> 'from')::timestamptz + interval '40 hours' then
    -- Where the east is out of bounds yet, the first is further west.
    low := lowest;
  end if;
  return next;
end;
$$;

comment on function fleet.wall_reach(jsonb, text[], timestamptz, timestamptz) is
  'How far the walls of these zones are ahead of UTC around a span of time: what is first due somewhere within it has a local time from '
  'p_from + low to p_to + high, what is due anywhere one from p_from + lowest. moving: the zones whose clocks change about then.';
revoke all on function fleet.wall_reach(jsonb, text[], timestamptz, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.zone_kin(p_recurrence jsonb, p_zones text[], p_from timestamptz, p_to timestamptz)
returns table (first_zone text, zones text[])
language plpgsql
stable
rows 40
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_recurrence ? 'elapsed' or p_to - p_from > interval '10 days' or p_from = '-infinity' or cardinality(p_zones) < 2 then
    return query select u.zone, array[u.zone] from unnest(p_zones) as u(zone);
    return;
  end if;
  -- No clock is put back again within two weeks of having been put forward.
  return query
  select min(o.zone), array_agg(o.zone order by o.zone)
  from (
    select k.zone,
      (p_from - interval '3 days') at time zone k.clock - (p_from - interval '3 days') at time zone 'UTC' as before,
      p_from at time zone k.clock - p_from at time zone 'UTC' as at_first,
      p_to at time zone k.clock - p_to at time zone 'UTC' as at_last,
      (p_to + interval '3 days') at time zone k.clock - (p_to + interval '3 days') at time zone 'UTC' as after
    from (select u.zone, fleet.zone_clock(u.zone) as clock from unnest(p_zones) as u(zone) offset 0) as k
    offset 0
  ) as o
  group by o.before, case when o.before <> o.at_first or o.before <> o.at_last or o.before <> o.after then o.zone end;
end;
$$;

comment on function fleet.zone_kin(jsonb, text[], timestamptz, timestamptz) is
  'These time zones by what their clocks show from three days before p_from to three days after p_to: those that are the same distance from UTC '
  'all that time are of one kin, and what is decided for the first of them holds for each. A zone whose clocks change then is by itself.';
revoke all on function fleet.zone_kin(jsonb, text[], timestamptz, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.different_zones(p_recurrence jsonb, p_zones text[], p_from timestamptz, p_to timestamptz)
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if cardinality(p_zones) < 2 then
    return p_zones;
  end if;
  return (select array_agg(k.first_zone order by k.first_zone) from fleet.zone_kin(p_recurrence, p_zones, p_from, p_to) as k);
end;
$$;

comment on function fleet.different_zones(jsonb, text[], timestamptz, timestamptz) is
  'One zone of each kin, see fleet.zone_kin: enough to find the first and the last instant anywhere.';
revoke all on function fleet.different_zones(jsonb, text[], timestamptz, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.next_on_walls(
  p_recurrence jsonb,
  p_zones text[],
  p_after timestamptz,
  p_runs_only boolean default false
)
returns table (local timestamp, fold integer, due_at timestamptz)
language plpgsql
stable
rows 1
set search_path = pg_catalog, pg_temp
as $$
declare
  c_far constant interval := '20 hours';
  v_wall jsonb := p_recurrence -> 'wall';
  v_after timestamptz := greatest(p_after, (p_recurrence ->> 'from')::timestamptz - interval '1 microsecond');
  v_to timestamptz := (p_recurrence ->> 'to')::timestamptz;
  v_reach record;
  v_zones text[];
  v_wall_at timestamptz;
  v_at timestamptz;
begin
  if p_after = 'infinity' or p_zones = '{}' then
    return;
  elsif v_after = '-infinity' then
    v_after := fleet.next_occurrence(v_wall, '-infinity') - interval '3 days';
  end if;

  for v_try in 1..2 loop
    select r.* into v_reach from fleet.wall_reach(p_recurrence, p_zones, v_after, v_after) as r;
    v_wall_at := fleet.next_occurrence(
      v_wall, v_after + case when p_runs_only or v_reach.moving <> '{}' then v_reach.lowest else v_reach.low end
    );
    -- Far away the clocks may have changed: there they are looked at anew.
    exit when v_wall_at is null or v_wall_at < v_after + c_far * 2;
    v_after := v_wall_at - c_far;
  end loop;

  v_zones := fleet.different_zones(p_recurrence, p_zones, v_after, v_after + interval '3 days');
  for v_try in 1..5000 loop
    exit when v_wall_at is null
      or v_wall_at - v_reach.high - case when v_reach.moving = '{}' then interval '0' else interval '2 hours' end > due_at
      or v_wall_at - c_far > v_to;
    for v_fold in 0..case when v_reach.moving = '{}' then 0 else 1 end loop
      select min(i.due_at) into v_at
      from fleet.zone_instants(
        p_recurrence, v_wall_at at time zone 'UTC', v_fold, case v_fold when 0 then v_zones else v_reach.moving end
      ) as i
      where not p_runs_only or i.refusal is null;
      if v_at > p_after and (due_at is null or v_at < due_at) then
        local := v_wall_at at time zone 'UTC';
        fold := v_fold;
        due_at := v_at;
      end if;
    end loop;
    v_wall_at := fleet.next_occurrence(v_wall, v_wall_at);
  end loop;
  if due_at is not null then
    return next;
  end if;
end;
$$;

comment on function fleet.next_on_walls(jsonb, text[], timestamptz, boolean) is
  'The local occurrence that is the next to be first due in any of these zones after p_after, and when; p_runs_only: without those that '
  'do not run there. No row where there is none.';
revoke all on function fleet.next_on_walls(jsonb, text[], timestamptz, boolean) from public, anon, authenticated, service_role;

create or replace function fleet.walls_within(p_recurrence jsonb, p_zones text[], p_from timestamptz, p_to timestamptz)
returns table (local timestamp, fold integer, zones text[])
language plpgsql
stable
rows 5
set search_path = pg_catalog, pg_temp
as $$
declare
  v_reach record;
  v_is_second boolean := p_recurrence #>> '{wall,resolve_fold}' = 'both' or p_recurrence @> '{"wall": {"kind": "interval", "fold": "both"}}';
begin
  select r.* into v_reach from fleet.wall_reach(p_recurrence, p_zones, p_from, p_to) as r;
  return query
  select o.at at time zone 'UTC', 0, p_zones
  from fleet.occurrences(p_recurrence -> 'wall', p_from + v_reach.lowest, p_to + v_reach.high) as o(at)
  union all
  -- Only where the clocks change about then has a time a second pass.
  select o.at at time zone 'UTC', 1, v_reach.moving
  from fleet.occurrences(p_recurrence -> 'wall', p_from + v_reach.lowest, p_to + v_reach.high) as o(at)
  where v_is_second and v_reach.moving <> '{}';
end;
$$;

comment on function fleet.walls_within(jsonb, text[], timestamptz, timestamptz) is
  'The local occurrences that may be due in one of these zones within [p_from, p_to), some more at both ends, with the zones to look at.';
revoke all on function fleet.walls_within(jsonb, text[], timestamptz, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.local_occurrences(p_recurrence jsonb, p_zones text[], p_from timestamptz, p_to timestamptz)
returns table (local timestamp, fold integer, due_at timestamptz, last_at timestamptz, runs boolean)
language sql
stable
rows 5
set search_path = pg_catalog, pg_temp
as $$
  select w.local, w.fold, i.first_at, i.last_at, i.runs
  from fleet.walls_within(p_recurrence, fleet.different_zones(p_recurrence, p_zones, p_from, p_to), p_from, p_to) as w
  cross join lateral (
    select min(z.due_at) as first_at, max(z.due_at) as last_at, bool_or(z.refusal is null) as runs
    from fleet.zone_instants(p_recurrence, w.local, w.fold, w.zones) as z
  ) as i
  where i.first_at >= p_from and i.first_at < p_to
  order by i.first_at, w.local, w.fold
$$;

comment on function fleet.local_occurrences(jsonb, text[], timestamptz, timestamptz) is
  'The local occurrences that are first due in one of these zones within [p_from, p_to), with their last instant, and whether they run '
  'anywhere.';
revoke all on function fleet.local_occurrences(jsonb, text[], timestamptz, timestamptz) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/54_decide_walls.sql
-- Deciding about local occurrences: which are booked, what becomes of each zone, and which have passed unseen. Pure but for the ledger,
-- which knows what is booked already.

create or replace function fleet.run_expiry(
  p_policies jsonb,
  p_next timestamptz,
  p_now timestamptz
)
returns timestamptz
language sql
stable
return case
  when p_policies ->> 'expires_after' is not null then p_now + (p_policies ->> 'expires_after')::interval
  else least(p_next, p_now + interval '24 hours')
end;

comment on function fleet.run_expiry(jsonb, timestamptz, timestamptz) is
  'Until when the commands of a run that starts now may be started: expires_after, else the next due instant, at most 24 hours.';
revoke all on function fleet.run_expiry(jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.catchup_pause(p_policies jsonb, p_nth bigint)
returns interval
language sql
immutable
return coalesce(
  interval '1 minute' / (p_policies ->> 'catchup_rate')::double precision * (greatest(p_nth, 1) - 1)::double precision,
  interval '0'
);

comment on function fleet.catchup_pause(jsonb, bigint) is
  'How long the n-th of the runs that are caught up waits, by policies.catchup_rate. None where there is no rate or no number.';
revoke all on function fleet.catchup_pause(jsonb, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.late_refusal(
  p_recurrence jsonb,
  p_policies jsonb,
  p_zone text,
  p_due timestamptz,
  p_now timestamptz
)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Within a minute it is on time.
  if p_due >= p_now - interval '1 minute' then
    return null;
  elsif p_policies ->> 'catchup' = 'none' then
    return 'catch-up is off';
  elsif p_due < p_now - (p_policies ->> 'catchup_window')::interval then
    return 'outside the catch-up window';
  elsif p_policies ->> 'catchup' = 'latest' then
    return (
      select 'superseded by a later instant'
      from fleet.next_on_walls(p_recurrence, array[p_zone], p_due, true) as n
      where n.due_at <= p_now
    );
  end if;
  return (
    select 'beyond the catch-up limit'
    from fleet.local_occurrences(p_recurrence, array[p_zone], p_due + interval '1 microsecond', p_now + interval '1 microsecond') as o
    where o.runs
    having count(*) >= (p_policies ->> 'catchup_limit')::bigint
  );
end;
$$;

comment on function fleet.late_refusal(jsonb, jsonb, text, timestamptz, timestamptz) is
  'Why what was due in a zone is not caught up there, by the catch-up policy and on that zone''s own instants; null where it runs.';
revoke all on function fleet.late_refusal(jsonb, jsonb, text, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.first_judged(p_recurrence jsonb, p_policies jsonb, p_from timestamptz, p_now timestamptz, p_lowest interval)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_wall jsonb := p_recurrence -> 'wall';
  v_passed timestamptz := p_now + p_lowest;
  v_from timestamptz := greatest(p_from, v_passed - greatest(
    interval '1 minute', case when p_policies ->> 'catchup' <> 'none' then (p_policies ->> 'catchup_window')::interval end
  ));
  v_last timestamptz;
begin
  if v_from >= v_passed then
    return p_from;
  elsif p_policies ->> 'catchup' = 'all' then
    -- Of those that have passed on every wall, no more than are caught up.
    return greatest(v_from, (
      select min(o.at)
      from (
        select x.at
        from fleet.occurrences(v_wall, v_from, v_passed) as x(at)
        order by x.at desc
        limit (p_policies ->> 'catchup_limit')::integer
      ) as o
    ));
  end if;
  v_last := fleet.last_occurrence(v_wall, v_from, v_passed);
  return coalesce(v_last, v_passed);
end;
$$;

comment on function fleet.first_judged(jsonb, jsonb, timestamptz, timestamptz, interval) is
  'From which local time on each occurrence is looked at zone by zone; those before have passed everywhere and are caught up nowhere.';
revoke all on function fleet.first_judged(jsonb, jsonb, timestamptz, timestamptz, interval)
  from public, anon, authenticated, service_role;

create or replace function fleet.judged_zones(
  p_schedule public.schedules,
  p_zones text[],
  p_local timestamp,
  p_fold integer,
  p_now timestamptz,
  p_reason text
)
returns table (zone text, due_at timestamptz, expires_at timestamptz, rule text, refusal text, is_late boolean, is_missed boolean)
language plpgsql
stable
rows 50
set search_path = pg_catalog, pg_temp
as $$
declare
  v_recurrence jsonb := p_schedule.recurrence;
  v_policies jsonb := fleet.effective_policies(p_schedule.policies);
  v_next timestamp := fleet.next_occurrence(v_recurrence -> 'wall', p_local at time zone 'UTC') at time zone 'UTC';
begin
  return query
  select i.zone, i.due_at,
    -- Until it is due again there.
    fleet.run_expiry(v_policies, case when n.due_at > i.due_at then n.due_at end, greatest(i.due_at, case when j.is_passed then p_now end)),
    i.rule, coalesce(i.refusal, j.refusal), i.refusal is null and i.due_at < p_now - interval '1 minute',
    -- What the clocks left out is told by itself, whatever else has passed.
    coalesce(i.refusal is null and j.refusal <> 'the schedule has not begun', false)
  from fleet.zone_instants(v_recurrence, p_local, p_fold, p_zones) as i
  cross join lateral (
    select i.due_at <= p_now as is_passed, case
      when i.refusal is not null or i.due_at > p_now then null
      when i.due_at < p_schedule.next_run_at then 'the schedule has not begun'
      when p_reason is not null then p_reason
      else fleet.late_refusal(v_recurrence, v_policies, i.zone, i.due_at, p_now)
    end as refusal
  ) as j
  left join lateral (
    select x.zone, x.due_at from fleet.zone_instants(v_recurrence, v_next, 0, p_zones) as x where v_next is not null
  ) as n on n.zone = i.zone;
end;
$$;

comment on function fleet.judged_zones(public.schedules, text[], timestamp, integer, timestamptz, text) is
  'What becomes of one local occurrence in each of these zones: when it is due, until when it may start, and why it does not run there '
  '(p_reason for all that has passed by p_now).';
revoke all on function fleet.judged_zones(public.schedules, text[], timestamp, integer, timestamptz, text)
  from public, anon, authenticated, service_role;

create or replace function fleet.decide_occurrences(p_schedule public.schedules, p_now timestamptz, p_reason text default null)
returns setof fleet.run_booking
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- Compiling the plan would take a hundred times as long as running it.
set jit = off
as $$
declare
  v_recurrence jsonb := p_schedule.recurrence;
  v_policies jsonb := fleet.effective_policies(p_schedule.policies);
  v_zones text[] := fleet.schedule_zones(p_schedule);
  v_due timestamptz := p_schedule.next_run_at;
  v_left bigint := fleet.runs_left(p_schedule);
  v_reach record;
  v_from timestamptz;
  v_judged_from timestamptz;
  v_next timestamptz := (select n.due_at from fleet.next_on_walls(v_recurrence, v_zones, p_now) as n);
begin
  select r.* into v_reach from fleet.wall_reach(v_recurrence, v_zones, v_due, p_now) as r;
  -- Walls, as if they were UTC. What is counted is due everywhere or not at all; of all else the rest of the day counts too.
  v_from := v_due + case when v_left is null then v_reach.lowest else v_reach.low end;
  v_judged_from := case
    when p_reason is not null then greatest(v_from, p_now + v_reach.lowest)
    else fleet.first_judged(v_recurrence, v_policies, v_from, p_now, v_reach.lowest)
  end;

  return query
  with kin as materialized (
    select k.first_zone, k.zones
    from fleet.zone_kin(v_recurrence, v_zones, v_judged_from - v_reach.lowest - interval '3 hours', p_now) as k
  ),
  occurrence as materialized (
    select w.local, w.fold, w.zones
    from fleet.walls_within(
      v_recurrence, array(select k.first_zone from kin as k), v_judged_from - v_reach.lowest - interval '3 hours', p_now + interval '1 microsecond'
    ) as w
    where w.local >= v_judged_from at time zone 'UTC'
      and not exists (
        select 1
        from public.schedule_runs as r
        where r.schedule_id = p_schedule.id
          and (
            (r.scheduled_local = w.local and r.fold = w.fold)
            or (r.scheduled_local <= w.local and r.missed_to_local >= w.local)
          )
      )
  ),
  judged as materialized (
    select o.local, o.fold, z.*,
      count(*) filter (where z.is_late and z.refusal is null) over (partition by z.zone order by o.local, o.fold) as nth_late
    from occurrence as o
    cross join lateral fleet.judged_zones(p_schedule, o.zones, o.local, o.fold, p_now, p_reason) as z
  ),
  whole as (
    select j.local, j.fold, min(j.due_at) as due_at, max(j.due_at) as last_at, max(j.expires_at) filter (where j.refusal is null) as expires_at,
      bool_or(j.refusal is null) as runs, bool_or(j.refusal is null and j.is_late) as is_late,
      bool_or(j.is_missed) as is_missed,
      min(j.refusal) filter (where j.refusal <> 'the schedule has not begun') as refusal,
      left(string_agg(distinct j.zone || ' ' || j.rule, ', ') filter (where j.rule is not null), 500) as dst_rule
    from judged as j
    group by j.local, j.fold
    having min(j.due_at) <= p_now
      and (case when v_left is null then max(j.due_at) else min(j.due_at) end) >= v_due
  ),
  numbered as (
    select w.*, count(*) filter (where w.runs) over (order by w.local, w.fold) as n from whole as w
  ),
  missed as (
    select min(m.local) as from_local, max(m.local) as to_local, sum(m.n)::bigint as n, max(m.refusal) as refusal
    from (
      select x.local, 1 as n, x.refusal from numbered as x where not x.runs and x.is_missed
      union all
      select b.from_local, b.n, null from fleet.passed_unseen(p_schedule, v_from, v_judged_from) as b where b.n > 0
      union all
      select b.to_local, 0, null from fleet.passed_unseen(p_schedule, v_from, v_judged_from) as b where b.n > 0
    ) as m
  )
  select p_schedule.id, coalesce((
      select min(i.due_at) from fleet.zone_instants(v_recurrence, m.from_local, 0, v_zones) as i
    ), v_due),
    'schedule', 'skipped', coalesce(p_reason, case
      when v_policies ->> 'catchup' = 'none' then 'catch-up is off'
      when v_policies ->> 'catchup' = 'latest' and exists (select 1 from numbered as x where x.runs) then 'superseded by a later instant'
      else coalesce(m.refusal, 'outside the catch-up window')
    end), null,
    case when m.n > 1 then coalesce((select min(i.due_at) from fleet.zone_instants(v_recurrence, m.from_local, 0, v_zones) as i), v_due) end,
    case when m.n > 1 then coalesce((select max(i.due_at) from fleet.zone_instants(v_recurrence, m.to_local, 0, v_zones) as i), v_due) end,
    case when m.n > 1 then m.n end,
    null::timestamptz, null::timestamptz, null::text[], null, null::bigint, null, coalesce(v_next, 'infinity'),
    m.from_local, 0::smallint, case when m.n > 1 then m.to_local end, null::jsonb
  from missed as m
  where m.n > 0
  union all
  select p_schedule.id, n.due_at, case when n.is_late then 'catchup' else 'schedule' end, case when n.runs then 'pending' else 'skipped' end,
    case when not n.runs then coalesce(n.refusal, 'the schedule has not begun') end, null,
    null, null, null, null, n.expires_at, null, n.dst_rule, null, null, coalesce(v_next, 'infinity'), n.local, n.fold::smallint, null,
    (
      select jsonb_agg(to_jsonb(g))
      from (
        select j.due_at, j.refusal, min(j.rule) as rule,
          case when j.is_late and j.refusal is null then p_now + fleet.catchup_pause(v_policies, j.nth_late) else j.due_at end as starts_at,
          max(j.expires_at) + case
            when j.is_late and j.refusal is null then fleet.catchup_pause(v_policies, j.nth_late) else interval '0'
          end as expires_at,
          array_agg(u.zone order by u.zone) as zones
        from judged as j
        join kin as k on k.first_zone = j.zone
        cross join unnest(k.zones) as u(zone)
        where j.local = n.local and j.fold = n.fold
        group by j.due_at, j.refusal, j.is_late, j.nth_late
      ) as g
    )
  from numbered as n
  where (n.runs or not n.is_missed)
    -- What follows elapsed time misses nothing by a jump of the clocks.
    and (n.runs or not v_recurrence @> '{"wall": {"is_elapsed": true}}')
    and coalesce(n.n <= v_left, true)
  order by 17;
end;
$$;

comment on function fleet.decide_occurrences(public.schedules, timestamptz, text) is
  'What becomes of a schedule by device time that has been due since its next_run_at: a run for each local occurrence that runs in some '
  'zone or is yet to come there, with its zones, and one row for those that have passed everywhere. p_reason: why nothing that has passed '
  'is caught up, such as a pause.';
revoke all on function fleet.decide_occurrences(public.schedules, timestamptz, text) from public, anon, authenticated, service_role;

create or replace function fleet.passed_unseen(p_schedule public.schedules, p_from timestamptz, p_to timestamptz)
returns table (from_local timestamp, to_local timestamp, n bigint)
language plpgsql
stable
rows 1
set search_path = pg_catalog, pg_temp
as $$
declare
  v_wall jsonb := p_schedule.recurrence -> 'wall';
  v_from timestamptz := p_from;
begin
  if p_from >= p_to then
    return;
  end if;
  -- What is booked or told already comes first: the ledger has them in the order of the walls.
  v_from := greatest(v_from, (
    select max(coalesce(r.missed_to_local, r.scheduled_local)) at time zone 'UTC' + interval '1 microsecond'
    from public.schedule_runs as r
    where r.schedule_id = p_schedule.id and r.scheduled_local < p_to at time zone 'UTC'
  ));
  n := fleet.count_occurrences(v_wall, v_from, p_to);
  if n > 0 then
    from_local := fleet.next_occurrence(v_wall, v_from - interval '1 microsecond') at time zone 'UTC';
    to_local := fleet.last_occurrence(v_wall, v_from, p_to) at time zone 'UTC';
    return next;
  end if;
end;
$$;

comment on function fleet.passed_unseen(public.schedules, timestamptz, timestamptz) is
  'The local occurrences in [p_from, p_to), walls as if they were UTC, of which the ledger says nothing.';
revoke all on function fleet.passed_unseen(public.schedules, timestamptz, timestamptz) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/55_rrule.sql
-- A calendar's recurrence rule (RFC 5545) in the JSON of a schedule: key "rrule".

create or replace function fleet.rrule_bounds(p_spec jsonb)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- DTSTART says when a rule begins, and in which zone.
  select case
    when b.block ->> 'problem' is not null or b.block -> 'start' = 'null' then '{}'::jsonb
    else jsonb_build_object('start_time', case
      when b.block #>> '{start,value}' ~ 'Z$' then fleet.instant_text(fleet.rrule_block_start(b.block, 'UTC'))
      else fleet.rrule_local_text((b.block -> 'start') - 'zone', 'UTC')
    end) || case
      when b.block #>> '{start,zone}' is null then '{}'
      else jsonb_build_object('timezone', regexp_replace(b.block #>> '{start,zone}', '^/.*/([^/]+/[^/]+)$', '\1'))
    end
  end
  from (select fleet.rrule_block(p_spec ->> 'rrule') as block) as b
  where jsonb_typeof(p_spec -> 'rrule') = 'string'
$$;

comment on function fleet.rrule_bounds(jsonb) is
  'start_time and timezone as DTSTART of a specification''s rrule says them; {} where it says none.';
revoke all on function fleet.rrule_bounds(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.recurrence_of_rrule(p_spec jsonb)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  -- In device time what the wall shows is read as UTC, as everywhere.
  v_zone text := coalesce(nullif(p_spec ->> 'timezone', 'device'), 'UTC');
  v_start timestamptz;
  v_parts jsonb := fleet.rrule_parts(p_spec ->> 'rrule');
  v_recurrence jsonb;
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
  if p_spec ->> 'timezone' is distinct from 'device' then
    return fleet.recurrence_from_rrule(p_spec ->> 'rrule', v_start, v_zone);
  elsif fleet.try_exact_instant(p_spec ->> 'start_time') is not null then
    -- An instant: the date and the time of day that are taken from it are those of the owner's wall.
    v_start := (v_start at time zone fleet.zone_clock(fleet.home_zone(fleet.try_uuid(p_spec ->> 'owner_id')))) at time zone 'UTC';
  end if;

  -- On many walls a count counts runs, and an end without Z is a reading of the wall.
  v_recurrence := fleet.recurrence_from_rrule(
    regexp_replace(p_spec ->> 'rrule', '(^|;|:)COUNT=[1-9]\d{0,4}(;|\s*$)', '\1', 'i'), v_start, v_zone
  );
  if v_parts ->> 'COUNT' ~ '^[1-9]\d{0,4}$' and not v_parts ? 'UNTIL' then
    v_recurrence := jsonb_set(v_recurrence, '{policies,max_runs}', to_jsonb((v_parts ->> 'COUNT')::integer));
  elsif v_parts ->> 'UNTIL' !~ 'Z$' then
    v_recurrence := jsonb_set(v_recurrence, '{end_time}', to_jsonb(left(v_recurrence ->> 'end_time', 26)));
  end if;
  return v_recurrence;
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
    select p_spec ->> 'rrule' as rule, b.bounds, b.bounds || fleet.without_nulls(p_spec) as spec
    from (select coalesce(fleet.rrule_bounds(p_spec), '{}') as bounds) as b
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
  select 'rrule', format('DTSTART says another %s than %s does', k.word, k.key), format('Leave %s out, or DTSTART.', k.key)
  from given as g
  cross join (values ('start_time', 'time'), ('timezone', 'zone')) as k(key, word)
  where g.bounds ? k.key
    and case k.key
      when 'timezone' then g.spec ->> 'timezone' <> g.bounds ->> 'timezone' and g.spec ->> 'timezone' <> 'device'
      else fleet.try_instant(g.spec ->> 'start_time', 'UTC') <> fleet.try_instant(g.bounds ->> 'start_time', 'UTC')
        and coalesce(
          fleet.try_exact_instant(g.spec ->> 'start_time')
            <> fleet.rrule_block_start(
              fleet.rrule_block(g.rule),
              -- What every wall shows is read as UTC; so is what is in a zone that nobody knows, which is told elsewhere.
              case when fleet.is_time_zone(g.spec ->> 'timezone') then g.spec ->> 'timezone' else 'UTC' end
            ),
          true
        )
    end
  union all
  select 'rrule', r.recurrence ->> 'problem', r.recurrence ->> 'hint'
  from given as g
  cross join fleet.recurrence_of_rrule(g.spec) as r(recurrence)
  -- A change may leave the start as it was; who reads the whole then tells.
  where g.spec ? 'start_time' and r.recurrence ? 'problem'
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
    || case
      -- On the walls of all devices the end is a time of day, not one instant.
      when p_spec ->> 'timezone' = 'device' and v_recurrence ? 'end_time'
        then jsonb_build_object('end_time', regexp_replace(v_recurrence ->> 'end_time', '\+00:00$', ''))
      else '{}'
    end
    || case
      -- Times of a rule are whole seconds: one that begins within a second would miss its first.
      when p_spec ->> 'start_time' ~ '\.\d*[1-9]'
        then jsonb_build_object('start_time', regexp_replace(p_spec ->> 'start_time', '\.\d+', ''))
      else '{}'
    end
    || jsonb_build_object('policies', (v_recurrence -> 'policies') || fleet.object_or_empty(p_spec -> 'policies'));
end;
$$;

comment on function fleet.spec_without_rrule(jsonb) is
  'The specification with its rrule in our own keys: recurrence_type, recurrence_config, end_time, and the policies that the standard '
  'implies where it says nothing of its own. Raises schedule_invalid (PT422) naming rrule.';
revoke all on function fleet.spec_without_rrule(jsonb) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/57_device_time_warnings.sql
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
  if p_schedule.after_per_device and p_schedule.policies ? 'rollout' then
    return next (
      'after.per_device', 'does not go with policies.rollout: each device goes on by itself',
      'Let the schedule that it follows be rolled out, or leave out per_device.'
    )::fleet.problem;
  end if;
  if not exists (
    select 1 from public.schedules as s where s.id = v_id and s.owner_id = p_schedule.owner_id
  ) then
    return query
    select 'after.schedule_id', format('schedule %s was not found', v_id), 'List your schedules with: select * from schedule_list';
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
  v_row.after_per_device := false;
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

create or replace function fleet.destructive_follower(p_schedule_id bigint, p_on text[])
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    with recursive chain as (
      select s.id, s.owner_id, s.action_type
      from public.schedules as s
      where s.after_schedule_id = p_schedule_id
        and s.after_on = any (p_on)
        and s.status in ('active', 'paused')
        and s.owner_id = (select p.owner_id from public.schedules as p where p.id = p_schedule_id)
      union
      select s.id, s.owner_id, s.action_type
      from chain as c
      join public.schedules as s on s.after_schedule_id = c.id and s.owner_id = c.owner_id
      where s.status in ('active', 'paused')
    )
    select c.action_type
    from chain as c
    join public.command_types as t on t.name = c.action_type and coalesce(t.owner_id, c.owner_id) = c.owner_id and t.destructive
    limit 1
  );
end;
$$;

comment on function fleet.destructive_follower(bigint, text[]) is
  'A destructive command type that some schedule further down the chain of this one sends, where its runs end like that; null where none does.';
revoke all on function fleet.destructive_follower(bigint, text[]) from public, anon, authenticated, service_role;

create or replace function fleet.require_destructive_chain(
  p_owner_id uuid,
  p_schedule_id bigint,
  p_on text[] default '{completed,failed,either}'
)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Whoever may pull the first domino has to have the right for the last.
  perform fleet.require_destructive(p_owner_id, fleet.destructive_follower(p_schedule_id, p_on));
end;
$$;

comment on function fleet.require_destructive_chain(uuid, bigint, text[]) is
  'Raise permission_missing (PT403) where something destructive follows a schedule, at any distance, and the caller may not wipe.';
revoke all on function fleet.require_destructive_chain(uuid, bigint, text[]) from public, anon, authenticated, service_role;

create or replace function fleet.destructive_schedules(p_owner_id uuid)
returns table (group_ids bigint[], selector jsonb)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select s.group_ids, s.selector
  from public.schedules as s
  join public.command_types as t on t.name = s.action_type and coalesce(t.owner_id, s.owner_id) = s.owner_id and t.destructive
  where s.owner_id = p_owner_id and s.status in ('active', 'paused')
  union all
  select array[p.group_id], p.selector
  from public.location_policies as p
  join public.command_types as t on t.name = p.action_type and coalesce(t.owner_id, p.owner_id) = p.owner_id and t.destructive
  where p.owner_id = p_owner_id
  union all
  select '{}', g.selector
  from public.device_groups as g
  where g.owner_id = p_owner_id and g.selector is not null and exists (
    select 1
    from public.schedules as s
    join public.command_types as t on t.name = s.action_type and coalesce(t.owner_id, s.owner_id) = s.owner_id and t.destructive
    where s.owner_id = p_owner_id and s.status in ('active', 'paused') and g.id = any (s.group_ids)
    union all
    select 1
    from public.location_policies as p
    join public.command_types as t on t.name = p.action_type and coalesce(t.owner_id, p.owner_id) = p.owner_id and t.destructive
    where p.owner_id = p_owner_id and p.group_id = g.id
  );
end;
$$;

comment on function fleet.destructive_schedules(uuid) is
  'Whom the schedules and location policies of an owner wipe that are not at their end: groups, and selectors of their own or of groups.';
revoke all on function fleet.destructive_schedules(uuid) from public, anon, authenticated, service_role;

create or replace function fleet.require_destructive_groups(p_owner_id uuid, p_group_ids bigint[], p_tags text[] default '{}')
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (
    select 1
    from fleet.destructive_schedules(p_owner_id) as s
    where s.group_ids && p_group_ids
      -- A device that has these tags may be one that is wanted, whatever else it is.
      or (p_tags <> '{}' and fleet.device_matches(
        s.selector, p_tags, coalesce(s.selector #>> '{platform,0}', s.selector ->> 'platform'), s.selector -> 'attributes', '{}'
      ))
  ) then
    perform fleet.require_permission(p_owner_id, 'destructive', format('owner %s', p_owner_id));
  end if;
end;
$$;

comment on function fleet.require_destructive_groups(uuid, bigint[], text[]) is
  'Raise permission_missing (PT403) where a schedule or location policy wipes the devices of one of these groups, or with such tags, and the '
  'caller may not.';
revoke all on function fleet.require_destructive_groups(uuid, bigint[], text[]) from public, anon, authenticated, service_role;

create or replace function fleet.reported_problems(p_owner_id uuid, p_command_type text, p_group_ids bigint[], p_selector jsonb)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (select 1 from public.command_types as t where t.name = p_command_type and coalesce(t.owner_id, p_owner_id) = p_owner_id and t.destructive) then
    return;
  end if;
  if p_selector ? 'reported' then
    return next (
      'selector.reported', 'is what a device says of itself, and never decides whom to wipe', 'Use tags, platform or attributes.'
    )::fleet.problem;
  end if;
  return query
  select 'group_ids', format('group "%s" goes by what devices report, which never decides whom to wipe', g.name),
    'Use groups that list their devices, or select by tags, platform or attributes.'
  from public.device_groups as g
  where g.id = any (p_group_ids) and g.owner_id = p_owner_id and g.selector ? 'reported';
end;
$$;

comment on function fleet.reported_problems(uuid, text, bigint[], jsonb) is
  'Selectors of something destructive that go by what devices say of themselves.';
revoke all on function fleet.reported_problems(uuid, text, bigint[], jsonb) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/62_rollouts.sql
-- The policy rollout: what is wrong with it, and the plan that it makes. Pure.

create or replace function fleet.percent_problem(p_field text, p_value jsonb, p_least numeric)
returns setof fleet.problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_value is not null and not coalesce(fleet.is_within(p_value, p_least, 100), false) then
    return next (p_field, format('%s is not a percentage from %s to 100', left(p_value::text, 40), p_least), 'Write a number without quotes.')::fleet.problem;
  end if;
end;
$$;

comment on function fleet.percent_problem(text, jsonb, numeric) is 'One row where a value is no percentage.';
revoke all on function fleet.percent_problem(text, jsonb, numeric) from public, anon, authenticated, service_role;

create or replace function fleet.key_problems(p_field text, p_object jsonb, p_known text[])
returns setof fleet.problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if jsonb_typeof(p_object) is distinct from 'object' then
    return next (p_field, 'must be an object', format('Its keys are %s.', array_to_string(p_known, ', ')))::fleet.problem;
    return;
  end if;
  return query
  select p_field || '.' || left(k.key, 60), 'is not known here', format('The keys are %s.', array_to_string(p_known, ', '))
  from jsonb_object_keys(p_object) as k(key)
  where k.key <> all (p_known)
  limit 10;
end;
$$;

comment on function fleet.key_problems(text, jsonb, text[]) is 'What is wrong with the keys of an object; one row where a value is none.';
revoke all on function fleet.key_problems(text, jsonb, text[]) from public, anon, authenticated, service_role;

create or replace function fleet.rollout_group_problems(p_groups jsonb)
returns setof fleet.problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_group jsonb;
  v_field text;
  v_sum numeric := 0;
  v_n integer := 0;
begin
  if jsonb_typeof(p_groups) <> 'array' then
    return next ('policies.rollout.groups', 'must be a list of groups', 'Example: [{"percent": 5}, {"percent": 95}]')::fleet.problem;
    return;
  end if;
  return query select q.* from fleet.list_problem('policies.rollout.groups', 'rollout_groups', p_groups) as q;
  for v_group in select e.value from jsonb_array_elements(p_groups) as e limit 100 loop
    v_n := v_n + 1;
    v_field := format('policies.rollout.groups.%s', v_n);
    return query
    select q.* from fleet.key_problems(v_field, v_group, '{name,percent,tag,devices,success_threshold,soak,gate}') as q;
    continue when jsonb_typeof(v_group) <> 'object';
    if (v_group ? 'percent')::integer + (v_group ? 'tag')::integer + (v_group ? 'devices')::integer <> 1 then
      return next (v_field, 'must have one of percent, tag and devices', 'Example: {"percent": 5}')::fleet.problem;
    end if;
    return query select q.* from fleet.percent_problem(v_field || '.percent', v_group -> 'percent', 0.01) as q;
    return query select q.* from fleet.percent_problem(v_field || '.success_threshold', v_group -> 'success_threshold', 0) as q;
    return query select q.* from fleet.duration_problem(v_field || '.soak', v_group -> 'soak') as q;
    return query select q.* from fleet.choice_problem(v_field || '.gate', v_group -> 'gate', '{manual}') as q;
    return query
    select v_field || '.' || k.key, 'must be a text', 'Write it in quotes.'
    from jsonb_each(v_group) as k
    where k.key in ('name', 'tag') and (jsonb_typeof(k.value) <> 'string' or length(k.value #>> '{}') not between 1 and 200);
    if v_group ? 'devices' and not fleet.is_id_list(v_group -> 'devices') then
      return next (v_field || '.devices', 'is not a list of ids', 'Write whole numbers without quotes, like [1, 2].')::fleet.problem;
    end if;
    v_sum := v_sum + case when fleet.is_within(v_group -> 'percent', 0, 100) then (v_group ->> 'percent')::numeric else 0 end;
  end loop;
  if v_sum > 100 then
    return next ('policies.rollout.groups', format('have %s percent together', v_sum), 'Let them have 100 at most; the rest is a group of its own.')::fleet.problem;
  end if;
end;
$$;

comment on function fleet.rollout_group_problems(jsonb) is 'What is wrong with the groups of a rollout.';
revoke all on function fleet.rollout_group_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.rollout_problems(p_rollout jsonb)
returns setof fleet.problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rate jsonb := p_rollout -> 'rate';
  v_rule jsonb;
begin
  return query
  select q.*
  from fleet.key_problems(
    'policies.rollout', p_rollout, '{rate,groups,abort,max_parallel,four_eyes,approvals,compensate,membership}'
  ) as q;
  if jsonb_typeof(p_rollout) <> 'object' then
    return;
  end if;

  if v_rate is not null then
    return query
    select q.*
    from fleet.key_problems('policies.rollout.rate', v_rate, '{per_minute,base,factor,every,count,most}') as q;
    if jsonb_typeof(v_rate) = 'object' then
      if v_rate ? 'per_minute' = v_rate ? 'base' then
        return next ('policies.rollout.rate', 'must have either per_minute or base', 'Example: {"per_minute": 50} or {"base": 10, "factor": 2, "every": 100}')::fleet.problem;
      end if;
      return query
      select q.*
      from (values ('per_minute', 100000), ('base', 100000), ('every', 1000000), ('most', 100000)) as k(key, most)
      cross join lateral fleet.whole_number_problem('policies.rollout.rate.' || k.key, v_rate -> k.key, 1, k.most) as q;
      if v_rate ? 'factor' and not fleet.is_within(v_rate -> 'factor', 1, 10) then
        return next ('policies.rollout.rate.factor', 'is not a number from 1 to 10', 'Example: 2')::fleet.problem;
      end if;
      return query select q.* from fleet.choice_problem('policies.rollout.rate.count', v_rate -> 'count', '{released,succeeded}') as q;
    end if;
  end if;

  if p_rollout ? 'groups' then
    return query select q.* from fleet.rollout_group_problems(p_rollout -> 'groups') as q;
  end if;
  if p_rollout ? 'abort' then
    return query select q.* from fleet.list_problem('policies.rollout.abort', 'abort_rules', p_rollout -> 'abort') as q;
    for v_rule in select a.value from fleet.as_list(p_rollout -> 'abort') as a(value) limit 50 loop
      return query select q.* from fleet.key_problems('policies.rollout.abort', v_rule, '{failure,percent,min_count}') as q;
      continue when jsonb_typeof(v_rule) <> 'object';
      return query select q.* from fleet.percent_problem('policies.rollout.abort.percent', coalesce(v_rule -> 'percent', 'null'), 0) as q;
      return query select q.* from fleet.whole_number_problem('policies.rollout.abort.min_count', v_rule -> 'min_count', 1, 1000000) as q;
      return query
      select q.*
      from fleet.choice_problem(
        'policies.rollout.abort.failure', v_rule -> 'failure',
        '{any,error,timeout,expired,interrupted,unsupported,forbidden,invalid_payload,lease_expired}'
      ) as q;
    end loop;
  end if;
  return query select q.* from fleet.whole_number_problem('policies.rollout.max_parallel', p_rollout -> 'max_parallel', 1, 1000000) as q;
  return query select q.* from fleet.whole_number_problem('policies.rollout.approvals', p_rollout -> 'approvals', 1, 10) as q;
  return query select q.* from fleet.choice_problem('policies.rollout.membership', p_rollout -> 'membership', '{snapshot,continuous}') as q;
  if p_rollout ? 'four_eyes' and jsonb_typeof(p_rollout -> 'four_eyes') <> 'boolean' then
    return next ('policies.rollout.four_eyes', 'must be true or false', 'Write it without quotes.')::fleet.problem;
  end if;
  if p_rollout ? 'compensate' then
    return query select q.* from fleet.key_problems('policies.rollout.compensate', p_rollout -> 'compensate', '{action_type,payload}') as q;
    if jsonb_typeof(p_rollout #> '{compensate,action_type}') is distinct from 'string'
      or jsonb_typeof(coalesce(p_rollout #> '{compensate,payload}', '{}')) <> 'object'
    then
      return next (
        'policies.rollout.compensate', 'must have an action_type and a payload',
        'Example: {"action_type": "deploy_software", "payload": {"software_ids": [5], "uninstall": true}}'
      )::fleet.problem;
    end if;
  end if;
end;
$$;

comment on function fleet.rollout_problems(jsonb) is 'Everything that is wrong with the policy rollout.';
revoke all on function fleet.rollout_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.rollout_plan(p_policies jsonb, p_action_type text, p_payload jsonb)
returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_plan jsonb := p_policies -> 'rollout';
begin
  -- A command line for many devices may say itself how many at once, and that the first failure ends it.
  if p_action_type = 'run_command' and p_payload ?| '{batch_size,stop_on_failure}' then
    v_plan := coalesce(v_plan, '{}')
      || case
        when fleet.is_within(p_payload -> 'batch_size', 1, 1000000) and not coalesce(v_plan ? 'max_parallel', false)
          then jsonb_build_object('max_parallel', trunc((p_payload ->> 'batch_size')::numeric))
        else '{}'
      end
      || case
        when p_payload -> 'stop_on_failure' = 'true' and not coalesce(v_plan ? 'abort', false)
          then '{"abort": [{"failure": "any", "percent": 0, "min_count": 1}]}'::jsonb
        else '{}'
      end;
  end if;
  return case when jsonb_typeof(v_plan) = 'object' then v_plan end;
end;
$$;

comment on function fleet.rollout_plan(jsonb, text, jsonb) is 'How a run is rolled out, by its policies and its payload; null where it reaches everybody at once.';
revoke all on function fleet.rollout_plan(jsonb, text, jsonb) from public, anon, authenticated, service_role;

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
  if v_row.timezone <> 'device' and fleet.is_time_zone(v_row.timezone) then
    -- Readings of the wall are instants where there is one wall.
    if v_row.start_is_local then
      v_row.start_time := fleet.local_to_instant(v_row.start_time at time zone 'UTC', v_row.timezone);
    end if;
    if v_row.end_is_local and isfinite(v_row.end_time) then
      v_row.end_time := fleet.local_to_instant(v_row.end_time at time zone 'UTC', v_row.timezone);
    end if;
    v_row.start_is_local := false;
    v_row.end_is_local := false;
  end if;
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
  else
    v_row.after_per_device := false;
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
  return case
    -- What follows another schedule has no instants of its own.
    when p_schedule.after_schedule_id is not null then null
    when p_schedule.timezone = 'device' then fleet.first_due_on_walls(p_schedule, p_now)
    when p_schedule.recurrence_type = 'once'
      then fleet.next_occurrence(p_schedule.recurrence, '-infinity')
    else fleet.next_due(p_schedule.recurrence, null, greatest(p_schedule.start_time, p_now) - interval '1 microsecond')
  end;
end;
$$;

comment on function fleet.first_due(public.schedules, timestamptz) is
  'The first instant that a new or changed schedule is due.';
revoke all on function fleet.first_due(public.schedules, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.first_due_on_walls(p_schedule public.schedules, p_now timestamptz)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_recurrence jsonb := p_schedule.recurrence;
  v_zones text[] := fleet.schedule_zones(p_schedule);
  v_first timestamptz;
begin
  if p_schedule.recurrence_type = 'once' then
    return fleet.next_due(v_recurrence, v_zones, '-infinity');
  elsif p_schedule.policies ? 'max_runs' then
    -- What is counted begins on every wall with the same occurrence.
    return fleet.next_due(
      v_recurrence - 'from', v_zones, greatest(p_now, (v_recurrence ->> 'from')::timestamptz) - interval '1 microsecond'
    );
  end if;
  -- What comes within days comes at the same instant in all zones of a kin.
  select min(n.due_at) into v_first
  from unnest(fleet.different_zones(v_recurrence, v_zones, p_now, p_now + interval '3 days')) as u(zone)
  cross join lateral fleet.next_on_walls(v_recurrence, array[u.zone], p_now - interval '1 microsecond', true) as n;
  if v_first < p_now + interval '3 days' then
    return v_first;
  end if;
  return (
    select min(n.due_at)
    from unnest(v_zones) as u(zone)
    cross join lateral fleet.next_on_walls(v_recurrence, array[u.zone], p_now - interval '1 microsecond', true) as n
  );
end;
$$;

comment on function fleet.first_due_on_walls(public.schedules, timestamptz) is
  'The first instant that a new or changed schedule by device time is due anywhere: where its runs are counted, with an occurrence that '
  'lies ahead on every wall.';
revoke all on function fleet.first_due_on_walls(public.schedules, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.with_recurrence(p_schedule public.schedules, p_recurrence jsonb)
returns public.schedules
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  p_schedule.recurrence := p_recurrence;
  return p_schedule;
end;
$$;

comment on function fleet.with_recurrence(public.schedules, jsonb) is 'The row with another compiled recurrence.';
revoke all on function fleet.with_recurrence(public.schedules, jsonb) from public, anon, authenticated, service_role;

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
      p_old.start_is_local, p_old.end_is_local, p_old.policies -> 'gap', p_old.policies -> 'fold', p_old.policies -> 'unknown_zone')
    is distinct from
    (p_new.recurrence_type, p_new.recurrence_config, p_new.start_time, p_new.end_time, p_new.timezone,
      p_new.start_is_local, p_new.end_is_local, p_new.policies -> 'gap', p_new.policies -> 'fold', p_new.policies -> 'unknown_zone');
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
      -- In device time it is due where its devices are.
      or (p_new.timezone = 'device' and fleet.targets_changed(p_old, p_new))
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

-- db/sources/30_schedules/78_warnings.sql
-- What is allowed but probably not meant.

create or replace function fleet.jitter_warning(p_schedule public.schedules)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_policies jsonb;
  v_jitter interval := (p_schedule.policies ->> 'jitter')::interval;
  v_plan jsonb;
  v_due timestamptz := greatest(p_schedule.start_time, now()) - interval '1 microsecond';
  v_lost bigint := 0;
begin
  if v_jitter is null then
    return null;
  end if;
  v_policies := fleet.effective_policies(p_schedule.policies);
  if p_schedule.recurrence_type = 'once' or p_schedule.after_schedule_id is not null
    or (v_policies ->> 'overlap' = 'allow' and (v_policies ->> 'expires_after')::interval >= v_jitter)
  then
    return null;
  end if;

  v_plan := fleet.compiled_recurrence(
    p_schedule.recurrence_type, p_schedule.recurrence_config, fleet.reference_zone(p_schedule), p_schedule.start_time,
    p_schedule.end_time, v_policies ->> 'gap', v_policies ->> 'fold'
  );
  -- Not every pause is as long as the next: working days, several times a day.
  for v_number in 1..10 loop
    v_due := fleet.next_occurrence(v_plan, v_due);
    exit when v_due is null;
    v_lost := greatest(v_lost, fleet.count_occurrences(v_plan, v_due + interval '1 microsecond', v_due + v_jitter, 1000000));
  end loop;
  if v_lost > 0 then
    return format(
      'policies.jitter reaches over the next due instant: a device with a late slot misses %s of %s runs', v_lost, v_lost + 1
    );
  end if;
  return null;
end;
$$;

comment on function fleet.jitter_warning(public.schedules) is
  'What a jitter costs that is longer than the pause between two due instants: a device whose slot lies behind the next is still waiting when '
  'that is due. Null where it costs nothing.';
revoke all on function fleet.jitter_warning(public.schedules) from public, anon, authenticated, service_role;

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
  if p_schedule.timezone = 'device' and p_schedule.after_schedule_id is null then
    v_warnings := v_warnings || fleet.device_time_warnings(p_schedule, clock_timestamp());
  end if;
  return to_jsonb(array_remove(v_warnings || fleet.jitter_warning(p_schedule), null));
end;
$$;

comment on function fleet.schedule_warnings(public.schedules) is
  'What is allowed but probably not meant: a start in the past, nobody to reach, nothing due.';
revoke all on function fleet.schedule_warnings(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.zone_warning(p_schedule jsonb, p_spec jsonb)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_home text;
begin
  if p_schedule ->> 'timezone' = 'UTC' and coalesce(p_spec ->> 'timezone', p_spec ->> 'rrule', p_spec ->> 'after') is null and (
    p_schedule ->> 'recurrence_type' in ('daily', 'weekly', 'monthly', 'cron')
    or fleet.is_wall_time(coalesce(p_spec ->> 'start_time', p_spec ->> 'scheduled_time'))
  ) then
    v_home := fleet.home_zone((p_schedule ->> 'owner_id')::uuid);
  end if;
  if v_home <> 'UTC' then
    return format('no timezone was named, so its times are in UTC; where they are meant in %s, name that', v_home);
  end if;
  return null;
end;
$$;

comment on function fleet.zone_warning(jsonb, jsonb) is
  'What is said of a schedule whose specification names no time zone and whose times are read on a clock, where its owner''s is not UTC.';
revoke all on function fleet.zone_warning(jsonb, jsonb) from public, anon, authenticated, service_role;

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
  v_row := jsonb_populate_record(v_row, fleet.schedule_defaults());
  v_row.owner_id := p_owner_id;
  v_row.status := 'active';
  v_row.execution_count := 0;
  v_row.idle_count := 0;
  return v_row;
end;
$$;

comment on function fleet.blank_schedule(uuid) is 'The row of a schedule of which nothing is said yet: every default, and no id.';
revoke all on function fleet.blank_schedule(uuid) from public, anon, authenticated, service_role;

create or replace function fleet.creation_answer(p_schedule_id bigint, p_spec jsonb)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_answer jsonb := fleet.schedule_answer(p_schedule_id);
begin
  return jsonb_set(
    v_answer, '{warnings}', v_answer -> 'warnings' || to_jsonb(array_remove(array[fleet.zone_warning(v_answer, p_spec)], null))
  );
end;
$$;

comment on function fleet.creation_answer(bigint, jsonb) is
  'The row of a schedule that was made of a specification, with its warnings, that of a zone that was not named among them.';
revoke all on function fleet.creation_answer(bigint, jsonb) from public, anon, authenticated, service_role;

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
  v_owner := fleet.owner_or_own(fleet.owner_of_spec(p_spec));
  perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
  v_id := fleet.store_schedule(fleet.changed_schedule(fleet.blank_schedule(v_owner), p_spec));
  -- Read again, in a statement of its own: what is due at once has run by now.
  return fleet.creation_answer(v_id, p_spec);
end;
$$;

comment on function fleet.create_schedule(jsonb) is
  'See public.create_schedule. Definer: it checks the caller first, then sees what the checks need to see.';
revoke all on function fleet.create_schedule(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.create_schedule(jsonb) to authenticated, service_role;

create or replace function public.create_schedule(p_spec jsonb)
returns jsonb
language sql
volatile
return fleet.create_schedule(p_spec);

comment on function public.create_schedule(jsonb) is
  'Create a schedule from JSON: name, action_type, payload, recurrence_type, recurrence_config, start_time, end_time, timezone, '
  'device_ids, group_ids, selector, policies, priority, after, rrule; devices, groups and after.schedule by name (task_name, task_type, scheduled_time, …_payload are understood too). A time '
  'without an offset is local to the zone. Answers the row with "warnings". Raises schedule_invalid (PT422, or PT404) naming every '
  'wrong field.';
revoke all on function public.create_schedule(jsonb) from public, anon, authenticated, service_role;
grant execute on function public.create_schedule(jsonb) to authenticated, service_role;

create or replace function fleet.read_changes(
  p_old public.schedules,
  p_changes jsonb,
  p_whole boolean,
  out item public.schedules,
  out problems fleet.problem[]
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_spec jsonb;
  v_fields text[] := '{}';
begin
  perform fleet.require_object(p_changes, 'changes of a schedule', 'Example: {"name": "Nightly", "priority": 5}');
  v_spec := fleet.normal_schedule_spec(p_changes);
  problems := '{}';
  if v_spec ?| '{devices,groups,after}' then
    problems := array(select t from fleet.name_problems(p_old.owner_id, v_spec) as t);
    v_spec := fleet.with_ids(p_old.owner_id, v_spec);
  end if;
  problems := problems || array(select t from fleet.spec_type_problems(v_spec) as t);
  if fleet.try_uuid(v_spec ->> 'owner_id') <> p_old.owner_id then
    problems := problems || ('owner_id', 'cannot be changed', 'Create the schedule anew for the other owner.')::fleet.problem;
  end if;

  v_spec := v_spec - 'owner_id';
  if problems <> '{}' then
    -- What has the wrong type stays as it was, so that everything else is still checked in the same answer.
    v_fields := array(select p.field from unnest(problems) as p);
    v_spec := v_spec - array(select split_part(f, '.', 1) from unnest(v_fields) as f);
  end if;
  item := fleet.schedule_from_spec(p_old, v_spec);
  if p_old.id is null then
    -- An insert has no old row to tell by which of two twin columns is meant.
    item := fleet.without_stale_twins(p_old, item);
  end if;

  -- The trigger knows columns only: whoever sends other names for them is told here, in these.
  if p_whole or problems <> '{}' or p_changes ?| fleet.schedule_alias_keys() then
    problems := problems || array(
      select q
      from fleet.schedule_problems(p_old, fleet.completed_schedule(p_old, fleet.without_stale_twins(p_old, item))) as q
      where q.field <> all (v_fields)
        -- Whoever is named but unknown is not nobody.
        and not (q.field = 'device_ids' and v_fields && '{devices,groups}')
    );
    problems := array(
      select (case when q.n <= 50 then fleet.sent_field(p_changes, q.field) else q.field end, q.problem, q.hint)::fleet.problem
      from unnest(problems) with ordinality as q(field, problem, hint, n)
      order by q.n
    );
  end if;
end;
$$;

comment on function fleet.read_changes(public.schedules, jsonb, boolean) is
  'The row with changes in the keys of create_schedule, and what is wrong with them: where one cannot even be read, where other names for '
  'columns were sent, or if p_whole asks for it, everything; else what the trigger would not find, which checks whatever is written.';
revoke all on function fleet.read_changes(public.schedules, jsonb, boolean) from public, anon, authenticated, service_role;

create or replace function fleet.changed_schedule(p_old public.schedules, p_changes jsonb)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_read record;
begin
  v_read := fleet.read_changes(p_old, p_changes, false);
  perform fleet.raise_problems('the schedule', 'schedule_invalid', v_read.problems);
  return v_read.item;
end;
$$;

comment on function fleet.changed_schedule(public.schedules, jsonb) is
  'The row with changes in the keys of create_schedule, as it is to be written; of a row without an id, the one to be inserted. Raises '
  'schedule_invalid naming every wrong field where one cannot even be read; the rest is left to the trigger, which checks whatever is '
  'written.';
revoke all on function fleet.changed_schedule(public.schedules, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.numbered_schedule(p_row public.schedules)
returns public.schedules
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  p_row.id := nextval('public.schedules_id_seq');
  p_row.created_at := now();
  p_row.updated_at := now();
  return p_row;
end;
$$;

comment on function fleet.numbered_schedule(public.schedules) is
  'A new row with what the table has defaults for: whole rows are inserted by a plan that is kept, and have them already.';
revoke all on function fleet.numbered_schedule(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.store_schedule(p_row public.schedules)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_columns text;
  v_id bigint := p_row.id;
  v_row public.schedules;
begin
  if v_id is null then
    v_row := fleet.numbered_schedule(p_row);
    insert into public.schedules select r.* from unnest(array[v_row]) as r;
    return v_row.id;
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
-- It wrote the columns one by one.
drop function if exists fleet.schedule_column_list();

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
            hint = format('Make a new one of it: select duplicate_schedule(%s)', p_schedule_id);
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
return fleet.update_schedule(p_schedule_id, p_changes);

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

-- db/sources/30_schedules/81_create_many.sql
-- Many schedules at once: all of them, or none and everything that is wrong with each.

create or replace function fleet.insert_schedules(p_rows public.schedules[])
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into public.schedules select r.* from unnest(p_rows) as r;
end;
$$;

comment on function fleet.insert_schedules(public.schedules[]) is
  'Insert rows of fleet.numbered_schedule in one statement: each is checked as every other write is, and what looks at all new rows looks once.';
revoke all on function fleet.insert_schedules(public.schedules[]) from public, anon, authenticated, service_role;

create or replace function fleet.problems_of_specs(p_specs jsonb[])
returns setof fleet.problem
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_spec jsonb;
  v_item text;
  v_nr bigint;
  v_hint text;
begin
  for v_spec, v_nr in
    select s.item, s.nr from unnest(p_specs) with ordinality as s(item, nr) order by s.nr
  loop
    v_item := format('schedules[%s]', v_nr - 1);
    begin
      perform fleet.require_object(v_spec, 'a schedule', 'See the README, "Schedules by example".');
      return query
      select v_item || '.' || q.field, q.problem, q.hint
      from fleet.read_changes(fleet.blank_schedule(fleet.owner_or_own(fleet.owner_of_spec(v_spec))), v_spec, true) as r
      cross join lateral unnest(r.problems) as q;
    exception
      when sqlstate 'PT404' or sqlstate 'PT409' or sqlstate 'PT422' then
        -- What cannot even be read has no field: its owner, its rule, its size.
        get stacked diagnostics v_hint = pg_exception_hint;
        return next (v_item, regexp_replace(sqlerrm, '^the schedule is not valid: ', ''), v_hint)::fleet.problem;
    end;
  end loop;
end;
$$;

comment on function fleet.problems_of_specs(jsonb[]) is
  'Everything that is wrong with each of these specifications: its place in the list, from 0, and the field.';
revoke all on function fleet.problems_of_specs(jsonb[]) from public, anon, authenticated, service_role;

create or replace function fleet.create_schedules(p_specs jsonb[])
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_spec jsonb;
  v_owner uuid;
  v_checked uuid;
  v_row public.schedules;
  v_rows public.schedules[] := '{}';
begin
  perform fleet.require_size('the schedules', 'document', to_jsonb(p_specs));
  begin
    foreach v_spec in array coalesce(p_specs, '{}') loop
      perform fleet.require_object(v_spec, 'a schedule', 'See the README, "Schedules by example".');
      v_owner := fleet.owner_or_own(fleet.owner_of_spec(v_spec));
      if v_owner is distinct from v_checked then
        perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
        v_checked := v_owner;
      end if;
      v_row := fleet.numbered_schedule(fleet.changed_schedule(fleet.blank_schedule(v_owner), v_spec));
      v_rows := array_append(v_rows, v_row);
    end loop;
    perform fleet.insert_schedules(v_rows);
  exception
    when sqlstate 'PT404' or sqlstate 'PT409' or sqlstate 'PT422' then
      -- One of them is wrong: each is looked at, and the one error names all.
      perform fleet.raise_problems('one of the schedules', 'schedule_invalid', array(select q from fleet.problems_of_specs(p_specs) as q));
      raise;
  end;

  -- Read again, in a statement of its own: what is due at once has run by now.
  return (
    select coalesce(jsonb_agg(fleet.creation_answer(r.id, s.item) order by r.ordinality), '[]')
    from unnest(v_rows) with ordinality as r
    join unnest(p_specs) with ordinality as s(item, nr) on s.nr = r.ordinality
  );
end;
$$;

comment on function fleet.create_schedules(jsonb[]) is
  'See public.create_schedules. Definer: it checks the caller first, then sees what the checks need to see.';
revoke all on function fleet.create_schedules(jsonb[]) from public, anon, authenticated, service_role;
grant execute on function fleet.create_schedules(jsonb[]) to authenticated, service_role;

create or replace function public.create_schedules(p_specs jsonb[])
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.create_schedules(p_specs)
$$;

comment on function public.create_schedules(jsonb[]) is
  'Create many schedules at once, each of the JSON that create_schedule takes: all of them, or none. What they follow or name is there already. '
  'Answers a list of the rows, in the same order, each with "warnings". Raises schedule_invalid (PT422, or PT404) naming every wrong field of '
  'each by its place in the list, like schedules[3].timezone.';
revoke all on function public.create_schedules(jsonb[]) from public, anon, authenticated, service_role;
grant execute on function public.create_schedules(jsonb[]) to authenticated, service_role;

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
  for no key update;
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
  'End a schedule for good; commands that no device has started are cancelled. What was to install or remove a profile once, and has not '
  'begun, is gone with it. Raises schedule_not_found (PT404).';
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
  -- What the ledger knows already does not run again.
  with booking as materialized (
    select b.* from unnest(p_runs) with ordinality as b
  ),
  booked as (
    insert into public.schedule_runs (
      schedule_id, owner_id, scheduled_for, trigger, status, reason, error_message, action_type, payload, priority,
      missed_from, missed_to, missed_count, not_before, expires_at, zones, dst_rule, after_run_id, idempotency_key,
      scheduled_local, fold, missed_to_local, started_at, finished_at, expanded_at
    )
    select s.id, s.owner_id, b.scheduled_for, b.trigger, b.status, b.reason, b.error_message, s.action_type, s.payload, s.priority,
      b.missed_from, b.missed_to, b.missed_count, b.not_before, b.expires_at, b.zones, b.dst_rule, b.after_run_id, b.idempotency_key,
      b.scheduled_local, coalesce(b.fold, 0), b.missed_to_local,
      case when b.status <> 'skipped' then p_now end,
      case when b.status <> 'pending' then p_now end,
      case when b.zone_rows is not null and b.status <> 'pending' then p_now end
    from booking as b
    join public.schedules as s on s.id = b.schedule_id
    order by b.ordinality
    on conflict do nothing
    returning id, schedule_id, status, scheduled_local, fold
  ),
  zoned as (
    insert into fleet.run_zones (run_id, due_at, starts_at, expires_at, zones, status, reason, dst_rule, expanded_at)
    select r.id, z.due_at, z.starts_at, z.expires_at, z.zones, case when z.refusal is null then 'waiting' else 'skipped' end, z.refusal,
      z.rule, case when z.refusal is not null then p_now end
    from booked as r
    join booking as b on b.schedule_id = r.schedule_id and b.scheduled_local = r.scheduled_local and b.fold = r.fold
    cross join lateral jsonb_to_recordset(b.zone_rows) as z(
      due_at timestamptz, starts_at timestamptz, expires_at timestamptz, zones text[], refusal text, rule text
    )
    where b.zone_rows is not null
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
      where (b.status = 'failed' or b.reason = 'max_runs reached' or b.zone_rows is not null)
        and (b.next_run_at is not null or b.trigger <> 'schedule')
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
  if fleet.runs_left(p_schedule) is null then
    return case
      when p_schedule.next_run_at is null and p_schedule.after_schedule_id is null then 'no due instant is left'
    end;
  end if;
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
            -- In device time a day passes until that is known: nothing more is booked, and what is given back opens it again.
            and r.scheduled_local is null
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

create or replace function fleet.unmoved(p_run fleet.run_booking)
returns fleet.run_booking
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  p_run.next_run_at := null;
  return p_run;
end;
$$;

comment on function fleet.unmoved(fleet.run_booking) is
  'The same booking without a word about when its schedule is due next: whoever writes the schedule at this moment says that.';
revoke all on function fleet.unmoved(fleet.run_booking) from public, anon, authenticated, service_role;

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
  elsif p_schedule.timezone = 'device' then
    perform fleet.book_runs(array_agg(row(d.*)::fleet.run_booking), p_now)
    from (
      select (fleet.unmoved(b)).* from fleet.decide_occurrences(p_schedule, p_now, p_reason) as b where b.status = 'skipped'
    ) as d;
    return;
  end if;
  v_run.schedule_id := p_schedule.id;
  v_run.scheduled_for := p_schedule.next_run_at;
  v_run.trigger := 'schedule';
  v_run.status := 'skipped';
  v_run.reason := p_reason;
  v_run.missed_from := p_schedule.next_run_at;
  v_run.missed_to := coalesce(fleet.last_occurrence(p_schedule.recurrence, p_schedule.next_run_at, v_to), p_schedule.next_run_at);
  v_run.missed_count := greatest(fleet.count_occurrences(p_schedule.recurrence, p_schedule.next_run_at, v_to), 1);
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

  -- What a tick is expanding at this moment is not waited for: its run is looked at once more when that is written.
  update public.schedule_runs as r
  set status = 'cancelled', reason = p_reason, expanded_at = now(), finished_at = now()
  where r.id in (
    select x.id
    from public.schedule_runs as x
    where x.schedule_id = p_schedule_id and x.expanded_at is null and x.status in ('pending', 'running') and x.scheduled_local is null
    for update skip locked
  );

  -- Of a run in device time the zones to come are cancelled; where it has been already it goes on.
  update fleet.run_zones as z
  set status = 'cancelled', reason = p_reason, expanded_at = now()
  where z.id in (
    select x.id
    from fleet.run_zones as x
    join public.schedule_runs as r on r.id = x.run_id
    where r.schedule_id = p_schedule_id and r.expanded_at is null and r.scheduled_local is not null and x.expanded_at is null
    for update of x, r skip locked
  );
  select fleet.close_runs(
    array(
      select r.id
      from public.schedule_runs as r
      where r.schedule_id = p_schedule_id and r.expanded_at is null and r.scheduled_local is not null
      for update skip locked
    ),
    now(),
    -- Nothing more comes of its bound, and whoever cancels it is about to write its row.
    false
  );

  insert into fleet.run_progress (run_id, completed, failed)
  select r.id, 0, 0
  from public.schedule_runs as r
  where r.schedule_id = p_schedule_id and r.expanded_at is null and r.status in ('pending', 'running')
$$;

comment on function fleet.cancel_runs_of(bigint, text) is
  'Cancel what no device has started yet; what is running may end by itself. It waits for no tick: what one holds is cancelled by the next.';
revoke all on function fleet.cancel_runs_of(bigint, text) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/92_run_zones.sql
-- The zones of a run in device time: which are to come, and the end of the run when the last has passed.

create or replace function fleet.close_runs(p_run_ids bigint[], p_now timestamptz, p_gives_back boolean default true)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_idle bigint[];
begin
  with closed as (
    update public.schedule_runs as r
    set expanded_at = p_now,
        status = case when r.targeted > 0 then 'running' when e.is_cancelled then 'cancelled' else 'skipped' end,
        reason = case when r.targeted = 0 then coalesce(e.reason, 'no targets') end,
        finished_at = case when r.targeted = 0 then p_now end
    from (
      select z.run_id, bool_and(z.status = 'cancelled') as is_cancelled, bool_or(z.expanded_at is null) as is_open,
        coalesce(
          mode() within group (order by z.reason) filter (where z.reason not in ('no targets', 'the schedule has not begun')),
          min(z.reason) filter (where z.reason = 'no targets'),
          min(z.reason)
        ) as reason
      from fleet.run_zones as z
      where z.run_id = any (p_run_ids)
      group by z.run_id
    ) as e
    where r.id = e.run_id
      and not e.is_open
      and r.scheduled_local is not null
      and r.expanded_at is null
      and r.status in ('pending', 'running')
    returning r.id, r.status, r.targeted
  ),
  told as (
    -- All of its commands may be final already: have the tick look at it once more.
    insert into fleet.run_progress (run_id, completed, failed)
    select c.id, 0, 0 from closed as c where c.targeted > 0
  )
  select array_agg(c.id) into v_idle from closed as c where c.targeted = 0;

  if p_gives_back and v_idle is not null then
    perform fleet.count_idle_runs(v_idle);
    perform fleet.reopen_used_up(array(select r.schedule_id from public.schedule_runs as r where r.id = any (v_idle)), p_now);
  end if;
end;
$$;

comment on function fleet.close_runs(bigint[], timestamptz, boolean) is
  'End those of these runs in device time of which no zone is to come: skipped, with the reason, where it has reached nobody; then it does '
  'not count for max_runs. The caller holds the rows of the schedules.';
revoke all on function fleet.close_runs(bigint[], timestamptz, boolean) from public, anon, authenticated, service_role;

create or replace function fleet.reopen_used_up(p_schedule_ids bigint[], p_now timestamptz)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  update public.schedules as s
  set status = 'active', status_reason = null, next_run_at = n.due_at
  from (
    select x.id, fleet.next_due(x.recurrence, fleet.schedule_zones(x), p_now) as due_at
    from public.schedules as x
    where x.id = any (p_schedule_ids)
      and x.timezone = 'device'
      and x.status = 'completed'
      and x.status_reason = 'max_runs reached'
      and x.after_schedule_id is null
      and fleet.runs_left(x) > 0
  ) as n
  where s.id = n.id and n.due_at is not null
$$;

comment on function fleet.reopen_used_up(bigint[], timestamptz) is
  'Let those of these schedules by device time go on that had run as often as they may, until a run turned out to reach nobody: with the '
  'first occurrence that lies ahead on every wall.';
revoke all on function fleet.reopen_used_up(bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.reopen_runs(p_run_ids bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  with reopened as (
    update public.schedule_runs as r
    set expanded_at = null, finished_at = null, reason = null, started_at = coalesce(r.started_at, r.created_at),
        status = case when r.targeted > 0 then 'running' else 'pending' end
    from public.schedule_runs as o
    where r.id = any (p_run_ids) and r.expanded_at is not null and r.status <> 'cancelled' and o.id = r.id
    returning r.id, r.schedule_id, o.status = 'skipped' as was_idle
  )
  update public.schedules as s
  set idle_count = greatest(s.idle_count - g.n, 0)
  from (select o.schedule_id, count(*) as n from reopened as o where o.was_idle group by o.schedule_id) as g
  where s.id = g.schedule_id
$$;

comment on function fleet.reopen_runs(bigint[]) is 'Let runs in device time that were whole go on, for a zone that has come since.';
revoke all on function fleet.reopen_runs(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.plan_zones(p_schedule public.schedules, p_run_ids bigint[], p_zones text[], p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- Compiling the plan would take a hundred times as long as running it.
set jit = off
as $$
declare
  v_run public.schedule_runs;
  v_is_due boolean;
  v_waiting text[];
  v_fresh text[];
  v_reopened bigint[] := '{}';
begin
  for v_run in
    select r.* from public.schedule_runs as r where r.id = any (p_run_ids) and r.scheduled_local is not null and r.missed_to_local is null
  loop
    v_is_due := p_schedule.timezone = 'device' and fleet.next_occurrence(
      p_schedule.recurrence -> 'wall', v_run.scheduled_local at time zone 'UTC' - interval '1 microsecond'
    ) = v_run.scheduled_local at time zone 'UTC';
    -- Where it has begun, or was settled, it stays as it is.
    v_waiting := array(
      select u.zone
      from fleet.run_zones as z
      cross join lateral unnest(z.zones) as u(zone)
      where z.run_id = v_run.id and z.status = 'waiting' and z.device_ids is null and u.zone = any (p_zones)
    );
    v_fresh := array(
      select u.zone
      from unnest(p_zones) as u(zone)
      where not exists (
        select 1 from fleet.run_zones as z where z.run_id = v_run.id and z.device_ids is null and u.zone = any (z.zones)
      )
    );
    update fleet.run_zones as z
    set zones = array(select u.zone from unnest(z.zones) as u(zone) where u.zone <> all (p_zones))
    where z.run_id = v_run.id and z.status = 'waiting' and z.device_ids is null and z.zones && p_zones;
    delete from fleet.run_zones as z where z.run_id = v_run.id and z.zones = '{}';

    if v_is_due then
      insert into fleet.run_zones (run_id, due_at, starts_at, expires_at, zones, status, reason, dst_rule, expanded_at)
      select v_run.id, j.due_at, j.due_at, max(j.expires_at), array_agg(j.zone order by j.zone),
        case when j.refusal is null then 'waiting' else 'skipped' end, j.refusal, min(j.rule), case when j.refusal is not null then p_now end
      from (
        select z.zone, z.due_at, z.expires_at, z.rule, case when z.is_missed then null else z.refusal end as refusal
        from fleet.judged_zones(p_schedule, v_waiting || v_fresh, v_run.scheduled_local, v_run.fold, p_now, null) as z
      ) as j
      where (j.due_at > p_now or j.zone = any (v_waiting)) and j.refusal is distinct from 'the schedule has not begun'
      group by j.due_at, j.refusal;
      if found and v_run.expanded_at is not null then
        v_reopened := v_reopened || v_run.id;
      end if;
    elsif v_waiting <> '{}' then
      insert into fleet.run_zones (run_id, due_at, starts_at, zones, status, reason, expanded_at)
      values (v_run.id, v_run.scheduled_for, v_run.scheduled_for, v_waiting, 'skipped', 'rescheduled', p_now);
    end if;
  end loop;

  perform fleet.reopen_runs(v_reopened);
  perform fleet.close_runs(p_run_ids, p_now);
end;
$$;

comment on function fleet.plan_zones(public.schedules, bigint[], text[], timestamptz) is
  'Plan these zones of runs anew where they have not begun: a zone that is new, times that were changed, clocks that follow other rules. '
  'What the schedule has no more is skipped (rescheduled).';
revoke all on function fleet.plan_zones(public.schedules, bigint[], text[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.plan_open_runs(p_schedule public.schedules, p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_runs bigint[] := array(
    select r.id
    from public.schedule_runs as r
    where r.schedule_id = p_schedule.id
      and r.scheduled_local is not null
      and r.status in ('pending', 'running')
      and r.expanded_at is null
  );
begin
  if v_runs <> '{}' then
    perform fleet.plan_zones(p_schedule, v_runs, array(
      select u.zone from unnest(fleet.schedule_zones(p_schedule)) as u(zone)
      union
      select u.zone
      from fleet.run_zones as z
      cross join lateral unnest(z.zones) as u(zone)
      where z.run_id = any (v_runs) and z.status = 'waiting'
    ), p_now);
  end if;
end;
$$;

comment on function fleet.plan_open_runs(public.schedules, timestamptz) is
  'Plan all that is to come of the runs of a schedule that are under way.';
revoke all on function fleet.plan_open_runs(public.schedules, timestamptz) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/93_movers.sql
-- Devices that come into a time zone: a zone that is new to its owner's schedules, and devices whose walls jump over a due time.

create or replace function fleet.engine_time()
returns timestamptz
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select greatest(clock_timestamp(), (select max(h.last_tick_at) from fleet.heartbeat as h))
$$;

comment on function fleet.engine_time() is
  'The time by which the engine goes: the clock, or the last tick where that was given a later one.';
revoke all on function fleet.engine_time() from public, anon, authenticated, service_role;

create or replace function fleet.zones_came(p_schedule public.schedules, p_zones text[], p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_zones text[] := fleet.zones_of_server(p_zones);
  v_runs bigint[];
begin
  if v_zones = '{}' then
    return;
  end if;
  -- What may still be ahead on the last wall of the earth, and does not know them all.
  select array_agg(r.id) into v_runs
  from public.schedule_runs as r
  where r.schedule_id = p_schedule.id
    and r.scheduled_local > (p_now - interval '13 hours') at time zone 'UTC'
    and r.missed_to_local is null
    and r.status <> 'cancelled'
    and exists (
      select 1
      from unnest(v_zones) as u(zone)
      where not exists (select 1 from fleet.run_zones as z where z.run_id = r.id and u.zone = any (z.zones))
    );
  if v_runs is not null then
    perform fleet.plan_zones(p_schedule, v_runs, array(
      select u.zone
      from unnest(v_zones) as u(zone)
    ), p_now);
  end if;

  if p_schedule.status = 'active' and p_schedule.next_run_at is not null then
    update public.schedules as s
    set next_run_at = n.due_at
    from (
      select min(w.due_at) as due_at
      from unnest(v_zones) as u(zone)
      cross join lateral fleet.next_on_walls(p_schedule.recurrence, array[u.zone], p_now, true) as w
    ) as n
    where s.id = p_schedule.id and n.due_at < s.next_run_at;
  end if;
end;
$$;

comment on function fleet.zones_came(public.schedules, text[], timestamptz) is
  'Tell a schedule by device time of zones that have devices now: runs under way come there too where that lies ahead, and it may be due '
  'earlier than it knew.';
revoke all on function fleet.zones_came(public.schedules, text[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.devices_moved(
  p_schedule public.schedules,
  p_old_zone text,
  p_new_zone text,
  p_device_ids bigint[],
  p_now timestamptz
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_policies jsonb := fleet.effective_policies(p_schedule.policies);
  v_run record;
begin
  -- The latest first: of what the walls jumped over only that is made up for.
  for v_run in
    select r.id, r.expires_at, o.status as old_status, n.status as new_status, i.due_at, i.expires_at as expiry
    from public.schedule_runs as r
    cross join lateral (
      select z.status
      from fleet.run_zones as z
      where z.run_id = r.id and p_old_zone = any (z.zones) and z.device_ids is null
      order by z.expanded_at is null desc
      limit 1
    ) as o
    left join lateral (
      select z.status from fleet.run_zones as z where z.run_id = r.id and p_new_zone = any (z.zones) and z.device_ids is null limit 1
    ) as n on true
    cross join lateral fleet.judged_zones(p_schedule, array[p_new_zone], r.scheduled_local, r.fold, p_now, null) as i
    where r.schedule_id = p_schedule.id
      and r.scheduled_local > (p_now - interval '37 hours') at time zone 'UTC'
      and r.scheduled_local < (p_now + interval '39 hours') at time zone 'UTC'
    order by r.scheduled_local desc, r.fold desc
  loop
    if v_run.old_status <> 'waiting' and v_run.due_at > p_now then
      insert into fleet.judged_movers (run_id, device_id)
      select v_run.id, u.id from unnest(p_device_ids) as u(id)
      on conflict do nothing;
    elsif v_run.old_status = 'waiting' and v_run.due_at <= p_now then
      if fleet.late_refusal(p_schedule.recurrence, v_policies, p_new_zone, v_run.due_at, p_now) is null then
        insert into fleet.run_zones (run_id, due_at, starts_at, expires_at, zones, device_ids)
        values (v_run.id, v_run.due_at, greatest(p_now, v_run.due_at), v_run.expiry, array[p_new_zone], p_device_ids);
      end if;
      exit;
    end if;
  end loop;
end;
$$;

comment on function fleet.devices_moved(public.schedules, text, text, bigint[], timestamptz) is
  'What devices that went from one zone to another are owed by a schedule by device time: what lay ahead in the old zone and has passed in '
  'the new one is served late, the latest of it; what has looked at them already does not do so again.';
revoke all on function fleet.devices_moved(public.schedules, text, text, bigint[], timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.follow_zones(
  p_owner_ids uuid[],
  p_device_ids bigint[],
  p_old_zones text[],
  p_new_zones text[]
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz;
  v_schedule public.schedules;
  v_unknown text;
  v_zones text[];
  v_move record;
begin
  for v_schedule in
    select s.*
    from public.schedules as s
    where s.owner_id in (select distinct u.id from unnest(p_owner_ids) as u(id))
      and s.timezone = 'device'
      and s.status <> 'cancelled'
      and s.after_schedule_id is null
    order by s.id
  loop
    v_now := coalesce(v_now, fleet.engine_time());
    v_unknown := fleet.unknown_zone(v_schedule.recurrence);
    for v_move in
      select m.old_zone, array_agg(m.device_id) as device_ids, m.new_zone
      from (
        select u.device_id, coalesce(nullif(u.new_zone, ''), v_unknown) as new_zone,
          case when u.old_zone is not null then coalesce(nullif(u.old_zone, ''), v_unknown) end as old_zone
        from unnest(p_owner_ids, p_device_ids, p_old_zones, p_new_zones) as u(owner_id, device_id, old_zone, new_zone)
        where u.owner_id = v_schedule.owner_id
          and (v_schedule.group_ids <> '{}' or v_schedule.selector is not null or u.device_id = any (v_schedule.device_ids))
      ) as m
      where m.new_zone is not null and m.new_zone is distinct from m.old_zone
      group by m.old_zone, m.new_zone
    loop
      if v_zones is null or v_move.new_zone <> all (v_zones) then
        v_zones := v_zones || v_move.new_zone;
      end if;
      if v_move.old_zone is not null and fleet.zones_of_server(array[v_move.new_zone]) <> '{}' then
        perform fleet.devices_moved(v_schedule, v_move.old_zone, v_move.new_zone, v_move.device_ids, v_now);
      end if;
    end loop;
    if v_zones is not null then
      perform fleet.zones_came(v_schedule, v_zones, v_now);
      v_zones := null;
    end if;
  end loop;
end;
$$;

comment on function fleet.follow_zones(uuid[], bigint[], text[], text[]) is
  'Tell schedules by device time of devices that came into a zone, from another one or, with null, from nowhere; an empty name is no zone.';
revoke all on function fleet.follow_zones(uuid[], bigint[], text[], text[]) from public, anon, authenticated, service_role;

-- db/sources/30_schedules/94_adopt.sql
-- Schedules by device time of a database in which each distinct instant was a run of its own.

create or replace function fleet.adopt_walls()
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_schedule public.schedules;
  v_problem fleet.problem;
  v_count bigint := 0;
begin
  for v_schedule in
    select s.*
    from public.schedules as s
    where s.timezone = 'device' and s.recurrence ->> 'kind' is distinct from 'walls'
    order by s.id
    for update
  loop
    v_count := v_count + 1;
    v_schedule.recurrence := fleet.compiled(v_schedule);
    update public.schedules as s set recurrence = v_schedule.recurrence where s.id = v_schedule.id;
    continue when v_schedule.status <> 'active' or v_schedule.next_run_at is null;

    select q.* into v_problem from fleet.density_problem(v_schedule) as q;
    if found then
      -- Nobody could make it today: a run for each minute would be open for a day, and would hold up all others.
      update public.schedules as s
      set status = 'paused', status_reason = concat_ws('. ', v_problem.problem, v_problem.hint)
      where s.id = v_schedule.id;
      continue;
    end if;

    -- A day that was under way: what lies before the next instant was due and told then, what comes after goes on.
    perform fleet.book_runs(array_agg(row(
      v_schedule.id, o.due_at, 'schedule', 'pending', null, null, null, null, null, null, o.last_at + interval '24 hours', null, null,
      null, null, null, o.local, o.fold, null, (
        select jsonb_agg(jsonb_build_object(
          'due_at', g.due_at, 'starts_at', g.due_at, 'expires_at', g.expires_at, 'zones', g.zones, 'rule', g.rule,
          'refusal', case when g.due_at < v_schedule.next_run_at then 'it ran before the upgrade' else g.refusal end
        ))
        from (
          select z.due_at, min(z.expires_at) as expires_at, array_agg(z.zone order by z.zone) as zones, min(z.rule) as rule, z.refusal
          from fleet.judged_zones(
            v_schedule, fleet.schedule_zones(v_schedule), o.local, o.fold, v_schedule.next_run_at - interval '1 microsecond', null
          ) as z
          group by z.due_at, z.refusal
        ) as g
      )
    )::fleet.run_booking), now())
    from fleet.local_occurrences(
      v_schedule.recurrence, fleet.schedule_zones(v_schedule), v_schedule.next_run_at - interval '27 hours', v_schedule.next_run_at
    ) as o
    where o.last_at >= v_schedule.next_run_at and o.runs;
  end loop;
  return v_count;
end;
$$;

comment on function fleet.adopt_walls() is
  'Bring schedules by device time that went by distinct instants to local occurrences; called at every migrate. Of a day that is under way '
  'the zones that have had it are left alone, the others go on. What is due too often for local occurrences is paused, with the reason. '
  'Answers how many.';
revoke all on function fleet.adopt_walls() from public, anon, authenticated, service_role;

-- db/sources/30_schedules/95_follow_zones.sql
-- Schedules by device time follow what moves their zones: devices, their own times, and where the owner is at home.

create or replace function fleet.tg_follow_zones()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owners uuid[];
  v_zones text[];
  v_changes bigint[];
  v_came record;
begin
  if tg_op = 'UPDATE' then
    perform set_config('pgfleet.zones_move', '', true);
    select array_agg(u.owner_id), array_agg(u.zone), array_agg(u.n) into v_owners, v_zones, v_changes
    from (
      select x.owner_id, x.zone, sum(x.n) as n
      from (
        select n.owner_id, coalesce(n.timezone, '') as zone, 1 as n
        from new_rows as n
        join old_rows as o on o.id = n.id
        where n.status = 'active' and (n.timezone, n.status, n.owner_id) is distinct from (o.timezone, o.status, o.owner_id)
        union all
        select o.owner_id, coalesce(o.timezone, ''), -1
        from new_rows as n
        join old_rows as o on o.id = n.id
        where o.status = 'active' and (n.timezone, n.status, n.owner_id) is distinct from (o.timezone, o.status, o.owner_id)
      ) as x
      group by 1, 2
    ) as u;
  elsif tg_op = 'INSERT' then
    select array_agg(u.owner_id), array_agg(u.zone), array_agg(u.n) into v_owners, v_zones, v_changes
    from (
      select n.owner_id, coalesce(n.timezone, '') as zone, count(*) as n from new_rows as n where n.status = 'active' group by 1, 2
    ) as u;
  else
    select array_agg(u.owner_id), array_agg(u.zone), array_agg(u.n) into v_owners, v_zones, v_changes
    from (
      select o.owner_id, coalesce(o.timezone, '') as zone, -count(*) as n from old_rows as o where o.status = 'active' group by 1, 2
    ) as u;
  end if;
  if v_owners is null then
    return null;
  end if;
  perform fleet.count_zones(v_owners, v_zones, v_changes);

  if tg_op = 'UPDATE' then
    select array_agg(n.owner_id) as owners, array_agg(n.id) as ids, array_agg(coalesce(n.timezone, '')) as zones,
      array_agg(case when o.status = 'active' then coalesce(o.timezone, '') end) as old_zones
    into v_came
    from new_rows as n
    join old_rows as o on o.id = n.id
    where n.status = 'active' and (n.timezone, n.status) is distinct from (o.timezone, o.status);
  elsif tg_op = 'INSERT' then
    -- Of each zone one is enough: nobody was anywhere before.
    select array_agg(u.owner_id) as owners, array_agg(u.id) as ids, array_agg(u.zone) as zones, array_agg(null::text) as old_zones
    into v_came
    from (
      select n.owner_id, min(n.id) as id, coalesce(n.timezone, '') as zone from new_rows as n where n.status = 'active' group by 1, 3
    ) as u;
  else
    return null;
  end if;
  if v_came.owners is not null then
    perform fleet.follow_zones(v_came.owners, v_came.ids, v_came.old_zones, v_came.zones);
  end if;
  return null;
end;
$$;

comment on function fleet.tg_follow_zones() is
  'Count the devices of each zone, and tell schedules by device time of those that came into one. Definer: who adds a device may not change '
  'schedules.';
revoke all on function fleet.tg_follow_zones() from public, anon, authenticated, service_role;

create or replace function fleet.tg_note_zones()
returns trigger
language plpgsql
-- Without settings, as it asks for nothing but this one.
as $$
begin
  perform pg_catalog.set_config('pgfleet.zones_move', 'yes', true);
  return new;
end;
$$;

comment on function fleet.tg_note_zones() is
  'Say that a statement moves devices between zones, for fleet.tg_follow_zones, which is not called for the many that do not.';
revoke all on function fleet.tg_note_zones() from public, anon, authenticated, service_role;

-- Being seen is no news: devices say so all the time. The first that moves is enough.
create or replace trigger devices_04_note_zones
  before update of timezone, status, owner_id on public.devices
  for each row when (
    (new.timezone, new.status, new.owner_id) is distinct from (old.timezone, old.status, old.owner_id)
    and (current_setting('pgfleet.zones_move', true) = 'yes') is not true
  )
  execute function fleet.tg_note_zones();
create or replace trigger devices_05_follow_zones_insert
  after insert on public.devices
  referencing new table as new_rows
  for each statement execute function fleet.tg_follow_zones();
create or replace trigger devices_05_follow_zones_update
  after update on public.devices
  referencing old table as old_rows new table as new_rows
  for each statement when (current_setting('pgfleet.zones_move', true) = 'yes')
  execute function fleet.tg_follow_zones();
create or replace trigger devices_05_follow_zones_delete
  after delete on public.devices
  referencing old table as old_rows
  for each statement execute function fleet.tg_follow_zones();

create or replace function fleet.tg_follow_walls()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := fleet.engine_time();
begin
  if new.recurrence is distinct from old.recurrence then
    perform fleet.plan_open_runs(new, v_now);
  elsif new.status = old.status then
    perform fleet.zones_came(new, fleet.schedule_zones(new), v_now);
  elsif old.next_run_at <= v_now then
    -- What passed during a pause is told in one row; where it is yet to come the rest of the day goes on.
    perform fleet.book_runs(array_agg(b), v_now)
    from fleet.decide_occurrences(old, v_now, 'paused') as b;
  end if;
  return null;
end;
$$;

comment on function fleet.tg_follow_walls() is
  'Bring the zones to come of runs in device time into line with changed times, and book what a pause has begun to pass. Definer: it writes '
  'the ledger.';
revoke all on function fleet.tg_follow_walls() from public, anon, authenticated, service_role;

create or replace trigger schedules_04_follow_walls
  after update on public.schedules
  for each row
  when (
    old.timezone = 'device'
    and (
      new.recurrence is distinct from old.recurrence
      or (new.device_ids, new.group_ids, new.selector) is distinct from (old.device_ids, old.group_ids, old.selector)
      or (old.status = 'paused' and new.status in ('active', 'completed'))
    )
  )
  execute function fleet.tg_follow_walls();

create or replace function fleet.tg_follow_home()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  update public.schedules as s
  set recurrence = c.recurrence, next_run_at = fleet.first_due(c.s, fleet.engine_time())
  from (
    select x.id, fleet.compiled(x) as recurrence, fleet.with_recurrence(x, fleet.compiled(x)) as s
    from public.schedules as x
    where x.owner_id = new.id and x.timezone = 'device' and x.status in ('active', 'paused') and x.after_schedule_id is null
  ) as c
  where s.id = c.id and s.recurrence is distinct from c.recurrence;
  return null;
end;
$$;

comment on function fleet.tg_follow_home() is
  'Schedules by device time follow the zone of their owner. Definer: who changes an owner need not be the one who may change schedules.';
revoke all on function fleet.tg_follow_home() from public, anon, authenticated, service_role;

create or replace trigger owners_05_follow_home
  after update of timezone on public.owners
  for each row when (new.timezone <> old.timezone) execute function fleet.tg_follow_home();

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
  s.start_is_local,
  s.end_is_local,
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
  c.created_at,
  c.url,
  c.url_timezone,
  c.skip_transparent,
  c.looked_at,
  c.look_error,
  c.look_note,
  c.changed_at,
  c.look_next_at
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
  v_row.owner_id := fleet.owner_or_own(
    coalesce(v_row.owner_id, fleet.owner_of_named(v_row.device_ids || v_row.device_id, v_row.group_ids))
  );
  perform fleet.require_permission(v_row.owner_id, 'manage', format('owner %s', v_row.owner_id));
  perform fleet.require_destructive(v_row.owner_id, v_row.action_type);
  if tg_op = 'UPDATE' then
    perform fleet.require_destructive(old.owner_id, old.action_type);
    perform fleet.require_destructive_chain(old.owner_id, old.id);
  end if;
  if v_row.after_schedule_id is distinct from v_old.after_schedule_id then
    -- Two sessions that each let one schedule follow the other would not see the circle they make.
    perform pg_advisory_xact_lock(hashtext('pgfleet.chains'), hashtext(v_row.owner_id::text));
  end if;

  v_row := fleet.prepared_schedule(v_old, v_row, v_now);
  perform fleet.require_destructive(v_row.owner_id, v_row.policies #>> '{rollout,compensate,action_type}');
  if tg_op = 'INSERT' then
    -- Nothing was due yet.
    null;
  elsif v_old.status <> 'cancelled' and fleet.timing_changed(v_old, v_row) then
    perform fleet.skip_due(v_old, v_now, case v_old.status when 'paused' then 'paused' else 'the times were changed' end);
  elsif v_old.status = 'active' and v_row.status = 'completed' then
    perform fleet.skip_due(v_old, v_now, v_row.status_reason);
  end if;
  v_row.payload := fleet.sealed(v_row.owner_id, v_row.payload);
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
  v_now timestamptz := case when old.timezone = 'device' then fleet.engine_time() else clock_timestamp() end;
begin
  perform fleet.require_permission(old.owner_id, 'manage', format('schedule %s', old.id));
  if new.status = 'active' then
    perform fleet.require_destructive(old.owner_id, old.action_type);
    perform fleet.require_destructive_chain(old.owner_id, old.id);
  end if;
  if old.status = 'cancelled' then
    raise exception 'schedule % was cancelled', old.id
      using errcode = 'PT409', detail = 'schedule_cancelled', hint = 'Create it anew.';
  end if;

  -- What was due while it was paused is told in one row, and not made up for.
  if new.next_run_at <= v_now and new.status in ('active', 'cancelled') and new.recurrence = old.recurrence then
    if new.timezone <> 'device' or new.status = 'cancelled' then
      perform fleet.skip_due(old, v_now, case old.status when 'active' then new.status else old.status end);
    end if;
    new.next_run_at := fleet.next_due(old.recurrence, fleet.schedule_zones(old), v_now);
  end if;

  if new.status = 'active' then
    new.status_reason := null;
    if new.timezone = 'device' and new.after_schedule_id is null and old.status = 'paused' then
      -- Its devices may have gone to other zones meanwhile.
      new.next_run_at := least(new.next_run_at, fleet.next_due(new.recurrence, fleet.schedule_zones(new), v_now));
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
  -- An owner goes with all that it has.
  if not exists (select 1 from public.owners as o where o.id = old.owner_id) then
    return old;
  end if;

  select string_agg(format('"%s"', s.name), ', ' order by s.name) into v_names
  from public.schedules as s
  where s.owner_id = old.owner_id
    and s.status in ('active', 'paused')
    and old.id = any (fleet.blackout_ids(s.policies));
  if v_names is not null and not fleet.is_owner_gone(old.owner_id) then
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

create or replace function fleet.tg_keep_used_group()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_names text;
begin
  -- An owner goes with all that it has.
  if not exists (select 1 from public.owners as o where o.id = old.owner_id) then
    return old;
  end if;

  select string_agg(format('"%s"', s.name), ', ' order by s.name) into v_names
  from (
    select s.name
    from public.schedules as s
    where s.owner_id = old.owner_id and s.status = 'active' and s.group_ids @> array[old.id]
    order by s.name
    limit 20
  ) as s;
  if v_names is not null then
    raise exception 'group "%" is used by %', old.name, v_names
      using errcode = 'PT409', detail = 'group_in_use',
            hint = format('Let these schedules name others first, or pause them with it: select delete_group(%s, true)', old.id);
  end if;
  return old;
end;
$$;

comment on function fleet.tg_keep_used_group() is
  'Keep a group that active schedules name: without it they would reach nobody, and nobody would know. Definer: it looks at all schedules '
  'of the owner.';
revoke all on function fleet.tg_keep_used_group() from public, anon, authenticated, service_role;

create or replace trigger device_groups_06_keep_used
  before delete on public.device_groups
  for each row execute function fleet.tg_keep_used_group();

create or replace function fleet.tg_guard_destructive_groups()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_table_name = 'device_groups' then
    if new.selector ? 'reported' and exists (
      select 1 from fleet.destructive_schedules(new.owner_id) as s where s.group_ids && array[new.id]
    ) then
      raise exception 'group "%" is wiped by a schedule: what devices report may not decide who is in it', new.name
        using errcode = 'PT422', detail = 'selector_invalid', hint = 'Use tags, platform or attributes.';
    end if;
    perform fleet.require_destructive_groups(new.owner_id, array[new.id]);
  elsif tg_table_name = 'enrollment_codes' then
    perform fleet.require_destructive_groups(new.owner_id, new.group_ids, new.tags);
  else
    perform fleet.require_destructive_groups(new.owner_id, array[new.group_id]);
  end if;
  return new;
end;
$$;

comment on function fleet.tg_guard_destructive_groups() is
  'Who puts devices where something destructive will find them needs the permission for that. Raises permission_missing (PT403). Definer: it '
  'looks at schedules that the caller may not see.';
revoke all on function fleet.tg_guard_destructive_groups() from public, anon, authenticated, service_role;

create or replace trigger device_group_members_02_guard_destructive
  before insert on public.device_group_members
  for each row when (current_setting('request.jwt.claims', true) <> '') execute function fleet.tg_guard_destructive_groups();
create or replace trigger device_groups_04_guard_destructive
  before update of selector on public.device_groups
  for each row when (new.selector is distinct from old.selector) execute function fleet.tg_guard_destructive_groups();
create or replace trigger enrollment_codes_02_guard_destructive
  before insert on public.enrollment_codes
  for each row when (new.device_id is null) execute function fleet.tg_guard_destructive_groups();

create or replace function fleet.tg_guard_destructive_selectors()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Only what a person changes: other systems and the engine are trusted with what they say.
  if fleet.current_user_id() is null then
    return new;
  end if;
  if exists (
    select 1
    from fleet.destructive_schedules(new.owner_id) as s
    where s.selector is not null
      and fleet.device_matches(s.selector, new.tags, new.platform, new.attributes, new.reported)
      and not (
        tg_op = 'UPDATE' and fleet.device_matches(s.selector, old.tags, old.platform, old.attributes, old.reported)
      )
  ) then
    perform fleet.require_permission(new.owner_id, 'destructive', format('device %s', new.id));
  end if;
  return new;
end;
$$;

comment on function fleet.tg_guard_destructive_selectors() is
  'Who makes a device one that something destructive selects needs the permission for that. Raises permission_missing (PT403). Definer: it looks '
  'at schedules that the caller may not see.';
revoke all on function fleet.tg_guard_destructive_selectors() from public, anon, authenticated, service_role;

create or replace trigger devices_04_guard_destructive_insert
  before insert on public.devices
  for each row when (current_setting('request.jwt.claims', true) <> '') execute function fleet.tg_guard_destructive_selectors();
create or replace trigger devices_04_guard_destructive_update
  before update of tags, platform, attributes on public.devices
  for each row
  when ((new.tags, new.platform, new.attributes) is distinct from (old.tags, old.platform, old.attributes))
  execute function fleet.tg_guard_destructive_selectors();

create or replace function fleet.tg_guard_destructive_ends()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- What waits for a device ends with it and has failed its run, and something may follow that.
  perform fleet.require_destructive_chain(old.owner_id, c.schedule_id, '{failed,either}')
  from (
    select distinct x.schedule_id
    from public.device_commands as x
    where x.device_id = old.id and x.status in ('pending', 'running') and x.schedule_id is not null
  ) as c;
  if tg_op = 'DELETE' then
    return old;
  end if;
  return new;
end;
$$;

comment on function fleet.tg_guard_destructive_ends() is
  'Who retires or deletes a device fails what it still had to do; where something destructive follows that, it needs the permission. Raises '
  'permission_missing (PT403). Definer: it looks at schedules that the caller may not see.';
revoke all on function fleet.tg_guard_destructive_ends() from public, anon, authenticated, service_role;

create or replace trigger devices_01_guard_destructive_retire
  before update of status on public.devices
  for each row
  when (new.status = 'retired' and old.status <> 'retired' and current_setting('request.jwt.claims', true) <> '')
  execute function fleet.tg_guard_destructive_ends();
create or replace trigger devices_01_guard_destructive_delete
  before delete on public.devices
  for each row when (current_setting('request.jwt.claims', true) <> '') execute function fleet.tg_guard_destructive_ends();

-- Whatever changes a schedule on purpose stamps it; the engine, which moves it on, does not.
select fleet.keep_audit(
  'public.schedules', p_when => 'new.updated_at is distinct from old.updated_at or new.updated_at = now()',
  p_without => '{recurrence,next_run_at,last_executed_at,execution_count,idle_count,created_at,updated_at}'
);
-- That a calendar elsewhere was looked at is no change of this one.
select fleet.keep_audit(
  'public.blackout_calendars',
  p_columns => '{name,description,url,url_timezone,skip_transparent}',
  p_without => '{looked_at,look_error,look_note,changed_at,look_next_at,look_held_until,look_attempt,look_failures,look_tag,look_modified}'
);
select fleet.keep_audit('public.blackout_periods', p_verbs => '{insert,delete}');

select fleet.keep_quota('public.schedules', 'schedules');
select fleet.keep_used_types(
  'public.schedules', 'array[x.action_type, x.policies #>> ''{rollout,compensate,action_type}'']', 'x.status in (''active'', ''paused'')'
);
-- One that had come to its end counts again where somebody brings it back.
create or replace trigger schedules_80_keep_quota_again
  after update on public.schedules
  for each row when (old.status not in ('active', 'paused') and new.status in ('active', 'paused'))
  execute function fleet.tg_keep_quota_again('schedules');

-- db/sources/30_schedules/access.sql
-- Who sees and changes schedules, their ledger, blackout calendars and templates: members of the owner. Devices see none of it.

revoke all on table public.schedules, public.schedule_runs from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.schedules, public.schedule_runs to service_role;
revoke all on sequence public.schedules_id_seq, public.schedule_runs_id_seq, fleet.run_progress_id_seq, fleet.chain_steps_id_seq
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
