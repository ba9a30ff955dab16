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
