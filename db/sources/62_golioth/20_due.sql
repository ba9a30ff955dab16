-- Whose pull is due: by the slots of its interval, inside its window, within its budget of calls.

create or replace function fleet.next_slot_served(p_last timestamptz, p_interval interval, p_now timestamptz)
returns timestamptz
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_last is null or p_last > p_now + p_interval then p_now
    when p_now < p_last + p_interval / 2 then null
    when p_now < p_last + p_interval * 1.5 then p_last + p_interval
    else p_now
  end
$$;

comment on function fleet.next_slot_served(timestamptz, interval, timestamptz) is
  'Which slot a call at p_now serves, after the one that was served last; null where none is due. A call counts for a slot from half an '
  'interval before it to half an interval after: counted from the last start, a call that comes a moment early would be missed.';
revoke all on function fleet.next_slot_served(timestamptz, interval, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.calls_in_month(p_sync fleet.golioth_syncs, p_now timestamptz)
returns integer
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case when p_sync.month = date_trunc('month', p_now at time zone 'UTC')::date then p_sync.calls_in_month else 0 end
$$;

comment on function fleet.calls_in_month(fleet.golioth_syncs, timestamptz) is 'How many calls were made in the month of p_now, in UTC.';
revoke all on function fleet.calls_in_month(fleet.golioth_syncs, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.stretched_interval(p_settings jsonb, p_sync fleet.golioth_syncs, p_now timestamptz)
returns interval
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_seconds numeric := coalesce(fleet.try_bigint(p_settings ->> 'syncIntervalSeconds'), 300);
  v_budget bigint := fleet.try_bigint(p_settings ->> 'apiCallsPerMonth');
  v_left numeric;
  v_month_ends timestamptz := (date_trunc('month', p_now at time zone 'UTC') + interval '1 month') at time zone 'UTC';
begin
  if v_budget is not null and p_sync.calls_a_sync > 0 then
    v_left := v_budget - fleet.calls_in_month(p_sync, p_now);
    if v_left < p_sync.calls_a_sync then
      return v_month_ends - coalesce(p_sync.slot_at, p_now);
    end if;
    v_seconds := greatest(v_seconds, extract(epoch from v_month_ends - p_now) * p_sync.calls_a_sync / v_left);
  end if;
  return make_interval(secs => least(v_seconds, 2678400)::double precision);
end;
$$;

comment on function fleet.stretched_interval(jsonb, fleet.golioth_syncs, timestamptz) is
  'The pause between pulls: settings.syncIntervalSeconds, or longer where what is left of apiCallsPerMonth would not last for the month.';
revoke all on function fleet.stretched_interval(jsonb, fleet.golioth_syncs, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.is_in_sync_window(p_settings jsonb, p_now timestamptz)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_typeof(p_settings -> 'timeWindow'), 'null') = 'null'
    or fleet.is_in_window(
      fleet.golioth_window(p_settings), p_now at time zone coalesce(p_settings #>> '{timeWindow,timezone}', 'UTC')
    )
$$;

comment on function fleet.is_in_sync_window(jsonb, timestamptz) is 'Whether p_now lies in settings.timeWindow, in its own zone and across midnight.';
revoke all on function fleet.is_in_sync_window(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.sync_verdict(p_integration public.device_integrations, p_sync fleet.golioth_syncs, p_now timestamptz)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_integration.status <> 'active' then p_integration.status
    when p_integration.settings -> 'syncEnabled' is distinct from 'true'::jsonb then 'not enabled'
    when not fleet.is_in_sync_window(p_integration.settings, p_now) then 'outside of its time window'
    when p_sync.held_until > p_now then 'running'
    when fleet.next_slot_served(
      p_sync.slot_at, fleet.stretched_interval(p_integration.settings, p_sync, p_now), p_now
    ) is null then 'not due'
    else 'due'
  end
$$;

comment on function fleet.sync_verdict(public.device_integrations, fleet.golioth_syncs, timestamptz) is
  'What a call of the job does for an integration: due, or why not.';
revoke all on function fleet.sync_verdict(public.device_integrations, fleet.golioth_syncs, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.worker_call_syncs(p_now timestamptz default clock_timestamp())
returns jsonb
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  with judged as materialized (
    select i.id, fleet.sync_verdict(i, g, p_now) as verdict,
      fleet.next_slot_served(g.slot_at, fleet.stretched_interval(i.settings, g, p_now), p_now) as slot_at
    from public.device_integrations as i
    join fleet.golioth_syncs as g on g.integration_id = i.id
  ),
  asked as (
    update fleet.golioth_syncs as g
    set slot_at = j.slot_at, asked_at = coalesce(g.asked_at, p_now)
    from judged as j
    where g.integration_id = j.id and j.verdict = 'due'
  )
  select coalesce(jsonb_object_agg(c.verdict, c.count), '{}')
  from (select j.verdict, count(*) as count from judged as j group by j.verdict) as c
$$;

comment on function fleet.worker_call_syncs(timestamptz) is
  'The job came by: note which pulls are due, each for its slot. How many of which verdict, such as {"due": 2, "not due": 1}. Definer: the '
  'worker writes no table.';
revoke all on function fleet.worker_call_syncs(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.is_sync_wanted(p_integration public.device_integrations, p_sync fleet.golioth_syncs, p_now timestamptz)
returns boolean
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select p_integration.status = 'active'
    and coalesce(p_sync.held_until <= p_now, true)
    and (
      p_sync.asked_at is not null
      or p_integration.sync_requested_at > coalesce(p_integration.last_sync_at, '-infinity')
    )
$$;

comment on function fleet.is_sync_wanted(public.device_integrations, fleet.golioth_syncs, timestamptz) is
  'Whether a pull waits to be begun: its slot has come, or somebody asked by hand.';
revoke all on function fleet.is_sync_wanted(public.device_integrations, fleet.golioth_syncs, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.poke_sync(p_now timestamptz default now())
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_is_poked boolean := false;
begin
  -- What was asked for is done even where a poke was lost or a function was killed; what is due is for the job to say.
  if exists (
    select 1
    from fleet.golioth_syncs as g
    join public.device_integrations as i on i.id = g.integration_id
    where fleet.is_sync_wanted(i, g, p_now)
  ) then
    v_is_poked := fleet.poke_once_a_second('golioth-pull', p_now);
  end if;
  if exists (
    select 1
    from fleet.webhook_inbox as w
    join fleet.golioth_syncs as g on g.integration_id = w.integration_id
    where w.status = 'waiting'
      and w.received_at < p_now - interval '2 seconds'
      and coalesce(g.inbox_held_until <= p_now, true)
  ) then
    v_is_poked := fleet.poke_once_a_second('golioth-inbox', p_now) or v_is_poked;
  end if;
  return v_is_poked;
end;
$$;

comment on function fleet.poke_sync(timestamptz) is
  'Poke the functions where a pull was asked for, or pushed messages wait that nobody works on. Answers whether any was poked; called by the tick.';
revoke all on function fleet.poke_sync(timestamptz) from public, anon, authenticated, service_role;
