-- Which rule for skipped or repeated times an occurrence owes its instant to.

create or replace function fleet.applied_rule(p_recurrence jsonb, p_instant timestamptz)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_clock  text := p_recurrence ->> 'clock';
  v_gap    text := p_recurrence ->> 'resolve_gap';
  v_fold   text := p_recurrence ->> 'resolve_fold';
  v_epoch  bigint := fleet.epoch_of(p_instant);
  v_change record;
  v_slot   bigint;
begin
  -- Wildcard jobs follow elapsed time: for them nothing is skipped and nothing repeated.
  if p_recurrence ->> 'kind' is distinct from 'calendar' or p_recurrence @> '{"is_elapsed": true}' then
    return null;
  end if;

  for v_change in
    select t.changed_at, t.offset_before as before, t.offset_after as after
    from fleet.zone_transitions(v_clock, v_epoch - 90000, v_epoch + 90000) as t
  loop
    if v_change.after > v_change.before then
      if v_gap <> 'skip'
        and v_epoch >= v_change.changed_at
        and v_epoch < fleet.gap_end(v_gap, v_change.changed_at, v_change.before, v_change.after)
      then
        v_slot := case
          when v_gap = 'shift' then v_epoch + v_change.before + 62135596800
          when v_epoch = fleet.gap_end(v_gap, v_change.changed_at, v_change.before, v_change.after) - 1 then (
            select s.slot
            from fleet.matching_slots(
              p_recurrence,
              v_change.changed_at + v_change.before + 62135596800,
              v_change.changed_at + v_change.after + 62135596800
            ) as s (slot)
            limit 1
          )
        end;
        if exists (select 1 from fleet.matching_slots(p_recurrence, v_slot, v_slot + 1)) then
          return 'gap:' || v_gap;
        end if;
      end if;

    elsif v_epoch >= v_change.changed_at - (v_change.before - v_change.after)
      and v_epoch < v_change.changed_at + (v_change.before - v_change.after)
    then
      return 'fold:' || v_fold;
    end if;
  end loop;

  return null;
end;
$$;

comment on function fleet.applied_rule(jsonb, timestamptz) is
  'gap:first_instant or gap:shift when the local time of an occurrence was skipped, fold:first, '
  'fold:second or fold:both '
  'when it came twice, null when the clocks were quiet.';
revoke all on function fleet.applied_rule(jsonb, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.applied_rule(jsonb, timestamptz) to authenticated, service_role;
