-- Counting occurrences without listing them to the caller.

create or replace function fleet.count_occurrences(
  p_recurrence jsonb,
  p_from timestamptz,
  p_to timestamptz,
  p_limit bigint default null
)
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_start timestamptz := (p_recurrence ->> 'start')::timestamptz;
  v_from  timestamptz := greatest(p_from, v_start);
  v_to    timestamptz := least(p_to, fleet.just_after((p_recurrence ->> 'end')::timestamptz));
  v_width interval := interval '6 hours';
  v_every bigint := (p_recurrence ->> 'interval_seconds')::bigint;
  v_count bigint := 0::bigint;
begin
  if p_recurrence ->> 'kind' = 'interval' and isfinite(v_from) and isfinite(v_to) and v_from < v_to then
    -- Occurrences before the end less those before the beginning.
    return least(
      (
        ceil(extract(epoch from v_to - v_start) / v_every)
        - ceil(extract(epoch from v_from - v_start) / v_every)
      )::bigint,
      p_limit
    );
  elsif p_recurrence ->> 'kind' = 'calendar' and p_limit is null and isfinite(v_from) and isfinite(v_to) then
    return fleet.count_in_calendar(p_recurrence, v_from, v_to);
  elsif p_limit is null or p_recurrence ->> 'kind' is distinct from 'calendar' or not isfinite(v_from) then
    return least((select count(*) from fleet.occurrences(p_recurrence, p_from, p_to)), p_limit);
  end if;

  -- In growing pieces, so that a small limit never looks through a long window.
  while v_count < p_limit and v_from < v_to loop
    v_count := v_count + fleet.count_in_calendar(p_recurrence, v_from, least(v_to, v_from + v_width));
    v_from := v_from + v_width;
    v_width := least(v_width * 2, interval '90000 hours');
  end loop;
  return least(v_count, p_limit);
end;
$$;

comment on function fleet.count_occurrences(jsonb, timestamptz, timestamptz, bigint) is
  'How many occurrences a compiled recurrence has in [p_from, p_to), counting no further than p_limit.';
revoke all on function fleet.count_occurrences(jsonb, timestamptz, timestamptz, bigint)
  from public, anon, authenticated, service_role;
grant execute on function fleet.count_occurrences(jsonb, timestamptz, timestamptz, bigint)
  to authenticated, service_role;

create or replace function fleet.count_in_calendar(p_recurrence jsonb, p_from timestamptz, p_to timestamptz)
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count bigint := 0::bigint;
  v_shift interval := fleet.second_fraction(p_recurrence);
  v_span  record;
begin
  for v_span in
    select * from fleet.clock_spans(
      p_recurrence ->> 'clock', p_recurrence ->> 'resolve_gap', p_recurrence ->> 'resolve_fold',
      fleet.epoch_from(greatest(p_from - v_shift, '0001-01-03Z')), fleet.epoch_from(p_to - v_shift)
    )
  loop
    v_count := v_count + case
      when v_span.skipped_shift is null then
        fleet.count_slots(p_recurrence, v_span.begins_at + v_span.shift, v_span.ends_at + v_span.shift)
      else (
        select count(*) from fleet.calendar_occurrences(p_recurrence, v_span.begins_at, v_span.ends_at)
      )
    end;
  end loop;
  return v_count;
end;
$$;

comment on function fleet.count_in_calendar(jsonb, timestamptz, timestamptz) is
  'How many occurrences a compiled calendar recurrence has in [p_from, p_to), its start and end aside.';
revoke all on function fleet.count_in_calendar(jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.count_in_calendar(jsonb, timestamptz, timestamptz)
  to authenticated, service_role;

create or replace function fleet.count_slots(p_recurrence jsonb, p_from bigint, p_to bigint)
returns bigint
language plpgsql
immutable
strict
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_first_day bigint := p_from / 86400 + 1;
  v_last_day  bigint := p_to / 86400 - 1;
begin
  if p_recurrence ? 'dates' then
    return fleet.count_dated_slots(p_recurrence, p_from, p_to);
  end if;
  if v_last_day <= v_first_day then
    return (select count(*) from fleet.matching_slots(p_recurrence, p_from, p_to));
  end if;

  -- Whole days have as many each; only the two at the edges are looked at more closely.
  return (select count(*) from fleet.matching_slots(p_recurrence, p_from, v_first_day * 86400))
    + (select count(*) from fleet.matching_days(p_recurrence, v_first_day::integer, v_last_day::integer))
      * coalesce(
        jsonb_array_length(p_recurrence -> 'times'),
        length(replace(p_recurrence ->> 'hours', '0', ''))
          * length(replace(p_recurrence ->> 'minutes', '0', ''))
          * length(replace(p_recurrence ->> 'seconds', '0', ''))
      )
    + (select count(*) from fleet.matching_slots(p_recurrence, (v_last_day + 1) * 86400, p_to));
end;
$$;

comment on function fleet.count_slots(jsonb, bigint, bigint) is
  'How many local seconds in [p_from, p_to) a compiled calendar recurrence names.';
revoke all on function fleet.count_slots(jsonb, bigint, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.count_slots(jsonb, bigint, bigint) to authenticated, service_role;
