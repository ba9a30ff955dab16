-- Which trace a command belongs to: derived, since a column that every row fills would cost every insert.

create or replace function fleet.trace_of(p_trace_id text, p_owner_id uuid, p_run_id bigint, p_command_id bigint)
returns text
language sql
-- Not immutable, as convert_to is not: Postgres would not put it in place then, and plan it anew for each claim.
stable
parallel safe
return coalesce(
  p_trace_id,
  -- All commands of a run have one. The owner tells databases apart that hand out the same numbers.
  left(encode(sha256(convert_to(coalesce(p_run_id::text, 'command ' || p_command_id::text) || ' of ' || p_owner_id::text, 'UTF8')), 'hex'), 32)
);

comment on function fleet.trace_of(text, uuid, bigint, bigint) is
  'The trace of a command, as 32 hex digits: the one that it was given, else the one that all commands of its run have, else its own. The first '
  '16 digits are the id of the run''s own span, which is the parent of what is done for it.';
revoke all on function fleet.trace_of(text, uuid, bigint, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.trace_of(text, uuid, bigint, bigint) to authenticated, service_role;

create or replace function fleet.worker_ended_runs(p_limit integer default 200, p_now timestamptz default clock_timestamp())
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Whatever ends meanwhile with an earlier time is committed by then. What ended long ago, when nobody asked, is told by nobody.
  v_until timestamptz := p_now - interval '5 seconds';
  v_told fleet.told_runs;
  v_found jsonb;
begin
  select t.* into v_told from fleet.told_runs as t for update skip locked;
  if not found then
    return '[]';
  end if;
  select coalesce(jsonb_agg(to_jsonb(e) order by e.finished_at, e.run_id), '[]') into v_found
  from (
    select r.id as run_id, r.owner_id, r.schedule_id, r.scheduled_for, coalesce(r.started_at, r.created_at) as started_at, r.finished_at,
      r.status, r.targeted, r.completed, r.failed, fleet.trace_of(null, r.owner_id, r.id, null) as trace_id
    from public.schedule_runs as r
    where (r.finished_at, r.id) > (greatest(v_told.finished_at, p_now - interval '10 minutes'), v_told.last_id)
      and r.finished_at <= v_until and r.targeted > 0
    order by r.finished_at, r.id
    limit least(p_limit, 1000)
  ) as e;
  update fleet.told_runs as t
  set finished_at = coalesce((v_found -> -1 ->> 'finished_at')::timestamptz, t.finished_at),
    last_id = coalesce((v_found -> -1 ->> 'run_id')::bigint, t.last_id)
  where v_found <> '[]';
  return v_found;
end;
$$;

comment on function fleet.worker_ended_runs(integer, timestamptz) is
  'Runs that ended since somebody asked last, each told once however many ask: {run_id, owner_id, schedule_id, trace_id, started_at, finished_at, '
  'status, …}. Definer: for the functions, which export the span of each.';
revoke all on function fleet.worker_ended_runs(integer, timestamptz) from public, anon, authenticated, service_role;
