-- Rules: a condition on the latest point of a device, with hysteresis and cooldown, and what follows from it.

create or replace function fleet.parsed_condition(p_condition text)
returns table (field text[], operator text, threshold double precision, missing_for interval)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select string_to_array(m.part[1], '.'), m.part[2],
    case when length(m.part[3]) <= 30 then m.part[3]::double precision end,
    case when p_condition ~* '^\s*missing for ' then fleet.try_interval(regexp_replace(p_condition, '^\s*missing for\s+', '', 'i')) end
  from (
    select regexp_match(p_condition, '^\s*([A-Za-z_][\w-]*(?:\.[\w-]+)*)\s*(<=|>=|<>|=|<|>)\s*(-?\d+(?:\.\d+)?)\s*$') as part
  ) as m
$$;

comment on function fleet.parsed_condition(text) is
  'A condition in its parts: battery < 15 is a field, an operator and a threshold; missing for 30 minutes is a duration. All null where it '
  'is none.';
revoke all on function fleet.parsed_condition(text) from public, anon, authenticated, service_role;

create or replace function fleet.is_met(p_value double precision, p_operator text, p_threshold double precision)
returns boolean
language sql
immutable
parallel safe
return case p_operator
  when '<' then p_value < p_threshold
  when '<=' then p_value <= p_threshold
  when '>' then p_value > p_threshold
  when '>=' then p_value >= p_threshold
  when '=' then p_value = p_threshold
  when '<>' then p_value <> p_threshold
end;

comment on function fleet.is_met(double precision, text, double precision) is 'Whether a value meets a condition.';
revoke all on function fleet.is_met(double precision, text, double precision) from public, anon, authenticated, service_role;

create or replace function fleet.rule_verdict(
  p_value double precision,
  p_operator text,
  p_threshold double precision,
  p_clear_at double precision,
  p_was_met boolean
)
returns boolean
language sql
immutable
return case
  when p_value is null then p_was_met
  -- Once it is met, it stays so until the value has come back as far as clear_at.
  when p_was_met then fleet.is_met(p_value, p_operator, p_threshold) or (
    p_clear_at is not null and case
      when p_operator in ('<', '<=') then p_value < p_clear_at
      when p_operator in ('>', '>=') then p_value > p_clear_at
      else false
    end
  )
  else fleet.is_met(p_value, p_operator, p_threshold)
end;

comment on function fleet.rule_verdict(double precision, text, double precision, double precision, boolean) is
  'Whether a rule is met by a value, after it was or was not; a point without the value changes nothing.';
revoke all on function fleet.rule_verdict(double precision, text, double precision, double precision, boolean)
  from public, anon, authenticated, service_role;

create or replace function fleet.number_at(p_data jsonb, p_path text[])
returns double precision
language sql
immutable
return (
  select case
    when jsonb_typeof(v.value) = 'number' and ((v.value #>> '{}')::numeric = 0 or abs((v.value #>> '{}')::numeric) between 1e-300 and 1e300)
      then (v.value #>> '{}')::double precision
  end
  from (
    select case when p_path = '{value}' and jsonb_typeof(p_data) = 'number' then p_data else p_data #> p_path end as value
  ) as v
);

comment on function fleet.number_at(jsonb, text[]) is 'The number at a path of the data of a point; null where there is none.';
revoke all on function fleet.number_at(jsonb, text[]) from public, anon, authenticated, service_role;

create or replace function fleet.rules_of_devices(p_device_ids bigint[])
returns table (rule_id bigint, device_id bigint)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select r.id, d.id
  from public.devices as d
  join public.telemetry_rules as r on r.owner_id = d.owner_id and r.is_enabled
  left join public.device_groups as g on g.id = r.group_id and g.owner_id = r.owner_id
  where d.id = any (p_device_ids)
    and d.status = 'active'
    and (r.selector is null or fleet.device_matches(r.selector, d.tags, d.platform, d.attributes, d.reported))
    and (
      r.group_id is null
      or (g.selector is not null and fleet.device_matches(g.selector, d.tags, d.platform, d.attributes, d.reported))
      or exists (select 1 from public.device_group_members as m where m.group_id = r.group_id and m.device_id = d.id)
    )
$$;

comment on function fleet.rules_of_devices(bigint[]) is 'Which rules are about which of these devices.';
revoke all on function fleet.rules_of_devices(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.note_verdicts(p_verdicts jsonb, p_now timestamptz)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  with given as (
    select v.rule_id, v.device_id, v.is_met
    from jsonb_to_recordset(p_verdicts) as v(rule_id bigint, device_id bigint, is_met boolean)
  ),
  kept as (
    insert into fleet.telemetry_rule_states as s (rule_id, device_id, owner_id, is_met, changed_at, acted_at)
    select g.rule_id, g.device_id, r.owner_id, g.is_met, p_now, case when g.is_met then p_now end
    from given as g
    join public.telemetry_rules as r on r.id = g.rule_id
    order by g.rule_id, g.device_id
    on conflict (rule_id, device_id) do update
      set is_met = excluded.is_met, changed_at = p_now,
          acted_at = case
            when excluded.is_met
              and coalesce(s.acted_at <= p_now - (select r.cooldown from public.telemetry_rules as r where r.id = s.rule_id), true)
              then p_now
            else s.acted_at
          end
      where s.is_met is distinct from excluded.is_met
    returning s.rule_id, s.device_id, s.is_met, s.acted_at
  )
  select coalesce(jsonb_agg(jsonb_build_object('rule_id', a.rule_id, 'devices', a.devices)), '[]')
  from (
    select k.rule_id, jsonb_agg(k.device_id order by k.device_id) as devices
    from kept as k
    where k.is_met and k.acted_at = p_now
    group by k.rule_id
  ) as a
$$;

comment on function fleet.note_verdicts(jsonb, timestamptz) is
  'Keep for which devices rules are met, [{rule_id, device_id, is_met}]. Those that are met anew and have cooled down: [{rule_id, devices}].';
revoke all on function fleet.note_verdicts(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.act_for_rule(p_rule public.telemetry_rules, p_device_ids bigint[], p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_most constant integer := fleet.limit_value('device_list');
  v_schedule_id bigint;
begin
  -- As many at a time as one list takes.
  for v_rest in 2..ceil(cardinality(p_device_ids)::numeric / v_most) loop
    perform fleet.act_for_rule(p_rule, p_device_ids[1 + (v_rest - 1) * v_most:v_rest * v_most], p_now);
  end loop;
  p_device_ids := p_device_ids[:v_most];

  if p_rule.action = 'command' then
    insert into public.device_commands (owner_id, device_id, command_type, payload, priority, not_before, expires_at)
    select p_rule.owner_id, d.id, p_rule.action_type, p_rule.payload, p_rule.priority, p_now, p_now + interval '24 hours'
    from unnest(p_device_ids) as d(id);
    return;
  end if;

  insert into public.schedules (
    owner_id, name, description, action_type, payload, recurrence_type, start_time, device_ids, priority
  )
  values (
    p_rule.owner_id,
    left(format(
      '%s: %s', coalesce(nullif(p_rule.name, ''), p_rule.condition),
      case cardinality(p_device_ids)
        when 1 then (select d.hostname from public.devices as d where d.id = p_device_ids[1])
        else cardinality(p_device_ids) || ' devices'
      end
    ), 200),
    format('Telemetry rule %s: %s.', p_rule.id, p_rule.condition),
    p_rule.action_type, p_rule.payload, 'once', p_now, p_device_ids, p_rule.priority
  )
  returning id into v_schedule_id;
  perform fleet.expand_runs(array[r.id], p_now, cardinality(p_device_ids))
  from public.schedule_runs as r
  where r.schedule_id = v_schedule_id and r.expanded_at is null;
end;
$$;

comment on function fleet.act_for_rule(public.telemetry_rules, bigint[], timestamptz) is
  'Do what a rule wants for these devices: a command for each, or one schedule that is due now.';
revoke all on function fleet.act_for_rule(public.telemetry_rules, bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.act_for_rules(p_acts jsonb, p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_act record;
  v_rule public.telemetry_rules;
  v_error text;
  v_count integer := 0;
begin
  for v_act in select a.rule_id, a.devices from jsonb_to_recordset(p_acts) as a(rule_id bigint, devices jsonb) loop
    select r.* into v_rule from public.telemetry_rules as r where r.id = v_act.rule_id;
    continue when not found;
    v_error := null;
    -- One that is wrong by now, such as one whose command type is gone, must not stop the others; its owner reads why.
    begin
      perform fleet.act_for_rule(v_rule, fleet.bigint_array(v_act.devices), p_now);
      v_count := v_count + jsonb_array_length(v_act.devices);
    exception
      when query_canceled or admin_shutdown or deadlock_detected then
        raise;
      when others then
        v_error := sqlerrm;
    end;
    update public.telemetry_rules as r
    set last_acted_at = case when v_error is null then p_now else r.last_acted_at end, last_error = left(v_error, 4000)
    where r.id = v_rule.id;
  end loop;
  return v_count;
end;
$$;

comment on function fleet.act_for_rules(jsonb, timestamptz) is
  'Do what rules want, [{rule_id, devices}], each by itself. Answers for how many devices.';
revoke all on function fleet.act_for_rules(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_judge_points(p_points jsonb, p_now timestamptz default clock_timestamp())
returns integer
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  v_verdicts jsonb;
begin
  insert into fleet.telemetry_seen as s (device_id, owner_id, last_at)
  select d.id, d.owner_id, max(p.at)
  from jsonb_to_recordset(p_points) as p(device_id bigint, at timestamptz)
  join public.devices as d on d.id = p.device_id
  group by d.id, d.owner_id
  order by d.id
  on conflict (device_id) do update set last_at = greatest(s.last_at, excluded.last_at), owner_id = excluded.owner_id;
  -- Nearly everybody has none.
  if not exists (select 1 from public.telemetry_rules as r where r.is_enabled) then
    return 0;
  end if;

  with given as materialized (
    select p.device_id, p.at, p.data
    from jsonb_to_recordset(p_points) as p(device_id bigint, at timestamptz, data jsonb)
    -- What is read later says nothing of now.
    where p.at > p_now - interval '1 hour'
  ),
  judged as (
    select r.id as rule_id, g.device_id,
      case
        when c.missing_for is not null then g.at < p_now - c.missing_for
        else fleet.rule_verdict(
          fleet.number_at(g.data, c.field), c.operator, c.threshold, r.clear_at, coalesce(s.is_met, false)
        )
      end as is_met,
      coalesce(s.is_met, false) as was_met
    from fleet.rules_of_devices(array(select g.device_id from given as g)) as x
    join given as g on g.device_id = x.device_id
    join public.telemetry_rules as r on r.id = x.rule_id
    cross join lateral fleet.parsed_condition(r.condition) as c
    left join fleet.telemetry_rule_states as s on s.rule_id = r.id and s.device_id = g.device_id
  )
  select coalesce(jsonb_agg(jsonb_build_object('rule_id', j.rule_id, 'device_id', j.device_id, 'is_met', j.is_met)), '[]')
  into v_verdicts
  from judged as j
  where j.is_met <> j.was_met;
  return fleet.act_for_rules(fleet.note_verdicts(v_verdicts, p_now), p_now);
end;
$$;

comment on function fleet.worker_judge_points(jsonb, timestamptz) is
  'Points that are now the latest of their device, [{device_id, at, data}]: do what rules want because of them. Answers for how many devices '
  'something was done. Definer: the worker writes no table.';
revoke all on function fleet.worker_judge_points(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.judge_silence(p_now timestamptz default now())
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_verdicts jsonb;
begin
  if not fleet.pass_turnstile('judge-silence', interval '20 seconds', p_now)
    or not exists (select 1 from public.telemetry_rules as r where r.is_enabled and r.condition ~* '^\s*missing for ')
  then
    return 0;
  end if;

  select coalesce(jsonb_agg(jsonb_build_object('rule_id', t.rule_id, 'device_id', t.device_id, 'is_met', true)), '[]') into v_verdicts
  from (
    select q.rule_id, q.device_id
    from (
      select r.id as rule_id, d.device_id, row_number() over (partition by r.owner_id order by d.last_at) as turn
      from public.telemetry_rules as r
      cross join lateral fleet.parsed_condition(r.condition) as c
      cross join lateral (
        select s.device_id, s.last_at
        from fleet.telemetry_seen as s
        where s.owner_id = r.owner_id
          and s.last_at < p_now - c.missing_for
          and not exists (
            select 1 from fleet.telemetry_rule_states as k where k.rule_id = r.id and k.device_id = s.device_id and k.is_met
          )
        order by s.last_at
        limit 500
      ) as d
      where r.is_enabled and c.missing_for is not null
        and exists (select 1 from fleet.rules_of_devices(array[d.device_id]) as x where x.rule_id = r.id)
    ) as q
    -- Owners in turn: one whose every device is silent keeps nobody waiting.
    order by q.turn
    limit 1000
  ) as t;
  return fleet.act_for_rules(fleet.note_verdicts(v_verdicts, p_now), p_now);
end;
$$;

comment on function fleet.judge_silence(timestamptz) is
  'Do what rules want because devices stay silent, a few times a minute. Answers for how many devices something was done; called by the tick.';
revoke all on function fleet.judge_silence(timestamptz) from public, anon, authenticated, service_role;
