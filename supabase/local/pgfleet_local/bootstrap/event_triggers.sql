-- The platform's event triggers: rights on pg_cron and pg_net when they are created, and word to
-- PostgREST when something that it caches has changed.

create function extensions.grant_pg_cron_access()
returns event_trigger
language plpgsql
as $$
begin
  if not exists (
    select
    from pg_catalog.pg_event_trigger_ddl_commands() as command
    join pg_catalog.pg_extension as e
      on e.oid = command.objid
    where e.extname = 'pg_cron'
  ) then
    return;
  end if;

  grant usage on schema cron to postgres with grant option;
  alter default privileges for role supabase_admin in schema cron
    grant all on tables to postgres with grant option;
  alter default privileges for role supabase_admin in schema cron
    grant all on functions to postgres with grant option;
  alter default privileges for role supabase_admin in schema cron
    grant all on sequences to postgres with grant option;
  grant all on all tables in schema cron to postgres with grant option;
  revoke all on table cron.job from postgres;
  grant select on table cron.job to postgres with grant option;
  revoke trigger on table cron.job_run_details from postgres;
end;
$$;

create event trigger issue_pg_cron_access
  on ddl_command_end
  when tag in ('CREATE EXTENSION')
  execute function extensions.grant_pg_cron_access();

create function extensions.grant_pg_net_access()
returns event_trigger
language plpgsql
as $$
begin
  if not exists (
    select
    from pg_catalog.pg_event_trigger_ddl_commands() as command
    join pg_catalog.pg_extension as e
      on e.oid = command.objid
    where e.extname = 'pg_net'
  ) then
    return;
  end if;

  if not exists (select from pg_catalog.pg_roles where rolname = 'supabase_functions_admin') then
    create role supabase_functions_admin login noinherit createrole;
  end if;

  grant usage on schema net
    to supabase_functions_admin, postgres, anon, authenticated, service_role;
end;
$$;

create event trigger issue_pg_net_access
  on ddl_command_end
  when tag in ('CREATE EXTENSION')
  execute function extensions.grant_pg_net_access();

create function extensions.pgrst_ddl_watch()
returns event_trigger
language plpgsql
as $$
begin
  if exists (
    select
    from pg_catalog.pg_event_trigger_ddl_commands() as command
    where command.command_tag in (
        'CREATE SCHEMA', 'ALTER SCHEMA',
        'CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'ALTER TABLE',
        'CREATE FOREIGN TABLE', 'ALTER FOREIGN TABLE',
        'CREATE VIEW', 'ALTER VIEW',
        'CREATE MATERIALIZED VIEW', 'ALTER MATERIALIZED VIEW',
        'CREATE FUNCTION', 'ALTER FUNCTION',
        'CREATE TRIGGER', 'CREATE TYPE', 'ALTER TYPE', 'CREATE RULE', 'COMMENT'
      )
      and coalesce(command.schema_name, '')
        not in ('pg_temp', 'auth', 'realtime', '_realtime', 'storage')
  ) then
    notify pgrst, 'reload schema';
  end if;
end;
$$;

create event trigger pgrst_ddl_watch
  on ddl_command_end
  execute function extensions.pgrst_ddl_watch();

create function extensions.pgrst_drop_watch()
returns event_trigger
language plpgsql
as $$
begin
  if exists (
    select
    from pg_catalog.pg_event_trigger_dropped_objects() as gone
    where gone.object_type in (
        'schema', 'table', 'foreign table', 'view', 'materialized view',
        'function', 'trigger', 'type', 'rule'
      )
      and not gone.is_temporary
      and coalesce(gone.schema_name, '') not in ('auth', 'realtime', '_realtime', 'storage')
  ) then
    notify pgrst, 'reload schema';
  end if;
end;
$$;

create event trigger pgrst_drop_watch
  on sql_drop
  execute function extensions.pgrst_drop_watch();
