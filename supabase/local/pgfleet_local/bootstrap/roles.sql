-- The roles of a hosted project: attributes, memberships and settings. Cluster-wide; may run again.

do $$
declare
  v_role record;
begin
  for v_role in
    select *
    from (
      values
        ('postgres', 'login createdb replication bypassrls'),
        ('anon', 'nologin'),
        ('authenticated', 'nologin'),
        ('service_role', 'nologin bypassrls'),
        ('authenticator', 'login noinherit'),
        ('supabase_auth_admin', 'login noinherit'),
        ('supabase_storage_admin', 'login noinherit createrole'),
        ('supabase_realtime_admin', 'nologin noinherit'),
        ('supabase_replication_admin', 'login replication'),
        ('supabase_etl_admin', 'login replication bypassrls'),
        ('supabase_read_only_user', 'login bypassrls'),
        ('supabase_privileged_role', 'nologin'),
        ('dashboard_user', 'nologin createrole createdb replication'),
        ('pgbouncer', 'login')
    ) as wanted (name, attributes)
  loop
    if not exists (select from pg_catalog.pg_roles as r where r.rolname = v_role.name) then
      execute format('create role %I', v_role.name);
    end if;

    execute format('alter role %I nosuperuser %s', v_role.name, v_role.attributes);
  end loop;

  -- On 15 CREATEROLE reaches every role that is no superuser, reserved ones too, which hosted
  -- forbids. From 16 on it reaches only roles that one has ADMIN on, and postgres gets no ADMIN.
  if current_setting('server_version_num')::int < 160000 then
    alter role postgres nocreaterole;
  else
    alter role postgres createrole;
    grant authenticator to postgres;
  end if;
end;
$$;

grant anon, authenticated, service_role to authenticator;

grant
  anon, authenticated, service_role, pg_monitor, pg_read_all_data, pg_signal_backend,
  supabase_privileged_role
  to postgres;

grant authenticator to supabase_storage_admin;

grant pg_read_all_data, pg_monitor to supabase_read_only_user, supabase_etl_admin;

grant supabase_privileged_role to supabase_etl_admin;

alter role supabase_admin set search_path = "$user", public, auth, extensions;
alter role supabase_admin set log_statement = 'none';
alter role postgres set search_path = "$user", public, extensions;
alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';
alter role authenticator set statement_timeout = '8s';
alter role authenticator set lock_timeout = '8s';
alter role supabase_auth_admin set search_path = auth;
alter role supabase_auth_admin set idle_in_transaction_session_timeout = '60s';
alter role supabase_auth_admin set log_statement = 'none';
alter role supabase_storage_admin set search_path = storage;
alter role supabase_storage_admin set log_statement = 'none';
alter role supabase_read_only_user set default_transaction_read_only = on;
