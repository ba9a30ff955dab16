-- Slots of a recurrence that leaves out or adds single dates: those of its rule without the ones, and with the others.

create or replace function fleet.is_left_out(p_dates jsonb, p_slot bigint)
returns boolean
language sql
immutable
parallel safe
return (p_dates -> 'except') @> to_jsonb(p_slot) or (p_dates -> 'days') @> to_jsonb(p_slot / 86400);

comment on function fleet.is_left_out(jsonb, bigint) is 'Whether the compiled dates of a recurrence leave out this local second.';
revoke all on function fleet.is_left_out(jsonb, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.is_left_out(jsonb, bigint) to authenticated, service_role;

create or replace function fleet.next_dated_slot(p_recurrence jsonb, p_from bigint)
returns bigint
language plpgsql
immutable
strict
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rule  jsonb := p_recurrence - 'dates';
  v_dates jsonb := p_recurrence -> 'dates';
  v_slot  bigint := fleet.next_slot(v_rule, p_from);
begin
  -- At most once for each date that is left out.
  while fleet.is_left_out(v_dates, v_slot) loop
    v_slot := fleet.next_slot(
      v_rule, case when (v_dates -> 'except') @> to_jsonb(v_slot) then v_slot + 1 else (v_slot / 86400 + 1) * 86400 end
    );
  end loop;
  return least(
    v_slot,
    (select min(a.at::bigint) from jsonb_array_elements(v_dates -> 'also') as a (at) where a.at::bigint >= p_from)
  );
end;
$$;

comment on function fleet.next_dated_slot(jsonb, bigint) is 'fleet.next_slot for a recurrence with single dates.';
revoke all on function fleet.next_dated_slot(jsonb, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.next_dated_slot(jsonb, bigint) to authenticated, service_role;

create or replace function fleet.dated_slots(p_recurrence jsonb, p_from bigint, p_to bigint)
returns setof bigint
language plpgsql
immutable
strict
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select s.slot
    from fleet.matching_slots(p_recurrence - 'dates', p_from, p_to) as s (slot)
    where not fleet.is_left_out(p_recurrence -> 'dates', s.slot)
    union
    select a.at::bigint
    from jsonb_array_elements(p_recurrence #> '{dates,also}') as a (at)
    where a.at::bigint >= p_from and a.at::bigint < p_to
    order by 1;
end;
$$;

comment on function fleet.dated_slots(jsonb, bigint, bigint) is 'fleet.matching_slots for a recurrence with single dates.';
revoke all on function fleet.dated_slots(jsonb, bigint, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.dated_slots(jsonb, bigint, bigint) to authenticated, service_role;

create or replace function fleet.count_dated_slots(p_recurrence jsonb, p_from bigint, p_to bigint)
returns bigint
language sql
immutable
strict
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  -- All of the rule, less those that are left out, and those that are added where the rule has none.
  select fleet.count_slots(p_recurrence - 'dates', p_from, p_to)
    - (
      select count(*)
      from jsonb_array_elements(p_recurrence #> '{dates,except}') as e (at)
      where e.at::bigint >= p_from and e.at::bigint < p_to
        and fleet.next_slot(p_recurrence - 'dates', e.at::bigint) = e.at::bigint
    )
    - (
      select coalesce(sum(fleet.count_slots(
        p_recurrence - 'dates', greatest(p_from, d.day::bigint * 86400), least(p_to, (d.day::bigint + 1) * 86400)
      )), 0)::bigint
      from jsonb_array_elements(p_recurrence #> '{dates,days}') as d (day)
      where d.day::bigint * 86400 < p_to and (d.day::bigint + 1) * 86400 > p_from
    )
    + (
      select count(*)
      from jsonb_array_elements(p_recurrence #> '{dates,also}') as a (at)
      where a.at::bigint >= p_from and a.at::bigint < p_to
        and fleet.next_slot(p_recurrence - 'dates', a.at::bigint) is distinct from a.at::bigint
    )
$$;

comment on function fleet.count_dated_slots(jsonb, bigint, bigint) is 'fleet.count_slots for a recurrence with single dates.';
revoke all on function fleet.count_dated_slots(jsonb, bigint, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.count_dated_slots(jsonb, bigint, bigint) to authenticated, service_role;
