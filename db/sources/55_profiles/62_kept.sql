-- What is to stay on a device is not taken away.

create or replace function fleet.keep_wanted_profiles(p_command_ids bigint[])
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
-- Planned for each list of ids otherwise.
set plan_cache_mode = force_generic_plan
as $$
declare
  v_ids bigint[];
begin
  -- The end of a temporary install, and whatever is held, which nobody takes away; all else is done as it was asked, without a look at
  -- what is wanted by a whole fleet.
  v_ids := array(
    select c.id
    from public.device_commands as c
    where c.id = any (p_command_ids)
      and (
        exists (select 1 from public.profile_installs as p where p.remove_schedule_id = c.schedule_id and p.removed_at is null)
        or exists (
          select 1 from public.profile_holds as h where h.device_id = c.device_id and h.profile_id = c.payload ->> 'profile_id'
        )
      )
  );
  if v_ids = '{}' then
    return;
  end if;

  with removal as materialized (
    select c.id, c.owner_id, c.schedule_id, c.device_id, c.payload ->> 'profile_id' as profile_id
    from public.device_commands as c
    where c.id = any (v_ids)
  ),
  -- The time of an install is over, so what comes after it in rank decides.
  wish as materialized (
    select distinct on (x.device_id, x.profile_id) x.device_id, x.profile_id, x.is_wanted, x.rank, x.because
    from (select r.owner_id, array_agg(distinct r.profile_id) as profile_ids from removal as r group by r.owner_id) as o
    cross join lateral fleet.wishes_for_profiles(o.owner_id, o.profile_ids) as x
    where (x.device_id, x.profile_id) in (select r.device_id, r.profile_id from removal as r)
    order by x.device_id, x.profile_id, x.rank
  ),
  kept as materialized (
    select r.id, r.schedule_id, r.device_id, r.profile_id, w.rank, w.because
    from removal as r
    join wish as w on w.device_id = r.device_id and w.profile_id = r.profile_id
    where w.is_wanted
  ),
  command as (
    update public.device_commands as c
    set status = 'completed', result = jsonb_build_object('kept', 'it stays, because ' || k.because)
    from kept as k
    where c.id = k.id
  ),
  install as (
    update public.profile_installs as p
    set removed_at = clock_timestamp()
    from kept as k
    where p.remove_schedule_id = k.schedule_id
  ),
  schedule as (
    update public.schedules as s
    set last_executed_at = clock_timestamp()
    from kept as k
    where s.id = k.schedule_id
  )
  -- Whoever takes the assignment or the hold back takes the profile away.
  update public.device_profiles as p
  set is_assigned = true
  from kept as k
  where k.rank in (1, 4) and p.device_id = k.device_id and p.profile_id = k.profile_id;
end;
$$;

comment on function fleet.keep_wanted_profiles(bigint[]) is
  'The end of a temporary install takes nothing away that is to stay, and nobody takes away what is held: such a removal is done without a '
  'call. The commands are new ones that remove profiles, and on the queue of the MDM already, which forgets what is final.';
revoke all on function fleet.keep_wanted_profiles(bigint[]) from public, anon, authenticated, service_role;
