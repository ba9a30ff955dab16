-- What a device does with its commands: claim, extend, give back.

create or replace function fleet.interrupt_unsafe(p_device_id bigint, p_journal uuid)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Whoever held the lease may have been in the middle. Only the same journal can tell; without it, what is not safe to
  -- repeat ends here, and is not handed out again.
  update public.device_commands as c
  set status = 'failed', reason = 'interrupted',
      error_message = 'the device may have been in the middle of it, and its journal is gone'
  where c.device_id = p_device_id
    and c.status = 'pending'
    and c.channel = 'agent'
    and c.attempt > 0
    and c.lease_expires_at is not null
    and (c.journal_id is null or c.journal_id is distinct from p_journal)
    and not exists (select 1 from public.command_types as t where t.name = c.command_type and coalesce(t.owner_id, c.owner_id) = c.owner_id and t.rerun_safe);
end;
$$;

comment on function fleet.interrupt_unsafe(bigint, uuid) is
  'End as interrupted what a device lost its lease on, may not repeat, and cannot know about.';
revoke all on function fleet.interrupt_unsafe(bigint, uuid) from public, anon, authenticated, service_role;

create or replace function fleet.claim_commands(p_limit integer, p_journal uuid, p_now timestamptz)
returns table (
  command_id bigint,
  command_type text,
  payload jsonb,
  attempt integer,
  priority integer,
  rerun_safe boolean,
  timeout_seconds integer,
  lease_expires_at timestamptz,
  lease_seconds integer,
  expires_at timestamptz,
  run_id bigint,
  step integer,
  created_at timestamptz,
  trace_id text
)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
-- Planned at each call otherwise, as if the number of commands mattered, which takes longer than the claim; and by index always: a plan
-- of a time when there were few commands would walk over many.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
  v_claims json := fleet.jwt_claims();
  v_id uuid;
  v_device_id bigint;
  v_last_seen timestamptz;
  v_is_due boolean;
  v_is_lapsed boolean;
  v_lease integer;
begin
  -- Nearly every look finds nothing: one question tells who looks, as working_device_id does, and whether anything is to be done.
  if v_claims ->> 'role' = 'authenticated' then
    v_id := fleet.try_uuid(v_claims ->> 'sub');
    select d.id, d.last_seen,
      -- In the order of a claim, so that the first that is due ends it, however much waits.
      (
        select true
        from public.device_commands as c
        where c.device_id = d.id and c.status = 'pending' and c.channel = 'agent' and c.not_before <= p_now
        order by c.priority desc, c.created_at, c.id
        limit 1
      ),
      exists (
        select 1
        from public.device_commands as c
        where c.device_id = d.id and c.status = 'pending' and c.channel = 'agent' and c.attempt > 0 and c.lease_expires_at is not null
      )
    into v_device_id, v_last_seen, v_is_due, v_is_lapsed
    from (select x.id, x.last_seen, x.status, x.owner_id from public.devices as x where x.auth_id = v_id offset 0) as d
    where d.status = 'active'
      and not exists (select 1 from fleet.owner_moves as m where m.owner_id = d.owner_id);
  end if;
  if v_device_id is null then
    -- Which says why it may not.
    v_device_id := fleet.require_device();
  end if;

  if (v_last_seen > p_now - interval '30 seconds') is not true then
    perform fleet.touch_device(v_device_id, p_now);
    -- Looks that follow each other within half a minute count as one: to count is a write, and this was none.
    if v_is_due is not true then
      perform fleet.count_request(v_device_id, 'look', p_now);
    end if;
  end if;
  if v_is_lapsed then
    perform fleet.interrupt_unsafe(v_device_id, p_journal);
  end if;
  if v_is_due is not true then
    return;
  end if;

  v_lease := fleet.setting_number('lease_seconds');
  return query
  with claimed as (
    update public.device_commands as c
    set status = 'running',
        attempt = c.attempt + 1,
        claimed_at = p_now,
        lease_expires_at = p_now + make_interval(secs => v_lease),
        journal_id = p_journal
    where c.id = any (array(
      -- Skipping what is locked makes the push path and the poll path safe together.
      select k.id
      from public.device_commands as k
      where k.device_id = v_device_id
        and k.status = 'pending'
        and k.channel = 'agent'
        and k.not_before <= p_now
        and k.expires_at > p_now
        and (k.waits_for is null or not exists (
          select 1 from public.device_commands as w where w.id = k.waits_for and w.status in ('pending', 'running')
        ))
      order by k.priority desc, k.created_at, k.id
      limit least(greatest(p_limit, 1), 100)
      for update skip locked
    ))
    returning c.*
  )
  -- A type that is gone by now is for the device to refuse; nothing that is leased may stay untold.
  select c.id, c.command_type,
    case when strpos(c.payload::text, '"sealed:') > 0 then fleet.unsealed(c.owner_id, c.payload) else c.payload end,
    c.attempt, c.priority::integer, coalesce(t.rerun_safe, false),
    coalesce(t.timeout_seconds, 60), c.lease_expires_at, v_lease, c.expires_at, c.run_id, c.step::integer, c.created_at,
    fleet.trace_of(c.trace_id, c.owner_id, c.run_id, c.id)
  from claimed as c
  left join public.command_types as t on t.name = c.command_type and coalesce(t.owner_id, c.owner_id) = c.owner_id
  order by c.priority desc, c.created_at, c.id;
  perform fleet.count_request(v_device_id, case when found then 'claim' else 'look' end, p_now);
end;
$$;

comment on function fleet.claim_commands(integer, uuid, timestamptz) is
  'See public.claim_commands: keep that the device was heard of, and lease its next commands. Definer: a device may not write the table but '
  'through this.';
revoke all on function fleet.claim_commands(integer, uuid, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.claim_commands(integer, uuid, timestamptz) to authenticated, service_role;

create or replace function public.claim_commands(p_limit integer default 10, p_journal uuid default null)
returns table (
  command_id bigint,
  command_type text,
  payload jsonb,
  attempt integer,
  priority integer,
  rerun_safe boolean,
  timeout_seconds integer,
  lease_expires_at timestamptz,
  lease_seconds integer,
  expires_at timestamptz,
  run_id bigint,
  step integer,
  created_at timestamptz,
  trace_id text
)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- plpgsql keeps its plans; a function in SQL would be planned anew at each call.
  return query select * from fleet.claim_commands(p_limit, p_journal, clock_timestamp());
end;
$$;

comment on function public.claim_commands(integer, uuid) is
  'A device takes its next commands, the most urgent first, each with a lease that it must extend or finish. p_journal names the '
  'journal that remembers what was begun. Raises not_a_device (PT403).';
revoke all on function public.claim_commands(integer, uuid) from public, anon, authenticated, service_role;
grant execute on function public.claim_commands(integer, uuid) to authenticated, service_role;

create or replace function fleet.command_of_device(p_command_id bigint)
returns public.device_commands
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device_id bigint := fleet.require_device();
  v_command public.device_commands;
begin
  select c.* into v_command
  from public.device_commands as c
  where c.id = p_command_id and c.device_id = v_device_id and c.channel = 'agent'
  for update;
  return v_command;
end;
$$;

comment on function fleet.command_of_device(bigint) is 'A command of the calling device, locked; null where it has none such.';
revoke all on function fleet.command_of_device(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.refusal(p_command public.device_commands, p_attempt integer)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return case
    when p_command.id is null then 'not_found'
    when p_command.status = 'cancelled' then 'cancelled'
    when p_command.status not in ('pending', 'running') then 'already_final'
    when p_command.attempt is distinct from p_attempt then 'stale_attempt'
    -- Pending with its last lease on record: the lease ran out, but nobody has taken it since.
    when p_command.lease_expires_at is null then 'stale_attempt'
  end;
end;
$$;

comment on function fleet.refusal(public.device_commands, integer) is
  'Why a device that presents this attempt no longer holds the command; null where it does.';
revoke all on function fleet.refusal(public.device_commands, integer) from public, anon, authenticated, service_role;

create or replace function fleet.extend_command(
  p_command_id bigint,
  p_attempt integer,
  p_progress jsonb,
  p_now timestamptz
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_command public.device_commands := fleet.command_of_device(p_command_id);
  v_refusal text := fleet.refusal(v_command, p_attempt);
  -- A device that says too much keeps its command all the same.
  v_is_told boolean := jsonb_typeof(p_progress) = 'object'
    and pg_column_size(p_progress) <= fleet.limit_value('progress')
    and coalesce(v_command.progress_at <= p_now - interval '1 second', true);
begin
  if v_refusal is not null then
    return jsonb_build_object('accepted', false, 'reason', v_refusal);
  end if;

  update public.device_commands as c
  set status = 'running',
      lease_expires_at = p_now + make_interval(secs => fleet.setting_number('lease_seconds')::integer),
      -- Often enough to watch, seldom enough for a fleet that reports at once.
      progress = case when v_is_told then p_progress else c.progress end,
      progress_at = case when v_is_told then p_now else c.progress_at end
  where c.id = p_command_id
  returning * into v_command;
  return jsonb_build_object('accepted', true, 'lease_expires_at', v_command.lease_expires_at);
end;
$$;

comment on function fleet.extend_command(bigint, integer, jsonb, timestamptz) is
  'See public.extend_command. Definer: a device may not write the table but through this.';
revoke all on function fleet.extend_command(bigint, integer, jsonb, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.extend_command(bigint, integer, jsonb, timestamptz) to authenticated, service_role;

create or replace function public.extend_command(p_command_id bigint, p_attempt integer, p_progress jsonb default null)
returns jsonb
language sql
volatile
return fleet.extend_command(p_command_id, p_attempt, p_progress, clock_timestamp());

comment on function public.extend_command(bigint, integer, jsonb) is
  'Keep a command for longer, and tell in p_progress how far it is, such as {"percent": 40}; more than once a second, or 4 kB, is not taken down. {accepted: true, lease_expires_at} or {accepted: false, reason: stale_attempt, already_final, '
  'cancelled, not_found}.';
revoke all on function public.extend_command(bigint, integer, jsonb) from public, anon, authenticated, service_role;
grant execute on function public.extend_command(bigint, integer, jsonb) to authenticated, service_role;

create or replace function fleet.release_command(p_command_id bigint, p_attempt integer)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_command public.device_commands := fleet.command_of_device(p_command_id);
  v_refusal text := fleet.refusal(v_command, p_attempt);
begin
  if v_refusal is not null then
    return jsonb_build_object('accepted', false, 'reason', v_refusal);
  end if;

  update public.device_commands as c
  set status = 'pending', lease_expires_at = null
  where c.id = p_command_id;
  return jsonb_build_object('accepted', true, 'status', 'pending');
end;
$$;

comment on function fleet.release_command(bigint, integer) is
  'See public.release_command. Definer: a device may not write the table but through this.';
revoke all on function fleet.release_command(bigint, integer) from public, anon, authenticated, service_role;
grant execute on function fleet.release_command(bigint, integer) to authenticated, service_role;

create or replace function public.release_command(p_command_id bigint, p_attempt integer)
returns jsonb
language sql
volatile
return fleet.release_command(p_command_id, p_attempt);

comment on function public.release_command(bigint, integer) is
  'Give back a command that was claimed but not started; it counts as no failure. {accepted, status} or {accepted: false, reason}.';
revoke all on function public.release_command(bigint, integer) from public, anon, authenticated, service_role;
grant execute on function public.release_command(bigint, integer) to authenticated, service_role;

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
  select t.* into v_type
  from public.command_types as t
  where t.name = p_old.command_type and coalesce(t.owner_id, p_old.owner_id) = p_old.owner_id;
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
