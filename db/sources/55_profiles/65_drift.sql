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
