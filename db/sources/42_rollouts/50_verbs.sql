-- What people do with a rollout: pause, resume, abort, approve.

create or replace function fleet.set_rollout(p_run_id bigint, p_what text, p_reason text, p_now timestamptz)
returns public.rollouts
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rollout public.rollouts;
begin
  update public.rollouts as r
  set paused_at = case p_what when 'paused' then coalesce(r.paused_at, p_now) when 'running' then null else r.paused_at end,
      aborted_at = case p_what when 'aborted' then coalesce(r.aborted_at, p_now) else r.aborted_at end,
      reason = case p_what when 'running' then null else p_reason end,
      restore_from = case when p_what = 'aborted' and r.aborted_at is null and r.plan ? 'compensate' then 0 else r.restore_from end,
      next_look_at = case when p_what = 'paused' then null else p_now end
  where r.run_id = p_run_id
  returning * into v_rollout;
  return v_rollout;
end;
$$;

comment on function fleet.set_rollout(bigint, text, text, timestamptz) is 'Write down that a rollout is paused, running or aborted from now on, and why.';
revoke all on function fleet.set_rollout(bigint, text, text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.rollout_of_caller(p_run_id bigint)
returns public.rollouts
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rollout public.rollouts;
  v_what text := format('rollout %s', p_run_id);
begin
  select r.* into v_rollout from public.rollouts as r where r.run_id = p_run_id and fleet.is_visible_owner(r.owner_id) for no key update;
  if not found then
    perform fleet.raise_not_found(v_what);
  end if;
  perform fleet.require_permission(v_rollout.owner_id, 'operate', v_what);
  return v_rollout;
end;
$$;

comment on function fleet.rollout_of_caller(bigint) is
  'The rollout, locked, if the caller may decide about it. Raises rollout_not_found (PT404) or permission_missing (PT403). It must not run with '
  'fewer rights than a definer function.';
revoke all on function fleet.rollout_of_caller(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.change_rollout(p_run_id bigint, p_what text, p_reason text)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rollout public.rollouts := fleet.rollout_of_caller(p_run_id);
  v_now timestamptz := clock_timestamp();
begin
  if v_rollout.completed_at is not null or (v_rollout.aborted_at is not null and p_what <> 'aborted') then
    raise exception 'rollout % is over', p_run_id
      using errcode = 'PT409', detail = 'rollout_over', hint = 'Try its failures again with: select retry_deployment(id) from deployments';
  end if;
  if p_what = 'running' then
    -- Whoever resumes has seen that a group missed its threshold, and goes on all the same.
    update public.run_waves as w
    set passed_at = v_now
    from unnest(fleet.waves_of(p_run_id)) as c
    where w.run_id = p_run_id and w.wave = c.wave and c.opened_at is not null and c.passed_at is null
      and fleet.wave_verdict(c) = 'missed';
  end if;
  return to_jsonb(fleet.set_rollout(p_run_id, p_what, coalesce(p_reason, 'by hand'), v_now));
end;
$$;

comment on function fleet.change_rollout(bigint, text, text) is
  'Pause, resume or abort a rollout; the same again changes nothing. Raises rollout_not_found (PT404), permission_missing (PT403) or rollout_over '
  '(PT409). Definer: it checks the caller.';
revoke all on function fleet.change_rollout(bigint, text, text) from public, anon, authenticated, service_role;
grant execute on function fleet.change_rollout(bigint, text, text) to authenticated, service_role;

create or replace function public.pause_rollout(p_run_id bigint, p_reason text default null)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.change_rollout(p_run_id, 'paused', p_reason)
$$;

comment on function public.pause_rollout(bigint, text) is
  'Let nobody else of a rollout have a turn; who has it goes on. Raises rollout_not_found (PT404), permission_missing (PT403) or rollout_over (PT409).';
revoke all on function public.pause_rollout(bigint, text) from public, anon, authenticated, service_role;
grant execute on function public.pause_rollout(bigint, text) to authenticated, service_role;

create or replace function public.resume_rollout(p_run_id bigint)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.change_rollout(p_run_id, 'running', null)
$$;

comment on function public.resume_rollout(bigint) is
  'Let a paused rollout go on. Raises rollout_not_found (PT404), permission_missing (PT403) or rollout_over (PT409).';
revoke all on function public.resume_rollout(bigint) from public, anon, authenticated, service_role;
grant execute on function public.resume_rollout(bigint) to authenticated, service_role;

create or replace function public.abort_rollout(p_run_id bigint, p_reason text default null)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.change_rollout(p_run_id, 'aborted', p_reason)
$$;

comment on function public.abort_rollout(bigint, text) is
  'End a rollout: what no device has begun is cancelled, and the compensating action, if its plan has one, goes to those who have it. Raises '
  'rollout_not_found (PT404), permission_missing (PT403) or rollout_over (PT409).';
revoke all on function public.abort_rollout(bigint, text) from public, anon, authenticated, service_role;
grant execute on function public.abort_rollout(bigint, text) to authenticated, service_role;

create or replace function fleet.approve_rollout(p_run_id bigint, p_note text)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rollout public.rollouts := fleet.rollout_of_caller(p_run_id);
  v_wave fleet.wave_count;
  v_user uuid := fleet.current_user_id();
begin
  select w.* into v_wave
  from unnest(fleet.waves_of(p_run_id)) as w
  where w.opened_at is null and fleet.needs_approval(v_rollout.plan, w) > 0
  order by w.wave
  limit 1;
  if v_wave.wave is null or v_rollout.aborted_at is not null then
    raise exception 'nothing of rollout % waits for an approval', p_run_id
      using errcode = 'PT409', detail = 'nothing_to_approve',
            hint = format('Look at its groups with: select * from rollout_group_list where run_id = %s', p_run_id);
  elsif v_user is null then
    raise exception 'an approval needs a person who is signed in'
      using errcode = 'PT403', detail = 'not_a_person', hint = 'Sign in as a member of the fleet.';
  elsif v_rollout.plan -> 'four_eyes' = 'true' and exists (
    select 1 from fleet.rollout_authors as a where a.schedule_id = v_rollout.schedule_id and a.user_id = v_user
  ) then
    raise exception 'who wrote a rollout cannot approve it'
      using errcode = 'PT403', detail = 'four_eyes_required', hint = 'Ask another member of the fleet to approve it.';
  end if;

  insert into public.rollout_approvals (run_id, wave, user_id, owner_id, note)
  values (p_run_id, v_wave.wave, v_user, v_rollout.owner_id, p_note)
  on conflict do nothing;
  update public.rollouts as r set next_look_at = clock_timestamp() where r.run_id = p_run_id returning * into v_rollout;
  return to_jsonb(v_rollout) || jsonb_build_object(
    'group', v_wave.name,
    'approvals', (select count(*) from public.rollout_approvals as a where a.run_id = p_run_id and a.wave = v_wave.wave),
    'approvals_needed', fleet.needs_approval(v_rollout.plan, v_wave)
  );
end;
$$;

comment on function fleet.approve_rollout(bigint, text) is 'See public.approve_rollout. Definer: it checks the caller.';
revoke all on function fleet.approve_rollout(bigint, text) from public, anon, authenticated, service_role;
grant execute on function fleet.approve_rollout(bigint, text) to authenticated, service_role;

create or replace function public.approve_rollout(p_run_id bigint, p_note text default null)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.approve_rollout(p_run_id, p_note)
$$;

comment on function public.approve_rollout(bigint, text) is
  'Let the next gated group of a rollout have its turn, as one of the people that it needs. Raises rollout_not_found (PT404), permission_missing, '
  'not_a_person or four_eyes_required (PT403), or nothing_to_approve (PT409).';
revoke all on function public.approve_rollout(bigint, text) from public, anon, authenticated, service_role;
grant execute on function public.approve_rollout(bigint, text) to authenticated, service_role;
