-- The life of a device after its enrolment: check-ins, facts, re-keying and retiring.

create or replace function fleet.raise_device_not_found(p_device_id bigint)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.raise_not_found(format('device %s', p_device_id));
end;
$$;

comment on function fleet.raise_device_not_found(bigint) is 'Raise device_not_found (PT404).';
revoke all on function fleet.raise_device_not_found(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.with_facts(p_attributes jsonb, p_facts jsonb)
returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Of a stored value the size is that of its compressed form; of one that was just made it is not.
  v_room integer := fleet.limit_value('attributes') - pg_column_size(p_attributes || '{}') - 128;
begin
  -- What is known already keeps its place: a device that says too much displaces nothing, and says less.
  return case
    when pg_column_size(p_attributes || p_facts) <= fleet.limit_value('attributes') and not fleet.is_too_deep(p_facts)
      then p_attributes || p_facts
    when v_room < 512 then p_attributes
    else p_attributes || fleet.cut_json(p_facts, v_room)
  end;
end;
$$;

comment on function fleet.with_facts(jsonb, jsonb) is
  'What a device reported with what it says now; of what is too much only what fits, with "cut": true beside it.';
revoke all on function fleet.with_facts(jsonb, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.store_facts(p_device_id bigint, p_facts jsonb)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- What a device says of itself is kept apart from what others say of it. What is no known zone or no object is left out rather
  -- than refused: a check-in must not fail because of a detail.
  update public.devices as d
  set timezone = case
        when fleet.is_time_zone(p_facts ->> 'timezone') then p_facts ->> 'timezone'
        else d.timezone
      end,
      reported = fleet.with_facts(d.reported, case
          when jsonb_typeof(p_facts -> 'attributes') = 'object' then p_facts -> 'attributes' else '{}'
        end
        || jsonb_strip_nulls(jsonb_build_object(
          'platform', left(p_facts ->> 'platform', 64),
          'agent_version', case when jsonb_typeof(p_facts -> 'agent_version') = 'string' then left(p_facts ->> 'agent_version', 64) end
        )))
  where d.id = p_device_id
    and jsonb_typeof(p_facts) = 'object'
    and p_facts <> '{}';
end;
$$;

comment on function fleet.store_facts(bigint, jsonb) is
  'Keep what a device says of itself, {platform, agent_version} and its attributes, as reported, and its time zone.';
revoke all on function fleet.store_facts(bigint, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.touch_device(p_device_id bigint, p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- At most twice a minute: last_seen is for people, and each write of it is a row version.
  update public.devices as d
  set last_seen = p_now
  where d.id = p_device_id and (d.last_seen is null or d.last_seen < p_now - interval '30 seconds');
end;
$$;

comment on function fleet.touch_device(bigint, timestamptz) is 'Keep when the device was heard of last.';
revoke all on function fleet.touch_device(bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.device_checkin(p_facts jsonb, p_now timestamptz)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device_id bigint := fleet.require_device();
begin
  perform fleet.store_facts(v_device_id, p_facts);
  perform fleet.touch_device(v_device_id, p_now);
  perform fleet.count_request(v_device_id, 'checkin', p_now);
  if p_facts ->> 'sockets' ~ '^[1-9][0-9]{0,3}$' then
    perform fleet.count_request(v_device_id, 'socket', p_now, (p_facts ->> 'sockets')::integer);
  end if;
  -- It has its secret safely: its code is good for nothing from now on.
  update fleet.device_credentials as k set last_used_at = p_now where k.device_id = v_device_id and k.last_used_at is null;
  return (
    select jsonb_build_object(
      'device_id', d.id,
      'hostname', d.hostname,
      'topic', 'device:' || d.auth_id,
      'server_time', clock_timestamp(),
      'poll_seconds', fleet.setting('poll_seconds'),
      'pending', (
        select count(*)
        from (
          select
          from public.device_commands as c
          where c.device_id = d.id
            and c.status = 'pending'
            and c.channel = 'agent'
            and c.not_before <= p_now
          -- As many as one claim takes: to count all that somebody sent it would cost each check-in as much.
          limit 100
        ) as few
      )
    )
    from public.devices as d
    where d.id = v_device_id
  );
end;
$$;

comment on function fleet.device_checkin(jsonb, timestamptz) is
  'See public.device_checkin. Definer: a device may not write its row, only what this takes.';
revoke all on function fleet.device_checkin(jsonb, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.device_checkin(jsonb, timestamptz) to authenticated, service_role;

create or replace function public.device_checkin(p_facts jsonb default '{}')
returns jsonb
language sql
volatile
return fleet.device_checkin(p_facts, clock_timestamp());

comment on function public.device_checkin(jsonb) is
  'A device says that it is there, with facts {platform, timezone, agent_version, attributes, sockets}; attributes may hold health: '
  '{battery_percent, is_charging, disk_total_bytes, disk_free_bytes, os, booted_at}; sockets is how often it joined its topic since it last '
  'said so. It hears {device_id, hostname, topic, server_time, poll_seconds, pending}, where pending is how many commands it may claim, of which '
  'no more than 100 are counted. Raises not_a_device (PT403).';
revoke all on function public.device_checkin(jsonb) from public, anon, authenticated, service_role;
grant execute on function public.device_checkin(jsonb) to authenticated, service_role;

create or replace function fleet.retire_device(p_device_id bigint)
returns public.devices
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device public.devices;
begin
  select d.* into v_device
  from public.devices as d
  where d.id = p_device_id and fleet.is_visible_owner(d.owner_id)
  for update;
  if not found then
    perform fleet.raise_device_not_found(p_device_id);
  end if;
  perform fleet.require_permission(v_device.owner_id, 'manage', format('device %s', p_device_id));

  -- The trigger of the table takes the secret and the topic away and cancels what waits.
  update public.devices as d set status = 'retired' where d.id = p_device_id returning * into v_device;
  return v_device;
end;
$$;

comment on function fleet.retire_device(bigint) is 'See public.retire_device. Definer: it checks the caller.';
revoke all on function fleet.retire_device(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.retire_device(bigint) to authenticated, service_role;

create or replace function public.retire_device(p_device_id bigint)
returns public.devices
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.retire_device(p_device_id)
$$;

comment on function public.retire_device(bigint) is
  'Take a device out of service: its secret and tokens are void at once, waiting commands are cancelled, history stays. '
  'Raises device_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.retire_device(bigint) from public, anon, authenticated, service_role;
grant execute on function public.retire_device(bigint) to authenticated, service_role;

create or replace function public.rekey_device(p_device_id bigint)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.create_enrollment_code(p_device_id, 1, interval '1 day', '{}', '{}', null)
$$;

comment on function public.rekey_device(bigint) is
  'Make a code with which this very device, retired or not, enrols again; its former secret ends when the code is used. '
  '{id, code, expires_at, max_uses}. Raises device_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.rekey_device(bigint) from public, anon, authenticated, service_role;
grant execute on function public.rekey_device(bigint) to authenticated, service_role;

create or replace function fleet.device_of_caller(p_device_id bigint)
returns public.devices
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.devices;
begin
  select d.* into v_row from public.devices as d where d.id = p_device_id and fleet.is_visible_owner(d.owner_id);
  if not found then
    perform fleet.raise_device_not_found(p_device_id);
  end if;
  perform fleet.require_permission(v_row.owner_id, 'manage', format('device %s', p_device_id));
  if v_row.status = 'retired' then
    raise exception 'device "%" is retired', v_row.hostname
      using errcode = 'PT409', detail = 'device_retired', hint = 'Re-key it to bring it back: select rekey_device(<id>)';
  end if;
  return v_row;
end;
$$;

comment on function fleet.device_of_caller(bigint) is
  'The active device, if the caller manages it. Raises device_not_found (PT404), permission_missing (PT403) or device_retired (PT409).';
revoke all on function fleet.device_of_caller(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.device_by_hostname(p_hostname text, p_owner_id uuid)
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_found bigint[];
begin
  select array_agg(d.id) into v_found
  from public.devices as d
  where lower(d.hostname) = lower(p_hostname)
    and d.status = 'active'
    and (p_owner_id is null or d.owner_id = p_owner_id)
    and (fleet.is_trusted_caller() or d.owner_id in (select fleet.my_owners()));

  if v_found is null then
    raise exception 'device_hostname: device "%" was not found', p_hostname
      using errcode = 'PT404', detail = 'device_not_found', hint = 'List your devices with: select * from device_list';
  elsif cardinality(v_found) > 1 then
    raise exception 'device_hostname: "%" is the name of devices of several owners', p_hostname
      using errcode = 'PT409', detail = 'device_ambiguous', hint = 'Name device_id or owner_id as well.';
  end if;
  return v_found[1];
end;
$$;

comment on function fleet.device_by_hostname(text, uuid) is
  'The active device of that name that the caller may see. Raises device_not_found (PT404) or device_ambiguous (PT409).';
revoke all on function fleet.device_by_hostname(text, uuid) from public, anon, authenticated, service_role;

create or replace function public.tag_device(p_device_id bigint, p_add text[] default '{}', p_remove text[] default '{}')
returns public.devices
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.devices;
begin
  update public.devices as d
  set tags = array(
    select distinct t.tag
    from unnest(d.tags || p_add) as t(tag)
    where t.tag <> all (p_remove)
    order by t.tag
  )
  where d.id = p_device_id
  returning d.* into v_row;
  if not found then
    perform fleet.only_one('device', p_device_id::text, null, null);
  end if;
  return v_row;
end;
$$;

comment on function public.tag_device(bigint, text[], text[]) is
  'Add and take away tags of a device; what it has already, or has not, is no fault. Raises device_not_found (PT404), also without the '
  'permission manage.';
revoke all on function public.tag_device(bigint, text[], text[]) from public, anon, authenticated, service_role;
grant execute on function public.tag_device(bigint, text[], text[]) to authenticated, service_role;
