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
    name, channel, description, payload_keys, timeout_seconds, rerun_safe, destructive, is_built_in
  )
  select b.name, b.channel, b.description, b.payload_keys, b.timeout_seconds, b.rerun_safe, b.destructive, true
  from (
    select * from fleet.built_in_command_types()
    union all
    select m.name, 'mdm', m.description, m.payload_keys, m.timeout_seconds, m.rerun_safe, m.destructive
    from fleet.mdm_command_types() as m
  ) as b
  -- A type that an operator made under the same name stays the operator's.
  on conflict (name) do update
    set channel = excluded.channel, description = excluded.description, payload_keys = excluded.payload_keys,
        timeout_seconds = excluded.timeout_seconds, rerun_safe = excluded.rerun_safe, destructive = excluded.destructive
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
        "timeout": {"type": "number", "example": 60}}'::jsonb, 600, false, false),
    ('deploy_software', 'agent', 'Install software packages.',
      '{"software_ids": {"type": "array", "required": true, "example": [5, 8]},
        "deployment_name": {"type": "string"}}'::jsonb, 3600, false, false),
    ('deploy_files', 'agent', 'Copy files to a folder of the device.',
      '{"file_ids": {"type": "array", "required": true, "example": [10, 11]},
        "target_path": {"type": "string", "required": true, "example": "C:\\Config"},
        "create_path_if_not_exists": {"type": "boolean"}}'::jsonb, 600, false, false)
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
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (select 1 from public.command_types as t where t.name = p_action_type and t.channel = 'mdm')
$$;

comment on function fleet.is_mdm_action(text) is
  'Whether an MDM carries it out: then a schedule counts as executed when the provider accepted, not when its run started.';
revoke all on function fleet.is_mdm_action(text) from public, anon, authenticated, service_role;

-- db/sources/15_command_types/20_payloads.sql
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

-- db/sources/15_command_types/access.sql
-- Who sees the command types: everybody who is signed in. Only the service role adds one.

revoke all on table public.command_types from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.command_types to service_role;

drop policy if exists command_types_all_service_role on public.command_types;
create policy command_types_all_service_role on public.command_types
  for all to service_role using (true) with check (true);

grant select on table public.command_types to authenticated;
drop policy if exists command_types_select_person on public.command_types;
create policy command_types_select_person on public.command_types
  for select to authenticated using ((select fleet.current_user_id()) is not null);

set check_function_bodies = on;
reset search_path;
