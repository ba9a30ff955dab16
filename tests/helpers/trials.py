"""The verbs that change something, what a trial of each reaches, and the school to try them on."""

from __future__ import annotations

MOBILECONFIG = (
    '<?xml version="1.0" encoding="UTF-8"?><plist version="1.0"><dict><key>PayloadType</key>'
    "<string>Configuration</string></dict></plist>"
)
# Each verb that changes the database, with how many devices that would touch.
VERBS = {
    "command cancel 1 --yes": 1,
    "command add-type kiosk-reload": 0,
    "command send lab-01 lock": 1,
    "device create lab-09": 1,
    "device enroll-code --uses 3": 0,
    "device revoke-code 1": 0,
    "device rekey lab-01": 1,
    "device retire lab-01": 1,
    "device tag lab-01 --add x": 1,
    "group create some --device lab-01 --device lab-02": 2,
    "group add few lab-02": 1,
    "group remove few lab-01": 1,
    "group delete few": 1,
    "schedule create n --action lock --group labs --daily 02:30": 3,
    "schedule update nightly --daily 03:00": 3,
    "schedule duplicate nightly --name again": 3,
    "schedule pause nightly": 3,
    "schedule resume rests": 1,
    "schedule cancel nightly": 3,
    "schedule run nightly": 3,
    "schedule delete nightly": 3,
    "schedule bulk pause --where status=active": 4,
    "schedule apply {document}": 3,
    "template save t -f {template}": 0,
    "template use saved": 3,
    "template delete saved": 0,
    "blackout create b --day 2040-12-25": 0,
    "blackout import b {calendar}": 0,
    "blackout delete holidays": 0,
    "blackout subscribe https://example.com/days.ics --name days": 0,
    "geo create g --group labs --app steam --between 22:00-06:00": 3,
    "geo update 1 --between 21:00-06:00": 3,
    "geo delete 1": 3,
    "geo category games steam": 0,
    "location create l --at 1,2 --radius 50": 0,
    "location delete school": 0,
    "location policy lock --on enter --location school --group labs": 3,
    "location delete-policy 1": 3,
    "owner create other": 0,
    "owner set-default 'School 7'": 0,
    "owner set-timezone 'School 7' Europe/Berlin": 0,
    "owner rename 'School 7' 'School 8'": 0,
    "owner invite 'School 7' ben@school.example": 0,
    "device delete lab-03": 1,
    "setting set doorbell_rate 500": 0,
    "webhook create https://hooks.example.com/ --event run.failed": 0,
    "webhook update ops --disable": 0,
    "webhook test ops": 0,
    "webhook rotate ops": 0,
    "webhook delete ops": 0,
    "feed create f": 0,
    "feed revoke 1": 0,
    "integration create i": 0,
    "integration pause office": 1,
    "integration sync office": 1,
    "integration webhook create office": 0,
    "integration webhook revoke 1": 0,
    "integration delete office": 1,
    "profile install 77 tablet": 1,
    "profile remove 77 tablet": 1,
    "profile assign 77 --device tablet": 1,
    "profile upload {profile}": 0,
    "profile reconcile": 0,
    "deploy create app --file 1 --to /etc/app --group labs": 3,
    "deploy abort --run {run} --yes": 2,
    "deploy approve --run {run}": 2,
    "deploy pause --run {run}": 2,
    "deploy resume --run {resting}": 2,
    "deploy retry {deployment}": 1,
    "file delete 2 --yes": 0,
    "package delete 1 --yes": 0,
    "owner set-quota 'School 7' devices 5000": 0,
    "owner accept {code}": 0,
    "owner delete 'Nobody yet' --yes": 0,
    "owner leave 'School 7' --yes": 0,
    "owner permit 'School 7' {member} --may view": 0,
    "owner remove 'School 7' {member} --yes": 0,
    "owner uninvite 1": 0,
    "sync backfill green --from {lately}": 0,
    "sync interval green 600": 1,
    "sync direction green both --conflict manual": 1,
    "blocklist add website example.org": 0,
    "telemetry rule add 't > 1' buzz": 0,
    "template add-ready-made": 0,
    "sync pause green": 1,
    "sync run green": 1,
    "sync setup other --project p --from-env A_KEY": 0,
    "blackout unsubscribe follows": 0,
    "integration resume sleeps": 0,
    "integration set-secret office --from-env A_KEY": 0,
    "profile delete exam --yes": 0,
    "profile end 1": 1,
    "profile extend 1 '1 hour'": 1,
    "profile unassign 1": 1,
    "webhook redeliver 1": 0,
    "webhook verify mail {mail_code}": 0,
}
# Whose word it has to be.
SAID_BY = {"owner accept": "guest", "owner leave": "member", "deploy approve": "member"}
# What changes nothing in the database, or cannot be tried alone: with the reason.
NOT_TRIED = {
    "file add": "sends bytes to a store",
    "package add": "sends bytes to a store",
    "owner export": "needs the key of another database",
    "owner import": "needs the file of another database",
    "owner purge": "needs an owner that was moved",
    "owner moved-to": "needs an owner that was exported",
    "owner stay": "needs an owner that was exported",
    "blocklist remove": "needs an entry",
    "command remove-type": "needs a type of one's own",
    "sync desired": "needs a device of a Golioth project",
    "sync resolve": "needs a conflict of a sync",
    "telemetry rule pause": "needs a rule",
    "telemetry rule remove": "needs a rule",
    "doctor": "ends with 1 unless all is well, a trial or not",
    "sync check": "ends with 1 unless all of a sync is well, a trial or not",
    "db migrate": "has its own way to say what is pending",
    "functions setup": "makes a login, which is tried by the tests of it",
    "geo override": "needs what a device still owes, which tests/cli/test_geo makes",
}
WORLD = """
insert into devices (hostname, tags) select format('lab-0%s', n), '{lab}'
from generate_series(1, 3) as n;
insert into devices (hostname, platform) values ('tablet', 'ios');
insert into device_groups (name, selector) values ('labs', '{"tags": ["lab"]}');
insert into device_groups (name) values ('few');
select add_to_group((select id from device_groups where name = 'few'), array[1]);
select create_schedule('{"name": "nightly", "action_type": "lock", "group_ids": [1],
  "recurrence_type": "daily", "recurrence_config": {"time": "02:30"}}');
select create_schedule('{"name": "rests", "action_type": "lock", "device_ids": [1],
  "recurrence_type": "daily", "recurrence_config": {"time": "02:30"}}');
select pause_schedule(id) from schedules where name = 'rests';
select send_command(1, 'lock');
select create_enrollment_code();
select create_template('{"name": "saved", "spec": {"name": "made", "group_ids": [1],
  "action_type": "lock", "recurrence_type": "daily",
  "recurrence_config": {"time": "02:30"}}}');
select create_blackout_calendar('holidays', '[{"starts_on": "2040-12-25"}]');
select create_geo_schedule('{"name": "night", "group": "labs", "apps": ["steam"],
  "start_minute": 0, "end_minute": 60}');
insert into locations (name, kind, latitude, longitude, radius_m)
  values ('school', 'circle', 1, 2, 50);
insert into location_policies (location_id, event, action_type, group_id)
  values (1, 'enter', 'lock', 1);
select create_webhook_endpoint('{"url": "https://h.example.com/", "name": "ops",
  "events": ["run.failed"]}');
select create_calendar_feed('{}', 'feed');
select create_integration('{"name": "office", "integration_type": "simplemdm"}');
select set_integration_secret(1, 'key');
insert into device_links (device_id, integration_id, owner_id, external_id)
  select d.id, 1, d.owner_id, '900' from devices as d where d.hostname = 'tablet';
select create_integration_webhook(1);
insert into deployment_files (name, size_bytes, sha256)
  values ('app.conf', 1, repeat('a', 64)), ('old.conf', 1, repeat('b', 64));
insert into software_packages (name, version) values ('tool', '1');
select create_schedule(jsonb_build_object('name', n, 'action_type', 'lock',
  'recurrence_type', 'daily',
  'recurrence_config', '{"time": "04:00"}'::jsonb, 'device_ids', '[1, 2]'::jsonb,
  'policies', '{"rollout": {"groups": [{"percent": 100, "gate": "manual"}]}}'::jsonb))
from unnest(array['rolls', 'rests too']) as n;
select run_schedule(id) from schedules where name in ('rolls', 'rests too');
select fleet.tend_rollouts(clock_timestamp());
select pause_rollout(r.run_id) from rollouts as r
join schedules as s on s.id = r.schedule_id where s.name = 'rests too';
select pause_schedule(id) from schedules where name in ('rolls', 'rests too');
select send_command(2, 'deploy_files', '{"file_ids": [1], "target_path": "/etc/app"}');
update deployment_targets set state = 'failed';
select create_owner('Nobody yet');
select create_integration('{"name": "green", "integration_type": "golioth",
  "settings": {"projectId": "p"}}', 'key');
insert into device_links (device_id, integration_id, owner_id, external_id)
  select d.id, i.id, d.owner_id, '901' from devices as d, device_integrations as i
  where d.hostname = 'lab-02' and i.name = 'green';
select create_integration('{"name": "sleeps", "integration_type": "golioth",
  "settings": {"projectId": "q"}}', 'key');
select pause_integration(id) from device_integrations where name = 'sleeps';
select subscribe_blackouts('https://example.com/other.ics', 'follows');
select upload_profile('exam', convert_to('<plist version="1.0"><dict>
  <key>PayloadType</key><string>Configuration</string></dict></plist>', 'UTF8'), 1);
select install_profile('88', 4, '1 hour', now() + interval '1 hour');
insert into profile_assignments (owner_id, profile_id, device_ids)
  select owner_id, '89', array[id] from devices where hostname = 'tablet';
select test_webhook_endpoint(1);
select create_webhook_endpoint('{"email": "head@school.example", "name": "mail"}');
"""
# What is found out once the school is there.
ASKED = {
    "run": "select r.run_id from rollouts as r join schedules as s on s.id = r.schedule_id"
    " where s.name = 'rolls'",
    "resting": "select r.run_id from rollouts as r join schedules as s on s.id = r.schedule_id"
    " where s.name = 'rests too'",
    "deployment": "select id from deployments",
    "code": "select invite_member(id) ->> 'code' from owners where name = 'School 7'",
    "guest": "select gen_random_uuid()",
    "member": "insert into owner_members (owner_id, user_id, permissions) select id,"
    " gen_random_uuid(), '{view,operate,manage,admin}' from owners, generate_series(1, 2)"
    " where name = 'School 7'"
    " returning user_id",
    "lately": "select current_date - 3",
    "mail_code": "select code from fleet.mailbox_codes",
}
