-- Generated from db/sources/90_operations by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/90_operations/10_tick.sql
-- The tick: the only scheduler. Everything that time decides happens here.

create or replace function fleet.tick_steps()
returns table (name text, function text, figure text, batch integer, items text)
language sql
immutable
-- In this form Postgres puts it in place, and a tick, which asks for it at each step, plans nothing anew.
begin atomic
  select s.name, s.function, s.figure, s.batch, s.items
  from (
    values
      ('locations', 'tend_locations', null, null::integer, null),
      ('start', 'start_next', null, null, 'due_schedules'),
      ('expand', 'expand_next', null, null, 'schedules_to_expand'),
      ('sweep', 'sweep_commands', 'swept', null, null),
      ('rollouts', 'tend_rollouts', 'released', null, null),
      ('settle', 'settle_runs', 'settled', null, null),
      ('ring', 'ring_doorbells', 'rung', null, null),
      ('notify', 'poke_notify', null, null, null),
      ('mdm', 'poke_mdm', null, null, null),
      ('calendars', 'poke_calendars', null, null, null),
      ('sync', 'poke_sync', null, null, null),
      ('silence', 'judge_silence', null, null, null),
      ('health', 'store_health', null, null, null),
      -- What is due goes first: these look after what holds for hours.
      ('zones', 'check_zones', 'zones_changed', null, null),
      ('prune', 'prune_in_passing', 'pruned', null, null)
  ) as s (name, function, figure, batch, items);
end;

comment on function fleet.tick_steps() is
  'What a tick does, in this order. Each function takes the time. One that answers an object of figures names them itself, and says with '
  'more that another tick has work at once; the number that another answers, or the length of its list, is told as figure, and as many '
  'as batch mean more. The function items gives the schedules that a step decides about next, and the step takes them as its second argument.';
revoke all on function fleet.tick_steps() from public, anon, authenticated, service_role;

create or replace function fleet.step_outcome(p_answer jsonb, p_figure text, p_batch integer)
returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_kind text := jsonb_typeof(p_answer);
  v_count integer;
begin
  if v_kind = 'object' then
    return p_answer;
  elsif p_figure is null then
    return '{}';
  end if;

  v_count := case v_kind when 'array' then jsonb_array_length(p_answer) when 'number' then p_answer::integer else 0 end;
  return jsonb_build_object(p_figure, v_count)
    || case when v_count >= p_batch then '{"more": true}'::jsonb else '{}' end;
end;
$$;

comment on function fleet.step_outcome(jsonb, text, integer) is 'What the answer of a step says, as figures: see fleet.tick_steps().';
revoke all on function fleet.step_outcome(jsonb, text, integer) from public, anon, authenticated, service_role;

create or replace function fleet.attempt_step(p_step text, p_schedule_ids bigint[], p_now timestamptz)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  v_begun timestamptz := clock_timestamp();
  v_step record;
  v_answer jsonb;
  v_error text;
  v_stopped boolean := false;
  v_patience text := current_setting('lock_timeout');
begin
  select s.* into strict v_step from fleet.tick_steps() as s where s.name = p_step;
  -- Nobody who keeps a row locked holds up what is due for others.
  perform set_config('lock_timeout', '200ms', true);
  perform fleet.set_ticking(true);
  -- Each step by itself: a fault in one of them must not stop the others.
  begin
    if p_schedule_ids is null then
      execute format('select to_jsonb(fleet.%I($1))', v_step.function) into v_answer using p_now;
    else
      execute format('select to_jsonb(fleet.%I($1, $2))', v_step.function) into v_answer using p_now, p_schedule_ids;
    end if;
  exception
    when query_canceled then
      v_stopped := true;
      v_error := 'it took too long';
    when others then
      v_error := left(sqlerrm, 500);
  end;
  perform fleet.set_ticking(false);
  perform set_config('lock_timeout', v_patience, true);
  return jsonb_build_object(
    'name', p_step,
    'ms', round((extract(epoch from clock_timestamp() - v_begun) * 1000)::numeric, 1),
    'error', v_error,
    'stopped', v_stopped,
    'figures', fleet.step_outcome(v_answer, v_step.figure, v_step.batch)
  );
end;
$$;

comment on function fleet.attempt_step(text, bigint[], timestamptz) is
  'Take one step of a tick, for these schedules where it takes some: {name, ms, error, stopped, figures}. It never fails; stopped says that '
  'somebody cancelled it because of its time.';
revoke all on function fleet.attempt_step(text, bigint[], timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.told_tick(p_done jsonb[], p_started timestamptz, p_now timestamptz)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_figures jsonb := '{}';
  v_more boolean := false;
  v_steps jsonb := '[]';
  v_errors text[] := '{}';
  v_one jsonb;
begin
  foreach v_one in array p_done loop
    v_more := v_more or coalesce(v_one #> '{figures,more}' = 'true', false);
    v_figures := v_figures || (v_one -> 'figures');
    v_steps := v_steps || (v_one - '{figures,stopped}'::text[]);
    if v_one ->> 'error' is not null then
      v_errors := v_errors || format('%s: %s', v_one ->> 'name', v_one ->> 'error');
    end if;
  end loop;

  -- Two ticks at once never wait for each other, not even to say that they are there.
  update fleet.heartbeat as h
  set last_tick_at = p_now,
      tick_count = h.tick_count + 1,
      tick_ms = round((extract(epoch from clock_timestamp() - p_started) * 1000)::numeric, 1),
      steps = fleet.remembered_steps(h.steps, v_steps, p_now),
      last_error = case when v_errors = '{}' then h.last_error else array_to_string(v_errors, '; ') end,
      last_error_at = case when v_errors = '{}' then h.last_error_at else p_now end
  where h.id in (select b.id from fleet.heartbeat as b for update skip locked);
  -- Whoever looks on hears at commit that it is time to look again: once a tick, however much has changed.
  perform pg_notify('pgfleet_tick', '');
  return v_figures || jsonb_build_object('more', v_more, 'errors', to_jsonb(v_errors));
end;
$$;

comment on function fleet.told_tick(jsonb[], timestamptz, timestamptz) is
  'Write into the heartbeat what the steps of a tick came to, and answer it: their figures, errors, and whether there is more.';
revoke all on function fleet.told_tick(jsonb[], timestamptz, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.remembered_steps(p_before jsonb, p_steps jsonb, p_now timestamptz)
returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select coalesce(
      jsonb_agg(
        s.step || case
          when s.step ->> 'error' is null then jsonb_build_object('error', b.step -> 'error', 'error_at', b.step -> 'error_at')
          else jsonb_build_object('error_at', p_now)
        end
        order by s.n
      ),
      '[]'
    )
    from jsonb_array_elements(p_steps) with ordinality as s(step, n)
    left join jsonb_array_elements(p_before) as b(step) on b.step ->> 'name' = s.step ->> 'name'
  );
end;
$$;

comment on function fleet.remembered_steps(jsonb, jsonb, timestamptz) is
  'The steps of this tick with the last error of each, which may be of a tick before: [{name, ms, error, error_at}].';
revoke all on function fleet.remembered_steps(jsonb, jsonb, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.may_tick()
returns boolean
language sql
volatile
-- A migration holds this lock alone: new tables must not meet old functions.
return pg_try_advisory_xact_lock_shared(hashtext('pgfleet.migrate'));

comment on function fleet.may_tick() is 'Whether no migration is running, which then waits for the end of this transaction.';
revoke all on function fleet.may_tick() from public, anon, authenticated, service_role;

create or replace function fleet.tick(p_now timestamptz default now())
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  v_started timestamptz := clock_timestamp();
  v_steps text[] := array(select s.name from fleet.tick_steps() as s);
  v_step text;
  v_one jsonb;
  v_done jsonb[] := '{}';
begin
  if not fleet.may_tick() then
    return jsonb_build_object('skipped', 'a migration is running');
  end if;

  foreach v_step in array v_steps loop
    v_one := fleet.attempt_step(v_step, null, p_now);
    if (v_one ->> 'stopped')::boolean then
      -- All of it is one transaction, and whoever ends one of its steps ends it.
      raise exception 'the tick was ended in its step %', v_step
        using errcode = 'query_canceled', detail = 'tick_ended', hint = 'The next tick goes on: select fleet_status()';
    end if;
    v_done := v_done || v_one;
  end loop;
  return fleet.told_tick(v_done, v_started, p_now);
end;
$$;

comment on function fleet.tick(timestamptz) is
  'Everything that is due, one step of fleet.tick_steps() after the other, in one transaction: {runs, commands, swept, settled, rung, …, '
  'errors, more}; more says that another tick has work at once. A fault of one step stops no other and is told by fleet_status(). Any number '
  'of sessions may tick. The ticker, which can tell what stopped it, is fleet.tick_minute().';
revoke all on function fleet.tick(timestamptz) from public, anon, authenticated, service_role;

-- db/sources/90_operations/12_tick_work.sql
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

-- db/sources/90_operations/15_ticker.sql
-- The ticker, and the one who watches it.

create or replace function fleet.enter_ticker(p_is_inside boolean)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_was_inside boolean;
begin
  update fleet.heartbeat as h
  set is_inside = p_is_inside
  from fleet.heartbeat as o
  where o.id = h.id
  returning o.is_inside into v_was_inside;
  return v_was_inside;
end;
$$;

comment on function fleet.enter_ticker(boolean) is
  'Say that a ticker begins or ends. True where the one before never ended: it was killed.';
revoke all on function fleet.enter_ticker(boolean) from public, anon, authenticated, service_role;

-- A procedure that commits can have no SET clause, so every name in it is qualified.
create or replace procedure fleet.tick_minute(p_patience numeric default 5)
language plpgsql
as $$
declare
  v_next timestamptz;
  v_last timestamptz;
  v_told jsonb;
  v_is_careful boolean;
  v_until timestamptz := pg_catalog.clock_timestamp() + p_patience * interval '1 second';
begin
  -- One ticker at a time. The one before leaves within a second of its last tick; until then this one waits, so that the
  -- hand-over leaves no gap.
  while not pg_catalog.pg_try_advisory_lock(pg_catalog.hashtext('pgfleet.ticker')) loop
    if pg_catalog.clock_timestamp() > v_until then
      return;
    end if;
    perform fleet.end_long_step(pg_catalog.clock_timestamp());
    perform pg_catalog.pg_sleep(case when p_patience > 10 then 0.5 else 0.1 end);
    commit;
  end loop;

  v_is_careful := fleet.enter_ticker(true);
  commit;
  v_next := pg_catalog.date_trunc('second', pg_catalog.clock_timestamp());
  v_last := pg_catalog.date_trunc('minute', pg_catalog.clock_timestamp()) + interval '1 minute';
  loop
    exit when fleet.setting('ticker_enabled') = 'false'::pg_catalog.jsonb;
    call fleet.take_tick(pg_catalog.clock_timestamp(), v_is_careful, v_told);
    continue when coalesce((v_told ->> 'more')::boolean, false) and pg_catalog.clock_timestamp() <= v_last;

    -- From the second before, not from the clock: a slow commit delays one tick and skips none.
    v_next := greatest(
      v_next + interval '1 second',
      pg_catalog.date_trunc('second', pg_catalog.clock_timestamp())
    );
    exit when v_next > v_last;
    -- Never longer than a second, even when the clock was set back.
    perform pg_catalog.pg_sleep(
      least(1, greatest(0, extract(epoch from v_next - pg_catalog.clock_timestamp())))::double precision
    );
    commit;
  end loop;
  perform fleet.enter_ticker(false);
  perform pg_catalog.pg_advisory_unlock(pg_catalog.hashtext('pgfleet.ticker'));
end;
$$;

comment on procedure fleet.tick_minute(numeric) is
  'Tick on every whole second up to the next minute, each step in transactions of its own. The only statement of its pg_cron jobs, because it '
  'commits. Where another ticker is at work it watches that one for p_patience seconds, ends a step of it that takes too long, and takes over '
  'when it is gone. The setting ticker_enabled stops it.';
revoke all on procedure fleet.tick_minute(numeric) from public, anon, authenticated, service_role;

create or replace procedure fleet.watch_tick()
language plpgsql
as $$
begin
  call fleet.tick_minute(59);
end;
$$;

comment on procedure fleet.watch_tick() is
  'Stand beside the ticker for a minute: see fleet.tick_minute(). The only statement of its pg_cron job.';
revoke all on procedure fleet.watch_tick() from public, anon, authenticated, service_role;

create or replace function fleet.end_long_step(p_now timestamptz)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select bool_or(pg_cancel_backend(a.pid))
    from pg_locks as l
    join pg_stat_activity as a on a.pid = l.pid
    where l.locktype = 'advisory'
      and l.database = (select d.oid from pg_database as d where d.datname = current_database())
      and l.granted
      and l.mode = 'ExclusiveLock'
      -- As Postgres keeps a key of 64 bits: its halves.
      and l.objid::bigint = hashtext('pgfleet.ticker')::bigint & 4294967295
      and l.objsubid = 1
      and a.usename = current_user
      and a.state = 'active'
      -- Between two ticks it sleeps for a second at most.
      and a.xact_start < p_now - greatest(fleet.setting_number('tick_step_seconds')::double precision, 2) * interval '1 second'
  );
end;
$$;

comment on function fleet.end_long_step(timestamptz) is
  'Cancel the step that the ticker is taking, where it has been at it for longer than the setting tick_step_seconds: it tells what that was, '
  'and goes on with the next.';
revoke all on function fleet.end_long_step(timestamptz) from public, anon, authenticated, service_role;

-- db/sources/90_operations/20_jobs.sql
-- The pg_cron jobs, and what every migrate does last.

create or replace function fleet.jobs()
returns table (name text, schedule text, command text)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  values
    ('pgfleet-tick', '* * * * *', 'call fleet.tick_minute()'),
    -- After a restart of the server the ticks go on at once, not with the next minute.
    ('pgfleet-tick-boot', '@reboot', 'call fleet.tick_minute()'),
    -- Beside the ticker, to end what takes too long and to take over when it is gone.
    ('pgfleet-watch', '* * * * *', 'call fleet.watch_tick()'),
    -- By itself, since it looks at every device that a profile is assigned to: no tick waits for it.
    ('pgfleet-tend-mdm', '* * * * *', 'select fleet.tend_mdm()'),
    ('pgfleet-tend-geo', '* * * * *', 'call fleet.tend_geo_schedules()'),
    ('pgfleet-reconcile-geo', '23 * * * *', 'call fleet.reconcile_all_geo_scopes()'),
    ('pgfleet-roll-up-telemetry', '* * * * *', 'select fleet.roll_up_telemetry()'),
    ('pgfleet-tend-telemetry', '41 * * * *', 'select fleet.tend_telemetry()'),
    ('pgfleet-prune-history', '17 3 * * *', 'call fleet.prune_history()')
$$;

comment on function fleet.jobs() is 'The pg_cron jobs: a fixed set, however many schedules there are.';
revoke all on function fleet.jobs() from public, anon, authenticated, service_role;

create or replace function fleet.job_faults()
returns table (name text, schedule text, command text, fault text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (select 1 from pg_catalog.pg_extension where extname = 'pg_cron') then
    return;
  end if;
  return query execute $query$
    select w.name, w.schedule, w.command, case when j.jobid is null then 'missing' else 'switched off' end
    from fleet.jobs() as w
    left join cron.job as j
      on j.jobname = w.name and j.schedule = w.schedule and j.command = w.command and j.username = current_user
      and j.database = current_database()
      -- A clone, or one that was promoted, remembers where the other was.
      and j.nodename = coalesce((select s.setting from pg_settings as s where s.name = 'cron.host'), j.nodename)
      and j.nodeport = current_setting('port')::integer
    where j.active is not true
    order by w.name
  $query$;
end;
$$;

comment on function fleet.job_faults() is
  'The jobs that pg_cron does not have as they are to be, at this very server (missing), or has switched off; none where there is no pg_cron.';
revoke all on function fleet.job_faults() from public, anon, authenticated, service_role;

create or replace function fleet.sync_jobs()
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_job record;
begin
  if not exists (select 1 from pg_catalog.pg_extension where extname = 'pg_cron') then
    return;
  end if;

  -- One that somebody switched off is left as it is.
  for v_job in select f.name, f.schedule, f.command from fleet.job_faults() as f where f.fault = 'missing' loop
    -- By name alone it would keep its old place.
    execute 'select cron.unschedule(j.jobid) from cron.job as j where j.jobname = $1 and j.username = current_user' using v_job.name;
    execute 'select cron.schedule($1, $2, $3)' using v_job.name, v_job.schedule, v_job.command;
  end loop;

  execute $query$
    select cron.unschedule(j.jobid)
    from cron.job as j
    where j.jobname like 'pgfleet-%'
      and j.jobname not in (select w.name from fleet.jobs() as w)
      and j.username = current_user
  $query$;
end;
$$;

comment on function fleet.sync_jobs() is 'Bring pg_cron''s jobs to what fleet.jobs() says, at this very server, where pg_cron is installed.';
revoke all on function fleet.sync_jobs() from public, anon, authenticated, service_role;

create or replace function fleet.grant_worker()
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_function regprocedure;
begin
  if not exists (select 1 from pg_catalog.pg_roles where rolname = 'fleet_worker') then
    return;
  end if;
  grant usage on schema fleet, telemetry to fleet_worker;
  -- COPY is the one way in that is fast enough; what is copied is carried over by a function.
  grant insert on table telemetry.staging to fleet_worker;
  for v_function in
    select p.oid
    from pg_catalog.pg_proc as p
    where p.pronamespace in ('fleet'::regnamespace, 'telemetry'::regnamespace) and p.proname like 'worker\_%'
  loop
    execute format('grant execute on function %s to fleet_worker', v_function);
  end loop;
end;
$$;

comment on function fleet.grant_worker() is
  'Let the login of the HTTP functions execute fleet.worker_* and telemetry.worker_*, copy points into telemetry.staging, and nothing else. The role is made by pgfleet functions setup.';
revoke all on function fleet.grant_worker() from public, anon, authenticated, service_role;

create or replace function fleet.after_migrate()
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.refresh_time_zones();
  perform fleet.adopt_walls();
  perform fleet.sync_command_types();
  perform fleet.sync_publication();
  perform fleet.let_devices_hear();
  perform fleet.poke_key();
  insert into fleet.tick_work (step) select s.name from fleet.tick_steps() as s on conflict do nothing;
  -- There before two ticks can want to make them at once.
  insert into fleet.pokes (function, poked_at)
  select n, '-infinity' from unnest('{notify-dispatch,mdm-dispatch,calendar-dispatch,golioth-pull,golioth-inbox,judge-silence,reconcile-profiles,prune-history}'::text[]) as n
  on conflict do nothing;
  perform fleet.grant_worker();
  perform fleet.number_sequences();
  perform fleet.tend_telemetry();
  perform fleet.sync_jobs();
end;
$$;

comment on function fleet.after_migrate() is 'What every migrate does last: data that follows from the sources.';
revoke all on function fleet.after_migrate() from public, anon, authenticated, service_role;

-- db/sources/90_operations/30_prune.sql
-- History has an end: which rows go when, and how they go.

create or replace function fleet.pruned_tables()
returns table (name text, aged_by text, condition text, days_setting text, batch integer)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  values
    -- Their commands go with them, so a few large runs are a large batch.
    ('public.schedule_runs', 'finished_at', null, 'history_days', 50),
    ('public.device_commands', 'executed_at', 'run_id is null', 'history_days', 5000),
    ('public.device_requests', 'day', null, 'history_days', 5000),
    ('public.webhook_deliveries', 'finished_at', null, 'history_days', 5000),
    ('fleet.webhook_secrets', 'expires_at', null, 'history_days', 5000),
    ('public.owner_invitations', 'expires_at', null, 'history_days', 5000),
    ('fleet.payload_secrets', 'expires_at', null, 'history_days', 5000),
    ('public.mdm_api_logs', 'created_at', null, 'history_days', 5000),
    -- Their keys are kept for as long as somebody may send them again.
    ('fleet.webhook_inbox', 'received_at', 'status = ''done'' or status = ''aside'' and received_at < now() - interval ''30 days''', 'inbox_days', 5000),
    ('public.audit_log', 'at', null, 'audit_days', 5000),
    -- An install that was called off before it began; the others go with their push.
    ('public.profile_installs', 'created_at', 'x.install_schedule_id is null', 'history_days', 5000),
    ('fleet.sync_backfills', 'finished_at', null, 'history_days', 5000),
    ('public.integration_activity_log', 'created_at', null, 'history_days', 5000),
    -- What location policies have not acted on yet is no history.
    ('public.location_events', 'created_at', 'acted_at is not null', 'history_days', 5000),
    -- What happens once, by a person or at a border, is history when it is over; its runs go with it, so a few are a large batch.
    (
      'public.schedules', 'updated_at',
      'x.recurrence_type = ''once'' and x.status in (''completed'', ''cancelled'')'
      ' and not exists (select 1 from public.schedule_runs as r where r.schedule_id = x.id)'
      ' and not exists (select 1 from public.schedules as f where f.after_schedule_id = x.id)'
      ' and not exists (select 1 from public.profile_installs as p where x.id in (p.install_schedule_id, p.remove_schedule_id)'
      ' and p.duration is not null and p.removed_at is null and p.failure is null)',
      'history_days', 500
    )
$$;

comment on function fleet.pruned_tables() is
  'What is deleted when it is old: rows whose column aged_by is longer ago than the setting says in days, and for which the condition holds. '
  'batch rows go in one transaction.';
revoke all on function fleet.pruned_tables() from public, anon, authenticated, service_role;

create or replace function fleet.prune_batch(p_table text, p_now timestamptz, p_limit integer default null)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rule record;
  v_count integer;
begin
  select t.* into strict v_rule from fleet.pruned_tables() as t where t.name = p_table;
  -- What somebody holds goes next time.
  execute format(
    'delete from %1$s as d where d.ctid = any (array('
      'select x.ctid from %1$s as x where x.%2$I < $1 and (%3$s) order by x.%2$I limit $2 for update skip locked'
    '))',
    v_rule.name, v_rule.aged_by, coalesce(v_rule.condition, 'true')
  )
  using
    p_now - make_interval(days => fleet.setting_number(v_rule.days_setting)::integer),
    least(p_limit, v_rule.batch);
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function fleet.prune_batch(text, timestamptz, integer) is
  'Delete a batch of what is old in one of fleet.pruned_tables(), at most p_limit rows. Answers how many.';
revoke all on function fleet.prune_batch(text, timestamptz, integer) from public, anon, authenticated, service_role;

create or replace function fleet.prune_in_passing(p_now timestamptz)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if not fleet.pass_turnstile('prune-history', interval '5 minutes', p_now) then
    return 0;
  end if;
  -- What ends has the time of the clock, whatever instant the tick is asked about: a tick of the future makes nothing old.
  return (select sum(fleet.prune_batch(t.name, least(p_now, clock_timestamp()), 500)) from fleet.pruned_tables() as t);
end;
$$;

comment on function fleet.prune_in_passing(timestamptz) is
  'A little of what fleet.prune_history() does, every few minutes by the tick: history has an end where no job comes by as well.';
revoke all on function fleet.prune_in_passing(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.prune_job_details()
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Nothing else ever prunes this table. Errors are kept longer than successes.
  if to_regclass('cron.job_run_details') is not null then
    execute $query$
      delete from cron.job_run_details as d
      where d.end_time < now() - interval '2 days' and d.status = 'succeeded'
        or d.end_time < now() - interval '14 days'
    $query$;
  end if;
end;
$$;

comment on function fleet.prune_job_details() is 'Delete what pg_cron wrote of jobs that ended days ago.';
revoke all on function fleet.prune_job_details() from public, anon, authenticated, service_role;

-- A procedure that commits can have no SET clause, so every name in it is qualified.
create or replace procedure fleet.prune_history()
language plpgsql
as $$
declare
  v_now timestamptz := pg_catalog.now();
  v_tables text[] := array(select t.name from fleet.pruned_tables() as t);
  v_table text;
  v_count integer;
  v_errors text[] := '{}';
begin
  foreach v_table in array v_tables loop
    loop
      begin
        v_count := fleet.prune_batch(v_table, v_now);
      exception when others then
        -- One table that cannot be pruned keeps no other from it.
        v_errors := v_errors || pg_catalog.concat(v_table, ': ', sqlerrm);
        v_count := 0;
      end;
      commit;
      exit when v_count = 0;
    end loop;
  end loop;
  perform fleet.prune_job_details();
  commit;
  if v_errors <> '{}' then
    raise exception 'not everything was pruned: %', pg_catalog.array_to_string(v_errors, '; ')
      using errcode = 'PT500', detail = 'prune_failed', hint = 'The other tables were; repair it, then: call fleet.prune_history()';
  end if;
end;
$$;

comment on procedure fleet.prune_history() is
  'Delete what is old in every one of fleet.pruned_tables(), in batches that are each a transaction, and old run details of pg_cron. Raises '
  'prune_failed (PT500) at its end, with what went wrong.';
revoke all on procedure fleet.prune_history() from public, anon, authenticated, service_role;

-- db/sources/90_operations/40_status.sql
-- How is it going: one look at the whole.

create or replace function fleet.history_status()
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_table record;
  v_oldest timestamptz;
  v_found jsonb := '[]';
begin
  for v_table in
    select t.name, t.aged_by, t.condition, fleet.setting_number(t.days_setting)::integer as days from fleet.pruned_tables() as t
  loop
    -- One look into the index by which it is pruned; what hangs on a row is not looked at.
    execute format('select x.%1$I from %2$s as x where x.%1$I is not null and (%3$s) order by 1 limit 1', v_table.aged_by, v_table.name,
      coalesce(split_part(v_table.condition, ' and not exists', 1), 'true'))
    into v_oldest;
    v_found := v_found || jsonb_build_object(
      'table', v_table.name, 'bytes', pg_total_relation_size(v_table.name::regclass), 'oldest', v_oldest, 'kept_days', v_table.days
    );
  end loop;
  return v_found;
end;
$$;

comment on function fleet.history_status() is
  'All that grows with time and is pruned in batches: {table, bytes, oldest, kept_days}.';
revoke all on function fleet.history_status() from public, anon, authenticated, service_role;

create or replace function fleet.engine_status(p_now timestamptz)
returns jsonb
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_jobs jsonb;
  v_cron boolean := exists (select 1 from pg_catalog.pg_extension where extname = 'pg_cron');
begin
  if v_cron then
    execute $query$
      select jsonb_object_agg(j.jobname, jsonb_build_object('active', j.active, 'last', (
        select d.status from cron.job_run_details as d
        where d.jobid = j.jobid and d.status <> 'running' order by d.runid desc limit 1
      )))
      from cron.job as j
      where j.jobname like 'pgfleet-%'
    $query$ into v_jobs;
  end if;

  return (
    select jsonb_build_object(
      'last_tick_at', h.last_tick_at,
      'tick_age_seconds', round(extract(epoch from p_now - h.last_tick_at)::numeric, 1),
      'is_ticking', coalesce(h.last_tick_at > p_now - interval '10 seconds', false),
      'tick_ms', h.tick_ms,
      -- The words of an error may quote anybody's data.
      'last_error', case when fleet.is_trusted_caller() then h.last_error end,
      'last_error_at', h.last_error_at,
      'steps', (
        select coalesce(jsonb_agg(case when fleet.is_trusted_caller() then s.step else s.step - 'error' end order by s.n), '[]')
        from jsonb_array_elements(h.steps) with ordinality as s(step, n)
      ),
      -- What stopped a tick, by step, schedule and owner.
      'last_stop', case when fleet.is_trusted_caller() then h.last_stop end,
      'working_on', (
        select jsonb_agg(jsonb_build_object('step', w.step, 'since', w.begun_at, 'schedules', cardinality(w.schedule_ids)))
        from fleet.tick_work as w
        where w.begun_at is not null
      ),
      'pg_cron', v_cron,
      'jobs', coalesce(v_jobs, '{}'),
      -- How much there is says something of everybody.
      'history', case when fleet.is_trusted_caller() then fleet.history_status() end,
      'doorbells_waiting', fleet.doorbells_waiting(p_now)
    )
    from fleet.heartbeat as h
  );
end;
$$;

comment on function fleet.engine_status(timestamptz) is
  'Heartbeat, steps of the tick, jobs and waiting doorbells. Definer: people may not read the engine''s tables; nothing here is anybody''s data.';
revoke all on function fleet.engine_status(timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.engine_status(timestamptz) to authenticated, service_role;

create or replace function fleet.counted(p_count bigint, p_one text, p_many text)
returns text
language sql
immutable
return p_count || ' ' || case when p_count = 1 then p_one else p_many end;

comment on function fleet.counted(bigint, text, text) is 'A number with its words: 1 run has, 2 runs have.';
revoke all on function fleet.counted(bigint, text, text) from public, anon, authenticated, service_role;
grant execute on function fleet.counted(bigint, text, text) to authenticated, service_role;

create or replace function fleet.common_checks(p_engine jsonb, p_zones jsonb, p_now timestamptz)
returns table (n integer, area text, name text, state text, found text, hint text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_steps text := (
    select string_agg(s.step ->> 'name', ', ') from jsonb_array_elements(p_engine -> 'steps') as s(step) where s.step ->> 'error' is not null
  );
  v_count bigint;
  v_text text;
  v_first bigint;
begin
  return query select 1, 'engine', 'ticks',
    case when not (p_engine ->> 'is_ticking')::boolean then 'broken' end,
    'the engine does not tick: nothing runs until it does',
    'pg_cron runs its jobs, see cron.job; where there is no pg_cron, something has to: call fleet.tick_minute()';

  return query select 2, 'engine', 'steps',
    case
      when v_steps is not null then 'broken'
      when p_engine ->> 'last_error' is not null and (p_engine ->> 'last_error_at')::timestamptz > p_now - interval '10 minutes' then 'warning'
    end,
    'a step of the tick failed' || coalesce(', ' || v_steps, '') || coalesce(': ' || left(p_engine ->> 'last_error', 200), ''),
    'The other steps went on; which one it was: select fleet_status() -> ''engine'' -> ''steps''';

  select count(*) into v_count from public.schedules as s where s.status = 'active' and s.next_run_at < p_now - interval '1 minute';
  return query select 3, 'work', 'due_in_time',
    case when v_count > 0 then 'broken' end,
    format('%s overdue for more than a minute', fleet.counted(v_count, 'schedule is', 'schedules are')),
    'The one that is due soonest comes first: select * from schedule_list';

  select count(*), string_agg(format('"%s" (%s)', i.name, coalesce(i.status_reason, i.status)), ', ' order by i.name) into v_count, v_text
  from public.device_integrations as i
  -- What somebody has paused by hand is as it is meant to be.
  where i.status <> 'active' and (i.status <> 'paused' or i.needs_secret);
  return query select 7, 'others', 'integrations',
    case when v_count > 0 then 'warning' end,
    format('%s not active: %s', fleet.counted(v_count, 'integration is', 'integrations are'), left(v_text, 300)),
    'See them all: select * from integration_list';

  select count(*), string_agg(format('"%s" (%s)', e.name, e.disabled_reason), ', ' order by e.name), min(e.id) into v_count, v_text, v_first
  from public.webhook_endpoints as e where not e.enabled and e.disabled_reason is not null;
  return query select 8, 'others', 'webhooks',
    case when v_count > 0 then 'warning' end,
    format('%s told no more: %s', fleet.counted(v_count, 'webhook is', 'webhooks are'), left(v_text, 300)),
    format('Tell it again: select update_webhook_endpoint(%s, ''{"enabled": true}'')', v_first);

  select count(*) into v_count from public.devices as d where d.status = 'active' and d.last_seen <= p_now - interval '1 day';
  return query select 9, 'work', 'devices_heard',
    case when v_count > 0 then 'warning' end,
    format('%s not been seen for a day', fleet.counted(v_count, 'device has', 'devices have')),
    'See when they were: select * from device_list';

  select string_agg(format('%s (%s, %s)', z.lost ->> 'zone', fleet.counted((z.lost ->> 'devices')::bigint, 'device', 'devices'),
    fleet.counted(jsonb_array_length(z.lost -> 'schedules'), 'schedule', 'schedules')), ', ') into v_text
  from jsonb_array_elements(p_zones -> 'lost') as z(lost);
  return query select 10, 'database', 'time_zones',
    case when v_text is not null then 'warning' end,
    'the server does not have these time zones, and who is in them is left out: ' || v_text,
    'Install the zones that belong to it (tzdata-legacy on Debian and Ubuntu), or name another zone';
end;
$$;

comment on function fleet.common_checks(jsonb, jsonb, timestamptz) is
  'What people are told of their fleets and operators of all: a row for each check, with a state where it found something. Both ask here, so that '
  'what counts as wrong is decided once.';
revoke all on function fleet.common_checks(jsonb, jsonb, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.common_checks(jsonb, jsonb, timestamptz) to authenticated, service_role;

create or replace function fleet.status_problems(p_engine jsonb, p_zones jsonb, p_ended jsonb, p_now timestamptz)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- What stops everything comes first, then what has failed, then what is silent.
  return (
    select coalesce(jsonb_agg(jsonb_build_object('problem', q.problem, 'hint', q.hint, 'state', q.state) order by q.n), '[]')
    from (
      select c.n, c.state, c.found as problem, c.hint from fleet.common_checks(p_engine, p_zones, p_now) as c where c.state is not null
      union all
      select 4, 'warning',
        format('%s failed in the last day', fleet.counted(count(*), 'run has', 'runs have')),
        'See why: select * from run_list where status = ''failed'''
      from public.schedule_runs as r
      where r.status = 'failed' and r.created_at > p_now - interval '1 day'
      having count(*) > 0
      union all
      select e.n, 'warning',
        format('%s %s in the last day', fleet.counted((p_ended ->> e.status)::bigint, 'command has', 'commands have'), e.status),
        format('%s: select * from command_list where status = %L', e.hint, e.status)
      from (values (5, 'failed', 'See why'), (6, 'expired', 'No device took them in time')) as e(n, status, hint)
      where (p_ended ->> e.status)::bigint > 0
    ) as q
  );
end;
$$;

comment on function fleet.status_problems(jsonb, jsonb, jsonb, timestamptz) is
  'What is wrong with a fleet and what to do about it, the worst first: [{problem, hint, state}]. p_ended has how many commands of the last day '
  'ended in each status.';
revoke all on function fleet.status_problems(jsonb, jsonb, jsonb, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.status_problems(jsonb, jsonb, jsonb, timestamptz) to authenticated, service_role;

create or replace function fleet.zone_status()
returns jsonb
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'lost', (
      select coalesce(jsonb_agg(
        jsonb_build_object('zone', l.zone, 'devices', l.devices, 'schedules', coalesce(to_jsonb(l.schedules), '[]')) order by l.zone
      ), '[]')
      from fleet.lost_zones(fleet.owners_in_view()) as l
    ),
    -- Nobody's data: which rules the server has learned lately.
    'changed_last_month', (
      select coalesce(jsonb_agg(jsonb_build_object('zone', z.name, 'at', z.changed_at) order by z.changed_at desc, z.name), '[]')
      from fleet.time_zones as z
      where z.changed_at > now() - interval '30 days'
    )
  )
$$;

comment on function fleet.zone_status() is
  'Time zones that the server does not have and that the caller''s devices or schedules are in, and zones whose rules have changed. '
  'Definer: the tables behind it are the engine''s; it looks only at what the caller may see.';
revoke all on function fleet.zone_status() from public, anon, authenticated, service_role;
grant execute on function fleet.zone_status() to authenticated, service_role;

create or replace function public.fleet_status(p_now timestamptz default now())
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_engine jsonb;
  v_zones jsonb;
  v_ended jsonb;
begin
  -- Row security limits the counts to the caller's own; a device, retired or not, counts as nobody.
  if fleet.current_user_id() is null and not fleet.is_trusted_caller() then
    raise exception 'a device may not do this'
      using errcode = 'PT403', detail = 'not_a_person', hint = 'Sign in as a member of the fleet.';
  end if;

  p_now := fleet.calendar_instant(p_now);
  v_engine := fleet.engine_status(p_now);
  v_zones := fleet.zone_status();
  -- Found by an index, however long the history is, and counted once.
  select coalesce(jsonb_object_agg(x.status, x.count), '{}') into v_ended
  from (
    select c.status, count(*) as count from public.device_commands as c where c.executed_at > p_now - interval '1 day' group by c.status
  ) as x;
  return jsonb_build_object(
    'now', p_now,
    'problems', fleet.status_problems(v_engine, v_zones, v_ended, p_now),
    'devices', (
      select jsonb_build_object(
        'active', count(*) filter (where d.status = 'active'),
        'enrolled', count(*) filter (where d.status = 'active' and d.enrolled_at is not null),
        'seen_last_hour', count(*) filter (where d.status = 'active' and d.last_seen > p_now - interval '1 hour'),
        'seen_last_day', count(*) filter (where d.status = 'active' and d.last_seen > p_now - interval '1 day'),
        'retired', count(*) filter (where d.status = 'retired')
      )
      from public.devices as d
    ),
    'schedules', (
      select jsonb_build_object(
        'active', count(*) filter (where s.status = 'active'),
        'paused', count(*) filter (where s.status = 'paused'),
        'due', count(*) filter (where s.status = 'active' and s.next_run_at <= p_now),
        'next_run_at', min(s.next_run_at) filter (where s.status = 'active')
      )
      from public.schedules as s
    ),
    'runs_last_day', (
      select jsonb_build_object(
        'completed', count(*) filter (where r.status = 'completed'),
        'failed', count(*) filter (where r.status = 'failed'),
        'skipped', count(*) filter (where r.status = 'skipped'),
        'running', count(*) filter (where r.status in ('pending', 'running'))
      )
      from public.schedule_runs as r
      where r.created_at > p_now - interval '1 day'
    ),
    'commands', jsonb_build_object(
      'pending', (select count(*) from public.device_commands as c where c.status = 'pending'),
      'running', (select count(*) from public.device_commands as c where c.status = 'running'),
      'completed_last_day', coalesce((v_ended ->> 'completed')::bigint, 0),
      'failed_last_day', coalesce((v_ended ->> 'failed')::bigint, 0) + coalesce((v_ended ->> 'expired')::bigint, 0)
    ),
    'zones', v_zones,
    'engine', v_engine
  );
end;
$$;

comment on function public.fleet_status(timestamptz) is
  'The fleet at a glance: {problems, devices, schedules, runs_last_day, commands, zones, engine}. Raises not_a_person (PT403).';
revoke all on function public.fleet_status(timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.fleet_status(timestamptz) to authenticated, service_role;

create or replace function fleet.worker_health(p_now timestamptz default now())
returns jsonb
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'ok', coalesce(h.last_tick_at > p_now - interval '60 seconds', false),
    'last_tick_at', h.last_tick_at,
    'tick_age_seconds', round(extract(epoch from p_now - h.last_tick_at)::numeric, 1)
  )
  from fleet.heartbeat as h
$$;

comment on function fleet.worker_health(timestamptz) is
  'Whether the database ticks: {ok, last_tick_at, tick_age_seconds}. Definer: the worker reads no table.';
revoke all on function fleet.worker_health(timestamptz) from public, anon, authenticated, service_role;

-- db/sources/90_operations/45_metrics.sql
-- Figures for a monitoring system: few, cheap to read, and the same that people see elsewhere.

create or replace function fleet.metric_kinds()
returns table (name text, help text)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  values
    ('pgfleet_ticking', 'Whether the engine ticked in the last 10 seconds: 1 or 0.'),
    ('pgfleet_tick_age_seconds', 'Seconds since the last tick.'),
    ('pgfleet_tick_seconds', 'How long the last tick took.'),
    ('pgfleet_step_seconds', 'How long each step of the last tick took.'),
    ('pgfleet_step_failed', 'Whether a step of the tick failed when it was taken last: 1 or 0.'),
    ('pgfleet_job_active', 'Whether a job of pg_cron is active: 1 or 0.'),
    ('pgfleet_doorbells_waiting', 'Doorbells that are due and not rung.'),
    ('pgfleet_devices', 'Devices by status.'),
    ('pgfleet_devices_seen', 'Active devices that were seen in the last hour.'),
    ('pgfleet_schedules', 'Schedules by status.'),
    ('pgfleet_schedules_due', 'Active schedules whose instant has come.'),
    ('pgfleet_due_lag_seconds', 'For how long the active schedule that waits longest is due; 0 where none is.'),
    ('pgfleet_runs_ended', 'Runs that ended in the last hour, by status.'),
    ('pgfleet_commands', 'Commands that have not ended, by channel and status.'),
    ('pgfleet_commands_oldest_seconds', 'For how long the oldest command of a channel may be claimed and is not.'),
    ('pgfleet_commands_ended', 'Commands that ended in the last 10 minutes, by channel, status and reason.'),
    ('pgfleet_claim_lag_seconds', 'From when a command may start until it is claimed: quantiles over those of the last 10 minutes.'),
    ('pgfleet_finish_lag_seconds', 'From the claim of a command to its end: quantiles over those of the last 10 minutes.'),
    ('pgfleet_webhook_deliveries_waiting', 'Messages that are not delivered yet.'),
    ('pgfleet_integrations', 'Integrations by type and status.'),
    ('pgfleet_sync_age_seconds', 'Since when an active integration has not been read, by its id.'),
    ('pgfleet_provider_calls', 'Calls to other systems in the last hour, by the first digit of their answer; none where there was no answer.'),
    ('pgfleet_provider_refused_rate', 'Calls in the last hour that were answered with 429.'),
    ('pgfleet_connections', 'Connections to this database by state, and max for how many the server allows.'),
    ('pgfleet_oldest_transaction_seconds', 'For how long the oldest open transaction keeps dead rows from being cleaned up.'),
    ('pgfleet_partition_missing', 'Whether there is no partition for the telemetry of tomorrow: 1 or 0.'),
    ('pgfleet_table_bytes', 'Size of what grows with time, with its indexes.'),
    ('pgfleet_history_age_seconds', 'Age of the oldest row of what grows with time.')
$$;

comment on function fleet.metric_kinds() is 'The names of all figures of fleet.metrics() and what they mean. All are gauges: what is, not what was counted since.';
revoke all on function fleet.metric_kinds() from public, anon, authenticated, service_role;

create or replace function fleet.metrics_of_engine(p_now timestamptz)
returns table (name text, labels jsonb, value double precision)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_engine jsonb := fleet.engine_status(p_now);
begin
  return query values
    ('pgfleet_ticking', '{}'::jsonb, (v_engine ->> 'is_ticking')::boolean::integer::double precision),
    ('pgfleet_tick_age_seconds', '{}', (v_engine ->> 'tick_age_seconds')::double precision),
    ('pgfleet_tick_seconds', '{}', (v_engine ->> 'tick_ms')::double precision / 1000),
    ('pgfleet_doorbells_waiting', '{}', (v_engine ->> 'doorbells_waiting')::double precision);
  return query
  select f.name, jsonb_build_object('step', s.step ->> 'name'), f.value
  from jsonb_array_elements(v_engine -> 'steps') as s(step)
  cross join lateral (values
    ('pgfleet_step_seconds', (s.step ->> 'ms')::double precision / 1000),
    ('pgfleet_step_failed', (s.step ->> 'error' is not null)::integer::double precision)
  ) as f(name, value);
  return query
  select 'pgfleet_job_active'::text, jsonb_build_object('job', j.key), (j.value ->> 'active')::boolean::integer::double precision
  from jsonb_each(v_engine -> 'jobs') as j;
  return query
  select f.name, jsonb_build_object('table', h.one ->> 'table'), f.value
  from jsonb_array_elements(coalesce(v_engine -> 'history', '[]')) as h(one)
  cross join lateral (values
    ('pgfleet_table_bytes', (h.one ->> 'bytes')::double precision),
    ('pgfleet_history_age_seconds', extract(epoch from p_now - (h.one ->> 'oldest')::timestamptz)::double precision)
  ) as f(name, value);
end;
$$;

comment on function fleet.metrics_of_engine(timestamptz) is 'What the ticker does, and what grows with time.';
revoke all on function fleet.metrics_of_engine(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.metrics_of_work(p_now timestamptz)
returns table (name text, labels jsonb, value double precision)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select 'pgfleet_devices'::text, jsonb_build_object('status', d.status), count(*)::double precision
  from public.devices as d group by d.status;
  return query
  select 'pgfleet_devices_seen'::text, '{}'::jsonb, count(*)::double precision
  from public.devices as d where d.status = 'active' and d.last_seen > p_now - interval '1 hour';
  return query
  select 'pgfleet_schedules'::text, jsonb_build_object('status', s.status), count(*)::double precision
  from public.schedules as s group by s.status;
  return query
  select f.name, '{}'::jsonb, f.value
  from (
    select count(*)::double precision as due, coalesce(extract(epoch from p_now - min(s.next_run_at)), 0)::double precision as lag
    from public.schedules as s where s.status = 'active' and s.next_run_at <= p_now
  ) as u
  cross join lateral (values ('pgfleet_schedules_due', u.due), ('pgfleet_due_lag_seconds', u.lag)) as f(name, value);
  return query
  select 'pgfleet_runs_ended'::text, jsonb_build_object('status', r.status), count(*)::double precision
  from public.schedule_runs as r where r.finished_at > p_now - interval '1 hour' group by r.status;
  return query
  select 'pgfleet_commands'::text, jsonb_build_object('channel', c.channel, 'status', c.status), count(*)::double precision
  from public.device_commands as c where c.status in ('pending', 'running') group by c.channel, c.status;
  return query
  select 'pgfleet_commands_oldest_seconds'::text, jsonb_build_object('channel', c.channel),
    extract(epoch from p_now - min(c.not_before))::double precision
  from public.device_commands as c where c.status = 'pending' and c.not_before <= p_now and c.waits_for is null group by c.channel;
end;
$$;

comment on function fleet.metrics_of_work(timestamptz) is 'Devices, schedules, runs, and commands that have not ended.';
revoke all on function fleet.metrics_of_work(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.metrics_of_ends(p_now timestamptz)
returns table (name text, labels jsonb, value double precision)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select 'pgfleet_commands_ended'::text,
    jsonb_build_object('channel', c.channel, 'status', c.status, 'reason', coalesce(c.reason, '')), count(*)::double precision
  from public.device_commands as c
  where c.executed_at > p_now - interval '10 minutes' and c.status in ('completed', 'failed', 'expired', 'cancelled')
  group by c.channel, c.status, c.reason;
  return query
  with ended as materialized (
    select c.channel,
      extract(epoch from c.claimed_at - greatest(c.created_at, c.not_before))::double precision as claim_lag,
      extract(epoch from c.executed_at - c.claimed_at)::double precision as finish_lag
    from public.device_commands as c
    where c.executed_at > p_now - interval '10 minutes' and c.status in ('completed', 'failed', 'expired', 'cancelled')
    order by c.executed_at desc
    -- Enough to tell quantiles from, however busy the fleet is.
    limit 20000
  )
  select f.name, jsonb_build_object('channel', q.channel, 'quantile', q.quantile::text), f.value
  from (
    select e.channel, k.quantile,
      percentile_cont(k.quantile) within group (order by greatest(e.claim_lag, 0)) filter (where e.claim_lag is not null) as claim_lag,
      percentile_cont(k.quantile) within group (order by e.finish_lag) filter (where e.finish_lag is not null) as finish_lag
    from ended as e
    cross join (values (0.5::double precision), (0.95), (0.99)) as k(quantile)
    group by e.channel, k.quantile
  ) as q
  cross join lateral (values
    ('pgfleet_claim_lag_seconds', q.claim_lag), ('pgfleet_finish_lag_seconds', q.finish_lag)
  ) as f(name, value)
  where f.value is not null;
end;
$$;

comment on function fleet.metrics_of_ends(timestamptz) is 'What became of commands lately, and how long it took.';
revoke all on function fleet.metrics_of_ends(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.is_partition_missing(p_now timestamptz)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select not exists (select 1 from telemetry.partition_days() as p(day) where p.day = (p_now at time zone 'UTC')::date + 1)
$$;

comment on function fleet.is_partition_missing(timestamptz) is 'Whether tomorrow''s telemetry has nowhere to go.';
revoke all on function fleet.is_partition_missing(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.metrics_of_others(p_now timestamptz)
returns table (name text, labels jsonb, value double precision)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select 'pgfleet_webhook_deliveries_waiting'::text, '{}'::jsonb, count(*)::double precision
  from public.webhook_deliveries as d where d.status in ('pending', 'running');
  return query
  select 'pgfleet_integrations'::text, jsonb_build_object('type', i.integration_type, 'status', i.status), count(*)::double precision
  from public.device_integrations as i group by i.integration_type, i.status;
  return query
  select 'pgfleet_sync_age_seconds'::text, jsonb_build_object('integration', i.id::text),
    extract(epoch from p_now - i.last_sync_at)::double precision
  from public.device_integrations as i where i.status = 'active' and i.last_sync_at is not null;
  return query
  with calls as materialized (
    select l.status from public.mdm_api_logs as l where l.created_at > p_now - interval '1 hour' and l.method is not null
  )
  select 'pgfleet_provider_calls'::text,
    jsonb_build_object('answer', coalesce(c.status / 100 || 'xx', 'none')), count(*)::double precision
  from calls as c group by c.status / 100
  union all
  select 'pgfleet_provider_refused_rate', '{}', count(*) from calls as c where c.status = 429;
  return query
  select 'pgfleet_connections'::text, jsonb_build_object('state', coalesce(a.state, 'other')), count(*)::double precision
  from pg_stat_activity as a where a.datname = current_database() group by 2
  union all
  select 'pgfleet_connections', '{"state": "max"}', current_setting('max_connections')::double precision;
  return query
  select 'pgfleet_partition_missing'::text, '{}'::jsonb, fleet.is_partition_missing(p_now)::integer::double precision;
  return query
  select 'pgfleet_oldest_transaction_seconds'::text, '{}'::jsonb,
    coalesce(max(extract(epoch from p_now - a.xact_start)), 0)::double precision
  from pg_stat_activity as a where a.datname = current_database() and a.backend_xmin is not null and a.pid <> pg_backend_pid();
end;
$$;

comment on function fleet.metrics_of_others(timestamptz) is 'Other systems, and the database itself.';
revoke all on function fleet.metrics_of_others(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.metrics(p_now timestamptz)
returns table (name text, labels jsonb, value double precision, help text)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select m.name, m.labels, m.value, k.help
  from (
    select * from fleet.metrics_of_engine(p_now)
    union all
    select * from fleet.metrics_of_work(p_now)
    union all
    select * from fleet.metrics_of_ends(p_now)
    union all
    select * from fleet.metrics_of_others(p_now)
  ) as m
  join fleet.metric_kinds() as k on k.name = m.name
  where m.value is not null;
end;
$$;

comment on function fleet.metrics(timestamptz) is
  'The figures of the whole platform: {name, labels, value, help}, all of them gauges, see docs/reference/metrics. Definer: for the service role, '
  'of everybody''s rows nothing but counts and ages.';
revoke all on function fleet.metrics(timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.metrics(timestamptz) to service_role;

create or replace function fleet.worker_metrics()
returns jsonb
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_agg(to_jsonb(m) order by m.name, m.labels), '[]') from fleet.metrics(clock_timestamp()) as m
$$;

comment on function fleet.worker_metrics() is 'fleet.metrics() as a list of objects, for GET /metrics. Definer: the worker reads no table.';
revoke all on function fleet.worker_metrics() from public, anon, authenticated, service_role;

-- db/sources/90_operations/46_checkup.sql
-- Is the platform well: every check with what was found and what to do, first the engine and the database.

create or replace function fleet.check_result(p_name text, p_state text, p_found text, p_hint text, p_can_be_repaired boolean default false)
returns table (name text, state text, found text, hint text, can_be_repaired boolean)
language sql
immutable
begin atomic
  select p_name, coalesce(p_state, 'ok'), case when p_state is not null then p_found end, case when p_state is not null then p_hint end,
    p_state is not null and p_can_be_repaired;
end;

comment on function fleet.check_result(text, text, text, text, boolean) is
  'One check as a row: p_state is null where all is well, and then nothing is told; else warning, broken, or unknown.';
revoke all on function fleet.check_result(text, text, text, text, boolean) from public, anon, authenticated, service_role;

create or replace function fleet.failing_jobs()
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_failing text;
begin
  if exists (select 1 from pg_catalog.pg_extension where extname = 'pg_cron') then
    -- One that runs now is no failure, whatever the run before was; nor is one that the end of the server interrupted.
    execute $query$
      select string_agg(j.jobname, ', ' order by j.jobname)
      from cron.job as j
      cross join lateral (
        select d.status, d.return_message from cron.job_run_details as d
        where d.jobid = j.jobid order by d.runid desc limit 1
      ) as l
      where j.jobname like 'pgfleet-%' and l.status = 'failed'
        and coalesce(l.return_message, '') !~ 'server restarted|administrator command|shutting down|starting up'
    $query$ into v_failing;
  end if;
  return v_failing;
end;
$$;

comment on function fleet.failing_jobs() is 'The jobs of pg_cron whose last run failed, but for those that a restart of the server ended; null where none has.';
revoke all on function fleet.failing_jobs() from public, anon, authenticated, service_role;

create or replace function fleet.check_engine(p_now timestamptz)
returns table (name text, state text, found text, hint text, can_be_repaired boolean)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_engine jsonb := fleet.engine_status(p_now);
  v_missing text := (select string_agg(f.name, ', ' order by f.name) from fleet.job_faults() as f);
  v_failing text := fleet.failing_jobs();
  v_stop jsonb := v_engine -> 'last_stop';
  v_held record;
begin
  return query select * from fleet.check_result('ticker_enabled',
    case when fleet.setting('ticker_enabled') = 'false' then 'broken' end,
    'the ticker is switched off, so nothing runs', 'Switch it on: select fleet.set_setting(''ticker_enabled'', ''true'')');
  return query select * from fleet.check_result('jobs',
    case when v_missing is not null then 'broken' end,
    'pg_cron does not run ' || v_missing || ' as it should',
    'Make them anew: select fleet_repair(''jobs'')', true);
  return query select * from fleet.check_result('jobs_succeed',
    case when v_failing is not null then 'warning' end,
    'the last run failed of ' || v_failing, 'cron.job_run_details says why');
  return query select * from fleet.check_result('stops',
    case when (v_stop ->> 'at')::timestamptz > p_now - interval '1 day' then 'warning' end,
    format('a tick was stopped at %s in the step %s%s', v_stop ->> 'at', v_stop ->> 'step',
      coalesce(' by schedule ' || (v_stop ->> 'schedule_id'), '')),
    'fleet.heartbeat has in last_stop what it was about to decide');
  select sum(cardinality(w.suspects)) as suspects, string_agg(w.step, ', ') filter (where w.rests_until > p_now) as resting into v_held
  from fleet.tick_work as w;
  return query select * from fleet.check_result('suspects',
    case when v_held.suspects > 0 or v_held.resting is not null then 'warning' end,
    format('%s decided one by one after a stop%s', fleet.counted(v_held.suspects, 'schedule is', 'schedules are'),
      coalesce('; these steps rest: ' || v_held.resting, '')),
    'The next ticks clear them, or pause the one that is at fault, see fleet.tick_work');
  return query select * from fleet.check_result('tick_time',
    case when (v_engine ->> 'tick_ms')::numeric > 1000 then 'warning' end,
    format('the last tick took %s ms', v_engine ->> 'tick_ms'),
    'See which step: select fleet_status() -> ''engine'' -> ''steps''');
end;
$$;

comment on function fleet.check_engine(timestamptz) is 'Checks of the ticker, its jobs and its steps.';
revoke all on function fleet.check_engine(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.check_shell()
returns table (name text, state text, found text, hint text, can_be_repaired boolean)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_open text;
  v_bare text;
  v_is_published boolean := exists (
    select 1 from pg_catalog.pg_publication_tables as t
    where t.pubname = 'supabase_realtime' and t.schemaname = 'public' and t.tablename = 'device_commands'
  );
  v_withheld bigint;
begin
  select string_agg(c.relname::text, ', ' order by c.relname) into v_bare
  from pg_catalog.pg_class as c
  where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relrowsecurity
    and (
      c.oid = 'public.owners'::regclass
      or exists (
        select 1 from pg_catalog.pg_constraint as k
        where k.conrelid = c.oid and k.confrelid in ('public.owners'::regclass, 'public.devices'::regclass)
      )
      or exists (
        select 1 from pg_catalog.pg_trigger as t join pg_catalog.pg_proc as p on p.oid = t.tgfoid
        where t.tgrelid = c.oid and p.pronamespace = 'fleet'::regnamespace
      )
    );
  return query select * from fleet.check_result('row_security',
    case when v_bare is not null then 'broken' end,
    'row security is off, so that everybody may read all of ' || v_bare,
    format('Switch it on: alter table %s enable row level security', split_part(v_bare, ', ', 1)));

  select string_agg(o.what, ', ' order by o.what) into v_open
  from (
    select p.oid::regprocedure::text as what
    from pg_catalog.pg_proc as p
    cross join lateral aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as a
    where p.pronamespace in ('fleet'::regnamespace, 'telemetry'::regnamespace) and a.grantee = 0
    union all
    select c.oid::regclass::text
    from pg_catalog.pg_class as c
    cross join lateral aclexplode(c.relacl) as a
    left join pg_catalog.pg_roles as r on r.oid = a.grantee
    where c.relnamespace = 'fleet'::regnamespace and c.relkind in ('r', 'p', 'v')
      and (a.grantee = 0 or r.rolname = 'anon')
    limit 20
  ) as o;
  return query select * from fleet.check_result('engine_is_closed',
    case when v_open is not null then 'broken' end,
    'what is the engine''s own is open to everybody: ' || v_open,
    'Default privileges of the project opened it. Migrate again, which takes these rights away where they were granted later by hand');

  return query select * from fleet.check_result('publication',
    case when exists (select 1 from pg_catalog.pg_publication where pubname = 'supabase_realtime')
      and v_is_published <> (fleet.setting('publish_device_commands') = 'true') then 'broken' end,
    'the publication supabase_realtime is not as the setting publish_device_commands says',
    'Bring it in line: select fleet_repair(''publication'')', true);

  if exists (select 1 from pg_catalog.pg_roles where rolname = 'fleet_worker') then
    select count(*) into v_withheld
    from pg_catalog.pg_proc as p
    where p.pronamespace in ('fleet'::regnamespace, 'telemetry'::regnamespace) and p.proname like 'worker\_%'
      and not has_function_privilege('fleet_worker', p.oid, 'execute');
  end if;
  return query select * from fleet.check_result('functions_login',
    case
      when v_withheld > 0 then 'broken'
      when v_withheld is null and fleet.setting('functions_url') <> 'null' then 'warning'
    end,
    case
      when v_withheld > 0 then format('fleet_worker may not execute %s', fleet.counted(v_withheld, 'function', 'functions'))
      else 'there is an address of functions, and no login for them'
    end,
    case
      when v_withheld > 0 then 'Grant them: select fleet_repair(''functions_login'')'
      else 'Make the role fleet_worker as the guide to the HTTP functions says'
    end, v_withheld > 0);
end;
$$;

comment on function fleet.check_shell() is 'Checks of who may do what.';
revoke all on function fleet.check_shell() from public, anon, authenticated, service_role;

-- db/sources/90_operations/47_checkup_of_server.sql
-- Is the platform well: the server and what is stored; what is read of it first, then what that means.

create or replace function fleet.server_facts()
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'version', current_setting('server_version_num')::integer / 10000,
    'needs_net', fleet.setting('functions_url') <> 'null',
    'has_net', to_regproc('net.http_post') is not null,
    'slots', (
      select jsonb_agg(s.slot_name order by s.slot_name)
      from pg_replication_slots as s
      where not s.active and (s.xmin is not null or s.catalog_xmin is not null or s.wal_status in ('extended', 'unreserved', 'lost'))
    ),
    'tables', (
      select jsonb_agg(
        jsonb_build_object('name', format('%s.%s', t.schemaname, t.relname), 'dead', t.n_dead_tup, 'live', t.n_live_tup)
        order by t.n_dead_tup desc
      )
      from pg_stat_user_tables as t
      where t.schemaname in ('public', 'fleet', 'telemetry') and t.n_dead_tup > 0
    ),
    'connections', (select count(*) from pg_stat_activity as a where a.backend_type = 'client backend'),
    'max_connections', current_setting('max_connections')::integer,
    'oldest_row', (select age(d.datfrozenxid) from pg_database as d where d.datname = current_database()),
    'unbuilt_indexes', (
      select jsonb_agg(x.indexrelid::regclass::text)
      from pg_index as x join pg_class as c on c.oid = x.indrelid
      where not x.indisvalid and c.relnamespace in ('public'::regnamespace, 'fleet'::regnamespace, 'telemetry'::regnamespace)
    ),
    'archives', current_setting('archive_mode') <> 'off',
    'archived_at', v.last_archived_time,
    'archive_failed_at', v.last_failed_time
  )
  from pg_stat_archiver as v
$$;

comment on function fleet.server_facts() is 'What the checks of the server go by, read at one moment.';
revoke all on function fleet.server_facts() from public, anon, authenticated, service_role;

create or replace function fleet.judge_server(p_facts jsonb)
returns table (name text, state text, found text, hint text, can_be_repaired boolean)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_version integer := p_facts ->> 'version';
  v_used bigint := p_facts ->> 'connections';
  v_max bigint := p_facts ->> 'max_connections';
  v_age bigint := p_facts ->> 'oldest_row';
  v_archives boolean := p_facts ->> 'archives';
  v_text text;
begin
  return query select * from fleet.check_result('server_version',
    case when v_version not between 15 and 18 then 'warning' end,
    format('this is PostgreSQL %s', v_version), 'pgfleet is made for PostgreSQL 15 to 18');
  return query select * from fleet.check_result('pg_net',
    case when (p_facts ->> 'needs_net')::boolean and not (p_facts ->> 'has_net')::boolean then 'warning' end,
    'pg_net is not there, so functions that sleep are not woken', 'Install it: create extension pg_net');

  select string_agg(s.slot, ', ') into v_text from jsonb_array_elements_text(nullif(p_facts -> 'slots', 'null')) as s(slot);
  return query select * from fleet.check_result('replication_slots',
    case when v_text is not null then 'warning' end,
    'nobody reads the replication slots ' || v_text || ', and all that they have not read is kept',
    'Let their reader go on, or drop them with pg_drop_replication_slot');

  select string_agg(format('%s (%s dead)', t.one ->> 'name', t.one ->> 'dead'), ', ') into v_text
  from jsonb_array_elements(nullif(p_facts -> 'tables', 'null')) as t(one)
  where (t.one ->> 'dead')::bigint > 100000 and (t.one ->> 'dead')::bigint > (t.one ->> 'live')::bigint;
  return query select * from fleet.check_result('dead_rows',
    case when v_text is not null then 'warning' end,
    'more rows are dead than live in ' || v_text, 'Autovacuum is behind or held up, see open_transactions; at once: vacuum (analyze)');

  return query select * from fleet.check_result('connections',
    case when v_used > 0.8 * v_max then 'warning' end,
    format('%s of %s connections are in use', v_used, v_max), 'pg_stat_activity says by whom');
  return query select * from fleet.check_result('transaction_ids',
    case when v_age > 1000000000 then 'broken' end,
    format('the oldest row was written %s transactions ago; at two billion the server stops', v_age),
    'Let it freeze, without open transactions: vacuum (freeze)');

  select string_agg(x.name, ', ') into v_text from jsonb_array_elements_text(nullif(p_facts -> 'unbuilt_indexes', 'null')) as x(name);
  return query select * from fleet.check_result('indexes',
    case when v_text is not null then 'broken' end,
    'an index was not built to its end and is of no use: ' || v_text, 'Build it anew: reindex index concurrently …');

  return query select * from fleet.check_result('backups',
    case
      when not v_archives then 'unknown'
      when (p_facts ->> 'archive_failed_at')::timestamptz > coalesce((p_facts ->> 'archived_at')::timestamptz, '-infinity') then 'broken'
    end,
    case
      when not v_archives then 'the server does not archive, so how old its backups are is not known here'
      else format('archiving fails since %s', p_facts ->> 'archive_failed_at')
    end,
    'Whoever runs the server knows; try now and then that a backup restores');
end;
$$;

comment on function fleet.judge_server(jsonb) is 'What fleet.server_facts() mean, as checks.';
revoke all on function fleet.judge_server(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.check_database(p_now timestamptz)
returns table (name text, state text, found text, hint text, can_be_repaired boolean)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_text text;
begin
  return query select * from fleet.judge_server(fleet.server_facts());
  select string_agg(format('process %s (%s) since %s', a.pid, coalesce(nullif(a.application_name, ''), a.usename::text), a.xact_start), ', ')
  into v_text
  from pg_catalog.pg_stat_activity as a
  where a.datname = current_database() and a.backend_type = 'client backend' and a.xact_start < p_now - interval '10 minutes'
    and (a.backend_xmin is not null or a.backend_xid is not null);
  return query select * from fleet.check_result('open_transactions',
    case when v_text is not null then 'warning' end,
    'dead rows cannot be cleaned up while transactions are open: ' || v_text, 'End it with pg_terminate_backend');

  return query select * from fleet.check_result('partitions',
    case when fleet.is_partition_missing(p_now) then 'broken' end,
    'there is no partition for the telemetry of tomorrow', 'Make them: select fleet_repair(''partitions'')', true);

  select string_agg(format('%s (since %s)', h.one ->> 'table', left(h.one ->> 'oldest', 10)), ', ') into v_text
  from jsonb_array_elements(fleet.history_status()) as h(one)
  where (h.one ->> 'oldest')::timestamptz < p_now - make_interval(days => (h.one ->> 'kept_days')::integer + 2);
  return query select * from fleet.check_result('history',
    case when v_text is not null then 'warning' end,
    'older than it is to be kept: ' || v_text, 'The job pgfleet-prune-history does it each night; at once: call fleet.prune_history()');
end;
$$;

comment on function fleet.check_database(timestamptz) is 'Checks of the server and of what is stored.';
revoke all on function fleet.check_database(timestamptz) from public, anon, authenticated, service_role;

-- db/sources/90_operations/48_checkup_of_work.sql
-- Is the platform well: devices, schedules and commands, the systems beside it, and the verbs that people call.

create or replace function fleet.check_work(p_now timestamptz)
returns table (name text, state text, found text, hint text, can_be_repaired boolean)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count bigint;
  v_other bigint;
  v_text text;
begin
  select count(*), string_agg(format('"%s": %s', x.name, x.status_reason), '; ' order by x.updated_at desc) filter (where x.n <= 3)
  into v_count, v_text
  from (
    select s.name, s.status_reason, s.updated_at, row_number() over (order by s.updated_at desc) as n
    from public.schedules as s where s.status = 'paused' and s.status_reason is not null
  ) as x;
  return query select * from fleet.check_result('paused_for_faults',
    case when v_count > 0 then 'warning' end,
    format('%s paused by the engine: %s', fleet.counted(v_count, 'schedule was', 'schedules were'), v_text),
    'Change what is wrong, then: select resume_schedule(…)');

  v_count := fleet.doorbells_waiting(p_now - interval '1 minute');
  return query select * from fleet.check_result('doorbells',
    case when v_count > 0 then 'warning' end,
    format('%s for more than a minute', fleet.counted(v_count, 'device was to be told', 'devices were to be told')),
    'They find their commands at their next look. More at a time: select fleet.set_setting(''doorbell_rate'', ''2000'')');

  select count(*) into v_count
  from public.device_commands as c where c.status = 'running' and c.lease_expires_at < p_now - interval '5 minutes';
  return query select * from fleet.check_result('leases',
    case when v_count > 0 then 'broken' end,
    format('%s running though the lease ran out more than five minutes ago', fleet.counted(v_count, 'command is', 'commands are')),
    'A step of the tick takes them back; see whether it fails: select fleet_status() -> ''engine'' -> ''steps''');

  select count(*), count(distinct c.device_id) into v_count, v_other
  from public.device_commands as c
  join public.devices as d on d.id = c.device_id
  where c.status = 'pending' and c.channel = 'agent' and c.not_before < p_now - interval '1 hour' and c.waits_for is null
    and d.last_seen > p_now - interval '10 minutes';
  return query select * from fleet.check_result('claims',
    case when v_count > 0 then 'warning' end,
    format('%s waiting for an hour, though the %s seen since', fleet.counted(v_count, 'command is', 'commands are'),
      fleet.counted(v_other, 'device was', 'devices were')),
    'Their agents ask and do not claim; look at the log of one of them');

  select count(*) filter (where c.status in ('failed', 'expired')), count(*) into v_count, v_other
  from public.device_commands as c
  where c.executed_at > p_now - interval '1 day' and c.status in ('completed', 'failed', 'expired');
  return query select * from fleet.check_result('commands_succeed',
    case when v_other >= 20 and v_count > 0.2 * v_other then 'warning' end,
    format('%s of %s commands of the last day failed or expired', v_count, v_other),
    'See why: select * from command_list where status = ''failed''');

  select count(*), min(d.hostname) into v_count, v_text from public.devices as d where d.clone_seen_at is not null and d.status = 'active';
  return query select * from fleet.check_result('clones',
    case when v_count > 0 then 'warning' end,
    format('two agents use the secret of %s', case when v_count = 1 then v_text else v_count || ' devices' end),
    'A disk was copied; enrol one of the two anew: select * from device_list where clone_seen_at is not null');
end;
$$;

comment on function fleet.check_work(timestamptz) is 'Checks of schedules, commands and devices.';
revoke all on function fleet.check_work(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.check_others(p_now timestamptz)
returns table (name text, state text, found text, hint text, can_be_repaired boolean)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count bigint;
  v_refused bigint;
  v_silent bigint;
  v_text text;
begin
  select count(*) into v_count from (
    select from public.device_integrations as i where i.status = 'active'
    union all
    select from public.webhook_endpoints as e where e.enabled
  ) as x;
  return query select * from fleet.check_result('functions_url',
    case when v_count > 0 and fleet.setting('functions_url') = 'null' then 'warning' end,
    format('%s the HTTP functions, whose address is not set', fleet.counted(v_count, 'integration or webhook needs', 'integrations and webhooks need')),
    'Functions that run all the time hear of work without it; those that sleep do not: select fleet.set_setting(''functions_url'', ''"https://…"'')');

  select count(*), count(*) filter (where l.status = 429), count(*) filter (where l.status is null) into v_count, v_refused, v_silent
  from public.mdm_api_logs as l where l.created_at > p_now - interval '1 hour' and l.method is not null;
  return query select * from fleet.check_result('rate_limits',
    case when v_refused >= 5 and v_refused > 0.02 * v_count then 'warning' end,
    format('%s of %s calls of the last hour were refused as too many', v_refused, v_count),
    'Lower rate_per_second in the settings of the integration');
  return query select * from fleet.check_result('providers_answer',
    case when v_silent >= 5 and v_silent > 0.2 * v_count then 'warning' end,
    format('%s of %s calls of the last hour had no answer', v_silent, v_count),
    'mdm_api_logs has them, without a status');

  select count(*), min(i.name) into v_count, v_text
  from public.device_integrations as i where i.status = 'active' and i.last_sync_at < p_now - interval '1 hour';
  return query select * from fleet.check_result('syncs',
    case when v_count > 0 then 'warning' end,
    format('%s not been read for an hour, "%s" among them', fleet.counted(v_count, 'integration has', 'integrations have'), v_text),
    'integration_activity_log has what the last sync said');

  select count(*), min(c.not_before)::text into v_count, v_text
  from public.device_commands as c
  where c.status = 'pending' and c.channel = 'mdm' and c.not_before < p_now - interval '10 minutes' and c.waits_for is null;
  return query select * from fleet.check_result('mdm_commands',
    case when v_count > 0 then 'warning' end,
    format('%s waiting for an MDM for more than ten minutes, the oldest since %s', fleet.counted(v_count, 'command is', 'commands are'), v_text),
    'The HTTP functions take them, at the rate of the integration; see whether they run');

  select count(*) into v_count
  from public.webhook_deliveries as d where d.status in ('pending', 'running') and d.created_at < p_now - interval '10 minutes' and d.attempts = 0;
  return query select * from fleet.check_result('deliveries',
    case when v_count > 0 then 'warning' end,
    format('%s waiting for more than ten minutes without a first try', fleet.counted(v_count, 'message is', 'messages are')),
    'The HTTP functions deliver them; see whether they run');
end;
$$;

comment on function fleet.check_others(timestamptz) is 'Checks of integrations, webhooks and the HTTP functions.';
revoke all on function fleet.check_others(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.checkup(p_now timestamptz)
returns table (area text, name text, state text, found text, hint text, can_be_repaired boolean)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select c.area, r.*
  from fleet.common_checks(fleet.engine_status(p_now), fleet.zone_status(), p_now) as c
  cross join lateral fleet.check_result(c.name, c.state, c.found, c.hint) as r
  union all
  select 'engine', c.* from fleet.check_engine(p_now) as c
  union all
  select 'shell', c.* from fleet.check_shell() as c
  union all
  select 'database', c.* from fleet.check_database(p_now) as c
  union all
  select 'work', c.* from fleet.check_work(p_now) as c
  union all
  select 'others', c.* from fleet.check_others(p_now) as c;
end;
$$;

comment on function fleet.checkup(timestamptz) is
  'See public.fleet_checkup. Definer: for the service role, which runs the platform; what is found may name anybody''s.';
revoke all on function fleet.checkup(timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.checkup(timestamptz) to service_role;

create or replace function public.fleet_checkup(p_now timestamptz default now())
returns table (area text, name text, state text, found text, hint text, can_be_repaired boolean)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query select * from fleet.checkup(p_now);
end;
$$;

comment on function public.fleet_checkup(timestamptz) is
  'Every check of the platform as a row, for the service role: {area, name, state: ok, warning, broken or unknown, found, hint, can_be_repaired}. It '
  'changes nothing.';
revoke all on function public.fleet_checkup(timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.fleet_checkup(timestamptz) to service_role;

create or replace function public.fleet_repair(p_name text)
returns text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  case p_name
    when 'jobs' then
      -- What is switched off is there, and would be taken for what is wanted.
      if exists (select 1 from fleet.job_faults()) then
        execute 'select cron.unschedule(j.jobid) from cron.job as j join fleet.job_faults() as f on f.name = j.jobname where j.username = current_user';
      end if;
      perform fleet.sync_jobs();
    when 'publication' then perform fleet.sync_publication();
    when 'functions_login' then perform fleet.grant_worker();
    when 'partitions' then perform fleet.tend_telemetry();
    else
      raise exception 'the check "%" has no repair of its own', coalesce(p_name, '')
        using errcode = 'PT422', detail = 'repair_unknown',
          hint = 'These have: jobs, publication, functions_login, partitions. What to do about another says its hint: select * from fleet_checkup()';
  end case;
  return p_name;
end;
$$;

comment on function public.fleet_repair(text) is
  'Mend what a check found, where that is safe at any time: jobs, publication, functions_login or partitions. For the owner of the schema. Raises '
  'repair_unknown (PT422).';
revoke all on function public.fleet_repair(text) from public, anon, authenticated, service_role;

-- db/sources/90_operations/50_numbers.sql
-- Several databases: each hands out ids of its own, so that an owner can move from one to another.

create or replace function fleet.number_sequences()
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_first bigint := fleet.setting_number('database_number')::bigint * 17592186044416;
  v_sequence regclass;
  v_last bigint;
begin
  if v_first = 0 then
    return;
  end if;
  for v_sequence in
    select s.oid
    from pg_class as s
    join pg_depend as d on d.classid = 'pg_class'::regclass and d.objid = s.oid and d.deptype in ('i', 'a')
    where s.relkind = 'S' and s.relnamespace in ('public'::regnamespace, 'fleet'::regnamespace)
  loop
    execute format('select x.last_value from %s as x', v_sequence) into v_last;
    if v_last < v_first then
      perform setval(v_sequence, v_first, true);
    end if;
  end loop;
end;
$$;

comment on function fleet.number_sequences() is
  'Let every identity begin at the number of the database times 2^44, those of new tables too. Up to number 511 ids stay within what JavaScript '
  'counts exactly.';
revoke all on function fleet.number_sequences() from public, anon, authenticated, service_role;

create or replace function fleet.number_database(p_number integer)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_number integer := fleet.setting_number('database_number')::integer;
begin
  if (p_number between 0 and 511) is not true then
    raise exception 'the number of a database is 0 to 511, not %', p_number
      using errcode = 'PT422', detail = 'database_number_invalid', hint = 'Give each of your databases a number of its own.';
  elsif v_number not in (0, p_number) then
    raise exception 'this database has the number % already', v_number
      using errcode = 'PT409', detail = 'database_numbered', hint = 'Ids that it has handed out stay; make another database for another number.';
  end if;
  perform fleet.set_setting('database_number', to_jsonb(p_number));
  perform fleet.number_sequences();
  return p_number;
end;
$$;

comment on function fleet.number_database(integer) is
  'Give this database a number of its own among several, once, from which its ids follow. Raises database_number_invalid (PT422) or '
  'database_numbered (PT409).';
revoke all on function fleet.number_database(integer) from public, anon, authenticated, service_role;

-- db/sources/90_operations/60_moves.sql
-- Moving an owner to another database: it is held still here, copied there, and then known to live there.

create or replace function fleet.transactions_at_moves()
returns text[]
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  -- Each that asked whether an owner is held has this lock until it ends.
  select coalesce(array_agg(distinct l.virtualtransaction), '{}')
  from pg_locks as l
  where l.relation = 'fleet.owner_moves'::regclass and l.granted and l.pid <> pg_backend_pid()
    and l.database = (select d.oid from pg_database as d where d.datname = current_database())
$$;

comment on function fleet.transactions_at_moves() is 'The virtual transactions of others that have asked whether an owner is being moved, and have not ended.';
revoke all on function fleet.transactions_at_moves() from public, anon, authenticated, service_role;

create or replace function fleet.begin_move(p_owner_id uuid)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_state text;
  v_is_new boolean;
begin
  if not exists (select 1 from public.owners as o where o.id = p_owner_id) then
    perform fleet.raise_not_found(format('owner %s', p_owner_id));
  end if;
  insert into fleet.owner_moves (owner_id) values (p_owner_id) on conflict do nothing;
  v_is_new := found;
  if not v_is_new then
    -- Whoever asked before that was committed still writes, and would do so after the copy was made.
    update fleet.owner_moves as m
    set witnesses = fleet.transactions_at_moves()
    where m.owner_id = p_owner_id and m.witnesses is null;
  end if;
  select m.state into v_state from fleet.owner_moves as m where m.owner_id = p_owner_id;
  return jsonb_build_object(
    'owner_id', p_owner_id, 'state', v_state,
    -- That it is held has yet to be committed: the next call tells who has not seen it.
    'under_way', v_is_new::integer + fleet.calls_under_way(p_owner_id, clock_timestamp())
  );
end;
$$;

comment on function fleet.begin_move(uuid) is
  'Hold an owner still, so that it can be copied to another database: its people only look, its devices, webhooks and other systems wait, and '
  'nothing of it starts or goes out. Called again, in a transaction of its own, until under_way is 0: then all that was begun before has ended. '
  '{owner_id, state, under_way}. Raises owner_not_found (PT404).';
revoke all on function fleet.begin_move(uuid) from public, anon, authenticated, service_role;

create or replace function fleet.calls_under_way(p_owner_id uuid, p_now timestamptz)
returns bigint
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select (select count(*) from public.webhook_deliveries as d
      where d.owner_id = p_owner_id and d.status = 'running' and d.next_attempt_at > p_now)
    + (select count(*) from fleet.mdm_work as w where w.owner_id = p_owner_id and w.held_until > p_now)
    + (select count(*) from fleet.mdm_rereads as r where r.owner_id = p_owner_id and r.held_until > p_now)
    + (select count(*) from fleet.profile_uploads as u where u.owner_id = p_owner_id and u.held_until > p_now)
    -- The next tick acts on them, in the order in which they happened.
    + (select count(*) from public.location_events as e where e.owner_id = p_owner_id and e.acted_at is null)
    + (select count(*) from fleet.owner_moves as m cross join unnest(m.witnesses) as w(id)
      where m.owner_id = p_owner_id and exists (select 1 from pg_locks as l where l.virtualtransaction = w.id))
$$;

comment on function fleet.calls_under_way(uuid, timestamptz) is
  'How much has begun for an owner and not ended, calls of the functions, transactions, and what follows from positions: what comes of it belongs to the copy, too.';
revoke all on function fleet.calls_under_way(uuid, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.give_up_move(p_owner_id uuid)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (select 1 from fleet.owner_moves as m where m.owner_id = p_owner_id and m.state = 'moved') then
    raise exception 'owner % lives elsewhere already', p_owner_id
      using errcode = 'PT409', detail = 'owner_moved', hint = 'Its devices were told. Move it back from there.';
  end if;
  delete from fleet.owner_moves as m where m.owner_id = p_owner_id;
  return found;
end;
$$;

comment on function fleet.give_up_move(uuid) is
  'Let an owner that was held still go on here, where its copy is not used. Answers whether it was held. Raises owner_moved (PT409).';
revoke all on function fleet.give_up_move(uuid) from public, anon, authenticated, service_role;

create or replace function fleet.finish_move(p_owner_id uuid, p_url text, p_anon_key text, p_functions_url text default null)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_devices bigint;
begin
  if coalesce(p_url, '') !~ '^https?://[^[:space:]]+$' or coalesce(p_functions_url, 'http://x') !~ '^https?://[^[:space:]]+$' then
    raise exception 'the address must begin with http:// or https://'
      using errcode = 'PT422', detail = 'address_invalid', hint = 'Give the address of the other platform, as its agents use it.';
  elsif coalesce(p_anon_key, '') = '' then
    raise exception 'the key of the other platform is missing'
      using errcode = 'PT422', detail = 'anon_key_missing', hint = 'Give its anon or publishable key.';
  end if;
  update fleet.owner_moves as m
  set state = 'moved', moved_at = coalesce(m.moved_at, now()), url = rtrim(p_url, '/'), anon_key = p_anon_key,
      functions_url = rtrim(p_functions_url, '/')
  where m.owner_id = p_owner_id;
  if not found then
    raise exception 'owner % was not exported', p_owner_id
      using errcode = 'PT409', detail = 'owner_not_leaving', hint = 'Export it first: select fleet.begin_move(<owner>)';
  end if;

  insert into fleet.moved_devices (secret_hash, device_id, owner_id)
  select c.secret_hash, c.device_id, c.owner_id from fleet.device_credentials as c where c.owner_id = p_owner_id
  on conflict do nothing;
  get diagnostics v_devices = row_count;
  -- Who listens asks at once, at the pace of all doorbells; who does not asks when it looks by itself.
  insert into fleet.doorbells (device_id, owner_id, ring_at, command_type)
  select d.id, d.owner_id, now(), 'moved' from public.devices as d where d.owner_id = p_owner_id and d.status = 'active'
  on conflict do nothing;
  return jsonb_build_object('owner_id', p_owner_id, 'state', 'moved', 'url', rtrim(p_url, '/'), 'devices', v_devices);
end;
$$;

comment on function fleet.finish_move(uuid, text, text, text) is
  'Say that an owner lives elsewhere now: its devices are rung, and whoever asks for a token hears where to, signed. {owner_id, state, url, '
  'devices}. Raises address_invalid, anon_key_missing (PT422) or owner_not_leaving (PT409).';
revoke all on function fleet.finish_move(uuid, text, text, text) from public, anon, authenticated, service_role;

create or replace function fleet.purge_owner(p_owner_id uuid, p_devices integer default 500)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_table record;
  v_count bigint;
begin
  if not exists (select 1 from fleet.owner_moves as m where m.owner_id = p_owner_id and m.state = 'moved') then
    raise exception 'owner % does not live elsewhere', p_owner_id
      using errcode = 'PT409', detail = 'owner_not_moved', hint = 'Say first where it is: select fleet.finish_move(<owner>, <url>, <anon key>)';
  end if;
  delete from public.devices as d
  where d.id in (select x.id from public.devices as x where x.owner_id = p_owner_id order by x.id limit p_devices);
  get diagnostics v_count = row_count;
  if v_count < p_devices then
    delete from public.owners as o where o.id = p_owner_id;
    for v_table in select t.name, t.condition from fleet.owned_tables() as t order by t.depth desc loop
      execute format('delete from %s as x where %s', v_table.name, v_table.condition) using p_owner_id;
    end loop;
  end if;
  return jsonb_build_object('owner_id', p_owner_id, 'devices', v_count, 'more', v_count >= p_devices);
end;
$$;

comment on function fleet.purge_owner(uuid, integer) is
  'Delete what is here of an owner that lives elsewhere, its log too, but for the address that its devices are told: {owner_id, devices, more}. '
  'So many devices a call; more says to call again. Raises owner_not_moved (PT409).';
revoke all on function fleet.purge_owner(uuid, integer) from public, anon, authenticated, service_role;

create or replace function fleet.keep_move_key(p_candidate text)
returns text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_key text;
begin
  insert into public.pg_cron_secrets (name, secret) values ('owner_move_key', p_candidate) on conflict do nothing;
  select s.secret into v_key from public.pg_cron_secrets as s where s.name = 'owner_move_key';
  return v_key;
end;
$$;

comment on function fleet.keep_move_key(text) is
  'The private key to which owners that come here are encrypted: the one that is kept, or this one from now on.';
revoke all on function fleet.keep_move_key(text) from public, anon, authenticated, service_role;

-- db/sources/90_operations/62_moved_rows.sql
-- The rows of an owner that moves: which they are, how they leave, and how they arrive.

create or replace function fleet.owned_tables()
returns table (name text, condition text, depth integer)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with recursive kept as materialized (
    select c.oid, c.oid::regclass::text as name, n.nspname || '.' || c.relname as full_name,
      array(select a.attname::text from pg_attribute as a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as columns
    from pg_class as c
    join pg_namespace as n on n.oid = c.relnamespace
    where n.nspname in ('public', 'fleet', 'telemetry')
      and c.relkind in ('r', 'p') and not c.relispartition
      -- What belongs to the move itself, and what is on its way into the points.
      and n.nspname || '.' || c.relname not in ('fleet.owner_moves', 'fleet.moved_devices', 'fleet.arriving_rows', 'telemetry.staging')
  ),
  owned as (
    select k.oid, k.full_name as name,
      case
        when k.full_name = 'public.owners' then 'x.id = $1'
        when 'owner_id' = any (k.columns) then 'x.owner_id = $1'
        when k.full_name = 'public.pg_cron_secrets' then
          'x.name in (select ''integration:'' || i.id from public.device_integrations as i where i.owner_id = $1'
          ' union all select ''webhook:'' || w.id from public.integration_webhooks as w where w.owner_id = $1)'
        when 'run_id' = any (k.columns) then
          'x.run_id in (select r.id from public.schedule_runs as r where r.owner_id = $1)'
        when 'schedule_id' = any (k.columns) then
          'x.schedule_id in (select s.id from public.schedules as s where s.owner_id = $1)'
        when 'device_id' = any (k.columns) then
          'x.device_id in (select d.id from public.devices as d where d.owner_id = $1)'
      end as condition
    from kept as k
  ),
  refers as materialized (
    select distinct f.conrelid, f.confrelid
    from pg_constraint as f
    where f.contype = 'f' and f.conrelid <> f.confrelid and f.conparentid = 0
  ),
  deep (oid, depth) as (
    select o.oid, 0 from owned as o where o.condition is not null
    union
    select f.conrelid, d.depth + 1
    from deep as d
    join refers as f on f.confrelid = d.oid
    where d.depth < 25
  )
  select o.name, o.condition, max(d.depth)
  from owned as o
  join deep as d on d.oid = o.oid
  where o.condition is not null
  group by o.name, o.condition
  order by max(d.depth), o.name
$$;

comment on function fleet.owned_tables() is
  'The tables whose rows are somebody''s: the condition on x by which they are those of the owner $1, and how deep they stand in what refers to '
  'what: a row refers to rows of lesser depth, or of its own table.';
revoke all on function fleet.owned_tables() from public, anon, authenticated, service_role;

create or replace function fleet.shape_of_tables()
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select md5(string_agg(format('%s.%s %s', t.name, a.attname, a.atttypid::regtype), ',' order by t.name, a.attname))
  from fleet.owned_tables() as t
  join pg_attribute as a on a.attrelid = t.name::regclass and a.attnum > 0 and not a.attisdropped
$$;

comment on function fleet.shape_of_tables() is 'A digest of the columns of all tables that are moved: two databases of one version have the same.';
revoke all on function fleet.shape_of_tables() from public, anon, authenticated, service_role;

create or replace function fleet.departing_owner(p_owner_id uuid)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (select 1 from fleet.owner_moves as m where m.owner_id = p_owner_id) then
    raise exception 'owner % is not held still', p_owner_id
      using errcode = 'PT409', detail = 'owner_not_leaving', hint = 'Begin with: select fleet.begin_move(<owner>)';
  end if;
  return (
    select jsonb_build_object(
      'owner_id', o.id, 'name', o.name, 'database_number', fleet.setting('database_number'), 'shape', fleet.shape_of_tables(),
      'command_types', (
        select coalesce(jsonb_agg(to_jsonb(t) order by t.name), '[]')
        from public.command_types as t
        where t.owner_id is null and t.name in (
          select s.action_type from public.schedules as s where s.owner_id = o.id
          union select r.action_type from public.schedule_runs as r where r.owner_id = o.id
          union select c.command_type from public.device_commands as c where c.owner_id = o.id
          union select p.action_type from public.location_policies as p where p.owner_id = o.id
          union select u.action_type from public.telemetry_rules as u where u.owner_id = o.id
        )
      ),
      'tables', (select jsonb_agg(t.name order by t.depth, t.name) from fleet.owned_tables() as t)
    )
    from public.owners as o
    where o.id = p_owner_id
  );
end;
$$;

comment on function fleet.departing_owner(uuid) is
  'What an export says first of an owner that is held still: {owner_id, name, database_number, shape, command_types, tables}. Raises '
  'owner_not_leaving (PT409).';
revoke all on function fleet.departing_owner(uuid) from public, anon, authenticated, service_role;

create or replace function fleet.departing_rows(p_owner_id uuid, p_table text)
returns table (line text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_table record;
begin
  select t.* into strict v_table from fleet.owned_tables() as t where t.name = p_table;
  return query execute format('select to_jsonb(x)::text from %s as x where %s', v_table.name, v_table.condition) using p_owner_id;
end;
$$;

comment on function fleet.departing_rows(uuid, text) is 'The rows of an owner in one of fleet.owned_tables(), each as JSON.';
revoke all on function fleet.departing_rows(uuid, text) from public, anon, authenticated, service_role;

create or replace function fleet.check_arrival(p_head jsonb)
returns uuid
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid := (p_head ->> 'owner_id')::uuid;
begin
  if exists (select 1 from public.owners as o where o.id = v_owner) then
    raise exception 'owner % is here already', v_owner
      using errcode = 'PT409', detail = 'owner_exists', hint = 'It arrives once, and in a database that does not have it.';
  elsif p_head -> 'database_number' = fleet.setting('database_number') then
    raise exception 'both databases have the number %', p_head ->> 'database_number'
      using errcode = 'PT409', detail = 'database_numbers_equal',
            hint = 'Give this one a number of its own, so that ids are never the same: pgfleet db migrate --database-number N';
  elsif p_head ->> 'shape' <> fleet.shape_of_tables() then
    raise exception 'the other database is of another version of pgfleet'
      using errcode = 'PT409', detail = 'versions_differ', hint = 'Migrate both with the same version: pgfleet db migrate';
  end if;
  delete from fleet.arriving_rows as a where a.owner_id = v_owner;
  -- It may come back to where it once was.
  delete from fleet.moved_devices as d where d.owner_id = v_owner;
  delete from fleet.owner_moves as m where m.owner_id = v_owner;
  return v_owner;
end;
$$;

comment on function fleet.check_arrival(jsonb) is
  'See whether an owner can arrive, by what its export says first, and answer its id. Raises owner_exists, database_numbers_equal or '
  'versions_differ (PT409).';
revoke all on function fleet.check_arrival(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.take_arriving(p_owner_id uuid, p_table text, p_batch bigint, p_rows jsonb)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into fleet.arriving_rows (owner_id, table_name, batch, rows) values (p_owner_id, p_table, p_batch, p_rows);
  return jsonb_array_length(p_rows);
end;
$$;

comment on function fleet.take_arriving(uuid, text, bigint, jsonb) is
  'Put rows of an owner aside until all of them are there. Answers how many.';
revoke all on function fleet.take_arriving(uuid, text, bigint, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.arrive(p_owner_id uuid, p_head jsonb)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_table record;
  v_columns text;
  v_values text;
  v_count bigint;
  v_counts jsonb := '{}';
begin
  -- As at a migration: no tick meets half of an owner. All rows are here, so it is a matter of moments.
  perform pg_advisory_xact_lock(hashtext('pgfleet.migrate'));
  perform set_config('lock_timeout', '10s', true);
  insert into public.command_types (
    name, channel, description, payload_keys, timeout_seconds, rerun_safe, destructive, permission, is_built_in, created_at
  )
  select t.name, t.channel, t.description, t.payload_keys, t.timeout_seconds, t.rerun_safe, t.destructive, t.permission, t.is_built_in, t.created_at
  from jsonb_populate_recordset(null::public.command_types, p_head -> 'command_types') as t
  on conflict do nothing;
  perform telemetry.make_partition(d.day)
  from (
    select distinct ((r.item ->> 'at')::timestamptz at time zone 'UTC')::date as day
    from fleet.arriving_rows as a
    cross join lateral jsonb_array_elements(a.rows) as r(item)
    where a.owner_id = p_owner_id and a.table_name = 'telemetry.points'
  ) as d;

  -- The rows are what they were: nothing is checked, filled in, logged or told once more.
  for v_table in select t.name from fleet.owned_tables() as t order by t.depth, t.name loop
    execute format('alter table %s disable trigger user', v_table.name);
  end loop;
  for v_table in select t.name from fleet.owned_tables() as t order by t.depth, t.name loop
    select string_agg(quote_ident(a.attname), ', ' order by a.attnum),
      string_agg(
        case
          -- A JSON null comes back as none.
          when a.attnotnull and a.atttypid = 'jsonb'::regtype then format('coalesce(r.%I, ''null'')', a.attname)
          else format('r.%I', a.attname)
        end,
        ', ' order by a.attnum
      )
    into v_columns, v_values
    from pg_attribute as a
    where a.attrelid = v_table.name::regclass and a.attnum > 0 and not a.attisdropped and a.attgenerated = '';
    execute format(
      'insert into %1$s (%2$s) overriding system value select %3$s from fleet.arriving_rows as a,'
      ' jsonb_populate_recordset(null::%1$s, a.rows) as r where a.owner_id = $1 and a.table_name = $2',
      v_table.name, v_columns, v_values
    )
    using p_owner_id, v_table.name;
    get diagnostics v_count = row_count;
    v_counts := v_counts || case when v_count > 0 then jsonb_build_object(v_table.name, v_count) else '{}' end;
  end loop;
  for v_table in select t.name from fleet.owned_tables() as t order by t.depth, t.name loop
    execute format('alter table %s enable trigger user', v_table.name);
  end loop;
  delete from fleet.arriving_rows as a where a.owner_id = p_owner_id;
  return v_counts;
end;
$$;

comment on function fleet.arrive(uuid, jsonb) is
  'Make the rows that were put aside those of an owner that lives here, all or none, as they were: no trigger runs for them. Answers how many '
  'there are of each table. p_head is what the export says first.';
revoke all on function fleet.arrive(uuid, jsonb) from public, anon, authenticated, service_role;

-- db/sources/90_operations/65_restored.sql
-- After a restore: this database has forgotten what happened since its backup, and others have not.

create or replace function fleet.step_over_ids()
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_sequence record;
  v_last bigint;
  v_count integer := 0;
begin
  for v_sequence in
    select s.oid::regclass as name
    from pg_class as s
    join pg_sequence as q on q.seqrelid = s.oid and q.seqtypid = 'bigint'::regtype
    join pg_namespace as n on n.oid = s.relnamespace
    where n.nspname in ('public', 'fleet', 'telemetry')
  loop
    execute format('select x.last_value from %s as x', v_sequence.name) into v_last;
    -- More than any fleet hands out between two backups, and a small part of what a numbered database has.
    perform setval(v_sequence.name, v_last + 4294967296, true);
    v_count := v_count + 1;
  end loop;
  return v_count;
end;
$$;

comment on function fleet.step_over_ids() is 'Let every identity leave out the next 2^32 numbers. Answers how many identities there are.';
revoke all on function fleet.step_over_ids() from public, anon, authenticated, service_role;

create or replace function fleet.after_restore(p_now timestamptz default now())
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_sequences integer := fleet.step_over_ids();
  v_interrupted bigint;
begin
  -- Agents remember what they did, and are asked as ever. An MDM may have been told since, and nobody can say.
  update public.device_commands as c
  set status = 'failed', reason = 'interrupted',
      error_message = 'the database was restored, and the MDM may have been told of it since the backup'
  where c.channel = 'mdm'
    and c.status in ('pending', 'running')
    and c.not_before <= p_now
    and not exists (select 1 from public.command_types as t where t.name = c.command_type and t.owner_id is null and t.rerun_safe);
  get diagnostics v_interrupted = row_count;
  -- Default privileges of the project have opened what the restore made: the next migrate closes all of it again.
  if to_regclass('fleet_ledger.sources') is not null then
    execute 'update fleet_ledger.sources set digest = ''restored''';
  end if;
  return jsonb_build_object('identities', v_sequences, 'interrupted', v_interrupted);
end;
$$;

comment on function fleet.after_restore(timestamptz) is
  'To be called once after a restore from a backup, before anything ticks: numbers that were handed out since the backup are not given to others, '
  'what an MDM may have been told to do since, and is not safe to repeat, ends as interrupted, and the next migrate applies all rights anew. '
  '{identities, interrupted}.';
revoke all on function fleet.after_restore(timestamptz) from public, anon, authenticated, service_role;

-- db/sources/90_operations/views.sql
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

-- db/sources/90_operations/triggers.sql
-- What follows from a change of commands, told to each of the rooms that it concerns, and to no other: one trigger looks at the rows
-- for all of them, since devices claim and finish all the time and most of it concerns nobody.

create or replace function fleet.tg_follow_commands()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_what integer;
  v_ended bigint[];
  v_failed bigint[];
  v_waiting bigint[];
  v_is_run boolean;
  v_is_wave boolean;
begin
  -- What there is to be told, in one aggregate, since nearly every update comes by here with one row that asks for nothing:
  -- 1 an end that only what waits for it hears of, 2 any other end, 4 a deployment, 8 something of an MDM.
  select bit_or(
    case
      when n.status in ('pending', 'running') then 0
      when n.status in ('failed', 'expired') or n.run_id is not null or n.wave is not null then 2
      else 1
    end
    | case when n.command_type in ('deploy_software', 'deploy_files') then 4 else 0 end
    | case when n.channel = 'mdm' then 8 else 0 end
  ) into v_what
  from new_rows as n;

  if v_what & 3 > 0 and (v_what > 1 or exists (
    -- One look a row, whatever the plan was made for.
    select 1 from new_rows as n
    cross join lateral (select 1 from public.device_commands as c where c.waits_for = n.id limit 1) as w
  )) then
    select array_agg(n.id order by n.id), array_agg(n.id order by n.id) filter (where n.status in ('failed', 'expired')),
      count(n.run_id) > 0, count(n.wave) > 0
    into v_ended, v_failed, v_is_run, v_is_wave
    from new_rows as n
    join old_rows as o on o.id = n.id
    where o.status in ('pending', 'running') and n.status not in ('pending', 'running');
    if v_is_run then
      perform fleet.count_ended(v_ended);
    end if;
    if exists (select 1 from public.device_commands as c where c.waits_for = any (v_ended)) then
      perform fleet.queue_waiting(v_ended);
    end if;
  end if;

  if v_what & 4 > 0 then
    perform fleet.update_targets(array_agg(n.id))
    from new_rows as n
    join old_rows as o on o.id = n.id
    where fleet.is_deploy_type(n.command_type)
      and (n.status, n.attempt, n.reason, n.progress_at) is distinct from (o.status, o.attempt, o.reason, o.progress_at)
    having count(*) > 0;
  end if;
  if v_what & 8 > 0 then
    -- A time that was moved, a lease that ran out.
    select array_agg(n.id) into v_waiting
    from new_rows as n
    join old_rows as o on o.id = n.id
    where n.channel = 'mdm' and n.status = 'pending' and (o.status <> 'pending' or o.not_before <> n.not_before);
    perform fleet.follow_mdm_commands(
      v_waiting, (select array_agg(n.id) from new_rows as n where n.channel = 'mdm' and n.id = any (v_ended))
    );
  end if;
  if v_is_wave then
    perform fleet.tell_rollouts(v_ended);
  end if;
  if v_failed is not null then
    perform fleet.tell_failed_commands(v_failed);
  end if;
  return null;
end;
$$;

comment on function fleet.tg_follow_commands() is
  'Tell runs, rollouts, deployments, the queues of MDMs and whoever listens what became of commands, and ring for what waited for them. '
  'Definer: a device may write none of these.';
revoke all on function fleet.tg_follow_commands() from public, anon, authenticated, service_role;

-- Those of before, each of which looked by itself.
drop trigger if exists device_commands_05_count_progress on public.device_commands;
drop trigger if exists device_commands_07_move_targets on public.device_commands;
drop trigger if exists device_commands_08_follow_mdm on public.device_commands;
drop trigger if exists device_commands_08_tell_rollouts on public.device_commands;
drop trigger if exists device_commands_90_tell on public.device_commands;
drop function if exists fleet.tg_move_targets();
drop function if exists fleet.tg_follow_mdm_commands();
drop function if exists fleet.tg_tell_rollouts();
drop function if exists fleet.tg_tell_commands();
create or replace trigger device_commands_05_follow
  after update on public.device_commands
  referencing old table as old_rows new table as new_rows
  for each statement execute function fleet.tg_follow_commands();

create or replace function fleet.tg_follow_new_commands()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_deployments bigint[];
  v_for_mdms bigint[];
  v_held bigint[];
  v_removals bigint[];
begin
  -- Nearly all are none of these.
  if not exists (
    select 1 from new_rows as n
    where n.wave is not null or n.channel = 'mdm' or n.command_type in ('deploy_software', 'deploy_files', 'remove_profile')
  ) then
    return null;
  end if;

  select array_agg(n.id) filter (where fleet.is_deploy_type(n.command_type) and n.step = 0),
    array_agg(n.id) filter (where n.channel = 'mdm' and n.status = 'pending'),
    array_agg(n.id) filter (where n.wave is not null and n.step = 0),
    array_agg(n.id) filter (where n.command_type = 'remove_profile' and n.status = 'pending')
  into v_deployments, v_for_mdms, v_held, v_removals
  from new_rows as n;
  if v_deployments is not null then
    perform fleet.add_targets(v_deployments);
  end if;
  if v_for_mdms is not null then
    perform fleet.queue_mdm_commands(v_for_mdms, clock_timestamp());
  end if;
  if v_held is not null then
    perform fleet.hold_commands(v_held);
  end if;
  if v_removals is not null then
    -- After the queue of the MDM has them, which forgets what is final.
    perform fleet.keep_wanted_profiles(v_removals);
  end if;
  return null;
end;
$$;

comment on function fleet.tg_follow_new_commands() is
  'Tell rollouts, deployments, the queues of MDMs and profiles of new commands. Definer: a device and a person may write none of these.';
revoke all on function fleet.tg_follow_new_commands() from public, anon, authenticated, service_role;

-- Those of before, each of which looked by itself.
drop trigger if exists device_commands_07_add_targets on public.device_commands;
drop trigger if exists device_commands_07_queue_mdm on public.device_commands;
drop trigger if exists device_commands_08_hold on public.device_commands;
drop trigger if exists device_commands_10_keep_wanted on public.device_commands;
drop function if exists fleet.tg_add_targets();
drop function if exists fleet.tg_queue_mdm_commands();
drop function if exists fleet.tg_hold_commands();
drop function if exists fleet.tg_keep_wanted_profiles();
create or replace trigger device_commands_08_follow_new
  after insert on public.device_commands
  referencing new table as new_rows
  for each statement execute function fleet.tg_follow_new_commands();

-- Jobs, publications and time zones follow what was just defined.
set check_function_bodies = on;
select fleet.after_migrate();
reset search_path;
notify pgrst, 'reload schema';
