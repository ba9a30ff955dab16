-- Owners that leave for another database: what is held still meanwhile, and where their devices find them afterwards.
-- depends: 20261130110100_geo_doorbells

-- Neither refers to the owner: both outlive it here.
create table fleet.owner_moves (
  owner_id uuid primary key,
  state text not null default 'leaving',
  begun_at timestamptz not null default now(),
  moved_at timestamptz,
  url text,
  functions_url text,
  anon_key text,
  created_at timestamptz not null default now(),
  constraint owner_moves_state_is_known check (state in ('leaving', 'moved')),
  constraint owner_moves_address_is_whole check (state = 'leaving' or (url is not null and anon_key is not null)),
  constraint owner_moves_texts_are_bounded check (
    length(url) <= 2000 and length(functions_url) <= 2000 and length(anon_key) <= 4000
  )
);

comment on table fleet.owner_moves is
  'Owners that are being moved to another database, or were: nothing of theirs goes out from here, and their devices are told where they are.';
comment on column fleet.owner_moves.state is 'leaving: they are held still while they are copied; moved: they live elsewhere.';
comment on column fleet.owner_moves.begun_at is 'When they were held still.';
comment on column fleet.owner_moves.moved_at is 'When they were said to live elsewhere.';
comment on column fleet.owner_moves.url is 'Where: the address of the other platform.';
comment on column fleet.owner_moves.functions_url is 'The address of its functions, where it does not follow from url.';
comment on column fleet.owner_moves.anon_key is 'The anon or publishable key of the other platform.';
alter table fleet.owner_moves enable row level security;
revoke all on table fleet.owner_moves from public, anon, authenticated, service_role;

create table fleet.moved_devices (
  secret_hash bytea primary key,
  device_id bigint not null,
  owner_id uuid not null
);

comment on table fleet.moved_devices is
  'What is left of devices that moved: the hash of the secret with which they ask where to. It is the key that the answer is signed with.';
comment on column fleet.moved_devices.secret_hash is 'SHA-256 of the device secret.';
comment on column fleet.moved_devices.device_id is 'Their id, here and there.';
create index moved_devices_owner_idx on fleet.moved_devices (owner_id);
alter table fleet.moved_devices enable row level security;
revoke all on table fleet.moved_devices from public, anon, authenticated, service_role;

create table fleet.arriving_rows (
  owner_id uuid not null,
  table_name text not null,
  batch bigint not null,
  rows jsonb not null,
  primary key (owner_id, table_name, batch)
);

comment on table fleet.arriving_rows is 'Rows of an owner that comes from another database, until all of them are there.';
comment on column fleet.arriving_rows.table_name is 'The table that they are of, with its schema.';
comment on column fleet.arriving_rows.batch is 'Which of the batches of that table.';
comment on column fleet.arriving_rows.rows is 'The rows as JSON.';
alter table fleet.arriving_rows enable row level security;
revoke all on table fleet.arriving_rows from public, anon, authenticated, service_role;
