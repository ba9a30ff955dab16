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
