-- Generated from db/sources/55_profiles by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/55_profiles/10_temporary.sql
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

-- db/sources/55_profiles/20_install.sql
-- Installing profiles: schedules like all others, made by one call.

create or replace function fleet.live_install(p_profile_id text, p_device_id bigint, p_at timestamptz)
returns public.profile_installs
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.profile_installs;
begin
  select p.* into v_row
  from public.profile_installs as p
  join public.schedules as i on i.id = p.install_schedule_id
  join public.schedules as r on r.id = p.remove_schedule_id
  where p.device_id = p_device_id
    and p.profile_id = p_profile_id
    and p.failure is null
    and p.removed_at is null
    and p.duration is not null
    and i.status <> 'cancelled'
    -- Its removal is still to come: the tick, which moves it on, waits for this lock or is waited for.
    and r.status in ('active', 'paused')
    and r.next_run_at is not null
    and p_at >= i.start_time - interval '1 second'
    and p_at <= r.start_time
  order by p.created_at desc, p.id desc
  limit 1
  for update of p, r;
  return v_row;
end;
$$;

comment on function fleet.live_install(text, bigint, timestamptz) is
  'The temporary install of a profile on a device that runs at an instant, locked with its removal; null where there is none.';
revoke all on function fleet.live_install(text, bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.make_profile_schedule(
  p_action_type text,
  p_profile_id text,
  p_device public.devices,
  p_at timestamptz
)
returns bigint
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  insert into public.schedules (
    owner_id, name, action_type, payload, recurrence_type, start_time, timezone, device_ids, ui_initiated, policies
  )
  values (
    p_device.owner_id,
    format('%s %s on %s', case p_action_type when 'push_profile' then 'install' else 'remove' end, p_profile_id, p_device.hostname),
    p_action_type, jsonb_build_object('profile_id', p_profile_id), 'once', p_at, 'UTC', array[p_device.id], true,
    case p_action_type
      when 'push_profile' then '{}'::jsonb
      -- What was promised to go must go, however long the ticks or the provider were away.
      else '{"catchup_window": "30 days", "expires_after": "30 days", "retry": {"attempts": 100}}'::jsonb
    end
  )
  returning id
$$;

comment on function fleet.make_profile_schedule(text, text, public.devices, timestamptz) is
  'One schedule that pushes or removes a profile once.';
revoke all on function fleet.make_profile_schedule(text, text, public.devices, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.require_profile(p_profile_id text)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if btrim(coalesce(p_profile_id, '')) = '' then
    raise exception 'p_profile_id is missing'
      using errcode = 'PT422', detail = 'profile_missing', hint = 'Name the profile as the MDM does, such as ''12345''.';
  end if;
end;
$$;

comment on function fleet.require_profile(text) is 'Raise profile_missing (PT422).';
revoke all on function fleet.require_profile(text) from public, anon, authenticated, service_role;

create or replace function fleet.require_duration(p_duration interval, p_field text)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_duration <= interval '0' or not isfinite(p_duration) then
    raise exception '% must be longer than nothing, not %', p_field, p_duration
      using errcode = 'PT422', detail = 'duration_invalid', hint = 'Example: ''30 minutes''';
  elsif p_duration > interval '100 years' then
    raise exception '% must be at most 100 years, not %', p_field, p_duration
      using errcode = 'PT422', detail = 'duration_invalid', hint = 'Without a duration it stays for good.';
  end if;
end;
$$;

comment on function fleet.require_duration(interval, text) is
  'Raise duration_invalid (PT422) for what is not longer than nothing, or longer than a hundred years.';
revoke all on function fleet.require_duration(interval, text) from public, anon, authenticated, service_role;

create or replace function fleet.require_instant(p_at timestamptz, p_field text)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if not isfinite(p_at) or p_at not between '0001-01-01 00:00:00Z' and '9000-01-01 00:00:00Z' then
    raise exception '% must be an instant of our days, not %', p_field, p_at
      using errcode = 'PT422', detail = 'argument_invalid', hint = 'Example: ''2027-01-31T12:00:00Z''';
  end if;
end;
$$;

comment on function fleet.require_instant(timestamptz, text) is 'Raise argument_invalid (PT422) for a time that nothing can be counted from.';
revoke all on function fleet.require_instant(timestamptz, text) from public, anon, authenticated, service_role;

create or replace function fleet.install_again(p_install public.profile_installs, p_duration interval, p_at timestamptz)
returns public.profile_installs
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.profile_installs;
begin
  if p_duration is null then
    update public.schedules as s
    set status = 'cancelled', status_reason = 'the profile was installed for good meanwhile'
    where s.id = p_install.remove_schedule_id;
  else
    perform fleet.reschedule_removal(p_install, p_at + p_duration);
  end if;
  update public.profile_installs as p
  -- Counted from when the profile came, which may still be ahead.
  set duration = p_at + p_duration - coalesce(p.installed_at, i.start_time)
  from public.schedules as i
  where p.id = p_install.id and i.id = p.install_schedule_id
  returning p.* into v_row;
  return v_row;
end;
$$;

comment on function fleet.install_again(public.profile_installs, interval, timestamptz) is
  'Installing what is there for a time already: only its removal moves, or is cancelled where it is to stay.';
revoke all on function fleet.install_again(public.profile_installs, interval, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.install_profile(
  p_profile_id text,
  p_device_id bigint,
  p_duration interval,
  p_at timestamptz
)
returns public.profile_installs
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device public.devices := fleet.device_of_caller(p_device_id);
  v_row public.profile_installs;
  v_install_id bigint;
  v_remove_id bigint;
begin
  perform fleet.require_profile(p_profile_id);
  perform fleet.require_duration(p_duration, 'p_duration');
  perform fleet.require_instant(p_at, 'p_at');
  -- Two who press the button at once take turns: the second finds the install of the first.
  perform pg_advisory_xact_lock(hashtextextended('pgfleet.profile:' || p_device_id || ':' || p_profile_id, 0));
  v_row := fleet.live_install(p_profile_id, p_device_id, p_at);
  if v_row.id is not null then
    return fleet.install_again(v_row, p_duration, p_at);
  end if;

  v_install_id := fleet.make_profile_schedule('push_profile', p_profile_id, v_device, p_at);
  if p_duration is not null then
    v_remove_id := fleet.make_profile_schedule('remove_profile', p_profile_id, v_device, p_at + p_duration);
  end if;
  insert into public.profile_installs (owner_id, profile_id, device_id, install_schedule_id, remove_schedule_id, duration)
  values (v_device.owner_id, p_profile_id, p_device_id, v_install_id, v_remove_id, p_duration)
  returning * into v_row;

  -- It may have run, and come to nothing, when it was inserted.
  perform fleet.mark_failed_pushes(array[v_install_id]);
  perform fleet.cancel_failed_removals(v_row.id);
  select p.* into v_row from public.profile_installs as p where p.id = v_row.id;
  return v_row;
end;
$$;

comment on function fleet.install_profile(text, bigint, interval, timestamptz) is
  'See public.install_profile. Definer: it checks the caller.';
revoke all on function fleet.install_profile(text, bigint, interval, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.install_profile(text, bigint, interval, timestamptz) to authenticated, service_role;

create or replace function public.install_profile(
  p_profile_id text,
  p_device_id bigint,
  p_duration interval default null,
  p_at timestamptz default now()
)
returns public.profile_installs
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.install_profile(p_profile_id, p_device_id, p_duration, coalesce(p_at, now()))
$$;

comment on function public.install_profile(text, bigint, interval, timestamptz) is
  'Install a profile on a device, now or at an instant, for good or for a time: one push_profile schedule, and with a duration its '
  'remove_profile schedule. While a temporary install of the same profile runs, only its removal moves. Raises device_not_found (PT404), '
  'permission_missing (PT403), device_retired (PT409), profile_missing, duration_invalid or argument_invalid (PT422).';
revoke all on function public.install_profile(text, bigint, interval, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function public.install_profile(text, bigint, interval, timestamptz) to authenticated, service_role;

-- db/sources/55_profiles/30_extend_and_end.sql
-- Extending, ending and removing what is installed: its schedules move, and no row is made.

create or replace function fleet.install_of_caller(p_install_id bigint)
returns public.profile_installs
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.profile_installs;
begin
  select p.* into v_row
  from public.profile_installs as p
  where p.id = p_install_id and fleet.is_visible_owner(p.owner_id)
  for update;
  if not found then
    perform fleet.raise_not_found(format('profile install %s', p_install_id));
  end if;
  perform fleet.require_permission(v_row.owner_id, 'manage', format('profile install %s', p_install_id));
  if v_row.duration is null then
    raise exception 'profile install % has no end', p_install_id
      using errcode = 'PT409',
            detail = 'profile_install_permanent',
            hint = format('Remove the profile: select remove_profile(%L, %s)', v_row.profile_id, v_row.device_id);
  elsif v_row.failure is not null or v_row.removed_at is not null then
    perform fleet.raise_install_over(p_install_id);
  end if;
  return v_row;
end;
$$;

comment on function fleet.install_of_caller(bigint) is
  'A temporary install that is not over, locked, if the caller manages it. Raises profile_install_not_found (PT404), permission_missing '
  '(PT403), profile_install_permanent or profile_install_over (PT409).';
revoke all on function fleet.install_of_caller(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.raise_install_over(p_install_id bigint)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'profile install % is over', p_install_id
    using errcode = 'PT409', detail = 'profile_install_over', hint = 'Install the profile again.';
end;
$$;

comment on function fleet.raise_install_over(bigint) is 'Raise profile_install_over (PT409).';
revoke all on function fleet.raise_install_over(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.extend_profile(p_install_id bigint, p_by interval)
returns public.profile_installs
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.profile_installs := fleet.install_of_caller(p_install_id);
  v_at timestamptz;
begin
  if p_by is null then
    raise exception 'p_by is missing'
      using errcode = 'PT422', detail = 'duration_invalid', hint = 'Example: ''30 minutes''';
  end if;
  perform fleet.require_duration(p_by, 'p_by');
  perform fleet.require_duration(v_row.duration + p_by, 'the whole duration');
  select s.start_time + p_by into v_at from public.schedules as s where s.id = v_row.remove_schedule_id;
  if not fleet.reschedule_removal(v_row, v_at) then
    perform fleet.raise_install_over(p_install_id);
  end if;
  update public.profile_installs as p set duration = p.duration + p_by where p.id = p_install_id returning * into v_row;
  return v_row;
end;
$$;

comment on function fleet.extend_profile(bigint, interval) is 'See public.extend_profile. Definer: it checks the caller.';
revoke all on function fleet.extend_profile(bigint, interval) from public, anon, authenticated, service_role;
grant execute on function fleet.extend_profile(bigint, interval) to authenticated, service_role;

create or replace function public.extend_profile(p_install_id bigint, p_by interval)
returns public.profile_installs
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.extend_profile(p_install_id, p_by)
$$;

comment on function public.extend_profile(bigint, interval) is
  'Let a temporary profile stay longer. Raises profile_install_not_found (PT404), permission_missing (PT403), profile_install_permanent '
  'or profile_install_over (PT409), or duration_invalid (PT422).';
revoke all on function public.extend_profile(bigint, interval) from public, anon, authenticated, service_role;
grant execute on function public.extend_profile(bigint, interval) to authenticated, service_role;

create or replace function fleet.end_install(p_install public.profile_installs, p_now timestamptz)
returns public.profile_installs
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.profile_installs := p_install;
begin
  if p_install.installed_at is null and not exists (
    select 1 from public.device_commands as c where c.schedule_id = p_install.install_schedule_id and c.status = 'running'
  ) then
    -- It never began: there is nothing to remove.
    update public.schedules as s
    set status = 'cancelled', status_reason = 'ended before it began'
    where s.id in (p_install.install_schedule_id, p_install.remove_schedule_id) and s.status <> 'cancelled';
    update public.profile_installs as p
    set failure = 'ended before it began', is_settled = true
    where p.id = p_install.id
    returning * into v_row;
    return v_row;
  end if;

  if not fleet.reschedule_removal(p_install, p_now) then
    perform fleet.raise_install_over(p_install.id);
  end if;
  update public.profile_installs as p
  set duration = greatest(p_now - coalesce(p.installed_at, p_now), interval '1 microsecond')
  where p.id = p_install.id
  returning * into v_row;
  perform fleet.run_due(array[p_install.remove_schedule_id], clock_timestamp());
  return v_row;
end;
$$;

comment on function fleet.end_install(public.profile_installs, timestamptz) is
  'Remove a temporary profile now, or call off what has not begun.';
revoke all on function fleet.end_install(public.profile_installs, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.end_profile(p_install_id bigint, p_now timestamptz)
returns public.profile_installs
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  select fleet.end_install(fleet.install_of_caller(p_install_id), p_now)
$$;

comment on function fleet.end_profile(bigint, timestamptz) is 'See public.end_profile. Definer: it checks the caller.';
revoke all on function fleet.end_profile(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.end_profile(bigint, timestamptz) to authenticated, service_role;

create or replace function public.end_profile(p_install_id bigint)
returns public.profile_installs
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.end_profile(p_install_id, now())
$$;

comment on function public.end_profile(bigint) is
  'End a temporary profile early: it is removed now, or never installed where it has not begun. Raises profile_install_not_found (PT404), '
  'permission_missing (PT403), profile_install_permanent or profile_install_over (PT409).';
revoke all on function public.end_profile(bigint) from public, anon, authenticated, service_role;
grant execute on function public.end_profile(bigint) to authenticated, service_role;

create or replace function fleet.remove_profile(p_profile_id text, p_device_id bigint, p_at timestamptz)
returns public.schedules
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device public.devices := fleet.device_of_caller(p_device_id);
  v_install public.profile_installs;
  v_id bigint;
  v_row public.schedules;
begin
  perform fleet.require_profile(p_profile_id);
  perform fleet.require_instant(p_at, 'p_at');
  perform pg_advisory_xact_lock(hashtextextended('pgfleet.profile:' || p_device_id || ':' || p_profile_id, 0));
  v_install := fleet.live_install(p_profile_id, p_device_id, p_at);
  if v_install.id is not null and p_at <= now() then
    -- One that is called off before it began is gone afterwards.
    select s.* into v_row from public.schedules as s where s.id = v_install.remove_schedule_id;
    v_row.status := 'cancelled';
    v_install := fleet.end_install(v_install, p_at);
    v_id := v_install.remove_schedule_id;
  elsif v_install.id is not null then
    v_install := fleet.install_again(v_install, p_at - now(), now());
    v_id := v_install.remove_schedule_id;
  else
    v_id := fleet.make_profile_schedule('remove_profile', p_profile_id, v_device, p_at);
  end if;
  return coalesce((select s from public.schedules as s where s.id = v_id), v_row);
end;
$$;

comment on function fleet.remove_profile(text, bigint, timestamptz) is 'See public.remove_profile. Definer: it checks the caller.';
revoke all on function fleet.remove_profile(text, bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.remove_profile(text, bigint, timestamptz) to authenticated, service_role;

create or replace function public.remove_profile(p_profile_id text, p_device_id bigint, p_at timestamptz default now())
returns public.schedules
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.remove_profile(p_profile_id, p_device_id, coalesce(p_at, now()))
$$;

comment on function public.remove_profile(text, bigint, timestamptz) is
  'Remove a profile from a device, now or at an instant: the removal of a temporary install moves, else a schedule is made. Answers the '
  'remove_profile schedule. Raises device_not_found (PT404), permission_missing (PT403), device_retired (PT409), profile_missing or argument_invalid (PT422).';
revoke all on function public.remove_profile(text, bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.remove_profile(text, bigint, timestamptz) to authenticated, service_role;

-- db/sources/55_profiles/40_uploads.sql
-- Uploading configuration profiles to an MDM, and deleting them there: people ask, the function mdm-dispatch does it.

create or replace function fleet.mdm_of_caller(p_integration_id bigint)
returns public.device_integrations
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids bigint[];
  v_choice text;
  v_row public.device_integrations;
begin
  if p_integration_id is null then
    select array_agg(i.id), string_agg(format('%s "%s"', i.id, i.name), ', ' order by i.id) into v_ids, v_choice
    from public.device_integrations as i
    where i.integration_type = any (fleet.mdm_integration_types())
      and i.status <> 'disabled'
      and fleet.is_visible_owner(i.owner_id);
    if v_ids is null then
      raise exception 'there is no MDM to upload to'
        using errcode = 'PT422', detail = 'integration_missing', hint = 'Connect one: select create_integration(''{"name": "office", "integration_type": "simplemdm"}'')';
    elsif cardinality(v_ids) > 1 then
      raise exception 'p_integration_id is missing, and there are several MDMs: %', v_choice
        using errcode = 'PT422', detail = 'integration_ambiguous', hint = 'Name one of them: p_integration_id.';
    end if;
  end if;

  v_row := fleet.integration_of_caller(coalesce(p_integration_id, v_ids[1]));
  if v_row.integration_type <> all (fleet.mdm_integration_types()) then
    raise exception 'integration % is no MDM but of type %', v_row.id, v_row.integration_type
      using errcode = 'PT422', detail = 'integration_not_mdm', hint = 'List integrations with: select * from integration_list';
  elsif v_row.status = 'disabled' then
    raise exception 'integration % is disabled', v_row.id
      using errcode = 'PT409',
            detail = 'integration_disabled',
            hint = format('Resume it: select resume_integration(%s)', v_row.id);
  end if;
  return v_row;
end;
$$;

comment on function fleet.mdm_of_caller(bigint) is
  'The MDM that was named, or the only one there is, locked, if the caller manages it. Raises integration_not_found (PT404), '
  'permission_missing (PT403), integration_missing, integration_ambiguous or integration_not_mdm (PT422), or integration_disabled (PT409).';
revoke all on function fleet.mdm_of_caller(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.is_signed_file(p_content bytea)
returns boolean
language sql
immutable
parallel safe
-- A sequence in DER that begins with the name of "signed data".
return coalesce(
  substring(p_content for 1) = '\x30'::bytea and position('\x06092a864886f70d010702'::bytea in substring(p_content for 32)) > 0, false
);

comment on function fleet.is_signed_file(bytea) is 'Whether a file is signed data (DER).';
revoke all on function fleet.is_signed_file(bytea) from public, anon, authenticated, service_role;

create or replace function fleet.is_detached_signature(p_content bytea)
returns boolean
language sql
immutable
parallel safe
-- What is signed follows the name of "data", marked as the first thing there; without the mark it is somewhere else.
return coalesce(
  fleet.is_signed_file(p_content)
    and position('\x06092a864886f70d010701'::bytea in substring(p_content for 200)) > 0
    and substring(p_content from position('\x06092a864886f70d010701'::bytea in substring(p_content for 200)) + 11 for 1) <> '\xa0'::bytea,
  false
);

comment on function fleet.is_detached_signature(bytea) is 'Whether a file is a signature alone, without what it signs.';
revoke all on function fleet.is_detached_signature(bytea) from public, anon, authenticated, service_role;

create or replace function fleet.is_profile_file(p_content bytea)
returns boolean
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case
    when substring(p_content for 8) = 'bplist00' then true
    when fleet.is_signed_file(p_content) then not fleet.is_detached_signature(p_content)
    when substring(p_content for 1) = '\x30' then false
    -- UTF-16, with or without its mark: every other byte of the words is zero.
    when substring(p_content for 4) in ('\xfffe3c00', '\xfeff003c', '\x3c003f00', '\x003c003f')
      then position('\x3c0070006c0069007300'::bytea in p_content) > 0
    -- XML, perhaps after a byte order mark and blanks.
    else substring(btrim(p_content, '\xefbbbf20090d0a') for 1) = '<' and position('<plist'::bytea in p_content) > 0
  end
$$;

comment on function fleet.is_profile_file(bytea) is
  'Whether a file looks like a configuration profile: a property list in XML (UTF-8 or UTF-16) or binary, or one that is signed (DER).';
revoke all on function fleet.is_profile_file(bytea) from public, anon, authenticated, service_role;

create or replace function fleet.payload_identifier(p_content bytea)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  -- Its payloads have identifiers too, but they are inside of PayloadContent.
  select nullif(left(fleet.plain_xml_text(coalesce(
    substring(o.outer_text from k.key || '<string>([^<]*)</string>'), substring(t.whole from k.key || '<string>([^<]*)</string>')
  )), 255), '')
  from (
    select fleet.text_of_bytes(p_content) as whole
    where substring(p_content for 8) <> 'bplist00' and octet_length(p_content) <= 1048576
  ) as t
  cross join lateral (
    select regexp_replace(t.whole, '<key>\s*PayloadContent\s*</key>\s*<array>.*</array>', '') as outer_text
  ) as o
  cross join (values ('<key>\s*PayloadIdentifier\s*</key>\s*')) as k(key)
$$;

comment on function fleet.payload_identifier(bytea) is
  'The PayloadIdentifier of a configuration profile in XML, signed or not; null where it cannot be read.';
revoke all on function fleet.payload_identifier(bytea) from public, anon, authenticated, service_role;

create or replace function fleet.profile_problems(p_name text, p_content bytea, p_options jsonb)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select 'p_name', 'must not be blank', 'Give the profile a name.'
  where btrim(coalesce(p_name, '')) = ''
  union all
  select * from fleet.limit_problem('p_name', 'name', length(p_name))
  union all
  select 'p_mobileconfig', c.problem, c.hint
  from (
    select
      case
        when coalesce(octet_length(p_content), 0) = 0 then 'is empty'
        when fleet.is_detached_signature(p_content) then 'is a signature without the profile that it signs'
        when octet_length(p_content) <= fleet.limit_value('profile_content') and not fleet.is_profile_file(p_content)
          then 'is no configuration profile: neither a property list nor a signed one'
      end as problem,
      'Upload a .mobileconfig file as it is.' as hint
  ) as c
  where c.problem is not null
  union all
  select * from fleet.limit_problem('p_mobileconfig', 'profile_content', octet_length(p_content))
  union all
  select 'p_options', 'must be an object', 'Example: {"user_scope": false}'
  where jsonb_typeof(coalesce(p_options, 'null')) <> 'object'
  union all
  select 'p_options.' || e.key,
    case when e.key = any (k.names) then 'must be true or false' else 'is not known' end,
    'Known are user_scope, attribute_support, escape_attributes, reinstall_after_os_update and declarative.'
  from (values ('{user_scope,attribute_support,escape_attributes,reinstall_after_os_update,declarative}'::text[])) as k(names)
  cross join lateral jsonb_each(case jsonb_typeof(p_options) when 'object' then p_options else '{}' end) as e
  where e.key <> all (k.names) or jsonb_typeof(e.value) <> 'boolean'
$$;

comment on function fleet.profile_problems(text, bytea, jsonb) is
  'Everything that is wrong with a profile that is to be uploaded; no row where nothing is. None of it quotes the file.';
revoke all on function fleet.profile_problems(text, bytea, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.upload_profile(
  p_name text,
  p_mobileconfig bytea,
  p_integration_id bigint,
  p_options jsonb,
  p_now timestamptz
)
returns public.profiles
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_integration public.device_integrations := fleet.mdm_of_caller(p_integration_id);
  v_name text := btrim(p_name);
  v_sha256 text := encode(sha256(p_mobileconfig), 'hex');
  v_row public.profiles;
begin
  perform fleet.raise_problems('the profile', 'profile_invalid', array_agg(q))
  from fleet.profile_problems(v_name, p_mobileconfig, p_options) as q;

  select p.* into v_row
  from public.profiles as p
  where p.integration_id = v_integration.id and p.is_managed and lower(p.name) = lower(v_name)
  for update;
  if v_row.status in ('pending', 'uploaded')
    and (v_row.name, v_row.content_sha256, v_row.options) = (v_name, v_sha256, v_row.options || p_options)
  then
    return v_row;
  end if;

  insert into public.profiles as p (
    owner_id, integration_id, name, is_managed, status, content_sha256, payload_identifier, options, created_by, created_at, updated_at
  )
  values (
    v_integration.owner_id, v_integration.id, v_name, true, 'pending', v_sha256, fleet.payload_identifier(p_mobileconfig), p_options,
    fleet.current_user_id(), p_now, p_now
  )
  on conflict (integration_id, lower(name)) where is_managed do update
    set name = excluded.name, status = 'pending', content_sha256 = excluded.content_sha256, payload_identifier = excluded.payload_identifier,
        options = p.options || excluded.options, error_message = null, updated_at = p_now
  returning * into v_row;
  perform fleet.request_upload(v_row, 'upload', p_mobileconfig, p_now);
  return v_row;
end;
$$;

comment on function fleet.upload_profile(text, bytea, bigint, jsonb, timestamptz) is
  'See public.upload_profile. Definer: it checks the caller.';
revoke all on function fleet.upload_profile(text, bytea, bigint, jsonb, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.upload_profile(text, bytea, bigint, jsonb, timestamptz) to authenticated, service_role;

create or replace function public.upload_profile(
  p_name text,
  p_mobileconfig bytea,
  p_integration_id bigint default null,
  p_options jsonb default '{}'
)
returns public.profiles
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.upload_profile(p_name, p_mobileconfig, p_integration_id, coalesce(p_options, '{}'), clock_timestamp())
$$;

comment on function public.upload_profile(text, bytea, bigint, jsonb) is
  'Upload a .mobileconfig to an MDM, to the only one where none is named. The same name again replaces the file, also on the devices that '
  'have it; the same file again does nothing. Its status tells when the MDM has it. Options: user_scope, attribute_support, '
  'escape_attributes, reinstall_after_os_update, declarative. Raises profile_invalid, integration_missing, integration_ambiguous or '
  'integration_not_mdm (PT422), integration_not_found (PT404), permission_missing (PT403) or integration_disabled (PT409).';
revoke all on function public.upload_profile(text, bytea, bigint, jsonb) from public, anon, authenticated, service_role;
grant execute on function public.upload_profile(text, bytea, bigint, jsonb) to authenticated, service_role;

create or replace function fleet.request_upload(p_profile public.profiles, p_action text, p_content bytea, p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A lease that runs goes on: two at once could make two of it. What is new waits for its end.
  insert into fleet.profile_uploads as u (profile_id, owner_id, integration_id, action, content, asked_at, next_at)
  values (p_profile.id, p_profile.owner_id, p_profile.integration_id, p_action, p_content, p_now, p_now)
  on conflict (profile_id) do update
    set action = excluded.action, content = excluded.content, asked_at = p_now, next_at = p_now, tries = 0, is_newer = true;
  perform fleet.poke('mdm-dispatch', jsonb_build_object('at', p_now), p_now);
end;
$$;

comment on function fleet.request_upload(public.profiles, text, bytea, timestamptz) is
  'Let a profile be uploaded or deleted; what was asked for it before and not yet done is forgotten.';
revoke all on function fleet.request_upload(public.profiles, text, bytea, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.delete_profile(p_profile_id bigint, p_now timestamptz)
returns public.profiles
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.profiles;
begin
  select p.* into v_row from public.profiles as p where p.id = p_profile_id and fleet.is_visible_owner(p.owner_id) for update;
  if not found then
    perform fleet.raise_not_found(format('profile %s', p_profile_id));
  end if;
  perform fleet.require_permission(v_row.owner_id, 'manage', format('profile %s', p_profile_id));
  if not v_row.is_managed then
    raise exception 'profile "%" was not uploaded from here', v_row.name
      using errcode = 'PT409', detail = 'profile_not_managed', hint = 'Delete it in the MDM itself; the next sync notices.';
  end if;

  update public.profiles as p
  set status = 'deleting', error_message = null, updated_at = p_now
  where p.id = p_profile_id
  returning * into v_row;
  if v_row.external_id is not null
    or exists (select 1 from fleet.profile_uploads as u where u.profile_id = p_profile_id and u.held_until > p_now)
  then
    perform fleet.request_upload(v_row, 'delete', null, p_now);
  else
    -- The MDM was never told of it, as far as anybody knows.
    delete from public.profiles as p where p.id = p_profile_id;
  end if;
  return v_row;
end;
$$;

comment on function fleet.delete_profile(bigint, timestamptz) is 'See public.delete_profile. Definer: it checks the caller.';
revoke all on function fleet.delete_profile(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.delete_profile(bigint, timestamptz) to authenticated, service_role;

create or replace function public.delete_profile(p_profile_id bigint)
returns public.profiles
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.delete_profile(p_profile_id, clock_timestamp())
$$;

comment on function public.delete_profile(bigint) is
  'Delete a profile that was uploaded from here (profiles.id) in its MDM, and so from all devices that have it; its row goes when that is '
  'done. Raises profile_not_found (PT404), permission_missing (PT403) or profile_not_managed (PT409).';
revoke all on function public.delete_profile(bigint) from public, anon, authenticated, service_role;
grant execute on function public.delete_profile(bigint) to authenticated, service_role;

-- db/sources/55_profiles/45_upload_work.sql
-- Uploads as the function mdm-dispatch does them: claimed under a lease, finished, tried again by class of failure.

create or replace function fleet.is_upload_due(p_integration_id bigint, p_now timestamptz)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select 1
    from fleet.profile_uploads as u
    where u.integration_id = p_integration_id and u.next_at <= p_now and (u.held_until is null or u.held_until <= p_now)
  )
$$;

comment on function fleet.is_upload_due(bigint, timestamptz) is 'Whether a profile waits to be uploaded to an MDM, or deleted there, now.';
revoke all on function fleet.is_upload_due(bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_claim_profile_uploads(p_shares jsonb default '{}', p_now timestamptz default clock_timestamp())
returns setof jsonb
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  with due as materialized (
    select i.owner_id, k.profile_id, k.next_at
    from public.device_integrations as i
    cross join lateral (
      select u.profile_id, u.next_at
      from fleet.profile_uploads as u
      where u.integration_id = i.id and u.next_at <= p_now and (u.held_until is null or u.held_until <= p_now)
      order by u.next_at
      limit greatest(
        0,
        least(
          fleet.share_of(p_shares, 'way', i.id::text), fleet.share_of(p_shares, 'owner', i.owner_id::text), fleet.share_in_all(p_shares)
        )
      )
      for update skip locked
    ) as k
    where i.status = 'active'
      and fleet.share_of(p_shares, 'owner', i.owner_id::text) > 0
      and not exists (
        select 1 from fleet.rate_limits as r where r.integration_id = i.id and r.endpoint = '' and r.blocked_until > p_now
      )
  ),
  chosen as (
    select t.profile_id
    from (
      select d.*, row_number() over (partition by d.owner_id order by d.next_at) as turn
      from due as d
    ) as t
    where t.turn <= fleet.share_of(p_shares, 'owner', t.owner_id::text)
    -- Owners in turn, and nobody is always last.
    order by t.turn, random()
    limit fleet.share_in_all(p_shares)
  ),
  taken as (
    update fleet.profile_uploads as u
    -- Longer than other leases: the list of the MDM is read first, page by page.
    set held_until = p_now + interval '3 minutes', attempt = u.attempt + 1, is_newer = false
    from chosen as c
    where u.profile_id = c.profile_id
    returning u.*
  )
  select jsonb_build_object(
    'profile_id', t.profile_id, 'attempt', t.attempt, 'action', t.action, 'name', p.name, 'external_id', p.external_id,
    'options', p.options, 'content', encode(t.content, 'base64'), 'lease_seconds', extract(epoch from t.held_until - p_now),
    'integration_id', i.id, 'owner_id', i.owner_id, 'integration_type', i.integration_type, 'settings', i.settings,
    'secret', s.secret,
    'taken', coalesce((
      select jsonb_agg(o.external_id)
      from public.profiles as o
      where o.integration_id = i.id and o.is_managed and o.id <> p.id and o.external_id is not null
    ), '[]')
  )
  from taken as t
  join public.profiles as p on p.id = t.profile_id
  join public.device_integrations as i on i.id = t.integration_id
  left join lateral (select fleet.stored_secret('integration:' || i.id) as secret) as s on true
$$;

comment on function fleet.worker_claim_profile_uploads(jsonb, timestamptz) is
  'Lease profiles that are to be uploaded or deleted: {profile_id, attempt, action, name, external_id (null for a new one), options, content '
  '(base64), taken (ids that are other profiles of ours), integration_id, owner_id, integration_type, settings, secret, lease_seconds}; owners '
  'in turn, as many of each owner and integration as p_shares allows. Definer: the worker reads no table.';
revoke all on function fleet.worker_claim_profile_uploads(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.end_upload(p_upload fleet.profile_uploads, p_status text, p_error text, p_now timestamptz)
returns text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_upload.is_newer then
    -- What was asked for meanwhile is next, and its status stays.
    update fleet.profile_uploads as u
    set held_until = null
    where u.profile_id = p_upload.profile_id;
    return 'pending';
  end if;

  delete from fleet.profile_uploads as u where u.profile_id = p_upload.profile_id;
  if p_status = 'deleted' then
    delete from public.profiles as p where p.id = p_upload.profile_id;
  else
    update public.profiles as p
    set status = p_status, error_message = p_error, updated_at = p_now
    where p.id = p_upload.profile_id;
  end if;
  return p_status;
end;
$$;

comment on function fleet.end_upload(fleet.profile_uploads, text, text, timestamptz) is
  'Forget the file and keep how it ended, unless something newer was asked for. Answers the status.';
revoke all on function fleet.end_upload(fleet.profile_uploads, text, text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.fail_upload(
  p_upload fleet.profile_uploads,
  p_error text,
  p_reason text,
  p_retry_after interval,
  p_now timestamptz
)
returns text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_waits boolean := p_reason = 'integration_paused'
    and exists (select 1 from public.device_integrations as i where i.id = p_upload.integration_id and i.status <> 'active');
  v_next_at timestamptz := case when v_waits then p_now else p_now + fleet.mdm_pause(p_upload.tries + 1, p_retry_after) end;
begin
  if p_upload.is_newer then
    return fleet.end_upload(p_upload, 'failed', p_error, p_now);
  elsif p_reason is distinct from 'integration_paused' and not fleet.is_passing_failure(p_reason, true) then
    return fleet.end_upload(p_upload, 'failed', p_error, p_now);
  elsif v_next_at > p_upload.asked_at + interval '1 day' and not v_waits then
    -- A file that may hold passwords does not wait for ever.
    return fleet.end_upload(p_upload, 'failed', format('it was given up after a day: %s', p_error), p_now);
  end if;

  update fleet.profile_uploads as u
  set held_until = null, next_at = v_next_at, tries = u.tries + case when v_waits then 0 else 1 end
  where u.profile_id = p_upload.profile_id;
  update public.profiles as p
  set error_message = p_error, updated_at = p_now
  where p.id = p_upload.profile_id;
  return 'pending';
end;
$$;

comment on function fleet.fail_upload(fleet.profile_uploads, text, text, interval, timestamptz) is
  'An attempt failed: try again after a growing pause, wait for the integration to go on, or end, by the class of the failure.';
revoke all on function fleet.fail_upload(fleet.profile_uploads, text, text, interval, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.worker_finish_profile_upload(
  p_profile_id bigint,
  p_attempt integer,
  p_outcome text,
  p_external_id text default null,
  p_error text default null,
  p_reason text default null,
  p_retry_after interval default null,
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_upload fleet.profile_uploads;
  v_error text;
begin
  -- In the order in which people and syncs lock: the integration, then the profile.
  perform 1
  from public.device_integrations as i
  where i.id = (select p.integration_id from public.profiles as p where p.id = p_profile_id)
  for update;
  perform 1 from public.profiles as p where p.id = p_profile_id for update;
  select u.* into v_upload
  from fleet.profile_uploads as u
  where u.profile_id = p_profile_id and u.attempt = p_attempt and u.held_until is not null
  for update;
  if not found then
    return jsonb_build_object('accepted', false, 'reason', 'stale_attempt');
  end if;

  if p_outcome = 'failed' then
    select left(fleet.without_secret(p_error, s.secret), 2000) into v_error
    from (values ('integration:' || v_upload.integration_id)) as n(name)
    left join lateral (select fleet.stored_secret(n.name) as secret) as s on true;
    return jsonb_build_object('accepted', true, 'status', fleet.fail_upload(v_upload, v_error, p_reason, p_retry_after, p_now));
  end if;

  if p_outcome = 'uploaded' then
    -- One that was there before, or that a sync has seen since, is this one.
    delete from public.profiles as p
    where p.integration_id = v_upload.integration_id and p.external_id = p_external_id and not p.is_managed;
  end if;
  update public.profiles as p
  set external_id = case p_outcome when 'uploaded' then p_external_id end,
      uploaded_at = case p_outcome when 'uploaded' then p_now else p.uploaded_at end,
      seen_at = case p_outcome when 'uploaded' then p_now else p.seen_at end
  where p.id = p_profile_id;
  return jsonb_build_object('accepted', true, 'status', fleet.end_upload(v_upload, p_outcome, null, p_now));
end;
$$;

comment on function fleet.worker_finish_profile_upload(bigint, integer, text, text, text, text, interval, timestamptz) is
  'How an attempt ended: uploaded (with the MDM''s id), deleted, or failed with a reason as of worker_finish_mdm. Answers {accepted, status}, '
  'or {accepted: false, reason: stale_attempt}. Definer: the worker writes no table.';
revoke all on function fleet.worker_finish_profile_upload(bigint, integer, text, text, text, text, interval, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/55_profiles/50_catalogue.sql
-- The catalogue: which profiles an MDM has, as its last sync told.

create or replace function fleet.worker_sync_profiles(
  p_integration_id bigint,
  p_profiles jsonb,
  p_began timestamptz,
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_integration public.device_integrations;
  v_seen integer;
  v_gone integer;
  v_lost integer;
begin
  -- Its lock makes two syncs of the same integration take turns.
  select i.* into v_integration from public.device_integrations as i where i.id = p_integration_id for update;
  if not found then
    return jsonb_build_object('accepted', false, 'reason', 'not_found');
  end if;

  insert into public.profiles as p (owner_id, integration_id, external_id, name, kind, seen_at)
  select distinct on (f.external_id)
    v_integration.owner_id, v_integration.id, f.external_id, coalesce(nullif(btrim(f.name), ''), f.external_id),
    coalesce(f.kind, 'unknown'), p_now
  from jsonb_to_recordset(p_profiles) as f (external_id text, name text, kind text)
  where btrim(f.external_id) <> ''
  order by f.external_id
  -- What was uploaded from here keeps the name that people know it by.
  on conflict (integration_id, external_id) do update
    set seen_at = p_now,
        name = case when p.is_managed then p.name else excluded.name end,
        kind = case when p.is_managed then p.kind else excluded.kind end,
        updated_at = case when p.is_managed or p.name = excluded.name then p.updated_at else p_now end;
  get diagnostics v_seen = row_count;

  delete from public.profiles as p
  where p.integration_id = p_integration_id and not p.is_managed and coalesce(p.seen_at < p_began, true);
  get diagnostics v_gone = row_count;

  -- Its file is not kept, so it cannot be uploaded again by itself. What waits for an upload or a deletion gets over it there.
  update public.profiles as p
  set status = 'failed', external_id = null, content_sha256 = null, updated_at = p_now,
      error_message = 'the MDM has it no more: upload it again'
  where p.integration_id = p_integration_id
    and p.is_managed
    and p.status in ('uploaded', 'failed')
    and p.external_id is not null
    -- What was uploaded while the list was read is not missed in it.
    and p.seen_at < p_began;
  get diagnostics v_lost = row_count;
  return jsonb_build_object('accepted', true, 'seen', v_seen, 'gone', v_gone, 'lost', v_lost);
end;
$$;

comment on function fleet.worker_sync_profiles(bigint, jsonb, timestamptz, timestamptz) is
  'Take over the whole list of the profiles of an MDM, as {external_id, name, kind}, and when it was begun to be read. Those that are gone '
  'are removed; one that was uploaded from here stays, as failed. {accepted, seen, gone, lost}. Definer: the worker writes no table.';
revoke all on function fleet.worker_sync_profiles(bigint, jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.profiles_by_name(p_name text, p_device_id bigint)
returns table (profile_id text, name text, is_managed boolean, status text, error_message text, integration_id bigint, integration text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with known as (
    select p.external_id as id, p.name, p.is_managed, p.status, p.error_message, p.integration_id
    from public.profiles as p
    where lower(p.name) = lower(p_name) or p.external_id = p_name
    union
    -- Some MDMs keep no list, and their profiles are described here.
    select k.id, k.id, false, 'uploaded', null, i.id
    from public.device_integrations as i
    cross join lateral jsonb_object_keys(fleet.object_or_empty(i.settings -> 'profiles')) as k(id)
    where lower(k.id) = lower(p_name)
  ),
  linked as (
    select l.integration_id from public.device_links as l where l.device_id = p_device_id and l.left_at is null
  ),
  found as (
    select k.*, i.name as integration, bool_or(k.is_managed) over (partition by i.id) as any_managed
    from known as k
    join public.device_integrations as i on i.id = k.integration_id and i.status <> 'disabled'
    where k.integration_id in (select l.integration_id from linked as l) or not exists (select from linked)
  )
  -- In one MDM, what was uploaded from here wins over its namesakes.
  select f.id, f.name, f.is_managed, f.status, f.error_message, f.integration_id, f.integration
  from found as f
  where f.is_managed or not f.any_managed
  order by f.integration_id, f.is_managed desc, f.id
$$;

comment on function fleet.profiles_by_name(text, bigint) is
  'Profiles that a name, or an id that is no number, means in the MDMs of a device; in all of them where it is in none, or none is named.';
revoke all on function fleet.profiles_by_name(text, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.profiles_by_name(text, bigint) to authenticated, service_role;

create or replace function public.profile_id(p_name text, p_device_id bigint default null)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_found bigint;
  v_where text;
  v_row record;
begin
  if p_name ~ '^[0-9]+$' then
    return p_name;
  end if;

  select count(*), string_agg(format('%s (%s)', coalesce(f.profile_id, 'not uploaded'), f.integration), ', ')
  into v_found, v_where
  from fleet.profiles_by_name(p_name, p_device_id) as f;
  if v_found > 1 then
    raise exception 'profile "%" is ambiguous: %', left(p_name, 200), left(v_where, 1000)
      using errcode = 'PT409', detail = 'profile_ambiguous', hint = 'Name the id.';
  elsif v_found = 0 then
    raise exception 'profile "%" was not found', left(p_name, 200)
      using errcode = 'PT404', detail = 'profile_not_found', hint = 'List what the MDMs have with: select * from profile_list';
  end if;

  select f.* into v_row from fleet.profiles_by_name(p_name, p_device_id) as f;
  if v_row.profile_id is null then
    raise exception 'profile "%" is not in the MDM (%)', left(p_name, 200), concat_ws(': ', v_row.status, v_row.error_message)
      using errcode = 'PT409', detail = 'profile_not_uploaded', hint = 'Look how it is with: select * from profile_list';
  end if;
  return v_row.profile_id;
end;
$$;

comment on function public.profile_id(text, bigint) is
  'The MDM''s id of a profile: digits are that id, anything else is a name, in any case. With a device its MDM decides; without one the '
  'name must be of one profile only. Raises profile_not_found (PT404), profile_ambiguous or profile_not_uploaded (PT409).';
revoke all on function public.profile_id(text, bigint) from public, anon, authenticated, service_role;
grant execute on function public.profile_id(text, bigint) to authenticated, service_role;

-- db/sources/55_profiles/60_assignments.sql
-- Desired state: which profile should be where. People say so by assignments.

create or replace function public.assign_profile(
  p_profile_id text,
  p_targets jsonb,
  p_description text default '',
  p_owner_id uuid default null
)
returns public.profile_assignments
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.assign_profile(p_profile_id, p_targets, p_description, p_owner_id, now())
$$;

comment on function public.assign_profile(text, jsonb, text, uuid) is
  'Say that a profile belongs on devices: {"device_ids": […], "group_ids": […], "selector": {…}}. What is missing is pushed at once, also '
  'to devices that join later. Raises profile_missing, targets_invalid or assignment_invalid (PT422; PT404 for what was not found), or '
  'permission_missing (PT403).';
revoke all on function public.assign_profile(text, jsonb, text, uuid) from public, anon, authenticated, service_role;
grant execute on function public.assign_profile(text, jsonb, text, uuid) to authenticated, service_role;

create or replace function fleet.assign_profile(p_profile_id text, p_targets jsonb, p_description text, p_owner_id uuid, p_now timestamptz)
returns public.profile_assignments
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid := fleet.owner_or_own(coalesce(p_owner_id, fleet.owner_of_spec(p_targets)));
  v_row public.profile_assignments;
begin
  perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
  perform fleet.require_profile(p_profile_id);
  if jsonb_typeof(p_targets) is distinct from 'object'
    or exists (
      select 1
      from unnest('{device_ids,group_ids}'::text[]) as k(key)
      where p_targets ? k.key
        and coalesce(p_targets ->> k.key !~ '^\[([0-9]{1,18}(, [0-9]{1,18})*)?\]$', true)
    )
  then
    raise exception 'p_targets must be an object with device_ids, group_ids or selector'
      using errcode = 'PT422', detail = 'targets_invalid', hint = 'Example: {"group_ids": [3]}';
  end if;

  perform fleet.require_size('p_targets', 'spec', p_targets);
  v_row.device_ids := array(select jsonb_array_elements_text(p_targets -> 'device_ids')::bigint);
  v_row.group_ids := array(select jsonb_array_elements_text(p_targets -> 'group_ids')::bigint);
  perform fleet.raise_problems('the assignment', 'assignment_invalid', array_agg(q))
  from fleet.target_problems(v_owner, v_row.device_ids, v_row.group_ids, p_targets -> 'selector') as q;
  insert into public.profile_assignments (owner_id, profile_id, description, device_ids, group_ids, selector, created_by)
  values (
    v_owner, btrim(p_profile_id), coalesce(p_description, ''), v_row.device_ids, v_row.group_ids, p_targets -> 'selector',
    fleet.current_user_id()
  )
  returning * into v_row;
  perform fleet.reconcile_owner(v_owner, p_now);
  return v_row;
end;
$$;

comment on function fleet.assign_profile(text, jsonb, text, uuid, timestamptz) is
  'See public.assign_profile. Definer: it checks the caller.';
revoke all on function fleet.assign_profile(text, jsonb, text, uuid, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.assign_profile(text, jsonb, text, uuid, timestamptz) to authenticated, service_role;

create or replace function public.unassign_profile(p_assignment_id bigint)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.unassign_profile(p_assignment_id, now())
$$;

comment on function public.unassign_profile(bigint) is
  'Take an assignment back: the profile is removed where it brought it and no other assignment wants it. {pushes, removals}. Raises '
  'profile_assignment_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.unassign_profile(bigint) from public, anon, authenticated, service_role;
grant execute on function public.unassign_profile(bigint) to authenticated, service_role;

create or replace function fleet.unassign_profile(p_assignment_id bigint, p_now timestamptz)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.profile_assignments;
begin
  select a.* into v_row
  from public.profile_assignments as a
  where a.id = p_assignment_id and fleet.is_visible_owner(a.owner_id)
  for update;
  if not found then
    perform fleet.raise_not_found(format('profile assignment %s', p_assignment_id));
  end if;
  perform fleet.require_permission(v_row.owner_id, 'manage', format('profile assignment %s', p_assignment_id));
  delete from public.profile_assignments as a where a.id = p_assignment_id;
  return fleet.reconcile_owner(v_row.owner_id, p_now);
end;
$$;

comment on function fleet.unassign_profile(bigint, timestamptz) is 'See public.unassign_profile. Definer: it checks the caller.';
revoke all on function fleet.unassign_profile(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.unassign_profile(bigint, timestamptz) to authenticated, service_role;

create or replace function fleet.live_installs(p_owner_id uuid)
returns table (owner_id uuid, device_id bigint, profile_id text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select p.owner_id, p.device_id, p.profile_id
  from public.profile_installs as p
  join public.schedules as r on r.id = p.remove_schedule_id
  where p.duration is not null
    and p.failure is null
    and p.installed_at is not null
    and p.removed_at is null
    and r.status in ('active', 'paused')
    and r.next_run_at is not null
    and (p_owner_id is null or p.owner_id = p_owner_id)
$$;

comment on function fleet.live_installs(uuid) is 'Profiles that are on devices for a time which is not over, of one owner or of all.';
revoke all on function fleet.live_installs(uuid) from public, anon, authenticated, service_role;

create or replace function fleet.location_wishes(p_owner_id uuid)
returns table (owner_id uuid, device_id bigint, profile_id text, is_wanted boolean)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select distinct on (e.device_id, p.payload ->> 'profile_id')
    e.owner_id, e.device_id, p.payload ->> 'profile_id', p.action_type = 'push_profile'
  from public.location_policies as p
  join public.location_actions as a on a.policy_id = p.id and a.error_message is null
  join public.location_events as e on e.id = a.event_id
  where p.action_type in ('push_profile', 'remove_profile')
    and (p_owner_id is null or p.owner_id = p_owner_id)
  order by e.device_id, p.payload ->> 'profile_id', a.event_id desc, p.priority desc, p.id
$$;

comment on function fleet.location_wishes(uuid) is
  'What the latest event of each device has location policies want of each profile that they push and remove; of one owner or of all.';
revoke all on function fleet.location_wishes(uuid) from public, anon, authenticated, service_role;

create or replace function fleet.wishes_before_assignments(p_owner_id uuid)
returns table (owner_id uuid, device_id bigint, profile_id text, is_wanted boolean, rank integer, because text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select h.owner_id, h.device_id, h.profile_id, true, 1, 'it is held'
  from public.profile_holds as h
  where p_owner_id is null or h.owner_id = p_owner_id
  union all
  select i.owner_id, i.device_id, i.profile_id, true, 2, 'it is installed for a time'
  from fleet.live_installs(p_owner_id) as i
  union all
  select l.owner_id, l.device_id, l.profile_id, l.is_wanted, 3, 'of where the device is'
  from fleet.location_wishes(p_owner_id) as l
$$;

comment on function fleet.wishes_before_assignments(uuid) is
  'What wants a profile on a device, or off it, before its assignments do: few, where assignments are many. See fleet.wishes_for_profiles.';
revoke all on function fleet.wishes_before_assignments(uuid) from public, anon, authenticated, service_role;

create or replace function fleet.assigned_profiles(p_owner_id uuid, p_profile_ids text[] default null)
returns table (owner_id uuid, device_id bigint, profile_id text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select a.owner_id, t.device_id, a.profile_id
  from public.profile_assignments as a
  cross join lateral fleet.targets(a.owner_id, a.device_ids, a.group_ids, a.selector) as t
  where (p_owner_id is null or a.owner_id = p_owner_id) and (p_profile_ids is null or a.profile_id = any (p_profile_ids))
$$;

comment on function fleet.assigned_profiles(uuid, text[]) is
  'Every device of every assignment with its profile, of one owner or of all, of these profiles or of all.';
revoke all on function fleet.assigned_profiles(uuid, text[]) from public, anon, authenticated, service_role;

create or replace function fleet.wishes_for_profiles(p_owner_id uuid, p_profile_ids text[])
returns table (owner_id uuid, device_id bigint, profile_id text, is_wanted boolean, rank integer, because text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select * from fleet.wishes_before_assignments(p_owner_id) as b where b.profile_id = any (p_profile_ids)
  union all
  select a.owner_id, a.device_id, a.profile_id, true, 4, 'it is assigned'
  from fleet.assigned_profiles(p_owner_id, p_profile_ids) as a
$$;

comment on function fleet.wishes_for_profiles(uuid, text[]) is
  'Everything that wants one of these profiles on a device, or off it, with its rank: what is held (by geo schedules) comes before an install for a time, '
  'that before location policies, those before assignments.';
revoke all on function fleet.wishes_for_profiles(uuid, text[]) from public, anon, authenticated, service_role;

create or replace function fleet.wanted_profiles(p_owner_id uuid)
returns table (owner_id uuid, device_id bigint, hostname text, profile_id text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with before as materialized (
    select distinct on (x.device_id, x.profile_id) x.owner_id, x.device_id, x.profile_id, x.is_wanted, x.rank
    from fleet.wishes_before_assignments(p_owner_id) as x
    order by x.device_id, x.profile_id, x.rank
  )
  select w.owner_id, w.device_id, d.hostname, w.profile_id
  from (
    select b.owner_id, b.device_id, b.profile_id
    from before as b
    -- Those of rank 2 and 3 push by themselves, at their instants; here it only matters that nothing else takes it away or brings it.
    where b.is_wanted and b.rank = 1
      or b.is_wanted and exists (
        select 1 from public.device_profiles as p where p.device_id = b.device_id and p.profile_id = b.profile_id and p.is_installed
      )
    union all
    select distinct a.owner_id, a.device_id, a.profile_id
    from fleet.assigned_profiles(p_owner_id) as a
    where not exists (select 1 from before as b where b.device_id = a.device_id and b.profile_id = a.profile_id)
  ) as w
  join public.devices as d on d.id = w.device_id and d.status = 'active'
$$;

comment on function fleet.wanted_profiles(uuid) is
  'Every device and profile that belong together by the wish that comes first (fleet.wishes_for_profiles), of one owner or of all.';
revoke all on function fleet.wanted_profiles(uuid) from public, anon, authenticated, service_role;

-- db/sources/55_profiles/62_kept.sql
-- What is to stay on a device is not taken away.

create or replace function fleet.keep_wanted_profiles(p_command_ids bigint[])
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- Planned for each list of ids otherwise.
set plan_cache_mode = force_generic_plan
as $$
declare
  v_ids bigint[];
begin
  -- The end of a temporary install, and whatever is held, which nobody takes away; all else is done as it was asked, without a look at
  -- what is wanted by a whole fleet.
  v_ids := array(
    select c.id
    from public.device_commands as c
    where c.id = any (p_command_ids)
      and (
        exists (select 1 from public.profile_installs as p where p.remove_schedule_id = c.schedule_id and p.removed_at is null)
        or exists (
          select 1 from public.profile_holds as h where h.device_id = c.device_id and h.profile_id = c.payload ->> 'profile_id'
        )
      )
  );
  if v_ids = '{}' then
    return;
  end if;

  with removal as materialized (
    select c.id, c.owner_id, c.schedule_id, c.device_id, c.payload ->> 'profile_id' as profile_id
    from public.device_commands as c
    where c.id = any (v_ids)
  ),
  -- The time of an install is over, so what comes after it in rank decides.
  wish as materialized (
    select distinct on (x.device_id, x.profile_id) x.device_id, x.profile_id, x.is_wanted, x.rank, x.because
    from (select r.owner_id, array_agg(distinct r.profile_id) as profile_ids from removal as r group by r.owner_id) as o
    cross join lateral fleet.wishes_for_profiles(o.owner_id, o.profile_ids) as x
    where (x.device_id, x.profile_id) in (select r.device_id, r.profile_id from removal as r)
    order by x.device_id, x.profile_id, x.rank
  ),
  kept as materialized (
    select r.id, r.schedule_id, r.device_id, r.profile_id, w.rank, w.because
    from removal as r
    join wish as w on w.device_id = r.device_id and w.profile_id = r.profile_id
    where w.is_wanted
  ),
  command as (
    update public.device_commands as c
    set status = 'completed', result = jsonb_build_object('kept', 'it stays, because ' || k.because)
    from kept as k
    where c.id = k.id
  ),
  install as (
    update public.profile_installs as p
    set removed_at = clock_timestamp()
    from kept as k
    where p.remove_schedule_id = k.schedule_id
  ),
  schedule as (
    update public.schedules as s
    set last_executed_at = clock_timestamp()
    from kept as k
    where s.id = k.schedule_id
  )
  -- Whoever takes the assignment or the hold back takes the profile away.
  update public.device_profiles as p
  set is_assigned = true
  from kept as k
  where k.rank in (1, 4) and p.device_id = k.device_id and p.profile_id = k.profile_id;
end;
$$;

comment on function fleet.keep_wanted_profiles(bigint[]) is
  'The end of a temporary install takes nothing away that is to stay, and nobody takes away what is held: such a removal is done without a '
  'call. The commands are new ones that remove profiles, and on the queue of the MDM already, which forgets what is final.';
revoke all on function fleet.keep_wanted_profiles(bigint[]) from public, anon, authenticated, service_role;

-- db/sources/55_profiles/65_drift.sql
-- Where devices differ from the assignments, and the pushes and removals that mend it.

create or replace function fleet.store_profile_state(
  p_device_id bigint,
  p_profile_id text,
  p_is_installed boolean,
  p_is_assigned boolean,
  p_now timestamptz
)
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  insert into public.device_profiles as p (device_id, profile_id, owner_id, is_installed, is_assigned, changed_at)
  select d.id, p_profile_id, d.owner_id, p_is_installed, coalesce(p_is_assigned, false), p_now
  from public.devices as d
  where d.id = p_device_id and p_profile_id is not null
  on conflict (device_id, profile_id) do update
    set is_installed = excluded.is_installed, changed_at = excluded.changed_at,
        is_assigned = coalesce(p_is_assigned, p.is_assigned)
$$;

comment on function fleet.store_profile_state(bigint, text, boolean, boolean, timestamptz) is
  'Store whether a profile is on a device; p_is_assigned null leaves as it is who brought it.';
revoke all on function fleet.store_profile_state(bigint, text, boolean, boolean, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.drift_of_profiles(p_owner_id uuid, p_now timestamptz)
returns table (owner_id uuid, device_id bigint, hostname text, profile_id text, action_type text, state text)
language sql
stable
set search_path = pg_catalog, pg_temp
-- Compiling the plan would take several times as long as running it.
set jit = off
as $$
  with wanted as materialized (
    select w.* from fleet.wanted_profiles(p_owner_id) as w
  ),
  drift as (
    select w.owner_id, w.device_id, w.hostname, w.profile_id, 'push_profile' as action_type
    from wanted as w
    where not exists (
      select 1
      from public.device_profiles as p
      where p.device_id = w.device_id and p.profile_id = w.profile_id and p.is_installed
    )
    union all
    select p.owner_id, p.device_id, d.hostname, p.profile_id, 'remove_profile'
    from public.device_profiles as p
    join public.devices as d on d.id = p.device_id and d.status = 'active'
    where p.is_assigned
      and p.is_installed
      and (p_owner_id is null or p.owner_id = p_owner_id)
      and not exists (select 1 from wanted as w where w.device_id = p.device_id and w.profile_id = p.profile_id)
  ),
  -- Runs whose commands are still being made: many devices take a few ticks.
  coming as materialized (
    select distinct u.id as device_id, s.action_type, s.payload ->> 'profile_id' as profile_id
    from public.schedule_runs as r
    join public.schedules as s on s.id = r.schedule_id and s.action_type in ('push_profile', 'remove_profile')
    cross join unnest(s.device_ids) as u(id)
    where r.expanded_at is null and r.status in ('pending', 'running') and (p_owner_id is null or r.owner_id = p_owner_id)
  )
  select d.owner_id, d.device_id, d.hostname, d.profile_id, d.action_type,
    case
      when m.device_id is null then 'in no MDM'
      when c.status in ('pending', 'running') or k.device_id is not null then 'under way'
      -- What fails is tried again, but not for ever at the same pace.
      when c.status in ('failed', 'expired') and c.executed_at > p_now - interval '1 hour' then 'failed lately'
      else 'missing'
    end
  from drift as d
  left join fleet.mdms_of(array(select x.device_id from drift as x)) as m on m.device_id = d.device_id
  left join lateral (
    select x.status, x.executed_at
    from public.device_commands as x
    where x.device_id = d.device_id
      and x.channel = 'mdm'
      and x.command_type = d.action_type
      and x.payload ->> 'profile_id' = d.profile_id
    order by x.created_at desc, x.id desc
    limit 1
  ) as c on true
  left join coming as k on k.device_id = d.device_id and k.action_type = d.action_type and k.profile_id = d.profile_id
$$;

comment on function fleet.drift_of_profiles(uuid, timestamptz) is 'See public.profile_drift; of one owner, or of all.';
revoke all on function fleet.drift_of_profiles(uuid, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.profile_drift(p_owner_id uuid, p_now timestamptz)
returns table (owner_id uuid, device_id bigint, hostname text, profile_id text, action_type text, state text)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid := fleet.owner_or_own(p_owner_id);
begin
  perform fleet.require_permission(v_owner, 'view', format('owner %s', v_owner));
  return query
  select d.* from fleet.drift_of_profiles(v_owner, p_now) as d order by d.profile_id, d.hostname;
end;
$$;

comment on function fleet.profile_drift(uuid, timestamptz) is 'See public.profile_drift. Definer: it checks the caller.';
revoke all on function fleet.profile_drift(uuid, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.profile_drift(uuid, timestamptz) to authenticated, service_role;

create or replace function public.profile_drift(p_owner_id uuid default null)
returns table (owner_id uuid, device_id bigint, hostname text, profile_id text, action_type text, state text)
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select * from fleet.profile_drift(p_owner_id, clock_timestamp())
$$;

comment on function public.profile_drift(uuid) is
  'Where devices differ from the assignments: push_profile or remove_profile, and its state: missing (reconcile_profiles does it next), '
  'under way, failed lately (again after an hour) or in no MDM. Raises owner_not_found (PT404).';
revoke all on function public.profile_drift(uuid) from public, anon, authenticated, service_role;
grant execute on function public.profile_drift(uuid) to authenticated, service_role;

create or replace function fleet.reconcile_owner(p_owner_id uuid, p_now timestamptz)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_group record;
  v_pushes integer := 0;
  v_removals integer := 0;
begin
  -- Two who reconcile at once take turns, and the second finds the work of the first under way.
  perform pg_advisory_xact_lock(hashtextextended('pgfleet.reconcile:' || p_owner_id, 0));
  for v_group in
    -- As many at a time as one list takes: ten thousand more are another schedule.
    select d.profile_id, d.action_type, array_agg(d.device_id order by d.device_id) as device_ids
    from (
      select x.profile_id, x.action_type, x.device_id,
        (row_number() over (partition by x.profile_id, x.action_type order by x.device_id) - 1) / fleet.limit_value('device_list') as part
      from fleet.drift_of_profiles(p_owner_id, p_now) as x
      where x.state = 'missing'
    ) as d
    group by d.profile_id, d.action_type, d.part
    order by d.profile_id, d.action_type, d.part
  loop
    insert into public.device_profiles as p (device_id, profile_id, owner_id, is_installed, is_assigned, changed_at)
    select u.id, v_group.profile_id, p_owner_id, false, true, p_now
    from unnest(v_group.device_ids) as u(id)
    where v_group.action_type = 'push_profile'
    on conflict (device_id, profile_id) do update set is_assigned = true;

    insert into public.schedules (
      owner_id, name, action_type, payload, recurrence_type, start_time, timezone, device_ids
    )
    values (
      p_owner_id,
      format('%s %s as assigned', case v_group.action_type when 'push_profile' then 'install' else 'remove' end, v_group.profile_id),
      v_group.action_type, jsonb_build_object('profile_id', v_group.profile_id), 'once', p_now, 'UTC', v_group.device_ids
    );
    if v_group.action_type = 'push_profile' then
      v_pushes := v_pushes + cardinality(v_group.device_ids);
    else
      v_removals := v_removals + cardinality(v_group.device_ids);
    end if;
  end loop;
  return jsonb_build_object('pushes', v_pushes, 'removals', v_removals);
end;
$$;

comment on function fleet.reconcile_owner(uuid, timestamptz) is
  'Make a schedule for each profile and action that is missing somewhere, several where one list does not take all of the devices. {pushes, '
  'removals}.';
revoke all on function fleet.reconcile_owner(uuid, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.reconcile_profiles(p_owner_id uuid, p_now timestamptz)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid := fleet.owner_or_own(p_owner_id);
begin
  perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
  return fleet.reconcile_owner(v_owner, p_now);
end;
$$;

comment on function fleet.reconcile_profiles(uuid, timestamptz) is 'See public.reconcile_profiles. Definer: it checks the caller.';
revoke all on function fleet.reconcile_profiles(uuid, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.reconcile_profiles(uuid, timestamptz) to authenticated, service_role;

create or replace function public.reconcile_profiles(p_owner_id uuid default null)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.reconcile_profiles(p_owner_id, now())
$$;

comment on function public.reconcile_profiles(uuid) is
  'Push what is assigned and missing, remove what an assignment brought and is no longer assigned; the tick does the same every minute. '
  '{pushes, removals}. Raises owner_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.reconcile_profiles(uuid) from public, anon, authenticated, service_role;
grant execute on function public.reconcile_profiles(uuid) to authenticated, service_role;

create or replace function fleet.reconcile_all(p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid;
  v_count integer := 0;
begin
  for v_owner in
    select a.owner_id from public.profile_assignments as a
    union
    select h.owner_id from public.profile_holds as h
    union
    select p.owner_id from public.device_profiles as p where p.is_assigned and p.is_installed
  loop
    begin
      perform fleet.reconcile_owner(v_owner, p_now);
      v_count := v_count + 1;
    exception
      when query_canceled or admin_shutdown or deadlock_detected then
        raise;
      when others then
        raise warning 'the profiles of owner % are left as they are: %', v_owner, sqlerrm;
    end;
  end loop;
  return v_count;
end;
$$;

comment on function fleet.reconcile_all(timestamptz) is 'Reconcile every owner who has assignments or holds. Answers how many.';
revoke all on function fleet.reconcile_all(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.forget_profiles(p_device_ids bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  update public.device_profiles as p
  set is_installed = false, changed_at = clock_timestamp()
  where p.device_id = any (p_device_ids)
    and p.is_installed
    and not exists (select 1 from fleet.mdms_of(p_device_ids) as m where m.device_id = p.device_id)
$$;

comment on function fleet.forget_profiles(bigint[]) is
  'Those of these devices that are in no MDM any more have lost what came from it: when they are back it is missing.';
revoke all on function fleet.forget_profiles(bigint[]) from public, anon, authenticated, service_role;

-- db/sources/55_profiles/views.sql
-- What is installed where and for how long, as people ask for it.

create or replace view public.profile_schedules with (security_invoker = true) as
select
  s.id,
  s.owner_id,
  s.profile_id,
  s.device_id,
  d.hostname,
  s.action_type,
  s.start_time,
  s.created_at,
  s.last_executed_at,
  s.ui_initiated,
  case
    when s.status = 'cancelled' and (c.id is null or c.status = 'cancelled') then 'Cancelled'
    when c.status in ('failed', 'expired', 'cancelled') and s.next_run_at is null then 'Failed'
    when s.id = p.install_schedule_id and p.failure is not null then 'Failed'
    when s.next_run_at is null and exists (
      select 1
      from public.schedule_runs as r
      where r.schedule_id = s.id and r.targeted = 0 and r.status in ('skipped', 'failed', 'cancelled')
    ) then 'Failed'
    when s.last_executed_at is not null then 'Executed'
    when s.start_time > now() then 'Pending'
    else 'Due for execution'
  end as state,
  case
    when c.status in ('pending', 'running', 'completed') then c.error_message
    when c.id is not null then coalesce(c.error_message, c.reason)
    when s.status in ('cancelled', 'paused') then s.status_reason
    when s.status = 'completed' then (
      select coalesce(r.error_message, r.reason)
      from public.schedule_runs as r
      where r.schedule_id = s.id and r.targeted = 0 and r.status in ('skipped', 'failed', 'cancelled')
      order by r.id desc
      limit 1
    )
  end as reason,
  c.id as command_id,
  c.status as command_status,
  p.id as install_id,
  (
    select k.name
    from public.device_links as l
    join public.device_integrations as n on n.id = l.integration_id and n.status <> 'disabled'
    join public.profiles as k on k.integration_id = l.integration_id and k.external_id = s.profile_id
    where l.device_id = s.device_id and l.left_at is null
    order by (n.status = 'active') desc, n.id
    limit 1
  ) as profile_name
from public.schedules as s
left join public.devices as d on d.id = s.device_id
left join public.profile_installs as p on s.id in (p.install_schedule_id, p.remove_schedule_id)
left join lateral (
  select x.id, x.status, x.error_message, x.reason
  from public.device_commands as x
  where x.schedule_id = s.id and x.device_id = s.device_id
  order by x.id desc
  limit 1
) as c on true
where s.action_type in ('push_profile', 'remove_profile');

comment on view public.profile_schedules is 'Every schedule that installs or removes a profile, and what became of it.';
comment on column public.profile_schedules.profile_id is 'The MDM''s id of the profile.';
comment on column public.profile_schedules.hostname is 'The device, where there is exactly one.';
comment on column public.profile_schedules.action_type is 'push_profile or remove_profile.';
comment on column public.profile_schedules.last_executed_at is
  'When the MDM last took it; of what came to nothing, when it was tried last.';
comment on column public.profile_schedules.ui_initiated is 'Whether a person made it by hand.';
comment on column public.profile_schedules.state is
  'Pending (its time is to come), Due for execution, Executed (the MDM took it), Failed or Cancelled.';
comment on column public.profile_schedules.reason is 'Why it failed, was cancelled or rests; empty where all went well.';
comment on column public.profile_schedules.command_status is 'Status of the latest command; completed where the device showed the effect.';
comment on column public.profile_schedules.install_id is 'The install of install_profile that it belongs to.';
comment on column public.profile_schedules.profile_name is 'What the MDM of the device calls the profile; null where that is not known.';

create or replace view public.temporary_profiles with (security_invoker = true) as
select
  p.id as install_id,
  p.install_schedule_id,
  p.remove_schedule_id,
  p.owner_id,
  p.profile_id,
  p.device_id,
  d.hostname,
  coalesce(i.start_time, p.install_time) as install_time,
  p.installed_at,
  coalesce(r.start_time, p.removal_time) as scheduled_removal_time,
  p.removed_at,
  p.duration,
  extract(epoch from p.duration) / 60 as duration_minutes,
  case
    when p.removed_at is not null then 'removed'
    when p.failure is not null then 'never installed'
    when r.status = 'cancelled' or p.removal_cancelled is not null then 'removal cancelled'
    when r.id is null then 'removal deleted'
    when p.installed_at is null then 'waiting'
    when r.next_run_at is not null then 'installed'
    when exists (
      select 1 from public.device_commands as c where c.schedule_id = r.id and c.status in ('pending', 'running')
    ) then 'removing'
    else 'removal failed'
  end as state,
  case
    when p.removed_at is not null then null
    when p.failure is not null then p.failure
    when p.removal_cancelled is not null then p.removal_cancelled
    when r.status in ('cancelled', 'paused') then r.status_reason
    when r.status = 'completed' then coalesce(
      (
        select case when c.status in ('failed', 'expired', 'cancelled') then coalesce(c.error_message, c.reason, c.status) end
        from public.device_commands as c
        where c.schedule_id = r.id
        order by c.id desc
        limit 1
      ),
      (
        select coalesce(x.error_message, x.reason)
        from public.schedule_runs as x
        where x.schedule_id = r.id and x.targeted = 0 and x.status in ('skipped', 'failed', 'cancelled')
        order by x.id desc
        limit 1
      )
    )
  end as reason,
  p.created_at,
  (
    select k.name
    from public.device_links as l
    join public.device_integrations as n on n.id = l.integration_id and n.status <> 'disabled'
    join public.profiles as k on k.integration_id = l.integration_id and k.external_id = p.profile_id
    where l.device_id = p.device_id and l.left_at is null
    order by (n.status = 'active') desc, n.id
    limit 1
  ) as profile_name
from public.profile_installs as p
left join public.schedules as i on i.id = p.install_schedule_id
join public.devices as d on d.id = p.device_id
left join public.schedules as r on r.id = p.remove_schedule_id
where p.duration is not null;

comment on view public.temporary_profiles is 'Every profile that was installed for a time, with both of its schedules.';
comment on column public.temporary_profiles.install_id is 'What extend_profile and end_profile take.';
comment on column public.temporary_profiles.install_schedule_id is
  'The push_profile schedule; null where it was cancelled before anything came of it.';
comment on column public.temporary_profiles.remove_schedule_id is
  'The remove_profile schedule; null where it was cancelled before anything came of it, or deleted.';
comment on column public.temporary_profiles.profile_id is 'The MDM''s id of the profile.';
comment on column public.temporary_profiles.hostname is 'The device.';
comment on column public.temporary_profiles.install_time is 'When the push was due.';
comment on column public.temporary_profiles.installed_at is 'When the MDM took the push.';
comment on column public.temporary_profiles.scheduled_removal_time is 'When the removal is, or was, due.';
comment on column public.temporary_profiles.removed_at is 'When the MDM took the removal.';
comment on column public.temporary_profiles.duration is 'How long the profile is to stay.';
comment on column public.temporary_profiles.duration_minutes is 'The same in minutes.';
comment on column public.temporary_profiles.state is
  'waiting, installed, removing, removed, never installed, removal cancelled, removal failed or removal deleted.';
comment on column public.temporary_profiles.reason is 'Why it was never installed, or is not removed; empty where all goes well.';
comment on column public.temporary_profiles.profile_name is 'What the MDM of the device calls the profile; null where that is not known.';

drop view if exists public.profile_list;
create view public.profile_list with (security_invoker = true) as
select
  p.id,
  p.owner_id,
  p.external_id as profile_id,
  p.name,
  p.kind,
  p.status,
  i.name as integration,
  p.integration_id,
  p.error_message,
  p.is_managed,
  p.options,
  p.content_sha256,
  p.payload_identifier,
  (
    select string_agg(o.name, ', ' order by o.name)
    from public.profiles as o
    where o.integration_id = p.integration_id and o.payload_identifier = p.payload_identifier and o.id <> p.id
  ) as replaces,
  p.uploaded_at,
  p.seen_at,
  p.created_at
from public.profiles as p
join public.device_integrations as i on i.id = p.integration_id;

comment on view public.profile_list is
  'Profiles that the MDMs have, or are to have.';
comment on column public.profile_list.profile_id is 'The MDM''s id of the profile; null while it is not there.';
comment on column public.profile_list.integration is 'The name of the MDM.';
comment on column public.profile_list.replaces is
  'Other profiles of this MDM with the same PayloadIdentifier: on a device one takes the place of the other; null where there is none.';
select fleet.inherit_comments('public.profile_list', 'public.profiles');
revoke all on table public.profile_list from public, anon, authenticated, service_role;
grant select on table public.profile_list to authenticated, service_role;

-- db/sources/55_profiles/triggers.sql
-- What becomes of the removal of a profile when its push comes to nothing, and what is logged of profiles:
-- what people upload and delete, not what a sync finds.

create or replace function fleet.tg_fail_pushes_of_runs()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.mark_failed_pushes(f.ids)
  from (
    select array_agg(n.schedule_id) as ids
    from new_rows as n
    where n.status in ('skipped', 'failed', 'cancelled') and n.targeted = 0
  ) as f
  where f.ids is not null
    and exists (select 1 from public.profile_installs as p where p.install_schedule_id = any (f.ids));

  -- What is over was tried, whatever came of it: nothing that reads when it was executed last takes it for due.
  update public.schedules as s
  set last_executed_at = coalesce(
    (select max(c.executed_at) from public.device_commands as c where c.schedule_id = s.id), n.finished_at, clock_timestamp()
  )
  from new_rows as n
  where n.status in ('completed', 'failed', 'skipped', 'cancelled')
    and s.id = n.schedule_id
    and s.action_type in ('push_profile', 'remove_profile')
    and s.last_executed_at is null;
  return null;
end;
$$;

comment on function fleet.tg_fail_pushes_of_runs() is
  'A push whose run reached no device has failed too; and what is over was executed last when it was tried last. Definer: nobody else '
  'writes profile_installs.';
revoke all on function fleet.tg_fail_pushes_of_runs() from public, anon, authenticated, service_role;

create or replace trigger schedule_runs_80_fail_pushes_insert
  after insert on public.schedule_runs
  referencing new table as new_rows
  for each statement execute function fleet.tg_fail_pushes_of_runs();
create or replace trigger schedule_runs_80_fail_pushes_update
  after update on public.schedule_runs
  referencing new table as new_rows
  for each statement execute function fleet.tg_fail_pushes_of_runs();

create or replace function fleet.tg_fail_cancelled_pushes()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.mark_failed_pushes(array[new.id]);
  return null;
end;
$$;

comment on function fleet.tg_fail_cancelled_pushes() is
  'A push that is cancelled takes its removal along. Definer: nobody else writes profile_installs.';
revoke all on function fleet.tg_fail_cancelled_pushes() from public, anon, authenticated, service_role;

create or replace trigger schedules_80_fail_pushes
  after update of status on public.schedules
  for each row
  when (new.status = 'cancelled' and old.status <> 'cancelled' and new.action_type = 'push_profile')
  execute function fleet.tg_fail_cancelled_pushes();

create or replace function fleet.tg_forget_called_off_profile()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- What something came of is history.
  if exists (select 1 from public.schedule_runs as r where r.schedule_id = new.id)
    or exists (select 1 from public.device_commands as c where c.schedule_id = new.id)
  then
    return null;
  end if;
  -- What follows it would wait for ever: it is paused, and knows why.
  update public.schedules as f
  set status = 'paused',
      status_reason = fleet.cut_text(concat_ws(': ', format('"%s", which it followed, was cancelled before it ran', new.name), new.status_reason), 255)
  where f.after_schedule_id = new.id and f.status = 'active';
  perform fleet.cancel_failed_removals(p.id) from public.profile_installs as p where p.install_schedule_id = new.id;
  update public.profile_installs as p
  set install_schedule_id = null, install_time = new.start_time
  where p.install_schedule_id = new.id;
  update public.profile_installs as p
  set remove_schedule_id = null, removal_time = new.start_time,
    removal_cancelled = fleet.cut_text(coalesce(new.status_reason, 'cancelled'), 255)
  where p.remove_schedule_id = new.id;
  delete from public.schedules as s where s.id = new.id;
  return null;
end;
$$;

comment on function fleet.tg_forget_called_off_profile() is
  'What was to install or remove a profile and is cancelled before anything came of it is due no more, and was executed never: it leaves '
  'every list, its install keeps when and why, and what followed it is paused with the reason. Definer: nobody else writes profile_installs.';
revoke all on function fleet.tg_forget_called_off_profile() from public, anon, authenticated, service_role;

create or replace trigger schedules_85_forget_called_off_profile
  after update of status on public.schedules
  for each row
  when (
    new.status = 'cancelled'
    and old.status <> 'cancelled'
    and new.action_type in ('push_profile', 'remove_profile')
    and new.last_executed_at is null
  )
  execute function fleet.tg_forget_called_off_profile();

create or replace function fleet.tg_note_profile()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.profiles := case tg_op when 'INSERT' then new else old end;
begin
  insert into public.audit_log (owner_id, actor, actor_role, actor_label, table_name, row_id, action, old, new)
  select v_row.owner_id, a.actor, a.actor_role, a.actor_label, tg_table_name, v_row.id::text, lower(tg_op),
    case when tg_op = 'DELETE' then fleet.audited(to_jsonb(v_row), tg_argv[0]::text[]) end,
    case when tg_op = 'INSERT' then fleet.audited(to_jsonb(v_row), tg_argv[0]::text[]) end
  from fleet.audit_actor() as a;
  return null;
end;
$$;

comment on function fleet.tg_note_profile() is
  'Log a profile that was uploaded or deleted; its file is in another table. Definer: nobody may write the log.';
revoke all on function fleet.tg_note_profile() from public, anon, authenticated, service_role;

create or replace trigger profiles_90_note_inserted
  after insert on public.profiles
  for each row when (new.is_managed) execute function fleet.tg_note_profile('{created_at,updated_at}');
create or replace trigger profiles_91_note_change
  after update on public.profiles
  for each row
  when (
    new.is_managed
    and new.status in ('pending', 'deleting')
    and (new.name, new.status, new.options, new.content_sha256)
    is distinct from (old.name, old.status, old.options, old.content_sha256)
  )
  execute function fleet.tg_note_change('{created_at,updated_at}');
create or replace trigger profiles_92_note_deleted
  after delete on public.profiles
  for each row when (old.is_managed) execute function fleet.tg_note_profile('{created_at,updated_at}');

select fleet.keep_audit('public.profile_assignments', p_verbs => '{insert,delete}');

-- db/sources/55_profiles/access.sql
-- Who sees profiles, where they are installed and for how long: the owner's people. They change them through functions; the
-- files are nobody's to read.

revoke all on table public.profile_installs, public.profile_schedules, public.temporary_profiles
  from public, anon, authenticated, service_role;
revoke all on sequence public.profile_installs_id_seq from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.profile_installs to service_role;
grant usage, select on sequence public.profile_installs_id_seq to service_role;
grant select on table public.profile_schedules, public.temporary_profiles to authenticated, service_role;
drop policy if exists profile_installs_all_service_role on public.profile_installs;
create policy profile_installs_all_service_role on public.profile_installs
  for all to service_role using (true) with check (true);

grant select on table public.profile_installs to authenticated;
drop policy if exists profile_installs_select_member on public.profile_installs;
create policy profile_installs_select_member on public.profile_installs
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

revoke all on table public.profile_assignments, public.device_profiles from public, anon, authenticated, service_role;
revoke all on sequence public.profile_assignments_id_seq from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.profile_assignments, public.device_profiles to service_role;
grant usage, select on sequence public.profile_assignments_id_seq to service_role;
grant select on table public.profile_assignments, public.device_profiles to authenticated;

drop policy if exists profile_assignments_all_service_role on public.profile_assignments;
create policy profile_assignments_all_service_role on public.profile_assignments
  for all to service_role using (true) with check (true);
drop policy if exists device_profiles_all_service_role on public.device_profiles;
create policy device_profiles_all_service_role on public.device_profiles
  for all to service_role using (true) with check (true);
drop policy if exists profile_assignments_select_member on public.profile_assignments;
create policy profile_assignments_select_member on public.profile_assignments
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists device_profiles_select_member on public.device_profiles;
create policy device_profiles_select_member on public.device_profiles
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

revoke all on table public.profiles, fleet.profile_uploads from public, anon, authenticated, service_role;
revoke all on sequence public.profiles_id_seq from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.profiles to service_role;
grant usage, select on sequence public.profiles_id_seq to service_role;
grant select on table public.profiles to authenticated;

drop policy if exists profiles_all_service_role on public.profiles;
create policy profiles_all_service_role on public.profiles
  for all to service_role using (true) with check (true);
drop policy if exists profiles_select_member on public.profiles;
create policy profiles_select_member on public.profiles
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

revoke all on table public.profile_holds from public, anon, authenticated, service_role;
-- Whoever holds a profile is a function.
grant select on table public.profile_holds to authenticated, service_role;
drop policy if exists profile_holds_select_service_role on public.profile_holds;
create policy profile_holds_select_service_role on public.profile_holds for select to service_role using (true);
drop policy if exists profile_holds_select_member on public.profile_holds;
create policy profile_holds_select_member on public.profile_holds
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));

set check_function_bodies = on;
reset search_path;
