-- Which trace a command belongs to: derived, since a column that every row fills would cost every insert.

create or replace function fleet.trace_of(p_trace_id text, p_owner_id uuid, p_run_id bigint, p_command_id bigint)
returns text
language sql
immutable
parallel safe
return coalesce(
  p_trace_id,
  -- All commands of a run have one. The owner tells databases apart that hand out the same numbers.
  left(encode(sha256(convert_to(coalesce(p_run_id::text, 'command ' || p_command_id::text) || ' of ' || p_owner_id::text, 'UTF8')), 'hex'), 32)
);

comment on function fleet.trace_of(text, uuid, bigint, bigint) is
  'The trace of a command, as 32 hex digits: the one that it was given, else the one that all commands of its run have, else its own. The first '
  '16 digits are the id of the run''s own span, which is the parent of what is done for it.';
revoke all on function fleet.trace_of(text, uuid, bigint, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.trace_of(text, uuid, bigint, bigint) to authenticated, service_role;
