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
