-- What follows from a change of commands, told to each of the rooms that it concerns, and to no other: one trigger looks at the rows
-- for all of them, since devices claim and finish all the time and most of it concerns nobody.

create or replace function fleet.tg_follow_commands()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_what integer;
  v_ended bigint[];
  v_failed bigint[];
  v_waiting bigint[];
  v_is_run boolean;
  v_is_wave boolean;
begin
  -- What there is to be told, in one aggregate, since nearly every update comes by here with one row that asks for nothing:
  -- 1 an end that only what waits for it hears of, 2 any other end, 4 a deployment, 8 something of an MDM.
  select bit_or(
    case
      when n.status in ('pending', 'running') then 0
      when n.status in ('failed', 'expired') or n.run_id is not null or n.wave is not null then 2
      else 1
    end
    | case when n.command_type in ('deploy_software', 'deploy_files') then 4 else 0 end
    | case when n.channel = 'mdm' then 8 else 0 end
  ) into v_what
  from new_rows as n;

  if v_what & 3 > 0 and (v_what > 1 or exists (
    -- One look a row, whatever the plan was made for.
    select 1 from new_rows as n
    cross join lateral (select 1 from public.device_commands as c where c.waits_for = n.id limit 1) as w
  )) then
    select array_agg(n.id order by n.id), array_agg(n.id order by n.id) filter (where n.status in ('failed', 'expired')),
      count(n.run_id) > 0, count(n.wave) > 0
    into v_ended, v_failed, v_is_run, v_is_wave
    from new_rows as n
    join old_rows as o on o.id = n.id
    where o.status in ('pending', 'running') and n.status not in ('pending', 'running');
    if v_is_run then
      perform fleet.count_ended(v_ended);
    end if;
    if exists (select 1 from public.device_commands as c where c.waits_for = any (v_ended)) then
      perform fleet.queue_waiting(v_ended);
    end if;
  end if;

  if v_what & 4 > 0 then
    perform fleet.update_targets(array_agg(n.id))
    from new_rows as n
    join old_rows as o on o.id = n.id
    where fleet.is_deploy_type(n.command_type)
      and (n.status, n.attempt, n.reason, n.progress_at) is distinct from (o.status, o.attempt, o.reason, o.progress_at)
    having count(*) > 0;
  end if;
  if v_what & 8 > 0 then
    -- A time that was moved, a lease that ran out.
    select array_agg(n.id) into v_waiting
    from new_rows as n
    join old_rows as o on o.id = n.id
    where n.channel = 'mdm' and n.status = 'pending' and (o.status <> 'pending' or o.not_before <> n.not_before);
    perform fleet.follow_mdm_commands(
      v_waiting, (select array_agg(n.id) from new_rows as n where n.channel = 'mdm' and n.id = any (v_ended))
    );
  end if;
  if v_is_wave then
    perform fleet.tell_rollouts(v_ended);
  end if;
  if v_failed is not null then
    perform fleet.tell_failed_commands(v_failed);
  end if;
  return null;
end;
$$;

comment on function fleet.tg_follow_commands() is
  'Tell runs, rollouts, deployments, the queues of MDMs and whoever listens what became of commands, and ring for what waited for them. '
  'Definer: a device may write none of these.';
revoke all on function fleet.tg_follow_commands() from public, anon, authenticated, service_role;

-- Those of before, each of which looked by itself.
drop trigger if exists device_commands_05_count_progress on public.device_commands;
drop trigger if exists device_commands_07_move_targets on public.device_commands;
drop trigger if exists device_commands_08_follow_mdm on public.device_commands;
drop trigger if exists device_commands_08_tell_rollouts on public.device_commands;
drop trigger if exists device_commands_90_tell on public.device_commands;
drop function if exists fleet.tg_move_targets();
drop function if exists fleet.tg_follow_mdm_commands();
drop function if exists fleet.tg_tell_rollouts();
drop function if exists fleet.tg_tell_commands();
create or replace trigger device_commands_05_follow
  after update on public.device_commands
  referencing old table as old_rows new table as new_rows
  for each statement execute function fleet.tg_follow_commands();

create or replace function fleet.tg_follow_new_commands()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_deployments bigint[];
  v_for_mdms bigint[];
  v_held bigint[];
  v_removals bigint[];
begin
  -- Nearly all are none of these.
  if not exists (
    select 1 from new_rows as n
    where n.wave is not null or n.channel = 'mdm' or n.command_type in ('deploy_software', 'deploy_files', 'remove_profile')
  ) then
    return null;
  end if;

  select array_agg(n.id) filter (where fleet.is_deploy_type(n.command_type) and n.step = 0),
    array_agg(n.id) filter (where n.channel = 'mdm' and n.status = 'pending'),
    array_agg(n.id) filter (where n.wave is not null and n.step = 0),
    array_agg(n.id) filter (where n.command_type = 'remove_profile' and n.status = 'pending')
  into v_deployments, v_for_mdms, v_held, v_removals
  from new_rows as n;
  if v_deployments is not null then
    perform fleet.add_targets(v_deployments);
  end if;
  if v_for_mdms is not null then
    perform fleet.queue_mdm_commands(v_for_mdms, clock_timestamp());
  end if;
  if v_held is not null then
    perform fleet.hold_commands(v_held);
  end if;
  if v_removals is not null then
    -- After the queue of the MDM has them, which forgets what is final.
    perform fleet.keep_wanted_profiles(v_removals);
  end if;
  return null;
end;
$$;

comment on function fleet.tg_follow_new_commands() is
  'Tell rollouts, deployments, the queues of MDMs and profiles of new commands. Definer: a device and a person may write none of these.';
revoke all on function fleet.tg_follow_new_commands() from public, anon, authenticated, service_role;

-- Those of before, each of which looked by itself.
drop trigger if exists device_commands_07_add_targets on public.device_commands;
drop trigger if exists device_commands_07_queue_mdm on public.device_commands;
drop trigger if exists device_commands_08_hold on public.device_commands;
drop trigger if exists device_commands_10_keep_wanted on public.device_commands;
drop function if exists fleet.tg_add_targets();
drop function if exists fleet.tg_queue_mdm_commands();
drop function if exists fleet.tg_hold_commands();
drop function if exists fleet.tg_keep_wanted_profiles();
create or replace trigger device_commands_08_follow_new
  after insert on public.device_commands
  referencing new table as new_rows
  for each statement execute function fleet.tg_follow_new_commands();
