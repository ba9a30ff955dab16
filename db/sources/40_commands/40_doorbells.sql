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
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- Planned for each list of ids otherwise.
set plan_cache_mode = force_generic_plan
as $$
begin
  insert into fleet.doorbells as b (device_id, owner_id, ring_at, priority, command_id, command_type)
  select distinct on (c.device_id, c.not_before) c.device_id, c.owner_id, c.not_before, c.priority, c.id, c.command_type
  from public.device_commands as c
  where c.id = any (p_command_ids)
    and c.channel = 'agent'
  order by c.device_id, c.not_before, c.priority desc, c.id
  on conflict (device_id, ring_at) do update
    set priority = greatest(b.priority, excluded.priority);
end;
$$;

comment on function fleet.queue_doorbells(bigint[]) is 'Leave it to the tick to ring for these commands, when they may start.';
revoke all on function fleet.queue_doorbells(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.queue_waiting(p_command_ids bigint[])
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into fleet.doorbells (device_id, owner_id, ring_at, priority, command_id, command_type)
  select c.device_id, c.owner_id, clock_timestamp(), c.priority, c.id, c.command_type
  from public.device_commands as c
  where c.waits_for = any (p_command_ids)
    and c.status = 'pending'
    and c.channel = 'agent'
  on conflict (device_id, ring_at) do nothing;
end;
$$;

comment on function fleet.queue_waiting(bigint[]) is 'Leave it to the tick to ring for what waited for these commands, and may start.';
revoke all on function fleet.queue_waiting(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.waiting_in_stretches(p_limit integer, p_now timestamptz)
returns table (
  owner_id uuid,
  device_id bigint,
  priority smallint,
  ring_at timestamptz,
  stretch_id bigint,
  command_id bigint,
  command_type text
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select s.owner_id, c.device_id, s.priority, s.ring_at, s.id, c.id, c.command_type
  from (
    select x.*, row_number() over (partition by x.owner_id order by x.priority desc, x.ring_at, x.id) as nth
    from fleet.doorbell_stretches as x
    where x.ring_at <= p_now
  ) as s
  cross join lateral (
    select w.id, w.device_id, w.command_type
    from public.device_commands as w
    where w.owner_id = s.owner_id
      and w.id between s.next_id and s.last_id
      -- Whoever has come by itself needs no ring.
      and w.status = 'pending'
      and w.channel = 'agent'
      and w.not_before <= p_now
    order by w.id
    limit p_limit
  ) as c
  -- A large run is many stretches, of which the first ones have more than can be rung.
  where s.nth <= 3;
end;
$$;

comment on function fleet.waiting_in_stretches(integer, timestamptz) is
  'Of the first stretches of each owner the commands that still wait for their devices, the next ones of each.';
revoke all on function fleet.waiting_in_stretches(integer, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.forget_told_stretches(p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from fleet.doorbell_stretches as s
  where s.ring_at <= p_now
    and (
      s.next_id > s.last_id
      or not exists (
        select 1
        from public.device_commands as w
        where w.owner_id = s.owner_id
          and w.id between s.next_id and s.last_id
          and w.status = 'pending'
          and w.channel = 'agent'
          and w.not_before <= p_now
      )
    );
end;
$$;

comment on function fleet.forget_told_stretches(timestamptz) is 'Delete the stretches in which nobody waits to be rung any more.';
revoke all on function fleet.forget_told_stretches(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.doorbells_waiting(p_due_by timestamptz)
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- As far as ids tell: to look at each command would cost what there is of them.
  return (select count(*) from fleet.doorbells as b where b.ring_at <= p_due_by)
    + coalesce(
      (select sum(s.last_id - s.next_id + 1) from fleet.doorbell_stretches as s where s.ring_at <= p_due_by), 0
    )::bigint;
end;
$$;

comment on function fleet.doorbells_waiting(timestamptz) is
  'How many devices were to be rung by then and were not; of a large fan-out as many as it has ids left.';
revoke all on function fleet.doorbells_waiting(timestamptz) from public, anon, authenticated, service_role;

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

  with due as materialized (
    select b.owner_id, b.device_id, b.priority, b.ring_at, null::bigint as stretch_id, b.command_id, b.command_type
    from fleet.doorbells as b
    where b.ring_at <= p_now
    union all
    select w.owner_id, w.device_id, w.priority, w.ring_at, w.stretch_id, w.command_id, w.command_type
    from fleet.waiting_in_stretches(v_allowed, p_now) as w
  ),
  chosen as (
    -- Owners take turns: nobody's fleet, however large or urgent, keeps the devices of others waiting.
    select g.device_id
    from (
      select b.device_id, max(b.priority) as priority, min(b.ring_at) as ring_at,
        row_number() over (partition by b.owner_id order by max(b.priority) desc, min(b.ring_at), b.device_id) as nth
      from due as b
      group by b.owner_id, b.device_id
    ) as g
    order by g.nth, g.priority desc, g.ring_at, g.device_id
    limit v_allowed
  ),
  spent as (
    -- One ring a device, however many commands wait.
    delete from fleet.doorbells as b
    using chosen as k
    where b.device_id = k.device_id and b.ring_at <= p_now
  ),
  moved as (
    -- A stretch goes on with the first that was not chosen.
    update fleet.doorbell_stretches as s
    set next_id = x.next_id
    from (
      select b.stretch_id, coalesce(min(b.command_id) filter (where k.device_id is null), max(b.command_id) + 1) as next_id
      from due as b
      left join chosen as k on k.device_id = b.device_id
      where b.stretch_id is not null
      group by b.stretch_id
    ) as x
    where s.id = x.stretch_id and s.next_id < x.next_id
  ),
  taken as (
    select b.device_id, b.priority, b.command_id, b.command_type
    from due as b
    join chosen as k on k.device_id = b.device_id
  )
  select count(fleet.ring(d.auth_id, t.command_id, t.command_type)) into v_rung
  from (
    select distinct on (x.device_id) x.device_id, x.command_id, x.command_type
    from taken as x
    -- A device looks for commands at every ring, and for geo actions only at one that speaks of them.
    order by x.device_id, (x.command_id is null) desc, x.priority desc, x.command_id
  ) as t
  join public.devices as d on d.id = t.device_id and d.status = 'active';
  perform fleet.forget_told_stretches(p_now);
  if v_rung > 0 then
    update fleet.heartbeat set last_rang_at = p_now;
  end if;
  return v_rung;
end;
$$;

comment on function fleet.ring_doorbells(timestamptz) is
  'Ring what is due, of each owner in turn the most urgent first, no faster than the setting doorbell_rate a second. Answers how many devices were rung.';
revoke all on function fleet.ring_doorbells(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.let_devices_hear()
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- The table belongs to Realtime: where there is none there is nothing to hear, and where a database was restored it is a new one.
  if to_regclass('realtime.messages') is null or exists (
    select 1
    from pg_catalog.pg_policies as p
    where p.schemaname = 'realtime' and p.tablename = 'messages' and p.policyname = 'pgfleet_messages_select_own_topic'
  ) then
    return;
  end if;
  execute $policy$
    create policy pgfleet_messages_select_own_topic on realtime.messages
      for select to authenticated
      using (
        (select fleet.current_device_id()) is not null
        and (select realtime.topic()) = 'device:' || (select fleet.current_subject())
      )
  $policy$;
end;
$$;

comment on function fleet.let_devices_hear() is
  'Let each device hear its own topic, and no other, where Realtime''s table is there and does not say so yet. Every migrate sees to it.';
revoke all on function fleet.let_devices_hear() from public, anon, authenticated, service_role;

create or replace function fleet.tg_ring_new_commands()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  c_stretch constant integer := 200;
  v_now timestamptz := clock_timestamp();
  v_from timestamptz := '-infinity';
  v_told uuid[] := '{}';
  v_are_later boolean := true;
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
    v_from := v_now;
    v_are_later := not found;
  end if;
  if v_are_later and (select count(*) from (select from new_rows limit c_stretch) as x) = c_stretch then
    -- Many that are to be rung at one time are told as a whole: a row for each would cost a third of what all else does.
    with told as (
      insert into fleet.doorbell_stretches (owner_id, ring_at, priority, next_id, last_id)
      select n.owner_id, min(n.not_before), min(n.priority), min(n.id), max(n.id)
      from new_rows as n
      where n.channel = 'agent' and n.status = 'pending' and n.wave is null and n.not_before > v_from
      group by n.owner_id
      having count(*) >= c_stretch and count(*) = count(distinct n.device_id)
        and min(n.not_before) = max(n.not_before) and min(n.priority) = max(n.priority)
      returning owner_id
    )
    select coalesce(array_agg(t.owner_id), '{}') into v_told from told as t;
  end if;
  insert into fleet.doorbells (device_id, owner_id, ring_at, priority, command_id, command_type)
  select n.device_id, n.owner_id, n.not_before, n.priority, n.id, n.command_type
  from new_rows as n
  where n.channel = 'agent' and n.status = 'pending' and n.wave is null and n.not_before > v_from and n.owner_id <> all (v_told)
  on conflict (device_id, ring_at) do nothing;
  return null;
end;
$$;

comment on function fleet.tg_ring_new_commands() is
  'Ring for new commands in their own transaction while they are few; leave many, and later ones, to the tick. Definer: whoever may '
  'insert a command may not write Realtime''s messages.';
revoke all on function fleet.tg_ring_new_commands() from public, anon, authenticated, service_role;
