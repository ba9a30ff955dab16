-- The job that comes by, and a look at all that has to be right for a sync.

create or replace function fleet.create_sync_job()
returns text
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if fleet.sync_job() is not null then
    return 'there already';
  elsif not exists (select 1 from pg_catalog.pg_extension where extname = 'pg_cron') then
    return 'missing: enable pg_cron, or let pgfleet functions run --poll come by';
  elsif not fleet.is_trusted_caller() then
    return 'missing: the operator of the database makes it';
  end if;
  execute format('select cron.%I($1, $2, $3)', 'schedule') using 'auto-sync-cron-job', '*/5 * * * *', $job$
    select fleet.poke('auto-sync-cron', jsonb_build_object('time', now(), 'source', 'pg_cron'))
  $job$;
  return 'made';
end;
$$;

comment on function fleet.create_sync_job() is 'See public.create_sync_job. Definer: it checks the caller.';
revoke all on function fleet.create_sync_job() from public, anon, authenticated, service_role;
grant execute on function fleet.create_sync_job() to authenticated, service_role;

create or replace function public.create_sync_job()
returns text
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.create_sync_job()
$$;

comment on function public.create_sync_job() is
  'Make the job auto-sync-cron-job, which comes by every five minutes, where there is none: made, there already, or why it is missing. It is '
  'never made again by a migration, so that whoever takes it away has it away.';
revoke all on function public.create_sync_job() from public, anon, authenticated, service_role;
grant execute on function public.create_sync_job() to authenticated, service_role;

create or replace function fleet.judged_sync(p_status jsonb, p_log jsonb, p_now timestamptz)
returns table (topic text, is_well boolean, found text, what_to_do text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select t.topic, coalesce(t.is_well, false), t.found, case when coalesce(t.is_well, false) then '' else t.what_to_do end
  from (
    values
      ('API key', (p_status ->> 'has_secret')::boolean, case p_status ->> 'has_secret' when 'true' then 'there' else 'missing' end,
        format('pgfleet integration set-secret %s', p_status ->> 'name')),
      ('integration', p_status ->> 'status' = 'active', concat_ws(': ', p_status ->> 'status', p_status ->> 'status_reason'),
        format('pgfleet integration resume %s', p_status ->> 'name')),
      ('sync', p_status ->> 'verdict' in ('due', 'not due', 'running'), p_status ->> 'verdict',
        format('pgfleet sync pause %s --resume, or look at settings.timeWindow', p_status ->> 'name')),
      ('address of the functions', p_status ->> 'functions_url' is not null, coalesce(p_status ->> 'functions_url', 'not set'),
        'pgfleet functions setup --url https://…/functions/v1'),
      ('job', (p_status #>> '{job,active}')::boolean,
        coalesce(concat_ws(', ', p_status #>> '{job,schedule}', 'last run ' || (p_status #>> '{job,last,status}')), 'none'),
        'Make it as docs/how-to/golioth.md shows, or call create_sync_job()'),
      ('last pull', (p_status ->> 'last_sync_at')::timestamptz
          > p_now - make_interval(secs => 3 * (p_status ->> 'interval_seconds')::double precision),
        coalesce(p_status ->> 'last_sync_at', 'never'), coalesce(p_log ->> 'error', 'Do the functions run? See: pgfleet status')),
      ('address to push to', (p_status ->> 'webhook_addresses')::integer > 0, p_status ->> 'webhook_addresses',
        format('pgfleet integration webhook create %s', p_status ->> 'name')),
      ('last push', (p_status ->> 'last_pushed_at')::timestamptz > p_now - interval '1 day', coalesce(p_status ->> 'last_pushed_at', 'never'),
        'Look at the pipeline: does it push to the address, and are there errors?'),
      ('pushed for unknown devices', (p_status ->> 'aside')::integer = 0, p_status ->> 'aside',
        'They are stored when a pull finds the device; does the filter leave it out?'),
      ('changed on both sides', (p_status ->> 'conflicts')::integer = 0, p_status ->> 'conflicts',
        format('pgfleet sync conflicts %s', p_status ->> 'name')),
      ('calls of the API', coalesce((p_status #>> '{cost,is_within_limit}')::boolean, true),
        coalesce(format('%s of %s a month', p_status #>> '{cost,calls_a_month}', p_status #>> '{cost,limit_a_month}'), ''),
        format('pgfleet sync interval %s 600', p_status ->> 'name'))
  ) as t(topic, is_well, found, what_to_do)
$$;

comment on function fleet.judged_sync(jsonb, jsonb, timestamptz) is 'What is to be said of sync_status(), topic by topic.';
revoke all on function fleet.judged_sync(jsonb, jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.check_sync(p_integration_id bigint, p_now timestamptz)
returns table (topic text, is_well boolean, found text, what_to_do text)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_status jsonb := fleet.sync_status(p_integration_id, p_now);
  v_log jsonb;
begin
  select to_jsonb(a) into v_log
  from public.integration_activity_log as a
  where a.integration_id = p_integration_id and a.activity_type = 'sync_import'
  order by a.created_at desc, a.id desc
  limit 1;
  return query select j.* from fleet.judged_sync(v_status, v_log, p_now) as j;
end;
$$;

comment on function fleet.check_sync(bigint, timestamptz) is 'See public.check_sync. Definer: it checks the caller.';
revoke all on function fleet.check_sync(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.check_sync(bigint, timestamptz) to authenticated, service_role;

create or replace function public.check_sync(p_integration_id bigint, p_now timestamptz default now())
returns table (topic text, is_well boolean, found text, what_to_do text)
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select c.* from fleet.check_sync(p_integration_id, fleet.calendar_instant(p_now)) as c
$$;

comment on function public.check_sync(bigint, timestamptz) is
  'All that has to be right for a sync, topic by topic, with what to do where it is not. Raises integration_not_found (PT404), '
  'permission_missing (PT403) or integration_not_pulled (PT409).';
revoke all on function public.check_sync(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.check_sync(bigint, timestamptz) to authenticated, service_role;
