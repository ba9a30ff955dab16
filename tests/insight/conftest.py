"""A fleet of its own for each test."""

from __future__ import annotations

from tests.factories import connect, fleet

__all__ = ["connect", "fleet"]
