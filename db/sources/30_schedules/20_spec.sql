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
