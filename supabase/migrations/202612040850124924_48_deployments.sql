-- Generated from db/sources/48_deployments by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/48_deployments/10_packages.sql
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

-- db/sources/48_deployments/20_manifests.sql
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

-- db/sources/48_deployments/30_targets.sql
-- How far a deployment is on one device, told from its command.

create or replace function fleet.is_deploy_type(p_command_type text)
returns boolean
language sql
immutable
parallel safe
return p_command_type in ('deploy_software', 'deploy_files');

comment on function fleet.is_deploy_type(text) is 'Whether a command sends software or files.';
revoke all on function fleet.is_deploy_type(text) from public, anon, authenticated, service_role;

create or replace function fleet.target_state(p_status text, p_progress jsonb, p_result jsonb)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case p_status
    when 'pending' then 'pending'
    when 'running' then case
      when p_progress ->> 'state' in ('downloading', 'verifying', 'installing') then p_progress ->> 'state' else 'pending'
    end
    when 'completed' then case when p_result ->> 'state' = 'skipped' then 'skipped' else 'succeeded' end
    when 'cancelled' then 'skipped'
    else 'failed'
  end
$$;

comment on function fleet.target_state(text, jsonb, jsonb) is
  'The state of a target: by its command''s status, what the device says while it runs, and what it answered.';
revoke all on function fleet.target_state(text, jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.bounded_number(p_value jsonb, p_most bigint)
returns bigint
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  -- A device may say anything; a number that is none is nothing.
  select case
    when jsonb_typeof(p_value) = 'number' and abs((p_value #>> '{}')::numeric) < 1e18
      then least(greatest(trunc((p_value #>> '{}')::numeric), 0), p_most)::bigint
  end
$$;

comment on function fleet.bounded_number(jsonb, bigint) is 'A whole number from 0 to p_most out of what a device says; null for anything else.';
revoke all on function fleet.bounded_number(jsonb, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.update_targets(p_command_ids bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  update public.deployment_targets as t
  set state = s.state,
      percent = case
        when s.state in ('succeeded', 'skipped') then 100
        when c.status = 'running' then coalesce(fleet.bounded_number(c.progress -> 'percent', 100)::smallint, t.percent)
        else t.percent
      end,
      bytes_done = coalesce(fleet.bounded_number(c.progress -> 'bytes_done', 1000000000000000), t.bytes_done),
      bytes_total = coalesce(fleet.bounded_number(c.progress -> 'bytes_total', 1000000000000000), t.bytes_total),
      reason = coalesce(c.reason, case when s.state = 'skipped' then left(c.result ->> 'reason', 255) end),
      error_message = c.error_message,
      started_at = coalesce(t.started_at, c.claimed_at),
      finished_at = c.executed_at,
      updated_at = clock_timestamp()
  from public.device_commands as c
  cross join lateral (select fleet.target_state(c.status, c.progress, c.result) as state) as s
  where c.id = any (p_command_ids)
    and t.command_id = c.id
    and t.state <> 'rolled_back';

  -- A later step of the run that came through has taken it back.
  update public.deployment_targets as t
  set state = 'rolled_back', updated_at = clock_timestamp()
  from public.device_commands as c
  join public.deployments as d on d.run_id = c.run_id
  where c.id = any (p_command_ids)
    and c.step > 0
    and c.status = 'completed'
    and t.deployment_id = d.id
    and t.device_id = c.device_id
$$;

comment on function fleet.update_targets(bigint[]) is 'Bring the targets of these commands to what the commands say.';
revoke all on function fleet.update_targets(bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.add_targets(p_command_ids bigint[])
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- Planned for each list of ids otherwise.
set plan_cache_mode = force_generic_plan
as $$
begin
  insert into public.deployments (owner_id, run_id, schedule_id, command_id, kind, name, manifest, paths)
  select g.owner_id, g.run_id, g.schedule_id, g.command_id, m.manifest ->> 'kind',
    left(coalesce(
      nullif(btrim(g.payload ->> 'deployment_name'), ''),
      (select s.name from public.schedules as s where s.id = g.schedule_id),
      g.command_type
    ), 200),
    m.manifest, fleet.paths_of_manifest(m.manifest)
  from (
    select distinct on (coalesce(c.run_id, -c.id)) c.owner_id, c.run_id, c.schedule_id, c.command_type, c.payload,
      case when c.run_id is null then c.id end as command_id
    from public.device_commands as c
    where c.id = any (p_command_ids)
    order by coalesce(c.run_id, -c.id), c.id
  ) as g
  cross join lateral (
    select case g.command_type
      when 'deploy_files' then fleet.files_manifest(g.owner_id, g.payload) else fleet.software_manifest(g.owner_id, g.payload)
    end as manifest
  ) as m
  on conflict do nothing;

  insert into public.deployment_targets (deployment_id, device_id, owner_id, device_hostname, command_id)
  select d.id, c.device_id, c.owner_id, c.device_hostname, c.id
  from public.device_commands as c
  join public.deployments as d on d.run_id = c.run_id
  where c.id = any (p_command_ids)
  union all
  select d.id, c.device_id, c.owner_id, c.device_hostname, c.id
  from public.device_commands as c
  join public.deployments as d on d.command_id = c.id
  where c.id = any (p_command_ids) and c.run_id is null
  on conflict do nothing;
end;
$$;

comment on function fleet.add_targets(bigint[]) is
  'Make a deployment of each run that sends software or files by these commands, and a target of each of them.';
revoke all on function fleet.add_targets(bigint[]) from public, anon, authenticated, service_role;

-- db/sources/48_deployments/35_addresses.sql
-- Addresses of files in a storage that speaks S3: signed here, for one object, for an hour.

create or replace function fleet.s3_address(
  p_url text, p_bucket text, p_region text, p_key_id text, p_secret text, p_path text, p_seconds integer, p_now timestamptz
)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_stamp text := to_char(p_now at time zone 'UTC', 'YYYYMMDD"T"HH24MISS"Z"');
  v_scope text := format('%s/%s/s3/aws4_request', left(v_stamp, 8), p_region);
  v_base text := rtrim(p_url, '/');
  v_host text := substring(v_base from '^https?://([^/]+)');
  v_resource text := format('%s/%s/%s', substring(v_base from '^https?://[^/]+(.*)$'), p_bucket, p_path);
  v_query text := format(
    'X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=%s&X-Amz-Date=%s&X-Amz-Expires=%s&X-Amz-SignedHeaders=host',
    replace(p_key_id || '/' || v_scope, '/', '%2F'), v_stamp, p_seconds
  );
  v_request text := concat_ws(e'\n', 'GET', v_resource, v_query, 'host:' || v_host, '', 'host', 'UNSIGNED-PAYLOAD');
  v_key bytea := convert_to('AWS4' || p_secret, 'UTF8');
  v_word text;
begin
  foreach v_word in array array[
    left(v_stamp, 8), p_region, 's3', 'aws4_request',
    concat_ws(e'\n', 'AWS4-HMAC-SHA256', v_stamp, v_scope, encode(sha256(convert_to(v_request, 'UTF8')), 'hex'))
  ] loop
    v_key := fleet.hmac_sha256(convert_to(v_word, 'UTF8'), v_key);
  end loop;
  return format(
    '%s%s?%s&X-Amz-Signature=%s', substring(v_base from '^https?://[^/]+'), v_resource, v_query, encode(v_key, 'hex')
  );
end;
$$;

comment on function fleet.s3_address(text, text, text, text, text, text, integer, timestamptz) is
  'An address from which anybody may read one object for so many seconds: the signature of AWS, version 4, in the query.';
revoke all on function fleet.s3_address(text, text, text, text, text, text, integer, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.file_addresses(p_paths text[], p_now timestamptz)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_url text := fleet.setting('files_s3_url') #>> '{}';
  v_key_id text := fleet.setting('files_s3_key_id') #>> '{}';
  v_secret text;
begin
  if v_url is null then
    return null;
  end if;
  v_secret := fleet.stored_secret('pgfleet_files_s3');
  if v_key_id is null or v_secret is null then
    raise exception 'the files are in an S3 storage, and its key is not known here'
      using errcode = 'PT500', detail = 'storage_key_missing',
        hint = 'Set files_s3_key_id, and keep the secret as pgfleet_files_s3 in the vault or in pg_cron_secrets.';
  end if;
  return (
    select jsonb_object_agg(
      u.path,
      fleet.s3_address(
        v_url, fleet.setting('files_s3_bucket') #>> '{}', fleet.setting('files_s3_region') #>> '{}', v_key_id, v_secret, u.path, 3600, p_now
      )
    )
    from unnest(p_paths) as u(path)
  );
end;
$$;

comment on function fleet.file_addresses(text[], timestamptz) is
  'Signed addresses of these objects, where the setting files_s3_url names a storage; null where the storage of the project has them. Raises '
  'storage_key_missing (PT500).';
revoke all on function fleet.file_addresses(text[], timestamptz) from public, anon, authenticated, service_role;

-- db/sources/48_deployments/40_device.sql
-- What a device may know of a deployment: its manifest, and the bytes of its files.

create or replace function fleet.deployment_manifest(p_command_id bigint)
returns jsonb
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device_id bigint := fleet.require_device();
  v_manifest jsonb;
  v_addresses jsonb;
begin
  select case
      -- A later step of a run sends something else than its first.
      when c.step = 0 then d.manifest
      when c.command_type = 'deploy_files' then fleet.files_manifest(c.owner_id, c.payload)
      else fleet.software_manifest(c.owner_id, c.payload)
    end || jsonb_build_object('deployment_id', d.id, 'bucket', 'pgfleet', 'platform', v.platform)
  into v_manifest
  from public.device_commands as c
  join public.devices as v on v.id = c.device_id
  left join public.deployments as d on d.run_id = c.run_id or d.command_id = c.id
  where c.id = p_command_id
    and c.device_id = v_device_id
    and fleet.is_deploy_type(c.command_type)
    and c.status in ('pending', 'running');
  if v_manifest is null then
    perform fleet.raise_not_found(format('deployment command %s', p_command_id));
  end if;
  v_addresses := fleet.file_addresses(fleet.paths_of_manifest(v_manifest), now());
  return v_manifest || case when v_addresses is null then '{}' else jsonb_build_object('addresses', v_addresses) end;
end;
$$;

comment on function fleet.deployment_manifest(bigint) is 'See public.deployment_manifest. Definer: a device may not read the deployments.';
revoke all on function fleet.deployment_manifest(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.deployment_manifest(bigint) to authenticated, service_role;

create or replace function public.deployment_manifest(p_command_id bigint)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.deployment_manifest(p_command_id)
$$;

comment on function public.deployment_manifest(bigint) is
  'What a device is to fetch and do for one of its commands: {kind, bucket, files or packages in order, …}, each file with size, sha256 and its '
  'path in the bucket, for which the device signs an address itself, unless addresses has one for it, good for an hour. Raises not_a_device (PT403) or deployment_command_not_found (PT404).';
revoke all on function public.deployment_manifest(bigint) from public, anon, authenticated, service_role;
grant execute on function public.deployment_manifest(bigint) to authenticated, service_role;

create or replace function fleet.may_read_object(p_name text)
returns boolean
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device_id bigint := fleet.current_device_id();
begin
  if v_device_id is null then
    return coalesce(fleet.try_uuid(split_part(p_name, '/', 1)) in (select o.id from fleet.my_owners() as o(id)), false);
  end if;
  -- Only while it is on its way to this device.
  return exists (
    select 1
    from public.device_commands as c
    join public.deployments as d on d.run_id = c.run_id or d.command_id = c.id
    where c.device_id = v_device_id
      and c.status in ('pending', 'running')
      and fleet.is_deploy_type(c.command_type)
      and (
        p_name = any (d.paths)
        or c.step > 0 and p_name = any (fleet.paths_of_manifest(fleet.deployment_manifest(c.id)))
      )
  );
end;
$$;

comment on function fleet.may_read_object(text) is
  'Whether the caller may read an object of the bucket pgfleet: a member of its owner, or a device to which it is on its way. Definer: row '
  'security of storage asks it.';
revoke all on function fleet.may_read_object(text) from public, anon, authenticated, service_role;
grant execute on function fleet.may_read_object(text) to authenticated, service_role;

create or replace function fleet.may_write_object(p_name text)
returns boolean
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Its name is its hash, below its owner: nothing else is kept there.
  return p_name ~ '^[0-9a-f-]{36}/[0-9a-f]{64}$'
    and coalesce(fleet.try_uuid(split_part(p_name, '/', 1)) in (select o.id from fleet.my_owners('manage') as o(id)), false);
end;
$$;

comment on function fleet.may_write_object(text) is
  'Whether the caller may write an object of the bucket pgfleet: who may manage its owner. Definer: row security of storage asks it.';
revoke all on function fleet.may_write_object(text) from public, anon, authenticated, service_role;
grant execute on function fleet.may_write_object(text) to authenticated, service_role;

-- db/sources/48_deployments/50_retry.sql
-- Once more for those on whom a deployment failed.

create or replace function fleet.retry_deployment(p_deployment_id bigint)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_deployment public.deployments;
  v_command public.device_commands;
  v_devices jsonb;
  v_id bigint;
begin
  select d.* into v_deployment
  from public.deployments as d
  where d.id = p_deployment_id and fleet.is_visible_owner(d.owner_id);
  if not found then
    perform fleet.raise_not_found(format('deployment %s', p_deployment_id));
  end if;
  perform fleet.require_permission(v_deployment.owner_id, 'manage', format('deployment %s', p_deployment_id));
  select jsonb_agg(t.device_id order by t.device_id), min(t.command_id) into v_devices, v_command.id
  from public.deployment_targets as t
  join public.devices as d on d.id = t.device_id and d.status = 'active'
  where t.deployment_id = p_deployment_id and t.state = 'failed';
  if v_devices is null then
    raise exception 'deployment % has failed on no device that is still there', p_deployment_id
      using errcode = 'PT409', detail = 'nothing_to_retry',
            hint = format('Look at its devices with: select * from deployment_target_list where deployment_id = %s', p_deployment_id);
  end if;
  select c.* into v_command from public.device_commands as c where c.id = v_command.id;
  v_id := fleet.store_schedule(fleet.changed_schedule(
    fleet.blank_schedule(v_deployment.owner_id),
    jsonb_build_object(
      'name', left(v_deployment.name, 180) || ' (again)', 'action_type', v_command.command_type, 'payload', v_command.payload,
      'device_ids', v_devices, 'priority', v_command.priority
    )
  ));
  -- Read in a statement of its own: this one does not see what it made.
  return fleet.schedule_answer(v_id);
end;
$$;

comment on function fleet.retry_deployment(bigint) is 'See public.retry_deployment. Definer: it checks the caller.';
revoke all on function fleet.retry_deployment(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.retry_deployment(bigint) to authenticated, service_role;

create or replace function public.retry_deployment(p_deployment_id bigint)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.retry_deployment(p_deployment_id)
$$;

comment on function public.retry_deployment(bigint) is
  'Send a deployment once more, at once, to the devices on which it failed: a schedule of its own. Answers it as create_schedule does. Raises '
  'deployment_not_found (PT404), permission_missing (PT403) or nothing_to_retry (PT409).';
revoke all on function public.retry_deployment(bigint) from public, anon, authenticated, service_role;
grant execute on function public.retry_deployment(bigint) to authenticated, service_role;

-- db/sources/48_deployments/views.sql
-- Packages, files and deployments as people list them.

drop view if exists public.file_list;
create view public.file_list with (security_invoker = true) as
select
  f.id, f.owner_id, f.name, f.size_bytes, f.sha256, f.storage_path, f.description,
  (select count(*) from public.software_packages as p where p.file_id = f.id) as packages,
  f.created_by, f.created_at
from public.deployment_files as f;

comment on view public.file_list is 'Files that can be sent to devices.';
comment on column public.file_list.packages is 'How many packages have it as their installer.';
select fleet.inherit_comments('public.file_list', 'public.deployment_files');
revoke all on table public.file_list from public, anon, authenticated, service_role;
grant select on table public.file_list to authenticated, service_role;

drop view if exists public.package_list;
create view public.package_list with (security_invoker = true) as
select
  p.id, p.owner_id, p.name, p.version, p.platform, p.description, p.file_id, f.name as file, p.install_command, p.uninstall_command,
  p.detection, p.dependencies, p.timeout_seconds, p.created_by, p.created_at, p.updated_at
from public.software_packages as p
left join public.deployment_files as f on f.id = p.file_id;

comment on view public.package_list is 'Software that can be installed, with the name of its installer.';
comment on column public.package_list.file is 'The name of the installer.';
select fleet.inherit_comments('public.package_list', 'public.software_packages');
revoke all on table public.package_list from public, anon, authenticated, service_role;
grant select on table public.package_list to authenticated, service_role;

drop view if exists public.deployment_list;
create view public.deployment_list with (security_invoker = true) as
select
  d.id, d.owner_id, d.name, d.kind, d.schedule_id, d.run_id, d.command_id,
  case
    when t.total = 0 or t.open > 0 then 'running'
    when t.failed > 0 then 'failed'
    when t.rolled_back > 0 then 'rolled_back'
    else 'completed'
  end as status,
  t.total, t.open, t.succeeded, t.failed, t.skipped, t.rolled_back, t.percent,
  d.manifest, d.created_at, t.finished_at
from public.deployments as d
cross join lateral (
  select count(*) as total,
    count(*) filter (where x.state in ('pending', 'downloading', 'verifying', 'installing')) as open,
    count(*) filter (where x.state = 'succeeded') as succeeded,
    count(*) filter (where x.state = 'failed') as failed,
    count(*) filter (where x.state = 'skipped') as skipped,
    count(*) filter (where x.state = 'rolled_back') as rolled_back,
    round(avg(case when x.finished_at is not null then 100 else coalesce(x.percent, 0) end), 1) as percent,
    max(x.finished_at) as finished_at
  from public.deployment_targets as x
  where x.deployment_id = d.id
) as t;

comment on view public.deployment_list is 'Deployments with how many devices are in which state.';
comment on column public.deployment_list.status is 'running, completed, failed (on some device), or rolled_back.';
comment on column public.deployment_list.total is 'How many devices it is for, as far as their commands are made.';
comment on column public.deployment_list.open is 'On how many it is under way or still to come.';
comment on column public.deployment_list.succeeded is 'On how many it is in place.';
comment on column public.deployment_list.failed is 'On how many it failed.';
comment on column public.deployment_list.skipped is 'How many did not need it, or were left out.';
comment on column public.deployment_list.rolled_back is 'From how many it was taken back.';
comment on column public.deployment_list.percent is 'How much of all of it is done.';
comment on column public.deployment_list.finished_at is 'When the last device came to its end.';
select fleet.inherit_comments('public.deployment_list', 'public.deployments');
revoke all on table public.deployment_list from public, anon, authenticated, service_role;
grant select on table public.deployment_list to authenticated, service_role;

drop view if exists public.deployment_target_list;
create view public.deployment_target_list with (security_invoker = true) as
select
  t.deployment_id, d.name as deployment, t.owner_id, t.device_id, t.device_hostname, t.command_id, t.state, t.percent, t.bytes_done,
  t.bytes_total, t.reason, t.error_message, t.started_at, t.finished_at, t.updated_at
from public.deployment_targets as t
join public.deployments as d on d.id = t.deployment_id;

comment on view public.deployment_target_list is 'How far each deployment got on each device.';
comment on column public.deployment_target_list.deployment is 'The name of the deployment.';
select fleet.inherit_comments('public.deployment_target_list', 'public.deployment_targets');
revoke all on table public.deployment_target_list from public, anon, authenticated, service_role;
grant select on table public.deployment_target_list to authenticated, service_role;

-- db/sources/48_deployments/triggers.sql
-- What holds for packages and files however a row is written, and what makes and moves the targets of a deployment.

create or replace trigger deployment_files_01_fill_owner
  before insert on public.deployment_files
  for each row execute function fleet.tg_owner_from_caller();
create or replace trigger software_packages_01_fill_owner
  before insert on public.software_packages
  for each row execute function fleet.tg_owner_from_caller();

create or replace function fleet.tg_prepare_file()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  new.created_by := fleet.current_user_id();
  perform fleet.require_permission(new.owner_id, 'manage', format('owner %s', new.owner_id));
  perform fleet.raise_problems('the file', 'file_invalid', array(
    select ('name', 'is not one plain name', 'Write a name without a folder, like "app.conf".')::fleet.problem
    where coalesce(new.name, '') ~ '[/\\:*?"<>|]' or fleet.has_unseen(new.name) or coalesce(new.name, '') ~ '^[. -]|[. ]$|^$'
    union all
    select q from fleet.path_problems('name', '/' || new.name) as q where new.name !~ '[/\\]' and not fleet.has_unseen(new.name)
    union all
    select ('size_bytes', 'is not a number of bytes from 0 to 53687091200', 'At most 50 GiB are taken.')::fleet.problem
    where (new.size_bytes between 0 and 53687091200) is not true
    union all
    select ('sha256', 'is not 64 hexadecimal digits in lower case', 'Take the answer of: sha256sum FILE')::fleet.problem
    where (new.sha256 ~ '^[0-9a-f]{64}$') is not true
    union all
    -- A name that Windows keeps for itself is none anywhere: the same file may go to every platform.
    select q from fleet.path_problems('name', 'C:\' || new.name) as q
    where new.name !~ '[/\\:*?"<>|]|^[. -]|[. ]$' and not fleet.has_unseen(new.name) and length(new.name) <= 255
  ));
  return new;
end;
$$;

comment on function fleet.tg_prepare_file() is
  'Refuse names that would be more than a name on some device. Definer: it checks the caller, and whoever writes the table may not call it.';
revoke all on function fleet.tg_prepare_file() from public, anon, authenticated, service_role;

create or replace trigger deployment_files_02_prepare
  before insert or update of name on public.deployment_files
  for each row execute function fleet.tg_prepare_file();

create or replace function fleet.tg_prepare_package()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'INSERT' then
    new.created_by := fleet.current_user_id();
  end if;
  new.updated_at := now();
  new.dependencies := array(select distinct u.id from unnest(new.dependencies) as u(id) where u.id is not null order by u.id);
  perform fleet.require_permission(new.owner_id, 'manage', format('owner %s', new.owner_id));
  perform fleet.raise_problems('the package', 'package_invalid', array(select q from fleet.package_problems(new) as q));
  return new;
end;
$$;

comment on function fleet.tg_prepare_package() is
  'Check a package however it is written. Definer: it checks the caller, then sees what the checks need to see.';
revoke all on function fleet.tg_prepare_package() from public, anon, authenticated, service_role;

create or replace trigger software_packages_02_prepare
  before insert or update of name, version, platform, file_id, install_command, uninstall_command, detection, dependencies,
    timeout_seconds
  on public.software_packages
  for each row execute function fleet.tg_prepare_package();

create or replace function fleet.tg_check_dependencies()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Two sessions that each let one package need the other would not see the circle they make.
  perform pg_advisory_xact_lock(hashtext('pgfleet.packages'), hashtext(new.owner_id::text));
  if fleet.packages_in_order(new.owner_id, array[new.id]) is null then
    raise exception 'the package is not valid: dependencies: need the package itself in the end, or go deeper than 50 levels'
      using errcode = 'PT422', detail = 'package_invalid', hint = 'Take the last one out that was added.';
  end if;
  return null;
end;
$$;

comment on function fleet.tg_check_dependencies() is
  'Refuse packages that need themselves. Definer: whoever may write the table may not call what it checks with.';
revoke all on function fleet.tg_check_dependencies() from public, anon, authenticated, service_role;

create or replace trigger software_packages_03_check_dependencies
  after insert or update of dependencies on public.software_packages
  for each row when (new.dependencies <> '{}') execute function fleet.tg_check_dependencies();

create or replace function fleet.tg_keep_used_artifact()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_names text := fleet.deploy_schedules_with(old.owner_id, tg_argv[0], old.id);
begin
  if tg_argv[0] = 'software_ids' and v_names is null then
    select string_agg(format('package "%s"', p.name), ', ' order by p.name) into v_names
    from public.software_packages as p
    where p.owner_id = old.owner_id and old.id = any (p.dependencies);
  elsif v_names is null then
    select string_agg(format('package "%s"', p.name), ', ' order by p.name) into v_names
    from public.software_packages as p
    where p.owner_id = old.owner_id and p.file_id = old.id;
  end if;
  -- With its owner everything goes.
  if v_names is not null and exists (select 1 from public.owners as o where o.id = old.owner_id) then
    raise exception '"%" is used by %', old.name, v_names
      using errcode = 'PT409', detail = 'artifact_in_use', hint = 'Change or cancel these first.';
  end if;
  return old;
end;
$$;

comment on function fleet.tg_keep_used_artifact() is
  'Keep files and packages that schedules or packages rely on. Definer: it looks at all schedules of the owner.';
revoke all on function fleet.tg_keep_used_artifact() from public, anon, authenticated, service_role;

create or replace trigger deployment_files_04_keep_used
  before delete on public.deployment_files
  for each row execute function fleet.tg_keep_used_artifact('file_ids');
create or replace trigger software_packages_04_keep_used
  before delete on public.software_packages
  for each row execute function fleet.tg_keep_used_artifact('software_ids');

create or replace function fleet.tg_wait_for_deployment()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'UPDATE' and old.not_before < fleet.held_until() then
    return new;
  end if;
  -- One at a time on a device, whatever schedules they are of. What a rollout holds is waited for by nobody: it may be held for weeks,
  -- and takes its place when it has its turn.
  new.waits_for := (
    select c.id
    from public.device_commands as c
    where c.device_id = new.device_id
      and c.status in ('pending', 'running')
      and c.command_type in ('deploy_software', 'deploy_files')
      and c.not_before < fleet.held_until()
      and c.id <> new.id
    order by c.created_at desc, c.id desc
    limit 1
  );
  return new;
end;
$$;

comment on function fleet.tg_wait_for_deployment() is
  'Let a deployment wait for the one before it on its device. Definer: whoever may send may not see all commands.';
revoke all on function fleet.tg_wait_for_deployment() from public, anon, authenticated, service_role;

create or replace trigger device_commands_01_wait_for_deployment
  before insert on public.device_commands
  for each row when (
    new.command_type in ('deploy_software', 'deploy_files') and new.waits_for is null and (new.wave is null or new.step > 0)
  )
  execute function fleet.tg_wait_for_deployment();
create or replace trigger device_commands_01_wait_when_released
  before update of not_before on public.device_commands
  for each row when (
    new.command_type in ('deploy_software', 'deploy_files') and new.waits_for is null and new.wave is not null and new.step = 0
  )
  execute function fleet.tg_wait_for_deployment();

create or replace function fleet.tg_delete_targets()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from public.deployments as d using old_rows as o where d.command_id = o.id;
  delete from public.deployment_targets as t using old_rows as o where t.command_id = o.id;
  return null;
end;
$$;

comment on function fleet.tg_delete_targets() is 'Targets go with their commands. Definer: nobody writes them.';
revoke all on function fleet.tg_delete_targets() from public, anon, authenticated, service_role;

create or replace trigger device_commands_07_delete_targets
  after delete on public.device_commands
  referencing old table as old_rows
  for each statement execute function fleet.tg_delete_targets();

select fleet.keep_audit('public.deployment_files');
select fleet.keep_audit('public.software_packages', p_without => '{created_at,updated_at}');

-- db/sources/48_deployments/access.sql
-- Who sees and changes packages, files and deployments: the people of the owner. A device reads its manifest by a function, and from the
-- bucket what is on its way to it.

revoke all on table public.deployment_files, public.software_packages, public.deployments, public.deployment_targets
  from public, anon, authenticated, service_role;
revoke all on sequence public.deployment_files_id_seq, public.software_packages_id_seq, public.deployments_id_seq
  from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.deployment_files, public.software_packages to service_role;
-- What is sent and how far it got is written by triggers alone.
grant select on table public.deployments, public.deployment_targets to service_role;
grant usage, select on sequence public.deployment_files_id_seq, public.software_packages_id_seq to service_role;

drop policy if exists deployment_files_all_service_role on public.deployment_files;
create policy deployment_files_all_service_role on public.deployment_files for all to service_role using (true) with check (true);
drop policy if exists software_packages_all_service_role on public.software_packages;
create policy software_packages_all_service_role on public.software_packages for all to service_role using (true) with check (true);
drop policy if exists deployments_select_service_role on public.deployments;
create policy deployments_select_service_role on public.deployments for select to service_role using (true);
drop policy if exists deployment_targets_select_service_role on public.deployment_targets;
create policy deployment_targets_select_service_role on public.deployment_targets for select to service_role using (true);

grant select, delete on table public.deployment_files, public.software_packages to authenticated;
grant insert (owner_id, name, size_bytes, sha256, description), update (description) on table public.deployment_files to authenticated;
grant insert (
    owner_id, name, version, platform, description, file_id, install_command, uninstall_command, detection, dependencies, timeout_seconds
  ),
  update (
    name, version, platform, description, file_id, install_command, uninstall_command, detection, dependencies, timeout_seconds
  )
  on table public.software_packages to authenticated;
grant select on table public.deployments, public.deployment_targets to authenticated;

drop policy if exists deployment_files_select_member on public.deployment_files;
create policy deployment_files_select_member on public.deployment_files
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists deployment_files_insert_manager on public.deployment_files;
create policy deployment_files_insert_manager on public.deployment_files
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists deployment_files_update_manager on public.deployment_files;
create policy deployment_files_update_manager on public.deployment_files
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists deployment_files_delete_manager on public.deployment_files;
create policy deployment_files_delete_manager on public.deployment_files
  for delete to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists software_packages_select_member on public.software_packages;
create policy software_packages_select_member on public.software_packages
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists software_packages_insert_manager on public.software_packages;
create policy software_packages_insert_manager on public.software_packages
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists software_packages_update_manager on public.software_packages;
create policy software_packages_update_manager on public.software_packages
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists software_packages_delete_manager on public.software_packages;
create policy software_packages_delete_manager on public.software_packages
  for delete to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists deployments_select_member on public.deployments;
create policy deployments_select_member on public.deployments
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists deployment_targets_select_member on public.deployment_targets;
create policy deployment_targets_select_member on public.deployment_targets
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

-- The bytes are in the bucket pgfleet; the tables of the storage belong to it. Where there is none, another store keeps them.
do $$
begin
  if to_regclass('storage.objects') is null then
    return;
  end if;
  insert into storage.buckets (id, name, public) values ('pgfleet', 'pgfleet', false) on conflict do nothing;
  execute 'drop policy if exists pgfleet_objects_select_member_or_device on storage.objects';
  execute $policy$
    create policy pgfleet_objects_select_member_or_device on storage.objects
      for select to authenticated using (bucket_id = 'pgfleet' and (select fleet.may_read_object(name)))
  $policy$;
  execute 'drop policy if exists pgfleet_objects_insert_manager on storage.objects';
  execute $policy$
    create policy pgfleet_objects_insert_manager on storage.objects
      for insert to authenticated with check (bucket_id = 'pgfleet' and (select fleet.may_write_object(name)))
  $policy$;
  execute 'drop policy if exists pgfleet_objects_update_manager on storage.objects';
  execute $policy$
    create policy pgfleet_objects_update_manager on storage.objects
      for update to authenticated
      using (bucket_id = 'pgfleet' and (select fleet.may_write_object(name)))
      with check (bucket_id = 'pgfleet' and (select fleet.may_write_object(name)))
  $policy$;
  execute 'drop policy if exists pgfleet_objects_delete_manager on storage.objects';
  execute $policy$
    create policy pgfleet_objects_delete_manager on storage.objects
      for delete to authenticated using (bucket_id = 'pgfleet' and (select fleet.may_write_object(name)))
  $policy$;
end;
$$;

set check_function_bodies = on;
reset search_path;
