-- What time does to commands: leases run out, commands expire.

create or replace function fleet.sweep_commands(p_now timestamptz, p_limit integer default 5000)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_swept integer := 0;
  v_again bigint[];
  v_count integer;
begin
  with lapsed as (
    select c.id, c.failure_count + 1 >= c.max_attempts
        or not fleet.is_retryable(fleet.retry_policy(c.schedule_id), 'lease_expired') as is_last
    from public.device_commands as c
    where c.status = 'running' and c.lease_expires_at < p_now
    order by c.lease_expires_at
    limit p_limit
    for update skip locked
  ),
  changed as (
    update public.device_commands as c
    set failure_count = c.failure_count + 1,
        status = case
          when l.is_last then 'failed'
          when c.expires_at <= p_now then 'expired'
          else 'pending'
        end,
        reason = 'lease_expired',
        error_message = case
          when l.is_last or c.expires_at <= p_now then 'the device took it and did not answer'
        end
    from lapsed as l
    where c.id = l.id
    returning c.id, c.status, c.channel
  )
  select coalesce(array_agg(c.id) filter (where c.status = 'pending' and c.channel = 'agent'), '{}'), count(*)
  into v_again, v_swept
  from changed as c;
  if v_again <> '{}' then
    perform fleet.queue_doorbells(v_again);
  end if;

  with expired as (
    select c.id
    from public.device_commands as c
    where c.status = 'pending' and c.expires_at <= p_now
    order by c.expires_at
    limit p_limit
    for update skip locked
  )
  update public.device_commands as c
  set status = 'expired', reason = coalesce(c.reason, 'expired')
  from expired as e
  where c.id = e.id;
  get diagnostics v_count = row_count;
  return v_swept + v_count;
end;
$$;

comment on function fleet.sweep_commands(timestamptz, integer) is
  'Offer again what its device did not answer for, end what failed too often, expire what nobody started in time. Answers how many.';
revoke all on function fleet.sweep_commands(timestamptz, integer) from public, anon, authenticated, service_role;
