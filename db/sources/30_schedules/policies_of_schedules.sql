-- Policies of a schedule: every default in one place, and what may be said instead.

create or replace function fleet.default_policies()
returns jsonb
language sql
immutable
parallel safe
return jsonb_build_object(
  -- What happens to a device that has not finished the run before: it is skipped, gets the new one when it has finished
  -- (one at most is kept waiting), gets it at once, or has the old one cancelled.
  'overlap', 'skip',
  'max_concurrent', 3,
  -- What happens to instants that passed while nothing ticked: none, the latest, or all of them.
  'catchup', 'latest',
  'catchup_window', '1 hour',
  'catchup_limit', 10,
  -- Runs a minute while catching up; null for all at once.
  'catchup_rate', null,
  -- Null: until the next due instant, at most 24 hours.
  'expires_after', null,
  'gap', 'first_instant',
  'fold', 'first',
  -- Null backoff: the setting retry_backoff_seconds. Only failures of these classes are tried again.
  'retry', jsonb_build_object(
    'attempts', 3, 'backoff', null, 'max_backoff', '1 hour',
    'on', jsonb_build_array('error', 'timeout', 'network', 'rate_limited', 'unavailable', 'lease_expired')
  ),
  -- Each device has a slot of its own within this time, the same at every run.
  'jitter', null,
  'execution_window', null,
  'blackouts', '[]'::jsonb,
  'max_runs', null,
  'pause_on_failure', null
);

comment on function fleet.default_policies() is 'The policies of a schedule that says nothing.';
revoke all on function fleet.default_policies() from public, anon, authenticated, service_role;
grant execute on function fleet.default_policies() to authenticated, service_role;

create or replace function fleet.effective_policies(p_policies jsonb)
returns jsonb
language sql
immutable
parallel safe
return (
  fleet.default_policies()
  || p_policies
  || jsonb_build_object(
    'retry', (fleet.default_policies() -> 'retry') || coalesce(p_policies -> 'retry', '{}'::jsonb)
  )
);

comment on function fleet.effective_policies(jsonb) is 'What a schedule says, completed by the defaults.';
revoke all on function fleet.effective_policies(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.effective_policies(jsonb) to authenticated, service_role;

create or replace function fleet.choice_problem(p_field text, p_value jsonb, p_choices text[])
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select p_field, format('%s is not one of %s', p_value, array_to_string(p_choices, ', ')),
    format('Use one of: %s.', array_to_string(p_choices, ', '))
  where p_value is not null
    and (jsonb_typeof(p_value) <> 'string' or (p_value #>> '{}') <> all (p_choices))
$$;

comment on function fleet.choice_problem(text, jsonb, text[]) is 'One row where a value is not among the choices.';
revoke all on function fleet.choice_problem(text, jsonb, text[]) from public, anon, authenticated, service_role;

create or replace function fleet.whole_number_problem(p_field text, p_value jsonb, p_least bigint, p_most bigint)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select p_field, format('%s is not a whole number from %s to %s', p_value, p_least, p_most),
    format('Write a number without quotes, from %s to %s.', p_least, p_most)
  where p_value is not null
    and case
      when jsonb_typeof(p_value) <> 'number' then true
      else (p_value #>> '{}')::numeric <> trunc((p_value #>> '{}')::numeric)
        or (p_value #>> '{}')::numeric not between p_least and p_most
    end
$$;

comment on function fleet.whole_number_problem(text, jsonb, bigint, bigint) is
  'One row where a value is not a whole number within its bounds.';
revoke all on function fleet.whole_number_problem(text, jsonb, bigint, bigint)
  from public, anon, authenticated, service_role;

create or replace function fleet.duration_problem(p_field text, p_value jsonb)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select p_field, format('%s is not a duration', p_value), 'Examples: "15 minutes", "2 hours", "1 day".'
  where p_value is not null
    and jsonb_typeof(p_value) <> 'null'
    and (
      jsonb_typeof(p_value) <> 'string'
      or fleet.try_interval(p_value #>> '{}') is null
      -- What is longer leads out of the calendar, sooner or later.
      or fleet.try_interval(p_value #>> '{}') not between interval '1 microsecond' and interval '10 years'
    )
$$;

comment on function fleet.duration_problem(text, jsonb) is
  'One row where a value is not a positive duration, of ten years at most.';
revoke all on function fleet.duration_problem(text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.retry_problems(p_retry jsonb)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select 'policies.retry.' || k, 'is not part of retry', 'Example: {"retry": {"attempts": 5}}'
  from jsonb_object_keys(p_retry) as k
  where not (fleet.default_policies() -> 'retry') ? k
  union all
  select * from fleet.whole_number_problem('policies.retry.attempts', p_retry -> 'attempts', 1, 1000)
  union all
  select * from fleet.duration_problem('policies.retry.backoff', p_retry -> 'backoff')
  union all
  select * from fleet.duration_problem('policies.retry.max_backoff', p_retry -> 'max_backoff')
  union all
  select 'policies.retry.on', 'must be a list of classes of failure', 'Example: {"retry": {"on": ["timeout", "network"]}}'
  where p_retry ? 'on' and jsonb_typeof(p_retry -> 'on') <> 'array'
  union all
  -- What was interrupted may have happened: nothing that is not safe to repeat is ever repeated.
  select 'policies.retry.on', format('%s is not a class of failure that can be tried again', e.item),
    'Use some of: error, timeout, network, rate_limited, unavailable, lease_expired, unsupported, forbidden, invalid_payload.'
  from jsonb_array_elements(case jsonb_typeof(p_retry -> 'on') when 'array' then p_retry -> 'on' else '[]' end) as e(item)
  where jsonb_typeof(e.item) <> 'string'
    or (e.item #>> '{}') <> all (
      '{error,timeout,network,rate_limited,unavailable,lease_expired,unsupported,forbidden,invalid_payload}'::text[]
    )
$$;

comment on function fleet.retry_problems(jsonb) is 'Everything that is wrong with the policy about retries.';
revoke all on function fleet.retry_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.policy_problems(p_policies jsonb)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select 'policies.' || e.key, 'is not a policy',
    'The policies are ' || (select string_agg(d.key, ', ' order by d.key) from jsonb_each(fleet.default_policies()) as d) || '.'
  from jsonb_each(p_policies) as e
  where not fleet.default_policies() ? e.key
  union all
  select * from fleet.choice_problem('policies.overlap', p_policies -> 'overlap', '{skip,buffer_one,allow,replace}')
  union all
  select * from fleet.choice_problem('policies.catchup', p_policies -> 'catchup', '{none,latest,all}')
  union all
  select * from fleet.choice_problem('policies.gap', p_policies -> 'gap', '{first_instant,shift,skip}')
  union all
  select * from fleet.choice_problem('policies.fold', p_policies -> 'fold', '{first,second,both}')
  union all
  select * from fleet.whole_number_problem('policies.max_concurrent', p_policies -> 'max_concurrent', 1, 1000)
  union all
  select * from fleet.whole_number_problem('policies.catchup_limit', p_policies -> 'catchup_limit', 1, 1000)
  union all
  select q.*
  from unnest('{catchup_rate,max_runs,pause_on_failure}'::text[]) as k(key)
  cross join lateral fleet.whole_number_problem(
    'policies.' || k.key, nullif(p_policies -> k.key, 'null'), 1, case k.key when 'max_runs' then 1000000000 else 1000 end
  ) as q
  union all
  select * from fleet.duration_problem(
    'policies.catchup_window', case p_policies -> 'catchup_window' when 'null' then '""'::jsonb else p_policies -> 'catchup_window' end
  )
  union all
  select q.*
  from unnest('{expires_after,jitter}'::text[]) as k(key)
  cross join lateral fleet.duration_problem('policies.' || k.key, p_policies -> k.key) as q
  union all
  select * from fleet.window_problems(p_policies -> 'execution_window')
  union all
  select 'policies.retry', 'must be an object', 'Example: {"retry": {"attempts": 5}}'
  where p_policies ? 'retry' and jsonb_typeof(p_policies -> 'retry') <> 'object'
  union all
  select q.*
  from fleet.retry_problems(
    case when jsonb_typeof(p_policies -> 'retry') = 'object' then p_policies -> 'retry' else '{}' end
  ) as q
$$;

comment on function fleet.policy_problems(jsonb) is 'Everything that is wrong with the policies of a schedule.';
revoke all on function fleet.policy_problems(jsonb) from public, anon, authenticated, service_role;
