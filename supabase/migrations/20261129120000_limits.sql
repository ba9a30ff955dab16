-- Generated from db/migrations/20261129120000_limits.sql by pgfleet db bundle; edit that file instead.
-- How much a row may hold, whoever writes it: the backstop behind fleet.limits(), which says it in words and by column.
-- Text is bounded in bytes here, four for each character that is taken. A toasted value counts as it is stored.
-- depends: 20261122090730_integration_activity 20261129100001_geo_schedules 20261129100101_profile_holds 20261129100100_dead_functions 20261129110000_one_way_to_write_schedules

-- What is over a limit already must not stop the engine where it writes such a row next.
update public.schedules as s
set status = 'paused', status_reason = 'it holds more than the limits allow: see fleet.limits()'
where s.status = 'active'
  and (
    pg_column_size(s.payload) > 65536 or pg_column_size(s.policies) > 16384 or pg_column_size(s.recurrence_config) > 16384
    or pg_column_size(s.selector) > 16384 or octet_length(s.name) > 800 or octet_length(s.description) > 16000
    or cardinality(s.device_ids) > 10000 or cardinality(s.group_ids) > 100
  );
update public.device_commands as c
set status = 'cancelled', reason = 'payload over the limit'
where c.status in ('pending', 'running') and pg_column_size(c.payload) > 65536;
update public.devices as d
set attributes = '{"cut": true}'
where pg_column_size(d.attributes) > 32768;
update public.devices as d
set tags = d.tags[1:100]
where cardinality(d.tags) > 100;

alter table public.pg_cron_secrets add constraint pg_cron_secrets_is_within_limits check (
  octet_length(name) <= 1020
  and octet_length(secret) <= 262144
) not valid;

alter table public.owners add constraint owners_is_within_limits check (
  octet_length(name) <= 800
) not valid;

alter table public.owner_members add constraint owner_members_is_within_limits check (
  pg_column_size(permissions) <= 16384
  and cardinality(permissions) <= 10
) not valid;

alter table public.devices add constraint devices_is_within_limits check (
  octet_length(hostname) <= 1012
  and octet_length(platform) <= 1020
  and octet_length(timezone) <= 1020
  and pg_column_size(tags) <= 16384
  and cardinality(tags) <= 100
  and pg_column_size(attributes) <= 32768
) not valid;

alter table public.device_groups add constraint device_groups_is_within_limits check (
  octet_length(name) <= 800
  and octet_length(description) <= 16000
  and pg_column_size(selector) <= 16384
) not valid;

alter table public.enrollment_codes add constraint enrollment_codes_is_within_limits check (
  pg_column_size(tags) <= 16384
  and cardinality(tags) <= 100
  and cardinality(group_ids) <= 100
) not valid;

alter table public.schedules add constraint schedules_is_within_limits check (
  octet_length(name) <= 800
  and octet_length(description) <= 16000
  and octet_length(action_type) <= 1020
  and pg_column_size(payload) <= 65536
  and pg_column_size(recurrence_config) <= 16384
  and octet_length(timezone) <= 1020
  and cardinality(device_ids) <= 10000
  and cardinality(group_ids) <= 100
  and pg_column_size(selector) <= 16384
  and octet_length(profile_id) <= 1020
  and pg_column_size(policies) <= 16384
  and octet_length(status_reason) <= 1020
) not valid;

alter table public.schedule_runs add constraint schedule_runs_is_within_limits check (
  octet_length(reason) <= 1020
  and octet_length(error_message) <= 16000
  and octet_length(action_type) <= 1020
  and pg_column_size(payload) <= 65536
  and octet_length(idempotency_key) <= 1020
  and pg_column_size(result) <= 65536
) not valid;

alter table public.command_types add constraint command_types_is_within_limits check (
  octet_length(name) <= 1020
  and octet_length(description) <= 16000
  and pg_column_size(payload_keys) <= 65536
) not valid;

alter table public.device_commands add constraint device_commands_is_within_limits check (
  octet_length(device_hostname) <= 1012
  and octet_length(command_type) <= 1020
  and pg_column_size(payload) <= 65536
  and octet_length(reason) <= 1020
  and pg_column_size(result) <= 65536
  and octet_length(error_message) <= 16000
  and octet_length(idempotency_key) <= 1020
) not valid;

alter table public.blackout_calendars add constraint blackout_calendars_is_within_limits check (
  octet_length(name) <= 800
  and octet_length(description) <= 16000
) not valid;

alter table public.blackout_periods add constraint blackout_periods_is_within_limits check (
  octet_length(summary) <= 16000
) not valid;

alter table public.schedule_templates add constraint schedule_templates_is_within_limits check (
  octet_length(name) <= 800
  and octet_length(description) <= 16000
  and pg_column_size(spec) <= 262144
  and pg_column_size(parameters) <= 262144
) not valid;

alter table public.webhook_endpoints add constraint webhook_endpoints_is_within_limits check (
  octet_length(name) <= 800
  and octet_length(url) <= 8000
  and octet_length(email) <= 8000
  and pg_column_size(events) <= 16384
  and cardinality(events) <= 50
  and octet_length(disabled_reason) <= 1020
) not valid;

alter table public.webhook_deliveries add constraint webhook_deliveries_is_within_limits check (
  pg_column_size(payload) <= 65536
  and octet_length(last_error) <= 16000
) not valid;

alter table public.calendar_feeds add constraint calendar_feeds_is_within_limits check (
  octet_length(name) <= 800
  and pg_column_size(filter) <= 16384
) not valid;

alter table public.device_integrations add constraint device_integrations_is_within_limits check (
  octet_length(name) <= 800
  and octet_length(integration_type) <= 1020
  and octet_length(status_reason) <= 1020
  and pg_column_size(settings) <= 262144
) not valid;

alter table public.device_links add constraint device_links_is_within_limits check (
  octet_length(external_id) <= 1020
  and pg_column_size(attributes) <= 65536
  and pg_column_size(capabilities) <= 65536
) not valid;

alter table public.mdm_api_logs add constraint mdm_api_logs_is_within_limits check (
  octet_length(method) <= 8000
  and octet_length(url) <= 8000
  and octet_length(request_body) <= 80000
  and octet_length(response_body) <= 80000
  and octet_length(error) <= 16000
) not valid;

alter table public.profile_installs add constraint profile_installs_is_within_limits check (
  octet_length(profile_id) <= 1020
  and octet_length(failure) <= 1020
) not valid;

alter table public.profile_assignments add constraint profile_assignments_is_within_limits check (
  octet_length(profile_id) <= 1020
  and octet_length(description) <= 16000
  and cardinality(device_ids) <= 10000
  and cardinality(group_ids) <= 100
  and pg_column_size(selector) <= 16384
) not valid;

alter table public.device_profiles add constraint device_profiles_is_within_limits check (
  octet_length(profile_id) <= 1020
) not valid;

alter table public.profiles add constraint profiles_is_within_limits check (
  octet_length(external_id) <= 1020
  and octet_length(name) <= 800
  and octet_length(kind) <= 1020
  and pg_column_size(options) <= 16384
  and octet_length(error_message) <= 16000
) not valid;

alter table fleet.profile_uploads add constraint profile_uploads_is_within_limits check (
  octet_length(content) <= 1048576
) not valid;

alter table public.integration_activity_log add constraint integration_activity_log_is_within_limits check (
  pg_column_size(counts) <= 65536
  and octet_length(error) <= 16000
  and pg_column_size(detail) <= 65536
  and octet_length(origin_key) <= 8000
) not valid;

alter table public.locations add constraint locations_is_within_limits check (
  octet_length(name) <= 800
  and pg_column_size(polygon) <= 65536
) not valid;

alter table public.location_policies add constraint location_policies_is_within_limits check (
  octet_length(name) <= 800
  and octet_length(action_type) <= 1020
  and pg_column_size(payload) <= 65536
  and pg_column_size(selector) <= 16384
) not valid;

alter table public.location_events add constraint location_events_is_within_limits check (
  octet_length(location_name) <= 800
) not valid;

alter table public.location_actions add constraint location_actions_is_within_limits check (
  octet_length(error_message) <= 16000
) not valid;


alter table fleet.heartbeat add constraint heartbeat_is_within_limits check (
  octet_length(last_error) <= 16000
) not valid;

alter table fleet.mdm_rereads add constraint mdm_rereads_is_within_limits check (
  octet_length(external_id) <= 1020
) not valid;

alter table public.geo_schedules add constraint geo_schedules_is_within_limits check (
  octet_length(timezone) <= 1020
) not valid;

alter table public.profile_holds add constraint profile_holds_is_within_limits check (
  octet_length(holder) <= 1020
  and octet_length(profile_id) <= 1020
) not valid;
