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
    and fleet.has_clock(s)
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
            or fleet.device_matches(s.selector, d.tags, d.platform, d.attributes, d.reported)
            or s.group_ids && array(
              select g.id from public.device_groups as g
              where g.owner_id = d.owner_id and g.selector is not null
                and fleet.device_matches(g.selector, d.tags, d.platform, d.attributes, d.reported)
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

create or replace function fleet.often_due(p_schedules public.schedules[], p_from timestamptz, p_to timestamptz, p_limit integer)
returns bigint[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_share bigint := greatest(p_limit / greatest(cardinality(p_schedules), 1), 1);
  v_days bigint := greatest(ceil(extract(epoch from p_to - p_from) / 86400), 1)::bigint;
begin
  -- More than its share of the entries, and more than one a day: a day then says as much as all of them.
  return array(
    select s.id
    from unnest(p_schedules) as s
    cross join lateral (
      select case
        when s.timezone = 'device' then fleet.count_due(s.recurrence, fleet.schedule_zones(s), p_from, least(p_to, p_from + interval '8 days'))
          * greatest(v_days / 8, 1)
        else fleet.count_occurrences(s.recurrence, p_from, p_to, greatest(v_share, v_days) + 1)
      end as n
    ) as c
    where c.n > v_share and c.n > v_days
  );
end;
$$;

comment on function fleet.often_due(public.schedules[], timestamptz, timestamptz, integer) is
  'Those of these schedules that would take more than an equal share of so many entries of a calendar, and more than one a day.';
revoke all on function fleet.often_due(public.schedules[], timestamptz, timestamptz, integer)
  from public, anon, authenticated, service_role;

create or replace function fleet.ics_day_events(
  p_schedule public.schedules,
  p_from timestamptz,
  p_to timestamptz,
  p_lines text,
  p_most bigint
)
returns table (day date, starts_at timestamptz, event text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_schedule public.schedules := p_schedule;
  v_zone text := fleet.zone_clock(fleet.reference_zone(p_schedule));
  v_to timestamptz := p_to;
  v_days bigint;
begin
  if fleet.is_judged_one_by_one(p_schedule) then
    v_days := p_most / greatest(
      fleet.count_due(p_schedule.recurrence, fleet.schedule_zones(p_schedule), p_from, p_from + interval '1 day'), 1
    );
    v_to := least(p_to, p_from + greatest(v_days, 1) * interval '1 day');
    if v_days = 0 and p_schedule.timezone <> 'device' then
      -- Too many to judge: all that is due is counted.
      v_schedule.policies := v_schedule.policies - '{execution_window,blackouts,max_runs}'::text[];
      v_to := p_to;
    end if;
  end if;
  return query
  select d.day, d.day::timestamp at time zone 'UTC', concat(
      E'BEGIN:VEVENT\r\n',
      fleet.ics_line('UID:' || fleet.ics_uid(p_schedule, d.day::timestamp at time zone 'UTC')),
      'DTSTART;VALUE=DATE:', to_char(d.day, 'YYYYMMDD'), E'\r\n',
      'DTEND;VALUE=DATE:', to_char(d.day + 1, 'YYYYMMDD'), E'\r\n',
      fleet.ics_line('SUMMARY:' || fleet.ics_escaped(format('%s (%s)', p_schedule.name, concat_ws(
        ', ', d.runs || case when d.runs = 1 then ' run' else ' runs' end, case when p_schedule.timezone = 'device' then 'device time' end
      )))),
      p_lines,
      E'END:VEVENT\r\n'
    )
  from (
    select c.day, sum(c.runs) as runs
    from fleet.counted_days(
      v_schedule, (p_from at time zone v_zone)::date, ((v_to - interval '1 microsecond') at time zone v_zone)::date + 1, v_zone, p_from
    ) as c
    where c.would = 'run'
    group by c.day
  ) as d;
end;
$$;

comment on function fleet.ics_day_events(public.schedules, timestamptz, timestamptz, text, bigint) is
  'A schedule that is due often as entries of a calendar: one of the whole day for each, with the number of its runs. Where each has to be '
  'judged by itself at most p_most are, which is its first days.';
revoke all on function fleet.ics_day_events(public.schedules, timestamptz, timestamptz, text, bigint)
  from public, anon, authenticated, service_role;

create or replace function fleet.calendar_text(p_owners uuid[], p_filter jsonb, p_from timestamptz, p_to timestamptz)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_limit integer := coalesce((p_filter ->> 'limit')::integer, 2000);
  v_schedules public.schedules[] := array(select s from fleet.schedules_of_filter(p_owners, p_filter, p_to, v_limit + 1) as s);
  v_often bigint[] := fleet.often_due(v_schedules, p_from, p_to, v_limit);
  v_events text;
  v_cut_at timestamptz;
begin
  with chosen as materialized (
    select s, s.id = any (v_often) as is_often from unnest(v_schedules) as s
  ),
  until as materialized (
    select fleet.span_of_rows(array(select c.s from chosen as c where not c.is_often), p_from, p_to, v_limit + 1) as at
  ),
  -- What each event of a schedule says is made once for all of them.
  said as materialized (
    select (c.s).id, fleet.ics_lines_of(c.s, p_from) as lines
    from chosen as c
  ),
  entry as (
    select r.starts_at, (c.s).id, concat(
        E'BEGIN:VEVENT\r\n',
        fleet.ics_line('UID:' || fleet.ics_uid(c.s, coalesce(r.local at time zone 'UTC', r.due_at))),
        -- Without a zone: the same time on every wall.
        'DTSTART:', coalesce(fleet.ics_wall(r.local), fleet.ics_instant(r.starts_at)), E'\r\n',
        'DTEND:', coalesce(fleet.ics_wall(r.local + interval '5 minutes'), fleet.ics_instant(r.starts_at + interval '5 minutes')), E'\r\n',
        fleet.ics_line('SUMMARY:' || fleet.ics_escaped((c.s).name || case when r.local is not null then ' (device time)' else '' end)),
        d.lines,
        E'END:VEVENT\r\n'
      ) as event
    from chosen as c
    join said as d on d.id = (c.s).id
    cross join until as u
    cross join lateral fleet.coming_runs(c.s, p_from, u.at, v_limit + 1) as r
    where r.would = 'run' and not c.is_often
    union all
    select e.starts_at, (c.s).id, e.event
    from chosen as c
    join said as d on d.id = (c.s).id
    cross join lateral fleet.ics_day_events(c.s, p_from, p_to, d.lines, 5000 / greatest(cardinality(v_often), 1)) as e
    where c.is_often
  ),
  -- One more than the limit tells that something was cut.
  numbered as materialized (
    select e.*, row_number() over (order by e.starts_at, e.id) as n from entry as e order by n limit v_limit + 1
  )
  select string_agg(r.event, '' order by r.n) filter (where r.n <= v_limit), min(r.starts_at) filter (where r.n > v_limit)
  into v_events, v_cut_at
  from numbered as r;

  return concat(
    fleet.ics_head(coalesce(p_filter ->> 'name', 'Fleet schedules'), nullif(concat_ws(' ',
      case
        when v_cut_at is not null then format(
          'Only the first %s runs are shown, until %s UTC. Choose fewer schedules to see further.', v_limit,
          fleet.clock_text(v_cut_at, 'UTC')
        )
      end,
      case when v_often <> '{}' then 'What is due often has one entry a day, with the number of its runs; with windows or blackouts that goes for its first days.' end,
      (
        select format('Left out, because the server does not have their time zones: %s.', string_agg(n.name, ', '))
        from (
          select s.name from public.schedules as s
          where s.owner_id = any (p_owners) and s.status = 'active' and not fleet.has_clock(s)
          order by s.name
          limit 10
        ) as n
        having count(*) > 0
      )
    ), '')),
    v_events,
    E'END:VCALENDAR\r\n'
  );
end;
$$;

comment on function fleet.calendar_text(uuid[], jsonb, timestamptz, timestamptz) is
  'The runs to come of these owners'' schedules as iCalendar, one event each, or one a day where a schedule is due often; a note in the '
  'calendar''s description says where it was cut.';
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
  'The coming runs of the caller''s schedules as iCalendar (RFC 5545), one event each, for Google Calendar, Apple Calendar and Outlook; a '
  'schedule that is due more often than its share of the events allows has one of the whole day, with the number of its runs. '
  'Filter: schedule_ids, device_id, group_id, action_type, search, name (of the calendar), limit (2000 events, at most 5000). Where more '
  'would come, the description of the calendar says until when it goes. Raises filter_invalid or span_invalid (PT422).';
revoke all on function public.calendar_ics(jsonb, timestamptz, timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.calendar_ics(jsonb, timestamptz, timestamptz) to authenticated, service_role;
