-- What holds for command types however a row is written.

create or replace function fleet.tg_prepare_command_type()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Whoever runs the platform says by the name as well that it is somebody's own.
  if tg_op = 'INSERT' and (strpos(new.name, '-') > 0 or not fleet.is_trusted_caller()) then
    new.owner_id := fleet.owner_or_own(new.owner_id);
  end if;
  if not fleet.is_trusted_caller() then
    perform fleet.require_permission(new.owner_id, 'manage', format('owner %s', new.owner_id));
    if tg_op = 'UPDATE' then
      -- Who may not wipe does not make a type that wipes one that does not.
      perform fleet.require_destructive(old.owner_id, old.name);
    end if;
  end if;
  if new.owner_id is not null then
    perform fleet.raise_problems('the command type', 'command_type_invalid', array_agg(q))
    from fleet.command_type_problems(new) as q;
  end if;
  return new;
end;
$$;

comment on function fleet.tg_prepare_command_type() is
  'Check a command type of an owner''s own however it is written; what whoever runs the platform makes for everybody is held by CHECKs. Raises '
  'command_type_invalid (PT422) or permission_missing (PT403). Definer: it checks the caller.';
revoke all on function fleet.tg_prepare_command_type() from public, anon, authenticated, service_role;

create or replace trigger command_types_01_prepare
  before insert or update on public.command_types
  for each row execute function fleet.tg_prepare_command_type();

create or replace function fleet.tg_keep_used_type()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_is_used boolean;
begin
  if tg_op = 'DELETE' then
    if fleet.is_owner_gone(old.owner_id) then
      return old;
    elsif not fleet.is_trusted_caller() then
      perform fleet.require_destructive(old.owner_id, old.name);
    end if;
  elsif (new.destructive, new.permission) is not distinct from (old.destructive, old.permission) then
    return new;
  end if;
  execute format(
    'select exists (select 1 from %s as x where x.owner_id = $1 and $2 = any (%s) and %s)', tg_argv[0], tg_argv[1], tg_argv[2]
  )
  into v_is_used
  using old.owner_id, old.name;
  if v_is_used then
    raise exception 'command type "%" is in use by %', old.name, replace(split_part(tg_argv[0], '.', 2), '_', ' ')
      using errcode = 'PT409', detail = 'command_type_in_use',
            hint = 'Change or end those first: what was checked with it is not to change under them.';
  end if;
  return case tg_op when 'DELETE' then old else new end;
end;
$$;

comment on function fleet.tg_keep_used_type() is
  'Refuse to delete a command type that is in use, or to change what it takes to send it. Raises command_type_in_use (PT409) or '
  'permission_missing (PT403). Definer: it sees all that uses it.';
revoke all on function fleet.tg_keep_used_type() from public, anon, authenticated, service_role;

select fleet.keep_quota('public.command_types', 'command_types');
select fleet.keep_audit('public.command_types', p_when => 'new.owner_id is not null and new.* is distinct from old.*');
