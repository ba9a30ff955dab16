"""The functions over a migrated database, as for notifications."""

from __future__ import annotations

from tests.functions.notify.conftest import mail_port, owner, site

__all__ = ["mail_port", "owner", "site"]
