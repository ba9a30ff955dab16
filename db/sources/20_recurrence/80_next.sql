-- The next occurrence. Far from any change of the clocks it is plain arithmetic; near one, the spans of clocks decide.
-- fleet.next_occurrence and fleet.next_calendar_occurrence have no settings: see fleet.next_slot.

create or replace function fleet.next_occurrence(p_recurrence jsonb, p_after timestamptz)
returns timestamptz
language plpgsql
stable
as $$
declare
  v_kind  text := p_recurrence ->> 'kind';
  v_start timestamptz := (p_recurrence ->> 'start')::timestamptz;
  v_after timestamptz := p_after;
  v_next  timestamptz;
begin
  if v_kind is null then
    return fleet.next_occurrence(fleet.recompile_recurrence(p_recurrence), p_after);
  elsif p_after = 'infinity' then
    return null;
  elsif p_after < v_start then
    -- The start itself may be an occurrence.
    v_after := v_start - interval '1 microsecond';
  elsif p_after < '0001-01-03Z' then
    v_after := '0001-01-03Z';
  end if;

  if v_kind = 'calendar' and p_recurrence ? 'microseconds' then
    v_next := fleet.next_calendar_occurrence(p_recurrence, v_after - fleet.second_fraction(p_recurrence))
      + fleet.second_fraction(p_recurrence);
  elsif v_kind = 'calendar' then
    v_next := fleet.next_calendar_occurrence(p_recurrence, v_after);
  elsif p_after < v_start then
    v_next := v_start;
  elsif v_kind = 'interval' then
    v_next := fleet.next_in_interval(v_start, (p_recurrence ->> 'interval_seconds')::bigint, p_after);
  end if;

  if v_next > (p_recurrence ->> 'end')::timestamptz then
    return null;
  end if;
  return v_next;
end;
$$;

comment on function fleet.next_occurrence(jsonb, timestamptz) is
  'The first occurrence of a compiled recurrence strictly after p_after; null when there is none.';
revoke all on function fleet.next_occurrence(jsonb, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.next_occurrence(jsonb, timestamptz) to authenticated, service_role;

create or replace function fleet.next_in_interval(p_start timestamptz, p_seconds bigint, p_after timestamptz)
returns timestamptz
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_second   bigint := fleet.epoch_of(p_start);
  v_fraction interval := p_start - fleet.instant_of(v_second);
  -- The second that p_after lies in, as seen from a start without its fraction.
  v_after    bigint := fleet.epoch_of(p_after - v_fraction);
begin
  return fleet.instant_of(v_second + ((v_after - v_second) / p_seconds + 1) * p_seconds) + v_fraction;
end;
$$;

comment on function fleet.next_in_interval(timestamptz, bigint, timestamptz) is
  'The first multiple of p_seconds from p_start on that lies after p_after.';
revoke all on function fleet.next_in_interval(timestamptz, bigint, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.next_in_interval(timestamptz, bigint, timestamptz) to authenticated, service_role;

create or replace function fleet.next_calendar_occurrence(p_recurrence jsonb, p_after timestamptz)
returns timestamptz
language plpgsql
immutable
parallel safe
as $$
declare
  v_clock  text := p_recurrence ->> 'clock';
  v_epoch  bigint := fleet.epoch_of(p_after);
  v_offset bigint := fleet.utc_offset(v_clock, v_epoch);
  v_local  bigint := v_epoch + v_offset + 62135596800;
  v_slot   bigint := fleet.next_slot(p_recurrence, v_local + 1);
  v_next   bigint;
begin
  if v_slot is null then
    return null;
  end if;

  -- Whether the clocks stand still from a day before to a day after: the widest change there was is a day.
  if v_slot - v_local <= 86400 then
    v_next := v_epoch + v_slot - v_local;
    if fleet.utc_offset(v_clock, v_epoch - 90000) = v_offset
      and fleet.utc_offset(v_clock, v_next + 90000) = v_offset
    then
      return fleet.instant_of(v_next);
    end if;
  elsif fleet.utc_offset(v_clock, v_epoch - 90000) = v_offset
    and fleet.utc_offset(v_clock, v_epoch + 90000) = v_offset
  then
    -- Far away the clocks may have changed and changed back, so there they are looked at anew.
    v_offset := fleet.utc_offset(v_clock, v_epoch + v_slot - v_local);
    v_next := v_slot - 62135596800 - v_offset;
    if fleet.utc_offset(v_clock, v_next - 90000) = v_offset
      and fleet.utc_offset(v_clock, v_next + 90000) = v_offset
    then
      return fleet.instant_of(v_next);
    end if;
  end if;

  return fleet.search_occurrence(p_recurrence, v_epoch);
end;
$$;

comment on function fleet.next_calendar_occurrence(jsonb, timestamptz) is
  'The first occurrence of a compiled calendar recurrence after p_after, its start and end aside.';
revoke all on function fleet.next_calendar_occurrence(jsonb, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.next_calendar_occurrence(jsonb, timestamptz) to authenticated, service_role;

create or replace function fleet.search_occurrence(p_recurrence jsonb, p_after bigint)
returns timestamptz
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_clock text := p_recurrence ->> 'clock';
  v_from  bigint := p_after + 1;
  v_found bigint;
  v_slot  bigint;
begin
  -- Time and again, because under gap = skip a few of the times may not exist.
  for v_try in 1..500 loop
    v_found := fleet.first_occurrence(p_recurrence, v_from, v_from + 90000);
    if v_found is not null then
      return fleet.instant_of(v_found);
    end if;

    -- Up to shortly before the next time that is named; a day of clocks set back may lie in between.
    v_from := v_from + 90000;
    v_slot := fleet.next_slot(p_recurrence, v_from + fleet.utc_offset(v_clock, v_from) + 62135596800 - 90000);
    if v_slot is null then
      return null;
    end if;
    v_from := greatest(v_from, v_slot - 62135596800 - 150000);
  end loop;
  return null;
end;
$$;

comment on function fleet.search_occurrence(jsonb, bigint) is
  'The first occurrence after a Unix second near which the clocks change.';
revoke all on function fleet.search_occurrence(jsonb, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.search_occurrence(jsonb, bigint) to authenticated, service_role;

create or replace function fleet.first_occurrence(p_recurrence jsonb, p_from bigint, p_to bigint)
returns bigint
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_span    record;
  v_slot    bigint;
  v_skipped bigint;
begin
  for v_span in
    select * from fleet.clock_spans(
      p_recurrence ->> 'clock', p_recurrence ->> 'resolve_gap', p_recurrence ->> 'resolve_fold', p_from, p_to
    )
  loop
    if v_span.is_one_instant then
      if fleet.next_slot(p_recurrence, v_span.begins_at + v_span.skipped_shift) < v_span.ends_at + v_span.shift then
        return v_span.ends_at - 1;
      end if;
      continue;
    end if;

    v_slot := fleet.next_slot(p_recurrence, v_span.begins_at + v_span.shift) - v_span.shift;
    v_skipped := fleet.next_slot(p_recurrence, v_span.begins_at + v_span.skipped_shift) - v_span.skipped_shift;
    if least(v_slot, v_skipped) < v_span.ends_at then
      return least(v_slot, v_skipped);
    end if;
  end loop;
  return null;
end;
$$;

comment on function fleet.first_occurrence(jsonb, bigint, bigint) is
  'The first of fleet.calendar_occurrences in [p_from, p_to), by the same spans; null when there is none.';
revoke all on function fleet.first_occurrence(jsonb, bigint, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.first_occurrence(jsonb, bigint, bigint) to authenticated, service_role;
