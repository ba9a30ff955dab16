-- Where a device is with regard to an action, by what the server knows: the geometry of the action, the latest fix, how old it is.

create or replace function fleet.geo_side(
  p_geometry jsonb,
  p_device public.devices,
  p_max_location_age interval,
  p_was_inside boolean,
  p_now timestamptz
)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_device.located_at is null
      or p_device.latitude is null
      or p_device.longitude is null
      or p_device.located_at < p_now - p_max_location_age
      then 'unknown'
    else (
      select fleet.side_of_fix(
        fleet.border_distance_m(l, p_device.latitude, p_device.longitude),
        coalesce(p_device.accuracy_m, l.hysteresis_m), l.hysteresis_m, p_was_inside
      )
      from jsonb_populate_record(null::public.locations, p_geometry) as l
    )
  end
$$;

comment on function fleet.geo_side(jsonb, public.devices, interval, boolean, timestamptz) is
  'inside, outside, unclear (its error crosses the border), or unknown: no fix, or one that is older than p_max_location_age.';
revoke all on function fleet.geo_side(jsonb, public.devices, interval, boolean, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.is_geo_met(p_side text, p_wanted text, p_unknown_location text, p_was_met boolean)
returns boolean
language sql
immutable
parallel safe
return case
  when p_wanted = 'anywhere' then true
  -- What cannot be told stays as it was.
  when p_side = 'unclear' then p_was_met
  when p_side = 'unknown' then case p_unknown_location when 'block' then true when 'free' then false else p_was_met end
  else p_side = p_wanted
end;

comment on function fleet.is_geo_met(text, text, text, boolean) is
  'Whether apps are blocked, given the side on which a device is, the side that counts, what unknown means, and how it was.';
revoke all on function fleet.is_geo_met(text, text, text, boolean) from public, anon, authenticated, service_role;
