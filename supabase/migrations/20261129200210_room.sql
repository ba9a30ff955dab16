-- Generated from db/migrations/20261129200210_room.sql by pgfleet db bundle; edit that file instead.
-- Claims of the functions say for whom there is room, and take owners in turn.

-- The claims as they were: their arguments change, and the sources that follow bring them back.
do $$
declare
  v_function regprocedure;
begin
  for v_function in
    select p.oid
    from pg_proc as p
    where p.pronamespace = 'fleet'::regnamespace
      and p.proname in (
        'worker_claim_deliveries', 'worker_claim_mdm', 'worker_claim_mdm_syncs', 'worker_claim_mdm_rereads',
        'worker_claim_profile_uploads'
      )
  loop
    execute format('drop function %s', v_function);
  end loop;
end;
$$;

-- What waits for an endpoint, and for an integration, by time.
create index if not exists webhook_deliveries_endpoint_due_idx on public.webhook_deliveries (endpoint_id, next_attempt_at)
  where status in ('pending', 'running');
create index if not exists mdm_rereads_integration_due_idx on fleet.mdm_rereads (integration_id, look_at);
