"""How many requests an agent makes a day: counted by the database, on a clock that leaps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.helpers.simulated_day import Day


def test_an_agent_whose_doorbell_is_proved_makes_sixty_requests_a_day_at_most(
    own_database: Any, tmp_path: Path
) -> None:
    with own_database.connect(autocommit=True) as connection:
        day = Day(connection, 3, tmp_path).run()

    kinds = ("claims", "looks", "tokens", "checkins", "sockets")
    assert day["devices"] == 3
    assert day["a_device"] <= 60, {kind: int(day[kind]) for kind in kinds}
    # An hour apart: its check-ins, which are looks as well, and its tokens.
    assert 3 * 20 <= day["checkins"] <= 3 * 26
    assert 3 * 24 <= day["tokens"] <= 3 * 31
    # Each of nine commands was taken at its ring.
    assert day["claims"] == 9
    assert day["sockets"] == 3 * 2


def test_an_agent_without_a_doorbell_looks_every_five_minutes(
    own_database: Any, tmp_path: Path
) -> None:
    with own_database.connect(autocommit=True) as connection:
        day = Day(connection, 1, tmp_path, commands=0, session_seconds=None).run()

    assert 240 <= day["looks"] <= 330
