-- Instants of single local times. Where days of the month name one time there are hardly more of them than changes of the
-- clocks: each time is looked at by itself, and the spans of clocks decide only for the few beside a change.

create or replace function fleet.names_one_time_of_month_days(p_recurrence jsonb, p_to timestamptz)
returns boolean
language sql
immutable
parallel safe
-- Three zones have the name of an abbreviation, which "at time zone" prefers; and near the end of time no day is after.
return p_recurrence ->> 'day_rule' = 'month_days'
  and jsonb_array_length(p_recurrence -> 'times') = 1
  and p_recurrence ->> 'clock' not in ('EST', 'HST', 'MST')
  and p_to < '9999-01-01Z';

comment on function fleet.names_one_time_of_month_days(jsonb, timestamptz) is
  'Whether fleet.month_day_occurrences can list a compiled calendar recurrence up to p_to.';
revoke all on function fleet.names_one_time_of_month_days(jsonb, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.names_one_time_of_month_days(jsonb, timestamptz) to authenticated, service_role;

create or replace function fleet.epochs_of_slot(p_clock text, p_gap text, p_fold text, p_slot bigint)
returns setof bigint
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select s.ends_at - 1
  from fleet.clock_spans(p_clock, p_gap, p_fold, p_slot - 62135596800 - 150000, p_slot - 62135596800 + 150000) as s
  where s.is_one_instant and p_slot >= s.begins_at + s.skipped_shift and p_slot < s.ends_at + s.shift
  union
  select p_slot - k.shift
  from fleet.clock_spans(p_clock, p_gap, p_fold, p_slot - 62135596800 - 150000, p_slot - 62135596800 + 150000) as s
  cross join lateral (values (s.shift), (s.skipped_shift)) as k (shift)
  where s.is_one_instant is not true and p_slot >= s.begins_at + k.shift and p_slot < s.ends_at + k.shift
$$;

comment on function fleet.epochs_of_slot(text, text, text, bigint) is
  'The Unix seconds at which a recurrence runs that names this local second: none, one or two, by the spans of clocks around it.';
revoke all on function fleet.epochs_of_slot(text, text, text, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.epochs_of_slot(text, text, text, bigint) to authenticated, service_role;

create or replace function fleet.occurrences_beside_changes(p_recurrence jsonb, p_locals timestamp[])
returns setof timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- Planned at each call otherwise, for the number of times that is to come.
set plan_cache_mode = force_generic_plan
as $$
declare
  -- From the day from which local seconds count to the Unix epoch.
  c_epoch  constant bigint := 62135596800;
  c_margin constant bigint := 41 * 3600;
  v_clock  text := p_recurrence ->> 'clock';
begin
  return query
    with by_change as materialized (
      -- Most of these still have one instant: before the change or, past the minute that a gap may take, behind it.
      select n.utc,
        case
          when c.is_before = c.is_after then null
          when c.is_before then n.utc - n.before
          when fleet.utc_offset(v_clock, n.utc - n.after - 61) = n.after then n.utc - n.after
        end as epoch
      from (
        select l.utc, fleet.utc_offset(v_clock, l.utc - c_margin) as before, fleet.utc_offset(v_clock, l.utc + c_margin) as after
        from (select date_part('epoch', x.local)::bigint as utc from unnest(p_locals) as x (local) offset 0) as l
        offset 0
      ) as n
      cross join lateral (
        select fleet.utc_offset(v_clock, n.utc - n.before) = n.before as is_before,
          fleet.utc_offset(v_clock, n.utc - n.after) = n.after as is_after
        offset 0
      ) as c
    )
    select fleet.instant_of(c.epoch) from by_change as c where c.epoch is not null
    union
    select fleet.instant_of(e.epoch)
    from by_change as c
    cross join lateral fleet.epochs_of_slot(
      v_clock, p_recurrence ->> 'resolve_gap', p_recurrence ->> 'resolve_fold', c.utc + c_epoch
    ) as e (epoch)
    where c.epoch is null;
end;
$$;

comment on function fleet.occurrences_beside_changes(jsonb, timestamp[]) is
  'The occurrences of a compiled calendar recurrence at local times that it names, within 41 hours of a change of the clocks each; '
  'none twice.';
revoke all on function fleet.occurrences_beside_changes(jsonb, timestamp[]) from public, anon, authenticated, service_role;
grant execute on function fleet.occurrences_beside_changes(jsonb, timestamp[]) to authenticated, service_role;

create or replace function fleet.month_day_occurrences(p_recurrence jsonb, p_from timestamptz, p_to timestamptz)
returns setof timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- Planned at each call otherwise, for the number of times that is to come.
set plan_cache_mode = force_generic_plan
-- What it was is put back when the function ends, whatever it is set to meanwhile.
set timezone = 'UTC'
as $$
declare
  -- 15:59 hours are the most that a zone was off UTC and a day is the widest jump, so this is far enough to each side; and
  -- both sides together are less than the 95 hours that no zone has changed its clocks twice in.
  c_margin    constant interval := interval '41 hours';
  c_both      constant interval := interval '82 hours';
  c_day_zero  constant date := '0001-01-01';
  v_mask      text := p_recurrence ->> 'month_days';
  v_flags     integer[] := fleet.flag_numbers(v_mask);
  v_only_flag integer := case when octet_length(v_mask) = 31 and cardinality(v_flags) = 1 then v_flags[1] end;
  v_months    text := p_recurrence ->> 'months';
  v_is_all    boolean := v_months = '111111111111';
  v_every     integer := (p_recurrence ->> 'every')::integer;
  v_first     integer := fleet.month_of_day(greatest(p_from - interval '3 days', '0001-01-01Z')::date - c_day_zero);
  v_last      integer := fleet.month_of_day((p_to + interval '3 days')::date - c_day_zero);
  v_time      interval := make_interval(secs => (p_recurrence -> 'times' ->> 0)::integer);
  v_start     timestamp;
  v_plain     timestamptz[];
  v_beside    timestamp[];
begin
  v_first := v_first + (((p_recurrence ->> 'anchor')::integer - v_first) % v_every + v_every) % v_every;
  -- A single day that every month has is that of the first month and so many months later.
  if v_only_flag < 28 then
    v_start := c_day_zero + fleet.month_start(v_first) + v_only_flag + v_time;
  end if;

  -- Casts between local times and instants go by this clock from here on, and its name is looked up once.
  perform set_config('timezone', p_recurrence ->> 'clock', true);
  select
    array_agg(c.at) filter (where c.is_plain and c.at >= p_from and c.at < p_to),
    array_agg(c.local) filter (where not c.is_plain)
  into v_plain, v_beside
  from (
    -- Where the offset is the same far before and far after, the plain cast is right.
    select n.local, n.at, (n.at + c_margin)::timestamp - (n.at - c_margin)::timestamp = c_both as is_plain
    from (
      select l.local, l.local::timestamptz as at
      from (
        select v_start + make_interval(months => m.passed) as local
        from (select generate_series(0, v_last - v_first, v_every) as passed offset 0) as m
        where v_start is not null
          and (v_is_all or substr(v_months, (v_first + m.passed) % 12 + 1, 1) = '1')
        union all
        select c_day_zero + d.day + v_time
        from fleet.days_of_months(v_months, v_mask, v_flags, v_first, v_last, v_every) as d (day)
        where v_start is null
      ) as l
      -- Each is worked out once: without the fences each use would be a copy.
      offset 0
    ) as n
    offset 0
  ) as c;

  return query
    select p.at from unnest(v_plain) as p (at)
    union all
    select b.at
    from fleet.occurrences_beside_changes(p_recurrence, v_beside) as b (at)
    where b.at >= p_from and b.at < p_to
    order by 1;
end;
$$;

comment on function fleet.month_day_occurrences(jsonb, timestamptz, timestamptz) is
  'fleet.occurrences for a compiled calendar recurrence of which fleet.names_one_time_of_month_days is true, start, end and fraction of '
  'the second aside.';
revoke all on function fleet.month_day_occurrences(jsonb, timestamptz, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.month_day_occurrences(jsonb, timestamptz, timestamptz) to authenticated, service_role;
