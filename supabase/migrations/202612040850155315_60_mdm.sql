-- Generated from db/sources/60_mdm by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/60_mdm/10_rate.sql
-- How fast each provider may be called: one token bucket in the database, shared by every function process.

create or replace function fleet.rate_ceiling(p_settings jsonb)
returns numeric
language sql
immutable
parallel safe
return coalesce(
  case
    when jsonb_typeof(p_settings -> 'rate_per_second') = 'number'
      -- Also of what was written before there was a limit.
      then least((p_settings ->> 'rate_per_second')::numeric, fleet.limit_value('rate_per_second'))
  end,
  1
);

comment on function fleet.rate_ceiling(jsonb) is 'Calls a second that the settings of an integration allow; 1 where they say nothing.';
revoke all on function fleet.rate_ceiling(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.rate_burst(p_settings jsonb)
returns numeric
language sql
immutable
parallel safe
return coalesce(
  case
    when jsonb_typeof(p_settings -> 'burst') = 'number'
      then least((p_settings ->> 'burst')::numeric, fleet.limit_value('burst'))
  end,
  -- A quarter of a second's worth more than the rate over ten seconds is within what providers notice.
  greatest(5, fleet.rate_ceiling(p_settings) / 4)
);

comment on function fleet.rate_burst(jsonb) is 'How many calls may come at once after a pause.';
revoke all on function fleet.rate_burst(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.carefully_raised_rate(p_bucket fleet.rate_limits, p_ceiling numeric, p_seconds numeric)
returns numeric
language sql
immutable
parallel safe
return case
  when p_bucket.refused_rate is null then p_bucket.rate + p_ceiling * 0.05 * p_seconds
  -- Soon back near the rate that was refused, then carefully over it; what is well beyond it says that it holds no more.
  when p_bucket.rate < p_bucket.refused_rate * 0.85
    then least(p_bucket.refused_rate * 0.85, p_bucket.rate + p_bucket.refused_rate * 0.1 * p_seconds)
  when p_bucket.rate < p_bucket.refused_rate * 1.1 then p_bucket.rate + p_bucket.refused_rate * 0.0008 * p_seconds
  else p_bucket.rate + p_ceiling * 0.0005 * p_seconds
end;

comment on function fleet.carefully_raised_rate(fleet.rate_limits, numeric, numeric) is
  'The rate of a bucket so many seconds after it was last looked at: it grows by equal steps, and slowly where the last refusal was.';
revoke all on function fleet.carefully_raised_rate(fleet.rate_limits, numeric, numeric) from public, anon, authenticated, service_role;

create or replace function fleet.raised_rate(p_bucket fleet.rate_limits, p_ceiling numeric, p_seconds numeric)
returns numeric
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rate numeric := fleet.carefully_raised_rate(p_bucket, p_ceiling, p_seconds);
  v_calm numeric := p_seconds + greatest(extract(epoch from p_bucket.filled_at - p_bucket.blocked_until), 0) - 240;
begin
  -- Where nothing was refused for four minutes, whatever it was is over: it doubles every 20 seconds, up to half of what is allowed.
  if v_calm > 0 and v_rate < p_ceiling / 2 then
    v_rate := least(p_ceiling / 2, v_rate * power(2::numeric, least(v_calm, p_seconds, 600) / 20));
  end if;
  return least(p_ceiling, v_rate);
end;
$$;

comment on function fleet.raised_rate(fleet.rate_limits, numeric, numeric) is
  'fleet.carefully_raised_rate, at most the ceiling, and faster and faster where the last refusal is more than four minutes ago.';
revoke all on function fleet.raised_rate(fleet.rate_limits, numeric, numeric) from public, anon, authenticated, service_role;

create or replace function fleet.filled_rate(p_integration_id bigint, p_now timestamptz, p_endpoint text default '')
returns fleet.rate_limits
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_settings jsonb;
  v_ceiling numeric;
  v_row fleet.rate_limits;
  v_elapsed numeric;
begin
  select i.settings into v_settings from public.device_integrations as i where i.id = p_integration_id;
  v_ceiling := fleet.rate_ceiling(v_settings);
  insert into fleet.rate_limits (integration_id, owner_id, endpoint, rate, tokens, filled_at)
  select i.id, i.owner_id, p_endpoint, v_ceiling, fleet.rate_burst(v_settings), p_now
  from public.device_integrations as i
  where i.id = p_integration_id
  on conflict (integration_id, endpoint) do nothing;
  select r.* into v_row from fleet.rate_limits as r where r.integration_id = p_integration_id and r.endpoint = p_endpoint for update;

  -- The clocks of several callers differ a little: time never goes back here, and none passes while all calls wait.
  v_elapsed := greatest(extract(epoch from p_now - greatest(v_row.filled_at, v_row.blocked_until)), 0);
  v_row.rate := fleet.raised_rate(v_row, v_ceiling, v_elapsed);
  if v_row.rate >= v_ceiling then
    v_row.refused_rate := null;
  end if;
  -- A rate that was lowered by half has half the burst too.
  v_row.tokens := least(
    greatest(1, fleet.rate_burst(v_settings) * v_row.rate / v_ceiling), v_row.tokens + v_row.rate * v_elapsed
  );
  v_row.filled_at := greatest(v_row.filled_at, p_now);
  return v_row;
end;
$$;

comment on function fleet.filled_rate(bigint, timestamptz, text) is
  'The bucket of an integration, or of one of its endpoints, as of this instant, locked; the caller writes it back.';
revoke all on function fleet.filled_rate(bigint, timestamptz, text) from public, anon, authenticated, service_role;

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

create or replace function fleet.take_call(p_bucket fleet.rate_limits, p_is_granted boolean, p_is_look boolean)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  update fleet.rate_limits as r
  set rate = p_bucket.rate, refused_rate = p_bucket.refused_rate, filled_at = p_bucket.filled_at,
      tokens = p_bucket.tokens - p_is_granted::integer,
      looked_at = case when p_is_granted and p_is_look then r.looked_at + fleet.look_gap(p_bucket.rate) else r.looked_at end
  where r.integration_id = p_bucket.integration_id and r.endpoint = p_bucket.endpoint
$$;

comment on function fleet.take_call(fleet.rate_limits, boolean, boolean) is 'Write a bucket back, with one call less where it was granted.';
revoke all on function fleet.take_call(fleet.rate_limits, boolean, boolean) from public, anon, authenticated, service_role;

create or replace function fleet.worker_reserve_call(
  p_integration_id bigint,
  p_within interval default interval '0',
  p_is_look boolean default false,
  p_now timestamptz default clock_timestamp(),
  p_endpoint text default '',
  p_is_prepaid boolean default false
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_bucket fleet.rate_limits;
  v_own fleet.rate_limits;
  v_at timestamptz;
  v_is_granted boolean;
begin
  if not exists (select 1 from public.device_integrations as i where i.id = p_integration_id and i.status = 'active') then
    return jsonb_build_object('granted', false, 'reason', 'integration_not_active');
  end if;

  v_at := p_now;
  if not p_is_prepaid then
    v_bucket := fleet.filled_rate(p_integration_id, p_now);
    v_at := fleet.next_call_at(v_bucket, p_now);
  end if;
  -- An endpoint has a bucket of its own from the first time on that it was too much.
  if p_endpoint <> ''
    and exists (select 1 from fleet.rate_limits as r where r.integration_id = p_integration_id and r.endpoint = p_endpoint)
  then
    v_own := fleet.filled_rate(p_integration_id, p_now, p_endpoint);
    v_at := greatest(v_at, fleet.next_call_at(v_own, p_now));
  end if;
  v_is_granted := v_at <= p_now + p_within;
  perform fleet.take_call(v_bucket, v_is_granted, p_is_look) where v_bucket.integration_id is not null;
  perform fleet.take_call(v_own, v_is_granted, false) where v_own.integration_id is not null;
  return jsonb_build_object('granted', v_is_granted, 'wait', extract(epoch from v_at - p_now));
end;
$$;

comment on function fleet.worker_reserve_call(bigint, interval, boolean, timestamptz, text, boolean) is
  'Take leave for one call that may begin within p_within: {granted, wait}; the call is made after so many seconds. Where nothing is '
  'granted, wait says when it would be worth asking again; p_is_look says that it looks at a device, which has its share; p_endpoint names '
  'one that has a limit of its own, and p_is_prepaid says that only that is to be asked. An integration that is not active grants nothing '
  '(reason integration_not_active). Definer: the worker writes no table.';
revoke all on function fleet.worker_reserve_call(bigint, interval, boolean, timestamptz, text, boolean)
  from public, anon, authenticated, service_role;

create or replace function fleet.worker_learn_rate(
  p_integration_id bigint,
  p_limit numeric default null,
  p_reset_at timestamptz default null,
  p_now timestamptz default clock_timestamp(),
  p_endpoint text default ''
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

  v_row := fleet.filled_rate(p_integration_id, p_now, p_endpoint);
  -- What was under way together is refused together: that is one refusal, not many.
  if p_limit is not null or coalesce(v_row.blocked_until <= p_now, true) then
    v_row.refused_rate := least(v_ceiling, coalesce(p_limit, v_row.rate / case
      -- The first time, and where it is too much again at once, nobody knows how far too much it is.
      when v_row.refused_rate is null or v_row.blocked_until > p_now - interval '10 seconds' then 2
      else 1
    end));
    v_row.rate := least(v_ceiling, greatest(coalesce(p_limit * 0.9, v_row.refused_rate * 0.6), v_ceiling / 100, 0.01));
  end if;
  update fleet.rate_limits as r
  set rate = v_row.rate, refused_rate = v_row.refused_rate, tokens = least(v_row.tokens, 0), filled_at = v_row.filled_at,
      -- Nobody is kept waiting for ever by a header that is wrong.
      blocked_until = greatest(
        r.blocked_until, p_now + interval '1 second', least(coalesce(p_reset_at, p_now + interval '2 seconds'), p_now + interval '1 hour')
      )
  where r.integration_id = p_integration_id and r.endpoint = p_endpoint
  returning r.* into v_row;
  return jsonb_build_object('accepted', true, 'rate', round(v_row.rate, 3), 'blocked_until', v_row.blocked_until);
end;
$$;

comment on function fleet.worker_learn_rate(bigint, numeric, timestamptz, timestamptz, text) is
  'A provider said that it was too much: the bucket is empty, no call before p_reset_at (two seconds), then a fraction of the rate, which '
  'grows by equal steps; p_limit is the calls a second that it names, p_endpoint the endpoint that has a limit of its own. {accepted, rate, '
  'blocked_until}. Definer: the worker writes no table.';
revoke all on function fleet.worker_learn_rate(bigint, numeric, timestamptz, timestamptz, text)
  from public, anon, authenticated, service_role;

-- db/sources/60_mdm/20_queue.sql
-- The queue of each MDM: the commands that are to be sent, and the accepted ones whose devices are to be looked at.

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
      -- The lease of the function is in mdm_work; this one is the MDM's as a whole, and outlives every look.
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
      and w.phase = 'look'
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
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select min(s.next_run_at)
    from public.schedules as s
    where s.status = 'active'
      and s.next_run_at <= p_before
      and s.action_type in (select t.name from public.command_types as t where t.channel = 'mdm')
  );
end;
$$;

comment on function fleet.next_mdm_schedule_at(timestamptz) is
  'When the next schedule is due that an MDM carries out; null where none is until then.';
revoke all on function fleet.next_mdm_schedule_at(timestamptz) from public, anon, authenticated, service_role;

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

create or replace function fleet.follow_mdm_commands(p_waiting bigint[], p_ended bigint[])
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- Planned for each list of ids otherwise, which takes as long as all that is done for one.
set plan_cache_mode = force_generic_plan
as $$
declare
  v_unseen bigint[];
  v_schedules bigint[];
begin
  if p_waiting is not null then
    update fleet.mdm_work as w
    set phase = 'send', due_at = c.not_before, held_until = null, accepted_at = null, give_up_at = null
    from public.device_commands as c
    where c.id = any (p_waiting) and w.command_id = c.id;
  end if;
  if p_ended is null then
    return;
  end if;

  v_unseen := array(
    select c.id
    from public.device_commands as c
    where c.id = any (p_ended) and c.status <> 'completed' and c.command_type in ('push_profile', 'remove_profile')
  );
  if v_unseen <> '{}' then
    -- Taken, but never seen to be done: the device is as it was before, as far as anybody knows.
    update public.device_profiles as p
    set is_installed = c.command_type = 'remove_profile', changed_at = clock_timestamp()
    from public.device_commands as c
    join fleet.mdm_work as w on w.command_id = c.id and w.accepted_at is not null
    where c.id = any (v_unseen)
      and p.device_id = c.device_id
      and p.profile_id = c.payload ->> 'profile_id';
    select array_agg(c.schedule_id) into v_schedules
    from public.device_commands as c
    where c.id = any (v_unseen) and c.command_type = 'push_profile' and c.schedule_id is not null;
  end if;
  delete from fleet.mdm_work as w where w.command_id = any (p_ended);
  if v_schedules is not null then
    perform fleet.mark_failed_pushes(v_schedules);
  end if;
end;
$$;

comment on function fleet.follow_mdm_commands(bigint[], bigint[]) is
  'Keep the queue true to commands that change: those of p_waiting wait to be sent, until their time; forget those of p_ended, which are '
  'final, and mark the pushes that failed.';
revoke all on function fleet.follow_mdm_commands(bigint[], bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.queue_mdm_commands(p_command_ids bigint[], p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- Planned for each list of ids otherwise.
set plan_cache_mode = force_generic_plan
as $$
declare
  v_is_due boolean;
begin
  with made as (
    insert into fleet.mdm_work (command_id, owner_id, device_id, integration_id, priority, due_at)
    select c.id, c.owner_id, c.device_id, m.integration_id, c.priority, c.not_before
    from public.device_commands as c
    left join fleet.mdms_of(
      array(select x.device_id from public.device_commands as x where x.id = any (p_command_ids))
    ) as m on m.device_id = c.device_id
    where c.id = any (p_command_ids)
    returning due_at
  )
  select bool_or(w.due_at <= p_now) into v_is_due from made as w;

  if v_is_due and fleet.is_ticking() then
    perform fleet.poke_once_a_second('mdm-dispatch', p_now);
  elsif v_is_due then
    -- Without the turnstile: its row would be held until a person ends the transaction, and the ticks would wait for it.
    perform fleet.poke('mdm-dispatch', jsonb_build_object('at', p_now), p_now);
  end if;
end;
$$;

comment on function fleet.queue_mdm_commands(bigint[], timestamptz) is
  'Put new commands on the queue of the MDM that their device is in; what is due now does not wait for the tick.';
revoke all on function fleet.queue_mdm_commands(bigint[], timestamptz) from public, anon, authenticated, service_role;

-- db/sources/60_mdm/30_claim.sql
-- Commands of channel mdm, claimed by the function mdm-dispatch: sent, then watched until their effect shows.

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
  perform 1 from fleet.rate_limits as r where r.integration_id = p_integration_id and r.endpoint = '' for update skip locked;
  if not found and exists (select 1 from fleet.rate_limits as r where r.integration_id = p_integration_id and r.endpoint = '') then
    -- Another function is at it: waiting for its lock could end in a circle.
    next_at := p_now + interval '50 milliseconds';
    return next;
    return;
  end if;

  v_bucket := fleet.filled_rate(p_integration_id, p_now);
  next_at := fleet.next_call_at(v_bucket, p_now);
  if next_at > p_now then
    if not (fleet.has_due_mdm(p_integration_id, 'send', p_now) or fleet.has_due_mdm(p_integration_id, 'look', p_now)) then
      next_at := null;
    end if;
    return next;
    return;
  end if;

  -- However much is to be sent, what was sent is looked at as well, many devices by one call.
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
  set rate = v_bucket.rate, refused_rate = v_bucket.refused_rate, tokens = v_bucket.tokens, filled_at = v_bucket.filled_at,
      looked_at = case when looks <> '{}' then p_now else r.looked_at end
  where r.integration_id = p_integration_id and r.endpoint = '';
  next_at := least(
    -- At a pace at which each claim brings some leave.
    case
      when cardinality(sends) = v_room then greatest(fleet.next_call_at(v_bucket, p_now), p_now + interval '100 milliseconds')
    end,
    case when looks = '{}' and fleet.has_due_mdm(p_integration_id, 'look', p_now) then v_look_at end
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
    'command_id', c.id, 'attempt', c.attempt, 'command_type', c.command_type, 'payload', fleet.unsealed(c.owner_id, c.payload), 'device_id', c.device_id,
    'hostname', c.device_hostname, 'integration_id', w.integration_id, 'external_id', l.external_id, 'attributes', l.attributes,
    'lease_expires_at', w.held_until, 'accepted_at', w.accepted_at, 'unanswered_at', w.unanswered_at, 'result', c.result,
    'run_id', c.run_id, 'trace_id', fleet.trace_of(c.trace_id, c.owner_id, c.run_id, c.id)
  ) order by c.priority desc, c.id), '[]')
  from public.device_commands as c
  join fleet.mdm_work as w on w.command_id = c.id
  -- By now it may have left: then the provider says so.
  join public.device_links as l on l.device_id = c.device_id and l.integration_id = w.integration_id
  where c.id = any (p_command_ids)
$$;

comment on function fleet.mdm_jobs(bigint[]) is 'What a function has to know about the commands that it has leased.';
revoke all on function fleet.mdm_jobs(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.mdms_in_turn(p_shares jsonb, p_now timestamptz)
returns table (integration_id bigint, owner_id uuid)
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select t.id, t.owner_id
  from (
    select i.id, i.owner_id, row_number() over (partition by i.owner_id order by random()) as turn
    from public.device_integrations as i
    where i.status = 'active'
      and i.integration_type = any (fleet.mdm_integration_types())
      and fleet.share_of(p_shares, 'owner', i.owner_id::text) > 0
      and fleet.share_of(p_shares, 'way', i.id::text) > 0
      and (fleet.has_due_mdm(i.id, 'send', p_now) or fleet.has_due_mdm(i.id, 'look', p_now))
  ) as t
  -- Owners in turn, and nobody is always last.
  order by t.turn, random()
$$;

comment on function fleet.mdms_in_turn(jsonb, timestamptz) is
  'The MDMs that have work by now and that have a share left, in the order in which they get it: each owner''s first before anybody''s second.';
revoke all on function fleet.mdms_in_turn(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_claim_mdm(p_shares jsonb default '{}', p_now timestamptz default clock_timestamp())
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_next record;
  v_left integer := fleet.share_in_all(p_shares);
  v_rooms jsonb := '{}';
  v_room integer;
  v_taken integer;
  v_claim record;
  v_sends bigint[] := '{}';
  v_looks bigint[] := '{}';
  v_next_at timestamptz;
begin
  perform fleet.sweep_mdm(p_now);
  perform fleet.run_due_mdm(p_now);
  for v_next in
    select m.integration_id, m.owner_id from fleet.mdms_in_turn(p_shares, p_now) as m
  loop
    exit when v_left <= 0;
    v_room := coalesce(
      (v_rooms ->> v_next.owner_id::text)::integer, fleet.share_of(p_shares, 'owner', v_next.owner_id::text)
    );
    continue when v_room <= 0;
    select k.* into v_claim
    from fleet.claim_of_mdm(
      v_next.integration_id, least(v_left, v_room, fleet.share_of(p_shares, 'way', v_next.integration_id::text)), p_now
    ) as k;
    v_sends := v_sends || v_claim.sends;
    v_looks := v_looks || v_claim.looks;
    v_next_at := least(v_next_at, v_claim.next_at);
    v_taken := cardinality(v_claim.sends) + (v_claim.looks <> '{}')::integer;
    v_left := v_left - v_taken;
    v_rooms := v_rooms || jsonb_build_object(v_next.owner_id, v_room - v_taken);
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
        'owner_id', i.owner_id, 'integration_type', i.integration_type, 'settings', i.settings, 'secret', s.secret
      )), '{}')
      from public.device_integrations as i
      left join lateral (select fleet.stored_secret('integration:' || i.id) as secret) as s on true
      where i.id in (select w.integration_id from fleet.mdm_work as w where w.command_id = any (v_sends || v_looks))
    )
  );
end;
$$;

comment on function fleet.worker_claim_mdm(jsonb, timestamptz) is
  'Lease commands for MDMs, as many as their rates let through now: owners in turn, as many of each owner and for each integration as '
  'p_shares allows, {all, owner, way, owners, ways}. {sends, looks, wait, integrations}. sends are to be handed over; looks were accepted, '
  'and their devices are to be looked at, those of one integration together. Each is {command_id, attempt, command_type, payload, device_id, '
  'hostname, integration_id, external_id, attributes, lease_expires_at, accepted_at, unanswered_at, result}. wait says after how many seconds '
  'more could be claimed, and is null where nothing else waits. integrations: id to {owner_id, integration_type, settings, secret}. Definer: '
  'the worker reads no table.';
revoke all on function fleet.worker_claim_mdm(jsonb, timestamptz) from public, anon, authenticated, service_role;

-- db/sources/60_mdm/40_finish.sql
-- How an attempt at an MDM ended: accepted, seen to be done, or failed and tried again by class of failure.

create or replace function fleet.record_mdm_accepted(p_command public.device_commands, p_now timestamptz)
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
  perform fleet.record_profile_accepted(p_command.schedule_id, p_now);
  if p_command.command_type in ('push_profile', 'remove_profile') then
    perform fleet.store_profile_state(
      p_command.device_id, p_command.payload ->> 'profile_id', p_command.command_type = 'push_profile', null, p_now
    );
  end if;
end;
$$;

comment on function fleet.record_mdm_accepted(public.device_commands, timestamptz) is
  'A provider took a command: that is when its schedule was executed.';
revoke all on function fleet.record_mdm_accepted(public.device_commands, timestamptz)
  from public, anon, authenticated, service_role;

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

create or replace function fleet.takes_command_ids(p_integration_id bigint)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select 1 from public.device_integrations as i where i.id = p_integration_id and i.integration_type = 'nanomdm'
  )
$$;

comment on function fleet.takes_command_ids(bigint) is
  'Whether an MDM knows a command by our id, and so takes none twice: then any may be sent again after an answer that got lost.';
revoke all on function fleet.takes_command_ids(bigint) from public, anon, authenticated, service_role;

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
  v_rerun_safe boolean := fleet.takes_command_ids(p_work.integration_id)
    or exists (select 1 from public.command_types as t where t.name = p_command.command_type and t.owner_id is null and t.rerun_safe);
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

  v_row := fleet.end_attempt(
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
  set phase = 'look', held_until = null, accepted_at = coalesce(w.accepted_at, p_now),
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
  v_secret := fleet.stored_secret('integration:' || v_work.integration_id);
  v_result := fleet.without_secret(p_result::text, v_secret)::jsonb;
  v_error := fleet.without_secret(p_error, v_secret);
  if p_outcome <> 'failed' and (v_work.command_id is not null and v_work.accepted_at is null or v_command.status = 'cancelled') then
    -- Even if it was cancelled meanwhile: the provider has it.
    perform fleet.record_mdm_accepted(v_command, p_now);
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

comment on column public.schedules.last_executed_at is
  'When its latest run was started; where an MDM carries it out, when the provider last accepted.';

-- db/sources/60_mdm/50_looks.sql
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
  join fleet.mdm_work as w on w.command_id = c.id and w.phase = 'look'
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
  v_secret := fleet.stored_secret('integration:' || p_integration_id);
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

-- db/sources/60_mdm/60_sweep.sql
-- Clearing up behind functions that stopped in the middle, and ending what has no future.

create or replace function fleet.sweep_mdm(p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return fleet.sweep_held_sends(p_now) + fleet.sweep_held_looks(p_now) + fleet.give_up_mdm(p_now) + fleet.fail_unlinked_mdm(p_now);
end;
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
  set status = case when k.may_repeat then 'pending' else 'failed' end,
      reason = case when k.may_repeat then 'lease_expired' else 'interrupted' end,
      error_message = case
        when not k.may_repeat then 'the function stopped in the middle; the provider may have taken it'
      end,
      lease_expires_at = null
  from (
    select x.id, coalesce(t.rerun_safe, false) or fleet.takes_command_ids(w.integration_id) as may_repeat
    from public.device_commands as x
    join fleet.mdm_work as w on w.command_id = x.id
    left join public.command_types as t on t.name = x.command_type and t.owner_id is null
    where x.id = any (v_ids)
  ) as k
  where k.id = c.id;
  return cardinality(v_ids);
end;
$$;

comment on function fleet.sweep_held_sends(timestamptz, integer) is
  'A function that was killed while it sent: what may be repeated is offered again, the rest ends as interrupted. Answers how many.';
revoke all on function fleet.sweep_held_sends(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.sweep_held_looks(p_now timestamptz, p_limit integer default 1000)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_offered integer;
begin
  with lapsed as (
    select w.command_id
    from fleet.mdm_work as w
    where w.phase = 'look' and w.held_until <= p_now
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
  select count(*)::integer into v_offered from offered;
  return v_offered;
end;
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
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return fleet.end_mdm(
    array(
      select w.command_id
      from fleet.mdm_work as w
      where w.phase = 'look' and w.give_up_at <= p_now
      order by w.give_up_at
      limit p_limit
      for update skip locked
    ),
    'running', 'unknown', 'the provider took it, and nothing has shown since whether it was done', p_now
  );
end;
$$;

comment on function fleet.give_up_mdm(timestamptz, integer) is 'End what was accepted and never seen to happen. Answers how many.';
revoke all on function fleet.give_up_mdm(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.fail_unlinked_mdm(p_now timestamptz, p_limit integer default 1000)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return fleet.end_mdm(
    array(
      select w.command_id
      from fleet.mdm_work as w
      where w.integration_id is null and w.due_at <= p_now
      order by w.due_at
      limit p_limit
      for update skip locked
    ),
    'pending', 'no_mdm_link', 'the device is in no MDM: make an integration and sync its devices', p_now
  );
end;
$$;

comment on function fleet.fail_unlinked_mdm(timestamptz, integer) is 'End what is due for devices in no MDM. Answers how many.';
revoke all on function fleet.fail_unlinked_mdm(timestamptz, integer) from public, anon, authenticated, service_role;

-- db/sources/60_mdm/70_rereads.sql
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
  v_is_new := fleet.log_activity(p_integration, jsonb_build_object(
    'activity_type', 'webhook_received', 'status', v_status, 'origin_key', v_hint.origin_key, 'detail', v_hint.detail
  ), p_now) is not null;

  if v_is_new and v_hint.is_meant then
    if v_hint.external_id is null then
      update public.device_integrations as i set sync_requested_at = p_now where i.id = p_integration.id;
    else
      perform fleet.request_reread(p_integration.id, v_hint.external_id, p_now);
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

insert into fleet.webhook_handlers as h (integration_type, function) values ('simplemdm', 'fleet.take_simplemdm_hint')
on conflict (integration_type) do update set function = excluded.function where h.function <> excluded.function;

create or replace function fleet.request_reread(p_integration_id bigint, p_external_id text, p_now timestamptz)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  insert into fleet.mdm_rereads as r (integration_id, owner_id, external_id, asked_at, look_at)
  select i.id, i.owner_id, p_external_id, p_now,
    -- One look serves all that comes within a few seconds.
    greatest(p_now, (
      select greatest(l.seen_at, l.left_at) + interval '5 seconds'
      from public.device_links as l
      where l.integration_id = p_integration_id and l.external_id = p_external_id
    ))
  from public.device_integrations as i
  where i.id = p_integration_id
  on conflict (integration_id, external_id) do update
    set asked_at = excluded.asked_at
$$;

comment on function fleet.request_reread(bigint, text, timestamptz) is 'Have a device looked at again; once, however often it is asked for.';
revoke all on function fleet.request_reread(bigint, text, timestamptz) from public, anon, authenticated, service_role;

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

create or replace function fleet.worker_claim_mdm_rereads(p_shares jsonb default '{}', p_now timestamptz default clock_timestamp())
returns setof jsonb
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  with due as materialized (
    select i.owner_id, k.integration_id, k.external_id, k.look_at
    from public.device_integrations as i
    cross join lateral (
      select r.integration_id, r.external_id, r.look_at
      from fleet.mdm_rereads as r
      where r.integration_id = i.id and r.look_at <= p_now and coalesce(r.held_until <= p_now, true)
      order by r.look_at
      limit greatest(
        0,
        least(
          fleet.share_of(p_shares, 'way', i.id::text), fleet.share_of(p_shares, 'owner', i.owner_id::text), fleet.share_in_all(p_shares)
        )
      )
      for update skip locked
    ) as k
    where i.status = 'active' and fleet.share_of(p_shares, 'owner', i.owner_id::text) > 0
  ),
  chosen as (
    select t.integration_id, t.external_id
    from (
      select d.*, row_number() over (partition by d.owner_id order by d.look_at) as turn
      from due as d
    ) as t
    where t.turn <= fleet.share_of(p_shares, 'owner', t.owner_id::text)
    -- Owners in turn, and nobody is always last.
    order by t.turn, random()
    limit fleet.share_in_all(p_shares)
  ),
  taken as (
    update fleet.mdm_rereads as r
    set held_until = p_now + interval '1 minute', tries = r.tries + 1
    from chosen as c
    where r.integration_id = c.integration_id and r.external_id = c.external_id
    returning r.*
  )
  select jsonb_build_object(
    'integration_id', i.id, 'owner_id', i.owner_id, 'integration_type', i.integration_type, 'settings', i.settings,
    'secret', s.secret, 'external_id', t.external_id, 'asked_at', t.asked_at, 'tries', t.tries
  )
  from taken as t
  join public.device_integrations as i on i.id = t.integration_id
  left join lateral (select fleet.stored_secret('integration:' || i.id) as secret) as s on true
$$;

comment on function fleet.worker_claim_mdm_rereads(jsonb, timestamptz) is
  'Lease devices that are to be looked at again, for a minute: {integration_id, owner_id, integration_type, settings, secret, external_id, '
  'asked_at, tries}; owners in turn, as many of each owner and integration as p_shares allows. worker_finish_mdm_reread ends the lease. '
  'Definer: the worker reads no table.';
revoke all on function fleet.worker_claim_mdm_rereads(jsonb, timestamptz) from public, anon, authenticated, service_role;

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

-- db/sources/60_mdm/80_nanomdm.sql
-- What NanoMDM tells on its secret address: the only way in which it says what became of a command.

create or replace function fleet.mdm_command_uuid(p_command_id bigint)
returns uuid
language sql
immutable
parallel safe
return md5('pgfleet:command:' || p_command_id::text)::uuid;

comment on function fleet.mdm_command_uuid(bigint) is
  'The id under which a command is on the queue of an MDM that takes ids; all attempts share it.';
revoke all on function fleet.mdm_command_uuid(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.plist_error(p_plist text)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  -- The last of a chain is the cause; those before it say what came of it.
  select nullif(left(concat_ws(' ', fleet.plain_xml_text(coalesce(k.english, k.localized)), k.code), 500), '')
  from (
    select substring(e.error from '<key>\s*USEnglishDescription\s*</key>\s*<string>([^<]*)</string>') as english,
      substring(e.error from '<key>\s*LocalizedDescription\s*</key>\s*<string>([^<]*)</string>') as localized,
      '(' || nullif(concat_ws(
        ' ',
        fleet.plain_xml_text(substring(e.error from '<key>\s*ErrorDomain\s*</key>\s*<string>([^<]*)</string>')),
        substring(e.error from '<key>\s*ErrorCode\s*</key>\s*<integer>\s*(-?\d{1,19})\s*</integer>')
      ), '') || ')' as code
    from regexp_split_to_table(p_plist, '</dict>') with ordinality as e(error, nr)
    where e.error ~ '<key>\s*(USEnglishDescription|LocalizedDescription|ErrorCode)\s*</key>'
    order by e.nr desc
    limit 1
  ) as k
$$;

comment on function fleet.plist_error(text) is
  'Why a device refused a command, out of its answer, a property list: the last cause, with its domain and code; null where it says none.';
revoke all on function fleet.plist_error(text) from public, anon, authenticated, service_role;

create or replace function fleet.nanomdm_report(p_body jsonb)
returns table (external_ids text[], command_uuid uuid, status text, error text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select array[lower(e.event ->> 'enrollment_id'), lower(e.event ->> 'udid'), lower(split_part(e.event ->> 'enrollment_id', ':', 1))],
    fleet.try_uuid(e.event ->> 'command_uuid'), e.event ->> 'status',
    concat_ws(': ', 'the device answered ' || (e.event ->> 'status'), (
      select fleet.plist_error(fleet.text_of_bytes(decode(e.event ->> 'raw_payload', 'base64')))
      where e.event ->> 'raw_payload' ~ '^[A-Za-z0-9+/]+={0,2}$' and length(e.event ->> 'raw_payload') % 4 = 0
    ))
  from (select fleet.object_or_empty(p_body -> 'acknowledge_event') as event) as e
  where p_body ->> 'topic' = 'mdm.Connect'
$$;

comment on function fleet.nanomdm_report(jsonb) is
  'A device''s answer to a command, out of a webhook of NanoMDM, with the ids that it may have; no row for webhooks of another kind.';
revoke all on function fleet.nanomdm_report(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.take_nanomdm_checkin(p_integration public.device_integrations, p_body jsonb, p_now timestamptz)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_event jsonb := fleet.object_or_empty(p_body -> 'checkin_event');
  v_topic text := p_body ->> 'topic';
  v_id text := coalesce(v_event ->> 'enrollment_id', v_event ->> 'udid');
begin
  -- The channel of a user comes and goes with the user; the device stays.
  if lower(v_event ->> 'enrollment_id') <> lower(v_event ->> 'udid') then
    return jsonb_build_object('status', 'ignored', 'is_new', false);
  end if;

  update public.device_links as l
  set left_at = case v_topic when 'mdm.CheckOut' then p_now end, updated_at = p_now
  where l.integration_id = p_integration.id
    and lower(l.external_id) = lower(v_id)
    and (l.left_at is null) = (v_topic = 'mdm.CheckOut');
  if not found then
    return jsonb_build_object('status', 'ignored', 'is_new', false);
  end if;
  perform fleet.log_activity(p_integration, jsonb_build_object(
    'activity_type', 'webhook_received', 'status', 'completed',
    'detail', jsonb_build_object('event', v_topic, 'external_id', left(v_id, 255))
  ), p_now);
  return jsonb_build_object('status', 'completed', 'is_new', true);
end;
$$;

comment on function fleet.take_nanomdm_checkin(public.device_integrations, jsonb, timestamptz) is
  'A device has left NanoMDM by checking out, or is back by enrolling again. {status, is_new}.';
revoke all on function fleet.take_nanomdm_checkin(public.device_integrations, jsonb, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.ended_before(p_integration_id bigint, p_external_ids text[], p_command_uuid uuid)
returns bigint
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select c.id
  from public.device_links as l
  join public.device_commands as c on c.device_id = l.device_id
  where l.integration_id = p_integration_id
    and lower(l.external_id) = any (p_external_ids)
    and c.channel = 'mdm'
    and c.status in ('failed', 'expired', 'cancelled')
    and fleet.mdm_command_uuid(c.id) = p_command_uuid
$$;

comment on function fleet.ended_before(bigint, text[], uuid) is
  'The command that was given up before its device answered; null where there is none.';
revoke all on function fleet.ended_before(bigint, text[], uuid) from public, anon, authenticated, service_role;

create or replace function fleet.take_nanomdm_answer(p_integration public.device_integrations, p_body jsonb, p_now timestamptz)
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
  select r.*,
    case
      when r.status = 'Acknowledged' then 'completed'
      when r.status in ('Error', 'CommandFormatError') then 'failed'
    end as outcome
  into v_report
  from fleet.nanomdm_report(p_body) as r;
  -- By the id of the command, whatever enrolment answers for the device: a user's channel, another spelling. The answer may be here
  -- before the function has written down that it was taken, or after the function has written down that nobody answered.
  select c.id, c.attempt, c.status into v_command
  from fleet.mdm_work as w
  join public.device_commands as c on c.id = w.command_id and c.status in ('pending', 'running') and c.attempt > 0
  join public.device_links as l on l.device_id = w.device_id and l.integration_id = p_integration.id
  where fleet.mdm_command_uuid(w.command_id) = v_report.command_uuid and v_report.outcome is not null;
  if v_command.id is null and v_report.outcome = 'completed' then
    -- What is final stays final; that it was done after all is told.
    v_command.id := fleet.ended_before(p_integration.id, v_report.external_ids, v_report.command_uuid);
    v_outcome := 'late';
  else
    v_outcome := v_report.outcome;
  end if;
  if v_command.id is null then
    -- Devices come by all the time; what is not the end of a command of ours is not worth a row.
    return jsonb_build_object('status', 'ignored', 'is_new', false);
  end if;

  perform fleet.log_activity(p_integration, jsonb_build_object(
    'activity_type', 'webhook_received', 'status', 'completed',
    'detail', jsonb_build_object('command_id', v_command.id, 'status', v_report.status)
      || case v_outcome when 'late' then '{"is_late": true}'::jsonb else '{}' end
  ), p_now);
  if v_outcome = 'failed' and v_command.status = 'pending' then
    perform fleet.end_mdm(array[v_command.id], 'pending', 'refused', v_report.error, p_now);
  elsif v_outcome <> 'late' then
    perform fleet.worker_finish_mdm(
      v_command.id, v_command.attempt, v_outcome,
      p_result => jsonb_build_object('state', case v_outcome when 'completed' then 'acknowledged' else 'failed' end),
      p_error => case v_outcome when 'failed' then v_report.error end,
      p_reason => case v_outcome when 'failed' then 'refused' end,
      p_now => p_now
    );
  end if;
  return jsonb_build_object('status', 'completed', 'is_new', true);
end;
$$;

comment on function fleet.take_nanomdm_answer(public.device_integrations, jsonb, timestamptz) is
  'End a command by what its device answered NanoMDM. "Not now" and "idle" end nothing: the device comes again. {status, is_new}.';
revoke all on function fleet.take_nanomdm_answer(public.device_integrations, jsonb, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.take_nanomdm_report(p_integration public.device_integrations, p_body jsonb, p_now timestamptz)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_body ->> 'topic' in ('mdm.CheckOut', 'mdm.Authenticate', 'mdm.TokenUpdate')
      then fleet.take_nanomdm_checkin(p_integration, p_body, p_now)
    else fleet.take_nanomdm_answer(p_integration, p_body, p_now)
  end
$$;

comment on function fleet.take_nanomdm_report(public.device_integrations, jsonb, timestamptz) is
  'Take a webhook of NanoMDM: the answer to a command, or that a device has left or come back. {status, is_new}.';
revoke all on function fleet.take_nanomdm_report(public.device_integrations, jsonb, timestamptz)
  from public, anon, authenticated, service_role;

insert into fleet.webhook_handlers as h (integration_type, function) values ('nanomdm', 'fleet.take_nanomdm_report')
on conflict (integration_type) do update set function = excluded.function where h.function <> excluded.function;

-- db/sources/60_mdm/90_poke.sql
-- Waking the function mdm-dispatch where there is something to do, and clearing up behind it.

create or replace function fleet.has_mdm_work(p_now timestamptz)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Awake before a schedule is due, the function carries it out at its very instant.
  return fleet.next_mdm_schedule_at(p_now + interval '2 seconds') is not null
  or exists (
    select 1
    from public.device_integrations as i
    where i.status = 'active'
      and i.integration_type = any (fleet.mdm_integration_types())
      and (
        fleet.is_sync_due(i, p_now)
        or fleet.has_due_mdm(i.id, 'send', p_now)
        or fleet.has_due_mdm(i.id, 'look', p_now)
        or fleet.is_upload_due(i.id, p_now)
        or fleet.has_mdm_rereads(i.id, p_now)
      )
      and not exists (
        select 1 from fleet.rate_limits as r where r.integration_id = i.id and r.endpoint = '' and r.blocked_until > p_now
      )
  );
end;
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

-- db/sources/60_mdm/triggers.sql
-- What keeps the queue of each MDM true to the commands, the links and the integrations.

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

create or replace trigger device_commands_09_forget_mdm
  after delete on public.device_commands
  referencing old table as old_rows
  for each statement execute function fleet.tg_forget_mdm_commands();

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

create or replace trigger device_integrations_04_reroute
  after update of status on public.device_integrations
  for each row when (new.status is distinct from old.status)
  execute function fleet.tg_reroute_integration();

-- db/sources/60_mdm/access.sql
-- The queue of the MDMs and their rates belong to the engine: nobody else reads or writes them.

revoke all on table fleet.mdm_work, fleet.rate_limits from public, anon, authenticated, service_role;

revoke all on table fleet.mdm_rereads from public, anon, authenticated, service_role;

set check_function_bodies = on;
reset search_path;
