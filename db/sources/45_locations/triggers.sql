-- What holds for locations and location policies however a row is written.

create or replace function fleet.tg_prepare_location()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  new.owner_id := fleet.owner_or_own(new.owner_id);
  perform fleet.require_permission(new.owner_id, 'manage', format('owner %s', new.owner_id));
  if tg_op = 'INSERT' then
    new.created_by := fleet.current_user_id();
  end if;

  perform fleet.raise_problems('the location', 'location_invalid', array_agg(q))
  from fleet.location_problems(new) as q;

  if new.kind = 'circle' then
    new.latitude := round(new.latitude::numeric, 9);
    new.longitude := round(new.longitude::numeric, 9);
    new.reach_m := new.radius_m;
  else
    new.polygon := fleet.rounded_polygon(new.polygon);
    -- A ring that is closed by its first corner is a ring.
    if new.polygon -> 0 = new.polygon -> -1 and jsonb_array_length(new.polygon) > 3 then
      new.polygon := new.polygon - -1;
    end if;
    perform fleet.raise_problems('the location', 'location_invalid', array_agg(q))
    from fleet.extent_problems(new.polygon) as q;
    select c.latitude, c.longitude, c.reach_m into new.latitude, new.longitude, new.reach_m
    from fleet.polygon_centre(new.polygon) as c;
  end if;
  new.updated_at := now();
  return new;
end;
$$;

comment on function fleet.tg_prepare_location() is
  'Check a location however it is written, and find the middle and the reach of a polygon. Raises location_invalid (PT422). Definer: it '
  'checks the caller.';
revoke all on function fleet.tg_prepare_location() from public, anon, authenticated, service_role;

create or replace trigger locations_01_prepare before insert or update on public.locations
  for each row execute function fleet.tg_prepare_location();

create or replace function fleet.tg_judge_location()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if fleet.judge_location(new, clock_timestamp()) > 0 and fleet.is_trusted_caller() then
    perform fleet.act_on_location_events(clock_timestamp());
  end if;
  return null;
end;
$$;

comment on function fleet.tg_judge_location() is
  'A new border, or one that moved, has devices on either side at once. Definer: whoever writes a location may not write what is known of '
  'devices.';
revoke all on function fleet.tg_judge_location() from public, anon, authenticated, service_role;

create or replace trigger locations_02_judge_new
  after insert on public.locations
  for each row execute function fleet.tg_judge_location();
create or replace trigger locations_02_judge_changed
  after update on public.locations
  for each row
  when (
    (new.kind, new.latitude, new.longitude, new.radius_m, new.polygon, new.hysteresis_m)
    is distinct from (old.kind, old.latitude, old.longitude, old.radius_m, old.polygon, old.hysteresis_m)
  )
  execute function fleet.tg_judge_location();

create or replace function fleet.tg_prepare_location_policy()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if new.owner_id is null then
    select l.owner_id into new.owner_id
    from public.locations as l
    where l.id = new.location_id and fleet.is_visible_owner(l.owner_id);
  end if;
  new.owner_id := fleet.owner_or_own(coalesce(new.owner_id, fleet.owner_of_named('{}', array[new.group_id])));
  perform fleet.require_permission(new.owner_id, 'manage', format('owner %s', new.owner_id));
  perform fleet.require_destructive(new.owner_id, new.action_type);
  if tg_op = 'INSERT' then
    new.created_by := fleet.current_user_id();
  end if;

  perform fleet.raise_problems('the location policy', 'location_policy_invalid', array_agg(q))
  from fleet.location_policy_problems(new) as q;
  new.payload := fleet.sealed(new.owner_id, new.payload);
  new.updated_at := now();
  return new;
end;
$$;

comment on function fleet.tg_prepare_location_policy() is
  'Check a location policy however it is written; one that wipes needs the permission to. Raises location_policy_invalid (PT422, PT404). Definer: '
  'it checks the caller, then sees what the checks need to see.';
revoke all on function fleet.tg_prepare_location_policy() from public, anon, authenticated, service_role;

create or replace trigger location_policies_01_prepare before insert or update on public.location_policies
  for each row execute function fleet.tg_prepare_location_policy();

-- Which locations there are and what they bring about, not where the devices are.
select fleet.keep_audit('public.locations');
select fleet.keep_audit('public.location_policies');

select fleet.keep_quota('public.locations', 'locations');
select fleet.keep_used_types('public.location_policies', 'array[x.action_type]');
