-- Every occurrence in a window. Between two changes of the clocks local time and elapsed time run side by side, so
-- each such span is computed at once; the rules for skipped and repeated times only decide where spans begin and end.

create or replace function fleet.occurrences(p_recurrence jsonb, p_from timestamptz, p_to timestamptz)
returns setof timestamptz
language plpgsql
stable
set search_path = ''
as $$
declare
  v_kind  text := p_recurrence ->> 'kind';
  v_start timestamptz := (p_recurrence ->> 'start')::timestamptz;
  v_end   timestamptz := (p_recurrence ->> 'end')::timestamptz;
  v_from  timestamptz := greatest(p_from, v_start);
  -- The end is inclusive, and Postgres counts microseconds.
  v_to    timestamptz := least(p_to, v_end + interval '1 microsecond');
begin
  if v_kind is null then
    return query select o.at from fleet.occurrences(fleet.recompile_recurrence(p_recurrence), p_from, p_to) as o (at);
    return;
  elsif v_from is null or v_to is null or v_from >= v_to then
    return;
  elsif v_kind = 'once' then
    if v_from = v_start then
      return next v_start;
    end if;
    return;
  elsif not isfinite(v_from) or not isfinite(v_to) then
    raise exception 'a recurrence without bounds cannot be listed without a window'
      using errcode = 'PT422',
            detail = 'window_unbounded',
            hint = 'Give a first and a last moment, or use fleet.next_occurrence';
  end if;

  if v_kind = 'interval' then
    return query
      select o.at
      from fleet.interval_occurrences(v_start, (p_recurrence ->> 'interval_seconds')::bigint, v_from, v_to) as o (at);
  else
    return query
      select to_timestamp(o.epoch)
      from fleet.calendar_occurrences(
        p_recurrence,
        ceil(date_part('epoch', v_from))::bigint,
        ceil(date_part('epoch', v_to))::bigint
      ) as o (epoch);
  end if;
end;
$$;

comment on function fleet.occurrences(jsonb, timestamptz, timestamptz) is
  'All occurrences of a compiled recurrence in [p_from, p_to), in order, none twice.';
revoke all on function fleet.occurrences(jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.occurrences(jsonb, timestamptz, timestamptz) to authenticated, service_role;

create or replace function fleet.recompile_recurrence(p_recurrence jsonb)
returns jsonb
language sql
stable
set search_path = ''
as $$
  select fleet.compile_recurrence(
    p_recurrence ->> 'type',
    p_recurrence -> 'config',
    p_recurrence ->> 'timezone',
    (p_recurrence ->> 'start')::timestamptz,
    (p_recurrence ->> 'end')::timestamptz,
    coalesce(p_recurrence ->> 'gap', 'first_instant'),
    coalesce(p_recurrence ->> 'fold', 'first')
  )
$$;

comment on function fleet.recompile_recurrence(jsonb) is
  'Compile a recurrence that was written by hand and so lacks its compiled part.';
revoke all on function fleet.recompile_recurrence(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.recompile_recurrence(jsonb) to authenticated, service_role;

create or replace function fleet.interval_occurrences(
  p_start timestamptz,
  p_seconds bigint,
  p_from timestamptz,
  p_to timestamptz
)
returns setof timestamptz
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  v_first bigint := greatest(0, floor(date_part('epoch', p_from - p_start) / p_seconds)::bigint - 1);
  v_last  bigint := ceil(date_part('epoch', p_to - p_start) / p_seconds)::bigint + 1;
begin
  return query
    select o.at
    from generate_series(v_first, v_last) as n
    cross join lateral (select p_start + n * p_seconds * interval '1 second') as o (at)
    where o.at >= p_from
      and o.at < p_to;
end;
$$;

comment on function fleet.interval_occurrences(timestamptz, bigint, timestamptz, timestamptz) is
  'Every p_seconds of elapsed time from p_start on, within [p_from, p_to).';
revoke all on function fleet.interval_occurrences(timestamptz, bigint, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.interval_occurrences(timestamptz, bigint, timestamptz, timestamptz)
  to authenticated, service_role;

create or replace function fleet.calendar_occurrences(p_recurrence jsonb, p_from bigint, p_to bigint)
returns setof bigint
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  v_zone   text := p_recurrence ->> 'timezone';
  v_gap    text := p_recurrence ->> 'resolve_gap';
  v_fold   text := p_recurrence ->> 'resolve_fold';
  -- From the Unix epoch to the day from which local seconds count.
  c_epoch  constant bigint := 62135596800;
  v_since  bigint := p_from;
  v_offset bigint := c_epoch + fleet.utc_offset(v_zone, p_from - 90000);
  v_hold   bigint;
  v_change record;
begin
  -- Changes up to a day outside the window matter: a time repeated or skipped there may belong to this window.
  for v_change in
    select t.changed_at, t.offset_before, t.offset_after
    from fleet.zone_transitions(v_zone, p_from - 90000, p_to + 90000) as t
  loop
    -- Under fold = second the first pass of the repeated time stays silent.
    v_hold := case
      when v_fold = 'second' then greatest(v_change.offset_before - v_change.offset_after, 0)
      else 0
    end;
    return query
      select s.slot - v_offset
      from fleet.matching_slots(
        p_recurrence, v_since + v_offset, least(p_to, v_change.changed_at - v_hold) + v_offset
      ) as s (slot);

    v_since := greatest(p_from, v_change.changed_at);
    v_offset := c_epoch + v_change.offset_after;

    if v_change.offset_after < v_change.offset_before then
      -- Under fold = first the second pass does.
      if v_fold = 'first' then
        v_since := greatest(p_from, v_change.changed_at + v_change.offset_before - v_change.offset_after);
      end if;
    elsif v_gap <> 'skip' then
      return query
        select g.epoch
        from fleet.gap_occurrences(
          p_recurrence, v_gap, v_change.changed_at, v_change.offset_before, v_change.offset_after
        ) as g (epoch)
        where g.epoch >= p_from
          and g.epoch < p_to;
      v_since := greatest(
        p_from, fleet.gap_end(v_gap, v_change.changed_at, v_change.offset_before, v_change.offset_after)
      );
    end if;
  end loop;

  return query
    select s.slot - v_offset
    from fleet.matching_slots(p_recurrence, v_since + v_offset, p_to + v_offset) as s (slot);
end;
$$;

comment on function fleet.calendar_occurrences(jsonb, bigint, bigint) is
  'The occurrences of a compiled calendar recurrence in [p_from, p_to) of Unix seconds, start and end aside.';
revoke all on function fleet.calendar_occurrences(jsonb, bigint, bigint)
  from public, anon, authenticated, service_role;
grant execute on function fleet.calendar_occurrences(jsonb, bigint, bigint) to authenticated, service_role;

create or replace function fleet.gap_end(p_gap text, p_changed_at bigint, p_before bigint, p_after bigint)
returns bigint
language sql
immutable
parallel safe
return p_changed_at + case
  when p_gap = 'shift' then p_after - p_before
  -- The first whole minute: cron looks at its table once a minute. The one second keeps that minute from running twice.
  else (60 - (p_changed_at + p_after) % 60) % 60 + 1
end;

comment on function fleet.gap_end(text, bigint, bigint, bigint) is
  'The Unix second up to which what was skipped and what is regular after a gap are taken together.';
revoke all on function fleet.gap_end(text, bigint, bigint, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.gap_end(text, bigint, bigint, bigint) to authenticated, service_role;

create or replace function fleet.gap_occurrences(
  p_recurrence jsonb,
  p_gap text,
  p_changed_at bigint,
  p_before bigint,
  p_after bigint
)
returns setof bigint
language sql
immutable
parallel safe
set search_path = ''
as $$
  -- What was skipped, moved behind the gap …
  select case p_gap
    when 'shift' then s.slot - p_before - 62135596800
    else fleet.gap_end(p_gap, p_changed_at, p_before, p_after) - 1
  end
  from fleet.matching_slots(
    p_recurrence, p_changed_at + p_before + 62135596800, p_changed_at + p_after + 62135596800
  ) as s (slot)

  union

  -- … and what runs there anyway, each instant once.
  select s.slot - p_after - 62135596800
  from fleet.matching_slots(
    p_recurrence,
    p_changed_at + p_after + 62135596800,
    fleet.gap_end(p_gap, p_changed_at, p_before, p_after) + p_after + 62135596800
  ) as s (slot)

  order by 1
$$;

comment on function fleet.gap_occurrences(jsonb, text, bigint, bigint, bigint) is
  'The occurrences just behind a gap, of skipped and of regular times together.';
revoke all on function fleet.gap_occurrences(jsonb, text, bigint, bigint, bigint)
  from public, anon, authenticated, service_role;
grant execute on function fleet.gap_occurrences(jsonb, text, bigint, bigint, bigint)
  to authenticated, service_role;
