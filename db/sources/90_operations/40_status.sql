-- How is it going: one look at the whole.

create or replace function fleet.history_status()
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_table record;
  v_oldest timestamptz;
  v_found jsonb := '[]';
begin
  for v_table in
    select t.name, t.aged_by, t.condition, fleet.setting_number(t.days_setting)::integer as days from fleet.pruned_tables() as t
  loop
    -- One look into the index by which it is pruned; what hangs on a row is not looked at.
    execute format('select x.%1$I from %2$s as x where x.%1$I is not null and (%3$s) order by 1 limit 1', v_table.aged_by, v_table.name,
      coalesce(split_part(v_table.condition, ' and not exists', 1), 'true'))
    into v_oldest;
    v_found := v_found || jsonb_build_object(
      'table', v_table.name, 'bytes', pg_total_relation_size(v_table.name::regclass), 'oldest', v_oldest, 'kept_days', v_table.days
    );
  end loop;
  return v_found;
end;
$$;

comment on function fleet.history_status() is
  'All that grows with time and is pruned in batches: {table, bytes, oldest, kept_days}.';
revoke all on function fleet.history_status() from public, anon, authenticated, service_role;

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
      -- What stopped a tick, by step, schedule and owner.
      'last_stop', case when fleet.is_trusted_caller() then h.last_stop end,
      'working_on', (
        select jsonb_agg(jsonb_build_object('step', w.step, 'since', w.begun_at, 'schedules', cardinality(w.schedule_ids)))
        from fleet.tick_work as w
        where w.begun_at is not null
      ),
      'pg_cron', v_cron,
      'jobs', coalesce(v_jobs, '{}'),
      -- How much there is says something of everybody.
      'history', case when fleet.is_trusted_caller() then fleet.history_status() end,
      'doorbells_waiting', fleet.doorbells_waiting(p_now)
    )
    from fleet.heartbeat as h
  );
end;
$$;

comment on function fleet.engine_status(timestamptz) is
  'Heartbeat, steps of the tick, jobs and waiting doorbells. Definer: people may not read the engine''s tables; nothing here is anybody''s data.';
revoke all on function fleet.engine_status(timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.engine_status(timestamptz) to authenticated, service_role;

create or replace function fleet.counted(p_count bigint, p_one text, p_many text)
returns text
language sql
immutable
return p_count || ' ' || case when p_count = 1 then p_one else p_many end;

comment on function fleet.counted(bigint, text, text) is 'A number with its words: 1 run has, 2 runs have.';
revoke all on function fleet.counted(bigint, text, text) from public, anon, authenticated, service_role;
grant execute on function fleet.counted(bigint, text, text) to authenticated, service_role;

create or replace function fleet.common_checks(p_engine jsonb, p_zones jsonb, p_now timestamptz)
returns table (n integer, area text, name text, state text, found text, hint text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_steps text := (
    select string_agg(s.step ->> 'name', ', ') from jsonb_array_elements(p_engine -> 'steps') as s(step) where s.step ->> 'error' is not null
  );
  v_count bigint;
  v_text text;
  v_first bigint;
begin
  return query select 1, 'engine', 'ticks',
    case when not (p_engine ->> 'is_ticking')::boolean then 'broken' end,
    'the engine does not tick: nothing runs until it does',
    'pg_cron runs its jobs, see cron.job; where there is no pg_cron, something has to: call fleet.tick_minute()';

  return query select 2, 'engine', 'steps',
    case
      when v_steps is not null then 'broken'
      when p_engine ->> 'last_error' is not null and (p_engine ->> 'last_error_at')::timestamptz > p_now - interval '10 minutes' then 'warning'
    end,
    'a step of the tick failed' || coalesce(', ' || v_steps, '') || coalesce(': ' || left(p_engine ->> 'last_error', 200), ''),
    'The other steps went on; which one it was: select fleet_status() -> ''engine'' -> ''steps''';

  select count(*) into v_count from public.schedules as s where s.status = 'active' and s.next_run_at < p_now - interval '1 minute';
  return query select 3, 'work', 'due_in_time',
    case when v_count > 0 then 'broken' end,
    format('%s overdue for more than a minute', fleet.counted(v_count, 'schedule is', 'schedules are')),
    'The one that is due soonest comes first: select * from schedule_list';

  select count(*), string_agg(format('"%s" (%s)', i.name, coalesce(i.status_reason, i.status)), ', ' order by i.name) into v_count, v_text
  from public.device_integrations as i
  -- What somebody has paused by hand is as it is meant to be.
  where i.status <> 'active' and (i.status <> 'paused' or i.needs_secret);
  return query select 7, 'others', 'integrations',
    case when v_count > 0 then 'warning' end,
    format('%s not active: %s', fleet.counted(v_count, 'integration is', 'integrations are'), left(v_text, 300)),
    'See them all: select * from integration_list';

  select count(*), string_agg(format('"%s" (%s)', e.name, e.disabled_reason), ', ' order by e.name), min(e.id) into v_count, v_text, v_first
  from public.webhook_endpoints as e where not e.enabled and e.disabled_reason is not null;
  return query select 8, 'others', 'webhooks',
    case when v_count > 0 then 'warning' end,
    format('%s told no more: %s', fleet.counted(v_count, 'webhook is', 'webhooks are'), left(v_text, 300)),
    format('Tell it again: select update_webhook_endpoint(%s, ''{"enabled": true}'')', v_first);

  select count(*) into v_count from public.devices as d where d.status = 'active' and d.last_seen <= p_now - interval '1 day';
  return query select 9, 'work', 'devices_heard',
    case when v_count > 0 then 'warning' end,
    format('%s not been seen for a day', fleet.counted(v_count, 'device has', 'devices have')),
    'See when they were: select * from device_list';

  select string_agg(format('%s (%s, %s)', z.lost ->> 'zone', fleet.counted((z.lost ->> 'devices')::bigint, 'device', 'devices'),
    fleet.counted(jsonb_array_length(z.lost -> 'schedules'), 'schedule', 'schedules')), ', ') into v_text
  from jsonb_array_elements(p_zones -> 'lost') as z(lost);
  return query select 10, 'database', 'time_zones',
    case when v_text is not null then 'warning' end,
    'the server does not have these time zones, and who is in them is left out: ' || v_text,
    'Install the zones that belong to it (tzdata-legacy on Debian and Ubuntu), or name another zone';
end;
$$;

comment on function fleet.common_checks(jsonb, jsonb, timestamptz) is
  'What people are told of their fleets and operators of all: a row for each check, with a state where it found something. Both ask here, so that '
  'what counts as wrong is decided once.';
revoke all on function fleet.common_checks(jsonb, jsonb, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.common_checks(jsonb, jsonb, timestamptz) to authenticated, service_role;

create or replace function fleet.status_problems(p_engine jsonb, p_zones jsonb, p_ended jsonb, p_now timestamptz)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- What stops everything comes first, then what has failed, then what is silent.
  return (
    select coalesce(jsonb_agg(jsonb_build_object('problem', q.problem, 'hint', q.hint, 'state', q.state) order by q.n), '[]')
    from (
      select c.n, c.state, c.found as problem, c.hint from fleet.common_checks(p_engine, p_zones, p_now) as c where c.state is not null
      union all
      select 4, 'warning',
        format('%s failed in the last day', fleet.counted(count(*), 'run has', 'runs have')),
        'See why: select * from run_list where status = ''failed'''
      from public.schedule_runs as r
      where r.status = 'failed' and r.created_at > p_now - interval '1 day'
      having count(*) > 0
      union all
      select e.n, 'warning',
        format('%s %s in the last day', fleet.counted((p_ended ->> e.status)::bigint, 'command has', 'commands have'), e.status),
        format('%s: select * from command_list where status = %L', e.hint, e.status)
      from (values (5, 'failed', 'See why'), (6, 'expired', 'No device took them in time')) as e(n, status, hint)
      where (p_ended ->> e.status)::bigint > 0
    ) as q
  );
end;
$$;

comment on function fleet.status_problems(jsonb, jsonb, jsonb, timestamptz) is
  'What is wrong with a fleet and what to do about it, the worst first: [{problem, hint, state}]. p_ended has how many commands of the last day '
  'ended in each status.';
revoke all on function fleet.status_problems(jsonb, jsonb, jsonb, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.status_problems(jsonb, jsonb, jsonb, timestamptz) to authenticated, service_role;

create or replace function fleet.zone_status()
returns jsonb
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'lost', (
      select coalesce(jsonb_agg(
        jsonb_build_object('zone', l.zone, 'devices', l.devices, 'schedules', coalesce(to_jsonb(l.schedules), '[]')) order by l.zone
      ), '[]')
      from fleet.lost_zones(fleet.owners_in_view()) as l
    ),
    -- Nobody's data: which rules the server has learned lately.
    'changed_last_month', (
      select coalesce(jsonb_agg(jsonb_build_object('zone', z.name, 'at', z.changed_at) order by z.changed_at desc, z.name), '[]')
      from fleet.time_zones as z
      where z.changed_at > now() - interval '30 days'
    )
  )
$$;

comment on function fleet.zone_status() is
  'Time zones that the server does not have and that the caller''s devices or schedules are in, and zones whose rules have changed. '
  'Definer: the tables behind it are the engine''s; it looks only at what the caller may see.';
revoke all on function fleet.zone_status() from public, anon, authenticated, service_role;
grant execute on function fleet.zone_status() to authenticated, service_role;

create or replace function public.fleet_status(p_now timestamptz default now())
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_engine jsonb;
  v_zones jsonb;
  v_ended jsonb;
begin
  -- Row security limits the counts to the caller's own; a device, retired or not, counts as nobody.
  if fleet.current_user_id() is null and not fleet.is_trusted_caller() then
    raise exception 'a device may not do this'
      using errcode = 'PT403', detail = 'not_a_person', hint = 'Sign in as a member of the fleet.';
  end if;

  p_now := fleet.calendar_instant(p_now);
  v_engine := fleet.engine_status(p_now);
  v_zones := fleet.zone_status();
  -- Found by an index, however long the history is, and counted once.
  select coalesce(jsonb_object_agg(x.status, x.count), '{}') into v_ended
  from (
    select c.status, count(*) as count from public.device_commands as c where c.executed_at > p_now - interval '1 day' group by c.status
  ) as x;
  return jsonb_build_object(
    'now', p_now,
    'problems', fleet.status_problems(v_engine, v_zones, v_ended, p_now),
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
    'commands', jsonb_build_object(
      'pending', (select count(*) from public.device_commands as c where c.status = 'pending'),
      'running', (select count(*) from public.device_commands as c where c.status = 'running'),
      'completed_last_day', coalesce((v_ended ->> 'completed')::bigint, 0),
      'failed_last_day', coalesce((v_ended ->> 'failed')::bigint, 0) + coalesce((v_ended ->> 'expired')::bigint, 0)
    ),
    'zones', v_zones,
    'engine', v_engine
  );
end;
$$;

comment on function public.fleet_status(timestamptz) is
  'The fleet at a glance: {problems, devices, schedules, runs_last_day, commands, zones, engine}. Raises not_a_person (PT403).';
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
