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
