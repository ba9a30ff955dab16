-- Where local time and elapsed time part. Between two changes of the clocks they run side by side, so each such span
-- is computed at once; the rules for skipped and repeated times only decide where spans begin and end.

create or replace function fleet.clock_spans(
  p_clock text,
  p_gap text,
  p_fold text,
  p_from bigint,
  p_to bigint
)
returns table (
  begins_at bigint,
  ends_at bigint,
  shift bigint,
  skipped_shift bigint,
  is_one_instant boolean
)
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  -- From the Unix epoch to the day from which local seconds count.
  c_epoch  constant bigint := 62135596800;
  v_since  bigint := p_from;
  v_until  bigint;
  v_jump   bigint;
  v_change record;
begin
  shift := c_epoch + fleet.utc_offset(p_clock, p_from - 90000);

  -- Changes up to a day outside the window matter: a time repeated or skipped there may belong to this window.
  for v_change in
    select t.changed_at, t.offset_before, t.offset_after
    from fleet.zone_transitions(p_clock, p_from - 90000, p_to + 90000) as t
  loop
    v_jump := v_change.offset_after - v_change.offset_before;
    -- Under fold = second the first pass of the repeated time stays silent, under fold = first the second pass does.
    v_until := v_change.changed_at + case when p_fold = 'second' then least(v_jump, 0) else 0 end;
    begins_at := greatest(v_since, p_from);
    ends_at := least(v_until, p_to);
    if begins_at < ends_at then
      return next;
    end if;

    v_since := v_change.changed_at - case when p_fold = 'first' then least(v_jump, 0) else 0 end;
    if v_jump > 0 and p_gap <> 'skip' then
      skipped_shift := shift;
      shift := c_epoch + v_change.offset_after;
      is_one_instant := p_gap = 'first_instant';
      v_since := fleet.gap_end(p_gap, v_change.changed_at, v_change.offset_before, v_change.offset_after);

      begins_at := v_change.changed_at;
      ends_at := v_since;
      if not is_one_instant then
        begins_at := greatest(begins_at, p_from);
        ends_at := least(ends_at, p_to);
      end if;
      if begins_at < ends_at and ends_at > p_from and ends_at <= p_to then
        return next;
      end if;
      skipped_shift := null;
      is_one_instant := null;
    end if;
    shift := c_epoch + v_change.offset_after;
  end loop;

  begins_at := greatest(v_since, p_from);
  ends_at := p_to;
  if begins_at < ends_at then
    return next;
  end if;
end;
$$;

comment on function fleet.clock_spans(text, text, text, bigint, bigint) is
  'The spans of [p_from, p_to), in Unix seconds and in order, in which a recurrence may run: local second '
  '= Unix second '
  '+ shift. Behind a gap a span has a second shift for the times that were skipped; under gap = '
  'first_instant all that '
  'such a span names, from its beginning by the second shift to its end by the first, runs once, in its '
  'last second.';
revoke all on function fleet.clock_spans(text, text, text, bigint, bigint)
  from public, anon, authenticated, service_role;
grant execute on function fleet.clock_spans(text, text, text, bigint, bigint) to authenticated, service_role;

create or replace function fleet.gap_end(p_gap text, p_changed_at bigint, p_before bigint, p_after bigint)
returns bigint
language sql
immutable
parallel safe
return p_changed_at + case
  when p_gap = 'shift' then p_after - p_before
  -- Cron looks at its table once a minute, so the first instant is the first whole minute, which belongs to the span.
  else (60 - (p_changed_at + p_after) % 60) % 60 + 1
end;

comment on function fleet.gap_end(text, bigint, bigint, bigint) is
  'The Unix second up to which what was skipped by a gap and what is regular behind it are taken together.';
revoke all on function fleet.gap_end(text, bigint, bigint, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.gap_end(text, bigint, bigint, bigint) to authenticated, service_role;
