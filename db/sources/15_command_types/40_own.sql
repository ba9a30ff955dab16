-- Command types of an owner's own: what may be said in them.

create or replace function fleet.payload_key_problems(p_payload_keys jsonb)
returns setof fleet.problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select 'payload_keys.' || left(k.key, 60), q.problem, q.hint
  from jsonb_each(p_payload_keys) as k
  cross join lateral (select fleet.object_or_empty(k.value) as said) as v
  cross join lateral (
    select 'must be an object' as problem, 'Example: {"url": {"type": "string", "required": true}}' as hint
    where jsonb_typeof(k.value) <> 'object'
    union all
    select format('"%s" is nothing that can be said of a key', left(o.key, 60)),
      'Use type, required, choices, example, from, to, format, ids_of, called.'
    from jsonb_object_keys(v.said) as o(key)
    where o.key not in ('type', 'required', 'choices', 'example', 'from', 'to', 'format', 'ids_of', 'called')
    union all
    select 'type is not one of string, number, boolean, object, array', 'Leave it out for any type.'
    where v.said ? 'type' and not v.said -> 'type' <@ '["string", "number", "boolean", "object", "array"]'
    union all
    select 'required must be true or false', 'Leave it out for false.'
    where jsonb_typeof(v.said -> 'required') <> 'boolean'
    union all
    select 'choices must be a list', 'Example: ["on", "off"]'
    where jsonb_typeof(v.said -> 'choices') <> 'array'
    union all
    select 'from and to must be numbers, and both be there', 'Example: {"type": "number", "from": 1, "to": 100}'
    where v.said ?| '{from,to}'
      and (jsonb_typeof(v.said -> 'from') = 'number' and jsonb_typeof(v.said -> 'to') = 'number') is not true
    union all
    select 'format is not one of path, environment', 'Leave it out for any text.'
    where v.said ? 'format' and not v.said -> 'format' <@ '["path", "environment"]'
    union all
    select 'ids_of is not one of software_packages, deployment_files', 'Name with "called" what people call one of them.'
    where v.said ? 'ids_of' and not v.said -> 'ids_of' <@ '["software_packages", "deployment_files"]'
    union all
    select 'called must be a text', 'Example: "package"'
    where jsonb_typeof(v.said -> 'called') <> 'string'
  ) as q
  limit 20;
end;
$$;

comment on function fleet.payload_key_problems(jsonb) is 'What is wrong with what a command type says of the keys of its payload.';
revoke all on function fleet.payload_key_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.command_type_problems(p_type public.command_types)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query select q.* from fleet.row_limit_problems('command_types', to_jsonb(p_type)) as q;
  if found then
    return;
  end if;
  if (p_type.name ~ '^[a-z][a-z0-9_]*(-[a-z0-9_]+)+$' and length(p_type.name) <= 63) is not true then
    return next (
      'name', format('"%s" is no name for a command type of your own', left(p_type.name, 63)),
      'Small letters, digits and underscores with a hyphen between, 63 at most, such as kiosk-reload. Names without a hyphen are those of the platform.'
    )::fleet.problem;
  elsif exists (
    select 1 from public.command_types as t where t.name = p_type.name and t.owner_id = p_type.owner_id and t.id <> p_type.id
  ) then
    return next ('name', format('"%s" is there already', p_type.name), 'Change that one, or choose another name.')::fleet.problem;
  end if;
  if (p_type.channel = 'agent') is not true then
    return next ('channel', 'must be agent', 'What an MDM carries out comes with pgfleet.')::fleet.problem;
  end if;
  if (p_type.timeout_seconds between 1 and 86400) is not true then
    return next ('timeout_seconds', 'must be from 1 to 86400', 'The default is 60.')::fleet.problem;
  end if;
  if (p_type.permission in ('can_run_commands', 'destructive')) is false then
    return next ('permission', format('"%s" is not known', left(p_type.permission, 60)), 'Use can_run_commands, destructive or none.')::fleet.problem;
  end if;
  if jsonb_typeof(p_type.payload_keys) is distinct from 'object' then
    return next (
      'payload_keys', 'must be an object', 'Example: {"url": {"type": "string", "required": true}}'
    )::fleet.problem;
  elsif (select count(*) from jsonb_object_keys(p_type.payload_keys)) > fleet.limit_value('keys') then
    return query
    select q.* from fleet.limit_problem('payload_keys', 'keys', (select count(*) from jsonb_object_keys(p_type.payload_keys))) as q;
  else
    return query select q.* from fleet.payload_key_problems(p_type.payload_keys) as q;
  end if;
end;
$$;

comment on function fleet.command_type_problems(public.command_types) is 'Everything that is wrong with a command type of an owner''s own.';
revoke all on function fleet.command_type_problems(public.command_types) from public, anon, authenticated, service_role;

create or replace function fleet.keep_used_types(p_table regclass, p_types text, p_condition text default 'true')
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_name text := 'command_types_02_used_by_' || (select c.relname from pg_class as c where c.oid = p_table);
begin
  -- Whoever may wipe decides that a type wipes; what was checked as one that does not must not become one.
  execute format(
    'create or replace trigger %I before delete or update of destructive, permission on public.command_types'
    ' for each row when (old.owner_id is not null) execute function fleet.tg_keep_used_type(%L, %L, %L)',
    v_name, p_table, p_types, p_condition
  );
end;
$$;

comment on function fleet.keep_used_types(regclass, text, text) is
  'Keep an owner''s own command types for as long as rows of a table name them; p_types is a list of names and p_condition a condition, in SQL on x.';
revoke all on function fleet.keep_used_types(regclass, text, text) from public, anon, authenticated, service_role;
