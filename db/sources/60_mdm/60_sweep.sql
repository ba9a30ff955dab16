-- Clearing up behind functions that stopped in the middle, and ending what has no future.

create or replace function fleet.sweep_mdm(p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return fleet.sweep_held_sends(p_now) + fleet.sweep_held_looks(p_now) + fleet.give_up_mdm(p_now) + fleet.fail_unlinked_mdm(p_now);
end;
$$;

comment on function fleet.sweep_mdm(timestamptz) is
  'Offer again what a function did not answer for, give up what was never seen to happen, fail what is for devices in no MDM. Answers '
  'how many.';
revoke all on function fleet.sweep_mdm(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.sweep_held_sends(p_now timestamptz, p_limit integer default 1000)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids bigint[];
begin
  select array_agg(k.command_id) into v_ids
  from (
    select w.command_id
    from fleet.mdm_work as w
    join public.device_commands as c on c.id = w.command_id and c.status = 'running'
    where w.phase = 'send' and w.held_until <= p_now
    order by w.held_until
    limit p_limit
    for update of c, w skip locked
  ) as k;
  if v_ids is null then
    return 0;
  end if;

  perform fleet.log_unanswered(v_ids, p_now);
  update fleet.mdm_work as w
  set held_until = null, tries = w.tries + 1, unanswered_at = p_now
  where w.command_id = any (v_ids);
  -- What may be repeated is, the rest is told and ends.
  update public.device_commands as c
  set status = case when k.may_repeat then 'pending' else 'failed' end,
      reason = case when k.may_repeat then 'lease_expired' else 'interrupted' end,
      error_message = case
        when not k.may_repeat then 'the function stopped in the middle; the provider may have taken it'
      end,
      lease_expires_at = null
  from (
    select x.id, coalesce(t.rerun_safe, false) or fleet.takes_command_ids(w.integration_id) as may_repeat
    from public.device_commands as x
    join fleet.mdm_work as w on w.command_id = x.id
    left join public.command_types as t on t.name = x.command_type and t.owner_id is null
    where x.id = any (v_ids)
  ) as k
  where k.id = c.id;
  return cardinality(v_ids);
end;
$$;

comment on function fleet.sweep_held_sends(timestamptz, integer) is
  'A function that was killed while it sent: what may be repeated is offered again, the rest ends as interrupted. Answers how many.';
revoke all on function fleet.sweep_held_sends(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.sweep_held_looks(p_now timestamptz, p_limit integer default 1000)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_offered integer;
begin
  with lapsed as (
    select w.command_id
    from fleet.mdm_work as w
    where w.phase = 'look' and w.held_until <= p_now
    order by w.held_until
    limit p_limit
    for update skip locked
  ),
  offered as (
    update fleet.mdm_work as w
    set held_until = null, due_at = p_now
    where w.command_id = any (array(select l.command_id from lapsed as l))
    returning 1
  )
  select count(*)::integer into v_offered from offered;
  return v_offered;
end;
$$;

comment on function fleet.sweep_held_looks(timestamptz, integer) is 'A function that was killed while it looked: others look. Answers how many.';
revoke all on function fleet.sweep_held_looks(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.end_mdm(p_command_ids bigint[], p_status text, p_reason text, p_error text, p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  if p_command_ids = '{}' then
    return 0;
  end if;

  update public.device_commands as c
  set status = 'failed', reason = p_reason, error_message = p_error, executed_at = p_now
  where c.id = any (p_command_ids) and c.status = p_status;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.end_mdm(bigint[], text, text, text, timestamptz) is
  'End those of these commands that have this status as failed. Answers how many.';
revoke all on function fleet.end_mdm(bigint[], text, text, text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.give_up_mdm(p_now timestamptz, p_limit integer default 1000)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return fleet.end_mdm(
    array(
      select w.command_id
      from fleet.mdm_work as w
      where w.phase = 'look' and w.give_up_at <= p_now
      order by w.give_up_at
      limit p_limit
      for update skip locked
    ),
    'running', 'unknown', 'the provider took it, and nothing has shown since whether it was done', p_now
  );
end;
$$;

comment on function fleet.give_up_mdm(timestamptz, integer) is 'End what was accepted and never seen to happen. Answers how many.';
revoke all on function fleet.give_up_mdm(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.fail_unlinked_mdm(p_now timestamptz, p_limit integer default 1000)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return fleet.end_mdm(
    array(
      select w.command_id
      from fleet.mdm_work as w
      where w.integration_id is null and w.due_at <= p_now
      order by w.due_at
      limit p_limit
      for update skip locked
    ),
    'pending', 'no_mdm_link', 'the device is in no MDM: make an integration and sync its devices', p_now
  );
end;
$$;

comment on function fleet.fail_unlinked_mdm(timestamptz, integer) is 'End what is due for devices in no MDM. Answers how many.';
revoke all on function fleet.fail_unlinked_mdm(timestamptz, integer) from public, anon, authenticated, service_role;
