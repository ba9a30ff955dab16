-- Generated from db/sources/05_audit by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/05_audit/10_log.sql
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

-- db/sources/05_audit/triggers.sql
-- What writes the log, and what keeps it as it is. Each room names its own tables; the conditions keep ticks, counters and
-- check-ins out of it.

create or replace function fleet.tg_note_rows()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- One statement, one look at the caller, however many rows.
  insert into public.audit_log (owner_id, actor, actor_role, actor_label, table_name, row_id, action, old, new)
  select (r.item ->> 'owner_id')::uuid, a.actor, a.actor_role, a.actor_label, tg_table_name,
    fleet.audit_row_id(tg_table_name, r.item), lower(tg_op),
    case when tg_op = 'DELETE' then fleet.audited(tg_table_name, r.item) end,
    case when tg_op = 'INSERT' then fleet.audited(tg_table_name, r.item) end
  from (select to_jsonb(c) as item from changed_rows as c) as r
  cross join fleet.audit_actor() as a;
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
  v_old jsonb := fleet.audited(tg_table_name, to_jsonb(old));
  v_new jsonb := fleet.audited(tg_table_name, to_jsonb(new));
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
  select new.owner_id, a.actor, a.actor_role, a.actor_label, tg_table_name,
    fleet.audit_row_id(tg_table_name, to_jsonb(new)), 'update',
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
  raise exception 'the audit log is append-only'
    using errcode = 'PT403', detail = 'audit_append_only', hint = 'Nothing in it can be changed or deleted.';
end;
$$;

comment on function fleet.tg_refuse_change() is 'Refuse to change or delete what the log holds. Raises audit_append_only (PT403).';
revoke all on function fleet.tg_refuse_change() from public, anon, authenticated, service_role;

create or replace trigger audit_log_01_refuse_change
  before update or delete or truncate on public.audit_log
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
