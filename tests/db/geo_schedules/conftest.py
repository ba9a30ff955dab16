"""What the tests of commitments share."""

from __future__ import annotations

from tests.db.geo_schedules.pupil import pupil

__all__ = ["pupil"]
