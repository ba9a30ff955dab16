-- Instants of single local times. Where days of the month name one time there are hardly more of them than changes of the
-- clocks: each time is looked at by itself, and the spans of clocks decide only for the few beside a change.

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

create or replace function fleet.epochs_of_slots(p_recurrence jsonb, p_from bigint, p_to bigint)
returns setof bigint
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  -- From the day from which local seconds count to the Unix epoch.
  c_epoch  constant bigint := 62135596800;
  -- 15:59 hours are the most that a zone was off UTC and a day is the widest jump, so this is far enough to each side; and
  -- both sides together are less than the 95 hours that no zone has changed its clocks twice in.
  c_margin constant bigint := 148000;
  v_clock  text := p_recurrence ->> 'clock';
begin
  return query
    with named as materialized (
      select s.slot - c_epoch as utc, o.before, o.after
      from fleet.matching_slots(
        p_recurrence, greatest(p_from + c_epoch - c_margin, 0::bigint), p_to + c_epoch + c_margin
      ) as s (slot)
      cross join lateral (
        select fleet.utc_offset(v_clock, s.slot - c_epoch - c_margin) as before,
          fleet.utc_offset(v_clock, s.slot - c_epoch + c_margin) as after
        offset 0
      ) as o
    ), by_change as materialized (
      -- Beside a change most times still have one instant: before it or, past the minute that a gap may take, behind it.
      select n.utc,
        case
          when c.is_before = c.is_after then null
          when c.is_before then n.utc - n.before
          when fleet.utc_offset(v_clock, n.utc - n.after - 61) = n.after then n.utc - n.after
        end as epoch
      from named as n
      cross join lateral (
        select fleet.utc_offset(v_clock, n.utc - n.before) = n.before as is_before,
          fleet.utc_offset(v_clock, n.utc - n.after) = n.after as is_after
        offset 0
      ) as c
      where n.before <> n.after
    )
    select n.utc - n.before from named as n where n.before = n.after and n.utc - n.before >= p_from and n.utc - n.before < p_to
    union
    select c.epoch from by_change as c where c.epoch >= p_from and c.epoch < p_to
    union
    select e.epoch
    from by_change as c
    cross join lateral fleet.epochs_of_slot(
      v_clock, p_recurrence ->> 'resolve_gap', p_recurrence ->> 'resolve_fold', c.utc + c_epoch
    ) as e (epoch)
    where c.epoch is null and e.epoch >= p_from and e.epoch < p_to
    order by 1;
end;
$$;

comment on function fleet.epochs_of_slots(jsonb, bigint, bigint) is
  'fleet.calendar_occurrences for a recurrence that names few times: each by itself, in order, none twice.';
revoke all on function fleet.epochs_of_slots(jsonb, bigint, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.epochs_of_slots(jsonb, bigint, bigint) to authenticated, service_role;
