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
