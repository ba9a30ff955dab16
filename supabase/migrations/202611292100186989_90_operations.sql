-- Generated from db/sources/90_operations by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/90_operations/10_tick.sql
-- The tick: the only scheduler. Everything that time decides happens here.

create or replace function fleet.tick_steps()
returns table (name text, function text, figure text, batch integer)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  values
    ('locations', 'tend_locations', null, null),
    ('start', 'start_due_runs', 'runs', 2000),
    ('expand', 'expand_next', null, null),
    ('sweep', 'sweep_commands', 'swept', null),
    ('settle', 'settle_runs', 'settled', null),
    ('ring', 'ring_doorbells', 'rung', null),
    ('notify', 'poke_notify', null, null),
    ('mdm', 'poke_mdm', null, null),
    ('prune', 'prune_in_passing', 'pruned', null)
$$;

comment on function fleet.tick_steps() is
  'What a tick does, in this order. Each function takes the time. One that answers an object of figures names them itself, and says with '
  'more that another tick has work at once; the number that another answers, or the length of its list, is told as figure, and as many '
  'as batch mean more.';
revoke all on function fleet.tick_steps() from public, anon, authenticated, service_role;

create or replace function fleet.step_outcome(p_answer jsonb, p_figure text, p_batch integer)
returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_kind text := jsonb_typeof(p_answer);
  v_count integer;
begin
  if v_kind = 'object' then
    return p_answer;
  elsif p_figure is null then
    return '{}';
  end if;

  v_count := case v_kind when 'array' then jsonb_array_length(p_answer) when 'number' then p_answer::integer else 0 end;
  return jsonb_build_object(p_figure, v_count)
    || case when v_count >= p_batch then '{"more": true}'::jsonb else '{}' end;
end;
$$;

comment on function fleet.step_outcome(jsonb, text, integer) is 'What the answer of a step says, as figures: see fleet.tick_steps().';
revoke all on function fleet.step_outcome(jsonb, text, integer) from public, anon, authenticated, service_role;

create or replace function fleet.run_tick_steps(p_now timestamptz)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  v_step record;
  v_begun timestamptz;
  v_answer jsonb;
  v_error text;
  v_figures jsonb := '{}';
  v_more boolean := false;
  v_steps jsonb := '[]';
begin
  for v_step in select s.* from fleet.tick_steps() as s loop
    v_begun := clock_timestamp();
    v_answer := null;
    v_error := null;
    -- Each step by itself: a fault in one of them must not stop the others.
    begin
      execute format('select to_jsonb(fleet.%I($1))', v_step.function) into v_answer using p_now;
    exception when others then
      v_error := left(sqlerrm, 500);
    end;
    v_answer := fleet.step_outcome(v_answer, v_step.figure, v_step.batch);
    v_more := v_more or coalesce(v_answer -> 'more' = 'true', false);
    v_figures := v_figures || v_answer;
    v_steps := v_steps || jsonb_build_object(
      'name', v_step.name,
      'ms', round((extract(epoch from clock_timestamp() - v_begun) * 1000)::numeric, 1),
      'error', v_error
    );
  end loop;
  return jsonb_build_object('figures', v_figures || jsonb_build_object('more', v_more), 'steps', v_steps);
end;
$$;

comment on function fleet.run_tick_steps(timestamptz) is
  'Take each step of a tick: {figures: what they did, and whether there is more, steps: [{name, ms, error}]}.';
revoke all on function fleet.run_tick_steps(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.remembered_steps(p_before jsonb, p_steps jsonb, p_now timestamptz)
returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select coalesce(
      jsonb_agg(
        s.step || case
          when s.step ->> 'error' is null then jsonb_build_object('error', b.step -> 'error', 'error_at', b.step -> 'error_at')
          else jsonb_build_object('error_at', p_now)
        end
        order by s.n
      ),
      '[]'
    )
    from jsonb_array_elements(p_steps) with ordinality as s(step, n)
    left join jsonb_array_elements(p_before) as b(step) on b.step ->> 'name' = s.step ->> 'name'
  );
end;
$$;

comment on function fleet.remembered_steps(jsonb, jsonb, timestamptz) is
  'The steps of this tick with the last error of each, which may be of a tick before: [{name, ms, error, error_at}].';
revoke all on function fleet.remembered_steps(jsonb, jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.tick(p_now timestamptz default now())
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  v_started timestamptz := clock_timestamp();
  v_done jsonb;
  v_errors text[];
begin
  -- A migration holds this lock alone: new tables must not meet old functions.
  if not pg_try_advisory_xact_lock_shared(hashtext('pgfleet.migrate')) then
    return jsonb_build_object('skipped', 'a migration is running');
  end if;

  perform fleet.set_ticking(true);
  v_done := fleet.run_tick_steps(p_now);
  perform fleet.set_ticking(false);

  v_errors := array(
    select format('%s: %s', s.step ->> 'name', s.step ->> 'error')
    from jsonb_array_elements(v_done -> 'steps') with ordinality as s(step, n)
    where s.step ->> 'error' is not null
    order by s.n
  );
  -- Two ticks at once never wait for each other, not even to say that they are there.
  update fleet.heartbeat as h
  set last_tick_at = p_now,
      tick_count = h.tick_count + 1,
      tick_ms = round((extract(epoch from clock_timestamp() - v_started) * 1000)::numeric, 1),
      steps = fleet.remembered_steps(h.steps, v_done -> 'steps', p_now),
      last_error = case when v_errors = '{}' then h.last_error else array_to_string(v_errors, '; ') end,
      last_error_at = case when v_errors = '{}' then h.last_error_at else p_now end
  where h.id in (select b.id from fleet.heartbeat as b for update skip locked);

  return v_done -> 'figures' || jsonb_build_object('errors', to_jsonb(v_errors));
end;
$$;

comment on function fleet.tick(timestamptz) is
  'Everything that is due, one step of fleet.tick_steps() after the other: {runs, commands, swept, settled, rung, …, errors, more}; more '
  'says that another tick has work at once. A fault of one step stops no other and is told by fleet_status(). Any number of sessions may '
  'tick.';
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
    ('pgfleet-tend-geo', '* * * * *', 'call fleet.tend_geo_schedules()'),
    ('pgfleet-reconcile-geo', '23 * * * *', 'call fleet.reconcile_all_geo_scopes()'),
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
  select n, '-infinity' from unnest('{notify-dispatch,mdm-dispatch,reconcile-profiles,prune-history}'::text[]) as n
  on conflict do nothing;
  perform fleet.grant_worker();
  perform fleet.sync_jobs();
end;
$$;

comment on function fleet.after_migrate() is 'What every migrate does last: data that follows from the sources.';
revoke all on function fleet.after_migrate() from public, anon, authenticated, service_role;

-- db/sources/90_operations/30_prune.sql
-- History has an end: which rows go when, and how they go.

create or replace function fleet.pruned_tables()
returns table (name text, aged_by text, condition text, days_setting text, batch integer)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  values
    -- Their commands go with them, so a few large runs are a large batch.
    ('public.schedule_runs', 'finished_at', null, 'history_days', 50),
    ('public.device_commands', 'executed_at', 'run_id is null', 'history_days', 5000),
    ('public.webhook_deliveries', 'finished_at', null, 'history_days', 5000),
    ('fleet.webhook_secrets', 'expires_at', null, 'history_days', 5000),
    ('public.mdm_api_logs', 'created_at', null, 'history_days', 5000),
    ('public.integration_activity_log', 'created_at', null, 'history_days', 5000),
    -- What location policies have not acted on yet is no history.
    ('public.location_events', 'created_at', 'acted_at is not null', 'history_days', 5000)
$$;

comment on function fleet.pruned_tables() is
  'What is deleted when it is old: rows whose column aged_by is longer ago than the setting says in days, and for which the condition holds. '
  'batch rows go in one transaction.';
revoke all on function fleet.pruned_tables() from public, anon, authenticated, service_role;

create or replace function fleet.prune_batch(p_table text, p_now timestamptz, p_limit integer default null)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rule record;
  v_count integer;
begin
  select t.* into strict v_rule from fleet.pruned_tables() as t where t.name = p_table;
  -- What somebody holds goes next time.
  execute format(
    'delete from %1$s as d where d.ctid = any (array('
      'select x.ctid from %1$s as x where x.%2$I < $1 and (%3$s) order by x.%2$I limit $2 for update skip locked'
    '))',
    v_rule.name, v_rule.aged_by, coalesce(v_rule.condition, 'true')
  )
  using
    p_now - make_interval(days => fleet.setting_number(v_rule.days_setting)::integer),
    least(p_limit, v_rule.batch);
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.prune_batch(text, timestamptz, integer) is
  'Delete a batch of what is old in one of fleet.pruned_tables(), at most p_limit rows. Answers how many.';
revoke all on function fleet.prune_batch(text, timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.prune_in_passing(p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if not fleet.pass_turnstile('prune-history', interval '5 minutes', p_now) then
    return 0;
  end if;
  -- What ends has the time of the clock, whatever instant the tick is asked about: a tick of the future makes nothing old.
  return (select sum(fleet.prune_batch(t.name, least(p_now, clock_timestamp()), 500)) from fleet.pruned_tables() as t);
end;
$$;

comment on function fleet.prune_in_passing(timestamptz) is
  'A little of what fleet.prune_history() does, every few minutes by the tick: history has an end where no job comes by as well.';
revoke all on function fleet.prune_in_passing(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.prune_job_details()
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Nothing else ever prunes this table. Errors are kept longer than successes.
  if to_regclass('cron.job_run_details') is not null then
    execute $query$
      delete from cron.job_run_details as d
      where d.end_time < now() - interval '2 days' and d.status = 'succeeded'
        or d.end_time < now() - interval '14 days'
    $query$;
  end if;
end;
$$;

comment on function fleet.prune_job_details() is 'Delete what pg_cron wrote of jobs that ended days ago.';
revoke all on function fleet.prune_job_details() from public, anon, authenticated, service_role;

-- A procedure that commits can have no SET clause, so every name in it is qualified.
create or replace procedure fleet.prune_history()
language plpgsql
as $$
declare
  v_now timestamptz := pg_catalog.now();
  v_tables text[] := array(select t.name from fleet.pruned_tables() as t);
  v_table text;
  v_count integer;
  v_errors text[] := '{}';
begin
  foreach v_table in array v_tables loop
    loop
      begin
        v_count := fleet.prune_batch(v_table, v_now);
      exception when others then
        -- One table that cannot be pruned keeps no other from it.
        v_errors := v_errors || pg_catalog.concat(v_table, ': ', sqlerrm);
        v_count := 0;
      end;
      commit;
      exit when v_count = 0;
    end loop;
  end loop;
  perform fleet.prune_job_details();
  commit;
  if v_errors <> '{}' then
    raise exception 'not everything was pruned: %', pg_catalog.array_to_string(v_errors, '; ')
      using errcode = 'PT500', detail = 'prune_failed', hint = 'The other tables were; repair it, then: call fleet.prune_history()';
  end if;
end;
$$;

comment on procedure fleet.prune_history() is
  'Delete what is old in every one of fleet.pruned_tables(), in batches that are each a transaction, and old run details of pg_cron. Raises '
  'prune_failed (PT500) at its end, with what went wrong.';
revoke all on procedure fleet.prune_history() from public, anon, authenticated, service_role;

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

-- Jobs, publications and time zones follow what was just defined.
set check_function_bodies = on;
select fleet.after_migrate();
reset search_path;
notify pgrst, 'reload schema';
