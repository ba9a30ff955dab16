-- Manifests: what a deployment sends, written down when it is made, so that later changes of a package do not reach into it.

create or replace function fleet.file_entry(p_file public.deployment_files)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'id', p_file.id, 'name', p_file.name, 'size', p_file.size_bytes, 'sha256', p_file.sha256, 'path', p_file.storage_path
  )
  where p_file.id is not null
$$;

comment on function fleet.file_entry(public.deployment_files) is 'A file as a manifest names it; null for none.';
revoke all on function fleet.file_entry(public.deployment_files) from public, anon, authenticated, service_role;

create or replace function fleet.files_manifest(p_owner_id uuid, p_payload jsonb)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'kind', 'files',
    'target_path', p_payload -> 'target_path',
    'create_path', coalesce(p_payload -> 'create_path_if_not_exists', 'false'),
    'files', coalesce(jsonb_agg(fleet.file_entry(f) order by u.id) filter (where f.id is not null), '[]'),
    'missing', coalesce(jsonb_agg(u.id order by u.id) filter (where f.id is null), '[]')
  )
  from unnest(fleet.bigint_array(p_payload -> 'file_ids')) as u(id)
  left join public.deployment_files as f on f.id = u.id and f.owner_id = p_owner_id
$$;

comment on function fleet.files_manifest(uuid, jsonb) is 'What a payload of deploy_files sends.';
revoke all on function fleet.files_manifest(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.software_manifest(p_owner_id uuid, p_payload jsonb)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_uninstall boolean := coalesce(p_payload -> 'uninstall' = 'true', false);
  v_ids bigint[] := fleet.bigint_array(p_payload -> 'software_ids');
  v_order bigint[];
begin
  -- What is taken off leaves its dependencies, which others may need.
  v_order := case when v_uninstall then v_ids else fleet.packages_in_order(p_owner_id, v_ids) end;
  return (
    select jsonb_build_object(
      'kind', 'software',
      'uninstall', v_uninstall,
      'packages', coalesce(
        jsonb_agg(
          jsonb_build_object(
            'id', p.id, 'name', p.name, 'version', p.version, 'platform', p.platform, 'install_command', p.install_command,
            'uninstall_command', p.uninstall_command, 'detection', p.detection, 'timeout_seconds', p.timeout_seconds,
            'file', case when not v_uninstall then fleet.file_entry(f) end
          )
          order by u.n
        ) filter (where p.id is not null),
        '[]'
      ),
      'missing', coalesce(jsonb_agg(u.id order by u.n) filter (where p.id is null), '[]')
    )
    from unnest(coalesce(v_order, v_ids)) with ordinality as u(id, n)
    left join public.software_packages as p on p.id = u.id and p.owner_id = p_owner_id
    left join public.deployment_files as f on f.id = p.file_id and f.owner_id = p_owner_id
  );
end;
$$;

comment on function fleet.software_manifest(uuid, jsonb) is 'What a payload of deploy_software installs or takes off, in order.';
revoke all on function fleet.software_manifest(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.paths_of_manifest(p_manifest jsonb)
returns text[]
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select array(
    select f.file ->> 'path' from jsonb_array_elements(coalesce(p_manifest -> 'files', '[]')) as f(file)
    union
    select p.package #>> '{file,path}'
    from jsonb_array_elements(coalesce(p_manifest -> 'packages', '[]')) as p(package)
    where p.package #>> '{file,path}' is not null
  )
$$;

comment on function fleet.paths_of_manifest(jsonb) is 'The objects in storage that a manifest needs.';
revoke all on function fleet.paths_of_manifest(jsonb) from public, anon, authenticated, service_role;
