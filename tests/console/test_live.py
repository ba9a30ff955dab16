"""What moves by itself."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from pgfleet_console.table import PAGES

PATIENCE_SECONDS = 60.0


@contextmanager
def looking_on(browser: Any, at: str) -> Iterator[Iterator[str]]:
    """Have a page open; give what is sent to it, one text for each message."""
    timeout = httpx.Timeout(PATIENCE_SECONDS)
    with browser.http.stream("GET", "/live", params={"at": at}, timeout=timeout) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")

        def messages() -> Iterator[str]:
            lines: list[str] = []
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    lines.append(line[6:])
                elif not line and lines:
                    yield "\n".join(lines)
                    lines = []

        yield messages()


@contextmanager
def ticking(school: Any) -> Iterator[None]:
    """Tick as the engine does, several times a second."""
    end = threading.Event()

    def tick() -> None:
        with school.fleet() as fleet:
            while not end.wait(0.2):
                fleet.tick()

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join(PATIENCE_SECONDS)


def test_a_change_reaches_pages_that_are_open(console: Any, a_school: Any) -> None:
    with (
        a_school.fleet() as fleet,
        ticking(a_school),
        looking_on(console("admin"), "/") as seen,
        looking_on(console("stranger"), "/") as seen_by_stranger,
    ):
        assert "latest commands" in next(seen).lower()
        fleet.send(a_school.devices[3], "clear_cache")

        assert any("clear_cache" in text for text in seen)
        assert "clear_cache" not in next(seen_by_stranger)


def test_what_is_looked_at_once_for_many_is_shown_to_nobody_who_may_not_see_it(
    console: Any, a_school: Any
) -> None:
    spec = {"owner_id": str(a_school.owner), "name": "Hush", "url": "https://hush.example/x",
            "events": ["*"]}  # fmt: skip
    with a_school.fleet() as fleet:
        made = fleet.value("select create_webhook_endpoint(%s) ->> 'id'", json.dumps(spec))
        fleet.run(
            "update webhook_endpoints set enabled = false, disabled_reason = 'gone' where id = %s",
            made,
        )
        with (
            ticking(a_school),
            looking_on(console("admin"), "/") as seen,
            looking_on(console("viewer"), "/") as seen_by_viewer,
        ):
            # Both are in the same fleet, but who only looks does not see its webhooks.
            assert any("Hush" in text for text in seen)
            for _ in range(8):
                assert "Hush" not in next(seen_by_viewer)
                assert "Hush" in next(seen)
        fleet.run("delete from webhook_endpoints where id = %s", made)


def test_only_what_moves_is_sent_and_only_where_there_is_a_page(console: Any) -> None:
    admin = console("admin")
    with looking_on(admin, "/") as seen:
        # Nothing ticks here: it is looked all the same, since just that is worth seeing.
        text = next(seen)
    assert "Needs a person" in text
    assert "<html" not in text

    assert admin.http.get("/live", params={"at": "/nothing"}).status_code == 404
    assert httpx.get(f"{admin.url}/live").status_code == 401


def test_every_page_that_moves_can_be_shown_again(console: Any, a_school: Any) -> None:
    admin = console("admin")
    numbers = {
        "/commands/{id}": a_school.failed,
        "/runs/{id}": a_school.run,
        "/schedules/{id}": a_school.schedule,
    }
    views = [view.path for page in PAGES for view in page.views if view.live]
    with a_school.fleet() as fleet:
        made = fleet.value(
            "select create_webhook_endpoint(jsonb_build_object("
            "'url', 'https://hooks.example.com/', 'owner_id', %s::text)) ->> 'id'",
            str(a_school.owner),
        )
        message = fleet.value("select (test_webhook_endpoint(%s)).id", int(made))
    numbers["/webhooks/deliveries/{id}"] = message

    with ticking(a_school):
        for path in views:
            at = path.replace("{id}", str(numbers.get(path, 0)))
            if "{id}" in path and path not in numbers:
                continue
            with looking_on(admin, at) as seen:
                assert "<" in next(seen), path
