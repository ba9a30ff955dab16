-- How is it going: one look at the whole.

create or replace function fleet.engine_status(p_now timestamptz)
returns jsonb
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_jobs jsonb;
  v_cron boolean := exists (select 1 from pg_catalog.pg_extension where extname = 'pg_cron');
begin
  if v_cron then
    execute $query$
      select jsonb_object_agg(j.jobname, jsonb_build_object('active', j.active, 'last', (
        select d.status from cron.job_run_details as d
        where d.jobid = j.jobid and d.status <> 'running' order by d.runid desc limit 1
      )))
      from cron.job as j
      where j.jobname like 'pgfleet-%'
    $query$ into v_jobs;
  end if;

  return (
    select jsonb_build_object(
      'last_tick_at', h.last_tick_at,
      'tick_age_seconds', round(extract(epoch from p_now - h.last_tick_at)::numeric, 1),
      'is_ticking', coalesce(h.last_tick_at > p_now - interval '10 seconds', false),
      'tick_ms', h.tick_ms,
      -- The words of an error may quote anybody's data.
      'last_error', case when fleet.is_trusted_caller() then h.last_error end,
      'last_error_at', h.last_error_at,
      'steps', (
        select coalesce(jsonb_agg(case when fleet.is_trusted_caller() then s.step else s.step - 'error' end order by s.n), '[]')
        from jsonb_array_elements(h.steps) with ordinality as s(step, n)
      ),
      'pg_cron', v_cron,
      'jobs', coalesce(v_jobs, '{}'),
      'doorbells_waiting', (select count(*) from fleet.doorbells as b where b.ring_at <= p_now)
    )
    from fleet.heartbeat as h
  );
end;
$$;

comment on function fleet.engine_status(timestamptz) is
  'Heartbeat, steps of the tick, jobs and waiting doorbells. Definer: people may not read the engine''s tables; nothing here is anybody''s data.';
revoke all on function fleet.engine_status(timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.engine_status(timestamptz) to authenticated, service_role;

create or replace function public.fleet_status(p_now timestamptz default now())
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Row security limits the counts to the caller's own; a device, retired or not, counts as nobody.
  if fleet.current_user_id() is null and not fleet.is_trusted_caller() then
    raise exception 'a device may not do this'
      using errcode = 'PT403', detail = 'not_a_person', hint = 'Sign in as a member of the fleet.';
  end if;

  return jsonb_build_object(
    'now', p_now,
    'devices', (
      select jsonb_build_object(
        'active', count(*) filter (where d.status = 'active'),
        'enrolled', count(*) filter (where d.status = 'active' and d.enrolled_at is not null),
        'seen_last_hour', count(*) filter (where d.status = 'active' and d.last_seen > p_now - interval '1 hour'),
        'seen_last_day', count(*) filter (where d.status = 'active' and d.last_seen > p_now - interval '1 day'),
        'retired', count(*) filter (where d.status = 'retired')
      )
      from public.devices as d
    ),
    'schedules', (
      select jsonb_build_object(
        'active', count(*) filter (where s.status = 'active'),
        'paused', count(*) filter (where s.status = 'paused'),
        'due', count(*) filter (where s.status = 'active' and s.next_run_at <= p_now),
        'next_run_at', min(s.next_run_at) filter (where s.status = 'active')
      )
      from public.schedules as s
    ),
    'runs_last_day', (
      select jsonb_build_object(
        'completed', count(*) filter (where r.status = 'completed'),
        'failed', count(*) filter (where r.status = 'failed'),
        'skipped', count(*) filter (where r.status = 'skipped'),
        'running', count(*) filter (where r.status in ('pending', 'running'))
      )
      from public.schedule_runs as r
      where r.created_at > p_now - interval '1 day'
    ),
    'commands', (
      select jsonb_build_object(
        'pending', count(*) filter (where c.status = 'pending'),
        'running', count(*) filter (where c.status = 'running'),
        'completed_last_day', count(*) filter (where c.status = 'completed'),
        'failed_last_day', count(*) filter (where c.status in ('failed', 'expired'))
      )
      from public.device_commands as c
      where c.status in ('pending', 'running') or c.executed_at > p_now - interval '1 day'
    ),
    'engine', fleet.engine_status(p_now)
  );
end;
$$;

comment on function public.fleet_status(timestamptz) is
  'The fleet at a glance: {devices, schedules, runs_last_day, commands, engine}. Raises not_a_person (PT403).';
revoke all on function public.fleet_status(timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.fleet_status(timestamptz) to authenticated, service_role;

create or replace function fleet.worker_health(p_now timestamptz default now())
returns jsonb
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'ok', coalesce(h.last_tick_at > p_now - interval '60 seconds', false),
    'last_tick_at', h.last_tick_at,
    'tick_age_seconds', round(extract(epoch from p_now - h.last_tick_at)::numeric, 1)
  )
  from fleet.heartbeat as h
$$;

comment on function fleet.worker_health(timestamptz) is
  'Whether the database ticks: {ok, last_tick_at, tick_age_seconds}. Definer: the worker reads no table.';
revoke all on function fleet.worker_health(timestamptz) from public, anon, authenticated, service_role;
