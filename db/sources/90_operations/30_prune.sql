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
