-- What becomes of the removal of a profile when its push comes to nothing, and what is logged of profiles:
-- what people upload and delete, not what a sync finds.

create or replace function fleet.tg_fail_pushes_of_runs()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.mark_failed_pushes(f.ids)
  from (
    select array_agg(n.schedule_id) as ids
    from new_rows as n
    where n.status in ('skipped', 'failed', 'cancelled') and n.targeted = 0
  ) as f
  where f.ids is not null
    and exists (select 1 from public.profile_installs as p where p.install_schedule_id = any (f.ids));

  -- What is over was tried, whatever came of it: nothing that reads when it was executed last takes it for due.
  update public.schedules as s
  set last_executed_at = coalesce(
    (select max(c.executed_at) from public.device_commands as c where c.schedule_id = s.id), n.finished_at, clock_timestamp()
  )
  from new_rows as n
  where n.status in ('completed', 'failed', 'skipped', 'cancelled')
    and s.id = n.schedule_id
    and s.action_type in ('push_profile', 'remove_profile')
    and s.last_executed_at is null;
  return null;
end;
$$;

comment on function fleet.tg_fail_pushes_of_runs() is
  'A push whose run reached no device has failed too; and what is over was executed last when it was tried last. Definer: nobody else '
  'writes profile_installs.';
revoke all on function fleet.tg_fail_pushes_of_runs() from public, anon, authenticated, service_role;

create or replace trigger schedule_runs_80_fail_pushes_insert
  after insert on public.schedule_runs
  referencing new table as new_rows
  for each statement execute function fleet.tg_fail_pushes_of_runs();
create or replace trigger schedule_runs_80_fail_pushes_update
  after update on public.schedule_runs
  referencing new table as new_rows
  for each statement execute function fleet.tg_fail_pushes_of_runs();

create or replace function fleet.tg_fail_cancelled_pushes()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.mark_failed_pushes(array[new.id]);
  return null;
end;
$$;

comment on function fleet.tg_fail_cancelled_pushes() is
  'A push that is cancelled takes its removal along. Definer: nobody else writes profile_installs.';
revoke all on function fleet.tg_fail_cancelled_pushes() from public, anon, authenticated, service_role;

create or replace trigger schedules_80_fail_pushes
  after update of status on public.schedules
  for each row
  when (new.status = 'cancelled' and old.status <> 'cancelled' and new.action_type = 'push_profile')
  execute function fleet.tg_fail_cancelled_pushes();

create or replace function fleet.tg_forget_called_off_profile()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- What something came of is history.
  if exists (select 1 from public.schedule_runs as r where r.schedule_id = new.id)
    or exists (select 1 from public.device_commands as c where c.schedule_id = new.id)
  then
    return null;
  end if;
  -- What follows it would wait for ever: it is paused, and knows why.
  update public.schedules as f
  set status = 'paused',
      status_reason = fleet.cut_text(concat_ws(': ', format('"%s", which it followed, was cancelled before it ran', new.name), new.status_reason), 255)
  where f.after_schedule_id = new.id and f.status = 'active';
  perform fleet.cancel_failed_removals(p.id) from public.profile_installs as p where p.install_schedule_id = new.id;
  update public.profile_installs as p
  set install_schedule_id = null, install_time = new.start_time
  where p.install_schedule_id = new.id;
  update public.profile_installs as p
  set remove_schedule_id = null, removal_time = new.start_time,
    removal_cancelled = fleet.cut_text(coalesce(new.status_reason, 'cancelled'), 255)
  where p.remove_schedule_id = new.id;
  delete from public.schedules as s where s.id = new.id;
  return null;
end;
$$;

comment on function fleet.tg_forget_called_off_profile() is
  'What was to install or remove a profile and is cancelled before anything came of it is due no more, and was executed never: it leaves '
  'every list, its install keeps when and why, and what followed it is paused with the reason. Definer: nobody else writes profile_installs.';
revoke all on function fleet.tg_forget_called_off_profile() from public, anon, authenticated, service_role;

create or replace trigger schedules_85_forget_called_off_profile
  after update of status on public.schedules
  for each row
  when (
    new.status = 'cancelled'
    and old.status <> 'cancelled'
    and new.action_type in ('push_profile', 'remove_profile')
    and new.last_executed_at is null
  )
  execute function fleet.tg_forget_called_off_profile();

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
    case when tg_op = 'DELETE' then fleet.audited(to_jsonb(v_row), tg_argv[0]::text[]) end,
    case when tg_op = 'INSERT' then fleet.audited(to_jsonb(v_row), tg_argv[0]::text[]) end
  from fleet.audit_actor() as a;
  return null;
end;
$$;

comment on function fleet.tg_note_profile() is
  'Log a profile that was uploaded or deleted; its file is in another table. Definer: nobody may write the log.';
revoke all on function fleet.tg_note_profile() from public, anon, authenticated, service_role;

create or replace trigger profiles_90_note_inserted
  after insert on public.profiles
  for each row when (new.is_managed) execute function fleet.tg_note_profile('{created_at,updated_at}');
create or replace trigger profiles_91_note_change
  after update on public.profiles
  for each row
  when (
    new.is_managed
    and new.status in ('pending', 'deleting')
    and (new.name, new.status, new.options, new.content_sha256)
    is distinct from (old.name, old.status, old.options, old.content_sha256)
  )
  execute function fleet.tg_note_change('{created_at,updated_at}');
create or replace trigger profiles_92_note_deleted
  after delete on public.profiles
  for each row when (old.is_managed) execute function fleet.tg_note_profile('{created_at,updated_at}');

select fleet.keep_audit('public.profile_assignments', p_verbs => '{insert,delete}');
