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
