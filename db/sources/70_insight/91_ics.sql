-- The coming runs as a calendar that Google Calendar, Apple Calendar and Outlook import.

create or replace function fleet.require_calendar_filter(p_filter jsonb)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.require_size('the filter', 'selector', p_filter);
  perform fleet.raise_problems('the filter', 'filter_invalid', array_agg(q::fleet.problem))
  from (
    select 'filter' as field, 'must be an object' as problem, 'Example: {"schedule_ids": [7]}; {} for all.' as hint
    where jsonb_typeof(p_filter) is distinct from 'object'
    union all
    select e.key, 'is not a key of a calendar filter',
      'The keys are schedule_ids, device_id, group_id, action_type, search, name and limit.'
    from jsonb_each(case when jsonb_typeof(p_filter) = 'object' then p_filter else '{}' end) as e
    where e.key not in ('schedule_ids', 'device_id', 'group_id', 'action_type', 'search', 'name', 'limit')
    union all
    select 'schedule_ids', 'is not a list of ids', 'Write whole numbers without quotes, like [1, 2].'
    where p_filter ? 'schedule_ids' and not fleet.is_id_list(p_filter -> 'schedule_ids')
    union all
    select n.field, n.problem, n.hint
    from (values ('device_id', 9007199254740991), ('group_id', 9007199254740991), ('limit', 5000)) as k(key, most)
    cross join lateral fleet.whole_number_problem(k.key, p_filter -> k.key, 1, k.most) as n
    union all
    select k.key, 'must be a text', 'Write it in quotes.'
    from unnest('{action_type,search,name}'::text[]) as k(key)
    where p_filter ? k.key and jsonb_typeof(p_filter -> k.key) <> 'string'
  ) as q;
end;
$$;

comment on function fleet.require_calendar_filter(jsonb) is 'Raise filter_invalid (PT422) naming every wrong key of a calendar''s filter.';
revoke all on function fleet.require_calendar_filter(jsonb) from public, anon, authenticated, service_role;

create or replace function fleet.schedules_of_filter(p_owners uuid[], p_filter jsonb, p_to timestamptz, p_limit integer)
returns setof public.schedules
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select s.*
  from public.schedules as s
  where s.owner_id = any (p_owners)
    and s.status = 'active'
    and s.next_run_at < p_to
    and (not p_filter ? 'schedule_ids' or s.id = any (fleet.bigint_array(p_filter -> 'schedule_ids')))
    and (not p_filter ? 'action_type' or s.action_type = p_filter ->> 'action_type')
    and (not p_filter ? 'search' or position(lower(p_filter ->> 'search') in lower(s.name)) > 0)
    and (not p_filter ? 'group_id' or (p_filter ->> 'group_id')::bigint = any (s.group_ids))
    and (
      not p_filter ? 'device_id'
      or exists (
        select 1
        from public.devices as d
        where d.id = (p_filter ->> 'device_id')::bigint
          and d.owner_id = s.owner_id
          and d.status = 'active'
          and (
            d.id = any (s.device_ids)
            or s.group_ids && array(select m.group_id from public.device_group_members as m where m.device_id = d.id)
            or fleet.device_matches(s.selector, d.tags, d.platform, d.attributes)
            or s.group_ids && array(
              select g.id from public.device_groups as g
              where g.owner_id = d.owner_id and g.selector is not null
                and fleet.device_matches(g.selector, d.tags, d.platform, d.attributes)
            )
          )
      )
    )
  order by s.next_run_at, s.id
  limit p_limit
$$;

comment on function fleet.schedules_of_filter(uuid[], jsonb, timestamptz, integer) is
  'The active schedules of these owners that a calendar''s filter chooses; the ones due soonest where there are more.';
revoke all on function fleet.schedules_of_filter(uuid[], jsonb, timestamptz, integer)
  from public, anon, authenticated, service_role;

create or replace function fleet.ics_lines_of(p_schedule public.schedules, p_now timestamptz)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select concat(
    'DTSTAMP:', fleet.ics_instant(p_schedule.updated_at), E'\r\n',
    'LAST-MODIFIED:', fleet.ics_instant(p_schedule.updated_at), E'\r\n',
    fleet.ics_line('DESCRIPTION:' || fleet.ics_escaped(concat_ws(E'\n',
      concat_ws(' ',
        format('%s to %s %s.', p_schedule.action_type, fleet.describe_targets(p_schedule), fleet.describe_when(p_schedule, p_now)),
        fleet.describe_policies(p_schedule)
      ),
      nullif(p_schedule.description, '')
    ))),
    fleet.ics_line('CATEGORIES:' || fleet.ics_escaped(p_schedule.action_type)),
    E'TRANSP:TRANSPARENT\r\n'
  )
$$;

comment on function fleet.ics_lines_of(public.schedules, timestamptz) is 'The lines that all events of a schedule share.';
revoke all on function fleet.ics_lines_of(public.schedules, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.calendar_text(p_owners uuid[], p_filter jsonb, p_from timestamptz, p_to timestamptz)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_limit integer := coalesce((p_filter ->> 'limit')::integer, 2000);
  v_events text;
  v_cut_at timestamptz;
begin
  with chosen as materialized (
    select s from fleet.schedules_of_filter(p_owners, p_filter, p_to, v_limit + 1) as s
  ),
  until as materialized (
    select fleet.span_of_rows(array(select c.s from chosen as c), p_from, p_to, v_limit + 1) as at
  ),
  -- One more than the limit tells that something was cut.
  run as materialized (
    select c.s, r.due_at, r.starts_at, r.zones, row_number() over (order by r.starts_at, (c.s).id) as n
    from chosen as c
    cross join until as u
    cross join lateral fleet.coming_runs(c.s, p_from, u.at, v_limit + 1) as r
    where r.would = 'run'
    order by n
    limit v_limit + 1
  ),
  -- What each event of a schedule says is made once for all of them.
  said as materialized (
    select (c.s).id, fleet.ics_lines_of(c.s, p_from) as lines
    from chosen as c
    where (c.s).id in (select (r.s).id from run as r)
  )
  select
    string_agg(concat(
      E'BEGIN:VEVENT\r\n',
      fleet.ics_line('UID:' || fleet.ics_uid(r.s, r.due_at)),
      'DTSTART:', fleet.ics_instant(r.starts_at), E'\r\n',
      'DTEND:', fleet.ics_instant(r.starts_at + interval '5 minutes'), E'\r\n',
      fleet.ics_line('SUMMARY:' || fleet.ics_escaped(
        (r.s).name || case when r.zones is not null then format(' (%s)', array_to_string(r.zones, ', ')) else '' end
      )),
      d.lines,
      E'END:VEVENT\r\n'
    ), '' order by r.n) filter (where r.n <= v_limit),
    min(r.starts_at) filter (where r.n > v_limit)
  into v_events, v_cut_at
  from run as r
  join said as d on d.id = (r.s).id;

  return concat(
    fleet.ics_head(coalesce(p_filter ->> 'name', 'Fleet schedules'), case
      when v_cut_at is not null then format(
        'Only the first %s runs are shown, until %s UTC. Choose fewer schedules to see further.', v_limit,
        fleet.clock_text(v_cut_at, 'UTC')
      )
    end),
    v_events,
    E'END:VCALENDAR\r\n'
  );
end;
$$;

comment on function fleet.calendar_text(uuid[], jsonb, timestamptz, timestamptz) is
  'The runs to come of these owners'' schedules as iCalendar, one event each; a note in the calendar''s description says where it was cut.';
revoke all on function fleet.calendar_text(uuid[], jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.calendar_ics(p_owner_id uuid, p_filter jsonb, p_from timestamptz, p_to timestamptz)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.require_calendar_filter(p_filter);
  perform fleet.require_span(p_from, p_to, '2 years');
  return fleet.calendar_text(array[p_owner_id], p_filter, p_from, p_to);
end;
$$;

comment on function fleet.calendar_ics(uuid, jsonb, timestamptz, timestamptz) is
  'The coming runs of one owner as iCalendar, for a feed whose secret was checked. See public.calendar_ics for the filter.';
revoke all on function fleet.calendar_ics(uuid, jsonb, timestamptz, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.calendar_of_caller(p_filter jsonb, p_from timestamptz, p_to timestamptz)
returns text
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.require_calendar_filter(p_filter);
  perform fleet.require_span(p_from, p_to, '2 years');
  return fleet.calendar_text(fleet.owners_in_view(), p_filter, p_from, p_to);
end;
$$;

comment on function fleet.calendar_of_caller(jsonb, timestamptz, timestamptz) is
  'See public.calendar_ics. Definer: it looks only at what the caller may see.';
revoke all on function fleet.calendar_of_caller(jsonb, timestamptz, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.calendar_of_caller(jsonb, timestamptz, timestamptz) to authenticated, service_role;

create or replace function public.calendar_ics(
  p_filter jsonb default '{}',
  p_from timestamptz default now(),
  p_to timestamptz default now() + interval '90 days'
)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.calendar_of_caller(p_filter, p_from, p_to)
$$;

comment on function public.calendar_ics(jsonb, timestamptz, timestamptz) is
  'The coming runs of the caller''s schedules as iCalendar (RFC 5545), one event each, for Google Calendar, Apple Calendar and Outlook. '
  'Filter: schedule_ids, device_id, group_id, action_type, search, name (of the calendar), limit (2000 events, at most 5000). Where more '
  'would come, the description of the calendar says until when it goes. Raises filter_invalid or span_invalid (PT422).';
revoke all on function public.calendar_ics(jsonb, timestamptz, timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.calendar_ics(jsonb, timestamptz, timestamptz) to authenticated, service_role;
