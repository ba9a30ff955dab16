-- Selectors: choosing devices by tags, platform and attributes, and by what they report of themselves only where that is named.

-- Without a subquery, so that Postgres inlines it: it is asked for each device of a fleet.
create or replace function fleet.device_matches(
  p_selector jsonb,
  p_tags text[],
  p_platform text,
  p_attributes jsonb,
  p_reported jsonb
)
returns boolean
language sql
stable
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
  and (not p_selector ? 'reported'
    or p_reported @> (p_selector -> 'reported'))
);

comment on function fleet.device_matches(jsonb, text[], text, jsonb, jsonb) is
  'Whether a device has all of selector.tags, one of any_tags, one of platform, and contains attributes, and reported contains what '
  'the selector wants of it. Every key must hold; '
  'an empty selector matches every device.';
revoke all on function fleet.device_matches(jsonb, text[], text, jsonb, jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.device_matches(jsonb, text[], text, jsonb, jsonb) to authenticated, service_role;

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
  select 'selector.' || e.key, 'is not a key of a selector', 'The keys are tags, any_tags, platform, attributes and reported.'
  from jsonb_each(case when jsonb_typeof(p_selector) = 'object' then p_selector else '{}' end) as e
  where e.key not in ('tags', 'any_tags', 'platform', 'attributes', 'reported')
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
  select 'selector.' || k.key, 'must be an object', format('Example: {"%s": {"lab": 3}}', k.key)
  from unnest('{attributes,reported}'::text[]) as k(key)
  where jsonb_typeof(p_selector) = 'object'
    and p_selector ? k.key
    and jsonb_typeof(p_selector -> k.key) <> 'object';
end;
$$;

comment on function fleet.selector_problems(jsonb) is 'Everything that is wrong with a selector; no row where nothing is.';
revoke all on function fleet.selector_problems(jsonb) from public, anon, authenticated, service_role;
