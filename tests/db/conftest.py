"""A fleet of its own for each test, and one with an MDM."""

from __future__ import annotations

from tests.helpers.fleet import connect, fleet
from tests.helpers.mdm import mdm

__all__ = ["connect", "fleet", "mdm"]
