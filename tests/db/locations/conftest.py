"""A fleet of its own for each test, and an area with two locations."""

from __future__ import annotations

import pytest
from tests.helpers.fleet import Fleet
from tests.helpers.locations import Area


@pytest.fixture
def area(fleet: Fleet) -> Area:
    """Give an area that is gone after the test."""
    return Area(fleet)
