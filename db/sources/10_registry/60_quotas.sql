-- Quotas: how much one owner may have and do, so that nobody's share is everybody's.

create or replace function fleet.quotas()
returns table (name text, unit text, over text, condition text)
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
  values
    ('devices', 'devices', 'public.devices', 'status = ''active'''),
    ('schedules', 'schedules that are not at their end', 'public.schedules', 'status in (''active'', ''paused'')'),
    ('commands_waiting', 'commands that wait', 'public.device_commands', 'status = ''pending'''),
    ('groups', 'groups', 'public.device_groups', null),
    ('locations', 'locations', 'public.locations', null),
    ('geo_schedules', 'geo schedules', 'public.geo_schedules', null),
    ('integrations', 'integrations', 'public.device_integrations', null),
    ('endpoints', 'webhooks and addresses', 'public.webhook_endpoints', null),
    ('feeds', 'calendar feeds that are not revoked', 'public.calendar_feeds', 'revoked_at is null'),
    ('members', 'members', 'public.owner_members', null),
    ('command_types', 'command types of its own', 'public.command_types', null),
    ('commands_a_minute', 'commands a minute', null, null),
    ('mailbox_codes_a_day', 'codes sent to mailboxes a day', null, null),
    ('telemetry_a_day', 'points of telemetry a day', null, null)
$$;

comment on function fleet.quotas() is
  'Every quota: its name, what it counts, and where: the rows of a table that meet a condition, or what happens in a time. How much is allowed '
  'says the setting quota_<name>, or for one owner fleet.owner_quotas.';
revoke all on function fleet.quotas() from public, anon, authenticated, service_role;

create or replace function fleet.quota_of(p_owner_id uuid, p_name text)
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return coalesce(
    (select q.value from fleet.owner_quotas as q where q.owner_id = p_owner_id and q.name = p_name),
    fleet.setting_number('quota_' || p_name)::bigint
  );
end;
$$;

comment on function fleet.quota_of(uuid, text) is 'How much an owner may have of something: its own quota, or that of the settings.';
revoke all on function fleet.quota_of(uuid, text) from public, anon, authenticated, service_role;

create or replace function fleet.quota_period(p_name text)
returns interval
language sql
immutable
parallel safe
return case when p_name like '%\_a\_day' then interval '1 day' else interval '1 minute' end;

comment on function fleet.quota_period(text) is 'In which time as much as the quota may happen.';
revoke all on function fleet.quota_period(text) from public, anon, authenticated, service_role;

create or replace function fleet.quota_used(p_owner_id uuid, p_name text, p_now timestamptz)
returns bigint
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_quota record;
  v_allowed bigint := fleet.quota_of(p_owner_id, p_name);
  v_used bigint;
begin
  select q.* into strict v_quota from fleet.quotas() as q where q.name = p_name;
  if v_quota.over is null then
    return coalesce(
      (
        select greatest(ceil(v_allowed - fleet.quota_left(u.left_over, u.filled_at, v_allowed, p_name, p_now)), 0)
        from fleet.quota_use as u
        where u.owner_id = p_owner_id and u.name = p_name
      ),
      0
    );
  end if;
  -- No further than it takes to tell.
  execute format(
    'select count(*) from (select from %s as x where x.owner_id = $1 and (%s) limit $2) as s', v_quota.over,
    coalesce(v_quota.condition, 'true')
  )
  into v_used
  using p_owner_id, v_allowed + 1000000;
  return v_used;
end;
$$;

comment on function fleet.quota_used(uuid, text, timestamptz) is 'How much an owner has of something, or has done of it in the time that counts.';
revoke all on function fleet.quota_used(uuid, text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.quota_left(
  p_left double precision,
  p_filled_at timestamptz,
  p_allowed bigint,
  p_name text,
  p_now timestamptz
)
returns double precision
language sql
immutable
return least(
  p_left + p_allowed * greatest(extract(epoch from p_now - p_filled_at), 0)::double precision
    / extract(epoch from fleet.quota_period(p_name))::double precision,
  p_allowed
);

comment on function fleet.quota_left(double precision, timestamptz, bigint, text, timestamptz) is
  'What is left now of what was left then: it fills up evenly, up to the whole quota.';
revoke all on function fleet.quota_left(double precision, timestamptz, bigint, text, timestamptz)
  from public, anon, authenticated, service_role;

create or replace function fleet.raise_quota(p_name text, p_used bigint, p_allowed bigint)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'the quota of % is used up: % of %', (select q.unit from fleet.quotas() as q where q.name = p_name), p_used, p_allowed
    using errcode = 'PT429',
          detail = 'quota_exceeded',
          hint = format('See what is used with: select owner_usage(id) from owners. Whoever runs this platform may allow more of %s.', p_name);
end;
$$;

comment on function fleet.raise_quota(text, bigint, bigint) is 'Raise quota_exceeded (PT429).';
revoke all on function fleet.raise_quota(text, bigint, bigint) from public, anon, authenticated, service_role;

create or replace function fleet.require_quota(p_owner_id uuid, p_name text)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_allowed bigint := fleet.quota_of(p_owner_id, p_name);
  v_used bigint;
begin
  v_used := fleet.quota_used(p_owner_id, p_name, clock_timestamp());
  if v_used > v_allowed then
    -- The one that is too many is not one of them.
    perform fleet.raise_quota(p_name, least(v_used - 1, v_allowed), v_allowed);
  end if;
end;
$$;

comment on function fleet.require_quota(uuid, text) is 'Raise quota_exceeded (PT429) where an owner has more of something than its quota.';
revoke all on function fleet.require_quota(uuid, text) from public, anon, authenticated, service_role;

create or replace function fleet.take_quota(p_owner_id uuid, p_name text, p_count bigint, p_now timestamptz)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_allowed bigint := fleet.quota_of(p_owner_id, p_name);
  v_left double precision;
begin
  -- What another session counts at this moment is not waited for: some more or less is no matter.
  update fleet.quota_use as u
  set left_over = fleet.quota_left(u.left_over, u.filled_at, v_allowed, p_name, p_now) - p_count,
      filled_at = greatest(p_now, u.filled_at)
  from (
    select x.owner_id, x.name from fleet.quota_use as x where x.owner_id = p_owner_id and x.name = p_name for update skip locked
  ) as h
  where u.owner_id = h.owner_id and u.name = h.name
  returning u.left_over into v_left;
  if found then
    return v_left >= 0;
  end if;

  -- Nor is the first count of an owner, whose row nobody else sees before that session ends, and for which an insert would wait.
  if not exists (select 1 from fleet.quota_use as u where u.owner_id = p_owner_id and u.name = p_name)
    and pg_try_advisory_xact_lock(hashtext('pgfleet.quota'), hashtext(p_owner_id || p_name))
  then
    insert into fleet.quota_use as u (owner_id, name, left_over, filled_at)
    values (p_owner_id, p_name, v_allowed - p_count, p_now)
    on conflict (owner_id, name) do update set left_over = u.left_over - p_count
    returning u.left_over into v_left;
  end if;
  return coalesce(v_left >= 0, true);
end;
$$;

comment on function fleet.take_quota(uuid, text, bigint, timestamptz) is
  'Count so many towards a quota that counts by time. False where there was not enough left, which is counted all the same.';
revoke all on function fleet.take_quota(uuid, text, bigint, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.take_quotas(p_owner_ids uuid[], p_counts bigint[], p_name text, p_now timestamptz)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_allowed bigint;
  v_others uuid[];
begin
  if cardinality(p_owner_ids) = 1 then
    -- Nearly every statement has but one owner, by whose key this is a third of the work.
    perform fleet.take_quota(p_owner_ids[1], p_name, p_counts[1], p_now);
    return;
  end if;
  v_allowed := fleet.setting_number('quota_' || p_name)::bigint;
  with given as materialized (
    select g.owner_id, g.count from unnest(p_owner_ids, p_counts) as g(owner_id, count)
  ),
  held as materialized (
    select u.owner_id
    from fleet.quota_use as u
    where u.owner_id = any (p_owner_ids) and u.name = p_name
    for update skip locked
  ),
  counted as (
    update fleet.quota_use as u
    set left_over = fleet.quota_left(u.left_over, u.filled_at, coalesce(q.value, v_allowed), p_name, p_now) - g.count,
        filled_at = greatest(p_now, u.filled_at)
    from held as h
    join given as g on g.owner_id = h.owner_id
    left join fleet.owner_quotas as q on q.owner_id = h.owner_id and q.name = p_name
    where u.owner_id = h.owner_id and u.name = p_name
    returning u.owner_id
  )
  select array_agg(g.owner_id) into v_others
  from given as g
  where g.owner_id not in (select c.owner_id from counted as c);

  -- Those who are counted for the first time, or by another session at this moment.
  perform fleet.take_quota(g.owner_id, p_name, g.count, p_now)
  from unnest(p_owner_ids, p_counts) as g(owner_id, count)
  where g.owner_id = any (v_others);
end;
$$;

comment on function fleet.take_quotas(uuid[], bigint[], text, timestamptz) is
  'Count for each of these owners so many towards a quota that counts by time, whether or not there is enough left.';
revoke all on function fleet.take_quotas(uuid[], bigint[], text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.is_used_up(p_owner_id uuid, p_name text, p_now timestamptz)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (
    select 1
    from fleet.quota_use as u
    where u.owner_id = p_owner_id and u.name = p_name and u.left_over < 1
      and fleet.quota_left(u.left_over, u.filled_at, fleet.quota_of(p_owner_id, p_name), p_name, p_now) < 1
  );
end;
$$;

comment on function fleet.is_used_up(uuid, text, timestamptz) is 'Whether not even one is left now of a quota that counts by time: it fills up evenly.';
revoke all on function fleet.is_used_up(uuid, text, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.tg_keep_quota()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Whoever runs the platform is bound by nothing; the functions that act for owners ask themselves.
  if coalesce(current_setting('request.jwt.claims', true), '') <> '' and not fleet.is_trusted_caller() then
    perform fleet.require_quota(n.owner_id, tg_argv[0]) from (select distinct x.owner_id from new_rows as x) as n;
  end if;
  return null;
end;
$$;

comment on function fleet.tg_keep_quota() is
  'Refuse rows beyond the quota that is named. Raises quota_exceeded (PT429). Definer: it counts rows that the caller may not see.';
revoke all on function fleet.tg_keep_quota() from public, anon, authenticated, service_role;

create or replace function fleet.tg_keep_quota_again()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if coalesce(current_setting('request.jwt.claims', true), '') <> '' and not fleet.is_trusted_caller() then
    perform fleet.require_quota(new.owner_id, tg_argv[0]);
  end if;
  return null;
end;
$$;

comment on function fleet.tg_keep_quota_again() is
  'Refuse what counts again beyond the quota that is named. Raises quota_exceeded (PT429). Definer: it counts rows that the caller may not see.';
revoke all on function fleet.tg_keep_quota_again() from public, anon, authenticated, service_role;

create or replace function fleet.keep_quota(p_table regclass, p_quota text)
returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  execute format(
    'create or replace trigger %I after insert on %s referencing new table as new_rows'
    ' for each statement execute function fleet.tg_keep_quota(%L)',
    (select c.relname from pg_class as c where c.oid = p_table) || '_80_keep_quota', p_table, p_quota
  );
end;
$$;

comment on function fleet.keep_quota(regclass, text) is 'Hold a table to a quota of fleet.quotas().';
revoke all on function fleet.keep_quota(regclass, text) from public, anon, authenticated, service_role;

create or replace function fleet.set_quota(p_owner_id uuid, p_name text, p_value bigint default null)
returns bigint
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (select 1 from public.owners as o where o.id = p_owner_id) then
    perform fleet.raise_not_found(format('owner %s', p_owner_id));
  elsif not exists (select 1 from fleet.quotas() as q where q.name = p_name) then
    raise exception 'quota "%" is not known', p_name
      using errcode = 'PT404', detail = 'quota_not_found', hint = format('List them with: select owner_usage(%L)', p_owner_id);
  end if;

  if p_value is null then
    delete from fleet.owner_quotas as q where q.owner_id = p_owner_id and q.name = p_name;
  else
    insert into fleet.owner_quotas as q (owner_id, name, value)
    values (p_owner_id, p_name, greatest(p_value, 0))
    on conflict (owner_id, name) do update set value = excluded.value;
  end if;
  return fleet.quota_of(p_owner_id, p_name);
end;
$$;

comment on function fleet.set_quota(uuid, text, bigint) is
  'Allow one owner so much of something; null: as much as the settings say. Answers what holds now. Raises owner_not_found or quota_not_found '
  '(PT404). Definer: nobody writes the table but through this.';
revoke all on function fleet.set_quota(uuid, text, bigint) from public, anon, authenticated, service_role;
grant execute on function fleet.set_quota(uuid, text, bigint) to service_role;

create or replace function fleet.owner_usage(p_owner_id uuid, p_now timestamptz)
returns table (name text, used bigint, allowed bigint, unit text)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.require_permission(p_owner_id, 'view', format('owner %s', p_owner_id));
  return query
  select q.name, fleet.quota_used(p_owner_id, q.name, p_now), fleet.quota_of(p_owner_id, q.name), q.unit
  from fleet.quotas() as q;
end;
$$;

comment on function fleet.owner_usage(uuid, timestamptz) is 'See public.owner_usage. Definer: it checks the caller, then counts.';
revoke all on function fleet.owner_usage(uuid, timestamptz) from public, anon, authenticated, service_role;
grant execute on function fleet.owner_usage(uuid, timestamptz) to authenticated, service_role;

create or replace function public.owner_usage(p_owner_id uuid)
returns table (name text, used bigint, allowed bigint, unit text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select u.* from fleet.owner_usage(p_owner_id, clock_timestamp()) as u
$$;

comment on function public.owner_usage(uuid) is
  'What an owner has and does, and how much of it is allowed. Raises owner_not_found (PT404).';
revoke all on function public.owner_usage(uuid) from public, anon, authenticated, service_role;
grant execute on function public.owner_usage(uuid) to authenticated, service_role;
