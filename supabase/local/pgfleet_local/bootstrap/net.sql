-- A stand-in for pg_net: the same schema, names, arguments, tables, grants and error texts. The
-- requests are sent by the gateway's net worker, which a NOTIFY wakes at commit.

create schema net authorization supabase_admin;

create domain net.http_method as text
  constraint http_method_check
    check (value ilike 'get' or value ilike 'post' or value ilike 'delete');

create type net.request_status as enum ('PENDING', 'SUCCESS', 'ERROR');

create type net.http_response as (
  status_code integer,
  headers jsonb,
  body text
);

create type net.http_response_result as (
  status net.request_status,
  message text,
  response net.http_response
);

create sequence net.http_request_queue_id_seq;

-- Unlogged as the original: a crash empties both, and whoever relies on them must find out here.
create unlogged table net.http_request_queue (
  id bigint not null default nextval('net.http_request_queue_id_seq'),
  method net.http_method not null,
  url text not null,
  headers jsonb,
  body bytea,
  timeout_milliseconds integer not null
);

alter sequence net.http_request_queue_id_seq owned by net.http_request_queue.id;

create unlogged table net._http_response (
  id bigint,
  status_code integer,
  content_type text,
  headers jsonb,
  content text,
  timed_out boolean,
  error_msg text,
  created timestamptz not null default now()
);

create index _http_response_created_idx on net._http_response (created);

create function net.wake()
returns void
language plpgsql
volatile
as $$
begin
  notify pgfleet_net;
end;
$$;

-- The worker holds this advisory lock for as long as it serves the database.
create function net.check_worker_is_up()
returns void
language plpgsql
volatile
as $$
begin
  if not exists (
    select
    from pg_catalog.pg_locks as l
    join pg_catalog.pg_database as d
      on d.oid = l.database
    where l.locktype = 'advisory'
      and l.granted
      and d.datname = current_database()
      and l.classid = 1885827700
      and l.objid = 1
  ) then
    raise exception using
      message = 'the pg_net background worker is not up',
      detail = 'the pg_net background worker is down due to an internal error and cannot process requests',
      hint = 'make sure that the gateway of the local platform is running';
  end if;
end;
$$;

create function net.wait_until_running()
returns void
language plpgsql
volatile
as $$
begin
  loop
    begin
      perform net.check_worker_is_up();
      return;
    exception
      when raise_exception then
        perform pg_catalog.pg_sleep(0.05);
    end;
  end loop;
end;
$$;

create function net.worker_restart()
returns boolean
language sql
volatile
as $$
  select true
$$;

create function net._urlencode_string(string varchar)
returns text
language sql
immutable
as $$
  select coalesce(
    string_agg(
      case
        when p.piece ~ '^[A-Za-z0-9_.~-]$' then p.piece
        else regexp_replace(
          upper(encode(convert_to(p.piece, 'UTF8'), 'hex')), '(..)', '%\1', 'g'
        )
      end,
      '' order by p.position
    ),
    ''
  )
  from regexp_split_to_table(string, '') with ordinality as p (piece, position)
$$;

create function net._encode_url_with_params_array(url text, params_array text[])
returns text
language plpgsql
immutable
as $$
declare
  v_parts text[] := regexp_match(url, '^([A-Za-z][A-Za-z0-9+.-]*://[^/?#]+)([^?#]*)(\?[^#]*)?(#.*)?$');
  v_query text;
begin
  if url is not null and v_parts is null then
    raise exception 'invalid URL "%": Bad scheme', url;
  end if;

  v_query := coalesce(v_parts[3], '');

  if cardinality(params_array) > 0 then
    v_query := case when v_query in ('', '?') then '?' else v_query || '&' end
      || array_to_string(params_array, '&');
  end if;

  return v_parts[1]
    || coalesce(nullif(v_parts[2], ''), '/')
    || v_query
    || coalesce(v_parts[4], '');
end;
$$;

create function net._enqueue(
  method text,
  url text,
  params jsonb,
  headers jsonb,
  body bytea,
  timeout_milliseconds integer
)
returns bigint
language plpgsql
volatile
as $$
declare
  v_id bigint;
  v_params text[] := (
    select array_agg(net._urlencode_string(p.key) || '=' || net._urlencode_string(p.value))
    from jsonb_each_text(params) as p
  );
begin
  insert into net.http_request_queue (method, url, headers, body, timeout_milliseconds)
  values (
    _enqueue.method,
    net._encode_url_with_params_array(_enqueue.url, coalesce(v_params, '{}')),
    _enqueue.headers,
    _enqueue.body,
    _enqueue.timeout_milliseconds
  )
  returning id into v_id;

  perform net.wake();

  return v_id;
end;
$$;

create function net.http_get(
  url text,
  params jsonb default '{}'::jsonb,
  headers jsonb default '{}'::jsonb,
  timeout_milliseconds integer default 5000
)
returns bigint
language sql
volatile
as $$
  select net._enqueue('GET', url, params, headers, null, timeout_milliseconds)
$$;

create function net.http_post(
  url text,
  body jsonb default '{}'::jsonb,
  params jsonb default '{}'::jsonb,
  headers jsonb default '{"Content-Type": "application/json"}'::jsonb,
  timeout_milliseconds integer default 5000
)
returns bigint
language plpgsql
volatile
as $$
declare
  v_headers jsonb := headers;
  v_content_type text := (
    select h.value
    from jsonb_each_text(headers) as h
    where lower(h.key) = 'content-type'
    limit 1
  );
begin
  if v_content_type is null then
    v_headers := headers || '{"Content-Type": "application/json"}'::jsonb;
  elsif v_content_type <> 'application/json' then
    raise exception 'Content-Type header must be "application/json"';
  end if;

  return net._enqueue(
    'POST', url, params, v_headers, convert_to(body::text, 'UTF8'), timeout_milliseconds
  );
end;
$$;

create function net.http_delete(
  url text,
  params jsonb default '{}'::jsonb,
  headers jsonb default '{}'::jsonb,
  timeout_milliseconds integer default 5000,
  body jsonb default null
)
returns bigint
language sql
volatile
as $$
  select net._enqueue(
    'DELETE', url, params, headers, convert_to(body::text, 'UTF8'), timeout_milliseconds
  )
$$;

create function net._await_response(request_id bigint)
returns boolean
language plpgsql
volatile
as $$
begin
  while not exists (
    select from net._http_response as r where r.id = _await_response.request_id
  ) loop
    perform pg_catalog.pg_sleep(0.05);
  end loop;

  return true;
end;
$$;

create function net._http_collect_response(request_id bigint, async boolean default true)
returns net.http_response_result
language plpgsql
volatile
as $$
declare
  v_response net._http_response;
begin
  if not async then
    perform net._await_response(request_id);
  end if;

  select r.* into v_response
  from net._http_response as r
  where r.id = request_id
  limit 1;

  if not found then
    if exists (select from net.http_request_queue as q where q.id = request_id) then
      return row('PENDING', 'request is pending processing', null)::net.http_response_result;
    end if;

    return row('ERROR', 'request matching request_id not found', null)::net.http_response_result;
  end if;

  if v_response.error_msg is not null then
    return row('ERROR', v_response.error_msg, null)::net.http_response_result;
  end if;

  return row(
    'SUCCESS',
    'ok',
    row(v_response.status_code, v_response.headers, v_response.content)::net.http_response
  )::net.http_response_result;
end;
$$;

create function net.http_collect_response(request_id bigint, async boolean default true)
returns net.http_response_result
language sql
volatile
as $$
  select net._http_collect_response(request_id, async)
$$;

grant usage on schema net to public;
grant all on all tables in schema net to public;
grant all on all sequences in schema net to public;
