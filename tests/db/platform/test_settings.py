"""Settings: what they may be set to, and that they hold at once."""

from __future__ import annotations

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet


def test_a_setting_holds_from_its_change_on(fleet: Fleet) -> None:
    assert fleet.value("select fleet.setting('lease_seconds')") == 60
    fleet.run("select fleet.set_setting('lease_seconds', '90')")
    assert fleet.value("select fleet.setting('lease_seconds')") == 90
    device = fleet.device()
    fleet.send(device)
    assert fleet.claim(device)[0]["lease_seconds"] == 90


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lease_seconds", "60"),
        ("lease_seconds", None),
        ("lease_seconds", 0),
        ("lease_seconds", -1),
        ("lease_seconds", 1.5),
        ("lease_seconds", 10**12),
        ("history_days", 0),
        ("poll_seconds", 0),
        ("expand_chunk_size", 0),
        ("doorbell_rate", -1),
        ("ticker_enabled", 1),
        ("ticker_enabled", "false"),
        ("ticker_enabled", None),
        ("default_owner", "nobody"),
        ("default_owner", "00000000-0000-4000-8000-000000000000"),
        ("default_owner", 5),
        ("functions_url", "functions.example.com"),
        ("functions_url", "https://"),
        ("functions_url", True),
    ],
)
def test_a_wrong_value_is_refused(fleet: Fleet, name: str, value: object) -> None:
    with fleet.refused("PT422", "setting_invalid", name):
        fleet.run("select fleet.set_setting(%s, %s)", name, Jsonb(value))
    assert fleet.rows("select * from fleet.settings where name = %s", name) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("doorbell_rate", 0.5),
        ("doorbell_rate", 0),
        ("inline_expand_limit", 0),
        ("functions_url", "http://127.0.0.1:8000/functions/v1"),
        ("functions_url", None),
        ("default_owner", None),
    ],
)
def test_values_at_the_edge_are_taken(fleet: Fleet, name: str, value: object) -> None:
    fleet.run("select fleet.set_setting(%s, %s)", name, Jsonb(value))
    assert fleet.value("select fleet.setting(%s)", name) == value


def test_a_setting_may_be_cleared_with_sql_null(fleet: Fleet) -> None:
    fleet.run("select fleet.set_setting('functions_url', null)")
    assert fleet.value("select fleet.setting('functions_url')") is None


def test_an_unknown_setting_is_refused(fleet: Fleet) -> None:
    with fleet.refused("PT404", "setting_not_found", "colour"):
        fleet.run("select fleet.set_setting('colour', '1')")


def test_whether_the_table_is_published_follows_its_setting(fleet: Fleet) -> None:
    def is_published() -> bool:
        found: bool = fleet.value(
            "select exists (select 1 from pg_publication_tables where pubname = 'supabase_realtime'"
            " and tablename = 'device_commands')"
        )
        return found

    assert is_published()
    for wanted in (False, False, True):
        fleet.run("select fleet.set_setting('publish_device_commands', %s)", Jsonb(wanted))
        assert is_published() is wanted
