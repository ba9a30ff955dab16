-- The tick: the only scheduler. Everything that time decides happens here.

create or replace function fleet.tick_steps()
returns table (name text, function text, figure text, batch integer)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  values
    ('locations', 'tend_locations', null, null),
    ('start', 'start_due_runs', 'runs', 2000),
    ('expand', 'expand_next', null, null),
    ('sweep', 'sweep_commands', 'swept', null),
    ('settle', 'settle_runs', 'settled', null),
    ('ring', 'ring_doorbells', 'rung', null),
    ('notify', 'poke_notify', null, null),
    ('mdm', 'poke_mdm', null, null),
    ('prune', 'prune_in_passing', 'pruned', null)
$$;

comment on function fleet.tick_steps() is
  'What a tick does, in this order. Each function takes the time. One that answers an object of figures names them itself, and says with '
  'more that another tick has work at once; the number that another answers, or the length of its list, is told as figure, and as many '
  'as batch mean more.';
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

create or replace function fleet.run_tick_steps(p_now timestamptz)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  v_step record;
  v_begun timestamptz;
  v_answer jsonb;
  v_error text;
  v_figures jsonb := '{}';
  v_more boolean := false;
  v_steps jsonb := '[]';
begin
  for v_step in select s.* from fleet.tick_steps() as s loop
    v_begun := clock_timestamp();
    v_answer := null;
    v_error := null;
    -- Each step by itself: a fault in one of them must not stop the others.
    begin
      execute format('select to_jsonb(fleet.%I($1))', v_step.function) into v_answer using p_now;
    exception when others then
      v_error := left(sqlerrm, 500);
    end;
    v_answer := fleet.step_outcome(v_answer, v_step.figure, v_step.batch);
    v_more := v_more or coalesce(v_answer -> 'more' = 'true', false);
    v_figures := v_figures || v_answer;
    v_steps := v_steps || jsonb_build_object(
      'name', v_step.name,
      'ms', round((extract(epoch from clock_timestamp() - v_begun) * 1000)::numeric, 1),
      'error', v_error
    );
  end loop;
  return jsonb_build_object('figures', v_figures || jsonb_build_object('more', v_more), 'steps', v_steps);
end;
$$;

comment on function fleet.run_tick_steps(timestamptz) is
  'Take each step of a tick: {figures: what they did, and whether there is more, steps: [{name, ms, error}]}.';
revoke all on function fleet.run_tick_steps(timestamptz) from public, anon, authenticated, service_role;

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

create or replace function fleet.tick(p_now timestamptz default now())
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  v_started timestamptz := clock_timestamp();
  v_done jsonb;
  v_errors text[];
begin
  -- A migration holds this lock alone: new tables must not meet old functions.
  if not pg_try_advisory_xact_lock_shared(hashtext('pgfleet.migrate')) then
    return jsonb_build_object('skipped', 'a migration is running');
  end if;

  perform fleet.set_ticking(true);
  v_done := fleet.run_tick_steps(p_now);
  perform fleet.set_ticking(false);

  v_errors := array(
    select format('%s: %s', s.step ->> 'name', s.step ->> 'error')
    from jsonb_array_elements(v_done -> 'steps') with ordinality as s(step, n)
    where s.step ->> 'error' is not null
    order by s.n
  );
  -- Two ticks at once never wait for each other, not even to say that they are there.
  update fleet.heartbeat as h
  set last_tick_at = p_now,
      tick_count = h.tick_count + 1,
      tick_ms = round((extract(epoch from clock_timestamp() - v_started) * 1000)::numeric, 1),
      steps = fleet.remembered_steps(h.steps, v_done -> 'steps', p_now),
      last_error = case when v_errors = '{}' then h.last_error else array_to_string(v_errors, '; ') end,
      last_error_at = case when v_errors = '{}' then h.last_error_at else p_now end
  where h.id in (select b.id from fleet.heartbeat as b for update skip locked);

  return v_done -> 'figures' || jsonb_build_object('errors', to_jsonb(v_errors));
end;
$$;

comment on function fleet.tick(timestamptz) is
  'Everything that is due, one step of fleet.tick_steps() after the other: {runs, commands, swept, settled, rung, …, errors, more}; more '
  'says that another tick has work at once. A fault of one step stops no other and is told by fleet_status(). Any number of sessions may '
  'tick.';
revoke all on function fleet.tick(timestamptz) from public, anon, authenticated, service_role;

-- A procedure that commits can have no SET clause, so every name in it is qualified.
create or replace procedure fleet.tick_minute()
language plpgsql
as $$
declare
  v_next timestamptz;
  v_last timestamptz;
  v_result jsonb;
  v_waited integer := 0;
begin
  -- One ticker at a time. The one before leaves within a second of its last tick; until then this one waits, so that the
  -- hand-over leaves no gap.
  while not pg_catalog.pg_try_advisory_lock(pg_catalog.hashtext('pgfleet.ticker')) loop
    if v_waited >= 50 then
      return;
    end if;
    v_waited := v_waited + 1;
    perform pg_catalog.pg_sleep(0.1);
    commit;
  end loop;

  v_next := pg_catalog.date_trunc('second', pg_catalog.clock_timestamp());
  v_last := pg_catalog.date_trunc('minute', pg_catalog.clock_timestamp()) + interval '1 minute';
  loop
    exit when fleet.setting('ticker_enabled') = 'false'::pg_catalog.jsonb;
    begin
      v_result := fleet.tick(pg_catalog.clock_timestamp());
    exception when others then
      v_result := '{}';
      update fleet.heartbeat set last_error = sqlerrm, last_error_at = pg_catalog.clock_timestamp();
    end;
    commit;
    continue when coalesce((v_result ->> 'more')::boolean, false) and pg_catalog.clock_timestamp() <= v_last;

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
  perform pg_catalog.pg_advisory_unlock(pg_catalog.hashtext('pgfleet.ticker'));
end;
$$;

comment on procedure fleet.tick_minute() is
  'Tick on every whole second up to the next minute, each in its own transaction. The only statement of its pg_cron jobs, because it '
  'commits. The setting ticker_enabled stops it.';
revoke all on procedure fleet.tick_minute() from public, anon, authenticated, service_role;
