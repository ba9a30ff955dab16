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
