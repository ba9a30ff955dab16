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
    ('public.device_requests', 'day', null, 'history_days', 5000),
    ('public.webhook_deliveries', 'finished_at', null, 'history_days', 5000),
    ('fleet.webhook_secrets', 'expires_at', null, 'history_days', 5000),
    ('public.owner_invitations', 'expires_at', null, 'history_days', 5000),
    ('fleet.payload_secrets', 'expires_at', null, 'history_days', 5000),
    ('public.mdm_api_logs', 'created_at', null, 'history_days', 5000),
    -- Their keys are kept for as long as somebody may send them again.
    ('fleet.webhook_inbox', 'received_at', 'status = ''done'' or status = ''aside'' and received_at < now() - interval ''30 days''', 'inbox_days', 5000),
    ('public.audit_log', 'at', null, 'audit_days', 5000),
    -- An install that was called off before it began; the others go with their push.
    ('public.profile_installs', 'created_at', 'x.install_schedule_id is null', 'history_days', 5000),
    ('fleet.sync_backfills', 'finished_at', null, 'history_days', 5000),
    ('public.integration_activity_log', 'created_at', null, 'history_days', 5000),
    -- What location policies have not acted on yet is no history.
    ('public.location_events', 'created_at', 'acted_at is not null', 'history_days', 5000),
    -- What happens once, by a person or at a border, is history when it is over; its runs go with it, so a few are a large batch.
    (
      'public.schedules', 'updated_at',
      'x.recurrence_type = ''once'' and x.status in (''completed'', ''cancelled'')'
      ' and not exists (select 1 from public.schedule_runs as r where r.schedule_id = x.id)'
      ' and not exists (select 1 from public.schedules as f where f.after_schedule_id = x.id)'
      ' and not exists (select 1 from public.profile_installs as p where x.id in (p.install_schedule_id, p.remove_schedule_id)'
      ' and p.duration is not null and p.removed_at is null and p.failure is null)',
      'history_days', 500
    )
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
