-- Policies in plain English: only those that are not the usual ones.

create or replace function fleet.describe_policies(p_schedule public.schedules)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select string_agg(s.sentence, ' ' order by s.nr, s.sentence)
  from (
    select d.nr, fleet.describe_policy(p_schedule, d.key, fleet.effective_policies(p_schedule.policies)) as sentence
    from (
      values
        (1, 'execution_window'), (2, 'blackouts'), (3, 'jitter'), (4, 'overlap'), (5, 'catchup'), (6, 'expires_after'),
        (7, 'retry'), (8, 'max_runs'), (9, 'pause_on_failure'), (10, 'rollout')
    ) as d(nr, key)
    where exists (
      select 1
      from jsonb_each(p_schedule.policies) as e
      where (e.key = d.key or (d.key = 'catchup' and e.key like 'catchup\_%') or (d.key = 'overlap' and e.key = 'max_concurrent'))
        and e.value is distinct from fleet.default_policies() -> e.key
    )
    union all
    select 11, format('Its priority is %s.', p_schedule.priority)
    where p_schedule.priority <> 0
  ) as s
$$;

comment on function fleet.describe_policies(public.schedules) is
  'A sentence for each policy that differs from the default; null where none does. gap and fold are told with the recurrence.';
revoke all on function fleet.describe_policies(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.describe_policy(p_schedule public.schedules, p_key text, p_policies jsonb)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select case p_key
    when 'execution_window' then format('It runs only from %s; outside of that it %s.', fleet.window_text(p_policies), case
      when p_policies -> 'execution_window' @> '{"outside": "wait"}' or p_policies -> 'execution_window' @> '[{"outside": "wait"}]'
        then 'waits'
      else 'is skipped'
    end)
    when 'blackouts' then format('It does not run during %s.', (
      select fleet.english_list(array_agg(format('"%s"', c.name) order by c.name))
      from public.blackout_calendars as c
      where c.id = any (fleet.blackout_ids(p_policies)) and c.owner_id = p_schedule.owner_id
    ))
    when 'jitter' then format('Each device has a slot of its own within %s.', p_policies ->> 'jitter')
    when 'overlap' then case p_policies ->> 'overlap'
      when 'buffer_one' then 'A device that is still busy with a run gets the next one when it is through; one at most waits.'
      when 'allow' then format('A device may have up to %s runs of it at once.', p_policies ->> 'max_concurrent')
      when 'replace' then 'A new run cancels what a device has not finished of the one before.'
    end
    when 'catchup' then case p_policies ->> 'catchup'
      when 'none' then 'What was missed is not caught up.'
      when 'all' then format('Of what was missed, the last %s instants within %s are caught up%s.', p_policies ->> 'catchup_limit',
        p_policies ->> 'catchup_window', ', at most ' || (p_policies ->> 'catchup_rate') || ' a minute')
      else format('Of what was missed within %s, only the latest is caught up.', p_policies ->> 'catchup_window')
    end
    when 'expires_after' then format('What a device has not started within %s expires.', p_policies ->> 'expires_after')
    when 'retry' then format('What fails is tried %s times in all%s.', p_policies #>> '{retry,attempts}',
      ', first after ' || (p_policies #>> '{retry,backoff}'))
    when 'max_runs' then format('It ends after %s runs; %s were started so far.', p_policies ->> 'max_runs', p_schedule.execution_count - p_schedule.idle_count)
    when 'rollout' then format('It reaches its devices group by group: %s.', (
      select fleet.english_list(array_agg(w.name order by w.wave)) from fleet.planned_waves(p_policies -> 'rollout') as w
    ))
    when 'pause_on_failure' then format('It is paused when %s runs in a row have failed.', p_policies ->> 'pause_on_failure')
  end
$$;

comment on function fleet.describe_policy(public.schedules, text, jsonb) is 'One of the effective policies as a sentence.';
revoke all on function fleet.describe_policy(public.schedules, text, jsonb) from public, anon, authenticated, service_role;
