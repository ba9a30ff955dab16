-- What holds for each command, whoever writes it: one check in place of nine.

create or replace function fleet.is_sound_command(
  p_device_hostname text,
  p_command_type text,
  p_payload jsonb,
  p_channel text,
  p_priority smallint,
  p_max_attempts integer,
  p_status text,
  p_reason text,
  p_result jsonb,
  p_error_message text,
  p_progress jsonb,
  p_idempotency_key text,
  p_trace_id text
)
returns boolean
language plpgsql
immutable
parallel safe
-- Without settings, whose change would cost as much as all that is done here; so every name is qualified.
as $$
declare
  v_broken text := case
    when p_status not in ('pending', 'running', 'completed', 'failed', 'expired', 'cancelled') then 'status_is_known'
    when pg_catalog.pg_column_size(p_result) > 65536
      or pg_catalog.octet_length(p_reason) > 1020
      or pg_catalog.octet_length(p_error_message) > 16000
      or pg_catalog.octet_length(p_device_hostname) > 1012
      or pg_catalog.octet_length(p_command_type) > 1020
      or pg_catalog.pg_column_size(p_payload) > 65536
      or pg_catalog.octet_length(p_idempotency_key) > 1020
      then 'is_within_limits'
    when pg_catalog.jsonb_typeof(p_payload) <> 'object' then 'payload_is_an_object'
    when p_channel not in ('agent', 'mdm') then 'channel_is_known'
    when p_priority not between -100 and 100 then 'priority_is_within_bounds'
    when p_max_attempts not between 1 and 1000 then 'attempts_are_positive'
    when pg_catalog.jsonb_typeof(p_progress) <> 'object' then 'progress_is_an_object'
    when pg_catalog.pg_column_size(p_progress) > 4096 then 'progress_is_within_limits'
    when p_trace_id !~ '^[0-9a-f]{32}$' or p_trace_id = '00000000000000000000000000000000' then 'trace_id_is_one'
  end;
begin
  if v_broken is not null then
    perform fleet.raise_broken_check('device_commands', v_broken);
  end if;
  return true;
end;
$$;

comment on function fleet.is_sound_command(
  text, text, jsonb, text, smallint, integer, text, text, jsonb, text, jsonb, text, text
) is
  'The checks of device_commands in one: true, or it raises check_violation (23514) with the name of the one that is broken. Postgres reads '
  'the text of each check anew in every statement, which took a tenth of each claim.';
revoke all on function fleet.is_sound_command(
  text, text, jsonb, text, smallint, integer, text, text, jsonb, text, jsonb, text, text
) from public, anon, authenticated, service_role;
-- Postgres asks it with the rights of whoever writes.
grant execute on function fleet.is_sound_command(
  text, text, jsonb, text, smallint, integer, text, text, jsonb, text, jsonb, text, text
) to authenticated, service_role;
