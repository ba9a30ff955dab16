"""What a member of an owner may try, and which permission allows it: for the tests and the docs."""

from __future__ import annotations

import re

PERMISSIONS = ("view", "operate", "manage", "destructive", "admin")

# What a member tries, and the permissions that each alone suffice for it. Everything by
# request: a function, or a statement as PostgREST would send it.
VERBS: dict[str, tuple[str, str]] = {
    "see devices": ("select id from public.devices where id = {device}", "*"),
    "see schedules": ("select id from public.schedules where id = {schedule}", "*"),
    "see runs": ("select id from public.schedule_runs where id = {run}", "*"),
    "see commands": ("select id from public.device_commands where id = {command}", "*"),
    "see members": ("select user_id from public.owner_members where owner_id = '{owner}'", "*"),
    "see webhooks": (
        "select id from public.webhook_endpoints where id = {endpoint}",
        "manage admin",
    ),
    "see the addresses of webhooks in the log": (
        "select id from public.audit_log where owner_id = '{owner}'"
        " and to_jsonb(audit_log)::text like '%hooks.example.com%'",
        "manage admin",
    ),
    "see deliveries": ("select id from public.webhook_deliveries where id = {delivery}", "*"),
    "see the log": ("select id from public.audit_log where owner_id = '{owner}' limit 1", "*"),
    "see feeds": ("select id from public.calendar_feeds where id = {feed}", "*"),
    "make a feed": (
        "select public.create_calendar_feed(p_owner_id => '{owner}')",
        "manage admin",
    ),
    "make a webhook": (
        'select public.create_webhook_endpoint(\'{{"owner_id": "{owner}",'
        ' "url": "https://hooks.example.com"}}\')',
        "manage admin",
    ),
    "see what integrations did": (
        "select id from public.integration_activity_log where owner_id = '{owner}'",
        "*",
    ),
    "see addresses for other systems": (
        "select id from public.integration_webhooks where owner_id = '{owner}'",
        "*",
    ),
    "make an address for another system": (
        "select public.create_integration_webhook({integration})",
        "manage admin",
    ),
    "rotate a secret": ("select public.rotate_webhook_secret({endpoint})", "manage admin"),
    "send a message again": ("select id from public.redeliver({delivery})", "manage admin"),
    "use a template": ("select public.instantiate_template('{template}')", "manage admin"),
    "delete a calendar": (
        "select id from public.delete_blackout_calendar({calendar})",
        "manage admin",
    ),
    "delete a group with its consequence": (
        "select public.delete_group({empty_group}, true)",
        "manage admin",
    ),
    "delete a schedule by name": (
        "select id from public.delete_schedule({schedule})",
        "manage admin",
    ),
    "change a schedule by name": (
        "select public.update_schedule({schedule}, '{{\"priority\": 1}}')",
        "manage admin",
    ),
    "pause many schedules": (
        "select nullif(public.bulk_schedules('pause', '{{\"ids\": [{schedule}]}}', false)"
        " ->> 'changed', '0')",
        "manage admin",
    ),
    "run many schedules": (
        "select nullif(public.bulk_schedules('run', '{{\"ids\": [{schedule}]}}', false)"
        " ->> 'changed', '0')",
        "operate admin",
    ),
    "apply a document": (
        "select public.apply_document('{{\"version\": 1}}', p_owner_id => '{owner}')",
        "manage admin",
    ),
    "see codes": ("select id from public.enrollment_codes where id = {code}", "manage admin"),
    "send a command": ("select id from public.send_command({device}, 'lock')", "operate admin"),
    "insert a command": (
        "insert into public.device_commands (device_id, command_type) values ({device}, 'lock')"
        " returning id",
        "operate admin",
    ),
    "change a command": (
        "update public.device_commands set status = 'cancelled' where id = {command} returning id",
        "operate admin",
    ),
    "cancel a command": ("select id from public.cancel_command({command})", "operate admin"),
    "run a schedule": ("select id from public.run_schedule({schedule})", "operate admin"),
    "pause a schedule": ("select id from public.pause_schedule({schedule})", "manage admin"),
    "cancel a schedule": ("select id from public.cancel_schedule({schedule})", "manage admin"),
    "change a schedule": (
        "update public.schedules set priority = 1 where id = {schedule} returning id",
        "manage admin",
    ),
    "delete a schedule": (
        "delete from public.schedules where id = {schedule} returning id",
        "manage admin",
    ),
    "create a schedule": (
        'select public.create_schedule(\'{{"owner_id": "{owner}", "action_type": "lock",'
        ' "selector": {{}}}}\')',
        "manage admin",
    ),
    "insert a schedule": (
        "insert into public.schedules (owner_id, name, action_type, selector)"
        " values ('{owner}', 'x', 'lock', '{{}}') returning id",
        "manage admin",
    ),
    "add a device": (
        "insert into public.devices (owner_id, hostname) values ('{owner}', 'x') returning id",
        "manage admin",
    ),
    "change a device": (
        "update public.devices set tags = '{{x}}' where id = {device} returning id",
        "manage admin",
    ),
    "delete a device": (
        "delete from public.devices where id = {sibling} returning id",
        "manage admin",
    ),
    "add a location": (
        "insert into public.locations (owner_id, name, latitude, longitude, radius_m)"
        " values ('{owner}', 'x', 0, 0, 10) returning id",
        "manage admin",
    ),
    "move a location": (
        "update public.locations set latitude = 1 where id = {location} returning id",
        "manage admin",
    ),
    "delete a location": (
        "delete from public.locations where id = {location} returning id",
        "manage admin",
    ),
    "add a location policy": (
        "insert into public.location_policies (owner_id, location_id, event, action_type)"
        " values ('{owner}', {location}, 'leave', 'lock') returning id",
        "manage admin",
    ),
    "wipe what leaves a location": (
        "insert into public.location_policies (owner_id, location_id, event, action_type)"
        " values ('{owner}', {location}, 'leave', 'wipe') returning id",
        "admin",
    ),
    "see profiles": ("select id from public.profiles where id = {profile}", "*"),
    "upload a profile": (
        "select id from public.upload_profile('x', '<plist/>', {integration})",
        "manage admin",
    ),
    "delete a profile": ("select id from public.delete_profile({profile})", "manage admin"),
    "retire a device": ("select id from public.retire_device({device})", "manage admin"),
    "re-key a device": ("select public.rekey_device({device})", "manage admin"),
    "make a code": ("select public.create_enrollment_code({device})", "manage admin"),
    "revoke a code": ("select public.revoke_enrollment_code({code})", "manage admin"),
    "add a group": (
        "insert into public.device_groups (owner_id, name) values ('{owner}', 'x') returning id",
        "manage admin",
    ),
    "fill a group": (
        "insert into public.device_group_members (group_id, device_id)"
        " values ({empty_group}, {device}) returning group_id",
        "manage admin",
    ),
    "wipe a device": ("select id from public.send_command({device}, 'wipe')", "admin"),
    "schedule a wipe": (
        "insert into public.schedules (owner_id, name, action_type, selector, recurrence_type,"
        " recurrence_config) values ('{owner}', 'x', 'wipe', '{{}}', 'daily',"
        ' \'{{"time": "03:00"}}\') returning id',
        "admin",
    ),
    "turn a schedule into a wipe": (
        "update public.schedules set action_type = 'wipe' where id = {schedule} returning id",
        "admin",
    ),
    "invite a member": ("select public.invite_member('{owner}')", "admin"),
    "see invitations": (
        "select id from public.owner_invitations where owner_id = '{owner}'",
        "admin",
    ),
    "withdraw an invitation": ("select 1 from public.revoke_invitation({invitation})", "admin"),
    "set the time zone": (
        "select public.set_owner_timezone('{owner}', 'Europe/Berlin')",
        "manage admin",
    ),
    "grant oneself everything": (
        "update public.owner_members set permissions = '{{admin}}' where owner_id = '{owner}'"
        " returning user_id",
        "admin",
    ),
    "remove a member": (
        "delete from public.owner_members where owner_id = '{owner}' and user_id = '{person}'"
        " returning user_id",
        "admin",
    ),
    "rename the owner": (
        "update public.owners set name = 'x' where id = '{owner}' returning id",
        "admin",
    ),
    "run what a wipe follows": (
        "select id from public.run_schedule("
        "(select id from public.schedules where name = 'before the wipe'))",
        "admin",
    ),
    "change what a wipe follows": (
        "update public.schedules set priority = 1 where name = 'before the wipe' returning id",
        "admin",
    ),
    "resume what a wipe follows": (
        "select id from public.resume_schedule("
        "(select id from public.schedules where name = 'paused before the wipe'))",
        "admin",
    ),
    "fail what a wipe follows": (
        "select public.cancel_command(c.id) from public.device_commands as c"
        " join public.schedules as s on s.id = c.schedule_id where s.name = 'before the wipe'",
        "admin",
    ),
    "fail what a wipe follows by hand": (
        "update public.device_commands set status = 'cancelled' where schedule_id ="
        " (select id from public.schedules where name = 'before the wipe') returning id",
        "admin",
    ),
    "retire a device whose failure a wipe follows": (
        "select id from public.retire_device({device})",
        "admin",
    ),
    "cancel what a wipe follows": (
        "select id from public.cancel_schedule("
        "(select id from public.schedules where name = 'before the wipe'))",
        "manage admin",
    ),
    "fill a group that a wipe is for": (
        "insert into public.device_group_members (group_id, device_id)"
        " values ((select id from public.device_groups where name = 'for the wipe'), {device})"
        " returning group_id",
        "admin",
    ),
    "select more for a group that a wipe is for": (
        "update public.device_groups set selector = '{{}}' where name = 'chosen for the wipe'"
        " returning id",
        "admin",
    ),
    "tag a device for a wipe": (
        "update public.devices set tags = '{{wipe-me}}' where id = {device} returning id",
        "admin",
    ),
    "add a device for a wipe": (
        "insert into public.devices (owner_id, hostname, tags)"
        " values ('{owner}', 'x', '{{wipe-me}}') returning id",
        "admin",
    ),
    "say that a command is completed": (
        "update public.device_commands set status = 'completed' where id = {command} returning id",
        "",
    ),
    "say what a command came to": (
        "update public.device_commands set result = '{{}}' where id = {command} returning id",
        "",
    ),
    "say when a command was carried out": (
        "update public.device_commands set executed_at = '2001-01-01' where id = {command}"
        " returning id",
        "",
    ),
}


# There for the verbs that name the wipe: what it follows, and whom it is for.
BEFORE_THE_WIPE = """
    insert into public.device_groups (owner_id, name, selector)
    values ('{owner}', 'for the wipe', null),
      ('{owner}', 'chosen for the wipe', '{{"tags": ["none"]}}');
    insert into public.schedules (owner_id, name, action_type, device_ids, recurrence_type,
      recurrence_config, status)
    select '{owner}', n, 'lock', '{{{device}}}', 'daily', '{{"time": "03:00"}}', s
    from (values ('before the wipe', 'active'), ('paused before the wipe', 'paused')) as u(n, s);
    insert into public.schedules (owner_id, name, action_type, selector, group_ids,
      after_schedule_id, after_on)
    select '{owner}', 'the wipe', 'wipe', '{{"tags": ["wipe-me"]}}',
      array(select g.id from public.device_groups as g where g.name like '%for the wipe'),
      s.id, 'either'
    from public.schedules as s where s.name like '%before the wipe';
    select public.run_schedule(s.id) from public.schedules as s where s.name = 'before the wipe';
"""


def way(query: str) -> str:
    """Say through what a query goes: a function, or a table and a verb."""
    if called := re.search(r"public\.(\w+)\s*\(", query):
        if not query.startswith(("insert", "update", "delete")):
            return f"`{called[1]}()`"
    verb = query.split()[0]
    table = re.search(r"public\.(\w+)", query)
    assert table, query
    http = {"select": "GET", "insert": "POST", "update": "PATCH", "delete": "DELETE"}[verb]
    return f"{http} `{table[1]}`"


def rows() -> list[list[str]]:
    """Give the table of the docs: what, through what, and a mark for each permission."""
    found = []
    for verb, (query, names) in sorted(VERBS.items(), key=lambda item: (way(item[1][0]), item[0])):
        allowed = PERMISSIONS if names == "*" else names.split()
        found.append([verb, way(query), *("✓" if p in allowed else "" for p in PERMISSIONS)])
    return found
