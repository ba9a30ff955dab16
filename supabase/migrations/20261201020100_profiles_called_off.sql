-- Generated from db/migrations/20261201020100_profiles_called_off.sql by pgfleet db bundle; edit that file instead.
-- A schedule of a profile that was cancelled before anything came of it leaves every list; what is to be told of it stays with the install.
-- Mended, for it failed where the triggers of an older database were still there. Where it was applied as it was, nothing is missing:
-- instead of 6f1d2c650aac7347b6c6283a3795fc95e2f1f46ae6d36d3190958ef9a9e18bb2

alter table public.profile_installs
  alter column install_schedule_id drop not null,
  add column install_time timestamptz,
  add column removal_time timestamptz,
  add column removal_cancelled text,
  add constraint profile_installs_removal_cancelled_is_within_limits check (octet_length(removal_cancelled) <= 1020);

comment on column public.profile_installs.install_schedule_id is
  'The push_profile schedule; null where it was cancelled before anything came of it.';
comment on column public.profile_installs.remove_schedule_id is
  'The remove_profile schedule; null for an install that stays, and where it was cancelled before anything came of it.';
comment on column public.profile_installs.install_time is 'When a push that was cancelled would have been due; null while its schedule is there.';
comment on column public.profile_installs.removal_time is 'When a removal that was cancelled would have been due; null while its schedule is there.';
comment on column public.profile_installs.removal_cancelled is 'Why a removal that is no longer there was cancelled.';

create index profile_installs_called_off_idx on public.profile_installs (created_at) where install_schedule_id is null;

-- The triggers of an older database call functions that are gone by now; the sources bring their own.
alter table public.profile_installs disable trigger user;
alter table public.schedules disable trigger user;
create temporary table called_off on commit drop as
select s.id, s.action_type, s.start_time, s.status_reason
from public.schedules as s
where s.action_type in ('push_profile', 'remove_profile')
  and s.recurrence_type = 'once'
  and s.status = 'cancelled'
  and s.last_executed_at is null
  and not exists (select 1 from public.schedule_runs as r where r.schedule_id = s.id)
  and not exists (select 1 from public.device_commands as c where c.schedule_id = s.id)
  and not exists (select 1 from public.schedules as f where f.after_schedule_id = s.id);
update public.profile_installs as p
set install_schedule_id = null, install_time = c.start_time
from called_off as c
where c.id = p.install_schedule_id;
update public.profile_installs as p
set remove_schedule_id = null, removal_time = c.start_time, removal_cancelled = left(coalesce(c.status_reason, 'cancelled'), 255)
from called_off as c
where c.id = p.remove_schedule_id;
delete from public.schedules as s where s.id in (select c.id from called_off as c);
drop table called_off;
alter table public.schedules enable trigger user;
alter table public.profile_installs enable trigger user;
