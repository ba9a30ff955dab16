-- Generated from db/sources/40_commands by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/40_commands/02_sound.sql
-- What holds for each command, whoever writes it: one check in place of nine.

create or replace function fleet.is_sound_command(
  p_device_hostname text,
  p_command_type text,
  p_payload jsonb,
  p_channel text,
  p_priority smallint,
  p_max_attempts integer,
  p_status text,
  p_reason text,
  p_result jsonb,
  p_error_message text,
  p_progress jsonb,
  p_idempotency_key text,
  p_trace_id text
)
returns boolean
language plpgsql
immutable
parallel safe
-- Without settings, whose change would cost as much as all that is done here; so every name is qualified.
as $$
declare
  v_broken text := case
    when p_status not in ('pending', 'running', 'completed', 'failed', 'expired', 'cancelled') then 'status_is_known'
    when pg_catalog.pg_column_size(p_result) > 65536
      or pg_catalog.octet_length(p_reason) > 1020
      or pg_catalog.octet_length(p_error_message) > 16000
      or pg_catalog.octet_length(p_device_hostname) > 1012
      or pg_catalog.octet_length(p_command_type) > 1020
      or pg_catalog.pg_column_size(p_payload) > 65536
      or pg_catalog.octet_length(p_idempotency_key) > 1020
      then 'is_within_limits'
    when pg_catalog.jsonb_typeof(p_payload) <> 'object' then 'payload_is_an_object'
    when p_channel not in ('agent', 'mdm') then 'channel_is_known'
    when p_priority not between -100 and 100 then 'priority_is_within_bounds'
    when p_max_attempts not between 1 and 1000 then 'attempts_are_positive'
    when pg_catalog.jsonb_typeof(p_progress) <> 'object' then 'progress_is_an_object'
    when pg_catalog.pg_column_size(p_progress) > 4096 then 'progress_is_within_limits'
    when p_trace_id !~ '^[0-9a-f]{32}$' or p_trace_id = '00000000000000000000000000000000' then 'trace_id_is_one'
  end;
begin
  if v_broken is not null then
    perform fleet.raise_broken_check('device_commands', v_broken);
  end if;
  return true;
end;
$$;

comment on function fleet.is_sound_command(
  text, text, jsonb, text, smallint, integer, text, text, jsonb, text, jsonb, text, text
) is
  'The checks of device_commands in one: true, or it raises check_violation (23514) with the name of the one that is broken. Postgres reads '
  'the text of each check anew in every statement, which took a tenth of each claim.';
revoke all on function fleet.is_sound_command(
  text, text, jsonb, text, smallint, integer, text, text, jsonb, text, jsonb, text, text
) from public, anon, authenticated, service_role;
-- Postgres asks it with the rights of whoever writes.
grant execute on function fleet.is_sound_command(
  text, text, jsonb, text, smallint, integer, text, text, jsonb, text, jsonb, text, text
) to authenticated, service_role;

-- db/sources/40_commands/05_traces.sql
-- Which trace a command belongs to: derived, since a column that every row fills would cost every insert.

create or replace function fleet.trace_of(p_trace_id text, p_owner_id uuid, p_run_id bigint, p_command_id bigint)
returns text
language sql
-- Not immutable, as convert_to is not: Postgres would not put it in place then, and plan it anew for each claim.
stable
parallel safe
return coalesce(
  p_trace_id,
  -- All commands of a run have one. The owner tells databases apart that hand out the same numbers.
  left(encode(sha256(convert_to(coalesce(p_run_id::text, 'command ' || p_command_id::text) || ' of ' || p_owner_id::text, 'UTF8')), 'hex'), 32)
);

comment on function fleet.trace_of(text, uuid, bigint, bigint) is
  'The trace of a command, as 32 hex digits: the one that it was given, else the one that all commands of its run have, else its own. The first '
  '16 digits are the id of the run''s own span, which is the parent of what is done for it.';
revoke all on function fleet.trace_of(text, uuid, bigint, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.trace_of(text, uuid, bigint, bigint) to authenticated, service_role;

create or replace function fleet.worker_ended_runs(p_limit integer default 200, p_now timestamptz default clock_timestamp())
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Whatever ends meanwhile with an earlier time is committed by then. What ended long ago, when nobody asked, is told by nobody.
  v_until timestamptz := p_now - interval '5 seconds';
  v_told fleet.told_runs;
  v_found jsonb;
begin
  select t.* into v_told from fleet.told_runs as t for update skip locked;
  if not found then
    return '[]';
  end if;
  select coalesce(jsonb_agg(to_jsonb(e) order by e.finished_at, e.run_id), '[]') into v_found
  from (
    select r.id as run_id, r.owner_id, r.schedule_id, r.scheduled_for, coalesce(r.started_at, r.created_at) as started_at, r.finished_at,
      r.status, r.targeted, r.completed, r.failed, fleet.trace_of(null, r.owner_id, r.id, null) as trace_id
    from public.schedule_runs as r
    where (r.finished_at, r.id) > (greatest(v_told.finished_at, p_now - interval '10 minutes'), v_told.last_id)
      and r.finished_at <= v_until and r.targeted > 0
    order by r.finished_at, r.id
    limit least(p_limit, 1000)
  ) as e;
  update fleet.told_runs as t
  set finished_at = coalesce((v_found -> -1 ->> 'finished_at')::timestamptz, t.finished_at),
    last_id = coalesce((v_found -> -1 ->> 'run_id')::bigint, t.last_id)
  where v_found <> '[]';
  return v_found;
end;
$$;

comment on function fleet.worker_ended_runs(integer, timestamptz) is
  'Runs that ended since somebody asked last, each told once however many ask: {run_id, owner_id, schedule_id, trace_id, started_at, finished_at, '
  'status, …}. Definer: for the functions, which export the span of each.';
revoke all on function fleet.worker_ended_runs(integer, timestamptz) from public, anon, authenticated, service_role;

-- db/sources/40_commands/10_send.sql
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

-- db/sources/40_commands/15_send_to_many.sql
-- One command for many devices: checked once, sealed once, written in one statement.

create or replace function fleet.send_commands(
  p_targets jsonb,
  p_command_type text,
  p_payload jsonb,
  p_idempotency_key text,
  p_priority integer,
  p_not_before timestamptz,
  p_expires_after interval,
  p_max_attempts integer,
  p_now timestamptz
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
-- Compiling the plan would take longer than running it.
set jit = off
as $$
declare
  v_row public.device_commands;
  v_ids bigint[];
  v_groups bigint[];
  v_selector jsonb;
  v_known public.device_commands;
  v_count bigint;
begin
  perform fleet.raise_problems('who is meant', 'targets_invalid', array(
    select ('targets', 'must be an object', 'Example: {"group_ids": [3]} or {"selector": {"tags": ["lab"]}}')::fleet.problem
    where jsonb_typeof(p_targets) is distinct from 'object'
    union all
    select (k.key, 'is not known', 'The keys are device_ids, group_ids, selector and owner_id.')::fleet.problem
    from jsonb_object_keys(fleet.object_or_empty(p_targets)) as k(key)
    where k.key not in ('device_ids', 'group_ids', 'selector', 'owner_id')
    union all
    select (l.key, 'is not a list of ids', 'Write whole numbers without quotes, like [1, 2].')::fleet.problem
    from unnest('{device_ids,group_ids}'::text[]) as l(key)
    where jsonb_typeof(p_targets -> l.key) <> 'null' and not fleet.is_id_list(p_targets -> l.key)
    union all
    select q
    from (values ('device_ids', 'device_list'), ('group_ids', 'group_list')) as l(key, name)
    cross join lateral fleet.list_problem(l.key, l.name, p_targets -> l.key) as q
    union all
    select ('owner_id', 'is not the id of an owner', 'Leave it out where it is clear whose the devices are.')::fleet.problem
    where jsonb_typeof(p_targets -> 'owner_id') <> 'null' and fleet.try_uuid(p_targets ->> 'owner_id') is null
  ));
  v_ids := fleet.bigint_array(p_targets -> 'device_ids');
  v_groups := fleet.bigint_array(p_targets -> 'group_ids');
  v_selector := nullif(p_targets -> 'selector', 'null');
  v_row.owner_id := fleet.owner_or_own(fleet.owner_of_spec(p_targets));
  perform fleet.require_permission(v_row.owner_id, 'operate', format('owner %s', v_row.owner_id));
  perform fleet.raise_problems('who is meant', 'targets_invalid', array_agg(q))
  from fleet.target_problems(v_row.owner_id, v_ids, v_groups, v_selector) as q;

  v_row.command_type := p_command_type;
  v_row.payload := coalesce(p_payload, '{}');
  v_row.status := 'pending';
  -- Far out of bounds is as wrong as out of bounds, and must not overflow the column before that can be said.
  v_row.priority := case when abs(coalesce(p_priority, 0)::bigint) <= 1000 then coalesce(p_priority, 0) else 1000 end;
  v_row.max_attempts := coalesce(p_max_attempts, 3);
  v_row.not_before := fleet.calendar_instant(coalesce(p_not_before, p_now));
  v_row.expires_at := v_row.not_before + coalesce(fleet.calendar_interval(p_expires_after), interval '24 hours');
  -- How large and how deep it is comes first: what is too deep cannot even be looked at.
  perform fleet.raise_problems('the command', 'command_invalid', array(
    select q from fleet.row_limit_problems('device_commands', jsonb_build_object('payload', v_row.payload)) as q
  ));
  perform fleet.raise_problems('the command', 'command_invalid', array_agg(q)) from fleet.command_problems(v_row) as q;
  perform fleet.require_destructive(v_row.owner_id, p_command_type);
  perform fleet.require_seals(v_row.owner_id, v_row.payload);

  if p_idempotency_key is not null then
    -- Two that come together are one as well.
    perform pg_advisory_xact_lock(hashtext('pgfleet.sent'), hashtext(v_row.owner_id || p_idempotency_key));
    select c.* into v_known
    from public.device_commands as c
    where c.owner_id = v_row.owner_id and c.idempotency_key = p_idempotency_key and c.sent_as is not null
    limit 1;
    if v_known.command_type <> p_command_type then
      raise exception 'the idempotency key was used for a command "%"', v_known.command_type
        using errcode = 'PT409', detail = 'idempotency_conflict', hint = 'Use a key of its own for each thing that is to happen.';
    elsif v_known.id is not null then
      return jsonb_build_object(
        'sent_as', v_known.sent_as,
        'count', (select count(*) from public.device_commands as c where c.sent_as = v_known.sent_as)
      );
    end if;
  end if;

  v_row.sent_as := gen_random_uuid();
  v_row.payload := fleet.sealed(v_row.owner_id, v_row.payload, v_row.expires_at);
  v_row.channel := (
    select t.channel
    from public.command_types as t
    where t.name = p_command_type and coalesce(t.owner_id, v_row.owner_id) = v_row.owner_id
  );
  v_row.created_by := fleet.current_user_id();
  -- Until the insert of this statement.
  perform set_config('pgfleet.known_devices', 'yes', true);
  v_row.idempotency_key := p_idempotency_key;
  execute
    'insert into public.device_commands ('
    '  owner_id, device_id, device_hostname, channel, command_type, payload, idempotency_key, priority, not_before, expires_at,'
    '  max_attempts, created_by, sent_as'
    ') '
    'select ($1).owner_id, t.device_id, t.hostname, ($1).channel, ($1).command_type, ($1).payload, ($1).idempotency_key,'
    '  ($1).priority, ($1).not_before, ($1).expires_at, ($1).max_attempts, ($1).created_by, ($1).sent_as '
    'from fleet.targets(($1).owner_id, $2, $3, $4) as t'
    -- Said where there is no key, it would still cost each row a tenth.
    || case
      when p_idempotency_key is null then ''
      else ' on conflict (device_id, idempotency_key) where idempotency_key is not null do nothing'
    end
  using v_row, v_ids, v_groups, v_selector;
  get diagnostics v_count = row_count;
  return jsonb_build_object('sent_as', v_row.sent_as, 'count', v_count);
end;
$$;

comment on function fleet.send_commands(jsonb, text, jsonb, text, integer, timestamptz, interval, integer, timestamptz) is
  'See public.send_commands. Definer: it checks the caller.';
revoke all on function fleet.send_commands(jsonb, text, jsonb, text, integer, timestamptz, interval, integer, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.send_commands(jsonb, text, jsonb, text, integer, timestamptz, interval, integer, timestamptz)
  to authenticated, service_role;

create or replace function public.send_commands(
  p_targets jsonb,
  p_command_type text,
  p_payload jsonb default '{}',
  p_idempotency_key text default null,
  p_priority integer default 0,
  p_not_before timestamptz default null,
  p_expires_after interval default null,
  p_max_attempts integer default null
)
returns jsonb
language sql
volatile
return fleet.send_commands(
  p_targets, p_command_type, p_payload, p_idempotency_key, p_priority, p_not_before, p_expires_after, p_max_attempts,
  clock_timestamp()
);

comment on function public.send_commands(jsonb, text, jsonb, text, integer, timestamptz, interval, integer) is
  'Send one command to each of many devices: {device_ids, group_ids, selector}, as a schedule names them; those that are active get it. '
  '{sent_as, count}: the commands have sent_as in common. The same idempotency key again sends nothing and answers what was sent. Raises '
  'targets_invalid (PT422, or PT404), owner_not_found (PT404), permission_missing (PT403), idempotency_conflict (PT409), quota_exceeded (PT429) or '
  'command_invalid (PT422).';
revoke all on function public.send_commands(jsonb, text, jsonb, text, integer, timestamptz, interval, integer)
  from public, anon, authenticated, service_role;
grant execute on function public.send_commands(jsonb, text, jsonb, text, integer, timestamptz, interval, integer)
  to authenticated, service_role;

-- db/sources/40_commands/20_claim.sql
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

-- db/sources/40_commands/30_finish.sql
-- The end of an attempt: accepted once, retried by failure class.

create or replace function fleet.retry_policy(p_schedule_id bigint)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    (select fleet.effective_policies(s.policies) from public.schedules as s where s.id = p_schedule_id),
    fleet.default_policies()
  ) -> 'retry'
$$;

comment on function fleet.retry_policy(bigint) is 'How failures are tried again: by the schedule, or by default for ad-hoc commands.';
revoke all on function fleet.retry_policy(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.is_replaced(p_status text, p_reason text)
returns boolean
language sql
immutable
parallel safe
return p_status = 'cancelled' and p_reason is not distinct from 'replaced';

comment on function fleet.is_replaced(text, text) is
  'Whether a command ended like this because a later run took its place (overlap: replace), which is no failure.';
revoke all on function fleet.is_replaced(text, text) from public, anon, authenticated, service_role;

create or replace function fleet.is_retryable(p_policy jsonb, p_reason text)
returns boolean
language sql
immutable
parallel safe
return (p_policy -> 'on') ? coalesce(p_reason, 'error');

comment on function fleet.is_retryable(jsonb, text) is
  'Whether a failure of this class is tried again. interrupted, unsupported, forbidden, invalid_payload and their kin cannot be helped.';
revoke all on function fleet.is_retryable(jsonb, text) from public, anon, authenticated, service_role;

create or replace function fleet.retry_delay(p_policy jsonb, p_failure_count integer)
returns interval
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select least(
    coalesce(
      (p_policy ->> 'backoff')::interval, make_interval(secs => fleet.setting_number('retry_backoff_seconds')::double precision)
    ) * power(2, least(greatest(p_failure_count, 1), 20) - 1),
    coalesce((p_policy ->> 'max_backoff')::interval, interval '1 hour')
  )
  -- A fleet that failed together must not come back together.
  * (1 + 0.2 * random())
$$;

comment on function fleet.retry_delay(jsonb, integer) is
  'Pause after the n-th failure: the backoff, doubling up to max_backoff, and up to a fifth more by chance.';
revoke all on function fleet.retry_delay(jsonb, integer) from public, anon, authenticated, service_role;

create or replace function fleet.count_ended(p_command_ids bigint[])
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into fleet.run_progress (run_id, completed, failed, replaced)
  select c.run_id,
    count(*) filter (where c.status = 'completed'),
    count(*) filter (where c.status <> 'completed' and not fleet.is_replaced(c.status, c.reason)),
    count(*) filter (where fleet.is_replaced(c.status, c.reason))
  from public.device_commands as c
  where c.id = any (p_command_ids) and c.run_id is not null
  group by c.run_id;

  -- What follows device by device has this one's turn; what a later run took the place of has come to nothing.
  insert into fleet.chain_steps (owner_id, schedule_id, after_run_id, device_id)
  select s.owner_id, s.id, c.run_id, c.device_id
  from public.device_commands as c
  join public.schedules as s on s.after_schedule_id = c.schedule_id and s.owner_id = c.owner_id
  where c.id = any (p_command_ids)
    and c.run_id is not null
    and c.step = 0
    and s.after_per_device
    and s.status in ('active', 'completed')
    and not fleet.is_replaced(c.status, c.reason)
    and s.after_on in ('either', case c.status when 'completed' then 'completed' else 'failed' end);
end;
$$;

comment on function fleet.count_ended(bigint[]) is
  'Count for the runs of these commands that they became final, and let their devices go on with what follows.';
revoke all on function fleet.count_ended(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.end_attempt(
  p_command public.device_commands,
  p_status text,
  p_result jsonb,
  p_error text,
  p_reason text,
  p_now timestamptz
)
returns public.device_commands
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_commands;
  -- Pending means that its lease ran out, which was counted then.
  v_failures integer := p_command.failure_count + (p_status = 'failed' and p_command.status = 'running')::integer;
  v_policy jsonb;
  v_retry_at timestamptz;
  v_again boolean := false;
begin
  if p_status = 'failed' and v_failures < p_command.max_attempts then
    v_policy := fleet.retry_policy(p_command.schedule_id);
    v_retry_at := p_now + fleet.retry_delay(v_policy, v_failures);
    v_again := fleet.is_retryable(v_policy, p_reason) and v_retry_at < p_command.expires_at;
  end if;

  update public.device_commands as c
  set status = case when v_again then 'pending' else p_status end,
      reason = case when p_status = 'failed' then coalesce(p_reason, 'error') end,
      failure_count = v_failures,
      not_before = case when v_again then v_retry_at else c.not_before end,
      -- Whoever held it has said how it ended: nobody is owed another answer for this attempt.
      lease_expires_at = null,
      executed_at = case when v_again then null else p_now end,
      result = p_result,
      error_message = p_error
  where c.id = p_command.id
  returning * into v_row;

  if v_again and v_row.channel = 'agent' then
    perform fleet.queue_doorbells(array[v_row.id]);
  end if;
  return v_row;
end;
$$;

comment on function fleet.end_attempt(public.device_commands, text, jsonb, text, text, timestamptz) is
  'Write how an attempt ended: final, or waiting for the next one. The caller holds the row.';
revoke all on function fleet.end_attempt(public.device_commands, text, jsonb, text, text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.complete_commands(p_device_id bigint, p_ended jsonb, p_now timestamptz)
returns integer[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_done integer[];
begin
  -- What came through and is still held, in one statement; all else is looked at one by one.
  with given as materialized (
    select distinct on (g.id) g.*
    from (
      select e.n::integer as n, fleet.try_bigint(e.item ->> 'command_id') as id, fleet.try_bigint(e.item ->> 'attempt') as attempt,
        nullif(e.item -> 'result', 'null') as result, e.item ->> 'error' as error
      from jsonb_array_elements(p_ended) with ordinality as e(item, n)
      where e.item ->> 'status' = 'completed'
    ) as g
    order by g.id, g.n
  ),
  done as (
    update public.device_commands as c
    set status = 'completed', reason = null, lease_expires_at = null, executed_at = p_now, result = g.result, error_message = g.error
    from given as g
    where c.id = g.id
      and c.device_id = p_device_id
      and c.channel = 'agent'
      and c.attempt = g.attempt
      and c.status in ('pending', 'running')
      and c.lease_expires_at is not null
    returning g.n
  )
  select array_agg(d.n) into v_done from done as d;
  return coalesce(v_done, '{}');
end;
$$;

comment on function fleet.complete_commands(bigint, jsonb, timestamptz) is
  'Finish what of these results is a success of an attempt that the device still holds. Answers their places in the list.';
revoke all on function fleet.complete_commands(bigint, jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.finish_attempt(
  p_device_id bigint,
  p_command_id bigint,
  p_attempt integer,
  p_status text,
  p_result jsonb,
  p_error text,
  p_reason text,
  p_now timestamptz
)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_command public.device_commands;
  v_refusal text;
begin
  select c.* into v_command
  from public.device_commands as c
  where c.id = p_command_id and c.device_id = p_device_id and c.channel = 'agent'
  for update;
  v_refusal := fleet.refusal(v_command, p_attempt);
  -- The answer to a finish may get lost on its way: the same finish again is the same success.
  if v_refusal = 'already_final' and v_command.attempt = p_attempt and v_command.status = p_status then
    return jsonb_build_object('accepted', true, 'status', v_command.status);
  elsif v_refusal = 'stale_attempt' and v_command.attempt = p_attempt and p_status = 'failed'
    and v_command.reason = fleet.cut_text(coalesce(p_reason, 'error'), fleet.limit_value('reason'))
    and v_command.error_message is not distinct from fleet.cut_text(p_error, fleet.limit_value('error'))
  then
    return jsonb_build_object('accepted', true, 'status', v_command.status, 'retry_at', v_command.not_before);
  elsif v_refusal is not null then
    return jsonb_build_object('accepted', false, 'reason', v_refusal);
  end if;

  v_command := fleet.end_attempt(v_command, p_status, p_result, p_error, p_reason, p_now);
  return jsonb_build_object('accepted', true, 'status', v_command.status)
    || case
      when v_command.status = 'pending' then jsonb_build_object('retry_at', v_command.not_before)
      else '{}'
    end;
end;
$$;

comment on function fleet.finish_attempt(bigint, bigint, integer, text, jsonb, text, text, timestamptz) is
  'End an attempt of a device, or say why not.';
revoke all on function fleet.finish_attempt(bigint, bigint, integer, text, jsonb, text, text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.finish_command(
  p_command_id bigint,
  p_attempt integer,
  p_status text,
  p_result jsonb,
  p_error text,
  p_reason text,
  p_now timestamptz
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device_id bigint;
begin
  if p_status is null or p_status not in ('completed', 'failed') then
    raise exception 'p_status must be completed or failed, not %', coalesce(quote_literal(p_status), 'null')
      using errcode = 'PT422', detail = 'status_invalid', hint = 'Use extend_command to go on, release_command to give it back.';
  end if;

  v_device_id := fleet.working_device_id();
  if v_device_id is null then
    perform fleet.require_device();
  end if;
  if p_status = 'completed' then
    -- Nearly all of them: a success of an attempt that is still held.
    update public.device_commands as c
    set status = 'completed', reason = null, lease_expires_at = null, executed_at = p_now, result = p_result, error_message = p_error
    where c.id = p_command_id
      and c.device_id = v_device_id
      and c.channel = 'agent'
      and c.attempt = p_attempt
      and c.status in ('pending', 'running')
      and c.lease_expires_at is not null;
    if found then
      return '{"accepted": true, "status": "completed"}';
    end if;
  end if;
  return fleet.finish_attempt(v_device_id, p_command_id, p_attempt, p_status, p_result, p_error, p_reason, p_now);
end;
$$;

comment on function fleet.finish_command(bigint, integer, text, jsonb, text, text, timestamptz) is
  'See public.finish_command. Definer: a device may not write the table but through this.';
revoke all on function fleet.finish_command(bigint, integer, text, jsonb, text, text, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.finish_command(bigint, integer, text, jsonb, text, text, timestamptz)
  to authenticated, service_role;

create or replace function public.finish_command(
  p_command_id bigint,
  p_attempt integer,
  p_status text,
  p_result jsonb default null,
  p_error text default null,
  p_reason text default null
)
returns jsonb
language sql
volatile
return fleet.finish_command(p_command_id, p_attempt, p_status, p_result, p_error, p_reason, clock_timestamp());

comment on function public.finish_command(bigint, integer, text, jsonb, text, text) is
  'A device says how an attempt ended. {accepted: true, status} — status is pending, with retry_at, where it will be tried again — or '
  '{accepted: false, reason: stale_attempt, already_final, cancelled, not_found}. p_reason is the failure class. Raises status_invalid '
  '(PT422) or not_a_device (PT403). For several at once there is finish_commands.';
revoke all on function public.finish_command(bigint, integer, text, jsonb, text, text)
  from public, anon, authenticated, service_role;
grant execute on function public.finish_command(bigint, integer, text, jsonb, text, text)
  to authenticated, service_role;

-- db/sources/40_commands/35_work.sql
-- Devices that do much: many results in one call, and the next commands with the answer.

create or replace function fleet.finish_each(p_device_id bigint, p_results jsonb, p_now timestamptz)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_done integer[];
  v_others jsonb := '{}';
  v_one record;
begin
  if jsonb_typeof(p_results) is distinct from 'array' then
    raise exception 'results must be a list, not %', coalesce(jsonb_typeof(p_results), 'null')
      using errcode = 'PT422', detail = 'results_invalid',
            hint = 'Example: [{"command_id": 7, "attempt": 1, "status": "completed", "result": {}}]';
  end if;
  if jsonb_array_length(p_results) > fleet.limit_value('results') then
    perform fleet.raise_problems('the list of results', 'results_invalid', array_agg(q))
    from fleet.list_problem('results', 'results', p_results) as q;
  end if;

  v_done := fleet.complete_commands(p_device_id, p_results, p_now);
  if cardinality(v_done) < jsonb_array_length(p_results) then
    for v_one in
      select e.n, fleet.try_bigint(e.item ->> 'command_id') as id, e.item ->> 'status' as status,
        case when e.item ->> 'attempt' ~ '^[0-9]{1,9}$' then (e.item ->> 'attempt')::integer end as attempt,
        nullif(e.item -> 'result', 'null') as result, e.item ->> 'error' as error, e.item ->> 'reason' as reason
      from jsonb_array_elements(p_results) with ordinality as e(item, n)
      where e.n <> all (v_done)
      order by e.n
    loop
      v_others := v_others || jsonb_build_object(
        v_one.n,
        case
          when v_one.status in ('completed', 'failed') then fleet.finish_attempt(
            p_device_id, v_one.id, v_one.attempt, v_one.status, v_one.result, v_one.error, v_one.reason, p_now
          )
          else '{"accepted": false, "reason": "status_invalid"}'
        end
      );
    end loop;
  end if;

  return (
    select coalesce(
      jsonb_agg(
        jsonb_build_object('command_id', e.item -> 'command_id')
          || coalesce(v_others -> e.n::text, '{"accepted": true, "status": "completed"}')
        order by e.n
      ),
      '[]'
    )
    from jsonb_array_elements(p_results) with ordinality as e(item, n)
  );
end;
$$;

comment on function fleet.finish_each(bigint, jsonb, timestamptz) is
  'Finish what a device says of several attempts, each by itself. Raises results_invalid (PT422).';
revoke all on function fleet.finish_each(bigint, jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.finish_commands(p_results jsonb, p_now timestamptz)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return fleet.finish_each(fleet.require_device(), p_results, p_now);
end;
$$;

comment on function fleet.finish_commands(jsonb, timestamptz) is
  'See public.finish_commands. Definer: a device may not write the table but through this.';
revoke all on function fleet.finish_commands(jsonb, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.finish_commands(jsonb, timestamptz) to authenticated, service_role;

create or replace function public.finish_commands(p_results jsonb)
returns jsonb
language sql
volatile
return fleet.finish_commands(p_results, clock_timestamp());

comment on function public.finish_commands(jsonb) is
  'A device says how several attempts ended: a list of {command_id, attempt, status, result, error, reason}, 100 at most. Answers a list in '
  'the same order: each is {command_id} with what finish_command answers; one that is refused keeps none of the others from being '
  'accepted, also where its status is no status (status_invalid). Raises results_invalid (PT422) or not_a_device (PT403).';
revoke all on function public.finish_commands(jsonb) from public, anon, authenticated, service_role;
grant execute on function public.finish_commands(jsonb) to authenticated, service_role;

create or replace function fleet.work(p_finished jsonb, p_limit integer, p_journal uuid, p_now timestamptz)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device_id bigint := fleet.require_device();
  v_finished jsonb := '[]';
  v_commands jsonb;
begin
  if p_finished is distinct from '[]' then
    v_finished := fleet.finish_each(v_device_id, p_finished, p_now);
  end if;
  if p_limit > 0 then
    select jsonb_agg(to_jsonb(c)) into v_commands from fleet.claim_commands(p_limit, p_journal, p_now) as c;
  else
    perform fleet.touch_device(v_device_id, p_now);
  end if;
  return jsonb_build_object('finished', v_finished, 'commands', coalesce(v_commands, '[]'));
end;
$$;

comment on function fleet.work(jsonb, integer, uuid, timestamptz) is
  'See public.work. Definer: a device may not write the table but through this.';
revoke all on function fleet.work(jsonb, integer, uuid, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.work(jsonb, integer, uuid, timestamptz) to authenticated, service_role;

create or replace function public.work(p_finished jsonb default '[]', p_limit integer default 10, p_journal uuid default null)
returns jsonb
language sql
volatile
return fleet.work(p_finished, p_limit, p_journal, clock_timestamp());

comment on function public.work(jsonb, integer, uuid) is
  'A device says how attempts ended, and takes its next commands, in one call. {finished, commands}: finished is what finish_commands '
  'answers, commands what claim_commands does; with p_limit 0 none are taken. Raises results_invalid (PT422) or not_a_device (PT403).';
revoke all on function public.work(jsonb, integer, uuid) from public, anon, authenticated, service_role;
grant execute on function public.work(jsonb, integer, uuid) to authenticated, service_role;

-- db/sources/40_commands/40_doorbells.sql
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

-- db/sources/40_commands/50_expire.sql
-- What time does to commands: leases run out, commands expire.

create or replace function fleet.sweep_commands(p_now timestamptz, p_limit integer default 5000)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_swept integer := 0;
  v_again bigint[];
  v_count integer;
begin
  with lapsed as (
    select c.id, c.failure_count + 1 >= c.max_attempts
        or not fleet.is_retryable(fleet.retry_policy(c.schedule_id), 'lease_expired') as is_last
    from public.device_commands as c
    where c.status = 'running' and c.lease_expires_at < p_now
    order by c.lease_expires_at
    limit p_limit
    for update skip locked
  ),
  changed as (
    update public.device_commands as c
    set failure_count = c.failure_count + 1,
        status = case
          when l.is_last then 'failed'
          when c.expires_at <= p_now then 'expired'
          else 'pending'
        end,
        reason = 'lease_expired',
        error_message = case
          when l.is_last or c.expires_at <= p_now then 'the device took it and did not answer'
        end
    from lapsed as l
    where c.id = l.id
    returning c.id, c.status, c.channel
  )
  select coalesce(array_agg(c.id) filter (where c.status = 'pending' and c.channel = 'agent'), '{}'), count(*)
  into v_again, v_swept
  from changed as c;
  if v_again <> '{}' then
    perform fleet.queue_doorbells(v_again);
  end if;

  with expired as (
    select c.id
    from public.device_commands as c
    where c.status = 'pending' and c.expires_at <= p_now
    order by c.expires_at
    limit p_limit
    for update skip locked
  )
  update public.device_commands as c
  set status = 'expired', reason = coalesce(c.reason, 'expired')
  from expired as e
  where c.id = e.id;
  get diagnostics v_count = row_count;
  return v_swept + v_count;
end;
$$;

comment on function fleet.sweep_commands(timestamptz, integer) is
  'Offer again what its device did not answer for, end what failed too often, expire what nobody started in time. Answers how many.';
revoke all on function fleet.sweep_commands(timestamptz, integer) from public, anon, authenticated, service_role;

-- db/sources/40_commands/views.sql
-- Commands as people list them.

drop view if exists public.command_list;
create view public.command_list with (security_invoker = true) as
select
  c.id,
  c.owner_id,
  c.device_hostname,
  c.device_id,
  c.command_type,
  c.status,
  c.reason,
  c.attempt,
  c.max_attempts,
  c.failure_count,
  c.priority,
  c.payload,
  c.result,
  c.error_message,
  c.channel,
  c.run_id,
  c.schedule_id,
  c.step,
  c.not_before,
  c.expires_at,
  c.lease_expires_at,
  c.claimed_at,
  c.executed_at,
  c.idempotency_key,
  c.created_at,
  c.sent_as,
  c.progress,
  c.progress_at,
  fleet.trace_of(c.trace_id, c.owner_id, c.run_id, c.id) as trace_id
from public.device_commands as c;

comment on view public.command_list is
  'One action on one device, and what became of it.';
select fleet.inherit_comments('public.command_list', 'public.device_commands');
revoke all on table public.command_list from public, anon, authenticated, service_role;
grant select on table public.command_list to authenticated, service_role;

-- db/sources/40_commands/triggers.sql
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

-- db/sources/40_commands/access.sql
-- Who sees commands: members of the owner, and each device its own. A device may also answer by a plain UPDATE.

revoke all on table public.device_commands from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.device_commands to service_role;
revoke all on sequence public.device_commands_id_seq from public, anon, authenticated, service_role;
grant usage, select on sequence public.device_commands_id_seq to service_role;
drop policy if exists device_commands_all_service_role on public.device_commands;
create policy device_commands_all_service_role on public.device_commands
  for all to service_role using (true) with check (true);

grant select on table public.device_commands to authenticated;
grant insert (
  owner_id, device_id, device_hostname, command_type, payload, priority, status, not_before, expires_at, max_attempts, idempotency_key
) on table public.device_commands to authenticated;
-- executed_at is what simple clients send along; the trigger puts the database's own time there.
grant update (status, result, error_message, executed_at) on table public.device_commands to authenticated;

drop policy if exists device_commands_select_member_or_device on public.device_commands;
create policy device_commands_select_member_or_device on public.device_commands
  for select to authenticated
  using ((device_id = (select fleet.current_device_id()) and channel = 'agent') or owner_id = any (array(select fleet.my_owners())));
drop policy if exists device_commands_insert_operator on public.device_commands;
create policy device_commands_insert_operator on public.device_commands
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('operate'))));
drop policy if exists device_commands_update_operator_or_device on public.device_commands;
create policy device_commands_update_operator_or_device on public.device_commands
  for update to authenticated
  using ((device_id = (select fleet.working_device_id()) and channel = 'agent') or owner_id = any (array(select fleet.my_owners('operate'))))
  with check ((device_id = (select fleet.working_device_id()) and channel = 'agent') or owner_id = any (array(select fleet.my_owners('operate'))));

set check_function_bodies = on;
reset search_path;
