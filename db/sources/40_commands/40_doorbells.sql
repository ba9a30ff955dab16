-- Doorbells: telling a device that it has work. Nothing depends on a ring; it only saves waiting.

create or replace function fleet.ring(p_auth_id uuid, p_command_id bigint, p_command_type text)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Plain Postgres without Realtime: devices look by themselves.
  if to_regprocedure('realtime.send(jsonb, text, text, boolean)') is not null then
    perform realtime.send(
      jsonb_build_object('command_id', p_command_id, 'command_type', p_command_type),
      'command',
      'device:' || p_auth_id,
      true
    );
  end if;
end;
$$;

comment on function fleet.ring(uuid, bigint, text) is
  'Send event command to the private topic device:<auth_id>. realtime.send turns its errors into warnings.';
revoke all on function fleet.ring(uuid, bigint, text) from public, anon, authenticated, service_role;

create or replace function fleet.queue_doorbells(p_command_ids bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  insert into fleet.doorbells as b (device_id, ring_at, priority, command_id, command_type)
  select distinct on (c.device_id, c.not_before) c.device_id, c.not_before, c.priority, c.id, c.command_type
  from public.device_commands as c
  where c.id = any (p_command_ids)
    and c.channel = 'agent'
  order by c.device_id, c.not_before, c.priority desc, c.id
  on conflict (device_id, ring_at) do update
    set priority = greatest(b.priority, excluded.priority)
$$;

comment on function fleet.queue_doorbells(bigint[]) is 'Leave it to the tick to ring for these commands, when they may start.';
revoke all on function fleet.queue_doorbells(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.ring_doorbells(p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rate numeric := fleet.setting_number('doorbell_rate');
  v_last timestamptz;
  v_elapsed numeric;
  v_most numeric;
  v_allowed integer;
  v_rung integer;
begin
  -- One session rings at a time; whoever finds the row taken leaves the bells to the other.
  select h.last_rang_at into v_last from fleet.heartbeat as h for update skip locked;
  if not found then
    return 0;
  end if;

  -- The pace holds however often the tick comes: what may be rung follows from the time since the last rings, a second's
  -- worth at most. A clock that was set back starts anew.
  v_elapsed := extract(epoch from p_now - v_last);
  v_most := greatest(1, 1 / nullif(v_rate, 0));
  v_allowed := floor(v_rate * case when v_elapsed >= -5 then least(v_elapsed, v_most) else v_most end);
  if v_allowed < 1 then
    return 0;
  end if;

  with chosen as (
    select b.device_id
    from fleet.doorbells as b
    where b.ring_at <= p_now
    group by b.device_id
    order by max(b.priority) desc, min(b.ring_at), b.device_id
    limit v_allowed
  ),
  taken as (
    -- One ring a device, however many commands wait.
    delete from fleet.doorbells as b
    using chosen as k
    where b.device_id = k.device_id and b.ring_at <= p_now
    returning b.device_id, b.priority, b.command_id, b.command_type
  )
  select count(fleet.ring(d.auth_id, t.command_id, t.command_type)) into v_rung
  from (
    select distinct on (x.device_id) x.device_id, x.command_id, x.command_type
    from taken as x
    order by x.device_id, x.priority desc, x.command_id
  ) as t
  join public.devices as d on d.id = t.device_id and d.status = 'active';
  if v_rung > 0 then
    update fleet.heartbeat set last_rang_at = p_now;
  end if;
  return v_rung;
end;
$$;

comment on function fleet.ring_doorbells(timestamptz) is
  'Ring what is due, the most urgent first, no faster than the setting doorbell_rate a second. Answers how many devices were rung.';
revoke all on function fleet.ring_doorbells(timestamptz) from public, anon, authenticated, service_role;
