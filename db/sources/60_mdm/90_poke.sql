-- Waking the function mdm-dispatch where there is something to do, and clearing up behind it.

create or replace function fleet.has_mdm_work(p_now timestamptz)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Awake before a schedule is due, the function carries it out at its very instant.
  return fleet.next_mdm_schedule_at(p_now + interval '2 seconds') is not null
  or exists (
    select 1
    from public.device_integrations as i
    where i.status = 'active'
      and i.integration_type = any (fleet.mdm_integration_types())
      and (
        fleet.is_sync_due(i, p_now)
        or fleet.has_due_mdm(i.id, 'send', p_now)
        or fleet.has_due_mdm(i.id, 'look', p_now)
        or fleet.is_upload_due(i.id, p_now)
        or fleet.has_mdm_rereads(i.id, p_now)
      )
      and not exists (
        select 1 from fleet.rate_limits as r where r.integration_id = i.id and r.endpoint = '' and r.blocked_until > p_now
      )
  );
end;
$$;

comment on function fleet.has_mdm_work(timestamptz) is
  'Whether mdm-dispatch would find something to do. What waits for an integration that is paused wakes nobody.';
revoke all on function fleet.has_mdm_work(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.tend_mdm(p_now timestamptz default now(), p_pause interval default interval '30 seconds')
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A migration holds this lock alone.
  if not pg_try_advisory_xact_lock_shared(hashtext('pgfleet.migrate'))
    or not fleet.pass_turnstile('reconcile-profiles', p_pause, p_now)
  then
    return false;
  end if;

  perform fleet.reconcile_all(p_now);
  return true;
end;
$$;

comment on function fleet.tend_mdm(timestamptz, interval) is
  'What need not be done every second: reconcile profiles. Answers whether it was its time, which it is when it '
  'was not done for p_pause. A job of its own, since it looks at every device.';
revoke all on function fleet.tend_mdm(timestamptz, interval) from public, anon, authenticated, service_role;

create or replace function fleet.poke_mdm(p_now timestamptz default now())
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.sweep_mdm(p_now);
  perform fleet.cancel_failed_removals();
  -- Where no job does it: plain Postgres without pg_cron.
  perform fleet.tend_mdm(p_now, interval '150 seconds');
  return fleet.has_mdm_work(p_now) and fleet.poke_once_a_second('mdm-dispatch', p_now);
end;
$$;

comment on function fleet.poke_mdm(timestamptz) is
  'Clear up behind functions that stopped, reconcile profiles, and poke mdm-dispatch where it has work, at most once a second. Answers whether it was poked; '
  'called by the tick.';
revoke all on function fleet.poke_mdm(timestamptz) from public, anon, authenticated, service_role;
