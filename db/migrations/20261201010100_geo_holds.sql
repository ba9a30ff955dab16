-- Holds of geo schedules say what became of them, and each owner's are seen to by themselves.
-- depends: 20261130110100_geo_doorbells

drop function if exists fleet.hold_geo_profiles_of_all(timestamptz);
drop function if exists fleet.geo_holds_wanted(uuid, timestamptz);
drop function if exists fleet.geo_actions_to_remove(timestamptz);

-- Those that are over are looked for every minute, owner by owner.
create index geo_action_reports_running_idx on public.geo_action_reports (owner_id) where status = 'running';

-- The key of schedule and date finds the actions of a geo schedule as well; each that is made had to be written here, too.
drop index public.geo_actions_geo_schedule_owner_idx;
