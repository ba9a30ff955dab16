"""Two people who call the task API, and devices of one of them."""

from __future__ import annotations

from typing import Any

import pytest
from tests.helpers.task_api import ME, STRANGER, Api


@pytest.fixture
def me(site: Any) -> Api:
    return Api(site, ME)


@pytest.fixture
def stranger(site: Any) -> Api:
    return Api(site, STRANGER)


@pytest.fixture(scope="module")
def devices(site: Any) -> list[int]:
    """Give me three devices and one group."""
    with site.connect() as conn:
        conn.execute("insert into owners (id, name) values (%s, 'me')", (ME,))
        return [
            conn.execute(
                "insert into devices (owner_id, hostname) values (%s, %s) returning id",
                (ME, f"pc-{number}"),
            ).fetchone()[0]
            for number in range(3)
        ]
