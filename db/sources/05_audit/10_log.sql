-- The log of changes: who changed which row, from what to what. Each room names its tables to it with fleet.keep_audit.

create or replace function fleet.unaudited_columns(p_table regclass, p_without text[])
returns text[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select p_without || array(
    select a.attname::text
    from pg_attribute as a
    where a.attrelid = p_table and a.attnum > 0 and a.attname ~ 'secret|password|token|signing' and a.attname <> all (p_without)
    order by a.attnum
  )
$$;

comment on function fleet.unaudited_columns(regclass, text[]) is
  'What the log leaves out of a table: columns of the engine, which say nothing about who changed what, and secrets, which are nobody''s to '
  'read. Told to the triggers when they are made, so that none looks for them row by row.';
revoke all on function fleet.unaudited_columns(regclass, text[]) from public, anon, authenticated, service_role;

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
  v_without text[] := fleet.unaudited_columns(p_table, p_without);
  v_changed text := coalesce(p_when, (
    select '(' || string_agg('new.' || quote_ident(c), ', ') || ') is distinct from ('
      || string_agg('old.' || quote_ident(c), ', ') || ')'
    from unnest(p_columns) as c
  ), 'new.* is distinct from old.*');
begin
  if 'insert' = any (p_verbs) then
    execute format(
      'create or replace trigger %I after insert on %s referencing new table as changed_rows'
      ' for each statement execute function fleet.tg_note_rows(%L)', v_name || '_90_note_inserted', p_table, v_without
    );
  end if;
  if 'update' = any (p_verbs) then
    execute format(
      'create or replace trigger %I after update%s on %s for each row when (%s) execute function fleet.tg_note_change(%L)',
      v_name || '_91_note_change', ' of ' || v_columns, p_table, v_changed, v_without
    );
  end if;
  if 'delete' = any (p_verbs) then
    execute format(
      'create or replace trigger %I after delete on %s referencing old table as changed_rows'
      ' for each statement execute function fleet.tg_note_rows(%L)', v_name || '_92_note_deleted', p_table, v_without
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
language sql
immutable
return p_row - p_without;

comment on function fleet.audited(jsonb, text[]) is 'What the log keeps of a row, without the columns of fleet.unaudited_columns().';
revoke all on function fleet.audited(jsonb, text[]) from public, anon, authenticated, service_role;

create or replace function fleet.audit_row_id(p_row jsonb)
returns text
language sql
immutable
-- A membership has no id; within its owner the person is its key.
return coalesce(p_row ->> 'id', p_row ->> 'run_id', p_row ->> 'user_id');

comment on function fleet.audit_row_id(jsonb) is 'The key of a row, as the log names it.';
revoke all on function fleet.audit_row_id(jsonb) from public, anon, authenticated, service_role;
