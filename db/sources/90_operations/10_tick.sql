-- The tick: the only scheduler. Everything that time decides happens here.

create or replace function fleet.tick(p_now timestamptz default now())
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  v_started timestamptz := clock_timestamp();
  v_acted integer := 0;
  v_runs bigint[] := '{}';
  v_expanded jsonb := '{}';
  v_swept integer := 0;
  v_settled integer := 0;
  v_rung integer := 0;
  v_errors text[] := '{}';
begin
  -- A migration holds this lock alone: new tables must not meet old functions.
  if not pg_try_advisory_xact_lock_shared(hashtext('pgfleet.migrate')) then
    return jsonb_build_object('skipped', 'a migration is running');
  end if;

  perform set_config('pgfleet.is_ticking', 'yes', true);
  -- Each step by itself: a fault in one of them must not stop the others.
  begin
    v_acted := fleet.tend_places(p_now);
  exception when others then
    v_errors := v_errors || ('places: ' || sqlerrm);
  end;
  begin
    v_runs := fleet.start_due_runs(p_now);
  exception when others then
    v_errors := v_errors || ('start: ' || sqlerrm);
  end;
  begin
    v_expanded := fleet.expand_next(p_now);
  exception when others then
    v_errors := v_errors || ('expand: ' || sqlerrm);
  end;
  begin
    v_swept := fleet.sweep_commands(p_now);
  exception when others then
    v_errors := v_errors || ('sweep: ' || sqlerrm);
  end;
  begin
    v_settled := fleet.settle_runs(p_now);
  exception when others then
    v_errors := v_errors || ('settle: ' || sqlerrm);
  end;
  begin
    v_rung := fleet.ring_doorbells(p_now);
  exception when others then
    v_errors := v_errors || ('ring: ' || sqlerrm);
  end;
  begin
    perform fleet.poke_notify(p_now);
    perform fleet.poke_mdm(p_now);
  exception when others then
    v_errors := v_errors || ('poke: ' || sqlerrm);
  end;

  perform set_config('pgfleet.is_ticking', 'no', true);

  -- Two ticks at once never wait for each other, not even to say that they are there.
  update fleet.heartbeat as h
  set last_tick_at = p_now,
      tick_count = h.tick_count + 1,
      tick_ms = round((extract(epoch from clock_timestamp() - v_started) * 1000)::numeric, 1),
      last_error = case when v_errors = '{}' then h.last_error else array_to_string(v_errors, '; ') end,
      last_error_at = case when v_errors = '{}' then h.last_error_at else p_now end
  where h.id in (select b.id from fleet.heartbeat as b for update skip locked);

  return v_expanded || jsonb_build_object(
    'runs', cardinality(v_runs),
    'swept', v_swept,
    'settled', v_settled,
    'rung', v_rung,
    'errors', to_jsonb(v_errors),
    'more', coalesce((v_expanded ->> 'more')::boolean, false)
      or cardinality(v_runs) >= 2000
      -- Only after some progress: what another session holds must not keep this one spinning.
      or (v_acted > 0 and exists (select 1 from public.location_events as e where e.acted_at is null))
  );
end;
$$;

comment on function fleet.tick(timestamptz) is
  'One step of the scheduler: start what is due, expand a chunk, end leases, settle runs, ring doorbells, poke functions that have work. {runs, commands, swept, '
  'settled, rung, errors, more}; more says that another tick has work at once. Any number of sessions may tick.';
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
