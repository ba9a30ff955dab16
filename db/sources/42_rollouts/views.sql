-- Rollouts as people list them.

drop view if exists public.rollout_list;
create view public.rollout_list with (security_invoker = true) as
select
  r.run_id, r.owner_id, r.schedule_id, s.name as schedule,
  case
    when r.completed_at is not null and r.aborted_at is null then 'completed'
    when r.aborted_at is not null and r.completed_at is null then 'aborting'
    when r.aborted_at is not null then 'aborted'
    when r.paused_at is not null then 'paused'
    when w.gated is not null then 'waiting'
    when r.next_opening_at is not null then 'closed'
    else 'running'
  end as status,
  r.reason, w.at as current_group, w.targeted, r.released, w.succeeded, w.failed, w.skipped, r.to_restore, r.restored, r.unrestored,
  r.next_opening_at, r.plan, r.created_at, r.paused_at, r.aborted_at, r.completed_at
from public.rollouts as r
join public.schedules as s on s.id = r.schedule_id
cross join lateral (
  select sum(x.targeted) as targeted, sum(x.succeeded) as succeeded, sum(x.failed) as failed, sum(x.skipped) as skipped,
    (array_agg(x.name order by x.wave desc) filter (where x.opened_at is not null))[1] as at,
    -- All that are open have passed, and the next one needs somebody's word.
    (array_agg(x.name order by x.wave) filter (
      where x.opened_at is null and x.targeted > 0
        and (x.rules ->> 'gate' = 'manual' or (x.wave = 0 and r.plan -> 'four_eyes' = 'true'))
        and not exists (
          select 1 from public.run_waves as y where y.run_id = x.run_id and y.wave < x.wave and y.passed_at is null
        )
    ))[1] as gated
  from public.run_waves as x
  where x.run_id = r.run_id
) as w;

comment on view public.rollout_list is 'Rollouts, and how far each is.';
comment on column public.rollout_list.schedule is 'The name of the schedule.';
comment on column public.rollout_list.status is
  'running, waiting (for an approval), closed (until a window opens), paused, aborting, aborted or completed.';
comment on column public.rollout_list.current_group is 'The last group whose turn has come.';
comment on column public.rollout_list.targeted is 'How many devices it is for.';
comment on column public.rollout_list.succeeded is 'On how many it was completed.';
comment on column public.rollout_list.failed is 'On how many it failed or expired.';
comment on column public.rollout_list.skipped is 'How many were cancelled.';
select fleet.inherit_comments('public.rollout_list', 'public.rollouts');
revoke all on table public.rollout_list from public, anon, authenticated, service_role;
grant select on table public.rollout_list to authenticated, service_role;

drop view if exists public.rollout_group_list;
create view public.rollout_group_list with (security_invoker = true) as
select
  w.run_id, w.owner_id, w.wave, w.name,
  case
    when r.aborted_at is not null and w.opened_at is null then 'aborted'
    when w.passed_at is not null then 'passed'
    when w.opened_at is not null then 'open'
    else 'waiting'
  end as status,
  w.targeted, w.released, w.succeeded, w.failed, w.skipped, w.failures, w.rules,
  (select count(*) from public.rollout_approvals as a where a.run_id = w.run_id and a.wave = w.wave) as approvals,
  w.opened_at, w.passed_at
from public.run_waves as w
join public.rollouts as r on r.run_id = w.run_id;

comment on view public.rollout_group_list is 'The groups of rollouts in their order, and how far each is.';
comment on column public.rollout_group_list.status is 'waiting, open, passed or aborted.';
comment on column public.rollout_group_list.approvals is 'How many people let it have its turn.';
select fleet.inherit_comments('public.rollout_group_list', 'public.run_waves');
revoke all on table public.rollout_group_list from public, anon, authenticated, service_role;
grant select on table public.rollout_group_list to authenticated, service_role;
