-- The log of changes: who changed which row, from what to what.

create or replace function fleet.audit_actor()
returns table (actor uuid, actor_role text, actor_label text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.current_user_id(),
    coalesce(nullif(t.role, ''), nullif(current_setting('role'), 'none'), session_user::text),
    coalesce(t.email, nullif(current_setting('application_name'), ''))
  from json_to_record(fleet.jwt_claims()) as t(role text, email text)
$$;

comment on function fleet.audit_actor() is
  'Who changes something now: the person, the role, and an e-mail address or the name of the program.';
revoke all on function fleet.audit_actor() from public, anon, authenticated, service_role;

create or replace function fleet.audited(p_table text, p_row jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  -- Columns of the engine say nothing about who changed what, and secrets are nobody's to read.
  select coalesce(jsonb_object_agg(e.key, e.value), '{}')
  from jsonb_each(p_row) as e
  where e.key <> all (case p_table
      when 'schedules' then
        '{recurrence,next_run_at,last_executed_at,execution_count,idle_count,created_at,updated_at}'
      when 'devices' then
        '{auth_id,last_seen,latitude,longitude,accuracy_m,located_at,attributes,enrolled_at,created_at,updated_at}'
      else '{created_at,updated_at}'
    end::text[])
    and e.key !~ 'secret|password|token|signing'
$$;

comment on function fleet.audited(text, jsonb) is 'What the log keeps of a row.';
revoke all on function fleet.audited(text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.audit_row_id(p_table text, p_row jsonb)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case p_table when 'owner_members' then p_row ->> 'user_id' else p_row ->> 'id' end
$$;

comment on function fleet.audit_row_id(text, jsonb) is 'The key of a row, as the log names it.';
revoke all on function fleet.audit_row_id(text, jsonb) from public, anon, authenticated, service_role;
