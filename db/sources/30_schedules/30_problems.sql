-- What is wrong with a schedule: everything at once, each with its field and what to do.

create or replace function fleet.schedule_problems(p_old public.schedules, p_new public.schedules)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Of another owner, everything that it names is another's.
  v_is_new boolean := p_old.id is null or p_old.owner_id <> p_new.owner_id;
  v_type public.command_types;
begin
  if fleet.may_be_too_large(p_new) then
    return query select q.* from fleet.row_limit_problems('schedules', to_jsonb(p_new) - 'recurrence') as q;
  end if;
  if btrim(coalesce(p_new.name, '')) = '' then
    return next ('name', 'must not be blank', 'Give the schedule a name.')::fleet.problem;
  end if;
  if v_is_new
    or (p_old.timezone, p_old.recurrence_type, p_old.recurrence_config, p_old.start_time, p_old.end_time)
      is distinct from (p_new.timezone, p_new.recurrence_type, p_new.recurrence_config, p_new.start_time, p_new.end_time)
  then
    return query select q.* from fleet.time_problems(p_new) as q;
  end if;
  if p_new.priority not between -100 and 100 then
    return next (
      'priority', format('%s is not within -100 to 100', p_new.priority), 'The default is 0; higher goes first.'
    )::fleet.problem;
  end if;
  select t.* into v_type
  from public.command_types as t
  where t.name = p_new.action_type and coalesce(t.owner_id, p_new.owner_id) = p_new.owner_id;
  if v_is_new or (p_old.action_type, p_old.payload) is distinct from (p_new.action_type, p_new.payload) then
    if jsonb_typeof(p_new.payload) = 'object' then
      if (v_type.payload_keys = '{}') is not true then
        return query select q.* from fleet.payload_problems(p_new.owner_id, p_new.action_type, p_new.payload) as q;
        return query select q.* from fleet.reference_problems(p_new.owner_id, p_new.action_type, p_new.payload) as q;
      end if;
    else
      return next ('payload', 'must be an object', 'Example: {"message": "Hello"}')::fleet.problem;
    end if;
  end if;
  if v_is_new or fleet.targets_changed(p_old, p_new) then
    return query select q.* from fleet.changed_target_problems(p_old, p_new) as q;
  end if;
  if v_type.destructive
    and (v_is_new or p_old.action_type <> p_new.action_type or fleet.targets_changed(p_old, p_new))
  then
    return query
    select q.* from fleet.reported_problems(p_new.owner_id, p_new.action_type, p_new.group_ids, p_new.selector) as q;
  end if;
  if p_new.after_schedule_id is not null and (
    v_is_new
    or (p_old.after_schedule_id, p_old.after_on, p_old.after_per_device, p_old.policies -> 'rollout')
      is distinct from (p_new.after_schedule_id, p_new.after_on, p_new.after_per_device, p_new.policies -> 'rollout')
  ) then
    return query select q.* from fleet.follow_problems(p_new) as q;
  end if;
  if v_is_new or p_old.policies is distinct from p_new.policies then
    if jsonb_typeof(p_new.policies) = 'object' then
      if p_new.policies ? 'blackouts' then
        return query select q.* from fleet.blackout_problems(p_new.owner_id, p_new.policies) as q;
      end if;
      if p_new.policies <> '{}' then
        return query select q.* from fleet.policy_problems(p_new.policies) as q;
        return query select q.* from fleet.compensation_problems(p_new) as q;
      end if;
    else
      return next ('policies', 'must be an object', 'Example: {"overlap": "allow"}')::fleet.problem;
    end if;
  end if;
end;
$$;

comment on function fleet.schedule_problems(public.schedules, public.schedules) is
  'Everything that is wrong with the new row of a schedule in what differs from the old one; an old row without an id is none. No row '
  'where nothing is.';
revoke all on function fleet.schedule_problems(public.schedules, public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.may_be_too_large(p_schedule public.schedules)
returns boolean
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return coalesce(octet_length(p_schedule.name) > fleet.limit_value('name'), false)
    or coalesce(octet_length(p_schedule.description) > fleet.limit_value('description'), false)
    or coalesce(
      greatest(
        octet_length(p_schedule.action_type), octet_length(p_schedule.timezone), octet_length(p_schedule.profile_id)
      ) > fleet.limit_value('identifier'),
      false
    )
    or coalesce(cardinality(p_schedule.device_ids) > fleet.limit_value('device_list'), false)
    or coalesce(cardinality(p_schedule.group_ids) > fleet.limit_value('group_list'), false)
    -- What is this short is neither too large nor too deep.
    or coalesce(
      greatest(
        pg_column_size(p_schedule.payload), pg_column_size(p_schedule.recurrence_config), pg_column_size(p_schedule.policies),
        pg_column_size(p_schedule.selector)
      ) > 128,
      false
    );
end;
$$;

comment on function fleet.may_be_too_large(public.schedules) is
  'Whether a schedule has to be looked at more closely, with row_limit_problems: one of its columns may hold more than its limit.';
revoke all on function fleet.may_be_too_large(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.compensation_problems(p_schedule public.schedules)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_action jsonb := fleet.object_or_empty(p_schedule.policies #> '{rollout,compensate}');
begin
  if jsonb_typeof(v_action -> 'action_type') = 'string' and jsonb_typeof(coalesce(v_action -> 'payload', '{}')) = 'object' then
    return query
    select 'policies.rollout.compensate.' || q.field, q.problem, q.hint
    from (
      select a.*
      from fleet.payload_problems(p_schedule.owner_id, v_action ->> 'action_type', coalesce(v_action -> 'payload', '{}')) as a
      union all
      select r.*
      from fleet.reference_problems(p_schedule.owner_id, v_action ->> 'action_type', coalesce(v_action -> 'payload', '{}')) as r
    ) as q;
  end if;
end;
$$;

comment on function fleet.compensation_problems(public.schedules) is 'What is wrong with the action that takes a rollout back.';
revoke all on function fleet.compensation_problems(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.time_problems(p_schedule public.schedules)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_is_zone boolean := p_schedule.timezone <> 'device' and fleet.is_time_zone(p_schedule.timezone);
begin
  if p_schedule.timezone <> 'device' and not v_is_zone then
    return next (
      'timezone', format('"%s" is not a known time zone', p_schedule.timezone), 'Use an IANA name such as Europe/Berlin.'
    )::fleet.problem;
  end if;
  return query
  select r.*
  from fleet.recurrence_problems(
    p_schedule.recurrence_type, p_schedule.recurrence_config, fleet.reference_zone(p_schedule)
  ) as r
  where r.field <> 'timezone';
  if p_schedule.start_time > p_schedule.end_time then
    return next ('start_time', 'is after end_time', 'Let the schedule start before it ends.')::fleet.problem;
  end if;
  return query
  select b.field, b.problem, b.hint
  from fleet.bounds_problems(
    fleet.recurrence_type(p_schedule.recurrence_type), fleet.recurrence_settings(p_schedule.recurrence_config),
    case when v_is_zone then p_schedule.timezone else 'UTC' end,
    p_schedule.start_time, p_schedule.end_time
  ) as b
  where b.field <> 'end_time' or p_schedule.end_time = '-infinity';
  if p_schedule.timezone = 'device' and p_schedule.after_schedule_id is null and isfinite(p_schedule.start_time)
    and not exists (select 1 from fleet.recurrence_problems(p_schedule.recurrence_type, p_schedule.recurrence_config, 'UTC'))
  then
    return query select q.* from fleet.density_problem(p_schedule) as q;
  end if;
end;
$$;

comment on function fleet.time_problems(public.schedules) is
  'What is wrong with when a schedule is due: its zone, its recurrence and its bounds.';
revoke all on function fleet.time_problems(public.schedules) from public, anon, authenticated, service_role;

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
  select * from fleet.list_problem('policies.retry.on', 'retry_classes', p_retry -> 'on')
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
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  -- In which order what is wrong is told.
  c_order constant text[] := '{overlap,catchup,gap,fold,unknown_zone,max_concurrent,catchup_limit,catchup_rate,max_runs,pause_on_failure,'
    'catchup_window,expires_after,jitter,execution_window,retry}';
  v_key text;
  v_value jsonb;
  v_field text;
begin
  for v_key, v_value in
    select e.key, e.value
    from jsonb_each(p_policies) as e
    order by array_position(c_order, e.key) nulls first, e.key
  loop
    v_field := 'policies.' || v_key;
    case
      when not fleet.default_policies() ? v_key then
        return next (
          v_field, 'is not a policy',
          'The policies are '
            || (select string_agg(d.key, ', ' order by d.key) from jsonb_each(fleet.default_policies()) as d) || '.'
        )::fleet.problem;
      when v_key = 'overlap' then
        return query select * from fleet.choice_problem(v_field, v_value, '{skip,buffer_one,allow,replace}');
      when v_key = 'catchup' then
        return query select * from fleet.choice_problem(v_field, v_value, '{none,latest,all}');
      when v_key = 'gap' then
        return query select * from fleet.choice_problem(v_field, v_value, '{first_instant,shift,skip}');
      when v_key = 'fold' then
        return query select * from fleet.choice_problem(v_field, v_value, '{first,second,both}');
      when v_key = 'unknown_zone' then
        return query select * from fleet.choice_problem(v_field, v_value, '{utc,owner,skip}');
      when v_key in ('max_concurrent', 'catchup_limit') then
        return query select * from fleet.whole_number_problem(v_field, v_value, 1, 1000);
      when v_key in ('catchup_rate', 'max_runs', 'pause_on_failure') then
        return query
        select *
        from fleet.whole_number_problem(
          v_field, nullif(v_value, 'null'), 1, case v_key when 'max_runs' then 1000000000 else 1000 end
        );
      when v_key = 'catchup_window' then
        return query select * from fleet.duration_problem(v_field, case v_value when 'null' then '""'::jsonb else v_value end);
      when v_key in ('expires_after', 'jitter') then
        return query select * from fleet.duration_problem(v_field, v_value);
      when v_key = 'execution_window' then
        return query select * from fleet.list_problem(v_field, 'windows', v_value);
        return query select * from fleet.window_problems(v_value);
      when v_key = 'rollout' then
        return query select * from fleet.rollout_problems(v_value) where v_value <> 'null';
      when v_key = 'retry' and jsonb_typeof(v_value) = 'object' then
        return query select * from fleet.retry_problems(v_value);
      when v_key = 'retry' then
        return next (v_field, 'must be an object', 'Example: {"retry": {"attempts": 5}}')::fleet.problem;
      else
        -- Blackouts are looked up with their owner, by fleet.blackout_problems.
        return query select * from fleet.list_problem(v_field, 'blackouts', v_value);
    end case;
  end loop;
end;
$$;

comment on function fleet.policy_problems(jsonb) is 'Everything that is wrong with the policies of a schedule.';
revoke all on function fleet.policy_problems(jsonb) from public, anon, authenticated, service_role;
