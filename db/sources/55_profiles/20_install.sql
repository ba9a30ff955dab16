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
