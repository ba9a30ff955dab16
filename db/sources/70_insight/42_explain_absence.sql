-- Why the ledger says nothing of an instant.

create or replace function fleet.status_at(p_schedule public.schedules, p_at timestamptz)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    (
      select a.old ->> 'status'
      from public.audit_log as a
      where a.table_name = 'schedules'
        and a.row_id = p_schedule.id::text
        and a.action = 'update'
        and a.at > p_at
        and a.old ? 'status'
      order by a.id
      limit 1
    ),
    p_schedule.status
  )
$$;

comment on function fleet.status_at(public.schedules, timestamptz) is
  'The status that a schedule had, by the audit log; its present one where it has not changed since.';
revoke all on function fleet.status_at(public.schedules, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.times_changed_after(p_schedule public.schedules, p_at timestamptz)
returns timestamptz
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select max(a.at)
  from public.audit_log as a
  where a.table_name = 'schedules'
    and a.row_id = p_schedule.id::text
    and a.action = 'update'
    and a.at > p_at
    and a.old ?| '{recurrence,recurrence_type,recurrence_config,start_time,end_time,timezone,policies,after_schedule_id}'
$$;

comment on function fleet.times_changed_after(public.schedules, timestamptz) is
  'When the times of a schedule were last changed after an instant, by the audit log; null where they were not.';
revoke all on function fleet.times_changed_after(public.schedules, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.nearest_instants(p_recurrence jsonb, p_at timestamptz, p_zones text[])
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'before', n.before, 'before_local', fleet.local_times(n.before, p_zones),
    'after', n.after, 'after_local', fleet.local_times(n.after, p_zones)
  )
  from (
    select fleet.last_occurrence(p_recurrence, p_at - interval '50 years', p_at) as before,
      fleet.next_occurrence(p_recurrence, p_at) as after
  ) as n
$$;

comment on function fleet.nearest_instants(jsonb, timestamptz, text[]) is 'The due instants on either side of one: {before, after}.';
revoke all on function fleet.nearest_instants(jsonb, timestamptz, text[]) from public, anon, authenticated, service_role;

create or replace function fleet.explain_absence(p_schedule public.schedules, p_at timestamptz, p_now timestamptz)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_zones text[] := array[fleet.reference_zone(p_schedule)];
  v_skipped record;
begin
  if p_schedule.after_schedule_id is not null then
    return fleet.explain_unfollowed(p_schedule, p_at);
  end if;
  select g.* into v_skipped from fleet.skipped_times(p_schedule.recurrence, p_at, p_at + interval '1 microsecond') as g;
  if found and fleet.next_occurrence(p_schedule.recurrence, p_at - interval '1 microsecond') is distinct from p_at then
    return fleet.answer(
      fleet.verdict_of_reason('the clocks skip this local time'), 'the clocks skip this local time',
      fleet.gap_detail(v_skipped.first_local, p_at, p_schedule.timezone)
    );
  elsif fleet.next_occurrence(p_schedule.recurrence, p_at - interval '1 microsecond') is distinct from p_at then
    return fleet.explain_not_due(p_schedule, p_at, fleet.nearest_instants(p_schedule.recurrence, p_at, v_zones));
  elsif p_at > p_now then
    return fleet.explain_future(p_schedule, p_at, v_zones);
  end if;
  return fleet.explain_past(p_schedule, p_at, p_now, v_zones);
end;
$$;

comment on function fleet.explain_absence(public.schedules, timestamptz, timestamptz) is
  'The answer for an instant that is not in the ledger.';
revoke all on function fleet.explain_absence(public.schedules, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.explain_not_due(p_schedule public.schedules, p_at timestamptz, p_nearest jsonb)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object('nearest', p_nearest) || case
    when p_schedule.start_time > p_at and p_nearest ->> 'before' is null then fleet.answer(
      'before start', 'it had not begun',
      coalesce(format('its first instant is %s', p_nearest ->> 'after_local'), 'it has no due instant at all')
    )
    when p_nearest ->> 'after' is null and p_nearest ->> 'before' is not null then fleet.answer(
      'ended', 'no due instant is left', format('its last instant was %s', p_nearest ->> 'before_local')
    )
    else fleet.answer('not due', 'not due at that instant', concat_ws(
      '; ', 'due before: ' || (p_nearest ->> 'before_local'), 'due after: ' || (p_nearest ->> 'after_local')
    ))
  end
$$;

comment on function fleet.explain_not_due(public.schedules, timestamptz, jsonb) is
  'The answer for an instant that the recurrence does not have: before the first, after the last, or between two.';
revoke all on function fleet.explain_not_due(public.schedules, timestamptz, jsonb)
  from public, anon, authenticated, service_role;

create or replace function fleet.explain_future(p_schedule public.schedules, p_at timestamptz, p_zones text[])
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_coming record;
begin
  if p_schedule.status = 'cancelled' then
    return fleet.answer('cancelled', coalesce(p_schedule.status_reason, 'the schedule was cancelled'), 'it will not run again');
  elsif p_schedule.status = 'completed' then
    return fleet.answer(
      case p_schedule.status_reason when 'max_runs reached' then 'max runs' else 'ended' end,
      coalesce(p_schedule.status_reason, 'the schedule is completed'), 'it will not run again'
    );
  end if;

  -- Where runs are limited in number, those before it count.
  select c.would, c.reason, c.starts_at, c.zones into v_coming
  from fleet.coming_runs(p_schedule, p_at, p_at + interval '1 microsecond', 1) as c;
  if not found then
    return fleet.answer('max runs', 'max_runs reached', format(
      'it may run %s times and has run %s times; the rest will be used up before', p_schedule.policies ->> 'max_runs',
      p_schedule.execution_count - p_schedule.idle_count
    ));
  elsif v_coming.would = 'skip' then
    return fleet.answer(
      fleet.verdict_of_reason(v_coming.reason), v_coming.reason,
      concat_ws('; ', 'it will be skipped unless that changes', case v_coming.reason
        when 'outside the execution window' then fleet.window_text(fleet.effective_policies(p_schedule.policies))
        else fleet.skip_detail(p_schedule, v_coming.reason, v_coming.zones, p_at, p_at)
      end)
    );
  end if;
  return fleet.answer('not yet due', 'it is in the future', format(
    'it will run on %s', fleet.local_times(v_coming.starts_at, p_zones)
  ));
end;
$$;

comment on function fleet.explain_future(public.schedules, timestamptz, text[]) is 'The answer for an instant that is yet to come.';
revoke all on function fleet.explain_future(public.schedules, timestamptz, text[])
  from public, anon, authenticated, service_role;

create or replace function fleet.explain_past(
  p_schedule public.schedules,
  p_at timestamptz,
  p_now timestamptz,
  p_zones text[]
)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_status text := fleet.status_at(p_schedule, p_at);
  v_days integer := fleet.setting_number('history_days')::integer;
  v_changed timestamptz;
begin
  if p_schedule.next_run_at <= p_at and p_schedule.status in ('active', 'paused') then
    return fleet.explain_overdue(p_schedule, p_at, p_now);
  elsif p_at < p_schedule.created_at then
    return fleet.answer('before start', 'the schedule did not exist yet', format(
      'it was created on %s', fleet.local_times(p_schedule.created_at, p_zones)
    ));
  elsif v_status = 'cancelled' then
    return fleet.answer('cancelled', coalesce(p_schedule.status_reason, 'the schedule was cancelled'), 'it was cancelled before');
  elsif p_schedule.status = 'completed' and p_at > coalesce(p_schedule.last_executed_at, '-infinity') then
    return fleet.answer(
      case p_schedule.status_reason when 'max_runs reached' then 'max runs' else 'ended' end,
      coalesce(p_schedule.status_reason, 'the schedule is completed'),
      format('it was started %s times', p_schedule.execution_count)
    );
  end if;

  v_changed := fleet.times_changed_after(p_schedule, p_at);
  if v_changed is not null then
    return fleet.answer('not due', 'its times have changed since', format(
      'they were changed on %s; by what held before, it was not due or is told under another instant',
      fleet.local_times(v_changed, p_zones)
    ));
  elsif p_at < p_now - make_interval(days => v_days) then
    return fleet.answer('unknown', 'the ledger does not go back that far', format(
      'runs are kept for %s days (setting history_days)', v_days
    ));
  end if;
  return fleet.answer('unknown', 'its row is gone from the ledger', 'somebody with the right to has deleted it');
end;
$$;

comment on function fleet.explain_past(public.schedules, timestamptz, timestamptz, text[]) is
  'The answer for a due instant that has passed and is not in the ledger.';
revoke all on function fleet.explain_past(public.schedules, timestamptz, timestamptz, text[])
  from public, anon, authenticated, service_role;

create or replace function fleet.explain_overdue(p_schedule public.schedules, p_at timestamptz, p_now timestamptz)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_decided record;
begin
  if p_schedule.status = 'paused' then
    return fleet.answer('paused', coalesce(p_schedule.status_reason, 'paused'),
      'the schedule is paused; when it goes on, the ledger tells the pause in one row');
  end if;

  select d.status, d.reason into v_decided
  from fleet.decide_due(p_schedule, p_now) as d
  where p_at between d.scheduled_for and coalesce(d.missed_to, d.scheduled_for);
  return fleet.answer('waiting', 'no tick has come by since', concat(
    'the last tick was on ', (select fleet.clock_text(h.last_tick_at, 'UTC') || ' UTC' from fleet.heartbeat as h),
    '; a tick now would ', case v_decided.status when 'skipped' then 'skip it: ' || v_decided.reason else 'run it' end
  ));
end;
$$;

comment on function fleet.explain_overdue(public.schedules, timestamptz, timestamptz) is
  'The answer for what is due but not decided: the schedule is paused, or nothing ticks.';
revoke all on function fleet.explain_overdue(public.schedules, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;
