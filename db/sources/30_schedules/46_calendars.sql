-- Blackout calendars: making, filling and deleting them.

create or replace function fleet.period_problems(p_periods jsonb)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with given as (
    select format('periods[%s]', e.nr - 1) as field, e.item,
      jsonb_typeof(e.item) = 'object' and e.item ? 'starts_on' as is_days,
      jsonb_typeof(e.item) = 'object' and e.item ? 'starts_at' as is_times
    from jsonb_array_elements(case when jsonb_typeof(p_periods) = 'array' then p_periods else '[]' end)
      with ordinality as e(item, nr)
    -- That there are more is said elsewhere; what is wrong with them nobody reads.
    where e.nr <= fleet.limit_value('periods')
  )
  select 'periods', 'must be a list', 'Example: [{"starts_on": "2026-12-21", "ends_on": "2027-01-04", "summary": "Winter"}]'
  where jsonb_typeof(p_periods) is distinct from 'array'
  union all
  select g.field, 'must be an object with either starts_on or starts_at', 'Example: {"starts_on": "2026-12-25"}'
  from given as g
  where g.is_days = g.is_times
  union all
  select g.field || '.' || k, 'is not a key of this period',
    'Days have starts_on, ends_on (the day after the last) and summary; times have starts_at, ends_at and summary.'
  from given as g
  cross join lateral jsonb_object_keys(case when jsonb_typeof(g.item) = 'object' then g.item else '{}' end) as k
  where g.is_days <> g.is_times
    and k <> all (case when g.is_days then '{starts_on,ends_on,summary}' else '{starts_at,ends_at,summary}' end::text[])
  union all
  select g.field || '.' || k.key, format('%s is not a date', g.item -> k.key), 'Write it like "2026-12-25".'
  from given as g
  cross join (values ('starts_on'), ('ends_on')) as k(key)
  where g.is_days and g.item ? k.key and fleet.try_date(g.item ->> k.key) is null
  union all
  select g.field || '.' || k.key, format('%s is not a time with an offset', coalesce(g.item ->> k.key, 'nothing')),
    'Write it like "2026-12-25T18:00:00+01:00" or "2026-12-25T17:00:00Z".'
  from given as g
  cross join (values ('starts_at'), ('ends_at')) as k(key)
  where g.is_times and fleet.try_exact_instant(g.item ->> k.key) is null
  union all
  select g.field, 'ends before it starts', 'ends_on is the day after the last, as in iCalendar.'
  from given as g
  where fleet.try_date(g.item ->> 'starts_on') >= fleet.try_date(g.item ->> 'ends_on')
    or fleet.try_exact_instant(g.item ->> 'starts_at') >= fleet.try_exact_instant(g.item ->> 'ends_at')
$$;

comment on function fleet.period_problems(jsonb) is 'Everything that is wrong with the periods of a calendar.';
revoke all on function fleet.period_problems(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.store_calendar(
  p_owner_id uuid,
  p_name text,
  p_description text,
  p_periods jsonb
)
returns bigint
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id bigint;
begin
  insert into public.blackout_calendars as c (owner_id, name, description)
  values (p_owner_id, p_name, coalesce(p_description, ''))
  on conflict (owner_id, lower(name)) do update
    set description = coalesce(p_description, c.description)
  returning c.id into v_id;

  delete from public.blackout_periods as p where p.calendar_id = v_id;
  insert into public.blackout_periods (calendar_id, owner_id, starts_on, ends_on, starts_at, ends_at, summary)
  select v_id, p_owner_id, fleet.try_date(e.item ->> 'starts_on'),
    coalesce(fleet.try_date(e.item ->> 'ends_on'), fleet.try_date(e.item ->> 'starts_on') + 1),
    fleet.try_exact_instant(e.item ->> 'starts_at'), fleet.try_exact_instant(e.item ->> 'ends_at'),
    coalesce(e.item ->> 'summary', '')
  from jsonb_array_elements(p_periods) as e(item);
  return v_id;
end;
$$;

comment on function fleet.store_calendar(uuid, text, text, jsonb) is
  'Make the calendar of this name, or give it these periods instead of its own; a null description leaves the one it has.';
revoke all on function fleet.store_calendar(uuid, text, text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.check_calendar(p_name text, p_periods jsonb)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.raise_problems('the calendar', 'calendar_invalid', array_agg(q::fleet.problem))
  from (
    select 'name' as field, 'must not be blank' as problem, 'Give the calendar a name.' as hint
    where btrim(coalesce(p_name, '')) = ''
    union all
    select p.field, p.problem, p.hint from fleet.list_problem('periods', 'periods', p_periods) as p
    union all
    select p.field, p.problem, p.hint from fleet.row_limit_problems('blackout_calendars', jsonb_build_object('name', p_name)) as p
    union all
    select p.field, p.problem, p.hint from fleet.period_problems(p_periods) as p
  ) as q;
end;
$$;

comment on function fleet.check_calendar(text, jsonb) is 'Raise calendar_invalid (PT422) naming everything that is wrong.';
revoke all on function fleet.check_calendar(text, jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.import_blackouts(
  p_name text,
  p_periods jsonb,
  p_description text,
  p_owner_id uuid,
  p_must_be_new boolean
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owner uuid := fleet.owner_or_own(p_owner_id);
  v_id bigint;
begin
  perform fleet.require_permission(v_owner, 'manage', format('owner %s', v_owner));
  perform fleet.check_calendar(p_name, p_periods);
  if p_must_be_new
    and exists (select 1 from public.blackout_calendars as c where c.owner_id = v_owner and lower(c.name) = lower(p_name))
  then
    raise exception 'there is a calendar "%" already', p_name
      using errcode = 'PT409', detail = 'calendar_exists',
            hint = 'Give it other periods with import_blackouts, or choose another name.';
  end if;

  v_id := fleet.store_calendar(v_owner, p_name, p_description, p_periods);
  -- Filled by hand it follows nobody any more, or the next look would take that away.
  perform fleet.end_subscription(v_id);
  return (
    select to_jsonb(c) || jsonb_build_object(
      'periods', (select count(*) from public.blackout_periods as p where p.calendar_id = c.id)
    )
    from public.blackout_calendars as c
    where c.id = v_id
  );
end;
$$;

comment on function fleet.import_blackouts(text, jsonb, text, uuid, boolean) is
  'See public.create_blackout_calendar and public.import_blackouts. Definer: it checks the caller.';
revoke all on function fleet.import_blackouts(text, jsonb, text, uuid, boolean)
  from public, anon, authenticated, service_role;
grant execute on function fleet.import_blackouts(text, jsonb, text, uuid, boolean) to authenticated, service_role;

create or replace function public.create_blackout_calendar(
  p_name text,
  p_periods jsonb default '[]',
  p_description text default '',
  p_owner_id uuid default null
)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.import_blackouts(p_name, p_periods, p_description, p_owner_id, true)
$$;

comment on function public.create_blackout_calendar(text, jsonb, text, uuid) is
  'Make a calendar of times in which nothing runs, for policies.blackouts. Periods are days {starts_on, ends_on (the day after the last), '
  'summary} or times {starts_at, ends_at, summary} with an offset. Answers the row with how many periods. Raises calendar_invalid '
  '(PT422) naming every wrong field, or calendar_exists (PT409).';
revoke all on function public.create_blackout_calendar(text, jsonb, text, uuid)
  from public, anon, authenticated, service_role;
grant execute on function public.create_blackout_calendar(text, jsonb, text, uuid) to authenticated, service_role;

create or replace function public.import_blackouts(
  p_name text,
  p_periods jsonb,
  p_description text default null,
  p_owner_id uuid default null
)
returns jsonb
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.import_blackouts(p_name, p_periods, p_description, p_owner_id, false)
$$;

comment on function public.import_blackouts(text, jsonb, text, uuid) is
  'Give the calendar of this name these periods instead of the ones that it has; make it where there is none. As '
  'create_blackout_calendar. An ICS file is read by: pgfleet blackout import.';
revoke all on function public.import_blackouts(text, jsonb, text, uuid) from public, anon, authenticated, service_role;
grant execute on function public.import_blackouts(text, jsonb, text, uuid) to authenticated, service_role;

create or replace function fleet.delete_blackout_calendar(p_calendar_id bigint)
returns public.blackout_calendars
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_row public.blackout_calendars;
begin
  select c.* into v_row
  from public.blackout_calendars as c
  where c.id = p_calendar_id and fleet.is_visible_owner(c.owner_id)
  for update;
  if not found then
    perform fleet.raise_not_found(format('calendar %s', p_calendar_id));
  end if;
  perform fleet.require_permission(v_row.owner_id, 'manage', format('calendar %s', p_calendar_id));

  delete from public.blackout_calendars as c where c.id = p_calendar_id;
  return v_row;
end;
$$;

comment on function fleet.delete_blackout_calendar(bigint) is 'See public.delete_blackout_calendar. Definer: it checks the caller.';
revoke all on function fleet.delete_blackout_calendar(bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.delete_blackout_calendar(bigint) to authenticated, service_role;

create or replace function public.delete_blackout_calendar(p_calendar_id bigint)
returns public.blackout_calendars
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select fleet.delete_blackout_calendar(p_calendar_id)
$$;

comment on function public.delete_blackout_calendar(bigint) is
  'Delete a calendar with its periods. Raises calendar_not_found (PT404), permission_missing (PT403), or calendar_in_use (PT409) while '
  'a schedule that is not over names it.';
revoke all on function public.delete_blackout_calendar(bigint) from public, anon, authenticated, service_role;
grant execute on function public.delete_blackout_calendar(bigint) to authenticated, service_role;

create or replace function public.blackout_calendar_id(p_name text)
returns bigint
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.only_one(
    'calendar', p_name,
    array(select x.id::text from public.blackout_calendars as x where lower(x.name) = lower(p_name) order by x.id),
    (select x.id::text from public.blackout_calendars as x where x.id = fleet.try_bigint(p_name)), 'blackout'
  )::bigint
$$;

comment on function public.blackout_calendar_id(text) is
  'The blackout calendar that a name or an id means; a name in any case, and it wins over an id. Raises calendar_not_found (PT404) or '
  'calendar_ambiguous (PT409).';
revoke all on function public.blackout_calendar_id(text) from public, anon, authenticated, service_role;
grant execute on function public.blackout_calendar_id(text) to authenticated, service_role;
