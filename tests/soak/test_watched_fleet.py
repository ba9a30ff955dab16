"""A large and busy fleet on screens: how soon it is seen, and what looking on costs.

20,000 devices, 200 changes a second made in SQL, *Now* and *Commands* open in a real browser for
ten minutes (PGFLEET_WATCH_SECONDS for another while). It prints what it measured.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import pytest
from tests.console.conftest import School, a_school

pytest.importorskip("playwright.sync_api", reason="make test-browser installs it")

# Without a browser there is nothing of it to be had.
from tests.console.browser.conftest import chromium

__all__ = ["a_school", "chromium"]

DEVICES, HISTORY, CHANGES_A_SECOND = 20_000, 300_000, 200
BEATS, WRITERS = 10, 2
WATCH_SECONDS = float(os.environ.get("PGFLEET_WATCH_SECONDS", "600"))
SAMPLE_SECONDS = 5.0
TICKS = os.sysconf("SC_CLK_TCK")
# The newest command that is on the page, and how old it is.
NEWEST = """() => Math.max(...[...document.querySelectorAll('#live [id^="command-"] time')]
  .map(one => Date.parse(one.dateTime)))"""
PAINTED = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime"

FILL = """
with made as (
  insert into devices (hostname, owner_id, last_seen, enrolled_at)
  select 'pc-' || lpad(n::text, 5, '0'), %(owner)s, now() - n * interval '3 seconds', now()
  from generate_series(1, %(devices)s) as n
  returning id
)
select array_agg(id) from made
"""
REMEMBER = """
insert into device_commands (device_id, device_hostname, owner_id, command_type, channel, payload,
  status, not_before, expires_at, created_at, claimed_at, executed_at, attempt, max_attempts)
select d.id, d.hostname, d.owner_id, 'lock', 'agent', '{}', 'completed', at, at + interval '1 hour',
  at, at, at + interval '1 second', 1, 3
from (
  select n, now() - interval '3 days' + n * interval '3 days' / %(history)s as at
  from generate_series(1, %(history)s) as n
) as x
join lateral (select (%(ids)s::bigint[])[1 + x.n %% %(devices)s] as id) as k on true
join devices as d on d.id = k.id
"""
CHANGE = """
with made as (
  insert into device_commands (device_id, command_type, payload)
  select ids[1 + floor(random() * cardinality(ids))], 'lock', '{}'
  from (select %(ids)s::bigint[] as ids) as x, generate_series(1, %(half)s)
  returning id
), done as (
  update device_commands set status = 'completed', claimed_at = now(), executed_at = now()
  where id in (select id from device_commands where status = 'pending' order by id limit %(half)s
    for update skip locked)
  returning id
)
select (select count(*) from made) + (select count(*) from done)
"""


@pytest.fixture(scope="module")
def devices(a_school: School) -> list[int]:
    """Fill the school with devices and with what they did in the last days."""
    with a_school.database.connect("supabase_admin", autocommit=True) as conn:
        conn.execute("set session_replication_role = replica")
        filled = {"owner": a_school.owner, "devices": DEVICES}
        (found,) = conn.execute(FILL.encode(), filled).fetchone()
        conn.execute(REMEMBER.encode(), {"ids": found, "devices": DEVICES, "history": HISTORY})
        conn.execute("vacuum analyze devices")
        conn.execute("vacuum analyze device_commands")
        return list(found)


@contextmanager
def changing(school: School, devices: list[int]) -> Iterator[Callable[[], int]]:
    """Change rows as a busy fleet does, and tick; give how many were changed."""
    end, done = threading.Event(), [0] * WRITERS

    def change(number: int) -> None:
        half = CHANGES_A_SECOND // BEATS // 2 // WRITERS
        with school.database.connect(autocommit=True) as conn:
            due = time.monotonic()
            while not end.wait(max(0.0, due - time.monotonic())):
                row = conn.execute(CHANGE.encode(), {"ids": devices, "half": half}).fetchone()
                done[number] += row[0]
                due += 1 / BEATS

    def tick() -> None:
        with school.fleet() as fleet:
            while not end.wait(1):
                fleet.tick()

    threads = [threading.Thread(target=tick, daemon=True)]
    threads += [
        threading.Thread(target=change, args=(number,), daemon=True) for number in range(WRITERS)
    ]
    for thread in threads:
        thread.start()
    try:
        yield lambda: sum(done)
    finally:
        end.set()
        for thread in threads:
            thread.join(60)


@contextmanager
def served(school: School, port: int) -> Iterator[tuple[str, int]]:
    """Serve the console in a process of its own; give its address and its number."""
    environment = {
        **os.environ,
        "PGFLEET_CONSOLE_DATABASE_URL": school.database.url("authenticator"),
        "PGFLEET_CONSOLE_HOSTS": "127.0.0.1",
        "PGFLEET_CONSOLE_INSECURE": "on",
        "SUPABASE_JWT_SECRET": school.database.settings.jwt_secret,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "pgfleet", "console", "serve", "--port", str(port)], env=environment
    )
    url, until = f"http://127.0.0.1:{port}", time.monotonic() + 60
    try:
        while True:
            try:
                httpx.get(f"{url}/health")
                break
            except httpx.TransportError:
                assert process.poll() is None and time.monotonic() < until
                time.sleep(0.1)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(30)


class Cost:
    """How much of a core the console and its connections took."""

    def __init__(self, school: School, console: int) -> None:
        self._school, self._console = school, console
        self._spent: dict[int, float] = {}
        self._began: dict[int, float] = {}
        self._since = time.monotonic()

    def look(self) -> None:
        """Read what each process has spent so far."""
        with self._school.fleet() as fleet:
            backends = fleet.rows(
                "select pid from pg_stat_activity where application_name = 'console'"
            )
        for pid in (self._console, *(row["pid"] for row in backends)):
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except FileNotFoundError:
                continue
            spent = (int(fields[11]) + int(fields[12])) / TICKS
            self._began.setdefault(pid, spent)
            self._spent[pid] = spent - self._began[pid]

    def cores(self) -> tuple[float, float]:
        """Give the share of a core of the console, and that of its connections."""
        passed = time.monotonic() - self._since
        own = self._spent.get(self._console, 0.0)
        return own / passed, (sum(self._spent.values()) - own) / passed


def at(values: list[float], share: float) -> float:
    """Give a quantile."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def first_paint(page: Any) -> float:
    """Wait until something was painted, and give when that was, in milliseconds."""
    until = time.monotonic() + 60
    while (found := page.evaluate(PAINTED)) is None:
        assert time.monotonic() < until, "nothing was painted"
        time.sleep(0.05)
    return float(found)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_busy_fleet_is_watched(
    a_school: School, devices: list[int], chromium: Any, free_port: Callable[[], int]
) -> None:
    with served(a_school, free_port()) as (url, pid), changing(a_school, devices) as changed:
        context = chromium.new_context(
            base_url=url,
            extra_http_headers={"Authorization": f"Bearer {a_school.token('admin')}"},
        )
        pages, painted = {}, {}
        for name, path in (("now", "/"), ("commands", "/commands")):
            page = context.new_page()
            page.set_default_timeout(60_000)
            for _ in range(3):
                page.goto(path, wait_until="load")
                painted.setdefault(name, []).append(first_paint(page))
            pages[name] = (page, context.new_cdp_session(page))
            pages[name][1].send("Performance.enable")
        # Both stay visible to themselves, as two windows side by side are.
        cost, lags, heaps, nodes = Cost(a_school, pid), {}, {}, {}
        cost.look()
        began, before = time.monotonic(), changed()
        while time.monotonic() - began < WATCH_SECONDS:
            time.sleep(SAMPLE_SECONDS)
            cost.look()
            for name, (page, session) in pages.items():
                lags.setdefault(name, []).append(time.time() - page.evaluate(NEWEST) / 1000)
                session.send("HeapProfiler.collectGarbage")
                metrics = {
                    one["name"]: one["value"]
                    for one in session.send("Performance.getMetrics")["metrics"]
                }
                heaps.setdefault(name, []).append(metrics["JSHeapUsedSize"] / 2**20)
                nodes.setdefault(name, []).append(metrics["Nodes"])
        passed = time.monotonic() - began
        rate = (changed() - before) / passed
        own, database = cost.cores()
        context.close()

    print(f"\n{DEVICES} devices, {rate:.0f} changes a second, {passed:.0f} s, 2 pages")
    print(f"console {own:.2f} cores, its connections {database:.2f} cores")
    third = max(1, len(heaps["now"]) // 3)
    for name in pages:
        first, last = median(heaps[name][:third]), median(heaps[name][-third:])
        print(
            f"{name}: first paint {min(painted[name]):.0f} to {max(painted[name]):.0f} ms,"
            f" newest row is {median(lags[name]):.2f} s old, p95 {at(lags[name], 0.95):.2f} s,"
            f" most {max(lags[name]):.2f} s; heap {first:.1f} MB at first, {last:.1f} MB at last,"
            f" nodes {median(nodes[name][:third]):.0f} and {median(nodes[name][-third:]):.0f}"
        )
    assert rate > 0.8 * CHANGES_A_SECOND
    assert own + database < 0.5
    for name in pages:
        assert median(painted[name]) < 1000 and at(lags[name], 0.95) < 2, name
        first, last = median(heaps[name][:third]), median(heaps[name][-third:])
        assert last < 1.25 * first + 2, name
