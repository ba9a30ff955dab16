-- What a device does with its commands: claim, extend, give back.

create or replace function fleet.interrupt_unsafe(p_device_id bigint, p_journal uuid)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
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
    and not exists (select 1 from public.command_types as t where t.name = c.command_type and t.rerun_safe)
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
  created_at timestamptz
)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device_id bigint := fleet.require_device();
  v_lease integer := fleet.setting_number('lease_seconds')::integer;
begin
  perform fleet.touch_device(v_device_id, p_now);
  perform fleet.interrupt_unsafe(v_device_id, p_journal);

  return query
  with candidate as (
    -- Skipping what is locked makes the push path and the poll path safe together.
    select c.id
    from public.device_commands as c
    where c.device_id = v_device_id
      and c.status = 'pending'
      and c.channel = 'agent'
      and c.not_before <= p_now
      and c.expires_at > p_now
      and not exists (
        select 1 from public.device_commands as w where w.id = c.waits_for and w.status in ('pending', 'running')
      )
    order by c.priority desc, c.id
    limit least(greatest(p_limit, 1), 100)
    for update skip locked
  ),
  claimed as (
    update public.device_commands as c
    set status = 'running',
        attempt = c.attempt + 1,
        claimed_at = p_now,
        lease_expires_at = p_now + make_interval(secs => v_lease),
        journal_id = p_journal
    from candidate as k
    where c.id = k.id
    returning c.*
  )
  -- A type that is gone by now is for the device to refuse; nothing that is leased may stay untold.
  select c.id, c.command_type, c.payload, c.attempt, c.priority::integer, coalesce(t.rerun_safe, false),
    coalesce(t.timeout_seconds, 60), c.lease_expires_at, v_lease, c.expires_at, c.run_id, c.step::integer, c.created_at
  from claimed as c
  left join public.command_types as t on t.name = c.command_type
  order by c.priority desc, c.id;
end;
$$;

comment on function fleet.claim_commands(integer, uuid, timestamptz) is
  'See public.claim_commands. Definer: a device may not write the table but through this.';
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
  created_at timestamptz
)
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select * from fleet.claim_commands(p_limit, p_journal, clock_timestamp())
$$;

comment on function public.claim_commands(integer, uuid) is
  'A device takes its next commands, the most urgent first, each with a lease that it must extend or finish. p_journal names the '
  'journal that remembers what was begun. Raises not_a_device (PT403).';
revoke all on function public.claim_commands(integer, uuid) from public, anon, authenticated, service_role;
grant execute on function public.claim_commands(integer, uuid) to authenticated, service_role;

create or replace function fleet.command_of_device(p_command_id bigint)
returns public.device_commands
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select c.*
  from public.device_commands as c
  where c.id = p_command_id
    and c.device_id = fleet.require_device()
    and c.channel = 'agent'
  for update
$$;

comment on function fleet.command_of_device(bigint) is 'A command of the calling device, locked; null where it has none such.';
revoke all on function fleet.command_of_device(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.refusal(p_command public.device_commands, p_attempt integer)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_command.id is null then 'not_found'
    when p_command.status = 'cancelled' then 'cancelled'
    when p_command.status not in ('pending', 'running') then 'already_final'
    when p_command.attempt is distinct from p_attempt then 'stale_attempt'
    -- Pending with its last lease on record: the lease ran out, but nobody has taken it since.
    when p_command.lease_expires_at is null then 'stale_attempt'
  end
$$;

comment on function fleet.refusal(public.device_commands, integer) is
  'Why a device that presents this attempt no longer holds the command; null where it does.';
revoke all on function fleet.refusal(public.device_commands, integer) from public, anon, authenticated, service_role;

create or replace function fleet.extend_command(p_command_id bigint, p_attempt integer, p_now timestamptz)
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
  set status = 'running',
      lease_expires_at = p_now + make_interval(secs => fleet.setting_number('lease_seconds')::integer)
  where c.id = p_command_id
  returning * into v_command;
  return jsonb_build_object('accepted', true, 'lease_expires_at', v_command.lease_expires_at);
end;
$$;

comment on function fleet.extend_command(bigint, integer, timestamptz) is
  'See public.extend_command. Definer: a device may not write the table but through this.';
revoke all on function fleet.extend_command(bigint, integer, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.extend_command(bigint, integer, timestamptz) to authenticated, service_role;

create or replace function public.extend_command(p_command_id bigint, p_attempt integer)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.extend_command(p_command_id, p_attempt, clock_timestamp())
$$;

comment on function public.extend_command(bigint, integer) is
  'Keep a command for longer. {accepted: true, lease_expires_at} or {accepted: false, reason: stale_attempt, already_final, '
  'cancelled, not_found}.';
revoke all on function public.extend_command(bigint, integer) from public, anon, authenticated, service_role;
grant execute on function public.extend_command(bigint, integer) to authenticated, service_role;

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
set search_path = pg_catalog, pg_temp
as $$
  select fleet.release_command(p_command_id, p_attempt)
$$;

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
