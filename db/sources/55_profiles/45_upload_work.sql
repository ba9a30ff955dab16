-- Uploads as the function mdm-dispatch does them: claimed under a lease, finished, tried again by class of failure.

create or replace function fleet.is_upload_due(p_integration_id bigint, p_now timestamptz)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select 1
    from fleet.profile_uploads as u
    where u.integration_id = p_integration_id and u.next_at <= p_now and (u.held_until is null or u.held_until <= p_now)
  )
$$;

comment on function fleet.is_upload_due(bigint, timestamptz) is 'Whether a profile waits to be uploaded to an MDM, or deleted there, now.';
revoke all on function fleet.is_upload_due(bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.worker_claim_profile_uploads(p_shares jsonb default '{}', p_now timestamptz default clock_timestamp())
returns setof jsonb
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  with due as materialized (
    select i.owner_id, k.profile_id, k.next_at
    from public.device_integrations as i
    cross join lateral (
      select u.profile_id, u.next_at
      from fleet.profile_uploads as u
      where u.integration_id = i.id and u.next_at <= p_now and (u.held_until is null or u.held_until <= p_now)
      order by u.next_at
      limit greatest(
        0,
        least(
          fleet.share_of(p_shares, 'way', i.id::text), fleet.share_of(p_shares, 'owner', i.owner_id::text), fleet.share_in_all(p_shares)
        )
      )
      for update skip locked
    ) as k
    where i.status = 'active'
      and fleet.share_of(p_shares, 'owner', i.owner_id::text) > 0
      and not exists (
        select 1 from fleet.rate_limits as r where r.integration_id = i.id and r.endpoint = '' and r.blocked_until > p_now
      )
  ),
  chosen as (
    select t.profile_id
    from (
      select d.*, row_number() over (partition by d.owner_id order by d.next_at) as turn
      from due as d
    ) as t
    where t.turn <= fleet.share_of(p_shares, 'owner', t.owner_id::text)
    -- Owners in turn, and nobody is always last.
    order by t.turn, random()
    limit fleet.share_in_all(p_shares)
  ),
  taken as (
    update fleet.profile_uploads as u
    -- Longer than other leases: the list of the MDM is read first, page by page.
    set held_until = p_now + interval '3 minutes', attempt = u.attempt + 1, is_newer = false
    from chosen as c
    where u.profile_id = c.profile_id
    returning u.*
  )
  select jsonb_build_object(
    'profile_id', t.profile_id, 'attempt', t.attempt, 'action', t.action, 'name', p.name, 'external_id', p.external_id,
    'options', p.options, 'content', encode(t.content, 'base64'), 'lease_seconds', extract(epoch from t.held_until - p_now),
    'integration_id', i.id, 'owner_id', i.owner_id, 'integration_type', i.integration_type, 'settings', i.settings,
    'secret', s.secret,
    'taken', coalesce((
      select jsonb_agg(o.external_id)
      from public.profiles as o
      where o.integration_id = i.id and o.is_managed and o.id <> p.id and o.external_id is not null
    ), '[]')
  )
  from taken as t
  join public.profiles as p on p.id = t.profile_id
  join public.device_integrations as i on i.id = t.integration_id
  left join lateral (select fleet.stored_secret('integration:' || i.id) as secret) as s on true
$$;

comment on function fleet.worker_claim_profile_uploads(jsonb, timestamptz) is
  'Lease profiles that are to be uploaded or deleted: {profile_id, attempt, action, name, external_id (null for a new one), options, content '
  '(base64), taken (ids that are other profiles of ours), integration_id, owner_id, integration_type, settings, secret, lease_seconds}; owners '
  'in turn, as many of each owner and integration as p_shares allows. Definer: the worker reads no table.';
revoke all on function fleet.worker_claim_profile_uploads(jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.end_upload(p_upload fleet.profile_uploads, p_status text, p_error text, p_now timestamptz)
returns text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_upload.is_newer then
    -- What was asked for meanwhile is next, and its status stays.
    update fleet.profile_uploads as u
    set held_until = null
    where u.profile_id = p_upload.profile_id;
    return 'pending';
  end if;

  delete from fleet.profile_uploads as u where u.profile_id = p_upload.profile_id;
  if p_status = 'deleted' then
    delete from public.profiles as p where p.id = p_upload.profile_id;
  else
    update public.profiles as p
    set status = p_status, error_message = p_error, updated_at = p_now
    where p.id = p_upload.profile_id;
  end if;
  return p_status;
end;
$$;

comment on function fleet.end_upload(fleet.profile_uploads, text, text, timestamptz) is
  'Forget the file and keep how it ended, unless something newer was asked for. Answers the status.';
revoke all on function fleet.end_upload(fleet.profile_uploads, text, text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.fail_upload(
  p_upload fleet.profile_uploads,
  p_error text,
  p_reason text,
  p_retry_after interval,
  p_now timestamptz
)
returns text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_waits boolean := p_reason = 'integration_paused'
    and exists (select 1 from public.device_integrations as i where i.id = p_upload.integration_id and i.status <> 'active');
  v_next_at timestamptz := case when v_waits then p_now else p_now + fleet.mdm_pause(p_upload.tries + 1, p_retry_after) end;
begin
  if p_upload.is_newer then
    return fleet.end_upload(p_upload, 'failed', p_error, p_now);
  elsif p_reason is distinct from 'integration_paused' and not fleet.is_passing_failure(p_reason, true) then
    return fleet.end_upload(p_upload, 'failed', p_error, p_now);
  elsif v_next_at > p_upload.asked_at + interval '1 day' and not v_waits then
    -- A file that may hold passwords does not wait for ever.
    return fleet.end_upload(p_upload, 'failed', format('it was given up after a day: %s', p_error), p_now);
  end if;

  update fleet.profile_uploads as u
  set held_until = null, next_at = v_next_at, tries = u.tries + case when v_waits then 0 else 1 end
  where u.profile_id = p_upload.profile_id;
  update public.profiles as p
  set error_message = p_error, updated_at = p_now
  where p.id = p_upload.profile_id;
  return 'pending';
end;
$$;

comment on function fleet.fail_upload(fleet.profile_uploads, text, text, interval, timestamptz) is
  'An attempt failed: try again after a growing pause, wait for the integration to go on, or end, by the class of the failure.';
revoke all on function fleet.fail_upload(fleet.profile_uploads, text, text, interval, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.worker_finish_profile_upload(
  p_profile_id bigint,
  p_attempt integer,
  p_outcome text,
  p_external_id text default null,
  p_error text default null,
  p_reason text default null,
  p_retry_after interval default null,
  p_now timestamptz default clock_timestamp()
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_upload fleet.profile_uploads;
  v_error text;
begin
  -- In the order in which people and syncs lock: the integration, then the profile.
  perform 1
  from public.device_integrations as i
  where i.id = (select p.integration_id from public.profiles as p where p.id = p_profile_id)
  for update;
  perform 1 from public.profiles as p where p.id = p_profile_id for update;
  select u.* into v_upload
  from fleet.profile_uploads as u
  where u.profile_id = p_profile_id and u.attempt = p_attempt and u.held_until is not null
  for update;
  if not found then
    return jsonb_build_object('accepted', false, 'reason', 'stale_attempt');
  end if;

  if p_outcome = 'failed' then
    select left(fleet.without_secret(p_error, s.secret), 2000) into v_error
    from (values ('integration:' || v_upload.integration_id)) as n(name)
    left join lateral (select fleet.stored_secret(n.name) as secret) as s on true;
    return jsonb_build_object('accepted', true, 'status', fleet.fail_upload(v_upload, v_error, p_reason, p_retry_after, p_now));
  end if;

  if p_outcome = 'uploaded' then
    -- One that was there before, or that a sync has seen since, is this one.
    delete from public.profiles as p
    where p.integration_id = v_upload.integration_id and p.external_id = p_external_id and not p.is_managed;
  end if;
  update public.profiles as p
  set external_id = case p_outcome when 'uploaded' then p_external_id end,
      uploaded_at = case p_outcome when 'uploaded' then p_now else p.uploaded_at end,
      seen_at = case p_outcome when 'uploaded' then p_now else p.seen_at end
  where p.id = p_profile_id;
  return jsonb_build_object('accepted', true, 'status', fleet.end_upload(v_upload, p_outcome, null, p_now));
end;
$$;

comment on function fleet.worker_finish_profile_upload(bigint, integer, text, text, text, text, interval, timestamptz) is
  'How an attempt ended: uploaded (with the MDM''s id), deleted, or failed with a reason as of worker_finish_mdm. Answers {accepted, status}, '
  'or {accepted: false, reason: stale_attempt}. Definer: the worker writes no table.';
revoke all on function fleet.worker_finish_profile_upload(bigint, integer, text, text, text, text, interval, timestamptz)
  from public, anon, authenticated, service_role;
