-- Making, changing and deleting geo schedules. A row is never edited: the new one takes over when the old one's delay is over.

create or replace function fleet.geo_schedule_of_caller(p_geo_schedule_id bigint, p_permission text)
returns public.geo_schedules
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.geo_schedules;
begin
  select s.* into v_row
  from public.geo_schedules as s
  where s.id = p_geo_schedule_id and fleet.is_visible_owner(s.owner_id)
  for update;
  if not found then
    perform fleet.raise_not_found(format('geo schedule %s', p_geo_schedule_id));
  end if;
  perform fleet.require_permission(v_row.owner_id, p_permission, format('geo schedule %s', p_geo_schedule_id));
  return v_row;
end;
$$;

comment on function fleet.geo_schedule_of_caller(bigint, text) is
  'The locked row, if the caller has the permission. Raises geo_schedule_not_found (PT404) or permission_missing (PT403).';
revoke all on function fleet.geo_schedule_of_caller(bigint, text) from public, anon, authenticated, service_role;

create or replace function fleet.require_live_geo_schedule(p_row public.geo_schedules)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_row.delete_started_date is not null then
    raise exception 'geo schedule % is %', p_row.id, case when p_row.replaced_by is null then 'deleted' else 'replaced' end
      using errcode = 'PT409', detail = 'geo_schedule_deleted',
            hint = case
              when p_row.replaced_by is null then 'Make a new one: select create_geo_schedule(<spec>)'
              else format('Change the one that replaced it: %s', p_row.replaced_by)
            end;
  end if;
end;
$$;

comment on function fleet.require_live_geo_schedule(public.geo_schedules) is
  'Raise geo_schedule_deleted (PT409) where it was deleted or replaced.';
revoke all on function fleet.require_live_geo_schedule(public.geo_schedules) from public, anon, authenticated, service_role;

create or replace function fleet.store_geo_schedule(p_row public.geo_schedules)
returns public.geo_schedules
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.geo_schedules;
begin
  insert into public.geo_schedules as s (
    owner_id, name, device_id, group_id, location_id, side, apps, categories, enforce, start_minute, end_minute, recurrence, days,
    timezone, update_delay_type, update_delay_seconds, unknown_location, max_location_age, notes, replaces
  )
  values (
    p_row.owner_id, p_row.name, p_row.device_id, p_row.group_id, p_row.location_id, p_row.side, p_row.apps, p_row.categories,
    p_row.enforce, p_row.start_minute, p_row.end_minute, p_row.recurrence, p_row.days, p_row.timezone, p_row.update_delay_type,
    p_row.update_delay_seconds, p_row.unknown_location, p_row.max_location_age, p_row.notes, p_row.replaces
  )
  returning s.* into v_row;
  -- Read again: what follows from the row is there by now.
  select s.* into v_row from public.geo_schedules as s where s.id = v_row.id;
  return v_row;
end;
$$;

comment on function fleet.store_geo_schedule(public.geo_schedules) is 'Insert a new row; the triggers make what follows from it.';
revoke all on function fleet.store_geo_schedule(public.geo_schedules) from public, anon, authenticated, service_role;

create or replace function fleet.mark_geo_schedule_deleted(p_row public.geo_schedules, p_now timestamptz)
returns public.geo_schedules
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.geo_schedules;
begin
  update public.geo_schedules as s
  set delete_started_date = p_now, deletion_status = 'WAITING_FOR_CLIENT'
  where s.id = p_row.id;
  perform fleet.end_geo_commitments(array[p_row.id], null, p_now);
  update public.geo_schedules as s
  set delay_ends_at = greatest(p_now, (select max(c.until) from public.geo_commitments as c where c.geo_schedule_id = s.id))
  where s.id = p_row.id
  returning s.* into v_row;

  -- What will never be executed would only be in the way; what a device has spoken of stays.
  delete from public.geo_actions as a
  where a.geo_schedule_id = p_row.id
    and a.starts_at >= v_row.delay_ends_at
    and not exists (select 1 from public.geo_action_reports as r where r.geo_action_id = a.id);
  return v_row;
end;
$$;

comment on function fleet.mark_geo_schedule_deleted(public.geo_schedules, timestamptz) is
  'Let the delay of a live geo schedule begin. Answers the row with delay_ends_at.';
revoke all on function fleet.mark_geo_schedule_deleted(public.geo_schedules, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.replace_geo_schedule(p_old public.geo_schedules, p_new public.geo_schedules, p_now timestamptz)
returns public.geo_schedules
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_new public.geo_schedules := p_new;
begin
  perform fleet.mark_geo_schedule_deleted(p_old, p_now);
  v_new.replaces := p_old.id;
  v_new := fleet.store_geo_schedule(v_new);
  update public.geo_schedules as s set replaced_by = v_new.id where s.id = p_old.id;
  return v_new;
end;
$$;

comment on function fleet.replace_geo_schedule(public.geo_schedules, public.geo_schedules, timestamptz) is
  'Put a new row in the place of a live one: it counts from the end of the old one''s delay.';
revoke all on function fleet.replace_geo_schedule(public.geo_schedules, public.geo_schedules, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.create_geo_schedule(p_spec jsonb)
returns public.geo_schedules
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid := fleet.owner_or_own(fleet.owner_of_spec(p_spec));
begin
  perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
  return fleet.store_geo_schedule(fleet.checked_geo_schedule(fleet.empty_geo_schedule(v_owner), p_spec));
end;
$$;

comment on function fleet.create_geo_schedule(jsonb) is
  'See public.create_geo_schedule. Definer: it checks the caller first, then sees what the checks need to see.';
revoke all on function fleet.create_geo_schedule(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.create_geo_schedule(jsonb) to authenticated, service_role;

create or replace function public.create_geo_schedule(p_spec jsonb)
returns public.geo_schedules
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.create_geo_schedule(p_spec)
$$;

comment on function public.create_geo_schedule(jsonb) is
  'Make a geo schedule from JSON: name; device_id or device, or group_id or group; location_id or location with side (inside, outside), or '
  'anywhere; apps, categories, enforce; start_minute and end_minute past midnight; recurrence (daily, weekly with days, 0 is Monday); '
  'timezone; update_delay_type and update_delay_seconds; unknown_location, max_location_age, notes. Its actions are there at once, also one '
  'that is running now. Raises geo_schedule_invalid (PT422, or PT404) naming every wrong field.';
revoke all on function public.create_geo_schedule(jsonb) from public, anon, authenticated, service_role;
grant execute on function public.create_geo_schedule(jsonb) to authenticated, service_role;

create or replace function fleet.update_geo_schedule(p_geo_schedule_id bigint, p_changes jsonb, p_now timestamptz)
returns public.geo_schedules
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_old public.geo_schedules := fleet.geo_schedule_of_caller(p_geo_schedule_id, 'manage');
  v_new public.geo_schedules;
begin
  perform fleet.require_live_geo_schedule(v_old);
  v_new := fleet.checked_geo_schedule(v_old, p_changes);
  perform fleet.raise_problems(
    'the geo schedule', 'geo_schedule_invalid',
    array_agg(row('owner_id', 'cannot be changed', 'Make it anew for the other owner.')::fleet.problem)
  )
  from (select fleet.try_uuid(p_changes ->> 'owner_id') as owner_id) as n
  where n.owner_id <> v_old.owner_id;
  return fleet.replace_geo_schedule(v_old, v_new, p_now);
end;
$$;

comment on function fleet.update_geo_schedule(bigint, jsonb, timestamptz) is
  'See public.update_geo_schedule. Definer: it checks the caller first, then sees what the checks need to see.';
revoke all on function fleet.update_geo_schedule(bigint, jsonb, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.update_geo_schedule(bigint, jsonb, timestamptz) to authenticated, service_role;

create or replace function public.update_geo_schedule(p_geo_schedule_id bigint, p_changes jsonb)
returns public.geo_schedules
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.update_geo_schedule(p_geo_schedule_id, p_changes, clock_timestamp())
$$;

comment on function public.update_geo_schedule(bigint, jsonb) is
  'Change a geo schedule by the keys of create_geo_schedule: a new one is made and answered, the old one is marked and respected until its '
  'delay is over. Raises geo_schedule_not_found (PT404), permission_missing (PT403), geo_schedule_deleted (PT409) or geo_schedule_invalid '
  '(PT422).';
revoke all on function public.update_geo_schedule(bigint, jsonb) from public, anon, authenticated, service_role;
grant execute on function public.update_geo_schedule(bigint, jsonb) to authenticated, service_role;

create or replace function fleet.delete_geo_schedule(p_geo_schedule_id bigint, p_now timestamptz)
returns public.geo_schedules
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_old public.geo_schedules := fleet.geo_schedule_of_caller(p_geo_schedule_id, 'manage');
begin
  perform fleet.require_live_geo_schedule(v_old);
  return fleet.mark_geo_schedule_deleted(v_old, p_now);
end;
$$;

comment on function fleet.delete_geo_schedule(bigint, timestamptz) is 'See public.delete_geo_schedule. Definer: it checks the caller.';
revoke all on function fleet.delete_geo_schedule(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.delete_geo_schedule(bigint, timestamptz) to authenticated, service_role;

create or replace function public.delete_geo_schedule(p_geo_schedule_id bigint)
returns public.geo_schedules
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.delete_geo_schedule(p_geo_schedule_id, clock_timestamp())
$$;

comment on function public.delete_geo_schedule(bigint) is
  'Mark a geo schedule as deleted: it is respected until its delay is over (delay_ends_at), then cleanup removes it. Raises '
  'geo_schedule_not_found (PT404), permission_missing (PT403) or geo_schedule_deleted (PT409).';
revoke all on function public.delete_geo_schedule(bigint) from public, anon, authenticated, service_role;
grant execute on function public.delete_geo_schedule(bigint) to authenticated, service_role;

create or replace function fleet.heirs_of_geo_schedule(p_geo_schedule_id bigint)
returns bigint[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with recursive heirs (id) as (
    select s.id from public.geo_schedules as s where s.replaces = p_geo_schedule_id
    union
    select s.id from heirs as h join public.geo_schedules as s on s.replaces = h.id
  )
  select coalesce(array_agg(h.id), '{}') from heirs as h
$$;

comment on function fleet.heirs_of_geo_schedule(bigint) is 'What replaced a geo schedule, and what replaced that.';
revoke all on function fleet.heirs_of_geo_schedule(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.override_geo_commitment(p_geo_schedule_id bigint, p_device_id bigint, p_reason text, p_now timestamptz)
returns integer
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.geo_schedules := fleet.geo_schedule_of_caller(p_geo_schedule_id, 'admin');
  v_count integer;
  v_heirs bigint[];
begin
  if coalesce(btrim(p_reason), '') = '' or char_length(p_reason) > 2000 then
    raise exception 'p_reason must say why, in 1 to 2000 characters'
      using errcode = 'PT422', detail = 'reason_missing', hint = 'It stands in the audit log.';
  end if;
  update public.geo_commitments as c
  set until = p_now, override_reason = btrim(p_reason)
  where c.geo_schedule_id = v_row.id
    and (p_device_id is null or c.device_id = p_device_id)
    and c.override_reason is null
    -- Also what started before the end and is still running.
    and (c.until > p_now - interval '25 hours');
  get diagnostics v_count = row_count;
  if v_count = 0 then
    raise exception 'nobody owes geo schedule % beyond its end', p_geo_schedule_id
      using errcode = 'PT409', detail = 'commitment_not_ending',
            hint = 'Only what waits for its delay can be overridden: delete or change the geo schedule first.';
  end if;
  update public.geo_schedules as s
  set delay_ends_at = greatest(
    s.delete_started_date, (select max(c.until) from public.geo_commitments as c where c.geo_schedule_id = s.id)
  )
  where s.id = v_row.id and s.delete_started_date is not null;
  -- What replaces it need not wait any longer for those who were let off, however often it was changed again meanwhile.
  v_heirs := fleet.heirs_of_geo_schedule(v_row.id);
  update public.geo_commitments as c
  set effective_from = null
  where c.geo_schedule_id = any (v_heirs)
    and c.until is null
    and (p_device_id is null or c.device_id = p_device_id);
  update public.geo_schedules as n
  set effective_from = null
  where n.id = any (v_heirs)
    and n.deletion_status is null
    and exists (select 1 from public.geo_commitments as c where c.geo_schedule_id = n.id and c.until is null and c.effective_from is null);
  perform fleet.create_geo_actions(v_heirs, p_now);
  if v_row.enforce is null then
    perform fleet.ring_for_geo_actions(
      array(select c.device_id from public.geo_commitments as c where c.geo_schedule_id = v_row.id and c.until = p_now), p_now
    );
  end if;
  return v_count;
end;
$$;

comment on function fleet.override_geo_commitment(bigint, bigint, text, timestamptz) is
  'See public.override_geo_commitment. Definer: it checks the caller, and commitments are nobody''s to write.';
revoke all on function fleet.override_geo_commitment(bigint, bigint, text, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.override_geo_commitment(bigint, bigint, text, timestamptz) to authenticated, service_role;

create or replace function public.override_geo_commitment(p_geo_schedule_id bigint, p_reason text, p_device_id bigint default null)
returns integer
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.override_geo_commitment(p_geo_schedule_id, p_device_id, p_reason, clock_timestamp())
$$;

comment on function public.override_geo_commitment(bigint, text, bigint) is
  'End at once what is still owed of a geo schedule that was deleted, changed or left, for all devices or one. Needs the permission admin '
  'and a reason, which the audit log keeps. Answers how many devices. Raises geo_schedule_not_found (PT404), permission_missing (PT403), '
  'reason_missing (PT422) or commitment_not_ending (PT409).';
revoke all on function public.override_geo_commitment(bigint, text, bigint) from public, anon, authenticated, service_role;
grant execute on function public.override_geo_commitment(bigint, text, bigint) to authenticated, service_role;
