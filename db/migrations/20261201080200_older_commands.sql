-- Claims: the most urgent, then the oldest; of two databases that is not told by ids.
-- depends: 20261201080100_owner_moves

create index device_commands_claim_order_idx on public.device_commands (device_id, priority desc, created_at, id)
  where status = 'pending';
drop index public.device_commands_claim_idx;
