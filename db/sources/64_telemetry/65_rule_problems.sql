-- What may be wrong with a rule.

create or replace function public.enable_telemetry_rule(p_id bigint, p_is_enabled boolean)
returns public.telemetry_rules
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.telemetry_rules;
begin
  update public.telemetry_rules as r set is_enabled = p_is_enabled where r.id = p_id returning r.* into v_row;
  if not found then
    raise exception 'telemetry rule % was not found', p_id
      using errcode = 'PT404', detail = 'telemetry_rule_not_found', hint = 'List them with: select * from telemetry_rule_list';
  end if;
  return v_row;
end;
$$;

comment on function public.enable_telemetry_rule(bigint, boolean) is
  'Let a rule act, or do nothing. Answers the row. Raises telemetry_rule_not_found (PT404) or telemetry_rule_invalid (PT422).';
revoke all on function public.enable_telemetry_rule(bigint, boolean) from public, anon, authenticated, service_role;
grant execute on function public.enable_telemetry_rule(bigint, boolean) to authenticated, service_role;

create or replace function fleet.rule_met_for(p_rule_id bigint)
returns bigint
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select count(*)
  from fleet.telemetry_rule_states as s
  join public.telemetry_rules as r on r.id = s.rule_id
  where s.rule_id = p_rule_id and s.is_met and fleet.is_visible_owner(r.owner_id)
$$;

comment on function fleet.rule_met_for(bigint) is
  'For how many devices a rule is met at present. Definer: the states are nobody''s; it counts for who sees the rule.';
revoke all on function fleet.rule_met_for(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.rule_met_for(bigint) to authenticated, service_role;

create or replace function fleet.telemetry_rule_problems(p_rule public.telemetry_rules)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select 'condition', format('"%s" is no condition', left(p_rule.condition, 60)), 'Examples: battery < 15, gps.speed >= 30, missing for 30 minutes'
  from fleet.parsed_condition(p_rule.condition) as c
  where c.threshold is null and c.missing_for is null
  union all
  select 'condition', 'asks for a silence of less than a minute or more than a year', 'Example: missing for 30 minutes'
  from fleet.parsed_condition(p_rule.condition) as c
  where c.missing_for not between interval '1 minute' and interval '366 days'
  union all
  select 'clear_at', 'lies on the wrong side of the condition', 'With battery < 15 it is 15 or more, such as 20.'
  from fleet.parsed_condition(p_rule.condition) as c
  where c.operator in ('<', '<=') and p_rule.clear_at < c.threshold or c.operator in ('>', '>=') and p_rule.clear_at > c.threshold
  union all
  select 'group_id', format('group %s was not found', p_rule.group_id), 'List your groups with: select * from group_list'
  where p_rule.group_id is not null
    and not exists (select 1 from public.device_groups as g where g.id = p_rule.group_id and g.owner_id = p_rule.owner_id)
  union all
  select s.field, s.problem, s.hint from fleet.selector_problems(p_rule.selector) as s
  union all
  select 'is_enabled', 'is one too many: an owner has fifty rules at most', 'Delete or disable another one.'
  where p_rule.is_enabled and (
    select count(*) from public.telemetry_rules as r where r.owner_id = p_rule.owner_id and r.is_enabled and r.id <> p_rule.id
  ) >= 50
  union all
  select 'payload', 'must be an object', 'Example: {"message": "Charge me"}'
  where jsonb_typeof(p_rule.payload) is distinct from 'object'
  union all
  select q.field, q.problem, q.hint
  from fleet.payload_problems(p_rule.owner_id, p_rule.action_type, p_rule.payload) as q
  where jsonb_typeof(p_rule.payload) = 'object'
  union all
  -- What devices tell decides nothing that cannot be undone.
  select 'action_type', format('%s cannot be undone, and a device decides it here', p_rule.action_type), 'Let a person send it.'
  where exists (
    select 1
    from public.command_types as t
    where t.name = p_rule.action_type and coalesce(t.owner_id, p_rule.owner_id) = p_rule.owner_id and t.destructive
  )
$$;

comment on function fleet.telemetry_rule_problems(public.telemetry_rules) is
  'Everything that is wrong with a rule. What belongs to another owner is as good as not there.';
revoke all on function fleet.telemetry_rule_problems(public.telemetry_rules) from public, anon, authenticated, service_role;
