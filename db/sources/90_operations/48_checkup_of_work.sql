-- Is the platform well: devices, schedules and commands, the systems beside it, and the verbs that people call.

create or replace function fleet.check_work(p_now timestamptz)
returns table (name text, state text, found text, hint text, can_be_repaired boolean)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count bigint;
  v_other bigint;
  v_text text;
begin
  select count(*), string_agg(format('"%s": %s', x.name, x.status_reason), '; ' order by x.updated_at desc) filter (where x.n <= 3)
  into v_count, v_text
  from (
    select s.name, s.status_reason, s.updated_at, row_number() over (order by s.updated_at desc) as n
    from public.schedules as s where s.status = 'paused' and s.status_reason is not null
  ) as x;
  return query select * from fleet.check_result('paused_for_faults',
    case when v_count > 0 then 'warning' end,
    format('%s paused by the engine: %s', fleet.counted(v_count, 'schedule was', 'schedules were'), v_text),
    'Change what is wrong, then: select resume_schedule(…)');

  v_count := fleet.doorbells_waiting(p_now - interval '1 minute');
  return query select * from fleet.check_result('doorbells',
    case when v_count > 0 then 'warning' end,
    format('%s for more than a minute', fleet.counted(v_count, 'device was to be told', 'devices were to be told')),
    'They find their commands at their next look. More at a time: select fleet.set_setting(''doorbell_rate'', ''2000'')');

  select count(*) into v_count
  from public.device_commands as c where c.status = 'running' and c.lease_expires_at < p_now - interval '5 minutes';
  return query select * from fleet.check_result('leases',
    case when v_count > 0 then 'broken' end,
    format('%s running though the lease ran out more than five minutes ago', fleet.counted(v_count, 'command is', 'commands are')),
    'A step of the tick takes them back; see whether it fails: select fleet_status() -> ''engine'' -> ''steps''');

  select count(*), count(distinct c.device_id) into v_count, v_other
  from public.device_commands as c
  join public.devices as d on d.id = c.device_id
  where c.status = 'pending' and c.channel = 'agent' and c.not_before < p_now - interval '1 hour' and c.waits_for is null
    and d.last_seen > p_now - interval '10 minutes';
  return query select * from fleet.check_result('claims',
    case when v_count > 0 then 'warning' end,
    format('%s waiting for an hour, though the %s seen since', fleet.counted(v_count, 'command is', 'commands are'),
      fleet.counted(v_other, 'device was', 'devices were')),
    'Their agents ask and do not claim; look at the log of one of them');

  select count(*) filter (where c.status in ('failed', 'expired')), count(*) into v_count, v_other
  from public.device_commands as c
  where c.executed_at > p_now - interval '1 day' and c.status in ('completed', 'failed', 'expired');
  return query select * from fleet.check_result('commands_succeed',
    case when v_other >= 20 and v_count > 0.2 * v_other then 'warning' end,
    format('%s of %s commands of the last day failed or expired', v_count, v_other),
    'See why: select * from command_list where status = ''failed''');

  select count(*), min(d.hostname) into v_count, v_text from public.devices as d where d.clone_seen_at is not null and d.status = 'active';
  return query select * from fleet.check_result('clones',
    case when v_count > 0 then 'warning' end,
    format('two agents use the secret of %s', case when v_count = 1 then v_text else v_count || ' devices' end),
    'A disk was copied; enrol one of the two anew: select * from device_list where clone_seen_at is not null');
end;
$$;

comment on function fleet.check_work(timestamptz) is 'Checks of schedules, commands and devices.';
revoke all on function fleet.check_work(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.check_others(p_now timestamptz)
returns table (name text, state text, found text, hint text, can_be_repaired boolean)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count bigint;
  v_refused bigint;
  v_silent bigint;
  v_text text;
begin
  select count(*) into v_count from (
    select from public.device_integrations as i where i.status = 'active'
    union all
    select from public.webhook_endpoints as e where e.enabled
  ) as x;
  return query select * from fleet.check_result('functions_url',
    case when v_count > 0 and fleet.setting('functions_url') = 'null' then 'warning' end,
    format('%s the HTTP functions, whose address is not set', fleet.counted(v_count, 'integration or webhook needs', 'integrations and webhooks need')),
    'Functions that run all the time hear of work without it; those that sleep do not: select fleet.set_setting(''functions_url'', ''"https://…"'')');

  select count(*), count(*) filter (where l.status = 429), count(*) filter (where l.status is null) into v_count, v_refused, v_silent
  from public.mdm_api_logs as l where l.created_at > p_now - interval '1 hour' and l.method is not null;
  return query select * from fleet.check_result('rate_limits',
    case when v_refused >= 5 and v_refused > 0.02 * v_count then 'warning' end,
    format('%s of %s calls of the last hour were refused as too many', v_refused, v_count),
    'Lower rate_per_second in the settings of the integration');
  return query select * from fleet.check_result('providers_answer',
    case when v_silent >= 5 and v_silent > 0.2 * v_count then 'warning' end,
    format('%s of %s calls of the last hour had no answer', v_silent, v_count),
    'mdm_api_logs has them, without a status');

  select count(*), min(i.name) into v_count, v_text
  from public.device_integrations as i where i.status = 'active' and i.last_sync_at < p_now - interval '1 hour';
  return query select * from fleet.check_result('syncs',
    case when v_count > 0 then 'warning' end,
    format('%s not been read for an hour, "%s" among them', fleet.counted(v_count, 'integration has', 'integrations have'), v_text),
    'integration_activity_log has what the last sync said');

  select count(*), min(c.not_before)::text into v_count, v_text
  from public.device_commands as c
  where c.status = 'pending' and c.channel = 'mdm' and c.not_before < p_now - interval '10 minutes' and c.waits_for is null;
  return query select * from fleet.check_result('mdm_commands',
    case when v_count > 0 then 'warning' end,
    format('%s waiting for an MDM for more than ten minutes, the oldest since %s', fleet.counted(v_count, 'command is', 'commands are'), v_text),
    'The HTTP functions take them, at the rate of the integration; see whether they run');

  select count(*) into v_count
  from public.webhook_deliveries as d where d.status in ('pending', 'running') and d.created_at < p_now - interval '10 minutes' and d.attempts = 0;
  return query select * from fleet.check_result('deliveries',
    case when v_count > 0 then 'warning' end,
    format('%s waiting for more than ten minutes without a first try', fleet.counted(v_count, 'message is', 'messages are')),
    'The HTTP functions deliver them; see whether they run');
end;
$$;

comment on function fleet.check_others(timestamptz) is 'Checks of integrations, webhooks and the HTTP functions.';
revoke all on function fleet.check_others(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.checkup(p_now timestamptz)
returns table (area text, name text, state text, found text, hint text, can_be_repaired boolean)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select c.area, r.*
  from fleet.common_checks(fleet.engine_status(p_now), fleet.zone_status(), p_now) as c
  cross join lateral fleet.check_result(c.name, c.state, c.found, c.hint) as r
  union all
  select 'engine', c.* from fleet.check_engine(p_now) as c
  union all
  select 'shell', c.* from fleet.check_shell() as c
  union all
  select 'database', c.* from fleet.check_database(p_now) as c
  union all
  select 'work', c.* from fleet.check_work(p_now) as c
  union all
  select 'others', c.* from fleet.check_others(p_now) as c;
end;
$$;

comment on function fleet.checkup(timestamptz) is
  'See public.fleet_checkup. Definer: for the service role, which runs the platform; what is found may name anybody''s.';
revoke all on function fleet.checkup(timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.checkup(timestamptz) to service_role;

create or replace function public.fleet_checkup(p_now timestamptz default now())
returns table (area text, name text, state text, found text, hint text, can_be_repaired boolean)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query select * from fleet.checkup(p_now);
end;
$$;

comment on function public.fleet_checkup(timestamptz) is
  'Every check of the platform as a row, for the service role: {area, name, state: ok, warning, broken or unknown, found, hint, can_be_repaired}. It '
  'changes nothing.';
revoke all on function public.fleet_checkup(timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.fleet_checkup(timestamptz) to service_role;

create or replace function public.fleet_repair(p_name text)
returns text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  case p_name
    when 'jobs' then
      -- What is switched off is there, and would be taken for what is wanted.
      if exists (select 1 from fleet.job_faults()) then
        execute 'select cron.unschedule(j.jobid) from cron.job as j join fleet.job_faults() as f on f.name = j.jobname where j.username = current_user';
      end if;
      perform fleet.sync_jobs();
    when 'publication' then perform fleet.sync_publication();
    when 'functions_login' then perform fleet.grant_worker();
    when 'partitions' then perform fleet.tend_telemetry();
    else
      raise exception 'the check "%" has no repair of its own', coalesce(p_name, '')
        using errcode = 'PT422', detail = 'repair_unknown',
          hint = 'These have: jobs, publication, functions_login, partitions. What to do about another says its hint: select * from fleet_checkup()';
  end case;
  return p_name;
end;
$$;

comment on function public.fleet_repair(text) is
  'Mend what a check found, where that is safe at any time: jobs, publication, functions_login or partitions. For the owner of the schema. Raises '
  'repair_unknown (PT422).';
revoke all on function public.fleet_repair(text) from public, anon, authenticated, service_role;
