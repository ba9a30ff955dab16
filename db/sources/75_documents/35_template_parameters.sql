-- What templates are filled with: placeholders, parameters, and what may be wrong with them.

create or replace function fleet.placeholders(p_value jsonb)
returns setof text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select distinct m.found[1]
  from jsonb_path_query(p_value, 'strict $.**') as t(item)
  cross join lateral regexp_matches(t.item #>> '{}', '\{\{\s*([a-z_][a-z0-9_]*)\s*\}\}', 'g') as m(found)
  where jsonb_typeof(t.item) = 'string'
$$;

comment on function fleet.placeholders(jsonb) is 'The parameters that the texts of a value name, as in {{parameter}}.';
revoke all on function fleet.placeholders(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.filled_text(p_text text, p_values jsonb)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  -- In one pass: a value that itself looks like {{another}} stays as it is.
  select string_agg(p.piece || coalesce(p_values ->> m.found[1], ''), '' order by p.nr)
  from regexp_split_to_table(p_text, '\{\{\s*[a-z_][a-z0-9_]*\s*\}\}') with ordinality as p(piece, nr)
  left join lateral regexp_matches(p_text, '\{\{\s*([a-z_][a-z0-9_]*)\s*\}\}', 'g') with ordinality as m(found, nr)
    on m.nr = p.nr
$$;

comment on function fleet.filled_text(text, jsonb) is 'A text with its placeholders replaced by values; by nothing where there is none.';
revoke all on function fleet.filled_text(text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.filled_template(p_value jsonb, p_values jsonb)
returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_whole text;
begin
  case jsonb_typeof(p_value)
    when 'object' then
      -- What is given no value is not said at all.
      return (
        select coalesce(jsonb_object_agg(e.key, f.value) filter (where f.value is not null), '{}')
        from jsonb_each(p_value) as e
        cross join lateral fleet.filled_template(e.value, p_values) as f(value)
      );
    when 'array' then
      return (
        select coalesce(jsonb_agg(f.value order by e.nr) filter (where f.value is not null), '[]')
        from jsonb_array_elements(p_value) with ordinality as e(value, nr)
        cross join lateral fleet.filled_template(e.value, p_values) as f(value)
      );
    when 'string' then
      v_whole := substring(p_value #>> '{}' from '^\{\{\s*([a-z_][a-z0-9_]*)\s*\}\}$');
      return case
        when v_whole is not null then p_values -> v_whole
        else to_jsonb(fleet.filled_text(p_value #>> '{}', p_values))
      end;
    else
      return p_value;
  end case;
end;
$$;

comment on function fleet.filled_template(jsonb, jsonb) is
  'A value with its placeholders replaced; a text that is one placeholder and nothing else becomes the value as it is.';
revoke all on function fleet.filled_template(jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.parameter_problem(p_field text, p_definition jsonb, p_value jsonb)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select p_field, format('must be %s %s, not %s', case when t.kind in ('array', 'object') then 'an' else 'a' end, t.kind, p_value),
    format('Give a value of type %s.', t.kind)
  from (select p_definition ->> 'type' as kind) as t
  where jsonb_typeof(p_value) <> t.kind
  union all
  select p_field, format('%s is not one of %s', p_value, p_definition -> 'choices'), 'Use one of the values named.'
  where jsonb_typeof(p_value) = p_definition ->> 'type'
    and jsonb_typeof(p_definition -> 'choices') = 'array'
    and not exists (select 1 from jsonb_array_elements(p_definition -> 'choices') as c(item) where c.item = p_value)
$$;

comment on function fleet.parameter_problem(text, jsonb, jsonb) is 'What is wrong with the value of a parameter: its type, or no choice.';
revoke all on function fleet.parameter_problem(text, jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.parameter_value_problems(p_parameters jsonb, p_values jsonb)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select 'parameters', 'must be an object', 'Example: {"school": "north"}'
  where jsonb_typeof(p_values) <> 'object'
  union all
  select 'parameters.' || p.key, 'is missing', coalesce(p.value ->> 'description', format('Give a %s.', p.value ->> 'type'))
  from jsonb_each(p_parameters) as p
  where not p.value ? 'default'
    and (p.value -> 'required') is distinct from 'false'
    and (jsonb_typeof(p_values) <> 'object' or not p_values ? p.key)
  union all
  select 'parameters.' || v.key, 'is not a parameter of this template',
    coalesce(
      'The parameters are ' || (select string_agg(p.key, ', ' order by p.key) from jsonb_each(p_parameters) as p) || '.',
      'It has no parameters.'
    )
  from jsonb_each(case when jsonb_typeof(p_values) = 'object' then p_values else '{}' end) as v
  where not p_parameters ? v.key
  union all
  select q.field, q.problem, q.hint
  from jsonb_each(case when jsonb_typeof(p_values) = 'object' then p_values else '{}' end) as v
  join jsonb_each(p_parameters) as p on p.key = v.key
  cross join lateral fleet.parameter_problem('parameters.' || v.key, p.value, v.value) as q
$$;

comment on function fleet.parameter_value_problems(jsonb, jsonb) is
  'Values of parameters that are missing, unknown, of another type or no choice.';
revoke all on function fleet.parameter_value_problems(jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.parameter_definition_problems(p_parameters jsonb)
returns setof fleet.problem
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  with given as (
    select 'parameters.' || e.key as field, e.key as name, e.value as definition
    from jsonb_each(case when jsonb_typeof(p_parameters) = 'object' then p_parameters else '{}' end) as e
  )
  select 'parameters', 'must be an object', 'Example: {"school": {"type": "string"}}'
  where jsonb_typeof(p_parameters) not in ('object', 'null')
  union all
  select g.field, 'is not a name', 'Use lower case letters, digits and underscores, like start_hour.'
  from given as g
  where g.name !~ '^[a-z_][a-z0-9_]*$'
  union all
  select g.field, 'must be an object', 'Example: {"type": "string", "default": "north"}'
  from given as g
  where jsonb_typeof(g.definition) <> 'object'
  union all
  select g.field || '.' || k, 'is not a key of a parameter', 'The keys are type, default, required, description and choices.'
  from given as g
  cross join lateral jsonb_object_keys(case when jsonb_typeof(g.definition) = 'object' then g.definition else '{}' end) as k
  where k not in ('type', 'default', 'required', 'description', 'choices')
  union all
  select g.field || '.type', 'is not one of string, number, boolean, object, array', 'Example: {"type": "string"}'
  from given as g
  where jsonb_typeof(g.definition) = 'object'
    and coalesce(g.definition ->> 'type', '') not in ('string', 'number', 'boolean', 'object', 'array')
  union all
  select g.field || '.' || k.key, 'must be a ' || k.kind, 'Check the type of the value.'
  from given as g
  cross join (values ('required', 'boolean'), ('description', 'string'), ('choices', 'array')) as k(key, kind)
  where jsonb_typeof(g.definition) = 'object' and jsonb_typeof(g.definition -> k.key) <> k.kind
  union all
  select q.field, q.problem, q.hint
  from given as g
  cross join lateral fleet.parameter_problem(g.field || '.default', g.definition, g.definition -> 'default') as q
  where jsonb_typeof(g.definition) = 'object' and g.definition ? 'default'
$$;

comment on function fleet.parameter_definition_problems(jsonb) is 'Everything that is wrong with the parameters of a template.';
revoke all on function fleet.parameter_definition_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.template_problems(p_template jsonb)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with given as (
    select case when jsonb_typeof(p_template) = 'object' then p_template else '{}' end as t
  )
  select 'template', 'must be an object', 'Example: {"name": "Nightly lock", "spec": {…}, "parameters": {…}}'
  where jsonb_typeof(p_template) is distinct from 'object'
  union all
  select e.key, 'is not a key of a template', 'The keys are name, description, spec, parameters and owner_id.'
  from given as g
  cross join lateral jsonb_each(g.t) as e
  where e.key not in ('name', 'description', 'spec', 'parameters', 'owner_id')
  union all
  select 'name', 'must be text that is not blank', 'Give the template a name.'
  from given as g
  where jsonb_typeof(g.t -> 'name') is distinct from 'string' or btrim(g.t ->> 'name') = ''
  union all
  select 'description', 'must be text', 'Say what the template is for.'
  from given as g
  where jsonb_typeof(g.t -> 'description') not in ('string', 'null')
  union all
  select 'owner_id', 'is not a uuid', 'Copy the id of the owner.'
  from given as g
  where jsonb_typeof(g.t -> 'owner_id') <> 'null' and fleet.try_uuid(g.t ->> 'owner_id') is null
  union all
  select 'spec', 'must be an object', 'Write it as for create_schedule.'
  from given as g
  where jsonb_typeof(g.t -> 'spec') is distinct from 'object'
  union all
  select q.field, q.problem, q.hint
  from given as g
  cross join lateral fleet.parameter_definition_problems(g.t -> 'parameters') as q
  union all
  select 'spec.' || q.field, q.problem, q.hint
  from given as g
  cross join lateral fleet.spec_type_problems(
    fleet.normal_schedule_spec(case when jsonb_typeof(g.t -> 'spec') = 'object' then g.t -> 'spec' else '{}' end)
  ) as q
  -- The types of values are only known when the template is used.
  where q.problem like 'is not a key%'
  union all
  select 'spec', format('{{%s}} is not among the parameters', p.name), format('Add {"%s": {"type": "string"}}.', p.name)
  from given as g
  cross join lateral fleet.placeholders(g.t -> 'spec') as p(name)
  where jsonb_typeof(g.t -> 'parameters') is distinct from 'object' or not (g.t -> 'parameters') ? p.name
$$;

comment on function fleet.template_problems(jsonb) is 'Everything that is wrong with a template.';
revoke all on function fleet.template_problems(jsonb) from public, anon, authenticated, service_role;
