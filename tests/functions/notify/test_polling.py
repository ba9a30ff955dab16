"""Functions that look for work by themselves, where no pg_net pokes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

from pgfleet_functions.app import create_app
from pgfleet_functions.settings import FunctionSettings


def test_functions_that_poll_deliver_without_a_poke(
    site: Any, owner: UUID, receive: Any, serve: Any, free_port: Callable[[], int]
) -> None:
    receiver = receive()
    endpoint = site.endpoint(owner, url=receiver.url)
    app = create_app(
        FunctionSettings(
            database_url=site.database.url("fleet_worker"), jwt_secret=site.settings.jwt_secret
        ),
        poll_seconds=0.1,
    )
    with serve(app, free_port()):
        site.emit(owner, "run.failed", run_id=1)
        end = time.monotonic() + 20
        while site.delivery(endpoint)["status"] != "delivered":
            assert time.monotonic() < end, "nobody looked for the message"
            time.sleep(0.05)

    assert len(receiver.requests) == 1
