-- The log of what integrations did.

create or replace function fleet.log_activity(
  p_integration public.device_integrations,
  p_activity jsonb,
  p_now timestamptz
)
returns bigint
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  insert into public.integration_activity_log (
    owner_id, integration_id, activity_type, status, counts, duration_ms, error, detail, origin_key, created_at
  )
  select p_integration.owner_id, p_integration.id, p_activity ->> 'activity_type', p_activity ->> 'status',
    coalesce(p_activity -> 'counts', '{}'), (p_activity ->> 'duration_ms')::numeric,
    left(fleet.without_secret(p_activity ->> 'error', s.secret), 2000), coalesce(p_activity -> 'detail', '{}'),
    p_activity ->> 'origin_key', p_now
  from (select 1) as one
  left join lateral (select fleet.stored_secret('integration:' || p_integration.id) as secret) as s on true
  on conflict (integration_id, origin_key) do nothing
  returning id
$$;

comment on function fleet.log_activity(public.device_integrations, jsonb, timestamptz) is
  'Log {activity_type, status, counts, duration_ms, error, detail, origin_key}. Answers the id of the row; null where it was there already.';
revoke all on function fleet.log_activity(public.device_integrations, jsonb, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.errors_to_log(p_errors jsonb, p_integration_id bigint)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_agg(jsonb_build_object(
    'external_id', e.item -> 'external_id', 'error', fleet.without_secret(left(e.item ->> 'error', 500), s.secret)
  ) order by e.nr), '[]')
  from jsonb_array_elements(p_errors) with ordinality as e(item, nr)
  left join lateral (select fleet.stored_secret('integration:' || p_integration_id) as secret) as s on true
  where e.nr <= 20
$$;

comment on function fleet.errors_to_log(jsonb, bigint) is 'The first twenty errors about devices, without the secret of the integration.';
revoke all on function fleet.errors_to_log(jsonb, bigint) from public, anon, authenticated, service_role;
