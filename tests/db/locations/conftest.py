"""A fleet of its own for each test, and a town for it to move in."""

from __future__ import annotations

import pytest
from tests.helpers.fleet import Fleet
from tests.helpers.locations import Town


@pytest.fixture
def town(fleet: Fleet) -> Town:
    """Give a town that is gone after the test."""
    return Town(fleet)
