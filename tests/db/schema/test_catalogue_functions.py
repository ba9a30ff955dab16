"""The house rules for functions, asked of the catalogue itself."""

from __future__ import annotations

import re
from typing import Any

# A procedure that commits can have no SET clause (Postgres forbids it); where one would cost as
# much as all the rest, for each of many rows or occurrences, there is none either. Each name in
# their bodies is qualified instead, and whoever calls them with more rights has the setting.
WITHOUT_SEARCH_PATH = {
    "fleet.is_over_limit",
    "fleet.is_sound_command",
    "fleet.is_sound_device",
    "fleet.next_calendar_occurrence",
    "fleet.next_matching_day",
    "fleet.next_occurrence",
    "fleet.next_slot",
    "fleet.next_time_of_day",
    "fleet.prune_history",
    "fleet.reconcile_all_geo_scopes",
    "fleet.take_step",
    "fleet.take_suspects",
    "fleet.take_tick",
    "fleet.tend_geo_schedules",
    "fleet.tg_fill_command",
    "fleet.tg_note_zones",
    "fleet.tg_set_updated_at",
    "fleet.tick_minute",
    "fleet.watch_tick",
}

SEARCH_PATH = "search_path=pg_catalog, pg_temp"

# Functions that act with more rights than their caller: wrapped ones, behind a function of the
# same name in the API, check their caller first; triggers hold whoever writes; workers are
# closed to all but the login of the HTTP functions; and these.
OTHER_DEFINERS = {
    "fleet.calendar_of_caller": "looks only at the owners of its caller",
    "fleet.change_rollout": "checks its caller",
    "fleet.current_device_id": "asked by policies, of callers who may not search the devices",
    "fleet.checkup": "for the service role, which runs the platform",
    "fleet.current_user_id": "asked by policies, of callers who may not search the devices",
    "fleet.endpoint_of_caller": "checks its caller, and must see the row to tell",
    "fleet.require_device": "looks whether the fleet of its caller is being moved",
    "fleet.working_device_id": "asked by policies, of callers who may not search the devices",
    "fleet.zone_status": "tells zones of the caller, whose counts people do not read",
    "fleet.engine_status": "tells figures of the engine, whose tables people do not read",
    "fleet.is_default_owner": "asked by a view; of its caller's own memberships",
    "fleet.is_time_zone": "asked by triggers; tells nothing else",
    "fleet.is_visible_owner": "asked before a row is locked",
    "fleet.may_read_object": "asked by policies of the storage, of callers who may not read",
    "fleet.may_write_object": "asked by policies of the storage, of callers who may not read",
    "fleet.metrics": "for the service role; of everybody's rows nothing but counts and ages",
    "fleet.my_owners": "policies of the memberships ask it themselves",
    "fleet.poke": "closed; signs",
    "fleet.poke_key": "closed; reads the secrets",
    "fleet.require_permission": "closed; reads memberships",
    "fleet.resolve_owner": "closed; makes the personal owner of its caller and no other",
    "fleet.rule_met_for": "asked by a view; counts for who sees the rule",
    "fleet.schedule_of_caller": "checks its caller, and must see the row to tell",
    "fleet.set_integration_status": "checks its caller",
    "fleet.set_schedule_status": "checks its caller",
    "fleet.set_quota": "for the service role, which may not write the table",
    "fleet.set_setting": "for the service role, which may not write the table",
    "fleet.setting": "closed to people; read on behalf of anybody",
    "fleet.telemetry_device": "checks its caller, and must see the row to tell",
    "fleet.template_of_caller": "checks its caller, and must see the row to tell",
}

KEYWORDS = (
    "SELECT FROM WHERE INSERT UPDATE DELETE VALUES RETURNING JOIN LEFT ORDER GROUP HAVING LIMIT"
    " UNION WITH BEGIN END DECLARE IF THEN ELSE ELSIF LOOP RETURN PERFORM RAISE EXCEPTION WHEN"
    " CASE AND OR NOT NULL EXISTS DISTINCT COALESCE INTO SET ON AS IS IN TRUE FALSE EXECUTE"
).split()

FUNCTIONS = """
    select p.pronamespace::regnamespace || '.' || p.proname, p.prokind, p.prosecdef, p.prosrc,
      p.prosqlbody is not null, p.proconfig, obj_description(p.oid, 'pg_proc'),
      p.proargnames, p.proargmodes::text[], p.pronargs, l.lanname, p.proowner::regrole::text,
      p.provolatile, p.proparallel, p.prorettype::regtype::text
    from pg_proc as p
    join pg_language as l on l.oid = p.prolang
    where p.pronamespace::regnamespace::text in ('public', 'fleet')
    order by 1
"""


def functions(db: Any) -> list[dict[str, Any]]:
    keys = (
        "name kind definer body bound config comment args modes count language owner volatility"
        " parallel returns"
    ).split()
    return [dict(zip(keys, row, strict=True)) for row in db.execute(FUNCTIONS).fetchall()]


def plain(body: str) -> str:
    """Give a body without its comments, strings and quoted names."""
    body = re.sub(r"--[^\n]*", "", body)
    body = re.sub(r"\$(\w*)\$.*?\$\1\$", "''", body, flags=re.DOTALL)
    return re.sub(r"'(?:[^']|'')*'|\"[^\"]*\"", "''", body)


def test_every_function_has_a_comment(db: Any) -> None:
    assert [f["name"] for f in functions(db) if not f["comment"]] == []


def test_every_function_has_a_safe_search_path(db: Any) -> None:
    # Not the empty one: with that, temporary types come first, before those of Postgres.
    without = {
        f["name"]
        for f in functions(db)
        if not f["bound"] and SEARCH_PATH not in (f["config"] or [])
    }
    assert without == WITHOUT_SEARCH_PATH


def test_the_functions_that_act_with_more_rights_are_known(db: Any) -> None:
    every = functions(db)
    wrapped = {f["name"].replace("public.", "fleet.") for f in every if "public." in f["name"]}
    definers = {
        f["name"]
        for f in every
        if f["definer"]
        and f["name"] not in wrapped
        and not f["name"].startswith(("fleet.tg_", "fleet.worker_"))
    }
    assert sorted(definers - set(OTHER_DEFINERS)) == [], "not listed"
    assert sorted(set(OTHER_DEFINERS) - definers) == [], "listed, but no definer"


def test_each_of_them_says_why(db: Any) -> None:
    silent = [f["name"] for f in functions(db) if f["definer"] and "Definer: " not in f["comment"]]
    assert silent == []


def test_no_other_function_says_that_it_is_one(db: Any) -> None:
    wrong = [f["name"] for f in functions(db) if not f["definer"] and "Definer:" in f["comment"]]
    assert wrong == []


def test_every_function_belongs_to_postgres(db: Any) -> None:
    assert [f["name"] for f in functions(db) if f["owner"] != "postgres"] == []


def test_no_function_is_executable_by_everybody(db: Any) -> None:
    rows = db.execute(
        "select p.oid::regprocedure::text from pg_proc as p"
        " where p.pronamespace::regnamespace::text in ('public', 'fleet')"
        " and (has_function_privilege('public', p.oid, 'execute')"
        "   or has_function_privilege('anon', p.oid, 'execute'))"
    ).fetchall()
    assert rows == []


def test_no_name_stands_for_two_functions(db: Any) -> None:
    found = [f["name"] for f in functions(db)]
    assert sorted({name for name in found if found.count(name) > 1}) == []


def test_parameters_begin_with_p(db: Any) -> None:
    wrong = [
        (f["name"], name)
        for f in functions(db)
        for name, mode in zip(
            f["args"] or [], f["modes"] or ["i"] * len(f["args"] or []), strict=True
        )
        if mode in ("i", "b", "v") and not name.startswith("p_")
    ]
    unnamed = [f["name"] for f in functions(db) if f["count"] and not f["args"]]
    assert (wrong, unnamed) == ([], [])


def test_variables_begin_with_v_and_constants_with_c(db: Any) -> None:
    wrong = []
    for f in functions(db):
        declared = re.search(r"\bdeclare\b(.*?)\bbegin\b", plain(f["body"]), re.DOTALL)
        if f["language"] == "plpgsql" and declared:
            for line in re.findall(r"(?:^|;)\s*(\w+)\s", declared.group(1)):
                if not line.startswith(("v_", "c_")):
                    wrong.append((f["name"], line))
    assert wrong == []


def test_keywords_are_in_lower_case(db: Any) -> None:
    pattern = re.compile(r"\b(" + "|".join(KEYWORDS) + r")\b")
    wrong = [
        (f["name"], found.group(0))
        for f in functions(db)
        if (found := pattern.search(plain(f["body"])))
    ]
    assert wrong == []


def test_what_is_parallel_safe_is_pure(db: Any) -> None:
    wrong = [f["name"] for f in functions(db) if f["parallel"] == "s" and f["volatility"] == "v"]
    assert wrong == []


def test_nothing_in_the_api_is_security_definer(db: Any) -> None:
    wrong = [
        f["name"] for f in functions(db) if f["definer"] and not f["name"].startswith("fleet.")
    ]
    assert wrong == []


def test_errors_raised_have_a_status_a_reason_and_a_next_step(db: Any) -> None:
    wrong = []
    for f in functions(db):
        body = re.sub(r"--[^\n]*", "", f["body"])
        for statement in re.findall(r"raise exception(.*?);\s*\n", body, re.DOTALL):
            given = [word for word in ("errcode", "detail", "hint") if word not in statement]
            message = re.search(r"'((?:[^']|'')*)'", statement)
            if given or not message or re.match(r"[A-Z][a-z]", message.group(1)):
                wrong.append((f["name"], given, message and message.group(1)))
            elif message.group(1).endswith("."):
                wrong.append((f["name"], given, message.group(1)))
    assert wrong == []


def test_the_time_comes_in_as_an_argument(db: Any) -> None:
    wrong = [
        f["name"]
        for f in functions(db)
        if f["args"]
        and "p_now" in f["args"]
        and f["volatility"] != "v"
        and re.search(r"\b(now|clock_timestamp)\(\)", plain(f["body"]))
    ]
    assert wrong == []
