-- Templates: schedules with parameters, kept in versions.

create or replace function fleet.template_of_caller(p_name text, p_version integer, p_permission text)
returns public.schedule_templates
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owners uuid[];
  v_row public.schedule_templates;
begin
  select array_agg(distinct t.owner_id) into v_owners
  from public.schedule_templates as t
  where lower(t.name) = lower(p_name) and fleet.is_visible_owner(t.owner_id);
  -- A name in several fleets: one's own, or the one that stands for nobody being named.
  if cardinality(v_owners) > 1 then
    v_owners := coalesce(
      (
        select array_agg(o) from unnest(v_owners) as o
        where o = fleet.usual_owner()
      ),
      v_owners
    );
  end if;
  if cardinality(v_owners) > 1 then
    raise exception 'template "%" is ambiguous: % owners have one', p_name, cardinality(v_owners)
      using errcode = 'PT409', detail = 'template_ambiguous', hint = 'Rename it in one of them.';
  end if;

  select t.* into v_row
  from public.schedule_templates as t
  where t.owner_id = v_owners[1]
    and lower(t.name) = lower(p_name)
    and (p_version is null or t.version = p_version)
  order by t.version desc
  limit 1;
  if not found then
    raise exception '% was not found', concat_ws(' version ', format('template "%s"', p_name), p_version)
      using errcode = 'PT404', detail = 'template_not_found', hint = 'List your templates with: select * from template_list';
  end if;
  perform fleet.require_permission(v_row.owner_id, p_permission, format('template "%s"', p_name));
  return v_row;
end;
$$;

comment on function fleet.template_of_caller(text, integer, text) is
  'A version of a template, the latest where none is named, if the caller may do this with it. Raises template_not_found (PT404), '
  'permission_missing (PT403) or template_ambiguous (PT409). Definer: it must see the row to tell.';
revoke all on function fleet.template_of_caller(text, integer, text) from public, anon, authenticated, service_role;

create or replace function fleet.create_template(p_template jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid;
  v_row public.schedule_templates;
begin
  perform fleet.require_size('the template', 'spec', p_template);
  perform fleet.raise_problems('the template', 'template_invalid', array_agg(q))
  from fleet.template_problems(p_template) as q;

  v_owner := fleet.owner_or_own(fleet.try_uuid(p_template ->> 'owner_id'));
  perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
  -- Two that save the same name at once take turns, each with a version of its own.
  perform pg_advisory_xact_lock(hashtextextended(v_owner || lower(p_template ->> 'name'), 0));
  insert into public.schedule_templates as t (owner_id, name, version, description, spec, parameters, created_by)
  select v_owner, p_template ->> 'name', coalesce(max(x.version), 0) + 1, coalesce(p_template ->> 'description', ''),
    p_template -> 'spec', coalesce(nullif(p_template -> 'parameters', 'null'), '{}'), fleet.current_user_id()
  from public.schedule_templates as x
  where x.owner_id = v_owner and lower(x.name) = lower(p_template ->> 'name')
  returning t.* into v_row;
  return to_jsonb(v_row);
end;
$$;

comment on function fleet.create_template(jsonb) is 'See public.create_template. Definer: it checks the caller; nobody writes versions directly.';
revoke all on function fleet.create_template(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.create_template(jsonb) to authenticated, service_role;

create or replace function public.create_template(p_template jsonb)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.create_template(p_template)
$$;

comment on function public.create_template(jsonb) is
  'Save a template {name, description, spec, parameters}; under a name that exists it becomes the next version. spec is as for '
  'create_schedule (devices and groups by name, too) with {{parameter}} in its texts. Answers the row. Raises template_invalid (PT422) '
  'naming every wrong field, or permission_missing (PT403).';
revoke all on function public.create_template(jsonb) from public, anon, authenticated, service_role;
grant execute on function public.create_template(jsonb) to authenticated, service_role;

create or replace function fleet.instantiate_template(p_name text, p_parameters jsonb, p_version integer)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedule_templates := fleet.template_of_caller(p_name, p_version, 'manage');
  v_given jsonb := coalesce(nullif(p_parameters, 'null'), '{}');
  v_values jsonb;
  v_id bigint;
begin
  perform fleet.require_size('the parameters', 'template', v_given);
  perform fleet.raise_problems(format('the use of template "%s"', v_row.name), 'parameters_invalid', array_agg(q))
  from fleet.parameter_value_problems(v_row.parameters, v_given) as q;

  select coalesce(jsonb_object_agg(e.key, e.value -> 'default') filter (where e.value ? 'default'), '{}')
  into v_values
  from jsonb_each(v_row.parameters) as e;
  v_id := fleet.store_schedule(fleet.changed_schedule(
    fleet.blank_schedule(v_row.owner_id), fleet.filled_template(v_row.spec, v_values || v_given)
  ));
  return fleet.schedule_answer(v_id);
end;
$$;

comment on function fleet.instantiate_template(text, jsonb, integer) is
  'See public.instantiate_template. Definer: it checks the caller.';
revoke all on function fleet.instantiate_template(text, jsonb, integer) from public, anon, authenticated, service_role;
grant execute on function fleet.instantiate_template(text, jsonb, integer) to authenticated, service_role;

create or replace function public.instantiate_template(
  p_name text,
  p_parameters jsonb default '{}',
  p_version integer default null
)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.instantiate_template(p_name, p_parameters, p_version)
$$;

comment on function public.instantiate_template(text, jsonb, integer) is
  'Create a schedule from a template, its latest version unless one is named. Answers as create_schedule. Raises template_not_found '
  '(PT404), parameters_invalid (PT422) naming each that is missing, unknown or of another type, and what create_schedule raises.';
revoke all on function public.instantiate_template(text, jsonb, integer) from public, anon, authenticated, service_role;
grant execute on function public.instantiate_template(text, jsonb, integer) to authenticated, service_role;

create or replace function fleet.delete_template(p_name text)
returns integer
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedule_templates := fleet.template_of_caller(p_name, null, 'manage');
  v_count integer;
begin
  delete from public.schedule_templates as t
  where t.owner_id = v_row.owner_id and lower(t.name) = lower(v_row.name);
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.delete_template(text) is 'See public.delete_template. Definer: it checks the caller.';
revoke all on function fleet.delete_template(text) from public, anon, authenticated, service_role;
grant execute on function fleet.delete_template(text) to authenticated, service_role;

create or replace function public.delete_template(p_name text)
returns integer
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.delete_template(p_name)
$$;

comment on function public.delete_template(text) is
  'Delete all versions of a template; schedules made from it stay. Answers how many versions. Raises template_not_found (PT404) or '
  'permission_missing (PT403).';
revoke all on function public.delete_template(text) from public, anon, authenticated, service_role;
grant execute on function public.delete_template(text) to authenticated, service_role;
