-- Temporary profiles: a schedule that pushes and one that removes. What becomes of the push decides about the removal.

create or replace function fleet.reschedule_removal(p_install public.profile_installs, p_at timestamptz)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_removal public.schedules;
begin
  select s.* into v_removal from public.schedules as s where s.id = p_install.remove_schedule_id for update;
  if not found or v_removal.status = 'cancelled' then
    return false;
  end if;

  if v_removal.next_run_at is not null then
    update public.schedules as s set start_time = p_at where s.id = v_removal.id;
    return true;
  end if;
  -- Its run is made already, but nobody has begun it: it waits behind a push that was late.
  update public.device_commands as c
  set not_before = p_at, expires_at = greatest(c.expires_at, p_at + interval '1 day')
  where c.schedule_id = v_removal.id and c.status = 'pending';
  return found;
end;
$$;

comment on function fleet.reschedule_removal(public.profile_installs, timestamptz) is
  'Let the removal of an install happen at another time. Answers false where it has begun, or there is none any more.';
revoke all on function fleet.reschedule_removal(public.profile_installs, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.record_profile_accepted(p_schedule_id bigint, p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_install public.profile_installs;
  v_planned timestamptz;
begin
  update public.profile_installs as p
  set removed_at = p_now
  where p.remove_schedule_id = p_schedule_id and p.removed_at is null;
  if found then
    return;
  end if;

  update public.profile_installs as p
  set installed_at = p_now, failure = null
  where p.install_schedule_id = p_schedule_id and p.installed_at is null
  returning * into v_install;
  if v_install.duration is null then
    return;
  end if;

  -- The blink that a call takes moves nothing; a push that was late keeps its duration.
  select s.start_time into v_planned from public.schedules as s where s.id = p_schedule_id;
  if p_now > v_planned + interval '1 second' then
    perform fleet.reschedule_removal(v_install, p_now + v_install.duration);
  end if;
end;
$$;

comment on function fleet.record_profile_accepted(bigint, timestamptz) is
  'The MDM took the push or the removal of an install.';
revoke all on function fleet.record_profile_accepted(bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.cancel_failed_removals(p_install_id bigint default null)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_install public.profile_installs;
  v_count integer := 0;
begin
  for v_install in
    select p.*
    from public.profile_installs as p
    where p.failure is not null and not p.is_settled and (p_install_id is null or p.id = p_install_id)
    order by p.id
    limit 1000
    for update skip locked
  loop
    -- There is nothing to remove, and so nothing that could be due: it leaves every list. What was begun stays, as history.
    delete from public.schedules as s
    where s.id = v_install.remove_schedule_id
      and not exists (select 1 from public.schedule_runs as r where r.schedule_id = s.id);
    update public.schedules as s
    set status = 'cancelled', status_reason = 'the profile was never installed: ' || v_install.failure
    where s.id = v_install.remove_schedule_id and s.status <> 'cancelled';
    update public.profile_installs as p set is_settled = true where p.id = v_install.id;
    v_count := v_count + 1;
  end loop;
  return v_count;
end;
$$;

comment on function fleet.cancel_failed_removals(bigint) is
  'Delete the removals, or that of one install, whose push came to nothing; one that has begun is cancelled. Answers how many. Called by the tick '
  'and when a function finishes.';
revoke all on function fleet.cancel_failed_removals(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.push_failure(p_schedule public.schedules)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    -- As long as there is something that may still install it, nothing has failed.
    when p_schedule.next_run_at is not null and p_schedule.status in ('active', 'paused') then null
    when exists (
      select 1
      from public.device_commands as c
      where c.schedule_id = p_schedule.id and c.status in ('pending', 'running', 'completed')
    ) then null
    when exists (
      select 1
      from public.schedule_runs as r
      where r.schedule_id = p_schedule.id and r.expanded_at is null and r.status in ('pending', 'running')
    ) then null
    else coalesce(
      (
        select coalesce(c.error_message, c.reason, c.status)
        from public.device_commands as c
        where c.schedule_id = p_schedule.id
        order by c.created_at desc, c.id desc
        limit 1
      ),
      (
        select coalesce(r.error_message, r.reason, r.status)
        from public.schedule_runs as r
        where r.schedule_id = p_schedule.id
        order by r.created_at desc, r.id desc
        limit 1
      ),
      p_schedule.status_reason,
      p_schedule.status
    )
  end
$$;

comment on function fleet.push_failure(public.schedules) is
  'Why a push schedule will never install anything; null while it may.';
revoke all on function fleet.push_failure(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.mark_failed_pushes(p_schedule_ids bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  -- Only marked: this runs in triggers, amid a statement that may change both schedules of an install.
  update public.profile_installs as p
  set failure = f.failure
  from public.schedules as s
  cross join lateral fleet.push_failure(s) as f(failure)
  where p.install_schedule_id = any (p_schedule_ids)
    and p.installed_at is null
    and p.failure is null
    and s.id = p.install_schedule_id
    and f.failure is not null
$$;

comment on function fleet.mark_failed_pushes(bigint[]) is 'Mark which of these push schedules came to nothing.';
revoke all on function fleet.mark_failed_pushes(bigint[]) from public, anon, authenticated, service_role;
