-- Uploading configuration profiles to an MDM, and deleting them there: people ask, the function mdm-dispatch does it.

create or replace function fleet.mdm_of_caller(p_integration_id bigint)
returns public.device_integrations
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids bigint[];
  v_choice text;
  v_row public.device_integrations;
begin
  if p_integration_id is null then
    select array_agg(i.id), string_agg(format('%s "%s"', i.id, i.name), ', ' order by i.id) into v_ids, v_choice
    from public.device_integrations as i
    where i.integration_type = any (fleet.mdm_integration_types())
      and i.status <> 'disabled'
      and fleet.is_visible_owner(i.owner_id);
    if v_ids is null then
      raise exception 'there is no MDM to upload to'
        using errcode = 'PT422', detail = 'integration_missing', hint = 'Connect one: select create_integration(''{"name": "office", "integration_type": "simplemdm"}'')';
    elsif cardinality(v_ids) > 1 then
      raise exception 'p_integration_id is missing, and there are several MDMs: %', v_choice
        using errcode = 'PT422', detail = 'integration_ambiguous', hint = 'Name one of them: p_integration_id.';
    end if;
  end if;

  v_row := fleet.integration_of_caller(coalesce(p_integration_id, v_ids[1]));
  if v_row.integration_type <> all (fleet.mdm_integration_types()) then
    raise exception 'integration % is no MDM but of type %', v_row.id, v_row.integration_type
      using errcode = 'PT422', detail = 'integration_not_mdm', hint = 'List integrations with: select * from integration_list';
  elsif v_row.status = 'disabled' then
    raise exception 'integration % is disabled', v_row.id
      using errcode = 'PT409',
            detail = 'integration_disabled',
            hint = format('Resume it: select resume_integration(%s)', v_row.id);
  end if;
  return v_row;
end;
$$;

comment on function fleet.mdm_of_caller(bigint) is
  'The MDM that was named, or the only one there is, locked, if the caller manages it. Raises integration_not_found (PT404), '
  'permission_missing (PT403), integration_missing, integration_ambiguous or integration_not_mdm (PT422), or integration_disabled (PT409).';
revoke all on function fleet.mdm_of_caller(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.is_signed_file(p_content bytea)
returns boolean
language sql
immutable
parallel safe
-- A sequence in DER that begins with the name of "signed data".
return coalesce(
  substring(p_content for 1) = '\x30'::bytea and position('\x06092a864886f70d010702'::bytea in substring(p_content for 32)) > 0, false
);

comment on function fleet.is_signed_file(bytea) is 'Whether a file is signed data (DER).';
revoke all on function fleet.is_signed_file(bytea) from public, anon, authenticated, service_role;

create or replace function fleet.is_detached_signature(p_content bytea)
returns boolean
language sql
immutable
parallel safe
-- What is signed follows the name of "data", marked as the first thing there; without the mark it is somewhere else.
return coalesce(
  fleet.is_signed_file(p_content)
    and position('\x06092a864886f70d010701'::bytea in substring(p_content for 200)) > 0
    and substring(p_content from position('\x06092a864886f70d010701'::bytea in substring(p_content for 200)) + 11 for 1) <> '\xa0'::bytea,
  false
);

comment on function fleet.is_detached_signature(bytea) is 'Whether a file is a signature alone, without what it signs.';
revoke all on function fleet.is_detached_signature(bytea) from public, anon, authenticated, service_role;

create or replace function fleet.is_profile_file(p_content bytea)
returns boolean
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case
    when substring(p_content for 8) = 'bplist00' then true
    when fleet.is_signed_file(p_content) then not fleet.is_detached_signature(p_content)
    when substring(p_content for 1) = '\x30' then false
    -- UTF-16, with or without its mark: every other byte of the words is zero.
    when substring(p_content for 4) in ('\xfffe3c00', '\xfeff003c', '\x3c003f00', '\x003c003f')
      then position('\x3c0070006c0069007300'::bytea in p_content) > 0
    -- XML, perhaps after a byte order mark and blanks.
    else substring(btrim(p_content, '\xefbbbf20090d0a') for 1) = '<' and position('<plist'::bytea in p_content) > 0
  end
$$;

comment on function fleet.is_profile_file(bytea) is
  'Whether a file looks like a configuration profile: a property list in XML (UTF-8 or UTF-16) or binary, or one that is signed (DER).';
revoke all on function fleet.is_profile_file(bytea) from public, anon, authenticated, service_role;

create or replace function fleet.payload_identifier(p_content bytea)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  -- Its payloads have identifiers too, but they are inside of PayloadContent.
  select nullif(left(fleet.plain_xml_text(coalesce(
    substring(o.outer_text from k.key || '<string>([^<]*)</string>'), substring(t.whole from k.key || '<string>([^<]*)</string>')
  )), 255), '')
  from (
    select fleet.text_of_bytes(p_content) as whole
    where substring(p_content for 8) <> 'bplist00' and octet_length(p_content) <= 1048576
  ) as t
  cross join lateral (
    select regexp_replace(t.whole, '<key>\s*PayloadContent\s*</key>\s*<array>.*</array>', '') as outer_text
  ) as o
  cross join (values ('<key>\s*PayloadIdentifier\s*</key>\s*')) as k(key)
$$;

comment on function fleet.payload_identifier(bytea) is
  'The PayloadIdentifier of a configuration profile in XML, signed or not; null where it cannot be read.';
revoke all on function fleet.payload_identifier(bytea) from public, anon, authenticated, service_role;

create or replace function fleet.profile_problems(p_name text, p_content bytea, p_options jsonb)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select 'p_name', 'must not be blank', 'Give the profile a name.'
  where btrim(coalesce(p_name, '')) = ''
  union all
  select * from fleet.limit_problem('p_name', 'name', length(p_name))
  union all
  select 'p_mobileconfig', c.problem, c.hint
  from (
    select
      case
        when coalesce(octet_length(p_content), 0) = 0 then 'is empty'
        when fleet.is_detached_signature(p_content) then 'is a signature without the profile that it signs'
        when octet_length(p_content) <= fleet.limit_value('profile_content') and not fleet.is_profile_file(p_content)
          then 'is no configuration profile: neither a property list nor a signed one'
      end as problem,
      'Upload a .mobileconfig file as it is.' as hint
  ) as c
  where c.problem is not null
  union all
  select * from fleet.limit_problem('p_mobileconfig', 'profile_content', octet_length(p_content))
  union all
  select 'p_options', 'must be an object', 'Example: {"user_scope": false}'
  where jsonb_typeof(coalesce(p_options, 'null')) <> 'object'
  union all
  select 'p_options.' || e.key,
    case when e.key = any (k.names) then 'must be true or false' else 'is not known' end,
    'Known are user_scope, attribute_support, escape_attributes, reinstall_after_os_update and declarative.'
  from (values ('{user_scope,attribute_support,escape_attributes,reinstall_after_os_update,declarative}'::text[])) as k(names)
  cross join lateral jsonb_each(case jsonb_typeof(p_options) when 'object' then p_options else '{}' end) as e
  where e.key <> all (k.names) or jsonb_typeof(e.value) <> 'boolean'
$$;

comment on function fleet.profile_problems(text, bytea, jsonb) is
  'Everything that is wrong with a profile that is to be uploaded; no row where nothing is. None of it quotes the file.';
revoke all on function fleet.profile_problems(text, bytea, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.upload_profile(
  p_name text,
  p_mobileconfig bytea,
  p_integration_id bigint,
  p_options jsonb,
  p_now timestamptz
)
returns public.profiles
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_integration public.device_integrations := fleet.mdm_of_caller(p_integration_id);
  v_name text := btrim(p_name);
  v_sha256 text := encode(sha256(p_mobileconfig), 'hex');
  v_row public.profiles;
begin
  perform fleet.raise_problems('the profile', 'profile_invalid', array_agg(q))
  from fleet.profile_problems(v_name, p_mobileconfig, p_options) as q;

  select p.* into v_row
  from public.profiles as p
  where p.integration_id = v_integration.id and p.is_managed and lower(p.name) = lower(v_name)
  for update;
  if v_row.status in ('pending', 'uploaded')
    and (v_row.name, v_row.content_sha256, v_row.options) = (v_name, v_sha256, v_row.options || p_options)
  then
    return v_row;
  end if;

  insert into public.profiles as p (
    owner_id, integration_id, name, is_managed, status, content_sha256, payload_identifier, options, created_by, created_at, updated_at
  )
  values (
    v_integration.owner_id, v_integration.id, v_name, true, 'pending', v_sha256, fleet.payload_identifier(p_mobileconfig), p_options,
    fleet.current_user_id(), p_now, p_now
  )
  on conflict (integration_id, lower(name)) where is_managed do update
    set name = excluded.name, status = 'pending', content_sha256 = excluded.content_sha256, payload_identifier = excluded.payload_identifier,
        options = p.options || excluded.options, error_message = null, updated_at = p_now
  returning * into v_row;
  perform fleet.request_upload(v_row, 'upload', p_mobileconfig, p_now);
  return v_row;
end;
$$;

comment on function fleet.upload_profile(text, bytea, bigint, jsonb, timestamptz) is
  'See public.upload_profile. Definer: it checks the caller.';
revoke all on function fleet.upload_profile(text, bytea, bigint, jsonb, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.upload_profile(text, bytea, bigint, jsonb, timestamptz) to authenticated, service_role;

create or replace function public.upload_profile(
  p_name text,
  p_mobileconfig bytea,
  p_integration_id bigint default null,
  p_options jsonb default '{}'
)
returns public.profiles
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.upload_profile(p_name, p_mobileconfig, p_integration_id, coalesce(p_options, '{}'), clock_timestamp())
$$;

comment on function public.upload_profile(text, bytea, bigint, jsonb) is
  'Upload a .mobileconfig to an MDM, to the only one where none is named. The same name again replaces the file, also on the devices that '
  'have it; the same file again does nothing. Its status tells when the MDM has it. Options: user_scope, attribute_support, '
  'escape_attributes, reinstall_after_os_update, declarative. Raises profile_invalid, integration_missing, integration_ambiguous or '
  'integration_not_mdm (PT422), integration_not_found (PT404), permission_missing (PT403) or integration_disabled (PT409).';
revoke all on function public.upload_profile(text, bytea, bigint, jsonb) from public, anon, authenticated, service_role;
grant execute on function public.upload_profile(text, bytea, bigint, jsonb) to authenticated, service_role;

create or replace function fleet.request_upload(p_profile public.profiles, p_action text, p_content bytea, p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A lease that runs goes on: two at once could make two of it. What is new waits for its end.
  insert into fleet.profile_uploads as u (profile_id, owner_id, integration_id, action, content, asked_at, next_at)
  values (p_profile.id, p_profile.owner_id, p_profile.integration_id, p_action, p_content, p_now, p_now)
  on conflict (profile_id) do update
    set action = excluded.action, content = excluded.content, asked_at = p_now, next_at = p_now, tries = 0, is_newer = true;
  perform fleet.poke('mdm-dispatch', jsonb_build_object('at', p_now), p_now);
end;
$$;

comment on function fleet.request_upload(public.profiles, text, bytea, timestamptz) is
  'Let a profile be uploaded or deleted; what was asked for it before and not yet done is forgotten.';
revoke all on function fleet.request_upload(public.profiles, text, bytea, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.delete_profile(p_profile_id bigint, p_now timestamptz)
returns public.profiles
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.profiles;
begin
  select p.* into v_row from public.profiles as p where p.id = p_profile_id and fleet.is_visible_owner(p.owner_id) for update;
  if not found then
    perform fleet.raise_not_found(format('profile %s', p_profile_id));
  end if;
  perform fleet.require_permission(v_row.owner_id, 'manage', format('profile %s', p_profile_id));
  if not v_row.is_managed then
    raise exception 'profile "%" was not uploaded from here', v_row.name
      using errcode = 'PT409', detail = 'profile_not_managed', hint = 'Delete it in the MDM itself; the next sync notices.';
  end if;

  update public.profiles as p
  set status = 'deleting', error_message = null, updated_at = p_now
  where p.id = p_profile_id
  returning * into v_row;
  if v_row.external_id is not null
    or exists (select 1 from fleet.profile_uploads as u where u.profile_id = p_profile_id and u.held_until > p_now)
  then
    perform fleet.request_upload(v_row, 'delete', null, p_now);
  else
    -- The MDM was never told of it, as far as anybody knows.
    delete from public.profiles as p where p.id = p_profile_id;
  end if;
  return v_row;
end;
$$;

comment on function fleet.delete_profile(bigint, timestamptz) is 'See public.delete_profile. Definer: it checks the caller.';
revoke all on function fleet.delete_profile(bigint, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.delete_profile(bigint, timestamptz) to authenticated, service_role;

create or replace function public.delete_profile(p_profile_id bigint)
returns public.profiles
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.delete_profile(p_profile_id, clock_timestamp())
$$;

comment on function public.delete_profile(bigint) is
  'Delete a profile that was uploaded from here (profiles.id) in its MDM, and so from all devices that have it; its row goes when that is '
  'done. Raises profile_not_found (PT404), permission_missing (PT403) or profile_not_managed (PT409).';
revoke all on function public.delete_profile(bigint) from public, anon, authenticated, service_role;
grant execute on function public.delete_profile(bigint) to authenticated, service_role;
