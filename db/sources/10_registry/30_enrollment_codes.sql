-- Enrolment codes: an operator makes a code, which devices trade for a secret of their own.

create or replace function public.create_enrollment_code(
  p_device_id bigint default null,
  p_max_uses integer default 1,
  p_expires_in interval default '1 day',
  p_tags text[] default '{}',
  p_group_ids bigint[] default '{}',
  p_owner_id uuid default null
)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.create_enrollment_code(p_device_id, p_max_uses, fleet.calendar_interval(p_expires_in), p_tags, p_group_ids, p_owner_id)
$$;

comment on function public.create_enrollment_code(bigint, integer, interval, text[], bigint[], uuid) is
  'Make a code that devices trade for their secret; shown this once. {id, code, expires_at, max_uses}. With p_device_id it re-keys '
  'that device. Devices get the tags, join the groups, and belong to the owner of these, or to the one that is named. Raises PT404, PT403 or enrollment_code_invalid (PT422).';
revoke all on function public.create_enrollment_code(bigint, integer, interval, text[], bigint[], uuid)
  from public, anon, authenticated, service_role;
grant execute on function public.create_enrollment_code(bigint, integer, interval, text[], bigint[], uuid)
  to authenticated, service_role;

create or replace function fleet.create_enrollment_code(
  p_device_id bigint,
  p_max_uses integer,
  p_expires_in interval,
  p_tags text[],
  p_group_ids bigint[],
  p_owner_id uuid
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid;
  v_code text := upper(substr(fleet.random_secret(), 1, 32));
  v_row public.enrollment_codes;
  v_foreign bigint;
begin
  if p_device_id is null then
    v_owner := fleet.owner_or_own(coalesce(p_owner_id, fleet.owner_of_named('{}', p_group_ids)));
  else
    select d.owner_id into v_owner from public.devices as d where d.id = p_device_id;
    if v_owner is null then
      perform fleet.raise_device_not_found(p_device_id);
    end if;
  end if;
  perform fleet.require_permission(
    v_owner, 'manage', case when p_device_id is null then format('owner %s', v_owner) else format('device %s', p_device_id) end
  );

  if (p_max_uses between 1 and 100000 and p_expires_in > interval '0') is not true then
    raise exception 'max_uses must be 1 to 100000 and expires_in positive'
      using errcode = 'PT422',
            detail = 'enrollment_code_invalid',
            hint = 'Example: select create_enrollment_code(p_max_uses => 30, p_expires_in => ''2 days'')';
  end if;

  select u.id into v_foreign
  from unnest(p_group_ids) as u(id)
  where not exists (
    select 1 from public.device_groups as g where g.id = u.id and g.owner_id = v_owner and g.selector is null
  )
  limit 1;
  if found then
    raise exception 'group_ids: group % was not found among the static groups', v_foreign
      using errcode = 'PT404',
            detail = 'group_not_found',
            hint = 'List your groups with: select * from group_list';
  end if;

  insert into public.enrollment_codes (
    owner_id, device_id, code_hash, max_uses, tags, group_ids, expires_at, created_by
  )
  values (
    v_owner, p_device_id, fleet.hash_secret(v_code), p_max_uses, coalesce(p_tags, '{}'), coalesce(p_group_ids, '{}'),
    now() + p_expires_in, fleet.current_user_id()
  )
  returning * into v_row;

  return jsonb_build_object(
    'id', v_row.id, 'code', v_code, 'expires_at', v_row.expires_at, 'max_uses', v_row.max_uses
  );
end;
$$;

comment on function fleet.create_enrollment_code(bigint, integer, interval, text[], bigint[], uuid) is
  'See public.create_enrollment_code. Definer: it checks the caller, then writes the hash of the code.';
revoke all on function fleet.create_enrollment_code(bigint, integer, interval, text[], bigint[], uuid)
  from public, anon, authenticated, service_role;
grant execute on function fleet.create_enrollment_code(bigint, integer, interval, text[], bigint[], uuid)
  to authenticated, service_role;

create or replace function public.revoke_enrollment_code(p_id bigint)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  update public.enrollment_codes as c
  set revoked_at = now()
  where c.id = p_id and c.revoked_at is null;
  if not found then
    raise exception 'enrolment code % was not found or is revoked already', p_id
      using errcode = 'PT404',
            detail = 'enrollment_code_not_found',
            hint = 'List the codes with: select id, expires_at, used_count from enrollment_codes';
  end if;
end;
$$;

comment on function public.revoke_enrollment_code(bigint) is
  'End a code before its time. Raises enrollment_code_not_found (PT404).';
revoke all on function public.revoke_enrollment_code(bigint) from public, anon, authenticated, service_role;
grant execute on function public.revoke_enrollment_code(bigint) to authenticated, service_role;

create or replace function fleet.take_enrollment_code(p_code text, p_now timestamptz)
returns public.enrollment_codes
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.enrollment_codes;
begin
  -- Counting and checking in one statement: two devices with the same code at once cannot both have its last use.
  update public.enrollment_codes as c
  set used_count = c.used_count + 1
  where c.code_hash = fleet.hash_secret(upper(btrim(p_code)))
    and c.revoked_at is null
    and c.expires_at > p_now
    and c.used_count < c.max_uses
  returning * into v_row;

  if not found then
    raise exception 'the enrolment code is unknown, used up, revoked or expired'
      using errcode = 'PT401',
            detail = 'enrollment_code_refused',
            hint = 'Ask the operator for a new code: pgfleet device enroll-code';
  end if;
  return v_row;
end;
$$;

comment on function fleet.take_enrollment_code(text, timestamptz) is
  'Use a code once. Raises enrollment_code_refused (PT401).';
revoke all on function fleet.take_enrollment_code(text, timestamptz) from public, anon, authenticated, service_role;
