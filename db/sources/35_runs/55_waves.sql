-- Waves: the ordered groups of a run that does not reach everybody at once. Whoever wants a run held fills run_waves before it is expanded.

create or replace function fleet.held_until()
returns timestamptz
language sql
immutable
parallel safe
return timestamptz '9000-01-01 00:00:00+00';

comment on function fleet.held_until() is 'When commands that are held may start: never. A date, since clients cannot read infinity.';
revoke all on function fleet.held_until() from public, anon, authenticated, service_role;

create or replace function fleet.place_of_device(p_schedule_id bigint, p_device_id bigint)
returns numeric
language sql
immutable
parallel safe
return ('x' || substr(md5('rollout:' || p_schedule_id || ':' || p_device_id), 1, 8))::bit(32)::bigint / 42949672.96;

comment on function fleet.place_of_device(bigint, bigint) is 'The place of a device in the rollouts of a schedule, from 0 to 100: always the same.';
revoke all on function fleet.place_of_device(bigint, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.wave_of(p_run_id bigint, p_schedule_id bigint, p_device_id bigint)
returns smallint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_place numeric := fleet.place_of_device(p_schedule_id, p_device_id);
  v_wave smallint;
begin
  select w.wave into v_wave
  from public.run_waves as w
  where w.run_id = p_run_id
    and (
      w.percent_to > v_place
      or p_device_id = any (w.device_ids)
      or (w.tag is not null and exists (select 1 from public.devices as d where d.id = p_device_id and w.tag = any (d.tags)))
    )
  order by w.wave
  limit 1;
  if not found then
    select max(w.wave) into v_wave from public.run_waves as w where w.run_id = p_run_id;
  end if;
  return v_wave;
end;
$$;

comment on function fleet.wave_of(bigint, bigint, bigint) is 'The group of a device in a run: the first that takes it, else the last; null where the run has none.';
revoke all on function fleet.wave_of(bigint, bigint, bigint) from public, anon, authenticated, service_role;
