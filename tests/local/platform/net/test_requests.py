"""One request: when it goes out, how it is said, and what is told of its answer."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from tests.local.platform.net.conftest import Conn, Target, Working, post, response


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
