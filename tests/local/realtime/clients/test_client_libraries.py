"""The official clients, unmodified, against tables and policies of the tests."""

from __future__ import annotations

from typing import Any

import pytest

ONE = "11111111-1111-4111-8111-111111111111"
TWO = "22222222-2222-4222-8222-222222222222"
JOBS = {"event": "INSERT", "schema": "public", "table": "jobs"}
ALL_JOBS = JOBS | {"event": "*"}


def own_channels(sub: str, **changes: str) -> list[dict[str, Any]]:
    """Ask for a device's doorbell and for its rows."""
    return [
        {"name": f"device:{sub}", "private": True, "broadcast": ["command"]},
        {"name": "rows", "changes": [ALL_JOBS | changes]},
    ]


def ring(server: Any, sub: str, number: int) -> None:
    """Ring a device's doorbell from SQL."""
    server.sql(
        "select realtime.send(jsonb_build_object('n', %s::int), 'command', 'device:' || %s)",
        number,
        sub,
    )


def test_a_device_hears_its_doorbell_and_its_rows(server: Any, listen: Any) -> None:
    one = listen(server.url, server.anon_key, own_channels(ONE), token=server.sign(sub=ONE))
    two = listen(server.url, server.anon_key, own_channels(TWO), token=server.sign(sub=TWO))
    one.ready()
    two.ready()

    ring(server, ONE, 1)
    ring(server, TWO, 2)
    server.sql("insert into public.jobs (hostname, note) values ('one', 'a'), ('two', 'b')")

    assert one.next("broadcast")["payload"]["n"] == 1
    assert two.next("broadcast")["payload"]["n"] == 2
    assert one.next("change")["new"]["note"] == "a"
    assert two.next("change")["new"]["note"] == "b"
    ring(server, ONE, 3)
    assert one.next("broadcast")["payload"]["n"] == 3
    assert one.left("broadcast") == one.left("change") == []


def test_updates_and_deletes_arrive(server: Any, listen: Any) -> None:
    one = listen(server.url, server.anon_key, own_channels(ONE), token=server.sign(sub=ONE))
    one.ready()

    (row,) = server.sql("insert into public.jobs (hostname) values ('one') returning id")
    assert one.next("change")["eventType"] == "INSERT"
    server.sql("update public.jobs set status = 'done' where id = %s", row[0])
    changed = one.next("change")
    server.sql("delete from public.jobs where id = %s", row[0])
    gone = one.next("change")

    assert (changed["new"]["status"], changed["old"]) == ("done", {"id": row[0]})
    assert (gone["eventType"], gone["old"]) == ("DELETE", {"id": row[0]})


def test_a_filter_is_obeyed(server: Any, listen: Any) -> None:
    channels = own_channels(ONE, filter="status=eq.urgent")
    one = listen(server.url, server.anon_key, channels, token=server.sign(sub=ONE))
    one.ready()

    server.sql(
        "insert into public.jobs (hostname, status) values ('one', 'queued'), ('one', 'urgent')"
    )

    assert one.next("change")["new"]["status"] == "urgent"


def test_a_refused_private_channel_reports_an_error(server: Any, listen: Any) -> None:
    one = listen(server.url, server.anon_key, own_channels(TWO)[:1], token=server.sign(sub=ONE))

    assert "Unauthorized" in one.status(f"device:{TWO}", "CHANNEL_ERROR")["error"]


def test_the_anonymous_hear_no_content(server: Any, listen: Any) -> None:
    nobody = listen(server.url, server.anon_key, own_channels(ONE)[1:])
    nobody.ready()
    one = listen(server.url, server.anon_key, own_channels(ONE), token=server.sign(sub=ONE))
    one.ready()

    server.sql("insert into public.jobs (hostname) values ('one')")
    one.next("change")

    assert all(not change["new"] for change in nobody.left("change"))


def test_a_channel_is_closed_for_good_when_its_token_ends(server: Any, listen: Any) -> None:
    one = listen(server.url, server.anon_key, own_channels(ONE), token=server.sign(sub=ONE))
    one.ready()

    # Given only now, for it would end while a client on a busy machine is still starting.
    one.order(do="set_auth", token=server.sign(sub=ONE, expires_in=2.99))
    one.status(f"device:{ONE}", "CLOSED")
    one.status("rows", "CLOSED")
    ring(server, ONE, 1)

    assert one.left("broadcast") == []


def test_a_fresh_token_keeps_the_channel_open(server: Any, listen: Any) -> None:
    one, doomed = (
        listen(server.url, server.anon_key, own_channels(ONE), token=server.sign(sub=ONE))
        for _ in range(2)
    )
    for client in (one, doomed):
        client.ready()
    for client in (one, doomed):
        client.order(do="set_auth", token=server.sign(sub=ONE, expires_in=4.99))

    one.order(do="set_auth", token=server.sign(sub=ONE))
    assert one.next("system")["message"] == "Subscribed to PostgreSQL"
    doomed.status("rows", "CLOSED")
    ring(server, ONE, 1)

    assert one.next("broadcast")["payload"]["n"] == 1


def test_clients_hear_each_other(server: Any, listen: Any) -> None:
    room = [{"name": "room", "broadcast": ["hello"]}]
    speaker, listener = (listen(server.url, server.anon_key, room) for _ in range(2))
    speaker.ready()
    listener.ready()

    speaker.order(do="send", channel="room", event="hello", payload={"y": 2})

    assert listener.next("broadcast")["payload"] == {"y": 2}


def test_a_channel_can_be_left_and_joined_again(server: Any, listen: Any, client_name: str) -> None:
    if client_name == "python":
        pytest.skip("the close of the old channel may end the new one in the Python client")
    wish = {"name": "room", "broadcast": ["say"]}
    anchor = {"name": "anchor", "broadcast": ["say"]}
    one = listen(server.url, server.anon_key, [anchor, wish])
    one.ready()

    one.order(do="leave", channel="room")
    one.status("room", "CLOSED")
    one.order(do="join", channel=wish)
    one.status("room", "SUBSCRIBED")
    server.sql("select realtime.send('{\"n\": 1}', 'say', 'room', false)")

    assert one.next("broadcast")["payload"]["n"] == 1


@pytest.mark.parametrize("action", ["drop", "close", "phx_error", "oversize"])
def test_clients_come_back_from_damage(
    own_server: Any, listen: Any, client_name: str, action: str
) -> None:
    if (client_name, action) == ("javascript", "oversize"):
        pytest.skip("the JavaScript client takes frames of any size")
    server = own_server
    one = listen(server.url, server.anon_key, own_channels(ONE), token=server.sign(sub=ONE))
    one.ready()

    server.faults(do=action)
    one.status(f"device:{ONE}", "SUBSCRIBED")
    ring(server, ONE, 1)

    assert one.next("broadcast")["payload"].get("n") == 1
