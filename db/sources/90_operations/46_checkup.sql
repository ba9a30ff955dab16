-- Is the platform well: every check with what was found and what to do, first the engine and the database.

create or replace function fleet.check_result(p_name text, p_state text, p_found text, p_hint text, p_can_be_repaired boolean default false)
returns table (name text, state text, found text, hint text, can_be_repaired boolean)
language sql
immutable
begin atomic
  select p_name, coalesce(p_state, 'ok'), case when p_state is not null then p_found end, case when p_state is not null then p_hint end,
    p_state is not null and p_can_be_repaired;
end;

comment on function fleet.check_result(text, text, text, text, boolean) is
  'One check as a row: p_state is null where all is well, and then nothing is told; else warning, broken, or unknown.';
revoke all on function fleet.check_result(text, text, text, text, boolean) from public, anon, authenticated, service_role;

create or replace function fleet.failing_jobs()
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_failing text;
begin
  if exists (select 1 from pg_catalog.pg_extension where extname = 'pg_cron') then
    -- One that runs now is no failure, whatever the run before was; nor is one that the end of the server interrupted.
    execute $query$
      select string_agg(j.jobname, ', ' order by j.jobname)
      from cron.job as j
      cross join lateral (
        select d.status, d.return_message from cron.job_run_details as d
        where d.jobid = j.jobid order by d.runid desc limit 1
      ) as l
      where j.jobname like 'pgfleet-%' and l.status = 'failed'
        and coalesce(l.return_message, '') !~ 'server restarted|administrator command|shutting down|starting up'
    $query$ into v_failing;
  end if;
  return v_failing;
end;
$$;

comment on function fleet.failing_jobs() is 'The jobs of pg_cron whose last run failed, but for those that a restart of the server ended; null where none has.';
revoke all on function fleet.failing_jobs() from public, anon, authenticated, service_role;

create or replace function fleet.check_engine(p_now timestamptz)
returns table (name text, state text, found text, hint text, can_be_repaired boolean)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_engine jsonb := fleet.engine_status(p_now);
  v_missing text := (select string_agg(f.name, ', ' order by f.name) from fleet.job_faults() as f);
  v_failing text := fleet.failing_jobs();
  v_stop jsonb := v_engine -> 'last_stop';
  v_held record;
begin
  return query select * from fleet.check_result('ticker_enabled',
    case when fleet.setting('ticker_enabled') = 'false' then 'broken' end,
    'the ticker is switched off, so nothing runs', 'Switch it on: select fleet.set_setting(''ticker_enabled'', ''true'')');
  return query select * from fleet.check_result('jobs',
    case when v_missing is not null then 'broken' end,
    'pg_cron does not run ' || v_missing || ' as it should',
    'Make them anew: select fleet_repair(''jobs'')', true);
  return query select * from fleet.check_result('jobs_succeed',
    case when v_failing is not null then 'warning' end,
    'the last run failed of ' || v_failing, 'cron.job_run_details says why');
  return query select * from fleet.check_result('stops',
    case when (v_stop ->> 'at')::timestamptz > p_now - interval '1 day' then 'warning' end,
    format('a tick was stopped at %s in the step %s%s', v_stop ->> 'at', v_stop ->> 'step',
      coalesce(' by schedule ' || (v_stop ->> 'schedule_id'), '')),
    'fleet.heartbeat has in last_stop what it was about to decide');
  select sum(cardinality(w.suspects)) as suspects, string_agg(w.step, ', ') filter (where w.rests_until > p_now) as resting into v_held
  from fleet.tick_work as w;
  return query select * from fleet.check_result('suspects',
    case when v_held.suspects > 0 or v_held.resting is not null then 'warning' end,
    format('%s decided one by one after a stop%s', fleet.counted(v_held.suspects, 'schedule is', 'schedules are'),
      coalesce('; these steps rest: ' || v_held.resting, '')),
    'The next ticks clear them, or pause the one that is at fault, see fleet.tick_work');
  return query select * from fleet.check_result('tick_time',
    case when (v_engine ->> 'tick_ms')::numeric > 1000 then 'warning' end,
    format('the last tick took %s ms', v_engine ->> 'tick_ms'),
    'See which step: select fleet_status() -> ''engine'' -> ''steps''');
end;
$$;

comment on function fleet.check_engine(timestamptz) is 'Checks of the ticker, its jobs and its steps.';
revoke all on function fleet.check_engine(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.check_shell()
returns table (name text, state text, found text, hint text, can_be_repaired boolean)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_open text;
  v_bare text;
  v_is_published boolean := exists (
    select 1 from pg_catalog.pg_publication_tables as t
    where t.pubname = 'supabase_realtime' and t.schemaname = 'public' and t.tablename = 'device_commands'
  );
  v_withheld bigint;
begin
  select string_agg(c.relname::text, ', ' order by c.relname) into v_bare
  from pg_catalog.pg_class as c
  where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relrowsecurity
    and (
      c.oid = 'public.owners'::regclass
      or exists (
        select 1 from pg_catalog.pg_constraint as k
        where k.conrelid = c.oid and k.confrelid in ('public.owners'::regclass, 'public.devices'::regclass)
      )
      or exists (
        select 1 from pg_catalog.pg_trigger as t join pg_catalog.pg_proc as p on p.oid = t.tgfoid
        where t.tgrelid = c.oid and p.pronamespace = 'fleet'::regnamespace
      )
    );
  return query select * from fleet.check_result('row_security',
    case when v_bare is not null then 'broken' end,
    'row security is off, so that everybody may read all of ' || v_bare,
    format('Switch it on: alter table %s enable row level security', split_part(v_bare, ', ', 1)));

  select string_agg(o.what, ', ' order by o.what) into v_open
  from (
    select p.oid::regprocedure::text as what
    from pg_catalog.pg_proc as p
    cross join lateral aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as a
    where p.pronamespace in ('fleet'::regnamespace, 'telemetry'::regnamespace) and a.grantee = 0
    union all
    select c.oid::regclass::text
    from pg_catalog.pg_class as c
    cross join lateral aclexplode(c.relacl) as a
    left join pg_catalog.pg_roles as r on r.oid = a.grantee
    where c.relnamespace = 'fleet'::regnamespace and c.relkind in ('r', 'p', 'v')
      and (a.grantee = 0 or r.rolname = 'anon')
    limit 20
  ) as o;
  return query select * from fleet.check_result('engine_is_closed',
    case when v_open is not null then 'broken' end,
    'what is the engine''s own is open to everybody: ' || v_open,
    'Default privileges of the project opened it. Migrate again, which takes these rights away where they were granted later by hand');

  return query select * from fleet.check_result('publication',
    case when exists (select 1 from pg_catalog.pg_publication where pubname = 'supabase_realtime')
      and v_is_published <> (fleet.setting('publish_device_commands') = 'true') then 'broken' end,
    'the publication supabase_realtime is not as the setting publish_device_commands says',
    'Bring it in line: select fleet_repair(''publication'')', true);

  if exists (select 1 from pg_catalog.pg_roles where rolname = 'fleet_worker') then
    select count(*) into v_withheld
    from pg_catalog.pg_proc as p
    where p.pronamespace in ('fleet'::regnamespace, 'telemetry'::regnamespace) and p.proname like 'worker\_%'
      and not has_function_privilege('fleet_worker', p.oid, 'execute');
  end if;
  return query select * from fleet.check_result('functions_login',
    case
      when v_withheld > 0 then 'broken'
      when v_withheld is null and fleet.setting('functions_url') <> 'null' then 'warning'
    end,
    case
      when v_withheld > 0 then format('fleet_worker may not execute %s', fleet.counted(v_withheld, 'function', 'functions'))
      else 'there is an address of functions, and no login for them'
    end,
    case
      when v_withheld > 0 then 'Grant them: select fleet_repair(''functions_login'')'
      else 'Make the role fleet_worker as the guide to the HTTP functions says'
    end, v_withheld > 0);
end;
$$;

comment on function fleet.check_shell() is 'Checks of who may do what.';
revoke all on function fleet.check_shell() from public, anon, authenticated, service_role;
