-- The log of changes: who changed which row, from what to what. Each room names its tables to it with fleet.keep_audit.

create or replace function fleet.keep_audit(
  p_table regclass,
  p_verbs text[] default '{insert,update,delete}',
  p_columns text[] default null,
  p_without text[] default '{created_at,updated_at}',
  p_when text default null
)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_name text := (select c.relname from pg_class as c where c.oid = p_table);
  v_columns text := (select string_agg(quote_ident(c), ', ') from unnest(p_columns) as c);
  v_changed text := coalesce(p_when, (
    select '(' || string_agg('new.' || quote_ident(c), ', ') || ') is distinct from ('
      || string_agg('old.' || quote_ident(c), ', ') || ')'
    from unnest(p_columns) as c
  ), 'new.* is distinct from old.*');
begin
  if 'insert' = any (p_verbs) then
    execute format(
      'create or replace trigger %I after insert on %s referencing new table as changed_rows'
      ' for each statement execute function fleet.tg_note_rows(%L)', v_name || '_90_note_inserted', p_table, p_without
    );
  end if;
  if 'update' = any (p_verbs) then
    execute format(
      'create or replace trigger %I after update%s on %s for each row when (%s) execute function fleet.tg_note_change(%L)',
      v_name || '_91_note_change', ' of ' || v_columns, p_table, v_changed, p_without
    );
  end if;
  if 'delete' = any (p_verbs) then
    execute format(
      'create or replace trigger %I after delete on %s referencing old table as changed_rows'
      ' for each statement execute function fleet.tg_note_rows(%L)', v_name || '_92_note_deleted', p_table, p_without
    );
  end if;
end;
$$;

comment on function fleet.keep_audit(regclass, text[], text[], text[], text) is
  'Log what people change in a table: the verbs, of updates those that touch p_columns (all, where none are named) or meet the condition '
  'p_when on new and old, and of each row all columns but p_without, which are those of the engine, and secrets.';
revoke all on function fleet.keep_audit(regclass, text[], text[], text[], text) from public, anon, authenticated, service_role;

create or replace function fleet.audit_actor()
returns table (actor uuid, actor_role text, actor_label text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select fleet.current_user_id(),
    coalesce(nullif(t.role, ''), nullif(current_setting('role'), 'none'), session_user::text),
    coalesce(t.email, nullif(current_setting('application_name'), ''))
  from json_to_record(fleet.jwt_claims()) as t(role text, email text);
end;
$$;

comment on function fleet.audit_actor() is
  'Who changes something now: the person, the role, and an e-mail address or the name of the program.';
revoke all on function fleet.audit_actor() from public, anon, authenticated, service_role;

create or replace function fleet.audited(p_row jsonb, p_without text[])
returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select coalesce(jsonb_object_agg(e.key, e.value), '{}')
    from jsonb_each(p_row) as e
    where e.key <> all (p_without)
      and e.key !~ 'secret|password|token|signing'
  );
end;
$$;

comment on function fleet.audited(jsonb, text[]) is
  'What the log keeps of a row: columns of the engine say nothing about who changed what, and secrets are nobody''s to read.';
revoke all on function fleet.audited(jsonb, text[]) from public, anon, authenticated, service_role;

create or replace function fleet.audit_row_id(p_row jsonb)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  -- A membership has no id; within its owner the person is its key.
  select coalesce(p_row ->> 'id', p_row ->> 'run_id', p_row ->> 'user_id')
$$;

comment on function fleet.audit_row_id(jsonb) is 'The key of a row, as the log names it.';
revoke all on function fleet.audit_row_id(jsonb) from public, anon, authenticated, service_role;
