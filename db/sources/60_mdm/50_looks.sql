-- What looks at devices have shown: done, not yet, or never.

create or replace function fleet.seen_looks(p_reports jsonb)
returns table (
  command_id bigint, outcome text, result jsonb, error text, reason text, look_after interval
)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select c.id, r.outcome, r.result, r.error, r.reason, make_interval(secs => r.look_after)
  from jsonb_to_recordset(p_reports) as r (
    command_id bigint, attempt integer, outcome text, result jsonb, error text, reason text, look_after double precision
  )
  join public.device_commands as c on c.id = r.command_id
  join fleet.mdm_work as w on w.command_id = c.id and w.phase = 'look'
  -- What was put back, or cancelled, or ended meanwhile is not what was looked after.
  where c.status = 'running' and c.attempt = r.attempt
  order by c.id
  for update of c, w;
end;
$$;

comment on function fleet.seen_looks(jsonb) is 'The reports that still hold, their commands locked.';
revoke all on function fleet.seen_looks(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.worker_finish_looks(
  p_integration_id bigint,
  p_reports jsonb,
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_secret text;
  v_seen jsonb;
  v_count jsonb;
begin
  v_secret := fleet.stored_secret('integration:' || p_integration_id);
  select coalesce(jsonb_agg(to_jsonb(s)), '[]') into v_seen
  from fleet.seen_looks(fleet.without_secret(p_reports::text, v_secret)::jsonb) as s;

  update fleet.mdm_work as w
  set held_until = null, due_at = p_now + coalesce(r.look_after, fleet.look_pause(p_now - w.accepted_at))
  from jsonb_to_recordset(v_seen) as r (command_id bigint, outcome text, look_after interval)
  where w.command_id = r.command_id and r.outcome = 'accepted';
  update public.device_commands as c
  set status = case when r.outcome = 'accepted' then c.status else r.outcome end,
      result = coalesce(r.result, c.result),
      reason = case when r.outcome = 'failed' then coalesce(r.reason, 'error') end,
      error_message = case when r.outcome = 'failed' then r.error end,
      executed_at = case when r.outcome = 'accepted' then c.executed_at else p_now end
  from jsonb_to_recordset(v_seen) as r (command_id bigint, outcome text, result jsonb, reason text, error text)
  where c.id = r.command_id
    and r.outcome in ('accepted', 'completed', 'failed')
    -- A look that showed nothing new leaves no trace.
    and (r.outcome <> 'accepted' or r.result is distinct from c.result);
  perform fleet.cancel_failed_removals();

  select coalesce(jsonb_object_agg(k.outcome, k.n), '{}') into v_count
  from (
    select r.outcome, count(*) as n from jsonb_to_recordset(v_seen) as r (outcome text) group by r.outcome
  ) as k;
  return v_count;
end;
$$;

comment on function fleet.worker_finish_looks(bigint, jsonb, timestamptz) is
  'Say what looks at the devices of one integration have shown: a list of {command_id, attempt, outcome, result, error, reason, look_after}. '
  'completed: its effect was seen; accepted: not yet, it is looked at again after look_after seconds, or less and less often; failed: it '
  'will not happen. What no longer holds is passed over. Answers how many there were of each outcome. Definer: the worker writes no table.';
revoke all on function fleet.worker_finish_looks(bigint, jsonb, timestamptz) from public, anon, authenticated, service_role;
