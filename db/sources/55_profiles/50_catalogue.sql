-- The catalogue: which profiles an MDM has, as its last sync told.

create or replace function fleet.worker_sync_profiles(
  p_integration_id bigint,
  p_profiles jsonb,
  p_began timestamptz,
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_integration public.device_integrations;
  v_seen integer;
  v_gone integer;
  v_lost integer;
begin
  -- Its lock makes two syncs of the same integration take turns.
  select i.* into v_integration from public.device_integrations as i where i.id = p_integration_id for update;
  if not found then
    return jsonb_build_object('accepted', false, 'reason', 'not_found');
  end if;

  insert into public.profiles as p (owner_id, integration_id, external_id, name, kind, seen_at)
  select distinct on (f.external_id)
    v_integration.owner_id, v_integration.id, f.external_id, coalesce(nullif(btrim(f.name), ''), f.external_id),
    coalesce(f.kind, 'unknown'), p_now
  from jsonb_to_recordset(p_profiles) as f (external_id text, name text, kind text)
  where btrim(f.external_id) <> ''
  order by f.external_id
  -- What was uploaded from here keeps the name that people know it by.
  on conflict (integration_id, external_id) do update
    set seen_at = p_now,
        name = case when p.is_managed then p.name else excluded.name end,
        kind = case when p.is_managed then p.kind else excluded.kind end,
        updated_at = case when p.is_managed or p.name = excluded.name then p.updated_at else p_now end;
  get diagnostics v_seen = row_count;

  delete from public.profiles as p
  where p.integration_id = p_integration_id and not p.is_managed and coalesce(p.seen_at < p_began, true);
  get diagnostics v_gone = row_count;

  -- Its file is not kept, so it cannot be uploaded again by itself. What waits for an upload or a deletion gets over it there.
  update public.profiles as p
  set status = 'failed', external_id = null, content_sha256 = null, updated_at = p_now,
      error_message = 'the MDM has it no more: upload it again'
  where p.integration_id = p_integration_id
    and p.is_managed
    and p.status in ('uploaded', 'failed')
    and p.external_id is not null
    -- What was uploaded while the list was read is not missed in it.
    and p.seen_at < p_began;
  get diagnostics v_lost = row_count;
  return jsonb_build_object('accepted', true, 'seen', v_seen, 'gone', v_gone, 'lost', v_lost);
end;
$$;

comment on function fleet.worker_sync_profiles(bigint, jsonb, timestamptz, timestamptz) is
  'Take over the whole list of the profiles of an MDM, as {external_id, name, kind}, and when it was begun to be read. Those that are gone '
  'are removed; one that was uploaded from here stays, as failed. {accepted, seen, gone, lost}. Definer: the worker writes no table.';
revoke all on function fleet.worker_sync_profiles(bigint, jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.profiles_by_name(p_name text, p_device_id bigint)
returns table (profile_id text, name text, is_managed boolean, status text, error_message text, integration_id bigint, integration text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with known as (
    select p.external_id as id, p.name, p.is_managed, p.status, p.error_message, p.integration_id
    from public.profiles as p
    where lower(p.name) = lower(p_name) or p.external_id = p_name
    union
    -- Some MDMs keep no list, and their profiles are described here.
    select k.id, k.id, false, 'uploaded', null, i.id
    from public.device_integrations as i
    cross join lateral jsonb_object_keys(fleet.object_or_empty(i.settings -> 'profiles')) as k(id)
    where lower(k.id) = lower(p_name)
  ),
  linked as (
    select l.integration_id from public.device_links as l where l.device_id = p_device_id and l.left_at is null
  ),
  found as (
    select k.*, i.name as integration, bool_or(k.is_managed) over (partition by i.id) as any_managed
    from known as k
    join public.device_integrations as i on i.id = k.integration_id and i.status <> 'disabled'
    where k.integration_id in (select l.integration_id from linked as l) or not exists (select from linked)
  )
  -- In one MDM, what was uploaded from here wins over its namesakes.
  select f.id, f.name, f.is_managed, f.status, f.error_message, f.integration_id, f.integration
  from found as f
  where f.is_managed or not f.any_managed
  order by f.integration_id, f.is_managed desc, f.id
$$;

comment on function fleet.profiles_by_name(text, bigint) is
  'Profiles that a name, or an id that is no number, means in the MDMs of a device; in all of them where it is in none, or none is named.';
revoke all on function fleet.profiles_by_name(text, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.profiles_by_name(text, bigint) to authenticated, service_role;

create or replace function public.profile_id(p_name text, p_device_id bigint default null)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_found bigint;
  v_where text;
  v_row record;
begin
  if p_name ~ '^[0-9]+$' then
    return p_name;
  end if;

  select count(*), string_agg(format('%s (%s)', coalesce(f.profile_id, 'not uploaded'), f.integration), ', ')
  into v_found, v_where
  from fleet.profiles_by_name(p_name, p_device_id) as f;
  if v_found > 1 then
    raise exception 'profile "%" is ambiguous: %', left(p_name, 200), left(v_where, 1000)
      using errcode = 'PT409', detail = 'profile_ambiguous', hint = 'Name the id.';
  elsif v_found = 0 then
    raise exception 'profile "%" was not found', left(p_name, 200)
      using errcode = 'PT404', detail = 'profile_not_found', hint = 'List what the MDMs have with: select * from profile_list';
  end if;

  select f.* into v_row from fleet.profiles_by_name(p_name, p_device_id) as f;
  if v_row.profile_id is null then
    raise exception 'profile "%" is not in the MDM (%)', left(p_name, 200), concat_ws(': ', v_row.status, v_row.error_message)
      using errcode = 'PT409', detail = 'profile_not_uploaded', hint = 'Look how it is with: select * from profile_list';
  end if;
  return v_row.profile_id;
end;
$$;

comment on function public.profile_id(text, bigint) is
  'The MDM''s id of a profile: digits are that id, anything else is a name, in any case. With a device its MDM decides; without one the '
  'name must be of one profile only. Raises profile_not_found (PT404), profile_ambiguous or profile_not_uploaded (PT409).';
revoke all on function public.profile_id(text, bigint) from public, anon, authenticated, service_role;
grant execute on function public.profile_id(text, bigint) to authenticated, service_role;
