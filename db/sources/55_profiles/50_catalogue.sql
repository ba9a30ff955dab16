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
