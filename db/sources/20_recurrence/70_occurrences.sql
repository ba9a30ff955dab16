-- Every occurrence in a window.

create or replace function fleet.occurrences(p_recurrence jsonb, p_from timestamptz, p_to timestamptz)
returns setof timestamptz
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_kind  text := p_recurrence ->> 'kind';
  v_start timestamptz := (p_recurrence ->> 'start')::timestamptz;
  v_end   timestamptz := (p_recurrence ->> 'end')::timestamptz;
  v_from  timestamptz := greatest(p_from, v_start);
  -- The end is inclusive, and Postgres counts microseconds.
  v_to    timestamptz := least(p_to, fleet.just_after(v_end));
  v_shift interval := fleet.second_fraction(p_recurrence);
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
  elsif fleet.names_one_time_of_month_days(p_recurrence, v_to) then
    return query
      select o.at + v_shift
      from fleet.month_day_occurrences(p_recurrence, greatest(v_from - v_shift, '0001-01-03Z'), v_to - v_shift) as o (at);
  else
    return query
      select fleet.instant_of(o.epoch) + v_shift
      from fleet.calendar_occurrences(
        p_recurrence,
        fleet.epoch_from(greatest(v_from - v_shift, '0001-01-03Z')),
        fleet.epoch_from(v_to - v_shift)
      ) as o (epoch);
  end if;
end;
$$;

comment on function fleet.occurrences(jsonb, timestamptz, timestamptz) is
  'All occurrences of a compiled recurrence in [p_from, p_to), in order, none twice.';
revoke all on function fleet.occurrences(jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.occurrences(jsonb, timestamptz, timestamptz) to authenticated, service_role;

create or replace function fleet.second_fraction(p_recurrence jsonb)
returns interval
language sql
immutable
parallel safe
return case
  when p_recurrence ? 'microseconds' then make_interval(secs => (p_recurrence ->> 'microseconds')::integer / 1000000.0)
  else interval '0'
end;

comment on function fleet.second_fraction(jsonb) is
  'How much later than its whole second each occurrence of a compiled calendar recurrence is.';
revoke all on function fleet.second_fraction(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.second_fraction(jsonb) to authenticated, service_role;

create or replace function fleet.recompile_recurrence(p_recurrence jsonb)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
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
grant execute on function fleet.recompile_recurrence(jsonb) to service_role;

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
set search_path = pg_catalog, pg_temp
-- Planned at each call otherwise, for the number of rows that is to come.
set plan_cache_mode = force_generic_plan
as $$
declare
  v_second   bigint := fleet.epoch_of(p_start);
  v_fraction interval := p_start - fleet.instant_of(v_second);
  v_first    bigint := greatest(0, (fleet.epoch_of(p_from) - v_second) / p_seconds - 1);
  v_last     bigint := (fleet.epoch_of(p_to) - v_second) / p_seconds + 1;
begin
  return query
    select o.at
    from generate_series(v_first, v_last) as n
    cross join lateral (select fleet.instant_of(v_second + n * p_seconds) + v_fraction) as o (at)
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
set search_path = pg_catalog, pg_temp
as $$
declare
  v_span record;
begin
  for v_span in
    select * from fleet.clock_spans(
      p_recurrence ->> 'clock', p_recurrence ->> 'resolve_gap', p_recurrence ->> 'resolve_fold', p_from, p_to
    )
  loop
    if v_span.skipped_shift is null then
      return query
        select s.slot - v_span.shift
        from fleet.matching_slots(
          p_recurrence, v_span.begins_at + v_span.shift, v_span.ends_at + v_span.shift
        ) as s (slot);

    elsif v_span.is_one_instant then
      if fleet.next_slot(p_recurrence, v_span.begins_at + v_span.skipped_shift) < v_span.ends_at + v_span.shift then
        return next v_span.ends_at - 1;
      end if;

    else
      -- What was skipped meets what runs at that time anyway: each instant once.
      return query
        select s.slot - v_span.shift
        from fleet.matching_slots(
          p_recurrence, v_span.begins_at + v_span.shift, v_span.ends_at + v_span.shift
        ) as s (slot)
        union
        select s.slot - v_span.skipped_shift
        from fleet.matching_slots(
          p_recurrence, v_span.begins_at + v_span.skipped_shift, v_span.ends_at + v_span.skipped_shift
        ) as s (slot)
        order by 1;
    end if;
  end loop;
end;
$$;

comment on function fleet.calendar_occurrences(jsonb, bigint, bigint) is
  'The occurrences of a compiled calendar recurrence in [p_from, p_to) of Unix seconds, start and end aside.';
revoke all on function fleet.calendar_occurrences(jsonb, bigint, bigint)
  from public, anon, authenticated, service_role;
grant execute on function fleet.calendar_occurrences(jsonb, bigint, bigint) to authenticated, service_role;
