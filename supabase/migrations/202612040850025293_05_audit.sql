-- Generated from db/sources/05_audit by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/05_audit/10_log.sql
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

-- db/sources/05_audit/views.sql
-- The audit log as people list it.

drop view if exists public.audit_list;
create view public.audit_list with (security_invoker = true) as
select
  a.id, a.owner_id, a.at, coalesce(a.actor_label, a.actor::text, a.actor_role) as who, a.action, a.table_name, a.row_id, a.old,
  a.new, a.actor, a.actor_role, a.actor_label
from public.audit_log as a;

comment on view public.audit_list is
  'Who changed what, from what to what.';
comment on column public.audit_list.who is 'The best name of who did it: the label, else the user, else the role.';
select fleet.inherit_comments('public.audit_list', 'public.audit_log');
revoke all on table public.audit_list from public, anon, authenticated, service_role;
grant select on table public.audit_list to authenticated, service_role;

-- db/sources/05_audit/triggers.sql
-- What writes the log, and what keeps it as it is. The argument of the first two names the columns that they leave out.

create or replace function fleet.tg_note_rows()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_without text[] := tg_argv[0];
begin
  -- One statement, one look at the caller, however many rows.
  insert into public.audit_log (owner_id, actor, actor_role, actor_label, table_name, row_id, action, old, new)
  select (r.item ->> 'owner_id')::uuid, a.actor, a.actor_role, a.actor_label, tg_table_name,
    fleet.audit_row_id(r.item), lower(tg_op),
    case when tg_op = 'DELETE' then fleet.audited(r.item, v_without) end,
    case when tg_op = 'INSERT' then fleet.audited(r.item, v_without) end
  -- Each row is turned into JSON once: without the fence each use would be a turn of its own.
  from (select to_jsonb(c) as item from changed_rows as c offset 0) as r
  cross join fleet.audit_actor() as a
  -- Of what is there for everybody nobody could read here.
  where r.item ->> 'owner_id' is not null;
  return null;
end;
$$;

comment on function fleet.tg_note_rows() is 'Log the rows that were inserted or deleted. Definer: nobody may write the log.';
revoke all on function fleet.tg_note_rows() from public, anon, authenticated, service_role;

create or replace function fleet.tg_note_change()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_without text[] := tg_argv[0];
  v_old jsonb := fleet.audited(to_jsonb(old), v_without);
  v_new jsonb := fleet.audited(to_jsonb(new), v_without);
  v_keys text[];
begin
  select array_agg(e.key) into v_keys
  from jsonb_each(v_new) as e
  where e.value is distinct from v_old -> e.key;
  -- That a schedule has run for the last time is told by its runs.
  if v_keys is null or (v_keys <@ '{status,status_reason}' and v_new ->> 'status' = 'completed') then
    return null;
  end if;

  insert into public.audit_log (owner_id, actor, actor_role, actor_label, table_name, row_id, action, old, new)
  select (to_jsonb(new) ->> case tg_table_name when 'owners' then 'id' else 'owner_id' end)::uuid, a.actor, a.actor_role, a.actor_label,
    tg_table_name, fleet.audit_row_id(to_jsonb(new)), 'update',
    (select jsonb_object_agg(k, v_old -> k) from unnest(v_keys) as k),
    (select jsonb_object_agg(k, v_new -> k) from unnest(v_keys) as k)
  from fleet.audit_actor() as a;
  return null;
end;
$$;

comment on function fleet.tg_note_change() is 'Log what was changed in a row, the changed columns only. Definer: nobody may write the log.';
revoke all on function fleet.tg_note_change() from public, anon, authenticated, service_role;

create or replace function fleet.tg_refuse_change()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  -- What is older than it is to be kept may go, and is looked at row by row; nothing else may, and no way leads around that.
  if tg_op = 'DELETE' then
    if not exists (
      select 1
      from changed_rows as o
      where o.at >= clock_timestamp() - make_interval(days => fleet.setting_number('audit_days')::integer)
        -- The log of an owner that lives in another database now is there.
        and not exists (select 1 from fleet.owner_moves as m where m.owner_id = o.owner_id and m.state = 'moved')
    ) then
      return null;
    end if;
  end if;
  raise exception 'the audit log is append-only'
    using errcode = 'PT403', detail = 'audit_append_only',
          hint = 'Nothing in it can be changed, and what is younger than the setting audit_days cannot be deleted.';
end;
$$;

comment on function fleet.tg_refuse_change() is
  'Refuse to change what the log holds, and to delete what is younger than the setting audit_days and of no owner that was moved. Raises '
  'audit_append_only (PT403).';
revoke all on function fleet.tg_refuse_change() from public, anon, authenticated, service_role;

create or replace trigger audit_log_01_refuse_change
  before update or truncate on public.audit_log
  for each statement execute function fleet.tg_refuse_change();
create or replace trigger audit_log_02_refuse_delete
  after delete on public.audit_log
  referencing old table as changed_rows
  for each statement execute function fleet.tg_refuse_change();

-- db/sources/05_audit/access.sql
-- Who reads the log: members of the owner. Nobody writes it, the service role included.

revoke all on table public.audit_log from public, anon, authenticated, service_role;
grant select on table public.audit_log to authenticated, service_role;
revoke all on sequence public.audit_log_id_seq from public, anon, authenticated, service_role;

drop policy if exists audit_log_select_service_role on public.audit_log;
create policy audit_log_select_service_role on public.audit_log for select to service_role using (true);
drop policy if exists audit_log_select_member on public.audit_log;
-- Who may not see a row may not read about it either: the addresses of webhooks are for managers.
create policy audit_log_select_member on public.audit_log
  for select to authenticated
  using (
    owner_id = any (array(select fleet.my_owners()))
    and (table_name <> 'webhook_endpoints' or owner_id = any (array(select fleet.my_owners('manage'))))
  );

set check_function_bodies = on;
reset search_path;
