-- Who sees rollouts: the people of the owner. They are written by the engine and by the functions of the verbs.

revoke all on table public.run_waves, public.rollouts, public.rollout_approvals, fleet.rollout_authors, fleet.rollout_queue,
  fleet.rollout_progress, fleet.rollout_releases
  from public, anon, authenticated, service_role;
grant select on table public.run_waves, public.rollouts, public.rollout_approvals to authenticated, service_role;

drop policy if exists run_waves_select_service_role on public.run_waves;
create policy run_waves_select_service_role on public.run_waves for select to service_role using (true);
drop policy if exists rollouts_select_service_role on public.rollouts;
create policy rollouts_select_service_role on public.rollouts for select to service_role using (true);
drop policy if exists rollout_approvals_select_service_role on public.rollout_approvals;
create policy rollout_approvals_select_service_role on public.rollout_approvals for select to service_role using (true);
drop policy if exists run_waves_select_member on public.run_waves;
create policy run_waves_select_member on public.run_waves
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists rollouts_select_member on public.rollouts;
create policy rollouts_select_member on public.rollouts
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists rollout_approvals_select_member on public.rollout_approvals;
create policy rollout_approvals_select_member on public.rollout_approvals
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
