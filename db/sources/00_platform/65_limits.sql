-- Limits: how much of anything people and devices may write. The one table of them.

create or replace function fleet.limits()
returns table (name text, value bigint, unit text, over text, bounds text, columns text[])
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  values
    -- Texts.
    ('name', 200::bigint, 'characters', 'refuse', 'names that people give',
      '{app_categories.name, blackout_calendars.name, calendar_feeds.name, deployment_files.name, deployments.name, device_groups.name,
        device_integrations.name,
        geo_schedules.name, location_events.location_name, location_policies.name, locations.name, owners.name,
        profiles.name, schedule_templates.name, schedules.name, software_packages.name, software_packages.version, telemetry_rules.name,
        webhook_endpoints.name}'::text[]),
    ('hostname', 253, 'characters', 'refuse', 'host names', '{device_commands.device_hostname,devices.hostname}'),
    ('description', 4000, 'characters', 'refuse', 'descriptions',
      '{blackout_calendars.description, blackout_periods.summary, blocklist_entries.note, command_types.description, deployment_files.description,
        device_groups.description,
        geo_schedules.notes, profile_assignments.description, rollout_approvals.note, schedule_templates.description, schedules.description,
        software_packages.description}'),
    ('identifier', 255, 'characters', 'refuse', 'keys, kinds, time zones, addresses of people and ids of other systems',
      '{blackout_calendars.url_timezone, blocklist_entries.pattern, command_types.name, device_commands.command_type, device_commands.idempotency_key,
        device_integrations.integration_type, device_links.external_id, device_profiles.profile_id, devices.platform,
        devices.timezone, geo_schedules.timezone, location_policies.action_type, mdm_rereads.external_id,
        owner_invitations.email, owner_members.email, owners.timezone, pg_cron_secrets.name, profile_assignments.profile_id, profile_holds.holder, profile_holds.profile_id,
        profile_installs.profile_id, profiles.external_id, profiles.kind, schedule_runs.action_type,
        schedule_runs.idempotency_key, schedules.action_type, schedules.profile_id, schedules.timezone, software_packages.platform,
        telemetry_rules.action_type, telemetry_rules.condition}'),
    ('address', 2000, 'characters', 'refuse', 'addresses that people give',
      '{blackout_calendars.url,webhook_endpoints.email,webhook_endpoints.url}'),
    ('secret', 65536, 'characters', 'refuse', 'secrets', '{pg_cron_secrets.secret}'),
    ('reason', 255, 'characters', 'cut', 'reasons in a word or a line',
      '{device_commands.reason, device_integrations.status_reason, profile_installs.failure, profile_installs.removal_cancelled, rollouts.reason,
        schedule_runs.reason,
        schedules.status_reason, webhook_endpoints.disabled_reason}'),
    ('error', 4000, 'characters', 'cut', 'error messages',
      '{blackout_calendars.look_error, device_commands.error_message, heartbeat.last_error, integration_activity_log.error,
        location_actions.error_message, mdm_api_logs.error, profiles.error_message, schedule_runs.error_message,
        telemetry_rules.last_error, webhook_deliveries.last_error}'),
    ('explanation', 2000, 'characters', 'cut', 'reasons in a few lines',
      '{blackout_calendars.look_note, geo_action_reports.reason, geo_commitments.override_reason}'),
    ('log_line', 2000, 'characters', 'cut', 'what is logged of a call in a line',
      '{blackout_calendars.look_modified, blackout_calendars.look_tag, integration_activity_log.origin_key, mdm_api_logs.method, mdm_api_logs.url}'),
    ('log_body', 20000, 'characters', 'cut', 'bodies of calls in the log',
      '{mdm_api_logs.request_body,mdm_api_logs.response_body}'),
    ('command_line', 4000, 'characters', 'refuse', 'command lines of installers',
      '{software_packages.install_command,software_packages.uninstall_command}'),
    -- JSON, in bytes as Postgres holds it.
    ('payload', 65536, 'bytes', 'refuse', 'payloads of commands',
      '{device_commands.payload, location_policies.payload, schedule_runs.payload, schedules.payload,
        telemetry_rules.payload}'),
    ('report', 65536, 'bytes', 'cut', 'what devices and other systems report',
      '{device_commands.result, device_links.attributes, device_links.capabilities, integration_activity_log.counts,
        integration_activity_log.detail, schedule_runs.result, webhook_deliveries.payload}'),
    ('attributes', 32768, 'bytes', 'refuse', 'attributes of a device, and what it reports', '{devices.attributes,devices.reported}'),
    ('policies', 16384, 'bytes', 'refuse', 'policies of a schedule', '{schedules.policies}'),
    ('recurrence', 16384, 'bytes', 'refuse', 'settings of a recurrence', '{schedules.recurrence_config}'),
    ('selector', 16384, 'bytes', 'refuse', 'selectors and filters',
      '{calendar_feeds.filter, device_groups.selector, location_policies.selector, profile_assignments.selector,
        schedules.selector, telemetry_rules.selector}'),
    ('options', 16384, 'bytes', 'refuse', 'options of a profile', '{profiles.options}'),
    ('desired', 16384, 'bytes', 'refuse', 'what is wanted of a device in another system', '{device_links.desired}'),
    ('settings', 262144, 'bytes', 'refuse', 'settings of an integration', '{device_integrations.settings}'),
    ('template', 262144, 'bytes', 'refuse', 'specifications and parameters of templates',
      '{schedule_templates.parameters,schedule_templates.spec}'),
    ('payload_keys', 65536, 'bytes', 'refuse', 'what a command type says of its payload', '{command_types.payload_keys}'),
    ('polygon', 65536, 'bytes', 'refuse', 'borders of locations', '{geo_schedules.geometry,locations.polygon}'),
    ('enforce', 4096, 'bytes', 'refuse', 'how a geo schedule is enforced', '{geo_schedules.enforce}'),
    ('profile_content', 1048576, 'bytes', 'refuse', 'files of profiles', '{profile_uploads.content}'),
    ('progress', 4096, 'bytes', 'cut', 'how far a device says it is', '{device_commands.progress}'),
    ('detection', 16384, 'bytes', 'refuse', 'detection rules', '{software_packages.detection}'),
    ('spec', 524288, 'bytes', 'refuse', 'one specification in JSON', '{}'),
    ('document', 8388608, 'bytes', 'refuse', 'one document of many schedules', '{}'),
    ('keys', 500, 'entries', 'refuse', 'keys of one specification', '{}'),
    ('nesting', 16, 'levels', 'refuse', 'how deep JSON is nested', '{}'),
    -- Lists.
    ('device_list', 10000, 'entries', 'refuse', 'devices that one list names',
      '{profile_assignments.device_ids,schedules.device_ids}'),
    ('group_list', 100, 'entries', 'refuse', 'groups that one list names',
      '{enrollment_codes.group_ids,profile_assignments.group_ids,schedules.group_ids}'),
    ('rollout_groups', 50, 'entries', 'refuse', 'groups of a rollout', '{}'),
    ('abort_rules', 10, 'entries', 'refuse', 'rules that stop a rollout', '{}'),
    ('artifacts', 100, 'entries', 'refuse', 'files or packages of one deployment', '{}'),
    ('dependencies', 50, 'entries', 'refuse', 'packages that one package needs', '{software_packages.dependencies}'),
    ('tags', 100, 'entries', 'refuse', 'tags of a device', '{devices.tags,enrollment_codes.tags}'),
    ('words', 16384, 'bytes', 'refuse', 'tags and events together',
      '{devices.tags, enrollment_codes.tags, owner_invitations.permissions, owner_members.permissions,
        webhook_endpoints.events}'),
    ('apps', 500, 'entries', 'refuse', 'apps that one list names', '{app_categories.apps,geo_schedules.apps}'),
    ('blocklist', 10000, 'entries', 'refuse', 'entries of a blocklist of an owner', '{}'),
    ('categories', 50, 'entries', 'refuse', 'categories of apps that one list names', '{geo_schedules.categories}'),
    ('blocked_apps', 2000, 'entries', 'refuse', 'apps that one action blocks',
      '{geo_actions.apps,geo_schedules.blocked_apps}'),
    ('results', 100, 'entries', 'refuse', 'results that a device reports in one call', '{}'),
    ('weekdays', 7, 'entries', 'refuse', 'days of a week', '{geo_schedules.days}'),
    ('events', 50, 'entries', 'refuse', 'events that an endpoint asks for', '{webhook_endpoints.events}'),
    ('permissions', 10, 'entries', 'refuse', 'permissions of a member', '{owner_invitations.permissions,owner_members.permissions}'),
    ('selector_list', 100, 'entries', 'refuse', 'each list of a selector or a filter', '{}'),
    ('windows', 20, 'entries', 'refuse', 'execution windows of a schedule', '{}'),
    ('retry_classes', 20, 'entries', 'refuse', 'classes of failures that are tried again', '{}'),
    ('blackouts', 20, 'entries', 'refuse', 'blackout calendars of a schedule', '{}'),
    ('periods', 2000, 'entries', 'refuse', 'periods of a blackout calendar', '{}'),
    -- Paces and times.
    ('rate_per_second', 1000, 'calls a second', 'refuse', 'pace of an integration', '{}'),
    ('burst', 1000, 'calls', 'refuse', 'calls at once of an integration', '{}'),
    ('sync_interval', 2592000, 'seconds', 'refuse', 'pause between syncs of an integration', '{}'),
    ('horizon', 3653, 'days', 'refuse', 'how far ahead a command may wait or live', '{}')
$$;

comment on function fleet.limits() is
  'Every limit: its name, the most that is taken, in which unit (bytes of JSON are those that Postgres holds), whether what is over it is '
  'refused or cut, what it bounds, and the columns it holds for. All that people write is refused; reports are cut, with a mark.';
revoke all on function fleet.limits() from public, anon, authenticated, service_role;
grant execute on function fleet.limits() to authenticated, service_role;

create or replace function fleet.limit_values()
returns jsonb
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_object_agg(l.name, l.value) from fleet.limits() as l
$$;

comment on function fleet.limit_values() is
  'The most that is taken by the name of the limit: a constant, which Postgres works out once a plan.';
revoke all on function fleet.limit_values() from public, anon, authenticated, service_role;

create or replace function fleet.limit_value(p_name text)
returns bigint
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return (fleet.limit_values() -> p_name)::bigint;
end;
$$;

comment on function fleet.limit_value(text) is
  'The most that is taken, by the name of the limit; null where there is none of that name.';
revoke all on function fleet.limit_value(text) from public, anon, authenticated, service_role;

create or replace function fleet.limit_problem(p_field text, p_limit text, p_sent numeric)
returns setof fleet.problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_most bigint := fleet.limit_value(p_limit);
begin
  if p_sent <= v_most or p_sent is null then
    return;
  elsif v_most is null then
    return next (p_field, format('there is no limit "%s"', p_limit), 'See fleet.limits().')::fleet.problem;
    return;
  end if;

  return query
  select p_field,
    format(
      '%s %s %s; at most %s are taken', case when l.unit in ('characters', 'bytes', 'entries', 'levels') then 'has' else 'is' end,
      left(p_sent::text, 40), l.unit, l.value
    ),
    format('For %s the limit is %s %s.', l.bounds, l.value, l.unit)
  from fleet.limits() as l
  where l.name = p_limit;
end;
$$;

comment on function fleet.limit_problem(text, text, numeric) is
  'One row where what was sent is over a limit: the field, how much was sent and how much is taken.';
revoke all on function fleet.limit_problem(text, text, numeric) from public, anon, authenticated, service_role;

create or replace function fleet.list_problem(p_field text, p_limit text, p_list jsonb)
returns setof fleet.problem
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if jsonb_typeof(p_list) = 'array' then
    return query select q.* from fleet.limit_problem(p_field, p_limit, jsonb_array_length(p_list)) as q;
  end if;
end;
$$;

comment on function fleet.list_problem(text, text, jsonb) is 'One row where a value is a list that is longer than a limit.';
revoke all on function fleet.list_problem(text, text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.raise_broken_check(p_table text, p_rule text)
returns void
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  raise check_violation using
    message = format('new row for relation "%s" violates check constraint "%s_%s"', p_table, p_table, p_rule),
    schema = 'public', table = p_table, constraint = format('%s_%s', p_table, p_rule);
end;
$$;

comment on function fleet.raise_broken_check(text, text) is
  'Raise check_violation (23514) as Postgres does, for a rule of a check that holds several: the constraint is <table>_<rule>.';
revoke all on function fleet.raise_broken_check(text, text) from public, anon, authenticated, service_role;
grant execute on function fleet.raise_broken_check(text, text) to authenticated, service_role;
