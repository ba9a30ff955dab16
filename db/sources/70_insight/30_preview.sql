-- Before saving: what a new schedule would do, and what an edit would change.

create or replace function fleet.preview_of(p_schedule public.schedules, p_count integer, p_from timestamptz, p_is_present boolean)
returns table (
  due_at timestamptz,
  local_time text,
  zones text[],
  would text,
  reason text,
  detail text,
  dst_note text,
  starts_at timestamptz,
  devices bigint
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select c.due_at, coalesce(fleet.wall_text(c.local), fleet.local_times(c.due_at, z.zones)), z.zones, c.would, c.reason,
    coalesce(
      fleet.skip_detail(p_schedule, c.reason, c.zones, c.due_at, c.starts_at),
      case when c.missed_count > 1 then format('%s instants until %s', c.missed_count, coalesce(
        fleet.wall_text(c.missed_to_local), fleet.local_times(c.missed_to, z.zones)
      )) end
    ),
    fleet.dst_note(c.dst_rule),
    case when c.would = 'run' then c.starts_at end,
    fleet.devices_of_zones(d.counts, coalesce(c.open_zones, c.zones))
  from fleet.coming_runs(p_schedule, p_from, 'infinity', p_count, p_is_present) as c
  cross join lateral (
    select coalesce(c.zones, array[fleet.reference_zone(p_schedule)]) as zones
  ) as z
  cross join (select fleet.device_counts(p_schedule) as counts) as d
$$;

comment on function fleet.preview_of(public.schedules, integer, timestamptz, boolean) is
  'See public.preview_schedule. p_is_present: p_from is the present, so what is overdue then comes first; otherwise the engine is taken to have '
  'kept up until then.';
revoke all on function fleet.preview_of(public.schedules, integer, timestamptz, boolean)
  from public, anon, authenticated, service_role;

create or replace function fleet.preview_schedule(p_spec jsonb, p_count integer, p_from timestamptz)
returns table (
  due_at timestamptz,
  local_time text,
  zones text[],
  would text,
  reason text,
  detail text,
  dst_note text,
  starts_at timestamptz,
  devices bigint
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_blank public.schedules;
  v_draft public.schedules;
begin
  perform fleet.require_object(p_spec, 'a schedule', 'See the README, "Schedules by example".');
  v_blank := fleet.blank_schedule(fleet.owner_in_mind(fleet.owner_of_spec(p_spec)));
  -- What the trigger calls when it is saved.
  v_draft := fleet.prepared_schedule(v_blank, fleet.changed_schedule(v_blank, p_spec), p_from);
  return query
  select p.* from fleet.preview_of(v_draft, fleet.whole_number_between('p_count', p_count, 1, 1000), p_from, true) as p;
end;
$$;

comment on function fleet.preview_schedule(jsonb, integer, timestamptz) is
  'See public.preview_schedule. Definer: it checks the caller first, then sees what the checks need to see.';
revoke all on function fleet.preview_schedule(jsonb, integer, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.preview_schedule(jsonb, integer, timestamptz) to authenticated, service_role;

create or replace function public.preview_schedule(
  p_spec jsonb,
  p_count integer default 10,
  p_from timestamptz default now()
)
returns table (
  due_at timestamptz,
  local_time text,
  zones text[],
  would text,
  reason text,
  detail text,
  dst_note text,
  starts_at timestamptz,
  devices bigint
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select * from fleet.preview_schedule(p_spec, p_count, fleet.calendar_instant(p_from))
$$;

comment on function public.preview_schedule(jsonb, integer, timestamptz) is
  'The next runs of a schedule that is not saved: when, in UTC and in local time, for how many devices, and why one would be skipped. '
  'Takes and checks what create_schedule does; nothing is written. Raises schedule_invalid (PT422, or PT404) naming every wrong field.';
revoke all on function public.preview_schedule(jsonb, integer, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function public.preview_schedule(jsonb, integer, timestamptz) to authenticated, service_role;

create or replace function fleet.is_present(p_from timestamptz)
returns boolean
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  select p_from <= fleet.engine_time() + interval '1 minute'
$$;

comment on function fleet.is_present(timestamptz) is
  'Whether a look from this instant on is one at the present, which shows what is overdue, and not one at a time to come.';
revoke all on function fleet.is_present(timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.upcoming_runs(p_schedule_id bigint, p_count integer, p_from timestamptz)
returns table (
  due_at timestamptz,
  local_time text,
  zones text[],
  would text,
  reason text,
  detail text,
  dst_note text,
  starts_at timestamptz,
  devices bigint
)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select p.*
  from fleet.preview_of(
    fleet.schedule_in_view(p_schedule_id), fleet.whole_number_between('p_count', p_count, 1, 1000), p_from, fleet.is_present(p_from)
  ) as p
$$;

comment on function fleet.upcoming_runs(bigint, integer, timestamptz) is 'See public.upcoming_runs. Definer: it checks the caller.';
revoke all on function fleet.upcoming_runs(bigint, integer, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.upcoming_runs(bigint, integer, timestamptz) to authenticated, service_role;

create or replace function public.upcoming_runs(
  p_schedule_id bigint,
  p_count integer default 10,
  p_from timestamptz default now()
)
returns table (
  due_at timestamptz,
  local_time text,
  zones text[],
  would text,
  reason text,
  detail text,
  dst_note text,
  starts_at timestamptz,
  devices bigint
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select * from fleet.upcoming_runs(p_schedule_id, p_count, fleet.calendar_instant(p_from))
$$;

comment on function public.upcoming_runs(bigint, integer, timestamptz) is
  'The next runs of a schedule, as preview_schedule shows those of one that is not saved. Raises schedule_not_found (PT404).';
revoke all on function public.upcoming_runs(bigint, integer, timestamptz) from public, anon, authenticated, service_role;
grant execute on function public.upcoming_runs(bigint, integer, timestamptz) to authenticated, service_role;

create or replace function fleet.diff_schedule(
  p_schedule_id bigint,
  p_changes jsonb,
  p_count integer,
  p_from timestamptz
)
returns table (
  change text,
  due_at timestamptz,
  local_time text,
  would_before text,
  would_after text,
  devices_before bigint,
  devices_after bigint,
  dst_note text
)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_old public.schedules := fleet.schedule_in_view(p_schedule_id);
  v_count integer := fleet.whole_number_between('p_count', p_count, 1, 1000);
  v_new public.schedules;
begin
  if v_old.status = 'cancelled' then
    raise exception 'schedule % is cancelled', p_schedule_id
      using errcode = 'PT409',
            detail = 'schedule_cancelled',
            hint = format('Make a new one of it: select duplicate_schedule(%s)', p_schedule_id);
  end if;
  v_new := fleet.prepared_schedule(v_old, fleet.changed_schedule(v_old, p_changes), p_from);

  -- The first n of both together: whatever is among them is among the first n of its own.
  return query
  select case when b.due_at is null then 'added' when a.due_at is null then 'removed' else 'kept' end,
    coalesce(a.due_at, b.due_at), coalesce(a.local_time, b.local_time),
    concat_ws(': ', b.would, b.reason, b.detail), concat_ws(': ', a.would, a.reason, a.detail),
    b.devices, a.devices, coalesce(a.dst_note, b.dst_note)
  from fleet.preview_of(v_old, v_count, p_from, fleet.is_present(p_from)) as b
  full join fleet.preview_of(v_new, v_count, p_from, fleet.is_present(p_from)) as a on a.due_at = b.due_at
  order by 2
  limit v_count;
end;
$$;

comment on function fleet.diff_schedule(bigint, jsonb, integer, timestamptz) is
  'See public.diff_schedule. Definer: it checks the caller first, then sees what the checks need to see.';
revoke all on function fleet.diff_schedule(bigint, jsonb, integer, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function fleet.diff_schedule(bigint, jsonb, integer, timestamptz) to authenticated, service_role;

create or replace function public.diff_schedule(
  p_schedule_id bigint,
  p_changes jsonb,
  p_count integer default 20,
  p_from timestamptz default now()
)
returns table (
  change text,
  due_at timestamptz,
  local_time text,
  would_before text,
  would_after text,
  devices_before bigint,
  devices_after bigint,
  dst_note text
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select * from fleet.diff_schedule(p_schedule_id, p_changes, p_count, fleet.calendar_instant(p_from))
$$;

comment on function public.diff_schedule(bigint, jsonb, integer, timestamptz) is
  'The coming runs before and after an edit, in the order of time: added, removed or kept, and what would become of each. Takes and '
  'checks what update_schedule does; nothing is written. Raises schedule_not_found (PT404), schedule_invalid (PT422) or '
  'schedule_cancelled (PT409).';
revoke all on function public.diff_schedule(bigint, jsonb, integer, timestamptz)
  from public, anon, authenticated, service_role;
grant execute on function public.diff_schedule(bigint, jsonb, integer, timestamptz) to authenticated, service_role;
