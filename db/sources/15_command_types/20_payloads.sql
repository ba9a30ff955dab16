-- What a payload must hold for its command type, and which types need a permission of their own.

create or replace function fleet.environment_problems(p_field text, p_environment jsonb)
returns setof fleet.problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select format('%s.%s', p_field, left(e.key, 60)),
    case when jsonb_typeof(e.value) = 'string' then 'is no name of a variable' else 'must be a text' end,
    'Names are letters, digits and underscores; values are texts. A device sets only those that its agent allows.'
  from jsonb_each(p_environment) as e
  where e.key !~ '^[A-Za-z_][A-Za-z0-9_]{0,99}$' or jsonb_typeof(e.value) <> 'string'
  limit 10;
end;
$$;

comment on function fleet.environment_problems(text, jsonb) is 'Variables of an environment that no program could be given.';
revoke all on function fleet.environment_problems(text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.payload_problems(p_owner_id uuid, p_command_type text, p_payload jsonb, p_field text default 'payload')
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_keys jsonb;
begin
  select t.payload_keys into v_keys
  from public.command_types as t
  where t.name = p_command_type and coalesce(t.owner_id, p_owner_id) is not distinct from p_owner_id;
  if not found then
    return next (
      'action_type', coalesce('"' || nullif(p_command_type, '') || '" is not a known command type', 'is missing'),
      'List them with: select name, description from command_types'
    )::fleet.problem;
  elsif v_keys = '{}' then
    return;
  end if;

  return query
  select p_field || '.' || k.key, 'is missing',
    format('%s needs "%s" (%s).', p_command_type, k.key, coalesce(k.value ->> 'type', 'any type'))
  from jsonb_each(v_keys) as k
  where (k.value -> 'required') = 'true'::jsonb
    and coalesce(jsonb_typeof(p_payload -> k.key), 'null') = 'null'
  union all
  select p_field || '.' || k.key, format('must be a %s, not a %s', k.value ->> 'type', jsonb_typeof(p_payload -> k.key)),
    format('Example: {"%s": %s}', k.key, coalesce(k.value -> 'example', to_jsonb(k.value ->> 'type')))
  from jsonb_each(v_keys) as k
  where p_payload ? k.key
    and jsonb_typeof(p_payload -> k.key) <> 'null'
    and jsonb_typeof(p_payload -> k.key) <> (k.value ->> 'type')
  union all
  select p_field || '.' || k.key, format('%s is not one of %s', p_payload -> k.key, k.value -> 'choices'),
    'Use one of the values named.'
  from jsonb_each(v_keys) as k
  where k.value ? 'choices'
    and p_payload ? k.key
    and not (k.value -> 'choices') @> (p_payload -> k.key)
  union all
  select q.*
  from jsonb_each(v_keys) as k
  cross join lateral fleet.path_problems(p_field || '.' || k.key, p_payload ->> k.key) as q
  where k.value ->> 'format' = 'path'
    and jsonb_typeof(p_payload -> k.key) = 'string'
  union all
  select p_field || '.' || k.key, format('is not a number from %s to %s', k.value -> 'from', k.value -> 'to'),
    format('Example: {"%s": %s}', k.key, coalesce(k.value -> 'example', k.value -> 'from'))
  from jsonb_each(v_keys) as k
  where jsonb_typeof(k.value -> 'from') = 'number'
    and jsonb_typeof(k.value -> 'to') = 'number'
    and jsonb_typeof(p_payload -> k.key) = 'number'
    and not fleet.is_within(p_payload -> k.key, (k.value ->> 'from')::numeric, (k.value ->> 'to')::numeric)
  union all
  select q.*
  from jsonb_each(v_keys) as k
  cross join lateral fleet.environment_problems(p_field || '.' || k.key, p_payload -> k.key) as q
  where k.value ->> 'format' = 'environment'
    and jsonb_typeof(p_payload -> k.key) = 'object';
end;
$$;

comment on function fleet.payload_problems(uuid, text, jsonb, text) is
  'What a payload lacks for its command type: missing keys, wrong types, values that are no choice or out of bounds.';
revoke all on function fleet.payload_problems(uuid, text, jsonb, text) from public, anon, authenticated, service_role;

create or replace function fleet.plain_payload_path(p_payload_keys jsonb)
returns jsonpath
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select '$ ? (' || coalesce(string_agg(
      case
        when k.value - '{type,required,example,called}'::text[] = '{}' and k.value ? 'type' then format(
          case when k.value -> 'required' = 'true' then '@.%1$s.type() == %2$s' else '(!exists(@.%1$s) || @.%1$s.type() == %2$s)' end,
          to_json(k.key), k.value -> 'type'
        )
        -- Of its values more is said than their type.
        when k.value -> 'required' = 'true' then '1 == 0'
        else format('!exists(@.%s)', to_json(k.key))
      end, ' && '
    ), '1 == 1') || ')'
    from jsonb_each(p_payload_keys) as k
  )::jsonpath;
end;
$$;

comment on function fleet.plain_payload_path(jsonb) is
  'What finds a payload that need not be looked at more closely, with payload_problems: each key is of its type, none that is required is missing, and '
  'none is there of which more is said.';
revoke all on function fleet.plain_payload_path(jsonb) from public, anon, authenticated, service_role;
-- It was called for each row.
drop function if exists fleet.may_lack(jsonb, jsonb);

create or replace function fleet.require_destructive(p_owner_id uuid, p_command_type text)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_destructive boolean;
  v_permission text;
begin
  if p_command_type is null then
    return;
  end if;
  select t.destructive, t.permission into v_destructive, v_permission
  from public.command_types as t
  where t.name = p_command_type and coalesce(t.owner_id, p_owner_id) = p_owner_id;
  if v_destructive then
    perform fleet.require_permission(p_owner_id, 'destructive', format('command type %s', p_command_type));
  end if;
  if v_permission is not null then
    perform fleet.require_permission(p_owner_id, v_permission, format('command type %s', p_command_type));
  end if;
end;
$$;

comment on function fleet.require_destructive(uuid, text) is
  'Raise permission_missing (PT403) where the command type needs a permission that the caller has not: destructive, can_run_commands. Asked by whatever sends, '
  'schedules, runs or resumes; it must not run with fewer rights than a definer function.';
revoke all on function fleet.require_destructive(uuid, text) from public, anon, authenticated, service_role;
