-- Generated from db/sources/60_mdm by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/60_mdm/10_types.sql
-- The command types that an MDM carries out, and which integrations are MDMs.

create or replace function fleet.mdm_integration_types()
returns text[]
language sql
immutable
parallel safe
return '{simplemdm,nanomdm}'::text[];

comment on function fleet.mdm_integration_types() is
  'Integrations that carry out commands of channel mdm. A new provider is one word here and one module of the function.';
revoke all on function fleet.mdm_integration_types() from public, anon, authenticated, service_role;

create or replace function fleet.mdm_command_types()
returns table (name text, description text, payload_keys jsonb, timeout_seconds integer, rerun_safe boolean, destructive boolean)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  values
    ('push_profile', 'Install a configuration profile.',
      '{"profile_id": {"type": "string", "required": true, "example": "12345"}}'::jsonb, 60, true, false),
    ('remove_profile', 'Remove a configuration profile.',
      '{"profile_id": {"type": "string", "required": true, "example": "12345"}}'::jsonb, 60, true, false),
    ('mdm_lock', 'Lock the device; a Mac needs a pin of six digits, others take none.',
      '{"pin": {"type": "string", "example": "123456"}, "message": {"type": "string"}, "phone_number": {"type": "string"}}'::jsonb,
      60, false, false),
    ('mdm_restart', 'Restart the device.', '{}'::jsonb, 60, false, false),
    ('mdm_shutdown', 'Shut the device down.', '{}'::jsonb, 60, false, false),
    ('mdm_clear_passcode', 'Remove the passcode.', '{}'::jsonb, 60, true, false),
    ('mdm_lost_mode_on', 'Turn lost mode on: a message, a phone number, or both, on a locked screen.',
      '{"message": {"type": "string"}, "phone_number": {"type": "string"}, "footnote": {"type": "string"}}'::jsonb,
      60, true, false),
    ('mdm_lost_mode_off', 'Turn lost mode off.', '{}'::jsonb, 60, true, false),
    ('mdm_locate', 'Ask a device in lost mode where it is.', '{}'::jsonb, 60, true, false),
    ('mdm_play_sound', 'Let a device in lost mode play a sound.', '{}'::jsonb, 60, true, false),
    ('mdm_refresh', 'Ask for fresh inventory.', '{}'::jsonb, 60, true, false),
    ('mdm_push_apps', 'Install assigned apps that are missing.', '{}'::jsonb, 60, true, false),
    ('mdm_wipe', 'Erase the device.',
      '{"confirm": {"type": "boolean", "required": true, "choices": [true], "example": true},
        "pin": {"type": "string", "example": "123456"}}'::jsonb, 60, false, true),
    ('mdm_unenroll', 'Take the device out of the MDM.',
      '{"confirm": {"type": "boolean", "required": true, "choices": [true], "example": true}}'::jsonb, 60, false, true)
$$;

comment on function fleet.mdm_command_types() is
  'The command types of channel mdm. What may end data needs the permission destructive and {"confirm": true}.';
revoke all on function fleet.mdm_command_types() from public, anon, authenticated, service_role;

insert into public.command_types as t (
  name, channel, description, payload_keys, timeout_seconds, rerun_safe, destructive, is_built_in
)
select b.name, 'mdm', b.description, b.payload_keys, b.timeout_seconds, b.rerun_safe, b.destructive, true
from fleet.mdm_command_types() as b
-- A type that an operator made under the same name stays the operator's.
on conflict (name) do update
  set channel = excluded.channel, description = excluded.description, payload_keys = excluded.payload_keys,
      timeout_seconds = excluded.timeout_seconds, rerun_safe = excluded.rerun_safe, destructive = excluded.destructive
  where t.is_built_in;

create or replace function fleet.is_mdm_action(p_action_type text)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (select 1 from public.command_types as t where t.name = p_action_type and t.channel = 'mdm')
$$;

comment on function fleet.is_mdm_action(text) is
  'Whether an MDM carries it out: then a schedule counts as executed when the provider accepted, not when its run started.';
revoke all on function fleet.is_mdm_action(text) from public, anon, authenticated, service_role;

comment on column public.schedules.last_executed_at is
  'When its latest run was started; where an MDM carries it out, when the provider last accepted.';

-- db/sources/60_mdm/20_rate.sql
-- How fast each provider may be called: one token bucket in the database, shared by every function process.

create or replace function fleet.rate_ceiling(p_settings jsonb)
returns numeric
language sql
immutable
parallel safe
return coalesce(
  case when jsonb_typeof(p_settings -> 'rate_per_second') = 'number' then (p_settings ->> 'rate_per_second')::numeric end, 1
);

comment on function fleet.rate_ceiling(jsonb) is 'Calls a second that the settings of an integration allow; 1 where they say nothing.';
revoke all on function fleet.rate_ceiling(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.rate_burst(p_settings jsonb)
returns numeric
language sql
immutable
parallel safe
return coalesce(
  case when jsonb_typeof(p_settings -> 'burst') = 'number' then (p_settings ->> 'burst')::numeric end,
  -- A quarter of a second's worth more than the rate over ten seconds is within what providers notice.
  greatest(5, fleet.rate_ceiling(p_settings) / 4)
);

comment on function fleet.rate_burst(jsonb) is 'How many calls may come at once after a pause.';
revoke all on function fleet.rate_burst(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.filled_rate(p_integration_id bigint, p_now timestamptz)
returns fleet.rate_limits
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_settings jsonb;
  v_row fleet.rate_limits;
  v_elapsed numeric;
begin
  select i.settings into v_settings from public.device_integrations as i where i.id = p_integration_id;
  insert into fleet.rate_limits (integration_id, rate, tokens, filled_at)
  values (p_integration_id, fleet.rate_ceiling(v_settings), fleet.rate_burst(v_settings), p_now)
  on conflict (integration_id) do nothing;
  select r.* into v_row from fleet.rate_limits as r where r.integration_id = p_integration_id for update;

  -- The clocks of several callers differ a little: time never goes back here.
  v_elapsed := greatest(extract(epoch from p_now - v_row.filled_at), 0);
  -- What was learned from a refusal is forgotten little by little.
  v_row.rate := least(
    fleet.rate_ceiling(v_settings), v_row.rate + fleet.rate_ceiling(v_settings) * 0.05 * v_elapsed
  );
  v_row.tokens := least(fleet.rate_burst(v_settings), v_row.tokens + v_row.rate * v_elapsed);
  v_row.filled_at := greatest(v_row.filled_at, p_now);
  return v_row;
end;
$$;

comment on function fleet.filled_rate(bigint, timestamptz) is
  'The bucket of an integration as of this instant, locked; the caller writes it back.';
revoke all on function fleet.filled_rate(bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.next_call_at(p_bucket fleet.rate_limits, p_now timestamptz)
returns timestamptz
language sql
immutable
parallel safe
return greatest(
  p_bucket.blocked_until,
  p_now + make_interval(secs => (greatest(1 - p_bucket.tokens, 0) / p_bucket.rate)::double precision)
);

comment on function fleet.next_call_at(fleet.rate_limits, timestamptz) is
  'When there is leave for one more call, by a bucket that is filled as of p_now.';
revoke all on function fleet.next_call_at(fleet.rate_limits, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.look_gap(p_rate numeric)
returns interval
language sql
immutable
parallel safe
-- One call in five looks, however much is to be sent.
return make_interval(secs => (5 / p_rate)::double precision);

comment on function fleet.look_gap(numeric) is 'How long each call that looks at devices keeps the next look away while commands are to be sent.';
revoke all on function fleet.look_gap(numeric) from public, anon, authenticated, service_role;

create or replace function fleet.worker_reserve_call(
  p_integration_id bigint,
  p_within interval default interval '0',
  p_is_look boolean default false,
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_bucket fleet.rate_limits;
  v_at timestamptz;
  v_is_granted boolean;
begin
  if not exists (select 1 from public.device_integrations as i where i.id = p_integration_id and i.status = 'active') then
    return jsonb_build_object('granted', false, 'reason', 'integration_not_active');
  end if;

  v_bucket := fleet.filled_rate(p_integration_id, p_now);
  v_at := fleet.next_call_at(v_bucket, p_now);
  v_is_granted := v_at <= p_now + p_within;
  update fleet.rate_limits as r
  set rate = v_bucket.rate, filled_at = v_bucket.filled_at, tokens = v_bucket.tokens - v_is_granted::integer,
      looked_at = case when v_is_granted and p_is_look then r.looked_at + fleet.look_gap(v_bucket.rate) else r.looked_at end
  where r.integration_id = p_integration_id;
  return jsonb_build_object('granted', v_is_granted, 'wait', extract(epoch from v_at - p_now));
end;
$$;

comment on function fleet.worker_reserve_call(bigint, interval, boolean, timestamptz) is
  'Take leave for one call that may begin within p_within: {granted, wait}; the call is made after so many seconds. Where nothing is '
  'granted, wait says when it would be worth asking again; p_is_look says that it looks at a device, which has its share; an integration that is not active grants nothing (reason '
  'integration_not_active). Definer: the worker writes no table.';
revoke all on function fleet.worker_reserve_call(bigint, interval, boolean, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_learn_rate(
  p_integration_id bigint,
  p_limit numeric default null,
  p_reset_at timestamptz default null,
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row fleet.rate_limits;
  v_ceiling numeric;
begin
  select fleet.rate_ceiling(i.settings) into v_ceiling from public.device_integrations as i where i.id = p_integration_id;
  if not found then
    return jsonb_build_object('accepted', false, 'reason', 'not_found');
  end if;

  v_row := fleet.filled_rate(p_integration_id, p_now);
  update fleet.rate_limits as r
  set rate = least(v_ceiling, greatest(coalesce(p_limit, v_row.rate * 0.95), v_ceiling / 10)),
      tokens = least(v_row.tokens, 0),
      filled_at = v_row.filled_at,
      -- Nobody is kept waiting for ever by a header that is wrong.
      blocked_until = greatest(r.blocked_until, least(coalesce(p_reset_at, p_now + interval '2 seconds'), p_now + interval '1 hour'))
  where r.integration_id = p_integration_id
  returning r.* into v_row;
  return jsonb_build_object('accepted', true, 'rate', round(v_row.rate, 3), 'blocked_until', v_row.blocked_until);
end;
$$;

comment on function fleet.worker_learn_rate(bigint, numeric, timestamptz, timestamptz) is
  'A provider said that it was too much: no call before p_reset_at (two seconds), and a slower pace for a while; p_limit is the calls a '
  'second that it names. {accepted, rate, blocked_until}. Definer: the worker writes no table.';
revoke all on function fleet.worker_learn_rate(bigint, numeric, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/60_mdm/25_queue.sql
-- The queue of each MDM: what is sent to which, kept true to the commands, the links and the integrations.

create or replace function fleet.mdms_of(p_device_ids bigint[])
returns table (device_id bigint, integration_id bigint)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select distinct on (l.device_id) l.device_id, l.integration_id
  from public.device_links as l
  join public.device_integrations as i on i.id = l.integration_id
  where l.device_id = any (p_device_ids)
    and l.left_at is null
    and i.integration_type = any (fleet.mdm_integration_types())
    and i.status <> 'disabled'
  -- A device that is in two of them belongs to the one that works.
  order by l.device_id, (i.status = 'active') desc, i.id
$$;

comment on function fleet.mdms_of(bigint[]) is 'The MDM that each device is in; no row for one that is in none.';
revoke all on function fleet.mdms_of(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.reroute_mdm(p_device_ids bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  update fleet.mdm_work as w
  set integration_id = m.integration_id
  from unnest(p_device_ids) as u(device_id)
  left join fleet.mdms_of(p_device_ids) as m on m.device_id = u.device_id
  where w.device_id = u.device_id
    and w.phase = 'send'
    and w.held_until is null
    and w.integration_id is distinct from m.integration_id
$$;

comment on function fleet.reroute_mdm(bigint[]) is
  'What waits for these devices goes to the MDM that they are in by now. What a function has begun stays where it is.';
revoke all on function fleet.reroute_mdm(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.tg_queue_mdm_commands()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_is_due boolean;
begin
  if not exists (select 1 from new_rows as n where n.channel = 'mdm' and n.status = 'pending') then
    return null;
  end if;

  insert into fleet.mdm_work (command_id, device_id, integration_id, priority, due_at)
  select n.id, n.device_id, m.integration_id, n.priority, n.not_before
  from new_rows as n
  left join fleet.mdms_of(
    array(select x.device_id from new_rows as x where x.channel = 'mdm' and x.status = 'pending')
  ) as m on m.device_id = n.device_id
  where n.channel = 'mdm' and n.status = 'pending';

  select exists (
    select 1 from new_rows as n where n.channel = 'mdm' and n.status = 'pending' and n.not_before <= v_now
  ) into v_is_due;
  if v_is_due and fleet.is_ticking() then
    perform fleet.poke_once_a_second('mdm-dispatch', v_now);
  elsif v_is_due then
    -- Without the turnstile: its row would be held until a person ends the transaction, and the ticks would wait for it.
    perform fleet.poke('mdm-dispatch', jsonb_build_object('at', v_now), v_now);
  end if;
  return null;
end;
$$;

comment on function fleet.tg_queue_mdm_commands() is
  'Put new commands on the queue of the MDM that their device is in; what is due now does not wait for the tick. Definer: whoever may '
  'insert a command may neither write the queue nor sign pokes.';
revoke all on function fleet.tg_queue_mdm_commands() from public, anon, authenticated, service_role;

create or replace function fleet.tg_follow_mdm_commands()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ended bigint[];
  v_schedules bigint[];
begin
  if not exists (select 1 from new_rows as n where n.channel = 'mdm') then
    return null;
  end if;

  -- A time that was moved, a lease that ran out: it waits to be sent, until then.
  update fleet.mdm_work as w
  set phase = 'send', due_at = n.not_before, held_until = null, accepted_at = null, give_up_at = null
  from new_rows as n
  join old_rows as o on o.id = n.id
  where w.command_id = n.id
    and n.channel = 'mdm'
    and n.status = 'pending'
    and (o.status <> 'pending' or o.not_before <> n.not_before);

  select array_agg(n.id), array_agg(n.schedule_id) filter (where n.command_type = 'push_profile' and n.status <> 'completed')
  into v_ended, v_schedules
  from new_rows as n
  join old_rows as o on o.id = n.id
  where n.channel = 'mdm' and n.status not in ('pending', 'running') and o.status in ('pending', 'running');
  if v_ended is null then
    return null;
  end if;

  -- Taken, but never seen to be done: the device is as it was before, as far as anybody knows.
  update public.device_profiles as p
  set is_installed = c.command_type = 'remove_profile', changed_at = clock_timestamp()
  from public.device_commands as c
  join fleet.mdm_work as w on w.command_id = c.id and w.accepted_at is not null
  where c.id = any (v_ended)
    and c.status <> 'completed'
    and c.command_type in ('push_profile', 'remove_profile')
    and p.device_id = c.device_id
    and p.profile_id = c.payload ->> 'profile_id';
  delete from fleet.mdm_work as w where w.command_id = any (v_ended);
  if v_schedules is not null then
    perform fleet.note_failed_pushes(v_schedules);
  end if;
  return null;
end;
$$;

comment on function fleet.tg_follow_mdm_commands() is
  'Keep the queue true to commands that change, forget those that are final, and note the pushes that failed. Definer: nobody else writes '
  'these tables.';
revoke all on function fleet.tg_follow_mdm_commands() from public, anon, authenticated, service_role;

create or replace function fleet.tg_forget_mdm_commands()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (select 1 from old_rows as o where o.channel = 'mdm') then
    delete from fleet.mdm_work as w using old_rows as o where w.command_id = o.id and o.channel = 'mdm';
  end if;
  return null;
end;
$$;

comment on function fleet.tg_forget_mdm_commands() is
  'Take commands that are deleted off the queue. Definer: whoever may delete a command may not write the queue.';
revoke all on function fleet.tg_forget_mdm_commands() from public, anon, authenticated, service_role;

create or replace function fleet.forget_profiles(p_device_ids bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  update public.device_profiles as p
  set is_installed = false, changed_at = clock_timestamp()
  where p.device_id = any (p_device_ids)
    and p.is_installed
    and not exists (select 1 from fleet.mdms_of(p_device_ids) as m where m.device_id = p.device_id)
$$;

comment on function fleet.forget_profiles(bigint[]) is
  'Those of these devices that are in no MDM any more have lost what came from it: when they are back it is missing.';
revoke all on function fleet.forget_profiles(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.tg_reroute_linked()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_devices bigint[];
begin
  case tg_op
    when 'INSERT' then
      v_devices := array(select n.device_id from new_rows as n);
    when 'DELETE' then
      v_devices := array(select o.device_id from old_rows as o);
    else
      v_devices := array(
        select n.device_id
        from new_rows as n
        join old_rows as o on o.device_id = n.device_id and o.integration_id = n.integration_id
        where (o.left_at is null) <> (n.left_at is null)
      );
  end case;
  if v_devices <> '{}' then
    perform fleet.reroute_mdm(v_devices);
    perform fleet.forget_profiles(v_devices) where tg_op <> 'INSERT';
  end if;
  return null;
end;
$$;

comment on function fleet.tg_reroute_linked() is
  'A device came into an MDM or left it: what waits for it follows, and what it had from there is gone. Definer: whoever may write a link '
  'may not write the queue.';
revoke all on function fleet.tg_reroute_linked() from public, anon, authenticated, service_role;

create or replace function fleet.tg_reroute_integration()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.reroute_mdm(array(
    select w.device_id
    from fleet.mdm_work as w
    join public.device_links as l on l.device_id = w.device_id and l.integration_id = new.id
  ));
  return null;
end;
$$;

comment on function fleet.tg_reroute_integration() is
  'An MDM was disabled, or works again: what waits for its devices follows. Definer: whoever may write an integration may not write the '
  'queue.';
revoke all on function fleet.tg_reroute_integration() from public, anon, authenticated, service_role;

create or replace trigger device_commands_07_queue_mdm
  after insert on public.device_commands
  referencing new table as new_rows
  for each statement execute function fleet.tg_queue_mdm_commands();

create or replace trigger device_commands_08_follow_mdm
  after update on public.device_commands
  referencing old table as old_rows new table as new_rows
  for each statement execute function fleet.tg_follow_mdm_commands();

create or replace trigger device_commands_09_forget_mdm
  after delete on public.device_commands
  referencing old table as old_rows
  for each statement execute function fleet.tg_forget_mdm_commands();

create or replace trigger device_links_01_reroute_insert
  after insert on public.device_links
  referencing new table as new_rows
  for each statement execute function fleet.tg_reroute_linked();

create or replace trigger device_links_01_reroute_update
  after update on public.device_links
  referencing old table as old_rows new table as new_rows
  for each statement execute function fleet.tg_reroute_linked();

create or replace trigger device_links_01_reroute_delete
  after delete on public.device_links
  referencing old table as old_rows
  for each statement execute function fleet.tg_reroute_linked();

create or replace trigger device_integrations_04_reroute
  after update of status on public.device_integrations
  for each row when (new.status is distinct from old.status)
  execute function fleet.tg_reroute_integration();

-- db/sources/60_mdm/30_claim.sql
-- Commands of channel mdm, claimed by the function mdm-dispatch: sent, then watched until their effect shows.

create or replace function fleet.is_behind_another(p_work fleet.mdm_work, p_payload jsonb)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- A push that is still on its way must not be overtaken by the removal that follows it.
  select p_payload ? 'profile_id' and exists (
    select 1
    from fleet.mdm_work as o
    join public.device_commands as c on c.id = o.command_id
    where o.device_id = p_work.device_id
      and o.command_id < p_work.command_id
      and o.accepted_at is null
      and c.payload -> 'profile_id' = p_payload -> 'profile_id'
  )
$$;

comment on function fleet.is_behind_another(fleet.mdm_work, jsonb) is
  'Whether an earlier command about the same profile and device has not reached the provider yet.';
revoke all on function fleet.is_behind_another(fleet.mdm_work, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.take_mdm_sends(p_integration_id bigint, p_limit integer, p_now timestamptz)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids bigint[];
begin
  if p_limit <= 0 then
    return '{}';
  end if;

  select coalesce(array_agg(k.id), '{}') into v_ids
  from (
    -- The lock keeps any number of functions from claiming the same one.
    select c.id
    from fleet.mdm_work as w
    join public.device_commands as c on c.id = w.command_id
    where w.integration_id = p_integration_id
      and w.phase = 'send'
      and w.held_until is null
      and w.due_at <= p_now
      and c.status = 'pending'
      and c.expires_at > p_now
      and not exists (
        select 1 from public.device_commands as o where o.id = c.waits_for and o.status in ('pending', 'running')
      )
      and not fleet.is_behind_another(w, c.payload)
    order by w.priority desc, w.command_id
    limit p_limit
    for update of c, w skip locked
  ) as k;

  update public.device_commands as c
  set status = 'running', attempt = c.attempt + 1, claimed_at = p_now, journal_id = null,
      -- The lease of the function is in mdm_work; this one is the MDM's as a whole, and outlives every settling.
      lease_expires_at = greatest(c.expires_at, p_now) + interval '2 hours'
  where c.id = any (v_ids);
  perform fleet.hold_mdm(v_ids, p_now);
  return v_ids;
end;
$$;

comment on function fleet.take_mdm_sends(bigint, integer, timestamptz) is
  'Lease the next commands of an integration that are to be sent, the most urgent first. Answers which.';
revoke all on function fleet.take_mdm_sends(bigint, integer, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.take_mdm_looks(p_integration_id bigint, p_limit integer, p_now timestamptz)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids bigint[];
begin
  select coalesce(array_agg(k.command_id), '{}') into v_ids
  from (
    select w.command_id
    from fleet.mdm_work as w
    where w.integration_id = p_integration_id
      and w.phase = 'settle'
      and w.held_until is null
      and w.due_at <= p_now
    order by w.due_at
    limit p_limit
    for update skip locked
  ) as k;
  perform fleet.hold_mdm(v_ids, p_now);
  return v_ids;
end;
$$;

comment on function fleet.take_mdm_looks(bigint, integer, timestamptz) is
  'Lease accepted commands whose devices are to be looked at again. Answers which.';
revoke all on function fleet.take_mdm_looks(bigint, integer, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.hold_mdm(p_command_ids bigint[], p_now timestamptz)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  update fleet.mdm_work as w
  set held_until = p_now + make_interval(secs => fleet.setting_number('lease_seconds')::double precision)
  where w.command_id = any (p_command_ids)
$$;

comment on function fleet.hold_mdm(bigint[], timestamptz) is 'Lease work to the function that claims it.';
revoke all on function fleet.hold_mdm(bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.has_due_mdm(p_integration_id bigint, p_phase text, p_now timestamptz)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- The first by time is one look into the index, also where nothing is due among very many.
  select coalesce(
    (
      select w.due_at <= p_now
      from fleet.mdm_work as w
      where w.integration_id = p_integration_id and w.phase = p_phase and w.held_until is null
      order by w.due_at
      limit 1
    ),
    false
  )
$$;

comment on function fleet.has_due_mdm(bigint, text, timestamptz) is 'Whether anything waits to be sent, or to be looked at, by now.';
revoke all on function fleet.has_due_mdm(bigint, text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.next_mdm_schedule_at(p_before timestamptz)
returns timestamptz
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select min(s.next_run_at)
  from public.schedules as s
  where s.status = 'active'
    and s.next_run_at <= p_before
    and s.action_type in (select t.name from public.command_types as t where t.channel = 'mdm')
$$;

comment on function fleet.next_mdm_schedule_at(timestamptz) is
  'When the next schedule is due that an MDM carries out; null where none is until then.';
revoke all on function fleet.next_mdm_schedule_at(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.run_due_mdm(p_now timestamptz)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.run_due(array_agg(d.id), p_now)
  from (
    select s.id
    from public.schedules as s
    where s.status = 'active'
      and s.next_run_at <= p_now
      and s.action_type in (select t.name from public.command_types as t where t.channel = 'mdm')
    order by s.next_run_at
    limit 100
  ) as d
  having count(*) > 0
$$;

comment on function fleet.run_due_mdm(timestamptz) is
  'Run schedules that an MDM carries out at their very instant, where a function is awake for it; else the next tick does.';
revoke all on function fleet.run_due_mdm(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.claim_of_mdm(p_integration_id bigint, p_limit integer, p_now timestamptz)
returns table (sends bigint[], looks bigint[], next_at timestamptz)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_bucket fleet.rate_limits;
  v_look_at timestamptz;
  v_room integer;
begin
  sends := '{}';
  looks := '{}';
  perform 1 from fleet.rate_limits as r where r.integration_id = p_integration_id for update skip locked;
  if not found and exists (select 1 from fleet.rate_limits as r where r.integration_id = p_integration_id) then
    -- Another function is at it: waiting for its lock could end in a circle.
    next_at := p_now + interval '50 milliseconds';
    return next;
    return;
  end if;

  v_bucket := fleet.filled_rate(p_integration_id, p_now);
  next_at := fleet.next_call_at(v_bucket, p_now);
  if next_at > p_now then
    if not (fleet.has_due_mdm(p_integration_id, 'send', p_now) or fleet.has_due_mdm(p_integration_id, 'settle', p_now)) then
      next_at := null;
    end if;
    return next;
    return;
  end if;

  -- However much is to be sent, what was sent is settled as well, many devices by one call.
  v_look_at := case
    when fleet.has_due_mdm(p_integration_id, 'send', p_now) then v_bucket.looked_at + fleet.look_gap(v_bucket.rate)
    -- With nothing to send all of the rate is for looks; but a little later more of them go together.
    when v_bucket.looked_at > p_now then p_now
    else v_bucket.looked_at + least(fleet.look_gap(v_bucket.rate), interval '1 second')
  end;
  if coalesce(v_look_at <= p_now, true) then
    looks := fleet.take_mdm_looks(p_integration_id, 100, p_now);
  end if;
  v_room := least(floor(v_bucket.tokens)::integer - (looks <> '{}')::integer, p_limit);
  sends := fleet.take_mdm_sends(p_integration_id, v_room, p_now);

  v_bucket.tokens := v_bucket.tokens - (looks <> '{}')::integer - cardinality(sends);
  update fleet.rate_limits as r
  set rate = v_bucket.rate, tokens = v_bucket.tokens, filled_at = v_bucket.filled_at,
      looked_at = case when looks <> '{}' then p_now else r.looked_at end
  where r.integration_id = p_integration_id;
  next_at := least(
    -- At a pace at which each claim brings some leave.
    case
      when cardinality(sends) = v_room then greatest(fleet.next_call_at(v_bucket, p_now), p_now + interval '100 milliseconds')
    end,
    case when looks = '{}' and fleet.has_due_mdm(p_integration_id, 'settle', p_now) then v_look_at end
  );
  return next;
end;
$$;

comment on function fleet.claim_of_mdm(bigint, integer, timestamptz) is
  'Lease work of one integration, and take the leave for it: one call for each send, one for all looks together. next_at says when more '
  'could be claimed; null where nothing else waits.';
revoke all on function fleet.claim_of_mdm(bigint, integer, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.mdm_jobs(p_command_ids bigint[])
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_agg(jsonb_build_object(
    'command_id', c.id, 'attempt', c.attempt, 'command_type', c.command_type, 'payload', c.payload, 'device_id', c.device_id,
    'hostname', c.device_hostname, 'integration_id', w.integration_id, 'external_id', l.external_id, 'attributes', l.attributes,
    'lease_expires_at', w.held_until, 'accepted_at', w.accepted_at, 'unanswered_at', w.unanswered_at, 'result', c.result
  ) order by c.priority desc, c.id), '[]')
  from public.device_commands as c
  join fleet.mdm_work as w on w.command_id = c.id
  -- By now it may have left: then the provider says so.
  join public.device_links as l on l.device_id = c.device_id and l.integration_id = w.integration_id
  where c.id = any (p_command_ids)
$$;

comment on function fleet.mdm_jobs(bigint[]) is 'What a function has to know about the commands that it has leased.';
revoke all on function fleet.mdm_jobs(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.worker_claim_mdm(
  p_limit integer default 20,
  p_except bigint[] default '{}',
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_integration_id bigint;
  v_left integer := least(greatest(p_limit, 1), 200);
  v_claim record;
  v_sends bigint[] := '{}';
  v_looks bigint[] := '{}';
  v_next_at timestamptz;
begin
  perform fleet.sweep_mdm(p_now);
  perform fleet.run_due_mdm(p_now);
  for v_integration_id in
    select i.id
    from public.device_integrations as i
    where i.status = 'active' and i.integration_type = any (fleet.mdm_integration_types()) and i.id <> all (p_except)
    -- Nobody is always last.
    order by random()
  loop
    exit when v_left <= 0;
    select k.* into v_claim from fleet.claim_of_mdm(v_integration_id, v_left, p_now) as k;
    v_sends := v_sends || v_claim.sends;
    v_looks := v_looks || v_claim.looks;
    v_next_at := least(v_next_at, v_claim.next_at);
    v_left := v_left - cardinality(v_claim.sends) - (v_claim.looks <> '{}')::integer;
  end loop;

  return jsonb_build_object(
    'sends', fleet.mdm_jobs(v_sends),
    'looks', fleet.mdm_jobs(v_looks),
    'wait', case
      when v_left <= 0 then 0
      else extract(epoch from least(v_next_at, fleet.next_mdm_schedule_at(p_now + interval '2 seconds')) - p_now)
    end,
    'integrations', (
      select coalesce(jsonb_object_agg(i.id, jsonb_build_object(
        'integration_type', i.integration_type, 'settings', i.settings, 'secret', s.secret
      )), '{}')
      from public.device_integrations as i
      left join public.pg_cron_secrets as s on s.name = 'integration:' || i.id
      where i.id in (select w.integration_id from fleet.mdm_work as w where w.command_id = any (v_sends || v_looks))
    )
  );
end;
$$;

comment on function fleet.worker_claim_mdm(integer, bigint[], timestamptz) is
  'Lease commands for MDMs, as many as their rates let through now, but none of the integrations p_except: {sends, looks, wait, '
  'integrations}. sends are to be handed over; looks were accepted, and their devices are to be looked at, those of one integration '
  'together. Each is {command_id, attempt, command_type, payload, device_id, hostname, integration_id, external_id, attributes, '
  'lease_expires_at, accepted_at, unanswered_at, result}. wait says after how many seconds more could be claimed, and is null where nothing '
  'else waits. integrations: id to {integration_type, settings, secret}. Definer: the worker reads no table.';
revoke all on function fleet.worker_claim_mdm(integer, bigint[], timestamptz) from public, anon, authenticated, service_role;

-- db/sources/60_mdm/35_sweep.sql
-- Clearing up behind functions that stopped in the middle, and ending what has no future.

create or replace function fleet.sweep_mdm(p_now timestamptz)
returns integer
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.sweep_held_sends(p_now) + fleet.sweep_held_looks(p_now) + fleet.give_up_mdm(p_now) + fleet.fail_unlinked_mdm(p_now)
$$;

comment on function fleet.sweep_mdm(timestamptz) is
  'Offer again what a function did not answer for, give up what was never seen to happen, fail what is for devices in no MDM. Answers '
  'how many.';
revoke all on function fleet.sweep_mdm(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.sweep_held_sends(p_now timestamptz, p_limit integer default 1000)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids bigint[];
begin
  select array_agg(k.command_id) into v_ids
  from (
    select w.command_id
    from fleet.mdm_work as w
    join public.device_commands as c on c.id = w.command_id and c.status = 'running'
    where w.phase = 'send' and w.held_until <= p_now
    order by w.held_until
    limit p_limit
    for update of c, w skip locked
  ) as k;
  if v_ids is null then
    return 0;
  end if;

  perform fleet.log_unanswered(v_ids, p_now);
  update fleet.mdm_work as w
  set held_until = null, tries = w.tries + 1, unanswered_at = p_now
  where w.command_id = any (v_ids);
  -- What may be repeated is, the rest is told and ends.
  update public.device_commands as c
  set status = case when t.rerun_safe then 'pending' else 'failed' end,
      reason = case when t.rerun_safe then 'lease_expired' else 'interrupted' end,
      error_message = case
        when t.rerun_safe is not true then 'the function stopped in the middle; the provider may have taken it'
      end,
      lease_expires_at = null
  from public.device_commands as x
  left join public.command_types as t on t.name = x.command_type
  where x.id = c.id and c.id = any (v_ids);
  return cardinality(v_ids);
end;
$$;

comment on function fleet.sweep_held_sends(timestamptz, integer) is
  'A function that was killed while it sent: what may be repeated is offered again, the rest ends as interrupted. Answers how many.';
revoke all on function fleet.sweep_held_sends(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.sweep_held_looks(p_now timestamptz, p_limit integer default 1000)
returns integer
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  with lapsed as (
    select w.command_id
    from fleet.mdm_work as w
    where w.phase = 'settle' and w.held_until <= p_now
    order by w.held_until
    limit p_limit
    for update skip locked
  ),
  offered as (
    update fleet.mdm_work as w
    set held_until = null, due_at = p_now
    where w.command_id = any (array(select l.command_id from lapsed as l))
    returning 1
  )
  select count(*)::integer from offered
$$;

comment on function fleet.sweep_held_looks(timestamptz, integer) is 'A function that was killed while it looked: others look. Answers how many.';
revoke all on function fleet.sweep_held_looks(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.end_mdm(p_command_ids bigint[], p_status text, p_reason text, p_error text, p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  if p_command_ids = '{}' then
    return 0;
  end if;

  update public.device_commands as c
  set status = 'failed', reason = p_reason, error_message = p_error, executed_at = p_now
  where c.id = any (p_command_ids) and c.status = p_status;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.end_mdm(bigint[], text, text, text, timestamptz) is
  'End those of these commands that have this status as failed. Answers how many.';
revoke all on function fleet.end_mdm(bigint[], text, text, text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.give_up_mdm(p_now timestamptz, p_limit integer default 1000)
returns integer
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.end_mdm(
    array(
      select w.command_id
      from fleet.mdm_work as w
      where w.phase = 'settle' and w.give_up_at <= p_now
      order by w.give_up_at
      limit p_limit
      for update skip locked
    ),
    'running', 'unknown', 'the provider took it, and nothing has shown since whether it was done', p_now
  )
$$;

comment on function fleet.give_up_mdm(timestamptz, integer) is 'End what was accepted and never seen to happen. Answers how many.';
revoke all on function fleet.give_up_mdm(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.fail_unlinked_mdm(p_now timestamptz, p_limit integer default 1000)
returns integer
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.end_mdm(
    array(
      select w.command_id
      from fleet.mdm_work as w
      where w.integration_id is null and w.due_at <= p_now
      order by w.due_at
      limit p_limit
      for update skip locked
    ),
    'pending', 'no_mdm_link', 'the device is in no MDM: make an integration and sync its devices', p_now
  )
$$;

comment on function fleet.fail_unlinked_mdm(timestamptz, integer) is 'End what is due for devices in no MDM. Answers how many.';
revoke all on function fleet.fail_unlinked_mdm(timestamptz, integer) from public, anon, authenticated, service_role;

-- db/sources/60_mdm/40_finish.sql
-- How an attempt at an MDM ended: accepted, seen to be done, or failed and tried again by class of failure.

create or replace function fleet.note_mdm_accepted(p_command public.device_commands, p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  update fleet.mdm_work as w
  set accepted_at = p_now
  where w.command_id = p_command.id and w.accepted_at is null;

  -- Of a thousand devices of one schedule, not each has to stand in line for its row.
  update public.schedules as s
  set last_executed_at = p_now
  where s.id = p_command.schedule_id
    and (s.last_executed_at is null or s.last_executed_at < p_now - interval '1 second');
  perform fleet.note_profile_accepted(p_command.schedule_id, p_now);
  if p_command.command_type in ('push_profile', 'remove_profile') then
    perform fleet.note_profile_state(
      p_command.device_id, p_command.payload ->> 'profile_id', p_command.command_type = 'push_profile', null, p_now
    );
  end if;
end;
$$;

comment on function fleet.note_mdm_accepted(public.device_commands, timestamptz) is
  'A provider took a command: that is when its schedule was executed.';
revoke all on function fleet.note_mdm_accepted(public.device_commands, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.mdm_pause(p_tries integer, p_retry_after interval)
returns interval
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  -- A fifth more or less by chance, so that what failed together does not come back together.
  select greatest(
    least(interval '2 seconds' * power(2, least(greatest(p_tries, 1), 12) - 1), interval '5 minutes'),
    case when p_retry_after > interval '0' then least(p_retry_after, interval '1 hour') end
  ) * (1 + 0.2 * random())
$$;

comment on function fleet.mdm_pause(integer, interval) is
  'Pause after the n-th attempt that did not get through: two seconds, doubling up to five minutes; longer where the provider asks for it.';
revoke all on function fleet.mdm_pause(integer, interval) from public, anon, authenticated, service_role;

create or replace function fleet.is_passing_failure(p_reason text, p_rerun_safe boolean)
returns boolean
language sql
immutable
parallel safe
-- After a connection that broke nobody knows whether the provider acted; what may not be repeated ends there.
return coalesce(
  p_reason in ('rate_limited', 'not_called', 'not_sent') or (p_rerun_safe and p_reason in ('network', 'timeout', 'unavailable')), false
);

comment on function fleet.is_passing_failure(text, boolean) is
  'Whether a failure says nothing about the command itself, so that it is tried until the command expires.';
revoke all on function fleet.is_passing_failure(text, boolean) from public, anon, authenticated, service_role;

create or replace function fleet.is_answerless(p_reason text)
returns boolean
language sql
immutable
parallel safe
return coalesce(p_reason in ('network', 'timeout', 'unavailable'), false);

comment on function fleet.is_answerless(text) is 'Whether the provider may have taken a command although the attempt failed.';
revoke all on function fleet.is_answerless(text) from public, anon, authenticated, service_role;

create or replace function fleet.mdm_retry_at(p_work fleet.mdm_work, p_reason text, p_retry_after interval, p_now timestamptz)
returns timestamptz
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select p_now + case
    -- It is the rate that holds these up, for all commands alike: none of them has to step back more than the others.
    when p_reason = 'not_called' then interval '0'
    when p_reason = 'rate_limited' then coalesce(p_retry_after, interval '2 seconds') * (1 + 0.2 * random())
    else fleet.mdm_pause(p_work.tries + 1, p_retry_after)
  end
$$;

comment on function fleet.mdm_retry_at(fleet.mdm_work, text, interval, timestamptz) is
  'When a command is sent again after a failure that passes.';
revoke all on function fleet.mdm_retry_at(fleet.mdm_work, text, interval, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.put_back_mdm(p_command public.device_commands, p_reason text, p_error text, p_at timestamptz, p_now timestamptz)
returns public.device_commands
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_commands;
begin
  update fleet.mdm_work as w
  set tries = w.tries + (p_reason not in ('rate_limited', 'not_called', 'integration_paused'))::integer,
      unanswered_at = case when fleet.is_answerless(p_reason) then p_now else w.unanswered_at end
  where w.command_id = p_command.id;
  -- The trigger puts it back on the queue.
  update public.device_commands as c
  set status = 'pending', reason = p_reason, error_message = p_error, not_before = p_at, lease_expires_at = null
  where c.id = p_command.id
  returning * into v_row;
  return v_row;
end;
$$;

comment on function fleet.put_back_mdm(public.device_commands, text, text, timestamptz, timestamptz) is
  'Let a command wait for another attempt that does not count as a failure of the device.';
revoke all on function fleet.put_back_mdm(public.device_commands, text, text, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.fail_mdm(
  p_command public.device_commands,
  p_work fleet.mdm_work,
  p_result jsonb,
  p_error text,
  p_reason text,
  p_retry_after interval,
  p_now timestamptz
)
returns public.device_commands
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rerun_safe boolean := exists (select 1 from public.command_types as t where t.name = p_command.command_type and t.rerun_safe);
  v_retry_at timestamptz := fleet.mdm_retry_at(p_work, p_reason, p_retry_after, p_now);
  v_row public.device_commands;
begin
  if p_reason in ('unauthorized', 'forbidden', 'integration_paused')
    and exists (select 1 from public.device_integrations as i where i.id = p_work.integration_id and i.status <> 'active')
  then
    -- It waits with all the others until the integration goes on.
    return fleet.put_back_mdm(p_command, 'integration_paused', p_error, p_now, p_now);
  elsif fleet.is_passing_failure(p_reason, v_rerun_safe) and v_retry_at < p_command.expires_at then
    return fleet.put_back_mdm(p_command, p_reason, p_error, v_retry_at, p_now);
  end if;

  v_row := fleet.settle_attempt(
    p_command, 'failed', p_result, p_error,
    -- A class that the policy would try again, but that must not be.
    case when fleet.is_answerless(p_reason) and not v_rerun_safe then 'interrupted' else p_reason end,
    p_now
  );
  if v_row.status = 'pending' then
    v_row := fleet.put_back_mdm(v_row, v_row.reason, p_error, greatest(v_row.not_before, p_now + p_retry_after), p_now);
  end if;
  return v_row;
end;
$$;

comment on function fleet.fail_mdm(public.device_commands, fleet.mdm_work, jsonb, text, text, interval, timestamptz) is
  'An attempt failed: wait, try again, or end, by the class of the failure.';
revoke all on function fleet.fail_mdm(public.device_commands, fleet.mdm_work, jsonb, text, text, interval, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.look_pause(p_since_accepted interval)
returns interval
language sql
immutable
parallel safe
-- Often at first, then less and less: a device may be off for days.
return least(greatest(p_since_accepted / 2, interval '2 seconds'), interval '15 minutes');

comment on function fleet.look_pause(interval) is 'After how long a device is looked at again, by the time since its command was accepted.';
revoke all on function fleet.look_pause(interval) from public, anon, authenticated, service_role;

create or replace function fleet.watch_mdm(
  p_command public.device_commands,
  p_result jsonb,
  p_look_after interval,
  p_now timestamptz
)
returns public.device_commands
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_commands;
begin
  update public.device_commands as c
  -- Where its lease ran out while the answer was on its way, nobody has taken it since.
  set status = 'running', lease_expires_at = greatest(c.expires_at, p_now) + interval '2 hours',
      result = coalesce(p_result, c.result), reason = null, error_message = null
  where c.id = p_command.id
  returning * into v_row;
  update fleet.mdm_work as w
  set phase = 'settle', held_until = null, accepted_at = coalesce(w.accepted_at, p_now),
      due_at = p_now + coalesce(p_look_after, fleet.look_pause(interval '0')),
      give_up_at = greatest(v_row.expires_at, p_now + interval '1 hour')
  where w.command_id = p_command.id;
  return v_row;
end;
$$;

comment on function fleet.watch_mdm(public.device_commands, jsonb, interval, timestamptz) is
  'A provider has taken a command; its device is looked at until the effect shows.';
revoke all on function fleet.watch_mdm(public.device_commands, jsonb, interval, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.worker_finish_mdm(
  p_command_id bigint,
  p_attempt integer,
  p_outcome text,
  p_result jsonb default null,
  p_error text default null,
  p_reason text default null,
  p_retry_after interval default null,
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_command public.device_commands;
  v_work fleet.mdm_work;
  v_secret text;
  v_result jsonb;
  v_error text;
begin
  if p_outcome is null or p_outcome not in ('accepted', 'completed', 'failed') then
    raise exception 'p_outcome must be accepted, completed or failed, not %', coalesce(quote_literal(p_outcome), 'null')
      using errcode = 'PT422', detail = 'outcome_invalid', hint = 'accepted: the provider took it; completed: its effect was seen.';
  end if;

  select c.* into v_command from public.device_commands as c where c.id = p_command_id and c.channel = 'mdm' for update;
  if not found then
    return jsonb_build_object('accepted', false, 'reason', 'not_found');
  elsif v_command.attempt is distinct from p_attempt then
    return jsonb_build_object('accepted', false, 'reason', 'stale_attempt');
  end if;
  select w.* into v_work from fleet.mdm_work as w where w.command_id = p_command_id for update;
  perform fleet.log_callless(v_command, v_work.integration_id, coalesce(p_error, p_reason, p_outcome), p_now);
  select s.secret into v_secret from public.pg_cron_secrets as s where s.name = 'integration:' || v_work.integration_id;
  v_result := fleet.without_secret(p_result::text, v_secret)::jsonb;
  v_error := fleet.without_secret(p_error, v_secret);
  if p_outcome <> 'failed' and (v_work.command_id is not null and v_work.accepted_at is null or v_command.status = 'cancelled') then
    -- Even if it was cancelled meanwhile: the provider has it.
    perform fleet.note_mdm_accepted(v_command, p_now);
  end if;

  if v_command.status = 'cancelled' then
    return jsonb_build_object('accepted', false, 'reason', 'cancelled');
  elsif v_command.status not in ('pending', 'running') then
    -- The answer to a finish may get lost on its way: the same finish again is the same success.
    return case
      when v_command.status = p_outcome then jsonb_build_object('accepted', true, 'status', v_command.status)
      else jsonb_build_object('accepted', false, 'reason', 'already_final')
    end;
  elsif v_command.status = 'pending' and p_outcome = 'failed' then
    return jsonb_build_object('accepted', false, 'reason', 'stale_attempt');
  end if;

  case p_outcome
    when 'completed' then
      update public.device_commands as c
      set status = 'completed', reason = null, error_message = null, executed_at = p_now, result = coalesce(v_result, c.result)
      where c.id = p_command_id
      returning * into v_command;
    when 'accepted' then
      v_command := fleet.watch_mdm(v_command, v_result, p_retry_after, p_now);
    else
      v_command := fleet.fail_mdm(v_command, v_work, v_result, v_error, p_reason, p_retry_after, p_now);
  end case;
  perform fleet.cancel_failed_removals();

  return jsonb_strip_nulls(jsonb_build_object(
    'accepted', true, 'status', v_command.status,
    'retry_at', case when v_command.status = 'pending' then v_command.not_before end,
    'look_at', case
      when v_command.status = 'running' then (select w.due_at from fleet.mdm_work as w where w.command_id = p_command_id)
    end
  ));
end;
$$;

comment on function fleet.worker_finish_mdm(bigint, integer, text, jsonb, text, text, interval, timestamptz) is
  'Say how an attempt to send ended. accepted: the provider took it; it stays running, and p_retry_after says when to look at the device. '
  'completed: it is done. failed: p_reason rate_limited, not_called, not_sent, network, timeout and unavailable (5xx) are tried again until '
  'the command expires, unless it may not be repeated; error and its kin as the retry policy says; anything else is final. {accepted, '
  'status, retry_at, look_at} or {accepted: false, reason}. Definer: the worker writes no table.';
revoke all on function fleet.worker_finish_mdm(bigint, integer, text, jsonb, text, text, interval, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/60_mdm/45_looks.sql
-- What looks at devices have shown: done, not yet, or never.

create or replace function fleet.seen_looks(p_reports jsonb)
returns table (
  command_id bigint, outcome text, result jsonb, error text, reason text, look_after interval
)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select c.id, r.outcome, r.result, r.error, r.reason, make_interval(secs => r.look_after)
  from jsonb_to_recordset(p_reports) as r (
    command_id bigint, attempt integer, outcome text, result jsonb, error text, reason text, look_after double precision
  )
  join public.device_commands as c on c.id = r.command_id
  join fleet.mdm_work as w on w.command_id = c.id and w.phase = 'settle'
  -- What was put back, or cancelled, or ended meanwhile is not what was looked after.
  where c.status = 'running' and c.attempt = r.attempt
  order by c.id
  for update of c, w;
end;
$$;

comment on function fleet.seen_looks(jsonb) is 'The reports that still hold, their commands locked.';
revoke all on function fleet.seen_looks(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.worker_finish_looks(
  p_integration_id bigint,
  p_reports jsonb,
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_secret text;
  v_seen jsonb;
  v_count jsonb;
begin
  select s.secret into v_secret from public.pg_cron_secrets as s where s.name = 'integration:' || p_integration_id;
  select coalesce(jsonb_agg(to_jsonb(s)), '[]') into v_seen
  from fleet.seen_looks(fleet.without_secret(p_reports::text, v_secret)::jsonb) as s;

  update fleet.mdm_work as w
  set held_until = null, due_at = p_now + coalesce(r.look_after, fleet.look_pause(p_now - w.accepted_at))
  from jsonb_to_recordset(v_seen) as r (command_id bigint, outcome text, look_after interval)
  where w.command_id = r.command_id and r.outcome = 'accepted';
  update public.device_commands as c
  set status = case when r.outcome = 'accepted' then c.status else r.outcome end,
      result = coalesce(r.result, c.result),
      reason = case when r.outcome = 'failed' then coalesce(r.reason, 'error') end,
      error_message = case when r.outcome = 'failed' then r.error end,
      executed_at = case when r.outcome = 'accepted' then c.executed_at else p_now end
  from jsonb_to_recordset(v_seen) as r (command_id bigint, outcome text, result jsonb, reason text, error text)
  where c.id = r.command_id
    and r.outcome in ('accepted', 'completed', 'failed')
    -- A look that showed nothing new leaves no trace.
    and (r.outcome <> 'accepted' or r.result is distinct from c.result);
  perform fleet.cancel_failed_removals();

  select coalesce(jsonb_object_agg(k.outcome, k.n), '{}') into v_count
  from (
    select r.outcome, count(*) as n from jsonb_to_recordset(v_seen) as r (outcome text) group by r.outcome
  ) as k;
  return v_count;
end;
$$;

comment on function fleet.worker_finish_looks(bigint, jsonb, timestamptz) is
  'Say what looks at the devices of one integration have shown: a list of {command_id, attempt, outcome, result, error, reason, look_after}. '
  'completed: its effect was seen; accepted: not yet, it is looked at again after look_after seconds, or less and less often; failed: it '
  'will not happen. What no longer holds is passed over. Answers how many there were of each outcome. Definer: the worker writes no table.';
revoke all on function fleet.worker_finish_looks(bigint, jsonb, timestamptz) from public, anon, authenticated, service_role;

-- db/sources/60_mdm/50_worker.sql
-- The log of calls to MDMs, and the secrets that they refuse.

create or replace function fleet.without_secret(p_text text, p_secret text)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when coalesce(length(p_secret), 0) < 4 then p_text
    else replace(
      replace(p_text, p_secret, '***'),
      -- As in an Authorization header, where the secret is the user and there is no password.
      replace(encode(convert_to(p_secret || ':', 'UTF8'), 'base64'), E'\n', ''), '***'
    )
  end
$$;

comment on function fleet.without_secret(text, text) is 'A text with a secret taken out of it, also as HTTP Basic has it.';
revoke all on function fleet.without_secret(text, text) from public, anon, authenticated, service_role;

create or replace function fleet.clean_calls(p_calls jsonb)
returns setof public.mdm_api_logs
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select k.id, i.owner_id, i.id, k.command_id, k.attempt, coalesce(k.method, 'GET'),
    coalesce(fleet.without_secret(k.url, s.secret), ''), k.status, k.duration_ms::integer,
    left(fleet.without_secret(k.request_body, s.secret), 10000), left(fleet.without_secret(k.response_body, s.secret), 10000),
    left(fleet.without_secret(k.error, s.secret), 2000), coalesce(k.at, clock_timestamp())
  from jsonb_to_recordset(p_calls) as k (
    id bigint, integration_id bigint, command_id bigint, attempt integer, method text, url text, status integer, duration_ms numeric,
    request_body text, response_body text, error text, at timestamptz
  )
  join public.device_integrations as i on i.id = k.integration_id
  left join public.pg_cron_secrets as s on s.name = 'integration:' || i.id
$$;

comment on function fleet.clean_calls(jsonb) is 'Calls as the log takes them: shortened, and without the secret wherever it appears.';
revoke all on function fleet.clean_calls(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.worker_begin_mdm_call(p_call jsonb)
returns bigint
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  insert into public.mdm_api_logs (owner_id, integration_id, command_id, attempt, method, url, request_body, created_at)
  select k.owner_id, k.integration_id, k.command_id, k.attempt, k.method, k.url, k.request_body, k.created_at
  from fleet.clean_calls(jsonb_build_array(p_call)) as k
  returning id
$$;

comment on function fleet.worker_begin_mdm_call(jsonb) is
  'Write a call to the log before it is made, so that it is there whatever happens: {integration_id, command_id, attempt, method, url, '
  'request_body, at}. Answers the id under which worker_log_mdm_calls completes it. Definer: the worker writes no table.';
revoke all on function fleet.worker_begin_mdm_call(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.worker_log_mdm_calls(p_calls jsonb)
returns integer
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  update public.mdm_api_logs as l
  set status = k.status, duration_ms = k.duration_ms, response_body = k.response_body, error = k.error
  from fleet.clean_calls(p_calls) as k
  where l.id = k.id and l.integration_id = k.integration_id;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.worker_log_mdm_calls(jsonb) is
  'Complete calls that were begun: a list of {id, integration_id, status, duration_ms, response_body, error}. Answers how many. Definer: '
  'the worker writes no table.';
revoke all on function fleet.worker_log_mdm_calls(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.log_callless(p_command public.device_commands, p_integration_id bigint, p_error text, p_now timestamptz)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  insert into public.mdm_api_logs (owner_id, integration_id, command_id, attempt, error, created_at)
  select p_command.owner_id, p_integration_id, p_command.id, p_command.attempt,
    left(fleet.without_secret(
      p_error, (select s.secret from public.pg_cron_secrets as s where s.name = 'integration:' || p_integration_id)
    ), 2000),
    p_now
  where not exists (
    select 1 from public.mdm_api_logs as l where l.command_id = p_command.id and l.attempt = p_command.attempt
  )
$$;

comment on function fleet.log_callless(public.device_commands, bigint, text, timestamptz) is
  'Note an attempt that came to no call; nothing where it made one.';
revoke all on function fleet.log_callless(public.device_commands, bigint, text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.log_unanswered(p_command_ids bigint[], p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  update public.mdm_api_logs as l
  set error = 'the function stopped before it noted an answer'
  from public.device_commands as c
  where c.id = any (p_command_ids) and l.command_id = c.id and l.attempt = c.attempt and l.status is null and l.error is null;
  insert into public.mdm_api_logs (owner_id, integration_id, command_id, attempt, error, created_at)
  select c.owner_id, w.integration_id, c.id, c.attempt, 'the function stopped before it called', p_now
  from public.device_commands as c
  join fleet.mdm_work as w on w.command_id = c.id
  where c.id = any (p_command_ids)
    and not exists (select 1 from public.mdm_api_logs as l where l.command_id = c.id and l.attempt = c.attempt);
end;
$$;

comment on function fleet.log_unanswered(bigint[], timestamptz) is
  'Note how the attempts of functions that were killed ended: before a call, or before its answer.';
revoke all on function fleet.log_unanswered(bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_pause_integration(p_integration_id bigint, p_reason text)
returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  update public.device_integrations as i
  set status = 'paused', needs_secret = true, sync_held_until = null,
      status_reason = fleet.without_secret(
        p_reason, (select s.secret from public.pg_cron_secrets as s where s.name = 'integration:' || i.id)
      )
  where i.id = p_integration_id and i.status = 'active';
  return found;
end;
$$;

comment on function fleet.worker_pause_integration(bigint, text) is
  'The other side refuses the secret: everything waits until it is replaced. Answers whether it was active before. Definer: the worker '
  'writes no table.';
revoke all on function fleet.worker_pause_integration(bigint, text) from public, anon, authenticated, service_role;

-- db/sources/60_mdm/54_sightings.sql
-- What an MDM says of its devices, read without raising, and which of our devices it means.

create or replace function fleet.is_within(p_value jsonb, p_from numeric, p_to numeric)
returns boolean
language sql
immutable
parallel safe
-- Some systems write numbers as text.
return case
  when jsonb_typeof(p_value) in ('number', 'string') and p_value #>> '{}' ~ '^-?\d{1,9}(\.\d{1,18})?$'
    then (p_value #>> '{}')::numeric between p_from and p_to
  else false
end;

comment on function fleet.is_within(jsonb, numeric, numeric) is 'Whether a value in JSON is a number within bounds, also one written as text.';
revoke all on function fleet.is_within(jsonb, numeric, numeric) from public, anon, authenticated, service_role;

create or replace function fleet.are_ids(p_value jsonb)
returns boolean
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case jsonb_typeof(p_value)
    when 'array' then not exists (
      select 1
      from jsonb_array_elements(p_value) as e(item)
      where jsonb_typeof(e.item) not in ('string', 'number') or length(e.item #>> '{}') not between 1 and 255
    )
    else false
  end
$$;

comment on function fleet.are_ids(jsonb) is 'Whether a value in JSON is a list of ids, as texts or numbers.';
revoke all on function fleet.are_ids(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.sighting_problem(p_item jsonb)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select nullif(concat_ws(
    '; ',
    case when coalesce(btrim(p_item ->> 'external_id'), '') = '' then 'external_id is missing' end,
    (
      select string_agg(format('%s cannot be %s', f.name, left(f.value #>> '{}', 40)), '; ')
      from (
        select t.name, p_item -> t.name as value,
          jsonb_typeof(p_item -> t.name) = 'string' and length(p_item ->> t.name) <= 255 as is_fit
        from unnest('{hostname,name,serial_number,platform}'::text[]) as t(name)
        union all
        select t.name, p_item -> t.name, fleet.try_exact_instant(p_item ->> t.name) is not null
        from unnest('{last_seen,located_at}'::text[]) as t(name)
        union all
        select v.name, p_item -> v.name, v.is_fit
        from (
          values
            (
              'external_id',
              jsonb_typeof(p_item -> 'external_id') in ('string', 'number') and length(p_item ->> 'external_id') <= 255
            ),
            ('latitude', fleet.is_within(p_item -> 'latitude', -90, 90)),
            ('longitude', fleet.is_within(p_item -> 'longitude', -180, 180)),
            ('accuracy_m', fleet.is_within(p_item -> 'accuracy_m', 0, 20000000)),
            ('is_enrolled', jsonb_typeof(p_item -> 'is_enrolled') = 'boolean'),
            ('attributes', jsonb_typeof(p_item -> 'attributes') = 'object'),
            ('capabilities', jsonb_typeof(p_item -> 'capabilities') = 'object'),
            ('profiles', fleet.are_ids(p_item -> 'profiles'))
        ) as v(name, is_fit)
      ) as f
      where jsonb_typeof(f.value) <> 'null' and not f.is_fit
    )
  ), '')
$$;

comment on function fleet.sighting_problem(jsonb) is 'All that is wrong with what another system says of one device; null where nothing is.';
revoke all on function fleet.sighting_problem(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.parsed_sightings(p_devices jsonb)
returns table (
  nr bigint, external_id text, name text, hostname text, serial_number text, platform text, last_seen timestamptz,
  is_enrolled boolean, attributes jsonb, capabilities jsonb, profiles jsonb, latitude jsonb, longitude jsonb, accuracy_m jsonb, located_at text,
  problem text
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with given as (
    select e.nr, e.item, fleet.sighting_problem(e.item) as problem,
      -- Of a device that is told twice the last word counts.
      row_number() over (partition by e.item ->> 'external_id' order by e.nr desc) as place
    from (
      select x.nr, case jsonb_typeof(x.item) when 'object' then x.item else '{}' end as item
      from jsonb_array_elements(p_devices) with ordinality as x(item, nr)
    ) as e
  ),
  fit as materialized (
    select g.nr, case when g.problem is null then g.item else '{}' end as item, g.item ->> 'external_id' as external_id, g.problem
    from given as g
    where g.place = 1 or g.item ->> 'external_id' is null
  )
  select f.nr, f.external_id, n.name, coalesce(n.name, n.serial_number, f.external_id), n.serial_number,
    nullif(f.item ->> 'platform', ''),
    fleet.try_exact_instant(f.item ->> 'last_seen'),
    coalesce((f.item ->> 'is_enrolled')::boolean, true),
    coalesce(nullif(f.item -> 'attributes', 'null'), '{}'),
    jsonb_strip_nulls(coalesce(nullif(f.item -> 'capabilities', 'null'), '{}')),
    case jsonb_typeof(f.item -> 'profiles')
      -- Numbers among them become texts, as everywhere.
      when 'array' then (
        select coalesce(jsonb_agg(distinct p.id), '[]') from jsonb_array_elements_text(f.item -> 'profiles') as p(id)
      )
    end,
    f.item -> 'latitude', f.item -> 'longitude', f.item -> 'accuracy_m', f.item ->> 'located_at', f.problem
  from fit as f
  cross join lateral (
    select coalesce(nullif(btrim(f.item ->> 'hostname'), ''), nullif(btrim(f.item ->> 'name'), '')) as name,
      nullif(btrim(f.item ->> 'serial_number'), '') as serial_number
  ) as n
$$;

comment on function fleet.parsed_sightings(jsonb) is
  'What another system says of its devices as columns, each device once. What is wrong with one is its problem, not that of the others; '
  'name is null where it told none, hostname then is made of what it told.';
revoke all on function fleet.parsed_sightings(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.matched_sightings(p_integration public.device_integrations, p_items jsonb)
returns table (nr bigint, device_id bigint)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with items as materialized (
    select i.nr, i.external_id, i.serial_number, lower(i.name) as name, i.is_enrolled
    from jsonb_to_recordset(p_items) as i(
      nr bigint, external_id text, serial_number text, name text, is_enrolled boolean
    )
  ),
  linked as materialized (
    select i.nr, l.device_id, i.is_enrolled
    from items as i
    join public.device_links as l on l.integration_id = p_integration.id and l.external_id = i.external_id
  ),
  strange as materialized (
    select i.* from items as i where i.is_enrolled and not exists (select 1 from linked as l where l.nr = i.nr)
  ),
  -- One that the other system has under another id is not free; one that has left it is, for who has its serial number.
  free as materialized (
    select d.id, d.attributes ->> 'serial_number' as serial_number, lower(d.hostname) as name, l.device_id is null as is_unlinked
    from public.devices as d
    left join public.device_links as l on l.device_id = d.id and l.integration_id = p_integration.id
    left join linked as k on k.device_id = d.id
    where d.owner_id = p_integration.owner_id
      and exists (select 1 from strange)
      and (
        d.attributes ->> 'serial_number' in (select s.serial_number from strange as s)
        or lower(d.hostname) in (select s.name from strange as s)
      )
      and (l.device_id is null or l.left_at is not null or not k.is_enrolled)
      and k.is_enrolled is distinct from true
  ),
  by_serial as materialized (
    select s.nr, f.id as device_id
    from (
      select x.nr, x.serial_number, row_number() over (partition by x.serial_number order by x.nr) as place
      from strange as x
    ) as s
    join (
      select x.id, x.serial_number, row_number() over (partition by x.serial_number order by x.id) as place
      from free as x
    ) as f on f.serial_number = s.serial_number and f.place = s.place
  ),
  by_name as (
    select distinct on (f.id) s.nr, f.id as device_id
    from strange as s
    join free as f on f.name = s.name and f.is_unlinked
    where coalesce(f.serial_number = s.serial_number, true)
      and not exists (select 1 from by_serial as b where b.nr = s.nr or b.device_id = f.id)
    order by f.id, s.nr
  )
  select l.nr, l.device_id
  from linked as l
  where l.is_enrolled or not exists (select 1 from by_serial as b where b.device_id = l.device_id)
  union all
  select b.nr, b.device_id from by_serial as b
  union all
  select b.nr, b.device_id from by_name as b
$$;

comment on function fleet.matched_sightings(public.device_integrations, jsonb) is
  'Which of our devices another system means: by the link, else the serial number, else the name. No device is meant by two items and no '
  'item means two devices; no row for an item that means none of ours, nor for one that is not enrolled and was never linked.';
revoke all on function fleet.matched_sightings(public.device_integrations, jsonb) from public, anon, authenticated, service_role;

-- db/sources/60_mdm/55_inventory.sql
-- Bringing the devices of an MDM into the registry: a page of any size by a handful of statements.

create or replace function fleet.sighted_attributes(p_item jsonb)
returns jsonb
language sql
immutable
parallel safe
return (p_item -> 'attributes') || jsonb_strip_nulls(jsonb_build_object('serial_number', p_item -> 'serial_number'));

comment on function fleet.sighted_attributes(jsonb) is 'What a parsed sighting adds to the facts about its device.';
revoke all on function fleet.sighted_attributes(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.add_sighted_devices(p_owner_id uuid, p_items jsonb)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_made jsonb := '[]';
  v_spelling text;
begin
  -- A name that is taken, by a device or by another of these, is told apart by the id in the other system.
  foreach v_spelling in array '{"%1$s","%1$s (%2$s)"}'::text[] loop
    exit when jsonb_array_length(v_made) = jsonb_array_length(p_items);
    with wanted as materialized (
      select distinct on (lower(w.hostname)) w.item, w.nr, w.hostname
      from (
        select e.item, (e.item ->> 'nr')::bigint as nr,
          format(v_spelling, e.item ->> 'hostname', e.item ->> 'external_id') as hostname
        from jsonb_array_elements(p_items) as e(item)
      ) as w
      left join jsonb_to_recordset(v_made) as m(nr bigint) on m.nr = w.nr
      where m.nr is null
      order by lower(w.hostname), w.nr
    ),
    made as (
      insert into public.devices (owner_id, hostname, platform, attributes, last_seen)
      select p_owner_id, w.hostname, w.item ->> 'platform', fleet.sighted_attributes(w.item),
        (w.item ->> 'last_seen')::timestamptz
      from wanted as w
      -- In one order, so that two integrations of a fleet never wait for each other in a circle.
      order by lower(w.hostname)
      on conflict (owner_id, lower(hostname)) do nothing
      returning id, hostname
    )
    select v_made || coalesce(jsonb_agg(w.item || jsonb_build_object('device_id', m.id)), '[]') into v_made
    from wanted as w
    join made as m on m.hostname = w.hostname;
  end loop;
  return v_made;
end;
$$;

comment on function fleet.add_sighted_devices(uuid, jsonb) is
  'Make devices of parsed sightings that mean none of ours. Answers those that were made, with device_id.';
revoke all on function fleet.add_sighted_devices(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.update_sighted_devices(p_items jsonb)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- In one order, so that two who write the same devices never wait for each other in a circle.
  perform 1
  from public.devices as d
  where d.id in (select i.device_id from jsonb_to_recordset(p_items) as i(device_id bigint))
  order by d.id
  for no key update;

  update public.devices as d
  set platform = n.platform, attributes = n.attributes, last_seen = n.last_seen
  from (
    select x.id, coalesce(x.platform, e.item ->> 'platform') as platform,
      x.attributes || fleet.sighted_attributes(e.item) as attributes,
      greatest(x.last_seen, (e.item ->> 'last_seen')::timestamptz) as last_seen
    from jsonb_array_elements(p_items) as e(item)
    join public.devices as x on x.id = (e.item ->> 'device_id')::bigint
  ) as n
  where d.id = n.id
    -- Most say what they said before.
    and (d.platform, d.attributes, d.last_seen) is distinct from (n.platform, n.attributes, n.last_seen);
end;
$$;

comment on function fleet.update_sighted_devices(jsonb) is 'Keep what parsed sightings, with device_id, say of devices of ours.';
revoke all on function fleet.update_sighted_devices(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.link_sighted_devices(p_integration public.device_integrations, p_items jsonb, p_now timestamptz)
returns integer
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  with kept as (
    insert into public.device_links as l (
      device_id, integration_id, owner_id, external_id, attributes, capabilities, seen_at, left_at
    )
    select d.id, p_integration.id, d.owner_id, i.external_id, i.attributes, i.capabilities, p_now,
      case when not i.is_enrolled then p_now end
    from jsonb_to_recordset(p_items) as i(
      device_id bigint, external_id text, attributes jsonb, capabilities jsonb, is_enrolled boolean
    )
    join public.devices as d on d.id = i.device_id
    order by d.id
    on conflict (device_id, integration_id) do update
      set external_id = excluded.external_id, attributes = excluded.attributes, capabilities = excluded.capabilities,
          seen_at = excluded.seen_at, updated_at = p_now,
          left_at = case when excluded.left_at is not null then coalesce(l.left_at, excluded.left_at) end
    returning l.left_at
  )
  select count(*)::integer from kept as k where k.left_at = p_now
$$;

comment on function fleet.link_sighted_devices(public.device_integrations, jsonb, timestamptz) is
  'Link devices to what another system calls them. One that is not enrolled there has left. Answers how many have just left.';
revoke all on function fleet.link_sighted_devices(public.device_integrations, jsonb, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.note_sighted_profiles(p_items jsonb, p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into public.device_profiles as p (device_id, profile_id, owner_id, is_installed, changed_at)
  select d.id, u.profile_id, d.owner_id, true, p_now
  from jsonb_to_recordset(p_items) as i(device_id bigint, profiles jsonb)
  join public.devices as d on d.id = i.device_id
  cross join lateral jsonb_array_elements_text(coalesce(nullif(i.profiles, 'null'), '[]')) as u(profile_id)
  order by d.id, u.profile_id
  on conflict (device_id, profile_id) do update
    set is_installed = true, changed_at = excluded.changed_at;

  update public.device_profiles as p
  set is_installed = false, changed_at = p_now
  from jsonb_to_recordset(p_items) as i(device_id bigint, profiles jsonb)
  where p.device_id = i.device_id
    and p.is_installed
    and jsonb_typeof(i.profiles) = 'array'
    and not i.profiles ? p.profile_id;
end;
$$;

comment on function fleet.note_sighted_profiles(jsonb, timestamptz) is
  'Keep which profiles are on devices, where the other system tells them.';
revoke all on function fleet.note_sighted_profiles(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.nameless_sightings(p_items jsonb, p_made jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    jsonb_agg(jsonb_build_object(
      'external_id', e.item ->> 'external_id',
      'error', format('the host names %s and %1$s (%s) are taken', e.item ->> 'hostname', e.item ->> 'external_id')
    )),
    '[]'
  )
  from jsonb_array_elements(p_items) as e(item)
  left join jsonb_to_recordset(p_made) as m(nr bigint) on m.nr = (e.item ->> 'nr')::bigint
  where m.nr is null
$$;

comment on function fleet.nameless_sightings(jsonb, jsonb) is 'Errors for the new devices that were not made, since there was no name left for them.';
revoke all on function fleet.nameless_sightings(jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.take_sightings(p_integration public.device_integrations, p_devices jsonb, p_now timestamptz)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_items jsonb;
  v_known jsonb;
  v_new jsonb;
  v_made jsonb;
  v_errors jsonb;
  v_left integer;
begin
  select coalesce(jsonb_agg(to_jsonb(s) - 'problem') filter (where s.problem is null), '[]'),
    coalesce(
      jsonb_agg(jsonb_build_object('external_id', s.external_id, 'error', s.problem) order by s.nr)
        filter (where s.problem is not null),
      '[]'
    )
  into v_items, v_errors
  from fleet.parsed_sightings(p_devices) as s;
  select coalesce(jsonb_agg(e.item || jsonb_build_object('device_id', m.device_id)) filter (where m.nr is not null), '[]'),
    -- What is not in the other system, and never was as far as we know, is none of our devices.
    coalesce(jsonb_agg(e.item) filter (where m.nr is null and (e.item ->> 'is_enrolled')::boolean), '[]')
  into v_known, v_new
  from jsonb_array_elements(v_items) as e(item)
  left join fleet.matched_sightings(p_integration, v_items) as m on m.nr = (e.item ->> 'nr')::bigint;

  perform fleet.update_sighted_devices(v_known);
  v_made := fleet.add_sighted_devices(p_integration.owner_id, v_new);
  v_left := fleet.link_sighted_devices(p_integration, v_known || v_made, p_now);
  perform fleet.note_sighted_profiles(v_known || v_made, p_now);
  perform fleet.take_linked_fixes(p_integration.id, v_known || v_made, p_now);

  -- They are there, whatever is wrong with what is told of them.
  update public.device_links as l
  set seen_at = p_now
  from jsonb_to_recordset(v_errors) as e(external_id text)
  where l.integration_id = p_integration.id and l.external_id = e.external_id;
  return jsonb_build_object(
    'created', jsonb_array_length(v_made), 'updated', jsonb_array_length(v_known), 'left', v_left,
    'errors', v_errors || fleet.nameless_sightings(v_new, v_made)
  );
end;
$$;

comment on function fleet.take_sightings(public.device_integrations, jsonb, timestamptz) is
  'Bring what another system says of its devices into the fleet; the caller has locked the integration. {created, updated, left, errors}.';
revoke all on function fleet.take_sightings(public.device_integrations, jsonb, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/60_mdm/56_sync.sql
-- Reading all devices of an MDM: whose turn it is, page by page, and what holds when a sync came to its end.

create or replace function fleet.is_sync_due(p_integration public.device_integrations, p_now timestamptz)
returns boolean
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select p_integration.status = 'active'
    and coalesce(p_integration.sync_held_until <= p_now, true)
    and (
      p_integration.sync_requested_at > coalesce(p_integration.last_sync_at, '-infinity')
      or (
        p_integration.settings -> 'syncEnabled' is distinct from 'false'::jsonb
        and coalesce(
          p_integration.last_sync_at + make_interval(secs => case
            when jsonb_typeof(p_integration.settings -> 'syncIntervalSeconds') = 'number'
              then (p_integration.settings ->> 'syncIntervalSeconds')::double precision
            else 3600
          end) <= p_now,
          true
        )
      )
    )
$$;

comment on function fleet.is_sync_due(public.device_integrations, timestamptz) is
  'Whether the devices of the other system are to be read now: somebody asked, or settings.syncIntervalSeconds (an hour) have passed.';
revoke all on function fleet.is_sync_due(public.device_integrations, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_claim_mdm_syncs(p_limit integer default 1, p_now timestamptz default clock_timestamp())
returns setof jsonb
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  with due as (
    select i.id
    from public.device_integrations as i
    where i.integration_type = any (fleet.mdm_integration_types()) and fleet.is_sync_due(i, p_now)
    order by i.sync_requested_at nulls last, i.last_sync_at nulls first
    limit p_limit
    for update skip locked
  ),
  taken as (
    update public.device_integrations as i
    set sync_held_until = p_now + interval '5 minutes'
    from due
    where i.id = due.id
    returning i.*
  )
  select jsonb_build_object(
    'integration_id', t.id, 'owner_id', t.owner_id, 'integration_type', t.integration_type, 'settings', t.settings,
    'secret', s.secret, 'last_sync_at', t.last_sync_at, 'started_at', p_now
  )
  from taken as t
  left join public.pg_cron_secrets as s on s.name = 'integration:' || t.id
$$;

comment on function fleet.worker_claim_mdm_syncs(integer, timestamptz) is
  'Lease integrations whose devices are to be read, for five minutes: {integration_id, owner_id, integration_type, settings, secret, '
  'last_sync_at, started_at}. worker_end_mdm_sync ends the lease. Definer: the worker reads no table.';
revoke all on function fleet.worker_claim_mdm_syncs(integer, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_sync_inventory(
  p_integration_id bigint,
  p_devices jsonb,
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_integration public.device_integrations;
begin
  -- Its lock makes two syncs of the same integration take turns.
  select i.* into v_integration from public.device_integrations as i where i.id = p_integration_id for update;
  if not found then
    return jsonb_build_object('accepted', false, 'reason', 'not_found');
  end if;
  return jsonb_build_object('accepted', true) || fleet.take_sightings(v_integration, p_devices, p_now);
end;
$$;

comment on function fleet.worker_sync_inventory(bigint, jsonb, timestamptz) is
  'Bring a page of devices into the fleet: a list of {external_id, hostname or name, serial_number, platform, last_seen, latitude, longitude, '
  'accuracy_m, located_at, is_enrolled (false: it has left), attributes, profiles (ids, where they are known)}. {accepted, created, updated, '
  'left, errors: [{external_id, error}]}. Definer: the worker writes no table.';
revoke all on function fleet.worker_sync_inventory(bigint, jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.mark_devices_left(p_integration_id bigint, p_started_at timestamptz, p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  update public.device_links as l
  set left_at = p_now, updated_at = p_now
  where l.integration_id = p_integration_id
    and l.left_at is null
    and coalesce(l.seen_at, l.created_at) < p_started_at;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.mark_devices_left(bigint, timestamptz, timestamptz) is
  'Note that another system no longer has the devices that were not seen since a sync began. Answers how many.';
revoke all on function fleet.mark_devices_left(bigint, timestamptz, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_end_mdm_sync(
  p_integration_id bigint,
  p_started_at timestamptz,
  p_report jsonb,
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_integration public.device_integrations;
  v_is_through boolean := p_report ->> 'error' is null;
  v_counts jsonb := coalesce(p_report -> 'counts', '{}');
  v_left integer := 0;
begin
  select i.* into v_integration from public.device_integrations as i where i.id = p_integration_id for update;
  if not found then
    return jsonb_build_object('accepted', false, 'reason', 'not_found');
  end if;

  if v_is_through then
    -- A list without any device is a fault rather than an account that everybody left.
    if (v_counts ->> 'devices')::integer > 0 then
      v_left := fleet.mark_devices_left(p_integration_id, p_started_at, p_now);
      v_counts := v_counts || jsonb_build_object('left', coalesce((v_counts ->> 'left')::integer, 0) + v_left);
    end if;
    update public.device_integrations as i
    -- Who asks while it runs is not answered by it.
    set last_sync_at = greatest(i.last_sync_at, p_started_at), sync_held_until = null
    where i.id = p_integration_id;
  end if;
  perform fleet.note_activity(v_integration, jsonb_build_object(
    'activity_type', 'sync_import',
    'status', case when v_is_through then 'completed' else 'failed' end,
    'counts', v_counts,
    'duration_ms', round(extract(epoch from p_now - p_started_at) * 1000),
    'error', p_report -> 'error',
    'detail', jsonb_build_object('errors', fleet.errors_to_log(coalesce(p_report -> 'errors', '[]'), p_integration_id))
  ), p_now);
  return jsonb_build_object('accepted', true, 'left', v_left);
end;
$$;

comment on function fleet.worker_end_mdm_sync(bigint, timestamptz, jsonb, timestamptz) is
  'A sync that began at started_at has read every page, or stopped for an error: {counts: {devices, created, updated, left, errors}, errors: '
  '[{external_id, error}], error}. What a whole one did not see has left. {accepted, left}. Definer: the worker writes no table.';
revoke all on function fleet.worker_end_mdm_sync(bigint, timestamptz, jsonb, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/60_mdm/57_activity.sql
-- The log of what integrations did.

create or replace function fleet.note_activity(
  p_integration public.device_integrations,
  p_activity jsonb,
  p_now timestamptz
)
returns bigint
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  insert into public.integration_activity_log (
    owner_id, integration_id, activity_type, status, counts, duration_ms, error, detail, origin_key, created_at
  )
  select p_integration.owner_id, p_integration.id, p_activity ->> 'activity_type', p_activity ->> 'status',
    coalesce(p_activity -> 'counts', '{}'), (p_activity ->> 'duration_ms')::numeric,
    left(fleet.without_secret(p_activity ->> 'error', s.secret), 2000), coalesce(p_activity -> 'detail', '{}'),
    p_activity ->> 'origin_key', p_now
  from (select 1) as one
  left join public.pg_cron_secrets as s on s.name = 'integration:' || p_integration.id
  on conflict (integration_id, origin_key) do nothing
  returning id
$$;

comment on function fleet.note_activity(public.device_integrations, jsonb, timestamptz) is
  'Log {activity_type, status, counts, duration_ms, error, detail, origin_key}. Answers the id of the row; null where it was there already.';
revoke all on function fleet.note_activity(public.device_integrations, jsonb, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.errors_to_log(p_errors jsonb, p_integration_id bigint)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_agg(jsonb_build_object(
    'external_id', e.item -> 'external_id', 'error', fleet.without_secret(left(e.item ->> 'error', 500), s.secret)
  ) order by e.nr), '[]')
  from jsonb_array_elements(p_errors) with ordinality as e(item, nr)
  left join public.pg_cron_secrets as s on s.name = 'integration:' || p_integration_id
  where e.nr <= 20
$$;

comment on function fleet.errors_to_log(jsonb, bigint) is 'The first twenty errors about devices, without the secret of the integration.';
revoke all on function fleet.errors_to_log(jsonb, bigint) from public, anon, authenticated, service_role;

-- db/sources/60_mdm/57_webhooks.sql
-- Secret addresses on which another system tells what happened there.

create or replace function fleet.create_integration_webhook(p_integration_id bigint)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_integration public.device_integrations := fleet.integration_of_caller(p_integration_id);
  v_token text := fleet.random_secret();
  v_path text := '/integration-webhook/' || v_token;
  v_row public.integration_webhooks;
begin
  insert into public.integration_webhooks (owner_id, integration_id, token_hash, created_by)
  values (v_integration.owner_id, v_integration.id, fleet.hash_secret(v_token), fleet.current_user_id())
  returning * into v_row;
  return to_jsonb(v_row) - 'token_hash'
    || jsonb_build_object('token', v_token, 'path', v_path, 'url', (fleet.setting('functions_url') #>> '{}') || v_path);
end;
$$;

comment on function fleet.create_integration_webhook(bigint) is 'See public.create_integration_webhook. Definer: it checks the caller.';
revoke all on function fleet.create_integration_webhook(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.create_integration_webhook(bigint) to authenticated, service_role;

create or replace function public.create_integration_webhook(p_integration_id bigint)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.create_integration_webhook(p_integration_id)
$$;

comment on function public.create_integration_webhook(bigint) is
  'Make a secret address on which the other system tells what happens there; shown this once. {id, token, path, url}; url is null while the '
  'setting functions_url is. Others that were made before go on working until they are revoked. Raises integration_not_found (PT404) or '
  'permission_missing (PT403).';
revoke all on function public.create_integration_webhook(bigint) from public, anon, authenticated, service_role;
grant execute on function public.create_integration_webhook(bigint) to authenticated, service_role;

create or replace function fleet.revoke_integration_webhook(p_id bigint)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid;
begin
  select w.owner_id into v_owner
  from public.integration_webhooks as w
  where w.id = p_id and fleet.is_visible_owner(w.owner_id);
  if not found then
    perform fleet.raise_not_found(format('integration webhook %s', p_id));
  end if;
  perform fleet.require_permission(v_owner, 'manage', format('integration webhook %s', p_id));
  update public.integration_webhooks as w set revoked_at = now() where w.id = p_id and w.revoked_at is null;
end;
$$;

comment on function fleet.revoke_integration_webhook(bigint) is 'See public.revoke_integration_webhook. Definer: it checks the caller.';
revoke all on function fleet.revoke_integration_webhook(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.revoke_integration_webhook(bigint) to authenticated, service_role;

create or replace function public.revoke_integration_webhook(p_id bigint)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.revoke_integration_webhook(p_id)
$$;

comment on function public.revoke_integration_webhook(bigint) is
  'Make the address of another system useless. Raises integration_webhook_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.revoke_integration_webhook(bigint) from public, anon, authenticated, service_role;
grant execute on function public.revoke_integration_webhook(bigint) to authenticated, service_role;

create or replace function fleet.worker_take_integration_webhook(
  p_token text,
  p_body jsonb,
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_webhook public.integration_webhooks;
  v_integration public.device_integrations;
begin
  select w.* into v_webhook
  from public.integration_webhooks as w
  where w.token_hash = fleet.hash_secret(p_token) and w.revoked_at is null;
  if not found then
    raise exception 'there is no such webhook, or its address was revoked'
      using errcode = 'PT404',
            detail = 'integration_webhook_not_found',
            hint = 'Make a new address: select create_integration_webhook()';
  end if;

  -- They may come often; a write each time would be waste.
  update public.integration_webhooks as w
  set last_used_at = p_now
  where w.id = v_webhook.id and (w.last_used_at is null or w.last_used_at < p_now - interval '1 minute');
  select i.* into v_integration from public.device_integrations as i where i.id = v_webhook.integration_id;
  return case v_integration.integration_type
    when 'simplemdm' then fleet.take_simplemdm_hint(v_integration, p_body, p_now)
    when 'nanomdm' then fleet.take_nanomdm_report(v_integration, p_body, p_now)
    else fleet.ignore_webhook(v_integration, p_now)
  end;
end;
$$;

comment on function fleet.worker_take_integration_webhook(text, jsonb, timestamptz) is
  'Take what another system tells on its secret address, according to the type of the integration. {status, is_new}. Raises '
  'integration_webhook_not_found (PT404). Definer: the address alone says whose it is.';
revoke all on function fleet.worker_take_integration_webhook(text, jsonb, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.ignore_webhook(p_integration public.device_integrations, p_now timestamptz)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object('status', 'ignored', 'is_new', fleet.note_activity(p_integration, jsonb_build_object(
    'activity_type', 'webhook_received', 'status', 'ignored',
    'error', format('nothing is known of webhooks of %s', p_integration.integration_type)
  ), p_now) is not null)
$$;

comment on function fleet.ignore_webhook(public.device_integrations, timestamptz) is
  'Log a webhook of a system that is not understood.';
revoke all on function fleet.ignore_webhook(public.device_integrations, timestamptz) from public, anon, authenticated, service_role;

-- db/sources/60_mdm/58_rereads.sql
-- Devices of an MDM that are to be looked at again, because its webhook spoke of them. What it says is a hint: only what the
-- MDM answers when it is asked counts.

create or replace function fleet.simplemdm_hint(p_body jsonb)
returns table (event text, external_id text, is_known boolean, origin_key text, detail jsonb)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select g.event, g.external_id,
    g.event in ('device.enrolled', 'device.unenrolled', 'device.changed_group', 'device.lock.enabled', 'abm.device.added'),
    -- Without a time two that look alike may be two.
    case
      when g.at is not null
        then encode(sha256(convert_to(jsonb_build_array(g.event, g.at, coalesce(g.external_id, g.serial_number))::text, 'UTF8')), 'hex')
    end,
    jsonb_strip_nulls(jsonb_build_object(
      'event', g.event, 'at', g.at, 'external_id', g.external_id, 'serial_number', g.serial_number
    ))
  from (
    select left(b.body ->> 'type', 100) as event, left(b.body ->> 'at', 100) as at,
      -- It becomes part of an address.
      substring(b.body #>> '{data,device,id}' from '^\d{1,18}$') as external_id,
      left(b.body #>> '{data,device,serial_number}', 100) as serial_number
    from (select case jsonb_typeof(p_body) when 'object' then p_body else '{}' end as body) as b
  ) as g
$$;

comment on function fleet.simplemdm_hint(jsonb) is
  'What the body of a webhook of SimpleMDM speaks of: the event, the device where it has an id, and what the same webhook would have too.';
revoke all on function fleet.simplemdm_hint(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.take_simplemdm_hint(p_integration public.device_integrations, p_body jsonb, p_now timestamptz)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_hint record;
  v_status text;
  v_is_new boolean;
begin
  select h.*, coalesce(h.is_known, false) and p_integration.status <> 'disabled' as is_meant into v_hint
  from fleet.simplemdm_hint(p_body) as h;
  v_status := case when v_hint.is_meant then 'completed' else 'ignored' end;
  v_is_new := fleet.note_activity(p_integration, jsonb_build_object(
    'activity_type', 'webhook_received', 'status', v_status, 'origin_key', v_hint.origin_key, 'detail', v_hint.detail
  ), p_now) is not null;

  if v_is_new and v_hint.is_meant then
    if v_hint.external_id is null then
      update public.device_integrations as i set sync_requested_at = p_now where i.id = p_integration.id;
    else
      perform fleet.ask_for_reread(p_integration.id, v_hint.external_id, p_now);
    end if;
    if fleet.has_mdm_work(p_now) then
      -- With the turnstile: nobody holds this transaction open, and many may come at once.
      perform fleet.poke_once_a_second('mdm-dispatch', p_now);
    end if;
  end if;
  return jsonb_build_object('status', v_status, 'is_new', v_is_new);
end;
$$;

comment on function fleet.take_simplemdm_hint(public.device_integrations, jsonb, timestamptz) is
  'Log a webhook of SimpleMDM, once, and ask for a look at its device; where it names none by id, for a sync. {status, is_new}.';
revoke all on function fleet.take_simplemdm_hint(public.device_integrations, jsonb, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.ask_for_reread(p_integration_id bigint, p_external_id text, p_now timestamptz)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  insert into fleet.mdm_rereads as r (integration_id, external_id, asked_at, look_at)
  select p_integration_id, p_external_id, p_now,
    -- One look serves all that comes within a few seconds.
    greatest(p_now, (
      select greatest(l.seen_at, l.left_at) + interval '5 seconds'
      from public.device_links as l
      where l.integration_id = p_integration_id and l.external_id = p_external_id
    ))
  on conflict (integration_id, external_id) do update
    set asked_at = excluded.asked_at
$$;

comment on function fleet.ask_for_reread(bigint, text, timestamptz) is 'Have a device looked at again; once, however often it is asked for.';
revoke all on function fleet.ask_for_reread(bigint, text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.has_mdm_rereads(p_integration_id bigint, p_now timestamptz)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select 1
    from fleet.mdm_rereads as r
    where r.integration_id = p_integration_id and r.look_at <= p_now and coalesce(r.held_until <= p_now, true)
  )
$$;

comment on function fleet.has_mdm_rereads(bigint, timestamptz) is 'Whether devices of an integration are to be looked at now.';
revoke all on function fleet.has_mdm_rereads(bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_claim_mdm_rereads(p_limit integer default 20, p_now timestamptz default clock_timestamp())
returns setof jsonb
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  with due as (
    select r.integration_id, r.external_id
    from fleet.mdm_rereads as r
    join public.device_integrations as i on i.id = r.integration_id and i.status = 'active'
    where r.look_at <= p_now and coalesce(r.held_until <= p_now, true)
    order by r.look_at
    limit least(greatest(p_limit, 1), 200)
    for update of r skip locked
  ),
  taken as (
    update fleet.mdm_rereads as r
    set held_until = p_now + interval '1 minute', tries = r.tries + 1
    from due
    where r.integration_id = due.integration_id and r.external_id = due.external_id
    returning r.*
  )
  select jsonb_build_object(
    'integration_id', i.id, 'integration_type', i.integration_type, 'settings', i.settings, 'secret', s.secret,
    'external_id', t.external_id, 'asked_at', t.asked_at, 'tries', t.tries
  )
  from taken as t
  join public.device_integrations as i on i.id = t.integration_id
  left join public.pg_cron_secrets as s on s.name = 'integration:' || i.id
$$;

comment on function fleet.worker_claim_mdm_rereads(integer, timestamptz) is
  'Lease devices that are to be looked at again, for a minute: {integration_id, integration_type, settings, secret, external_id, asked_at, '
  'tries}. worker_finish_mdm_reread ends the lease. Definer: the worker reads no table.';
revoke all on function fleet.worker_claim_mdm_rereads(integer, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_finish_mdm_reread(
  p_claim jsonb,
  p_devices jsonb,
  p_error text default null,
  p_retry_after interval default null,
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_integration public.device_integrations;
  v_external_id text := p_claim ->> 'external_id';
  v_tries integer := (p_claim ->> 'tries')::integer;
  v_answer jsonb := '{}';
begin
  select i.* into v_integration from public.device_integrations as i where i.id = (p_claim ->> 'integration_id')::bigint for update;
  if not found then
    return jsonb_build_object('accepted', false, 'reason', 'not_found');
  end if;

  if p_error is null then
    v_answer := fleet.take_sightings(v_integration, p_devices, p_now);
    update public.device_links as l
    set left_at = p_now, updated_at = p_now
    where p_devices = '[]' and l.integration_id = v_integration.id and l.external_id = v_external_id and l.left_at is null;
  end if;
  delete from fleet.mdm_rereads as r
  where r.integration_id = v_integration.id
    and r.external_id = v_external_id
    -- Who asked while it was looked at wants another look.
    and (p_error is null and r.asked_at = (p_claim ->> 'asked_at')::timestamptz or p_error is not null and v_tries >= 8);
  update fleet.mdm_rereads as r
  set held_until = null,
      tries = case when p_error is null then 0 else r.tries end,
      look_at = p_now + case
        when p_error is null then interval '5 seconds'
        else greatest(p_retry_after, least(interval '10 seconds' * 2 ^ v_tries, interval '1 hour'))
      end
  where r.integration_id = v_integration.id and r.external_id = v_external_id and r.tries = v_tries;
  return jsonb_build_object('accepted', true) || v_answer;
end;
$$;

comment on function fleet.worker_finish_mdm_reread(jsonb, jsonb, text, interval, timestamptz) is
  'Tell what a look brought for what worker_claim_mdm_rereads gave: a list of the one device as for worker_sync_inventory, an empty one '
  'where the MDM has it no more, or an error; then it is looked at later, eight times at most. {accepted, created, updated, left, errors}. '
  'Definer: the worker writes no table.';
revoke all on function fleet.worker_finish_mdm_reread(jsonb, jsonb, text, interval, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/60_mdm/59_nanomdm.sql
-- What NanoMDM tells on its secret address: the only way in which it says what became of a command.

create or replace function fleet.mdm_command_uuid(p_command_id bigint)
returns uuid
language sql
immutable
parallel safe
return md5('pgfleet:command:' || p_command_id)::uuid;

comment on function fleet.mdm_command_uuid(bigint) is
  'The id under which a command is on the queue of an MDM that takes ids; all attempts share it.';
revoke all on function fleet.mdm_command_uuid(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.nanomdm_report(p_body jsonb)
returns table (udid text, command_uuid uuid, status text, error text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(e.event ->> 'enrollment_id', e.event ->> 'udid'), fleet.try_uuid(e.event ->> 'command_uuid'), e.event ->> 'status',
    concat_ws(': ', 'the device answered ' || (e.event ->> 'status'), (
      -- The first error of the device's own words, a property list.
      select left(substring(
        convert_from(decode(e.event ->> 'raw_payload', 'base64'), 'UTF8')
        from '<key>(?:USEnglishDescription|LocalizedDescription)</key>\s*<string>([^<]*)</string>'
      ), 500)
      where e.event ->> 'raw_payload' ~ '^[A-Za-z0-9+/]+={0,2}$' and length(e.event ->> 'raw_payload') % 4 = 0
    ))
  from (
    select case jsonb_typeof(p_body -> 'acknowledge_event') when 'object' then p_body -> 'acknowledge_event' end as event
  ) as e
  where p_body ->> 'topic' = 'mdm.Connect'
$$;

comment on function fleet.nanomdm_report(jsonb) is
  'A device''s answer to a command, out of a webhook of NanoMDM; no row for webhooks of another kind.';
revoke all on function fleet.nanomdm_report(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.take_nanomdm_report(p_integration public.device_integrations, p_body jsonb, p_now timestamptz)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_report record;
  v_command record;
  v_outcome text;
begin
  select r.* into v_report from fleet.nanomdm_report(p_body) as r;
  -- By the device, of whose commands there are few; its answer may be here before the function has noted that it was taken.
  select c.id, c.attempt into v_command
  from public.device_links as l
  join fleet.mdm_work as w on w.device_id = l.device_id and w.integration_id = l.integration_id
  join public.device_commands as c on c.id = w.command_id and c.status = 'running'
  where l.integration_id = p_integration.id
    and l.external_id = v_report.udid
    and fleet.mdm_command_uuid(c.id) = v_report.command_uuid;
  v_outcome := case
    when v_command.id is null then null
    when v_report.status = 'Acknowledged' then 'completed'
    when v_report.status in ('Error', 'CommandFormatError') then 'failed'
  end;
  if v_outcome is null then
    -- Devices come by all the time; what is not the end of a command of ours is not worth a row.
    return jsonb_build_object('status', 'ignored', 'is_new', false);
  end if;

  perform fleet.note_activity(p_integration, jsonb_build_object(
    'activity_type', 'webhook_received', 'status', 'completed',
    'detail', jsonb_build_object('command_id', v_command.id, 'status', v_report.status)
  ), p_now);
  perform fleet.worker_finish_mdm(
    v_command.id, v_command.attempt, v_outcome,
    p_result => jsonb_build_object('state', case v_outcome when 'completed' then 'acknowledged' else 'failed' end),
    p_error => case v_outcome when 'failed' then v_report.error end,
    p_reason => case v_outcome when 'failed' then 'refused' end,
    p_now => p_now
  );
  return jsonb_build_object('status', 'completed', 'is_new', true);
end;
$$;

comment on function fleet.take_nanomdm_report(public.device_integrations, jsonb, timestamptz) is
  'End a command by what its device answered NanoMDM. "Not now" and "idle" end nothing: the device comes again. {status, is_new}.';
revoke all on function fleet.take_nanomdm_report(public.device_integrations, jsonb, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/60_mdm/60_pairs.sql
-- A temporary profile is two schedules. What becomes of the first decides about the second.

create or replace function fleet.move_removal(p_install public.profile_installs, p_at timestamptz)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_removal public.schedules;
begin
  select s.* into v_removal from public.schedules as s where s.id = p_install.remove_schedule_id for update;
  if not found or v_removal.status = 'cancelled' then
    return false;
  end if;

  if v_removal.next_run_at is not null then
    update public.schedules as s set start_time = p_at where s.id = v_removal.id;
    return true;
  end if;
  -- Its run is made already, but nobody has begun it: it waits behind a push that was late.
  update public.device_commands as c
  set not_before = p_at, expires_at = greatest(c.expires_at, p_at + interval '1 day')
  where c.schedule_id = v_removal.id and c.status = 'pending';
  return found;
end;
$$;

comment on function fleet.move_removal(public.profile_installs, timestamptz) is
  'Let the removal of a pair happen at another time. Answers false where it has begun, or there is none any more.';
revoke all on function fleet.move_removal(public.profile_installs, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.note_profile_accepted(p_schedule_id bigint, p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_install public.profile_installs;
  v_planned timestamptz;
begin
  update public.profile_installs as p
  set removed_at = p_now
  where p.remove_schedule_id = p_schedule_id and p.removed_at is null;
  if found then
    return;
  end if;

  update public.profile_installs as p
  set installed_at = p_now, failure = null
  where p.install_schedule_id = p_schedule_id and p.installed_at is null
  returning * into v_install;
  if v_install.duration is null then
    return;
  end if;

  -- The blink that a call takes moves nothing; a push that was late keeps its duration.
  select s.start_time into v_planned from public.schedules as s where s.id = p_schedule_id;
  if p_now > v_planned + interval '1 second' then
    perform fleet.move_removal(v_install, p_now + v_install.duration);
  end if;
end;
$$;

comment on function fleet.note_profile_accepted(bigint, timestamptz) is
  'The MDM took the push or the removal of a pair.';
revoke all on function fleet.note_profile_accepted(bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.cancel_failed_removals(p_install_id bigint default null)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_install public.profile_installs;
  v_count integer := 0;
begin
  for v_install in
    select p.*
    from public.profile_installs as p
    where p.failure is not null and not p.is_settled and (p_install_id is null or p.id = p_install_id)
    order by p.id
    limit 1000
    for update skip locked
  loop
    update public.schedules as s
    set status = 'cancelled', status_reason = 'the profile was never installed: ' || v_install.failure
    where s.id = v_install.remove_schedule_id and s.status <> 'cancelled';
    update public.profile_installs as p set is_settled = true where p.id = v_install.id;
    v_count := v_count + 1;
  end loop;
  return v_count;
end;
$$;

comment on function fleet.cancel_failed_removals(bigint) is
  'Cancel the removals, or that of one install, whose push came to nothing. Answers how many. Called by the tick and when a function finishes.';
revoke all on function fleet.cancel_failed_removals(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.push_failure(p_schedule public.schedules)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    -- As long as there is something that may still install it, nothing has failed.
    when p_schedule.next_run_at is not null and p_schedule.status in ('active', 'paused') then null
    when exists (
      select 1
      from public.device_commands as c
      where c.schedule_id = p_schedule.id and c.status in ('pending', 'running', 'completed')
    ) then null
    when exists (
      select 1
      from public.schedule_runs as r
      where r.schedule_id = p_schedule.id and r.expanded_at is null and r.status in ('pending', 'running')
    ) then null
    else coalesce(
      (
        select coalesce(c.error_message, c.reason, c.status)
        from public.device_commands as c
        where c.schedule_id = p_schedule.id
        order by c.id desc
        limit 1
      ),
      (
        select coalesce(r.error_message, r.reason, r.status)
        from public.schedule_runs as r
        where r.schedule_id = p_schedule.id
        order by r.id desc
        limit 1
      ),
      p_schedule.status_reason,
      p_schedule.status
    )
  end
$$;

comment on function fleet.push_failure(public.schedules) is
  'Why a push schedule will never install anything; null while it may.';
revoke all on function fleet.push_failure(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.note_failed_pushes(p_schedule_ids bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  -- Only noted: this runs in triggers, amid a statement that may change both schedules of a pair.
  update public.profile_installs as p
  set failure = f.failure
  from public.schedules as s
  cross join lateral fleet.push_failure(s) as f(failure)
  where p.install_schedule_id = any (p_schedule_ids)
    and p.installed_at is null
    and p.failure is null
    and s.id = p.install_schedule_id
    and f.failure is not null
$$;

comment on function fleet.note_failed_pushes(bigint[]) is 'Note which of these push schedules came to nothing.';
revoke all on function fleet.note_failed_pushes(bigint[]) from public, anon, authenticated, service_role;

-- db/sources/60_mdm/65_profiles.sql
-- Installing profiles: schedules like all others, made by one call.

create or replace function fleet.device_of_caller(p_device_id bigint)
returns public.devices
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.devices;
begin
  select d.* into v_row from public.devices as d where d.id = p_device_id and fleet.is_visible_owner(d.owner_id);
  if not found then
    perform fleet.raise_device_not_found(p_device_id);
  end if;
  perform fleet.require_permission(v_row.owner_id, 'manage', format('device %s', p_device_id));
  if v_row.status = 'retired' then
    raise exception 'device "%" is retired', v_row.hostname
      using errcode = 'PT409', detail = 'device_retired', hint = 'Re-key it to bring it back: pgfleet device rekey <hostname>';
  end if;
  return v_row;
end;
$$;

comment on function fleet.device_of_caller(bigint) is
  'The active device, if the caller manages it. Raises device_not_found (PT404), permission_missing (PT403) or device_retired (PT409).';
revoke all on function fleet.device_of_caller(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.live_install(p_profile_id text, p_device_id bigint, p_at timestamptz)
returns public.profile_installs
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.profile_installs;
begin
  select p.* into v_row
  from public.profile_installs as p
  join public.schedules as i on i.id = p.install_schedule_id
  join public.schedules as r on r.id = p.remove_schedule_id
  where p.device_id = p_device_id
    and p.profile_id = p_profile_id
    and p.failure is null
    and p.removed_at is null
    and p.duration is not null
    and i.status <> 'cancelled'
    -- Its removal is still to come: the tick, which moves it on, waits for this lock or is waited for.
    and r.status in ('active', 'paused')
    and r.next_run_at is not null
    and p_at >= i.start_time - interval '1 second'
    and p_at <= r.start_time
  order by p.id desc
  limit 1
  for update of p, r;
  return v_row;
end;
$$;

comment on function fleet.live_install(text, bigint, timestamptz) is
  'The temporary install of a profile on a device that runs at an instant, locked with its removal; null where there is none.';
revoke all on function fleet.live_install(text, bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.make_profile_schedule(
  p_action_type text,
  p_profile_id text,
  p_device public.devices,
  p_at timestamptz
)
returns bigint
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  insert into public.schedules (
    owner_id, name, action_type, payload, recurrence_type, start_time, timezone, device_ids, ui_initiated, policies
  )
  values (
    p_device.owner_id,
    format('%s %s on %s', case p_action_type when 'push_profile' then 'install' else 'remove' end, p_profile_id, p_device.hostname),
    p_action_type, jsonb_build_object('profile_id', p_profile_id), 'once', p_at, 'UTC', array[p_device.id], true,
    case p_action_type
      when 'push_profile' then '{}'::jsonb
      -- What was promised to go must go, however long the ticks or the provider were away.
      else '{"catchup_window": "30 days", "expires_after": "30 days", "retry": {"attempts": 100}}'::jsonb
    end
  )
  returning id
$$;

comment on function fleet.make_profile_schedule(text, text, public.devices, timestamptz) is
  'One schedule that pushes or removes a profile once.';
revoke all on function fleet.make_profile_schedule(text, text, public.devices, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.require_profile(p_profile_id text)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if btrim(coalesce(p_profile_id, '')) = '' then
    raise exception 'p_profile_id is missing'
      using errcode = 'PT422', detail = 'profile_missing', hint = 'Name the profile as the MDM does, such as ''12345''.';
  end if;
end;
$$;

comment on function fleet.require_profile(text) is 'Raise profile_missing (PT422).';
revoke all on function fleet.require_profile(text) from public, anon, authenticated, service_role;

create or replace function fleet.require_duration(p_duration interval, p_field text)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_duration <= interval '0' or not isfinite(p_duration) then
    raise exception '% must be longer than nothing, not %', p_field, p_duration
      using errcode = 'PT422', detail = 'duration_invalid', hint = 'Example: ''30 minutes''';
  end if;
end;
$$;

comment on function fleet.require_duration(interval, text) is 'Raise duration_invalid (PT422) for what is not longer than nothing.';
revoke all on function fleet.require_duration(interval, text) from public, anon, authenticated, service_role;

create or replace function fleet.install_again(p_install public.profile_installs, p_duration interval, p_at timestamptz)
returns public.profile_installs
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.profile_installs;
begin
  if p_duration is null then
    update public.schedules as s
    set status = 'cancelled', status_reason = 'the profile was installed for good meanwhile'
    where s.id = p_install.remove_schedule_id;
  else
    perform fleet.move_removal(p_install, p_at + p_duration);
  end if;
  update public.profile_installs as p
  -- Counted from when the profile came, which may still be ahead.
  set duration = p_at + p_duration - coalesce(p.installed_at, i.start_time)
  from public.schedules as i
  where p.id = p_install.id and i.id = p.install_schedule_id
  returning p.* into v_row;
  return v_row;
end;
$$;

comment on function fleet.install_again(public.profile_installs, interval, timestamptz) is
  'Installing what is there for a time already: only its removal moves, or is cancelled where it is to stay.';
revoke all on function fleet.install_again(public.profile_installs, interval, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.install_profile(
  p_profile_id text,
  p_device_id bigint,
  p_duration interval,
  p_at timestamptz
)
returns public.profile_installs
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device public.devices := fleet.device_of_caller(p_device_id);
  v_row public.profile_installs;
  v_install_id bigint;
  v_remove_id bigint;
begin
  perform fleet.require_profile(p_profile_id);
  perform fleet.require_duration(p_duration, 'p_duration');
  -- Two who press the button at once take turns: the second finds the install of the first.
  perform pg_advisory_xact_lock(hashtextextended('pgfleet.profile:' || p_device_id || ':' || p_profile_id, 0));
  v_row := fleet.live_install(p_profile_id, p_device_id, p_at);
  if v_row.id is not null then
    return fleet.install_again(v_row, p_duration, p_at);
  end if;

  v_install_id := fleet.make_profile_schedule('push_profile', p_profile_id, v_device, p_at);
  if p_duration is not null then
    v_remove_id := fleet.make_profile_schedule('remove_profile', p_profile_id, v_device, p_at + p_duration);
  end if;
  insert into public.profile_installs (owner_id, profile_id, device_id, install_schedule_id, remove_schedule_id, duration)
  values (v_device.owner_id, p_profile_id, p_device_id, v_install_id, v_remove_id, p_duration)
  returning * into v_row;

  -- It may have run, and come to nothing, when it was inserted.
  perform fleet.note_failed_pushes(array[v_install_id]);
  perform fleet.cancel_failed_removals(v_row.id);
  select p.* into v_row from public.profile_installs as p where p.id = v_row.id;
  return v_row;
end;
$$;

comment on function fleet.install_profile(text, bigint, interval, timestamptz) is
  'See public.install_profile. Definer: it checks the caller.';
revoke all on function fleet.install_profile(text, bigint, interval, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.install_profile(text, bigint, interval, timestamptz) to authenticated, service_role;

create or replace function public.install_profile(
  p_profile_id text,
  p_device_id bigint,
  p_duration interval default null,
  p_at timestamptz default now()
)
returns public.profile_installs
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.install_profile(p_profile_id, p_device_id, p_duration, coalesce(p_at, now()))
$$;

comment on function public.install_profile(text, bigint, interval, timestamptz) is
  'Install a profile on a device, now or at an instant, for good or for a time: one push_profile schedule, and with a duration its '
  'remove_profile schedule. While a temporary install of the same profile runs, only its removal moves. Raises device_not_found (PT404), '
  'permission_missing (PT403), device_retired (PT409), profile_missing or duration_invalid (PT422).';
revoke all on function public.install_profile(text, bigint, interval, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function public.install_profile(text, bigint, interval, timestamptz) to authenticated, service_role;

-- db/sources/60_mdm/66_moving.sql
-- Extending, ending and removing what is installed: the pair moves, and no row is made.

create or replace function fleet.install_of_caller(p_install_id bigint)
returns public.profile_installs
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.profile_installs;
begin
  select p.* into v_row
  from public.profile_installs as p
  where p.id = p_install_id and fleet.is_visible_owner(p.owner_id)
  for update;
  if not found then
    perform fleet.raise_not_found(format('profile install %s', p_install_id));
  end if;
  perform fleet.require_permission(v_row.owner_id, 'manage', format('profile install %s', p_install_id));
  if v_row.duration is null then
    raise exception 'profile install % has no end', p_install_id
      using errcode = 'PT409',
            detail = 'profile_install_permanent',
            hint = format('Remove the profile: select remove_profile(%L, %s)', v_row.profile_id, v_row.device_id);
  elsif v_row.failure is not null or v_row.removed_at is not null then
    perform fleet.raise_install_over(p_install_id);
  end if;
  return v_row;
end;
$$;

comment on function fleet.install_of_caller(bigint) is
  'A temporary install that is not over, locked, if the caller manages it. Raises profile_install_not_found (PT404), permission_missing '
  '(PT403), profile_install_permanent or profile_install_over (PT409).';
revoke all on function fleet.install_of_caller(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.raise_install_over(p_install_id bigint)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'profile install % is over', p_install_id
    using errcode = 'PT409', detail = 'profile_install_over', hint = 'Install the profile again.';
end;
$$;

comment on function fleet.raise_install_over(bigint) is 'Raise profile_install_over (PT409).';
revoke all on function fleet.raise_install_over(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.extend_profile(p_install_id bigint, p_by interval)
returns public.profile_installs
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.profile_installs := fleet.install_of_caller(p_install_id);
  v_at timestamptz;
begin
  if p_by is null then
    raise exception 'p_by is missing'
      using errcode = 'PT422', detail = 'duration_invalid', hint = 'Example: ''30 minutes''';
  end if;
  perform fleet.require_duration(p_by, 'p_by');
  select s.start_time + p_by into v_at from public.schedules as s where s.id = v_row.remove_schedule_id;
  if not fleet.move_removal(v_row, v_at) then
    perform fleet.raise_install_over(p_install_id);
  end if;
  update public.profile_installs as p set duration = p.duration + p_by where p.id = p_install_id returning * into v_row;
  return v_row;
end;
$$;

comment on function fleet.extend_profile(bigint, interval) is 'See public.extend_profile. Definer: it checks the caller.';
revoke all on function fleet.extend_profile(bigint, interval) from public, anon, authenticated, service_role;
grant execute on function fleet.extend_profile(bigint, interval) to authenticated, service_role;

create or replace function public.extend_profile(p_install_id bigint, p_by interval)
returns public.profile_installs
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.extend_profile(p_install_id, p_by)
$$;

comment on function public.extend_profile(bigint, interval) is
  'Let a temporary profile stay longer. Raises profile_install_not_found (PT404), permission_missing (PT403), profile_install_permanent '
  'or profile_install_over (PT409), or duration_invalid (PT422).';
revoke all on function public.extend_profile(bigint, interval) from public, anon, authenticated, service_role;
grant execute on function public.extend_profile(bigint, interval) to authenticated, service_role;

create or replace function fleet.end_install(p_install public.profile_installs, p_now timestamptz)
returns public.profile_installs
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.profile_installs := p_install;
begin
  if p_install.installed_at is null and not exists (
    select 1 from public.device_commands as c where c.schedule_id = p_install.install_schedule_id and c.status = 'running'
  ) then
    -- It never began: there is nothing to remove.
    update public.schedules as s
    set status = 'cancelled', status_reason = 'ended before it began'
    where s.id in (p_install.install_schedule_id, p_install.remove_schedule_id) and s.status <> 'cancelled';
    update public.profile_installs as p
    set failure = 'ended before it began', is_settled = true
    where p.id = p_install.id
    returning * into v_row;
    return v_row;
  end if;

  if not fleet.move_removal(p_install, p_now) then
    perform fleet.raise_install_over(p_install.id);
  end if;
  update public.profile_installs as p
  set duration = greatest(p_now - coalesce(p.installed_at, p_now), interval '1 microsecond')
  where p.id = p_install.id
  returning * into v_row;
  perform fleet.run_due(array[p_install.remove_schedule_id], clock_timestamp());
  return v_row;
end;
$$;

comment on function fleet.end_install(public.profile_installs, timestamptz) is
  'Remove a temporary profile now, or call off what has not begun.';
revoke all on function fleet.end_install(public.profile_installs, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.end_profile(p_install_id bigint, p_now timestamptz)
returns public.profile_installs
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  select fleet.end_install(fleet.install_of_caller(p_install_id), p_now)
$$;

comment on function fleet.end_profile(bigint, timestamptz) is 'See public.end_profile. Definer: it checks the caller.';
revoke all on function fleet.end_profile(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.end_profile(bigint, timestamptz) to authenticated, service_role;

create or replace function public.end_profile(p_install_id bigint)
returns public.profile_installs
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.end_profile(p_install_id, now())
$$;

comment on function public.end_profile(bigint) is
  'End a temporary profile early: it is removed now, or never installed where it has not begun. Raises profile_install_not_found (PT404), '
  'permission_missing (PT403), profile_install_permanent or profile_install_over (PT409).';
revoke all on function public.end_profile(bigint) from public, anon, authenticated, service_role;
grant execute on function public.end_profile(bigint) to authenticated, service_role;

create or replace function fleet.remove_profile(p_profile_id text, p_device_id bigint, p_at timestamptz)
returns public.schedules
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device public.devices := fleet.device_of_caller(p_device_id);
  v_install public.profile_installs;
  v_id bigint;
  v_row public.schedules;
begin
  perform fleet.require_profile(p_profile_id);
  perform pg_advisory_xact_lock(hashtextextended('pgfleet.profile:' || p_device_id || ':' || p_profile_id, 0));
  v_install := fleet.live_install(p_profile_id, p_device_id, p_at);
  if v_install.id is not null and p_at <= now() then
    v_install := fleet.end_install(v_install, p_at);
    v_id := v_install.remove_schedule_id;
  elsif v_install.id is not null then
    v_install := fleet.install_again(v_install, p_at - now(), now());
    v_id := v_install.remove_schedule_id;
  else
    v_id := fleet.make_profile_schedule('remove_profile', p_profile_id, v_device, p_at);
  end if;
  select s.* into v_row from public.schedules as s where s.id = v_id;
  return v_row;
end;
$$;

comment on function fleet.remove_profile(text, bigint, timestamptz) is 'See public.remove_profile. Definer: it checks the caller.';
revoke all on function fleet.remove_profile(text, bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.remove_profile(text, bigint, timestamptz) to authenticated, service_role;

create or replace function public.remove_profile(p_profile_id text, p_device_id bigint, p_at timestamptz default now())
returns public.schedules
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.remove_profile(p_profile_id, p_device_id, coalesce(p_at, now()))
$$;

comment on function public.remove_profile(text, bigint, timestamptz) is
  'Remove a profile from a device, now or at an instant: the removal of a temporary install moves, else a schedule is made. Answers the '
  'remove_profile schedule. Raises device_not_found (PT404), permission_missing (PT403), device_retired (PT409) or profile_missing (PT422).';
revoke all on function public.remove_profile(text, bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.remove_profile(text, bigint, timestamptz) to authenticated, service_role;

-- db/sources/60_mdm/67_uploads.sql
-- Uploading configuration profiles to an MDM, and deleting them there: people ask, the function mdm-dispatch does it.

create or replace function fleet.mdm_of_caller(p_integration_id bigint)
returns public.device_integrations
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids bigint[];
  v_choice text;
  v_row public.device_integrations;
begin
  if p_integration_id is null then
    select array_agg(i.id), string_agg(format('%s "%s"', i.id, i.name), ', ' order by i.id) into v_ids, v_choice
    from public.device_integrations as i
    where i.integration_type = any (fleet.mdm_integration_types())
      and i.status <> 'disabled'
      and fleet.is_visible_owner(i.owner_id);
    if v_ids is null then
      raise exception 'there is no MDM to upload to'
        using errcode = 'PT422', detail = 'integration_missing', hint = 'Connect one: pgfleet integration create office --type simplemdm';
    elsif cardinality(v_ids) > 1 then
      raise exception 'p_integration_id is missing, and there are several MDMs: %', v_choice
        using errcode = 'PT422', detail = 'integration_ambiguous', hint = 'Name one of them: p_integration_id, or --integration.';
    end if;
  end if;

  v_row := fleet.integration_of_caller(coalesce(p_integration_id, v_ids[1]));
  if v_row.integration_type <> all (fleet.mdm_integration_types()) then
    raise exception 'integration % is no MDM but of type %', v_row.id, v_row.integration_type
      using errcode = 'PT422', detail = 'integration_not_mdm', hint = 'List integrations with: pgfleet integration list';
  elsif v_row.status = 'disabled' then
    raise exception 'integration % is disabled', v_row.id
      using errcode = 'PT409',
            detail = 'integration_disabled',
            hint = format('Resume it: select resume_integration(%s)', v_row.id);
  end if;
  return v_row;
end;
$$;

comment on function fleet.mdm_of_caller(bigint) is
  'The MDM that was named, or the only one there is, locked, if the caller manages it. Raises integration_not_found (PT404), '
  'permission_missing (PT403), integration_missing, integration_ambiguous or integration_not_mdm (PT422), or integration_disabled (PT409).';
revoke all on function fleet.mdm_of_caller(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.is_profile_file(p_content bytea)
returns boolean
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case
    when substring(p_content for 8) = 'bplist00' then true
    -- Signed: a sequence in DER that begins with the name of "signed data".
    when substring(p_content for 1) = '\x30' then position('\x06092a864886f70d010702'::bytea in substring(p_content for 32)) > 0
    -- XML, perhaps after a byte order mark and blanks.
    else substring(btrim(p_content, '\xefbbbf20090d0a') for 1) = '<' and position('<plist'::bytea in p_content) > 0
  end
$$;

comment on function fleet.is_profile_file(bytea) is
  'Whether a file looks like a configuration profile: a property list in XML or binary, or one that is signed (DER).';
revoke all on function fleet.is_profile_file(bytea) from public, anon, authenticated, service_role;

create or replace function fleet.profile_problems(p_name text, p_content bytea, p_options jsonb)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select 'p_name', 'must not be blank', 'Give the profile a name.'
  where btrim(coalesce(p_name, '')) = ''
  union all
  select 'p_name', 'must not be longer than 200 characters', 'Choose a shorter name.'
  where length(p_name) > 200
  union all
  select 'p_mobileconfig', c.problem, c.hint
  from (
    select
      case
        when coalesce(octet_length(p_content), 0) = 0 then 'is empty'
        when octet_length(p_content) > 1048576 then format('has %s bytes; at most 1048576 are taken', octet_length(p_content))
        when not fleet.is_profile_file(p_content) then 'is no configuration profile: neither a property list nor a signed one'
      end as problem,
      'Upload a .mobileconfig file as it is.' as hint
  ) as c
  where c.problem is not null
  union all
  select 'p_options', 'must be an object', 'Example: {"user_scope": false}'
  where jsonb_typeof(coalesce(p_options, 'null')) <> 'object'
  union all
  select 'p_options.' || e.key,
    case when e.key = any (k.names) then 'must be true or false' else 'is not known' end,
    'Known are user_scope, attribute_support, escape_attributes, reinstall_after_os_update and declarative.'
  from (values ('{user_scope,attribute_support,escape_attributes,reinstall_after_os_update,declarative}'::text[])) as k(names)
  cross join lateral jsonb_each(case jsonb_typeof(p_options) when 'object' then p_options else '{}' end) as e
  where e.key <> all (k.names) or jsonb_typeof(e.value) <> 'boolean'
$$;

comment on function fleet.profile_problems(text, bytea, jsonb) is
  'Everything that is wrong with a profile that is to be uploaded; no row where nothing is. None of it quotes the file.';
revoke all on function fleet.profile_problems(text, bytea, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.upload_profile(
  p_name text,
  p_mobileconfig bytea,
  p_integration_id bigint,
  p_options jsonb,
  p_now timestamptz
)
returns public.profiles
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_integration public.device_integrations := fleet.mdm_of_caller(p_integration_id);
  v_name text := btrim(p_name);
  v_sha256 text := encode(sha256(p_mobileconfig), 'hex');
  v_row public.profiles;
begin
  perform fleet.raise_problems('the profile', 'profile_invalid', array_agg(q))
  from fleet.profile_problems(v_name, p_mobileconfig, p_options) as q;

  select p.* into v_row
  from public.profiles as p
  where p.integration_id = v_integration.id and p.is_managed and lower(p.name) = lower(v_name)
  for update;
  if v_row.status in ('pending', 'uploaded')
    and (v_row.name, v_row.content_sha256, v_row.options) = (v_name, v_sha256, v_row.options || p_options)
  then
    return v_row;
  end if;

  insert into public.profiles as p (
    owner_id, integration_id, name, is_managed, status, content_sha256, options, created_by, created_at, updated_at
  )
  values (
    v_integration.owner_id, v_integration.id, v_name, true, 'pending', v_sha256, p_options, fleet.current_user_id(), p_now, p_now
  )
  on conflict (integration_id, lower(name)) where is_managed do update
    set name = excluded.name, status = 'pending', content_sha256 = excluded.content_sha256,
        options = p.options || excluded.options, error_message = null, updated_at = p_now
  returning * into v_row;
  perform fleet.ask_for_profile(v_row, 'upload', p_mobileconfig, p_now);
  return v_row;
end;
$$;

comment on function fleet.upload_profile(text, bytea, bigint, jsonb, timestamptz) is
  'See public.upload_profile. Definer: it checks the caller.';
revoke all on function fleet.upload_profile(text, bytea, bigint, jsonb, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.upload_profile(text, bytea, bigint, jsonb, timestamptz) to authenticated, service_role;

create or replace function public.upload_profile(
  p_name text,
  p_mobileconfig bytea,
  p_integration_id bigint default null,
  p_options jsonb default '{}'
)
returns public.profiles
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.upload_profile(p_name, p_mobileconfig, p_integration_id, coalesce(p_options, '{}'), clock_timestamp())
$$;

comment on function public.upload_profile(text, bytea, bigint, jsonb) is
  'Upload a .mobileconfig to an MDM, to the only one where none is named. The same name again replaces the file, also on the devices that '
  'have it; the same file again does nothing. Its status tells when the MDM has it. Options: user_scope, attribute_support, '
  'escape_attributes, reinstall_after_os_update, declarative. Raises profile_invalid, integration_missing, integration_ambiguous or '
  'integration_not_mdm (PT422), integration_not_found (PT404), permission_missing (PT403) or integration_disabled (PT409).';
revoke all on function public.upload_profile(text, bytea, bigint, jsonb) from public, anon, authenticated, service_role;
grant execute on function public.upload_profile(text, bytea, bigint, jsonb) to authenticated, service_role;

create or replace function fleet.ask_for_profile(p_profile public.profiles, p_action text, p_content bytea, p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A lease that runs goes on: two at once could make two of it. What is new waits for its end.
  insert into fleet.profile_uploads as u (profile_id, owner_id, integration_id, action, content, asked_at, next_at)
  values (p_profile.id, p_profile.owner_id, p_profile.integration_id, p_action, p_content, p_now, p_now)
  on conflict (profile_id) do update
    set action = excluded.action, content = excluded.content, asked_at = p_now, next_at = p_now, tries = 0, is_newer = true;
  perform fleet.poke('mdm-dispatch', jsonb_build_object('at', p_now), p_now);
end;
$$;

comment on function fleet.ask_for_profile(public.profiles, text, bytea, timestamptz) is
  'Let a profile be uploaded or deleted; what was asked for it before and not yet done is forgotten.';
revoke all on function fleet.ask_for_profile(public.profiles, text, bytea, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.delete_profile(p_profile_id bigint, p_now timestamptz)
returns public.profiles
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.profiles;
begin
  select p.* into v_row from public.profiles as p where p.id = p_profile_id and fleet.is_visible_owner(p.owner_id) for update;
  if not found then
    perform fleet.raise_not_found(format('profile %s', p_profile_id));
  end if;
  perform fleet.require_permission(v_row.owner_id, 'manage', format('profile %s', p_profile_id));
  if not v_row.is_managed then
    raise exception 'profile "%" was not uploaded from here', v_row.name
      using errcode = 'PT409', detail = 'profile_not_managed', hint = 'Delete it in the MDM itself; the next sync notices.';
  end if;

  update public.profiles as p
  set status = 'deleting', error_message = null, updated_at = p_now
  where p.id = p_profile_id
  returning * into v_row;
  if v_row.external_id is not null
    or exists (select 1 from fleet.profile_uploads as u where u.profile_id = p_profile_id and u.held_until > p_now)
  then
    perform fleet.ask_for_profile(v_row, 'delete', null, p_now);
  else
    -- The MDM was never told of it, as far as anybody knows.
    delete from public.profiles as p where p.id = p_profile_id;
  end if;
  return v_row;
end;
$$;

comment on function fleet.delete_profile(bigint, timestamptz) is 'See public.delete_profile. Definer: it checks the caller.';
revoke all on function fleet.delete_profile(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.delete_profile(bigint, timestamptz) to authenticated, service_role;

create or replace function public.delete_profile(p_profile_id bigint)
returns public.profiles
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.delete_profile(p_profile_id, clock_timestamp())
$$;

comment on function public.delete_profile(bigint) is
  'Delete a profile that was uploaded from here (profiles.id) in its MDM, and so from all devices that have it; its row goes when that is '
  'done. Raises profile_not_found (PT404), permission_missing (PT403) or profile_not_managed (PT409).';
revoke all on function public.delete_profile(bigint) from public, anon, authenticated, service_role;
grant execute on function public.delete_profile(bigint) to authenticated, service_role;

-- db/sources/60_mdm/68_upload_work.sql
-- Uploads as the function mdm-dispatch does them: claimed under a lease, finished, tried again by class of failure.

create or replace function fleet.is_upload_due(p_integration_id bigint, p_now timestamptz)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select 1
    from fleet.profile_uploads as u
    where u.integration_id = p_integration_id and u.next_at <= p_now and (u.held_until is null or u.held_until <= p_now)
  )
$$;

comment on function fleet.is_upload_due(bigint, timestamptz) is 'Whether a profile waits to be uploaded to an MDM, or deleted there, now.';
revoke all on function fleet.is_upload_due(bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_claim_profile_uploads(p_limit integer default 4, p_now timestamptz default clock_timestamp())
returns setof jsonb
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  with due as (
    select u.profile_id
    from fleet.profile_uploads as u
    join public.device_integrations as i on i.id = u.integration_id and i.status = 'active'
    where u.next_at <= p_now
      and (u.held_until is null or u.held_until <= p_now)
      and not exists (
        select 1 from fleet.rate_limits as r where r.integration_id = u.integration_id and r.blocked_until > p_now
      )
    order by u.next_at
    limit p_limit
    for update of u skip locked
  ),
  taken as (
    update fleet.profile_uploads as u
    -- Longer than other leases: the list of the MDM is read first, page by page.
    set held_until = p_now + interval '3 minutes', attempt = u.attempt + 1, is_newer = false
    from due
    where u.profile_id = due.profile_id
    returning u.*
  )
  select jsonb_build_object(
    'profile_id', t.profile_id, 'attempt', t.attempt, 'action', t.action, 'name', p.name, 'external_id', p.external_id,
    'options', p.options, 'content', encode(t.content, 'base64'), 'lease_seconds', extract(epoch from t.held_until - p_now),
    'integration_id', i.id, 'integration_type', i.integration_type, 'settings', i.settings, 'secret', s.secret,
    'taken', coalesce((
      select jsonb_agg(o.external_id)
      from public.profiles as o
      where o.integration_id = i.id and o.is_managed and o.id <> p.id and o.external_id is not null
    ), '[]')
  )
  from taken as t
  join public.profiles as p on p.id = t.profile_id
  join public.device_integrations as i on i.id = t.integration_id
  left join public.pg_cron_secrets as s on s.name = 'integration:' || i.id
$$;

comment on function fleet.worker_claim_profile_uploads(integer, timestamptz) is
  'Lease profiles that are to be uploaded or deleted: {profile_id, attempt, action, name, external_id (null for a new one), options, content '
  '(base64), taken (ids that are other profiles of ours), integration_id, integration_type, settings, secret, lease_seconds}. Definer: the '
  'worker reads no table.';
revoke all on function fleet.worker_claim_profile_uploads(integer, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.end_upload(p_upload fleet.profile_uploads, p_status text, p_error text, p_now timestamptz)
returns text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_upload.is_newer then
    -- What was asked for meanwhile is next, and its status stays.
    update fleet.profile_uploads as u
    set held_until = null
    where u.profile_id = p_upload.profile_id;
    return 'pending';
  end if;

  delete from fleet.profile_uploads as u where u.profile_id = p_upload.profile_id;
  if p_status = 'deleted' then
    delete from public.profiles as p where p.id = p_upload.profile_id;
  else
    update public.profiles as p
    set status = p_status, error_message = p_error, updated_at = p_now
    where p.id = p_upload.profile_id;
  end if;
  return p_status;
end;
$$;

comment on function fleet.end_upload(fleet.profile_uploads, text, text, timestamptz) is
  'Forget the file and note how it ended, unless something newer was asked for. Answers the status.';
revoke all on function fleet.end_upload(fleet.profile_uploads, text, text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.fail_upload(
  p_upload fleet.profile_uploads,
  p_error text,
  p_reason text,
  p_retry_after interval,
  p_now timestamptz
)
returns text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_waits boolean := p_reason = 'integration_paused'
    and exists (select 1 from public.device_integrations as i where i.id = p_upload.integration_id and i.status <> 'active');
  v_next_at timestamptz := case when v_waits then p_now else p_now + fleet.mdm_pause(p_upload.tries + 1, p_retry_after) end;
begin
  if p_upload.is_newer then
    return fleet.end_upload(p_upload, 'failed', p_error, p_now);
  elsif p_reason is distinct from 'integration_paused' and not fleet.is_passing_failure(p_reason, true) then
    return fleet.end_upload(p_upload, 'failed', p_error, p_now);
  elsif v_next_at > p_upload.asked_at + interval '1 day' and not v_waits then
    -- A file that may hold passwords does not wait for ever.
    return fleet.end_upload(p_upload, 'failed', format('it was given up after a day: %s', p_error), p_now);
  end if;

  update fleet.profile_uploads as u
  set held_until = null, next_at = v_next_at, tries = u.tries + case when v_waits then 0 else 1 end
  where u.profile_id = p_upload.profile_id;
  update public.profiles as p
  set error_message = p_error, updated_at = p_now
  where p.id = p_upload.profile_id;
  return 'pending';
end;
$$;

comment on function fleet.fail_upload(fleet.profile_uploads, text, text, interval, timestamptz) is
  'An attempt failed: try again after a growing pause, wait for the integration to go on, or end, by the class of the failure.';
revoke all on function fleet.fail_upload(fleet.profile_uploads, text, text, interval, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.worker_finish_profile_upload(
  p_profile_id bigint,
  p_attempt integer,
  p_outcome text,
  p_external_id text default null,
  p_error text default null,
  p_reason text default null,
  p_retry_after interval default null,
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_upload fleet.profile_uploads;
  v_error text;
begin
  -- In the order in which people and syncs lock: the integration, then the profile.
  perform 1
  from public.device_integrations as i
  where i.id = (select p.integration_id from public.profiles as p where p.id = p_profile_id)
  for update;
  perform 1 from public.profiles as p where p.id = p_profile_id for update;
  select u.* into v_upload
  from fleet.profile_uploads as u
  where u.profile_id = p_profile_id and u.attempt = p_attempt and u.held_until is not null
  for update;
  if not found then
    return jsonb_build_object('accepted', false, 'reason', 'stale_attempt');
  end if;

  if p_outcome = 'failed' then
    select left(fleet.without_secret(p_error, s.secret), 2000) into v_error
    from (values ('integration:' || v_upload.integration_id)) as n(name)
    left join public.pg_cron_secrets as s on s.name = n.name;
    return jsonb_build_object('accepted', true, 'status', fleet.fail_upload(v_upload, v_error, p_reason, p_retry_after, p_now));
  end if;

  if p_outcome = 'uploaded' then
    -- One that was there before, or that a sync has seen since, is this one.
    delete from public.profiles as p
    where p.integration_id = v_upload.integration_id and p.external_id = p_external_id and not p.is_managed;
  end if;
  update public.profiles as p
  set external_id = case p_outcome when 'uploaded' then p_external_id end,
      uploaded_at = case p_outcome when 'uploaded' then p_now else p.uploaded_at end,
      seen_at = case p_outcome when 'uploaded' then p_now else p.seen_at end
  where p.id = p_profile_id;
  return jsonb_build_object('accepted', true, 'status', fleet.end_upload(v_upload, p_outcome, null, p_now));
end;
$$;

comment on function fleet.worker_finish_profile_upload(bigint, integer, text, text, text, text, interval, timestamptz) is
  'How an attempt ended: uploaded (with the MDM''s id), deleted, or failed with a reason as of worker_finish_mdm. Answers {accepted, status}, '
  'or {accepted: false, reason: stale_attempt}. Definer: the worker writes no table.';
revoke all on function fleet.worker_finish_profile_upload(bigint, integer, text, text, text, text, interval, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/60_mdm/69_catalogue.sql
-- The catalogue: which profiles an MDM has, as its last sync told.

create or replace function fleet.worker_sync_profiles(
  p_integration_id bigint,
  p_profiles jsonb,
  p_began timestamptz,
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_integration public.device_integrations;
  v_seen integer;
  v_gone integer;
  v_lost integer;
begin
  -- Its lock makes two syncs of the same integration take turns.
  select i.* into v_integration from public.device_integrations as i where i.id = p_integration_id for update;
  if not found then
    return jsonb_build_object('accepted', false, 'reason', 'not_found');
  end if;

  insert into public.profiles as p (owner_id, integration_id, external_id, name, kind, seen_at)
  select distinct on (f.external_id)
    v_integration.owner_id, v_integration.id, f.external_id, coalesce(nullif(btrim(f.name), ''), f.external_id),
    coalesce(f.kind, 'unknown'), p_now
  from jsonb_to_recordset(p_profiles) as f (external_id text, name text, kind text)
  where btrim(f.external_id) <> ''
  order by f.external_id
  -- What was uploaded from here keeps the name that people know it by.
  on conflict (integration_id, external_id) do update
    set seen_at = p_now,
        name = case when p.is_managed then p.name else excluded.name end,
        kind = case when p.is_managed then p.kind else excluded.kind end,
        updated_at = case when p.is_managed or p.name = excluded.name then p.updated_at else p_now end;
  get diagnostics v_seen = row_count;

  delete from public.profiles as p
  where p.integration_id = p_integration_id and not p.is_managed and coalesce(p.seen_at < p_began, true);
  get diagnostics v_gone = row_count;

  -- Its file is not kept, so it cannot be uploaded again by itself. What waits for an upload or a deletion gets over it there.
  update public.profiles as p
  set status = 'failed', external_id = null, content_sha256 = null, updated_at = p_now,
      error_message = 'the MDM has it no more: upload it again'
  where p.integration_id = p_integration_id
    and p.is_managed
    and p.status in ('uploaded', 'failed')
    and p.external_id is not null
    -- What was uploaded while the list was read is not missed in it.
    and p.seen_at < p_began;
  get diagnostics v_lost = row_count;
  return jsonb_build_object('accepted', true, 'seen', v_seen, 'gone', v_gone, 'lost', v_lost);
end;
$$;

comment on function fleet.worker_sync_profiles(bigint, jsonb, timestamptz, timestamptz) is
  'Take over the whole list of the profiles of an MDM, as {external_id, name, kind}, and when it was begun to be read. Those that are gone '
  'are removed; one that was uploaded from here stays, as failed. {accepted, seen, gone, lost}. Definer: the worker writes no table.';
revoke all on function fleet.worker_sync_profiles(bigint, jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/60_mdm/70_poke.sql
-- Waking the function mdm-dispatch.

create or replace function fleet.has_mdm_work(p_now timestamptz)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- Awake before a schedule is due, the function carries it out at its very instant.
  select fleet.next_mdm_schedule_at(p_now + interval '2 seconds') is not null
  or exists (
    select 1
    from public.device_integrations as i
    where i.status = 'active'
      and i.integration_type = any (fleet.mdm_integration_types())
      and (
        fleet.is_sync_due(i, p_now)
        or fleet.has_due_mdm(i.id, 'send', p_now)
        or fleet.has_due_mdm(i.id, 'settle', p_now)
        or fleet.is_upload_due(i.id, p_now)
        or fleet.has_mdm_rereads(i.id, p_now)
      )
      and not exists (
        select 1 from fleet.rate_limits as r where r.integration_id = i.id and r.blocked_until > p_now
      )
  )
$$;

comment on function fleet.has_mdm_work(timestamptz) is
  'Whether mdm-dispatch would find something to do. What waits for an integration that is paused wakes nobody.';
revoke all on function fleet.has_mdm_work(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.tend_mdm(p_now timestamptz default now(), p_pause interval default interval '30 seconds')
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A migration holds this lock alone.
  if not pg_try_advisory_xact_lock_shared(hashtext('pgfleet.migrate'))
    or not fleet.pass_turnstile('reconcile-profiles', p_pause, p_now)
  then
    return false;
  end if;

  perform fleet.reconcile_all(p_now);
  return true;
end;
$$;

comment on function fleet.tend_mdm(timestamptz, interval) is
  'What need not be done every second: reconcile profiles. Answers whether it was its time, which it is when it '
  'was not done for p_pause. A job of its own, since it looks at every device.';
revoke all on function fleet.tend_mdm(timestamptz, interval) from public, anon, authenticated, service_role;

create or replace function fleet.poke_mdm(p_now timestamptz default now())
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.sweep_mdm(p_now);
  perform fleet.cancel_failed_removals();
  -- Where no job does it: plain Postgres without pg_cron.
  perform fleet.tend_mdm(p_now, interval '150 seconds');
  return fleet.has_mdm_work(p_now) and fleet.poke_once_a_second('mdm-dispatch', p_now);
end;
$$;

comment on function fleet.poke_mdm(timestamptz) is
  'Clear up behind functions that stopped, reconcile profiles, and poke mdm-dispatch where it has work, at most once a second. Answers whether it was poked; '
  'called by the tick.';
revoke all on function fleet.poke_mdm(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.tg_note_failed_runs()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.note_failed_pushes(f.ids)
  from (
    select array_agg(n.schedule_id) as ids
    from new_rows as n
    where n.status in ('skipped', 'failed', 'cancelled') and n.targeted = 0
  ) as f
  where f.ids is not null
    and exists (select 1 from public.profile_installs as p where p.install_schedule_id = any (f.ids));
  return null;
end;
$$;

comment on function fleet.tg_note_failed_runs() is
  'A push whose run reached no device has failed too. Definer: nobody else writes profile_installs.';
revoke all on function fleet.tg_note_failed_runs() from public, anon, authenticated, service_role;

create or replace function fleet.tg_note_cancelled_pushes()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.note_failed_pushes(array[new.id]);
  return null;
end;
$$;

comment on function fleet.tg_note_cancelled_pushes() is
  'A push that is cancelled takes its removal along. Definer: nobody else writes profile_installs.';
revoke all on function fleet.tg_note_cancelled_pushes() from public, anon, authenticated, service_role;

create or replace trigger schedule_runs_80_note_failed_insert
  after insert on public.schedule_runs
  referencing new table as new_rows
  for each statement execute function fleet.tg_note_failed_runs();

create or replace trigger schedule_runs_80_note_failed_update
  after update on public.schedule_runs
  referencing new table as new_rows
  for each statement execute function fleet.tg_note_failed_runs();

create or replace trigger schedules_80_note_cancelled
  after update of status on public.schedules
  for each row
  when (new.status = 'cancelled' and old.status <> 'cancelled' and new.action_type = 'push_profile')
  execute function fleet.tg_note_cancelled_pushes();

-- db/sources/60_mdm/75_assignments.sql
-- Desired state: which profile should be where, what is missing, and the pushes and removals that mend it.

create or replace function fleet.note_profile_state(
  p_device_id bigint,
  p_profile_id text,
  p_is_installed boolean,
  p_is_assigned boolean,
  p_now timestamptz
)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  insert into public.device_profiles as p (device_id, profile_id, owner_id, is_installed, is_assigned, changed_at)
  select d.id, p_profile_id, d.owner_id, p_is_installed, coalesce(p_is_assigned, false), p_now
  from public.devices as d
  where d.id = p_device_id and p_profile_id is not null
  on conflict (device_id, profile_id) do update
    set is_installed = excluded.is_installed, changed_at = excluded.changed_at,
        is_assigned = coalesce(p_is_assigned, p.is_assigned)
$$;

comment on function fleet.note_profile_state(bigint, text, boolean, boolean, timestamptz) is
  'Note whether a profile is on a device; p_is_assigned null leaves as it is who brought it.';
revoke all on function fleet.note_profile_state(bigint, text, boolean, boolean, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.wanted_profiles(p_owner_id uuid)
returns table (owner_id uuid, device_id bigint, hostname text, profile_id text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select distinct a.owner_id, t.device_id, t.hostname, a.profile_id
  from public.profile_assignments as a
  cross join lateral fleet.targets(a.owner_id, a.device_ids, a.group_ids, a.selector) as t
  where p_owner_id is null or a.owner_id = p_owner_id
$$;

comment on function fleet.wanted_profiles(uuid) is 'Every device and profile that belong together, of one owner or of all.';
revoke all on function fleet.wanted_profiles(uuid) from public, anon, authenticated, service_role;

create or replace function fleet.drift_of_profiles(p_owner_id uuid, p_now timestamptz)
returns table (owner_id uuid, device_id bigint, hostname text, profile_id text, action_type text, state text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with wanted as materialized (
    select w.* from fleet.wanted_profiles(p_owner_id) as w
  ),
  drift as (
    select w.owner_id, w.device_id, w.hostname, w.profile_id, 'push_profile' as action_type
    from wanted as w
    where not exists (
      select 1
      from public.device_profiles as p
      where p.device_id = w.device_id and p.profile_id = w.profile_id and p.is_installed
    )
    union all
    select p.owner_id, p.device_id, d.hostname, p.profile_id, 'remove_profile'
    from public.device_profiles as p
    join public.devices as d on d.id = p.device_id and d.status = 'active'
    where p.is_assigned
      and p.is_installed
      and (p_owner_id is null or p.owner_id = p_owner_id)
      and not exists (select 1 from wanted as w where w.device_id = p.device_id and w.profile_id = p.profile_id)
  )
  select d.owner_id, d.device_id, d.hostname, d.profile_id, d.action_type,
    case
      when m.device_id is null then 'in no MDM'
      when c.status in ('pending', 'running') then 'under way'
      -- What fails is tried again, but not for ever at the same pace.
      when c.status in ('failed', 'expired') and c.executed_at > p_now - interval '1 hour' then 'failed lately'
      else 'missing'
    end
  from drift as d
  left join fleet.mdms_of(array(select x.device_id from drift as x)) as m on m.device_id = d.device_id
  left join lateral (
    select x.status, x.executed_at
    from public.device_commands as x
    where x.device_id = d.device_id
      and x.channel = 'mdm'
      and x.command_type = d.action_type
      and x.payload ->> 'profile_id' = d.profile_id
    order by x.id desc
    limit 1
  ) as c on true
$$;

comment on function fleet.drift_of_profiles(uuid, timestamptz) is 'See public.profile_drift; of one owner, or of all.';
revoke all on function fleet.drift_of_profiles(uuid, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.profile_drift(p_owner_id uuid, p_now timestamptz)
returns table (owner_id uuid, device_id bigint, hostname text, profile_id text, action_type text, state text)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid := fleet.owner_or_own(p_owner_id);
begin
  perform fleet.require_permission(v_owner, 'view', format('owner %s', v_owner));
  return query
  select d.* from fleet.drift_of_profiles(v_owner, p_now) as d order by d.profile_id, d.hostname;
end;
$$;

comment on function fleet.profile_drift(uuid, timestamptz) is 'See public.profile_drift. Definer: it checks the caller.';
revoke all on function fleet.profile_drift(uuid, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.profile_drift(uuid, timestamptz) to authenticated, service_role;

create or replace function public.profile_drift(p_owner_id uuid default null)
returns table (owner_id uuid, device_id bigint, hostname text, profile_id text, action_type text, state text)
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select * from fleet.profile_drift(p_owner_id, clock_timestamp())
$$;

comment on function public.profile_drift(uuid) is
  'Where devices differ from the assignments: push_profile or remove_profile, and its state: missing (reconcile_profiles does it next), '
  'under way, failed lately (again after an hour) or in no MDM. Raises owner_not_found (PT404).';
revoke all on function public.profile_drift(uuid) from public, anon, authenticated, service_role;
grant execute on function public.profile_drift(uuid) to authenticated, service_role;

create or replace function fleet.reconcile_owner(p_owner_id uuid, p_now timestamptz)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_group record;
  v_pushes integer := 0;
  v_removals integer := 0;
begin
  -- Two who reconcile at once take turns, and the second finds the work of the first under way.
  perform pg_advisory_xact_lock(hashtextextended('pgfleet.reconcile:' || p_owner_id, 0));
  for v_group in
    select d.profile_id, d.action_type, array_agg(d.device_id order by d.device_id) as device_ids
    from fleet.drift_of_profiles(p_owner_id, p_now) as d
    where d.state = 'missing'
    group by d.profile_id, d.action_type
    order by d.profile_id, d.action_type
  loop
    insert into public.device_profiles as p (device_id, profile_id, owner_id, is_installed, is_assigned, changed_at)
    select u.id, v_group.profile_id, p_owner_id, false, true, p_now
    from unnest(v_group.device_ids) as u(id)
    where v_group.action_type = 'push_profile'
    on conflict (device_id, profile_id) do update set is_assigned = true;

    insert into public.schedules (
      owner_id, name, action_type, payload, recurrence_type, start_time, timezone, device_ids
    )
    values (
      p_owner_id,
      format('%s %s as assigned', case v_group.action_type when 'push_profile' then 'install' else 'remove' end, v_group.profile_id),
      v_group.action_type, jsonb_build_object('profile_id', v_group.profile_id), 'once', p_now, 'UTC', v_group.device_ids
    );
    if v_group.action_type = 'push_profile' then
      v_pushes := v_pushes + cardinality(v_group.device_ids);
    else
      v_removals := v_removals + cardinality(v_group.device_ids);
    end if;
  end loop;
  return jsonb_build_object('pushes', v_pushes, 'removals', v_removals);
end;
$$;

comment on function fleet.reconcile_owner(uuid, timestamptz) is
  'Make one schedule for each profile and action that is missing somewhere. {pushes, removals}.';
revoke all on function fleet.reconcile_owner(uuid, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.reconcile_profiles(p_owner_id uuid, p_now timestamptz)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid := fleet.owner_or_own(p_owner_id);
begin
  perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
  return fleet.reconcile_owner(v_owner, p_now);
end;
$$;

comment on function fleet.reconcile_profiles(uuid, timestamptz) is 'See public.reconcile_profiles. Definer: it checks the caller.';
revoke all on function fleet.reconcile_profiles(uuid, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.reconcile_profiles(uuid, timestamptz) to authenticated, service_role;

create or replace function public.reconcile_profiles(p_owner_id uuid default null)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.reconcile_profiles(p_owner_id, now())
$$;

comment on function public.reconcile_profiles(uuid) is
  'Push what is assigned and missing, remove what an assignment brought and is no longer assigned; the tick does the same every minute. '
  '{pushes, removals}. Raises owner_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.reconcile_profiles(uuid) from public, anon, authenticated, service_role;
grant execute on function public.reconcile_profiles(uuid) to authenticated, service_role;

create or replace function fleet.reconcile_all(p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid;
  v_count integer := 0;
begin
  for v_owner in
    select a.owner_id from public.profile_assignments as a
    union
    select p.owner_id from public.device_profiles as p where p.is_assigned and p.is_installed
  loop
    begin
      perform fleet.reconcile_owner(v_owner, p_now);
      v_count := v_count + 1;
    exception
      when query_canceled or admin_shutdown or deadlock_detected then
        raise;
      when others then
        raise warning 'the profiles of owner % are left as they are: %', v_owner, sqlerrm;
    end;
  end loop;
  return v_count;
end;
$$;

comment on function fleet.reconcile_all(timestamptz) is 'Reconcile every owner who has assignments. Answers how many.';
revoke all on function fleet.reconcile_all(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.assign_profile(p_profile_id text, p_targets jsonb, p_description text, p_owner_id uuid, p_now timestamptz)
returns public.profile_assignments
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid := fleet.owner_or_own(p_owner_id);
  v_row public.profile_assignments;
begin
  perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
  perform fleet.require_profile(p_profile_id);
  if jsonb_typeof(p_targets) is distinct from 'object'
    or exists (
      select 1
      from unnest('{device_ids,group_ids}'::text[]) as k(key)
      where p_targets ? k.key
        and coalesce(p_targets ->> k.key !~ '^\[([0-9]{1,18}(, [0-9]{1,18})*)?\]$', true)
    )
  then
    raise exception 'p_targets must be an object with device_ids, group_ids or selector'
      using errcode = 'PT422', detail = 'targets_invalid', hint = 'Example: {"group_ids": [3]}';
  end if;

  v_row.device_ids := array(select jsonb_array_elements_text(p_targets -> 'device_ids')::bigint);
  v_row.group_ids := array(select jsonb_array_elements_text(p_targets -> 'group_ids')::bigint);
  perform fleet.raise_problems('the assignment', 'assignment_invalid', array_agg(q))
  from fleet.target_problems(v_owner, v_row.device_ids, v_row.group_ids, p_targets -> 'selector') as q;
  insert into public.profile_assignments (owner_id, profile_id, description, device_ids, group_ids, selector, created_by)
  values (
    v_owner, btrim(p_profile_id), coalesce(p_description, ''), v_row.device_ids, v_row.group_ids, p_targets -> 'selector',
    fleet.current_user_id()
  )
  returning * into v_row;
  perform fleet.reconcile_owner(v_owner, p_now);
  return v_row;
end;
$$;

comment on function fleet.assign_profile(text, jsonb, text, uuid, timestamptz) is
  'See public.assign_profile. Definer: it checks the caller.';
revoke all on function fleet.assign_profile(text, jsonb, text, uuid, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.assign_profile(text, jsonb, text, uuid, timestamptz) to authenticated, service_role;

create or replace function public.assign_profile(
  p_profile_id text,
  p_targets jsonb,
  p_description text default '',
  p_owner_id uuid default null
)
returns public.profile_assignments
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.assign_profile(p_profile_id, p_targets, p_description, p_owner_id, now())
$$;

comment on function public.assign_profile(text, jsonb, text, uuid) is
  'Say that a profile belongs on devices: {"device_ids": […], "group_ids": […], "selector": {…}}. What is missing is pushed at once, also '
  'to devices that join later. Raises profile_missing, targets_invalid or assignment_invalid (PT422; PT404 for what was not found), or '
  'permission_missing (PT403).';
revoke all on function public.assign_profile(text, jsonb, text, uuid) from public, anon, authenticated, service_role;
grant execute on function public.assign_profile(text, jsonb, text, uuid) to authenticated, service_role;

create or replace function fleet.unassign_profile(p_assignment_id bigint, p_now timestamptz)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.profile_assignments;
begin
  select a.* into v_row
  from public.profile_assignments as a
  where a.id = p_assignment_id and fleet.is_visible_owner(a.owner_id)
  for update;
  if not found then
    perform fleet.raise_not_found(format('profile assignment %s', p_assignment_id));
  end if;
  perform fleet.require_permission(v_row.owner_id, 'manage', format('profile assignment %s', p_assignment_id));
  delete from public.profile_assignments as a where a.id = p_assignment_id;
  return fleet.reconcile_owner(v_row.owner_id, p_now);
end;
$$;

comment on function fleet.unassign_profile(bigint, timestamptz) is 'See public.unassign_profile. Definer: it checks the caller.';
revoke all on function fleet.unassign_profile(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.unassign_profile(bigint, timestamptz) to authenticated, service_role;

create or replace function public.unassign_profile(p_assignment_id bigint)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.unassign_profile(p_assignment_id, now())
$$;

comment on function public.unassign_profile(bigint) is
  'Take an assignment back: the profile is removed where it brought it and no other assignment wants it. {pushes, removals}. Raises '
  'profile_assignment_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.unassign_profile(bigint) from public, anon, authenticated, service_role;
grant execute on function public.unassign_profile(bigint) to authenticated, service_role;

-- db/sources/60_mdm/80_integrations.sql
-- Integrations: making them, giving them their secret, letting them rest.

create or replace function fleet.integration_problems(p_integration public.device_integrations)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select 'name', 'must not be blank', 'Give the integration a name.'
  where btrim(coalesce(p_integration.name, '')) = ''
  union all
  select 'name', format('"%s" is taken', p_integration.name), 'Choose another name.'
  where exists (
    select 1
    from public.device_integrations as i
    where i.owner_id = p_integration.owner_id
      and lower(i.name) = lower(p_integration.name)
      and i.id is distinct from p_integration.id
  )
  union all
  select 'integration_type', coalesce(format('"%s" is no name of a system', nullif(p_integration.integration_type, '')), 'is missing'),
    'Example: simplemdm'
  where coalesce(p_integration.integration_type, '') !~ '^[a-z][a-z0-9_]*$'
  union all
  select 'settings', 'must be an object', 'Example: {"rate_per_second": 5}'
  where jsonb_typeof(coalesce(p_integration.settings, 'null')) <> 'object'
  union all
  select 'settings.' || n.name, 'must be a number greater than zero', format('Example: {"%s": 5}', n.name)
  from unnest('{rate_per_second,burst,syncIntervalSeconds}'::text[]) as n(name)
  where p_integration.settings ? n.name
    and case jsonb_typeof(p_integration.settings -> n.name)
      when 'number' then (p_integration.settings ->> n.name)::numeric <= 0
      else true
    end
  union all
  select 'settings.' || k.key, 'looks like a secret', 'Set it with: pgfleet integration set-secret, or set_integration_secret()'
  from jsonb_object_keys(
    case jsonb_typeof(p_integration.settings) when 'object' then p_integration.settings else '{}' end
  ) as k(key)
  where k.key ~* '(secret|password|api_?key|token)$'
$$;

comment on function fleet.integration_problems(public.device_integrations) is
  'Everything that is wrong with an integration; no row where nothing is.';
revoke all on function fleet.integration_problems(public.device_integrations) from public, anon, authenticated, service_role;

create or replace function fleet.tg_check_integration()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.raise_problems('the integration', 'integration_invalid', array_agg(q))
  from fleet.integration_problems(new) as q;
  new.updated_at := now();
  if new.status = 'active' then
    new.status_reason := null;
    new.needs_secret := false;
  end if;
  return new;
end;
$$;

comment on function fleet.tg_check_integration() is
  'Refuse integrations that are not valid, and secrets among their settings. Definer: whoever may write the table may not call what it '
  'checks with.';
revoke all on function fleet.tg_check_integration() from public, anon, authenticated, service_role;

create or replace function fleet.tg_forget_integration()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from public.pg_cron_secrets as s where s.name = 'integration:' || old.id;
  return null;
end;
$$;

comment on function fleet.tg_forget_integration() is
  'The secret goes with its integration. Definer: whoever may delete the one may not read the other.';
revoke all on function fleet.tg_forget_integration() from public, anon, authenticated, service_role;

create or replace function fleet.tg_resume_integration()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  update public.device_integrations as i
  set status = 'active'
  where 'integration:' || i.id = new.name and i.status = 'paused' and i.needs_secret;
  -- Outside of the turnstile, as for new commands.
  perform fleet.poke('mdm-dispatch', jsonb_build_object('at', clock_timestamp()), clock_timestamp());
  return null;
end;
$$;

comment on function fleet.tg_resume_integration() is
  'An integration whose secret was refused goes on when it gets another. Definer: whoever writes secrets may not write integrations.';
revoke all on function fleet.tg_resume_integration() from public, anon, authenticated, service_role;

create or replace trigger device_integrations_01_fill_owner
  before insert on public.device_integrations
  for each row execute function fleet.tg_owner_from_caller();

create or replace trigger device_integrations_02_check
  before insert or update of name, integration_type, settings, status on public.device_integrations
  for each row execute function fleet.tg_check_integration();

create or replace trigger device_integrations_03_forget
  after delete on public.device_integrations
  for each row execute function fleet.tg_forget_integration();

create or replace trigger pg_cron_secrets_01_resume_insert
  after insert on public.pg_cron_secrets
  for each row when (new.name like 'integration:%') execute function fleet.tg_resume_integration();

create or replace trigger pg_cron_secrets_01_resume_update
  after update of secret on public.pg_cron_secrets
  for each row
  when (new.name like 'integration:%' and new.secret is distinct from old.secret)
  execute function fleet.tg_resume_integration();

create or replace function fleet.integration_of_caller(p_integration_id bigint)
returns public.device_integrations
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_integrations;
begin
  select i.* into v_row
  from public.device_integrations as i
  where i.id = p_integration_id and fleet.is_visible_owner(i.owner_id)
  for update;
  if not found then
    perform fleet.raise_not_found(format('integration %s', p_integration_id));
  end if;
  perform fleet.require_permission(v_row.owner_id, 'manage', format('integration %s', p_integration_id));
  return v_row;
end;
$$;

comment on function fleet.integration_of_caller(bigint) is
  'The integration, locked, if the caller manages it. Raises integration_not_found (PT404) or permission_missing (PT403).';
revoke all on function fleet.integration_of_caller(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.create_integration(p_spec jsonb, p_secret text)
returns public.device_integrations
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid;
  v_row public.device_integrations;
  v_strange text;
begin
  if jsonb_typeof(p_spec) is distinct from 'object' then
    raise exception 'an integration must be a JSON object'
      using errcode = 'PT422',
            detail = 'integration_invalid',
            hint = 'Example: {"name": "office", "integration_type": "simplemdm"}';
  end if;
  select min(k) into v_strange
  from jsonb_object_keys(p_spec) as k
  where k <> all ('{name,integration_type,settings,owner_id}'::text[]);
  if v_strange is not null then
    raise exception 'the integration is not valid: %: is not known', v_strange
      using errcode = 'PT422',
            detail = 'integration_invalid',
            hint = 'Known are name, integration_type, settings and owner_id; the secret is an argument of its own.';
  end if;

  v_owner := fleet.owner_or_own(fleet.try_uuid(p_spec ->> 'owner_id'));
  perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
  insert into public.device_integrations as i (owner_id, name, integration_type, settings, created_by)
  values (
    v_owner, coalesce(p_spec ->> 'name', p_spec ->> 'integration_type', ''), coalesce(p_spec ->> 'integration_type', ''),
    coalesce(p_spec -> 'settings', '{}'), fleet.current_user_id()
  )
  returning * into v_row;
  if p_secret is not null then
    v_row := fleet.set_integration_secret(v_row.id, p_secret);
  end if;
  return v_row;
end;
$$;

comment on function fleet.create_integration(jsonb, text) is 'See public.create_integration. Definer: it checks the caller.';
revoke all on function fleet.create_integration(jsonb, text) from public, anon, authenticated, service_role;
grant execute on function fleet.create_integration(jsonb, text) to authenticated, service_role;

create or replace function public.create_integration(p_spec jsonb, p_secret text default null)
returns public.device_integrations
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.create_integration(p_spec, p_secret)
$$;

comment on function public.create_integration(jsonb, text) is
  'Connect another system: {"name", "integration_type": "simplemdm", "settings": {"base_url", "rate_per_second", "burst", "syncEnabled", '
  '"syncIntervalSeconds"}, "owner_id"}, and its secret, which nobody can read back. Raises integration_invalid (PT422) or '
  'permission_missing (PT403).';
revoke all on function public.create_integration(jsonb, text) from public, anon, authenticated, service_role;
grant execute on function public.create_integration(jsonb, text) to authenticated, service_role;

create or replace function fleet.set_integration_secret(p_integration_id bigint, p_secret text)
returns public.device_integrations
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_integrations := fleet.integration_of_caller(p_integration_id);
begin
  if btrim(coalesce(p_secret, '')) = '' then
    raise exception 'the secret is blank'
      using errcode = 'PT422', detail = 'secret_missing', hint = 'Copy the API key from the settings of the other system.';
  end if;

  insert into public.pg_cron_secrets as s (name, secret)
  values ('integration:' || v_row.id, btrim(p_secret))
  on conflict (name) do update set secret = excluded.secret, updated_at = now();
  select i.* into v_row from public.device_integrations as i where i.id = p_integration_id;
  return v_row;
end;
$$;

comment on function fleet.set_integration_secret(bigint, text) is 'See public.set_integration_secret. Definer: it checks the caller.';
revoke all on function fleet.set_integration_secret(bigint, text) from public, anon, authenticated, service_role;
grant execute on function fleet.set_integration_secret(bigint, text) to authenticated, service_role;

create or replace function public.set_integration_secret(p_integration_id bigint, p_secret text)
returns public.device_integrations
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.set_integration_secret(p_integration_id, p_secret)
$$;

comment on function public.set_integration_secret(bigint, text) is
  'Set or replace the secret of an integration. One that was paused because its secret was refused goes on. Raises integration_not_found '
  '(PT404), permission_missing (PT403) or secret_missing (PT422).';
revoke all on function public.set_integration_secret(bigint, text) from public, anon, authenticated, service_role;
grant execute on function public.set_integration_secret(bigint, text) to authenticated, service_role;

create or replace function fleet.set_integration_status(p_integration_id bigint, p_status text, p_reason text)
returns public.device_integrations
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_integrations := fleet.integration_of_caller(p_integration_id);
begin
  update public.device_integrations as i
  set status = p_status, status_reason = p_reason, needs_secret = false
  where i.id = v_row.id
  returning * into v_row;
  return v_row;
end;
$$;

comment on function fleet.set_integration_status(bigint, text, text) is
  'See public.pause_integration and public.resume_integration. Definer: it checks the caller.';
revoke all on function fleet.set_integration_status(bigint, text, text) from public, anon, authenticated, service_role;
grant execute on function fleet.set_integration_status(bigint, text, text) to authenticated, service_role;

create or replace function public.pause_integration(p_integration_id bigint, p_reason text default null)
returns public.device_integrations
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.set_integration_status(p_integration_id, 'paused', coalesce(p_reason, 'it was paused by hand'))
$$;

comment on function public.pause_integration(bigint, text) is
  'Call the other system no more until it is resumed; commands wait. Raises integration_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.pause_integration(bigint, text) from public, anon, authenticated, service_role;
grant execute on function public.pause_integration(bigint, text) to authenticated, service_role;

create or replace function public.resume_integration(p_integration_id bigint)
returns public.device_integrations
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.set_integration_status(p_integration_id, 'active', null)
$$;

comment on function public.resume_integration(bigint) is
  'Go on with what waits. Raises integration_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.resume_integration(bigint) from public, anon, authenticated, service_role;
grant execute on function public.resume_integration(bigint) to authenticated, service_role;

create or replace function fleet.sync_integration(p_integration_id bigint, p_now timestamptz)
returns public.device_integrations
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_integrations := fleet.integration_of_caller(p_integration_id);
begin
  if v_row.status <> 'active' then
    raise exception 'integration % is %', p_integration_id, v_row.status
      using errcode = 'PT409',
            detail = 'integration_' || v_row.status,
            hint = format('Resume it: select resume_integration(%s)', p_integration_id);
  end if;
  update public.device_integrations as i
  set sync_requested_at = p_now
  where i.id = v_row.id
  returning * into v_row;
  perform fleet.poke('mdm-dispatch', jsonb_build_object('at', p_now), p_now);
  return v_row;
end;
$$;

comment on function fleet.sync_integration(bigint, timestamptz) is 'See public.sync_integration. Definer: it checks the caller.';
revoke all on function fleet.sync_integration(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.sync_integration(bigint, timestamptz) to authenticated, service_role;

create or replace function public.sync_integration(p_integration_id bigint)
returns public.device_integrations
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.sync_integration(p_integration_id, clock_timestamp())
$$;

comment on function public.sync_integration(bigint) is
  'Read the devices of the other system now; last_sync_at tells when it is done. Raises integration_not_found (PT404), permission_missing '
  '(PT403), integration_paused or integration_disabled (PT409).';
revoke all on function public.sync_integration(bigint) from public, anon, authenticated, service_role;
grant execute on function public.sync_integration(bigint) to authenticated, service_role;

create or replace function fleet.delete_integration(p_integration_id bigint)
returns bigint
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_integrations := fleet.integration_of_caller(p_integration_id);
begin
  delete from public.device_integrations as i where i.id = v_row.id;
  return v_row.id;
end;
$$;

comment on function fleet.delete_integration(bigint) is 'See public.delete_integration. Definer: it checks the caller.';
revoke all on function fleet.delete_integration(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.delete_integration(bigint) to authenticated, service_role;

create or replace function public.delete_integration(p_integration_id bigint)
returns bigint
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.delete_integration(p_integration_id)
$$;

comment on function public.delete_integration(bigint) is
  'Remove an integration with its secret and its links; the devices and the log of calls stay. Raises integration_not_found (PT404) or '
  'permission_missing (PT403).';
revoke all on function public.delete_integration(bigint) from public, anon, authenticated, service_role;
grant execute on function public.delete_integration(bigint) to authenticated, service_role;

-- db/sources/60_mdm/85_views.sql
-- What is installed where and for how long, as people ask for it.

create or replace view public.profile_schedules with (security_invoker = true) as
select
  s.id,
  s.owner_id,
  s.profile_id,
  s.device_id,
  d.hostname,
  s.action_type,
  s.start_time,
  s.created_at,
  s.last_executed_at,
  s.ui_initiated,
  case
    when s.status = 'cancelled' and s.last_executed_at is null then 'Cancelled'
    when c.status in ('failed', 'expired', 'cancelled') and s.next_run_at is null then 'Failed'
    when s.last_executed_at is not null then 'Executed'
    when s.start_time > now() then 'Pending'
    else 'Due for execution'
  end as state,
  coalesce(c.error_message, s.status_reason) as reason,
  c.id as command_id,
  c.status as command_status,
  p.id as install_id,
  (
    select k.name
    from public.device_links as l
    join public.device_integrations as n on n.id = l.integration_id and n.status <> 'disabled'
    join public.profiles as k on k.integration_id = l.integration_id and k.external_id = s.profile_id
    where l.device_id = s.device_id and l.left_at is null
    order by (n.status = 'active') desc, n.id
    limit 1
  ) as profile_name
from public.schedules as s
left join public.devices as d on d.id = s.device_id
left join public.profile_installs as p on s.id in (p.install_schedule_id, p.remove_schedule_id)
left join lateral (
  select x.id, x.status, x.error_message
  from public.device_commands as x
  where x.schedule_id = s.id and x.device_id = s.device_id
  order by x.id desc
  limit 1
) as c on true
where s.action_type in ('push_profile', 'remove_profile');

comment on view public.profile_schedules is 'Every schedule that installs or removes a profile, and what became of it.';
comment on column public.profile_schedules.profile_id is 'The MDM''s id of the profile.';
comment on column public.profile_schedules.hostname is 'The device, where there is exactly one.';
comment on column public.profile_schedules.action_type is 'push_profile or remove_profile.';
comment on column public.profile_schedules.last_executed_at is 'When the MDM last took it.';
comment on column public.profile_schedules.ui_initiated is 'Whether a person made it by hand.';
comment on column public.profile_schedules.state is
  'Pending (its time is to come), Due for execution, Executed (the MDM took it), Failed or Cancelled.';
comment on column public.profile_schedules.reason is 'Why it failed or was cancelled.';
comment on column public.profile_schedules.command_status is 'Status of the latest command; completed where the device showed the effect.';
comment on column public.profile_schedules.install_id is 'The install of install_profile that it belongs to.';
comment on column public.profile_schedules.profile_name is 'What the MDM of the device calls the profile; null where that is not known.';

create or replace view public.temporary_profiles with (security_invoker = true) as
select
  p.id as install_id,
  p.install_schedule_id,
  p.remove_schedule_id,
  p.owner_id,
  p.profile_id,
  p.device_id,
  d.hostname,
  i.start_time as install_time,
  p.installed_at,
  r.start_time as scheduled_removal_time,
  p.removed_at,
  p.duration,
  extract(epoch from p.duration) / 60 as duration_minutes,
  case
    when p.removed_at is not null then 'removed'
    when p.failure is not null then 'never installed'
    when r.id is null then 'removal deleted'
    when r.status = 'cancelled' then 'removal cancelled'
    when p.installed_at is null then 'waiting'
    when r.next_run_at is not null then 'installed'
    when exists (
      select 1 from public.device_commands as c where c.schedule_id = r.id and c.status in ('pending', 'running')
    ) then 'removing'
    else 'removal failed'
  end as state,
  coalesce(p.failure, r.status_reason) as reason,
  p.created_at,
  (
    select k.name
    from public.device_links as l
    join public.device_integrations as n on n.id = l.integration_id and n.status <> 'disabled'
    join public.profiles as k on k.integration_id = l.integration_id and k.external_id = p.profile_id
    where l.device_id = p.device_id and l.left_at is null
    order by (n.status = 'active') desc, n.id
    limit 1
  ) as profile_name
from public.profile_installs as p
join public.schedules as i on i.id = p.install_schedule_id
join public.devices as d on d.id = p.device_id
left join public.schedules as r on r.id = p.remove_schedule_id
where p.duration is not null;

comment on view public.temporary_profiles is 'Every profile that was installed for a time, with both of its schedules.';
comment on column public.temporary_profiles.install_id is 'What extend_profile and end_profile take.';
comment on column public.temporary_profiles.install_schedule_id is 'The push_profile schedule.';
comment on column public.temporary_profiles.remove_schedule_id is 'The remove_profile schedule.';
comment on column public.temporary_profiles.profile_id is 'The MDM''s id of the profile.';
comment on column public.temporary_profiles.hostname is 'The device.';
comment on column public.temporary_profiles.install_time is 'When the push was due.';
comment on column public.temporary_profiles.installed_at is 'When the MDM took the push.';
comment on column public.temporary_profiles.scheduled_removal_time is 'When the removal is, or was, due.';
comment on column public.temporary_profiles.removed_at is 'When the MDM took the removal.';
comment on column public.temporary_profiles.duration is 'How long the profile is to stay.';
comment on column public.temporary_profiles.duration_minutes is 'The same in minutes.';
comment on column public.temporary_profiles.state is
  'waiting, installed, removing, removed, never installed, removal cancelled, removal failed or removal deleted.';
comment on column public.temporary_profiles.reason is 'Why it was never installed, or is not removed.';
comment on column public.temporary_profiles.profile_name is 'What the MDM of the device calls the profile; null where that is not known.';

-- db/sources/60_mdm/90_policies.sql
-- Who sees integrations, links, calls and installs: the owner's people. They change them through functions. Devices see none.

revoke all on table public.device_integrations, public.device_links, public.mdm_api_logs, public.profile_installs,
  public.profile_schedules, public.temporary_profiles, fleet.mdm_work, fleet.rate_limits
  from public, anon, authenticated, service_role;
revoke all on sequence public.device_integrations_id_seq, public.mdm_api_logs_id_seq, public.profile_installs_id_seq
  from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.device_integrations, public.device_links, public.mdm_api_logs,
  public.profile_installs
  to service_role;
grant usage, select on sequence public.device_integrations_id_seq, public.mdm_api_logs_id_seq, public.profile_installs_id_seq
  to service_role;
grant select on table public.profile_schedules, public.temporary_profiles to authenticated, service_role;

drop policy if exists device_integrations_all_service_role on public.device_integrations;
create policy device_integrations_all_service_role on public.device_integrations
  for all to service_role using (true) with check (true);
drop policy if exists device_links_all_service_role on public.device_links;
create policy device_links_all_service_role on public.device_links
  for all to service_role using (true) with check (true);
drop policy if exists mdm_api_logs_all_service_role on public.mdm_api_logs;
create policy mdm_api_logs_all_service_role on public.mdm_api_logs
  for all to service_role using (true) with check (true);
drop policy if exists profile_installs_all_service_role on public.profile_installs;
create policy profile_installs_all_service_role on public.profile_installs
  for all to service_role using (true) with check (true);

grant select on table public.device_integrations, public.device_links, public.mdm_api_logs, public.profile_installs
  to authenticated;
drop policy if exists device_integrations_select_member on public.device_integrations;
create policy device_integrations_select_member on public.device_integrations
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists device_links_select_member on public.device_links;
create policy device_links_select_member on public.device_links
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
-- What an MDM answers may hold passcodes and the like.
drop policy if exists mdm_api_logs_select_manager on public.mdm_api_logs;
create policy mdm_api_logs_select_manager on public.mdm_api_logs
  for select to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists profile_installs_select_member on public.profile_installs;
create policy profile_installs_select_member on public.profile_installs
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

revoke all on table public.profile_assignments, public.device_profiles from public, anon, authenticated, service_role;
revoke all on sequence public.profile_assignments_id_seq from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.profile_assignments, public.device_profiles to service_role;
grant usage, select on sequence public.profile_assignments_id_seq to service_role;
grant select on table public.profile_assignments, public.device_profiles to authenticated;

drop policy if exists profile_assignments_all_service_role on public.profile_assignments;
create policy profile_assignments_all_service_role on public.profile_assignments
  for all to service_role using (true) with check (true);
drop policy if exists device_profiles_all_service_role on public.device_profiles;
create policy device_profiles_all_service_role on public.device_profiles
  for all to service_role using (true) with check (true);
drop policy if exists profile_assignments_select_member on public.profile_assignments;
create policy profile_assignments_select_member on public.profile_assignments
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists device_profiles_select_member on public.device_profiles;
create policy device_profiles_select_member on public.device_profiles
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

revoke all on table public.integration_activity_log, public.integration_webhooks, fleet.mdm_rereads
  from public, anon, authenticated, service_role;
revoke all on sequence public.integration_activity_log_id_seq, public.integration_webhooks_id_seq
  from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.integration_activity_log, public.integration_webhooks to service_role;
grant usage, select on sequence public.integration_activity_log_id_seq, public.integration_webhooks_id_seq to service_role;

drop policy if exists integration_activity_log_all_service_role on public.integration_activity_log;
create policy integration_activity_log_all_service_role on public.integration_activity_log
  for all to service_role using (true) with check (true);
drop policy if exists integration_webhooks_all_service_role on public.integration_webhooks;
create policy integration_webhooks_all_service_role on public.integration_webhooks
  for all to service_role using (true) with check (true);

grant select on table public.integration_activity_log to authenticated;
drop policy if exists integration_activity_log_select_member on public.integration_activity_log;
create policy integration_activity_log_select_member on public.integration_activity_log
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
-- Everything but the hash of the secret.
grant select (id, owner_id, integration_id, last_used_at, revoked_at, created_by, created_at)
  on table public.integration_webhooks to authenticated;
drop policy if exists integration_webhooks_select_member on public.integration_webhooks;
create policy integration_webhooks_select_member on public.integration_webhooks
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

-- db/sources/60_mdm/91_policies_profiles.sql
-- Who sees the profiles of an MDM: the owner's people. They change them through functions; the files are nobody's to read.

revoke all on table public.profiles, fleet.profile_uploads from public, anon, authenticated, service_role;
revoke all on sequence public.profiles_id_seq from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.profiles to service_role;
grant usage, select on sequence public.profiles_id_seq to service_role;
grant select on table public.profiles to authenticated;

drop policy if exists profiles_all_service_role on public.profiles;
create policy profiles_all_service_role on public.profiles
  for all to service_role using (true) with check (true);
drop policy if exists profiles_select_member on public.profiles;
create policy profiles_select_member on public.profiles
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

set check_function_bodies = on;
reset search_path;
