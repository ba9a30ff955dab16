-- Schema realtime: messages, subscriptions and the functions that send from the database.

create table realtime.messages (
  topic text not null,
  extension text not null,
  payload jsonb,
  event text,
  private boolean default false,
  updated_at timestamp without time zone not null default now(),
  inserted_at timestamp without time zone not null default now(),
  id uuid not null default gen_random_uuid(),
  binary_payload bytea,
  primary key (id, inserted_at),
  constraint messages_payload_exclusive check (payload is null or binary_payload is null)
)
partition by range (inserted_at);

comment on table realtime.messages is 'What is broadcast; row security decides who hears it.';

alter table realtime.messages enable row level security;

grant select, insert, update on realtime.messages to anon, authenticated, service_role;

create type realtime.action as enum ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'ERROR');

create type realtime.equality_op as enum ('eq', 'neq', 'lt', 'lte', 'gt', 'gte', 'in');

create type realtime.user_defined_filter as (
  column_name text,
  op realtime.equality_op,
  value text
);

create function realtime.to_regrole(role_name text)
returns regrole
language sql
immutable
as $$ select role_name::regrole $$;

create table realtime.subscription (
  id bigint generated always as identity primary key,
  subscription_id uuid not null,
  entity regclass not null,
  filters realtime.user_defined_filter[] not null default '{}',
  claims jsonb not null,
  claims_role regrole not null generated always as (realtime.to_regrole(claims ->> 'role')) stored,
  created_at timestamp without time zone not null default timezone('utc', now()),
  action_filter text default '*',
  selected_columns text[],
  constraint subscription_action_filter_check
    check (action_filter in ('*', 'INSERT', 'UPDATE', 'DELETE'))
);

comment on table realtime.subscription is 'Who listens to changes of which table.';

grant select on realtime.subscription to anon, authenticated, service_role;

create function realtime.topic()
returns text
language sql
stable
as $$
  select nullif(current_setting('realtime.topic', true), '')
$$;

create function realtime.send(
  payload jsonb,
  event text,
  topic text,
  private boolean default true
)
returns void
language plpgsql
as $$
declare
  v_id uuid := gen_random_uuid();
begin
  -- Whatever goes wrong is a warning: sending must never break the transaction that sends.
  begin
    perform set_config('realtime.topic', send.topic, true);

    insert into realtime.messages (id, payload, event, topic, private, extension)
    values (
      v_id,
      case
        when send.payload ? 'id' then send.payload
        else jsonb_set(send.payload, '{id}', to_jsonb(v_id))
      end,
      send.event,
      send.topic,
      send.private,
      'broadcast'
    );
  exception
    when others then
      raise warning 'WarnSendingBroadcastMessage: %', sqlerrm;
  end;
end;
$$;

create function realtime.send_binary(
  payload bytea,
  event text,
  topic text,
  private boolean default true
)
returns void
language plpgsql
as $$
begin
  begin
    perform set_config('realtime.topic', send_binary.topic, true);

    insert into realtime.messages (binary_payload, event, topic, private, extension)
    values (
      send_binary.payload, send_binary.event, send_binary.topic, send_binary.private, 'broadcast'
    );
  exception
    when others then
      raise warning 'WarnSendingBroadcastMessage: %', sqlerrm;
  end;
end;
$$;

create function realtime.broadcast_changes(
  topic_name text,
  event_name text,
  operation text,
  table_name text,
  table_schema text,
  new record,
  old record,
  level text default 'ROW'
)
returns void
language plpgsql
as $$
begin
  if level = 'STATEMENT' then
    raise exception 'function can only be triggered for each row, not for each statement';
  end if;

  perform realtime.send(
    jsonb_build_object(
      'schema', table_schema,
      'table', table_name,
      'operation', operation,
      'record', case when operation <> 'DELETE' then to_jsonb(new) end,
      'old_record', case when operation <> 'INSERT' then to_jsonb(old) end
    ),
    event_name,
    topic_name
  );
exception
  when others then
    raise exception 'Failed to process the row: %', sqlerrm;
end;
$$;

-- On hosted the service follows the log; here it may be told that there is something to read.
create function realtime.tell_reader()
returns trigger
language plpgsql
as $$
begin
  notify pgfleet_realtime;
  return null;
end;
$$;

create trigger messages_tell_reader
  after insert on realtime.messages
  for each statement
  execute function realtime.tell_reader();

create publication supabase_realtime_messages_publication
  for table realtime.messages
  with (publish = 'insert', publish_via_partition_root = true);

alter table realtime.subscription owner to supabase_realtime_admin;
alter type realtime.action owner to supabase_realtime_admin;
alter type realtime.equality_op owner to supabase_realtime_admin;
alter type realtime.user_defined_filter owner to supabase_realtime_admin;
alter function realtime.to_regrole(text) owner to supabase_realtime_admin;
alter function realtime.topic() owner to supabase_realtime_admin;
alter function realtime.send(jsonb, text, text, boolean) owner to supabase_realtime_admin;
alter function realtime.send_binary(bytea, text, text, boolean) owner to supabase_realtime_admin;
alter function realtime.broadcast_changes(
  text, text, text, text, text, record, record, text
) owner to supabase_realtime_admin;
alter function realtime.tell_reader() owner to supabase_realtime_admin;

-- The service keeps yesterday's partition to three days ahead, and drops what is over 72 hours old.
create function pgfleet_local.maintain_messages(p_now timestamptz default now())
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_today date := (p_now at time zone 'utc')::date;
  v_day date;
  v_name text;
begin
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('pgfleet_local.maintain_messages'));

  for v_offset in -1..3 loop
    v_day := v_today + v_offset;
    v_name := pg_catalog.to_char(v_day, '"messages_"YYYY_MM_DD');

    if pg_catalog.to_regclass('realtime.' || v_name) is null then
      execute pg_catalog.format(
        'create table realtime.%I partition of realtime.messages for values from (%L) to (%L)',
        v_name, v_day, v_day + 1
      );
      execute pg_catalog.format('alter table realtime.%I owner to supabase_realtime_admin', v_name);
    end if;
  end loop;

  for v_name in
    select c.relname
    from pg_catalog.pg_inherits as i
    join pg_catalog.pg_class as c
      on c.oid = i.inhrelid
    where i.inhparent = 'realtime.messages'::regclass
      and c.relname < pg_catalog.to_char(v_today - 3, '"messages_"YYYY_MM_DD')
  loop
    execute pg_catalog.format('drop table realtime.%I', v_name);
  end loop;
end;
$$;

revoke all on function pgfleet_local.maintain_messages(timestamptz) from public;

select pgfleet_local.maintain_messages();
