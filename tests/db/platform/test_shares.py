"""Claims of the functions: as much as there is room for, each owner's first before any second."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any
from uuid import uuid4

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet


def make_owner(db: Any) -> str:
    owner = str(uuid4())
    db.execute("insert into owners (id, name) values (%s, 'school')", (owner,))
    return owner


def make_integration(db: Any, owner: str, name: str) -> int:
    settings = {"rate_per_second": 1000, "burst": 1000}
    spec = {"name": name, "integration_type": "simplemdm", "owner_id": owner, "settings": settings}
    found = db.execute("select id from create_integration(%s, 'a-key')", (Jsonb(spec),)).fetchone()
    return int(found[0])


def make_messages(db: Any, owner: str, name: str, count: int) -> int:
    spec = {"owner_id": owner, "url": f"https://{name}.example.com/", "name": name}
    made = db.execute("select create_webhook_endpoint(%s)", (Jsonb(spec),)).fetchone()[0]
    db.execute(
        "insert into webhook_deliveries"
        " (endpoint_id, owner_id, event, event_id, payload, status, next_attempt_at)"
        " select %s, %s, 'run.failed', 'evt_' || n, '{}', 'pending', now() - interval '1 hour'"
        " from generate_series(1, %s) as n",
        (made["id"], owner, count),
    )
    return int(made["id"])


def make_commands(db: Any, owner: str, name: str, count: int) -> int:
    integration = make_integration(db, owner, name)
    db.execute(
        "with d as (insert into devices (owner_id, hostname)"
        " select %s, %s || '-' || n from generate_series(1, %s) as n returning id)"
        " insert into device_links (device_id, integration_id, owner_id, external_id)"
        " select id, %s, %s, id::text from d",
        (owner, name, count, integration, owner),
    )
    db.execute(
        "select send_command(l.device_id, 'mdm_refresh') from device_links as l"
        " where l.integration_id = %s",
        (integration,),
    )
    return integration


def make_sync(db: Any, owner: str, name: str, _: int) -> int:
    return make_integration(db, owner, name)


def make_rereads(db: Any, owner: str, name: str, count: int) -> int:
    integration = make_integration(db, owner, name)
    db.execute(
        "insert into fleet.mdm_rereads (integration_id, owner_id, external_id, asked_at, look_at)"
        " select %s, %s, n::text, now(), now() from generate_series(1, %s) as n",
        (integration, owner, count),
    )
    return integration


def make_uploads(db: Any, owner: str, name: str, count: int) -> int:
    integration = make_integration(db, owner, name)
    for number in range(count):
        db.execute(
            "select upload_profile(%s, '<plist/>', %s, '{}')", (f"{name} {number}", integration)
        )
    return integration


LISTED = "select coalesce(jsonb_agg(c), '[]') from fleet.{}(%s) as c"
CLAIMS: dict[str, tuple[Any, str, str]] = {
    "messages": (
        make_messages,
        "select coalesce(jsonb_agg(to_jsonb(c)), '[]')"
        " from fleet.worker_claim_deliveries('webhook', %s) as c",
        "endpoint_id",
    ),
    "commands": (make_commands, "select fleet.worker_claim_mdm(%s)", "integration_id"),
    "syncs": (make_sync, LISTED.format("worker_claim_mdm_syncs"), "integration_id"),
    "rereads": (make_rereads, LISTED.format("worker_claim_mdm_rereads"), "integration_id"),
    "uploads": (make_uploads, LISTED.format("worker_claim_profile_uploads"), "integration_id"),
}


class Waiting:
    """One owner with much that waits through many ways, and two with little."""

    def __init__(self, db: Any, kind: str) -> None:
        self.db = db
        make, self.query, self.way = CLAIMS[kind]
        # Only so much of a sync can wait: it is one of an integration.
        self.each = 1 if kind == "syncs" else 9
        greedy, *modest = (make_owner(db) for _ in range(3))
        self.greedy, self.modest = greedy, modest
        self.owners: dict[int, str] = {}
        for number in range(7):
            self.owners[make(db, greedy, f"greedy-{number}", self.each)] = greedy
        for owner in modest:
            self.owners[make(db, owner, f"modest-{owner[:8]}", 1)] = owner

    def claim(self, **room: Any) -> list[int]:
        """Claim, and give the way of each piece."""
        found = self.db.execute(self.query, (Jsonb(room),)).fetchone()[0]
        return [one[self.way] for one in (found["sends"] if isinstance(found, dict) else found)]

    def by_owner(self, ways: list[int]) -> Counter[str]:
        return Counter(self.owners[way] for way in ways)


@pytest.fixture(params=list(CLAIMS))
def waiting(db: Any, request: pytest.FixtureRequest) -> Waiting:
    # What other tests of the module have left does not wait.
    return Waiting(db, request.param)


def test_each_owner_has_its_first_before_anybody_has_a_second(waiting: Waiting) -> None:
    claimed = waiting.claim(all=3, owner=100, way=1)
    assert waiting.by_owner(claimed) == dict.fromkeys([waiting.greedy, *waiting.modest], 1)


def test_nobody_gets_more_than_there_is_room_for(waiting: Waiting) -> None:
    claimed = waiting.claim(all=50, owner=4, way=2)
    ways = Counter(claimed)
    assert waiting.by_owner(claimed) == {
        waiting.greedy: 4,
        **dict.fromkeys(waiting.modest, 1),
    }
    assert max(ways.values()) <= 2


def test_whoever_has_no_room_is_passed_over(waiting: Waiting) -> None:
    first = waiting.modest[0]
    owners = {waiting.greedy: 2, first: 0}
    claimed = waiting.claim(all=50, owner=5, way=1, owners=owners)
    assert waiting.by_owner(claimed) == {waiting.greedy: 2, waiting.modest[1]: 1}

    [theirs] = [way for way, owner in waiting.owners.items() if owner == first]
    assert waiting.claim(all=50, owner=0, way=5, owners={first: 5}, ways={theirs: 0}) == []
    assert waiting.claim(all=50, owner=0, way=0, owners={first: 5}, ways={theirs: 5}) == [theirs]


def test_without_a_limit_all_of_it_is_claimed_once(waiting: Waiting) -> None:
    claimed: list[int] = []
    while found := waiting.claim():
        claimed += found
    expected = Counter(
        {
            way: waiting.each if owner == waiting.greedy else 1
            for way, owner in waiting.owners.items()
        }
    )
    if waiting.way == "endpoint_id":
        # Of all functions together no endpoint is called more often at once.
        expected = Counter({way: min(count, 4) for way, count in expected.items()})
    assert Counter(claimed) == expected


def test_no_room_is_no_claim(waiting: Waiting) -> None:
    assert waiting.claim(all=0, owner=5, way=5) == []
    assert waiting.claim(all=-3, owner=5, way=5) == []


def test_functions_that_are_up_hear_a_poke_once_a_transaction(database: Any) -> None:
    with database.connect(autocommit=True) as listener, database.connect() as conn:
        listener.execute("listen pgfleet_poke")
        conn.execute("select fleet.poke('mdm-dispatch'), fleet.poke('mdm-dispatch', '{\"n\": 1}')")
        conn.execute("select fleet.poke('notify-dispatch')")
        assert list(listener.notifies(timeout=0.1)) == []
        conn.commit()
        heard = [said.payload for said in listener.notifies(timeout=2, stop_after=2)]
        assert sorted(heard) == ["mdm-dispatch", "notify-dispatch"]
        assert list(listener.notifies(timeout=0.1)) == []


def test_a_poke_waits_two_seconds_for_its_answer_at_most(fleet: Fleet) -> None:
    fleet.run("select fleet.set_setting('functions_url', %s)", Jsonb("http://127.0.0.1:9/v1"))
    fleet.value("select fleet.poke('mdm-dispatch', %s)", json.dumps({"at": "now"}))
    assert fleet.row("select * from net.http_request_queue")["timeout_milliseconds"] == 2000
