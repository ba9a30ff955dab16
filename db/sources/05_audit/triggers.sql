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
