"""Short ways to arrange a fleet and to ask about it, over one database connection."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from tests.conftest import Database

Row = dict[str, Any]
HELLO = {"message": "hello"}


@dataclass
class Refusal:
    """What an error said; empty until the error has come."""

    sqlstate: str = ""
    message: str = ""
    reason: str = ""
    hint: str = ""


@dataclass
class Fleet:
    """One connection and one owner, whose devices and schedules the methods make."""

    conn: psycopg.Connection[Any]
    owner_id: UUID = field(default_factory=uuid4)

    def __post_init__(self) -> None:
        self.run(
            "insert into owners (id, name) values (%s, 'fleet') on conflict do nothing",
            self.owner_id,
        )

    def rows(self, query: str, *values: Any) -> list[Row]:
        """Give the rows of a query."""
        with self.conn.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query, values).fetchall()

    def row(self, query: str, *values: Any) -> Row:
        """Give the only row of a query."""
        (only,) = self.rows(query, *values)
        return only

    def value(self, query: str, *values: Any) -> Any:
        """Give the only value of a query."""
        (only,) = self.row(query, *values).values()
        return only

    def run(self, query: str, *values: Any) -> None:
        """Run a statement that answers nothing."""
        self.conn.execute(query, values)

    def insert(self, table: str, **columns: Any) -> Row:
        """Insert one row and give it back."""
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        places = sql.SQL(", ").join([sql.Placeholder()] * len(columns))
        query = sql.SQL("insert into {} ({}) values ({}) returning *").format(
            sql.Identifier(table), names, places
        )
        values = [Jsonb(value) if isinstance(value, dict) else value for value in columns.values()]
        with self.conn.cursor(row_factory=dict_row) as cursor:
            found = cursor.execute(query, values).fetchone()
        assert found is not None
        return found

    def device(self, hostname: str | None = None, **columns: Any) -> int:
        """Make one device and give its id."""
        name = hostname or f"host-{uuid4().hex[:10]}"
        device_id: int = self.insert(
            "devices", **{"owner_id": self.owner_id, "hostname": name, **columns}
        )["id"]
        return device_id

    def devices(self, count: int) -> list[int]:
        """Make devices in one statement and give their ids."""
        made = self.rows(
            "insert into devices (owner_id, hostname)"
            " select %s, 'bulk-' || gen_random_uuid() from generate_series(1, %s) returning id",
            self.owner_id,
            count,
        )
        return sorted(row["id"] for row in made)

    def auth_id(self, device_id: int) -> UUID:
        """Give the sub claim of a device's token."""
        found: UUID = self.value("select auth_id from devices where id = %s", device_id)
        return found

    def create(self, **spec: Any) -> Row:
        """Create a schedule from JSON; its owner and its action have defaults."""
        whole = {
            "owner_id": str(self.owner_id),
            "name": "a schedule",
            "action_type": "broadcast_message",
            "payload": HELLO,
            **spec,
        }
        answer: Row = self.value("select create_schedule(%s)", Jsonb(whole))
        return answer

    def minutely(self, device_ids: Sequence[int], start: datetime, **spec: Any) -> Row:
        """Create a schedule that is due each minute from an instant on."""
        return self.create(
            recurrence_type="interval",
            recurrence_config={"minutes": 1},
            start_time=start.isoformat(),
            device_ids=list(device_ids),
            **spec,
        )

    def tick(self, now: datetime | None = None) -> Row:
        """Tick once, at an instant or now."""
        answer: Row = self.value("select fleet.tick(coalesce(%s, clock_timestamp()))", now)
        assert answer.get("errors") == [], answer
        return answer

    def tick_until_idle(self, now: datetime | None = None, most: int = 500) -> int:
        """Tick until no tick has work left; give how many it took."""
        for count in range(1, most + 1):
            if not self.tick(now)["more"]:
                return count
        raise AssertionError(f"there is still work after {most} ticks")

    def schedule(self, schedule_id: int) -> Row:
        """Read a schedule."""
        return self.row("select * from schedules where id = %s", schedule_id)

    def runs(self, schedule_id: int) -> list[Row]:
        """Read the ledger of a schedule, in the order of its instants."""
        return self.rows(
            "select * from schedule_runs where schedule_id = %s order by scheduled_for", schedule_id
        )

    def commands(self, schedule_id: int) -> list[Row]:
        """Read the commands of a schedule."""
        return self.rows(
            "select * from device_commands where schedule_id = %s order by id", schedule_id
        )

    def command(self, command_id: int) -> Row:
        """Read one command."""
        return self.row("select * from device_commands where id = %s", command_id)

    def send(self, device_id: int, kind: str = "broadcast_message", **named: Any) -> Row:
        """Send an ad-hoc command, with further parameters by name."""
        payload = named.pop("p_payload", HELLO if kind == "broadcast_message" else {})
        extra = "".join(f", {name} => %s" for name in named)
        return self.row(
            f"select * from send_command(%s, %s, %s{extra})",
            device_id,
            kind,
            Jsonb(payload),
            *named.values(),
        )

    @contextmanager
    def acting(
        self, sub: UUID | str | None, role: str = "authenticated", **claims: Any
    ) -> Iterator[None]:
        """Be a signed-in caller for a while."""
        text = json.dumps({"role": role, **({"sub": str(sub)} if sub else {}), **claims})
        self.conn.execute("select set_config('request.jwt.claims', %s, true)", (text,))
        self.conn.execute(sql.SQL("set local role {}").format(sql.Identifier(role)))
        try:
            yield
        finally:
            if self.conn.info.transaction_status != psycopg.pq.TransactionStatus.INERROR:
                self.conn.execute("reset role")
                self.conn.execute("select set_config('request.jwt.claims', '', true)")

    @contextmanager
    def as_device(self, device_id: int) -> Iterator[None]:
        """Be a device for a while."""
        with self.acting(self.auth_id(device_id)):
            yield

    def claim(
        self, device_id: int, limit: int = 10, journal: UUID | None = None, now: Any = None
    ) -> list[Row]:
        """Let a device claim commands, at an instant or now."""
        with self.as_device(device_id):
            return self.rows(
                "select * from fleet.claim_commands(%s, %s, coalesce(%s, clock_timestamp()))",
                limit,
                journal,
                now,
            )

    def finish(self, device_id: int, command: Row, status: str = "completed", **more: Any) -> Row:
        """Let a device finish what it claimed, with now, result, error and reason where given."""
        with self.as_device(device_id):
            answer: Row = self.value(
                "select fleet.finish_command(%s, %s, %s, %s, %s, %s,"
                " coalesce(%s, clock_timestamp()))",
                command.get("command_id", command.get("id")),
                more.get("attempt", command["attempt"]),
                status,
                Jsonb(more["result"]) if "result" in more else None,
                more.get("error"),
                more.get("reason"),
                more.get("now"),
            )
        return answer

    @contextmanager
    def refused(self, sqlstate: str, reason: str, *words: str) -> Iterator[Refusal]:
        """Expect an error with a hint; what was written before it is still there afterwards."""
        refusal = Refusal()
        with pytest.raises(psycopg.Error) as caught, self.conn.transaction():
            yield refusal
        diag = caught.value.diag
        refusal.sqlstate = diag.sqlstate or ""
        refusal.message = diag.message_primary or ""
        refusal.reason = diag.message_detail or ""
        refusal.hint = diag.message_hint or ""
        assert (refusal.sqlstate, refusal.reason) == (sqlstate, reason), refusal
        assert refusal.hint, "the error does not say what to do next"
        for word in words:
            assert word in refusal.message, refusal.message
        # Whoever was acting is signed out with the savepoint.
        self.conn.execute("reset role")
        self.conn.execute("select set_config('request.jwt.claims', '', true)")

    def break_rows(self, admin: psycopg.Connection[Any], query: str, *values: Any) -> None:
        """Write past every trigger, as only the superuser of the platform could."""
        admin.execute("set session_replication_role = replica")
        admin.execute(query, values)
        admin.execute("set session_replication_role = origin")
        admin.commit()


@pytest.fixture
def fleet(db: psycopg.Connection[Any]) -> Fleet:
    """Give a fleet that is gone after the test."""
    return Fleet(db)


@pytest.fixture
def connect(own_database: Database) -> Iterator[Callable[..., Fleet]]:
    """Give a function that opens sessions, which commit, on a database of the test's own."""
    with ExitStack() as stack:

        def open_session(role: str = "postgres", owner: Fleet | None = None) -> Fleet:
            conn = stack.enter_context(own_database.connect(role, autocommit=True))
            return Fleet(conn, owner.owner_id) if owner else Fleet(conn)

        yield open_session
