-- What a payload must hold for its command type, and which types need a permission of their own.

create or replace function fleet.payload_problems(p_command_type text, p_payload jsonb, p_field text default 'payload')
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
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
    and not (k.value -> 'choices') @> (p_payload -> k.key);
end;
$$;

comment on function fleet.payload_problems(text, jsonb, text) is
  'What a payload lacks for its command type: missing keys, wrong types, values that are no choice.';
revoke all on function fleet.payload_problems(text, jsonb, text) from public, anon, authenticated, service_role;

create or replace function fleet.require_destructive(p_owner_id uuid, p_command_type text)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (select 1 from public.command_types as t where t.name = p_command_type and t.destructive) then
    perform fleet.require_permission(p_owner_id, 'destructive', format('command type %s', p_command_type));
  end if;
end;
$$;

comment on function fleet.require_destructive(uuid, text) is
  'Raise permission_missing (PT403) where the command type is destructive and the caller may not wipe. Asked by whatever sends, '
  'schedules, runs or resumes; it must not run with fewer rights than a definer function.';
revoke all on function fleet.require_destructive(uuid, text) from public, anon, authenticated, service_role;
