-- Keeping house: pg_cron jobs, history, and what every migrate does last.

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
