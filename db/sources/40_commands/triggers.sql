-- What holds for device_commands however a row is written. The conditions keep the rows that the engine makes, thousands in one
-- statement, free of all but what they need.

create or replace function fleet.tg_prepare_command()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device public.devices;
  v_type public.command_types;
begin
  if new.device_id is null then
    new.device_id := fleet.device_by_hostname(new.device_hostname, new.owner_id);
  end if;
  select d.* into v_device from public.devices as d where d.id = new.device_id;
  if not found or (new.owner_id is not null and new.owner_id <> v_device.owner_id) then
    perform fleet.raise_device_not_found(new.device_id);
  end if;
  perform fleet.require_permission(v_device.owner_id, 'operate', format('device %s', new.device_id));
  if v_device.status = 'retired' then
    raise exception 'device "%" is retired', v_device.hostname
      using errcode = 'PT409', detail = 'device_retired', hint = 'Re-key it to bring it back: pgfleet device rekey <hostname>';
  end if;

  perform fleet.raise_problems('the command', 'command_invalid', array_agg(q))
  from fleet.command_problems(new) as q;

  select t.* into v_type from public.command_types as t where t.name = new.command_type;
  perform fleet.require_destructive(v_device.owner_id, new.command_type);
  new.owner_id := v_device.owner_id;
  new.device_hostname := v_device.hostname;
  new.channel := v_type.channel;
  new.expires_at := coalesce(new.expires_at, new.not_before + interval '24 hours');
  new.created_by := fleet.current_user_id();
  return new;
end;
$$;

comment on function fleet.tg_prepare_command() is
  'Check an ad-hoc command however it is inserted, and find its device by host name where only that is given. Definer: it checks the '
  'caller, then sees what the checks need to see.';
revoke all on function fleet.tg_prepare_command() from public, anon, authenticated, service_role;

create or replace trigger device_commands_01_prepare
  before insert on public.device_commands
  for each row when (new.run_id is null) execute function fleet.tg_prepare_command();

create or replace function fleet.tg_change_command_status()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_is_plain boolean;
begin
  if old.status not in ('pending', 'running') then
    raise exception 'command % is % already', old.id, old.status
      using errcode = 'PT409', detail = 'command_final', hint = 'What is final stays as it is.';
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
  'What is final stays final; a plain UPDATE of status is a claim or a finish like any other. Definer: it reads a setting.';
revoke all on function fleet.tg_change_command_status() from public, anon, authenticated, service_role;

create or replace trigger device_commands_02_change_status
  before update of status on public.device_commands
  for each row when (new.status is distinct from old.status) execute function fleet.tg_change_command_status();
-- Nobody rewrites what a device answered.
create or replace trigger device_commands_02_keep_final
  before update of result, error_message on public.device_commands
  for each row
  when (
    old.status not in ('pending', 'running')
    and (new.result is distinct from old.result or new.error_message is distinct from old.error_message)
  )
  execute function fleet.tg_change_command_status();

create or replace function fleet.tg_count_progress()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'DELETE' then
    -- What is deleted before it is final will not come any more; without this its run would wait for ever.
    insert into fleet.run_progress (run_id, completed, failed)
    select o.run_id, 0, count(*)
    from old_rows as o
    where o.status in ('pending', 'running')
      and exists (select 1 from public.schedule_runs as r where r.id = o.run_id)
    group by o.run_id;
    return null;
  end if;

  insert into fleet.run_progress (run_id, completed, failed)
  select n.run_id,
    count(*) filter (where n.status = 'completed'),
    count(*) filter (where n.status <> 'completed')
  from new_rows as n
  join old_rows as o on o.id = n.id
  where n.run_id is not null
    and o.status in ('pending', 'running')
    and n.status not in ('pending', 'running')
  group by n.run_id;

  -- Whatever waited for one of them may start.
  insert into fleet.doorbells (device_id, ring_at, priority, command_id, command_type)
  select c.device_id, clock_timestamp(), c.priority, c.id, c.command_type
  from new_rows as n
  join public.device_commands as c on c.waits_for = n.id
  where n.status not in ('pending', 'running')
    and c.status = 'pending'
    and c.channel = 'agent'
  on conflict (device_id, ring_at) do nothing;
  return null;
end;
$$;

comment on function fleet.tg_count_progress() is
  'Count for the runs how many of their commands became final, or were deleted before. Definer: a device may not write the runs.';
revoke all on function fleet.tg_count_progress() from public, anon, authenticated, service_role;

create or replace trigger device_commands_05_count_progress
  after update on public.device_commands
  referencing old table as old_rows new table as new_rows
  for each statement execute function fleet.tg_count_progress();
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
  v_strays public.device_commands[];
  v_one public.device_commands;
begin
  select array_agg(n) into v_strays
  from new_rows as n
  where not exists (select 1 from public.devices as d where d.id = n.device_id and d.owner_id = n.owner_id);

  foreach v_one in array coalesce(v_strays, '{}') loop
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
  'A command''s device exists and has the command''s owner, whoever wrote the row; one that is just being deleted gets none. Definer: it must see every device.';
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

create or replace function fleet.tg_ring_new_commands()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := clock_timestamp();
  -- What a tick makes is rung by the tick, at its pace: a thousand small runs are a large fan-out too.
  v_inline integer := case
    when fleet.is_ticking() then -1
    else fleet.setting_number('doorbell_inline_limit')::integer
  end;
begin
  if (
    select count(*)
    from (
      select 1 from new_rows as n
      where n.channel = 'agent' and n.status = 'pending' and n.not_before <= v_now
      limit v_inline + 1
    ) as few
  ) <= v_inline then
    perform fleet.ring(d.auth_id, t.id, t.command_type)
    from (
      select distinct on (n.device_id) n.device_id, n.id, n.command_type
      from new_rows as n
      where n.channel = 'agent' and n.status = 'pending' and n.not_before <= v_now
      order by n.device_id, n.priority desc, n.id
    ) as t
    join public.devices as d on d.id = t.device_id;

    insert into fleet.doorbells (device_id, ring_at, priority, command_id, command_type)
    select distinct on (n.device_id, n.not_before) n.device_id, n.not_before, n.priority, n.id, n.command_type
    from new_rows as n
    where n.channel = 'agent' and n.status = 'pending' and n.not_before > v_now
    on conflict (device_id, ring_at) do nothing;
  else
    insert into fleet.doorbells (device_id, ring_at, priority, command_id, command_type)
    select n.device_id, n.not_before, n.priority, n.id, n.command_type
    from new_rows as n
    where n.channel = 'agent' and n.status = 'pending'
    on conflict (device_id, ring_at) do nothing;
  end if;
  return null;
end;
$$;

comment on function fleet.tg_ring_new_commands() is
  'Ring for new commands in their own transaction while they are few; leave many, and later ones, to the tick. Definer: whoever may '
  'insert a command may not write Realtime''s messages.';
revoke all on function fleet.tg_ring_new_commands() from public, anon, authenticated, service_role;

create or replace trigger device_commands_04_ring
  after insert on public.device_commands
  referencing new table as new_rows
  for each statement execute function fleet.tg_ring_new_commands();
