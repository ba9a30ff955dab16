-- What holds for each device, whoever writes it: one check in place of seven.

create or replace function fleet.is_sound_device(
  p_hostname text,
  p_status text,
  p_platform text,
  p_timezone text,
  p_tags text[],
  p_attributes jsonb,
  p_reported jsonb,
  p_latitude double precision,
  p_longitude double precision,
  p_accuracy_m double precision
)
returns boolean
language plpgsql
immutable
parallel safe
-- Without settings, whose change would cost as much as all that is done here; so every name is qualified.
as $$
declare
  v_broken text := case
    when p_status not in ('active', 'retired') then 'status_is_known'
    when pg_catalog.btrim(p_hostname) = '' then 'hostname_is_not_blank'
    when pg_catalog.octet_length(p_hostname) > 1012
      or pg_catalog.octet_length(p_platform) > 1020
      or pg_catalog.octet_length(p_timezone) > 1020
      or pg_catalog.pg_column_size(p_tags) > 16384
      or pg_catalog.cardinality(p_tags) > 100
      or pg_catalog.pg_column_size(p_attributes) > 32768
      or pg_catalog.pg_column_size(p_reported) > 32768
      then 'is_within_limits'
    when pg_catalog.jsonb_typeof(p_attributes) <> 'object' then 'attributes_is_an_object'
    when p_latitude not between -90 and 90 then 'latitude_is_on_earth'
    when p_longitude not between -180 and 180 then 'longitude_is_on_earth'
    when p_accuracy_m < 0 then 'accuracy_is_not_negative'
  end;
begin
  if v_broken is not null then
    perform fleet.raise_broken_check('devices', v_broken);
  end if;
  return true;
end;
$$;

comment on function fleet.is_sound_device(
  text, text, text, text, text[], jsonb, jsonb, double precision, double precision, double precision
) is
  'The checks of devices in one: true, or it raises check_violation (23514) with the name of the one that is broken. Postgres reads the text '
  'of each check anew in every statement, which took two fifths of what it costs to hear from a device.';
revoke all on function fleet.is_sound_device(
  text, text, text, text, text[], jsonb, jsonb, double precision, double precision, double precision
) from public, anon, authenticated, service_role;
grant execute on function fleet.is_sound_device(
  text, text, text, text, text[], jsonb, jsonb, double precision, double precision, double precision
) to authenticated, service_role;
