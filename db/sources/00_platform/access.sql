-- Who may name what is in the engine room; on its tables nobody has a right.

grant usage on schema fleet to authenticated, service_role;

revoke all on table fleet.pokes from public, anon, authenticated, service_role;

-- Also here and not in its migration alone: a restore makes it anew, under the default privileges of the project.
revoke all on table public.pg_cron_secrets from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.pg_cron_secrets to service_role;
