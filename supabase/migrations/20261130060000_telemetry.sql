-- Generated from db/migrations/20261130060000_telemetry.sql by pgfleet db bundle; edit that file instead.
-- Telemetry: points by time, in a schema of its own that needs nothing else of ours, so that the same tables run in another
-- database, on Timescale or on Citus. No trigger, no foreign key, no row security, no token: who may read is for those who ask.
-- depends: 20261129210000_geo_triggers

create schema if not exists telemetry;
revoke all on schema telemetry from public;

comment on schema telemetry is 'Telemetry points, by itself: no table here refers to a table elsewhere.';

create table telemetry.points (
  device_id bigint not null,
  stream text not null,
  at timestamptz not null,
  digest uuid not null,
  owner_id uuid not null,
  received_at timestamptz not null,
  source text not null,
  is_provisional boolean not null default false,
  path text,
  data jsonb not null,
  primary key (device_id, stream, at, digest),
  constraint points_source_is_known check (source in ('pull', 'push', 'import', 'agent')),
  constraint points_data_is_within_limits check (pg_column_size(data) <= 262144)
) partition by range (at);

create index points_at_idx on telemetry.points using brin (at);
create index points_provisional_idx on telemetry.points (device_id, stream, digest) where is_provisional;

comment on table telemetry.points is
  'One telemetry point a row. Its origin is its key: device, stream, time to the microsecond, digest of its data; one partition a day.';
comment on column telemetry.points.stream is 'Which series of the device it is: / is what its cloud keeps of it, health what its agent tells.';
comment on column telemetry.points.at is 'When the device measured it, or when its cloud took it.';
comment on column telemetry.points.digest is 'MD5 of the data, written canonically.';
comment on column telemetry.points.received_at is 'When it came to us.';
comment on column telemetry.points.source is 'pull, push, import (a backfill) or agent: the way on which it came first.';
comment on column telemetry.points.is_provisional is
  'Pushed without a time of its own: at is when it came, until the pulled point with the same data takes its place.';
comment on column telemetry.points.path is 'On which path the device sent it, where that was told.';

-- COPY writes here, and one statement carries it over. A crash empties it, and what was in it is read again.
create unlogged table telemetry.staging (
  batch uuid not null,
  device_id bigint not null,
  stream text not null,
  at timestamptz not null,
  digest uuid not null,
  owner_id uuid not null,
  source text not null,
  is_provisional boolean not null,
  path text,
  data jsonb not null
)
with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000);

comment on table telemetry.staging is 'Points on their way: a batch is copied in and carried over in one transaction.';
comment on column telemetry.staging.batch is 'Which transaction it belongs to.';

create table telemetry.latest (
  device_id bigint not null,
  stream text not null,
  at timestamptz not null,
  digest uuid not null,
  owner_id uuid not null,
  received_at timestamptz not null,
  source text not null,
  data jsonb not null,
  primary key (device_id, stream)
)
with (fillfactor = 70);

comment on table telemetry.latest is 'The latest point of each device and stream, kept as points come, not searched for.';

create table telemetry.dirty_hours (
  device_id bigint not null,
  stream text not null,
  hour timestamptz not null,
  primary key (device_id, stream, hour)
);

create index dirty_hours_hour_idx on telemetry.dirty_hours (hour);

comment on table telemetry.dirty_hours is 'Hours whose points have changed since they were rolled up.';

create table telemetry.hourly (
  device_id bigint not null,
  stream text not null,
  hour timestamptz not null,
  field text not null,
  owner_id uuid not null,
  points integer not null,
  smallest double precision,
  largest double precision,
  total double precision,
  primary key (device_id, stream, hour, field)
);

create index hourly_hour_idx on telemetry.hourly using brin (hour);

comment on table telemetry.hourly is
  'Each number of a device by the hour: how many, the least, the most and the sum. The field without a name counts all points.';
comment on column telemetry.hourly.field is 'Where the number is in the data, such as battery or gps.lat; empty for the points themselves.';

revoke all on all tables in schema telemetry from public;
