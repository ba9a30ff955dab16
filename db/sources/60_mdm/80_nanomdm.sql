-- What NanoMDM tells on its secret address: the only way in which it says what became of a command.

create or replace function fleet.mdm_command_uuid(p_command_id bigint)
returns uuid
language sql
immutable
parallel safe
return md5('pgfleet:command:' || p_command_id)::uuid;

comment on function fleet.mdm_command_uuid(bigint) is
  'The id under which a command is on the queue of an MDM that takes ids; all attempts share it.';
revoke all on function fleet.mdm_command_uuid(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.nanomdm_report(p_body jsonb)
returns table (udid text, command_uuid uuid, status text, error text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(e.event ->> 'enrollment_id', e.event ->> 'udid'), fleet.try_uuid(e.event ->> 'command_uuid'), e.event ->> 'status',
    concat_ws(': ', 'the device answered ' || (e.event ->> 'status'), (
      -- The first error of the device's own words, a property list.
      select left(substring(
        convert_from(decode(e.event ->> 'raw_payload', 'base64'), 'UTF8')
        from '<key>(?:USEnglishDescription|LocalizedDescription)</key>\s*<string>([^<]*)</string>'
      ), 500)
      where e.event ->> 'raw_payload' ~ '^[A-Za-z0-9+/]+={0,2}$' and length(e.event ->> 'raw_payload') % 4 = 0
    ))
  from (
    select case jsonb_typeof(p_body -> 'acknowledge_event') when 'object' then p_body -> 'acknowledge_event' end as event
  ) as e
  where p_body ->> 'topic' = 'mdm.Connect'
$$;

comment on function fleet.nanomdm_report(jsonb) is
  'A device''s answer to a command, out of a webhook of NanoMDM; no row for webhooks of another kind.';
revoke all on function fleet.nanomdm_report(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.take_nanomdm_report(p_integration public.device_integrations, p_body jsonb, p_now timestamptz)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_report record;
  v_command record;
  v_outcome text;
begin
  select r.* into v_report from fleet.nanomdm_report(p_body) as r;
  -- By the device, of whose commands there are few; its answer may be here before the function has written down that it was taken.
  select c.id, c.attempt into v_command
  from public.device_links as l
  join fleet.mdm_work as w on w.device_id = l.device_id and w.integration_id = l.integration_id
  join public.device_commands as c on c.id = w.command_id and c.status = 'running'
  where l.integration_id = p_integration.id
    and l.external_id = v_report.udid
    and fleet.mdm_command_uuid(c.id) = v_report.command_uuid;
  v_outcome := case
    when v_command.id is null then null
    when v_report.status = 'Acknowledged' then 'completed'
    when v_report.status in ('Error', 'CommandFormatError') then 'failed'
  end;
  if v_outcome is null then
    -- Devices come by all the time; what is not the end of a command of ours is not worth a row.
    return jsonb_build_object('status', 'ignored', 'is_new', false);
  end if;

  perform fleet.log_activity(p_integration, jsonb_build_object(
    'activity_type', 'webhook_received', 'status', 'completed',
    'detail', jsonb_build_object('command_id', v_command.id, 'status', v_report.status)
  ), p_now);
  perform fleet.worker_finish_mdm(
    v_command.id, v_command.attempt, v_outcome,
    p_result => jsonb_build_object('state', case v_outcome when 'completed' then 'acknowledged' else 'failed' end),
    p_error => case v_outcome when 'failed' then v_report.error end,
    p_reason => case v_outcome when 'failed' then 'refused' end,
    p_now => p_now
  );
  return jsonb_build_object('status', 'completed', 'is_new', true);
end;
$$;

comment on function fleet.take_nanomdm_report(public.device_integrations, jsonb, timestamptz) is
  'End a command by what its device answered NanoMDM. "Not now" and "idle" end nothing: the device comes again. {status, is_new}.';
revoke all on function fleet.take_nanomdm_report(public.device_integrations, jsonb, timestamptz)
  from public, anon, authenticated, service_role;

insert into fleet.webhook_handlers as h (integration_type, function) values ('nanomdm', 'fleet.take_nanomdm_report')
on conflict (integration_type) do update set function = excluded.function where h.function <> excluded.function;
