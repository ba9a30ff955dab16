-- What NanoMDM tells on its secret address: the only way in which it says what became of a command.

create or replace function fleet.mdm_command_uuid(p_command_id bigint)
returns uuid
language sql
immutable
parallel safe
return md5('pgfleet:command:' || p_command_id::text)::uuid;

comment on function fleet.mdm_command_uuid(bigint) is
  'The id under which a command is on the queue of an MDM that takes ids; all attempts share it.';
revoke all on function fleet.mdm_command_uuid(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.plist_error(p_plist text)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  -- The last of a chain is the cause; those before it say what came of it.
  select nullif(left(concat_ws(' ', fleet.plain_xml_text(coalesce(k.english, k.localized)), k.code), 500), '')
  from (
    select substring(e.error from '<key>\s*USEnglishDescription\s*</key>\s*<string>([^<]*)</string>') as english,
      substring(e.error from '<key>\s*LocalizedDescription\s*</key>\s*<string>([^<]*)</string>') as localized,
      '(' || nullif(concat_ws(
        ' ',
        fleet.plain_xml_text(substring(e.error from '<key>\s*ErrorDomain\s*</key>\s*<string>([^<]*)</string>')),
        substring(e.error from '<key>\s*ErrorCode\s*</key>\s*<integer>\s*(-?\d{1,19})\s*</integer>')
      ), '') || ')' as code
    from regexp_split_to_table(p_plist, '</dict>') with ordinality as e(error, nr)
    where e.error ~ '<key>\s*(USEnglishDescription|LocalizedDescription|ErrorCode)\s*</key>'
    order by e.nr desc
    limit 1
  ) as k
$$;

comment on function fleet.plist_error(text) is
  'Why a device refused a command, out of its answer, a property list: the last cause, with its domain and code; null where it says none.';
revoke all on function fleet.plist_error(text) from public, anon, authenticated, service_role;

create or replace function fleet.nanomdm_report(p_body jsonb)
returns table (external_ids text[], command_uuid uuid, status text, error text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select array[lower(e.event ->> 'enrollment_id'), lower(e.event ->> 'udid'), lower(split_part(e.event ->> 'enrollment_id', ':', 1))],
    fleet.try_uuid(e.event ->> 'command_uuid'), e.event ->> 'status',
    concat_ws(': ', 'the device answered ' || (e.event ->> 'status'), (
      select fleet.plist_error(fleet.text_of_bytes(decode(e.event ->> 'raw_payload', 'base64')))
      where e.event ->> 'raw_payload' ~ '^[A-Za-z0-9+/]+={0,2}$' and length(e.event ->> 'raw_payload') % 4 = 0
    ))
  from (select fleet.object_or_empty(p_body -> 'acknowledge_event') as event) as e
  where p_body ->> 'topic' = 'mdm.Connect'
$$;

comment on function fleet.nanomdm_report(jsonb) is
  'A device''s answer to a command, out of a webhook of NanoMDM, with the ids that it may have; no row for webhooks of another kind.';
revoke all on function fleet.nanomdm_report(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.take_nanomdm_checkin(p_integration public.device_integrations, p_body jsonb, p_now timestamptz)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_event jsonb := fleet.object_or_empty(p_body -> 'checkin_event');
  v_topic text := p_body ->> 'topic';
  v_id text := coalesce(v_event ->> 'enrollment_id', v_event ->> 'udid');
begin
  -- The channel of a user comes and goes with the user; the device stays.
  if lower(v_event ->> 'enrollment_id') <> lower(v_event ->> 'udid') then
    return jsonb_build_object('status', 'ignored', 'is_new', false);
  end if;

  update public.device_links as l
  set left_at = case v_topic when 'mdm.CheckOut' then p_now end, updated_at = p_now
  where l.integration_id = p_integration.id
    and lower(l.external_id) = lower(v_id)
    and (l.left_at is null) = (v_topic = 'mdm.CheckOut');
  if not found then
    return jsonb_build_object('status', 'ignored', 'is_new', false);
  end if;
  perform fleet.log_activity(p_integration, jsonb_build_object(
    'activity_type', 'webhook_received', 'status', 'completed',
    'detail', jsonb_build_object('event', v_topic, 'external_id', left(v_id, 255))
  ), p_now);
  return jsonb_build_object('status', 'completed', 'is_new', true);
end;
$$;

comment on function fleet.take_nanomdm_checkin(public.device_integrations, jsonb, timestamptz) is
  'A device has left NanoMDM by checking out, or is back by enrolling again. {status, is_new}.';
revoke all on function fleet.take_nanomdm_checkin(public.device_integrations, jsonb, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.ended_before(p_integration_id bigint, p_external_ids text[], p_command_uuid uuid)
returns bigint
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select c.id
  from public.device_links as l
  join public.device_commands as c on c.device_id = l.device_id
  where l.integration_id = p_integration_id
    and lower(l.external_id) = any (p_external_ids)
    and c.channel = 'mdm'
    and c.status in ('failed', 'expired', 'cancelled')
    and fleet.mdm_command_uuid(c.id) = p_command_uuid
$$;

comment on function fleet.ended_before(bigint, text[], uuid) is
  'The command that was given up before its device answered; null where there is none.';
revoke all on function fleet.ended_before(bigint, text[], uuid) from public, anon, authenticated, service_role;

create or replace function fleet.take_nanomdm_answer(p_integration public.device_integrations, p_body jsonb, p_now timestamptz)
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
  select r.*,
    case
      when r.status = 'Acknowledged' then 'completed'
      when r.status in ('Error', 'CommandFormatError') then 'failed'
    end as outcome
  into v_report
  from fleet.nanomdm_report(p_body) as r;
  -- By the id of the command, whatever enrolment answers for the device: a user's channel, another spelling. The answer may be here
  -- before the function has written down that it was taken, or after the function has written down that nobody answered.
  select c.id, c.attempt, c.status into v_command
  from fleet.mdm_work as w
  join public.device_commands as c on c.id = w.command_id and c.status in ('pending', 'running') and c.attempt > 0
  join public.device_links as l on l.device_id = w.device_id and l.integration_id = p_integration.id
  where fleet.mdm_command_uuid(w.command_id) = v_report.command_uuid and v_report.outcome is not null;
  if v_command.id is null and v_report.outcome = 'completed' then
    -- What is final stays final; that it was done after all is told.
    v_command.id := fleet.ended_before(p_integration.id, v_report.external_ids, v_report.command_uuid);
    v_outcome := 'late';
  else
    v_outcome := v_report.outcome;
  end if;
  if v_command.id is null then
    -- Devices come by all the time; what is not the end of a command of ours is not worth a row.
    return jsonb_build_object('status', 'ignored', 'is_new', false);
  end if;

  perform fleet.log_activity(p_integration, jsonb_build_object(
    'activity_type', 'webhook_received', 'status', 'completed',
    'detail', jsonb_build_object('command_id', v_command.id, 'status', v_report.status)
      || case v_outcome when 'late' then '{"is_late": true}'::jsonb else '{}' end
  ), p_now);
  if v_outcome = 'failed' and v_command.status = 'pending' then
    perform fleet.end_mdm(array[v_command.id], 'pending', 'refused', v_report.error, p_now);
  elsif v_outcome <> 'late' then
    perform fleet.worker_finish_mdm(
      v_command.id, v_command.attempt, v_outcome,
      p_result => jsonb_build_object('state', case v_outcome when 'completed' then 'acknowledged' else 'failed' end),
      p_error => case v_outcome when 'failed' then v_report.error end,
      p_reason => case v_outcome when 'failed' then 'refused' end,
      p_now => p_now
    );
  end if;
  return jsonb_build_object('status', 'completed', 'is_new', true);
end;
$$;

comment on function fleet.take_nanomdm_answer(public.device_integrations, jsonb, timestamptz) is
  'End a command by what its device answered NanoMDM. "Not now" and "idle" end nothing: the device comes again. {status, is_new}.';
revoke all on function fleet.take_nanomdm_answer(public.device_integrations, jsonb, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.take_nanomdm_report(p_integration public.device_integrations, p_body jsonb, p_now timestamptz)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_body ->> 'topic' in ('mdm.CheckOut', 'mdm.Authenticate', 'mdm.TokenUpdate')
      then fleet.take_nanomdm_checkin(p_integration, p_body, p_now)
    else fleet.take_nanomdm_answer(p_integration, p_body, p_now)
  end
$$;

comment on function fleet.take_nanomdm_report(public.device_integrations, jsonb, timestamptz) is
  'Take a webhook of NanoMDM: the answer to a command, or that a device has left or come back. {status, is_new}.';
revoke all on function fleet.take_nanomdm_report(public.device_integrations, jsonb, timestamptz)
  from public, anon, authenticated, service_role;

insert into fleet.webhook_handlers as h (integration_type, function) values ('nanomdm', 'fleet.take_nanomdm_report')
on conflict (integration_type) do update set function = excluded.function where h.function <> excluded.function;
