-- What holds for device_commands however a row is written.

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

create or replace function fleet.command_problems(p_command public.device_commands)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select replace(q.field, 'action_type', 'command_type'), q.problem, q.hint
  from fleet.payload_problems(
    p_command.command_type, case when jsonb_typeof(p_command.payload) = 'object' then p_command.payload else '{}' end
  ) as q
  where q.field = 'action_type' or jsonb_typeof(p_command.payload) = 'object'
  union all
  select 'payload', 'must be an object', 'Example: {"message": "Hello"}'
  where jsonb_typeof(p_command.payload) is distinct from 'object'
  union all
  select 'status', 'must be pending for a new command', 'Leave status out.'
  where p_command.status is distinct from 'pending'
  union all
  select 'not_before', 'is missing', 'Leave it out for now.'
  where p_command.not_before is null
  union all
  select 'expires_at', 'is not after not_before', 'Leave expires_at out for 24 hours.'
  where p_command.expires_at <= p_command.not_before
  union all
  select * from fleet.whole_number_problem('priority', coalesce(to_jsonb(p_command.priority), 'null'), -100, 100)
  union all
  select * from fleet.whole_number_problem('max_attempts', coalesce(to_jsonb(p_command.max_attempts), 'null'), 1, 1000)
$$;

comment on function fleet.command_problems(public.device_commands) is
  'Everything that is wrong with a new command; no row where nothing is.';
revoke all on function fleet.command_problems(public.device_commands) from public, anon, authenticated, service_role;

create or replace function fleet.device_by_hostname(p_hostname text, p_owner_id uuid)
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_found bigint[];
begin
  select array_agg(d.id) into v_found
  from public.devices as d
  where lower(d.hostname) = lower(p_hostname)
    and d.status = 'active'
    and (p_owner_id is null or d.owner_id = p_owner_id)
    and (fleet.is_trusted_caller() or d.owner_id in (select fleet.my_owners()));

  if v_found is null then
    raise exception 'device_hostname: device "%" was not found', p_hostname
      using errcode = 'PT404', detail = 'device_not_found', hint = 'List your devices with: pgfleet device list';
  elsif cardinality(v_found) > 1 then
    raise exception 'device_hostname: "%" is the name of devices of several owners', p_hostname
      using errcode = 'PT409', detail = 'device_ambiguous', hint = 'Name device_id or owner_id as well.';
  end if;
  return v_found[1];
end;
$$;

comment on function fleet.device_by_hostname(text, uuid) is
  'The active device of that name that the caller may see. Raises device_not_found (PT404) or device_ambiguous (PT409).';
revoke all on function fleet.device_by_hostname(text, uuid) from public, anon, authenticated, service_role;

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

create or replace function fleet.plainly_claimed(p_old public.device_commands, p_new public.device_commands)
returns public.device_commands
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_commands := p_new;
  v_type public.command_types;
begin
  select t.* into v_type from public.command_types as t where t.name = p_old.command_type;
  if p_old.attempt > 0 and p_old.lease_expires_at is not null and v_type.rerun_safe is not true then
    -- Somebody may have been in the middle of it: see fleet.interrupt_unsafe.
    v_row.status := 'failed';
    v_row.reason := 'interrupted';
    v_row.error_message := 'the device may have been in the middle of it, and keeps no journal';
    v_row.executed_at := clock_timestamp();
    v_row.lease_expires_at := null;
    return v_row;
  end if;

  -- Taken by a plain UPDATE: that is a claim too, and gets a lease; a longer one, since such a client does not extend it.
  v_row.attempt := p_old.attempt + 1;
  v_row.claimed_at := clock_timestamp();
  v_row.journal_id := null;
  v_row.lease_expires_at := clock_timestamp() + make_interval(
    secs => fleet.setting_number('lease_seconds')::integer + coalesce(v_type.timeout_seconds, 0)
  );
  return v_row;
end;
$$;

comment on function fleet.plainly_claimed(public.device_commands, public.device_commands) is
  'The row of a command that a client without claim_commands took by setting its status to running.';
revoke all on function fleet.plainly_claimed(public.device_commands, public.device_commands)
  from public, anon, authenticated, service_role;

create or replace function fleet.tg_note_progress()
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

comment on function fleet.tg_note_progress() is
  'Note for the runs how many of their commands became final, or were deleted before. Definer: a device may not write the runs.';
revoke all on function fleet.tg_note_progress() from public, anon, authenticated, service_role;

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
