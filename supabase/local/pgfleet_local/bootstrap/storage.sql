-- Schema storage: buckets and the rows of their objects. Row security on them decides who reads and writes the bytes.

create table storage.buckets (
  id text primary key,
  name text not null unique,
  owner uuid,
  owner_id text,
  public boolean default false,
  avif_autodetection boolean default false,
  file_size_limit bigint,
  allowed_mime_types text[],
  created_at timestamptz default now(),
  updated_at timestamptz default now()
);

comment on table storage.buckets is 'Buckets of objects.';

create table storage.objects (
  id uuid primary key default gen_random_uuid(),
  bucket_id text references storage.buckets (id),
  name text,
  owner uuid,
  owner_id text,
  metadata jsonb,
  user_metadata jsonb,
  version text,
  created_at timestamptz default now(),
  updated_at timestamptz default now(),
  last_accessed_at timestamptz default now(),
  path_tokens text[] generated always as (string_to_array(name, '/')) stored
);

comment on table storage.objects is 'One row an object; version names the file that has its bytes.';

create unique index bucketid_objname on storage.objects (bucket_id, name);

alter table storage.buckets enable row level security;
alter table storage.objects enable row level security;

grant all on table storage.buckets, storage.objects to anon, authenticated, service_role;
grant all on table storage.buckets, storage.objects to postgres with grant option;
alter table storage.buckets owner to supabase_storage_admin;

-- As with realtime.messages: hosted lets postgres make policies on the objects without owning them.
alter table storage.objects owner to pg_database_owner;
-- A bucket that goes is looked up among the objects by their owner.
grant usage on schema storage to pg_database_owner;

do $body$
declare
  v_objects oid := 'storage.objects'::regclass;
  v_acl text := (select c.relacl::text from pg_catalog.pg_class as c where c.oid = v_objects);
begin
  execute format(
    $create$
      create function pgfleet_local.guard_objects()
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
            and command.command_tag <> 'CREATE TRIGGER'
        ) or exists (
          select
          from pg_catalog.pg_class as c
          where c.oid = %1$L::oid
            and (c.relowner <> 'pg_database_owner'::regrole or c.relacl::text <> %2$L)
        ) then
          raise exception 'must be owner of table objects'
            using errcode = 'insufficient_privilege';
        end if;
      end;
      $$
    $create$,
    v_objects, v_acl
  );
end;
$body$;

create function pgfleet_local.guard_objects_drop()
returns event_trigger
language plpgsql
set search_path = ''
as $$
begin
  if not pgfleet_local.is_superuser() and exists (
    select
    from pg_catalog.pg_event_trigger_dropped_objects() as gone
    where gone.address_names[1] = 'storage'
      and gone.object_type not in ('policy', 'trigger')
  ) then
    raise exception 'must be owner of table objects'
      using errcode = 'insufficient_privilege';
  end if;
end;
$$;

create event trigger pgfleet_guard_objects
  on ddl_command_end
  execute function pgfleet_local.guard_objects();

create event trigger pgfleet_guard_objects_drop
  on sql_drop
  execute function pgfleet_local.guard_objects_drop();
