-- Generated from db/migrations/20261129010000_run_bookings.sql by pgfleet db bundle; edit that file instead.
-- What is to be written into the ledger about one due instant, or about a range of missed ones.
-- depends: 20261122090800_places

create type fleet.run_booking as (
  schedule_id bigint,
  scheduled_for timestamptz,
  trigger text,
  status text,
  reason text,
  error_message text,
  missed_from timestamptz,
  missed_to timestamptz,
  missed_count bigint,
  not_before timestamptz,
  expires_at timestamptz,
  zones text[],
  dst_rule text,
  after_run_id bigint,
  idempotency_key text,
  next_run_at timestamptz
);

comment on type fleet.run_booking is
  'A run as it is decided, in the columns of schedule_runs. status: pending, skipped or failed. next_run_at: when the schedule is due '
  'next; infinity for never again, null where that stays as it is.';

alter table public.schedules add column idle_count bigint not null default 0;

comment on column public.schedules.idle_count is
  'How many of the runs that were started turned out to reach nobody. They do not count for policies.max_runs.';

-- They answer in bookings now, or take other arguments.
drop function if exists fleet.decide_due(public.schedules, timestamptz);
drop function if exists fleet.free_instant(bigint, timestamptz, bigint);
