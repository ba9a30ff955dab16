"""Requests queued by net.http_*, over real HTTP."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from inspect import signature
from typing import Any

import psycopg
import pytest

from pgfleet_local.net import NetWorker

Conn = psycopg.Connection[Any]


@dataclass
class Target:
    """An HTTP server that notes what reaches it; its paths say how it answers."""

    url: str
    received: list[dict[str, Any]] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    target: Target

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.target.received.append(
            {
                "method": self.command,
                "path": self.path,
                "headers": self.headers.items(),
                "body": body.decode(),
                "at": time.monotonic(),
            }
        )
        status, reply = 200, b'{"ok": true}'
        if self.path == "/slow":
            self.target.release.wait(30)
        elif self.path == "/empty":
            status, reply = 204, b""
        elif self.path == "/broken":
            status = 500
        elif self.path == "/binary":
            reply = b"\xff\xfe"
        elif self.path == "/moved":
            status = 302
        try:
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "/landed")
            self.send_header("Content-Type", "application/json")
            if self.path == "/cookie":
                self.send_header("Set-Cookie", "seen=1; Path=/")
            if status != 204:
                self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)
        except BrokenPipeError:
            self.close_connection = True

    do_GET = do_POST = do_DELETE = answer

    def log_message(self, format: str, *args: Any) -> None:
        return


class Server(ThreadingHTTPServer):
    # The default of 5 refuses most of a batch that is sent at once.
    request_queue_size = 512
    daemon_threads = True


@pytest.fixture
def target() -> Iterator[Target]:
    server = Server(("127.0.0.1", 0), Handler)
    made = Target(f"http://127.0.0.1:{server.server_port}")
    server.RequestHandlerClass = type("Bound", (Handler,), {"target": made})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.release.set()
    server.shutdown()
    thread.join()
    server.server_close()


Working = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def working(empty_database: Any) -> Working:
    """Give a context in which a worker serves the database, without pauses if not told else."""

    @contextmanager
    def run(**options: Any) -> Iterator[None]:
        options.setdefault("pace", False)
        stop = threading.Event()

        async def serve() -> None:
            async with NetWorker(empty_database.url(), **options).running():
                await asyncio.to_thread(stop.wait)

        thread = threading.Thread(target=asyncio.run, args=(serve(),))
        thread.start()
        try:
            with empty_database.connect(autocommit=True) as conn:
                conn.execute("set statement_timeout = '10s'; select net.wait_until_running()")
            yield
        finally:
            stop.set()
            thread.join()

    return run


@pytest.fixture
def conn(empty_database: Any) -> Iterator[Conn]:
    with empty_database.connect(autocommit=True) as connection:
        connection.execute("set statement_timeout = '15s'")
        yield connection


def post(conn: Conn, url: str, **arguments: Any) -> int:
    names = "".join(f", {name} => %({name})s" for name in arguments)
    values = {n: json.dumps(v) if isinstance(v, dict) else v for n, v in arguments.items()}
    row = conn.execute(f"select net.http_post(%(url)s{names})", {"url": url, **values}).fetchone()
    assert row is not None
    return int(row[0])


def response(conn: Conn, request_id: int) -> dict[str, Any]:
    conn.execute("select net._await_response(%s)", (request_id,))
    row = conn.execute(
        "select to_jsonb(r) from net._http_response as r where id = %s", (request_id,)
    ).fetchone()
    assert row is not None
    return dict(row[0])


def test_a_request_goes_out_after_the_commit_and_not_before(
    conn: Conn, working: Working, target: Target
) -> None:
    with working():
        with conn.transaction():
            first = post(conn, f"{target.url}/in-transaction", body={"a": 1})
            # Another transaction's request overtakes it, so the worker was awake meanwhile.
            with psycopg.connect(conn.info.dsn, password="postgres", autocommit=True) as other:
                response(other, post(other, f"{target.url}/other"))
            assert [r["path"] for r in target.received] == ["/other"]
        answer = response(conn, first)

    assert answer["status_code"] == 200
    assert answer["content"] == '{"ok": true}'
    assert answer["content_type"] == "application/json"
    assert (answer["timed_out"], answer["error_msg"]) == (False, None)
    request = target.received[1]
    assert (request["method"], request["body"]) == ("POST", '{"a": 1}')


def test_a_rollback_sends_nothing(conn: Conn, working: Working, target: Target) -> None:
    with working():
        with conn.transaction(force_rollback=True):
            post(conn, f"{target.url}/never")
        response(conn, post(conn, f"{target.url}/later"))

    assert [request["path"] for request in target.received] == ["/later"]


def test_what_is_queued_before_the_worker_comes_is_sent(
    conn: Conn, working: Working, target: Target
) -> None:
    request_id = post(conn, f"{target.url}/early")
    with working():
        assert response(conn, request_id)["status_code"] == 200


def test_default_headers_are_those_of_pg_net(conn: Conn, working: Working, target: Target) -> None:
    with working():
        response(conn, post(conn, target.url, headers={"X-Own": "1"}))

    headers = dict(target.received[0]["headers"])
    assert headers["Accept"] == "*/*"
    assert headers["User-Agent"].startswith("pg_net/")
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Own"] == "1"
    assert "Accept-Encoding" not in headers


def test_another_content_type_is_refused(conn: Conn) -> None:
    with pytest.raises(psycopg.errors.RaiseException) as caught:
        post(conn, "http://localhost", headers={"content-type": "text/plain"})

    assert caught.value.diag.message_primary == 'Content-Type header must be "application/json"'


@pytest.mark.parametrize("url", ["notaurl", "", "//x"])
def test_a_bad_address_is_refused_at_once(conn: Conn, url: str) -> None:
    with pytest.raises(psycopg.errors.RaiseException) as caught:
        post(conn, url)

    assert caught.value.diag.message_primary == f'invalid URL "{url}": Bad scheme'


@pytest.mark.parametrize(
    ("url", "params", "expected"),
    [
        ("http://h", {"a": "b"}, "http://h/?a=b"),
        ("http://h/p?x=1#f", {"a b": "é/"}, "http://h/p?x=1&a%20b=%C3%A9%2F#f"),
        ("http://h/p", {}, "http://h/p"),
    ],
)
def test_parameters_join_the_address(
    conn: Conn, url: str, params: dict[str, str], expected: str
) -> None:
    post(conn, url, params=params)

    assert conn.execute("select url from net.http_request_queue").fetchone() == (expected,)


def test_a_timeout_is_told_in_the_words_of_pg_net(
    conn: Conn, working: Working, target: Target
) -> None:
    with working():
        answer = response(conn, post(conn, f"{target.url}/slow", timeout_milliseconds=50))

    assert answer["timed_out"] is True
    assert answer["error_msg"].startswith("Timeout of 50 ms reached. Total time: ")
    assert (answer["status_code"], answer["headers"], answer["content"]) == (None, None, None)


def test_errors_are_told_in_the_words_of_pg_net(
    conn: Conn, working: Working, free_port: Callable[[], int]
) -> None:
    with working():
        closed = response(conn, post(conn, f"http://127.0.0.1:{free_port()}/"))
        scheme = response(conn, post(conn, "ftp://127.0.0.1/"))

    assert closed["error_msg"] == "Couldn't connect to server"
    assert closed["timed_out"] is False
    assert scheme["error_msg"] == "Unsupported protocol"


@pytest.mark.parametrize(
    ("path", "status", "content"),
    [("/empty", 204, None), ("/broken", 500, '{"ok": true}'), ("/moved", 200, '{"ok": true}')],
)
def test_any_answer_is_an_answer(
    conn: Conn, working: Working, target: Target, path: str, status: int, content: str | None
) -> None:
    with working():
        answer = response(conn, post(conn, target.url + path))

    assert (answer["status_code"], answer["content"]) == (status, content)
    assert answer["error_msg"] is None


def test_a_body_that_no_text_can_hold_is_an_error(
    conn: Conn, working: Working, target: Target
) -> None:
    with working():
        answer = response(conn, post(conn, f"{target.url}/binary"))

    assert answer["error_msg"] == "the response is not valid UTF-8"


def test_get_and_delete_go_out_too(conn: Conn, working: Working, target: Target) -> None:
    with working():
        for call in ("http_get(%s)", "http_delete(%s, body => '{}')"):
            row = conn.execute(f"select net.{call}", (target.url,)).fetchone()
            assert row is not None
            response(conn, row[0])

    assert [request["method"] for request in target.received] == ["GET", "DELETE"]
    headers = dict(target.received[1]["headers"])
    assert headers["Content-Type"] == "application/x-www-form-urlencoded"


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
