-- Generated from db/sources/35_runs by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/35_runs/10_decide.sql
-- Deciding what to do about what is due. Pure: everything is an argument, so it can be previewed and tested.

create or replace function fleet.decide_due(p_schedule public.schedules, p_now timestamptz)
returns setof fleet.run_booking
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_policies jsonb := fleet.effective_policies(p_schedule.policies);
  v_due timestamptz := p_schedule.next_run_at;
  -- Within a minute a tick is on time; only then does catch-up come into it.
  v_on_time_from timestamptz := p_now - interval '1 minute';
  v_window_from timestamptz;
  v_run timestamptz[];
  v_left bigint := fleet.runs_left(p_schedule);
  v_next timestamptz;
  v_booking fleet.run_booking;
begin
  if p_schedule.timezone = 'device' then
    return query select d.* from fleet.decide_occurrences(p_schedule, p_now) as d;
    return;
  end if;
  if fleet.leaves_out_gaps(p_schedule.recurrence) then
    v_next := fleet.next_due(p_schedule.recurrence, null, p_now);
    return query select g.* from fleet.decide_gaps(p_schedule, v_due, p_now, v_next) as g;
    if found and fleet.next_occurrence(p_schedule.recurrence, v_due - interval '1 microsecond') is distinct from v_due then
      -- What the clocks skip is all that it was due for.
      v_due := fleet.next_occurrence(p_schedule.recurrence, v_due);
      if coalesce(v_due > p_now, true) then
        return;
      end if;
    end if;
  else
    v_next := fleet.next_occurrence(p_schedule.recurrence, p_now);
  end if;
  v_window_from := greatest(v_due, case v_policies ->> 'catchup'
    when 'none' then v_on_time_from
    else least(v_on_time_from, p_now - (v_policies ->> 'catchup_window')::interval)
  end);
  v_run := fleet.instants_to_run(p_schedule.recurrence, v_policies, v_due, v_window_from, p_now);

  if v_run = array[v_due] and v_left is null
    and not p_schedule.policies ?| '{blackouts,execution_window}'
  then
    -- Nearly every decision is this one, so it goes the short way; also late, when there is most to decide.
    v_booking.schedule_id := p_schedule.id;
    v_booking.scheduled_for := v_due;
    v_booking.trigger := case when v_due >= v_on_time_from then 'schedule' else 'catchup' end;
    v_booking.status := 'pending';
    v_booking.expires_at := fleet.run_expiry(v_policies, v_next, p_now);
    v_booking.dst_rule := fleet.applied_rule(p_schedule.recurrence, v_due);
    v_booking.next_run_at := coalesce(v_next, 'infinity');
    return next v_booking;
    return;
  end if;

  -- Older than the window, or left out of it: one row for the range, whole and counted.
  if v_run[1] is distinct from v_due then
    return query
    select p_schedule.id, g.missed_from, 'schedule', 'skipped', g.reason, null,
      case when g.missed_count > 1 then g.missed_from end,
      case when g.missed_count > 1 then g.missed_to end,
      case when g.missed_count > 1 then g.missed_count end,
      null::timestamptz, null::timestamptz, null::text[], null, null::bigint, null, coalesce(v_next, 'infinity'),
      null::timestamp, null::smallint, null::timestamp, null::jsonb
    from fleet.missed_range(p_schedule.recurrence, v_policies, v_due, v_window_from, v_run[1], p_now) as g;
  end if;

  return query
  select p_schedule.id, r.instant, r.trigger, case when r.refusal is null then 'pending' else 'skipped' end, r.refusal, null,
    null::timestamptz, null::timestamptz, null::bigint,
    nullif(r.starts_at, p_now),
    fleet.run_expiry(v_policies, fleet.next_occurrence(p_schedule.recurrence, r.starts_at), r.starts_at),
    null::text[], fleet.applied_rule(p_schedule.recurrence, r.instant), null::bigint, null, coalesce(v_next, 'infinity'),
    null::timestamp, null::smallint, null::timestamp, null::jsonb
  from fleet.decide_runs(p_schedule, v_policies, v_run, v_on_time_from, v_left, p_now) as r;
end;
$$;

comment on function fleet.decide_due(public.schedules, timestamptz) is
  'What becomes of a schedule that has been due since its next_run_at: what to write into the ledger, and when it is due next. Each '
  'due instant up to p_now is in exactly one row.';
revoke all on function fleet.decide_due(public.schedules, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.decide_gaps(
  p_schedule public.schedules,
  p_due timestamptz,
  p_now timestamptz,
  p_next timestamptz
)
returns setof fleet.run_booking
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Its key is the time on the wall that never came: at the instant itself another run may be due.
  return query
  select p_schedule.id, g.skipped_at, 'schedule', 'skipped', 'the clocks skip this local time', null,
    case when g.times > 1 then g.skipped_at end, case when g.times > 1 then g.skipped_at end, case when g.times > 1 then g.times end,
    null::timestamptz, null::timestamptz, null::text[], 'gap:skip', null::bigint, null, coalesce(p_next, 'infinity'),
    g.first_local, 0::smallint, case when g.times > 1 then g.last_local end, null::jsonb
  from fleet.skipped_times(p_schedule.recurrence, p_due, p_now + interval '1 microsecond') as g;
end;
$$;

comment on function fleet.decide_gaps(public.schedules, timestamptz, timestamptz, timestamptz) is
  'What to write into the ledger for times that the clocks skip within [p_due, p_now] and that are left out (gap: skip): a row for each change '
  'of the clocks.';
revoke all on function fleet.decide_gaps(public.schedules, timestamptz, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.decide_runs(
  p_schedule public.schedules,
  p_policies jsonb,
  p_instants timestamptz[],
  p_on_time_from timestamptz,
  p_left bigint,
  p_now timestamptz
)
returns table (instant timestamptz, trigger text, refusal text, starts_at timestamptz)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- Planned at each call otherwise, for the number of instants.
set plan_cache_mode = force_generic_plan
as $$
begin
  return query
  with judged as (
    select u.instant, u.instant < p_on_time_from as is_late, coalesce(
        fleet.zones_refusal(p_schedule, null, u.instant),
        -- What is caught up acts now, so now must be allowed as well.
        case when u.instant < p_on_time_from then fleet.zones_refusal(p_schedule, null, p_now) end
      ) as refusal
    from unnest(p_instants) as u(instant)
  ),
  paced as (
    select j.*, fleet.opening_of(p_schedule, p_now + fleet.catchup_pause(
        p_policies, case when j.is_late then count(*) filter (where j.refusal is null and j.is_late) over (order by j.instant) end
      )) as starts_at
    from judged as j
  ),
  checked as (
    select p.instant, p.is_late, p.starts_at, coalesce(
        p.refusal,
        case when p.starts_at > p_now then fleet.zones_refusal(p_schedule, null, p.starts_at) end
      ) as refusal
    from paced as p
  ),
  counted as (
    select c.*, count(*) filter (where c.refusal is null) over (order by c.instant) as n
    from checked as c
  )
  select c.instant, case when c.is_late then 'catchup' else 'schedule' end,
    coalesce(c.refusal, case when c.n > p_left then 'max_runs reached' end), c.starts_at
  from counted as c;
end;
$$;

comment on function fleet.decide_runs(public.schedules, jsonb, timestamptz[], timestamptz, bigint, timestamptz) is
  'For each instant that is to run: on time or caught up, what refuses it, and when it starts (the window opens, catching up is paced).';
revoke all on function fleet.decide_runs(public.schedules, jsonb, timestamptz[], timestamptz, bigint, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.instants_to_run(
  p_recurrence jsonb,
  p_policies jsonb,
  p_due timestamptz,
  p_window_from timestamptz,
  p_now timestamptz
)
returns timestamptz[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_last timestamptz;
begin
  if p_due >= p_window_from and coalesce(fleet.next_occurrence(p_recurrence, p_due) > p_now, true) then
    return array[p_due];
  end if;

  if p_policies ->> 'catchup' = 'all' then
    return (
      select array_agg(o.instant order by o.instant)
      from (
        select i.instant
        from fleet.occurrences(p_recurrence, p_window_from, p_now + interval '1 microsecond') as i(instant)
        order by i.instant desc
        limit (p_policies ->> 'catchup_limit')::integer
      ) as o
    );
  end if;

  v_last := fleet.last_occurrence(p_recurrence, p_window_from, p_now + interval '1 microsecond');
  return case when v_last is not null then array[v_last] end;
end;
$$;

comment on function fleet.instants_to_run(jsonb, jsonb, timestamptz, timestamptz, timestamptz) is
  'Which of the instants that are due do run, by the catch-up policy; null for none.';
revoke all on function fleet.instants_to_run(jsonb, jsonb, timestamptz, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.missed_range(
  p_recurrence jsonb,
  p_policies jsonb,
  p_due timestamptz,
  p_window_from timestamptz,
  p_first_run timestamptz,
  p_now timestamptz
)
returns table (missed_from timestamptz, missed_to timestamptz, missed_count bigint, reason text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select p_due,
    -- p_due is due whatever the recurrence says by now; what follows is asked from the recurrence.
    coalesce(fleet.last_occurrence(p_recurrence, p_due, w.to_at), p_due),
    greatest(fleet.count_occurrences(p_recurrence, p_due, w.to_at), 1),
    case
      when p_policies ->> 'catchup' = 'none' then 'catch-up is off'
      when p_first_run is null or not exists (
        select 1 from fleet.occurrences(p_recurrence, greatest(p_due, p_window_from), p_first_run) limit 1
      ) and p_policies ->> 'catchup' = 'all' then 'outside the catch-up window'
      when p_policies ->> 'catchup' = 'all' then 'beyond the catch-up limit'
      else 'superseded by a later instant'
    end
  from (select coalesce(p_first_run, p_now + interval '1 microsecond') as to_at) as w
  where p_due < w.to_at;
end;
$$;

comment on function fleet.missed_range(jsonb, jsonb, timestamptz, timestamptz, timestamptz, timestamptz) is
  'The due instants that do not run, as one range: from p_due up to the first that runs, or up to now. No row where there are none.';
revoke all on function fleet.missed_range(jsonb, jsonb, timestamptz, timestamptz, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/35_runs/20_start.sql
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

-- db/sources/35_runs/30_run_now.sql
-- Runs that do not wait for the tick: by hand, and what is due when it is written.

create or replace function public.run_schedule(p_schedule_id bigint, p_idempotency_key text default null)
returns public.schedule_runs
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.run_schedule(p_schedule_id, p_idempotency_key, clock_timestamp())
$$;

comment on function public.run_schedule(bigint, text) is
  'Run a schedule now, besides its due instants. It counts for max_runs; where that is reached, the run is skipped for that reason. The '
  'same key again gives the same run. Raises schedule_not_found (PT404), '
  'permission_missing (PT403) or schedule_cancelled (PT409).';
revoke all on function public.run_schedule(bigint, text) from public, anon, authenticated, service_role;
grant execute on function public.run_schedule(bigint, text) to authenticated, service_role;

create or replace function fleet.run_schedule(p_schedule_id bigint, p_idempotency_key text, p_now timestamptz)
returns public.schedule_runs
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Its lock makes two callers with the same key take turns: the second finds the run of the first.
  v_schedule public.schedules := fleet.schedule_of_caller(p_schedule_id, 'operate');
  v_run public.schedule_runs;
  v_booking fleet.run_booking;
begin
  perform fleet.require_destructive(v_schedule.owner_id, v_schedule.action_type);
  perform fleet.require_destructive_chain(v_schedule.owner_id, p_schedule_id);
  if v_schedule.status = 'cancelled' then
    raise exception 'schedule % is cancelled', p_schedule_id
      using errcode = 'PT409', detail = 'schedule_cancelled', hint = 'Create it anew.';
  end if;

  select r.* into v_run
  from public.schedule_runs as r
  where r.schedule_id = p_schedule_id and r.idempotency_key = p_idempotency_key;
  if found then
    return v_run;
  end if;

  v_booking.schedule_id := p_schedule_id;
  v_booking.scheduled_for := fleet.free_instant(v_schedule, p_now, 1);
  v_booking.trigger := 'manual';
  v_booking.reason := case when fleet.runs_left(v_schedule) <= 0 then 'max_runs reached' end;
  v_booking.status := case when v_booking.reason is null then 'pending' else 'skipped' end;
  v_booking.expires_at := fleet.run_expiry(fleet.effective_policies(v_schedule.policies), null, p_now);
  v_booking.idempotency_key := p_idempotency_key;
  perform fleet.expand_runs(
    fleet.book_runs(array[v_booking], p_now), p_now, fleet.setting_number('inline_expand_limit')::integer
  );

  select r.* into v_run
  from public.schedule_runs as r
  where r.schedule_id = p_schedule_id and r.scheduled_for = v_booking.scheduled_for and r.scheduled_local is null;
  return v_run;
end;
$$;

comment on function fleet.run_schedule(bigint, text, timestamptz) is 'See public.run_schedule. Definer: it checks the caller.';
revoke all on function fleet.run_schedule(bigint, text, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.run_schedule(bigint, text, timestamptz) to authenticated, service_role;

create or replace function fleet.run_due(p_schedule_ids bigint[], p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_runs bigint[] := fleet.start_due_runs(p_now, p_schedule_ids);
  v_limit integer := fleet.setting_number('inline_expand_limit')::integer;
begin
  v_runs := v_runs[1:v_limit];
  if cardinality(v_runs) > 0 then
    perform fleet.expand_runs(v_runs, p_now, v_limit / cardinality(v_runs));
  end if;
end;
$$;

comment on function fleet.run_due(bigint[], timestamptz) is
  'Run what is due of these schedules now, up to the setting inline_expand_limit; the tick does the rest.';
revoke all on function fleet.run_due(bigint[], timestamptz) from public, anon, authenticated, service_role;

-- db/sources/35_runs/40_expand.sql
-- From runs to commands: one row for each (run, device), in chunks.

create or replace function fleet.expand_runs(p_run_ids bigint[], p_now timestamptz, p_limit integer)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_made bigint := 0;
  v_id bigint;
begin
  begin
    return fleet.write_commands(p_run_ids, p_now, p_limit, false);
  exception
    when query_canceled or admin_shutdown then
      raise;
    when others then
      -- One of them is bad: each by itself, with a look at what its devices have already, and the error goes to its run.
      null;
  end;

  foreach v_id in array p_run_ids loop
    begin
      v_made := v_made + fleet.write_commands(array[v_id], p_now, p_limit, true);
    exception
      when query_canceled or admin_shutdown then
        raise;
      when deadlock_detected or lock_not_available or unique_violation then
        -- Somebody holds what it needs, or wrote the same at this moment: next time.
        null;
      when others then
        update public.schedule_runs as r
        set status = 'failed', reason = 'error', error_message = sqlerrm, expanded_at = p_now, finished_at = p_now
        where r.id = v_id;
        update fleet.run_zones as z
        set status = 'cancelled', reason = 'error', expanded_at = p_now
        where z.run_id = v_id and z.expanded_at is null;
        -- Whatever follows a failure is to hear of this one.
        insert into fleet.run_progress (run_id, completed, failed) values (v_id, 0, 0);
        perform fleet.end_used_up(array(select r.schedule_id from public.schedule_runs as r where r.id = v_id));
    end;
  end loop;
  return v_made;
end;
$$;

comment on function fleet.expand_runs(bigint[], timestamptz, integer) is
  'Make the next commands of these runs, at most p_limit devices of each. Answers how many rows were made.';
revoke all on function fleet.expand_runs(bigint[], timestamptz, integer)
  from public, anon, authenticated, service_role;

create or replace function fleet.write_commands(p_run_ids bigint[], p_now timestamptz, p_limit integer, p_is_again boolean)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
-- Compiling the plan would take a hundred times as long as running it.
set jit = off
as $$
declare
  v_runs bigint[] := fleet.judge_zones(fleet.lock_runs(p_run_ids, p_now), p_now);
  v_made bigint;
  v_nobody bigint[];
  v_limited bigint[];
  v_walls bigint[];
begin
  -- Until the insert of this statement.
  perform set_config('pgfleet.known_devices', 'yes', true);
  with run as materialized (
    select x.*, exists (select 1 from public.run_waves as w where w.run_id = x.id) as has_waves
    from fleet.runs_to_expand(v_runs, p_now) as x
  ),
  -- One more than the limit tells whether anything is left.
  target as materialized (
    select r.id as run_id, t.device_id, t.hostname, t.zone_at, t.n,
      case
        when r.zone_row_id is null then r.zones is null or coalesce(t.timezone, r.unknown_zone) = any (r.zones)
        -- Whoever was looked at in another zone is not looked at again.
        else not r.has_movers or not exists (
          select 1 from fleet.judged_movers as m where m.run_id = r.id and m.device_id = t.device_id
        )
      end as is_due,
      case
        -- Whoever is held is told later when to start.
        when r.is_plain or r.has_waves then r.starts_at
        else fleet.device_start(
          r.policies, r.schedule_id, t.device_id, coalesce(t.timezone, r.unknown_zone, 'UTC'), r.starts_at
        )
      end as starts_at,
      coalesce(u.n, 0) as unfinished, u.last_id, coalesce(u.is_overtaken, false) as is_overtaken
    from run as r
    cross join lateral (
      -- Both give them in the order in which they have their turn.
      select x.device_id, x.hostname, x.timezone, 0 as zone_at, x.n
      from fleet.targets(r.owner_id, r.device_ids, r.group_ids, r.selector, coalesce(r.expanded_to, 0), p_limit + 1)
        with ordinality as x(device_id, hostname, timezone, n)
      where r.zone_row_id is null
      union all
      (
        select x.device_id, x.hostname, x.timezone, x.zone_at, x.n
        from fleet.targets_in_zones(
          r.owner_id, r.device_ids, r.group_ids, r.selector, r.zone_names, r.only_ids, r.zone_at, r.expanded_to, p_limit + 1
        ) with ordinality as x(device_id, hostname, timezone, zone_at, n)
        where r.zone_row_id is not null
        -- Zones that share an instant come one after the other; their devices lie among each other in every index.
        order by x.device_id
      )
    ) as t
    left join lateral (
      select x.*
      from fleet.unfinished_of(r.schedule_id, t.device_id, r.id, coalesce(r.scheduled_local, '-infinity'), r.fold, p_now) as x
      -- So that where this is false the function is not even called.
      where r.may_overlap
      offset 0
    ) as u on true
  ),
  replaced as (
    update public.device_commands as c
    set status = 'cancelled', reason = 'replaced'
    from target as t
    join run as r on r.id = t.run_id
    where r.overlap = 'replace' and not r.queues
      and t.n <= p_limit and t.is_due and t.starts_at is not null and t.unfinished > 0
      and c.schedule_id = r.schedule_id
      and c.device_id = t.device_id
      and c.status in ('pending', 'running')
      and case
        when r.scheduled_local is null then fleet.is_booked_before(c.run_id, r.id)
        else fleet.is_earlier_run(c.run_id, r.scheduled_local, r.fold)
      end
  ),
  made as (
    insert into public.device_commands (
      run_id, schedule_id, owner_id, device_id, device_hostname, channel, command_type, payload, priority, not_before,
      expires_at, max_attempts, waits_for, wave
    )
    select r.id, r.schedule_id, r.owner_id, t.device_id, t.hostname, r.channel, r.command_type, r.payload, r.priority,
      case when r.has_waves then fleet.held_until() else t.starts_at end,
      case when r.has_waves then fleet.held_until() else r.expires_at + (t.starts_at - r.starts_at) end, r.max_attempts,
      case
        when r.overlap = 'buffer_one' or (r.queues and (r.overlap <> 'allow' or t.unfinished >= r.max_concurrent)) then t.last_id
      end,
      case when r.has_waves then fleet.wave_of(r.id, r.schedule_id, t.device_id) end
    from target as t
    join run as r on r.id = t.run_id
    where t.n <= p_limit
      and t.is_due
      and t.starts_at is not null
      and (r.queues or not fleet.leaves_out(r.overlap, r.max_concurrent, t.unfinished, t.is_overtaken))
      -- A run comes by each device once, but for newcomers and for who moves; to leave it to the index would cost each row a tenth.
      and not (
        (p_is_again or r.has_waves or r.has_movers)
        and (select c.id from public.device_commands as c where c.run_id = r.id and c.device_id = t.device_id and c.step = 0) is not null
      )
    returning run_id
  ),
  progress as (
    select r.id, r.zone_row_id,
      (select count(*) from made as m where m.run_id = r.id) as made,
      -- Left out: they had enough to do, or it is not their time of day.
      count(*) filter (
        where t.starts_at is not null and not r.queues
          and fleet.leaves_out(r.overlap, r.max_concurrent, t.unfinished, t.is_overtaken)
      ) as busy,
      count(*) filter (where t.run_id is not null and t.starts_at is null) as outside,
      (
        select (x.zone_at, x.device_id)::fleet.place_in_zones
        from target as x
        where x.run_id = r.id and x.n <= p_limit
        order by x.n desc
        limit 1
      ) as reached,
      not exists (select 1 from target as x where x.run_id = r.id and x.n > p_limit) as is_whole
    from run as r
    left join target as t on t.run_id = r.id and t.n <= p_limit and t.is_due
      and (t.starts_at is null or t.unfinished > 0)
    group by r.id, r.zone_row_id
  ),
  counted as (
    update public.schedule_runs as r
    set targeted = r.targeted + p.made,
        skipped = r.skipped + p.busy + p.outside,
        expanded_to = coalesce((p.reached).device_id, r.expanded_to, 0),
        -- In device time it is whole when no zone is to come.
        expanded_at = case when p.is_whole and p.zone_row_id is null then p_now end,
        status = case when p.is_whole and p.zone_row_id is null and r.targeted + p.made = 0 then 'skipped' else 'running' end,
        reason = case
          when not p.is_whole or p.zone_row_id is not null or r.targeted + p.made > 0 then null
          when p.outside > 0 then 'outside the execution window'
          when r.skipped + p.busy > 0 then 'overlap'
          else 'no targets'
        end,
        finished_at = case when p.is_whole and p.zone_row_id is null and r.targeted + p.made = 0 then p_now end
    from progress as p
    where r.id = p.id
    returning r.id, r.status
  ),
  zoned as (
    update fleet.run_zones as z
    set zone_at = coalesce((p.reached).zone_at, z.zone_at),
        expanded_to = coalesce((p.reached).device_id, z.expanded_to),
        targeted = z.targeted + p.made,
        expanded_at = case when p.is_whole then p_now end,
        status = case when p.is_whole then 'done' else 'running' end,
        reason = case
          when p.outside > 0 then 'outside the execution window'
          when p.busy > 0 then 'overlap'
          when p.is_whole and z.targeted + p.made = 0 then coalesce(z.reason, 'no targets')
          else z.reason
        end
    from progress as p
    where z.id = p.zone_row_id
  ),
  whole as (
    -- All of its commands may be final already: have the tick look at it once more.
    insert into fleet.run_progress (run_id, completed, failed)
    select p.id, 0, 0 from progress as p where p.is_whole and p.zone_row_id is null
  )
  select
    (select count(*) from made),
    (select array_agg(n.id) from counted as n where n.status = 'skipped'),
    (select array_agg(r.schedule_id) from run as r where r.policies ->> 'max_runs' is not null),
    (select array_agg(p.id) from progress as p where p.is_whole and p.zone_row_id is not null)
  into v_made, v_nobody, v_limited, v_walls;

  if v_walls is not null then
    perform fleet.close_runs(v_walls, p_now);
  end if;
  if v_nobody is not null then
    perform fleet.count_idle_runs(v_nobody);
  end if;
  if v_limited is not null then
    -- Only now is it known whether the last of them has reached somebody.
    perform fleet.end_used_up(v_limited);
  end if;
  return v_made;
end;
$$;

comment on function fleet.write_commands(bigint[], timestamptz, integer, boolean) is
  'One statement: the next devices of these runs, their commands, and how far the runs have come.';
revoke all on function fleet.write_commands(bigint[], timestamptz, integer, boolean)
  from public, anon, authenticated, service_role;

create or replace function fleet.chunk_size()
returns integer
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return greatest(1, fleet.setting_number(
    case
      when exists (
        select 1 from pg_catalog.pg_publication_tables as p
        where p.pubname = 'supabase_realtime' and p.schemaname = 'public' and p.tablename = 'device_commands'
      ) then 'expand_chunk_size_published'
      else 'expand_chunk_size'
    end
  ))::integer;
end;
$$;

comment on function fleet.chunk_size() is
  'How many commands go into one transaction; fewer while the table is published, where one transaction is one poll of Realtime.';
revoke all on function fleet.chunk_size() from public, anon, authenticated, service_role;

-- db/sources/35_runs/42_turns.sql
-- Whose runs are expanded next: owners take turns, and nobody's many devices keep others waiting.

create or replace function fleet.owners_to_expand(p_now timestamptz, p_status text, p_after uuid, p_limit integer)
returns uuid[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- From one owner to the next through the index, whatever Postgres believes of a ledger that filled up a second ago.
set enable_sort = off
set jit = off
as $$
begin
  return array(
    with recursive ring as (
      (
        select r.owner_id, 1 as n
        from public.schedule_runs as r
        where r.expanded_at is null and r.status in ('pending', 'running') and r.status = p_status and coalesce(r.scheduled_local, '-infinity') = '-infinity'
          and coalesce(r.not_before <= p_now, true) and r.owner_id > coalesce(p_after, '00000000-0000-0000-0000-000000000000')
        order by r.owner_id
        limit 1
      )
      union all
      select x.owner_id, o.n + 1
      from ring as o
      cross join lateral (
        select r.owner_id
        from public.schedule_runs as r
        where r.expanded_at is null and r.status in ('pending', 'running') and r.status = p_status and coalesce(r.scheduled_local, '-infinity') = '-infinity'
          and coalesce(r.not_before <= p_now, true) and r.owner_id > o.owner_id
        order by r.owner_id
        limit 1
      ) as x
      where o.n < p_limit
    )
    select o.owner_id from ring as o order by o.n
  );
end;
$$;

comment on function fleet.owners_to_expand(timestamptz, text, uuid, integer) is
  'Owners with runs to expand that are fresh (pending) or on their way (running), in the order of their ids, after one, at most so many.';
revoke all on function fleet.owners_to_expand(timestamptz, text, uuid, integer) from public, anon, authenticated, service_role;

create or replace function fleet.walls_to_expand(p_now timestamptz, p_limit integer, p_without bigint[])
returns bigint[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select r.schedule_id
    from fleet.run_zones as z
    join public.schedule_runs as r on r.id = z.run_id
    where z.expanded_at is null and z.starts_at <= p_now and z.status in ('waiting', 'running')
      and r.schedule_id <> all (coalesce(p_without, '{}'))
    order by z.status desc, r.priority desc, z.starts_at, z.id
    limit p_limit
  );
end;
$$;

comment on function fleet.walls_to_expand(timestamptz, integer, bigint[]) is
  'The schedules in device time with a zone whose time has come: those that wait to be begun first, then those that are running.';
revoke all on function fleet.walls_to_expand(timestamptz, integer, bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.schedules_to_expand(p_now timestamptz)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_most integer := 500;
  v_work fleet.tick_work;
  v_found bigint[];
  v_owners uuid[];
  v_from uuid;
  -- Whose quota is used up waits until some of it is there again; who is being moved, until it is there.
  v_blocked uuid[] := fleet.moving_owners() || array(
    select q.owner_id
    from fleet.quota_use as q
    where q.name = 'commands_a_minute'
      -- What is used counts by the clock, whatever instant the tick is asked about.
      and (q.left_over <= 0 or q.blocked_until > clock_timestamp())
      and (
        q.blocked_until > clock_timestamp()
        or fleet.quota_left(q.left_over, q.filled_at, fleet.quota_of(q.owner_id, q.name), q.name, clock_timestamp()) <= 0
      )
  );
begin
  select w.* into v_work from fleet.tick_work as w where w.step = 'expand';
  v_found := array(
    select r.schedule_id
    from public.schedule_runs as r
    where r.expanded_at is null and r.status in ('pending', 'running') and r.status = 'pending' and r.scheduled_local is null
      and coalesce(r.not_before <= p_now, true)
      and r.schedule_id <> all (coalesce(v_work.suspects, '{}'))
      and r.owner_id <> all (v_blocked)
    order by r.priority desc, r.id
    limit v_most + 1
  );
  if cardinality(v_found) > v_most then
    -- From where the turn ended on: by chance somebody would be passed over again and again.
    v_from := coalesce(v_work.next_fresh, gen_random_uuid());
    v_owners := fleet.owners_to_expand(p_now, 'pending', v_from, v_most);
    if cardinality(v_owners) < v_most then
      v_owners := array(
        select o.id
        from unnest(v_owners || fleet.owners_to_expand(p_now, 'pending', null, v_most - cardinality(v_owners)))
          with ordinality as o(id, n)
        group by o.id
        order by min(o.n)
      );
    end if;
    v_found := array(
      select d.schedule_id
      from unnest(v_owners) with ordinality as o(id, n)
      cross join lateral (
        select r.schedule_id, row_number() over (order by r.priority desc, r.id) as nth
        from public.schedule_runs as r
        where r.owner_id = o.id
          and r.owner_id <> all (v_blocked)
          and r.expanded_at is null and r.status in ('pending', 'running') and r.status = 'pending'
          -- So written that of all indexes that of the owners serves: a probe each, not a look at all that waits.
          and coalesce(r.scheduled_local, '-infinity') = '-infinity'
          and coalesce(r.not_before <= p_now, true)
          and r.schedule_id <> all (coalesce(v_work.suspects, '{}'))
        order by r.priority desc, r.id
        limit greatest(v_most / cardinality(v_owners), 1)
      ) as d
      order by d.nth, o.n
    );
  end if;

  -- One run on its way gets a chunk: of the owner whose turn it is the one that has come least far.
  v_owners := fleet.owners_to_expand(p_now, 'running', v_work.next_owner, 1);
  if v_owners = '{}' then
    v_owners := fleet.owners_to_expand(p_now, 'running', null, 1);
  end if;
  return v_found || fleet.walls_to_expand(p_now, v_most, v_work.suspects) || array(
    select r.schedule_id
    from public.schedule_runs as r
    where r.owner_id = v_owners[1]
      and r.owner_id <> all (v_blocked)
      and r.expanded_at is null and r.status in ('pending', 'running') and r.status = 'running'
      and coalesce(r.scheduled_local, '-infinity') = '-infinity'
      and r.schedule_id <> all (coalesce(v_work.suspects, '{}'))
    order by r.priority desc, r.targeted, r.id
    limit 1
  );
end;
$$;

comment on function fleet.schedules_to_expand(timestamptz) is
  'The schedules of the runs that are expanded next: of all fresh ones, or where they are many, of each owner in turn; and of one that is '
  'on its way. Without those that stopped a tick, which are taken by themselves.';
revoke all on function fleet.schedules_to_expand(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.expand_next(p_now timestamptz, p_schedule_ids bigint[] default null)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_chunk integer := fleet.chunk_size();
  -- Each call has costs of its own: who is alone gets more at once.
  v_small integer := 20;
  v_alone integer := least(v_chunk, 200);
  v_begun timestamptz := clock_timestamp();
  v_ids bigint[] := coalesce(p_schedule_ids, fleet.schedules_to_expand(p_now));
  v_fresh bigint[];
  v_slice bigint[];
  v_taken integer;
  v_each integer;
  v_large record;
  v_made bigint := 0;
  v_done boolean;
begin
  if v_ids = '{}' then
    return '{"commands": 0, "more": false}';
  end if;

  -- Small schedules never wait behind a large one: all fresh runs get their first devices, then one large run a chunk.
  v_fresh := array(
    select f.id
    from (
      select u.schedule_id, min(u.n) as n from unnest(v_ids) with ordinality as u(schedule_id, n) group by u.schedule_id
    ) as v
    -- A probe a schedule, whatever else the ledger holds and whatever Postgres knows of it.
    cross join lateral (
      select r.id
      from public.schedule_runs as r
      where r.schedule_id = v.schedule_id
        and r.expanded_at is null and r.status in ('pending', 'running')
        and case
          when r.scheduled_local is null then r.status = 'pending' and coalesce(r.not_before <= p_now, true)
          else exists (
            select 1 from fleet.run_zones as z
            where z.run_id = r.id and z.expanded_at is null and z.starts_at <= p_now and z.status = 'waiting'
          )
        end
        -- What is caught up comes in order: what comes after it does not begin before it is whole.
        and (
          select e.id
          from public.schedule_runs as e
          where e.schedule_id = v.schedule_id
            and e.expanded_at is null and e.status in ('pending', 'running') and e.status = 'running'
            and e.trigger = 'catchup' and e.scheduled_local is null
            and fleet.is_booked_before(e.id, r.id)
          -- In the order of the index of the schedules, which serves also where Postgres believes the ledger empty.
          order by e.created_at, e.id
          limit 1
        ) is null
      order by r.created_at, r.id
      limit 1
    ) as f
    order by v.n
  );
  v_small := case when cardinality(v_fresh) = 1 then v_alone else v_small end;
  while v_fresh <> '{}' and v_made < v_chunk and (v_done is null or clock_timestamp() < v_begun + interval '300 milliseconds') loop
    -- A slice at a time, so that the clock is looked at between them; one in any case, or nobody would ever get on.
    -- How many there are for each is known only after some of them.
    v_each := case when v_taken is null then v_small else greatest(ceil(v_made * 1.5 / v_taken), 1) end;
    v_slice := v_fresh[:greatest(least((v_chunk - v_made) / v_each, 100), 1)];
    v_taken := coalesce(v_taken, 0) + cardinality(v_slice);
    v_fresh := v_fresh[cardinality(v_slice) + 1:];
    v_made := v_made + fleet.expand_runs(v_slice, p_now, v_small);
    v_done := true;
  end loop;
  if v_slice is not null then
    update fleet.tick_work as w
    set next_fresh = r.owner_id
    from public.schedule_runs as r
    where r.id = v_slice[cardinality(v_slice)]
      and w.step in (select x.step from fleet.tick_work as x where x.step = 'expand' for update skip locked);
  end if;

  select r.id, r.owner_id into v_large
  from public.schedule_runs as r
  where r.schedule_id = any (v_ids)
    and r.expanded_at is null and r.status in ('pending', 'running')
    and case
      when r.scheduled_local is null then r.status = 'running'
      else exists (
        select 1 from fleet.run_zones as z
        where z.run_id = r.id and z.expanded_at is null and z.starts_at <= p_now and z.status = 'running'
      )
    end
  -- The last of them is the one whose turn it is.
  order by r.schedule_id = v_ids[cardinality(v_ids)] desc, r.priority desc, r.targeted, r.id
  limit 1;
  if v_large.id is not null then
    v_made := v_made + fleet.expand_large(v_large.id, p_now, v_chunk, case
      -- What its devices cost is known by now: as many as fit into the time.
      when v_large.id = v_slice[1] and v_small = v_alone and v_made = v_alone
        then 0.3 * v_alone / greatest(extract(epoch from clock_timestamp() - v_begun), 0.001)
      else v_alone
    end::integer);
    v_done := true;
    update fleet.tick_work as w
    set next_owner = v_large.owner_id
    where w.step in (select x.step from fleet.tick_work as x where x.step = 'expand' for update skip locked);
  end if;

  return jsonb_build_object(
    'commands', v_made,
    -- Only after some progress: what another session holds must not keep this one spinning.
    'more', coalesce(v_done, false) and exists (
      select 1 from public.schedule_runs as r
      where r.expanded_at is null and r.status in ('pending', 'running') and coalesce(r.not_before <= p_now, true)
        and r.scheduled_local is null
      union all
      select 1 from fleet.run_zones as z where z.expanded_at is null and z.starts_at <= p_now
    )
  );
end;
$$;

comment on function fleet.expand_next(timestamptz, bigint[]) is
  'One transaction''s worth of expansion, of the schedules whose turn it is or of those that are named. {commands, more}.';
revoke all on function fleet.expand_next(timestamptz, bigint[]) from public, anon, authenticated, service_role;

create or replace function fleet.expand_large(p_run_id bigint, p_now timestamptz, p_chunk integer, p_first integer)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_started timestamptz := clock_timestamp();
  v_begun timestamptz := v_started;
  v_left double precision;
  v_rows integer := greatest(least(p_chunk, p_first), 1);
  v_taken integer := 0;
  v_more bigint;
  v_made bigint := 0;
begin
  -- What a device costs is known only after some of them: as many as fit into the time, at most a chunk.
  loop
    v_more := fleet.expand_runs(array[p_run_id], p_now, v_rows);
    v_made := v_made + v_more;
    v_taken := v_taken + v_rows;
    exit when v_taken >= p_chunk or v_more < v_rows;
    v_left := 0.3 - extract(epoch from clock_timestamp() - v_started);
    exit when v_left <= 0;
    v_rows := least(p_chunk - v_taken, greatest(
      v_rows * v_left / greatest(extract(epoch from clock_timestamp() - v_begun), 0.001), 1
    ))::integer;
    v_begun := clock_timestamp();
  end loop;
  return v_made;
end;
$$;

comment on function fleet.expand_large(bigint, timestamptz, integer, integer) is
  'The next devices of one run, p_first of them first, at most p_chunk, and as many as take a third of a second. Answers how many rows were made.';
revoke all on function fleet.expand_large(bigint, timestamptz, integer, integer) from public, anon, authenticated, service_role;

-- db/sources/35_runs/45_runs_to_expand.sql
-- Which runs are expanded now, and what it takes.

create or replace function fleet.runs_to_expand(p_run_ids bigint[], p_now timestamptz)
returns table (
  id bigint, owner_id uuid, schedule_id bigint, starts_at timestamptz, expires_at timestamptz, expanded_to bigint, priority smallint,
  payload jsonb, command_type text, channel text, device_ids bigint[], group_ids bigint[], selector jsonb, zones text[],
  policies jsonb, overlap text, max_concurrent bigint, max_attempts integer, is_plain boolean, may_overlap boolean,
  scheduled_local timestamp, fold smallint, unknown_zone text, zone_row_id bigint, zone_names text[], only_ids bigint[],
  zone_at integer, has_movers boolean, queues boolean
)
language plpgsql
volatile
rows 20
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
begin
  return query
  select r.id, r.owner_id, r.schedule_id,
    -- The slots of the jitter count from the due instant, not from the tick that came by or the chunk that a device is in.
    greatest(r.not_before, case
      when not s.policies ? 'jitter' then p_now
      when z.id is not null then case when z.started_at > z.due_at + interval '1 minute' then z.started_at else z.due_at end
      when r.trigger = 'schedule' then r.scheduled_for
      else r.started_at
    end),
    case when z.id is null then r.expires_at else z.expires_at end,
    case when z.id is null then r.expanded_to else z.expanded_to end, r.priority,
    r.payload, t.name, t.channel, s.device_ids, s.group_ids, s.selector, r.zones,
    p.policies, p.policies ->> 'overlap', (p.policies ->> 'max_concurrent')::bigint,
    (p.policies #>> '{retry,attempts}')::integer,
    not s.policies ?| '{jitter,execution_window}',
    -- Devices need a look at what they still have to do only while another run of the schedule has something left to do.
    exists (
      select 1 from public.schedule_runs as o
      where o.schedule_id = r.schedule_id and o.id <> r.id and o.status in ('pending', 'running')
        and (o.targeted > o.completed + o.failed + o.replaced or o.scheduled_local is null)
    ),
    r.scheduled_local, r.fold, u.zone, z.id,
    case when u.zone = any (z.zones) then z.zones || ''::text else z.zones end, z.device_ids, z.zone_at,
    z.id is not null and exists (select 1 from fleet.judged_movers as m where m.run_id = r.id),
    -- All that was missed is to be made up for, which being busy with the first of it must not defeat.
    p.policies ->> 'catchup' = 'all' and (
      r.trigger = 'catchup'
      -- On time, but decided in one breath with what is late.
      or exists (
        select 1 from public.schedule_runs as e
        where e.schedule_id = r.schedule_id and e.status in ('pending', 'running') and e.trigger = 'catchup' and e.started_at = r.started_at
      )
    )
  from public.schedule_runs as r
  join public.schedules as s on s.id = r.schedule_id and s.owner_id = r.owner_id
  join public.command_types as t on t.name = r.action_type and coalesce(t.owner_id, r.owner_id) = r.owner_id
  cross join lateral (select fleet.effective_policies(s.policies) as policies) as p
  cross join lateral (
    select case when s.timezone = 'device' then fleet.unknown_zone(s.recurrence) else 'UTC' end as zone
  ) as u
  left join lateral (
    select x.*
    from fleet.run_zones as x
    where r.scheduled_local is not null and x.run_id = r.id and x.expanded_at is null and x.starts_at <= p_now
    order by x.starts_at, x.id
    limit 1
  ) as z on true
  where r.id = any (p_run_ids);
end;
$$;

comment on function fleet.runs_to_expand(bigint[], timestamptz) is
  'What it takes to expand these runs; in device time the first of each run''s instants that has come.';
revoke all on function fleet.runs_to_expand(bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.lock_runs(p_run_ids bigint[], p_now timestamptz)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
  v_runs bigint[];
  v_gone text;
begin
  -- Two sessions never expand the same run; what is held elsewhere is expanded there. And one run of a schedule at a time,
  -- here and in other sessions: within one statement, or unseen by each other, two of them could not tell that a device is
  -- busy with the other. In a statement of its own, so that the next one sees all that was done under the lock before. The lock
  -- of a schedule is not that of its row: who cancels it needs that one, and does not wait.
  with first as materialized (
    select (array_agg(x.id order by x.created_at, x.id))[1] as id
    from unnest(p_run_ids) as u(id)
    cross join lateral (select o.* from public.schedule_runs as o where o.id = u.id offset 0) as x
    where x.expanded_at is null
      and x.status in ('pending', 'running')
      -- What waits is judged when it starts: who is busy then, and who is there.
      and case
        when x.scheduled_local is null then coalesce(x.not_before <= p_now, true)
        else exists (select 1 from fleet.run_zones as z where z.run_id = x.id and z.expanded_at is null and z.starts_at <= p_now)
      end
    group by x.schedule_id
  ),
  held as materialized (
    select r.id, r.schedule_id, r.owner_id, r.action_type
    from public.schedule_runs as r
    where r.id = any (array(select f.id from first as f))
      -- So written that these are looked up, and not among all that waits.
      and coalesce(r.expanded_at, 'infinity') = 'infinity'
      and r.status in ('pending', 'running')
    for no key update of r skip locked
  ),
  -- Only now, and of these alone: looked at earlier it would lock the schedules of runs that this session leaves.
  locked as materialized (
    select h.* from held as h where pg_try_advisory_xact_lock(hashtext('pgfleet.expand'), hashint8(h.schedule_id))
  )
  select array_agg(l.id), min(case when t.name is null then l.action_type end) into v_runs, v_gone
  from locked as l
  join public.schedules as s on s.id = l.schedule_id and s.status <> 'cancelled'
  left join public.command_types as t on t.name = l.action_type and coalesce(t.owner_id, l.owner_id) = l.owner_id;

  if v_gone is not null then
    raise exception 'command type "%" is gone', v_gone
      using errcode = 'PT409', detail = 'command_type_gone', hint = 'Make it again, or change the action_type of the schedule.';
  end if;
  return v_runs;
end;
$$;

comment on function fleet.lock_runs(bigint[], timestamptz) is
  'Those of these runs that this session expands now. Raises command_type_gone (PT409).';
revoke all on function fleet.lock_runs(bigint[], timestamptz) from public, anon, authenticated, service_role;

-- db/sources/35_runs/46_walls_to_expand.sql
-- Device time: what is decided about a zone of a run at its own instant.

create or replace function fleet.zone_refusal(
  p_schedule public.schedules,
  p_zone text,
  p_due timestamptz,
  p_is_decided boolean,
  p_now timestamptz
)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_is_late boolean := p_due < p_now - interval '1 minute';
begin
  if p_schedule.status = 'paused' then
    return 'paused';
  end if;
  return coalesce(
    case
      when v_is_late and not p_is_decided
        then fleet.late_refusal(p_schedule.recurrence, fleet.effective_policies(p_schedule.policies), p_zone, p_due, p_now)
    end,
    case
      when p_schedule.policies ? 'blackouts' and (
        fleet.open_zones(p_schedule, array[p_zone], p_due) = '{}'
        -- What is caught up acts now, so now must be allowed as well.
        or v_is_late and fleet.open_zones(p_schedule, array[p_zone], p_now) = '{}'
      )
        then 'blackout'
    end
  );
end;
$$;

comment on function fleet.zone_refusal(public.schedules, text, timestamptz, boolean, timestamptz) is
  'Why a zone of a run does not run although its time has come: a pause, a blackout there, or, where that is not decided, because it comes '
  'too late. Null where it runs.';
revoke all on function fleet.zone_refusal(public.schedules, text, timestamptz, boolean, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.judge_zones(p_run_ids bigint[], p_now timestamptz)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_runs bigint[] := p_run_ids;
  v_schedule public.schedules;
  v_row record;
  v_judged record;
  v_is_late boolean;
begin
  for v_row in
    select z.id, z.run_id, r.schedule_id, z.due_at, z.starts_at, z.expires_at, z.zones, z.dst_rule
    from public.schedule_runs as r
    cross join lateral (
      select x.*
      from fleet.run_zones as x
      where x.run_id = r.id and x.expanded_at is null and x.starts_at <= p_now
      order by x.starts_at, x.id
      limit 1
    ) as z
    where r.id = any (p_run_ids) and r.scheduled_local is not null and z.started_at is null
  loop
    select s.* into v_schedule from public.schedules as s where s.id = v_row.schedule_id;
    v_is_late := v_row.due_at < p_now - interval '1 minute';
    select array_agg(j.zone order by j.zone) filter (where j.refusal is null) as open,
      array_agg(j.zone order by j.zone) filter (where j.refusal is not null) as closed,
      mode() within group (order by j.refusal) as refusal
    into v_judged
    from (
      select u.zone, fleet.zone_refusal(
        v_schedule, u.zone, v_row.due_at, v_row.starts_at > v_row.due_at + interval '1 minute', p_now
      ) as refusal
      from unnest(v_row.zones) as u(zone)
    ) as j;

    if v_judged.open is null then
      update fleet.run_zones as z
      set status = 'skipped', reason = v_judged.refusal, started_at = p_now, expanded_at = p_now
      where z.id = v_row.id;
      v_runs := array_remove(v_runs, v_row.run_id);
      perform fleet.close_runs(array[v_row.run_id], p_now);
      continue;
    end if;
    update fleet.run_zones as z
    set status = 'running', started_at = p_now, zones = v_judged.open,
        expires_at = case
          when v_is_late and v_row.starts_at <= v_row.due_at + interval '1 minute' then fleet.run_expiry(
            fleet.effective_policies(v_schedule.policies),
            (select min(n.due_at) from fleet.next_on_walls(v_schedule.recurrence, v_judged.open[1:1], p_now, true) as n), p_now
          )
          else z.expires_at
        end
    where z.id = v_row.id;
    if v_judged.closed is not null then
      insert into fleet.run_zones (run_id, due_at, starts_at, expires_at, zones, status, reason, dst_rule, started_at, expanded_at)
      values (
        v_row.run_id, v_row.due_at, v_row.starts_at, v_row.expires_at, v_judged.closed, 'skipped', v_judged.refusal, v_row.dst_rule,
        p_now, p_now
      );
    end if;
  end loop;
  return v_runs;
end;
$$;

comment on function fleet.judge_zones(bigint[], timestamptz) is
  'Decide about the zones of runs in device time whose time has come: blackouts, pauses and catching up are judged at each zone''s instant. '
  'Answers the runs that are to be expanded, those of fixed instants among them.';
revoke all on function fleet.judge_zones(bigint[], timestamptz) from public, anon, authenticated, service_role;

-- db/sources/35_runs/50_per_device.sql
-- What a run means for one device: when it starts there, and what it still has to do.

create or replace function fleet.device_start(
  p_policies jsonb,
  p_schedule_id bigint,
  p_device_id bigint,
  p_timezone text,
  p_from timestamptz
)
returns timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_windows jsonb := fleet.window_list(p_policies);
  v_start timestamptz := p_from;
begin
  if v_windows <> '[]' then
    if fleet.waits_for_window(v_windows, 'device') then
      v_start := fleet.window_opening(v_windows, 'device', p_timezone, p_from);
    elsif not fleet.is_in_windows(v_windows, 'device', p_timezone, p_from) then
      return null;
    end if;
  end if;
  if p_policies ->> 'jitter' is null then
    return v_start;
  end if;
  return v_start + fleet.jitter_slot(
    least((p_policies ->> 'jitter')::interval, fleet.room_for_jitter(v_windows, p_schedule_id, p_timezone, v_start)),
    p_schedule_id, p_device_id
  );
end;
$$;

comment on function fleet.device_start(jsonb, bigint, bigint, text, timestamptz) is
  'When a device may start: when its window opens, plus its slot of the jitter. Null where it is outside of its window and is not to wait.';
revoke all on function fleet.device_start(jsonb, bigint, bigint, text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.room_for_jitter(
  p_windows jsonb,
  p_schedule_id bigint,
  p_timezone text,
  p_start timestamptz
)
returns interval
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  -- A slot beyond the window would be out of bounds at every run: those devices would never have their turn.
  select least(
    fleet.window_closing(p_windows, 'device', p_timezone, p_start),
    (
      select fleet.window_closing(p_windows, 'schedule', s.timezone, p_start)
      from public.schedules as s
      where s.id = p_schedule_id and s.timezone <> 'device'
    )
  ) - p_start
  where p_windows <> '[]'
$$;

comment on function fleet.room_for_jitter(jsonb, bigint, text, timestamptz) is
  'How long the windows of a schedule and of a device stay open after p_start; null where there are none.';
revoke all on function fleet.room_for_jitter(jsonb, bigint, text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.jitter_slot(p_jitter interval, p_schedule_id bigint, p_device_id bigint)
returns interval
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  -- From a hash of both, so that a device keeps its slot, and the fleet is spread evenly.
  select p_jitter * (('x' || substr(md5(p_schedule_id || ':' || p_device_id), 1, 8))::bit(32)::bigint / 4294967296.0)
$$;

comment on function fleet.jitter_slot(interval, bigint, bigint) is
  'How much later than due a device runs a schedule: the same at each run, within the jitter.';
revoke all on function fleet.jitter_slot(interval, bigint, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.leaves_out(
  p_overlap text,
  p_max_concurrent bigint,
  p_unfinished bigint,
  p_is_overtaken boolean
)
returns boolean
language sql
immutable
parallel safe
return (
  case p_overlap
    -- Of two runs on their way, the later one has come here first: what is newer stays.
    when 'replace' then p_is_overtaken
    when 'allow' then p_unfinished >= p_max_concurrent
    when 'buffer_one' then p_unfinished >= 2 or p_is_overtaken
    else p_unfinished >= 1
  end
);

comment on function fleet.leaves_out(text, bigint, bigint, boolean) is
  'Whether the overlap policy leaves a device out that has so many unfinished commands of the schedule, maybe of a later run.';
revoke all on function fleet.leaves_out(text, bigint, bigint, boolean) from public, anon, authenticated, service_role;

create or replace function fleet.is_booked_before(p_run_id bigint, p_than bigint)
returns boolean
language sql
stable
return case
  -- Ids of one database follow each other; those of two say nothing about which is older.
  when p_run_id >> 44 = p_than >> 44 then p_run_id < p_than
  else coalesce(
    (select r.created_at from public.schedule_runs as r where r.id = p_run_id)
      < (select t.created_at from public.schedule_runs as t where t.id = p_than),
    p_run_id < p_than
  )
end;

comment on function fleet.is_booked_before(bigint, bigint) is
  'Whether a run was booked before another one of its schedule, wherever that was: an owner brings its runs from one database to another.';
revoke all on function fleet.is_booked_before(bigint, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.unfinished_of(
  p_schedule_id bigint,
  p_device_id bigint,
  p_run_id bigint,
  p_local timestamp,
  p_fold smallint,
  p_now timestamptz
)
returns table (n bigint, last_id bigint, is_overtaken boolean)
language sql
stable
strict
rows 1
set search_path = pg_catalog, pg_temp
as $$
  select count(distinct c.run_id),
    -- What is later on the wall, or was booked later, comes last, whichever was expanded first; what came from another database is older.
    (array_agg(
      c.id order by o.scheduled_local desc nulls last, o.fold desc, c.run_id >> 44 = p_run_id >> 44 desc, c.run_id desc, c.step desc
    ))[1],
    bool_or(case
      when o.scheduled_local is null then fleet.is_booked_before(p_run_id, c.run_id)
      else (o.scheduled_local, o.fold) > (p_local, p_fold)
    end)
  from public.device_commands as c
  left join public.schedule_runs as o on o.id = c.run_id and isfinite(p_local)
  where c.schedule_id = p_schedule_id
    and c.device_id = p_device_id
    and c.status in ('pending', 'running')
    -- What nobody may start any more keeps nobody busy: by default it expires at the very instant that is due now.
    and (c.status = 'running' or c.expires_at > p_now)
    and c.run_id <> p_run_id
$$;

comment on function fleet.unfinished_of(bigint, bigint, bigint, timestamp, smallint, timestamptz) is
  'What a device has still to do for other runs of a schedule: how many runs, the command of the last of them, and whether one is a later run; in '
  'device time of one whose local time is later, p_local being -infinity elsewhere.';
revoke all on function fleet.unfinished_of(bigint, bigint, bigint, timestamp, smallint, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.is_earlier_run(p_run_id bigint, p_local timestamp, p_fold smallint)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select r.scheduled_local is null or (r.scheduled_local, r.fold) < (p_local, p_fold)
  from public.schedule_runs as r
  where r.id = p_run_id
$$;

comment on function fleet.is_earlier_run(bigint, timestamp, smallint) is
  'Whether a run is earlier on the wall than a local occurrence of the same schedule; one by hand always is.';
revoke all on function fleet.is_earlier_run(bigint, timestamp, smallint) from public, anon, authenticated, service_role;

-- db/sources/35_runs/55_waves.sql
-- Waves: the ordered groups of a run that does not reach everybody at once. Whoever wants a run held fills run_waves before it is expanded.

create or replace function fleet.held_until()
returns timestamptz
language sql
immutable
parallel safe
return timestamptz '9000-01-01 00:00:00+00';

comment on function fleet.held_until() is 'When commands that are held may start: never. A date, since clients cannot read infinity.';
revoke all on function fleet.held_until() from public, anon, authenticated, service_role;

create or replace function fleet.place_of_device(p_schedule_id bigint, p_device_id bigint)
returns numeric
language sql
immutable
parallel safe
return ('x' || substr(md5('rollout:' || p_schedule_id || ':' || p_device_id), 1, 8))::bit(32)::bigint / 42949672.96;

comment on function fleet.place_of_device(bigint, bigint) is 'The place of a device in the rollouts of a schedule, from 0 to 100: always the same.';
revoke all on function fleet.place_of_device(bigint, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.wave_of(p_run_id bigint, p_schedule_id bigint, p_device_id bigint)
returns smallint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_place numeric := fleet.place_of_device(p_schedule_id, p_device_id);
  v_wave smallint;
begin
  select w.wave into v_wave
  from public.run_waves as w
  where w.run_id = p_run_id
    and (
      w.percent_to > v_place
      or p_device_id = any (w.device_ids)
      or (w.tag is not null and exists (select 1 from public.devices as d where d.id = p_device_id and w.tag = any (d.tags)))
    )
  order by w.wave
  limit 1;
  if not found then
    select max(w.wave) into v_wave from public.run_waves as w where w.run_id = p_run_id;
  end if;
  return v_wave;
end;
$$;

comment on function fleet.wave_of(bigint, bigint, bigint) is 'The group of a device in a run: the first that takes it, else the last; null where the run has none.';
revoke all on function fleet.wave_of(bigint, bigint, bigint) from public, anon, authenticated, service_role;

-- db/sources/35_runs/60_followers.sql
-- Followers: the runs of schedules that run when a run of another one has ended.

create or replace function fleet.start_followers(p_runs bigint[], p_now timestamptz)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_runs fleet.run_booking[];
begin
  with ended as (
    select s, r.id as run_id, row_number() over (partition by s.id order by r.id) as n
    from public.schedule_runs as r
    join public.schedules as s on s.after_schedule_id = r.schedule_id and s.owner_id = r.owner_id
    -- Who cancels a schedule ends it: nothing follows because of that.
    join public.schedules as p on p.id = r.schedule_id and p.status <> 'cancelled'
    where r.id = any (p_runs)
      and s.status = 'active'
      and (s.after_on = 'either' or s.after_on = r.status)
      -- Device by device it has followed already.
      and not s.after_per_device
      -- A second look at the same end is harmless.
      and not exists (
        select 1 from public.schedule_runs as x
        where x.schedule_id = s.id and x.idempotency_key = 'after:' || r.id
      )
  )
  select array_agg(fleet.follower_booking(e.s, e.run_id, e.n, p_now) order by e.run_id) into v_runs from ended as e;
  return case when v_runs is null then 0 else cardinality(fleet.book_runs(v_runs, p_now)) end;
end;
$$;

comment on function fleet.start_followers(bigint[], timestamptz) is
  'Write the runs of the schedules that follow these ended runs. Answers how many; the tick expands them.';
revoke all on function fleet.start_followers(bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.follower_booking(
  p_schedule public.schedules,
  p_after_run_id bigint,
  p_nth bigint,
  p_now timestamptz
)
returns fleet.run_booking
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_zones text[] := case
    when p_schedule.timezone = 'device' and p_schedule.policies ? 'blackouts' then fleet.schedule_zones(p_schedule)
  end;
  v_opens_at timestamptz := fleet.opening_of(p_schedule, p_now);
  v_booking fleet.run_booking;
begin
  v_booking.schedule_id := p_schedule.id;
  v_booking.scheduled_for := fleet.free_instant(p_schedule, p_now, p_nth);
  v_booking.trigger := 'chain';
  v_booking.reason := fleet.follower_refusal(p_schedule, p_nth, v_zones, v_opens_at, p_now);
  v_booking.status := case when v_booking.reason is null then 'pending' else 'skipped' end;
  v_booking.not_before := nullif(v_opens_at, p_now);
  v_booking.expires_at := fleet.run_expiry(fleet.effective_policies(p_schedule.policies), null, v_opens_at);
  if v_zones is not null then
    v_booking.zones := fleet.open_zones(p_schedule, fleet.open_zones(p_schedule, v_zones, p_now), v_opens_at);
  end if;
  v_booking.after_run_id := p_after_run_id;
  v_booking.idempotency_key := 'after:' || p_after_run_id;
  return v_booking;
end;
$$;

comment on function fleet.follower_booking(public.schedules, bigint, bigint, timestamptz) is
  'The run of a schedule that follows this one now, as the n-th at once, or why it does not.';
revoke all on function fleet.follower_booking(public.schedules, bigint, bigint, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.follower_refusal(
  p_schedule public.schedules,
  p_nth bigint,
  p_zones text[],
  p_opens_at timestamptz,
  p_now timestamptz
)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_nth > fleet.runs_left(p_schedule) then 'max_runs reached'
    when p_now < p_schedule.start_time then 'the schedule has not begun'
    when p_now > p_schedule.end_time then 'the schedule has ended'
    else coalesce(
      fleet.zones_refusal(p_schedule, p_zones, p_now),
      case when p_opens_at > p_now then fleet.zones_refusal(p_schedule, p_zones, p_opens_at) end
    )
  end
$$;

comment on function fleet.follower_refusal(public.schedules, bigint, text[], timestamptz, timestamptz) is
  'Why a schedule does not follow now, as the n-th time at once: max_runs, its bounds, a blackout or its execution window; null where it '
  'does.';
revoke all on function fleet.follower_refusal(public.schedules, bigint, text[], timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

-- db/sources/35_runs/62_per_device.sql
-- Followers device by device (after.per_device): one run for each run that is followed, fed by the devices that are done with it.

create or replace function fleet.take_chain_steps(p_limit integer)
returns fleet.chain_steps[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owners uuid[];
  v_steps fleet.chain_steps[];
begin
  -- From one owner to the next through the index; an equal share for each, the oldest first.
  with recursive waiting as (
    (select c.owner_id from fleet.chain_steps as c order by c.owner_id limit 1)
    union all
    select n.owner_id
    from waiting as w
    cross join lateral (
      select c.owner_id from fleet.chain_steps as c where c.owner_id > w.owner_id order by c.owner_id limit 1
    ) as n
  )
  select array_agg(w.owner_id) into v_owners from (select x.owner_id from waiting as x limit p_limit) as w;

  with taken as (
    delete from fleet.chain_steps as c
    where c.id in (
      select t.id
      from unnest(v_owners) as o(id)
      cross join lateral (
        select x.id
        from fleet.chain_steps as x
        where x.owner_id = o.id
        order by x.id
        limit greatest(p_limit / cardinality(v_owners), 1)
        for update skip locked
      ) as t
    )
    returning c as step
  )
  select array_agg(t.step) into v_steps from taken as t;
  return coalesce(v_steps, '{}');
end;
$$;

comment on function fleet.take_chain_steps(integer) is
  'Take devices that have their turn in a follower, at most so many, an equal share of each owner.';
revoke all on function fleet.take_chain_steps(integer) from public, anon, authenticated, service_role;

create or replace function fleet.feed_followers(p_now timestamptz, p_limit integer default 2000)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_steps fleet.chain_steps[];
  v_turn record;
  v_made integer := 0;
begin
  if exists (select 1 from fleet.chain_steps) then
    v_steps := fleet.take_chain_steps(p_limit);
    for v_turn in
      select t.owner_id, t.schedule_id, t.after_run_id, array_agg(distinct t.device_id) as device_ids
      from unnest(v_steps) as t
      group by t.owner_id, t.schedule_id, t.after_run_id
      order by t.after_run_id, t.schedule_id
    loop
      begin
        v_made := v_made + fleet.feed_follower(v_turn.schedule_id, v_turn.after_run_id, v_turn.device_ids, p_now);
      exception
        when query_canceled or admin_shutdown then
          raise;
        when deadlock_detected or lock_not_available then
          -- Somebody holds what it needs: next time.
          insert into fleet.chain_steps (owner_id, schedule_id, after_run_id, device_id)
          select v_turn.owner_id, v_turn.schedule_id, v_turn.after_run_id, u.id from unnest(v_turn.device_ids) as u(id);
        when others then
          perform fleet.fail_follower(v_turn.schedule_id, v_turn.after_run_id, sqlerrm, p_now);
      end;
    end loop;
  end if;
  return v_made;
end;
$$;

comment on function fleet.feed_followers(timestamptz, integer) is
  'Let devices that are done with a run go on with what follows it device by device, at most so many. Answers how many commands were made.';
revoke all on function fleet.feed_followers(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.feed_follower(
  p_schedule_id bigint,
  p_after_run_id bigint,
  p_device_ids bigint[],
  p_now timestamptz
)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_schedule public.schedules;
  v_run public.schedule_runs;
begin
  select s.* into v_schedule
  from public.schedules as s
  where s.id = p_schedule_id
    and s.after_per_device
    -- What has run as often as it may still lets the devices of its last run come.
    and s.status in ('active', 'completed')
    and exists (
      select 1
      from public.schedule_runs as a
      -- Who cancels a schedule ends it: nothing follows because of that.
      join public.schedules as p on p.id = a.schedule_id and p.status <> 'cancelled'
      where a.id = p_after_run_id and a.schedule_id = s.after_schedule_id and a.owner_id = s.owner_id
    )
  for no key update nowait;
  if not found then
    return 0;
  end if;

  v_run := fleet.follower_run(p_schedule_id, p_after_run_id);
  if v_run.id is null and v_schedule.status = 'active' then
    perform fleet.book_runs(array[fleet.follower_booking(v_schedule, p_after_run_id, 1, p_now)], p_now);
    -- Nobody else expands it; its commands come as its devices do.
    update public.schedule_runs as r
    set is_fed = true, status = 'running', expanded_at = p_now
    where r.schedule_id = p_schedule_id and r.idempotency_key = 'after:' || p_after_run_id and r.status = 'pending';
    v_run := fleet.follower_run(p_schedule_id, p_after_run_id);
  end if;
  if not coalesce(v_run.is_fed, false) then
    return 0;
  end if;
  return fleet.write_fed_commands(v_schedule, v_run, p_device_ids, p_now);
end;
$$;

comment on function fleet.feed_follower(bigint, bigint, bigint[], timestamptz) is
  'Let these devices go on with a schedule that follows a run of theirs: its first device opens its run. Answers how many commands were made.';
revoke all on function fleet.feed_follower(bigint, bigint, bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.follower_run(p_schedule_id bigint, p_after_run_id bigint)
returns public.schedule_runs
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select r.*
  from public.schedule_runs as r
  where r.schedule_id = p_schedule_id and r.idempotency_key = 'after:' || p_after_run_id
$$;

comment on function fleet.follower_run(bigint, bigint) is 'The run of a schedule that follows this one; null where there is none.';
revoke all on function fleet.follower_run(bigint, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.write_fed_commands(
  p_schedule public.schedules,
  p_run public.schedule_runs,
  p_device_ids bigint[],
  p_now timestamptz
)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_policies jsonb := fleet.effective_policies(p_schedule.policies);
  v_unknown text := case when p_schedule.timezone = 'device' then fleet.unknown_zone(p_schedule.recurrence) else 'UTC' end;
  v_type public.command_types;
  v_made integer;
begin
  select t.* into v_type
  from public.command_types as t
  where t.name = p_run.action_type and coalesce(t.owner_id, p_run.owner_id) = p_run.owner_id;
  if not found then
    raise exception 'command type "%" is gone', p_run.action_type
      using errcode = 'PT409', detail = 'command_type_gone', hint = 'Make it again, or change the action_type of the schedule.';
  end if;

  with target as materialized (
    select d.id as device_id, d.hostname, u.last_id,
      fleet.device_start(
        v_policies, p_schedule.id, d.id, coalesce(d.timezone, v_unknown, 'UTC'), greatest(p_run.not_before, p_now)
      ) as starts_at,
      fleet.leaves_out(
        v_policies ->> 'overlap', (v_policies ->> 'max_concurrent')::bigint, coalesce(u.n, 0), coalesce(u.is_overtaken, false)
      ) as is_busy
    from public.devices as d
    left join lateral fleet.unfinished_of(p_schedule.id, d.id, p_run.id, '-infinity', 0::smallint, p_now) as u on true
    where d.id = any (p_device_ids)
      and d.owner_id = p_schedule.owner_id
      and d.status = 'active'
      and fleet.is_meant(p_schedule.owner_id, p_schedule.device_ids, p_schedule.group_ids, p_schedule.selector, d)
      and (p_run.zones is null or coalesce(d.timezone, v_unknown) = any (p_run.zones))
      and not exists (select 1 from public.device_commands as c where c.run_id = p_run.id and c.device_id = d.id)
  ),
  replaced as (
    update public.device_commands as c
    set status = 'cancelled', reason = 'replaced'
    from target as t
    where v_policies ->> 'overlap' = 'replace'
      and t.starts_at is not null
      and c.schedule_id = p_schedule.id
      and c.device_id = t.device_id
      and c.status in ('pending', 'running')
      and c.run_id < p_run.id
  ),
  made as (
    insert into public.device_commands (
      run_id, schedule_id, owner_id, device_id, device_hostname, channel, command_type, payload, priority, not_before,
      expires_at, max_attempts, waits_for
    )
    select p_run.id, p_schedule.id, p_run.owner_id, t.device_id, t.hostname, v_type.channel, v_type.name, p_run.payload, p_run.priority,
      t.starts_at, fleet.run_expiry(v_policies, null, t.starts_at), (v_policies #>> '{retry,attempts}')::integer,
      case when v_policies ->> 'overlap' = 'buffer_one' then t.last_id end
    from target as t
    where t.starts_at is not null and not t.is_busy
    on conflict (run_id, device_id, step) where run_id is not null do nothing
    returning device_id
  ),
  counted as (
    update public.schedule_runs as r
    set targeted = r.targeted + (select count(*) from made),
        skipped = r.skipped + (select count(*) from target as t where t.starts_at is null or t.is_busy),
        reason = case
          when exists (select 1 from target as t where t.starts_at is null) then 'outside the execution window'
          when exists (select 1 from target as t where t.is_busy) then 'overlap'
          else r.reason
        end
    where r.id = p_run.id
  )
  select count(*) into v_made from made;
  return v_made;
end;
$$;

comment on function fleet.write_fed_commands(public.schedules, public.schedule_runs, bigint[], timestamptz) is
  'The commands of a run that is fed, for those of these devices that its schedule means: windows, jitter and overlap are judged for each now. '
  'Answers how many.';
revoke all on function fleet.write_fed_commands(public.schedules, public.schedule_runs, bigint[], timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.fail_follower(p_schedule_id bigint, p_after_run_id bigint, p_error text, p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_schedule public.schedules;
  v_booking fleet.run_booking;
begin
  update public.schedule_runs as r
  set is_fed = false, status = 'failed', reason = 'error', error_message = p_error, finished_at = p_now
  where r.schedule_id = p_schedule_id and r.idempotency_key = 'after:' || p_after_run_id and r.status in ('pending', 'running');
  if found then
    return;
  end if;
  select s.* into v_schedule from public.schedules as s where s.id = p_schedule_id;
  v_booking.schedule_id := p_schedule_id;
  v_booking.scheduled_for := fleet.free_instant(v_schedule, p_now, 1);
  v_booking.trigger := 'chain';
  v_booking.status := 'failed';
  v_booking.reason := 'error';
  v_booking.error_message := p_error;
  v_booking.after_run_id := p_after_run_id;
  v_booking.idempotency_key := 'after:' || p_after_run_id;
  perform fleet.book_runs(array[v_booking], p_now);
end;
$$;

comment on function fleet.fail_follower(bigint, bigint, text, timestamptz) is
  'Write the error of a follower into its run; whoever else is to come is passed over.';
revoke all on function fleet.fail_follower(bigint, bigint, text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.close_fed_runs(p_now timestamptz, p_limit integer default 500)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_idle bigint[];
begin
  with closed as (
    update public.schedule_runs as r
    set is_fed = false,
        status = case when r.targeted > 0 then r.status else 'skipped' end,
        reason = case when r.targeted > 0 then null else coalesce(r.reason, 'no targets') end,
        finished_at = case when r.targeted > 0 then r.finished_at else p_now end
    where r.id in (
      select x.id
      from public.schedule_runs as x
      where x.is_fed
        and not exists (select 1 from public.schedule_runs as a where a.id = x.after_run_id and a.status in ('pending', 'running'))
        and not exists (select 1 from fleet.chain_steps as c where c.after_run_id = x.after_run_id)
      order by x.id
      limit p_limit
      for update skip locked
    )
    returning r.id, r.targeted
  ),
  told as (
    -- All of its commands may be final already: have the tick look at it once more.
    insert into fleet.run_progress (run_id, completed, failed)
    select c.id, 0, 0 from closed as c where c.targeted > 0
  )
  select array_agg(c.id) into v_idle from closed as c where c.targeted = 0;
  if v_idle is not null then
    perform fleet.count_idle_runs(v_idle);
  end if;
end;
$$;

comment on function fleet.close_fed_runs(timestamptz, integer) is
  'End the feeding of runs that follow a run device by device, when that one is whole and nobody of it is to come.';
revoke all on function fleet.close_fed_runs(timestamptz, integer) from public, anon, authenticated, service_role;

-- db/sources/35_runs/70_settle.sql
-- The end of runs: counted, judged, and passed on to what follows.

create or replace function fleet.settle_runs(p_now timestamptz, p_limit integer default 20000)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ended bigint[];
begin
  perform fleet.end_cancelled(p_limit);
  perform fleet.feed_followers(p_now);
  v_ended := fleet.add_progress(p_now, p_limit);
  perform fleet.close_fed_runs(p_now);
  if v_ended is null then
    return 0;
  end if;

  perform fleet.start_followers(v_ended, p_now);
  perform fleet.pause_failing(v_ended);
  return cardinality(v_ended);
end;
$$;

comment on function fleet.settle_runs(timestamptz, integer) is
  'Add finished commands to their runs, end the runs that are through, start what follows them or their devices, pause what keeps failing. Answers how '
  'many ended.';
revoke all on function fleet.settle_runs(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.end_cancelled(p_limit integer)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Whoever cancels does not wait for a tick that is expanding: what it made meanwhile ends here.
  perform fleet.cancel_runs_of(s.id, coalesce(s.status_reason, 'the schedule was cancelled'))
  from public.schedules as s
  where s.status = 'cancelled'
    and s.id in (
      select r.schedule_id
      from (
        select p.run_id
        from fleet.run_progress as p
        where p.completed = 0 and p.failed = 0 and p.replaced = 0
        order by p.id
        limit p_limit
      ) as t
      join public.schedule_runs as r on r.id = t.run_id
    );
end;
$$;

comment on function fleet.end_cancelled(integer) is
  'Cancel once more what is left of cancelled schedules, of those whose runs are to be looked at.';
revoke all on function fleet.end_cancelled(integer) from public, anon, authenticated, service_role;

create or replace function fleet.add_progress(p_now timestamptz, p_limit integer)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ended bigint[];
begin
  with taken as (
    delete from fleet.run_progress as p
    where p.id in (select x.id from fleet.run_progress as x order by x.id limit p_limit for update skip locked)
    returning p.run_id, p.completed, p.failed, p.replaced
  ),
  -- Only runs of which something was heard: a tick costs what happened, not what is open. Counters and end in one statement,
  -- so that of two sessions the later one sees the sum.
  told as (
    update public.schedule_runs as r
    set completed = r.completed + a.completed,
        failed = r.failed + a.failed,
        replaced = r.replaced + a.replaced,
        (status, reason, finished_at) = (
          select o.status, o.reason, o.finished_at
          from fleet.run_outcome(
            r, r.completed + a.completed, r.failed + a.failed, r.replaced + a.replaced, p_now
          ) as o
        )
    from (
      select t.run_id, sum(t.completed) as completed, sum(t.failed) as failed, sum(t.replaced) as replaced,
        bool_or(t.completed = 0 and t.failed = 0 and t.replaced = 0) as is_told_to_end
      from taken as t
      group by t.run_id
    ) as a
    where r.id = a.run_id
    returning r.id, a.is_told_to_end, r.reason,
      r.status in ('completed', 'failed') and r.finished_at = p_now as is_over_now
  )
  -- What failed with an error was over before it came here.
  select array_agg(t.id) into v_ended from told as t where t.is_over_now or (t.is_told_to_end and t.reason = 'error');
  return v_ended;
end;
$$;

comment on function fleet.add_progress(timestamptz, integer) is
  'Add what finished since the last tick to the counters of the runs, and end those that are through. Answers which.';
revoke all on function fleet.add_progress(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.run_outcome(
  p_run public.schedule_runs,
  p_completed bigint,
  p_failed bigint,
  p_replaced bigint,
  p_now timestamptz
)
returns table (status text, reason text, finished_at timestamptz)
language sql
immutable
rows 1
set search_path = pg_catalog, pg_temp
as $$
  select case
      when not o.is_over then p_run.status
      when p_failed > 0 then 'failed'
      -- Nobody was to carry it out any more: it has neither failed nor come to anything.
      when p_completed = 0 and p_replaced > 0 then 'cancelled'
      else 'completed'
    end,
    case
      when not o.is_over then p_run.reason
      when p_failed > 0 then format('%s of %s commands did not complete', p_failed, p_run.targeted)
      when p_completed = 0 and p_replaced > 0 then 'replaced'
      when p_replaced > 0 then format('%s of %s commands were replaced by a later run', p_replaced, p_run.targeted)
    end,
    case when o.is_over then p_now else p_run.finished_at end
  from (
    select p_run.status = 'running' and p_run.expanded_at is not null and not p_run.is_fed
      and p_completed + p_failed + p_replaced >= p_run.targeted as is_over
  ) as o
$$;

comment on function fleet.run_outcome(public.schedule_runs, bigint, bigint, bigint, timestamptz) is
  'What a run comes to with so many commands completed, failed and replaced by a later run: the end, or what it was.';
revoke all on function fleet.run_outcome(public.schedule_runs, bigint, bigint, bigint, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.pause_failing(p_runs bigint[])
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  update public.schedules as s
  set status = 'paused',
      status_reason = case s.policies ->> 'pause_on_failure'
        when '1' then 'a run failed (pause_on_failure)'
        else format('%s runs in a row failed (pause_on_failure)', s.policies ->> 'pause_on_failure')
      end
  where s.id in (select r.schedule_id from public.schedule_runs as r where r.id = any (p_runs) and r.status = 'failed')
    and s.status = 'active'
    and (s.policies ->> 'pause_on_failure')::integer <= (
      -- How many of the latest runs failed, before one that did not.
      select count(*) filter (where f.failed_so_far)
      from (
        select bool_and(h.status = 'failed') over (order by h.finished_at desc, h.id desc) as failed_so_far
        from (
          select r.id, r.status, r.finished_at
          from public.schedule_runs as r
          where r.schedule_id = s.id and r.status in ('completed', 'failed')
          order by r.finished_at desc, r.id desc
          limit (s.policies ->> 'pause_on_failure')::integer
        ) as h
      ) as f
    )
$$;

comment on function fleet.pause_failing(bigint[]) is
  'Pause the schedules whose latest runs, as many as policies.pause_on_failure says, all failed.';
revoke all on function fleet.pause_failing(bigint[]) from public, anon, authenticated, service_role;

-- db/sources/35_runs/80_history.sql
-- What schedules have done: the ledger of one for people to read, and figures about all of them.

create or replace function fleet.schedule_history(p_schedule_id bigint, p_limit integer, p_before timestamptz)
returns table (
  id bigint, scheduled_for timestamptz, local_time timestamp, trigger text, status text, reason text,
  missed_from timestamptz, missed_to timestamptz, missed_count bigint, targeted integer, completed integer, failed integer,
  skipped integer, dst_rule text, error_message text, result jsonb, started_at timestamptz, finished_at timestamptz,
  duration_seconds numeric
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_schedule public.schedules;
begin
  select s.* into v_schedule
  from public.schedules as s
  where s.id = p_schedule_id and fleet.is_visible_owner(s.owner_id);
  if not found then
    perform fleet.raise_not_found(format('schedule %s', p_schedule_id));
  end if;
  perform fleet.require_permission(v_schedule.owner_id, 'view', format('schedule %s', p_schedule_id));

  return query
  select r.id, r.scheduled_for,
    coalesce(r.scheduled_local, r.scheduled_for at time zone fleet.zone_clock(fleet.reference_zone(v_schedule))), r.trigger, r.status, r.reason,
    r.missed_from, r.missed_to, r.missed_count, r.targeted, r.completed, r.failed, r.skipped, r.dst_rule, r.error_message,
    r.result, r.started_at, r.finished_at,
    case when r.status <> 'skipped' then round(extract(epoch from r.finished_at - r.started_at), 3) end
  from public.schedule_runs as r
  where r.schedule_id = p_schedule_id
    and (p_before is null or r.scheduled_for < p_before)
  order by r.scheduled_for desc
  limit least(greatest(coalesce(p_limit, 50), 0), 1000);
end;
$$;

comment on function fleet.schedule_history(bigint, integer, timestamptz) is 'See public.schedule_history. Definer: it tells missing from empty.';
revoke all on function fleet.schedule_history(bigint, integer, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.schedule_history(bigint, integer, timestamptz) to authenticated, service_role;

create or replace function public.schedule_history(
  p_schedule_id bigint,
  p_limit integer default 50,
  p_before timestamptz default null
)
returns table (
  id bigint, scheduled_for timestamptz, local_time timestamp, trigger text, status text, reason text,
  missed_from timestamptz, missed_to timestamptz, missed_count bigint, targeted integer, completed integer, failed integer,
  skipped integer, dst_rule text, error_message text, result jsonb, started_at timestamptz, finished_at timestamptz,
  duration_seconds numeric
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select * from fleet.schedule_history(p_schedule_id, p_limit, p_before)
$$;

comment on function public.schedule_history(bigint, integer, timestamptz) is
  'The runs of a schedule, the latest instant first, at most 1000 of them; for the next page pass the last scheduled_for as p_before. '
  'A range of missed instants is one row; local_time is what the walls show, in device time each its own. Raises schedule_not_found (PT404).';
revoke all on function public.schedule_history(bigint, integer, timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.schedule_history(bigint, integer, timestamptz) to authenticated, service_role;

create or replace function public.schedule_stats(p_now timestamptz default now())
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Row security limits the figures to the caller's own; a device, retired or not, counts as nobody.
  if fleet.current_user_id() is null and not fleet.is_trusted_caller() then
    raise exception 'a device may not do this'
      using errcode = 'PT403', detail = 'not_a_person', hint = 'Sign in as a member of the fleet.';
  end if;

  p_now := fleet.calendar_instant(p_now);
  return jsonb_build_object('now', p_now) || fleet.schedule_figures(p_now) || fleet.run_figures(p_now);
end;
$$;

comment on function public.schedule_stats(timestamptz) is
  'Figures about schedules and their runs: total, by_status, by_type, by_recurrence, next_due, executions (total, by_status, '
  'success_rate, last_24_hours), and for the last 30 days average_duration_seconds, busiest_hours (UTC), slowest and failing. '
  'Raises not_a_person (PT403).';
revoke all on function public.schedule_stats(timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.schedule_stats(timestamptz) to authenticated, service_role;

create or replace function fleet.schedule_figures(p_now timestamptz)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with counted as materialized (
    select s.status, s.action_type, s.recurrence_type, count(*) as n
    from public.schedules as s
    group by s.status, s.action_type, s.recurrence_type
  )
  select jsonb_build_object(
    'total', (select coalesce(sum(c.n), 0) from counted as c),
    'by_status', (
      select jsonb_object_agg(k.status, coalesce(k.n, 0))
      from (
        select u.status, (select sum(c.n) from counted as c where c.status = u.status) as n
        from unnest('{active,paused,completed,cancelled}'::text[]) as u(status)
      ) as k
    ),
    'by_type', (
      select coalesce(jsonb_object_agg(k.action_type, k.n), '{}')
      from (select c.action_type, sum(c.n) as n from counted as c group by c.action_type) as k
    ),
    'by_recurrence', (
      select coalesce(jsonb_object_agg(k.recurrence_type, k.n), '{}')
      from (select c.recurrence_type, sum(c.n) as n from counted as c group by c.recurrence_type) as k
    ),
    'next_due', (
      select coalesce(jsonb_agg(
        jsonb_build_object('id', d.id, 'name', d.name, 'next_run_at', d.next_run_at) order by d.next_run_at, d.id
      ), '[]')
      from (
        select s.id, s.name, s.next_run_at
        from public.schedules as s
        where s.status = 'active' and s.next_run_at is not null
        order by s.next_run_at, s.id
        limit 5
      ) as d
    ),
    'due_next_24_hours', (
      select count(*)
      from public.schedules as s
      where s.status = 'active' and s.next_run_at < p_now + interval '24 hours'
    )
  )
$$;

comment on function fleet.schedule_figures(timestamptz) is 'How many schedules of which kind the caller sees, and which are due next.';
revoke all on function fleet.schedule_figures(timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.schedule_figures(timestamptz) to authenticated, service_role;

create or replace function fleet.run_counts(p_since timestamptz)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with counted as materialized (
    select r.status, count(*) as runs, sum(coalesce(r.missed_count, 1)) as instants
    from public.schedule_runs as r
    where p_since is null or r.created_at > p_since
    group by r.status
  )
  select jsonb_build_object(
    'total', (select coalesce(sum(c.runs), 0) from counted as c),
    'by_status', (
      select jsonb_object_agg(u.status, coalesce(c.runs, 0))
      from unnest('{pending,running,completed,failed,skipped,cancelled}'::text[]) as u(status)
      left join counted as c on c.status = u.status
    ),
    -- A range of missed instants is one row.
    'missed', (select coalesce(sum(c.instants), 0) from counted as c where c.status = 'skipped'),
    'success_rate', (
      select round(
        100.0 * sum(c.runs) filter (where c.status = 'completed')
        / nullif(sum(c.runs) filter (where c.status in ('completed', 'failed')), 0), 1
      )
      from counted as c
    )
  )
$$;

comment on function fleet.run_counts(timestamptz) is
  'How runs ended, since an instant or ever: total, by_status, missed instants, success_rate in percent of those that ended.';
revoke all on function fleet.run_counts(timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.run_counts(timestamptz) to authenticated, service_role;

create or replace function fleet.run_figures(p_now timestamptz)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with recent as materialized (
    select r.schedule_id, r.status, r.started_at, extract(epoch from r.finished_at - r.started_at) as seconds
    from public.schedule_runs as r
    where r.created_at > p_now - interval '30 days' and r.started_at is not null
  )
  select jsonb_build_object(
    'executions', fleet.run_counts(null)
      || jsonb_build_object('last_24_hours', fleet.run_counts(p_now - interval '24 hours')),
    'average_duration_seconds', (select round(avg(x.seconds), 3) from recent as x where x.status in ('completed', 'failed')),
    'busiest_hours', (
      select coalesce(jsonb_agg(jsonb_build_object('hour', h.hour, 'runs', h.n) order by h.n desc, h.hour), '[]')
      from (
        select extract(hour from x.started_at at time zone 'UTC')::integer as hour, count(*) as n
        from recent as x
        group by 1
        order by 2 desc, 1
        limit 5
      ) as h
    ),
    'slowest', (
      select coalesce(jsonb_agg(
        jsonb_build_object('id', s.id, 'name', s.name, 'average_seconds', q.seconds) order by q.seconds desc, s.id
      ), '[]')
      from (
        select x.schedule_id, round(avg(x.seconds), 3) as seconds
        from recent as x
        where x.status in ('completed', 'failed') and x.seconds is not null
        group by x.schedule_id
        order by 2 desc
        limit 5
      ) as q
      join public.schedules as s on s.id = q.schedule_id
    ),
    'failing', (
      select coalesce(jsonb_agg(
        jsonb_build_object('id', s.id, 'name', s.name, 'failed', q.n, 'runs', q.runs) order by q.n desc, s.id
      ), '[]')
      from (
        select x.schedule_id, count(*) filter (where x.status = 'failed') as n, count(*) as runs
        from recent as x
        group by x.schedule_id
        having count(*) filter (where x.status = 'failed') > 0
        order by 2 desc
        limit 5
      ) as q
      join public.schedules as s on s.id = q.schedule_id
    )
  )
$$;

comment on function fleet.run_figures(timestamptz) is
  'How the runs that the caller sees ended, how long they took, and when; all but the totals over the last 30 days.';
revoke all on function fleet.run_figures(timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.run_figures(timestamptz) to authenticated, service_role;

-- db/sources/35_runs/90_zone_rules.sql
-- Zones whose rules the server has changed: what was computed by the old ones is computed anew, once.

create or replace function fleet.check_zones(p_now timestamptz, p_limit integer default 3)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_zone record;
  v_rules text;
  v_changed integer := 0;
begin
  -- Each zone an hour after the last look, a few at a tick.
  for v_zone in
    select z.name, z.rules
    from fleet.time_zones as z
    where coalesce(z.checked_at not between p_now - interval '1 hour' and p_now, true)
    order by z.checked_at nulls first, z.name
    limit p_limit
    for update skip locked
  loop
    v_rules := fleet.zone_rules(v_zone.name, p_now);
    if left(v_zone.rules, 4) = left(v_rules, 4) and v_zone.rules <> v_rules then
      perform fleet.recompute_zone(v_zone.name, p_now);
      v_changed := v_changed + 1;
    end if;
    update fleet.time_zones as z
    set rules = coalesce(v_rules, z.rules), checked_at = p_now,
        changed_at = case when left(z.rules, 4) = left(v_rules, 4) and z.rules <> v_rules then p_now else z.changed_at end
    where z.name = v_zone.name;
  end loop;
  return v_changed;
end;
$$;

comment on function fleet.check_zones(timestamptz, integer) is
  'Compare the rules of a few time zones with those that what is stored was computed by, and compute anew what other rules concern. Answers '
  'how many zones have changed.';
revoke all on function fleet.check_zones(timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.recompute_zone(p_zone text, p_now timestamptz)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_schedule public.schedules;
  v_count bigint := 0;
begin
  -- What is overdue is due, whatever the rules say by now.
  update public.schedules as s
  set recurrence = c.recurrence,
      next_run_at = case
        when s.next_run_at > p_now and s.recurrence_type not in ('once', 'interval')
          then fleet.next_due(c.recurrence, null, greatest(p_now, s.start_time - interval '1 microsecond'))
        else s.next_run_at
      end
  from (
    select x.id, fleet.compiled(x) as recurrence
    from public.schedules as x
    where x.timezone = p_zone and x.status in ('active', 'paused') and x.after_schedule_id is null
  ) as c
  where s.id = c.id;
  get diagnostics v_count = row_count;

  for v_schedule in
    select s.*
    from public.schedules as s
    where s.timezone = 'device'
      and s.status <> 'cancelled'
      and s.after_schedule_id is null
      and (
        s.recurrence ->> 'home' = p_zone
        or exists (select 1 from fleet.owner_zones as z where z.owner_id = s.owner_id and z.zone = p_zone and z.devices > 0)
      )
    order by s.id
  loop
    perform fleet.plan_open_runs(v_schedule, p_now);
    if v_schedule.next_run_at > p_now then
      update public.schedules as s
      set next_run_at = coalesce(fleet.next_due(s.recurrence, fleet.schedule_zones(s), p_now), s.next_run_at)
      where s.id = v_schedule.id;
    end if;
    v_count := v_count + 1;
  end loop;
  return v_count;
end;
$$;

comment on function fleet.recompute_zone(text, timestamptz) is
  'Compute anew when schedules are due whose times are read in a zone, those by device time among them, and the zones to come of their '
  'runs. Answers how many there are.';
revoke all on function fleet.recompute_zone(text, timestamptz) from public, anon, authenticated, service_role;

-- db/sources/35_runs/views.sql
-- The ledger as people list it.

drop view if exists public.run_list;
create view public.run_list with (security_invoker = true) as
select
  r.id,
  r.owner_id,
  s.name as schedule,
  r.schedule_id,
  r.scheduled_for,
  r.scheduled_local,
  r.trigger,
  r.status,
  r.reason,
  r.targeted,
  r.completed,
  r.failed,
  r.skipped,
  r.missed_from,
  r.missed_to,
  r.missed_count,
  r.dst_rule,
  r.error_message,
  r.action_type,
  r.payload,
  r.priority,
  r.result,
  r.expires_at,
  r.started_at,
  r.finished_at,
  r.created_at
from public.schedule_runs as r
join public.schedules as s on s.id = r.schedule_id;

comment on view public.run_list is
  'What became of each due instant, with the name of its schedule.';
comment on column public.run_list.schedule is 'The name of the schedule.';
select fleet.inherit_comments('public.run_list', 'public.schedule_runs');
revoke all on table public.run_list from public, anon, authenticated, service_role;
grant select on table public.run_list to authenticated, service_role;

-- db/sources/35_runs/triggers.sql
-- What is due when a schedule is inserted does not wait for the tick.

create or replace function fleet.tg_run_due_schedules()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_due bigint[];
begin
  select array_agg(n.id) into v_due
  from new_rows as n
  where n.status = 'active' and n.next_run_at <= v_now;
  if v_due is not null then
    perform fleet.run_due(v_due, v_now);
  end if;
  return null;
end;
$$;

comment on function fleet.tg_run_due_schedules() is
  'What is due when it is inserted does not wait for the tick. Definer: people may not write runs and commands themselves.';
revoke all on function fleet.tg_run_due_schedules() from public, anon, authenticated, service_role;

create or replace trigger schedules_03_run_due
  after insert on public.schedules
  referencing new table as new_rows
  for each statement execute function fleet.tg_run_due_schedules();

set check_function_bodies = on;
reset search_path;
