-- By pg_cron: actions for devices that do not ask, the end of deletions, and cleanup.

create or replace function fleet.geo_schedules_to_make(p_now timestamptz, p_limit integer)
returns bigint[]
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- Owners in turn: whoever has the most waits behind the first of everybody.
  select coalesce(array_agg(t.id), '{}')
  from (
    select s.id
    from public.geo_schedules as s
    cross join fleet.geo_window(p_now) as w
    where s.deletion_status is distinct from 'DELETED'
      and (s.actions_made_to is null or s.actions_made_to < w.ends_at - interval '1 day')
      and (s.delay_ends_at is null or s.actions_made_to is null or s.actions_made_to < s.delay_ends_at)
    order by row_number() over (partition by s.owner_id order by s.id), s.id
    limit p_limit
  ) as t
$$;

comment on function fleet.geo_schedules_to_make(timestamptz, integer) is
  'Geo schedules whose actions do not reach to the end of the window, owners in turn.';
revoke all on function fleet.geo_schedules_to_make(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.make_waiting_geo_actions(p_now timestamptz, p_limit integer default 500)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids bigint[] := fleet.geo_schedules_to_make(p_now, p_limit);
begin
  if cardinality(v_ids) = 0 then
    return 0;
  end if;
  perform fleet.create_geo_actions(v_ids, p_now);
  update public.geo_schedules as s
  set actions_made_to = w.ends_at
  from fleet.geo_window(p_now) as w
  where s.id = any (v_ids);
  return cardinality(v_ids);
end;
$$;

comment on function fleet.make_waiting_geo_actions(timestamptz, integer) is
  'Make the actions of a batch of geo schedules. Answers how many geo schedules.';
revoke all on function fleet.make_waiting_geo_actions(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.reconcile_geo_scopes(p_now timestamptz, p_after_id bigint, p_limit integer default 200)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids bigint[];
begin
  v_ids := array(
    select s.id from public.geo_schedules as s
    where s.deletion_status is null and s.id > p_after_id
    order by s.id
    limit p_limit
  );
  perform fleet.reconcile_geo_scope(v_ids, null, p_now);
  return v_ids[cardinality(v_ids)];
end;
$$;

comment on function fleet.reconcile_geo_scopes(timestamptz, bigint, integer) is
  'Look after the scope of the next live geo schedules. Answers the id of the last; null after all.';
revoke all on function fleet.reconcile_geo_scopes(timestamptz, bigint, integer) from public, anon, authenticated, service_role;

create or replace function fleet.settle_geo_deletions(p_now timestamptz, p_limit integer default 1000)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  update public.geo_schedules as s
  set deletion_status = 'DELETED'
  where s.id in (
    select x.id
    from public.geo_schedules as x
    where x.deletion_status = 'WAITING_FOR_CLIENT'
      and (
        -- No action can still run.
        (
          x.delay_ends_at <= p_now
          and (
            x.update_delay_type = 'none'
            or not exists (
              select 1 from public.geo_actions as a
              where a.geo_schedule_id = x.id and a.ends_at > p_now and a.starts_at < x.delay_ends_at
            )
          )
        )
        -- Every device knows of the end, and has told how its actions ended.
        or (
          exists (select 1 from public.geo_commitments as c where c.geo_schedule_id = x.id)
          and not exists (
            select 1 from public.geo_commitments as c
            where c.geo_schedule_id = x.id and (c.confirmed_at is null or c.until is null or c.until > p_now)
          )
          and not exists (
            select 1
            from public.geo_actions as a
            join public.geo_commitments as c on c.geo_schedule_id = a.geo_schedule_id
            where a.geo_schedule_id = x.id
              and a.ends_at > p_now
              and a.starts_at < x.delay_ends_at
              and not exists (
                select 1
                from public.geo_action_reports as r
                where r.geo_action_id = a.id
                  and r.device_id = c.device_id
                  and r.status in ('finished', 'skipped', 'failed')
              )
          )
        )
      )
    order by x.id
    limit p_limit
  );
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.settle_geo_deletions(timestamptz, integer) is
  'A deleted geo schedule of which no action can still run, or of which its devices know, becomes DELETED. Answers how many.';
revoke all on function fleet.settle_geo_deletions(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace procedure fleet.tend_geo_schedules()
language plpgsql
as $$
declare
  -- Whatever is left then is for the next minute, in which profiles are seen to first.
  c_patience constant interval := '40 seconds';
  v_now timestamptz := pg_catalog.clock_timestamp();
  v_key bigint := pg_catalog.hashtextextended('pgfleet.tend_geo_schedules', 0);
  v_owner uuid;
begin
  -- One at a time; each batch by itself, so that nobody waits for the whole.
  if not pg_catalog.pg_try_advisory_lock(v_key) then
    return;
  end if;
  -- Each owner by itself: what one of them takes holds no lock for the next.
  for v_owner in select o.id from fleet.owners_with_geo_holds() as o(id) order by pg_catalog.random() loop
    perform fleet.try_geo_holds(v_owner, v_now);
    commit;
  end loop;
  while fleet.make_waiting_geo_actions(v_now) > 0 loop
    commit;
    exit when pg_catalog.clock_timestamp() > v_now + c_patience;
  end loop;
  perform fleet.settle_geo_deletions(v_now);
  commit;
  while fleet.clean_geo_actions(v_now) > 0 loop
    commit;
    exit when pg_catalog.clock_timestamp() > v_now + c_patience;
  end loop;
  perform pg_catalog.pg_advisory_unlock(v_key);
end;
$$;

comment on procedure fleet.tend_geo_schedules() is
  'Called by pg_cron every minute: profiles that are held, actions for devices that do not ask, the end of deletions, and cleanup, in batches.';
revoke all on procedure fleet.tend_geo_schedules() from public, anon, authenticated, service_role;

create or replace procedure fleet.reconcile_all_geo_scopes()
language plpgsql
as $$
declare
  v_now timestamptz := pg_catalog.clock_timestamp();
  v_last bigint := 0;
begin
  while v_last is not null loop
    v_last := fleet.reconcile_geo_scopes(v_now, v_last);
    commit;
  end loop;
end;
$$;

comment on procedure fleet.reconcile_all_geo_scopes() is
  'Called by pg_cron every hour: who is in scope of what. Triggers see to every change at once; this finds what none of them saw.';
revoke all on procedure fleet.reconcile_all_geo_scopes() from public, anon, authenticated, service_role;
