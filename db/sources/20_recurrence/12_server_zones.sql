-- Zones that come and go: which of them this server has at this moment.

create or replace function fleet.zones_of_server(p_zones text[])
returns text[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_zone text;
  v_here text[] := '{}';
begin
  begin
    perform max(timestamptz 'epoch' at time zone u.zone) from unnest(p_zones) as u(zone);
    return p_zones;
  exception
    when invalid_parameter_value then
      -- One of them is gone. Which of them is found out one by one, and fleet_status() names it.
      v_here := '{}';
  end;
  foreach v_zone in array p_zones loop
    begin
      perform timestamptz 'epoch' at time zone fleet.zone_clock(v_zone);
      v_here := v_here || v_zone;
    exception
      when invalid_parameter_value then
        continue;
    end;
  end loop;
  return v_here;
end;
$$;

comment on function fleet.zones_of_server(text[]) is
  'Those of these zones whose clocks this server can tell, by their name or by another one; the others are left out, and named by '
  'fleet.lost_zones().';
revoke all on function fleet.zones_of_server(text[]) from public, anon, authenticated, service_role;

create or replace function fleet.zone_rules(p_zone text, p_now timestamptz)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_from timestamptz := date_trunc('year', p_now at time zone 'UTC') at time zone 'UTC';
begin
  return (
    select to_char(v_from at time zone 'UTC', 'YYYY') || ':' || md5(concat(
      fleet.utc_offset(c.clock, date_part('epoch', v_from)::bigint),
      (
        select string_agg(t.changed_at || '>' || t.offset_after, ',' order by t.changed_at)
        from fleet.zone_transitions(
          c.clock, date_part('epoch', v_from)::bigint, date_part('epoch', v_from + interval '3 years')::bigint
        ) as t
      )
    ))
    from (select fleet.zone_clock(p_zone) as clock) as c
  );
exception
  when invalid_parameter_value then
    -- Not here: fleet.lost_zones() names it.
    return null;
end;
$$;

comment on function fleet.zone_rules(text, timestamptz) is
  'The changes of a zone''s clocks in this year and the next two, as a digest that begins with the year; null where the server does not '
  'have the zone.';
revoke all on function fleet.zone_rules(text, timestamptz) from public, anon, authenticated, service_role;
