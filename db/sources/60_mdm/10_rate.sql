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
