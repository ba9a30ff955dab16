-- Applying a document as a whole: what it names comes to be as it says, each schedule after the one that it follows.

create or replace function fleet.apply_schedule(p_owner_id uuid, p_schedule jsonb)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_old public.schedules := fleet.schedule_by_name(p_owner_id, p_schedule ->> 'name');
  v_base public.schedules := fleet.blank_schedule(p_owner_id);
  v_status text := fleet.status_of_spec(p_schedule);
  v_row public.schedules;
begin
  -- What the document does not say is as by default; only when it began, and whether it is paused, stays as it is.
  v_base.start_time := v_old.start_time;
  v_row := fleet.changed_schedule(v_base, p_schedule - 'status');
  v_row.status := coalesce(v_status, v_base.status);
  if v_old.id is not null then
    -- What is gone has no name to stand in a document; it is as it was.
    select v_row.device_ids || g.device_ids, v_row.group_ids || g.group_ids into v_row.device_ids, v_row.group_ids
    from fleet.gone_targets(v_old) as g;
    -- The twin columns follow from payload and targets, which the document has in full.
    v_row := fleet.completed_schedule(v_base, v_row);
    v_row.id := v_old.id;
    v_row.profile_id := v_old.profile_id;
    v_row.device_id := v_old.device_id;
  end if;

  v_row.id := fleet.store_schedule(v_row);
  update public.schedules as s
  set status = v_status, status_reason = null
  where s.id = v_old.id and s.status in ('active', 'paused') and s.status <> v_status;
  select s.* into v_row from public.schedules as s where s.id = v_row.id;
  return fleet.plan_item(
    'schedule', p_schedule ->> 'name',
    case when v_old.id is not null then fleet.schedule_document(v_old) end,
    fleet.schedule_document(v_row)
  );
end;
$$;

comment on function fleet.apply_schedule(uuid, jsonb) is 'Bring one schedule to what a document says. Answers what that took.';
revoke all on function fleet.apply_schedule(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.in_order_of_chains(p_schedules jsonb)
returns jsonb
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_left jsonb := coalesce(p_schedules, '[]');
  v_ready jsonb;
  v_ordered jsonb := '[]';
begin
  while v_left <> '[]' loop
    -- Ready is what follows nothing that is still left.
    with item as materialized (
      select e.item, e.nr from jsonb_array_elements(v_left) with ordinality as e(item, nr)
    ),
    named as materialized (
      select distinct lower(i.item ->> 'name') as name from item as i
    )
    select coalesce(jsonb_agg(i.item order by i.nr) filter (where n.name is null), '[]'),
      coalesce(jsonb_agg(i.item order by i.nr) filter (where n.name is not null), '[]')
    into v_ready, v_left
    from item as i
    left join named as n on n.name = lower(i.item #>> '{after,schedule}');
    if v_ready = '[]' then
      raise exception 'these schedules follow each other in a circle: %', (
        select string_agg(e.item ->> 'name', ', ') from jsonb_array_elements(v_left) as e(item)
      )
        using errcode = 'PT422', detail = 'document_invalid', hint = 'Let the first of them have times of its own.';
    end if;
    v_ordered := v_ordered || v_ready;
  end loop;
  return v_ordered;
end;
$$;

comment on function fleet.in_order_of_chains(jsonb) is
  'The schedules of a document, each behind the one that it follows. Raises document_invalid (PT422) for a circle.';
revoke all on function fleet.in_order_of_chains(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.apply_item(p_owner_id uuid, p_section text, p_item jsonb)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_hint text;
begin
  return case p_section
    when 'groups' then fleet.apply_group(p_owner_id, p_item)
    when 'blackout_calendars' then fleet.apply_calendar(p_owner_id, p_item)
    when 'templates' then fleet.apply_template(p_owner_id, p_item)
    else fleet.apply_schedule(p_owner_id, p_item)
  end;
exception
  when sqlstate 'PT403' or sqlstate 'PT404' or sqlstate 'PT409' or sqlstate 'PT422' then
    -- Kept for the one error that names all that is wrong with the document.
    get stacked diagnostics v_hint = pg_exception_hint;
    return jsonb_build_object(
      'do', 'refuse',
      'field', format('%s "%s"', case p_section when 'blackout_calendars' then 'calendar' else rtrim(p_section, 's') end, p_item ->> 'name'),
      'problem', regexp_replace(sqlerrm, '^the (schedule|template|calendar) is not valid: ', ''),
      'hint', v_hint
    );
end;
$$;

comment on function fleet.apply_item(uuid, text, jsonb) is 'Apply one thing of a document; what is wrong with it is an answer, not an error.';
revoke all on function fleet.apply_item(uuid, text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.apply_new_schedules(p_owner_id uuid, p_items jsonb[])
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_blank public.schedules := fleet.blank_schedule(p_owner_id);
  v_item jsonb;
  v_row public.schedules;
  v_rows public.schedules[] := '{}';
begin
  if p_items = '{}' then
    return '[]';
  end if;
  begin
    foreach v_item in array p_items loop
      v_row := fleet.numbered_schedule(fleet.changed_schedule(v_blank, v_item - 'status'));
      v_row.status := coalesce(fleet.status_of_spec(v_item), v_row.status);
      v_rows := array_append(v_rows, v_row);
    end loop;
    perform fleet.insert_schedules(v_rows);
    return (
      select jsonb_agg(fleet.plan_item('schedule', u.item ->> 'name', null, '{}') order by u.nr)
      from unnest(p_items) with ordinality as u(item, nr)
    );
  exception
    when sqlstate 'PT403' or sqlstate 'PT404' or sqlstate 'PT409' or sqlstate 'PT422' then
      -- One of them is bad: each by itself, and all that is wrong is told.
      return (
        select jsonb_agg(fleet.apply_item(p_owner_id, 'schedules', u.item) order by u.nr)
        from unnest(p_items) with ordinality as u(item, nr)
      );
  end;
end;
$$;

comment on function fleet.apply_new_schedules(uuid, jsonb[]) is
  'Make schedules of a document, all of them in one statement. Answers what that took of each.';
revoke all on function fleet.apply_new_schedules(uuid, jsonb[]) from public, anon, authenticated, service_role;

create or replace function fleet.apply_schedules(p_owner_id uuid, p_schedules jsonb)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_done jsonb := '[]';
  v_item jsonb;
  v_new jsonb[] := '{}';
  v_names text[] := '{}';
begin
  for v_item in select e.item from jsonb_array_elements(p_schedules) as e(item) loop
    -- Whatever follows one that is new comes after it.
    if lower(v_item #>> '{after,schedule}') = any (v_names) then
      v_done := v_done || fleet.apply_new_schedules(p_owner_id, v_new);
      v_new := '{}';
      v_names := '{}';
    end if;
    if exists (
      select 1
      from public.schedules as s
      where s.owner_id = p_owner_id and lower(s.name) = lower(v_item ->> 'name') and s.status <> 'cancelled'
    ) then
      v_done := v_done || fleet.apply_item(p_owner_id, 'schedules', v_item);
    else
      v_new := array_append(v_new, v_item);
      v_names := array_append(v_names, lower(v_item ->> 'name'));
    end if;
  end loop;
  return v_done || fleet.apply_new_schedules(p_owner_id, v_new);
end;
$$;

comment on function fleet.apply_schedules(uuid, jsonb) is
  'Bring schedules to what a document says, in the order of its chains: those that are there one by one, the new ones together. Answers what that '
  'took of each.';
revoke all on function fleet.apply_schedules(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.apply_sections(p_owner_id uuid, p_document jsonb)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_done jsonb := '[]';
  v_section text;
  v_item jsonb;
begin
  foreach v_section in array '{groups,blackout_calendars,templates}'::text[] loop
    for v_item in select e.item from jsonb_array_elements(coalesce(p_document -> v_section, '[]')) as e(item) loop
      v_done := v_done || fleet.apply_item(p_owner_id, v_section, v_item);
    end loop;
  end loop;
  v_done := v_done || fleet.apply_schedules(p_owner_id, fleet.in_order_of_chains(p_document -> 'schedules'));

  perform fleet.raise_problems(
    'the document', 'document_invalid',
    array_agg((e.item ->> 'field', e.item ->> 'problem', e.item ->> 'hint')::fleet.problem)
  )
  from jsonb_array_elements(v_done) as e(item)
  where e.item ->> 'do' = 'refuse';
  return v_done;
end;
$$;

comment on function fleet.apply_sections(uuid, jsonb) is
  'Apply everything that a document names. Raises document_invalid with every problem of every part.';
revoke all on function fleet.apply_sections(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.cancel_unnamed(p_owner_id uuid, p_document jsonb)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  with gone as (
    update public.schedules as s
    set status = 'cancelled', status_reason = 'no longer in the applied document'
    where s.owner_id = p_owner_id
      and s.status in ('active', 'paused')
      and lower(s.name) not in (
        select lower(e.item ->> 'name') from jsonb_array_elements(coalesce(p_document -> 'schedules', '[]')) as e(item)
      )
    returning s.name
  )
  select coalesce(jsonb_agg(jsonb_build_object('kind', 'schedule', 'name', g.name) order by lower(g.name)), '[]')
  from gone as g
$$;

comment on function fleet.cancel_unnamed(uuid, jsonb) is 'Cancel the schedules that a document does not name; their history stays.';
revoke all on function fleet.cancel_unnamed(uuid, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.apply_document(p_document jsonb, p_dry_run boolean, p_prune boolean, p_owner_id uuid)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid := fleet.owner_or_own(p_owner_id);
  v_done jsonb;
  v_removed jsonb := '[]';
begin
  perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
  perform fleet.require_size('the document', 'document', p_document);
  perform fleet.raise_problems('the document', 'document_invalid', array_agg(q))
  from fleet.document_problems(p_document) as q;
  -- Two that apply at once take turns; the second finds what the first has made.
  perform pg_advisory_xact_lock(hashtextextended('pgfleet.apply_document ' || v_owner, 0));

  begin
    v_done := fleet.apply_sections(v_owner, p_document);
    if p_prune then
      v_removed := fleet.cancel_unnamed(v_owner, p_document);
    end if;
    if p_dry_run then
      -- The plan is what was really done, and then taken back.
      raise sqlstate 'PF001';
    end if;
  exception
    when sqlstate 'PF001' then
      null;
  end;

  return (
    select jsonb_build_object(
      'dry_run', coalesce(p_dry_run, false),
      'create', coalesce(jsonb_agg(e.item - '{do}'::text[]) filter (where e.item ->> 'do' = 'create'), '[]'),
      'change', coalesce(jsonb_agg(e.item - '{do}'::text[]) filter (where e.item ->> 'do' = 'change'), '[]'),
      'remove', v_removed,
      'unchanged', count(*) filter (where e.item ->> 'do' = 'nothing')
    )
    from jsonb_array_elements(v_done) as e(item)
  );
end;
$$;

comment on function fleet.apply_document(jsonb, boolean, boolean, uuid) is 'See public.apply_document. Definer: it checks the caller.';
revoke all on function fleet.apply_document(jsonb, boolean, boolean, uuid) from public, anon, authenticated, service_role;
grant execute on function fleet.apply_document(jsonb, boolean, boolean, uuid) to authenticated, service_role;

create or replace function public.apply_document(
  p_document jsonb,
  p_dry_run boolean default false,
  p_prune boolean default false,
  p_owner_id uuid default null
)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.apply_document(p_document, p_dry_run, p_prune, p_owner_id)
$$;

comment on function public.apply_document(jsonb, boolean, boolean, uuid) is
  'Bring groups, blackout calendars, templates and schedules to what a document of export_schedules says, by name; once more changes '
  'nothing. p_prune cancels schedules that it does not name. Answers {create, change: [{kind, name, changes}], remove, unchanged}; with '
  'p_dry_run nothing is kept. Raises document_invalid (PT422) with every problem of every part.';
revoke all on function public.apply_document(jsonb, boolean, boolean, uuid) from public, anon, authenticated, service_role;
grant execute on function public.apply_document(jsonb, boolean, boolean, uuid) to authenticated, service_role;
