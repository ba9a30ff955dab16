-- Many schedules at once: all of them, or none and everything that is wrong with each.

create or replace function fleet.insert_schedules(p_rows public.schedules[])
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into public.schedules select r.* from unnest(p_rows) as r;
end;
$$;

comment on function fleet.insert_schedules(public.schedules[]) is
  'Insert rows of fleet.numbered_schedule in one statement: each is checked as every other write is, and what looks at all new rows looks once.';
revoke all on function fleet.insert_schedules(public.schedules[]) from public, anon, authenticated, service_role;

create or replace function fleet.problems_of_specs(p_specs jsonb[])
returns setof fleet.problem
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_spec jsonb;
  v_item text;
  v_nr bigint;
  v_hint text;
begin
  for v_spec, v_nr in
    select s.item, s.nr from unnest(p_specs) with ordinality as s(item, nr) order by s.nr
  loop
    v_item := format('schedules[%s]', v_nr - 1);
    begin
      perform fleet.require_object(v_spec, 'a schedule', 'See the README, "Schedules by example".');
      return query
      select v_item || '.' || q.field, q.problem, q.hint
      from fleet.read_changes(fleet.blank_schedule(fleet.owner_or_own(fleet.owner_of_spec(v_spec))), v_spec, true) as r
      cross join lateral unnest(r.problems) as q;
    exception
      when sqlstate 'PT404' or sqlstate 'PT409' or sqlstate 'PT422' then
        -- What cannot even be read has no field: its owner, its rule, its size.
        get stacked diagnostics v_hint = pg_exception_hint;
        return next (v_item, regexp_replace(sqlerrm, '^the schedule is not valid: ', ''), v_hint)::fleet.problem;
    end;
  end loop;
end;
$$;

comment on function fleet.problems_of_specs(jsonb[]) is
  'Everything that is wrong with each of these specifications: its place in the list, from 0, and the field.';
revoke all on function fleet.problems_of_specs(jsonb[]) from public, anon, authenticated, service_role;

create or replace function fleet.create_schedules(p_specs jsonb[])
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_spec jsonb;
  v_owner uuid;
  v_checked uuid;
  v_row public.schedules;
  v_rows public.schedules[] := '{}';
begin
  perform fleet.require_size('the schedules', 'document', to_jsonb(p_specs));
  begin
    foreach v_spec in array coalesce(p_specs, '{}') loop
      perform fleet.require_object(v_spec, 'a schedule', 'See the README, "Schedules by example".');
      v_owner := fleet.owner_or_own(fleet.owner_of_spec(v_spec));
      if v_owner is distinct from v_checked then
        perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
        v_checked := v_owner;
      end if;
      v_row := fleet.numbered_schedule(fleet.changed_schedule(fleet.blank_schedule(v_owner), v_spec));
      v_rows := array_append(v_rows, v_row);
    end loop;
    perform fleet.insert_schedules(v_rows);
  exception
    when sqlstate 'PT404' or sqlstate 'PT409' or sqlstate 'PT422' then
      -- One of them is wrong: each is looked at, and the one error names all.
      perform fleet.raise_problems('one of the schedules', 'schedule_invalid', array(select q from fleet.problems_of_specs(p_specs) as q));
      raise;
  end;

  -- Read again, in a statement of its own: what is due at once has run by now.
  return (
    select coalesce(jsonb_agg(fleet.creation_answer(r.id, s.item) order by r.ordinality), '[]')
    from unnest(v_rows) with ordinality as r
    join unnest(p_specs) with ordinality as s(item, nr) on s.nr = r.ordinality
  );
end;
$$;

comment on function fleet.create_schedules(jsonb[]) is
  'See public.create_schedules. Definer: it checks the caller first, then sees what the checks need to see.';
revoke all on function fleet.create_schedules(jsonb[]) from public, anon, authenticated, service_role;
grant execute on function fleet.create_schedules(jsonb[]) to authenticated, service_role;

create or replace function public.create_schedules(p_specs jsonb[])
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.create_schedules(p_specs)
$$;

comment on function public.create_schedules(jsonb[]) is
  'Create many schedules at once, each of the JSON that create_schedule takes: all of them, or none. What they follow or name is there already. '
  'Answers a list of the rows, in the same order, each with "warnings". Raises schedule_invalid (PT422, or PT404) naming every wrong field of '
  'each by its place in the list, like schedules[3].timezone.';
revoke all on function public.create_schedules(jsonb[]) from public, anon, authenticated, service_role;
grant execute on function public.create_schedules(jsonb[]) to authenticated, service_role;
