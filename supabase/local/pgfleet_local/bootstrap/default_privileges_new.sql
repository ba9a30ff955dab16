-- "Automatically expose new tables" switched off, as on new projects: what stays is TRUNCATE,
-- REFERENCES and TRIGGER on tables, UPDATE on sequences, and EXECUTE to PUBLIC on functions.

alter default privileges for role postgres in schema public
  revoke select, insert, update, delete on tables from anon, authenticated, service_role;
alter default privileges for role postgres in schema public
  revoke usage, select on sequences from anon, authenticated, service_role;
alter default privileges for role postgres in schema public
  revoke execute on functions from anon, authenticated, service_role;
