-- Commands as people list them.

drop view if exists public.command_list;
create view public.command_list with (security_invoker = true) as
select
  c.id,
  c.owner_id,
  c.device_hostname,
  c.device_id,
  c.command_type,
  c.status,
  c.reason,
  c.attempt,
  c.max_attempts,
  c.failure_count,
  c.priority,
  c.payload,
  c.result,
  c.error_message,
  c.channel,
  c.run_id,
  c.schedule_id,
  c.step,
  c.not_before,
  c.expires_at,
  c.lease_expires_at,
  c.claimed_at,
  c.executed_at,
  c.idempotency_key,
  c.created_at,
  c.sent_as,
  c.progress,
  c.progress_at,
  fleet.trace_of(c.trace_id, c.owner_id, c.run_id, c.id) as trace_id
from public.device_commands as c;

comment on view public.command_list is
  'One action on one device, and what became of it.';
select fleet.inherit_comments('public.command_list', 'public.device_commands');
revoke all on table public.command_list from public, anon, authenticated, service_role;
grant select on table public.command_list to authenticated, service_role;
