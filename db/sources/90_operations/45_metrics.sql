-- Figures for a monitoring system: few, cheap to read, and the same that people see elsewhere.

create or replace function fleet.metric_kinds()
returns table (name text, help text)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  values
    ('pgfleet_ticking', 'Whether the engine ticked in the last 10 seconds: 1 or 0.'),
    ('pgfleet_tick_age_seconds', 'Seconds since the last tick.'),
    ('pgfleet_tick_seconds', 'How long the last tick took.'),
    ('pgfleet_step_seconds', 'How long each step of the last tick took.'),
    ('pgfleet_step_failed', 'Whether a step of the tick failed when it was taken last: 1 or 0.'),
    ('pgfleet_job_active', 'Whether a job of pg_cron is active: 1 or 0.'),
    ('pgfleet_doorbells_waiting', 'Doorbells that are due and not rung.'),
    ('pgfleet_devices', 'Devices by status.'),
    ('pgfleet_devices_seen', 'Active devices that were seen in the last hour.'),
    ('pgfleet_schedules', 'Schedules by status.'),
    ('pgfleet_schedules_due', 'Active schedules whose instant has come.'),
    ('pgfleet_due_lag_seconds', 'For how long the active schedule that waits longest is due; 0 where none is.'),
    ('pgfleet_runs_ended', 'Runs that ended in the last hour, by status.'),
    ('pgfleet_commands', 'Commands that have not ended, by channel and status.'),
    ('pgfleet_commands_oldest_seconds', 'For how long the oldest command of a channel may be claimed and is not.'),
    ('pgfleet_commands_ended', 'Commands that ended in the last 10 minutes, by channel, status and reason.'),
    ('pgfleet_claim_lag_seconds', 'From when a command may start until it is claimed: quantiles over those of the last 10 minutes.'),
    ('pgfleet_finish_lag_seconds', 'From the claim of a command to its end: quantiles over those of the last 10 minutes.'),
    ('pgfleet_webhook_deliveries_waiting', 'Messages that are not delivered yet.'),
    ('pgfleet_integrations', 'Integrations by type and status.'),
    ('pgfleet_sync_age_seconds', 'Since when an active integration has not been read, by its id.'),
    ('pgfleet_provider_calls', 'Calls to other systems in the last hour, by the first digit of their answer; none where there was no answer.'),
    ('pgfleet_provider_refused_rate', 'Calls in the last hour that were answered with 429.'),
    ('pgfleet_connections', 'Connections to this database by state, and max for how many the server allows.'),
    ('pgfleet_oldest_transaction_seconds', 'For how long the oldest open transaction keeps dead rows from being cleaned up.'),
    ('pgfleet_partition_missing', 'Whether there is no partition for the telemetry of tomorrow: 1 or 0.'),
    ('pgfleet_table_bytes', 'Size of what grows with time, with its indexes.'),
    ('pgfleet_history_age_seconds', 'Age of the oldest row of what grows with time.')
$$;

comment on function fleet.metric_kinds() is 'The names of all figures of fleet.metrics() and what they mean. All are gauges: what is, not what was counted since.';
revoke all on function fleet.metric_kinds() from public, anon, authenticated, service_role;

create or replace function fleet.metrics_of_engine(p_now timestamptz)
returns table (name text, labels jsonb, value double precision)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_engine jsonb := fleet.engine_status(p_now);
begin
  return query values
    ('pgfleet_ticking', '{}'::jsonb, (v_engine ->> 'is_ticking')::boolean::integer::double precision),
    ('pgfleet_tick_age_seconds', '{}', (v_engine ->> 'tick_age_seconds')::double precision),
    ('pgfleet_tick_seconds', '{}', (v_engine ->> 'tick_ms')::double precision / 1000),
    ('pgfleet_doorbells_waiting', '{}', (v_engine ->> 'doorbells_waiting')::double precision);
  return query
  select f.name, jsonb_build_object('step', s.step ->> 'name'), f.value
  from jsonb_array_elements(v_engine -> 'steps') as s(step)
  cross join lateral (values
    ('pgfleet_step_seconds', (s.step ->> 'ms')::double precision / 1000),
    ('pgfleet_step_failed', (s.step ->> 'error' is not null)::integer::double precision)
  ) as f(name, value);
  return query
  select 'pgfleet_job_active'::text, jsonb_build_object('job', j.key), (j.value ->> 'active')::boolean::integer::double precision
  from jsonb_each(v_engine -> 'jobs') as j;
  return query
  select f.name, jsonb_build_object('table', h.one ->> 'table'), f.value
  from jsonb_array_elements(coalesce(v_engine -> 'history', '[]')) as h(one)
  cross join lateral (values
    ('pgfleet_table_bytes', (h.one ->> 'bytes')::double precision),
    ('pgfleet_history_age_seconds', extract(epoch from p_now - (h.one ->> 'oldest')::timestamptz)::double precision)
  ) as f(name, value);
end;
$$;

comment on function fleet.metrics_of_engine(timestamptz) is 'What the ticker does, and what grows with time.';
revoke all on function fleet.metrics_of_engine(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.metrics_of_work(p_now timestamptz)
returns table (name text, labels jsonb, value double precision)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select 'pgfleet_devices'::text, jsonb_build_object('status', d.status), count(*)::double precision
  from public.devices as d group by d.status;
  return query
  select 'pgfleet_devices_seen'::text, '{}'::jsonb, count(*)::double precision
  from public.devices as d where d.status = 'active' and d.last_seen > p_now - interval '1 hour';
  return query
  select 'pgfleet_schedules'::text, jsonb_build_object('status', s.status), count(*)::double precision
  from public.schedules as s group by s.status;
  return query
  select f.name, '{}'::jsonb, f.value
  from (
    select count(*)::double precision as due, coalesce(extract(epoch from p_now - min(s.next_run_at)), 0)::double precision as lag
    from public.schedules as s where s.status = 'active' and s.next_run_at <= p_now
  ) as u
  cross join lateral (values ('pgfleet_schedules_due', u.due), ('pgfleet_due_lag_seconds', u.lag)) as f(name, value);
  return query
  select 'pgfleet_runs_ended'::text, jsonb_build_object('status', r.status), count(*)::double precision
  from public.schedule_runs as r where r.finished_at > p_now - interval '1 hour' group by r.status;
  return query
  select 'pgfleet_commands'::text, jsonb_build_object('channel', c.channel, 'status', c.status), count(*)::double precision
  from public.device_commands as c where c.status in ('pending', 'running') group by c.channel, c.status;
  return query
  select 'pgfleet_commands_oldest_seconds'::text, jsonb_build_object('channel', c.channel),
    extract(epoch from p_now - min(c.not_before))::double precision
  from public.device_commands as c where c.status = 'pending' and c.not_before <= p_now and c.waits_for is null group by c.channel;
end;
$$;

comment on function fleet.metrics_of_work(timestamptz) is 'Devices, schedules, runs, and commands that have not ended.';
revoke all on function fleet.metrics_of_work(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.metrics_of_ends(p_now timestamptz)
returns table (name text, labels jsonb, value double precision)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select 'pgfleet_commands_ended'::text,
    jsonb_build_object('channel', c.channel, 'status', c.status, 'reason', coalesce(c.reason, '')), count(*)::double precision
  from public.device_commands as c
  where c.executed_at > p_now - interval '10 minutes' and c.status in ('completed', 'failed', 'expired', 'cancelled')
  group by c.channel, c.status, c.reason;
  return query
  with ended as materialized (
    select c.channel,
      extract(epoch from c.claimed_at - greatest(c.created_at, c.not_before))::double precision as claim_lag,
      extract(epoch from c.executed_at - c.claimed_at)::double precision as finish_lag
    from public.device_commands as c
    where c.executed_at > p_now - interval '10 minutes' and c.status in ('completed', 'failed', 'expired', 'cancelled')
    order by c.executed_at desc
    -- Enough to tell quantiles from, however busy the fleet is.
    limit 20000
  )
  select f.name, jsonb_build_object('channel', q.channel, 'quantile', q.quantile::text), f.value
  from (
    select e.channel, k.quantile,
      percentile_cont(k.quantile) within group (order by greatest(e.claim_lag, 0)) filter (where e.claim_lag is not null) as claim_lag,
      percentile_cont(k.quantile) within group (order by e.finish_lag) filter (where e.finish_lag is not null) as finish_lag
    from ended as e
    cross join (values (0.5::double precision), (0.95), (0.99)) as k(quantile)
    group by e.channel, k.quantile
  ) as q
  cross join lateral (values
    ('pgfleet_claim_lag_seconds', q.claim_lag), ('pgfleet_finish_lag_seconds', q.finish_lag)
  ) as f(name, value)
  where f.value is not null;
end;
$$;

comment on function fleet.metrics_of_ends(timestamptz) is 'What became of commands lately, and how long it took.';
revoke all on function fleet.metrics_of_ends(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.is_partition_missing(p_now timestamptz)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select not exists (select 1 from telemetry.partition_days() as p(day) where p.day = (p_now at time zone 'UTC')::date + 1)
$$;

comment on function fleet.is_partition_missing(timestamptz) is 'Whether tomorrow''s telemetry has nowhere to go.';
revoke all on function fleet.is_partition_missing(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.metrics_of_others(p_now timestamptz)
returns table (name text, labels jsonb, value double precision)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select 'pgfleet_webhook_deliveries_waiting'::text, '{}'::jsonb, count(*)::double precision
  from public.webhook_deliveries as d where d.status in ('pending', 'running');
  return query
  select 'pgfleet_integrations'::text, jsonb_build_object('type', i.integration_type, 'status', i.status), count(*)::double precision
  from public.device_integrations as i group by i.integration_type, i.status;
  return query
  select 'pgfleet_sync_age_seconds'::text, jsonb_build_object('integration', i.id::text),
    extract(epoch from p_now - i.last_sync_at)::double precision
  from public.device_integrations as i where i.status = 'active' and i.last_sync_at is not null;
  return query
  with calls as materialized (
    select l.status from public.mdm_api_logs as l where l.created_at > p_now - interval '1 hour' and l.method is not null
  )
  select 'pgfleet_provider_calls'::text,
    jsonb_build_object('answer', coalesce(c.status / 100 || 'xx', 'none')), count(*)::double precision
  from calls as c group by c.status / 100
  union all
  select 'pgfleet_provider_refused_rate', '{}', count(*) from calls as c where c.status = 429;
  return query
  select 'pgfleet_connections'::text, jsonb_build_object('state', coalesce(a.state, 'other')), count(*)::double precision
  from pg_stat_activity as a where a.datname = current_database() group by 2
  union all
  select 'pgfleet_connections', '{"state": "max"}', current_setting('max_connections')::double precision;
  return query
  select 'pgfleet_partition_missing'::text, '{}'::jsonb, fleet.is_partition_missing(p_now)::integer::double precision;
  return query
  select 'pgfleet_oldest_transaction_seconds'::text, '{}'::jsonb,
    coalesce(max(extract(epoch from p_now - a.xact_start)), 0)::double precision
  from pg_stat_activity as a where a.datname = current_database() and a.backend_xmin is not null and a.pid <> pg_backend_pid();
end;
$$;

comment on function fleet.metrics_of_others(timestamptz) is 'Other systems, and the database itself.';
revoke all on function fleet.metrics_of_others(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.metrics(p_now timestamptz)
returns table (name text, labels jsonb, value double precision, help text)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select m.name, m.labels, m.value, k.help
  from (
    select * from fleet.metrics_of_engine(p_now)
    union all
    select * from fleet.metrics_of_work(p_now)
    union all
    select * from fleet.metrics_of_ends(p_now)
    union all
    select * from fleet.metrics_of_others(p_now)
  ) as m
  join fleet.metric_kinds() as k on k.name = m.name
  where m.value is not null;
end;
$$;

comment on function fleet.metrics(timestamptz) is
  'The figures of the whole platform: {name, labels, value, help}, all of them gauges, see docs/reference/metrics. Definer: for the service role, '
  'of everybody''s rows nothing but counts and ages.';
revoke all on function fleet.metrics(timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.metrics(timestamptz) to service_role;

create or replace function fleet.worker_metrics()
returns jsonb
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_agg(to_jsonb(m) order by m.name, m.labels), '[]') from fleet.metrics(clock_timestamp()) as m
$$;

comment on function fleet.worker_metrics() is 'fleet.metrics() as a list of objects, for GET /metrics. Definer: the worker reads no table.';
revoke all on function fleet.worker_metrics() from public, anon, authenticated, service_role;
