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
  v_owner uuid := fleet.owner_or_own(p_owner_id);
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

create or replace function fleet.wanted_profiles(p_owner_id uuid)
returns table (owner_id uuid, device_id bigint, hostname text, profile_id text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select a.owner_id, t.device_id, t.hostname, a.profile_id
  from public.profile_assignments as a
  cross join lateral fleet.targets(a.owner_id, a.device_ids, a.group_ids, a.selector) as t
  where p_owner_id is null or a.owner_id = p_owner_id
  union
  select h.owner_id, h.device_id, d.hostname, h.profile_id
  from public.profile_holds as h
  join public.devices as d on d.id = h.device_id and d.status = 'active'
  where p_owner_id is null or h.owner_id = p_owner_id
$$;

comment on function fleet.wanted_profiles(uuid) is
  'Every device and profile that belong together, by an assignment or because somebody holds it, of one owner or of all.';
revoke all on function fleet.wanted_profiles(uuid) from public, anon, authenticated, service_role;
