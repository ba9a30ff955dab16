-- Which time zones may be named.

create or replace function fleet.refresh_time_zones()
returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  -- Names with a slash are IANA's areas; of the others only UTC and its kin are meant by people. POSIX rules such as
  -- "Nonsense5", which Postgres accepts everywhere, are in no list and so never pass.
  insert into fleet.time_zones (name)
  select z.name
  from pg_catalog.pg_timezone_names as z
  where z.name !~ '^(posix|right)/'
    and z.name not in ('posixrules', 'localtime', 'Factory')
  on conflict (name) do nothing
$$;

comment on function fleet.refresh_time_zones() is 'Add the zones that this server knows; called at every migrate.';
revoke all on function fleet.refresh_time_zones() from public, anon, authenticated, service_role;

create or replace function fleet.is_time_zone(p_name text)
returns boolean
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_name = 'UTC' then
    return true;
  end if;
  return exists (select 1 from fleet.time_zones as z where z.name = p_name);
end;
$$;

comment on function fleet.is_time_zone(text) is
  'Whether this is the exact name of a known IANA zone. Definer: triggers ask it on behalf of anybody.';
revoke all on function fleet.is_time_zone(text) from public, anon, authenticated, service_role;
