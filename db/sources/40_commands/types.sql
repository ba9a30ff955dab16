-- The command types that come with pgfleet.

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

comment on function fleet.built_in_command_types() is 'The command types that come with pgfleet.';
revoke all on function fleet.built_in_command_types() from public, anon, authenticated, service_role;

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
  from fleet.built_in_command_types() as b
  -- A type that an operator made under the same name stays the operator's.
  on conflict (name) do update
    set channel = excluded.channel, description = excluded.description, payload_keys = excluded.payload_keys,
        timeout_seconds = excluded.timeout_seconds, rerun_safe = excluded.rerun_safe, destructive = excluded.destructive
    where t.is_built_in
$$;

comment on function fleet.sync_command_types() is 'Bring the built-in command types up to date; called at every migrate.';
revoke all on function fleet.sync_command_types() from public, anon, authenticated, service_role;
