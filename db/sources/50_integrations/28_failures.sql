-- Failures of calls to another system: which of them pass by themselves, and after how long to try again.

create or replace function fleet.is_passing_failure(p_reason text, p_rerun_safe boolean)
returns boolean
language sql
immutable
parallel safe
-- After a connection that broke nobody knows whether the provider acted; what may not be repeated ends there.
return coalesce(
  p_reason in ('rate_limited', 'not_called', 'not_sent') or (p_rerun_safe and p_reason in ('network', 'timeout', 'unavailable')), false
);

comment on function fleet.is_passing_failure(text, boolean) is
  'Whether a failure says nothing about the command itself, so that it is tried until the command expires.';
revoke all on function fleet.is_passing_failure(text, boolean) from public, anon, authenticated, service_role;

create or replace function fleet.is_answerless(p_reason text)
returns boolean
language sql
immutable
parallel safe
return coalesce(p_reason in ('network', 'timeout', 'unavailable'), false);

comment on function fleet.is_answerless(text) is 'Whether the provider may have taken a command although the attempt failed.';
revoke all on function fleet.is_answerless(text) from public, anon, authenticated, service_role;

create or replace function fleet.mdm_pause(p_tries integer, p_retry_after interval)
returns interval
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  -- A fifth more or less by chance, so that what failed together does not come back together.
  select greatest(
    least(interval '2 seconds' * power(2, least(greatest(p_tries, 1), 12) - 1), interval '5 minutes'),
    case when p_retry_after > interval '0' then least(p_retry_after, interval '1 hour') end
  ) * (1 + 0.2 * random())
$$;

comment on function fleet.mdm_pause(integer, interval) is
  'Pause after the n-th attempt that did not get through: two seconds, doubling up to five minutes; longer where the provider asks for it.';
revoke all on function fleet.mdm_pause(integer, interval) from public, anon, authenticated, service_role;
