-- Events: what can happen, who wants to hear of it, and the outbox that they are written to.

create or replace function fleet.event_types()
returns table (name text, description text)
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  values
    ('run.completed', 'Every command of a run was carried out.'),
    ('run.failed', 'A run ended, and a command of it failed, expired or was cancelled.'),
    ('run.skipped', 'A due instant passed without a run; the reason is told.'),
    ('schedule.paused', 'A schedule was paused, by a person or because its runs failed.'),
    ('schedule.completed', 'A schedule has no due instant left.'),
    ('command.failed', 'A command failed for good.'),
    ('geo_action.failed', 'A device does not block what a geo schedule wants blocked now; the reason is told.'),
    ('device.cloned', 'Two agents use the secret of one device in turn, as a copied disk does.'),
    ('webhook.verify', 'Somebody wants a mailbox to be told: the code that says that it wants to be.'),
    ('webhook.test', 'Somebody asked for a message to try an endpoint out.')
$$;

comment on function fleet.event_types() is 'Every event that an endpoint may ask for by its name.';
revoke all on function fleet.event_types() from public, anon, authenticated, service_role;

create or replace function fleet.event_matches(p_patterns text[], p_event text)
returns boolean
language sql
immutable
parallel safe
return p_patterns && array['*', p_event, split_part(p_event, '.', 1) || '.*'];

comment on function fleet.event_matches(text[], text) is 'Whether an event is among those asked for: *, run.* or run.failed.';
revoke all on function fleet.event_matches(text[], text) from public, anon, authenticated, service_role;

create or replace function fleet.event_payload(p_event text, p_subject jsonb, p_now timestamptz)
returns jsonb
language sql
immutable
parallel safe
return jsonb_build_object(
  'type', p_event,
  'timestamp', to_char(p_now at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
  'data', p_subject
);

comment on function fleet.event_payload(text, jsonb, timestamptz) is 'The body of a message, as Standard Webhooks has it.';
revoke all on function fleet.event_payload(text, jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.emit_events(p_owner_ids uuid[], p_event text, p_subjects jsonb[])
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  with happened as materialized (
    select u.owner_id, u.subject, 'evt_' || replace(gen_random_uuid()::text, '-', '') as event_id
    from unnest(p_owner_ids, p_subjects) as u(owner_id, subject)
  )
  insert into public.webhook_deliveries (endpoint_id, owner_id, event_id, event, payload, next_attempt_at)
  select e.id, e.owner_id, h.event_id, p_event, fleet.event_payload(p_event, h.subject, clock_timestamp()), clock_timestamp()
  from happened as h
  join public.webhook_endpoints as e on e.owner_id = h.owner_id
  where e.enabled
    and (e.channel <> 'email' or e.verified_at is not null)
    and fleet.event_matches(e.events, p_event)
  -- An endpoint that is just being deleted must hold up neither the tick nor a device.
  for key share of e skip locked;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.emit_events(uuid[], text, jsonb[]) is
  'Tell every endpoint that wants it that something of one kind happened, once for each owner and subject (arrays of one length). '
  'Answers how many messages were written.';
revoke all on function fleet.emit_events(uuid[], text, jsonb[]) from public, anon, authenticated, service_role;

create or replace function fleet.is_anybody_listening()
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (select 1 from public.webhook_endpoints as e where e.enabled);
end;
$$;

comment on function fleet.is_anybody_listening() is 'Whether any endpoint of anybody is enabled: asked before anything is put together.';
revoke all on function fleet.is_anybody_listening() from public, anon, authenticated, service_role;

create or replace function fleet.tell_runs(p_run_ids bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.emit_events(
    array_agg(r.owner_id order by r.id),
    'run.' || r.status,
    array_agg(jsonb_build_object(
      'run_id', r.id,
      'schedule_id', r.schedule_id,
      'schedule_name', s.name,
      'action_type', coalesce(r.action_type, s.action_type),
      'scheduled_for', r.scheduled_for,
      'trigger', r.trigger,
      'status', r.status,
      'reason', r.reason,
      'error_message', r.error_message,
      'targeted', r.targeted,
      'completed', r.completed,
      'failed', r.failed,
      'missed_count', r.missed_count,
      'finished_at', r.finished_at
    ) order by r.id)
  )
  from public.schedule_runs as r
  join public.schedules as s on s.id = r.schedule_id
  where r.id = any (p_run_ids)
  group by r.status
$$;

comment on function fleet.tell_runs(bigint[]) is 'Tell of runs that ended: run.completed, run.failed or run.skipped.';
revoke all on function fleet.tell_runs(bigint[]) from public, anon, authenticated, service_role;
