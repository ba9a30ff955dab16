-- From due schedules to runs in the ledger.

create or replace function fleet.due_schedules(p_now timestamptz, p_limit integer default 1000)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_work fleet.tick_work;
  v_without bigint[];
  v_due bigint[];
  v_from uuid;
  v_owners uuid[];
  v_movers uuid[] := fleet.moving_owners();
begin
  select w.* into v_work from fleet.tick_work as w where w.step = 'start';
  v_without := v_work.suspects;
  v_due := array(
    select s.id
    from public.schedules as s
    where s.status = 'active' and s.next_run_at <= p_now and s.id <> all (coalesce(v_without, '{}'))
      and s.owner_id <> all (v_movers)
    order by s.next_run_at
    limit p_limit + 1
  );
  if cardinality(v_due) <= p_limit then
    return v_due;
  end if;

  -- More than there is room for: owners take turns, from where the turn ended on, and of each comes what has waited longest.
  -- Nobody gets a second run booked while others wait for the first row of theirs: what is booked waits for its turn again.
  p_limit := greatest(p_limit - cardinality(fleet.owners_to_expand(p_now, 'pending', null, p_limit)), p_limit / 10, 1);
  v_from := coalesce(v_work.next_owner, gen_random_uuid());
  v_owners := fleet.owners_with_due(p_now, v_from, null, p_limit);
  if cardinality(v_owners) < p_limit then
    v_owners := v_owners || fleet.owners_with_due(p_now, null, v_from, p_limit - cardinality(v_owners));
  end if;
  v_owners := array(select o.id from unnest(v_owners) with ordinality as o(id, n) where o.id <> all (v_movers) order by o.n);
  update fleet.tick_work as w
  set next_owner = v_owners[cardinality(v_owners)]
  where w.step in (select x.step from fleet.tick_work as x where x.step = 'start' for update skip locked);
  return array(
    select d.id
    from unnest(v_owners) with ordinality as o(id, n)
    cross join lateral (
      select s.id, row_number() over (order by s.next_run_at) as nth
      from public.schedules as s
      where s.owner_id = o.id and s.status = 'active' and s.next_run_at <= p_now and s.id <> all (coalesce(v_without, '{}'))
      order by s.next_run_at
      limit greatest(p_limit / greatest(cardinality(v_owners), 1), 1)
    ) as d
    order by d.nth, o.n
  );
end;
$$;

comment on function fleet.due_schedules(timestamptz, integer) is
  'The schedules that are due and come next, at most p_limit: all, or where there are more, each owner''s in turn. Without those that '
  'stopped a tick, which are taken by themselves.';
revoke all on function fleet.due_schedules(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.owners_with_due(p_now timestamptz, p_after uuid, p_up_to uuid, p_limit integer)
returns uuid[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- From one owner to the next through the index: what it costs is a probe an owner, not a look at each schedule, whatever
-- Postgres believes of how many are due.
set enable_sort = off
set jit = off
as $$
begin
  return array(
    with recursive ring as (
      (
        select s.owner_id, 1 as n
        from public.schedules as s
        where s.status = 'active' and s.next_run_at <= p_now and s.owner_id > coalesce(p_after, '00000000-0000-0000-0000-000000000000')
        order by s.owner_id
        limit 1
      )
      union all
      select x.owner_id, r.n + 1
      from ring as r
      cross join lateral (
        select s.owner_id
        from public.schedules as s
        where s.status = 'active' and s.next_run_at <= p_now and s.owner_id > r.owner_id
        order by s.owner_id
        limit 1
      ) as x
      where r.n < p_limit and coalesce(x.owner_id <= p_up_to, true)
    )
    select r.owner_id from ring as r where coalesce(r.owner_id <= p_up_to, true) order by r.n
  );
end;
$$;

comment on function fleet.owners_with_due(timestamptz, uuid, uuid, integer) is
  'Owners of schedules that are due, in the order of their ids, after one and up to another, at most so many.';
revoke all on function fleet.owners_with_due(timestamptz, uuid, uuid, integer) from public, anon, authenticated, service_role;

create or replace function fleet.start_next(p_now timestamptz, p_schedule_ids bigint[] default null)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids bigint[] := coalesce(p_schedule_ids, fleet.due_schedules(p_now));
  v_runs integer := cardinality(fleet.start_due_runs(p_now, v_ids));
begin
  return jsonb_build_object(
    'runs', v_runs,
    -- Only after some progress: what another session holds must not keep this one spinning. The first by time is one look into the
    -- index; asked whether any is due, Postgres expects one soon, and reads all schedules where there is none.
    'more', v_runs > 0 and coalesce(
      (select s.next_run_at from public.schedules as s where s.status = 'active' order by s.next_run_at limit 1) <= p_now,
      false
    )
  );
end;
$$;

comment on function fleet.start_next(timestamptz, bigint[]) is
  'One transaction''s worth of due schedules, or of those that are named. {runs, more}.';
revoke all on function fleet.start_next(timestamptz, bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.start_due_runs(
  p_now timestamptz,
  p_schedule_ids bigint[] default null,
  p_limit integer default 1000
)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_due bigint[] := coalesce(p_schedule_ids, fleet.due_schedules(p_now, p_limit));
  v_decided record;
  v_held bigint[];
  v_id bigint;
  v_bad record;
  v_runs bigint[] := '{}';
begin
  if v_due = '{}' then
    return '{}';
  end if;
  v_decided := fleet.decide_schedules(v_due, p_now);
  if v_decided.ids <> '{}' and cardinality(v_decided.ids) < cardinality(v_due) then
    -- There was no time for all of them: the turn goes on from whoever came last, so that nobody is passed over.
    update fleet.tick_work as w
    set next_owner = s.owner_id
    from public.schedules as s
    where s.id = v_decided.ids[cardinality(v_decided.ids)]
      and w.step in (select x.step from fleet.tick_work as x where x.step = 'start' and x.next_owner is not null for update skip locked);
  end if;

  -- Nobody's row is held while that is decided, so that nobody who cancels has to wait for it. Only now, and only what has not
  -- changed since: of two sessions that decide the same, one writes it.
  v_held := array(
    select s.id
    from unnest(v_decided.ids, v_decided.versions) as d(id, version)
    join public.schedules as s on s.id = d.id
    where s.status = 'active' and s.xmin::text = d.version
    for no key update of s skip locked
  );
  begin
    v_runs := fleet.book_runs(
      array(select b from unnest(v_decided.bookings) as b where b.schedule_id = any (v_held)), p_now
    );
  exception
    when query_canceled or admin_shutdown then
      raise;
    when others then
      -- One of them is bad. Each by itself, so that the others do not pay for it; the error goes to its run.
      foreach v_id in array v_held loop
        begin
          v_runs := v_runs || fleet.book_runs(
            array(select b from unnest(v_decided.bookings) as b where b.schedule_id = v_id), p_now
          );
        exception
          when query_canceled or admin_shutdown then
            raise;
          when deadlock_detected or lock_not_available then
            -- Somebody holds what it needs: next time.
            null;
          when others then
            perform fleet.write_failed_run(v_id, p_now, sqlerrm);
        end;
      end loop;
  end;

  for v_bad in
    select d.id, d.error
    from unnest(v_decided.ids, v_decided.errors) as d(id, error)
    where d.error is not null and d.id = any (v_held)
  loop
    perform fleet.write_failed_run(v_bad.id, p_now, v_bad.error);
  end loop;

  -- In device time nothing may be due after all: whoever was the first to see it has gone from its zone.
  update public.schedules as s
  set next_run_at = n.next_run_at,
      status = case when n.next_run_at is null then 'completed' else s.status end,
      status_reason = case when n.next_run_at is null then 'no due instant is left' else s.status_reason end
  from (
    select x.id, fleet.next_due(x.recurrence, fleet.schedule_zones(x), p_now) as next_run_at
    from public.schedules as x
    where x.id = any (v_held) and x.timezone = 'device' and x.status = 'active' and x.next_run_at <= p_now
  ) as n
  where s.id = n.id;
  return v_runs;
end;
$$;

comment on function fleet.start_due_runs(timestamptz, bigint[], integer) is
  'Write the runs of the schedules that are due, or of those that are named, at most p_limit schedules, and move them on. Answers the runs '
  'to expand. Any number of sessions may call it at once.';
revoke all on function fleet.start_due_runs(timestamptz, bigint[], integer)
  from public, anon, authenticated, service_role;

create or replace function fleet.decide_schedules(
  p_schedule_ids bigint[],
  p_now timestamptz,
  out ids bigint[],
  out versions text[],
  out errors text[],
  out bookings fleet.run_booking[]
)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_started timestamptz := clock_timestamp();
  v_begun timestamptz;
  v_row record;
  v_error text;
  v_booked integer;
  v_booking fleet.run_booking;
  v_owners uuid[] := '{}';
  v_spent double precision[] := '{}';
  v_owner integer;
begin
  ids := '{}';
  for v_row in
    select s as schedule, s.xmin::text as version
    from unnest(p_schedule_ids) with ordinality as u(id, n)
    join public.schedules as s on s.id = u.id
    where s.status = 'active' and s.next_run_at <= p_now
    order by u.n
  loop
    v_begun := clock_timestamp();
    exit when v_begun > v_started + interval '500 milliseconds';
    v_owner := array_position(v_owners, (v_row.schedule).owner_id);
    if v_owner is null then
      v_owners := array_append(v_owners, (v_row.schedule).owner_id);
      v_spent := array_append(v_spent, 0::double precision);
      v_owner := cardinality(v_owners);
    -- Whose schedules are costly waits by itself: what is left is still due at the next tick.
    elsif v_spent[v_owner] > 0.1 then
      continue;
    end if;

    v_error := null;
    v_booked := coalesce(cardinality(bookings), 0);
    begin
      for v_booking in select b.* from fleet.decide_due(v_row.schedule, p_now) as b order by b.scheduled_for loop
        bookings := array_append(bookings, v_booking);
      end loop;
    exception
      when query_canceled or admin_shutdown then
        raise;
      when others then
        v_error := sqlerrm;
        bookings := bookings[:v_booked];
    end;
    ids := array_append(ids, (v_row.schedule).id);
    versions := array_append(versions, v_row.version);
    errors := array_append(errors, v_error);
    v_spent[v_owner] := v_spent[v_owner] + extract(epoch from clock_timestamp() - v_begun);
  end loop;
end;
$$;

comment on function fleet.decide_schedules(bigint[], timestamptz) is
  'What decide_due says of each of these schedules that is due, in this order, in which version of its row, or with what error it failed. No '
  'owner has more than a tenth of a second of it, and all have half of one. It holds no row.';
revoke all on function fleet.decide_schedules(bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.write_failed_run(p_schedule_id bigint, p_now timestamptz, p_error text)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_to timestamptz := p_now + interval '1 microsecond';
  v_schedule public.schedules;
  v_run fleet.run_booking;
  v_zones text[];
begin
  select s.* into v_schedule from public.schedules as s where s.id = p_schedule_id;
  v_run.schedule_id := p_schedule_id;
  v_run.scheduled_for := v_schedule.next_run_at;
  v_run.trigger := 'schedule';
  v_run.status := 'failed';
  v_run.reason := 'error';
  v_run.error_message := p_error;
  begin
    if fleet.zones_of_server(array[v_schedule.recurrence ->> 'clock']) = '{}' then
      -- The server has lost the zone since: under another name it may have it still, and then the next tick goes by that.
      if fleet.zones_of_server(array[v_schedule.timezone]) <> '{}' then
        update public.schedules as s set recurrence = fleet.compiled(s) where s.id = p_schedule_id;
        return;
      end if;
      v_run.error_message := format('the server does not have the time zone "%s"', v_schedule.timezone);
    end if;
    v_zones := fleet.schedule_zones(v_schedule);
    v_run.next_run_at := coalesce(fleet.next_due(v_schedule.recurrence, v_zones, p_now), 'infinity');
    v_run.missed_count := fleet.count_due(v_schedule.recurrence, v_zones, v_schedule.next_run_at, v_to);
    if v_run.missed_count > 1 then
      v_run.missed_from := v_schedule.next_run_at;
      v_run.missed_to := case
        when v_zones is null then fleet.last_occurrence(v_schedule.recurrence, v_schedule.next_run_at, v_to)
        else (select max(o) from fleet.due_instants(v_schedule.recurrence, v_zones, v_schedule.next_run_at, v_to) as o)
      end;
    else
      v_run.missed_count := null;
    end if;
  exception
    when query_canceled or admin_shutdown then
      raise;
    when others then
      -- Not even the next instant can be told: going on would repeat the error every second.
      v_run.next_run_at := null;
      v_run.missed_count := null;
      v_run.missed_from := null;
  end;

  perform fleet.book_runs(array[v_run], p_now);
  if v_run.next_run_at is null then
    update public.schedules as s
    set next_run_at = null, status = 'paused', status_reason = 'its recurrence cannot be computed: ' || v_run.error_message
    where s.id = p_schedule_id;
  end if;
end;
$$;

comment on function fleet.write_failed_run(bigint, timestamptz, text) is
  'Write the error of a schedule as a failed run and let it go on at its next instant; pause it where there is no telling.';
revoke all on function fleet.write_failed_run(bigint, timestamptz, text)
  from public, anon, authenticated, service_role;
