-- Who may name what is in the engine room; on its tables nobody has a right.

grant usage on schema fleet to authenticated, service_role;

revoke all on table fleet.pokes from public, anon, authenticated, service_role;
