-- Packages and files: what is wrong with one, and in which order packages are installed.

create or replace function fleet.detection_problems(p_detection jsonb)
returns setof fleet.problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_detection is null then
    return;
  elsif jsonb_typeof(p_detection) <> 'object' or (p_detection ? 'path') = (p_detection ? 'command') then
    return next (
      'detection', 'must name either a path or a command', 'Example: {"path": "/opt/app/version"} or {"command": "app --version", "output": "2.1"}'
    )::fleet.problem;
    return;
  end if;
  return query
  select 'detection.' || k.key, 'is not a key of a detection rule', 'The keys are path with sha256, or command with output.'
  from jsonb_object_keys(p_detection) as k(key)
  where k.key not in ('path', 'sha256', 'command', 'output')
  union all
  select 'detection.' || k.key, 'must be a text', 'Write it in quotes.'
  from jsonb_each(p_detection) as k
  where jsonb_typeof(k.value) <> 'string' or btrim(k.value #>> '{}') = '' or length(k.value #>> '{}') > 4000
  union all
  select q.* from fleet.path_problems('detection.path', p_detection ->> 'path') as q where p_detection ? 'path'
  union all
  select 'detection.sha256', 'is not a hash', 'Write 64 small hexadecimal digits, as sha256sum prints them.'
  where p_detection ->> 'sha256' !~ '^[0-9a-f]{64}$';
end;
$$;

comment on function fleet.detection_problems(jsonb) is 'What is wrong with a rule that tells whether software is there.';
revoke all on function fleet.detection_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.packages_in_order(p_owner_id uuid, p_package_ids bigint[])
returns bigint[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_level bigint[] := p_package_ids;
  v_order bigint[] := p_package_ids;
begin
  -- What a package needs goes before it, also where it was there already for another one.
  for i in 1..50 loop
    v_level := array(
      select d.id
      from (
        select distinct unnest(p.dependencies) as id
        from public.software_packages as p
        where p.id = any (v_level) and p.owner_id = p_owner_id
      ) as d
      order by d.id
    );
    if v_level = '{}' then
      return v_order;
    end if;
    v_order := v_level || array(
      select u.id from unnest(v_order) with ordinality as u(id, n) where u.id <> all (v_level) order by u.n
    );
  end loop;
  return null;
end;
$$;

comment on function fleet.packages_in_order(uuid, bigint[]) is
  'These packages and all that they need, each after what it needs itself; null where they need themselves in the end.';
revoke all on function fleet.packages_in_order(uuid, bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.package_problems(p_package public.software_packages)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query select q.* from fleet.detection_problems(p_package.detection) as q;
  return query
  select 'file_id', format('file %s was not found', p_package.file_id), 'List files with: select * from file_list'
  where p_package.file_id is not null
    and not exists (
      select 1 from public.deployment_files as f where f.id = p_package.file_id and f.owner_id = p_package.owner_id
    );
  return query
  select 'dependencies', format('package %s was not found', u.id), 'List packages with: select * from package_list'
  from unnest(p_package.dependencies) as u(id)
  where not exists (select 1 from public.software_packages as x where x.id = u.id and x.owner_id = p_package.owner_id);
  return query
  select c.field, 'holds a control character, or one that nobody sees', 'Write it in one line.'
  from (
    values ('install_command', p_package.install_command), ('uninstall_command', p_package.uninstall_command)
  ) as c(field, line)
  where fleet.has_unseen(c.line);
end;
$$;

comment on function fleet.package_problems(public.software_packages) is 'Everything that is wrong with a package; no row where nothing is.';
revoke all on function fleet.package_problems(public.software_packages) from public, anon, authenticated, service_role;

create or replace function fleet.deploy_schedules_with(p_owner_id uuid, p_key text, p_id bigint)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select string_agg(format('"%s"', s.name), ', ' order by s.name)
  from public.schedules as s
  where s.owner_id = p_owner_id
    and s.status in ('active', 'paused')
    and s.action_type in ('deploy_software', 'deploy_files')
    and s.payload -> p_key @> to_jsonb(p_id)
$$;

comment on function fleet.deploy_schedules_with(uuid, text, bigint) is
  'The names of the schedules that would still send a file or a package; null where none does.';
revoke all on function fleet.deploy_schedules_with(uuid, text, bigint) from public, anon, authenticated, service_role;
