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
    -- Beside the ticker, to end what takes too long and to take over when it is gone.
    ('pgfleet-watch', '* * * * *', 'call fleet.watch_tick()'),
    -- By itself, since it looks at every device that a profile is assigned to: no tick waits for it.
    ('pgfleet-tend-mdm', '* * * * *', 'select fleet.tend_mdm()'),
    ('pgfleet-tend-geo', '* * * * *', 'call fleet.tend_geo_schedules()'),
    ('pgfleet-reconcile-geo', '23 * * * *', 'call fleet.reconcile_all_geo_scopes()'),
    ('pgfleet-roll-up-telemetry', '* * * * *', 'select fleet.roll_up_telemetry()'),
    ('pgfleet-tend-telemetry', '41 * * * *', 'select fleet.tend_telemetry()'),
    ('pgfleet-prune-history', '17 3 * * *', 'call fleet.prune_history()')
$$;

comment on function fleet.jobs() is 'The pg_cron jobs: a fixed set, however many schedules there are.';
revoke all on function fleet.jobs() from public, anon, authenticated, service_role;

create or replace function fleet.job_faults()
returns table (name text, schedule text, command text, fault text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (select 1 from pg_catalog.pg_extension where extname = 'pg_cron') then
    return;
  end if;
  return query execute $query$
    select w.name, w.schedule, w.command, case when j.jobid is null then 'missing' else 'switched off' end
    from fleet.jobs() as w
    left join cron.job as j
      on j.jobname = w.name and j.schedule = w.schedule and j.command = w.command and j.username = current_user
      and j.database = current_database()
      -- A clone, or one that was promoted, remembers where the other was.
      and j.nodename = coalesce((select s.setting from pg_settings as s where s.name = 'cron.host'), j.nodename)
      and j.nodeport = current_setting('port')::integer
    where j.active is not true
    order by w.name
  $query$;
end;
$$;

comment on function fleet.job_faults() is
  'The jobs that pg_cron does not have as they are to be, at this very server (missing), or has switched off; none where there is no pg_cron.';
revoke all on function fleet.job_faults() from public, anon, authenticated, service_role;

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

  -- One that somebody switched off is left as it is.
  for v_job in select f.name, f.schedule, f.command from fleet.job_faults() as f where f.fault = 'missing' loop
    -- By name alone it would keep its old place.
    execute 'select cron.unschedule(j.jobid) from cron.job as j where j.jobname = $1 and j.username = current_user' using v_job.name;
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

comment on function fleet.sync_jobs() is 'Bring pg_cron''s jobs to what fleet.jobs() says, at this very server, where pg_cron is installed.';
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
  grant usage on schema fleet, telemetry to fleet_worker;
  -- COPY is the one way in that is fast enough; what is copied is carried over by a function.
  grant insert on table telemetry.staging to fleet_worker;
  for v_function in
    select p.oid
    from pg_catalog.pg_proc as p
    where p.pronamespace in ('fleet'::regnamespace, 'telemetry'::regnamespace) and p.proname like 'worker\_%'
  loop
    execute format('grant execute on function %s to fleet_worker', v_function);
  end loop;
end;
$$;

comment on function fleet.grant_worker() is
  'Let the login of the HTTP functions execute fleet.worker_* and telemetry.worker_*, copy points into telemetry.staging, and nothing else. The role is made by pgfleet functions setup.';
revoke all on function fleet.grant_worker() from public, anon, authenticated, service_role;

create or replace function fleet.after_migrate()
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.refresh_time_zones();
  perform fleet.adopt_walls();
  perform fleet.sync_command_types();
  perform fleet.sync_publication();
  perform fleet.let_devices_hear();
  perform fleet.poke_key();
  insert into fleet.tick_work (step) select s.name from fleet.tick_steps() as s on conflict do nothing;
  -- There before two ticks can want to make them at once.
  insert into fleet.pokes (function, poked_at)
  select n, '-infinity' from unnest('{notify-dispatch,mdm-dispatch,calendar-dispatch,golioth-pull,golioth-inbox,judge-silence,reconcile-profiles,prune-history}'::text[]) as n
  on conflict do nothing;
  perform fleet.grant_worker();
  perform fleet.number_sequences();
  perform fleet.tend_telemetry();
  perform fleet.sync_jobs();
end;
$$;

comment on function fleet.after_migrate() is 'What every migrate does last: data that follows from the sources.';
revoke all on function fleet.after_migrate() from public, anon, authenticated, service_role;
