-- Generated from db/sources/46_blocklists by pgfleet db bundle; edit the files there instead.

set check_function_bodies = off;
set search_path = '';

-- db/sources/46_blocklists/10_blocklists.sql
-- Blocklists: what devices are to block, kept by people and read by devices.

create or replace function fleet.blocklist_problems(p_entry public.blocklist_entries)
returns setof fleet.problem
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select 'kind', format('"%s" is not one of website, software', left(p_entry.kind, 60)), 'Use one of: website, software.'
  where p_entry.kind is null or p_entry.kind not in ('website', 'software')
  union all
  select 'pattern', 'must not be empty', 'Give a domain, or the name of a program.'
  where btrim(coalesce(p_entry.pattern, '')) = ''
  union all
  select 'pattern', format('"%s" is no domain', left(p_entry.pattern, 60)), 'Example: example.com, which blocks all below it too'
  where p_entry.kind = 'website'
    and (
      p_entry.pattern !~ '^([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z0-9-]{2,63}$' or length(p_entry.pattern) > 253
      or p_entry.pattern ~ '^[0-9.]+$'
    )
  union all
  select 'pattern', 'has a line break or another character that no name has', 'Give the name of the program: chess'
  where p_entry.kind = 'software' and fleet.has_unseen(p_entry.pattern)
  union all
  select 'group_id', format('group %s was not found', p_entry.group_id), 'List your groups with: select * from group_list'
  where p_entry.group_id is not null
    and not exists (select 1 from public.device_groups as g where g.id = p_entry.group_id and g.owner_id = p_entry.owner_id)
$$;

comment on function fleet.blocklist_problems(public.blocklist_entries) is
  'Everything that is wrong with an entry. What belongs to another owner is as good as not there.';
revoke all on function fleet.blocklist_problems(public.blocklist_entries) from public, anon, authenticated, service_role;

create or replace function fleet.device_blocklist(p_kind text)
returns jsonb
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_device_id bigint := fleet.require_device();
  v_device public.devices;
  v_entries jsonb;
begin
  perform fleet.raise_problems('the request', 'blocklist_invalid', array_agg(q))
  from fleet.choice_problem('kind', to_jsonb(p_kind), '{website,software}') as q;
  select d.* into v_device from public.devices as d where d.id = v_device_id;
  select coalesce(jsonb_agg(x.pattern order by x.pattern), '[]') into v_entries
  from (
    select distinct lower(e.pattern) as pattern
    from public.blocklist_entries as e
    left join public.device_groups as g on g.id = e.group_id
    where e.owner_id = v_device.owner_id and e.kind = p_kind
      and (
        e.group_id is null
        or (g.selector is not null
          and fleet.device_matches(g.selector, v_device.tags, v_device.platform, v_device.attributes, v_device.reported))
        or exists (select 1 from public.device_group_members as m where m.group_id = e.group_id and m.device_id = v_device.id)
      )
    order by pattern
    limit fleet.limit_value('blocklist')
  ) as x;
  return jsonb_build_object('kind', p_kind, 'version', md5(v_entries::text), 'entries', v_entries);
end;
$$;

comment on function fleet.device_blocklist(text) is 'See public.device_blocklist. Definer: a device may read no table of its owner.';
revoke all on function fleet.device_blocklist(text) from public, anon, authenticated, service_role;
grant execute on function fleet.device_blocklist(text) to authenticated, service_role;

create or replace function public.device_blocklist(p_kind text)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select fleet.device_blocklist(p_kind)
$$;

comment on function public.device_blocklist(text) is
  'What the calling device is to block, p_kind being website or software: {kind, version, entries}; the version changes with the entries. '
  'Raises not_a_device (PT403) or blocklist_invalid (PT422).';
revoke all on function public.device_blocklist(text) from public, anon, authenticated, service_role;
grant execute on function public.device_blocklist(text) to authenticated, service_role;

create or replace function public.block(p_kind text, p_patterns text[], p_group_id bigint default null, p_note text default '', p_owner_id uuid default null)
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  insert into public.blocklist_entries (owner_id, kind, pattern, group_id, note)
  select p_owner_id, p_kind, x.pattern, p_group_id, p_note
  from (select distinct lower(btrim(u.pattern)) as pattern from unnest(p_patterns) as u(pattern)) as x
  order by x.pattern
  on conflict do nothing;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function public.block(text, text[], bigint, text, uuid) is
  'Put websites or software onto the blocklist of all devices, or of a group. Answers how many are new. Raises blocklist_invalid (PT422) or '
  'permission_missing (PT403).';
revoke all on function public.block(text, text[], bigint, text, uuid) from public, anon, authenticated, service_role;
grant execute on function public.block(text, text[], bigint, text, uuid) to authenticated, service_role;

-- db/sources/46_blocklists/views.sql
-- Blocklists as people list them.

drop view if exists public.blocklist_list;
create view public.blocklist_list with (security_invoker = true) as
select b.id, b.owner_id, o.name as owner, b.kind, b.pattern, g.name as group_name, b.note, b.created_at, b.group_id
from public.blocklist_entries as b
join public.owners as o on o.id = b.owner_id
left join public.device_groups as g on g.id = b.group_id;

comment on view public.blocklist_list is 'What devices are to block.';
comment on column public.blocklist_list.owner is 'The name of the owner.';
comment on column public.blocklist_list.group_name is 'For which group; for all devices where there is none.';
select fleet.inherit_comments('public.blocklist_list', 'public.blocklist_entries');
revoke all on table public.blocklist_list from public, anon, authenticated, service_role;
grant select on table public.blocklist_list to authenticated, service_role;

-- db/sources/46_blocklists/triggers.sql
-- What holds for entries however a row is written.

create or replace function fleet.tg_prepare_blocklist_entry()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  new.owner_id := fleet.owner_or_own(new.owner_id);
  perform fleet.require_permission(new.owner_id, 'manage', format('owner %s', new.owner_id));
  new.note := coalesce(new.note, '');
  new.pattern := case new.kind when 'website' then lower(btrim(new.pattern)) else btrim(new.pattern) end;
  if tg_op = 'INSERT' then
    new.created_by := fleet.current_user_id();
  end if;
  perform fleet.raise_problems('the entry', 'blocklist_invalid', array_agg(q)) from fleet.blocklist_problems(new) as q;
  return new;
end;
$$;

comment on function fleet.tg_prepare_blocklist_entry() is
  'Check an entry however it is written. Raises blocklist_invalid (PT422, PT404). Definer: it checks the caller, then sees what the checks need.';
revoke all on function fleet.tg_prepare_blocklist_entry() from public, anon, authenticated, service_role;

create or replace trigger blocklist_entries_01_prepare
  before insert or update of owner_id, kind, pattern, group_id, note on public.blocklist_entries
  for each row execute function fleet.tg_prepare_blocklist_entry();

create or replace function fleet.tg_bound_blocklist()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (
    select 1
    from (select distinct n.owner_id, n.kind from new_rows as n) as o
    where (select count(*) from public.blocklist_entries as e where e.owner_id = o.owner_id and e.kind = o.kind)
      > fleet.limit_value('blocklist')
  ) then
    perform fleet.raise_problems('the entry', 'blocklist_invalid', array[row(
      'pattern', format('is one too many: a blocklist has %s entries at most', fleet.limit_value('blocklist')), 'Remove others first.'
    )::fleet.problem]);
  end if;
  return null;
end;
$$;

comment on function fleet.tg_bound_blocklist() is
  'Keep the blocklists of an owner within their limit. Raises blocklist_invalid (PT422). Definer: it counts what the caller may not see.';
revoke all on function fleet.tg_bound_blocklist() from public, anon, authenticated, service_role;

create or replace trigger blocklist_entries_02_bound
  after insert on public.blocklist_entries
  referencing new table as new_rows
  for each statement execute function fleet.tg_bound_blocklist();

select fleet.keep_audit('public.blocklist_entries');

-- db/sources/46_blocklists/access.sql
-- Who keeps blocklists: the people of the owner. Devices read theirs with device_blocklist().

revoke all on table public.blocklist_entries from public, anon, authenticated, service_role;
revoke all on sequence public.blocklist_entries_id_seq from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.blocklist_entries to service_role;
grant usage, select on sequence public.blocklist_entries_id_seq to service_role;
grant select, delete on table public.blocklist_entries to authenticated;
grant insert (owner_id, kind, pattern, group_id, note) on table public.blocklist_entries to authenticated;
grant update (note) on table public.blocklist_entries to authenticated;

drop policy if exists blocklist_entries_all_service_role on public.blocklist_entries;
create policy blocklist_entries_all_service_role on public.blocklist_entries
  for all to service_role using (true) with check (true);
drop policy if exists blocklist_entries_select_member on public.blocklist_entries;
create policy blocklist_entries_select_member on public.blocklist_entries
  for select to authenticated using (owner_id = any (array(select fleet.my_owners())));
drop policy if exists blocklist_entries_insert_manager on public.blocklist_entries;
create policy blocklist_entries_insert_manager on public.blocklist_entries
  for insert to authenticated with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists blocklist_entries_update_manager on public.blocklist_entries;
create policy blocklist_entries_update_manager on public.blocklist_entries
  for update to authenticated
  using (owner_id = any (array(select fleet.my_owners('manage'))))
  with check (owner_id = any (array(select fleet.my_owners('manage'))));
drop policy if exists blocklist_entries_delete_manager on public.blocklist_entries;
create policy blocklist_entries_delete_manager on public.blocklist_entries
  for delete to authenticated using (owner_id = any (array(select fleet.my_owners('manage'))));

set check_function_bodies = on;
reset search_path;
