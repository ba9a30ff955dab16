-- What devices say of their own health becomes points of their stream health, so that rules hear of it.

create or replace function fleet.take_health_reports(p_limit integer, p_now timestamptz)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  with turns as (
    select x.device_id
    from (
      select r.device_id, r.at, row_number() over (partition by r.owner_id order by r.at) as turn
      from fleet.health_reports as r
      where r.is_waiting and coalesce(r.stored_at < p_now - interval '1 minute', true)
    ) as x
    -- Owners in turn.
    order by x.turn, x.at
    limit p_limit
  ),
  taken as (
    update fleet.health_reports as r
    set is_waiting = false, stored_at = p_now
    from turns as t
    where r.device_id = t.device_id
    returning r.device_id, r.owner_id, r.at, r.data
  )
  select coalesce(jsonb_agg(to_jsonb(t)), '[]') from taken as t
$$;

comment on function fleet.take_health_reports(integer, timestamptz) is
  'Take reports that wait, owners in turn, one a minute of each device: [{device_id, owner_id, at, data}].';
revoke all on function fleet.take_health_reports(integer, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.store_health(p_now timestamptz default now())
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_batch uuid := gen_random_uuid();
  v_reports jsonb;
  v_result jsonb;
begin
  if not exists (select 1 from fleet.health_reports as r where r.is_waiting) then
    return 0;
  end if;
  v_reports := fleet.take_health_reports(2000, p_now);
  insert into telemetry.staging (batch, device_id, stream, at, digest, owner_id, source, is_provisional, data)
  select v_batch, r.device_id, 'health', r.at, md5(r.data::text)::uuid, r.owner_id, 'agent', false, r.data
  from jsonb_to_recordset(v_reports) as r(device_id bigint, owner_id uuid, at timestamptz, data jsonb)
  where pg_column_size(r.data) <= 32768;
  v_result := telemetry.worker_store(v_batch, fleet.setting_number('telemetry_days')::integer, p_now);
  perform fleet.worker_judge_points(v_result -> 'latest', p_now);
  return jsonb_array_length(v_reports);
end;
$$;

comment on function fleet.store_health(timestamptz) is
  'Store how devices said they are, in this database, and do what rules want because of it. Answers how many reports; called by the tick.';
revoke all on function fleet.store_health(timestamptz) from public, anon, authenticated, service_role;
