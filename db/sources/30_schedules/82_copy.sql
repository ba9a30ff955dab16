-- A schedule like another.

create or replace function fleet.duplicate_schedule(p_schedule_id bigint, p_changes jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_old public.schedules := fleet.schedule_of_caller(p_schedule_id, 'manage');
  v_status text := fleet.status_of_spec(p_changes);
  v_row public.schedules;
begin
  v_old.id := null;
  v_old.name := fleet.copy_name(v_old.owner_id, v_old.name);
  v_row := fleet.changed_schedule(v_old, case when jsonb_typeof(p_changes) = 'object' then p_changes - 'status' else p_changes end);
  v_row.status := coalesce(v_status, 'paused');
  -- Two statements: what the first one made is only seen by the next.
  v_row.id := fleet.store_schedule(v_row);
  return fleet.schedule_answer(v_row.id);
end;
$$;

comment on function fleet.duplicate_schedule(bigint, jsonb) is 'See public.duplicate_schedule. Definer: it checks the caller.';
revoke all on function fleet.duplicate_schedule(bigint, jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.duplicate_schedule(bigint, jsonb) to authenticated, service_role;

create or replace function fleet.copy_name(p_owner_id uuid, p_name text)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select c.name
  from (
    select n.number, p_name || case n.number when 1 then ' (copy)' else format(' (copy %s)', n.number) end as name
    from generate_series(1, 1000) as n(number)
  ) as c
  where not exists (
    select 1 from public.schedules as s where s.owner_id = p_owner_id and lower(s.name) = lower(c.name)
  )
  order by c.number
  limit 1
$$;

comment on function fleet.copy_name(uuid, text) is 'X (copy), or the first X (copy n) that the owner has no schedule of.';
revoke all on function fleet.copy_name(uuid, text) from public, anon, authenticated, service_role;

create or replace function public.duplicate_schedule(p_schedule_id bigint, p_changes jsonb default '{}')
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.duplicate_schedule(p_schedule_id, p_changes)
$$;

comment on function public.duplicate_schedule(bigint, jsonb) is
  'Make a schedule like another, named "X (copy)" and paused, with changes by the keys of create_schedule and status (active or paused). '
  'Answers the row with "warnings". Raises schedule_not_found (PT404), permission_missing (PT403) or schedule_invalid (PT422).';
revoke all on function public.duplicate_schedule(bigint, jsonb) from public, anon, authenticated, service_role;
grant execute on function public.duplicate_schedule(bigint, jsonb) to authenticated, service_role;
