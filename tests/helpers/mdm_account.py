"""One owner with one SimpleMDM account of the sandbox, over the whole platform."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from tests.helpers.sandbox import Sandbox


@dataclass
class Account:
    """The owner, the account, and the database behind them."""

    stack: Any
    sandbox: Sandbox
    owner: UUID
    integration: int
    key: str

    def run(self, query: str, *values: Any) -> list[Any]:
        """Run a statement as postgres, committed, and give its rows."""
        with self.stack.connect(autocommit=True) as conn:
            found = conn.execute(query, values)
            return list(found.fetchall()) if found.description else []

    def value(self, query: str, *values: Any) -> Any:
        """Run a statement and give its one value."""
        rows = self.run(query, *values)
        return rows[0][0] if rows else None


@contextmanager
def simplemdm_account(stack: Any, **settings: Any) -> Iterator[tuple[Any, Sandbox, UUID, int, str]]:
    """Make the owner and the account, and give what is known of both; both rest at the end."""
    sandbox = Sandbox(stack.settings.simplemdm_url)
    sandbox.control("POST", "reset")
    owner, key = uuid4(), stack.settings.simplemdm_keys["full"]
    sandbox.control("POST", "settings", full=key)
    given = {"rate_per_second": 200, "burst": 100, "base_url": sandbox.api, **settings}
    spec = {
        "name": "office",
        "integration_type": "simplemdm",
        "owner_id": str(owner),
        "settings": given,
    }
    with stack.connect() as conn:
        conn.execute("insert into owners (id, name) values (%s, 'office')", (owner,))
        query = "select id from create_integration(%s::jsonb, %s)"
        [(made,)] = conn.execute(query, (json.dumps(spec), key)).fetchall()
    yield stack, sandbox, owner, made, key
    with stack.connect() as conn:
        conn.execute("update device_integrations set status = 'disabled' where id = %s", (made,))
