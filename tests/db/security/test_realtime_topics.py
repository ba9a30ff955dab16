"""A device hears its own topic, and nobody hears another's."""

from __future__ import annotations

from typing import Any

import pytest

CALLERS = (
    "anon",
    "nobody",
    "member",
    "stranger",
    "device",
    "sibling",
    "retired",
    "foreign_device",
)


def heard(world: Any, caller: str, topic: str) -> list[str]:
    """Ask as Realtime does at a join: a probe row, read back under the caller's claims."""
    with world.acting("service_role") as conn:
        conn.execute("reset role")
        conn.execute(
            "insert into realtime.messages (topic, extension, event, private, payload)"
            " values (%s, 'broadcast', 'probe', true, '{}')",
            (topic,),
        )
        world.become(conn, caller)
        conn.execute("select set_config('realtime.topic', %s, true)", (topic,))
        rows = conn.execute("select topic from realtime.messages where event = 'probe'").fetchall()
        return [found for (found,) in rows]


@pytest.mark.parametrize("caller", CALLERS)
def test_only_the_device_itself_hears_its_topic(world: Any, caller: str) -> None:
    topic = f"device:{world.mine.device_auth}"
    assert heard(world, caller, topic) == ([topic] if caller == "device" else [])


@pytest.mark.parametrize(
    "topic", ["device:", "device:%", "fleet", "device:{sibling_auth}", "{device_auth}"]
)
def test_a_device_hears_no_other_topic(one_world: Any, topic: str) -> None:
    assert heard(one_world, "device", topic.format(**vars(one_world.mine))) == []


def test_a_retired_device_hears_its_old_topic_no_more(one_world: Any) -> None:
    assert heard(one_world, "retired", f"device:{one_world.mine.retired_auth}") == []


@pytest.mark.parametrize("caller", ["anon", "member", "device"])
@pytest.mark.parametrize("extension", ["broadcast", "presence"])
def test_nobody_sends_to_a_topic(one_world: Any, caller: str, extension: str) -> None:
    topic = f"device:{one_world.mine.device_auth}"
    with one_world.acting(caller) as conn:
        conn.execute("select set_config('realtime.topic', %s, true)", (topic,))
        answer = one_world.outcome(
            conn,
            "insert into realtime.messages (topic, extension, event, private, payload)"
            " values (%s, %s, 'command', true, '{}')",
            topic,
            extension,
        )
        assert answer[0] == "42501"
        conn.execute("select realtime.send('{\"planted\": 1}', 'command', %s, true)", (topic,))
        conn.execute("reset role")
        sent = conn.execute("select count(*) from realtime.messages where payload ? 'planted'")
        assert sent.fetchone() == (0,)


def test_a_deleted_command_tells_listeners_no_more_than_its_id(one_world: Any) -> None:
    # Row security cannot be asked about a row that is gone, so everybody hears of it.
    with one_world.database.connect() as conn:
        identity = conn.execute(
            "select relreplident::text from pg_class where oid = 'public.device_commands'::regclass"
        ).fetchone()
        published = conn.execute(
            "select tablename from pg_publication_tables where pubname = 'supabase_realtime'"
        ).fetchall()
    assert identity == ("d",)
    assert published == [("device_commands",)]
