-- What holds for device_commands however a row is written. Rows that the engine makes pass by all but what they need.

create or replace function fleet.tg_fill_command()
returns trigger
language plpgsql
-- No settings and no rights of its own, whose change would cost as much as all that is done here; so every name is qualified.
as $$
declare
  v_owner uuid;
  v_hostname text;
begin
  if current_user <> 'authenticated' and not fleet.may_hold_secrets(new.payload) and fleet.is_within_bounds(
    new.status, new.payload, new.priority, new.max_attempts, new.not_before, new.expires_at, pg_catalog.now()
  ) then
    select d.owner_id, d.hostname into v_owner, v_hostname
    from public.devices as d
    where d.id = new.device_id and d.status <> 'retired';
    if found and (new.owner_id <> v_owner) is not true then
      new.owner_id := v_owner;
      new.device_hostname := v_hostname;
      new.channel := 'agent';
      new.created_by := null;
      new.expires_at := coalesce(new.expires_at, new.not_before + interval '24 hours');
      return new;
    end if;
  end if;
  -- There is more to this one: the next trigger looks at it.
  perform pg_catalog.set_config('pgfleet.plain_type', '', true);
  return new;
end;
$$;

comment on function fleet.tg_fill_command() is
  'Fill in a command that comes after others of its type in one statement, where fleet.tg_prepare_command found nothing to be asked of them.';
revoke all on function fleet.tg_fill_command() from public, anon, authenticated, service_role;

create or replace trigger device_commands_01_fill
  before insert on public.device_commands
  for each row when (new.run_id is null and new.sent_as is null and current_setting('pgfleet.plain_type', true) = new.command_type)
  execute function fleet.tg_fill_command();

create or replace function fleet.tg_prepare_command()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_given record;
  v_is_trusted boolean := fleet.is_trusted_caller();
begin
  if new.device_id is null then
    new.device_id := fleet.device_by_hostname(new.device_hostname, new.owner_id);
  end if;
  -- One look for all that this row needs: a hundred thousand may come in one statement.
  select d.owner_id, d.hostname, d.status, t.channel, t.owner_id is not null or t.destructive or t.permission is not null as is_guarded
  into v_given
  from public.devices as d
  left join public.command_types as t on t.name = new.command_type and coalesce(t.owner_id, d.owner_id) = d.owner_id
  where d.id = new.device_id;
  if not found or (new.owner_id is not null and new.owner_id <> v_given.owner_id) then
    perform fleet.raise_device_not_found(new.device_id);
  elsif not v_is_trusted then
    perform fleet.require_permission(v_given.owner_id, 'operate', format('device %s', new.device_id));
    new.created_by := fleet.current_user_id();
  else
    new.created_by := null;
  end if;
  if v_given.status = 'retired' then
    raise exception 'device "%" is retired', v_given.hostname
      using errcode = 'PT409', detail = 'device_retired', hint = 'Re-key it to bring it back: select rekey_device(<id>)';
  end if;

  new.owner_id := v_given.owner_id;
  -- What the payload has to hold is asked of all rows together, when they are written.
  if v_given.channel is null or not fleet.is_within_bounds(
    new.status, new.payload, new.priority, new.max_attempts, new.not_before, new.expires_at, now()
  ) then
    perform fleet.raise_problems('the command', 'command_invalid', array_agg(q))
    from fleet.command_problems(new) as q;
  end if;
  if v_given.is_guarded then
    perform fleet.require_destructive(v_given.owner_id, new.command_type);
  end if;
  new.device_hostname := v_given.hostname;
  new.channel := v_given.channel;
  new.expires_at := coalesce(new.expires_at, new.not_before + interval '24 hours');
  if fleet.may_hold_secrets(new.payload) then
    perform fleet.require_seals(new.owner_id, new.payload);
    new.payload := fleet.sealed(new.owner_id, new.payload, new.expires_at);
  end if;
  if v_is_trusted and v_given.channel = 'agent' and not v_given.is_guarded then
    -- Until the statement ends, for those of its type that follow.
    perform set_config('pgfleet.plain_type', new.command_type, true);
  end if;
  return new;
end;
$$;

comment on function fleet.tg_prepare_command() is
  'Check an ad-hoc command however it is inserted, and find its device by host name where only that is given. Definer: it checks the '
  'caller, then sees what the checks need to see.';
revoke all on function fleet.tg_prepare_command() from public, anon, authenticated, service_role;

-- What is sent to many is prepared as a whole.
create or replace trigger device_commands_01_prepare
  before insert on public.device_commands
  for each row when (
    new.run_id is null and new.sent_as is null and (current_setting('pgfleet.plain_type', true) = new.command_type) is not true
  )
  execute function fleet.tg_prepare_command();

create or replace function fleet.tg_change_command_status()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_is_answer boolean := new.result is distinct from old.result or new.error_message is distinct from old.error_message;
  v_is_person boolean;
  v_is_plain boolean;
begin
  if new.status is null or new.status not in ('pending', 'running', 'completed', 'failed', 'expired', 'cancelled') then
    raise exception 'status: "%" is no status of a command', fleet.cut_text(new.status, 60)
      using errcode = 'PT422', detail = 'status_invalid',
            hint = 'Write running to claim it, where it is pending, and then completed or failed.';
  elsif old.status not in ('pending', 'running') and (new.status <> old.status or v_is_answer) then
    perform fleet.raise_final(old.id, old.status);
  end if;

  v_is_person := current_setting('request.jwt.claims', true) <> '' and fleet.current_user_id() is not null;
  if v_is_person and new.status not in (old.status, 'cancelled') then
    perform fleet.raise_only_cancel(old.id, format('command %s can only be cancelled: how it ended', old.id));
  elsif v_is_person and (v_is_answer or (new.executed_at is distinct from old.executed_at and new.status = old.status)) then
    perform fleet.raise_only_cancel(old.id, format('what command %s came to', old.id));
  elsif new.status = old.status then
    return new;
  -- A command that is cancelled has failed its run, and something may follow that; not, where its schedule is cancelled.
  elsif v_is_person and pg_trigger_depth() = 1 and old.schedule_id is not null then
    perform fleet.require_destructive_chain(old.owner_id, old.schedule_id, '{failed,either}');
  end if;

  if new.status not in ('pending', 'running') then
    v_is_plain := coalesce(fleet.jwt_claim('role') = 'authenticated', false);
    -- Devices' clocks are wrong; the engine's own times are kept.
    new.executed_at := case
      when v_is_plain and new.lease_expires_at is not distinct from old.lease_expires_at
        then clock_timestamp()
      else coalesce(new.executed_at, clock_timestamp())
    end;
    if v_is_plain and new.reason is not distinct from old.reason then
      new.reason := case new.status when 'failed' then 'error' when 'completed' then null else new.reason end;
    end if;
    new.lease_expires_at := null;
  elsif new.status = 'running' and new.lease_expires_at is not distinct from old.lease_expires_at then
    new := fleet.plainly_claimed(old, new);
  end if;
  return new;
end;
$$;

comment on function fleet.tg_change_command_status() is
  'What is final stays final, and nobody rewrites what a device answered; a plain UPDATE of status is a claim or a finish like any other, '
  'and a person may only cancel. Definer: it reads a setting, and tells a person from a device.';
revoke all on function fleet.tg_change_command_status() from public, anon, authenticated, service_role;

drop trigger if exists device_commands_02_keep_final on public.device_commands;
drop trigger if exists device_commands_02_keep_time on public.device_commands;
drop trigger if exists device_commands_02_only_devices_answer on public.device_commands;
drop function if exists fleet.tg_only_devices_answer();
-- Only the engine writes leases: there is nothing to be added to those. The condition is short, since each statement reads it anew.
create or replace trigger device_commands_02_change_status
  before update of status, result, error_message, executed_at on public.device_commands
  for each row when (new.lease_expires_at is not distinct from old.lease_expires_at or old.executed_at is not null)
  execute function fleet.tg_change_command_status();

-- What a person cancels is on record.
select fleet.keep_audit(
  'public.device_commands', p_verbs => '{update}', p_columns => '{status}',
  p_when => 'new.status = ''cancelled'' and fleet.current_user_id() is not null',
  p_without => '{payload,result,error_message,lease_expires_at,executed_at,created_at}'
);

create or replace function fleet.tg_count_progress()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- What is deleted before it is final will not come any more; without this its run would wait for ever.
  insert into fleet.run_progress (run_id, completed, failed)
  select o.run_id, 0, count(*)
  from old_rows as o
  where o.status in ('pending', 'running')
    and exists (select 1 from public.schedule_runs as r where r.id = o.run_id)
  group by o.run_id;
  return null;
end;
$$;

comment on function fleet.tg_count_progress() is
  'Count for the runs how many of their commands were deleted before they were final. Definer: a device may not write the runs.';
revoke all on function fleet.tg_count_progress() from public, anon, authenticated, service_role;

create or replace trigger device_commands_06_count_deleted
  after delete on public.device_commands
  referencing old table as old_rows
  for each statement execute function fleet.tg_count_progress();

create or replace function fleet.tg_check_new_commands()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_one public.device_commands;
begin
  if current_setting('pgfleet.plain_type', true) <> '' then
    perform set_config('pgfleet.plain_type', '', true);
  end if;

  -- Payloads that may lack something, each once, whatever the number of rows; the first that does ends it.
  for v_one in
    with sent as materialized (
      select t.name, t.owner_id, fleet.plain_payload_path(t.payload_keys) as path
      from public.command_types as t
      where t.payload_keys <> '{}'
        and t.name in (select n.command_type from new_rows as n where n.run_id is null and n.sent_as is null)
    )
    select distinct on (n.owner_id, n.command_type, n.payload) n.*
    from new_rows as n
    join sent as t on t.name = n.command_type and coalesce(t.owner_id, n.owner_id) = n.owner_id
    where n.run_id is null
      and n.sent_as is null
      and not jsonb_path_exists(n.payload, t.path)
  loop
    perform fleet.raise_problems('the command', 'command_invalid', array_agg(q))
    from fleet.command_problems(v_one) as q;
  end loop;

  -- Whoever says that the devices are known has read them in the same statement, as the triggers have for what is sent one by one.
  if current_setting('pgfleet.known_devices', true) = 'yes' then
    perform set_config('pgfleet.known_devices', '', true);
    return null;
  end if;
  for v_one in
    select n.* from new_rows as n
    where (n.run_id is not null or n.sent_as is not null)
      and not exists (select 1 from public.devices as d where d.id = n.device_id and d.owner_id = n.owner_id)
  loop
    if v_one.run_id is null or exists (select 1 from public.devices as d where d.id = v_one.device_id) then
      perform fleet.raise_device_not_found(v_one.device_id);
    end if;
    -- Deleted while its run expands: the run goes on without it.
    delete from public.device_commands as c where c.id = v_one.id;
  end loop;
  return null;
end;
$$;

comment on function fleet.tg_check_new_commands() is
  'The payload of a new command holds what its type needs; its device exists and has the command''s owner, whoever wrote the row; one that is just being deleted gets none. Definer: it must see every device.';
revoke all on function fleet.tg_check_new_commands() from public, anon, authenticated, service_role;

create or replace trigger device_commands_03_check
  after insert on public.device_commands
  referencing new table as new_rows
  for each statement execute function fleet.tg_check_new_commands();

create or replace function fleet.tg_delete_commands_of_runs()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from public.device_commands as c
  using old_rows as o
  where c.run_id = o.id;
  return null;
end;
$$;

comment on function fleet.tg_delete_commands_of_runs() is
  'Commands go with their run. Definer: whoever may delete a schedule may not delete commands.';
revoke all on function fleet.tg_delete_commands_of_runs() from public, anon, authenticated, service_role;

create or replace trigger schedule_runs_01_delete_commands
  after delete on public.schedule_runs
  referencing old table as old_rows
  for each statement execute function fleet.tg_delete_commands_of_runs();

create or replace function fleet.tg_delete_commands_of_devices()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from public.device_commands as c
  using old_rows as o
  where c.device_id = o.id;
  return null;
end;
$$;

comment on function fleet.tg_delete_commands_of_devices() is
  'Commands go with their device. Definer: whoever may delete a device may not delete commands.';
revoke all on function fleet.tg_delete_commands_of_devices() from public, anon, authenticated, service_role;

create or replace trigger devices_04_delete_commands
  after delete on public.devices
  referencing old table as old_rows
  for each statement execute function fleet.tg_delete_commands_of_devices();

create or replace function fleet.tg_count_commands()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.count_sent(array_agg(n.owner_id order by n.owner_id), array_agg(n.count order by n.owner_id), clock_timestamp())
  from (select x.owner_id, count(*) as count from new_rows as x group by x.owner_id) as n
  having count(*) > 0;
  return null;
end;
$$;

comment on function fleet.tg_count_commands() is
  'Count new commands towards the quotas of their owners; people are refused beyond (PT429), runs wait. Definer: nobody writes what is used.';
revoke all on function fleet.tg_count_commands() from public, anon, authenticated, service_role;

create or replace trigger device_commands_07_count
  after insert on public.device_commands
  referencing new table as new_rows
  for each statement execute function fleet.tg_count_commands();

create or replace trigger device_commands_04_ring
  after insert on public.device_commands
  referencing new table as new_rows
  for each statement execute function fleet.tg_ring_new_commands();
