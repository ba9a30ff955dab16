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
