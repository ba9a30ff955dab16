-- What the HTTP functions did, line by line, as people follow it.

drop view if exists public.function_log_list;
create view public.function_log_list with (security_invoker = true) as
select 'activity:' || a.id as id, a.owner_id, a.created_at as at,
  case
    when a.activity_type = 'webhook_received' then 'integration-webhook'
    when i.integration_type = 'golioth' then 'auto-sync-cron'
    else 'mdm-dispatch'
  end as function,
  a.status,
  concat_ws(' ', a.activity_type, coalesce(i.name, ''), a.counts::text, a.duration_ms || ' ms', a.error) as message
from public.integration_activity_log as a
left join public.device_integrations as i on i.id = a.integration_id
union all
select 'call:' || l.id, l.owner_id, l.created_at,
  case i.integration_type when 'golioth' then 'auto-sync-cron' else 'mdm-dispatch' end,
  case when l.error is not null or l.status >= 400 then 'failed' when l.status is null then 'running' else 'completed' end,
  concat_ws(' ', l.method, l.url, l.status, l.duration_ms || ' ms', l.error)
from public.mdm_api_logs as l
left join public.device_integrations as i on i.id = l.integration_id
union all
select 'delivery:' || d.id, d.owner_id, coalesce(d.finished_at, d.created_at), 'notify-dispatch', d.status,
  concat_ws(' ', d.event, d.last_error)
from public.webhook_deliveries as d;

comment on view public.function_log_list is 'What the HTTP functions did: syncs, pushes that came, calls, deliveries.';
comment on column public.function_log_list.id is 'Which row of which log it is.';
comment on column public.function_log_list.at is 'When it happened.';
comment on column public.function_log_list.function is 'The function that did it.';
comment on column public.function_log_list.message is 'What it was, in a line.';
revoke all on table public.function_log_list from public, anon, authenticated, service_role;
grant select on table public.function_log_list to authenticated, service_role;

drop view if exists public.fleet_metrics;
create view public.fleet_metrics with (security_invoker = true) as
select m.name, m.labels, m.value, m.help from fleet.metrics(now()) as m;

comment on view public.fleet_metrics is 'The figures of the whole platform, as GET /functions/v1/metrics gives them; for the service role.';
comment on column public.fleet_metrics.name is 'As in Prometheus.';
comment on column public.fleet_metrics.labels is 'What tells figures of one name apart, such as {"status": "active"}.';
comment on column public.fleet_metrics.value is 'A gauge: seconds, bytes or a number of things.';
comment on column public.fleet_metrics.help is 'What it means.';
revoke all on table public.fleet_metrics from public, anon, authenticated, service_role;
grant select on table public.fleet_metrics to service_role;
