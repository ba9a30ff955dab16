-- Making, changing and deleting a schedule.

create or replace function fleet.blank_schedule(p_owner_id uuid)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules;
begin
  v_row := jsonb_populate_record(v_row, fleet.schedule_defaults());
  v_row.owner_id := p_owner_id;
  v_row.status := 'active';
  v_row.execution_count := 0;
  v_row.idle_count := 0;
  return v_row;
end;
$$;

comment on function fleet.blank_schedule(uuid) is 'The row of a schedule of which nothing is said yet: every default, and no id.';
revoke all on function fleet.blank_schedule(uuid) from public, anon, authenticated, service_role;

create or replace function fleet.creation_answer(p_schedule_id bigint, p_spec jsonb)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_answer jsonb := fleet.schedule_answer(p_schedule_id);
begin
  return jsonb_set(
    v_answer, '{warnings}', v_answer -> 'warnings' || to_jsonb(array_remove(array[fleet.zone_warning(v_answer, p_spec)], null))
  );
end;
$$;

comment on function fleet.creation_answer(bigint, jsonb) is
  'The row of a schedule that was made of a specification, with its warnings, that of a zone that was not named among them.';
revoke all on function fleet.creation_answer(bigint, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.create_schedule(p_spec jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid;
  v_id bigint;
begin
  perform fleet.require_object(p_spec, 'a schedule', 'See the README, "Schedules by example".');
  v_owner := fleet.owner_or_own(fleet.owner_of_spec(p_spec));
  perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
  v_id := fleet.store_schedule(fleet.changed_schedule(fleet.blank_schedule(v_owner), p_spec));
  -- Read again, in a statement of its own: what is due at once has run by now.
  return fleet.creation_answer(v_id, p_spec);
end;
$$;

comment on function fleet.create_schedule(jsonb) is
  'See public.create_schedule. Definer: it checks the caller first, then sees what the checks need to see.';
revoke all on function fleet.create_schedule(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.create_schedule(jsonb) to authenticated, service_role;

create or replace function public.create_schedule(p_spec jsonb)
returns jsonb
language sql
volatile
return fleet.create_schedule(p_spec);

comment on function public.create_schedule(jsonb) is
  'Create a schedule from JSON: name, action_type, payload, recurrence_type, recurrence_config, start_time, end_time, timezone, '
  'device_ids, group_ids, selector, policies, priority, after, rrule; devices, groups and after.schedule by name (task_name, task_type, scheduled_time, …_payload are understood too). A time '
  'without an offset is local to the zone. Answers the row with "warnings". Raises schedule_invalid (PT422, or PT404) naming every '
  'wrong field.';
revoke all on function public.create_schedule(jsonb) from public, anon, authenticated, service_role;
grant execute on function public.create_schedule(jsonb) to authenticated, service_role;

create or replace function fleet.read_changes(
  p_old public.schedules,
  p_changes jsonb,
  p_whole boolean,
  out item public.schedules,
  out problems fleet.problem[]
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_spec jsonb;
  v_fields text[] := '{}';
begin
  perform fleet.require_object(p_changes, 'changes of a schedule', 'Example: {"name": "Nightly", "priority": 5}');
  v_spec := fleet.normal_schedule_spec(p_changes);
  problems := '{}';
  if v_spec ?| '{devices,groups,after}' then
    problems := array(select t from fleet.name_problems(p_old.owner_id, v_spec) as t);
    v_spec := fleet.with_ids(p_old.owner_id, v_spec);
  end if;
  problems := problems || array(select t from fleet.spec_type_problems(v_spec) as t);
  if fleet.try_uuid(v_spec ->> 'owner_id') <> p_old.owner_id then
    problems := problems || ('owner_id', 'cannot be changed', 'Create the schedule anew for the other owner.')::fleet.problem;
  end if;

  v_spec := v_spec - 'owner_id';
  if problems <> '{}' then
    -- What has the wrong type stays as it was, so that everything else is still checked in the same answer.
    v_fields := array(select p.field from unnest(problems) as p);
    v_spec := v_spec - array(select split_part(f, '.', 1) from unnest(v_fields) as f);
  end if;
  item := fleet.schedule_from_spec(p_old, v_spec);
  if p_old.id is null then
    -- An insert has no old row to tell by which of two twin columns is meant.
    item := fleet.without_stale_twins(p_old, item);
  end if;

  -- The trigger knows columns only: whoever sends other names for them is told here, in these.
  if p_whole or problems <> '{}' or p_changes ?| fleet.schedule_alias_keys() then
    problems := problems || array(
      select q
      from fleet.schedule_problems(p_old, fleet.completed_schedule(p_old, fleet.without_stale_twins(p_old, item))) as q
      where q.field <> all (v_fields)
        -- Whoever is named but unknown is not nobody.
        and not (q.field = 'device_ids' and v_fields && '{devices,groups}')
    );
    problems := array(
      select (case when q.n <= 50 then fleet.sent_field(p_changes, q.field) else q.field end, q.problem, q.hint)::fleet.problem
      from unnest(problems) with ordinality as q(field, problem, hint, n)
      order by q.n
    );
  end if;
end;
$$;

comment on function fleet.read_changes(public.schedules, jsonb, boolean) is
  'The row with changes in the keys of create_schedule, and what is wrong with them: where one cannot even be read, where other names for '
  'columns were sent, or if p_whole asks for it, everything; else what the trigger would not find, which checks whatever is written.';
revoke all on function fleet.read_changes(public.schedules, jsonb, boolean) from public, anon, authenticated, service_role;

create or replace function fleet.changed_schedule(p_old public.schedules, p_changes jsonb)
returns public.schedules
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_read record;
begin
  v_read := fleet.read_changes(p_old, p_changes, false);
  perform fleet.raise_problems('the schedule', 'schedule_invalid', v_read.problems);
  return v_read.item;
end;
$$;

comment on function fleet.changed_schedule(public.schedules, jsonb) is
  'The row with changes in the keys of create_schedule, as it is to be written; of a row without an id, the one to be inserted. Raises '
  'schedule_invalid naming every wrong field where one cannot even be read; the rest is left to the trigger, which checks whatever is '
  'written.';
revoke all on function fleet.changed_schedule(public.schedules, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.numbered_schedule(p_row public.schedules)
returns public.schedules
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  p_row.id := nextval('public.schedules_id_seq');
  p_row.created_at := now();
  p_row.updated_at := now();
  return p_row;
end;
$$;

comment on function fleet.numbered_schedule(public.schedules) is
  'A new row with what the table has defaults for: whole rows are inserted by a plan that is kept, and have them already.';
revoke all on function fleet.numbered_schedule(public.schedules) from public, anon, authenticated, service_role;

create or replace function fleet.store_schedule(p_row public.schedules)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_columns text;
  v_id bigint := p_row.id;
  v_row public.schedules;
begin
  if v_id is null then
    v_row := fleet.numbered_schedule(p_row);
    insert into public.schedules select r.* from unnest(array[v_row]) as r;
    return v_row.id;
  end if;

  -- Only what differs: the triggers, and what they check, go by the columns that are named.
  select string_agg(quote_ident(c.name), ', ') into v_columns
  from fleet.schedule_columns() as c
  cross join (
    select to_jsonb(s) as was, to_jsonb(p_row) as is_to_be from public.schedules as s where s.id = v_id
  ) as d
  where d.was -> c.name is distinct from d.is_to_be -> c.name;
  if v_columns is not null then
    execute format(
      'update public.schedules as s set (%1$s) = (select %1$s from (select ($1).*) as r) where s.id = ($1).id', v_columns
    )
    using p_row;
  end if;
  return v_id;
end;
$$;

comment on function fleet.store_schedule(public.schedules) is
  'Insert the row, with its status, where it has no id; else bring the row of that id to it, without its status. Nothing is done where '
  'nothing differs. The trigger checks it, as it checks every other write.';
revoke all on function fleet.store_schedule(public.schedules) from public, anon, authenticated, service_role;
-- It wrote the columns one by one.
drop function if exists fleet.schedule_column_list();

create or replace function fleet.schedule_answer(p_schedule_id bigint)
returns jsonb
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select to_jsonb(s) || jsonb_build_object('warnings', fleet.schedule_warnings(s))
    from public.schedules as s
    where s.id = p_schedule_id
  );
end;
$$;

comment on function fleet.schedule_answer(bigint) is 'The row of a schedule with its warnings.';
revoke all on function fleet.schedule_answer(bigint) from public, anon, authenticated, service_role;

create or replace function fleet.update_schedule(p_schedule_id bigint, p_changes jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_old public.schedules := fleet.schedule_of_caller(p_schedule_id, 'manage');
begin
  if v_old.status = 'cancelled' then
    raise exception 'schedule % is cancelled', p_schedule_id
      using errcode = 'PT409',
            detail = 'schedule_cancelled',
            hint = format('Make a new one of it: select duplicate_schedule(%s)', p_schedule_id);
  end if;
  perform fleet.store_schedule(fleet.changed_schedule(v_old, p_changes));
  return fleet.schedule_answer(p_schedule_id);
end;
$$;

comment on function fleet.update_schedule(bigint, jsonb) is
  'See public.update_schedule. Definer: it checks the caller first, then sees what the checks need to see.';
revoke all on function fleet.update_schedule(bigint, jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.update_schedule(bigint, jsonb) to authenticated, service_role;

create or replace function public.update_schedule(p_schedule_id bigint, p_changes jsonb)
returns jsonb
language sql
volatile
return fleet.update_schedule(p_schedule_id, p_changes);

comment on function public.update_schedule(bigint, jsonb) is
  'Change a schedule by the keys of create_schedule; what is not named stays, and objects such as policies are replaced as a whole. The '
  'next run is computed anew where times changed; history stays. Answers the row with "warnings". Raises schedule_not_found (PT404), permission_missing (PT403), schedule_invalid '
  '(PT422) naming every wrong field, or schedule_cancelled (PT409).';
revoke all on function public.update_schedule(bigint, jsonb) from public, anon, authenticated, service_role;
grant execute on function public.update_schedule(bigint, jsonb) to authenticated, service_role;

create or replace function fleet.delete_schedule(p_schedule_id bigint)
returns public.schedules
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.schedules := fleet.schedule_of_caller(p_schedule_id, 'manage');
begin
  delete from public.schedules as s where s.id = p_schedule_id;
  return v_row;
end;
$$;

comment on function fleet.delete_schedule(bigint) is 'See public.delete_schedule. Definer: it checks the caller.';
revoke all on function fleet.delete_schedule(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.delete_schedule(bigint) to authenticated, service_role;

create or replace function public.delete_schedule(p_schedule_id bigint)
returns public.schedules
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.delete_schedule(p_schedule_id)
$$;

comment on function public.delete_schedule(bigint) is
  'Delete a schedule with its runs and commands; to keep the history, cancel it instead. Answers the row as it was. Raises '
  'schedule_not_found (PT404) or permission_missing (PT403).';
revoke all on function public.delete_schedule(bigint) from public, anon, authenticated, service_role;
grant execute on function public.delete_schedule(bigint) to authenticated, service_role;
