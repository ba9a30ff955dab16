-- Why an instant was skipped: what the ledger says, and what can be said beyond it.

create or replace function fleet.verdict_of_reason(p_reason text)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_reason in ('no targets', 'overlap', 'paused', 'blackout', 'error') then p_reason
    when p_reason in (
      'outside the catch-up window', 'catch-up is off', 'superseded by a later instant', 'beyond the catch-up limit'
    ) then 'missed'
    when p_reason = 'outside the execution window' then 'outside window'
    when p_reason = 'max_runs reached' then 'max runs'
    when p_reason in ('the schedule has ended', 'completed') then 'ended'
    when p_reason = 'the schedule has not begun' then 'before start'
    when p_reason = 'the times were changed' then 'not due'
    when p_reason in ('cancelled', 'the schedule was cancelled') then 'cancelled'
    else 'skipped'
  end
$$;

comment on function fleet.verdict_of_reason(text) is
  'The verdict for a reason of the ledger; "skipped" for one that somebody wrote by hand.';
revoke all on function fleet.verdict_of_reason(text) from public, anon, authenticated, service_role;

create or replace function fleet.gap_detail(p_local timestamp, p_skipped_at timestamptz, p_timezone text)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select format('no clock showed %s: they went on to %s at once, and gap: skip leaves it out', fleet.wall_text(p_local),
    fleet.clock_text(p_skipped_at, fleet.zone_clock(p_timezone)))
$$;

comment on function fleet.gap_detail(timestamp, timestamptz, text) is
  'Why a local time that the clocks skip did not come, and when they did.';
revoke all on function fleet.gap_detail(timestamp, timestamptz, text) from public, anon, authenticated, service_role;

create or replace function fleet.explain_skip(p_schedule public.schedules, p_run public.schedule_runs, p_at timestamptz)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_policies jsonb := fleet.effective_policies(p_schedule.policies);
  v_zones text[] := array[fleet.reference_zone(p_schedule)];
  -- A range has one reason for all of it; its older part was too old besides.
  v_reason text := case
    when p_run.reason in ('superseded by a later instant', 'beyond the catch-up limit')
      and p_at < p_run.finished_at - (v_policies ->> 'catchup_window')::interval
      then 'outside the catch-up window'
    else p_run.reason
  end;
begin
  return fleet.answer(fleet.verdict_of_reason(v_reason), v_reason, concat_ws('; ',
    case v_reason
      when 'no targets' then format('no active device matched when it was due; now %s do', fleet.devices_of_zones(
        fleet.device_counts(p_schedule), p_run.zones
      ))
      when 'overlap' then fleet.overlap_detail(p_run)
      when 'blackout' then fleet.skip_detail(p_schedule, 'blackout', p_run.zones, p_run.scheduled_for, p_run.finished_at)
      when 'outside the execution window' then fleet.window_text(v_policies)
      when 'paused' then case when p_schedule.status = 'paused' then p_schedule.status_reason end
      when 'max_runs reached' then format('it may run %s times', v_policies ->> 'max_runs')
      when 'outside the catch-up window' then
        format('no tick came by in time, and only the last %s are caught up (catchup_window)', v_policies ->> 'catchup_window')
      when 'catch-up is off' then 'no tick came by in time, and nothing is caught up (catchup: none)'
      when 'superseded by a later instant' then 'no tick came by in time, and of what was missed only the latest runs (catchup: latest)'
      when 'beyond the catch-up limit' then
        format('no tick came by in time, and only the latest %s are caught up (catchup_limit)', v_policies ->> 'catchup_limit')
      when 'the clocks skip this local time' then fleet.gap_detail(p_run.scheduled_local, p_run.scheduled_for, v_zones[1])
      when 'the times were changed' then 'somebody changed the times before a tick came by'
    end,
    case
      when p_run.missed_count > 1 then format(
        'one of %s instants from %s to %s', p_run.missed_count,
        coalesce(fleet.wall_text(p_run.scheduled_local), fleet.local_times(p_run.missed_from, v_zones)),
        coalesce(fleet.wall_text(p_run.missed_to_local), fleet.local_times(p_run.missed_to, v_zones))
      )
    end
  ));
end;
$$;

comment on function fleet.explain_skip(public.schedules, public.schedule_runs, timestamptz) is
  'The answer for an instant that the ledger has as skipped, by itself or in a range.';
revoke all on function fleet.explain_skip(public.schedules, public.schedule_runs, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.busy_command(p_run public.schedule_runs, p_device_id bigint)
returns public.device_commands
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select c.*
  from public.device_commands as c
  join public.schedule_runs as o on o.id = c.run_id
  cross join (select coalesce(p_run.expanded_at, p_run.started_at, p_run.scheduled_for) as at) as m
  where c.schedule_id = p_run.schedule_id
    and (p_device_id is null or c.device_id = p_device_id)
    and c.run_id <> p_run.id
    and o.started_at <= m.at
    -- What nobody has taken keeps nobody busy once it may no longer be started.
    and case
      when c.claimed_at is null and c.status in ('pending', 'expired') then c.expires_at > m.at
      else c.executed_at is null or c.executed_at >= m.at
    end
  order by c.run_id desc
  limit 1
$$;

comment on function fleet.busy_command(public.schedule_runs, bigint) is
  'A command of another run of the same schedule that was not final when this run made its own; of one device, or of any.';
revoke all on function fleet.busy_command(public.schedule_runs, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.overlap_detail(p_run public.schedule_runs)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select 'every device was still busy with another run'
    || coalesce(format(', such as "%s" with run %s', (c.command).device_hostname, (c.command).run_id), '')
  from (select fleet.busy_command(p_run, null) as command) as c
$$;

comment on function fleet.overlap_detail(public.schedule_runs) is 'What kept the devices of a run that was skipped because of overlap.';
revoke all on function fleet.overlap_detail(public.schedule_runs) from public, anon, authenticated, service_role;

create or replace function fleet.window_text(p_policies jsonb)
returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select string_agg(concat(
    w.item ->> 'from', ' to ', w.item ->> 'to',
    ' on ' || fleet.english_weekdays(array(
      select e::integer + 1
      from jsonb_array_elements_text(
        case jsonb_typeof(w.item -> 'days_of_week') when 'array' then w.item -> 'days_of_week' end
      ) as e
      order by 1
    )),
    case w.item ->> 'in' when 'device' then ' in device time' end
  ), ' or ' order by w.nr)
  from jsonb_array_elements(fleet.window_list(p_policies)) with ordinality as w(item, nr)
$$;

comment on function fleet.window_text(jsonb) is 'The execution windows of effective policies in words; null where there is none.';
revoke all on function fleet.window_text(jsonb) from public, anon, authenticated, service_role;
