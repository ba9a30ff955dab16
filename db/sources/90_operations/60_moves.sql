-- Moving an owner to another database: it is held still here, copied there, and then known to live there.

create or replace function fleet.transactions_at_moves()
returns text[]
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
  -- Each that asked whether an owner is held has this lock until it ends.
  select coalesce(array_agg(distinct l.virtualtransaction), '{}')
  from pg_locks as l
  where l.relation = 'fleet.owner_moves'::regclass and l.granted and l.pid <> pg_backend_pid()
    and l.database = (select d.oid from pg_database as d where d.datname = current_database())
$$;

comment on function fleet.transactions_at_moves() is 'The virtual transactions of others that have asked whether an owner is being moved, and have not ended.';
revoke all on function fleet.transactions_at_moves() from public, anon, authenticated, service_role;

create or replace function fleet.begin_move(p_owner_id uuid)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_state text;
  v_is_new boolean;
begin
  if not exists (select 1 from public.owners as o where o.id = p_owner_id) then
    perform fleet.raise_not_found(format('owner %s', p_owner_id));
  end if;
  insert into fleet.owner_moves (owner_id) values (p_owner_id) on conflict do nothing;
  v_is_new := found;
  if not v_is_new then
    -- Whoever asked before that was committed still writes, and would do so after the copy was made.
    update fleet.owner_moves as m
    set witnesses = fleet.transactions_at_moves()
    where m.owner_id = p_owner_id and m.witnesses is null;
  end if;
  select m.state into v_state from fleet.owner_moves as m where m.owner_id = p_owner_id;
  return jsonb_build_object(
    'owner_id', p_owner_id, 'state', v_state,
    -- That it is held has yet to be committed: the next call tells who has not seen it.
    'under_way', v_is_new::integer + fleet.calls_under_way(p_owner_id, clock_timestamp())
  );
end;
$$;

comment on function fleet.begin_move(uuid) is
  'Hold an owner still, so that it can be copied to another database: its people only look, its devices, webhooks and other systems wait, and '
  'nothing of it starts or goes out. Called again, in a transaction of its own, until under_way is 0: then all that was begun before has ended. '
  '{owner_id, state, under_way}. Raises owner_not_found (PT404).';
revoke all on function fleet.begin_move(uuid) from public, anon, authenticated, service_role;

create or replace function fleet.calls_under_way(p_owner_id uuid, p_now timestamptz)
returns bigint
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select (select count(*) from public.webhook_deliveries as d
      where d.owner_id = p_owner_id and d.status = 'running' and d.next_attempt_at > p_now)
    + (select count(*) from fleet.mdm_work as w where w.owner_id = p_owner_id and w.held_until > p_now)
    + (select count(*) from fleet.mdm_rereads as r where r.owner_id = p_owner_id and r.held_until > p_now)
    + (select count(*) from fleet.profile_uploads as u where u.owner_id = p_owner_id and u.held_until > p_now)
    -- The next tick acts on them, in the order in which they happened.
    + (select count(*) from public.location_events as e where e.owner_id = p_owner_id and e.acted_at is null)
    + (select count(*) from fleet.owner_moves as m cross join unnest(m.witnesses) as w(id)
      where m.owner_id = p_owner_id and exists (select 1 from pg_locks as l where l.virtualtransaction = w.id))
$$;

comment on function fleet.calls_under_way(uuid, timestamptz) is
  'How much has begun for an owner and not ended, calls of the functions, transactions, and what follows from positions: what comes of it belongs to the copy, too.';
revoke all on function fleet.calls_under_way(uuid, timestamptz) from public, anon, authenticated, service_role;

create or replace function fleet.give_up_move(p_owner_id uuid)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (select 1 from fleet.owner_moves as m where m.owner_id = p_owner_id and m.state = 'moved') then
    raise exception 'owner % lives elsewhere already', p_owner_id
      using errcode = 'PT409', detail = 'owner_moved', hint = 'Its devices were told. Move it back from there.';
  end if;
  delete from fleet.owner_moves as m where m.owner_id = p_owner_id;
  return found;
end;
$$;

comment on function fleet.give_up_move(uuid) is
  'Let an owner that was held still go on here, where its copy is not used. Answers whether it was held. Raises owner_moved (PT409).';
revoke all on function fleet.give_up_move(uuid) from public, anon, authenticated, service_role;

create or replace function fleet.finish_move(p_owner_id uuid, p_url text, p_anon_key text, p_functions_url text default null)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_devices bigint;
begin
  if coalesce(p_url, '') !~ '^https?://[^[:space:]]+$' or coalesce(p_functions_url, 'http://x') !~ '^https?://[^[:space:]]+$' then
    raise exception 'the address must begin with http:// or https://'
      using errcode = 'PT422', detail = 'address_invalid', hint = 'Give the address of the other platform, as its agents use it.';
  elsif coalesce(p_anon_key, '') = '' then
    raise exception 'the key of the other platform is missing'
      using errcode = 'PT422', detail = 'anon_key_missing', hint = 'Give its anon or publishable key.';
  end if;
  update fleet.owner_moves as m
  set state = 'moved', moved_at = coalesce(m.moved_at, now()), url = rtrim(p_url, '/'), anon_key = p_anon_key,
      functions_url = rtrim(p_functions_url, '/')
  where m.owner_id = p_owner_id;
  if not found then
    raise exception 'owner % was not exported', p_owner_id
      using errcode = 'PT409', detail = 'owner_not_leaving', hint = 'Export it first: select fleet.begin_move(<owner>)';
  end if;

  insert into fleet.moved_devices (secret_hash, device_id, owner_id)
  select c.secret_hash, c.device_id, c.owner_id from fleet.device_credentials as c where c.owner_id = p_owner_id
  on conflict do nothing;
  get diagnostics v_devices = row_count;
  -- Who listens asks at once, at the pace of all doorbells; who does not asks when it looks by itself.
  insert into fleet.doorbells (device_id, owner_id, ring_at, command_type)
  select d.id, d.owner_id, now(), 'moved' from public.devices as d where d.owner_id = p_owner_id and d.status = 'active'
  on conflict do nothing;
  return jsonb_build_object('owner_id', p_owner_id, 'state', 'moved', 'url', rtrim(p_url, '/'), 'devices', v_devices);
end;
$$;

comment on function fleet.finish_move(uuid, text, text, text) is
  'Say that an owner lives elsewhere now: its devices are rung, and whoever asks for a token hears where to, signed. {owner_id, state, url, '
  'devices}. Raises address_invalid, anon_key_missing (PT422) or owner_not_leaving (PT409).';
revoke all on function fleet.finish_move(uuid, text, text, text) from public, anon, authenticated, service_role;

create or replace function fleet.purge_owner(p_owner_id uuid, p_devices integer default 500)
returns jsonb
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_table record;
  v_count bigint;
begin
  if not exists (select 1 from fleet.owner_moves as m where m.owner_id = p_owner_id and m.state = 'moved') then
    raise exception 'owner % does not live elsewhere', p_owner_id
      using errcode = 'PT409', detail = 'owner_not_moved', hint = 'Say first where it is: select fleet.finish_move(<owner>, <url>, <anon key>)';
  end if;
  delete from public.devices as d
  where d.id in (select x.id from public.devices as x where x.owner_id = p_owner_id order by x.id limit p_devices);
  get diagnostics v_count = row_count;
  if v_count < p_devices then
    delete from public.owners as o where o.id = p_owner_id;
    for v_table in select t.name, t.condition from fleet.owned_tables() as t order by t.depth desc loop
      execute format('delete from %s as x where %s', v_table.name, v_table.condition) using p_owner_id;
    end loop;
  end if;
  return jsonb_build_object('owner_id', p_owner_id, 'devices', v_count, 'more', v_count >= p_devices);
end;
$$;

comment on function fleet.purge_owner(uuid, integer) is
  'Delete what is here of an owner that lives elsewhere, its log too, but for the address that its devices are told: {owner_id, devices, more}. '
  'So many devices a call; more says to call again. Raises owner_not_moved (PT409).';
revoke all on function fleet.purge_owner(uuid, integer) from public, anon, authenticated, service_role;

create or replace function fleet.keep_move_key(p_candidate text)
returns text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_key text;
begin
  insert into public.pg_cron_secrets (name, secret) values ('owner_move_key', p_candidate) on conflict do nothing;
  select s.secret into v_key from public.pg_cron_secrets as s where s.name = 'owner_move_key';
  return v_key;
end;
$$;

comment on function fleet.keep_move_key(text) is
  'The private key to which owners that come here are encrypted: the one that is kept, or this one from now on.';
revoke all on function fleet.keep_move_key(text) from public, anon, authenticated, service_role;
