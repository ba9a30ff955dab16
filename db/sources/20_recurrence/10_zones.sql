-- Local time as plain numbers. A "local second" is a wall-clock reading counted in seconds since 0001-01-01 00:00,
-- which was a Monday: day = second / 86400, weekday = day % 7, and both stay positive for every date in use.

create or replace function fleet.utc_offset(p_timezone text, p_epoch bigint)
returns bigint
language sql
immutable
parallel safe
-- The last day of Postgres' time has no local time in the east: there the day before tells.
return date_part('epoch', to_timestamp(least(p_epoch, 9224231615999)) at time zone p_timezone)::bigint - least(p_epoch, 9224231615999);

comment on function fleet.utc_offset(text, bigint) is
  'Seconds by which the clocks of the zone are ahead of UTC at this Unix second.';
revoke all on function fleet.utc_offset(text, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.utc_offset(text, bigint) to authenticated, service_role;

create or replace function fleet.zone_transitions(p_timezone text, p_from bigint, p_to bigint)
returns table (changed_at bigint, offset_before bigint, offset_after bigint)
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  -- No zone has changed its clocks twice within three days since there are time zones.
  c_step   constant bigint := 3::bigint * 86400;
  v_known  bigint := p_from;
  v_probe  bigint;
  v_low    bigint;
  v_high   bigint;
  v_middle bigint;
begin
  offset_before := fleet.utc_offset(p_timezone, p_from);

  while v_known < p_to loop
    v_probe := least(v_known + c_step, p_to);
    offset_after := fleet.utc_offset(p_timezone, v_probe);

    if offset_after <> offset_before then
      v_low := v_known;
      v_high := v_probe;
      while v_high - v_low > 1 loop
        v_middle := (v_low + v_high) / 2;
        if fleet.utc_offset(p_timezone, v_middle) = offset_before then
          v_low := v_middle;
        else
          v_high := v_middle;
        end if;
      end loop;

      changed_at := v_high;
      return next;
      offset_before := offset_after;
    end if;

    v_known := v_probe;
  end loop;
end;
$$;

comment on function fleet.zone_transitions(text, bigint, bigint) is
  'Every change of the zone''s clocks after p_from and up to p_to, both in Unix seconds, oldest first.';
revoke all on function fleet.zone_transitions(text, bigint, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.zone_transitions(text, bigint, bigint) to authenticated, service_role;

create or replace function fleet.zone_clock(p_timezone text)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_alias text;
begin
  -- Postgres reads these four names as abbreviations with one fixed offset. Where the server has the zones of the same
  -- name under posix/ those are exact, elsewhere a city is that has kept the same rules since the seventies.
  if p_timezone in ('CET', 'EET', 'MET', 'WET') then
    return fleet.existing_zone('posix/' || p_timezone, case p_timezone
      when 'EET' then 'Europe/Athens'
      when 'WET' then 'Europe/Lisbon'
      else 'Europe/Brussels'
    end);
  end if;
  -- Old names are in a package of their own on some systems: there the new one has the clock.
  v_alias := fleet.zone_aliases() ->> p_timezone;
  if v_alias is null then
    return p_timezone;
  end if;
  return fleet.existing_zone(p_timezone, v_alias);
end;
$$;

comment on function fleet.zone_clock(text) is
  'The name by which Postgres finds the clock of an IANA zone: the zone''s own name, but for four old ones and for '
  'names that this server has only under another.';
revoke all on function fleet.zone_clock(text) from public, anon, authenticated, service_role;
grant execute on function fleet.zone_clock(text) to authenticated, service_role;

create or replace function fleet.existing_zone(p_first text, p_second text)
returns text
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform timestamptz 'epoch' at time zone p_first;
  return p_first;
exception
  when invalid_parameter_value then
    return p_second;
end;
$$;

comment on function fleet.existing_zone(text, text) is
  'The first of two zones if this server has it, else the second.';
revoke all on function fleet.existing_zone(text, text) from public, anon, authenticated, service_role;
grant execute on function fleet.existing_zone(text, text) to authenticated, service_role;

create or replace function fleet.wall_instants(p_local timestamp, p_clock text)
returns table (first_at timestamptz, last_at timestamptz)
language sql
immutable
parallel safe
begin atomic
  -- An hour that the clocks repeat has two instants, one that they skip has none: then the change itself is meant. A zone
  -- that has changed its clocks within 26 hours has had another offset before or has another one after.
  select
    case
      when c.before_at = c.after_at then c.before_at
      when (c.before_at at time zone p_clock) = p_local then c.before_at
      when (c.after_at at time zone p_clock) = p_local then c.after_at
      else c.changed_at
    end,
    case
      when c.before_at = c.after_at then c.before_at
      when (c.after_at at time zone p_clock) = p_local then c.after_at
      when (c.before_at at time zone p_clock) = p_local then c.before_at
      else c.changed_at
    end
  from (
    select o.before_at, o.after_at,
      case
        when o.before_at <> o.after_at
          and (o.before_at at time zone p_clock) <> p_local
          and (o.after_at at time zone p_clock) <> p_local
          then (
            select to_timestamp(t.changed_at)
            from fleet.zone_transitions(
              p_clock, date_part('epoch', o.plain_at)::bigint - 93600, date_part('epoch', o.plain_at)::bigint + 93600
            ) as t
            limit 1
          )
      end as changed_at
    from (
      select x.plain_at,
        (p_local - ((x.plain_at - interval '26 hours') at time zone p_clock - (x.plain_at - interval '26 hours') at time zone 'UTC'))
          at time zone 'UTC' as before_at,
        (p_local - ((x.plain_at + interval '26 hours') at time zone p_clock - (x.plain_at + interval '26 hours') at time zone 'UTC'))
          at time zone 'UTC' as after_at
      from (select p_local at time zone p_clock as plain_at offset 0) as x
      -- Worked out once: without the fence each use would be a copy.
      offset 0
    ) as o
  ) as c;
end;

comment on function fleet.wall_instants(timestamp, text) is
  'The first and the last instant at which the clocks of a zone show a time: two where they repeat it; where they skip it, the first '
  'instant after, twice. The zone by fleet.zone_clock.';
revoke all on function fleet.wall_instants(timestamp, text) from public, anon, authenticated, service_role;
grant execute on function fleet.wall_instants(timestamp, text) to authenticated, service_role;

create or replace function fleet.local_to_instant(p_local timestamp, p_timezone text)
returns timestamptz
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_timezone = 'UTC' then
    return p_local at time zone 'UTC';
  end if;
  -- The plain conversion reads a skipped time with the offset before the change and a repeated one with the offset after it;
  -- here, as in every recurrence by default, a skipped time is the first instant after, a repeated one the first.
  return (select w.first_at from fleet.wall_instants(p_local, fleet.zone_clock(p_timezone)) as w);
end;
$$;

comment on function fleet.local_to_instant(timestamp, text) is
  'The instant of a local time: a repeated one is its first, a skipped one is the first instant after the '
  'gap.';
revoke all on function fleet.local_to_instant(timestamp, text) from public, anon, authenticated, service_role;
grant execute on function fleet.local_to_instant(timestamp, text) to authenticated, service_role;
