-- The policy rollout: what is wrong with it, and the plan that it makes. Pure.

create or replace function fleet.percent_problem(p_field text, p_value jsonb, p_least numeric)
returns setof fleet.problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_value is not null and not coalesce(fleet.is_within(p_value, p_least, 100), false) then
    return next (p_field, format('%s is not a percentage from %s to 100', left(p_value::text, 40), p_least), 'Write a number without quotes.')::fleet.problem;
  end if;
end;
$$;

comment on function fleet.percent_problem(text, jsonb, numeric) is 'One row where a value is no percentage.';
revoke all on function fleet.percent_problem(text, jsonb, numeric) from public, anon, authenticated, service_role;

create or replace function fleet.key_problems(p_field text, p_object jsonb, p_known text[])
returns setof fleet.problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if jsonb_typeof(p_object) is distinct from 'object' then
    return next (p_field, 'must be an object', format('Its keys are %s.', array_to_string(p_known, ', ')))::fleet.problem;
    return;
  end if;
  return query
  select p_field || '.' || left(k.key, 60), 'is not known here', format('The keys are %s.', array_to_string(p_known, ', '))
  from jsonb_object_keys(p_object) as k(key)
  where k.key <> all (p_known)
  limit 10;
end;
$$;

comment on function fleet.key_problems(text, jsonb, text[]) is 'What is wrong with the keys of an object; one row where a value is none.';
revoke all on function fleet.key_problems(text, jsonb, text[]) from public, anon, authenticated, service_role;

create or replace function fleet.rollout_group_problems(p_groups jsonb)
returns setof fleet.problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_group jsonb;
  v_field text;
  v_sum numeric := 0;
  v_n integer := 0;
begin
  if jsonb_typeof(p_groups) <> 'array' then
    return next ('policies.rollout.groups', 'must be a list of groups', 'Example: [{"percent": 5}, {"percent": 95}]')::fleet.problem;
    return;
  end if;
  return query select q.* from fleet.list_problem('policies.rollout.groups', 'rollout_groups', p_groups) as q;
  for v_group in select e.value from jsonb_array_elements(p_groups) as e limit 100 loop
    v_n := v_n + 1;
    v_field := format('policies.rollout.groups.%s', v_n);
    return query
    select q.* from fleet.key_problems(v_field, v_group, '{name,percent,tag,devices,success_threshold,soak,gate}') as q;
    continue when jsonb_typeof(v_group) <> 'object';
    if (v_group ? 'percent')::integer + (v_group ? 'tag')::integer + (v_group ? 'devices')::integer <> 1 then
      return next (v_field, 'must have one of percent, tag and devices', 'Example: {"percent": 5}')::fleet.problem;
    end if;
    return query select q.* from fleet.percent_problem(v_field || '.percent', v_group -> 'percent', 0.01) as q;
    return query select q.* from fleet.percent_problem(v_field || '.success_threshold', v_group -> 'success_threshold', 0) as q;
    return query select q.* from fleet.duration_problem(v_field || '.soak', v_group -> 'soak') as q;
    return query select q.* from fleet.choice_problem(v_field || '.gate', v_group -> 'gate', '{manual}') as q;
    return query
    select v_field || '.' || k.key, 'must be a text', 'Write it in quotes.'
    from jsonb_each(v_group) as k
    where k.key in ('name', 'tag') and (jsonb_typeof(k.value) <> 'string' or length(k.value #>> '{}') not between 1 and 200);
    if v_group ? 'devices' and not fleet.is_id_list(v_group -> 'devices') then
      return next (v_field || '.devices', 'is not a list of ids', 'Write whole numbers without quotes, like [1, 2].')::fleet.problem;
    end if;
    v_sum := v_sum + case when fleet.is_within(v_group -> 'percent', 0, 100) then (v_group ->> 'percent')::numeric else 0 end;
  end loop;
  if v_sum > 100 then
    return next ('policies.rollout.groups', format('have %s percent together', v_sum), 'Let them have 100 at most; the rest is a group of its own.')::fleet.problem;
  end if;
end;
$$;

comment on function fleet.rollout_group_problems(jsonb) is 'What is wrong with the groups of a rollout.';
revoke all on function fleet.rollout_group_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.rollout_problems(p_rollout jsonb)
returns setof fleet.problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rate jsonb := p_rollout -> 'rate';
  v_rule jsonb;
begin
  return query
  select q.*
  from fleet.key_problems(
    'policies.rollout', p_rollout, '{rate,groups,abort,max_parallel,four_eyes,approvals,compensate,membership}'
  ) as q;
  if jsonb_typeof(p_rollout) <> 'object' then
    return;
  end if;

  if v_rate is not null then
    return query
    select q.*
    from fleet.key_problems('policies.rollout.rate', v_rate, '{per_minute,base,factor,every,count,most}') as q;
    if jsonb_typeof(v_rate) = 'object' then
      if v_rate ? 'per_minute' = v_rate ? 'base' then
        return next ('policies.rollout.rate', 'must have either per_minute or base', 'Example: {"per_minute": 50} or {"base": 10, "factor": 2, "every": 100}')::fleet.problem;
      end if;
      return query
      select q.*
      from (values ('per_minute', 100000), ('base', 100000), ('every', 1000000), ('most', 100000)) as k(key, most)
      cross join lateral fleet.whole_number_problem('policies.rollout.rate.' || k.key, v_rate -> k.key, 1, k.most) as q;
      if v_rate ? 'factor' and not fleet.is_within(v_rate -> 'factor', 1, 10) then
        return next ('policies.rollout.rate.factor', 'is not a number from 1 to 10', 'Example: 2')::fleet.problem;
      end if;
      return query select q.* from fleet.choice_problem('policies.rollout.rate.count', v_rate -> 'count', '{released,succeeded}') as q;
    end if;
  end if;

  if p_rollout ? 'groups' then
    return query select q.* from fleet.rollout_group_problems(p_rollout -> 'groups') as q;
  end if;
  if p_rollout ? 'abort' then
    return query select q.* from fleet.list_problem('policies.rollout.abort', 'abort_rules', p_rollout -> 'abort') as q;
    for v_rule in select a.value from fleet.as_list(p_rollout -> 'abort') as a(value) limit 50 loop
      return query select q.* from fleet.key_problems('policies.rollout.abort', v_rule, '{failure,percent,min_count}') as q;
      continue when jsonb_typeof(v_rule) <> 'object';
      return query select q.* from fleet.percent_problem('policies.rollout.abort.percent', coalesce(v_rule -> 'percent', 'null'), 0) as q;
      return query select q.* from fleet.whole_number_problem('policies.rollout.abort.min_count', v_rule -> 'min_count', 1, 1000000) as q;
      return query
      select q.*
      from fleet.choice_problem(
        'policies.rollout.abort.failure', v_rule -> 'failure',
        '{any,error,timeout,expired,interrupted,unsupported,forbidden,invalid_payload,lease_expired}'
      ) as q;
    end loop;
  end if;
  return query select q.* from fleet.whole_number_problem('policies.rollout.max_parallel', p_rollout -> 'max_parallel', 1, 1000000) as q;
  return query select q.* from fleet.whole_number_problem('policies.rollout.approvals', p_rollout -> 'approvals', 1, 10) as q;
  return query select q.* from fleet.choice_problem('policies.rollout.membership', p_rollout -> 'membership', '{snapshot,continuous}') as q;
  if p_rollout ? 'four_eyes' and jsonb_typeof(p_rollout -> 'four_eyes') <> 'boolean' then
    return next ('policies.rollout.four_eyes', 'must be true or false', 'Write it without quotes.')::fleet.problem;
  end if;
  if p_rollout ? 'compensate' then
    return query select q.* from fleet.key_problems('policies.rollout.compensate', p_rollout -> 'compensate', '{action_type,payload}') as q;
    if jsonb_typeof(p_rollout #> '{compensate,action_type}') is distinct from 'string'
      or jsonb_typeof(coalesce(p_rollout #> '{compensate,payload}', '{}')) <> 'object'
    then
      return next (
        'policies.rollout.compensate', 'must have an action_type and a payload',
        'Example: {"action_type": "deploy_software", "payload": {"software_ids": [5], "uninstall": true}}'
      )::fleet.problem;
    end if;
  end if;
end;
$$;

comment on function fleet.rollout_problems(jsonb) is 'Everything that is wrong with the policy rollout.';
revoke all on function fleet.rollout_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.rollout_plan(p_policies jsonb, p_action_type text, p_payload jsonb)
returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_plan jsonb := p_policies -> 'rollout';
begin
  -- A command line for many devices may say itself how many at once, and that the first failure ends it.
  if p_action_type = 'run_command' and p_payload ?| '{batch_size,stop_on_failure}' then
    v_plan := coalesce(v_plan, '{}')
      || case
        when fleet.is_within(p_payload -> 'batch_size', 1, 1000000) and not coalesce(v_plan ? 'max_parallel', false)
          then jsonb_build_object('max_parallel', trunc((p_payload ->> 'batch_size')::numeric))
        else '{}'
      end
      || case
        when p_payload -> 'stop_on_failure' = 'true' and not coalesce(v_plan ? 'abort', false)
          then '{"abort": [{"failure": "any", "percent": 0, "min_count": 1}]}'::jsonb
        else '{}'
      end;
  end if;
  return case when jsonb_typeof(v_plan) = 'object' then v_plan end;
end;
$$;

comment on function fleet.rollout_plan(jsonb, text, jsonb) is 'How a run is rolled out, by its policies and its payload; null where it reaches everybody at once.';
revoke all on function fleet.rollout_plan(jsonb, text, jsonb) from public, anon, authenticated, service_role;
