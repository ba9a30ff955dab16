-- What jobs do for telemetry, where it is in this database.

create or replace function fleet.tend_telemetry(p_now timestamptz default now())
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return telemetry.worker_tend(fleet.setting_number('telemetry_days')::integer, p_now);
end;
$$;

comment on function fleet.tend_telemetry(timestamptz) is 'Make partitions ahead, and drop what is older than the setting telemetry_days. {made, dropped}.';
revoke all on function fleet.tend_telemetry(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.roll_up_telemetry()
returns integer
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select telemetry.worker_roll_up(100000)
$$;

comment on function fleet.roll_up_telemetry() is 'Count the hours anew whose points have changed. Answers how many.';
revoke all on function fleet.roll_up_telemetry() from public, anon, authenticated, service_role;
