-- Generated from db/sources/90_operations by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/90_operations/10_tick.sql
-- The tick: the only scheduler. Everything that time decides happens here.

create or replace function fleet.tick(p_now timestamptz default now())
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  v_started timestamptz := clock_timestamp();
  v_acted integer := 0;
  v_runs bigint[] := '{}';
  v_expanded jsonb := '{}';
  v_swept integer := 0;
  v_settled integer := 0;
  v_rung integer := 0;
  v_errors text[] := '{}';
begin
  -- A migration holds this lock alone: new tables must not meet old functions.
  if not pg_try_advisory_xact_lock_shared(hashtext('pgfleet.migrate')) then
    return jsonb_build_object('skipped', 'a migration is running');
  end if;

  perform set_config('pgfleet.is_ticking', 'yes', true);
  -- Each step by itself: a fault in one of them must not stop the others.
  begin
    v_acted := fleet.tend_places(p_now);
  exception when others then
    v_errors := v_errors || ('places: ' || sqlerrm);
  end;
  begin
    v_runs := fleet.start_due_runs(p_now);
  exception when others then
    v_errors := v_errors || ('start: ' || sqlerrm);
  end;
  begin
    v_expanded := fleet.expand_next(p_now);
  exception when others then
    v_errors := v_errors || ('expand: ' || sqlerrm);
  end;
  begin
    v_swept := fleet.sweep_commands(p_now);
  exception when others then
    v_errors := v_errors || ('sweep: ' || sqlerrm);
  end;
  begin
    v_settled := fleet.settle_runs(p_now);
  exception when others then
    v_errors := v_errors || ('settle: ' || sqlerrm);
  end;
  begin
    v_rung := fleet.ring_doorbells(p_now);
  exception when others then
    v_errors := v_errors || ('ring: ' || sqlerrm);
  end;
  begin
    perform fleet.poke_notify(p_now);
    perform fleet.poke_mdm(p_now);
  exception when others then
    v_errors := v_errors || ('poke: ' || sqlerrm);
  end;

  perform set_config('pgfleet.is_ticking', 'no', true);

  -- Two ticks at once never wait for each other, not even to say that they are there.
  update fleet.heartbeat as h
  set last_tick_at = p_now,
      tick_count = h.tick_count + 1,
      tick_ms = round((extract(epoch from clock_timestamp() - v_started) * 1000)::numeric, 1),
      last_error = case when v_errors = '{}' then h.last_error else array_to_string(v_errors, '; ') end,
      last_error_at = case when v_errors = '{}' then h.last_error_at else p_now end
  where h.id in (select b.id from fleet.heartbeat as b for update skip locked);

  return v_expanded || jsonb_build_object(
    'runs', cardinality(v_runs),
    'swept', v_swept,
    'settled', v_settled,
    'rung', v_rung,
    'errors', to_jsonb(v_errors),
    'more', coalesce((v_expanded ->> 'more')::boolean, false)
      or cardinality(v_runs) >= 2000
      -- Only after some progress: what another session holds must not keep this one spinning.
      or (v_acted > 0 and exists (select 1 from public.location_events as e where e.acted_at is null))
  );
end;
$$;

comment on function fleet.tick(timestamptz) is
  'One step of the scheduler: start what is due, expand a chunk, end leases, settle runs, ring doorbells, poke functions that have work. {runs, commands, swept, '
  'settled, rung, errors, more}; more says that another tick has work at once. Any number of sessions may tick.';
revoke all on function fleet.tick(timestamptz) from public, anon, authenticated, service_role;

-- A procedure that commits can have no SET clause, so every name in it is qualified.
create or replace procedure fleet.tick_minute()
language plpgsql
as $$
declare
  v_next timestamptz;
  v_last timestamptz;
  v_result jsonb;
  v_waited integer := 0;
begin
  -- One ticker at a time. The one before leaves within a second of its last tick; until then this one waits, so that the
  -- hand-over leaves no gap.
  while not pg_catalog.pg_try_advisory_lock(pg_catalog.hashtext('pgfleet.ticker')) loop
    if v_waited >= 50 then
      return;
    end if;
    v_waited := v_waited + 1;
    perform pg_catalog.pg_sleep(0.1);
    commit;
  end loop;

  v_next := pg_catalog.date_trunc('second', pg_catalog.clock_timestamp());
  v_last := pg_catalog.date_trunc('minute', pg_catalog.clock_timestamp()) + interval '1 minute';
  loop
    exit when fleet.setting('ticker_enabled') = 'false'::pg_catalog.jsonb;
    begin
      v_result := fleet.tick(pg_catalog.clock_timestamp());
    exception when others then
      v_result := '{}';
      update fleet.heartbeat set last_error = sqlerrm, last_error_at = pg_catalog.clock_timestamp();
    end;
    commit;
    continue when coalesce((v_result ->> 'more')::boolean, false) and pg_catalog.clock_timestamp() <= v_last;

    -- From the second before, not from the clock: a slow commit delays one tick and skips none.
    v_next := greatest(
      v_next + interval '1 second',
      pg_catalog.date_trunc('second', pg_catalog.clock_timestamp())
    );
    exit when v_next > v_last;
    -- Never longer than a second, even when the clock was set back.
    perform pg_catalog.pg_sleep(
      least(1, greatest(0, extract(epoch from v_next - pg_catalog.clock_timestamp())))::double precision
    );
    commit;
  end loop;
  perform pg_catalog.pg_advisory_unlock(pg_catalog.hashtext('pgfleet.ticker'));
end;
$$;

comment on procedure fleet.tick_minute() is
  'Tick on every whole second up to the next minute, each in its own transaction. The only statement of its pg_cron jobs, because it '
  'commits. The setting ticker_enabled stops it.';
revoke all on procedure fleet.tick_minute() from public, anon, authenticated, service_role;

-- db/sources/90_operations/20_jobs.sql
-- The pg_cron jobs, and what every migrate does last.

create or replace function fleet.jobs()
returns table (name text, schedule text, command text)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  values
    ('pgfleet-tick', '* * * * *', 'call fleet.tick_minute()'),
    -- After a restart of the server the ticks go on at once, not with the next minute.
    ('pgfleet-tick-boot', '@reboot', 'call fleet.tick_minute()'),
    -- By itself, since it looks at every device that a profile is assigned to: no tick waits for it.
    ('pgfleet-tend-mdm', '* * * * *', 'select fleet.tend_mdm()'),
    ('pgfleet-prune-history', '17 3 * * *', 'call fleet.prune_history()')
$$;

comment on function fleet.jobs() is 'The pg_cron jobs: a fixed set, however many schedules there are.';
revoke all on function fleet.jobs() from public, anon, authenticated, service_role;

create or replace function fleet.sync_jobs()
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_job record;
begin
  if not exists (select 1 from pg_catalog.pg_extension where extname = 'pg_cron') then
    return;
  end if;

  for v_job in
    execute $query$
      select w.name, w.schedule, w.command
      from fleet.jobs() as w
      where not exists (
        select 1 from cron.job as j
        where j.jobname = w.name and j.schedule = w.schedule and j.command = w.command and j.username = current_user
      )
    $query$
  loop
    execute 'select cron.schedule($1, $2, $3)' using v_job.name, v_job.schedule, v_job.command;
  end loop;

  execute $query$
    select cron.unschedule(j.jobid)
    from cron.job as j
    where j.jobname like 'pgfleet-%'
      and j.jobname not in (select w.name from fleet.jobs() as w)
      and j.username = current_user
  $query$;
end;
$$;

comment on function fleet.sync_jobs() is 'Bring pg_cron''s jobs to what fleet.jobs() says, where pg_cron is installed.';
revoke all on function fleet.sync_jobs() from public, anon, authenticated, service_role;

create or replace function fleet.grant_worker()
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_function regprocedure;
begin
  if not exists (select 1 from pg_catalog.pg_roles where rolname = 'fleet_worker') then
    return;
  end if;
  grant usage on schema fleet to fleet_worker;
  for v_function in
    select p.oid
    from pg_catalog.pg_proc as p
    where p.pronamespace = 'fleet'::regnamespace and p.proname like 'worker\_%'
  loop
    execute format('grant execute on function %s to fleet_worker', v_function);
  end loop;
end;
$$;

comment on function fleet.grant_worker() is
  'Let the login of the HTTP functions execute fleet.worker_* and nothing else. The role is made by pgfleet functions setup.';
revoke all on function fleet.grant_worker() from public, anon, authenticated, service_role;

create or replace function fleet.after_migrate()
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.refresh_time_zones();
  perform fleet.sync_command_types();
  perform fleet.sync_publication();
  perform fleet.poke_key();
  -- There before two ticks can want to make them at once.
  insert into fleet.pokes (function, poked_at)
  select n, '-infinity' from unnest('{notify-dispatch,mdm-dispatch,reconcile-profiles}'::text[]) as n
  on conflict do nothing;
  perform fleet.grant_worker();
  perform fleet.sync_jobs();
end;
$$;

comment on function fleet.after_migrate() is 'What every migrate does last: data that follows from the sources.';
revoke all on function fleet.after_migrate() from public, anon, authenticated, service_role;

-- db/sources/90_operations/30_prune.sql
-- Pruning: history goes when it is older than the setting history_days, in batches.

create or replace procedure fleet.prune_history()
language plpgsql
as $$
declare
  v_before timestamptz := pg_catalog.now()
    - pg_catalog.make_interval(days => fleet.setting_number('history_days')::integer);
begin
  while fleet.prune_batch(v_before) > 0 loop
    commit;
  end loop;
  while fleet.prune_deliveries(v_before) > 0 loop
    commit;
  end loop;
  commit;
  -- Nothing else ever prunes this table. Errors are kept longer than successes.
  if pg_catalog.to_regclass('cron.job_run_details') is not null then
    execute $query$
      delete from cron.job_run_details as d
      where d.end_time < pg_catalog.now() - interval '2 days' and d.status = 'succeeded'
        or d.end_time < pg_catalog.now() - interval '14 days'
    $query$;
  end if;
end;
$$;

comment on procedure fleet.prune_history() is
  'Delete history older than the setting history_days, in batches, and old run details of pg_cron.';
revoke all on procedure fleet.prune_history() from public, anon, authenticated, service_role;

create or replace function fleet.prune_batch(p_before timestamptz, p_limit integer default 5000)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_runs integer;
  v_commands integer;
begin
  delete from public.schedule_runs as r
  where r.id in (
    select x.id from public.schedule_runs as x
    where x.finished_at < p_before
    order by x.finished_at
    -- Their commands go with them, so a few large runs are a large batch.
    limit greatest(p_limit / 100, 1)
  );
  get diagnostics v_runs = row_count;

  delete from public.device_commands as c
  where c.id in (
    select x.id from public.device_commands as x
    where x.run_id is null and x.executed_at < p_before
    order by x.executed_at
    limit p_limit
  );
  get diagnostics v_commands = row_count;
  return v_runs + v_commands;
end;
$$;

comment on function fleet.prune_batch(timestamptz, integer) is
  'Delete a batch of finished runs, with their commands, and of finished ad-hoc commands. Answers how many rows.';
revoke all on function fleet.prune_batch(timestamptz, integer) from public, anon, authenticated, service_role;

-- db/sources/90_operations/40_status.sql
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
      'pg_cron', v_cron,
      'jobs', coalesce(v_jobs, '{}'),
      'doorbells_waiting', (select count(*) from fleet.doorbells as b where b.ring_at <= p_now)
    )
    from fleet.heartbeat as h
  );
end;
$$;

comment on function fleet.engine_status(timestamptz) is
  'Heartbeat, jobs and waiting doorbells. Definer: people may not read the engine''s tables; nothing here is anybody''s data.';
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

-- Jobs, publications and time zones follow what was just defined.
set check_function_bodies = on;
select fleet.after_migrate();
reset search_path;
notify pgrst, 'reload schema';
