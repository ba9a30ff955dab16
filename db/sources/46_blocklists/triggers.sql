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
