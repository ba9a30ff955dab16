-- What the screens show: a school whose times are all known. Run by a superuser, past the triggers.

select set_config('request.jwt.claims', '', false);
insert into owners (id, name, created_at) values ('5c000000-0000-4000-8000-000000000007', 'School 7', '2025-09-01Z');
select fleet.set_setting('default_owner', to_jsonb('5c000000-0000-4000-8000-000000000007'::text));

insert into devices (id, owner_id, hostname, platform, tags, timezone)
select n, '5c000000-0000-4000-8000-000000000007', format('pc-%s', to_char(n, 'FM0000')),
  case when n = 3 then 'linux' else 'windows' end, case n when 1 then '{lab,teacher}' else '{lab,student}' end::text[],
  'Europe/Berlin'
from generate_series(1, 3) as n
order by n;
insert into devices (id, owner_id, hostname, platform, tags, timezone)
values
  (4, '5c000000-0000-4000-8000-000000000007', 'school-7-building-b-room-214-teachers-desk', 'macos', '{}', 'America/New_York'),
  (5, '5c000000-0000-4000-8000-000000000007', E'evil\u202egnp.exe', 'linux', '{"=HYPERLINK(1)"}', 'UTC');
insert into device_groups (id, owner_id, name, selector, description)
values
  (1, '5c000000-0000-4000-8000-000000000007', 'labs', '{"tags": ["lab"]}', 'All computers of the labs, those of the teachers too'),
  (2, '5c000000-0000-4000-8000-000000000007', 'desks', null, '');
insert into device_group_members (owner_id, group_id, device_id) values ('5c000000-0000-4000-8000-000000000007', 2, 4);
select create_blackout_calendar(
  'Holidays', '[{"starts_on": "2036-12-21", "ends_on": "2037-01-05", "summary": "Christmas"}]',
  p_owner_id => '5c000000-0000-4000-8000-000000000007'
);
select create_schedule('{
  "name": "Evening round", "description": "Whoever is last", "action_type": "lock", "group_ids": [1], "recurrence_type": "daily",
  "recurrence_config": {"time": "18:30"}, "timezone": "Europe/Berlin", "start_time": "2036-03-01T00:00:00",
  "policies": {"overlap": "skip"}
}');
select create_schedule('{
  "name": "Clean up the caches of all browsers", "action_type": "clear_cache", "selector": {"platform": ["windows"]},
  "recurrence_type": "cron", "recurrence_config": {"cron_expression": "0 3 1 * *"}, "start_time": "2036-03-01T00:00:00"
}');
select create_schedule('{
  "name": "Fire drill", "action_type": "broadcast_message", "payload": {"message": "Please leave"}, "device_ids": [1, 4],
  "recurrence_type": "once", "start_time": "2036-03-14T10:00:00Z"
}');
select pause_schedule(id, 'The siren is broken') from schedules where name = 'Fire drill';
select create_integration('{"name": "Tablets", "integration_type": "simplemdm"}');

set session_replication_role = replica;
update devices set created_at = '2025-09-01Z', updated_at = '2025-09-01Z', enrolled_at = '2025-09-02Z';
update devices set last_seen = '2026-01-15 11:57:20Z' where id = 1;
update devices set last_seen = '2026-01-15 09:10Z' where id = 2;
update devices set last_seen = '2026-01-03 07:30Z' where id = 3;
update devices set last_seen = '2025-05-20 07:30Z' where id = 4;
update device_groups set created_at = '2025-09-01Z', updated_at = '2025-09-01Z';
update schedules set id = id + 100;
update schedules set created_at = '2025-09-01Z', updated_at = '2025-09-01Z', next_run_at = '2026-01-15 17:30Z' where id = 101;
update schedules set created_at = '2025-09-01Z', updated_at = '2025-09-01Z', next_run_at = '2026-02-01 03:00Z' where id = 102;
update schedules set created_at = '2025-09-01Z', updated_at = '2025-09-01Z' where id = 103;
update schedules set last_executed_at = '2026-01-14 17:30Z', execution_count = 133 where id = 101;
insert into schedule_runs (id, owner_id, schedule_id, scheduled_for, trigger, status, reason, targeted, completed, failed, started_at,
  finished_at, created_at, action_type)
values
  (1000, '5c000000-0000-4000-8000-000000000007', 101, '2025-12-24 17:30Z', 'schedule', 'skipped', 'blackout "Holidays"', 0, 0, 0, null,
    '2025-12-24 17:30Z', '2025-12-24 17:30Z', 'lock'),
  (1001, '5c000000-0000-4000-8000-000000000007', 101, '2026-01-14 17:30Z', 'schedule', 'completed', null, 3, 3, 0, '2026-01-14 17:30Z',
    '2026-01-14 17:30:04Z', '2026-01-14 17:30Z', 'lock'),
  (1002, '5c000000-0000-4000-8000-000000000007', 101, '2026-01-15 11:00Z', 'manual', 'failed', null, 3, 1, 1, '2026-01-15 11:00Z', null,
    '2026-01-15 11:00Z', 'lock'),
  (1003, '5c000000-0000-4000-8000-000000000007', 102, '2026-01-15 11:59:30Z', 'manual', 'running', null, 2, 0, 0, '2026-01-15 11:59:30Z',
    null, '2026-01-15 11:59:30Z', 'clear_cache');
insert into device_commands (id, owner_id, run_id, schedule_id, device_id, device_hostname, command_type, status, reason, attempt,
  expires_at, not_before, claimed_at, executed_at, result, error_message, created_at, lease_expires_at)
values
  (2001, '5c000000-0000-4000-8000-000000000007', 1002, 101, 1, 'pc-0001', 'lock', 'completed', null, 1, '2026-01-16Z', '2026-01-15 11:00Z',
    '2026-01-15 11:00:01Z', '2026-01-15 11:00:03Z', '{"locked": true}', null, '2026-01-15 11:00Z', null),
  (2002, '5c000000-0000-4000-8000-000000000007', 1002, 101, 2, 'pc-0002', 'lock', 'running', null, 2, '2036-01-16Z', '2026-01-15 11:00Z',
    '2026-01-15 11:00:01Z', null, null, null, '2026-01-15 11:00Z', '2036-01-15 12:01Z'),
  (2003, '5c000000-0000-4000-8000-000000000007', 1002, 101, 4, 'school-7-building-b-room-214-teachers-desk', 'lock', 'failed',
    'handler_failed', 3, '2026-01-16Z', '2026-01-15 11:00Z', '2026-01-15 11:00:01Z', '2026-01-15 11:00:03Z', '{"exit": 1}',
    E'lockscreen: \x1b]0;owned\x07 no session is open for the user who is to be locked out of this very long message', '2026-01-15 11:00Z',
    null),
  (2004, '5c000000-0000-4000-8000-000000000007', null, null, 3, 'pc-0003', 'buzz', 'pending', null, 0, '2036-01-16Z', '2026-01-15 11:58Z',
    null, null, null, null, '2026-01-15 11:58Z', null);
insert into enrollment_codes (id, owner_id, code_hash, max_uses, used_count, expires_at, created_at)
select 1, '5c000000-0000-4000-8000-000000000007', '\x00', 30, 3, '2036-01-16Z', '2026-01-15 10:00Z'
where exists (select from information_schema.columns where table_name = 'enrollment_codes' and column_name = 'code_hash');
update device_integrations set created_at = '2025-09-01Z', last_sync_at = '2026-01-15 11:30Z';
delete from audit_log;
insert into audit_log (id, owner_id, at, actor_role, actor_label, action, table_name, row_id, old, new)
overriding system value
values (5001, '5c000000-0000-4000-8000-000000000007', '2026-01-15 11:00Z', 'authenticated', 'ada@school.example', 'update', 'schedules', '101',
  '{"status": "active"}', '{"status": "paused", "status_reason": "loud"}');
update fleet.heartbeat set last_tick_at = '2026-01-15 11:59:59Z', last_error = null;
