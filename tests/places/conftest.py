"""A fleet of its own for each test, and a town for it to move in."""

from __future__ import annotations

import pytest
from tests.factories import Fleet, connect, fleet
from tests.places.town import Town

__all__ = ["connect", "fleet"]


@pytest.fixture
def town(fleet: Fleet) -> Town:
    """Give a town that is gone after the test."""
    return Town(fleet)
