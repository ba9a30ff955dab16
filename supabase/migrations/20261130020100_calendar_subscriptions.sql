-- Generated from db/migrations/20261130020100_calendar_subscriptions.sql by pgfleet db bundle; edit that file instead.
-- Blackout calendars that follow a calendar elsewhere.

alter table public.blackout_calendars
  add column url text,
  add column url_timezone text,
  add column skip_transparent boolean not null default false,
  add column looked_at timestamptz,
  add column look_error text,
  add column look_note text,
  add column changed_at timestamptz,
  add column look_next_at timestamptz,
  add column look_held_until timestamptz,
  add column look_attempt integer not null default 0,
  add column look_failures integer not null default 0,
  add column look_tag text,
  add column look_modified text,
  add constraint blackout_calendars_is_looked_at_where_subscribed check ((url is null) = (look_next_at is null)),
  add constraint blackout_calendars_has_short_subscription check (
    octet_length(url) <= 8000
    and octet_length(url_timezone) <= 1020
    and octet_length(look_error) <= 16000
    and octet_length(look_note) <= 8000
    and octet_length(look_tag) <= 8000
    and octet_length(look_modified) <= 8000
  );

comment on column public.blackout_calendars.url is 'Where the calendar comes from, as iCalendar; null for one that people keep themselves.';
comment on column public.blackout_calendars.url_timezone is 'The zone of its times that name none; null where there may be none such.';
comment on column public.blackout_calendars.skip_transparent is 'Whether events that leave people free are left out.';
comment on column public.blackout_calendars.looked_at is 'When it was last looked at, with whatever success.';
comment on column public.blackout_calendars.look_error is 'Why the last look brought nothing; the periods stay as they were. Null when it went well.';
comment on column public.blackout_calendars.look_note is 'What was left out of it: events that are cancelled, leave people free or cannot be read.';
comment on column public.blackout_calendars.changed_at is 'When its periods were last replaced by what was found there.';
comment on column public.blackout_calendars.look_next_at is 'When it is looked at next.';
comment on column public.blackout_calendars.look_held_until is 'Until when a function is looking at it.';
comment on column public.blackout_calendars.look_attempt is 'How often it was looked at: a function that was too slow is told so by it.';
comment on column public.blackout_calendars.look_failures is 'How many looks in a row brought nothing.';
comment on column public.blackout_calendars.look_tag is 'The ETag of what was read last, for a conditional request.';
comment on column public.blackout_calendars.look_modified is 'The Last-Modified of what was read last, for a conditional request.';

create index blackout_calendars_look_idx on public.blackout_calendars (look_next_at) where look_next_at is not null;
