-- From a plan to the groups of a run, and what a plan decides. Pure.

create or replace function fleet.planned_waves(p_plan jsonb)
returns table (wave smallint, name text, percent_to numeric, tag text, device_ids bigint[], rules jsonb)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  with listed as (
    select g.n, g.item, sum(coalesce((g.item ->> 'percent')::numeric, 0)) over (order by g.n) as percent_to
    from jsonb_array_elements(coalesce(p_plan -> 'groups', '[]')) with ordinality as g(item, n)
  ),
  everybody as (
    select l.n, l.item, l.percent_to from listed as l
    union all
    -- Whoever is in no group comes last.
    select coalesce(max(l.n), 0) + 1, '{"name": "rest", "rest": true}', 101
    from listed as l
    having coalesce(bool_and(not l.item ? 'percent' or l.percent_to < 100), true)
  )
  select (e.n - 1)::smallint,
    coalesce(
      e.item ->> 'name', (e.item ->> 'percent') || ' %', e.item ->> 'tag', jsonb_array_length(e.item -> 'devices') || ' devices', 'rest'
    ),
    case when e.item ? 'percent' or e.item ? 'rest' then case when e.percent_to >= 100 then 101 else e.percent_to end end,
    e.item ->> 'tag',
    case when e.item ? 'devices' then fleet.bigint_array(e.item -> 'devices') end,
    e.item - '{name,percent,tag,devices,rest}'::text[]
  from everybody as e
$$;

comment on function fleet.planned_waves(jsonb) is 'The groups of a plan in their order; whoever is in none of them is in the last.';
revoke all on function fleet.planned_waves(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.rate_now(p_plan jsonb, p_released bigint, p_succeeded bigint)
returns integer
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rate jsonb := p_plan -> 'rate';
  v_counted bigint := case v_rate ->> 'count' when 'released' then p_released else p_succeeded end;
begin
  if v_rate ? 'per_minute' then
    return (v_rate ->> 'per_minute')::numeric;
  end if;
  return least(
    (v_rate ->> 'base')::numeric * power(
      coalesce((v_rate ->> 'factor')::numeric, 2),
      least(floor(v_counted / coalesce((v_rate ->> 'every')::numeric, (v_rate ->> 'base')::numeric)), 40)
    ),
    case when v_rate is not null then coalesce((v_rate ->> 'most')::numeric, 1000) end
  );
end;
$$;

comment on function fleet.rate_now(jsonb, bigint, bigint) is
  'How many devices a minute may have their turn: constant, or growing with those that had it or succeeded; null for all at once.';
revoke all on function fleet.rate_now(jsonb, bigint, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.failures_of(p_wave fleet.wave_count, p_class text)
returns bigint
language sql
immutable
parallel safe
return case when p_class = 'any' then p_wave.failed else coalesce((p_wave.failures ->> p_class)::bigint, 0) end;

comment on function fleet.failures_of(fleet.wave_count, text) is 'How many failures of a class, or of any, a group has.';
revoke all on function fleet.failures_of(fleet.wave_count, text) from public, anon, authenticated, service_role;

create or replace function fleet.breaks_rule(p_rule jsonb, p_failures bigint, p_ended bigint)
returns boolean
language sql
immutable
parallel safe
return p_failures > 0
  and p_ended >= coalesce((p_rule ->> 'min_count')::numeric, 1)
  and p_failures * 100 >= (p_rule ->> 'percent')::numeric * p_ended;

comment on function fleet.breaks_rule(jsonb, bigint, bigint) is 'Whether so many failures of so many devices that came to an end are too many for a rule.';
revoke all on function fleet.breaks_rule(jsonb, bigint, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.abort_reason(p_plan jsonb, p_waves fleet.wave_count[])
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rule jsonb;
  v_class text;
  v_wave fleet.wave_count;
  v_failures bigint;
  v_ended bigint;
  v_where text;
begin
  for v_rule in select a.value from fleet.as_list(p_plan -> 'abort') as a(value) where p_plan ? 'abort' loop
    v_class := coalesce(v_rule ->> 'failure', 'any');
    v_failures := 0;
    v_ended := 0;
    v_where := null;
    -- Of all that came to an end, and of those of each group: a bad second group must not hide behind a good first one.
    foreach v_wave in array p_waves loop
      v_failures := v_failures + fleet.failures_of(v_wave, v_class);
      v_ended := v_ended + v_wave.succeeded + v_wave.failed;
    end loop;
    if fleet.breaks_rule(v_rule, v_failures, v_ended) then
      v_where := 'devices failed';
    else
      foreach v_wave in array p_waves loop
        v_failures := fleet.failures_of(v_wave, v_class);
        v_ended := v_wave.succeeded + v_wave.failed;
        if fleet.breaks_rule(v_rule, v_failures, v_ended) then
          v_where := format('devices of group "%s" failed', v_wave.name);
          exit;
        end if;
      end loop;
    end if;
    if v_where is not null then
      return format('%s of %s %s (%s): the limit is %s %%', v_failures, v_ended, v_where, v_class, v_rule ->> 'percent');
    end if;
  end loop;
  return null;
end;
$$;

comment on function fleet.abort_reason(jsonb, fleet.wave_count[]) is 'Which rule of a plan stops it now, in words; null where none does.';
revoke all on function fleet.abort_reason(jsonb, fleet.wave_count[]) from public, anon, authenticated, service_role;

create or replace function fleet.wave_needs(p_wave fleet.wave_count)
returns integer
language sql
immutable
parallel safe
return ceil((p_wave.rules ->> 'success_threshold')::numeric * (p_wave.targeted - p_wave.skipped) / 100)::integer;

comment on function fleet.wave_needs(fleet.wave_count) is
  'How many of a group must succeed before the next one has its turn; null where it only has to end.';
revoke all on function fleet.wave_needs(fleet.wave_count) from public, anon, authenticated, service_role;

create or replace function fleet.wave_verdict(p_wave fleet.wave_count)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_needs integer := fleet.wave_needs(p_wave);
begin
  if v_needs is null then
    return case when p_wave.succeeded + p_wave.failed + p_wave.skipped >= p_wave.targeted then 'passed' else 'open' end;
  end if;
  return case
    when p_wave.succeeded >= v_needs then 'passed'
    when p_wave.targeted - p_wave.skipped - p_wave.failed < v_needs then 'missed'
    else 'open'
  end;
end;
$$;

comment on function fleet.wave_verdict(fleet.wave_count) is
  'passed, open, or missed where it can no longer reach its success threshold. Its devices must all be known.';
revoke all on function fleet.wave_verdict(fleet.wave_count) from public, anon, authenticated, service_role;

create or replace function fleet.needs_approval(p_plan jsonb, p_wave fleet.wave_count)
returns integer
language sql
immutable
parallel safe
return case
  when p_wave.rules ->> 'gate' = 'manual' or (p_wave.wave = 0 and p_plan -> 'four_eyes' = 'true'::jsonb)
    then coalesce((p_plan ->> 'approvals')::numeric::integer, 1)
  else 0
end;

comment on function fleet.needs_approval(jsonb, fleet.wave_count) is 'How many people must let a group have its turn.';
revoke all on function fleet.needs_approval(jsonb, fleet.wave_count) from public, anon, authenticated, service_role;
