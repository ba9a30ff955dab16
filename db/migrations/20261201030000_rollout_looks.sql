-- Rollouts are looked at many at once: what a look reads of a group, what it decides, and how far newcomers were looked for.
-- depends: 20261130070100_rollouts

create type fleet.wave_count as (
  wave smallint,
  name text,
  rules jsonb,
  targeted integer,
  released integer,
  succeeded integer,
  failed integer,
  skipped integer,
  failures jsonb,
  opened_at timestamptz,
  passed_at timestamptz
);
comment on type fleet.wave_count is 'A group of a rollout as a look sees it: what was counted, without whom it takes.';

create type fleet.rollout_look as (
  run_id bigint,
  schedule_id bigint,
  opened smallint[],
  passed smallint[],
  open smallint[],
  quota integer,
  has_rate boolean,
  wake_at timestamptz,
  look_at timestamptz,
  is_over boolean
);
comment on type fleet.rollout_look is
  'What one look at a rollout decides: groups that opened and passed, from which groups how many may have their turn, when somebody else may '
  '(wake_at), when it is looked at in any case (look_at), and whether it is over.';

alter table public.rollouts add column joined_to bigint;
comment on column public.rollouts.joined_to is 'Up to which device it was looked who has joined; null where a round of it is through.';

-- They take other parameters now; the sources that follow bring them back, or what came in their place.
drop function if exists fleet.fold_rollout(bigint);
drop function if exists fleet.failures_of(jsonb, text);
drop function if exists fleet.abort_reason(jsonb, public.run_waves[]);
drop function if exists fleet.wave_needs(public.run_waves);
drop function if exists fleet.wave_verdict(public.run_waves);
drop function if exists fleet.needs_approval(jsonb, public.run_waves);
drop function if exists fleet.release_quota(public.rollouts, public.run_waves[], timestamptz);
drop function if exists fleet.release_devices(public.rollouts, smallint[], integer, timestamptz);
drop function if exists fleet.waves_of(bigint);
drop function if exists fleet.open_waves(public.rollouts, boolean, timestamptz);
drop function if exists fleet.take_back(public.rollouts, timestamptz);
drop function if exists fleet.add_newcomers(public.rollouts, timestamptz);
drop function if exists fleet.look_at_rollout(bigint, timestamptz);
drop function if exists fleet.next_window(bigint, smallint[], timestamptz);
drop function if exists fleet.next_turn(public.rollouts, smallint[], timestamptz);
