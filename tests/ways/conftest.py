"""What journeys need of the functions: a served site, receivers, and waiting."""

from __future__ import annotations

from tests.functions.conftest import serving_site, signing_key
from tests.functions.notify.conftest import receive, waiting

__all__ = ["receive", "serving_site", "signing_key", "waiting"]
