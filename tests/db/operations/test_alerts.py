"""Each alert rule fires when what it watches breaks, and not before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from ruamel.yaml import YAML
from tests.db.operations.test_checkup import calls, failing_commands, failing_step, overdue
from tests.helpers.alerting import Sample, firing
from tests.helpers.fleet import Fleet
from tests.helpers.mdm import Mdm
from tests.helpers.pages import DOCS

NOW = datetime.now(UTC)
LATER = NOW + timedelta(hours=2)

(_GROUP,) = YAML(typ="safe").load((DOCS / "operate" / "alerts.yml").read_text())["groups"]
RULES: dict[str, str] = {rule["alert"]: rule["expr"] for rule in _GROUP["rules"]}


def samples(fleet: Fleet, now: datetime) -> list[Sample]:
    """Give all figures, as a monitoring system has them."""
    rows = fleet.rows("select name, labels, value from fleet.metrics(%s)", now)
    return [Sample(row["name"], row["labels"], row["value"]) for row in rows]


def alerts(fleet: Fleet, now: datetime = NOW) -> set[str]:
    """Give the rules that find something."""
    found = samples(fleet, now)
    return {name for name, expression in RULES.items() if firing(expression, found)}


def waiting_command(fleet: Fleet) -> None:
    fleet.send(fleet.device())


def ticked(fleet: Fleet) -> None:
    fleet.tick(NOW)


def no_partition(fleet: Fleet) -> None:
    tomorrow = (NOW + timedelta(days=1)).date()
    fleet.run(f"drop table telemetry.points_{tomorrow:%Y%m%d}")


BREAKS: list[tuple[str, Callable[[Fleet], None], datetime]] = [
    ("PgfleetDoesNotTick", ticked, NOW + timedelta(seconds=11)),
    ("PgfleetStepFails", failing_step, NOW),
    ("PgfleetIsLate", overdue, NOW),
    ("PgfleetDevicesDoNotClaim", waiting_command, LATER),
    ("PgfleetCommandsFail", failing_commands, datetime.now(UTC) + timedelta(seconds=30)),
    ("PgfleetProviderRefuses", lambda fleet: calls(fleet, 429), NOW),
    ("PgfleetPartitionIsMissing", no_partition, NOW),
]
# Those that take more than a fleet to break have tests of their own.
OTHERS = {
    "PgfleetIntegrationStands",
    "PgfleetSyncIsLate",
    "PgfleetConnectionsRunOut",
    "PgfleetOldTransaction",
}


@pytest.fixture
def well(fleet: Fleet) -> Iterator[Fleet]:
    """Give a fleet whose engine has ticked."""
    fleet.tick(NOW)
    assert alerts(fleet) == set()
    yield fleet


def test_every_rule_is_broken_by_a_test() -> None:
    assert {name for name, _, _ in BREAKS} | OTHERS == set(RULES)


@pytest.mark.parametrize(("name", "breaks", "now"), BREAKS, ids=[one[0] for one in BREAKS])
def test_a_rule_fires_when_that_breaks(
    well: Fleet, name: str, breaks: Callable[[Fleet], None], now: datetime
) -> None:
    breaks(well)
    assert name in alerts(well, now)


def test_an_integration_that_stands_or_is_not_read_is_told(mdm: Mdm) -> None:
    fleet = mdm.fleet
    fleet.tick(NOW)
    fleet.run("update device_integrations set last_sync_at = %s where id = %s", NOW, mdm.id)
    assert alerts(fleet) == set()
    assert "PgfleetSyncIsLate" in alerts(fleet, LATER)
    fleet.run(
        "update device_integrations set status = 'paused', status_reason = 'key refused'"
        " where id = %s",
        mdm.id,
    )
    assert alerts(fleet) == {"PgfleetIntegrationStands"}


def test_a_transaction_that_stays_open_is_told(connect: Callable[..., Fleet]) -> None:
    fleet, other = connect(), connect()
    fleet.tick(NOW)
    other.conn.autocommit = False
    other.run("select txid_current()")
    other.run("select from owners")
    assert "PgfleetOldTransaction" not in alerts(fleet)
    other.run("declare held cursor for select from owners")
    assert "PgfleetOldTransaction" in alerts(fleet, LATER)
    other.conn.rollback()
    assert "PgfleetOldTransaction" not in alerts(fleet, LATER)


def test_connections_that_run_out_are_told(connect: Callable[..., Fleet]) -> None:
    fleet = connect()
    fleet.tick(NOW)
    most = int(fleet.value("show max_connections"))
    while connections(fleet) < int(0.85 * most):
        connect()
    assert "PgfleetConnectionsRunOut" not in alerts(fleet)
    connect()
    assert "PgfleetConnectionsRunOut" in alerts(fleet)


def connections(fleet: Fleet) -> int:
    """Count those that are open to this database, in another way than the figures do."""
    query = "select numbackends from pg_stat_database where datname = current_database()"
    return int(fleet.value(query))


def test_no_figures_at_all_are_told() -> None:
    assert firing(RULES["PgfleetDoesNotTick"], [])


@pytest.mark.parametrize(
    ("expression", "fires"),
    [
        ("x > 2", True),
        ('sum(x{a="1"}) > 2', False),
        ('sum(x{a=~"1|2"}) / 2 == 2', True),
        ('x{a!="1"} > 0 and x > 5', False),
        ("absent(y)", True),
        ("absent(x) or x == 3", True),
        ("x > 0.5 * sum(x)", False),
    ],
)
def test_the_evaluator_reads_rules_as_prometheus_does(expression: str, fires: bool) -> None:
    figures: list[Any] = [Sample("x", {"a": "1"}, 1.0), Sample("x", {"a": "2"}, 3.0)]
    assert bool(firing(expression, figures)) is fires
