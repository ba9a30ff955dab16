"""Profiles and integrations from the command line."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from tests.helpers.sandbox import wait_until
from typer.testing import CliRunner

from pgfleet.main import app

SECRET = "mdm-key-91c2b0aa"


@pytest.fixture(scope="module")
def fleet(database: Any) -> Iterator[Any]:
    """Give a migrated database with a device in an MDM."""
    with psycopg.connect(database.url()) as conn:
        conn.execute(
            "select fleet.set_setting('default_owner', to_jsonb(o.id::text))"
            " from public.create_owner('School 7') as o"
        )
        conn.execute(
            "insert into public.devices (hostname) values ('ipad-7'), ('ipad-8'), ('ipad-9')"
        )
    yield database


@pytest.fixture
def pgfleet(fleet: Any) -> Callable[..., Any]:
    """Give a function that runs a command; what fails says why."""

    def run(*words: str, stdin: str | None = None) -> Any:
        return CliRunner().invoke(app, ["-d", fleet.url(), *words], input=stdin)

    return run


def ask(fleet: Any, query: str) -> Any:
    with psycopg.connect(fleet.url()) as conn:
        row = conn.execute(query.encode()).fetchone()
    return row[0] if row else None


def test_an_integration_is_made_and_its_secret_is_never_shown(pgfleet: Any, fleet: Any) -> None:
    made = pgfleet("integration", "create", "office", "--rate", "5", "--json")
    assert made.exit_code == 0, made.stderr
    secret = pgfleet("integration", "set-secret", "office", "--show-sql", stdin=f"{SECRET}\n")
    shown = pgfleet("integration", "show", "Office", "--json")

    assert secret.exit_code == 0, secret.stderr
    assert '"rate_per_second": 5' in shown.stdout
    assert SECRET not in made.output + secret.output + secret.stderr + shown.output
    assert ask(fleet, "select secret from pg_cron_secrets where name like 'integration:%'") == (
        SECRET
    )


def test_the_secret_can_come_from_the_environment(
    pgfleet: Any, fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pgfleet("integration", "create", "lab")
    monkeypatch.setenv("LAB_KEY", "from-the-environment")
    answer = pgfleet("integration", "set-secret", "lab", "--from-env", "LAB_KEY")
    empty = pgfleet("integration", "set-secret", "lab", "--from-env", "NO_SUCH_KEY")

    assert answer.exit_code == 0, answer.stderr
    assert empty.exit_code == 1
    assert "NO_SUCH_KEY holds no secret" in empty.stderr


def test_an_unknown_system_is_refused(pgfleet: Any) -> None:
    answer = pgfleet("integration", "create", "typo", "--type", "simplemdn")
    assert answer.exit_code == 1
    assert "simplemdn" in answer.stderr and "simplemdm" in answer.stderr


def test_an_integration_rests_and_goes(pgfleet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pgfleet("integration", "create", "old")
    assert "holidays" in pgfleet("integration", "pause", "old", "--reason", "holidays").stdout
    refused = pgfleet("integration", "sync", "old")
    assert refused.exit_code == 1
    assert "is paused" in refused.stderr
    assert pgfleet("integration", "resume", "old").exit_code == 0
    without = pgfleet("integration", "sync", "old")
    assert without.exit_code == 1
    assert "has no secret" in without.stderr
    monkeypatch.setenv("OLD_KEY", "x")
    pgfleet("integration", "set-secret", "old", "--from-env", "OLD_KEY")
    assert pgfleet("integration", "sync", "old", "--no-wait").exit_code == 0
    assert pgfleet("integration", "calls", "old", "--json").stdout.strip() == "[]"
    assert pgfleet("integration", "delete", "old", "--dry-run").exit_code == 0
    assert pgfleet("integration", "delete", "old", "--yes").exit_code == 0
    gone = pgfleet("integration", "show", "old")
    assert gone.exit_code == 1
    assert "was not found" in gone.stderr


@pytest.fixture
def readable(pgfleet: Any, fleet: Any) -> Iterator[str]:
    """Give an integration that can be read, when functions run."""
    pgfleet("integration", "create", "asked")
    pgfleet("integration", "set-secret", "asked", stdin="key")
    yield "asked"
    pgfleet("integration", "delete", "asked", "--yes")


@contextmanager
def functions_that_answer(fleet: Any, error: str | None) -> Iterator[None]:
    """Read what is asked for, as the functions do, with this outcome."""

    def work() -> None:
        claim = "select fleet.worker_claim_mdm_syncs()"
        with psycopg.connect(fleet.url(), autocommit=True) as conn:
            found = wait_until(lambda: conn.execute(claim.encode()).fetchone())
            conn.execute(
                "select fleet.worker_end_mdm_sync((j ->> 'integration_id')::bigint,"
                " (j ->> 'started_at')::timestamptz, %s::jsonb) from (select %s::jsonb) as x(j)",
                (json.dumps({"error": error}), json.dumps(found[0])),
            )

    with psycopg.connect(fleet.url()) as conn:
        # Nobody else's is due.
        conn.execute("update device_integrations set last_sync_at = clock_timestamp()")
    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join()


def test_a_sync_that_nobody_does_does_not_end_well(pgfleet: Any, readable: str) -> None:
    answer = pgfleet("integration", "sync", readable, "--timeout", "0")

    assert answer.exit_code == 1
    assert "integration asked: still asked for after 0 s" in answer.stderr
    assert "pgfleet functions run" in answer.stderr


def test_a_sync_ends_when_the_devices_are_read(pgfleet: Any, fleet: Any, readable: str) -> None:
    with functions_that_answer(fleet, None):
        answer = pgfleet("integration", "sync", readable, "--timeout", "20", "--json")

    assert answer.exit_code == 0, answer.stderr
    read = json.loads(answer.stdout)
    assert read["last_sync_at"] >= read["sync_requested_at"]


def test_a_sync_that_fails_says_with_what(pgfleet: Any, fleet: Any, readable: str) -> None:
    with functions_that_answer(fleet, "401 from the MDM"):
        answer = pgfleet("integration", "sync", readable, "--timeout", "20")

    assert answer.exit_code == 1
    assert "integration asked could not be read: 401 from the MDM" in answer.stderr
    assert "pgfleet integration calls asked" in answer.stderr


def test_an_address_is_made_listed_and_revoked(pgfleet: Any, fleet: Any) -> None:
    pgfleet("integration", "create", "hooked")
    made = pgfleet("integration", "webhook", "create", "Hooked", "--json")
    assert made.exit_code == 0, made.stderr
    shown = json.loads(made.stdout)
    assert shown["path"] == f"/integration-webhook/{shown['token']}"
    assert "functions_url" in made.stderr
    listed = pgfleet("integration", "webhook", "list", "hooked", "--json").stdout
    assert shown["token"] not in listed
    [row] = json.loads(listed)
    assert (row["id"], row["integration"], row["revoked_at"]) == (shown["id"], "hooked", None)

    revoke = ("integration", "webhook", "revoke", str(shown["id"]))
    assert pgfleet(*revoke, "--dry-run").exit_code == 0
    assert ask(fleet, "select count(*) from integration_webhooks where revoked_at is null") == 1
    assert pgfleet(*revoke, "--yes").exit_code == 0
    assert ask(fleet, "select count(*) from integration_webhooks where revoked_at is null") == 0
    gone = pgfleet("integration", "webhook", "revoke", "999999", "--yes")
    assert (gone.exit_code, "was not found" in gone.stderr) == (1, True)


def test_activity_is_listed_for_one_or_for_all(pgfleet: Any, fleet: Any) -> None:
    pgfleet("integration", "create", "busy")
    for text in ("null", '"no answer"'):
        ask(
            fleet,
            'select fleet.worker_end_mdm_sync(i.id, now(), \'{"error": ' + text + "}')"
            " from device_integrations as i where i.name = 'busy'",
        )
    listed = json.loads(pgfleet("integration", "activity", "busy", "--json").stdout)
    assert [(row["status"], row["error"]) for row in listed] == [
        ("failed", "no answer"),
        ("completed", None),
    ]
    assert listed[0]["activity_type"] == "sync_import"
    newest = json.loads(pgfleet("integration", "activity", "--limit", "1", "--json").stdout)
    assert newest == listed[:1]


def test_a_profile_is_installed_extended_and_ended(pgfleet: Any, fleet: Any) -> None:
    ask(
        fleet,
        "with d as (select id, owner_id from devices where hostname = 'ipad-7'), i as ("
        " select * from create_integration("
        '  \'{"name": "cli", "integration_type": "simplemdm"}\'))'
        " insert into device_links (device_id, integration_id, owner_id, external_id)"
        " select d.id, i.id, i.owner_id, '1' from d, i returning device_id",
    )
    made = pgfleet("profile", "install", "12345", "IPAD-7", "--for", "30 minutes", "--json")
    assert made.exit_code == 0, made.stderr
    install = str(ask(fleet, "select max(id) from profile_installs"))

    longer = pgfleet("profile", "extend", install, "1 hour", "--json")
    assert '"duration_minutes": 90' in longer.stdout, longer.stderr
    listed = pgfleet("profile", "list", "--temporary", "--device", "ipad-7", "--json")
    assert '"state": "waiting"' in listed.stdout
    ended = pgfleet("profile", "end", install, "--json")
    assert "ended before it began" in ended.stdout, ended.stderr


def test_a_profile_that_stays_is_removed_by_a_schedule(pgfleet: Any) -> None:
    assert pgfleet("profile", "install", "5", "ipad-8").exit_code == 0
    assert pgfleet("profile", "remove", "5", "ipad-8", "--at", "2040-01-01").exit_code == 0

    listed = pgfleet("profile", "list", "--profile", "5", "--csv").stdout

    assert "remove_profile" in listed
    assert "Pending" in listed


def test_assignments_are_made_listed_and_taken_back(pgfleet: Any) -> None:
    made = pgfleet("profile", "assign", "77", "--device", "ipad-9", "--json")
    assert made.exit_code == 0, made.stderr
    drift = pgfleet("profile", "drift", "--csv").stdout
    assert "in no MDM" in drift
    assert pgfleet("profile", "reconcile", "--json").stdout.split() == [
        *("{", '"pushes":', "0,", '"removals":', "0", "}")
    ]
    listed = json.loads(pgfleet("profile", "assignments", "--json").stdout)
    assert [row["profile_id"] for row in listed] == ["77"]

    gone = pgfleet("profile", "unassign", str(listed[0]["id"]))

    assert gone.exit_code == 0, gone.stderr
    assert json.loads(pgfleet("profile", "assignments", "--json").stdout) == []
