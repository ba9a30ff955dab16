-- Which side of a border a fix is on, and when that counts. All of it is arithmetic: no table is read.

create or replace function fleet.side_of_fix(
  p_distance_m double precision,
  p_error_m double precision,
  p_hysteresis_m double precision,
  p_is_inside boolean
)
returns text
language sql
immutable
parallel safe
return case
  -- The circle of error crosses the border.
  when p_distance_m > -p_error_m and p_distance_m <= p_error_m then 'unclear'
  when p_distance_m <= 0 then 'inside'
  when not p_is_inside then 'outside'
  -- For a device inside, the border that matters lies further out.
  when p_distance_m - p_error_m > p_hysteresis_m then 'outside'
  when p_distance_m + p_error_m <= p_hysteresis_m then 'inside'
  else 'unclear'
end;

comment on function fleet.side_of_fix(double precision, double precision, double precision, boolean) is
  'The side that a fix speaks for, given its distance to the border (negative inside) and where the device was: one that is inside has '
  'left only beyond the hysteresis. An unclear fix speaks for none.';
revoke all on function fleet.side_of_fix(double precision, double precision, double precision, boolean)
  from public, anon, authenticated, service_role;

create or replace function fleet.candidate_since(
  p_is_inside boolean,
  p_candidate_since timestamptz,
  p_seen_at timestamptz,
  p_side text,
  p_fix_at timestamptz,
  p_stale_after interval
)
returns timestamptz
language sql
immutable
parallel safe
return case
  when p_side = 'unclear' then p_candidate_since
  when (p_side = 'inside') = p_is_inside then null
  -- What was seen before a long silence does not show that it held meanwhile.
  when p_candidate_since is null or p_fix_at - p_seen_at > p_stale_after then p_fix_at
  else p_candidate_since
end;

comment on function fleet.candidate_since(boolean, timestamptz, timestamptz, text, timestamptz, interval) is
  'Since when a device is seen on the other side than the one that counts; null where it is not.';
revoke all on function fleet.candidate_since(boolean, timestamptz, timestamptz, text, timestamptz, interval)
  from public, anon, authenticated, service_role;

create or replace function fleet.stale_position_after()
returns interval
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return make_interval(hours => fleet.setting_number('stale_position_hours')::integer);
end;
$$;

comment on function fleet.stale_position_after() is 'After how long without a fix a position is unknown.';
revoke all on function fleet.stale_position_after() from public, anon, authenticated, service_role;
