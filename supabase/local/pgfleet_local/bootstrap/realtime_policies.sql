-- Hosted lets postgres make policies on realtime.messages without owning it. Plain Postgres gives
-- that to the owner only, so here the table belongs to pg_database_owner, whose one implicit member
-- is the owner of the database, postgres. Event triggers then refuse all else that an owner may do.

alter table realtime.messages owner to pg_database_owner;

create function pgfleet_local.refuse_messages_ddl()
returns void
language plpgsql
set search_path = ''
as $$
begin
  raise exception 'must be owner of table messages'
    using errcode = 'insufficient_privilege';
end;
$$;

create function pgfleet_local.is_superuser()
returns boolean
language sql
stable
set search_path = ''
as $$
  select r.rolsuper
  from pg_catalog.pg_roles as r
  where r.rolname = current_user
$$;

comment on function pgfleet_local.is_superuser() is
  'Whether the acting role is a superuser, the owner of a definer function included.';

-- Of a command that touched something that hangs on a table: which table that is.
create function pgfleet_local.touched_table(p_class oid, p_object oid)
returns setof oid
language sql
stable
set search_path = ''
as $$
  select p_object
  where p_class = 'pg_catalog.pg_class'::regclass
  union all
  select i.inhparent
  from pg_catalog.pg_inherits as i
  where p_class = 'pg_catalog.pg_class'::regclass
    and i.inhrelid = p_object
  union all
  select x.indrelid
  from pg_catalog.pg_index as x
  where p_class = 'pg_catalog.pg_class'::regclass
    and x.indexrelid = p_object
  union all
  select t.tgrelid
  from pg_catalog.pg_trigger as t
  where p_class = 'pg_catalog.pg_trigger'::regclass
    and t.oid = p_object
  union all
  select w.ev_class
  from pg_catalog.pg_rewrite as w
  where p_class = 'pg_catalog.pg_rewrite'::regclass
    and w.oid = p_object
  union all
  select s.stxrelid
  from pg_catalog.pg_statistic_ext as s
  where p_class = 'pg_catalog.pg_statistic_ext'::regclass
    and s.oid = p_object
  union all
  select c.conrelid
  from pg_catalog.pg_constraint as c
  where p_class = 'pg_catalog.pg_constraint'::regclass
    and c.oid = p_object
$$;

-- GRANT does not say which table it was about, so the state after it is compared with the state
-- that the table has now, which is written into the function.
do $body$
declare
  v_messages oid := 'realtime.messages'::regclass;
  v_acl text := (select c.relacl::text from pg_catalog.pg_class as c where c.oid = v_messages);
begin
  execute format(
    $create$
      create function pgfleet_local.guard_messages()
      returns event_trigger
      language plpgsql
      set search_path = ''
      as $$
      begin
        if pgfleet_local.is_superuser() then
          return;
        end if;

        if exists (
          select
          from pg_catalog.pg_event_trigger_ddl_commands() as command
          cross join pgfleet_local.touched_table(command.classid, command.objid) as touched
          where touched = %1$L::oid
            -- By the TRIGGER right, which postgres has on hosted too.
            and command.command_tag <> 'CREATE TRIGGER'
        ) or exists (
          select
          from pg_catalog.pg_class as c
          where c.oid = %1$L::oid
            and (c.relowner <> 'pg_database_owner'::regrole or c.relacl::text <> %2$L)
        ) then
          perform pgfleet_local.refuse_messages_ddl();
        end if;
      end;
      $$
    $create$,
    v_messages, v_acl
  );
end;
$body$;

create function pgfleet_local.guard_messages_drop()
returns event_trigger
language plpgsql
set search_path = ''
as $$
begin
  if not pgfleet_local.is_superuser() and exists (
    select
    from pg_catalog.pg_event_trigger_dropped_objects() as gone
    where gone.address_names[1] = 'realtime'
      and gone.object_type not in ('policy', 'trigger')
  ) then
    perform pgfleet_local.refuse_messages_ddl();
  end if;
end;
$$;

-- The guards run with the rights of whoever runs the command.
grant usage on schema pgfleet_local to public;

create event trigger pgfleet_guard_messages
  on ddl_command_end
  execute function pgfleet_local.guard_messages();

create event trigger pgfleet_guard_messages_drop
  on sql_drop
  execute function pgfleet_local.guard_messages_drop();
