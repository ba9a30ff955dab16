"""A fleet of its own for each test of a policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from tests.conftest import Database
from tests.factories import Fleet


@pytest.fixture
def fleet(db: psycopg.Connection[Any]) -> Fleet:
    """Give a fleet that is gone after the test."""
    return Fleet(db)


@pytest.fixture
def connect(own_database: Database) -> Iterator[Callable[..., Fleet]]:
    """Give a function that opens a session which commits, on a database of its own."""
    with ExitStack() as stack:

        def open_session(role: str = "postgres", owner: Fleet | None = None) -> Fleet:
            conn = stack.enter_context(own_database.connect(role, autocommit=True))
            return Fleet(conn, owner.owner_id) if owner else Fleet(conn)

        yield open_session
