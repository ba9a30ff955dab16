-- Secrets in payloads: sealed where they are written, opened for the device alone.

create or replace function fleet.is_secret_key(p_key text)
returns boolean
language sql
immutable
parallel safe
return p_key ~* '(^|[_-])pin([_-]|$)|pass(word|wd|code|phrase)|secret|token|api[_-]?key|private[_-]?key|credential' or p_key ~ '[a-z]Pin$';

comment on function fleet.is_secret_key(text) is 'Whether what stands in a payload under this key is a secret.';
revoke all on function fleet.is_secret_key(text) from public, anon, authenticated, service_role;

create or replace function fleet.may_hold_secrets(p_payload jsonb)
returns boolean
language sql
immutable
parallel safe
-- Broader than the keys are, and quick: it is asked of every command.
return p_payload <> '{}' and p_payload::text ~* 'pin|pass|secret|token|key|credential|"sealed:';

comment on function fleet.may_hold_secrets(jsonb) is 'Whether a payload is to be looked at for secrets and seals. False is certain.';
revoke all on function fleet.may_hold_secrets(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.may_hold_secrets(jsonb) to service_role;

create or replace function fleet.sealed(p_owner_id uuid, p_payload jsonb, p_expires_at timestamptz default null)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_result jsonb := p_payload;
  v_item record;
  v_id uuid;
begin
  if p_payload = '{}' then
    return p_payload;
  elsif jsonb_typeof(p_payload) = 'array' then
    return (select coalesce(jsonb_agg(fleet.sealed(p_owner_id, e.item, p_expires_at) order by e.n), '[]')
      from jsonb_array_elements(p_payload) with ordinality as e(item, n));
  elsif jsonb_typeof(p_payload) is distinct from 'object' then
    return p_payload;
  end if;

  for v_item in select e.key, e.value, jsonb_typeof(e.value) as kind from jsonb_each(p_payload) as e loop
    if v_item.kind in ('object', 'array') then
      v_result := v_result || jsonb_build_object(v_item.key, fleet.sealed(p_owner_id, v_item.value, p_expires_at));
    elsif v_item.kind in ('string', 'number') and fleet.is_secret_key(v_item.key) and v_item.value #>> '{}' not like 'sealed:%' then
      insert into fleet.payload_secrets (owner_id, value, expires_at)
      values (p_owner_id, v_item.value, p_expires_at)
      returning id into v_id;
      v_result := v_result || jsonb_build_object(v_item.key, 'sealed:' || v_id);
    end if;
  end loop;
  return v_result;
end;
$$;

comment on function fleet.sealed(uuid, jsonb, timestamptz) is
  'A payload with its secrets taken out, by their keys, and a seal in place of each. What is sealed already stays; a seal of another owner opens '
  'nothing.';
revoke all on function fleet.sealed(uuid, jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.unsealed(p_owner_id uuid, p_payload jsonb)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Nearly none has any, and this is asked for each command that is claimed.
  if strpos(p_payload::text, '"sealed:') = 0 then
    return p_payload;
  elsif jsonb_typeof(p_payload) = 'array' then
    return (select jsonb_agg(fleet.unsealed(p_owner_id, e.item) order by e.n) from jsonb_array_elements(p_payload) with ordinality as e(item, n));
  elsif jsonb_typeof(p_payload) <> 'object' then
    return p_payload;
  end if;
  return (
    select jsonb_object_agg(
      e.key,
      case
        when jsonb_typeof(e.value) in ('object', 'array') then fleet.unsealed(p_owner_id, e.value)
        else coalesce(s.value, e.value)
      end
    )
    from jsonb_each(p_payload) as e
    -- Under a key that is no secret's it stays shut: it would be shown.
    left join fleet.payload_secrets as s
      on s.id = fleet.try_uuid(substr(e.value #>> '{}', 8))
      and s.owner_id = p_owner_id
      and jsonb_typeof(e.value) = 'string'
      and left(e.value #>> '{}', 7) = 'sealed:'
      and fleet.is_secret_key(e.key)
  );
end;
$$;

comment on function fleet.unsealed(uuid, jsonb) is
  'A payload with its secrets in their places, for the device or the MDM that needs them, and for nobody else.';
revoke all on function fleet.unsealed(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.require_seals(p_owner_id uuid, p_payload jsonb)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Whoever may only send could send a seal to a device at hand, and read there what it hides.
  if strpos(p_payload::text, '"sealed:') > 0 then
    perform fleet.require_permission(p_owner_id, 'manage', format('owner %s', p_owner_id));
  end if;
end;
$$;

comment on function fleet.require_seals(uuid, jsonb) is 'Raise permission_missing (PT403) where a seal is sent by who may not manage.';
revoke all on function fleet.require_seals(uuid, jsonb) from public, anon, authenticated, service_role;
