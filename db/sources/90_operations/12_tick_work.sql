-- What a ticker is about to touch, and what becomes of that which stopped it.

create or replace function fleet.begin_work(p_step text, p_schedule_ids bigint[], p_is_alone boolean, p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into fleet.tick_work as w (step, schedule_ids, is_alone, begun_at)
  values (p_step, p_schedule_ids, p_is_alone, p_now)
  on conflict (step) do update
    set schedule_ids = excluded.schedule_ids,
        is_alone = excluded.is_alone,
        begun_at = excluded.begun_at,
        suspects = case
          when excluded.is_alone then array(select u.id from unnest(w.suspects) as u(id) where u.id <> all (excluded.schedule_ids))
          else w.suspects
        end;
end;
$$;

comment on function fleet.begin_work(text, bigint[], boolean, timestamptz) is
  'Write down what a step of the tick is about to decide, before that is committed and begun.';
revoke all on function fleet.begin_work(text, bigint[], boolean, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.end_work(p_step text)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  update fleet.tick_work as w
  set schedule_ids = '{}', is_alone = false, begun_at = null, stops = 0, rests_until = null
  where w.step = p_step and (w.begun_at is not null or w.stops > 0);
end;
$$;

comment on function fleet.end_work(text) is 'A step of the tick has done what it had begun.';
revoke all on function fleet.end_work(text) from public, anon, authenticated, service_role;

create or replace function fleet.note_stop(p_step text, p_now timestamptz)
returns text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_work fleet.tick_work;
  v_culprit bigint;
  v_told text;
begin
  update fleet.tick_work as w
  set begun_at = null, schedule_ids = '{}', is_alone = false,
      stops = w.stops + 1,
      suspects = case
        when o.is_alone then w.suspects
        else array(select distinct u.id from unnest(w.suspects || o.schedule_ids) as u(id) order by u.id)
      end,
      -- What no schedule can be blamed for rests, the longer the more often it stops the tick; the other steps go on.
      rests_until = case when o.schedule_ids = '{}' then p_now + least(2 ^ w.stops, 60) * interval '1 second' end
  from fleet.tick_work as o
  where w.step = p_step and o.step = w.step
  returning o.step, o.schedule_ids, o.is_alone into v_work.step, v_work.schedule_ids, v_work.is_alone;
  if not found then
    return null;
  end if;

  v_culprit := case when v_work.is_alone then v_work.schedule_ids[1] end;
  v_told := case
    when v_culprit is not null then format('schedule %s stopped the tick twice and was paused', v_culprit)
    else format('the tick stopped in the middle of %s schedules', cardinality(v_work.schedule_ids))
  end;
  update fleet.heartbeat as h
  set last_stop = jsonb_strip_nulls(jsonb_build_object(
        'step', p_step, 'at', p_now, 'schedule_ids', to_jsonb(v_work.schedule_ids[:20]), 'schedule_id', v_culprit,
        'owner_id', (select s.owner_id from public.schedules as s where s.id = v_culprit)
      )),
      last_error = format('%s: %s', p_step, v_told),
      last_error_at = p_now;
  if v_culprit is not null then
    perform fleet.pause_culprit(p_step, v_culprit, p_now);
  end if;
  return v_told;
end;
$$;

comment on function fleet.note_stop(text, timestamptz) is
  'A tick ended in the middle of a step. Of a batch each schedule is suspected, and taken by itself from now on; one that was taken by itself '
  'is the culprit, and paused. The heartbeat names step, schedules and owner. Answers what it tells.';
revoke all on function fleet.note_stop(text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.pause_culprit(p_step text, p_schedule_id bigint, p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_reason text := format('it stopped the scheduler twice (step %s); change it before you resume it', p_step);
begin
  update public.schedules as s
  set status = 'paused', status_reason = v_reason
  where s.id = p_schedule_id and s.status = 'active';

  with ended as (
    update public.schedule_runs as r
    set status = 'failed', reason = 'error', error_message = v_reason, expanded_at = p_now, finished_at = p_now
    where r.schedule_id = p_schedule_id and r.expanded_at is null and r.status in ('pending', 'running') and p_step = 'expand'
    returning r.id
  )
  insert into fleet.run_progress (run_id, completed, failed)
  select e.id, 0, 0 from ended as e;
end;
$$;

comment on function fleet.pause_culprit(text, bigint, timestamptz) is
  'Pause the schedule that stopped the tick, with the reason, which its owner is told like that of any pause; fail the runs that cannot be expanded.';
revoke all on function fleet.pause_culprit(text, bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.step_items(p_step text, p_now timestamptz)
returns bigint[]
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_items bigint[];
begin
  execute (
    select format('select fleet.%I($1)', s.items) from fleet.tick_steps() as s where s.name = p_step
  ) into v_items using p_now;
  return v_items;
end;
$$;

comment on function fleet.step_items(text, timestamptz) is 'The schedules that a step of the tick decides about next.';
revoke all on function fleet.step_items(text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.added_steps(p_before jsonb, p_after jsonb)
returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  select p_after || jsonb_build_object(
    'ms', (p_before ->> 'ms')::numeric + (p_after ->> 'ms')::numeric,
    'error', coalesce(p_before ->> 'error', p_after ->> 'error'),
    'figures', (
      select coalesce(jsonb_object_agg(
        f.key,
        case
          when jsonb_typeof(f.value) = 'number' and jsonb_typeof(p_before #> array['figures', f.key]) = 'number'
            then to_jsonb((p_before #>> array['figures', f.key])::numeric + (f.value #>> '{}')::numeric)
          else f.value
        end
      ), '{}')
      from jsonb_each(p_after -> 'figures') as f
    )
  )
$$;

comment on function fleet.added_steps(jsonb, jsonb) is
  'What a step did in two goes, as one: durations and numbers are added, the first error stays.';
revoke all on function fleet.added_steps(jsonb, jsonb) from public, anon, authenticated, service_role;

-- A procedure that commits can have no SET clause, so every name in it is qualified.
create or replace procedure fleet.take_step(p_step text, p_is_careful boolean, p_now timestamptz, inout p_done jsonb)
language plpgsql
as $$
declare
  v_begun timestamptz := pg_catalog.clock_timestamp();
  v_work fleet.tick_work;
  v_has_items boolean := (select s.items is not null from fleet.tick_steps() as s where s.name = p_step);
  v_ids bigint[];
begin
  p_done := pg_catalog.jsonb_build_object('name', p_step, 'ms', 0, 'error', null, 'figures', '{}'::pg_catalog.jsonb);
  select w.* into v_work from fleet.tick_work as w where w.step = p_step;
  if v_work.begun_at is not null then
    -- The ticker before this one ended here, killed or out of time.
    perform fleet.note_stop(p_step, p_now);
    commit;
    select w.* into v_work from fleet.tick_work as w where w.step = p_step;
  end if;
  if v_work.rests_until > p_now or not fleet.may_tick() then
    commit;
    return;
  end if;

  if not v_has_items then
    if p_is_careful then
      perform fleet.begin_work(p_step, '{}', false, p_now);
      commit;
    end if;
    p_done := fleet.attempt_step(p_step, null, p_now);
    if (p_done ->> 'stopped')::pg_catalog.bool then
      perform fleet.begin_work(p_step, '{}', false, p_now);
      p_done := p_done || pg_catalog.jsonb_build_object('error', fleet.note_stop(p_step, p_now));
    elsif p_is_careful or v_work.stops > 0 then
      perform fleet.end_work(p_step);
    end if;
    commit;
    return;
  end if;

  loop
    v_ids := fleet.step_items(p_step, p_now);
    exit when v_ids = '{}';
    -- Committed before it is begun: whatever happens, the next ticker knows what happened to whom.
    perform fleet.begin_work(p_step, v_ids, false, p_now);
    commit;
    p_done := fleet.added_steps(p_done, fleet.attempt_step(p_step, v_ids, p_now));
    if (p_done ->> 'stopped')::pg_catalog.bool then
      p_done := p_done || pg_catalog.jsonb_build_object('error', fleet.note_stop(p_step, p_now));
    else
      perform fleet.end_work(p_step);
    end if;
    commit;
    exit when not coalesce((p_done #>> '{figures,more}')::pg_catalog.bool, false)
      or pg_catalog.clock_timestamp() > v_begun + interval '300 milliseconds';
  end loop;
end;
$$;

comment on procedure fleet.take_step(text, boolean, timestamptz, jsonb) is
  'Take one step of a tick in transactions of its own. What it decides about is committed before, so that it is known what stopped a ticker. '
  'p_is_careful writes down the steps without schedules as well: the ticker before was killed.';
revoke all on procedure fleet.take_step(text, boolean, timestamptz, jsonb) from public, anon, authenticated, service_role;

create or replace procedure fleet.take_suspects(p_step text, p_until timestamptz, p_now timestamptz, inout p_done jsonb)
language plpgsql
as $$
declare
  v_ids bigint[];
  v_made integer := 0;
  v_rest jsonb;
begin
  for v_ids in select array[u.id] from fleet.tick_work as w cross join lateral unnest(w.suspects) as u(id) where w.step = p_step loop
    exit when not fleet.may_tick() or v_made > 0 and pg_catalog.clock_timestamp() > p_until;
    v_made := v_made + 1;
    perform fleet.begin_work(p_step, v_ids, true, p_now);
    commit;
    p_done := fleet.added_steps(p_done, fleet.attempt_step(p_step, v_ids, p_now));
    if (p_done ->> 'stopped')::pg_catalog.bool then
      p_done := p_done || pg_catalog.jsonb_build_object('error', fleet.note_stop(p_step, p_now));
    else
      perform fleet.end_work(p_step);
    end if;
    commit;
    if p_step = 'start' then
      -- What was innocent goes out before the next one is tried, which may be the one that stops all.
      call fleet.take_step('expand', false, p_now, v_rest);
    end if;
  end loop;
  commit;
end;
$$;

comment on procedure fleet.take_suspects(text, timestamptz, timestamptz, jsonb) is
  'Take each schedule that may have stopped a step of a ticker by itself, after everything else: one, and more of them up to p_until. The one '
  'that stops another ticker is paused. What comes of it is added to p_done.';
revoke all on procedure fleet.take_suspects(text, timestamptz, timestamptz, jsonb) from public, anon, authenticated, service_role;

create or replace procedure fleet.take_tick(p_now timestamptz, p_is_careful boolean, inout p_told jsonb)
language plpgsql
as $$
declare
  v_started timestamptz := pg_catalog.clock_timestamp();
  v_steps text[] := array(select s.name from fleet.tick_steps() as s);
  v_step text;
  v_one jsonb;
  v_done jsonb[] := '{}';
begin
  foreach v_step in array v_steps loop
    call fleet.take_step(v_step, p_is_careful, p_now, v_one);
    v_done := v_done || v_one;
  end loop;
  for v_n in 1 .. pg_catalog.cardinality(v_steps) loop
    v_one := v_done[v_n];
    call fleet.take_suspects(v_steps[v_n], v_started + interval '1 second', p_now, v_one);
    v_done[v_n] := v_one;
  end loop;
  p_told := fleet.told_tick(v_done, v_started, p_now);
  commit;
end;
$$;

comment on procedure fleet.take_tick(timestamptz, boolean, jsonb) is
  'One tick of the ticker, each step in transactions of its own: p_told is what fleet.tick answers.';
revoke all on procedure fleet.take_tick(timestamptz, boolean, jsonb) from public, anon, authenticated, service_role;
