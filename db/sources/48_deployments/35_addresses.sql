-- Addresses of files in a storage that speaks S3: signed here, for one object, for an hour.

create or replace function fleet.s3_address(
  p_url text, p_bucket text, p_region text, p_key_id text, p_secret text, p_path text, p_seconds integer, p_now timestamptz
)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_stamp text := to_char(p_now at time zone 'UTC', 'YYYYMMDD"T"HH24MISS"Z"');
  v_scope text := format('%s/%s/s3/aws4_request', left(v_stamp, 8), p_region);
  v_base text := rtrim(p_url, '/');
  v_host text := substring(v_base from '^https?://([^/]+)');
  v_resource text := format('%s/%s/%s', substring(v_base from '^https?://[^/]+(.*)$'), p_bucket, p_path);
  v_query text := format(
    'X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=%s&X-Amz-Date=%s&X-Amz-Expires=%s&X-Amz-SignedHeaders=host',
    replace(p_key_id || '/' || v_scope, '/', '%2F'), v_stamp, p_seconds
  );
  v_request text := concat_ws(e'\n', 'GET', v_resource, v_query, 'host:' || v_host, '', 'host', 'UNSIGNED-PAYLOAD');
  v_key bytea := convert_to('AWS4' || p_secret, 'UTF8');
  v_word text;
begin
  foreach v_word in array array[
    left(v_stamp, 8), p_region, 's3', 'aws4_request',
    concat_ws(e'\n', 'AWS4-HMAC-SHA256', v_stamp, v_scope, encode(sha256(convert_to(v_request, 'UTF8')), 'hex'))
  ] loop
    v_key := fleet.hmac_sha256(convert_to(v_word, 'UTF8'), v_key);
  end loop;
  return format(
    '%s%s?%s&X-Amz-Signature=%s', substring(v_base from '^https?://[^/]+'), v_resource, v_query, encode(v_key, 'hex')
  );
end;
$$;

comment on function fleet.s3_address(text, text, text, text, text, text, integer, timestamptz) is
  'An address from which anybody may read one object for so many seconds: the signature of AWS, version 4, in the query.';
revoke all on function fleet.s3_address(text, text, text, text, text, text, integer, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.file_addresses(p_paths text[], p_now timestamptz)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_url text := fleet.setting('files_s3_url') #>> '{}';
  v_key_id text := fleet.setting('files_s3_key_id') #>> '{}';
  v_secret text;
begin
  if v_url is null then
    return null;
  end if;
  v_secret := fleet.stored_secret('pgfleet_files_s3');
  if v_key_id is null or v_secret is null then
    raise exception 'the files are in an S3 storage, and its key is not known here'
      using errcode = 'PT500', detail = 'storage_key_missing',
        hint = 'Set files_s3_key_id, and keep the secret as pgfleet_files_s3 in the vault or in pg_cron_secrets.';
  end if;
  return (
    select jsonb_object_agg(
      u.path,
      fleet.s3_address(
        v_url, fleet.setting('files_s3_bucket') #>> '{}', fleet.setting('files_s3_region') #>> '{}', v_key_id, v_secret, u.path, 3600, p_now
      )
    )
    from unnest(p_paths) as u(path)
  );
end;
$$;

comment on function fleet.file_addresses(text[], timestamptz) is
  'Signed addresses of these objects, where the setting files_s3_url names a storage; null where the storage of the project has them. Raises '
  'storage_key_missing (PT500).';
revoke all on function fleet.file_addresses(text[], timestamptz) from public, anon, authenticated, service_role;
