"""A small school in a database of its own, and the console served over it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import pytest
from tests.helpers.fleet import Fleet
from tests.helpers.members import invite, school
from tests.helpers.serving import serving

from pgfleet_console.app import create_service
from pgfleet_console.settings import Accounts, ConsoleSettings

WRONG = "the screen <did> not turn off"
PERSONS = ("admin", "viewer", "stranger")


@dataclass
class School:
    """Its people, its devices, one schedule that has run, and a command that failed."""

    database: Any
    owner: UUID
    people: dict[str, UUID]
    devices: list[int] = field(default_factory=list)
    schedule: int = 0
    run: int = 0
    failed: int = 0
    waiting: int = 0

    @contextmanager
    def fleet(self) -> Iterator[Fleet]:
        """Connect as postgres; each statement is committed."""
        with self.database.connect(autocommit=True) as conn:
            yield Fleet(conn, self.owner)

    def token(self, person: str, **claims: Any) -> str:
        """Sign one of its people in."""
        known = {
            "sub": str(self.people[person]),
            "role": "authenticated",
            "email": f"{person}@school.example",
            "exp": int(time.time()) + 3600,
        }
        return jwt.encode(known | claims, self.database.settings.jwt_secret, algorithm="HS256")


@pytest.fixture(scope="module")
def a_school(database: Any) -> School:
    """Make the school."""
    people = {person: uuid4() for person in PERSONS}
    with database.connect() as conn:
        fleet = Fleet(conn)
        owner = school(fleet, people["admin"])
        made = School(database, owner, people)
        code = invite(fleet, owner, people["admin"], None, ["view"])["code"]
        with fleet.acting(people["viewer"]):
            fleet.value("select accept_invitation(%s)", code)
        fleet.owner_id = owner
        made.devices = [
            fleet.device(f"lab-{number:02}", timezone="Europe/Berlin") for number in range(1, 6)
        ]
        made.schedule = fleet.create(
            name="Evening lock",
            action_type="lock",
            payload={},
            device_ids=made.devices,
            timezone="Europe/Berlin",
            recurrence_type="cron",
            recurrence_config={"cron_expression": "30 18 * * mon-fri"},
        )["id"]
        made.run = fleet.value("select id from run_schedule(%s)", made.schedule)
        fleet.tick(datetime.now(UTC))
        first, second, *_ = made.devices
        for device, status in ((first, "completed"), (second, "failed")):
            (command,) = fleet.claim(device)
            with fleet.as_device(device):
                fleet.value(
                    "select finish_command(%s, %s, %s, p_error => %s, p_reason => %s)",
                    command["command_id"],
                    command["attempt"],
                    status,
                    *((None, None) if status == "completed" else (WRONG, "unsupported")),
                )
            if status == "failed":
                made.failed = command["command_id"]
        made.waiting = fleet.value(
            "select min(id) from device_commands where status = 'pending' and device_id <> %s",
            second,
        )
    return made


@dataclass
class Browser:
    """One of the school's people at the console."""

    http: httpx.Client
    url: str

    def get(self, path: str, status: int = 200) -> str:
        """Give a page."""
        answer = self.http.get(path)
        assert answer.status_code == status, answer.text
        return answer.text

    def csrf(self) -> str:
        """Give what the forms of this session carry."""
        found = re.search(r'name="csrf" content="(\w+)"', self.get("/"))
        assert found is not None
        return found[1]

    def post(self, path: str, status: int = 303, **form: Any) -> httpx.Response:
        """Send a form as the page would."""
        answer = self.http.post(path, data={"csrf": self.csrf(), **form})
        assert answer.status_code == status, answer.text
        return answer

    def do(self, path: str, **form: Any) -> str:
        """Send a form, and give the page to which it leads."""
        return self.get(self.post(path, **form).headers["location"])


@pytest.fixture(scope="module")
def console(a_school: School, free_port: Callable[[], int]) -> Iterator[Callable[[str], Browser]]:
    """Serve the console, and give a function that lets one of the people in."""
    settings = ConsoleSettings(
        database_url=a_school.database.url("authenticator"),
        hosts=("127.0.0.1",),
        accounts=Accounts(jwt_secret=a_school.database.settings.jwt_secret),
    )
    with serving(create_service(settings), free_port()) as url, ExitStack() as clients:

        def enter(person: str) -> Browser:
            headers = {"Authorization": f"Bearer {a_school.token(person)}"}
            client = clients.enter_context(httpx.Client(base_url=url, headers=headers, timeout=30))
            return Browser(client, url)

        yield enter
