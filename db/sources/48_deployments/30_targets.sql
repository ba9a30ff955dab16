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
