-- Settings: their defaults in one place, reading and changing them.

create or replace function fleet.default_settings()
returns table (name text, value jsonb, description text)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  values
    ('default_owner', 'null'::jsonb,
      'Owner (uuid) of rows that nobody signed in makes, as in the SQL editor.'),
    ('publish_device_commands', 'true',
      'Whether device_commands is in the publication supabase_realtime, for clients that listen to postgres_changes.'),
    ('inline_expand_limit', '300',
      'How many commands a schedule that is due when it is inserted may make in the same transaction.'),
    ('expand_chunk_size', '5000',
      'How many commands a large run makes in one transaction.'),
    ('expand_chunk_size_published', '500',
      'The same while device_commands is in the publication, where one transaction is one poll of Realtime.'),
    ('doorbell_inline_limit', '100',
      'How many devices are rung in the transaction that makes their commands; more are left to the tick.'),
    ('doorbell_rate', '100',
      'How many doorbells the tick rings in a second. Hosted Realtime delivers 100 (Free) to 2500 (Pro and up).'),
    ('lease_seconds', '60',
      'How long a claimed command belongs to its device without being extended.'),
    ('poll_seconds', '300',
      'How often an agent looks by itself, told to it at each check-in.'),
    ('retry_backoff_seconds', '30',
      'Pause before the second attempt; it doubles with each failure, up to an hour.'),
    ('history_days', '30',
      'How long finished runs and commands are kept.'),
    ('audit_days', '400',
      'How long the audit log is kept.'),
    ('telemetry_days', '90',
      'How long telemetry points are kept; what is rolled up by the hour is kept four times as long, and two years at least.'),
    ('inbox_days', '3',
      'How long messages that were pushed are remembered, so that one that comes again changes nothing.'),
    ('stale_position_hours', '24',
      'After how long without a fix a device''s position is unknown; it keeps the places that it was in.'),
    ('ticker_enabled', 'true',
      'False stops the ticker at its next second, for maintenance.'),
    ('tick_step_seconds', '10',
      'How long one step of a tick may take before it is ended, and what it was about is looked at one by one.'),
    ('quota_devices', '100000',
      'How many active devices an owner may have. Of this and what follows one owner may be allowed more or less, by a quota of its own.'),
    ('quota_schedules', '10000',
      'How many schedules an owner may have that are not at their end.'),
    ('quota_commands_waiting', '200000',
      'How many commands of an owner may wait; its runs are not expanded beyond.'),
    ('quota_commands_a_minute', '200000',
      'How many commands an owner may make in a minute; its runs wait where that is used up.'),
    ('quota_mailbox_codes_a_day', '20',
      'How many codes an owner may have sent to mailboxes in a day.'),
    ('quota_telemetry_a_day', '1000000',
      'How many points of telemetry of an owner are taken in a day.'),
    ('quota_groups', '1000',
      'How many groups an owner may have.'),
    ('quota_locations', '5000',
      'How many locations an owner may have.'),
    ('quota_geo_schedules', '2000',
      'How many geo schedules an owner may have.'),
    ('quota_integrations', '50',
      'How many integrations an owner may have.'),
    ('quota_endpoints', '50',
      'How many webhooks and addresses an owner may be told at.'),
    ('quota_feeds', '200',
      'How many calendar feeds an owner may have that are not revoked.'),
    ('quota_command_types', '200',
      'How many command types of its own an owner may have.'),
    ('quota_members', '500',
      'How many members an owner may have.'),
    ('database_number', '0',
      'The number of this database among several, from which its ids follow. Set it with: pgfleet db migrate --database-number.'),
    ('functions_url', 'null',
      'Address of the HTTP functions, such as https://functions.example.com/functions/v1.'),
    ('files_s3_url', 'null',
      'Address of an S3 API that has the files of deployments, such as https://s3.eu-central-1.amazonaws.com; null for the storage of the project.'),
    ('files_s3_bucket', '"pgfleet"',
      'The bucket there.'),
    ('files_s3_region', '"us-east-1"',
      'The region that addresses there are signed for.'),
    ('files_s3_key_id', 'null',
      'Id of a key that may read there; its secret is kept as pgfleet_files_s3 in the vault or in pg_cron_secrets.'),
    ('webhook_allow_private', 'false',
      'Whether webhooks may go to http:// and to private and loopback addresses. Leave it off where others make endpoints.')
$$;

comment on function fleet.default_settings() is 'Every setting with its default value and what it means.';
revoke all on function fleet.default_settings() from public, anon, authenticated, service_role;
grant execute on function fleet.default_settings() to service_role;

create or replace function fleet.setting_defaults()
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_object_agg(d.name, d.value) from fleet.default_settings() as d
$$;

comment on function fleet.setting_defaults() is
  'The default of every setting by its name: a constant, which Postgres works out once a plan.';
revoke all on function fleet.setting_defaults() from public, anon, authenticated, service_role;

create or replace function fleet.setting(p_name text)
returns jsonb
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_value jsonb;
begin
  -- plpgsql keeps its plans: each tick and each claim reads settings.
  select s.value into v_value from fleet.settings as s where s.name = p_name;
  if not found then
    v_value := fleet.setting_defaults() -> p_name;
  end if;
  return v_value;
end;
$$;

comment on function fleet.setting(text) is
  'The value of a setting, or its default. Definer: engine functions read settings on behalf of anybody.';
revoke all on function fleet.setting(text) from public, anon, authenticated, service_role;
grant execute on function fleet.setting(text) to service_role;

create or replace function fleet.setting_number(p_name text)
returns numeric
language sql
stable
return (fleet.setting(p_name) #>> '{}')::numeric;

comment on function fleet.setting_number(text) is 'A setting that is a number.';
revoke all on function fleet.setting_number(text) from public, anon, authenticated, service_role;

create or replace function fleet.setting_problem(p_name text, p_default jsonb, p_value jsonb)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_name = 'default_owner' then
      case
        when coalesce(p_value, 'null') <> 'null' and not exists (
          select 1 from public.owners as o where o.id = fleet.try_uuid(p_value #>> '{}')
        ) then 'the id of an owner, or null'
      end
    when p_name = 'functions_url' then
      case
        when coalesce(p_value, 'null') <> 'null'
          and (jsonb_typeof(p_value) <> 'string' or p_value #>> '{}' !~ '^https?://[^[:space:]]+$')
          then 'an address that begins with http:// or https://, or null'
      end
    when p_name = 'files_s3_url' then
      case
        when coalesce(p_value, 'null') <> 'null'
          and (jsonb_typeof(p_value) <> 'string' or p_value #>> '{}' !~ '^https?://[A-Za-z0-9.:-]+(/[A-Za-z0-9._~/-]*)?$')
          then 'an address that begins with http:// or https://, or null'
      end
    when p_name like 'files\_s3\_%' then
      case
        when (p_default <> 'null' or coalesce(p_value, 'null') <> 'null')
          and (jsonb_typeof(p_value) is distinct from 'string' or p_value #>> '{}' !~ '^[A-Za-z0-9._-]{1,128}$')
          then 'a word of letters, digits, dots and dashes'
      end
    when jsonb_typeof(p_default) = 'boolean' then
      case when jsonb_typeof(p_value) is distinct from 'boolean' then 'true or false' end
    when jsonb_typeof(p_default) = 'number' then
      case
        -- Fractions make sense where something is a pace or a pause.
        when jsonb_typeof(p_value) is distinct from 'number'
          or (p_name not in ('doorbell_rate', 'retry_backoff_seconds') and (p_value #>> '{}')::numeric % 1 <> 0)
          then 'a whole number'
        when (p_value #>> '{}')::numeric not between b.least and 1000000 then format('between %s and 1000000', b.least)
      end
  end
  from (
    select case
      when p_name like 'quota\_%' or p_name = 'database_number' or p_name in ('doorbell_inline_limit', 'doorbell_rate', 'inline_expand_limit', 'retry_backoff_seconds') then 0
      else 1
    end as least
  ) as b
$$;

comment on function fleet.setting_problem(text, jsonb, jsonb) is
  'What the value of a setting must be, where it is not; null where it may be set.';
revoke all on function fleet.setting_problem(text, jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.set_setting(p_name text, p_value jsonb)
returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_default fleet.settings;
  v_problem text;
begin
  select d.name, d.value, d.description into v_default.name, v_default.value, v_default.description
  from fleet.default_settings() as d
  where d.name = p_name;

  if not found then
    raise exception 'setting "%" is not known', p_name
      using errcode = 'PT404',
            detail = 'setting_not_found',
            hint = 'List the settings with: select * from setting_list';
  end if;

  v_problem := fleet.setting_problem(p_name, v_default.value, p_value);
  if v_problem is not null then
    raise exception 'setting "%" must be %, not %', p_name, v_problem, coalesce(p_value::text, 'null')
      using errcode = 'PT422',
            detail = 'setting_invalid',
            hint = format('The default is %s.', v_default.value);
  end if;

  insert into fleet.settings as s (name, value, description, updated_at)
  values (p_name, coalesce(p_value, 'null'), v_default.description, now())
  on conflict (name) do update set value = excluded.value, updated_at = excluded.updated_at;

  if p_name = 'publish_device_commands' then
    perform fleet.sync_publication();
  end if;

  return p_value;
end;
$$;

comment on function fleet.set_setting(text, jsonb) is
  'Change a setting. Raises setting_not_found (PT404) or setting_invalid (PT422). Definer: service_role has no right to write the table.';
revoke all on function fleet.set_setting(text, jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.set_setting(text, jsonb) to service_role;

create or replace function fleet.sync_publication()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_wanted boolean := fleet.setting('publish_device_commands') = 'true'::jsonb;
  v_there boolean;
begin
  if not exists (select 1 from pg_catalog.pg_publication where pubname = 'supabase_realtime') then
    return;
  end if;

  v_there := exists (
    select 1 from pg_catalog.pg_publication_tables
    where pubname = 'supabase_realtime' and schemaname = 'public' and tablename = 'device_commands'
  );

  if v_wanted and not v_there then
    alter publication supabase_realtime add table public.device_commands;
  elsif v_there and not v_wanted then
    alter publication supabase_realtime drop table public.device_commands;
  end if;
end;
$$;

comment on function fleet.sync_publication() is
  'Put device_commands in or out of the publication supabase_realtime, as the setting publish_device_commands says.';
revoke all on function fleet.sync_publication() from public, anon, authenticated, service_role;
