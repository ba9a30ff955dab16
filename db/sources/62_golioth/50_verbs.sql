-- What people do with a sync: its pace, history, its cost, and what keeps it from working.

create or replace function fleet.golioth_of_caller(p_integration_id bigint)
returns public.device_integrations
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_integrations := fleet.integration_of_caller(p_integration_id);
begin
  if v_row.integration_type <> 'golioth' then
    raise exception 'integration % is one of %, which is not pulled', p_integration_id, v_row.integration_type
      using errcode = 'PT409',
            detail = 'integration_not_pulled',
            hint = 'Its devices are read with: select sync_integration(…)';
  end if;
  return v_row;
end;
$$;

comment on function fleet.golioth_of_caller(bigint) is
  'The Golioth integration, locked, if the caller manages it. Raises integration_not_found (PT404), permission_missing (PT403) or '
  'integration_not_pulled (PT409).';
revoke all on function fleet.golioth_of_caller(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.change_sync(p_integration_id bigint, p_settings jsonb)
returns public.device_integrations
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_integrations := fleet.golioth_of_caller(p_integration_id);
begin
  if jsonb_typeof(p_settings) is distinct from 'object' then
    raise exception 'the settings must be a JSON object'
      using errcode = 'PT422', detail = 'integration_invalid', hint = 'Example: {"syncIntervalSeconds": 600}';
  end if;
  perform fleet.require_size('the settings', 'settings', p_settings);
  update public.device_integrations as i
  set settings = fleet.without_nulls(i.settings || p_settings)
  where i.id = v_row.id
  returning * into v_row;
  return v_row;
end;
$$;

comment on function fleet.change_sync(bigint, jsonb) is 'See public.change_sync. Definer: it checks the caller.';
revoke all on function fleet.change_sync(bigint, jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.change_sync(bigint, jsonb) to authenticated, service_role;

create or replace function public.change_sync(p_integration_id bigint, p_settings jsonb)
returns public.device_integrations
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.change_sync(p_integration_id, p_settings)
$$;

comment on function public.change_sync(bigint, jsonb) is
  'Change some of the settings of a sync, null takes one away: syncEnabled, syncIntervalSeconds, timeWindow, deviceFilter, apiCallsPerMonth, '
  'direction, conflict, …; the others stay. Raises integration_not_found (PT404), permission_missing (PT403), integration_not_pulled (PT409) '
  'or integration_invalid (PT422).';
revoke all on function public.change_sync(bigint, jsonb) from public, anon, authenticated, service_role;
grant execute on function public.change_sync(bigint, jsonb) to authenticated, service_role;

create or replace function fleet.backfill_problems(p_integration_id bigint, p_from timestamptz, p_to timestamptz, p_now timestamptz)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select 'from', 'is missing', 'Example: 2026-02-01T00:00:00Z' where p_from is null
  union all
  select 'from', 'is not before the end', 'Give a from that is earlier than to, and not in the future.' where p_from >= p_to
  union all
  select 'from', format('is longer ago than points are kept, which is %s days', s.days), 'Raise the setting telemetry_days first.'
  from (select fleet.setting_number('telemetry_days')::integer as days) as s
  where p_from < p_now - make_interval(days => s.days)
  union all
  select 'from', 'is one too many: ten backfills wait already', format('Wait for them: select sync_status(%s)', p_integration_id)
  where (select count(*) from fleet.sync_backfills as b where b.integration_id = p_integration_id and b.finished_at is null) >= 10
$$;

comment on function fleet.backfill_problems(bigint, timestamptz, timestamptz, timestamptz) is 'All that is wrong with the time of a backfill.';
revoke all on function fleet.backfill_problems(bigint, timestamptz, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.backfill_sync(p_integration_id bigint, p_from timestamptz, p_to timestamptz)
returns bigint
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_integrations := fleet.golioth_of_caller(p_integration_id);
  v_to timestamptz := least(coalesce(p_to, clock_timestamp()), clock_timestamp());
  v_id bigint;
begin
  perform fleet.raise_problems('the backfill', 'backfill_invalid', array_agg(q))
  from fleet.backfill_problems(v_row.id, p_from, v_to, clock_timestamp()) as q;
  insert into fleet.sync_backfills (integration_id, owner_id, wanted_from, wanted_to, read_to, created_by)
  values (v_row.id, v_row.owner_id, p_from, v_to, p_from, fleet.current_user_id())
  returning id into v_id;
  update fleet.golioth_syncs as g set asked_at = coalesce(g.asked_at, clock_timestamp()) where g.integration_id = v_row.id;
  perform fleet.poke('golioth-pull', jsonb_build_object('at', clock_timestamp()), clock_timestamp());
  return v_id;
end;
$$;

comment on function fleet.backfill_sync(bigint, timestamptz, timestamptz) is 'See public.backfill_sync. Definer: it checks the caller.';
revoke all on function fleet.backfill_sync(bigint, timestamptz, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.backfill_sync(bigint, timestamptz, timestamptz) to authenticated, service_role;

create or replace function public.backfill_sync(p_integration_id bigint, p_from timestamptz, p_to timestamptz default null)
returns bigint
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.backfill_sync(p_integration_id, p_from, p_to)
$$;

comment on function public.backfill_sync(bigint, timestamptz, timestamptz) is
  'Read history from the other system, from p_from to p_to (now); what is there already stays as it is. Answers the id of the backfill. Raises '
  'integration_not_found (PT404), permission_missing (PT403), integration_not_pulled (PT409) or backfill_invalid (PT422).';
revoke all on function public.backfill_sync(bigint, timestamptz, timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.backfill_sync(bigint, timestamptz, timestamptz) to authenticated, service_role;

create or replace function fleet.sync_job()
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_job jsonb;
begin
  if to_regclass('cron.job') is not null then
    execute $query$
      select jsonb_build_object(
        'schedule', j.schedule, 'active', j.active,
        'last', (
          select to_jsonb(d)
          from (
            select r.status, r.return_message, r.start_time
            from cron.job_run_details as r where r.jobid = j.jobid order by r.runid desc limit 1
          ) as d
        )
      )
      from cron.job as j
      where j.jobname = 'auto-sync-cron-job'
      limit 1
    $query$ into v_job;
  end if;
  return v_job;
end;
$$;

comment on function fleet.sync_job() is 'How the job auto-sync-cron-job is: {schedule, active, last}; null where there is none.';
revoke all on function fleet.sync_job() from public, anon, authenticated, service_role;

create or replace function fleet.sync_status(p_integration_id bigint, p_now timestamptz)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.device_integrations := fleet.golioth_of_caller(p_integration_id);
  v_sync fleet.golioth_syncs;
  v_interval interval;
begin
  select g.* into v_sync from fleet.golioth_syncs as g where g.integration_id = v_row.id;
  v_interval := fleet.stretched_interval(v_row.settings, v_sync, p_now);
  return jsonb_build_object(
    'integration_id', v_row.id, 'name', v_row.name, 'status', v_row.status, 'status_reason', v_row.status_reason,
    'verdict', fleet.sync_verdict(v_row, v_sync, p_now),
    'interval_seconds', round(extract(epoch from v_interval)),
    'is_stretched', extract(epoch from v_interval) > coalesce(fleet.try_bigint(v_row.settings ->> 'syncIntervalSeconds'), 300),
    'direction', coalesce(v_row.settings ->> 'direction', 'import'), 'conflict', coalesce(v_row.settings ->> 'conflict', 'newest'),
    'conflicts', (select count(*) from public.sync_conflicts as c where c.integration_id = v_row.id and c.keep is null),
    'last_sync_at', v_row.last_sync_at, 'running_since', v_sync.started_at,
    'has_secret', fleet.stored_secret('integration:' || v_row.id) is not null,
    'devices', (select count(*) from public.device_links as l where l.integration_id = v_row.id and l.left_at is null),
    'read_to', (select min(c.read_to) from fleet.sync_cursors as c where c.integration_id = v_row.id),
    'waiting', (select count(*) from fleet.webhook_inbox as w where w.integration_id = v_row.id and w.status = 'waiting'),
    'aside', (select count(*) from fleet.webhook_inbox as w where w.integration_id = v_row.id and w.status = 'aside'),
    'webhook_addresses', (
      select count(*) from public.integration_webhooks as w where w.integration_id = v_row.id and w.revoked_at is null
    ),
    'last_pushed_at', (select max(w.received_at) from fleet.webhook_inbox as w where w.integration_id = v_row.id),
    'backfills', coalesce((
      select jsonb_agg(jsonb_build_object('id', b.id, 'from', b.wanted_from, 'to', b.wanted_to, 'read_to', b.read_to, 'points', b.points) order by b.id)
      from fleet.sync_backfills as b where b.integration_id = v_row.id and b.finished_at is null
    ), '[]'),
    'job', fleet.sync_job(), 'functions_url', fleet.setting('functions_url'),
    'cost', fleet.sync_cost(v_row, v_sync, p_now)
  );
end;
$$;

comment on function fleet.sync_status(bigint, timestamptz) is 'See public.sync_status. Definer: it checks the caller.';
revoke all on function fleet.sync_status(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.sync_status(bigint, timestamptz) to authenticated, service_role;

create or replace function public.sync_status(p_integration_id bigint, p_now timestamptz default now())
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.sync_status(p_integration_id, fleet.calendar_instant(p_now))
$$;

comment on function public.sync_status(bigint, timestamptz) is
  'How the sync of an integration stands: its job, what a call of the job would do now (verdict), how far it was read, what waits, what it '
  'costs. Raises integration_not_found (PT404), permission_missing (PT403) or integration_not_pulled (PT409).';
revoke all on function public.sync_status(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.sync_status(bigint, timestamptz) to authenticated, service_role;

create or replace function fleet.sync_cost(p_integration public.device_integrations, p_sync fleet.golioth_syncs, p_now timestamptz)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_interval numeric := extract(epoch from fleet.stretched_interval(p_integration.settings, p_sync, p_now));
  v_limit bigint := coalesce(fleet.try_bigint(p_integration.settings ->> 'apiCallsPerMonth'), 10000);
  v_calls numeric;
  v_syncs bigint;
begin
  select sum(fleet.try_bigint(a.counts ->> 'api_calls')), count(*) into v_calls, v_syncs
  from public.integration_activity_log as a
  where a.integration_id = p_integration.id and a.activity_type = 'sync_import' and a.created_at > p_now - interval '7 days';
  v_calls := coalesce(v_calls / nullif(v_syncs, 0), p_sync.calls_a_sync);
  return jsonb_build_object(
    'syncs_measured', v_syncs, 'calls_a_sync', round(v_calls, 1),
    'syncs_a_day', round(86400 / v_interval, 1),
    'calls_a_day', round(v_calls * 86400 / v_interval),
    'calls_a_month', round(v_calls * 2592000 / v_interval),
    'calls_this_month', fleet.calls_in_month(p_sync, p_now),
    'limit_a_month', v_limit,
    'is_within_limit', v_calls * 2592000 / v_interval <= v_limit
  );
end;
$$;

comment on function fleet.sync_cost(public.device_integrations, fleet.golioth_syncs, timestamptz) is
  'Calls of the API per day and per month of 30 days, from what the pulls of the last week took, against apiCallsPerMonth (10,000).';
revoke all on function fleet.sync_cost(public.device_integrations, fleet.golioth_syncs, timestamptz)
  from public, anon, authenticated, service_role;
