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
