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
