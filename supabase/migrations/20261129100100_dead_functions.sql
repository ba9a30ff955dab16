-- Generated from db/migrations/20261129100100_dead_functions.sql by pgfleet db bundle; edit that file instead.
-- Functions that nothing calls any more, or whose parameters changed; the sources that follow have what is left of them.

drop function if exists fleet.claim(text);
drop function if exists fleet.local_second(timestamptz, text);
drop function if exists fleet.instant_refusal(public.schedules, timestamptz);
drop function if exists fleet.zones_of(jsonb);
drop function if exists fleet.is_event_wanted(uuid, text);
drop function if exists fleet.emit_event(uuid, text, jsonb);
drop function if exists fleet.place_of_fix(public.locations, double precision, double precision, double precision);
drop function if exists fleet.command_of_device(bigint, integer);
