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
