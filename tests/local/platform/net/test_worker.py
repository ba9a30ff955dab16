"""The worker: its pace, its batches, and what it survives."""

from __future__ import annotations

import time
from inspect import signature
from typing import Any

import pytest
from tests.local.platform.net.conftest import Conn, Target, Working, post, response

from pgfleet_local.net import NetWorker


def test_a_slow_answer_holds_nobody_back(conn: Conn, working: Working, target: Target) -> None:
    with working():
        slow = post(conn, f"{target.url}/slow", timeout_milliseconds=20_000)
        assert response(conn, post(conn, f"{target.url}/fast"))["status_code"] == 200
        target.release.set()
        assert response(conn, slow)["status_code"] == 200


def test_paced_answers_of_a_batch_come_together(
    conn: Conn, working: Working, target: Target
) -> None:
    with working(pace=True):
        with conn.transaction():
            slow = post(conn, f"{target.url}/slow", timeout_milliseconds=20_000)
            fast = post(conn, f"{target.url}/fast")
        while len(target.received) < 2:
            time.sleep(0.01)
        unseen = conn.execute("select count(*) from net._http_response").fetchone()
        collected = conn.execute(
            "select (net._http_collect_response(%s)).status", (fast,)
        ).fetchone()
        target.release.set()
        response(conn, slow)
        seen = conn.execute("select count(*) from net._http_response").fetchone()

    assert (unseen, collected, seen) == ((0,), ("PENDING",), (2,))


def test_a_paced_worker_pauses_between_batches(
    conn: Conn, working: Working, target: Target
) -> None:
    with working(pace=True, batch_size=2):
        with conn.transaction():
            last = [post(conn, target.url) for _ in range(3)][-1]
        response(conn, last)

    times = sorted(request["at"] for request in target.received)
    assert times[1] - times[0] < 0.5 < times[2] - times[1]


def test_the_pace_is_the_default() -> None:
    assert signature(NetWorker).parameters["pace"].default is True


def test_a_burst_keeps_the_rhythm_of_pg_net(conn: Conn, working: Working, target: Target) -> None:
    # The first call and the one that finds the worker resting go out at once; whatever comes after
    # them waits for the end of a whole pause, and goes out together.
    with working(pace=True):
        began = time.monotonic()
        for number in range(4):
            time.sleep(max(0.0, began + number * 0.2 - time.monotonic()))
            last = post(conn, f"{target.url}/{number}")
        response(conn, last)

    at = [request["at"] for request in target.received]
    assert [request["path"] for request in target.received[:2]] == ["/0", "/1"]
    assert at[1] - at[0] < 0.5
    assert at[2] - at[1] > 0.95
    assert at[3] - at[2] < 0.2


def test_what_one_batch_waits_for_holds_up_the_next(
    conn: Conn, working: Working, target: Target
) -> None:
    with working(pace=True):
        slow = post(conn, f"{target.url}/slow", timeout_milliseconds=20_000)
        while not target.received:
            time.sleep(0.01)
        later = post(conn, f"{target.url}/later")
        time.sleep(1.2)
        sent = [request["path"] for request in target.received]
        target.release.set()
        response(conn, slow)
        response(conn, later)

    assert sent == ["/slow"]
    assert target.received[1]["path"] == "/later"


def test_cookies_are_nobody_elses(conn: Conn, working: Working, target: Target) -> None:
    with working():
        first = response(conn, post(conn, f"{target.url}/cookie"))
        response(conn, post(conn, f"{target.url}/next"))

    assert first["headers"]["set-cookie"] == "seen=1; Path=/"
    assert "Cookie" not in dict(target.received[1]["headers"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("headers = '[1]'", "the headers are no JSON object"),
        ("headers = '\"x\"'", "the headers are no JSON object"),
        ('headers = \'{"a": "x\\ny"}\'', "Illegal header value b'x\\ny'"),
        ('headers = \'{"a b": "x"}\'', "Illegal header name b'a b'"),
        ("url = 'http://127.0.0.1:99999/'", "URL using bad/illegal format or missing URL"),
        ("url = 'http://[::1/'", "URL using bad/illegal format or missing URL"),
        ("url = 'no address at all'", "Unsupported protocol"),
        ("timeout_milliseconds = -1", "A libcurl function was given a bad argument"),
    ],
)
@pytest.mark.parametrize("pace", [False, True])
def test_no_request_ends_the_worker(
    conn: Conn, working: Working, target: Target, change: str, message: str, pace: bool
) -> None:
    with conn.transaction():
        bad = post(conn, target.url)
        conn.execute(f"update net.http_request_queue set {change}")
        good = post(conn, target.url)
    with working(pace=pace):
        assert response(conn, good)["status_code"] == 200
        assert response(conn, bad)["error_msg"] == message


def test_the_worker_survives_that_its_tables_are_away(
    conn: Conn, empty_database: Any, working: Working, target: Target
) -> None:
    with working(), empty_database.connect("supabase_admin", autocommit=True) as admin:
        admin.execute("alter schema net rename to away")
        admin.execute("notify pgfleet_net")
        time.sleep(0.3)
        admin.execute("alter schema away rename to net")
        assert response(conn, post(conn, target.url))["status_code"] == 200


def test_old_answers_go(conn: Conn, working: Working, target: Target) -> None:
    conn.execute(
        "insert into net._http_response (id, created) values (0, now() - interval '7 hours')"
    )
    with working():
        kept = post(conn, target.url)
        response(conn, kept)

    assert conn.execute("select id from net._http_response").fetchall() == [(kept,)]


def test_a_second_worker_waits_for_the_first(conn: Conn, working: Working, target: Target) -> None:
    with working(), working():
        with conn.transaction():
            ids = [post(conn, target.url) for _ in range(20)]
        for request_id in ids:
            response(conn, request_id)

    assert len(target.received) == 20


def test_many_requests_all_get_their_answer(conn: Conn, working: Working, target: Target) -> None:
    with working():
        with conn.transaction():
            conn.execute(
                "select net.http_post(%s, timeout_milliseconds => 60000)"
                " from generate_series(1, 250)",
                (target.url,),
            ).fetchall()
        while conn.execute("select count(*) from net._http_response").fetchone() != (250,):
            time.sleep(0.02)
        refused = conn.execute("select count(*) from net._http_response where error_msg <> ''")

    assert refused.fetchone() == (0,)
    assert len(target.received) == 250


def test_the_worker_survives_losing_its_connections(
    conn: Conn, working: Working, target: Target
) -> None:
    with working():
        conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = 'pg_net stand-in' and datname = current_database()"
        )
        assert response(conn, post(conn, target.url))["status_code"] == 200
