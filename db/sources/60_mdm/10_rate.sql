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
