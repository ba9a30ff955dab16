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

create or replace function fleet.worker_take_rate(
  p_integration_id bigint,
  p_wanted integer default 1,
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
  v_granted integer;
begin
  if not exists (select 1 from public.device_integrations as i where i.id = p_integration_id and i.status = 'active') then
    return jsonb_build_object('granted', 0, 'retry_at', null, 'reason', 'integration_not_active');
  end if;

  v_row := fleet.filled_rate(p_integration_id, p_now);
  v_granted := case
    when v_row.blocked_until > p_now then 0
    else least(floor(v_row.tokens)::integer, greatest(p_wanted, 0))
  end;
  update fleet.rate_limits as r
  set rate = v_row.rate, tokens = v_row.tokens - v_granted, filled_at = v_row.filled_at
  where r.integration_id = p_integration_id;

  return jsonb_build_object(
    'granted', v_granted,
    'retry_at', case
      when v_granted >= p_wanted then null
      else greatest(
        v_row.blocked_until,
        p_now + make_interval(secs => (greatest(1 - (v_row.tokens - v_granted), 0) / v_row.rate)::double precision)
      )
    end
  );
end;
$$;

comment on function fleet.worker_take_rate(bigint, integer, timestamptz) is
  'Take leave for so many calls: {granted, retry_at}; retry_at says when there is leave for one more, and is null where all was granted. '
  'Nothing is granted to an integration that is not active (reason integration_not_active). Definer: the worker writes no table.';
revoke all on function fleet.worker_take_rate(bigint, integer, timestamptz) from public, anon, authenticated, service_role;

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
      tokens = 0,
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

create or replace function fleet.rate_allowance(p_integration_id bigint, p_now timestamptz)
returns integer
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- What there is leave for now and in the coming second. Nothing is taken: each call takes its own.
  select coalesce(
    (
      select case
        when r.blocked_until > p_now + interval '1 second' then 0
        else greatest(1, floor(least(
          fleet.rate_burst(i.settings), r.tokens + r.rate * greatest(extract(epoch from p_now - r.filled_at), 0)
        ) + r.rate))::integer
      end
      from fleet.rate_limits as r
      join public.device_integrations as i on i.id = r.integration_id
      where r.integration_id = p_integration_id
    ),
    (
      select floor(fleet.rate_burst(i.settings) + fleet.rate_ceiling(i.settings))::integer
      from public.device_integrations as i
      where i.id = p_integration_id
    )
  )
$$;

comment on function fleet.rate_allowance(bigint, timestamptz) is 'How many commands of an integration are worth claiming now.';
revoke all on function fleet.rate_allowance(bigint, timestamptz) from public, anon, authenticated, service_role;
