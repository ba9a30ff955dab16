-- Generated from db/sources/15_command_types by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/15_command_types/10_built_in.sql
-- The command types that come with pgfleet, and which of them an MDM carries out.

create or replace function fleet.sync_command_types()
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  insert into public.command_types as t (
    name, channel, description, payload_keys, timeout_seconds, rerun_safe, destructive, permission, is_built_in
  )
  select b.name, b.channel, b.description, b.payload_keys, b.timeout_seconds, b.rerun_safe, b.destructive,
    case b.name when 'run_command' then 'can_run_commands' end, true
  from (
    select * from fleet.built_in_command_types()
    union all
    select m.name, 'mdm', m.description, m.payload_keys, m.timeout_seconds, m.rerun_safe, m.destructive
    from fleet.mdm_command_types() as m
  ) as b
  -- A type that an operator made under the same name stays the operator's.
  on conflict (name, owner_id) do update
    set channel = excluded.channel, description = excluded.description, payload_keys = excluded.payload_keys,
        timeout_seconds = excluded.timeout_seconds, rerun_safe = excluded.rerun_safe, destructive = excluded.destructive, permission = excluded.permission
    where t.is_built_in
$$;

comment on function fleet.sync_command_types() is 'Bring the built-in command types up to date; called at every migrate.';
revoke all on function fleet.sync_command_types() from public, anon, authenticated, service_role;

create or replace function fleet.built_in_command_types()
returns table (
  name text, channel text, description text, payload_keys jsonb, timeout_seconds integer, rerun_safe boolean, destructive boolean
)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  values
    ('lock', 'agent', 'Lock the screen of every session.', '{}'::jsonb, 30, true, false),
    ('unlock', 'agent', 'Unlock the sessions that lock locked.', '{}'::jsonb, 30, true, false),
    ('clear_cache', 'agent', 'Delete temporary files and caches.', '{}'::jsonb, 300, true, false),
    ('buzz', 'agent', 'Make a noise, so that the device can be found.',
      '{"seconds": {"type": "number", "example": 5}}'::jsonb, 60, false, false),
    ('broadcast_message', 'agent', 'Show a message to whoever sits at the device.',
      '{"message": {"type": "string", "required": true, "example": "Back up your work"},
        "title": {"type": "string"}}'::jsonb, 60, false, false),
    ('run_command', 'agent', 'Run a command line; only on agents that were started with --allow-run-command.',
      '{"command": {"type": "string", "required": true, "example": "systeminfo"},
        "shell": {"type": "string", "choices": ["cmd", "powershell", "pwsh", "sh", "bash", "zsh"]},
        "timeout": {"type": "number", "example": 60, "from": 0.1, "to": 86400},
        "output_limit": {"type": "number", "example": 65536, "from": 1, "to": 104857600},
        "environment": {"type": "object", "example": {"LANG": "C"}, "format": "environment"},
        "batch_size": {"type": "number", "example": 10, "from": 1, "to": 1000000},
        "stop_on_failure": {"type": "boolean", "example": true}}'::jsonb, 600, false, false),
    ('send_osquery_data', 'agent', 'Answer what osquery knows of the device: system, disks, uptime, software.',
      '{"queries": {"type": "array", "example": ["system", "disks", "uptime"]}}'::jsonb, 120, true, false),
    ('collect_battery_data', 'agent', 'Answer how the battery, the disk and the system of the device are, and keep it as its health.', '{}'::jsonb,
      60, true, false),
    ('sync_website_blocklist', 'agent', 'Read which websites are to be blocked, and keep them on the device.', '{}'::jsonb, 60, true, false),
    ('sync_software_blocklist', 'agent', 'Read which software is to be blocked, and keep it on the device.', '{}'::jsonb, 60, true, false),
    -- Safe to run again: whole files are put in place, and what is installed already is told by its detection rule or the agent's notes.
    ('deploy_software', 'agent', 'Install software packages, or take them off with {"uninstall": true}.',
      '{"software_ids": {"type": "array", "required": true, "example": [5, 8], "ids_of": "software_packages", "called": "package"},
        "deployment_name": {"type": "string"},
        "uninstall": {"type": "boolean", "example": true}}'::jsonb, 7200, true, false),
    ('deploy_files', 'agent', 'Copy files to a folder of the device.',
      '{"file_ids": {"type": "array", "required": true, "example": [10, 11], "ids_of": "deployment_files", "called": "file"},
        "target_path": {"type": "string", "required": true, "example": "C:\\Config", "format": "path"},
        "deployment_name": {"type": "string"},
        "create_path_if_not_exists": {"type": "boolean", "example": true}}'::jsonb, 7200, true, false)
$$;

comment on function fleet.built_in_command_types() is 'The command types of channel agent.';
revoke all on function fleet.built_in_command_types() from public, anon, authenticated, service_role;

create or replace function fleet.mdm_command_types()
returns table (name text, description text, payload_keys jsonb, timeout_seconds integer, rerun_safe boolean, destructive boolean)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  values
    ('push_profile', 'Install a configuration profile.',
      '{"profile_id": {"type": "string", "required": true, "example": "12345"}}'::jsonb, 60, true, false),
    ('remove_profile', 'Remove a configuration profile.',
      '{"profile_id": {"type": "string", "required": true, "example": "12345"}}'::jsonb, 60, true, false),
    ('mdm_lock', 'Lock the device; a Mac needs a pin of six digits, others take none.',
      '{"pin": {"type": "string", "example": "123456"}, "message": {"type": "string"}, "phone_number": {"type": "string"}}'::jsonb,
      60, false, false),
    ('mdm_restart', 'Restart the device.', '{}'::jsonb, 60, false, false),
    ('mdm_shutdown', 'Shut the device down.', '{}'::jsonb, 60, false, false),
    ('mdm_clear_passcode', 'Remove the passcode.', '{}'::jsonb, 60, true, false),
    ('mdm_lost_mode_on', 'Turn lost mode on: a message, a phone number, or both, on a locked screen.',
      '{"message": {"type": "string"}, "phone_number": {"type": "string"}, "footnote": {"type": "string"}}'::jsonb,
      60, true, false),
    ('mdm_lost_mode_off', 'Turn lost mode off.', '{}'::jsonb, 60, true, false),
    ('mdm_locate', 'Ask a device in lost mode where it is.', '{}'::jsonb, 60, true, false),
    ('mdm_play_sound', 'Let a device in lost mode play a sound.', '{}'::jsonb, 60, true, false),
    ('mdm_refresh', 'Ask for fresh inventory.', '{}'::jsonb, 60, true, false),
    ('mdm_push_apps', 'Install assigned apps that are missing.', '{}'::jsonb, 60, true, false),
    ('mdm_wipe', 'Erase the device.',
      '{"confirm": {"type": "boolean", "required": true, "choices": [true], "example": true},
        "pin": {"type": "string", "example": "123456"}}'::jsonb, 60, false, true),
    ('mdm_unenroll', 'Take the device out of the MDM.',
      '{"confirm": {"type": "boolean", "required": true, "choices": [true], "example": true}}'::jsonb, 60, false, true)
$$;

comment on function fleet.mdm_command_types() is
  'The command types of channel mdm. What may end data needs the permission destructive and {"confirm": true}.';
revoke all on function fleet.mdm_command_types() from public, anon, authenticated, service_role;

create or replace function fleet.is_mdm_action(p_action_type text)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (select 1 from public.command_types as t where t.name = p_action_type and t.owner_id is null and t.channel = 'mdm');
end;
$$;

comment on function fleet.is_mdm_action(text) is
  'Whether an MDM carries it out: then a schedule counts as executed when the provider accepted, not when its run started.';
revoke all on function fleet.is_mdm_action(text) from public, anon, authenticated, service_role;

-- db/sources/15_command_types/20_payloads.sql
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

-- db/sources/15_command_types/30_paths.sql
-- Paths on devices that people write in payloads, and ids of things that payloads name.

create or replace function fleet.path_problems(p_field text, p_path text)
returns setof fleet.problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_is_windows boolean := p_path ~ '^[A-Za-z]:';
  -- Windows takes both strokes for a separator; elsewhere a backslash is a letter, and one too many for us.
  v_parts text[] := regexp_split_to_array(
    case when v_is_windows then regexp_replace(substr(p_path, 3), '^[\\/]', '') else substr(p_path, 2) end,
    case when v_is_windows then '[\\/]' else '/' end
  );
  v_problem text;
begin
  v_problem := case
    when length(p_path) > 1000 then 'is longer than 1000 characters'
    when fleet.has_unseen(p_path) then 'holds a control character, or one that nobody sees'
    when p_path ~ '^[\\/]{2}' then 'is a share or a device, not a folder of the device itself'
    when p_path !~ '^([A-Za-z]:[\\/]|/)' then 'is not absolute'
    when not v_is_windows and strpos(p_path, '\') > 0 then 'holds a backslash'
    when '..' = any (v_parts) or '.' = any (v_parts) then 'holds a step that leads elsewhere'
    when exists (select 1 from unnest(v_parts[1:cardinality(v_parts) - 1]) as u(part) where u.part = '') then 'holds an empty step'
    when exists (select 1 from unnest(v_parts) as u(part) where length(u.part) > 255) then 'holds a name of more than 255 characters'
    when v_is_windows and exists (select 1 from unnest(v_parts) as u(part) where u.part ~ '[:*?"<>|]')
      then 'holds a character that Windows keeps for itself'
    when v_is_windows and exists (select 1 from unnest(v_parts) as u(part) where u.part ~ '[. ]$')
      then 'holds a name that ends with a dot or a blank'
    when v_is_windows and exists (
      select 1 from unnest(v_parts) as u(part) where u.part ~* '^(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)([. ].*)?$'
    ) then 'holds a name that Windows keeps for itself'
  end;
  if v_problem is not null then
    return next (p_field, v_problem, 'Write a folder of the device like "C:\Config" or "/etc/app".')::fleet.problem;
  end if;
end;
$$;

comment on function fleet.path_problems(text, text) is
  'One row where a path is not that of a folder on the device itself: relative, on a share, with steps back, streams or reserved names.';
revoke all on function fleet.path_problems(text, text) from public, anon, authenticated, service_role;

create or replace function fleet.reference_problems(p_owner_id uuid, p_command_type text, p_payload jsonb)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_key record;
begin
  for v_key in
    select 'payload.' || k.key as field, k.value ->> 'ids_of' as named, k.value ->> 'called' as called, p_payload -> k.key as ids
    from public.command_types as t
    cross join jsonb_each(t.payload_keys) as k
    where t.name = p_command_type and coalesce(t.owner_id, p_owner_id) = p_owner_id and k.value ? 'ids_of' and jsonb_typeof(p_payload -> k.key) = 'array'
  loop
    if not fleet.is_id_list(v_key.ids) or v_key.ids = '[]' then
      return next (
        v_key.field, format('%s is not a list of ids', v_key.ids), 'Write whole numbers without quotes, like [1, 2].'
      )::fleet.problem;
    elsif jsonb_array_length(v_key.ids) > fleet.limit_value('artifacts') then
      return query select q.* from fleet.list_problem(v_key.field, 'artifacts', v_key.ids) as q;
    else
      -- Ids are guessable: what belongs to another owner is not there.
      return query execute format(
        'select $1, format(''%%s %%s was not found'', $2, u.id), format(''List what there is with: pgfleet %%s list'', $2)
         from unnest($3) as u(id)
         where not exists (select 1 from public.%I as x where x.id = u.id and x.owner_id = $4)
         order by u.id',
        v_key.named
      )
      using v_key.field, v_key.called, fleet.bigint_array(v_key.ids), p_owner_id;
    end if;
  end loop;
end;
$$;

comment on function fleet.reference_problems(uuid, text, jsonb) is
  'Ids in a payload that name nothing of the owner, by the keys that its command type marks with ids_of.';
revoke all on function fleet.reference_problems(uuid, text, jsonb) from public, anon, authenticated, service_role;

-- db/sources/15_command_types/30_sealed.sql
-- Secrets in payloads: sealed where they are written, opened for the device alone.

create or replace function fleet.is_secret_key(p_key text)
returns boolean
language sql
immutable
parallel safe
return p_key ~* '(^|[_-])pin([_-]|$)|pass(word|wd|code|phrase)|secret|token|api[_-]?key|private[_-]?key|credential' or p_key ~ '[a-z]Pin$';

comment on function fleet.is_secret_key(text) is 'Whether what stands in a payload under this key is a secret.';
revoke all on function fleet.is_secret_key(text) from public, anon, authenticated, service_role;

create or replace function fleet.may_hold_secrets(p_payload jsonb)
returns boolean
language sql
immutable
parallel safe
-- Broader than the keys are, and quick: it is asked of every command.
return p_payload <> '{}' and p_payload::text ~* 'pin|pass|secret|token|key|credential|"sealed:';

comment on function fleet.may_hold_secrets(jsonb) is 'Whether a payload is to be looked at for secrets and seals. False is certain.';
revoke all on function fleet.may_hold_secrets(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.may_hold_secrets(jsonb) to service_role;

create or replace function fleet.sealed(p_owner_id uuid, p_payload jsonb, p_expires_at timestamptz default null)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_result jsonb := p_payload;
  v_item record;
  v_id uuid;
begin
  if p_payload = '{}' then
    return p_payload;
  elsif jsonb_typeof(p_payload) = 'array' then
    return (select coalesce(jsonb_agg(fleet.sealed(p_owner_id, e.item, p_expires_at) order by e.n), '[]')
      from jsonb_array_elements(p_payload) with ordinality as e(item, n));
  elsif jsonb_typeof(p_payload) is distinct from 'object' then
    return p_payload;
  end if;

  for v_item in select e.key, e.value, jsonb_typeof(e.value) as kind from jsonb_each(p_payload) as e loop
    if v_item.kind in ('object', 'array') then
      v_result := v_result || jsonb_build_object(v_item.key, fleet.sealed(p_owner_id, v_item.value, p_expires_at));
    elsif v_item.kind in ('string', 'number') and fleet.is_secret_key(v_item.key) and v_item.value #>> '{}' not like 'sealed:%' then
      insert into fleet.payload_secrets (owner_id, value, expires_at)
      values (p_owner_id, v_item.value, p_expires_at)
      returning id into v_id;
      v_result := v_result || jsonb_build_object(v_item.key, 'sealed:' || v_id);
    end if;
  end loop;
  return v_result;
end;
$$;

comment on function fleet.sealed(uuid, jsonb, timestamptz) is
  'A payload with its secrets taken out, by their keys, and a seal in place of each. What is sealed already stays; a seal of another owner opens '
  'nothing.';
revoke all on function fleet.sealed(uuid, jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.unsealed(p_owner_id uuid, p_payload jsonb)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Nearly none has any, and this is asked for each command that is claimed.
  if strpos(p_payload::text, '"sealed:') = 0 then
    return p_payload;
  elsif jsonb_typeof(p_payload) = 'array' then
    return (select jsonb_agg(fleet.unsealed(p_owner_id, e.item) order by e.n) from jsonb_array_elements(p_payload) with ordinality as e(item, n));
  elsif jsonb_typeof(p_payload) <> 'object' then
    return p_payload;
  end if;
  return (
    select jsonb_object_agg(
      e.key,
      case
        when jsonb_typeof(e.value) in ('object', 'array') then fleet.unsealed(p_owner_id, e.value)
        else coalesce(s.value, e.value)
      end
    )
    from jsonb_each(p_payload) as e
    -- Under a key that is no secret's it stays shut: it would be shown.
    left join fleet.payload_secrets as s
      on s.id = fleet.try_uuid(substr(e.value #>> '{}', 8))
      and s.owner_id = p_owner_id
      and jsonb_typeof(e.value) = 'string'
      and left(e.value #>> '{}', 7) = 'sealed:'
      and fleet.is_secret_key(e.key)
  );
end;
$$;

comment on function fleet.unsealed(uuid, jsonb) is
  'A payload with its secrets in their places, for the device or the MDM that needs them, and for nobody else.';
revoke all on function fleet.unsealed(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.require_seals(p_owner_id uuid, p_payload jsonb)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Whoever may only send could send a seal to a device at hand, and read there what it hides.
  if strpos(p_payload::text, '"sealed:') > 0 then
    perform fleet.require_permission(p_owner_id, 'manage', format('owner %s', p_owner_id));
  end if;
end;
$$;

comment on function fleet.require_seals(uuid, jsonb) is 'Raise permission_missing (PT403) where a seal is sent by who may not manage.';
revoke all on function fleet.require_seals(uuid, jsonb) from public, anon, authenticated, service_role;

-- db/sources/15_command_types/40_own.sql
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

-- db/sources/15_command_types/triggers.sql
-- What holds for command types however a row is written.

create or replace function fleet.tg_prepare_command_type()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Whoever runs the platform says by the name as well that it is somebody's own.
  if tg_op = 'INSERT' and (strpos(new.name, '-') > 0 or not fleet.is_trusted_caller()) then
    new.owner_id := fleet.owner_or_own(new.owner_id);
  end if;
  if not fleet.is_trusted_caller() then
    perform fleet.require_permission(new.owner_id, 'manage', format('owner %s', new.owner_id));
    if tg_op = 'UPDATE' then
      -- Who may not wipe does not make a type that wipes one that does not.
      perform fleet.require_destructive(old.owner_id, old.name);
    end if;
  end if;
  if new.owner_id is not null then
    perform fleet.raise_problems('the command type', 'command_type_invalid', array_agg(q))
    from fleet.command_type_problems(new) as q;
  end if;
  return new;
end;
$$;

comment on function fleet.tg_prepare_command_type() is
  'Check a command type of an owner''s own however it is written; what whoever runs the platform makes for everybody is held by CHECKs. Raises '
  'command_type_invalid (PT422) or permission_missing (PT403). Definer: it checks the caller.';
revoke all on function fleet.tg_prepare_command_type() from public, anon, authenticated, service_role;

create or replace trigger command_types_01_prepare
  before insert or update on public.command_types
  for each row execute function fleet.tg_prepare_command_type();

create or replace function fleet.tg_keep_used_type()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_is_used boolean;
begin
  if tg_op = 'DELETE' then
    if fleet.is_owner_gone(old.owner_id) then
      return old;
    elsif not fleet.is_trusted_caller() then
      perform fleet.require_destructive(old.owner_id, old.name);
    end if;
  elsif (new.destructive, new.permission) is not distinct from (old.destructive, old.permission) then
    return new;
  end if;
  execute format(
    'select exists (select 1 from %s as x where x.owner_id = $1 and $2 = any (%s) and %s)', tg_argv[0], tg_argv[1], tg_argv[2]
  )
  into v_is_used
  using old.owner_id, old.name;
  if v_is_used then
    raise exception 'command type "%" is in use by %', old.name, replace(split_part(tg_argv[0], '.', 2), '_', ' ')
      using errcode = 'PT409', detail = 'command_type_in_use',
            hint = 'Change or end those first: what was checked with it is not to change under them.';
  end if;
  return case tg_op when 'DELETE' then old else new end;
end;
$$;

comment on function fleet.tg_keep_used_type() is
  'Refuse to delete a command type that is in use, or to change what it takes to send it. Raises command_type_in_use (PT409) or '
  'permission_missing (PT403). Definer: it sees all that uses it.';
revoke all on function fleet.tg_keep_used_type() from public, anon, authenticated, service_role;

select fleet.keep_quota('public.command_types', 'command_types');
select fleet.keep_audit('public.command_types', p_when => 'new.owner_id is not null and new.* is distinct from old.*');

-- db/sources/15_command_types/access.sql
-- Who sees the command types: everybody who is signed in those of the platform, members those of their owner. Only the service role adds
-- one for everybody; managers add those of their owner, and what a type is called and whose it is stays.

revoke all on table public.command_types from public, anon, authenticated, service_role;
revoke all on sequence public.command_types_id_seq from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.command_types to service_role;
grant usage, select on sequence public.command_types_id_seq to service_role;
grant select, delete on table public.command_types to authenticated;
grant insert (owner_id, name, description, payload_keys, timeout_seconds, rerun_safe, destructive, permission)
  on table public.command_types to authenticated;
grant update (description, payload_keys, timeout_seconds, rerun_safe, destructive, permission) on table public.command_types to authenticated;

drop policy if exists command_types_all_service_role on public.command_types;
create policy command_types_all_service_role on public.command_types
  for all to service_role using (true) with check (true);

drop policy if exists command_types_select_person on public.command_types;
create policy command_types_select_person on public.command_types
  for select to authenticated using (
    case
      when owner_id is null then (select fleet.current_user_id()) is not null
      else owner_id = any (array(select fleet.my_owners()))
    end
  );
drop policy if exists command_types_insert_manager on public.command_types;
create policy command_types_insert_manager on public.command_types
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists command_types_update_manager on public.command_types;
create policy command_types_update_manager on public.command_types
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists command_types_delete_manager on public.command_types;
create policy command_types_delete_manager on public.command_types
  for delete to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));

set check_function_bodies = on;
reset search_path;
