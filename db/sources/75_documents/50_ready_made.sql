-- Templates that come with pgfleet: what a fleet of laptops does again and again.

create or replace function fleet.ready_made_templates()
returns table (name text, description text, action_type text, minutes integer)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  values
    ('send-osquery-data', 'Each device answers what osquery knows of it.', 'send_osquery_data', 25),
    ('collect-battery-data', 'Each device says how its battery and its disk are.', 'collect_battery_data', 25),
    ('sync-website-blocklist', 'Each device reads which websites are to be blocked.', 'sync_website_blocklist', 30),
    ('sync-software-blocklist', 'Each device reads which software is to be blocked.', 'sync_software_blocklist', 60)
$$;

comment on function fleet.ready_made_templates() is 'The templates that come with pgfleet, with how often each runs.';
revoke all on function fleet.ready_made_templates() from public, anon, authenticated, service_role;

create or replace function public.add_ready_made_templates(p_owner_id uuid default null)
returns setof text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return query select x.name from fleet.add_ready_made_templates(p_owner_id) as x(name);
end;
$$;

comment on function public.add_ready_made_templates(uuid) is
  'Give an owner the templates that come with pgfleet, where it has none of the name: send-osquery-data, collect-battery-data, '
  'sync-website-blocklist, sync-software-blocklist. Answers the names of those that are new. Raises permission_missing (PT403).';
revoke all on function public.add_ready_made_templates(uuid) from public, anon, authenticated, service_role;
grant execute on function public.add_ready_made_templates(uuid) to authenticated, service_role;

create or replace function fleet.add_ready_made_templates(p_owner_id uuid)
returns setof text
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid := fleet.owner_or_own(p_owner_id);
begin
  perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
  return query
  select fleet.create_template(jsonb_build_object(
    'owner_id', v_owner, 'name', r.name, 'description', r.description,
    'spec', jsonb_build_object(
      'name', r.name, 'action_type', r.action_type, 'selector', '{{devices}}',
      'recurrence_type', 'interval', 'recurrence_config', jsonb_build_object('every', '{{every}}'),
      -- Not all at once, and nothing that is late is of use.
      'policies', jsonb_build_object('jitter', '5 minutes')
    ),
    'parameters', jsonb_build_object(
      'devices', '{"type": "object", "default": {}, "description": "Which devices, as a selector; all of them unless given."}'::jsonb,
      'every', jsonb_build_object('type', 'string', 'default', r.minutes || ' minutes', 'description', 'How often.')
    )
  )) ->> 'name'
  from fleet.ready_made_templates() as r
  where not exists (
    select 1 from public.schedule_templates as t where t.owner_id = v_owner and lower(t.name) = r.name
  );
end;
$$;

comment on function fleet.add_ready_made_templates(uuid) is 'See public.add_ready_made_templates. Definer: it checks the caller.';
revoke all on function fleet.add_ready_made_templates(uuid) from public, anon, authenticated, service_role;
grant execute on function fleet.add_ready_made_templates(uuid) to authenticated, service_role;
