"""One owner with the worst that validation accepts, and beside it a good one that is watched."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
from hypothesis import HealthCheck, given, settings, target
from hypothesis import strategies as st
from psycopg.types.json import Jsonb
from tests.helpers import mdm_account
from tests.helpers.hostile import drips, hostile, pours, says

Spec = dict[str, Any]

DAYS = st.lists(st.integers(0, 6), min_size=1, max_size=7, unique=True)
TIME = st.builds("{:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59))
WINDOW = st.fixed_dictionaries(
    {"from": TIME, "to": TIME},
    optional={
        "days_of_week": DAYS,
        "in": st.sampled_from(["schedule", "device"]),
        "outside": st.sampled_from(["skip", "wait"]),
    },
)
RECURRENCES = st.one_of(
    st.sampled_from(
        ["* * * * * *", "* * * * *", "*/2 * * * * *", "0 0 29 2 *", "0 * L-3 * 5#5"]
    ).map(lambda cron: {"recurrence_type": "cron", "recurrence_config": {"cron_expression": cron}}),
    st.integers(1, 5).map(
        lambda n: {"recurrence_type": "interval", "recurrence_config": {"seconds": n}}
    ),
    st.lists(TIME, min_size=20, max_size=48, unique=True).map(
        lambda times: {"recurrence_type": "daily", "recurrence_config": {"times": times}}
    ),
)
EVERY_SECOND: Spec = {
    "recurrence_type": "cron",
    "recurrence_config": {"cron_expression": "* * * * * *"},
}
# As often as device time may be.
OFTEN_ON_WALLS: Spec = {
    "recurrence_type": "cron",
    "recurrence_config": {"cron_expression": "*/5 * * * *"},
}
# Each run and each command has a copy of it.
LARGEST: Spec = {"message": "x" * 60_000}
POLICIES = st.fixed_dictionaries(
    {},
    optional={
        "execution_window": st.lists(WINDOW, min_size=1, max_size=20),
        "blackouts": st.just(["all of it"]),
        "overlap": st.sampled_from(["skip", "buffer_one", "allow", "replace"]),
        "max_concurrent": st.integers(1, 1000),
        "catchup": st.sampled_from(["none", "latest", "all"]),
        "catchup_window": st.sampled_from(["1 hour", "30 days", "3650 days"]),
        "catchup_limit": st.integers(1, 1000),
        "jitter": st.sampled_from(["1 second", "1 hour", "1 day"]),
        "expires_after": st.sampled_from(["1 second", "1 day", "3650 days"]),
        "retry": st.fixed_dictionaries({"attempts": st.integers(1, 1000)}),
        "max_runs": st.integers(1, 10**9),
    },
)
SPECS = st.builds(
    lambda recurrence, **more: {**recurrence, **more},
    RECURRENCES,
    policies=POLICIES,
    timezone=st.sampled_from(["UTC", "device", "America/St_Johns", "Africa/Casablanca"]),
    priority=st.integers(-100, 100),
    selector=st.sampled_from([{}, {"any_tags": [f"t{n}" for n in range(100)]}, {"reported": {}}]),
)


def worst_specs(conn: psycopg.Connection[Any], owner: UUID, examples: int, keep: int) -> list[Spec]:
    """Let hypothesis climb to what is accepted and costs most to decide about; give the worst."""
    found: list[tuple[float, Spec]] = []

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(SPECS)
    def climb(spec: Spec) -> None:
        with suppress(psycopg.Error), conn.transaction(force_rollback=True):
            made = create(conn, owner, "candidate", spec)
            conn.execute(
                "update schedules set next_run_at = clock_timestamp() - interval '30 seconds'"
                " where id = %s and status = 'active'",
                (made,),
            )
            begun = time.perf_counter()
            conn.execute(
                "select fleet.decide_due(s, clock_timestamp()) from schedules as s where id = %s",
                (made,),
            )
            found.append(((cost := time.perf_counter() - begun), spec))
            target(cost * 1000)

    climb()
    worst = sorted(found, key=lambda one: one[0], reverse=True)
    return [spec for _, spec in worst[:keep]]


def create(conn: psycopg.Connection[Any], owner: UUID, name: str, spec: Spec) -> int:
    whole = {
        "owner_id": str(owner),
        "name": name,
        "action_type": "broadcast_message",
        "payload": {"message": name},
        **spec,
    }
    row = conn.execute("select create_schedule(%s) ->> 'id'", (Jsonb(whole),)).fetchone()
    assert row is not None
    return int(row[0])


async def endless() -> Any:
    while True:
        yield b"x" * 65536
        await asyncio.sleep(0.01)


@contextmanager
def at_its_worst(stack: Any, devices: int, examples: int) -> Iterator[UUID]:
    """Keep an owner that harms whom it can, and its servers, until the block ends."""
    owner = uuid4()
    with ExitStack() as servers, stack.connect(autocommit=True) as conn:
        conn.execute("insert into owners (id, name) values (%s, 'hostile')", (owner,))
        conn.execute(
            "insert into devices (owner_id, hostname, timezone, tags)"
            " select %s, 'h-' || n, z.name, array['t' || n %% 100]"
            " from (select name, row_number() over (order by name) as n from fleet.time_zones) as z"
            " where n <= %s",
            (owner, devices),
        )
        conn.execute("select set_config('request.jwt.claims', '', false)")
        calendar = conn.execute(
            "insert into blackout_calendars (owner_id, name) values (%s, 'all of it') returning id",
            (owner,),
        ).fetchone()
        conn.execute(
            "insert into blackout_periods (owner_id, calendar_id, starts_at, ends_at)"
            " select %s, %s, t, t + interval '1 second'"
            " from generate_series(now() + interval '1 day', now() + interval '2000 days',"
            " interval '1 day') as t",
            (owner, calendar and calendar[0]),
        )
        for n, spec in enumerate(worst_specs(conn, owner, examples, keep=10)):
            create(conn, owner, f"worst {n}", spec)
            # What costs most to decide need not be due while anybody looks: these are.
            often = OFTEN_ON_WALLS if spec["timezone"] == "device" else EVERY_SECOND
            create(conn, owner, f"worst and always {n}", {**spec, **often, "payload": LARGEST})
        conn.execute(
            "update schedules set next_run_at = clock_timestamp() - interval '30 seconds'"
            " where owner_id = %s and status = 'active'",
            (owner,),
        )
        slow = servers.enter_context(hostile(drips(b"HTTP/1.1 200 OK\r\n" * 1000, 2)))
        huge = servers.enter_context(hostile(pours("HTTP/1.1 200 OK", endless)))
        wrong = servers.enter_context(hostile(says("HTTP/1.1 500 Oh", b"{" * 100_000)))
        for n in range(25):
            url = (slow, huge, wrong)[n % 3].url
            conn.execute(
                "select create_webhook_endpoint(%s)",
                (Jsonb({"owner_id": str(owner), "url": f"{url}/{n}", "events": ["*"]}),),
            )
        for n, server in enumerate((slow, huge, wrong)):
            given_settings = {
                "base_url": server.url, "rate_per_second": 1000, "burst": 1000,
                "syncIntervalSeconds": 60,
            }  # fmt: skip
            row = conn.execute(
                "select id from create_integration(%s, 'secret')",
                (Jsonb({"owner_id": str(owner), "name": f"mdm {n}", "integration_type": "simplemdm",
                        "settings": given_settings}),),
            ).fetchone()  # fmt: skip
            conn.execute(
                "insert into device_links (device_id, integration_id, owner_id, external_id)"
                " select d.id, %s, %s, d.id::text from devices as d where d.owner_id = %s"
                " order by d.id offset %s limit 60",
                (row and row[0], owner, owner, n * 60),
            )
        conn.execute(
            "select send_command(l.device_id, 'mdm_restart') from device_links as l"
            " where l.owner_id = %s",
            (owner,),
        )
        try:
            yield owner
        finally:
            # However long that takes: what the test saw is to be told all the same.
            conn.execute("set statement_timeout = 0")
            conn.execute(
                "select cancel_schedule(id) from schedules"
                " where owner_id = %s and status in ('active', 'paused')",
                (owner,),
            )
            conn.execute("update device_integrations set status = 'disabled'"
                         " where owner_id = %s", (owner,))  # fmt: skip
            conn.execute("update webhook_endpoints set enabled = false"
                         " where owner_id = %s", (owner,))  # fmt: skip


HARM = (
    "select count(*) from schedule_runs where owner_id = %s",
    "select count(*) from device_commands where owner_id = %s and run_id is not null",
    "select coalesce(sum(attempts), 0) from webhook_deliveries where owner_id = %s",
    "select count(*) from mdm_api_logs where owner_id = %s",
)


def harm_done(stack: Any, owner: UUID) -> dict[str, int]:
    """Tell what the hostile owner did: where it did nothing, nothing was tried."""
    with stack.connect() as conn:
        return {one: conn.execute(one.encode(), (owner,)).fetchone()[0] for one in HARM}


@dataclass
class Seen:
    """How long everything took for the good owner, in seconds."""

    rows: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    webhooks: list[float] = field(default_factory=list)
    calls: list[float] = field(default_factory=list)

    def late(self, seconds: float) -> float:
        """Give the 99th percentile of due → row."""
        return sorted(self.rows)[int(len(self.rows) * 0.99)] if self.rows else seconds

    def __str__(self) -> str:
        return (
            f"due → row p99 {self.late(99):.2f} s of {len(self.rows)}, token at most"
            f" {max(self.tokens):.2f} s of {len(self.tokens)}, webhook {max(self.webhooks):.2f} s"
            f" of {len(self.webhooks)}, MDM call {max(self.calls):.2f} s of {len(self.calls)}"
        )


def live_beside(stack: Any, receiver: Any, code_of: Callable[[UUID], str], seconds: float) -> Seen:
    """Do what a good owner does for so long, and tell how long each thing took."""
    seen = Seen()
    functions = f"{stack.settings.api_url}/functions/v1"
    with mdm_account.simplemdm_account(stack, syncEnabled=False) as made:
        _, sandbox, owner, integration, _ = made
        external = sandbox.devices(1)[0]
        with stack.connect(autocommit=True) as conn, httpx.Client(trust_env=False) as http:
            device = http.post(
                f"{functions}/enroll-device", json={"code": code_of(owner), "hostname": "good"}
            ).json()
            conn.execute(
                "insert into device_links (device_id, integration_id, owner_id, external_id)"
                " values (%s, %s, %s, %s)",
                (device["device_id"], integration, owner, str(external)),
            )
            endpoint = conn.execute(
                "select create_webhook_endpoint(%s) ->> 'id'",
                (Jsonb({"owner_id": str(owner), "url": receiver.url, "events": ["webhook.test"]}),),
            ).fetchone()
            schedule = create(conn, owner, "good", {
                "recurrence_type": "interval", "recurrence_config": {"seconds": 1},
                # What it never claims keeps no later row away: each second counts.
                "device_ids": [device["device_id"]],
                "policies": {"overlap": "allow", "max_concurrent": 1000},
            })  # fmt: skip
            over = threading.Event()
            watching = threading.Thread(target=_watch_rows, args=(stack, schedule, seen, over))
            watching.start()
            try:
                until = time.monotonic() + seconds
                turn = 0
                while time.monotonic() < until:
                    begun = time.monotonic()
                    answer = http.post(
                        f"{functions}/device-token",
                        json={"device_secret": device["device_secret"]},
                        timeout=20,
                    )
                    assert answer.status_code == 200, answer.text
                    seen.tokens.append(time.monotonic() - begun)
                    if turn % 2 == 0:
                        conn.execute("select test_webhook_endpoint(%s)", (endpoint[0],))
                        conn.execute(
                            "select send_command(%s, 'mdm_restart')", (device["device_id"],)
                        )
                    turn += 1
                    time.sleep(1)
                time.sleep(3)
            finally:
                over.set()
                watching.join(20)
                conn.execute("update schedules set status = 'cancelled' where id = %s", (schedule,))
            seen.webhooks = _seconds(conn, (
                "select coalesce(d.finished_at, clock_timestamp()) - d.created_at"
                " from webhook_deliveries as d where d.owner_id = %s"
            ), owner)  # fmt: skip
            seen.calls = _seconds(conn, (
                "select coalesce(min(l.created_at), clock_timestamp()) - c.created_at"
                " from device_commands as c left join mdm_api_logs as l on l.command_id = c.id"
                " where c.owner_id = %s and c.channel = 'mdm' group by c.id"
            ), owner)  # fmt: skip
    return seen


def _seconds(conn: psycopg.Connection[Any], query: str, owner: UUID) -> list[float]:
    return [took.total_seconds() for (took,) in conn.execute(query.encode(), (owner,)).fetchall()]


def _watch_rows(stack: Any, schedule: int, seen: Seen, over: threading.Event) -> None:
    last = 0
    with stack.connect(autocommit=True) as conn:
        while not over.wait(0.05):
            rows = conn.execute(
                "select c.id, extract(epoch from clock_timestamp() - r.scheduled_for)::float8"
                " from schedule_runs as r join device_commands as c on c.run_id = r.id"
                " where r.schedule_id = %s and c.id > %s order by c.id",
                (schedule, last),
            ).fetchall()
            for last, took in rows:  # noqa: B007
                seen.rows.append(took)


def code_of(stack: Any, owner: UUID) -> str:
    """Make an enrolment code as the owner would."""
    claims = json.dumps({"role": "authenticated", "sub": str(owner)})
    with stack.connect() as conn:
        conn.execute("select set_config('request.jwt.claims', %s, true)", (claims,))
        conn.execute("set local role authenticated")
        row = conn.execute("select create_enrollment_code() ->> 'code'").fetchone()
    assert row is not None
    return str(row[0])
