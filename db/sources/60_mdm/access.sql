-- The queue of the MDMs and their rates belong to the engine: nobody else reads or writes them.

revoke all on table fleet.mdm_work, fleet.rate_limits from public, anon, authenticated, service_role;

revoke all on table fleet.mdm_rereads from public, anon, authenticated, service_role;
