-- Generated from db/migrations/20261202010000_geo_actions_at_once.sql by pgfleet db bundle; edit that file instead.
-- Geo actions are made by the ten thousand: what each of them cost beside its row is done once for all of them.
-- depends: 20261201080300_turns_of_the_fresh

-- When a geo schedule is due, without what it blocks and where: that may be long, and says nothing of when.
create type fleet.geo_times as (
  id bigint,
  timezone text,
  recurrence text,
  days smallint[],
  start_minute smallint,
  end_minute smallint,
  effective_from timestamptz,
  delay_ends_at timestamptz
);

comment on type fleet.geo_times is 'What a geo schedule says of when: of its columns those that the instants of its actions follow from.';

drop function if exists fleet.actions_from_geo_schedule_configs(public.geo_schedules[], timestamptz, timestamptz);

-- No foreign key: it was looked up for each action by itself, which took a third of the time. fleet.create_geo_actions, which alone
-- writes them, holds each geo schedule once while it does, and a geo schedule that goes takes its actions along by trigger.
alter table public.geo_actions drop constraint geo_actions_geo_schedule_fkey;

-- The id alone is the key: one index less for each action, and for each report.
alter table public.geo_action_reports drop constraint geo_action_reports_geo_action_fkey;
alter table public.geo_actions drop constraint geo_actions_id_owner_id_key;
alter table public.geo_action_reports
  add constraint geo_action_reports_geo_action_fkey foreign key (geo_action_id) references public.geo_actions (id) on delete cascade;
drop index public.geo_action_reports_action_owner_idx;
