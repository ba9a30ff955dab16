-- Generated from db/sources/80_audit by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/80_audit/audit.sql
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

-- db/sources/80_audit/triggers_mdm.sql
-- What is logged of integrations, their webhooks and assignments: what people change, not how each sync went.

create or replace trigger device_integrations_90_note_inserted
  after insert on public.device_integrations
  referencing new table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger device_integrations_91_note_change
  after update on public.device_integrations
  for each row
  when (
    (new.name, new.integration_type, new.status, new.status_reason, new.settings)
    is distinct from (old.name, old.integration_type, old.status, old.status_reason, old.settings)
  )
  execute function fleet.tg_note_change();
create or replace trigger device_integrations_92_note_deleted
  after delete on public.device_integrations
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();

create or replace trigger profile_assignments_90_note_inserted
  after insert on public.profile_assignments
  referencing new table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger profile_assignments_92_note_deleted
  after delete on public.profile_assignments
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();

create or replace trigger integration_webhooks_90_note_inserted
  after insert on public.integration_webhooks
  referencing new table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger integration_webhooks_91_note_change
  after update of revoked_at on public.integration_webhooks
  for each row
  when (new.revoked_at is distinct from old.revoked_at)
  execute function fleet.tg_note_change();
create or replace trigger integration_webhooks_92_note_deleted
  after delete on public.integration_webhooks
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();

-- db/sources/80_audit/triggers_places.sql
-- What is logged of places: which locations there are and what they bring about, not where the devices are.

create or replace trigger locations_90_note_inserted
  after insert on public.locations
  referencing new table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger locations_91_note_change
  after update on public.locations
  for each row when (new.* is distinct from old.*) execute function fleet.tg_note_change();
create or replace trigger locations_92_note_deleted
  after delete on public.locations
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();

create or replace trigger location_policies_90_note_inserted
  after insert on public.location_policies
  referencing new table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger location_policies_91_note_change
  after update on public.location_policies
  for each row when (new.* is distinct from old.*) execute function fleet.tg_note_change();
create or replace trigger location_policies_92_note_deleted
  after delete on public.location_policies
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();

-- db/sources/80_audit/triggers_profiles.sql
-- What is logged of profiles: what people upload and delete, not what a sync finds.

create or replace function fleet.tg_note_profile()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.profiles := case tg_op when 'INSERT' then new else old end;
begin
  insert into public.audit_log (owner_id, actor, actor_role, actor_label, table_name, row_id, action, old, new)
  select v_row.owner_id, a.actor, a.actor_role, a.actor_label, tg_table_name, v_row.id::text, lower(tg_op),
    case when tg_op = 'DELETE' then fleet.audited(tg_table_name, to_jsonb(v_row)) end,
    case when tg_op = 'INSERT' then fleet.audited(tg_table_name, to_jsonb(v_row)) end
  from fleet.audit_actor() as a;
  return null;
end;
$$;

comment on function fleet.tg_note_profile() is
  'Log a profile that was uploaded or deleted; its file is in another table. Definer: nobody may write the log.';
revoke all on function fleet.tg_note_profile() from public, anon, authenticated, service_role;

create or replace trigger profiles_90_note_inserted
  after insert on public.profiles
  for each row when (new.is_managed) execute function fleet.tg_note_profile();
create or replace trigger profiles_91_note_change
  after update on public.profiles
  for each row
  when (
    new.is_managed
    and new.status in ('pending', 'deleting')
    and (new.name, new.status, new.options, new.content_sha256)
    is distinct from (old.name, old.status, old.options, old.content_sha256)
  )
  execute function fleet.tg_note_change();
create or replace trigger profiles_92_note_deleted
  after delete on public.profiles
  for each row when (old.is_managed) execute function fleet.tg_note_profile();

-- db/sources/80_audit/triggers.sql
-- What is logged. The conditions keep ticks, counters and check-ins free of it.

create or replace trigger audit_log_01_refuse_change
  before update or delete or truncate on public.audit_log
  for each statement execute function fleet.tg_refuse_change();

create or replace trigger schedules_90_note_inserted
  after insert on public.schedules
  referencing new table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger schedules_91_note_change
  after update on public.schedules
  for each row
  -- Whatever changes a schedule on purpose stamps it; the engine does not.
  when (new.updated_at is distinct from old.updated_at or new.updated_at = now())
  execute function fleet.tg_note_change();
create or replace trigger schedules_92_note_deleted
  after delete on public.schedules
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();

create or replace trigger schedule_templates_90_note_inserted
  after insert on public.schedule_templates
  referencing new table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger schedule_templates_92_note_deleted
  after delete on public.schedule_templates
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();

create or replace trigger blackout_calendars_90_note_inserted
  after insert on public.blackout_calendars
  referencing new table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger blackout_calendars_91_note_change
  after update on public.blackout_calendars
  for each row when (new.* is distinct from old.*) execute function fleet.tg_note_change();
create or replace trigger blackout_calendars_92_note_deleted
  after delete on public.blackout_calendars
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger blackout_periods_90_note_inserted
  after insert on public.blackout_periods
  referencing new table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger blackout_periods_92_note_deleted
  after delete on public.blackout_periods
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();

create or replace trigger device_groups_90_note_inserted
  after insert on public.device_groups
  referencing new table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger device_groups_91_note_change
  after update of name, description, selector on public.device_groups
  for each row execute function fleet.tg_note_change();
create or replace trigger device_groups_92_note_deleted
  after delete on public.device_groups
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();

create or replace trigger devices_91_note_change
  after update of hostname, tags, status on public.devices
  for each row
  when ((new.hostname, new.tags, new.status) is distinct from (old.hostname, old.tags, old.status))
  execute function fleet.tg_note_change();
create or replace trigger devices_92_note_deleted
  after delete on public.devices
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();

create or replace trigger owner_members_90_note_inserted
  after insert on public.owner_members
  referencing new table as changed_rows
  for each statement execute function fleet.tg_note_rows();
create or replace trigger owner_members_91_note_change
  after update of permissions on public.owner_members
  for each row execute function fleet.tg_note_change();
create or replace trigger owner_members_92_note_deleted
  after delete on public.owner_members
  referencing old table as changed_rows
  for each statement execute function fleet.tg_note_rows();

do $$
begin
  if to_regclass('public.webhook_endpoints') is null then
    return;
  end if;
  execute $trigger$
    create or replace trigger webhook_endpoints_90_note_inserted
      after insert on public.webhook_endpoints
      referencing new table as changed_rows
      for each statement execute function fleet.tg_note_rows()
  $trigger$;
  execute $trigger$
    create or replace trigger webhook_endpoints_91_note_change
      after update on public.webhook_endpoints
      for each row when (new.* is distinct from old.*) execute function fleet.tg_note_change()
  $trigger$;
  execute $trigger$
    create or replace trigger webhook_endpoints_92_note_deleted
      after delete on public.webhook_endpoints
      referencing old table as changed_rows
      for each statement execute function fleet.tg_note_rows()
  $trigger$;
end;
$$;

-- db/sources/80_audit/policies.sql
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
