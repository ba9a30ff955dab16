-- Ad-hoc commands: sending and cancelling without a schedule.

create or replace function fleet.send_command(
  p_device_id bigint,
  p_command_type text,
  p_payload jsonb,
  p_idempotency_key text,
  p_priority integer,
  p_not_before timestamptz,
  p_expires_after interval,
  p_max_attempts integer,
  p_now timestamptz
)
returns public.device_commands
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid;
  v_row public.device_commands;
begin
  select d.owner_id into v_owner from public.devices as d where d.id = p_device_id;
  if v_owner is null then
    perform fleet.raise_device_not_found(p_device_id);
  end if;
  perform fleet.require_permission(v_owner, 'operate', format('device %s', p_device_id));

  -- The triggers of the table check type, payload and device, as for every other insert.
  insert into public.device_commands as c (
    owner_id, device_id, command_type, payload, idempotency_key, priority, not_before, expires_at, max_attempts
  )
  values (
    v_owner, p_device_id, p_command_type, coalesce(p_payload, '{}'), p_idempotency_key,
    -- Far out of bounds is as wrong as out of bounds, and must not overflow the column before that can be said.
    case when p_priority between -1000 and 1000 then p_priority when p_priority is not null then sign(p_priority) * 1000 end,
    fleet.calendar_instant(coalesce(p_not_before, p_now)),
    fleet.calendar_instant(coalesce(p_not_before, p_now)) + coalesce(fleet.calendar_interval(p_expires_after), interval '24 hours'),
    coalesce(p_max_attempts, 3)
  )
  on conflict (device_id, idempotency_key) where idempotency_key is not null do nothing
  returning * into v_row;

  if v_row.id is null then
    select c.* into v_row
    from public.device_commands as c
    where c.device_id = p_device_id and c.idempotency_key = p_idempotency_key;
    if v_row.command_type <> p_command_type then
      raise exception 'the idempotency key was used for a command "%"', v_row.command_type
        using errcode = 'PT409', detail = 'idempotency_conflict', hint = 'Use a key of its own for each thing that is to happen.';
    end if;
  end if;
  return v_row;
end;
$$;

comment on function fleet.send_command(bigint, text, jsonb, text, integer, timestamptz, interval, integer, timestamptz) is
  'See public.send_command. Definer: it checks the caller.';
revoke all on function fleet.send_command(bigint, text, jsonb, text, integer, timestamptz, interval, integer, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.send_command(bigint, text, jsonb, text, integer, timestamptz, interval, integer, timestamptz)
  to authenticated, service_role;

create or replace function public.send_command(
  p_device_id bigint,
  p_command_type text,
  p_payload jsonb default '{}',
  p_idempotency_key text default null,
  p_priority integer default 0,
  p_not_before timestamptz default null,
  p_expires_after interval default null,
  p_max_attempts integer default null
)
returns public.device_commands
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Not in SQL, which would be planned anew at each call, as in claim_commands.
  return fleet.send_command(
    p_device_id, p_command_type, p_payload, p_idempotency_key, p_priority, p_not_before, p_expires_after, p_max_attempts,
    clock_timestamp()
  );
end;
$$;

comment on function public.send_command(bigint, text, jsonb, text, integer, timestamptz, interval, integer) is
  'Send one command to one device now, or not before an instant. The same idempotency key again gives the same row. Not started within '
  'p_expires_after (24 hours), it expires. Raises device_not_found (PT404), device_retired (PT409), permission_missing (PT403), '
  'idempotency_conflict (PT409) or command_invalid (PT422).';
revoke all on function public.send_command(bigint, text, jsonb, text, integer, timestamptz, interval, integer)
  from public, anon, authenticated, service_role;
grant execute on function public.send_command(bigint, text, jsonb, text, integer, timestamptz, interval, integer)
  to authenticated, service_role;

create or replace function fleet.raise_final(p_command_id bigint, p_status text)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'command % is % already', p_command_id, p_status
    using errcode = 'PT409', detail = 'command_final', hint = 'What is final stays as it is.';
end;
$$;

comment on function fleet.raise_final(bigint, text) is 'Raise command_final (PT409).';
revoke all on function fleet.raise_final(bigint, text) from public, anon, authenticated, service_role;

create or replace function fleet.raise_only_cancel(p_command_id bigint, p_what text)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception '% is for its device to say', p_what
    using errcode = 'PT403', detail = 'only_cancel', hint = format('Cancel it: select cancel_command(%s)', p_command_id);
end;
$$;

comment on function fleet.raise_only_cancel(bigint, text) is 'Raise only_cancel (PT403).';
revoke all on function fleet.raise_only_cancel(bigint, text) from public, anon, authenticated, service_role;

create or replace function fleet.cancel_command(p_command_id bigint, p_reason text)
returns public.device_commands
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_commands;
begin
  select c.* into v_row
  from public.device_commands as c
  where c.id = p_command_id and fleet.is_visible_owner(c.owner_id)
  for update;
  if not found then
    perform fleet.raise_not_found(format('command %s', p_command_id));
  end if;
  perform fleet.require_permission(v_row.owner_id, 'operate', format('command %s', p_command_id));

  if v_row.status = 'cancelled' then
    return v_row;
  elsif v_row.status not in ('pending', 'running') then
    perform fleet.raise_final(p_command_id, v_row.status);
  end if;

  update public.device_commands as c
  set status = 'cancelled', reason = coalesce(p_reason, 'cancelled')
  where c.id = p_command_id
  returning * into v_row;
  return v_row;
end;
$$;

comment on function fleet.cancel_command(bigint, text) is 'See public.cancel_command. Definer: it checks the caller.';
revoke all on function fleet.cancel_command(bigint, text) from public, anon, authenticated, service_role;
grant execute on function fleet.cancel_command(bigint, text) to authenticated, service_role;

create or replace function public.cancel_command(p_command_id bigint, p_reason text default null)
returns public.device_commands
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.cancel_command(p_command_id, p_reason)
$$;

comment on function public.cancel_command(bigint, text) is
  'Cancel a command. A device that is at it already hears so when it extends its lease or finishes. Raises command_not_found (PT404) or '
  'command_final (PT409).';
revoke all on function public.cancel_command(bigint, text) from public, anon, authenticated, service_role;
grant execute on function public.cancel_command(bigint, text) to authenticated, service_role;

create or replace function fleet.command_problems(p_command public.device_commands)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select replace(q.field, 'action_type', 'command_type'), q.problem, q.hint
  from fleet.payload_problems(
    coalesce(p_command.owner_id, (select d.owner_id from public.devices as d where d.id = p_command.device_id)), p_command.command_type,
    case when jsonb_typeof(p_command.payload) = 'object' then p_command.payload else '{}' end
  ) as q
  where q.field = 'action_type' or jsonb_typeof(p_command.payload) = 'object'
  union all
  select r.*
  from fleet.reference_problems(
    coalesce(p_command.owner_id, (select d.owner_id from public.devices as d where d.id = p_command.device_id)),
    p_command.command_type, p_command.payload
  ) as r
  where jsonb_typeof(p_command.payload) = 'object'
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
  select q.*
  from (values ('not_before', p_command.not_before), ('expires_at', p_command.expires_at)) as t(field, at)
  cross join lateral fleet.limit_problem(
    t.field, 'horizon',
    case
      when not isfinite(t.at) then 1000000
      when t.at > now() then ceil(extract(epoch from t.at - now()) / 86400)
    end
  ) as q
  union all
  select * from fleet.whole_number_problem('priority', coalesce(to_jsonb(p_command.priority), 'null'), -100, 100)
  union all
  select * from fleet.whole_number_problem('max_attempts', coalesce(to_jsonb(p_command.max_attempts), 'null'), 1, 1000)
$$;

comment on function fleet.command_problems(public.device_commands) is
  'Everything that is wrong with a new command; no row where nothing is.';
revoke all on function fleet.command_problems(public.device_commands) from public, anon, authenticated, service_role;

create or replace function fleet.is_within_bounds(
  p_status text,
  p_payload jsonb,
  p_priority smallint,
  p_max_attempts integer,
  p_not_before timestamptz,
  p_expires_at timestamptz,
  p_now timestamptz
)
returns boolean
language sql
stable
parallel safe
return coalesce(
  p_status = 'pending'
    and jsonb_typeof(p_payload) = 'object'
    and p_priority between -100 and 100
    and p_max_attempts between 1 and 1000
    and p_not_before > '-infinity'
    and p_not_before <= p_now + interval '3650 days'
    and (p_expires_at is null or (p_expires_at > p_not_before and p_expires_at <= p_now + interval '3650 days')),
  false
);

comment on function fleet.is_within_bounds(text, jsonb, smallint, integer, timestamptz, timestamptz, timestamptz) is
  'Whether a new command is one as far as can be told at a glance; where it is not, command_problems says why.';
revoke all on function fleet.is_within_bounds(text, jsonb, smallint, integer, timestamptz, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.is_within_bounds(text, jsonb, smallint, integer, timestamptz, timestamptz, timestamptz) to service_role;

create or replace function fleet.count_sent(p_owner_ids uuid[], p_counts bigint[], p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- Planned for each list otherwise, which takes longer than all that is done for one owner.
set plan_cache_mode = force_generic_plan
as $$
declare
  v_waiting double precision;
  v_one record;
begin
  if coalesce(current_setting('request.jwt.claims', true), '') <> '' and not fleet.is_trusted_caller() then
    for v_one in select g.owner_id, g.count from unnest(p_owner_ids, p_counts) as g(owner_id, count) loop
      if not fleet.take_quota(v_one.owner_id, 'commands_a_minute', v_one.count, p_now) then
        perform fleet.raise_quota('commands_a_minute', q.allowed, q.allowed)
        from fleet.quota_of(v_one.owner_id, 'commands_a_minute') as q(allowed);
      end if;
      perform fleet.require_quota(v_one.owner_id, 'commands_waiting');
    end loop;
    return;
  end if;

  perform fleet.take_quotas(p_owner_ids, p_counts, 'commands_a_minute', p_now);
  -- What waits is counted now and then only, twenty times until it is used up: to count it costs what there is of it.
  v_waiting := fleet.setting_number('quota_commands_waiting');
  for v_one in
    select g.owner_id
    from unnest(p_owner_ids, p_counts) as g(owner_id, count)
    left join fleet.owner_quotas as q on q.owner_id = g.owner_id and q.name = 'commands_waiting'
    where random() * coalesce(q.value, v_waiting) < g.count * 20.0
  loop
    if fleet.quota_used(v_one.owner_id, 'commands_waiting', p_now) > fleet.quota_of(v_one.owner_id, 'commands_waiting') then
      update fleet.quota_use as u
      set blocked_until = p_now + interval '5 seconds'
      where (u.owner_id, u.name) in (
        select x.owner_id, x.name
        from fleet.quota_use as x
        where x.owner_id = v_one.owner_id and x.name = 'commands_a_minute'
        for update skip locked
      );
    end if;
  end loop;
end;
$$;

comment on function fleet.count_sent(uuid[], bigint[], timestamptz) is
  'Count so many new commands of each of these owners towards their quotas. Raises quota_exceeded (PT429) where people send them; what '
  'schedules make is counted all the same, and waits from then on.';
revoke all on function fleet.count_sent(uuid[], bigint[], timestamptz) from public, anon, authenticated, service_role;
