-- Selectors: choosing devices by tags, platform and attributes.

-- Without a subquery, so that Postgres inlines it: it is asked for each device of a fleet.
create or replace function fleet.device_matches(
  p_selector jsonb,
  p_tags text[],
  p_platform text,
  p_attributes jsonb
)
returns boolean
language sql
immutable
parallel safe
return (
  (not p_selector ? 'tags'
    or to_jsonb(p_tags) @> (p_selector -> 'tags'))
  and (not p_selector ? 'any_tags'
    or (p_selector -> 'any_tags') ?| p_tags)
  and (not p_selector ? 'platform'
    or coalesce(p_selector -> 'platform' @> to_jsonb(p_platform), false))
  and (not p_selector ? 'attributes'
    or p_attributes @> (p_selector -> 'attributes'))
);

comment on function fleet.device_matches(jsonb, text[], text, jsonb) is
  'Whether a device has all of selector.tags, one of any_tags, one of platform, and contains attributes. Every key must hold; '
  'an empty selector matches every device.';
revoke all on function fleet.device_matches(jsonb, text[], text, jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.device_matches(jsonb, text[], text, jsonb) to authenticated, service_role;

create or replace function fleet.selector_problems(p_selector jsonb)
returns setof fleet.problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select 'selector', 'must be an object', 'Example: {"tags": ["school-7"], "platform": ["windows"]}'
  where p_selector is not null and jsonb_typeof(p_selector) <> 'object'
  union all
  select 'selector.' || e.key, 'is not a key of a selector', 'The keys are tags, any_tags, platform and attributes.'
  from jsonb_each(case when jsonb_typeof(p_selector) = 'object' then p_selector else '{}' end) as e
  where e.key not in ('tags', 'any_tags', 'platform', 'attributes')
  union all
  select 'selector.' || e.key, 'must be a list of text', format('Example: {"%s": ["one", "two"]}', e.key)
  from jsonb_each(case when jsonb_typeof(p_selector) = 'object' then p_selector else '{}' end) as e
  where e.key in ('tags', 'any_tags', 'platform')
    and (jsonb_typeof(e.value) <> 'array' or jsonb_path_exists(e.value, 'strict $[*] ? (@.type() != "string")', '{}', true))
    and not (e.key = 'platform' and jsonb_typeof(e.value) = 'string')
  union all
  select q.*
  from unnest('{tags,any_tags,platform}'::text[]) as k(key)
  cross join lateral fleet.list_problem('selector.' || k.key, 'selector_list', p_selector -> k.key) as q
  union all
  select 'selector.attributes', 'must be an object', 'Example: {"attributes": {"lab": 3}}'
  where jsonb_typeof(p_selector) = 'object'
    and p_selector ? 'attributes'
    and jsonb_typeof(p_selector -> 'attributes') <> 'object';
end;
$$;

comment on function fleet.selector_problems(jsonb) is 'Everything that is wrong with a selector; no row where nothing is.';
revoke all on function fleet.selector_problems(jsonb) from public, anon, authenticated, service_role;
