"""Every text, list and JSON that anybody can write has a limit, and each limit is kept."""

from __future__ import annotations

import re
from typing import Any

# Columns that only the engine writes, out of what is within limits.
OF_THE_ENGINE = {
    "audit_log.actor_label": "the e-mail address of a token, or the name of a program",
    "audit_log.actor_role": "a role of the database",
    "audit_log.new": "a copy of a row that is within limits",
    "audit_log.old": "a copy of a row that is within limits",
    "audit_log.row_id": "an id",
    "audit_log.table_name": "the name of a table",
    "calendar_feeds.token_hash": "a hash",
    "device_credentials.enrollment_key_hash": "a hash",
    "device_credentials.instances": "eight at most, each of 64 characters at most",
    "device_credentials.secret_hash": "a hash",
    "deployment_files.sha256": "a hash",
    "device_commands.trace_id": "32 hex digits, by its check",
    "deployment_files.storage_path": "made of an id and a hash",
    "deployment_targets.device_hostname": "a copy of a row that is within limits",
    "deployment_targets.error_message": "a copy of a row that is within limits",
    "deployment_targets.reason": "cut to what a reason has",
    "deployments.manifest": "a copy of rows that are within limits",
    "deployments.paths": "made of ids and hashes",
    "rollout_progress.outcome": "a word of ours and a reason that is cut",
    "rollouts.plan": "a copy of a policy that is within limits",
    "run_waves.device_ids": "a copy of a policy that is within limits",
    "run_waves.failures": "counts of reasons that are cut",
    "run_waves.name": "a copy of a policy that is within limits",
    "run_waves.rules": "a copy of a policy that is within limits",
    "run_waves.tag": "a copy of a policy that is within limits",
    "doorbells.command_type": "a copy of the type of a command",
    "enrollment_codes.code_hash": "a hash",
    "integration_webhooks.token_hash": "a hash",
    "owner_invitations.code_hash": "a hash",
    "geo_actions.enforce": "a copy of a row that is within limits",
    "geo_actions.geometry": "a copy of a row that is within limits",
    "geo_actions.side": "a copy of a row that is within limits",
    "geo_actions.timezone": "a copy of a row that is within limits",
    "geo_actions.unknown_location": "a copy of a row that is within limits",
    "geo_actions.update_delay_type": "a copy of a row that is within limits",
    "geo_commitments.hostname": "a copy of a row that is within limits",
    "geo_commitments.serial_number": "a copy of a row that is within limits",
    "geo_commitments.timezone": "a copy of a row that is within limits",
    "heartbeat.last_stop": "names and ids of ours",
    "golioth_syncs.progress": "figures of ours",
    "heartbeat.steps": "names and durations of our steps",
    "mailbox_codes.code": "made by us",
    "payload_secrets.value": "a value out of a payload that is within limits",
    "owner_quotas.name": "a name of ours",
    "owner_moves.anon_key": "checked, for whoever runs the platform alone",
    "owner_moves.functions_url": "checked, for whoever runs the platform alone",
    "owner_moves.url": "checked, for whoever runs the platform alone",
    "owner_moves.witnesses": "written by the engine, one for each connection at most",
    "arriving_rows.rows": "rows that are within limits",
    "arriving_rows.table_name": "a name of ours",
    "moved_devices.secret_hash": "a hash",
    "pokes.function": "a name of ours",
    "profiles.content_sha256": "a hash",
    "owner_zones.zone": "a zone of devices, which is known",
    "run_zones.device_ids": "devices of one owner, each once",
    "run_zones.dst_rule": "a word of ours",
    "run_zones.reason": "a word of ours",
    "run_zones.zones": "zones of devices, each known and each once",
    "quota_use.name": "a name of ours",
    "profiles.payload_identifier": "cut to 255 characters where a file is read",
    "rate_limits.endpoint": "a name of ours",
    "schedule_runs.dst_rule": "a word of ours",
    "schedule_runs.zones": "zones of devices, each known and each once",
    "schedules.recurrence": "compiled from settings that are within limits",
    "settings.description": "written by us",
    "settings.name": "written by us",
    "settings.value": "checked by the setting, for the service role alone",
    "tick_work.schedule_ids": "a batch of ours",
    "tick_work.step": "a name of ours",
    "tick_work.suspects": "a batch of ours",
    "health_reports.data": "a copy of a part of a row that is within limits",
    "sync_bases.desired": "a copy of a row that is within limits",
    "sync_bases.local_name": "a copy of a row that is within limits",
    "sync_bases.remote_name": "cut where it is read",
    "sync_bases.tags": "a copy of a row that is within limits",
    "sync_conflicts.field": "name, or a path that is within limits",
    "sync_conflicts.local": "a copy of a row that is within limits",
    "sync_conflicts.remote": "a part of a state that is within limits",
    "sync_cursors.stream": "a word of ours",
    "time_zones.name": "read from Postgres",
    "time_zones.rules": "a digest",
    "webhook_deliveries.event": "a name of ours",
    "webhook_deliveries.event_id": "made by us",
    "webhook_handlers.function": "written by us",
    "webhook_handlers.integration_type": "written by us",
    "webhook_inbox.data": "no longer than the function that stores it lets it be",
    "webhook_inbox.external_id": "cut by the function that stores it",
    "webhook_inbox.message_key": "a hash",
    "webhook_inbox.path": "cut by the function that stores it",
    "webhook_secrets.key": "made by us",
}

COLUMNS = """
    select c.relname || '.' || a.attname, format_type(a.atttypid, null),
      coalesce((
        -- A check that calls a function holds what that says; its parameters are named by columns.
        select string_agg(
          coalesce(regexp_replace(p.prosrc, '\\mp_', '', 'g'), pg_get_constraintdef(k.oid)), ' '
        )
        from pg_constraint as k
        left join pg_depend as u
          on u.classid = 'pg_constraint'::regclass and u.objid = k.oid
          and u.refclassid = 'pg_proc'::regclass
        left join pg_proc as p on p.oid = u.refobjid
        where k.conrelid = c.oid and k.contype = 'c' and a.attnum = any (k.conkey)
      ), '')
    from pg_class as c
    join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    join pg_type as t on t.oid = a.atttypid
    where c.relnamespace in ('public'::regnamespace, 'fleet'::regnamespace)
      and c.relkind in ('r', 'p')
      and (t.typname in ('text', 'varchar', 'bpchar', 'json', 'jsonb', 'bytea', 'xml')
        or t.typcategory in ('A', 'C'))
    order by 1
"""

Limit = dict[str, Any]


def limits(db: Any) -> list[Limit]:
    found = db.execute("select to_jsonb(l) from fleet.limits() as l").fetchall()
    return [row for (row,) in found]


def columns(db: Any) -> dict[str, tuple[str, str]]:
    return {name: (kind, checks) for name, kind, checks in db.execute(COLUMNS).fetchall()}


def is_choice(name: str, checks: str) -> bool:
    """Tell whether a check leaves a column nothing but a few words."""
    column = name.split(".")[1]
    return f"(({column} = ANY (ARRAY[" in checks or f" {column} not in ('" in checks


def test_every_column_that_can_grow_has_a_limit(db: Any) -> None:
    bounded = {name for limit in limits(db) for name in limit["columns"]}
    open_ = {
        name
        for name, (_, checks) in columns(db).items()
        if name not in bounded and name not in OF_THE_ENGINE and not is_choice(name, checks)
    }
    assert sorted(open_) == []


def test_every_column_with_a_limit_exists(db: Any) -> None:
    known = columns(db)
    named = [name for limit in limits(db) for name in limit["columns"]]
    assert [name for name in named if name not in known] == []
    assert [name for name in OF_THE_ENGINE if name not in known or name in named] == []


def test_no_limit_is_there_twice_and_each_says_what_it_is(db: Any) -> None:
    every = limits(db)
    assert len({limit["name"] for limit in every}) == len(every)
    assert {limit["over"] for limit in every} == {"refuse", "cut"}
    assert all(limit["bounds"] and limit["value"] > 0 for limit in every)
    # One limit for the entries of a list may stand beside one for its bytes, and no more.
    pairs = [(name, limit["unit"]) for limit in every for name in limit["columns"]]
    assert len(set(pairs)) == len(pairs)


def test_the_table_itself_refuses_what_is_over_a_limit(db: Any) -> None:
    wrong = []
    for limit in limits(db):
        for name in limit["columns"]:
            kind, checks = columns(db)[name]
            column, value = name.split(".")[1], limit["value"]
            size = "octet_length" if kind == "bytea" else "pg_column_size"
            wanted = {
                "entries": [f"cardinality({column}) <= {value}"],
                # A backstop may count bytes, four for a character.
                "characters": [
                    f"octet_length({column}) <= {4 * value}",
                    f"char_length({column}) <= {value}",
                ],
                "bytes": [f"{size}({column}) <= {value}"],
            }[limit["unit"]]
            # A function says what breaks it.
            wanted += [check.replace("<=", ">") for check in wanted]
            if not any(check in checks for check in wanted):
                wrong.append((name, wanted))
    assert wrong == []


def test_one_trigger_a_table_says_it_in_words(db: Any) -> None:
    found = db.execute(
        "select c.relname from pg_trigger as t join pg_class as c on c.oid = t.tgrelid"
        " where t.tgname = c.relname || '_09_keep_limits' and t.tgenabled = 'O'"
    ).fetchall()
    tables = {name.split(".")[0] for limit in limits(db) for name in limit["columns"]}
    assert {name for (name,) in found} == tables


def test_the_limits_that_functions_name_exist_and_none_is_idle(db: Any) -> None:
    bodies = db.execute(
        "select coalesce(pg_get_function_sqlbody(oid), prosrc) from pg_proc"
        " where pronamespace = 'fleet'::regnamespace and proname <> 'limits'"
    ).fetchall()
    text = "\n".join(body for (body,) in bodies)
    known = {limit["name"] for limit in limits(db)}
    assert set(re.findall(r"limit_value\('(\w+)'", text)) - known == set()
    words = set(re.findall(r"'(\w+)'", text))
    assert [
        one["name"] for one in limits(db) if not one["columns"] and one["name"] not in words
    ] == []
    # A name that is none is a problem of every value.
    (problem,) = db.execute(
        "select q.problem from fleet.limit_problem('x', 'nmae', 1) as q"
    ).fetchone()
    assert problem == 'there is no limit "nmae"'


def test_the_depth_that_the_check_looks_for_is_one_more_than_the_limit(db: Any) -> None:
    (nesting,) = [limit["value"] for limit in limits(db) if limit["name"] == "nesting"]
    deepest = "[" * nesting + "1" + "]" * nesting
    query = "select fleet.is_too_deep(jsonb_build_array(repeat(' ', 200), %s::jsonb))"
    # The list around it is a level of its own.
    inner = deepest[1:-1]
    assert db.execute(query, (inner,)).fetchone() == (False,)
    assert db.execute(query, (deepest,)).fetchone() == (True,)
