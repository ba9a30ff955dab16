-- Times that the clocks skip and that a recurrence leaves out for that (gap: skip): they are told, not passed over in silence.

create or replace function fleet.leaves_out_gaps(p_recurrence jsonb)
returns boolean
language sql
immutable
parallel safe
-- What follows elapsed time misses nothing by a jump of the clocks.
return p_recurrence @> '{"kind": "calendar", "resolve_gap": "skip"}' and not p_recurrence @> '{"is_elapsed": true}';

comment on function fleet.leaves_out_gaps(jsonb) is
  'Whether a compiled recurrence does not run where the clocks skip one of its times.';
revoke all on function fleet.leaves_out_gaps(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.skipped_times(p_recurrence jsonb, p_from timestamptz, p_to timestamptz)
returns table (skipped_at timestamptz, first_local timestamp, last_local timestamp, times bigint)
language plpgsql
stable
rows 1
set search_path = pg_catalog, pg_temp
as $$
declare
  c_epoch constant bigint := 62135596800;
  v_from timestamptz := greatest(p_from, (p_recurrence ->> 'start')::timestamptz);
  v_to timestamptz := least(p_to, fleet.just_after((p_recurrence ->> 'end')::timestamptz));
  v_change record;
begin
  if not fleet.leaves_out_gaps(p_recurrence) or not isfinite(v_from) or not isfinite(v_to) or v_from >= v_to then
    return;
  end if;
  for v_change in
    select t.changed_at, t.offset_before, t.offset_after
    from fleet.zone_transitions(p_recurrence ->> 'clock', fleet.epoch_of(v_from) - 1, fleet.epoch_of(v_to)) as t
    where t.offset_after > t.offset_before
  loop
    skipped_at := fleet.instant_of(v_change.changed_at);
    continue when skipped_at < v_from or skipped_at >= v_to;
    select timestamp '0001-01-01 00:00:00' + min(s.slot) * interval '1 second' + fleet.second_fraction(p_recurrence),
      timestamp '0001-01-01 00:00:00' + max(s.slot) * interval '1 second' + fleet.second_fraction(p_recurrence), count(*)
    into first_local, last_local, times
    from fleet.matching_slots(
      p_recurrence, v_change.changed_at + v_change.offset_before + c_epoch, v_change.changed_at + v_change.offset_after + c_epoch
    ) as s (slot);
    if times > 0 then
      return next;
    end if;
  end loop;
end;
$$;

comment on function fleet.skipped_times(jsonb, timestamptz, timestamptz) is
  'Where within [p_from, p_to) the clocks skip times of a compiled recurrence that leaves them out: the instant of the change, the first and '
  'the last of the times, and how many they are.';
revoke all on function fleet.skipped_times(jsonb, timestamptz, timestamptz) from public, anon, authenticated, service_role;
