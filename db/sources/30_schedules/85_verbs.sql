-- Pausing, resuming and cancelling a schedule.

create or replace function fleet.schedule_of_caller(p_schedule_id bigint, p_permission text)
returns public.schedules
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules;
begin
  select s.* into v_row
  from public.schedules as s
  where s.id = p_schedule_id and fleet.is_visible_owner(s.owner_id)
  for no key update;
  if not found then
    perform fleet.raise_not_found(format('schedule %s', p_schedule_id));
  end if;
  perform fleet.require_permission(v_row.owner_id, p_permission, format('schedule %s', p_schedule_id));
  return v_row;
end;
$$;

comment on function fleet.schedule_of_caller(bigint, text) is
  'The schedule, locked, if the caller may do this with it. Raises schedule_not_found (PT404) or permission_missing (PT403). Definer: '
  'it must see the row to tell.';
revoke all on function fleet.schedule_of_caller(bigint, text) from public, anon, authenticated, service_role;

create or replace function fleet.set_schedule_status(p_schedule_id bigint, p_status text, p_reason text)
returns public.schedules
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules := fleet.schedule_of_caller(p_schedule_id, 'manage');
begin
  if v_row.status = p_status then
    return v_row;
  end if;

  if v_row.status = 'cancelled' or (v_row.status = 'completed' and p_status <> 'cancelled')
    or (p_status = 'active' and v_row.status <> 'paused')
  then
    raise exception 'schedule % is %', p_schedule_id, v_row.status
      using errcode = 'PT409',
            detail = 'schedule_' || v_row.status,
            hint = 'Change its times to use it again, or create it anew.';
  end if;

  update public.schedules as s
  set status = p_status, status_reason = p_reason
  where s.id = p_schedule_id
  returning * into v_row;
  return v_row;
end;
$$;

comment on function fleet.set_schedule_status(bigint, text, text) is
  'Pause, resume or cancel; the same again changes nothing. Raises PT404, PT403 or schedule_<status> (PT409). Definer: it checks the caller.';
revoke all on function fleet.set_schedule_status(bigint, text, text)
  from public, anon, authenticated, service_role;
grant execute on function fleet.set_schedule_status(bigint, text, text) to authenticated, service_role;

create or replace function public.pause_schedule(p_schedule_id bigint, p_reason text default null)
returns public.schedules
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.set_schedule_status(p_schedule_id, 'paused', p_reason)
$$;

comment on function public.pause_schedule(bigint, text) is
  'Let a schedule rest; what is due meanwhile is told as one row of the ledger when it resumes. Raises schedule_not_found (PT404) or '
  'schedule_completed, schedule_cancelled (PT409).';
revoke all on function public.pause_schedule(bigint, text) from public, anon, authenticated, service_role;
grant execute on function public.pause_schedule(bigint, text) to authenticated, service_role;

create or replace function public.resume_schedule(p_schedule_id bigint)
returns public.schedules
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.set_schedule_status(p_schedule_id, 'active', null)
$$;

comment on function public.resume_schedule(bigint) is
  'Go on at the next due instant. Raises schedule_not_found (PT404) or schedule_completed, schedule_cancelled (PT409).';
revoke all on function public.resume_schedule(bigint) from public, anon, authenticated, service_role;
grant execute on function public.resume_schedule(bigint) to authenticated, service_role;

create or replace function public.cancel_schedule(p_schedule_id bigint, p_reason text default null)
returns public.schedules
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.set_schedule_status(p_schedule_id, 'cancelled', p_reason)
$$;

comment on function public.cancel_schedule(bigint, text) is
  'End a schedule for good; commands that no device has started are cancelled. What was to install or remove a profile once, and has not '
  'begun, is gone with it. Raises schedule_not_found (PT404).';
revoke all on function public.cancel_schedule(bigint, text) from public, anon, authenticated, service_role;
grant execute on function public.cancel_schedule(bigint, text) to authenticated, service_role;
