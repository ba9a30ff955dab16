-- Cleanup: what is over goes, the rows of devices before what they hang on, a bounded number at a time.

create or replace function fleet.geo_schedules_to_remove(p_now timestamptz)
returns setof bigint
language sql
stable
-- Without a setting: only so it is part of the query that asks, and a limit there ends it early.
begin atomic
  select s.id
  from public.geo_schedules as s
  where s.deletion_status = 'DELETED'
    -- The instant at which its successor begins is read from it.
    and s.delay_ends_at <= p_now;
end;

comment on function fleet.geo_schedules_to_remove(timestamptz) is 'Geo schedules of which nothing is needed any more.';
revoke all on function fleet.geo_schedules_to_remove(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.clean_geo_actions(p_now timestamptz, p_limit integer default 2000)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  -- A week before the window in which actions are made. By the index, however many there are: from the front of the table each
  -- batch would pass over everything that those before it have removed.
  v_actions bigint[] := array(
    select a.id from public.geo_actions as a where a.starts_at < p_now - interval '14 days' order by a.starts_at limit p_limit
  );
  v_count integer := cardinality(v_actions);
begin
  if v_count < p_limit then
    v_actions := v_actions || array(
      select a.id
      from fleet.geo_schedules_to_remove(p_now) as s(id)
      join public.geo_actions as a on a.geo_schedule_id = s.id and a.starts_at >= p_now - interval '14 days'
      limit p_limit - v_count
    );
  end if;
  -- One action of a large group has a report of each device: left to the cascade, they would all go at once.
  delete from public.geo_action_reports as r
  where r.ctid = any (array(
    select x.ctid from public.geo_action_reports as x where x.geo_action_id = any (v_actions) limit p_limit for update skip locked
  ));
  get diagnostics v_count = row_count;
  if v_count > 0 then
    return v_count;
  end if;

  delete from public.geo_actions as a
  where a.id in (select x.id from public.geo_actions as x where x.id = any (v_actions) for update skip locked);
  get diagnostics v_count = row_count;
  if v_count > 0 then
    return v_count;
  end if;

  delete from public.geo_commitments as c
  where c.ctid = any (array(
    select x.ctid
    from fleet.geo_schedules_to_remove(p_now) as s(id)
    join public.geo_commitments as x on x.geo_schedule_id = s.id
    limit p_limit
    for update of x skip locked
  ));
  get diagnostics v_count = row_count;
  if v_count > 0 then
    return v_count;
  end if;

  delete from public.geo_schedules as s
  where s.id in (
    select x.id
    from public.geo_schedules as x
    where x.id in (select t.id from fleet.geo_schedules_to_remove(p_now) as t(id) limit p_limit)
    for update skip locked
  );
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.clean_geo_actions(timestamptz, integer) is
  'Remove at most p_limit rows of what is over: reports, then actions that started more than two weeks ago or whose geo schedule goes, then '
  'commitments and geo schedules that are DELETED. Answers how '
  'many; 0 when nothing is left.';
revoke all on function fleet.clean_geo_actions(timestamptz, integer) from public, anon, authenticated, service_role;
