-- Schedules that run when a run of another one has ended: which may be followed, and what becomes of one whose parent is deleted.

create or replace function fleet.follow_problems(p_schedule public.schedules)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id bigint := p_schedule.after_schedule_id;
  v_seen bigint[] := '{}';
begin
  if v_id is null then
    return;
  end if;

  return query
  select q.field, q.problem, q.hint
  from fleet.choice_problem('after.on', to_jsonb(p_schedule.after_on), '{completed,failed,either}') as q;
  if p_schedule.after_per_device and p_schedule.policies ? 'rollout' then
    return next (
      'after.per_device', 'does not go with policies.rollout: each device goes on by itself',
      'Let the schedule that it follows be rolled out, or leave out per_device.'
    )::fleet.problem;
  end if;
  if not exists (
    select 1 from public.schedules as s where s.id = v_id and s.owner_id = p_schedule.owner_id
  ) then
    return query
    select 'after.schedule_id', format('schedule %s was not found', v_id), 'List your schedules with: select * from schedule_list';
    return;
  end if;

  -- Up the chain: whoever comes back to where it began would run for ever.
  while v_id is not null and v_id <> all (v_seen) loop
    if v_id = p_schedule.id then
      return query
      select 'after.schedule_id', format('schedule %s follows this one already: they would run for ever', p_schedule.after_schedule_id),
        'Let the first schedule of the chain have times of its own.';
      return;
    end if;
    v_seen := v_seen || v_id;
    select s.after_schedule_id into v_id from public.schedules as s where s.id = v_id;
  end loop;
end;
$$;

comment on function fleet.follow_problems(public.schedules) is
  'Whether the schedule that this one follows exists for its owner and does not follow it in turn.';
revoke all on function fleet.follow_problems(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.has_lost_parent(p_old public.schedules, p_new public.schedules)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select p_old.after_schedule_id is not null
      and p_new.after_schedule_id is null
      and not exists (select 1 from public.schedules as s where s.id = p_old.after_schedule_id)
  );
end;
$$;

comment on function fleet.has_lost_parent(public.schedules, public.schedules) is
  'Whether this change comes from the foreign key: the schedule that this one follows is deleted.';
revoke all on function fleet.has_lost_parent(public.schedules, public.schedules)
  from public, anon, authenticated, service_role;

create or replace function fleet.abandoned_schedule(p_old public.schedules, p_new public.schedules)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules := p_new;
begin
  v_row.after_on := null;
  v_row.after_per_device := false;
  -- Nobody said when it is to run instead; times that it has besides wait until it is resumed.
  v_row.next_run_at := case
    when v_row.recurrence_type <> 'once' and v_row.status in ('active', 'paused') then fleet.first_due(v_row, clock_timestamp())
  end;
  if v_row.status = 'active' then
    v_row.status := 'paused';
    v_row.status_reason := format('schedule %s, which it followed, was deleted', p_old.after_schedule_id);
  end if;
  v_row.updated_at := now();
  return v_row;
end;
$$;

comment on function fleet.abandoned_schedule(public.schedules, public.schedules) is
  'The row of a schedule that followed one that is deleted: paused, with the reason.';
revoke all on function fleet.abandoned_schedule(public.schedules, public.schedules)
  from public, anon, authenticated, service_role;

create or replace function fleet.destructive_follower(p_schedule_id bigint, p_on text[])
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    with recursive chain as (
      select s.id, s.owner_id, s.action_type
      from public.schedules as s
      where s.after_schedule_id = p_schedule_id
        and s.after_on = any (p_on)
        and s.status in ('active', 'paused')
        and s.owner_id = (select p.owner_id from public.schedules as p where p.id = p_schedule_id)
      union
      select s.id, s.owner_id, s.action_type
      from chain as c
      join public.schedules as s on s.after_schedule_id = c.id and s.owner_id = c.owner_id
      where s.status in ('active', 'paused')
    )
    select c.action_type
    from chain as c
    join public.command_types as t on t.name = c.action_type and coalesce(t.owner_id, c.owner_id) = c.owner_id and t.destructive
    limit 1
  );
end;
$$;

comment on function fleet.destructive_follower(bigint, text[]) is
  'A destructive command type that some schedule further down the chain of this one sends, where its runs end like that; null where none does.';
revoke all on function fleet.destructive_follower(bigint, text[]) from public, anon, authenticated, service_role;

create or replace function fleet.require_destructive_chain(
  p_owner_id uuid,
  p_schedule_id bigint,
  p_on text[] default '{completed,failed,either}'
)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Whoever may pull the first domino has to have the right for the last.
  perform fleet.require_destructive(p_owner_id, fleet.destructive_follower(p_schedule_id, p_on));
end;
$$;

comment on function fleet.require_destructive_chain(uuid, bigint, text[]) is
  'Raise permission_missing (PT403) where something destructive follows a schedule, at any distance, and the caller may not wipe.';
revoke all on function fleet.require_destructive_chain(uuid, bigint, text[]) from public, anon, authenticated, service_role;

create or replace function fleet.destructive_schedules(p_owner_id uuid)
returns table (group_ids bigint[], selector jsonb)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select s.group_ids, s.selector
  from public.schedules as s
  join public.command_types as t on t.name = s.action_type and coalesce(t.owner_id, s.owner_id) = s.owner_id and t.destructive
  where s.owner_id = p_owner_id and s.status in ('active', 'paused')
  union all
  select array[p.group_id], p.selector
  from public.location_policies as p
  join public.command_types as t on t.name = p.action_type and coalesce(t.owner_id, p.owner_id) = p.owner_id and t.destructive
  where p.owner_id = p_owner_id
  union all
  select '{}', g.selector
  from public.device_groups as g
  where g.owner_id = p_owner_id and g.selector is not null and exists (
    select 1
    from public.schedules as s
    join public.command_types as t on t.name = s.action_type and coalesce(t.owner_id, s.owner_id) = s.owner_id and t.destructive
    where s.owner_id = p_owner_id and s.status in ('active', 'paused') and g.id = any (s.group_ids)
    union all
    select 1
    from public.location_policies as p
    join public.command_types as t on t.name = p.action_type and coalesce(t.owner_id, p.owner_id) = p.owner_id and t.destructive
    where p.owner_id = p_owner_id and p.group_id = g.id
  );
end;
$$;

comment on function fleet.destructive_schedules(uuid) is
  'Whom the schedules and location policies of an owner wipe that are not at their end: groups, and selectors of their own or of groups.';
revoke all on function fleet.destructive_schedules(uuid) from public, anon, authenticated, service_role;

create or replace function fleet.require_destructive_groups(p_owner_id uuid, p_group_ids bigint[], p_tags text[] default '{}')
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (
    select 1
    from fleet.destructive_schedules(p_owner_id) as s
    where s.group_ids && p_group_ids
      -- A device that has these tags may be one that is wanted, whatever else it is.
      or (p_tags <> '{}' and fleet.device_matches(
        s.selector, p_tags, coalesce(s.selector #>> '{platform,0}', s.selector ->> 'platform'), s.selector -> 'attributes', '{}'
      ))
  ) then
    perform fleet.require_permission(p_owner_id, 'destructive', format('owner %s', p_owner_id));
  end if;
end;
$$;

comment on function fleet.require_destructive_groups(uuid, bigint[], text[]) is
  'Raise permission_missing (PT403) where a schedule or location policy wipes the devices of one of these groups, or with such tags, and the '
  'caller may not.';
revoke all on function fleet.require_destructive_groups(uuid, bigint[], text[]) from public, anon, authenticated, service_role;

create or replace function fleet.reported_problems(p_owner_id uuid, p_command_type text, p_group_ids bigint[], p_selector jsonb)
returns setof fleet.problem
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (select 1 from public.command_types as t where t.name = p_command_type and coalesce(t.owner_id, p_owner_id) = p_owner_id and t.destructive) then
    return;
  end if;
  if p_selector ? 'reported' then
    return next (
      'selector.reported', 'is what a device says of itself, and never decides whom to wipe', 'Use tags, platform or attributes.'
    )::fleet.problem;
  end if;
  return query
  select 'group_ids', format('group "%s" goes by what devices report, which never decides whom to wipe', g.name),
    'Use groups that list their devices, or select by tags, platform or attributes.'
  from public.device_groups as g
  where g.id = any (p_group_ids) and g.owner_id = p_owner_id and g.selector ? 'reported';
end;
$$;

comment on function fleet.reported_problems(uuid, text, bigint[], jsonb) is
  'Selectors of something destructive that go by what devices say of themselves.';
revoke all on function fleet.reported_problems(uuid, text, bigint[], jsonb) from public, anon, authenticated, service_role;
